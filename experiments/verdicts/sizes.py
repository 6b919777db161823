"""Size and power of the specification tests, by simulation.

Run ``python -m experiments.verdicts.sizes [PART ...] [--datasets N]``; the parts are bridge, fit,
nested, arms, ranges, power and paper, and each prints one table. Rejections are at 5 %, among the
data sets where the test applies; their Monte Carlo standard error stands beside them.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxmix as jm
from jaxmix.inference.specification import statistics
from jaxmix.populations import DiscretePopulation
from jaxmix.solvers.sampling import multinomial

BLOCK = 500
HEAD = (
    f"{'test':16} {'design':44} {'n':>7} {'df':>3} {'statistic':>9} {'no answer':>9} "
    f"{'rejected':>9} {'(se)':>6}"
)


@jax.jit
def _drawn(joints: jax.Array, n: jax.Array, keys: jax.Array) -> jax.Array:
    size = len(keys)
    return multinomial(keys, n, joints.reshape(size, -1)).reshape(joints.shape)


@functools.partial(jax.jit, static_argnames="n")
def _sampled(population: Any, keys: jax.Array, n: int) -> jm.moments.Moments:
    return jax.vmap(lambda key: population.sample_moments(key, n, covariance=True))(keys)


def _tested(data: Any, keys: jax.Array, k: int, options: dict[str, Any]) -> tuple:
    # Not compiled as a whole: the fits are, once for all tests that need them.
    return tuple(jax.vmap(lambda one, key: statistics(one, k, key=key, **options))(data, keys))


def of_tables(
    designs: Callable[[jax.Array], jax.Array] | DiscretePopulation,
    k: int,
    n: int,
    datasets: int,
    **options: Any,
) -> list[np.ndarray]:
    """Test many tables: of one population, or of one population each, drawn by a key."""
    keys = jax.random.split(jax.random.key(n + k), datasets)
    found = []
    for begin in range(0, datasets, BLOCK):
        own = keys[begin : begin + BLOCK]
        if isinstance(designs, DiscretePopulation):
            joint = designs.joint()
            joints = jnp.broadcast_to(joint, (len(own), *joint.shape))
        else:
            joints = jax.vmap(lambda key: designs(jax.random.fold_in(key, 1)))(own)
        cells = _drawn(joints, jnp.asarray(float(n)), own)
        found.append(_tested(cells, own, k, options))
    return _joined(found)


def of_rows(population: Any, k: int, n: int, datasets: int, **options: Any) -> list[np.ndarray]:
    """Test the moments of many samples of rows."""
    size = max(1, min(BLOCK, 2_000_000 // n))
    keys = jax.random.split(jax.random.key(n + k), datasets)
    found = []
    for begin in range(0, datasets, size):
        own = keys[begin : begin + size]
        found.append(_tested(_sampled(population, own, n), own, k, options))
    return _joined(found)


def _joined(found: list[tuple]) -> list[np.ndarray]:
    each = zip(*found, strict=True)
    return [np.concatenate([np.asarray(part) for part in parts]) for parts in each]


def line(test: str, design: str, n: int, found: list[np.ndarray]) -> None:
    """Print one line of a table."""
    statistic, df, p = found
    applies = np.isfinite(p)
    none = 100 * (1 - applies.mean())
    if not applies.any():
        print(f"{test:16} {design:44} {n:7d} {'does not apply':>40}", flush=True)
        return
    rate = (p[applies] < 0.05).mean()
    se = (rate * (1 - rate) / applies.sum()) ** 0.5
    print(
        f"{test:16} {design:44} {n:7d} {np.median(df[applies]):3.0f} "
        f"{statistic[applies].mean():9.2f} {none:7.1f} % {100 * rate:7.2f} % {100 * se:6.2f}",
        flush=True,
    )


def strong(k: int, d: int, *, level: int = 3) -> Callable[[jax.Array], jax.Array]:
    """Return the joint law of a random strong population; at level 2 Z does not affect T."""

    def joint(key: jax.Array) -> jax.Array:
        drawn = jm.populations.random_discrete(key, num_classes=k, d_z=d, d_x=d)
        if level == 2:
            arm, z = drawn.zt.sum(2), drawn.zt.sum(1)
            drawn = dataclasses.replace(drawn, zt=arm[:, :, None] * z[:, None, :])
        return drawn.joint()

    return joint


def _strong(k: int, d: int) -> str:
    return f"random strong, k={k}, {d} levels, one each"


def bridge(datasets: int) -> None:
    """J of the bridge, two-step."""
    for d_z, d_x, k in ((4, 2, 2), (5, 3, 3)):
        design = jm.populations.block(num_classes=k, d_z=d_z, d_x=d_x)
        for n in (1_000, 10_000):
            found = of_tables(design, k, n, datasets, level=4)
            line("J, level 4", f"block, k={k}, d_z={d_z}, d_x={d_x}", n, found)
    rows = jm.populations.gaussian(d_z=3, d_x=1)
    for n in (1_000, 5_000):
        found = of_rows(rows, 2, n, datasets, level=4)
        line("J, level 4", "gaussian, k=2, d_z=3, d_x=1", n, found)
    same = of_tables(jm.populations.block(d_z=2, d_x=2), 2, 10_000, BLOCK, level=4)
    line("J, level 4", "block, k=2, d_z=d_x=2", 10_000, same)


def fit(datasets: int) -> None:
    """G2 and J of level 3, G2 of level 2."""
    for k, d in ((2, 3), (3, 3)):
        for n in (10_000, 100_000):
            line("G2, level 3", _strong(k, d), n, of_tables(strong(k, d), k, n, datasets))
    for k in (2, 3):
        design = jm.populations.block(num_classes=k, d_z=3, d_x=3)
        for n in (10_000, 100_000):
            found = of_tables(design, k, n, datasets)
            line("G2, level 3", f"block, k={k}, 3 levels", n, found)
    design = jm.populations.block(d_z=3, d_x=3, zt_strength=0.0)
    line(
        "G2, level 2",
        "block, k=2, 3 levels",
        10_000,
        of_tables(design, 2, 10_000, datasets, level=2),
    )
    for k, d in ((2, 2), (3, 3)):
        rows = jm.populations.gaussian(num_classes=k, d_z=d, d_x=d)
        for n in (2_000, 10_000):
            found = of_rows(rows, k, n, datasets)
            line("J, level 3", f"gaussian, k={k}, {d} columns", n, found)


def nested(datasets: int) -> None:
    """Level 2 inside level 3."""
    for k in (2, 3):
        law = strong(k, 3, level=2)
        for n in (10_000, 100_000):
            found = of_tables(law, k, n, datasets, test="nested")
            line("G2, 2 in 3", _strong(k, 3), n, found)
        design = jm.populations.block(num_classes=k, d_z=3, d_x=3, zt_strength=0.0)
        for n in (10_000, 100_000):
            found = of_tables(design, k, n, datasets, test="nested")
            line("G2, 2 in 3", f"block, k={k}, 3 levels", n, found)
    rows = jm.populations.gaussian(d_z=2, d_x=2, zt_strength=0.0)
    for n in (2_000, 10_000):
        found = of_rows(rows, 2, n, datasets, test="nested")
        line("J, 2 in 3", "gaussian, k=2, 2 columns", n, found)


def arms(datasets: int) -> None:
    """One profile of x for all arms."""
    for k in (2, 3):
        for n in (10_000, 100_000):
            found = of_tables(strong(k, 3), k, n, datasets, test="arms")
            line("G2, arms", _strong(k, 3), n, found)
        design = jm.populations.block(num_classes=k, d_z=3, d_x=3)
        for n in (10_000, 100_000):
            found = of_tables(design, k, n, datasets, test="arms")
            line("G2, arms", f"block, k={k}, 3 levels", n, found)
    for n in (1_000, 10_000):
        found = of_tables(jm.populations.paper_main(0.5), 2, n, datasets, test="arms")
        line("G2, arms", "paper_main, zt=0.5", n, found)
    rows = jm.populations.gaussian(d_z=2, d_x=2)
    for n in (2_000, 10_000):
        found = of_rows(rows, 2, n, datasets, test="arms")
        line("J, arms", "gaussian, k=2, 2 columns", n, found)


def ranges(datasets: int) -> None:
    """Shares and effects in their ranges, on or near a bound, and beyond."""
    block = jm.populations.block
    designs = {
        "paper_main, zt=0.5": jm.populations.paper_main(0.5),
        "block, k=2, 2 levels": block(),
        "block, k=2, weak proxies (0.6)": block(proxy_strength=0.6),
        "block, k=2, effects -1 and 1": block(effects=[-1.0, 1.0], base=[0.5, 0.5]),
        "block, k=2, a share of 0.02": block(shares=[0.02, 0.98]),
        "block, k=2, a share of 0": block(shares=[0.0, 1.0]),
    }
    for method in ("spectral", "synthetic"):
        for name, design in designs.items():
            for n in (1_000, 10_000):
                found = of_tables(design, 2, n, datasets, test="range", method=method)
                line(f"range, {method}", name, n, found)
    # Probabilities that no classes make: only here is there something to reject.
    design = block(proxy_strength=0.65, zt_strength=0.0, effects=[-0.2, 0.3], base=[0.45, 0.55])
    design = dataclasses.replace(design, shares=jnp.array([-0.05, 1.05]))
    for n in (100_000, 1_000_000):
        found = of_tables(design, 2, n, datasets, test="range")
        line("range, spectral", "no classes: a share of -0.05", n, found)


def power(datasets: int) -> None:
    """Add an edge from X to Y where level 3 can see it."""
    for strength in (0.0, 0.25, 0.5, 0.75, 1.0):
        design = jm.populations.level4_testable(strength)
        for n in (1_000, 10_000, 100_000):
            name = f"level4_testable, xy={strength}"
            line("G2, level 3", name, n, of_tables(design, 2, n, datasets))
            line("G2, arms", name, n, of_tables(design, 2, n, datasets, test="arms"))


def paper(datasets: int) -> None:
    """Add an edge from X to Y where no test can see it, so that power is size."""
    for strength in (0.0, 0.25, 0.5, 0.75, 1.0):
        design = jm.populations.paper_main(1.0, strength)
        for n in (1_000, 10_000, 100_000):
            found = of_tables(design, 2, n, datasets)
            line("G2, level 3", f"paper_main, zt=1, xy={strength}", n, found)


PARTS = {f.__name__: f for f in (bridge, fit, nested, arms, ranges, power, paper)}


def main() -> None:
    """Run the parts that are asked for."""
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--datasets", type=int, default=2000)
    args = parser.parse_args()
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; use {', '.join(PARTS)}")
    for name in args.parts or PARTS:
        begin = time.perf_counter()
        print(f"{name}: {PARTS[name].__doc__} {args.datasets} data sets\n{HEAD}", flush=True)
        PARTS[name](args.datasets)
        print(
            f"{time.perf_counter() - begin:.0f} s on {jax.devices()[0].device_kind}\n", flush=True
        )


if __name__ == "__main__":
    main()
