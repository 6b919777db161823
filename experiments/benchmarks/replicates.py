"""Replicates per second of a study, data drawn and estimated, beside plain loops; in one run.

python -m experiments.benchmarks.replicates [--rows 1000] [--fast 65536] [--slow 4096]

Every estimator runs through the compiled chunk of a study, on the paper's main design at half
strength. Compilation is not counted, and printed apart. The loops draw and estimate as well: as
the paper's code does, from rows to moments to synthetic potential outcomes, or leaner, from a
multinomial table. tensorly and StepMix need the extra ``peers``; what is not installed is said.
"""

from __future__ import annotations

import argparse
import pathlib
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)

import numpy as np  # noqa: E402

from experiments.benchmarks.peers import numpy_em, parafac, step_mix  # noqa: E402
from jaxmix import study  # noqa: E402
from jaxmix.study import sweep  # noqa: E402
from tests import oracles  # noqa: E402

STRENGTH = 0.5
VALUES = np.arange(2.0)
POPULATION = oracles.paper_main(STRENGTH)
FAST = (
    "difference_in_means", "regression_adjustment", "bridge", "synthetic", "published_synthetic",
    "spectral",
)  # fmt: skip
SLOW = ("factorization", "nn_parafac", "em")

_CONFIG = """
name = "speed"
seed = 0
num_replicates = {replicates}
num_rows = {rows}
estimators = ["{estimator}"]
bound = false
[population]
kind = "paper_main"
zt_strength = {strength}
"""

Loop = Callable[[np.random.Generator, int], None]


def of_study(estimator: str, rows: int, replicates: int, repeats: int) -> tuple[float, float]:
    """Return the median seconds per replicate, and the seconds that compiling took."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "speed.toml")
        path.write_text(
            _CONFIG.format(replicates=replicates, rows=rows, estimator=estimator, strength=STRENGTH)
        )
        config = study.load(path)
    times = []
    for _ in range(repeats + 1):
        begin = time.perf_counter()
        for _block in sweep.blocks(config, config.cells[0]):
            pass
        times.append(time.perf_counter() - begin)
    each = statistics.median(times[1:])
    return each / replicates, max(times[0] - each, 0.0)


def draw_rows(rng: np.random.Generator, n: int) -> tuple[np.ndarray, ...]:
    """Draw the columns of the paper's main design, row by row variables in causal order."""
    u = rng.binomial(1, 0.5, n)
    p_w = np.where(u, 0.75, 0.25)
    z, x = (rng.random(n) < p_w).astype(int), (rng.random(n) < p_w).astype(int)
    half = STRENGTH / 2
    p_t = np.array([[0.75, 0.75 - half], [0.25 + half, 0.25]])[u, z]
    t = (rng.random(n) < p_t).astype(int)
    p_y = np.array([[7 / 8, 1 / 8], [1 / 8, 7 / 8]])[u, t]
    return t, z, x, (rng.random(n) < p_y).astype(float)


def paper_way(rng: np.random.Generator, n: int) -> None:
    """Rows, moment matrices from the rows, synthetic moments with plain pseudo-inverses, Prony."""
    t, z, x, y = draw_rows(rng, n)
    phi_z, phi_x = np.eye(2)[z], np.eye(2)[x]
    quotients = []
    for arm in (0, 1):
        own = (t == arm).astype(float)
        m_zx = np.einsum("n,ni,nj->ij", own, phi_z, phi_x) / n
        m_zxy = np.einsum("n,n,ni,nj->ij", own, y, phi_z, phi_x) / n
        quotients.append(np.linalg.pinv(m_zx) @ m_zxy)
    difference, mean_x = quotients[1] - quotients[0], phi_x.mean(axis=0)
    gamma, moments = np.ones(2), [1.0]
    for _ in range(3):
        gamma = difference @ gamma
        moments.append(float(mean_x @ gamma))
    with suppress(np.linalg.LinAlgError):
        oracles.prony(np.array(moments), 2)


def of_tables(estimate: Callable[[np.ndarray], Any]) -> Loop:
    """Return a loop's body that draws a multinomial table and estimates from it."""
    p = POPULATION.joint()

    def run(rng: np.random.Generator, n: int) -> None:
        cells = rng.multinomial(n, p.ravel()).reshape(p.shape)
        with suppress(np.linalg.LinAlgError):
            estimate(cells)

    return run


def means(cells: np.ndarray) -> float:
    """Return the difference in means of a table."""
    arms = cells.sum(axis=(1, 2)) @ VALUES / cells.sum(axis=(1, 2, 3))
    return float(arms[1] - arms[0])


def rivals(estimator: str) -> Iterator[tuple[str, Loop, int]]:
    """Yield what an estimator is set beside: a name, the loop's body, and how often to run it."""
    if estimator == "difference_in_means":
        yield "numpy, table", of_tables(means), 2000
    if estimator == "bridge":
        bridge = of_tables(lambda cells: oracles.synthetic_moments(cells, 1, VALUES, rank=2))
        yield "numpy, table", bridge, 1000
    if estimator == "synthetic":
        yield "numpy, rows to moments (the paper's way)", paper_way, 500
        yield "numpy, table", of_tables(lambda c: oracles.spo_rank_k(c, 2, VALUES)), 1000
    if estimator == "published_synthetic":
        yield "numpy, rows to moments (the paper's way)", paper_way, 500
        yield "numpy, table", of_tables(lambda c: oracles.spo_published(c, 2, VALUES)), 1000
    if estimator == "spectral":
        yield "numpy, table", of_tables(lambda c: oracles.spectral(c, 2, VALUES)), 1000
    if estimator == "nn_parafac":
        yield "tensorly non_negative_parafac, table", of_tables(parafac), 100
    if estimator in ("em", "factorization"):
        yield "numpy EM, 10 starts, table", of_tables(lambda c: numpy_em(c, 2)), 40
    if estimator == "factorization":
        yield "StepMix (level 2), 10 starts, table", of_tables(step_mix), 3


def seconds(body: Loop, rows: int, count: int) -> float:
    """Return the mean seconds of a loop's body, after one run that is not counted."""
    rng = np.random.default_rng(0)
    body(rng, rows)
    begin = time.perf_counter()
    for _ in range(count):
        body(rng, rows)
    return (time.perf_counter() - begin) / count


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--fast", type=int, default=65_536, help="replicates of closed forms")
    parser.add_argument("--slow", type=int, default=4096,
                        help="replicates of iterative fits (an eighth of them for em)")  # fmt: skip
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")  # the peers warn of steps that ran out
    device = jax.devices()[0]
    print(
        f"jax {jax.__version__}, numpy {np.__version__}, {device.platform} ({device.device_kind}), "
        f"{platform.machine()}, float64; paper_main, {asked.rows:,} rows; drawn and estimated"
    )
    print(f"{'':42} {'replicates/s':>13} {'ratio':>9}   compiled in")
    for estimator in (*FAST, *SLOW):
        count = asked.fast if estimator in FAST else asked.slow
        if estimator == "em":
            count = -(-count // 8)
        own, compiling = of_study(estimator, asked.rows, count, asked.repeats)
        print(f"{estimator:42} {1 / own:13,.0f} {'':9}   {compiling:.1f} s", flush=True)
        for name, body, times in rivals(estimator):
            try:
                took = seconds(body, asked.rows, times)
            except ModuleNotFoundError as missing:
                print(f"  {name}: not installed ({missing.name}), pip install '.[peers]'")
                continue
            print(f"  {name:40} {1 / took:13,.1f} {took / own:9,.0f}", flush=True)


if __name__ == "__main__":
    main()
