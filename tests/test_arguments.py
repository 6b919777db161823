"""Every argument of every public call, with what it is not: one line that names it."""

import datetime
import decimal
import inspect
import pathlib
import traceback

import jax
import networkx
import numpy as np
import pandas as pd
import polars as pl
import pytest

import jaxmix as jm
from jaxmix.inference import resampling
from jaxmix.inference.selection import ranks
from jaxmix.inference.specification import arms, level, nested, ranges
from jaxmix.status import InputError

PACKAGE = str(pathlib.Path(jm.__file__).parent)


class Reached(Exception):  # noqa: N818
    """The arguments were taken, and the work would begin."""


class Odd:
    """Prints itself over many lines, as tables do."""

    def __repr__(self):
        return "a\nb\n" * 100


NUMBERS = {
    "zero": 0, "one": 1, "three": 3, "minus one": -1, "beyond 64 bits": 2**70, "half": 0.5,
    "three as float": 3.0, "nan": float("nan"), "infinity": float("inf"),
    "numpy three": np.int64(3), "numpy half": np.float32(0.5), "three, no directions": np.array(3),
    "half, no directions": np.array(0.5), "half, decimal": decimal.Decimal("0.5"),
    "no number, decimal": decimal.Decimal("nan"), "complex": 1j, "True": True,
    "numpy True": np.True_, "no directions True": np.array(True),
}  # fmt: skip
TEXTS = {
    "text": "nope", "a number as text": "0.95", "empty": "", "zero byte": "a\0b",
    "bytes": b"t", "numpy text": np.str_("nope"), "long": "x" * 5000,
}  # fmt: skip
OTHERS = {
    "None": None, "list": ["t"], "list of lists": [["t"]], "empty list": [], "tuple": ("t", "y"),
    "tuple of lists": (["t"], 1), "set": {"t"}, "dict": {"t": 1}, "object": object(),
    "odd": Odd(), "type": pd.DataFrame, "module": np, "array": np.arange(3),
    "table of numbers": np.eye(3), "texts": np.array(["t", "y"]), "objects": np.array([None, "t"]),
    "structured": np.zeros(2, [("t", int)]), "series": pd.Series([1, 2]), "frame": pd.DataFrame(),
    "polars": pl.DataFrame({"t": [1]}), "lazy": pl.LazyFrame({"t": [1]}), "date": datetime.date.max,
    "iterator": iter(()), "exception": ValueError("x"), "jax": jax.numpy.arange(3),
    "NA": pd.NA, "NaT": pd.NaT, "range": range(3), "graph": networkx.DiGraph(),
}  # fmt: skip
POOL = NUMBERS | TEXTS | OTHERS
TRUTHS = {"True", "numpy True"}
THREES = {"three", "numpy three", "three, no directions"}
HALVES = {"half", "numpy half", "half, no directions", "half, decimal"}
WHOLE = THREES | {"zero", "one", "minus one"}
FINITE = WHOLE | HALVES | {"beyond 64 bits", "three as float"}
NO_NAMES = {"None", "empty list", "iterator"}  # no column is named: right for covariates alone


def rows(n=40):
    rng = np.random.default_rng(0)
    return {name: rng.integers(0, 2, n) for name in ("t", "y", "z", "x", "w")}


ROLES = {"treatment": "t", "outcome": "y", "z": ["z"], "x": ["x"]}


@pytest.fixture(scope="module")
def data():
    return jm.CausalData.from_frame(rows(), **ROLES)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("arguments") / "rows.csv"
    pd.DataFrame(rows()).to_csv(path, index=False)
    return path


def reached(*_, **__):
    raise Reached


# ------------------------------------------------------------ what each argument may be, by name

MARKS = {"list", "tuple", "texts", "dict", "empty list", "set"}
FRAME = {  # of from_frame: the rest is the wrong kind, or names what is not there
    "frame": set(), "treatment": set(), "outcome": set(), "z": set(), "x": set(),
    "covariates": NO_NAMES, "weights": {"None"}, "weights_kind": set(),
    "control": {"None", "zero", "one", "True", "numpy True"}, "features": set(),
    "cluster": {"None"}, "missing_marks": MARKS,
}  # fmt: skip
FIT = {
    "data": set(), "num_classes": {"None", "one"} | THREES, "level": THREES, "method": set(),
    "bridge": set(), "estimand": set(), "better": set(), "num_resamples": {"zero"},
    "confidence": HALVES, "seed": WHOLE, "interval": set(), "resampling": {"None"},
    "strata": {"None"}, "graph": {"None"}, "checks": TRUTHS, "edge": set(),
    "progress": {"None", "type"},
}  # fmt: skip
CLASSES = {
    "frame": set(), "num_classes": {"one"} | THREES, "weights": {"None"},
    "columns": {"None", "list", "tuple", "texts", "dict"},
    "seed": WHOLE, "num_starts": {"None", "one"} | THREES,
    "missing_marks": MARKS,
}  # fmt: skip
NUM_CLASSES = {
    "data": set(), "level": THREES, "max_classes": {"None", "one"}, "seed": WHOLE,
    "num_resamples": {"zero"}, "size": HALVES,
}  # fmt: skip
LEVEL = {
    "data": set(), "num_classes": {"one"}, "level": THREES, "loss": {"None"}, "seed": WHOLE,
}  # fmt: skip
NESTED = {name: LEVEL[name] for name in ("data", "num_classes", "loss", "seed")}
BOOTSTRAP = {
    "statistic": {"type"}, "data": set(), "key": set(),
    "num_resamples": {"one"} | THREES,
    "kind": {"None"}, "outcome_values": None, "strata": None, "errors": {"tuple"},
    "chunk_size": {"None", "one"} | THREES, "progress": {"None", "type"},
}  # fmt: skip
IDENTIFY = {
    "graph": set(), "treatment": {"None"}, "outcome": {"None"}, "latent": {"None"},
    "z": {"None"}, "x": {"None"}, "separable": {"None", *TRUTHS},
    "covariates": NO_NAMES,
}  # fmt: skip


@pytest.mark.parametrize("given", FRAME)
def test_from_frame(given):
    own = {"frame": rows()} | ROLES
    check(jm.CausalData.from_frame, own, given, FRAME)


READ = FRAME | {"encoding": {"None"}}


@pytest.mark.parametrize("given", [name for name in READ if name != "frame"])
def test_read(given, file):
    own = {"path": file} | ROLES
    check(jm.read, own, given, READ)


def test_read_a_path():
    check(jm.read, {"path": "p.csv"} | ROLES, "path", {"path": set(), "encoding": set()})


@pytest.mark.parametrize("role", ["treatment", "outcome", "z", "x", "weights", "cluster"])
@pytest.mark.parametrize("kind", [pl.Int128, pl.List(pl.Int64), pl.Object], ids=str)
def test_columns_of_polars_that_are_no_numbers_here(kind, role):
    table = pl.DataFrame(rows())
    if kind == pl.Object:
        odd = pl.Series("odd", [object() for _ in range(40)], dtype=pl.Object)
    elif kind == pl.Int128:
        odd = table["w"].cast(kind).alias("odd")
    else:
        odd = pl.Series("odd", [[1, 2]] * 40, dtype=kind)
    named = ["odd"] if role in ("z", "x") else "odd"
    try:
        data = jm.CausalData.from_frame(table.with_columns(odd), **ROLES | {role: named})
    except InputError as error:
        message = str(error)
        # Two values are few for a cluster, and that is said before their type matters.
        assert (
            "cluster 'odd'" if role == "cluster" and kind == pl.Int128 else "column 'odd'"
        ) in message
        assert len(message.splitlines()) == 1
        assert "ragged" not in message
    else:  # numbers of 128 bits may be read, if they are read right
        assert kind == pl.Int128
        assert data.num_rows > 0


def test_read_says_what_is_missing_or_unknown_before_it_reads():
    with pytest.raises(TypeError, match="'outcome'"):
        jm.read("nowhere.csv", treatment="t", z=["z"], x=["x"])
    with pytest.raises(TypeError, match="'treatmnt'"):
        jm.read("nowhere.csv", treatmnt="t", **ROLES)


@pytest.mark.parametrize("given", FIT)
def test_fit(given, data, monkeypatch):
    monkeypatch.setattr("jaxmix.sample.features.encode", reached)
    own = {"data": data, "num_classes": 2}
    check(jm.fit, own, given, FIT)


@pytest.mark.parametrize("given", CLASSES)
def test_latent_classes(given, monkeypatch):
    monkeypatch.setattr("jaxmix.estimators.latent.solve", reached)
    own = {"frame": rows(), "num_classes": 2}
    check(jm.latent_classes, own, given, CLASSES)


@pytest.mark.parametrize("given", NUM_CLASSES)
def test_num_classes(given, data, monkeypatch):
    monkeypatch.setattr(ranks, "of_sample", reached)
    own = {"data": data, "num_resamples": 0}
    check(jm.selection.num_classes, own, given, NUM_CLASSES)


@pytest.mark.parametrize("given", LEVEL)
def test_level_test(given, data, monkeypatch):
    monkeypatch.setattr(level, "fit_statistic", reached)
    own = {"data": data}
    check(jm.specification.level_test, own, given, LEVEL)


@pytest.mark.parametrize("given", NESTED)
@pytest.mark.parametrize("test", ["nested", "arms", "range"])
def test_other_tests(test, given, data, monkeypatch):
    monkeypatch.setattr(nested, "nested_statistic", reached)
    monkeypatch.setattr(arms, "arms_statistic", reached)
    monkeypatch.setattr(ranges, "of_sample", reached)
    call = getattr(jm.specification, f"{test}_test")
    if given in inspect.signature(call).parameters:
        check(call, {"data": data}, given, NESTED, whole=False)


@pytest.mark.parametrize("given", [name for name, may in BOOTSTRAP.items() if may is not None])
def test_bootstrap(given, data, monkeypatch):
    monkeypatch.setattr(resampling, "_evaluate", reached)
    own = {"statistic": len, "data": data, "key": jax.random.key(0), "num_resamples": 5}
    check(jm.bootstrap, own, given, BOOTSTRAP)


@pytest.mark.parametrize("given", IDENTIFY)
def test_identify(given):
    edges = [("U", "Z"), ("U", "X"), ("U", "T"), ("U", "Y"), ("T", "Y")]
    check(jm.hierarchy.identify, {"graph": edges}, given, IDENTIFY)


@pytest.mark.parametrize("given", ["config", "folder", "chunk_size", "progress"])
def test_study_run(given, tmp_path, monkeypatch):
    from tests.study_helpers import TINY, write

    monkeypatch.setattr(jm.study.Store, "open", reached)
    monkeypatch.chdir(tmp_path)
    may = {
        "config": set(), "folder": {"text", "a number as text", "numpy text", "long"},
        "chunk_size": {"None", "one"} | THREES, "progress": {"None", "type"},
    }  # fmt: skip
    own = {"config": jm.study.load(write(tmp_path, TINY)), "folder": tmp_path / "out"}
    check(jm.study.run, own, given, may)


@pytest.mark.parametrize("given", ["path", "overrides"])
def test_study_load(given, tmp_path):
    from tests.study_helpers import TINY, write

    own = {"path": write(tmp_path, TINY)}
    check(jm.study.load, own, given, {"path": set(), "overrides": {"empty list"}})


POPULATIONS = {
    ("paper_main", "zt_strength"): {"zero", "one"} | HALVES,
    ("block", "num_classes"): {"one"} | THREES,
    ("block", "d_z"): {"None"} | THREES,
    ("block", "effects"): {"None"},
    ("block", "xy_strength"): {"zero", "one"} | HALVES,
    ("gaussian", "num_classes"): {"one"} | THREES,
    ("gaussian", "noise"): FINITE - {"zero", "minus one"} | {"infinity"},
    ("random_discrete", "family"): set(),
    ("random_discrete", "num_classes"): {"one"} | THREES,
    ("random_discrete", "key"): set(),
    ("paper_appendix", "num_z"): {"one"} | THREES,
}


@pytest.mark.parametrize(("kind", "given"), POPULATIONS)
def test_populations(kind, given):
    own = {"key": jax.random.key(0)} if kind == "random_discrete" else {}
    may = {given: POPULATIONS[kind, given]}
    check(getattr(jm.populations, kind), own, given, may, whole=False, errors=ValueError)


@pytest.mark.parametrize("kind", ["paper_main", "gaussian"])
@pytest.mark.parametrize("given", ["key", "n"])
def test_rows_of_a_population(given, kind):
    population = getattr(jm.populations, kind)()
    own = {"key": jax.random.key(0), "n": 10}
    may = {"key": set(), "n": {"zero", "one"} | THREES}
    check(population.sample, own, given, may, except_for={"beyond 64 bits"})


SENSITIVITY = {
    "counts_or_moments": set(), "k": {"one"} | THREES,
    "strengths": {"zero", "one", "beyond 64 bits", "three as float", "array", "range", "jax",
                  "series"} | HALVES | THREES,
    "key": set(), "edge": set(), "confidence": HALVES, "better": set(),
    "num_starts": THREES,
}  # fmt: skip


@pytest.mark.parametrize("given", SENSITIVITY)
def test_sensitivity(given, monkeypatch):
    monkeypatch.setattr("jaxmix.inference.sensitivity.bounding.bounds_of", reached)
    monkeypatch.setattr("jaxmix.estimators.factorization.solve", reached)
    counts = np.ones((2, 2, 2, 2))
    own = {"counts_or_moments": counts, "k": 2, "strengths": [0.0], "key": jax.random.key(0)}
    check(jm.sensitivity.bounds, own, given, SENSITIVITY, whole=False)


def test_features_of_what_is_no_table():
    check(jm.features.encode, {}, "data", {"data": set()}, whole=False)


# -------------------------------------------------------------------- what comes back from calls


@pytest.fixture(scope="module")
def results(data):
    frame = rows(400)
    frame["x"] = np.where(np.arange(400) % 5, frame["z"], frame["x"])
    many = jm.CausalData.from_frame(frame, **ROLES)
    options = {"level": 3, "num_classes": 2, "checks": False, "num_resamples": 0}
    verdict = jm.hierarchy.identify([("U", "Z"), ("U", "X"), ("U", "T"), ("U", "Y"), ("T", "Y")])
    return {
        "fit": jm.fit(many, **options), "verdict": verdict,
        "classes": jm.latent_classes(frame, 2, num_starts=2),
    }  # fmt: skip


def test_numbers_of_numpy_and_jax_are_kept_as_plain_numbers(data, tmp_path):
    """Or the result could not be stored."""
    options = {
        "num_classes": np.int64(2), "level": np.int8(3), "seed": np.uint32(5),
        "confidence": np.float32(0.5), "num_resamples": jax.numpy.asarray(0),
        "checks": np.False_, "better": np.str_("lower"),
    }  # fmt: skip
    result = jm.fit(data, **options)
    result.to_json(tmp_path / "out.json", command=np.str_("jaxmix"))
    assert [type(value) for value in (result.num_classes, result.level, result.seed)] == [int] * 3
    assert (result.seed, result.confidence, result.better) == (5, 0.5, "lower")
    found = jm.latent_classes(rows(), np.int64(2), seed=np.int64(3), num_starts=np.array(2))
    found.to_json(tmp_path / "classes.json")
    assert type(found.seed) is int


METHODS = {
    ("fit", "cdf", "value"): FINITE,
    ("fit", "quantile", "level"): HALVES | {"one"},
    ("fit", "posterior", "data"): set(),
    ("fit", "expected_effects", "data"): set(),
    ("fit", "to_dict", "command"): {"None", *TEXTS} - {"bytes"},
    ("fit", "to_json", "path"): {"text", "a number as text", "numpy text"},
    ("fit", "plot", "extra"): {"empty list"},
    ("classes", "posterior", "frame"): set(),
    ("classes", "to_json", "path"): {"text", "a number as text", "numpy text"},
    ("verdict", "to_dict", "command"): {"None", *TEXTS} - {"bytes"},
    ("verdict", "to_json", "path"): {"text", "a number as text", "numpy text"},
}


@pytest.mark.parametrize(("result", "method", "given"), METHODS)
def test_methods_of_results(result, method, given, results, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call = getattr(results[result], method)
    check(call, {}, given, {given: METHODS[result, method, given]},
          whole=False)  # fmt: skip


# ------------------------------------------------------------------------------- how it is judged


def fresh(name):
    return iter(()) if name == "iterator" else POOL[name]


def check(call, own, given, may, *, whole=True, except_for=(), errors=InputError):
    """Call with each wrong value; demand one line about it, or that it is taken where it is right.

    One test for each argument, not for each value: there are thousands.
    """
    if whole:
        parameters = inspect.signature(call).parameters.values()
        known = {p.name for p in parameters if p.kind is not p.VAR_KEYWORD}
        assert known - {"path"} <= set(may), "an argument is new: say here what it may be"
    faults = {
        name: fault
        for name in POOL
        if name not in except_for and (fault := judged(call, own, given, name, may[given], errors))
    }
    assert not faults, "\n".join(f"{given} = {name} {fault}" for name, fault in faults.items())


def judged(call, own, given, name, right, errors):
    """Return what is wrong with the answer to one value; empty where nothing is."""
    try:
        call(**own | {given: fresh(name)})
    except Reached:
        refused = None
    except (InputError, TypeError, ValueError) as error:
        refused = error
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    else:
        refused = None
    if (name in right) is (refused is None):
        fault = ""
    else:
        return "was taken" if refused is None else f"was refused: {refused}"
    if refused is None:
        return ""
    message = str(refused)
    last = traceback.extract_tb(refused.__traceback__)[-1]
    if not isinstance(refused, errors) or not last.filename.startswith(PACKAGE):
        fault = f"from deep inside: {type(refused).__name__}: {message[:200]}"
    elif len(message.splitlines()) != 1 or not message.isprintable() or len(message) > 600:
        fault = f"no clear line: {message[:200]!r} ({len(message)})"
    return fault
