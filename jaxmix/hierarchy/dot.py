"""Graphs in the DOT language: their arrows, each of which leads from cause to effect."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple, cast

from jaxmix.exceptions import InputError

if TYPE_CHECKING:
    from pydot import Graph

Edges = list[tuple[str, str]]

_REMEDY = (
    "it has to hold one directed graph, digraph { ... }, with arrows written -> from cause to "
    "effect, and a hidden common cause as a node of its own"
)


def parse(path: str, text: str) -> tuple[Edges, list[str]]:
    """Return edges and nodes of a directed graph in the DOT language."""
    try:
        import pydot
    except ImportError:
        raise InputError(
            f"{path}: graphs in DOT need the extra 'graph': pip install 'jaxmix[graph]'; "
            "or write the edges as TOML"
        ) from None
    source = _checked(path, text)
    said = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(said):
        # Its parser calls deprecated names of pyparsing, and prints what it cannot parse.
        warnings.simplefilter("ignore")
        graphs = pydot.graph_from_dot_data(source)
    if not graphs:
        found = re.search(r"line:(\d+)", said.getvalue())
        where = f"{path}, line {found.group(1)}" if found else path
        raise InputError(f"{where}: this is no valid DOT; write it as in digraph {{ U -> T; }}")
    if len(graphs) != 1 or graphs[0].get_type() != "digraph":
        raise InputError(f"{path} is no directed graph: {_REMEDY}")
    edges: Edges = []
    nodes: dict[str, None] = {}
    for part in _parts(graphs[0]):
        for node in part.get_nodes():
            name = node.get_name()
            if name == "edge":
                _check_forward(path, node.get_attributes())
            elif name not in ("node", "graph", "edge"):
                nodes[_name(name)] = None
        for edge in part.get_edges():
            _check_forward(path, edge.get_attributes())
            for source in _ends(path, edge.get_source()):
                edges += [(source, target) for target in _ends(path, edge.get_destination())]
    return edges, list(nodes)


def _parts(graph: Graph) -> Iterator[Graph]:
    yield graph
    for part in graph.get_subgraphs():
        yield from _parts(part)


def _check_forward(path: str, attributes: Mapping[str, object]) -> None:
    direction = str(attributes.get("dir", "forward")).strip('"')
    if direction != "forward":
        raise InputError(
            f"{path}: an edge has dir={direction}; write each arrow from cause to effect, and a "
            "hidden common cause as a node of its own"
        )
    if str(attributes.get("arrowhead", "")).strip('"') == "none":
        raise InputError(
            f"{path}: an edge has arrowhead=none; write each arrow from cause to effect, and a "
            "hidden common cause as a node of its own"
        )


def _ends(path: str, end: object) -> list[str]:
    """Return the nodes at an end of an edge: one, or those of a group in braces."""
    if isinstance(end, str):
        return [_name(end)]
    group = cast(Mapping[str, Mapping[str, object]], end)
    if group["edges"] or group["subgraphs"]:
        raise InputError(
            f"{path}: an edge leads from or to braces with edges in them; write those edges apart"
        )
    return [_name(name) for name in group["nodes"]]


def _name(text: str) -> str:
    """Return the name of a node without quotes, or without the port behind it."""
    quoted = re.match(r'"((?:[^"\\]|\\.)*)"', text)
    return quoted.group(1).replace('\\"', '"') if quoted else text.split(":")[0]


# ----------------------------------------------------------------------------- before the parser


class _Token(NamedTuple):
    kind: str
    text: str
    start: int
    line: int


_TOKEN = re.compile(
    r"""(?P<skip>\s+|//[^\n]*|/\*.*?\*/|^\#[^\n]*)
    |(?P<string>"(?:[^"\\]|\\.)*")
    |(?P<arrow>->(?![->=~*]) | ->(?=-[0-9.]))
    |(?P<number>-?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?))
    |(?P<name>[^\W\d]\w*)
    |(?P<other>=(?![>=~])(?!-[->])|[{}\[\];,:+])
    |(?P<line>[-<>=~*|\u2190-\u21ff\u27f0-\u27ff\u2900-\u297f]+)
    |(?P<unknown>.)""",
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)
_NODES = ("string", "number", "name")


def _tokens(text: str) -> Iterator[_Token]:
    """Yield what the text is made of; text in HTML, after an equals sign, counts as a string."""
    place, before = 0, ""
    while place < len(text):
        if before == "=" and text[place] == "<":
            depth = end = 0
            for end in range(place, len(text)):
                depth += {"<": 1, ">": -1}.get(text[end], 0)
                if not depth:
                    break
            kind, piece = "html", text[place : end + 1]
        else:
            found = _TOKEN.match(text, place)
            assert found is not None
            assert found.lastgroup is not None
            kind, piece = found.lastgroup, found.group()
        if kind != "skip":
            yield _Token(kind, piece, place, text.count("\n", 0, place) + 1)
            before = piece
        place += len(piece)


def _checked(path: str, text: str) -> str:
    """Return the text with numbers in quotes; refuse lines between nodes that are no arrows.

    The parser takes ``<->`` for a node, and ``o->`` for an arrow out of a node ``o``: the edge
    would be lost, and the verdict that of another graph.
    """
    tokens = list(_tokens(text))
    for i, token in enumerate(tokens):
        around = tokens[max(i - 1, 0) : i + 2]
        if token.kind == "line":
            shown = " ".join(one.text for one in around)
            raise InputError(
                f"{path}, line {token.line}: {shown!r} is written with {token.text}; {_REMEDY}"
            )
        if token.kind != "arrow":
            continue
        for pair in (tokens[max(i - 2, 0) : i], tokens[i + 1 : i + 3]):
            if len(pair) == 2 and all(one.kind in _NODES for one in pair):
                first, second = pair
                if first.line == second.line and first.text.lower() not in _KEYWORDS:
                    shown = " ".join(one.text for one in tokens[max(i - 2, 0) : i + 3])
                    raise InputError(
                        f"{path}, line {token.line}: {shown!r} has two names without an arrow or a "
                        f"semicolon between them; {_REMEDY}"
                    )
    pieces, end = [], 0
    for token in tokens:
        if token.kind == "number":
            pieces += [text[end : token.start], f'"{token.text}"']
            end = token.start + len(token.text)
    return "".join([*pieces, text[end:]])


_KEYWORDS = ("strict", "graph", "digraph", "subgraph", "node", "edge")
