"""The last steps to the maximum of a likelihood, to the precision of its derivatives."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxmix.model.likelihood import Observed, newton_step, retract, to_bound
from jaxmix.model.structure import Factors
from jaxmix.solvers.lanes import batched, where_selected

SETTLED = 1e-8
"""Predicted gain whose step leaves an error of its square only."""

_MOST_STEPS = 200
_LEAST_DAMPING, _EASE = 1e-8, 16.0  # below it there is none, and how it is changed


class Settled(NamedTuple):
    """The optimum to the precision of its derivatives, and what the last step says of it.

    Attributes
    ----------
    factors
        The probabilities.
    decrement
        Log-likelihood that the last step was to gain: NaN where there is no maximum here.
    pivot
        Smallest pivot of the scaled information, near 0 where the likelihood is flat.
    """

    factors: Factors
    decrement: Float[Array, ""]
    pivot: Float[Array, ""]


class _Settling(NamedTuple):
    settled: Settled
    loss: Float[Array, ""]
    damping: Float[Array, ""]
    going: Bool[Array, ""]
    steps: Int[Array, ""]


def _settle_step(state: _Settling, data: Observed) -> _Settling:
    """Take one exact step, damped where the last one led nowhere."""
    (factors, decrement, pivot), loss, damping = state.settled, state.loss, state.damping
    # What the loss cannot resolve; that of rows is a sum whose rounding is of its own size.
    noise = jnp.finfo(loss.dtype).eps * (64 * jnp.maximum(1.0, loss) + 2 * data.counts.sum())
    bounded = to_bound(data, factors)
    value = data.deviance(bounded)
    no_worse = value <= loss + noise
    factors, loss = _choose(no_worse, bounded, factors), jnp.where(no_worse, value, loss)
    direction, gain, smallest = newton_step(data, factors, damping, jnp.asarray(True))
    moved = retract(data.structure, factors, direction)
    value = data.deviance(moved)
    closer = (value <= loss + noise) & (gain >= 0)
    plain = damping == 0
    eased = jnp.where(damping > _LEAST_DAMPING, damping / _EASE, 0.0)
    return _Settling(
        Settled(
            _choose(closer, moved, factors),
            jnp.where(plain, gain, decrement),
            jnp.where(plain, smallest, pivot),
        ),
        jnp.where(closer, value, loss),
        jnp.where(closer, eased, jnp.maximum(damping, _LEAST_DAMPING) * _EASE),
        ~(closer & plain & (gain < SETTLED)),
        state.steps + 1,
    )


def _settle_batch(data: Observed, factors: Factors) -> Settled:
    loss = jax.vmap(lambda own, f: own.deviance(f))(data, factors)
    zero = jnp.zeros_like(loss)
    start = _Settling(
        Settled(factors, jnp.full_like(loss, jnp.inf), zero), loss, zero,
        jnp.isfinite(loss), jnp.zeros(len(loss), jnp.int32),
    )  # fmt: skip

    def going(state: _Settling) -> Bool[Array, " b"]:
        return state.going & (state.steps < _MOST_STEPS)

    return jax.lax.while_loop(
        lambda state: jnp.any(going(state)),
        lambda state: where_selected(jax.vmap(_settle_step), state, going(state), data),
        start,
    ).settled


settle_down = batched(_settle_batch)
"""From data and factors of where the search ended to the optimum, `Settled`.

Exact steps, none of which may fit worse. Probabilities on their way to 0 are set there first. The
steps converge quadratically, and one is enough as a rule; where the likelihood is a bent ridge they
are damped until it is met. Under ``vmap`` only the tables that need more steps take them.
"""


def _choose(condition: Bool[Array, ""], yes: Factors, no: Factors) -> Factors:
    chosen: Factors = jax.tree.map(lambda y, n: jnp.where(condition, y, n), yes, no)
    return chosen
