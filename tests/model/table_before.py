"""The likelihood of a table of cells under coupled classes: value, EM, and curvature by blocks.

A table holds the counts of ``(T, Z, X, Y)``. The model is

    p[t, z, x, y] = sum_u W[t, z, u] B[x, u] C[t, y, u]

with ``W = P(T=t, Z=z, U=u)``, ``B = P(X=x | U=u)`` and ``C = P(Y=y | T=t, U=u)``. With one arm
and the outcome view ``S = (T, Y)`` it is the model of level 2.

Steps are taken in the probabilities themselves: a probability that the data drive to 0 gets
there in one step and stays exactly there, while its gradient points outwards.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxmix.solvers.linalg import inverse

_METRIC_FLOOR = 1e-2  # a probability below this (share of the even one, for W) damps no further


class Factors(NamedTuple):
    """The probabilities that make up the classes.

    Attributes
    ----------
    W
        ``(a, d_z, k)``: ``P(T=t, Z=z, U=u)``; sums to 1.
    B
        ``(d_x, k)``: ``P(X=x | U=u)``; columns sum to 1.
    C
        ``(a, d_y, k)``: ``P(Y=y | T=t, U=u)``; sums to 1 over y.
    """

    W: Float[Array, "a d_z k"]
    B: Float[Array, "d_x k"]
    C: Float[Array, "a d_y k"]


Cells = Float[Array, "a d_z d_x d_y"]


def model(factors: Factors) -> Cells:
    """Return the probability of every cell."""
    return jnp.einsum("tzu,xu,tyu->tzxy", *factors, precision="highest")


def deviance(cells: Cells, factors: Factors) -> Float[Array, ""]:
    """Return half of G^2, ``sum N log(N / (n p))``: the loss, in units of log-likelihood."""
    expected = cells.sum() * model(factors)
    seen = cells > 0
    ratio = jnp.where(seen, cells, 1.0) / jnp.where(seen, expected, 1.0)
    return jnp.sum(jnp.where(seen, cells * jnp.log(ratio), 0.0))


def log_likelihood(cells: Cells, factors: Factors) -> Float[Array, ""]:
    """Return ``sum N log p`` over the cells that occur."""
    seen = cells > 0
    p = jnp.where(seen, model(factors), 1.0)
    return jnp.sum(jnp.where(seen, cells * jnp.log(p), 0.0))


def normalise(factors: Factors) -> Factors:
    """Scale factors so that they are probabilities, moving their scale from B and C into W."""
    W, B, C = factors
    of_b, of_c = B.sum(0), C.sum(1)
    W = W * of_b * of_c[:, None, :]
    # A class that is empty in an arm keeps even probabilities there.
    return Factors(W / W.sum(), _even(B, of_b, 0), _even(C, of_c[:, None, :], 1))


def _even(values: Array, total: Array, axis: int) -> Array:
    safe = jnp.where(total > 0, total, 1.0)
    return jnp.where(total > 0, values / safe, 1.0 / values.shape[axis])


def em_step(cells: Cells, factors: Factors) -> Factors:
    """Take a step of expectation-maximization (Dempster, Laird, Rubin 1977)."""
    W, B, C = factors
    p = model(factors)
    ratio = jnp.where(cells > 0, cells / jnp.where(cells > 0, p, 1.0), 0.0)
    by_w = jnp.einsum("tzxy,xu,tyu->tzu", ratio, B, C)
    by_b = jnp.einsum("tzxy,tzu,tyu->xu", ratio, W, C)
    by_c = jnp.einsum("tzxy,tzu,xu->tyu", ratio, W, B)
    W, B, C = W * by_w, B * by_b, C * by_c
    return Factors(W / W.sum(), _even(B, B.sum(0), 0), _even(C, C.sum(1, keepdims=True), 1))


def score(cells: Cells, factors: Factors) -> Factors:
    """Return the derivatives of ``sum N log p - n sum p``, the Poisson form of the likelihood.

    At probabilities it has the maxima of the multinomial form, without multipliers: those of W
    are settled by the total, those of B and C because scales can move into W.
    """
    W, B, C = factors
    seen = cells > 0
    excess = jnp.where(seen, cells / jnp.where(seen, model(factors), 1.0), 0.0) - cells.sum()
    return Factors(
        jnp.einsum("tzxy,xu,tyu->tzu", excess, B, C),
        jnp.einsum("tzxy,tzu,tyu->xu", excess, W, C),
        jnp.einsum("tzxy,tzu,xu->tyu", excess, W, B),
    )


def at_bound(factors: Factors, gradient: Factors) -> Factors:
    """Return which probabilities are 0 and would have to be negative to fit better."""
    return Factors(*((f <= 0) & (g <= 0) for f, g in zip(factors, gradient, strict=True)))


def to_bound(cells: Cells, factors: Factors) -> Factors:
    """Set probabilities to 0 that are on their way there: with them the others' system is regular.

    Such a probability fits better the smaller it is, and by its own curvature its optimum lies
    below 0: ``score < 0`` and ``p curvature < |score|``. At an optimum none is left that is large
    enough to matter, so that the likelihood does not change beyond its tolerance.
    """
    p = model(factors)
    weight = jnp.where(cells > 0, cells / jnp.where(cells > 0, p, 1.0) ** 2, 0.0)
    W2, B2, C2 = (f**2 for f in factors)  # the squares of dp / dW, dp / dB, dp / dC are products
    curvature = Factors(
        jnp.einsum("tzxy,xu,tyu->tzu", weight, B2, C2),
        jnp.einsum("tzxy,tzu,tyu->xu", weight, W2, C2),
        jnp.einsum("tzxy,tzu,xu->tyu", weight, W2, B2),
    )
    W, B, C = (
        jnp.where((g < 0) & (f * h < -g), 0.0, f)
        for f, g, h in zip(factors, score(cells, factors), curvature, strict=True)
    )
    # Of a class that is empty, in an arm or everywhere, the score says nothing.
    by_arm = W.sum(1)[:, None, :]
    B = jnp.where((by_arm.sum((0, 1)) > 0) & (B.sum(0) > 0), B, factors.B)
    C = jnp.where((by_arm > 0) & (C.sum(1, keepdims=True) > 0), C, factors.C)
    return normalise(Factors(W, B, C))


class Pull(NamedTuple):
    """A penalty ``residual^2 / 2`` on the factors, linearised.

    Attributes
    ----------
    residual
        Its size here.
    slope
        Its derivative, zero along changes of scale between W, B and C.
    """

    residual: Float[Array, ""]
    slope: Factors


def newton_step(
    cells: Cells,
    factors: Factors,
    damping: Float[Array, ""],
    exact: Bool[Array, ""],
    pull: Pull | None = None,
) -> tuple[Factors, Float[Array, ""], Float[Array, ""]]:
    """Solve ``(H + damping M + gauge) direction = score`` for the probabilities not at a bound.

    With a pull the score has ``-residual slope`` and H has ``slope slope'`` added.

    H is Fisher's information ``J' diag(n / p) J``, or the exact Hessian; M the complete-data
    information of EM, so that much damping gives short EM steps; the gauge term fixes the sums
    of B and C. H is block-diagonal in W: that block is eliminated first.

    Returns
    -------
    direction
        Step of the factors.
    gain
        Predicted gain in log-likelihood, ``score' direction / 2``.
    pivot
        Smallest pivot of the scaled system, near 0 where the likelihood is flat.
    """
    W, B, C = factors
    (a, d_z, k), d_x, d_y = W.shape, B.shape[0], C.shape[1]
    n = cells.sum()
    p = model(factors)
    seen, tiny = cells > 0, jnp.finfo(p.dtype).tiny
    ratio = jnp.where(seen, cells / jnp.maximum(p, tiny), 0.0)
    weight = jnp.where(exact, ratio, n) / jnp.maximum(p, tiny)
    weight = jnp.where(p > 0, weight, 0.0)
    excess = ratio - n
    bc = B[None, :, None, :] * C[:, None, :, :]  # (t, x, y, u): dp / dW
    wc = W[:, :, None, :] * C[:, None, :, :]  # (t, z, y, u): dp / dB
    wb = W[:, :, None, :] * B[None, None, :, :]  # (t, z, x, u): dp / dC
    gradient = Factors(
        jnp.einsum("tzxy,txyu->tzu", excess, bc),
        jnp.einsum("tzxy,tzyu->xu", excess, wc),
        jnp.einsum("tzxy,tzxu->tyu", excess, wb),
    )
    if pull is not None:
        gradient = Factors(
            *(g - pull.residual * s for g, s in zip(gradient, pull.slope, strict=True))
        )
    free = Factors(*(~bound for bound in at_bound(factors, gradient)))
    shares, by_arm = W.sum((0, 1)), W.sum(1)
    # The metric of EM; where it would be infinite a floor lets small probabilities grow. The
    # last term keeps the system regular for a class whose share is zero.
    least = jnp.finfo(p.dtype).eps * n
    metric_w = n / jnp.maximum(W, _METRIC_FLOOR / (a * d_z * k))
    metric_b = n * shares / jnp.maximum(B, _METRIC_FLOOR) + least
    metric_c = n * by_arm[:, None, :] / jnp.maximum(C, _METRIC_FLOOR) + least

    eye = jnp.eye(k, dtype=p.dtype)
    second = jnp.where(exact, excess, 0.0)  # -d2p of the Hessian: W, B, C enter p linearly
    h_ww = jnp.einsum("tzxy,txyu,txyv->tzuv", weight, bc, bc)
    h_wb = jnp.einsum("tzxy,txyu,tzyv->tzuxv", weight, bc, wc)
    h_wb -= jnp.einsum("tzxy,tyu,uv->tzuxv", second, C, eye)
    h_wc = jnp.einsum("tzxy,txyu,tzxv->tzuyv", weight, bc, wb)
    h_wc -= jnp.einsum("tzxy,xu,uv->tzuyv", second, B, eye)
    h_bb = jnp.einsum("tzxy,tzyu,tzyv->xuv", weight, wc, wc)
    h_cc = jnp.einsum("tzxy,tzxu,tzxv->tyuv", weight, wb, wb)
    h_bc = jnp.einsum("tzxy,tzyu,tzxv->xutyv", weight, wc, wb)
    h_bc -= jnp.einsum("tzxy,tzu,uv->xutyv", second, W, eye)

    num_b, num_c = d_x * k, a * d_y * k
    all_x, all_y = jnp.ones((d_x, d_x), p.dtype), jnp.ones((d_y, d_y), p.dtype)
    eye_x, eye_y, eye_t = (jnp.eye(d, dtype=p.dtype) for d in (d_x, d_y, a))
    h_bb = jnp.einsum("xuv,xX->xuXv", h_bb, eye_x)
    h_bb += jnp.einsum("u,uv,xX->xuXv", n * shares, eye, all_x)
    h_cc = jnp.einsum("tyuv,yY,ts->tyusYv", h_cc, eye_y, eye_t)
    h_cc += jnp.einsum("tu,uv,yY,ts->tyusYv", n * by_arm, eye, all_y, eye_t)
    h_bc = h_bc.reshape(num_b, num_c)
    rest = jnp.block([
        [h_bb.reshape(num_b, num_b), h_bc], [h_bc.T, h_cc.reshape(num_c, num_c)],
    ])  # fmt: skip
    cross = jnp.concatenate([
        h_wb.reshape(a, d_z, k, num_b),
        jnp.einsum("tzuyv,ts->tzusyv", h_wc, eye_t).reshape(a, d_z, k, num_c),
    ], -1)  # fmt: skip

    def side_by_side(b: Array, c: Array) -> Array:
        return jnp.concatenate([b.reshape(-1), c.reshape(-1)])

    free_rest = side_by_side(free.B, free.C)
    metric_rest = side_by_side(metric_b, metric_c)
    score_w = jnp.where(free.W, gradient.W, 0.0)
    score_rest = jnp.where(free_rest, side_by_side(gradient.B, gradient.C), 0.0)
    h_ww = h_ww * (free.W[..., :, None] & free.W[..., None, :])
    h_ww += eye * jnp.where(free.W, damping * metric_w, metric_w)[..., None]
    cross = cross * (free.W[..., None] & free_rest)
    rest = rest * (free_rest[:, None] & free_rest)
    rest += jnp.diag(jnp.where(free_rest, damping * metric_rest + least, metric_rest))

    inverse_w = _inverses(h_ww)
    eliminated = jnp.einsum("tzuv,tzvq->tzuq", inverse_w, cross)
    schur = rest - jnp.einsum("tzuq,tzur->qr", cross, eliminated)
    scale = jnp.sqrt(metric_rest)
    lower = jnp.linalg.cholesky(schur / (scale[:, None] * scale))

    def solve(by_w: Array, by_rest: Array) -> tuple[Array, Array]:
        rhs = by_rest - jnp.einsum("tzuq,tzu->q", eliminated, by_w)
        of_rest = jax.scipy.linalg.cho_solve((lower, True), rhs / scale) / scale
        of_w = jnp.einsum("tzuv,tzv->tzu", inverse_w, by_w)
        return of_w - jnp.einsum("tzuq,q->tzu", eliminated, of_rest), of_rest

    step_w, step_rest = solve(score_w, score_rest)
    if pull is not None:
        # Its curvature has rank one (Sherman, Morrison 1950).
        slope_w = jnp.where(free.W, pull.slope.W, 0.0)
        slope_rest = jnp.where(free_rest, side_by_side(pull.slope.B, pull.slope.C), 0.0)
        along_w, along_rest = solve(slope_w, slope_rest)
        along = jnp.sum(slope_w * step_w) + slope_rest @ step_rest
        along /= 1 + jnp.sum(slope_w * along_w) + slope_rest @ along_rest
        step_w, step_rest = step_w - along * along_w, step_rest - along * along_rest
    gain = (jnp.sum(score_w * step_w) + score_rest @ step_rest) / 2
    direction = Factors(
        step_w, step_rest[:num_b].reshape(d_x, k), step_rest[num_b:].reshape(a, d_y, k)
    )
    pivot = jnp.where(free_rest, jnp.diag(lower) ** 2, 1.0).min()
    return direction, gain, jnp.where(jnp.isfinite(pivot), pivot, 0.0)


def _inverses(blocks: Float[Array, "a d_z k k"]) -> Float[Array, "a d_z k k"]:
    flat = blocks.reshape(-1, *blocks.shape[2:])
    return jax.vmap(inverse)(flat).reshape(blocks.shape)


def retract(factors: Factors, direction: Factors) -> Factors:
    """Move, cut off at 0, and scale back to probabilities."""
    moved = (jnp.maximum(f + d, 0.0) for f, d in zip(factors, direction, strict=True))
    return normalise(Factors(*moved))
