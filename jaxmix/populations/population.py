"""What is true of every population, whatever its columns are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmix.model.law import EffectLaw

if TYPE_CHECKING:
    from jaxmix.populations.bounds import EfficiencyBound
    from jaxmix.sample.moments import Moments


class Population:
    """The effect law of a population, and what follows from it.

    A population adds `shares`, `class_means`, `arm_masses` and `level`, and draws rows.
    """

    shares: Float[Array, " k"]

    if TYPE_CHECKING:  # fields of some populations, properties of others; and what each has

        @property
        def class_means(self) -> Float[Array, "a k"]:
            """``E[Y(t) | U=u]``."""

        @property
        def arm_masses(self) -> Float[Array, "a k"]:
            """``P(T=t, U=u)``."""

        @property
        def level(self) -> int:
            """The strongest level that holds."""

        def sample(self, key: Array, n: int) -> dict[str, Array]:
            """Draw n rows, by column."""

        def sample_moments(
            self, key: Array, n: int | Array, *, covariance: bool = False
        ) -> Moments:
            """Return the moments of n fresh rows."""

        def efficiency_bound(
            self, n: float | Array, *, level: int | None = None
        ) -> EfficiencyBound:
            """Return how well the law can be known from n rows in the model of a level."""

    @property
    def num_classes(self) -> int:
        """Number of classes k."""
        return self.shares.shape[-1]

    def _law(self, shares: Float[Array, " k"]) -> EffectLaw:
        means = self.class_means
        effects = means[1] - means[0]
        order = jnp.argsort(effects)
        return EffectLaw(shares[order], effects[order])

    @property
    def law(self) -> EffectLaw:
        """The true effect law of arm 1 against the control."""
        return self._law(self.shares)

    @property
    def treated_law(self) -> EffectLaw:
        """The true effect law among those in arm 1."""
        mass = self.arm_masses[1]
        return self._law(mass / mass.sum())

    @property
    def ate(self) -> Float[Array, ""]:
        """The average effect of arm 1 against the control."""
        return self.law.mean

    @property
    def att(self) -> Float[Array, ""]:
        """The average effect among those in arm 1."""
        return self.treated_law.mean

    @property
    def naive(self) -> Float[Array, ""]:
        """The difference in means, ``E[Y | T=1] - E[Y | T=0]``; its bias is naive - ATE.

        Given the class, Y(t) does not depend on T: ``E[Y | T=t] = sum_u P(U=u | T=t) E[Y(t) | u]``.
        """
        mass = self.arm_masses
        means = jnp.sum(mass * self.class_means, axis=1) / mass.sum(1)
        return means[1] - means[0]
