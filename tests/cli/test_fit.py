"""The command line: what it prints, writes and returns for right and for wrong calls."""

import functools
import importlib.util
import io
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import zipfile

import jax
import numpy as np
import pandas as pd
import pytest

import jaxmix as jm
from jaxmix import __main__, cli

N = 400
ROLES = ["--treatment", "t", "--outcome", "y", "--z", "z", "--x", "x"]
CLASSES = ["--level", "3", "--classes", "2"]
POINT = ["--resamples", "0", "--no-checks"]


def table(seed=0):
    """Return rows of two hidden classes with effects -1 and 1.5, and more columns for options."""
    rng = np.random.default_rng(seed)
    u = rng.integers(0, 2, N)
    t = (rng.random(N) < np.where(u, 0.65, 0.35)).astype(int)
    return {
        "t": t,
        "y": np.round(2 * u + t * np.where(u, 1.5, -1) + 0.3 * rng.normal(size=N), 4),
        "z": (rng.random(N) < np.where(u, 0.9, 0.1)).astype(int),
        "x": (rng.random(N) < np.where(u, 0.9, 0.1)).astype(int),
        "drug": np.where(t, "new", "old"),
        "grade": u + rng.integers(0, 2, N),
        "cov": np.round(rng.normal(size=N), 4),
        "w": rng.integers(1, 4, N),
        "g": np.arange(N) // 4,
    }


def noise(seed):
    """Return rows in which nothing depends on anything."""
    rng = np.random.default_rng(seed)
    binary = {name: rng.integers(0, 2, N) for name in ("t", "z", "x")}
    return binary | {"y": np.round(rng.normal(size=N), 4)}


def balanced():
    """Return rows in which z and x are exactly independent in each arm."""
    i = np.arange(N)
    return noise(0) | {"t": i % 2, "z": i // 2 % 2, "x": i // 4 % 2}


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "rows.csv"
    pd.DataFrame(table()).to_csv(path, index=False)
    return path


def plain_json(path):
    """Read JSON that has no NaN or Infinity in it."""

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(pathlib.Path(path).read_text(), parse_constant=refuse)


@pytest.fixture(scope="module")
def record(rows):
    """Return a function from options to the JSON that they give; each is run once."""

    @functools.cache
    def run(*options):
        out = rows.with_name("record.json")
        assert cli.run(["fit", str(rows), *ROLES, *options, "--json", str(out)]) == 0
        return plain_json(out)

    return run


def one_line(capsys):
    """Return the only line on standard error, where standard output is empty."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("\n")
    assert len(err.splitlines()) == 1
    assert err.startswith("jaxmix: ")
    assert err[:-1].isprintable()
    return err


# --------------------------------------------------------------------------------- wrong input

I = np.arange(N)  # noqa: E741
PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x1b[31m" + bytes(range(256))


def with_value(name, row, value):
    """Return the table with one cell changed."""
    column = table()[name].astype(object)
    column[row] = value
    return {name: column}


def zipped():
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        archive.writestr("rows.csv", "t,y,z,x\n0,1,0,1\n")
    return raw.getvalue()


# What changes in the table (or the bytes of the file), options, what the line must contain.
WRONG = {
    "unknown column": ({}, ["--z", "nope"], ["'nope'", "(z)", "'t', 'y', 'z', 'x'"]),
    "unknown weights": ({}, ["--weights", "W"], ["'W'", "(weights)", "'t', 'y', 'z', 'x'"]),
    "doubled column": (b"t,y,z,x,z\n0,1,0,1,0\n1,2,1,0,1\n", [], ["'z'", "2 times", "rename"]),
    "two roles": ({}, ["--covariates", "cov,y"], ["'y'", "as outcome and as covariates"]),
    "twice in a role": ({}, ["--x", "x, x"], ["'x'", "twice in x", "one role"]),
    "no proxies": ({}, ["--z", " , "], ["z names no column", "at least one"]),
    "one arm": ({"t": I * 0}, [], ["'t'", "one arm only", "'0'", "needs two"]),
    "small arm": (
        {"t": I < 3},
        [],
        ["arm '1' of treatment 't'", "3 rows", "2 z and 2 x", "at least 4", "fewer columns"],
    ),
    "small arm, many cells": (
        {"t": I < 9, "z": I % 5},
        ["--features", "onehot"],
        ["arm '1' of treatment 't'", "9 rows", "5 z and 2 x", "at least 10", "fewer columns"],
    ),
    "three arms": (
        {"t": I % 3},
        ["--control", "1"],
        ["'t'", "3 arms", "'1', '0', '2'", "keep the rows of two arms"],
    ),
    "text treatment": (
        {"t": table()["drug"]},
        [],
        ["'t'", "'new', 'old'", "--control"],
    ),
    "control is no arm": ({}, ["--control", "old"], ["'old'", "'t'", "'0', '1'"]),
    "constant outcome": ({"y": I * 0 + 7}, [], ["'y'", "(outcome)", "constant ('7')", "leave it"]),
    "constant proxy": ({"x": ["a"] * N}, [], ["'x'", "(x)", "constant ('a')", "take another"]),
    "text outcome": (with_value("y", 3, "high"), [], ["'y'", "text ('high')", "numbers"]),
    "infinite value": (with_value("y", 3, "inf"), [], ["'y'", "1 infinite", "missing or correct"]),
    "negative infinity": (with_value("z", 3, "-Infinity"), [], ["'z'", "1 infinite", "correct"]),
    "negative weights": (
        with_value("w", 3, -2),
        ["--weights", "w"],
        ["'w'", "(-2, first in row 4)", "zero or more"],
    ),
    "fractions for frequencies": (
        with_value("w", 3, 1.5),
        ["--weights", "w", "--weights-kind", "frequency"],
        ["'w'", "1.5", "sampling"],
    ),
    "one cluster": ({"g": I * 0}, ["--cluster", "g"], ["'g'", "one value", "several"]),
    "all rows missing": ({"z": [None] * N}, [], ["'z' 400", "leave out the emptiest"]),
    "dates": ({"x": ["2020-01-01", "2020-02-01"] * 200}, [], ["'x'", "dates", "numbers"]),
    "dependent columns": (
        {"grade": I % 7, "cov": I % 7 * 2 + 1},
        ["--z", "grade,cov"],
        ["'cov' of view z", "linear combination", "leave it out"],
    ),
    "more than MAX_CELLS": (
        {"z": [f"k{i % 65}" for i in I]},
        [],
        ["coding of z", "over 64 cells", "'z'", "the features 'linear'"],
    ),
    # files
    "no file": (None, [], ["no file", "rows.csv", "check the path"]),
    "empty file": (b"", [], ["rows.csv", "is empty"]),
    "only a header": (b"t,y,z,x\n", [], ["no rows", "right file"]),
    "a picture": (PNG, [], ["rows.csv", "cannot be read", "csv or parquet"]),
    "a zip": (zipped(), [], ["rows.csv", "cannot be read", "csv or parquet"]),
    "semicolons": (b"t;y;z;x\n0;1;0;1\n", [], ["'t'", "'t;y;z;x'"]),
    # options
    "unknown option": ({}, ["--klasses", "2"], ["--klasses", "--help"]),
    "option without value": ({}, ["--classes"], ["--classes", "--help"]),
    "seed is no number": ({}, ["--seed", "one"], ["--seed", "integer"]),
    "seed is too large": ({}, ["--seed", str(2**63)], ["seed", str(2**63), "63 bits"]),
    "resamples are no number": ({}, ["--resamples", "many"], ["--resamples", "integer"]),
    "few resamples": ({}, ["--resamples", "19"], ["resamples", "19", "0", "at least 20"]),
    "negative resamples": ({}, ["--resamples", "-1"], ["resamples", "-1", "at least 20"]),
    "confidence in percent": ({}, ["--confidence", "95"], ["confidence", "95", "between 0 and 1"]),
    "confidence is no number": ({}, ["--confidence", "nan"], ["confidence", "nan", "0 and 1"]),
    "classes in words": ({}, ["--classes", "two"], ["--classes", "'two'", "whole number"]),
    "no classes": ({}, ["--classes", "0"], ["classes", "0", "at least 1"]),
    "level in words": ({}, ["--level", "three"], ["level", "'three'", "'auto', 2, 3, 4"]),
    "level 5": ({}, ["--level", "5"], ["level", "5", "'auto', 2, 3, 4"]),
    "level raised": ({}, ["--level", "\u00b2"], ["level", "'\u00b2'", "'auto', 2, 3, 4"]),
    "method": ({}, ["--method", "em"], ["method", "'em'", "'bridge'"]),
    "bridge": ({}, ["--bridge", "arm"], ["bridge", "'arm'", "'by_arm', 'pooled'"]),
    "estimand": ({}, ["--estimand", "LATE"], ["estimand", "'LATE'", "'ATE', 'ATT'"]),
    "better": ({}, ["--better", "more"], ["better", "'more'", "'higher', 'lower'"]),
    "interval": ({}, ["--interval", "wild"], ["interval", "'wild'", "'percentile', 'basic'"]),
    "features": ({}, ["--features", "dummy"], ["features", "'dummy'", "'auto', 'linear'"]),
    "weights kind": ({}, ["--weights-kind", "iid"], ["'iid'", "'sampling', 'frequency'"]),
    # options that do not go together, or are not built yet
    "level 2 without classes": ({}, ["--level", "2"], ["level 2", "--classes"]),
    "spectral at level 2": (
        {},
        ["--level", "2", "--classes", "2", "--method", "spectral"],
        ["'spectral' is of level 3", "'factorization'"],
    ),
    "level 3 without classes": ({}, ["--level", "3"], ["level 3", "--classes"]),
    "level 3 with covariates": (
        {},
        [*CLASSES, "--covariates", "cov,grade"],
        ["covariates ('cov', 'grade')", "level 4", "leave one of them out"],
    ),
    "bridge at level 3": ({}, [*CLASSES, "--method", "bridge"], ["'bridge'", "use level 4"]),
    "spectral at level 4": (
        {},
        ["--level", "4", "--method", "spectral"],
        ["'spectral'", "use level 3"],
    ),
    "pooled at level 3": ({}, [*CLASSES, "--bridge", "pooled"], ["pooled", "use level 4"]),
    "pooled ATT": (
        {},
        ["--bridge", "pooled", "--estimand", "ATT"],
        ["pooled bridge has no ATT", "by_arm"],
    ),
    "too many classes": ({}, ["--classes", "3"], ["is 3", "at most 2", "fewer classes or more"]),
    "too many classes at level 3": (
        {"z": I % 3, "x": I % 5},
        ["--level", "3", "--classes", "4", "--features", "onehot"],
        ["is 4", "at most 3 classes", "z has 3 features, x 5", "fewer classes or more proxies"],
    ),
    "too many classes beside covariates": (
        {},
        ["--level", "4", "--classes", "3", "--covariates", "cov,grade"],
        ["is 3", "at most 2 classes", "z has 2 features, x 2", "fewer classes or more"],
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_line_and_exit_code_2(case, tmp_path, monkeypatch, capsys):
    """Nothing is written, and nothing goes to standard output."""
    change, options, fragments = WRONG[case]
    monkeypatch.chdir(tmp_path)
    if isinstance(change, bytes):
        pathlib.Path("rows.csv").write_bytes(change)
    elif change is not None:
        pd.DataFrame(table() | change).to_csv("rows.csv", index=False)
    before = os.listdir()
    outputs = ["--json", "out.json", "--plot", "out.png"]
    assert cli.run(["fit", "rows.csv", *outputs, *ROLES, *POINT, *options]) == 2
    line = one_line(capsys)
    assert [fragment for fragment in fragments if fragment not in line] == []
    assert os.listdir() == before


@pytest.mark.parametrize(
    ("name", "content"), [("rows.parquet", b"t,y,z,x\n0,1,0,1\n"), ("rows.csv.gz", b"t,y\n0,1\n")]
)
def test_a_file_that_is_not_what_its_name_says(name, content, tmp_path, capsys):
    path = tmp_path / name
    path.write_bytes(content)
    assert cli.run(["fit", str(path), *ROLES]) == 2
    assert re.search(f"{name}' cannot be read as a table .*; give a csv or", one_line(capsys))


def test_a_folder_is_no_table(tmp_path, capsys):
    assert cli.run(["fit", str(tmp_path), *ROLES]) == 2
    line = one_line(capsys)
    assert f"{str(tmp_path)!r} is a folder" in line
    assert "give a csv or parquet file" in line


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["fit"], ["ROWS"]),
        (["fit", "rows.csv", *ROLES[2:]], ["--treatment"]),
        (["fit", "rows.csv", *ROLES[:-2]], ["--x"]),
        (["fit", "rows.csv", "more.csv", *ROLES], ["more.csv"]),
        (["fits"], ["fits"]),
        (["demo"], ["command"]),
        (["demo", "lalond"], ["lalond"]),
        (["demo", "lalonde", "--resamples", "3"], ["3", "at least 20"]),
        (["simulate", "population.toml"], ["--output"]),
        (["study"], ["command"]),
        (["identify"], ["GRAPH"]),
        (["identify", "graph.toml"], ["'graph.toml'", "cannot be read", "No such file"]),
        (["--verbose"], ["--verbose"]),
    ],
    ids=" ".join,
)
def test_a_wrong_call_is_one_line_and_exit_code_2(arguments, fragments, capsys):
    assert cli.run(arguments) == 2
    line = one_line(capsys)
    assert [fragment for fragment in fragments if fragment not in line] == []


@pytest.mark.parametrize(
    ("option", "path", "fragments"),
    [
        ("--json", "none/out.json", ["'none'", "out.json", "does not exist", "create it"]),
        ("--plot", "none/out.png", ["'none'", "out.png", "does not exist", "create it"]),
        ("--json", ".", ["'.'", "is a folder", "name a file"]),
        ("--plot", "out.bmp", ["--plot", "out.bmp", "png, pdf, svg"]),
        ("--plot", "out", ["--plot", "'out'", "png, pdf, svg"]),
    ],
)
def test_outputs_are_checked_before_any_work(
    option, path, fragments, rows, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("jaxmix.data.roles.read", None)  # not called
    assert cli.run(["fit", str(rows), *ROLES, option, path]) == 2
    line = one_line(capsys)
    assert [fragment for fragment in fragments if fragment not in line] == []
    assert os.listdir() == []


def test_column_names_are_shown_as_they_are(rows, capsys):
    """No markup, no emoji, no line breaks by the console."""
    name = "[red]:smile: " + "long " * 40
    assert cli.run(["fit", str(rows), *ROLES, "--outcome", name]) == 2
    assert repr(name) in one_line(capsys)


# ------------------------------------------------------------------------- estimates that fail

FAILED = {"RANK_DEFICIENT": (balanced(), ["--method", "spectral"])}

REFINED = {
    "OUT_OF_RANGE": (noise(1), ["--method", "spectral"]),
    "INDEFINITE_MOMENTS": (noise(0), ["--method", "synthetic"]),
}


@pytest.mark.parametrize("status", REFINED)
def test_a_failed_closed_form_gives_way_to_the_factorization(status, tmp_path, capsys):
    columns, options = REFINED[status]
    path, out = tmp_path / "rows.csv", tmp_path / "out.json"
    pd.DataFrame(columns).to_csv(path, index=False)
    code = cli.run(["fit", str(path), *ROLES, *CLASSES, *options, *POINT, "--json", str(out)])
    saved = json.loads(out.read_text())
    assert code == (0 if jm.Status[saved["status"]].usable else 1)
    assert saved["method"] == "factorization"
    assert f"failed ({status})" in saved["warnings"][0]
    assert "stands in its place" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("status", FAILED)
def test_a_failed_estimate_is_written_with_exit_code_1(status, tmp_path, capsys):
    columns, options = FAILED[status]
    path, out, plot = (tmp_path / name for name in ("rows.csv", "out.json", "out.svg"))
    pd.DataFrame(columns).to_csv(path, index=False)
    outputs = ["--json", str(out), "--plot", str(plot)]
    assert cli.run(["fit", str(path), *ROLES, *CLASSES, *POINT, *options, *outputs]) == 1
    shown, errors = capsys.readouterr()
    assert f"NOT TO BE USED. {status}: " in shown
    last = errors.splitlines()[-1]
    assert last.startswith(f"jaxmix: {status}: {jm.Status[status].message}")
    saved = plain_json(out)
    assert saved["status"] == status
    assert saved["level"] == 3
    assert plot.stat().st_size > 1000


def test_a_rejected_level_3_beside_level_4_is_withdrawn(tmp_path, capsys):
    path, out = tmp_path / "rows.csv", tmp_path / "out.json"
    # A continuous class: two classes cannot carry it.
    rng = np.random.default_rng(0)
    u, noise_z, noise_x, noise_y = rng.normal(size=(4, 3000))
    columns = {"t": (rng.random(3000) < 1 / (1 + np.exp(-u))).astype(int), "z": u + noise_z / 2}
    columns |= {"x": u + noise_x / 2, "y": columns["t"] + 2 * u + noise_y}
    pd.DataFrame(columns).to_csv(path, index=False)
    options = ["--classes", "2", "--method", "spectral", *POINT, "--json", str(out)]
    assert cli.run(["fit", str(path), *ROLES, *options]) == 0
    saved = plain_json(out)
    assert (saved["level"], saved["law"], saved["share_harmed"]) == (4, None, None)
    assert saved["diagnostics"]["level_3"]["diagnostics"]["specification"]["p_value"] < 0.05
    reason = "level 3 was withdrawn: its specification test rejects"
    assert reason in " ".join(saved["warnings"])
    assert reason in " ".join(capsys.readouterr().out.split())


# -------------------------------------------------------------------------------- what it gives

KEYS = {
    "schema", "jaxmix", "jax", "draws", "seed", "command", "n", "dropped", "treatment", "control",
    "outcome", "level", "method", "estimand", "num_classes", "status", "warnings", "naive", "ate",
    "potential_means", "law", "share_harmed", "diagnostics", "spread", "selection", "verdict",
    "sensitivity", "unresolved_classes",
}  # fmt: skip
LAW_KEYS = {"effects", "shares", "effects_se", "shares_se", "effects_interval", "shares_interval"}


def assert_estimate(estimate):
    assert set(estimate) == {"value", "se", "interval"}
    lower, upper = estimate["interval"]
    assert lower < estimate["value"] < upper
    assert estimate["se"] > 0


def test_json_of_level_4(record):
    saved = record(*POINT)
    assert set(saved) == KEYS
    expected = {
        "schema": 1, "jaxmix": jm.__version__, "jax": jax.__version__, "draws": 2, "seed": 0,
        "n": N, "dropped": 0, "treatment": "t", "control": "0", "outcome": "y", "level": 4,
        "method": "bridge", "estimand": "ATE", "num_classes": None, "status": "SUCCESS",
        "warnings": [], "law": None, "share_harmed": None,
    }  # fmt: skip
    assert {name: saved[name] for name in expected} == expected
    assert list(saved["potential_means"]) == ["0", "1"]
    for estimate in (saved["naive"], saved["ate"], *saved["potential_means"].values()):
        assert_estimate(estimate)
    means = saved["potential_means"]
    difference = means["1"]["value"] - means["0"]["value"]
    assert saved["ate"]["value"] == pytest.approx(difference, abs=1e-12)
    columns = table()
    y, t = columns["y"], columns["t"]
    assert saved["naive"]["value"] == pytest.approx(y[t == 1].mean() - y[t == 0].mean())
    assert saved["diagnostics"]["arm_sizes"] == {"0": int(N - t.sum()), "1": int(t.sum())}


def test_json_of_level_3(record):
    saved = record(*CLASSES, *POINT)
    assert set(saved) == KEYS
    assert (saved["level"], saved["method"], saved["num_classes"]) == (3, "factorization", 2)
    law = saved["law"]
    assert set(law) == LAW_KEYS
    assert {name: np.shape(law[name]) for name in law} == {
        name: (2, 2) if name.endswith("interval") else (2,) for name in LAW_KEYS
    }
    np.testing.assert_allclose(law["effects"], [-1, 1.5], atol=0.35)
    np.testing.assert_allclose(law["shares"], [0.5, 0.5], atol=0.1)
    assert saved["share_harmed"]["value"] == pytest.approx(law["shares"][0])
    mean = np.dot(law["effects"], law["shares"])
    assert saved["ate"]["value"] == pytest.approx(mean)


def test_json_of_auto_has_level_3_beside_level_4(record):
    saved, plain, classes = (record(*o, *POINT) for o in (["--classes", "2"], [], CLASSES))
    assert set(saved) == KEYS
    assert (saved["level"], saved["num_classes"], saved["warnings"]) == (4, 2, [])
    assert saved["ate"]["value"] == pytest.approx(plain["ate"]["value"])
    assert saved["law"] == classes["law"]
    assert saved["share_harmed"] == classes["share_harmed"]
    beside = saved["diagnostics"]["level_3"]
    assert set(beside) == KEYS
    assert beside["ate"] == classes["ate"]


def test_the_summary_shows_the_numbers(rows, capsys):
    assert cli.run(["fit", str(rows), *ROLES, *CLASSES, *POINT]) == 0
    out, err = capsys.readouterr()
    data = jm.read(rows, treatment="t", outcome="y", z=["z"], x=["x"])
    result = jm.fit(data, level=3, num_classes=2, num_resamples=0, checks=False)
    assert out == result.summary() + "\n"
    assert err == ""


def test_missing_rows_are_counted(rows, tmp_path, capsys):
    columns = table()
    columns["y"][:2] = np.nan
    columns["z"] = [None, None, None, *columns["z"][3:]]
    columns = {name: np.append(values, values[:3][::-1]) for name, values in columns.items()}
    columns["y"][N:] = [0.1, 0.2, 0.3]
    columns["z"][N:] = [0, 1, 0]  # as many rows left as everywhere here: nothing new to compile
    path, out = tmp_path / "rows.csv", tmp_path / "out.json"
    pd.DataFrame(columns).to_csv(path, index=False)
    assert cli.run(["fit", str(path), *ROLES, *POINT, "--json", str(out)]) == 0
    saved = plain_json(out)
    assert (saved["n"], saved["dropped"]) == (N, 3)
    assert saved["diagnostics"]["missing"] == {"y": 2, "z": 3}
    assert "3 dropped (missing cells: y 2, z 3)" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "parquet"])
def test_files_of_every_kind_give_the_same(suffix, record, tmp_path):
    path, out = tmp_path / f"rows.{suffix}", tmp_path / "out.json"
    frame = pd.DataFrame(table())
    frame.to_parquet(path) if suffix == "parquet" else frame.to_csv(path, index=False)
    assert cli.run(["fit", str(path), *ROLES, *POINT, "--json", str(out)]) == 0
    saved, expected = plain_json(out), record(*POINT)
    assert saved["ate"] == expected["ate"]
    assert saved["naive"] == expected["naive"]


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("out.png", b"\x89PNG"),
        ("out.pdf", b"%PDF-"),
        ("out.svg", b"<?xml"),
        ("out.PNG", b"\x89PNG"),
    ],
)
def test_plots_are_written_in_three_formats(name, start, rows, tmp_path, capsys):
    path = tmp_path / name
    assert cli.run(["fit", str(rows), *ROLES, *POINT, "--plot", str(path)]) == 0
    assert path.read_bytes().startswith(start)
    assert os.listdir(tmp_path) == [name]
    assert capsys.readouterr().err == f"wrote {path}\n"


def test_a_plot_names_what_it_shows(rows, tmp_path):
    path = tmp_path / "out.svg"
    assert cli.run(["fit", str(rows), *ROLES, *CLASSES, *POINT, "--plot", str(path)]) == 0
    comments = re.findall("<!-- (.*?) -->", path.read_text())
    for words in (
        "Effect of t (1 against 0)", "difference in means", "ATE, level 3", "effect on y",
        "class effect on y", "95 % intervals. Class effects are conditional on X not affecting Y.",
    ):  # fmt: skip
        assert words in comments
    assert sum(comment.startswith("class ") for comment in comments) == 3


def test_names_with_dollars_are_no_formulas(tmp_path):
    names = {"t": "$_^$", "y": "US$ $_$"}
    path, plot = tmp_path / "rows.csv", tmp_path / "out.svg"
    pd.DataFrame(table()).rename(columns=names).to_csv(path, index=False)
    roles = [names.get(word, word) for word in ROLES]
    assert cli.run(["fit", str(path), *roles, *POINT, "--plot", str(plot)]) == 0
    assert "effect on US$ $_$" in plot.read_text()


def test_outputs_replace_files_whole_and_leave_nothing_else(rows, tmp_path):
    out = tmp_path / "out.json"
    out.write_text("old " * 10_000)
    assert cli.run(["fit", str(rows), *ROLES, *POINT, "--json", str(out)]) == 0
    assert plain_json(out)["schema"] == 1
    assert os.listdir(tmp_path) == ["out.json"]
    umask = os.umask(0)
    os.umask(umask)
    assert out.stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_link_is_followed_and_a_pipe_is_no_file_to_replace(rows, tmp_path):
    """As with ``--json /dev/stdout``."""
    target, link, pipe = (tmp_path / name for name in ("target.json", "link.json", "pipe"))
    link.symlink_to(target)
    assert cli.run(["fit", str(rows), *ROLES, *POINT, "--json", str(link)]) == 0
    assert link.is_symlink()
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    assert cli.run(["fit", str(rows), *ROLES, *POINT, "--json", str(pipe)]) == 0
    received = os.read(reader, 1 << 20).decode()
    os.close(reader)
    assert pipe.is_fifo()
    assert json.loads(received)["ate"] == plain_json(target)["ate"]


def test_an_output_that_cannot_be_written_is_one_line(rows, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as unwritable:
        unwritable.bind("out.json")
        assert cli.run(["fit", str(rows), *ROLES, *POINT, "--json", "out.json"]) == 2
    out, err = capsys.readouterr()
    assert "Effect of t" in out
    assert re.fullmatch(
        r"jaxmix: the output 'out\.json' cannot be written .*; name another.*\n", err
    )
    assert os.listdir() == ["out.json"]


# --------------------------------------------------------------------- every option does its job

FEW = ["--resamples", "20"]


def test_seed_changes_the_resamples_alone(record):
    ours, again, other = (record(*FEW, "--seed", s) for s in ("0", "00", "1"))
    assert ours["ate"] == again["ate"] == record(*FEW)["ate"]
    assert other["seed"] == 1
    assert other["ate"]["value"] == ours["ate"]["value"]
    assert other["ate"]["se"] != ours["ate"]["se"]
    assert other["ate"]["interval"] != ours["ate"]["interval"]


def width(estimate):
    return estimate["interval"][1] - estimate["interval"][0]


@pytest.mark.parametrize("how", [POINT, FEW], ids=["normal", "percentile"])
def test_confidence_changes_the_intervals_alone(how, record):
    wide, narrow = record(*how), record(*how, "--confidence", "0.5")
    assert narrow["diagnostics"]["confidence"] == 0.5
    assert narrow["ate"]["se"] == wide["ate"]["se"]
    assert width(narrow["ate"]) < 0.6 * width(wide["ate"])


def test_interval_normal_is_symmetric(record):
    percentile, normal = record(*FEW), record(*FEW, "--interval", "normal")
    ate = normal["ate"]
    assert ate["se"] == percentile["ate"]["se"]
    expected = [ate["value"] - 1.959964 * ate["se"], ate["value"] + 1.959964 * ate["se"]]
    assert ate["interval"] == pytest.approx(expected, abs=1e-6)
    assert ate["interval"] != percentile["ate"]["interval"]


@pytest.mark.parametrize("kind", ["multinomial", "poisson", "bayesian"])
def test_resampling_is_of_the_kind_asked_for(record, kind):
    found = record(*FEW, "--resampling", kind)
    assert found["diagnostics"]["resampling"] == kind


def test_resamples_are_as_many_as_asked_for(record):
    none, few, more = (record("--resamples", count) for count in ("0", "20", "50"))
    counts = [r["diagnostics"]["num_resamples"] for r in (none, few, more)]
    kinds = [r["diagnostics"]["resampling"] for r in (none, few, more)]
    assert (counts, kinds) == ([0, 20, 50], [None, "bayesian", "bayesian"])
    assert len({r["ate"]["se"] for r in (none, few, more)}) == 3
    assert more["ate"]["se"] == pytest.approx(none["ate"]["se"], rel=0.5)


def test_estimand_att_is_of_the_treated(record):
    everybody, treated = record(*POINT), record(*POINT, "--estimand", "ATT")
    assert treated["estimand"] == "ATT"
    assert treated["naive"]["value"] == everybody["naive"]["value"]
    assert treated["ate"]["value"] > everybody["ate"]["value"] + 0.1  # the treated gain more
    columns = table()
    mean = columns["y"][columns["t"] == 1].mean()
    assert treated["potential_means"]["1"]["value"] == pytest.approx(mean)


def test_bridge_pooled_is_another_estimate(record):
    by_arm, pooled = record(*POINT), record(*POINT, "--bridge", "pooled")
    assert pooled["diagnostics"]["bridge"] == "pooled"
    assert list(pooled["diagnostics"]["singular_values"]) == ["all"]
    assert pooled["ate"]["value"] != pytest.approx(by_arm["ate"]["value"], abs=1e-3)


def test_features_change_the_coding_of_all_columns_of_a_view(record):
    views = [*POINT, "--x", "x, grade"]
    auto, linear, onehot = (
        record(*views, *more) for more in ([], ["--features", "linear"], ["--features", "onehot"])
    )
    cells = set(zip(table()["x"], table()["grade"], strict=True))
    assert auto["diagnostics"]["num_features"] == {"z": 2, "x": 3}
    assert onehot["diagnostics"]["num_features"] == {"z": 2, "x": len(cells)}
    assert linear["ate"] == auto["ate"]
    assert onehot["ate"]["value"] != pytest.approx(auto["ate"]["value"], abs=1e-4)


def test_covariates_are_adjusted_for(record):
    plain, adjusted = record(*POINT), record(*POINT, "--covariates", "cov")
    assert adjusted["diagnostics"]["num_features"] == {"z": 3, "x": 3}
    assert adjusted["ate"]["value"] != pytest.approx(plain["ate"]["value"], abs=1e-5)


def test_weights_of_both_kinds(record):
    plain = record(*POINT)
    sampling = record(*POINT, "--weights", "w")
    frequency = record(*POINT, "--weights", "w", "--weights-kind", "frequency")
    columns = table()
    t, y, w = (columns[name] for name in "tyw")
    means = [np.average(y[t == arm], weights=w[t == arm]) for arm in (0, 1)]
    for weighted in (sampling, frequency):
        assert weighted["naive"]["value"] == pytest.approx(means[1] - means[0])
        assert weighted["ate"]["value"] != pytest.approx(plain["ate"]["value"], abs=1e-4)
    assert sampling["ate"]["value"] == pytest.approx(frequency["ate"]["value"])
    assert (sampling["n"], frequency["n"]) == (N, int(w.sum()))
    # Twice as many rows, as it seems, and weights that cost efficiency.
    assert frequency["ate"]["se"] < 0.8 * plain["ate"]["se"] < 0.8 * sampling["ate"]["se"]


def test_clusters_change_the_uncertainty_alone(record):
    rows, clusters = record(*POINT), record(*POINT, "--cluster", "g")
    assert clusters["ate"]["value"] == pytest.approx(rows["ate"]["value"], abs=1e-12)
    assert clusters["ate"]["se"] != pytest.approx(rows["ate"]["se"], rel=1e-3)


def test_control_turns_the_effect_around(record):
    drug = [*POINT, "--treatment", "drug", "--control"]
    old, new, numbers = record(*drug, "old"), record(*drug, "new"), record(*POINT)
    assert (old["control"], new["control"]) == ("old", "new")
    assert list(new["potential_means"]) == ["new", "old"]
    assert old["ate"] == numbers["ate"]
    assert new["ate"]["value"] == pytest.approx(-old["ate"]["value"])
    assert record(*POINT, "--control", "1")["ate"] == new["ate"]


def test_better_lower_is_the_other_share(record):
    higher, lower = (record(*CLASSES, *POINT, *more) for more in ([], ["--better", "lower"]))
    assert lower["law"] == higher["law"]
    total = lower["share_harmed"]["value"] + higher["share_harmed"]["value"]
    assert total == pytest.approx(1)
    assert lower["share_harmed"]["value"] == pytest.approx(lower["law"]["shares"][1])


def test_methods_of_level_3_differ(record):
    spectral = record(*CLASSES, *POINT, "--method", "spectral")
    synthetic = record(*CLASSES, *POINT, "--method", "synthetic")
    assert (spectral["method"], synthetic["method"]) == ("spectral", "synthetic")
    default = record(*CLASSES, *POINT)
    assert default["method"] == "factorization"
    np.testing.assert_allclose(default["law"]["effects"], spectral["law"]["effects"], atol=0.1)
    np.testing.assert_allclose(synthetic["law"]["effects"], [-1, 1.5], atol=0.35)
    gap = np.abs(np.subtract(synthetic["law"]["effects"], spectral["law"]["effects"]))
    assert gap.max() > 1e-4


def test_level_4_is_the_default_and_declared_it_stands_alone(record):
    assert record("--level", "4", *POINT)["ate"] == record(*POINT)["ate"]
    alone = record("--level", "4", "--classes", "2", *POINT)
    assert (alone["level"], alone["num_classes"], alone["law"]) == (4, 2, None)
    assert alone["ate"] == record("--classes", "2", *POINT)["ate"]
    assert "level_3" not in alone["diagnostics"]


# ------------------------------------------------------------------------ version, help, extras


def test_version(capsys):
    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out == f"jaxmix {jm.__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], []], ids=["--help", "nothing"])
def test_help_lists_the_commands(arguments, capsys):
    assert cli.run(arguments) == 0
    out, err = capsys.readouterr()
    listed = re.findall(r"^  (\w+)  ", out.split("Commands:")[1], re.MULTILINE)
    assert listed == ["fit", "identify", "simulate", "doctor", "demo", "study"]
    assert err == ""


def test_help_of_fit_lists_every_option(capsys):
    assert cli.run(["fit", "--help"]) == 0
    shown = set(re.findall(r"^  (--[a-z-]+) ", capsys.readouterr().out, re.MULTILINE))
    assert shown == {
        "--treatment", "--outcome", "--z", "--x", "--covariates", "--weights", "--weights-kind",
        "--control", "--features", "--cluster", "--missing-marks", "--encoding", "--classes",
        "--level", "--method", "--bridge",
        "--estimand", "--better", "--resamples", "--resampling", "--confidence", "--interval",
        "--strata", "--graph", "--checks", "--edge", "--sensitivity-plot", "--seed", "--json",
        "--plot", "--help",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("absent", "words"),
    [(("typer",), "typer"), (("rich",), "rich"), (("typer", "rich"), "typer and rich")],
    ids=str,
)
def test_without_the_extra_cli_the_command_says_what_to_install(absent, words, monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name in absent else find(name, *a)
    )
    with pytest.raises(SystemExit) as caught:
        __main__.main()
    assert caught.value.code == 2
    assert one_line(capsys) == (
        f"jaxmix: the command line needs {words}: pip install 'jaxmix[cli]'\n"
    )


@pytest.mark.parametrize(
    ("modules", "arguments", "extra"),
    [
        (["pyarrow", "pyarrow.csv", "pyarrow.parquet"], [], "io"),
        (["matplotlib", "matplotlib.figure"], ["--plot", "out.png"], "plot"),
    ],
    ids=["pyarrow", "matplotlib"],
)
def test_without_an_extra_its_option_says_what_to_install(
    modules, arguments, extra, rows, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    for name in modules:
        monkeypatch.setitem(sys.modules, name, None)
    assert cli.run(["fit", str(rows), *ROLES, *POINT, "--json", "out.json", *arguments]) == 2
    assert f"pip install 'jaxmix[{extra}]'" in one_line(capsys)
    assert os.listdir() == []


def test_without_the_extra_demo_the_demo_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "causaldata", None)
    assert cli.run(["demo", "lalonde"]) == 2
    assert "pip install 'jaxmix[demo]'" in one_line(capsys)


# ------------------------------------------------------------------------- as a process of its own


def process(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "jaxmix", *arguments],
        cwd=cwd, capture_output=True, text=True, timeout=120, check=False,
        # Where XLA has something to say of each program that it loads, on some processors.
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
    )  # fmt: skip


def test_a_process_writes_results_and_its_command(rows, record, tmp_path):
    """In float64 without being asked, and the same numbers as here."""
    arguments = ["fit", str(rows), *ROLES, *POINT, "--json", "my out.json"]
    done = process(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "wrote my out.json\n")
    assert done.stdout.startswith("Effect of t (1 against 0) on y, level 4 (bridge by arm)\n")
    saved, expected = plain_json(tmp_path / "my out.json"), record(*POINT)
    assert saved["command"] == f"jaxmix {' '.join(arguments[:-1])} 'my out.json'"
    assert saved["ate"]["value"] == pytest.approx(expected["ate"]["value"], abs=1e-10)
    assert saved["ate"]["se"] == pytest.approx(expected["ate"]["se"], abs=1e-10)


def test_a_process_that_fails_says_one_line(rows, tmp_path):
    done = process("fit", str(rows), *ROLES, "--x", "nope", "--json", "out.json", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"jaxmix: column 'nope' \(x\) is not in the table; .*\n", done.stderr)
    assert os.listdir(tmp_path) == []


# --------------------------------------------------------------------------------------- identify

GRAPHS = pathlib.Path(__file__).parents[2] / "configs" / "graphs"
DOT_ROLES = ["--treatment", "T", "--outcome", "Y", "--latent", "U", "--z", "Z", "--x", "X"]


def test_identify_prints_the_verdict_and_writes_json(tmp_path, capsys):
    path = tmp_path / "out.json"
    graph = GRAPHS / "level4.toml"
    assert cli.run(["identify", str(graph), "--json", str(path)]) == 0
    out, err = capsys.readouterr()
    verdict = jm.hierarchy.identify(graph)
    assert out == verdict.summary() + "\n"
    assert err == f"wrote {path}\n"
    found = plain_json(path)
    assert found.pop("command") == f"jaxmix identify {graph} --json {path}"
    assert found == {k: v for k, v in verdict.to_dict().items() if k != "command"}


def test_identify_takes_roles_and_overrides(capsys):
    """A verdict without a level is an answer as well: exit code 0."""

    def first_line(*arguments):
        assert cli.run(["identify", *map(str, arguments)]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        return out.splitlines()[0]

    dot = GRAPHS / "hidden_cause.dot"
    assert first_line(dot, *DOT_ROLES).startswith("No level")
    assert first_line(dot, *DOT_ROLES, "--covariates", "W").startswith("Level 3 ")
    assert first_line(dot, *DOT_ROLES, "--covariates", " W ,").startswith("Level 3 ")
    toml = GRAPHS / "level1.toml"
    assert first_line(toml).startswith("Level 1 ")
    assert first_line(toml, "--not-separable").startswith("Level 2 ")
    assert first_line(GRAPHS / "level3.toml", "--separable").startswith("Level 1 ")


def test_identify_wrong_input_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys):
    graph = str(GRAPHS / "level2.toml")
    for options, fragments in (
        (["--x", "Xx"], ["x is 'Xx'", "did you mean 'X'?"]),
        (["--z", ","], ["z is empty"]),
        (["--z", "X"], ["z and x", "one role"]),
        (["--json", "none/out.json"], ["'none'", "create it"]),
    ):
        assert cli.run(["identify", graph, *options]) == 2
        line = one_line(capsys)
        assert [fragment for fragment in fragments if fragment not in line] == []
    monkeypatch.setitem(sys.modules, "networkx", None)
    assert cli.run(["identify", graph]) == 2
    assert "pip install 'jaxmix[graph]'" in one_line(capsys)
