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
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NotRequired, TypedDict, TypeGuard

import jax
import jax.numpy as jnp

from jaxmix.report.files import write_whole
from jaxmix.status import InputError
from jaxmix.study.configuration.config import Cell, Config
from jaxmix.study.tables import VECTORS, TableWriter, parquet, reading
from jaxmix.types import Json

try:
    import fcntl
except ModuleNotFoundError:  # no such locks on this system: one process for each folder there
    fcntl = None  # type: ignore[assignment]

_SCHEMA = 1
_ALWAYS = {
    "estimator", "replicate", "status", "ate", "error", *VECTORS, "true_ate", "true_effects",
    "true_shares",
}  # fmt: skip
_SHOWN = (".csv", ".png", ".pdf", ".svg")  # what summaries and figures end in


class Ran(TypedDict, total=False):
    """How a cell was computed."""

    factors: dict[str, Json]
    seconds: float
    replicates_per_second: float
    device: str
    num_devices: int
    dtype: str
    finished: str
    versions: dict[str, str]


class Manifest(TypedDict):
    """What a folder says of its study."""

    schema: int
    name: str
    seed: NotRequired[int]
    config: NotRequired[dict[str, Json]]
    planned: list[str]
    cells: dict[str, Ran]


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
        self._made_before = self._is_made_before()

    def _is_made_before(self) -> bool:
        """Whether the tables are of earlier solvers: they are read, and none is added to them."""
        cells = self.config.cells
        earlier = {cell.hash_before for cell in cells} - {cell.hash for cell in cells}
        content = self._content() if earlier else None
        planned = set(content["planned"]) if _is_manifest(content) else set()
        tables = (str(self.folder / "replicates" / f"{name}.parquet") for name in earlier)
        return bool(earlier & planned) or any(map(os.path.isfile, tables))

    @property
    def manifest_path(self) -> pathlib.Path:
        """Where the manifest is."""
        return self.folder / "manifest.json"

    @property
    def summary_path(self) -> pathlib.Path:
        """Where the summary is."""
        return self.folder / "summary.csv"

    def name_of(self, cell: Cell) -> str:
        """Return the name of a cell in this folder."""
        return cell.hash_before if self._made_before else cell.hash

    def table_path(self, cell: Cell) -> pathlib.Path:
        """Where the replicates of a cell are."""
        return self.folder / "replicates" / f"{self.name_of(cell)}.parquet"

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
            if self._holds_other_files():
                raise InputError(
                    f"the folder {str(self.folder)!r} holds other files and no study; "
                    "name an empty folder by --out"
                )
            self._check_tables()
            return
        before = self.manifest()
        if before["name"] != self.config.name:
            raise InputError(
                f"the folder {str(self.folder)!r} holds the study {before['name']!r}, not "
                f"{self.config.name!r}; name another folder by --out"
            )
        known = {name for cell in self.config.cells for name in (cell.hash, cell.hash_before)}
        strange = set(before["planned"]) - known
        if strange:
            raise InputError(
                f"the folder {str(self.folder)!r} holds {len(strange)} cells that "
                f"{before['name']!r} does not have now: its seed, estimators, replicates or "
                "factors were changed; name another folder by --out"
            )
        self._check_tables()

    def _holds_other_files(self) -> bool:
        """Whether a folder without a manifest is somebody else's.

        One in the making has locks and partial files only, and their folders. One whose manifest
        was lost has this study's tables, and what was made of them.
        """
        found = [p.relative_to(self.folder).parts for p in self.folder.rglob("*")]
        visible = {p for p in found if not any(part.startswith(".") for part in p)}
        tables = {("replicates", self.table_path(cell).name) for cell in self.config.cells}
        others = visible - {("replicates",)} - tables
        if visible & tables:
            others = {p for p in others if len(p) > 1 or not p[0].endswith(_SHOWN)}
        return bool(others)

    def _check_tables(self) -> None:
        """Refuse tables that are not whole, by what stands at their ends."""
        rows = self.config.num_replicates * len(self.config.estimators)
        for cell in self.config.cells:
            path = self.table_path(cell)
            if not path.exists():
                continue
            with reading(path), parquet().parquet.ParquetFile(path) as file:
                if file.metadata.num_rows != rows:
                    raise ValueError(f"{file.metadata.num_rows} rows instead of {rows}")
                if missing := _ALWAYS - set(file.schema_arrow.names):
                    raise ValueError(f"it has no column {sorted(missing)[0]!r}")

    def open(self) -> None:
        """Make the folder and note down what runs.

        Raises
        ------
        InputError
            As `check`; and for tables that earlier solvers made, which are not mixed with new ones.
        """
        self.check()
        if self._made_before:
            raise InputError(
                f"the folder {str(self.folder)!r} holds tables that an earlier version of an "
                f"estimator of {self.config.name!r} made; they can be summarized and drawn, and "
                "are not added to: name another folder by --out"
            )
        try:
            (self.folder / "replicates").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"the folder {str(self.folder)!r} cannot be made ({error.strerror}); "
                "name another by --out"
            ) from None
        with self._locked("manifest"):
            cells = self.manifest()["cells"] if self.manifest_path.is_file() else {}
            self._write_manifest({
                "schema": _SCHEMA,
                "name": self.config.name,
                "seed": self.config.seed,
                "config": dict(self.config.raw),
                "planned": [cell.hash for cell in self.config.cells],
                "cells": cells,
            })  # fmt: skip

    def manifest(self) -> Manifest:
        """Read the manifest."""
        content = self._content()
        if not _is_manifest(content):
            raise InputError(
                f"{str(self.manifest_path)!r} is no manifest of a study, or is cut short; if this "
                "is the study's folder, delete that file and run the study again (its tables are "
                "kept), else name another folder by --out"
            )
        return content

    def _content(self) -> object:
        """Return what the manifest holds; None where there is none, or no JSON."""
        try:
            content: object = json.loads(self.manifest_path.read_text())
        except (OSError, ValueError):
            return None
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

    def _write_manifest(self, content: Manifest) -> None:
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


def _is_manifest(content: object) -> TypeGuard[Manifest]:
    """Whether a file holds all that is read of a manifest."""
    if not isinstance(content, dict) or not {"schema", "name", "planned", "cells"} <= set(content):
        return False
    planned, cells = content["planned"], content["cells"]
    return (
        isinstance(planned, list)
        and all(isinstance(cell, str) for cell in planned)
        and isinstance(cells, dict)
        and all(isinstance(cell, dict) for cell in cells.values())
    )


def _environment() -> Ran:
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
