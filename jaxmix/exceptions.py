"""Exceptions for the shell on the host: what was asked is wrong, or an estimate failed."""

from __future__ import annotations

from collections.abc import Sequence


class InputError(ValueError):
    """The call or the data are wrong; the message is one line with the remedy."""


class UnknownColumn(InputError):  # noqa: N818
    """A column was named that the table does not have; `stored` are those that it has."""

    def __init__(self, message: str, stored: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.stored = tuple(stored)


class EstimateError(RuntimeError):
    """Raised by ``Result.raise_if_failed`` when the status is not usable."""
