"""Cells are read as what they are, whatever the way in, or refused in one line."""

import datetime
import decimal
import gzip
import io
import lzma
import os
import pathlib
import threading
import uuid
import zipfile

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import jaxmix as jm
from experiments.verdicts import reading as fuzz
from jaxmix import CausalData, InputError, cli
from jaxmix.data.categories import codes_like, codes_of
from jaxmix.tables import separated
from jaxmix.tables.texts import USUAL, marks_of, number_of

N = 60
I = np.arange(N)  # noqa: E741
ROLES = {"treatment": "t", "outcome": "y", "z": ["z"], "x": ["x"]}


def table(**changes):
    """Return a valid table of 60 rows with some columns changed or added."""
    return {"t": I % 2, "y": I * 0.5, "z": I // 2 % 3, "x": I // 4 % 2} | changes


def build(frame, **roles):
    return CausalData.from_frame(frame, **(ROLES | roles))


def as_texts(cells):
    return [None if cell is None else str(cell) for cell in cells]


def written(frame, path, encoding="utf-8"):
    path.write_text(pd.DataFrame(frame).to_csv(index=False), encoding=encoding)
    return path


def line_of(call):
    """Return the one line that a call is refused with."""
    with pytest.raises(InputError) as caught:
        call()
    line = str(caught.value)
    assert "\n" not in line
    assert line.isprintable()
    return line


def every_way(column, tmp_path, name="z", **roles):
    """Return the data with cells in one column, or the line, from frames and files of all kinds."""
    frame = table(**{name: column})
    texts = table(**{name: as_texts(column)})
    objects = np.empty(N, object)
    objects[:] = column
    makers = {
        "lists": lambda: frame,
        "objects": lambda: table(**{name: objects}),
        "pandas": lambda: pd.DataFrame(table(**{name: objects})),
        "pandas text": lambda: pd.DataFrame(texts),
        "pandas string": lambda: pd.DataFrame(texts).astype({name: "string"}),
        "polars": lambda: pl.DataFrame(texts),
        "arrow": lambda: pa.table(texts),
    }
    pq.write_table(pa.table(texts), tmp_path / "rows.parquet")
    written(texts, tmp_path / "rows.csv")
    calls = {way: lambda make=make: build(make(), **roles) for way, make in makers.items()}
    for path in (tmp_path / "rows.parquet", tmp_path / "rows.csv"):
        calls[path.name] = lambda path=path: jm.read(path, **(ROLES | roles))
    found = {}
    for way, call in calls.items():
        try:
            found[way] = call()
        except InputError as error:
            found[way] = str(error)
    return found


# ---------------------------------------------------------------------------- some dozens of tables


@pytest.mark.parametrize("seed", range(48))
def test_random_tables_are_the_same_through_every_way_in(seed, tmp_path):
    lines = fuzz.compare(seed, tmp_path)
    assert len(lines) > 10
    assert [line for line in lines if line[2]] == []


# ------------------------------------------------------------------------------- whole numbers


WHOLE = {
    "int64 array": lambda v: np.array(v, np.int64),
    "list": list,
    "objects": lambda v: np.array(v, object),
    "pandas": lambda v: pd.Series(v, dtype="int64"),
    "pandas Int64": lambda v: pd.Series([*v[:-1], None], dtype="Int64"),
    "pandas on arrow": lambda v: pd.Series([*v[:-1], None], dtype="int64[pyarrow]"),
    "pandas object": lambda v: pd.Series([*v[:-1], None], dtype=object),
    "pandas text": lambda v: pd.Series([*map(str, v[:-1]), None]),
    "polars": lambda v: pl.Series(v),
    "polars, one missing": lambda v: pl.Series([*v[:-1], None]),
    "polars Int128": lambda v: pl.Series(v, dtype=pl.Int128),
    "polars decimal": lambda v: pl.Series([*map(decimal.Decimal, v)], dtype=pl.Decimal(38, 0)),
    "arrow": lambda v: pa.array(v),
    "arrow, one missing": lambda v: pa.array([*v[:-1], None]),
    "arrow decimal": lambda v: pa.array([*map(decimal.Decimal, v[:-1]), None]),
    "list with NaN": lambda v: [*v[:-1], float("nan")],
    "masked": lambda v: np.ma.array(v, mask=[False] * (N - 1) + [True]),
}


@pytest.mark.parametrize("kind", WHOLE)
@pytest.mark.parametrize("base", [10 * 2**53, 2**60, -(2**62), 2**53])
def test_whole_numbers_beyond_floats_are_as_many_clusters(kind, base):
    groups = [base + i % 12 for i in range(N)]
    assert len({float(g) for g in groups}) < 12  # as floats they fall together
    data = build(table(g=WHOLE[kind](groups)), cluster="g")
    assert data.cluster.max() == 11
    np.testing.assert_array_equal(data.cluster, [(g - base) for g in groups[: len(data.cluster)]])


@pytest.mark.parametrize("base", [2**63, 2**64 - 13, 10**25])
def test_clusters_of_any_size(base, tmp_path):
    groups = [base + i % 12 for i in range(N)]
    kinds = [groups, np.array(groups, object), [*map(str, groups)]]
    if base < 2**64:
        kinds += [np.array(groups, np.uint64), pl.Series(groups, dtype=pl.UInt64),
                  pa.array(groups, pa.uint64()), pd.Series(groups, dtype="UInt64")]  # fmt: skip
    for kind in kinds:
        assert build(table(g=kind), cluster="g").cluster.tolist() == [i % 12 for i in range(N)]
    written(table(g=[*map(str, groups)]), tmp_path / "rows.csv")
    assert jm.read(tmp_path / "rows.csv", cluster="g", **ROLES).cluster.max() == 11


def test_ids_of_a_file_are_as_many_clusters_as_they_are(tmp_path):
    frame = table(big=I % 30 + 10 * 2**53, huge=I % 30 + 2**60)
    pd.DataFrame(frame).to_parquet(tmp_path / "ids.parquet")
    for path in (written(frame, tmp_path / "ids.csv"), tmp_path / "ids.parquet"):
        for cluster in ("big", "huge"):
            assert jm.read(path, cluster=cluster, **ROLES).cluster.max() == 29


def test_arms_and_categories_keep_their_digits(tmp_path):
    base = 2**60
    frame = table(t=base + I % 2, z=base + I // 2 % 3)
    for data in (
        build(frame, control=base + 1),
        build(pl.DataFrame(frame), control=str(base + 1)),
        jm.read(written(frame, tmp_path / "rows.csv"), control=str(base + 1), **ROLES),
    ):
        assert data.arms == (str(base + 1), str(base))
        assert data.z[0].levels == (str(base), str(base + 1), str(base + 2))
        assert "'z' holds whole numbers beyond 2^53, which are taken as categories" in data.notes[0]
    message = line_of(lambda: build(frame, control=base + 3))
    assert str(base + 3) in message
    codes, levels, _ = codes_of(frame, ["t", "z"], USUAL)
    assert levels["z"] == (str(base), str(base + 1), str(base + 2))
    np.testing.assert_array_equal(codes[:, 1], I // 2 % 3)


def test_numbers_that_floats_cannot_tell_apart_are_refused():
    n = 100
    frame = {name: np.arange(n) % 2 for name in ("t", "z", "x")} | {"y": np.arange(n)}
    for name in ("y", "z"):
        line = line_of(lambda name=name: build(frame | {name: 2**60 + np.arange(n)}))
        assert f"column {name!r} holds whole numbers beyond 2^53" in line
        assert "subtract a constant" in line
    times = (
        1_700_000_000_000_000_000 + np.arange(n) * 1_000_000_000
    )  # nanoseconds: rounding is small
    assert build(frame | {"z": times}).z[0].levels is None
    few = 2**60 + np.arange(n) % 3
    assert build(frame | {"z": few}).z[0].levels is not None
    assert "subtract a constant" in line_of(lambda: build(frame | {"z": few}, features="linear"))
    assert "digits, too large" in line_of(
        lambda: build(frame | {"y": [10**400 + i for i in range(n)]})
    )


# ------------------------------------------------------------------------------ marks of missing

MARKS = [".", " ", "   ", "?", "-", "--", "None", "NONE", "none", "<NA>", "<na>", "NA", "nan",
         "NaN", "NAN", "null", "NULL", "N/A", "#N/A", " NA ", "NaT"]  # fmt: skip
DOUBTFUL = MARKS[:11]


@pytest.mark.parametrize("mark", MARKS)
def test_a_mark_among_numbers_is_a_missing_cell(mark, tmp_path):
    column = [mark if i % 10 == 3 else int(i // 2 % 2) for i in range(N)]
    for way, data in every_way(column, tmp_path).items():
        assert not isinstance(data, str), (way, data)
        assert data.missing == {"z": 6}, way
        assert data.z[0].levels is None
        assert data.z[0].values.tolist() == [v for v in column if v != mark]
        (note,) = data.notes
        assert note.startswith(f"read as missing: 6 cells {mark!r} of column 'z'")


@pytest.mark.parametrize("role", ["t", "y", "z", "x", "c", "w", "g"])
@pytest.mark.parametrize("mark", [".", "None", " ", "?"])
def test_marks_are_missing_in_every_role(role, mark, tmp_path):
    more = {"covariates": ["c"], "weights": "w", "cluster": "g"}
    frame = table(c=I % 5 + 1, w=I % 3 + 1, g=I % 7)
    frame[role] = [mark if i % 12 == 3 else int(v) for i, v in enumerate(frame[role])]
    loads = [
        lambda: build(frame, **more),
        lambda: build(pd.DataFrame(frame), **more),
        lambda: build(pl.DataFrame(frame | {role: as_texts(frame[role])}), **more),
        lambda: jm.read(written(frame, tmp_path / "rows.csv"), **ROLES, **more),
    ]
    gone = frame | {role: [None if v == mark else v for v in frame[role]]}
    right = fuzz.found(build(gone, **more))
    for load in loads:
        data = load()
        assert data.missing == {role: 5}
        assert fuzz.found(data) == right
        assert f"5 cells {mark!r} of column {role!r}" in data.notes[0]


@pytest.mark.parametrize("mark", DOUBTFUL)
def test_marks_in_more_than_a_fifth_of_the_cells_are_asked_about(mark, tmp_path):
    column = [mark if i % 4 == 3 else int(i // 2 % 2) for i in range(N)]
    for way, line in every_way(column, tmp_path).items():
        assert isinstance(line, str), way
        for part in ("'z'", repr(mark), "15 of 60 cells", "more than a fifth", "--missing-marks"):
            assert part in line, way
    for data in every_way(column, tmp_path, missing_marks=[mark]).values():
        assert data.missing == {"z": 15}
    for data in every_way(column, tmp_path, missing_marks=[]).values():
        assert data.missing == {}
        assert data.z[0].levels == tuple(sorted([mark, "0", "1"]))


def test_a_fifth_is_not_more_than_a_fifth(tmp_path):
    column = ["." if i % 5 == 3 else int(i // 2 % 2) for i in range(N)]
    assert {data.num_dropped for data in every_way(column, tmp_path).values()} == {12}


@pytest.mark.parametrize("null", ["NA", "nan", "NULL", "#N/A"])
def test_spellings_of_null_are_missing_in_any_number(null, tmp_path):
    """Every reader of csv files takes them so; a column may be mostly empty."""
    column = [null if i % 2 else int(i // 4 % 2) for i in range(N)]
    frame = table(z=column, t=I // 2 % 2)
    assert build(frame).missing == {"z": 30}
    assert jm.read(written(frame, tmp_path / "half.csv"), **ROLES).missing == {"z": 30}


@pytest.mark.parametrize("mark", ["None", ".", "?", "-", "none"])
def test_text_keeps_a_mark_as_a_level_with_a_note(mark, tmp_path):
    column = [mark if i % 6 == 3 else "ab"[i // 2 % 2] for i in range(N)]
    for way, data in every_way(column, tmp_path).items():
        assert data.z[0].levels == tuple(sorted([mark, "a", "b"])), way
        (note,) = data.notes
        assert note.startswith(f"column 'z' keeps {mark!r} (10 cells) as a level")
    for data in every_way(column, tmp_path, missing_marks=[mark]).values():
        assert (data.z[0].levels, data.missing) == (("a", "b"), {"z": 10})


@pytest.mark.parametrize("null", ["nan", "NaN", "NA", "<NA>", "  ", "null"])
def test_text_has_no_level_that_spells_null(null, tmp_path):
    column = [null if i % 6 == 3 else "ab"[i // 2 % 2] for i in range(N)]
    for way, data in every_way(column, tmp_path).items():
        assert (data.z[0].levels, data.missing) == (("a", "b"), {"z": 10}), way
        assert f"10 cells {null!r} of column 'z'" in data.notes[0]
    groups = [null if i % 6 == 3 else "abcd"[i // 3 % 4] for i in range(N)]
    for data in every_way(groups, tmp_path, "g", cluster="g").values():
        assert (data.cluster.max(), data.missing) == (3, {"g": 10})
    for data in every_way(column, tmp_path, missing_marks=[]).values():
        assert null in data.z[0].levels


def test_numbers_can_be_marks(tmp_path):
    column = [-99 if i % 3 == 1 else int(i // 2 % 2) for i in range(N)]
    for marks in ([-99], ["-99"], [-99.0], ["."], ("-99", "x"), np.array([-99])):
        named = list(marks) != ["."]
        for way, data in every_way(column, tmp_path, missing_marks=marks).items():
            assert data.missing == ({"z": 20} if named else {}), way
            assert ("20 cells '-99' of column 'z'" in " ".join(data.notes)) == named
    data = build(table(z=np.array(column, float)), missing_marks=["-99"])
    assert data.missing == {"z": 20}


@pytest.mark.parametrize("marks", [".", "NA", 3, None, [["."]], [None]])
def test_marks_are_a_list(marks):
    line = line_of(lambda: build(table(), missing_marks=marks))
    assert "missing_marks (--missing-marks)" in line


def test_marks_of_the_command_line(tmp_path, monkeypatch):
    called = {}

    def read(path, **options):
        called.update(options)
        raise KeyboardInterrupt

    monkeypatch.setattr("jaxmix.data.roles.read", read)
    words = ["fit", "rows.csv", "--treatment", "t", "--outcome", "y", "--z", "z", "--x", "x"]
    for text, marks in (("auto", "auto"), ("", []), (".,-99, NA ", [".", "-99", "NA"])):
        assert cli.run([*words, "--missing-marks", text, "--encoding", "latin-1"]) == 130
        assert (called["missing_marks"], called["encoding"]) == (marks, "latin-1")
    assert cli.run(words) == 130
    assert (called["missing_marks"], called["encoding"]) == ("auto", None)


def test_a_result_says_what_was_read_as_missing():
    rng = np.random.default_rng(0)
    u = rng.random(400) < 0.5
    frame = {name: (rng.random(400) < np.where(u, 0.8, 0.3)).astype(int) for name in "tzxy"}
    frame["z"] = [*frame["z"][:-7].tolist(), *["."] * 7]
    result = jm.fit(build(frame), num_resamples=0, checks=False)
    assert result.warnings[0].startswith("read as missing: 7 cells '.' of column 'z'")
    assert result.to_dict()["warnings"][0] == result.warnings[0]


def test_a_stray_word_among_numbers_is_no_category(tmp_path):
    column = ["oops" if i == 7 else int(i // 2 % 2) for i in range(N)]
    for way, line in every_way(column, tmp_path).items():
        assert isinstance(line, str), way
        assert "column 'z' is text, but nearly all" in line
        assert "'oops'" in line
    for data in every_way(column, tmp_path, missing_marks=["oops"]).values():
        assert data.missing == {"z": 1}
    for data in every_way(column, tmp_path, features={"z": "onehot"}).values():
        assert data.z[0].levels == ("0", "1", "oops")
    for data in every_way(column, tmp_path, "g", cluster="g").values():
        assert data.cluster.max() == 2


def test_latent_classes_know_marks():
    frame = {"a": ["." if i % 12 == 3 else int(i // 2 % 2) for i in range(N)],
             "b": ["nan" if i % 10 == 4 else "pq"[i // 4 % 2] for i in range(N)],
             "c": ["None" if i % 10 == 4 else "pq"[i // 3 % 2] for i in range(N)]}  # fmt: skip
    result = jm.latent_classes(frame, 1)
    assert result.missing == {"a": 5, "b": 6}
    assert [result.profiles[name].levels for name in "abc"] == [
        ("0", "1"), ("p", "q"), ("None", "p", "q")]  # fmt: skip
    told = " ".join(result.warnings)
    assert "5 cells '.' of column 'a'" in told
    assert "6 cells 'nan' of column 'b'" in told
    assert "column 'c' keeps 'None' (6 cells) as a level" in told
    named = jm.latent_classes(frame, 1, missing_marks=["None", "."])
    assert named.missing == {"a": 5, "c": 6}
    assert named.profiles["b"].levels == ("nan", "p", "q")
    shares = named.posterior({"a": ["."], "b": ["nan"], "c": ["None"]})
    np.testing.assert_allclose(shares, [[1.0]])
    off = jm.latent_classes(frame, 1, missing_marks=[])
    assert off.missing == {}
    assert off.profiles["a"].levels == (".", "0", "1")


def test_levels_of_a_fit_are_known_again_however_they_are_written():
    known = {"a": ("0", "1"), "b": ("1", "1a"), "c": ("None", "p")}
    rows = {"a": ["True", "1.0", "", ".", None], "b": ["1", "1a", "?", "nan", "1a"],
            "c": ["None", "p", "p", "", "None"]}  # fmt: skip
    codes = codes_like(rows, known, USUAL)
    assert codes.T.tolist() == [[1, 1, -1, -1, -1], [0, 1, -1, -1, 1], [0, 1, 1, -1, 0]]
    assert codes_like({"a": [True], "b": [1], "c": ["p"]}, known, USUAL).tolist() == [[1, 0, 1]]
    line = line_of(lambda: codes_like(rows | {"b": ["2"] * 5}, known, USUAL))
    assert "has not seen: '2'" in line


# ------------------------------------------------------------------------- commas, zeros, numerals


@pytest.mark.parametrize(
    "texts",
    [["0,5", "1,5"], ["-0,5", "1"], ["1,234", "2,500"], ["1,234.5", "999"], ["1.234,5", "0,1"],
     ["1.234.567", "2.000.000"], ["1 234", "999"], ["1'234", "12"], [",5", "1"], ["5,", "1"],
     ["1\u00a0234,5", "1"], ["1\u202f234", "1"], ["1_234", "1"], ["12,34,567", "1"],
     ["1,5e3", "1"], ["$1,234", "$2,500.50"], ["0,5 %", "1,5%"], ["(1,234)", "999"],
     ["1.234,50 \u20ac", "1,00 \u20ac"]],
    ids=str,
)  # fmt: skip
def test_numbers_with_commas_are_refused(texts, tmp_path):
    column = [texts[i // 2 % 2] for i in range(N)]
    for name in ("z", "y", "t"):
        for way, line in every_way(column, tmp_path, name).items():
            assert isinstance(line, str), way
            assert f"column {name!r} holds numbers with" in line
            assert repr(texts[0]) in line or repr(texts[1]) in line
            assert "write 0.5" in line
    gaps = ["NA" if i % 10 == 3 else cell for i, cell in enumerate(column)]
    for line in every_way(gaps, tmp_path).values():
        assert "write 0.5" in line


def test_a_whole_column_of_decimal_commas_is_refused(tmp_path):
    column = [f"{v * 0.5:.1f}".replace(".", ",") for v in range(N)]
    for line in every_way(column, tmp_path).values():
        assert line.startswith("column 'z' holds numbers with commas ('0,0'); write 0.5 for 0,5")
    for data in every_way(column, tmp_path, "g", cluster="g").values():
        assert data.cluster.max() == N - 1  # names of clusters may hold commas


@pytest.mark.parametrize("style", ["{}", " {} ", "+{}", "{}.0", "{}e0", "0{}", "\u2212{}"])
def test_numbers_are_numbers_however_they_are_written(style, tmp_path):
    column = [style.format(i // 2 % 5) for i in range(N)]
    sign = -1 if "\u2212" in style else 1
    for way, data in every_way(column, tmp_path).items():
        if style == "{}" and way != "rows.csv":  # codes of categories, as text
            assert data.z[0].levels == tuple("01234")
            continue
        assert data.z[0].levels is None, way
        assert data.z[0].values.tolist() == [sign * (i // 2 % 5) for i in range(N)]
        told = "is text that holds numbers alone" in " ".join(data.notes)
        assert told == (way != "rows.csv")  # a csv file has nothing but text


@pytest.mark.parametrize("words", [("True", "False"), ("TRUE", "FALSE"), ("true", "false")])
def test_truth_in_words(words, tmp_path):
    column = ["NA" if i % 9 == 4 else words[i % 2] for i in range(N)]
    for data in every_way(column, tmp_path, "t", control="False").values():
        assert data.arms == ("0", "1")
        assert data.missing == {"t": 7}
    mixed = [words[i % 2] if i % 3 else "maybe" for i in range(N)]
    for data in every_way(mixed, tmp_path).values():
        assert data.z[0].levels == tuple(sorted([*words, "maybe"]))


def test_one_number_in_two_spellings_is_refused_where_it_is_a_name(tmp_path):
    column = ["01" if i % 3 else "1" if i % 2 else "2" for i in range(N)]
    for name, roles in (("z", {}), ("g", {"cluster": "g"}), ("t", {"control": "2"})):
        for way, line in every_way(column, tmp_path, name, **roles).items():
            assert isinstance(line, str), way
            assert f"column {name!r} holds " in line
            assert "which are one number" in line
    for data in every_way(column, tmp_path, "y").values():
        assert set(data.outcome.values) == {1.0, 2.0}


def test_numbers_of_texts_are_exact():
    assert number_of("9007199254740993") == 9007199254740993
    assert number_of("9007199254740993.000") == 9007199254740993
    assert number_of("+1.50") == 1.5
    assert [number_of(text) for text in ("1_000", "\u0661", "0x10", "1e", "e5", ".", "")] == [
        None
    ] * 7
    assert marks_of(["-99", "."]).numbers == {-99}


def test_decimals_are_numbers():
    values = [decimal.Decimal(i // 2 % 4) / 4 for i in range(N)]
    gaps = [None if i % 9 == 1 else v for i, v in enumerate(values)]
    nans = [decimal.Decimal("NaN") if v is None else v for v in gaps]
    for column in (values, gaps, nans, np.array(gaps, object), pd.Series(gaps), pa.array(gaps),
                   pl.Series(gaps),
                   pd.Series(gaps, dtype=pd.ArrowDtype(pa.decimal128(5, 2)))):  # fmt: skip
        for name in ("z", "y", "w"):
            extra = {"weights": "w"} if name == "w" else {}
            weights = {name: column} if name != "w" else {"w": [None if v is None else v + 1
                                                                for v in gaps]}  # fmt: skip
            data = build(table(**weights), **extra)
            assert data.num_dropped == (0 if column is values and name != "w" else 7)
        data = build(table(z=column))
        kept = [float(v) for v in (values if column is values else gaps) if v is not None]
        assert data.z[0].values.tolist() == kept
    assert "1 infinite" in line_of(lambda: build(table(z=[decimal.Decimal("inf"), *values[1:]])))


# ---------------------------------------------------------------------------- declared categories


def categorical(values):
    return {
        "pandas": pd.Series(values, dtype="category"),
        "pandas, unused and out of order": pd.Categorical(
            values, categories=[99, *{*values} - {None}]),
        "pandas ordered": pd.Categorical(values, ordered=True),
        "arrow": pa.array(values).dictionary_encode(),
        "arrow in chunks": pa.chunked_array([pa.array(values[:9]).dictionary_encode(),
                                             pa.array(values[9:]).dictionary_encode()]),
        "pandas on arrow": pd.Series(pa.array(values).dictionary_encode(), dtype=pd.ArrowDtype(
            pa.dictionary(pa.int32(), pa.int64()))),
        "polars Enum": pl.Series(as_texts(values), dtype=pl.Enum(
            sorted({str(v) for v in values if v is not None}))),
        "polars Categorical": pl.Series(as_texts(values), dtype=pl.Categorical),
    }  # fmt: skip


@pytest.mark.parametrize("kind", categorical([*range(12)]))
@pytest.mark.parametrize("base", [0, 8, 2**60])
def test_declared_categories_of_whole_numbers_are_categories(kind, base, tmp_path):
    values = [None if i % 13 == 5 else base + i // 2 % 4 for i in range(N)]
    column = categorical(values)[kind]
    right = [(v - base) for v in values if v is not None]
    levels = tuple(str(base + i) for i in range(4))  # in the order of the numbers
    data = build(table(z=column))
    assert (data.z[0].levels, data.z[0].values.tolist()) == (levels, right)
    assert data.missing == {"z": 5}
    frame = {n: pa.array(v) for n, v in table().items()}
    packed = pa.array(column) if kind.startswith("pandas") else column
    if not kind.startswith("polars"):
        pq.write_table(pa.table(frame | {"z": packed}), tmp_path / "rows.parquet")
        data = jm.read(tmp_path / "rows.parquet", **ROLES)
        assert (data.z[0].levels, data.z[0].values.tolist()) == (levels, right)
    if base == 0:  # an outcome needs numbers, and has them
        assert build(table(y=column)).outcome.values.tolist() == [float(v) for v in right]
    assert build(table(g=column), cluster="g").cluster.tolist() == right
    assert jm.features.encode(build(table(z=column))).z.shape == (N - 5, 4)


def test_categories_of_anything_have_names():
    cut = pd.cut(pd.Series(I), [-1, 20, 40, 60])
    assert build(table(z=cut)).z[0].levels == ("(-1, 20]", "(20, 40]", "(40, 60]")
    halves = pd.Categorical(I // 2 % 3 / 2)
    assert build(table(z=halves)).z[0].levels == ("0", "0.5", "1")
    texts = pd.Categorical(["None" if i % 4 == 3 else "ab"[i % 2] for i in range(N)])
    assert build(table(z=texts)).z[0].levels == ("None", "a", "b")
    zeros = pd.Categorical([("01", "1", "2", "3")[i // 2 % 4] for i in range(N)])
    assert build(table(g=zeros), cluster="g").cluster.max() == 2  # declared, and still numbers


# ------------------------------------------------------------------------------------------ dates


def test_dates_are_clusters(tmp_path):
    days = [datetime.date(2020, 1, 1 + i % 6) for i in range(N)]
    numpy_days = np.array(days, "datetime64[D]")
    kinds = [days, numpy_days, numpy_days.astype("datetime64[ns]"), pd.Series(numpy_days),
             pd.Series(numpy_days).dt.tz_localize("UTC"), pl.Series(days), pa.array(days),
             [day.isoformat() for day in days],
             pd.Series(days, dtype="date32[pyarrow]")]  # fmt: skip
    for kind in kinds:
        assert build(table(g=kind), cluster="g").cluster.tolist() == [i % 6 for i in range(N)]
    written(table(g=days), tmp_path / "rows.csv")
    assert jm.read(tmp_path / "rows.csv", cluster="g", **ROLES).cluster.max() == 5
    gaps = [None if i % 7 == 2 else day for i, day in enumerate(days)]
    for kind in (gaps, pd.Series(gaps), pd.to_datetime(pd.Series(gaps)), pl.Series(gaps)):
        data = build(table(g=kind), cluster="g")
        assert (data.cluster.max(), data.missing) == (5, {"g": 9})
    others = [
        [datetime.time(i % 6) for i in range(N)],
        [datetime.timedelta(i % 6) for i in range(N)],
        pd.Series(pd.period_range("2020-01", periods=6, freq="M")[I % 6]),
        [uuid.UUID(int=i % 6) for i in range(N)],
        pl.Series([datetime.time(i % 6) for i in range(N)]),
    ]
    for kind in others:
        assert build(table(g=kind), cluster="g").cluster.tolist() == [i % 6 for i in range(N)]
        assert "'z' holds a " in line_of(lambda kind=kind: build(table(z=kind)))
    arms = pd.to_datetime(["2020-01-02", "2020-01-01"] * (N // 2))
    assert build(table(t=arms), control="2020-01-02").arms == ("2020-01-02", "2020-01-01")
    for kind in kinds[:-1]:
        for name in ("z", "y"):
            line = line_of(lambda kind=kind, name=name: build(table(**{name: kind})))
            assert f"column {name!r} holds dates or times" in line


# -------------------------------------------------------------------------------- what is not there


def test_a_column_with_one_cell_is_named_itself():
    lonely = [None] * (N - 1) + [3]
    for name, roles in (("c", {"covariates": ["c"]}), ("z", {}), ("g", {"cluster": "g"}),
                        ("w", {"weights": "w"})):  # fmt: skip
        line = line_of(lambda name=name, roles=roles: build(table(**{name: lonely}), **roles))
        assert f"column {name!r}" in line
        assert "the 1 of its 60 cells that is not missing; leave it out" in line
    same = [None] * (N - 9) + [3] * 9
    line = line_of(lambda: build(table(c=same), covariates=["c"]))
    assert "'c' (covariates) is constant ('3') in the 9 of its 60 cells that are not" in line


def test_rows_dropped_for_one_column_are_not_blamed_on_another():
    half = [i if i % 2 else None for i in range(N)]
    line = line_of(lambda: build(table(c=half), covariates=["c"]))
    assert "treatment 't' has one arm only" in line
    assert "30 of 60 rows were dropped for missing cells ('c' 30)" in line


# ------------------------------------------------------------------------------------------ files

TEXT = table(z=[("S\u00fcd", "S\u00e4d", "Nord")[i // 2 % 3] for i in range(N)])
LEVELS = ("Nord", "S\u00e4d", "S\u00fcd")


@pytest.mark.parametrize(
    "encoding", ["latin-1", "cp1252", "utf-16", "utf-16-le", "utf-32", "utf-8-sig"]
)
def test_a_file_in_another_encoding_is_refused_or_read(encoding, tmp_path):
    path = written(TEXT, tmp_path / "rows.csv", encoding)
    data = jm.read(path, encoding=encoding, **ROLES)
    assert data.z[0].levels == LEVELS
    if encoding == "utf-8-sig":
        assert jm.read(path, **ROLES).z[0].levels == LEVELS
        return
    line = line_of(lambda: jm.read(path, **ROLES))
    assert "rows.csv" in line
    assert "utf-8" in line
    assert "--encoding" in line
    if encoding == "latin-1":
        assert "byte 0xfc in line 2 in column 'z'" in line
        assert "--encoding latin-1" in line
    if encoding.startswith("utf-16"):
        assert "UTF-16" in line


def test_bytes_without_a_role_need_no_encoding(tmp_path):
    path = written(table(note=["S\u00fcd"] * N), tmp_path / "rows.csv", "latin-1")
    assert jm.read(path, **ROLES).num_rows == N
    named = written({"t\u00fc" if n == "t" else n: v for n, v in table().items()}, path, "latin-1")
    line = line_of(lambda: jm.read(named, **(ROLES | {"treatment": "t\u00fc"})))
    assert "header is not utf-8" in line
    assert jm.read(named, encoding="latin-1", **(ROLES | {"treatment": "t\u00fc"})).num_rows == N


def test_an_encoding_that_does_not_fit_is_said(tmp_path):
    path = written(TEXT, tmp_path / "rows.csv", "latin-1")
    for encoding in ("utf8", "ascii"):
        assert "rows.csv" in line_of(lambda e=encoding: jm.read(path, encoding=e, **ROLES))
    line = line_of(lambda: jm.read(path, encoding="utf-16", **ROLES))
    assert len(line) < 400  # a header of nonsense is cut short
    for encoding in ("latin-x", "base64", "", 3):
        line = line_of(lambda e=encoding: jm.read(path, encoding=e, **ROLES))
        assert f"encoding (--encoding) is {encoding!r}" in line


def test_bytes_of_frames_are_decoded_or_refused(tmp_path):
    texts = [("S\u00fcd", "Nord")[i // 2 % 2] for i in range(N)]
    good, bad = ([text.encode(e) for text in texts] for e in ("utf-8", "latin-1"))
    for kind in (good, np.array(good), pa.array(good), pl.Series(good), pd.Series(good)):
        assert build(table(z=kind)).z[0].levels == ("Nord", "S\u00fcd")
    for kind in (bad, np.array(bad), pa.array(bad), pl.Series(bad), pd.Series(bad)):
        line = line_of(lambda kind=kind: build(table(z=kind)))
        assert "column 'z' holds bytes that are not utf-8" in line
        assert "--encoding latin-1" in line
    pq.write_table(pa.table(table(z=pa.array(bad))), tmp_path / "rows.parquet")
    assert "--encoding" in line_of(lambda: jm.read(tmp_path / "rows.parquet", **ROLES))
    data = jm.read(tmp_path / "rows.parquet", encoding="latin-1", **ROLES)
    assert data.z[0].levels == ("Nord", "S\u00fcd")
    lost = [text.encode("latin-1").decode("utf-8", "surrogateescape") for text in texts]
    assert "column 'z' holds text that was not decoded" in line_of(lambda: build(table(z=lost)))


@pytest.mark.parametrize("role", [True, False])
def test_line_breaks_in_quotes_of_a_large_file(role, tmp_path):
    n = 30_000
    frame = {"t": np.arange(n) % 2, "y": np.arange(n), "z": np.arange(n) // 2 % 3,
             "x": np.arange(n) // 4 % 2,
             "note": [f"one\n\ntwo, \"{'x' * (i % 67)}\"" for i in range(n)]}  # fmt: skip
    if role:
        frame["note"] = [("a\nb", "c\r\nd\n\n" + "e" * 90)[i // 8 % 2] for i in range(n)]
    path = written(frame, tmp_path / "notes.csv")
    assert path.stat().st_size > 1 << 20
    data = jm.read(path, **(ROLES | {"z": ["z", "note"] if role else ["z"]}))
    np.testing.assert_array_equal(data.outcome.values, frame["y"])
    if role:
        assert data.z[1].levels == ("a\nb", "c\r\nd\n\n" + "e" * 90)


def test_rows_longer_than_a_block_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(separated, "_BLOCK", 1 << 12)
    frame = table(note=["x\n" * 4000 if i == 40 else "short" for i in range(N)])
    assert jm.read(written(frame, tmp_path / "rows.csv"), **ROLES).num_rows == N


@pytest.mark.parametrize(
    "tail",
    [
        '7,3.5,1,"0\n',
        '7,3.5,1,0,"no end\n8,4,1,0,"\n9,4,1,0,"x\n',
        '7,3,1,0,"a\n8,4,1,0,b\n9,4,1,0,"c\n',
    ],
)
def test_a_quote_that_is_never_closed_swallows_no_rows(tail, tmp_path):
    path = tmp_path / "rows.csv"
    names = "t,y,z,x,note\n" if tail.count(",") > 3 else "t,y,z,x\n"
    end = ",a\n" if "note" in names else "\n"
    rows = "".join(f"{i % 2},{i},{i // 2 % 2},{i // 4 % 2}{end}" for i in range(20))
    path.write_text(names + rows + tail + rows)
    line = line_of(lambda: jm.read(path, **ROLES))
    assert "rows.csv" in line
    assert "a quote in line 2" in line or "Expected" in line


def test_inches_are_no_open_quotes(tmp_path):
    notes = {9: '5" pipe', 20: '5" pipe', 30: '5" pipe', 40: '"a" b', 50: '"a\nb"'}
    frame = table(note=[notes.get(i, "none") for i in range(N)])
    path = tmp_path / "rows.csv"
    path.write_text("t,y,z,x,note\n" + "".join(
        f"{','.join(str(frame[n][i]) for n in frame)}\n" for i in range(N)))  # fmt: skip
    assert jm.read(path, **ROLES).num_rows == N


def compressed(kind, content):
    stream = pa.BufferOutputStream()
    with pa.CompressedOutputStream(stream, kind) as packed:
        packed.write(content)
    return stream.getvalue().to_pybytes()


def parquet_bytes():
    out = io.BytesIO()
    pq.write_table(pa.table(table()), out)
    return out.getvalue()


CSV = pd.DataFrame(table()).to_csv(index=False).encode()
SHAPES = {
    "ROWS.CSV": CSV,
    "rows.Csv.GZ": gzip.compress(CSV),
    "rows.csv.bz2": compressed("bz2", CSV),
    "rows.csv.zst": compressed("zstd", CSV),
    "rows.csv.lz4": compressed("lz4", CSV),
    "rows.csv.xz": lzma.compress(CSV),
    "rows.csv": gzip.compress(CSV),  # compressed, and not called so
    "rows": CSV,
    "rows.dat": CSV,
    "rows.tsv": CSV.replace(b",", b"\t"),
    "rows.TAB": CSV.replace(b",", b"\t"),
    "ROWS.PARQUET": parquet_bytes(),
    "rows.PQ": parquet_bytes(),
    "parquet.csv": parquet_bytes(),  # parquet, and not called so
    "rows.parquet.gz": gzip.compress(parquet_bytes()),
    "quoted.csv": "\n".join(",".join(f'"{c}"' for c in row.split(","))
                            for row in CSV.decode().split()).encode(),
    "old.csv": CSV.replace(b"\n", b"\r"),
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_a_file_is_what_its_content_says(name, tmp_path):
    (tmp_path / name).write_bytes(SHAPES[name])
    data = jm.read(tmp_path / name, **ROLES)
    assert fuzz.found(data) == fuzz.found(build(table()))


def archive():
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as packed:
        packed.writestr("rows.csv", CSV)
    return raw.getvalue()


OTHERS = {
    "rows.zip": (archive(), "zip archive"),
    "rows.xlsx": (archive(), "Excel"),
    "rows.xls": (b"\xd0\xcf\x11\xe0" + bytes(40), "Excel"),
    "rows.feather": (b"ARROW1\x00\x00" + bytes(40), "Feather"),
    "rows.h5": (b"\x89HDF\r\n" + bytes(40), "HDF5"),
    "rows.pdf": (b"%PDF-1.4", "PDF"),
    "page.csv": (b"<!DOCTYPE html><html></html>", "web page"),
    "rows.parquet": (CSV, "its name says parquet"),
    "rows.csv.gz": (CSV, "its name says gzip"),
    "rows.csv.xz": (CSV, "its name says xz"),
    "cut.csv.gz": (gzip.compress(CSV)[:60], "cut.csv.gz"),
    "cut.csv.xz": (lzma.compress(CSV)[:60], "cut.csv.xz"),
    "cut.parquet": (parquet_bytes()[:200], "cut.parquet"),
    "wide.csv": (CSV.decode().encode("utf-16-be"), "UTF-16"),
    "noise.csv": (CSV + bytes(30), "binary data"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_kind_of_file_is_named(name, tmp_path):
    content, what = OTHERS[name]
    (tmp_path / name).write_bytes(content)
    line = line_of(lambda: jm.read(tmp_path / name, **ROLES))
    assert what in line
    assert "cannot be read as a table" in line
    assert "give a csv or parquet file" in line


@pytest.mark.parametrize(("mark", "word"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
@pytest.mark.parametrize("comma", [False, True])
def test_another_separator_is_named(mark, word, comma, tmp_path):
    text = CSV.decode().replace(",", mark)
    (tmp_path / "rows.csv").write_text(text.replace(".", ",") if comma else text)
    line = line_of(lambda: jm.read(tmp_path / "rows.csv", **ROLES))
    assert f"separated by {word}" in line
    assert "column 't' (treatment) is not in the table" in line


def test_pipes_are_read_and_devices_are_not(tmp_path):
    for content in (CSV, gzip.compress(CSV), parquet_bytes()):
        path = tmp_path / f"pipe{len(content)}"
        os.mkfifo(path)
        writer = threading.Thread(target=path.write_bytes, args=(content,))
        writer.start()
        assert jm.read(path, **ROLES).num_rows == N
        writer.join()
    assert "is a device" in line_of(lambda: jm.read("/dev/null", **ROLES))


def test_a_pipe_and_a_home_on_the_command_line(tmp_path, monkeypatch, capsys):
    """Read as far as the names of the columns, which are then wrong."""
    reader, writer = os.pipe()
    os.write(writer, CSV)
    os.close(writer)
    words = ["--treatment", "t", "--outcome", "y", "--z", "z", "--x", "nope"]
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "rows.csv").write_bytes(CSV)
    for path in (f"/dev/fd/{reader}", "~/rows.csv"):
        assert cli.run(["fit", path, *words]) == 2
        assert "column 'nope' (x) is not in the table; it has 't', 'y'" in capsys.readouterr().err
    os.close(reader)
    assert jm.read("~/rows.csv", **ROLES).num_rows == N
    assert jm.read(pathlib.Path("~/rows.csv"), **ROLES).num_rows == N
    assert "no file '/" in line_of(lambda: jm.read("~/none.csv", **ROLES))
