"""From a file to the cells of its columns; what a file is, is told by its first bytes."""

from __future__ import annotations

import base64
import codecs
import csv
import dataclasses
import io
import json
import lzma
import os
import pathlib
import re
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jaxmix.status import InputError
from jaxmix.tables.cells import Cells, as_declared, cells_from

_HEAD = 1 << 20  # bytes within which the header row ends
_BLOCK = 1 << 24  # bytes that the csv reader looks at together; a row has to fit into it
_PARQUET = b"PAR1"
_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ\x00": "xz",
           b"\x04\x22\x4d\x18": "lz4"}  # fmt: skip
_ENDINGS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".xz": "xz", ".lz4": "lz4"}
_OTHERS = {
    b"PK\x03\x04": "a zip archive or an Excel workbook; unpack it, or save it as csv",
    b"\xd0\xcf\x11\xe0": "an Excel workbook; save it as csv",
    b"ARROW1": "an Arrow or Feather file; save it as parquet",
    b"\x89HDF": "an HDF5 file; save it as parquet",
    b"SQLite": "a SQLite database; save the table as csv",
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


@dataclasses.dataclass(frozen=True)
class _Source:
    """A file, or what was read from a pipe: opened anew for each pass."""

    path: str
    data: bytes | None = None
    packed: str | None = None

    def open(self) -> Any:
        """Return an Arrow stream of its content, unpacked."""
        import pyarrow as pa

        raw = pa.memory_map(self.path) if self.data is None else pa.BufferReader(self.data)
        if self.packed is None:
            return raw
        if self.packed == "xz":
            return pa.PythonFile(lzma.open(raw))
        return pa.CompressedInputStream(raw, self.packed)

    def chunks(self) -> Iterator[bytes]:
        """Yield its content piece by piece."""
        with self.open() as stream:
            while piece := stream.read(_BLOCK):
                yield piece

    def content(self) -> bytes:
        """Return its content."""
        return b"".join(self.chunks())

    def head(self) -> bytes:
        """Return how it begins."""
        with self.open() as stream:
            return bytes(stream.read(_HEAD))

    def fail(self, reason: str) -> InputError:
        """Return the error of a file that is no table, in one printable line."""
        reason = " ".join(reason.split())[:200]
        reason = "".join(c if c.isprintable() else "?" for c in reason)
        return InputError(
            f"the file {self.path!r} cannot be read as a table ({reason}); "
            "give a csv or parquet file with one header row"
        )


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
    source, ending = _source(path)
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
        return _csv(source, choose, "\t" if ending in (".tsv", ".tab") else ",")
    except (pa.ArrowException, OSError, EOFError, lzma.LZMAError, UnicodeDecodeError) as error:
        raise source.fail(str(error)) from None


def _source(path: str | os.PathLike[str]) -> tuple[_Source, str]:
    """Return the file and how its name ends, compression left out, in lower case."""
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"path is {path!r}: give the name of a csv or parquet file")
    place = pathlib.Path(path)
    if str(place).startswith("~") and not place.exists():
        try:
            place = place.expanduser()
        except RuntimeError:
            raise InputError(f"there is no home folder for {str(path)!r}") from None
    name = str(place)
    if place.is_dir():
        raise InputError(f"{name!r} is a folder; give a csv or parquet file")
    try:
        kind = place.stat().st_mode
    except (OSError, ValueError):
        raise InputError(f"there is no file {name!r}; check the path") from None
    if stat.S_ISCHR(kind) or stat.S_ISBLK(kind):
        raise InputError(f"{name!r} is a device; give a csv or parquet file, or a pipe")
    data = None
    try:
        if not stat.S_ISREG(kind):
            data = place.read_bytes()  # a pipe can be read once
        with place.open("rb") if data is None else io.BytesIO(data) as stream:
            begin = stream.read(16)
    except OSError as error:
        raise InputError(f"the file {name!r} cannot be read ({error.strerror})") from None
    if not begin:
        raise InputError(f"the file {name!r} is empty")
    packed = next((kind for magic, kind in _PACKED.items() if begin.startswith(magic)), None)
    source = _Source(name, data, packed)
    ending, claimed = place.suffix.lower(), None
    if ending in _ENDINGS:
        claimed, ending = _ENDINGS[ending], pathlib.Path(place.stem).suffix.lower()
    if claimed and not packed:
        raise source.fail(f"its name says {claimed}, but it is not compressed that way")
    return source, ending


def _checked(encoding: str) -> str:
    """Return the name that Python has for an encoding of text."""
    try:
        found = codecs.lookup(encoding)
        "".encode(encoding)
    except (LookupError, TypeError, ValueError):
        raise InputError(
            f"encoding (--encoding) is {encoding!r}, which is not known; use utf-8, latin-1, "
            "cp1252, utf-16, shift_jis or another name that Python knows"
        ) from None
    return "utf-8" if found.name in ("utf-8", "utf-8-sig", "ascii") else found.name


def _check_text(source: _Source, head: bytes, encoding: str | None) -> None:
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


def _transcoded(source: _Source, encoding: str) -> _Source:
    data = source.content()
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise source.fail(
            f"it is no text in {encoding}: {error.reason}, line {line}; name its encoding by "
            "encoding=, --encoding"
        ) from None
    return _Source(source.path, text.removeprefix("\ufeff").encode("utf-8", "replace"))


# ----------------------------------------------------------------------------------------- csv


def _csv(
    source: _Source, choose: Callable[[Sequence[str]], Sequence[str]], separator: str
) -> dict[str, Cells]:
    import pyarrow as pa
    import pyarrow.csv as reader

    stored = _header(source, separator)
    wanted = _chosen(stored, choose, separator)
    converting = reader.ConvertOptions(
        include_columns=wanted,
        column_types=dict.fromkeys(wanted, pa.large_string()),
        null_values=[],
        strings_can_be_null=False,
    )
    parsing = reader.ParseOptions(delimiter=separator, newlines_in_values=True)
    block = _BLOCK
    while True:
        reading = reader.ReadOptions(block_size=block)
        try:
            with source.open() as stream:
                table = reader.read_csv(
                    stream, read_options=reading, parse_options=parsing, convert_options=converting
                )
            break
        except pa.ArrowInvalid as error:
            if "straddl" in str(error) and block < 1 << 30:
                block *= 8  # one row is longer than that
                continue
            if "UTF8" in str(error):
                raise _not_utf8(source, stored, separator) from None
            raise
    _check_quotes(source, separator)
    return {
        name: dataclasses.replace(cells_from(name, table.column(name)), untyped=True)
        for name in wanted
    }


def _header(source: _Source, separator: str) -> list[str]:
    head = source.head().removeprefix(codecs.BOM_UTF8)
    text = head.decode("utf-8", "surrogateescape")
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        names = next((row for row in rows if row), [])
    except csv.Error as error:
        raise source.fail(str(error)) from None
    if not names:
        raise source.fail("it has no header")
    strange = [name for name in names if re.search("[\udc80-\udcff]", name)]
    if strange:
        raise source.fail(
            f"its header is not utf-8 ({strange[0].encode('utf-8', 'surrogateescape')!r}): name "
            "the encoding by encoding='latin-1', --encoding latin-1, or another"
        )
    return names


def _chosen(
    stored: Sequence[str], choose: Callable[[Sequence[str]], Sequence[str]], separator: str
) -> list[str]:
    """Return the wanted names; where they are not there, say what the file is separated by."""
    try:
        return list(choose(stored))
    except InputError as error:
        line = separator.join(stored)
        others = {";": "semicolons", "\t": "tabs", "|": "bars", ",": "commas"}
        counts = {mark: line.count(mark) for mark in others if mark != separator}
        mark = max(counts, key=lambda mark: counts[mark])
        if len(stored) > 2 or not counts[mark]:
            raise
        raise InputError(
            f"{error}: the file looks separated by {others[mark]}; write it with commas, for "
            f"instance by pandas.read_csv(..., sep={mark!r}).to_csv(...)"
        ) from None


def _not_utf8(source: _Source, stored: Sequence[str], separator: str) -> InputError:
    """Return the error for bytes that are not UTF-8, with their line and column."""
    data = source.content()
    try:
        data.decode()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n")
        text = data.split(b"\n")[line].decode("utf-8", "surrogateescape")
        cells = next(csv.reader([text], delimiter=separator), [])
        column = ""
        if len(cells) == len(stored):
            column = next(
                (f" in column {name!r}" for name, cell in zip(stored, cells, strict=True)
                 if re.search("[\udc80-\udcff]", cell)), "",
            )  # fmt: skip
        return source.fail(
            f"it is not utf-8: byte 0x{data[error.start]:02x} in line {line + 1}{column}; name "
            "its encoding by encoding='latin-1', --encoding latin-1, or another"
        )
    return source.fail("it is not utf-8")


def _check_quotes(source: _Source, separator: str) -> None:
    """Refuse a quote that is never closed, behind which all rows are one cell."""
    if sum(piece.count(b'"') for piece in source.chunks()) % 2 == 0:
        return
    limit = csv.field_size_limit(sys.maxsize)
    begun = 1
    try:
        text = io.StringIO(source.content().decode("utf-8", "replace"), newline="")
        rows = csv.reader(text, delimiter=separator, strict=True)
        for _ in rows:
            begun = rows.line_num + 1
    except csv.Error as error:
        if "end of data" in str(error):
            raise source.fail(f"a quote in line {begun} is never closed") from None
    finally:
        csv.field_size_limit(limit)


# ------------------------------------------------------------------------------------- parquet


def _parquet(
    source: _Source, choose: Callable[[Sequence[str]], Sequence[str]], encoding: str | None
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


def _declared(schema: Any, metadata: dict[bytes, bytes]) -> set[str]:
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


def _decoded(source: _Source, cells: Cells, encoding: str | None) -> Cells:
    """Return cells with bytes decoded, where an encoding was named."""
    if encoding is None or not any(isinstance(cell, bytes) for cell in cells.distinct or ()):
        return cells
    try:
        texts = [c.decode(encoding) if isinstance(c, bytes) else c for c in cells.distinct or ()]
    except UnicodeDecodeError:
        raise source.fail(f"it holds bytes that are no text in {encoding}") from None
    return dataclasses.replace(cells, distinct=texts)
