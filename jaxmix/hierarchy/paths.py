"""Open paths of a graph: d-separation, and the path that speaks against it."""

from __future__ import annotations

import dataclasses
import itertools
from collections import deque
from collections.abc import Iterator, Set
from types import ModuleType
from typing import TYPE_CHECKING

from jaxmix.exceptions import InputError

if TYPE_CHECKING:
    from networkx import DiGraph


def networkx() -> ModuleType:
    """Return the library of graphs, or say how to install it."""
    try:
        import networkx
    except ImportError:
        raise InputError("graphs need the extra 'graph': pip install 'jaxmix[graph]'") from None
    found: ModuleType = networkx
    return found


@dataclasses.dataclass(frozen=True)
class Path:
    """A path between two nodes, along which they are dependent.

    Attributes
    ----------
    nodes
        From one end to the other.
    arrows
        ``"->"`` or ``"<-"`` between each two of them.
    opened
        Nodes at which two arrows meet, each with the node conditioned on that opens the path
        there: itself, or a descendant.
    """

    nodes: tuple[str, ...]
    arrows: tuple[str, ...]
    opened: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        steps = (
            f" {arrow} {node}" for arrow, node in zip(self.arrows, self.nodes[1:], strict=True)
        )
        return self.nodes[0] + "".join(steps)

    def reason(self, known: Set[str] = frozenset()) -> str:
        """Return in words why the path is there; `known` nodes are no unnamed common causes."""
        first, last = self.nodes[0], self.nodes[-1]
        if set(self.arrows) == {"->"}:
            return f"{first} affects {last}"
        if set(self.arrows) == {"<-"}:
            return f"{last} affects {first}"
        if self.opened:
            openers = dict.fromkeys(node for _, node in self.opened)
            return f"conditioning on {' and '.join(openers)} opens a path"
        (fork,) = self.forks  # no two arrows meet, so there is one place where they part
        return f"both depend on {fork}" if fork in known else f"{fork} is a common cause beside U"

    def reversed(self) -> Path:
        """Return the same path from its other end."""
        turned = {"->": "<-", "<-": "->"}
        arrows = tuple(turned[arrow] for arrow in reversed(self.arrows))
        return Path(self.nodes[::-1], arrows, self.opened[::-1])

    @property
    def forks(self) -> tuple[str, ...]:
        """Nodes that the path leaves by arrows on both sides."""
        return _between(self.nodes, self.arrows, ("<-", "->"))


def _between(
    nodes: tuple[str, ...], arrows: tuple[str, ...], pair: tuple[str, str]
) -> tuple[str, ...]:
    """Return the inner nodes of a path whose two arrows are a given pair."""
    inner = zip(nodes[1:], itertools.pairwise(arrows), strict=False)
    return tuple(node for node, around in inner if around == pair)


def separated(graph: DiGraph, left: Set[str], right: Set[str], given: Set[str]) -> bool:
    """Whether two sets of nodes are d-separated by a third."""
    return bool(networkx().is_d_separator(graph, set(left), set(right), set(given)))


def directed_path(graph: DiGraph, left: Set[str], right: Set[str]) -> Path | None:
    """Return a shortest path along arrows from one set to the other, or None."""
    before: dict[str, str | None] = {node: None for node in graph if node in left}
    waiting = deque(before)
    while waiting:
        node = waiting.popleft()
        if node in right:
            nodes = [node]
            while (last := before[nodes[-1]]) is not None:
                nodes.append(last)
            return Path(tuple(reversed(nodes)), ("->",) * (len(nodes) - 1))
        for child in graph.succ[node]:
            if child not in before:
                before[child] = node
                waiting.append(child)
    return None


_State = tuple[str, bool]  # a node, and whether the path came into it along an arrow


def open_path(graph: DiGraph, left: Set[str], right: Set[str], given: Set[str]) -> Path | None:
    """Return a shortest path that is open given a set, or None where the ends are separated.

    A path is open where no node of it is conditioned on, except that two arrows may meet at a
    node that is conditioned on, or has a descendant that is. The search is breadth first over
    nodes and the direction in which they are reached. What it finds visits no node twice: a walk
    that is open stays open without its loops, and is shorter.

    References
    ----------
    Geiger, Verma, Pearl (1990). Identifying independence in Bayesian networks. *Networks* 20(5),
    507-534.

    Examples
    --------
    >>> import networkx as nx
    >>> graph = nx.DiGraph([("Z", "T"), ("U", "T"), ("U", "Y")])
    >>> print(open_path(graph, {"Z"}, {"Y"}, {"T"}))
    Z -> T <- U -> Y
    >>> open_path(graph, {"Z"}, {"Y"}, {"T", "U"}) is None
    True
    """
    before, end = _search(graph, left, right, given)
    if end is None:
        return None
    states = [end]
    while (last := before[states[-1]]) is not None:
        states.append(last)
    states.reverse()
    nodes = tuple(node for node, _ in states)
    arrows = tuple("->" if into else "<-" for _, into in states[1:])
    met = _between(nodes, arrows, ("->", "<-"))
    return Path(nodes, arrows, tuple((node, _opener(graph, node, given)) for node in met))


def connected(graph: DiGraph, node: str, given: Set[str]) -> set[str]:
    """Return the nodes, other than those given, that are not separated from a node."""
    before, _ = _search(graph, {node}, frozenset(), given)
    return {reached for reached, _ in before} - set(given) - {node}


def _search(
    graph: DiGraph, left: Set[str], right: Set[str], given: Set[str]
) -> tuple[dict[_State, _State | None], _State | None]:
    """Walk along open paths; return each state with the one before it, and the end if reached."""
    opening = _ancestors(graph, given)
    starts = [(node, False) for node in graph if node in left]
    before: dict[_State, _State | None] = dict.fromkeys(starts)
    waiting = deque(starts)
    while waiting:
        state = waiting.popleft()
        if state[0] in right:
            return before, state
        for following in _steps(graph, state, given, opening):
            if following not in before:
                before[following] = state
                waiting.append(following)
    return before, None


def _steps(graph: DiGraph, state: _State, given: Set[str], opening: Set[str]) -> Iterator[_State]:
    node, into = state
    if node not in given:
        yield from ((child, True) for child in graph.succ[node])
    if (node in opening) if into else (node not in given):
        yield from ((parent, False) for parent in graph.pred[node])


def _ancestors(graph: DiGraph, nodes: Set[str]) -> set[str]:
    found, waiting = set(nodes), list(nodes)
    while waiting:
        for parent in graph.pred[waiting.pop()]:
            if parent not in found:
                found.add(parent)
                waiting.append(parent)
    return found


def _opener(graph: DiGraph, collider: str, given: Set[str]) -> str:
    path = directed_path(graph, {collider}, given)
    assert path is not None  # the search goes through a collider only where there is one
    return path.nodes[-1]
