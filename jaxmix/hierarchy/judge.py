"""From a graph to its level, and to what would change it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

from jaxmix.hierarchy import levels
from jaxmix.hierarchy.diagram import Diagram, diagram
from jaxmix.hierarchy.levels import LEVELS, Assumption
from jaxmix.hierarchy.paths import Path, connected, directed_path, open_path, separated
from jaxmix.hierarchy.verdict import (
    WEAKEST,
    Candidate,
    Change,
    Verdict,
    Violation,
    assumptions_of,
    next_stronger,
)


def identify(
    graph: object,
    treatment: str | None = None,
    outcome: str | None = None,
    latent: str | None = None,
    z: Sequence[str] | str | None = None,
    x: Sequence[str] | str | None = None,
    separable: bool | None = None,
    *,
    covariates: Sequence[str] | str | None = None,
) -> Verdict:
    """Return the strongest level of the hierarchy that a causal graph supports.

    With U the hidden class, ``_||_`` for d-separation, and the columns of a view jointly:

        levels 1-4    Y(t) _||_ T | U,  U no descendant of T
        levels 2-4    X _||_ (Z, T) | U,  Z _||_ Y | (T, U),  X and, given T, Z not _||_ U
        levels 2-3    X _||_ (Z, T, Y) | U
        level 2       Z _||_ (T, Y) | U,  (T, Y) not _||_ U
        level 1       U is a function of observed columns, which the user declares

    Y(t) stands for Y in the graph without the arrows out of T. Covariates join U wherever it is
    conditioned on, and must not be descendants of T. All other nodes count as unobserved and are
    averaged over.

    Assumes that the graph is right: every common cause is a node of it, and no arrow is missing.
    It says nothing of ranks and overlap.

    Parameters
    ----------
    graph
        A networkx ``DiGraph``, a list of (from, to) pairs, or the path of a ``.toml`` file (keys
        `latent`, `treatment`, `outcome`, `z`, `x`, `edges`, and if wanted `covariates` and
        `separable`) or of a ``.dot`` or ``.gv`` file.
    treatment, outcome, latent, z, x
        Names of nodes; arguments override the file. Where neither names them: T, Y, U, Z and X.
    separable
        Declare that the class is a function of observed columns (level 1).
    covariates
        Observed nodes that are adjusted for.

    Raises
    ------
    InputError
        For a graph with a cycle, unknown nodes, a node with two roles, an empty view, a file that
        cannot be read, and without the extra ``graph``.

    References
    ----------
    Mazaheri, Squires, Uhler (2025), arXiv 2405.19225. Pearl (2009), *Causality*, 2nd edition,
    section 3.3 (the back-door criterion).

    Examples
    --------
    >>> edges = [("U", "Z"), ("U", "X"), ("U", "T"), ("U", "Y"), ("T", "Y"), ("Z", "T")]
    >>> verdict = identify(edges)
    >>> verdict.level, str(verdict.blocked_by[0].path)
    (3, 'Z -> T')
    """
    roles = diagram(
        graph, treatment=treatment, outcome=outcome, latent=latent, z=z, x=x,
        separable=separable, covariates=covariates,
    )  # fmt: skip
    broken = violations(roles)
    held = supported(broken)
    level = held[0] if held else None
    target = next_stronger(level)
    blocked = tuple(v for v in broken if target and v.assumption in target.assumptions)
    candidates, conflicts = _candidates(roles)
    return Verdict(
        level, held, blocked, broken, candidates, conflicts,
        _changes(roles, level), roles,
    )  # fmt: skip


def violations(roles: Diagram) -> tuple[Violation, ...]:
    """Return the assumptions, of any level, that the graph does not support."""
    found = (_violation(roles, assumption) for assumption in assumptions_of(roles))
    return tuple(violation for violation in found if violation is not None)


def supported(broken: Iterable[Violation]) -> tuple[int, ...]:
    """Return the levels all of whose assumptions hold, the strongest first."""
    names = {violation.assumption for violation in broken}
    return tuple(level.number for level in LEVELS if not names & set(level.assumptions))


def _violation(roles: Diagram, assumption: Assumption) -> Violation | None:
    statement = assumption.text(covariates=bool(roles.covariates))
    if assumption.kind == "declared":
        reason = "not declared; separable = true declares it, where it is so"
        return None if roles.separable else Violation(assumption, statement, None, reason)
    left, right = roles.nodes(assumption.left), roles.nodes(assumption.right)
    if assumption.kind == "not_affected":
        path = directed_path(roles.graph, left, right)
        return None if path is None else Violation(assumption, statement, path, path.reason())
    graph = roles.without_effects_of_treatment() if assumption.potential else roles.graph
    given = roles.nodes((*assumption.given, "C"))
    apart = separated(graph, left, right, given)
    if assumption.kind == "dependent":
        reason = "no open path links them"
        return Violation(assumption, statement, None, reason) if apart else None
    if apart:
        return None
    path = open_path(graph, left, right, given)
    assert path is not None  # there is one where sets are not separated
    path = _turned(roles, path)
    return Violation(assumption, statement, path, path.reason(roles.nodes(roles.legend)))


def _turned(roles: Diagram, path: Path) -> Path:
    """Return a path the way it is read: along its arrows, or from Z over T and X to Y."""
    places = {node: place for place, letter in enumerate("ZTXY") for node in roles.nodes(letter)}
    ends = [places.get(node, 0) for node in (path.nodes[0], path.nodes[-1])]
    directed = len(set(path.arrows)) == 1
    turn = path.arrows[0] == "<-" if directed else ends[0] > ends[1]
    return path.reversed() if turn else path


# ------------------------------------------------------------------ what each node may serve as


def _candidates(
    roles: Diagram,
) -> tuple[tuple[Candidate, ...], tuple[tuple[str, str, Path], ...]]:
    """Judge each node by the rules of its own role; pairs are left to the conflicts."""
    now = dict.fromkeys(roles.z, "z") | dict.fromkeys(roles.x, "x")
    now |= dict.fromkeys(roles.covariates, "covariate")
    nodes = (*now, *roles.free)
    as_z_rules = (levels.Z_TELLS, levels.Z_WITHOUT_EFFECT), (levels.Z_APART,)
    as_x_rules = (levels.X_TELLS, _x_alone(levels.X_UNTREATED)), (_x_alone(levels.X_APART),)
    found = []
    for node in nodes:
        rest = tuple(name for name in roles.covariates if name != node)
        alone = dataclasses.replace(roles, z=(node,), x=(node,), covariates=rest)
        z_levels, against_z = _serves(alone, as_z_rules, (3, 4), (2, 3, 4))
        x_levels, against_x = _serves(alone, as_x_rules, (4,), (2, 3, 4))
        found.append(Candidate(node, now.get(node), z_levels, x_levels, against_z, against_x))
    return tuple(found), tuple(_conflicts(roles, found))


def _x_alone(assumption: Assumption) -> Assumption:
    return dataclasses.replace(
        assumption, right=tuple(letter for letter in assumption.right if letter != "Z")
    )


def _serves(
    alone: Diagram,
    rules: tuple[tuple[Assumption, ...], tuple[Assumption, ...]],
    few: tuple[int, ...],
    all_: tuple[int, ...],
) -> tuple[tuple[int, ...], str]:
    for demanded, reached in zip(rules, ((), few), strict=True):
        for assumption in demanded:
            violation = _violation(alone, assumption)
            if violation is not None:
                path = violation.path
                return reached, "does not tell of U" if path is None else str(path)
    return all_, ""


def _conflicts(roles: Diagram, found: list[Candidate]) -> Iterator[tuple[str, str, Path]]:
    """Pairs of a proxy and another candidate, fit for opposite sides but for a link of the two."""
    given = roles.nodes("UC")
    able = [c for c in found if (c.as_z or c.as_x) and c.role != "covariate"]
    for index, one in enumerate(able):
        if one.role is None:  # the proxies come first
            return
        linked = connected(roles.graph, one.node, given)
        for other in able[index + 1 :]:
            opposite = (one.as_z and other.as_x) or (one.as_x and other.as_z)
            if opposite and other.node in linked:
                path = open_path(roles.graph, {one.node}, {other.node}, given)
                assert path is not None  # the two are linked
                yield one.node, other.node, _turned(roles, path)


# -------------------------------------------------------------------------- what would change it


def _changes(roles: Diagram, level: int | None) -> tuple[Change, ...]:
    """Return single changes of roles that reach a stronger level, the strongest first."""
    found = []
    for action, node, words, changed in _proposals(roles):
        held = supported(violations(changed))
        if held and held[0] < (level or WEAKEST + 1):
            found.append(Change(action, node, words, held[0]))
    return tuple(sorted(found, key=lambda change: change.level))


def _with(roles: Diagram, view: str, names: tuple[str, ...]) -> Diagram:
    """Return the roles with other proxies in a view."""
    if view == "z":
        return dataclasses.replace(roles, z=names)
    return dataclasses.replace(roles, x=names)


def _proposals(roles: Diagram) -> Iterator[tuple[str, str | None, str, Diagram]]:
    for view, other in (("z", "x"), ("x", "z")):
        mine, others = getattr(roles, view), getattr(roles, other)
        for node in mine if len(mine) > 1 else ():
            rest = _with(roles, view, tuple(name for name in mine if name != node))
            yield "drop", node, f"Leave {node} out of {view}", rest
            words = f"Move {node} from {view} to {other}"
            yield "move", node, words, _with(rest, other, (*others, node))
    swapped = dataclasses.replace(roles, z=roles.x, x=roles.z)
    yield "swap", None, "Take z for x and x for z", swapped
    for node in roles.free:
        changed = dataclasses.replace(roles, covariates=(*roles.covariates, node))
        yield "adjust", node, f"Adjust for {node} as a covariate, if it is observed", changed
    for node in roles.covariates:
        left = tuple(name for name in roles.covariates if name != node)
        words = f"Leave {node} out of the covariates"
        yield "release", node, words, dataclasses.replace(roles, covariates=left)
    if len(roles.covariates) > 1:
        words = "Leave out all covariates"
        yield "release", None, words, dataclasses.replace(roles, covariates=())
