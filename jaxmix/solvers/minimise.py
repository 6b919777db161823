"""One loop for every optimiser: optax's own, and damped second-order steps beside them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from jaxmix.status import Status

_Params = TypeVar("_Params")
Value: TypeAlias = Callable[[_Params], Float[Array, ""]]
Step: TypeAlias = Callable[
    [_Params, Float[Array, ""], Bool[Array, ""]], tuple[_Params, Float[Array, ""]]
]

_REACHED = 0.5  # share of the predicted gain that makes exact curvature worth trying
_FURTHER = 30  # most steps towards a finer tolerance
_LEAST_RATIO = 1e-3  # a step that gains less than this share of its prediction is refused


class Minimum(NamedTuple, Generic[_Params]):
    """Where a minimisation ended.

    Attributes
    ----------
    params
        The best parameters met.
    value
        The loss there.
    status
        SUCCESS, MAX_STEPS, or NONFINITE where no finite value was met.
    steps
        Steps taken.
    """

    params: _Params
    value: Float[Array, ""]
    status: Array
    steps: Array


class DampedState(NamedTuple):
    """State of `damped`: the damping, and how the last step fared."""

    damping: Float[Array, ""]
    growth: Float[Array, ""]
    exact: Bool[Array, ""]
    gain: Float[Array, ""]
    accepted: Bool[Array, ""]
    value: Float[Array, ""]


def damped(
    step: Step[_Params],
    retract: Callable[[_Params, _Params], _Params],
    *,
    exact_below: float = 0.0,
    initial: float = 1e-3,
    noise: Float[Array, ""] | float = 0.0,
) -> optax.GradientTransformationExtraArgs:
    """Second-order steps with Levenberg's damping, as a gradient transformation.

    Only steps that lower the loss are taken; the damping follows the ratio of the gain to its
    prediction (Nielsen 1999).

    Parameters
    ----------
    step
        ``(params, damping, exact) -> (direction, predicted gain)``, where `exact` asks for the
        exact Hessian and not a positive semi-definite stand-in (Fisher's, Gauss's and Newton's).
    retract
        ``(params, direction) -> params``: the move, back into the feasible set.
    exact_below
        Predicted gain below which the exact Hessian is tried.
    initial
        First damping.
    noise
        Rounding error of the loss, where it exceeds that of its value: a loss that is a small
        difference of large numbers.

    References
    ----------
    Nielsen (1999), "Damping parameter in Marquardt's method", IMM-REP-1999-05.
    """

    def init(params: Any) -> DampedState:
        dtype = jax.tree.leaves(params)[0].dtype
        return DampedState(
            jnp.asarray(initial, dtype), jnp.asarray(4.0, dtype), jnp.asarray(False),
            jnp.asarray(jnp.inf, dtype), jnp.asarray(False), jnp.asarray(jnp.inf, dtype),
        )  # fmt: skip

    def update(updates: Any, state: DampedState, params: Any = None, **extra: Any) -> Any:
        del updates  # the step computes its own gradient
        value, value_fn = extra["value"], extra["value_fn"]
        direction, gain = step(params, state.damping, state.exact)
        new = retract(params, direction)
        new_value = value_fn(new)
        ratio = (value - new_value) / gain
        eps = jnp.finfo(value.dtype).eps
        # So close that the loss cannot resolve the gain: the prediction is trusted.
        unseen = jnp.maximum(noise, 64 * eps * jnp.maximum(1.0, jnp.abs(value)))
        tiny = (gain >= 0) & (gain < 16 * unseen) & (new_value <= value + unseen)
        accepted = ((gain > 0) & (new_value < value) & (ratio > _LEAST_RATIO)) | tiny
        shrink = jnp.where(tiny, 0.1, jnp.clip(1 - (2 * ratio - 1) ** 3, 0.1, 2.0))
        floor = jnp.sqrt(eps) * 1e-2
        trusted = ((ratio > _REACHED) & (ratio < 1 / _REACHED)) | tiny
        state = DampedState(
            jnp.where(accepted, jnp.maximum(state.damping * shrink, floor),
                      jnp.maximum(state.damping, 1e3 * floor) * state.growth),
            jnp.where(accepted, 4.0, 2 * state.growth),
            accepted & trusted & (gain < exact_below),
            gain,
            accepted,
            jnp.where(accepted, new_value, value),
        )  # fmt: skip
        moved = jax.tree.map(lambda n, p: jnp.where(accepted, n - p, 0.0), new, params)
        return moved, state

    return optax.GradientTransformationExtraArgs(init, update)


def minimise(
    loss: Value[_Params],
    params: _Params,
    optimiser: optax.GradientTransformation,
    *,
    tolerance: float,
    max_steps: int | Array,
    patience: int = 5,
    finish: float | None = None,
) -> Minimum[_Params]:
    """Minimise a loss by any optax optimiser; differentiable only by the implicit route.

    Stops when the predicted gain of an accepted second-order step, or for other optimisers the
    gain of the last `patience` steps, falls below the tolerance; or a little later, see `finish`.

    Parameters
    ----------
    loss
        Of a pytree of parameters.
    params
        Where to start.
    optimiser
        An optax gradient transformation, or `damped`.
    tolerance
        In units of the loss.
    max_steps
        Cap on the number of steps.
    patience
        Steps over which a first-order optimiser has to gain the tolerance.
    finish
        A finer tolerance that second-order steps go on to, for a few steps more, once they have
        met the other: where the curvature is not exact, the tolerance leaves more digits open
        than an estimate can do without. Whether it is met is not part of the status.

    Examples
    --------
    >>> import jax.numpy as jnp, optax
    >>> found = minimise(lambda x: jnp.sum((x - 3.0) ** 2), jnp.zeros(2), optax.lbfgs(),
    ...                  tolerance=1e-10, max_steps=100)
    >>> [round(float(v), 3) for v in found.params], int(found.status)
    ([3.0, 3.0], 0)
    """
    optimiser = optax.with_extra_args_support(optimiser)
    first = loss(params)

    class Carry(NamedTuple):
        params: Any
        state: Any
        value: Float[Array, ""]
        best: Any
        least: Float[Array, ""]
        reference: Float[Array, ""]
        steps: Array
        met: Bool[Array, ""]
        further: Array

    def body(carry: Carry) -> Carry:
        # Whatever the optimiser does not use of these is never computed.
        grad = jax.grad(loss)(carry.params)
        moves, state = optimiser.update(
            grad, carry.state, carry.params, value=carry.value, grad=grad, value_fn=loss
        )
        params = optax.apply_updates(carry.params, moves)
        second_order = isinstance(state, DampedState)
        value = state.value if second_order else loss(params)
        better = value <= carry.least
        best = jax.tree.map(lambda n, o: jnp.where(better, n, o), params, carry.best)
        least = jnp.where(better, value, carry.least)
        steps = carry.steps + 1
        check = steps % patience == 0
        if second_order:
            met = carry.met | (state.accepted & (state.gain < tolerance))
            finished = state.accepted & (state.gain < (tolerance if finish is None else finish))
            # Its gain was the last that could be seen, or it has had its chances.
            further = jnp.where(finished, jnp.int32(_FURTHER), carry.further + met)
        else:
            met = check & (carry.reference - least < tolerance)
            further = jnp.where(met, jnp.int32(_FURTHER), jnp.int32(0))
        reference = jnp.where(check, least, carry.reference)
        return Carry(params, state, value, best, least, reference, steps, met, further)

    def unfinished(carry: Carry) -> Bool[Array, ""]:
        return (carry.further < _FURTHER) & (carry.steps < max_steps)

    start = Carry(
        params, optimiser.init(params), first, params, first, first, jnp.int32(0),
        jnp.asarray(False), jnp.int32(0),
    )  # fmt: skip
    end = jax.lax.while_loop(unfinished, body, start)
    status = jnp.where(end.met, jnp.int32(Status.SUCCESS), jnp.int32(Status.MAX_STEPS))
    status = jnp.where(jnp.isfinite(end.least), status, jnp.int32(Status.NONFINITE))
    return Minimum(end.best, end.least, status, end.steps)
