"""The commands `jaxmix study` and `jaxmix simulate`."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, cast

import typer

from jaxmix.choices import FIGURES
from jaxmix.cli.common import compute
from jaxmix.exceptions import InputError
from jaxmix.report.files import check_outputs, expand
from jaxmix.report.plots import figure_class
from jaxmix.report.tables import Table, number
from jaxmix.types import Json

if TYPE_CHECKING:
    from jaxmix import study

app = typer.Typer(rich_markup_mode=None, help="Simulation studies: run, status, summarize, plot.")

ConfigPath = Annotated[pathlib.Path, typer.Argument(metavar="CONFIG.toml", help="The study.")]
Out = Annotated[
    pathlib.Path | None,
    typer.Option("--out", metavar="DIR", help="Folder of the study; out/NAME by default."),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Replace a key of the file; repeatable."),
]


@app.callback()
def _study() -> None:
    pass


@app.command("run")
def run_command(
    config: ConfigPath,
    out: Out = None,
    set_: Set = None,
    chunk_size: Annotated[
        int | None, typer.Option("--chunk-size", help="Replicates computed at once.")
    ] = None,
) -> int:
    """Compute the missing cells of a study, and write its summary."""
    if chunk_size is not None and chunk_size < 1:
        raise InputError(f"--chunk-size is {chunk_size}; it has to be at least 1")
    store = _store(config, out, set_)
    before = store.num_done()
    from jaxmix import study

    with _progress(len(store.config.cells), store.config.num_replicates) as progress:
        lines = study.run(store.config, store.folder, chunk_size=chunk_size, progress=progress)
    _show(store, lines)
    total = len(store.config.cells)
    print(f"\n{total} cells ({before} were there already) in {store.folder}/replicates, "
          f"all metrics in {store.summary_path}")  # fmt: skip
    return 0


@app.command("status")
def status_command(config: ConfigPath, out: Out = None, set_: Set = None) -> int:
    """Say which cells are complete, and how long they took."""
    store = _store(config, out, set_)
    store.check()
    times = store.manifest()["cells"] if store.manifest_path.is_file() else {}
    rows = []
    for cell in store.config.cells:
        own = times.get(store.name_of(cell), {})
        state = "done" if store.is_done(cell) else "missing"
        rows.append((
            cell.label, state, number(own.get("seconds"), 3),
            number(own.get("replicates_per_second"), 4),
        ))  # fmt: skip
    title = f"{store.config.name}: {store.num_done()} of {len(rows)} cells in {store.folder}"
    print(Table(title, ("cell", "state", "seconds", "replicates/s"), rows).text())
    return 0


@app.command("summarize")
def summarize_command(config: ConfigPath, out: Out = None, set_: Set = None) -> int:
    """Write the summary anew from the cells that are there."""
    store = _store(config, out, set_)
    _needs_cells(store)
    from jaxmix import study

    _show(store, study.summarise(store))
    missing = len(store.config.cells) - store.num_done()
    if missing:
        print(f"\n{missing} of {len(store.config.cells)} cells are missing")
    print(f"\nall metrics in {store.summary_path}")
    return 0


@app.command("plot")
def plot_command(
    config: ConfigPath,
    out: Out = None,
    set_: Set = None,
    format_: Annotated[str, typer.Option("--format", help=" or ".join(FIGURES) + ".")] = ("png"),
) -> int:
    """Draw the figures of a study beside its summary."""
    if format_ not in FIGURES:
        raise InputError(f"--format is {format_!r}; use one of {', '.join(FIGURES)}")
    figure_class()
    store = _store(config, out, set_)
    _needs_cells(store)
    from jaxmix.study import figures

    for path in figures.write(store, format_):
        print(f"wrote {path}")
    return 0


def simulate_command(
    population: Annotated[
        pathlib.Path, typer.Argument(metavar="POPULATION.toml", help="Its kind and parameters.")
    ],
    output: Annotated[
        pathlib.Path, typer.Option("--output", "-o", metavar="ROWS.csv", help="csv or parquet.")
    ],
    rows: Annotated[int, typer.Option("-n", "--rows", help="Number of rows.")] = 1000,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the draw.")] = 0,
    with_class: Annotated[
        bool, typer.Option("--with-class", help="Also write the hidden class, as column U.")
    ] = False,
) -> int:
    """Draw a table of rows from a population whose truth is known."""
    if rows < 1:
        raise InputError(f"-n is {rows}; it has to be at least 1")
    if not 0 <= seed < 1 << 63:
        raise InputError(f"--seed is {seed}; it has to lie between 0 and 2^63 - 1")
    population, output = expand(population), expand(output)
    check_outputs({"--output": output}, {"the population": population})
    compute()
    from jaxmix.study import simulate
    from jaxmix.study.configuration.population import population_of_file

    simulate.check_ending(output)
    spec = population_of_file(str(population))
    drawn = simulate.draw(spec, rows, seed, with_class=with_class)
    simulate.write(drawn.columns, output)
    print(drawn.words(output))
    return 0


def _store(config: pathlib.Path, out: pathlib.Path | None, overrides: list[str] | None) -> (
    study.Store
):  # fmt: skip
    compute()
    from jaxmix import study

    config = expand(config)
    loaded = study.load(config, overrides or ())
    store = study.Store(expand(out or pathlib.Path("out", loaded.name)), loaded)
    if store.folder.is_dir():  # in one that is yet to be made, nothing is written over
        written = {"the manifest": store.manifest_path, "the summary": store.summary_path}
        check_outputs(written, {"the configuration": config})
    return store


def _needs_cells(store: study.Store) -> None:
    store.check()
    if not store.num_done():
        raise InputError(f"{store.folder} has no complete cell of this study; begin by 'study run'")


def _show(store: study.Store, lines: list[dict[str, Json]]) -> None:
    """Print the main metrics: a line for each cell and estimator."""
    factors = store.config.factor_names
    shown: dict[tuple[str, ...], dict[str, str]] = {}
    for line in lines:
        key = (str(line["estimator"]), *(str(line[name]) for name in factors))
        cells = shown.setdefault(key, {"failed": f"{line['num_failed']}/{line['num_replicates']}"})
        value, mc_se = cast(float, line["value"]), cast(float, line["mc_se"])
        cells[str(line["metric"])] = _with_error(value, mc_se)
    wanted = ["failed", "error_median", "error_trimmed", "efficiency", "ate_bias", "ate_rmse"]
    every = {metric for cells in shown.values() for metric in cells}
    wanted += sorted(m for m in every if m.startswith("coverage_") and not m.endswith("_usable"))
    wanted = [m for m in wanted if any(m in cells for cells in shown.values())]
    rows = [(*key, *(cells.get(m, "-") for m in wanted)) for key, cells in shown.items()]
    headings = [name.replace("_", " ") for name in (*factors, *wanted)]
    title = f"{store.config.name}, {store.config.num_replicates} replicates (Monte Carlo error)"
    print(Table(title, ("estimator", *headings), rows).text())


def _with_error(value: float, mc_se: float) -> str:
    text = number(value, 3)
    return text if mc_se != mc_se or text == "-" else f"{text} ({number(mc_se, 2)})"


@contextmanager
def _progress(cells: int, replicates: int) -> Iterator[study.Progress]:
    """Show cells, replicates per second and the time left, on standard error."""
    import rich.progress

    from jaxmix.report.progress import progress_bar

    started = time.monotonic()
    with progress_bar(
        rich.progress.TextColumn("cell {task.fields[cell]} of {task.fields[cells]}"),
        rich.progress.BarColumn(),
        rich.progress.TextColumn("{task.fields[rate]} replicates/s"),
        rich.progress.TimeRemainingColumn(),
        total=cells * replicates,
        cell=0,
        cells=cells,
        rate="-",
    ) as show:

        def update(done: int, computed: int) -> None:
            show(
                completed=done * replicates + computed % replicates,
                cell=min(done + 1, cells),
                rate=number(computed / (time.monotonic() - started), 3) if computed else "-",
            )

        yield update
