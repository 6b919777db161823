"""Moments of resamples, and errors within a resample: by products of weights with rows.

What resamples differ in is how often a unit (a row, a cluster of rows, or a cell of a table) is
there. Moments are linear in that, so that those of many resamples are one product of weights and
of the rows' products of features. A statistic is a function of moments, and its derivative in a
unit is the derivative in moments times what the unit adds to them. So no statistic meets rows.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxmix.sample import draws, products, sums
from jaxmix.sample.draws import Units
from jaxmix.sample.features import Views
from jaxmix.sample.moments import Moments, from_counts
from jaxmix.solvers.lanes import by_chunks
from jaxmix.solvers.linalg import power_of_two

ROOM = 1 << 23
"""Weights of rows, or derivatives in units, held at once (64 MiB in float64)."""

_MOST_LANES = 1024  # resamples whose moments are formed at once


def acceleration(
    influence: Float[Array, "n ..."], times: Float[Array, " n"]
) -> Float[Array, "..."]:
    """Return the acceleration ``sum m I^3 / (6 (sum m I^2)^1.5)``; 0 where there is no influence.

    Parameters
    ----------
    influence
        ``(n, ...)``: of each unit (row or cluster) on each number; sums to 0 over the units.
    times
        ``(n,)`` how often each unit occurs.

    References
    ----------
    Efron (1987), JASA 82, equation 7.3.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> round(float(acceleration(jnp.array([3.0, -1.0]), jnp.array([1.0, 3.0]))), 4)
    0.0962
    """
    second = jnp.einsum("n...,n->...", influence**2, times)
    third = jnp.einsum("n...,n->...", influence**3, times)
    some = jnp.where(second > 0, second, 1.0)
    return jnp.where(second > 0, third / (6 * some**1.5), 0.0)


class Parts(NamedTuple):
    """What the moments of resamples differ in: fields of `Moments`."""

    tensor: Float[Array, "*r a d_z d_x d_y"]
    gram_z: Float[Array, "*r a d_z d_z"]
    square_x: Float[Array, "*r a d_x"]
    num_rows: Float[Array, "*r"]

    @classmethod
    def taken(cls, moments: Moments) -> Self:
        """Return the parts of moments."""
        return cls(moments.tensor, moments.gram_z, moments.square_x, moments.num_rows)

    def within(self, moments: Moments) -> Moments:
        """Return moments with these parts in place of their own."""
        return dataclasses.replace(
            moments,
            tensor=self.tensor,
            gram_z=self.gram_z,
            square_x=self.square_x,
            num_rows=self.num_rows,
        )


class Source(abc.ABC):
    """A sample as its units: what is drawn, and the moments that a draw gives."""

    units: Units

    @property
    @abc.abstractmethod
    def num_numbers(self) -> int:
        """How many numbers the moments are."""

    @property
    @abc.abstractmethod
    def repeated(self) -> bool:
        """Whether a row may stand for several."""

    @property
    def num_units(self) -> int:
        """How many units there are."""
        return len(self.units.times)

    @property
    @abc.abstractmethod
    def num_rows(self) -> int:
        """How many rows or cells are held."""

    @abc.abstractmethod
    def parts(self, keys: Array, kind: str) -> Parts:
        """Return what the moments of resamples differ in, for one resample by key."""

    @abc.abstractmethod
    def like(self, parts: Parts) -> Moments:
        """Return moments with such parts."""

    def draw(self, keys: Array, kind: str) -> Float[Array, "r u"]:
        """Return how often each unit occurs in each resample."""
        return draws.draw_units(keys, self.units, kind)

    @abc.abstractmethod
    def derivative(
        self, slope: Moments, moments: Moments, times: Float[Array, " u"]
    ) -> Float[Array, " u"]:
        """Return the derivative of a number in how often each unit occurs.

        Parameters
        ----------
        slope
            Derivative of the number with respect to the moments.
        moments
            Moments where each unit occurs as often as `times` says.
        times
            How often each unit occurs.
        """

    def spread(
        self, slopes: Moments, moments: Moments, times: Float[Array, " u"] | None = None
    ) -> tuple[Float[Array, " p"], Float[Array, " p"]]:
        """Return standard errors and accelerations of numbers by the influence of units.

        ``se^2 = sum_i m_i I_i^2`` with I_i the derivative in m_i, how often unit i occurs, minus
        its mean in the stratum. Those of a resample are of a sample of the observed size.

        Parameters
        ----------
        slopes
            Derivatives of p numbers with respect to the moments, with a leading axis.
        moments, times
            Where to differentiate: a resample, as in `derivative`; by default `times` are those
            of the sample.
        """
        units = self.units
        times = units.times if times is None else times
        # A resample of exponential weights has their sum for its size.
        size = times.sum() / units.times.sum()

        def one(slope: Moments) -> tuple[Array, Array]:
            influence = self.derivative(slope, moments, times)
            if units.strata is not None:
                inside = functools.partial(
                    jax.ops.segment_sum, segment_ids=units.strata, num_segments=units.num_strata
                )
                influence -= (inside(times * influence) / inside(times))[units.strata]
            # Squares and cubes of any number are numbers after this.
            unit = power_of_two(jnp.abs(influence).max())
            influence = influence / unit
            variance = jnp.sum(times * influence**2) * size
            return unit * jnp.sqrt(variance), acceleration(influence, times)

        found: tuple[Array, Array]
        found = by_chunks(jax.vmap(one), slopes, size=max(1, ROOM // self.num_units))
        return found


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rows(Source):
    """Rows, drawn as they are or by clusters.

    Attributes
    ----------
    views
        The rows as features.
    units
        What is drawn whole (`jaxmix.sample.draws.units_of`).
    """

    views: Views
    units: Units

    @property
    def num_numbers(self) -> int:
        """How many numbers the moments are."""
        return products.number(self.views) + 2

    @property
    def num_rows(self) -> int:
        """How many rows are held."""
        return len(self.views.t)

    @property
    def repeated(self) -> bool:
        """Whether a row may stand for several."""
        return self.views.repeated

    def parts(self, keys: Array, kind: str) -> Parts:
        """Return what the moments of resamples differ in, for one resample by key."""
        views, n = self.views, self.num_rows
        times = draws.rows_of(self.draw(keys, kind), self.units, views)
        unit = jnp.ones_like(views.weight)

        def of_chunk(chunk: sums.Chunk) -> Float[Array, "r q"]:
            weight, one = chunk.once(views.weight), chunk.once(unit)
            rows = products.of_rows(views, chunk) * weight[:, None]
            rows = jnp.concatenate([rows, weight[:, None], one[:, None]], axis=1)
            return jnp.matmul(chunk.cut(times, axis=1), rows, precision="highest")

        found = sums.total(of_chunk, n, sums.chunk_size(n, self.num_numbers))
        means = products.as_moments(found[:, :-2] / found[:, -2:-1], views)
        return Parts(*means, num_rows=found[:, -1])

    def like(self, parts: Parts) -> Moments:
        """Return moments with such parts."""
        views = self.views
        return Moments(
            **parts._asdict(),
            one_z=views.one_z,
            one_x=views.one_x,
            one_y=views.one_y,
            value_y=views.value_y,
            range_y=views.range_y,
            num_shared=views.num_shared,
            onehot_y=views.onehot_y,
        )

    def derivative(
        self, slope: Moments, moments: Moments, times: Float[Array, " u"]
    ) -> Float[Array, " u"]:
        """Return the derivative of a number in how often each unit occurs."""
        views, n = self.views, self.num_rows
        multiplicity = draws.rows_of(times, self.units, views)
        flat = products.of_slope(slope)
        mean = jnp.dot(flat, products.of_moments(moments), precision="highest")
        scale = 1 / jnp.sum(views.weight * multiplicity)

        def of_rows(chunk: sums.Chunk) -> Float[Array, " c"]:
            rows = jnp.matmul(products.of_rows(views, chunk), flat, precision="highest")
            return (rows - mean) * (chunk.cut(views.weight) * scale) + slope.num_rows

        size = sums.chunk_size(n, self.num_numbers)
        of_row = self.units.of_row
        if of_row is None:
            return sums.each(of_rows, n, size)

        def of_units(chunk: sums.Chunk) -> Float[Array, " u"]:
            rows = of_rows(chunk) * chunk.once(views.multiplicity)
            return jax.ops.segment_sum(rows, chunk.cut(of_row), num_segments=self.num_units)

        return sums.total(of_units, n, size)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cells(Source):
    """A table of counts, of which tables like it are drawn.

    Attributes
    ----------
    counts
        ``(a, d_z, d_x, d_y)`` the table.
    units
        Its cells (`Cells.of`).
    outcome_values
        As in `jaxmix.moments.from_counts`.
    """

    counts: Float[Array, "a d_z d_x d_y"]
    units: Units
    outcome_values: Float[Array, " d_y"] | None = None

    @classmethod
    def of(
        cls,
        counts: Float[Array, "a d_z d_x d_y"],
        outcome_values: Float[Array, " d_y"] | None = None,
        strata: Any = None,
    ) -> Self:
        """Return a table with its cells as units, in strata or not.

        Parameters
        ----------
        counts, outcome_values
            The table, and the outcome in each cell of its last axis.
        strata
            Label of each cell, known outside of compiled code; or None.
        """
        if strata is None:
            return cls(counts, Units(counts.reshape(-1)), outcome_values)
        labels = np.asarray(strata)
        if labels.shape != counts.shape:
            raise ValueError(f"strata has shape {labels.shape}: give one label for each cell")
        found, codes = np.unique(labels.reshape(-1), return_inverse=True)
        units = Units(counts.reshape(-1), strata=jnp.asarray(codes), num_strata=len(found))
        return cls(counts, units, outcome_values)

    @property
    def num_numbers(self) -> int:
        """How many numbers the moments are, about."""
        return 2 * self.counts.size

    @property
    def num_rows(self) -> int:
        """How many cells are held."""
        return self.counts.size

    @property
    def repeated(self) -> bool:
        """Whether a row may stand for several: cells do."""
        return True

    def moments(self, times: Float[Array, " u"]) -> Moments:
        """Return the moments where each cell occurs as often as is said."""
        return from_counts(times.reshape(self.counts.shape), self.outcome_values)

    def parts(self, keys: Array, kind: str) -> Parts:
        """Return what the moments of resamples differ in, for one resample by key."""
        return jax.vmap(lambda times: Parts.taken(self.moments(times)))(self.draw(keys, kind))

    def like(self, parts: Parts) -> Moments:
        """Return moments with such parts."""
        return parts.within(self.moments(self.units.times))

    def derivative(
        self, slope: Moments, moments: Moments, times: Float[Array, " u"]
    ) -> Float[Array, " u"]:
        """Return the derivative of a number in how often each cell occurs."""
        del moments
        (found,) = jax.vjp(self.moments, times)[1](slope)
        return found


def source(
    data: Views | Float[Array, "a d_z d_x d_y"],
    outcome_values: Float[Array, " d_y"] | None = None,
    strata: Any = None,
) -> Source:
    """Return rows, or a table of counts, as units that are drawn.

    Parameters
    ----------
    data
        The sample.
    outcome_values
        The outcome in each cell of the last axis of a table.
    strata
        Labels of rows or cells within which to draw, known outside of compiled code; or None.
    """
    if isinstance(data, Views):
        return Rows(data, draws.units_of(data, strata))
    return Cells.of(data, outcome_values, strata)


def single(views: Views) -> Rows:
    """Return rows as units, clusters or not."""
    return Rows(views, Units(views.multiplicity, repeated=views.repeated))


@functools.partial(jax.jit, static_argnames="kind")
def resampled(source: Source, key: Array, indices: Int[Array, " r"], *, kind: str) -> Moments:
    """Return the moments of resamples; resample i is drawn by ``fold_in(key, i)``.

    Parameters
    ----------
    source
        The sample.
    key
        JAX key.
    indices
        ``(r,)`` numbers of the resamples.
    kind
        One of `jaxmix.sample.draws.KINDS`.

    Returns
    -------
    Moments
        With a leading axis of resamples on what resamples differ in; see `for_each`.
    """

    def some(own: Int[Array, " c"]) -> Parts:
        return source.parts(_keys(key, own), kind)

    at_once = min(_MOST_LANES, max(1, ROOM // source.num_rows))
    return source.like(by_chunks(some, indices, size=at_once))


@functools.partial(jax.jit, static_argnames="kind")
def spread_within(
    source: Source, key: Array, indices: Int[Array, " r"], slopes: Moments, found: Moments, *,
    kind: str,
) -> tuple[Float[Array, "r p"], Float[Array, "r p"]]:  # fmt: skip
    """Return standard errors and accelerations within each of several resamples.

    Parameters
    ----------
    source, key, indices, kind
        The resamples, as in `resampled`.
    slopes
        Derivatives of p numbers with respect to the moments, with leading axes ``(r, p)``.
    found
        The moments of the resamples.
    """

    def some(own: Array, slopes: Moments, parts: Parts) -> tuple[Array, Array]:
        times = source.draw(_keys(key, own), kind)

        def one(slopes: Moments, parts: Parts, times: Array) -> tuple[Array, Array]:
            return source.spread(slopes, parts.within(found), times)

        return jax.vmap(one)(slopes, parts, times)

    at_once = max(1, ROOM // (source.num_units * slopes.num_rows.shape[1]))
    return by_chunks(some, indices, slopes, Parts.taken(found), size=at_once)


def for_each(function: Callable[[Moments], Any], found: Moments, size: int) -> Any:
    """Apply a function to the moments of each resample, `size` of them at once.

    Parameters
    ----------
    function
        From `Moments` to a pytree of arrays.
    found
        The moments of resamples (`resampled`).
    size
        Resamples evaluated at once.
    """

    def one(parts: Parts) -> Any:
        return function(parts.within(found))

    return by_chunks(jax.vmap(one), Parts.taken(found), size=size)


def _keys(key: Array, indices: Int[Array, " r"]) -> Array:
    return jax.vmap(jax.random.fold_in, (None, 0))(key, indices)
