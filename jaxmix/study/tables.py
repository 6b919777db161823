"""Replicate tables: how a block of replicates becomes rows of parquet, and what is no table."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Array

from jaxmix.status import InputError, Status
from jaxmix.study.configuration.config import Cell, Config
from jaxmix.study.configuration.methods import Estimated
from jaxmix.study.sweep import Block, Truth
from jaxmix.types import Json

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet

VECTORS = ("effects", "shares")
"""Columns of lists: a number for each class."""


def parquet() -> ModuleType:
    """Return pyarrow with the modules that are used, or say what to install."""
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise InputError("studies need the extra 'io': pip install 'jaxmix[io]'") from None
    found: ModuleType = pyarrow
    return found


@contextmanager
def reading(path: pathlib.Path) -> Iterator[None]:
    """Say in one line what is wrong with a replicate table, and what to do."""
    pa = parquet()
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, LookupError) as error:
        reason = " ".join(str(error).split())[:200]
        reason = "".join(c if c.isprintable() else "?" for c in reason)
        raise InputError(
            f"the replicate table {str(path)!r} is cut short or damaged ({reason}); delete it, and "
            "'jaxmix study run' computes it again"
        ) from None


class TableWriter:
    """Writes blocks of replicates as row groups of one parquet file."""

    def __init__(self, path: pathlib.Path, config: Config, cell: Cell) -> None:
        self.path, self.config, self.cell = path, config, cell
        self.writer: pyarrow.parquet.ParquetWriter | None = None

    def __enter__(self) -> TableWriter:
        """Return the writer itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Finish the file."""
        if self.writer is not None:
            self.writer.close()

    def write(self, block: Block) -> None:
        """Append the replicates of a block."""
        table = to_table(block, self.config, self.cell)
        if self.writer is None:
            self.writer = parquet().parquet.ParquetWriter(
                self.path, table.schema, compression="zstd", use_dictionary=True
            )
        self.writer.write_table(table)


def to_table(block: Block, config: Config, cell: Cell) -> pyarrow.Table:
    """Return a block as an Arrow table: the replicates in order, within each the estimators."""
    pa = parquet()
    labels = [chosen.label for chosen in config.estimators]
    size, many = len(block.truth.ate), len(labels)

    def interleave(parts: Sequence[Array | np.ndarray]) -> np.ndarray:
        return np.stack(parts, axis=1).reshape(size * many, *parts[0].shape[1:])

    def repeated(values: Array | np.ndarray) -> np.ndarray:
        return np.repeat(values, many, axis=0)

    def coded(codes: np.ndarray, texts: list[str]) -> pyarrow.DictionaryArray:
        return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int8)), texts)

    statuses = interleave([np.asarray(e.status) for e in block.estimates])
    columns: dict[str, Any] = {
        "cell": coded(np.zeros(size * many), [cell.hash]),
        **{name: _constant(value, size * many) for name, value in cell.factors},
        "estimator": coded(np.tile(np.arange(many), size), labels),
        "replicate": pa.array(repeated(np.arange(block.start, block.start + size))),
        "status": coded(_status_codes(statuses), [status.name for status in Status]),
        "ate": pa.array(interleave([e.ate for e in block.estimates]).astype(float)),
        "error": pa.array(interleave([_error(e, block.truth) for e in block.estimates])),
        **{
            name: _vectors([getattr(e, name) for e in block.estimates], size)
            for name in VECTORS
        },
    }  # fmt: skip
    if config.intervals is not None:
        for part in ("se", "lower", "upper"):
            found = [getattr(spread, part) for spread in block.spreads]
            columns[f"ate_{part}"] = pa.array(
                interleave([ate for ate, _, _ in found]).astype(float)
            )
            for position, name in enumerate(VECTORS, 1):
                columns[f"{name}_{part}"] = _vectors([f[position] for f in found], size)
    truth = block.truth
    columns["true_ate"] = pa.array(repeated(truth.ate).astype(float))
    for name in VECTORS:
        columns[f"true_{name}"] = _vectors([getattr(truth, name)] * many, size)
    if config.bound:
        for name in ("bound_ate", "bound_error"):
            columns[name] = pa.array(repeated(getattr(truth, name)).astype(float))
    return pa.table(columns)


def _constant(value: Json, size: int) -> pyarrow.Array:
    """Return a column that repeats a factor's value, a list as text."""
    pa = parquet()
    if not isinstance(value, (bool, int, float, str)):
        value = json.dumps(value)
    return pa.array([value] * size) if isinstance(value, (bool, str)) else pa.array(
        np.full(size, value, float if isinstance(value, float) else np.int64)
    )  # fmt: skip


def _status_codes(statuses: np.ndarray) -> np.ndarray:
    members = np.array([int(status) for status in Status])
    return np.searchsorted(members, statuses)


def _error(estimate: Estimated, truth: Truth) -> np.ndarray:
    """Return the squared errors of effects and shares, summed; NaN where there are no classes."""
    if estimate.effects.shape != truth.effects.shape:
        return np.full(len(truth.ate), np.nan)
    with np.errstate(over="ignore", invalid="ignore"):  # then infinite, or NaN: no number
        parts = (estimate.effects - truth.effects) ** 2 + (estimate.shares - truth.shares) ** 2
        return np.asarray(parts.sum(-1), float)


def _vectors(parts: list[np.ndarray], size: int) -> pyarrow.ListArray:
    """Interleave the vectors of several estimators as lists; null where one has no classes."""
    pa = parquet()
    lengths = np.array([part.shape[1] for part in parts])
    flat = np.concatenate([np.asarray(part) for part in parts], axis=1).astype(float).reshape(-1)
    ends = np.cumsum(np.tile(lengths, size))
    offsets = np.concatenate([[0], ends]).astype(np.int32)
    missing = np.append(np.tile(lengths == 0, size), False)
    if missing.any():
        return pa.ListArray.from_arrays(pa.array(offsets, mask=missing), pa.array(flat))
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat))
