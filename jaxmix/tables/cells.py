"""The cells of one column of any frame: numbers as they are stored, or distinct cells with codes.

Nothing is read here as something else: whole numbers stay whole, missing cells are told apart
from the numbers that a library puts in their place, and a declared category is known as one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np

from jaxmix.exceptions import InputError

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

# Numbers without leading zeros or blanks, and the types of Arrow that hold them without loss.
_PLAIN = (
    ("^(0|-?[1-9][0-9]{0,19})$", ("int64", "uint64")),
    ("^-?(0|[1-9][0-9]{0,14})([.][0-9]+)?(e[+-]?[0-9]{1,3})?$", ("float64",)),
)


@dataclasses.dataclass(frozen=True, eq=False)
class Cells:
    """One column as it comes.

    Attributes
    ----------
    values
        ``(n,)`` numbers or times of a numpy type, or int64 codes of `distinct`.
    present
        ``(n,)``, False where the table itself says that the cell is missing.
    distinct
        The different cells that the codes stand for; None where `values` are the cells.
    declared
        Whether the table declares the column to be categories.
    untyped
        Whether the column comes from a file that has no types, in which all is text.
    """

    values: np.ndarray
    present: np.ndarray
    distinct: list[object] | None = None
    declared: bool = False
    untyped: bool = False

    def __len__(self) -> int:
        return len(self.values)


def names_of(frame: object) -> list[str]:
    """Return the column names of any supported table."""
    if isinstance(frame, Mapping):
        return list(frame)
    given = not isinstance(frame, type)  # a class of tables has columns too, but no rows
    names = getattr(frame, "column_names", None) if given else None  # Arrow
    if names is None and given and not hasattr(frame, "collect"):  # a lazy frame has no rows yet
        names = getattr(frame, "columns", None)  # pandas, polars
    if names is None:
        raise InputError(
            f"the table is a {type(frame).__name__}: give a dict of arrays, or a pandas, polars "
            "or Arrow table"
        )
    return list(names)


class _Table(Protocol):
    def __getitem__(self, name: str, /) -> object: ...


def cells_of(frame: object, name: str) -> Cells:
    """Return the cells of one column of any supported table."""
    if not isinstance(frame, Mapping) and hasattr(frame, "column_names"):
        arrow = cast("pa.Table", frame)
        return cells_from(name, arrow.column(name))
    return cells_from(name, cast(_Table, frame)[name])


def cells_from(name: str, column: object, *, untyped: bool = False) -> Cells:
    """Return the cells of a list, an array, or a column of pandas, polars or Arrow.

    With `untyped` the column is text because all is, and plain numbers in it are numbers.
    """
    if isinstance(column, Cells):
        return column
    library = type(column).__module__.partition(".")[0]
    if library == "pyarrow":
        cells = _from_arrow(name, column, untyped)
        return dataclasses.replace(cells, untyped=untyped)
    if library == "pandas":
        return _from_pandas(name, column)
    if library == "polars" and hasattr(column, "is_null"):
        return _from_polars(name, cast("pl.Series", column))
    if isinstance(column, np.ma.MaskedArray):
        _check_shape(name, column)
        return _from_values(name, np.asarray(column.data), ~np.ma.getmaskarray(column))
    try:
        values = np.asarray(column)
    except ValueError:
        raise InputError(
            f"column {name!r} is ragged: a column is a one-dimensional array"
        ) from None
    _check_shape(name, values)
    if isinstance(column, (list, tuple)) and (
        values.dtype.kind in "USc" or (values.dtype.kind == "f" and _loses_digits(values))
    ):
        # A list of several types is turned into one of them: numbers into text, or whole numbers
        # into floats, beside a NaN for one.
        values = np.empty(len(column), object)
        values[:] = column
    return _from_values(name, values, np.ones(len(values), bool))


def _check_shape(name: str, values: np.ndarray | pd.Series) -> None:
    if values.ndim != 1:
        raise InputError(
            f"column {name!r} has shape {values.shape}: a column is a one-dimensional array"
        )


def _loses_digits(values: np.ndarray) -> bool:
    return bool((np.abs(values) >= 2.0**53).any())


def _from_values(name: str, values: np.ndarray, present: np.ndarray) -> Cells:
    """Return cells of a numpy array, whose masked cells may hold anything."""
    if values.dtype.kind in "biufmM":
        return Cells(values, present)
    if values.dtype.kind not in "OUST":
        raise InputError(f"column {name!r} has type {values.dtype}; use numbers or text")
    return coded(name, values.tolist(), present)


def coded(name: str, cells: Iterable[object], present: np.ndarray, declared: bool = False) -> Cells:
    """Return cells as codes of the distinct ones, in the order in which they first occur."""
    index: dict[object, int] = {}
    codes = np.zeros(len(present), np.int64)
    known = present.copy()
    for row, cell in enumerate(cells):
        if not present[row]:
            continue
        if is_missing(cell):
            known[row] = False
            continue
        try:
            codes[row] = index.setdefault(cell, len(index))
        except TypeError:  # a list, an array, a dict
            raise strange(name, cell) from None
    return Cells(codes, known, list(index), declared)


def is_missing(cell: object) -> bool:
    """Whether a cell is None, a NaN of any type, or pandas' NA or NaT."""
    if cell is None or type(cell).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(cell, (str, bytes, int)):
        return False
    if isinstance(cell, np.datetime64 | np.timedelta64):
        return bool(np.isnat(cell))
    try:
        return bool(cell != cell)
    except (TypeError, ValueError, ArithmeticError):  # arrays; a signalling NaN
        return type(cell).__name__ == "Decimal"


def strange(name: str, cell: object) -> InputError:
    """Return the error for a cell that is neither a number nor a text."""
    shown = " ".join(repr(cell).split())[:60]
    return InputError(
        f"column {name!r} holds a {type(cell).__name__} ({shown}); use numbers or text"
    )


# ------------------------------------------------------------------------------------- libraries


def _from_pandas(name: str, column: pd.Series) -> Cells:
    _check_shape(name, column)
    kind = column.dtype
    array = getattr(column, "array", column)
    if hasattr(kind, "pyarrow_dtype"):
        import pyarrow as pa

        return _from_arrow(name, pa.array(array))
    if hasattr(kind, "categories"):
        codes = np.asarray(array.codes, np.int64)
        return _declared(name, codes, codes >= 0, list(kind.categories))
    present = ~np.asarray(array.isna() if hasattr(array, "isna") else column.isna(), bool)
    if present.all() or isinstance(kind, np.dtype):
        return _from_values(name, column.to_numpy(), present)
    # Whole numbers beside missing cells: those that are there, as they are stored.
    known = np.asarray(column[present].to_numpy())
    return _spread(name, known, present)


def _spread(name: str, known: np.ndarray, present: np.ndarray) -> Cells:
    """Return cells of which the values that are present stand one after the other."""
    cells = _from_values(name, known, np.ones(len(known), bool))
    values = np.zeros(len(present), cells.values.dtype)
    values[present] = cells.values
    there = present.copy()
    there[present] = cells.present
    return dataclasses.replace(cells, values=values, present=there)


def _from_polars(name: str, column: pl.Series) -> Cells:
    present = ~column.is_null().to_numpy()
    known = column.drop_nulls()
    kind = str(column.dtype)
    if kind.startswith(("Categorical", "Enum")):
        index: dict[object, int] = {}
        codes = np.zeros(len(present), np.int64)
        codes[present] = [index.setdefault(cell, len(index)) for cell in known.to_list()]
        return _declared(name, codes, present, list(index))
    if kind == "Null":
        return Cells(np.full(len(present), np.nan), present)
    if kind.startswith(("Decimal", "Int128", "UInt128", "Object", "Time")):
        values = np.empty(len(known), object)
        values[:] = known.to_list()
    else:
        values = known.to_numpy()
    _check_shape(name, values)
    return _spread(name, values, present)


def _from_arrow(name: str, column: pa.Array | pa.ChunkedArray, untyped: bool = False) -> Cells:
    import pyarrow as pa
    import pyarrow.compute as pc

    types = pa.types
    view = getattr(types, "is_string_view", lambda _: False)
    if types.is_string(column.type) or view(column.type):
        column = column.cast(pa.large_string())  # the chunks together may be too long for another
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks() if column.num_chunks else pa.array([], column.type)
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    kind = column.type
    present = np.asarray(pc.is_valid(column).to_numpy(zero_copy_only=False), bool)
    if types.is_dictionary(kind):
        codes = column.indices.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
        return _declared(name, codes, present, column.dictionary.to_pylist())
    if types.is_null(kind):
        return Cells(np.full(len(present), np.nan), present)
    if types.is_integer(kind) or types.is_boolean(kind):
        filler = False if types.is_boolean(kind) else 0
        return Cells(column.fill_null(filler).to_numpy(zero_copy_only=False), present)
    if types.is_floating(kind) or types.is_timestamp(kind) or types.is_duration(kind):
        return Cells(column.to_numpy(zero_copy_only=False), present)
    if types.is_date(kind):
        return Cells(column.cast(pa.timestamp("ms")).to_numpy(zero_copy_only=False), present)
    if types.is_large_string(kind):
        return (untyped and _from_numbers(column)) or _from_text(column, present)
    if types.is_decimal(kind) or types.is_time(kind):
        return coded(name, column.to_pylist(), present)
    return _from_values(name, column.to_numpy(zero_copy_only=False), present)


def _from_numbers(column: pa.Array) -> Cells | None:
    """Return the cells of an Arrow column of text that holds plain numbers alone, else None.

    Most large columns are that, and Arrow turns them into numbers at once; the rules for distinct
    cells take them in the same way.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    filled = pc.if_else(pc.equal(column, ""), None, column)
    there = np.asarray(pc.is_valid(filled).to_numpy(zero_copy_only=False), bool)
    for pattern, kinds in _PLAIN:
        if not there.any() or not pc.all(pc.match_substring_regex(filled, pattern)).as_py():
            continue
        for kind in kinds:
            try:
                numbers = pc.cast(filled, kind)
            except pa.ArrowInvalid:
                continue  # more digits than the type holds
            return Cells(numbers.fill_null(0).to_numpy(zero_copy_only=False), there)
    return None


def _from_text(column: pa.Array, present: np.ndarray) -> Cells:
    packed = column.dictionary_encode()
    codes = packed.indices.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    return Cells(codes, present, packed.dictionary.to_pylist())


def _declared(name: str, codes: np.ndarray, present: np.ndarray, categories: list[object]) -> Cells:
    """Return cells of declared categories, whose codes count where present."""
    absent = [code for code, category in enumerate(categories) if is_missing(category)]
    if absent:
        present = present & ~np.isin(codes, absent)
    return Cells(np.where(present, codes, 0), present, categories, declared=True)


def as_declared(cells: Cells) -> Cells:
    """Return cells as declared categories."""
    if cells.distinct is not None:
        return dataclasses.replace(cells, declared=True)
    present = cells.present
    if cells.values.dtype.kind in "mM":
        return cells  # dates, which are no numbers
    if cells.values.dtype.kind == "f":
        present = present & ~np.isnan(cells.values)
    distinct, codes = np.unique(
        np.where(present, cells.values, cells.values.dtype.type(0)), return_inverse=True
    )
    return Cells(codes.astype(np.int64), present, distinct.tolist(), declared=True)
