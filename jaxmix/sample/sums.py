"""Sums over rows: the one loop over rows, in bounded memory, and what each row adds to it.

A caller gives a function of a few rows, which are `Views` like the whole. Only this file knows how
rows are held: it takes some of them at a time, and counts each of them once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxmix.sample.views import Views

CHUNK_NUMBERS = 1 << 21
"""Numbers held at once for a chunk of rows (16 MiB in float64)."""

T = TypeVar("T")


def mass(views: Views) -> Float[Array, ""]:
    """Return the sum of the weights of all rows, each as often as it occurs."""
    return views.design.mass.sum()


def num_rows(views: Views) -> Float[Array, ""]:
    """Return the number of rows of the sample, identical ones counted one by one."""
    return views.multiplicity.sum()


def total(of_rows: Callable[..., T], views: Views, numbers: int, *beside: Array) -> T:
    """Sum a function of rows over all of them; rows are sliced in place, never padded or copied.

    Parameters
    ----------
    of_rows
        From some rows, as `Views`, and their part of what is beside, to a pytree of sums over these
        rows. A row that was in an earlier chunk has multiplicity 0, and has to add nothing.
    views
        All rows.
    numbers
        How many numbers a row is while it is summed.
    beside
        More arrays, whose last axis is that of rows.

    Examples
    --------
    >>> import jaxmix as jm
    >>> table = {"t": [0, 1] * 8, "y": [1, 2, 4, 4] * 4}
    >>> table |= {"z": [0, 0, 1, 1] * 4, "x": [1, 0, 0, 1] * 4}
    >>> data = jm.CausalData.from_frame(table, treatment="t", outcome="y", z=["z"], x=["x"])
    >>> views = jm.features.encode(data)
    >>> total(lambda rows: rows.multiplicity @ (rows.y @ views.value_y), views, 3).tolist()
    44.0
    """
    size = _chunk_size(views.num_rows, numbers)

    def own(index: Int[Array, ""]) -> T:
        start, fresh = _place(index, views.num_rows, size)
        return of_rows(
            _cut(views, start, fresh, size),
            *(jax.lax.dynamic_slice_in_dim(array, start, size, -1) for array in beside),
        )

    return _added(own, views.num_rows, size)


def total_in_order(of_rows: Callable[[Views, Int[Array, ""]], T], views: Views, size: int) -> T:
    """Sum a function of so many consecutive rows at a time, which knows what rows they are.

    Parameters
    ----------
    of_rows
        From some rows, and the number of the first of them, to a pytree of sums. Rows that were
        there before stand at the end, and have multiplicity 0.
    views
        All rows.
    size
        How many rows at a time, at most as many as there are.
    """
    n = views.num_rows

    def own(index: Int[Array, ""]) -> T:
        start, fresh = _place(index, n, size)
        rows = _cut(views, start, fresh, size)
        if size < n:
            rows = rows.each(lambda array: jnp.roll(array, start - fresh, axis=0))
        return of_rows(rows, fresh)

    return _added(own, n, size)


def each(
    of_rows: Callable[[Views], Float[Array, "c ..."]], views: Views, numbers: int
) -> Float[Array, "n ..."]:
    """Return what a function of rows says of each row.

    Parameters
    ----------
    of_rows
        From some rows to an array that begins with them.
    views, numbers
        All rows, and how many numbers a row is, as in `total`.

    Examples
    --------
    >>> import jaxmix as jm
    >>> table = {"t": [0, 1] * 8, "y": [1, 2, 4, 4] * 4}
    >>> table |= {"z": [0, 0, 1, 1] * 4, "x": [1, 0, 0, 1] * 4}
    >>> data = jm.CausalData.from_frame(table, treatment="t", outcome="y", z=["z"], x=["x"])
    >>> views = jm.features.encode(data)
    >>> each(lambda rows: rows.y @ views.value_y, views, 3)[:4].tolist()
    [1.0, 2.0, 4.0, 4.0]
    """
    n = views.num_rows
    size = _chunk_size(n, numbers)

    def own(index: Int[Array, ""]) -> tuple[Array, Array]:
        start, fresh = _place(index, n, size)
        return start, of_rows(_cut(views, start, fresh, size))

    def body(found: Array, index: Int[Array, ""]) -> tuple[Array, None]:
        start, rows = own(index)
        return jax.lax.dynamic_update_slice_in_dim(found, rows, start, 0), None

    like = jax.eval_shape(own, jnp.int32(0))[1]
    none = jnp.zeros((n, *like.shape[1:]), like.dtype)
    return jax.lax.scan(body, none, jnp.arange(-(-n // size)))[0]


class Held(NamedTuple):
    """All rows at once, for what goes over them many times.

    Attributes
    ----------
    proxies
        Features of both proxies side by side.
    arm, outcome
        Arm, and outcome in its own units.
    mass
        What the row counts: its weight times its multiplicity.
    """

    proxies: Float[Array, "n d"]
    arm: Int[Array, " n"]
    outcome: Float[Array, " n"]
    mass: Float[Array, " n"]


def held(views: Views, shared: int) -> Held:
    """Return all rows at once.

    Parameters
    ----------
    views
        The rows.
    shared
        How many leading features of x are left out, since z has them.
    """
    proxies = jnp.concatenate([views.z, views.x[:, shared:]], axis=1)
    return Held(proxies, views.t, views.y @ views.value_y, views.design.mass)


def _chunk_size(num_rows: int, numbers: int) -> int:
    """Return how many rows to hold at once, where each is so many numbers."""
    return min(num_rows, max(256, CHUNK_NUMBERS // numbers))


def _place(index: Int[Array, ""], num_rows: int, size: int) -> tuple[Array, Array]:
    """Return the first row of a chunk, and the first that was in none before.

    The last chunk starts early enough to be full.
    """
    fresh = index * size
    return jnp.minimum(fresh, num_rows - size), fresh


def _cut(views: Views, start: Array, fresh: Array, size: int) -> Views:
    """Return the rows of a chunk, those that an earlier chunk has counted as occurring 0 times."""
    rows = views.each(lambda array: jax.lax.dynamic_slice_in_dim(array, start, size, 0))
    new = start + jnp.arange(size) >= fresh
    return rows.redesigned(multiplicity=jnp.where(new, rows.multiplicity, 0))


def _added(of_chunk: Callable[[Int[Array, ""]], T], num_rows: int, size: int) -> T:
    """Add up a function of the numbers of chunks."""

    def body(sums: T, index: Int[Array, ""]) -> tuple[T, None]:
        return jax.tree.map(jnp.add, sums, of_chunk(index)), None

    like = jax.eval_shape(of_chunk, jnp.int32(0))
    zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), like)
    found: T = jax.lax.scan(jax.checkpoint(body), zeros, jnp.arange(-(-num_rows // size)))[0]
    return found
