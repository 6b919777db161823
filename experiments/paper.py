"""The four studies of the paper: run, drawn, and their numbers beside those of its own code.

python -m experiments.paper [--out out/paper] [--set num_replicates=1000]
"""

from __future__ import annotations

import argparse
import math
import pathlib
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmix import study
from jaxmix.report.files import write_whole
from jaxmix.status import InputError
from jaxmix.study import figures, statistics, summary

HERE = pathlib.Path(__file__).parent
CONFIGS = HERE.parent / "configs"
NUMBERS = HERE / "paper_numbers.toml"
LONG = 10_000
"""Replicates by which medians of plain SPO are held against the paper's."""

STUDIES = ("level2_vs_level3", "level3_vs_level4", "ate_appendix", "mte_appendix")

LONG_MEDIAN = "median error, long run"

_QUANTITIES = {
    "error_median": "median error",
    "error_trimmed": "error, 5 % trimmed mean",
    "error_mean": "mean error",
    "ate_squared_error": "mean squared error of the ATE",
    "ate_mean": "ATE, mean",
    "ate_empirical_se": "ATE, standard deviation",
}
_SYMBOLS = {"zt_strength": "zt", "xy_strength": "xy"}
_NOTE = (
    "The paper's column is its own published code, run as it stands ({count} replicates). In\n"
    "brackets: the Monte Carlo standard error of our number, from our replicates; z is the\n"
    "difference over both errors, the paper's taken as ours at {count} replicates (sqrt(2) times\n"
    "ours where we have as many). Means of errors have heavy tails: their z says little, and\n"
    "there is none where one is not finite. Medians of plain SPO are also held against {long}\n"
    "replicates of ours; their z is by ranks, which asks no normality of a skewed error: how far\n"
    "the share of ours beyond the paper's median lies from 1/2, over its standard error."
)


class Row(NamedTuple):
    """One number of ours, with the paper's where it has one (else NaN)."""

    study: str
    at: str
    estimator: str
    quantity: str
    paper: float
    ours: float
    mc_se: float
    z: float


def numbers() -> dict[str, Any]:
    """Read what the paper's own code gives."""
    return tomllib.loads(NUMBERS.read_text())


def compare(name: str, lines: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Set the summary of a study beside the paper's numbers.

    Parameters
    ----------
    name
        Of the study, one of `STUDIES`.
    lines
        Its summary, as `jaxmix.study.run` returns it.

    Returns
    -------
    list
        A row for each strength, estimator and quantity: medians and trimmed means throughout,
        and whatever else the paper's code reports.
    """
    source = numbers()
    own, count = source[name], source["num_replicates"]
    factor = own.get("factor")
    found = {(n["estimator"], n.get(factor), n["metric"]): n for n in _with_squares(lines)}
    rows = []
    for estimator in dict.fromkeys(line["estimator"] for line in lines):
        given = own.get(estimator, {})
        always = ("error_median", "error_trimmed") if factor else ()
        like = given or own["synthetic"]
        for metric in [*always, *(m for m in like if m not in always)]:
            values = dict.fromkeys(line.get(factor) for line in lines)
            for value in values:
                line = found.get((estimator, value, metric))
                if line is not None:
                    paper = _paper_value(own, given.get(metric), value)
                    if math.isnan(paper) and metric not in always and factor:
                        continue
                    rows.append(_row(name, factor, estimator, metric, line, paper, count))
    return rows


def _with_squares(lines: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Add the mean squared error of the average effect, which is the square of its root."""
    squares = [
        {**line, "metric": "ate_squared_error", "value": line["value"] ** 2,
         "mc_se": 2 * line["value"] * line["mc_se"]}
        for line in lines if line["metric"] == "ate_rmse"
    ]  # fmt: skip
    return [*lines, *squares]


def _paper_value(own: Mapping[str, Any], given: Any, value: float | None) -> float:
    if given is None or "values" not in own:
        return math.nan if given is None else float(given)
    by_value = dict(zip(own["values"], given, strict=True))
    return by_value.get(value, math.nan)


def _row(
    name: str, factor: str | None, estimator: str, metric: str, line: Mapping[str, Any],
    paper: float, count: int,
) -> Row:  # fmt: skip
    ours, mc_se = line["value"], line["mc_se"]
    both = mc_se * math.sqrt(1 + line["num_replicates"] / count)
    z = (ours - paper) / both if math.isfinite(ours) and both > 0 else math.nan
    at = f"{_SYMBOLS[factor]} = {line[factor]:.1f}" if factor else ""
    quantity = _QUANTITIES.get(metric)
    if quantity is None:
        for end, meaning in (("_mean", "mean"), ("_empirical_se", "standard deviation")):
            if metric.endswith(end):
                quantity = f"{metric.removesuffix(end).replace('_', ' ')}, {meaning}"
        assert quantity is not None, metric
    return Row(name, at, estimator, quantity, paper, ours, mc_se, z)


def text(rows: Sequence[Row]) -> str:
    """Return rows as a table that is plain text and Markdown alike."""
    header = ("study", "at", "estimator", "quantity", "paper", "ours", "z")
    body = [
        (row.study, row.at, row.estimator, row.quantity, _number(row.paper),
         f"{_number(row.ours)} ({row.mc_se:.2g})", _number(row.z, "+.1f"))
        for row in rows
    ]  # fmt: skip
    widths = [max(len(cells[i]) for cells in (header, *body)) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if i > 3 else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "| " + " | ".join(padded) + " |"

    rule = [("-" * (width - 1) + ":") if i > 3 else "-" * width for i, width in enumerate(widths)]
    return "\n".join(line(cells) for cells in (header, rule, *body))


def _number(value: float, form: str = ".4f") -> str:
    return "-" if math.isnan(value) else format(value, form)


def medians(folder: pathlib.Path, overrides: Sequence[str], count: int) -> list[Row]:
    """Hold the paper's medians of plain SPO against many replicates of ours, by ranks."""
    own = numbers()
    rows = []
    for name in STUDIES[:2]:
        # Without bounds and figures: this is about one number of one estimator.
        more = ['estimators=["synthetic"]', f"num_replicates={count}", "bound=false", "figure=[]"]
        config = study.load(CONFIGS / f"{name}.toml", [*overrides, *more])
        store = study.Store(folder / f"{name}_medians", config)
        study.run(config, store.folder)
        given = own[name]
        for cell in config.cells:
            at = dict(cell.factors)[given["factor"]]
            paper = _paper_value(given, given["synthetic"]["error_median"], at)
            if not math.isnan(paper):
                error = summary.replicates(store, cell)["synthetic"].error
                error = np.where(np.isfinite(error), error, np.inf)
                value, mc_se = statistics.median(error)
                symbol = f"{_SYMBOLS[given['factor']]} = {at:.1f}"
                z = rank_z(error, paper, own["num_replicates"])
                rows.append(Row(name, symbol, "synthetic", LONG_MEDIAN, paper, value, mc_se, z))
    return rows


def rank_z(values: np.ndarray, median: float, count: int) -> float:
    """Return how far a median of `count` draws is from these values, in standard errors.

    The share of values beyond it is 1/2 if both have one distribution, -+ the errors of either.
    """
    beyond = float(np.mean(values > median))
    return (beyond - 0.5) / math.sqrt(0.25 / count + beyond * (1 - beyond) / len(values))


def agreement(rows: Sequence[Row]) -> str:
    """Say how far the medians of plain SPO lie from the paper's."""
    z = [abs(row.z) for row in rows if row.quantity == LONG_MEDIAN]
    near = sum(value <= 3 for value in z)
    return (
        f"Medians of plain SPO: {near} of {len(z)} within three standard errors of the paper's, "
        f"the farthest at {max(z):.1f}."
    )


def run(
    folder: pathlib.Path, overrides: Sequence[str] = (), long: int = LONG
) -> tuple[list[Row], list[Any]]:
    """Run and draw the four studies, each in a folder of its own; return rows and paths."""
    configs = [study.load(CONFIGS / f"{name}.toml", overrides) for name in STUDIES]
    rows: list[Row] = []
    paths: list[pathlib.Path] = []
    for config in configs:
        begin = time.perf_counter()

        def progress(done: int, computed: int, config: study.Config = config) -> None:
            if sys.stderr.isatty():
                print(f"\r{config.name}: {done} of {len(config.cells)} cells, "
                      f"{computed:,} replicates", end="", file=sys.stderr, flush=True)  # fmt: skip

        store = study.Store(folder / config.name, config)
        lines = study.run(config, store.folder, progress=progress)
        paths += [store.summary_path, *figures.write(store, lines=lines)]
        rows += compare(config.name, lines)
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr)
        print(f"{config.name}: {len(config.cells)} cells of {config.num_replicates} replicates, "
              f"{time.perf_counter() - begin:.1f} s", flush=True)  # fmt: skip
    begin = time.perf_counter()
    rows += medians(folder, overrides, long)
    print(f"medians of plain SPO: {long:,} replicates, {time.perf_counter() - begin:.1f} s")
    return rows, paths


def report(rows: Sequence[Row]) -> str:
    """Return the page: what the paper has too, then every strength."""
    beside = [row for row in rows if not math.isnan(row.paper)]
    note = _NOTE.format(count=numbers()["num_replicates"], long=f"{LONG:,}")
    return (
        f"# The paper's numbers and ours\n\n{note}\n\n{agreement(rows)}\n\n{text(beside)}\n\n"
        f"# Every strength\n\n{text(rows)}\n"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the studies, print the comparison, and say where everything is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("out/paper"))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    asked = parser.parse_args(arguments)
    jax.config.update("jax_enable_x64", True)
    begin = time.perf_counter()
    try:
        rows, paths = run(asked.out, asked.set)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    table = asked.out / "table.md"
    page = report(rows)
    write_whole(table, page)
    print("\n" + page.split("\n# Every strength")[0])
    print(f"\n{time.perf_counter() - begin:.0f} s in all. Written:")
    for path in (table, *paths):
        print(f"  {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
