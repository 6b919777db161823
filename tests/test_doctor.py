"""The doctor: known bad builds, the product that one of them got wrong, and what goes with it."""

import pathlib
import re
import tomllib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from packaging.requirements import Requirement

from jaxmix import cli, doctor
from jaxmix.solvers import canary

ROOT = pathlib.Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("dtype", "rows"),
    [("float64", 16_384), ("float64", 16_385), ("float64", 50_000),
     ("float32", 32_768), ("float32", 32_769), ("float32", 100_000)],
)  # fmt: skip
def test_canary(dtype, rows):
    """A compiled sum of squares of a product, row by row, is numpy's: a build got it wrong."""
    matrix, given = canary.table(rows, dtype)
    assert given.dtype == dtype
    found = jax.jit(jax.vmap(lambda row: jnp.sum((jnp.asarray(matrix) @ row) ** 2)))(given)
    assert found.dtype == dtype
    np.testing.assert_array_equal(np.asarray(found), ((given @ matrix.T) ** 2).sum(1))
    exact = ((given.astype(int) @ matrix.astype(int).T) ** 2).sum(1)
    np.testing.assert_array_equal(np.asarray(found), exact)


def test_a_sound_installation(capsys):
    assert cli.run(["doctor"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines()[-1] == "all well"
    for words in (
        rf"jax +{re.escape(jax.__version__)}", r"jaxlib +\d", r"numpy +\d", r"Python +3\.",
        r"devices +1 x cpu", r"compiled programs +\S+", r"canary product, float64 +right",
        r"canary product, float32 +right",
    ):  # fmt: skip
        assert re.search(words, out), words


def test_a_known_bad_build_fails(monkeypatch, capsys):
    version = doctor.version_of
    monkeypatch.setattr(doctor, "version_of", lambda n: "0.10.2" if n == "jaxlib" else version(n))
    assert cli.run(["doctor"]) == 1
    out, err = capsys.readouterr()
    assert "FAILS: jaxlib: jaxlib 0.10.2 computes wrong numbers on CPU" in out
    assert "all well" not in out
    warning, verdict = err.splitlines()
    assert warning.startswith("jaxmix: warning: jaxlib 0.10.2 computes wrong numbers")
    assert verdict.startswith("jaxmix: this installation computes wrong numbers")
    assert cli.run(["--version"]) == 0  # and whatever computes
    assert capsys.readouterr().err == f"{warning}\n"


@pytest.mark.parametrize("dtype", canary.ROWS)
def test_a_product_with_a_wrong_tail_fails(dtype, monkeypatch, capsys):
    """As that build had it: right on the first rows, wrong on those behind."""
    product = canary.product

    def wrong(matrix, rows):
        found = product(matrix, rows)
        beyond = canary.ROWS[dtype] if found.dtype == dtype else len(found)
        return jnp.where(jnp.arange(len(found)) >= beyond, found + 1, found)

    monkeypatch.setattr(canary, "product", wrong)
    assert cli.run(["doctor"]) == 1
    out, _ = capsys.readouterr()
    assert f"FAILS: canary product, {dtype}: 1 of {canary.ROWS[dtype] + 1:,} rows" in out
    assert out.count("WRONG") == 1


def test_a_slow_build_is_a_note(monkeypatch, capsys):
    version = doctor.version_of
    monkeypatch.setattr(doctor, "version_of", lambda n: "0.11.1" if n == "jaxlib" else version(n))
    assert cli.run(["doctor"]) == 0
    assert "note: jaxlib: jaxlib 0.11.1" in capsys.readouterr().out


def test_an_extra_that_is_missing_is_said(monkeypatch):
    version = doctor.version_of
    monkeypatch.setattr(doctor, "version_of", lambda n: None if n == "pydot" else version(n))
    found = {finding.name: finding for finding in doctor.versions()}
    assert found["pydot"].value == "not installed (pip install 'jaxmix[graph]')"
    assert not found["pydot"].trouble


def test_no_device_is_a_failure(monkeypatch):
    def none():
        raise RuntimeError("Unable to initialize\nbackend 'tpu'")

    monkeypatch.setattr(jax, "devices", none)
    (found,) = doctor.devices()
    assert found.grave
    assert found.trouble == "JAX finds no device: Unable to initialize backend 'tpu'"


@pytest.fixture
def kept():
    """Let a test change where compiled programs are kept, by JAX's own setting."""
    before = jax.config.jax_compilation_cache_dir
    yield lambda folder: jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_compilation_cache_dir", before)


def test_the_folder_of_compiled_programs(kept, tmp_path):
    folder = tmp_path / "programs"
    kept(str(folder))
    assert "No such file" in doctor.cache().trouble
    folder.mkdir(mode=0o700)
    (folder / "program-cache").write_bytes(bytes(1 << 20))
    found = doctor.cache()
    assert found.value == f"{folder} (1 programs, 1.0 MiB)"
    assert not found.trouble
    folder.chmod(0o777)
    assert "others can write there" in doctor.cache().trouble
    assert not doctor.cache().grave


def test_programs_that_are_not_kept(kept, monkeypatch, tmp_path):
    kept(None)
    monkeypatch.setenv("JAXMIX_CACHE", "off")
    assert doctor.cache()[1:] == ("not kept", "", False)
    (tmp_path / "file").touch()
    monkeypatch.setenv("JAXMIX_CACHE", str(tmp_path / "file"))
    found = doctor.cache()
    assert found.value == "not kept"
    assert "each run compiles anew" in found.trouble
    assert not found.grave


# ------------------------------------------------------------------- what may be installed


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def requirements():
    extras = project()["optional-dependencies"]
    own = [*project()["dependencies"], *(line for lines in extras.values() for line in lines)]
    return [Requirement(line) for line in own if not line.startswith("jaxmix[")]


def test_no_bad_build_is_allowed():
    found = {one.name: one.specifier for one in requirements()}
    for name in ("jax", "jaxlib"):
        for version in doctor.BAD_BUILDS:
            assert version not in found[name]
        assert "0.10.1" in found[name]


def test_the_floor_that_is_tested_is_the_floor():
    """What tox installs for the oldest versions are the lower bounds, each of them."""
    lines = (ROOT / "tox.ini").read_text().split("[testenv:floor]")[1].split("[testenv:newest]")[0]
    tested = dict(re.findall(r"^ +([\w-]+)==(\S+)$", lines, re.MULTILINE))
    bounds = {
        one.name: spec.version
        for one in requirements()
        for spec in one.specifier
        if spec.operator == ">="
    }
    for name in ("tensorly", "stepmix", "ruff", "mypy", "setuptools"):  # of no test
        del bounds[name]
    assert set(tested) == set(bounds)
    for name, bound in bounds.items():
        assert tested[name].startswith(bound), name


def test_the_lock_holds_what_the_project_asks_for():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pinned = dict(line.split(" ")[0].split("==") for line in lines if "==" in line)
    assert pinned["jaxlib"] not in doctor.BAD_BUILDS
    locked = {"peers"}  # compared with where they are installed, never needed
    extras = project()["optional-dependencies"]
    for extra, needed in {"": project()["dependencies"], **extras}.items():
        for line in needed if extra not in locked else ():
            if not line.startswith("jaxmix["):
                one = Requirement(line)
                assert pinned[one.name] in one.specifier, line
