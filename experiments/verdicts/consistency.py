"""Whether the numbers of a fit contradict one another, on tables that people do have.

Run ``python -m experiments.verdicts.consistency [PART ...] [--tables N] [--seed S] [--quick]``.
Tables have structural zeros in z, in x or in both, few rows, levels that do not occur in an arm,
exact independence, rare classes. The parts: ``functions``, the compiled functions behind
`jaxmix.fit` under ``vmap`` (estimate, errors, profile) at levels 2 and 3; ``bridge``, those of
level 4; ``latent``, those of `jaxmix.latent_classes`; ``fits``, `jaxmix.fit` itself, checks and
resamples on and off, six kinds of fits. Each prints how many tables were tried, by status, and how
many contradictions were found among those with a usable status; and exits with status 1 where
there was any. Estimates are compared with plain numpy (EM and Newton, linear equations), errors
with central differences.
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxmix as jm
from experiments.verdicts import consistency_plain
from experiments.verdicts.random_tables import (
    CHUNK,
    MISSED,
    SHAPE,
    Tally,
    chunks,
    continuous,
    draw,
    finite,
    gap_of,
    has_two_arms,
    rows_of,
)
from jaxmix import Status
from jaxmix.estimators import optimum
from jaxmix.inference import profile

BLOCK = 200  # tables at a time, for profiles
ORACLES = 300  # tables whose maximum is found again by EM and Newton in numpy
DIFFERENCE = 1e-2  # change of the counts in central differences, in units of their noise


def numbers(solution: Any) -> dict[str, jax.Array]:
    """Return what `jaxmix.fit` shows of a factorization."""
    mixture = solution.value
    return {
        "effect": mixture.shares @ mixture.effects(),
        "means": mixture.means @ mixture.shares,
        "shares": mixture.shares,
        "effects": mixture.effects(),
    }


@functools.cache
def compiled(level: int, k: int, thorough: bool) -> dict[str, Callable]:
    """Return the functions behind a fit, each under ``vmap`` and compiled."""

    def estimate(cells: jax.Array, key: jax.Array) -> dict[str, Any]:
        sol = jm.factorization.solve(cells, k, key=key, level=level, thorough=thorough)
        return {
            "numbers": numbers(sol), "mixture": sol.value, "status": sol.status,
            "stats": sol.stats,
        }  # fmt: skip

    def with_slope(cells: jax.Array, key: jax.Array) -> Any:
        def effect(cells: jax.Array) -> tuple[jax.Array, Any]:
            found = estimate(cells, key)
            return found["numbers"]["effect"], found["numbers"]

        (_, found), _ = jax.value_and_grad(effect, has_aux=True)(cells)
        return found

    def again(cells: jax.Array, start: Any, flat: jax.Array) -> tuple[Any, Any, Any]:
        def of(cells: jax.Array) -> tuple[Any, Any]:
            moments = jm.moments.from_counts(cells)
            sol = optimum.revisit(moments, k, start, level=level, flat=flat)
            found = numbers(sol)
            return found, found

        slopes, found = jax.jacrev(of, has_aux=True)(cells)
        errors = jax.tree.map(
            lambda s: jnp.sqrt(jnp.sum(cells * s**2, axis=(-4, -3, -2, -1))), slopes
        )
        return found, errors, slopes

    def near(cells: jax.Array, start: Any, key: jax.Array) -> tuple[Any, Any]:
        sol = jm.factorization.solve(cells, k, key=key, level=level, start=start)
        return numbers(sol), _zeros(sol.stats["start"])

    def ends(cells: jax.Array, start: Any) -> Any:
        return profile.intervals(jm.moments.from_counts(cells), k, start, level=level)

    functions = {
        "estimate": estimate, "with_slope": with_slope, "again": again, "near": near, "ends": ends,
    }  # fmt: skip
    return {name: jax.jit(jax.vmap(function)) for name, function in functions.items()}


def functions(num: int, seed: int, level: int, k: int, profiles: int, *, thorough: bool) -> bool:
    """Cross-examine the functions behind a fit on random tables."""
    tally, began = Tally(), time.perf_counter()
    for index, batch in enumerate(chunks(num, seed, SHAPE, k)):
        examine = _Examination(batch, level, k, seed, tally, thorough)
        examine.estimates()
        examine.derivatives(np.random.default_rng([seed, index]))
        examine.profiles(min(max(profiles - index * CHUNK, 0), CHUNK))
        if index == 0:
            examine.maxima()
    return tally.report(f"level {level}, {k} classes", num, time.perf_counter() - began)


class _Examination:
    """One batch of tables: what the functions give for it, and what speaks against that."""

    def __init__(
        self, batch: np.ndarray, level: int, k: int, seed: int, tally: Tally, thorough: bool
    ) -> None:
        self.batch, self.level, self.k, self.seed, self.tally = batch, level, k, seed, tally
        self.run = compiled(level, k, thorough)
        self.cells = jnp.asarray(batch)
        self.keys = jax.random.split(jax.random.key(seed), len(batch))
        out = jax.tree.map(np.asarray, self.run["estimate"](self.cells, self.keys))
        self.status, self.stats = out["status"], out["stats"]
        self.found, self.mixture = out["numbers"], out["mixture"]
        self.start = jax.tree.map(jnp.asarray, self.stats["start"])
        self.usable = self.status < Status.MAX_STEPS
        # A flat optimum is a ridge, on which two programs that round differently may part.
        self.regular = self.usable & (self.status != Status.NOT_IDENTIFIED)
        tally.statuses.update(Status(int(s)).name for s in self.status)
        m = self.mixture
        p = np.einsum("nu,ntzu,nxu,ntyu->ntzxy", m.shares, m.z_profiles, m.x_profiles, m.y_profiles)
        with np.errstate(divide="ignore", invalid="ignore"):
            self.log_likelihood = np.where(batch > 0, batch * np.log(p), 0.0).sum((1, 2, 3, 4))

    def count(self, what: str, wrong: np.ndarray, of: np.ndarray) -> None:
        """Count the tables among `of` for which something is wrong."""
        places = np.flatnonzero(of)
        self.tally.add(what, wrong[of], lambda i: self.batch[places[i]].tolist())

    def estimates(self) -> None:
        """Ranges, sums, and the likelihood computed again."""
        found, m, tiny = self.found, self.mixture, 1e-10
        self.count("numbers are finite", ~finite(found), self.usable)
        self.count("shares add up to 1", ~(np.abs(found["shares"].sum(1) - 1) < tiny), self.usable)
        inside = ((m.shares >= 0) & (m.shares <= 1 + tiny)).all(1)
        self.count("shares in [0, 1]", ~inside, self.usable)
        inside = ((m.means >= -tiny) & (m.means <= 1 + tiny)).all((1, 2))
        self.count("means in the outcome's range", ~inside, self.usable)
        gap = np.abs(self.log_likelihood - self.stats["log_likelihood"])
        size = np.maximum(1, np.abs(self.log_likelihood))
        self.count("log-likelihood is the classes' own", ~(gap < 1e-8 * size), self.usable)

    def derivatives(self, rng: np.random.Generator) -> None:
        """Compare estimates with and without derivatives, errors with central differences."""
        also = jax.tree.map(np.asarray, self.run["with_slope"](self.cells, self.keys))
        self.count("differentiated = plain", ~(gap_of(also, self.found) < 1e-7), self.regular)
        flat = jnp.asarray(self.stats["flat"])
        again = jax.tree.map(np.asarray, self.run["again"](self.cells, self.start, flat))
        same_numbers, errors, slopes = again
        self.count(
            "at its optimum = found", ~(gap_of(same_numbers, self.found) < 1e-12), self.usable
        )
        sized = finite(errors)
        self.count("identified, errors exist", ~sized, self.regular)
        if self.k == 2:
            one, two = errors["shares"].T
            same = np.abs(one - two) < 1e-5 * np.maximum(one, two) + 1e-12
            self.count("two shares have one error", ~same, self.regular & sized)
        way = rng.normal(size=self.batch.shape) * np.sqrt(self.batch) * DIFFERENCE
        ends = [self.run["near"](self.cells + s * way, self.start, self.keys) for s in (1, -1)]
        (up, zero_up), (down, zero_down) = jax.tree.map(np.asarray, ends)
        # Derivatives are those with the same probabilities held at 0.
        held = np.asarray(jax.vmap(_zeros)(self.start))
        same = (zero_up == held).all(1) & (zero_down == held).all(1)
        settled = self.regular & sized & same
        predicted = {
            name: np.einsum("n...tzxy,ntzxy->n...", slope, way) for name, slope in slopes.items()
        }
        difference = {name: (up[name] - down[name]) / 2 for name in up}
        # Of third order in a step of a hundredth of a standard error or so. Beyond a quarter of
        # the outcome's range standard errors are those of a number that is hardly identified.
        # Where the middle of both ends is not the estimate, a kink or another optimum is so near.
        size = np.max([np.asarray(e).reshape(len(e), -1).max(1) for e in errors.values()], axis=0)
        step = DIFFERENCE * size + 1e-9
        middle = {name: (up[name] + down[name]) / 2 for name in up}
        smooth = settled & (size < 0.25) & (gap_of(middle, same_numbers) < 0.02 * step)
        gap = gap_of(predicted, difference) / step
        self.count("errors = central differences", ~(gap < 0.05), smooth)
        self.count("converged", self.stats["decrement"] > 1e-4, self.regular)

    def profiles(self, num: int) -> None:
        """Profile intervals hold the estimate."""
        for first in range(0, num, BLOCK):
            own = slice(first, first + BLOCK)
            start = jax.tree.map(lambda part, own=own: part[own], self.start)
            ends = jax.tree.map(np.asarray, self.run["ends"](self.cells[own], start))
            tried = np.zeros(len(self.batch), bool)
            tried[own] = self.usable[own]
            for name in ("effect", "means", "shares", "effects"):
                low, high = np.moveaxis(getattr(ends, name), -1, 0)
                value = self.found[name][own]
                holds = (value >= low - 1e-6) & (value <= high + 1e-6)
                wrong = np.zeros(len(self.batch), bool)
                wrong[own] = ~holds.reshape(len(value), -1).all(1)
                self.count(f"profile of {name} holds the estimate", wrong, tried)

    def maxima(self) -> None:
        """EM and Newton in numpy reach no better maximum, and the same estimate."""
        for i in np.flatnonzero(self.regular)[:ORACLES]:
            one = np.arange(len(self.batch)) == i
            value, effect = _oracle(self.batch[i], self.k, self.level, self.seed)
            gain = value - self.log_likelihood[i]
            self.count(f"{MISSED} no better maximum in numpy", one & (gain > 1e-3), one)
            if abs(gain) < 1e-6 and self.stats["flatness"][i] > 1e-4:
                gap = abs(effect - self.found["effect"][i])
                self.count("the oracle's average effect", one & ~(gap < 1e-6), one)


def _zeros(factors: Any) -> jax.Array:
    """Return which probabilities are held at 0."""
    return jnp.concatenate([part.reshape(-1) for part in jax.tree.leaves(factors)]) == 0


def _oracle(cells: np.ndarray, k: int, level: int, seed: int) -> tuple[float, float]:
    """Return the maximum that EM and Newton find in numpy, and its average effect."""
    from tests import likelihood_oracles as oracle

    fit = {2: oracle.em_level2, 3: oracle.em_level3}[level](cells, k, np.random.default_rng(seed))
    effects, shares = oracle.law_of(fit, np.arange(2.0), level)
    return fit.loglik, float(effects @ shares)


def _case(text: str) -> tuple[int, int]:
    """Return the level and the number of classes behind ``level,classes``."""
    level, k = text.split(",")
    return int(level), int(k)


FITS: dict[str, tuple[tuple[int, ...] | None, dict[str, Any]]] = {
    "level 3, 3 x 3": (SHAPE, {"level": 3, "num_classes": 2}),
    "level 3, 2 x 2": ((2, 2, 2, 2), {"level": 3, "num_classes": 2}),
    "level 3, the treated": (SHAPE, {"level": 3, "num_classes": 2, "estimand": "ATT"}),
    "level 2, 3 x 3": (SHAPE, {"level": 2, "num_classes": 2}),
    "level 4, 3 x 3": (SHAPE, {"level": 4}),
    "level 3, continuous": (None, {"level": 3, "num_classes": 2}),
}
ROWS, RESAMPLES = 40, 200
SEARCHED = 6  # tables for which sensitivity bounds are searched too, which takes its time


def estimates_of(result: Any) -> np.ndarray:
    """Return the numbers of a result that are estimates, and none of their uncertainty."""
    means = [mean.value for mean in result.potential_means.values()]
    numbers = [result.ate.value, result.naive.value, *means]
    if result.law is not None:
        numbers += [*result.law.shares, *result.law.effects]
        numbers += [result.share_harmed.value, result.spread.value]
    return np.array(numbers, float)


def fits(num: int, seed: int) -> bool:
    """Cross-examine `jaxmix.fit` itself, with and without what else can be asked for."""
    found = False
    for name, (shape, options) in FITS.items():
        tally, began, tried = Tally(), time.perf_counter(), 0
        rng = np.random.default_rng([seed, list(FITS).index(name)])
        while tried < num // len(FITS):
            if shape is None:
                frame, proxies, weights = continuous(rng), (["z1", "z2"], ["x1", "x2"]), {}
            else:
                cells = draw(rng, shape)
                if not has_two_arms(cells) or cells.sum() < ROWS:
                    continue
                frame, proxies = rows_of(cells, ROWS), (["z"], ["x"])
                weights = {
                    "weights": "copies", "weights_kind": "frequency", "features": "onehot",
                }  # fmt: skip
            try:
                data = jm.CausalData.from_frame(
                    frame, treatment="t", outcome="y", z=proxies[0], x=proxies[1], **weights
                )
                plain = jm.fit(data, checks=False, num_resamples=0, **options)
            except jm.InputError as error:
                tally.statuses[f"refused ({str(error).split(':')[0][:40]})"] += 1
                continue
            drawn = jm.fit(data, checks=False, num_resamples=RESAMPLES, **options)
            checked = None
            if tried < SEARCHED or ("3 x 3" not in name and "2 x 2" not in name):
                checked = jm.fit(data, checks=True, num_resamples=0, **options).complete()
            tried += 1
            tally.statuses[plain.status.name] += 1
            one = np.array([True])
            for what, other in (("resamples on = off", drawn), ("checks on = off", checked)):
                if other is not None:
                    same = np.array_equal(estimates_of(other), estimates_of(plain), equal_nan=True)
                    tally.add(what, one & (not same), lambda _, data=frame: str(data))
            for other in (plain, drawn, checked):
                if other is not None:
                    wrong = other.status is Status.INCONSISTENT
                    tally.add("none is INCONSISTENT", one & wrong,
                              lambda _, r=other, d=frame: (r.warnings, str(d)))  # fmt: skip
                    if other.status.usable:
                        finite = np.isfinite(estimates_of(other)).all()
                        tally.add("usable ones are finite", one & (not finite), lambda _: "")
        found |= tally.report(f"fit, {name}", tried, time.perf_counter() - began)
        jax.clear_caches()  # thousands of programs exhaust a process's memory maps
    return found


def main() -> int:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("parts", nargs="*", default=["functions"])
    parser.add_argument("--tables", type=int, default=2_000)
    parser.add_argument("--profiles", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="no starts where the first is regular")
    parser.add_argument("--cases", type=_case, nargs="*", default=[(3, 2), (2, 2), (3, 3)])
    asked = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    found = False
    if "functions" in asked.parts:
        for level, k in asked.cases:
            found |= functions(
                asked.tables, asked.seed, level, k, asked.profiles, thorough=not asked.quick
            )
    if "bridge" in asked.parts:
        for estimand, rank in (("ATE", None), ("ATE", 2), ("ATT", None)):
            found |= consistency_plain.bridges(asked.tables, asked.seed, estimand, rank)
    if "latent" in asked.parts:
        found |= consistency_plain.latent_tables(asked.tables, asked.seed)
    if "fits" in asked.parts:
        found |= fits(asked.tables, asked.seed)
    return int(found)


if __name__ == "__main__":
    sys.exit(main())
