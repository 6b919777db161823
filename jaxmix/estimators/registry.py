"""Every estimator by name: what `jaxmix.fit`, the command line and studies choose from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxmix.estimators import baselines, bridge, factorization, optimum, spectral, synthetic
from jaxmix.estimators.base import Estimator, Fitted, Numbers, Optimum, numbers_of_law
from jaxmix.estimators.quadrature import METHODS as QUADRATURES
from jaxmix.model.law import EffectLaw, Mixture
from jaxmix.sample.moments import Moments
from jaxmix.status import Status, where
from jaxmix.types import Json


@dataclasses.dataclass(frozen=True)
class Bridge(Estimator):
    """The outcome bridge; see `jaxmix.estimators.bridge.solve`.

    Attributes
    ----------
    num_classes
        The rank at which the proxies' moments are truncated; None truncates nothing.
    form, estimand
        As in `jaxmix.estimators.bridge.solve`.
    """

    name: ClassVar[str] = "bridge"
    level: ClassVar[int] = 4
    num_classes: int | None
    form: str = "by_arm"
    estimand: str = "ATE"

    def __call__(
        self, moments: Moments, *, key: Array | None = None, near: Optimum | None = None
    ) -> Fitted:
        """Estimate from moments."""
        found = bridge.solve(moments, rank=self.num_classes, form=self.form, estimand=self.estimand)
        numbers = Numbers(found.value.effect, found.value.means)
        return Fitted(numbers, found.status, found.stats)


@dataclasses.dataclass(frozen=True)
class Synthetic(Estimator):
    """The synthetic potential outcomes; see `jaxmix.estimators.synthetic.solve`.

    Attributes
    ----------
    num_classes, estimand, quadrature
        As there.
    """

    name: ClassVar[str] = "synthetic"
    level: ClassVar[int] = 3
    form: ClassVar[str] = "by_arm"
    num_classes: int
    estimand: str = "ATE"
    quadrature: str = "gauss"

    def __call__(
        self, moments: Moments, *, key: Array | None = None, near: Optimum | None = None
    ) -> Fitted:
        """Estimate from moments."""
        found = synthetic.solve(
            moments, self.num_classes, quadrature=self.quadrature, estimand=self.estimand
        )
        law, potential = found.value
        looks = jnp.stack([law.effects / synthetic.outcome_scale(moments)[1], law.shares])
        numbers = numbers_of_law(law, potential.means)
        return Fitted(numbers, found.status, found.stats, looks)

    def average_of(self, found: Fitted) -> Array:
        """Return the difference of the potential means.

        It needs the bridge alone: it stands where the moments of the law are indefinite.
        """
        means = found.numbers.means
        assert means is not None
        return means[1] - means[0]


@dataclasses.dataclass(frozen=True)
class Spectral(Estimator):
    """The spectral operator; see `jaxmix.estimators.spectral.solve`.

    Attributes
    ----------
    num_classes, estimand
        As there.
    """

    name: ClassVar[str] = "spectral"
    level: ClassVar[int] = 3
    form: ClassVar[str] = "by_arm"
    num_classes: int
    estimand: str = "ATE"

    def __call__(
        self, moments: Moments, *, key: Array | None = None, near: Optimum | None = None
    ) -> Fitted:
        """Estimate from moments."""
        found = spectral.solve(moments, self.num_classes, estimand=self.estimand)
        mixture = found.value
        numbers = _numbers_of(mixture, mixture.shares)
        looks = _looks(moments, mixture, mixture.shares)
        return Fitted(numbers, found.status, found.stats, looks)


@dataclasses.dataclass(frozen=True)
class Factorization(Estimator):
    """The coupled tensor factorization; see `jaxmix.estimators.factorization.solve`.

    Attributes
    ----------
    num_classes, level, estimand, loss, num_starts, max_steps, thorough
        As there; without a loss, maximum likelihood for a table and weighted moments otherwise.
    searching
        Whether it looks for the optimum, and is not given it.
    """

    name: ClassVar[str] = "factorization"
    form: ClassVar[str] = "by_arm"
    searches: ClassVar[bool] = True
    num_classes: int
    level: int = 3
    estimand: str = "ATE"
    loss: str | None = None
    num_starts: int | None = None
    max_steps: int = 500
    thorough: bool = False
    searching: bool = True

    def at_optimum(self) -> Factorization:
        """Return the same for derivatives at an optimum that was found."""
        return dataclasses.replace(self, searching=False)

    def loss_of(self, is_table: bool) -> str:
        """Return the loss that is asked for, or maximum likelihood where there is a table."""
        return self.loss or ("kl" if is_table else "gmm")

    def __call__(
        self, moments: Moments, *, key: Array | None = None, near: Optimum | None = None
    ) -> Fitted:
        """Estimate from moments; a key is needed wherever it searches."""
        k = self.num_classes
        if self.searching:
            start, weight = (None, None) if near is None else (near.start, near.weight)
            found = factorization.solve(
                moments, k, key=_key(key), level=self.level, loss=self.loss_of(moments.is_table),
                num_starts=self.num_starts, max_steps=self.max_steps, start=start, weight=weight,
                thorough=self.thorough,
            )  # fmt: skip
        else:
            assert near is not None
            found = optimum.revisit(
                moments, k, near.start, level=self.level, weight=near.weight, flat=near.flat
            )
        mixture, stats = found.value, dict(found.stats)
        where_it_ended = None
        if self.searching:
            where_it_ended = Optimum(
                stats.pop("start"), stats.pop("flat"), stats.pop("weight", None)
            )
        shares = mixture.shares
        if self.estimand == "ATT":
            shares = mixture.treated_shares(moments.one_z)
        numbers, looks = _numbers_of(mixture, shares), _looks(moments, mixture, shares)
        return Fitted(numbers, found.status, stats, looks, mixture, where_it_ended)


def _key(key: Array | None) -> Array:
    if key is None:
        raise ValueError("a search needs a key for its starts")
    return key


def _numbers_of(mixture: Mixture, shares: Array) -> Numbers[Array]:
    return numbers_of_law(EffectLaw(shares, mixture.effects()), mixture.means @ shares)


def _looks(moments: Moments, mixture: Mixture, shares: Array) -> Array:
    """Return what classes are matched by, on comparable scales."""
    centre, scale = synthetic.outcome_scale(moments)
    proxies = mixture.x_profiles / np.sqrt(len(mixture.x_profiles))
    return jnp.vstack([(mixture.means - centre) / scale, shares, proxies])


@dataclasses.dataclass(frozen=True)
class DifferenceInMeans(Estimator):
    """What would be right if treatment were randomized."""

    name: ClassVar[str] = "difference_in_means"

    def __call__(
        self, moments: Moments, *, key: Array | None = None, near: Optimum | None = None
    ) -> Fitted:
        """Estimate from moments."""
        return _average(baselines.difference_in_means(moments))


@dataclasses.dataclass(frozen=True)
class RegressionAdjustment(Estimator):
    """What would be right if the proxies were the confounders."""

    name: ClassVar[str] = "regression_adjustment"

    def __call__(
        self, moments: Moments, *, key: Array | None = None, near: Optimum | None = None
    ) -> Fitted:
        """Estimate from moments."""
        return _average(baselines.regression_adjustment(moments))


def _average(effect: Array) -> Fitted:
    return Fitted(Numbers(effect), where(~jnp.isfinite(effect), Status.NONFINITE), {})


@dataclasses.dataclass(frozen=True)
class PublishedSynthetic(Estimator):
    """The synthetic potential outcomes as published, with nothing truncated."""

    name: ClassVar[str] = "published_synthetic"
    num_classes: int

    def __call__(
        self, moments: Moments, *, key: Array | None = None, near: Optimum | None = None
    ) -> Fitted:
        """Estimate from moments."""
        law, effect = baselines.published_synthetic(moments, self.num_classes)
        return Fitted(numbers_of_law(law, None, effect), law.status, law.stats)


@dataclasses.dataclass(frozen=True)
class _SearchOfOthers(Estimator):
    """A baseline that searches; options that are None are the baseline's own.

    Attributes
    ----------
    solve
        The baseline.
    num_classes, num_starts, max_steps, tolerance
        As there.
    """

    searches: ClassVar[bool] = True
    solve: ClassVar[Callable[..., EffectLaw]]
    num_classes: int
    num_starts: int | None = None
    max_steps: int | None = None
    tolerance: float | None = None

    def __call__(
        self, moments: Moments, *, key: Array | None = None, near: Optimum | None = None
    ) -> Fitted:
        """Estimate from moments."""
        options = {name: getattr(self, name) for name in _SEARCH}
        given = {name: value for name, value in options.items() if value is not None}
        law = type(self).solve(moments, self.num_classes, key=_key(key), **given)
        return Fitted(numbers_of_law(law), law.status, law.stats)


class NonnegativeParafac(_SearchOfOthers):
    """A non-negative CP decomposition, as if level 2 held; see `baselines.nn_parafac`."""

    name: ClassVar[str] = "nn_parafac"
    solve = staticmethod(baselines.nn_parafac)


class ExpectationMaximization(_SearchOfOthers):
    """Plain EM; see `baselines.em`."""

    name: ClassVar[str] = "em"
    solve = staticmethod(baselines.em)


@dataclasses.dataclass(frozen=True)
class Method:
    """An entry of the registry: an estimator, what it needs, and what may be asked of it.

    Attributes
    ----------
    estimator
        Its type.
    levels
        The levels at which `jaxmix.fit` offers it; none for what is there for contrast.
    options
        Those of studies: each option's name with the values it may take, or their type.
        Numbers are above 0.
    needs_table
        Whether every view has to be one-hot.
    needs_rank
        Whether the number of classes is at most the features of the smaller view.
    differentiable
        Whether intervals by derivatives exist.
    version
        Which of its solvers this is: counted up when its numbers change, so that a study never
        mixes tables of two solvers.
    """

    estimator: type[Estimator]
    levels: tuple[int, ...] = ()
    options: Mapping[str, type | tuple[object, ...]] = dataclasses.field(default_factory=dict)
    needs_table: bool = False
    needs_rank: bool = False
    differentiable: bool = True
    version: int = 1

    def make(self, num_classes: int, options: Mapping[str, Json]) -> Estimator:
        """Return the estimator with the options of a study.

        Those without classes know no number of them; the bridge, unless told otherwise, is
        truncated at it.
        """
        own = dict(options)
        fields = {field.name for field in dataclasses.fields(self.estimator)}
        if "num_classes" in fields:
            own["num_classes"] = num_classes if own.pop("truncate", True) else None
        return self.estimator(**own)


_SEARCH = {"num_starts": int, "max_steps": int, "tolerance": float}
_ENTRIES = (
    Method(DifferenceInMeans),
    Method(RegressionAdjustment, needs_table=True),
    # Version 2: singular systems by their scale, equal singular values refused.
    Method(Bridge, (4,), {"truncate": bool}, needs_rank=True, version=2),
    Method(Synthetic, (3,), {"quadrature": tuple(QUADRATURES)}, needs_rank=True, version=2),
    Method(PublishedSynthetic, needs_rank=True),
    Method(Spectral, (3,), needs_rank=True, version=2),
    Method(
        Factorization,
        (2, 3),
        {"level": (2, 3), "loss": factorization.LOSSES, "num_starts": int, "max_steps": int},
        version=2,  # the optimum to the precision of its derivatives, probabilities set to 0
    ),
    Method(NonnegativeParafac, (), _SEARCH, needs_table=True, differentiable=False),
    Method(ExpectationMaximization, (), _SEARCH, needs_table=True, differentiable=False),
)
METHODS: Mapping[str, Method] = {entry.estimator.name: entry for entry in _ENTRIES}
"""Every estimator, by the name that users give."""


def names_at(level: int) -> tuple[str, ...]:
    """Return the names of the methods of `jaxmix.fit` at a level.

    Examples
    --------
    >>> names_at(2)
    ('factorization',)
    """
    return tuple(name for name, method in METHODS.items() if level in method.levels)
