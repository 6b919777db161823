"""The number of classes, by simulation: how often it is right, and the size of its tests.

Run ``python -m experiments.verdicts.classes [PART ...] [--datasets N]``; the parts are choice,
hard, rank and ratio, and each prints one table with Monte Carlo standard errors. Populations are
drawn anew for each data set (`jaxmix.populations.random_discrete`), strong ones but for the part
hard, which is choice on generic ones; tests have size 5 %.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from jax.scipy.stats import chi2  # noqa: E402

from jaxmix.inference.selection import criteria, ranks  # noqa: E402
from jaxmix.inference.selection.recommendation import Candidate, Context, decide  # noqa: E402
from jaxmix.populations import random_discrete  # noqa: E402

SIZE = 0.05
DESIGNS = [(k, d) for d in (4, 6) for k in (1, 2, 3, 4)]
HARD = [(2, 4), (3, 4)]  # of generic populations, which can be as good as unidentified
# Classes, features a side, rows of the null for the bootstrap, whose cost is in the fits of k + 1.
RATIOS = ((1, 4, 1_000), (1, 4, 10_000), (2, 4, 1_000), (2, 4, 10_000), (3, 4, 10_000))
RESAMPLES = 99


def drawn(index: jax.Array, n: jax.Array, k: int, d: int, family: str = "strong") -> jax.Array:
    """Return the table of a fresh population; one class has independent proxies."""
    key = jax.random.fold_in(jax.random.key(k * 100 + d), index)
    population = random_discrete(
        jax.random.fold_in(key, 0), family=family, num_classes=k, d_z=d, d_x=d
    )
    return population.counts(jax.random.fold_in(key, 1), n)


@functools.cache
def _drawn(k: int, d: int, family: str = "strong") -> Callable[..., Any]:
    return jax.jit(jax.vmap(lambda index, n: drawn(index, n, k, d, family), (0, None)))


@functools.cache
def _fitted(j: int) -> Callable[..., Any]:
    def one(cells: jax.Array, index: jax.Array) -> Any:
        key = jax.random.fold_in(jax.random.key(1), index)
        return criteria.of_table(cells, j, key=key)._replace(factors=())

    return jax.jit(jax.vmap(one))


_tested = jax.jit(jax.vmap(lambda cells: ranks.of_table(cells.sum(-1))))


def choice(datasets: int) -> None:
    """Print how often the recommendation is right, and how often the evidence is called thin."""
    _choose(datasets, DESIGNS, "strong", (100_000, 1_000))


def hard(datasets: int) -> None:
    """Print the same for generic populations."""
    _choose(datasets, HARD, "generic", (100_000, 10_000, 1_000))


def _choose(
    datasets: int, designs: list[tuple[int, int]], family: str, sizes: tuple[int, ...]
) -> None:
    print(
        f"{'k':>2} {'d':>2} {'n':>7} {'sets':>5} {'right':>6} {'(se)':>6} {'fewer':>6} {'more':>6} "
        f"{'thin':>6} {'thin|wrong':>10} {'BIC/rank/AIC right':>20} {'seconds':>8}"
    )
    for k, d in designs:
        for n in sizes:
            began = time.perf_counter()
            index = jnp.arange(datasets)
            cells = jax.block_until_ready(_drawn(k, d, family)(index, jnp.float64(n)))
            tests = jax.tree.map(np.asarray, _tested(cells))
            # Fits end where BIC has risen twice.
            each = [_fitted(j)(cells, index) for j in range(1, min(d, k + 2) + 1)]
            fits = jax.tree.map(lambda *parts: np.stack(parts, 1), *each)
            picks = [_decide(fits, tests, i, d, n) for i in range(datasets)]
            own = np.array([pick.recommended for pick in picks])
            thin = np.array([pick.thin for pick in picks])
            wrong = own != k
            by_rank = np.asarray(ranks.rank_of(tests, SIZE))
            others = [np.mean(v == k) for v in (1 + fits.bic.argmin(1), by_rank,
                                                1 + fits.aic.argmin(1))]  # fmt: skip
            right = 1 - wrong.mean()
            told = f"{thin[wrong].mean():.3f}" if wrong.any() else "-"
            print(
                f"{k:2} {d:2} {n:7} {datasets:5} {right:6.3f} {error(right, datasets):6.3f} "
                f"{np.mean(own < k):6.3f} {np.mean(own > k):6.3f} {thin.mean():6.3f} {told:>10} "
                f"{' / '.join(f'{v:.3f}' for v in others):>20} {time.perf_counter() - began:8.1f}",
                flush=True,
            )


def _decide(fits: Any, tests: Any, i: int, d: int, n: int) -> Any:
    """Return the recommendation of one data set as the library words it, without resamples."""
    num = fits.bic.shape[1]
    tails = chi2.sf(fits.g2[i], np.maximum(fits.df[i], 1))
    dense = n >= 4 * d * d
    found = [
        Candidate(
            j + 1,
            log_likelihood=float(fits.log_likelihood[i, j]),
            bic=float(fits.bic[i, j]),
            aic=float(fits.aic[i, j]),
            p_value=float(tails[j]) if dense and fits.df[i, j] > 0 else None,
            rank_p_value=float(tests.p_value[i, j]) if j < d - 1 else None,
            done=bool(fits.done[i, j]),
        )
        for j in range(num)
    ]
    return decide(found, "likelihood", Context(3, n, 0, SIZE, 0, d, d))


def rank(datasets: int) -> None:
    """Print how often the true rank is rejected, and where the sequence ends."""
    head = f"{'k':>2} {'d':>2} {'n':>7} {'sets':>5} {'true rank rejected':>18} {'(se)':>6}"
    print(f"{head} {'beyond':>7} {'right':>6}")
    for k, d in DESIGNS:
        if k == d:
            continue  # nothing is left to reject
        for n in (1_000, 10_000, 100_000):
            cells = jax.block_until_ready(_drawn(k, d)(jnp.arange(datasets), jnp.float64(n)))
            tests = _tested(cells)
            found = np.asarray(ranks.rank_of(tests, SIZE))
            rate = np.mean(np.asarray(tests.p_value)[:, k - 1] < SIZE)
            print(
                f"{k:2} {d:2} {n:7} {datasets:5} {rate:18.4f} {error(rate, datasets):6.4f} "
                f"{np.mean(found > k):7.4f} {np.mean(found == k):6.3f}",
                flush=True,
            )


@functools.cache
def _ratios(k: int, d: int) -> Callable[..., Any]:
    def one(index: jax.Array, n: jax.Array) -> Any:
        key = jax.random.fold_in(jax.random.key(2), index)
        return criteria.likelihood_ratio(drawn(index, n, k, d), k, key=key, num_resamples=RESAMPLES)

    return jax.jit(jax.vmap(one, (0, None)))


def ratio(datasets: int) -> None:
    """Print how often the bootstrap likelihood ratio rejects the true number of classes."""
    head = f"{'k':>2} {'d':>2} {'n':>7} {'sets':>5} {'resamples':>9} {'rejected':>9} {'(se)':>6}"
    print(f"{head} {'mean ratio':>10} {'of resamples':>12} {'seconds':>8}")
    block = 20
    for k, d, n in RATIOS:
        began = time.perf_counter()
        found = [
            jax.tree.map(np.asarray, _ratios(k, d)(begin + jnp.arange(block), jnp.float64(n)))
            for begin in range(0, datasets, block)
        ]
        p = np.concatenate([part.p_value for part in found])[:datasets]
        own = np.concatenate([part.statistic for part in found])[:datasets]
        draws = np.concatenate([part.draws for part in found])[:datasets]
        rate = np.mean(p <= SIZE + 1e-12)
        print(
            f"{k:2} {d:2} {n:7} {datasets:5} {RESAMPLES:9} {rate:9.4f} "
            f"{error(rate, datasets):6.4f} "
            f"{own.mean():10.2f} {draws.mean():12.2f} {time.perf_counter() - began:8.1f}",
            flush=True,
        )


def error(rate: float, datasets: int) -> float:
    """Return the Monte Carlo standard error of a share."""
    return float(np.sqrt(rate * (1 - rate) / datasets))


PARTS = {"choice": (choice, 200), "hard": (hard, 200), "rank": (rank, 2_000), "ratio": (ratio, 300)}


def main() -> None:
    """Run the parts that are named, or all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("parts", nargs="*", help="choice, hard, rank, ratio")
    parser.add_argument("--features", type=int, choices=(4, 6), help="designs of one size alone")
    parser.add_argument("--classes", type=int, choices=(1, 2, 3, 4), help="of one number alone")
    parser.add_argument("--datasets", type=int, help="data sets of each design")
    asked = parser.parse_args()
    DESIGNS[:] = [
        (k, d) for k, d in DESIGNS if k == (asked.classes or k) and d == (asked.features or d)
    ]
    for name in asked.parts or PARTS:
        part, datasets = PARTS[name]
        print(f"\n{part.__doc__}\n")
        part(asked.datasets or datasets)


if __name__ == "__main__":
    main()
