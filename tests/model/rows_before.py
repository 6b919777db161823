"""The likelihood of distinct rows under latent classes: value, EM, and damped second-order steps.

The model of a row with codes ``c_1, ..., c_v`` in arm ``t`` is

    p = sum_u P(U=u) P(T=t | U=u) prod_v P(C_v=c_v | (T=t,) U=u)

where views may depend on the treatment given the class, or not. A missing cell contributes the
factor 1. The table of all cells is never built.

All probabilities travel as one array ``theta (1 + D, k)``: shares in row 0, then the levels of
every view one after the other. A row of data is the set of the rows of theta that it multiplies.
Steps are taken in the probabilities themselves, as in `jaxmix.estimators.table`.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxmix.model.settling import EASE, LEAST_DAMPING, SETTLED

_MOST_STEPS = 100  # exact ones, of which two are enough as a rule
_METRIC_FLOOR = 1e-2  # a probability below this damps no further
_GONE = 1e-2  # expected rows below which a probability that is falling goes to 0
_MOST_CELLS = 4096  # tables up to this size are enumerated to judge the rank

Theta = Float[Array, "p k"]


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
        """Blocks and levels of every view, the treatment last."""
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
        """Free parameters."""
        return self.num_classes * (1 + sum(c * (d - 1) for c, d in self.views)) - 1

    @property
    def num_cells(self) -> int:
        """Cells of the table that is never built."""
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


class Rows(NamedTuple):
    """Distinct rows: `hot` of the layout in the dtype of the counts, and the counts."""

    hot: Float[Array, "m p"]
    counts: Float[Array, " m"]


def _product(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision="highest")


def logs(theta: Theta, hot: Float[Array, "m p"]) -> tuple[Array, Array, Array]:
    """Return log p, the log of every class's nonzero factors, and how many are zero."""
    zero = theta <= 0
    total = _product(hot, jnp.log(jnp.where(zero, 1.0, theta)))
    zeros = _product(hot, zero.astype(theta.dtype))
    return jax.nn.logsumexp(jnp.where(zeros < 0.5, total, -jnp.inf), 1), total, zeros


def responsibility(theta: Theta, hot: Float[Array, "m p"]) -> Float[Array, "m k"]:
    """Return ``P(U=u | row)``; 0 where no class can produce the row."""
    log_p, total, zeros = logs(theta, hot)
    return jnp.where(zeros < 0.5, jnp.exp(total - _finite(log_p)[:, None]), 0.0)


def _finite(values: Array) -> Array:
    return jnp.where(jnp.isfinite(values), values, 0.0)


def loss(theta: Theta, rows: Rows) -> Float[Array, ""]:
    """Return ``sum N log(N / (n p))``: small numbers, so that small gains can be told."""
    log_p, counts = logs(theta, rows.hot)[0], rows.counts
    seen = counts != 0  # NaN counts, so that it shows
    relative = jnp.log(jnp.where(seen, counts, 1.0) / counts.sum())
    return jnp.sum(jnp.where(seen, counts * (relative - log_p), 0.0))


def em_step(theta: Theta, rows: Rows, layout: Layout) -> Theta:
    """Take a step of expectation-maximization (Dempster, Laird, Rubin 1977)."""
    mass = rows.counts[:, None] * responsibility(theta, rows.hot)
    return layout.normalise(_product(rows.hot.T, mass))


def _slopes(
    theta: Theta, hot: Float[Array, "m p"], floor: float = -math.inf
) -> tuple[Array, Float[Array, "m p k"]]:
    """Return log p, and d log p / d theta also where theta is 0; p not below a floor."""
    log_p, total, zeros = logs(theta, hot)
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
    bound: Array  # probabilities at 0, or all but there, that fit better the lower they are
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
    by_block = raw.reshape(p, k) - expected
    outward = by_block.reshape(-1)
    information = _product(flat.T, counts[:, None] * flat)
    mass = counts[:, None] * responsibility(theta, hot)
    together = jnp.einsum("iu,id,ie->ude", mass, hot, hot, precision="highest")
    together *= 1 - jnp.eye(p, dtype=theta.dtype)
    inverse = jnp.where(theta > 0, 1 / jnp.where(theta > 0, theta, 1.0), 0.0).T
    together *= inverse[:, :, None] * inverse[:, None, :]  # d2p / p, within a class
    second = jnp.einsum("ude,uv->duev", together, jnp.eye(k, dtype=theta.dtype))
    information -= jnp.where(exact, second.reshape(p * k, p * k), 0.0)
    information = _reduced(information, reference)
    by_theta = (expected / jnp.maximum(theta, _METRIC_FLOOR)).reshape(-1) + eps * n
    same = block[:, None] == block
    metric = jnp.diag(by_theta) + jnp.where(same, by_theta[reference], 0.0)
    is_reference = jnp.arange(p * k) == reference
    gone = (theta <= 0) | (raw.reshape(p, k) * theta * expected < _GONE * -by_block)
    bound = (outward <= 0) & gone.reshape(-1)
    return _Local(
        raw - raw[reference], bound, outward, is_reference, reference, block,
        information, metric, jnp.sqrt(jnp.diag(metric)),
    )  # fmt: skip


def _reduced(matrix: Float[Array, "q q"], reference: Int[Array, " q"]) -> Float[Array, "q q"]:
    """Return a quadratic form in the coordinates that the references make up for."""
    matrix = matrix - matrix[reference]
    return (matrix.T - matrix.T[reference]).T


def _scaled(matrix: Array, scale: Array, free: Bool[Array, " q"]) -> Array:
    return matrix * (free[:, None] & free) / (scale[:, None] * scale)


def _spread(moves: Array, local: _Local, theta: Theta) -> Theta:
    """Return a step of all probabilities: those at the bound to 0, references to make up."""
    moves = jnp.where(local.bound & ~local.is_reference, -theta.reshape(-1), moves)
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
    to_zero = jnp.where(local.bound, -local.outward * theta.reshape(-1), 0.0).sum()
    return _spread(moves / local.scale, local, theta), score @ moves / 2 + to_zero


def retract(theta: Theta, direction: Theta, layout: Layout) -> Theta:
    """Move, cut off at 0, and scale back to probabilities."""
    moved = theta + direction
    return layout.normalise(jnp.where(moved > jnp.finfo(theta.dtype).eps ** 2, moved, 0.0))


class _Settling(NamedTuple):
    theta: Theta
    decrement: Array
    damping: Array
    going: Bool[Array, ""]
    steps: Int[Array, ""]


def settle_down(theta: Theta, rows: Rows, layout: Layout) -> tuple[Theta, Array]:
    """Take exact steps until they gain no more; return the last predicted gain beside theta.

    Two are enough as a rule. They are damped where one leads nowhere: a probability on its way to
    0 makes it too long.
    """

    def body(state: _Settling) -> _Settling:
        damping = state.damping
        theta, decrement, closer = _exact_step(state.theta, rows, damping, layout)
        eased = jnp.where(damping > LEAST_DAMPING, damping / EASE, 0.0)
        return _Settling(
            theta,
            jnp.where(damping == 0, decrement, state.decrement),
            jnp.where(closer, eased, jnp.maximum(damping, LEAST_DAMPING) * EASE),
            ~(closer & (damping == 0) & (decrement < SETTLED)),
            state.steps + 1,
        )

    def going(state: _Settling) -> Bool[Array, ""]:
        return state.going & (state.steps < _MOST_STEPS)

    zero = jnp.zeros((), theta.dtype)
    start = _Settling(theta, zero + jnp.inf, zero, jnp.asarray(True), jnp.int32(0))
    end = jax.lax.while_loop(going, body, start)
    return end.theta, end.decrement


def _exact_step(
    theta: Theta, rows: Rows, damping: Array, layout: Layout
) -> tuple[Theta, Array, Bool[Array, ""]]:
    """Take one exact step where it fits no worse.

    Returns theta, the gain that an undamped step predicts, and whether it fits no worse.
    """
    local = _local(theta, rows, True, layout)
    free = ~local.bound & ~local.is_reference
    values, vectors = jnp.linalg.eigh(_scaled(local.information, local.scale, free))
    along = vectors.T @ jnp.where(free, local.score / local.scale, 0.0)

    def over(values: Array) -> Array:
        kept = values > jnp.sqrt(jnp.finfo(theta.dtype).eps)
        return jnp.where(kept, along / jnp.where(kept, values, 1.0), 0.0)

    decrement = along @ over(values) / 2
    moves = jnp.where(free, vectors @ over(values + damping) / local.scale, 0.0)
    moved = retract(theta, _spread(moves, local, theta), layout)
    before = loss(theta, rows)
    # The loss is a sum over rows, whose rounding may exceed what the step gains.
    size = 64 * jnp.maximum(1.0, jnp.abs(before)) + 2 * rows.counts.sum()
    noise = jnp.finfo(theta.dtype).eps * size
    closer = loss(moved, rows) <= before + noise
    return jnp.where(closer, moved, theta), decrement, closer


def rank_of(theta: Theta, rows: Rows, layout: Layout, tolerance: float) -> tuple[Array, Array]:
    """Return the rank of the information, and the number of coordinates that are free.

    Where cells are few and some row is complete, expected information over all cells for the rows
    that are complete, with the outer products of the others' scores. Elsewhere observed
    information, the curvature of the log-likelihood itself: outer products are of no more scores
    than there are rows, while few rows may well tell more parameters apart.

    Eigenvalues count where they exceed the square root of the machine epsilon, in coordinates
    scaled to the information of the complete data: less than that share of it is none. Fixed are
    probabilities that the data hold at 0, not those that happen to be there on a flat ridge:
    releasing these would gain nothing.
    """
    local = _local(theta, rows, False, layout)
    held = local.bound & (local.outward**2 > 2 * tolerance * jnp.diag(local.information))
    free = ~held & ~local.is_reference
    information = _local(theta, rows, True, layout).information
    if layout.num_cells <= _MOST_CELLS:
        views = len(layout.num_levels) + 1 + layout.treated
        complete = rows.hot.sum(1) > views - 0.5
        eps = float(jnp.finfo(theta.dtype).eps)
        log_p, of_cells = _slopes(theta, layout.cells().astype(theta.dtype), math.log(eps))
        num_complete = jnp.sum(jnp.where(complete, rows.counts, 0.0))
        weights = jnp.append(jnp.where(complete, 0.0, rows.counts), num_complete * jnp.exp(log_p))
        slopes = jnp.concatenate([_slopes(theta, rows.hot)[1], of_cells])
        flat = slopes.reshape(len(slopes), -1)
        expected = _reduced(_product(flat.T, weights[:, None] * flat), local.reference)
        information = jnp.where(num_complete > 0, expected, information)
    scale = jnp.maximum(local.scale, jnp.sqrt(jnp.abs(jnp.diag(information))))
    values = jnp.linalg.eigvalsh(_scaled(information, scale, free))
    return jnp.sum(values > jnp.sqrt(jnp.finfo(theta.dtype).eps)), jnp.sum(free)
