"""The type of an estimator, and what every estimator returns."""

from __future__ import annotations

import abc
import dataclasses
from typing import ClassVar, Generic, NamedTuple, Protocol, Self, TypeAlias, TypeVar

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxmix.model.law import EffectLaw, Mixture
from jaxmix.model.structure import Factors
from jaxmix.sample.moments import Moments

_Value = TypeVar("_Value")

Start: TypeAlias = Factors | Array
"""Where a search ended: the factors of a table, or the coordinates of a fit to moments."""


class Numbers(NamedTuple, Generic[_Value]):
    """The numbers that have standard errors and intervals; None where there are none.

    One type holds estimates, standard errors, and intervals with their ends on a last axis.

    Attributes
    ----------
    effect
        The average effect (or the coefficient of the pooled bridge), in outcome units.
    means
        ``(a,)`` mean outcomes under each arm.
    naive
        The difference in means, for contrast.
    shares, effects
        ``(k,)`` of the classes, by increasing effect.
    cumulative
        ``(k - 1,)`` share of the first 1, 2, ... classes.
    spread
        Standard deviation of the class effects.
    harmed
        Share of people in classes whose average effect is harmful; a step function, so that
        it has no standard error by derivatives.
    """

    effect: _Value | None = None
    means: _Value | None = None
    naive: _Value | None = None
    shares: _Value | None = None
    effects: _Value | None = None
    cumulative: _Value | None = None
    spread: _Value | None = None
    harmed: _Value | None = None

    def known(self) -> dict[str, _Value]:
        """Return those that there are, by name."""
        return {name: value for name, value in self._asdict().items() if value is not None}


class Optimum(NamedTuple):
    """Where a search ended: resamples start there, and derivatives are taken there.

    Attributes
    ----------
    start
        ``stats["start"]`` of the solution.
    flat
        Whether the optimum is flat.
    weight
        The weight of the moments; None for maximum likelihood.
    """

    start: Start
    flat: Array
    weight: Array | None = None


class Fitted(NamedTuple):
    """What every estimator returns.

    Attributes
    ----------
    numbers
        Those that have standard errors and intervals.
    status
        int32, a `jaxmix.Status`.
    stats
        Named numbers of the solver; see the estimator.
    looks
        ``(p, k)`` means, share and proxy profile of each class on comparable scales, by which
        classes of resamples are matched to those of the estimate; None without classes.
    mixture
        The classes with their profiles; None where the estimator gives none of z and y.
    optimum
        Where the search ended; None for closed forms.
    """

    numbers: Numbers[Array]
    status: Int[Array, ""]
    stats: dict[str, Array]
    looks: Float[Array, "p k"] | None = None
    mixture: Mixture | None = None
    optimum: Optimum | None = None

    @property
    def law(self) -> EffectLaw:
        """The effect law, where there are classes."""
        shares, effects = self.numbers.shares, self.numbers.effects
        assert shares is not None
        assert effects is not None
        return EffectLaw(shares, effects)


@dataclasses.dataclass(frozen=True)
class Estimator(abc.ABC):
    """A function of moments with its settings; hashable, so that it is compiled once.

    Attributes
    ----------
    name
        Its key in `jaxmix.estimators.registry.METHODS`.
    searches
        Whether it needs a key, for the starts of a search.
    """

    name: ClassVar[str]
    searches: ClassVar[bool] = False

    @abc.abstractmethod
    def __call__(
        self, moments: Moments, *, key: Array | None = None, near: Optimum | None = None
    ) -> Fitted:
        """Estimate from moments.

        Parameters
        ----------
        moments
            Of the data, or of a resample.
        key
            Where the estimator searches: JAX key of its starts.
        near
            Where it searches: an optimum nearby, in place of other starts; resamples are given
            that of the estimate, and keep its weight.
        """

    def average_of(self, found: Fitted) -> Array:
        """Return the average effect of an estimate as this estimator knows it best."""
        assert found.numbers.effect is not None
        return found.numbers.effect

    def loss_of(self, is_table: bool) -> str | None:
        """Return by which loss moments are fitted: ``"kl"`` or ``"gmm"``; None for closed forms.

        ``"kl"`` is maximum likelihood, of tables; ``"gmm"`` weighs moments by their covariance.

        Parameters
        ----------
        is_table
            Whether the moments are the probabilities of the cells of a table.
        """
        del is_table
        return None

    def at_optimum(self) -> Self:
        """Return the same for derivatives at an estimate that was found, given as `near`.

        It searches and moves nothing. A closed form is its own.
        """
        return self


class LevelEstimator(Protocol):
    """An estimator of effects at a level of the hierarchy, as `jaxmix.fit` takes it.

    Attributes
    ----------
    name
        Its key in the registry.
    searches
        Whether it needs a key.
    level
        2, 3 or 4.
    num_classes
        Number of classes; at level 4 the rank that is kept, None for all.
    form
        ``"by_arm"``, or ``"pooled"`` at level 4.
    estimand
        ``"ATE"`` or ``"ATT"``.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def searches(self) -> bool: ...  # noqa: D102
    @property
    def level(self) -> int: ...  # noqa: D102
    @property
    def num_classes(self) -> int | None: ...  # noqa: D102
    @property
    def form(self) -> str: ...  # noqa: D102
    @property
    def estimand(self) -> str: ...  # noqa: D102

    def __call__(
        self, moments: Moments, *, key: Array | None = None, near: Optimum | None = None
    ) -> Fitted:
        """Estimate from moments; see `Estimator`."""

    def loss_of(self, is_table: bool) -> str | None:
        """Return by which loss moments are fitted; see `Estimator`."""

    def at_optimum(self) -> LevelEstimator:
        """Return the same for derivatives at an estimate; see `Estimator`."""


def numbers_of_law(
    law: EffectLaw, means: Array | None = None, effect: Array | None = None
) -> Numbers[Array]:
    """Return the numbers of an estimate with classes.

    The effect is the mean of the law where none is given, so that a table of classes adds up to
    the headline.
    """
    if law.shares.shape[-1] == 1:  # has everybody, whatever rounding leaves of its share
        law = EffectLaw(jnp.ones_like(law.shares), law.effects)
    return Numbers(
        effect=law.mean if effect is None else effect,
        means=means,
        shares=law.shares,
        effects=law.effects,
        cumulative=jnp.cumsum(law.shares)[:-1],
        spread=law.spread,
    )
