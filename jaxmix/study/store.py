"""The folder of a study: replicate tables that appear whole, a manifest, and who works on what.

```
manifest.json              what ran: configuration, versions, device, times
replicates/HASH.parquet    one cell: a row for each replicate and estimator
summary.csv                metrics in long form
```

A table is written to a partial file, and renamed once it is complete: a process that is killed
loses its running cell and nothing else. Processes that share a folder claim cells by locks that
end with the process.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import pathlib
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmix.report.files import write_whole
from jaxmix.status import InputError, Status
from jaxmix.study.config import Cell, Config
from jaxmix.study.sweep import Block

try:
    import fcntl
except ModuleNotFoundError:  # no such locks on this system: one process for each folder there
    fcntl = None  # type: ignore[assignment]

_SCHEMA = 1
_VECTORS = ("effects", "shares")


def parquet() -> Any:
    """Return pyarrow with the modules that are used, or say what to install."""
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise InputError("studies need the extra 'io': pip install 'jaxmix[io]'") from None
    return pyarrow


class Store:
    """One study's folder.

    Parameters
    ----------
    folder
        Made by `open` where it does not exist.
    config
        The study.
    """

    def __init__(self, folder: pathlib.Path, config: Config) -> None:
        self.folder = folder
        self.config = config

    @property
    def manifest_path(self) -> pathlib.Path:
        """Where the manifest is."""
        return self.folder / "manifest.json"

    @property
    def summary_path(self) -> pathlib.Path:
        """Where the summary is."""
        return self.folder / "summary.csv"

    def table_path(self, cell: Cell) -> pathlib.Path:
        """Where the replicates of a cell are."""
        return self.folder / "replicates" / f"{cell.hash}.parquet"

    def is_done(self, cell: Cell) -> bool:
        """Whether a cell is complete."""
        return self.table_path(cell).is_file()

    def num_done(self) -> int:
        """Return how many cells are complete."""
        return sum(self.is_done(cell) for cell in self.config.cells)

    def check(self) -> None:
        """Refuse a folder that holds something else, before any work is done.

        Raises
        ------
        InputError
            For the folder of another study, of another configuration of this one, or with
            files of somebody else.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"the output {str(self.folder)!r} is a file; name a folder by --out")
        if not self.folder.is_dir():
            return
        if not self.manifest_path.is_file():
            # A folder in the making has locks and partial files only, and their folders.
            found = [p.relative_to(self.folder).parts for p in self.folder.rglob("*")]
            visible = [p for p in found if not any(part.startswith(".") for part in p)]
            if any(p != ("replicates",) for p in visible):
                raise InputError(
                    f"the folder {str(self.folder)!r} holds other files and no study; "
                    "name an empty folder by --out"
                )
            return
        before = self.manifest()
        if before["name"] != self.config.name:
            raise InputError(
                f"the folder {str(self.folder)!r} holds the study {before['name']!r}, not "
                f"{self.config.name!r}; name another folder by --out"
            )
        known = {cell.hash for cell in self.config.cells}
        strange = set(before["planned"]) - known
        if strange:
            raise InputError(
                f"the folder {str(self.folder)!r} holds {len(strange)} cells that "
                f"{before['name']!r} does not have now: its seed, estimators, replicates or "
                "factors were changed; name another folder by --out"
            )

    def open(self) -> None:
        """Make the folder and note down what runs."""
        self.check()
        try:
            (self.folder / "replicates").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"the folder {str(self.folder)!r} cannot be made ({error.strerror}); "
                "name another by --out"
            ) from None
        with self._locked("manifest"):
            before = self.manifest() if self.manifest_path.is_file() else {}
            self._write_manifest({
                "schema": _SCHEMA,
                "name": self.config.name,
                "seed": self.config.seed,
                "config": dict(self.config.raw),
                "planned": [cell.hash for cell in self.config.cells],
                "cells": before.get("cells", {}),
            })  # fmt: skip

    def manifest(self) -> dict[str, Any]:
        """Read the manifest."""
        try:
            content = json.loads(self.manifest_path.read_text())
        except (OSError, ValueError):
            content = None
        if not isinstance(content, dict) or not {"schema", "name", "planned", "cells"} <= set(
            content
        ):
            raise InputError(
                f"{str(self.manifest_path)!r} is no manifest of a study; "
                "name another folder by --out"
            )
        return content

    def note(self, cell: Cell, seconds: float) -> None:
        """Note down how long a cell took, and on what."""
        with self._locked("manifest"):
            content = self.manifest()
            content["cells"][cell.hash] = {
                "factors": dict(cell.factors),
                "seconds": round(seconds, 3),
                "replicates_per_second": round(self.config.num_replicates / seconds, 1),
                **_environment(),
            }
            self._write_manifest(content)

    def _write_manifest(self, content: Mapping[str, Any]) -> None:
        write_whole(self.manifest_path, json.dumps(content, indent=1) + "\n")

    @contextmanager
    def claim(self, cell: Cell, *, wait: bool = False) -> Iterator[bool]:
        """Claim a cell; gives False where another process has it, or it is complete."""
        with self._locked(cell.hash, wait=wait) as owned:
            yield owned and not self.is_done(cell)

    @contextmanager
    def _locked(self, name: str, *, wait: bool = True) -> Iterator[bool]:
        """Hold a lock, which the system drops with the process; gives False where it is taken."""
        if fcntl is None:
            yield True
            return
        path = self.folder / "replicates" / f".{name}.lock"
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            except OSError:  # a file system without locks: one process for each folder there
                pass
            yield True

    @contextmanager
    def writer(self, cell: Cell) -> Iterator[TableWriter]:
        """Write the table of a cell, which appears when all of it is there."""
        path = self.table_path(cell)
        # The process in its name: where locks do not work, two may write one cell.
        partial = path.with_name(f".{cell.hash}.{os.getpid()}.partial")
        begin = time.perf_counter()
        try:
            with TableWriter(partial, self.config, cell) as writer:
                yield writer
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            # First the note: a table that is there has one.
            self.note(cell, time.perf_counter() - begin)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def tidy(self) -> None:
        """Remove what killed processes left, once every cell is there."""
        if self.num_done() < len(self.config.cells):
            return
        for path in self.folder.glob("replicates/.*"):
            # Others may be waiting for the manifest's lock.
            if path.suffix in (".partial", ".lock") and path.name != ".manifest.lock":
                path.unlink(missing_ok=True)
        with self._locked("manifest"):
            for path in self.folder.glob(".manifest.json.*"):
                shutil.rmtree(path, ignore_errors=True)


class TableWriter:
    """Writes blocks of replicates as row groups of one parquet file."""

    def __init__(self, path: pathlib.Path, config: Config, cell: Cell) -> None:
        self.path, self.config, self.cell = path, config, cell
        self.writer: Any = None

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


def to_table(block: Block, config: Config, cell: Cell) -> Any:
    """Return a block as an Arrow table: the replicates in order, within each the estimators."""
    pa = parquet()
    labels = [chosen.label for chosen in config.estimators]
    size, many = len(block.truth.ate), len(labels)

    def interleave(parts: list[Any]) -> np.ndarray:
        return np.stack(parts, axis=1).reshape(size * many, *parts[0].shape[1:])

    def repeated(values: Any) -> np.ndarray:
        return np.repeat(values, many, axis=0)

    def coded(codes: np.ndarray, texts: list[str]) -> Any:
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
            for name in _VECTORS
        },
    }  # fmt: skip
    if config.intervals is not None:
        for part in ("se", "lower", "upper"):
            found = [getattr(spread, part) for spread in block.spreads]
            columns[f"ate_{part}"] = pa.array(
                interleave([ate for ate, _, _ in found]).astype(float)
            )
            for position, name in enumerate(_VECTORS, 1):
                columns[f"{name}_{part}"] = _vectors([f[position] for f in found], size)
    truth = block.truth
    columns["true_ate"] = pa.array(repeated(truth.ate).astype(float))
    for name in _VECTORS:
        columns[f"true_{name}"] = _vectors([getattr(truth, name)] * many, size)
    if config.bound:
        for name in ("bound_ate", "bound_error"):
            columns[name] = pa.array(repeated(getattr(truth, name)).astype(float))
    return pa.table(columns)


def _constant(value: Any, size: int) -> Any:
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


def _error(estimate: Any, truth: Any) -> np.ndarray:
    """Return the squared errors of effects and shares, summed; NaN where there are no classes."""
    if estimate.effects.shape != truth.effects.shape:
        return np.full(len(truth.ate), np.nan)
    with np.errstate(over="ignore", invalid="ignore"):  # then infinite, or NaN: no number
        parts = (estimate.effects - truth.effects) ** 2 + (estimate.shares - truth.shares) ** 2
        return parts.sum(-1).astype(float)


def _vectors(parts: list[np.ndarray], size: int) -> Any:
    """Interleave the vectors of several estimators as lists; null where one has no classes."""
    pa = parquet()
    lengths = np.array([part.shape[1] for part in parts])
    flat = np.concatenate(parts, axis=1).astype(float).reshape(-1)
    ends = np.cumsum(np.tile(lengths, size))
    offsets = np.concatenate([[0], ends]).astype(np.int32)
    missing = np.append(np.tile(lengths == 0, size), False)
    if missing.any():
        return pa.ListArray.from_arrays(pa.array(offsets, mask=missing), pa.array(flat))
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat))


def _environment() -> dict[str, Any]:
    device = jax.devices()[0]
    return {
        "device": f"{device.platform} ({device.device_kind})",
        "num_devices": jax.local_device_count(),
        "dtype": jnp.zeros(()).dtype.name,
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("jaxmix", "jax", "jaxlib", "optax", "numpy")
        },
    }
