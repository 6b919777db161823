"""Whether the numbers of a fit contradict one another, on tables that people do have.

Run ``python -m experiments.verdicts.consistency [PART ...] [--tables N] [--seed S]``. Tables have
structural zeros in z, in x or in both, few rows, levels that never occur or not in an arm, exact
independence, rare classes. The parts: ``functions``, the compiled functions behind `jaxmix.fit`
under ``vmap`` (estimate, errors, profile, bridge, closed forms); ``classes``, latent classes;
``fits``, `jaxmix.fit` itself, checks and resamples on and off. Each prints how many tables were
tried, by status, and how many contradictions were found among those with a usable status; and
exits with status 1 where there was any. Estimates are compared with EM and Newton in plain numpy,
errors with central differences.
"""

from __future__ import annotations

import argparse
import collections
import functools
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxmix as jm
from jaxmix import Status
from jaxmix.estimators import optimum
from jaxmix.inference import profile

SHAPE = (2, 3, 3, 2)
CHUNK = 2_000
ORACLES = 300  # tables whose maximum is found again by EM and Newton in numpy
DIFFERENCE = 1e-3  # relative change of the counts in central differences


def draw(rng: np.random.Generator, shape: tuple[int, ...] = SHAPE, k: int = 2) -> np.ndarray:
    """Return the counts of a random table, regular or with one or several traps."""
    a, d_z, d_x, d_y = shape
    shares = rng.dirichlet(np.full(k, rng.choice([0.5, 5.0, 20.0])))
    of_z, of_x = (rng.dirichlet(np.full(d, rng.choice([0.5, 1.0, 5.0])), k) for d in (d_z, d_x))
    of_t = rng.dirichlet(np.full(a, rng.choice([1.0, 10.0])), (k, d_z))
    of_y = rng.dirichlet(np.full(d_y, rng.choice([0.5, 2.0])), (a, k))
    traps = rng.choice(["z", "x", "z and x", "arm", "same", "none", "none"])
    for view, own in (("z", of_z), ("x", of_x)):
        if view in traps.split(" and "):
            # Every class lacks a level of its own, as ages lack ranks.
            for u in range(k):
                own[u, rng.permutation(own.shape[1])[: rng.integers(1, own.shape[1])]] = 0.0
            own /= np.maximum(own.sum(1, keepdims=True), 1e-300)
    if traps == "arm":
        of_t[:, rng.integers(d_z), 0] = 0.0
        of_t /= of_t.sum(2, keepdims=True)
    if traps == "same":
        of_x[:] = of_x[0]
    p = np.einsum("u,uz,uzt,ux,tuy->tzxy", shares, of_z, of_t, of_x, of_y)
    p = np.maximum(p, 0) / p.sum()
    n = int(rng.choice([30, 60, 200, 1_000, 4_000, 20_000, 1_000_000]))
    return rng.multinomial(n, p.ravel()).reshape(shape).astype(float)


def has_two_arms(cells: np.ndarray) -> bool:
    """Whether both arms, and two values of every view, occur: `jaxmix.fit` refuses others."""
    return all(
        (np.moveaxis(cells, axis, 0).reshape(cells.shape[axis], -1).sum(1) > 0).sum() > 1
        for axis in range(4)
    )


class Tally:
    """Tables by status, and the contradictions found among usable ones."""

    def __init__(self) -> None:
        self.statuses: collections.Counter[str] = collections.Counter()
        self.found: collections.Counter[str] = collections.Counter()
        self.examples: dict[str, Any] = {}
        self.measured: collections.Counter[str] = collections.Counter()

    def add(self, what: str, wrong: np.ndarray, example: Callable[[int], Any]) -> None:
        """Count the tables for which something is wrong, and keep the first."""
        wrong = np.asarray(wrong)
        self.measured[what] += wrong.size
        if wrong.any():
            self.found[what] += int(wrong.sum())
            self.examples.setdefault(what, example(int(np.argmax(wrong))))

    def report(self, name: str, num: int, seconds: float) -> bool:
        """Print the counts; return whether anything was found."""
        listed = ", ".join(f"{s} {c:,}" for s, c in sorted(self.statuses.items()))
        print(f"{name}: {num:,} tables in {seconds:.0f} s; {listed}")
        for what, count in self.measured.items():
            print(f"  {what}: {self.found[what]:,} contradictions in {count:,}")
        for what, example in self.examples.items():
            print(f"  first of {what!r}: {example}")
        return bool(self.found)


def numbers(solution: Any, moments: Any) -> dict[str, jax.Array]:
    """Return what `jaxmix.fit` shows of a factorization."""
    mixture = solution.value
    return {
        "effect": mixture.shares @ mixture.effects(),
        "means": mixture.means @ mixture.shares,
        "shares": mixture.shares,
        "effects": mixture.effects(),
    }


@functools.cache
def compiled(level: int, k: int) -> dict[str, Callable]:
    """Return the functions behind a fit, each under ``vmap`` and compiled."""

    def estimate(cells: jax.Array, key: jax.Array) -> dict[str, Any]:
        moments = jm.moments.from_counts(cells)
        sol = jm.factorization.solve(moments, k, key=key, level=level)
        return {
            "numbers": numbers(sol, moments), "mixture": sol.value, "status": sol.status,
            "stats": sol.stats,
        }  # fmt: skip

    def with_slope(cells: jax.Array, key: jax.Array) -> tuple[Any, Any]:
        def effect(cells: jax.Array) -> tuple[jax.Array, Any]:
            found = estimate(cells, key)
            return found["numbers"]["effect"], found["numbers"]

        (_, aux), slope = jax.value_and_grad(effect, has_aux=True)(cells)
        return aux, slope

    def again(cells: jax.Array, start: Any, flat: jax.Array) -> tuple[Any, Any, Any]:
        def of(cells: jax.Array) -> tuple[Any, Any]:
            moments = jm.moments.from_counts(cells)
            sol = optimum.revisit(moments, k, start, level=level, flat=flat)
            found = numbers(sol, moments)
            return found, found

        slopes, found = jax.jacrev(of, has_aux=True)(cells)
        errors = jax.tree.map(
            lambda s: jnp.sqrt(jnp.sum(cells * s**2, axis=(-4, -3, -2, -1))), slopes
        )
        return found, errors, slopes

    def near(cells: jax.Array, start: Any, key: jax.Array) -> tuple[Any, Any]:
        sol = jm.factorization.solve(cells, k, key=key, level=level, start=start)
        return numbers(sol, None), sol.stats["num_zero"]

    def ends(cells: jax.Array, start: Any) -> Any:
        return profile.intervals(jm.moments.from_counts(cells), k, start, level=level)

    functions = {
        "estimate": estimate, "with_slope": with_slope, "again": again, "near": near, "ends": ends,
    }  # fmt: skip
    return {name: jax.jit(jax.vmap(function)) for name, function in functions.items()}


def chunks(num: int, seed: int, shape: tuple[int, ...], k: int) -> Iterator[np.ndarray]:
    """Yield batches of tables of one size, so that they are compiled once."""
    rng = np.random.default_rng(seed)
    for start in range(0, num, CHUNK):
        del start
        yield np.stack([draw(rng, shape, k) for _ in range(CHUNK)])


def _gap(a: Any, b: Any) -> np.ndarray:
    """Return the largest difference of two trees by table."""
    parts = jax.tree.map(
        lambda x, y: np.abs(np.asarray(x) - np.asarray(y)).reshape(len(x), -1).max(1), a, b
    )
    return np.max(jax.tree.leaves(parts), axis=0)


def functions(num: int, seed: int, level: int, k: int, profiles: int) -> bool:
    """Cross-examine the functions behind a fit on random tables."""
    run, tally, began = compiled(level, k), Tally(), time.perf_counter()
    rng = np.random.default_rng(seed + 1)
    oracles = profiled = 0
    for batch in chunks(num, seed, SHAPE, k):
        cells = jnp.asarray(batch)
        keys = jax.random.split(jax.random.key(seed), len(batch))
        out = jax.tree.map(np.asarray, run["estimate"](cells, keys))
        status, found, mixture, stats = (out[n] for n in ("status", "numbers", "mixture", "stats"))
        tally.statuses.update(Status(int(s)).name for s in status)
        usable = status < Status.MAX_STEPS

        def add(
            what: str, wrong: Any, of: Any = None, usable: Any = usable, cells: Any = batch
        ) -> None:
            own = usable if of is None else of
            places = np.flatnonzero(own)
            tally.add(what, np.asarray(wrong)[own], lambda i: cells[places[i]].tolist())

        add("numbers are finite", ~np.all([np.isfinite(v).reshape(len(v), -1).all(1)
                                           for v in found.values()], axis=0))  # fmt: skip
        add("shares add up to 1", np.abs(found["shares"].sum(1) - 1) > 1e-10)
        add("shares in [0, 1]", (found["shares"] < 0).any(1) | (found["shares"] > 1 + 1e-12).any(1))
        add("means in the outcome's range", (mixture.means < -1e-10).any((1, 2))
            | (mixture.means > 1 + 1e-10).any((1, 2)))  # fmt: skip
        p = np.einsum("nu,ntzu,nxu,ntyu->ntzxy", mixture.shares, mixture.z_profiles,
                      mixture.x_profiles, mixture.y_profiles)  # fmt: skip
        with np.errstate(divide="ignore", invalid="ignore"):
            own = np.where(batch > 0, batch * np.log(p), 0.0).sum((1, 2, 3, 4))
        add("log-likelihood is the classes' own",
            ~(np.abs(own - stats["log_likelihood"]) < 1e-8 * np.maximum(1, np.abs(own))))
        aux, slope = jax.tree.map(np.asarray, run["with_slope"](cells, keys))
        # A flat optimum is a ridge, on which two programs that round differently may part.
        regular = usable & (status != Status.NOT_IDENTIFIED)
        add("differentiated = plain", ~(_gap(aux, found) < 1e-7), regular)
        start = jax.tree.map(jnp.asarray, stats["start"])
        same, errors, slopes = run["again"](cells, start, jnp.asarray(stats["flat"]))
        add("at its optimum = found", ~(_gap(same, found) < 1e-12))
        sized = np.all([np.isfinite(v).reshape(len(v), -1).all(1) for v in errors.values()], axis=0)
        has_errors = regular & sized
        tally.add("identified, errors exist", ~sized[regular], lambda i: "")
        both = np.abs(np.asarray(errors["shares"])[:, 0] - np.asarray(errors["shares"])[:, -1])
        if k == 2:
            add("two shares have one error", both > 1e-8, has_errors)
        way = jnp.asarray(rng.normal(size=batch.shape)) * cells * DIFFERENCE
        (up, zero_up), (down, zero_down) = (
            run["near"](cells + sign * way, start, keys) for sign in (1, -1)
        )
        settled = has_errors & (zero_up == stats["num_zero"]) & (zero_down == stats["num_zero"])
        predicted = jax.tree.map(
            lambda s: np.einsum("n...tzxy,ntzxy->n...", np.asarray(s), np.asarray(way)), slopes
        )
        differences = jax.tree.map(lambda u, d: (np.asarray(u) - np.asarray(d)) / 2, up, down)
        scale = DIFFERENCE * np.asarray(errors["effect"]) + 1e-9
        # Of third order in the step, which is a thousandth of a standard error or so; where the
        # optimum is nearly flat higher orders count too.
        curved = np.asarray(errors["effect"]) > 0.25
        add("errors = central differences", _gap(predicted, differences) / scale > 0.05,
            settled & ~curved)  # fmt: skip
        for i in np.flatnonzero(regular)[: max(0, ORACLES - oracles)][:: max(1, 1)]:
            if oracles >= ORACLES:
                break
            oracles += 1
            value, law = _oracle(batch[i], k, level, seed)
            reached = value <= own[i] + 1e-6
            tally.add("no better maximum in numpy", np.array([not reached]),
                      lambda _, i=i, v=value: (batch[i].tolist(), float(v - own[i])))  # fmt: skip
            isolated = abs(value - own[i]) < 1e-6 and stats["flatness"][i] > 1e-4
            if isolated:
                gap = abs(law - found["effect"][i])
                tally.add("the oracle's average effect", np.array([gap > 1e-6]),
                          lambda _, i=i, g=gap: (batch[i].tolist(), float(g)))  # fmt: skip
        if profiled < profiles:
            profiled += len(batch)
            ends = jax.tree.map(np.asarray, run["ends"](cells, start))
            for name in ("effect", "means", "shares", "effects"):
                low, high = np.moveaxis(getattr(ends, name), -1, 0)
                value = found[name]
                outside = (value < low - 1e-6) | (value > high + 1e-6) | ~np.isfinite(low + high)
                add(f"profile of {name} holds the estimate", outside.reshape(len(batch), -1).any(1))
    return tally.report(f"level {level}, {k} classes", num, time.perf_counter() - began)


def _oracle(cells: np.ndarray, k: int, level: int, seed: int) -> tuple[float, float]:
    """Return the maximum that EM and Newton find in numpy, and its average effect."""
    from tests import likelihood_oracles as oracle

    fit = {2: oracle.em_level2, 3: oracle.em_level3}[level](cells, k, np.random.default_rng(seed))
    effects, shares = oracle.law_of(fit, np.arange(2.0), level)
    return fit.loglik, float(effects @ shares)


def main() -> int:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("parts", nargs="*", default=["functions"])
    parser.add_argument("--tables", type=int, default=2_000)
    parser.add_argument("--profiles", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    found = False
    if "functions" in asked.parts:
        for level, k in ((3, 2), (2, 2), (3, 3)):
            found |= functions(asked.tables, asked.seed, level, k, asked.profiles)
    return int(found)


if __name__ == "__main__":
    sys.exit(main())
