"""Second moments of rows, for tests: of the products of two views, and of a residual with z."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmix.sample import sums
from jaxmix.sample.moments import from_rows
from jaxmix.sample.sample import Sample
from jaxmix.sample.views import Views
from jaxmix.solvers.compiling import compiled


def gram_x(sample: Sample) -> Float[Array, "a d_x d_x"]:
    """Return ``E[1{T=t} phi_x phi_x']``, which the moments hold of z alone.

    Examples
    --------
    >>> import jaxmix as jm
    >>> table = {"t": [0, 1] * 8, "y": [1, 2, 4, 4] * 4}
    >>> table |= {"z": [0, 0, 1, 1] * 4, "x": [1, 0, 0, 1] * 4}
    >>> data = jm.CausalData.from_frame(table, treatment="t", outcome="y", z=["z"], x=["x"])
    >>> gram_x(Sample(jm.features.encode(data)))[0].tolist()
    [[0.25, 0.0], [0.0, 0.25]]
    """
    return _gram_x(sample.views)


def product_covariance(
    sample: Sample, to_z: Float[Array, "a d_z p"], to_x: Float[Array, "a d_x q"]
) -> Float[Array, "m m"]:
    """Return the sampling covariance of products of two views within the arms.

    That of ``sqrt(n) E[z~ x~' | T=t]``, all arms one after the other (``m = a p q``), where ``z~ =
    z @ to_z[t]`` and ``x~ = x @ to_x[t]`` have mean product 0 under what is tested: the mean of
    ``w^2 (z~ x~')(z~ x~')'`` over rows, or over clusters summed before they are multiplied.

    Parameters
    ----------
    sample
        The rows.
    to_z, to_x
        Maps from the features of each view, one for each arm.

    Examples
    --------
    >>> import jax.numpy as jnp, jaxmix as jm
    >>> table = {"t": [0, 1] * 8, "y": [1, 2, 4, 4] * 4}
    >>> table |= {"z": [0, 0, 1, 1] * 4, "x": [1, 0, 0, 1] * 4}
    >>> data = jm.CausalData.from_frame(table, treatment="t", outcome="y", z=["z"], x=["x"])
    >>> sign = jnp.array([[[1.0], [-1.0]]] * 2)
    >>> product_covariance(Sample(jm.features.encode(data)), sign, sign).tolist()
    [[2.0, 0.0], [0.0, 2.0]]
    """
    return _product_covariance(sample.views, sample.moments.arm_probabilities, to_z, to_x)


class ResidualMoments(NamedTuple):
    """Second moments of the residual of an outcome.

    Attributes
    ----------
    spread
        ``(a, d_z, d_z)``: ``n E[w^2 e^2 phi_z phi_z' 1{T=t}] / E[w]^2`` for weights w.
    left
        Share of the outcome's variation that the residual e holds.
    """

    spread: Float[Array, "a d_z d_z"]
    left: Float[Array, ""]


def residual_moments(
    sample: Sample, alpha: Float[Array, "a d_x"], value_y: Float[Array, " d_y"]
) -> ResidualMoments:
    """Return second moments of the residual ``e = y . value_y - x . alpha_t`` with z.

    Parameters
    ----------
    sample
        The rows.
    alpha
        Coefficients of x in each arm.
    value_y
        Vector that gives the outcome from its features, in the units of alpha.

    Examples
    --------
    >>> import jax.numpy as jnp, jaxmix as jm
    >>> table = {"t": [0, 1] * 8, "y": [1, 2, 4, 4] * 4}
    >>> table |= {"z": [0, 0, 1, 1] * 4, "x": [1, 0, 0, 1] * 4}
    >>> data = jm.CausalData.from_frame(table, treatment="t", outcome="y", z=["z"], x=["x"])
    >>> sample = Sample(jm.features.encode(data))
    >>> found = residual_moments(sample, jnp.zeros((2, 2)), sample.moments.value_y)
    >>> found.spread[0].tolist()  # half of the rows of z = 0 have y = 1, of z = 1 y = 4
    [[0.25, 0.0], [0.0, 4.0]]
    """
    return _residual_moments(sample.views, alpha, value_y)


@compiled()
def _gram_x(views: Views) -> Float[Array, "a d_x d_x"]:
    _, d_z, d_x, d_y = views.sizes

    def of_rows(rows: Views) -> Float[Array, "a m"]:
        by_arm = rows.design.mass[:, None] * (rows.t[:, None] == jnp.arange(rows.num_arms))
        xx = (rows.x[:, :, None] * rows.x[:, None, :]).reshape(rows.num_rows, -1)
        return jnp.matmul(by_arm.T, xx, precision="highest")

    found = sums.total(of_rows, views, d_x * (d_x + d_z) + views.num_arms * d_y)
    return (found / sums.mass(views)).reshape(-1, d_x, d_x)


@compiled()
def _product_covariance(
    views: Views, arm_probabilities: Float[Array, " a"], to_z: Array, to_x: Array
) -> Float[Array, "m m"]:
    a, num = views.num_arms, to_z.shape[2] * to_x.shape[2]

    def of_rows(rows: Views) -> Float[Array, "l m"]:
        t, size = rows.t, rows.num_rows
        z, x = (
            jnp.einsum("nd,ndp->np", view, to[t], precision="highest")
            for view, to in ((rows.z, to_z), (rows.x, to_x))
        )
        weight = rows.weight / arm_probabilities[t]
        by_arm = weight[:, None] * (t[:, None] == jnp.arange(a))
        products = (z[:, :, None] * x[:, None, :]).reshape(size, num)
        added = (by_arm[:, :, None] * products[:, None, :]).reshape(size, a * num)
        counted = rows.multiplicity[:, None] * added
        if rows.cluster is None:
            return jnp.matmul(counted.T, added, precision="highest")
        return jax.ops.segment_sum(counted, rows.cluster, num_segments=rows.num_clusters)

    total = sums.total(of_rows, views, a * num)
    if views.cluster is not None:
        total = jnp.matmul(total.T, total, precision="highest")
    return total * sums.num_rows(views) / sums.mass(views) ** 2


@compiled()
def _residual_moments(
    views: Views, alpha: Float[Array, "a d_x"], value_y: Float[Array, " d_y"]
) -> ResidualMoments:
    def squares(rows: Views) -> Float[Array, " c"]:
        residual = rows.y @ value_y - jnp.sum(rows.x * alpha[rows.t], axis=1)
        return (rows.weight * residual) ** 2

    def outcome(rows: Views) -> Float[Array, ""]:
        return jnp.sum(rows.y @ value_y * rows.design.mass)

    def spread_of(rows: Views) -> Float[Array, ""]:
        return jnp.sum((rows.weight * (rows.y @ value_y - centre)) ** 2 * rows.multiplicity)

    numbers = views.sizes[2] + views.sizes[3]
    # The gram matrix of z under the weight (w e)^2 is what the moments already compute.
    weighted = views.redesigned(weight=sums.each(squares, views, numbers))
    spread, left = from_rows(weighted).gram_z, sums.mass(weighted)
    mass = sums.mass(views)
    centre = sums.total(outcome, views, numbers) / mass
    total = sums.total(spread_of, views, numbers)
    return ResidualMoments(spread * left * sums.num_rows(views) / mass**2, left / total)
