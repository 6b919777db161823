"""Rows of a population as a file, and the command that it says fits them."""

import shlex

import numpy as np
import pandas as pd
import pytest

from jaxmix.populations import paper_appendix
from tests.study_helpers import TINY, call, refused, write

PAPER = 'kind = "paper_main"\nzt_strength = 0.5\n'
KINDS = {
    "paper_main": (PAPER, True),
    "table of a study": (TINY.split("[grid]")[0], True),
    "level4_testable": ('kind = "level4_testable"\n', True),
    "random_discrete": ('kind = "random_discrete"\nnum_classes = 2\nd_x = 3\n', True),
    "gaussian": ('[population]\nkind = "gaussian"\n', False),
    "uniform": ('kind = "uniform"\n', False),
}


def simulated(folder, text=PAPER, *options, name="rows.csv"):
    """Simulate; return the file and what was said."""
    out = folder / name
    code, said, err = call("simulate", write(folder, text, "p.toml"), "-o", out, *options)
    assert (code, err) == (0, ""), err
    return out, said


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet", "ROWS.CSV"])
def test_csv_and_parquet_hold_the_same_rows(name, tmp_path):
    path, said = simulated(tmp_path, PAPER, "-n", "500", "--seed", "3", name=name)
    frame = (pd.read_parquet if name.endswith("parquet") else pd.read_csv)(path)
    assert frame.columns.tolist() == ["T", "Z", "X", "Y"]
    assert len(frame) == 500
    assert f"wrote 500 rows to {path}" in said
    again, _ = simulated(tmp_path, PAPER, "-n", "500", "--seed", "3", name="again.csv")
    pd.testing.assert_frame_equal(pd.read_csv(again), frame, check_dtype=False)


def test_a_seed_gives_a_file_and_another_gives_another(tmp_path):
    first, _ = simulated(tmp_path, PAPER, "--seed", "1")
    before = first.read_bytes()
    assert simulated(tmp_path, PAPER, "--seed", "1")[0].read_bytes() == before
    assert simulated(tmp_path, PAPER, "--seed", "2")[0].read_bytes() != before


def test_the_hidden_class_is_there_on_request_only(tmp_path):
    plain, _ = simulated(tmp_path, PAPER)
    hidden, _ = simulated(tmp_path, PAPER, "--with-class", name="hidden.csv")
    with_class = pd.read_csv(hidden)
    assert sorted(with_class.columns) == ["T", "U", "X", "Y", "Z"]
    pd.testing.assert_frame_equal(with_class.drop(columns="U"), pd.read_csv(plain))
    assert set(with_class["U"]) == {0, 1}


def test_rows_have_the_law_of_the_population(tmp_path):
    n = 40_000
    text = 'kind = "paper_appendix"\nsubgroup = 0.2\n'
    path, said = simulated(tmp_path, text, "-n", str(n), "--with-class")
    rows = pd.read_csv(path)
    error = 4 / np.sqrt(n)  # four times the largest standard error of a share, doubled within arms
    population = paper_appendix(subgroup=0.2)
    assert rows["U"].mean() == pytest.approx(0.5, abs=error)
    means = rows.groupby(["T", "U"])["Y"].mean().unstack()
    np.testing.assert_allclose(means, population.class_means, atol=2 * error)
    naive = rows.groupby("T")["Y"].mean().diff()[1]
    assert naive == pytest.approx(float(population.naive), abs=2 * error)
    assert "average effect        0.25" in said
    assert "class effects         0, 0.5" in said or "class effects         0.0, 0.5" in said


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_that_is_said_fits_the_rows(kind, tmp_path):
    text, onehot = KINDS[kind]
    folder = tmp_path / "with a space"
    folder.mkdir()
    _, said = simulated(folder, text, "-n", "4000")
    (line,) = [line for line in said.splitlines() if line.startswith("fit it: ")]
    words = shlex.split(line.removeprefix("fit it: "))
    assert words[:2] == ["jaxmix", "fit"]
    assert ("--features" in words) == onehot
    if kind not in ("paper_main", "gaussian"):
        words += ["--level", "4", "--method", "bridge"]  # less to compile
        words = [w for w in words if w not in ("--classes", "2")]
    code, out, err = call(*words[1:], "--resamples", "0")
    assert code in (0, 1), err
    assert "ATE" in out


def test_a_population_that_is_random_is_drawn_by_the_seed(tmp_path):
    text = KINDS["random_discrete"][0]
    (_, first), (_, second) = (simulated(tmp_path, text, "--seed", s) for s in ("1", "2"))
    assert first.splitlines()[1] != second.splitlines()[1]
    fixed = text + "population_seed = 4\n"
    (_, first), (_, second) = (simulated(tmp_path, fixed, "--seed", s) for s in ("1", "2"))
    assert first.splitlines()[1:] == second.splitlines()[1:]


BAD = {
    "kind": ('kind = "paper_min"\n', "p.toml, line 1: ", ["'paper_min'", "paper_main"]),
    "no kind": ("zt_strength = 1\n", "p.toml: ", ["kind"]),
    "parameter": (PAPER + "xy = 1\n", "p.toml, line 3: ", ["'xy'", "xy_strength"]),
    "range": (PAPER.replace("0.5", "2"), "p.toml, line 2: ", ["2", "from 0 to 1"]),
    "type": (PAPER.replace("0.5", '"a"'), "p.toml, line 2: ", ["'a'", "a number"]),
    "in a table": ("[population]\nkind = 5\n", "p.toml, line 2: ", ["5", "paper_main"]),
    "broken": ("kind =\n", "p.toml", ["line 1"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_populations_are_one_line(case, tmp_path):
    text, place, words = BAD[case]
    path = write(tmp_path, text, "p.toml")
    message = refused("simulate", path, "-o", tmp_path / "rows.csv")
    assert place in message
    for word in words:
        assert word in message
    assert list(tmp_path.iterdir()) == [path]


def test_bad_outputs_are_one_line_before_anything_is_drawn(tmp_path, monkeypatch):
    def never(*_, **__):
        raise AssertionError("rows were drawn for an output that cannot be written")

    monkeypatch.setattr("jaxmix.study.simulate.draw", never)
    path = write(tmp_path, PAPER, "p.toml")
    folder = tmp_path / "folder.csv"
    folder.mkdir()
    for output, words in (
        (tmp_path / "rows.txt", [".csv", ".parquet"]),
        (tmp_path / "rows", [".csv", ".parquet"]),
        (tmp_path / "none" / "rows.csv", ["none", "does not exist"]),
        (folder, ["folder"]),
    ):
        message = refused("simulate", path, "-o", output)
        for word in words:
            assert word in message
    assert sorted(tmp_path.iterdir()) == [folder, path]


def test_bad_numbers_are_one_line(tmp_path):
    path = write(tmp_path, PAPER, "p.toml")
    out = ["-o", tmp_path / "rows.csv"]
    assert "at least 1" in refused("simulate", path, *out, "-n", "0")
    assert "integer" in refused("simulate", path, *out, "-n", "2.5")
    assert "seed" in refused("simulate", path, *out, "--seed", str(2**70))
    assert "cannot be read" in refused("simulate", tmp_path / "none.toml", *out)
    assert "-o" in refused("simulate", path)
    assert list(tmp_path.iterdir()) == [path]
