"""Extremes over mixtures in which X, or Z, may move the outcome within a class.

The structures are those of `jaxmix.model.structure.EDGE`: level 3 with the law of the outcome
``C[t, e, y, u] = P(Y=y | T=t, edge=e, U=u)``, where the edge is X or Z. The strength of the edge
is the largest range of ``E[Y | edge=e, T=t, U=u]`` over e, among all t and u.

Extremes of a functional are sought by an augmented Lagrangian (Conn, Gould, Toint 1991) whose
inner problems are solved by damped Newton steps. For an outcome from 0 to 1 all means whose range
over e is s at most are ``(1 - s) a_tu + s b_teu`` with a and b in [0, 1]. Probabilities are
squares on spheres: one that has to be 0 gets there in a few steps.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int

from jaxmix.model.structure import EDGE, Factors
from jaxmix.model.table import Cells, Table
from jaxmix.solvers.compiling import compiled
from jaxmix.solvers.minimise import damped, minimise
from jaxmix.status import Status

FIT_SLACK = 0.01
"""Log-likelihood units that a best fit may lose; twice as much is tolerated at the end."""

STRENGTH_SLACK = 1e-5
"""Excess of the strength that is tolerated, as a share of the outcome's range."""

AGREE = 1e-3
"""Share of the outcome's range, or of people, within which extremes count as the same."""

_LEAST = 1e-4  # smallest probability of a start: one that is 0 would stay there
_LIFT = 3e-3  # smallest root, or angle, at the beginning of a stage
_STAGES = 16
_INNER_STEPS = 40
_TOLERANCE = 1e-6  # predicted gain at which an inner problem is solved
_MEAN_PENALTY = 100.0
_GROWTH, _MOST = 10.0, 1e4  # growth of the penalties from stage to stage, and its end


class Search(NamedTuple):
    """One search: minimise ``goal . functionals + fit_weight deviance`` within limits.

    Attributes
    ----------
    goal
        ``(1 + 2 k,)`` weights of `functionals`.
    fit_weight
        Weight of the deviance in what is minimised.
    limit
        The largest deviance.
    strength
        The largest strength, as a share of the outcome's range.
    room
        Log-likelihood units beyond the limit that cost about 1 at first. Much room lets a search
        leave the neighbourhood of its start, little keeps it there.
    """

    goal: Float[Array, " m"]
    fit_weight: Float[Array, ""]
    limit: Float[Array, ""]
    strength: Float[Array, ""]
    room: Float[Array, ""]


class Found(NamedTuple):
    """Where a search ended.

    Attributes
    ----------
    parts
        The mixture.
    functionals
        ``(1 + 2 k,)`` average effect, class effects, shares.
    deviance, strength
        Those of the mixture.
    feasible
        Whether both keep their limits, up to the tolerances of this file.
    converged
        Whether the multipliers came to rest.
    steps
        Newton steps taken.
    """

    parts: Factors
    functionals: Float[Array, " m"]
    deviance: Float[Array, ""]
    strength: Float[Array, ""]
    feasible: Bool[Array, ""]
    converged: Bool[Array, ""]
    steps: Int[Array, ""]


class _Coordinates(NamedTuple):
    """Roots of probabilities, and angles whose squared sines lie between 0 and 1.

    With two values of the outcome its law is its mean, and there is no C.
    """

    W: Float[Array, "a d_z k"]
    B: Float[Array, "d_x k"]
    C: Float[Array, "a d_e d_y k"] | None
    common: Float[Array, "a k"]
    own: Float[Array, "a d_e k"]


def deviance(parts: Factors, cells: Cells, edge: str) -> Float[Array, ""]:
    """Return half of G^2, in log-likelihood units."""
    return Table(cells, EDGE[edge]).deviance(parts)


def edge_means(parts: Factors, values: Float[Array, " d_y"]) -> Float[Array, "a d_e k"]:
    """Return ``E[Y | T=t, edge=e, U=u]``."""
    return jnp.einsum("teyu,y->teu", parts.parts[1], values, precision="highest")


def strength_of(parts: Factors, values: Float[Array, " d_y"]) -> Float[Array, ""]:
    """Return the largest range of ``E[Y | T=t, edge=e, U=u]`` over e, among all t and u."""
    return jnp.ptp(edge_means(parts, values), axis=1).max()


def functionals(parts: Factors, values: Float[Array, " d_y"], edge: str) -> Float[Array, " m"]:
    """Return the average effect, the class effects and the shares.

    ``delta_u = sum_e P(edge=e | U=u) (E[Y | T=1, e, u] - E[Y | T=0, e, u])``; arm 1 against the
    control.
    """
    gate, (of_x, _) = parts
    shares = gate.sum((0, 1))
    means = edge_means(parts, values)
    contrast = means[1] - means[0]
    if edge == "x_to_y":
        effects = jnp.sum(of_x * contrast, axis=0)
    else:
        by_class = jnp.sum(gate.sum(0) * contrast, axis=0)
        effects = by_class / jnp.where(shares > 0, shares, 1.0)
    return jnp.concatenate([jnp.sum(shares * effects)[None], effects, shares])


def normalise(parts: Factors) -> Factors:
    """Scale positive numbers to probabilities, each law by itself."""
    gate, (of_x, of_y) = parts
    return Factors(gate / gate.sum(), (of_x / of_x.sum(0), of_y / of_y.sum(2, keepdims=True)))


@compiled()
def relabel(
    parts: Factors, values: Float[Array, "n m"], reference: Factors
) -> tuple[Factors, Float[Array, "n m"]]:
    """Give the classes of mixtures the numbers of those of a reference that they resemble most.

    Least sum of squared distances between the roots of ``P(T, Z, U=u)`` and of ``P(X, U=u)``
    (Hellinger).

    Parameters
    ----------
    parts, values
        ``n`` mixtures and their `functionals`.
    reference
        One mixture.
    """

    def roots(one: Factors) -> Array:
        by_x = one.parts[0] * one.gate.sum((0, 1))
        return jnp.sqrt(jnp.concatenate([one.gate.reshape(-1, one.gate.shape[-1]), by_x]))

    def matched(one: Factors, own: Array) -> tuple[Factors, Array]:
        gaps = roots(reference)[:, :, None] - roots(one)[:, None, :]
        rows, columns = optax.assignment.hungarian_algorithm(jnp.sum(gaps**2, axis=0))
        order = jnp.zeros_like(columns).at[rows].set(columns)
        effects, shares = jnp.split(own[1:], 2)
        moved = jnp.concatenate([own[:1], effects[order], shares[order]])
        return jax.tree.map(lambda part: part[..., order], one), moved

    return jax.vmap(matched)(parts, values)


@compiled("edge", "width")
def search(
    starts: Factors,
    searches: Search,
    cells: Float[Array, "a d_z d_x d_y"],
    values: Float[Array, " d_y"],
    edge: str,
    width: int,
) -> Found:
    """Run many searches, some side by side.

    Parameters
    ----------
    starts, searches
        Each with a leading axis of searches.
    cells
        Counts, of at least two arms.
    values
        The outcome's values, scaled to the range 0 to 1.
    edge
        ``"x_to_y"`` or ``"z_to_y"``.
    width
        How many run side by side: as long as the slowest of them, so that neighbours should be
        alike.
    """

    def one(lane: tuple[Factors, Search]) -> Found:
        return _search(*lane, cells, values, edge)

    return Found(*jax.lax.map(one, (starts, searches), batch_size=width))


def _coordinates(parts: Factors, values: Array, strength: Array) -> _Coordinates:
    """Return coordinates of a mixture, off the edges; means too far apart are drawn together."""
    W, (B, C) = probable = normalise(jax.tree.map(lambda part: jnp.maximum(part, _LEAST), parts))
    means = edge_means(probable, values)
    low, high = means.min(1), means.max(1)
    bottom = (
        jnp.clip(high - strength, 0.0, 1.0) + jnp.minimum(low, jnp.maximum(1 - strength, 0.0))
    ) / 2
    common = bottom / jnp.where(strength < 1, 1 - strength, 1.0)
    own = (means - bottom[:, None]) / jnp.where(strength > 0, strength, 1.0)
    free = jnp.where(strength < 1, common, 0.5), jnp.where(strength > 0, own, 0.5)
    angles = (jnp.arcsin(jnp.sqrt(jnp.clip(part, _LEAST, 1 - _LEAST))) for part in free)
    law = None if len(values) == 2 else jnp.sqrt(C)
    return _Coordinates(jnp.sqrt(W), jnp.sqrt(B), law, *angles)


def _means(coordinates: _Coordinates, strength: Array) -> Array:
    common, own = jnp.sin(coordinates.common) ** 2, jnp.sin(coordinates.own) ** 2
    return (1 - strength) * common[:, None] + strength * own


def _parts(coordinates: _Coordinates, values: Array, strength: Array) -> Factors:
    W, B, C = coordinates[:3]
    if C is None:
        mean = _means(coordinates, strength)[:, :, None, :]
        up = values[:, None]
        squares = up * mean + (1 - up) * (1 - mean)
    else:
        squares = C**2
    return normalise(Factors(W**2, (B**2, squares)))


def _unit(coordinates: _Coordinates) -> _Coordinates:
    W, B, C, *angles = coordinates
    W, B = W / jnp.linalg.norm(W), B / jnp.linalg.norm(B, axis=0)
    return _Coordinates(
        W, B, None if C is None else C / jnp.linalg.norm(C, axis=2, keepdims=True), *angles
    )


def _off_edges(coordinates: _Coordinates) -> _Coordinates:
    """Lift probabilities that are 0: they have no slope there, and may have to grow again."""
    lifted = jax.tree.map(lambda part: jnp.maximum(jnp.abs(part), _LIFT), coordinates)
    common, own = (
        jnp.clip(jnp.arcsin(jnp.abs(jnp.sin(part))), _LIFT, jnp.pi / 2 - _LIFT)
        for part in coordinates[3:]
    )
    return _unit(lifted._replace(common=common, own=own))


def _gauge(coordinates: _Coordinates) -> Float[Array, ""]:
    """Return a function with slope 0 and curvature along the scales that do not matter."""
    W, B, C = coordinates[:3]
    total = (jnp.sum(W**2) - 1) ** 2 + jnp.sum((jnp.sum(B**2, axis=0) - 1) ** 2)
    return total if C is None else total + jnp.sum((jnp.sum(C**2, axis=2) - 1) ** 2)


class _Stage(NamedTuple):
    vector: Array
    of_fit: Array
    of_means: Array
    by_fit: Array
    by_means: Array
    value: Array
    stage: Array
    steps: Array
    done: Array


def _search(start: Factors, search: Search, cells: Array, values: Array, edge: str) -> Found:
    n, eps = cells.sum(), jnp.finfo(cells.dtype).eps
    strength = jnp.minimum(search.strength, 1.0)
    first, unravel = ravel_pytree(_coordinates(start, values, strength))

    def parts_of(vector: Array) -> Factors:
        return _parts(unravel(vector), values, strength)

    def objective(parts: Factors) -> Array:
        value = search.goal @ functionals(parts, values, edge)
        return value + search.fit_weight * deviance(parts, cells, edge)

    def solve(carry: _Stage) -> _Stage:
        def shifted(vector: Array) -> tuple[Array, Array]:
            parts = parts_of(vector)
            excess = deviance(parts, cells, edge) - search.limit
            excess = jnp.maximum(carry.of_fit / carry.by_fit + excess, 0.0)
            if len(values) == 2:
                return excess, jnp.zeros_like(carry.of_means)
            off = edge_means(parts, values) - _means(unravel(vector), strength)
            return excess, carry.of_means / carry.by_means + off

        def loss(vector: Array) -> Array:
            excess, off = shifted(vector)
            penalty = carry.by_fit * excess**2 + carry.by_means * jnp.sum(off**2)
            return objective(parts_of(vector)) + penalty / 2

        def step(vector: Array, damping: Array, exact: Array) -> tuple[Array, Array]:
            del exact  # always
            gradient = jax.grad(loss)(vector)
            hessian = jax.hessian(lambda v: loss(v) + _gauge(unravel(v)))(vector)
            lower = jnp.linalg.cholesky(hessian + damping * jnp.eye(len(vector)))
            direction = -jax.scipy.linalg.cho_solve((lower, True), gradient)
            return direction, -gradient @ direction / 2

        def retract(vector: Array, direction: Array) -> Array:
            return ravel_pytree(_unit(unravel(vector + direction)))[0]

        lifted = ravel_pytree(_off_edges(unravel(carry.vector)))[0]
        found = minimise(
            loss, lifted, damped(step, retract, noise=2 * eps * n),
            tolerance=_TOLERANCE, max_steps=_INNER_STEPS,
        )  # fmt: skip
        excess, off = shifted(found.params)
        parts = parts_of(found.params)
        value = objective(parts)
        rest = jnp.abs(value - carry.value) <= 0.1 * AGREE * jnp.maximum(1.0, jnp.abs(value))
        return _Stage(
            vector=found.params,
            of_fit=carry.by_fit * excess,
            of_means=carry.by_means * off,
            by_fit=jnp.minimum(_GROWTH * carry.by_fit, _MOST),
            by_means=jnp.minimum(_GROWTH * carry.by_means, _MOST),
            value=value,
            stage=carry.stage + 1,
            steps=carry.steps + found.steps,
            done=feasible(parts) & rest & (found.status == Status.SUCCESS),
        )

    def feasible(parts: Factors) -> Array:
        weak = strength_of(parts, values) <= search.strength + STRENGTH_SLACK
        return weak & (deviance(parts, cells, edge) <= search.limit + FIT_SLACK)

    zero = jnp.zeros((), cells.dtype)
    carry = _Stage(
        vector=first,
        of_fit=zero,
        of_means=jnp.zeros_like(start.parts[1][:, :, 0]),
        by_fit=1 / search.room**2,
        by_means=zero + _MEAN_PENALTY,
        value=zero + jnp.inf,
        stage=jnp.int32(0),
        steps=jnp.int32(0),
        done=jnp.asarray(False),
    )
    end = jax.lax.while_loop(lambda c: ~c.done & (c.stage < _STAGES), solve, carry)
    parts = parts_of(end.vector)
    return Found(
        parts=parts,
        functionals=functionals(parts, values, edge),
        deviance=deviance(parts, cells, edge),
        strength=strength_of(parts, values),
        feasible=feasible(parts),
        converged=end.done,
        steps=end.steps,
    )
