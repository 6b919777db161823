"""What is estimated: the effect law, and the classes behind it."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxmix.solvers.linalg import power_of_two
from jaxmix.status import Status, where, worst


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class EffectLaw:
    """The distribution of class effects, ``P(delta_U = effects[u]) = shares[u]``.

    Classes are ordered by increasing effect. An atom of share exactly zero is an unused slot
    (two classes had one effect and were merged); its effect repeats its neighbour's. The law
    says nothing of the spread of individual effects within a class.

    Attributes
    ----------
    shares
        ``(k,)``, sum to 1.
    effects
        ``(k,)`` average effect within each class, in outcome units.
    status
        int32, a `jaxmix.Status`.
    stats
        Named numbers: sizes of repairs, imaginary parts, gaps.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> law = EffectLaw(shares=jnp.array([0.25, 0.75]), effects=jnp.array([-1.0, 1.0]))
    >>> float(law.mean), float(law.share_harmed()), float(law.quantile(0.5))
    (0.5, 0.25, 1.0)
    """

    shares: Float[Array, " k"]
    effects: Float[Array, " k"]
    status: Int[Array, ""] = dataclasses.field(default_factory=lambda: jnp.int32(0))
    stats: dict[str, Array] = dataclasses.field(default_factory=dict)

    @property
    def mean(self) -> Float[Array, ""]:
        """The average effect, ``sum_u shares[u] effects[u]``."""
        return jnp.sum(self.shares * self.effects, axis=-1)

    @property
    def variance(self) -> Float[Array, ""]:
        """The variance of the class effects."""
        return jnp.sum(self.shares * (self.effects - self.mean[..., None]) ** 2, axis=-1)

    @property
    def spread(self) -> Float[Array, ""]:
        """The standard deviation of the class effects; its derivative is 0 where it is 0."""
        unit = power_of_two(jnp.abs(self.effects).max(axis=-1))
        variance = dataclasses.replace(self, effects=self.effects / unit[..., None]).variance
        apart = variance > 0
        return unit * jnp.where(apart, jnp.sqrt(jnp.where(apart, variance, 1.0)), 0.0)

    def share_harmed(self, better: str = "higher") -> Float[Array, ""]:
        """Return the share of people in classes whose *average* effect is harmful.

        The share of individuals who are harmed is not identified.
        """
        harmful = self.effects < 0 if better == "higher" else self.effects > 0
        return jnp.sum(jnp.where(harmful, self.shares, 0.0), axis=-1)

    def cdf(self, value: Float[Array, ""] | float) -> Float[Array, ""]:
        """Return the share of people in classes whose average effect is at most `value`."""
        return jnp.sum(jnp.where(self.effects <= value, self.shares, 0.0), axis=-1)

    def quantile(self, level: Float[Array, ""] | float) -> Float[Array, ""]:
        """Return the smallest class effect whose cumulative share reaches `level`."""
        k = self.shares.shape[-1]
        slack = 4 * k * jnp.finfo(self.shares.dtype).eps  # rounding of a cumulative sum
        short = jnp.cumsum(self.shares, axis=-1) < level - slack
        index = jnp.minimum(short.sum(-1, keepdims=True), k - 1)
        return jnp.take_along_axis(self.effects, index, axis=-1)[..., 0]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Mixture:
    """The classes: how large they are, how they respond, what their proxies look like.

    Attributes
    ----------
    shares
        ``(k,)``: ``P(U=u)``, or ``P(U=u | T=arm)`` for the treated.
    means
        ``(a, k)``: ``E[Y(t) | U=u]`` in outcome units.
    x_profiles
        ``(d_x, k)``: ``E[phi_x | U=u]``.
    z_profiles
        ``(a, d_z, k)``: ``E[1{T=t} phi_z | U=u]``; None where the method does not give them.
    y_profiles
        ``(a, d_y, k)``: ``E[phi_y | T=t, U=u]``; None where the method does not give them.
    """

    shares: Float[Array, " k"]
    means: Float[Array, "a k"]
    x_profiles: Float[Array, "d_x k"]
    z_profiles: Float[Array, "a d_z k"] | None = None
    y_profiles: Float[Array, "a d_y k"] | None = None

    def effects(self, arm: int = 1) -> Float[Array, " k"]:
        """Return the class effects of an arm against the control."""
        return self.means[..., arm, :] - self.means[..., 0, :]

    def take(self, order: Int[Array, " k"]) -> Mixture:
        """Return the classes in another order."""
        found: Mixture = jax.tree.map(lambda values: jnp.take(values, order, axis=-1), self)
        return found

    def treated_shares(self, one_z: Float[Array, " d_z"], arm: int = 1) -> Float[Array, " k"]:
        """Return ``P(U=u | T=arm)`` by Bayes' rule; `one_z` gives the constant 1 from phi_z."""
        assert self.z_profiles is not None
        mass = self.shares * jnp.einsum("zu,z->u", self.z_profiles[arm], one_z)
        return mass / mass.sum()

    def posterior(
        self,
        t: Int[Array, " n"],
        z: Float[Array, "n d_z"],
        x: Float[Array, "n d_x"],
        y: Float[Array, "n d_y"] | None = None,
    ) -> Float[Array, "n k"]:
        """Return ``P(U=u | t, z, x, y)`` of rows with one-hot features, without y where None.

        For mixtures by factorization, which have all profiles. Rows that are impossible under the
        fit have NaN.

        Examples
        --------
        >>> import jax, jax.numpy as jnp, jaxmix as jm
        >>> counts = jm.populations.paper_main().counts(jax.random.key(0), 100_000)
        >>> mixture = jm.factorization.solve(counts, 2, key=jax.random.key(1)).value
        >>> rows = jnp.eye(2)
        >>> found = mixture.posterior(jnp.array([0, 1]), rows, rows, rows)
        >>> [round(float(total), 6) for total in found.sum(1)]
        [1.0, 1.0]
        """
        assert self.z_profiles is not None
        assert self.y_profiles is not None
        joint = self.shares * jnp.einsum("nz,nzu->nu", z, self.z_profiles[t])
        joint = joint * (x @ self.x_profiles)
        if y is not None:
            joint = joint * jnp.einsum("ny,nyu->nu", y, self.y_profiles[t])
        return joint / joint.sum(1, keepdims=True)

    @property
    def law(self) -> EffectLaw:
        """The effect law of arm 1 against the control, by increasing effect."""
        order = jnp.argsort(self.effects(), axis=-1)
        shares, effects = (
            jnp.take_along_axis(values, order, axis=-1) for values in (self.shares, self.effects())
        )
        return EffectLaw(shares, effects)


def range_status(
    shares: Float[Array, " k"], effects: Float[Array, " k"], range_y: Float[Array, " 2"]
) -> Int[Array, ""]:
    """Return OUT_OF_RANGE for a share outside [0, 1] or an effect the outcome's range forbids."""
    slack = jnp.sqrt(jnp.finfo(shares.dtype).eps)
    span = range_y[1] - range_y[0]
    return worst(
        where(jnp.any((shares < -slack) | (shares > 1 + slack)), Status.OUT_OF_RANGE),
        where(jnp.any(jnp.abs(effects) > span * (1 + slack)), Status.OUT_OF_RANGE),
    )
