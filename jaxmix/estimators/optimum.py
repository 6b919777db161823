"""The classes at an optimum of the factorization, with their derivatives in the moments.

Finding an optimum and differentiating it are two things. Here is the second: the optimum is
given, stays where it is, and varies with the moments by the implicit function theorem.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float

from jaxmix.estimators import least_squares
from jaxmix.estimators.base import Start
from jaxmix.estimators.least_squares import Layout, Profiles, Target
from jaxmix.model import table
from jaxmix.model.law import Mixture
from jaxmix.model.table import Cells, Factors
from jaxmix.sample.moments import Moments
from jaxmix.solvers.compiling import compiled
from jaxmix.solvers.implicit import at_root, is_singular
from jaxmix.solvers.lanes import batched, where_selected
from jaxmix.status import Solution, Status, settle, where


@compiled("k", "level", "arm")
def revisit(
    moments: Moments,
    k: int,
    start: Start,
    *,
    level: int = 3,
    arm: int = 1,
    weight: Array | None = None,
    flat: Array | bool = False,
) -> Solution[Mixture]:
    """Return the classes at an optimum that was found before, for their derivatives.

    The value is that of `jaxmix.factorization.solve`, number for number, and so are its
    derivatives in the moments; nothing is searched or moved, so that it compiles and runs in a
    fraction of the time. Its status says only whether the optimum is flat and the value finite.

    Parameters
    ----------
    moments
        Those that were fitted.
    k, level, arm
        As they were given to it.
    start, weight, flat
        ``stats["start"]``, ``stats["weight"]`` (of `gmm` fits; None for `kl`) and
        ``stats["flat"]`` of the solution.

    Examples
    --------
    >>> import jax, jaxmix as jm
    >>> counts = jm.populations.paper_main(zt_strength=0.5).counts(jax.random.key(0), 100_000)
    >>> moments = jm.moments.from_counts(counts)
    >>> sol = jm.factorization.solve(moments, 2, key=jax.random.key(1))
    >>> again = revisit(moments, 2, sol.stats["start"])
    >>> bool((again.value.means == sol.value.means).all())
    True
    """
    flat = jnp.asarray(flat)
    if weight is None:
        value = table_value(moments, Factors(*start), level, arm, flat)[0]
    else:
        layout = Layout.of(
            moments, num_classes=k, level=level, num_starts=1, max_steps=0, tolerance=0.0, warm=True
        )
        goal = least_squares.target(jax.lax.stop_gradient(moments), False)._replace(root=weight)
        value = moments_value(moments, goal, jnp.asarray(start), layout, arm, flat)[0]
    return Solution(value, settle(where(flat, Status.NOT_IDENTIFIED), value.means), {})


def counts_of(moments: Moments) -> Cells:
    """Return the counts behind a table's moments; those of many rows for a population."""
    dtype = moments.tensor.dtype
    many = jnp.finfo(dtype).eps ** (-2 / 3)
    n = jnp.where(jnp.isfinite(moments.num_rows), moments.num_rows, many).astype(dtype)
    return moments.tensor * n


def as_level(cells: Cells, level: int) -> Cells:
    """Return a table as the likelihood of a level sees it: at level 2 of (Z, X, (T, Y))."""
    if level == 3:
        return cells
    a, d_z, d_x, d_y = cells.shape
    return cells.transpose(1, 2, 0, 3).reshape(1, d_z, d_x, a * d_y)


def cells_of(moments: Moments, level: int) -> Cells:
    """Return the counts behind a table's moments, as the likelihood of a level sees them."""
    return as_level(counts_of(moments), level)


def table_value(
    moments: Moments, optimum: Factors, level: int, arm: int, flat: Array
) -> tuple[Mixture, Factors]:
    """Return the classes at the optimum and their factors, with derivatives in the moments."""
    cells = cells_of(moments, level)
    vector, unravel = ravel_pytree(Factors(*optimum))
    residual = _stationarity(cells.shape, optimum[0].shape[-1])
    factors = unravel(at_root(residual, vector, (cells,), flat))
    value = mixture_of(factors, moments.value_y, level, moments.tensor.shape[0])
    return value.take(jnp.argsort(value.effects(arm))), factors


def mixture_of(factors: Factors, value_y: Array, level: int, num_arms: int) -> Mixture:
    """Return the classes behind a table's factors, in the order of the factors."""
    W, B, C = factors
    if level == 2:
        shares = W[0].sum(0)
        by_arm = C.reshape(num_arms, len(value_y), -1)
        propensity = by_arm.sum(1)  # P(T=t | u)
        conditional = W[0] / _positive(shares)
        z_profiles = propensity[:, None, :] * conditional
        C = by_arm / _positive(propensity)[:, None, :]
    else:
        shares = W.sum((0, 1))
        z_profiles = W / _positive(shares)
    means = jnp.einsum("tyu,y->tu", C, value_y, precision="highest")
    return Mixture(shares, means, B, z_profiles, C)


def _positive(values: Array) -> Array:
    """Return a divisor: 1 where a class is empty, so that its profile is finite."""
    return jnp.where(values > 0, values, 1.0)


@functools.lru_cache(maxsize=256)
def _stationarity(shape: tuple[int, ...], k: int) -> Any:
    a, d_z, d_x, d_y = shape
    sizes = (a * d_z * k, d_x * k)

    def residual(vector: Array, args: tuple[Cells]) -> Array:
        W, B, C = jnp.split(vector, (sizes[0], sum(sizes)))
        factors = Factors(W.reshape(a, d_z, k), B.reshape(d_x, k), C.reshape(a, d_y, k))
        (cells,) = args
        n = cells.sum()
        gradient = table.score(cells, factors)
        shares, by_arm = factors.W.sum((0, 1)), factors.W.sum(1)
        # The gauge: sums of B and C are 1.
        by_b = gradient.B + n * shares * (1 - factors.B.sum(0))
        by_c = gradient.C + n * (by_arm * (1 - factors.C.sum(1)))[:, None, :]
        slopes = jnp.concatenate([g.reshape(-1) for g in (gradient.W, by_b, by_c)])
        # Probabilities at the bound stay there, in units that keep the system balanced.
        return jnp.where(vector <= 0, n * vector, slopes)

    return residual


def _singular_of(
    cells: Float[Array, "b a d_z d_x d_y"], factors: Factors, doubtful: Bool[Array, " b"]
) -> Bool[Array, " b"]:
    residual = _stationarity(cells.shape[1:], factors.B.shape[-1])

    def look(known: Array, cells: Cells, factors: Factors) -> Array:
        del known
        return jax.vmap(lambda c, f: is_singular(residual, ravel_pytree(f)[0], (c,)))(
            cells, factors
        )

    return where_selected(look, jnp.zeros(len(doubtful), bool), doubtful, cells, factors)


singular_where = batched(_singular_of)
"""From counts, an optimum and whether there is a doubt to whether its likelihood is flat there.

By the system of its derivatives. Under ``vmap`` only the tables in doubt cost anything.
"""


def moments_value(
    moments: Moments, goal: Target, optimum: Array, layout: Layout, arm: int, flat: Array
) -> tuple[Mixture, Array]:
    """Return the classes at the optimum and its coordinates, with derivatives in the moments."""
    own = goal._replace(tensor=moments.tensor)
    vector = at_root(_gradient(layout), optimum, (own,), flat)
    parts = least_squares.profiles(least_squares.unravel(vector, layout), goal.limits, layout)
    return _mixture(parts, moments, arm), vector


@functools.lru_cache(maxsize=256)
def _gradient(layout: Layout) -> Any:
    return functools.partial(least_squares.stationarity, layout=layout)


def _mixture(parts: Profiles, moments: Moments, arm: int) -> Mixture:
    mass, A, B, C = parts
    shares = mass.sum(0)
    means = jnp.einsum("tyu,y->tu", C, moments.value_y, precision="highest")
    z_profiles = (mass / shares)[:, None, :] * A
    found = Mixture(shares, means, B, z_profiles, C)
    return found.take(jnp.argsort(found.effects(arm)))
