"""The figures of a study, from its summary and its replicates."""

from __future__ import annotations

import io
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

from jaxmix.report.curves import Histogram, Panel, Series, curves, histograms
from jaxmix.report.files import write_whole
from jaxmix.status import InputError
from jaxmix.study import summary
from jaxmix.study.configuration.choices import FigureTable
from jaxmix.study.statistics import STATUS_RATES
from jaxmix.study.store import Store
from jaxmix.types import Json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NAMES = {
    "error_median": "median error",
    "error_trimmed": "error, 5 % trimmed mean",
    "error_mean": "mean error",
    "ate_rmse": "root mean square error of the ATE",
    "ate_bias": "bias of the ATE",
    "ate_empirical_se": "empirical standard error of the ATE",
    "efficiency": "efficiency",
    "ate_efficiency": "efficiency of the ATE",
    "rate_failed": "rate of failed fits",
    "rate_complex_spectrum": "rate of complex spectra",
    "rate_without_number": "rate without a number",
    "coverage_ate": "coverage, ATE",
    "zt_strength": "strength of Z to T",
    "xy_strength": "strength of X to Y",
    "num_rows": "rows",
    "num_classes": "classes",
    "proxy_strength": "strength of the proxies",
    "ate": "average effect",
    "effects": "class effects",
    "shares": "class shares",
    "ate_median_bias": "median bias of the ATE",
    "nn_parafac": "NN-PARAFAC",
}

_BOUNDED = {"error_mean": "bound_error", "ate_rmse": "bound_ate"}
"""Metrics beside which an efficiency bound is drawn, and the column it is in."""


def words(name: str) -> str:
    """Return a metric or factor in words.

    Examples
    --------
    >>> words("error_median"), words("coverage_effect_1")
    ('median error', 'coverage, effect 1')
    """
    if name in _NAMES:
        return _NAMES[name]
    for start, meaning in (("coverage_", "coverage, "), ("width_", "interval width, ")):
        if name.startswith(start):
            return meaning + words(name.removeprefix(start))
    if name.endswith("_usable"):
        return words(name.removesuffix("_usable")) + ", usable fits"
    return name.replace("_", " ")


def draw(store: Store, lines: Sequence[Mapping[str, Json]] | None = None) -> dict[str, Figure]:
    """Return the figures that the configuration asks for, by file name.

    Without any it draws the errors against the first factor, or where nothing varies the
    distributions of the estimates.

    Parameters
    ----------
    store
        The study's folder, with its cells complete.
    lines
        Of the summary, where they are at hand.

    Raises
    ------
    InputError
        Where cells are missing, or a metric does not exist.
    """
    config = store.config
    missing = len(config.cells) - store.num_done()
    if missing:
        raise InputError(
            f"{missing} of {len(config.cells)} cells are missing; complete them by 'study run'"
        )
    lines = list(summary.rows(store)) if lines is None else lines
    asked = config.figures or ({},)
    figures = {}
    for position, figure in enumerate(asked, 1):
        name = figure.get("file", config.name if len(asked) == 1 else f"{config.name}_{position}")
        kind = figure.get("kind", "curves" if config.factor_names else "histograms")
        if kind == "curves":
            figures[name] = _curves(store, figure, lines)
        else:
            figures[name] = _histograms(store, figure)
    return figures


def write(
    store: Store,
    suffix: str = "png",
    lines: Sequence[Mapping[str, Json]] | None = None,
) -> list[pathlib.Path]:
    """Write the figures beside the summary, and return their paths."""
    paths = []
    for name, figure in draw(store, lines).items():
        picture = io.BytesIO()
        figure.savefig(picture, format=suffix, dpi=200)
        paths.append(store.folder / f"{name}.{suffix}")
        write_whole(paths[-1], picture.getvalue())
    return paths


def _chosen(store: Store, figure: FigureTable) -> list[str]:
    labels = [chosen.label for chosen in store.config.estimators]
    return list(figure.get("estimators", labels))


def _curves(store: Store, figure: FigureTable, lines: Sequence[Mapping[str, Json]]) -> Figure:
    factors = store.config.factor_names
    x = figure.get("x", factors[0])
    others = [name for name in factors if name != x and _varies(store, name, x)]
    known = {str(line["metric"]) for line in lines}
    wanted = figure.get("metrics")
    if wanted is None:
        wanted = [name for name in ("error_median", "ate_rmse") if name in known]
    panels = []
    for metric in wanted:
        if metric not in known | STATUS_RATES:
            raise InputError(
                f"figure of {store.config.name!r}: no estimator has the metric {metric!r}; "
                f"there are {', '.join(sorted(known))}"
            )
        series = []
        for label in _chosen(store, figure):
            for group in _groups(store, others):
                xs = _values(store, x, group)
                own = {
                    line[x]: line
                    for line in lines
                    if line["metric"] == metric and line["estimator"] == label
                    and all(line[name] == value for name, value in group.items())
                }  # fmt: skip
                found = [_value_of(own.get(value), metric) for value in xs]
                if all(math.isnan(value) for value, _ in found):
                    continue  # an estimator without classes has no such metric
                series.append(
                    Series(
                        _label(label, group),
                        xs,
                        [value for value, _ in found],
                        [mc_se for _, mc_se in found],
                    )
                )
        reference = _bound(store, metric, x) if not others else None
        panels.append(Panel(words(metric), series, reference, figure.get("log_y", False)))
    return curves(
        panels,
        x_label=figure.get("x_label", words(x)),
        title=figure.get("title", ""),
        log_x=figure.get("log_x", False),
        note=figure.get("note", ""),
    )


def _varies(store: Store, name: str, x: str) -> bool:
    """Whether a factor splits the curves: it takes several values at one value of x."""
    seen: dict[str, set[str]] = {}
    for cell in store.config.cells:
        factors = dict(cell.factors)
        seen.setdefault(repr(factors[x]), set()).add(repr(factors[name]))
    return any(len(values) > 1 for values in seen.values())


def _groups(store: Store, others: Sequence[str]) -> list[dict[str, Json]]:
    groups: list[dict[str, Json]] = []
    for cell in store.config.cells:
        group = {name: value for name, value in cell.factors if name in others}
        if group not in groups:
            groups.append(group)
    return groups


def _values(store: Store, x: str, group: Mapping[str, Json]) -> list[float]:
    """Return the values of x, in order, in the cells of a group."""
    found = []
    for cell in store.config.cells:
        factors = dict(cell.factors)
        if all(factors[name] == value for name, value in group.items()):
            found.append(factors[x])
    if not all(isinstance(value, (int, float)) for value in found):
        raise InputError(f"curves need numbers on the axis, and {x} has {found[0]!r}")
    return sorted(value for value in found if isinstance(value, (int, float)))


def _value_of(line: Mapping[str, Json] | None, metric: str) -> tuple[float, float]:
    """Return a value with its error; a status that never came up has the share 0."""
    if line is not None:
        return cast(float, line["value"]), cast(float, line["mc_se"])
    return (0.0, 0.0) if metric in STATUS_RATES else (math.nan, math.nan)


def _label(label: str, group: Mapping[str, Json]) -> str:
    return ", ".join([words(label), *(f"{words(name)} {value}" for name, value in group.items())])


def _bound(store: Store, metric: str, x: str) -> Series | None:
    """Return the efficiency bound over the cells, where it is finite and belongs to the metric."""
    column = _BOUNDED.get(metric.removesuffix("_usable"))
    if column is None or not store.config.bound:
        return None
    points = []
    for cell in store.config.cells:
        value = summary.mean_of(store, cell, column)
        at = cast(float, dict(cell.factors)[x])
        points.append((at, math.sqrt(value) if column == "bound_ate" else value))
    points.sort()
    if not any(math.isfinite(value) for _, value in points):
        return None
    return Series("efficiency bound", [p[0] for p in points], [p[1] for p in points])


def _histograms(store: Store, figure: FigureTable) -> Figure:
    """Draw the distributions of the estimates: one row of panels for each cell."""
    wanted = figure.get("metrics", ["ate"])
    panels = []
    for cell in store.config.cells:
        found = summary.replicates(store, cell)
        found = {label: found[label] for label in _chosen(store, figure)}
        place = f" ({cell.label})" if cell.factors else ""
        for name in wanted:
            groups, truths = {}, set()
            for label, own in found.items():
                values = getattr(own, name, None)
                if name not in ("ate", "effects", "shares"):
                    raise InputError(
                        f"figure of {store.config.name!r}: histograms show 'ate', 'effects' or "
                        f"'shares', not {name!r}"
                    )
                if values is None:
                    continue
                if not cell.population.is_random:  # then there is no one truth
                    truths |= set(np.round(own.truth[name][0], 12).ravel().tolist())
                if values.ndim == 1:
                    groups[label] = values
                    continue
                for u in range(values.shape[1]):
                    groups[f"{label}, class {u + 1}"] = values[:, u]
            panels.append(Histogram(words(name) + place, groups, sorted(truths)))
    return histograms(panels, title=figure.get("title", ""), note=figure.get("note", ""))
