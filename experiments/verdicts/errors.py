"""Standard errors by the delta method against those of 1,000 resamples: agreement and cost.

Run ``python -m experiments.verdicts.errors [--datasets N] [--resamples R]``. For each design it
prints the delta method's standard errors over the bootstrap's (the mean over data sets, with its
own error), for the average effect, the shares and the effects, and how many times longer the
resamples take. Both begin at the estimate, which neither pays for; times are medians of compiled
calls, taken in turns.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from jax.tree_util import Partial  # noqa: E402

import jaxmix as jm  # noqa: E402
from jaxmix.sample.moments import Moments, from_counts, from_rows  # noqa: E402

Task = tuple[Callable[[], Any], Callable[[], Any]]


@dataclasses.dataclass(frozen=True)
class Numbers:
    """Average effect, shares and effects of an estimator, as a function of moments."""

    num_classes: int
    loss: str

    def __call__(self, moments: Moments, **start: Any) -> jax.Array:
        """Return them as one vector."""
        if self.loss == "spectral":
            law = jm.spectral.effect_law(moments, self.num_classes)
        else:
            law = jm.factorization.effect_law(
                moments, self.num_classes, key=jax.random.key(0), loss=self.loss, **start
            )
        return jnp.concatenate([law.mean[None], law.shares, law.effects])


_from_moments = jax.jit(
    lambda numbers, moments: jnp.sqrt(
        jnp.diagonal(jm.asymptotic.delta_covariance(numbers, moments))
    )
)
_from_rows = jax.jit(jm.asymptotic.standard_errors)


def tables(loss: str, k: int, n: int, datasets: int, resamples: int) -> Iterator[Task]:
    """Yield delta method and bootstrap on tables of random strong populations."""
    numbers = Numbers(k, loss)
    for i in range(datasets):
        own, drawn = jax.random.split(jax.random.fold_in(jax.random.key(k), i))
        population = jm.populations.random_discrete(own, num_classes=k, d_z=2 * k, d_x=2 * k)
        counts = population.counts(drawn, n)
        moments = from_counts(counts, covariance=True)
        statistic = Partial(numbers)
        if loss == "kl":
            found = jm.factorization.solve(moments, k, key=jax.random.key(0))
            statistic = Partial(numbers, start=found.stats["start"])
        yield (
            lambda s=statistic, m=moments: _from_moments(s, m),
            lambda s=statistic, c=counts, i=i: jm.bootstrap(
                s, c, key=jax.random.key(i), num_resamples=resamples
            ),
        )


def rows(k: int, n: int, datasets: int, resamples: int, by_rows: bool) -> Iterator[Task]:
    """Yield delta method and bootstrap on rows with Gaussian proxies, by weighted least squares."""
    numbers = Numbers(k, "gmm")
    for i in range(datasets):
        frame = jm.populations.gaussian(num_classes=k).sample(jax.random.key(i), n)
        frame = {name: np.asarray(values) for name, values in frame.items()}
        z, x = ([name for name in frame if name.startswith(view)] for view in "ZX")
        data = jm.CausalData.from_frame(frame, treatment="T", outcome="Y", z=z, x=x)
        views = jm.features.encode(data)
        moments = from_rows(views, covariance=True)
        stats = jm.factorization.solve(moments, k, key=jax.random.key(0), loss="gmm").stats
        statistic = Partial(numbers, start=stats["start"], weight=stats["weight"])
        delta = (
            (lambda s=statistic, v=views: _from_rows(s, v))
            if by_rows
            else (lambda s=statistic, m=moments: _from_moments(s, m))
        )
        yield (
            delta,
            lambda s=statistic, v=views, i=i: jm.bootstrap(
                s, v, key=jax.random.key(i), num_resamples=resamples, kind="multinomial"
            ),
        )


def timed(task: Callable[[], Any]) -> tuple[Any, float]:
    """Return a result and the seconds it took."""
    begin = time.perf_counter()
    result = jax.block_until_ready(task())
    return result, time.perf_counter() - begin


def compare(title: str, k: int, pairs: Iterator[Task]) -> None:
    """Print a row of the table."""
    ratios, costs = [], []
    for i, (delta, resample) in enumerate(pairs):
        if i == 0:
            jax.block_until_ready((delta(), resample()))  # compiled before the clock runs
        quick = [timed(delta) for _ in range(5)]
        draws, slow = timed(resample)
        ratios.append(np.asarray(quick[0][0]) / np.asarray(draws).std(axis=0, ddof=1))
        costs.append(slow / statistics.median(seconds for _, seconds in quick))
    mean = np.mean(ratios, axis=0)
    error = np.std(ratios, axis=0, ddof=1).max() / np.sqrt(len(ratios))
    parts = [np.split(mean, [1, 1 + k])[j] for j in range(3)]
    cells = ["|".join(f"{r:.3f}" for r in part) for part in parts]
    print(f"{title:38} {cells[0]:>6} {cells[1]:>18} {cells[2]:>18} {error:7.3f} "
          f"{statistics.median(costs):9,.0f}", flush=True)  # fmt: skip


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datasets", type=int, default=12)
    parser.add_argument("--resamples", type=int, default=1000)
    asked = parser.parse_args()
    number, resamples = asked.datasets, asked.resamples
    print(f"{number} data sets a design, {resamples:,} resamples; ratio of standard errors, delta "
          "method over bootstrap")  # fmt: skip
    print(f"{'design':38} {'ATE':>6} {'shares':>18} {'effects':>18} {'(error)':>7} {'cost':>9}")
    for k in (2, 3):
        task = tables("kl", k, 10_000, number, resamples)
        compare(f"kl, strong, k {k}, n 10,000", k, task)
    for k in (2, 3):
        compare(f"spectral, strong, k {k}, n 100,000", k,
                tables("spectral", k, 100_000, number, resamples))  # fmt: skip
    few = max(2, number // 3)
    for by_rows, how in ((False, "moments"), (True, "rows")):
        compare(f"gmm, gaussian, k 2, n 20,000, {how}", 2,
                rows(2, 20_000, few, resamples, by_rows))  # fmt: skip


if __name__ == "__main__":
    main()
