"""A sheet of panels at the size of a paper: styles, ticks, bins, wrapped texts and a legend."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias, TypedDict, Unpack, cast

import numpy as np

from jaxmix.exceptions import InputError
from jaxmix.report.plots import ACCENT, INK, figure_class, plain

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.legend import Legend
    from matplotlib.lines import Line2D

SMALL, TEXT, TITLE = 7.0, 8.0, 9.0  # points
WIDTH, HEIGHT = 3.4, 2.3  # inches of a panel
_GAP = 0.06  # inches around what is above and below the panels
_COLOURS = (ACCENT, "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
_DASHES: tuple[str | tuple[int, tuple[int, ...]], ...] = (
    "-", (0, (5, 1)), (0, (6, 1, 1, 1)), (0, (1, 1)), (0, (3, 1, 1, 1)),
)  # fmt: skip


Tick: TypeAlias = Literal[2, 3]
"""Matplotlib's markers TICKUP and TICKDOWN."""


class Look(TypedDict, total=False):
    """The style of a line, in matplotlib's words."""

    color: str
    alpha: float
    ls: str | tuple[int, tuple[int, ...]]
    lw: float
    marker: str | Tick
    mew: float
    mfc: str
    ms: float
    markevery: list[int] | None


class _Font(TypedDict, total=False):
    color: str
    fontsize: float
    ha: str
    parse_math: bool


Entry: TypeAlias = "tuple[str, Artist | tuple[Artist, ...]]"
"""A label of a legend, and what stands beside it."""


def styles(labels: Iterable[str]) -> dict[str, Look]:
    """Return a colour, marker and line style for each different label, in order.

    Examples
    --------
    >>> [style["marker"] for style in styles(["a", "b", "a"]).values()]
    ['o', 's']
    """
    return {
        label: Look(
            color=_COLOURS[i % 6],
            marker=_MARKERS[i % 8],
            ls=_DASHES[i % 5],
            lw=1.2,
            ms=4.0,
            mew=0.8,
        )
        for i, label in enumerate(dict.fromkeys(labels))
    }


def off(look: Look, tick: Tick) -> list[Look]:
    """Return the style of a point off the axis: its marker, open, and a tick to where it is."""
    base: Look = {"color": look["color"], "ls": "none", "mew": 0.9}
    marker: Look = {"marker": look.get("marker", "o"), "mfc": "white", "ms": 4.0}
    return [base | {"marker": tick, "ms": 5.5}, base | marker]


def sample(**style: Unpack[Look]) -> Line2D:
    """Return a line of a style, for the legend."""
    from matplotlib.lines import Line2D

    style["markevery"] = None
    return Line2D([], [], **style)


def ticks(axis: Axis, log: bool) -> None:
    """Give an axis few ticks and plain numbers; a logarithmic one that spans little also."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    few = MaxNLocator(6, steps=[1, 2, 2.5, 5, 10])
    if log:
        low, high = axis.get_view_interval()
        decades = math.log10(high / low)
        steps = (1.0, 2.0, 5.0) if decades < 1.7 else (1.0, 3.0) if decades < 2.5 else (1.0,)
        axis.set_major_locator(few if decades < 0.7 else LogLocator(subs=steps))
        axis.set_minor_formatter(NullFormatter())
    else:
        axis.set_major_locator(few)
    axis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))


def _tick(value: float) -> str:
    if value and not 1e-4 <= abs(value) < 1e6:
        mantissa, exponent = f"{value:.4e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:,.10g}"


def alone(shown: np.ndarray) -> np.ndarray:
    """Return which of the points shown have no neighbour to be joined with."""
    padded = np.concatenate([[False], shown, [False]])
    found: np.ndarray = shown & ~padded[:-2] & ~padded[2:]
    return found


def extent(values: np.ndarray, ends: np.ndarray, log: bool) -> tuple[float, float]:
    """Return the range of values and, up to their own spread to either side, of interval ends.

    `ends` includes the values. On a logarithmic axis, of their decimal logarithms, and half a
    decade at most: an interval that comes close to zero has no end there.

    Examples
    --------
    >>> extent(np.array([1.0, 2.0]), np.array([-50.0, 1.0, 2.0, 2.5]), log=False)
    (0.0, 2.5)
    """
    if not len(values):
        return 0.0, 1.0
    if log:
        values, ends = np.log10(values), np.log10(np.maximum(ends, np.finfo(float).tiny))
    low, high = float(values.min()), float(values.max())
    span = high - low or (0.5 if log else abs(high) or 1.0)
    room = min(span, 0.5) if log else span
    lower, upper = max(float(ends.min()), low - room), min(float(ends.max()), high + room)
    return (lower, upper) if lower < upper else (low - span / 2, high + span / 2)


def bins(groups: Sequence[np.ndarray], truths: np.ndarray) -> np.ndarray:
    """Return the edges of bins common to all groups, wide enough for the bulk of each."""
    if not groups:
        return np.linspace(-0.5, 0.5, 11) + (truths.mean() if len(truths) else 0.0)
    quarters = np.array([np.quantile(values, [0.25, 0.5, 0.75]) for values in groups])
    spreads = np.array([
        high - low or float(np.ptp(values))
        for values, (low, _, high) in zip(groups, quarters, strict=True)
    ])  # fmt: skip
    typical = float(np.median(spreads))
    room = np.minimum(3.0 * spreads, 12.0 * typical) if typical else 3.0 * spreads
    lows = [max(v.min(), q[0] - r) for v, q, r in zip(groups, quarters, room, strict=True)]
    highs = [min(v.max(), q[2] + r) for v, q, r in zip(groups, quarters, room, strict=True)]
    low, high = min([*lows, *truths]), max([*highs, *truths])
    if low == high:
        return np.linspace(low - 0.5, high + 0.5, 12)
    size = float(np.median([len(values) for values in groups]))
    width = 2.0 * (typical or high - low) / size ** (1 / 3)
    return np.linspace(low, high, int(np.clip((high - low) / width, 10, 50)) + 1)


class Sheet:
    """Panels up to three a row, a title above, and a legend and a note below.

    Texts are wrapped to the room they have, and the figure is as high as all of them need.

    Parameters
    ----------
    num_panels
        How many axes.

    Attributes
    ----------
    figure, axes
        The figure and its axes, row by row.
    num_columns
        Panels in a row.
    """

    figure: Figure
    axes: list[Axes]

    def __init__(self, num_panels: int) -> None:
        if not num_panels:
            raise InputError("a figure of no panels: give at least one")
        make = figure_class()
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        self.num_columns = num_panels if num_panels <= 3 else 2 if num_panels == 4 else 3
        self._rows = -(-num_panels // self.num_columns)
        self.figure = make(figsize=(WIDTH * self.num_columns, HEIGHT * self._rows))
        self._renderer = FigureCanvasAgg(self.figure).get_renderer()
        grid = self.figure.subplots(self._rows, self.num_columns, squeeze=False)
        self.axes = list(grid.flat[:num_panels])
        for axes in grid.flat[num_panels:]:
            axes.remove()
        for axes in self.axes:
            plain(axes, size=SMALL)

    def label(self, axes: Axes, x: str, y: str) -> None:
        """Label the axes of a panel."""
        style = _Font(fontsize=TEXT, color=INK, parse_math=False)
        axes.set_xlabel(self._wrap(x, TEXT, WIDTH - 0.7), **style)
        axes.set_ylabel(self._wrap(y, TEXT, HEIGHT - 0.6), **style)

    def write(self, axes: Axes, lines: Sequence[str]) -> float:
        """Write lines into the upper corner of a panel; return where below they leave room."""
        text = "\n".join(self._wrap(line, SMALL, WIDTH - 0.8) for line in lines)
        if not text:
            return 1.0
        style = _Font(fontsize=SMALL, color=INK, parse_math=False)
        axes.text(0.99, 1.0, text, ha="right", va="top", transform=axes.transAxes, **style)
        free = 1.0 - min((text.count("\n") + 1.5) * SMALL * 1.25 / 72 / (HEIGHT - 0.5), 0.7)
        low, high = axes.get_ylim()
        axes.set_ylim(low, low + (high - low) / free)
        return free

    def finish(self, entries: Sequence[Entry], title: str, note: str) -> Figure:
        """Place title, legend and note around the panels and return the figure."""
        figure, width = self.figure, WIDTH * self.num_columns
        style = _Font(ha="center", color=INK, parse_math=False)
        above = figure.text(0.5, 1.0, self._wrap(title, TITLE, width - 0.2), fontsize=TITLE,
                            va="top", **style)  # fmt: skip
        below = figure.text(0.5, 0.0, self._wrap(note, SMALL, width - 0.2), fontsize=SMALL,
                            va="bottom", **style)  # fmt: skip
        head, foot = (
            text.get_window_extent(self._renderer).height / figure.dpi + 2 * _GAP
            if text.get_text()
            else _GAP
            for text in (above, below)
        )
        legend = self._legend(entries, width)
        key = legend.get_window_extent(self._renderer).height / figure.dpi + _GAP if legend else 0.0
        height = head + HEIGHT * self._rows + key + foot
        figure.set_size_inches(width, height)
        above.set_y(1.0 - _GAP / height)
        below.set_y(_GAP / height)
        if legend:
            legend.set_bbox_to_anchor((0.5, foot / height), figure.transFigure)
        bottom = (key + foot) / height
        figure.set_layout_engine(
            "constrained", rect=(0.0, bottom, 1.0, 1.0 - bottom - head / height)
        )
        return figure

    def _legend(self, entries: Sequence[Entry], width: float) -> Legend | None:
        """Return the legend with as many columns as fit, its labels wrapped if none does."""
        figure = self.figure
        # Matplotlib lays the artists of a tuple side by side, which its types do not say.
        handles = cast("list[Artist]", [handle for _, handle in entries])
        for rows in range(1, len(entries) + 1):
            columns = -(-len(entries) // rows)
            legend = figure.legend(
                handles, [" "] * len(entries), ncols=columns,
                loc="lower center", fontsize=SMALL, frameon=False, handlelength=2.6,
                columnspacing=1.0, borderpad=0.0, borderaxespad=0.0, labelcolor=INK,
            )  # fmt: skip
            # Set afterwards: labels that begin with "_" would be left out, "$" begin a formula.
            for text, (label, _) in zip(legend.get_texts(), entries, strict=True):
                text.set_parse_math(False)
                text.set_text(self._wrap(label, SMALL, width - 0.6))
            if columns == 1 or (
                legend.get_window_extent(self._renderer).width / figure.dpi <= width - 0.1
            ):
                return legend
            legend.remove()
        return None

    def _wrap(self, text: str, points: float, inches: float) -> str:
        """Break a text into lines that are no longer than `inches`."""
        from matplotlib.font_manager import FontProperties

        font, room = FontProperties(size=points), inches * self.figure.dpi
        for characters in range(len(text), 1, -1):
            lines = textwrap.wrap(text, characters)
            if all(
                self._renderer.get_text_width_height_descent(line, font, False)[0] <= room
                for line in lines
            ):
                return "\n".join(lines)
        return text
