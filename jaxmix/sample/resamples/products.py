"""Products of a row's features: the numbers of which moments are means."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple, Self

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxmix.sample.moments import Moments
from jaxmix.sample.views import Views


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


def number(views: Views) -> int:
    """Return how many products a row has."""
    a, d_z, d_x, d_y = views.sizes
    return a * (d_z * d_x * d_y + d_z * (d_z + 1) // 2 + d_x)


def of_rows(rows: Views) -> Float[Array, "c q"]:
    """Return the products of each of some rows, weights aside.

    By arm, which is 0 for all but the row's own: ``z x y``, ``z z'`` (each pair once), ``x^2``.
    """
    z, x, y, t = rows.z, rows.x, rows.y, rows.t
    c, upper = len(t), np.triu_indices(z.shape[1])
    zxy = (z[:, :, None, None] * x[:, None, :, None] * y[:, None, None, :]).reshape(c, -1)
    own = jnp.concatenate([zxy, z[:, upper[0]] * z[:, upper[1]], x**2], axis=1)
    arms = t[:, None] == jnp.arange(rows.num_arms)
    sizes = np.cumsum([zxy.shape[1], len(upper[0])])
    parts = jnp.split(jnp.where(arms[:, :, None], own[:, None, :], 0), sizes, axis=2)
    return jnp.concatenate([part.reshape(c, -1) for part in parts], axis=1)


def of_moments(moments: Moments) -> Float[Array, " q"]:
    """Return the means of products that moments hold, in the order of `of_rows`."""
    gram = moments.gram_z[(..., *np.triu_indices(moments.gram_z.shape[-1]))]
    parts = (moments.tensor, gram, moments.square_x)
    return jnp.concatenate([part.reshape(-1) for part in parts])


def of_slope(slope: Moments) -> Float[Array, " q"]:
    """Return a derivative in moments as one in the means of products."""
    gram = slope.gram_z + jnp.swapaxes(slope.gram_z, -1, -2)
    diagonal = jnp.eye(gram.shape[-1], dtype=bool)
    gram = jnp.where(diagonal, slope.gram_z, gram)
    upper = gram[(..., *np.triu_indices(gram.shape[-1]))]
    parts = (slope.tensor, upper, slope.square_x)
    return jnp.concatenate([part.reshape(-1) for part in parts])


def as_parts(means: Float[Array, "*r q"], num_rows: Float[Array, "*r"], views: Views) -> Parts:
    """Return what means of products are of moments."""
    a, d_z, d_x, d_y = views.sizes
    places = np.zeros((d_z, d_z), int)
    upper = np.triu_indices(d_z)
    places[upper] = places.T[upper] = np.arange(len(upper[0]))
    sizes = np.cumsum([a * d_z * d_x * d_y, a * len(upper[0])])
    tensor, gram, square = jnp.split(means, sizes, axis=-1)
    batch = means.shape[:-1]
    return Parts(
        tensor.reshape(*batch, a, d_z, d_x, d_y),
        gram.reshape(*batch, a, -1)[..., places],
        square.reshape(*batch, a, d_x),
        num_rows,
    )
