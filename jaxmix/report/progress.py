"""Progress bars on standard error (rich, the extra 'cli')."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import rich.console
import rich.progress

_QUIET_SECONDS = 2.0  # no bar for what is over sooner
_BETWEEN = "compiling, fitting, testing"  # before and after resamples, and between levels


@contextmanager
def progress_bar(
    *columns: rich.progress.ProgressColumn, total: float | None, **fields: object
) -> Iterator[Callable[..., None]]:
    """Show a bar for work that takes longer than a moment, and give the function that moves it.

    Parameters
    ----------
    columns
        What the bar shows.
    total, fields
        Steps and fields of the bar's one task, at first; the function given takes new ones.
    """
    console = rich.console.Console(stderr=True)
    bar = rich.progress.Progress(*columns, console=console, transient=True)
    named: dict[str, Any] = fields  # beside fields it has options, each of a type of its own
    only = bar.add_task("", total=total, **named)
    # On a clock of its own: compilation can take a minute before there is anything to report.
    late = threading.Timer(_QUIET_SECONDS, bar.start)
    late.daemon = True
    if console.is_terminal:
        late.start()
    try:
        yield lambda **fields: bar.update(only, **fields)
    finally:
        late.cancel()
        if late.ident is not None:
            late.join()
        if bar.live.is_started:  # stopping a bar that never showed prints an empty line
            bar.stop()


class FitProgress:
    """What a fit is at; called with resamples done and in all.

    Parameters
    ----------
    show
        Moves the bar, by fields.
    """

    def __init__(self, show: Callable[..., None]) -> None:
        self._show = show

    def __call__(self, done: int, total: int) -> None:
        """Say how many resamples are done."""
        # One step more than resamples: a bar that is full stands still, its clock too.
        self._show(
            completed=done,
            total=total + 1,
            stage="resampling" if done < total else _BETWEEN,
            found=f"{done}/{total} resamples",
        )

    def say(self, stage: str, found: str) -> None:
        """Say what is computed, and what was found so far."""
        self._show(stage=stage, found=found)


@contextmanager
def fit_progress() -> Iterator[FitProgress]:
    """Show what a fit is at, and give what takes the news of it."""
    with progress_bar(
        rich.progress.SpinnerColumn("dots" if _can_show("⠋") else "line"),
        rich.progress.TextColumn("{task.fields[stage]}"),
        rich.progress.BarColumn(),
        rich.progress.TextColumn("{task.fields[found]}"),
        rich.progress.TimeElapsedColumn(),
        total=None,
        stage=_BETWEEN,
        found="",
    ) as show:
        yield FitProgress(show)


def _can_show(letter: str) -> bool:
    """Whether the terminal has a letter."""
    try:
        letter.encode(getattr(sys.stderr, "encoding", None) or "ascii")
    except UnicodeEncodeError:
        return False
    return True
