"""Contradictions among the numbers of an estimate, looked for before any of them is shown.

Everything here is computed a second time, in plain numpy, from what the result would print: a
number that another one contradicts is the sign of a fault in a solver or in what came after it,
which no status of theirs told.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from jaxtyping import Array

from jaxmix.estimators.base import Fitted, Numbers
from jaxmix.fitting.uncertainty import Uncertainty
from jaxmix.inference.estimation import Estimation
from jaxmix.model.law import Mixture
from jaxmix.results.estimates import Estimate
from jaxmix.results.later import Later
from jaxmix.results.result import Result
from jaxmix.status import Status

MIN_RESAMPLES = 200
"""Usable resamples from which on an estimate beyond the range of all of them is a contradiction:
that of a continuous estimate without bias has probability 2^-199 or so."""

_AROUND_ESTIMATE = ("profile", "normal")  # kinds of intervals that hold the estimate by definition
_DRAWN = ("effect", "means", "naive", "shares", "effects")
_NAMES = {
    "effect": "the average effect", "means": "a mean outcome", "naive": "the difference in means",
    "shares": "the share of a class", "effects": "the effect of a class",
    "cumulative": "the share of several classes", "spread": "the spread of the class effects",
}  # fmt: skip
_DIGITS = 1e-6  # relative disagreement that rounding and tolerances explain


def examined(result: Result, estimation: Estimation, spread: Uncertainty) -> Result:
    """Return a result with what it contradicts said, and without the numbers where it does.

    Parameters
    ----------
    result
        What would be shown.
    estimation, spread
        The estimate, and its uncertainty.
    """
    if not result.status.usable:
        return result
    point = estimation.point
    found = of_point(point, np.asarray(estimation.sample.moments.range_y), estimation.counts)
    others, notes = of_intervals(
        point.numbers, spread.bounds, spread.kinds, spread.extremes, spread.num_usable
    )
    result = dataclasses.replace(result, warnings=(*result.warnings, *notes))
    return without_numbers(result, found + others) if found + others else result


def without_numbers(result: Result, contradictions: tuple[str, ...]) -> Result:
    """Return a result of which only the difference in means and the contradictions are left."""
    none = Estimate(math.nan)
    checks = dataclasses.replace(
        result.diagnostics.checks,
        bounds=Later.known(None),
        untested="numbers of the estimate contradict each other",
    )
    return dataclasses.replace(
        result,
        status=Status.INCONSISTENT,
        warnings=(*contradictions, *result.warnings),
        ate=none,
        potential_means=dict.fromkeys(result.potential_means, none),
        law=None,
        law_se=None,
        law_interval=None,
        share_harmed=None,
        spread=None,
        bands=None,
        diagnostics=dataclasses.replace(result.diagnostics, checks=checks),
        classes=None,
    )


def of_point(
    point: Fitted,
    range_y: np.ndarray,
    cells: np.ndarray | None,
) -> tuple[str, ...]:
    """Return what is wrong with an estimate by itself, one sentence each.

    Parameters
    ----------
    point
        The estimate, in numpy arrays.
    range_y
        ``(2,)`` smallest and largest outcome.
    cells
        ``(a, d_z, d_x, d_y)`` counts behind a fit of maximum likelihood, else None.

    Examples
    --------
    >>> import numpy as np
    >>> numbers = Numbers(effect=0.5, shares=np.array([0.7, 0.4]), effects=np.array([0.0, 1.0]))
    >>> of_point(Fitted(numbers, 0, {}), np.array([0.0, 1.0]), None)[0]
    'the shares of the classes add up to 1.1'
    """
    found = []
    low, high = (float(end) for end in range_y)
    size = max(abs(low), abs(high), high - low)
    numbers, mixture = point.numbers, point.mixture
    shares, effects = numbers.shares, numbers.effects
    if shares is not None and effects is not None:
        if not abs(shares.sum() - 1) <= _DIGITS:
            found.append(f"the shares of the classes add up to {shares.sum():.6g}")
        mean = float(shares @ effects)
        assert numbers.effect is not None
        effect = float(numbers.effect)
        if not abs(mean - effect) <= _DIGITS * size:
            found.append(f"the average effect is {effect:.6g}, and the classes' {mean:.6g}")
    if mixture is None:
        return tuple(found)
    if not ((mixture.shares >= -_DIGITS) & (mixture.shares <= 1 + _DIGITS)).all():
        found.append("a class has a share outside [0, 1]")
    means = np.append(np.asarray(numbers.means), mixture.means)
    if not ((means >= low - _DIGITS * size) & (means <= high + _DIGITS * size)).all():
        found.append("a mean outcome lies outside the outcome's range")
    if cells is not None:
        own, said = _log_likelihood(mixture, cells), float(point.stats["log_likelihood"])
        if not abs(own - said) <= _DIGITS * max(1.0, abs(own)):
            found.append(f"the log-likelihood is {said:.6f}, and that of the classes {own:.6f}")
    return tuple(found)


def of_intervals(
    numbers: Numbers[Array],
    bounds: Numbers[np.ndarray],
    kinds: Numbers[str],
    extremes: Numbers[np.ndarray],
    num_usable: int,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return how intervals and resamples contradict an estimate, and what is only notable.

    Profile-likelihood and normal intervals hold the estimate by definition. Others, from
    resamples, may rightly exclude one that is biased: that is a note.

    Parameters
    ----------
    numbers
        The estimate.
    bounds
        Ends of intervals on a last axis.
    kinds
        How each of them was made.
    extremes
        Smallest and largest usable resample on a last axis.
    num_usable
        How many usable resamples there are.

    Returns
    -------
    contradictions, notes
        One sentence each.
    """
    found, notes = [], []
    values = numbers.known()
    for name, ends in bounds.known().items():
        if not _outside(values[name], ends):
            continue
        kind = getattr(kinds, name)
        if kind in _AROUND_ESTIMATE:
            found.append(f"{_NAMES[name]} lies outside its own {kind} interval")
        else:
            notes.append(
                f"the {kind} interval of {_NAMES[name].removeprefix('the ')} does not hold the "
                "estimate: its resamples are biased, and so may the estimate be"
            )
    for name, ends in extremes.known().items():
        if num_usable >= MIN_RESAMPLES and name in _DRAWN and _outside(values[name], ends):
            found.append(f"{_NAMES[name]} lies outside the range of all {num_usable} resamples")
    return tuple(found), tuple(notes)


def _outside(value: object, ends: np.ndarray) -> bool:
    """Whether a number lies outside its ends by more than rounding; missing ends hold anything."""
    value, (low, high) = np.asarray(value), np.moveaxis(np.asarray(ends), -1, 0)
    slack = _DIGITS * np.maximum(np.abs(value), high - low)
    return bool(np.any((value < low - slack) | (value > high + slack)))


def _log_likelihood(mixture: Mixture, cells: np.ndarray) -> float:
    """Return ``sum N log p`` of the classes' own probabilities."""
    assert mixture.z_profiles is not None
    assert mixture.y_profiles is not None
    p = np.einsum(
        "u,tzu,xu,tyu->tzxy",
        *(mixture.shares, mixture.z_profiles, mixture.x_profiles, mixture.y_profiles),
    )
    seen = cells > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.sum(cells[seen] * np.log(p[seen])))
