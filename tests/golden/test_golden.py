"""Numbers that no change of the house may move, beside what was kept of them."""

import json
import os
import pathlib
import shutil

import jax
import pytest

import jaxmix as jm
from jaxmix import study
from tests.golden import cases, compare, draws_before, programs, studies

KEPT = pathlib.Path(__file__).parent
EXACT, ITERATED = 1e-8, 1e-6  # relative; weighted moments are fitted to fewer digits
QUICK = ("4", "4 percentile", "4 covariates", "3", "3 treated", "3 zeros 0", "3 percentile", "2")
WHOLE = os.environ.get("JAXMIX_GOLDEN") == "all"
"""Whether to fit all that was kept, which takes a quarter of an hour."""


def kept(name):
    return json.loads((KEPT / name).read_text())


@pytest.mark.parametrize("name", cases.CASES if WHOLE else QUICK)
def test_fit(name, request):
    if "clusters" in name:
        draws_before.use(request.getfixturevalue("monkeypatch"))
        request.addfinalizer(jax.clear_caches)
    new = json.loads(json.dumps(cases.fitted(name)))
    tolerance = ITERATED if "linear" in name and name[0] in "23" else EXACT
    assert not compare.differences(new, kept("fits.json")[name], tolerance)


def test_every_fit_is_kept():
    assert kept("fits.json").keys() == cases.CASES.keys()


@pytest.mark.parametrize("name", cases.LATENT)
def test_latent_classes(name):
    new = json.loads(json.dumps(cases.latent(name)))
    assert not compare.differences(new, kept("latent.json")[name], EXACT)


@pytest.mark.parametrize("name", programs.COUNTED if WHOLE else ("4", "3"))
def test_programs(name):
    """A first fit compiles no more than it did, and a second one less."""
    before, now = kept("programs.json")[name], programs.count(name)
    assert now["first"] <= before["first"]
    assert now["second"] <= before["second"]


@pytest.mark.parametrize("name", studies.NAMES)
def test_a_kept_study_is_read(name, tmp_path):
    place = tmp_path / name
    shutil.copytree(studies.folder(name), place)
    store = study.Store(place, studies.config(name))
    before = studies.summary(place)
    (place / "summary.csv").unlink()
    study.run(store.config, place)  # finds every cell there
    assert studies.summary(place) == before
    assert (
        store.manifest()["cells"]
        == study.Store(studies.folder(name), store.config).manifest()["cells"]
    )


def test_tables_of_an_earlier_solver_are_read_and_never_added_to(tmp_path):
    place = tmp_path / "out"
    shutil.copytree(studies.folder(studies.EARLIER), place)
    store = study.Store(place, studies.config("factorization"))
    assert store.num_done() == len(store.config.cells) == 1
    before = studies.summary(place)
    (place / "summary.csv").unlink()
    study.summarise(store)
    assert studies.summary(place) == before
    files = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    with pytest.raises(jm.InputError, match="an earlier version of an estimator") as error:
        study.run(store.config, place)
    assert "--out" in str(error.value)
    assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == files
    (place / "manifest.json").unlink()  # told by its tables alone, too
    with pytest.raises(jm.InputError, match="an earlier version of an estimator"):
        study.run(store.config, place)


@pytest.mark.parametrize("name", studies.NAMES)
def test_a_study_gives_the_same(name, tmp_path):
    config = studies.config(name)
    study.run(config, tmp_path / "out")
    new, old = (studies.numbers(config, p) for p in (tmp_path / "out", studies.folder(name)))
    assert not compare.differences(new, old, EXACT)


def test_a_difference_is_found():
    old = {"a": [1.0, {"b": 2.0}], "steps": 3, "c": None}
    assert not compare.differences({"a": [1.0, {"b": 2.0}], "steps": 4, "c": None}, old, EXACT)
    wrong = {"a": [1.0, {"b": 2.0 + 1e-7}], "steps": 3, "c": 0.0, "d": 1}
    found = compare.differences(wrong, old, EXACT)
    assert [line.split(":")[0] for line in found] == [".d", ".a[1].b", ".c"]
