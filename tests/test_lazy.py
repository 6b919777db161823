"""What is loaded when: public names on demand, and commands without arrays until they compute."""

import ast
import doctest
import importlib
import pathlib
import pickle
import subprocess
import sys

import pytest

import jaxmix
from jaxmix import choices, cli
from jaxmix.data import roles
from jaxmix.estimators.registry import METHODS
from jaxmix.inference import intervals
from jaxmix.model.structure import EDGE
from jaxmix.sample.resamples import draws

HEAVY = ["jax", "jaxlib", "numpy", "optax", "pyarrow", "pandas", "matplotlib", "rich"]
GRAPH = pathlib.Path(__file__).parents[1] / "configs" / "graphs" / "level3.toml"


def python(code):
    """Run code in a process of its own, and return what it prints."""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


def loaded(code, names=HEAVY):
    """Return which modules a process has loaded in the end; what it prints is dropped."""
    told = f"import sys; sys.stdout = sys.stderr; {code}\nfound = set({names!r}) & set(sys.modules)"
    return set(python(f"{told}; print(*sorted(found), file=sys.__stdout__)").split())


def command(*arguments, code=0):
    return f"from jaxmix import cli; assert cli.run({list(arguments)!r}) == {code}"


FIT = ["fit", "none.csv", "--treatment", "t", "--outcome", "y", "--z", "z", "--x", "x"]


@pytest.mark.parametrize(
    "code",
    [
        "import jaxmix",
        "from jaxmix import InputError, EstimateError",
        command("--help"),
        command(),
        command("--version"),
        command("fit", "--help"),
        command("study", "run", "--help"),
        command("doctor", "--help"),
        command("fit", "--nope", code=2),
        command("nope", code=2),
    ],
)
def test_without_arrays(code):
    assert not loaded(code)


@pytest.mark.parametrize("name", ["fit", "study run"])
def test_the_help_of_a_command_reads_no_values(name, capsys):
    """Nor loads what typer reads them by; what is shown is named as it is called."""
    words = [*name.split(), "--help"]
    assert not loaded(command(*words), ["pydantic"])
    assert cli.run(words) == 0
    assert capsys.readouterr().out.startswith(f"Usage: jaxmix {name} [OPTIONS] ")


@pytest.mark.parametrize(
    "code",
    [
        command("identify", str(GRAPH)),
        command("identify", "none.toml", code=2),
        command(*FIT, code=2),
        command(*FIT, "--interval", "nope", code=2),
        command(*FIT, "--json", "none/out.json", code=2),
        command("simulate", "none.toml", "-o", "rows.csv", "-n", "0", code=2),
    ],
)
def test_without_jax(code):
    assert not loaded(code, ["jax", "jaxlib", "optax"])


def test_a_command_that_computes_loads_jax():
    assert "jax" in loaded(command("doctor"))


def test_a_command_is_quiet_before_jax_is_loaded():
    """The setting of XLA is read once, when jaxlib is loaded."""
    code = (
        "import os, sys; sys.argv = ['jaxmix']; os.environ.pop('TF_CPP_MIN_LOG_LEVEL', None)\n"
        "import jaxmix; assert 'jax' not in sys.modules\n"
        "print(os.environ['TF_CPP_MIN_LOG_LEVEL'])"
    )
    assert python(code) == "3\n"


# ------------------------------------------------------------------------------------ public names


def test_each_public_name_resolves_in_a_process_of_its_own():
    """One by one, none loaded by another before; `dir` has them all, and no other."""
    code = (
        "import jaxmix, sys\n"
        "assert dir(jaxmix) == sorted(jaxmix.__all__)\n"
        "for name in reversed(jaxmix.__all__):\n"
        "    assert name not in vars(jaxmix)\n"
        "    print(name, getattr(getattr(jaxmix, name), '__name__', ''))\n"
        "    assert name in vars(jaxmix)\n"
        "    for other in [n for n in vars(jaxmix) if n in jaxmix.__all__]:\n"
        "        delattr(jaxmix, other)\n"
    )
    found = dict(line.split(" ") for line in python(code).splitlines())
    assert set(found) == set(jaxmix.__all__)
    assert found["fit"] == "fit"
    assert found["moments"] == "jaxmix.sample.moments"


def test_public_names_have_the_types_of_what_they_are():
    """What is imported for types is what Python gives."""
    tree = ast.parse(pathlib.Path(jaxmix.__file__).read_text())
    (typed,) = (
        node for node in tree.body if isinstance(node, ast.If) and len(node.body) > 5
    )  # fmt: skip
    told = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in typed.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert {*told, "__version__"} == set(jaxmix.__all__)
    for name, (place, own) in told.items():
        module = importlib.import_module(place)
        if not hasattr(module, own):
            importlib.import_module(f"{place}.{own}")
        assert getattr(jaxmix, name) is getattr(module, own)


def test_an_unknown_name():
    for name in ("nothing", "_nothing", "__nothing__"):
        with pytest.raises(AttributeError, match=rf"module 'jaxmix' has no attribute '{name}'"):
            getattr(jaxmix, name)
    with pytest.raises(ImportError, match="cannot import name 'nothing' from 'jaxmix'"):
        from jaxmix import nothing  # noqa: F401


def test_everything_at_once():
    code = (
        "from jaxmix import *\n"
        "import jaxmix\n"
        "print(all(globals()[name] is getattr(jaxmix, name) for name in jaxmix.__all__))"
    )
    assert python(code) == "True\n"


def test_modules_that_were_there_after_an_import_still_are():
    code = (
        "import jaxmix as jm\n"
        "print(jm.status.Status.SUCCESS.name, jm.factorization.solve.__name__, jm.fit.__name__)\n"
        "import jaxmix.estimators.table, jaxmix.moments, jaxmix.study.config\n"
        "print(jm.moments.Moments.__module__, jm.estimators.table.__name__)\n"
        "print(jm.study.config.__name__, jm.study.run.__module__)\n"
    )
    assert python(code).split() == [
        "SUCCESS", "solve", "fit", "jaxmix.sample.moments", "jaxmix.estimators.table",
        "jaxmix.study.config", "jaxmix.study.run",
    ]  # fmt: skip


def test_old_paths_load_nothing_until_they_are_asked():
    assert not loaded("import jaxmix.moments, jaxmix.fit, jaxmix.result", ["jax", "numpy"])


@pytest.mark.parametrize("name", ["Result", "InputError", "fit", "EffectLaw", "use_cache"])
def test_public_names_can_be_pickled(name):
    """And read in a process that has loaded nothing yet."""
    raw = pickle.dumps(getattr(jaxmix, name))
    assert pickle.loads(raw) is getattr(jaxmix, name)
    assert python(f"import pickle; print(pickle.loads({raw!r}).__name__)") == f"{name}\n"


def test_examples_in_docstrings_are_found():
    assert doctest.DocTestFinder().find(jaxmix.fitting.run, "jaxmix.fitting.run")
    assert not [test for test in doctest.DocTestFinder().find(jaxmix) if test.examples]


# ------------------------------------------------------------------------------- names and choices


def test_names_stand_for_what_there_is():
    """Names that are read without what they stand for are those of what they stand for."""
    assert tuple(name for name, method in METHODS.items() if method.levels) == choices.METHODS
    assert tuple(EDGE) == choices.EDGES
    assert intervals.KINDS == choices.INTERVALS
    assert draws.KINDS == choices.RESAMPLINGS
    assert roles.WEIGHT_KINDS == choices.WEIGHT_KINDS


def test_a_message_is_one_line_that_can_be_printed(monkeypatch, capsys):
    def refuse(*_, **__):
        raise jaxmix.InputError("from \x1b[31ma table\n\x07 \u00e4")

    monkeypatch.setattr("jaxmix.data.roles.read", refuse)
    assert cli.run(FIT) == 2
    assert capsys.readouterr().err == "jaxmix: from \\x1b[31ma table\\n\\x07 \u00e4\n"
