"""The test of equal arms: whether the classes look the same through x in every arm."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array

from jaxmix.inference.specification.answer import SpecificationTest, Statistic, chi_square
from jaxmix.inference.specification.data import Data, of_classes
from jaxmix.inference.specification.fits import (
    TableFit,
    as_fitted,
    climb,
    climb_apart,
    gain,
    left_of_table,
    moments_fit,
    table_fit,
    table_ranks,
    widened,
)
from jaxmix.model.structure import APART, Factors
from jaxmix.model.table import Cells
from jaxmix.sample.moments import Moments
from jaxmix.solvers.compiling import compiled

_NULL = "the classes look the same through x in every arm: one E[phi_x | U] for all"

_SATURATED = "the arms fitted apart have no more free parameters than together"


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
    data
        A table with roles, features, moments (with their covariance unless they are a table's),
        or counts of ``(T, Z, X, Y)``.
    num_classes
        Number of classes.
    loss
        ``"kl"`` for G^2 or ``"gmm"`` for J; by default G^2 wherever the data are a table.
    seed
        Integer seed of the starts.
    fitted
        ``sol.stats`` of a level-3 `jaxmix.factorization.solve` on the same data by the same loss,
        converged, where there is one: it is not fitted again.

    Raises
    ------
    InputError
        For a loss or a number of classes there is not, and for covariates.

    Examples
    --------
    >>> import jax, jaxmix as jm
    >>> counts = jm.populations.paper_main().counts(jax.random.key(0), 10_000)
    >>> found = arms_test(counts)
    >>> found.df, found.rejects()
    (2, False)
    """
    statistic = functools.partial(arms_statistic, fitted=fitted)
    return of_classes(statistic, data, num_classes, loss, seed, null=_NULL, saturated=_SATURATED)


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
    moments_or_cells
        Counts of ``(T, Z, X, Y)``, or moments; for J with their covariance.
    k
        Number of classes.
    key
        JAX key of the starts.
    loss
        ``"kl"`` for G^2, ``"gmm"`` for J; by default G^2 of a table and J elsewhere.
    num_starts
        Most starts of `jaxmix.factorization.solve`; the wider model starts at the fit of the
        narrower one.
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
    moments, loss = as_fitted(moments_or_cells, loss)
    if loss == "kl":
        return _arms_of_table(table_fit(moments, k, key, 3, num_starts, fitted), k, key)
    null = moments_fit(moments, k, key, 3, num_starts, fitted)
    wide = dataclasses.replace(null.layout, common_x=False)
    start = widened(null.flat, null.layout, wide)
    value, found = climb(moments, null.target, key, start, wide)
    return chi_square(gain(null.j, value), null.gained(start, wide), null.found & found)


@compiled("k")
def _arms_of_table(null: TableFit, k: int, key: Array) -> Statistic:
    loss, done = climb_apart(null, key, k)
    structure, arms = null.data.structure, len(null.data.counts)

    def dimension(factors: Factors) -> Array:
        gate, (of_x, of_y) = factors
        by_arm = jnp.broadcast_to(of_x, (arms, *of_x.shape))
        apart = table_ranks(APART, Factors(gate, (by_arm, of_y)))[1]
        return apart - table_ranks(structure, factors)[1]

    lost = gain(null.g2, 2 * loss)
    return chi_square(lost, left_of_table(null, dimension), null.found & done)
