"""Three small studies, kept as the folders that they left."""

import csv
import json
import pathlib
import shutil
from typing import Any

import pyarrow.parquet as pq

from jaxmix import study

HERE = pathlib.Path(__file__).parent / "studies"
NAMES = ("closed_forms", "factorization", "intervals")
EARLIER = "factorization_before"  # the folder of an earlier solver, for the second configuration


def folder(name: str) -> pathlib.Path:
    """Return where the kept folder of a study is."""
    return HERE / name


def config(name: str) -> study.Config:
    """Return the configuration of a study."""
    return study.load(HERE / f"{name}.toml")


def numbers(config: study.Config, place: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Return the columns of every table of replicates in a folder, by cell."""
    store = study.Store(place, config)
    return {
        json.dumps(dict(cell.factors)): pq.read_table(store.table_path(cell)).to_pydict()
        for cell in config.cells
    }


def summary(place: pathlib.Path) -> list[dict[str, str]]:
    """Return the lines of a study's summary."""
    with (place / "summary.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def make() -> None:
    """Run the studies anew, and keep their folders."""
    for name in NAMES:
        shutil.rmtree(folder(name), ignore_errors=True)
        study.run(config(name), folder(name))
