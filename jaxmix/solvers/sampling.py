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

from jaxmix.solvers.compiling import compiled

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


@compiled()
def multinomial(keys: Array, n: Array | float, p: Float[Array, "*r m"]) -> Float[Array, "r m"]:
    """Draw tables of the counts of n independent categorical draws.

    Parameters
    ----------
    keys
        ``(r,)`` JAX keys, one for each table. Give many at once: the few draws that a first
        attempt leaves open are gathered over all tables.
    n
        Number of draws in each table, a whole number up to 2^53 in float64; one for all, or
        ``(r,)``.
    p
        ``(m,)`` probabilities, in any scale, or ``(r, m)``; a cell of probability 0 stays empty.

    Returns
    -------
    Array
        ``(r, m)`` counts as floating-point numbers; each row sums to n and depends on its own
        key alone.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> keys = jax.random.split(jax.random.key(0), 3)
    >>> counts = multinomial(keys, 100, jnp.array([0.2, 0.0, 0.8]))
    >>> counts.sum(1).tolist(), counts[:, 1].tolist()
    ([100.0, 100.0, 100.0], [0.0, 0.0, 0.0])
    """
    r, m = keys.shape[0], p.shape[-1]
    depth = max(m - 1, 0).bit_length()
    totals = jnp.broadcast_to(jnp.asarray(n, p.dtype), (r,))
    if depth == 0:
        return totals[:, None]
    sums = jnp.zeros((*p.shape[:-1], 2**depth), p.dtype).at[..., :m].set(p)
    shares = []  # of the left half, from the last level to the first
    for _ in range(depth):
        left, sums = sums[..., 0::2], sums[..., 0::2] + sums[..., 1::2]
        shares.append(jnp.where(sums > 0, left / jnp.where(sums > 0, sums, 1.0), 0.0))

    def split(whole: Array, number: Array | int, share: Array) -> Array:
        own = jax.vmap(jax.random.fold_in, (0, None))(keys, number)
        first = binomial(own, whole, jnp.broadcast_to(share, whole.shape))
        return jnp.stack([first, whole - first], axis=2).reshape(r, -1)

    # Padded to the width of the last level, the levels are one loop body to compile.
    width = 2 ** (depth - 1)
    padded = jnp.stack(
        [
            jnp.zeros((*p.shape[:-1], width), p.dtype).at[..., : share.shape[-1]].set(share)
            for share in shares[::-1]
        ]
    )
    counts = jnp.zeros((r, 2 * width), p.dtype).at[:, 0].set(totals)
    counts, _ = jax.lax.scan(
        lambda counts, level: (split(counts[:, :width], *level), None),
        counts,
        (jnp.arange(depth), padded),
    )
    return counts[:, :m]


@compiled()
def binomial(keys: Array, n: Float[Array, "r w"], p: Float[Array, "r w"]) -> Float[Array, "r w"]:
    """Draw independent binomial counts, one key for each row.

    By transformed rejection where the mean is at least 10 (BTRS), and by inversion below.

    Parameters
    ----------
    keys
        ``(r,)`` JAX keys.
    n, p
        ``(r, w)`` numbers of trials (whole) and probabilities.

    References
    ----------
    Hörmann (1993), "The generation of binomial random variates", Journal of Statistical
    Computation and Simulation 46.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> keys = jax.random.split(jax.random.key(0), 1)
    >>> binomial(keys, jnp.array([[5.0, 5.0]]), jnp.array([[0.0, 1.0]])).tolist()
    [[0.0, 5.0]]
    """
    rare = jnp.minimum(p, 1.0 - p)
    small = ~(n * rare >= _SMALL_MEAN)
    pairs = jax.vmap(jax.random.split)(keys)
    count = jnp.where(
        small,
        _by_inversion(pairs[:, 0], jnp.where(small, n, 0.0), rare),
        _by_rejection(pairs[:, 1], jnp.where(small, 40.0, n), jnp.where(small, 0.5, rare), small),
    )
    return jnp.where(p > 0.5, n - count, count)


def _by_inversion(
    keys: Array, n: Float[Array, "r w"], p: Float[Array, "r w"]
) -> Float[Array, "r w"]:
    uniform = jax.vmap(lambda key: jax.random.uniform(key, n.shape[1:], n.dtype))(keys)
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
    start: tuple[Array, ...] = (jnp.zeros_like(n), none, none)
    return jax.lax.while_loop(lambda s: jnp.any(unfinished(s)), step, start)[0]


def _propose(n: Array, p: Array, u: Array, v: Array) -> tuple[Array, Array]:
    """Return a candidate, and whether it is accepted without looking at its probability."""
    # The constants here and in `_accepted` are Hörmann's, algorithm BTRS.
    spread = jnp.sqrt(n * p * (1.0 - p))
    b = 1.15 + 2.53 * spread
    a = -0.0873 + 0.0248 * b + 0.01 * p
    us = 0.5 - jnp.abs(u)
    k = jnp.floor((2.0 * a / us + b) * u + n * p + 0.5)
    quick = (us >= 0.07) & (v <= 0.92 - 4.2 / b)
    return k, quick & (k >= 0) & (k <= n)


def _accepted(n: Array, p: Array, u: Array, v: Array, k: Array) -> Array:
    """Whether a candidate is accepted by its probability relative to the mode's."""
    odds = p / (1.0 - p)
    spread = jnp.sqrt(n * p * (1.0 - p))
    b = 1.15 + 2.53 * spread
    a = -0.0873 + 0.0248 * b + 0.01 * p
    us = 0.5 - jnp.abs(u)
    mode = jnp.floor((n + 1.0) * p)
    inside = (k >= 0) & (k <= n)
    k = jnp.where(inside, k, mode)
    bound = (
        (mode + 0.5) * jnp.log((mode + 1.0) / (odds * (n - mode + 1.0)))
        + (n + 1.0) * jnp.log((n - mode + 1.0) / (n - k + 1.0))
        + (k + 0.5) * jnp.log(odds * (n - k + 1.0) / (k + 1.0))
        + _stirling_tail(mode)
        + _stirling_tail(n - mode)
        - _stirling_tail(k)
        - _stirling_tail(n - k)
    )
    return inside & (jnp.log(v * (2.83 + 5.1 / b) * spread / (a / (us * us) + b)) <= bound)


def _by_rejection(
    keys: Array, n: Float[Array, "r w"], p: Float[Array, "r w"], skip: Array
) -> Float[Array, "r w"]:
    """Draw by transformed rejection.

    Seven candidates of eight are accepted by a test without logarithms. The others are
    gathered, so that the loop which the slowest of them keeps going is short.
    """
    r, w = n.shape
    drawn = jax.vmap(lambda key: jax.random.uniform(key, (2, w), n.dtype))(keys)
    flat = [array.reshape(-1) for array in (n, p, drawn[:, 0] - 0.5, drawn[:, 1])]
    first, quick = _propose(*flat)
    size = min(r * w, r * w // 8 + 32)

    def finish(state: tuple[Array, Array]) -> tuple[Array, Array]:
        count, done = state
        lanes = jnp.nonzero(~done, size=size, fill_value=r * w)[0]
        here = jnp.minimum(lanes, r * w - 1)
        n, p, u, v = (array[here] for array in flat)
        own = jax.vmap(jax.random.fold_in)(keys[here // w], here % w)

        def attempt(state: tuple[Array, ...]) -> tuple[Array, ...]:
            trial, found, accepted = state
            trial = trial + 1
            fresh = jax.vmap(
                lambda key: jax.random.uniform(jax.random.fold_in(key, trial), (2,), n.dtype)
            )(own)
            u, v = fresh[:, 0] - 0.5, fresh[:, 1]
            k, quick = _propose(n, p, u, v)
            take = ~accepted & (quick | _accepted(n, p, u, v, k))
            return trial, jnp.where(take, k, found), accepted | take

        ready = (lanes == r * w) | _accepted(n, p, u, v, first[here])
        start: tuple[Array, ...] = (jnp.int32(0), first[here], ready)
        found = jax.lax.while_loop(lambda s: ~jnp.all(s[2]), attempt, start)[1]
        return count.at[lanes].set(found, mode="drop"), done.at[lanes].set(True, mode="drop")

    start = (first, quick | skip.reshape(-1))
    count, _ = jax.lax.while_loop(lambda s: ~jnp.all(s[1]), finish, start)
    return count.reshape(r, w)


def _stirling_tail(k: Float[Array, " w"]) -> Float[Array, " w"]:
    """Return ``log k! - (log(2 pi) / 2 + (k + 1/2) log(k + 1) - (k + 1))``."""
    inverse = 1.0 / (k + 1.0)
    square = inverse * inverse
    series = (1 / 12 - (1 / 360 - square / 1260) * square) * inverse
    table = jnp.asarray(_STIRLING_TAIL, k.dtype)
    exact = table[jnp.clip(k, 0, len(_STIRLING_TAIL) - 1).astype(jnp.int32)]
    return jnp.where(k < len(_STIRLING_TAIL), exact, series)
