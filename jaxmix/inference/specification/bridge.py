"""The test of level 4: Hansen's J of the bridge's overidentifying restrictions."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxmix.estimators.bridge import arm_inverses, pooled_inverse
from jaxmix.inference.specification.answer import SpecificationTest, Statistic, chi_square
from jaxmix.inference.specification.data import POPULATION, Prepared
from jaxmix.model.table import Cells
from jaxmix.sample.features import Views
from jaxmix.sample.moments import Moments, as_moments
from jaxmix.sample.sample import Sample
from jaxmix.sample.second import residual_moments
from jaxmix.solvers.compiling import compiled
from jaxmix.solvers.linalg import cutoff, power_of_two

_NULL = "one linear bridge alpha_t . phi_x per arm leaves an outcome residual unrelated to every z"


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
    rank
        Number of classes at which the bridge is truncated; None truncates nothing.
    form
        ``"by_arm"``, or ``"pooled"``: one bridge for all arms, treatment beside it.
    estimand
        ``"ATE"``, or ``"ATT"``: only the control arm has a bridge.

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
    return of_sample(Sample(views), rank=rank, form=form, estimand=estimand)


def of_sample(
    sample: Sample, *, rank: int | None = None, form: str = "by_arm", estimand: str = "ATE"
) -> SpecificationTest:
    """Test the bridge of a sample, by sums over its rows; see `overidentification`.

    Parameters
    ----------
    sample
        The rows.
    rank
        Number of classes at which the bridge is truncated; None truncates nothing.
    form
        ``"by_arm"`` or ``"pooled"``.
    estimand
        ``"ATE"`` or ``"ATT"``.
    """
    moments = sample.moments
    reason = _untestable(moments, rank, form) or sample.design.against_robust_j()
    if reason:
        return _in_words(None, reason, form)
    scaled = _in_units(moments)
    if form == "pooled":
        alpha = _pooled_alpha(scaled)
        spread, left = residual_moments(sample, alpha, scaled.value_y)
        return _in_words(_pooled_j(scaled, spread, left), "", form)
    spread, left = residual_moments(sample, _alpha(scaled), scaled.value_y)
    num_arms = len(spread) if estimand == "ATE" else 1
    found = _hansen_j(spread, scaled.zx, scaled.zy, left, scaled.num_rows, num_arms)
    return _in_words(chi_square(*found), "", form)


def of_prepared(prepared: Prepared) -> SpecificationTest:
    """Test the bridge of data that were checked, at their number of classes.

    Parameters
    ----------
    prepared
        The data.
    """
    rank, evidence = prepared.num_classes, prepared.evidence
    if evidence.rows is not None:
        return of_sample(evidence.rows, rank=rank)
    moments = evidence.weighed_moments
    reason = _untestable(moments, rank, "by_arm")
    if not np.isfinite(evidence.num_rows):
        reason = reason or POPULATION
    return _in_words(None if reason else bridge_statistic(moments), reason, "by_arm")


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
    moments = _in_units(as_moments(moments_or_cells))
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

    bridge = jnp.einsum("tx,y->txy", _alpha(moments), moments.one_y).reshape(a, -1)
    constant = jnp.outer(moments.one_x, moments.one_y).reshape(-1)
    own = spread(outcome - bridge)
    whole = spread(jnp.broadcast_to(outcome - moments.y_by_arm.sum() * constant, (a, d_x * d_y)))
    left = jnp.trace(own.sum(0)) / jnp.trace(whole.sum(0))
    num_arms = a if estimand == "ATE" else 1
    return chi_square(*_hansen_j(own, moments.zx, moments.zy, left, moments.num_rows, num_arms))


def _untestable(moments: Moments, rank: int | None, form: str) -> str:
    """Return why a bridge leaves nothing to test, by its sizes; empty where it may."""
    a, d_z, d_x, _ = moments.tensor.shape
    if d_z <= d_x:
        more = a - 1 if form == "pooled" else 0
        return (
            f"z has no more features ({d_z + more}) than x ({d_x + more}), so the bridge fits "
            "exactly"
        )
    if rank is not None and rank < moments.max_rank:
        return f"the bridge is truncated at rank {rank}, so J is not chi-square"
    return ""


def _in_words(found: Statistic | None, reason: str, form: str) -> SpecificationTest:
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


def _in_units(moments: Moments) -> Moments:
    """Return moments with an outcome of order one, whose squares are numbers; J knows no units."""
    unit = power_of_two(jnp.abs(moments.value_y).max())
    return dataclasses.replace(moments, value_y=moments.value_y / unit)


@compiled()
def _alpha(moments: Moments) -> Float[Array, "a d_x"]:
    """Return the bridge of each arm."""
    inverses = arm_inverses(moments, None).matrix
    return jnp.einsum("txz,tz->tx", inverses, moments.zy, precision="highest")


@compiled()
def _pooled_alpha(moments: Moments) -> Float[Array, "a d_x"]:
    """Return the pooled bridge for each arm, what treatment adds to it put on the constant."""
    _, inverse, right = pooled_inverse(moments, None)
    num_others = len(moments.tensor) - 1
    solution = inverse.matrix @ right
    shift = jnp.concatenate([jnp.zeros(1, solution.dtype), solution[:num_others]])
    return solution[num_others:] + shift[:, None] * moments.one_x


@compiled()
def _pooled_j(
    moments: Moments, spread: Float[Array, "a d_z d_z"], left: Float[Array, ""]
) -> Statistic:
    """Return J of the pooled bridge, the arms' indicators among the features of z."""
    matrix, _, right = pooled_inverse(moments, None)
    by_arm = jnp.einsum("tzw,w->tz", spread, moments.one_z, precision="highest")[1:]
    squares = jnp.diag(by_arm @ moments.one_z)
    whole = jnp.block([[squares, by_arm], [by_arm.T, spread.sum(0)]])
    found = _hansen_j(whole[None], matrix[None], right[None], left, moments.num_rows, 1)
    return chi_square(*found)


@compiled("num_arms")
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
