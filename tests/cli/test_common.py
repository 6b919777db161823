"""What commands write and print: nothing over what is read, and nothing lost by printing."""

import contextlib
import io
import json
import os
import pathlib
import shlex
import subprocess
import sys

import pandas as pd
import pytest

import jaxmix as jm
from jaxmix import cli
from jaxmix.cli import common
from jaxmix.cli.streams import Stream
from jaxmix.report import files
from jaxmix.status import InputError
from tests.cli.test_fit import POINT, ROLES, N, plain_json, table
from tests.study_helpers import TINY, ran, refused

GRAPH = """\
latent = "U"
treatment = "t"
outcome = "y"
z = ["z"]
x = ["x"]
edges = [["U", "z"], ["U", "x"], ["U", "t"], ["U", "y"], ["t", "y"]]
"""


@pytest.fixture
def rows(tmp_path, monkeypatch):
    """Return a table in the working folder, beside links to it."""
    monkeypatch.chdir(tmp_path)
    path = pathlib.Path("rows.csv")
    pd.DataFrame(table()).to_csv(path, index=False)
    return path


def snapshot():
    return {path: path.read_bytes() for path in pathlib.Path().rglob("*") if path.is_file()}


def never(*_, **__):
    raise AssertionError("work began before the outputs were looked at")


@pytest.fixture
def no_work(monkeypatch):
    monkeypatch.setattr("jaxmix.data.roles.read", never)
    monkeypatch.setattr("jaxmix.hierarchy.identify", never)
    monkeypatch.setattr("jaxmix.demo.load_lalonde", never)
    monkeypatch.setattr("jaxmix.study.simulate.draw", never)


# ------------------------------------------------------------------- outputs over inputs and others


def link(to, name):
    pathlib.Path(name).symlink_to(to)
    return name


def hard(to, name):
    os.link(to, name)
    return name


SPELLINGS = {
    "the same": lambda path: path,
    "a detour": lambda path: f"./{pathlib.Path.cwd().name}/../../{pathlib.Path.cwd().name}/{path}",
    "absolute": os.path.abspath,
    "a link": lambda path: link(path, "link.png"),
    "a link to a link": lambda path: link(link(path, "link.csv"), "link.png"),
    "a hard link": lambda path: hard(path, "hard.png"),
    "through a linked folder": lambda path: f"{link('.', 'here')}/{path}",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_json_over_the_table_is_refused(spelling, rows, no_work):
    pathlib.Path(pathlib.Path.cwd().name).mkdir()
    output = SPELLINGS[spelling](str(rows))
    before = snapshot()
    message = refused("fit", rows, *ROLES, "--json", output)
    assert f"--json would write over the table, {str(rows)!r}" in message
    assert "name another file" in message
    assert snapshot() == before


@pytest.mark.parametrize("option", ["--json", "--plot", "--sensitivity-plot"])
def test_no_output_of_fit_goes_over_an_input(option, rows, no_work):
    """Whatever the endings are: a table may be called rows.png."""
    for name, what in (("rows.png", "table"), ("graph.png", "graph")):
        pathlib.Path(name).write_text("precious")
        others = {"table": rows, "graph": "graph.toml"} | {what: name}
        message = refused("fit", others["table"], "--graph", others["graph"], *ROLES, option, name)
        assert f"{option} would write over the {what}" in message
        assert pathlib.Path(name).read_text() == "precious"


@pytest.mark.parametrize("there", [False, True], ids=["new", "there already"])
@pytest.mark.parametrize("one", ["--json", "--sensitivity-plot"])
def test_two_outputs_in_one_file_are_refused(one, there, rows, no_work):
    if there:
        pathlib.Path("out.png").write_text("old")
    before = snapshot()
    for other in ("out.png", "./out.png", os.path.abspath("out.png"), link("out.png", "link.png")):
        message = refused("fit", rows, *ROLES, one, "out.png", "--plot", other)
        assert one in message
        assert "--plot" in message
        assert "are one file" in message
    os.unlink("link.png")
    assert snapshot() == before


def test_the_other_commands_look_too(rows, no_work):
    for name, text in (("graph.toml", GRAPH), ("p.csv", 'kind = "paper_main"\n')):
        pathlib.Path(name).write_text(text)
    hard("p.csv", "q.csv")
    before = snapshot()
    assert "the graph" in refused("identify", "graph.toml", "--json", "./graph.toml")
    assert "the population" in refused("simulate", "p.csv", "-o", "p.csv")
    assert "the population" in refused("simulate", "p.csv", "-o", "q.csv")
    assert "one file" in refused("demo", "lalonde", "--json", "a.png", "--plot", "a.png")
    assert snapshot() == before


def test_a_study_does_not_write_over_its_configuration(tmp_path):
    store = ran(tmp_path, TINY)
    path = store.folder / "summary.csv"
    path.write_text(TINY)
    assert "the configuration" in refused("study", "summarize", path, "--out", store.folder)
    assert path.read_text() == TINY


def test_an_earlier_output_may_be_written_over_and_devices_named_twice(rows, no_work):
    for _ in range(2):
        files.check_outputs({"--json": "out.json"}, {"the table": rows})
        files.write_whole("out.json", "{}")
    devices = {"--json": "/dev/null", "--plot": "/dev/null"}
    files.check_outputs(devices, {"the table": "/dev/null"})
    os.mkfifo("pipe")
    files.check_outputs({"--json": "pipe", "--plot": "pipe"}, {})


@pytest.mark.parametrize("name", ["x" * 256, "\u00e4" * 128, "x" * 5000])
def test_a_name_that_no_file_can_have(name, rows, no_work):
    assert "at most 255" in refused("fit", rows, *ROLES, "--json", name)
    with pytest.raises(InputError, match="at most 255"):
        files.write_whole(name, "{}")


def test_a_home_folder_behind_an_equals_sign(rows, monkeypatch, tmp_path):
    """A shell leaves ``--json=~/out.json`` alone."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    pathlib.Path("home").mkdir()
    rows.rename("home/rows.csv")
    assert cli.run(["fit", "~/rows.csv", *ROLES, *POINT, "--json=~/out.json"]) == 0
    assert plain_json("home/out.json")["n"] == N
    assert not pathlib.Path("~").exists()
    assert "the table" in refused("fit", "~/rows.csv", *ROLES, "--json=~/rows.csv")
    assert "'~nobody_of_this_name/rows.csv'" in refused("fit", "~nobody_of_this_name/rows.csv",
                                                         *ROLES)  # fmt: skip


# --------------------------------------------------------------------------- names of columns


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """Return a table whose names have commas, blanks and quotes, and the plain names behind."""
    names = {"z": "a,b", "x": " x 1 ", "cov": 'say "x"', "grade": "c", "g": "x1"}
    path = tmp_path_factory.mktemp("odd") / "rows.csv"
    pd.DataFrame(table()).rename(columns=names).to_csv(path, index=False)
    return path


def roles_of(monkeypatch, path, *options):
    """Return the columns by role that a call of ``fit`` reads."""
    read, seen = jm.read, {}

    def spy(rows, **roles):
        seen.update(roles)
        return read(rows, **roles)

    monkeypatch.setattr("jaxmix.data.roles.read", spy)
    monkeypatch.setattr("jaxmix.fitting.run.fit", stop)
    with contextlib.suppress(Stopped):
        assert cli.run(["fit", str(path), "--treatment", "t", "--outcome", "y", *options]) == 0
    return seen["z"], seen["x"], seen["covariates"]


class Stopped(Exception):  # noqa: N818
    pass


def stop(*_, **__):
    raise Stopped


QUOTED = ["--x", '" x 1 "']


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--z", '"a,b"', *QUOTED], (["a,b"], [" x 1 "], [])),
        (["--z", '"a,b",c', *QUOTED], (["a,b", "c"], [" x 1 "], [])),
        (["--z", 'c , "a,b"', *QUOTED], (["c", "a,b"], [" x 1 "], [])),
        (["--z", "c", "--z", '"a,b"', *QUOTED], (["c", "a,b"], [" x 1 "], [])),
        (["--z", "a,b", "--z", "c", *QUOTED], (["a,b", "c"], [" x 1 "], [])),
        (["--z", "a,b", "--x", " x 1 "], (["a,b"], [" x 1 "], [])),
        (["--z", "c", "--x", "x1", "--x", "w"], (["c"], ["x1", "w"], [])),
        (["--z", "c", "--z", "c", "--x", "x1"], (["c"], ["x1"], [])),
        (["--z", "c", "--x", "x1", "--covariates", '"say ""x""",w'],
         (["c"], ["x1"], ['say "x"', "w"])),
        (["--z", "c", "--x", "x1", "--covariates", 'say "x"'], (["c"], ["x1"], ['say "x"'])),
        (["--z", "c", "--x", "x1", "--covariates", "w", "--covariates", ""],
         (["c"], ["x1"], ["w"])),
    ],
    ids=str,
)  # fmt: skip
def test_columns_are_named_by_lists_quotes_and_repetition(options, expected, odd, monkeypatch):
    assert roles_of(monkeypatch, odd, *options) == expected


def test_a_list_is_a_list_where_its_parts_are_columns(tmp_path, monkeypatch):
    """Where a table has 'z', 'x' and 'z,x', the comma separates; quotes say otherwise."""
    path = tmp_path / "rows.csv"
    pd.DataFrame(table() | {"z,x": table()["z"]}).to_csv(path, index=False)
    assert roles_of(monkeypatch, path, "--z", "z,x", "--x", "grade")[0] == ["z", "x"]
    assert roles_of(monkeypatch, path, "--z", '"z,x"', "--x", "grade")[0] == ["z,x"]


@pytest.mark.parametrize(
    ("option", "text", "fragments"),
    [
        ("--z", '"a,b', ["--z", "a quote is not closed"]),
        ("--x", '"a" b', ["--x", "there has to be a comma"]),
        ("--covariates", 'w,"', ["--covariates", "not closed"]),
        ("--z", "c,c", ["'c'", "twice in z"]),
        ("--z", "a,nope", ["'a'", "not in the table"]),
        ("--z", "", ["z names no column"]),
        ("--x", ",", ["x names no column"]),
        ("--z", '""', ["''", "not in the table"]),
    ],
)
def test_lists_that_are_none(option, text, fragments, odd):
    own = {"--z": "c", "--x": "x1"}
    roles = [word for pair in own.items() for word in pair]
    message = refused("fit", odd, "--treatment", "t", "--outcome", "y", *roles, option, text)
    assert [fragment for fragment in fragments if fragment not in message] == []


def test_repetition_gives_what_a_list_gives(rows):
    both = [[*ROLES, "--x", "x,grade"], [*ROLES, "--x", "grade"]]
    for number, roles in enumerate(both):
        assert cli.run(["fit", str(rows), *roles, *POINT, "--json", f"{number}.json"]) == 0
    one, other = (plain_json(f"{number}.json") for number in range(2))
    assert one["ate"] == other["ate"]
    assert one["diagnostics"]["num_features"] == {"z": 2, "x": 3}


def test_identify_takes_repetition_and_its_command_can_be_typed(tmp_path, capsys):
    nodes = ["t", "y", "z", "x", "a,b", 'say "x"', "c"]
    edges = [["U", node] for node in nodes[:5]] + [[node, "t"] for node in nodes[5:]]
    edges += [[node, "y"] for node in nodes[5:]] + [["t", "y"]]
    path = tmp_path / "graph.toml"
    path.write_text(GRAPH.split("edges")[0] + f"edges = {json.dumps(edges)}\n")
    more = ["--z", "z", "--z", '"a,b"', "--covariates", "c", "--covariates", '"say ""x"""']
    out = tmp_path / "out.json"
    assert cli.run(["identify", str(path), *more, "--json", str(out)]) == 0
    capsys.readouterr()
    found = plain_json(out)
    assert (found["z"], found["covariates"]) == (["z", "a,b"], ["c", 'say "x"'])
    words = shlex.split(found["fit"])
    assert common.names("--z", [words[words.index("--z") + 1]]) == ["z", "a,b"]
    listed = words[words.index("--covariates") + 1]
    assert common.names("--covariates", [listed]) == ["c", 'say "x"']


# ------------------------------------------------------------------------ printing loses nothing


class Full(io.StringIO):
    """A stream on a full disk; the error comes when it is written to, or when it is flushed."""

    def __init__(self, error, late=False):
        super().__init__()
        self.error, self.late = error, late

    def write(self, text):
        if not self.late:
            raise self.error
        return len(text)

    def flush(self):
        if self.late:
            raise self.error


NO_ROOM = OSError(28, "No space left on device")
CLOSED = BrokenPipeError(32, "Broken pipe")


@pytest.mark.parametrize("late", [False, True], ids=["write", "flush"])
@pytest.mark.parametrize("error", [NO_ROOM, CLOSED, ValueError("I/O operation on closed file")],
                         ids=["full", "closed pipe", "closed"])  # fmt: skip
def test_files_are_there_when_nothing_can_be_printed(error, late, rows, capsys):
    outputs = ["--json", "out.json", "--plot", "out.png"]
    with contextlib.redirect_stdout(Full(error, late)):
        assert cli.run(["fit", str(rows), *ROLES, *POINT, *outputs]) == 0
    assert plain_json("out.json")["n"] == N
    assert pathlib.Path("out.png").stat().st_size > 1000
    said = capsys.readouterr().err
    assert ("standard output cannot be written" in said) == (error is not CLOSED)
    assert "Traceback" not in said


def test_what_is_lost_and_in_no_file_is_a_failure(rows, capsys):
    with contextlib.redirect_stdout(Full(NO_ROOM)):
        assert cli.run(["fit", str(rows), *ROLES, *POINT]) == 2
        assert cli.run(["--version"]) == 2
    assert "No space left on device" in capsys.readouterr().err
    with contextlib.redirect_stdout(Full(CLOSED)):  # its reader has seen enough
        assert cli.run(["fit", str(rows), *ROLES, *POINT]) == 0
        assert cli.run(["fit", "--help"]) == 0
    with contextlib.redirect_stdout(Full(NO_ROOM)):
        assert cli.run(["fit", "nope.csv", *ROLES]) == 2
    with contextlib.redirect_stderr(Full(NO_ROOM)):
        assert cli.run(["fit", str(rows), *ROLES, *POINT, "--json", "out.json"]) == 0
        assert cli.run(["fit", "nope.csv", *ROLES]) == 2


def test_the_exit_code_of_a_failed_estimate_stays(tmp_path, monkeypatch, capsys):
    from tests.cli.test_fit import CLASSES, balanced

    monkeypatch.chdir(tmp_path)
    pd.DataFrame(balanced()).to_csv("rows.csv", index=False)
    options = [*CLASSES, *POINT, "--method", "spectral"]
    for more in (["--json", "out.json"], []):
        with contextlib.redirect_stdout(Full(NO_ROOM)):
            assert cli.run(["fit", "rows.csv", *ROLES, *options, *more]) == 1
    assert plain_json("out.json")["status"] == "RANK_DEFICIENT"


def test_letters_that_a_terminal_lacks_are_escaped(rows, capsys):
    renamed = rows.with_name("renamed.csv")
    pd.DataFrame(table()).rename(columns={"y": "Erlös €"}).to_csv(renamed, index=False)
    raw = io.BytesIO()
    terminal = io.TextIOWrapper(raw, encoding="ascii", errors="strict")
    roles = ["Erlös €" if word == "y" else word for word in ROLES]
    with contextlib.redirect_stdout(terminal):
        assert cli.run(["fit", str(renamed), *roles, *POINT, "--json", "out.json"]) == 0
    assert b"Erl\\xf6s \\u20ac" in raw.getvalue()
    assert plain_json("out.json")["outcome"] == "Erlös €"


def test_a_stream_drops_what_it_cannot_write():
    stream = Stream(None)
    assert (stream.write("x"), stream.isatty(), stream.failed) == (1, False, "")
    stream = Stream(Full(NO_ROOM))
    assert stream.write("x") == 1
    assert stream.failed == "No space left on device"
    assert stream.write("more") == 4
    with pytest.raises(TypeError):
        stream.write(b"x")
    raw = io.BytesIO()
    stream = Stream(io.TextIOWrapper(raw, encoding="latin-1"))
    stream.write("\u00e4 \u20ac \udcff\n")
    stream.flush()
    assert raw.getvalue() == b"\xe4 \\u20ac \\udcff\n"


def shell(line, **environ):
    """Run a line of a shell in the working folder, ``jaxmix`` standing for the command."""
    line = line.replace("jaxmix", f"{sys.executable} -m jaxmix")
    # Without the tests' compiled programs, of which XLA may have something to say.
    env = os.environ | {"PYTHONPATH": str(pathlib.Path(__file__).parents[2])} | environ
    env["XDG_CACHE_HOME"] = str(pathlib.Path.cwd() / "cache")
    return subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, timeout=120, check=False, env=env
    )


def test_a_process_on_a_full_device_and_an_ascii_terminal(rows):
    """One line on standard error, no complaint of the interpreter when it ends."""
    call = f"jaxmix fit {rows} {' '.join([*ROLES, *POINT])} --json out.json"
    done = shell(f"{call} > /dev/full", PYTHONIOENCODING="ascii", LC_ALL="C")
    assert done.returncode == 0
    assert len(done.stderr.splitlines()) == 2  # "wrote out.json", and what was lost
    assert "No space left on device" in done.stderr
    assert plain_json("out.json")["n"] == N


def test_a_process_whose_reader_has_gone(rows):
    call = f"jaxmix fit {rows} {' '.join([*ROLES, *POINT])} --json out.json"
    done = shell(f"{call} | true; echo ${{PIPESTATUS[0]}}")
    assert (done.stdout, done.stderr) == ("0\n", "wrote out.json\n")
    assert plain_json("out.json")["n"] == N


def test_json_into_a_redirected_standard_output(rows):
    """Behind the other's position, nothing is overwritten; a file named twice is refused."""
    call = f"jaxmix fit {rows} {' '.join([*ROLES, *POINT])} --json"
    done = shell(f"{call} /dev/stdout > both.txt")
    assert done.returncode == 0, done.stderr
    text = pathlib.Path("both.txt").read_text()
    saved, end = json.JSONDecoder().raw_decode(text)
    assert saved["n"] == N
    assert text[end:].strip().startswith("Effect of t")
    before = rows.read_bytes()
    for line in (f"{call} out.json > out.json", f"{call} out.json >> {rows}"):
        done = shell(line)
        assert done.returncode == 2
        assert "standard output goes" in done.stderr
    assert rows.read_bytes() == before
