"""Moments of resamples, and errors within a resample: by products of weights with rows.

What resamples differ in is how often a unit (a row, a cluster of rows, or a cell of a table) is
there. Moments are linear in that, so that those of many resamples are one product of weights and
of the rows' products of features. A statistic is a function of moments, and its derivative in a
unit is the derivative in moments times what the unit adds to them. So no statistic meets rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
from jaxtyping import Array, Float, Int

from jaxmix.sample.moments import Moments
from jaxmix.sample.resamples.products import Parts
from jaxmix.sample.resamples.resamplers import ROOM, Resampler
from jaxmix.solvers.compiling import compiled
from jaxmix.solvers.lanes import by_chunks

_Tree = TypeVar("_Tree")  # a pytree of arrays

_LANES = {"cpu": 128}  # resamples formed at once: their weights share a cache
_MANY = 1024  # where resamples are formed side by side


@compiled("kind")
def resampled(resampler: Resampler, key: Array, indices: Int[Array, " r"], *, kind: str) -> Moments:
    """Return the moments of resamples; resample i is drawn by ``fold_in(key, i)``.

    Parameters
    ----------
    resampler
        The sample.
    key
        JAX key.
    indices
        ``(r,)`` numbers of the resamples.
    kind
        One of `jaxmix.sample.resamples.draws.KINDS`.

    Returns
    -------
    Moments
        With a leading axis of resamples on what resamples differ in; see `for_each`.
    """

    def some(own: Int[Array, " c"]) -> Parts:
        return resampler.parts(_keys(key, own), kind)

    at_once = min(_lanes(), max(1, ROOM // resampler.num_held))
    return resampler.like(by_chunks(some, indices, size=at_once))


@compiled("kind")
def drawn(
    resampler: Resampler, key: Array, indices: Int[Array, " r"], *, kind: str
) -> tuple[Float[Array, "r u"], Moments]:
    """Return the draws of resamples beside their moments.

    Parameters
    ----------
    resampler, key, indices, kind
        The resamples, as in `resampled`; all draws are held.

    Returns
    -------
    times, moments
        How often each unit occurs in each resample, and what `resampled` returns.
    """

    def some(own: Int[Array, " c"]) -> tuple[Array, Parts]:
        times = resampler.draw(_keys(key, own), kind)
        return times, resampler.at(times)

    times, parts = by_chunks(some, indices, size=_lanes())
    return times, resampler.like(parts)


@compiled()
def spread_within(
    resampler: Resampler, times: Float[Array, "r u"], slopes: Moments, found: Moments
) -> tuple[Float[Array, "r p"], Float[Array, "r p"]]:
    """Return standard errors and accelerations within each of several resamples.

    Parameters
    ----------
    resampler
        The sample.
    times, found
        The draws of the resamples and their moments (`drawn`).
    slopes
        Derivatives of p numbers with respect to the moments, with leading axes ``(r, p)``.
    """

    def one(slopes: Moments, parts: Parts, times: Array) -> tuple[Array, Array]:
        return resampler.spread(slopes, parts.within(found), times)

    at_once = max(1, ROOM // (resampler.num_units * slopes.num_rows.shape[1]))
    return by_chunks(jax.vmap(one), slopes, Parts.taken(found), times, size=at_once)


def for_each(function: Callable[[Moments], _Tree], found: Moments, size: int) -> _Tree:
    """Apply a function to the moments of each resample, `size` of them at once.

    Parameters
    ----------
    function
        From `Moments` to a pytree of arrays.
    found
        The moments of resamples (`resampled`).
    size
        Resamples evaluated at once.
    """

    def one(parts: Parts) -> _Tree:
        return function(parts.within(found))

    evaluated: _Tree = by_chunks(jax.vmap(one), Parts.taken(found), size=size)
    return evaluated


def _lanes() -> int:
    return _LANES.get(jax.default_backend(), _MANY)


def _keys(key: Array, indices: Int[Array, " r"]) -> Array:
    return jax.vmap(jax.random.fold_in, (None, 0))(key, indices)
