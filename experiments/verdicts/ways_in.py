"""One table through every way in: files of several kinds, frames of several libraries, dicts."""

from __future__ import annotations

import bz2
import csv
import dataclasses
import datetime
import decimal
import gzip
import io
import lzma
import os
import pathlib
import random
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

import jaxmix as jm


@dataclasses.dataclass
class Note:
    """A column without a role."""

    cells: list[Any]
    declared: bool = False


Load = Callable[[dict[str, Any]], jm.CausalData]


TYPELESS = (
    "rows.csv", "marked.CSV", "tabs.tsv", "wide.csv", "latin.csv", "rows.csv.gz", "rows.csv.xz",
    "packed.DATA", "large.csv, line breaks", "a pipe",
)  # fmt: skip
"""Ways in which all is text, and nothing is meant by that."""


def ways(columns: Mapping[str, Any], folder: pathlib.Path, seed: int) -> dict[str, Load]:
    """Return functions of the roles that read a table, by the name of the way."""
    frames = {
        "dict of lists": lambda: {n: declared(c, c.cells) for n, c in columns.items()},
        "dict of object arrays": lambda: {n: objects(c) for n, c in columns.items()},
        "dict of texts": lambda: {n: declared(c, texts(c)) for n, c in columns.items()},
        "pandas objects": lambda: pd.DataFrame({n: objects(c) for n, c in columns.items()}),
        "pandas": lambda: pd.DataFrame({n: pandas(c) for n, c in columns.items()}),
        "pandas nullable": lambda: pd.DataFrame({n: nullable(c) for n, c in columns.items()}),
        "pandas on arrow": lambda: pd.DataFrame(
            {n: pd.Series(arrow(c), dtype=pd.ArrowDtype(arrow(c).type)) for n, c in columns.items()}
        ),
        "polars": lambda: pl.DataFrame({n: polars(c) for n, c in columns.items()}),
        "arrow": lambda: pa.table({n: arrow(c) for n, c in columns.items()}),
        "arrow in chunks": lambda: chunks({n: arrow(c) for n, c in columns.items()}),
        "arrow from polars": lambda: frames["polars"]().to_arrow(),
    }
    found: dict[str, Load] = {
        name: lambda roles, make=make: jm.CausalData.from_frame(make(), **roles)
        for name, make in frames.items()
    }
    files: dict[str, Callable[[pathlib.Path], Any]] = {
        "rows.parquet": lambda path: pq.write_table(frames["arrow"](), path),
        "polars.PARQUET": lambda path: frames["polars"]().write_parquet(path),
        "pandas.pq": lambda path: frames["pandas on arrow"]().to_parquet(path),
        "parquet.csv": lambda path: pq.write_table(frames["arrow"](), path),
    }
    for name, write in files.items():
        found[name] = lambda roles, name=name, write=write: filed(folder / name, write, roles)
    if any(column.declared for column in columns.values()):
        return found  # a csv file cannot declare
    rng = random.Random(seed)
    end = rng.choice(("\n", "\r\n"))
    text = rows(columns, ",", end)
    written: dict[str, tuple[Callable[[], bytes], str | None]] = {
        "rows.csv": (text.encode, None),
        "marked.CSV": (lambda: text.encode("utf-8-sig"), None),
        "tabs.tsv": (rows(columns, "\t", end).encode, None),
        "wide.csv": (lambda: text.encode("utf-16"), "utf-16"),
        "latin.csv": (lambda: text.encode("latin-1"), "latin-1"),
        "rows.csv.gz": (lambda: gzip.compress(text.encode()), None),
        "rows.csv.xz": (lambda: lzma.compress(text.encode()), None),
        "packed.DATA": (lambda: bz2.compress(text.encode()), None),
    }
    for name, (content, encoding) in written.items():
        found[name] = lambda roles, name=name, content=content, encoding=encoding: filed(
            folder / name, lambda path: path.write_bytes(content()), roles, encoding
        )
    if seed % 10 == 5:
        n = len(next(iter(columns.values())).cells)
        noted = dict(columns) | {"note": Note(['one\ntwo, "three"\n\n' * (75_000 // n)] * n)}
        found["large.csv, line breaks"] = lambda roles: filed(
            folder / "large.csv", lambda path: path.write_text(rows(noted, ",", end)), roles
        )
    if seed % 10 == 0:
        found["a pipe"] = lambda roles: piped(folder / "pipe", text.encode(), roles)
    return found


def filed(
    path: pathlib.Path, write: Callable[[pathlib.Path], Any], roles: dict[str, Any],
    encoding: str | None = None,
) -> jm.CausalData:  # fmt: skip
    """Write a file and read it."""
    write(path)
    return jm.read(path, encoding=encoding, **roles)


def piped(path: pathlib.Path, content: bytes, roles: dict[str, Any]) -> jm.CausalData:
    """Read what another thread writes into a pipe."""
    os.mkfifo(path)
    writer = threading.Thread(target=lambda: path.write_bytes(content))
    writer.start()
    try:
        return jm.read(path, **roles)
    finally:
        writer.join()


def rows(columns: Mapping[str, Any], separator: str, end: str) -> str:
    """Return the table as separated text."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=separator, lineterminator=end)
    writer.writerow(columns)
    writer.writerows(zip(*(["" if c is None else c for c in texts(column)]
                           for column in columns.values()), strict=True))  # fmt: skip
    return out.getvalue()


def texts(column: Any) -> list[str | None]:
    """Return the cells as text, the way programs write them."""
    return [cell if cell is None or isinstance(cell, str) else
            cell.isoformat() if isinstance(cell, datetime.date) else
            f"{cell:f}" if isinstance(cell, decimal.Decimal) else
            repr(cell) for cell in column.cells]  # fmt: skip


def kind(column: Any) -> type:
    """Return the type of the cells; text where they have several."""
    kinds = {type(cell) for cell in column.cells if cell is not None}
    return kinds.pop() if len(kinds) == 1 else str


def declared(column: Any, cells: list[Any]) -> Any:
    """Return cells, or a categorical where the column is to be one."""
    return pd.Categorical(cells) if column.declared else cells


def objects(column: Any) -> Any:
    """Return the cells as they are in an array of objects."""
    if column.declared:
        return pd.Categorical(column.cells)
    array = np.empty(len(column.cells), object)
    array[:] = column.cells
    return array


def pandas(column: Any) -> Any:
    """Return what pandas makes of the cells, where it does not lose any digits by itself."""
    if column.declared:
        return pd.Categorical(column.cells)
    loses = None in column.cells or kind(column) is not int
    return pd.Series(column.cells, dtype=object if loses and kind(column) is not float else None)


def nullable(column: Any) -> Any:
    """Return the cells in the types of pandas that know missing cells."""
    if column.declared:
        return pd.Categorical(column.cells)
    own = kind(column)
    names = {bool: "boolean", float: "Float64", str: "string"}
    name = whole_type(column) if own is int else names.get(own)
    cells = texts(column) if own is str else column.cells
    named = {"int64": "Int64", "uint64": "UInt64"}.get(str(name), name)
    return pd.Series(cells, dtype=named) if named else pd.Series(cells, dtype=object)


def whole_type(column: Any) -> str | None:
    """Return the type that holds the whole numbers, if there is one."""
    known = [cell for cell in column.cells if cell is not None]
    if min(known) >= -(2**63) and max(known) < 2**63:
        return "int64"
    return "uint64" if min(known) >= 0 and max(known) < 2**64 else None


def arrow(column: Any) -> Any:
    """Return the cells as an Arrow array."""
    own = kind(column)
    if own is int and (name := whole_type(column)):
        array = pa.array(column.cells, name)
    elif own is int:
        cells = [None if cell is None else decimal.Decimal(cell) for cell in column.cells]
        array = pa.array(cells, pa.decimal128(38, 0))
    else:
        array = pa.array(texts(column) if own is str else column.cells)
    return array.dictionary_encode() if column.declared else array


def chunks(arrays: dict[str, Any]) -> Any:
    """Return a table in two chunks."""
    table = pa.table(arrays)
    return pa.concat_tables([table.slice(0, 7), table.slice(7)])


def polars(column: Any) -> Any:
    """Return the cells as a column of polars."""
    own = kind(column)
    if column.declared:
        cells = texts(column)
        return pl.Series(cells, dtype=pl.Enum(sorted({cell for cell in cells if cell is not None})))
    if own is int and (name := whole_type(column)):
        return pl.Series(column.cells, dtype=pl.Int64 if name == "int64" else pl.UInt64)
    if own is int or (own is decimal.Decimal and max(map(abs, known(column))) > 2**62):
        cells = [None if cell is None else decimal.Decimal(cell) for cell in column.cells]
        return pl.Series(cells, dtype=pl.Decimal(38, 0))
    return pl.Series(texts(column) if own is str else column.cells)


def known(column: Any) -> list[Any]:
    """Return the cells that are there."""
    return [cell for cell in column.cells if cell is not None]
