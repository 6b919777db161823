"""Compiled functions that keep their types."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax

_P = ParamSpec("_P")
_R = TypeVar("_R")


def compiled(*static: str) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Compile a function of arrays by `jax.jit`, which by itself forgets what types it has.

    Parameters
    ----------
    static
        Names of the arguments that are no arrays: hashable, and each value a program of its own.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> @compiled("power")
    ... def raised(x, power):
    ...     return x**power
    >>> raised(jnp.arange(3), power=2).tolist()
    [0, 1, 4]
    """

    def compile_it(function: Callable[_P, _R]) -> Callable[_P, _R]:
        return jax.jit(function, static_argnames=static)

    return compile_it
