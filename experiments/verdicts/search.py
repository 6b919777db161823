"""How often a search for the maximum of a likelihood misses it, by rule, on tables made to be hard.

Run ``python -m experiments.verdicts.search [ITEMS.csv --columns A,B,...] [--keys N] [--tables N]``.
Tables are drawn
until enough of them have a best optimum that 5 to 25 % of random starts reach: three classes at
level 3, and three classes of five binary items. A csv of categorical columns (such as gss08 of
poLCA) is fitted with four classes. For each, with many keys: the share of starts that reach the
best optimum; how often a search misses it that stops once the best optimum so far has been met
several times, and a thorough one, which takes `jaxmix.model.pool.SURE` random starts to their
end; and what the latter is to miss by ``(1 - share)^SURE``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import jaxmix as jm
from jaxmix.data.categories import codes_of
from jaxmix.model.pool import SURE, TOGETHER, best_first
from jaxmix.model.rows import Rows
from jaxmix.model.search import AGREE, Options, maximise
from jaxmix.model.structure import LEVEL, latent_classes
from jaxmix.model.table import Table
from jaxmix.solvers.compiling import compiled
from jaxmix.tables.files import read_columns
from jaxmix.tables.texts import USUAL

LEAST, MOST = 0.05, 0.25  # of starts that reach the best optimum of a hard table
LOOK = 200  # starts that say whether a table is hard


class Case(NamedTuple):
    """A table, and how many classes are fitted."""

    name: str
    data: Table | Rows
    num_classes: int


@compiled("k", "num", "thorough", "max_steps")
def losses(
    data: Table | Rows, keys: Array, k: int, num: int, thorough: bool, max_steps: int = 500
) -> Array:
    """Return the loss at which a search of `num` random starts ends, for each key."""
    options = Options(k, num, max_steps=max_steps, tolerance=1e-4, thorough=thorough)

    def of(key: Array) -> Array:
        return best_first(data, key, options, min(num, TOGETHER)).loss

    return jax.lax.map(of, keys, batch_size=8)


@compiled("k")
def losses_in_bulk(data: Table, keys: Array, k: int) -> Array:
    """Return the loss at which the rule of simulations ends, without a good first start."""
    options = Options(k, 33, max_steps=500, tolerance=1e-4)

    def of(key: Array) -> Array:
        return maximise(data, jax.random.key_data(key), (), options).loss

    return jax.lax.map(of, keys, batch_size=8)


def tables(rng: np.random.Generator) -> Iterator[Case]:
    """Draw tables of three classes at level 3 without end."""
    while True:
        a, d, k = 2, 3, 3
        gate = rng.dirichlet(np.ones(a * d * k)).reshape(a, d, k)
        of_x = rng.dirichlet(np.ones(d), k).T
        of_y = rng.dirichlet(np.ones(2), (a, k)).transpose(0, 2, 1)
        cells = np.einsum("tzu,xu,tyu->tzxy", gate, of_x, of_y)
        counts = rng.multinomial(500, cells.ravel()).reshape(cells.shape)
        yield Case("level 3, k = 3", Table(jnp.asarray(counts, float), LEVEL[3]), k)


def items(rng: np.random.Generator) -> Iterator[Case]:
    """Draw five binary items of three classes without end."""
    codes = np.stack(np.unravel_index(np.arange(32), (2,) * 5), axis=1)
    while True:
        shares, chances = rng.dirichlet(np.ones(3)), rng.random((5, 3))
        by_item = np.where(codes[:, :, None] == 1, chances, 1 - chances)
        counts = rng.multinomial(300, by_item.prod(1) @ shares)
        rows = Rows.of(latent_classes(5), jnp.asarray(codes), jnp.asarray(counts, float), (2,) * 5)
        yield Case("five items, k = 3", rows, 3)


def of_file(path: str, columns: list[str], k: int = 4) -> Case:
    """Return the items of a csv as a case."""
    frame = read_columns(path, lambda stored: columns or list(stored), None)
    codes, levels, _ = codes_of(frame, list(frame), USUAL)
    distinct, times = np.unique(codes[(codes >= 0).any(1)], axis=0, return_counts=True)
    shape = tuple(len(own) for own in levels.values())
    structure = latent_classes(len(shape))
    rows = Rows.of(structure, jnp.asarray(distinct), jnp.asarray(times, float), shape)
    return Case(f"{path.rsplit('/', 1)[-1]}, k = {k}", rows, k)


def keys_of(seed: int, num: int) -> Array:
    """Return keys."""
    return jax.random.split(jax.random.key(seed), num)


def share_of_best(case: Case, num: int, seed: int) -> tuple[float, float]:
    """Return the share of single starts that reach the best loss among them, and that loss."""
    found = np.asarray(losses(case.data, keys_of(seed, num), case.num_classes, 1, True, 60))
    return float(np.mean(found <= found.min() + AGREE)), float(found.min())


def hard(candidates: Iterator[Case], num: int) -> list[Case]:
    """Return the first `num` candidates whose best optimum is reached by few starts."""
    kept: list[Case] = []
    for index, case in enumerate(candidates):
        if LEAST <= share_of_best(case, LOOK, index)[0] <= MOST:
            kept.append(case._replace(name=f"{case.name}, table {index}"))
        if len(kept) == num:
            return kept
    raise AssertionError


def report(case: Case, num_keys: int) -> tuple[int, int, float]:
    """Print one case; return how often each rule missed its maximum, and what is to be expected."""
    k, keys = case.num_classes, keys_of(10**6, num_keys)
    share, best = share_of_best(case, 1_000, 10**5)
    found = {
        "few": np.asarray(losses(case.data, keys, k, SURE, False)),
        "all": np.asarray(losses(case.data, keys, k, SURE, True)),
    }
    best = min(best, *(own.min() for own in found.values()))
    few, every = (int(np.sum(own > best + AGREE)) for own in found.values())
    expected = (1 - share) ** SURE
    line = f"{case.name:30} {100 * share:8.1f} {100 * few / num_keys:12.1f} "
    line += f"{100 * every / num_keys:10.1f} {100 * expected:10.2f}"
    if isinstance(case.data, Table):
        bulk = np.asarray(losses_in_bulk(case.data, keys, k))
        line += f" {100 * np.mean(bulk > best + AGREE):8.1f}"
    print(line, flush=True)
    return few, every, expected


def main() -> None:
    """Print every case, and all of them together."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("csv", nargs="?")
    parser.add_argument("--columns", default="", help="of the csv; all without")
    parser.add_argument("--keys", type=int, default=200)
    parser.add_argument("--tables", type=int, default=10, help="of each kind")
    asked = parser.parse_args()
    print(f"jaxmix {jm.__version__}; {asked.keys} keys; shares and misses in %")
    print(f"{'':30} of starts   four agree   thorough   expected     bulk")
    columns = asked.columns.split(",") if asked.columns else []
    cases = [of_file(asked.csv, columns)] if asked.csv else []
    for draw in (tables, items):
        cases += hard(draw(np.random.default_rng(0)), asked.tables)
    total = np.sum([report(case, asked.keys) for case in cases], axis=0)
    num = asked.keys * len(cases)
    print(f"all: four agree {100 * total[0] / num:.2f}, thorough {100 * total[1] / num:.2f}, "
          f"expected {100 * total[2] / len(cases):.2f}")  # fmt: skip


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    main()
