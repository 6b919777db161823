"""Random tables with the traps that people's own have, and a tally of what is wrong with them."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

SHAPE = (2, 3, 3, 2)
CHUNK = 2_000
MISSED = "search:"  # begins what is a miss of a search by random starts, and no contradiction


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


def chunks(num: int, seed: int, shape: tuple[int, ...], k: int) -> Iterator[np.ndarray]:
    """Yield batches of tables of one size, so that they are compiled once."""
    rng = np.random.default_rng(seed)
    for start in range(0, num, CHUNK):
        del start
        found = (draw(rng, shape, k) for _ in iter(int, 1))
        yield np.stack(list(itertools.islice(filter(has_two_arms, found), CHUNK)))


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


def gap_of(a: Any, b: Any) -> np.ndarray:
    """Return the largest difference of two trees by table."""
    parts = jax.tree.map(
        lambda x, y: np.abs(np.asarray(x) - np.asarray(y)).reshape(len(x), -1).max(1), a, b
    )
    return np.max(jax.tree.leaves(parts), axis=0)


def finite(numbers: dict[str, np.ndarray]) -> np.ndarray:
    """Return in which tables every number is finite."""
    return np.all([np.isfinite(v).reshape(len(v), -1).all(1) for v in numbers.values()], axis=0)


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
            kind = "misses" if what.startswith(MISSED) else "contradictions"
            print(f"  {what}: {self.found[what]:,} {kind} in {count:,}")
        for what, example in self.examples.items():
            print(f"  first of {what!r}: {example}")
        return any(not what.startswith(MISSED) for what in self.found)
