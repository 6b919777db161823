"""The replicates of a cell: drawn by index, estimated in chunks, on all devices.

Replicate i of a cell has the key ``fold_in(cell, i)``, the cell's own key being the hash of what
determines its data. Nothing else enters a draw: not the chunk, not the device, not the order of
cells, nor which estimators look at the data.
"""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Int

from jaxmix.populations.population import Population
from jaxmix.solvers.compiling import compiled
from jaxmix.study.configuration.choices import Intervals
from jaxmix.study.configuration.config import Cell, Config
from jaxmix.study.configuration.methods import Chosen, Estimated
from jaxmix.study.configuration.population import PopulationSpec
from jaxmix.study.intervals import Spread, by_delta, by_profile, by_resamples, resample

_MAX_CHUNK = 16_384
_CHUNK_NUMBERS = 1 << 23  # numbers held at once (64 MiB in float64), data and their like
_COPIES = 8  # tables that an estimator makes of one
_DERIVATIVES = 8  # times as much where each resample is differentiated


class Truth(NamedTuple):
    """What is to be estimated, and how well that can be done.

    Attributes
    ----------
    ate
        The average effect.
    effects, shares
        ``(k,)`` by increasing effect.
    bound_ate, bound_error
        Smallest variances: of the average effect, and summed over effects and shares; NaN where
        no bound was asked for.
    """

    ate: Array | np.ndarray
    effects: Array | np.ndarray
    shares: Array | np.ndarray
    bound_ate: Array | np.ndarray
    bound_error: Array | np.ndarray


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a chunk computes; hashable, so that equal plans are one compiled program.

    Attributes
    ----------
    estimators
        Methods with their options.
    num_classes
        Classes that are fitted.
    intervals
        Or None.
    bound
        Level of the efficiency bounds; None where there are none.
    drawn
        What to draw a population from where every replicate has its own; else None.
    num_rows
        Rows, where the program depends on them; None where they are an argument.
    """

    estimators: tuple[Chosen, ...]
    num_classes: int
    intervals: Intervals | None
    bound: int | None
    drawn: PopulationSpec | None
    num_rows: int | None


class Block(NamedTuple):
    """The replicates of one chunk, on the host.

    Attributes
    ----------
    start
        Index of the first.
    truth
        With a leading axis of replicates.
    estimates
        For each estimator an `Estimated` with that axis.
    spreads
        For each estimator a `Spread`, or None.
    """

    start: int
    truth: Truth
    estimates: list[Estimated]
    spreads: list[Spread | None]


_Results: TypeAlias = tuple[Truth | None, list[Estimated], list[Spread | None]]
"""A chunk: the truth where populations are drawn, and by estimator as in `Block`."""


def cell_key(cell: Cell) -> Array:
    """Return the key of a cell: the first 64 bits of its hash (threefry)."""
    words = np.array([int(cell.draw_hash[:8], 16), int(cell.draw_hash[8:16], 16)], np.uint32)
    found: Array = jax.random.wrap_key_data(jnp.asarray(words), impl="threefry2x32")
    return found


def blocks(config: Config, cell: Cell, *, chunk_size: int | None = None) -> Iterator[Block]:
    """Yield the replicates of a cell in order, a chunk at a time.

    Parameters
    ----------
    config, cell
        The study and one of its cells.
    chunk_size
        Replicates computed at once, over all devices; by default as many as memory likes.
    """
    spec, devices = cell.population, jax.local_device_count()
    population = None if spec.is_random else spec.build()
    plan = Plan(
        config.estimators,
        cell.num_classes,
        config.intervals,
        max(3, spec.level) if config.bound else None,
        spec if spec.is_random else None,
        None if spec.is_table else cell.num_rows,
    )
    chunk = chunk_size or config.chunk_size or _chunk(cell, config)
    # Chunks of one size are one program: as equal as they can be, the surplus is cut off.
    number = -(-config.num_replicates // min(chunk, config.num_replicates))
    chunk = -(-config.num_replicates // number)
    chunk = -(-chunk // devices) * devices
    truth = None
    if population is not None:
        truth = jax.tree.map(np.asarray, _truth(population, cell.num_rows, plan.bound))
    key = jax.random.key_data(cell_key(cell))
    rows = jnp.asarray(cell.num_rows, float)

    def launch(start: int) -> _Results:
        return _chunk_of(population, key, rows, start + jnp.arange(chunk), plan, devices)

    starts = range(0, config.num_replicates, chunk)
    pending: _Results | None = launch(0)
    for start in starts:
        # The next chunk is computed while this one is written.
        current, pending = pending, (launch(start + chunk) if start + chunk < starts.stop else None)
        assert current is not None
        size = min(chunk, config.num_replicates - start)
        own, estimates, spreads = _on_host(current, size)
        if truth is not None:
            own = Truth(*(np.broadcast_to(part, (size, *part.shape)) for part in truth))
        assert own is not None
        yield Block(start, own, estimates, spreads)


def _on_host(results: _Results, size: int) -> _Results:
    """Return the first replicates of a chunk as numpy arrays; this waits for the device."""
    found: _Results = jax.tree.map(lambda leaf: np.asarray(leaf)[:size], results)
    return found


def _chunk(cell: Cell, config: Config) -> int:
    """Return how many replicates to hold at once."""
    shape = cell.population.shape
    size = math.prod(shape)
    numbers = _COPIES * size
    if _needs_covariance(config.estimators, config.intervals):
        numbers += size**2
    if not cell.population.is_table:
        numbers += 2 * cell.num_rows * sum(shape[1:])
    if config.intervals is not None and config.intervals.takes_resamples:
        numbers *= config.intervals.num_resamples
        if config.intervals.kind == "studentized":
            numbers *= _DERIVATIVES
    return int(np.clip(_CHUNK_NUMBERS // numbers, 1, _MAX_CHUNK))


@compiled("bound")
def _truth(population: Population, num_rows: Array | int, bound: int | None) -> Truth:
    law = population.law
    limits = (jnp.full((), jnp.nan, law.effects.dtype),) * 2
    if bound is not None:
        best = population.efficiency_bound(num_rows, level=bound)
        limits = (best.ate, best.error)
    return Truth(population.ate, law.effects, law.shares, *limits)


@compiled("plan", "devices")
def _chunk_of(
    population: Population | None,
    key: Array,
    num_rows: Array,
    indices: Int[Array, " c"],
    plan: Plan,
    devices: int,
) -> _Results:
    def on_one_device(
        population: Population | None, key: Array, num_rows: Array, own: Array
    ) -> _Results:
        cell = jax.random.wrap_key_data(key, impl="threefry2x32")
        keys = jax.vmap(jax.random.fold_in, (None, 0))(cell, own)
        return jax.vmap(lambda key: _replicate(population, key, num_rows, plan))(keys)

    if devices == 1:
        return on_one_device(population, key, num_rows, indices)
    # Each device runs the whole program on its share: loops that end with their slowest
    # replicate then wait for those on their own device only.
    whole, split = PartitionSpec(), PartitionSpec("replicates")
    found: _Results = jax.shard_map(
        on_one_device,
        mesh=Mesh(np.array(jax.local_devices()), ("replicates",)),
        in_specs=(whole, whole, whole, split),
        out_specs=split,
        check_vma=False,
    )(population, key, num_rows, indices)
    return found


def _replicate(population: Population | None, key: Array, num_rows: Array, plan: Plan) -> _Results:
    """Draw one data set and let every estimator see it."""
    of_data, of_fits, of_population, of_tables = (jax.random.fold_in(key, i) for i in range(4))
    truth = None
    if plan.drawn is not None:
        population = plan.drawn.build(of_population)
        truth = _truth(population, num_rows, plan.bound)
    assert population is not None
    n = num_rows if plan.num_rows is None else plan.num_rows
    covariance = _needs_covariance(plan.estimators, plan.intervals)
    moments = population.sample_moments(of_data, n, covariance=covariance)
    intervals, tables = plan.intervals, None
    if intervals is not None and intervals.takes_resamples:
        tables = resample(moments, of_tables, intervals.num_resamples)
    estimates, spreads = [], []
    for chosen in plan.estimators:
        # By its label, so that another estimator beside it changes nothing.
        own = jax.random.fold_in(of_fits, zlib.crc32(chosen.label.encode()))
        estimate, again = chosen.with_resampler(moments, plan.num_classes, own)
        spread = None
        if intervals is not None and tables is not None:
            spread = by_resamples(again, moments, tables, estimate, own, intervals)
        elif intervals is not None and intervals.kind == "profile":
            spread = by_profile(chosen, moments, plan.num_classes, estimate, own, intervals)
        elif intervals is not None:
            spread = by_delta(chosen, moments, plan.num_classes, estimate, own, intervals)
        estimates.append(estimate)
        spreads.append(spread)
    return truth, estimates, spreads


def _needs_covariance(estimators: tuple[Chosen, ...], intervals: Intervals | None) -> bool:
    by_delta = intervals is not None and intervals.kind == "delta"
    return by_delta or any(chosen.is_weighted for chosen in estimators)
