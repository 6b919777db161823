"""A mixture at the maximum of its likelihood, with its derivatives in the counts.

Finding an optimum and differentiating it are two things. Here is the second: the optimum is
given, stays where it is, and varies with the counts by the implicit function theorem.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float

from jaxmix.model.law import Mixture
from jaxmix.model.likelihood import Observed, flat_parts, score
from jaxmix.model.structure import LEVEL, Factors, Structure, positive
from jaxmix.model.table import Table
from jaxmix.sample.moments import Moments
from jaxmix.solvers.implicit import Residual, at_root, is_singular
from jaxmix.solvers.lanes import batched, where_selected


def table_of(moments: Moments, level: int) -> Table:
    """Return the counts behind a table's moments, under the structure of a level.

    Those of many rows for a population.
    """
    dtype = moments.tensor.dtype
    many = jnp.finfo(dtype).eps ** (-2 / 3)
    n = jnp.where(jnp.isfinite(moments.num_rows), moments.num_rows, many).astype(dtype)
    return Table(moments.tensor * n, LEVEL[level])


def revisited(data: Observed, optimum: Factors, flat: Array) -> Factors:
    """Return factors at an optimum, number for number, with derivatives in the data.

    Parameters
    ----------
    data
        What was fitted.
    optimum
        Where its likelihood has a maximum.
    flat
        Whether it is flat there; derivatives are NaN then.
    """
    vector, unravel = ravel_pytree(optimum)
    found: Factors = unravel(at_root(_stationarity(_shapes(optimum)), vector, (data,), flat))
    return found


def _shapes(factors: Factors) -> tuple[tuple[int, ...], ...]:
    return (factors.gate.shape, *(part.shape for part in factors.parts))


@functools.lru_cache(maxsize=256)
def _stationarity(shapes: tuple[tuple[int, ...], ...]) -> Residual[tuple[Observed]]:
    """Return what is zero at an optimum, a function of its numbers as one vector."""
    ends = np.cumsum([math.prod(shape) for shape in shapes])

    def residual(vector: Array, args: tuple[Observed]) -> Array:
        (data,) = args
        gate, *parts = (
            own.reshape(shape)
            for own, shape in zip(jnp.split(vector, ends[:-1]), shapes, strict=True)
        )
        factors = Factors(gate, tuple(parts))
        n, gradient = data.counts.sum(), score(data, factors)
        # The gauge: probabilities of a part sum to 1.
        index = data.structure.index(data.shape)
        theta = flat_parts(factors.parts)
        looks_at = jnp.asarray(index.looks_at, theta.dtype)
        together = jnp.asarray(index.together, theta.dtype)
        mass = n * (looks_at @ gate.reshape(-1, theta.shape[1]))
        of_parts = flat_parts(gradient.parts) + mass * (1 - together @ theta)
        slopes = jnp.concatenate([gradient.gate.reshape(-1), of_parts.reshape(-1)])
        # Probabilities at the bound stay there, in units that keep the system balanced.
        return jnp.where(vector <= 0, n * vector, slopes)

    return residual


def _singular_of(
    data: Observed, factors: Factors, doubtful: Bool[Array, " b"]
) -> Bool[Array, " b"]:
    one = jax.tree.map(lambda f: f[0], factors)
    residual = _stationarity(_shapes(one))

    def look(known: Array, data: Observed, factors: Factors) -> Array:
        del known
        return jax.vmap(lambda own, f: is_singular(residual, ravel_pytree(f)[0], (own,)))(
            data, factors
        )

    return where_selected(look, jnp.zeros(len(doubtful), bool), doubtful, data, factors)


singular_where = batched(_singular_of)
"""From data, an optimum and whether there is a doubt to whether its likelihood is flat there.

By the system of its derivatives. Under ``vmap`` only the tables in doubt cost anything.
"""


def mixture_of(structure: Structure, factors: Factors, value_y: Float[Array, " d_y"]) -> Mixture:
    """Return the classes behind the factors of a table, in the order of the factors."""
    joint = structure.mass(factors, ("t", "z"))
    shares = joint.sum((0, 1))
    C = structure.conditional(factors, ("y",), ("t",))
    means = jnp.einsum("tyu,y->tu", C, value_y, precision="highest")
    B = structure.conditional(factors, ("x",), ())
    return Mixture(shares, means, B, joint / positive(shares), C)
