"""What `jaxmix.fit` returns: numbers with labels and units, ready to read, store and draw."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxmix import arguments
from jaxmix.hierarchy import Verdict
from jaxmix.inference.bands import LawBands
from jaxmix.inference.selection import Selection
from jaxmix.inference.sensitivity import Sensitivity
from jaxmix.inference.specification import SpecificationTest
from jaxmix.model.law import EffectLaw
from jaxmix.report import plots
from jaxmix.report.files import write_whole
from jaxmix.report.tables import Table
from jaxmix.results import records, summary
from jaxmix.results.estimates import (
    CLASSES,
    Classes,
    Diagnostics,
    Estimate,
    InfluentialRow,
    PerClass,
)
from jaxmix.results.later import Later
from jaxmix.status import EstimateError, InputError, Status
from jaxmix.types import Json

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """An effect under hidden confounding, its uncertainty, and what speaks against it.

    The tests of the classes, the bounds and the influential rows are computed when they are first
    read (`tests`, `sensitivity`, `influential`, and whatever shows them), once; until then the
    result keeps the table that it is of. `complete` reads them all.

    Attributes
    ----------
    ate
        The estimand that was asked for (ATE, ATT, or the pooled coefficient).
    naive
        The difference in means, for contrast.
    potential_means
        Mean outcome under each arm.
    law, law_se, law_interval
        Effect law by class with standard errors and intervals; None where only level 4 was
        fitted or level 3 had to be withdrawn.
    share_harmed
        Share of people in classes whose average effect is harmful; None without a law.
    spread
        Standard deviation of the class effects; None without a law.
    bands
        Intervals of the law's distribution function (`jaxmix.inference.bands.LawBands`), and
        which classes are resolved; None without intervals.
    selection
        How the number of classes was chosen, where it was.
    verdict
        What the graph says, where one was given.
    status, warnings
        What became of the estimate, and what to know.
    diagnostics
        See `Diagnostics`.
    beside
        Results that stand beside the headline, by name. `CLASSES`: at ``level="auto"`` with a
        number of classes that of level 3, conditional on X not affecting Y.
    """

    treatment: str
    control: str
    arm: str
    outcome: str
    num_rows: int
    num_dropped: int
    missing: Mapping[str, int]
    level: int
    method: str
    bridge: str
    estimand: str
    num_classes: int | None
    better: str
    confidence: float
    seed: int
    status: Status
    warnings: tuple[str, ...]
    naive: Estimate
    ate: Estimate
    potential_means: Mapping[str, Estimate]
    diagnostics: Diagnostics
    law: EffectLaw | None = None
    law_se: PerClass | None = None
    law_interval: PerClass | None = None
    share_harmed: Estimate | None = None
    spread: Estimate | None = None
    bands: LawBands | None = None
    selection: Selection | None = None
    verdict: Verdict | None = None
    beside: Mapping[str, Result] = dataclasses.field(default_factory=dict)
    classes: Classes | None = None

    @property
    def conditional(self) -> Result | None:
        """The result with classes that stands beside the headline, or None."""
        return self.beside.get(CLASSES)

    @property
    def estimand_name(self) -> str:
        """What the headline number is: ATE, ATT, or the pooled form's coefficient."""
        pooled = self.level == 4 and self.bridge == "pooled"
        return "coefficient of treatment" if pooled else self.estimand

    @property
    def tests(self) -> Mapping[str, SpecificationTest]:
        """Further tests of the classes by name; none where there is no law. See `Diagnostics`."""
        owner = self._owner_of_law()
        return {} if owner is None else owner.diagnostics.tests

    @property
    def sensitivity(self) -> Sensitivity | None:
        """Bounds where level 3's assumption fails, or None; `untested` then says why."""
        owner = self._owner_of_law()
        return None if owner is None else owner.diagnostics.checks.bounds.read()

    @property
    def untested(self) -> str:
        """Why there are no bounds; empty where there are."""
        owner = self._owner_of_law()
        if owner is None:
            return "no law of level 2 or 3 stands in the result"
        return owner.diagnostics.checks.untested

    @property
    def influential(self) -> tuple[InfluentialRow, ...]:
        """The rows that move the estimate most, largest first."""
        return self.diagnostics.influential

    def __setstate__(self, state: Mapping[str, object]) -> None:
        own = _with_bounds_later(state) if "sensitivity" in state else dict(state)
        if "conditional" in own:  # a field of its own in the release before
            one = own.pop("conditional")
            own["beside"] = {} if one is None else {CLASSES: one}
        self.__dict__.update(own)

    def _owner_of_law(self) -> Result | None:
        """Return the result whose classes the law is of: this one, or the conditional one."""
        if self.level < 4:
            return self
        return None if self.law is None else self.conditional

    def complete(self, told: Callable[[str], object] | None = None) -> Result:
        """Compute what is computed when it is first read, and return the result.

        It keeps no table then: to store or send it, or before many are kept.

        Parameters
        ----------
        told
            Called with the name of each part before it is computed.
        """
        self.diagnostics.checks.read(told)
        for other in self.beside.values():
            other.complete(told)
        return self

    def cdf(self, value: float) -> Estimate:
        """Return the share of people in classes whose average effect is at most `value`."""
        value = arguments.number("value", value)
        law = self._fitted_law()
        ends = None if self.bands is None else self.bands.cdf(value)
        return Estimate(float(law.cdf(value)), None, ends)

    def quantile(self, level: float) -> Estimate:
        """Return the smallest class effect whose cumulative share reaches `level`, in (0, 1]."""
        found = arguments.as_number(level)
        if found is None or not 0 < found <= 1:
            shown = arguments.told(level)
            raise InputError(f"level is {shown}: give a number above 0 and at most 1")
        level = found
        law = self._fitted_law()
        ends = None if self.bands is None else self.bands.quantile(level)
        return Estimate(float(law.quantile(level)), None, ends)

    def _fitted_law(self) -> EffectLaw:
        if self.law is None:
            raise InputError(
                "there is no effect law: fit level 3 or 2 with num_classes (--classes)"
            )
        return self.law

    def raise_if_failed(self) -> Result:
        """Return the result, or raise `EstimateError` where its status is not usable."""
        if not self.status.usable:
            raise EstimateError(f"{self.status.name}: {self.status.message}")
        return self

    def tables(self) -> list[Table]:
        """Return the result as tables, the way `summary` prints them."""
        return summary.tables(self)

    def in_brief(self) -> str:
        """Return the effect, and those of the classes, in a few words; nothing is computed."""
        return summary.in_brief(self)

    def summary(self) -> str:
        """Return the result as text."""
        return "\n\n".join(table.text() for table in summary.tables(self))

    def __repr__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        return "\n".join(table.html() for table in self.tables())

    def to_dict(self, command: str | None = None) -> dict[str, Json]:
        """Return everything as plain numbers, text and None."""
        arguments.text("command", command)
        return records.record(self, command)

    def posterior(self, data: object) -> np.ndarray:
        """Return the probability of each class for each row, ``(n, k)``, by Bayes' rule.

        Classes as in `law`; given treatment, proxies and outcome of the row. The classes of
        several people cannot be told with certainty: these are probabilities, not labels.

        Parameters
        ----------
        data
            A `CausalData`, or a dict of arrays or a pandas, polars or Arrow table that has the
            columns of the fit: any rows of it, one or all, of one arm or both.

        Raises
        ------
        InputError
            Where the fit was not a factorization of one-hot views, for columns that are not
            there, for missing cells, and for values that do not occur in the data of the fit.
        """
        return self._fitted_classes().posterior(data)

    def expected_effects(self, data: object) -> np.ndarray:
        """Return ``E[delta_U | row]`` of each row, the class effects weighted by `posterior`.

        Parameters
        ----------
        data
            As in `posterior`.
        """
        classes = self._fitted_classes()
        found: np.ndarray = classes.posterior(data) @ np.asarray(classes.mixture.effects())
        return found

    def _fitted_classes(self) -> Classes:
        classes = self.classes
        if classes is None and self.conditional is not None:
            classes = self.conditional.classes
        if classes is None:
            raise InputError(
                "class probabilities of rows need a factorization (level 2 or 3) of one-hot views; "
                'fit with level=3, num_classes and features="onehot"'
            )
        return classes

    def to_json(self, path: str | os.PathLike[str], command: str | None = None) -> None:
        """Write `to_dict` as JSON; the file appears whole or not at all."""
        write_whole(path, json.dumps(self.to_dict(command), indent=1, allow_nan=False) + "\n")

    def to_frame(self) -> pd.DataFrame:
        """Return the estimates as a pandas DataFrame, one row each."""
        try:
            import pandas as pd
        except ModuleNotFoundError:
            raise InputError("to_frame needs pandas: pip install pandas") from None
        rows = [("naive", self.naive), (self.estimand_name, self.ate)]
        rows += [(f"E[Y({arm})]", estimate) for arm, estimate in self.potential_means.items()]
        if self.share_harmed is not None:
            rows.append(("share_harmed", self.share_harmed))
        if self.spread is not None:
            rows.append(("spread", self.spread))
        rows += [
            (f"{name}[{u + 1}]", estimate)
            for name in ("share", "effect")
            for u, estimate in enumerate(self.class_estimates(name))
        ]
        records = [(name, e.value, e.se, *(e.interval or (None, None))) for name, e in rows]
        columns = ["estimand", "value", "se", "lower", "upper"]
        return pd.DataFrame(records, columns=columns).astype(dict.fromkeys(columns[1:], float))

    def class_estimates(self, name: str) -> list[Estimate]:
        """Return the shares or the effects of the classes as estimates."""
        if self.law is None:
            return []
        values = getattr(self.law, f"{name}s")
        se = self.law_se and getattr(self.law_se, f"{name}s")
        bounds = self.law_interval and getattr(self.law_interval, f"{name}s")
        return [
            Estimate(
                float(values[u]),
                None if se is None else float(se[u]),
                None if bounds is None else (float(bounds[u][0]), float(bounds[u][1])),
            )
            for u in range(len(values))
        ]

    def plot(self, extra: tuple[plots.ForestRow, ...] = ()) -> Figure:
        """Draw the forest of effects and, where there is one, the effect law.

        Parameters
        ----------
        extra
            Further rows for comparison.
        """
        what = "give a tuple of ForestRow (jaxmix.report.plots)"
        for row in arguments.instance("extra", extra, (tuple, list), what):
            arguments.instance("extra, one of its rows,", row, plots.ForestRow, what)
        rows = [
            plots.ForestRow(
                "difference in means", self.naive.value, self.naive.interval, "contrast"
            ),
            plots.ForestRow(
                f"{self.estimand_name}, level {self.level}", self.ate.value, self.ate.interval
            ),
            *extra,
        ]
        law = None
        if self.law is not None and self.status.usable:
            for u, effect in enumerate(self.class_estimates("effect")):
                label = f"class {u + 1} ({100 * float(self.law.shares[u]):.0f} %)"
                rows.append(plots.ForestRow(label, effect.value, effect.interval, "class"))
            law = (np.asarray(self.law.effects).tolist(), np.asarray(self.law.shares).tolist())
        note = f"{100 * self.confidence:g} % intervals."
        if not self.status.usable:
            note += f" Not to be used: {self.status.name}."
        if law is not None:
            note += " Class effects are conditional on X not affecting Y."
        title = f"Effect of {self.treatment} ({self.arm} against {self.control})"
        return plots.effects(rows, unit=str(self.outcome), title=title, law=law, note=note)


def _with_bounds_later(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a result that the release before pickled, as they are now."""
    own = dict(state)
    bounds, untested, diagnostics = own.pop("sensitivity"), own.pop("untested"), own["diagnostics"]
    checks = dataclasses.replace(
        diagnostics.checks,
        bounds=Later.known(bounds),
        untested=untested,
        asked=bounds is not None or bool(untested) or bool(diagnostics.influential),
    )
    return own | {"diagnostics": dataclasses.replace(diagnostics, checks=checks)}
