"""Single columns: numbers, or integer codes of text levels; and how they were read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from jaxmix.exceptions import InputError
from jaxmix.tables.texts import label, listed

__all__ = ["Column", "Reading", "label", "listed", "notes_of", "stray_texts"]

NUMBERS = ("numbers", "weights")
"""What roles may ask of a column that has to hold numbers; a weight may be rounded."""

NAMES = ("names", "groups")
"""What roles may ask of a column whose cells are names, of arms or levels, or of any groups."""

_FEW = 64  # most levels of whole numbers beyond 2^53 that are taken as categories unasked
_ROUGH = 1e-9  # most that rounding to a float may move a number, relative to the column's range


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


@dataclasses.dataclass(frozen=True)
class Role:
    """What a column is for.

    Attributes
    ----------
    name
        What the role is called, in calls and in messages.
    holds
        What its cells are: one of `NUMBERS` or of `NAMES`, or ``"values"``, numbers or categories.
    many
        Whether several columns may have it.
    needed
        Whether a column has to have it.
    varies
        Whether a column that is constant says nothing in it.
    """

    name: str
    holds: str = "values"
    many: bool = False
    needed: bool = False
    varies: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Reading:
    """A column as it was read, and what was decided on the way.

    Attributes
    ----------
    column
        The checked column.
    present
        ``(n,)``, which of its cells are present.
    missing
        Texts and numbers that were read as missing cells, with counts.
    kept
        Texts that often mark a missing cell and were kept as levels, with counts.
    notes
        What else a user should know.
    """

    column: Column
    present: np.ndarray
    missing: Mapping[str, int] = dataclasses.field(default_factory=dict)
    kept: Mapping[str, int] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()


def is_exact(values: np.ndarray) -> bool:
    """Whether whole numbers are of a size that floats hold exactly."""
    return not len(values) or (int(values.max()) <= 2**53 and int(values.min()) >= -(2**53))


def check_finite(name: str, values: np.ndarray) -> None:
    """Refuse infinite numbers."""
    infinite = int(np.isinf(values).sum())
    if infinite:
        raise InputError(
            f"column {name!r} has {infinite} infinite values; make them missing or correct them"
        )


def from_dates(
    name: str, values: np.ndarray, present: np.ndarray, holds: str
) -> tuple[Column, np.ndarray]:
    """Return a column of dates, which are names of clusters, arms or categories at most."""
    if holds not in NAMES:
        raise no_dates(name)
    if (
        values.dtype.kind == "M"
        and (values[present] == values[present].astype("datetime64[D]")).all()
    ):
        values = values.astype("datetime64[D]")
    found, inverse = np.unique(values[present], return_inverse=True)
    codes = np.zeros(len(values), np.int32)
    codes[present] = inverse
    return Column(name, codes, tuple(str(value) for value in found)), present


def no_dates(name: str) -> InputError:
    """Return the error for dates where numbers or categories are needed."""
    return InputError(f"column {name!r} holds dates or times; turn it into numbers first")


def from_numbers(
    name: str, distinct: Sequence[int | float], codes: np.ndarray, present: np.ndarray, holds: str,
    *, declared: bool = False, coding: str = "auto",
) -> tuple[Column, tuple[str, ...]]:  # fmt: skip
    """Return a column of numbers given as distinct ones: whole numbers of any size, and floats.

    Numbers that floats do not hold keep their digits where they are names. Among proxies and
    covariates they are categories where they are few.
    """
    used = np.zeros(len(distinct), bool)
    used[codes[present]] = True
    known = [value for value, is_used in zip(distinct, used, strict=True) if is_used]
    large = [v for v in known if isinstance(v, int) and not -(2**53) <= v <= 2**53]
    notes: tuple[str, ...] = ()
    names = declared or (bool(large) and holds in NAMES)
    if large and not names and holds not in NUMBERS and not all(map(_fits, large)):
        names = coding == "onehot" or (coding == "auto" and len(set(known)) <= _FEW)
        if names and coding == "auto":
            notes = (
                f"column {name!r} holds whole numbers beyond 2^53, which are taken as categories",
            )
    if names:
        check_finite(name, np.array([v for v in known if isinstance(v, float)], np.float64))
        order = sorted(set(known))
        index = {value: code for code, value in enumerate(order)}
        table = np.array([index.get(value, 0) for value in distinct], np.int32)
        return Column(name, table[codes], tuple(label(value) for value in order)), notes
    if not all(map(_fits, large)):
        _check_rounding(name, holds, known, large)
    floats = np.array(
        [float(v) if is_used else 0.0 for v, is_used in zip(distinct, used, strict=True)]
    )
    values = np.where(present, floats[codes], np.nan)
    check_finite(name, values[present])
    return Column(name, values), notes


def _fits(value: int) -> bool:
    """Whether a float holds a whole number exactly."""
    try:
        return int(float(value)) == value
    except OverflowError:
        return False


def _check_rounding(
    name: str, holds: str, known: Sequence[int | float], large: Sequence[int]
) -> None:
    """Refuse numbers of which too little is left as floats."""
    remedy = "subtract a constant from the column, or declare it a categorical"
    if any(abs(value) > 10**308 for value in large):
        raise InputError(
            f"column {name!r} holds numbers of over 308 digits, too large to compute with; "
            "correct them, or declare the column a categorical"
        )
    width = max(known) - min(known)
    moved = max(abs(int(float(value)) - value) for value in large)
    if moved > _ROUGH * width and holds != "weights":
        raise InputError(
            f"column {name!r} holds whole numbers beyond 2^53 ({large[0]}) that lie too close "
            f"together for floating-point numbers; {remedy}"
        )


def notes_of(readings: Mapping[str, Reading]) -> tuple[str, ...]:
    """Return what was read as missing, what was not, and what else was decided, in sentences."""
    notes = []
    missing = []
    for name, reading in readings.items():
        if reading.missing:
            told = ", ".join(f"{count} cells {mark!r}" for mark, count in reading.missing.items())
            missing.append(f"{told} of column {name!r}")
    if missing:
        more = f" and of {len(missing) - 12} more columns" if len(missing) > 12 else ""
        notes.append(
            f"read as missing: {'; '.join(missing[:12])}{more} (missing_marks, or "
            "--missing-marks, says what marks a missing cell)"
        )
    for name, reading in readings.items():
        if reading.kept:
            told = ", ".join(f"{mark!r} ({count} cells)" for mark, count in reading.kept.items())
            notes.append(
                f"column {name!r} keeps {told} as a level; if it marks missing cells, name it in "
                "missing_marks (--missing-marks)"
            )
        notes += reading.notes
    return tuple(notes)


def check_not_empty(reading: Reading, role: Role) -> None:
    """Name a column of which next to nothing is there, before its gaps are told of another."""
    column, num = reading.column, int(reading.present.sum())
    values = column.values[reading.present]
    if num > 1 and (not role.varies or (values != values[0]).any()):
        return
    shown = column.levels[values[0]] if column.levels else label(values[0])
    raise InputError(
        f"column {column.name!r} ({role.name}) is constant ({shown!r}) in the {num} of its "
        f"{len(reading.present)} cells that {'is' if num == 1 else 'are'} not missing; leave it "
        + ("out or take another" if role.needed else "out")
    )


def check_varies(column: Column, role: Role, hint: str = "") -> None:
    """Refuse a column that is constant in the rows used."""
    if (column.values == column.values[0]).all():
        value = column.labels()[0]
        raise InputError(
            f"column {column.name!r} ({role.name}) is constant ({value!r}) in the rows used; leave "
            + ("it out or take another" if role.needed else "it out")
            + hint
        )


def stray_texts(column: Column) -> Sequence[str]:
    """Return the levels of a text column that are no numbers, or all where all are."""
    return [text for text in column.levels or () if not _is_float(text)] or column.labels()


def _is_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
