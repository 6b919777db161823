"""Standard streams that never raise: what cannot be printed must not cost what was computed."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import TextIO


class Stream:
    """A text stream whose ``write`` and ``flush`` raise nothing but for a wrong type.

    Characters that its encoding lacks are written as escapes. A stream that cannot be written to,
    a full disk or a pipe that nobody reads, takes no more; `lost` says why.

    Parameters
    ----------
    stream
        What to write to; None is a closed stream, as Python has it.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self.lost: OSError | None = None

    def write(self, text: str) -> int:
        """Write text, and return its length."""
        if not isinstance(text, str):
            raise TypeError(f"text is a {type(text).__name__}; write text")
        if self._stream is None or self.lost is not None:
            return len(text)
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        shown = text.encode(encoding, "backslashreplace").decode(encoding)
        with self._giving_up():
            self._stream.write(shown)
        return len(text)

    def flush(self) -> None:
        """Pass on what was written."""
        if self._stream is not None and self.lost is None:
            with self._giving_up():
                self._stream.flush()

    @contextlib.contextmanager
    def _giving_up(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # a ValueError: the stream was closed
            self.lost = error if isinstance(error, OSError) else OSError(errno.EBADF, str(error))
            # What is left in its buffer would raise once more when Python ends.
            with contextlib.suppress(OSError, ValueError):
                assert self._stream is not None
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)

    @property
    def failed(self) -> str:
        """Why something was lost that somebody wanted: not where a reader has seen enough."""
        if self.lost is None or self.lost.errno == errno.EPIPE:
            return ""
        return self.lost.strerror or str(self.lost)

    @property
    def encoding(self) -> str:
        """The encoding of what is written."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    @property
    def errors(self) -> str:
        """What happens to characters that the encoding lacks."""
        return "backslashreplace"

    def close(self) -> None:
        """Do nothing: a log that was begun on this stream closes it when Python ends."""

    @property
    def closed(self) -> bool:
        """Never, for those who ask."""
        return False

    def isatty(self) -> bool:
        """Whether this is a terminal."""
        return self._stream is not None and bool(self._stream.isatty())

    def fileno(self) -> int:
        """Return the descriptor."""
        if self._stream is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return int(self._stream.fileno())

    def writable(self) -> bool:
        """Return True: what cannot be written is dropped."""
        return True

    def readable(self) -> bool:
        """Return False."""
        return False


@contextlib.contextmanager
def careful_streams() -> Iterator[tuple[Stream, Stream]]:
    """Let everything that is printed go through such streams; give the two."""
    out, err = Stream(sys.stdout), Stream(sys.stderr)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            yield out, err
        finally:
            out.flush()
            err.flush()
