"""How far the effects move where X, or Z, has an effect on the outcome of its own.

Level 3 says that within a class and an arm Y depends neither on X nor on Z. No test sees every
violation, so bounds stand beside the estimate: the smallest and largest effect over all mixtures
that fit the table and in which X (or Z) moves the outcome by no more than a given strength.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxmix.estimators import factorization
from jaxmix.inference.extremes import Problem, sweep
from jaxmix.inference.strength import EDGES, FIT_SLACK, coordinates
from jaxmix.mixture import Mixture
from jaxmix.moments import Moments, from_counts
from jaxmix.report.tables import Table, interval, number
from jaxmix.status import InputError, Status

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Numbers = np.ndarray

_POPULATION_ROWS = 1e6  # rows that stand for a population: its bounds are exact to 1e-3 of an error
_NUM_STARTS = 4


def does_not_apply(moments: Moments) -> str:
    """Return why there are no sensitivity bounds for these moments; empty where there are.

    Examples
    --------
    >>> import jaxmix as jm
    >>> does_not_apply(jm.populations.paper_main().moments())
    ''
    """
    if not moments.is_table:
        return (
            "sensitivity bounds are over all mixtures that fit a table of cells, and here a view "
            "is linear or there are covariates"
        )
    if moments.tensor.shape[0] != 2:
        return f"sensitivity bounds compare two arms, and there are {moments.tensor.shape[0]}"
    return ""


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
        Of the intervals.
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
        return self.effects.shape[1]

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
            f"Over mixtures of {self.num_classes} classes within {2 * FIT_SLACK:g} log-likelihood "
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

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers and lists, None where there is no number."""
        result: dict[str, Any] = {}
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


def bounds(
    counts_or_moments: Array | Moments,
    k: int,
    strengths: Sequence[float] | Array,
    *,
    key: Array,
    edge: str = "x_to_y",
    confidence: float = 0.95,
    start: Mixture | None = None,
    outcome_values: Sequence[float] | Array | None = None,
    better: str = "higher",
    unit: str = "Y",
    num_starts: int = _NUM_STARTS,
) -> Sensitivity:
    """Bound effects and shares where X (or Z) may cause the outcome, up to given strengths.

    With an edge from X to Y,

        p[t, z, x, y] = sum_u P(T=t, Z=z, U=u) P(X=x | U=u) P(Y=y | T=t, X=x, U=u)
        strength = max over t, u, x, x' of |E[Y | T=t, X=x, U=u] - E[Y | T=t, X=x', U=u]|
        delta_u = sum_x P(X=x | U=u) (E[Y | T=1, X=x, U=u] - E[Y | T=0, X=x, U=u])

    and with one from Z to Y, Z in the place of X behind the bars, P(Z=z | U=u) as weight. The
    bounds at a strength are the smallest and largest ATE, class effect and share over all
    mixtures of k classes that fit the table and have no larger strength. With an edge from X to Y
    the bridge identifies the ATE, so that its bounds stay together where the ranks allow it.

    Assumes latent ignorability and overlap; besides the edge, the independences of level 3.

    Parameters
    ----------
    counts_or_moments
        Counts of ``(T, Z, X, Y)``, ``(2, d_z, d_x, d_y)``, or moments of a table.
    k
        Number of classes.
    strengths
        ``(m,)`` increasing, in units of the outcome.
    key
        JAX key, for the starts.
    edge
        ``"x_to_y"`` or ``"z_to_y"``.
    confidence
        Of the intervals: mixtures within half of this chi-square quantile (1 df) of the best fit.
    start
        The level-3 fit, by which classes are numbered; made here where None.
    outcome_values
        Of counts; 0, 1, ... by default.
    better
        ``"higher"`` or ``"lower"``: which outcome is good, for the share harmed.
    unit
        What the outcome is called.
    num_starts
        Starts of each search, at least 2. The first goes on from the strength before.

    Returns
    -------
    Sensitivity
        The share harmed is bounded by the smallest share of the classes that must be harmed and
        the largest of those that can be, by the bounds of their effects.

    Raises
    ------
    InputError
        For moments that are no table, and for options out of range.

    Notes
    -----
    Searches are local, so that true bounds may be wider. "Fit" is a deviance within
    `strength.FIT_SLACK` log-likelihood units of the best fit at that strength (twice as much at
    the end of a search), hence bounds at strength 0 are as wide as a standard error times the
    root of eight times the slack, not 0. Where a class has no people in some cell of T and the
    edge's variable, its mean there is bounded by the strength alone.

    References
    ----------
    Manski (2003), "Partial Identification of Probability Distributions"; Conn, Gould, Toint
    (1991), SIAM Journal on Numerical Analysis 28, on augmented Lagrangians.

    Examples
    --------
    >>> import jax, jaxmix as jm
    >>> moments = jm.populations.paper_main(zt_strength=1.0, xy_strength=0.5).moments()
    >>> found = bounds(moments, 2, [0.0, 0.375], key=jax.random.key(0))
    >>> [[round(float(end), 2) for end in effect] for effect in found.effects[:, 0]]
    [[-0.8, -0.8], [-0.83, -0.56]]
    """
    with jax.enable_x64(True):
        moments = _moments(counts_or_moments, outcome_values)
        grid = _checked(moments, k, strengths, edge, confidence, better, num_starts)
        if start is None:
            start = factorization.solve(moments, k, key=key).value
        return _bounds(moments, k, grid, key, edge, confidence, start, better, unit, num_starts)


def _moments(counts_or_moments: Any, outcome_values: Any) -> Moments:
    if isinstance(counts_or_moments, Moments):
        if outcome_values is not None:
            raise InputError("outcome_values go with counts: moments carry their own; leave it out")
        return jax.tree.map(lambda part: jnp.asarray(part, float), counts_or_moments)
    values = None if outcome_values is None else jnp.asarray(outcome_values, float)
    return from_counts(jnp.asarray(counts_or_moments, float), values)


def _checked(
    moments: Moments,
    k: int,
    strengths: Any,
    edge: str,
    confidence: float,
    better: str,
    num_starts: int,
) -> Numbers:
    reason = does_not_apply(moments)
    if reason:
        raise InputError(f"{reason}; give z and x one-hot views and the outcome few values")
    for name, value, choices in (("edge", edge, EDGES), ("better", better, ("higher", "lower"))):
        if value not in choices:
            raise InputError(f"{name} is {value!r}: use one of {', '.join(choices)}")
    if k < 1:
        raise InputError(f"k is {k}: use at least one class")
    if num_starts < 2:
        raise InputError(f"num_starts is {num_starts}: use at least 2")
    if not 0 < confidence < 1:
        raise InputError(f"confidence is {confidence}: use a number between 0 and 1")
    grid = np.atleast_1d(np.asarray(strengths, float))
    increasing = grid.ndim == 1 and len(grid) > 0 and bool((np.diff(grid) > 0).all())
    if not (increasing and np.isfinite(grid).all() and grid[0] >= 0):
        raise InputError(f"strengths are {strengths}: use increasing numbers from 0 on")
    if not np.isfinite(np.asarray(moments.tensor)).all():
        raise InputError("the table has cells that are no numbers; give counts or probabilities")
    if float(jnp.ptp(moments.value_y)) == 0:
        raise InputError("the outcome has one value only, so there is no effect to bound")
    return grid


def _bounds(
    moments: Moments,
    k: int,
    grid: Numbers,
    key: Array,
    edge: str,
    confidence: float,
    start: Mixture,
    better: str,
    unit: str,
    num_starts: int,
) -> Sensitivity:
    assert start.z_profiles is not None
    assert start.y_profiles is not None
    population = not np.isfinite(float(moments.num_rows))
    cells = moments.tensor * (_POPULATION_ROWS if population else moments.num_rows)
    span = float(jnp.ptp(moments.value_y))
    values = (moments.value_y - moments.value_y.min()) / span
    num_values = cells.shape[2 if edge == "x_to_y" else 1]
    reference = coordinates(
        jnp.asarray(start.shares * start.z_profiles),
        jnp.asarray(start.x_profiles),
        jnp.repeat(jnp.asarray(start.y_profiles)[:, None], num_values, axis=1),
        values,
    )
    subsets = _subsets(k)
    goals = np.zeros((1 + k + len(subsets), 1 + 2 * k))
    goals[: 1 + k, : 1 + k] = np.eye(1 + k)
    goals[1 + k :, 1 + k :] = subsets
    slack = 0.0 if population else NormalDist().inv_cdf((1 + confidence) / 2) ** 2 / 2
    problem = Problem(cells, values, edge, goals, num_starts)
    steps = list(sweep(problem, reference, grid / span, slack, key))
    parts: dict[str, Numbers] = {}
    statuses: dict[str, Numbers] = {}
    for suffix, kind in (("", 0), ("_interval", 1)):
        found = np.stack([step[kind].values for step in steps])
        status = np.stack([step[kind].status for step in steps])
        effects, of_effects = found[:, 1 : 1 + k] * span, status[:, 1 : 1 + k]
        by_subset = (subsets, found[:, 1 + k :], status[:, 1 + k :])
        each = [_share(np.arange(k) == u, *by_subset) for u in range(k)]
        harmed = [
            _share_harmed(
                effects[i], of_effects[i], better, subsets, *(p[i] for p in by_subset[1:])
            )
            for i in range(len(grid))
        ]
        named = {
            "ate": (found[:, 0] * span, status[:, 0]),
            "effects": (effects, of_effects),
            "shares": tuple(np.stack(part, axis=1) for part in zip(*each, strict=True)),
            "share_harmed": tuple(np.stack(part) for part in zip(*harmed, strict=True)),
        }
        for name, (numbers, codes) in named.items():
            parts[name + suffix], statuses[name + suffix] = numbers, codes
    return Sensitivity(
        strengths=grid,
        edge=edge,
        **parts,
        statuses=statuses,
        deviance=np.array([step[2] for step in steps]),
        level3_effects=np.asarray(start.effects()),
        level3_shares=np.asarray(start.shares),
        confidence=confidence,
        better=better,
        unit=unit,
    )


def _subsets(k: int) -> Numbers:
    """Return the sets of classes with class 1 in them; each other set is a complement of one."""
    bits = (np.arange(2 ** (k - 1) - 1)[:, None] >> np.arange(k - 1)) & 1
    return np.concatenate([np.ones((len(bits), 1), int), bits], axis=1)


def _share(
    members: Numbers, subsets: Numbers, values: Numbers, status: Numbers
) -> tuple[Numbers, Numbers]:
    """Return bounds ``(..., 2)`` of the share of people in some classes, and their status."""
    if members.all() or not members.any():
        full = np.full((*values.shape[:-2], 2), float(members.all()))
        return full, np.zeros_like(full, int)
    (place,) = np.flatnonzero((subsets == (members if members[0] else ~members)).all(1))
    bounds, codes = values[..., place, :], status[..., place, :]
    return (bounds, codes) if members[0] else (1 - bounds[..., ::-1], codes[..., ::-1])


def _share_harmed(
    effects: Numbers,
    of_effects: Numbers,
    better: str,
    subsets: Numbers,
    values: Numbers,
    status: Numbers,
) -> tuple[Numbers, Numbers]:
    """Bound the share of people in classes that must be harmed, and in those that can be."""
    sides = [1, 0] if better == "higher" else [0, 1]  # must: both bounds are harmful; can: one
    ends, codes = [], []
    for place, side in enumerate(sides):
        worst = effects[:, side] if better == "higher" else -effects[:, side]
        bounds, of_share = _share(worst < 0, subsets, values, status)
        known = not np.isnan(worst).any()
        ends.append(bounds[place] if known else np.nan)
        codes.append(max(of_share[place], of_effects[:, side].max()))
    return np.array(ends), np.array(codes)


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
    return float(at[i - 1] + (at[i] - at[i - 1]) * room[i - 1] / (room[i - 1] - room[i]))


def _shown(bounds: Numbers) -> str:
    return interval((float(bounds[0]), float(bounds[1])))


def _plain(values: Numbers) -> Any:
    return np.where(np.isfinite(values), values, None).tolist()
