"""Profile-likelihood intervals of the numbers behind a fitted table.

The interval of a number g holds every c at which the likelihood, maximised over all mixtures
with ``g = c``, falls short of the overall maximum by no more than a chi-square allows,

    { c : 2 (max l - max_{g = c} l) <= chi2_1 }.

It knows the bounds of probabilities and does not change with the scale on which g is measured,
so that it covers where estimates pile up at a bound and normal intervals do not.
"""

from __future__ import annotations

import functools
from statistics import NormalDist
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxmix.estimators.base import Start
from jaxmix.inference.numbers import Model, limits_of, numbers_of, variances_of
from jaxmix.model.likelihood import Pull, newton_step, retract
from jaxmix.model.optimum import mixture_of, table_of
from jaxmix.model.structure import Factors
from jaxmix.model.table import Table
from jaxmix.sample.moments import Moments
from jaxmix.solvers.compiling import compiled
from jaxmix.solvers.lanes import batched, by_chunks
from jaxmix.solvers.minimise import damped, minimise

_STIFFNESS = 3.0  # curvature of the pull, in units of the likelihood's own along g
_TOLERANCE = 1e-5  # predicted gain, in log-likelihood units, at which steps stop
_STEPS = 200
_ENOUGH = 0.01  # distance from the wanted root of the likelihood ratio
_ROUNDS = 25
_FAR = 30.0  # ranges beyond which a target pulls in vain
_EXACT_BELOW = 1.0
_BETTER = 0.05  # log-likelihood units by which a point beats the estimate for it to count


class Intervals(NamedTuple):
    """Bounds, each with a trailing axis (lower, upper), classes by increasing effect.

    Attributes
    ----------
    effect
        ``(2,)`` the estimand.
    means
        ``(a, 2)`` potential means.
    shares, effects
        ``(k, 2)``.
    cumulative
        ``(k - 1, 2)``: share of the first 1, 2, ... classes.
    spread
        ``(2,)`` standard deviation of the class effects.
    settled
        Whether every end was found to its tolerance; an end that was not lies further out.
    excess
        Log-likelihood by which some point beat the estimate: above 0, it was not the maximum.
    """

    effect: Float[Array, " 2"]
    means: Float[Array, "a 2"]
    shares: Float[Array, "k 2"]
    effects: Float[Array, "k 2"]
    cumulative: Float[Array, "k-1 2"]
    spread: Float[Array, " 2"]
    settled: Bool[Array, ""]
    excess: Float[Array, ""]


class _Task(NamedTuple):
    """One end of one interval."""

    data: Table
    factors: Factors
    value_y: Array
    order: Int[Array, " k"]
    which: Int[Array, ""]
    sign: Array
    variance: Array
    limits: Float[Array, " 2"]
    root: Array


class _Search(NamedTuple):
    """A bracket of the pull's target: inside the region, and outside once that was met."""

    round: Int[Array, ""]
    factors: Factors
    low: Array
    low_root: Array
    low_value: Array
    high: Array
    high_root: Array
    high_value: Array
    least: Array
    moved: Bool[Array, ""]
    done: Bool[Array, ""]


@compiled("k", "level", "estimand", "confidence")
def intervals(
    moments: Moments,
    k: int,
    start: Start,
    *,
    level: int = 3,
    estimand: str = "ATE",
    confidence: float = 0.95,
    inflation: Float[Array, " m"] | None = None,
) -> Intervals:
    """Return profile-likelihood intervals of everything a fitted table says of effects.

    Each end is found along the path of constrained maxima, which leaves the estimate: a penalty
    ``rho (g - c)^2 / 2`` pulls g towards a target c, its minimiser is the constrained maximum at
    the value of g that it reaches, and the target is moved until the likelihood ratio is that of
    the confidence. Where g reaches its bound before, the bound is the end.

    Assumes a random sample, or the design effects of one with weights or clusters, and what the
    level assumes. The chi-square law is that of a number in the interior; at a bound the interval
    is wider than it needs to be.

    Parameters
    ----------
    moments
        Of a table.
    k
        Number of classes.
    start
        ``sol.stats["start"]`` of `jaxmix.factorization.solve` with loss ``"kl"``.
    level, estimand, confidence
        As in `jaxmix.fit`.
    inflation
        `jaxmix.inference.numbers.design_effects`, by which the chi-square limits are multiplied;
        None for a random sample.

    References
    ----------
    Venzon, Moolgavkar (1988), Applied Statistics 37, on profile-likelihood intervals; Wilks
    (1938), Annals of Mathematical Statistics 9; Self, Liang (1987), JASA 82, on bounds.

    Examples
    --------
    >>> import jax, jaxmix as jm
    >>> counts = jm.populations.paper_main(zt_strength=0.5).counts(jax.random.key(0), 10_000)
    >>> moments = jm.moments.from_counts(counts)
    >>> sol = jm.factorization.solve(moments, 2, key=jax.random.key(1))
    >>> found = intervals(moments, 2, sol.stats["start"])
    >>> [bool(low < e < high) for (low, high), e in zip(found.effects, sol.value.effects())]
    [True, True]
    """
    model = Model(k, level, moments.tensor.shape[0], estimand)
    data = jax.lax.stop_gradient(table_of(moments, level))
    factors = Factors(*start)
    mixture = mixture_of(data.structure, factors, moments.value_y)
    order = jnp.argsort(mixture.effects())
    limits = limits_of(model, moments.range_y)
    root = jnp.asarray(NormalDist().inv_cdf(0.5 + confidence / 2), data.counts.dtype)

    variances = variances_of(data, factors, moments.value_y, order, model)
    roots = jnp.full(len(limits), root)
    if inflation is not None:
        roots = root * jnp.sqrt(inflation)

    def one_end(index: Array, sign: Array) -> tuple[Array, Array, Array]:
        task = _Task(
            data, factors, moments.value_y, order, index, sign, variances[index], limits[index],
            roots[index],
        )  # fmt: skip
        found: tuple[Array, Array, Array] = _compiled(model)(task)
        return found

    both = jnp.array([-1.0, 1.0], data.counts.dtype)
    ends, settled, excess = jax.vmap(
        lambda index: jax.vmap(lambda sign: one_end(index, sign))(both)
    )(jnp.arange(len(limits)))
    a = model.num_arms
    effect, means, shares, effects, inner, variance = jnp.split(
        ends, np.cumsum([1, a, k, k, max(k - 3, 0)])
    )
    # The first class alone, and all but the last, are shares already.
    first, last = shares[:1], 1 - shares[-1:, ::-1]
    cumulative = jnp.concatenate([first, inner, last])[: k - 1] if k > 2 else first[: k - 1]
    spread = jnp.sqrt(jnp.maximum(variance[0], 0.0))
    return Intervals(
        effect[0], means, shares, effects, cumulative, spread, settled.all(), excess.max()
    )


@functools.lru_cache(maxsize=256)
def _compiled(model: Model) -> Any:
    # Ends that need many steps hold up their own chunk alone.
    return batched(
        functools.partial(by_chunks, jax.vmap(functools.partial(_find_end, model=model)))
    )


def _find_end(task: _Task, *, model: Model) -> tuple[Array, Array, Array]:
    """Return one end, whether it was found, and by how much the estimate was beaten."""
    data, start = task.data, task.factors
    n = data.counts.sum()

    def number(factors: Factors) -> Array:
        return numbers_of(factors, task.value_y, task.order, model)[task.which]

    slope_of = jax.grad(number)
    estimate = number(start)
    base = data.deviance(start)
    span = task.limits[1] - task.limits[0]
    resolution = jnp.sqrt(jnp.finfo(span.dtype).eps) * span
    limit = jnp.where(task.sign > 0, task.limits[1], task.limits[0])
    # An estimate at a bound has no variance: a first guess of the scale then.
    variance = jnp.maximum(task.variance, (1e-3 * span) ** 2 / jnp.maximum(n, 1.0))
    stiffness = jnp.sqrt(_STIFFNESS / variance)

    def pulled(factors: Factors, distance: Array) -> tuple[Factors, Array, Array]:
        """Return the constrained maximum under a pull, what it costs, and its number."""
        target = estimate + task.sign * distance

        def residual(factors: Factors) -> Array:
            return stiffness * (number(factors) - target)

        def step(factors: Factors, damping: Array, exact: Array) -> tuple[Factors, Array]:
            slope = jax.tree.map(lambda s: stiffness * s, slope_of(factors))
            pull = Pull(residual(factors), slope)
            return newton_step(data, factors, damping, exact, pull)[:2]

        def loss(factors: Factors) -> Array:
            return data.deviance(factors) - base + residual(factors) ** 2 / 2

        noise = 2 * jnp.finfo(n.dtype).eps * n
        move = functools.partial(retract, data.structure)
        rule = damped(step, move, exact_below=_EXACT_BELOW, noise=noise)
        factors = minimise(loss, factors, rule, tolerance=_TOLERANCE, max_steps=_STEPS).params
        return factors, data.deviance(factors) - base, number(factors)

    def body(search: _Search) -> _Search:
        distance = _next(search, task.root, first)
        factors, cost, value = pulled(search.factors, distance)
        root = jnp.sqrt(2 * jnp.maximum(cost, 0.0))
        inside = root < task.root
        # Nothing lies beyond a limit, nor beyond what the strongest pull reaches.
        bound = inside & ((jnp.abs(value - limit) < resolution) | (distance > _FAR * span))
        moved = jnp.abs(value - search.low_value) > resolution

        def keep(new: Array, old: Array) -> Array:
            return jnp.where(inside, new, old)

        return _Search(
            search.round + 1, jax.tree.map(keep, factors, search.factors),
            keep(distance, search.low), keep(root, search.low_root), keep(value, search.low_value),
            keep(search.high, distance), keep(search.high_root, root),
            keep(search.high_value, value), jnp.minimum(search.least, cost), moved,
            (jnp.abs(root - task.root) < _ENOUGH) | bound,
        )  # fmt: skip

    first = task.root * jnp.sqrt(variance) * (1 + _STIFFNESS) / _STIFFNESS / 3
    zero, inf = jnp.zeros_like(base), jnp.full_like(base, jnp.inf)
    begin = _Search(
        jnp.int32(0), start, zero, zero, estimate, inf, inf, estimate, zero, jnp.asarray(True),
        jnp.asarray(False),
    )  # fmt: skip
    end = jax.lax.while_loop(lambda s: ~s.done & (s.round < _ROUNDS), body, begin)
    met = jnp.isfinite(end.high)
    weight = (task.root - end.low_root) / jnp.where(met, end.high_root - end.low_root, 1.0)
    between = end.low_value + weight * (end.high_value - end.low_value)
    inner = jnp.where(met, between, end.low_value)
    value = jnp.where(end.done, inner, jnp.where(met, end.high_value, end.low_value))
    # The estimate is in every interval; a number that nothing moves is off by rounding alone.
    value = jnp.where(task.sign > 0, jnp.maximum(value, estimate), jnp.minimum(value, estimate))
    worst = jnp.where(-end.least > _BETTER, -end.least, 0.0)
    return value, end.done, worst


def _next(search: _Search, root: Array, first: Array) -> Array:
    """Return the next distance: a secant step, outwards or inside the bracket."""
    met = jnp.isfinite(search.high)
    slope = search.low / jnp.maximum(search.low_root, jnp.finfo(first.dtype).tiny)
    outwards = jnp.clip(root * slope, 1.2 * search.low, 3 * search.low)
    # A number that is held at a bound gives way to a strong pull, or never.
    outwards = jnp.where(search.moved, outwards, 3 * search.low)
    outwards = jnp.where(search.low > 0, outwards, first)
    width = jnp.where(met, search.high - search.low, 1.0)
    rise = jnp.where(met, search.high_root - search.low_root, 1.0)
    share = jnp.clip((root - search.low_root) / rise, 0.05, 0.95)
    # Every third round halves, should the secant creep.
    share = jnp.where(search.round % 3 == 2, 0.5, share)
    return jnp.where(met, search.low + share * width, outwards)
