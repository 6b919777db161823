"""Tables with roles: the same data from every kind of table, and one line for what is wrong."""

import datetime
import gzip
import sys

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxmix as jm
from jaxmix import CausalData, InputError

# Missing cells: y once, z_text once, z_count once, g once, so that four of ten rows are dropped.
COLUMNS = {
    "t": [False, True, False, True, False, True, False, True, False, True],
    "y": [1.5, 2.0, None, 4.0, 5.0, 6.0, 7.5, 8.0, 9.0, 10.0],
    "z_text": ["b", "a", "a", None, "b", "a", "b", "a", "b", "c"],
    "z_count": [3, 1, 2, 1, None, 2, 3, 1, 1, 2],
    "x": [0, 1, 0, 1, 0, 1, 1, 0, 1, 1],
    "w": [1.0, 2.0, 1.0, 1.0, 1.0, 3.0, 1.0, 4.0, 1.0, 1.0],
    "g": ["p", "p", "q", "q", "p", "q", "r", "q", None, "r"],
}
ROLES = {
    "treatment": "t", "outcome": "y", "z": ["z_text", "z_count"], "x": ["x"],
    "weights": "w", "cluster": "g",
}  # fmt: skip
NULLABLE = {
    "t": "boolean", "y": "Float64", "z_text": "string", "z_count": "Int64", "x": "Int8",
    "w": "Float64", "g": "string",
}  # fmt: skip


def pandas_arrow():
    types = NULLABLE | {"t": "bool", "y": "double", "z_count": "int64", "x": "int8", "w": "double"}
    return pd.DataFrame({n: pd.array(v, f"{types[n]}[pyarrow]") for n, v in COLUMNS.items()})


def arrays():
    """Return numpy arrays the way numpy users write missing cells: NaN and empty text."""
    texts = {n: np.array([c or "" for c in COLUMNS[n]]) for n in ("z_text", "g")}
    return {n: np.array(v, float) for n, v in COLUMNS.items() if n not in texts} | texts


def masked():
    """Return masked arrays; what lies under a mask must not be used."""
    return arrays() | {
        name: np.ma.array(
            [0 if c is None else c for c in COLUMNS[name]],
            mask=[c is None for c in COLUMNS[name]],
        )
        for name in ("y", "z_count")
    }


def arrow_dictionary():
    columns = {name: pa.array(values) for name, values in COLUMNS.items()}
    kept = ("t", "z_count", "x")  # numbers that are declared categories would be categories
    return pa.table({n: c if n in kept else c.dictionary_encode() for n, c in columns.items()})


FRAMES = {
    "dict of lists": lambda: COLUMNS,
    "dict of arrays": arrays,
    "dict of object arrays": lambda: {n: np.array(v, object) for n, v in COLUMNS.items()},
    "dict of masked arrays": masked,
    "pandas": lambda: pd.DataFrame(COLUMNS),
    "pandas, another index": lambda: pd.DataFrame(COLUMNS).set_index(pd.Index(range(9, -1, -1))),
    "pandas nullable": lambda: pd.DataFrame(COLUMNS).astype(NULLABLE),
    "pandas object": lambda: pd.DataFrame(COLUMNS).astype(object),
    "pandas NA": lambda: pd.DataFrame(COLUMNS, dtype=object).map(
        lambda cell: pd.NA if pd.isna(cell) else cell
    ),
    "pandas categorical": lambda: pd.DataFrame(
        {n: v if n in ("t", "z_count", "x") else pd.Categorical(v) for n, v in COLUMNS.items()}
    ),
    "pandas unused category": lambda: pd.DataFrame(COLUMNS).assign(
        z_text=pd.Categorical(COLUMNS["z_text"], categories=["zz", "c", "b", "a"])
    ),
    "pandas on arrow": pandas_arrow,
    "polars": lambda: pl.DataFrame(COLUMNS),
    "polars categorical": lambda: pl.DataFrame(COLUMNS).with_columns(
        pl.col("z_text", "g").cast(pl.Categorical)
    ),
    "arrow": lambda: pa.table(COLUMNS),
    "arrow dictionary": arrow_dictionary,
    "arrow in chunks": lambda: pa.concat_tables(
        [pa.table(COLUMNS).slice(0, 3), pa.table(COLUMNS).slice(3)]
    ),
    "arrow record batch": lambda: pa.RecordBatch.from_pydict(COLUMNS),
}


def column_facts(column):
    return column.name, column.values.tolist(), column.levels


def facts(data):
    """Return everything in a CausalData as plain values, to be compared."""
    return {
        "treatment": data.treatment,
        "arms": data.arms,
        "t": data.t.tolist(),
        "outcome": column_facts(data.outcome),
        **{name: [column_facts(c) for c in getattr(data, name)] for name in ("z", "x")},
        "covariates": [column_facts(c) for c in data.covariates],
        "features": dict(data.features),
        **{
            name: None if getattr(data, name) is None else getattr(data, name).tolist()
            for name in ("weight", "multiplicity", "cluster")
        },
        "num_dropped": data.num_dropped,
        "missing": dict(data.missing),
    }


def tiny(num_rows=8, **changes):
    """Return a small valid table with some columns changed or added (None leaves one out)."""
    i = np.arange(num_rows)
    table = {"t": i % 2, "y": i * 1.0, "z": i // 2 % 2, "x": i // 4 % 2} | changes
    return {name: values for name, values in table.items() if values is not None}


def build(table=None, **roles):
    roles = {"treatment": "t", "outcome": "y", "z": ["z"], "x": ["x"]} | roles
    return CausalData.from_frame(tiny() if table is None else table, **roles)


# ---------------------------------------------------------------- the same from every table


@pytest.mark.parametrize("kind", FRAMES)
def test_every_kind_of_table_gives_the_same_data(kind):
    assert facts(CausalData.from_frame(FRAMES[kind](), **ROLES)) == {
        "treatment": "t",
        "arms": ("0", "1"),
        "t": [0, 1, 1, 0, 1, 1],
        "outcome": ("y", [1.5, 2.0, 6.0, 7.5, 8.0, 10.0], None),
        "z": [
            ("z_text", [1, 0, 0, 1, 0, 2], ("a", "b", "c")),
            ("z_count", [3.0, 1.0, 2.0, 3.0, 1.0, 2.0], None),
        ],
        "x": [("x", [0.0, 1.0, 1.0, 1.0, 0.0, 1.0], None)],
        "covariates": [],
        "features": {"z": "auto", "x": "auto"},
        "weight": [0.5, 1.0, 1.5, 0.5, 2.0, 0.5],
        "multiplicity": None,
        "cluster": [0, 0, 1, 2, 1, 2],
        "num_dropped": 4,
        "missing": {"y": 1, "g": 1, "z_text": 1, "z_count": 1},
    }


def test_roles_end_in_their_places():
    i = np.arange(8)
    table = tiny(z2=i % 3, c1=i * i, c2=["a", "b"] * 4, unused=["ä"] * 8)
    data = build(table, z=["z2", "z"], covariates=["c2", "c1"])
    assert (data.treatment, data.outcome.name) == ("t", "y")
    assert [column.name for column in data.z] == ["z2", "z"]
    assert [column.name for column in data.x] == ["x"]
    assert [column.name for column in data.covariates] == ["c2", "c1"]
    np.testing.assert_array_equal(data.z[0].values, i % 3)
    np.testing.assert_array_equal(data.covariates[1].values, i * i)
    assert data.weight is data.multiplicity is data.cluster is None
    assert data.num_rows == 8
    assert data.arm_sizes() == {"0": 4, "1": 4}


@pytest.mark.parametrize("kind", [tuple, np.array, pd.Index, iter, dict.fromkeys])
def test_names_come_in_any_collection(kind):
    table = tiny(z2=np.arange(8) % 3)
    data = build(table, z=kind(["z", "z2"]), x=kind(["x"]))
    assert [column.name for column in data.z] == ["z", "z2"]
    assert [column.name for column in data.x] == ["x"]


@pytest.mark.parametrize(
    ("features", "stored"),
    [
        ("linear", {"z": "linear", "x": "linear"}),
        ({"x": "onehot"}, {"z": "auto", "x": "onehot"}),
        ({}, {"z": "auto", "x": "auto"}),
    ],
)
def test_features_are_stored_by_view(features, stored):
    assert build(features=features).features == stored


def test_the_caller_s_arrays_are_not_changed():
    table = tiny(y=np.array([0.0, 1, 2, np.nan, 4, 5, 6, 7]), w=np.arange(8.0))
    before = {name: values.copy() for name, values in table.items()}
    build(table, weights="w")
    for name, values in table.items():
        np.testing.assert_array_equal(values, before[name])


# --------------------------------------------------------------------------- the treatment


@pytest.mark.parametrize(
    ("treatment", "control", "arms", "first"),
    [
        ([0, 1] * 4, None, ("0", "1"), 0),
        ([0.0, 1.0] * 4, None, ("0", "1"), 0),
        ([False, True] * 4, None, ("0", "1"), 0),
        ([True, False] * 4, None, ("0", "1"), 1),
        (["0", "1"] * 4, None, ("0", "1"), 0),
        ([0, 1] * 4, 1, ("1", "0"), 1),
        ([False, True] * 4, True, ("1", "0"), 1),
        ([0, 1] * 4, "1", ("1", "0"), 1),
        (["old", "new"] * 4, "old", ("old", "new"), 0),
        (["old", "new"] * 4, "new", ("new", "old"), 1),
        ([1, 2] * 4, 2, ("2", "1"), 1),
        ([1.5, 2] * 4, 1.5, ("1.5", "2"), 0),
        ([-1, 1] * 4, "-1", ("-1", "1"), 0),
    ],
)
def test_the_control_comes_first(treatment, control, arms, first):
    data = build(tiny(t=treatment), control=control)
    assert data.arms == arms
    assert data.t.tolist() == [first, 1 - first] * 4


def test_many_arms_keep_their_order_behind_the_control():
    data = build(tiny(8, t=["c", "a", "b", "b"] * 2), control="c")
    assert data.arms == ("c", "a", "b")
    assert data.t.tolist() == [0, 1, 2, 2] * 2
    assert data.arm_sizes() == {"c": 2, "a": 2, "b": 4}


def test_arms_are_those_of_the_rows_that_are_used():
    table = tiny(9, t=["c", "a", "b"] * 3, y=[1, 2, None, 3, 4, None, 5, 6, None])
    assert build(table, control="c").arms == ("c", "a")


# --------------------------------------------------------------------------- missing cells


@pytest.mark.parametrize(
    "values",
    [
        np.array([0, np.nan, 1, 0, 1, 0, 1, np.nan]),
        [0, None, 1, 0, 1, 0, 1, None],
        np.array([0, pd.NA, 1, 0, 1, 0, 1, pd.NaT], object),
        pd.array([0, None, 1, 0, 1, 0, 1, pd.NA], "Int64"),
        pl.Series([0, None, 1, 0, 1, 0, 1, None]),
        pl.Series([0, float("nan"), 1, 0, 1, 0, 1, None], strict=False),
        ["a", None, "b", "a", "b", "a", "b", ""],
        np.array(["a", "", "b", "a", "b", "a", "b", ""]),
        np.array([b"a", b"", b"b", b"a", b"b", b"a", b"b", b""]),
        np.array(["a", np.nan, "b", "a", "b", "a", "b", pd.NA], object),
    ],
    ids=str,
)
def test_missing_cells_drop_their_rows(values):
    data = build(tiny(x=values))
    assert data.outcome.values.tolist() == [0, 2, 3, 4, 5, 6]
    assert data.x[0].values.tolist() == [0, 1, 0, 1, 0, 1]
    assert (data.num_rows, data.num_dropped, data.missing) == (6, 2, {"x": 2})


def test_missing_cells_are_counted_by_column_and_rows_once():
    table = tiny(y=[None, 1, 2, 3, 4, 5, 6, None], z=[None, None, 1, 1, 0, 0, 1, 1])
    data = build(table)
    assert data.missing == {"y": 2, "z": 2}
    assert (data.num_dropped, data.num_rows) == (3, 5)


def test_columns_without_a_role_may_be_missing_or_infinite():
    data = build(tiny(other=[None] * 8, far=[np.inf] * 8))
    assert (data.num_rows, data.missing) == (8, {})


def test_levels_of_dropped_rows_are_gone():
    data = build(tiny(z=["only here", "a", "b", "a", "b", "a", "b", "a"], y=[None, *range(7)]))
    assert data.z[0].levels == ("a", "b")
    assert data.z[0].values.tolist() == [0, 1, 0, 1, 0, 1, 0]


@settings(max_examples=30, derandomize=True, deadline=None)
@given(st.lists(st.sampled_from(["", "t", "y", "z", "x", "w"]), min_size=8, max_size=8))
def test_dropping_rows_is_as_if_they_had_not_been_there(holes):
    """One cell of each row may be missing; eight complete rows follow."""
    table = tiny(16, z=list("abcdabcddcbadcba"), w=np.arange(1.0, 17))
    holed = {name: np.array(values, object) for name, values in table.items()}
    for row, name in enumerate(holes):
        if name:
            holed[name][row] = None
    keep = np.array([name == "" for name in holes] + [True] * 8)
    complete = {name: np.array(values)[keep] for name, values in table.items()}
    ours, theirs = (facts(build(frame, weights="w")) for frame in (holed, complete))
    assert ours.pop("num_dropped") == 8 - holes.count("")
    assert ours.pop("missing") == {name: holes.count(name) for name in set(holes) - {""}}
    assert (theirs.pop("num_dropped"), theirs.pop("missing")) == (0, {})
    assert ours == theirs


# ------------------------------------------------------------------------ weights, clusters


@pytest.mark.parametrize("scale", [1, 0.001, 1e6])
def test_sampling_weights_have_mean_one_whatever_their_scale(scale):
    weights = np.arange(1.0, 9)
    data = build(tiny(w=scale * weights), weights="w")
    np.testing.assert_allclose(data.weight, weights / 4.5, rtol=1e-14)
    assert data.multiplicity is None
    assert data.num_rows == 8


def test_frequency_weights_count_rows():
    data = build(tiny(w=[1, 2, 3, 4, 5, 6, 7, 8]), weights="w", weights_kind="frequency")
    assert data.weight is None
    assert data.multiplicity.tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert data.num_rows == 36
    assert data.arm_sizes() == {"0": 16, "1": 20}


@pytest.mark.parametrize(
    "weights", [[2] * 40, [0, 1, 2, 3] * 10, list(range(40))], ids=["twos", "to 3", "to 39"]
)
@pytest.mark.parametrize("discrete", [True, False])
def test_frequency_weights_equal_repeated_rows(weights, discrete):
    rng = np.random.default_rng(0)
    cells = ("a", "b", "c") if discrete else tuple(rng.normal(size=40))
    table = tiny(40, z=rng.choice(cells, 40), x=rng.choice(cells, 40), y=rng.normal(size=40))
    once = build(table | {"w": weights}, weights="w", weights_kind="frequency")
    repeated = build({name: np.repeat(values, weights) for name, values in table.items()})
    assert once.num_rows == repeated.num_rows == sum(weights)
    assert once.arm_sizes() == repeated.arm_sizes()
    ours, theirs = (jm.moments.from_rows(jm.features.encode(data)) for data in (once, repeated))
    for name in ("tensor", "gram_z", "value_y", "range_y", "num_rows"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), atol=1e-12)


@pytest.mark.parametrize("kind", ["sampling", "frequency"])
def test_rows_of_weight_zero_are_as_if_they_had_not_been_there(kind):
    weights = np.array([1, 0, 2, 3, 0, 1, 5, 1])
    table = tiny(z=list("abcdefgh"), w=weights, y=[0, np.nan, 2, 3, 4, 5, 6, 7])
    ours = facts(build(table, weights="w", weights_kind=kind))
    kept = {name: np.array(values)[weights > 0] for name, values in table.items()}
    theirs = facts(build(kept, weights="w", weights_kind=kind))
    # A row that is missing a cell is counted as dropped whatever its weight.
    assert (ours.pop("num_dropped"), ours.pop("missing")) == (1, {"y": 1})
    assert (theirs.pop("num_dropped"), theirs.pop("missing")) == (0, {})
    assert ours == theirs


@pytest.mark.parametrize(
    "groups",
    [[7, 7, 3, 3, 9, 9, 3, 7], list("bbaaccab"), [0.5, 0.5, 0.1, 0.1, 2, 2, 0.1, 0.5]],
    ids=str,
)
def test_clusters_are_numbered_from_zero(groups):
    data = build(tiny(g=groups), cluster="g")
    assert data.cluster.tolist() == [1, 1, 0, 0, 2, 2, 0, 1]
    assert data.cluster.dtype == np.int32


# ------------------------------------------------------------------------------------ files


def write_csv(path, text):
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def csv_text():
    return pd.DataFrame(COLUMNS).to_csv(index=False)


WRITERS = {
    "rows.csv": lambda path: write_csv(path, csv_text()),
    "rows.csv.gz": lambda path: write_csv(path, csv_text()),
    "rows.txt": lambda path: write_csv(path, csv_text().replace("\n", "\r\n")),
    "marked.csv": lambda path: write_csv(path, "\ufeff" + csv_text()),
    "spelled.csv": lambda path: path.write_text(pd.DataFrame(COLUMNS).to_csv(na_rep="NA")),
    "rows.parquet": lambda path: pd.DataFrame(COLUMNS).astype(NULLABLE).to_parquet(path),
    "dictionary.parquet": lambda path: pq.write_table(arrow_dictionary(), path),
    "polars.pq": lambda path: pl.DataFrame(COLUMNS).write_parquet(path),
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("as_text", [False, True])
def test_a_file_gives_the_same_data_as_the_table(tmp_path, name, as_text):
    path = tmp_path / name
    WRITERS[name](path)
    data = jm.read(str(path) if as_text else path, **ROLES)
    assert facts(data) == facts(CausalData.from_frame(COLUMNS, **ROLES))


@pytest.mark.parametrize("name", ["late.csv", "late.csv.gz"])
@pytest.mark.parametrize(("last", "value"), [("0.5", 0.5), ("NA", None)])
def test_a_column_may_turn_from_whole_numbers_late(tmp_path, name, last, value):
    """Types are those of the whole file: here the only fraction stands behind 2 MB."""
    lines = [f"{i % 2},{i + 10_000_000},{i // 2 % 2},{i // 4 % 2}\n" for i in range(170_000)]
    text = "t,y,z,x\n" + "".join(lines) + f"1,{last},1,1\n"
    assert len(text) > 2.4e6
    write_csv(tmp_path / name, text)
    data = jm.read(tmp_path / name, treatment="t", outcome="y", z=["z"], x=["x"])
    expected = np.arange(170_000) + 1e7
    if value is not None:
        expected = np.append(expected, value)
    np.testing.assert_array_equal(data.outcome.values, expected)
    assert data.num_dropped == (value is None)


def test_a_file_is_read_with_every_option(tmp_path):
    write_csv(tmp_path / "rows.csv", csv_text())
    options = ROLES | {"control": 1, "features": "linear", "weights_kind": "frequency"}
    data = jm.read(tmp_path / "rows.csv", **options, covariates=[])
    assert facts(data) == facts(CausalData.from_frame(COLUMNS, **options))
    assert (data.arms, data.features["z"]) == (("1", "0"), "linear")
    assert data.multiplicity is not None


def test_doubled_names_matter_only_where_they_are_used(tmp_path):
    write_csv(tmp_path / "rows.csv", "t,y,z,x,a,a\n" + "0,1,0,1,8,9\n1,2,1,0,8,9\n" * 2)
    data = jm.read(tmp_path / "rows.csv", treatment="t", outcome="y", z=["z"], x=["x"])
    assert data.num_rows == 4


# ------------------------------------------------------------------------ what is wrong, said


def infinite(**more):
    return tiny(y=[0, 1, np.inf, 3, 4, -np.inf, 6, 7], **more)


def lazily():
    return pl.DataFrame(tiny()).lazy()


WORDS = np.array([1, 2, "oops", 4, 5, 6, 7, 8], object)

# What is called, and what its line must contain: the column, the value, the remedy.
WRONG = {
    # the table
    "no table": (lambda: build([1, 2, 3]), ["list", "dict of arrays, or a pandas"]),
    "a lazy frame": (lambda: build(lazily()), ["LazyFrame", "pandas, polars or Arrow"]),
    "different lengths": (
        lambda: build(tiny(x=[0, 1] * 3)),
        ["different lengths", "'t' 8", "'x' 6", "make them equal"],
    ),
    "no rows": (lambda: build(tiny(0)), ["no rows", "check that the right file was read"]),
    "all rows missing": (
        lambda: build(tiny(z=[None, 1] * 4, x=[0, None] * 4)),
        ["every row", "'z' 4", "'x' 4", "leave out the emptiest"],
    ),
    # names and roles
    "unknown": (lambda: build(outcome="Y"), ["'Y'", "(outcome)", "'t', 'y', 'z', 'x'"]),
    "unknown among many": (
        lambda: build(tiny(**{f"c{i}": [0] for i in range(20)}), cluster="c"),
        ["'c'", "(cluster)", "and 12 more"],
    ),
    "doubled in pandas": (
        lambda: build(pd.DataFrame(np.eye(4), columns=list("tyzz")).assign(x=0)),
        ["'z'", "2 times", "rename or drop"],
    ),
    "doubled in Arrow": (
        lambda: build(pa.table([[0, 1]] * 5, names=list("tyyzx"))),
        ["'y'", "(outcome)", "2 times", "rename or drop"],
    ),
    "two roles": (
        lambda: build(covariates=["y"]),
        ["'y'", "as outcome and as covariates", "one role"],
    ),
    "twice in a role": (lambda: build(z=["z", "z"]), ["'z'", "twice in z", "one role"]),
    "text for a list": (lambda: build(z="z"), ["z is the text 'z'", "list of column names"]),
    "no proxies": (lambda: build(x=[]), ["x names no column", "at least one"]),
    "no proxies, None": (lambda: build(z=None), ["z names no column", "at least one"]),
    # options
    "weights kind": (
        lambda: build(weights_kind="counts"),
        ["'counts'", "'sampling', 'frequency'"],
    ),
    "coding": (
        lambda: build(features="one-hot"),
        ["features", "'one-hot'", "'auto', 'linear', 'onehot'"],
    ),
    "coding of a view": (
        lambda: build(features={"x": "dummy"}),
        ["'dummy'", "for x", "'auto', 'linear', 'onehot'"],
    ),
    "coding of no view": (lambda: build(features={"y": "linear"}), ["'y'", "'z' and 'x'"]),
    # columns
    "infinite": (lambda: build(infinite()), ["'y'", "2 infinite", "missing or correct"]),
    "infinite in objects": (
        lambda: build(tiny(x=np.array([0, 1, None, np.inf] * 2, object))),
        ["'x'", "2 infinite", "missing or correct"],
    ),
    "infinite weights": (
        lambda: build(tiny(w=[1.0] * 7 + [np.inf]), weights="w"),
        ["'w'", "1 infinite", "missing or correct"],
    ),
    "two dimensions": (lambda: build(tiny(z=np.eye(8))), ["'z'", "(8, 8)", "one-dimensional"]),
    "a scalar": (lambda: build(tiny(z=1)), ["'z'", "()", "one-dimensional"]),
    "ragged": (lambda: build(tiny(z=[[1], [1, 2]] * 4)), ["'z'", "ragged", "one-dimensional"]),
    "dates": (
        lambda: build(tiny(z=np.arange(8).astype("datetime64[D]"))),
        ["'z'", "dates", "numbers first"],
    ),
    "durations": (
        lambda: build(tiny(z=np.arange(8).astype("timedelta64[D]"))),
        ["'z'", "times", "numbers first"],
    ),
    "clock times": (
        lambda: build(pd.DataFrame(tiny()).assign(z=[datetime.time(i) for i in range(8)])),
        ["'z'", "time", "datetime.time(0, 0)", "numbers or text"],
    ),
    "complex": (lambda: build(tiny(x=np.arange(8) * 1j)), ["'x'", "complex128", "numbers or text"]),
    "lists in pandas": (
        lambda: build(pd.DataFrame(tiny()).assign(x=[[1, 2]] * 8)),
        ["'x'", "list", "[1, 2]", "numbers or text"],
    ),
    "lists in polars": (
        lambda: build(pl.DataFrame(tiny()).with_columns(x=pl.Series([[1, 2]] * 8))),
        ["'x'", "ndarray", "numbers or text"],
    ),
    "lists in Arrow": (
        lambda: build(pa.table(tiny(x=pa.array([[1, 2], [3]] * 4)))),
        ["'x'", "ndarray", "numbers or text"],
    ),
    "an object of several lines": (
        lambda: build(tiny(x=np.array([*[np.eye(3)] * 7, None], object))),
        ["'x'", "ndarray", "numbers or text"],
    ),
    # weights, clusters
    "text weights": (
        lambda: build(tiny(w=WORDS), weights="w"),
        ["'w'", "text ('oops')", "numbers"],
    ),
    "negative weights": (
        lambda: build(tiny(w=[1, 1, -2.5, 1, 1, 1, -3, 1]), weights="w"),
        ["'w'", "-2.5", "row 3", "zero or more"],
    ),
    "negative weights behind a missing row": (
        lambda: build(tiny(w=[1, None, -2, 1, 1, 1, 1, 1]), weights="w"),
        ["'w'", "-2", "row 3", "zero or more"],
    ),
    "zero weights": (lambda: build(tiny(w=[0] * 8), weights="w"), ["'w'", "zero in every row"]),
    "fractions for frequencies": (
        lambda: build(tiny(w=[1, 1.5] * 4), weights="w", weights_kind="frequency"),
        ["'w'", "1.5", "the kind 'sampling'"],
    ),
    "one cluster": (lambda: build(tiny(g=["a"] * 8), cluster="g"), ["'g'", "one value", "several"]),
    # what varies
    "constant outcome": (lambda: build(tiny(y=[2.5] * 8)), ["'y'", "(outcome)", "2.5", "another"]),
    "constant z": (lambda: build(tiny(z=["same"] * 8)), ["'z'", "(z)", "'same'", "leave it out"]),
    "constant x": (lambda: build(tiny(x=[True] * 8)), ["'x'", "(x)", "'1'", "leave it out"]),
    "constant covariate": (
        lambda: build(tiny(c=[3] * 8), covariates=["c"]),
        ["'c'", "(covariates)", "'3'", "leave it out"],
    ),
    "constant where it is used": (
        lambda: build(tiny(z=[1, 1, 0, 0, 0, 0, 0, 0], y=[None, None, *range(6)])),
        ["'z'", "'0'", "rows used", "another"],
    ),
    "constant text of several lines": (
        lambda: build(tiny(z=["a\nb\u2028c"] * 8)),
        ["'z'", r"a\nb", "leave it out"],
    ),
    "text outcome": (lambda: build(tiny(y=list("abcdefgh"))), ["'y'", "text", "'a', 'b'", "code"]),
    "one word among the outcomes": (lambda: build(tiny(y=WORDS)), ["'y'", "('oops')", "numbers"]),
    # the treatment
    "one arm": (lambda: build(tiny(t=["old"] * 8)), ["'t'", "one arm only", "'old'", "needs two"]),
    "one arm of several lines": (lambda: build(tiny(t=["a\nb"] * 8)), ["'t'", r"a\nb", "two"]),
    "one arm where it is used": (
        lambda: build(tiny(y=[0, None, 1, None, 2, None, 3, None])),
        ["'t'", "one arm only", "'0'", "rows used"],
    ),
    "text arms without control": (
        lambda: build(tiny(t=["old", "new"] * 4)),
        ["'t'", "'new', 'old'", "control= (--control)"],
    ),
    "arms 1 and 2 without control": (
        lambda: build(tiny(t=[1, 2] * 4)),
        ["'t'", "'1', '2'", "control= (--control)"],
    ),
    "three arms without control": (
        lambda: build(tiny(t=[0, 1, 2, 0, 1, 2, 0, 1])),
        ["'t'", "'0', '1', '2'", "control= (--control)"],
    ),
    "control is no arm": (
        lambda: build(tiny(t=["old", "new"] * 4), control="odl"),
        ["'odl'", "'t'", "'new', 'old'"],
    ),
    "control is no number": (lambda: build(control=2), ["'2'", "'t'", "'0', '1'"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_in_one_line(name):
    call, fragments = WRONG[name]
    with pytest.raises(InputError) as caught:
        call()
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert [fragment for fragment in fragments if fragment not in message] == []


HEADER, ROW = "t,y,z,x\n", "0,1,0,1\n1,2,1,0\n"

# name of the file, its content (None: no file, a dict: a folder), fragments
WRONG_FILES = {
    "absent": ("rows.csv", None, ["no file", "rows.csv", "check the path"]),
    "folder": ("rows.csv", {}, ["is a folder", "give a csv or parquet file"]),
    "empty": ("rows.csv", b"", ["rows.csv", "is empty"]),
    "only blank lines": ("rows.csv", b"\n\n\n", ["rows.csv", "one header row"]),
    "only the header": ("rows.csv", HEADER, ["no rows", "right file"]),
    "text as parquet": ("rows.parquet", HEADER + ROW, ["rows.parquet", "csv or parquet"]),
    "not gzip": ("rows.csv.gz", b"no gzip at all", ["rows.csv.gz", "csv or parquet"]),
    "short row": ("rows.csv", HEADER + ROW + "0,1,0\n", ["rows.csv", "0,1,0", "header"]),
    "bytes": ("rows.csv", bytes(range(256)) * 20, ["rows.csv", "csv or parquet"]),
    "latin-1 header": ("rows.csv", b"t,y,z,\xe9\n0,1,0,1\n", ["rows.csv", "utf-8", "csv or"]),
    "utf-16": ("rows.csv", (HEADER + ROW).encode("utf-16"), ["rows.csv", "csv or parquet"]),
    "doubled": ("rows.csv", "t,y,z,x,z\n0,1,0,1,0\n", ["'z'", "2 times", "rename"]),
    "unknown": ("rows.csv", b"t,y,z,w\n0,1,0,1\n", ["'x'", "(x)", "'t', 'y', 'z', 'w'"]),
    "semicolons": ("rows.csv", (HEADER + ROW).replace(",", ";"), ["'t'", "'t;y;z;x'"]),
    "dates": ("rows.csv", b"t,y,z,x\n0,1,2020-01-01,1\n1,2,2020-01-02,0\n", ["'z'", "dates"]),
}


@pytest.mark.parametrize("case", WRONG_FILES)
def test_what_is_wrong_with_a_file_is_said_in_one_line(tmp_path, case):
    name, content, fragments = WRONG_FILES[case]
    if content == {}:
        (tmp_path / name).mkdir()
    elif content is not None:
        (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(InputError) as caught:
        jm.read(tmp_path / name, treatment="t", outcome="y", z=["z"], x=["x"])
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert message.isprintable()
    assert [fragment for fragment in fragments if fragment not in message] == []


def test_reading_says_what_to_install(tmp_path, monkeypatch):
    write_csv(tmp_path / "rows.csv", csv_text())
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"pip install 'jaxmix\[io\]'"):
        jm.read(tmp_path / "rows.csv", **ROLES)


def test_numbers_with_a_few_stray_texts_are_refused():
    ages = [str(age) for age in range(20, 60)]
    ages[7] = "old"
    table = {name: np.arange(40) % 2 for name in ("t", "y", "x")} | {"z": ages}
    table["y"] = np.arange(40) % 3
    with pytest.raises(InputError, match=r"column 'z' is text, but nearly all .* hold 'old'"):
        CausalData.from_frame(table, treatment="t", outcome="y", z=["z"], x=["x"])


def test_bytes_are_text():
    table = {name: np.arange(40) % 2 for name in ("y", "x")} | {"z": np.array([b"a", b"b"] * 20)}
    table["t"] = np.array([b"no", b"no", b"yes", b"yes"] * 10)
    data = CausalData.from_frame(table, treatment="t", outcome="y", z=["z"], x=["x"], control="no")
    assert data.arms == ("no", "yes")
    assert data.z[0].levels == ("a", "b")
