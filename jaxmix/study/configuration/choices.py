"""What a study runs and shows: estimators with options, intervals, figures; checked."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import TypedDict, cast

from jaxmix import choices
from jaxmix.estimators.registry import METHODS
from jaxmix.study.configuration.methods import Chosen
from jaxmix.study.configuration.source import Source, check_among, check_keys, check_type, suggest

INTERVALS = ("delta", "profile", "bootstrap", *choices.INTERVALS)
_BY_DERIVATIVES = ("delta", "studentized", "bca")
FIGURES = ("curves", "histograms")

_INTERVALS = {"kind": str, "confidence": float, "num_resamples": int}
_FIGURE = {
    "kind": str, "title": str, "x": str, "metrics": list, "estimators": list, "log_x": bool,
    "log_y": bool, "x_label": str, "note": str, "file": str,
}  # fmt: skip


class FigureTable(TypedDict, total=False):
    """A table of a figure, as a study's file has it."""

    kind: str
    title: str
    x: str
    metrics: list[str]
    estimators: list[str]
    log_x: bool
    log_y: bool
    x_label: str
    note: str
    file: str


@dataclasses.dataclass(frozen=True)
class Intervals:
    """How replicates get intervals.

    Attributes
    ----------
    kind
        ``"delta"``: normal, by the delta method. ``"profile"``: profile likelihood, of
        maximum-likelihood factorizations. The others take multinomial resamples of the table:
        ``"percentile"`` (also called ``"bootstrap"``), ``"basic"``, ``"normal"``,
        ``"studentized"`` or ``"bca"``; see `jaxmix.inference.intervals`.
    confidence
        Of the intervals.
    num_resamples
        Resamples, for those that take them.
    """

    kind: str
    confidence: float = 0.95
    num_resamples: int = 200

    @property
    def takes_resamples(self) -> bool:
        """Whether intervals come from resampled tables."""
        return self.kind not in ("delta", "profile")


def check_name(source: Source, keys: tuple[str, ...], name: str) -> None:
    """Refuse what is no good name of a file."""
    if not name.strip(".") or not all(c.isalnum() or c in "-_." for c in name):
        source.fail(keys, f"{keys[-1]} is {name!r}; use letters, digits, '-', '_' and '.'")


def estimators_of(source: Source) -> tuple[Chosen, ...]:
    """Return the methods; a label that is no method's name takes `method` from its options."""
    labels = source.data["estimators"]
    options = source.data.get("options", {})
    if not labels:
        source.fail(("estimators",), "estimators is empty; name at least one")
    if len(set(map(str, labels))) < len(labels):
        source.fail(("estimators",), "estimators names one of them twice; give each its own label")
    for label, own in options.items():
        check_type(source, ("options", label), own, dict)
        if label not in labels:
            source.fail(("options", label), f"[options.{label}] belongs to no estimator"
                        f"{suggest(label, [str(name) for name in labels])}")  # fmt: skip
    chosen = []
    for label in labels:
        if not isinstance(label, str):
            source.fail(("estimators",), f"estimators has {label!r}; use names in quotes")
        own = dict(options.get(label, {}))
        method = own.pop("method", label)
        check_type(source, ("options", label, "method"), method, str)
        if method not in METHODS:
            place = ("options", label, "method") if label in options else ("estimators",)
            source.fail(place, f"unknown estimator {method!r}{suggest(str(method), METHODS)}; "
                        "a label of your own needs method = ... under [options.LABEL]")  # fmt: skip
        known = METHODS[method].options
        for option, value in own.items():
            place = ("options", label, option)
            if option not in known:
                names = ", ".join(sorted(known)) or "none"
                source.fail(place, f"{method} has no option {option!r}; it takes {names}")
            allowed = known[option]
            if isinstance(allowed, tuple):
                check_among(source, place, value, allowed)
                continue
            check_type(source, place, value, allowed)
            if not isinstance(value, bool) and value <= 0:
                source.fail(place, f"{option} is {value}; it has to be above 0")
        chosen.append(Chosen(label, method, tuple(sorted(own.items()))))
    return tuple(chosen)


def intervals_of(source: Source, estimators: Sequence[Chosen]) -> Intervals | None:
    """Return the intervals that are asked for, or None."""
    table = source.data.get("intervals")
    if table is None:
        return None
    check_keys(source, ("intervals",), table, _INTERVALS)
    intervals = Intervals(**({"kind": "delta"} | table))
    if intervals.kind not in INTERVALS:
        source.fail(("intervals", "kind"), f"kind is {intervals.kind!r}; use one of "
                    f"{', '.join(map(repr, INTERVALS))}")  # fmt: skip
    if intervals.kind == "bootstrap":
        intervals = dataclasses.replace(intervals, kind="percentile")
    if not 0 < intervals.confidence < 1:
        source.fail(("intervals", "confidence"),
                    f"confidence is {intervals.confidence}; use one between 0 and 1")  # fmt: skip
    if intervals.num_resamples < 20:
        source.fail(("intervals", "num_resamples"),
                    f"num_resamples is {intervals.num_resamples}; use at least 20")  # fmt: skip
    for chosen in estimators:
        if intervals.kind == "profile" and not chosen.is_likelihood:
            source.fail(("intervals", "kind"), f"{chosen.label} is no maximum-likelihood "
                        "factorization, of which \"profile\" intervals are; use \"delta\" or "
                        "\"bootstrap\"")  # fmt: skip
        if intervals.kind in _BY_DERIVATIVES and not METHODS[chosen.method].differentiable:
            source.fail(("intervals", "kind"), f"{chosen.label} has no derivatives for intervals "
                        f"by {intervals.kind!r}; use \"bootstrap\", or leave it out")  # fmt: skip
    return intervals


def check_figure(
    source: Source,
    table: str,
    figure: object,
    factors: Sequence[str],
    estimators: Sequence[Chosen],
) -> None:
    """Refuse a table of a figure that could not be drawn."""
    place = (table,)
    check_type(source, place, figure, dict)
    check_keys(source, place, cast(Mapping[str, object], figure), _FIGURE)
    own = cast(FigureTable, figure)
    check = functools.partial(check_among, source)
    if "file" in own:
        check_name(source, (*place, "file"), own["file"])
    for metric in own.get("metrics", ()):
        check_type(source, (*place, "metrics"), metric, str)
    if "kind" in own:
        check((*place, "kind"), own["kind"], FIGURES)
        if own["kind"] == "curves" and not factors:
            source.fail(place, "curves need a factor that varies; add [grid], or use histograms")
    if "x" in own:
        check((*place, "x"), own["x"], factors)
    for label in own.get("estimators", ()):
        check((*place, "estimators"), label, [chosen.label for chosen in estimators])
