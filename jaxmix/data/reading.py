"""From the cells of any table to a column, by what the cells are and what the column is for."""

from __future__ import annotations

import collections
import datetime
import decimal
import numbers
import re
import uuid
from collections.abc import Collection

import numpy as np

from jaxmix.data.columns import (
    NAMES,
    NUMBERS,
    Column,
    Reading,
    check_finite,
    from_dates,
    from_numbers,
    is_exact,
    no_dates,
)
from jaxmix.exceptions import InputError
from jaxmix.tables.cells import Cells, strange
from jaxmix.tables.texts import USUAL, Kind, Marks, kind_of, label, listed, usual_kind

_SURROGATES = re.compile("[\ud800-\udfff]")


def as_column(
    name: str, cells: Cells, holds: str, marks: Marks = USUAL, *, coding: str = "auto"
) -> Reading:
    """Return a checked column.

    Parameters
    ----------
    name
        The column's name.
    cells
        Its cells.
    holds
        What its role asks of it (`jaxmix.data.columns.Role`): one of `NUMBERS` or of `NAMES`, or
        ``"values"``.
    marks
        Which texts are missing cells.
    coding
        What the user asked for: ``"onehot"`` categories, ``"linear"`` numbers, or neither.
    """
    if cells.distinct is None:
        return _of_array(name, cells, holds, marks, coding)
    return _Distinct(name, cells, holds, marks, coding).reading()


def levels_of(
    name: str, cells: Cells, levels: Collection[str], marks: Marks
) -> tuple[list[str], np.ndarray]:
    """Return the levels of a category column and codes of them, -1 where missing.

    Levels that are known already are recognised as they were written, and as numbers; a mark of a
    missing cell is a level only where it is known as one.
    """
    if cells.distinct is None:
        reading = as_column(name, cells, "names", marks)
        column, present = reading.column, reading.present
        found, inverse = np.unique(column.values[present], return_inverse=True)
        texts = [column.levels[int(f)] if column.levels else label(f) for f in found]
        codes = np.full(len(cells), -1, np.int64)
        codes[present] = inverse.ravel()
        return texts, codes
    own = _Distinct(name, cells, "names", marks, coding="onehot")
    texts, table = [], []
    for kind, value, text in zip(own.kinds, own.numbers, own.texts, strict=True):
        number = "" if value is None else label(value)
        if text not in levels and (kind in (Kind.EMPTY, Kind.NULL, Kind.BLANK, Kind.MARK)):
            table.append(-1)
            continue
        table.append(len(texts))
        texts.append(text if text in levels or number not in levels else number)
    codes = np.where(cells.present, np.array(table)[own.codes], -1)
    return texts, codes


def _of_array(name: str, cells: Cells, holds: str, marks: Marks, coding: str) -> Reading:
    """Return a column of a numpy array of numbers or times."""
    values, present = cells.values, cells.present
    if values.dtype.kind in "mM":
        return Reading(*from_dates(name, values, present & ~np.isnat(values), holds))
    missing: dict[str, int] = {}
    for mark in marks.numbers:
        found = present & (values == mark)
        if found.any():
            missing[label(mark)] = int(found.sum())
            present = present & ~found
    if values.dtype.kind == "f":
        present = present & ~np.isnan(values)
    whole = values.dtype.kind in "iu" and values.dtype.itemsize == 8
    if whole and not is_exact(values[present]):
        distinct, codes = np.unique(values, return_inverse=True)
        column, notes = from_numbers(name, distinct.tolist(), codes, present, holds, coding=coding)
        return Reading(column, present, missing, notes=notes)
    floats = values.astype(np.float64, copy=False)
    if not present.all():
        floats = np.where(present, floats, np.nan)
    check_finite(name, floats[present])
    return Reading(Column(name, floats), present, missing)


def _written(name: str) -> str:
    return (
        f"column {name!r} is text that holds numbers alone, and is read as numbers; declare it a "
        "categorical if they are names"
    )


def _is_name(cell: object) -> bool:
    """Whether a cell is neither number nor text, and fit to be the name of a group."""
    kinds = (datetime.time, datetime.timedelta, np.timedelta64, uuid.UUID)
    return isinstance(cell, kinds) or type(cell).__name__ == "Period"


class _Distinct:
    """A column given as distinct cells: what each is, and so what the column is."""

    def __init__(self, name: str, cells: Cells, holds: str, marks: Marks, coding: str) -> None:
        assert cells.distinct is not None
        self.name, self.holds, self.marks, self.coding = name, holds, marks, coding
        self.cells, self.codes, self.distinct = cells, cells.values, cells.distinct or [None]
        self.declared = cells.declared and holds not in NUMBERS
        self.counts = np.bincount(
            self.codes[cells.present], minlength=len(self.distinct)
        ).tolist()  # fmt: skip
        self.kinds: list[Kind] = []
        self.numbers: list[int | float | None] = []
        self.texts: list[str] = []
        for cell, count in zip(self.distinct, self.counts, strict=True):
            kind, value, text = self._cell(cell) if count else (Kind.EMPTY, None, "")
            if kind is Kind.NUMBER and marks.numbers and value in marks.numbers:
                kind = Kind.NULL
            self.kinds.append(kind)
            self.numbers.append(value)
            self.texts.append(text)
        self._settle_flags()
        self.totals: collections.Counter[Kind] = collections.Counter()
        for kind, count in zip(self.kinds, self.counts, strict=True):
            self.totals[kind] += count

    def _cell(self, cell: object) -> tuple[Kind, int | float | None, str]:
        if isinstance(cell, bytes):
            try:
                cell = cell.decode()
            except UnicodeDecodeError:
                raise InputError(
                    f"column {self.name!r} holds bytes that are not utf-8 ({cell[:40]!r}); decode "
                    "them, in a file by its encoding (--encoding latin-1 or another)"
                ) from None
        if isinstance(cell, str):
            if not cell.isascii() and _SURROGATES.search(cell):
                raise InputError(
                    f"column {self.name!r} holds text that was not decoded ({cell[:40]!a}); read "
                    "it again with its encoding, such as latin-1"
                )
            return *kind_of(cell, self.marks), str(cell)
        if isinstance(cell, decimal.Decimal):
            whole = cell.is_finite() and cell == cell.to_integral_value()
            value = int(cell) if whole else float(cell)
            return Kind.NUMBER, value, label(value)
        if isinstance(cell, numbers.Integral | np.bool_):
            return Kind.NUMBER, int(cell), str(int(cell))
        if isinstance(cell, numbers.Real):
            return Kind.NUMBER, float(cell), label(float(cell))
        if isinstance(cell, datetime.date | np.datetime64):
            return Kind.DATE, None, str(cell).removesuffix(" 00:00:00")
        if self.holds in NAMES and _is_name(cell):
            return Kind.DATE, None, str(cell)
        if self.cells.declared:
            return Kind.WORD, None, str(cell)
        raise strange(self.name, cell)

    def total(self, *kinds: Kind) -> int:
        """Return the number of cells of some kinds."""
        return sum(self.totals[kind] for kind in kinds)

    def tally(self, *kinds: Kind) -> dict[str, int]:
        """Return the texts of some kinds with the number of cells of each."""
        found: collections.Counter[str] = collections.Counter()
        for text, count, kind in zip(self.texts, self.counts, self.kinds, strict=True):
            if kind in kinds:
                found[text] += int(count)
        return dict(found)

    def reading(self) -> Reading:
        """Return the column, or raise `InputError` for one that is neither numbers nor text."""
        total = self.total
        if not total(Kind.WORD, Kind.DATE, Kind.COMMAS) and total(Kind.NUMBER):
            return self._as_text() if self._is_meant_as_text() else self._as_numbers()
        if total(Kind.DATE) and not total(Kind.WORD, Kind.NUMBER, Kind.COMMAS):
            if self.holds not in NAMES and not self.declared:
                raise no_dates(self.name)
        elif not self.declared and self.coding != "onehot":
            self._check_commas()
            self._check_strays()
        return self._as_text()

    def _settle_flags(self) -> None:
        """Take true and false for 1 and 0, unless the column has other numbers or words."""
        if Kind.FLAG not in self.kinds:
            return
        others = {Kind.WORD, Kind.DATE, Kind.COMMAS}
        plain = all(
            value in (0, 1) if kind is Kind.NUMBER else kind not in others
            for kind, value in zip(self.kinds, self.numbers, strict=True)
        )
        settled = Kind.NUMBER if plain else Kind.WORD
        self.kinds = [settled if kind is Kind.FLAG else kind for kind in self.kinds]

    def _as_numbers(self) -> Reading:
        doubtful = self.tally(Kind.BLANK, Kind.MARK)
        if 5 * sum(doubtful.values()) > len(self.cells):
            told = ", ".join(f"{mark!r} {count}" for mark, count in doubtful.items())
            raise InputError(
                f"column {self.name!r} is numbers but for {told} of {len(self.cells)} cells, more "
                f"than a fifth; if they are missing, say so by missing_marks={list(doubtful)} "
                f"(--missing-marks {','.join(doubtful)!r}); if not, correct them, or make them "
                "levels by missing_marks=[] (--missing-marks '')"
            )
        self._check_zeros()
        codes = self.codes
        kept = np.array([kind is Kind.NUMBER for kind in self.kinds])
        present = self.cells.present & kept[codes]
        values = [0 if v is None or not k else v for v, k in zip(self.numbers, kept, strict=True)]
        column, notes = from_numbers(
            self.name,
            values,
            codes,
            present,
            self.holds,
            declared=self.declared,
            coding=self.coding,
        )
        if self._is_written() and column.levels is None:
            notes += (_written(self.name),)
        marked = self.tally(Kind.NULL, Kind.BLANK, Kind.MARK)
        return Reading(column, present, marked, notes=notes)

    def _is_meant_as_text(self) -> bool:
        """Whether a table that has types holds codes of categories, as text: 0, 1, 12.

        Who writes ``astype(str)`` means that. Beside a mark of a missing cell the text is due to
        the mark, and decimals are due to a library that does not know them.
        """
        if self.cells.untyped or self.declared or self.holds in NUMBERS or self.holds in NAMES:
            return False
        marked = self.total(Kind.EMPTY, Kind.NULL, Kind.BLANK, Kind.MARK)
        return not marked and all(
            isinstance(cell, (str, bytes))
            and isinstance(value, int)
            and text == str(value)
            and abs(value) <= 2**53
            for cell, value, text, count in zip(
                self.distinct, self.numbers, self.texts, self.counts, strict=True
            )
            if count
        )

    def _is_written(self) -> bool:
        """Whether numbers that might be meant as names are text in a table that has types."""
        if self.cells.untyped or self.holds in NAMES or self.holds in NUMBERS:
            return False
        return any(
            isinstance(cell, (str, bytes)) and kind is Kind.NUMBER and value not in (0, 1)
            for cell, kind, value in zip(self.distinct, self.kinds, self.numbers, strict=True)
        )

    def _check_zeros(self) -> None:
        """Refuse names such as 01 and 1, which are one number."""
        if self.holds in NUMBERS or self.declared:
            return
        first: dict[int | float | None, str] = {}
        for text, kind, value in zip(self.texts, self.kinds, self.numbers, strict=True):
            if kind is Kind.NUMBER and text.strip().lstrip("+-").isdecimal():
                other = first.setdefault(value, text)
                zeros = [t.strip().lstrip("+-").startswith("0") for t in (other, text)]
                if value and any(zeros) and len(other.strip()) != len(text.strip()):
                    raise InputError(
                        f"column {self.name!r} holds {other!r} and {text!r}, which are one number; "
                        "write them alike, or declare the column a categorical"
                    )

    def _check_commas(self) -> None:
        """Refuse numbers with commas, which would be categories otherwise."""
        commas = self.tally(Kind.COMMAS)
        if not commas or self.holds == "groups":
            return
        others = self.total(Kind.WORD, Kind.DATE)
        if 4 * others <= self.total(Kind.NUMBER, Kind.COMMAS):
            shown = next(iter(commas))
            what = "commas" if "," in shown else "separators"
            raise InputError(
                f"column {self.name!r} holds numbers with {what} ({shown!r}); write 0.5 for 0,5 "
                "and 1234 for 1,234, or declare the column a categorical"
            )

    def _check_strays(self) -> None:
        """Refuse proxies and covariates of numbers that a few stray texts would make text."""
        if self.holds in NAMES or self.holds in NUMBERS:
            return
        strays = {
            text: count
            for text, count in self.tally(Kind.WORD, Kind.DATE, Kind.COMMAS).items()
            if usual_kind(text) is Kind.WORD  # a mark that the user wants to be a level
        }
        num, levels = self.total(Kind.NUMBER), len(self.tally(Kind.NUMBER))
        few = 4 * sum(strays.values()) <= num or 4 * len(strays) <= levels
        if strays and num and few:
            raise InputError(
                f"column {self.name!r} is text, but nearly all of its values are numbers; correct "
                f"or empty the cells that hold {listed(strays)}, or name what marks a missing cell "
                "by missing_marks (--missing-marks)"
            )

    def _as_text(self) -> Reading:
        absent = (Kind.EMPTY, Kind.NULL, Kind.BLANK)
        codes = self.codes
        kept = np.array([kind not in absent for kind in self.kinds])
        present = self.cells.present & kept[codes]
        levels = sorted({text for text, k in zip(self.texts, kept, strict=True) if k})
        index = {text: code for code, text in enumerate(levels)}
        table = np.array([index.get(text, 0) for text in self.texts], np.int32)
        if not levels:  # nothing but missing cells
            column = Column(self.name, np.full(len(codes), np.nan))
        else:
            column = Column(self.name, table[codes], tuple(levels))
        marked = self.tally(Kind.NULL, Kind.BLANK)
        return Reading(column, present, marked, self.tally(Kind.MARK))
