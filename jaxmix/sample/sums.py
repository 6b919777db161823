"""Sums over rows: the one loop over chunks of rows, in bounded memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

CHUNK_NUMBERS = 1 << 21
"""Numbers held at once for a chunk of rows (16 MiB in float64)."""

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Some consecutive rows. The last chunk starts early enough to be full.

    Attributes
    ----------
    start
        The first row of the chunk.
    fresh
        The first row that was in no chunk before.
    size
        Number of rows.
    """

    start: Int[Array, ""]
    fresh: Int[Array, ""]
    size: int

    def cut(self, array: Array, axis: int = 0) -> Array:
        """Return the rows of an array that belong to the chunk."""
        return jax.lax.dynamic_slice_in_dim(array, self.start, self.size, axis)

    def once(self, mass: Float[Array, " n"]) -> Float[Array, " c"]:
        """Return the mass of the chunk's rows, 0 where an earlier chunk has counted them."""
        new = self.start + jnp.arange(self.size) >= self.fresh
        return jnp.where(new, self.cut(mass), 0)


def chunk_size(num_rows: int, numbers: int) -> int:
    """Return how many rows to hold at once, where each is so many numbers."""
    return min(num_rows, max(256, CHUNK_NUMBERS // numbers))


def total(of_chunk: Callable[[Chunk], T], num_rows: int, size: int) -> T:
    """Sum a function of chunks of rows; rows are sliced in place, never padded or copied.

    Parameters
    ----------
    of_chunk
        From a `Chunk` to a pytree of arrays, in which rows that are not `Chunk.once` count 0.
    num_rows
        Number of rows.
    size
        Rows of a chunk, at most `num_rows`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> values = jnp.arange(10.0)
    >>> float(total(lambda chunk: chunk.once(values).sum(), 10, 4))
    45.0
    """

    def own(index: Int[Array, ""]) -> T:
        return of_chunk(_chunk(index, num_rows, size))

    def body(sums: T, index: Int[Array, ""]) -> tuple[T, None]:
        return jax.tree.map(jnp.add, sums, own(index)), None

    zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(own, jnp.int32(0)))
    found: T = jax.lax.scan(jax.checkpoint(body), zeros, jnp.arange(-(-num_rows // size)))[0]
    return found


def each(
    of_chunk: Callable[[Chunk], Float[Array, "c ..."]], num_rows: int, size: int
) -> Float[Array, "n ..."]:
    """Return what a function of chunks says of each row.

    Parameters
    ----------
    of_chunk
        From a `Chunk` to an array that begins with the rows of the chunk.
    num_rows, size
        Number of rows, and of those of a chunk.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> values = jnp.arange(10.0)
    >>> each(lambda chunk: chunk.cut(values) ** 2, 10, 4).tolist()[-3:]
    [49.0, 64.0, 81.0]
    """

    def own(index: Int[Array, ""]) -> tuple[Array, Array]:
        chunk = _chunk(index, num_rows, size)
        return chunk.start, of_chunk(chunk)

    def body(found: Array, index: Int[Array, ""]) -> tuple[Array, None]:
        start, rows = own(index)
        return jax.lax.dynamic_update_slice_in_dim(found, rows, start, 0), None

    like = jax.eval_shape(own, jnp.int32(0))[1]
    none = jnp.zeros((num_rows, *like.shape[1:]), like.dtype)
    return jax.lax.scan(body, none, jnp.arange(-(-num_rows // size)))[0]


def _chunk(index: Int[Array, ""], num_rows: int, size: int) -> Chunk:
    fresh = index * size
    return Chunk(jnp.minimum(fresh, num_rows - size), fresh, size)
