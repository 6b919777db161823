"""Effects against the strength of a violation: bands, and where they reach zero (matplotlib)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxmix.report.plots import ACCENT, INK, MUTED
from jaxmix.report.sheet import SMALL, Entry, Look, Sheet, ticks

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class Band:
    """A panel: bounds of an effect at each strength, wider ones, and where the first reach 0.

    Attributes
    ----------
    label
        Title of the panel.
    bounds, intervals
        ``(m, 2)`` lower and upper ends; NaN where there are none.
    tipping_point
        The smallest strength at which `bounds` include 0; None where they do not.
    """

    label: str
    bounds: Sequence[Sequence[float]] | np.ndarray
    intervals: Sequence[Sequence[float]] | np.ndarray
    tipping_point: float | None = None


def bands(
    strengths: Sequence[float] | np.ndarray,
    panels: Sequence[Band],
    *,
    strength: str,
    effect: str,
    title: str,
    confidence: float,
) -> Figure:
    """Draw a panel for each effect, all with the same axes.

    Parameters
    ----------
    strengths
        ``(m,)`` increasing.
    panels
        See `Band`.
    strength, effect
        What the axes measure.
    title
        Title of the figure.
    confidence
        Of the intervals.

    Returns
    -------
    matplotlib.figure.Figure
        Not attached to any window; ``figure.savefig(path)`` writes it.
    """
    sheet = Sheet(len(panels))
    at = np.asarray(strengths, float)
    ends = np.concatenate([
        np.ravel(np.asarray(ends, float)) for p in panels for ends in (p.bounds, p.intervals)
    ])  # fmt: skip
    ends = np.append(ends[np.isfinite(ends)], 0.0)
    room = 0.08 * (float(np.ptp(ends)) or 1.0)
    for number, (axes, panel) in enumerate(zip(sheet.axes, panels, strict=True)):
        for values, style in ((panel.intervals, _WIDE), (panel.bounds, _NARROW)):
            lower, upper = np.asarray(values, float).T
            axes.fill_between(at, lower, upper, **style)
            for end in (lower, upper):
                axes.plot(at, end, color=ACCENT, lw=0.9, alpha=style["alpha"] + 0.2, marker=".",
                          ms=3.0)  # fmt: skip
        axes.axhline(0.0, color=INK, lw=0.8)
        if panel.tipping_point is not None:
            axes.axvline(panel.tipping_point, color=_TIP, lw=1.0, ls=(0, (4, 2)))
            axes.plot([panel.tipping_point], [0.0], "o", color=_TIP, ms=4.5, clip_on=False)
        margin = 0.03 * (float(np.ptp(at)) or 1.0)
        axes.set_xlim(at.min() - margin, at.max() + margin)
        axes.set_ylim(ends.min() - room, ends.max() + room)
        ticks(axes.xaxis, False)
        ticks(axes.yaxis, False)
        sheet.label(axes, strength, effect if number % sheet.num_columns == 0 else "")
        tip = panel.tipping_point
        where = "" if tip is None else f": includes 0 from {tip:.3g}"
        axes.set_title(panel.label + where, fontsize=SMALL + 1, color=INK, parse_math=False)
    return sheet.finish(_legend(panels, confidence), title, _NOTE)


_TIP = "#d55e00"
_WIDE = Look(color=MUTED, alpha=0.3, lw=0.0)
_NARROW = Look(color=ACCENT, alpha=0.35, lw=0.0)
_NOTE = (
    "Bounds over all mixtures found that fit the table; a local search may miss wider ones. "
    "Bands include 0 where the sign of the effect is open."
)


def _legend(panels: Sequence[Band], confidence: float) -> list[Entry]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    entries: list[Entry] = [
        ("bounds", Patch(**_NARROW)),
        (f"with sampling noise, {100 * confidence:g} %", Patch(**_WIDE)),
    ]
    if any(panel.tipping_point is not None for panel in panels):
        dot = Line2D([], [], color=_TIP, marker="o", ms=4.5, lw=1.0, ls=(0, (4, 2)))
        entries.append(("bounds reach 0", dot))
    return entries
