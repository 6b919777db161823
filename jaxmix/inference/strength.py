"""Mixtures in which X, or Z, may move the outcome within a class: model, and extremes over them.

With an edge from X to Y the cells of ``(T, Z, X, Y)`` have the probabilities

    p[t, z, x, y] = sum_u W[t, z, u] B[x, u] C[t, x, y, u]

with ``W = P(T=t, Z=z, U=u)``, ``B = P(X=x | U=u)`` and ``C = P(Y=y | T=t, X=x, U=u)``; with an
edge from Z to Y, ``C[t, z, y, u]`` in its place. The strength of the edge is the largest range of
``E[Y | edge=e, T=t, U=u]`` over e, among all t and u.

Extremes of a functional are sought by an augmented Lagrangian (Conn, Gould, Toint 1991) whose
inner problems are solved by damped Newton steps. Probabilities are squares on spheres: one that
has to be 0 gets there in a few steps, and its slope is then a curvature that Newton sees.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int

from jaxmix.solvers.minimise import damped, minimise
from jaxmix.status import Status

EDGES = ("x_to_y", "z_to_y")

FIT_SLACK = 1e-3
"""Log-likelihood units that a best fit may lose; twice as much is tolerated at the end."""

STRENGTH_SLACK = 1e-5
"""Excess of the strength that is tolerated, as a share of the outcome's range."""

AGREE = 1e-3
"""Share of the outcome's range, or of people, within which extremes count as the same."""

_LEAST = 1e-4  # smallest probability of a start: one that is 0 would stay there
_STAGES = 12
_INNER_STEPS = 60
_TOLERANCE = 1e-7  # predicted gain at which an inner problem is solved
_FIT_PENALTY, _STRENGTH_PENALTY = 10.0, 100.0  # first weights of squared violations
_GROWTH, _MOST = 3.0, 1e5  # their growth from stage to stage, and its end


class Classes(NamedTuple):
    """Coordinates of a mixture: square roots of its probabilities, and the centres of the means.

    Attributes
    ----------
    W, B
        ``(a, d_z, k)`` and ``(d_x, k)``: roots of ``P(T, Z, U)`` and ``P(X | U)``.
    C
        ``(a, d_e, d_y, k)``: roots of ``P(Y | T, edge, U)``, the edge being X or Z.
    centre
        ``(a, k)``: the means of Y given the edge's values lie around it, half the strength away
        at most.
    """

    W: Float[Array, "a d_z k"]
    B: Float[Array, "d_x k"]
    C: Float[Array, "a d_e d_y k"]
    centre: Float[Array, "a k"]


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
        The largest strength, in units of `values`.
    """

    goal: Float[Array, " m"]
    fit_weight: Float[Array, ""]
    limit: Float[Array, ""]
    strength: Float[Array, ""]


class Found(NamedTuple):
    """Where a search ended.

    Attributes
    ----------
    classes
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

    classes: Classes
    functionals: Float[Array, " m"]
    deviance: Float[Array, ""]
    strength: Float[Array, ""]
    feasible: Bool[Array, ""]
    converged: Bool[Array, ""]
    steps: Int[Array, ""]


def probabilities(classes: Classes) -> tuple[Array, Array, Array]:
    """Return W, B and C as probabilities."""
    W, B, C = (part**2 for part in classes[:3])
    return W / W.sum(), B / B.sum(0), C / C.sum(2, keepdims=True)


def model(classes: Classes, edge: str) -> Float[Array, "a d_z d_x d_y"]:
    """Return the probability of every cell."""
    formula = "tzu,xu,txyu->tzxy" if edge == "x_to_y" else "tzu,xu,tzyu->tzxy"
    return jnp.einsum(formula, *probabilities(classes), precision="highest")


def deviance(classes: Classes, cells: Array, edge: str) -> Float[Array, ""]:
    """Return half of G^2, ``sum N log(N / (n p))``, in log-likelihood units."""
    seen = cells > 0
    p = jnp.maximum(model(classes, edge), jnp.finfo(cells.dtype).tiny)
    ratio = jnp.where(seen, cells, 1.0) / jnp.where(seen, cells.sum() * p, 1.0)
    return jnp.sum(jnp.where(seen, cells * jnp.log(ratio), 0.0))


def edge_means(classes: Classes, values: Float[Array, " d_y"]) -> Float[Array, "a d_e k"]:
    """Return ``E[Y | T=t, edge=e, U=u]``."""
    return jnp.einsum("teyu,y->teu", probabilities(classes)[2], values, precision="highest")


def strength_of(classes: Classes, values: Float[Array, " d_y"]) -> Float[Array, ""]:
    """Return the largest range of ``E[Y | T=t, edge=e, U=u]`` over e, among all t and u."""
    return jnp.ptp(edge_means(classes, values), axis=1).max()


def functionals(classes: Classes, values: Float[Array, " d_y"], edge: str) -> Float[Array, " m"]:
    """Return the average effect, the class effects and the shares.

    ``delta_u = sum_e P(edge=e | U=u) (E[Y | T=1, e, u] - E[Y | T=0, e, u])``; arm 1 against the
    control.
    """
    W, B, _ = probabilities(classes)
    shares = W.sum((0, 1))
    contrast = edge_means(classes, values)
    by_value = contrast[1] - contrast[0]
    if edge == "x_to_y":
        effects = jnp.sum(B * by_value, axis=0)
    else:
        effects = jnp.sum(W.sum(0) * by_value, axis=0) / jnp.where(shares > 0, shares, 1.0)
    return jnp.concatenate([jnp.sum(shares * effects)[None], effects, shares])


def coordinates(
    W: Array, B: Array, C: Array, values: Float[Array, " d_y"], least: float = _LEAST
) -> Classes:
    """Return coordinates of probabilities, none of them below `least`."""
    W, B, C = (jnp.sqrt(jnp.maximum(part, least)) for part in (W, B, C))
    classes = _unit(Classes(W, B, C, jnp.zeros((W.shape[0], W.shape[2]), W.dtype)))
    means = edge_means(classes, values)
    return classes._replace(centre=(means.max(1) + means.min(1)) / 2)


def _unit(classes: Classes) -> Classes:
    W, B, C, centre = classes
    return Classes(
        W / jnp.sqrt(jnp.sum(W**2)),
        B / jnp.sqrt(jnp.sum(B**2, axis=0)),
        C / jnp.sqrt(jnp.sum(C**2, axis=2, keepdims=True)),
        centre,
    )


def _gauge(classes: Classes) -> Float[Array, ""]:
    """Return a function with slope 0 and curvature along the scales that do not matter."""
    W, B, C, _ = classes
    return (
        (jnp.sum(W**2) - 1) ** 2
        + jnp.sum((jnp.sum(B**2, axis=0) - 1) ** 2)
        + jnp.sum((jnp.sum(C**2, axis=2) - 1) ** 2)
    )


@jax.jit
def relabel(
    classes: Classes, values: Float[Array, "n m"], reference: Classes
) -> tuple[Classes, Float[Array, "n m"]]:
    """Number the classes of mixtures like those of a reference that they resemble most.

    Least sum of squared distances between the roots of ``P(T, Z, U=u)`` and of ``P(X, U=u)``
    (Hellinger).

    Parameters
    ----------
    classes, values
        ``n`` mixtures and their `functionals`.
    reference
        One mixture.
    """

    def roots(one: Classes) -> Array:
        own = _unit(one)
        by_x = jnp.abs(own.B) * jnp.sqrt(jnp.sum(own.W**2, axis=(0, 1)))
        return jnp.concatenate([jnp.abs(own.W).reshape(-1, own.W.shape[-1]), by_x])

    def matched(one: Classes, own: Array) -> tuple[Classes, Array]:
        gaps = roots(reference)[:, :, None] - roots(one)[:, None, :]
        rows, columns = optax.assignment.hungarian_algorithm(jnp.sum(gaps**2, axis=0))
        order = jnp.zeros_like(columns).at[rows].set(columns)
        effects, shares = jnp.split(own[1:], 2)
        moved = jnp.concatenate([own[:1], effects[order], shares[order]])
        return jax.tree.map(lambda part: part[..., order], one), moved

    return jax.vmap(matched)(classes, values)


@functools.partial(jax.jit, static_argnames="edge")
def search(
    starts: Classes,
    searches: Search,
    cells: Float[Array, "a d_z d_x d_y"],
    values: Float[Array, " d_y"],
    edge: str,
) -> Found:
    """Run many searches side by side.

    Parameters
    ----------
    starts, searches
        Each with a leading axis of searches.
    cells
        Counts, with at least two arms.
    values
        The outcome's values, scaled to the range 0 to 1.
    edge
        ``"x_to_y"`` or ``"z_to_y"``.
    """
    return jax.vmap(lambda start, one: _search(start, one, cells, values, edge))(starts, searches)


class _Stage(NamedTuple):
    vector: Array
    of_fit: Array
    of_strength: Array
    growth: Array
    value: Array
    stage: Array
    steps: Array
    done: Array


def _search(start: Classes, search: Search, cells: Array, values: Array, edge: str) -> Found:
    first, unravel = ravel_pytree(start)
    half = search.strength / 2
    eps = jnp.finfo(cells.dtype).eps

    def constraints(vector: Array) -> tuple[Array, Array]:
        classes = unravel(vector)
        excess = deviance(classes, cells, edge) - search.limit
        away = edge_means(classes, values) - classes.centre[:, None, :]
        return excess, away

    def objective(vector: Array) -> Array:
        classes = unravel(vector)
        value = search.goal @ functionals(classes, values, edge)
        return value + search.fit_weight * deviance(classes, cells, edge)

    def solve(carry: _Stage) -> _Stage:
        by_fit, by_strength = _FIT_PENALTY * carry.growth, _STRENGTH_PENALTY * carry.growth

        def shifted(vector: Array) -> tuple[Array, Array]:
            excess, away = constraints(vector)
            away = away + carry.of_strength / by_strength
            return (
                jnp.maximum(carry.of_fit / by_fit + excess, 0.0),
                away - jnp.clip(away, -half, half),
            )

        def loss(vector: Array) -> Array:
            excess, beyond = shifted(vector)
            return objective(vector) + by_fit / 2 * excess**2 + by_strength / 2 * jnp.sum(beyond**2)

        def step(vector: Array, damping: Array, exact: Array) -> tuple[Array, Array]:
            del exact  # always
            gradient = jax.grad(loss)(vector)
            hessian = jax.hessian(lambda v: loss(v) + _gauge(unravel(v)))(vector)
            lower = jnp.linalg.cholesky(hessian + damping * jnp.eye(len(vector)))
            direction = -jax.scipy.linalg.cho_solve((lower, True), gradient)
            return direction, -gradient @ direction / 2

        def retract(vector: Array, direction: Array) -> Array:
            return ravel_pytree(_unit(unravel(vector + direction)))[0]

        noise = 2 * eps * cells.sum()
        found = minimise(
            loss, carry.vector, damped(step, retract, noise=noise),
            tolerance=_TOLERANCE, max_steps=_INNER_STEPS,
        )  # fmt: skip
        excess, beyond = shifted(found.params)
        of_fit, of_strength = by_fit * excess, by_strength * beyond
        value = objective(found.params)
        feasible = _feasible(found.params)
        rest = jnp.abs(value - carry.value) <= 0.1 * AGREE * jnp.maximum(1.0, jnp.abs(value))
        done = feasible & rest & (found.status == Status.SUCCESS)
        growth = jnp.minimum(_GROWTH * carry.growth, _MOST)
        return _Stage(
            found.params, of_fit, of_strength, growth, value, carry.stage + 1,
            carry.steps + found.steps, done,
        )  # fmt: skip

    def _feasible(vector: Array) -> Array:
        excess, _ = constraints(vector)
        strength = strength_of(unravel(vector), values)
        return (excess <= FIT_SLACK) & (strength <= search.strength + STRENGTH_SLACK)

    dtype = cells.dtype
    carry = _Stage(
        first, jnp.zeros((), dtype), jnp.zeros_like(edge_means(start, values)),
        jnp.ones((), dtype), jnp.asarray(jnp.inf, dtype), jnp.int32(0), jnp.int32(0),
        jnp.asarray(False),
    )  # fmt: skip
    end = jax.lax.while_loop(lambda c: ~c.done & (c.stage < _STAGES), solve, carry)
    classes = unravel(end.vector)
    return Found(
        classes,
        functionals(classes, values, edge),
        deviance(classes, cells, edge),
        strength_of(classes, values),
        _feasible(end.vector),
        end.done,
        end.steps,
    )
