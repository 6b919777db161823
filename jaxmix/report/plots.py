"""Plots of estimates, drawn from plain numbers (matplotlib, the extra 'plot')."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jaxmix.exceptions import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, ACCENT = "#1b1b1b", "#8a8a8a", "#1f5fa8"


@dataclasses.dataclass(frozen=True)
class ForestRow:
    """One line of a forest plot: an estimate, its interval where it has one, and its standing.

    Attributes
    ----------
    label
        Text at the left.
    value, interval
        The estimate and its interval.
    kind
        ``"main"``, ``"contrast"`` (grey, for comparison) or ``"class"``.
    """

    label: str
    value: float
    interval: tuple[float, float] | None = None
    kind: str = "main"


def figure_class() -> type[Figure]:
    """Return matplotlib's figure, or say what to install."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise InputError("plots need the extra 'plot': pip install 'jaxmix[plot]'") from None
    return Figure


def effects(
    rows: Sequence[ForestRow],
    *,
    unit: str,
    title: str,
    law: tuple[Sequence[float], Sequence[float]] | None = None,
    note: str = "",
) -> Figure:
    """Draw a forest of effects and, beside it, the effect law.

    Parameters
    ----------
    rows
        Estimates from top to bottom.
    unit
        What the horizontal axis measures.
    title
        Title of the figure.
    law
        Effects and shares of the classes; None draws the forest alone.
    note
        A line below the plots.

    Returns
    -------
    matplotlib.figure.Figure
        Not attached to any window; ``figure.savefig(path)`` writes it.
    """
    height = 1.7 + 0.42 * max(len(rows), 3 if law else 2)
    figure = figure_class()(figsize=(9.0 if law else 7.2, height), layout="constrained")
    axes = figure.subplots(1, 2 if law else 1, squeeze=False, width_ratios=[3, 2] if law else None)
    _forest(axes[0, 0], rows, unit)
    if law:
        _law(axes[0, 1], law, unit)
    # A column may be called "$": not the start of a formula.
    figure.suptitle(title, fontsize=11, color=INK, parse_math=False)
    if note:
        figure.supxlabel(textwrap.fill(note, 120 if law else 95), fontsize=8, color=MUTED)
    return figure


def _forest(axes: Axes, rows: Sequence[ForestRow], unit: str) -> None:
    colours = {"main": ACCENT, "contrast": MUTED, "class": INK}
    for position, row in enumerate(rows):
        colour = colours[row.kind]
        if row.interval is not None:
            axes.plot(row.interval, [position, position], color=colour, lw=1.8)
        axes.plot([row.value], [position], "s" if row.kind == "class" else "o", color=colour, ms=6)
    axes.axvline(0.0, color=MUTED, lw=0.8, zorder=0)
    axes.set_yticks(range(len(rows)), [row.label for row in rows], parse_math=False)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel(f"effect on {unit}", parse_math=False)
    plain(axes)


def _law(axes: Axes, law: tuple[Sequence[float], Sequence[float]], unit: str) -> None:
    positions, shares = law
    axes.vlines(positions, 0.0, shares, color=ACCENT, lw=3)
    axes.plot(positions, shares, "o", color=ACCENT, ms=6)
    axes.axvline(0.0, color=MUTED, lw=0.8, zorder=0)
    axes.set_ylim(0.0, 1.05)
    axes.margins(x=0.2)
    axes.set_xlabel(f"class effect on {unit}", parse_math=False)
    axes.set_ylabel("share of people")
    plain(axes)


def plain(axes: Axes, *, size: float = 9.0) -> None:
    """Strip axes to two spines and few ticks, labelled at `size` points."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.locator_params(axis="x", nbins=6)
    axes.tick_params(labelsize=size)
