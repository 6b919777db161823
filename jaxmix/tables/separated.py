"""Text separated by commas or tabs, to the cells of its columns: all of it text as yet."""

from __future__ import annotations

import codecs
import csv
import io
import re
import sys
from collections.abc import Callable, Sequence

from jaxmix.exceptions import InputError
from jaxmix.tables.cells import Cells, cells_from
from jaxmix.tables.source import HEAD, Source

_BLOCK = 1 << 24  # bytes that the csv reader looks at together; a row has to fit into it
_LARGE = 1 << 28  # bytes up to which all quotes are looked at


def read(
    source: Source, choose: Callable[[Sequence[str]], Sequence[str]], separator: str
) -> dict[str, Cells]:
    """Return the wanted columns of separated text, every cell as it is written."""
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
    return {name: cells_from(name, table.column(name), untyped=True) for name in wanted}


def _header(source: Source, separator: str) -> list[str]:
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


def _not_utf8(source: Source, stored: Sequence[str], separator: str) -> InputError:
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


def _check_quotes(source: Source, separator: str) -> None:
    """Refuse a quote that is not closed in its cell, behind which whole rows would be one cell."""
    quotes = size = 0
    for piece in source.chunks():
        quotes, size = quotes + piece.count(b'"'), size + len(piece)
    if quotes == 0 or (quotes % 2 == 0 and size > _LARGE):
        return
    limit = csv.field_size_limit(sys.maxsize)
    begun = line = 0
    try:
        with source.open() as stream:
            raw = io.BufferedReader(stream, HEAD)
            text = io.TextIOWrapper(raw, "utf-8", "replace", newline="")
            rows = csv.reader(text, delimiter=separator, strict=True)
            try:
                for _ in rows:
                    begun = rows.line_num
            finally:
                line = rows.line_num
    except csv.Error as error:
        # Within a line, what stands behind a quote is a matter of taste, and part of the cell.
        if line > begun + 1 or "end of data" in str(error):
            raise source.fail(f"a quote in line {begun + 1} is not closed in its cell") from None
    finally:
        csv.field_size_limit(limit)
