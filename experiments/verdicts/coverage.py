"""Coverage and width of the intervals, and whether the warnings fire where coverage fails.

Run ``python -m experiments.verdicts.coverage [PART ...] [--datasets N]``; the parts are likelihood
(profile intervals of tables), moments (rows with Gaussian proxies), weak (proxies that fade), many
(many weak columns of z), ties (effects that meet) and signs (an effect near 0), and each prints one
table. Intervals are nominal 95 %; the Monte Carlo standard error of 95 % is printed with each part.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxmix as jm
from jaxmix.estimators.bridge import proxy_singular_values, weakest_direction
from jaxmix.inference import profile
from jaxmix.inference.asymptotic import delta_covariance, standard_errors
from jaxmix.inference.bands import LawBands
from jaxmix.status import NO_ESTIMATE

BLOCK = 250
NAMES = ("ate", "shares", "effects", "spread", "harmed")
WEAK = 10.0
Z = 1.959964


@functools.cache
def _by_profile(k: int, level: int, draw: Callable | None) -> Callable:
    def one(key: jax.Array, population: Any, n: jax.Array) -> dict[str, Any]:
        if draw is not None:
            population = draw(jax.random.fold_in(key, 0))
        moments = jm.moments.from_counts(population.counts(jax.random.fold_in(key, 1), n))
        sol = jm.factorization.solve(moments, k, key=jax.random.fold_in(key, 2), level=level)
        found = profile.intervals(moments, k, sol.stats["start"], level=level)
        bound = population.efficiency_bound(n, level=level)
        law = population.law
        return {
            "found": found._asdict(), "status": sol.status, "f": effective_f(moments, k),
            "truth": {"effects": law.effects, "shares": law.shares, "ate": population.ate},
            "bound": {"effects": bound.effects, "shares": bound.shares, "ate": bound.ate},
            "wald": wald(moments, k),
        }  # fmt: skip

    return jax.jit(jax.vmap(one, (0, None, None)))


def effective_f(moments: Any, k: int) -> jax.Array:
    """Return the smaller of the arms' effective F, as `jaxmix.fit` reports it."""
    table = jm.moments.from_counts(moments.tensor * moments.num_rows, covariance=True)
    value = proxy_singular_values(moments)[:, k - 1]

    def noise(side: int) -> jax.Array:
        def entries(m: Any) -> jax.Array:
            return weakest_direction(m, k - 1)[side].ravel()

        return jnp.diagonal(delta_covariance(entries, table)).reshape(len(value), -1).sum(1)

    return jnp.min(value**2 / jnp.maximum(noise(0), noise(1)))


def wald(moments: Any, k: int) -> tuple[jax.Array, jax.Array]:
    """Return the bridge's average effect at this rank, and its delta-method standard error."""
    table = jm.moments.from_counts(moments.tensor * moments.num_rows, covariance=True)

    def effect(m: Any) -> jax.Array:
        means = jm.bridge.potential_means(m, rank=k)
        return (means[1] - means[0])[None]

    return effect(table)[0], jnp.sqrt(delta_covariance(effect, table)[0, 0])


def run(function: Callable, datasets: int, *args: Any) -> Any:
    """Evaluate a function of keys block by block; return numpy arrays."""
    keys = jax.random.split(jax.random.key(2026), datasets)
    parts = [
        jax.tree.map(np.asarray, function(keys[i : i + BLOCK], *args))
        for i in range(0, datasets, BLOCK)
    ]
    return jax.tree.map(lambda *p: np.concatenate(p), *parts)


def covered(ends: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Say which intervals hold the truth, to rounding."""
    slack = 1e-9
    return (ends[..., 0] <= truth + slack) & (truth <= ends[..., 1] + slack)


def of_law(effects: np.ndarray, cumulative: np.ndarray, truth: dict) -> dict[str, Any]:
    """Return, for each data set, the harmed interval, its truth, and the resolved groups."""
    harmed, true, resolved = [], [], []
    for i in range(len(effects)):
        bands = LawBands(effects[i], cumulative[i])
        harmed.append(bands.harmed("higher"))
        true.append(truth["shares"][i][truth["effects"][i] < 0].sum())
        resolved.append(len(bands.groups) == effects.shape[1])
    return {"ends": np.array(harmed), "truth": np.array(true), "resolved": np.array(resolved)}


def line(title: str, n: int | str, cells: list[str]) -> None:
    """Print one row."""
    print(f"{title:34} {n:>6}  " + "  ".join(cells), flush=True)


def percent(hits: np.ndarray) -> str:
    """Return coverages in percent, the classes of a number separated by bars."""
    means = np.atleast_1d(100 * np.mean(hits, axis=0))
    return "|".join(f"{m:.1f}" for m in means)


def likelihood(datasets: int) -> None:
    """Profile-likelihood intervals where proxies are strong."""
    strong = {
        (k, d): functools.partial(jm.populations.random_discrete, num_classes=k, d_z=d, d_x=d)
        for k, d in ((2, 2), (3, 3))
    }
    designs = [(f"paper, zt {zt:g}", n, 2, jm.populations.paper_main(zt_strength=zt), None)
               for n in (1_000, 10_000) for zt in (0.0, 0.5, 1.0)]  # fmt: skip
    designs += [(f"strong, k {k}, d {d}", 5_000, k, None, draw) for (k, d), draw in strong.items()]
    print("\nProfile-likelihood intervals: coverage (%), and width over 2 x 1.96 Cramer-Rao errors")
    print(f"Monte Carlo error {100 * np.sqrt(0.0475 / datasets):.2f}; classes separated by |")
    line("design", "n", ["ATE", "shares", "effects", "harmed", "| width: ATE", "shares", "effects",
                       "harmed", "| BOUNDARY", "not settled"])  # fmt: skip
    for title, n, k, population, draw in designs:
        out = run(_by_profile(k, 3, draw), datasets, population, jnp.asarray(float(n)))
        found, truth, bound = out["found"], out["truth"], out["bound"]
        law = of_law(found["effects"], found["cumulative"], truth)
        ends = {"ate": found["effect"], "shares": found["shares"], "effects": found["effects"]}
        cells = [percent(covered(ends[name], truth[name])) for name in ends]
        cells.append(percent(covered(law["ends"], law["truth"])))
        for name, own in ends.items():
            best = 2 * Z * np.sqrt(bound[name])
            ratio = np.atleast_1d(np.mean(np.diff(own)[..., 0], axis=0) / np.mean(best, axis=0))
            cells.append("|".join(f"{r:.3f}" for r in ratio))
        cells.append(f"{np.mean(np.diff(law['ends'])):.3f}")
        cells += [f"{100 * np.mean(out['status'] == 1):.0f} %", f"{np.sum(~found['settled'])}"]
        line(title, n, cells)


def moments(datasets: int) -> None:
    """Rows with Gaussian proxies, fitted by weighted least squares: delta method, bootstrap."""
    print("\nGaussian proxies (gmm): coverage (%) of delta-method and of percentile intervals")
    print(f"Monte Carlo error {100 * np.sqrt(0.0475 / datasets):.2f}; classes separated by |")
    line("design", "n", ["ATE", "shares", "effects", "| width: ATE", "shares", "effects",
                       "| usable"])  # fmt: skip
    for k in (2, 3):
        for n in (2_000, 10_000):
            population = jm.populations.gaussian(num_classes=k)
            delta = _by_delta(k, n)
            out = run(delta, datasets, population)
            ok = out["usable"]
            bound = population.efficiency_bound(n)
            law = population.law
            truth = np.concatenate([[population.ate], law.shares, law.effects])
            best = 2 * Z * np.sqrt(np.concatenate([[bound.ate], bound.shares, bound.effects]))
            half = Z * out["se"]
            hits = np.abs(out["value"] - truth) <= half
            cells = [percent(hits[ok][:, s]) for s in (slice(0, 1), slice(1, k + 1),
                                                       slice(k + 1, None))]  # fmt: skip
            ratio = np.mean(2 * half[ok], axis=0) / best
            cells += [f"{ratio[0]:.3f}", "|".join(f"{r:.3f}" for r in ratio[1 : k + 1]),
                      "|".join(f"{r:.3f}" for r in ratio[k + 1 :])]  # fmt: skip
            cells.append(f"{100 * ok.mean():.1f} %")
            line(f"gaussian, k {k}, delta method", n, cells)


@functools.cache
def _by_delta(k: int, n: int) -> Callable:
    def one(key: jax.Array, population: Any) -> dict[str, Any]:
        sampled = population.sample_moments(jax.random.fold_in(key, 1), n, covariance=True)
        own = jax.random.fold_in(key, 2)
        sol = jm.factorization.solve(sampled, k, key=own, loss="gmm")

        def numbers(m: Any) -> jax.Array:
            found = jm.factorization.solve(
                m, k, key=own, loss="gmm", start=sol.stats["start"], weight=sol.stats["weight"]
            ).value
            effects = found.effects()
            return jnp.concatenate([(found.shares @ effects)[None], found.shares, effects])

        spread = jnp.sqrt(jnp.diagonal(delta_covariance(numbers, sampled)))
        usable = ~jnp.isin(sol.status, jnp.array(NO_ESTIMATE)) & jnp.all(jnp.isfinite(spread))
        return {"value": numbers(sampled), "se": spread, "usable": usable}

    return jax.jit(jax.vmap(one, (0, None)))


def weak(datasets: int) -> None:
    """Proxies that fade: coverage with and without the warning."""
    print("\nProxies that fade (block design, two classes, n = 2,000): coverage (%) of the ATE by")
    print("the bridge's normal interval and by profile likelihood, and of effects, by warning")
    print(f"{'strength':>8} {'warned':>7} | {'bridge, no':>10} {'warning':>8} | "
          f"{'profile, no':>11} {'warning':>8} | {'effects, no':>11} {'warning':>8}")  # fmt: skip
    every: list[tuple[np.ndarray, ...]] = []
    for strength in (0.9, 0.8, 0.7, 0.65, 0.6, 0.57, 0.55, 0.53):
        population = jm.populations.block(proxy_strength=strength)
        out = run(_by_profile(2, 3, None), datasets, population, jnp.asarray(2000.0))
        found, truth = out["found"], out["truth"]
        value, se = out["wald"]
        bridge = np.abs(value - truth["ate"]) <= Z * se
        ate = covered(found["effect"], truth["ate"])
        effects = covered(found["effects"], truth["effects"]).mean(1)
        warned = ~(out["f"] >= WEAK)
        every.append((out["f"], bridge, ate, effects))
        shown = [f"{strength:>8} {100 * warned.mean():>6.1f}%"]
        for hits, wide in ((bridge, 10), (ate, 11), (effects, 11)):
            parts = [hits[~warned], hits[warned]]
            texts = [f"{100 * p.mean():.1f}" if len(p) > 30 else "-" for p in parts]
            shown.append(f"{texts[0]:>{wide}} {texts[1]:>8}")
        print(" | ".join(shown), flush=True)
    f, *hits = (np.concatenate(part) for part in zip(*every, strict=True))
    print("\nAll of them by effective F:   bridge ATE   profile ATE   effects   data sets")
    edges = [0, 1, 2, 4, 7, 10, 15, 25, 50, 100, np.inf]
    for low, high in itertools.pairwise(edges):
        own = (f >= low) & (f < high)
        if own.sum() > 30:
            cells = [f"{100 * h[own].mean():10.1f}" for h in hits]
            print(f"  F from {low:>4g} to {high:<6g} " + "  ".join(cells) + f"   {own.sum():>8}")


def many(datasets: int) -> None:
    """Many columns of z that say little: two-stage least squares leans towards the naive answer."""
    print("\nFifteen columns of z that fade, one x, a continuous class, n = 2,000: the bridge's")
    print(
        "normal intervals, by effective F: coverage (%) of the ATE, median share of naive bias left"
    )
    every = []
    for i, relevance in enumerate((0.0, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3, 0.5)):
        rng = np.random.default_rng(i)
        for _ in range(max(1, datasets // 5)):
            u = rng.normal(size=2000)
            t = (rng.random(2000) < 1 / (1 + np.exp(-u))).astype(float)
            frame = {"t": t, "y": t + 2 * u + rng.normal(size=2000)}
            frame["x"] = u + 0.7 * rng.normal(size=2000)
            z = [f"z{j}" for j in range(15)]
            frame |= {name: relevance * u + rng.normal(size=2000) for name in z}
            roles = {"treatment": "t", "outcome": "y", "z": z, "x": ["x"]}
            data = jm.CausalData.from_frame(frame, **roles)
            value, se, f = _by_bridge(jm.features.encode(data))
            naive = frame["y"][t == 1].mean() - frame["y"][t == 0].mean()
            every.append((float(f), abs(float(value) - 1) <= Z * float(se),
                          (float(value) - 1) / (naive - 1)))  # fmt: skip
    f, hits, bias = (np.array(part) for part in zip(*every, strict=True))
    for low, high in itertools.pairwise([0, 1.5, 2, 3, 5, 7, 10, 15, 25, 50, 100, np.inf]):
        own = (f >= low) & (f < high)
        if own.sum() > 30:
            print(f"  F from {low:>4g} to {high:<6g} {100 * hits[own].mean():8.1f} "
                  f"{np.median(bias[own]):8.2f}   {own.sum():>6} data sets")  # fmt: skip


def _effect(moments: Any) -> jax.Array:
    means = jm.bridge.potential_means(moments)
    return means[1] - means[0]


@jax.jit
def _by_bridge(views: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    moments = jm.moments.from_rows(views)
    last = moments.max_rank - 1
    value = proxy_singular_values(moments)[:, last]
    sides = standard_errors(lambda m: weakest_direction(m, last), views)
    noise = jnp.maximum(*((side**2).sum(1) for side in sides))
    return _effect(moments), standard_errors(_effect, views), jnp.min(value**2 / noise)


def ties(datasets: int) -> None:
    """Effects that meet: coverage by class, and how often classes are called unresolved."""
    print("\nThree classes, two of them with effects a gap apart (n = 5,000): coverage (%)")
    print(f"{'gap':>6} {'unresolved':>10} | {'ATE':>5} {'harmed':>7} {'spread':>7} | effects, "
          f"resolved | effects, unresolved")  # fmt: skip
    for gap in (0.0, 0.05, 0.1, 0.2, 0.4):
        population = jm.populations.block(
            num_classes=3, d_z=3, d_x=3, effects=[-0.3, 0.3 - gap / 2, 0.3 + gap / 2]
        )
        out = run(_by_profile(3, 3, None), datasets, population, jnp.asarray(5000.0))
        found, truth = out["found"], out["truth"]
        law = of_law(found["effects"], found["cumulative"], truth)
        hits = covered(found["effects"], truth["effects"])
        spread = covered(found["spread"], np.sqrt(float(population.law.variance)))
        yes = law["resolved"]
        parts = [percent(h) if len(h) > 30 else "-" for h in (hits[yes], hits[~yes])]
        print(f"{gap:>6} {100 * np.mean(~yes):>9.1f}% | "
              f"{percent(covered(found['effect'], truth['ate'])):>5} "
              f"{percent(covered(law['ends'], law['truth'])):>7} {percent(spread):>7} | "
              f"{parts[0]:>17} | {parts[1]:>19}", flush=True)  # fmt: skip


def signs(datasets: int) -> None:
    """Let an effect be near 0, where the share harmed jumps."""
    print("\nTwo classes, the first with an effect near 0 (n = 5,000): the share harmed")
    print(f"{'effect':>7} {'truth':>6} {'covered':>8} {'width':>6} {'sign open':>10}")
    for effect in (-0.2, -0.1, -0.05, -0.02, 0.0, 0.02, 0.05, 0.1):
        population = jm.populations.block(effects=[effect, 0.5])
        out = run(_by_profile(2, 3, None), datasets, population, jnp.asarray(5000.0))
        found, truth = out["found"], out["truth"]
        law = of_law(found["effects"], found["cumulative"], truth)
        first = found["effects"][:, 0]
        unsettled = (first[:, 0] < 0) & (first[:, 1] > 0)
        hits = percent(covered(law["ends"], law["truth"]))
        print(f"{effect:>7} {law['truth'][0]:>6.3f} {hits:>8} "
              f"{np.mean(np.diff(law['ends'])):>6.3f} {100 * unsettled.mean():>9.1f}%",
              flush=True)  # fmt: skip


PARTS = {
    "likelihood": likelihood,
    "moments": moments,
    "weak": weak,
    "many": many,
    "ties": ties,
    "signs": signs,
}


def main() -> None:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=list(PARTS))
    parser.add_argument("--datasets", type=int, default=1000)
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    for name in options.parts or PARTS:
        began = time.perf_counter()
        PARTS[name](options.datasets)
        print(f"({name}: {options.datasets} data sets each, {time.perf_counter() - began:.0f} s)")


if __name__ == "__main__":
    main()
