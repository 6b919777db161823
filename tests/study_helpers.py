"""What the tests of studies share: a small configuration, calls, tables as frames."""

import contextlib
import io
import pathlib
import subprocess
import sys

import pyarrow.parquet as pq

from jaxmix import cli, study

TINY = """\
name = "tiny"
seed = 1
num_replicates = 20
num_rows = 1000
estimators = ["spectral", "difference_in_means"]

[population]
kind = "paper_main"

[grid]
zt_strength = [0.0, 1.0]
"""

CACHE = pathlib.Path(__file__).parent.parent / ".jax_cache"


def write(folder, text, name="study.toml"):
    """Write a configuration and return its path."""
    path = pathlib.Path(folder, name)
    path.write_text(text)
    return path


def call(*arguments):
    """Run the command line; return its exit code, standard output and standard error."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.run([str(argument) for argument in arguments])
    return code, out.getvalue(), err.getvalue()


def refused(*arguments):
    """Run a wrong call and return the only line that it says."""
    code, out, err = call(*arguments)
    assert code == 2, (code, err)
    assert out == ""
    assert err.endswith("\n")
    assert len(err.splitlines()) == 1, err
    assert err.startswith("jaxmix: ")
    return err


def ran(folder, text, *, overrides=(), **options):
    """Run a study through Python; return its store."""
    config = study.load(write(folder, text), overrides)
    store = study.Store(pathlib.Path(folder, "out"), config)
    study.run(config, store.folder, **options)
    return store


def table(store, position=0):
    """Return the replicates of a cell as a frame, statuses and estimators as text."""
    frame = pq.read_table(store.table_path(store.config.cells[position])).to_pandas()
    return frame.astype({"status": str, "estimator": str, "cell": str})


def of(store, label, position=0):
    """Return the rows of one estimator in a cell."""
    frame = table(store, position)
    return frame[frame["estimator"] == label].reset_index(drop=True)


def table_bytes(store):
    """Return every replicate table of a folder, by name, as bytes."""
    return {p.name: p.read_bytes() for p in store.folder.glob("replicates/*.parquet")}


def environment():
    """Return the environment of a process that shares compiled code with the tests."""
    import os

    return os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(CACHE),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_ENABLE_X64": "1",
        # Some processors make XLA write about each program that it loads, more than the pipe of a
        # process holds that nobody reads from yet.
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def process(*arguments, **environ):
    """Start the command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "jaxmix", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment() | environ,
    )
