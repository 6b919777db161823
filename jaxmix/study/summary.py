"""From the replicate tables of a study to its summary, and from there to figures."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxmix.report.files import write_whole
from jaxmix.status import Status
from jaxmix.study.config import Cell
from jaxmix.study.statistics import Replicates, metrics_of
from jaxmix.study.store import Store, parquet

_BATCH = 1 << 16
_ESTIMATED = ("ate", "effects", "shares")

FIXED = ("estimator", "num_replicates", "num_failed", "metric", "value", "mc_se")


def replicates(store: Store, cell: Cell) -> dict[str, Replicates]:
    """Read what each estimator did in a cell, by label."""
    pa = parquet()
    path = store.table_path(cell)
    factors = {name for name, _ in cell.factors}
    names = [
        name
        for name in pa.parquet.read_schema(path).names
        if name not in factors | {"cell", "estimator", "replicate"}
    ]
    labels = [chosen.label for chosen in store.config.estimators]
    columns: dict[str, dict[str, list[Any]]] = {
        label: {name: [] for name in names} for label in labels
    }
    # A batch at a time, so that memory is that of the numbers kept, not of the whole table.
    with pa.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_BATCH, columns=[*names, "estimator"]):
            of = batch["estimator"].cast(pa.string())
            for label in labels:
                own = batch.filter(pa.compute.equal(of, label))
                if own.num_rows:
                    for name, parts in columns[label].items():
                        parts.append(_to_numpy(own[name]))
    return {label: _replicates(parts) for label, parts in columns.items()}


def _replicates(columns: dict[str, list[Any]]) -> Replicates:
    found: dict[str, Any] = {
        name: None if any(part is None for part in parts) else np.concatenate(parts)
        for name, parts in columns.items()
    }
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


def _to_numpy(column: Any) -> np.ndarray | None:
    """Return numbers, the numbers of statuses, or lists as a matrix; None for a column of nulls."""
    pa = parquet()
    if pa.types.is_list(column.type):
        if column.null_count:
            return None
        return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)
    if pa.types.is_dictionary(column.type):  # the status
        names = pa.array([status.name for status in Status])
        index = pa.compute.index_in(column.cast(pa.string()), value_set=names)
        return np.array([int(status) for status in Status])[index.to_numpy(zero_copy_only=False)]
    return np.asarray(column.to_numpy(zero_copy_only=False))


def rows(store: Store) -> Iterator[dict[str, Any]]:
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


def write(store: Store) -> list[dict[str, Any]]:
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


def _cell_text(value: Any) -> Any:
    if isinstance(value, float) and math.isnan(value):
        return ""
    return json.dumps(value) if isinstance(value, (list, tuple)) else value
