"""Bounds of effects and shares where X, or Z, has an effect on the outcome of its own.

Level 3 says that within a class and an arm Y depends neither on X nor on Z. No test sees every
violation, so bounds stand beside the estimate: the smallest and largest effect over all mixtures
that fit the table and in which X (or Z) moves the outcome by no more than a given strength.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxmix import arguments
from jaxmix.choices import EDGES
from jaxmix.estimators import factorization
from jaxmix.inference.sensitivity.result import Numbers, Sensitivity
from jaxmix.inference.sensitivity.sweep import Problem, sweep
from jaxmix.model.law import Mixture
from jaxmix.model.structure import Factors
from jaxmix.sample.moments import Moments, from_counts
from jaxmix.solvers.compiling import profile
from jaxmix.status import InputError

_POPULATION_ROWS = (
    1e6  # stand for a population: bounds are wider by a few 1e-4 of the range at most
)
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
        Confidence of the intervals: mixtures within half of this chi-square quantile (1 df) of the
        best fit.
    start
        The level-3 fit, by which classes are numbered; made here where None.
    outcome_values
        The outcome's value in each cell of counts; 0, 1, ... by default.
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
    `edge.FIT_SLACK` log-likelihood units of the best fit at that strength (twice as much at
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
    arguments.key(key)
    # Its programs run for longer than they take to compile.
    with jax.enable_x64(True), profile("bulk"):
        moments = _moments(counts_or_moments, outcome_values)
        grid = _checked(moments, k, strengths, edge, confidence, better, num_starts)
        if start is None:
            start = factorization.solve(moments, k, key=key).value
        return bounds_of(moments, k, grid, key, edge, confidence, start, better, unit, num_starts)


def _moments(counts_or_moments: object, outcome_values: object) -> Moments:
    if isinstance(counts_or_moments, Moments):
        if outcome_values is not None:
            raise InputError("outcome_values go with counts: moments carry their own; leave it out")
        found: Moments = jax.tree.map(lambda part: jnp.asarray(part, float), counts_or_moments)
        return found
    if outcome_values is not None:
        outcome_values = arguments.array("outcome_values", outcome_values, "give numbers")
    values = None if outcome_values is None else jnp.asarray(outcome_values, float)
    what = "give moments of a table, or counts by treatment, z, x and outcome"
    counts = arguments.array("counts_or_moments", counts_or_moments, what)
    if counts.ndim != 4:
        raise InputError(f"counts_or_moments has {counts.ndim} directions, not 4: {what}")
    return from_counts(jnp.asarray(counts, float), values)


def _checked(
    moments: Moments,
    k: int,
    strengths: object,
    edge: str,
    confidence: float,
    better: str,
    num_starts: int,
) -> Numbers:
    reason = does_not_apply(moments)
    if reason:
        raise InputError(f"{reason}; give z and x one-hot views and the outcome few values")
    for name, value, choices in (("edge", edge, EDGES), ("better", better, ("higher", "lower"))):
        if not isinstance(value, str) or value not in choices:
            told = arguments.told(value)
            raise InputError(f"{name} is {told}: use one of {', '.join(choices)}")
    arguments.whole("k", k, least=1, remedy="use at least one class")
    arguments.whole("num_starts", num_starts, least=2, remedy="use at least 2")
    arguments.fraction("confidence", confidence, "use a number between 0 and 1")
    what = "use increasing numbers from 0 on"
    grid = np.atleast_1d(arguments.array("strengths", strengths, what))
    increasing = grid.ndim == 1 and len(grid) > 0 and bool((np.diff(grid) > 0).all())
    if not (increasing and np.isfinite(grid).all() and grid[0] >= 0):
        raise InputError(
            f"strengths are {arguments.told(strengths)}: use increasing numbers from 0 on"
        )
    if not np.isfinite(np.asarray(moments.tensor)).all():
        raise InputError("the table has cells that are no numbers; give counts or probabilities")
    if float(jnp.ptp(moments.value_y)) == 0:
        raise InputError("the outcome has one value only, so there is no effect to bound")
    return grid


def bounds_of(
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
    """Return the bounds of a table that was checked; see `bounds`.

    Parameters
    ----------
    moments
        Moments of a table of two arms.
    k
        Number of classes.
    grid
        ``(m,)`` increasing strengths, in units of the outcome.
    key
        JAX key, for the starts.
    edge
        ``"x_to_y"`` or ``"z_to_y"``.
    confidence
        Confidence of the intervals.
    start
        The level-3 fit, by which classes are numbered.
    better
        ``"higher"`` or ``"lower"``: which outcome is good.
    unit
        What the outcome is called.
    num_starts
        Starts of each search, at least 2.
    """
    assert start.z_profiles is not None
    assert start.y_profiles is not None
    population = not np.isfinite(float(moments.num_rows))
    cells = moments.tensor * (_POPULATION_ROWS if population else moments.num_rows)
    span = float(jnp.ptp(moments.value_y))
    values = (moments.value_y - moments.value_y.min()) / span
    num_values = cells.shape[2 if edge == "x_to_y" else 1]
    by_value = jnp.repeat(jnp.asarray(start.y_profiles)[:, None], num_values, axis=1)
    reference = Factors(start.shares * start.z_profiles, (jnp.asarray(start.x_profiles), by_value))
    subsets = subsets_of(k)
    goals = np.zeros((1 + k + len(subsets), 1 + 2 * k))
    goals[: 1 + k, : 1 + k] = np.eye(1 + k)
    goals[1 + k :, 1 + k :] = subsets
    slack = 0.0 if population else NormalDist().inv_cdf((1 + confidence) / 2) ** 2 / 2
    problem = Problem(cells, values, edge, goals, num_starts)
    steps = list(sweep(problem, reference, grid / span, slack, key))
    kinds = [step[0] for step in steps], [step[1] for step in steps]
    parts: dict[str, Numbers] = {}
    statuses: dict[str, Numbers] = {}
    for suffix, kind in (("", 0), ("_interval", 1)):
        found = np.stack([extremes.values for extremes in kinds[kind]])
        status = np.stack([extremes.status for extremes in kinds[kind]])
        effects, of_effects = found[:, 1 : 1 + k] * span, status[:, 1 : 1 + k]
        by_subset = (subsets, found[:, 1 + k :], status[:, 1 + k :])
        each = [share_bounds(np.arange(k) == u, *by_subset) for u in range(k)]
        harmed = [
            harmed_bounds(
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


def subsets_of(k: int) -> Numbers:
    """Return the sets of classes with class 1 in them; each other set is a complement of one."""
    bits = (np.arange(2 ** (k - 1) - 1)[:, None] >> np.arange(k - 1)) & 1
    return np.concatenate([np.ones((len(bits), 1), int), bits], axis=1)


def share_bounds(
    members: Numbers, subsets: Numbers, values: Numbers, status: Numbers
) -> tuple[Numbers, Numbers]:
    """Return bounds ``(..., 2)`` of the share of people in some classes, and their status."""
    if members.all() or not members.any():
        full = np.full((*values.shape[:-2], 2), float(members.all()))
        return full, np.zeros_like(full, int)
    (place,) = np.flatnonzero((subsets == (members if members[0] else ~members)).all(1))
    bounds, codes = values[..., place, :], status[..., place, :]
    return (bounds, codes) if members[0] else (1 - bounds[..., ::-1], codes[..., ::-1])


def harmed_bounds(
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
        bounds, of_share = share_bounds(worst < 0, subsets, values, status)
        known = not np.isnan(worst).any()
        ends.append(bounds[place] if known else np.nan)
        codes.append(max(of_share[place], of_effects[:, side].max()))
    return np.array(ends), np.array(codes)
