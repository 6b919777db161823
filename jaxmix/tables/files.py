"""From a file to the cells of its columns; what a file is, is told by its first bytes."""

from __future__ import annotations

import base64
import codecs
import dataclasses
import json
import lzma
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from jaxmix import arguments
from jaxmix.exceptions import InputError
from jaxmix.tables import separated
from jaxmix.tables.cells import Cells, as_declared, cells_from
from jaxmix.tables.source import Source, find

if TYPE_CHECKING:
    import pyarrow as pa

_PARQUET = b"PAR1"
_OTHERS = {
    b"PK\x03\x04": "a zip archive or an Excel workbook; unpack it, or save it as csv",
    b"\xd0\xcf\x11\xe0": "an Excel workbook; save it as csv",
    b"ARROW1": "an Arrow or Feather file; save it as parquet",
    b"\x89HDF": "an HDF5 file; save it as parquet",
    b"SQLite format 3": "a SQLite database; save the table as csv",
    b"<stata_dta": "a Stata file; save it as csv",
    b"$FL2": "an SPSS file; save it as csv",
    b"%PDF": "a PDF; save the table as csv",
    b"<!DOCTYPE": "a web page; save the table as csv",
    b"<html": "a web page; save the table as csv",
}
_WIDE = {
    b"\xff\xfe\x00\x00": "utf-32", b"\x00\x00\xfe\xff": "utf-32", b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}  # fmt: skip


def read_columns(
    path: str | os.PathLike[str],
    choose: Callable[[Sequence[str]], Sequence[str]],
    encoding: str | None = None,
) -> dict[str, Cells]:
    """Return some columns of a csv or parquet file.

    Parameters
    ----------
    path
        A file, perhaps compressed, or a pipe.
    choose
        Maps the names in the file to those that are wanted, or raises.
    encoding
        Of the text of a csv file; None for UTF-8.

    Raises
    ------
    InputError
        One line that names the file, what it is, and the remedy.
    """
    try:
        import pyarrow as pa
        import pyarrow.csv
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise InputError("reading files needs the extra 'io': pip install 'jaxmix[io]'") from None
    if encoding is not None:
        encoding = _checked(encoding)
    source, ending = find(path)
    try:
        head = source.head()
        if head.startswith(_PARQUET):
            return _parquet(source, choose, encoding)
        if ending in (".parquet", ".pq"):
            raise source.fail("its name says parquet, but it does not begin as one does")
        if encoding is None or encoding == "utf-8":
            _check_text(source, head, encoding)
        else:
            source = _transcoded(source, encoding)
        return separated.read(source, choose, "\t" if ending in (".tsv", ".tab") else ",")
    except (pa.ArrowException, OSError, EOFError, lzma.LZMAError, UnicodeDecodeError) as error:
        raise source.fail(str(error)) from None


def _checked(encoding: str) -> str:
    """Return the name that Python has for an encoding of text."""
    try:
        found = codecs.lookup(encoding)
        "".encode(encoding)
    except (LookupError, TypeError, ValueError):
        raise InputError(
            f"encoding (--encoding) is {arguments.told(encoding)}, which is not known; use utf-8, "
            "latin-1, cp1252, utf-16, shift_jis or another name that Python knows"
        ) from None
    return "utf-8" if found.name in ("utf-8", "utf-8-sig", "ascii") else found.name


def _check_text(source: Source, head: bytes, encoding: str | None) -> None:
    """Refuse what is no text in UTF-8, by how it begins."""
    for magic, what in _OTHERS.items():
        if head.startswith(magic):
            raise source.fail(f"it is {what}")
    wide = next((name for mark, name in _WIDE.items() if head.startswith(mark)), None)
    if wide is None and head[1:2] == b"\x00" and head[:1] != b"\x00":
        wide = "utf-16-le"
    elif wide is None and head[:1] == b"\x00" and head[1:2] > b"\x00" and head[2:3] == b"\x00":
        wide = "utf-16-be"
    if wide is not None:
        raise source.fail(
            f"it is text in {wide.upper()}, not utf-8: name the encoding by encoding={wide!r}, "
            f"--encoding {wide}"
        )
    if b"\x00" in head:
        raise source.fail("it holds binary data, and is not text in utf-8")


def _transcoded(source: Source, encoding: str) -> Source:
    data = source.content()
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise source.fail(
            f"it is no text in {encoding}: {error.reason}, line {line}; name its encoding by "
            "encoding=, --encoding"
        ) from None
    return Source(source.path, text.removeprefix("\ufeff").encode("utf-8", "replace"))


# ------------------------------------------------------------------------------------- parquet


def _parquet(
    source: Source, choose: Callable[[Sequence[str]], Sequence[str]], encoding: str | None
) -> dict[str, Cells]:
    import pyarrow as pa
    import pyarrow.parquet as reader

    stream = source.open() if source.packed is None else pa.BufferReader(source.content())
    with reader.ParquetFile(stream) as file:
        wanted = list(choose(file.schema_arrow.names))
        table = file.read(columns=wanted)
        declared = _declared(file.schema_arrow, file.metadata.metadata or {})
    cells = {name: _decoded(source, cells_from(name, table.column(name)), encoding)
             for name in wanted}  # fmt: skip
    return {name: as_declared(own) if name in declared else own for name, own in cells.items()}


def _declared(schema: pa.Schema, metadata: dict[bytes, bytes]) -> set[str]:
    """Return the columns that were categories when the file was written.

    Parquet itself has categories of text alone; what the others were stands beside them, as Arrow
    and pandas write it.
    """
    import pyarrow as pa

    found = set()
    if own := metadata.get(b"ARROW:schema"):
        schema = pa.ipc.read_schema(pa.BufferReader(base64.b64decode(own)))
        found = {field.name for field in schema if pa.types.is_dictionary(field.type)}
    try:
        columns = json.loads(metadata.get(b"pandas", b"{}")).get("columns", ())
        found |= {column["name"] for column in columns if column["pandas_type"] == "categorical"}
    except (ValueError, KeyError, TypeError, AttributeError):
        pass  # written by another program, in its own way
    return found


def _decoded(source: Source, cells: Cells, encoding: str | None) -> Cells:
    """Return cells with bytes decoded, where an encoding was named."""
    if encoding is None or not any(isinstance(cell, bytes) for cell in cells.distinct or ()):
        return cells
    try:
        texts = [c.decode(encoding) if isinstance(c, bytes) else c for c in cells.distinct or ()]
    except UnicodeDecodeError:
        raise source.fail(f"it holds bytes that are no text in {encoding}") from None
    return dataclasses.replace(cells, distinct=texts)
