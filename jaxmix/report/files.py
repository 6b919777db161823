"""Output files that appear whole or not at all."""

from __future__ import annotations

import os
import pathlib
import tempfile

from jaxmix.status import InputError


def write_whole(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Write a file so that it appears whole or not at all."""
    path = pathlib.Path(path)
    check_folder(path)
    raw = content.encode() if isinstance(content, str) else content
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as file:
        file.write(raw)
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(file.name, 0o666 & ~umask)
    os.replace(file.name, path)


def check_folder(path: pathlib.Path) -> None:
    """Refuse an output path whose folder does not exist."""
    if not path.parent.is_dir():
        raise InputError(
            f"the folder {str(path.parent)!r} of the output {path.name!r} does not exist; create it"
        )
