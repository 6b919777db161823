"""Closed forms and their bootstrap against plain numpy loops, in one run, as ratios.

python -m experiments.benchmarks.closed_forms [--tables 100000] [--rows 1000000] [--repeats 5]
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

import jaxmix as jm  # noqa: E402
from tests import oracles  # noqa: E402

NUM_CLASSES = 2
VALUES = np.arange(2.0)


def law(moments: jm.moments.Moments) -> jm.EffectLaw:
    """Return the level-3 law by synthetic moments and Gauss quadrature."""
    return jm.synthetic.effect_law(moments, NUM_CLASSES)


def spectral(moments: jm.moments.Moments) -> jm.EffectLaw:
    """Return the level-3 law by the spectral operator."""
    return jm.spectral.effect_law(moments, NUM_CLASSES)


def seconds_each(run: Callable[[], Any], count: int, repeats: int) -> float:
    """Return the median time per item of a compiled call, the compiling call not counted."""
    jax.block_until_ready(run())
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append((time.perf_counter() - start) / count)
    return statistics.median(times)


def numpy_law(cells: np.ndarray) -> None:
    """Estimate one law with the numpy reference; a singular table counts as done."""
    try:
        oracles.spo_rank_k(cells, NUM_CLASSES, VALUES)
    except np.linalg.LinAlgError:
        return


def given_tables(num_tables: int, repeats: int) -> list[tuple[str, float]]:
    """Time laws of count tables that are given (paper design, n = 1,000)."""
    population = jm.populations.paper_main(zt_strength=0.5)
    keys = jax.random.split(jax.random.key(0), num_tables)
    tables = jax.jit(jax.vmap(lambda key: population.counts(key, 1000)))(keys)
    timings = []
    for name, estimate in (("synthetic, gauss", law), ("spectral", spectral)):
        batch = jax.jit(
            jax.vmap(lambda cells, estimate=estimate: estimate(jm.moments.from_counts(cells)))
        )
        timings.append((name, seconds_each(lambda b=batch: b(tables), num_tables, repeats)))
    some = np.asarray(tables[:2000])
    timings.append(
        (
            "numpy loop",
            seconds_each(lambda: [numpy_law(cells) for cells in some], len(some), repeats),
        )
    )
    return timings


def bootstrap(num_rows: int, num_resamples: int, repeats: int) -> list[tuple[str, float]]:
    """Time the bootstrap of a law of binary rows, per resample."""
    population = jm.populations.paper_main(zt_strength=0.5)
    counts = population.counts(jax.random.key(1), num_rows)
    key = jax.random.key(2)

    def ours() -> jm.EffectLaw:
        return jm.bootstrap(law, counts, key=key, num_resamples=num_resamples)

    cells = np.asarray(counts)
    rng = np.random.default_rng(0)
    probabilities = cells.ravel() / cells.sum()

    def resample_counts() -> None:
        for _ in range(500):
            numpy_law(rng.multinomial(num_rows, probabilities).reshape(cells.shape))

    rows = np.repeat(np.arange(cells.size), cells.ravel().astype(int))
    columns = np.stack(np.unravel_index(rows, cells.shape), axis=1)

    def resample_rows() -> None:
        """Resample rows, form the moments from them, as without sufficient statistics."""
        drawn = columns[rng.integers(0, num_rows, num_rows)]
        table = np.zeros(cells.shape)
        np.add.at(table, tuple(drawn.T), 1.0)
        numpy_law(table)

    return [
        ("jaxmix, counts", seconds_each(ours, num_resamples, repeats)),
        ("numpy loop, counts", seconds_each(resample_counts, 500, repeats)),
        ("numpy loop, rows", seconds_each(resample_rows, 1, max(repeats // 2, 1))),
    ]


def show(title: str, timings: list[tuple[str, float]]) -> None:
    """Print times per item, and how many times the first is faster than each."""
    print(f"\n{title}")
    for name, each in timings:
        print(f"  {name:22s} {each * 1e6:12.2f} us   {each / timings[0][1]:12,.1f} x")


def main() -> None:
    """Run both comparisons and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=int, default=100_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--resamples", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    device = jax.devices()[0]
    print(
        f"jax {jax.__version__}, numpy {np.__version__}, {device.platform} ({device.device_kind}), "
        f"{platform.machine()}; medians of {asked.repeats}; float64"
    )
    x = jnp.zeros(())  # what is timed below is in float64, as in every command
    assert x.dtype == jnp.float64
    show(
        f"Laws of {asked.tables:,} given tables of counts (2 classes, 16 cells), per table",
        given_tables(asked.tables, asked.repeats),
    )
    show(
        f"Bootstrap of the law, {asked.rows:,} binary rows, per resample",
        bootstrap(asked.rows, asked.resamples, asked.repeats),
    )


if __name__ == "__main__":
    main()
