"""The answer of a fit: the numbers of its stages, with labels and units."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxmix.data.roles import CausalData
from jaxmix.estimators.base import Numbers
from jaxmix.fitting.options import Options
from jaxmix.fitting.uncertainty import Uncertainty
from jaxmix.inference.bands import LawBands
from jaxmix.inference.estimation import Estimation
from jaxmix.model.law import EffectLaw, Mixture
from jaxmix.results.estimates import Classes, Diagnostics, Estimate, PerClass
from jaxmix.results.result import Result
from jaxmix.sample.features import cell_names, distinct
from jaxmix.sample.moments import Moments
from jaxmix.status import Status


@dataclasses.dataclass(frozen=True)
class _Labelled:
    """Estimates with their standard errors and intervals, by name."""

    numbers: Numbers[Array] | Numbers[np.ndarray]
    errors: Numbers[np.ndarray]
    bounds: Numbers[np.ndarray]

    def __call__(self, name: str, *index: int) -> Estimate:
        value, se, ends = (getattr(part, name) for part in (self.numbers, self.errors, self.bounds))
        return Estimate(
            float(value[index]),
            None if se is None or not np.isfinite(se[index]) else float(se[index]),
            None
            if ends is None or not np.isfinite(ends[index]).all()
            else tuple(ends[index].tolist()),
        )


def answer(
    estimation: Estimation,
    data: CausalData,
    options: Options,
    spread: Uncertainty,
    diagnostics: Diagnostics,
    status: Status,
    warnings: tuple[str, ...],
) -> Result:
    """Return what the stages gave as a result.

    Parameters
    ----------
    estimation, data, options
        The estimate, the table that it is of, and what was asked.
    spread, diagnostics
        Its uncertainty, and how far it can be trusted.
    status, warnings
        What became of the estimate, and what to know.
    """
    estimator, point = estimation.estimator, estimation.point
    labelled = _Labelled(point.numbers, spread.errors, spread.bounds)
    result = Result(
        treatment=data.treatment,
        control=data.arms[0],
        arm=data.arms[1],
        outcome=data.outcome.name,
        num_rows=data.num_rows,
        num_dropped=data.num_dropped,
        missing=dict(data.missing),
        level=estimator.level,
        method=estimator.name,
        bridge=estimator.form,
        estimand=estimator.estimand,
        num_classes=estimator.num_classes,
        better=options.better,
        confidence=options.confidence,
        seed=options.seed,
        status=status,
        warnings=warnings,
        naive=labelled("naive"),
        ate=labelled("effect"),
        potential_means={arm: labelled("means", i) for i, arm in enumerate(data.arms)},
        diagnostics=diagnostics,
        classes=_classes(data, estimation.sample.moments, point.mixture),
    )
    if estimator.level == 4:
        return result
    bands = _bands(spread.bounds)
    harmed = labelled("harmed")
    if bands is not None:
        harmed = harmed._replace(interval=bands.harmed(options.better))
    law = point.law
    return dataclasses.replace(
        result,
        law=EffectLaw(law.shares, law.effects, jnp.int32(status), dict(point.stats)),
        law_se=_per_class(spread.errors),
        law_interval=_per_class(spread.bounds),
        share_harmed=harmed,
        spread=labelled("spread"),
        bands=bands,
    )


def _per_class(numbers: Numbers[np.ndarray]) -> PerClass | None:
    """Return the part of numbers that is by class, where there is one."""
    if numbers.shares is None or numbers.effects is None:
        return None
    return PerClass(numbers.shares, numbers.effects)


def _bands(bounds: Numbers[np.ndarray]) -> LawBands | None:
    """Return what the intervals of the classes say of the law, where they exist."""
    effects, cumulative = bounds.effects, bounds.cumulative
    if effects is None or cumulative is None:
        return None
    if not (np.isfinite(effects).all() and np.isfinite(cumulative).all()):
        return None
    return LawBands(effects, cumulative)


def _classes(data: CausalData, moments: Moments, mixture: Mixture | None) -> Classes | None:
    """Return the classes with the names of their cells, where every view is one-hot."""
    if mixture is None or not moments.is_table:
        return None
    data = distinct(data)
    return Classes(
        mixture=mixture,
        treatment=data.treatment,
        outcome=data.outcome.name,
        z=tuple(column.name for column in data.z),
        x=tuple(column.name for column in data.x),
        arms=data.arms,
        z_cells=cell_names(data.z),
        x_cells=cell_names(data.x),
        outcome_values=np.asarray(moments.value_y),
    )
