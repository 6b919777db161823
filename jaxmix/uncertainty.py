"""How uncertain an estimate is: resamples or influence functions, classes matched to it."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array

from jaxmix.diagnose import errors_of
from jaxmix.features import Views
from jaxmix.inference import intervals, profile, resampling
from jaxmix.inference import numbers as numbers_
from jaxmix.moments import Moments, from_rows
from jaxmix.plan import Estimator
from jaxmix.status import NO_ESTIMATE, Status

# With errors by differentiation.
_NUMBERS = ("effect", "means", "naive", "shares", "effects", "cumulative", "spread")
_DRAWN = (*_NUMBERS, "harmed", "profile", "status")
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


@dataclasses.dataclass(frozen=True)
class Settings:
    """How uncertainty is measured; see `jaxmix.fit`."""

    num_resamples: int
    confidence: float
    seed: int
    interval: str
    resampling: str | None
    strata: str | None
    progress: Callable[[int, int], None] | None


@dataclasses.dataclass(frozen=True)
class Uncertainty:
    """Standard errors and intervals by the names of `plan.Estimator`, and how they came about.

    Attributes
    ----------
    errors
        Standard errors; empty where most resamples have no estimate.
    bounds
        Ends of the intervals on a last axis; empty where there are no errors.
    tally
        What became of the resamples, for `Diagnostics`; empty without resamples.
    notes
        What a user should know of the intervals, one sentence each.
    kinds
        How each interval was made, by name.
    extremes
        Smallest and largest usable resample on a last axis; empty without resamples.
    num_usable
        Resamples that are estimates.
    """

    errors: dict[str, np.ndarray]
    bounds: dict[str, np.ndarray]
    tally: dict[str, Any]
    notes: tuple[str, ...] = ()
    kinds: dict[str, str] = dataclasses.field(default_factory=dict)
    extremes: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    num_usable: int = 0


@dataclasses.dataclass(frozen=True)
class _Part:
    """The part of an estimator's output that is wanted."""

    estimator: Estimator
    names: tuple[str, ...]

    def __call__(self, moments: Moments, **context: Any) -> dict[str, Array]:
        out = self.estimator(moments, **context)
        return {name: out[name] for name in self.names if name in out}


_align = jax.jit(jax.vmap(resampling.align, in_axes=(0, None)))


def uncertainty(
    estimator: Estimator,
    views: Views,
    point: dict[str, Any],
    context: dict[str, Any],
    settings: Settings,
) -> Uncertainty:
    """Return standard errors and intervals of an estimate.

    Parameters
    ----------
    estimator
        What was estimated.
    views
        The rows.
    point
        Its output on them.
    context
        What it is given beside the moments, such as where resamples start.
    settings
        How to measure.

    Raises
    ------
    InputError
        For strata with clusters that lie in several of them.
    """
    kind = settings.interval
    # Derivatives at the estimate look for nothing.
    numbers = Partial(_Part(estimator.at_optimum(), _NUMBERS), **context)
    if kind in ("auto", "profile"):
        # What has no likelihood of its own has percentiles: the bridge, the naive difference.
        plain = uncertainty(
            estimator, views, point, context, dataclasses.replace(settings, interval="percentile")
        )
        usable = Status(int(point["status"])).usable
        # With weights or clusters there is no likelihood proper: its profile, divided by design
        # effects, takes the place of others where these are too short, at a bound, or on request.
        wanted = views.is_random_sample or kind == "profile" or _at_a_bound(point)
        possible = usable and has_likelihood(estimator, views) and settings.strata is None
        if not wanted or not possible:
            return plain
        return _by_profile(estimator, views, numbers, context, settings.confidence, plain)
    strata = views.t if settings.strata == "arm" else None
    confidence = settings.confidence
    if not settings.num_resamples:
        if strata is None:
            errors = _on_host(errors_of(numbers, views))
        else:
            errors = _on_host(resampling.spread(numbers, views, _NUMBERS, strata)[0])
        tally = {"interval": "normal"}
        found = _with_normal(point, errors, confidence, tally)
        if _at_a_bound(point):
            # They would be too short by half and more: coverage in docs/verdicts.md.
            bounds = {"naive": found.bounds["naive"]}
            found = dataclasses.replace(found, bounds=bounds, notes=(*found.notes, _AT_THE_BOUND))
        return found
    draws, draws_se, tally = _resample(estimator, views, point, context, settings, strata)
    tally["interval"] = kind
    num_usable = len(draws["effect"])
    if 2 * num_usable < settings.num_resamples:
        return Uncertainty({}, {}, tally)
    errors = {name: values.std(axis=0, ddof=1) for name, values in draws.items()}
    extremes = {
        name: np.stack([values.min(axis=0), values.max(axis=0)], axis=-1)
        for name, values in draws.items()
    }
    seen: dict[str, Any] = {"extremes": extremes, "num_usable": num_usable}
    if kind == "normal":
        return dataclasses.replace(_with_normal(point, errors, confidence, tally), **seen)
    se: dict[str, Any] = {}
    skew: dict[str, Any] = {}
    if kind in _CORRECTED:
        se, skew = _on_host(resampling.spread(numbers, views, _NUMBERS, strata))
    bounds = {}
    for name, values in draws.items():
        if name == "harmed":
            continue  # a step function: its interval is that of the classes, projected
        ends = intervals.interval(
            kind,
            jnp.asarray(values),
            point[name],
            confidence,
            se=se.get(name),
            draws_se=draws_se.get(name),
            acceleration=skew.get(name),
        )
        bounds[name] = np.stack([ends.lower, ends.upper], axis=-1)
    kinds = dict.fromkeys(bounds, kind)
    return Uncertainty(errors, bounds, tally, _notes(bounds, kind), kinds, **seen)


def _at_a_bound(point: dict[str, Any]) -> bool:
    """Whether a probability of the fit is 0; fits that are no tables do not say."""
    return bool(point["stats"].get("num_zero", 0) > 0)


def has_likelihood(estimator: Estimator, views: Views) -> bool:
    """Whether the fit is one of maximum likelihood, weights and clusters aside."""
    return estimator.method == "factorization" and views.is_table


def _by_profile(
    estimator: Estimator,
    views: Views,
    numbers: Partial,
    context: dict[str, Any],
    confidence: float,
    plain: Uncertainty,
) -> Uncertainty:
    """Return the same with profile-likelihood intervals in place of others."""
    k = estimator.num_classes
    assert k is not None
    moments = from_rows(views)
    asked = {"level": estimator.level, "estimand": estimator.estimand}
    inflation = None
    if not views.is_random_sample:
        errors = errors_of(numbers, views)
        errors = numbers_.Errors(*(errors[name] for name in numbers_.Errors._fields))
        inflation = numbers_.design_effects(moments, k, context["start"], errors, **asked)
    found = profile.intervals(
        moments, k, context["start"], confidence=confidence, inflation=inflation, **asked
    )
    named = found._asdict()
    settled, excess = bool(named.pop("settled")), float(named.pop("excess"))
    bounds = plain.bounds | {name: np.asarray(ends) for name, ends in named.items()}
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
    tally = plain.tally | {"interval": "profile"}
    kinds = plain.kinds | dict.fromkeys(named, "profile")
    return dataclasses.replace(plain, bounds=bounds, tally=tally, notes=notes, kinds=kinds)


def _on_host(values: Any) -> Any:
    return jax.tree.map(np.asarray, values)


def _with_normal(
    point: dict[str, Any], errors: dict[str, np.ndarray], confidence: float, tally: dict[str, Any]
) -> Uncertainty:
    """Return errors with normal intervals."""
    bounds = {
        name: np.stack(intervals.normal_interval(point[name], se, confidence), axis=-1)
        for name, se in errors.items()
    }
    notes = () if all(np.isfinite(se).all() for se in errors.values()) else (_NO_ERRORS,)
    return Uncertainty(errors, bounds, tally, notes, dict.fromkeys(bounds, "normal"))


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


def _resample(
    estimator: Estimator,
    views: Views,
    point: dict[str, Any],
    context: dict[str, Any],
    settings: Settings,
    strata: Array | None,
) -> tuple[dict[str, np.ndarray], dict[str, Any], dict[str, Any]]:
    """Return the resampled numbers that are estimates, classes matched, and a tally.

    Between them the standard errors within the resamples, where the interval needs them.
    """
    kind = settings.resampling or _default_kind(views, settings.interval)
    studentized = settings.interval == "studentized"
    draws = resampling.bootstrap(
        Partial(_Part(estimator, _DRAWN), **context),
        views,
        key=jax.random.key(settings.seed),
        num_resamples=settings.num_resamples,
        kind=kind,
        strata=strata,
        errors=_NUMBERS if studentized else (),
        progress=settings.progress,
    )
    draws, draws_se = draws if studentized else (draws, {})
    statuses = np.asarray(draws["status"])
    usable = ~np.isin(statuses, NO_ESTIMATE)
    ambiguous = np.zeros(len(statuses), bool)
    if "profile" in draws:
        order, unclear = _align(draws["profile"], point["profile"])
        for values in (draws, draws_se):
            for name in values.keys() & {"shares", "effects"}:
                values[name] = jnp.take_along_axis(values[name], order, axis=1)
        draws["cumulative"] = jnp.cumsum(draws["shares"], axis=1)[:, :-1]
        if "cumulative" in draws_se:
            # Known where the classes of the resample came in the order of the estimate.
            same = jnp.all(order == jnp.arange(order.shape[1]), axis=1)[:, None]
            draws_se["cumulative"] = jnp.where(same, draws_se["cumulative"], jnp.nan)
        ambiguous = np.asarray(unclear)
    failed = collections.Counter(Status(int(s)).name for s in statuses[~usable])
    tally = {
        "resampling": kind,
        "num_resamples": settings.num_resamples,
        "failed": dict(failed),
        "out_of_range": int((statuses == Status.OUT_OF_RANGE).sum()),
        "ambiguous": int((ambiguous & usable).sum()),
    }
    kept, kept_se = (
        {n: np.asarray(v)[usable] for n, v in values.items() if n not in ("status", "profile")}
        for values in (draws, draws_se)
    )
    return kept, kept_se, tally


def _default_kind(views: Views, interval: str) -> str:
    # Exponential weights are twice as skewed as counts are, and a correction for skewness would
    # be of a skewness that is not the sample's.
    if (views.repeated and not views.num_clusters) or interval in _CORRECTED:
        return "multinomial"
    return "bayesian"
