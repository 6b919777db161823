"""A study as read from its TOML file: checked whole, with lines and remedies, before any work."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from jaxmix.estimators.registry import METHODS
from jaxmix.status import InputError
from jaxmix.study.configuration.choices import (
    FigureTable,
    Intervals,
    check_figure,
    check_name,
    estimators_of,
    intervals_of,
)
from jaxmix.study.configuration.methods import Chosen
from jaxmix.study.configuration.population import PopulationSpec, parameters_of
from jaxmix.study.configuration.source import Kinds, Source, check_keys, check_type, suggest
from jaxmix.types import Json

_TOP: dict[str, Kinds] = {
    "name": str,
    "seed": int,
    "num_replicates": int,
    "num_rows": int,
    "fitted_classes": int,
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
_CELL_NUMBERS = ("num_rows", "fitted_classes")
_MOST_ROWS = 1 << 53  # counts beyond are not whole in float64
_MOST_SEED = 1 << 63
RESULTS = frozenset({
    "cell", "estimator", "replicate", "status", "ate", "error", "effects", "shares",
    "bound_ate", "bound_error", "num_replicates", "num_failed", "metric", "value", "mc_se",
})  # fmt: skip
"""Columns of the replicate tables and of the summary."""

_DRAWS = 1  # raised when the same configuration would draw or store other numbers


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
        Of what determines the replicate table: that, the estimators with the versions of their
        solvers, and how many replicates.
    hash_before
        The same without versions, as tables were named that the first solvers made.
    """

    factors: tuple[tuple[str, Json], ...]
    population: PopulationSpec
    num_rows: int
    num_classes: int
    draw_hash: str
    hash: str
    hash_before: str

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
    figures: tuple[FigureTable, ...]
    raw: Mapping[str, Json]

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
        anything in the population, ``num_rows`` or ``fitted_classes`` (the population's own number
        by default).
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
    check_name(source, ("name",), data["name"])
    for key, least in (
        ("num_replicates", 1), ("seed", 0), ("num_rows", 1), ("fitted_classes", 1),
        ("chunk_size", 1),
    ):  # fmt: skip
        most = _MOST_ROWS if key == "num_rows" else _MOST_SEED - 1
        if key in data and not least <= data[key] <= most:
            source.fail((key,), f"{key} is {data[key]}; it has to lie between {least} and {most}")
    estimators = estimators_of(source)
    intervals = intervals_of(source, estimators)
    cells = _cells(source, estimators, intervals)
    figures = data.get("figure", [])
    figures = tuple(figures if isinstance(figures, list) else [figures])
    names = [name for name, _ in cells[0].factors]
    for number, figure in enumerate(figures, 1):
        place = "figure" if number == 1 else f"figure#{number}"
        check_figure(source, place, figure, names, estimators)
    # As `figures.draw` names them.
    files = [
        figure.get("file", data["name"] if len(figures) == 1 else f"{data['name']}_{number}")
        for number, figure in enumerate(figures, 1)
    ]
    for file in {file for file in files if files.count(file) > 1}:
        source.fail(("figure", "file"), f"two figures go to the file {file!r}; name another")
    return Config(
        name=data["name"],
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
                if not 1 <= value <= _MOST_ROWS:
                    source.fail((table, name), f"{name} has {value}; it has to be from 1 to 2^53")
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
    cells: dict[str, Cell] = {}
    for values in itertools.product(*grid.values()):
        for pair in rows or [{}]:
            factors = dict(zip(grid, values, strict=True)) | pair
            cell = _cell(source, kind, fixed, factors, estimators, intervals)
            if cell.hash in cells:
                twice = f"the cell {cell.label} is there twice; list each value once"
                source.fail(("grid" if grid else "zip",), twice)
            cells[cell.hash] = cell
    return tuple(cells.values())


def _cell(
    source: Source,
    kind: str,
    fixed: Mapping[str, Json],
    factors: Mapping[str, Json],
    estimators: tuple[Chosen, ...],
    intervals: Intervals | None,
) -> Cell:
    data = source.data
    numbers: dict[str, Any] = {n: factors.get(n, data.get(n)) for n in _CELL_NUMBERS}
    given = dict(fixed) | {n: v for n, v in factors.items() if n not in _CELL_NUMBERS}
    population = PopulationSpec.checked(source, kind, given, factors)
    num_rows = numbers["num_rows"]
    if num_rows is None:
        raise InputError(f"{source.path}: the number of rows is missing; add num_rows = 1000")
    k = numbers["fitted_classes"] or population.num_classes
    for chosen in estimators:
        population.check_method(source, chosen, k, intervals is not None and intervals.kind)
    drawn = {
        "version": _DRAWS, "seed": data["seed"], "population": population.described,
        "num_rows": num_rows,
    }  # fmt: skip
    stored = drawn | {
        "fitted_classes": k,
        "num_replicates": data["num_replicates"],
        "estimators": [dataclasses.astuple(chosen) for chosen in estimators],
        "intervals": intervals and dataclasses.astuple(intervals),
        "bound": data.get("bound", True),
        "factors": factors,
        "dtype": jnp.zeros(()).dtype.name,
    }
    columns = tuple((_column(name), value) for name, value in factors.items())
    versions = {chosen.label: METHODS[chosen.method].version for chosen in estimators}
    later = {label: version for label, version in versions.items() if version > 1}
    before = _hash(stored)
    # What the first solvers still make keeps its name.
    own = _hash(stored | {"solvers": later}) if later else before
    return Cell(columns, population, num_rows, k, _hash(drawn), own, before)


def _alike(values: list[Json]) -> list[Json]:
    """Return numbers of one type, so that a factor is one kind of column in every cell."""
    numbers = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]
    numeric = len(numbers) == len(values)
    return [float(v) for v in numbers] if numeric and float in map(type, values) else values


def _column(factor: str) -> str:
    """Return the name of a factor in tables, which no result may have."""
    return f"population_{factor}" if factor in RESULTS else factor


def _hash(content: Mapping[str, Json]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
