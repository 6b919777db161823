"""The test of ranges: shares or effects that came out beyond what noise alone would do."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxmix import arguments
from jaxmix.estimators import spectral, synthetic
from jaxmix.estimators.bridge import target_x
from jaxmix.inference.asymptotic import delta_covariance, slopes
from jaxmix.inference.specification.answer import SpecificationTest, Statistic
from jaxmix.inference.specification.data import POPULATION, Data, prepare
from jaxmix.model.table import Cells
from jaxmix.sample.moments import Moments, as_moments
from jaxmix.sample.sample import Sample
from jaxmix.solvers.compiling import compiled, one_table
from jaxmix.solvers.linalg import pinv
from jaxmix.status import Status

METHODS = ("spectral", "synthetic")

_NULL = (
    "every share lies in [0, 1] and every effect within the outcome's range, as they do where "
    "level 3 holds with this number of classes"
)

_ONE_CLASS = (
    "one class has everybody, and its effect is a difference of means, which cannot leave the "
    "outcome's range"
)

_NO_SPECTRUM = (Status.COMPLEX_SPECTRUM, Status.RANK_DEFICIENT, Status.NONFINITE)


def range_test(data: Data, num_classes: int = 2, *, method: str = "spectral") -> SpecificationTest:
    """Test whether a closed form's shares and effects left their ranges by more than noise.

    One-sided, with delta-method standard errors and Bonferroni's inequality over the bounds of
    all shares (0 and 1) and effects (the width of the outcome's range, where it has one):
    conservative. Sampling weights and clusters enter the standard errors.

    Parameters
    ----------
    data
        A table with roles, features, moments with their covariance, or counts of
        ``(T, Z, X, Y)``.
    num_classes
        Number of classes.
    method
        ``"spectral"``, or ``"synthetic"`` by the matrix pencil.

    Raises
    ------
    InputError
        For a method or a number of classes there is not, and for covariates.

    Examples
    --------
    >>> import jax, jaxmix as jm
    >>> counts = jm.populations.paper_main().counts(jax.random.key(0), 10_000)
    >>> found = range_test(counts)
    >>> found.applies, found.num_checks, found.rejects()
    (True, 8, False)
    """
    choices = " or ".join(repr(name) for name in METHODS)
    arguments.choice("method", method, METHODS, f"use {choices}")
    with one_table():
        prepared = prepare(data, num_classes, None)
        evidence, k = prepared.evidence, prepared.num_classes
        if evidence.rows is None:
            statistic_of = functools.partial(range_statistic, evidence.weighed_moments)
        else:
            statistic_of = functools.partial(of_sample, evidence.rows)
        reason = _ONE_CLASS if k == 1 else ""
        if not np.isfinite(evidence.num_rows):
            reason = POPULATION
        if reason:
            return SpecificationTest(False, _NULL, reason=reason, symbol="z")
        found = statistic_of(k, method=method)
        statistic, checks, p_value = (np.asarray(part).item() for part in found)
        if np.isnan(p_value):
            reason = (
                f"the {method} estimate has no real effects to look at: noise, too many classes, "
                "or assumptions that do not hold"
            )
            return SpecificationTest(False, _NULL, reason=reason, symbol="z")
        return SpecificationTest(
            True, _NULL, statistic, None, p_value, symbol="z", num_checks=checks
        )


@compiled("k", "method")
def range_statistic(
    moments_or_cells: Moments | Cells, k: int, *, method: str = "spectral"
) -> Statistic:
    """Test whether shares and effects of a closed form lie in their ranges.

    For each number v with range [l, h] and standard error s, ``z = max(l - v, v - h) / s``; the
    largest z is compared with the normal quantile that Bonferroni's inequality gives for the
    number of bounds looked at. Where level 3 holds with k classes it rejects in at most 5 % of
    large samples, in far fewer where the truth is inside.

    Assumes what `jaxmix.spectral.effect_law` does, and an estimate that is nearly normal.

    Parameters
    ----------
    moments_or_cells
        Moments with their covariance, or counts of ``(T, Z, X, Y)``.
    k
        Number of classes.
    method
        ``"spectral"``, or ``"synthetic"``: the matrix pencil of the synthetic moments.

    Returns
    -------
    Statistic
        The largest z (negative where all numbers are inside), the number of bounds, and the
        p-value; NaN where the effects are complex or the ranks too small.

    Examples
    --------
    >>> import jax, jaxmix as jm
    >>> counts = jm.populations.block().counts(jax.random.key(0), 10_000)
    >>> found = range_statistic(counts, 2)
    >>> bool(found.statistic < 0), float(found.p_value)
    (True, 1.0)
    """
    moments = as_moments(moments_or_cells)
    values, found = _numbers(moments, k, method)
    spread = delta_covariance(lambda m: _numbers(m, k, method)[0], moments)
    errors = jnp.sqrt(jnp.maximum(jnp.diagonal(spread), 0.0))
    return compared(values, errors, found, moments.range_y, k)


def of_sample(sample: Sample, k: int, *, method: str = "spectral") -> Statistic:
    """Test the ranges of a sample; weights and clusters enter the standard errors.

    Parameters
    ----------
    sample
        The rows.
    k
        Number of classes.
    method
        ``"spectral"`` or ``"synthetic"``.
    """
    values, found, derivatives = _differentiated(sample.moments, k, method)
    errors = sample.standard_errors(derivatives)
    return compared(values, errors, found, sample.moments.range_y, k)


@compiled("k", "method")
def _differentiated(moments: Moments, k: int, method: str) -> tuple[Array, Array, Moments]:
    """Return shares and effects, whether there is an estimate, and the numbers' derivatives."""
    _, found = _numbers(moments, k, method)
    values, derivatives = slopes(lambda m: _numbers(m, k, method)[0], moments)
    return values, found, derivatives


def _numbers(moments: Moments, k: int, method: str) -> tuple[Float[Array, " 2k"], Array]:
    """Return shares before any projection, then effects; and whether there is an estimate."""
    if method == "spectral":
        by_operator = spectral.solve(moments, k)
        mixture, status = by_operator.value, by_operator.status
        # What the solution holds are shares projected onto the simplex.
        shares = pinv(mixture.x_profiles, k).matrix @ target_x(moments, "ATE", 1)
        effects = mixture.effects()
    elif method == "synthetic":
        by_moments = synthetic.solve(moments, k, quadrature="pencil")
        law, status = by_moments.value[0], by_moments.status
        shares, effects = law.shares, law.effects
    else:
        raise ValueError(f"method is {method!r}: use one of {', '.join(METHODS)}")
    values = jnp.concatenate([shares, effects])
    broken = jnp.any(jnp.stack([status == bad for bad in _NO_SPECTRUM]))
    return values, ~broken & jnp.all(jnp.isfinite(values))


@compiled("k")
def compared(
    values: Float[Array, " 2k"], errors: Array, found: Array, range_y: Array, k: int
) -> Statistic:
    """Compare shares and effects, of k classes each, with their range in standard errors."""
    span = range_y[1] - range_y[0]
    bounded = jnp.isfinite(span)
    shares, effects = values[:k], values[k:]
    beyond = jnp.concatenate(
        [jnp.maximum(-shares, shares - 1), jnp.where(bounded, jnp.abs(effects) - span, -jnp.inf)]
    )
    # A number without noise, such as the share of a single class, may lie on its bound.
    slack = jnp.sqrt(jnp.finfo(values.dtype).eps) * jnp.concatenate(
        [jnp.ones(k), jnp.where(bounded, span, 1.0) * jnp.ones(k)]
    )
    exact = jnp.where(beyond > slack, jnp.inf, -jnp.inf)
    noisy = errors > slack  # less than that is rounding
    z = jnp.where(noisy, beyond / jnp.where(noisy, errors, 1.0), exact)
    found = found & jnp.all(jnp.isfinite(errors))
    checks = 2 * k * (1 + bounded.astype(int))
    largest = jnp.where(found, z.max(), jnp.nan)
    return Statistic(largest, checks, jnp.minimum(1.0, checks * jax.scipy.stats.norm.sf(largest)))
