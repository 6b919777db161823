"""The house: imports run down, files stay short, nothing speaks of where it was made."""

import ast
import importlib
import pathlib
import re
import subprocess
import sys

import pytest

import jaxmix
from jaxmix import moved

PACKAGE = pathlib.Path(jaxmix.__file__).parent

# From the lowest room to the highest; a room imports from those before it, and from itself.
ROOMS = [
    "remarks", "moved", "types", "exceptions", "choices", "status", "arguments", "tables",
    "solvers", "report", "data", "sample", "model", "hierarchy", "estimators", "populations",
    "inference", "results", "fitting", "study", "demo", "doctor", "cli", "__main__",
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


# The rooms that know rows; for all others a `Sample` answers.
READ_ROWS = {"data", "sample"}
ROW_FIELDS = {"multiplicity", "weight", "cluster"}


def reads_rows(path):
    """Whether a file takes the fields of rows: those of no other name, or any of `views`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            owner = getattr(node.value, "id", "") or getattr(node.value, "attr", "")
            of_rows = node.attr in ROW_FIELDS and owner != "near"  # an optimum has a weight too
            if of_rows or (owner == "views" and node.attr in {"z", "x", "y", "t"}):
                return True
    return False


def test_no_other_room_reads_rows():
    found = {
        room(".".join(["jaxmix", *path.relative_to(PACKAGE).with_suffix("").parts]))
        for path in modules()
        if reads_rows(path)
    }
    assert found <= READ_ROWS


def test_one_file_knows_how_rows_are_held():
    """Rows are sliced and looped over in `sample/sums.py`; others have functions of a few rows."""
    found = [
        path.relative_to(PACKAGE).as_posix()
        for path in modules()
        if path.is_relative_to(PACKAGE / "sample") and "dynamic_slice" in path.read_text()
    ]
    assert found == ["sample/sums.py"]


FOLDERS = sorted({path.parent for path in modules()})


def test_tests_stand_in_rooms_of_the_package():
    """Those of a room in a folder of its name; those that cross rooms, beside the folders."""
    tests = pathlib.Path(__file__).parent
    found = {str(path.parent.relative_to(tests)) for path in tests.rglob("test_*.py")}
    rooms = {str(folder.relative_to(PACKAGE)) for folder in FOLDERS}
    assert found - {"golden"} <= rooms


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: p.name)
def test_folders_stay_small(folder):
    """About ten files and `__init__.py`: what no longer fits is two rooms."""
    assert len(list(folder.glob("*.py"))) <= 12


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_stay_short(path):
    assert len(path.read_text().splitlines()) <= 400


def places(old: str) -> tuple[str, ...]:
    """Return the modules that took the place of one."""
    new = moved.MOVED[old]
    return (new,) if isinstance(new, str) else new


@pytest.mark.parametrize("old", sorted(moved.MOVED))
def test_old_paths_give_the_modules_that_took_their_place(old):
    for place in places(old):
        new = importlib.import_module(f"jaxmix.{place}")
        names = [
            name for name, value in vars(new).items()
            if not name.startswith("_") and getattr(value, "__module__", "") == new.__name__
        ]  # fmt: skip
        assert names
        for name in names:
            with pytest.warns(DeprecationWarning, match=re.escape(new.__name__)):
                given = getattr(importlib.import_module(f"jaxmix.{old}"), name)
            assert given is getattr(new, name)


def test_an_old_path_that_was_divided_says_what_it_has_not():
    (old,) = (name for name in moved.MOVED if len(places(name)) > 1)
    module = importlib.import_module(f"jaxmix.{old}")
    with (
        pytest.warns(DeprecationWarning, match="the old path goes"),
        pytest.raises(AttributeError, match="nothing_of_it"),
    ):
        module.nothing_of_it  # noqa: B018


KEPT = {
    "selection": {"Candidate", "Selection", "num_classes"},
    "sensitivity": {"Sensitivity", "bounds", "does_not_apply"},
    "specification": {
        "SpecificationTest", "Statistic", "TESTS", "arms_test", "contrast_test", "fit_test",
        "level_test", "nested_test", "overidentification", "range_test", "statistics",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", KEPT)
def test_rooms_give_the_names_of_the_modules_that_they_replaced(name):
    package = importlib.import_module(f"jaxmix.inference.{name}")
    assert set(package.__all__) == KEPT[name]
    for public in KEPT[name]:
        assert getattr(package, public).__class__ is not type(package)  # no file hides it


def test_an_old_path_hides_nothing():
    """The functions `fit` and `latent_classes` have the names of modules that were."""
    code = (
        "import warnings\n"
        "warnings.simplefilter('ignore', DeprecationWarning)\n"
        "from jaxmix.fit import fit\n"
        "from jaxmix.latent_classes import latent_classes\n"
        "import jaxmix, jaxmix.fit, jaxmix.result, jaxmix.estimators.table\n"
        "assert jaxmix.fit is fit and jaxmix.latent_classes is latent_classes\n"
        "assert jaxmix.result.Result is jaxmix.Result\n"
        "assert jaxmix.estimators.table.Cells is not None\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_the_map_has_every_file_with_the_head_of_its_module(path):
    if path.name == "__init__.py":
        return
    head = ast.get_docstring(ast.parse(path.read_text())).splitlines()[0].rstrip(".")
    architecture = PACKAGE.parent / "docs" / "architecture.md"
    assert f"| `{path.relative_to(PACKAGE)}` | {head} |" in architecture.read_text()


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
    "path",
    sorted(pathlib.Path(__file__).parent.rglob("*.py")),
    ids=lambda p: str(p.relative_to(pathlib.Path(__file__).parent)),
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


# What may say `Any`, since no type that is to be written down would be right.
UNTYPED = {
    "Solution.stats",  # numbers, and pytrees by estimator, such as where a search is to start
    "bootstrap",  # what the statistic gives, or a pair of it and errors, by a value: `errors`
    "Option.default",  # of a type of its own, for the signature of a command
    "Source.data",  # any TOML, which is checked key by key
}


def says_any(annotation):
    """Whether an annotation, perhaps quoted, says `Any`."""
    if annotation is None:
        return False
    for node in ast.walk(annotation):
        named = getattr(node, "id", None) or getattr(node, "attr", None)
        text = node.value if isinstance(node, ast.Constant) else ""
        if named == "Any" or (isinstance(text, str) and re.search(r"\bAny\b", text)):
            return True
    return False


def untyped(tree):
    """Yield the public functions, methods, fields and names of types that say `Any`."""

    def of(body, owner=""):
        for node in body:
            if isinstance(node, ast.ClassDef):
                if not node.name.startswith("_"):
                    yield from of(node.body, f"{node.name}.")
                continue
            if isinstance(node, ast.FunctionDef):
                name = node.name
                own = node.args
                given = [*own.posonlyargs, *own.args, *own.kwonlyargs, own.vararg, own.kwarg]
                kinds = [node.returns, *(arg.annotation for arg in given if arg is not None)]
            elif isinstance(node, ast.AnnAssign):
                name, kinds = ast.unparse(node.target), [node.annotation]
                kinds += [node.value] if "TypeAlias" in ast.unparse(node.annotation) else []
            elif isinstance(node, ast.Assign) and not owner:  # perhaps another name of a type
                name, kinds = ast.unparse(node.targets[0]), [node.value]
            else:
                continue
            public = not name.startswith("_") or name.endswith("__")
            if public and any(map(says_any, kinds)):
                yield f"{owner}{name}"

    yield from of(tree.body)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_what_others_import_has_types(path):
    assert not set(untyped(ast.parse(path.read_text()))) - UNTYPED


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_what_is_compiled_keeps_its_types(path):
    if path != PACKAGE / "solvers" / "compiling.py":
        tree = ast.parse(path.read_text())
        assert "jax.jit" not in {ast.unparse(n) for n in ast.walk(tree) if isinstance(n, ast.expr)}


def test_no_exception_has_outlived_its_reason():
    assert {name for path in modules() for name in untyped(ast.parse(path.read_text()))} == UNTYPED


def test_what_has_no_type_is_found():
    planted = """
def plain(value: int) -> str: ...
def given(value: Any) -> int: ...
def gives() -> Callable[[int], typing.Any]: ...
def _own(value: Any) -> Any: ...
Statistic = Callable[[int], Any]
class Table:
    rows: list[int]
    cells: "dict[str, Any]"
    def __init__(self, *parts: Any) -> None: ...
    def _own(self) -> Any: ...
"""
    found = ["given", "gives", "Statistic", "Table.cells", "Table.__init__"]
    assert list(untyped(ast.parse(planted))) == found


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
