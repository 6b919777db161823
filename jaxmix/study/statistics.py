"""What a study reports of an estimator, each number with its Monte Carlo standard error.

Every metric comes twice. Under its plain name it is over *all* replicates, and a replicate without
a number counts as infinitely wrong: order statistics bear that, a mean of squares becomes infinite,
and what has a sign (a bias) does not exist. With ``_usable`` it is over the replicates whose status
a user would accept. Neither drops a failure unseen: ``rate_failed`` and ``rate_without_number``
stand beside them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxmix.status import Status

TRIM = 0.05
"""Share of replicates cut off at each end of a trimmed mean."""

Values = Float[np.ndarray, " r"]


class Metric(NamedTuple):
    """A number and its Monte Carlo standard error; NaN where it does not exist."""

    value: float
    mc_se: float


_NONE = Metric(math.nan, math.nan)


def mean(values: Values) -> Metric:
    """Return the mean: infinite where a value is, without a standard error then.

    Examples
    --------
    >>> mean(np.array([1.0, 3.0]))
    Metric(value=2.0, mc_se=1.0)
    """
    n = len(values)
    if n == 0:
        return _NONE
    if not np.isfinite(values).all():
        return Metric(math.inf, math.nan)
    spread = values.std(ddof=1) / math.sqrt(n) if n > 1 else math.nan
    return Metric(float(values.mean()), float(spread))


def rate(hits: np.ndarray) -> Metric:
    """Return the share of true values, with its binomial standard error.

    That is 0 where all or none are true, and says little then.
    """
    n = len(hits)
    if n == 0:
        return _NONE
    p = float(np.mean(hits))
    return Metric(p, math.sqrt(p * (1 - p) / n))


def median(values: Values) -> Metric:
    """Return the median; infinite values take part.

    Its standard error is the width of the distribution-free 95 % interval over 3.92; the ends
    are the order statistics about n / 2 -+ 0.98 sqrt(n).

    References
    ----------
    David, Nagaraja (2003), Order Statistics, section 7.1.
    """
    n = len(values)
    if n == 0:
        return _NONE
    ordered = np.sort(values)
    low = max(math.floor(n / 2 - 0.98 * math.sqrt(n)) - 1, 0)
    high = n - 1 - low
    middle = ordered[[(n - 1) // 2, n // 2]]
    value = float(middle.mean()) if np.isfinite(middle).all() else math.inf
    width = ordered[high] - ordered[low] if np.isfinite(ordered[high]) else math.nan
    return Metric(value, float(width) / 3.92 if n > 5 else math.nan)


def trimmed(values: Values, cut: float = TRIM) -> Metric:
    """Return the mean without the smallest and largest values; those may be infinite.

    The standard error is the winsorized one.

    References
    ----------
    Tukey, McLaughlin (1963), Sankhya A 25.
    """
    n = len(values)
    cut_off = math.floor(cut * n)
    if n == 0:
        return _NONE
    ordered = np.sort(values)
    kept = ordered[cut_off : n - cut_off]
    if not np.isfinite(kept).all():
        return Metric(math.inf, math.nan)
    winsorized = np.clip(ordered, kept[0], kept[-1])
    share_kept = len(kept) / n
    spread = winsorized.std(ddof=1) / (share_kept * math.sqrt(n)) if n > 1 else math.nan
    return Metric(float(kept.mean()), float(spread))


def deviation(values: Values) -> Metric:
    """Return the empirical standard error of an estimate, ``sd``; its own is by the delta method.

    ``Var(sd) = (m_4 - m_2^2) / (4 n m_2)``, which is ``sd^2 / 2n`` for normal estimates.
    """
    n = len(values)
    if n < 2:
        return _NONE
    centred = values - values.mean()
    second, fourth = np.mean(centred**2), np.mean(centred**4)
    spread = math.sqrt(max(fourth - second**2, 0.0) / (4 * n * second)) if second > 0 else 0.0
    return Metric(float(values.std(ddof=1)), spread)


def root(squared: Metric) -> Metric:
    """Return the square root of a mean square, its standard error by the delta method."""
    value = math.sqrt(squared.value)
    if not math.isfinite(value):
        return Metric(value, math.nan)
    return Metric(value, squared.mc_se / (2 * value) if value > 0 else squared.mc_se)


def efficiency(bounds: Values, squared: Values) -> Metric:
    """Return the mean bound over the mean square: 1 is as good as unbiased estimates get.

    The standard error is that of a ratio of means, by the delta method: where every replicate has
    a population of its own, the bound varies with the error. NaN without a finite bound, 0 where
    an error is infinite.
    """
    n = len(squared)
    if n < 2 or not np.isfinite(bounds).all():
        return _NONE
    if not np.isfinite(squared).all():
        return Metric(0.0, math.nan)
    centre = squared.mean()
    if not centre > 0:
        return _NONE
    ratio = bounds.mean() / centre
    spread = (bounds - ratio * squared).std(ddof=1) / (centre * math.sqrt(n))
    return Metric(float(ratio), float(spread))


def signed_mean(values: Values) -> Metric:
    """Return the mean of what has a sign: it does not exist where a number is missing."""
    return mean(values) if np.isfinite(values).all() else _NONE


class Replicates(NamedTuple):
    """What is known of one estimator in one cell; replicates first, classes last.

    Attributes
    ----------
    status
        ``(r,)``, numbers of `Status`.
    ate, error
        ``(r,)``; `error` is NaN where there are no classes or no numbers.
    effects, shares
        ``(r, k)``, or None where the estimator has no classes.
    truth
        ``ate`` (r,), ``effects`` and ``shares`` (r, k), ``bound_ate`` and ``bound_error`` (r,).
    intervals
        ``(se, lower, upper)`` of ``ate``, ``effects`` and ``shares``; empty without intervals.
    """

    status: np.ndarray
    ate: np.ndarray
    error: np.ndarray
    effects: np.ndarray | None
    shares: np.ndarray | None
    truth: Mapping[str, np.ndarray]
    intervals: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]


def metrics_of(found: Replicates) -> dict[str, Metric]:
    """Return all metrics of an estimator in a cell.

    Performance measures and their Monte Carlo errors follow Morris, White, Crowther (2019),
    "Using simulation studies to evaluate statistical methods", Statistics in Medicine 38.
    """
    usable = found.status < Status.MAX_STEPS
    numbers = np.isfinite(found.ate)
    if _has_classes(found):
        numbers = numbers & np.isfinite(found.error)
    metrics = {"rate_failed": rate(~usable), "rate_without_number": rate(~numbers)}
    for status in Status:
        if (found.status == status).any() and status != Status.SUCCESS:
            metrics[f"rate_{status.name.lower()}"] = rate(found.status == status)
    # An estimate of 1e200 is wrong without bounds too: its square may be infinite.
    with np.errstate(over="ignore", invalid="ignore"):
        for suffix, rows in (("", np.ones(len(usable), bool)), ("_usable", usable)):
            own = _accuracy(found, rows)
            metrics |= {name + suffix: metric for name, metric in own.items()}
    return metrics


STATUS_RATES = frozenset(f"rate_{status.name.lower()}" for status in Status)
"""Metrics that are 0, and not in the summary, where no replicate had the status."""


def _has_classes(found: Replicates) -> bool:
    """Whether the fit has as many classes as the truth, so that they can be compared."""
    return found.effects is not None and found.effects.shape == found.truth["effects"].shape


def _accuracy(found: Replicates, rows: np.ndarray) -> dict[str, Metric]:
    truth = found.truth
    metrics = _of_estimate("ate", found.ate[rows], truth["ate"][rows])
    if "bound_ate" in truth:
        squared = _squared(found.ate, truth["ate"])[rows]
        metrics["ate_efficiency"] = efficiency(truth["bound_ate"][rows], squared)
    if _has_classes(found):
        error = np.where(np.isfinite(found.error), found.error, np.inf)[rows]
        metrics["error_mean"] = mean(error)
        metrics["error_trimmed"] = trimmed(error)
        metrics["error_median"] = median(error)
        if "bound_error" in truth:
            metrics["efficiency"] = efficiency(truth["bound_error"][rows], error)
        for name, values in (("effect", found.effects), ("share", found.shares)):
            assert values is not None
            for u in range(values.shape[1]):
                of = truth[f"{name}s"][rows, u]
                metrics |= _of_estimate(f"{name}_{u + 1}", values[rows, u], of)
    for name, (se, lower, upper) in found.intervals.items():
        if lower.shape != truth[name].shape:
            continue
        if lower.ndim == 1:
            metrics |= _of_interval(name, se[rows], lower[rows], upper[rows], truth[name][rows])
            continue
        for u in range(lower.shape[1]):
            columns = (part[rows, u] for part in (se, lower, upper, truth[name]))
            metrics |= _of_interval(f"{name.removesuffix('s')}_{u + 1}", *columns)
    return metrics


def _of_interval(
    name: str, se: Values, lower: Values, upper: Values, truth: Values
) -> dict[str, Metric]:
    """Return coverage, mean width and mean standard error; no interval covers nothing."""
    hit = (lower <= truth) & (truth <= upper)
    width = np.where(np.isfinite(upper - lower), upper - lower, np.inf)
    return {
        f"coverage_{name}": rate(hit),
        f"width_{name}": mean(width),
        f"{name}_model_se": mean(np.where(np.isfinite(se), se, np.inf)),
    }


def _of_estimate(name: str, values: Values, truth: Values) -> dict[str, Metric]:
    """Return mean, bias, empirical standard error and root mean square of an estimate."""
    differences = values - truth
    complete = bool(np.isfinite(differences).all())
    # Deviations from the truth, not estimates: it may differ from replicate to replicate.
    return {
        f"{name}_mean": signed_mean(values),
        f"{name}_bias": signed_mean(differences),
        f"{name}_median_bias": median(differences) if complete else _NONE,
        f"{name}_empirical_se": deviation(differences) if complete else _NONE,
        f"{name}_rmse": root(mean(_squared(values, truth))),
    }


def _squared(values: Values, truth: Values) -> Values:
    return np.where(np.isfinite(values), (values - truth) ** 2, np.inf)
