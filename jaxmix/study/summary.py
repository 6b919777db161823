"""From the replicate tables of a study to its summary, and from there to figures."""

from __future__ import annotations

import csv
import io
import json
import math
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxmix.report.files import write_whole
from jaxmix.status import Status
from jaxmix.study.configuration.config import Cell
from jaxmix.study.statistics import Replicates, metrics_of
from jaxmix.study.store import Store
from jaxmix.study.tables import parquet, reading
from jaxmix.types import Json

if TYPE_CHECKING:
    import pyarrow

_BATCH = 1 << 16
_ESTIMATED = ("ate", "effects", "shares")

FIXED = ("estimator", "num_replicates", "num_failed", "metric", "value", "mc_se")


def replicates(store: Store, cell: Cell) -> dict[str, Replicates]:
    """Read what each estimator did in a cell, by label."""
    path = store.table_path(cell)
    with reading(path):
        return _read(store, cell, path)


def _read(store: Store, cell: Cell, path: pathlib.Path) -> dict[str, Replicates]:
    pa = parquet()
    factors = {name for name, _ in cell.factors}
    names = [
        name
        for name in pa.parquet.read_schema(path).names
        if name not in factors | {"cell", "estimator", "replicate"}
    ]
    # What is the same in every row is read once: a fixed population has one truth.
    fixed = [
        n for n in names if n.startswith(("true_", "bound_")) and not cell.population.is_random
    ]
    names = [name for name in names if name not in fixed]
    labels = [chosen.label for chosen in store.config.estimators]
    found: dict[str, dict[str, Any]] = {label: {} for label in labels}
    ends = dict.fromkeys(labels, 0)
    # A batch at a time into arrays of the final size: memory is that of the numbers kept.
    with pa.parquet.ParquetFile(path) as file:
        size = file.metadata.num_rows // len(labels)
        first = next(file.iter_batches(1, columns=fixed)) if fixed else {}
        for batch in file.iter_batches(_BATCH, columns=[*names, "estimator"]):
            of = batch["estimator"].cast(pa.string())
            for label in labels:
                own = batch.filter(pa.compute.equal(of, label))
                if not own.num_rows:
                    continue
                rows = slice(ends[label], ends[label] + own.num_rows)
                ends[label] = rows.stop
                for name in names:
                    part = _to_numpy(own[name])
                    if name not in found[label]:
                        found[label][name] = (
                            None if part is None else np.empty((size, *part.shape[1:]), part.dtype)
                        )
                    if part is not None:
                        found[label][name][rows] = part
    for name in fixed:
        known = _to_numpy(first[name])
        assert known is not None  # every population has a truth
        value = known[0]
        for own in found.values():
            own[name] = np.broadcast_to(value, (size, *value.shape))
    return {label: _replicates(own) for label, own in found.items()}


def _replicates(found: dict[str, Any]) -> Replicates:
    truth = {name: found[f"true_{name}"] for name in _ESTIMATED}
    truth |= {name: found[name] for name in ("bound_ate", "bound_error") if name in found}
    intervals = {
        name: tuple(found[f"{name}_{part}"] for part in ("se", "lower", "upper"))
        for name in _ESTIMATED
        if found.get(f"{name}_lower") is not None
    }
    return Replicates(
        found["status"], found["ate"], found["error"], found["effects"], found["shares"], truth,
        intervals,
    )  # fmt: skip


def mean_of(store: Store, cell: Cell, column: str) -> float:
    """Return the mean of a column of numbers over a cell, reading nothing else."""
    path = store.table_path(cell)
    with reading(path):
        table = parquet().parquet.read_table(path, columns=[column])
        return float(np.mean(table[column].to_numpy()))


def _to_numpy(column: pyarrow.Array) -> np.ndarray | None:
    """Return numbers, the numbers of statuses, or lists as a matrix; None for a column of nulls."""
    pa = parquet()
    if pa.types.is_list(column.type):
        if column.null_count:
            return None
        flat: np.ndarray = column.flatten().to_numpy(zero_copy_only=False)
        return flat.reshape(len(column), -1)
    if pa.types.is_dictionary(column.type):  # the status
        names = pa.array([status.name for status in Status])
        index = pa.compute.index_in(column.cast(pa.string()), value_set=names)
        places: np.ndarray = index.to_numpy(zero_copy_only=False)
        numbers: np.ndarray = np.array([int(status) for status in Status])[places]
        return numbers
    return np.asarray(column.to_numpy(zero_copy_only=False))


def rows(store: Store) -> Iterator[dict[str, Json]]:
    """Yield the lines of the summary, one for each cell that is there, estimator and metric."""
    for cell in store.config.cells:
        if not store.is_done(cell):
            continue
        for label, found in replicates(store, cell).items():
            failed = int(np.sum(found.status >= Status.MAX_STEPS))
            for metric, (value, mc_se) in metrics_of(found).items():
                yield {
                    "estimator": label,
                    **dict(cell.factors),
                    "num_replicates": len(found.status),
                    "num_failed": failed,
                    "metric": metric,
                    "value": value,
                    "mc_se": mc_se,
                }


def write(store: Store) -> list[dict[str, Json]]:
    """Write ``summary.csv`` and return its lines; numbers that do not exist are empty."""
    lines = list(rows(store))
    names = [FIXED[0], *store.config.factor_names, *FIXED[1:]]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for line in lines:
        writer.writerow({name: _cell_text(value) for name, value in line.items()})
    write_whole(store.summary_path, text.getvalue())
    return lines


def _cell_text(value: Json) -> Json:
    if isinstance(value, float) and math.isnan(value):
        return ""
    return json.dumps(value) if isinstance(value, (list, tuple)) else value
