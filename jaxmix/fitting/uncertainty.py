"""How uncertain an estimate is: resamples or influence functions, classes matched to it."""

from __future__ import annotations

import collections
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array

from jaxmix.estimators.base import Fitted, LevelEstimator, Numbers, Optimum
from jaxmix.estimators.compared import Compared
from jaxmix.estimators.registry import Factorization
from jaxmix.fitting.options import Options
from jaxmix.inference import intervals, profile, resampling
from jaxmix.inference import numbers as numbers_
from jaxmix.inference.asymptotic import Linearized
from jaxmix.results.estimates import Resamples
from jaxmix.sample.features import Views
from jaxmix.sample.moments import Moments
from jaxmix.sample.sample import Sample
from jaxmix.solvers.compiling import compiled
from jaxmix.status import NO_ESTIMATE, Status

# With errors by differentiation.
_NUMBERS = tuple(name for name in Numbers._fields if name != "harmed")
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


@dataclasses.dataclass(frozen=True)
class _NumbersOf:
    """The numbers of an estimate that have derivatives, by name."""

    compared: Compared

    def __call__(
        self, moments: Moments, *, key: Array | None = None, near: Optimum | None = None
    ) -> dict[str, Array]:
        return self.compared(moments, key=key, near=near).numbers._replace(harmed=None).known()


@dataclasses.dataclass(frozen=True)
class _Drawn:
    """What is wanted of a resample: its numbers by name, its classes' looks, its status."""

    compared: Compared

    def __call__(
        self, moments: Moments, *, key: Array | None = None, near: Optimum | None = None
    ) -> dict[str, Array]:
        found = self.compared(moments, key=key, near=near)
        looks = {} if found.looks is None else {"looks": found.looks}
        return found.numbers.known() | looks | {"status": found.status}


_align = compiled()(jax.vmap(resampling.align, in_axes=(0, None)))


def linearized(compared: Compared, sample: Sample, point: Fitted) -> Linearized:
    """Return the numbers of an estimate to first order; at the estimate nothing is searched."""
    return Linearized(Partial(_NumbersOf(compared.at_optimum()), near=point.optimum), sample)


def uncertainty(
    linear: Linearized,
    compared: Compared,
    point: Fitted,
    options: Options,
    key: Array | None = None,
) -> Uncertainty:
    """Return standard errors and intervals of an estimate.

    Parameters
    ----------
    linear
        The numbers of the estimate to first order (`linearized`).
    compared
        What was estimated.
    point
        Its output on the sample.
    options
        How to measure.
    key
        That of the estimate, where it searches.

    Raises
    ------
    InputError
        For strata with clusters that lie in several of them.
    """
    kind, estimator = options.interval, compared.estimator
    sample, views = linear.sample, linear.sample.views
    if kind in ("auto", "profile"):
        # What has no likelihood of its own has percentiles: the bridge, the naive difference.
        plain = uncertainty(
            linear, compared, point, dataclasses.replace(options, interval="percentile"), key
        )
        usable = Status(int(point.status)).usable
        design = dataclasses.replace(sample.design, stratified=options.strata is not None)
        wanted = design.takes_profile(asked=kind == "profile", at_a_bound=_at_a_bound(point))
        if not (wanted and usable and has_likelihood(estimator, views)):
            return plain
        return _by_profile(estimator, linear, point, options.confidence, plain)
    strata = views.t if options.strata == "arm" else None
    confidence = options.confidence
    if not options.num_resamples:
        errors, _ = linear.spread(strata)
        found = _with_normal(point, errors, confidence, Resamples())
        if _at_a_bound(point):
            # They would be too short by half and more: coverage in docs/verdicts.md.
            bounds = Numbers(naive=found.bounds.naive)
            found = dataclasses.replace(found, bounds=bounds, notes=(*found.notes, _AT_THE_BOUND))
        return found
    draws, draws_se, resamples = resample(compared, views, point, options, strata, key)
    resamples = resamples._replace(interval=kind)
    num_usable = len(draws["effect"])
    if 2 * num_usable < options.num_resamples:
        return Uncertainty(_NONE, _NONE, resamples)
    errors = {name: values.std(axis=0, ddof=1) for name, values in draws.items()}
    extremes = {
        name: np.stack([values.min(axis=0), values.max(axis=0)], axis=-1)
        for name, values in draws.items()
    }
    seen: dict[str, Any] = {"extremes": Numbers(**extremes), "num_usable": num_usable}
    if kind == "normal":
        return dataclasses.replace(_with_normal(point, errors, confidence, resamples), **seen)
    se: dict[str, Any] = {}
    skew: dict[str, Any] = {}
    if kind in _CORRECTED:
        se, skew = linear.spread(strata)
    ends_of = {}
    for name, values in draws.items():
        if name == "harmed":
            continue  # a step function: its interval is that of the classes, projected
        ends = intervals.interval(
            kind,
            jnp.asarray(values),
            getattr(point.numbers, name),
            confidence,
            se=se.get(name),
            draws_se=jnp.asarray(draws_se[name]) if name in draws_se else None,
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


def has_likelihood(estimator: LevelEstimator, views: Views) -> bool:
    """Whether the fit is one of maximum likelihood, weights and clusters aside."""
    return isinstance(estimator, Factorization) and views.is_table


def _by_profile(
    estimator: LevelEstimator,
    linear: Linearized,
    point: Fitted,
    confidence: float,
    plain: Uncertainty,
) -> Uncertainty:
    """Return the same with profile-likelihood intervals in place of others."""
    k, near = estimator.num_classes, point.optimum
    assert k is not None
    assert near is not None
    moments = linear.sample.moments
    level, estimand = estimator.level, estimator.estimand
    inflation = None
    if not linear.sample.design.is_random:
        errors = Numbers(**linear.standard_errors())
        inflation = numbers_.design_effects(
            moments, k, near.start, errors, level=level, estimand=estimand
        )
    found = profile.intervals(
        moments, k, near.start, confidence=confidence, inflation=inflation, level=level,
        estimand=estimand,
    )  # fmt: skip
    named = found._asdict()
    settled, excess = bool(named.pop("settled")), float(named.pop("excess"))
    bounds = plain.bounds._replace(**{name: np.asarray(ends) for name, ends in named.items()})
    notes = plain.notes
    if _AT_THE_BOUND in notes:
        others = (note for note in notes if note != _AT_THE_BOUND)
        notes = (*others, _ERRORS_AT_THE_BOUND)
    if not settled:
        notes += (
            "an end of a profile-likelihood interval was not found to its tolerance; the interval "
            "shown there is a little too wide",
        )
    if excess > 0:
        notes += (
            f"looking for intervals met a better fit (by {excess:.2g} in log-likelihood): the "
            "estimate is not the maximum; use another seed",
        )
    return dataclasses.replace(
        plain,
        bounds=bounds,
        resamples=plain.resamples._replace(interval="profile"),
        notes=notes,
        kinds=plain.kinds._replace(**dict.fromkeys(named, "profile")),
    )


def _on_host(values: Any) -> Any:
    return jax.tree.map(np.asarray, values)


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


def resample(
    compared: Compared,
    views: Views,
    point: Fitted,
    options: Options,
    strata: Array | None,
    key: Array | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], Resamples]:
    """Return the resampled numbers that are estimates by name, classes matched to the estimate.

    With them the standard errors within the resamples, where the interval needs them, and what
    became of all resamples.
    """
    kind = options.resampling or _default_kind(views, options.interval)
    studentized = options.interval == "studentized"
    draws = resampling.bootstrap(
        Partial(_Drawn(compared), key=key, near=point.optimum),
        views,
        key=jax.random.key(options.seed),
        num_resamples=options.num_resamples,
        kind=kind,
        strata=strata,
        errors=_NUMBERS if studentized else (),
        progress=options.progress,
    )
    draws, draws_se = _on_host(draws if studentized else (draws, {}))
    statuses = draws["status"]
    usable = ~np.isin(statuses, NO_ESTIMATE)
    ambiguous = np.zeros(len(statuses), bool)
    if "looks" in draws:
        assert point.looks is not None
        order, ambiguous = _on_host(_align(draws["looks"], point.looks))
        for values in (draws, draws_se):
            for name in values.keys() & {"shares", "effects"}:
                values[name] = np.take_along_axis(values[name], order, axis=1)
        draws["cumulative"] = np.cumsum(draws["shares"], axis=1)[:, :-1]
        if "cumulative" in draws_se:
            # Known where the classes of the resample came in the order of the estimate.
            same = np.all(order == np.arange(order.shape[1]), axis=1)[:, None]
            draws_se["cumulative"] = np.where(same, draws_se["cumulative"], np.nan)
    failed = collections.Counter(Status(int(s)).name for s in statuses[~usable])
    resamples = Resamples(
        num_resamples=options.num_resamples,
        resampling=kind,
        failed=dict(failed),
        out_of_range=int((statuses == Status.OUT_OF_RANGE).sum()),
        ambiguous=int((ambiguous & usable).sum()),
    )
    kept, kept_se = (
        {n: v[usable] for n, v in values.items() if n not in ("status", "looks")}
        for values in (draws, draws_se)
    )
    return kept, kept_se, resamples


def _default_kind(views: Views, interval: str) -> str:
    # Exponential weights are twice as skewed as counts are, and a correction for skewness would
    # be of a skewness that is not the sample's.
    if (views.repeated and not views.num_clusters) or interval in _CORRECTED:
        return "multinomial"
    return "bayesian"
