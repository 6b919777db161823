"""The estimators of a study: entries of the registry with their options, under a label."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxmix.estimators.base import Estimator, Fitted
from jaxmix.estimators.registry import METHODS
from jaxmix.sample.moments import Moments
from jaxmix.types import Json


class Estimated(NamedTuple):
    """What every estimator gives in a study.

    Attributes
    ----------
    ate
        The average effect.
    effects, shares
        ``(k,)`` by increasing effect; ``(0,)`` where the method has no classes.
    status
        int32, a `jaxmix.Status`.
    """

    ate: Float[Array, ""]
    effects: Float[Array, " k"]
    shares: Float[Array, " k"]
    status: Int[Array, ""]


@dataclasses.dataclass(frozen=True)
class Chosen:
    """A method with its options, under the name that tables and figures show.

    Attributes
    ----------
    label
        The name in the study.
    method
        A key of `jaxmix.estimators.registry.METHODS`.
    options
        Pairs of an option and its value, sorted.
    """

    label: str
    method: str
    options: tuple[tuple[str, Json], ...] = ()

    @property
    def is_weighted(self) -> bool:
        """Whether the method needs the covariance of the moments."""
        return ("loss", "gmm") in self.options

    @property
    def is_likelihood(self) -> bool:
        """Whether the method is a factorization by maximum likelihood."""
        return self.method == "factorization" and dict(self.options).get("loss", "kl") == "kl"

    def estimator(self, num_classes: int) -> Estimator:
        """Return the estimator itself."""
        return METHODS[self.method].make(num_classes, dict(self.options))

    def __call__(self, moments: Moments, k: int, key: Array) -> Estimated:
        """Estimate from moments."""
        own = self.estimator(k)
        return _estimated(own, own(moments, key=key))

    def with_resampler(
        self, moments: Moments, k: int, key: Array
    ) -> tuple[Estimated, Callable[[Moments, Array], Estimated]]:
        """Return the estimate, and how its resamples are estimated from moments and a key.

        A search starts them at the estimate, and keeps its weight.
        """
        own = self.estimator(k)
        found = own(moments, key=key)

        def again(resampled: Moments, key: Array) -> Estimated:
            return _estimated(own, own(resampled, key=key, near=found.optimum))

        return _estimated(own, found), again


def _estimated(estimator: Estimator, found: Fitted) -> Estimated:
    numbers, effect = found.numbers, estimator.average_of(found)
    none = jnp.zeros(0, effect.dtype)
    shares, effects = (none if v is None else v for v in (numbers.shares, numbers.effects))
    return Estimated(effect, effects, shares, found.status)
