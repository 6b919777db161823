"""The fits whose numbers are kept: tables made by numpy, and what is asked of each."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

import jaxmix as jm
from experiments.verdicts.random_tables import rows_of

PLAIN: dict[str, Any] = {"checks": False, "num_resamples": 0}
CLASSES = PLAIN | {"level": 3, "num_classes": 2}
SMALL, ROWS = (2, 3, 3, 2), 40  # one size of table where nothing asks for another


def table(shape: tuple[int, ...], k: int, n: int, seed: int, *, z_to_t: bool = True) -> np.ndarray:
    """Return the counts of a sample whose classes are well apart."""
    rng = np.random.default_rng(seed)
    _, d_z, d_x, _ = shape
    u = np.arange(k)[:, None]

    def peaked(d: int) -> np.ndarray:
        weight = np.exp(-2.5 * np.abs(np.arange(d) * (k - 1) / max(d - 1, 1) - u))
        return weight / weight.sum(1, keepdims=True)

    shares = np.arange(2, k + 2) / np.arange(2, k + 2).sum()
    treated = 0.3 + 0.4 * np.arange(k)[:, None] / max(k - 1, 1)
    treated = treated + 0.1 * z_to_t * np.linspace(-1, 1, d_z)
    of_t = np.stack([1 - treated, treated], 2)
    of_y = np.stack([0.25 + 0.3 * u[:, 0] / k, 0.35 + 0.5 * (u[:, 0] / k) ** 2])
    of_y = np.stack([1 - of_y, of_y], 1)
    p = np.einsum("u,uz,uzt,ux,tyu->tzxy", shares, peaked(d_z), of_t, peaked(d_x), of_y)
    return rng.multinomial(n, p.ravel() / p.sum()).reshape(shape).astype(float)


def with_zeros(seed: int, n: int = 4_000) -> np.ndarray:
    """Return counts in which every class lacks levels of z and x that the other has."""
    rng = np.random.default_rng(seed)
    u = (rng.random(n) < 0.45).astype(int)
    t = (rng.random(n) < np.where(u, 0.7, 0.35)).astype(int)
    proxy = np.array([[0.6, 0.4, 0.0], [0.0, 0.4, 0.6]])
    z, x = ((rng.random(n)[:, None] > np.cumsum(proxy[u], 1)).sum(1).clip(0, 2) for _ in "zx")
    y = (rng.random(n) < 0.2 + 0.3 * u + 0.1 * t + 0.2 * u * t).astype(int)
    counts = np.zeros(SMALL)
    np.add.at(counts, (t, z, x, y), 1.0)
    return counts


def counted(counts: np.ndarray, num_rows: int = ROWS) -> jm.CausalData:
    """Return a table of counts as rows with copies."""
    return jm.CausalData.from_frame(
        rows_of(counts, num_rows), treatment="t", outcome="y", z=["z"], x=["x"],
        features="onehot", weights="copies", weights_kind="frequency",
    )  # fmt: skip


def rows(design: str) -> jm.CausalData:
    """Return 600 rows of a table, with weights or clusters."""
    rng = np.random.default_rng(7)
    counts = table(SMALL, 2, 600, 7)
    places = np.repeat(np.argwhere(counts > 0), counts[counts > 0].astype(int), axis=0)
    t, z, x, y = places.T
    letters = np.array(list("abc"))
    frame = {"t": t, "z": letters[z], "x": letters[x], "y": y}
    more: dict[str, Any] = {}
    if design == "weights":
        frame["w"] = rng.choice([0.5, 1.0, 2.0], len(t))
        more = {"weights": "w", "weights_kind": "sampling"}
    if design == "clusters":
        frame["c"] = rng.integers(0, 60, len(t))
        more = {"cluster": "c"}
    return jm.CausalData.from_frame(
        frame, treatment="t", outcome="y", z=["z"], x=["x"], features="onehot", **more
    )


def linear(covariates: bool = False) -> jm.CausalData:
    """Return 500 rows with two continuous proxies a side."""
    rng = np.random.default_rng(11)
    n = 500
    u = rng.random(n) < 0.5
    w = rng.normal(size=n)
    z1, z2, x1, x2 = (s * u + 0.3 * w + rng.normal(size=n) for s in (2.0, 1.0, 2.0, 1.5))
    t = (rng.random(n) < np.where(u, 0.7, 0.3)).astype(int)
    y = 2.0 * u + t * (1 - 1.5 * u) + 0.4 * w + rng.normal(size=n)
    frame = {"t": t, "y": y, "z1": z1, "z2": z2, "x1": x1, "x2": x2, "w": w}
    more: dict[str, Any] = {"covariates": ["w"]} if covariates else {}
    return jm.CausalData.from_frame(
        frame, treatment="t", outcome="y", z=["z1", "z2"], x=["x1", "x2"], **more
    )


def _regular() -> jm.CausalData:
    return counted(table(SMALL, 2, 3_000, 1))


def _no_arrow() -> jm.CausalData:
    return counted(table(SMALL, 2, 3_000, 2, z_to_t=False))


def _of_zeros(seed: int) -> Callable[[], jm.CausalData]:
    return lambda: counted(with_zeros(seed))


def _resampled(interval: str, **options: Any) -> dict[str, Any]:
    return PLAIN | {"num_resamples": 60, "interval": interval, "seed": 3} | options


CASES: dict[str, tuple[Callable[[], jm.CausalData], dict[str, Any]]] = {
    "4": (_regular, PLAIN | {"level": 4}),
    "4 pooled": (_regular, PLAIN | {"level": 4, "bridge": "pooled"}),
    "4 treated": (_regular, PLAIN | {"level": 4, "estimand": "ATT"}),
    "4 rank 2": (_regular, PLAIN | {"level": 4, "num_classes": 2}),
    "4 percentile": (_regular, _resampled("percentile", level=4)),
    "4 basic poisson": (_regular, _resampled("basic", level=4, resampling="poisson")),
    "4 studentized": (_regular, _resampled("studentized", level=4)),
    "4 bca": (_regular, _resampled("bca", level=4)),
    "4 strata": (_regular, _resampled("normal", level=4, strata="arm")),
    "4 weights": (functools.partial(rows, "weights"), PLAIN | {"level": 4}),
    "4 clusters": (functools.partial(rows, "clusters"), _resampled("auto", level=4)),
    "4 linear": (linear, PLAIN | {"level": 4}),
    "4 covariates": (functools.partial(linear, True), PLAIN | {"level": 4}),
    "4 covariates pooled": (
        functools.partial(linear, True), PLAIN | {"level": 4, "bridge": "pooled"},
    ),
    "4 zeros": (_of_zeros(0), PLAIN | {"level": 4}),
    "3": (_regular, CLASSES),
    "3 lower": (_regular, CLASSES | {"better": "lower"}),
    "3 treated": (_regular, CLASSES | {"estimand": "ATT"}),
    "3 one class": (_regular, CLASSES | {"num_classes": 1}),
    "3 chosen": (_regular, CLASSES | {"num_classes": "auto"}),
    "3 spectral": (_regular, CLASSES | {"method": "spectral"}),
    "3 synthetic": (_regular, CLASSES | {"method": "synthetic"}),
    "3 spectral treated": (_regular, CLASSES | {"method": "spectral", "estimand": "ATT"}),
    "3 checks": (_regular, CLASSES | {"checks": True}),
    "3 checks z to y": (_regular, CLASSES | {"checks": True, "edge": "z_to_y"}),
    "3 percentile": (_regular, CLASSES | _resampled("percentile")),
    "3 bca": (_regular, CLASSES | _resampled("bca")),
    "3 profile, resamples": (_regular, CLASSES | _resampled("auto")),
    "3 weights": (functools.partial(rows, "weights"), CLASSES),
    "3 clusters": (functools.partial(rows, "clusters"), CLASSES | _resampled("auto")),
    "3 linear": (linear, CLASSES),
    "3 linear spectral": (linear, CLASSES | {"method": "spectral"}),
    "3 zeros 0": (_of_zeros(0), CLASSES),
    "3 zeros 1": (_of_zeros(1), CLASSES),
    "3 sixty rows": (lambda: counted(table(SMALL, 2, 60, 3), 25), CLASSES),
    "3 three classes": (
        lambda: counted(table((2, 4, 4, 2), 3, 20_000, 4), 64), CLASSES | {"num_classes": 3},
    ),
    "2": (_no_arrow, CLASSES | {"level": 2}),
    "2 treated": (_no_arrow, CLASSES | {"level": 2, "estimand": "ATT"}),
    "2 checks": (_no_arrow, CLASSES | {"level": 2, "checks": True}),
    "2 linear": (linear, CLASSES | {"level": 2}),
    "auto": (_regular, PLAIN | {"num_classes": 2}),
}  # fmt: skip
"""Builder of the data and options of `jaxmix.fit`, by name."""


def fitted(name: str) -> dict[str, Any]:
    """Return everything that a fit says, but for the versions behind it."""
    build, options = CASES[name]
    record = jm.fit(build(), **options).to_dict()
    for part in (record, record["diagnostics"].get("level_3")):
        for version in ("jax", "jaxmix", "draws") if part else ():
            del part[version]
    return record


def latent(name: str) -> dict[str, Any]:
    """Return everything that a fit of latent classes says, but for the versions behind it."""
    counts = table((2, 3, 4, 2), 2, 2_000, 5)
    codes = np.argwhere(counts > 0)
    letters = np.array(list("abcd"))
    frame: dict[str, Any] = {f"item {v}": letters[codes[:, v]] for v in range(4)}
    if name == "missing":
        gaps = np.random.default_rng(0).random(len(codes)) < 0.2
        frame["item 1"] = np.where(gaps, "", frame["item 1"])
    frame["copies"] = counts[counts > 0].astype(int)
    k = 3 if name == "three" else 2
    record = jm.latent_classes(frame, k, weights="copies").to_dict()
    for version in ("jax", "jaxmix"):
        record.pop(version, None)
    return record


LATENT = ("two", "three", "missing")
"""Fits of latent classes, by name."""
