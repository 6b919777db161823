"""The folder of a study: what a killed process leaves, processes that share, what is refused."""

import datetime
import json
import os
import shutil
import signal
import sys
import time

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest

from jaxmix import study
from jaxmix.study.sweep import blocks
from tests.study_helpers import call, process, ran, refused, table_bytes, write

MANY = """\
name = "many"
seed = 2
num_replicates = 600
num_rows = 100
chunk_size = 20
bound = false
estimators = ["difference_in_means"]

[population]
kind = "paper_main"

[grid]
zt_strength = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
"""
NUM_CELLS = 6


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return ran(tmp_path_factory.mktemp("undisturbed"), MANY)


def finish(started):
    """Wait for a process and return its exit code, standard output and standard error."""
    out, err = started.communicate(timeout=120)
    return started.returncode, out, err


def partial_files(folder):
    """Return the names of tables that are being written, or were when their process was killed."""
    return {path.name for path in folder.glob("replicates/.*.partial")}


def test_killed_at_any_moment_and_resumed(undisturbed, tmp_path):
    path = write(tmp_path, MANY)
    folder = tmp_path / "out"
    store = study.Store(folder, undisturbed.config)
    rng = np.random.default_rng(0)
    seconds = [cell["seconds"] for cell in undisturbed.manifest()["cells"].values()]
    kills, kept = 0, {}
    for _ in range(20):
        started = process("study", "run", path, "--out", folder)
        # Before the first table there is little to kill: wait until work begins again.
        begun, limit = time.monotonic(), rng.uniform(0.0, np.median(seconds))
        before = partial_files(folder)
        while started.poll() is None and time.monotonic() - begun < 60:
            if partial_files(folder) - before:
                break
            time.sleep(0.005)
        time.sleep(limit)
        if started.poll() is not None:
            break
        os.kill(started.pid, signal.SIGKILL)
        started.communicate()
        kills += 1
        tables = table_bytes(store)
        for name, content in tables.items():
            assert content == table_bytes(undisturbed)[name]
            assert pq.read_table(folder / "replicates" / name).num_rows == 600
        assert kept.items() <= tables.items()  # what was there stays
        kept = tables
        code, out, _ = call("study", "status", path, "--out", folder)
        assert code == 0
        assert out.count("missing") == NUM_CELLS - len(tables)
        assert out.count(" done") == len(tables)
        assert f"{len(tables)} of {NUM_CELLS} cells" in out
        if kills >= 5:
            started = process("study", "run", path, "--out", folder)
            break
    code, out, err = finish(started)
    assert code == 0, err
    assert kills >= 5
    assert f"{NUM_CELLS} cells ({len(kept)} were there already)" in out
    assert table_bytes(store) == table_bytes(undisturbed)
    assert store.summary_path.read_bytes() == undisturbed.summary_path.read_bytes()
    left = {p.name for p in folder.rglob("*")} - set(table_bytes(store))
    assert left - {".manifest.lock"} == {"replicates", "manifest.json", "summary.csv"}


def test_killed_before_the_manifest_is_there(undisturbed, tmp_path):
    """A folder that was made, and nothing more, is taken up again."""
    folder = tmp_path / "out"
    (folder / "replicates").mkdir(parents=True)
    (folder / "replicates" / ".manifest.lock").touch()
    (folder / ".manifest.json.k2x0").mkdir()  # where it is written before it appears
    (folder / ".manifest.json.k2x0" / "whole").write_text("{")
    study.Store(folder, undisturbed.config).check()


def test_a_complete_study_computes_nothing(undisturbed, monkeypatch):
    def never(*_, **__):
        raise AssertionError("a complete cell was computed again")

    before = {p: p.stat().st_mtime_ns for p in undisturbed.folder.glob("replicates/*.parquet")}
    summary = undisturbed.summary_path.read_bytes()
    monkeypatch.setattr(sys.modules["jaxmix.study.run"], "blocks", never)
    study.run(undisturbed.config, undisturbed.folder)
    assert len(before) == NUM_CELLS
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert undisturbed.summary_path.read_bytes() == summary


def test_only_missing_cells_are_computed(undisturbed, tmp_path):
    store = ran(tmp_path, MANY)
    gone = store.table_path(store.config.cells[3])
    gone.unlink()
    times = {p: p.stat().st_mtime_ns for p in store.folder.glob("replicates/*.parquet")}
    study.run(store.config, store.folder)
    assert {p: p.stat().st_mtime_ns for p in times} == times
    assert table_bytes(store) == table_bytes(undisturbed)


def test_two_processes_share_a_folder(undisturbed, tmp_path):
    path = write(tmp_path, MANY)
    folder = tmp_path / "out"
    both = [process("study", "run", path, "--out", folder) for _ in range(2)]
    for started in both:
        code, out, err = finish(started)
        assert code == 0, err
        assert f"{NUM_CELLS} cells" in out
    store = study.Store(folder, undisturbed.config)
    assert table_bytes(store) == table_bytes(undisturbed)
    cells = store.manifest()["cells"]
    assert set(cells) == {cell.hash for cell in store.config.cells}
    assert not list(folder.glob("replicates/.*.partial"))


def test_a_cell_that_another_has_is_left_to_it(undisturbed, tmp_path):
    store = study.Store(tmp_path / "out", undisturbed.config)
    store.open()
    cell, other = store.config.cells[:2]
    with store.claim(cell) as mine:
        assert mine
        with study.Store(store.folder, store.config).claim(cell) as second:
            assert not second
        with study.Store(store.folder, store.config).claim(other) as second:
            assert second
    with store.claim(cell) as again:
        assert again


def test_a_table_appears_when_it_is_whole(undisturbed, tmp_path):
    store = study.Store(tmp_path / "out", undisturbed.config)
    store.open()
    cell = store.config.cells[0]
    found = list(blocks(store.config, cell))
    with pytest.raises(RuntimeError, match="stop"), store.writer(cell) as writer:  # noqa: PT012
        for block in found[:5]:
            writer.write(block)
        assert not store.is_done(cell)
        raise RuntimeError("stop")
    assert not store.is_done(cell)
    assert not list(store.folder.glob("replicates/*.parquet"))


def test_manifest_says_what_ran(undisturbed):
    content = json.loads(undisturbed.manifest_path.read_text())
    assert (content["schema"], content["name"], content["seed"]) == (1, "many", 2)
    assert content["config"]["grid"]["zt_strength"] == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert set(content["cells"]) == {cell.hash for cell in undisturbed.config.cells}
    for cell in undisturbed.config.cells:
        own = content["cells"][cell.hash]
        assert own["factors"] == dict(cell.factors)
        assert own["seconds"] >= 0
        assert own["replicates_per_second"] > 0
        finished = datetime.datetime.fromisoformat(own["finished"])
        assert abs(datetime.datetime.now(datetime.UTC) - finished) < datetime.timedelta(hours=1)
    text = json.dumps(content)
    for word in (f'"jax": "{jax.__version__}"', '"jaxmix"', '"jaxlib"', '"numpy"', "float64"):
        assert word in text
    assert '"device": "cpu' in text


def test_versions_of_complete_cells_stay(undisturbed, monkeypatch):
    """Running a complete study with other versions does not relabel what was computed."""
    before = json.loads(undisturbed.manifest_path.read_text())
    monkeypatch.setattr("importlib.metadata.version", lambda name: "99.0")
    study.run(undisturbed.config, undisturbed.folder)
    after = json.loads(undisturbed.manifest_path.read_text())
    assert after["cells"] == before["cells"]
    assert jax.__version__ in json.dumps(after)


# --------------------------------------------------------------------------------- refusals


def test_folders_of_something_else(undisturbed, tmp_path):
    path = write(tmp_path, MANY)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "letter.txt").write_text("dear")
    plain = tmp_path / "plain"
    plain.write_text("a file")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "manifest.json").write_text("[1]")
    web = tmp_path / "web"
    web.mkdir()
    (web / "manifest.json").write_text('{"name": "many", "icons": []}')
    before = sorted(tmp_path.rglob("*"))
    for command in ("run", "status", "summarize", "plot"):
        for folder, words in (
            (foreign, "other files"),
            (plain, "is a file"),
            (broken, "no manifest"),
            (web, "manifest"),
        ):
            message = refused("study", command, path, "--out", folder)
            assert str(folder) in message
            assert words in message
    assert sorted(tmp_path.rglob("*")) == before


def test_folders_of_another_study_or_configuration(undisturbed, tmp_path):
    path = write(tmp_path, MANY)
    before = {p: p.stat().st_mtime_ns for p in undisturbed.folder.rglob("*")}
    out = ["--out", undisturbed.folder]
    message = refused("study", "run", path, *out, "--set", "name=other")
    assert "'many', not 'other'" in message
    for change in ("seed=3", "num_replicates=10", "num_rows=50", 'estimators=["bridge"]'):
        for command in ("run", "status", "summarize", "plot"):
            message = refused("study", command, path, *out, "--set", change)
            assert "seed, estimators, replicates or factors were changed" in message
            assert "--out" in message
    assert {p: p.stat().st_mtime_ns for p in undisturbed.folder.rglob("*")} == before


def test_another_seed_is_refused_before_the_first_cell_too(undisturbed, tmp_path):
    first = study.Store(tmp_path / "out", undisturbed.config)
    first.open()
    path = write(tmp_path, MANY)
    message = refused("study", "run", path, "--out", first.folder, "--set", "seed=3")
    assert "seed" in message.split(str(first.folder))[1]


def test_a_grid_may_grow(undisturbed, tmp_path):
    store = ran(tmp_path, MANY.replace(", 0.4, 0.6, 0.8, 1.0", ""))
    assert len(table_bytes(store)) == 2
    grown = ran(tmp_path, MANY)
    assert table_bytes(grown) == table_bytes(undisturbed)


def test_the_folder_is_named_after_the_study(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, MANY)
    code, out, err = call("study", "status", path)
    assert code == 0
    assert "0 of 6 cells" in out
    assert "out/many" in out
    assert err == ""
    assert list(tmp_path.iterdir()) == [path]  # asking makes nothing


# ------------------------------------------------------------- tables and manifests cut short

DAMAGE = {
    "empty": lambda raw: b"",
    "cut in half": lambda raw: raw[: len(raw) // 2],
    "without its end": lambda raw: raw[:-1],
    "without its start": lambda raw: raw[64:],
    "zeros": lambda raw: bytes(len(raw)),
    "garbage": lambda raw: np.random.default_rng(0).bytes(len(raw)),
    "text": lambda raw: b"a,b\n1,2\n",
    "a damaged middle": lambda raw: raw[:4] + bytes(len(raw) // 2) + raw[4 + len(raw) // 2 :],
}


@pytest.fixture
def damaged(undisturbed, tmp_path):
    """Return a copy of a complete study's folder, its configuration, and one of its tables."""
    folder = tmp_path / "out"
    shutil.copytree(undisturbed.folder, folder)
    store = study.Store(folder, undisturbed.config)
    return write(tmp_path, MANY), store, store.table_path(store.config.cells[2])


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_table_is_one_line_that_names_it(how, damaged):
    path, store, table = damaged
    table.write_bytes(DAMAGE[how](table.read_bytes()))
    before = {p: p.read_bytes() for p in store.folder.rglob("*") if p.is_file()}
    # To say what there is, the ends of tables are looked at, and their middles are not read.
    end_is_whole = how in ("a damaged middle", "without its start")
    for command in ["run", "summarize", "plot"] + ["status"] * (not end_is_whole):
        message = refused("study", command, path, "--out", store.folder)
        assert f"the replicate table {str(table)!r} is cut short or damaged" in message
        assert "delete it, and 'jaxmix study run' computes it again" in message
        assert message[:-1].isprintable()
    assert {p: p.read_bytes() for p in before} == before


def test_what_the_message_says_helps(undisturbed, damaged):
    path, store, table = damaged
    table.write_bytes(table.read_bytes()[:100])
    table.unlink()
    code, _, err = call("study", "run", path, "--out", store.folder)
    assert code == 0, err
    assert table_bytes(store) == table_bytes(undisturbed)


def test_a_table_of_something_else_is_refused(damaged):
    path, store, table = damaged
    whole = pq.read_table(table)
    for strange in (whole.slice(0, 100), whole.drop(["true_ate"]), whole.drop(["estimator"])):
        pq.write_table(strange, table)
        for command in ("run", "status", "summarize"):
            message = refused("study", command, path, "--out", store.folder)
            assert str(table) in message


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b'{"schema": 1, "name": "many", "planned": [1], "cells": {}}', b"\xff\xfe", b"null",
     b'{"schema": 1, "name": "many", "planned": [], "cells": []}',
     b'{"schema": 1, "name": "many", "planned": 3, "cells": {"a": 1}}'],
)  # fmt: skip
def test_a_damaged_manifest_is_one_line_and_can_be_made_anew(content, undisturbed, damaged):
    path, store, _ = damaged
    store.manifest_path.write_bytes(content)
    for command in ("run", "status", "summarize", "plot"):
        message = refused("study", command, path, "--out", store.folder)
        assert str(store.manifest_path) in message
        assert "delete that file and run the study again" in message
        assert "--out" in message
    store.manifest_path.unlink()
    (store.folder / "many.png").write_bytes(b"a figure of before")
    code, out, err = call("study", "run", path, "--out", store.folder)
    assert code == 0, err
    assert f"{NUM_CELLS} were there already" in out
    assert table_bytes(store) == table_bytes(undisturbed)
    code, out, _ = call("study", "status", path, "--out", store.folder)
    assert code == 0
    assert f"{NUM_CELLS} of {NUM_CELLS} cells" in out


def test_other_peoples_files_stay_theirs_without_a_manifest(damaged):
    path, store, _ = damaged
    store.manifest_path.unlink()
    (store.folder / "letter.txt").write_text("dear")
    assert "other files" in refused("study", "run", path, "--out", store.folder)
