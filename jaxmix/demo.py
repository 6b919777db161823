"""The main job on real data, from packages that ship the data."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from jaxmix.data.roles import CausalData, Roles
from jaxmix.fitting.run import fit
from jaxmix.report.tables import number
from jaxmix.results.estimates import CLASSES, Estimate
from jaxmix.results.result import Result
from jaxmix.status import InputError

_CLASSES = 3


@dataclasses.dataclass(frozen=True)
class Lalonde:
    """LaLonde's data: the observational sample, and what the randomized trial says.

    Attributes
    ----------
    columns
        The observational sample: the treated of the trial beside survey controls.
    trial
        Difference in mean earnings between the trial's own two arms, with its standard error
        (unequal variances) and 95 % normal interval.
    """

    columns: dict[str, np.ndarray]
    trial: Estimate


def load_lalonde() -> Lalonde:
    """Return LaLonde's observational sample, NSW participants with CPS controls, and the trial.

    The treated of the randomized National Supported Work trial beside men of the Current
    Population Survey (Dehejia and Wahba 1999). ``u74`` and ``u75`` mark no earnings in that year,
    ``age2`` is age squared over 100.

    Raises
    ------
    InputError
        Where the package ``causaldata`` (extra 'demo') is missing.
    """
    try:
        from causaldata import cps_mixtape, nsw_mixtape
    except ModuleNotFoundError:
        raise InputError("the demo needs the extra 'demo': pip install 'jaxmix[demo]'") from None
    trial, survey = nsw_mixtape.load_pandas().data, cps_mixtape.load_pandas().data
    treated = trial[trial["treat"] == 1]
    # The package stores int8 and float32: widened first, or age squared overflows.
    columns = {
        name: np.concatenate([treated[name], survey[name]]).astype(np.float64)
        for name in trial.columns
        if name != "data_id"
    }
    columns["age2"] = columns["age"] ** 2 / 100
    columns["u74"] = columns["re74"] == 0
    columns["u75"] = columns["re75"] == 0
    arms = [trial.loc[trial["treat"] == t, "re78"].to_numpy(np.float64) for t in (0, 1)]
    effect = float(arms[1].mean() - arms[0].mean())
    se = float(np.sqrt(sum(arm.var(ddof=1) / len(arm) for arm in arms)))
    return Lalonde(columns, Estimate(effect, se, (effect - 1.96 * se, effect + 1.96 * se)))


def lalonde(
    data: Lalonde,
    *,
    num_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Return the effect of the training on the trained, with level 3 beside it.

    Earnings before the programme are the proxies: 1974 for the treatment side, 1975 for the
    outcome side. Level 4 adjusts for age, schooling and the like; level 3 takes no covariates.

    Parameters
    ----------
    data
        From `load_lalonde`.
    num_resamples, confidence, seed, progress
        Those of `jaxmix.fit`.
    """
    roles: Roles = {
        "treatment": "treat", "outcome": "re78", "z": ["re74", "u74"], "x": ["re75", "u75"],
    }  # fmt: skip
    covariates = ["age", "age2", "educ", "black", "hisp", "marr", "nodegree"]
    with_covariates: Roles = {**roles, "covariates": covariates}
    fitted = functools.partial(
        fit, estimand="ATT", num_resamples=num_resamples, confidence=confidence, seed=seed,
        progress=progress,
    )  # fmt: skip
    headline = fitted(CausalData.from_frame(data.columns, **with_covariates), level=4)
    plain = CausalData.from_frame(data.columns, **roles)
    classes = fitted(plain, level=3, num_classes=_CLASSES)
    return dataclasses.replace(headline, beside={CLASSES: classes})


def lalonde_words(result: Result, trial: Estimate) -> str:
    """Return what the numbers mean, with the trial's answer beside them."""
    classes = result.conditional
    assert classes is not None
    d = classes.diagnostics
    treated = d.singular_values["1"]
    singular = ", ".join(number(value, 2) for value in treated)
    bounds = result.ate.interval
    inside = bounds is not None and bounds[0] <= trial.value <= bounds[1]
    lines = [
        "In dollars of 1978 earnings, among the trained:",
        f"  difference in means     {number(result.naive.value, 5):>10}   at face value",
        f"  hidden confounding      {number(result.ate.value, 5):>10}   "
        f"std. error {number(result.ate.se, 3)}",
        f"  randomized trial        {number(trial.value, 5):>10}   "
        f"std. error {number(trial.se, 3)}"
        + (", inside the interval above" if inside else ", outside the interval above"),
        "",
    ]
    usable = classes.status.usable
    verdict = "is not to be used here" if not usable else "is fragile here"
    lines += [
        f"Level 3 ({classes.num_classes} classes) {verdict}. The treated arm has "
        f"{d.arm_sizes['1']} rows, and its proxies are",
        f"near-singular (singular values {singular}; the smallest has an "
        f"effective F of {number(d.proxy_strength['1'], 2)}),",
        "so that the class effects are ratios of noise: their size and sign say nothing of people.",
    ]
    if classes.law is not None:
        effects = ", ".join(number(float(effect), 3) for effect in classes.law.effects)
        lines.append(f"They came out at {effects} dollars; read the average effect above instead.")
    return "\n".join(lines)
