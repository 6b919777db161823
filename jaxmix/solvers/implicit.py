"""Derivatives of a solution by the implicit function theorem, not by unrolling its solver."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeAlias, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

_Args = TypeVar("_Args")
Residual: TypeAlias = Callable[[Float[Array, " p"], _Args], Float[Array, " p"]]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def at_root(
    residual: Residual[_Args], root: Float[Array, " p"], args: _Args, flat: Array
) -> Float[Array, " p"]:
    """Return a root of ``residual(root, args) = 0`` that varies with `args`.

    ``d root = -(d residual / d root)^-1 (d residual / d args) d args``, forward and reverse, under
    ``vmap``. The root itself is returned as it was given, whether or not derivatives are asked
    for: whoever found it brings it to the precision that its derivatives need.

    Parameters
    ----------
    residual
        Hashable function (compiled once) of the root and of `args`.
    root
        ``(p,)`` a root, found by any means.
    args
        Pytree of floating-point arrays.
    flat
        Whether the root is not isolated; derivatives are NaN then. They are NaN as well where the
        system, rows and columns scaled to one size, has a condition number beyond the inverse
        root of the machine epsilon: it says nothing of the directions that are lost.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> def residual(x, a):
    ...     return x**2 - a
    >>> def root(a):
    ...     return at_root(residual, jnp.sqrt(jax.lax.stop_gradient(a)), a, jnp.asarray(False))
    >>> float(jax.grad(lambda a: root(a)[0])(jnp.array([4.0]))[0])
    0.25
    """
    del residual, args, flat
    return root


@at_root.defjvp
def _at_root_jvp(
    residual: Residual[_Args],
    primals: tuple[Array, _Args, Array],
    tangents: tuple[Array, _Args, Array],
) -> tuple[Array, Array]:
    root, args, flat = primals
    inverse, singular = _scaled_inverse(jax.jacfwd(residual)(root, args))
    slope = jax.jvp(lambda a: residual(root, a), (args,), (tangents[1],))[1]
    return root, jnp.where(flat | singular, jnp.nan, 1.0) * -(inverse @ slope)


def is_singular(
    residual: Residual[_Args], root: Float[Array, " p"], args: _Args
) -> Bool[Array, ""]:
    """Return whether derivatives of a root do not exist, as `at_root` judges it.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> def residual(x, a):
    ...     return x * jnp.sum(a * x)
    >>> [bool(is_singular(residual, x, jnp.ones(2))) for x in (jnp.ones(2), jnp.array([1.0, -1]))]
    [False, True]
    """
    return _scaled_inverse(jax.jacfwd(residual)(root, args))[1]


def _scaled_inverse(matrix: Float[Array, "p p"]) -> tuple[Float[Array, "p p"], Bool[Array, ""]]:
    """Return the inverse, and whether rounding leaves nothing of it in some direction."""
    by_row = _unit(jnp.max(jnp.abs(matrix), axis=1))
    matrix = matrix * by_row[:, None]
    by_column = _unit(jnp.max(jnp.abs(matrix), axis=0))
    matrix = matrix * by_column
    inverse = jnp.linalg.inv(matrix)
    condition = jnp.linalg.norm(matrix) * jnp.linalg.norm(inverse)
    limit = len(matrix) * jnp.finfo(matrix.dtype).eps ** -0.5
    return by_column[:, None] * inverse * by_row, ~(condition < limit)


def _unit(size: Float[Array, " p"]) -> Float[Array, " p"]:
    """Return the factors that bring sizes to 1; what is 0 stays, and shows as singular."""
    return jnp.where(size > 0, 1.0 / jnp.where(size > 0, size, 1.0), 1.0)
