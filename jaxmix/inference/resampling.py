"""Bootstrap resamples: drawn by index, estimated in chunks, aligned to the estimate."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from jaxmix import arguments
from jaxmix.choices import RESAMPLINGS
from jaxmix.data.roles import CausalData
from jaxmix.inference.asymptotic import Linearized, by_name, chosen, slopes
from jaxmix.sample import moments
from jaxmix.sample.features import Views, encode
from jaxmix.sample.moments import Moments
from jaxmix.sample.resamples import resampled, resamplers
from jaxmix.sample.resamples.resamplers import Resampler
from jaxmix.sample.sample import Sample
from jaxmix.solvers.compiling import compiled
from jaxmix.status import InputError

_ROOM = 1 << 23  # numbers of moments held at once (64 MiB in float64)
_MAX_CHUNK = 1024  # resamples evaluated at once
_BLOCKS_WATCHED = 50  # blocks between which a progress callback is called

Statistic = Callable[[Moments], object]
Progress = Callable[[int, int], None]


def bootstrap(
    statistic: Statistic,
    data: CausalData | Views | Float[Array, "a d_z d_x d_y"],
    *,
    key: Array,
    num_resamples: int,
    kind: str | None = None,
    outcome_values: Float[Array, " d_y"] | None = None,
    strata: object = None,
    errors: tuple[str, ...] = (),
    chunk_size: int | None = None,
    progress: Progress | None = None,
) -> Any:
    """Evaluate a statistic of the moments on bootstrap resamples.

    Resample i is drawn by ``fold_in(key, i)``, so that neither chunks nor the number of
    resamples change a draw; `jaxmix.sample.resamples.draws` says how.

    Parameters
    ----------
    statistic
        From `jaxmix.moments.Moments` to a pytree of arrays; pure, and hashable to be compiled
        once. A `jax.tree_util.Partial` of one may hold arrays, such as where to start from.
    data
        A table (`CausalData`), its `Views`, or counts for `jaxmix.moments.from_counts`.
    key
        JAX key.
    num_resamples
        Number of resamples.
    kind
        See `jaxmix.sample.resamples.draws`; by default multinomial for counts and for rows with
        multiplicities, Bayesian otherwise.
    outcome_values
        For a table of counts, as in `jaxmix.moments.from_counts`.
    strata
        Labels of rows (or of the cells of a table), within which to draw; see
        `jaxmix.sample.resamples.draws`.
    errors
        Names among a statistic that is a dict, whose standard errors within each resample are
        wanted too (see `spread`).
    chunk_size
        Resamples evaluated at once; bounded by memory by default.
    progress
        Called with (resamples done, resamples in all) between blocks.

    Returns
    -------
    pytree
        The statistic's, each array with a leading axis of resamples; with `errors` a pair of it
        and of a dict of standard errors.

    References
    ----------
    Efron (1979), Annals of Statistics 7; Hanley, MacGibbon (2006) on Poisson weights; Rubin
    (1981), Annals of Statistics 9.

    Examples
    --------
    >>> import jax, jaxmix as jm
    >>> counts = jm.populations.paper_main().counts(jax.random.key(0), 10_000)
    >>> def effect(m):
    ...     return jm.synthetic.effect_law(m, 2).mean
    >>> draws = bootstrap(effect, counts, key=jax.random.key(1), num_resamples=200)
    >>> draws.shape
    (200,)
    """
    _check_arguments(statistic, key, num_resamples, errors, chunk_size, progress)
    if kind is not None:
        arguments.choice("kind", kind, RESAMPLINGS, f"use one of {', '.join(RESAMPLINGS)}")
    if isinstance(data, CausalData):
        data = encode(data, reduce=True)
    if not isinstance(data, Views):
        data = moments.as_inexact(_checked_counts(data))
    resampler = resamplers.resampler(data, outcome_values, strata)
    if not isinstance(statistic, jax.tree_util.Partial):
        statistic = jax.tree_util.Partial(statistic)
    kind = kind or ("multinomial" if resampler.repeated else "bayesian")
    chunk = min(chunk_size or _MAX_CHUNK, num_resamples)
    per_block = _block_size(
        resampler, num_resamples, chunk if chunk_size else 0, bool(progress), bool(errors)
    )
    results = []
    for start in range(0, num_resamples, per_block):
        # Every block has one shape, so that it is compiled once; the surplus is cut off.
        indices = jnp.arange(start, start + per_block)
        if errors:
            times, found = resampled.drawn(resampler, key, indices, kind=kind)
            values, slopes = _evaluate(statistic, found, errors, chunk)
            assert slopes is not None
            values = values, _errors(resampler, times, slopes, found, values, errors)
        else:
            found = resampled.resampled(resampler, key, indices, kind=kind)
            values, _ = _evaluate(statistic, found, errors, chunk)
        results.append(values)
        if progress:
            jax.block_until_ready(values)
            progress(min(start + per_block, num_resamples), num_resamples)
    if len(results) == 1 and per_block == num_resamples:
        return results[0]
    return jax.tree.map(lambda *parts: jnp.concatenate(parts)[:num_resamples], *results)


def _block_size(
    resampler: Resampler, num_resamples: int, multiple: int, watched: bool, held: bool
) -> int:
    """Return how many resamples have their moments, and their draws if `held`, at hand at once."""
    # Beside draws go the derivatives of about as many numbers as an estimate has.
    numbers = resampler.num_numbers
    most = max(1, _ROOM // (max(16 * numbers, resampler.num_units) if held else numbers))
    if watched:
        # Where rows are many a block is the fewer resamples, so that progress is seen.
        steps = num_resamples / max(1, _ROOM // resampler.num_rows)
        steps = min(_BLOCKS_WATCHED, max(steps, num_resamples / multiple if multiple else 1))
        most = min(most, math.ceil(num_resamples / steps))
    size = math.ceil(num_resamples / math.ceil(num_resamples / most))
    return math.ceil(size / multiple) * multiple if multiple else size


def _check_arguments(
    statistic: object,
    key: object,
    num_resamples: object,
    errors: object,
    chunk_size: object,
    progress: object,
) -> None:
    """Refuse arguments of the wrong kind, which would fail deep inside a compiled program."""
    if not callable(statistic):
        told = arguments.told(statistic)
        raise InputError(f"statistic is {told}: give a function of moments")
    arguments.key(key)
    arguments.whole("num_resamples", num_resamples, least=1)
    if chunk_size is not None:
        arguments.whole("chunk_size", chunk_size, least=1)
    names = isinstance(errors, tuple) and all(isinstance(name, str) for name in errors)
    if not names:
        raise InputError(f"errors is {arguments.told(errors)}: give a tuple of names")
    arguments.callback("progress", progress)


def _checked_counts(data: object) -> Array:
    what = "give a CausalData, its views, or counts by treatment, z, x and outcome"
    if not isinstance(data, jax.Array):
        numbers = arguments.array("data", data, what)
        data = data if isinstance(data, np.ndarray) and data.dtype.kind in "biuf" else numbers
    cells = jnp.asarray(data)
    if cells.ndim != 4:
        raise InputError(f"data, a table of counts, has {cells.ndim} directions, not 4: {what}")
    return cells


@compiled("names", "size")
def _evaluate(
    statistic: Statistic, found: Moments, names: tuple[str, ...], size: int
) -> tuple[Any, Moments | None]:
    """Return a statistic of each resample, and the derivatives of the numbers that have errors."""

    def one(own: Moments) -> tuple[Any, Moments | None]:
        return slopes(statistic, own, names) if names else (statistic(own), None)

    evaluated: tuple[Any, Moments | None] = resampled.for_each(one, found, size)
    return evaluated


@compiled("names")
def _errors(
    resampler: Resampler, times: Array, slopes: Moments, found: Moments, values: dict[str, Array],
    names: tuple[str, ...],
) -> dict[str, Array]:  # fmt: skip
    """Return the standard errors within each resample by name."""
    se, _ = resampled.spread_within(resampler, times, slopes, found)
    return by_name(se, chosen(values, names), axes=1)


def spread(
    statistic: Statistic, views: Views, names: tuple[str, ...], strata: object = None
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return standard errors and accelerations by the influence of units, in strata or not.

    ``se^2 = sum_i m_i I_i^2`` with I_i the derivative of the statistic in m_i, how often the row
    (or cluster) occurs, minus its mean in the stratum. Those of a resample are of a sample of the
    observed size.

    Parameters
    ----------
    statistic
        From `Moments` to a dict of arrays, differentiable.
    views
        The rows.
    names
        Those of its numbers that are wanted.
    strata
        Labels of rows, within which units are drawn; or None.

    Returns
    -------
    errors, accelerations
        By name; see `jaxmix.sample.resamples.resamplers.acceleration`.

    References
    ----------
    Jaeckel (1972), "The infinitesimal jackknife"; Davison, Hinkley (1997), section 3.2 on strata.

    Examples
    --------
    >>> import jax.numpy as jnp, jaxmix as jm
    >>> table = {"t": [0, 1] * 8, "y": [1, 2, 4, 4] * 4}
    >>> table |= {"z": [0, 0, 1, 1] * 4, "x": [1, 0, 0, 1] * 4}
    >>> data = jm.CausalData.from_frame(table, treatment="t", outcome="y", z=["z"], x=["x"])
    >>> views = jm.features.encode(data)
    >>> def treated(m):
    ...     return {"share": m.arm_probabilities[1]}
    >>> round(float(spread(treated, views, ("share",))[0]["share"]), 6)
    0.125
    >>> float(spread(treated, views, ("share",), strata=views.t)[0]["share"])
    0.0
    """
    if not isinstance(statistic, jax.tree_util.Partial):
        statistic = jax.tree_util.Partial(statistic)
    errors, skew = Linearized(statistic, Sample(views)).spread(strata)
    return chosen(errors, names), chosen(skew, names)


def align(
    profile: Float[Array, "p k"], reference: Float[Array, "p k"]
) -> tuple[Int[Array, " k"], Bool[Array, ""]]:
    """Match the classes of a resample to those of the estimate by their whole profiles.

    Parameters
    ----------
    profile, reference
        ``(p, k)``: numbers that describe each class (means, share, proxy profile), on
        comparable scales.

    Returns
    -------
    order
        ``(k,)``: class ``order[u]`` of the resample is class u of the estimate; the assignment
        with the smallest sum of squared distances.
    ambiguous
        Whether two classes of the estimate have the same nearest class in the resample.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> order, ambiguous = align(jnp.array([[5.0, 1.0]]), jnp.array([[1.1, 4.0]]))
    >>> order.tolist(), bool(ambiguous)
    ([1, 0], False)
    """
    cost = jnp.sum((reference[:, :, None] - profile[:, None, :]) ** 2, axis=0)
    cost = jnp.where(jnp.isfinite(cost), cost, 1e6)
    rows, columns = optax.assignment.hungarian_algorithm(cost)
    order = jnp.zeros(cost.shape[0], jnp.int32).at[rows].set(columns.astype(jnp.int32))
    nearest = jnp.sort(jnp.argmin(cost, axis=1))
    return order, jnp.any(nearest[1:] == nearest[:-1])
