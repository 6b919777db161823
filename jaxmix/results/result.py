"""What `jaxmix.fit` returns: numbers with labels and units, ready to read, store and draw."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxmix import arguments
from jaxmix.hierarchy import Verdict
from jaxmix.inference.bands import LawBands
from jaxmix.inference.selection import Selection
from jaxmix.inference.sensitivity import Sensitivity
from jaxmix.model.law import EffectLaw
from jaxmix.report import plots
from jaxmix.report.files import write_whole
from jaxmix.report.tables import Table, text_keys
from jaxmix.results import summary
from jaxmix.results.estimates import Classes, Diagnostics, Estimate, PerClass
from jaxmix.sample.draws import DRAWS
from jaxmix.status import EstimateError, InputError, Status

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """An effect under hidden confounding, its uncertainty, and what speaks against it.

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
    sensitivity
        Bounds where level 3's assumption fails (`jaxmix.sensitivity.Sensitivity`), or None;
        `untested` then says why.
    selection
        How the number of classes was chosen, where it was.
    verdict
        What the graph says, where one was given.
    status, warnings
        What became of the estimate, and what to know.
    diagnostics
        See `Diagnostics`.
    conditional
        At ``level="auto"`` with a number of classes: the level-3 result that stands beside the
        headline, conditional on X not affecting Y.
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
    law: EffectLaw | None
    law_se: PerClass | None
    law_interval: PerClass | None
    share_harmed: Estimate | None
    diagnostics: Diagnostics
    spread: Estimate | None = None
    bands: LawBands | None = None
    sensitivity: Sensitivity | None = None
    untested: str = ""
    selection: Selection | None = None
    verdict: Verdict | None = None
    conditional: Result | None = None
    classes: Classes | None = None

    @property
    def estimand_name(self) -> str:
        """What the headline number is: ATE, ATT, or the pooled form's coefficient."""
        pooled = self.level == 4 and self.bridge == "pooled"
        return "coefficient of treatment" if pooled else self.estimand

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

    def summary(self) -> str:
        """Return the result as text."""
        return "\n\n".join(table.text() for table in summary.tables(self))

    def __repr__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        return "\n".join(table.html() for table in self.tables())

    def to_dict(self, command: str | None = None) -> dict[str, Any]:
        """Return everything as plain numbers, text and None."""
        arguments.text("command", command)
        record: dict[str, Any] = {
            "schema": 1,
            "jaxmix": importlib.metadata.version("jaxmix"),
            "jax": jax.__version__,
            "draws": DRAWS,
            "seed": self.seed,
            "command": command,
            "n": self.num_rows,
            "dropped": self.num_dropped,
            "treatment": str(self.treatment),
            "control": self.control,
            "outcome": str(self.outcome),
            "level": self.level,
            "method": self.method,
            "estimand": self.estimand,
            "num_classes": self.num_classes,
            "status": self.status.name,
            "warnings": list(self.warnings),
            "naive": _estimate_dict(self.naive),
            "ate": _estimate_dict(self.ate),
            "potential_means": {a: _estimate_dict(e) for a, e in self.potential_means.items()},
            "law": self._law_dict(),
            "share_harmed": None
            if self.share_harmed is None
            else _estimate_dict(self.share_harmed),
            "spread": None if self.spread is None else _estimate_dict(self.spread),
            "selection": self.selection and self.selection.to_dict(),
            "verdict": self.verdict and self.verdict.to_dict(),
            "sensitivity": self.sensitivity and self.sensitivity.to_dict(),
            "unresolved_classes": None
            if self.bands is None
            else [[u + 1 for u in group] for group in self.bands.groups if len(group) > 1],
            "diagnostics": dataclasses.asdict(self.diagnostics)
            | {"bridge": self.bridge, "missing": dict(self.missing), "confidence": self.confidence},
        }
        if self.conditional is not None:
            record["diagnostics"]["level_3"] = self.conditional.to_dict()
        plain: dict[str, Any] = _plain(record)
        return plain

    def _law_dict(self) -> dict[str, Any] | None:
        if self.law is None:
            return None
        record: dict[str, Any] = {"effects": self.law.effects, "shares": self.law.shares}
        for name in ("effects", "shares"):
            record[f"{name}_se"] = self.law_se and getattr(self.law_se, name)
            record[f"{name}_interval"] = self.law_interval and getattr(self.law_interval, name)
        return record

    def posterior(self, data: Any) -> np.ndarray:
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

    def expected_effects(self, data: Any) -> np.ndarray:
        """Return ``E[delta_U | row]`` of each row, the class effects weighted by `posterior`.

        Parameters
        ----------
        data
            As in `posterior`.
        """
        classes = self._fitted_classes()
        return classes.posterior(data) @ np.asarray(classes.mixture.effects())

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

    def to_frame(self) -> Any:
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


def _estimate_dict(estimate: Estimate) -> dict[str, Any]:
    return {"value": estimate.value, "se": estimate.se, "interval": estimate.interval}


def _plain(value: Any) -> Any:
    """Return nested values as what JSON knows; what is not a finite number is null."""
    if isinstance(value, Mapping):
        return dict(zip(text_keys(value), map(_plain, value.values()), strict=True))
    if isinstance(value, np.ndarray | jax.Array):
        return _plain(np.asarray(value).tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value
