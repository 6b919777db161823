"""Oracles of the populations in plain numpy: level 2 and 4 bounds, densities by quadrature.

They share no code with the library. Derivatives are complex-step or central differences, and
integrals are sums over grids on which they are exact: the trapezoid rule for Gaussian laws (its
error is exp(-2 pi^2 / h^2)), Gauss-Legendre between the breakpoints of uniform ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

Array = np.ndarray


def softmax(logits: Array) -> Array:
    """Along the last axis; complex numbers pass through."""
    powers = np.exp(logits)
    return powers / powers.sum(-1, keepdims=True)


def split(theta: Array, shapes: list[tuple[int, ...]]) -> list[Array]:
    """Flat parameters in pieces of given shapes."""
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1]
    return [part.reshape(shape) for part, shape in zip(np.split(theta, ends), shapes, strict=True)]


def complex_step(function: Callable[[Array], Array], theta: Array) -> Array:
    """Exact Jacobian (outputs, parameters) of an analytic function."""
    steps = np.eye(len(theta)) * 1e-30j
    return np.stack([function(theta + step).imag / 1e-30 for step in steps], axis=1)


def cramer_rao_by_level(
    shares: Array, zt: Array, x: Array, y: Array, values: Array, level: int
) -> Array:
    """Variances of (ATE, effects, shares), classes as built, from one row; inf where unknown.

    Model in logits: P(u), P(t, z | u) or P(t | u) P(z | u), P(x | u), P(y | t, u) or P(y | t, x,
    u). All probabilities are above 0.
    """
    k, a, d_z = zt.shape
    parts = [shares, x, y if level == 4 else y[:, :, :1]]
    parts += [zt.sum(2), zt.sum(1)] if level == 2 else [zt.reshape(k, -1)]
    shapes = [part.shape for part in parts]
    theta = np.concatenate([np.log(part).ravel() for part in parts]).astype(complex)

    def factors(theta: Array) -> tuple[Array, Array, Array, Array]:
        pi, p_x, p_y, *rest = (softmax(part) for part in split(theta, shapes))
        if level == 2:
            return pi, np.einsum("ut,uz->utz", *rest), p_x, p_y
        return pi, rest[0].reshape(k, a, d_z), p_x, p_y

    def cells(theta: Array) -> Array:
        pi, p_zt, p_x, p_y = factors(theta)
        p_y = np.broadcast_to(p_y, (k, a, p_x.shape[1], len(values)))
        return np.einsum("u,utz,ux,utxy->tzxy", pi, p_zt, p_x, p_y).ravel()

    def law(theta: Array) -> Array:
        pi, _, p_x, p_y = factors(theta)
        p_y = np.broadcast_to(p_y, (k, a, p_x.shape[1], len(values)))
        means = np.einsum("ux,utxy,y->ut", p_x, p_y, values)
        effects = means[:, 1] - means[:, 0]
        return np.concatenate([[pi @ effects], effects, pi])

    p = cells(theta).real
    slope = complex_step(cells, theta) / np.sqrt(p)[:, None]
    return variances(slope.T @ slope, complex_step(law, theta))


def variances(information: Array, gradient: Array) -> Array:
    """diag(g I^+ g'), inf for gradients that are not in the range of the information."""
    eigenvalues, vectors = np.linalg.eigh(information)
    kept = eigenvalues > 1e-11 * eigenvalues[-1]
    along = gradient @ vectors
    found = np.sum(along[:, kept] ** 2 / eigenvalues[kept], axis=1)
    lost = np.linalg.norm(along[:, ~kept], axis=1) / np.linalg.norm(gradient, axis=1)
    return np.where(lost > 1e-5, np.inf, found)


def grid(means: Array, family: str, spread: float = 1.0) -> tuple[Array, Array]:
    """Points and weights for integrals of densities around the class means; one dimension."""
    means = np.unique(means)
    if family == "gaussian":
        step = 0.4 * spread
        points = np.arange(means[0] - 9 * spread, means[-1] + 9 * spread, step)
        return points, np.full(len(points), step)
    breaks = np.sort(np.concatenate([means - 3**0.5 * spread, means + 3**0.5 * spread]))
    nodes, weights = np.polynomial.legendre.leggauss(4)
    middles, halves = (breaks[1:] + breaks[:-1]) / 2, (breaks[1:] - breaks[:-1]) / 2
    return (middles[:, None] + halves[:, None] * nodes).ravel(), np.outer(halves, weights).ravel()


def rows_of_grid(population) -> tuple[Array, Array, Array, Array, Array]:
    """(t, z, x, y, weight) of all grid points, for one column of Z and of X."""
    family = population.family
    z, w_z = grid(np.asarray(population.z_means), family)
    x, w_x = grid(np.asarray(population.x_means), family)
    y, w_y = grid(np.asarray(population.class_means), family, float(population.noise))
    mesh = np.meshgrid([0, 1], z, x, y, indexing="ij")
    weight = np.einsum("i,j,l->ijl", w_z, w_x, w_y).ravel()
    return *(axis.ravel() for axis in mesh), np.tile(weight, 2)


def gmm_bound(population, spread: Array, units: list[tuple[float, float]], level: int) -> Array:
    """Variances of (ATE, effects, shares), classes as built, of optimal GMM on linear features.

    For one column of Z and of X.

    Parameters: P(t, u) in logits and the conditional means of the features; `units` is centre
    and scale of each view; `spread` the covariance of one row's moments.
    """
    (c_z, s_z), (c_x, s_x), (c_y, s_y) = units
    k = population.num_classes
    mass = np.asarray(population.arm_masses)
    z = (np.asarray(conditional_z(population)) - c_z) / s_z  # (t, u, d)
    if level == 2:
        z = z[:1]
    x = (np.asarray(population.x_means) - c_x) / s_x
    y = (np.asarray(population.class_means) - c_y) / s_y
    parts = [np.log(mass), z, x, y]
    shapes = [part.shape for part in parts]
    theta = np.concatenate([part.ravel() for part in parts]).astype(complex)

    def with_one(means: Array) -> Array:
        return np.concatenate([np.ones_like(means[..., :1]), means], axis=-1)

    def model(theta: Array) -> Array:
        logits, z, x, y = split(theta, shapes)
        p = softmax(logits.ravel()).reshape(2, k)
        z, y = np.broadcast_to(with_one(z), (2, k, 2)), np.stack([np.ones_like(y), y], axis=-1)
        return np.einsum("tu,tuz,ux,tuy->tzxy", p, z, with_one(x), y).ravel()

    def law(theta: Array) -> Array:
        logits, _, _, y = split(theta, shapes)
        pi = softmax(logits.ravel()).reshape(2, k).sum(0)
        effects = s_y * (y[1] - y[0])
        return np.concatenate([[pi @ effects], effects, pi])

    # The covariance is singular by the total mass, of which the derivative is zero.
    slope = complex_step(model, theta)
    weight = np.linalg.pinv(spread, rcond=1e-11, hermitian=True)
    return variances(slope.T @ weight @ slope, complex_step(law, theta))


def conditional_z(population) -> Array:
    """E[Z | T=t, U=u] for one column of Z, from the density of Z given u and the treatment."""
    family, found = population.family, np.zeros((2, population.num_classes, 1))
    for u in range(population.num_classes):
        mean = float(population.z_means[u, 0])
        z, weight = grid(np.array([mean]), family)
        if family == "gaussian":
            density = np.exp(-((z - mean) ** 2) / 2) / (2 * np.pi) ** 0.5
        else:
            density = np.full(len(z), 1 / (2 * 3**0.5))
        score = float(population.intercepts[u]) + float(population.slopes[u, 0]) * (z - mean)
        if family == "gaussian":
            score = np.array([normal_cdf(s) for s in score])
        for t, p in enumerate((1 - score, score)):
            mass = density * weight * p
            found[t, u, 0] = mass @ z / mass.sum()
    return found


def normal_cdf(value: float) -> float:
    """Phi."""
    return math.erfc(-value / 2**0.5) / 2
