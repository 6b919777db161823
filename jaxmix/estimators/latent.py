"""Latent classes by maximum likelihood: any number of categorical views, with a treatment or not.

Without a treatment it is classical latent class analysis; with views Z (by treatment), X and Y (by
treatment) it is level 3. The model and its numerics are in `jaxmix.estimators.rows`.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxmix.model.rows import (
    Layout,
    Rows,
    Theta,
    em_step,
    logs,
    loss,
    newton_step,
    rank_of,
    responsibility,
    retract,
    settle_down,
)
from jaxmix.model.settling import SETTLED
from jaxmix.solvers.compiling import compiled
from jaxmix.solvers.implicit import at_root
from jaxmix.solvers.minimise import damped, minimise
from jaxmix.status import Solution, Status, settle, where, worst

AGREE = 0.01
"""Log-likelihood units within which optima count as the same."""

_EM_STEPS = 20
_RANDOM_STEPS = 60  # second-order steps of every start; the best one may take more
_EXACT_BELOW = 1.0  # predicted gain, in log-likelihood units, where exact curvature is tried
_ROUND = 8  # starts that climb together
_ENOUGH = 4  # starts that have to agree on the best optimum
_MOST_NUMBERS = 2**21  # scores of rows held at once; starts beyond that take turns


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LatentClasses:
    """Shares and class profiles; classes by decreasing share.

    Attributes
    ----------
    shares
        ``(k,)`` P(U=u).
    profiles
        One per view: ``(d, k)`` P(C=c | U=u), or ``(a, d, k)`` P(C=c | T=t, U=u) where the view
        depends on the treatment.
    arm_profile
        ``(a, k)`` P(T=t | U=u), or None without a treatment.
    """

    shares: Float[Array, " k"]
    profiles: tuple[Array, ...]
    arm_profile: Float[Array, "a k"] | None = None


def _split(theta: Theta, layout: Layout) -> LatentClasses:
    """Return the classes, by decreasing share."""
    theta = theta[:, jnp.argsort(-theta[0])]
    ends = np.cumsum([1] + [count * d for count, d in layout.views])
    parts = [theta[ends[i] : ends[i + 1]] for i in range(len(layout.views))]
    profiles = tuple(
        part.reshape(layout.num_arms, -1, layout.num_classes) if flag else part
        for part, flag in zip(parts, layout.by_treatment, strict=False)
    )
    return LatentClasses(theta[0], profiles, parts[-1] if layout.treated else None)


def _join(classes: LatentClasses) -> Theta:
    """Return theta of the classes."""
    k = len(classes.shares)
    parts = [classes.shares, *classes.profiles]
    parts += [] if classes.arm_profile is None else [classes.arm_profile]
    return jnp.concatenate([part.reshape(-1, k) for part in parts])


def _climb(theta: Theta, rows: Rows, layout: Layout, tolerance: float, max_steps: Any) -> Any:
    def step(theta: Theta, damping: Array, exact: Array) -> tuple[Theta, Array]:
        return newton_step(theta, rows, damping, exact, layout)

    found = minimise(
        lambda theta: loss(theta, rows),
        theta,
        damped(step, functools.partial(retract, layout=layout), exact_below=_EXACT_BELOW),
        tolerance=tolerance,
        max_steps=max_steps,
    )
    return found.params, found.value, found.status == Status.SUCCESS, found.steps


def _search(
    rows: Rows, key: Array, layout: Layout, num_starts: int, tolerance: float, max_steps: int
) -> tuple[Theta, Array, Array, Array, Array]:
    """Climb from the starts, best first after EM, until the best optimum has been met enough.

    Returns theta, loss (infinite where not tried), whether the tolerance was met and steps of
    every start, and how many were tried.
    """
    numbers = rows.hot.size * layout.num_classes
    together = max(1, min(num_starts, _ROUND, _MOST_NUMBERS // max(numbers, 1)))

    def begin(index: Array) -> tuple[Theta, Array]:
        shape = (rows.hot.shape[1], layout.num_classes)
        drawn = jax.random.exponential(jax.random.fold_in(key, index), shape, rows.counts.dtype)
        theta = jax.lax.fori_loop(
            0, _EM_STEPS, lambda _, theta: em_step(theta, rows, layout), layout.normalise(drawn)
        )
        return theta, loss(theta, rows)

    thetas, losses = jax.lax.map(begin, jnp.arange(num_starts), batch_size=together)
    thetas = thetas[jnp.argsort(losses)]  # NaN comes last

    def search(carry: Any) -> Array:
        tried, (_, losses, _, _) = carry
        agree = jnp.sum(losses <= losses.min() + AGREE)
        found: Array = (tried == 0) | ((tried < num_starts) & (agree < _ENOUGH))
        return found

    def unfinished(carry: Any) -> Array:
        _, (_, losses, done, steps) = carry
        best = _best(losses, done, tolerance)
        going = ~done[best] & jnp.isfinite(losses[best]) & (steps[best] < max_steps)
        found: Array = search(carry) | going
        return found

    def body(carry: Any) -> Any:
        tried, (thetas, losses, done, steps) = carry
        searching = search(carry)
        # The last round may work on its last start more than once, to the same end; and after
        # the search the best start goes on alone if it has not met the tolerance.
        own = jnp.minimum(tried + jnp.arange(together), num_starts - 1)
        own = jnp.where(searching, own, _best(losses, done, tolerance))
        cap = jnp.where(searching, min(_RANDOM_STEPS, max_steps), max_steps - steps[own[0]])

        def climb(theta: Theta) -> Any:
            theta, value, done, steps = _climb(theta, rows, layout, tolerance, cap)
            return theta, jnp.where(jnp.isfinite(value), value, jnp.inf), done, steps

        theta, value, met, more = jax.vmap(climb)(thetas[own])
        found = (
            thetas.at[own].set(theta),
            losses.at[own].set(value),
            done.at[own].set(met),
            steps.at[own].set(steps[own] + more),
        )
        return jnp.minimum(tried + together, num_starts), found

    empty = jnp.zeros(num_starts, jnp.int32)
    first = (thetas, jnp.full_like(losses, jnp.inf), empty.astype(bool), empty)
    tried, found = jax.lax.while_loop(unfinished, body, (jnp.int32(0), first))
    return *found, tried


def _best(losses: Array, done: Array, tolerance: float) -> Array:
    """Return the best start; among those that end alike, one that met the tolerance."""
    alike = jnp.where(done & (losses <= losses.min() + tolerance), losses, jnp.inf)
    return jnp.where(jnp.any(jnp.isfinite(alike)), jnp.argmin(alike), jnp.argmin(losses))


@functools.lru_cache(maxsize=256)
def _stationarity(layout: Layout) -> Any:
    def residual(vector: Array, args: Rows) -> Array:
        theta = vector.reshape(-1, layout.num_classes)
        # A fixed point of EM; probabilities at 0 stay there.
        moved = jnp.where(theta > 0, theta - em_step(theta, args, layout), theta)
        return moved.reshape(-1)

    return residual


@compiled(
    "num_levels", "k", "num_arms", "by_treatment", "num_starts", "max_steps", "tolerance",
)  # fmt: skip
def solve(
    codes: Int[Array, "m v"],
    counts: Array,
    num_levels: tuple[int, ...],
    k: int,
    *,
    key: Array,
    t: Int[Array, " m"] | None = None,
    num_arms: int = 1,
    by_treatment: tuple[bool, ...] | None = None,
    num_starts: int = 32,
    max_steps: int = 500,
    tolerance: float = 1e-4,
) -> Solution[LatentClasses]:
    """Fit latent classes by maximum likelihood.

    Random starts, EM from each, then damped second-order steps in the probabilities themselves
    until the predicted gain is below the tolerance. Assumes that the views are independent given
    the class (and the treatment), and that cells are missing at random.

    Parameters
    ----------
    codes
        ``(m, v)`` level of each row in each view, from 0; -1 where it is missing.
    counts
        ``(m,)`` how often each row occurs; the dtype of the computation where it is floating.
    num_levels
        Levels of each view.
    k
        Number of classes.
    key
        JAX key of the starts.
    t
        ``(m,)`` arm of each row from 0, never missing; None without a treatment.
    num_arms
        Number of arms.
    by_treatment
        Which views depend on the treatment given the class; None for none.
    num_starts
        Most random starts: all take EM steps, and the better ones go on first, until one optimum,
        the best so far, has been met four times.
    max_steps
        Most second-order steps of the start that is returned.
    tolerance
        Predicted gain at which steps stop, in log-likelihood units.

    Returns
    -------
    Solution
        ``value`` is `LatentClasses`, by decreasing share; differentiable in the counts, by the
        implicit function theorem. In stats: ``log_likelihood``, ``num_parameters``, ``g2``
        (against free probabilities of the distinct rows; a goodness of fit where no cell is
        missing), ``df`` (the smaller of the number of rows and of the cells less 1, less the
        parameters), ``decrement`` (predicted gain left), ``steps``, ``num_starts`` (that went on
        beyond EM), ``num_agree`` (of these, within `AGREE` of the best), ``runner_up`` (gap to
        the best other optimum), ``num_free`` (parameters not held at 0), ``rank`` (of the
        information in these; see `jaxmix.estimators.rows.rank_of`). Statuses: BOUNDARY (a
        probability is 0), NOT_IDENTIFIED (rank below num_free), STARTS_DISAGREE, MAX_STEPS,
        NONFINITE.

    Raises
    ------
    ValueError
        For arguments that do not fit together.

    References
    ----------
    Goodman (1974), Biometrika 61; Linzer, Lewis (2011), Journal of Statistical Software 42(10);
    Dempster, Laird, Rubin (1977), JRSS B 39.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> codes = jnp.array([[0, 0, 0], [1, 1, 1], [0, 1, 0], [1, 0, 1]])
    >>> sol = solve(codes, jnp.array([45.0, 35.0, 10.0, 10.0]), (2, 2, 2), 1, key=jax.random.key(0))
    >>> [round(float(v), 3) for v in sol.value.profiles[0][:, 0]]
    [0.55, 0.45]
    """
    v = len(num_levels)
    by_treatment = (False,) * v if by_treatment is None else tuple(by_treatment)
    if codes.ndim != 2 or codes.shape[1] != v or len(by_treatment) != v or v == 0:
        raise ValueError(
            f"codes has shape {codes.shape}, num_levels {v} entries and by_treatment "
            f"{len(by_treatment)}: give one of each per view"
        )
    if k < 1 or num_starts < 1 or min(num_levels) < 1:
        raise ValueError("k, num_starts and num_levels are at least 1")
    if t is None and (any(by_treatment) or num_arms > 1):
        raise ValueError("views depend on a treatment, or arms were named, but t is None")
    layout = Layout(k, tuple(num_levels), by_treatment, num_arms, t is not None)
    counts = counts if jnp.issubdtype(counts.dtype, jnp.floating) else counts.astype(float)
    rows = Rows(layout.hot(codes, t).astype(counts.dtype), counts)
    fixed = jax.lax.stop_gradient(rows)
    shape = (rows.hot.shape[1], k)
    num_starts = num_starts if k > 1 else 1

    thetas, losses, done, steps, tried = _search(
        fixed, key, layout, num_starts, tolerance, max_steps
    )
    best = _best(losses, done, tolerance)
    theta, least = thetas[best], losses[best]
    theta, decrement = settle_down(theta, fixed, layout)
    rank, num_free = rank_of(theta, fixed, layout, tolerance)
    theta = jax.lax.stop_gradient(theta)
    flat = rank < num_free
    theta = at_root(_stationarity(layout), theta.reshape(-1), rows, flat).reshape(shape)
    agree = jnp.sum(losses <= least + AGREE)
    others = jnp.where(losses > least + AGREE, losses, jnp.inf)
    log_p, seen = logs(theta, rows.hot)[0], counts != 0
    log_likelihood = jnp.sum(jnp.where(seen, counts * jnp.where(seen, log_p, 0.0), 0.0))
    most = float(min(layout.num_cells - 1, 2**53))
    stats = {
        "log_likelihood": log_likelihood,
        "g2": 2 * loss(theta, rows),
        "num_parameters": jnp.asarray(layout.num_parameters),
        "df": jnp.minimum(counts.sum(), most) - layout.num_parameters,
        "decrement": decrement,
        "steps": steps[best],
        "num_starts": tried,
        "num_agree": agree,
        "runner_up": others.min() - least,
        "num_free": num_free,
        "rank": rank,
    }
    status = worst(
        where(jnp.any(theta == 0), Status.BOUNDARY),
        where((tried > 1) & (agree < 2), Status.STARTS_DISAGREE),
        where(flat, Status.NOT_IDENTIFIED),
        where(~done[best] | (~flat & ~(decrement < max(tolerance, SETTLED))), Status.MAX_STEPS),
        where(~jnp.isfinite(least), Status.NONFINITE),
    )
    return Solution(_split(theta, layout), settle(status, (theta, log_likelihood)), stats)


def posterior(
    classes: LatentClasses, codes: Int[Array, "m v"], t: Int[Array, " m"] | None = None
) -> Float[Array, "m k"]:
    """Return ``P(U=u | row)``; NaN for a row that no class can produce.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> classes = LatentClasses(jnp.array([0.5, 0.5]), (jnp.array([[0.9, 0.1], [0.1, 0.9]]),))
    >>> [round(float(v), 2) for v in posterior(classes, jnp.array([[0]]))[0]]
    [0.9, 0.1]
    """
    flags = tuple(profile.ndim == 3 for profile in classes.profiles)
    num_levels = tuple(profile.shape[-2] for profile in classes.profiles)
    arms = 1 if classes.arm_profile is None else len(classes.arm_profile)
    layout = Layout(len(classes.shares), num_levels, flags, arms, t is not None)
    theta = _join(classes)
    hot = layout.hot(codes, t).astype(theta.dtype)
    own = responsibility(theta, hot)
    return jnp.where(own.sum(1, keepdims=True) > 0, own, jnp.nan)
