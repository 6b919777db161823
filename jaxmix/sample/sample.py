"""A sample: its rows as features, and what is summed over them, each sum once."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmix.sample.design import Design
from jaxmix.sample.features import Views
from jaxmix.sample.moments import Moments, from_rows
from jaxmix.solvers.compiling import compiled
from jaxmix.solvers.linalg import power_of_two


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
    def design(self) -> Design:
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

    def standard_errors(self, slopes: Moments) -> Float[Array, " p"]:
        """Return infinitesimal-jackknife standard errors, clusters summed where there are any.

        ``se^2 = sum_i m_i influence_i^2``, or the sum over clusters of the squared sum within.

        Parameters
        ----------
        slopes
            Derivatives of p numbers with respect to the moments, with a leading axis for the
            numbers (`jaxmix.inference.asymptotic.slopes`).
        """
        return _standard_errors(slopes, self.views)

    def influence(self, slope: Moments) -> Float[Array, " n"]:
        """Return the influence of each row on a number: its derivative in the multiplicity.

        Parameters
        ----------
        slope
            Derivative of the number with respect to the moments.
        """
        return _influence(slope, self.views)


@compiled()
def _influence(slope: Moments, views: Views) -> Float[Array, " n"]:
    def moments(multiplicity: Float[Array, " n"]) -> Moments:
        return from_rows(dataclasses.replace(views, multiplicity=multiplicity))

    influence: Float[Array, " n"]
    (influence,) = jax.vjp(moments, views.multiplicity)[1](slope)
    return influence


@compiled()
def _standard_errors(slopes: Moments, views: Views) -> Float[Array, " p"]:
    def one(slope: Moments) -> Float[Array, ""]:
        influence = _influence(slope, views)
        unit = power_of_two(jnp.abs(influence).max())  # squares of any number are numbers
        influence = influence / unit
        if views.cluster is None:
            return unit * jnp.sqrt(jnp.sum(views.multiplicity * influence**2))
        sums = jax.ops.segment_sum(
            views.multiplicity * influence, views.cluster, num_segments=views.num_clusters
        )
        return unit * jnp.sqrt(jnp.sum(sums**2))

    found: Float[Array, " p"] = jax.lax.map(one, slopes)
    return found
