"""Tests of levels 2 and 3 as pure functions: a level against the data, and nested models.

The statistic is G^2 of a table of counts, twice the log-likelihood that a model loses, or
Hansen's J of moments with their covariance; between nested models it is the difference. Degrees
of freedom are ranks of the models' derivatives at the null's fit, with probabilities at 0 counted
as fixed; where even inside the bounds none is left, there is no test. All functions take one data
set and run under ``vmap``.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int

from jaxmix import moments as moments_
from jaxmix.estimators import factorization, least_squares, likelihood, table
from jaxmix.estimators.least_squares import Coordinates, Layout, Target
from jaxmix.estimators.table import Cells, Factors
from jaxmix.inference.verdict import Statistic, chi_square
from jaxmix.moments import Moments
from jaxmix.status import Status

_TOLERANCE = 1e-4  # predicted gain at which fits stop, in log-likelihood units
_MAX_STEPS = 500


def fit_statistic(
    moments_or_cells: Moments | Cells,
    k: int,
    *,
    key: Array,
    level: int = 3,
    loss: str | None = None,
    num_starts: int | None = None,
) -> Statistic:
    """Test a level by how well its classes fit: G^2 of a table, or J of moments.

    ``G^2 = 2 sum N log(N / (n p))`` and ``J = n min (m - m_theta)' W (m - m_theta)`` are
    chi-square, where the level holds with k classes, with the rank of the free cells or moments
    minus that of the model's derivative.

    Assumes a random sample of many rows per cell, and probabilities away from 0.

    Parameters
    ----------
    moments_or_cells
        Counts of ``(T, Z, X, Y)``, or moments; for J with their covariance.
    k
        Number of classes.
    key
        JAX key of the starts.
    level
        2 or 3.
    loss
        ``"kl"`` for G^2, ``"gmm"`` for J; by default G^2 of a table and J elsewhere.
    num_starts
        Most starts, as in `jaxmix.factorization.solve`.

    References
    ----------
    Wilks (1938), Annals of Mathematical Statistics 9; Goodman (1974), Biometrika 61; Hansen
    (1982), Econometrica 50.

    Examples
    --------
    >>> import jax, jaxmix as jm
    >>> counts = jm.populations.paper_main(zt_strength=1.0).counts(jax.random.key(0), 10_000)
    >>> found = fit_statistic(counts, 2, key=jax.random.key(1))
    >>> int(found.df), bool(found.p_value > 0.05)
    (2, True)
    """
    moments, loss = _prepared(moments_or_cells, loss)
    if loss == "kl":
        null = _table_fit(moments, k, key, level, num_starts)
        left = _left(null, lambda factors: jnp.subtract(*table_ranks(factors)))
        return chi_square(null.g2, left, null.found)
    fitted = _moments_fit(moments, k, key, level, num_starts)
    num_moments = jnp.sum(jnp.any(fitted.target.root != 0, axis=1))
    left = _left_of_moments(lambda floor: num_moments - fitted.rank(floor))
    return chi_square(fitted.j, left, fitted.found)


@functools.partial(jax.jit, static_argnames="level")
def left_to_test(moments: Moments, start: Any, *, level: int = 3) -> Int[Array, ""]:
    """Return the degrees of freedom of G^2 at a fit that is there already.

    Parameters
    ----------
    moments
        Of a table.
    start
        ``sol.stats["start"]`` of `jaxmix.factorization.solve` with loss ``"kl"``.
    level
        Of the fit.
    """
    cells = factorization.cells_of(moments, level)
    fitted = _TableFit(cells, Factors(*start), jnp.zeros((), cells.dtype), jnp.asarray(True))
    return _left(fitted, lambda factors: jnp.subtract(*table_ranks(factors)))


def nested_statistic(
    moments_or_cells: Moments | Cells,
    k: int,
    *,
    key: Array,
    loss: str | None = None,
    num_starts: int | None = None,
) -> Statistic:
    """Test level 2 inside level 3: whether Z affects T within the classes.

    The likelihood ratio ``G^2(level 2) - G^2(level 3)``, or the difference of the two J under one
    weight (Newey, West 1987); chi-square with the difference of the models' ranks where level 2
    holds.

    Assumes level 3, and what `fit_statistic` does.

    Parameters
    ----------
    moments_or_cells, k, key, loss, num_starts
        As in `fit_statistic`.

    References
    ----------
    Wilks (1938), Annals of Mathematical Statistics 9; Newey, West (1987), International Economic
    Review 28.

    Examples
    --------
    >>> import jax, jaxmix as jm
    >>> counts = jm.populations.paper_main(zt_strength=1.0).counts(jax.random.key(0), 10_000)
    >>> found = nested_statistic(counts, 2, key=jax.random.key(1))
    >>> int(found.df), bool(found.p_value < 0.05)
    (2, True)
    """
    moments, loss = _prepared(moments_or_cells, loss)
    if loss == "kl":
        return _nested_of_table(moments, k, key, num_starts)
    null = _moments_fit(moments, k, key, 2, num_starts)
    wide = dataclasses.replace(null.layout, level=3)
    start = _widened(null.flat, null.layout, wide)
    # Two starts: the estimate of level 3, and that of level 2, which can only be improved on.
    own = _moments_fit(moments, k, key, 3, num_starts)
    again, found = _climb(moments, null.target, key, start, wide)
    lower = jnp.minimum(jnp.where(own.found, own.j, jnp.inf), jnp.where(found, again, jnp.inf))
    left = _left_of_moments(lambda floor: _free(start, null.target, wide, floor) - null.rank(floor))
    return chi_square(_gain(null.j, lower), left, null.found & jnp.isfinite(lower))


def arms_statistic(
    moments_or_cells: Moments | Cells,
    k: int,
    *,
    key: Array,
    loss: str | None = None,
    num_starts: int | None = None,
) -> Statistic:
    """Test whether the arms have the same classes by x: one ``B = E[phi_x | U]``, or one each.

    The wider model fits every arm apart, each with its own classes; the statistic is the G^2 of
    level 3 minus the sum of the arms', or the difference of the two J under one weight;
    chi-square with the difference of the models' ranks where level 3 holds. In the design with
    binary Z, X and Y each arm alone fits exactly, and all that level 3 says is this equality.

    Parameters
    ----------
    moments_or_cells, k, key, loss, num_starts
        As in `fit_statistic`. The wider model starts at the narrower one's fit.

    References
    ----------
    Wilks (1938), Annals of Mathematical Statistics 9; Clogg, Goodman (1985), Sociological
    Methodology 15, on simultaneous latent structure analysis across groups.

    Examples
    --------
    >>> import jax, jaxmix as jm
    >>> counts = jm.populations.paper_main(zt_strength=1.0).counts(jax.random.key(0), 10_000)
    >>> found = arms_statistic(counts, 2, key=jax.random.key(1))
    >>> int(found.df), bool(found.p_value > 0.05)
    (2, True)
    """
    moments, loss = _prepared(moments_or_cells, loss)
    if loss == "kl":
        return _arms_of_table(moments, k, key, num_starts)
    null = _moments_fit(moments, k, key, 3, num_starts)
    wide = dataclasses.replace(null.layout, common_x=False)
    start = _widened(null.flat, null.layout, wide)
    value, found = _climb(moments, null.target, key, start, wide)
    left = _left_of_moments(lambda floor: _free(start, null.target, wide, floor) - null.rank(floor))
    return chi_square(_gain(null.j, value), left, null.found & found)


@jax.jit
def table_ranks(factors: Factors) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """Return how many cells are possible, and the rank of the model's derivative there.

    Cells of probability 0 do not occur, and probabilities at 0 stay there. The total of W is one
    of the directions, so the difference of the two numbers is what is left to test. Columns are
    scaled to Fisher's information; singular values below the square root of the machine epsilon
    count as 0.
    """
    vector, unravel = ravel_pytree(factors)
    p = table.model(factors).reshape(-1)
    possible = p > 0
    slope = jax.jacfwd(lambda v: table.model(unravel(v)).reshape(-1))(vector)
    slope = slope * jnp.where(possible, jnp.where(possible, p, 1.0) ** -0.5, 0.0)[:, None]
    slope = jnp.where(vector > 0, slope, 0.0)
    size = jnp.linalg.norm(slope, axis=0)
    values = jnp.linalg.svd(slope / jnp.where(size > 0, size, 1.0), compute_uv=False)
    return possible.sum(), jnp.sum(values > jnp.sqrt(jnp.finfo(p.dtype).eps))


def _prepared(moments_or_cells: Moments | Cells, loss: str | None) -> tuple[Moments, str]:
    moments = moments_or_cells
    if not isinstance(moments, Moments):
        moments = moments_.from_counts(moments, covariance=loss == "gmm")
    loss = loss or ("kl" if moments.is_table else "gmm")
    if loss not in ("kl", "gmm"):
        raise ValueError(f"loss is {loss!r}: use 'kl' or 'gmm'")
    return jax.lax.stop_gradient(moments), loss


def _converged(status: Int[Array, ""]) -> Bool[Array, ""]:
    return (status != Status.MAX_STEPS) & (status != Status.NONFINITE)


def _gain(narrow: Float[Array, ""], wide: Float[Array, ""]) -> Float[Array, ""]:
    """Return the difference, never negative: the wide model can do what the narrow one does."""
    return jnp.maximum(narrow - wide, 0.0)


class _TableFit(NamedTuple):
    cells: Cells
    factors: Factors
    g2: Float[Array, ""]
    found: Bool[Array, ""]


def _table_fit(
    moments: Moments, k: int, key: Array, level: int, num_starts: int | None
) -> _TableFit:
    """Return the likelihood fit; at level 2 as a table of one arm with the outcome view (T, Y)."""
    last = min(1, moments.tensor.shape[0] - 1)
    sol = factorization.solve(
        moments, k, key=key, level=level, num_starts=num_starts, arm=last,
        tolerance=_TOLERANCE, max_steps=_MAX_STEPS,
    )  # fmt: skip
    cells = factorization.cells_of(moments, level)
    factors = Factors(*sol.stats["start"])
    return _TableFit(cells, factors, sol.stats["g2"], _converged(sol.status))


def _left(null: _TableFit, dimension: Callable[[Factors], Array]) -> Int[Array, ""]:
    """Return a dimension at the fit; 0 where it owes its existence to probabilities at 0 alone.

    What is 0 because a level never occurred, in an arm for Z and Y, stays so.
    """
    W, B, C = likelihood.mix(null.factors)
    inside = Factors(
        jnp.where(null.cells.sum((2, 3))[..., None] > 0, W, 0.0),
        jnp.where(null.cells.sum((0, 1, 3))[:, None] > 0, B, 0.0),
        jnp.where(null.cells.sum((1, 2))[..., None] > 0, C, 0.0),
    )
    return jnp.where(dimension(inside) > 0, dimension(null.factors), 0)


def _nested_of_table(moments: Moments, k: int, key: Array, num_starts: int | None) -> Statistic:
    a, d_y = moments.tensor.shape[0], moments.tensor.shape[-1]
    null = _table_fit(moments, k, key, 2, num_starts)
    wide = _table_fit(moments, k, key, 3, num_starts)

    def as_level_3(factors: Factors) -> Factors:
        W, B, C = factors
        by_arm = C.reshape(a, d_y, k)
        propensity = by_arm.sum(1)[:, None, :]
        safe = jnp.where(propensity > 0, propensity, 1.0)
        return Factors(W * propensity, B, by_arm / safe)

    def dimension(factors: Factors) -> Array:
        return table_ranks(as_level_3(factors))[1] - table_ranks(factors)[1]

    gain = _gain(null.g2, wide.g2)
    return chi_square(gain, _left(null, dimension), null.found & wide.found)


def _arms_of_table(moments: Moments, k: int, key: Array, num_starts: int | None) -> Statistic:
    a = moments.tensor.shape[0]
    null = _table_fit(moments, k, key, 3, num_starts)

    def apart(factors: Factors) -> Factors:
        """Return the arms as tables of one arm each, along a first axis."""
        W, B, C = factors
        return Factors(W[:, None], jnp.broadcast_to(B, (a, *B.shape)), C[:, None])

    loss, done = _climb_apart(null.cells[:, None], apart(null.factors), key, k)

    def dimension(factors: Factors) -> Array:
        return jax.vmap(table_ranks)(apart(factors))[1].sum() - table_ranks(factors)[1]

    gain = _gain(null.g2, 2 * loss)
    return chi_square(gain, _left(null, dimension), null.found & done)


@functools.partial(jax.jit, static_argnames="k")
def _climb_apart(cells: Cells, first: Factors, key: Array, k: int) -> tuple[Array, Array]:
    """Fit tables along the first axis apart; return their losses' sum, and whether all ended."""
    options = likelihood.Options(
        num_classes=k, level=3, num_arms=1, num_starts=1, max_steps=_MAX_STEPS,
        tolerance=_TOLERANCE, spectral_start=False, warm=True,
    )  # fmt: skip
    key_data = jax.random.key_data(key)
    fits = jax.vmap(lambda own, start: likelihood.maximise(own, key_data, start, options))(
        cells, first
    )
    return fits.loss.sum(), jnp.all(fits.done)


class _MomentsFit(NamedTuple):
    flat: Array
    target: Target
    layout: Layout
    j: Float[Array, ""]
    found: Bool[Array, ""]

    def rank(self, floor: float) -> Array:
        return _free(self.flat, self.target, self.layout, floor)


def _moments_fit(
    moments: Moments, k: int, key: Array, level: int, num_starts: int | None
) -> _MomentsFit:
    sol = factorization.solve(
        moments, k, key=key, level=level, loss="gmm", num_starts=num_starts,
        tolerance=_TOLERANCE, max_steps=_MAX_STEPS,
    )  # fmt: skip
    layout = Layout(
        num_classes=k,
        level=level,
        onehot=moments.num_shared == 0,
        onehot_y=moments.onehot_y,
        shape=moments.tensor.shape,
        num_starts=1,
        max_steps=_MAX_STEPS,
        tolerance=_TOLERANCE,
        warm=True,
        optimiser=None,
    )
    target = least_squares.target(moments, False)._replace(root=sol.stats["weight"])
    return _MomentsFit(sol.stats["start"], target, layout, sol.stats["j"], _converged(sol.status))


_free = functools.partial(jax.jit, static_argnames=("layout", "floor"))(least_squares.free_rank)


@functools.partial(jax.jit, static_argnames="layout")
def _climb(
    moments: Moments, target: Target, key: Array, start: Array, layout: Layout
) -> tuple[Array, Array]:
    """Fit moments from one start; return J, and whether the fit ended."""
    found, _ = least_squares.fit(moments, True, target.root, key, start, layout)
    value = 2 * found.value[0]
    return value, _converged(found.status[0]) & jnp.isfinite(value)


def _left_of_moments(dimension: Callable[[float], Array]) -> Int[Array, ""]:
    """Return a dimension with bounds counted as fixed; 0 where it owes its existence to them."""
    return jnp.where(dimension(0.0) > 0, dimension(_TOLERANCE), 0)


def _widened(flat: Array, narrow: Layout, wide: Layout) -> Array:
    """Return the coordinates of a model in those of one that contains it."""
    own = least_squares.unravel(flat, narrow)
    shapes = jax.eval_shape(lambda v: least_squares.unravel(v, wide), _blank(wide, flat))
    parts = (jnp.broadcast_to(o, s.shape) for o, s in zip(own, shapes, strict=True))
    return ravel_pytree(Coordinates(*parts))[0]


def _blank(layout: Layout, like: Array) -> Array:
    return jnp.zeros(layout.num_parameters, like.dtype)
