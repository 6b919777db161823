"""The likelihood of a mixture: score, steps of EM, and damped steps of second order.

It is written once, for every `Structure` whose parts are given axes of the gate, and for data as a
table of all cells (`jaxmix.model.table`) or as distinct rows (`jaxmix.model.rows`).

Steps are taken in the probabilities themselves: a probability that the data drive to 0 gets there
in one step and stays exactly there, while its gradient points outwards.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxmix.model.structure import Factors, Index, Structure, own_places
from jaxmix.solvers.linalg import inverse

METRIC_FLOOR = 1e-2
"""A probability below this (share of the even one, in the gate) damps no more."""


class System(NamedTuple):
    """Minus the second derivatives of ``sum N log p - n sum p``, or what stands in for them.

    Attributes
    ----------
    gate
        ``(c, b, b)``: blocks of the gate's probabilities, which are eliminated first.
    cross
        ``(c, b, q)``: between the gate and the parts.
    parts
        ``(q, q)``.
    """

    gate: Float[Array, "c b b"]
    cross: Float[Array, "c b q"]
    parts: Float[Array, "q q"]


class Observed(Protocol):
    """Data under a structure: what the likelihood needs to know of them."""

    @property
    def structure(self) -> Structure:
        """Who depends on whom."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the structure's axes."""

    @property
    def counts(self) -> Array:
        """How often each cell, or row, occurs."""

    def deviance(self, factors: Factors) -> Float[Array, ""]:
        """Return ``sum N log(N / (n p))``: half of G^2, in units of log-likelihood."""

    def log_likelihood(self, factors: Factors) -> Float[Array, ""]:
        """Return ``sum N log p`` over what occurs."""

    def slopes(self, factors: Factors) -> Factors:
        """Return ``sum N d log p``."""

    def squares(self, factors: Factors) -> Factors:
        """Return ``sum N (d log p)^2``."""

    def system(self, factors: Factors, exact: Bool[Array, ""]) -> System:
        """Return the information of factors that are probabilities, expected or exact."""


Data = TypeVar("Data", bound=Observed)


class Pull(NamedTuple):
    """A penalty ``residual^2 / 2`` on the factors, linearised.

    Attributes
    ----------
    residual
        Its size here.
    slope
        Its derivative, zero along changes of scale between the gate and the parts.
    """

    residual: Float[Array, ""]
    slope: Factors


def flat_parts(parts: tuple[Array, ...]) -> Float[Array, "D k"]:
    """Return the probabilities of all parts in the order of `Index`."""
    return jnp.concatenate([part.reshape(-1, part.shape[-1]) for part in parts])


def unflat_parts(flat: Float[Array, "D k"], like: tuple[Array, ...]) -> tuple[Array, ...]:
    """Return parts in their shapes."""
    ends, found = 0, []
    for part in like:
        size = part.size // part.shape[-1]
        found.append(flat[ends : ends + size].reshape(part.shape))
        ends += size
    return tuple(found)


def total_slopes(factors: Factors, index: Index) -> Factors:
    """Return the derivatives of ``sum p`` over all cells, whatever the scales of the factors."""
    gate = factors.gate.reshape(-1, factors.gate.shape[-1])
    theta = flat_parts(factors.parts)
    sums = jnp.matmul(jnp.asarray(index.together, theta.dtype), theta, precision="highest")
    laws = sums[index.law]  # (c, j, u)
    others = exclusive_products(laws, 1)
    whole = laws.prod(1).reshape(factors.gate.shape)
    weighted = gate[:, None, :] * others  # (c, j, u)
    looks_at = jnp.asarray(index.looks_at, theta.dtype)
    own = jnp.einsum("dc,cdu->du", looks_at, weighted[:, index.part], precision="highest")
    return Factors(whole, unflat_parts(own, factors.parts))


def exclusive_products(values: Array, axis: int) -> Array:
    """Return for each entry the product of the others along an axis; zeros are no trouble."""
    values = jnp.moveaxis(values, axis, 0)
    ones = jnp.ones_like(values[:1])
    before = jnp.cumprod(jnp.concatenate([ones, values[:-1]]), axis=0)
    after = jnp.cumprod(jnp.concatenate([ones, values[:0:-1]]), axis=0)[::-1]
    return jnp.moveaxis(before * after, 0, axis)


def score(data: Observed, factors: Factors) -> Factors:
    """Return the derivatives of ``sum N log p - n sum p``, the Poisson form of the likelihood.

    At probabilities it has the maxima of the multinomial form, without multipliers: those of the
    gate are settled by the total, those of the parts because their scale can move into the gate.
    """
    total = total_slopes(factors, data.structure.index(data.shape))
    n = data.counts.sum()
    found: Factors = jax.tree.map(lambda own, all_: own - n * all_, data.slopes(factors), total)
    return found


def em_step(data: Observed, factors: Factors) -> Factors:
    """Take a step of expectation-maximization (Dempster, Laird, Rubin 1977)."""
    expected = jax.tree.map(lambda f, s: f * s, factors, data.slopes(factors))
    return Factors(
        expected.gate / expected.gate.sum(),
        data.structure.normalise(expected).parts,
    )


def at_bound(factors: Factors, gradient: Factors) -> Factors:
    """Return which probabilities are 0 and would have to be negative to fit better."""
    found: Factors = jax.tree.map(lambda f, g: (f <= 0) & (g <= 0), factors, gradient)
    return found


def to_bound(data: Observed, factors: Factors) -> Factors:
    """Set probabilities to 0 that are on their way there: with them the others' system is regular.

    Such a probability fits better the smaller it is, and by its own curvature its optimum lies
    below 0: ``score < 0`` and ``p curvature < |score|``. At an optimum none is left that is large
    enough to matter, so that the likelihood does not change beyond its tolerance.
    """

    def cut(f: Array, g: Array, h: Array) -> Array:
        return jnp.where((g < 0) & (f * h < -g), 0.0, f)

    found = jax.tree.map(cut, factors, score(data, factors), data.squares(factors))
    # Of a class that is empty where a part looks at it the score says nothing.
    parts = []
    for part, own, before in zip(data.structure.parts, found.parts, factors.parts, strict=True):
        places = own_places(part)
        mass = data.structure.mass(Factors(found.gate, factors.parts), part.given)
        mass = jnp.expand_dims(mass, places)
        parts.append(jnp.where((mass > 0) & (own.sum(places, keepdims=True) > 0), own, before))
    return data.structure.normalise(Factors(found.gate, tuple(parts)))


def retract(structure: Structure, factors: Factors, direction: Factors) -> Factors:
    """Move, cut off at 0, and scale back to probabilities."""
    moved = jax.tree.map(lambda f, d: jnp.maximum(f + d, 0.0), factors, direction)
    return structure.normalise(moved)


def newton_step(
    data: Observed,
    factors: Factors,
    damping: Float[Array, ""],
    exact: Bool[Array, ""],
    pull: Pull | None = None,
) -> tuple[Factors, Float[Array, ""], Float[Array, ""]]:
    """Solve ``(H + damping M + gauge) direction = score`` for the probabilities not at a bound.

    With a pull the score has ``-residual slope`` and H has ``slope slope'`` added.

    H is the information of the data, expected or exact; M the complete-data information of EM, so
    that much damping gives short EM steps; the gauge term fixes the sums of the parts. Blocks of
    the gate are eliminated first.

    Returns
    -------
    direction
        Step of the factors.
    gain
        Predicted gain in log-likelihood, ``score' direction / 2``.
    pivot
        Smallest pivot of the scaled system, near 0 where the likelihood is flat.
    """
    index, k = data.structure.index(data.shape), factors.gate.shape[-1]
    n, dtype = data.counts.sum(), factors.gate.dtype
    system = data.system(factors, exact)
    (num_blocks, width), num_parts = system.gate.shape[:2], system.parts.shape[0]
    gate, theta = factors.gate.reshape(-1, k), flat_parts(factors.parts)
    looks_at = jnp.asarray(index.looks_at, dtype)
    mass = n * jnp.matmul(looks_at, gate, precision="highest")  # expected rows of each law
    slopes = data.slopes(factors)
    gradient = Factors(  # less n times the derivative of the total, at probabilities
        slopes.gate - n, unflat_parts(flat_parts(slopes.parts) - mass, factors.parts)
    )
    if pull is not None:
        gradient = jax.tree.map(lambda g, s: g - pull.residual * s, gradient, pull.slope)
    bound = at_bound(factors, gradient)
    free_gate, free = _split(jax.tree.map(jnp.logical_not, bound), system)
    score_gate, score_parts = _split(gradient, system)
    score_gate = jnp.where(free_gate, score_gate, 0.0)
    score_parts = jnp.where(free, score_parts, 0.0)
    # The metric of EM; where it would be infinite a floor lets small probabilities grow. The
    # last term keeps the system regular for a class whose share is zero.
    least = jnp.finfo(dtype).eps * n
    metric_gate = (n / jnp.maximum(gate, METRIC_FLOOR / gate.size)).reshape(num_blocks, width)
    metric = (mass / jnp.maximum(theta, METRIC_FLOOR) + least).reshape(-1)
    gauge = jnp.einsum(
        "de,du,uv->duev", jnp.asarray(index.together, dtype), mass, jnp.eye(k, dtype=dtype)
    )

    h_gate = system.gate * (free_gate[:, :, None] & free_gate[:, None, :])
    h_gate += (
        jnp.eye(width, dtype=dtype)
        * jnp.where(free_gate, damping * metric_gate, metric_gate)[..., None]
    )
    cross = system.cross * (free_gate[..., None] & free)
    rest = system.parts + gauge.reshape(num_parts, num_parts)
    rest = rest * (free[:, None] & free)
    rest += jnp.diag(jnp.where(free, damping * metric + least, metric))

    inverse_gate = jax.vmap(inverse)(h_gate)
    eliminated = jnp.einsum("cuv,cvq->cuq", inverse_gate, cross)
    schur = rest - jnp.einsum("cuq,cur->qr", cross, eliminated)
    scale = jnp.sqrt(metric)
    lower = jnp.linalg.cholesky(schur / (scale[:, None] * scale))

    def solve(by_gate: Array, by_parts: Array) -> tuple[Array, Array]:
        rhs = by_parts - jnp.einsum("cuq,cu->q", eliminated, by_gate)
        of_parts = jax.scipy.linalg.cho_solve((lower, True), rhs / scale) / scale
        of_gate = jnp.einsum("cuv,cv->cu", inverse_gate, by_gate)
        return of_gate - jnp.einsum("cuq,q->cu", eliminated, of_parts), of_parts

    step_gate, step_parts = solve(score_gate, score_parts)
    if pull is not None:
        # Its curvature has rank one (Sherman, Morrison 1950).
        slope_gate, slope_parts = _split(pull.slope, system)
        slope_gate = jnp.where(free_gate, slope_gate, 0.0)
        slope_parts = jnp.where(free, slope_parts, 0.0)
        along_gate, along_parts = solve(slope_gate, slope_parts)
        along = jnp.sum(slope_gate * step_gate) + slope_parts @ step_parts
        along /= 1 + jnp.sum(slope_gate * along_gate) + slope_parts @ along_parts
        step_gate, step_parts = step_gate - along * along_gate, step_parts - along * along_parts
    gain = (jnp.sum(score_gate * step_gate) + score_parts @ step_parts) / 2
    direction = Factors(
        step_gate.reshape(factors.gate.shape),
        unflat_parts(step_parts.reshape(-1, k), factors.parts),
    )
    pivot = jnp.where(free, jnp.diag(lower) ** 2, 1.0).min()
    return direction, gain, jnp.where(jnp.isfinite(pivot), pivot, 0.0)


def _split(factors: Factors, system: System) -> tuple[Array, Array]:
    """Return the gate by blocks of the system, and the parts as one vector."""
    return (
        factors.gate.reshape(system.gate.shape[:2]),
        flat_parts(factors.parts).reshape(-1),
    )
