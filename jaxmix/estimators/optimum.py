"""The classes at an optimum of the factorization, with their derivatives in the moments."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxmix.estimators import least_squares
from jaxmix.estimators.base import Start
from jaxmix.estimators.least_squares import Layout, Profiles, Target
from jaxmix.model.law import Mixture
from jaxmix.model.optimum import mixture_of, revisited, table_of
from jaxmix.model.structure import Factors
from jaxmix.sample.moments import Moments
from jaxmix.solvers.compiling import compiled
from jaxmix.solvers.implicit import at_root
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


def table_value(
    moments: Moments, optimum: Factors, level: int, arm: int, flat: Array
) -> tuple[Mixture, Factors]:
    """Return the classes at the optimum and their factors, with derivatives in the moments."""
    data = table_of(moments, level)
    factors = revisited(data, optimum, flat)
    value = mixture_of(data.structure, factors, moments.value_y)
    return value.take(jnp.argsort(value.effects(arm))), factors


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
