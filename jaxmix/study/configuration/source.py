"""A TOML file with overrides, and the line on which each of its keys stands."""

from __future__ import annotations

import dataclasses
import difflib
import pathlib
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn, TypeAlias

from jaxmix import arguments
from jaxmix.status import InputError

Kinds: TypeAlias = type | tuple[type, ...]
"""The types that the value of a key may have."""


@dataclasses.dataclass(frozen=True)
class Source:
    """A parsed file that knows where its keys are.

    Attributes
    ----------
    path
        Of the file, as it was given.
    data
        The file with overrides.
    text
        The file as it stands.
    overridden
        Keys that an override replaced.
    implied
        Tables that the keys are in, but the file does not write.
    """

    path: str
    data: dict[str, Any]  # any TOML: what it holds is checked key by key
    text: str
    overridden: frozenset[tuple[str, ...]] = frozenset()
    implied: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: str | pathlib.Path, overrides: Sequence[str] = ()) -> Source:
        """Read a file and apply ``"key=value"`` overrides."""
        if not isinstance(path, str | pathlib.PurePath) or "\0" in str(path):
            raise InputError(f"path is {arguments.told(path)}: give the name of a TOML file")
        listed = isinstance(overrides, Sequence) and not isinstance(overrides, str)
        if not listed or not all(isinstance(override, str) for override in overrides):
            told = arguments.told(overrides)
            raise InputError(f"overrides is {told}: give a list of texts, as 'num_replicates=20'")
        try:
            text = pathlib.Path(path).read_text(encoding="utf-8-sig")
        except OSError as error:
            told = arguments.told(str(path))
            raise InputError(f"{told} cannot be read ({error.strerror})") from None
        except UnicodeDecodeError:
            raise InputError(f"{str(path)!r} is not a text file in UTF-8") from None
        try:
            data = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise InputError(f"{path} is no valid TOML: {error}") from None
        overridden = set()
        for override in overrides:
            keys, value = _parse(override)
            _replace(data, keys, value, override)
            overridden.add(keys)
        return cls(str(path), data, text, frozenset(overridden))

    def where(self, keys: tuple[str, ...]) -> str:
        """Return the place of a key, for a message: the override, or the line of the file."""
        for length in range(len(keys), 0, -1):
            if keys[:length] in self.overridden:
                return f"--set {'.'.join(keys[:length])}"
        line = line_of(self.text, keys[len(self.implied) :])
        return self.path if line is None else f"{self.path}, line {line}"

    def fail(self, keys: tuple[str, ...], message: str) -> NoReturn:
        """Raise an error about a key, with its place."""
        raise InputError(f"{self.where(keys)}: {message}")


def line_of(text: str, keys: tuple[str, ...]) -> int | None:
    r"""Return the line (from 1) on which a key, or else its table, is set; None where neither is.

    Examples
    --------
    >>> line_of("a = 1\n[grid]\nb = [1]\n", ("grid", "b"))
    3
    """
    table: tuple[str, ...] = ()
    best, best_line = 0, None
    depth = 0  # brackets that are open: what looks like a header there is a list in a list
    seen: dict[tuple[str, ...], int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        bare = re.sub(r"\"[^\"]*\"|'[^']*'", "''", line).split("#")[0]
        inside, depth = depth > 0, depth + bare.count("[") - bare.count("]")
        if inside:
            continue
        assignment = re.match(r"\s*([\w.\"'-]+)\s*=", line)
        header = re.match(r"\s*\[(\[?)\s*([^\]]+?)\s*\]", line)
        if assignment:
            here = (*table, *_split(assignment.group(1)))
        elif header:
            table = _split(header.group(2))
            seen[table] = seen.get(table, 0) + 1
            if header.group(1) and seen[table] > 1:
                table = (*table[:-1], f"{table[-1]}#{seen[table]}")
            here = table
        else:
            continue
        if here == keys[: len(here)] and len(here) > best:
            best, best_line = len(here), number
    return best_line


def _split(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))


def _parse(override: str) -> tuple[tuple[str, ...], object]:
    name, equals, text = override.partition("=")
    if not equals or not name.strip() or "\n" in override:
        raise InputError(f"--set {override!r}: write key=value, as in num_replicates=20")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()  # a text without its quotes, which a shell has eaten
        if value.startswith(("[", "{")):
            raise InputError(
                f"--set {override}: the value is no TOML; a shell takes quotes away, "
                f'so put all of it in quotes: --set \'{name}=["a", "b"]\''
            ) from None
    return _split(name), value


def _replace(data: dict[str, Any], keys: tuple[str, ...], value: object, override: str) -> None:
    table: Any = data
    for key in keys[:-1]:
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            raise InputError(f"--set {override}: {key!r} is not a table of the file")
    table[keys[-1]] = value


def check_keys(
    source: Source, table: tuple[str, ...], found: Mapping[str, object], known: Mapping[str, Kinds]
) -> None:
    """Refuse keys of a table that do not exist, and values of another type."""
    for key, value in found.items():
        if key not in known:
            source.fail((*table, key), f"unknown key {key!r}{suggest(key, known)}")
        check_type(source, (*table, key), value, known[key])


def suggest(word: str, known: Iterable[str]) -> str:
    """Return the names there are, for the end of a message, and the one that was meant perhaps."""
    known = list(known)
    close = difflib.get_close_matches(word, known, 1)
    names = ", ".join(sorted(known))
    return f"; did you mean {close[0]!r}? (known: {names})" if close else f"; known are {names}"


def check_type(source: Source, keys: tuple[str, ...], value: object, wanted: Kinds) -> None:
    """Refuse a value of another type; a whole number may stand for a real one."""
    kinds = wanted if isinstance(wanted, tuple) else (wanted,)
    fits = any(
        isinstance(value, (int, float) if kind is float else kind)
        and (kind is bool or not isinstance(value, bool))
        for kind in kinds
    )
    if not fits:
        words = " or ".join(_WORDS[kind] for kind in kinds)
        source.fail(keys, f"{keys[-1]} is {value!r}; it has to be {words}")


_WORDS = {
    str: "a text in quotes", int: "a whole number", float: "a number", bool: "true or false",
    list: "a list in brackets", dict: "a table",
}  # fmt: skip


def check_among(
    source: Source, keys: tuple[str, ...], value: object, allowed: Iterable[object]
) -> None:
    """Refuse a value that is not one of those allowed."""
    allowed = list(allowed)
    if value not in allowed:
        source.fail(keys, f"{keys[-1]} is {value!r}; use one of {', '.join(map(repr, allowed))}")
