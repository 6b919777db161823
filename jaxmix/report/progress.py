"""A progress bar on standard error (rich, the extra 'cli')."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import rich.console
import rich.progress

_QUIET_SECONDS = 2.0  # no bar for what is over sooner


@contextmanager
def progress_bar(
    *columns: rich.progress.ProgressColumn, **task: Any
) -> Iterator[Callable[..., None]]:
    """Show a bar for work that takes longer than a moment, and give the function that moves it.

    Parameters
    ----------
    columns
        What the bar shows.
    task
        Total and fields of the bar's one task, at first; the function given takes new ones.
    """
    console = rich.console.Console(stderr=True)
    bar = rich.progress.Progress(*columns, console=console, transient=True)
    started = time.monotonic()
    only = bar.add_task("", **task)

    def update(**fields: Any) -> None:
        if time.monotonic() - started > _QUIET_SECONDS and console.is_terminal:
            bar.start()
        bar.update(only, **fields)

    try:
        yield update
    finally:
        if bar.live.is_started:  # stopping a bar that never showed prints an empty line
            bar.stop()
