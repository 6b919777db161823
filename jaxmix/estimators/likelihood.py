"""Maximum likelihood for tables of cells: one good start, and more where they are needed.

The spectral estimate, ten EM steps and damped Fisher scoring settle a regular table. A table
whose scoring is slow, or whose goodness of fit is absurd, may have ended in a poor optimum: it
alone is given random starts, in rounds, until its best optimum has been met several times.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from jaxmix.estimators import spectral
from jaxmix.model.table import (
    Cells,
    Factors,
    deviance,
    em_step,
    newton_step,
    normalise,
    retract,
)
from jaxmix.sample import moments
from jaxmix.solvers.lanes import batched, by_chunks, where_selected, width
from jaxmix.solvers.minimise import damped, minimise
from jaxmix.status import Status

AGREE = 0.01
"""Log-likelihood units within which optima count as the same."""

_MIX = 0.02  # even probabilities mixed into a start, so that none begins at 0
_EM_STEPS, _EM_STEPS_RANDOM, _EM_STEPS_WARM = 10, 20, 1
_REGULAR_STEPS = 8  # scoring that needs more has not met a regular optimum
_RANDOM_STEPS = 60
_ROUND = 8  # random starts per round
_ENOUGH = 3  # starts that have to agree on the best optimum
_EXACT_BELOW = 1.0  # predicted gain, in log-likelihood units, where exact curvature is tried
_ABSURD = 2.33  # normal quantile: goodness of fit beyond its 99 % point


@dataclasses.dataclass(frozen=True)
class Options:
    """How hard to look for the maximum.

    Attributes
    ----------
    num_classes
        Number of classes.
    level
        3, or 2 for tables of one arm and the outcome view (T, Y).
    num_arms
        Arms of the data.
    num_starts
        Most starts for one table.
    max_steps
        Most scoring steps of the returned start.
    tolerance
        Predicted gain at which scoring stops, in log-likelihood units.
    spectral_start
        Whether the table can carry the spectral estimate as its first start.
    warm
        Whether a first start is given; there are no others then.
    thorough
        Whether every table is given random starts, also one whose first start looks regular.
    optimiser
        An optax transformation that precedes scoring, on logits; or None.
    """

    num_classes: int
    level: int
    num_arms: int
    num_starts: int
    max_steps: int
    tolerance: float
    spectral_start: bool
    warm: bool
    thorough: bool = False
    optimiser: optax.GradientTransformation | None = None


class Fit(NamedTuple):
    """The best start of a table: factors, loss, and how the starts fared.

    Attributes
    ----------
    factors
        The probabilities.
    loss
        Half of G^2.
    done
        Whether scoring ended by its tolerance.
    steps
        Its steps.
    starts, agree
        Starts tried, and how many of them met the best optimum.
    runner_up
        Loss of the best other optimum; infinite where there was none.
    """

    factors: Factors
    loss: Float[Array, ""]
    done: Bool[Array, ""]
    steps: Int[Array, ""]
    starts: Int[Array, ""]
    agree: Int[Array, ""]
    runner_up: Float[Array, ""]


def mix(factors: Factors) -> Factors:
    """Return factors as probabilities, none of them 0."""
    W, B, C = (jnp.maximum(jnp.nan_to_num(f, posinf=0.0), 0.0) for f in factors)
    W, B, C = normalise(Factors(W / jnp.maximum(W.sum(), 1e-30) + 1e-12, B + 1e-12, C + 1e-12))
    return Factors(
        (1 - _MIX) * W + _MIX / W.size,
        (1 - _MIX) * B + _MIX / B.shape[0],
        (1 - _MIX) * C + _MIX / C.shape[1],
    )


def spectral_start(cells: Cells, options: Options) -> Factors:
    """Return the spectral estimate; W and C by regressing the table on its class profiles."""
    a, k = options.num_arms, options.num_classes
    d_z, d_x = cells.shape[1:3]
    by_arm = cells
    if options.level == 2:
        by_arm = cells[0].reshape(d_z, d_x, a, -1).transpose(2, 0, 1, 3)
    table = moments.from_counts(by_arm)
    B = jnp.maximum(jnp.nan_to_num(spectral.solve(table, k).value.x_profiles), 1e-4)
    # Ridge, so that profiles that coincide still give finite factors.
    ridge = 1e-6 * jnp.eye(k, dtype=B.dtype)
    weights = jnp.linalg.solve(B.T @ B + ridge, B.T)
    by_class = jnp.maximum(jnp.einsum("ux,tzxy->tzyu", weights, table.tensor), 0.0)
    W, C = by_class.sum(2), by_class.sum(1)
    if options.level == 2:
        W, C = W.sum(0, keepdims=True), C.reshape(1, -1, k)
    return mix(Factors(W, B, C))


def random_start(key: Array, cells: Cells, k: int) -> Factors:
    """Draw every probability vector evenly from its simplex."""
    a, d_z, d_x, d_y = cells.shape
    sizes = (a * d_z * k, d_x * k, a * d_y * k)
    # One draw, cut up: a generator in a compiled program is long, and compiled each time.
    W, B, C = jnp.split(
        jax.random.exponential(key, (sum(sizes),), cells.dtype), (sizes[0], sum(sizes[:2]))
    )
    return normalise(Factors(W.reshape(a, d_z, k), B.reshape(d_x, k), C.reshape(a, d_y, k)))


def _expect(cells: Cells, factors: Factors, num_steps: int) -> Factors:
    found: Factors = jax.lax.fori_loop(0, num_steps, lambda _, f: em_step(cells, f), factors)
    return found


def _climb(
    cells: Cells, factors: Factors, options: Options, max_steps: Int[Array, ""]
) -> tuple[Factors, Array, Array, Array]:
    """Take scoring steps; return factors, loss, whether the tolerance was met, steps."""

    def step(factors: Factors, damping: Array, exact: Array) -> tuple[Factors, Array]:
        return newton_step(cells, factors, damping, exact)[:2]

    loss = functools.partial(deviance, cells)
    eps = jnp.finfo(cells.dtype).eps
    if options.optimiser is not None:
        by_logits = minimise(
            lambda logits: loss(_softmax(logits)),
            jax.tree.map(lambda f: jnp.log(jnp.maximum(f, jnp.finfo(f.dtype).tiny)), factors),
            options.optimiser,
            tolerance=options.tolerance,
            max_steps=max_steps,
        )
        factors = _softmax(by_logits.params)
    found = minimise(
        loss,
        factors,
        damped(step, retract, exact_below=_EXACT_BELOW, noise=2 * eps * cells.sum()),
        tolerance=options.tolerance,
        max_steps=max_steps,
    )
    return found.params, found.value, found.status == Status.SUCCESS, found.steps


def _softmax(logits: Factors) -> Factors:
    softmax = jax.nn.softmax
    return Factors(softmax(logits.W, None), softmax(logits.B, 0), softmax(logits.C, 1))


def maximise(cells: Cells, key_data: Array, first: Factors | tuple[()], options: Options) -> Fit:
    """Fit one table; under ``vmap``, many, each with as many starts as it needs.

    Parameters
    ----------
    cells
        Counts.
    key_data
        Raw data of a JAX key, for the random starts.
    first
        `Factors` to start from where ``options.warm``, else an empty tuple.
    options
        See `Options`.
    """
    found: Fit = _compiled(options)(cells, key_data, first)
    return found


@functools.lru_cache(maxsize=256)
def _compiled(options: Options) -> Any:
    return batched(functools.partial(_maximise_batch, options))


class _Carry(NamedTuple):
    rounds: Int[Array, ""]
    fit: Fit
    regular: Bool[Array, " b"]


def _maximise_batch(
    options: Options,
    cells: Float[Array, "b a d_z d_x d_y"],
    key_data: Array,
    first: Factors | tuple[()],
) -> Fit:
    warm, k = options.warm, options.num_classes
    possible = jnp.all(jnp.isfinite(cells), axis=(1, 2, 3, 4))
    num_rounds = 0 if warm else -(-(options.num_starts - 1) // _ROUND)

    def begin(cells: Cells, key_data: Array, first: Any) -> Fit:
        if warm:
            start = mix(first)
        elif options.spectral_start:
            start = spectral_start(cells, options)
        else:
            start = random_start(jax.random.wrap_key_data(key_data), cells, k)
        start = _expect(cells, start, _EM_STEPS_WARM if warm else _EM_STEPS)
        loss = deviance(cells, start)
        one, inf = jnp.int32(1), jnp.full_like(loss, jnp.inf)
        return Fit(start, loss, jnp.asarray(False), jnp.int32(0), one, one, inf)

    def climb(fit: Fit, cells: Cells, cap: Array) -> Fit:
        factors, loss, done, steps = _climb(cells, fit.factors, options, cap - fit.steps)
        return fit._replace(factors=factors, loss=loss, done=done, steps=fit.steps + steps)

    def try_round(fit: Fit, cells: Cells, key_data: Array) -> Fit:
        keys = jax.random.split(
            jax.random.fold_in(jax.random.wrap_key_data(key_data), fit.starts), _ROUND
        )

        def climbed(key: Array) -> tuple[Factors, Array, Array, Array]:
            start = _expect(cells, random_start(key, cells, k), _EM_STEPS_RANDOM)
            return _climb(cells, start, options, jnp.int32(_RANDOM_STEPS))

        return _best_of(fit, *jax.vmap(climbed)(keys))

    def unsettled(carry: _Carry) -> Bool[Array, " b"]:
        settled = carry.regular | (carry.fit.agree >= _ENOUGH)
        return ~settled & possible & (carry.fit.starts < 1 + num_rounds * _ROUND)

    def unfinished(carry: _Carry) -> Bool[Array, " b"]:
        return ~carry.fit.done & possible & (carry.fit.steps < options.max_steps)

    def body(carry: _Carry) -> _Carry:
        # First a few steps for all, which most need no more than; then many for the others.
        short = (carry.rounds == 0) & (not warm)
        cap = jnp.where(short, min(_REGULAR_STEPS, options.max_steps), options.max_steps)
        caps = jnp.full(len(cells), cap)
        fit = where_selected(jax.vmap(climb), carry.fit, unfinished(carry), cells, caps)
        ordinary = fit.done & ~_absurd(2 * fit.loss, cells.shape[1:], k)
        regular = jnp.where(carry.rounds == 0, ordinary & (not options.thorough), carry.regular)
        carry = _Carry(carry.rounds + 1, fit, regular)
        if num_rounds:
            lanes = max(1, width(len(cells)) // (2 * _ROUND))
            fit = where_selected(
                jax.vmap(try_round), fit, unsettled(carry), cells, key_data, lanes=lanes
            )
        return carry._replace(fit=fit)

    def needed(carry: _Carry) -> Array:
        return (carry.rounds == 0) | jnp.any(unfinished(carry) | unsettled(carry))

    fit = by_chunks(jax.vmap(begin), cells, key_data, first)
    start = _Carry(jnp.int32(0), fit, jnp.zeros(len(cells), bool))
    return jax.lax.while_loop(needed, body, start).fit


def _best_of(fit: Fit, factors: Factors, loss: Array, done: Array, steps: Array) -> Fit:
    """Compare a table's best start with further ones; those without a finite loss do not count."""
    loss = jnp.where(jnp.isfinite(loss), loss, jnp.inf)
    winner = jnp.argmin(loss)
    own = jnp.where(jnp.isfinite(fit.loss), fit.loss, jnp.inf)
    better = loss[winner] < own
    best = jnp.minimum(loss[winner], own)
    everyone = jnp.append(loss, jnp.stack([own, fit.runner_up]))
    others = jnp.where(everyone > best + AGREE, everyone, jnp.inf)
    agree = jnp.sum(loss <= best + AGREE) + jnp.where(own <= best + AGREE, fit.agree, 0)
    chosen = jax.tree.map(lambda n, o: jnp.where(better, n[winner], o), factors, fit.factors)
    return Fit(
        chosen,
        best,
        jnp.where(better, done[winner], fit.done),
        jnp.where(better, steps[winner], fit.steps),
        fit.starts + len(loss),
        agree.astype(jnp.int32),
        others.min(),
    )


def degrees_of_freedom(shape: tuple[int, ...], k: int) -> int:
    """Return free cells minus free parameters of a table."""
    a, d_z, d_x, d_y = shape
    parameters = a * d_z * k - 1 + (d_x - 1) * k + a * (d_y - 1) * k
    return a * d_z * d_x * d_y - 1 - parameters


def _absurd(g2: Float[Array, " b"], shape: tuple[int, ...], k: int) -> Bool[Array, " b"]:
    """Whether G^2 lies beyond its 99 % point (Wilson, Hilferty 1931), by its nominal df."""
    df = max(degrees_of_freedom(shape, k), 1)
    spread = 2 / (9 * df)
    root = (jnp.maximum(g2, 0.0) / df) ** (1 / 3)
    beyond: Bool[Array, " b"] = root > 1 - spread + _ABSURD * spread**0.5
    return beyond
