"""Tests of levels 2 and 3 as pure functions: a level against the data, and nested models.

The statistic is G^2 of a table of counts, twice the log-likelihood that a model loses, or
Hansen's J of moments with their covariance; between nested models it is the difference. Degrees
of freedom are ranks of the models' derivatives at the null's fit, with probabilities at 0 counted
as fixed; where even inside the bounds none is left, there is no test. All functions take one data
set and run under ``vmap``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxmix.estimators.base import Start
from jaxmix.inference.level_fits import (
    TableFit,
    climb,
    climb_apart,
    free_rank,
    left_of_moments,
    left_of_table,
    moments_fit,
    table_fit,
    table_fit_at,
    table_ranks,
    widened,
)
from jaxmix.inference.verdict import Statistic, chi_square
from jaxmix.model.table import Cells, Factors
from jaxmix.sample import moments as moments_
from jaxmix.sample.moments import Moments
from jaxmix.solvers.compiling import compiled


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
        null = table_fit(moments, k, key, level, num_starts)
        left = left_of_table(null, lambda factors: jnp.subtract(*table_ranks(factors)))
        return chi_square(null.g2, left, null.found)
    fitted = moments_fit(moments, k, key, level, num_starts)
    num_moments = jnp.sum(jnp.any(fitted.target.root != 0, axis=1))
    left = left_of_moments(lambda floor: num_moments - fitted.rank(floor))
    return chi_square(fitted.j, left, fitted.found)


@compiled("level")
def left_to_test(moments: Moments, start: Start, *, level: int = 3) -> Int[Array, ""]:
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
    return left_of_table(
        table_fit_at(moments, start, level), lambda factors: jnp.subtract(*table_ranks(factors))
    )


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
        two, three = (table_fit(moments, k, key, level, num_starts) for level in (2, 3))
        return _nested_of_table(two, three, k)
    null = moments_fit(moments, k, key, 2, num_starts)
    wide = dataclasses.replace(null.layout, level=3)
    start = widened(null.flat, null.layout, wide)
    # Two starts: the estimate of level 3, and that of level 2, which can only be improved on.
    own = moments_fit(moments, k, key, 3, num_starts)
    again, found = climb(moments, null.target, key, start, wide)
    lower = jnp.minimum(jnp.where(own.found, own.j, jnp.inf), jnp.where(found, again, jnp.inf))
    left = left_of_moments(
        lambda floor: free_rank(start, null.target, wide, floor) - null.rank(floor)
    )
    return chi_square(_gain(null.j, lower), left, null.found & jnp.isfinite(lower))


def arms_statistic(
    moments_or_cells: Moments | Cells,
    k: int,
    *,
    key: Array,
    loss: str | None = None,
    num_starts: int | None = None,
    fitted: Mapping[str, object] | None = None,
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
    fitted
        ``sol.stats`` of `jaxmix.factorization.solve` on the same data by the same loss, where
        level 3 is fitted already (and converged): its ``start``, and ``weight`` of `gmm`.

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
        return _arms_of_table(table_fit(moments, k, key, 3, num_starts, fitted), k, key)
    null = moments_fit(moments, k, key, 3, num_starts, fitted)
    wide = dataclasses.replace(null.layout, common_x=False)
    start = widened(null.flat, null.layout, wide)
    value, found = climb(moments, null.target, key, start, wide)
    left = left_of_moments(
        lambda floor: free_rank(start, null.target, wide, floor) - null.rank(floor)
    )
    return chi_square(_gain(null.j, value), left, null.found & found)


def _prepared(moments_or_cells: Moments | Cells, loss: str | None) -> tuple[Moments, str]:
    moments = moments_or_cells
    if not isinstance(moments, Moments):
        moments = moments_.from_counts(moments, covariance=loss == "gmm")
    loss = loss or ("kl" if moments.is_table else "gmm")
    if loss not in ("kl", "gmm"):
        raise ValueError(f"loss is {loss!r}: use 'kl' or 'gmm'")
    return jax.lax.stop_gradient(moments), loss


def _gain(narrow: Float[Array, ""], wide: Float[Array, ""]) -> Float[Array, ""]:
    """Return the difference, never negative: the wide model can do what the narrow one does."""
    return jnp.maximum(narrow - wide, 0.0)


@compiled("k")
def _nested_of_table(null: TableFit, wide: TableFit, k: int) -> Statistic:
    a, _, _, d_y = wide.cells.shape

    def as_level_3(factors: Factors) -> Factors:
        W, B, C = factors
        by_arm = C.reshape(a, d_y, k)
        propensity = by_arm.sum(1)[:, None, :]
        safe = jnp.where(propensity > 0, propensity, 1.0)
        return Factors(W * propensity, B, by_arm / safe)

    def dimension(factors: Factors) -> Array:
        return table_ranks(as_level_3(factors))[1] - table_ranks(factors)[1]

    gain = _gain(null.g2, wide.g2)
    return chi_square(gain, left_of_table(null, dimension), null.found & wide.found)


@compiled("k")
def _arms_of_table(null: TableFit, k: int, key: Array) -> Statistic:
    a = len(null.cells)

    def apart(factors: Factors) -> Factors:
        """Return the arms as tables of one arm each, along a first axis."""
        W, B, C = factors
        return Factors(W[:, None], jnp.broadcast_to(B, (a, *B.shape)), C[:, None])

    loss, done = climb_apart(null.cells[:, None], apart(null.factors), key, k)

    def dimension(factors: Factors) -> Array:
        return jax.vmap(table_ranks)(apart(factors))[1].sum() - table_ranks(factors)[1]

    gain = _gain(null.g2, 2 * loss)
    return chi_square(gain, left_of_table(null, dimension), null.found & done)
