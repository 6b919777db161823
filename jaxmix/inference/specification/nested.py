"""The test of level 2 inside level 3: whether Z affects T within the classes."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array

from jaxmix.inference.specification.answer import SpecificationTest, Statistic, chi_square
from jaxmix.inference.specification.data import Data, of_classes
from jaxmix.inference.specification.fits import (
    TableFit,
    as_fitted,
    climb,
    gain,
    left_of_table,
    moments_fit,
    table_fit,
    table_ranks,
    widened,
)
from jaxmix.model.structure import Factors, positive
from jaxmix.model.table import Cells
from jaxmix.sample.moments import Moments
from jaxmix.solvers.compiling import compiled

_NULL = "Z does not affect T within the classes: level 2 holds, if level 3 does"

_SATURATED = "level 3 has no more free parameters here than level 2: nothing sets them apart"


def nested_test(
    data: Data, num_classes: int = 2, *, loss: str | None = None, seed: int = 0
) -> SpecificationTest:
    """Test level 2 inside level 3: whether Z affects T within the classes.

    ``G^2(level 2) - G^2(level 3)``, or the difference of the J under one weight; chi-square with
    the difference of the models' ranks. It is worth as much as level 3, on which it rests.

    Parameters
    ----------
    data
        A table with roles, features, moments (with their covariance unless they are a table's),
        or counts of ``(T, Z, X, Y)``.
    num_classes
        Number of classes.
    loss
        ``"kl"`` for G^2 or ``"gmm"`` for J; by default G^2 wherever the data are a table.
    seed
        Integer seed of the starts.

    Raises
    ------
    InputError
        For a loss or a number of classes there is not, and for covariates.

    Examples
    --------
    >>> import jax, jaxmix as jm
    >>> counts = jm.populations.paper_main(zt_strength=1.0).counts(jax.random.key(0), 10_000)
    >>> found = nested_test(counts)
    >>> found.df, found.rejects()
    (2, True)
    """
    return of_classes(
        nested_statistic, data, num_classes, loss, seed, null=_NULL, saturated=_SATURATED
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

    Assumes level 3, a random sample of many rows per cell, and probabilities away from 0.

    Parameters
    ----------
    moments_or_cells
        Counts of ``(T, Z, X, Y)``, or moments; for J with their covariance.
    k
        Number of classes.
    key
        JAX key of the starts.
    loss
        ``"kl"`` for G^2, ``"gmm"`` for J; by default G^2 of a table and J elsewhere.
    num_starts
        Most starts of `jaxmix.factorization.solve`.

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
    moments, loss = as_fitted(moments_or_cells, loss)
    if loss == "kl":
        two, three = (table_fit(moments, k, key, level, num_starts) for level in (2, 3))
        return _nested_of_table(two, three)
    null = moments_fit(moments, k, key, 2, num_starts)
    wide = dataclasses.replace(null.layout, level=3)
    start = widened(null.flat, null.layout, wide)
    # Two starts: the estimate of level 3, and that of level 2, which can only be improved on.
    own = moments_fit(moments, k, key, 3, num_starts)
    again, found = climb(moments, null.target, key, start, wide)
    lower = jnp.minimum(jnp.where(own.found, own.j, jnp.inf), jnp.where(found, again, jnp.inf))
    return chi_square(
        gain(null.j, lower), null.gained(start, wide), null.found & jnp.isfinite(lower)
    )


@compiled()
def _nested_of_table(null: TableFit, wide: TableFit) -> Statistic:
    def as_level_3(factors: Factors) -> Factors:
        gate, (of_x, of_ty) = factors
        propensity = of_ty.sum(1)[:, None, :]
        return Factors(gate * propensity, (of_x, of_ty / positive(propensity)))

    def dimension(factors: Factors) -> Array:
        wider = table_ranks(wide.data.structure, as_level_3(factors))[1]
        return wider - table_ranks(null.data.structure, factors)[1]

    lost = gain(null.g2, wide.g2)
    return chi_square(lost, left_of_table(null, dimension), null.found & wide.found)
