"""What a bootstrap draws: rows or clusters, in strata or not, by multiplicities."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxmix.sample.features import Views
from jaxmix.solvers.sampling import multinomial
from jaxmix.status import InputError

KINDS = ("multinomial", "poisson", "bayesian")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Units:
    """What is drawn whole: rows, or clusters of rows.

    Attributes
    ----------
    times
        ``(u,)`` how often each unit occurs in the sample.
    of_row
        ``(n,)`` the unit of each row; None where rows are units.
    strata
        ``(u,)`` stratum of each unit, 0, 1, ...; None where there is one.
    num_strata
        Number of strata (static).
    repeated
        Whether `times` may differ from 1 (static).
    """

    times: Float[Array, " u"]
    of_row: Int[Array, " n"] | None = None
    strata: Int[Array, " u"] | None = None
    num_strata: int = dataclasses.field(default=1, metadata={"static": True})
    repeated: bool = dataclasses.field(default=True, metadata={"static": True})


def units_of(views: Views, strata: Any = None) -> Units:
    """Return what is drawn whole: clusters where there are any, otherwise rows.

    Parameters
    ----------
    views
        The rows.
    strata
        ``(n,)`` labels of the strata of rows, known outside of compiled code; or None.

    Raises
    ------
    InputError
        Where a cluster lies in several strata.
    """
    clustered = views.cluster is not None
    times = views.multiplicity
    if clustered:
        times = jnp.ones(views.num_clusters, views.multiplicity.dtype)
    of_row = views.cluster
    if strata is None:
        return Units(times, of_row, repeated=views.repeated and not clustered)
    labels = np.asarray(strata)
    if labels.shape != np.shape(views.t):
        raise ValueError(f"strata has shape {labels.shape}: give one label for each row")
    found, codes = np.unique(labels, return_inverse=True)
    if clustered:
        rows, cluster = codes, np.asarray(views.cluster)
        codes = np.zeros(views.num_clusters, codes.dtype)
        codes[cluster] = rows
        if split := len(set(cluster[codes[cluster] != rows])):
            raise InputError(
                f"strata (--strata): {split} of {views.num_clusters} clusters have rows in several "
                "strata, and clusters are drawn whole; leave out the strata, or the clusters"
            )
    return Units(times, of_row, jnp.asarray(codes), len(found), views.repeated and not clustered)


def draw_multiplicities(
    keys: Array, views: Views, kind: str, strata: Any = None
) -> Float[Array, "r n"]:
    """Draw how often each row occurs in each of several resamples.

    Clusters, where there are any, are drawn whole.

    Parameters
    ----------
    keys
        ``(r,)`` JAX keys, one for each resample.
    views
        The rows; a row that stands for m identical ones is drawn as m.
    kind
        ``"multinomial"``: rows with replacement, as many as there were (or clusters);
        ``"poisson"``: independent Poisson counts; ``"bayesian"``: independent exponential weights
        (Rubin 1981).
    strata
        ``(n,)`` labels, or None: rows (or clusters) are drawn within each stratum apart, whose
        size then stays what it was, exactly. Poisson counts and exponential weights are scaled
        to it.

    Raises
    ------
    InputError
        Where a cluster lies in several strata.
    """
    units = units_of(views, strata)
    return rows_of(draw_units(keys, units, kind), units, views)


def rows_of(drawn: Float[Array, "*r u"], units: Units, views: Views) -> Float[Array, "*r n"]:
    """Return the multiplicities of rows from those of units."""
    if units.of_row is None:
        return drawn
    return drawn[..., units.of_row] * views.multiplicity


def draw_units(keys: Array, units: Units, kind: str) -> Float[Array, "r u"]:
    """Draw how often each unit occurs in each of several resamples.

    Parameters
    ----------
    keys, kind
        As in `draw_multiplicities`.
    units
        See `units_of`.
    """
    drawn = (_draw_counts if units.repeated else _draw_singles)(keys, units, kind)
    strata = units.strata
    if strata is None or kind == "multinomial":
        return drawn

    def totals(times: Float[Array, " u"]) -> Float[Array, " s"]:
        return jax.ops.segment_sum(times, strata, num_segments=units.num_strata)

    # A stratum that no Poisson count has met leaves no estimate (NaN), rather than a smaller one.
    sizes = totals(units.times)
    scale = jnp.where(sizes > 0, sizes / jax.vmap(totals)(drawn), 1.0)
    return drawn * scale[:, strata]


def _draw_counts(keys: Array, units: Units, kind: str) -> Float[Array, "r u"]:
    """Draw tables of counts like the one observed."""
    counts = units.times
    if kind == "multinomial":
        if units.strata is None:
            return multinomial(keys, counts.sum(), counts)

        def one(stratum: Array) -> Float[Array, "r u"]:
            own = jax.vmap(jax.random.fold_in, (0, None))(keys, stratum)
            inside = jnp.where(units.strata == stratum, counts, 0)
            return multinomial(own, inside.sum(), inside)

        start = jnp.zeros((len(keys), len(counts)), counts.dtype)
        return jax.lax.fori_loop(0, units.num_strata, lambda h, drawn: drawn + one(h), start)
    if kind == "poisson":
        draws = jax.vmap(lambda key: jax.random.poisson(key, counts))(keys)
        return draws.astype(counts.dtype)
    return jax.vmap(lambda key: jax.random.gamma(key, counts))(keys)


def _draw_singles(keys: Array, units: Units, kind: str) -> Float[Array, "r u"]:
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

    def one(key: Array) -> Float[Array, " n"]:
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
