"""Outcomes of any scale: what is squared on the way is of order one, and results are not."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from jaxmix.data.coding import exponent
from jaxmix.data.columns import Column
from jaxmix.data.roles import CausalData
from jaxmix.inference.sensitivity import Sensitivity
from jaxmix.results.estimates import Estimate, InfluentialRow, PerClass
from jaxmix.results.later import Later
from jaxmix.results.result import Result

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_FREE = 128  # powers of two within which squares and cubes of outcomes are ordinary numbers

_WITH_UNITS = (
    "strengths", "ate", "effects", "ate_interval", "effects_interval", "level3_effects",
)  # fmt: skip

P = ParamSpec("P")
Record = TypeVar("Record", bound="DataclassInstance")


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

    def times(numbers: ArrayLike) -> np.ndarray:
        return _times(numbers, power)

    def estimate(own: Estimate) -> Estimate:
        ends = own.interval and tuple(times(own.interval).tolist())
        return Estimate(float(times(own.value)), own.se and float(times(own.se)), ends)

    def part(own: Record | None, *names: str) -> Record | None:
        return None if own is None else _part(own, power, *names)

    def classes(own: PerClass | None) -> PerClass | None:
        return own and own._replace(effects=times(own.effects))

    fitted = result.classes
    if fitted is not None:
        fitted = dataclasses.replace(
            fitted,
            mixture=_part(fitted.mixture, power, "means"),
            outcome_values=times(fitted.outcome_values),
        )
    checks = result.diagnostics.checks
    checks = dataclasses.replace(
        checks,
        rows=Later(_Rows(checks.rows, power, result.outcome)),
        bounds=Later(_Bounds(checks.bounds, power)),
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
        diagnostics=dataclasses.replace(result.diagnostics, checks=checks),
        classes=fitted,
        beside={name: in_units(other, power) for name, other in result.beside.items()},
    )  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class _Rows:
    """Influential rows in the user's units, once they are read."""

    own: Later[tuple[InfluentialRow, ...]]
    power: int
    outcome: str

    def __call__(self) -> tuple[InfluentialRow, ...]:
        return tuple(map(self.row, self.own.read()))

    def row(self, own: InfluentialRow) -> InfluentialRow:
        value = f"{_times(float(own.values[self.outcome]), self.power):.6g}"
        values = dict(own.values) | {self.outcome: value}
        return own._replace(values=values, change=float(_times(own.change, self.power)))


@dataclasses.dataclass(frozen=True, eq=False)
class _Bounds:
    """Bounds in the user's units, once they are read."""

    own: Later[Sensitivity | None]
    power: int

    def __call__(self) -> Sensitivity | None:
        found = self.own.read()
        return None if found is None else _part(found, self.power, *_WITH_UNITS)


def _times(numbers: ArrayLike, power: int) -> np.ndarray:
    found: np.ndarray = np.ldexp(np.asarray(numbers, float), power)
    return found


def _part(own: Record, power: int, *names: str) -> Record:
    """Return a record whose fields of these names are multiplied."""
    return dataclasses.replace(own, **{name: _times(getattr(own, name), power) for name in names})
