"""Level 4 and latent classes against plain numpy, on the tables of `random_tables`."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxmix as jm
from experiments.verdicts.random_tables import (
    MISSED,
    SHAPE,
    Tally,
    chunks,
    finite,
    gap_of,
)
from jaxmix import Status
from jaxmix.estimators import latent
from jaxmix.fitting.latent_classes import contradictions

ORACLES = 100  # tables whose latent classes are found again by EM in numpy
STEP = 1e-3  # change of the counts in central differences, in units of their noise
CLEAR = 1e-6  # singular value, relative to the largest, that no rule of ranks doubts


@functools.cache
def _bridge(estimand: str, rank: int | None) -> dict[str, Callable]:
    def estimate(cells: jax.Array) -> tuple[dict[str, jax.Array], jax.Array]:
        moments = jm.moments.from_counts(cells)
        sol = jm.bridge.solve(moments, rank=rank, estimand=estimand)
        return {"effect": sol.value.effect, "means": sol.value.means}, sol.status

    def slopes(cells: jax.Array) -> tuple[Any, Any]:
        def effect(cells: jax.Array) -> tuple[jax.Array, Any]:
            found, _ = estimate(cells)
            return found["effect"], found

        (_, found), slope = jax.value_and_grad(effect, has_aux=True)(cells)
        return found, slope

    return {"estimate": jax.jit(jax.vmap(estimate)), "slopes": jax.jit(jax.vmap(slopes))}


def bridges(num: int, seed: int, estimand: str, rank: int | None) -> bool:
    """Cross-examine the outcome bridge; return whether a contradiction was found."""
    tally, began, run = Tally(), time.perf_counter(), _bridge(estimand, rank)
    for index, batch in enumerate(chunks(num, seed, SHAPE, 2)):
        cells = jnp.asarray(batch)
        found, status = jax.tree.map(np.asarray, run["estimate"](cells))
        usable = status < Status.MAX_STEPS
        tally.statuses.update(Status(int(s)).name for s in status)

        count = functools.partial(_count, tally, batch)
        count("numbers are finite", ~finite(found), usable)
        count("the effect is within the range", ~(np.abs(found["effect"]) <= 1 + 1e-9), usable)
        contrast = found["means"][:, 1] - found["means"][:, 0]
        count("the effect is that of the means", contrast != found["effect"], usable)
        also, slope = jax.tree.map(np.asarray, run["slopes"](cells))
        size = np.maximum(1.0, np.abs(found["means"]).max(1))
        count("differentiated = plain", ~(gap_of(also, found) < 1e-9 * size), usable)
        count("errors exist", ~finite({"slope": slope}), usable)
        effects, clear = _bridge_in_numpy(batch, estimand, rank)
        wrong = ~(np.abs(effects - found["effect"]) < 1e-6)
        count("numpy's effect", wrong, usable & clear)
        count("full rank is no RANK_DEFICIENT", status == Status.RANK_DEFICIENT, clear)
        # Proportional changes, which keep the zeros of a table, and the rank that they leave it.
        rng = np.random.default_rng([seed, index])
        way = rng.normal(size=batch.shape) * np.sqrt(batch) * STEP
        up, down = (np.asarray(run["estimate"](cells + s * way)[0]["effect"]) for s in (1, -1))
        predicted = (slope * way).sum((1, 2, 3, 4))
        error = np.sqrt((batch * slope**2).sum((1, 2, 3, 4)))
        # Where the middle of both ends is not the estimate, the step was too long for a table
        # that is nearly singular.
        room = 0.02 * STEP * error + 1e-10
        smooth = usable & clear & (error < 0.25)
        smooth &= np.abs((up + down) / 2 - found["effect"]) < room
        wrong = ~(np.abs((up - down) / 2 - predicted) < room)
        count("errors = central differences", wrong, smooth)
    name = f"level 4, {estimand}, " + ("all of the rank" if rank is None else f"rank {rank}")
    return tally.report(name, num, time.perf_counter() - began)


def _bridge_in_numpy(
    batch: np.ndarray, estimand: str, rank: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return effects by plain singular values, and where every rule agrees on the rank."""
    effects, clear = np.full(len(batch), np.nan), np.zeros(len(batch), bool)
    for i, cells in enumerate(batch):
        p = cells / cells.sum()
        zx, zy, arms = p.sum(3), p[..., 1].sum(2), p.sum((1, 2, 3))
        needed = [0] if estimand == "ATT" else [0, 1]
        kept = zx.shape[1] if rank is None else rank
        means = np.zeros(2)
        sharp = True
        for t in needed:
            left, s, right = np.linalg.svd(zx[t])
            sharp &= bool(s[kept - 1] > CLEAR * s[0])
            if kept < len(s):
                sharp &= bool(s[kept] < 0.9 * s[kept - 1])
            with np.errstate(divide="ignore", invalid="ignore"):
                inverse = (right[:kept].T / s[:kept]) @ left[:, :kept].T
                centred = zy[t] - p[..., 1].sum() * zx[t].sum(1)
                weights = zx.sum((0, 1)) if estimand == "ATE" else zx[1].sum(0) / arms[1]
                means[t] = p[..., 1].sum() + weights @ inverse @ centred
        if estimand == "ATT":
            means[1] = p[1, ..., 1].sum() / arms[1]
        effects[i], clear[i] = means[1] - means[0], sharp
    return effects, clear


def _count(tally: Tally, tables: np.ndarray, what: str, wrong: np.ndarray, of: np.ndarray) -> None:
    """Count the tables among `of` for which something is wrong."""
    places = np.flatnonzero(of)
    tally.add(what, wrong[of], lambda i: tables[places[i]].tolist())


def _at(tree: Any, i: int) -> Any:
    return jax.tree.map(lambda part: part[i], tree)


@functools.cache
def _latent(codes: tuple[tuple[int, ...], ...], levels: tuple[int, ...], k: int) -> Callable:
    rows = jnp.asarray(codes)
    return jax.jit(jax.vmap(lambda counts, key: latent.solve(rows, counts, levels, k, key=key)))


def latent_tables(num: int, seed: int, k: int = 2) -> bool:
    """Cross-examine latent classes of z, x and y; return whether a contradiction was found."""
    from tests import likelihood_oracles as oracle

    levels = SHAPE[1:]
    codes = np.argwhere(np.ones(levels))
    tally, began = Tally(), time.perf_counter()
    run = _latent(tuple(map(tuple, codes.tolist())), levels, k)
    for index, batch in enumerate(chunks(num, seed, SHAPE, k)):
        counts = batch.sum(1).reshape(len(batch), -1)
        keys = jax.random.split(jax.random.key(seed), len(batch))
        sol = jax.tree.map(np.asarray, run(jnp.asarray(counts), keys))
        tally.statuses.update(Status(int(s)).name for s in sol.status)
        usable = sol.status < Status.MAX_STEPS
        regular = usable & (sol.status != Status.NOT_IDENTIFIED)
        count = functools.partial(_count, tally, counts)
        own = [
            bool(
                contradictions(
                    _at(sol.value, i), sol.stats["log_likelihood"][i], codes[row > 0], row[row > 0]
                )
            )
            for i, row in enumerate(counts)
        ]
        count("shares, ranges and log-likelihood", np.array(own), usable)
        count("converged", ~(sol.stats["decrement"] < 1e-4), regular)
        count("the saturated model fits better", ~(sol.stats["g2"] > -1e-6), usable)
        for i in np.flatnonzero(regular)[: ORACLES if index == 0 else 0]:
            one = np.arange(len(batch)) == i
            value, shares, *_ = oracle.em_latent_classes(
                codes, counts[i], k, np.random.default_rng(seed)
            )
            gain = value - sol.stats["log_likelihood"][i]
            count(f"{MISSED} no better maximum in numpy", one & (gain > 1e-3), one)
            if abs(gain) < 1e-7:
                gap = np.abs(np.sort(shares)[::-1] - sol.value.shares[i]).max()
                count("the oracle's shares", one & ~(gap < 1e-3), one)
    return tally.report(f"latent classes, {k}", num, time.perf_counter() - began)
