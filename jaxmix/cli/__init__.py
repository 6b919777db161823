"""The command line: one command on a csv.

Results go to standard output; progress, warnings and errors to standard error. Exit codes: 0
done, 1 the estimate failed, 2 the call or the input is wrong.

Help, the version and what is wrong with a call come at once: nothing here or in a module of a
command loads JAX or numpy before the command needs them, which is then inside its function.
"""

from __future__ import annotations

import pathlib
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jaxmix.choices import WEIGHT_KINDS
from jaxmix.cli import demo, doctor, identify, study
from jaxmix.cli.common import (
    Confidence,
    Covariates,
    Json,
    Plot,
    Resamples,
    Seed,
    Writers,
    X,
    Z,
    check,
    compute,
    draw,
    file_argument,
    file_option,
    names,
    option,
    report,
    warn,
)
from jaxmix.cli.streams import careful_streams
from jaxmix.doctor import known_trouble, version_of
from jaxmix.exceptions import InputError, UnknownColumn
from jaxmix.fitting.options import AUTO, OPTIONS, Options
from jaxmix.report import files

if TYPE_CHECKING:
    from jaxmix.data.roles import Roles

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    help="Causal effects when the groups that respond differently are hidden.",
)


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    before = files.num_written()
    with careful_streams() as (out, err):
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
    command, called, rest = typer.main.get_command(app), "jaxmix", list(arguments) or ["--help"]
    if rest[-1] == "--help":
        # Of a command by itself: reading the values of options takes typer as long as all else.
        while (own := getattr(command, "commands", {}).get(rest[0])) is not None:
            command, called, rest = own, f"{called} {rest[0]}", rest[1:]
    try:
        code = command.main(
            rest,
            prog_name=called,
            standalone_mode=False,
            obj=shlex.join(["jaxmix", *arguments]),  # what a result records of its call
        )
    except InputError as error:
        _say(str(error))
        return 2
    except typer.Abort:
        _say("interrupted")
        return 130
    except Exception as error:
        # What the option parser raises for a wrong call; anything else is a defect.
        if not hasattr(error, "format_message"):
            raise
        text = " ".join(error.format_message().split())
        _say(f"{text} (try 'jaxmix --help')")
        return 2
    return int(code or 0)


def _say(words: str) -> None:
    """Print one line on standard error; what cannot be printed, as escapes."""
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in words)
    print(f"jaxmix: {shown}", file=sys.stderr)


def _show_version(asked: bool) -> None:
    if asked:
        warn(known_trouble())
        print(f"jaxmix {version_of('jaxmix')}")
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
    treatment: Annotated[str, typer.Option("--treatment", help="Column of the treatment.")],
    outcome: Annotated[str, typer.Option("--outcome", help="Column of the outcome.")],
    z: Annotated[list[str], Z],
    x: Annotated[list[str], X],
    covariates: Annotated[list[str] | None, Covariates] = None,
    weights: Annotated[str | None, typer.Option("--weights", help="Column of row weights.")] = None,
    weights_kind: Annotated[
        str, typer.Option("--weights-kind", help=" or ".join(WEIGHT_KINDS) + ".")
    ] = "sampling",
    control: Annotated[
        str | None, typer.Option("--control", help="Arm that effects are measured from.")
    ] = None,
    features: Annotated[
        str, typer.Option("--features", help="Coding of z and x: auto, linear or onehot.")
    ] = "auto",
    cluster: Annotated[
        str | None, typer.Option("--cluster", help="Column of clusters of dependent rows.")
    ] = None,
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

    from jaxmix.data.roles import read

    asked: dict[str, Any] = {
        "num_classes": _classes(classes), "level": int(level) if level.isdecimal() else level,
        "method": method, "bridge": bridge, "estimand": estimand, "better": better,
        "num_resamples": resamples, "confidence": confidence, "interval": interval, "seed": seed,
        "resampling": resampling, "strata": strata, "checks": checks, "edge": edge,
    }  # fmt: skip
    Options.of(**asked)  # refused before a row is read

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
    compute()
    from jaxmix.fitting.run import fit
    from jaxmix.report.progress import fit_progress

    with fit_progress() as progress:
        result = fit(data, graph=graph, progress=progress, **asked)
        result.complete(lambda part: progress.say(part, result.in_brief()))
    more: Writers = ()
    if sensitivity_plot is not None and (bounds := result.sensitivity) is not None:
        more = [(sensitivity_plot, lambda path: draw(bounds.plot(), path))]
    code = report(result, context.obj, json, plot, more=more)
    if sensitivity_plot is not None and not more:
        print(f"jaxmix: no {sensitivity_plot}: {result.untested}", file=sys.stderr)
    return code


app.add_typer(demo.app, name="demo")
app.command("identify")(identify.identify_command)
app.add_typer(study.app, name="study")
app.command("simulate")(study.simulate_command)
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
