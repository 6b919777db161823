"""Names of columns that are no texts, or odd ones; rows that a fit tells the classes of."""

import dataclasses
import functools
import json

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import jaxmix as jm
from jaxmix import InputError, latent_classes
from jaxmix.report.tables import text_keys


def table(n=600, seed=0):
    """Return rows of two hidden classes: two columns of z, one of x, all categories."""
    rng = np.random.default_rng(seed)
    u = rng.random(n) < 0.45

    def draw(high, low):
        return (rng.random(n) < np.where(u, high, low)).astype(int)

    t = draw(0.7, 0.35)
    return {
        "t": t,
        "y": (rng.random(n) < 0.2 + 0.3 * u + 0.1 * t + 0.2 * u * t) * 0.5,
        "z1": np.array(["no", "yes"])[draw(0.8, 0.2)],
        "z2": draw(0.7, 0.3) + 3,
        "x": np.array(["p", "q", "r"])[draw(0.8, 0.3) + draw(0.6, 0.2)],
    }


def fitted(names, frame=None, **more):
    """Return a result whose columns have names of their own."""
    own = dict(zip(("t", "y", "z1", "z2", "x"), names, strict=True))
    frame = table() if frame is None else frame
    renamed = {own[key]: values for key, values in frame.items()}
    data = jm.CausalData.from_frame(
        renamed, treatment=own["t"], outcome=own["y"], z=[own["z1"], own["z2"]], x=[own["x"]]
    )
    options = {"level": 3, "num_classes": 2, "num_resamples": 0, "interval": "normal"} | more
    return jm.fit(data, **options), data, renamed


@pytest.fixture(scope="module")
def plain():
    return fitted(("t", "y", "z1", "z2", "x"), checks=False)


# Rows.


def by_hand(result, row):
    """Return the class probabilities of a row by Bayes' rule."""
    classes, mixture = result.classes, result.classes.mixture
    t = classes.arms.index(str(row["t"]))
    z = list(classes.z_cells).index((str(row["z1"]), str(row["z2"])))
    x = list(classes.x_cells).index((str(row["x"]),))
    y = classes.outcome_values.tolist().index(row["y"])
    joint = mixture.shares * mixture.z_profiles[t, z] * mixture.x_profiles[x]
    joint = joint * mixture.y_profiles[t, y]
    return joint / joint.sum()


KINDS = {
    "dict": lambda rows: rows,
    "pandas": pd.DataFrame,
    "polars": pl.DataFrame,
    "arrow": pa.table,
    "more columns": lambda rows: rows | {"other": np.full(len(rows["t"]), np.nan)},
    "another order": lambda rows: dict(reversed(rows.items())),
    "lists": lambda rows: {name: values.tolist() for name, values in rows.items()},
    "pandas categories": lambda rows: pd.DataFrame(rows).astype({"z1": "category"}),
    "texts": lambda rows: rows | {"z2": rows["z2"].astype(str), "t": rows["t"].astype(str)},
}


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_any_table(plain, kind):
    result, data, frame = plain
    expected = result.posterior(data)
    assert expected.shape == (600, 2)
    np.testing.assert_allclose(expected.sum(1), 1.0)
    rows = KINDS[kind](frame)
    np.testing.assert_array_equal(result.posterior(rows), expected)
    effects = result.expected_effects(rows)
    np.testing.assert_allclose(effects, expected @ np.asarray(result.law.effects), rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("some", ["one row", "one arm", "one value of everything", "two rows"])
def test_some_rows_of_any_table(plain, some, kind):
    result, data, frame = plain
    rows = {
        "one row": np.array([17]),
        "two rows": np.array([3, 599]),
        "one arm": np.flatnonzero(frame["t"] == 1),
        "one value of everything": np.flatnonzero(
            functools.reduce(np.logical_and, (v == v[5] for v in frame.values()))
        ),
    }[some]
    own = KINDS[kind]({name: values[rows] for name, values in frame.items()})
    found = result.posterior(own)
    np.testing.assert_array_equal(found, result.posterior(data)[rows])
    for i in (0, len(rows) - 1):
        row = {name: values[rows[i]] for name, values in frame.items()}
        np.testing.assert_allclose(found[i], by_hand(result, row), rtol=1e-10)


def test_rows_of_a_table_with_other_roles(plain):
    """A table of its own has arms and levels of its own, and columns in another order."""
    result, data, frame = plain
    other = jm.CausalData.from_frame(
        frame, treatment="t", outcome="y", z=["z2", "z1"], x=["x"], control=1
    )
    np.testing.assert_array_equal(result.posterior(other), result.posterior(data))
    some = dataclasses.replace(
        data,
        t=data.t[:1],
        outcome=data.outcome.take(np.array([0])),
        z=tuple(column.take(np.array([0])) for column in data.z),
        x=tuple(column.take(np.array([0])) for column in data.x),
    )
    np.testing.assert_array_equal(result.posterior(some), result.posterior(data)[:1])


WRONG = [
    (
        {"z1": ["perhaps"]},
        "the z values z1 = perhaps do not occur in the data of the fit; it knows",
    ),
    ({"z2": [5]}, "the z values z2 = 5 do not occur in the data of the fit; it knows '3', '4'"),
    ({"x": ["s"]}, "the x values x = s do not occur"),
    ({"t": [2]}, "arm '2' of 't' is not in the fit; it knows '0', '1'"),
    ({"t": ["b"]}, "arm 'b' of 't' is not in the fit"),
    ({"y": [1.0]}, "outcome 'y' = 1 does not occur in the fit; it knows '0', '0.5'"),
    ({"y": ["high"]}, "outcome 'y' = high does not occur in the fit"),
    ({"y": [np.nan]}, "column 'y' has 1 missing cells (first in row 1); class probabilities need"),
    ({"z1": [None]}, "column 'z1' has 1 missing cells"),
    ({"t": [None]}, "column 't' has 1 missing cells"),
    ({"y": None}, "column 'y' is not in the table; it has 't', 'z1', 'z2', 'x'"),
    ({"t": None}, "column 't' is not in the table"),
    ({"x": None}, "column 'x' is not in the table"),
    ({"x": ["p", "q"]}, "different lengths: 't' 1, 'y' 1, 'z1' 1, 'z2' 1, 'x' 2"),
    ({name: [] for name in table()}, "the table has no rows"),
]


@pytest.mark.parametrize(("changed", "message"), WRONG, ids=[message for _, message in WRONG])
@pytest.mark.parametrize("call", ["posterior", "expected_effects"])
def test_one_line_for_rows_that_are_wrong(plain, call, changed, message):
    result, _, frame = plain
    row = {name: values[:1].tolist() for name, values in frame.items()} | changed
    row = {name: values for name, values in row.items() if values is not None}
    with pytest.raises(InputError) as raised:
        getattr(result, call)(row)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_values_that_do_not_occur_together():
    frame = table()
    seen = ~((frame["z1"] == "yes") & (frame["z2"] == 3))
    few = {name: values[seen] for name, values in frame.items()}
    result, _, _ = fitted(("t", "y", "z1", "z2", "x"), few, checks=False)
    row = {name: values[:1] for name, values in frame.items()} | {"z1": ["yes"], "z2": [3]}
    with pytest.raises(InputError, match="z values z1 = yes, z2 = 3 do not occur together in the"):
        result.posterior(row)


@pytest.mark.parametrize("rows", [None, 3, [1, 2], np.zeros((2, 5)), "rows.csv"])
def test_what_is_no_table(plain, rows):
    with pytest.raises(InputError, match="give a dict of arrays"):
        plain[0].posterior(rows)


# Names.

NAMES = {
    "ints": (0, 1, 2, 3, 4),
    "numpy ints": tuple(np.arange(5)),
    "a text and its number": ("0", 0, 1, "1", 2),
    "tuples": (("a", "t"), ("a", "y"), ("b", "z"), ("b", 2), ("c", np.int64(1))),
    "floats": (0.5, 1.5, 2.5, 3.5, 4.5),
    "booleans": (True, False, "z1", "z2", "x"),
    "a formula": ("$t$", r"$\frac{a$", "a$b$c", r"\alpha$", "$"),
    "markup": ("<b>t</b>", "y & z", '"z"', "{z}", "%s"),
    "blanks": ("the treatment", " y", "z\tz", "z\nz", ""),
    "underscores": ("_t", "__y", "_z_", "a_b", "_"),
}


@pytest.mark.parametrize("kind", NAMES)
def test_names_of_every_kind(kind, tmp_path):
    # Bounds are a search: two kinds of names are enough for their figure.
    checks = kind in ("a text and its number", "a formula")
    result, data, renamed = fitted(NAMES[kind], checks=checks)
    treatment, outcome = NAMES[kind][:2]
    text = result.summary()
    assert " ".join(f"Effect of {treatment} (1 against 0) on {outcome}".split()) in " ".join(
        text.split()
    )
    assert repr(result) == text
    assert result._repr_html_().count("<table>") >= 2
    result.to_json(tmp_path / "out.json")
    record = json.loads((tmp_path / "out.json").read_text())
    assert (record["treatment"], record["outcome"]) == (str(treatment), str(outcome))
    figures = [result.plot()]
    if checks:
        influential = record["diagnostics"]["influential"][0][0]
        assert sorted(influential) == sorted(text_keys(NAMES[kind]))
        assert len(influential) == 5
        figures.append(result.sensitivity.plot())
    assert len(result.to_frame()) == 10
    for number, figure in enumerate(figures):
        path = tmp_path / f"{number}.png"
        figure.savefig(path)
        assert path.stat().st_size > 0
    assert str(outcome).strip() in result.plot().axes[0].get_xlabel()
    np.testing.assert_array_equal(result.posterior(renamed), result.posterior(data))


@pytest.mark.parametrize("kind", NAMES)
def test_names_of_columns_with_gaps(kind):
    frame = {name: [*values.tolist(), values[0].item()] for name, values in table().items()}
    frame["z1"][-1] = None
    frame["y"][0] = None
    names = NAMES[kind]
    own = dict(zip(names, frame.values(), strict=True))
    data = jm.CausalData.from_frame(
        own, treatment=names[0], outcome=names[1], z=list(names[2:4]), x=[names[4]]
    )
    result = jm.fit(data, num_resamples=0)
    record = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert record["diagnostics"]["missing"] == dict.fromkeys(text_keys([names[1], names[2]]), 1)
    assert "2 dropped" in result.summary()


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("as_pandas", [False, True])
def test_names_of_latent_classes(kind, as_pandas, tmp_path):
    frame = {name: values.tolist() for name, values in table().items() if name != "y"}
    frame["x"][0] = None
    names = [name for i, name in enumerate(NAMES[kind]) if i != 1]
    own = dict(zip(names, frame.values(), strict=True))
    rows = own
    if as_pandas:
        rows = pd.DataFrame(dict(enumerate(own.values())))
        rows.columns = pd.Index(list(own), tupleize_cols=False)
    result = latent_classes(rows, 2, num_starts=4)
    assert list(result.profiles) == names
    result.to_json(tmp_path / "out.json")
    record = json.loads((tmp_path / "out.json").read_text())
    assert list(record["profiles"]) == text_keys(names)
    assert record["missing"] == dict(zip(text_keys(names), [0, 0, 0, 1], strict=True)) or (
        list(record["missing"].values()) == [1]
    )
    assert "1 columns" not in result.summary()
    assert "<table>" in result._repr_html_()
    np.testing.assert_allclose(result.posterior(rows).sum(1), 1.0)


def test_a_table_with_two_rows_of_names():
    """The columns of pandas in several levels are tuples."""
    frame = pd.DataFrame(table())
    frame.columns = pd.MultiIndex.from_tuples(
        [("own", "t"), ("own", "y"), ("z", 1), ("z", 2), ("x", 1)]
    )
    data = jm.CausalData.from_frame(
        frame, treatment=("own", "t"), outcome=("own", "y"), z=[("z", 1), ("z", 2)], x=[("x", 1)]
    )
    result = jm.fit(data, num_resamples=0)
    assert json.loads(json.dumps(result.to_dict()))["treatment"] == "('own', 't')"
    assert result.plot().axes[0].get_xlabel() == "effect on ('own', 'y')"
