"""Single columns: from any supported table to numbers or coded text, cell by cell."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxmix.status import InputError


@dataclasses.dataclass(frozen=True, eq=False)
class Column:
    """One column: numbers, or integer codes of text levels.

    Attributes
    ----------
    name
        The column's name in the table.
    values
        ``(n,)``, float64 numbers or int32 codes.
    levels
        The texts that the codes stand for; None for numbers.
    """

    name: str
    values: np.ndarray
    levels: tuple[str, ...] | None = None

    def take(self, rows: np.ndarray) -> Column:
        """Return the column at some rows (an index or a mask), without levels unused there."""
        values = self.values[rows]
        if self.levels is None:
            return Column(self.name, values)
        used, codes = np.unique(values, return_inverse=True)
        return Column(self.name, codes.astype(np.int32), tuple(self.levels[u] for u in used))

    @property
    def is_discrete(self) -> bool:
        """Whether the column is text or takes two values, and so is coded one-hot."""
        if self.levels is not None:
            return True
        first = self.values[0]
        others = self.values[self.values != first]
        return bool(len(others) and (others == others[0]).all())

    def labels(self) -> tuple[str, ...]:
        """Return the distinct values of a discrete column as text, in order."""
        return self.levels or tuple(label(value) for value in np.unique(self.values))


def names_of(frame: Any) -> list[str]:
    """Return the column names of any supported table."""
    if isinstance(frame, Mapping):
        return list(frame)
    given = not isinstance(frame, type)  # a class of tables has columns too, but no rows
    names = getattr(frame, "column_names", None) if given else None  # Arrow
    if names is None and given and not hasattr(frame, "collect"):  # a lazy frame has no rows yet
        names = getattr(frame, "columns", None)  # pandas, polars
    if names is None:
        raise InputError(
            f"the table is a {type(frame).__name__}: give a dict of arrays, or a pandas, polars "
            "or Arrow table"
        )
    return list(names)


def raw_values(frame: Any, name: str) -> np.ndarray:
    """Return one column of any supported table as a numpy array."""
    if not isinstance(frame, Mapping) and hasattr(frame, "column_names"):
        column = frame.column(name)
        if hasattr(column.type, "index_type"):  # dictionary-encoded text
            column = column.cast(column.type.value_type)
        return np.asarray(column.to_numpy(zero_copy_only=False))
    column = frame[name]
    if isinstance(column, np.ma.MaskedArray):
        cells = column.data.astype(object)
        cells[np.ma.getmaskarray(column)] = None
        column = cells
    try:
        values = _to_numpy(name, column)
    except InputError:
        raise
    except ValueError:
        raise InputError(
            f"column {name!r} is ragged: a column is a one-dimensional array"
        ) from None
    if values.ndim != 1:
        raise InputError(
            f"column {name!r} has shape {values.shape}: a column is a one-dimensional array"
        )
    return np.asarray(values)


def _to_numpy(name: str, column: Any) -> Any:
    if not hasattr(column, "to_numpy"):
        return np.asarray(column)
    try:
        return column.to_numpy()
    except Exception as error:  # of polars, whose errors have no class in common with others
        if not type(error).__module__.startswith("polars"):
            raise
        raise InputError(
            f"column {name!r} has type {column.dtype}, which numpy does not know; cast it to a "
            "type of at most 64 bits, or to text"
        ) from None


def as_column(name: str, raw: np.ndarray) -> tuple[Column, np.ndarray]:
    """Return a checked column, and which of its cells are present."""
    if raw.dtype.kind in "biuf":
        values = raw.astype(np.float64, copy=False)
        present = ~np.isnan(values) if raw.dtype.kind == "f" else np.ones(len(raw), bool)
        if np.isinf(values).any():
            raise InputError(
                f"column {name!r} has {int(np.isinf(values).sum())} infinite values; "
                "make them missing or correct them"
            )
        return Column(name, values), present
    if raw.dtype.kind in "mM":
        raise InputError(f"column {name!r} holds dates or times; turn it into numbers first")
    if raw.dtype.kind not in "OUST":
        raise InputError(f"column {name!r} has type {raw.dtype}; use numbers or text")
    cells = raw.astype(object)
    present = np.array([not _is_missing(cell) for cell in cells], bool)
    known = cells[present]
    if all(isinstance(c, (bool, int, float, np.number, np.bool_)) for c in known):
        values = np.full(len(cells), np.nan)
        values[present] = known.astype(np.float64)
        return as_column(name, values)
    strange = next((c for c in known if not isinstance(c, (str, bytes, bool, int, float))), None)
    if strange is not None:
        shown = " ".join(repr(strange).split())[:60]
        raise InputError(
            f"column {name!r} holds a {type(strange).__name__} ({shown}); use numbers or text"
        )
    codes = np.zeros(len(cells), np.int32)
    texts = [c.decode(errors="replace") if isinstance(c, bytes) else str(c) for c in known]
    levels, inverse = np.unique(np.array(texts), return_inverse=True)
    codes[present] = inverse
    return Column(name, codes, tuple(str(level) for level in levels)), present


def _is_missing(cell: Any) -> bool:
    """Whether a cell is None, NaN, pandas' NA or NaT, or an empty text."""
    if isinstance(cell, (str, bytes)):
        return not cell
    if isinstance(cell, (float, np.floating)):
        return bool(cell != cell)
    return cell is None or type(cell).__name__ in ("NAType", "NaTType")


def label(value: Any) -> str:
    """Return a cell as text: whole numbers without a decimal point."""
    number = float(value)
    return str(int(number)) if number == int(number) else repr(number)


def listed(names: Iterable[str], most: int = 12) -> str:
    """Return names quoted and separated by commas, a long list cut short."""
    names = [repr(name) for name in names]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def stray_texts(column: Column) -> Sequence[str]:
    """Return the levels of a text column that are no numbers, or all where all are."""
    texts = []
    for level in column.levels or ():
        try:
            float(level)
        except ValueError:
            texts.append(level)
    return texts or column.labels()
