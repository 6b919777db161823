"""Level 3: synthetic potential outcomes, the moments of the effect law without its classes.

Mazaheri, Squires, Uhler, "Synthetic Potential Outcomes and Causal Mixture Identifiability"
(AISTATS 2025, arXiv 2405.19225).
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxmix.estimators.bridge import PotentialMeans, arm_inverses, target_x
from jaxmix.estimators.quadrature import METHODS
from jaxmix.model.law import EffectLaw, range_status
from jaxmix.sample.moments import Moments
from jaxmix.solvers.compiling import compiled
from jaxmix.status import Solution, Status, settle, where, worst


def outcome_scale(moments: Moments) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Return the centre and the scale that turn the outcome into numbers of order one.

    Centring makes truncated estimates equivariant to shifts of the outcome; scaling by its
    range keeps its powers from overflowing.
    """
    centre = moments.y_by_arm.sum()
    span = moments.range_y[1] - moments.range_y[0]
    return centre, jnp.where(jnp.isfinite(span) & (span > 0), span, 1.0)


def standard_zxy(moments: Moments) -> Float[Array, "a d_z d_x"]:
    """Return ``E[1{T=t} phi_z phi_x' (Y - centre) / scale]``."""
    centre, scale = outcome_scale(moments)
    return (moments.zxy - centre * moments.zx) / scale


def _recursion(
    moments: Moments, k: int, order: int, arm: int, estimand: str
) -> tuple[Float[Array, " order+1"], Float[Array, " a"], Int[Array, ""]]:
    """Return the moments of the standardised effects, the potential means, and the status."""
    centre, scale = outcome_scale(moments)
    inverses = arm_inverses(moments, k)
    # quotient[t] maps the stand-in of f(U) to the stand-in of E[Y(t) | U] f(U).
    quotient = jnp.einsum(
        "txz,tzj->txj", inverses.matrix, standard_zxy(moments), precision="highest"
    )
    x = target_x(moments, estimand, arm)
    means = centre + scale * (quotient @ moments.one_x) @ x
    values = moment_sequence(quotient[arm] - quotient[0], moments.one_x, x, order)
    return values, means, where(jnp.any(inverses.deficient), Status.RANK_DEFICIENT)


def moment_sequence(
    difference: Float[Array, "d_x d_x"],
    one_x: Float[Array, " d_x"],
    mean_x: Float[Array, " d_x"],
    order: int,
) -> Float[Array, " order+1"]:
    """Return ``E[phi_x] . D^l 1`` for l = 0..order, with D the difference of two quotients."""
    gamma = one_x
    values = [jnp.ones((), mean_x.dtype)]
    for _ in range(order):
        gamma = difference @ gamma
        values.append(mean_x @ gamma)
    return jnp.stack(values)


@compiled("k", "order", "arm", "estimand")
def effect_moments(
    moments: Moments, k: int, order: int, *, arm: int = 1, estimand: str = "ATE"
) -> Float[Array, " order+1"]:
    """Return the synthetic moments ``E[delta_U^l]``, l = 0..order, in powers of outcome units.

    With ``K_t = (M_zx,t)^+ M_zxy,t`` at rank k and ``D = K_1 - K_0``, ``gamma_1 = D 1`` and
    ``gamma_{l+1} = D gamma_l``: the moment is ``E[phi_x] . gamma_l``.

    Parameters
    ----------
    moments
        The moments of the data.
    k
        Number of classes: the rank at which each ``M_zx,t`` is truncated.
    order
        The highest moment.
    arm
        The arm compared with the control.
    estimand
        ``"ATE"``: the law of everybody; ``"ATT"``: of those in the arm.

    Examples
    --------
    >>> import jax, jaxmix as jm
    >>> m = effect_moments(jm.populations.paper_main().moments(), 2, 3)
    >>> [round(float(v), 4) + 0.0 for v in m]
    [1.0, 0.0, 0.5625, 0.0]
    """
    values, _, _ = _recursion(moments, k, order, arm, estimand)
    return values * outcome_scale(moments)[1] ** jnp.arange(order + 1)


@compiled("k", "quadrature", "arm", "estimand")
def solve(
    moments: Moments,
    k: int,
    *,
    quadrature: str = "gauss",
    arm: int = 1,
    estimand: str = "ATE",
) -> Solution[tuple[EffectLaw, PotentialMeans]]:
    """Estimate the effect law from synthetic moments, and the potential means beside it.

    Parameters
    ----------
    moments
        The moments of the data.
    k
        Number of classes.
    quadrature
        ``"gauss"``, ``"pencil"`` or ``"prony"``; see `jaxmix.estimators.quadrature`.
    arm, estimand
        As in `effect_moments`.

    Returns
    -------
    Solution
        ``value`` is a pair (`EffectLaw`, `PotentialMeans`).
    """
    if quadrature not in METHODS:
        raise ValueError(f"quadrature is {quadrature!r}: use one of {', '.join(METHODS)}")
    values, means, rank_status = _recursion(moments, k, 2 * k - 1, arm, estimand)
    law = METHODS[quadrature](values)
    _, scale = outcome_scale(moments)
    shares, effects = law.shares, law.effects * scale
    status = jnp.where(rank_status > 0, rank_status, law.status)
    status = worst(status, range_status(shares, effects, moments.range_y))
    law = dataclasses.replace(law, effects=effects, status=settle(status, (shares, effects)))
    potential = PotentialMeans(means, means[arm] - means[0])
    return Solution((law, potential), settle(law.status, potential), law.stats)


@compiled("k", "quadrature", "arm", "estimand")
def effect_law(
    moments: Moments,
    k: int,
    quadrature: str = "gauss",
    *,
    arm: int = 1,
    estimand: str = "ATE",
) -> EffectLaw:
    """Estimate the distribution of class effects from synthetic moments (level 3).

    Assumes latent ignorability and overlap; X independent of (Z, T, Y) given U; Z independent
    of Y given (T, U); ``M_zx,t`` of rank k in every arm. Classes that share one effect are
    merged. See `solve` for the parameters.

    References
    ----------
    Mazaheri, Squires, Uhler (2025), AISTATS; Golub, Welsch (1969), Math. Comp. 23.

    Examples
    --------
    >>> import jax, jaxmix as jm
    >>> law = effect_law(jm.populations.paper_main(zt_strength=0.5).moments(), 2)
    >>> [round(float(v), 4) for v in (*law.effects, *law.shares)]
    [-0.75, 0.75, 0.5, 0.5]
    """
    law, _ = solve(moments, k, quadrature=quadrature, arm=arm, estimand=estimand).value
    return law
