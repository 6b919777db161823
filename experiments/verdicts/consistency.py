"""Whether the numbers of a fit contradict one another, on tables that people do have.

Run ``python -m experiments.verdicts.consistency [PART ...] [--tables N] [--seed S] [--quick]``.
Tables have structural zeros in z, in x or in both, few rows, levels that do not occur in an arm,
exact independence, rare classes. The parts: ``functions``, the compiled functions behind
`jaxmix.fit` under ``vmap`` (estimate, errors, profile); ``fits``, `jaxmix.fit` itself, checks and
resamples on and off, six kinds of fits. Each prints how many tables were tried, by status, and how
many contradictions were found among those with a usable status; and exits with status 1 where
there was any. Estimates are compared with EM and Newton in plain numpy, errors with central
differences.
"""

from __future__ import annotations

import argparse
import collections
import functools
import itertools
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
BLOCK = 200  # of them, for profiles
ORACLES = 300  # tables whose maximum is found again by EM and Newton in numpy
_MISSED = "search:"  # begins what is a miss of a search by random starts, and no contradiction
DIFFERENCE = 1e-2  # change of the counts in central differences, in units of their noise


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


def rows_of(cells: np.ndarray, num_rows: int) -> dict[str, np.ndarray]:
    """Return a table of counts as as many rows with copies, whatever the number of its cells.

    Tables of one number of rows share their compiled programs. Large counts are split up.

    Raises
    ------
    ValueError
        For more cells, or fewer copies, than rows.
    """
    places = np.argwhere(cells > 0)
    copies = [int(c) for c in cells[tuple(places.T)]]
    if not len(places) <= num_rows <= sum(copies):
        raise ValueError(f"{len(places)} cells with {sum(copies)} copies are not {num_rows} rows")
    places = [tuple(place) for place in places]
    while len(places) < num_rows:
        i = int(np.argmax(copies))
        half = copies[i] // 2
        copies[i] -= half
        places.append(places[i])
        copies.append(half)
    t, z, x, y = np.array(places).T
    z, x = (np.array(list("abcdefgh"))[codes] for codes in (z, x))
    return {"t": t, "z": z, "x": x, "y": y, "copies": np.array(copies)}


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
            kind = "misses" if what.startswith(_MISSED) else "contradictions"
            print(f"  {what}: {self.found[what]:,} {kind} in {count:,}")
        for what, example in self.examples.items():
            print(f"  first of {what!r}: {example}")
        return any(not what.startswith(_MISSED) for what in self.found)


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


def chunks(num: int, seed: int, shape: tuple[int, ...], k: int) -> Iterator[np.ndarray]:
    """Yield batches of tables of one size, so that they are compiled once."""
    rng = np.random.default_rng(seed)
    for start in range(0, num, CHUNK):
        del start
        found = (draw(rng, shape, k) for _ in iter(int, 1))
        yield np.stack(list(itertools.islice(filter(has_two_arms, found), CHUNK)))


def _gap(a: Any, b: Any) -> np.ndarray:
    """Return the largest difference of two trees by table."""
    parts = jax.tree.map(
        lambda x, y: np.abs(np.asarray(x) - np.asarray(y)).reshape(len(x), -1).max(1), a, b
    )
    return np.max(jax.tree.leaves(parts), axis=0)


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
        self.count("numbers are finite", ~_finite(found), self.usable)
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
        self.count("differentiated = plain", ~(_gap(also, self.found) < 1e-7), self.regular)
        flat = jnp.asarray(self.stats["flat"])
        again = jax.tree.map(np.asarray, self.run["again"](self.cells, self.start, flat))
        same_numbers, errors, slopes = again
        self.count("at its optimum = found", ~(_gap(same_numbers, self.found) < 1e-12), self.usable)
        sized = _finite(errors)
        self.count("identified, errors exist", ~sized, self.regular)
        if self.k == 2:
            one, two = errors["shares"].T
            same = np.abs(one - two) < 1e-6 * np.maximum(one, two) + 1e-12
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
        smooth = settled & (size < 0.25) & (_gap(middle, same_numbers) < 0.02 * step)
        gap = _gap(predicted, difference) / step
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
            self.count(f"{_MISSED} no better maximum in numpy", one & (gain > 1e-3), one)
            if abs(gain) < 1e-6 and self.stats["flatness"][i] > 1e-4:
                gap = abs(effect - self.found["effect"][i])
                self.count("the oracle's average effect", one & ~(gap < 1e-6), one)


def _zeros(factors: Any) -> jax.Array:
    """Return which probabilities are held at 0."""
    return jnp.concatenate([part.reshape(-1) for part in factors]) == 0


def _finite(numbers: dict[str, np.ndarray]) -> np.ndarray:
    return np.all([np.isfinite(v).reshape(len(v), -1).all(1) for v in numbers.values()], axis=0)


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


def continuous(rng: np.random.Generator, n: int = 300) -> dict[str, np.ndarray]:
    """Return rows with two continuous proxies a side; some know little, or are near copies."""
    u = rng.random(n) < rng.uniform(0.2, 0.8)
    strength = rng.choice([0.1, 1.0, 2.0], 4)
    z1, z2, x1, x2 = (s * u + rng.normal(size=n) for s in strength)
    if rng.random() < 0.2:
        z2 = z1 + 0.3 * rng.normal(size=n)
    t = (rng.random(n) < np.where(u, 0.7, 0.3)).astype(int)
    y = 2.0 * u + t * (1 - 1.5 * u) + rng.normal(size=n)
    scale = 10.0 ** rng.integers(-3, 4)
    return {"t": t, "y": y * scale, "z1": z1, "z2": z2, "x1": x1, "x2": x2}


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
                checked = jm.fit(data, checks=True, num_resamples=0, **options)
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
    if "fits" in asked.parts:
        found |= fits(asked.tables, asked.seed)
    return int(found)


if __name__ == "__main__":
    sys.exit(main())
