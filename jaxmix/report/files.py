"""Output files that appear whole or not at all, and never over what is read."""

from __future__ import annotations

import contextlib
import os
import pathlib
import stat
import sys
import tempfile
from collections.abc import Mapping

from jaxmix.exceptions import InputError

Paths = Mapping[str, str | os.PathLike[str] | None]

_LONGEST = 255  # bytes of a file's name, on all usual systems
_written = 0


def write_whole(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Write a file so that it appears whole or not at all.

    What is no plain file, a link or a device such as ``/dev/stdout``, is written to in place.
    """
    global _written
    path = _path(path)
    check_folder(path)
    raw = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    try:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            _write_in_place(path, raw)
            _written += 1
            return
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name[:40]}.") as folder:
            whole = pathlib.Path(folder, "whole")
            whole.write_bytes(raw)
            whole.replace(path)
            _written += 1
    except OSError as error:
        raise InputError(
            f"the output {str(path)!r} cannot be written ({error.strerror}); name another file"
        ) from None


def num_written() -> int:
    """Return how many files this process has written."""
    return _written


def check_folder(path: pathlib.Path) -> None:
    """Refuse an output path whose folder does not exist, and a name that is too long for any."""
    if len(os.fsencode(path.name)) > _LONGEST:
        raise InputError(
            f"the output {path.name[:_LONGEST]!r}... has a name of {len(path.name)} letters; "
            f"name a file with at most {_LONGEST}"
        )
    if not os.path.isdir(path.parent):
        raise InputError(
            f"the folder {str(path.parent)!r} of the output {path.name!r} does not exist; create it"
        )


def check_outputs(outputs: Paths, inputs: Paths) -> None:
    """Refuse outputs that have no place, or would destroy an input or each other.

    For a look before any work is done. Files count as one however they are spelled: links, hard
    links and detours are seen through. What is no plain file, such as ``/dev/stderr`` or a pipe,
    destroys nothing and may be named twice.

    Parameters
    ----------
    outputs, inputs
        Paths by what the user calls them, such as ``"--json"``; None where there is none.

    Raises
    ------
    InputError
        One line that names both.
    """
    wanted = {name: _path(path) for name, path in outputs.items() if path is not None}
    for path in wanted.values():
        check_folder(path)
        if os.path.isdir(path):
            raise InputError(f"the output {str(path)!r} is a folder; name a file")
    plain = {name: path for name, path in wanted.items() if not _is_stream(path)}
    taken = [(name, path) for name, path in inputs.items() if path is not None]
    for name, path in plain.items():
        for what, other in taken:
            if _same(path, other):
                raise InputError(
                    f"{name} would write over {what}, {str(other)!r}, which is read; name another "
                    "file for the output"
                )
        if not _names_a_descriptor(path) and _is_standard_output(path):
            raise InputError(
                f"{name} is {str(path)!r}, and the standard output goes there too: one would "
                "destroy the other; name two files"
            )
        taken_by = next((n for n, p in plain.items() if n != name and _same(path, p)), None)
        if taken_by is not None:
            raise InputError(
                f"{name} and {taken_by} are one file, {str(path)!r}: one would destroy the other; "
                "name two files"
            )
    for what, read in taken:
        if _is_standard_output(read):
            raise InputError(
                f"the standard output goes into {what}, {str(read)!r}, which is read; "
                "send it elsewhere"
            )


def expand(path: pathlib.Path) -> pathlib.Path:
    """Return a path whose leading ``~`` is the home folder, as a shell would have it.

    A shell leaves it alone behind an equals sign (``--json=~/out.json``). A file of that very name
    comes first.
    """
    if not str(path).startswith("~") or path.exists():
        return path
    try:
        return path.expanduser()
    except RuntimeError:  # no such user
        return path


def _path(path: str | os.PathLike[str]) -> pathlib.Path:
    if not isinstance(path, str | pathlib.PurePath) and hasattr(type(path), "__fspath__"):
        path = os.fspath(path)
    if not isinstance(path, str | pathlib.PurePath) or not str(path) or "\0" in str(path):
        shown = " ".join(repr(path).split())[:60]
        raise InputError(f"path is {shown}: give the name of a file, as text or as a path")
    return pathlib.Path(path)


def _write_in_place(path: pathlib.Path, raw: bytes) -> None:
    """Write into a link or a device; into a standard stream by its own descriptor.

    Opened anew, a file that the stream goes to would have a second position, and what is printed
    later would overwrite what was written here.
    """
    for stream, descriptor in ((sys.stdout, 1), (sys.stderr, 2)):
        if _names_a_descriptor(path) and _same_as_descriptor(path, descriptor):
            stream.flush()
            # A pipe that nobody reads any more: its reader has seen enough.
            with contextlib.suppress(BrokenPipeError), open(descriptor, "wb", closefd=False) as f:
                f.write(raw)
            return
    path.write_bytes(raw)


def _names_a_descriptor(path: pathlib.Path) -> bool:
    return os.path.abspath(path).startswith(("/dev/", "/proc/"))


def _is_stream(path: pathlib.Path) -> bool:
    """Whether a path is there and no plain file, so that writing to it replaces nothing."""
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


def _is_standard_output(path: str | os.PathLike[str]) -> bool:
    """Whether a plain file is what the standard output goes to."""
    return _same_as_descriptor(path, 1) and stat.S_ISREG(os.stat(path).st_mode)


def _same_as_descriptor(path: str | os.PathLike[str], descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except (OSError, ValueError):
        return False


def _same(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:  # one is not there yet
        return os.path.realpath(one) == os.path.realpath(other)
    except ValueError:  # no path at all, as with a zero byte in it
        return False
