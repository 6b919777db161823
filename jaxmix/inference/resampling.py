"""Bootstrap resamples: drawn by index, estimated in chunks, aligned to the estimate."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from jaxmix import moments
from jaxmix.data import CausalData
from jaxmix.features import Views, encode
from jaxmix.moments import Moments
from jaxmix.solvers.sampling import multinomial

KINDS = ("multinomial", "poisson", "bayesian")

_CHUNK_NUMBERS = 1 << 23  # weights held at once (64 MiB in float64)
_MAX_CHUNK = 1024
_BLOCKS_WATCHED = 50  # blocks between which a progress callback is called

Statistic = Callable[[Moments], Any]
Progress = Callable[[int, int], None]


def draw_multiplicities(keys: Array, views: Views, kind: str) -> Float[Array, "r n"]:
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
    """
    dtype = views.multiplicity.dtype
    if views.cluster is not None:
        drawn = _draw_units(keys, views.num_clusters, kind, dtype)
        return drawn[:, views.cluster] * views.multiplicity
    if views.repeated:
        return _draw_counts(keys, views.multiplicity, kind)
    return _draw_units(keys, len(views.t), kind, dtype)


def _draw_counts(keys: Array, counts: Float[Array, " m"], kind: str) -> Float[Array, "r m"]:
    """Draw tables of counts like the one observed."""
    if kind == "multinomial":
        return multinomial(keys, counts.sum(), counts)
    if kind == "poisson":
        draws = jax.vmap(lambda key: jax.random.poisson(key, counts))(keys)
        return draws.astype(counts.dtype)
    return jax.vmap(lambda key: jax.random.gamma(key, counts))(keys)


def _draw_units(keys: Array, n: int, kind: str, dtype: jnp.dtype) -> Float[Array, "r n"]:
    """Draw the multiplicities of n units that each stand for themselves."""

    def one(key: Array) -> Float[Array, " n"]:
        if kind == "multinomial":
            chosen = jax.random.randint(key, (n,), 0, n)
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


def bootstrap(
    statistic: Statistic,
    data: CausalData | Views | Float[Array, "a d_z d_x d_y"],
    *,
    key: Array,
    num_resamples: int,
    kind: str | None = None,
    outcome_values: Float[Array, " d_y"] | None = None,
    chunk_size: int | None = None,
    progress: Progress | None = None,
) -> Any:
    """Evaluate a statistic of the moments on bootstrap resamples.

    Resample i is drawn from ``fold_in(key, i)``, so that neither chunks nor the number of
    resamples change a draw.

    Parameters
    ----------
    statistic
        From `jaxmix.moments.Moments` to a pytree of arrays; pure, and hashable to be compiled
        once. A `jax.tree_util.Partial` of one may hold arrays, such as where to start from.
    data
        A table (`CausalData`), its `Views`, or counts for `jaxmix.moments.from_counts`.
    key
        JAX key.
    num_resamples
        Number of resamples.
    kind
        See `draw_multiplicities`; by default multinomial for counts and for rows with
        multiplicities, Bayesian otherwise.
    outcome_values
        For a table of counts, as in `jaxmix.moments.from_counts`.
    chunk_size
        Resamples evaluated at once; bounded by memory by default.
    progress
        Called with (resamples done, resamples in all) between blocks.

    Returns
    -------
    pytree
        The statistic's, each array with a leading axis of resamples.

    References
    ----------
    Efron (1979), Annals of Statistics 7; Hanley, MacGibbon (2006) on Poisson weights; Rubin
    (1981), Annals of Statistics 9.

    Examples
    --------
    >>> import jax, jaxmix as jm
    >>> counts = jm.populations.paper_main().counts(jax.random.key(0), 10_000)
    >>> def effect(m):
    ...     return jm.synthetic.effect_law(m, 2).mean
    >>> draws = bootstrap(effect, counts, key=jax.random.key(1), num_resamples=200)
    >>> draws.shape
    (200,)
    """
    if isinstance(data, CausalData):
        data = encode(data, reduce=True)
    if isinstance(data, Views):
        repeated, size = data.repeated, len(data.t)
    else:
        data = moments.as_inexact(data)
        repeated, size = True, data.size
    if not isinstance(statistic, jax.tree_util.Partial):
        statistic = jax.tree_util.Partial(statistic)
    kind = kind or ("multinomial" if repeated else "bayesian")
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}: use one of {', '.join(KINDS)}")
    chunk = chunk_size or min(_MAX_CHUNK, max(1, _CHUNK_NUMBERS // size))
    chunk = min(chunk, num_resamples)
    num_chunks = -(-num_resamples // chunk)
    blocks = min(num_chunks, _BLOCKS_WATCHED) if progress else 1
    per_block = -(-num_chunks // blocks) * chunk
    results = []
    for start in range(0, num_resamples, per_block):
        # Every block has one shape, so that it is compiled once; the surplus is cut off.
        indices = jnp.arange(start, start + per_block)
        results.append(_evaluate(statistic, data, outcome_values, key, indices, kind, chunk))
        if progress:
            jax.block_until_ready(results[-1])
            progress(min(start + per_block, num_resamples), num_resamples)
    return jax.tree.map(lambda *parts: jnp.concatenate(parts)[:num_resamples], *results)


@functools.partial(jax.jit, static_argnames=("kind", "chunk"))
def _evaluate(  # type: ignore[no-untyped-def]
    statistic: Statistic, data, outcome_values, key: Array, indices: Int[Array, " r"],
    kind: str, chunk: int,
) -> Any:  # fmt: skip
    def of_weights(drawn: Float[Array, " n"]) -> Any:
        if isinstance(data, Views):
            return statistic(moments.from_rows(dataclasses.replace(data, multiplicity=drawn)))
        return statistic(moments.from_counts(drawn.reshape(data.shape), outcome_values))

    def one_chunk(own: Int[Array, " c"]) -> Any:
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, own)
        if isinstance(data, Views):
            drawn = draw_multiplicities(keys, data, kind)
        else:
            drawn = _draw_counts(keys, data.reshape(-1), kind)
        return jax.vmap(of_weights)(drawn)

    results = jax.lax.map(one_chunk, indices.reshape(-1, chunk))
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), results)


def align(
    profile: Float[Array, "p k"], reference: Float[Array, "p k"]
) -> tuple[Int[Array, " k"], Bool[Array, ""]]:
    """Match the classes of a resample to those of the estimate by their whole profiles.

    Parameters
    ----------
    profile, reference
        ``(p, k)``: numbers that describe each class (means, share, proxy profile), on
        comparable scales.

    Returns
    -------
    order
        ``(k,)``: class ``order[u]`` of the resample is class u of the estimate; the assignment
        with the smallest sum of squared distances.
    ambiguous
        Whether two classes of the estimate have the same nearest class in the resample.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> order, ambiguous = align(jnp.array([[5.0, 1.0]]), jnp.array([[1.1, 4.0]]))
    >>> order.tolist(), bool(ambiguous)
    ([1, 0], False)
    """
    cost = jnp.sum((reference[:, :, None] - profile[:, None, :]) ** 2, axis=0)
    cost = jnp.where(jnp.isfinite(cost), cost, 1e6)
    rows, columns = optax.assignment.hungarian_algorithm(cost)
    order = jnp.zeros(cost.shape[0], jnp.int32).at[rows].set(columns.astype(jnp.int32))
    nearest = jnp.sort(jnp.argmin(cost, axis=1))
    return order, jnp.any(nearest[1:] == nearest[:-1])


def percentile_interval(draws: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the equal-tailed quantiles of resampled estimates (axis 0)."""
    tail = (1 - confidence) / 2
    lower, upper = np.quantile(draws, [tail, 1 - tail], axis=0)
    return lower, upper


def normal_interval(value: Any, se: Any, confidence: float) -> tuple[Any, Any]:
    """Return ``value -+ z se``.

    Examples
    --------
    >>> import numpy as np
    >>> lower, upper = normal_interval(np.array(0.0), np.array(1.0), 0.95)
    >>> round(float(upper), 3)
    1.96
    """
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    return value - z * se, value + z * se
