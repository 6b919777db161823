"""Figures of simulation studies, drawn from plain numbers: curves and histograms.

A panel is 3.4 inches wide, the column of a paper, with no text below 7 points. Nothing is
dropped in silence: what cannot be drawn is marked at an edge or counted in words.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from jaxmix.exceptions import InputError
from jaxmix.report.plots import INK
from jaxmix.report.sheet import (
    Entry,
    Look,
    Sheet,
    Tick,
    alone,
    bins,
    extent,
    off,
    sample,
    styles,
    ticks,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BOUND: Look = {"color": "black", "lw": 1.1}
_DASHES = ("--", ":", "-.")  # of the first reference, and of others with other labels
_UPWARDS: Tick = 2
_DOWNWARDS: Tick = 3

_Marks: TypeAlias = tuple[Tick, np.ndarray, Look]
"""A tick, where on the x axis it marks a value that is off, and the line's style."""


@dataclasses.dataclass(frozen=True)
class Series:
    """One line: a summary at each x, with Monte Carlo standard errors where it has them.

    Attributes
    ----------
    label
        Text in the legend; the same label has the same style in every panel.
    x, y
        Points in any order; `y` may be NaN or infinite.
    se
        Standard errors of `y`; no interval is drawn where one is not finite.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    se: Sequence[float] | None = None


@dataclasses.dataclass(frozen=True)
class Panel:
    """One axes of curves.

    Attributes
    ----------
    label
        Label of the y axis.
    series
        Lines, in the order of the legend.
    reference
        A bound or a truth, drawn black and dashed.
    log_y
        Whether the y axis is logarithmic.
    """

    label: str
    series: Sequence[Series]
    reference: Series | None = None
    log_y: bool = False


@dataclasses.dataclass(frozen=True)
class Histogram:
    """One axes of distributions of estimates.

    Attributes
    ----------
    label
        Label of the x axis: what is estimated.
    groups
        Estimates by estimator; the same name has the same style in every panel.
    truths
        Positions of vertical dashed lines.
    """

    label: str
    groups: Mapping[str, Sequence[float]]
    truths: Sequence[float] = ()


def curves(
    panels: Sequence[Panel], *, x_label: str, title: str = "", log_x: bool = False, note: str = ""
) -> Figure:
    """Draw curves in panels side by side, with one legend below.

    Points are joined where they are neighbours. Standard errors become a band of 1.96 to either
    side, or a bar at a point alone; they widen the y axis at most threefold. A value that is
    not finite interrupts its line and is marked in a grey strip at the top edge, by the open
    marker of its series with a tick upwards; on a logarithmic axis a value of zero or less is
    marked in the same way at the bottom, with a tick downwards.

    Parameters
    ----------
    panels
        What to draw, up to three a row.
    x_label
        Label of the x axes.
    title
        Title of the figure.
    log_x
        Whether the x axes are logarithmic.
    note
        Text below the legend.

    Returns
    -------
    matplotlib.figure.Figure
        Not attached to any window; ``figure.savefig(path)`` writes it.

    Examples
    --------
    >>> error = Series("gmm", [100, 1000, 10000], [0.3, 0.1, float("nan")], [0.02, 0.01, 0.0])
    >>> bound = Series("bound", [100, 10000], [0.2, 0.02])
    >>> figure = curves([Panel("error", [error], bound, log_y=True)], x_label="n", log_x=True)
    >>> [text.get_text() for text in figure.legends[0].get_texts()]
    ['gmm', 'bound', 'not finite']
    """
    for panel in panels:
        _check(panel, log_x)
    sheet = Sheet(len(panels))
    looks = styles(series.label for panel in panels for series in panel.series)
    bounds = dict.fromkeys(panel.reference.label for panel in panels if panel.reference)
    looks |= {label: _BOUND | {"ls": _DASHES[i % 3]} for i, label in enumerate(bounds)}
    marked: set[int] = set()
    for axes, panel in zip(sheet.axes, panels, strict=True):
        marked |= _curves(axes, panel, looks, log_x)
        sheet.label(axes, x_label, panel.label)
    entries: list[Entry] = [(label, sample(**look)) for label, look in looks.items()]
    for name, tick in (("not finite", _UPWARDS), ("zero or less", _DOWNWARDS)):
        if tick in marked:
            entries.append((name, tuple(sample(**mark) for mark in off({"color": INK}, tick))))
    return sheet.finish(entries, title, note)


def histograms(panels: Sequence[Histogram], *, title: str = "", note: str = "") -> Figure:
    """Draw distributions of estimates in panels side by side, with one legend below.

    The groups of a panel share their bins, and heights are shares of a group's estimates. The
    bins span the median and quartiles of each group widened by three interquartile ranges (by
    twelve of the typical group, if that is less) and the truths. Estimates beyond are gathered
    into the outermost bins; a line of text counts them and those that are not finite.

    Parameters
    ----------
    panels
        What to draw, up to three a row.
    title
        Title of the figure.
    note
        Text below the legend.

    Returns
    -------
    matplotlib.figure.Figure
        Not attached to any window; ``figure.savefig(path)`` writes it.

    Examples
    --------
    >>> estimates = [0.9, 1.0, 1.0, 1.1, 1.2, 50.0, float("nan")]
    >>> figure = histograms([Histogram("effect", {"gmm": estimates}, truths=[1.0])])
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['gmm: 1 beyond, 1 not finite']
    """
    sheet = Sheet(len(panels))
    looks = styles(name for panel in panels for name in panel.groups)
    for i, (axes, panel) in enumerate(zip(sheet.axes, panels, strict=True)):
        counts = _histogram(axes, panel, looks)
        sheet.label(axes, panel.label, "" if i % sheet.num_columns else "share of estimates")
        top = sheet.write(axes, counts)
        for truth in panel.truths:
            axes.axvline(truth, ymax=top, zorder=1.9, ls="--", **_BOUND)
    entries: list[Entry] = [(name, sample(**look)) for name, look in looks.items()]
    if any(len(panel.truths) for panel in panels):
        entries.append(("truth", sample(**_BOUND | {"ls": "--"})))
    return sheet.finish(entries, title, note)


def _lines(panel: Panel) -> list[Series]:
    return [*panel.series, *([panel.reference] if panel.reference else [])]


def _check(panel: Panel, log_x: bool) -> None:
    """Refuse what has no place on the axes, or would have the style of something else."""
    lines = _lines(panel)
    labels = [line.label for line in lines]
    for line in lines:
        where = f"{line.label!r} in the panel {panel.label!r}"
        sizes = [len(line.x), len(line.y), len(line.x if line.se is None else line.se)]
        if len(set(sizes)) > 1:
            raise InputError(f"{where} has {sizes} values of x, y and se: give as many of each")
        if labels.count(line.label) > 1:
            raise InputError(f"{where} is there twice: give each line its own label")
        for x in np.asarray(line.x, float):
            if not np.isfinite(x) or (log_x and x <= 0):
                on = "on a logarithmic axis" if log_x else "on an axis"
                raise InputError(f"{where} has x = {x:g}, which has no place {on}: leave it out")


def _curves(axes: Axes, panel: Panel, looks: dict[str, Look], log_x: bool) -> set[int]:
    """Draw the lines of a panel; return the ticks of the marks that were needed."""
    rows: list[_Marks] = []
    reach, values = [np.empty(0)], [np.empty(0)]
    axes.set_xscale("log" if log_x else "linear")
    if panel.log_y:
        axes.set_yscale("log", nonpositive="clip")
    for line in _lines(panel):
        look = looks[line.label]
        order = np.argsort(np.asarray(line.x, float), kind="stable")
        x, y = np.asarray(line.x, float)[order], np.asarray(line.y, float)[order]
        low = np.isfinite(y) & (y <= 0) if panel.log_y else np.zeros(y.shape, bool)
        shown = np.isfinite(y) & ~low
        rows += [(_UPWARDS, x[~np.isfinite(y)], look), (_DOWNWARDS, x[low], look)]
        values.append(y[shown])
        marks = alone(shown)  # where no line would be seen
        if line is panel.reference:
            look = look | {"marker": ".", "ms": 4.0}
        else:
            marks[:: max(1, len(x) // 12)] = True
        every = np.flatnonzero(marks).tolist()
        axes.plot(x, np.where(shown, y, np.nan), **look, markevery=every, label=line.label)
        if line.se is not None:
            half = 1.96 * np.asarray(line.se, float)[order]
            reach.append(_band(axes, x, y, np.where(shown, half, np.nan), look["color"]))
    rows = [row for row in rows if len(row[1])]
    _limits(axes, values, reach, rows)
    for axis, log in ((axes.xaxis, log_x), (axes.yaxis, panel.log_y)):
        ticks(axis, log)
    return {tick for tick, _, _ in rows}


def _band(axes: Axes, x: np.ndarray, y: np.ndarray, half: np.ndarray, colour: str) -> np.ndarray:
    """Draw intervals as a band, and as a bar at a point alone; return the ends."""
    known = np.isfinite(half)
    bars = alone(known)
    lower, upper = np.where(known, y - half, np.nan), np.where(known, y + half, np.nan)
    axes.fill_between(x, lower, upper, where=known & ~bars, color=colour, alpha=0.18, lw=0)
    axes.vlines(x[bars], lower[bars], upper[bars], color=colour, lw=0.9, alpha=0.7)
    return np.concatenate([lower[known], upper[known]])


def _limits(
    axes: Axes, values: Sequence[np.ndarray], reach: Sequence[np.ndarray], rows: Sequence[_Marks]
) -> None:
    """Set the range of y so that marks have rows of their own at the edges, and draw them."""
    log = axes.get_yscale() == "log"
    low, high = extent(np.concatenate(values), np.concatenate([*reach, *values]), log)
    height = min(0.07, 0.5 / max(len(rows), 1))
    count = {tick: sum(row[0] == tick for row in rows) for tick in (_UPWARDS, _DOWNWARDS)}
    scale = (high - low) / (1.0 - 0.08 - height * len(rows))
    low -= scale * (0.04 + height * count[_DOWNWARDS])
    high += scale * (0.04 + height * count[_UPWARDS])
    axes.set_ylim(*((10.0**low, 10.0**high) if log else (low, high)))
    for edge, inside in ((1.0, 1.0 - height * count[_UPWARDS]), (0.0, height * count[_DOWNWARDS])):
        if edge != inside:
            strip = axes.fill_between([0, 1], edge, inside, transform=axes.transAxes)
            strip.set(color="#f0f0f0", lw=0, zorder=0)
    used = {_UPWARDS: 0, _DOWNWARDS: 0}
    for tick, x, look in rows:
        place = (used[tick] + 0.6) * height
        used[tick] += 1
        level = np.full(len(x), 1.0 - place if tick == _UPWARDS else place)
        for mark in off(look, tick):
            axes.plot(x, level, transform=axes.get_xaxis_transform(), clip_on=False, **mark)


def _histogram(axes: Axes, panel: Histogram, looks: dict[str, Look]) -> list[str]:
    """Draw the groups of a panel on common bins; return what is to be said of each."""
    groups = {name: np.asarray(values, float) for name, values in panel.groups.items()}
    finite = {name: values[np.isfinite(values)] for name, values in groups.items()}
    truths = np.asarray(panel.truths, float)
    if not np.isfinite(truths).all():
        raise InputError(f"a truth of the panel {panel.label!r} is not finite: leave it out")
    edges = bins([values for values in finite.values() if len(values)], truths)
    counts = []
    for name, values in finite.items():
        look = looks[name]
        beyond = int(((values < edges[0]) | (values > edges[-1])).sum())
        lost = len(groups[name]) - len(values)
        said = [f"{beyond:,} beyond"] * (beyond > 0) + [f"{lost:,} not finite"] * (lost > 0)
        if said or not len(groups[name]):
            counts.append(f"{name}: {', '.join(said) or 'no estimates'}")
        if not len(values):
            continue
        heights = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0] / len(groups[name])
        axes.stairs(heights, edges, fill=True, color=look["color"], alpha=0.22, lw=0)
        axes.stairs(heights, edges, color=look["color"], lw=1.1, ls=look["ls"])
        top = int(heights.argmax())
        axes.plot([edges[top : top + 2].mean()], [heights[top]], label=name, clip_on=False, **look)
    axes.set_ylim(bottom=0.0)
    for axis in (axes.xaxis, axes.yaxis):
        ticks(axis, False)
    return counts
