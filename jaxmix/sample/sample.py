"""A sample: its rows as features, and what is summed over them, each sum once."""

from __future__ import annotations

import dataclasses
import functools

import jax
from jaxtyping import Array, Float, Int

from jaxmix.data.design import Design
from jaxmix.sample.features import Views
from jaxmix.sample.moments import Moments, from_rows
from jaxmix.sample.resamples import resampled, resamplers
from jaxmix.sample.resamples.resamplers import Resampler
from jaxmix.solvers.compiling import compiled


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
    """

    views: Views

    @functools.cached_property
    def design(self) -> Design[Array]:
        """How the rows were sampled."""
        return self.views.design

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
