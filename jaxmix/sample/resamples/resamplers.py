"""Samples as units that are drawn: rows or clusters of them, or the cells of a table."""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Callable
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxmix.sample import sums
from jaxmix.sample.moments import Moments, from_counts
from jaxmix.sample.resamples import draws, products
from jaxmix.sample.resamples.products import Parts
from jaxmix.sample.resamples.units import BLOCK, Units, rows_of, units_of
from jaxmix.sample.views import Views
from jaxmix.solvers.lanes import by_chunks
from jaxmix.solvers.linalg import power_of_two

ROOM = 1 << 23
"""Draws of units, or derivatives in them, held at once (64 MiB in float64)."""

_WEIGHTS = 1 << 20  # of rows, formed at once and used at once (8 MiB): they stay in a cache


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


class Resampler(abc.ABC):
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

    @property
    def num_held(self) -> int:
        """How many units are drawn at once."""
        return min(BLOCK, self.num_units) if self.units.by_block else self.num_units

    @abc.abstractmethod
    def at(self, times: Float[Array, "r u"]) -> Parts:
        """Return what moments differ in, where each unit occurs as often as is said."""

    def parts(self, keys: Array, kind: str) -> Parts:
        """Return what the moments of resamples differ in, for one resample by key."""
        return self.at(self.draw(keys, kind))

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
class Rows(Resampler):
    """Rows, drawn as they are or by clusters.

    Attributes
    ----------
    views
        The rows as features.
    units
        What is drawn whole (`jaxmix.sample.resamples.units.units_of`).
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
        return self.views.num_rows

    @property
    def repeated(self) -> bool:
        """Whether a row may stand for several."""
        return self.views.repeated

    def parts(self, keys: Array, kind: str) -> Parts:
        """Return what the moments of resamples differ in, for one resample by key."""
        if not self.units.by_block:
            return self.at(self.draw(keys, kind))
        return self._means(self._by_block(keys, kind))

    def at(self, times: Float[Array, "r u"]) -> Parts:
        """Return what moments differ in, where each unit occurs as often as is said."""
        views, units = self.views, self.units
        if units.of_row is None:
            return self._means(self._summed(_once(views), lambda own: own, times))

        def weights(unit: Int[Array, " c"], multiplicity: Float[Array, " c"]) -> Array:
            return times[:, unit] * multiplicity

        found = self._summed(_once(views), weights, units.of_row, views.multiplicity)
        return self._means(found)

    def _means(self, found: Float[Array, "r q"]) -> Parts:
        return products.as_parts(found[:, :-2] / found[:, -2:-1], found[:, -1], self.views)

    def _by_block(self, keys: Array, kind: str) -> Float[Array, "r q"]:
        """Return weighted sums of products; blocks of rows are drawn when they are read."""
        n, dtype = self.num_rows, self.units.times.dtype
        size = min(n, BLOCK * max(1, _WEIGHTS // (BLOCK * len(keys))))
        totals = draws.totals_of_blocks(keys, n, dtype) if kind == "multinomial" else None

        def of_blocks(rows: Views, first: Int[Array, ""]) -> Float[Array, "r q"]:
            block = first // BLOCK
            drawn = draws.draw_blocks(keys, block, size, kind, dtype, num_units=n, totals=totals)
            return self._summed(rows, lambda own: own, drawn)

        return sums.total_in_order(of_blocks, _once(self.views), size)

    def _summed(
        self, views: Views, weights: Callable[..., Float[Array, "r c"]], *beside: Array
    ) -> Float[Array, "r q"]:
        """Return weighted sums of the rows' products, of their weights and of 1."""

        def of_rows(rows: Views, *own: Array) -> Float[Array, "r q"]:
            single = rows.multiplicity
            weight = single * rows.weight
            found = products.of_rows(rows) * weight[:, None]
            found = jnp.concatenate([found, weight[:, None], single[:, None]], axis=1)
            return jnp.matmul(weights(*own), found, precision="highest")

        return sums.total(of_rows, views, self.num_numbers, *beside)

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
        views, of_row = self.views, self.units.of_row
        multiplicity = rows_of(times, self.units, views.multiplicity)
        flat = products.of_slope(slope)
        mean = jnp.dot(flat, products.of_moments(moments), precision="highest")
        scale = 1 / sums.mass(views.redesigned(multiplicity=multiplicity))

        def of_rows(rows: Views) -> Float[Array, " c"]:
            found = jnp.matmul(products.of_rows(rows), flat, precision="highest")
            return (found - mean) * (rows.weight * scale) + slope.num_rows

        if of_row is None:
            return sums.each(of_rows, views, self.num_numbers)

        def of_units(rows: Views, own: Int[Array, " c"]) -> Float[Array, " u"]:
            counted = of_rows(rows) * rows.multiplicity
            return jax.ops.segment_sum(counted, own, num_segments=self.num_units)

        return sums.total(of_units, views, self.num_numbers, of_row)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cells(Resampler):
    """A table of counts, of which tables like it are drawn.

    Attributes
    ----------
    counts
        ``(a, d_z, d_x, d_y)`` the table.
    units
        Its cells (`Cells.of`).
    outcome_values
        ``(d_y,)`` outcome in each cell of the last axis; 0, 1, ... where it is None.
    """

    counts: Float[Array, "a d_z d_x d_y"]
    units: Units
    outcome_values: Float[Array, " d_y"] | None = None

    @classmethod
    def of(
        cls,
        counts: Float[Array, "a d_z d_x d_y"],
        outcome_values: Float[Array, " d_y"] | None = None,
        strata: object = None,
    ) -> Self:
        """Return a table with its cells as units, in strata or not.

        Parameters
        ----------
        counts, outcome_values
            The table, and the outcome in each cell of its last axis.
        strata
            Label of each cell, known outside of compiled code; or None.
        """
        times = counts.reshape(-1)
        if strata is None:
            return cls(counts, Units(times), outcome_values)
        labels = np.asarray(strata)
        if labels.shape != counts.shape:
            raise ValueError(f"strata has shape {labels.shape}: give one label for each cell")
        found, codes = np.unique(labels.reshape(-1), return_inverse=True)
        units = Units(times, strata=jnp.asarray(codes), num_strata=len(found))
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
        """Whether a row may stand for several."""
        return True

    def moments(self, times: Float[Array, " u"]) -> Moments:
        """Return the moments where each cell occurs as often as is said."""
        return from_counts(times.reshape(self.counts.shape), self.outcome_values)

    def at(self, times: Float[Array, "r u"]) -> Parts:
        """Return what moments differ in, where each cell occurs as often as is said."""
        return jax.vmap(lambda own: Parts.taken(self.moments(own)))(times)

    def like(self, parts: Parts) -> Moments:
        """Return moments with such parts."""
        return parts.within(self.moments(self.units.times))

    def derivative(
        self, slope: Moments, moments: Moments, times: Float[Array, " u"]
    ) -> Float[Array, " u"]:
        """Return the derivative of a number in how often each cell occurs."""
        del moments
        found: Array = jax.vjp(self.moments, times)[1](slope)[0]
        return found


def resampler(
    data: Views | Float[Array, "a d_z d_x d_y"],
    outcome_values: Float[Array, " d_y"] | None = None,
    strata: object = None,
) -> Resampler:
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
        return Rows(data, units_of(data.design, strata))
    return Cells.of(data, outcome_values, strata)


def single(views: Views) -> Rows:
    """Return rows as units, clusters or not."""
    return Rows(views, Units(views.multiplicity, repeated=views.repeated))


def _once(views: Views) -> Views:
    """Return the same rows, each of them there once."""
    return views.redesigned(multiplicity=jnp.ones_like(views.weight))
