"""The search from a pool of starts: all take EM steps, and the best of them, or all, go on."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxmix.model.likelihood import Observed
from jaxmix.model.search import (
    AGREE,
    EM_STEPS,
    MOST_STEPS,
    Fit,
    Options,
    climb,
    expect,
    random_start,
)
from jaxmix.model.structure import Factors

TOGETHER = 8
"""Starts of one data set that climb side by side."""

SURE = 44
"""Random starts of which all miss an optimum that draws a tenth of them in 1 % of searches."""

_ENOUGH = 4  # starts that have to agree on the best optimum


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
        start = expect(data, start, EM_STEPS)
        return start, data.deviance(start)

    starts, losses = jax.lax.map(begin, jnp.arange(num), batch_size=together)
    order = jnp.argsort(losses)  # NaN comes last
    none = jnp.zeros(num, jnp.int32)
    pool = _Pool(
        jnp.int32(0), jax.tree.map(lambda f: f[order], starts), jnp.full_like(losses, jnp.inf),
        none.astype(bool), none,
    )  # fmt: skip

    def searching(pool: _Pool) -> Bool[Array, ""]:
        open_ = jnp.asarray(True) if options.thorough else pool.agree < _ENOUGH
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
        first = min(MOST_STEPS, options.max_steps)
        cap = jnp.where(search, first, options.max_steps - pool.steps[best])
        begun = jax.tree.map(lambda f: f[own], pool.factors)
        factors, loss, done, steps = jax.vmap(lambda f: climb(data, f, options, cap))(begun)
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
