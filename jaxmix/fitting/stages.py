"""The stages of a fit, each an object: its fields are what it needs, its call gives the answer.

In the call of `fit` run `Point`, `Errors` (with the intervals, which are made of the same
resamples) and `Judgement`, with the test of the specification. `Tests`, `Rows` and `Bounds` run
when what they give is first read from the result; they hold no more than they need, and nothing
that cannot be pickled. No stage can move what an earlier one gave.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jaxmix.data.roles import CausalData
from jaxmix.estimators import spectral
from jaxmix.estimators.base import Fitted, LevelEstimator
from jaxmix.estimators.compared import Compared
from jaxmix.estimators.registry import Factorization
from jaxmix.fitting.diagnose import diagnose, evaluate
from jaxmix.fitting.options import Options
from jaxmix.fitting.uncertainty import Uncertainty, uncertainty
from jaxmix.inference import resampling, sensitivity
from jaxmix.inference.asymptotic import Linearized, largest_changes
from jaxmix.inference.sensitivity import Sensitivity
from jaxmix.inference.specification.answer import SpecificationTest
from jaxmix.inference.specification.data import MAX_MOMENTS
from jaxmix.inference.specification.registry import FURTHER
from jaxmix.model.law import Mixture
from jaxmix.results.estimates import (
    Checks,
    Diagnostics,
    FurtherTests,
    InfluentialRow,
    Resamples,
)
from jaxmix.results.later import Later
from jaxmix.sample.features import distinct
from jaxmix.sample.moments import Moments
from jaxmix.sample.sample import Sample
from jaxmix.status import Status

_STRENGTHS = (0.0, 0.05, 0.1, 0.2, 0.4)  # of an edge to the outcome, in units of its range
_INFLUENTIAL = 3  # rows that are listed
_SPECTRA = 200  # resamples that say how often a spectrum is complex
_MOST_CELLS = 512  # of a table for which bounds are searched unasked


@dataclasses.dataclass(frozen=True, eq=False)
class Point:
    """The estimate.

    Attributes
    ----------
    compared
        The estimator beside the naive contrast.
    sample
        The sample.
    key
        Key of the starts, where the estimator searches.
    """

    compared: Compared
    sample: Sample
    key: jax.Array | None

    def __call__(self) -> Fitted:
        """Return the estimate in arrays of numpy; the optimum stays as it is."""
        weighs = isinstance(self.compared.estimator, Factorization)
        weighs = weighs and not self.sample.views.is_table
        moments = self.sample.weighed_moments if weighs else self.sample.moments
        point: Fitted = evaluate(Partial(self.compared, key=self.key), moments)
        on_host: Fitted = jax.tree.map(np.asarray, point)
        return on_host._replace(optimum=point.optimum)


@dataclasses.dataclass(frozen=True, eq=False)
class Errors:
    """Standard errors and intervals; the stage that reports, resample by resample.

    Attributes
    ----------
    linear
        The numbers of the estimate to first order.
    compared, point, key
        What was estimated, the estimate, and its key.
    options
        How to measure.
    """

    linear: Linearized
    compared: Compared
    point: Fitted
    key: jax.Array | None
    options: Options

    def __call__(self) -> Uncertainty:
        """Return the errors and intervals, with what became of the resamples."""
        return uncertainty(self.linear, self.compared, self.point, self.options, self.key)


@dataclasses.dataclass(frozen=True, eq=False)
class Judgement:
    """How far the estimate can be trusted: strength of the proxies, test of the specification.

    Attributes
    ----------
    estimator, data, sample, point
        What was estimated, from which table and sample, and the estimate.
    resamples
        What became of the resamples.
    """

    estimator: LevelEstimator
    data: CausalData
    sample: Sample
    point: Fitted
    resamples: Resamples

    def __call__(self) -> tuple[Diagnostics, bool]:
        """Return the diagnostics, and whether the proxies are weak where they were used."""
        return diagnose(self.estimator, self.data, self.sample, self.point, self.resamples)


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
    level, num_classes
        Those of the estimate.
    sample, point
        The sample, and the estimate.
    num_resamples, seed
        Number and seed of the resamples.
    """

    level: int
    num_classes: int
    sample: Sample
    point: Fitted
    num_resamples: int
    seed: int

    def __call__(self) -> FurtherTests:
        """Return the tests, and what is known of the spectra where there are several classes."""
        k, moments = self.num_classes, self.sample.moments
        tests: dict[str, SpecificationTest] = {}
        if moments.is_table or moments.tensor.size <= MAX_MOMENTS:
            usable = Status(int(self.point.status)).usable
            near = self.point.optimum if usable else None
            fitted = None if near is None else near._asdict()
            tests = {
                name: test.ask(self.sample, k, self.seed, fitted)
                for name, test in FURTHER.items()
                if test.level == self.level
            }
        if k == 1:
            return FurtherTests(tests)
        found = spectral.solve(moments, k).stats
        spectra = None
        if self.num_resamples:
            drawn = resampling.bootstrap(
                _Spectrum(k),
                self.sample.views,
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
    linear
        The numbers of the estimate to first order.
    """

    data: CausalData
    linear: Linearized

    def __call__(self) -> tuple[InfluentialRow, ...]:
        """Return the rows, the most influential first."""
        data, views = self.data, self.linear.sample.views
        influence = self.linear.influence("effect")
        found = largest_changes(influence, views.multiplicity, min(_INFLUENTIAL, len(views.t)))
        rows = distinct(data) if views.repeated else data
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


def why_no_bounds(estimator: LevelEstimator, sample: Sample, edge: str) -> str:
    """Return why no bounds are searched unasked; empty where they are.

    Parameters
    ----------
    estimator, sample
        What was estimated, and from which sample.
    edge
        The assumption that the bounds relax.
    """
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
    estimator: LevelEstimator,
    data: CausalData,
    point: Fitted,
    linear: Linearized,
    options: Options,
    diagnostics: Diagnostics,
) -> Checks:
    """Return the stages that run when they are read.

    Parameters
    ----------
    estimator, data, point
        What was estimated, from which table, and the estimate.
    linear
        The numbers of the estimate to first order.
    options
        Those of `jaxmix.fit`.
    diagnostics
        Those without checks: they stay what they are at level 4, which has no classes to test.
    """
    sample = linear.sample
    rows = Later(Rows(data, linear))
    untested = why_no_bounds(estimator, sample, options.edge)
    k = estimator.num_classes
    if estimator.level == 4 or k is None:
        return Checks(diagnostics.checks.tests, rows, Later.known(None), untested)
    tests = Later(Tests(estimator.level, k, sample, point, options.num_resamples, options.seed))
    if untested:
        return Checks(tests, rows, Later.known(None), untested)
    bounds = Bounds(
        sample.moments, k, point.mixture, options.edge, options.better, options.confidence,
        options.seed, str(data.outcome.name),
    )  # fmt: skip
    return Checks(tests, rows, Later[Sensitivity | None](bounds))
