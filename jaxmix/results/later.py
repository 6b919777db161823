"""A part of a result that is computed when it is first read."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Generic, Self, TypeVar

import jax

from jaxmix.solvers.compiling import one_table

T = TypeVar("T")


class Later(Generic[T]):
    """A value that is computed when it is first read, once, in float64.

    What it is computed from is let go then. Of two threads that read at the same moment both may
    compute it: they get the same numbers. Two of these are equal where their values are, which
    reads both.

    Parameters
    ----------
    compute
        Gives the value; made of data and functions with names, so that it can be pickled.

    Examples
    --------
    >>> from functools import partial
    >>> later = Later(partial(pow, 2, 10))
    >>> later.is_read, later.read(), later.is_read
    (False, 1024, True)
    """

    def __init__(self, compute: Callable[[], T]):
        self._compute: Callable[[], T] | None = compute
        self._found: tuple[T, ...] = ()

    @classmethod
    def known(cls, value: T) -> Self:
        """Return one whose value is there already."""
        later = cls(lambda: value)
        later.read()
        return later

    @property
    def is_read(self) -> bool:
        """Whether the value is there."""
        return self._compute is None

    def read(self) -> T:
        """Return the value, computed at the first call."""
        compute = self._compute
        if compute is not None:
            with one_table():
                self._found = (compute(),)
            self._compute = None  # after the value is there, for other threads
        return self._found[0]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Later) and bool(self.read() == other.read())

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self._found[0]) if self.is_read else "computed when it is read"

    def __getstate__(self) -> tuple[bytes, tuple[T, ...]]:
        return pickle.dumps(self._compute), self._found

    def __setstate__(self, state: tuple[bytes, tuple[T, ...]]) -> None:
        compute, self._found = state
        with jax.enable_x64(True):  # or arrays of JAX would come back with half of their digits
            self._compute = pickle.loads(compute)
