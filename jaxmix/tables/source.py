"""A file as bytes: where it is, how it is packed, and what is said when it is no table."""

from __future__ import annotations

import dataclasses
import io
import lzma
import os
import pathlib
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING

from jaxmix import arguments
from jaxmix.exceptions import InputError

if TYPE_CHECKING:
    import pyarrow as pa

HEAD = 1 << 20  # bytes within which the header row ends
_PIECE = 1 << 24
_PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ\x00": "xz",
           b"\x04\x22\x4d\x18": "lz4"}  # fmt: skip
_ENDINGS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".xz": "xz", ".lz4": "lz4"}


@dataclasses.dataclass(frozen=True)
class Source:
    """A file, or what was read from a pipe: opened anew for each pass."""

    path: str
    data: bytes | None = None
    packed: str | None = None

    def open(self) -> pa.NativeFile:
        """Return an Arrow stream of its content, unpacked."""
        import pyarrow as pa

        raw = pa.memory_map(self.path) if self.data is None else pa.BufferReader(self.data)
        if self.packed is None:
            return raw
        if self.packed == "xz":
            return pa.PythonFile(lzma.open(raw))
        return pa.CompressedInputStream(raw, self.packed)

    def chunks(self) -> Iterator[bytes]:
        """Yield its content piece by piece."""
        with self.open() as stream:
            while piece := stream.read(_PIECE):
                yield piece

    def content(self) -> bytes:
        """Return its content."""
        return b"".join(self.chunks())

    def head(self) -> bytes:
        """Return how it begins."""
        with self.open() as stream:
            return bytes(stream.read(HEAD))

    def fail(self, reason: str) -> InputError:
        """Return the error of a file that is no table, in one printable line."""
        reason = " ".join(reason.split())[:200]
        reason = "".join(c if c.isprintable() else "?" for c in reason)
        return InputError(
            f"the file {self.path!r} cannot be read as a table ({reason}); "
            "give a csv or parquet file with one header row"
        )


def find(path: str | os.PathLike[str]) -> tuple[Source, str]:
    """Return the file and how its name ends, compression left out, in lower case."""
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"path is {path!r}: give the name of a csv or parquet file")
    place = pathlib.Path(path)
    if str(place).startswith("~") and not os.path.exists(place):
        try:
            place = place.expanduser()
        except RuntimeError:
            raise InputError(f"there is no home folder for {str(path)!r}") from None
    name = str(place)
    if os.path.isdir(place):  # also of names that no file can have
        raise InputError(f"{name!r} is a folder; give a csv or parquet file")
    try:
        kind = place.stat().st_mode
    except (OSError, ValueError):
        raise InputError(f"there is no file {arguments.told(name)}; check the path") from None
    if stat.S_ISCHR(kind) or stat.S_ISBLK(kind):
        raise InputError(f"{name!r} is a device; give a csv or parquet file, or a pipe")
    data = None
    try:
        if not stat.S_ISREG(kind):
            data = place.read_bytes()  # a pipe can be read once
        with place.open("rb") if data is None else io.BytesIO(data) as stream:
            begin = stream.read(16)
    except OSError as error:
        raise InputError(f"the file {name!r} cannot be read ({error.strerror})") from None
    if not begin:
        raise InputError(f"the file {name!r} is empty")
    packed = next((kind for magic, kind in _PACKED.items() if begin.startswith(magic)), None)
    if begin.startswith(b"BZh") and begin[4:10] == b"1AY&SY":  # the first three may be a name
        packed = "bz2"
    source = Source(name, data, packed)
    ending, claimed = place.suffix.lower(), None
    if ending in _ENDINGS:
        claimed, ending = _ENDINGS[ending], pathlib.Path(place.stem).suffix.lower()
    if claimed and not packed:
        raise source.fail(f"its name says {claimed}, but it is not compressed that way")
    return source, ending
