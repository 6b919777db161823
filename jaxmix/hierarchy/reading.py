"""Graphs from files: TOML with roles, or DOT (`jaxmix.hierarchy.dot`)."""

from __future__ import annotations

import difflib
import os
import pathlib
import re
import tomllib
from typing import cast

from jaxmix import arguments
from jaxmix.exceptions import InputError
from jaxmix.hierarchy import dot
from jaxmix.types import Json

Edges = list[tuple[str, str]]

_NEEDED = {"latent": str, "treatment": str, "outcome": str, "z": list, "x": list, "edges": list}
_OPTIONAL = {"covariates": list, "separable": bool}
_EXAMPLES = {
    "latent": 'latent = "U"', "treatment": 'treatment = "T"', "outcome": 'outcome = "Y"',
    "z": 'z = ["Z"]', "x": 'x = ["X"]', "edges": 'edges = [["U", "T"], ["U", "Y"]]',
    "covariates": 'covariates = ["C"]', "separable": "separable = true",
}  # fmt: skip


def read(path: str | os.PathLike[str]) -> tuple[Edges, list[str], dict[str, Json]]:
    """Return edges, nodes and roles of a file; a DOT file has no roles."""
    if isinstance(path, str) and "\0" in path:
        raise InputError(f"the graph {path!r} is no path; give the name of a file")
    path = pathlib.Path(path)
    if str(path).startswith("~") and not path.exists():
        path = path.expanduser()
    kind = path.suffix.lower()
    if kind not in (".toml", ".dot", ".gv"):
        told = arguments.told(str(path))
        raise InputError(f"the graph {told} has to be a file that ends in .toml, .dot or .gv")
    try:
        text = path.read_text(encoding="utf-8-sig")  # a byte-order mark is no text
    except OSError as error:
        raise InputError(f"the graph {str(path)!r} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise InputError(f"the graph {str(path)!r} is not a text file in UTF-8") from None
    if kind == ".toml":
        edges, roles = _toml(str(path), text)
        return edges, [], roles
    edges, nodes = dot.parse(str(path), text)
    return edges, nodes, {}


# ---------------------------------------------------------------------------------------- TOML


def _toml(path: str, text: str) -> tuple[Edges, dict[str, Json]]:
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path} is no valid TOML: {error}") from None
    known: dict[str, type] = _NEEDED | _OPTIONAL
    for key, value in table.items():
        place = _place(path, text, key)
        if key not in known:
            close = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
            raise InputError(f"{place}: unknown key {key!r}; {hint}")
        if not isinstance(value, known[key]):
            raise InputError(f"{place}: {key} is {value!r}; write it as in {_EXAMPLES[key]}")
        if known[key] is list and key != "edges":
            for name in cast(list[object], value):
                if not isinstance(name, str):
                    raise InputError(
                        f"{place}: {key} holds {name!r}; it is a list of texts, as in "
                        f"{_EXAMPLES[key]}"
                    )
    for key in _NEEDED:
        if key not in table:
            raise InputError(f"{path} has no {key}; add it as in {_EXAMPLES[key]}")
    edges = []
    for number, edge in enumerate(table.pop("edges"), 1):
        pair = isinstance(edge, list) and len(edge) == 2
        if not pair or not all(isinstance(name, str) for name in edge):
            raise InputError(
                f"{_place(path, text, 'edges')}: edge {number} is {edge!r}; each has to be a pair "
                'of texts, as in ["U", "T"]'
            )
        edges.append((edge[0], edge[1]))
    return edges, table


def _place(path: str, text: str, key: str) -> str:
    """Return the file with the line on which a key (or the table of that name) stands."""
    key_or_table = re.compile(rf"\s*(\[\[?\s*)?[\"']?{re.escape(key)}[\"']?\s*[\].=]")
    for number, line in enumerate(text.splitlines(), 1):
        if key_or_table.match(line):
            return f"{path}, line {number}"
    return path
