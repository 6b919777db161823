"""Outcomes of any scale: what is squared on the way is of order one, and results are not."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ParamSpec

import numpy as np

from jaxmix.data.coding import exponent
from jaxmix.data.columns import Column
from jaxmix.data.roles import CausalData
from jaxmix.results.estimates import Estimate, InfluentialRow, PerClass
from jaxmix.results.result import Result

_FREE = 128  # powers of two within which squares and cubes of outcomes are ordinary numbers

P = ParamSpec("P")


def of_order_one(fit: Callable[P, Result]) -> Callable[P, Result]:
    """Make a fit of tables one of outcomes of any scale.

    An outcome of extreme size is multiplied by a power of two, which costs no digit, and the
    result's numbers in outcome units are multiplied back: they are those of the same outcome in
    other units, exactly. Ordinary outcomes pass as they are.
    """

    @functools.wraps(fit)
    def fitted(*args: P.args, **options: P.kwargs) -> Result:
        data: Any = args[0] if args else options.get("data")
        power = int(exponent(data.outcome.values)) if isinstance(data, CausalData) else 0
        if abs(power) <= _FREE:
            return fit(*args, **options)
        values = np.ldexp(data.outcome.values, -power)
        small: Any = dataclasses.replace(data, outcome=Column(data.outcome.name, values))
        if not args:
            options["data"] = small
            return in_units(fit(*args, **options), power)
        return in_units(fit(small, *args[1:], **options), power)  # type: ignore[arg-type]

    return fitted


def in_units(result: Result, power: int) -> Result:
    """Return a result with every number in outcome units multiplied by a power of two.

    Examples
    --------
    >>> import jax, jaxmix as jm
    >>> rows = jm.populations.paper_main(zt_strength=0.5).sample(jax.random.key(0), 5000)
    >>> data = jm.CausalData.from_frame(rows, treatment="T", outcome="Y", z=["Z"], x=["X"])
    >>> result = jm.fit(data, level=4, num_resamples=0)
    >>> in_units(result, 3).ate.value == 8 * result.ate.value
    True
    """

    def times(numbers: Any) -> Any:
        return np.ldexp(np.asarray(numbers, float), power)

    def estimate(own: Estimate) -> Estimate:
        ends = own.interval and tuple(times(own.interval).tolist())
        return Estimate(float(times(own.value)), own.se and float(times(own.se)), ends)

    def part(own: Any, *names: str) -> Any:
        if own is None:
            return None
        return dataclasses.replace(own, **{name: times(getattr(own, name)) for name in names})

    def classes(own: PerClass | None) -> PerClass | None:
        return own and own._replace(effects=times(own.effects))

    def row(own: InfluentialRow) -> InfluentialRow:
        outcome = f"{times(float(own.values[result.outcome])):.6g}"
        values = dict(own.values) | {result.outcome: outcome}
        return own._replace(values=values, change=float(times(own.change)))

    fitted = result.classes
    if fitted is not None:
        mixture = part(fitted.mixture, "means")
        fitted = dataclasses.replace(
            fitted, mixture=mixture, outcome_values=times(fitted.outcome_values)
        )
    diagnostics = dataclasses.replace(
        result.diagnostics, influential=tuple(map(row, result.diagnostics.influential))
    )
    return dataclasses.replace(
        result,
        naive=estimate(result.naive),
        ate=estimate(result.ate),
        potential_means={arm: estimate(own) for arm, own in result.potential_means.items()},
        law=part(result.law, "effects"),
        law_se=classes(result.law_se),
        law_interval=classes(result.law_interval),
        spread=result.spread and estimate(result.spread),
        bands=part(result.bands, "effects"),
        sensitivity=part(
            result.sensitivity, "strengths", "ate", "effects", "ate_interval", "effects_interval",
            "level3_effects",
        ),
        diagnostics=diagnostics,
        classes=fitted,
        conditional=None if result.conditional is None else in_units(result.conditional, power),
    )  # fmt: skip
