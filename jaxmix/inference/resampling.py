"""Bootstrap resamples: drawn by index, estimated in chunks, aligned to the estimate."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int

from jaxmix import arguments
from jaxmix.data.roles import CausalData
from jaxmix.inference.drawing import KINDS, Units, draw_units, rows_of, units_of
from jaxmix.inference.intervals import acceleration
from jaxmix.sample import moments
from jaxmix.sample.features import Views, encode
from jaxmix.sample.moments import Moments
from jaxmix.solvers.compiling import compiled
from jaxmix.solvers.linalg import power_of_two
from jaxmix.status import InputError

_CHUNK_NUMBERS = 1 << 23  # weights held at once (64 MiB in float64)
_MAX_CHUNK = 1024
_BLOCKS_WATCHED = 50  # blocks between which a progress callback is called

Statistic = Callable[[Moments], object]
Progress = Callable[[int, int], None]


def bootstrap(
    statistic: Statistic,
    data: CausalData | Views | Float[Array, "a d_z d_x d_y"],
    *,
    key: Array,
    num_resamples: int,
    kind: str | None = None,
    outcome_values: Float[Array, " d_y"] | None = None,
    strata: object = None,
    errors: tuple[str, ...] = (),
    chunk_size: int | None = None,
    progress: Progress | None = None,
) -> Any:
    """Evaluate a statistic of the moments on bootstrap resamples.

    Resample i is drawn from ``fold_in(key, i)``, so that neither chunks nor the number of
    resamples change a draw.

    Parameters
    ----------
    statistic
        From `jaxmix.moments.Moments` to a pytree of arrays; pure, and hashable to be compiled
        once. A `jax.tree_util.Partial` of one may hold arrays, such as where to start from.
    data
        A table (`CausalData`), its `Views`, or counts for `jaxmix.moments.from_counts`.
    key
        JAX key.
    num_resamples
        Number of resamples.
    kind
        See `jaxmix.inference.drawing`; by default multinomial for counts and for rows with
        multiplicities, Bayesian otherwise.
    outcome_values
        For a table of counts, as in `jaxmix.moments.from_counts`.
    strata
        Labels of rows (or of the cells of a table), within which to draw; see
        `jaxmix.inference.drawing`.
    errors
        Names among a statistic that is a dict, whose standard errors within each resample are
        wanted too (see `spread`).
    chunk_size
        Resamples evaluated at once; bounded by memory by default.
    progress
        Called with (resamples done, resamples in all) between blocks.

    Returns
    -------
    pytree
        The statistic's, each array with a leading axis of resamples; with `errors` a pair of it
        and of a dict of standard errors.

    References
    ----------
    Efron (1979), Annals of Statistics 7; Hanley, MacGibbon (2006) on Poisson weights; Rubin
    (1981), Annals of Statistics 9.

    Examples
    --------
    >>> import jax, jaxmix as jm
    >>> counts = jm.populations.paper_main().counts(jax.random.key(0), 10_000)
    >>> def effect(m):
    ...     return jm.synthetic.effect_law(m, 2).mean
    >>> draws = bootstrap(effect, counts, key=jax.random.key(1), num_resamples=200)
    >>> draws.shape
    (200,)
    """
    _check_arguments(statistic, key, num_resamples, errors, chunk_size, progress)
    if kind is not None:
        arguments.choice("kind", kind, KINDS, f"use one of {', '.join(KINDS)}")
    if isinstance(data, CausalData):
        data = encode(data, reduce=True)
    if isinstance(data, Views):
        units = units_of(data, strata)
        repeated, size = data.repeated, len(data.t)
    else:
        data = moments.as_inexact(_checked_counts(data))
        units = _cells_as_units(data, strata)
        repeated, size = True, data.size
    if not isinstance(statistic, jax.tree_util.Partial):
        statistic = jax.tree_util.Partial(statistic)
    kind = kind or ("multinomial" if repeated else "bayesian")
    room = _CHUNK_NUMBERS // 4 if errors else _CHUNK_NUMBERS
    chunk = chunk_size or min(_MAX_CHUNK, max(1, room // size))
    chunk = min(chunk, num_resamples)
    num_chunks = -(-num_resamples // chunk)
    blocks = min(num_chunks, _BLOCKS_WATCHED) if progress else 1
    per_block = -(-num_chunks // blocks) * chunk
    results = []
    for start in range(0, num_resamples, per_block):
        # Every block has one shape, so that it is compiled once; the surplus is cut off.
        indices = jnp.arange(start, start + per_block)
        results.append(
            _evaluate(statistic, data, units, outcome_values, key, indices, kind, errors, chunk)
        )
        if progress:
            jax.block_until_ready(results[-1])
            progress(min(start + per_block, num_resamples), num_resamples)
    return jax.tree.map(lambda *parts: jnp.concatenate(parts)[:num_resamples], *results)


def _check_arguments(
    statistic: object,
    key: object,
    num_resamples: object,
    errors: object,
    chunk_size: object,
    progress: object,
) -> None:
    """Refuse arguments of the wrong kind, which would fail deep inside a compiled program."""
    if not callable(statistic):
        told = arguments.told(statistic)
        raise InputError(f"statistic is {told}: give a function of moments")
    arguments.key(key)
    arguments.whole("num_resamples", num_resamples, least=1)
    if chunk_size is not None:
        arguments.whole("chunk_size", chunk_size, least=1)
    names = isinstance(errors, tuple) and all(isinstance(name, str) for name in errors)
    if not names:
        raise InputError(f"errors is {arguments.told(errors)}: give a tuple of names")
    arguments.callback("progress", progress)


def _checked_counts(data: object) -> Array:
    what = "give a CausalData, its views, or counts by treatment, z, x and outcome"
    if not isinstance(data, jax.Array):
        numbers = arguments.array("data", data, what)
        data = data if isinstance(data, np.ndarray) and data.dtype.kind in "biuf" else numbers
    cells = jnp.asarray(data)
    if cells.ndim != 4:
        raise InputError(f"data, a table of counts, has {cells.ndim} directions, not 4: {what}")
    return cells


def _cells_as_units(cells: Float[Array, "a d_z d_x d_y"], strata: object) -> Units:
    if strata is None:
        return Units(cells.reshape(-1))
    labels = np.asarray(strata)
    if labels.shape != cells.shape:
        raise ValueError(f"strata has shape {labels.shape}: give one label for each cell")
    found, codes = np.unique(labels.reshape(-1), return_inverse=True)
    return Units(cells.reshape(-1), strata=jnp.asarray(codes), num_strata=len(found))


@compiled("kind", "errors", "chunk")
def _evaluate(
    statistic: Statistic, data: Views | Array, units: Units, outcome_values: Array | None,
    key: Array, indices: Int[Array, " r"], kind: str, errors: tuple[str, ...], chunk: int,
) -> Any:  # fmt: skip
    of_units = _of_units(statistic, data, units, outcome_values)

    def evaluate(drawn: Float[Array, " u"]) -> Any:
        if not errors:
            return of_units(drawn)
        found, se, _ = differentiate(of_units, drawn, units, errors)
        return found, se

    def one_chunk(own: Int[Array, " c"]) -> Any:
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, own)
        return jax.vmap(evaluate)(draw_units(keys, units, kind))

    results = jax.lax.map(one_chunk, indices.reshape(-1, chunk))
    # By size: an axis without entries, such as k - 1 = 0 shares, leaves nothing to infer one from.
    return jax.tree.map(lambda a: a.reshape(a.shape[0] * a.shape[1], *a.shape[2:]), results)


def _of_units(
    statistic: Statistic, data: Views | Array, units: Units, outcome_values: Array | None
) -> Callable[[Float[Array, " u"]], Any]:
    """Return the statistic as a function of how often each unit occurs."""

    def of(times: Float[Array, " u"]) -> Any:
        if isinstance(data, Views):
            rows = rows_of(times, units, data)
            return statistic(moments.from_rows(dataclasses.replace(data, multiplicity=rows)))
        return statistic(moments.from_counts(times.reshape(data.shape), outcome_values))

    return of


def spread(
    statistic: Statistic, views: Views, names: tuple[str, ...], strata: object = None
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return standard errors and accelerations by the influence of units, in strata or not.

    ``se^2 = sum_i m_i I_i^2`` with I_i the derivative of the statistic in m_i, how often the row
    (or cluster) occurs, minus its mean in the stratum. Those of a resample are of a sample of the
    observed size.

    Parameters
    ----------
    statistic
        From `Moments` to a dict of arrays, differentiable.
    views
        The rows.
    names
        Those of its numbers that are wanted.
    strata
        As in `jaxmix.inference.drawing`.

    Returns
    -------
    errors, accelerations
        By name; see `jaxmix.inference.intervals.acceleration`.

    References
    ----------
    Jaeckel (1972), "The infinitesimal jackknife"; Davison, Hinkley (1997), section 3.2 on strata.

    Examples
    --------
    >>> import jax.numpy as jnp, jaxmix as jm
    >>> table = {"t": [0, 1] * 8, "y": [1, 2, 4, 4] * 4}
    >>> table |= {"z": [0, 0, 1, 1] * 4, "x": [1, 0, 0, 1] * 4}
    >>> data = jm.CausalData.from_frame(table, treatment="t", outcome="y", z=["z"], x=["x"])
    >>> views = jm.features.encode(data)
    >>> def treated(m):
    ...     return {"share": m.arm_probabilities[1]}
    >>> round(float(spread(treated, views, ("share",))[0]["share"]), 6)
    0.125
    >>> float(spread(treated, views, ("share",), strata=views.t)[0]["share"])
    0.0
    """
    if not isinstance(statistic, jax.tree_util.Partial):
        statistic = jax.tree_util.Partial(statistic)
    return _spread(statistic, views, units_of(views, strata), names)


@compiled("names")
def _spread(
    statistic: Statistic, views: Views, units: Units, names: tuple[str, ...]
) -> tuple[dict[str, Array], dict[str, Array]]:
    return differentiate(_of_units(statistic, views, units, None), units.times, units, names)[1:]


def differentiate(
    of_units: Callable[[Float[Array, " u"]], dict[str, Array]],
    times: Float[Array, " u"],
    units: Units,
    names: tuple[str, ...],
) -> tuple[dict[str, Array], dict[str, Array], dict[str, Array]]:
    """Return what a function of units gives, and standard errors and accelerations by name.

    Parameters
    ----------
    of_units
        From how often each unit occurs to a dict of arrays.
    times
        ``(u,)`` where to differentiate: the sample itself, or a resample.
    units
        The sample.
    names
        Those of the numbers that are wanted; see `spread`.
    """

    def split(times: Float[Array, " u"]) -> Any:
        found = of_units(times)
        numbers = {name: found[name] for name in names if name in found}
        flat, unravel = ravel_pytree(numbers)
        return flat, (found, jax.tree_util.Partial(unravel))

    flat, pullback, (found, unravel) = jax.vjp(split, times, has_aux=True)

    def one(direction: Float[Array, " p"]) -> tuple[Array, Array]:
        (slope,) = pullback(direction)
        if units.strata is not None:
            sums = functools.partial(
                jax.ops.segment_sum, segment_ids=units.strata, num_segments=units.num_strata
            )
            slope -= (sums(times * slope) / sums(times))[units.strata]
        # A resample of exponential weights has their sum for its size.
        size = times.sum() / units.times.sum()
        unit = power_of_two(jnp.abs(slope).max())  # squares and cubes of any number are numbers
        slope = slope / unit
        return unit * jnp.sqrt(jnp.sum(times * slope**2) * size), acceleration(slope, times)

    se, skew = jax.lax.map(one, jnp.eye(flat.size, dtype=flat.dtype))
    return found, unravel(se), unravel(skew)


def align(
    profile: Float[Array, "p k"], reference: Float[Array, "p k"]
) -> tuple[Int[Array, " k"], Bool[Array, ""]]:
    """Match the classes of a resample to those of the estimate by their whole profiles.

    Parameters
    ----------
    profile, reference
        ``(p, k)``: numbers that describe each class (means, share, proxy profile), on
        comparable scales.

    Returns
    -------
    order
        ``(k,)``: class ``order[u]`` of the resample is class u of the estimate; the assignment
        with the smallest sum of squared distances.
    ambiguous
        Whether two classes of the estimate have the same nearest class in the resample.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> order, ambiguous = align(jnp.array([[5.0, 1.0]]), jnp.array([[1.1, 4.0]]))
    >>> order.tolist(), bool(ambiguous)
    ([1, 0], False)
    """
    cost = jnp.sum((reference[:, :, None] - profile[:, None, :]) ** 2, axis=0)
    cost = jnp.where(jnp.isfinite(cost), cost, 1e6)
    rows, columns = optax.assignment.hungarian_algorithm(cost)
    order = jnp.zeros(cost.shape[0], jnp.int32).at[rows].set(columns.astype(jnp.int32))
    nearest = jnp.sort(jnp.argmin(cost, axis=1))
    return order, jnp.any(nearest[1:] == nearest[:-1])
