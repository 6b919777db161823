"""Criteria of fits with k classes: BIC and its like, J, the likelihood ratio of k to k + 1."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxmix.estimators import factorization
from jaxmix.model import search
from jaxmix.model.structure import LEVEL, Factors
from jaxmix.model.table import Cells, Table
from jaxmix.sample.moments import Moments
from jaxmix.solvers.compiling import compiled
from jaxmix.solvers.sampling import multinomial
from jaxmix.status import Status

_MAX_STEPS = 500
_TOLERANCE = 1e-4
_MOMENT_STARTS = 4


class TableFit(NamedTuple):
    """k classes fitted to a table by maximum likelihood.

    Attributes
    ----------
    log_likelihood
        ``sum N log p``.
    num_parameters
        Dimension of the model: the rank of its Jacobian, margins that are empty not counted.
    bic, aic
        ``-2 log L`` plus the parameters times ``log n``, or times 2.
    g2, df
        Goodness of fit against the table itself, a probability at 0 counted as fixed.
    done
        Whether the search ended by its tolerance.
    factors
        The fit.
    """

    log_likelihood: Float[Array, ""]
    num_parameters: Int[Array, ""]
    bic: Float[Array, ""]
    aic: Float[Array, ""]
    g2: Float[Array, ""]
    df: Int[Array, ""]
    done: Bool[Array, ""]
    factors: Factors | None


class MomentFit(NamedTuple):
    """k classes fitted to moments by weighted least squares: J, and Andrews' criterion."""

    j: Float[Array, ""]
    df: Int[Array, ""]
    criterion: Float[Array, ""]
    done: Bool[Array, ""]


class Ratio(NamedTuple):
    """The likelihood ratio of k against k + 1 classes, in the data and in resamples."""

    statistic: Float[Array, ""]
    draws: Float[Array, " r"]
    p_value: Float[Array, ""]


@compiled("k", "level", "num_starts")
def of_table(cells: Cells, k: int, *, key: Array, level: int = 3, num_starts: int = 33) -> TableFit:
    """Fit k classes to a table of counts of ``(T, Z, X, Y)`` and return their criteria.

    BIC chooses the number of classes consistently where the level holds; AIC fits too many with a
    probability that does not vanish.

    Parameters
    ----------
    cells
        Counts, of independent rows.
    k
        Number of classes.
    key
        JAX key of the starts.
    level
        Level of the fit, 2 or 3.
    num_starts
        Most starts of `jaxmix.factorization.solve`.

    References
    ----------
    Schwarz (1978), Annals of Statistics 6; Akaike (1974), IEEE Transactions on Automatic
    Control 19; Keribin (2000), Sankhya A 62; Goodman (1974), Biometrika 61, on degrees of freedom.

    Examples
    --------
    >>> import jax, jaxmix as jm
    >>> counts = jm.populations.paper_main(zt_strength=0.5).counts(jax.random.key(0), 100_000)
    >>> fits = [of_table(counts, k, key=jax.random.key(1)) for k in (1, 2)]
    >>> [int(fit.num_parameters) for fit in fits], bool(fits[1].bic < fits[0].bic)
    ([6, 13], True)
    """
    data = Table(cells, LEVEL[level])
    factors, done = _maximum(data, k, key, num_starts)
    dimension = num_parameters(cells.shape, k, level)
    n, margins = cells.sum(), data.margins()
    occur = jax.tree.map(lambda margin: margin > 0, margins)
    empty = sum(jnp.sum(~some) for some in jax.tree.leaves(occur))
    parameters = jnp.maximum(dimension - k * empty, 0)
    # Cells that an empty margin rules out are no data.
    possible = jax.tree.map(lambda some: some.astype(cells.dtype), occur)
    cells_left = data.structure.cells(possible).sum().astype(int)
    num_zero = sum(jnp.sum(factor == 0) for factor in jax.tree.leaves(factors)) - k * empty
    fitted = data.log_likelihood(factors)
    return TableFit(
        fitted,
        parameters,
        -2 * fitted + parameters * jnp.log(n),
        -2 * fitted + 2 * parameters,
        2 * data.deviance(factors),
        cells_left - 1 - parameters + num_zero,
        done,
        factors,
    )


@compiled("max_classes", "level", "num_starts")
def of_tables(
    cells: Cells, max_classes: int, *, key: Array, level: int = 3, num_starts: int = 33
) -> TableFit:
    """Return the criteria of k = 1, ..., `max_classes`, stacked; the factors are left out.

    For studies, under ``vmap``; arguments as in `of_table`.

    Examples
    --------
    >>> import jax, jaxmix as jm
    >>> counts = jm.populations.paper_main(zt_strength=0.5).counts(jax.random.key(0), 100_000)
    >>> of_tables(counts, 2, key=jax.random.key(1)).bic.shape
    (2,)
    """
    fits = [
        of_table(cells, k, key=key, level=level, num_starts=num_starts)._replace(factors=None)
        for k in range(1, max_classes + 1)
    ]
    found: TableFit = jax.tree.map(lambda *parts: jnp.stack(parts), *fits)
    return found


@compiled("k", "level")
def of_moments(moments: Moments, k: int, *, key: Array, level: int = 3) -> MomentFit:
    """Fit k classes to moments of any features and return J and Andrews' criterion.

    ``J - df log n``: smallest, with probability going to 1, at the least number of classes that
    fits.

    Parameters
    ----------
    moments
        Moments of independent rows, with their covariance.
    k
        Number of classes.
    key
        JAX key of the starts.
    level
        Level of the fit, 2 or 3.

    References
    ----------
    Andrews (1999), Econometrica 67; Hansen (1982), Econometrica 50.
    """
    found = factorization.solve(
        moments, k, key=key, level=level, loss="gmm", num_starts=_MOMENT_STARTS
    )
    j, df = found.stats["j"], found.stats["df"]
    ended = (found.status != Status.MAX_STEPS) & (found.status != Status.NONFINITE)
    return MomentFit(j, df, j - df * jnp.log(moments.num_rows), ended)


@compiled("k", "level", "num_resamples", "num_starts")
def likelihood_ratio(
    cells: Cells,
    k: int,
    *,
    key: Array,
    level: int = 3,
    num_resamples: int = 199,
    num_starts: int = 9,
    null: Factors | None = None,
) -> Ratio:
    """Test k classes against k + 1 by the bootstrap likelihood ratio.

    Tables are drawn from the fitted k classes. On each, and on the data by the same search, k
    classes are fitted from the null fit and k + 1 from several starts; the p-value is
    ``(1 + #{ratios at least the data's}) / (1 + num_resamples)``. The ratio has no chi-square
    law: under the null the extra class has share 0 or coincides with another.

    Parameters
    ----------
    cells
        Counts, of independent rows.
    k
        Classes of the null hypothesis.
    key
        JAX key; resample i is drawn from ``fold_in(key, i)``.
    level
        Level of the fit, 2 or 3.
    num_resamples
        Tables drawn.
    num_starts
        Most starts of `jaxmix.factorization.solve` for k + 1 classes.
    null
        The factors of k classes, where they are fitted already.

    References
    ----------
    McLachlan (1987), Applied Statistics 36; Feng, McCulloch (1996), JRSS B 58; Davison, Hinkley
    (1997), "Bootstrap Methods and their Application", on the p-value.

    Examples
    --------
    >>> import jax, jaxmix as jm
    >>> counts = jm.populations.paper_main(zt_strength=0.5).counts(jax.random.key(0), 10_000)
    >>> float(likelihood_ratio(counts, 1, key=jax.random.key(1), num_resamples=19).p_value)
    0.05
    """
    structure, n = LEVEL[level], cells.sum()
    of_starts = jax.random.fold_in(key, 2**31 - 1)  # apart from the keys of the resamples
    if null is None:
        null = _maximum(Table(cells, structure), k, of_starts, 33)[0]
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(num_resamples))
    p = structure.cells(null).reshape(-1)
    drawn = multinomial(keys, n, p).reshape(-1, *cells.shape)
    # The data are one more table, so that they are searched exactly as the resamples are.
    tables = jnp.concatenate([cells[None], drawn.astype(cells.dtype)])

    def ratio(own: Cells) -> Array:
        data = Table(own, structure)
        small = _maximum(data, k, of_starts, 1, null)[0]
        large = _maximum(data, k + 1, of_starts, num_starts)[0]
        gain = data.deviance(small) - data.deviance(large)
        return 2 * jnp.where(gain > 0, gain, 0.0)  # a search that failed has gained nothing

    ratios = jax.vmap(ratio)(tables)
    as_large = jnp.sum(ratios[1:] >= ratios[0] - 2 * search.AGREE)
    return Ratio(ratios[0], ratios[1:], (1 + as_large) / (1 + num_resamples))


@functools.lru_cache(maxsize=256)
def num_parameters(shape: tuple[int, ...], k: int, level: int) -> int:
    """Return the dimension of the model of a table: the rank of its Jacobian at a generic point.

    Examples
    --------
    >>> num_parameters((2, 2, 2, 2), 2, 3), num_parameters((2, 2, 2, 2), 2, 2)
    (13, 11)
    """
    structure = LEVEL[level]
    sizes = structure.sizes(shape)
    rng = np.random.default_rng(0)
    factors = [rng.uniform(0.2, 1, size) for size in structure.shapes(shape, k)]
    places = {axis: place for place, axis in enumerate((*structure.axes, "u"))}
    columns = []
    for own, axes in enumerate(structure.factors):
        operands: list[np.ndarray | list[int]] = []
        for other, others in enumerate(structure.factors):
            if other != own:
                operands += [factors[other], [places[axis] for axis in (*others, "u")]]
        twins = [len(places) + place for place in range(len(axes))]
        for axis, twin in zip(axes, twins, strict=True):  # a probability moves its own cells
            operands += [np.eye(sizes[axis]), [places[axis], twin]]
        every = [places[axis] for axis in structure.axes]
        slope = np.einsum(*operands, [*every, *twins, places["u"]])
        columns.append(slope.reshape(math.prod(shape), -1))
    # The scale of the table is among its directions, and fixed for probabilities.
    return int(np.linalg.matrix_rank(np.hstack(columns))) - 1


def _maximum(
    data: Table, k: int, key: Array, num_starts: int, start: Factors | None = None
) -> tuple[Factors, Bool[Array, ""]]:
    """Return the maximum-likelihood fit of a table, and whether its search ended."""
    if k == 1:
        return data.one_class(), jnp.isfinite(data.counts.sum())
    options = search.Options(
        num_classes=k,
        num_starts=num_starts,
        max_steps=_MAX_STEPS,
        tolerance=_TOLERANCE,
        first=factorization.SpectralStart.of(k, data.shape),
        warm=start is not None,
    )
    first = () if start is None else start
    found = search.maximise(data, jax.random.key_data(key), first, options)
    return found.factors, found.done
