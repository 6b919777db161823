"""Whether shares or effects that came out beyond their range did so by noise alone."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxmix.estimators import spectral, synthetic
from jaxmix.estimators.bridge import target_x
from jaxmix.inference.asymptotic import delta_covariance, standard_errors
from jaxmix.inference.verdict import SpecificationTest, Statistic
from jaxmix.model.table import Cells
from jaxmix.sample import moments as moments_
from jaxmix.sample.features import Views
from jaxmix.sample.moments import Moments, from_rows
from jaxmix.solvers.compiling import compiled
from jaxmix.solvers.linalg import pinv
from jaxmix.status import Status

METHODS = ("spectral", "synthetic")

NULL = (
    "every share lies in [0, 1] and every effect within the outcome's range, as they do where "
    "level 3 holds with this number of classes"
)

_ONE_CLASS = (
    "one class has everybody, and its effect is a difference of means, which cannot leave the "
    "outcome's range"
)

_NO_SPECTRUM = (Status.COMPLEX_SPECTRUM, Status.RANK_DEFICIENT, Status.NONFINITE)


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
    moments = moments_or_cells
    if not isinstance(moments, Moments):
        moments = moments_.from_counts(moments, covariance=True)
    values, found = _numbers(moments, k, method)
    spread = delta_covariance(lambda m: _numbers(m, k, method)[0], moments)
    errors = jnp.sqrt(jnp.maximum(jnp.diagonal(spread), 0.0))
    return compared(values, errors, found, moments.range_y, k)


def range_test(views_or_moments: Views | Moments, k: int, *, method: str) -> SpecificationTest:
    """Return the check of ranges as an object; clusters and weights enter the standard errors."""
    if k == 1:
        return SpecificationTest(False, NULL, reason=_ONE_CLASS, symbol="z")
    if isinstance(views_or_moments, Views):
        found = _of_rows(views_or_moments, k, method)
    else:
        found = range_statistic(views_or_moments, k, method=method)
    statistic, checks, p_value = (np.asarray(part).item() for part in found)
    if np.isnan(p_value):
        reason = (
            f"the {method} estimate has no real effects to look at: noise, too many classes, or "
            "assumptions that do not hold"
        )
        return SpecificationTest(False, NULL, reason=reason, symbol="z")
    return SpecificationTest(True, NULL, statistic, None, p_value, symbol="z", num_checks=checks)


@compiled("k", "method")
def _of_rows(views: Views, k: int, method: str) -> Statistic:
    values, found = _numbers(from_rows(views), k, method)
    errors = standard_errors(lambda m: _numbers(m, k, method)[0], views)
    return compared(values, errors, found, views.range_y, k)


def _numbers(moments: Moments, k: int, method: str) -> tuple[Float[Array, " 2k"], Array]:
    """Return shares before any projection, then effects; and whether there is an estimate."""
    if method == "spectral":
        solution = spectral.solve(moments, k)
        mixture = solution.value
        # What the solution holds are shares projected onto the simplex.
        shares = pinv(mixture.x_profiles, k).matrix @ target_x(moments, "ATE", 1)
        effects = mixture.effects()
    elif method == "synthetic":
        law = synthetic.solve(moments, k, quadrature="pencil").value[0]
        shares, effects = law.shares, law.effects
    else:
        raise ValueError(f"method is {method!r}: use one of {', '.join(METHODS)}")
    values = jnp.concatenate([shares, effects])
    broken = jnp.any(jnp.stack([solution.status == status for status in _NO_SPECTRUM]))
    return values, ~broken & jnp.all(jnp.isfinite(values))


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
