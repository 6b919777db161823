"""The evidence on a sample: its rows, or its moments alone, behind one interface."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmix.data.design import Design
from jaxmix.data.roles import CausalData
from jaxmix.sample.features import Views, encode, refuse_copies
from jaxmix.sample.moments import Moments, from_counts
from jaxmix.sample.sample import Sample
from jaxmix.status import InputError

Tree = TypeVar("Tree", Views, Moments)


@dataclasses.dataclass(frozen=True, eq=False)
class Evidence:
    """The evidence on a sample, by rows or by moments.

    Attributes
    ----------
    rows
        The sample by its rows; None where moments or counts alone are there.
    alone
        The moments that are there without rows; None where there are rows.
    covariates
        Names of the covariates, where a table gave them.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> known = Evidence(alone=from_counts(jnp.ones((2, 2, 2, 2))))
    >>> known.shape, known.is_table, known.max_rank, known.num_rows
    ((2, 2, 2, 2), True, 2, 16.0)
    """

    rows: Sample | None = None
    alone: Moments | None = None
    covariates: tuple[str, ...] = ()

    def _form(self) -> Sample | Moments:
        """Return the sample or the moments, which name what both have alike."""
        if self.rows is not None:
            return self.rows
        assert self.alone is not None
        return self.alone

    @property
    def shape(self) -> tuple[int, ...]:
        """Arms, and features of z, x and the outcome; known before any row is summed."""
        if self.rows is None:
            assert self.alone is not None
            return self.alone.tensor.shape
        return self.rows.shape

    @property
    def is_table(self) -> bool:
        """Whether every view is one-hot, so that the rows are cells of a table."""
        return self._form().is_table

    @property
    def num_shared(self) -> int:
        """How many leading features z and x have in common."""
        return self._form().num_shared

    @property
    def max_rank(self) -> int:
        """The largest number of classes that the views can tell apart."""
        return self._form().max_rank

    @property
    def num_rows(self) -> float:
        """Rows of the sample; infinite for the moments of a population."""
        return float(self._form().num_rows)

    @property
    def design(self) -> Design[Array]:
        """How the rows were sampled; at random where there are none to tell."""
        return Design() if self.rows is None else self.rows.design

    @property
    def moments(self) -> Moments:
        """The moments."""
        if self.rows is not None:
            return self.rows.moments
        assert self.alone is not None
        return self.alone

    @property
    def weighed_moments(self) -> Moments:
        """The moments with their covariance.

        Raises
        ------
        InputError
            For moments without rows that lack it.
        """
        if self.rows is not None:
            return self.rows.weighed_moments
        if self.moments.covariance is None:
            raise InputError("the moments carry no covariance: make them with covariance=True")
        return self.moments

    @property
    def cells(self) -> Float[Array, "a d_z d_x d_y"]:
        """The counts of ``(T, Z, X, Y)``, of a table."""
        return jnp.round(self.moments.tensor * self.num_rows)


def of_rows(data: object) -> Evidence | None:
    """Return the evidence of a table with roles, its features or a sample; None of what has none.

    Raises
    ------
    InputError
        For a table that cannot be coded (`jaxmix.features.encode`), or with a proxy that the other
        side gives exactly.
    """
    if isinstance(data, CausalData):
        views = encode(data, reduce=True)
        refuse_copies(data, views)
        return Evidence(Sample(views), covariates=tuple(c.name for c in data.covariates))
    if isinstance(data, Sample):
        return Evidence(data)
    if isinstance(data, Views):
        return Evidence(Sample(_in_default_precision(data)))
    return None


def of_moments(data: object, counts: Callable[[object], Array]) -> Evidence:
    """Return the evidence of moments or counts, which have no rows.

    Parameters
    ----------
    data
        Moments, or counts by ``(T, Z, X, Y)``.
    counts
        Check of what is no moments, which returns it as counts or says what is wrong with it.
    """
    if isinstance(data, Moments):
        return Evidence(alone=_in_default_precision(data))
    return Evidence(alone=from_counts(counts(data), covariance=True))


def _in_default_precision(tree: Tree) -> Tree:
    dtype = jnp.zeros(()).dtype

    def cast(leaf: Array) -> Array:
        leaf = jnp.asarray(leaf)
        return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf

    found: Tree = jax.tree.map(cast, tree)
    return found
