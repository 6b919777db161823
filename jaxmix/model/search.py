"""The search for the maximum of a likelihood: one good start, and more where they are needed.

A first start, ten EM steps and damped scoring settle a regular table. Data on which scoring is
slow, or whose goodness of fit is absurd, may have ended in a poor optimum: they alone are given
random starts, in rounds, until their best optimum has been met several times.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from jaxmix.model.likelihood import Observed, em_step, newton_step, retract
from jaxmix.model.structure import Factors, Structure, own_places
from jaxmix.solvers.lanes import batched, by_chunks, where_selected, width
from jaxmix.solvers.minimise import damped, minimise
from jaxmix.status import Status

AGREE = 0.01
"""Log-likelihood units within which optima count as the same."""

EM_STEPS = 20
"""EM steps of a random start before it climbs."""

MOST_STEPS = 60
"""Scoring steps of a random start before the best of them go on."""

_MIX = 0.02  # even probabilities mixed into a start, so that none begins at 0
_EM_STEPS_FIRST, _EM_STEPS_WARM = 10, 1
_REGULAR_STEPS = 8  # scoring that needs more has not met a regular optimum
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
    num_starts
        Most starts.
    max_steps
        Most scoring steps of the returned start.
    tolerance
        Predicted gain at which scoring stops, in log-likelihood units.
    first
        Hashable function from the data to a first start, or None for a random one.
    warm
        Whether a first start is given; there are no others then.
    thorough
        Whether random starts are tried also where the first one looks regular (`maximise`), or
        all starts go on beyond EM (`jaxmix.model.pool.best_first`).
    optimiser
        An optax transformation that precedes scoring, on logits; or None.
    """

    num_classes: int
    num_starts: int
    max_steps: int
    tolerance: float
    first: Callable[[Observed], Factors] | None = None
    warm: bool = False
    thorough: bool = False
    optimiser: optax.GradientTransformation | None = None


class Fit(NamedTuple):
    """The best start: factors, loss, and how the starts fared.

    Attributes
    ----------
    factors
        The probabilities.
    loss
        The deviance.
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


def mix(structure: Structure, factors: Factors) -> Factors:
    """Return factors as probabilities, none of them 0."""
    gate, parts = jax.tree.map(
        lambda f: jnp.maximum(jnp.nan_to_num(f, posinf=0.0), 0.0), tuple(factors)
    )
    lifted = Factors(gate / jnp.maximum(gate.sum(), 1e-30) + 1e-12, tuple(p + 1e-12 for p in parts))
    gate, parts = structure.normalise(lifted)
    even = (
        (1 - _MIX) * own + _MIX / math.prod(own.shape[place] for place in own_places(part))
        for part, own in zip(structure.parts, parts, strict=True)
    )
    return Factors((1 - _MIX) * gate + _MIX / gate.size, tuple(even))


def random_start(key: Array, data: Observed, k: int) -> Factors:
    """Draw every probability vector evenly from its simplex."""
    shapes = data.structure.shapes(data.shape, k)
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    # One draw, cut up: a generator in a compiled program is long, and compiled each time.
    drawn = jax.random.exponential(key, (ends[-1],), data.counts.dtype)
    gate, *parts = (
        own.reshape(shape) for own, shape in zip(jnp.split(drawn, ends[:-1]), shapes, strict=True)
    )
    return data.structure.normalise(Factors(gate, tuple(parts)))


def expect(data: Observed, factors: Factors, num_steps: int) -> Factors:
    """Take EM steps."""
    found: Factors = jax.lax.fori_loop(0, num_steps, lambda _, f: em_step(data, f), factors)
    return found


def climb(
    data: Observed, factors: Factors, options: Options, max_steps: Int[Array, ""]
) -> tuple[Factors, Array, Array, Array]:
    """Take scoring steps; return factors, loss, whether the tolerance was met, steps."""

    def step(factors: Factors, damping: Array, exact: Array) -> tuple[Factors, Array]:
        return newton_step(data, factors, damping, exact)[:2]

    dtype, structure = data.counts.dtype, data.structure
    if options.optimiser is not None:
        by_logits = minimise(
            lambda logits: data.deviance(_softmax(structure, logits)),
            jax.tree.map(lambda f: jnp.log(jnp.maximum(f, jnp.finfo(f.dtype).tiny)), factors),
            options.optimiser,
            tolerance=options.tolerance,
            max_steps=max_steps,
        )
        factors = _softmax(structure, by_logits.params)
    noise = 2 * jnp.finfo(dtype).eps * data.counts.sum()
    found = minimise(
        data.deviance,
        factors,
        damped(step, functools.partial(retract, structure), exact_below=_EXACT_BELOW, noise=noise),
        tolerance=options.tolerance,
        max_steps=max_steps,
    )
    return found.params, found.value, found.status == Status.SUCCESS, found.steps


def _softmax(structure: Structure, logits: Factors) -> Factors:
    parts = (
        jax.nn.softmax(own, own_places(part))
        for part, own in zip(structure.parts, logits.parts, strict=True)
    )
    return Factors(jax.nn.softmax(logits.gate, None), tuple(parts))


def maximise(data: Observed, key_data: Array, first: Factors | tuple[()], options: Options) -> Fit:
    """Fit one data set; under ``vmap``, many, each with as many starts as it needs.

    Parameters
    ----------
    data
        Counts under a structure.
    key_data
        Raw data of a JAX key, for the random starts.
    first
        Where to start from where ``options.warm``, else an empty tuple.
    options
        See `Options`.
    """
    return _compiled(options)(data, key_data, first)


@functools.lru_cache(maxsize=256)
def _compiled(options: Options) -> Callable[[Observed, Array, Factors | tuple[()]], Fit]:
    return batched(functools.partial(_maximise_batch, options))


class _Carry(NamedTuple):
    rounds: Int[Array, ""]
    fit: Fit
    regular: Bool[Array, " b"]


def _maximise_batch(
    options: Options, data: Observed, key_data: Array, first: Factors | tuple[()]
) -> Fit:
    warm, k = options.warm, options.num_classes
    batch = data.counts.shape[0]
    possible = jnp.all(jnp.isfinite(data.counts.reshape(batch, -1)), axis=1)
    num_rounds = 0 if warm else -(-(options.num_starts - 1) // _ROUND)

    def begin(own: Observed, key_data: Array, first: Factors) -> Fit:
        if warm:
            start = mix(own.structure, first)
        elif options.first is not None:
            start = options.first(own)
        else:
            start = random_start(jax.random.wrap_key_data(key_data), own, k)
        start = expect(own, start, _EM_STEPS_WARM if warm else _EM_STEPS_FIRST)
        loss = own.deviance(start)
        one, inf = jnp.int32(1), jnp.full_like(loss, jnp.inf)
        return Fit(start, loss, jnp.asarray(False), jnp.int32(0), one, one, inf)

    def go_on(fit: Fit, own: Observed, cap: Array) -> Fit:
        factors, loss, done, steps = climb(own, fit.factors, options, cap - fit.steps)
        return fit._replace(factors=factors, loss=loss, done=done, steps=fit.steps + steps)

    def try_round(fit: Fit, own: Observed, key_data: Array) -> Fit:
        keys = jax.random.split(
            jax.random.fold_in(jax.random.wrap_key_data(key_data), fit.starts), _ROUND
        )

        def climbed(key: Array) -> tuple[Factors, Array, Array, Array]:
            start = expect(own, random_start(key, own, k), EM_STEPS)
            return climb(own, start, options, jnp.int32(MOST_STEPS))

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
        caps = jnp.full(batch, cap)
        fit = where_selected(jax.vmap(go_on), carry.fit, unfinished(carry), data, caps)
        ordinary = fit.done & ~_absurd(2 * fit.loss, data, k)
        regular = jnp.where(carry.rounds == 0, ordinary & (not options.thorough), carry.regular)
        carry = _Carry(carry.rounds + 1, fit, regular)
        if num_rounds:
            lanes = max(1, width(batch) // (2 * _ROUND))
            fit = where_selected(
                jax.vmap(try_round), fit, unsettled(carry), data, key_data, lanes=lanes
            )
        return carry._replace(fit=fit)

    def needed(carry: _Carry) -> Array:
        return (carry.rounds == 0) | jnp.any(unfinished(carry) | unsettled(carry))

    fit = by_chunks(jax.vmap(begin), data, key_data, first)
    start = _Carry(jnp.int32(0), fit, jnp.zeros(batch, bool))
    return jax.lax.while_loop(needed, body, start).fit


def _best_of(fit: Fit, factors: Factors, loss: Array, done: Array, steps: Array) -> Fit:
    """Compare the best start with further ones; those without a finite loss do not count."""
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


def degrees_of_freedom(structure: Structure, shape: tuple[int, ...], k: int) -> int:
    """Return free cells minus free parameters of a table."""
    return math.prod(shape) - 1 - structure.num_parameters(shape, k)


def _absurd(g2: Float[Array, " b"], data: Observed, k: int) -> Bool[Array, " b"]:
    """Whether G^2 lies beyond its 99 % point (Wilson, Hilferty 1931), by its nominal df."""
    df = float(max(degrees_of_freedom(data.structure, data.shape, k), 1))
    spread = 2 / (9 * df)
    root: Array = (jnp.maximum(g2, 0.0) / df) ** (1 / 3)
    absurd: Bool[Array, " b"] = root > 1 - spread + _ABSURD * spread**0.5
    return absurd
