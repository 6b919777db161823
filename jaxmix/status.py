"""How estimates go wrong: statuses are data, and numerical code raises nothing.

Numerical code never raises on values: it returns a `Status` beside its number, so that it
can run under ``jit`` and ``vmap``. Input is checked on the host and raises `InputError`.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from jaxmix.exceptions import EstimateError as EstimateError
from jaxmix.exceptions import InputError as InputError
from jaxmix.exceptions import UnknownColumn as UnknownColumn

_Value = TypeVar("_Value")


class Status(enum.IntEnum):
    """What became of an estimate; the members up to `NOT_IDENTIFIED` leave it usable.

    Examples
    --------
    >>> Status.WEAK_PROXIES.usable, Status.COMPLEX_SPECTRUM.usable
    (True, False)
    """

    SUCCESS = 0
    BOUNDARY = 1
    WEAK_PROXIES = 2
    STARTS_DISAGREE = 3
    NOT_IDENTIFIED = 4
    MAX_STEPS = 10
    OUT_OF_RANGE = 11
    COMPLEX_SPECTRUM = 12
    INDEFINITE_MOMENTS = 13
    RANK_DEFICIENT = 14
    NONFINITE = 15
    INCONSISTENT = 16

    @property
    def usable(self) -> bool:
        """Whether the estimate may be used (perhaps with a warning)."""
        return self < Status.MAX_STEPS

    @property
    def message(self) -> str:
        """What happened, the likely causes, and what to change."""
        return _MESSAGES[self]


_MESSAGES = {
    Status.SUCCESS: "the estimate is regular",
    Status.BOUNDARY: ("a probability sits at 0 or 1; intervals near the boundary are approximate"),
    Status.WEAK_PROXIES: (
        "the proxies are weak: the smallest singular value of E[z x] that is used is not far from "
        "its sampling noise, so estimates are unstable and intervals unreliable; use stronger "
        "proxies, more rows, or fewer classes"
    ),
    Status.STARTS_DISAGREE: ("the starts ended in different optima; raise num_starts"),
    Status.NOT_IDENTIFIED: (
        "the optimum is flat: the fit is valid, the class profiles are not unique; use fewer "
        "classes or more proxies"
    ),
    Status.MAX_STEPS: "the solver ran out of steps; raise max_steps",
    Status.OUT_OF_RANGE: (
        "a share lies outside [0, 1], or an effect outside what the outcome's range allows; "
        "weak proxies, too many classes, or assumptions that do not hold"
    ),
    Status.COMPLEX_SPECTRUM: (
        "the effects came out as complex numbers, whose real parts are no estimate: sampling "
        "noise, too many classes, or assumptions that do not hold; use more rows or fewer classes"
    ),
    Status.INDEFINITE_MOMENTS: (
        "the synthetic moments are those of no distribution: sampling noise, too many classes, "
        "or assumptions that do not hold; use more rows, fewer classes, or the spectral method"
    ),
    Status.RANK_DEFICIENT: (
        "E[z x] has a smaller rank than the fit needs in some arm: a proxy is uninformative, "
        "redundant or nearly constant there, or two of its singular values are equal where it is "
        "cut to the number of classes; use fewer classes or other proxies"
    ),
    Status.NONFINITE: (
        "the computation met numbers that are not finite: a singular system or an overflow; "
        "look for redundant columns, empty arms and extreme values"
    ),
    Status.INCONSISTENT: (
        "numbers of the result contradict each other, which is a fault of the software and not of "
        "the data: none of them is shown; please report it with the table"
    ),
}


NO_ESTIMATE = tuple(
    int(status)
    for status in (
        Status.COMPLEX_SPECTRUM,
        Status.INDEFINITE_MOMENTS,
        Status.RANK_DEFICIENT,
        Status.NONFINITE,
    )
)
"""Resamples that end so have no estimate; out of range, they have one, and leaving it out would
make intervals look better than they are."""


def worst(*statuses: Int[Array, "..."] | Status) -> Int[Array, "..."]:
    """Return the gravest of several statuses, elementwise (larger numbers are graver)."""
    result = jnp.asarray(Status.SUCCESS, jnp.int32)
    for status in statuses:
        result = jnp.maximum(result, jnp.asarray(status, jnp.int32))
    return result


def where(condition: Bool[Array, "..."], status: Status) -> Int[Array, "..."]:
    """Return `status` where the condition holds and SUCCESS elsewhere."""
    return jnp.where(condition, jnp.int32(status), jnp.int32(Status.SUCCESS))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Solution(Generic[_Value]):
    """What every estimator returns: a value, what became of it, and numbers beside it.

    Attributes
    ----------
    value
        The estimate (a pytree).
    status
        int32, a `Status`.
    stats
        Named numbers (and pytrees): sizes of repairs, gaps, conditions.
    """

    value: _Value
    status: Int[Array, ""]
    stats: dict[str, Any]  # numbers, and by estimator where a search is to start


def settle(status: Int[Array, ""], value: object) -> Int[Array, ""]:
    """Return the status, or NONFINITE where the value is not finite and no cause is known."""
    return jnp.where(
        status < Status.MAX_STEPS, worst(status, where(not_finite(value), Status.NONFINITE)), status
    )


def not_finite(tree: object) -> Bool[Array, ""]:
    """Whether any number of a pytree is not finite."""
    leaves = [jnp.any(~jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]
    return jnp.any(jnp.stack(leaves))
