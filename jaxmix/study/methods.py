"""The estimators a study can name, each as one function of moments."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxmix.estimators import baselines, bridge, factorization, spectral, synthetic
from jaxmix.mixture import EffectLaw
from jaxmix.moments import Moments
from jaxmix.status import Status, where


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


Estimator = Callable[..., Estimated]


@dataclasses.dataclass(frozen=True)
class Method:
    """An estimator by name: what it needs, and which options it takes.

    Attributes
    ----------
    estimate
        ``(moments, k, key, **options) -> Estimated``.
    options
        Each option's name with the values it may take, or their type: numbers are then above 0.
    needs_table
        Whether every view has to be one-hot.
    needs_rank
        Whether the number of classes is at most the features of the smaller view.
    differentiable
        Whether intervals by the delta method exist.
    """

    estimate: Estimator
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    needs_table: bool = False
    needs_rank: bool = False
    differentiable: bool = True


@dataclasses.dataclass(frozen=True)
class Chosen:
    """A method with its options, under the name that tables and figures show.

    Attributes
    ----------
    label
        The name in the study.
    method
        A key of `METHODS`.
    options
        Pairs of an option and its value, sorted.
    """

    label: str
    method: str
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def is_weighted(self) -> bool:
        """Whether the method needs the covariance of the moments."""
        return ("loss", "gmm") in self.options

    @property
    def is_likelihood(self) -> bool:
        """Whether the method is a factorization by maximum likelihood."""
        return self.method == "factorization" and dict(self.options).get("loss", "kl") == "kl"

    def __call__(self, moments: Moments, k: int, key: Array) -> Estimated:
        """Estimate from moments."""
        return METHODS[self.method].estimate(moments, k, key, **dict(self.options))

    def with_resampler(
        self, moments: Moments, k: int, key: Array
    ) -> tuple[Estimated, Callable[[Moments, Array], Estimated]]:
        """Return the estimate, and how its resamples are estimated from moments and a key.

        A factorization starts them at the estimate, and keeps its weight.
        """
        options = dict(self.options)
        if self.method != "factorization":
            return self(moments, k, key), lambda resampled, own: self(resampled, k, own)
        law = factorization.effect_law(moments, k, key=key, **options)
        assert law.stats is not None
        near: dict[str, Any] = {"start": law.stats["start"]}
        if self.is_weighted:
            near["weight"] = law.stats["weight"]

        def again(resampled: Moments, own: Array) -> Estimated:
            return _of_law(factorization.effect_law(resampled, k, key=own, **options, **near))

        return _of_law(law), again


def _of_law(law: EffectLaw, ate: Array | None = None) -> Estimated:
    return Estimated(law.mean if ate is None else ate, law.effects, law.shares, law.status)


def _average_only(ate: Array, status: Array | None = None) -> Estimated:
    if status is None:
        status = where(~jnp.isfinite(ate), Status.NONFINITE)
    none = jnp.zeros(0, ate.dtype)
    return Estimated(ate, none, none, status)


def _difference_in_means(moments: Moments, k: int, key: Array) -> Estimated:
    return _average_only(baselines.difference_in_means(moments))


def _regression_adjustment(moments: Moments, k: int, key: Array) -> Estimated:
    return _average_only(baselines.regression_adjustment(moments))


def _bridge(moments: Moments, k: int, key: Array, *, truncate: bool = True) -> Estimated:
    solution = bridge.solve(moments, rank=k if truncate else None)
    return _average_only(solution.value.effect, solution.status)


def _synthetic(moments: Moments, k: int, key: Array, **options: Any) -> Estimated:
    # The average needs the bridge alone: it stands where the moments of the law are indefinite.
    law, potential = synthetic.solve(moments, k, **options).value
    return _of_law(law, potential.effect)


def _published(moments: Moments, k: int, key: Array) -> Estimated:
    law, ate = baselines.published_synthetic(moments, k)
    return _of_law(law, ate)


def _spectral(moments: Moments, k: int, key: Array) -> Estimated:
    return _of_law(spectral.effect_law(moments, k))


def _keyed(
    function: Callable[..., EffectLaw], moments: Moments, k: int, key: Array, **options: Any
) -> Estimated:
    return _of_law(function(moments, k, key=key, **options))


METHODS = {
    "difference_in_means": Method(_difference_in_means),
    "regression_adjustment": Method(_regression_adjustment, needs_table=True),
    "bridge": Method(_bridge, {"truncate": bool}, needs_rank=True),
    "synthetic": Method(
        _synthetic, {"quadrature": ("gauss", "pencil", "prony")}, needs_rank=True
    ),
    "published_synthetic": Method(_published, needs_rank=True),
    "spectral": Method(_spectral, needs_rank=True),
    "factorization": Method(
        functools.partial(_keyed, factorization.effect_law),
        {"level": (2, 3), "loss": factorization.LOSSES, "num_starts": int, "max_steps": int},
    ),
    "nn_parafac": Method(
        functools.partial(_keyed, baselines.nn_parafac),
        {"num_starts": int, "max_steps": int, "tolerance": float},
        needs_table=True,
        differentiable=False,
    ),
    "em": Method(
        functools.partial(_keyed, baselines.em),
        {"num_starts": int, "max_steps": int, "tolerance": float},
        needs_table=True,
        differentiable=False,
    ),
}  # fmt: skip
"""Every estimator that a study can run, by name."""
