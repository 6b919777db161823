"""A study as read from its TOML file: checked whole, with lines and remedies, before any work."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from jaxmix.status import InputError
from jaxmix.study.methods import METHODS, Chosen
from jaxmix.study.population import PopulationSpec, parameters_of
from jaxmix.study.source import Source, check_among, check_keys, check_type, suggest

INTERVALS = ("delta", "bootstrap")
FIGURES = ("curves", "histograms")

_TOP = {
    "name": str,
    "seed": int,
    "num_replicates": int,
    "num_rows": int,
    "num_classes": int,
    "estimators": list,
    "chunk_size": int,
    "bound": bool,
    "population": dict,
    "grid": dict,
    "zip": dict,
    "options": dict,
    "intervals": dict,
    "figure": (dict, list),
}
_INTERVALS = {"kind": str, "confidence": float, "num_resamples": int}
_FIGURE = {
    "kind": str, "title": str, "x": str, "metrics": list, "estimators": list, "log_x": bool,
    "log_y": bool, "x_label": str, "note": str, "file": str,
}  # fmt: skip
_CELL_NUMBERS = ("num_rows", "num_classes")
_DRAWS = 1  # raised when the same configuration would draw or store other numbers


@dataclasses.dataclass(frozen=True)
class Intervals:
    """How replicates get intervals.

    Attributes
    ----------
    kind
        ``"delta"``: normal, by the delta method; ``"bootstrap"``: percentiles of multinomial
        resamples of the table.
    confidence
        Of the intervals.
    num_resamples
        For the bootstrap.
    """

    kind: str
    confidence: float = 0.95
    num_resamples: int = 200


@dataclasses.dataclass(frozen=True)
class Cell:
    """One combination of factors: everything that determines its replicates.

    Attributes
    ----------
    factors
        What varies in the study, by name, in the order of the file.
    population
        How its population is made.
    num_rows
        Rows of every data set.
    num_classes
        Classes that are fitted.
    draw_hash
        Of what determines the data sets: population, rows and seed.
    hash
        Of what determines the replicate table: that, the estimators, and how many replicates.
    """

    factors: tuple[tuple[str, Any], ...]
    population: PopulationSpec
    num_rows: int
    num_classes: int
    draw_hash: str
    hash: str

    @property
    def label(self) -> str:
        """The factors as text."""
        return ", ".join(f"{name}={value}" for name, value in self.factors) or "the only cell"


@dataclasses.dataclass(frozen=True)
class Config:
    """A checked study.

    Attributes
    ----------
    name, seed, num_replicates
        As in the file.
    estimators
        Methods with their options.
    cells
        In the order of the grid, the last factor running fastest.
    intervals
        None where no coverage is asked for.
    bound
        Whether efficiency bounds are computed.
    chunk_size
        Replicates computed at once; None for a choice by memory.
    figures
        The figures to draw, each a table of the file.
    raw
        The file with overrides, for the manifest.
    """

    name: str
    seed: int
    num_replicates: int
    estimators: tuple[Chosen, ...]
    cells: tuple[Cell, ...]
    intervals: Intervals | None
    bound: bool
    chunk_size: int | None
    figures: tuple[Mapping[str, Any], ...]
    raw: Mapping[str, Any]

    @property
    def factor_names(self) -> tuple[str, ...]:
        """What varies, in the order of the file."""
        return tuple(name for name, _ in self.cells[0].factors)


def load(path: str | pathlib.Path, overrides: Sequence[str] = ()) -> Config:
    """Read a study from a TOML file and check all of it.

    Parameters
    ----------
    path
        The file: ``name``, ``seed``, ``num_replicates``, ``estimators``, ``num_rows``, a table
        ``[population]`` with its ``kind``, and ``[grid]`` or ``[zip]`` with lists of values of
        anything in the population, ``num_rows`` or ``num_classes``.
    overrides
        ``"key=value"`` texts that replace keys, dotted for tables (``population.xy_strength=1``).

    Raises
    ------
    InputError
        For an unknown key, a wrong type, an empty grid, a parameter that the population does not
        take, an estimator that cannot run on it: one line with the place and the remedy.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> text = '''
    ... name = "tiny"
    ... seed = 1
    ... num_replicates = 10
    ... num_rows = 1000
    ... estimators = ["synthetic"]
    ... [population]
    ... kind = "paper_main"
    ... [grid]
    ... zt_strength = [0.0, 1.0]
    ... '''
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "tiny.toml")
    ...     _ = path.write_text(text)
    ...     config = load(path, ["num_replicates=5"])
    >>> len(config.cells), config.num_replicates
    (2, 5)
    """
    source = Source.read(path, overrides)
    return from_source(source)


def from_source(source: Source) -> Config:
    """Check a parsed file and expand its cells."""
    data = source.data
    check_keys(source, (), data, _TOP)
    for name in ("name", "seed", "num_replicates", "estimators", "population"):
        if name not in data:
            raise InputError(f"{source.path}: the key {name!r} is missing; add {_HINTS[name]}")
    name = data["name"]
    if not name or not all(c.isalnum() or c in "-_." for c in name):
        source.fail(("name",), f"name is {name!r}; use letters, digits, '-', '_' and '.'")
    for key, least in (
        ("num_replicates", 1), ("seed", 0), ("num_rows", 1), ("num_classes", 1), ("chunk_size", 1),
    ):  # fmt: skip
        if key in data and data[key] < least:
            source.fail((key,), f"{key} is {data[key]}; it has to be at least {least}")
    estimators = _estimators(source)
    intervals = _intervals(source, estimators)
    cells = _cells(source, estimators, intervals)
    figures = data.get("figure", [])
    figures = tuple(figures if isinstance(figures, list) else [figures])
    for figure in figures:
        _check_figure(source, figure, cells, estimators)
    return Config(
        name=name,
        seed=data["seed"],
        num_replicates=data["num_replicates"],
        estimators=estimators,
        cells=cells,
        intervals=intervals,
        bound=data.get("bound", True),
        chunk_size=data.get("chunk_size"),
        figures=figures,
        raw=data,
    )


_HINTS = {
    "name": 'name = "my_study"',
    "seed": "seed = 0",
    "num_replicates": "num_replicates = 1000",
    "estimators": 'estimators = ["spectral"]',
    "population": 'a table [population] with kind = "paper_main"',
}


def _estimators(source: Source) -> tuple[Chosen, ...]:
    """Return the methods; a label that is no method's name takes `method` from its options."""
    labels = source.data["estimators"]
    options = source.data.get("options", {})
    if not labels:
        source.fail(("estimators",), "estimators is empty; name at least one")
    if len(set(map(str, labels))) < len(labels):
        source.fail(("estimators",), "estimators names one of them twice; give each its own label")
    for label in options:
        if label not in labels:
            source.fail(("options", label), f"[options.{label}] belongs to no estimator"
                        f"{suggest(label, [str(name) for name in labels])}")  # fmt: skip
    chosen = []
    for label in labels:
        if not isinstance(label, str):
            source.fail(("estimators",), f"estimators has {label!r}; use names in quotes")
        own = dict(options.get(label, {}))
        method = own.pop("method", label)
        if method not in METHODS:
            place = ("options", label, "method") if label in options else ("estimators",)
            source.fail(place, f"unknown estimator {method!r}{suggest(str(method), METHODS)}; "
                        "a label of your own needs method = ... under [options.LABEL]")  # fmt: skip
        known = METHODS[method].options
        for option, value in own.items():
            place = ("options", label, option)
            if option not in known:
                allowed = ", ".join(sorted(known)) or "none"
                source.fail(place, f"{method} has no option {option!r}; it takes {allowed}")
            allowed = known[option]
            if not isinstance(allowed, tuple):
                check_type(source, place, value, allowed)
            elif value not in allowed:
                values = ", ".join(map(repr, allowed))
                source.fail(place, f"{option} is {value!r}; use one of {values}")
        chosen.append(Chosen(label, method, tuple(sorted(own.items()))))
    return tuple(chosen)


def _intervals(source: Source, estimators: Sequence[Chosen]) -> Intervals | None:
    table = source.data.get("intervals")
    if table is None:
        return None
    check_keys(source, ("intervals",), table, _INTERVALS)
    intervals = Intervals(**({"kind": "delta"} | table))
    if intervals.kind not in INTERVALS:
        source.fail(
            ("intervals", "kind"), f"kind is {intervals.kind!r}; use 'delta' or 'bootstrap'"
        )
    if not 0 < intervals.confidence < 1:
        source.fail(("intervals", "confidence"),
                    f"confidence is {intervals.confidence}; it lies between 0 and 1")  # fmt: skip
    if intervals.num_resamples < 20:
        source.fail(("intervals", "num_resamples"),
                    f"num_resamples is {intervals.num_resamples}; use at least 20")  # fmt: skip
    for chosen in estimators:
        if intervals.kind == "delta" and not METHODS[chosen.method].differentiable:
            source.fail(("intervals", "kind"), f"{chosen.label} has no derivatives for intervals "
                        "by 'delta'; use kind = \"bootstrap\", or leave it out")  # fmt: skip
    return intervals


def _cells(
    source: Source, estimators: tuple[Chosen, ...], intervals: Intervals | None
) -> tuple[Cell, ...]:
    data = source.data
    fixed = dict(data["population"])
    kind = fixed.pop("kind", None)
    known = parameters_of(source, kind)
    for table in ("grid", "zip"):
        for name, values in data.get(table, {}).items():
            check_type(source, (table, name), values, list)
            if not values:
                source.fail((table, name), f"{name} is empty; list at least one value, or drop it")
            if name not in known and name not in _CELL_NUMBERS:
                source.fail((table, name), f"{kind} has no parameter {name!r}"
                            f"{suggest(name, [*known, *_CELL_NUMBERS])}")  # fmt: skip
            if name in fixed or name in data:
                source.fail((table, name), f"{name} is also fixed elsewhere; keep one of the two")
            if table == "zip" and name in data.get("grid", {}):
                source.fail((table, name), f"{name} is in [grid] as well; keep one of the two")
            for value in values if name in _CELL_NUMBERS else ():
                check_type(source, (table, name), value, int)
                if value < 1:
                    source.fail((table, name), f"{name} has {value}; it has to be at least 1")
            if len({repr(value) for value in values}) < len(values) and table == "grid":
                source.fail((table, name), f"{name} has a value twice; list each once")
    for table in ("grid", "zip"):
        if table in data and not data[table]:
            source.fail((table,), f"[{table}] is empty; add a factor with its values, or drop it")
    grid, paired = (
        {name: _alike(values) for name, values in data.get(table, {}).items()}
        for table in ("grid", "zip")
    )
    lengths = {name: len(values) for name, values in paired.items()}
    if len(set(lengths.values())) > 1:
        source.fail(("zip",), f"lists in [zip] are paired and need one length, not {lengths}")
    rows = [dict(zip(paired, pair, strict=True)) for pair in zip(*paired.values(), strict=True)]
    cells = []
    for values in itertools.product(*grid.values()):
        for pair in rows or [{}]:
            factors = dict(zip(grid, values, strict=True)) | pair
            cells.append(_cell(source, kind, fixed, factors, estimators, intervals))
    return tuple(cells)


def _cell(
    source: Source,
    kind: str,
    fixed: Mapping[str, Any],
    factors: Mapping[str, Any],
    estimators: tuple[Chosen, ...],
    intervals: Intervals | None,
) -> Cell:
    data = source.data
    numbers = {name: factors.get(name, data.get(name)) for name in _CELL_NUMBERS}
    given = dict(fixed) | {n: v for n, v in factors.items() if n not in _CELL_NUMBERS}
    population = PopulationSpec.checked(source, kind, given, factors)
    num_rows = numbers["num_rows"]
    if num_rows is None:
        raise InputError(f"{source.path}: the number of rows is missing; add num_rows = 1000")
    k = numbers["num_classes"] or population.num_classes
    for chosen in estimators:
        population.check_method(source, chosen, k, intervals is not None and intervals.kind)
    drawn = {
        "version": _DRAWS, "seed": data["seed"], "population": population.described,
        "num_rows": num_rows,
    }  # fmt: skip
    stored = drawn | {
        "num_classes": k,
        "num_replicates": data["num_replicates"],
        "estimators": [dataclasses.astuple(chosen) for chosen in estimators],
        "intervals": intervals and dataclasses.astuple(intervals),
        "bound": data.get("bound", True),
        "factors": dict(factors),
        "dtype": jnp.zeros(()).dtype.name,
    }
    return Cell(tuple(factors.items()), population, num_rows, k, _hash(drawn), _hash(stored))


def _alike(values: list[Any]) -> list[Any]:
    """Return numbers of one type, so that a factor is one kind of column in every cell."""
    numeric = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
    return [float(v) for v in values] if numeric and float in map(type, values) else values


def _hash(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _check_figure(
    source: Source,
    figure: Mapping[str, Any],
    cells: Sequence[Cell],
    estimators: Sequence[Chosen],
) -> None:
    place = ("figure",)
    check_keys(source, place, figure, _FIGURE)
    check = functools.partial(check_among, source)
    check((*place, "kind"), figure.get("kind", "curves"), FIGURES)
    factors = [name for name, _ in cells[0].factors]
    if figure.get("kind", "curves") == "curves":
        if not factors:
            source.fail(place, "curves need a factor that varies; add [grid], or use histograms")
        check((*place, "x"), figure.get("x", factors[0]), factors)
    for label in figure.get("estimators", ()):
        check((*place, "estimators"), label, [chosen.label for chosen in estimators])
