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
from jaxmix.study.statistics import Replicates, summarise
from jaxmix.study.store import Store, parquet

FIXED = ("estimator", "num_replicates", "num_failed", "metric", "value", "mc_se")


def replicates(store: Store, cell: Cell, label: str) -> Replicates:
    """Read what one estimator did in one cell."""
    pa = parquet()
    path = store.table_path(cell)
    names = pa.parquet.read_schema(path).names
    wanted = [name for name in names if name not in ("cell", "estimator", "replicate")]
    dropped = {name for name, _ in cell.factors}
    columns: dict[str, list[Any]] = {name: [] for name in wanted if name not in dropped}
    # A row group at a time, so that memory is that of the numbers kept, not of the whole table.
    with pa.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=1 << 16, columns=[*columns, "estimator"]):
            own = batch.filter(pa.compute.equal(batch["estimator"].cast(pa.string()), label))
            for name, parts in columns.items():
                parts.append(_to_numpy(own[name]))
    found: dict[str, Any] = {
        name: None if any(part is None for part in parts) else np.concatenate(parts)
        for name, parts in columns.items()
    }
    truth = {name: found[f"true_{name}"] for name in ("ate", "effects", "shares")}
    truth |= {name: found[name] for name in ("bound_ate", "bound_error") if name in found}
    bounds = {
        name: (found[f"{name}_lower"], found[f"{name}_upper"])
        for name in ("ate", "effects", "shares")
        if found.get(f"{name}_lower") is not None
    }
    return Replicates(
        found["status"],
        found["ate"],
        found["error"],
        found["effects"],
        found["shares"],
        truth,
        bounds,
    )


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
        for chosen in store.config.estimators:
            found = replicates(store, cell, chosen.label)
            failed = int(np.sum(found.status >= Status.MAX_STEPS))
            for metric, (value, mc_se) in summarise(found).items():
                yield {
                    "estimator": chosen.label,
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
