"""A causal graph with roles: checked once, then judged."""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

from jaxmix import arguments
from jaxmix.exceptions import InputError
from jaxmix.hierarchy import reading
from jaxmix.hierarchy.paths import networkx

if TYPE_CHECKING:
    from networkx import DiGraph

_DEFAULTS: dict[str, object] = {
    "latent": "U", "treatment": "T", "outcome": "Y", "z": ("Z",), "x": ("X",),
    "covariates": (), "separable": False,
}  # fmt: skip

_ARROW = re.compile("[<>o*-]*(<-|->|--)[<>o*-]*")


@dataclasses.dataclass(frozen=True, eq=False)
class Diagram:
    """A directed acyclic graph whose nodes have roles.

    Attributes
    ----------
    graph
        A networkx ``DiGraph`` whose nodes are names.
    latent, treatment, outcome
        The hidden class, the treatment and the outcome.
    z, x
        The proxies; the columns of each are taken jointly.
    covariates
        Observed nodes that are conditioned on wherever the class is.
    separable
        Whether the user declares the class to be a function of observed columns.
    """

    graph: DiGraph
    latent: str
    treatment: str
    outcome: str
    z: tuple[str, ...]
    x: tuple[str, ...]
    covariates: tuple[str, ...] = ()
    separable: bool = False

    def nodes(self, letters: Iterable[str]) -> set[str]:
        """Return the nodes behind the letters of roles."""
        return {name for letter in letters for name in self.legend[letter]}

    @property
    def legend(self) -> dict[str, tuple[str, ...]]:
        """The letters of the roles, with the nodes behind them."""
        return {
            "T": (self.treatment,),
            "Y": (self.outcome,),
            "U": (self.latent,),
            "Z": self.z,
            "X": self.x,
            "C": self.covariates,
        }

    @property
    def free(self) -> tuple[str, ...]:
        """Nodes without a role, in the order of the graph."""
        return tuple(node for node in self.graph if node not in self.nodes(self.legend))

    def without_effects_of_treatment(self) -> DiGraph:
        """Return the graph without the arrows out of treatment, in which Y stands for Y(t)."""
        graph = self.graph.copy()
        graph.remove_edges_from(list(graph.out_edges(self.treatment)))
        return graph


def diagram(graph: object, **roles: object) -> Diagram:
    """Return the diagram of a graph, or raise `InputError`; roles that are None have defaults."""
    named = {role: value for role, value in roles.items() if value is not None}
    if isinstance(graph, (str, os.PathLike)):
        edges, nodes, in_file = reading.read(graph)
        named = in_file | named
    else:
        edges, nodes = _edges(graph), [_name(node) for node in getattr(graph, "nodes", ())]
        if len(set(nodes)) < len(nodes):
            twice = next(name for name in nodes if nodes.count(name) > 1)
            raise InputError(f"two nodes of the graph are both written {twice!r}; rename one")
    chosen = _DEFAULTS | named
    single: dict[str, str] = {}
    several: dict[str, tuple[str, ...]] = {}
    for role in ("latent", "treatment", "outcome"):
        single[role] = _node(role, chosen[role])
    for role in ("z", "x", "covariates"):
        value = chosen[role]
        names = (value,) if isinstance(value, str) else value
        try:
            listed = arguments.columns(role, names)
        except InputError:
            raise InputError(f"{role} is {arguments.told(value)}; give a list of nodes") from None
        several[role] = tuple(_node(role, name) for name in listed)
    separable = arguments.flag("separable", chosen["separable"])
    made = networkx().DiGraph()
    made.add_nodes_from(nodes)
    made.add_edges_from(edges)
    found = Diagram(
        made,
        latent=single["latent"],
        treatment=single["treatment"],
        outcome=single["outcome"],
        z=several["z"],
        x=several["x"],
        covariates=several["covariates"],
        separable=separable,
    )
    _check_edges(made)
    _check_roles(found, named)
    return found


def _node(role: str, name: object) -> str:
    """Return the name of a node as text; whatever else is no name is refused."""
    try:
        return _name(arguments.column(role, name))
    except InputError:
        raise InputError(f"{role} is {arguments.told(name)}; give the name of a node") from None


def _edges(graph: object) -> list[tuple[str, str]]:
    """Return the edges of a networkx graph or of a list of pairs, names as text."""
    if hasattr(graph, "is_directed"):
        network = cast("DiGraph", graph)
        if not network.is_directed():
            raise InputError(
                "the graph is undirected; give a networkx DiGraph, with arrows from cause to effect"
            )
        for source, target, attributes in network.edges(data=True):
            if str(attributes.get("dir", "forward")).strip('"') != "forward":
                raise InputError(
                    f"the edge {source} -> {target} has dir={attributes['dir']}; write each arrow "
                    "from cause to effect, and a hidden common cause as a node of its own"
                )
        return [(_name(source), _name(target)) for source, target in network.edges()]
    if hasattr(graph, "to_numpy") and not isinstance(graph, type):  # a data frame of two columns
        graph = graph.to_numpy()
    if not isinstance(graph, Iterable) or getattr(graph, "ndim", 2) == 0:
        raise InputError(
            f"the graph is of type {type(graph).__name__}; give a networkx DiGraph, a list of "
            "(from, to) pairs, or the path of a .toml or .dot file"
        )
    edges = []
    for number, edge in enumerate(graph, 1):
        pair = edge.tolist() if isinstance(edge, np.ndarray) else edge
        if isinstance(pair, (str, bytes)) or not isinstance(pair, Sequence) or len(pair) != 2:
            told = arguments.told(edge)
            raise InputError(f"edge {number} is {told}; each has to be a pair (from, to)")
        edges.append((_name(pair[0]), _name(pair[1])))
    return edges


def _name(node: object) -> str:
    """Return a node as text, the same from every kind of graph: 1.0 of an array is the node 1."""
    if isinstance(node, bytes):
        return node.decode("utf-8", "backslashreplace")
    if isinstance(node, float | np.floating) and math.isfinite(node) and node == int(node):
        return str(int(node))
    return str(node)


def _check_edges(graph: DiGraph) -> None:
    for node in graph:
        if _ARROW.fullmatch(node):
            raise InputError(
                f"a node is called {node!r}, which is no name but an edge that was read as a node; "
                "write each arrow as (from, to), and a hidden common cause as a node of its own"
            )
    for source, target in graph.edges():
        if source == target:
            raise InputError(
                f"the edge {source} -> {target} leads from a node to itself; leave it out"
            )
    try:
        cycle = [source for source, _ in networkx().find_cycle(graph)]
    except networkx().NetworkXNoCycle:
        return
    raise InputError(
        f"the graph has a cycle, {' -> '.join([*cycle, cycle[0]])}; causes cannot run in a circle: "
        "remove or turn one of these arrows"
    )


def _check_roles(found: Diagram, named: dict[str, object]) -> None:
    for role, names in (("z", found.z), ("x", found.x)):
        if not names:
            side = "treatment" if role == "z" else "outcome"
            raise InputError(f"{role} is empty; name at least one {side}-side proxy")
    taken: dict[str, str] = {}
    for role, letter in (
        ("latent", "U"), ("treatment", "T"), ("outcome", "Y"), ("z", "Z"), ("x", "X"),
        ("covariates", "C"),
    ):  # fmt: skip
        for name in found.legend[letter]:
            if name not in found.graph:
                raise InputError(_unknown(role, name, found.graph, role in named))
            if name in taken:
                both = f"{taken[name]} and {role}" if taken[name] != role else f"{role}, twice"
                raise InputError(f"the node {name!r} is named as {both}; give each node one role")
            taken[name] = role


def _unknown(role: str, name: str, graph: DiGraph, named: bool) -> str:
    known = [str(node) for node in graph]
    if not named:
        return (
            f"no node is named as {role}, and the graph has no node {name!r}, which it would be "
            f"otherwise; say which node is the {role}"
        )
    close = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {close[0]!r}?" if close else f"its nodes are {', '.join(known) or 'none'}"
    return f"{role} is {arguments.told(name)}, and the graph has no such node; {hint}"
