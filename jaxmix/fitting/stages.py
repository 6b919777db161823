"""The stages of a fit that wait, each an object: its fields are what it needs, its call the answer.

`Tests`, `Rows` and `Bounds` run when what they give is first read from the result; they hold
nothing that cannot be pickled. None can move what the call of `fit` gave.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxmix.data.roles import CausalData
from jaxmix.estimators import spectral
from jaxmix.fitting.options import Options
from jaxmix.inference import resampling, sensitivity
from jaxmix.inference.estimation import Estimation
from jaxmix.inference.sensitivity import Sensitivity
from jaxmix.inference.specification.answer import SpecificationTest
from jaxmix.inference.specification.data import MAX_MOMENTS
from jaxmix.inference.specification.registry import FURTHER
from jaxmix.model.law import Mixture
from jaxmix.results.estimates import Checks, Diagnostics, FurtherTests, InfluentialRow
from jaxmix.results.later import Later
from jaxmix.sample.features import distinct
from jaxmix.sample.moments import Moments
from jaxmix.status import Status

_STRENGTHS = (0.0, 0.05, 0.1, 0.2, 0.4)  # of an edge to the outcome, in units of its range
_INFLUENTIAL = 3  # rows that are listed
_SPECTRA = 200  # resamples that say how often a spectrum is complex
_MOST_CELLS = 512  # of a table for which bounds are searched unasked


@dataclasses.dataclass(frozen=True)
class _Spectrum:
    """Whether the operators of the arms have complex eigenvalues."""

    num_classes: int

    def __call__(self, moments: Moments) -> jax.Array:
        return spectral.solve(moments, self.num_classes).status == Status.COMPLEX_SPECTRUM


@dataclasses.dataclass(frozen=True, eq=False)
class Tests:
    """Tests of the classes of levels 2 and 3, and their spectra, whatever the method was.

    Attributes
    ----------
    estimation
        The estimate, of some classes.
    num_resamples, seed
        Number and seed of the resamples.
    """

    estimation: Estimation
    num_resamples: int
    seed: int

    def __call__(self) -> FurtherTests:
        """Return the tests, and what is known of the spectra where there are several classes."""
        own = self.estimation
        sample, point = own.sample, own.point
        k, moments = own.estimator.num_classes, sample.moments
        assert k is not None
        tests: dict[str, SpecificationTest] = {}
        if moments.is_table or moments.tensor.size <= MAX_MOMENTS:
            usable = Status(int(point.status)).usable
            near = point.optimum if usable else None
            fitted = None if near is None else near._asdict()
            tests = {
                name: test.ask(sample, k, self.seed, fitted)
                for name, test in FURTHER.items()
                if test.level == own.estimator.level
            }
        if k == 1:
            return FurtherTests(tests)
        found = spectral.solve(moments, k).stats
        spectra = None
        if self.num_resamples:
            drawn = resampling.bootstrap(
                _Spectrum(k),
                sample.views,
                key=jax.random.key(self.seed),
                num_resamples=min(self.num_resamples, _SPECTRA),
            )
            spectra = float(jnp.mean(drawn))
        return FurtherTests(tests, spectra, float(found["gap"]), float(found["condition"]))


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """The few rows without which the average effect would differ most.

    Attributes
    ----------
    data
        The table.
    estimation
        The estimate.
    """

    data: CausalData
    estimation: Estimation

    def __call__(self) -> tuple[InfluentialRow, ...]:
        """Return the rows, the most influential first."""
        data, rows = self.data, distinct(self.data)
        found = self.estimation.most_influential(_INFLUENTIAL)
        columns = (rows.outcome, *rows.z, *rows.x)
        listed = []
        for i, copies, change in zip(*(np.asarray(part) for part in found), strict=True):
            if not np.isfinite(change):
                continue
            values = {data.treatment: data.arms[rows.t[i]]}
            values |= {
                c.name: c.levels[c.values[i]] if c.levels else f"{c.values[i]:.6g}" for c in columns
            }
            listed.append(InfluentialRow(values, round(float(copies)), float(change)))
        return tuple(listed)


@dataclasses.dataclass(frozen=True, eq=False)
class Bounds:
    """Bounds where level 3's assumption fails.

    Attributes
    ----------
    moments
        The moments of a table (`why_no_bounds`).
    num_classes
        Number of classes.
    mixture
        The classes of the estimate, by which those of the bounds are numbered; None where it
        gives no profiles.
    edge, better, confidence, seed
        Options of `jaxmix.fit`.
    unit
        What the outcome is called.
    """

    moments: Moments
    num_classes: int
    mixture: Mixture | None
    edge: str
    better: str
    confidence: float
    seed: int
    unit: str

    def __call__(self) -> Sensitivity:
        """Return the bounds at a few strengths of the edge."""
        span = float(self.moments.range_y[1] - self.moments.range_y[0])
        return sensitivity.bounds(
            self.moments,
            self.num_classes,
            [span * strength for strength in _STRENGTHS],
            edge=self.edge,
            key=jax.random.fold_in(jax.random.key(self.seed), 2**31 - 2),
            confidence=self.confidence,
            start=jax.tree.map(jnp.asarray, self.mixture),
            better=self.better,
            unit=self.unit,
        )


def why_no_bounds(estimation: Estimation, edge: str) -> str:
    """Return why no bounds are searched unasked; empty where they are.

    Parameters
    ----------
    estimation
        The estimate.
    edge
        The assumption that the bounds relax.
    """
    estimator, sample = estimation.estimator, estimation.sample
    if estimator.level != 3:
        return "sensitivity bounds are level 3's bounds; fit level 3 to see them"
    moments = sample.moments
    if reason := sensitivity.does_not_apply(moments) or sample.design.against_bounds():
        return reason
    if estimator.estimand == "ATT":
        return "sensitivity bounds are of effects on everybody, and the estimand is the ATT"
    if estimator.num_classes == 1 and edge == "x_to_y":
        return (
            "with one class X has nothing to do with treatment, so that an effect of X on the "
            "outcome confounds nothing"
        )
    if moments.tensor.size > _MOST_CELLS:
        return (
            f"the table has {moments.tensor.size:,} cells, and bounds are searched unasked for up "
            f"to {_MOST_CELLS}; jaxmix.sensitivity.bounds takes any table"
        )
    return ""


def checks_of(
    estimation: Estimation, data: CausalData, options: Options, diagnostics: Diagnostics
) -> Checks:
    """Return the stages that run when they are read.

    Parameters
    ----------
    estimation, data
        The estimate, and the table that it is of.
    options
        Those of `jaxmix.fit`.
    diagnostics
        Those without checks: they stay what they are at level 4, which has no classes to test.
    """
    rows = Later(Rows(data, estimation))
    untested = why_no_bounds(estimation, options.edge)
    k = estimation.estimator.num_classes
    if estimation.estimator.level == 4 or k is None:
        return Checks(diagnostics.checks.tests, rows, Later.known(None), untested)
    tests = Later(Tests(estimation, options.num_resamples, options.seed))
    if untested:
        return Checks(tests, rows, Later.known(None), untested)
    bounds = Bounds(
        estimation.sample.moments, k, estimation.point.mixture, options.edge, options.better,
        options.confidence, options.seed, str(data.outcome.name),
    )  # fmt: skip
    return Checks(tests, rows, Later[Sensitivity | None](bounds))
