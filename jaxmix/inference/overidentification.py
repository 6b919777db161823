"""Level 4: the overidentifying restrictions of the bridge, from rows or from moments."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxmix.estimators.bridge import arm_inverses
from jaxmix.inference.verdict import SpecificationTest, Statistic, chi_square
from jaxmix.model.table import Cells
from jaxmix.sample import moments as moments_
from jaxmix.sample.features import Views
from jaxmix.sample.moments import Moments, from_rows
from jaxmix.solvers.compiling import compiled
from jaxmix.solvers.linalg import cutoff, power_of_two

_NULL = "one linear bridge alpha_t . phi_x per arm leaves an outcome residual unrelated to every z"


@compiled("estimand")
def bridge_statistic(moments_or_cells: Moments | Cells, *, estimand: str = "ATE") -> Statistic:
    """Return Hansen's J of the bridge from moments alone; see `overidentification`.

    The outcome residual times phi_z is linear in the moment tensor once the bridge is known, so
    that its second moments follow from the tensor's covariance. Under ``vmap`` for many data sets.

    Parameters
    ----------
    moments_or_cells
        Moments with their covariance, of rows without sampling weights, or counts of
        ``(T, Z, X, Y)``.
    estimand
        With ``"ATT"`` the control arm alone is tested.

    Examples
    --------
    >>> import jax, jaxmix as jm
    >>> counts = jm.populations.block(d_z=4, d_x=2).counts(jax.random.key(0), 10_000)
    >>> found = bridge_statistic(counts)
    >>> int(found.df), bool(found.p_value > 0.05)
    (4, True)
    """
    moments = moments_or_cells
    if not isinstance(moments, Moments):
        moments = moments_.from_counts(moments, covariance=True)
    moments = dataclasses.replace(moments, value_y=moments.value_y / _size(moments.value_y))
    if moments.covariance is None:
        raise ValueError("J of the bridge needs moments with their covariance (covariance=True)")
    a, d_z, d_x, d_y = moments.tensor.shape
    shape = (a, d_z, d_x * d_y, a, d_z, d_x * d_y)
    covariance = moments.covariance.reshape(shape)
    tensor = moments.tensor.reshape(a, d_z, -1)
    outcome = jnp.outer(moments.one_x, moments.value_y).reshape(-1)

    def spread(weights: Float[Array, "a q"]) -> Float[Array, "a d_z d_z"]:
        """Return the second moments of 1{T=t} phi_z e with e = weights_t . (phi_x x phi_y)."""
        own = jnp.einsum("tq,tzqtwr,tr->tzw", weights, covariance, weights, precision="highest")
        mean = jnp.einsum("tq,tzq->tz", weights, tensor, precision="highest")
        return own + mean[:, :, None] * mean[:, None, :]

    inverses = arm_inverses(moments, None).matrix
    alpha = jnp.einsum("txz,tz->tx", inverses, moments.zy, precision="highest")
    bridge = jnp.einsum("tx,y->txy", alpha, moments.one_y).reshape(a, -1)
    constant = jnp.outer(moments.one_x, moments.one_y).reshape(-1)
    own = spread(outcome - bridge)
    whole = spread(jnp.broadcast_to(outcome - moments.y_by_arm.sum() * constant, (a, d_x * d_y)))
    left = jnp.trace(own.sum(0)) / jnp.trace(whole.sum(0))
    num_arms = a if estimand == "ATE" else 1
    return chi_square(*_hansen_j(own, moments.zx, moments.zy, left, moments.num_rows, num_arms))


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
    reason = untestable(views.z.shape[1], views.x.shape[1], rank, views.max_rank)
    reason = reason or views.design.against_robust_j()
    found = None
    if not reason:
        num_arms = views.num_arms if form == "pooled" or estimand == "ATE" else 1
        found = chi_square(*_of_rows(views, num_arms))
    return as_test(found, reason, form)


def untestable(d_z: int, d_x: int, rank: int | None, max_rank: int) -> str:
    """Return why a bridge leaves nothing to test, by its sizes; empty where it may."""
    if d_z <= d_x:
        return f"z has no more features ({d_z}) than x ({d_x}), so the bridge fits exactly"
    if rank is not None and rank < max_rank:
        return f"the bridge is truncated at rank {rank}, so J is not chi-square"
    return ""


def as_test(found: Statistic | None, reason: str, form: str = "by_arm") -> SpecificationTest:
    """Return the test of the bridge as an object, or the reason why there is none."""
    null = _NULL
    if form == "pooled":
        null = null.replace("alpha_t . phi_x per arm", "alpha . phi_x for all arms")
    if found is not None:
        statistic, df, p_value = (np.asarray(part).item() for part in found)
        if df > 0 and np.isfinite(statistic):
            return SpecificationTest(True, null, statistic, df, p_value)
        reason = "no overidentifying restriction is left at the numerical rank of the moments"
        if df > 0:
            reason = "the moments of the bridge are not finite"
    return SpecificationTest(False, null, reason=reason)


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


@compiled("num_arms")
def _of_rows(views: Views, num_arms: int) -> tuple[Float[Array, ""], Int[Array, ""]]:
    # J knows no units: an outcome of order one, so that its squares are numbers.
    views = dataclasses.replace(views, value_y=views.value_y / _size(views.value_y))
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
    # The share of the outcome's variation that the residual holds.
    left = jnp.sum(squared * views.multiplicity) / jnp.sum(total * views.multiplicity)
    return _hansen_j(spread, moments.zx, moments.zy, left, n, num_arms)


def _size(values: Float[Array, " d_y"]) -> Float[Array, ""]:
    """Return the power of two next to the largest number."""
    return power_of_two(jnp.abs(values).max())


def _hansen_j(
    spread: Float[Array, "a d_z d_z"],
    zx: Float[Array, "a d_z d_x"],
    zy: Float[Array, "a d_z"],
    left: Float[Array, ""],
    n: Float[Array, ""],
    num_arms: int,
) -> tuple[Float[Array, ""], Int[Array, ""]]:
    """Return J and its degrees of freedom, summed over the first arms."""
    tolerance = cutoff(spread[0])

    def one(s: Array, a: Array, b: Array) -> tuple[Array, Array]:
        values, vectors = jnp.linalg.eigh(s)
        keep = values > tolerance * values[-1]
        whiten = vectors * jnp.where(keep, jnp.where(keep, values, 1.0) ** -0.5, 0.0)
        design, target = whiten.T @ a, whiten.T @ b
        u, sizes, _ = jnp.linalg.svd(design, full_matrices=False)
        kept = sizes > max(design.shape) * jnp.finfo(design.dtype).eps * sizes[0]
        gap = target - (u * kept) @ (u.T @ target)
        return n * gap @ gap, keep.sum() - kept.sum()

    statistic, df = jax.vmap(one)(spread[:num_arms], zx[:num_arms], zy[:num_arms])
    # An outcome that is fitted to rounding leaves nothing to test.
    return statistic.sum(), jnp.where(left < tolerance, 0, df.sum())
