"""Draws of resamples by version 1 of the scheme, by which the golden numbers were made."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmix.sample.resamples import draws
from jaxmix.sample.resamples.units import Units
from jaxmix.solvers.sampling import multinomial


def use(monkeypatch: Any) -> None:
    """Draw by version 1 until the test is over."""
    jax.clear_caches()  # of programs that draw by version 2
    monkeypatch.setattr(draws, "draw_units", draw_units)
    monkeypatch.setattr(Units, "by_block", False)


def draw_units(keys: jax.Array, units: Units, kind: str) -> jax.Array:
    """Draw how often each unit occurs in each of several resamples."""
    drawn = (_draw_counts if units.repeated else _draw_singles)(keys, units, kind)
    strata = units.strata
    if strata is None or kind == "multinomial":
        return drawn

    def totals(times: jax.Array) -> jax.Array:
        return jax.ops.segment_sum(times, strata, num_segments=units.num_strata)

    # A stratum that no Poisson count has met leaves no estimate (NaN), rather than a smaller one.
    sizes = totals(units.times)
    scale = jnp.where(sizes > 0, sizes / jax.vmap(totals)(drawn), 1.0)
    return drawn * scale[:, strata]


def _draw_counts(keys: jax.Array, units: Units, kind: str) -> jax.Array:
    """Draw tables of counts like the one observed."""
    counts = units.times
    if kind == "multinomial":
        if units.strata is None:
            return multinomial(keys, counts.sum(), counts)

        def one(stratum: jax.Array) -> jax.Array:
            own = jax.vmap(jax.random.fold_in, (0, None))(keys, stratum)
            inside = jnp.where(units.strata == stratum, counts, 0)
            return multinomial(own, inside.sum(), inside)

        start = jnp.zeros((len(keys), len(counts)), counts.dtype)
        return jax.lax.fori_loop(0, units.num_strata, lambda h, drawn: drawn + one(h), start)
    if kind == "poisson":
        draws = jax.vmap(lambda key: jax.random.poisson(key, counts))(keys)
        return draws.astype(counts.dtype)
    return jax.vmap(lambda key: jax.random.gamma(key, counts))(keys)


def _draw_singles(keys: jax.Array, units: Units, kind: str) -> jax.Array:
    """Draw the multiplicities of units that each stand for themselves."""
    n, dtype = len(units.times), units.times.dtype
    lower: Any = 0
    upper: Any = n
    if units.strata is not None:
        # Each draw is of a place among the units of its own stratum, in their order.
        order = jnp.argsort(units.strata)
        lower, upper = (
            jnp.searchsorted(units.strata[order], units.strata, side=side)
            for side in ("left", "right")
        )

    def one(key: jax.Array) -> jax.Array:
        if kind == "multinomial":
            chosen = jax.random.randint(key, (n,), lower, upper)
            if units.strata is not None:
                chosen = order[chosen]
            return jnp.zeros(n, dtype).at[chosen].add(1.0)
        if kind == "bayesian":
            return jax.random.exponential(key, (n,), dtype)
        # Poisson by inversion: a rejection sampler costs twenty times as much. Beyond 18 the
        # probability, 3e-18, is below the resolution of the uniform draw.
        j = np.arange(19)
        cdf = np.cumsum(np.exp(-1.0) / np.cumprod(np.maximum(j, 1.0)))
        uniform = jax.random.uniform(key, (n,), dtype)
        return sum(((uniform >= c).astype(dtype) for c in cdf), start=jnp.zeros(n, dtype))

    return jax.vmap(one)(keys)
