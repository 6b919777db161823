"""The command line: one command on a csv.

Results go to standard output; progress, warnings and errors to standard error. Exit codes: 0
done, 1 the estimate failed, 2 the call or the input is wrong.
"""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import platform
import shlex
import sys
from collections.abc import Sequence
from typing import Annotated

import jax
import rich.console
import typer

from jaxmix.cli import demo, doctor, identify
from jaxmix.cli.common import (
    Confidence,
    Json,
    Plot,
    Resamples,
    Seed,
    Writers,
    check,
    column,
    draw,
    file_argument,
    file_option,
    names,
    option,
    report,
)
from jaxmix.cli.streams import careful_streams
from jaxmix.data.design import WEIGHT_KINDS
from jaxmix.data.roles import Roles, read
from jaxmix.doctor import known_trouble
from jaxmix.fitting.options import OPTIONS
from jaxmix.fitting.run import fit
from jaxmix.report import files
from jaxmix.report.progress import fit_progress
from jaxmix.status import InputError, UnknownColumn
from jaxmix.study import commands as study_commands
from jaxmix.tables.texts import AUTO

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    help="Causal effects when the groups that respond differently are hidden.",
)


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    jax.config.update("jax_enable_x64", True)
    before = files.num_written()
    with careful_streams() as (out, err):
        keep_compiled_programs()
        if trouble := known_trouble():
            print(f"jaxmix: warning: {trouble}", file=err)
        code = _run(arguments)
        out.flush()
        if not out.failed:
            return code
        # The answer is in a file, or it is nowhere.
        saved = files.num_written() > before
        what = "the files are written" if saved else "nothing was kept: name a file, or make room"
        print(f"jaxmix: the standard output cannot be written ({out.failed}); {what}", file=err)
    return code if saved or code else 2


def _run(arguments: Sequence[str]) -> int:
    """Run one command; what is wrong with it is a line on standard error."""
    errors = rich.console.Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
    command = typer.main.get_command(app)
    try:
        code = command.main(
            list(arguments) or ["--help"],
            prog_name="jaxmix",
            standalone_mode=False,
            obj=shlex.join(["jaxmix", *arguments]),  # what a result records of its call
        )
    except InputError as error:
        errors.print(f"jaxmix: {error}", markup=False)
        return 2
    except typer.Abort:
        errors.print("jaxmix: interrupted", markup=False)
        return 130
    except Exception as error:
        # What the option parser raises for a wrong call; anything else is a defect.
        if not hasattr(error, "format_message"):
            raise
        text = " ".join(error.format_message().split())
        errors.print(f"jaxmix: {text} (try 'jaxmix --help')", markup=False)
        return 2
    return int(code or 0)


def keep_compiled_programs() -> None:
    """Compile once for all later calls, in the user's cache folder; JAX's own setting wins.

    By machine: a program is for one kind of processor, and homes are shared.
    """
    if getattr(jax.config, "jax_compilation_cache_dir", None) is not None:
        return
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = pathlib.Path(base, "jaxmix", platform.node() or "here")
    try:
        # For the user alone: who can write there can have programs run.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return  # a home that cannot be written to: programs are compiled anew
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _show_version(asked: bool) -> None:
    if asked:
        print(f"jaxmix {importlib.metadata.version('jaxmix')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


@app.command("fit")
def fit_command(
    context: typer.Context,
    rows: Annotated[pathlib.Path, file_argument("ROWS", "A csv or parquet file.")],
    treatment: Annotated[str, column("treatment")],
    outcome: Annotated[str, column("outcome")],
    z: Annotated[list[str], column("z")],
    x: Annotated[list[str], column("x")],
    covariates: Annotated[list[str] | None, column("covariates")] = None,
    weights: Annotated[str | None, column("weights")] = None,
    weights_kind: Annotated[
        str, typer.Option("--weights-kind", help=" or ".join(WEIGHT_KINDS) + ".")
    ] = "sampling",
    control: Annotated[
        str | None, typer.Option("--control", help="Arm that effects are measured from.")
    ] = None,
    features: Annotated[
        str, typer.Option("--features", help="Coding of z and x: auto, linear or onehot.")
    ] = "auto",
    cluster: Annotated[str | None, column("cluster")] = None,
    missing_marks: Annotated[
        list[str] | None,
        typer.Option("--missing-marks", metavar="LIST", help="What marks a missing cell: .,NA"),
    ] = None,
    encoding: Annotated[
        str | None, typer.Option("--encoding", metavar="NAME", help="Encoding of a csv file.")
    ] = None,
    classes: Annotated[str | None, option("num_classes")] = None,
    level: Annotated[str, option("level")] = OPTIONS["level"].default,
    method: Annotated[str, option("method")] = OPTIONS["method"].default,
    bridge: Annotated[str, option("bridge")] = OPTIONS["bridge"].default,
    estimand: Annotated[str, option("estimand")] = OPTIONS["estimand"].default,
    better: Annotated[str, option("better")] = OPTIONS["better"].default,
    resamples: Resamples = OPTIONS["num_resamples"].default,
    confidence: Confidence = OPTIONS["confidence"].default,
    interval: Annotated[str, option("interval")] = OPTIONS["interval"].default,
    resampling: Annotated[str | None, option("resampling")] = None,
    strata: Annotated[str | None, option("strata")] = None,
    graph: Annotated[
        pathlib.Path | None,
        file_option(
            "--graph",
            metavar="GRAPH.toml",
            words="Causal graph of the columns: declares the level.",
        ),
    ] = None,
    checks: Annotated[bool, typer.Option(help=OPTIONS["checks"].help)] = True,
    edge: Annotated[str, option("edge")] = OPTIONS["edge"].default,
    sensitivity_plot: Annotated[
        pathlib.Path | None,
        file_option(
            "--sensitivity-plot",
            metavar="OUT.png",
            words="Draw effects against that strength.",
        ),
    ] = None,
    seed: Seed = OPTIONS["seed"].default,
    json: Json = None,
    plot: Plot = None,
) -> int:
    """Estimate an effect under hidden confounding from a table of rows."""
    outputs = {"--json": json, "--plot": plot, "--sensitivity-plot": sensitivity_plot}
    check(outputs, table=rows, graph=graph)
    if sensitivity_plot is not None and not (checks and level != "4"):
        raise InputError(
            "--sensitivity-plot draws bounds that come with the checks of levels 2 and 3; leave "
            "out --no-checks, and ask for another level than 4"
        )

    def roles(stored: Sequence[str] = ()) -> Roles:
        return {
            "z": names("--z", z, stored),
            "x": names("--x", x, stored),
            "covariates": names("--covariates", covariates, stored, needed=False),
            "treatment": treatment, "outcome": outcome, "weights": weights,
            "weights_kind": weights_kind, "control": control, "features": features,
            "cluster": cluster, "missing_marks": _marks(missing_marks),
        }  # fmt: skip

    try:
        data = read(rows, encoding=encoding, **roles())
    except UnknownColumn as error:
        # The header is known now: perhaps a name has a comma in it. A pipe is read but once.
        if (again := roles(error.stored)) == roles() or not rows.is_file():
            raise
        data = read(rows, encoding=encoding, **again)
    with fit_progress() as progress:
        result = fit(
            data,
            num_classes=_classes(classes),
            level=int(level) if level.isdecimal() else level,
            method=method,
            bridge=bridge,
            estimand=estimand,
            better=better,
            num_resamples=resamples,
            confidence=confidence,
            interval=interval,
            seed=seed,
            resampling=resampling,
            strata=strata,
            graph=graph,
            checks=checks,
            edge=edge,
            progress=progress,
        ).complete()
    more: Writers = ()
    if sensitivity_plot is not None and (bounds := result.sensitivity) is not None:
        more = [(sensitivity_plot, lambda path: draw(bounds.plot(), path))]
    code = report(result, context.obj, json, plot, more=more)
    if sensitivity_plot is not None and not more:
        print(f"jaxmix: no {sensitivity_plot}: {result.untested}", file=sys.stderr)
    return code


app.add_typer(demo.app, name="demo")
app.command("identify")(identify.identify_command)
app.add_typer(study_commands.app, name="study")
app.command("simulate")(study_commands.simulate_command)
app.command("doctor")(doctor.doctor_command)


def _marks(given: Sequence[str] | None) -> str | list[str]:
    """Return the marks of missing cells; an option without any turns them off."""
    if given is None or list(given) == [AUTO]:
        return AUTO
    return names("--missing-marks", given, needed=False)


def _classes(asked: str | None) -> int | str | None:
    if asked is None or asked == "auto":
        return asked
    try:
        return int(asked)
    except ValueError:
        raise InputError(f"--classes is {asked!r}: give a whole number, or auto") from None
