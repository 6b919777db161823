"""Populations with continuous proxies and outcome, and known truth."""

from __future__ import annotations

import dataclasses
import math
import operator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm
from jaxtyping import Array, Float, Int

from jaxmix.data.design import Design
from jaxmix.populations.bounds import EfficiencyBound, check_draw, checked_level
from jaxmix.populations.gmm import Seconds, covariance_of, gmm_bound, tensor_of
from jaxmix.populations.population import Population
from jaxmix.sample.features import Views
from jaxmix.sample.moments import Moments, from_rows
from jaxmix.solvers.compiling import compiled

FAMILIES = ("gaussian", "uniform")

_HALF = math.sqrt(3.0)  # half-width of a uniform law of standard deviation 1


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ContinuousPopulation(Population):
    """A population of level 3 with two arms, continuous proxies and a continuous outcome.

    Within class u the columns of Z and X are independent, with means `z_means[u]`, `x_means[u]`
    and standard deviation 1; ``P(T=1 | Z, U=u)`` is F of ``intercepts[u] + slopes[u] . (Z -
    z_means[u])``; Y has mean ``class_means[T, u]`` and standard deviation `noise`. All laws are
    Gaussian with F the normal distribution function (a probit), or all are uniform with F the
    identity, the probability staying inside [0, 1].

    Moments are of linear features: the constant and each column, centred and scaled by its
    population mean and standard deviation, and likewise for the outcome.

    Attributes
    ----------
    shares
        ``(k,)``: ``P(U=u)``.
    z_means, x_means
        ``(k, d_z)``, ``(k, d_x)``: class means of the columns.
    intercepts, slopes
        ``(k,)``, ``(k, d_z)``: of the treatment.
    class_means
        ``(2, k)``: ``E[Y(t) | U=u]``.
    noise
        Standard deviation of the outcome within class and arm.
    family
        ``"gaussian"`` or ``"uniform"`` (static).

    Examples
    --------
    >>> import jax, jaxmix as jm
    >>> population = jm.populations.gaussian()
    >>> rows = population.sample(jax.random.key(0), 1000)
    >>> sorted(rows), population.num_classes, population.level
    (['T', 'U', 'X', 'Y', 'Z'], 2, 3)
    """

    shares: Float[Array, " k"]
    z_means: Float[Array, "k d_z"]
    x_means: Float[Array, "k d_x"]
    intercepts: Float[Array, " k"]
    slopes: Float[Array, "k d_z"]
    class_means: Float[Array, "2 k"]
    noise: Float[Array, ""]
    family: str = dataclasses.field(default="gaussian", metadata={"static": True})

    @property
    def level(self) -> int:
        """The strongest level whose independences hold, 2 or 3; of concrete values alone.

        Level 2 holds where Z does not move the treatment within a class; slopes below the square
        root of the machine epsilon count as zero.
        """
        slopes = np.asarray(self.slopes)[np.asarray(self.shares) > 0]
        return 3 if np.abs(slopes).max() > np.sqrt(np.finfo(slopes.dtype).eps) else 2

    @property
    def arm_masses(self) -> Float[Array, "2 k"]:
        """``P(T=t, U=u)``."""
        return self.shares * self._treatment()[0]

    @property
    def range_y(self) -> Float[Array, " 2"]:
        """Smallest and largest outcome."""
        if self.family == "gaussian":
            return jnp.array([-jnp.inf, jnp.inf], self.shares.dtype)
        half = _HALF * self.noise
        return jnp.stack([self.class_means.min() - half, self.class_means.max() + half])

    def moments(self, *, covariance: bool = False) -> Moments:
        """Return the exact moments, with the exact covariance of one row's on request.

        In closed form. For the probit, with ``W = Z - z_means[u]``, intercept b, slopes v and
        ``q^2 = 1 + v'v``, Stein's identity gives ``P(T=1|u) = Phi(b/q)``, ``E[1{T=1} W | u] = v
        phi(b/q)/q`` and ``E[1{T=1} W W' | u] = Phi(b/q) - v v' b phi(b/q)/q^3``.

        Examples
        --------
        >>> import jaxmix as jm
        >>> moments = jm.populations.gaussian(num_classes=3).moments()
        >>> law = jm.spectral.effect_law(moments, 3)
        >>> [round(float(e), 6) for e in law.effects]
        [-1.0, 0.25, 1.5]
        """
        seconds, units = self._seconds(), self._units()
        tensor = tensor_of(self.shares, seconds)
        dtype = tensor.dtype
        return Moments(
            tensor=tensor,
            gram_z=jnp.einsum("u,tuij->tij", self.shares, seconds.z, precision="highest"),
            square_x=jnp.einsum(
                "u,tu,uii->ti", self.shares, seconds.z[..., 0, 0], seconds.x, precision="highest"
            ),
            one_z=jnp.zeros(tensor.shape[1], dtype).at[0].set(1.0),
            one_x=jnp.zeros(tensor.shape[2], dtype).at[0].set(1.0),
            one_y=jnp.array([1.0, 0.0], dtype),
            value_y=jnp.stack([units.y[0], units.y[1]]),
            range_y=self.range_y,
            num_rows=jnp.asarray(jnp.inf, dtype),
            covariance=covariance_of(self.shares, seconds) if covariance else None,
            num_shared=1,
        )

    def sample(self, key: Array, n: int) -> dict[str, Int[Array, " n"] | Float[Array, " n"]]:
        """Draw n rows: the columns T, Z (Z1, Z2, ... where several), X, Y, and the hidden U."""
        check_draw(key, n)
        n = operator.index(n)
        rows = _rows(self, key, n)
        columns = {"T": rows.t}
        for name, block in (("Z", rows.z), ("X", rows.x)):
            d = block.shape[1]
            columns |= {f"{name}{j + 1}" if d > 1 else name: block[:, j] for j in range(d)}
        return columns | {"Y": rows.y, "U": rows.u}

    def sample_moments(self, key: Array, n: int | Array, *, covariance: bool = False) -> Moments:
        """Return the moments of n fresh rows, in the same fixed units as the exact ones.

        Examples
        --------
        >>> import jax, jaxmix as jm
        >>> population = jm.populations.gaussian(num_classes=3)
        >>> population.sample_moments(jax.random.key(0), 500).tensor.shape
        (2, 3, 3, 2)
        """
        check_draw(key, n)
        n = operator.index(n)
        rows, units = _rows(self, key, n), self._units()
        exact = self.moments()

        def features(columns: Array, unit: tuple[Array, Array]) -> Array:
            scaled = (columns - unit[0]) / unit[1]
            return jnp.concatenate([jnp.ones((n, 1), scaled.dtype), scaled], axis=1)

        ones = jnp.ones(n, rows.y.dtype)
        views = Views(
            z=features(rows.z, units.z),
            x=features(rows.x, units.x),
            y=features(rows.y[:, None], units.y),
            t=rows.t,
            design=Design(weight=ones, multiplicity=ones),
            one_z=exact.one_z,
            one_x=exact.one_x,
            one_y=exact.one_y,
            value_y=exact.value_y,
            range_y=exact.range_y,
            num_shared=1,
        )
        return from_rows(views, covariance=covariance)

    def log_density(
        self,
        t: Int[Array, "*n"],
        z: Float[Array, "*n d_z"],
        x: Float[Array, "*n d_x"],
        y: Float[Array, "*n"],
    ) -> Float[Array, "*n"]:
        """Return the log of the exact joint law of (T, Z, X, Y), in the columns' own units.

        ``log sum_u shares[u] p(z|u) P(t|z,u) p(x|u) p(y|t,u)``.

        Examples
        --------
        >>> import jax.numpy as jnp, jaxmix as jm
        >>> population = jm.populations.gaussian()
        >>> point = jnp.zeros(1)
        >>> both = population.log_density(jnp.array([0, 1]), point, point, 0.0)
        >>> both.shape
        (2,)
        """
        t, z, x, y = jnp.asarray(t), jnp.asarray(z), jnp.asarray(x), jnp.asarray(y)
        offset = z[..., None, :] - self.z_means
        score = self.intercepts + jnp.sum(self.slopes * offset, axis=-1)
        arm = t[..., None] == 1
        if self.family == "gaussian":
            of_t = norm.logcdf(jnp.where(arm, score, -score))
        else:
            p = jnp.where(arm, score, 1 - score)  # outside [0, 1] only where z cannot occur
            of_t = jnp.where(p > 0, jnp.log(jnp.where(p > 0, p, 1.0)), -jnp.inf)
        mean = jnp.where(arm, self.class_means[1], self.class_means[0])
        of_y = self._log_unit((y[..., None] - mean) / self.noise) - jnp.log(self.noise)
        of_z = self._log_unit(offset).sum(-1)
        of_x = self._log_unit(x[..., None, :] - self.x_means).sum(-1)
        parts = jnp.log(self.shares) + of_z + of_t + of_x + of_y
        return jax.scipy.special.logsumexp(parts, axis=-1)

    def efficiency_bound(self, n: float | Array, *, level: int | None = None) -> EfficiencyBound:
        """Return the smallest variances that the moments allow, for estimates from n rows.

        ``g (G' S^- G)^- g' / n`` with S the exact covariance of one row's moments ``1{T=t} phi_z x
        phi_x x phi_y``, G their derivative in the class parameters (P(T=t, U=u) and the features'
        conditional means) and g that of the number asked for: the bound for what these moments
        say, which optimally weighted least squares attains. It is no bound for methods that use
        more of the law than these moments, and a likelihood can do better.

        Parameters
        ----------
        n
            Number of rows.
        level
            3, or 2 where E[phi_z | T, U] is known not to vary with T; 3 by default (under `jit`
            and `vmap` it must be given).

        Raises
        ------
        ValueError
            For a level that does not hold.

        References
        ----------
        Chamberlain (1987), Journal of Econometrics 34; Hansen (1982), Econometrica 50.

        Examples
        --------
        >>> import jaxmix as jm
        >>> bound = jm.populations.gaussian(proxy_strength=0.0).efficiency_bound(1000)
        >>> bound.effects.tolist()
        [inf, inf]
        """
        level = checked_level(level, self, (2, 3))
        return gmm_bound(self.shares, self._seconds(), self._units().y[1], n, level)

    def _log_unit(self, value: Array) -> Array:
        """Return the log density of the law with mean 0 and standard deviation 1."""
        if self.family == "gaussian":
            return norm.logpdf(value)
        return jnp.where(jnp.abs(value) <= _HALF, -math.log(2 * _HALF), -jnp.inf)

    def _treatment(self) -> tuple[Array, Array, Array]:
        """Return ``P(T=t|u)``, and ``E[1{T=t} W|u]``, ``E[1{T=t} W W'|u]`` with W = Z - mean."""
        b, v = self.intercepts, self.slopes
        eye = jnp.eye(v.shape[1], dtype=v.dtype)
        if self.family == "gaussian":
            q = jnp.sqrt(1 + jnp.sum(v**2, axis=1))
            p, height = norm.cdf(b / q), norm.pdf(b / q) / q
            first = v * height[:, None]
            bend = v[:, :, None] * v[:, None, :] * (b * height / q**2)[:, None, None]
            second = p[:, None, None] * eye - bend
        else:
            p, first, second = b, v, b[:, None, None] * eye
        return (
            jnp.stack([1 - p, p]),
            jnp.stack([-first, first]),
            jnp.stack([eye - second, second]),
        )

    def _units(self) -> _Units:
        mass = self.arm_masses

        def unit(weights: Array, means: Array, spread: Array | float) -> tuple[Array, Array]:
            centre = jnp.sum(weights * means, axis=0)
            return centre, jnp.sqrt(spread**2 + jnp.sum(weights * (means - centre) ** 2, axis=0))

        shares = self.shares[:, None]
        return _Units(
            z=unit(shares, self.z_means, 1.0),
            x=unit(shares, self.x_means, 1.0),
            y=unit(mass.reshape(-1), self.class_means.reshape(-1), self.noise),
        )

    def _seconds(self) -> Seconds:
        """Return the second moments of the features within each class."""
        units = self._units()
        p, first, second = self._treatment()
        raw_z = _bordered(p, first, second)
        eye = jnp.eye(self.x_means.shape[1], dtype=self.x_means.dtype)
        ones = jnp.ones_like(self.shares)
        raw_x = _bordered(
            ones, jnp.zeros_like(self.x_means), jnp.broadcast_to(eye, (len(ones), *eye.shape))
        )
        means = self.class_means[:, :, None]
        variance = jnp.broadcast_to(self.noise**2, (*self.class_means.shape, 1, 1))
        raw_y = _bordered(jnp.ones_like(self.class_means), jnp.zeros_like(means), variance)
        return Seconds(
            _in_units(raw_z, self.z_means, units.z),
            _in_units(raw_x, self.x_means, units.x),
            _in_units(raw_y, means, units.y),
        )


class _Units(NamedTuple):
    """Centre and scale of the columns of each view."""

    z: tuple[Array, Array]
    x: tuple[Array, Array]
    y: tuple[Array, Array]


class _Rows(NamedTuple):
    u: Array
    t: Array
    z: Array
    x: Array
    y: Array


def _bordered(zeroth: Array, first: Array, second: Array) -> Array:
    """Return the second moments of (1, W)."""
    top = jnp.concatenate([zeroth[..., None], first], axis=-1)
    return jnp.concatenate(
        [top[..., None, :], jnp.concatenate([first[..., None], second], axis=-1)], axis=-2
    )


def _in_units(raw: Array, means: Array, unit: tuple[Array, Array]) -> Array:
    """Return the second moments of (1, (mean + W - centre) / scale) from those of (1, W)."""
    centre, scale = unit
    shift = (means - centre) / scale
    d = shift.shape[-1]
    scales = jnp.broadcast_to(jnp.eye(d, dtype=shift.dtype) / scale, (*shift.shape[:-1], d, d))
    change = _bordered(jnp.ones_like(shift[..., 0]), jnp.zeros_like(shift), scales)
    change = change.at[..., 1:, 0].set(shift)
    return jnp.einsum("...ij,...jk,...lk->...il", change, raw, change, precision="highest")


@compiled("n")
def _rows(population: ContinuousPopulation, key: Array, n: int) -> _Rows:
    keys = jax.random.split(key, 5)
    dtype = population.shares.dtype
    u = jax.random.categorical(keys[0], jnp.log(population.shares), shape=(n,))

    def unit(key: Array, shape: tuple[int, ...]) -> Array:
        if population.family == "gaussian":
            return jax.random.normal(key, shape, dtype)
        return jax.random.uniform(key, shape, dtype, -_HALF, _HALF)

    offset = unit(keys[1], (n, population.z_means.shape[1]))
    score = population.intercepts[u] + jnp.sum(population.slopes[u] * offset, axis=1)
    p = norm.cdf(score) if population.family == "gaussian" else score
    t = (jax.random.uniform(keys[2], (n,), dtype) < p).astype(int)
    x = population.x_means[u] + unit(keys[3], (n, population.x_means.shape[1]))
    y = population.class_means[t, u] + population.noise * unit(keys[4], (n,))
    return _Rows(u, t, population.z_means[u] + offset, x, y)
