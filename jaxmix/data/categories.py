"""Columns of categories to integer codes, for models that know nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from jaxmix import arguments
from jaxmix.data.columns import Reading, label, listed, notes_of
from jaxmix.data.reading import as_column, levels_of
from jaxmix.exceptions import InputError
from jaxmix.tables.cells import Cells, cells_from, cells_of, names_of
from jaxmix.tables.texts import Marks

MOST_LEVELS = 100
"""Most levels of a column: one with more of them identifies rows."""


def codes_of(
    frame: object, names: Sequence[str], marks: Marks
) -> tuple[np.ndarray, dict[str, tuple[str, ...]], tuple[str, ...]]:
    """Return ``(n, v)`` codes, -1 where missing, the levels, and notes on how they were read."""
    parts, levels, readings = [], {}, {}
    for name in names:
        reading = as_column(name, _stored(frame, name), "names", marks)
        levels[name], codes = _levels(name, reading)
        parts.append(codes)
        readings[name] = reading
    return _together(names, parts), levels, notes_of(readings)


def codes_like(frame: object, known: Mapping[str, tuple[str, ...]], marks: Marks) -> np.ndarray:
    """Return ``(n, v)`` codes of levels that are given, -1 where missing."""
    parts = []
    for name, levels in known.items():
        index = {text: code for code, text in enumerate(levels)}
        found, codes = levels_of(name, _stored(frame, name), levels, marks)
        strange = [text for text in found if text not in index]
        if strange:
            raise InputError(
                f"column {name!r} has levels that the fit has not seen: {listed(strange)}; it "
                f"knows {listed(levels)}"
            )
        table = np.array([index[text] for text in found] or [0], np.int32)
        parts.append(np.where(codes >= 0, table[codes], -1).astype(np.int32))
    return _together(list(known), parts)


def counts_of(frame: object, weights: object, num_rows: int) -> np.ndarray:
    """Return how many identical rows each row stands for: a column's name, an array, or None."""
    if weights is None:
        return np.ones(num_rows)
    told = f"weights {weights!r}" if isinstance(weights, str) else "weights"
    if isinstance(weights, str):
        cells = cells_of(frame, weights)
    else:
        try:
            raw = np.asarray(weights)
        except ValueError:
            given = arguments.told(weights)
            raise InputError(
                f"weights is {given}: give a column's name, or a number per row"
            ) from None
        if raw.shape != (num_rows,):
            raise InputError(f"{told}: {raw.shape} numbers for {num_rows} rows; give one per row")
        cells = cells_from("weights", raw)
    if len(cells) != num_rows:
        raise InputError(f"{told}: {len(cells)} numbers for {num_rows} rows; give one per row")
    reading = as_column("weights", cells, "weights")
    values = reading.column.values
    whole = reading.column.levels is None and reading.present.all()
    if not whole or (values != np.floor(values)).any():
        raise InputError(f"{told} are counts of identical rows: give whole numbers, none missing")
    if (values < 0).any():
        row = int(np.argmax(values < 0)) + 1
        raise InputError(f"{told} are negative (first in row {row}); weights are zero or more")
    return values


def check_stored(name: str, stored: Sequence[str]) -> None:
    """Refuse a column that is not in the table."""
    if name not in stored:
        told = arguments.told(name)
        raise InputError(f"column {told} is not in the table; it has {listed(stored)}")


def _stored(frame: object, name: str) -> Cells:
    check_stored(name, names_of(frame))
    return cells_of(frame, name)


def _levels(name: str, reading: Reading) -> tuple[tuple[str, ...], np.ndarray]:
    column, present = reading.column, reading.present
    values = column.values[present]
    if column.levels is None and (values != np.floor(values)).any():
        bad = label(values[values != np.floor(values)][0])
        raise InputError(
            f"column {name!r} holds numbers that are not whole ({bad}); cut it into categories"
        )
    found, inverse = np.unique(values, return_inverse=True)
    texts = tuple(column.levels[int(f)] if column.levels else label(f) for f in found)
    if len(texts) > MOST_LEVELS:
        raise InputError(
            f"column {name!r} has {len(texts)} levels, more than {MOST_LEVELS}; group them, "
            "or leave it out if it identifies rows"
        )
    codes = np.full(len(present), -1, np.int32)
    codes[present] = inverse.ravel()
    return texts, codes


def _together(names: Sequence[str], parts: Sequence[np.ndarray]) -> np.ndarray:
    if len({len(part) for part in parts}) > 1:
        sizes = ", ".join(f"{n!r} {len(p)}" for n, p in zip(names, parts, strict=True))
        raise InputError(f"the columns have different lengths: {sizes}; make them equal")
    if len(parts[0]) == 0:
        raise InputError("the table has no rows; check that the right file was read")
    return np.stack(parts, 1)
