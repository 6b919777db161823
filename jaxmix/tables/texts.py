"""What a text in a cell stands for: a number, a missing cell, a date, a word."""

from __future__ import annotations

import dataclasses
import enum
import math
import re
from collections.abc import Iterable, KeysView, Mapping, Sequence, Set, ValuesView
from typing import SupportsFloat, cast

import numpy as np

from jaxmix import arguments
from jaxmix.exceptions import InputError

AUTO = "auto"


class Kind(enum.Enum):
    """What a cell is, by itself; what becomes of it is decided by its column."""

    EMPTY = "nothing between the separators, or null: always a missing cell"
    NULL = "a spelling of null or NaN: always a missing cell"
    BLANK = "a missing cell that no program writes for itself: blanks, <NA>"
    MARK = "a missing cell among numbers, perhaps a level among words: ., ?, -, None"
    NUMBER = "a number"
    FLAG = "true or false"
    COMMAS = "a number written with commas or blanks"
    DATE = "a date or a time"
    WORD = "any other text"


# What csv readers take for an empty cell by default, in any case.
_NULLS = frozenset((
    "na", "n/a", "nan", "null", "#n/a", "#na", "-nan", "+nan", "1.#ind", "-1.#ind", "1.#qnan",
    "-1.#qnan", "#n/a n/a", "nat", "(null)", "<null>",
))  # fmt: skip
_BLANKS = frozenset(("", "<na>"))
_MARKS = frozenset((
    ".", "..", "...", "?", "??", "-", "--", "---", "\u2013", "\u2014", "*", "none", "missing",
    "n.a.", "n.a", "#null!", "\\n",
))  # fmt: skip

_WHOLE = re.compile(r"[+-]?[0-9]+")
_WHOLE_WITH_POINT = re.compile(r"[+-]?[0-9]{16,999}\.0*")  # a float would lose digits of it
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_PLAIN = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?")
_INFINITE = re.compile(r"[+-]?inf(inity)?", re.IGNORECASE)
_BLANK = " \u00a0\u2009\u202f"
_COMMAS = re.compile(
    r"[(]?[$\u20ac\u00a3\u00a5]? ?[+-]?(?:[0-9]*,[0-9]+"  # 0,5
    r"|[0-9]+,"
    r"|[0-9]{1,3}(?:,[0-9]{2,3})*,[0-9]{3}(?:\.[0-9]*)?"  # 1,234.5
    r"|[0-9]{1,3}(?:\.[0-9]{3})+,[0-9]*"  # 1.234,5
    r"|[0-9]{1,3}(?:\.[0-9]{3}){2,}"  # 1.234.567
    rf"|[0-9]{{1,3}}(?:['\u2019_{_BLANK}][0-9]{{3}})+(?:[.,][0-9]*)?"  # 1'234.5, 1 234,5
    r")(?:[eE][+-]?[0-9]+)? ?[%$\u20ac\u00a3\u00a5]?[)]?"
)
_DATE = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"([ T][0-9]{2}:[0-9]{2}(:[0-9]{2}([.,][0-9]+)?)?( ?(Z|UTC|[+-][0-9]{2}:?[0-9]{2}))?)?"
    r"|[0-9]{1,2}:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?"
)


@dataclasses.dataclass(frozen=True)
class Marks:
    """Which texts mark a missing cell: the usual ones, or those of a list and no others.

    Attributes
    ----------
    texts
        The marks that were named; None for the usual ones.
    numbers
        Those of them that are numbers, such as -99.
    """

    texts: frozenset[str] | None = None
    numbers: frozenset[int | float] = frozenset()

    def kind(self, text: str) -> Kind:
        """Return what a text is, as far as marks go: a mark, or a WORD."""
        if not text:
            return Kind.EMPTY
        if self.texts is not None:
            return Kind.NULL if text in self.texts or text.strip() in self.texts else Kind.WORD
        return usual_kind(text)


USUAL = Marks()


def marks_of(asked: object) -> Marks:
    """Return the marks of ``"auto"`` or of a list of texts; refuse anything else."""
    told = "missing_marks (--missing-marks)"
    if isinstance(asked, Marks):
        return asked
    if isinstance(asked, str):
        if asked == AUTO:
            return USUAL
        given = arguments.told(asked)
        raise InputError(f"{told} is the text {given}: give a list of marks, or 'auto'")
    listed = isinstance(asked, Sequence | Set | Mapping | KeysView | ValuesView | np.ndarray)
    if not listed or isinstance(asked, bytes) or getattr(asked, "ndim", 1) != 1:
        raise InputError(f"{told} is {arguments.told(asked)}: give a list of marks, or 'auto'")
    texts, numbers = set(), set()
    for mark in cast(Iterable[object], asked):
        if not isinstance(mark, (str, int, float, np.number)):
            raise InputError(f"{told} holds {arguments.told(mark)}: marks are texts or numbers")
        text = mark if isinstance(mark, str) else label(mark)
        texts |= {text, text.strip()} - {""}
        if (value := number_of(text.strip())) is not None:
            numbers.add(value)
    return Marks(frozenset(texts), frozenset(numbers))


def usual_kind(text: str) -> Kind:
    """Return what a text is among the usual marks, or WORD."""
    bare = text.strip().casefold()
    if bare in _NULLS:
        return Kind.NULL
    if bare in _BLANKS:
        return Kind.BLANK
    return Kind.MARK if bare in _MARKS else Kind.WORD


def number_of(text: str) -> int | float | None:
    """Return the number that a text is, whole numbers exactly; None where it is none.

    Examples
    --------
    >>> number_of("9007199254740993"), number_of("-.5"), number_of("1e3"), number_of("1,5")
    (9007199254740993, -0.5, 1000.0, None)
    """
    text = text.replace("\u2212", "-")
    if _WHOLE.fullmatch(text):
        try:
            return int(text)
        except ValueError:  # more digits than Python takes at once
            return None
    if _WHOLE_WITH_POINT.fullmatch(text):
        return int(text.partition(".")[0] or 0)
    if _NUMBER.fullmatch(text):
        return float(text)
    return float(text) if _INFINITE.fullmatch(text) else None


def kind_of(text: str, marks: Marks) -> tuple[Kind, int | float | None]:
    """Return what a text is by itself, and the number that it is (or None)."""
    if marks.texts is None and _PLAIN.fullmatch(text):  # most cells by far
        return Kind.NUMBER, int(text) if text.isdecimal() else float(text)
    kind = marks.kind(text)
    if kind is not Kind.WORD:
        return kind, None
    bare = text.strip()
    value = number_of(bare)
    if value is not None:
        return Kind.NUMBER, value
    if bare.casefold() in ("true", "false"):
        return Kind.FLAG, int(bare.casefold() == "true")
    if _COMMAS.fullmatch(bare):
        return Kind.COMMAS, None
    return (Kind.DATE if _DATE.fullmatch(bare) else Kind.WORD), None


def label(value: SupportsFloat) -> str:
    """Return a number as text: whole numbers exactly, and without a decimal point."""
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return str(int(value))
    number = float(value)
    return str(int(number)) if math.isfinite(number) and number == int(number) else repr(number)


def listed(names: Iterable[object], most: int = 12) -> str:
    """Return names quoted and separated by commas, a long list cut short."""
    texts = [shown if len(shown := repr(name)) <= 80 else f"{shown[:77]}..." for name in names]
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more
