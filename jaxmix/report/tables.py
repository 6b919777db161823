"""Tables as text and as HTML."""

from __future__ import annotations

import dataclasses
import html
import math
from collections.abc import Iterable, Sequence


@dataclasses.dataclass(frozen=True)
class Table:
    """A titled table of cells that are already text.

    Attributes
    ----------
    title
        Line above the table.
    header
        Column names; the first column is left-aligned, the others right-aligned.
    rows
        Cells; a row shorter than the header is filled up.
    notes
        Lines below the table.
    """

    title: str
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    notes: Sequence[str] = ()

    def text(self, width: int = 88) -> str:
        """Return the table as aligned plain text, notes wrapped at `width`."""
        lines = [self.title]
        if self.rows:
            cells = [list(row) + [""] * (len(self.header) - len(row)) for row in self.rows]
            columns = list(zip(self.header, *cells, strict=True))
            widths = [max(len(cell) for cell in column) for column in columns]
            for row in (self.header, *cells):
                first, *others = (
                    cell.ljust(widths[0]) if i == 0 else cell.rjust(widths[i])
                    for i, cell in enumerate(row)
                )
                lines.append(("  " + "   ".join([first, *others])).rstrip())
        for note in self.notes:
            lines += _wrap(note, width)
        return "\n".join(lines)

    def html(self) -> str:
        """Return the table as an HTML fragment."""
        parts = [f"<h4>{html.escape(self.title)}</h4>"]
        if self.rows:
            head = "".join(f"<th>{html.escape(name)}</th>" for name in self.header)
            body = "".join(
                "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
                for row in self.rows
            )
            parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")
        parts += [f"<p>{html.escape(note)}</p>" for note in self.notes]
        return "\n".join(parts)


def _wrap(note: str, width: int) -> list[str]:
    lines, line = [], " "
    for word in note.split():
        if len(line) + 1 + len(word) > width and line.strip():
            lines.append(line)
            line = "   "
        line += " " + word
    return [*lines, line]


def number(value: float | None, digits: int = 4) -> str:
    """Return a number to a few significant digits, thousands grouped; a dash for none.

    Examples
    --------
    >>> number(-8497.516), number(0.012345), number(None)
    ('-8,497.5', '0.01235', '-')
    """
    if value is None or not math.isfinite(value):
        return "-"
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    if magnitude < -4 or magnitude > 8:
        return f"{value:.{digits - 1}e}"
    return f"{value:,.{max(digits - 1 - magnitude, 1 if magnitude < 6 else 0)}f}"


def classes(k: int) -> str:
    """Return a number of classes as text.

    Examples
    --------
    >>> classes(1), classes(2)
    ('1 class', '2 classes')
    """
    return "1 class" if k == 1 else f"{k} classes"


def interval(bounds: tuple[float, float] | None) -> str:
    """Return an interval as text.

    Examples
    --------
    >>> interval((-1.0, 2.5))
    '[-1.000, 2.500]'
    """
    return "-" if bounds is None else f"[{number(bounds[0])}, {number(bounds[1])}]"


def text_keys(names: Iterable[object]) -> list[str]:
    """Return names as texts that stay apart: columns may be called 1 and "1", or by tuples.

    Examples
    --------
    >>> text_keys(["a", 1, ("b", 2)]), text_keys([1, "1"])
    (['a', '1', "('b', 2)"], ['1', "'1'"])
    """
    names = list(names)
    texts = [str(name) for name in names]
    apart = len(set(texts)) == len(texts)
    return texts if apart else [repr(name) for name in names]
