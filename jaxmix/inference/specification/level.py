"""The test of a level against the data: how well its classes fit, or J of the bridge.

The statistic is G^2 of a table of counts, twice the log-likelihood that a model loses, or Hansen's
J of moments with their covariance. Degrees of freedom are ranks of the model's derivative at the
fit, with probabilities at 0 counted as fixed; where even inside the bounds none is left, there is
no test.
"""

from __future__ import annotations

import functools

import jax.numpy as jnp
from jaxtyping import Array, Int

from jaxmix import arguments
from jaxmix.data.design import Design
from jaxmix.estimators.base import Start
from jaxmix.inference.specification import bridge
from jaxmix.inference.specification.answer import (
    SpecificationTest,
    Statistic,
    chi_square,
    in_words,
)
from jaxmix.inference.specification.data import Data, against_chi_square, of_classes, prepare
from jaxmix.inference.specification.fits import (
    TableFit,
    as_fitted,
    left_of_moments,
    left_of_table,
    moments_fit,
    table_fit,
    table_fit_at,
    table_ranks,
)
from jaxmix.model.table import Cells
from jaxmix.sample.moments import Moments
from jaxmix.solvers.compiling import compiled, one_table
from jaxmix.status import InputError

_NULLS = {
    2: "Z, X and (T, Y) are mutually independent within this number of classes",
    3: "X is independent of (Z, T, Y), and Z of Y given T, within this number of classes",
}

_SATURATED = "the model has as many free parameters as there are free moments, so it fits any data"


def level_test(
    data: Data,
    num_classes: int = 2,
    level: int = 3,
    *,
    loss: str | None = None,
    seed: int = 0,
) -> SpecificationTest:
    """Test a level against the data.

    At level 4 Hansen's J of the bridge, with ``d_z - d_x`` degrees of freedom per arm; at levels 3
    and 2 how well k classes fit, ``G^2 = 2 sum N log(N / (n p))`` of a table of counts or ``J = n
    min (m - m_theta)' W (m - m_theta)`` of moments, chi-square with the rank of the free cells or
    moments minus that of the model's derivative at the fit, probabilities at 0 counted as fixed.

    Assumes a random sample. A test that does not reject proves nothing: in designs with binary
    proxies an edge from X to Y can lie inside the level-3 model, where no test sees it.

    Parameters
    ----------
    data
        A table with roles, features, moments (with their covariance unless they are a table's),
        or counts of ``(T, Z, X, Y)``.
    num_classes
        Number of classes; at level 4 the rank that the bridge keeps.
    level
        Level of the test: 2, 3 or 4.
    loss
        ``"kl"`` for G^2 or ``"gmm"`` for J; by default G^2 wherever the data are a table.
    seed
        Integer seed of the starts.

    Raises
    ------
    InputError
        For a level, a loss or a number of classes there is not, and covariates below level 4.

    References
    ----------
    Hansen (1982), Econometrica 50; Goodman (1974), Biometrika 61.

    Examples
    --------
    >>> import jax, jaxmix as jm
    >>> counts = jm.populations.paper_main().counts(jax.random.key(0), 10_000)
    >>> print(level_test(counts, level=4))
    does not apply: z has no more features (2) than x (2), so the bridge fits exactly
    >>> found = level_test(counts)
    >>> found.symbol, found.df, found.rejects()
    ('G2', 2, False)
    """
    if arguments.as_whole(level) not in (2, 3, 4):
        shown = arguments.told(level)
        raise InputError(f"level is {shown}: 2, 3 or 4 can be tested; level 1 is declared")
    level, seed = int(level), arguments.seed(seed)
    if level == 4:
        with one_table():
            return bridge.of_prepared(prepare(data, num_classes, loss, covariates=True))
    statistic = functools.partial(fit_statistic, level=level)
    return of_classes(
        statistic, data, num_classes, loss, seed, null=_NULLS[level], saturated=_SATURATED
    )


def fit_test(
    statistic: float,
    df: int,
    *,
    level: int,
    symbol: str,
    rows_per_cell: float | None = None,
    design: Design[Array] | None = None,
) -> SpecificationTest:
    """Test a level by how well its factorization fits the moments: G^2 of a table, or J.

    Chi-square with the number of free moments minus that of free parameters (by ranks), where
    the level holds. A probability at 0 counts as fixed. For a fit that is there already;
    `level_test` fits, and counts by ranks itself.

    Parameters
    ----------
    statistic
        G^2 or J.
    df
        Its degrees of freedom.
    level
        Level of the fit, 2 or 3.
    symbol
        ``"G2"`` or ``"J"``.
    rows_per_cell
        Rows over cells of a table: below 1 the chi-square law of G^2 is not to be trusted.
    design
        Design of the sample (by default random): with weights or clusters there is no such test.

    References
    ----------
    Agresti (2013), "Categorical Data Analysis", on sparse tables; Hansen (1982), Econometrica 50.

    Examples
    --------
    >>> print(fit_test(30.0, 12, level=3, symbol="J"))
    J = 30.00 on 12 df, p = 0.00279 (rejected at 5 %)
    >>> fit_test(0.0, 0, level=2, symbol="G2").reason
    'the model has as many free parameters as there are free moments, so it fits any data'
    """
    other = against_chi_square(rows_per_cell, design or Design())
    found = chi_square(jnp.asarray(statistic), jnp.asarray(df))
    return in_words(found, _NULLS[level], symbol, _SATURATED, other)


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
        Level of the test, 2 or 3.
    loss
        ``"kl"`` for G^2, ``"gmm"`` for J; by default G^2 of a table and J elsewhere.
    num_starts
        Most starts of `jaxmix.factorization.solve`.

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
    moments, loss = as_fitted(moments_or_cells, loss)
    if loss == "kl":
        null = table_fit(moments, k, key, level, num_starts)
        return chi_square(null.g2, _left(null), null.found)
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
        Moments of a table.
    start
        ``sol.stats["start"]`` of `jaxmix.factorization.solve` with loss ``"kl"``.
    level
        Level of the fit, 2 or 3.
    """
    return _left(table_fit_at(moments, start, level))


def _left(null: TableFit) -> Int[Array, ""]:
    structure = null.data.structure
    return left_of_table(null, lambda factors: jnp.subtract(*table_ranks(structure, factors)))
