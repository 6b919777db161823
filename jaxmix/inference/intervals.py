"""Confidence intervals from resamples: five kinds, each a function of arrays.

The first axis holds the resamples, the others the numbers; all numbers are done at once.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import NamedTuple, TypeVar

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr, ndtri
from jaxtyping import Array, Bool, Float, Int

from jaxmix.choices import INTERVALS
from jaxmix.sample.resamples.resamplers import acceleration as acceleration
from jaxmix.solvers.compiling import compiled

_Array = TypeVar("_Array", Array, np.ndarray)

KINDS = INTERVALS

_ROUNDING = 64  # units in the last place within which a resample equals the estimate


class Bounds(NamedTuple):
    """Ends of intervals.

    Attributes
    ----------
    lower, upper
        Of the shape of the estimate; NaN where there is no interval.
    used
        How many resamples each rests on: those that are not NaN.
    """

    lower: Float[Array, "..."]
    upper: Float[Array, "..."]
    used: Int[Array, "..."]


def percentile_interval(draws: Float[Array, "r ..."], confidence: float) -> Bounds:
    """Return the equal-tailed quantiles of resampled estimates.

    Parameters
    ----------
    draws
        ``(r, ...)`` resampled estimates; NaN where one failed, which is left out.
    confidence
        Between 0 and 1.

    References
    ----------
    Efron (1982), "The Jackknife, the Bootstrap and Other Resampling Plans".

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> found = percentile_interval(jnp.append(jnp.arange(101.0), jnp.nan), 0.9)
    >>> round(float(found.lower), 3), round(float(found.upper), 3), int(found.used)
    (5.0, 95.0, 101)
    """
    tail = (1 - confidence) / 2
    draws, used = _ordered(draws)
    return Bounds(_quantile(draws, used, tail), _quantile(draws, used, 1 - tail), used)


def basic_interval(
    draws: Float[Array, "r ..."], estimate: Float[Array, "..."], confidence: float
) -> Bounds:
    """Return the quantiles reflected at the estimate: ``2 estimate - quantile``.

    The distribution of ``estimate - truth`` is taken to be that of ``resample - estimate``.

    Parameters
    ----------
    draws, confidence
        As in `percentile_interval`.
    estimate
        ``(...)``.

    References
    ----------
    Davison, Hinkley (1997), "Bootstrap Methods and their Application", section 5.2.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> found = basic_interval(jnp.arange(101.0), jnp.array(40.0), 0.9)
    >>> round(float(found.lower), 3), round(float(found.upper), 3)
    (-15.0, 75.0)
    """
    lower, upper, used = percentile_interval(draws, confidence)
    return Bounds(2 * estimate - upper, 2 * estimate - lower, used)


def normal_interval(value: _Array, se: _Array, confidence: float) -> tuple[_Array, _Array]:
    """Return ``value -+ z se``.

    Examples
    --------
    >>> import numpy as np
    >>> lower, upper = normal_interval(np.array(0.0), np.array(1.0), 0.95)
    >>> round(float(upper), 3)
    1.96
    """
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    return value - z * se, value + z * se


def studentized_interval(
    draws: Float[Array, "r ..."],
    draws_se: Float[Array, "r ..."],
    estimate: Float[Array, "..."],
    se: Float[Array, "..."],
    confidence: float,
) -> Bounds:
    """Return the bootstrap-t interval, ``estimate - se t`` at the quantiles of t.

    ``t = (resample - estimate) / (standard error in that resample)``. Where the standard errors
    are consistent its coverage errs by one order of n less than percentiles do.

    Parameters
    ----------
    draws, confidence
        As in `percentile_interval`.
    draws_se
        ``(r, ...)`` the standard error of each resample, by the formula that gives `se`. Where
        it is 0 and the resample is not the estimate, t is infinite, and so may be the interval.
    estimate, se
        ``(...)``.

    References
    ----------
    Efron (1982); Hall (1988), "Theoretical comparison of bootstrap confidence intervals",
    Annals of Statistics 16.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> draws = jnp.linspace(-2.0, 2.0, 101)
    >>> found = studentized_interval(draws, jnp.full(101, 2.0), jnp.array(0.0), jnp.array(3.0), 0.9)
    >>> round(float(found.lower), 3), round(float(found.upper), 3)
    (-2.7, 2.7)
    """
    gap = jnp.where(_equal(draws, estimate), 0.0, draws - estimate)
    some = jnp.where(draws_se == 0, 1.0, draws_se)
    t = jnp.where((draws_se == 0) & (gap != 0), jnp.sign(gap) * jnp.inf, gap / some)
    lower, upper, used = percentile_interval(t, confidence)
    # An estimate that nothing moves has the interval of one point, whatever t is.
    return Bounds(
        estimate - jnp.where(se == 0, 0.0, se * upper),
        estimate - jnp.where(se == 0, 0.0, se * lower),
        used,
    )


def bca_interval(
    draws: Float[Array, "r ..."],
    estimate: Float[Array, "..."],
    acceleration: Float[Array, "..."],
    confidence: float,
) -> Bounds:
    """Return the bias-corrected accelerated percentile interval.

    Quantiles at the levels ``Phi(z0 + (z0 + z) / (1 - a (z0 + z)))`` with ``z0 = Phi^-1`` of the
    share of resamples below the estimate, those equal to it counted half, and a the acceleration.
    There is no interval (NaN) where all resamples lie on one side of the estimate, or where
    ``a (z0 + z)`` reaches 1.

    Parameters
    ----------
    draws, confidence
        As in `percentile_interval`.
    estimate
        ``(...)``.
    acceleration
        ``(...)``: see `acceleration`.

    References
    ----------
    Efron (1987), "Better bootstrap confidence intervals", JASA 82.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> draws = jnp.arange(101.0)
    >>> found = bca_interval(draws, jnp.array(50.0), jnp.array(0.0), 0.9)
    >>> round(float(found.lower), 3), round(float(found.upper), 3)
    (5.0, 95.0)
    >>> float(bca_interval(draws, jnp.array(200.0), jnp.array(0.0), 0.9).lower)
    nan
    """
    same = _equal(draws, estimate)
    ordered, used = _ordered(draws)
    below = jnp.sum(jnp.where(same, 0.5, draws < estimate), axis=0) / jnp.maximum(used, 1)
    z0 = ndtri(below)

    def end(level: float) -> Float[Array, "..."]:
        shifted = z0 + ndtri(jnp.asarray(level, z0.dtype))
        room = 1 - acceleration * shifted
        exists = jnp.isfinite(z0) & (room > 0)
        level_at = ndtr(z0 + shifted / jnp.where(exists, room, 1.0))
        return jnp.where(exists, _quantile(ordered, used, level_at), jnp.nan)

    tail = (1 - confidence) / 2
    return Bounds(end(tail), end(1 - tail), used)


@compiled("kind", "confidence")
def interval(
    kind: str,
    draws: Float[Array, "r ..."],
    estimate: Float[Array, "..."],
    confidence: float,
    *,
    se: Float[Array, "..."] | None = None,
    draws_se: Float[Array, "r ..."] | None = None,
    acceleration: Float[Array, "..."] | None = None,
) -> Bounds:
    """Return the interval of a kind by name.

    Parameters
    ----------
    kind
        One of `KINDS`.
    draws, estimate, confidence
        As in the functions of each kind.
    se
        For ``"studentized"``; by ``"normal"`` the standard deviation of `draws` is taken.
    draws_se
        For ``"studentized"``.
    acceleration
        For ``"bca"``.

    Raises
    ------
    ValueError
        For a kind there is not, and where it lacks something.
    """
    if kind == "percentile":
        return percentile_interval(draws, confidence)
    if kind == "basic":
        return basic_interval(draws, estimate, confidence)
    if kind == "normal":
        ends = normal_interval(estimate, jnp.nanstd(draws, axis=0, ddof=1), confidence)
        return Bounds(*ends, jnp.sum(~jnp.isnan(draws), axis=0))
    if kind == "studentized" and se is not None and draws_se is not None:
        return studentized_interval(draws, draws_se, estimate, se, confidence)
    if kind == "bca" and acceleration is not None:
        return bca_interval(draws, estimate, acceleration, confidence)
    if kind in KINDS:
        needed = "se and draws_se" if kind == "studentized" else "acceleration"
        raise ValueError(f"the {kind} interval needs {needed}")
    raise ValueError(f"kind is {kind!r}: use one of {', '.join(KINDS)}")


def _equal(draws: Float[Array, "r ..."], estimate: Float[Array, "..."]) -> Bool[Array, "r ..."]:
    """Whether a resample is the estimate again, but for rounding."""
    size = jnp.maximum(jnp.abs(estimate), jnp.abs(draws))
    return jnp.abs(draws - estimate) <= _ROUNDING * jnp.finfo(draws.dtype).eps * size


def _ordered(draws: Float[Array, "r ..."]) -> tuple[Float[Array, "r ..."], Int[Array, "..."]]:
    """Return the draws in order, those that are NaN last, and the number of the others."""
    return jnp.sort(draws, axis=0), jnp.sum(~jnp.isnan(draws), axis=0)


def _quantile(
    ordered: Float[Array, "r ..."], used: Int[Array, "..."], level: Float[Array, "..."] | float
) -> Float[Array, "..."]:
    """Interpolate between order statistics, at a level of its own for each number."""
    last = jnp.maximum(used - 1, 0)
    place = jnp.clip(level, 0, 1) * last
    first = jnp.floor(place).astype(last.dtype)
    low, high = (
        jnp.take_along_axis(ordered, jnp.minimum(at, last)[None], axis=0)[0]
        for at in (first, first + 1)
    )
    part = place - first
    # An infinite number has no difference to the next one.
    return jnp.where((part == 0) | jnp.isinf(low), low, low + part * (high - low))
