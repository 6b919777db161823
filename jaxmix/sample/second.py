"""Second moments of rows, for tests: of the products of two views, and of a residual with z."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmix.sample import sums
from jaxmix.sample.features import Views
from jaxmix.sample.moments import from_rows
from jaxmix.sample.sample import Sample
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
    return from_rows(dataclasses.replace(views, z=views.x, x=views.z)).gram_z


@compiled()
def _product_covariance(
    views: Views, arm_probabilities: Float[Array, " a"], to_z: Array, to_x: Array
) -> Float[Array, "m m"]:
    n, a = len(views.t), views.num_arms
    num = to_z.shape[2] * to_x.shape[2]
    size = sums.chunk_size(n, a * num)

    def of_chunk(chunk: sums.Chunk) -> Float[Array, "l m"]:
        t = chunk.cut(views.t)
        z, x = (
            jnp.einsum("nd,ndp->np", chunk.cut(view), to[t], precision="highest")
            for view, to in ((views.z, to_z), (views.x, to_x))
        )
        weight = chunk.cut(views.weight) / arm_probabilities[t]
        by_arm = weight[:, None] * (t[:, None] == jnp.arange(a))
        products = (z[:, :, None] * x[:, None, :]).reshape(size, num)
        added = (by_arm[:, :, None] * products[:, None, :]).reshape(size, a * num)
        counted = chunk.once(views.multiplicity)[:, None] * added
        if views.cluster is None:
            return jnp.matmul(counted.T, added, precision="highest")
        own = chunk.cut(views.cluster)
        return jax.ops.segment_sum(counted, own, num_segments=views.num_clusters)

    total = sums.total(of_chunk, n, size)
    if views.cluster is not None:
        total = jnp.matmul(total.T, total, precision="highest")
    return total * views.multiplicity.sum() / (views.weight * views.multiplicity).sum() ** 2


@compiled()
def _residual_moments(
    views: Views, alpha: Float[Array, "a d_x"], value_y: Float[Array, " d_y"]
) -> ResidualMoments:
    y = views.y @ value_y
    residual = y - jnp.sum(views.x * alpha[views.t], axis=1)
    # The gram matrix of z under the weight (w e)^2 is what the moments already compute.
    squared = (views.weight * residual) ** 2
    spread = from_rows(views.redesigned(weight=squared)).gram_z
    mass = views.weight * views.multiplicity
    n, left = views.multiplicity.sum(), jnp.sum(squared * views.multiplicity)
    total = jnp.sum((views.weight * (y - jnp.average(y, weights=mass))) ** 2 * views.multiplicity)
    return ResidualMoments(spread * left * n / mass.sum() ** 2, left / total)
