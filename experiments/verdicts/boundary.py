"""Coverage where probabilities are estimated at 0, by status and by the design of the sample.

Run ``python -m experiments.verdicts.boundary [DESIGN ...] [--datasets N]``; the designs are random
(independent rows), weights (sampling weights), clusters (of 20 rows whose classes resemble each
other). Tables of 4,000 rows, 3 x 3 levels, two classes, one of whose shares of (T, Z) is .04:
regular, without an empty cell, and yet some fits end at a bound. For the average effect, that on
the treated, shares and class effects the coverage of nominal 95 % intervals is printed by status
of the fit: by profile likelihood as `jaxmix.fit` makes them, by percentiles of resamples, and
normal ones by differentiation, which `jaxmix.fit` withholds at a bound.
"""

from __future__ import annotations

import argparse
import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmix import Status
from jaxmix.data.design import Design
from jaxmix.estimators.base import Numbers
from jaxmix.estimators.registry import Factorization
from jaxmix.inference import asymptotic, numbers, profile, resampling
from jaxmix.sample.features import Views
from jaxmix.sample.moments import from_rows

DESIGNS = ("random", "weights", "clusters")
ROWS, CLUSTER, BLOCK, RESAMPLES = 4_000, 20, 25, 200
NUMBERS = ("effect", "means", "shares", "effects", "cumulative", "spread")
SHOWN = ("effect", "shares", "effects")
Z = 1.959964

SHARES = np.array([0.5, 0.5])
OF_Z = np.array([[0.50, 0.42, 0.08], [0.20, 0.30, 0.50]])  # by class
TREATED = np.array([[0.4, 0.45, 0.5], [0.6, 0.5, 0.55]])  # P(T=1 | class, z): .08 * .5 = .04
OF_X = np.array([[0.55, 0.30, 0.15], [0.20, 0.30, 0.50]])
OF_Y = np.array([[0.25, 0.6], [0.55, 0.45]])  # P(Y=1 | arm, class)


def truth() -> dict[str, dict[str, np.ndarray]]:
    """Return the true numbers by estimand, classes by increasing effect."""
    effects = OF_Y[1] - OF_Y[0]
    order = np.argsort(effects)
    treated = SHARES * (OF_Z * TREATED).sum(1)
    found = {}
    for name, shares in (("ATE", SHARES), ("ATT", treated / treated.sum())):
        found[name] = {
            "effect": shares @ effects, "shares": shares[order], "effects": effects[order],
        }  # fmt: skip
    return found


def draw(rng: np.random.Generator, design: str) -> Views:
    """Return a sample as the views of its rows."""
    n = ROWS
    chance = np.full(n, SHARES[1])
    if design == "clusters":
        # Clusters differ in how large the classes are; their mean is the population's share.
        chance = np.repeat(rng.beta(3.0, 3.0, n // CLUSTER), CLUSTER)
    u = (rng.random(n) < chance).astype(int)
    z, x = ((rng.random(n)[:, None] > p[u].cumsum(1)).sum(1).clip(0, 2) for p in (OF_Z, OF_X))
    t = (rng.random(n) < TREATED[u, z]).astype(int)
    y = (rng.random(n) < OF_Y[t, u]).astype(int)
    weight = np.ones(n)
    if design == "weights":
        # Rows with y = 1 are drawn half as often as others, and weights make up for it.
        keep = rng.random(n) < np.where(y == 1, 0.5, 1.0)
        rows = np.flatnonzero(keep)
        rows = rows[:2_500]
        t, z, x, y = t[rows], z[rows], x[rows], y[rows]
        weight = np.where(y == 1, 2.0, 1.0) * rng.uniform(0.5, 1.5, len(rows))
        weight /= weight.mean()
    return Views(
        z=jnp.eye(3)[z], x=jnp.eye(3)[x], y=jnp.eye(2)[y], t=jnp.asarray(t, jnp.int32),
        design=Design(
            weight=jnp.asarray(weight), multiplicity=jnp.ones(len(t)),
            cluster=jnp.arange(n, dtype=jnp.int32) // CLUSTER if design == "clusters" else None,
            num_clusters=n // CLUSTER if design == "clusters" else 0,
        ),
        one_z=jnp.ones(3), one_x=jnp.ones(3), one_y=jnp.ones(2), value_y=jnp.arange(2.0),
        range_y=jnp.array([0.0, 1.0]), onehot_y=True,
    )  # fmt: skip


@functools.cache
def examine(design: str, estimand: str) -> Any:
    """Return the function from a batch of samples to estimates and intervals."""
    estimator = Factorization(2, 3, estimand, thorough=True)

    def part(moments: Any, near: Any) -> dict[str, jax.Array]:
        found = estimator.at_optimum()(moments, near=near).numbers
        return {name: getattr(found, name) for name in NUMBERS}

    def one(views: Views, key: jax.Array) -> dict[str, Any]:
        point = estimator(from_rows(views), key=key)
        near = point.optimum
        statistic = functools.partial(part, near=near)
        errors = asymptotic.standard_errors(statistic, views)
        moments = from_rows(views)
        inflation = None
        if design != "random":
            own = Numbers(**errors)
            inflation = numbers.design_effects(moments, 2, near.start, own, estimand=estimand)
        ends = profile.intervals(moments, 2, near.start, estimand=estimand, inflation=inflation)

        def again(moments: Any) -> tuple[dict[str, jax.Array], jax.Array]:
            out = estimator(moments, key=key, near=near)
            return {name: getattr(out.numbers, name) for name in SHOWN}, out.looks

        drawn, looks = resampling.bootstrap(
            again, views, key=jax.random.fold_in(key, 1), num_resamples=RESAMPLES,
            kind="bayesian", chunk_size=RESAMPLES,
        )  # fmt: skip
        order, _ = jax.vmap(resampling.align, (0, None))(looks, point.looks)
        for name in ("shares", "effects"):
            drawn[name] = jnp.take_along_axis(drawn[name], order, axis=1)
        return {
            "status": point.status, "zero": point.stats["num_zero"],
            "point": {name: getattr(point.numbers, name) for name in SHOWN},
            "se": {name: errors[name] for name in SHOWN},
            "profile": {name: getattr(ends, name) for name in SHOWN},
            "percentile": {
                name: jnp.quantile(drawn[name], jnp.array([0.025, 0.975]), axis=0).T
                for name in SHOWN
            },
        }  # fmt: skip

    return jax.jit(lambda views, keys: jax.lax.map(lambda both: one(*both), (views, keys)))


def run(design: str, estimand: str, datasets: int) -> None:
    """Print one table."""
    began, right = time.perf_counter(), truth()[estimand]
    parts = []
    for block in range(-(-datasets // BLOCK)):
        rng = np.random.default_rng([block, DESIGNS.index(design)])
        made = [draw(rng, design) for _ in range(BLOCK)]
        views = jax.tree.map(lambda *leaves: jnp.stack(leaves), *made)
        keys = jax.random.split(jax.random.key(block), BLOCK)
        parts.append(jax.tree.map(np.asarray, examine(design, estimand)(views, keys)))
    out = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
    ends = {name: out[name] for name in ("profile", "percentile")}
    ends["normal"] = {
        name: np.stack([out["point"][name] - Z * se, out["point"][name] + Z * se], -1)
        for name, se in out["se"].items()
    }
    zero = out["zero"] > 0
    print(f"{design}, {estimand}: {len(zero)} data sets, {time.perf_counter() - began:.0f} s")
    for label, own in (("all", zero | ~zero), ("at a bound", zero), ("inside", ~zero)):
        usable = own & (out["status"] < Status.MAX_STEPS)
        print(f"  {label}: {own.sum()} ({100 * own.mean():.1f} %), usable {usable.sum()}")
        for kind, intervals in ends.items():
            cells = []
            for name in SHOWN:
                low, high = np.moveaxis(intervals[name][usable], -1, 0)
                covered = np.atleast_1d(((low <= right[name]) & (right[name] <= high)).mean(0))
                width = np.atleast_1d(np.nanmedian(high - low, axis=0))
                cells.append(
                    f"{name} "
                    + " ".join(f"{100 * c:.1f}" for c in covered)
                    + " ("
                    + " ".join(f"{w:.3f}" for w in width)
                    + ")"
                )
            print(f"    {kind:10} {'; '.join(cells)}", flush=True)
    spread = out["point"]["effect"].std()
    print(f"  standard error of the effect: empirical {spread:.4f}, mean by differentiation "
          f"{np.nanmean(out['se']['effect']):.4f}")  # fmt: skip


def main() -> None:
    """Run the designs that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("designs", nargs="*", default=DESIGNS)
    parser.add_argument("--estimands", nargs="*", default=["ATE", "ATT"])
    parser.add_argument("--datasets", type=int, default=1_000)
    asked = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    for design in asked.designs:
        for estimand in asked.estimands:
            run(design, estimand, asked.datasets)


if __name__ == "__main__":
    main()
