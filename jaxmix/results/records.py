"""A result as a record of plain numbers, text and None: what its JSON file holds."""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxmix.report.tables import text_keys
from jaxmix.sample.resamples.draws import DRAWS
from jaxmix.types import Json

if TYPE_CHECKING:
    from jaxmix.results.estimates import Estimate
    from jaxmix.results.result import Result


def record(result: Result, command: str | None = None) -> dict[str, Json]:
    """Return everything that a result says; what is computed later is computed.

    Parameters
    ----------
    result
        The result.
    command
        The command line that it is of, where it is of one.
    """
    found: dict[str, Any] = {
        "schema": 1,
        "jaxmix": importlib.metadata.version("jaxmix"),
        "jax": jax.__version__,
        "draws": DRAWS,
        "seed": result.seed,
        "command": command,
        "n": result.num_rows,
        "dropped": result.num_dropped,
        "treatment": str(result.treatment),
        "control": result.control,
        "outcome": str(result.outcome),
        "level": result.level,
        "method": result.method,
        "estimand": result.estimand,
        "num_classes": result.num_classes,
        "status": result.status.name,
        "warnings": list(result.warnings),
        "naive": _estimate(result.naive),
        "ate": _estimate(result.ate),
        "potential_means": {a: _estimate(e) for a, e in result.potential_means.items()},
        "law": _law(result),
        "share_harmed": None if result.share_harmed is None else _estimate(result.share_harmed),
        "spread": None if result.spread is None else _estimate(result.spread),
        "selection": result.selection and result.selection.to_dict(),
        "verdict": result.verdict and result.verdict.to_dict(),
        "sensitivity": result.sensitivity and result.sensitivity.to_dict(),
        "unresolved_classes": None
        if result.bands is None
        else [[u + 1 for u in group] for group in result.bands.groups if len(group) > 1],
        "diagnostics": result.diagnostics.to_dict()
        | {
            "bridge": result.bridge,
            "missing": dict(result.missing),
            "confidence": result.confidence,
        },
    }
    for name, other in result.beside.items():
        found["diagnostics"][name] = record(other)
    plain: dict[str, Json] = _plain(found)
    return plain


def _law(result: Result) -> dict[str, Any] | None:
    if result.law is None:
        return None
    found: dict[str, Any] = {"effects": result.law.effects, "shares": result.law.shares}
    for name in ("effects", "shares"):
        found[f"{name}_se"] = result.law_se and getattr(result.law_se, name)
        found[f"{name}_interval"] = result.law_interval and getattr(result.law_interval, name)
    return found


def _estimate(estimate: Estimate) -> dict[str, Any]:
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
