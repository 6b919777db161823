"""Derivatives of a solution by the implicit function theorem, not by unrolling its solver."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Residual = Callable[[Float[Array, " p"], Any], Float[Array, " p"]]

_POLISH = 2


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def at_root(
    residual: Residual, root: Float[Array, " p"], args: Any, flat: Array
) -> Float[Array, " p"]:
    """Return a root of ``residual(root, args) = 0`` that varies with `args`.

    ``d root = -(d residual / d root)^-1 (d residual / d args) d args``, forward and reverse, under
    ``vmap``. Where derivatives are asked for, Newton steps first bring the root to machine
    precision.

    Parameters
    ----------
    residual
        Hashable function (compiled once) of the root and of `args`.
    root
        ``(p,)`` a root, found by any means.
    args
        Pytree of floating-point arrays.
    flat
        Whether the root is not isolated; derivatives are NaN then.

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
def _at_root_jvp(residual: Residual, primals: Any, tangents: Any) -> tuple[Array, Array]:
    root, args, flat = primals
    jacobian = jax.jacfwd(residual)
    for _ in range(_POLISH):
        moved = root - jnp.linalg.solve(jacobian(root, args), residual(root, args))
        # A step that leads nowhere leaves the solver's own root.
        root = jnp.where(jnp.all(jnp.isfinite(moved)), moved, root)
    slope = jax.jvp(lambda a: residual(root, a), (args,), (tangents[1],))[1]
    moved = -jnp.linalg.solve(jacobian(root, args), slope)
    return root, jnp.where(flat, jnp.nan, 1.0) * moved
