"""Batches whose members need unequal work: chunks that fit a cache, and compaction.

A vmapped loop runs until its slowest lane is done, and every lane pays. Here a batch is worked
off in chunks, and work that only some lanes need is done for those alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

_P = ParamSpec("_P")
_Tree = TypeVar("_Tree")

_WIDTH = {"cpu": 64}  # lanes that share a cache
_WIDE = 4096  # where lanes run side by side


def width(num_lanes: int) -> int:
    """Return how many lanes to work on at once on this kind of device."""
    return max(1, min(num_lanes, _WIDTH.get(jax.default_backend(), _WIDE)))


def by_chunks(function: Callable[..., _Tree], *args: object, size: int | None = None) -> _Tree:
    """Apply a function of batches to a long batch, a chunk of lanes at a time.

    Parameters
    ----------
    function
        From pytrees with a leading axis of lanes to another.
    args
        The long batch.
    size
        Lanes of a chunk; by default as many as share a cache.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> by_chunks(lambda x: 2 * x, jnp.arange(3.0)).tolist()
    [0.0, 2.0, 4.0]
    """
    num = len(jax.tree.leaves(args)[0])
    size = min(num, size or width(num))
    chunks = -(-num // size)
    # The last chunk begins early enough to be full: some lanes are then done twice.
    starts = jnp.minimum(jnp.arange(chunks) * size, num - size)

    def one(start: Array) -> _Tree:
        return function(*_rows(args, start + jnp.arange(size)))

    results = jax.lax.map(one, starts)
    last = chunks * size - num
    whole: _Tree = jax.tree.map(
        lambda r: jnp.concatenate(
            [r[:-1].reshape((chunks - 1) * size, *r.shape[2:]), r[-1, last:]]
        ),
        results,
    )
    return whole


def where_selected(
    function: Callable[..., _Tree],
    state: _Tree,
    selected: Bool[Array, " b"],
    *args: object,
    lanes: int | None = None,
) -> _Tree:
    """Replace the state of the selected lanes by ``function(state, *args)``, chunk by chunk.

    Parameters
    ----------
    function
        Of batches: the state and further arguments of some lanes, to their new state.
    state
        Pytree of arrays with a leading axis of lanes.
    selected
        Which lanes to work on; the others keep their state at no cost.
    args
        Further pytrees with the same leading axis.
    lanes
        Lanes worked on at once.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> state, odd = jnp.arange(5.0), jnp.arange(5) % 2 == 1
    >>> where_selected(lambda s: s + 10, state, odd).tolist()
    [0.0, 11.0, 2.0, 13.0, 4.0]
    """
    num = len(selected)
    size = min(num, lanes or width(num))
    order = jnp.argsort(~selected, stable=True)
    total = selected.sum()

    def body(carry: tuple[Array, _Tree]) -> tuple[Array, _Tree]:
        begin, state = carry
        slots = begin + jnp.arange(size)
        own = order[jnp.minimum(slots, num - 1)]
        new = function(_rows(state, own), *_rows(args, own))
        # A lane beyond the selected ones writes nowhere.
        target = jnp.where(slots < total, own, num)
        state = jax.tree.map(lambda s, n: s.at[target].set(n, mode="drop"), state, new)
        return begin + size, state

    return jax.lax.while_loop(lambda carry: carry[0] < total, body, (jnp.int32(0), state))[1]


def batched(function: Callable[_P, _Tree]) -> Callable[_P, _Tree]:
    """Return a function of one member whose ``vmap`` is `function`, which takes whole batches.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> size = batched(lambda x: jnp.full(len(x), len(x)))
    >>> int(size(jnp.float32(1))), jax.vmap(size)(jnp.arange(3.0)).tolist()
    (1, [3, 3, 3])
    """
    many = jax.custom_batching.custom_vmap(function)

    @many.def_vmap
    def _(size: int, are_batched: Sequence[object], *args: object) -> tuple[_Tree, _Tree]:
        whole = _spread(size, are_batched, args)
        # By size, since an axis without entries leaves nothing to infer one from.
        flat = jax.tree.map(lambda a: a.reshape(size * a.shape[1], *a.shape[2:]), whole)
        out = jax.tree.map(lambda r: r.reshape(size, r.shape[0] // size, *r.shape[1:]), many(*flat))
        return out, jax.tree.map(lambda _: True, out)

    @jax.custom_batching.custom_vmap
    def one(*args: object) -> _Tree:
        first: _Tree = jax.tree.map(lambda r: r[0], many(*jax.tree.map(lambda a: a[None], args)))
        return first

    @one.def_vmap
    def _(size: int, are_batched: Sequence[object], *args: object) -> tuple[_Tree, _Tree]:
        out = many(*_spread(size, are_batched, args))
        return out, jax.tree.map(lambda _: True, out)

    return functools.wraps(function)(one)


def _spread(
    size: int, are_batched: Sequence[object], args: tuple[object, ...]
) -> tuple[object, ...]:
    """Give every argument the batch axis."""

    def spread(array: Array, is_batched: bool) -> Array:
        return array if is_batched else jnp.broadcast_to(array, (size, *jnp.shape(array)))

    whole: tuple[object, ...] = jax.tree.map(spread, args, tuple(are_batched))
    return whole


def _rows(tree: _Tree, index: Array) -> _Tree:
    rows: _Tree = jax.tree.map(lambda a: a[index], tree)
    return rows
