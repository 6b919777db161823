"""How uncertain an estimate is: resamples, influence functions, profile likelihood."""

from __future__ import annotations

import collections
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmix.estimators.base import Fitted, Numbers
from jaxmix.fitting.options import Options
from jaxmix.inference import intervals
from jaxmix.inference.estimation import Draws, Estimation
from jaxmix.inference.estimation.protocol import DIFFERENTIABLE
from jaxmix.results.estimates import Resamples
from jaxmix.status import NO_ESTIMATE, Status

_CORRECTED = ("studentized", "bca")  # for skewness, by influence functions
_NO_ERRORS = (
    "some standard errors by differentiation do not exist: the optimum is flat, or runs to a "
    "bound; use resamples (num_resamples, --resamples), more rows or fewer classes"
)
_ERRORS_AT_THE_BOUND = (
    "a probability sits at 0 or 1: standard errors by differentiation hold it there, and may be "
    "too small; the intervals do not rest on them"
)
_AT_THE_BOUND = (
    "a probability sits at 0 or 1: standard errors by differentiation hold it there and are too "
    "small for normal intervals, so none are given; use resamples (num_resamples, --resamples)"
)
_WORDS = {
    "effect": "the average effect", "means": "a mean outcome", "naive": "the difference in means",
    "shares": "a share", "effects": "a class effect", "cumulative": "the share of several classes",
    "spread": "the spread of the class effects",
}  # fmt: skip


_NONE: Numbers[np.ndarray] = Numbers()
_NO_KINDS: Numbers[str] = Numbers()


@dataclasses.dataclass(frozen=True)
class Uncertainty:
    """Standard errors and intervals of the numbers of an estimate, and how they came about.

    Attributes
    ----------
    errors
        Standard errors; none where most resamples have no estimate.
    bounds
        Ends of the intervals on a last axis; none where there are no errors.
    resamples
        How intervals were made, and what became of the resamples.
    notes
        What a user should know of the intervals, one sentence each.
    kinds
        How each interval was made.
    extremes
        Smallest and largest usable resample on a last axis; none without resamples.
    num_usable
        Resamples that are estimates.
    """

    errors: Numbers[np.ndarray]
    bounds: Numbers[np.ndarray]
    resamples: Resamples
    notes: tuple[str, ...] = ()
    kinds: Numbers[str] = _NO_KINDS
    extremes: Numbers[np.ndarray] = _NONE
    num_usable: int = 0


def uncertainty(estimation: Estimation, options: Options) -> Uncertainty:
    """Return standard errors and intervals of an estimate.

    Parameters
    ----------
    estimation
        The estimate.
    options
        How to measure.

    Raises
    ------
    InputError
        For strata with clusters that lie in several of them.
    """
    kind, point = options.interval, estimation.point
    if kind in ("auto", "profile"):
        # What has no likelihood of its own has percentiles: the bridge, the naive difference.
        plain = uncertainty(estimation, dataclasses.replace(options, interval="percentile"))
        usable = Status(int(point.status)).usable
        design = dataclasses.replace(
            estimation.sample.design, stratified=options.strata is not None
        )
        wanted = design.takes_profile(asked=kind == "profile", at_a_bound=_at_a_bound(point))
        if not (wanted and usable and estimation.counts is not None):
            return plain
        return _by_profile(estimation, options.confidence, plain)
    confidence = options.confidence
    if not options.num_resamples:
        errors, _ = estimation.spread(options.strata)
        found = _with_normal(point, errors, confidence, Resamples())
        if _at_a_bound(point):
            # They would be too short by half and more: coverage in docs/verdicts.md.
            bounds = Numbers(naive=found.bounds.naive)
            found = dataclasses.replace(found, bounds=bounds, notes=(*found.notes, _AT_THE_BOUND))
        return found
    draws, resamples = resample(estimation, options)
    resamples = resamples._replace(interval=kind)
    num_usable = len(draws.status)
    if 2 * num_usable < options.num_resamples:
        return Uncertainty(_NONE, _NONE, resamples)
    errors = {name: values.std(axis=0, ddof=1) for name, values in draws.numbers.items()}
    extremes = {
        name: np.stack([values.min(axis=0), values.max(axis=0)], axis=-1)
        for name, values in draws.numbers.items()
    }
    seen: dict[str, Any] = {"extremes": Numbers(**extremes), "num_usable": num_usable}
    if kind == "normal":
        return dataclasses.replace(_with_normal(point, errors, confidence, resamples), **seen)
    se: dict[str, Any] = {}
    skew: dict[str, Any] = {}
    if kind in _CORRECTED:
        se, skew = estimation.spread(options.strata)
    ends_of = {}
    for name, values in draws.numbers.items():
        if name == "harmed":
            continue  # a step function: its interval is that of the classes, projected
        within = draws.errors.get(name)
        ends = intervals.interval(
            kind,
            jnp.asarray(values),
            getattr(point.numbers, name),
            confidence,
            se=se.get(name),
            draws_se=None if within is None else jnp.asarray(within),
            acceleration=skew.get(name),
        )
        ends_of[name] = np.stack([ends.lower, ends.upper], axis=-1)
    return Uncertainty(
        Numbers(**errors), Numbers(**ends_of), resamples, _notes(ends_of, kind),
        Numbers(**dict.fromkeys(ends_of, kind)), **seen,
    )  # fmt: skip


def _at_a_bound(point: Fitted) -> bool:
    """Whether a probability of the fit is 0; fits that are no tables do not say."""
    return bool(point.stats.get("num_zero", 0) > 0)


def _by_profile(estimation: Estimation, confidence: float, plain: Uncertainty) -> Uncertainty:
    """Return the same with profile-likelihood intervals in place of others."""
    found = estimation.profiles(confidence)
    notes = plain.notes
    if _AT_THE_BOUND in notes:
        others = (note for note in notes if note != _AT_THE_BOUND)
        notes = (*others, _ERRORS_AT_THE_BOUND)
    if not found.settled:
        notes += (
            "an end of a profile-likelihood interval was not found to its tolerance; the interval "
            "shown there is a little too wide",
        )
    if found.excess > 0:
        notes += (
            f"looking for intervals met a better fit (by {found.excess:.2g} in log-likelihood): "
            "the estimate is not the maximum; use another seed",
        )
    return dataclasses.replace(
        plain,
        bounds=plain.bounds._replace(**found.bounds),
        resamples=plain.resamples._replace(interval="profile"),
        notes=notes,
        kinds=plain.kinds._replace(**dict.fromkeys(found.bounds, "profile")),
    )


def _with_normal(
    point: Fitted, errors: dict[str, np.ndarray], confidence: float, resamples: Resamples
) -> Uncertainty:
    """Return errors with normal intervals."""
    values = point.numbers.known()
    bounds = {
        name: np.stack(intervals.normal_interval(np.asarray(values[name]), se, confidence), axis=-1)
        for name, se in errors.items()
    }
    notes = () if all(np.isfinite(se).all() for se in errors.values()) else (_NO_ERRORS,)
    kinds = Numbers(**dict.fromkeys(bounds, "normal"))
    return Uncertainty(Numbers(**errors), Numbers(**bounds), resamples, notes, kinds)


def _notes(bounds: dict[str, np.ndarray], kind: str) -> tuple[str, ...]:
    """Say which intervals do not exist, and why."""
    missing = [_WORDS[name] for name, ends in bounds.items() if not np.isfinite(ends).all()]
    if not missing:
        return ()
    why = {
        "bca": "its resamples lie on one side of it, or its correction is too large",
        "studentized": "too many resamples have no standard error, or one of 0",
    }.get(kind, "it is not finite")
    return (
        f"there is no {kind} interval for {' and '.join(missing)}: {why}; use more resamples, or "
        "the interval 'percentile'",
    )


def resample(estimation: Estimation, options: Options) -> tuple[Draws, Resamples]:
    """Return the resamples that are estimates, and what became of all of them.

    Standard errors within the resamples come with them where the interval needs them.
    """
    kind = options.resampling or estimation.sample.design.resampling(
        corrected=options.interval in _CORRECTED
    )
    draws = estimation.resampled(
        jax.random.key(options.seed),
        options.num_resamples,
        kind=kind,
        strata=options.strata,
        errors=DIFFERENTIABLE if options.interval == "studentized" else (),
        progress=options.progress,
    )
    usable = ~np.isin(draws.status, NO_ESTIMATE)
    failed = collections.Counter(Status(int(s)).name for s in draws.status[~usable])
    resamples = Resamples(
        num_resamples=options.num_resamples,
        resampling=kind,
        failed=dict(failed),
        out_of_range=int((draws.status == Status.OUT_OF_RANGE).sum()),
        ambiguous=int((draws.is_ambiguous & usable).sum()),
    )
    return jax.tree.map(lambda values: values[usable], draws), resamples
