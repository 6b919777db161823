"""Compiled functions that keep their types, and how much trouble the compiler takes over them.

A program of one table runs for milliseconds and is compiled for seconds; a program of a study runs
for hours. So there are two profiles. ``bulk`` is XLA's own. ``quick`` leaves out LLVM's
optimisation and XLA's fusion emitters, on a CPU: programs are compiled three to five times faster
and take two to three times longer to run. Both compute the same sums in double precision; their
last digits may differ.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

import jax

_P = ParamSpec("_P")
_R = TypeVar("_R")

PROFILES = ("quick", "bulk")
"""How programs are compiled: for one table, or for many."""

QUICK_OPTIONS = {"xla_cpu_use_fusion_emitters": False, "xla_backend_optimization_level": 0}
"""What the profile ``quick`` asks of XLA on a CPU."""

_KNOWN_UNTIL = (0, 12)  # the first release of JAX whose XLA was not seen to know these options

_profile = contextvars.ContextVar("profile", default="bulk")
_is_tracing = contextvars.ContextVar("is_tracing", default=False)


@contextlib.contextmanager
def profile(name: str) -> Iterator[None]:
    """Compile in a profile whatever is compiled inside.

    Parameters
    ----------
    name
        One of `PROFILES`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> doubled = compiled()(lambda x: 2 * x)
    >>> with profile("quick"):
    ...     doubled(jnp.arange(3)).tolist()
    [0, 2, 4]
    """
    if name not in PROFILES:
        raise ValueError(f"profile is {name!r}: use one of {', '.join(PROFILES)}")
    token = _profile.set(name)
    try:
        yield
    finally:
        _profile.reset(token)


@contextlib.contextmanager
def one_table() -> Iterator[None]:
    """Compute in double precision and compile quickly, as for one table of a user."""
    with jax.enable_x64(True), profile("quick"):
        yield


def compiled(*static: str) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Compile a function of arrays by `jax.jit`, which by itself forgets what types it has.

    The profile is that of the outermost program: a compiled function that another one calls is a
    part of it.

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
        in_bulk: Callable[_P, _R] = jax.jit(function, static_argnames=static)
        quickly: Callable[_P, _R] = jax.jit(
            _outermost(function), static_argnames=static, compiler_options=QUICK_OPTIONS
        )

        @functools.wraps(function)
        def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            if _profile.get() == "bulk" or _is_part(args, kwargs) or not has_quick_options():
                return in_bulk(*args, **kwargs)
            return quickly(*args, **kwargs)

        return call

    return compile_it


def _outermost(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Return a function that says, while it is traced, that there is a program around."""

    @functools.wraps(function)
    def traced(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        token = _is_tracing.set(True)
        try:
            return function(*args, **kwargs)
        finally:
            _is_tracing.reset(token)

    return traced


def _is_part(args: tuple[object, ...], kwargs: dict[str, object]) -> bool:
    """Whether a call is traced into a program around it, which has options of its own."""
    if _is_tracing.get():
        return True
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((args, kwargs)))


@functools.cache
def has_quick_options() -> bool:
    """Whether XLA is known to take the options of ``quick``, here and in this release."""
    return jax.default_backend() == "cpu" and jax.__version_info__ < _KNOWN_UNTIL
