"""Time per fit beside what others use: tensorly, StepMix, and EM in plain numpy, in one run.

python -m experiments.benchmarks.peers [--tables 2000]

Needs the extra ``peers`` (tensorly and StepMix); what is not installed is left out and said.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

import jaxmix as jm  # noqa: E402
from tests import oracles  # noqa: E402

VALUES = np.arange(2.0)


def each(run: Callable[[], Any], count: int, repeats: int = 5) -> float:
    """Return the median milliseconds per fit of a compiled call, compilation not counted."""
    jax.block_until_ready(run())
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        jax.block_until_ready(run())
        times.append(1e3 * (time.perf_counter() - begin) / count)
    return statistics.median(times)


def loop(function: Callable[[np.ndarray], Any], tables: np.ndarray) -> float:
    """Return the mean milliseconds per table of a function that takes one."""
    function(tables[0])
    begin = time.perf_counter()
    for table in tables:
        function(table)
    return 1e3 * (time.perf_counter() - begin) / len(tables)


def numpy_em(cells: np.ndarray, k: int, num_starts: int = 10, tolerance: float = 1e-6) -> float:
    """Fit level 3 by plain EM from random starts, as one would write it; return the best."""
    rng = np.random.default_rng(0)
    a, d_z, d_x, d_y = cells.shape
    n, best = cells.sum(), -np.inf
    for _ in range(num_starts):
        W = rng.dirichlet(np.ones(a * d_z * k)).reshape(a, d_z, k)
        B = rng.dirichlet(np.ones(d_x), k).T
        C = rng.dirichlet(np.ones(d_y), (a, k)).transpose(0, 2, 1)
        last = -np.inf
        for _ in range(5000):
            joint = W[:, :, None, None] * B[None, None, :, None] * C[:, None, None]
            p = joint.sum(-1)
            value = float(np.sum(cells * np.log(np.maximum(p, 1e-300))))
            if value - last < tolerance * 100:
                break
            last = value
            expected = joint * (cells / np.maximum(p, 1e-300))[..., None]
            W = expected.sum((2, 3)) / n
            B = expected.sum((0, 1, 3))
            B = B / B.sum(0)
            C = expected.sum((1, 2))
            C = C / np.maximum(C.sum(1, keepdims=True), 1e-300)
        best = max(best, value)
    return best


def plain_spo(cells: np.ndarray, k: int) -> None:
    """Estimate by the published closed form; a singular table counts as done."""
    try:
        oracles.spo_published(cells, k, VALUES)
    except np.linalg.LinAlgError:
        return


def parafac(cells: np.ndarray) -> None:
    """Fit the level-2 tensor by tensorly's non-negative PARAFAC, two classes."""
    import tensorly
    from tensorly.decomposition import non_negative_parafac

    tensor = (cells / cells.sum()).transpose(1, 2, 0, 3).reshape(2, 2, 4)
    non_negative_parafac(tensorly.tensor(tensor), rank=2, n_iter_max=100)


def step_mix(cells: np.ndarray) -> None:
    """Fit the latent class model of Z, X and S by StepMix with ten starts, on rows."""
    from stepmix.stepmix import StepMix

    t, z, x, y = np.unravel_index(np.repeat(np.arange(16), cells.ravel().astype(int)), cells.shape)
    rows = np.stack([z, x, 2 * t + y], axis=1)
    model = StepMix(
        n_components=2, measurement="categorical", n_init=10, random_state=0, progress_bar=0
    )
    model.fit(rows)


def tables_of(kind: str, k: int, d: int, n: int, num: int) -> np.ndarray:
    """Draw one table each of random populations, or of the paper's design."""
    rng = np.random.default_rng([k, d, n])
    if kind == "paper":
        return np.stack([oracles.paper_main(0.0).counts(rng, n) for _ in range(num)])
    family = {"strong": oracles.strong, "generic": oracles.generic}[kind]
    return np.stack([family(rng, k, d, d).counts(rng, n) for _ in range(num)])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=int, default=2000)
    num = parser.parse_args().tables
    warnings.simplefilter("ignore")  # the peers warn of steps that ran out
    print(f"{platform.processor() or platform.machine()}, {jax.devices()[0].device_kind}, "
          f"jax {jax.__version__}, float64")  # fmt: skip
    cases = [
        ("paper", 2, 2, 1_000, num),
        ("strong", 2, 2, 10_000, num),
        ("strong", 3, 6, 10_000, num // 4),
        ("strong", 4, 8, 100_000, num // 4),
        ("generic", 4, 8, 100_000, num // 8),
    ]
    for kind, k, d, n, count in cases:
        tables = tables_of(kind, k, d, n, count)
        cells = jnp.asarray(tables, float)
        keys = jax.random.split(jax.random.key(0), count)
        fit = jax.jit(jax.vmap(lambda c, q, k=k: jm.factorization.solve(c, k, key=q).value.law))
        own = each(lambda f=fit, c=cells, q=keys: f(c, q), count)
        print(f"\n{kind}, k = {k}, d = {d}, n = {n:,}, {count} tables")
        print(f"  {'jaxmix factorization, kl':34} {own:10.4f} ms")
        few = tables[: 40 if k == 2 else 8]
        peers: list[tuple[str, Callable[[np.ndarray], Any], np.ndarray]] = [
            ("plain SPO, numpy", lambda c, k=k: plain_spo(c, k), tables[:200]),
            ("EM, numpy, 10 starts", lambda c, k=k: numpy_em(c, k), few),
        ]
        if kind == "paper":
            peers += [
                ("tensorly non_negative_parafac", parafac, tables[:100]),
                ("StepMix, 10 starts", step_mix, tables[:3]),
            ]
        for name, function, some in peers:
            try:
                took = loop(function, some)
            except ModuleNotFoundError as missing:
                print(f"  {name:34} not installed ({missing.name}): pip install '.[peers]'")
                continue
            print(f"  {name:34} {took:10.4f} ms   {took / own:10.1f} times", flush=True)


if __name__ == "__main__":
    main()
