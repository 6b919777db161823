"""Arguments of public calls: each of the wrong kind is one line that names it.

A number may come from numpy or JAX, without directions; a boolean is no number, and a text that
looks like one is none either. What is right is returned as plain Python has it, so that a result
can be stored.
"""

from __future__ import annotations

import datetime
import enum
import math
import numbers
import operator
from collections.abc import Callable, Iterable, Iterator, KeysView, Mapping, Sequence, ValuesView
from typing import SupportsFloat, SupportsIndex, TypeVar, cast

import numpy as np

from jaxmix.exceptions import InputError

_PLAIN = (str, bytes, bool, int, float, complex, type(None), np.generic)
_NAMES = (str, bytes, numbers.Number, np.generic, tuple, datetime.date, enum.Enum)
_MOST = 2**31 - 1  # of anything that is counted: indices on devices have 32 bits
_WIDE = 60
_LONG = 300  # of a text, such as the name of a column

_T = TypeVar("_T")


def told(value: object) -> str:
    """Return what an argument is, short and in one line.

    Examples
    --------
    >>> told("many"), told([1, "a"]), told(np.zeros((2, 2)))
    ("'many'", "[1, 'a']", 'a ndarray')
    """
    if isinstance(value, np.generic):
        value = value.item()
    plain = isinstance(value, _PLAIN) or (
        isinstance(value, list | tuple | set | dict)
        and type(value) in (list, tuple, set, dict)
        and all(isinstance(item, _PLAIN) for item in value)
    )
    text = " ".join(repr(value).split()) if plain else ""
    kind = value.__name__ if isinstance(value, type) else type(value).__name__
    if text and len(text) <= (_LONG if isinstance(value, str | bytes) else _WIDE):
        return text
    if isinstance(value, str | bytes):
        return text[:_LONG] + "..."
    return f"the type {kind}" if isinstance(value, type) else f"a {kind}"


def as_whole(value: object) -> int | None:
    """Return a whole number; None for anything else, a boolean and 2.0 among it.

    Examples
    --------
    >>> as_whole(np.int64(3)), as_whole(True), as_whole(3.0), as_whole("3")
    (3, None, None, None)
    """
    if isinstance(value, bool | np.bool_):
        return None
    try:
        return operator.index(cast(SupportsIndex, value))
    except TypeError:  # arrays with directions as well
        return None


def as_number(value: object) -> float | None:
    """Return a real number; None for anything else, a boolean and a text among it.

    Examples
    --------
    >>> as_number(np.float32(0.5)), as_number(2), as_number(True), as_number("0.95")
    (0.5, 2.0, None, None)
    """
    if isinstance(value, bool | np.bool_ | str | bytes | complex | np.complexfloating):
        return None
    if getattr(value, "ndim", 0) or getattr(getattr(value, "dtype", None), "kind", "f") in "bcmMSU":
        return None
    try:
        return float(cast(SupportsFloat, value))
    except (TypeError, ValueError, OverflowError):
        return None


def whole(name: str, value: object, *, least: int, remedy: str = "") -> int:
    """Return a whole number that is large enough, or refuse it."""
    found = as_whole(value)
    if found is None or found < least:
        raise InputError(
            f"{name} is {told(value)}: {remedy or f'give a whole number of at least {least}'}"
        )
    if found > _MOST:
        raise InputError(f"{name} is {told(value)}: that is too many; give at most {_MOST:,}")
    return found


def seed(value: object) -> int:
    """Return the seed of a generator, or refuse it."""
    found = as_whole(value)
    if found is None or not -(2**63) <= found < 2**63:
        raise InputError(f"seed is {told(value)}: give a whole number of at most 63 bits")
    return found


def fraction(name: str, value: object, remedy: str = "give a number between 0 and 1") -> float:
    """Return a number between 0 and 1, neither of them, or refuse it."""
    found = as_number(value)
    if found is None or not 0 < found < 1:
        raise InputError(f"{name} is {told(value)}: {remedy}")
    return found


def number(name: str, value: object) -> float:
    """Return a finite number, or refuse it."""
    found = as_number(value)
    if found is None or not math.isfinite(found):
        raise InputError(f"{name} is {told(value)}: give a number")
    return found


def array(name: str, value: object, remedy: str) -> np.ndarray:
    """Return an array of numbers, or refuse it; texts that look like numbers are none."""
    try:
        found = np.asarray(value)
        if found.dtype.kind == "O":
            found = np.asarray([float(item) for item in found.ravel()]).reshape(found.shape)
    except (TypeError, ValueError):
        found = np.asarray("")
    if found.dtype.kind not in "biuf" or (found.dtype.kind == "b" and not found.ndim):
        raise InputError(f"{name} is a {type(value).__name__}: {remedy}")
    return found.astype(np.float64)


def flag(name: str, value: object) -> bool:
    """Return True or False, or refuse it."""
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"{name} is {told(value)}: use True or False")
    return bool(value)


def choice(name: str, value: object, choices: Sequence[_T], remedy: str = "") -> _T:
    """Return the choice that a value is, or refuse it; 1 is not True, and 3.0 is not 3."""
    remedy = remedy or f"use one of {', '.join(map(repr, choices))}"
    for one in choices:
        if isinstance(one, bool):
            same = isinstance(value, bool | np.bool_) and bool(value) is one
        elif isinstance(one, int):
            same = as_whole(value) == one
        elif one is None:
            same = value is None
        else:
            same = isinstance(value, str) and value == one
        if same:
            return one
    raise InputError(f"{name} is {told(value)}: {remedy}")


def instance(name: str, value: object, kinds: type[_T] | tuple[type[_T], ...], remedy: str) -> _T:
    """Return a value of the right type, or refuse it."""
    if not isinstance(value, kinds):
        raise InputError(f"{name} is {told(value)}: {remedy}")
    return value


def callback(name: str, value: object) -> Callable[..., object] | None:
    """Return a function, or None, or refuse it."""
    if value is not None and not callable(value):
        raise InputError(f"{name} is {told(value)}: give a function, or None")
    return value


def key(value: object) -> None:
    """Refuse what is no key of JAX."""
    import jax  # what is no array is checked without
    import jax.numpy as jnp

    dtype = getattr(value, "dtype", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    raw = dtype == np.uint32 and getattr(value, "shape", ())[-1:] in ((2,), (4,))
    if not typed and not raw:
        raise InputError(f"key is {told(value)}: give a key of JAX, as jax.random.key(0)")


def text(name: str, value: object) -> None:
    """Refuse what is neither text nor None."""
    if value is not None and not isinstance(value, str):
        raise InputError(f"{name} is {told(value)}: give a text, or leave it out")


def column(role: str, value: object) -> str:
    """Return the name of one column, or refuse it: a list of one name is no name.

    A name is what the table calls it: a text, or with some libraries anything that can be hashed,
    which goes by as if it were one.
    """
    if not isinstance(value, _NAMES) or not _hashes(value):
        raise InputError(f"{role} is {told(value)}: give the name of one column")
    return cast(str, value)


def columns(role: str, value: object) -> list[str]:
    """Return a list of names of columns, or refuse it; None is no name."""
    if isinstance(value, str | bytes):
        raise InputError(f"{role} is the text {told(value)}: give a list of column names")
    if value is None:
        return []
    # Not a set, whose order is not what the user wrote, and not a table.
    kind = type(value)
    listed = isinstance(value, Sequence | Mapping | Iterator | KeysView | ValuesView | np.ndarray)
    if hasattr(kind, "to_numpy") and hasattr(kind, "__iter__"):  # an index, a series
        listed |= not hasattr(kind, "columns")
    if not listed or getattr(value, "ndim", 1) != 1:
        raise InputError(f"{role} is {told(value)}: give a list of column names")
    return [column(f"{role}, one of its names,", name) for name in cast(Iterable[object], value)]


def arm(name: str, value: object) -> None:
    """Refuse what cannot be the label of an arm; None leaves it out."""
    if value is None or isinstance(value, str | bool | np.bool_) or as_whole(value) is not None:
        return
    found = as_number(value)
    if found is None or not math.isfinite(found):
        raise InputError(f"{name} is {told(value)}: give the label of an arm, as text or a number")


def _hashes(value: object) -> bool:
    try:
        hash(value)
    except TypeError:  # a tuple with a list in it
        return False
    return True
