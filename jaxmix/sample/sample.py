"""A sample: its rows as features, and what is summed over them, each sum once."""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxmix.data.design import Design
from jaxmix.sample import sums
from jaxmix.sample.moments import Moments, from_rows
from jaxmix.sample.resamples import resampled, resamplers
from jaxmix.sample.resamples.resamplers import Resampler
from jaxmix.sample.views import Views
from jaxmix.solvers.compiling import compiled


class Influential(NamedTuple):
    """The rows that move an estimate most, the first of them most of all.

    Attributes
    ----------
    rows
        ``(num,)`` places among the distinct rows of the sample.
    multiplicity
        ``(num,)`` how many identical rows each stands for.
    change
        ``(num,)`` by how much the estimate would move, about, if all of those were left out.
    """

    rows: Int[Array, " num"]
    multiplicity: Float[Array, " num"]
    change: Float[Array, " num"]


@dataclasses.dataclass(frozen=True, eq=False)
class Sample:
    """Rows, and sums over them that are formed when they are first asked for.

    What is estimated is a function of moments, and its derivatives with respect to moments are
    turned into derivatives with respect to rows here: so no estimator meets rows, and its
    programs are the same for any number of them.

    Attributes
    ----------
    views
        The rows as features.

    Examples
    --------
    >>> import jaxmix as jm
    >>> table = {"t": [0, 1] * 8, "y": [1, 2, 4, 4] * 4}
    >>> table |= {"z": [0, 0, 1, 1] * 4, "x": [1, 0, 0, 1] * 4}
    >>> data = jm.CausalData.from_frame(table, treatment="t", outcome="y", z=["z"], x=["x"])
    >>> sample = Sample(jm.features.encode(data))
    >>> sample.design.is_random, float(sample.moments.num_rows)
    (True, 16.0)
    >>> sample.shape, sample.is_table, sample.max_rank
    ((2, 2, 2, 3), True, 2)
    """

    views: Views

    @functools.cached_property
    def design(self) -> Design[Array]:
        """How the rows were sampled."""
        return self.views.design

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Arms, and features of z, x and the outcome; known before any row is summed."""
        return self.views.sizes

    @property
    def is_table(self) -> bool:
        """Whether every view is one-hot, so that the rows are cells of a table."""
        return self.views.is_table

    @property
    def num_shared(self) -> int:
        """How many leading features z and x have in common."""
        return self.views.num_shared

    @property
    def max_rank(self) -> int:
        """The largest number of classes that the views can tell apart."""
        return self.views.max_rank

    @property
    def num_distinct(self) -> int:
        """How many rows are held, identical ones perhaps as one."""
        return self.views.num_rows

    @functools.cached_property
    def num_rows(self) -> float:
        """Rows of the sample, identical ones counted one by one."""
        return float(sums.num_rows(self.views))

    def strata(self, name: str | None) -> Int[Array, " n"] | None:
        """Return the labels of rows by which a sample may be stratified.

        Parameters
        ----------
        name
            ``"arm"``, or None for no strata.
        """
        if name is None:
            return None
        if name != "arm":
            raise ValueError(f"strata is {name!r}: rows have the strata 'arm'")
        return self.views.t

    @functools.cached_property
    def moments(self) -> Moments:
        """The moments, without their covariance."""
        return from_rows(self.views)

    @functools.cached_property
    def weighed_moments(self) -> Moments:
        """The moments with their covariance, by which they can be weighed."""
        return from_rows(self.views, covariance=True)

    def resampler(self, strata: object = None) -> Resampler:
        """Return the rows as units that are drawn: clusters where there are any.

        Parameters
        ----------
        strata
            ``(n,)`` labels within which to draw, known outside of compiled code; or None.

        Raises
        ------
        InputError
            Where a cluster lies in several strata.
        """
        return resamplers.resampler(self.views, strata=strata)

    def resampled(
        self, key: Array, indices: Int[Array, " r"], *, kind: str, strata: object = None
    ) -> Moments:
        """Return the moments of resamples, with a leading axis; see `resampled.resampled`.

        Parameters
        ----------
        key, indices
            Resample i is drawn by ``fold_in(key, i)``.
        kind
            One of `jaxmix.sample.resamples.draws.KINDS`.
        strata
            Labels of rows, as in `resampler`.
        """
        return resampled.resampled(self.resampler(strata), key, indices, kind=kind)

    def spread(
        self, slopes: Moments, strata: object = None
    ) -> tuple[Float[Array, " p"], Float[Array, " p"]]:
        """Return standard errors and accelerations by the influence of units, in strata or not.

        ``se^2 = sum_i m_i I_i^2`` with I_i the derivative in m_i, how often row (or cluster) i
        occurs, minus its mean in the stratum.

        Parameters
        ----------
        slopes
            Derivatives of p numbers with respect to the moments, with a leading axis for the
            numbers (`jaxmix.inference.asymptotic.slopes`).
        strata
            Labels of rows, as in `resampler`.
        """
        return _spread(self.resampler(strata), slopes, self.moments)

    def standard_errors(self, slopes: Moments) -> Float[Array, " p"]:
        """Return infinitesimal-jackknife standard errors, clusters summed where there are any.

        ``se^2 = sum_i m_i influence_i^2``, or the sum over clusters of the squared sum within.

        Parameters
        ----------
        slopes
            Derivatives of p numbers with respect to the moments, as in `spread`.
        """
        return self.spread(slopes)[0]

    def influence(self, slopes: Moments) -> Float[Array, "p n"]:
        """Return the influence of each row on p numbers: derivatives in its multiplicity.

        Parameters
        ----------
        slopes
            Derivatives of the numbers with respect to the moments, as in `spread`.
        """
        return _influence(self.views, slopes, self.moments)

    def most_influential(self, slopes: Moments, num: int) -> Influential:
        """Return the rows without which a number would be the most different.

        Parameters
        ----------
        slopes
            The derivative of the number with respect to the moments, with a leading axis of 1.
        num
            How many rows, at most `num_distinct`.
        """
        return _largest_changes(self.influence(slopes)[0], self.views.multiplicity, num)


@compiled("num")
def _largest_changes(
    slopes: Float[Array, " n"], multiplicity: Float[Array, " n"], num: int
) -> Influential:
    """Return what `Sample.most_influential` does, where the influence of each row is known."""
    change = -multiplicity * slopes
    rows = jax.lax.top_k(jnp.abs(change), num)[1]
    return Influential(rows, multiplicity[rows], change[rows])


@compiled()
def _spread(resampler: Resampler, slopes: Moments, moments: Moments) -> tuple[Array, Array]:
    return resampler.spread(slopes, moments)


@compiled()
def _influence(views: Views, slopes: Moments, moments: Moments) -> Float[Array, "p n"]:
    rows = resamplers.single(views)

    def one(slope: Moments) -> Float[Array, " n"]:
        return rows.derivative(slope, moments, rows.units.times)

    found: Float[Array, "p n"] = jax.lax.map(one, slopes)
    return found
