"""What `jaxmix.fit` returns: numbers with labels and units, ready to read, store and draw."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmix import summary
from jaxmix.data import CausalData
from jaxmix.features import cells_like
from jaxmix.inference.specification import SpecificationTest
from jaxmix.mixture import EffectLaw, Mixture
from jaxmix.report import plots
from jaxmix.report.files import write_whole
from jaxmix.report.tables import Table
from jaxmix.status import EstimateError, InputError, Status

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Estimate(NamedTuple):
    """A number with its standard error and interval (None where there is none)."""

    value: float
    se: float | None = None
    interval: tuple[float, float] | None = None


class PerClass(NamedTuple):
    """Numbers beside an effect law: ``shares`` and ``effects``, ``(k,)`` or ``(k, 2)``."""

    shares: np.ndarray
    effects: np.ndarray


@dataclasses.dataclass(frozen=True)
class Diagnostics:
    """What there is to know about how far an estimate can be trusted.

    Attributes
    ----------
    arm_sizes
        Rows by arm.
    num_features
        Features of z and of x.
    rank
        The rank that was used.
    singular_values
        Singular values of E[z x | T=t] by arm, largest first ("all" when pooled); covariates
        partialled out.
    proxy_strength
        Effective F of the smallest of them that was used, by arm: its square over what sampling
        noise alone would make of it; below 10 the proxies count as weak.
    gap, condition
        Level 3 by the spectral operator: the smallest distance of eigenvalues in units of the
        outcome's range, and the condition of the class profiles.
    starts
        Factorization: how the solver fared; ``num_starts`` of them, ``num_agree`` at the best
        optimum, ``runner_up`` the gap to the next one in log-likelihood units.
    repairs
        Named sizes of what was repaired to get numbers: ``share_repair``, ``imaginary``.
    specification
        Test of the specification, or why there is none.
    num_resamples, resampling
        How many resamples, and of which kind (None without).
    failed
        Resamples without an estimate, by status.
    out_of_range
        Resamples whose estimate was out of range; they are kept in the intervals.
    ambiguous
        Resamples whose classes did not match those of the estimate one to one.
    """

    arm_sizes: Mapping[str, int]
    num_features: Mapping[str, int]
    rank: int
    singular_values: Mapping[str, tuple[float, ...]]
    proxy_strength: Mapping[str, float]
    specification: SpecificationTest
    gap: float | None = None
    condition: float | None = None
    repairs: Mapping[str, float] = dataclasses.field(default_factory=dict)
    starts: Mapping[str, float] = dataclasses.field(default_factory=dict)
    num_resamples: int = 0
    resampling: str | None = None
    failed: Mapping[str, int] = dataclasses.field(default_factory=dict)
    out_of_range: int = 0
    ambiguous: int = 0

    @property
    def num_failed(self) -> int:
        """Resamples without an estimate."""
        return sum(self.failed.values())


@dataclasses.dataclass(frozen=True, eq=False)
class Classes:
    """The fitted classes with the names of the cells their profiles speak of.

    Attributes
    ----------
    mixture
        Shares, means and profiles (`jaxmix.Mixture`).
    arms
        Labels of the arms.
    z_cells, x_cells
        Joint values of the columns behind each feature of z and of x.
    outcome_values
        The outcome behind each of its features.
    """

    mixture: Mixture
    arms: tuple[str, ...]
    z_cells: Sequence[tuple[str, ...]]
    x_cells: Sequence[tuple[str, ...]]
    outcome_values: np.ndarray

    def posterior(self, data: CausalData) -> np.ndarray:
        """Return ``P(U=u | row)``, ``(n, k)``; NaN where a row is impossible under the fit."""
        if strange := [arm for arm in data.arms if arm not in self.arms]:
            raise InputError(f"arm {strange[0]!r} of {data.treatment!r} is not in the fit")
        values = data.outcome.values
        y = (values[:, None] == self.outcome_values).astype(float)
        if (y.sum(1) == 0).any():
            bad = values[y.sum(1) == 0][0]
            raise InputError(f"outcome {data.outcome.name!r} = {bad:g} does not occur in the fit")
        with jax.enable_x64(True):
            t = np.array([self.arms.index(arm) for arm in data.arms])[data.t]
            z = cells_like("z", data.z, self.z_cells)
            x = cells_like("x", data.x, self.x_cells)
            rows = (jnp.asarray(part) for part in (t, z, x, y))
            return np.asarray(self.mixture.posterior(*rows))


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
    conditional: Result | None = None
    classes: Classes | None = None

    @property
    def estimand_name(self) -> str:
        """What the headline number is: ATE, ATT, or the pooled form's coefficient."""
        pooled = self.level == 4 and self.bridge == "pooled"
        return "coefficient of treatment" if pooled else self.estimand

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
        record: dict[str, Any] = {
            "schema": 1,
            "jaxmix": importlib.metadata.version("jaxmix"),
            "jax": jax.__version__,
            "seed": self.seed,
            "command": command,
            "n": self.num_rows,
            "dropped": self.num_dropped,
            "treatment": self.treatment,
            "control": self.control,
            "outcome": self.outcome,
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

    def posterior(self, data: CausalData) -> np.ndarray:
        """Return the probability of each class for each row, ``(n, k)``, by Bayes' rule.

        Classes as in `law`; given treatment, proxies and outcome of the row. The classes of
        several people cannot be told with certainty: these are probabilities, not labels.

        Raises
        ------
        InputError
            Where the fit was not a factorization of one-hot views, and for values that do not
            occur in the data of the fit.
        """
        return self._fitted_classes().posterior(data)

    def expected_effects(self, data: CausalData) -> np.ndarray:
        """Return ``E[delta_U | row]`` of each row, the class effects weighted by `posterior`."""
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
        rows += [
            (f"{name}[{u + 1}]", estimate)
            for name in ("share", "effect")
            for u, estimate in enumerate(self._class_estimates(name))
        ]
        records = [(name, e.value, e.se, *(e.interval or (None, None))) for name, e in rows]
        columns = ["estimand", "value", "se", "lower", "upper"]
        return pd.DataFrame(records, columns=columns).astype(dict.fromkeys(columns[1:], float))

    def _class_estimates(self, name: str) -> list[Estimate]:
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
            for u, effect in enumerate(self._class_estimates("effect")):
                label = f"class {u + 1} ({100 * float(self.law.shares[u]):.0f} %)"
                rows.append(plots.ForestRow(label, effect.value, effect.interval, "class"))
            law = (np.asarray(self.law.effects).tolist(), np.asarray(self.law.shares).tolist())
        note = f"{100 * self.confidence:g} % intervals."
        if not self.status.usable:
            note += f" Not to be used: {self.status.name}."
        if law is not None:
            note += " Class effects are conditional on X not affecting Y."
        title = f"Effect of {self.treatment} ({self.arm} against {self.control})"
        return plots.effects(rows, unit=self.outcome, title=title, law=law, note=note)


def _estimate_dict(estimate: Estimate) -> dict[str, Any]:
    return {"value": estimate.value, "se": estimate.se, "interval": estimate.interval}


def _plain(value: Any) -> Any:
    """Return nested values as what JSON knows; what is not a finite number is null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | jax.Array):
        return _plain(np.asarray(value).tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value
