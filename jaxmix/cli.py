"""The command line: one command on a csv.

Results go to standard output; progress, warnings and errors to standard error. Exit codes: 0
done, 1 the estimate failed, 2 the call or the input is wrong.
"""

from __future__ import annotations

import importlib.metadata
import io
import os
import pathlib
import platform
import shlex
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import jax
import rich.console
import typer

from jaxmix import demo
from jaxmix.data import WEIGHT_KINDS, read
from jaxmix.fit import fit
from jaxmix.hierarchy import identify
from jaxmix.plan import CHOICES
from jaxmix.report.files import check_folder, write_whole
from jaxmix.report.plots import ForestRow, figure_class
from jaxmix.report.progress import fit_progress
from jaxmix.result import Result
from jaxmix.status import InputError
from jaxmix.study import commands as study_commands
from jaxmix.tables.texts import AUTO

_FORMATS = ("png", "pdf", "svg")

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    help="Causal effects when the groups that respond differently are hidden.",
)


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    jax.config.update("jax_enable_x64", True)
    _keep_compiled_programs()
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


def _keep_compiled_programs() -> None:
    """Compile once for all later calls, in the user's cache folder; JAX's own setting wins.

    By machine: a program is for one kind of processor, and homes are shared.
    """
    if getattr(jax.config, "jax_compilation_cache_dir", None) is not None:
        return
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    folder = pathlib.Path(base) / "jaxmix" / (platform.node() or "here")
    try:
        folder.mkdir(parents=True, exist_ok=True)
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


Json = Annotated[
    pathlib.Path | None,
    typer.Option("--json", metavar="OUT.json", help="Write everything as JSON."),
]
Plot = Annotated[
    pathlib.Path | None,
    typer.Option("--plot", metavar="OUT.png", help="Draw the effects (png, pdf or svg)."),
]
Resamples = Annotated[
    int, typer.Option("--resamples", help="Bootstrap resamples; 0 for influence functions.")
]
Confidence = Annotated[float, typer.Option("--confidence", help="Confidence of the intervals.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of the resamples.")]


@app.command("fit")
def fit_command(
    context: typer.Context,
    rows: Annotated[pathlib.Path, typer.Argument(metavar="ROWS", help="A csv or parquet file.")],
    treatment: Annotated[str, typer.Option("--treatment", help="Column of the treatment.")],
    outcome: Annotated[str, typer.Option("--outcome", help="Column of the outcome.")],
    z: Annotated[str, typer.Option("--z", help="Treatment-side proxies: z1,z2.")],
    x: Annotated[str, typer.Option("--x", help="Outcome-side proxies: x1,x2.")],
    covariates: Annotated[
        str, typer.Option("--covariates", help="Observed columns to adjust for: a,b.")
    ] = "",
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
        str, typer.Option("--missing-marks", metavar="LIST", help="What marks a missing cell: .,NA")
    ] = AUTO,
    encoding: Annotated[
        str | None, typer.Option("--encoding", metavar="NAME", help="Encoding of a csv file.")
    ] = None,
    classes: Annotated[
        str | None, typer.Option("--classes", help="Number of hidden classes, or auto.")
    ] = None,
    level: Annotated[str, typer.Option("--level", help="auto, 2, 3 or 4.")] = "auto",
    method: Annotated[
        str, typer.Option("--method", help="auto, bridge, synthetic, spectral or factorization.")
    ] = "auto",
    bridge: Annotated[str, typer.Option("--bridge", help="by_arm or pooled.")] = "by_arm",
    estimand: Annotated[str, typer.Option("--estimand", help="ATE or ATT.")] = "ATE",
    better: Annotated[
        str, typer.Option("--better", help="Which outcome is good: higher or lower.")
    ] = "higher",
    resamples: Resamples = 1000,
    confidence: Confidence = 0.95,
    interval: Annotated[
        str, typer.Option("--interval", help=", ".join(CHOICES["interval"]) + ".")
    ] = "auto",
    resampling: Annotated[
        str | None, typer.Option("--resampling", help="multinomial, poisson or bayesian.")
    ] = None,
    strata: Annotated[
        str | None, typer.Option("--strata", help="arm: resample within treatment arms.")
    ] = None,
    graph: Annotated[
        pathlib.Path | None,
        typer.Option(
            "--graph", metavar="GRAPH.toml", help="Causal graph of the columns: declares the level."
        ),
    ] = None,
    checks: Annotated[
        bool, typer.Option(help="Further tests and sensitivity bounds of levels 2 and 3.")
    ] = True,
    edge: Annotated[
        str, typer.Option("--edge", help="What the bounds allow: x_to_y or z_to_y.")
    ] = "x_to_y",
    sensitivity_plot: Annotated[
        pathlib.Path | None,
        typer.Option(
            "--sensitivity-plot", metavar="OUT.png", help="Draw effects against that strength."
        ),
    ] = None,
    seed: Seed = 0,
    json: Json = None,
    plot: Plot = None,
) -> int:
    """Estimate an effect under hidden confounding from a table of rows."""
    _check_outputs(json, plot, sensitivity_plot)
    if sensitivity_plot is not None and not (checks and level != "4"):
        raise InputError(
            "--sensitivity-plot draws bounds that come with the checks of levels 2 and 3; leave "
            "out --no-checks, and ask for another level than 4"
        )
    data = read(
        rows,
        treatment=treatment,
        outcome=outcome,
        z=_names(z),
        x=_names(x),
        covariates=_names(covariates),
        weights=weights,
        weights_kind=weights_kind,
        control=control,
        features=features,
        cluster=cluster,
        missing_marks=AUTO if missing_marks == AUTO else _names(missing_marks),
        encoding=encoding,
    )
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
        )
    code = _deliver(result, context.obj, json, plot)
    if sensitivity_plot is not None:
        if result.sensitivity is None:
            why = result.untested or "no law of level 2 or 3 stands in the result"
            print(f"jaxmix: no {sensitivity_plot}: {why}", file=sys.stderr)
        else:
            _draw(result.sensitivity.plot(), sensitivity_plot)
    return code


demo_app = typer.Typer(rich_markup_mode=None, help="Run the main job on real data.")
app.add_typer(demo_app, name="demo")


@demo_app.command("lalonde")
def demo_lalonde(
    context: typer.Context,
    resamples: Resamples = 1000,
    confidence: Confidence = 0.95,
    seed: Seed = 0,
    json: Json = None,
    plot: Plot = None,
) -> int:
    """Job training and earnings (LaLonde): trial participants against survey controls."""
    _check_outputs(json, plot)
    settings: dict[str, Any] = {"num_resamples": resamples, "confidence": confidence, "seed": seed}
    with fit_progress() as progress:
        data = demo.load_lalonde()
        result = demo.lalonde(data, progress=progress, **settings)
    trial = ForestRow("randomized trial", data.trial.value, data.trial.interval, "contrast")
    return _deliver(
        result, context.obj, json, plot, demo.lalonde_words(result, data.trial), (trial,)
    )


@demo_app.callback()
def _demo() -> None:
    pass


@app.command("identify")
def identify_command(
    context: typer.Context,
    graph: Annotated[
        pathlib.Path, typer.Argument(metavar="GRAPH", help="A .toml file with roles, or .dot.")
    ],
    treatment: Annotated[
        str | None, typer.Option("--treatment", help="Node of the treatment.")
    ] = None,
    outcome: Annotated[str | None, typer.Option("--outcome", help="Node of the outcome.")] = None,
    latent: Annotated[
        str | None, typer.Option("--latent", help="Node of the hidden class.")
    ] = None,
    z: Annotated[str | None, typer.Option("--z", help="Treatment-side proxies: z1,z2.")] = None,
    x: Annotated[str | None, typer.Option("--x", help="Outcome-side proxies: x1,x2.")] = None,
    covariates: Annotated[
        str | None, typer.Option("--covariates", help="Observed nodes to adjust for: a,b.")
    ] = None,
    separable: Annotated[
        bool | None,
        typer.Option(
            "--separable/--not-separable", help="The class is a function of observed columns."
        ),
    ] = None,
    json: Json = None,
) -> int:
    """Say which level of the hierarchy a causal graph supports, and why not a stronger one.

    Options name roles, and override those of the file.
    """
    _check_outputs(json, None)
    verdict = identify(
        graph,
        treatment=treatment,
        outcome=outcome,
        latent=latent,
        z=None if z is None else _names(z),
        x=None if x is None else _names(x),
        covariates=None if covariates is None else _names(covariates),
        separable=separable,
    )
    print(verdict.summary())
    if json is not None:
        verdict.to_json(json, command=context.obj)
        print(f"wrote {json}", file=sys.stderr)
    return 0


app.add_typer(study_commands.app, name="study")
app.command("simulate")(study_commands.simulate_command)


def _names(listed: str) -> list[str]:
    return [name.strip() for name in listed.split(",") if name.strip()]


def _classes(asked: str | None) -> int | str | None:
    if asked is None or asked == "auto":
        return asked
    try:
        return int(asked)
    except ValueError:
        raise InputError(f"--classes is {asked!r}: give a whole number, or auto") from None


def _check_outputs(
    json: pathlib.Path | None,
    plot: pathlib.Path | None,
    sensitivity_plot: pathlib.Path | None = None,
) -> None:
    """Refuse outputs that could not be written, before any work is done."""
    for path in (json, plot, sensitivity_plot):
        if path is not None:
            check_folder(path)
            if path.is_dir():
                raise InputError(f"the output {str(path)!r} is a folder; name a file")
    for option, path in (("--plot", plot), ("--sensitivity-plot", sensitivity_plot)):
        if path is not None:
            if path.suffix.lstrip(".").lower() not in _FORMATS:
                endings = ", ".join(_FORMATS)
                raise InputError(f"{option} is {str(path)!r}: name a file that ends in {endings}")
            figure_class()


def _deliver(
    result: Result,
    command: str,
    json: pathlib.Path | None,
    plot: pathlib.Path | None,
    words: str = "",
    extra: tuple[ForestRow, ...] = (),
) -> int:
    """Print the result, write what was asked for, and return the exit code."""
    if words:
        print(f"{words}\n")
    print(result.summary())
    if json is not None:
        result.to_json(json, command=command)
        print(f"wrote {json}", file=sys.stderr)
    if plot is not None:
        _draw(result.plot(extra), plot)
    if not result.status.usable:
        print(f"jaxmix: {result.status.name}: {result.status.message}", file=sys.stderr)
        return 1
    return 0


def _draw(figure: Any, path: pathlib.Path) -> None:
    """Write a figure, whole or not at all."""
    picture = io.BytesIO()
    figure.savefig(picture, format=path.suffix.lstrip(".").lower(), dpi=150)
    write_whole(path, picture.getvalue())
    print(f"wrote {path}", file=sys.stderr)
