"""Compiled programs that outlive their process, in a folder of the user's own.

The commands keep theirs by themselves, Python users by `use_cache`. The folder lies in the one that
is asked for, under the name of the build and of the processor that its programs are for, so that
homes and folders can be shared among machines. Whoever can write there can have programs run: it
is made for the user alone, and refused where others can write.

Nothing that happens to the folder may cost an answer. What JAX cannot read or write it compiles
anew. It writes a program in place, so that a process that was killed, or whose disk was full,
leaves a part of one: such files are found by their checksum and removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import pathlib
import platform
import stat
import tempfile
import time
import warnings
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jaxlib.version
from jax.experimental.compilation_cache import compilation_cache

VARIABLE = "JAXMIX_CACHE"
"""What names the folder, for commands as well; ``0`` or ``off`` turns the cache off."""

LIMIT = 1 << 30
"""Bytes beyond which programs are removed, those first that were not used for longest.

Programs of all builds together. JAX has a limit of its own, which needs a package more and locks
the folder at every read."""

LEAST_SECONDS = 0.0
"""How long a program takes to compile that is worth a file: any.

A table is compiled quickly, so that most of its programs take less than JAX's second, and there are
dozens of them. A later `jaxmix fit` of two classes on 5,000 rows takes 14.8 CPU seconds with all 30
programs at hand (1.5 MB), 15.4 with the 21 that took 0.1 seconds and more (1.5 MB), and 17.1 with
the 8 that took half a second (1.3 MB): medians of six runs, taking turns on a busy machine."""

_SETTING = "jax_compilation_cache_dir"
_PROBE = 1 << 16  # bytes of a first file, for which there has to be room
_ZSTD = b"\x28\xb5\x2f\xfd"  # what a file begins with where JAX found that package
_WRITING = 60.0  # seconds after which nobody is still writing a file
_own: str | None = None  # the folder that this module has set


class Kept(NamedTuple):
    """Where programs are kept.

    Attributes
    ----------
    folder
        The folder; None where they are not kept.
    trouble
        Why not, and what to do, where that was not asked for.
    """

    folder: str | None
    trouble: str = ""


def use_cache(folder: str | os.PathLike[str] | None = None) -> str | None:
    """Keep compiled programs on disk, for this process and later ones.

    The first `jaxmix.fit` of a process is nearly all compilation; with the programs of an earlier
    process it takes a fraction of the time. Numbers are the same. Call it before anything else is
    computed. The commands do so by themselves.

    JAX's own setting wins (``jax_compilation_cache_dir``, ``JAX_COMPILATION_CACHE_DIR``), then
    ``JAXMIX_CACHE=off``. A folder that cannot be used, or that others can write to, is a warning:
    programs are compiled anew, and nothing else changes.

    Parameters
    ----------
    folder
        Where to keep them: a folder of its own is made in it, by build and processor. None is the
        folder in ``JAXMIX_CACHE``, and otherwise ``jaxmix`` in the user's cache
        (``XDG_CACHE_HOME``, or ``~/.cache``).

    Returns
    -------
    str or None
        The folder in use, None where there is none.

    Examples
    --------
    >>> import jaxmix as jm
    >>> folder = jm.use_cache()
    >>> folder == jm.use_cache()
    True
    """
    kept = keep(folder)
    if kept.trouble:
        warnings.warn(kept.trouble, stacklevel=2)
    return kept.folder


def keep(folder: str | os.PathLike[str] | None = None) -> Kept:
    """Keep compiled programs as `use_cache`, without a warning.

    Parameters
    ----------
    folder
        As there.
    """
    current: str | None = getattr(jax.config, _SETTING)
    if current is not None and current != _own:
        return Kept(current or None)
    if os.environ.get(VARIABLE, "").strip().lower() in ("0", "off"):
        _set(None)
        return Kept(None)
    if folder is None and _own is not None:
        return Kept(_own)
    base = _base(folder)
    if base is None:
        _set(None)
        return Kept(None, _refusal("no home folder is known"))
    place = base / build()
    try:
        # For the user alone, whatever the mask is.
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        if open_to_others(place):
            _set(None)
            remedy = f"chmod go-w {place}" if _is_own(place) else f"name another in {VARIABLE}"
            return Kept(None, _refusal(f"others can write to {place}: {remedy}"))
        with tempfile.TemporaryFile(dir=place) as probe:
            probe.write(bytes(_PROBE))
            probe.flush()
        _remove_parts(place)
        _remove_oldest(base)
    except OSError as error:
        _set(None)
        return Kept(None, _refusal(f"{place} cannot be written to ({error.strerror or error})"))
    _set(str(place))
    return Kept(_own)


def build() -> str:
    """Return the name of what programs are for: this jaxlib on this kind of processor.

    Examples
    --------
    >>> build().startswith("jaxlib-")
    True
    """
    kind = hashlib.sha256(_processor().encode()).hexdigest()[:8]
    return f"jaxlib-{jaxlib.version.__version__}-{platform.machine() or 'any'}-{kind}"


def open_to_others(folder: pathlib.Path) -> bool:
    """Whether others can change what a folder holds, itself or by putting another in its place."""
    if os.name != "posix":
        return False
    if not _is_own(folder) or folder.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return True
    above = [parent.stat().st_mode for parent in folder.resolve().parents]
    return any(mode & stat.S_IWOTH and not mode & stat.S_ISVTX for mode in above)


def _is_own(folder: pathlib.Path) -> bool:
    return folder.stat().st_uid in (os.getuid(), 0)


def _base(folder: str | os.PathLike[str] | None) -> pathlib.Path | None:
    """Return the folder that is asked for, or None where a home is needed and unknown."""
    given = os.fspath(folder) if folder is not None else os.environ.get(VARIABLE, "").strip()
    if not given:
        own = os.environ.get("XDG_CACHE_HOME", "")
        given = os.path.join(own if os.path.isabs(own) else "~/.cache", "jaxmix")
    expanded = os.path.expanduser(given)
    return None if expanded.startswith("~") else pathlib.Path(os.path.abspath(expanded))


def _processor() -> str:
    """Return a text that two processors share where programs of one run on the other."""
    with contextlib.suppress(OSError):
        first = pathlib.Path("/proc/cpuinfo").read_text(errors="replace").split("\n\n")[0]
        known = ("model name", "flags", "features", "cpu implementer", "cpu part")
        lines = [line for line in first.splitlines() if line.lower().startswith(known)]
        if lines:
            return "\n".join(lines)
    return platform.processor() or platform.machine()


def _refusal(reason: str) -> str:
    return (
        f"compiled programs are not kept, so each run compiles anew: {reason}; "
        f"{VARIABLE}=off says that this is meant"
    )


def _set(folder: str | None) -> None:
    """Let JAX keep programs in a folder, or no longer in the one that was set here."""
    global _own
    if folder == _own:
        return
    jax.config.update(_SETTING, folder)
    compilation_cache.reset_cache()  # it may have looked for a folder already
    _own = folder
    if folder is not None:
        if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
            jax.config.update("jax_persistent_cache_min_compile_time_secs", LEAST_SECONDS)
        # One for each program otherwise; the next process says what is wrong with the folder.
        message = "Error (reading|writing) persistent compilation cache entry"
        warnings.filterwarnings("ignore", message)


def _entries(folder: pathlib.Path, pattern: str) -> Iterator[tuple[pathlib.Path, os.stat_result]]:
    """Yield files, as they are; another process may remove them at any time."""
    for path in folder.glob(pattern):
        with contextlib.suppress(OSError):
            yield path, path.stat()


def _remove_parts(folder: pathlib.Path) -> None:
    """Remove files that were not written to their end; what was looked at once is not read again.

    A file that was written just now may be at its beginning: it is looked at by the next process.
    """
    looked = folder / ".looked-through"
    now = time.time() - _WRITING
    try:
        before = looked.stat().st_mtime
    except OSError:
        before = 0.0
    for path, found in _entries(folder, "*-cache"):
        if before <= found.st_mtime < now:
            with contextlib.suppress(FileNotFoundError):  # another process was here
                if not _is_whole(path.read_bytes()):
                    path.unlink()
    looked.touch(mode=0o600)
    os.utime(looked, (now, now))


def _is_whole(raw: bytes) -> bool:
    """Whether what JAX has compressed, by one of two methods, ends where it should."""
    unpack = zlib.decompress
    if raw.startswith(_ZSTD):
        found = [name for name in ("compression", "zstandard") if importlib.util.find_spec(name)]
        if not found:
            return True  # JAX cannot read it here either
        name = "compression.zstd" if found[0] == "compression" else "zstandard"
        unpack = importlib.import_module(name).decompress
    try:
        unpack(raw)
    except Exception:  # each of the packages has its own
        return False
    return True


def _remove_oldest(base: pathlib.Path) -> None:
    """Remove the programs that were not used for longest, until the others fit the limit."""
    found = [
        (max(own.st_atime, own.st_mtime), own.st_size, path)
        for path, own in _entries(base, "jaxlib-*/*-cache")
    ]
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= LIMIT:
            return
        path.unlink(missing_ok=True)
        total -= size
