"""Standard errors and intervals of replicates: delta method, profile likelihood, resamples."""

from __future__ import annotations

from collections.abc import Callable
from statistics import NormalDist
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxmix.estimators.registry import Factorization
from jaxmix.inference import profile
from jaxmix.inference.asymptotic import delta_covariance, slopes
from jaxmix.inference.intervals import interval, normal_interval
from jaxmix.model.optimum import table_of
from jaxmix.sample.moments import Moments
from jaxmix.sample.resamples.resamplers import Cells
from jaxmix.solvers.sampling import multinomial
from jaxmix.status import NO_ESTIMATE
from jaxmix.study.configuration.choices import Intervals
from jaxmix.study.configuration.methods import Chosen, Estimated


class Spread(NamedTuple):
    """Standard errors and bounds of intervals, each an `Estimated` without its status."""

    se: tuple[Array, Array, Array]
    lower: tuple[Array, Array, Array]
    upper: tuple[Array, Array, Array]


def resample(moments: Moments, key: Array, number: int) -> Float[Array, "r a d_z d_x d_y"]:
    """Draw tables like the one observed, the same for all estimators."""
    counts = table_of(moments, 3).counts
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(number))
    tables = multinomial(keys, counts.sum(), counts.reshape(-1))
    return tables.reshape(-1, *counts.shape)


def by_delta(
    chosen: Chosen, moments: Moments, k: int, estimate: Estimated, key: Array, intervals: Intervals
) -> Spread:
    """Return normal intervals by the delta method."""
    covariance = delta_covariance(lambda m: _vector(chosen(m, k, key)), moments)
    se = jnp.sqrt(jnp.diagonal(covariance))
    lower, upper = normal_interval(_vector(estimate), se, intervals.confidence)
    return _spread(se, lower, upper, estimate)


def by_profile(
    chosen: Chosen, moments: Moments, k: int, estimate: Estimated, key: Array, intervals: Intervals
) -> Spread:
    """Return profile-likelihood intervals; as standard error their half width over z."""
    own = chosen.estimator(k)
    assert isinstance(own, Factorization)
    near = own(moments, key=key).optimum
    assert near is not None
    found = profile.intervals(
        moments, k, near.start, level=own.level, confidence=intervals.confidence
    )
    ends = jnp.concatenate([found.effect[None], found.effects, found.shares])
    lower, upper = ends[:, 0], ends[:, 1]
    z = NormalDist().inv_cdf(0.5 + intervals.confidence / 2)
    return _spread((upper - lower) / (2 * z), lower, upper, estimate)


def by_resamples(
    again: Callable[[Moments, Array], Estimated],
    moments: Moments,
    tables: Float[Array, "r a d_z d_x d_y"],
    estimate: Estimated,
    key: Array,
    intervals: Intervals,
) -> Spread:
    """Return intervals from resampled tables.

    As `jaxmix.fit` does: without resamples that have no estimate, and no interval where most
    have none.

    Parameters
    ----------
    again
        How a resample is estimated (`Chosen.with_resampler`).
    moments
        The moments of the data.
    tables
        See `resample`.
    estimate
        What the data give.
    key
        Key of the estimator; resample i uses ``fold_in(key, i)``.
    intervals
        What is asked for.
    """
    value, counts, names = _vector(estimate), table_of(moments, 3).counts, ("value",)
    resampler = Cells.of(counts, moments.value_y)

    def numbers(moments: Moments, own: Array) -> dict[str, Array]:
        found = again(moments, own)
        return {"value": _vector(found), "status": found.status}

    def errors(times: Float[Array, " m"], own: Array) -> tuple[dict[str, Array], Array, Array]:
        moments = resampler.moments(times)
        found, derivatives = slopes(lambda m: numbers(m, own), moments, names)
        return found, *resampler.spread(derivatives, moments, times)

    def one(cells: Array, index: Array) -> tuple[Array, Array]:
        own, times = jax.random.fold_in(key, index), cells.reshape(-1)
        if intervals.kind == "studentized":
            found, se, _ = errors(times, own)
        else:
            found = numbers(resampler.moments(times), own)
            se = found["value"]
        exists = jnp.all(found["status"] != jnp.array(NO_ESTIMATE))
        missing = jnp.where(exists, 0.0, jnp.nan)
        return found["value"] + missing, se + missing

    draws, draws_se = jax.vmap(one)(tables, jnp.arange(len(tables)))
    draws = jnp.where(jnp.mean(jnp.isnan(draws[:, 0])) > 0.5, jnp.nan, draws)
    more = {}
    if intervals.kind in ("studentized", "bca"):
        _, se, skew = errors(counts.reshape(-1), key)
        more = {"se": se, "draws_se": draws_se, "acceleration": skew}
    ends = interval(intervals.kind, draws, value, intervals.confidence, **more)
    return _spread(jnp.nanstd(draws, axis=0, ddof=1), ends.lower, ends.upper, estimate)


def _vector(estimate: Estimated) -> Float[Array, " p"]:
    return jnp.concatenate([estimate.ate[None], estimate.effects, estimate.shares])


def _spread(se: Array, lower: Array, upper: Array, estimate: Estimated) -> Spread:
    sizes = np.cumsum([1, estimate.effects.size])

    def parts(flat: Array) -> tuple[Array, Array, Array]:
        ate, effects, shares = jnp.split(flat, sizes)
        return ate[0], effects, shares

    return Spread(parts(se), parts(lower), parts(upper))
