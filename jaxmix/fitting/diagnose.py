"""How far an estimate can be trusted: proxy strength, tests, and warnings in words."""

from __future__ import annotations

import numpy as np

from jaxmix.data.redundancy import notes_on_copies
from jaxmix.data.roles import CausalData
from jaxmix.inference.estimation import Estimation
from jaxmix.results.estimates import Checks, Diagnostics, Resamples
from jaxmix.sample.features import copies, nothing_left
from jaxmix.status import Status

_STARTS = (
    "log_likelihood", "num_starts", "num_agree", "runner_up", "miss_rate", "decrement", "steps",
)  # fmt: skip
_ROUNDING = 1e-9  # of the outcome's size: a mean at the end of its range may lie beyond by this
_WEAK = 10.0  # an effective F below this (Staiger, Stock 1997) makes proxies weak


def diagnose(
    estimation: Estimation, data: CausalData, resamples: Resamples
) -> tuple[Diagnostics, bool]:
    """Return the diagnostics, and whether the proxies are weak where they were used.

    Parameters
    ----------
    estimation, data
        The estimate, and the table that it is of.
    resamples
        What became of the resamples.
    """
    k, sample = estimation.estimator.num_classes, estimation.sample
    stats = {
        name: float(value) for name, value in estimation.point.stats.items() if np.ndim(value) == 0
    }
    proxies = estimation.proxies(data.arms)
    _, num_z, num_x, _ = sample.moments.tensor.shape
    diagnostics = Diagnostics(
        arm_sizes=data.arm_sizes(),
        num_features={"z": num_z, "x": num_x},
        rank=proxies.rank,
        singular_values=proxies.singular_values,
        proxy_strength=proxies.strength,
        specification=estimation.specification(),
        repairs={n: stats[n] for n in ("share_repair", "imaginary") if n in stats},
        starts={n: stats[n] for n in _STARTS if n in stats},
        **resamples._asdict(),
        checks=Checks.left_out(
            gap=stats.get("gap") if k != 1 else None, condition=stats.get("condition")
        ),
    )
    return diagnostics, any(strength < _WEAK for strength in proxies.strength.values())


def warnings_of(
    estimation: Estimation, data: CausalData, diagnostics: Diagnostics, has_errors: bool
) -> tuple[str, ...]:
    """Return what a user should know beside the status, one sentence each."""
    found = []
    point, sample = estimation.point, estimation.sample
    low, high = np.asarray(sample.moments.range_y)
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
        found += nothing_left(
            data, sample.views, [arm for arm in strengths if strengths[arm] == 0.0]
        )
    found += notes_on_copies(copies(data, sample.views))
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
    if doubt := data.design.doubt(data.t, data.arms, data.treatment):
        found.append(doubt)
    if diagnostics.specification.rejects():
        found.append(
            f"the specification test rejects ({diagnostics.specification.null}): the estimate "
            "may be biased"
        )
    return tuple(found)
