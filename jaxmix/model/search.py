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

TOGETHER = 8
"""Starts of one data set that climb side by side."""

SURE = 44
"""Random starts of which all miss an optimum that draws a tenth of them in 1 % of searches."""

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
        all starts go on beyond EM (`best_first`).
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


def miss_rate(num_starts: Int[Array, ""] | int, share: float = 0.1) -> Float[Array, ""]:
    """Return how often a thorough search misses an optimum that draws a share of random starts.

    Parameters
    ----------
    num_starts
        Independent random starts, all taken to their end.
    share
        Share of starts from which the optimum is reached.

    Examples
    --------
    >>> round(float(miss_rate(SURE)), 3)
    0.01
    """
    return jnp.asarray((1 - share) ** jnp.asarray(num_starts, float))


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


def _expect(data: Observed, factors: Factors, num_steps: int) -> Factors:
    found: Factors = jax.lax.fori_loop(0, num_steps, lambda _, f: em_step(data, f), factors)
    return found


def _climb(
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
        start = _expect(own, start, _EM_STEPS_WARM if warm else _EM_STEPS)
        loss = own.deviance(start)
        one, inf = jnp.int32(1), jnp.full_like(loss, jnp.inf)
        return Fit(start, loss, jnp.asarray(False), jnp.int32(0), one, one, inf)

    def climb(fit: Fit, own: Observed, cap: Array) -> Fit:
        factors, loss, done, steps = _climb(own, fit.factors, options, cap - fit.steps)
        return fit._replace(factors=factors, loss=loss, done=done, steps=fit.steps + steps)

    def try_round(fit: Fit, own: Observed, key_data: Array) -> Fit:
        keys = jax.random.split(
            jax.random.fold_in(jax.random.wrap_key_data(key_data), fit.starts), _ROUND
        )

        def climbed(key: Array) -> tuple[Factors, Array, Array, Array]:
            start = _expect(own, random_start(key, own, k), _EM_STEPS_RANDOM)
            return _climb(own, start, options, jnp.int32(_RANDOM_STEPS))

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
        fit = where_selected(jax.vmap(climb), carry.fit, unfinished(carry), data, caps)
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


_ENOUGH_OF_POOL = 4  # starts that have to agree on the best optimum


class _Pool(NamedTuple):
    """Starts of one data set, those that fit best after EM first, and how they fared.

    Attributes
    ----------
    tried
        How many of them have gone on beyond EM.
    factors, loss, done, steps
        As in `Fit`, with a leading axis of starts; the loss is infinite where not tried.
    """

    tried: Int[Array, ""]
    factors: Factors
    loss: Float[Array, " s"]
    done: Bool[Array, " s"]
    steps: Int[Array, " s"]

    @property
    def agree(self) -> Int[Array, ""]:
        """How many starts met the best optimum."""
        return jnp.sum(self.loss <= self.loss.min() + AGREE)

    def best(self, tolerance: float) -> Int[Array, ""]:
        """Return the best start; among those that end alike, one that met the tolerance."""
        near = self.done & (self.loss <= self.loss.min() + tolerance)
        alike = jnp.where(near, self.loss, jnp.inf)
        return jnp.where(jnp.any(near), jnp.argmin(alike), jnp.argmin(self.loss))


def best_first(data: Observed, key: Array, options: Options, together: int) -> Fit:
    """Fit one data set from many starts, which all take EM steps before the best of them go on.

    A search is thorough where all of them go on to the end. Each start is independent of the
    others, so that an optimum which draws a share p of random starts is missed by n of them with
    probability ``(1 - p)^n``: 1 % for a tenth and `SURE`. A rule that stops when the best optimum
    has been met several times stops in a popular one that is not the best. Without it, the search
    ends when one optimum, the best so far, has been met four times.

    The round of starts that climb side by side and the last steps of the best one are one program.

    Parameters
    ----------
    data
        Counts under a structure.
    key
        JAX key of the starts.
    options
        See `Options`; the first start, if any, is the first of `num_starts`.
    together
        Starts that climb side by side.
    """
    num = options.num_starts
    first = None if options.first is None else options.first(data)

    def begin(index: Array) -> tuple[Factors, Array]:
        start = random_start(jax.random.fold_in(key, index), data, options.num_classes)
        if first is not None:
            start = jax.tree.map(lambda own, given: jnp.where(index == 0, given, own), start, first)
        start = _expect(data, start, _EM_STEPS_RANDOM)
        return start, data.deviance(start)

    starts, losses = jax.lax.map(begin, jnp.arange(num), batch_size=together)
    order = jnp.argsort(losses)  # NaN comes last
    none = jnp.zeros(num, jnp.int32)
    pool = _Pool(
        jnp.int32(0), jax.tree.map(lambda f: f[order], starts), jnp.full_like(losses, jnp.inf),
        none.astype(bool), none,
    )  # fmt: skip

    def searching(pool: _Pool) -> Bool[Array, ""]:
        open_ = jnp.asarray(True) if options.thorough else pool.agree < _ENOUGH_OF_POOL
        return (pool.tried == 0) | ((pool.tried < num) & open_)

    def unfinished(pool: _Pool) -> Bool[Array, ""]:
        best = pool.best(options.tolerance)
        open_ = ~pool.done[best] & jnp.isfinite(pool.loss[best])
        return searching(pool) | (open_ & (pool.steps[best] < options.max_steps))

    def body(pool: _Pool) -> _Pool:
        # The last round may work on its last start more than once, to the same end; and after the
        # search the best start goes on alone if it has not met the tolerance.
        search, best = searching(pool), pool.best(options.tolerance)
        own = jnp.minimum(pool.tried + jnp.arange(together), num - 1)
        own = jnp.where(search, own, best)
        first = min(_RANDOM_STEPS, options.max_steps)
        cap = jnp.where(search, first, options.max_steps - pool.steps[best])
        begun = jax.tree.map(lambda f: f[own], pool.factors)
        factors, loss, done, steps = jax.vmap(lambda f: _climb(data, f, options, cap))(begun)
        return _Pool(
            jnp.minimum(pool.tried + together, num),
            jax.tree.map(lambda all_, new: all_.at[own].set(new), pool.factors, factors),
            pool.loss.at[own].set(jnp.where(jnp.isfinite(loss), loss, jnp.inf)),
            pool.done.at[own].set(done),
            pool.steps.at[own].set(pool.steps[own] + steps),
        )

    pool = jax.lax.while_loop(unfinished, body, pool)
    best = pool.best(options.tolerance)
    others = jnp.where(pool.loss > pool.loss[best] + AGREE, pool.loss, jnp.inf)
    return Fit(
        jax.tree.map(lambda f: f[best], pool.factors), pool.loss[best], pool.done[best],
        pool.steps[best], pool.tried, pool.agree, others.min(),
    )  # fmt: skip


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
