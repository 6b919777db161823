"""What a test is asked of: a table, features, moments or counts, checked and made ready."""

from __future__ import annotations

import dataclasses
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxmix import arguments
from jaxmix.data.roles import CausalData
from jaxmix.sample import features
from jaxmix.sample.design import Design
from jaxmix.sample.features import Views
from jaxmix.sample.moments import Moments, from_counts, from_rows
from jaxmix.status import InputError

_Tree = TypeVar("_Tree")

Data = CausalData | Views | Moments | Array | np.ndarray

LOSSES = ("kl", "gmm")

MAX_MOMENTS = 1024
"""Most moments that are weighted: the weight has the square of that many numbers."""


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is tested.

    Attributes
    ----------
    source
        Features where there are rows, otherwise moments.
    loss
        ``"kl"`` for G^2 of a table, ``"gmm"`` for J.
    reason
        Why there is no chi-square test of it; empty where there is.
    """

    source: Views | Moments
    loss: str
    reason: str

    def moments(self) -> Moments:
        """Return the moments, with their covariance where the loss needs it.

        Raises
        ------
        InputError
            For moments without a covariance, too many to be weighted, or of a single arm.
        """
        if self.loss == "kl":
            return self.source if isinstance(self.source, Moments) else from_rows(self.source)
        sizes = _sizes(self.source)
        if (num := int(np.prod(sizes))) > MAX_MOMENTS:
            raise InputError(
                f"the test would weigh {num:,} moments, and {MAX_MOMENTS:,} is the most; use fewer "
                "or coarser columns"
            )
        if sizes[0] < 2:
            raise InputError("J of the classes needs two arms or more; test a table, by loss 'kl'")
        if isinstance(self.source, Views):
            return from_rows(self.source, covariance=True)
        return with_covariance(self.source)

    @property
    def symbol(self) -> str:
        """What the statistic is called."""
        return "G2" if self.loss == "kl" else "J"


def subject_of(data: Data, num_classes: int, level: int, loss: str | None) -> Subject:
    """Check what a test is asked of; in the precision that is switched on.

    Raises
    ------
    InputError
        For what cannot be tested as asked, in one line with the remedy.
    """
    if loss is not None and not (isinstance(loss, str) and loss in LOSSES):
        raise InputError(
            f"loss is {arguments.told(loss)}: use 'kl' (G2 of a table) or 'gmm' (J of moments)"
        )
    num_classes = arguments.whole("num_classes", num_classes, least=1)
    design = Design()
    if isinstance(data, CausalData):
        if data.covariates and level < 4:
            names = ", ".join(repr(column.name) for column in data.covariates)
            raise InputError(
                f"covariates ({names}) belong to level 4 for now; leave them out, or test level 4"
            )
        table, data = data, features.encode(data, reduce=True)
        features.refuse_copies(table, data)
    source: Views | Moments
    if isinstance(data, Views):
        design = data.design
        source = _in_default_precision(data)
    elif isinstance(data, Moments):
        source = _in_default_precision(data)
    else:
        source = from_counts(_checked_counts(data), covariance=True)
    if level < 4 and source.num_shared > 1:
        raise InputError("covariates belong to level 4 for now; leave them out, or test level 4")
    if num_classes > source.max_rank:
        raise InputError(
            f"num_classes is {num_classes}, but the proxies can tell apart at most "
            f"{source.max_rank} classes; use fewer classes or more proxies"
        )
    if loss == "kl" and not source.is_table:
        raise InputError("loss 'kl' needs a table of counts, all columns discrete; use 'gmm'")
    loss = loss or ("kl" if source.is_table else "gmm")
    num_rows = source.multiplicity.sum() if isinstance(source, Views) else source.num_rows
    if not jnp.isfinite(num_rows):
        reason = "these are the moments of a population, which has no sampling noise"
        return Subject(source, loss, reason)
    rows_per_cell = float(num_rows) / float(np.prod(_sizes(source)))
    return Subject(source, loss, doubt(rows_per_cell if loss == "kl" else None, design))


def with_covariance(moments: Moments) -> Moments:
    """Return moments, or raise `InputError` where they lack their covariance."""
    if moments.covariance is None:
        raise InputError("the moments carry no covariance: make them with covariance=True")
    return moments


def doubt(rows_per_cell: float | None, design: Design) -> str:
    """Return why rows or cells have no chi-square test; empty where they have."""
    if reason := design.against_chi_square():
        return reason
    if rows_per_cell is not None and rows_per_cell < 1:
        return f"there are {rows_per_cell:.2g} rows per cell, too few for a chi-square law"
    return ""


def _sizes(source: Views | Moments) -> tuple[int, ...]:
    if isinstance(source, Moments):
        return source.tensor.shape
    return (source.num_arms, source.z.shape[1], source.x.shape[1], source.y.shape[1])


def _checked_counts(counts: object) -> Array:
    counts = arguments.array(
        "data", counts, "give a table with roles, features, moments, or counts by (T, Z, X, Y)"
    )
    if counts.ndim != 4:
        raise InputError(
            f"a table of counts by {counts.ndim} variables: give counts by treatment, z, x and "
            "outcome, in this order"
        )
    if not np.isfinite(counts).all() or (counts < 0).any() or counts.sum() == 0:
        raise InputError("the table of counts: use finite numbers from 0, not all of them 0")
    return jnp.asarray(counts)


def _in_default_precision(tree: _Tree) -> _Tree:
    dtype = jnp.zeros(()).dtype

    def cast(leaf: Array) -> Array:
        leaf = jnp.asarray(leaf)
        return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf

    found: _Tree = jax.tree.map(cast, tree)
    return found
