"""A study from its configuration to its folder."""

from __future__ import annotations

import pathlib
from collections.abc import Callable

from jaxmix import arguments
from jaxmix.status import InputError
from jaxmix.study import summary
from jaxmix.study.configuration.config import Cell, Config
from jaxmix.study.store import Store
from jaxmix.study.sweep import blocks
from jaxmix.study.tables import parquet
from jaxmix.types import Json

Progress = Callable[[int, int], None]
"""Called with the number of complete cells, and of replicates computed by this process."""


def run(
    config: Config,
    folder: str | pathlib.Path,
    *,
    chunk_size: int | None = None,
    progress: Progress | None = None,
) -> list[dict[str, Json]]:
    """Compute the cells that are missing, and write the summary.

    Killed at any moment it loses the running cell at most; called again it goes on. Several
    processes may share a folder: each takes cells that no other has.

    Parameters
    ----------
    config
        From `load`.
    folder
        Where the study is kept; made where it does not exist.
    chunk_size
        Replicates computed at once; by default as many as memory likes. It changes no draw.
    progress
        Called as the work goes on.

    Returns
    -------
    list
        The lines of ``summary.csv``, as dicts.

    Raises
    ------
    InputError
        For the folder of another study.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from jaxmix import study
    >>> text = '''
    ... name = "tiny"
    ... seed = 1
    ... num_replicates = 50
    ... num_rows = 10000
    ... estimators = ["synthetic"]
    ... [population]
    ... kind = "paper_main"
    ... '''
    >>> with tempfile.TemporaryDirectory() as place:
    ...     path = pathlib.Path(place, "tiny.toml")
    ...     _ = path.write_text(text)
    ...     lines = study.run(study.load(path), pathlib.Path(place, "out"))
    >>> [round(line["value"], 1) for line in lines if line["metric"] == "effect_2_mean"]
    [0.8]
    """
    arguments.instance("config", config, Config, "give what study.load returns")
    if not isinstance(folder, str | pathlib.PurePath) or not str(folder) or "\0" in str(folder):
        raise InputError(f"folder is {arguments.told(folder)}: give the name of a folder")
    if chunk_size is not None:
        chunk_size = arguments.whole("chunk_size (--chunk-size)", chunk_size, least=1)
    arguments.callback("progress", progress)
    parquet()
    store = Store(pathlib.Path(folder), config)
    store.open()
    done, computed = store.num_done(), 0

    def report() -> None:
        if progress is not None:
            progress(done, computed)

    def compute(cell: Cell) -> None:
        nonlocal computed
        with store.writer(cell) as writer:
            for block in blocks(config, cell, chunk_size=chunk_size):
                writer.write(block)
                computed += len(block.truth.ate)
                report()

    report()
    # Once past the cells that nobody works on; then wait for those that others had.
    for wait in (False, True):
        for cell in config.cells:
            if not store.is_done(cell):
                with store.claim(cell, wait=wait) as mine:
                    if mine:
                        compute(cell)
                done = store.num_done()
                report()
    store.tidy()
    return summary.write(store)
