"""Output files that appear whole or not at all."""

from __future__ import annotations

import os
import pathlib
import tempfile

from jaxmix.status import InputError


def write_whole(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Write a file so that it appears whole or not at all.

    What is no plain file, a link or a device such as ``/dev/stdout``, is written to in place.
    """
    path = pathlib.Path(path)
    check_folder(path)
    raw = content.encode() if isinstance(content, str) else content
    try:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            path.write_bytes(raw)
            return
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            whole = pathlib.Path(folder, "whole")
            whole.write_bytes(raw)
            whole.replace(path)
    except OSError as error:
        raise InputError(
            f"the output {str(path)!r} cannot be written ({error.strerror}); name another file"
        ) from None


def check_folder(path: pathlib.Path) -> None:
    """Refuse an output path whose folder does not exist."""
    if not path.parent.is_dir():
        raise InputError(
            f"the folder {str(path.parent)!r} of the output {path.name!r} does not exist; create it"
        )
