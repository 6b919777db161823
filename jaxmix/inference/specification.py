"""Tests of what an estimate assumes, each an object with its null hypothesis in words.

`level_test`, `nested_test`, `arms_test` and `range_test` take a table, features, moments or
counts; `statistics` is the same on arrays, for many data sets under ``vmap``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxmix import arguments
from jaxmix.inference import range_checks
from jaxmix.inference.level_tests import arms_statistic, fit_statistic, nested_statistic
from jaxmix.inference.overidentification import (
    as_test,
    bridge_statistic,
    overidentification,
    untestable,
)
from jaxmix.inference.range_checks import range_statistic
from jaxmix.inference.subject import Data, doubt, subject_of, with_covariance
from jaxmix.inference.verdict import SpecificationTest, Statistic, chi_square, in_words
from jaxmix.model.table import Cells
from jaxmix.sample.design import Design
from jaxmix.sample.features import Views
from jaxmix.sample.moments import Moments
from jaxmix.status import InputError

__all__ = [
    "SpecificationTest",
    "Statistic",
    "arms_test",
    "contrast_test",
    "fit_test",
    "level_test",
    "nested_test",
    "overidentification",
    "range_test",
    "statistics",
]

TESTS = ("level", "nested", "arms", "range")
"""What `statistics` can be asked for."""

_FIT_NULLS = {
    2: "Z, X and (T, Y) are mutually independent within this number of classes",
    3: "X is independent of (Z, T, Y), and Z of Y given T, within this number of classes",
}

_NESTED_NULL = "Z does not affect T within the classes: level 2 holds, if level 3 does"

_ARMS_NULL = "the classes look the same through x in every arm: one E[phi_x | U] for all"

_CONTRAST_NULL = "levels 3 and 4 have one average effect, as they do when X does not affect Y"

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
        2, 3 or 4.
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
    with jax.enable_x64(True):
        subject = subject_of(data, num_classes, level, loss)
        if level == 4:
            if isinstance(subject.source, Views):
                return overidentification(subject.source, rank=num_classes)
            moments = with_covariance(subject.source)
            _, d_z, d_x, _ = moments.tensor.shape
            reason = untestable(d_z, d_x, num_classes, moments.max_rank)
            if not jnp.isfinite(moments.num_rows):
                reason = reason or subject.reason
            return as_test(None if reason else bridge_statistic(moments), reason)
        null, symbol = _FIT_NULLS[level], subject.symbol
        if subject.reason:
            return SpecificationTest(False, null, reason=subject.reason, symbol=symbol)
        found = fit_statistic(
            subject.moments(), num_classes, key=jax.random.key(seed), level=level,
            loss=subject.loss,
        )  # fmt: skip
        return in_words(found, null, symbol, _SATURATED)


def nested_test(
    data: Data, num_classes: int = 2, *, loss: str | None = None, seed: int = 0
) -> SpecificationTest:
    """Test level 2 inside level 3: whether Z affects T within the classes.

    ``G^2(level 2) - G^2(level 3)``, or the difference of the J under one weight; chi-square with
    the difference of the models' ranks. It is worth as much as level 3, on which it rests.

    Parameters
    ----------
    data, num_classes, loss, seed
        As in `level_test`.

    Raises
    ------
    InputError
        As in `level_test`.

    Examples
    --------
    >>> import jax, jaxmix as jm
    >>> counts = jm.populations.paper_main(zt_strength=1.0).counts(jax.random.key(0), 10_000)
    >>> found = nested_test(counts)
    >>> found.df, found.rejects()
    (2, True)
    """
    none_left = "level 3 has no more free parameters here than level 2: nothing sets them apart"
    return _compare(nested_statistic, _NESTED_NULL, none_left, data, num_classes, loss, seed)


def arms_test(
    data: Data,
    num_classes: int = 2,
    *,
    loss: str | None = None,
    seed: int = 0,
    fitted: Mapping[str, object] | None = None,
) -> SpecificationTest:
    """Test whether the classes look the same through x in every arm, as level 3 says.

    The fit of level 3 against arms fitted apart, each with its own ``E[phi_x | U]``: the
    difference of G^2, or of J under one weight; chi-square with the difference of the ranks.

    Parameters
    ----------
    data, num_classes, loss, seed
        As in `level_test`.
    fitted
        ``sol.stats`` of a level-3 `jaxmix.factorization.solve` on the same data by the same loss,
        converged, where there is one: it is not fitted again.

    Raises
    ------
    InputError
        As in `level_test`.

    Examples
    --------
    >>> import jax, jaxmix as jm
    >>> counts = jm.populations.paper_main().counts(jax.random.key(0), 10_000)
    >>> found = arms_test(counts)
    >>> found.df, found.rejects()
    (2, False)
    """
    none_left = "the arms fitted apart have no more free parameters than together"
    statistic = functools.partial(arms_statistic, fitted=fitted)
    return _compare(statistic, _ARMS_NULL, none_left, data, num_classes, loss, seed)


def range_test(data: Data, num_classes: int = 2, *, method: str = "spectral") -> SpecificationTest:
    """Test whether a closed form's shares and effects left their ranges by more than noise.

    One-sided, with delta-method standard errors and Bonferroni's inequality over the bounds of
    all shares (0 and 1) and effects (the width of the outcome's range, where it has one):
    conservative. Sampling weights and clusters enter the standard errors.

    Parameters
    ----------
    data, num_classes
        As in `level_test`.
    method
        ``"spectral"``, or ``"synthetic"`` by the matrix pencil.

    Raises
    ------
    InputError
        As in `level_test`, and for a method there is not.

    Examples
    --------
    >>> import jax, jaxmix as jm
    >>> counts = jm.populations.paper_main().counts(jax.random.key(0), 10_000)
    >>> found = range_test(counts)
    >>> found.applies, found.num_checks, found.rejects()
    (True, 8, False)
    """
    choices = " or ".join(repr(name) for name in range_checks.METHODS)
    arguments.choice("method", method, range_checks.METHODS, f"use {choices}")
    with jax.enable_x64(True):
        subject = subject_of(data, num_classes, 3, None)
        source = subject.source
        if isinstance(source, Moments):
            source = with_covariance(source)
            if not jnp.isfinite(source.num_rows):
                return SpecificationTest(
                    False, range_checks.NULL, reason=subject.reason, symbol="z"
                )
        return range_checks.range_test(source, num_classes, method=method)


def statistics(
    moments_or_cells: Moments | Cells,
    k: int,
    *,
    key: Array,
    test: str = "level",
    level: int = 3,
    **options: str | int | None,
) -> Statistic:
    """Return a test as arrays; pure, so that ``vmap`` tests thousands of data sets at once.

    Parameters
    ----------
    moments_or_cells
        Counts of ``(T, Z, X, Y)``, or moments with their covariance.
    k
        Number of classes.
    key
        JAX key of the starts.
    test
        ``"level"`` (at level 4 J of the bridge, untruncated), ``"nested"`` (level 2 inside 3),
        ``"arms"`` or ``"range"``.
    level
        Of the test ``"level"``.
    options
        ``loss`` and ``num_starts`` of the first three below level 4, ``method`` of the last.

    Examples
    --------
    >>> import jax, jaxmix as jm
    >>> draw = lambda key: jm.populations.block(d_z=4).counts(key, 10_000)
    >>> keys = jax.random.split(jax.random.key(0), 500)
    >>> test = jax.vmap(lambda key: statistics(draw(key), 2, key=key, level=4))
    >>> bool(abs((test(keys).p_value < 0.05).mean() - 0.05) < 0.03)
    True
    """
    own: dict[str, Any] = dict(options)  # each test refuses those of others
    if test == "range":
        return range_statistic(moments_or_cells, k, **own)
    if test == "nested":
        return nested_statistic(moments_or_cells, k, key=key, **own)
    if test == "arms":
        return arms_statistic(moments_or_cells, k, key=key, **own)
    if test != "level":
        raise ValueError(f"test is {test!r}: use one of {', '.join(TESTS)}")
    if level == 4:
        return bridge_statistic(moments_or_cells, **own)
    return fit_statistic(moments_or_cells, k, key=key, level=level, **own)


def contrast_test(contrast: float, se: float, span: float) -> SpecificationTest:
    """Test a stronger level by its disagreement with a weaker one (Hausman).

    If level 3 holds, its average effect and that of level 4 estimate one number; their squared
    difference over its variance is chi-square with one degree of freedom.

    Parameters
    ----------
    contrast, se
        The difference of the two estimates, and its standard error.
    span
        Range of the outcome, against which a difference counts as rounding.

    References
    ----------
    Hausman (1978), Econometrica 46.

    Examples
    --------
    >>> print(contrast_test(0.3, 0.1, 1.0))
    chi2 = 9.00 on 1 df, p = 0.0027 (rejected at 5 %)
    >>> print(contrast_test(1e-17, 1e-17, 1.0).reason)
    the average effects of levels 3 and 4 are one and the same function of these moments
    """
    if not (np.isfinite(contrast) and np.isfinite(se)):
        reason = "there is no level-3 estimate to compare"
        return SpecificationTest(False, _CONTRAST_NULL, reason=reason)
    if se < 1e-8 * span:
        reason = (
            "the average effects of levels 3 and 4 are one and the same function of these moments"
        )
        return SpecificationTest(False, _CONTRAST_NULL, reason=reason)
    statistic = (contrast / se) ** 2
    p_value = float(jax.scipy.stats.chi2.sf(statistic, 1))
    return SpecificationTest(True, _CONTRAST_NULL, statistic, 1, p_value, symbol="chi2")


def fit_test(
    statistic: float,
    df: int,
    *,
    level: int,
    symbol: str,
    rows_per_cell: float | None = None,
    design: Design | None = None,
) -> SpecificationTest:
    """Test a level by how well its factorization fits the moments: G^2 of a table, or J.

    Chi-square with the number of free moments minus that of free parameters (by ranks), where
    the level holds. A probability at 0 counts as fixed. For a fit that is there already;
    `level_test` fits, and counts by ranks itself.

    Parameters
    ----------
    statistic, df
        G^2 or J, and its degrees of freedom.
    level
        2 or 3.
    symbol
        ``"G2"`` or ``"J"``.
    rows_per_cell
        Rows over cells of a table: below 1 the chi-square law of G^2 is not to be trusted.
    design
        That of the sample (by default random): with weights or clusters there is no such test.

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
    other = doubt(rows_per_cell, design or Design())
    found = chi_square(jnp.asarray(statistic), jnp.asarray(df))
    return in_words(found, _FIT_NULLS[level], symbol, _SATURATED, other)


def _compare(
    statistic: Callable[..., Statistic],
    null: str,
    none_left: str,
    data: Data,
    num_classes: int,
    loss: str | None,
    seed: int,
) -> SpecificationTest:
    seed = arguments.seed(seed)
    with jax.enable_x64(True):
        subject = subject_of(data, num_classes, 3, loss)
        if subject.reason:
            return SpecificationTest(False, null, reason=subject.reason, symbol=subject.symbol)
        key = jax.random.key(seed)
        found = statistic(subject.moments(), num_classes, key=key, loss=subject.loss)
        return in_words(found, null, subject.symbol, none_left)
