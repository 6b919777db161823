"""Data ready for a test: rows or moments, checked, with the statistic that suits them."""

from __future__ import annotations

import dataclasses
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxmix import arguments
from jaxmix.data.design import Design
from jaxmix.data.roles import CausalData
from jaxmix.inference.specification.answer import SpecificationTest, Statistic, in_words
from jaxmix.sample import evidence as evidence_
from jaxmix.sample.evidence import Evidence
from jaxmix.sample.features import Views
from jaxmix.sample.moments import Moments
from jaxmix.sample.sample import Sample
from jaxmix.solvers.compiling import one_table
from jaxmix.status import InputError

Data = CausalData | Views | Sample | Moments | Array | np.ndarray
"""What can be tested; the sums of a sample are not formed again."""

LOSSES = ("kl", "gmm")

MAX_MOMENTS = 1024
"""Most moments that are weighted: the weight has the square of that many numbers."""

POPULATION = "these are the moments of a population, which has no sampling noise"
"""Why moments without a number of rows have no test."""


class OfClasses(Protocol):
    """A statistic of models with classes, as a pure function."""

    def __call__(
        self, moments_or_cells: Moments, k: int, /, *, key: Array, loss: str | None
    ) -> Statistic:
        """Return the test of moments, for k classes."""


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Data ready for a test.

    Attributes
    ----------
    evidence
        What is known of the sample.
    num_classes
        Number of classes.
    loss
        ``"kl"`` for G^2 of a table, ``"gmm"`` for J.
    reason
        Why there is no chi-square test of it; empty where there is.
    """

    evidence: Evidence
    num_classes: int
    loss: str
    reason: str

    @property
    def symbol(self) -> str:
        """What the statistic is called."""
        return "G2" if self.loss == "kl" else "J"

    def moments(self) -> Moments:
        """Return the moments, with their covariance where the loss needs it.

        Raises
        ------
        InputError
            For moments without a covariance, too many to be weighted, or of a single arm.
        """
        if self.loss == "kl":
            return self.evidence.moments
        if (num := int(np.prod(self.evidence.shape))) > MAX_MOMENTS:
            raise InputError(
                f"the test would weigh {num:,} moments, and {MAX_MOMENTS:,} is the most; use fewer "
                "or coarser columns"
            )
        if self.evidence.shape[0] < 2:
            raise InputError("J of the classes needs two arms or more; test a table, by loss 'kl'")
        return self.evidence.weighed_moments

    def answer(
        self, statistic: OfClasses, seed: int, *, null: str, saturated: str
    ) -> SpecificationTest:
        """Return the answer of a chi-square test of models with classes.

        Parameters
        ----------
        statistic
            The test of moments.
        seed
            Integer seed of the starts.
        null
            The null hypothesis in words.
        saturated
            What it means that no degree of freedom is left, in words.
        """
        if self.reason:
            return SpecificationTest(False, null, reason=self.reason, symbol=self.symbol)
        found = statistic(
            self.moments(), self.num_classes, key=jax.random.key(seed), loss=self.loss
        )
        return in_words(found, null, self.symbol, saturated)


def prepare(
    data: Data, num_classes: int, loss: str | None, *, covariates: bool = False
) -> Prepared:
    """Check data that are to be tested; in the precision that is switched on.

    Parameters
    ----------
    data
        A table with roles, features, moments, or counts of ``(T, Z, X, Y)``.
    num_classes
        Number of classes.
    loss
        ``"kl"``, ``"gmm"``, or None for the first of them that the data allow.
    covariates
        Whether the test is one that covariates may enter.

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
    evidence = evidence_.of_rows(data) or evidence_.of_moments(data, _checked_counts)
    if evidence.num_shared > 1 and not covariates:
        names = ", ".join(repr(name) for name in evidence.covariates)
        raise InputError(
            f"covariates{f' ({names})' if names else ''} belong to level 4 for now; leave them "
            "out, or test level 4"
        )
    if num_classes > evidence.max_rank:
        raise InputError(
            f"num_classes is {num_classes}, but the proxies can tell apart at most "
            f"{evidence.max_rank} classes; use fewer classes or more proxies"
        )
    if loss == "kl" and not evidence.is_table:
        raise InputError("loss 'kl' needs a table of counts, all columns discrete; use 'gmm'")
    loss = loss or ("kl" if evidence.is_table else "gmm")
    if not np.isfinite(evidence.num_rows):
        return Prepared(evidence, num_classes, loss, POPULATION)
    rows_per_cell = evidence.num_rows / float(np.prod(evidence.shape)) if loss == "kl" else None
    reason = against_chi_square(rows_per_cell, evidence.design)
    return Prepared(evidence, num_classes, loss, reason)


def of_classes(
    statistic: OfClasses,
    data: Data,
    num_classes: int,
    loss: str | None,
    seed: int,
    *,
    null: str,
    saturated: str,
) -> SpecificationTest:
    """Check data and a seed, and return the answer of a chi-square test of models with classes.

    Parameters
    ----------
    statistic, null, saturated
        The test, as in `Prepared.answer`.
    data, num_classes, loss
        What is tested, as in `prepare`.
    seed
        Integer seed of the starts.
    """
    seed = arguments.seed(seed)
    with one_table():
        prepared = prepare(data, num_classes, loss)
        return prepared.answer(statistic, seed, null=null, saturated=saturated)


def against_chi_square(rows_per_cell: float | None, design: Design[Array]) -> str:
    """Return why rows or cells have no chi-square test; empty where they have.

    Parameters
    ----------
    rows_per_cell
        Rows over cells of a table; None where no table is tested.
    design
        How the rows were sampled.
    """
    if reason := design.against_chi_square():
        return reason
    if rows_per_cell is not None and rows_per_cell < 1:
        return f"there are {rows_per_cell:.2g} rows per cell, too few for a chi-square law"
    return ""


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
