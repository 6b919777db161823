"""The command `jaxmix demo`."""

from __future__ import annotations

import typer

from jaxmix.cli.common import Confidence, Json, Plot, Resamples, Seed, check, compute, report
from jaxmix.report.plots import ForestRow

app = typer.Typer(rich_markup_mode=None, help="Run the main job on real data.")


@app.callback()
def _demo() -> None:
    pass


@app.command("lalonde")
def lalonde_command(
    context: typer.Context,
    resamples: Resamples = 1000,
    confidence: Confidence = 0.95,
    seed: Seed = 0,
    json: Json = None,
    plot: Plot = None,
) -> int:
    """Job training and earnings (LaLonde): trial participants against survey controls."""
    check({"--json": json, "--plot": plot})
    compute()
    from jaxmix import demo
    from jaxmix.report.progress import fit_progress

    with fit_progress() as progress:
        data = demo.load_lalonde()
        result = demo.lalonde(
            data, progress=progress, num_resamples=resamples, confidence=confidence, seed=seed
        )
        result.complete(lambda part: progress.say(part, result.in_brief()))
    trial = ForestRow("randomized trial", data.trial.value, data.trial.interval, "contrast")
    words = demo.lalonde_words(result, data.trial)
    return report(result, context.obj, json, plot, words=words, extra=(trial,))
