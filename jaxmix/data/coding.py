"""Numbers and texts to features: standardised columns and indicators, whatever their units."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxmix.data.columns import Column
from jaxmix.exceptions import InputError

MAX_LEVELS = 256
"""Most levels that the text columns of a role may have together where they are coded one by one.

Moments grow with the square of the number of features, and chunks of rows hold that many numbers
for each row (256 features: 130,000, 256 rows of them a quarter of a GiB); every arm estimates a
coefficient for each level; and a column with more is nearly always an identifier."""

_ROUNDING = 16 * np.finfo(np.float64).eps  # of a column's size: what varies less is constant


@dataclasses.dataclass(frozen=True)
class Features:
    """Columns as features, the constant first.

    Attributes
    ----------
    block
        ``(n, d)``: the constant, then features with mean 0 and variance 1.
    names
        What each feature is called in messages.
    size
        ``(d,)`` how large the numbers were from which each feature was made, in its own units: a
        last place of a year is that of 2000 years, however few it varies by.
    """

    block: np.ndarray
    names: tuple[str, ...]
    size: np.ndarray

    def join(self, other: Features) -> Features:
        """Return these features and those of another beside its constant."""
        return Features(
            np.hstack([self.block, other.block[:, 1:]]),
            (*self.names, *other.names[1:]),
            np.append(self.size, other.size[1:]),
        )


def check_varies(columns: Sequence[Column]) -> None:
    """Refuse a column of numbers that differ by rounding alone."""
    for column in columns:
        if column.levels is not None:
            continue
        low, high = column.values.min(), column.values.max()
        if high / 2 - low / 2 <= _ROUNDING * max(abs(low), abs(high)):
            raise InputError(
                f"column {column.name!r} is constant but for rounding ({low!s} to {high!s}) in "
                "the rows used; leave it out or take another"
            )


def linear(columns: Sequence[Column], mass: np.ndarray, role: str) -> Features:
    """Return the constant and the standardised columns, text as indicators without the first.

    Raises
    ------
    InputError
        For text columns of more than `MAX_LEVELS` levels.
    """
    _check_levels(columns, role)
    widths = [len(c.levels) - 1 if c.levels else 1 for c in columns]
    block, size = np.ones((len(mass), 1 + sum(widths))), np.ones(1 + sum(widths))
    names, start = ["the constant"], 1
    for column, width in zip(columns, widths, strict=True):
        raw = indicators(column.values)[:, 1:] if column.levels else column.values[:, None]
        own = slice(start, start + width)
        block[:, own], size[own] = standardise(raw, mass)
        if column.levels:
            names += [f"column {column.name!r} (level {level!r})" for level in column.levels[1:]]
        else:
            names.append(f"column {column.name!r}")
        start += width
    return Features(block, tuple(names), size)


def cell_features(cells: np.ndarray, mass: np.ndarray, view: str) -> Features:
    """Return the constant and the standardised indicators of joint cells without the first."""
    block, size = standardise(indicators(cells)[:, 1:], mass)
    names = (f"the one-hot coding of {view}",) * block.shape[1]
    ones = np.ones((len(cells), 1))
    return Features(np.hstack([ones, block]), ("the constant", *names), np.append(1.0, size))


def indicators(cells: np.ndarray) -> np.ndarray:
    """Return one column for each cell, 1 where a row is in it."""
    found: np.ndarray = (cells[:, None] == np.arange(cells.max() + 1)).astype(np.float64)
    return found


def standardise(block: np.ndarray, mass: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return columns with mean 0 and variance 1, and how large they were in these units.

    Columns are brought to order 1 by a power of two before anything is squared, which costs no
    digit and no range.
    """
    block = np.ldexp(block, -exponent(block))
    largest = np.abs(block).max(axis=0)
    centred = block - np.average(block, axis=0, weights=mass)
    scale = np.sqrt(np.average(centred**2, axis=0, weights=mass))
    scale = np.where(scale > 0, scale, 1.0)
    centred /= scale
    return centred, largest / scale


def exponent(values: np.ndarray) -> np.ndarray:
    """Return the power of two that brings the largest number of each column to order 1."""
    found: np.ndarray = np.frexp(np.abs(values).max(axis=0))[1]
    return found


def _check_levels(columns: Sequence[Column], role: str) -> None:
    coded = {column.name: len(column.levels) for column in columns if column.levels}
    if not coded:
        return
    name = max(coded, key=lambda key: coded[key])
    remedy = "leave it out if it tells rows apart, as an identifier does, or merge its levels"
    if (total := sum(coded.values())) > MAX_LEVELS:
        together = f" ({role} together {total:,})" if len(coded) > 1 else ""
        raise InputError(
            f"column {name!r} ({role}) is text with {coded[name]:,} levels{together}, and at most "
            f"{MAX_LEVELS} are coded one by one; {remedy}"
        )
