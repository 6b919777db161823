"""How far an estimate can be trusted: proxy strength, tests, and warnings in words."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jaxtyping import Array

from jaxmix.data import clusters
from jaxmix.data.redundancy import notes_on_copies
from jaxmix.data.roles import CausalData
from jaxmix.estimators.base import Fitted, LevelEstimator, Optimum
from jaxmix.estimators.bridge import proxy_singular_values, short_of_rank, weakest_direction
from jaxmix.estimators.registry import Bridge
from jaxmix.inference.asymptotic import Linearized
from jaxmix.inference.specification import (
    SpecificationTest,
    bridge,
    contrast_test,
    fit_test,
)
from jaxmix.inference.specification.level import left_to_test
from jaxmix.results.estimates import Checks, Diagnostics, Resamples
from jaxmix.sample.features import Views, copies, nothing_left
from jaxmix.sample.moments import Moments
from jaxmix.sample.sample import Sample
from jaxmix.solvers.compiling import compiled
from jaxmix.status import Status

_STARTS = ("log_likelihood", "num_starts", "num_agree", "runner_up", "decrement", "steps")
_ROUNDING = 1e-9  # of the outcome's size: a mean at the end of its range may lie beyond by this
_WEAK = 10.0  # an effective F below this (Staiger, Stock 1997) makes proxies weak

Statistic = jax.tree_util.Partial
_Tree = TypeVar("_Tree")


@compiled()
def evaluate(statistic: Callable[[Moments], _Tree], moments: Moments) -> _Tree:
    """Evaluate a statistic of the moments.

    One program per statistic, whatever else is asked of it: a program that also differentiates
    rounds differently, and may end elsewhere where the optimum is flat.
    """
    return statistic(moments)


@dataclasses.dataclass(frozen=True)
class _Weakest:
    """Where noise meets the smallest singular value that is used, for its standard errors."""

    estimator: LevelEstimator
    index: int

    def __call__(self, moments: Moments) -> dict[str, Array]:
        column, row = weakest_direction(moments, self.index, form=self.estimator.form)
        return {"column": column, "row": row}


@dataclasses.dataclass(frozen=True)
class _Contrast:
    """Level 3's mean minus level 4's estimate of the same thing, at the estimate."""

    estimator: LevelEstimator

    def __call__(self, moments: Moments, *, near: Optimum | None = None) -> dict[str, Array]:
        own = self.estimator
        other = Bridge(own.num_classes, own.form, own.estimand)
        mean, less = own(moments, near=near).numbers.effect, other(moments).numbers.effect
        assert mean is not None
        assert less is not None
        return {"contrast": mean - less}


@dataclasses.dataclass(frozen=True)
class _SingularValues:
    """The singular values of the proxies' moments by arm, and where those used are rounding."""

    estimator: LevelEstimator

    def __call__(self, moments: Moments) -> tuple[Array, Array]:
        form = self.estimator.form
        short = short_of_rank(moments, self.estimator.num_classes, form=form)
        return proxy_singular_values(moments, form=form), short


def diagnose(
    estimator: LevelEstimator,
    data: CausalData,
    sample: Sample,
    point: Fitted,
    resamples: Resamples,
) -> tuple[Diagnostics, bool]:
    """Return the diagnostics, and whether the proxies are weak where they were used."""
    k = estimator.num_classes
    views = sample.views
    found = evaluate(Statistic(_SingularValues(estimator)), sample.moments)
    values, short = map(np.asarray, found)
    used = values.shape[1]
    if k is not None:
        # Where the constant was partialled out it is not among the singular values; one class
        # needs nothing but the constant.
        partialled = views.num_shared > (0 if estimator.form == "pooled" else 1)
        used = k - 1 if partialled or k == 1 else k
    arms = ["all"] if estimator.form == "pooled" else list(data.arms)
    relevant = range(len(arms))
    if estimator.level == 4 and estimator.estimand == "ATT":
        relevant = range(1)  # the control arm's bridge is the only one
    strengths = {}
    if used > 0:
        sides = Linearized(Statistic(_Weakest(estimator, used - 1)), sample).standard_errors()
        noise = np.max([(side**2).sum(1) for side in sides.values()], axis=0)
        for i in relevant:
            value = values[i, used - 1]
            if short[i] or value == 0:
                # Rounding has no noise to be compared with; nor has an empty or a structural cell.
                strengths[arms[i]] = 0.0
            elif noise[i] > 0:
                strengths[arms[i]] = float(value**2 / noise[i])
    stats = {name: float(value) for name, value in point.stats.items() if np.ndim(value) == 0}
    if estimator.level == 4:
        test = bridge.of_sample(sample, rank=k, form=estimator.form, estimand=estimator.estimand)
    else:
        test = _test_of_fit(estimator, data, sample, stats, point.optimum)
        if not test.applies and estimator.level == 3:
            test = _compare_levels(estimator, sample, point.optimum)
    diagnostics = Diagnostics(
        arm_sizes=data.arm_sizes(),
        num_features={"z": views.z.shape[1], "x": views.x.shape[1]},
        rank=views.max_rank if k is None else k,
        singular_values={arm: tuple(row.tolist()) for arm, row in zip(arms, values, strict=True)},
        proxy_strength=strengths,
        specification=test,
        repairs={n: stats[n] for n in ("share_repair", "imaginary") if n in stats},
        starts={n: stats[n] for n in _STARTS if n in stats},
        **resamples._asdict(),
        checks=Checks.left_out(
            gap=stats.get("gap") if k != 1 else None, condition=stats.get("condition")
        ),
    )
    return diagnostics, any(strength < _WEAK for strength in strengths.values())


def _test_of_fit(
    estimator: LevelEstimator,
    data: CausalData,
    sample: Sample,
    stats: dict[str, float],
    near: Optimum | None,
) -> SpecificationTest:
    """Test the level by how well the factorization fits, where there is one."""
    views = sample.views
    symbol = "G2" if "g2" in stats else "J"
    cells = views.num_arms * views.z.shape[1] * views.x.shape[1] * views.y.shape[1]
    rows_per_cell = data.num_rows / cells if symbol == "G2" else None
    df: float | Array = stats.get("df", 1)
    # The ranks of a large table take their time.
    if rows_per_cell is not None and rows_per_cell >= 1 and near is not None:
        df = left_to_test(sample.moments, near.start, level=estimator.level)
    return fit_test(
        stats.get(symbol.lower(), np.nan),
        int(df),
        level=estimator.level,
        symbol=symbol,
        rows_per_cell=rows_per_cell,
        design=sample.design,
    )


def _compare_levels(
    estimator: LevelEstimator, sample: Sample, near: Optimum | None
) -> SpecificationTest:
    """Test level 3 by whether its mean agrees with level 4, which needs less."""
    contrast = Statistic(_Contrast(estimator.at_optimum()), near=near)
    value = float(evaluate(contrast, sample.moments)["contrast"])
    se = float(Linearized(contrast, sample).standard_errors()["contrast"])
    low, high = sample.moments.range_y
    return contrast_test(value, se, float(high - low))


def warnings_of(
    diagnostics: Diagnostics,
    data: CausalData,
    views: Views,
    point: Fitted,
    has_errors: bool,
) -> tuple[str, ...]:
    """Return what a user should know beside the status, one sentence each."""
    found = []
    low, high = np.asarray(views.range_y)
    rounding = _ROUNDING * max(abs(low), abs(high))
    assert point.numbers.means is not None
    for arm, mean in zip(data.arms, point.numbers.means, strict=True):
        if not low - rounding <= mean <= high + rounding and np.isfinite(mean):
            found.append(
                f"the mean outcome under {data.treatment}={arm} came out outside the "
                "outcome's range: weak proxies, or assumptions that do not hold"
            )
    strengths = diagnostics.proxy_strength
    if point.status == Status.RANK_DEFICIENT or 0.0 in strengths.values():
        found += nothing_left(data, views, [arm for arm in strengths if strengths[arm] == 0.0])
    found += notes_on_copies(copies(data, views))
    effects = point.numbers.effects
    num_classes = 0 if effects is None else len(effects)
    merged = num_classes - int(point.stats.get("num_distinct", num_classes))
    if merged > 0:
        found.append(f"{merged} of the classes could not be told from the others and were merged")
    if diagnostics.num_resamples and not has_errors:
        found.append(
            f"{diagnostics.num_failed} of {diagnostics.num_resamples} resamples have no "
            "estimate, so no standard errors or intervals are given"
        )
    elif diagnostics.num_failed > 0.05 * diagnostics.num_resamples:
        found.append(
            f"{diagnostics.num_failed} of {diagnostics.num_resamples} resamples have no "
            "estimate; intervals rest on the others and are too optimistic (the resampling "
            "'bayesian' drops no row, and may fail less)"
        )
    if diagnostics.ambiguous > 0.05 * diagnostics.num_resamples:
        found.append(
            f"classes could not be told apart in {diagnostics.ambiguous} of "
            f"{diagnostics.num_resamples} resamples: they are not resolved, and intervals by "
            "class are unreliable"
        )
    if data.cluster is not None:
        doubt = clusters.doubt(data.cluster, data.t, data.arms, data.treatment)
        found += [doubt] * bool(doubt)
    if diagnostics.specification.rejects():
        found.append(
            f"the specification test rejects ({diagnostics.specification.null}): the estimate "
            "may be biased"
        )
    return tuple(found)
