"""Coupled classes fitted to moments of any features by weighted least squares.

The model tensor is ``sum_u mass[t, u] A[t, z, u] B[x, u] C[t, y, u]``, with the mass
``P(T=t, U=u)`` and the features' conditional means A, B and C; at level 2 A does not vary with
t. Unconstrained coordinates: a softmax where features are indicators, otherwise the constant is
pinned to 1, and the class means of a bounded outcome are kept inside its range by a logistic
link.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from jaxmix.estimators import spectral
from jaxmix.model.structure import BY_ARM, Factors
from jaxmix.sample.moments import Moments
from jaxmix.solvers.lanes import batched, by_chunks
from jaxmix.solvers.minimise import Minimum, damped, minimise
from jaxmix.status import Status

CUTOFF = 1e-8
"""Eigenvalue of the moments' covariance, relative to the largest, below which it counts as 0."""

FLAT = 10.0
"""Standard error of a share, or of a class mean in units of the outcome's range, from which on the
optimum counts as flat: ten times all that the number could be."""

_MOVES = 1e-6  # change of a number along a direction of unit length that counts as one
_FINISH = 1e-12  # predicted gain to which steps go on: a few millionths of a standard error
_MARGIN = 1e-3  # of a bounded range, kept free by starts


class Coordinates(NamedTuple):
    """Unconstrained parameters: the first entry of every softmax, and constants, left out."""

    mass: Float[Array, " a*k-1"]
    A: Float[Array, "a d_z-1 k"]
    B: Float[Array, "d_x-1 k"]
    C: Float[Array, "a d_y-1 k"]


class Profiles(NamedTuple):
    """What the coordinates stand for."""

    mass: Float[Array, "a k"]
    A: Float[Array, "a d_z k"]
    B: Float[Array, "d_x k"]
    C: Float[Array, "a d_y k"]


@dataclasses.dataclass(frozen=True)
class Layout:
    """What is static about a fit: sizes, and which views are one-hot."""

    num_classes: int
    level: int
    onehot: bool
    onehot_y: bool
    shape: tuple[int, ...]
    num_starts: int
    max_steps: int
    tolerance: float
    warm: bool
    optimiser: optax.GradientTransformation | None = None
    common_x: bool = True  # whether the arms share the profiles of x

    @classmethod
    def of(
        cls,
        moments: Moments,
        *,
        num_classes: int,
        level: int,
        num_starts: int,
        max_steps: int,
        tolerance: float,
        warm: bool,
        optimiser: optax.GradientTransformation | None = None,
    ) -> Layout:
        """Return the layout of a fit to moments, which say what the views are."""
        return cls(
            onehot=moments.num_shared == 0,
            onehot_y=moments.onehot_y,
            shape=moments.tensor.shape,
            num_classes=num_classes,
            level=level,
            num_starts=num_starts,
            max_steps=max_steps,
            tolerance=tolerance,
            warm=warm,
            optimiser=optimiser,
        )

    @property
    def num_parameters(self) -> int:
        """Free parameters."""
        a, d_z, d_x, d_y = self.shape
        by_z = a if self.level == 3 else 1
        by_x = 1 if self.common_x else a
        k = self.num_classes
        return a * k - 1 + by_z * (d_z - 1) * k + by_x * (d_x - 1) * k + a * (d_y - 1) * k


class Target(NamedTuple):
    """What is fitted: the moments, their weight, and the limits of the outcome's features."""

    tensor: Float[Array, "a d_z d_x d_y"]
    root: Float[Array, "m m"]
    limits: Float[Array, " 2"]
    scale: Float[Array, ""]


def target(moments: Moments, weighted: bool) -> Target:
    """Return moments and weight: ``root' root`` is the covariance's pseudo-inverse, or 1."""
    size = moments.tensor.size
    dtype = moments.tensor.dtype
    if weighted:
        assert moments.covariance is not None
        root = _root(jax.lax.stop_gradient(moments.covariance))
    else:
        root = jnp.eye(size, dtype=dtype)
    last = moments.value_y[-1] if moments.value_y.shape[0] == 2 else jnp.asarray(1.0, dtype)
    limits = (moments.range_y - moments.value_y[0]) / last
    # A population has no number of rows: any finite one has the same minimum.
    scale = jnp.where(
        jnp.isfinite(moments.num_rows), moments.num_rows, jnp.finfo(dtype).eps ** (-2 / 3)
    )
    return Target(moments.tensor, root, limits, scale.astype(dtype))


def _root_of(covariance: Float[Array, "m m"]) -> Float[Array, "m m"]:
    values, vectors = jnp.linalg.eigh(covariance)
    kept = values > CUTOFF * values[-1]
    found: Float[Array, "m m"] = (
        vectors * jnp.where(kept, jnp.where(kept, values, 1.0) ** -0.5, 0.0)
    ).T
    return found


# A chunk at a time: long batches of decompositions side by side can block each other's threads.
_root = batched(functools.partial(by_chunks, jax.vmap(_root_of)))


def profiles(coordinates: Coordinates, limits: Float[Array, " 2"], layout: Layout) -> Profiles:
    """Return the probabilities and conditional means behind the coordinates."""
    a, k = layout.shape[0], layout.num_classes
    mass = jax.nn.softmax(jnp.append(0.0, coordinates.mass)).reshape(a, k)
    if layout.onehot_y:
        C = _softmax(coordinates.C, 1)
    elif coordinates.C.shape[1] == 1:
        C = _with_one(_bounded(coordinates.C, limits), 1)
    else:
        C = _with_one(coordinates.C, 1)
    link = _softmax if layout.onehot else _with_one
    A = link(coordinates.A, 1)
    return Profiles(mass, jnp.broadcast_to(A, (a, *A.shape[1:])), link(coordinates.B, -2), C)


def coordinates(profiles: Profiles, limits: Float[Array, " 2"], layout: Layout) -> Coordinates:
    """Return the coordinates of profiles that lie inside their limits."""
    mass = jnp.log(profiles.mass).reshape(-1)
    A = profiles.A if layout.level == 3 else profiles.A[:1]
    if layout.onehot_y:
        C = _logits(profiles.C, 1)
    elif profiles.C.shape[1] == 2:
        C = _unbounded(profiles.C[:, 1:], limits)
    else:
        C = profiles.C[:, 1:]
    B = profiles.B
    if layout.onehot:
        return Coordinates(mass[1:] - mass[0], _logits(A, 1), _logits(B, 0), C)
    return Coordinates(mass[1:] - mass[0], A[:, 1:], B[1:], C)


def _softmax(logits: Array, axis: int) -> Array:
    first = jnp.zeros_like(jax.lax.slice_in_dim(logits, 0, 1, axis=axis))
    return jax.nn.softmax(jnp.concatenate([first, logits], axis), axis=axis)


def _logits(p: Array, axis: int) -> Array:
    first = jax.lax.slice_in_dim(p, 0, 1, axis=axis)
    return jnp.log(jax.lax.slice_in_dim(p, 1, None, axis=axis)) - jnp.log(first)


def _with_one(values: Array, axis: int) -> Array:
    ones = jnp.ones_like(jnp.take(values, jnp.zeros(1, int), axis=axis, mode="clip"))
    return jnp.concatenate([ones, values], axis)


def _bounded(values: Array, limits: Float[Array, " 2"]) -> Array:
    finite = jnp.all(jnp.isfinite(limits))
    low, high = jnp.where(finite, limits, jnp.array([0.0, 1.0], values.dtype))
    return jnp.where(finite, low + (high - low) * jax.nn.sigmoid(values), values)


def _unbounded(values: Array, limits: Float[Array, " 2"]) -> Array:
    finite = jnp.all(jnp.isfinite(limits))
    low, high = jnp.where(finite, limits, jnp.array([0.0, 1.0], values.dtype))
    inside = jnp.clip((values - low) / (high - low), _MARGIN, 1 - _MARGIN)
    return jnp.where(finite, jnp.log(inside) - jnp.log1p(-inside), values)


def model(profiles: Profiles) -> Float[Array, "a d_z d_x d_y"]:
    """Return the model's moments; B is ``(d_x, k)``, or ``(a, d_x, k)`` where arms differ in it."""
    mass, *parts = profiles
    return BY_ARM[profiles.B.ndim == 2].cells(Factors(mass, tuple(parts)))


def spectral_start(moments: Moments, layout: Layout) -> Coordinates:
    """Return the spectral estimate, the other profiles by regressing on those of x."""
    k = layout.num_classes
    found = spectral.solve(moments, k).value
    B = jnp.nan_to_num(found.x_profiles)
    if layout.onehot:
        B = jnp.maximum(B, _MARGIN)
    B = B / jnp.einsum("x,xu->u", moments.one_x, B)
    ridge = 1e-6 * jnp.eye(k, dtype=B.dtype)
    by_class = jnp.einsum("ux,tzxy->tzyu", jnp.linalg.solve(B.T @ B + ridge, B.T), moments.tensor)
    by_z = jnp.einsum("tzyu,y->tzu", by_class, moments.one_y)
    by_y = jnp.einsum("tzyu,z->tyu", by_class, moments.one_z)
    raw = jnp.einsum("tzu,z->tu", by_z, moments.one_z)
    mass = jnp.maximum(raw, _MARGIN * moments.arm_probabilities[:, None])
    safe = jnp.where(jnp.abs(raw) < mass, mass, raw)[:, None, :]
    A, C = by_z / safe, by_y / safe
    if layout.level == 2:
        A = jnp.broadcast_to(jnp.einsum("tu,tzu->zu", mass, A) / mass.sum(0), A.shape)
    if layout.onehot:
        A, B = _positive(A, 1), _positive(B, 0)
    if layout.onehot_y:
        C = _positive(C, 1)
    limits = target(moments, False).limits
    return coordinates(Profiles(mass / mass.sum(), A, B, C), limits, layout)


def _positive(p: Array, axis: int) -> Array:
    p = jnp.maximum(p, _MARGIN)
    return p / p.sum(axis, keepdims=True)


def residuals(flat: Array, target: Target, layout: Layout) -> Float[Array, " m"]:
    """Return the whitened residuals, in units that make half their squares a log-likelihood."""
    parts = profiles(unravel(flat, layout), target.limits, layout)
    gap = (model(parts) - target.tensor).reshape(-1)
    return jnp.sqrt(target.scale) * (target.root @ gap)


def unravel(flat: Array, layout: Layout) -> Coordinates:
    """Return the coordinates behind a flat vector."""
    found: Coordinates = ravel_pytree(_zeros(layout, flat.dtype))[1](flat)
    return found


def _zeros(layout: Layout, dtype: jnp.dtype) -> Coordinates:
    a, d_z, d_x, d_y = layout.shape
    k = layout.num_classes
    by_z = a if layout.level == 3 else 1
    of_x = (d_x - 1, k) if layout.common_x else (a, d_x - 1, k)
    shapes = [(a * k - 1,), (by_z, d_z - 1, k), of_x, (a, d_y - 1, k)]
    return Coordinates(*(jnp.zeros(shape, dtype) for shape in shapes))


def loss(flat: Array, target: Target, layout: Layout) -> Float[Array, ""]:
    """Return half the sum of squares: J / 2 for `gmm`."""
    return jnp.sum(residuals(flat, target, layout) ** 2) / 2


def fit(
    moments: Moments,
    weighted: bool,
    weight: Array | None,
    key: Array,
    first: Array | None,
    layout: Layout,
) -> tuple[Minimum[Array], Target]:
    """Fit moments from the spectral start, and from perturbations of it where asked for."""
    goal = target(moments, weighted and weight is None)
    if weight is not None:
        goal = goal._replace(root=weight)
    if not layout.warm:
        first = ravel_pytree(spectral_start(moments, layout))[0]
    assert first is not None
    noise = jax.random.normal(key, (layout.num_starts, len(first)), first.dtype)
    starts = first + jnp.where(jnp.arange(layout.num_starts)[:, None] == 0, 0.0, noise)
    return jax.vmap(_climb(layout), (0, None))(starts, goal), goal


@functools.lru_cache(maxsize=256)
def _climb(layout: Layout) -> Any:
    def one(start: Array, goal: Target) -> Minimum[Array]:
        def step(flat: Array, damping: Array, exact: Array) -> tuple[Array, Array]:
            del exact
            gap = residuals(flat, goal, layout)
            slope = jax.jacfwd(residuals)(flat, goal, layout)
            gradient = slope.T @ gap
            normal = slope.T @ slope
            metric = jnp.maximum(jnp.diag(normal), jnp.finfo(gap.dtype).eps * jnp.trace(normal))
            root = jnp.sqrt(metric)
            scaled = normal / (root[:, None] * root) + damping * jnp.eye(len(root))
            lower = jnp.linalg.cholesky(scaled)
            move = -jax.scipy.linalg.cho_solve((lower, True), gradient / root) / root
            return move, -(gradient @ move) / 2

        def value(flat: Array) -> Array:
            return loss(flat, goal, layout)

        if layout.optimiser is not None:
            start = minimise(
                value, start, layout.optimiser, tolerance=layout.tolerance,
                max_steps=layout.max_steps,
            ).params  # fmt: skip
        return minimise(
            value,
            start,
            damped(step, lambda flat, move: flat + move),
            tolerance=layout.tolerance,
            max_steps=layout.max_steps,
            finish=_FINISH,
        )

    # Members of a batch that need many steps hold up their own chunk alone.
    return batched(functools.partial(by_chunks, jax.vmap(one)))


class Curvature(NamedTuple):
    """What the whitened derivative of the model says of an optimum.

    Attributes
    ----------
    num_weights
        Rank of the weight: moments that count.
    rank
        Rank of the derivative, by eigenvalues of its scaled square above the root of epsilon.
    spread
        The largest standard error among the shares and the class means, these in units of the
        outcome's range; infinite where a direction without information moves one of them.
    """

    num_weights: Array
    rank: Array
    spread: Array


def curvature(flat: Array, target: Target, layout: Layout) -> Curvature:
    """Return the ranks behind degrees of freedom, and how far the optimum is from flat."""
    slope = jax.jacfwd(residuals)(flat, target, layout)
    normal = slope.T @ slope
    root = jnp.sqrt(jnp.maximum(jnp.diag(normal), jnp.finfo(flat.dtype).tiny))
    values, vectors = jnp.linalg.eigh(normal / (root[:, None] * root))
    kept = values > jnp.sqrt(jnp.finfo(flat.dtype).eps)

    def numbers(flat: Array) -> Array:
        parts = profiles(unravel(flat, layout), target.limits, layout)
        span = target.limits[1] - target.limits[0]
        means = parts.C if layout.onehot_y else parts.C / jnp.where(jnp.isfinite(span), span, 1.0)
        return jnp.concatenate([parts.mass.sum(0), means.reshape(-1)])

    along = (jax.jacfwd(numbers)(flat) / root) @ vectors
    variance = jnp.sum(jnp.where(kept, along**2 / jnp.where(kept, values, 1.0), 0.0), axis=1)
    # A probability at 0 is a coordinate that runs to infinity, and moves nothing any more.
    lost = jnp.any(~kept & (jnp.abs(along) > _MOVES))
    spread = jnp.where(lost, jnp.inf, jnp.sqrt(variance.max()))
    return Curvature(jnp.sum(jnp.any(target.root != 0, axis=1)), jnp.sum(kept), spread)


def free_rank(flat: Array, target: Target, layout: Layout, floor: float) -> Array:
    """Return the rank of the whitened Jacobian, coordinates at a bound counted as fixed.

    A probability at 0, or a mean at the end of its range, is a coordinate that runs to infinity.
    It counts as fixed where the squared slope of the residuals, the information on it in
    log-likelihood units, is at most `floor`.
    """
    slope = jax.jacfwd(residuals)(flat, target, layout)
    size = jnp.linalg.norm(slope, axis=0)
    free = size**2 > floor
    scaled = jnp.where(free, slope / jnp.where(free, size, 1.0), 0.0)
    values = jnp.linalg.svd(scaled, compute_uv=False)
    return jnp.sum(values > jnp.sqrt(jnp.finfo(flat.dtype).eps))


def stationarity(flat: Array, args: tuple[Target], layout: Layout) -> Array:
    """Return the gradient, which is zero at the optimum."""
    found: Array = jax.grad(loss)(flat, args[0], layout)
    return found


def best(found: Minimum[Array]) -> tuple[Array, Array]:
    """Return the index of the best start: of the successful ones where there is any."""
    values = jnp.where(jnp.isfinite(found.value), found.value, jnp.inf)
    success = found.status == Status.SUCCESS
    masked = jnp.where(success, values, jnp.inf)
    return jnp.where(jnp.any(success), jnp.argmin(masked), jnp.argmin(values)), values
