"""How well a population's effect law can be known from n rows at best."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, overload

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxmix import arguments
from jaxmix.solvers.linalg import cutoff
from jaxmix.status import InputError

if TYPE_CHECKING:
    from jaxmix.populations.population import Population


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class EfficiencyBound:
    """Smallest asymptotic variances of the average effect, class effects and shares.

    ``g I^+ g' / n`` with I the information of one row and g the gradient of each number in the
    parameters. A number that moves in a direction of which the rows say nothing is not
    identified: its bound is infinite.

    Attributes
    ----------
    ate
        ``()``, of the average effect of arm 1 against the control.
    effects, shares
        ``(k,)``, classes by increasing effect.

    Examples
    --------
    >>> import jaxmix as jm
    >>> bound = jm.populations.paper_main().efficiency_bound(1000)
    >>> round(float(bound.error), 3), round(float(bound.ate), 5)
    (0.028, 0.00239)
    """

    ate: Float[Array, ""]
    effects: Float[Array, " k"]
    shares: Float[Array, " k"]

    @property
    def error(self) -> Float[Array, ""]:
        """The bound on the mean of ``sum_u (effect error)^2 + sum_u (share error)^2``."""
        return self.effects.sum(-1) + self.shares.sum(-1)


def bound(
    slope: Float[Array, "m q"],
    gradient: Float[Array, "p q"],
    order: Array,
    n: Array | float,
) -> EfficiencyBound:
    """Return the bound at an information ``slope' slope`` per row.

    Singular values of `slope` below ``8 max(m, q)`` machine epsilons of the largest count as
    zero. A functional is not identified where more than the square root of epsilon of its
    gradient's length lies in their span.

    Parameters
    ----------
    slope
        Whitened derivatives of what the rows tell, in coordinates of comparable length.
    gradient
        Derivatives of ATE, class effects and shares: ``p = 1 + 2 k`` rows.
    order
        Classes by increasing effect.
    n
        Number of rows.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> slope = jnp.diag(jnp.array([2.0, 0.0]))
    >>> found = bound(slope, jnp.array([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]), jnp.array([0]), 1)
    >>> float(found.ate), float(found.effects[0])
    (0.25, inf)
    """
    m, q = slope.shape
    # Its triangular factor has the same singular values and is quicker to decompose; where it
    # is wide, directions beyond the rank need vectors too.
    factor = jnp.linalg.qr(slope, mode="r")
    factor = jnp.concatenate([factor, jnp.zeros((max(q - m, 0), q), slope.dtype)])
    _, s, vt = jnp.linalg.svd(factor)
    kept = s > cutoff(slope) * s[0]
    along = jnp.matmul(gradient, vt.T, precision="highest")
    finite = jnp.sum(jnp.where(kept, along / jnp.where(kept, s, 1.0), 0.0) ** 2, axis=1) / n
    lost = jnp.sum(jnp.where(kept, 0.0, along) ** 2, axis=1)
    # eps is the square of sqrt(eps): lengths are compared squared.
    unknown = lost > jnp.finfo(slope.dtype).eps * jnp.sum(gradient**2, axis=1)
    variances = jnp.where(unknown, jnp.inf, finite)
    k = (len(gradient) - 1) // 2
    return EfficiencyBound(variances[0], variances[1 : k + 1][order], variances[k + 1 :][order])


def is_concrete(*values: object) -> bool:
    """Whether values can be looked at: they cannot under `jit` and `vmap`."""
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(values))


def checked_level(level: int | None, population: Population, levels: tuple[int, ...]) -> int:
    """Return the level of a bound, by default the strongest from 3 that holds.

    Raises
    ------
    ValueError
        For a level there is not, one that does not hold, and none under `jit` or `vmap`.
    """
    if level is not None and level not in levels:
        raise ValueError(f"level is {level!r}: use {', '.join(map(str, levels))} or None")
    if not is_concrete(population):
        if level is None:
            raise ValueError("under jit or vmap the level cannot be looked up: pass level=3")
        return level
    own = population.level
    if level is None:
        return max(3, own)
    if level < own:
        raise ValueError(f"level is {level}, but this population satisfies level {own} at best")
    return level


def check_range(name: str, value: object, low: float, high: float) -> None:
    """Raise ValueError for a number, or any number of a list, outside its range."""
    if not is_concrete(value):
        return
    allowed = f"from {low:g} to {high:g}" if high < np.inf else f"of at least {low:g}"
    # Looked at by numpy: under `jit` an operation of JAX on a known number is itself unknown.
    for number in arguments.array(name, value, f"use a number {allowed}").ravel().tolist():
        if not low <= number <= high:
            raise ValueError(f"{name} is {number:.6g}: use a number {allowed}")


@overload
def scalar(name: str, value: float, low: float, high: float) -> float: ...
@overload
def scalar(name: str, value: Array, low: float, high: float) -> Array: ...
def scalar(name: str, value: float | Array, low: float, high: float) -> float | Array:
    """Return one number in a range; what JAX traces is passed on as it is.

    Raises
    ------
    ValueError
        For a number outside its range, and `InputError` for what is no number.
    """
    if isinstance(value, jax.Array) and not value.ndim and value.dtype != bool:
        check_range(name, value, low, high)
        return value
    found = arguments.as_number(value)
    if found is None:
        raise InputError(f"{name} is {arguments.told(value)}: give a number")
    check_range(name, found, low, high)
    return found


def check_draw(key: object, n: object) -> None:
    """Raise `InputError` for what is no key, and for a number of rows that is none."""
    arguments.key(key)
    # Tables of counts may be drawn of as many rows as float64 counts, traced or not.
    rows = arguments.as_whole(n)
    if not (isinstance(n, jax.Array) and n.ndim == 0) and (rows is None or rows < 0):
        arguments.whole("n", n, least=0)
