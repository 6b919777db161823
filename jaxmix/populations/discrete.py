"""All-discrete populations with known truth."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

from jaxmix.populations.bounds import EfficiencyBound, bound, check_draw, checked_level
from jaxmix.populations.population import Population
from jaxmix.sample.moments import Moments, from_counts
from jaxmix.solvers.compiling import compiled
from jaxmix.solvers.sampling import multinomial


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DiscretePopulation(Population):
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
    >>> population.num_classes, population.level, round(float(population.naive), 6)
    (2, 2, 0.25)
    """

    shares: Float[Array, " k"]
    zt: Float[Array, "k a d_z"]
    x: Float[Array, "k d_x"]
    y: Float[Array, "k a d_x d_y"]
    outcome_values: Float[Array, " d_y"]

    @property
    def level(self) -> int:
        """The strongest level whose independences hold, 2, 3 or 4; of concrete values alone.

        Probabilities that differ by less than the square root of the machine epsilon count as
        equal. Ranks are not looked at: identification may fail at a level that holds.
        """
        shares, zt, x, y = (np.asarray(a) for a in (self.shares, self.zt, self.x, self.y))
        slack = float(np.sqrt(np.finfo(shares.dtype).eps))
        here = shares > 0
        # An outcome law given an (t, x) that does not occur says nothing.
        arm = zt.sum(-1)
        occurs = here[:, None, None] & (arm > 0)[:, :, None] & (x > 0)[:, None, :]
        mean = np.einsum("ux,utxy->uty", x, y)[:, :, None, :]
        if (np.abs(y - mean).max(-1)[occurs] > slack).any():
            return 4
        apart = np.abs(zt - arm[:, :, None] * zt.sum(1)[:, None, :]).max((1, 2))
        return 3 if (apart[here] > slack).any() else 2

    def joint(self) -> Float[Array, "a d_z d_x d_y"]:
        """Return ``P(T, Z, X, Y)``."""
        return _joint(self.shares, self.zt, self.x, self.y)

    def moments(self, *, covariance: bool = False) -> Moments:
        """Return the exact moments, with the exact covariance of one row's on request."""
        return from_counts(self.joint(), self.outcome_values, jnp.inf, covariance=covariance)

    @property
    def class_means(self) -> Float[Array, "a k"]:
        """``E[Y(t) | U=u]``."""
        return jnp.einsum("ux,utxy,y->tu", self.x, self.y, self.outcome_values, precision="highest")

    @property
    def arm_masses(self) -> Float[Array, "a k"]:
        """``P(T=t, U=u)``."""
        return (self.shares[:, None] * self.zt.sum(-1)).T

    def counts(self, key: Array, n: int | Array) -> Float[Array, "a d_z d_x d_y"]:
        """Draw the table of counts of n rows; the cost does not depend on n.

        Under ``vmap`` over keys, populations or n, all tables are drawn at once.
        """
        check_draw(key, n)
        return _counts(self.joint(), key, n)

    def sample(self, key: Array, n: int) -> dict[str, Int[Array, " n"] | Float[Array, " n"]]:
        """Draw n rows: the columns T, Z, X, Y, and the hidden class U."""
        check_draw(key, n)
        return _sample(self, key, operator.index(n))

    def sample_moments(self, key: Array, n: int | Array, *, covariance: bool = False) -> Moments:
        """Return the moments of n fresh rows, with their sampling covariance on request.

        Examples
        --------
        >>> import jax, jaxmix as jm
        >>> drawn = jm.populations.paper_main().sample_moments(jax.random.key(0), 500)
        >>> drawn.tensor.shape, float(drawn.num_rows)
        ((2, 2, 2, 2), 500.0)
        """
        counts = self.counts(key, n)
        return from_counts(counts, self.outcome_values, covariance=covariance)

    def efficiency_bound(self, n: float | Array, *, level: int | None = None) -> EfficiencyBound:
        """Return the Cramer-Rao bound for estimates from n rows in the model of a level.

        ``g I^+ g' / n`` with ``I = J' diag(1/p) J``, J the derivative of the cells' probabilities
        in the parameters. At level 2 P(T, Z | U) is a product; at level 3 it is free; at level 4
        P(Y | T, X, U) may vary with X besides, and only the ATE has a finite bound. Probabilities
        that are 0 count as known to be 0. At small n constraints can beat the bound.

        Parameters
        ----------
        n
            Number of rows.
        level
            2, 3 or 4; by default the strongest of 3 and 4 that holds (under `jit` and `vmap` it
            must be given). Level 3 is also the default where level 2 holds.

        Raises
        ------
        ValueError
            For a level that does not hold.

        References
        ----------
        Rao (1945), Bulletin of the Calcutta Mathematical Society 37.

        Examples
        --------
        >>> import jaxmix as jm
        >>> population = jm.populations.paper_main()
        >>> bounds = [population.efficiency_bound(1000, level=level) for level in (2, 3, 4)]
        >>> [round(float(found.error), 4) for found in bounds]
        [0.0276, 0.028, inf]
        """
        return _cramer_rao(self, n, checked_level(level, self, (2, 3, 4)))


class _Amplitudes(NamedTuple):
    """Square roots of the parameters' probabilities, in groups that sum to 1.

    Their scale makes all directions comparable, and a probability of 0 stays 0.
    """

    shares: Array
    z: Array  # (k, 1, d_z) at level 2, (k, a d_z) otherwise
    t: Array | None  # (k, a) at level 2
    x: Array
    y: Array  # (k, a, d_x, d_y) at level 4, (k, a, 1, d_y) otherwise


def _joint(shares: Array, zt: Array, x: Array, y: Array) -> Array:
    y = jnp.broadcast_to(y, (*zt.shape[:2], x.shape[1], y.shape[3]))
    return jnp.einsum("u,utz,ux,utxy->tzxy", shares, zt, x, y, precision="highest")


@compiled("level")
def _cramer_rao(population: DiscretePopulation, n: float | Array, level: int) -> EfficiencyBound:
    k, a, d_z = population.zt.shape
    values = population.outcome_values
    y = population.y
    if level < 4:
        y = jnp.einsum("ux,utxy->uty", population.x, y, precision="highest")[:, :, None, :]
    parts = _Amplitudes(
        shares=population.shares,
        z=population.zt.sum(1) if level == 2 else population.zt.reshape(k, a * d_z),
        t=population.zt.sum(2) if level == 2 else None,
        x=population.x,
        y=y,
    )
    flat, unravel = ravel_pytree(jax.tree.map(jnp.sqrt, parts))

    def factors(flat: Array) -> tuple[Array, ...]:
        own = jax.tree.map(
            lambda root: root**2 / jnp.sum(root**2, axis=-1, keepdims=True), unravel(flat)
        )
        zt = own.z.reshape(k, a, d_z) if own.t is None else own.t[:, :, None] * own.z[:, None, :]
        return own.shares, zt, own.x, own.y

    def functionals(flat: Array) -> Array:
        shares, _, x, y = factors(flat)
        given_x = jnp.einsum("utxy,y->utx", y, values, precision="highest")
        means = jnp.sum(x[:, None, :] * given_x, axis=2)
        effects = means[:, 1] - means[:, 0]
        return jnp.concatenate([jnp.sum(shares * effects)[None], effects, shares])

    p = _joint(*factors(flat)).reshape(-1)
    jacobian = jax.jacfwd(lambda flat: _joint(*factors(flat)).reshape(-1))(flat)
    slope = jnp.where(p > 0, jnp.where(p > 0, p, 1.0) ** -0.5, 0.0)[:, None] * jacobian
    gradient = jax.jacfwd(functionals)(flat)
    return bound(slope, gradient, jnp.argsort(functionals(flat)[1 : k + 1]), n)


@compiled()
def _counts(joint: Float[Array, "a d_z d_x d_y"], key: Array, n: int | Array) -> Array:
    found: Array = _table(key, n, joint.reshape(-1)).reshape(joint.shape)
    return found


@jax.custom_batching.custom_vmap
def _table(key: Array, n: int | Array, p: Array) -> Array:
    found: Array = _tables(key[None], n, p)[0]
    return found


@_table.def_vmap
def _(size: int, are_batched: Sequence[bool], key: Array, n: Array, p: Array) -> tuple[Array, bool]:
    return _tables(key if are_batched[0] else jnp.broadcast_to(key, (size,)), n, p), True


@jax.custom_batching.custom_vmap
def _tables(keys: Array, n: Array, p: Array) -> Array:
    """Draw many tables; ``vmap`` makes them one longer list, three times faster than its own."""
    return multinomial(keys, n, p)


@_tables.def_vmap
def _(
    size: int, are_batched: Sequence[bool], keys: Array, n: Array, p: Array
) -> tuple[Array, bool]:
    r = keys.shape[-1]

    def flat(array: Array, is_batched: bool, own_axes: int) -> Array:
        """Return the array with one row per table, or as it is where all tables share it."""
        if not is_batched and jnp.ndim(array) == own_axes:
            return array
        if jnp.ndim(array) == own_axes + is_batched:  # one for all tables of a member
            array = jnp.expand_dims(array, is_batched)
        own = array.shape[array.ndim - own_axes :]
        return jnp.broadcast_to(array, (size, r, *own)).reshape(size * r, *own)

    keys = jnp.broadcast_to(keys, (size, r)).reshape(-1)
    tables = _tables(keys, flat(n, are_batched[1], 0), flat(p, are_batched[2], 1))
    return tables.reshape(size, r, -1), True


@compiled("n")
def _sample(population: DiscretePopulation, key: Array, n: int) -> dict[str, Array]:
    keys = jax.random.split(key, 4)
    u = jax.random.categorical(keys[0], jnp.log(population.shares), shape=(n,))
    k, a, d_z = population.zt.shape
    tz = jax.random.categorical(keys[1], jnp.log(population.zt.reshape(k, a * d_z))[u])
    x = jax.random.categorical(keys[2], jnp.log(population.x)[u])
    t, z = tz // d_z, tz % d_z
    y = jax.random.categorical(keys[3], jnp.log(population.y)[u, t, x])
    return {"T": t, "Z": z, "X": x, "Y": population.outcome_values[y], "U": u}
