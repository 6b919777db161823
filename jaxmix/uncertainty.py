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
from jaxmix.inference import resampling
from jaxmix.moments import Moments
from jaxmix.plan import Estimator
from jaxmix.status import NO_ESTIMATE, Status

_NUMBERS = ("effect", "means", "naive", "shares", "effects")  # with errors by differentiation
_DRAWN = (*_NUMBERS, "harmed", "profile", "status")


@dataclasses.dataclass(frozen=True)
class Settings:
    """How uncertainty is measured; see `jaxmix.fit`."""

    num_resamples: int
    confidence: float
    seed: int
    interval: str
    resampling: str | None
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
    """

    errors: dict[str, np.ndarray]
    bounds: dict[str, np.ndarray]
    tally: dict[str, Any]


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
    """
    if not settings.num_resamples:
        numbers = Partial(_Part(estimator, _NUMBERS), **context)
        errors = jax.tree.map(np.asarray, errors_of(numbers, views))
        return Uncertainty(errors, _normal(point, errors, settings.confidence), {})
    draws, tally = _resample(estimator, views, point, context, settings)
    if 2 * len(draws["effect"]) < settings.num_resamples:
        return Uncertainty({}, {}, tally)
    errors = {name: values.std(axis=0, ddof=1) for name, values in draws.items()}
    if settings.interval == "normal":
        return Uncertainty(errors, _normal(point, errors, settings.confidence), tally)
    bounds = {
        name: np.stack(resampling.percentile_interval(values, settings.confidence), axis=-1)
        for name, values in draws.items()
    }
    return Uncertainty(errors, bounds, tally)


def _normal(
    point: dict[str, Any], errors: dict[str, np.ndarray], confidence: float
) -> dict[str, np.ndarray]:
    return {
        name: np.stack(resampling.normal_interval(point[name], se, confidence), axis=-1)
        for name, se in errors.items()
    }


def _resample(
    estimator: Estimator,
    views: Views,
    point: dict[str, Any],
    context: dict[str, Any],
    settings: Settings,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the resampled numbers that are estimates, classes matched, and a tally."""
    kind = settings.resampling or (
        "multinomial" if views.repeated and not views.num_clusters else "bayesian"
    )
    draws = resampling.bootstrap(
        Partial(_Part(estimator, _DRAWN), **context),
        views,
        key=jax.random.key(settings.seed),
        num_resamples=settings.num_resamples,
        kind=kind,
        progress=settings.progress,
    )
    statuses = np.asarray(draws["status"])
    usable = ~np.isin(statuses, NO_ESTIMATE)
    ambiguous = np.zeros(len(statuses), bool)
    if "profile" in draws:
        order, unclear = _align(draws["profile"], point["profile"])
        for name in ("shares", "effects"):
            draws[name] = jnp.take_along_axis(draws[name], order, axis=1)
        ambiguous = np.asarray(unclear)
    failed = collections.Counter(Status(int(s)).name for s in statuses[~usable])
    tally = {
        "resampling": kind,
        "num_resamples": settings.num_resamples,
        "failed": dict(failed),
        "out_of_range": int((statuses == Status.OUT_OF_RANGE).sum()),
        "ambiguous": int((ambiguous & usable).sum()),
    }
    skip = ("status", "profile")
    return {n: np.asarray(v)[usable] for n, v in draws.items() if n not in skip}, tally
