"""Tests of what an estimate assumes, each an object with its null hypothesis in words."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxmix.estimators.bridge import arm_inverses
from jaxmix.features import Views
from jaxmix.moments import from_rows
from jaxmix.solvers.linalg import cutoff

_BRIDGE_NULL = (
    "one linear bridge alpha_t . phi_x per arm leaves an outcome residual unrelated to every z"
)

_FIT_NULLS = {
    2: "Z, X and (T, Y) are mutually independent within this number of classes",
    3: "X is independent of (Z, T, Y), and Z of Y given T, within this number of classes",
}

_CONTRAST_NULL = "levels 3 and 4 have one average effect, as they do when X does not affect Y"


@dataclasses.dataclass(frozen=True)
class SpecificationTest:
    """A test of a specification, or the reason why there is nothing to test.

    Attributes
    ----------
    applies
        Whether the data can speak at all.
    statistic, df, p_value
        The statistic, its chi-square degrees of freedom and p-value; None where it does not
        apply.
    null
        The null hypothesis in words.
    reason
        Why the test does not apply; empty where it does.
    symbol
        What the statistic is called.
    """

    applies: bool
    null: str
    statistic: float | None = None
    df: int | None = None
    p_value: float | None = None
    reason: str = ""
    symbol: str = "J"

    def rejects(self, size: float = 0.05) -> bool:
        """Whether the null is rejected; a test that does not apply never rejects."""
        return self.p_value is not None and self.p_value < size

    def __str__(self) -> str:
        if not self.applies:
            return f"does not apply: {self.reason}"
        verdict = "rejected at 5 %" if self.rejects() else "not rejected, which is no proof"
        value = f"{self.symbol} = {self.statistic:.2f} on {self.df} df"
        return f"{value}, p = {self.p_value:.3g} ({verdict})"


def overidentification(
    views: Views, *, rank: int | None = None, form: str = "by_arm", estimand: str = "ATE"
) -> SpecificationTest:
    """Test the overidentifying restrictions of the linear bridge (Hansen's J).

    Two-step efficient GMM, heteroskedasticity-robust: the residuals of two-stage least squares
    give the weight ``S_t = E[w^2 e^2 phi_z phi_z' 1{T=t}]``; ``J = n g' S^-1 g`` at its minimum,
    chi-square with d_z - d_x degrees of freedom per arm.

    Parameters
    ----------
    views
        The rows.
    rank, form, estimand
        As in `jaxmix.bridge.solve`: with ATT only the control arm has a bridge.

    References
    ----------
    Hansen (1982), Econometrica 50; Sargan (1958), Econometrica 26.

    Examples
    --------
    >>> import jaxmix as jm
    >>> table = {"t": [0, 1] * 8, "y": [1, 2, 4, 4] * 4}
    >>> table |= {"z": [0, 0, 1, 1] * 4, "x": [1, 0, 0, 1] * 4}
    >>> data = jm.CausalData.from_frame(table, treatment="t", outcome="y", z=["z"], x=["x"])
    >>> print(overidentification(jm.features.encode(data)))
    does not apply: z has no more features (2) than x (2), so the bridge fits exactly
    """
    if form == "pooled":
        views = _with_treatment_shared(views)
    null = _BRIDGE_NULL
    if form == "pooled":
        null = null.replace("alpha_t . phi_x per arm", "alpha . phi_x for all arms")
    d_z, d_x = views.z.shape[1], views.x.shape[1]
    if d_z <= d_x:
        reason = f"z has no more features ({d_z}) than x ({d_x}), so the bridge fits exactly"
        return SpecificationTest(False, null, reason=reason)
    if rank is not None and rank < views.max_rank:
        reason = f"the bridge is truncated at rank {rank}, so J is not chi-square"
        return SpecificationTest(False, null, reason=reason)
    if views.num_clusters:
        reason = "rows are clustered, and this J is for independent rows"
        return SpecificationTest(False, null, reason=reason)
    arms = range(views.num_arms) if form == "pooled" or estimand == "ATE" else range(1)
    statistic, df = _hansen_j(views, list(arms))
    if df == 0:
        reason = "no overidentifying restriction is left at the numerical rank of the moments"
        return SpecificationTest(False, null, reason=reason)
    p_value = float(jax.scipy.stats.chi2.sf(statistic, df))
    return SpecificationTest(True, null, statistic, df, p_value)


def contrast_test(contrast: float, se: float, span: float) -> SpecificationTest:
    """Test a stronger level by its disagreement with a weaker one (Hausman).

    If level 3 holds, its average effect and that of level 4 estimate one number; their squared
    difference over its variance is chi-square with one degree of freedom.

    Parameters
    ----------
    contrast, se
        The difference of the two estimates, and its standard error.
    span
        Range of the outcome, against which a difference counts as rounding.

    References
    ----------
    Hausman (1978), Econometrica 46.

    Examples
    --------
    >>> print(contrast_test(0.3, 0.1, 1.0))
    chi2 = 9.00 on 1 df, p = 0.0027 (rejected at 5 %)
    >>> print(contrast_test(1e-17, 1e-17, 1.0).reason)
    the average effects of levels 3 and 4 are one and the same function of these moments
    """
    if not (np.isfinite(contrast) and np.isfinite(se)):
        reason = "there is no level-3 estimate to compare"
        return SpecificationTest(False, _CONTRAST_NULL, reason=reason)
    if se < 1e-8 * span:
        reason = (
            "the average effects of levels 3 and 4 are one and the same function of these moments"
        )
        return SpecificationTest(False, _CONTRAST_NULL, reason=reason)
    statistic = (contrast / se) ** 2
    p_value = float(jax.scipy.stats.chi2.sf(statistic, 1))
    return SpecificationTest(True, _CONTRAST_NULL, statistic, 1, p_value, symbol="chi2")


def fit_test(
    statistic: float,
    df: int,
    *,
    level: int,
    symbol: str,
    rows_per_cell: float | None = None,
    weighted: bool = False,
    clustered: bool = False,
) -> SpecificationTest:
    """Test a level by how well its factorization fits the moments: G^2 of a table, or J.

    Chi-square with the number of free moments minus that of free parameters (by ranks), where
    the level holds. A probability at 0 counts as fixed.

    Parameters
    ----------
    statistic, df
        G^2 or J, and its degrees of freedom.
    level
        2 or 3.
    symbol
        ``"G2"`` or ``"J"``.
    rows_per_cell
        Rows over cells of a table: below 1 the chi-square law of G^2 is not to be trusted.
    weighted, clustered
        Whether rows carry sampling weights or clusters, for which there is no such test.

    References
    ----------
    Agresti (2013), "Categorical Data Analysis", on sparse tables; Hansen (1982), Econometrica 50.

    Examples
    --------
    >>> print(fit_test(30.0, 12, level=3, symbol="J"))
    J = 30.00 on 12 df, p = 0.00279 (rejected at 5 %)
    >>> fit_test(0.0, 0, level=2, symbol="G2").reason
    'the model has as many free parameters as there are free moments, so it fits any data'
    """
    null = _FIT_NULLS[level]
    reason = ""
    if df <= 0:
        reason = (
            "the model has as many free parameters as there are free moments, so it fits any data"
        )
    elif weighted or clustered:
        what = "carry sampling weights" if weighted else "are clustered"
        reason = f"rows {what}, and this test is for a random sample"
    elif rows_per_cell is not None and rows_per_cell < 1:
        reason = f"there are {rows_per_cell:.2g} rows per cell, too few for a chi-square law"
    elif not np.isfinite(statistic):
        reason = "there is no estimate to test"
    if reason:
        return SpecificationTest(False, null, reason=reason, symbol=symbol)
    p_value = float(jax.scipy.stats.chi2.sf(statistic, df))
    return SpecificationTest(True, null, statistic, df, p_value, symbol=symbol)


def _with_treatment_shared(views: Views) -> Views:
    """Return the pooled problem as one of a single arm, treatment among the shared features."""
    indicators = (views.t[:, None] == jnp.arange(1, views.num_arms)).astype(views.z.dtype)
    none = jnp.zeros(views.num_arms - 1, views.z.dtype)
    return dataclasses.replace(
        views,
        z=jnp.hstack([indicators, views.z]),
        x=jnp.hstack([indicators, views.x]),
        one_z=jnp.concatenate([none, views.one_z]),
        one_x=jnp.concatenate([none, views.one_x]),
        t=jnp.zeros_like(views.t),
        num_arms=1,
        num_shared=views.num_shared + views.num_arms - 1,
    )


@jax.jit
def _two_step_parts(views: Views) -> tuple[Array, Array, Array, Array]:
    """Return by arm the covariance of phi_z times the residual, E[z x] and E[z y].

    The last number is the share of the outcome's variation that the residual holds.
    """
    moments = from_rows(views)
    inverses = arm_inverses(moments, None).matrix
    alpha = jnp.einsum("txz,tz->tx", inverses, moments.zy, precision="highest")
    y = views.y @ views.value_y
    residual = y - jnp.sum(views.x * alpha[views.t], axis=1)
    # The gram matrix of z under the weight (w e)^2 is what the moments already compute.
    squared = (views.weight * residual) ** 2
    spread = from_rows(dataclasses.replace(views, weight=squared)).gram_z
    mass, n = (views.weight * views.multiplicity).sum(), views.multiplicity.sum()
    spread = spread * (squared * views.multiplicity).sum() * n / mass**2
    total = (views.weight * (y - y.mean())) ** 2
    left = jnp.sum(squared * views.multiplicity) / jnp.sum(total * views.multiplicity)
    return spread, moments.zx, moments.zy, left


def _hansen_j(views: Views, arms: list[int]) -> tuple[float, int]:
    *parts, left = _two_step_parts(views)
    if left < cutoff(parts[0][0]):
        return 0.0, 0  # the outcome is fitted to rounding: nothing is left to test
    tolerance = cutoff(parts[0][0])
    n = float(views.multiplicity.sum())
    statistic, df = 0.0, 0
    for t in arms:
        s, a, b = (np.asarray(part[t]) for part in parts)
        values, vectors = np.linalg.eigh(s)
        keep = values > tolerance * values[-1]
        whiten = (vectors[:, keep] / np.sqrt(values[keep])).T
        design, target = whiten @ a, whiten @ b
        gap = target - design @ np.linalg.lstsq(design, target, rcond=None)[0]
        statistic += n * float(gap @ gap)
        df += int(keep.sum()) - int(np.linalg.matrix_rank(design))
    return statistic, df
