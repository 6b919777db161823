"""Exact draws of counts, fast under ``vmap``.

JAX's own multinomial walks the categories one after the other, and each binomial runs both of its
algorithms; on 16 cells that is six times the cost of what follows. Here the counts are split
in halves, all nodes of a level of the tree at once.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_SMALL_MEAN = 10.0  # below it draws are by inversion; the rejection sampler needs a mean of 10
_MOST = 120.0  # a binomial of mean below 10 exceeds this with probability below 1e-80
# log k! minus Stirling's formula, exact for k = 0..9.
_STIRLING_TAIL = np.array(
    [
        0.0810614667953272582,
        0.0413406959554092941,
        0.0276779256849983391,
        0.0207906721037650931,
        0.0166446911898211921,
        0.0138761288230707480,
        0.0118967099458917700,
        0.0104112652619720965,
        0.0092554621827127330,
        0.0083305634333628970,
    ]
)


def multinomial(key: Array, n: Array | float, p: Float[Array, " m"]) -> Float[Array, " m"]:
    """Draw the counts of n independent categorical draws.

    Parameters
    ----------
    key
        JAX key.
    n
        Number of draws, a whole number.
    p
        ``(m,)`` probabilities, in any scale; a cell of probability 0 stays empty.

    Returns
    -------
    Array
        ``(m,)`` counts as floating-point numbers that sum to n.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> counts = multinomial(jax.random.key(0), 100, jnp.array([0.2, 0.0, 0.8]))
    >>> float(counts.sum()), float(counts[1])
    (100.0, 0.0)
    """
    m = p.shape[0]
    depth = max(m - 1, 0).bit_length()
    sums = [jnp.zeros(2**depth, p.dtype).at[:m].set(p)]
    for _ in range(depth):
        sums.append(sums[-1][0::2] + sums[-1][1::2])
    counts = jnp.asarray(n, p.dtype).reshape(1)
    for level in range(depth):
        whole, left = sums[depth - level], sums[depth - level - 1][0::2]
        share = jnp.where(whole > 0, left / jnp.where(whole > 0, whole, 1.0), 0.0)
        first = binomial(jax.random.fold_in(key, level), counts, share)
        counts = jnp.stack([first, counts - first], axis=1).reshape(-1)
    return counts[:m]


def binomial(key: Array, n: Float[Array, " w"], p: Float[Array, " w"]) -> Float[Array, " w"]:
    """Draw independent binomial counts.

    By transformed rejection where the mean is at least 10 (BTRS, Hörmann 1993), and by
    inversion below.

    Parameters
    ----------
    key
        JAX key.
    n, p
        ``(w,)`` numbers of trials (whole, up to 2^53 in float64) and probabilities.

    References
    ----------
    Hörmann (1993), "The generation of binomial random variates", Journal of Statistical
    Computation and Simulation 46.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> binomial(jax.random.key(0), jnp.array([5.0, 5.0]), jnp.array([0.0, 1.0])).tolist()
    [0.0, 5.0]
    """
    rare = jnp.minimum(p, 1.0 - p)
    small = ~(n * rare >= _SMALL_MEAN)
    keys = jax.random.split(key)
    count = jnp.where(
        small,
        _by_inversion(keys[0], jnp.where(small, n, 0.0), rare),
        _by_rejection(keys[1], jnp.where(small, 40.0, n), jnp.where(small, 0.5, rare), small),
    )
    return jnp.where(p > 0.5, n - count, count)


def _by_inversion(
    key: Array, n: Float[Array, " w"], p: Float[Array, " w"]
) -> Float[Array, " w"]:
    uniform = jax.random.uniform(key, n.shape, n.dtype)
    odds = p / (1.0 - p)

    def unfinished(state: tuple[Array, ...]) -> Array:
        count, _, cdf = state
        return (uniform >= cdf) & (count < jnp.minimum(n, _MOST))

    def step(state: tuple[Array, ...]) -> tuple[Array, ...]:
        count, pmf, cdf = state
        more = unfinished(state)
        pmf = jnp.where(more, pmf * odds * (n - count) / (count + 1.0), pmf)
        return jnp.where(more, count + 1.0, count), pmf, jnp.where(more, cdf + pmf, cdf)

    none = jnp.exp(n * jnp.log1p(-p))
    start = (jnp.zeros_like(n), none, none)
    return jax.lax.while_loop(lambda s: jnp.any(unfinished(s)), step, start)[0]


def _by_rejection(
    key: Array, n: Float[Array, " w"], p: Float[Array, " w"], skip: Array
) -> Float[Array, " w"]:
    # The constants and the acceptance test are Hörmann's, algorithm BTRS.
    odds = p / (1.0 - p)
    spread = jnp.sqrt(n * p * (1.0 - p))
    b = 1.15 + 2.53 * spread
    a = -0.0873 + 0.0248 * b + 0.01 * p
    alpha = (2.83 + 5.1 / b) * spread
    quick = 0.92 - 4.2 / b
    mode = jnp.floor((n + 1.0) * p)
    at_mode = (
        (mode + 0.5) * jnp.log((mode + 1.0) / (odds * (n - mode + 1.0)))
        + _stirling_tail(mode)
        + _stirling_tail(n - mode)
    )

    def step(state: tuple[Array, ...]) -> tuple[Array, ...]:
        attempt, count, done = state
        drawn = jax.random.uniform(jax.random.fold_in(key, attempt), (2, *n.shape), n.dtype)
        u, v = drawn[0] - 0.5, drawn[1]
        us = 0.5 - jnp.abs(u)
        k = jnp.floor((2.0 * a / us + b) * u + n * p + 0.5)
        inside = (k >= 0) & (k <= n)
        k = jnp.where(inside, k, mode)
        bound = (
            at_mode
            + (n + 1.0) * jnp.log((n - mode + 1.0) / (n - k + 1.0))
            + (k + 0.5) * jnp.log(odds * (n - k + 1.0) / (k + 1.0))
            - _stirling_tail(k)
            - _stirling_tail(n - k)
        )
        accepted = ((us >= 0.07) & (v <= quick)) | (
            jnp.log(v * alpha / (a / (us * us) + b)) <= bound
        )
        take = inside & accepted & ~done
        return attempt + 1, jnp.where(take, k, count), done | take

    start = (jnp.int32(0), jnp.zeros_like(n), skip)
    return jax.lax.while_loop(lambda state: ~jnp.all(state[2]), step, start)[1]


def _stirling_tail(k: Float[Array, " w"]) -> Float[Array, " w"]:
    """Return ``log k! - (log(2 pi) / 2 + (k + 1/2) log(k + 1) - (k + 1))``."""
    inverse = 1.0 / (k + 1.0)
    square = inverse * inverse
    series = (1 / 12 - (1 / 360 - square / 1260) * square) * inverse
    table = jnp.asarray(_STIRLING_TAIL, k.dtype)
    exact = table[jnp.clip(k, 0, len(_STIRLING_TAIL) - 1).astype(jnp.int32)]
    return jnp.where(k < len(_STIRLING_TAIL), exact, series)
