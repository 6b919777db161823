"""Extremes of many functionals over mixtures of growing strength: starts, statuses, envelopes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from jaxmix.inference.sensitivity.edge import (
    AGREE,
    FIT_SLACK,
    Found,
    Search,
    normalise,
    relabel,
    search,
)
from jaxmix.model.structure import Factors
from jaxmix.solvers.compiling import compiled
from jaxmix.status import Status

_SPREAD = 0.6  # of the logarithms of disturbed probabilities; all starts but one have thrice that
_UNLIMITED = 1e30
_WIDE_ROOM, _NARROW_ROOM = 3e-3, 0.3  # log-likelihood units: per row, and in all


class Problem(NamedTuple):
    """The table that mixtures have to fit, and where the edge to the outcome starts.

    Attributes
    ----------
    cells
        Counts, of at least two arms.
    values
        The outcome's values, scaled to the range 0 to 1.
    edge
        ``"x_to_y"`` or ``"z_to_y"``.
    goals
        ``(m, 1 + 2 k)`` weights of `edge.functionals`: what is minimised and maximised.
    num_starts
        Starts of each search, at least 2.
    """

    cells: Array
    values: Array
    edge: str
    goals: np.ndarray
    num_starts: int


class Extremes(NamedTuple):
    """Smallest and largest values of each goal at one strength.

    Attributes
    ----------
    values
        ``(m, 2)``, NaN where no search ended within its limits.
    status
        ``(m, 2)``.
    """

    values: np.ndarray
    status: np.ndarray


class Ends(NamedTuple):
    """Where the searches of all jobs ended: the smallest values so far, and the mixtures."""

    least: np.ndarray
    mixtures: Factors


def sweep(
    problem: Problem, reference: Factors, strengths: np.ndarray, slack: float, key: Array
) -> Iterator[tuple[Extremes, Extremes, float]]:
    """Yield bounds, intervals and the best deviance so far, at increasing strengths.

    Each strength has three batches of searches: for the best fit, for the bounds, for the
    intervals. They start where those of the strength before ended, at the best fits that were
    met, and at disturbances of these. All batches are one compiled program.

    Parameters
    ----------
    problem
        See `Problem`.
    reference
        The level-3 fit, whose labels all classes take.
    strengths
        Increasing, in units of the values.
    slack
        Log-likelihood units that intervals allow; 0 makes them the bounds.
    key
        JAX key, for disturbed starts.
    """
    jobs = np.concatenate([problem.goals, -problem.goals])
    first = jax.tree.map(lambda part: np.stack([part] * len(jobs)), reference)
    narrow = wide = Ends(np.full(len(jobs), np.inf), first)
    best = np.inf
    for index, strength in enumerate(strengths):
        own = jax.random.fold_in(key, index)
        near_fit = [narrow.mixtures, *_disturbed(own, first, problem.num_starts - 1)]
        fits = _run(problem, near_fit, np.zeros_like(jobs), 1.0, _UNLIMITED, strength)
        best = min(best, float(np.where(fits.feasible, fits.deviance, np.inf).min()))
        met = _best_fits(fits, jobs, best, reference, problem.num_starts - 1)
        starts = [narrow.mixtures, *met]
        bounds, narrow = searched(problem, jobs, starts, best + FIT_SLACK, strength, narrow)
        intervals = bounds
        if slack > 0:
            starts = [narrow.mixtures, wide.mixtures, *met][: problem.num_starts]
            intervals, wide = searched(problem, jobs, starts, best + slack, strength, wide)
        yield bounds, intervals, best


def _run(
    problem: Problem,
    starts: list[Factors],
    jobs: np.ndarray,
    fit_weight: float,
    limit: float,
    strength: float,
) -> Found:
    """Search from all starts of all jobs, those of a job side by side."""
    lanes = len(jobs) * len(starts)
    every = jax.tree.map(lambda *parts: _side_by_side(*parts), *starts)
    wide = max(_WIDE_ROOM * float(problem.cells.sum()), _NARROW_ROOM)
    room = np.where(np.arange(lanes) % len(starts) % 2 == 1, _NARROW_ROOM, wide)
    searches = Search(
        goal=jnp.asarray(np.repeat(jobs, len(starts), axis=0)),
        fit_weight=jnp.asarray(np.full(lanes, fit_weight)),
        limit=jnp.asarray(np.full(lanes, limit)),
        strength=jnp.asarray(np.full(lanes, strength)),
        room=jnp.asarray(room),
    )
    found = search(every, searches, problem.cells, problem.values, problem.edge, width=len(starts))
    result: Found = jax.tree.map(np.asarray, found)
    return result


def _side_by_side(*parts: Array) -> np.ndarray:
    return np.stack(parts, axis=1).reshape(-1, *parts[0].shape[1:])


def searched(
    problem: Problem,
    jobs: np.ndarray,
    starts: list[Factors],
    limit: float,
    strength: float,
    before: Ends,
) -> tuple[Extremes, Ends]:
    """Return the extremes at one strength, and where the searches ended.

    Parameters
    ----------
    problem, jobs
        The table, and directions among the numbers, one for each extreme.
    starts
        Mixtures from which each job is searched.
    limit
        Deviance up to which a mixture fits.
    strength
        Strength of the edge.
    before
        Ends of a smaller strength, which are allowed at this one too.
    """
    found = _run(problem, starts, jobs, 0.0, limit, strength)
    by_job = (len(jobs), len(starts))
    values = found.functionals.reshape(*by_job, -1)
    reached = np.einsum("jsm,jm->js", values, jobs)
    kept = found.feasible.reshape(by_job) & np.isfinite(reached)
    reached = np.where(kept, reached, np.inf)
    least, winner = reached.min(1), reached.argmin(1)
    some = np.isfinite(least)
    agree = found.converged.reshape(by_job) & (reached <= least[:, None] + AGREE)
    broken = np.all(~np.isfinite(found.deviance.reshape(by_job)), axis=1)
    status = np.select(
        [broken, ~some, agree.sum(1) < 2],
        [int(Status.NONFINITE), int(Status.MAX_STEPS), int(Status.STARTS_DISAGREE)],
        int(Status.SUCCESS),
    )
    # A mixture within a strength is within every larger one: the extremes so far count.
    so_far = np.minimum(before.least, least)
    shown = np.where(some, so_far, np.nan)
    values = np.stack(np.split(shown, 2), axis=1) * np.array([1.0, -1.0])
    lane = np.arange(len(jobs)) * len(starts) + winner
    ended = jax.tree.map(
        lambda new, old: np.where(some.reshape(-1, *[1] * (old.ndim - 1)), new[lane], old),
        found.parts,
        before.mixtures,
    )
    return Extremes(values, np.stack(np.split(status, 2), axis=1)), Ends(so_far, ended)


def _best_fits(
    fits: Found, jobs: np.ndarray, best: float, reference: Factors, count: int
) -> list[Factors]:
    """Return for each job the best fits that come closest to its goal, labelled as `reference`.

    Searches that ended in worse fits come last.
    """
    mixtures, values = jax.tree.map(np.asarray, relabel(fits.parts, fits.functionals, reference))
    worse = ~fits.feasible | (fits.deviance > best + FIT_SLACK)
    order = np.argsort(np.where(worse, np.inf, jobs @ values.T), axis=1)
    # Not the closest ones alone: starts far apart see more.
    places = np.linspace(0, max(int((~worse).sum()) - 1, 0), count).round().astype(int)
    return [
        jax.tree.map(lambda part, chosen=order[:, place]: part[chosen], mixtures)
        for place in places
    ]


def _disturbed(key: Array, mixtures: Factors, count: int) -> list[Factors]:
    """Return disturbed copies of mixtures: probabilities times exponentials of normal numbers."""
    return [
        _disturb(jax.random.fold_in(key, j), mixtures, _SPREAD * (3 if j else 1))
        for j in range(count)
    ]


@compiled()
def _disturb(key: Array, mixtures: Factors, spread: float) -> Factors:
    flat, unravel = ravel_pytree(mixtures)
    moved = flat * jnp.exp(spread * jax.random.normal(key, flat.shape, flat.dtype))
    return jax.vmap(normalise)(unravel(moved))
