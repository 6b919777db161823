"""Fits and ranks behind the tests of levels 2 and 3.

Tests compare fits of one model with the data, or of two models with each other. Ranks are taken at
the null's fit, with probabilities at 0 counted as fixed; where even inside the bounds nothing is
left to test, none is. All functions take one data set and run under ``vmap``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int

from jaxmix.estimators import factorization, least_squares
from jaxmix.estimators.base import Start
from jaxmix.estimators.least_squares import Coordinates, Layout, Target
from jaxmix.inference.specification.data import LOSSES
from jaxmix.model import search
from jaxmix.model.optimum import table_of
from jaxmix.model.structure import LEVEL, Factors, Structure
from jaxmix.model.table import Cells, Table
from jaxmix.sample.moments import Moments, as_moments
from jaxmix.solvers.compiling import compiled
from jaxmix.status import Status

_TOLERANCE = 1e-4  # predicted gain at which fits stop, in log-likelihood units
_MAX_STEPS = 500

free_rank = compiled("layout", "floor")(least_squares.free_rank)


def as_fitted(moments_or_cells: Moments | Cells, loss: str | None) -> tuple[Moments, str]:
    """Return moments, held fixed for derivatives, and the loss by which they are fitted.

    Parameters
    ----------
    moments_or_cells
        Counts of ``(T, Z, X, Y)``, or moments.
    loss
        ``"kl"``, ``"gmm"``, or None for the first of them that the moments allow.
    """
    moments = as_moments(moments_or_cells, covariance=loss == "gmm")
    loss = loss or ("kl" if moments.is_table else "gmm")
    if loss not in LOSSES:
        raise ValueError(f"loss is {loss!r}: use 'kl' or 'gmm'")
    return jax.lax.stop_gradient(moments), loss


def gain(narrow: Float[Array, ""], wide: Float[Array, ""]) -> Float[Array, ""]:
    """Return the difference, never negative: the wide model can do what the narrow one does."""
    return jnp.maximum(narrow - wide, 0.0)


class TableFit(NamedTuple):
    """A fit of maximum likelihood.

    Attributes
    ----------
    data
        The counts, under the structure of the level.
    factors
        Probabilities at the maximum.
    g2
        Twice the log-likelihood lost against the counts' own frequencies.
    found
        Whether the fit converged.
    """

    data: Table
    factors: Factors
    g2: Float[Array, ""]
    found: Bool[Array, ""]


def table_fit_at(moments: Moments, start: Start, level: int) -> TableFit:
    """Return a fit that was made already, by its ``sol.stats["start"]``."""
    data, factors = table_of(moments, level), Factors(*start)
    g2 = 2 * data.deviance(factors)
    return TableFit(data, factors, g2, jnp.isfinite(g2))


def table_fit(
    moments: Moments,
    k: int,
    key: Array,
    level: int,
    num_starts: int | None,
    fitted: Mapping[str, object] | None = None,
) -> TableFit:
    """Fit a table; with the stats of a solution on the same moments, take that fit instead."""
    if fitted is not None:
        return table_fit_at(moments, cast(Start, fitted["start"]), level)
    last = min(1, moments.tensor.shape[0] - 1)
    sol = factorization.solve(
        moments, k, key=key, level=level, num_starts=num_starts, arm=last,
        tolerance=_TOLERANCE, max_steps=_MAX_STEPS,
    )  # fmt: skip
    found = table_fit_at(moments, sol.stats["start"], level)
    return found._replace(g2=sol.stats["g2"], found=_converged(sol.status))


def left_of_table(null: TableFit, dimension: Callable[[Factors], Array]) -> Int[Array, ""]:
    """Return a dimension at the fit; 0 where it owes its existence to probabilities at 0 alone.

    What is 0 because a level never occurred, where the probability looks at it, stays so.
    """
    mixed = search.mix(null.data.structure, null.factors)
    inside = jax.tree.map(
        lambda f, margin: jnp.where(margin > 0, f, 0.0), mixed, null.data.margins()
    )
    return jnp.where(dimension(inside) > 0, dimension(null.factors), 0)


@compiled("structure")
def table_ranks(structure: Structure, factors: Factors) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """Return how many cells are possible, and the rank of the model's derivative there.

    Cells of probability 0 do not occur, and probabilities at 0 stay there. The total of the gate
    is one of the directions, so the difference of the two numbers is what is left to test. Columns
    are scaled to Fisher's information; singular values below the square root of the machine
    epsilon count as 0.
    """
    vector, unravel = ravel_pytree(factors)
    p = structure.cells(factors).reshape(-1)
    possible = p > 0
    slope = jax.jacfwd(lambda v: structure.cells(unravel(v)).reshape(-1))(vector)
    slope = slope * jnp.where(possible, jnp.where(possible, p, 1.0) ** -0.5, 0.0)[:, None]
    slope = jnp.where(vector > 0, slope, 0.0)
    size = jnp.linalg.norm(slope, axis=0)
    values = jnp.linalg.svd(slope / jnp.where(size > 0, size, 1.0), compute_uv=False)
    return possible.sum(), jnp.sum(values > jnp.sqrt(jnp.finfo(p.dtype).eps))


def climb_apart(null: TableFit, key: Array, k: int) -> tuple[Array, Array]:
    """Fit the arms apart, from a common fit; return their losses' sum, and whether all ended."""
    options = search.Options(
        num_classes=k, num_starts=1, max_steps=_MAX_STEPS, tolerance=_TOLERANCE, warm=True
    )
    key_data = jax.random.key_data(key)
    gate, (of_x, of_y) = null.factors

    def climbed(cells: Cells, gate: Array, of_y: Array) -> search.Fit:
        own = Table(cells[None], LEVEL[3])
        start = Factors(gate[None], (of_x, of_y[None]))
        return search.maximise(own, key_data, start, options)

    fits = jax.vmap(climbed)(null.data.counts, gate, of_y)
    return fits.loss.sum(), jnp.all(fits.done)


class MomentsFit(NamedTuple):
    """A fit of weighted least squares.

    Attributes
    ----------
    flat
        Its coordinates.
    layout
        What the coordinates mean.
    target
        The moments and their weight.
    j
        Hansen's J.
    found
        Whether the fit converged.
    """

    flat: Array
    target: Target
    layout: Layout
    j: Float[Array, ""]
    found: Bool[Array, ""]

    def rank(self, floor: float) -> Int[Array, ""]:
        """Return the rank of the model's derivative; `floor` as in `least_squares.free_rank`."""
        return free_rank(self.flat, self.target, self.layout, floor)

    def gained(self, start: Array, wide: Layout) -> Int[Array, ""]:
        """Return by how much the rank grows in a wider model, at its coordinates of this fit."""
        return left_of_moments(
            lambda floor: free_rank(start, self.target, wide, floor) - self.rank(floor)
        )


def moments_fit(
    moments: Moments,
    k: int,
    key: Array,
    level: int,
    num_starts: int | None,
    fitted: Mapping[str, object] | None = None,
) -> MomentsFit:
    """Fit moments; with the stats of a solution on the same moments, take that fit instead."""
    layout = Layout.of(
        moments,
        num_classes=k,
        level=level,
        num_starts=1,
        max_steps=_MAX_STEPS,
        tolerance=_TOLERANCE,
        warm=True,
    )
    done = jnp.asarray(True)
    if fitted is None:
        sol = factorization.solve(
            moments, k, key=key, level=level, loss="gmm", num_starts=num_starts,
            tolerance=_TOLERANCE, max_steps=_MAX_STEPS,
        )  # fmt: skip
        fitted, done = sol.stats, _converged(sol.status)
    flat = cast(Array, fitted["start"])
    target = least_squares.target(moments, False)._replace(root=cast(Array, fitted["weight"]))
    j = 2 * least_squares.loss(flat, target, layout)
    return MomentsFit(flat, target, layout, j, done & jnp.isfinite(j))


@compiled("layout")
def climb(
    moments: Moments, target: Target, key: Array, start: Array, layout: Layout
) -> tuple[Array, Array]:
    """Fit moments from one start; return J, and whether the fit ended."""
    found, _ = least_squares.fit(moments, True, target.root, key, start, layout)
    value = 2 * found.value[0]
    return value, _converged(found.status[0]) & jnp.isfinite(value)


def left_of_moments(dimension: Callable[[float], Array]) -> Int[Array, ""]:
    """Return a dimension with bounds counted as fixed; 0 where it owes its existence to them."""
    return jnp.where(dimension(0.0) > 0, dimension(_TOLERANCE), 0)


def widened(flat: Array, narrow: Layout, wide: Layout) -> Array:
    """Return the coordinates of a model in those of one that contains it."""
    own = least_squares.unravel(flat, narrow)
    blank = jnp.zeros(wide.num_parameters, flat.dtype)
    shapes = jax.eval_shape(lambda v: least_squares.unravel(v, wide), blank)
    parts = (jnp.broadcast_to(o, s.shape) for o, s in zip(own, shapes, strict=True))
    return ravel_pytree(Coordinates(*parts))[0]


def _converged(status: Int[Array, ""]) -> Bool[Array, ""]:
    return (status != Status.MAX_STEPS) & (status != Status.NONFINITE)
