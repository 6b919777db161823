"""What else speaks for or against a result of levels 2 and 3: tests, spectra, sensitivity."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxmix.data.roles import CausalData
from jaxmix.estimators import spectral
from jaxmix.estimators.base import Fitted, LevelEstimator
from jaxmix.fitting.options import Options
from jaxmix.inference import resampling, sensitivity, specification
from jaxmix.inference.asymptotic import largest_changes
from jaxmix.inference.sensitivity import Sensitivity
from jaxmix.inference.specification import SpecificationTest
from jaxmix.inference.subject import MAX_MOMENTS
from jaxmix.model.law import Mixture
from jaxmix.results.estimates import InfluentialRow
from jaxmix.sample.features import Views, distinct
from jaxmix.sample.moments import Moments
from jaxmix.sample.sample import Sample
from jaxmix.status import Status

_STRENGTHS = (0.0, 0.05, 0.1, 0.2, 0.4)  # of an edge to the outcome, in units of its range
_INFLUENTIAL = 3  # rows that are listed
_SPECTRA = 200  # resamples that say how often a spectrum is complex
_MOST_CELLS = 512  # of a table for which bounds are searched unasked


@dataclasses.dataclass(frozen=True)
class Checks:
    """What was checked.

    Attributes
    ----------
    tests
        By name, as in `jaxmix.estimates.Diagnostics`.
    complex_spectra
        Share of resamples whose operators have complex eigenvalues, or None; one class has none.
    sensitivity
        Bounds where level 3's assumption fails, or None.
    gap, condition
        Of the spectral operator at this number of classes, whatever the method of the estimate.
    untested
        Why there are no such bounds; empty where there are.
    """

    tests: Mapping[str, SpecificationTest]
    complex_spectra: float | None
    sensitivity: Sensitivity | None
    gap: float | None = None
    condition: float | None = None
    untested: str = ""


@dataclasses.dataclass(frozen=True)
class _Spectrum:
    """Whether the operators of the arms have complex eigenvalues."""

    num_classes: int

    def __call__(self, moments: Moments) -> Array:
        return spectral.solve(moments, self.num_classes).status == Status.COMPLEX_SPECTRUM


def checks(
    estimator: LevelEstimator,
    sample: Sample,
    point: Fitted,
    options: Options,
    unit: str,
) -> Checks:
    """Run the further tests of a result of level 2 or 3, and bound what it rests on.

    Parameters
    ----------
    estimator, sample, point
        What was estimated, the sample, and the output on it.
    options
        Those of `jaxmix.fit`: the assumption that the bounds relax, and how to measure.
    unit
        What the outcome is called.
    """
    k, level = estimator.num_classes, estimator.level
    assert k is not None
    moments, views = sample.moments, sample.views
    tests = {}
    if moments.is_table or moments.tensor.size <= MAX_MOMENTS:
        if level == 2:
            tests["z_to_t"] = specification.nested_test(views, k, seed=options.seed)
        else:
            usable = Status(int(point.status)).usable
            fitted = point.optimum._asdict() if point.optimum and usable else None
            tests["arms"] = specification.arms_test(views, k, seed=options.seed, fitted=fitted)
            tests["range"] = specification.range_test(views, k)
    spectra = gap = condition = None
    if k > 1:
        found = spectral.solve(moments, k).stats
        gap, condition = (float(found[name]) for name in ("gap", "condition"))
    if options.num_resamples and k > 1:
        drawn = resampling.bootstrap(
            _Spectrum(k),
            views,
            key=jax.random.key(options.seed),
            num_resamples=min(options.num_resamples, _SPECTRA),
        )
        spectra = float(jnp.mean(drawn))
    reason = sensitivity.does_not_apply(moments)
    reason = reason or sample.design.against_bounds()
    if level == 2:
        reason = "sensitivity bounds are level 3's bounds; fit level 3 to see them"
    if not reason and estimator.estimand == "ATT":
        reason = "sensitivity bounds are of effects on everybody, and the estimand is the ATT"
    if not reason and k == 1 and options.edge == "x_to_y":
        reason = (
            "with one class X has nothing to do with treatment, so that an effect of X on the "
            "outcome confounds nothing"
        )
    if not reason and moments.tensor.size > _MOST_CELLS:
        reason = (
            f"the table has {moments.tensor.size:,} cells, and bounds are searched unasked for up "
            f"to {_MOST_CELLS}; jaxmix.sensitivity.bounds takes any table"
        )
    if reason:
        return Checks(tests, spectra, None, gap, condition, reason)
    span = float(moments.range_y[1] - moments.range_y[0])
    bounds = sensitivity.bounds(
        moments,
        k,
        [span * strength for strength in _STRENGTHS],
        edge=options.edge,
        key=jax.random.fold_in(jax.random.key(options.seed), 2**31 - 2),
        confidence=options.confidence,
        start=_as_jax(point.mixture),
        better=options.better,
        unit=unit,
    )
    return Checks(tests, spectra, bounds, gap, condition)


def influential_rows(
    data: CausalData, views: Views, influence: Array
) -> tuple[InfluentialRow, ...]:
    """Return the few rows without which the average effect would differ most.

    Parameters
    ----------
    data, views
        The table, and its rows as features.
    influence
        Of each of these rows on the average effect (`jaxmix.asymptotic.influence`).
    """
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


def _as_jax(mixture: Mixture | None) -> Mixture | None:
    """Return a fitted mixture as device arrays, or None."""
    return None if mixture is None else jax.tree.map(jnp.asarray, mixture)
