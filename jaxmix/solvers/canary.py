"""A product that a build of jaxlib got wrong, compared with numpy's.

``sum((M r)^2)`` of each row r, compiled under ``vmap``, on more rows than a block of that build
holds. Whole numbers throughout, so that nothing but an error makes a difference.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmix.solvers.compiling import compiled

ROWS = {"float64": 16_384, "float32": 32_768}
"""Rows beyond which a build was found wrong, by type."""


class Errors(NamedTuple):
    """How a product was wrong.

    Attributes
    ----------
    rows, wrong
        How many rows there were, and on how many of them it was wrong.
    largest
        The largest error.
    """

    rows: int
    wrong: int
    largest: float


def errors(dtype: str) -> Errors | None:
    """Return how the product of a type is wrong, or None.

    Parameters
    ----------
    dtype
        ``"float64"`` or ``"float32"``.

    Examples
    --------
    >>> errors("float64") is None
    True
    """
    with jax.enable_x64(True):
        for rows in (ROWS[dtype] + 1, 2 * ROWS[dtype] + 3):
            matrix, given = table(rows, dtype)
            exact = ((given @ matrix.T) ** 2).sum(1)
            error = np.abs(np.asarray(product(jnp.asarray(matrix), jnp.asarray(given))) - exact)
            if error.max() > 0:
                return Errors(rows, int((error > 0).sum()), float(error.max()))
    return None


def table(rows: int, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a matrix and rows of whole numbers, all of whose sums are exact in `dtype`."""
    matrix = np.array([[1, 0, 0], [0, 1, 1], [0, 2, 1]], dtype)
    i = np.arange(rows) % 1021
    return matrix, np.stack([i, i % 7, i % 3], 1).astype(dtype)


@compiled()
def product(matrix: jax.Array, rows: jax.Array) -> jax.Array:
    """Return the squared length of ``matrix @ row`` for each row."""
    return jax.vmap(
        lambda row: jnp.sum(jnp.matmul(matrix, row, precision="highest") ** 2)
    )(rows)  # fmt: skip
