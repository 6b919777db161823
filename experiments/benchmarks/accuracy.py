"""How good the factorization is: optima, efficiency, the paper's design, and the J statistic.

Run ``python -m experiments.benchmarks.accuracy optima|bound|paper|gmm|safety [--tables N]``; each
prints one table. The oracles are those of the tests: plain numpy, written apart.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

import jaxmix as jm
from jaxmix import Status
from jaxmix.data.design import Design
from tests import likelihood_oracles as lo
from tests import oracles

SIZES = [(2, 2), (3, 3), (4, 4), (5, 5), (2, 4), (3, 6), (4, 8), (5, 10)]
BINARY = np.arange(2.0)


def draw(kind: str, k: int, d: int, n: int, tables: int) -> tuple[list, np.ndarray]:
    """Draw populations and one table of each, from a seed fixed by the arguments."""
    rng = np.random.default_rng([k, d, n, kind == "strong"])
    family = {"strong": oracles.strong, "generic": oracles.generic}[kind]
    drawn = [family(rng, k, d, d) for _ in range(tables)]
    return drawn, np.stack([p.counts(rng, n) for p in drawn]).astype(float)


def keys(num: int) -> jax.Array:
    """Return one key for each table."""
    return jax.random.split(jax.random.key(20), num)


def solver(k: int, **options) -> Callable:
    """Return the compiled fit of many tables."""
    return jax.jit(
        jax.vmap(lambda c, q: jm.factorization.solve(c, k, key=q, **options), in_axes=(0, 0))
    )


def pair(law: jm.EffectLaw) -> tuple:
    """Return effects and shares, which have a batch axis whatever else the law carries."""
    return law.effects, law.shares


def in_blocks(function: Callable, *arrays, size: int = 500):
    """Apply a batched function to long arrays in blocks of one size."""
    parts = [function(*(a[i : i + size] for a in arrays)) for i in range(0, len(arrays[0]), size)]
    return jax.tree.map(lambda *p: np.concatenate([np.asarray(q) for q in p]), *parts)


def optima(tables: int) -> None:
    """Compare log-likelihoods with the best of 16 starts of EM run to 1e-10."""
    print(f"{'kind':8} k  d      n  tables  >1e-3 lower  >1 lower  higher  worst   status")
    total = np.zeros(4, int)
    for kind in ("strong", "generic"):
        for k, d in SIZES:
            for n in (10_000, 100_000):
                _, cells = draw(kind, k, d, n, tables)
                sol = solver(k)(jnp.asarray(cells), keys(tables))
                ours = np.asarray(sol.stats["log_likelihood"])
                rng = np.random.default_rng(7)
                best = np.array([lo.em_level3(c, k, rng).loglik for c in cells])
                gap = best - ours
                lower, far, higher = (gap > 1e-3).sum(), (gap > 1).sum(), (gap < -1e-3).sum()
                total += [tables, lower, far, higher]
                names = [Status(int(s)).name for s in np.unique(np.asarray(sol.status))]
                print(
                    f"{kind:8} {k} {d:2d} {n:6d} {tables:7d} {lower:12d} {far:9d} {higher:7d} "
                    f"{gap.max():7.4f}  {' '.join(names)}",
                    flush=True,
                )
    print("tables, >1e-3 lower, >1 lower, >1e-3 higher:", total.tolist())


def bound(tables: int) -> None:
    """Mean squared error over the Cramer-Rao bound, strong populations at n = 1e5."""
    print("k  d  ratio of MSE to bound (std. error), mean over tables; one population each table")
    print("      plain SPO       rank-k SPO      spectral        gmm             kl")
    for k, d in SIZES:
        drawn, cells = draw("strong", k, d, 100_000, tables)
        truth = [p.law() for p in drawn]
        limit = np.array([lo.cramer_rao(p, 100_000).sum() for p in drawn])
        laws = {"plain SPO": _plain(cells, k)}
        batch = {
            "rank-k SPO": lambda c, q, k=k: jm.synthetic.effect_law(jm.moments.from_counts(c), k),
            "spectral": lambda c, q, k=k: jm.spectral.effect_law(jm.moments.from_counts(c), k),
            "kl": lambda c, q, k=k: jm.factorization.solve(c, k, key=q).value.law,
        }
        if d <= 5:  # beyond, the weight has over 10,000 entries
            batch["gmm"] = lambda c, q, k=k: (
                jm.factorization.solve(c, k, key=q, loss="gmm").value.law
            )
        for name, f in batch.items():
            of_pair = jax.jit(jax.vmap(lambda c, q, f=f: pair(f(c, q))))
            found = in_blocks(of_pair, jnp.asarray(cells), keys(tables), size=250)
            laws[name] = list(zip(*found, strict=True))
        texts = []
        for name in ("plain SPO", "rank-k SPO", "spectral", "gmm", "kl"):
            if name not in laws:
                texts.append(f"{'-':15}")
                continue
            errors = np.array(
                [lo.error(e, s, *t) for (e, s), t in zip(laws[name], truth, strict=True)]
            )
            ratio = errors / limit
            texts.append(f"{ratio.mean():7.4g} ({ratio.std() / tables**0.5:.3g})".ljust(15))
        print(f"{k} {d:2d}  " + " ".join(texts), flush=True)


def _plain(cells: np.ndarray, k: int) -> list:
    laws = []
    for c in cells:
        try:
            effects, shares = oracles.spo_published(c, k, BINARY)
            laws.append((np.real(effects), np.real(shares)))
        except np.linalg.LinAlgError:
            laws.append((np.full(k, np.inf), np.full(k, np.inf)))
    return laws


def paper(tables: int) -> None:
    """Compare with plain SPO on the paper's level-2-against-3 design at n = 1e3."""
    print("zt   method     median   ratio   5% trimmed mean   ratio")
    for zt in (0.0, 0.5, 1.0):
        drawn = oracles.paper_main(zt)
        rng = np.random.default_rng([5, int(10 * zt)])
        cells = rng.multinomial(1000, drawn.joint().ravel(), tables).reshape(tables, 2, 2, 2, 2)
        truth = drawn.law()
        laws = {"plain SPO": _plain(cells, 2)}
        options = [("kl", {})] + ([("kl level 2", {"level": 2})] if zt == 0 else [])
        for name, extra in options:
            f = solver(2, **extra)
            found = in_blocks(
                lambda c, q, f=f: pair(f(c, q).value.law), jnp.asarray(cells, float), keys(tables)
            )
            laws[name] = list(zip(*found, strict=True))
        if zt == 0:
            f = jax.jit(jax.vmap(lambda c, q: pair(jm.baselines.nn_parafac(c, 2, key=q))))
            found = in_blocks(f, jnp.asarray(cells, float), keys(tables))
            laws["NN-PARAFAC"] = list(zip(*found, strict=True))
        reference = None
        for name, found in laws.items():
            errors = np.array([_worst_case(lo.error(e, s, *truth)) for e, s in found])
            median, trimmed = np.median(errors), _trimmed(errors)
            reference = reference or (median, trimmed)
            print(
                f"{zt:3.1f}  {name:11} {median:.4f}  {median / reference[0]:.3f}   "
                f"{trimmed:.4f}            {trimmed / reference[1]:.3f}",
                flush=True,
            )


def _worst_case(error: float) -> float:
    return error if np.isfinite(error) else 1e6


def _trimmed(errors: np.ndarray, share: float = 0.05) -> float:
    cut = int(share * len(errors))
    return float(np.sort(errors)[cut : len(errors) - cut].mean())


def gaussian_rows(rng: np.random.Generator, k: int, n: int, d: int = 3) -> tuple:
    """Draw Gaussian proxies (d columns a side) and outcome; return arrays and the true law."""
    shares = np.linspace(1.0, 1.5, k) / np.linspace(1.0, 1.5, k).sum()
    angle = 2 * np.pi * np.arange(k)[:, None] / k + np.arange(d)
    centre_z, centre_x = 1.2 * np.cos(angle), 1.2 * np.sin(angle + 0.5)
    means = np.stack([np.linspace(-0.5, 0.5, k), np.linspace(0.8, -0.3, k)])
    u = rng.choice(k, n, p=shares)
    z = centre_z[u] + rng.normal(size=(n, d))
    t = (rng.random(n) < 1 / (1 + np.exp(-0.5 * z[:, 0] - 0.4 * (u - (k - 1) / 2)))).astype(int)
    x = centre_x[u] + rng.normal(size=(n, d))
    y = means[t, u] + 0.5 * rng.normal(size=n)
    effects = means[1] - means[0]
    order = effects.argsort()
    return (t, z, x, y), (effects[order], shares[order])


def gaussian_moments(t, z, x, y) -> jm.moments.Moments:  # type: ignore[no-untyped-def]
    """Return the moments of standardised columns with the constant, and their covariance."""

    def standard(v):  # type: ignore[no-untyped-def]
        v = (v - v.mean(0)) / v.std(0)
        return jnp.concatenate([jnp.ones((len(v), 1)), v.reshape(len(v), -1)], axis=1)

    def unit(d: int):  # type: ignore[no-untyped-def]
        return jnp.eye(d)[0]

    ones = jnp.ones(len(t))
    views = jm.features.Views(
        z=standard(z), x=standard(x), y=standard(y), t=t,
        design=Design(weight=ones, multiplicity=ones),
        one_z=unit(z.shape[1] + 1), one_x=unit(x.shape[1] + 1), one_y=unit(2),
        value_y=jnp.stack([y.mean(), y.std()]), range_y=jnp.stack([y.min(), y.max()]),
        num_shared=1,
    )  # fmt: skip
    return jm.moments.from_rows(views, covariance=True)


def gmm(tables: int) -> None:
    """J under the null, on Gaussian proxies and outcome; time per fit beside a numpy SPO."""
    print("k      n    df   mean J (se)      rejected at 5 %   median error  ms per fit  numpy SPO")
    for k in (2, 3):
        for n in (2_000, 20_000):
            rng = np.random.default_rng([k, n])
            of_rows = jax.jit(gaussian_moments)
            fits, errors, took, spo, size = [], [], 0.0, 0.0, 100
            fit = jax.jit(
                jax.vmap(lambda m, q, k=k: jm.factorization.solve(m, k, key=q, loss="gmm"))
            )
            for start in range(0, tables, size):
                rows = [gaussian_rows(rng, k, n) for _ in range(size)]
                moments = jax.tree.map(lambda *m: jnp.stack(m), *(of_rows(*r) for r, _ in rows))
                block = keys(start + size)[start:]
                if start == 0:
                    jax.block_until_ready(fit(moments, block))
                begin = time.perf_counter()
                sol = jax.block_until_ready(fit(moments, block))
                took += time.perf_counter() - begin
                if start == 0:
                    begin = time.perf_counter()
                    for i in range(size):
                        _numpy_spo(np.asarray(moments.tensor[i]), k)
                    spo = (time.perf_counter() - begin) / size
                fits.append(jax.tree.map(np.asarray, (sol.stats["j"], sol.stats["df"], sol.status)))
                errors += [
                    lo.error(np.asarray(e), np.asarray(s), *truth)
                    for e, s, (_, truth) in zip(
                        sol.value.law.effects, sol.value.law.shares, rows, strict=True
                    )
                ]
            j, df, status = (np.concatenate(part) for part in zip(*fits, strict=True))
            p = np.asarray(jax.scipy.stats.chi2.sf(j, df))
            rate = (p < 0.05).mean()
            names = {Status(int(s)).name: int((status == s).sum()) for s in np.unique(status)}
            print(
                f"{k} {n:7d} {np.median(df):5.0f}   {j.mean():.2f} ({j.std() / tables**0.5:.2f})  "
                f"  {100 * rate:.2f} % (se {100 * (0.05 * 0.95 / tables) ** 0.5:.2f})  "
                f"{np.median(errors):.4f}      {1e3 * took / tables:.2f}       {1e3 * spo:.2f}  "
                f"{names}",
                flush=True,
            )


def _numpy_spo(tensor: np.ndarray, k: int) -> tuple:
    """Rank-k SPO from moments with the constant first in every view."""
    pinv = [oracles._pinv_rank(tensor[t, :, :, 0], k) for t in range(2)]
    quotient = pinv[1] @ tensor[1, :, :, 1] - pinv[0] @ tensor[0, :, :, 1]
    gamma = quotient[:, 0]
    mean_x = tensor[:, 0, :, 0].sum(0)
    found = [1.0]
    for _ in range(2 * k - 1):
        found.append(float(mean_x @ gamma))
        gamma = quotient @ gamma
    return oracles.prony(np.array(found), k)


def safety(tables: int) -> None:
    """Count wrong answers, and those among them that carry SUCCESS, near the boundary.

    Wrong: the effect law lies further than 0.2 from the truth in Wasserstein's distance, more than
    a quarter of the distance between the classes' effects. With `fit` the strength of the proxies
    and the fit test speak too; here only the solver's own status does.
    """
    print("case                          usable   wrong   of these SUCCESS   statuses")
    rng = np.random.default_rng(9)
    base = oracles.strong(rng, 2, 4, 4)
    one_effect = base.p_y.copy()
    one_effect[1] = one_effect[0]
    values = base.outcome_values
    weak = [mixing * base.p_x + (1 - mixing) * base.p_x.mean(0) for mixing in (0.3, 0.1, 0.03)]
    cases = {"regular": (base, 2)}
    for share in (0.05, 0.02, 0.005):
        few = oracles.Population(
            np.array([1 - share, share]), base.p_zt, base.p_x, base.p_y, values
        )
        cases[f"a share of {share}"] = (few, 2)
    cases["two classes, one effect"] = (
        oracles.Population(base.shares, base.p_zt, base.p_x, one_effect, values), 2,
    )  # fmt: skip
    for mixing, p_x in zip((0.3, 0.1, 0.03), weak, strict=True):
        cases[f"x proxies at {mixing} of strength"] = (
            oracles.Population(base.shares, base.p_zt, p_x, base.p_y, values), 2,
        )  # fmt: skip
    cases["one class too many"] = (base, 3)
    for name, (population, k) in cases.items():
        cells = np.stack([population.counts(rng, 2000) for _ in range(tables)])
        sol = solver(k)(jnp.asarray(cells, float), keys(tables))
        law, status = sol.value.law, np.asarray(sol.status)
        truth = population.law()
        wrong = np.array(
            [
                not _distance(np.asarray(e), np.asarray(s), *truth) < 0.2
                for e, s in zip(law.effects, law.shares, strict=True)
            ]
        )
        names = {Status(int(s)).name: int((status == s).sum()) for s in np.unique(status)}
        silent = wrong & (status == Status.SUCCESS)
        print(
            f"{name:28} {100 * (status < Status.MAX_STEPS).mean():6.1f} % {100 * wrong.mean():6.1f}"
            f" % {100 * silent.mean():8.1f} %          {names}",
            flush=True,
        )


def _distance(effects: np.ndarray, shares: np.ndarray, others: np.ndarray, of: np.ndarray) -> float:
    """Return Wasserstein's distance of two discrete laws on the line."""
    grid = np.sort(np.concatenate([effects, others]))
    gaps = [
        abs(shares[effects <= low].sum() - of[others <= low].sum()) * (high - low)
        for low, high in itertools.pairwise(grid)
    ]
    return float(np.sum(gaps))


def main() -> None:
    """Run one of the tables."""
    jax.config.update("jax_enable_x64", True)
    commands = {f.__name__: f for f in (optima, bound, paper, gmm, safety)}
    defaults = {"optima": 16, "bound": 1000, "paper": 10_000, "gmm": 2000, "safety": 500}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=commands)
    parser.add_argument("--tables", type=int)
    args = parser.parse_args()
    begin = time.perf_counter()
    commands[args.command](args.tables or defaults[args.command])
    print(f"{time.perf_counter() - begin:.0f} s on {jax.devices()[0].device_kind}")


if __name__ == "__main__":
    main()
