"""All-discrete populations with known truth."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxmix import moments
from jaxmix.mixture import EffectLaw
from jaxmix.solvers.sampling import multinomial


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DiscretePopulation:
    """A population in which class, treatment, proxies and outcome are all discrete.

    ``P(u, t, z, x, y) = shares[u] zt[u, t, z] x[u, x] y[u, t, x, y]``: Z may cause T, and where
    `y` varies with x, X causes Y (level 4 then holds, level 3 does not).

    Attributes
    ----------
    shares
        ``(k,)``: ``P(U=u)``.
    zt
        ``(k, a, d_z)``: ``P(T=t, Z=z | U=u)``.
    x
        ``(k, d_x)``: ``P(X=x | U=u)``.
    y
        ``(k, a, d_x, d_y)``: ``P(Y=y | T=t, X=x, U=u)``.
    outcome_values
        ``(d_y,)`` the outcome in each of its levels.

    Examples
    --------
    >>> import jax, jaxmix as jm
    >>> population = jm.populations.paper_appendix()
    >>> counts = population.counts(jax.random.key(0), 1000)
    >>> counts.shape, int(counts.sum())
    ((2, 4, 4, 2), 1000)
    """

    shares: Float[Array, " k"]
    zt: Float[Array, "k a d_z"]
    x: Float[Array, "k d_x"]
    y: Float[Array, "k a d_x d_y"]
    outcome_values: Float[Array, " d_y"]

    def joint(self) -> Float[Array, "a d_z d_x d_y"]:
        """Return ``P(T, Z, X, Y)``."""
        return jnp.einsum(
            "u,utz,ux,utxy->tzxy", self.shares, self.zt, self.x, self.y, precision="highest"
        )

    def moments(self) -> moments.Moments:
        """Return the exact moments."""
        return moments.of_population(self.joint(), self.outcome_values)

    @property
    def class_means(self) -> Float[Array, "a k"]:
        """``E[Y(t) | U=u]``."""
        return jnp.einsum("ux,utxy,y->tu", self.x, self.y, self.outcome_values, precision="highest")

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
        mass = self.shares * self.zt[:, 1].sum(-1)
        return self._law(mass / mass.sum())

    @property
    def ate(self) -> Float[Array, ""]:
        """The average effect of arm 1 against the control."""
        return self.law.mean

    @property
    def att(self) -> Float[Array, ""]:
        """The average effect among those in arm 1."""
        return self.treated_law.mean

    def counts(self, key: Array, n: int) -> Float[Array, "a d_z d_x d_y"]:
        """Draw the table of counts of n rows; the cost does not depend on n."""
        return _counts(self.joint(), key, n)

    def sample(self, key: Array, n: int) -> dict[str, Int[Array, " n"] | Float[Array, " n"]]:
        """Draw n rows: the columns T, Z, X, Y, and the hidden class U."""
        return _sample(self, key, n)


@jax.jit
def _counts(joint: Float[Array, "a d_z d_x d_y"], key: Array, n: Array) -> Array:
    return multinomial(key[None], n, joint.reshape(-1))[0].reshape(joint.shape)


@functools.partial(jax.jit, static_argnames="n")
def _sample(population: DiscretePopulation, key: Array, n: int) -> dict[str, Array]:
    keys = jax.random.split(key, 4)
    u = jax.random.categorical(keys[0], jnp.log(population.shares), shape=(n,))
    k, a, d_z = population.zt.shape
    tz = jax.random.categorical(keys[1], jnp.log(population.zt.reshape(k, a * d_z))[u])
    x = jax.random.categorical(keys[2], jnp.log(population.x)[u])
    t, z = tz // d_z, tz % d_z
    y = jax.random.categorical(keys[3], jnp.log(population.y)[u, t, x])
    return {"T": t, "Z": z, "X": x, "Y": population.outcome_values[y], "U": u}
