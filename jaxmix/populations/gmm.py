"""Moments of classes with independent views, their covariance, and the bound of both."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from jaxmix.populations.bounds import EfficiencyBound, bound
from jaxmix.solvers.compiling import compiled
from jaxmix.solvers.linalg import cutoff


class Seconds(NamedTuple):
    """Second moments of the features within each class; the first feature is the constant.

    Attributes
    ----------
    z
        ``(a, k, d_z, d_z)``: ``E[1{T=t} phi_z phi_z' | U=u]``.
    x
        ``(k, d_x, d_x)``: ``E[phi_x phi_x' | U=u]``.
    y
        ``(a, k, d_y, d_y)``: ``E[phi_y phi_y' | T=t, U=u]``.
    """

    z: Float[Array, "a k d_z d_z"]
    x: Float[Array, "k d_x d_x"]
    y: Float[Array, "a k d_y d_y"]


class _Parameters(NamedTuple):
    """Square roots of P(T=t, U=u), and the features' means without the constant."""

    mass: Float[Array, "a k"]
    z: Float[Array, "a k d_z-1"]  # given (t, u); one arm at level 2
    x: Float[Array, "k d_x-1"]
    y: Float[Array, "a k d_y-1"]


def tensor_of(shares: Float[Array, " k"], seconds: Seconds) -> Float[Array, "a d_z d_x d_y"]:
    """Return ``M[t] = sum_u pi_u E[1{T=t} phi_z|u] E[phi_x|u] E[phi_y|t,u]``."""
    firsts = (part[..., 0] for part in seconds)
    return jnp.einsum("u,tuz,ux,tuy->tzxy", shares, *firsts, precision="highest")


def covariance_of(shares: Float[Array, " k"], seconds: Seconds) -> Float[Array, "m m"]:
    """Return the covariance of one row's ``1{T=t} phi_z x phi_x x phi_y``, stacked."""
    mean = tensor_of(shares, seconds)
    a, m = mean.shape[0], mean[0].size
    by_arm = jnp.einsum("u,tuij,ukl,tumn->tikmjln", shares, *seconds, precision="highest")
    by_arm = by_arm.reshape(a, m, m)
    whole = jnp.zeros((a, m, a, m), by_arm.dtype)
    whole = whole.at[jnp.arange(a), :, jnp.arange(a)].set(by_arm)  # a row has one arm
    return whole.reshape(a * m, a * m) - jnp.outer(mean, mean)


@compiled("level")
def gmm_bound(
    shares: Float[Array, " k"], seconds: Seconds, scale_y: Array, n: float | Array, level: int
) -> EfficiencyBound:
    """Return ``g (G' S^- G)^- g' / n`` for two views of the outcome, (1, Y in units).

    Eigenvalues of S below ``8 m`` machine epsilons of the largest count as zero.
    """
    a, k = seconds.z.shape[:2]
    in_arm = seconds.z[..., 0, 0]  # P(T=t | u)
    mass = shares * in_arm
    means_z = seconds.z[..., 1:, 0] / jnp.where(in_arm > 0, in_arm, 1.0)[..., None]
    parameters = _Parameters(
        mass=jnp.sqrt(mass),
        z=means_z if level == 3 else jnp.sum(in_arm[..., None] * means_z, axis=0, keepdims=True),
        x=seconds.x[..., 1:, 0],
        y=seconds.y[..., 1:, 0],
    )
    flat, unravel = ravel_pytree(parameters)

    def with_one(means: Array) -> Array:
        return jnp.concatenate([jnp.ones_like(means[..., :1]), means], axis=-1)

    def masses(root: Array) -> Array:
        return root**2 / jnp.sum(root**2)

    def model(flat: Array) -> Array:
        own = unravel(flat)
        z = with_one(jnp.broadcast_to(own.z, (a, *own.z.shape[1:])))
        return jnp.einsum(
            "tu,tuz,ux,tuy->tzxy",
            masses(own.mass), z, with_one(own.x), with_one(own.y),
            precision="highest",
        ).reshape(-1)  # fmt: skip

    def functionals(flat: Array) -> Array:
        own = unravel(flat)
        shares = masses(own.mass).sum(0)
        effects = scale_y * (own.y[1, :, 0] - own.y[0, :, 0])
        return jnp.concatenate([jnp.sum(shares * effects)[None], effects, shares])

    spread = covariance_of(shares, seconds)
    values, vectors = jnp.linalg.eigh(spread)
    kept = values > cutoff(spread) * values[-1]
    root = (vectors * jnp.where(kept, jnp.where(kept, values, 1.0) ** -0.5, 0.0)).T
    slope = jnp.matmul(root, jax.jacfwd(model)(flat), precision="highest")
    order = jnp.argsort(functionals(flat)[1 : k + 1])
    return bound(slope, jax.jacfwd(functionals)(flat), order, n)
