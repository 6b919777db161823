"""Bounds by strength: tables, figure, and the strengths at which they first include 0."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from jaxmix.inference.sensitivity.edge import FIT_SLACK
from jaxmix.report.tables import Table, classes, interval, number
from jaxmix.status import InputError, Status
from jaxmix.types import Json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Numbers = np.ndarray


@dataclasses.dataclass(frozen=True)
class Sensitivity:
    """Bounds of the effects and shares at each strength of an edge to the outcome.

    Bounds are over all mixtures that fit the table as well as the best one does, intervals over
    those whose log-likelihood is within half a chi-square quantile of it. Both are running
    extremes over the strengths. A bound whose search ended outside of its limits is NaN.

    Attributes
    ----------
    strengths
        ``(m,)`` in units of the outcome.
    edge
        ``"x_to_y"`` or ``"z_to_y"``.
    ate, effects, shares, share_harmed
        Lower and upper bounds: ``(m, 2)``, ``(m, k, 2)``, ``(m, k, 2)``, ``(m, 2)``.
    ate_interval, effects_interval, shares_interval, share_harmed_interval
        The same with sampling noise, at `confidence`. Those of a population are its bounds.
    statuses
        `Status` of each number, under the names above. STARTS_DISAGREE: met by one start only;
        MAX_STEPS: not reported.
    deviance
        ``(m,)`` log-likelihood that the best fit found up to each strength loses against the
        table itself.
    level3_effects, level3_shares
        ``(k,)`` the level-3 fit, by which the classes are numbered.
    confidence
        Confidence of the intervals.
    better
        ``"higher"`` or ``"lower"``: which outcome is good.
    unit
        What the outcome is called.
    """

    strengths: Numbers
    edge: str
    ate: Numbers
    effects: Numbers
    shares: Numbers
    share_harmed: Numbers
    ate_interval: Numbers
    effects_interval: Numbers
    shares_interval: Numbers
    share_harmed_interval: Numbers
    statuses: dict[str, Numbers]
    deviance: Numbers
    level3_effects: Numbers
    level3_shares: Numbers
    confidence: float
    better: str
    unit: str

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return int(self.effects.shape[1])

    @property
    def tipping_point(self) -> float | None:
        """The smallest strength at which the ATE's bounds include 0; None beyond the strengths.

        By linear interpolation between the strengths.
        """
        return _crossing(self.strengths, self.ate)

    @property
    def tipping_points(self) -> tuple[float | None, ...]:
        """The same for the effect of each class."""
        return tuple(_crossing(self.strengths, own) for own in self.effects.swapaxes(0, 1))

    @property
    def interval_tipping_point(self) -> float | None:
        """The smallest strength at which the ATE's interval includes 0."""
        return _crossing(self.strengths, self.ate_interval)

    @property
    def interval_tipping_points(self) -> tuple[float | None, ...]:
        """The same for the effect of each class."""
        return tuple(_crossing(self.strengths, own) for own in self.effects_interval.swapaxes(0, 1))

    def table(self, kind: str = "bounds") -> Table:
        """Return the bounds, or the intervals, as a table with a row for each strength.

        Parameters
        ----------
        kind
            ``"bounds"`` or ``"intervals"``.

        Raises
        ------
        InputError
            For another kind.
        """
        if kind not in ("bounds", "intervals"):
            raise InputError(f"kind is {kind!r}: use 'bounds' or 'intervals'")
        names = ["ate", "effects", "share_harmed"]
        if kind == "intervals":
            names = [f"{name}_interval" for name in names]
        ate, effects, harmed = (getattr(self, name) for name in names)
        classes = range(self.num_classes)
        header = ["strength", "ATE", *(f"effect of class {u + 1}" for u in classes), "share harmed"]
        rows = [
            [number(float(s), 3), _shown(ate[i]), *(_shown(effects[i, u]) for u in classes),
             _shown(harmed[i])]
            for i, s in enumerate(self.strengths)
        ]  # fmt: skip
        source = "X" if self.edge == "x_to_y" else "Z"
        title = f"Bounds where {source} may move {self.unit} within a class by up to a strength"
        if kind == "intervals":
            title = f"The same with sampling noise, {100 * self.confidence:g} % regions"
        return Table(title, header, rows, self._notes(kind))

    def _notes(self, kind: str) -> list[str]:
        with_noise = kind == "intervals"
        points = self.interval_tipping_points if with_noise else self.tipping_points
        point = self.interval_tipping_point if with_noise else self.tipping_point
        largest = number(float(self.strengths[-1]), 3)
        parts = [
            f"{name} {f'beyond {largest}' if p is None else number(p, 3)}"
            for name, p in [
                ("ATE", point), *((f"class {u + 1}", p) for u, p in enumerate(points))
            ]
        ]  # fmt: skip
        notes = [f"Smallest strength at which 0 is included: {', '.join(parts)}."]
        if with_noise:
            return notes
        source = "X" if self.edge == "x_to_y" else "Z"
        notes.append(
            f"Strength: the largest difference of E[{self.unit} | {source}, class, arm] between "
            f"values of {source}."
        )
        notes.append(
            f"Over mixtures of {classes(self.num_classes)} within {2 * FIT_SLACK:g} log-likelihood "
            "units of the best fit, found by local search: true bounds may be wider. Classes are "
            "numbered as in the level-3 fit."
        )
        missing = sum(int((s >= Status.MAX_STEPS).sum()) for s in self.statuses.values())
        once = sum(int((s == Status.STARTS_DISAGREE).sum()) for s in self.statuses.values())
        if missing:
            notes.append(f"{missing} bounds are missing: no search ended within its limits.")
        if once:
            notes.append(f"{once} bounds were met by one start only.")
        return notes

    def summary(self) -> str:
        """Return the bounds and the intervals as text."""
        return "\n\n".join(self.table(kind).text() for kind in ("bounds", "intervals"))

    def __str__(self) -> str:
        return self.summary()

    def to_dict(self) -> dict[str, Json]:
        """Return plain numbers and lists, None where there is no number."""
        result: dict[str, Json] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            result[field.name] = _plain(value) if isinstance(value, np.ndarray) else value
        result["statuses"] = {
            name: np.vectorize(lambda s: Status(s).name, otypes=[object])(codes).tolist()
            for name, codes in self.statuses.items()
        }
        result["tipping_point"] = self.tipping_point
        result["tipping_points"] = list(self.tipping_points)
        result["interval_tipping_point"] = self.interval_tipping_point
        result["interval_tipping_points"] = list(self.interval_tipping_points)
        return result

    def plot(self) -> Figure:
        """Draw the effects against the strength, with the tipping points (extra 'plot')."""
        from jaxmix.report import tipping

        source = "X" if self.edge == "x_to_y" else "Z"
        share = [f"{100 * share:.0f} %" for share in self.level3_shares]
        bands = [tipping.Band("ATE", self.ate, self.ate_interval, self.tipping_point)]
        bands += [
            tipping.Band(
                f"class {u + 1} ({share[u]} at level 3)", self.effects[:, u],
                self.effects_interval[:, u], self.tipping_points[u],
            )
            for u in range(self.num_classes)
        ]  # fmt: skip
        return tipping.bands(
            self.strengths,
            bands,
            strength=f"effect of {source} on {self.unit} within a class, at most",
            effect=f"effect on {self.unit}",
            title=f"How far the effects move if {source} affects {self.unit}",
            confidence=self.confidence,
        )


def _crossing(strengths: Numbers, bounds: Numbers) -> float | None:
    """Return where bounds ``(m, 2)`` first include 0, linearly between finite strengths."""
    known = np.isfinite(bounds).all(1)
    at, (lower, upper) = strengths[known], bounds[known].T
    if not known.any():
        return None
    room = lower if lower[0] > 0 else -upper
    reached = np.flatnonzero(room <= 0)
    if not len(reached):
        return None
    i = reached[0]
    if i == 0:
        return float(at[0])
    share = room[i - 1] / (room[i - 1] - room[i])
    return float(at[i - 1] + (at[i] - at[i - 1]) * share)


def _shown(bounds: Numbers) -> str:
    return interval((float(bounds[0]), float(bounds[1])))


def _plain(values: Numbers) -> Json:
    plain = values.astype(object)
    plain[~np.isfinite(values)] = None
    found: Json = plain.tolist()
    return found
