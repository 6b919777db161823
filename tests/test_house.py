"""The house: imports run down, files stay short, nothing speaks of where it was made."""

import ast
import importlib
import pathlib
import subprocess
import sys

import pytest

import jaxmix

PACKAGE = pathlib.Path(jaxmix.__file__).parent

# From the lowest room to the highest; a room imports from those before it, and from itself.
ROOMS = [
    "remarks", "status", "arguments", "tables", "columns", "reading", "categories", "arms",
    "clusters", "coding", "redundancy", "solvers", "report", "data", "sample", "features",
    "moments", "mixture", "hierarchy", "estimators", "populations", "inference", "latent_classes",
    "estimates", "summary", "result", "units", "options", "plan", "diagnose",
    "uncertainty", "consistency", "checks", "fit", "study", "demo", "doctor", "cli", "__main__",
]  # fmt: skip


def modules():
    return sorted(path for path in PACKAGE.rglob("*.py"))


def room(name: str) -> str:
    return name.split(".")[1] if name.count(".") else "__init__"


def imports(path):
    """Yield the jaxmix modules that a file imports, except for types only."""
    tree = ast.parse(path.read_text())
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("jaxmix"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jaxmix"):
            for alias in node.names:
                yield node.module if node.module != "jaxmix" else f"jaxmix.{alias.name}"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_down(path):
    own = ".".join(["jaxmix", *path.relative_to(PACKAGE).with_suffix("").parts])
    if own == "jaxmix.__init__":
        return
    assert room(own) in ROOMS, f"{own} has no place in the order of rooms"
    for other in imports(path):
        assert ROOMS.index(room(other)) <= ROOMS.index(room(own)), f"{own} imports {other}"


def test_every_room_is_there():
    found = {
        room(".".join(["jaxmix", *p.relative_to(PACKAGE).with_suffix("").parts])) for p in modules()
    }
    assert found - {"__init__"} == set(ROOMS)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_stay_short(path):
    assert len(path.read_text().splitlines()) <= 400


@pytest.mark.parametrize("name", ["features", "moments"])
def test_modules_that_moved_keep_their_public_names(name):
    """Their old import paths give the very same objects, and all of them."""
    old = importlib.import_module(f"jaxmix.{name}")
    new = importlib.import_module(f"jaxmix.sample.{name}")
    own = {
        key for key, value in vars(new).items()
        if not key.startswith("_") and getattr(value, "__module__", "") == new.__name__
    }  # fmt: skip
    assert set(old.__all__) == own
    assert all(getattr(old, key) is getattr(new, key) for key in own)


CONVENTIONS = {"_asdict", "_fields", "_replace", "_repr_html_", "_supxlabel"}  # of others' classes


def private(path):
    """Yield what a file takes of another that begins with an underscore."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("jaxmix", "tests")):
            names = [alias.name for alias in node.names]
            yield from (n for n in names if n.startswith("_") and not n.startswith("__"))
        if isinstance(node, ast.Attribute) and not (
            isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
        ):
            name = node.attr
            if name.startswith("_") and not name.startswith("__") and name not in CONVENTIONS:
                yield name


@pytest.mark.parametrize(
    "path", sorted(pathlib.Path(__file__).parent.rglob("*.py")), ids=lambda p: p.name
)
def test_tests_read_no_private_name(path):
    assert not list(private(path))


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_import_no_private_name(path):
    found = [name for name in imports(path) if name.rsplit(".", 1)[-1].startswith("_")]
    assert not [name for name in found if not name.endswith("__")]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jaxmix"):
            assert not [alias.name for alias in node.names if alias.name.startswith("_")]


def test_public_names_exist_and_are_listed():
    assert sorted(jaxmix.__all__) == jaxmix.__all__
    for name in jaxmix.__all__:
        assert hasattr(jaxmix, name)


def test_import_flips_no_switch_and_needs_no_extra():
    code = (
        "import sys\n"
        "extras = 'pandas pyarrow matplotlib typer rich networkx causaldata'.split()\n"
        "sys.modules |= dict.fromkeys(extras)\n"
        "import jax, jaxmix\n"
        "assert not jax.config.jax_enable_x64\n"
        "rows = jaxmix.populations.paper_main(0.5).sample(jax.random.key(0), 2000)\n"
        "data = jaxmix.CausalData.from_frame(rows, treatment='T', outcome='Y', z=['Z'], x=['X'])\n"
        "result = jaxmix.fit(data, num_classes=2, checks=False, num_resamples=0)\n"
        "assert result.law is not None and result.law.effects.dtype == 'float64'\n"
        "assert not jax.config.jax_enable_x64\n"
        "print(result.ate.value)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert abs(float(run.stdout)) < 0.5
