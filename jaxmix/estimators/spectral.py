"""Level 3: the spectral operator, whose eigenvalues are the class effects.

Virk, Mazaheri, Wu, "The Spectral Structure of Latent Treatment Effects" (2026, arXiv 2607.10926).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from jaxmix.estimators.bridge import PotentialMeans, short_of_rank, target_x
from jaxmix.estimators.synthetic import outcome_scale, standard_zxy
from jaxmix.model.law import EffectLaw, Mixture, range_status
from jaxmix.sample.moments import Moments
from jaxmix.solvers.compiling import compiled
from jaxmix.solvers.linalg import inverse, pinv
from jaxmix.solvers.spectra import dominant_subspace, left_eigen
from jaxmix.status import Solution, Status, settle, where, worst

_NUM_DIRECTIONS = 6


def _directions(num_arms: int, arm: int) -> np.ndarray:
    """Return unit contrasts of the arms' operators; the first is the effect itself."""
    effect = np.zeros(num_arms)
    effect[[0, arm]] = -1.0, 1.0
    if num_arms == 2:
        angles = np.pi * (0.75 + np.arange(_NUM_DIRECTIONS) / _NUM_DIRECTIONS)
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)
    rng = np.random.default_rng(0)  # any generic directions do; fixed, so that results are
    others = rng.normal(size=(_NUM_DIRECTIONS * num_arms, num_arms))
    directions = np.vstack([effect, others])
    found: np.ndarray = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    return found


def _best_direction(operators: Float[Array, "a k k"], arm: int) -> Float[Array, " a"]:
    """Return the contrast of the operators whose eigenvalues are real and lie farthest apart."""
    k = operators.shape[-1]
    directions = jnp.asarray(_directions(len(operators), arm), operators.dtype)
    combined = jnp.einsum("qt,tij->qij", directions, jax.lax.stop_gradient(operators))
    values = jnp.linalg.eigvals(combined)
    gaps = jnp.abs(values[:, :, None] - values[:, None, :]) + jnp.where(jnp.eye(k), jnp.inf, 0.0)
    gap = gaps.min((1, 2)) if k > 1 else jnp.ones(len(directions))
    imaginary = jnp.abs(values.imag).max(1)
    score = jnp.where(imaginary > 0, -imaginary, gap)
    score = jnp.where(jnp.isfinite(score), score, -jnp.inf)
    return directions[jnp.argmax(score)]


@compiled("k", "arm", "estimand")
def solve(moments: Moments, k: int, *, arm: int = 1, estimand: str = "ATE") -> Solution[Mixture]:
    """Estimate classes by diagonalizing the arms' operators together.

    With V the leading k right singular vectors of the stacked ``M_zx,t``, the operators
    ``K_t = (M_zx,t V)^+ M_zxy,t V`` have the same left eigenvectors ``R`` (rows), and
    eigenvalues ``E[Y(t) | U=u]``. The eigenvectors are taken from the contrast of the arms whose
    eigenvalues lie farthest apart, so that classes that share one effect, but not both means,
    are still told apart; scaled to make the constant 1 they are ``E[phi_x | u]' V``. Shares solve
    ``E[phi_x] = B pi`` and are then projected onto the simplex.

    Parameters
    ----------
    moments
        The moments of the data.
    k
        Number of classes.
    arm
        The arm compared with the control.
    estimand
        ``"ATE"``: shares of everybody; ``"ATT"``: of those in the arm.

    Returns
    -------
    Solution
        ``value`` is a `Mixture`, classes by increasing effect. In stats: ``share_repair`` (how
        far the projection moved a share), ``imaginary`` (largest imaginary part dropped),
        ``gap`` (smallest distance of the eigenvalues of the unit contrast that was diagonalized,
        over the outcome's range),
        ``condition`` of the class profiles.
        OUT_OF_RANGE refers to the shares before the projection.
    """
    if k == 1:
        return _one_class(moments, arm)
    centre, scale = outcome_scale(moments)
    zx, zxy = moments.zx, standard_zxy(moments)
    a, d_z, d_x = zx.shape
    subspace = dominant_subspace(zx.reshape(a * d_z, d_x), k)
    basis = subspace.basis
    inverses = jax.vmap(lambda m: pinv(m @ basis, k))(zx)
    broken = jnp.any(inverses.deficient) | subspace.ambiguous
    if moments.num_shared:  # beside the constant, whose size hides that a proxy does not vary
        broken = broken | jnp.any(short_of_rank(moments, k))
    operators = jnp.einsum("tkz,tzx,xj->tkj", inverses.matrix, zxy, basis, precision="highest")

    direction = jax.lax.stop_gradient(_best_direction(operators, arm))
    values, vectors = left_eigen(jnp.einsum("t,tij->ij", direction, operators))
    imaginary = jnp.abs(values.imag).max()
    scaled = vectors / (vectors @ (basis.T @ moments.one_x).astype(vectors.dtype))[:, None]
    # A complex pair is two conjugate rows, the same in their real parts: kept apart by the
    # imaginary parts so that the numbers stay finite; the status says they are no estimate.
    rows = scaled.real + scaled.imag
    rows_inverse = inverse(rows)
    means = jnp.einsum("ui,tij,ju->tu", rows, operators, rows_inverse, precision="highest")
    raw_shares = rows_inverse.T @ (basis.T @ target_x(moments, estimand, arm))
    # optax's projection, and its derivative, are of JAX's default precision throughout.
    default = jnp.zeros(()).dtype
    projected = optax.projections.projection_simplex(raw_shares.astype(default))
    shares = projected.astype(raw_shares.dtype)

    means = centre + scale * means
    order = jnp.argsort(means[arm] - means[0])
    value = Mixture(shares[order], means[:, order], (basis @ rows.T)[:, order])
    gaps = jnp.abs(values[:, None] - values[None, :]) + jnp.where(jnp.eye(k), jnp.inf, 0.0)
    status = worst(
        where(broken, Status.RANK_DEFICIENT),
        where(imaginary > jnp.sqrt(jnp.finfo(zx.dtype).eps), Status.COMPLEX_SPECTRUM),
        # Without what is only a sum that differs from 1, which the projection mends too.
        range_status(
            raw_shares - (raw_shares.sum() - 1.0) / k, means[arm] - means[0], moments.range_y
        ),
    )
    stats = {
        "share_repair": jnp.abs(shares - raw_shares).max(),
        "imaginary": imaginary,
        "gap": gaps.min(),
        "condition": jnp.linalg.norm(rows) * jnp.linalg.norm(rows_inverse),
    }
    return Solution(value, settle(status, value), stats)


def _one_class(moments: Moments, arm: int) -> Solution[Mixture]:
    """Return the class of everybody: its operators are numbers, the means of the arms."""
    means = (moments.y_by_arm / moments.arm_probabilities)[:, None]
    whole = jnp.ones(1, means.dtype)
    value = Mixture(whole, means, moments.x_by_arm.sum(0)[:, None])
    status = range_status(whole, means[arm] - means[0], moments.range_y)
    none = jnp.zeros((), means.dtype)
    stats = {"share_repair": none, "imaginary": none, "gap": none + jnp.inf, "condition": none + 1}
    return Solution(value, settle(status, value), stats)


def potential_means(mixture: Mixture, arm: int = 1) -> PotentialMeans:
    """Return the means over classes, and their contrast."""
    means = mixture.means @ mixture.shares
    return PotentialMeans(means, means[arm] - means[0])


@compiled("k", "arm", "estimand")
def effect_law(moments: Moments, k: int, *, arm: int = 1, estimand: str = "ATE") -> EffectLaw:
    """Estimate the distribution of class effects by the spectral operator (level 3).

    Assumes latent ignorability and overlap; X independent of (Z, T, Y) given U; Z independent
    of Y given (T, U); ``M_zx,t`` of rank k in every arm; classes that differ in their mean
    outcome in some arm. See `solve` for the parameters.

    References
    ----------
    Virk, Mazaheri, Wu (2026), arXiv 2607.10926.

    Examples
    --------
    >>> import jax, jaxmix as jm
    >>> law = effect_law(jm.populations.paper_main(zt_strength=0.5).moments(), 2)
    >>> [round(float(v), 4) for v in (*law.effects, *law.shares)]
    [-0.75, 0.75, 0.5, 0.5]
    """
    solution = solve(moments, k, arm=arm, estimand=estimand)
    mixture = solution.value
    return EffectLaw(mixture.shares, mixture.effects(arm), solution.status, solution.stats)
