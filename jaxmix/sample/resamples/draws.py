"""Draws of resamples: how often rows, clusters or cells occur, by one scheme for good.

Units that stand for themselves (rows, clusters) are drawn in blocks of 4,096. Resample r has the
key ``fold_in(key, r)``, and its block b the key ``fold_in(fold_in(key, r), b)``. Evaluation i of a
block is Threefry-2x32 of the block's key at the counter ``(0, i)``: two words of 32 bits.

- ``"bayesian"``, ``"poisson"``: the words of evaluation i = 0, ..., 1023 are cut into four pieces
  of 16 bits, the low one of the first word first. Piece q is that of row ``1024 q + i``; its
  weight is the inverse distribution function at the piece (`exponential`, `POISSON`).
- ``"multinomial"``: the sizes of blocks are a multinomial draw by the key
  ``fold_in(fold_in(key, r), 2^32 - 1)``. In a block of s rows slots 2 i and 2 i + 1 are the
  words of evaluation i; each of as many slots as the block has draws adds one to the row
  ``floor(word s / 2^32)``.

Within strata each stratum is drawn apart: multinomial blocks are of the units of one stratum, in
their order, numbered on from stratum to stratum, and stratum h draws the sizes of its blocks by
``fold_in(..., h)`` of the key of sizes. Other weights are scaled to the size of the stratum.

Tables of counts, and rows that stand for several, are drawn as whole tables by ``fold_in(key, r)``.

So a draw depends on the key, the resample, the block and the place in it, and on nothing else:
neither on chunks, on devices, on the number of resamples nor, multinomial ones aside, on the rows
after it.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import threefry_2x32
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from jaxmix.choices import RESAMPLINGS
from jaxmix.sample.resamples.units import BLOCK, Units, rows_of, units_of
from jaxmix.sample.views import Views
from jaxmix.solvers.sampling import multinomial

DRAWS = 2
"""Version of the scheme; a result says by which one it was drawn."""

KINDS = RESAMPLINGS

POISSON = (41427, 17317, 5262, 1245, 240, 39, 5, 1)
"""How many of the 65,536 pieces give a Poisson count of at least 1, 2, ..., 8.

Nearest whole numbers to the law of mean 1, but for 1 less at 2 and at 3, by which mean and variance
are exactly 1. The third central moment is 1.00003; no probability is off by more than 1.9e-5, and
counts of 9 and more (1.1e-6) do not occur.
"""

_PIECES = 1 << 16
_QUARTER = BLOCK // 4  # evaluations of a block
_SIZES = 2**32 - 1  # in the place of a block, for what the sizes of blocks are drawn by


def draw_multiplicities(
    keys: Array, views: Views, kind: str, strata: object = None
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
    units = units_of(views.design, strata)
    return rows_of(draw_units(keys, units, kind), units, views.multiplicity)


def draw_units(keys: Array, units: Units, kind: str) -> Float[Array, "r u"]:
    """Draw how often each unit occurs in each of several resamples.

    Parameters
    ----------
    keys
        ``(r,)`` JAX keys, one for each resample.
    units
        What is drawn whole (`jaxmix.sample.resamples.units.units_of`).
    kind
        One of `KINDS`; see `draw_multiplicities`.
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
        total: Array = jax.lax.fori_loop(
            0, units.num_strata, lambda h, drawn: drawn + one(h), start
        )
        return total
    if kind == "poisson":
        draws = jax.vmap(lambda key: jax.random.poisson(key, counts))(keys)
        return draws.astype(counts.dtype)
    return jax.vmap(lambda key: jax.random.gamma(key, counts))(keys)


def _draw_singles(keys: Array, units: Units, kind: str) -> Float[Array, "r u"]:
    """Draw the multiplicities of units that each stand for themselves."""
    n, dtype = len(units.times), units.times.dtype
    blocks = units.blocks
    if blocks is None or kind != "multinomial":
        totals = totals_of_blocks(keys, n, dtype) if kind == "multinomial" else None
        return draw_blocks(keys, 0, n, kind, dtype, num_units=n, totals=totals)
    r, b = len(keys), len(blocks.size)
    totals = jnp.broadcast_to(blocks.size, (r, b))
    if b != units.num_strata:
        of_sizes = _fold(keys, jnp.uint32(_SIZES))

        def add(stratum: Array, drawn: Float[Array, "r b"]) -> Float[Array, "r b"]:
            inside = jnp.where(blocks.stratum == stratum, blocks.size, 0)
            return drawn + multinomial(_fold(of_sizes, stratum), inside.sum(), inside)

        totals = jax.lax.fori_loop(0, units.num_strata, add, jnp.zeros((r, b), dtype))
    own = jax.vmap(_fold, (None, 0), 1)(keys, jnp.arange(b))
    drawn = _throw(own, totals, blocks.size, blocks.width, exact=b == units.num_strata)
    return drawn.reshape(r, -1)[:, blocks.place]


def totals_of_blocks(keys: Array, num_units: int, dtype: DTypeLike) -> Float[Array, "r b"]:
    """Draw how many of the draws of a multinomial resample fall into each block of units.

    Parameters
    ----------
    keys
        ``(r,)`` keys of the resamples.
    num_units
        Number of units, and of draws.
    dtype
        Kind of the numbers returned.
    """
    size = _sizes(num_units, jnp.arange(-(-num_units // BLOCK))).astype(dtype)
    return multinomial(_fold(keys, jnp.uint32(_SIZES)), num_units, size)


def draw_blocks(
    keys: Array, first: Array | int, num: int, kind: str, dtype: DTypeLike, *, num_units: int,
    totals: Float[Array, "r b"] | None = None,
) -> Float[Array, "r num"]:  # fmt: skip
    """Draw the multiplicities of consecutive units, from the beginning of a block on.

    Parameters
    ----------
    keys
        ``(r,)`` keys of the resamples.
    first
        Number of the block with which they begin.
    num
        How many units to draw; of no meaning are those beyond the last unit.
    kind
        One of `KINDS`.
    dtype
        Kind of the numbers returned.
    num_units
        Number of units in all.
    totals
        Draws in each block (`totals_of_blocks`), for multinomial resamples.
    """
    r, b = len(keys), -(-num // BLOCK)
    numbers = first + jnp.arange(b)
    own = jax.vmap(_fold, (None, 0), 1)(keys, numbers)
    if kind == "multinomial":
        assert totals is not None
        size = _sizes(num_units, numbers)
        last = totals.shape[1] - 1
        here = jnp.where(size > 0, totals[:, jnp.minimum(numbers, last)], 0)
        drawn = _throw(own, here, size, min(num, BLOCK), exact=last == 0)
        return drawn.reshape(r, -1)[:, :num]
    # Rows of the first quarter need no more than the first piece of each evaluation.
    words = jnp.stack(_words(own, 0, min(num, _QUARTER)), axis=-2)
    # Words are formed once, and not again for each of their pieces.
    words = jax.lax.optimization_barrier(words)
    halves = words[..., None, :] >> jnp.array([0, 16], jnp.uint32)[:, None]
    pieces = (halves & jnp.uint32(_PIECES - 1)).reshape(r, -1)[:, :num]
    if kind == "poisson":
        counts = sum(((pieces < p).astype(jnp.int32) for p in POISSON), start=jnp.int32(0))
        return jnp.asarray(counts, dtype)
    return jnp.asarray(exponential(), dtype)[pieces.astype(jnp.int32)]


@functools.cache
def exponential() -> np.ndarray:
    """Return the exponential weight of each piece of 16 bits.

    The mean of an exponential variable over the piece's share of the law, ``E[-log V]`` with V
    uniform between ``u / 65,536`` and ``(u + 1) / 65,536``. The mean of all is 1 and the variance
    1 - 1.65e-5, by what is lost within pieces: standard errors are too small by 8 in a million.
    The third central moment is 2 - 5.7e-4, the largest weight 12.09.

    Examples
    --------
    >>> weights = exponential()
    >>> round(float(weights.mean()), 12), round(float(1 - weights.var()), 8)
    (1.0, 1.648e-05)
    """
    u = np.arange(1.0, _PIECES)
    inner = np.log(_PIECES) + 1 - (np.log(u + 1) + u * np.log1p(1 / u))
    return np.concatenate([[np.log(_PIECES) + 1], inner])


def _throw(
    keys: Array, totals: Float[Array, "r b"], size: Array, width: int, *, exact: bool
) -> Float[Array, "r b width"]:
    """Draw places in blocks, so many in each, and count them.

    Parameters
    ----------
    keys
        ``(r, b)`` keys of the blocks.
    totals
        Draws in each block.
    size
        ``(b,)`` units of each block.
    width
        At least the largest of them.
    exact
        Whether no block has more draws than `width`.
    """
    r, b = totals.shape
    wanted, parity = totals.astype(jnp.int32), jnp.arange(2, dtype=jnp.int32)[:, None]
    start = width * jnp.arange(r * b, dtype=jnp.int32).reshape(r, b, 1, 1)

    # Nearly always once around: eight standard deviations above the mean of a full block.
    num = -(-width // 2) if exact else (width + width // 8) // 2 + 16

    def more(state: tuple[Array, Array]) -> tuple[Array, Array]:
        first, drawn = state
        words = jax.lax.optimization_barrier(jnp.stack(_words(keys, first, num), axis=-2))
        slots = 2 * (first + jnp.arange(num, dtype=jnp.int32)) + parity
        # floor(word size / 2^32) in 32 bits; a size has at most 13.
        whole = size.astype(jnp.uint32)[:, None, None]
        low = ((words & jnp.uint32(0xFFFF)) * whole) >> 16
        place = start + (((words >> 16) * whole + low) >> 16).astype(jnp.int32)
        used = (slots < wanted[..., None, None]).astype(jnp.int32)
        drawn = drawn.at[place.reshape(-1)].add(used.reshape(-1), mode="promise_in_bounds")
        return first + num, drawn

    state = (jnp.int32(0), jnp.zeros(r * b * width, jnp.int32))
    if exact:
        drawn = more(state)[1]
    else:
        drawn = jax.lax.while_loop(lambda s: jnp.any(2 * s[0] < wanted), more, state)[1]
    return drawn.reshape(r, b, width).astype(totals.dtype)


def _words(keys: Array, first: Array | int, num: int) -> tuple[Array, Array]:
    """Return the two words of consecutive evaluations by each key, on a last axis."""
    typed = jnp.issubdtype(keys.dtype, jax.dtypes.prng_key)
    pairs = (jax.random.key_data(keys) if typed else keys)[..., :2]
    counters = jnp.asarray(first, jnp.uint32) + jnp.arange(num, dtype=jnp.uint32)
    counters = jnp.concatenate([jnp.zeros(num, jnp.uint32), counters])
    batch = pairs.shape[:-1]
    words = jax.vmap(threefry_2x32, (0, None))(pairs.reshape(-1, 2), counters)
    return words[:, :num].reshape(*batch, num), words[:, num:].reshape(*batch, num)


def _fold(keys: Array, data: Array) -> Array:
    return jax.vmap(jax.random.fold_in, (0, None))(keys, data)


def _sizes(num_units: int, numbers: Int[Array, " b"]) -> Int[Array, " b"]:
    """Return how many units some blocks have."""
    return jnp.clip(num_units - BLOCK * numbers, 0, BLOCK)
