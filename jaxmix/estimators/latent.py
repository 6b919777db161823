"""Latent classes with any number of categorical views, fitted on distinct rows with counts.

The model of a row with codes ``c_1, ..., c_v`` in arm ``t`` is

    p = sum_u P(U=u) P(T=t | U=u) prod_v P(C_v=c_v | (T=t,) U=u)

where views may depend on the treatment given the class, or not. Without a treatment it is
classical latent class analysis; with views Z (by treatment), X and Y (by treatment) it is level 3.
A missing cell contributes the factor 1. The table of all cells is never built.

All probabilities travel as one array ``theta (1 + D, k)``: shares in row 0, then the levels of
every view one after the other. A row of data is the set of the rows of theta that it multiplies.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxmix.solvers.implicit import at_root
from jaxmix.solvers.minimise import damped, minimise
from jaxmix.status import Solution, Status, settle, where, worst

AGREE = 0.01
"""Log-likelihood units within which optima count as the same."""

_EM_STEPS = 30
_RANDOM_STEPS = 60  # second-order steps of every start; the best one may take more
_EXACT_BELOW = 1.0  # predicted gain, in log-likelihood units, where exact curvature is tried
_METRIC_FLOOR = 1e-2  # a probability below this damps no further
_MOST_CELLS = 4096  # tables up to this size are enumerated to judge the rank
_MOST_NUMBERS = 2**23  # scores of all rows held at once; more starts than that take turns

Theta = Float[Array, "p k"]


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


@dataclasses.dataclass(frozen=True)
class Layout:
    """What is static: classes, views as (blocks that sum to 1, levels of each), arms."""

    num_classes: int
    num_levels: tuple[int, ...]
    by_treatment: tuple[bool, ...]
    num_arms: int
    treated: bool

    @property
    def views(self) -> tuple[tuple[int, int], ...]:
        own = zip(self.num_levels, self.by_treatment, strict=True)
        views = tuple((self.num_arms if flag else 1, d) for d, flag in own)
        return (*views, (1, self.num_arms)) if self.treated else views

    @property
    def blocks(self) -> np.ndarray:
        """Block that each row of theta but the first belongs to."""
        sizes = [d for count, d in self.views for _ in range(count)]
        return np.repeat(np.arange(len(sizes)), sizes)

    @property
    def num_parameters(self) -> int:
        return self.num_classes * (1 + sum(c * (d - 1) for c, d in self.views)) - 1

    @property
    def num_cells(self) -> int:
        return math.prod(self.num_levels) * (self.num_arms if self.treated else 1)

    def hot(self, codes: Int[Array, "m v"], t: Int[Array, " m"] | None) -> Float[Array, "m p"]:
        """Return which rows of theta each row of data multiplies."""
        arms = None if t is None else t[:, None] == jnp.arange(self.num_arms)
        parts = [jnp.ones((len(codes), 1), bool)]
        for v, (d, flag) in enumerate(zip(self.num_levels, self.by_treatment, strict=True)):
            own = codes[:, v, None] == jnp.arange(d)
            if flag and arms is not None:
                own = (arms[:, :, None] & own[:, None, :]).reshape(len(codes), -1)
            parts.append(own)
        return jnp.concatenate(parts if arms is None else [*parts, arms], 1)

    def cells(self) -> Float[Array, "m p"]:
        """Return `hot` of every possible cell."""
        sizes = (*self.num_levels, self.num_arms if self.treated else 1)
        every = np.array(list(itertools.product(*map(range, sizes))), np.int32)
        return self.hot(jnp.asarray(every[:, :-1]), jnp.asarray(every[:, -1] * self.treated)
                        if self.treated else None)  # fmt: skip

    def sums(self, values: Theta) -> Theta:
        """Return, for every probability, the sum over those that sum to 1 with it."""
        member = jnp.asarray(self.blocks[:, None] == self.blocks, values.dtype)
        return jnp.concatenate([
            jnp.broadcast_to(values[:1].sum(1, keepdims=True), (1, self.num_classes)),
            _product(member, values[1:]),
        ])  # fmt: skip

    def normalise(self, values: Theta) -> Theta:
        """Scale to probabilities; where there is nothing to scale, even ones."""
        total, size = self.sums(values), self.sums(jnp.ones_like(values))
        return jnp.where(total > 0, values / jnp.where(total > 0, total, 1.0), 1.0 / size)

    def references(self, theta: Theta) -> tuple[Array, Array]:
        """Return the block of each flat coordinate, and the coordinate of its largest member."""
        k, blocks = self.num_classes, self.blocks
        member = jnp.asarray(np.arange(blocks[-1] + 1)[:, None] == blocks)
        largest = jnp.argmax(jnp.where(member[:, :, None], theta[1:], -1.0), 1)  # (block, k)
        own = (1 + largest[blocks]) * k + jnp.arange(k)
        first = jnp.broadcast_to(jnp.argmax(theta[0]), (1, k))
        block = jnp.asarray(1 + blocks[:, None] * k + np.arange(k))
        zero = jnp.zeros((1, k), block.dtype)
        return (
            jnp.concatenate([zero, block]).reshape(-1),
            jnp.concatenate([first, own]).reshape(-1),
        )

    def split(self, theta: Theta) -> LatentClasses:
        """Return the classes, by decreasing share."""
        theta = theta[:, jnp.argsort(-theta[0])]
        ends = np.cumsum([1] + [count * d for count, d in self.views])
        parts = [theta[ends[i] : ends[i + 1]] for i in range(len(self.views))]
        profiles = tuple(
            part.reshape(self.num_arms, -1, self.num_classes) if flag else part
            for part, flag in zip(parts, self.by_treatment, strict=False)
        )
        return LatentClasses(theta[0], profiles, parts[-1] if self.treated else None)

    def join(self, classes: LatentClasses) -> Theta:
        """Return theta of the classes."""
        parts = [classes.shares, *classes.profiles]
        parts += [] if classes.arm_profile is None else [classes.arm_profile]
        return jnp.concatenate([part.reshape(-1, self.num_classes) for part in parts])


class Rows(NamedTuple):
    """Distinct rows: `hot` of the layout in the dtype of the counts, and the counts."""

    hot: Float[Array, "m p"]
    counts: Float[Array, " m"]


def _product(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision="highest")


def _logs(theta: Theta, hot: Float[Array, "m p"]) -> tuple[Array, Array, Array]:
    """Return log p, the log of every class's nonzero factors, and how many are zero."""
    zero = theta <= 0
    total = _product(hot, jnp.log(jnp.where(zero, 1.0, theta)))
    zeros = _product(hot, zero.astype(theta.dtype))
    return jax.nn.logsumexp(jnp.where(zeros < 0.5, total, -jnp.inf), 1), total, zeros


def _responsibility(theta: Theta, hot: Float[Array, "m p"]) -> Float[Array, "m k"]:
    log_p, total, zeros = _logs(theta, hot)
    return jnp.where(zeros < 0.5, jnp.exp(total - _finite(log_p)[:, None]), 0.0)


def _finite(values: Array) -> Array:
    return jnp.where(jnp.isfinite(values), values, 0.0)


def loss(theta: Theta, rows: Rows) -> Float[Array, ""]:
    """Return ``sum N log(N / (n p))``: small numbers, so that small gains can be told."""
    log_p, counts = _logs(theta, rows.hot)[0], rows.counts
    seen = counts > 0
    relative = jnp.log(jnp.where(seen, counts, 1.0) / counts.sum())
    return jnp.sum(jnp.where(seen, counts * (relative - log_p), 0.0))


def em_step(theta: Theta, rows: Rows, layout: Layout) -> Theta:
    """Take a step of expectation-maximization (Dempster, Laird, Rubin 1977)."""
    mass = rows.counts[:, None] * _responsibility(theta, rows.hot)
    return layout.normalise(_product(rows.hot.T, mass))


def _slopes(
    theta: Theta, hot: Float[Array, "m p"], floor: float = -math.inf
) -> tuple[Array, Float[Array, "m p k"]]:
    """Return log p, and d log p / d theta also where theta is 0; p not below a floor."""
    log_p, total, zeros = _logs(theta, hot)
    log_p = jnp.maximum(log_p, floor)
    relative = jnp.exp(total - _finite(log_p)[:, None])
    zero = theta <= 0
    others = jnp.where((zeros > 0.5) & (zeros < 1.5), relative, 0.0)  # without the one zero
    own = jnp.where(zeros < 0.5, relative, 0.0)
    slopes = jnp.where(zero, others[:, None], own[:, None] / jnp.where(zero, 1.0, theta))
    return log_p, hot[:, :, None] * slopes


class _Local(NamedTuple):
    """The likelihood around theta, in coordinates free of the constraints of summing to 1.

    The largest probability of every block gives way to the others, so that a coordinate's
    derivative is its own less that of its reference.
    """

    score: Array  # flat; references and all
    bound: Array  # probabilities at 0 that would have to be negative to fit better
    outward: Array  # score less the multiplier of the block
    is_reference: Array
    reference: Array
    block: Array
    information: Array  # observed (exact) or empirical Fisher, reduced
    metric: Array  # information of the complete data, reduced
    scale: Array


def _local(theta: Theta, rows: Rows, exact: Bool[Array, ""] | bool, layout: Layout) -> _Local:
    hot, counts = rows
    (p, k), n, eps = theta.shape, counts.sum(), jnp.finfo(theta.dtype).eps
    block, reference = layout.references(theta)
    _, slopes = _slopes(theta, hot)
    flat = slopes.reshape(-1, p * k)
    raw = _product(counts, flat)
    # At the optimum the multiplier of a block is the number of rows expected in it.
    expected = layout.sums(raw.reshape(p, k) * theta)
    outward = raw - expected.reshape(-1)
    reduced = flat - flat[:, reference]
    information = _product(reduced.T, counts[:, None] * reduced)
    mass = counts[:, None] * _responsibility(theta, hot)
    together = jnp.einsum("iu,id,ie->ude", mass, hot, hot, precision="highest")
    together *= 1 - jnp.eye(p, dtype=theta.dtype)
    inverse = jnp.where(theta > 0, 1 / jnp.where(theta > 0, theta, 1.0), 0.0).T
    together *= inverse[:, :, None] * inverse[:, None, :]  # d2p / p, within a class
    second = jnp.einsum("ude,uv->duev", together, jnp.eye(k, dtype=theta.dtype))
    second = second.reshape(p * k, p * k)
    second = second - second[reference]
    second = second - second[:, reference]
    information -= jnp.where(exact, second, 0.0)
    by_theta = (expected / jnp.maximum(theta, _METRIC_FLOOR)).reshape(-1) + eps * n
    same = block[:, None] == block
    metric = jnp.diag(by_theta) + jnp.where(same, by_theta[reference], 0.0)
    is_reference = jnp.arange(p * k) == reference
    bound = (theta.reshape(-1) <= 0) & (outward <= 0)
    return _Local(
        raw - raw[reference], bound, outward, is_reference, reference, block,
        information, metric, jnp.sqrt(jnp.diag(metric)),
    )  # fmt: skip


def _scaled(matrix: Array, scale: Array, free: Bool[Array, " q"]) -> Array:
    return matrix * (free[:, None] & free) / (scale[:, None] * scale)


def _spread(moves: Array, local: _Local, theta: Theta) -> Theta:
    """Return a step of all probabilities: references make up for what the others move."""
    total = jnp.zeros_like(moves).at[local.block].add(moves)
    return jnp.where(local.is_reference, -total[local.block], moves).reshape(theta.shape)


def newton_step(
    theta: Theta, rows: Rows, damping: Array, exact: Array, layout: Layout
) -> tuple[Theta, Array]:
    """Return a step damped by the metric of EM, and its predicted gain."""
    local = _local(theta, rows, exact, layout)
    free = ~local.bound & ~local.is_reference
    system = _scaled(local.information + damping * local.metric, local.scale, free)
    least = jnp.finfo(theta.dtype).eps * len(free)
    system += jnp.diag(jnp.where(free, least, 1.0))
    score = jnp.where(free, local.score / local.scale, 0.0)
    factor = jnp.linalg.cholesky(system)
    moves = jax.scipy.linalg.cho_solve((factor, True), score)
    return _spread(moves / local.scale, local, theta), score @ moves / 2


def retract(theta: Theta, direction: Theta, layout: Layout) -> Theta:
    """Move, cut off at 0, and scale back to probabilities."""
    moved = theta + direction
    return layout.normalise(jnp.where(moved > jnp.finfo(theta.dtype).eps ** 2, moved, 0.0))


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


def _settle(theta: Theta, rows: Rows, layout: Layout, tolerance: float) -> tuple[Theta, Array]:
    """Take one last exact step where it helps; return its predicted gain beside theta."""
    local = _local(theta, rows, True, layout)
    free = ~local.bound & ~local.is_reference
    values, vectors = jnp.linalg.eigh(_scaled(local.information, local.scale, free))
    kept = values > jnp.sqrt(jnp.finfo(theta.dtype).eps)
    along = vectors.T @ jnp.where(free, local.score / local.scale, 0.0)
    along_step = jnp.where(kept, along / jnp.where(kept, values, 1.0), 0.0)
    decrement = along @ along_step / 2
    moves = jnp.where(free, vectors @ along_step / local.scale, 0.0)
    moved = retract(theta, _spread(moves, local, theta), layout)
    closer = (loss(moved, rows) <= loss(theta, rows)) & (decrement < tolerance)
    return jnp.where(closer, moved, theta), decrement


def _rank(theta: Theta, rows: Rows, layout: Layout, tolerance: float) -> tuple[Array, Array]:
    """Return the rank of the information, and the number of coordinates that are free.

    Expected information over all cells, where these are few, for the rows that are complete;
    that of the rows seen for the others. Fixed are probabilities that the data hold at 0, not
    those that happen to be there on a flat ridge: releasing these would gain nothing.
    """
    local = _local(theta, rows, False, layout)
    held = local.bound & (local.outward**2 > 2 * tolerance * jnp.diag(local.information))
    free = ~held & ~local.is_reference
    weights, (_, slopes) = rows.counts, _slopes(theta, rows.hot)
    if layout.num_cells <= _MOST_CELLS:
        views = len(layout.num_levels) + 1 + layout.treated
        complete = rows.hot.sum(1) > views - 0.5
        eps = float(jnp.finfo(theta.dtype).eps)
        log_p, of_cells = _slopes(theta, layout.cells().astype(theta.dtype), math.log(eps))
        num_complete = jnp.sum(jnp.where(complete, weights, 0.0))
        weights = jnp.append(jnp.where(complete, 0.0, weights), num_complete * jnp.exp(log_p))
        slopes = jnp.concatenate([slopes, of_cells])
    flat = slopes.reshape(len(slopes), -1)
    reduced = flat - flat[:, local.reference]
    information = _product(reduced.T, weights[:, None] * reduced)
    values = jnp.linalg.eigvalsh(_scaled(information, local.scale, free))
    return jnp.sum(values > jnp.sqrt(jnp.finfo(theta.dtype).eps)), jnp.sum(free)


@functools.lru_cache(maxsize=256)
def _stationarity(layout: Layout) -> Any:
    def residual(vector: Array, args: Rows) -> Array:
        theta = vector.reshape(-1, layout.num_classes)
        # A fixed point of EM; probabilities at 0 stay there.
        moved = jnp.where(theta > 0, theta - em_step(theta, args, layout), theta)
        return moved.reshape(-1)

    return residual


@functools.partial(
    jax.jit,
    static_argnames=(
        "num_levels", "k", "num_arms", "by_treatment", "num_starts", "max_steps", "tolerance",
    ),
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
    num_starts: int = 24,
    max_steps: int = 500,
    tolerance: float = 1e-4,
) -> Solution:
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
        Random starts.
    max_steps
        Most second-order steps of the start that is returned.
    tolerance
        Predicted gain at which steps stop, in log-likelihood units.

    Returns
    -------
    Solution
        ``value`` is `LatentClasses`, by decreasing share; differentiable in the counts, by the
        implicit function theorem. In stats: ``log_likelihood``, ``num_parameters``, ``df``
        (the smaller of the number of rows and of the cells less 1, less the parameters),
        ``decrement`` (predicted gain left), ``steps``, ``num_starts``, ``num_agree`` (starts
        within `AGREE` of the best), ``runner_up`` (gap to the best other optimum), ``num_free``
        (parameters not held at 0), ``rank`` (of the information in these). Statuses: BOUNDARY (a
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

    def begin(index: Array) -> tuple[Theta, Array, Array, Array]:
        drawn = jax.random.exponential(jax.random.fold_in(key, index), shape, counts.dtype)
        theta = jax.lax.fori_loop(
            0, _EM_STEPS, lambda _, theta: em_step(theta, fixed, layout), layout.normalise(drawn)
        )
        return _climb(theta, fixed, layout, tolerance, min(_RANDOM_STEPS, max_steps))

    together = max(1, min(num_starts, _MOST_NUMBERS // (rows.hot.size * k)))
    thetas, losses, done, steps = jax.lax.map(begin, jnp.arange(num_starts), batch_size=together)
    losses = jnp.where(jnp.isfinite(losses), losses, jnp.inf)
    # Among starts that end alike, one that met the tolerance.
    alike = jnp.where(done & (losses <= losses.min() + tolerance), losses, jnp.inf)
    best = jnp.where(jnp.any(jnp.isfinite(alike)), jnp.argmin(alike), jnp.argmin(losses))
    left = jnp.where(done[best], 0, max_steps - steps[best])
    theta, least, finished, more = _climb(thetas[best], fixed, layout, tolerance, left)
    theta, decrement = _settle(theta, fixed, layout, tolerance)
    rank, num_free = _rank(theta, fixed, layout, tolerance)
    theta = jax.lax.stop_gradient(theta)
    flat = rank < num_free
    theta = at_root(_stationarity(layout), theta.reshape(-1), rows, flat).reshape(shape)
    losses = losses.at[best].set(least)
    agree = jnp.sum(losses <= least + AGREE)
    others = jnp.where(losses > least + AGREE, losses, jnp.inf)
    log_p, seen = _logs(theta, rows.hot)[0], counts > 0
    log_likelihood = jnp.sum(jnp.where(seen, counts * jnp.where(seen, log_p, 0.0), 0.0))
    most = float(min(layout.num_cells - 1, 2**53))
    stats = {
        "log_likelihood": log_likelihood,
        "num_parameters": jnp.asarray(layout.num_parameters),
        "df": jnp.minimum(counts.sum(), most) - layout.num_parameters,
        "decrement": decrement,
        "steps": steps[best] + more,
        "num_starts": jnp.asarray(num_starts),
        "num_agree": agree,
        "runner_up": others.min() - least,
        "num_free": num_free,
        "rank": rank,
    }
    status = worst(
        where(jnp.any(theta == 0), Status.BOUNDARY),
        where((num_starts > 1) & (agree < 2), Status.STARTS_DISAGREE),
        where(flat, Status.NOT_IDENTIFIED),
        where(~(done[best] | finished), Status.MAX_STEPS),
    )
    return Solution(layout.split(theta), settle(status, (theta, log_likelihood)), stats)


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
    theta = layout.join(classes)
    hot = layout.hot(codes, t).astype(theta.dtype)
    own = _responsibility(theta, hot)
    return jnp.where(own.sum(1, keepdims=True) > 0, own, jnp.nan)
