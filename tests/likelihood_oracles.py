"""Likelihood oracles in plain numpy: EM, Newton in logits, Cramer-Rao bounds, latent classes.

They share no code with the library. One engine serves both levels: the coupled model
p[t,z,x,y] = sum_u W[t,z,u] B[x,u] C[t,y,u], in which W sums to 1 in all and each B[:,u] and
C[t,:,u] sums to 1. Level 2 is the same model with one arm and outcome view S = (T, Y). Parameters
travel as one flat vector of probabilities, W then B then C, with a 0/1 matrix of its softmax
groups (num_groups, num_parameters).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tests.oracles import Population

Array = np.ndarray
Rng = np.random.Generator
Expect = Callable[[Array], tuple[Array, Array]]
Shapes = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


@dataclass
class Fit:
    """Maximum-likelihood fit of the coupled model; classes in no particular order."""

    loglik: float  # sum of N log p over the cells
    shares: Array  # (k,) P(U=u)
    W: Array  # (a, d_z, k) P(T=t, Z=z, U=u); level 2: (1, d_z, k)
    B: Array  # (d_x, k) P(X=x | U=u)
    C: Array  # (a, d_y, k) P(Y=y | T=t, U=u); level 2: (1, a d_y, k) P(T=t, Y=y | U=u)
    logliks: Array  # (num_starts,) log-likelihood each start ended in


def _shapes(cells: Array, k: int) -> Shapes:
    """Shapes of (W, B, C)."""
    return (*cells.shape[:2], k), (cells.shape[2], k), (cells.shape[0], cells.shape[3], k)


def _split(theta: Array, shapes: Shapes) -> list[Array]:
    """(W, B, C) of flat parameters (..., P), leading axes kept."""
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1]
    parts = zip(np.split(theta, ends, axis=-1), shapes, strict=True)
    return [part.reshape(theta.shape[:-1] + shape) for part, shape in parts]


def _flat(*factors: Array) -> Array:
    """One vector of several arrays."""
    return np.concatenate([np.ravel(factor) for factor in factors]).astype(float)


def _groups(shapes: Shapes) -> Array:
    """0/1 matrix of the softmax groups: W, each B[:,u], each C[t,:,u]; (G, P)."""
    (a, d_z, k), (d_x, _), (_, d_y, _) = shapes
    of_b = np.broadcast_to(1 + np.arange(k), (d_x, k))
    of_c = np.broadcast_to(1 + k + np.arange(a * k).reshape(a, 1, k), (a, d_y, k))
    group = _flat(np.zeros(a * d_z * k), of_b, of_c)
    return (group == np.arange(1 + k + a * k)[:, None]).astype(float)


def _normalise(mass: Array, groups: Array) -> Array:
    """Mass divided by the total of its group; an empty group becomes uniform."""
    mass = mass + 1e-200
    return mass / (mass @ groups.T @ groups)


def model_table(W: Array, B: Array, C: Array) -> Array:
    """p[t,z,x,y] = sum_u W[t,z,u] B[x,u] C[t,y,u]."""
    return np.einsum("tzu,xu,tyu->tzxy", W, B, C)


def loglik(cells: Array, W: Array, B: Array, C: Array) -> float:
    """Sum of N log p over the cells with N > 0."""
    own = cells > 0
    return float(cells[own] @ np.log(model_table(W, B, C)[own]))


def level2_cells(cells: Array) -> Array:
    """Table (a, d_z, d_x, d_y) as one arm with outcome view (T, Y): (1, d_z, d_x, a d_y)."""
    a, d_z, d_x, d_y = cells.shape
    return np.moveaxis(cells, 0, 2).reshape(1, d_z, d_x, a * d_y)


def _expect_cells(cells: Array, shapes: Shapes) -> Expect:
    """E-step: theta (s, P) -> (expected counts, log-likelihood less that of the raw shares)."""
    a, d_z, d_x, d_y = cells.shape
    n = np.asarray(cells, dtype=float).reshape(a, d_z, d_x * d_y)
    relative = n / np.sum(n)

    def expect(theta: Array) -> tuple[Array, Array]:
        w, b, c = _split(theta, shapes)
        s, k = len(w), w.shape[-1]
        right = (b[:, None, :, None, :] * c[:, :, None, :, :]).reshape(s, a, d_x * d_y, k)
        p = w @ np.swapaxes(right, -1, -2)
        ratio = np.divide(p, relative, out=np.ones_like(p), where=n > 0)
        value = np.sum(n * np.log(ratio), axis=(1, 2, 3))
        ratio = np.divide(n, p, out=np.zeros_like(p), where=n > 0)
        joint = ((np.swapaxes(ratio, -1, -2) @ w) * right).reshape(s, a, d_x, d_y, k)
        counts = w * (ratio @ right), joint.sum(axis=(1, 3)), joint.sum(axis=2)
        return np.concatenate([count.reshape(s, -1) for count in counts], axis=1), value

    return expect


def _climb(
    expect: Expect, theta: Array, groups: Array, tol: float, max_steps: int
) -> tuple[Array, Array]:
    """EM with SQUAREM jumps from all starts at once; ends after 3 cycles that rise < tol each."""
    theta, values = theta.copy(), np.full(len(theta), -np.inf)
    calm, longest = np.zeros(len(theta), dtype=int), np.full(len(theta), 4.0)
    active, spent = np.arange(len(theta)), 0
    while len(active) and spent < max_steps:
        now = theta[active]
        counts, value = expect(now)
        rise = value - values[active]
        values[active] = value
        calm[active] = np.where(rise < tol, calm[active] + 1, 0)
        go = calm[active] < 3
        active, now = active[go], now[go]
        if not len(active):
            break
        first = _normalise(counts[go], groups)
        counts, value_first = expect(first)
        second = _normalise(counts, groups)
        change, bend = first - now, second - 2 * first + now
        norms = np.linalg.norm(change, axis=1), np.linalg.norm(bend, axis=1)
        length = np.clip(norms[0] / np.maximum(norms[1], 1e-300), 1.0, longest[active])[:, None]
        jump = now + 2 * length * change + length**2 * bend
        jump = _normalise(np.maximum(jump, 0.1 * second), groups)
        counts, value_jump = expect(jump)
        good = value_jump >= value_first  # else keep the two plain EM steps
        theta[active] = np.where(good[:, None], _normalise(counts, groups), second)
        grown = np.where(length[:, 0] == longest[active], 2.0, 1.0) * longest[active]
        longest[active] = np.where(good, grown, np.maximum(longest[active] / 2, 1.0))
        spent += 3
    return theta, expect(theta)[1]


def _curvature(cells: Array, theta: Array, shapes: Shapes, groups: Array) -> tuple[Array, Array]:
    """Gradient and negative Hessian of the log-likelihood in all logits (no reference fixed)."""
    # q = W B C: class parts of a cell, r = q / p, s = d log q / d logits; by Louis' identity
    # g = sum N r s, -H = sum_g n_g (diag f_g - f_g f_g') - sum N r s s' + sum N E_r[s] E_r[s]'
    a, d_z, d_x, d_y = cells.shape
    k, p_total = shapes[0][2], len(theta)
    t, z, x, y, u = (i.ravel() for i in np.indices((a, d_z, d_x, d_y, k)))
    at_b, at_c = a * d_z * k + x * k + u, (a * d_z + d_x) * k + (t * d_y + y) * k + u
    at = np.stack([(t * d_z + z) * k + u, at_b, at_c])
    indicator = np.zeros((len(u), p_total))
    indicator[np.arange(len(u)), at] = 1.0
    own_groups = indicator @ groups.T
    score = indicator - (own_groups @ groups) * theta
    n, q = np.ravel(cells).astype(float), np.prod(theta[at], axis=0).reshape(-1, k)
    p = np.sum(q, axis=1)
    weight = np.ravel(q * np.divide(n, p, out=np.zeros_like(p), where=n != 0)[:, None])
    in_group = weight @ own_groups
    weighted = score * weight[:, None]
    mean = weighted.reshape(len(n), k, p_total).sum(axis=1)  # N times sum_u r s
    inverse = np.divide(1.0, n, out=np.zeros_like(n), where=n != 0)
    fisher = np.diag(in_group @ groups * theta)
    fisher -= groups.T @ (in_group[:, None] * groups) * np.outer(theta, theta)
    hessian = fisher - score.T @ weighted + mean.T @ (inverse[:, None] * mean)
    return weighted.sum(axis=0), hessian


def _newton_step(
    cells: Array, theta: Array, shapes: Shapes, groups: Array
) -> tuple[Array, float, float]:
    """(step, half g'|H|^-1 g, least eigenvalue) in logits, the largest of each group fixed."""
    gradient, hessian = _curvature(cells, theta, shapes, groups)
    free = np.ones(len(theta), dtype=bool)
    free[np.argmax(groups * theta, axis=1)] = False
    hessian, floor = hessian[np.ix_(free, free)], 1e-14 * np.sum(cells)
    scale = np.sqrt(np.maximum(np.abs(np.diag(hessian)), floor))
    eigenvalues, vectors = np.linalg.eigh(hessian / np.outer(scale, scale))
    along = vectors.T @ (gradient[free] / scale)
    moved = along / np.maximum(np.abs(eigenvalues), 1e-12)
    step = np.zeros(len(theta))
    step[free] = vectors @ moved / scale
    return step, float(along @ moved / 2), float(eigenvalues[0])


def _newton(
    cells: Array, theta: Array, shapes: Shapes, goal: float = 0.0, max_steps: int = 200
) -> Array:
    """Climb by damped Newton in logits until the decrement is below goal or stalls by rounding."""
    groups, previous, n = _groups(shapes), np.inf, float(np.sum(cells))
    used = cells != 0  # a cell moved below 0 by a difference counts with its sign
    for _ in range(max_steps):
        step, decrement, _ = _newton_step(cells, theta, shapes, groups)
        if decrement <= goal or 1e-20 * n > decrement > previous / 4:
            break
        previous, p = decrement, model_table(*_split(theta, shapes))[used]
        for halvings in range(40):
            length = min(1.0, 4.0 / float(np.max(np.abs(step)))) / 2**halvings
            moved = _normalise(theta * np.exp(length * step), groups)
            gain = cells[used] @ np.log(model_table(*_split(moved, shapes))[used] / p)
            if gain >= -1e-15 * n:
                theta = moved
                break
        else:
            break
    return theta


def _fit(cells: Array, k: int, rng: Rng, num_starts: int, tol: float, max_steps: int) -> Fit:
    """Best of the starts of EM, then Newton in logits where that rises further."""
    cells = np.asarray(cells, dtype=float)
    shapes = _shapes(cells, k)
    groups = _groups(shapes)
    starts = _normalise(rng.exponential(size=(num_starts, groups.shape[1])), groups)  # Dirichlet(1)
    thetas, values = _climb(_expect_cells(cells, shapes), starts, groups, tol, max_steps)
    best = int(np.argmax(values))
    polished = _newton(cells, thetas[best], shapes, goal=1e-12)
    full, alone = cells[cells > 0], thetas[best]
    logliks = values + full @ np.log(full / np.sum(full))
    top = loglik(cells, *_split(polished, shapes))
    if top >= loglik(cells, *_split(alone, shapes)):
        alone, logliks[best] = polished, top
    w, b, c = _split(alone, shapes)
    return Fit(loglik(cells, w, b, c), np.sum(w, axis=(0, 1)), w, b, c, logliks)


def em_level3(cells: Array, k: int, rng: Rng, num_starts=16, tol=1e-10, max_steps=20000) -> Fit:
    """Maximum likelihood at level 3 of a table (a, d_z, d_x, d_y); max_steps of EM in all."""
    return _fit(cells, k, rng, num_starts, tol, max_steps)


def em_level2(cells: Array, k: int, rng: Rng, num_starts=16, tol=1e-10, max_steps=20000) -> Fit:
    """Maximum likelihood of p = sum_u pi_u A[z,u] B[x,u] S[(t,y),u]: W[0] = A pi, C[0] = S."""
    return _fit(level2_cells(cells), k, rng, num_starts, tol, max_steps)


def law_of(fit: Fit, outcome_values: Array, level=3, num_arms=2) -> tuple[Array, Array]:
    """(effects of arm 1 against arm 0, shares) by increasing effect."""
    c = fit.C
    if level == 2:
        c = c.reshape(num_arms, -1, c.shape[-1])
        c = c / np.sum(c, axis=1, keepdims=True)
    means = np.einsum("tyu,y->tu", c, outcome_values)
    order = np.argsort(means[1] - means[0])
    return (means[1] - means[0])[order], fit.shares[order]


def em_latent_classes(
    rows: Array, weights: Array | None, k: int, rng: Rng, num_starts=16, tol=1e-10, max_steps=20000
) -> tuple[float, Array, list[Array], Array]:
    """(loglik, shares (k,), profiles [(d_v, k)], logliks per start); codes 0.., -1 is missing."""
    rows = np.asarray(rows).astype(int)
    weights = np.ones(len(rows)) if weights is None else np.asarray(weights, dtype=float)
    sizes = rows.max(axis=0) + 1
    hot = np.hstack([rows[:, [v]] == np.arange(size) for v, size in enumerate(sizes)]).astype(float)
    group = _flat(np.zeros(k), *[v * k + np.tile(np.arange(k), d) + 1 for v, d in enumerate(sizes)])
    groups = (group == np.arange(1 + k * len(sizes))[:, None]).astype(float)

    def expect(theta: Array) -> tuple[Array, Array]:
        log = np.log(theta)
        scores = log[:, None, :k] + hot @ log[:, k:].reshape(len(theta), -1, k)
        top = scores.max(axis=-1, keepdims=True)
        part = np.exp(scores - top)
        total = part.sum(axis=-1, keepdims=True)
        mass = part / total * weights[:, None]
        profiles = (hot.T @ mass).reshape(len(theta), -1)
        return np.hstack([mass.sum(axis=1), profiles]), (top + np.log(total))[..., 0] @ weights

    starts = _normalise(rng.exponential(size=(num_starts, groups.shape[1])), groups)
    thetas, values = _climb(expect, starts, groups, tol, max_steps)
    best = int(np.argmax(values))
    profiles = np.split(thetas[best, k:].reshape(-1, k), np.cumsum(sizes)[:-1])
    return float(values[best]), thetas[best, :k], profiles, values


def cramer_rao(population: Population, n: int) -> Array:
    """Cramer-Rao variances of (effects by increasing effect, their shares) from n rows; (2k,)."""
    # p is linear in each factor and the law in all: derivatives are their values at unit vectors
    w = np.einsum("u,utz->tzu", population.shares, population.p_zt)
    b, c = population.p_x.T, np.moveaxis(population.p_y, 0, 2)
    shapes: Shapes = (w.shape, b.shape, c.shape)
    groups, v = _groups(shapes), population.outcome_values
    columns, law = [], []
    for unit in np.eye(groups.shape[1]):
        dw, db, dc = _split(unit, shapes)
        dp = model_table(dw, b, c) + model_table(w, db, c) + model_table(w, b, dc)
        columns.append(dp.ravel())
        law.append(_flat(v @ dc[1] - v @ dc[0], dw.sum(axis=(0, 1))))
    free = []
    for group in groups:
        *others, last = np.flatnonzero(group)
        free.extend(np.eye(len(group))[i] - np.eye(len(group))[last] for i in others)
    p, basis = model_table(w, b, c).ravel(), np.array(free).T
    jacobian = (np.array(columns).T @ basis)[p > 0] / np.sqrt(p[p > 0])[:, None]
    gradient = np.array(law).T @ basis
    variances = np.diag(gradient @ np.linalg.solve(jacobian.T @ jacobian, gradient.T)) / n
    order = np.argsort(population.effects())
    return np.concatenate([variances[order], variances[len(order) + order]])


def error(effects: Array, shares: Array, true_effects: Array, true_shares: Array) -> float:
    """Squared errors of effects and shares, summed, classes matched in order of effect."""
    own, true = np.argsort(effects), np.argsort(true_effects)
    of_effects = np.sum((effects[own] - true_effects[true]) ** 2)
    return float(of_effects + np.sum((shares[own] - true_shares[true]) ** 2))


def information_decrement(cells: Array, W: Array, B: Array, C: Array) -> float:
    """Half g'H^-1 g in log-likelihood units at an interior point; inf off the concave region."""
    shapes: Shapes = (W.shape, B.shape, C.shape)
    _, decrement, least = _newton_step(cells, _flat(W, B, C), shapes, _groups(shapes))
    return decrement if least > -1e-9 else np.inf


def central_difference_law(
    cells: Array, direction: Array, k: int, start: Fit, step: float, outcome_values=None
) -> tuple[Array, Array]:
    """Slope of (effects, shares) of the interior level-3 fit; classes by effect of `start`."""
    shapes = _shapes(cells, k)
    v = np.arange(cells.shape[3]) if outcome_values is None else outcome_values
    laws = []
    for side in (-1, 1):
        theta = _newton(cells + side * step * direction, _flat(start.W, start.B, start.C), shapes)
        w, _, c = _split(theta, shapes)
        laws.append(np.array([v @ c[1] - v @ c[0], w.sum(axis=(0, 1))]))
    order = np.argsort(v @ start.C[1] - v @ start.C[0])
    slope = (laws[1] - laws[0]) / (2 * step)
    return slope[0][order], slope[1][order]
