"""Programs that are kept: where, for whom, and that what happens to them costs no answer."""

import errno
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import warnings

import jax
import jax.numpy as jnp
import jaxlib.version
import pytest

import jaxmix as jm
from jaxmix import cli
from jaxmix.solvers import cache

AT_ONCE = 3  # processes on one folder
LEAST = "jax_persistent_cache_min_compile_time_secs"


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch, tmp_path):
    """Let each test begin where JAX keeps nothing, and be as it was afterwards."""
    before, least = jax.config.jax_compilation_cache_dir, getattr(jax.config, LEAST)
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.delenv("JAXMIX_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    yield
    with monkeypatch.context() as context:
        context.setenv("JAXMIX_CACHE", "off")
        jax.config.update("jax_compilation_cache_dir", jm.use_cache())
    jax.config.update("jax_compilation_cache_dir", before)
    jax.config.update(LEAST, least)


def refused(match, folder=None):
    """Refuse a folder with one warning, after which JAX keeps nothing."""
    with pytest.warns(UserWarning, match=match) as caught:
        assert jm.use_cache(folder) is None
    assert len(caught) == 1
    text = str(caught[0].message)
    assert "\n" not in text
    assert "each run compiles anew" in text
    assert "JAXMIX_CACHE=off" in text
    assert caught[0].filename == __file__
    assert jax.config.jax_compilation_cache_dir is None
    assert float(jnp.arange(5.0).sum()) == 10


# ------------------------------------------------------------------------------------------ where


def test_the_users_own_folder(tmp_path):
    folder = jm.use_cache()
    assert pathlib.Path(folder) == tmp_path / "xdg" / "jaxmix" / cache.build()
    assert jax.config.jax_compilation_cache_dir == folder
    assert getattr(jax.config, LEAST) == cache.LEAST_SECONDS
    assert jm.use_cache() == folder


def test_it_is_for_the_user_alone():
    before = os.umask(0o002)
    try:
        folder = pathlib.Path(jm.use_cache())
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_another_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXMIX_CACHE", str(tmp_path / "by variable"))
    assert jm.use_cache() == str(tmp_path / "by variable" / cache.build())
    assert jm.use_cache(tmp_path / "given") == str(tmp_path / "given" / cache.build())
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "given" / cache.build())
    assert jm.use_cache() == str(tmp_path / "given" / cache.build())  # what is in use


def test_a_home_and_a_folder_that_is_not_absolute(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    monkeypatch.chdir(tmp_path)
    assert jm.use_cache() == str(tmp_path / "home" / ".cache" / "jaxmix" / cache.build())
    assert jm.use_cache("~/own") == str(tmp_path / "home" / "own" / cache.build())
    assert jm.use_cache("here") == str(tmp_path / "here" / cache.build())


@pytest.mark.parametrize("off", ["off", "0", " OFF "])
def test_off(off, tmp_path, monkeypatch):
    """Without a word, also for a folder that a program names, and where it was on."""
    assert jm.use_cache() is not None
    monkeypatch.setenv("JAXMIX_CACHE", off)
    assert jm.use_cache(tmp_path / "given") is None
    assert jm.use_cache() is None
    assert jax.config.jax_compilation_cache_dir is None
    assert not (tmp_path / "given").exists()


@pytest.mark.parametrize("own", ["folder", ""])
def test_the_setting_of_jax_wins(own, tmp_path, monkeypatch):
    own = own and str(tmp_path / own)
    least = getattr(jax.config, LEAST)
    jax.config.update("jax_compilation_cache_dir", own)
    for given in (None, tmp_path / "given"):
        assert jm.use_cache(given) == (own or None)
    monkeypatch.setenv("JAXMIX_CACHE", "off")
    assert jm.use_cache() == (own or None)
    assert jax.config.jax_compilation_cache_dir == own
    assert getattr(jax.config, LEAST) == least
    assert os.listdir(tmp_path) == []


def test_how_long_a_program_has_to_take_may_be_the_users(monkeypatch):
    least = getattr(jax.config, LEAST)
    monkeypatch.setenv(LEAST.upper(), str(least))
    assert jm.use_cache() is not None
    assert getattr(jax.config, LEAST) == least


def test_builds_and_processors_have_folders_of_their_own(monkeypatch):
    names = {cache.build()}
    monkeypatch.setattr(jaxlib.version, "__version__", "99.0")
    names.add(cache.build())
    read = pathlib.Path.read_text

    def other(path, *args, **more):
        flags = "processor: 0\nmodel name: other\nflags: fpu\n\nprocessor: 1\n"
        return flags if path == pathlib.Path("/proc/cpuinfo") else read(path, *args, **more)

    monkeypatch.setattr(pathlib.Path, "read_text", other)
    names.add(cache.build())

    def none(path, *args, **more):
        raise FileNotFoundError

    monkeypatch.setattr(pathlib.Path, "read_text", none)
    names.add(cache.build())
    assert len(names) == 4
    assert all(name.isprintable() and "/" not in name for name in names)


# ------------------------------------------------------------------------------- what goes wrong


def test_a_path_that_is_a_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("kept")
    for given in (path, path / "below"):
        refused(r"file.* cannot be written to \(Not a directory\)", given)
    monkeypatch.setenv("XDG_CACHE_HOME", str(path))
    refused("Not a directory")
    monkeypatch.setenv("JAXMIX_CACHE", str(path))
    refused("Not a directory")
    assert path.read_text() == "kept"


def test_a_home_that_is_read_only(monkeypatch):
    def refuse(path, *_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(pathlib.Path, "mkdir", refuse)
    refused("Read-only file system")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES])
def test_a_disk_that_is_full(number, monkeypatch):
    """Or a folder that is there, and takes no file."""

    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    refused(os.strerror(number))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no device that is full")
def test_a_disk_without_room_for_a_file(monkeypatch):
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: open("/dev/full", "wb"))  # noqa: SIM115
    refused("No space left on device")


def test_no_home_at_all(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as where no user is known
    monkeypatch.chdir(tmp_path)
    refused("no home folder is known")
    assert os.listdir() == []


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_folder_that_others_can_write_to(mode):
    folder = pathlib.Path(jm.use_cache())
    assert jm.use_cache(folder.parent) == str(folder)
    folder.chmod(mode)
    refused(f"others can write to {folder}: chmod go-w", folder.parent)
    folder.chmod(0o755)
    assert jm.use_cache() == str(folder)  # others may read


def test_a_folder_that_others_can_replace(tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    base.chmod(0o777)
    refused("others can write to", base)
    base.chmod(0o1777)  # as the folder of temporary files: each may remove what is his own
    assert jm.use_cache(base) is not None


def test_a_folder_of_somebody_else(monkeypatch):
    folder = pathlib.Path(jm.use_cache())
    if os.getuid() == 0:
        os.chown(folder, 12_345, -1)
    else:
        monkeypatch.setattr(os, "getuid", lambda: 12_345)
    refused("name another in JAXMIX_CACHE", folder.parent.parent / "jaxmix" / ".")


def test_what_becomes_of_the_folder_later_costs_nothing():
    """JAX says of each program that it could not be kept; that is not to be heard."""
    folder = pathlib.Path(jm.use_cache())
    shutil.rmtree(folder)
    folder.write_text("no folder any more")
    with warnings.catch_warnings(record=True) as caught:
        assert float(jax.jit(lambda x: (3 * x).sum())(jnp.arange(7.0))) == 63
    assert not caught


# ------------------------------------------------------------------------------------ programs


def entries(folder):
    return sorted(pathlib.Path(folder).glob("*-cache"))


def test_a_folder_that_is_chosen_later(tmp_path):
    """JAX opens its cache once, with the first program."""
    first = jm.use_cache(tmp_path / "first")
    assert float(jax.jit(lambda x: (5 * x).sum())(jnp.arange(4.0))) == 30
    assert entries(first)
    second = jm.use_cache(tmp_path / "second")
    assert float(jax.jit(lambda x: (7 * x).sum())(jnp.arange(4.0))) == 42
    assert entries(second)


def of_age(path, seconds):
    then = time.time() - seconds
    os.utime(path, (then, then))


def fill(folder, *names, size=3_000):
    """Write files as JAX does, the first one the oldest."""
    import zlib

    for i, name in enumerate(names):
        path = pathlib.Path(folder, f"{name}-cache")
        path.write_bytes(zlib.compress(os.urandom(size)))
        of_age(path, 1_000 * (len(names) - i))
    return entries(folder)


def test_parts_of_files_are_removed_once_nobody_writes_them(tmp_path):
    folder = pathlib.Path(jm.use_cache())
    whole, part, empty, young = fill(folder, "a", "b", "c", "d")
    part.write_bytes(part.read_bytes()[:-5])
    of_age(part, 600)
    empty.write_bytes(b"")
    of_age(empty, 600)
    young.write_bytes(young.read_bytes()[:-5])
    os.utime(folder / ".looked-through", (0, 0))
    jm.use_cache(tmp_path / "another")
    jm.use_cache(folder.parent)
    assert entries(folder) == [whole, young]
    of_age(folder / ".looked-through", 100)  # a while later
    of_age(young, 90)
    jm.use_cache(tmp_path / "another")
    jm.use_cache(folder.parent)
    assert entries(folder) == [whole]


def test_what_was_looked_at_is_not_read_again(tmp_path, monkeypatch):
    folder = pathlib.Path(jm.use_cache())
    fill(folder, "a", "b")
    monkeypatch.setattr(pathlib.Path, "read_bytes", None)
    jm.use_cache(tmp_path / "another")
    assert jm.use_cache(folder.parent) == str(folder)


def test_files_of_the_other_compression(tmp_path):
    """Which JAX chooses where it finds the package: no part of one is taken for whole."""
    folder = pathlib.Path(jm.use_cache())
    path = folder / "a-cache"
    path.write_bytes(b"\x28\xb5\x2f\xfd" + bytes(20))
    of_age(path, 600)
    os.utime(folder / ".looked-through", (0, 0))
    jm.use_cache(tmp_path / "another")
    jm.use_cache(folder.parent)
    try:
        import zstandard  # noqa: F401
    except ImportError:
        assert entries(folder) == [path]  # nobody here could tell, nor read it
    else:
        assert entries(folder) == []


def test_the_programs_that_were_not_used_for_longest_make_room(tmp_path, monkeypatch):
    """Those of other builds as well; nothing else in the folder is touched."""
    folder = pathlib.Path(jm.use_cache())
    other = folder.parent / "jaxlib-0.0-old"
    other.mkdir()
    (folder.parent / "mine-cache").write_bytes(bytes(9_000))
    kept = fill(folder, "a", "b", "c")
    fill(other, "d", "e")
    of_age(other / "d-cache", 9_000)
    made = kept[0].stat().st_mtime
    os.utime(kept[0], (time.time(), made))  # the oldest, and used just now
    monkeypatch.setattr(cache, "LIMIT", 10_000)  # three of five
    jm.use_cache(tmp_path / "another")
    jm.use_cache(folder.parent)
    assert entries(folder) == [kept[0], kept[2]]
    assert [path.name for path in entries(other)] == ["e-cache"]
    assert (folder.parent / "mine-cache").exists()


# ------------------------------------------------------------------------- processes of their own

CODE = """
import sys
import jaxmix as jm
folder = jm.use_cache()
import jax, jax.numpy as jnp
found = []
jax.monitoring.register_event_listener(
    lambda name, **_: found.append(name) if name.endswith("/cache_hits") else None
)
total = jax.jit(lambda x: jnp.linalg.eigh(x @ x.T)[0].sum())(jnp.arange(12.0).reshape(3, 4))
print(folder, round(float(total), 3), len(found))
"""


def start(folder, code=CODE):
    env = os.environ | {"JAXMIX_CACHE": str(folder), "TF_CPP_MIN_LOG_LEVEL": "3"}
    env.pop("JAX_COMPILATION_CACHE_DIR", None)
    return subprocess.Popen(
        [sys.executable, "-W", "always", "-c", code], env=env, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def ended(process):
    """Return where the programs were, the number, and how many programs were found there."""
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    folder, total, hits = out.split()
    assert float(total) == 506  # the squares up to 11
    return folder, int(hits)


def test_a_later_process_finds_the_programs_whole_or_not(tmp_path):
    folder, hits = ended(start(tmp_path / "own"))
    made = entries(folder)
    assert (hits, bool(made)) == (0, True)
    assert ended(start(tmp_path / "own")) == (folder, len(made))
    for path in made:  # as a process leaves them that was killed, or whose disk was full
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert ended(start(tmp_path / "own")) == (folder, 0)
    for path in made:
        of_age(path, 120)
    of_age(pathlib.Path(folder, ".looked-through"), 200)
    assert ended(start(tmp_path / "own")) == (folder, 0)
    assert ended(start(tmp_path / "own")) == (folder, len(made))


def test_processes_at_once(tmp_path):
    found = [ended(process) for process in [start(tmp_path / "own") for _ in range(AT_ONCE)]]
    assert len({folder for folder, _ in found}) == 1
    _, hits = ended(start(tmp_path / "own"))
    assert hits == len(entries(found[0][0]))


# --------------------------------------------------------------------------------- commands


def test_a_command_says_what_is_wrong_in_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setenv("JAXMIX_CACHE", str(tmp_path / "file"))
    assert cli.run(["doctor"]) == 0
    out, err = capsys.readouterr()
    assert err.startswith("jaxmix: warning: compiled programs are not kept, so each run")
    assert len(err.splitlines()) == 1
    assert "note: compiled programs: compiled programs are not kept" in out


def test_a_command_without_a_cache(monkeypatch, capsys):
    monkeypatch.setenv("JAXMIX_CACHE", "off")
    assert cli.run(["doctor"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines()[-1] == "all well"
    assert jax.config.jax_compilation_cache_dir is None


def test_a_command_keeps_its_programs(tmp_path, capsys):
    assert cli.run(["doctor"]) == 0
    folder = tmp_path / "xdg" / "jaxmix" / cache.build()
    assert f"{folder} (" in capsys.readouterr().out
    assert jax.config.jax_compilation_cache_dir == str(folder)
