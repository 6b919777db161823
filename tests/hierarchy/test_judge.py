"""From a causal graph to its level: named graphs, random graphs against an oracle, errors."""

import functools
import itertools
import json
import pathlib
import random
import shlex
import sys
import tomllib

import networkx as nx
import numpy as np
import pandas as pd
import polars as pl
import pytest

import jaxmix as jm
from jaxmix import cli
from jaxmix.hierarchy import LEVELS, identify
from jaxmix.hierarchy.judge import violations
from jaxmix.hierarchy.paths import connected, open_path

GRAPHS = pathlib.Path(__file__).parents[2] / "configs" / "graphs"

# ------------------------------------------------- an oracle: separation in the moral graph


def ancestors(edges, nodes):
    """Return the nodes and all their ancestors."""
    found = set(nodes)
    while more := {a for a, b in edges if b in found} - found:
        found |= more
    return found


def moral_separated(edges, left, right, given):
    """Whether d-separated: no way in the moralised graph of the ancestors (Lauritzen et al. 1990).

    Plain sets, and nothing of the package or of networkx.
    """
    kept = ancestors(edges, left | right | given)
    inside = [(a, b) for a, b in edges if a in kept and b in kept]
    links = {frozenset(edge) for edge in inside}
    for child in kept:
        parents = [a for a, b in inside if b == child]
        links |= {frozenset(pair) for pair in itertools.combinations(parents, 2)}
    reached = set(left)
    while True:
        more = {
            node
            for link in links
            if link & reached
            for node in link
            if node not in given and node not in reached
        }
        if not more:
            return not reached & right
        reached |= more


def direct_levels(edges, z, x, c=(), separable=False):
    """Return the levels that hold, written out from their definitions."""
    z, x, c, u, t, y = set(z), set(x), set(c), {"U"}, {"T"}, {"Y"}

    def apart(left, right, given, among=edges):
        return moral_separated(among, left, right, given | c)

    affected = {b for a, b in edges if "T" in ancestors(edges, {a})}
    untreated = [(a, b) for a, b in edges if a != "T"]
    always = not affected & (u | c) and apart(y, t, u, untreated)
    tells = not apart(z, u, t) and not apart(x, u, set())
    level4 = always and tells and apart(x, z | t, u) and apart(z, y, t | u)
    level3 = level4 and apart(x, z | t | y, u)
    mutual = apart(z, x, u) and apart(z, t | y, u) and apart(x, t | y, u)
    level2 = level4 and mutual and not apart(t | y, u, set())
    held = {1: always and separable, 2: level2, 3: level3, 4: level4}
    return tuple(number for number, holds in held.items() if holds)


def is_open(edges, path, given):
    """Whether a path is there and open, node by node, by the definition."""
    steps = list(zip(path.nodes, path.arrows, path.nodes[1:], strict=False))
    there = all(((a, b) if arrow == "->" else (b, a)) in edges for a, arrow, b in steps)
    simple = len(set(path.nodes)) == len(path.nodes) == len(path.arrows) + 1
    opening = ancestors(edges, given)
    for i, node in enumerate(path.nodes[1:-1]):
        collider = path.arrows[i] == "->" and path.arrows[i + 1] == "<-"
        if (node not in opening) if collider else (node in given):
            return False
    return there and simple


def random_graph(seed, extra=2):
    """Return edges of a random DAG, now and then close to those of the hierarchy, and roles."""
    rng = random.Random(seed)
    nodes = ["U", "Z1", "Z2", "X1", "X2", "T", "Y", "C", "W"]
    order = nodes[:]
    if seed % 3:
        edges = {("U", n) for n in ("Z1", "Z2", "X1", "X2", "T", "Y") if rng.random() < 0.93}
        edges.add(("T", "Y"))
        order = ["U", *rng.sample(["Z1", "Z2", "X1", "X2", "C", "W"], 6), "T", "Y"]
        if seed % 3 == 2:
            order[order.index("W")], order[-1] = order[-1], order[order.index("W")]
        chance = 0.06
        edges = {e for e in edges if order.index(e[0]) < order.index(e[1])}
    else:
        rng.shuffle(order)
        edges, chance = set(), 0.3
    for a, b in itertools.combinations(order, 2):
        if rng.random() < chance:
            edges.add((a, b))
    roles = {"z": ["Z1", "Z2"], "x": ["X1", "X2"]}
    if rng.random() < 0.4:
        roles["covariates"] = ["C"]
    graph = nx.DiGraph()
    graph.add_nodes_from(nodes)
    graph.add_edges_from(sorted(edges))
    return graph, sorted(edges), roles


@functools.cache
def judged(seed):
    graph, edges, roles = random_graph(seed)
    separable = seed % 7 == 0
    return identify(graph, **roles, separable=separable), edges, roles, separable


SEEDS = range(400)


def direct(edges, roles, separable=False):
    return direct_levels(edges, roles["z"], roles["x"], roles.get("covariates", ()), separable)


def test_random_graphs_against_the_oracle():
    """The level, and every level that holds; all of them occur often enough to count."""
    seen = {}
    for seed in SEEDS:
        verdict, edges, roles, separable = judged(seed)
        expected = direct(edges, roles, separable)
        assert verdict.levels == expected, (seed, edges, roles)
        assert verdict.level == (expected[0] if expected else None)
        seen[verdict.level] = seen.get(verdict.level, 0) + 1
    assert {number: seen.get(number, 0) >= 15 for number in (1, 2, 3, 4, None)} == dict.fromkeys(
        (1, 2, 3, 4, None), True
    ), seen


def test_separation_of_sets_by_three_algorithms():
    """Moral graph, networkx, and the search that finds open paths; the paths are shortest."""
    both = set()
    for seed in range(300):
        graph, edges, _ = random_graph(seed)
        rng = random.Random(seed)
        nodes = list(graph)
        rng.shuffle(nodes)
        left, right = set(nodes[: rng.randint(1, 2)]), set(nodes[2 : rng.randint(3, 4)])
        given = set(nodes[4 : rng.randint(4, 7)])
        apart = moral_separated(edges, left, right, given)
        assert nx.is_d_separator(graph, left, right, given) == apart
        path = open_path(graph, left, right, given)
        assert (path is None) == apart
        both.add(apart)
        one = nodes[0]
        linked = {n for n in nodes if n not in given | {one}} & connected(graph, one, given)
        assert linked == {
            n for n in nodes
            if n not in given | {one} and not moral_separated(edges, {one}, {n}, given)
        }  # fmt: skip
        if path is not None:
            assert path.nodes[0] in left
            assert path.nodes[-1] in right
            assert is_open(edges, path, given)
            skeleton = graph.to_undirected()
            shortest = min(
                len(nodes)
                for a in left
                for b in right
                for nodes in nx.all_simple_paths(skeleton, a, b)
                if is_open(edges, walk(edges, nodes), given)
            )
            assert len(path.nodes) == shortest
    assert both == {True, False}


def walk(edges, nodes):
    arrows = tuple("->" if pair in edges else "<-" for pair in itertools.pairwise(nodes))
    return jm.hierarchy.Path(tuple(nodes), arrows)


def test_what_blocks_is_what_fails_at_the_next_level_with_an_open_path():
    for seed in SEEDS:
        verdict, edges, roles, _ = judged(seed)
        target = (verdict.level or 5) - 1
        needed = LEVELS[target - 1].assumptions if target else ()
        assert verdict.blocked_by == tuple(v for v in verdict.violations if v.assumption in needed)
        assert bool(verdict.blocked_by) == (verdict.level != 1)
        letters = {"T": {"T"}, "Y": {"Y"}, "U": {"U"}, "Z": set(roles["z"]), "X": set(roles["x"])}
        letters["C"] = set(roles.get("covariates", ()))
        for violation in verdict.violations:
            assumption, path = violation.assumption, violation.path
            if assumption.kind in ("dependent", "declared"):
                assert path is None
                continue
            given = set().union(letters["C"], *(letters[g] for g in assumption.given))
            if assumption.kind == "not_affected":
                assert set(path.arrows) == {"->"}
                given = set()
            used = [e for e in edges if e[0] != "T"] if assumption.potential else edges
            assert is_open(used, path, given), (seed, violation)
            ends = [set().union(*(letters[g] for g in side))
                    for side in (assumption.left, assumption.right)]  # fmt: skip
            first, last = path.nodes[0], path.nodes[-1]
            assert (first in ends[0] and last in ends[1]) or (first in ends[1] and last in ends[0])


def test_changes_are_the_single_changes_that_reach_a_stronger_level():
    """Every drop, move, swap, adjustment and release is tried here with the oracle."""
    for seed in SEEDS:
        verdict, edges, roles, separable = judged(seed)
        z, x, c = roles["z"], roles["x"], roles.get("covariates", [])
        tried = {("swap", None): (x, z, c)}
        for node in z:
            tried["drop", node] = ([n for n in z if n != node], x, c)
            tried["move", node] = ([n for n in z if n != node], [*x, node], c)
        for node in x:
            tried["drop", node] = (z, [n for n in x if n != node], c)
            tried["move", node] = ([*z, node], [n for n in x if n != node], c)
        tried |= {("adjust", node): (z, x, [*c, node]) for node in {"C", "W"} - set(c)}
        tried |= {("release", node): (z, x, []) for node in c}
        expected = {}
        for key, (new_z, new_x, new_c) in tried.items():
            held = direct_levels(edges, new_z, new_x, new_c, separable)
            if held and held[0] < (verdict.level or 5):
                expected[key] = held[0]
        assert {(ch.action, ch.node): ch.level for ch in verdict.changes} == expected, seed
        assert [ch.level for ch in verdict.changes] == sorted(ch.level for ch in verdict.changes)


def test_candidates_and_conflicts_follow_the_rules_of_each_side():
    """As z: apart from Y given T and U, and from T for level 2; as x: from T, and from Y."""
    for seed in SEEDS:
        verdict, edges, roles, _ = judged(seed)
        covariates = set(roles.get("covariates", ()))

        def apart(left, right, given, edges=edges):
            return moral_separated(edges, left, right, given)

        for candidate in verdict.candidates:
            n, c = {candidate.node}, covariates - {candidate.node}
            as_z = as_x = ()
            if not apart(n, {"U"}, {"T"} | c) and apart(n, {"Y"}, {"T", "U"} | c):
                as_z = (2, 3, 4) if apart(n, {"T", "Y"}, {"U"} | c) else (3, 4)
            if not apart(n, {"U"}, c) and apart(n, {"T"}, {"U"} | c):
                as_x = (2, 3, 4) if apart(n, {"T", "Y"}, {"U"} | c) else (4,)
            assert (candidate.as_z, candidate.as_x) == (as_z, as_x), (seed, candidate)
            assert bool(candidate.against_z) == (as_z != (2, 3, 4))
            assert bool(candidate.against_x) == (as_x != (2, 3, 4))
        able = {c.node: c for c in verdict.candidates if c.role != "covariate"}
        proxies = {*roles["z"], *roles["x"]}
        expected = {
            frozenset((a, b))
            for a, b in itertools.permutations(able, 2)
            if able[a].as_z and able[b].as_x and proxies & {a, b}
            and not apart({a}, {b}, {"U"} | covariates)
        }  # fmt: skip
        assert {frozenset((a, b)) for a, b, _ in verdict.conflicts} == expected
        assert all(is_open(edges, path, {"U"} | covariates) for *_, path in verdict.conflicts)


# ------------------------------------------------------------------------------ graphs by name

BASE = (("U", "Z"), ("U", "X"), ("U", "T"), ("U", "Y"), ("T", "Y"))


def graph(*more, without=()):
    return [edge for edge in (*BASE, *more) if edge not in without]


# Graph, roles, level, and each blocking assumption with its path.
NAMED = {
    "level 1: separable": (graph(), {"separable": True}, 1, {}),
    "level 2: one common cause": (graph(), {}, 2, {"separable": None}),
    "level 3: Z causes T": (graph(("Z", "T")), {}, 3, {"z_apart_from_t_and_y": "Z -> T"}),
    "level 4: X causes Y": (
        graph(("Z", "T"), ("X", "Y")), {}, 4, {"x_apart_from_z_t_and_y": "X -> Y"}),
    "mediator": (graph(("T", "M"), ("M", "Y")), {}, 2, {"separable": None}),
    "mediator as x": (
        graph(("T", "M"), ("M", "Y"), ("U", "M")), {"x": ["M"]}, None,
        {"x_apart_from_z_and_t": "T -> M"}),
    "mediator as z": (
        graph(("T", "M"), ("M", "Y"), ("U", "M")), {"z": ["M"]}, None,
        {"z_apart_from_y": "M -> Y"}),
    "Z causes Y": (graph(("Z", "Y")), {}, None, {"z_apart_from_y": "Z -> Y"}),
    "Z causes X": (graph(("Z", "X")), {}, None, {"x_apart_from_z_and_t": "Z -> X"}),
    "X causes Z": (graph(("X", "Z")), {}, None, {"x_apart_from_z_and_t": "X -> Z"}),
    "X causes T": (graph(("X", "T")), {}, None, {"x_apart_from_z_and_t": "X -> T"}),
    "T causes X": (graph(("T", "X")), {}, None, {"x_apart_from_z_and_t": "T -> X"}),
    "T causes Z": (graph(("T", "Z")), {}, 3, {"z_apart_from_t_and_y": "T -> Z"}),
    "T alone causes Z": (
        graph(("T", "Z"), without=[("U", "Z")]), {}, None, {"z_tells_of_class": None}),
    "X tells nothing": (
        graph(("V", "X"), without=[("U", "X")]), {}, None, {"x_tells_of_class": None}),
    "U after T": (
        [("T", "U"), ("U", "Z"), ("U", "X"), ("U", "Y")], {}, None,
        {"class_before_treatment": "T -> U"}),
    "U after T in two steps": (
        [("T", "A"), ("A", "U"), ("U", "Z"), ("U", "X"), ("U", "Y")], {}, None,
        {"class_before_treatment": "T -> A -> U"}),
    "second hidden cause": (
        graph(("W", "T"), ("W", "Y")), {}, None, {"latent_ignorability": "T <- W -> Y"}),
    "second cause observed": (
        graph(("W", "T"), ("W", "Y")), {"covariates": ["W"]}, 2, {"separable": None}),
    "second hidden cause opened by T": (
        graph(("W", "T"), ("W", "Y"), ("Z", "T")), {}, None,
        {"latent_ignorability": "T <- W -> Y", "z_apart_from_y": "Z -> T <- W -> Y"}),
    "instrument": (
        graph(("Z", "T"), without=[("U", "Z")]), {}, 3, {"z_apart_from_t_and_y": "Z -> T"}),
    "M-bias, collider untouched": (
        graph(("A", "T"), ("A", "C"), ("B", "C"), ("B", "Y")), {}, 2, {"separable": None}),
    "M-bias, collider adjusted for": (
        graph(("A", "T"), ("A", "C"), ("B", "C"), ("B", "Y")), {"covariates": ["C"]}, None,
        {"latent_ignorability": "T <- A -> C <- B -> Y"}),
    "M-bias, child of the collider adjusted for": (
        graph(("A", "T"), ("A", "S"), ("B", "S"), ("B", "Y"), ("S", "C")),
        {"covariates": ["C"]}, None, {"latent_ignorability": "T <- A -> S <- B -> Y"}),
    "collider of Z and X": (graph(("Z", "S"), ("X", "S")), {}, 2, {"separable": None}),
    "collider of Z and X adjusted for": (
        graph(("Z", "S"), ("X", "S")), {"covariates": ["S"]}, None,
        {"x_apart_from_z_and_t": "Z -> S <- X"}),
    "collider of T and Y": (graph(("T", "S"), ("Y", "S")), {}, 2, {"separable": None}),
    "covariate after T": (
        graph(("T", "S"), ("Y", "S")), {"covariates": ["S"]}, None,
        {"covariates_before_treatment": "T -> S"}),
    "hidden cause of Z and X": (
        graph(("V", "Z"), ("V", "X")), {}, None, {"x_apart_from_z_and_t": "Z <- V -> X"}),
    "hidden cause of Z and T": (
        graph(("V", "Z"), ("V", "T")), {}, 3, {"z_apart_from_t_and_y": "Z <- V -> T"}),
    "hidden cause of X and Y": (
        graph(("V", "X"), ("V", "Y")), {}, 4, {"x_apart_from_z_t_and_y": "X <- V -> Y"}),
    "hidden cause of Z and Y": (
        graph(("V", "Z"), ("V", "Y")), {}, None, {"z_apart_from_y": "Z <- V -> Y"}),
    "Y causes X": (graph(("Y", "X")), {}, None, {"x_apart_from_z_and_t": "T -> Y -> X"}),
    "Y causes X, T nothing": (
        graph(("Y", "X"), without=[("T", "Y")]), {}, 4, {"x_apart_from_z_t_and_y": "Y -> X"}),
    "Y causes T": (
        graph(("Y", "T"), without=[("T", "Y")]), {}, None, {"latent_ignorability": "Y -> T"}),
    "no confounding": (
        graph(without=[("U", "T"), ("U", "Y")]), {}, 3, {"t_and_y_tell_of_class": None}),
    "one proxy of several invalid": (
        graph(("U", "M"), ("T", "M")), {"x": ["X", "M"]}, None, {"x_apart_from_z_and_t": "T -> M"}),
    "proxies of a view cause each other": (
        graph(("U", "Z2"), ("Z", "Z2"), ("U", "X2"), ("X2", "X")),
        {"z": ["Z", "Z2"], "x": ["X", "X2"]}, 2, {"separable": None}),
    "separable, but T and Y confounded": (
        graph(("W", "T"), ("W", "Y")), {"separable": True}, None,
        {"latent_ignorability": "T <- W -> Y"}),
    "separable, though no proxy is valid": (graph(("Z", "X")), {"separable": True}, 1, {}),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMED)
def test_named_graphs(name):
    edges, roles, level, blocked = NAMED[name]
    verdict = identify(edges, **roles)
    assert verdict.level == level
    found = {v.assumption.name: None if v.path is None else str(v.path) for v in verdict.blocked_by}
    assert set(found) == set(blocked)
    for assumption, path in blocked.items():
        if path is not None:
            assert found[assumption] == path
    named = [roles.get(role, default) for role, default in (("z", "Z"), ("x", "X"))]
    covariates, separable = roles.get("covariates", ()), roles.get("separable", False)
    expected = direct_levels(edges, *named, covariates, separable)
    assert verdict.levels == expected


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_the_four_graphs_of_the_hierarchy(number):
    """Each holds at its own level and at the weaker ones."""
    verdict = identify(GRAPHS / f"level{number}.toml")
    assert verdict.level == number
    assert verdict.levels == tuple(range(number, 5))


def test_the_invalid_proxy_is_the_one_to_leave_out():
    verdict = identify(GRAPHS / "invalid_proxy.toml")
    assert verdict.level is None
    assert [(c.action, c.node, c.level) for c in verdict.changes] == [("drop", "hours_after", 3)]
    assert "Leave hours_after out of x: level 3." in verdict.summary()


def test_advice_by_name():
    def changes(*arguments, **roles):
        return {(c.action, c.node): c.level for c in identify(*arguments, **roles).changes}

    assert changes(graph(("Z", "T")), z="X", x="Z") == {("swap", None): 3}
    hidden = graph(("W", "T"), ("W", "Y"))
    assert changes(hidden) == {("adjust", "W"): 2}
    collider = graph(("A", "T"), ("A", "C"), ("B", "C"), ("B", "Y"))
    assert changes(collider, covariates="C") == {
        ("release", "C"): 2, ("adjust", "A"): 2, ("adjust", "B"): 2}  # fmt: skip
    cause = graph(("U", "I"), ("I", "T"))
    assert changes(cause, x=["X", "I"]) == {
        ("drop", "I"): 2, ("move", "I"): 3, ("swap", None): 3}  # fmt: skip
    two = graph(("A", "T"), ("A", "C"), ("B", "C"), ("B", "Y"), ("T", "D"))
    assert changes(two, covariates=["C", "D"]) == {("release", None): 2}


def test_reasons_in_words():
    def reasons(*more, **roles):
        return [v.reason for v in identify(graph(*more), **roles).blocked_by]

    assert reasons(("T", "M"), ("M", "X")) == ["T affects X"]
    assert reasons(("Z", "T"), ("Z", "X"))[0] == "Z affects X"
    assert reasons(("W", "T"), ("W", "Y")) == ["W is a common cause beside U"]
    assert reasons(("Z", "T"), ("Z", "Y"))[0] == "both depend on Z"
    assert reasons(("Z", "S"), ("X", "S"), covariates="S") == ["conditioning on S opens a path"]
    assert reasons(("W", "T"), ("W", "Y"), ("Z", "T"))[1] == ("conditioning on T opens a path")


# ----------------------------------------------------------------------------- levels as data


def test_levels_are_data():
    assert [level.number for level in LEVELS] == [1, 2, 3, 4]
    for level in LEVELS:
        for name in level.estimators:
            found = functools.reduce(getattr, name.split("."), jm)
            assert callable(found) or found.__name__ == f"jaxmix.estimators.{name}"
    assert set(LEVELS[3].assumptions) < set(LEVELS[2].assumptions) < set(LEVELS[1].assumptions)
    assert {level.number for level in LEVELS if level.options} == {2, 3, 4}
    names = [a.name for a in LEVELS[1].assumptions + LEVELS[0].assumptions]
    assert len(set(names)) == 11


@pytest.mark.parametrize("number", [2, 3, 4])
def test_the_command_it_names_is_one_that_fit_takes(number, monkeypatch):
    """The line as it is printed, K being 2, up to the call of `fit`."""
    called = {}

    def fit(data, **options):
        called.update(data, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(
        "jaxmix.data.roles.read", lambda path, **roles: {"path": str(path), **roles}
    )
    monkeypatch.setattr("jaxmix.fitting.run.fit", fit)
    command = identify(GRAPHS / f"level{number}.toml").command
    words = [("2" if word == "K" else word) for word in shlex.split(command)]
    assert words[0] == "jaxmix"
    assert cli.run(words[1:]) == 130  # interrupted, above
    assert called["path"] == "ROWS.csv"
    assert [called[role] for role in ("treatment", "outcome", "z", "x")] == ["T", "Y", ["Z"], ["X"]]
    assert called["level"] == number
    assert called["num_classes"] == (None if number == 4 else 2)


def test_commands_and_covariates():
    """`fit` takes covariates at level 4 alone; at level 1 there is no command of its own."""
    plain = identify(graph(("Z", "T")))
    assert plain.command.endswith("--z Z --x X --level 3 --classes K")
    adjusted = identify(graph(("Z", "T"), ("C", "T"), ("C", "Y")), covariates="C")
    assert (adjusted.level, adjusted.fitted_level) == (3, 4)
    assert adjusted.command.endswith("--covariates C --level 4")
    assert "take no covariates" in adjusted.summary()
    assert "take no covariates" not in plain.summary()
    assert identify(graph(), separable=True).command.endswith("--level 2 --classes K")
    assert identify(graph(("Z", "X")), separable=True).command is None
    assert identify(graph(("Z", "X"))).command is None
    spaced = [tuple({"T": "a b"}.get(n, n) for n in edge) for edge in BASE]
    assert "--treatment 'a b' " in identify(spaced, treatment="a b").command


# ------------------------------------------------------------------------------------- words


@pytest.mark.parametrize("name", NAMED)
def test_the_summary_is_short_lines_that_say_all(name):
    edges, roles, level, _ = NAMED[name]
    verdict = identify(edges, **roles)
    text = verdict.summary()
    assert repr(verdict) == str(verdict) == text
    assert max(map(len, text.splitlines())) <= 90
    flat = " ".join(text.split())
    start = "No level" if level is None else f"Level {level} ("
    assert flat.startswith(start)
    for violation in verdict.blocked_by:
        assert str(violation) in flat
    for change in verdict.changes:
        assert f"{change.words}: level {change.level}." in flat
    assert "Ranks are never visible in a graph" in flat
    assert "Nor is overlap" in flat
    assert ("rests on your word" in flat) == (level == 1)
    assert ("Why not level" in flat) == (level != 1)
    assert verdict._repr_html_().count("<h4>") == len(verdict.tables())


def test_the_summary_leaves_out_reasons_for_which_there_is_no_room():
    long = {name: f"a_rather_long_name_of_column_{name}" for name in "UTYZX"}
    edges = [(long[a], long[b]) for a, b in (*BASE, ("Z", "T"))]
    roles = {"treatment": long["T"], "outcome": long["Y"], "latent": long["U"],
             "z": long["Z"], "x": [long["X"]]}  # fmt: skip
    table = identify(edges, **roles).summary().split("Which columns")[1].split("\n\n")[0]
    assert max(map(len, table.splitlines())) <= 90
    assert table.splitlines()[2].split()[-1] == "no"


def test_nodes_without_a_role():
    text = identify(graph(("U", "P"), ("T", "M"), ("M", "Y"))).summary()
    assert "P     -   2 3 4   2 3 4" in text
    assert "may serve as neither: M." in text


def test_pairs_for_opposite_sides_are_listed_up_to_six():
    more = [("U", f"P{i}") for i in range(8)] + [("Z", f"P{i}") for i in range(8)]
    verdict = identify(graph(*more))
    assert [pair[:2] for pair in verdict.conflicts] == [("Z", f"P{i}") for i in range(8)]
    flat = " ".join(verdict.summary().split())
    assert "Z and P5 (Z -> P5); and 2 more pairs." in flat
    fewer = " ".join(identify(graph(*more[:1], *more[8:9])).summary().split())
    assert "linked beside the class: Z and P0 (Z -> P0). " in fewer


def test_to_dict_is_plain_and_complete(tmp_path):
    verdict = identify(graph(("Z", "T"), ("W", "Z"), ("W", "X")), covariates="W")
    path = tmp_path / "out.json"
    verdict.to_json(path, command="jaxmix identify g.toml")
    record = json.loads(path.read_text())
    assert record == verdict.to_dict("jaxmix identify g.toml")
    assert record["level"] == 3
    assert record["levels"] == [3, 4]
    assert record["blocked_by"] == [{
        "assumption": "z_apart_from_t_and_y",
        "statement": "Z independent of (T, Y) given (U, C)",
        "path": "Z -> T", "reason": "Z affects T",
    }]  # fmt: skip
    assert record["edges"][0] == ["U", "Z"]
    assert {"node": "X", "role": "x", "as_z": [2, 3, 4], "as_x": [2, 3, 4], "against_z": None,
            "against_x": None} in record["candidates"]  # fmt: skip
    assert record["covariates"] == ["W"]
    assert record["fit"] == verdict.command


# -------------------------------------------------------------------------- graphs of any kind


def test_graphs_of_every_kind_give_the_same(tmp_path):
    toml = GRAPHS / "level3.toml"
    edges = [tuple(edge) for edge in tomllib.loads(toml.read_text())["edges"]]
    text = identify(toml).summary()
    dot = tmp_path / "g.gv"
    dot.write_text(
        'strict digraph "g" { U -> {Z X T Y}; subgraph { T -> Y; subgraph { "Z":n -> T } } }'
    )
    kinds = [edges, nx.DiGraph(edges), nx.MultiDiGraph(edges), str(toml), iter(edges), dot]
    kinds += [[list(edge) for edge in edges]]
    for kind in kinds:
        assert identify(kind).summary() == text


@pytest.mark.parametrize("number", [1, 2, 3, 4])
@pytest.mark.parametrize("suffix", [".toml", ".dot"])
def test_a_byte_order_mark_is_no_text(number, suffix, tmp_path):
    table = tomllib.loads((GRAPHS / f"level{number}.toml").read_text())
    text = (GRAPHS / f"level{number}.toml").read_text()
    if suffix == ".dot":
        text = "digraph {" + ";\n".join(f"{a} -> {b}" for a, b in table["edges"]) + "}"
    plain, marked = tmp_path / f"plain{suffix}", tmp_path / f"marked{suffix}"
    plain.write_text(text, encoding="utf-8")
    marked.write_text(text, encoding="utf-8-sig")
    assert identify(marked).summary() == identify(plain).summary()


def test_an_array_of_pairs_is_a_graph():
    edges = graph(("Z", "T"))
    text = identify(edges).summary()
    arrays = [np.array(edges), np.array(edges, object), np.array(edges, "S"), list(np.array(edges))]
    for kind in (*arrays, pd.DataFrame(edges), pl.DataFrame(edges, orient="row")):
        assert identify(kind).summary() == text
    whole = np.array([(0, 3), (0, 4), (0, 1), (0, 2), (1, 2)])
    for kind in (whole, whole.astype(float), whole.astype(np.uint8)):
        verdict = identify(
            kind, treatment=1, outcome=np.int64(2), latent=0.0, z=[3], x=[np.int8(4)]
        )
        assert (verdict.level, verdict.to_dict()["x"]) == (2, ["4"])
    check(lambda: identify(np.zeros((3, 3))), ["edge 1 is ", "pair (from, to)"])
    check(lambda: identify(np.array("U")), ["type ndarray", "DiGraph"])


def test_nodes_of_dot_that_are_numbers(tmp_path):
    """Also those in quotes, labels with arrows in them, and arrows in comments."""
    path = tmp_path / "g.dot"
    path.write_text(
        "digraph { // Z <-> X\n 1.5 -> {-2 .5}; 1.5->3; 1.5 -> 4 [w=-2, label=<<b>a -- b</b>>]\n"
        '# 3 -- 4\n 3->4 /* 3 <-> 4 */; 4 [label="o-> <->"]; "x <-> y" -> 4 }'
    )
    verdict = identify(path, treatment="3", outcome=4, latent=1.5, z=[-2], x=[".5"])
    assert verdict.level == 2
    assert verdict.to_dict()["edges"][:2] == [["1.5", "-2"], ["1.5", ".5"]]
    assert ["x <-> y", "4"] in verdict.to_dict()["edges"]


def test_names_need_not_be_texts():
    edges = [(0, 3), (0, 4), (0, 1), (0, 2), (1, 2)]
    verdict = identify(nx.DiGraph(edges), treatment=1, outcome=2, latent=0, z=[3], x=[4])
    assert verdict.level == 2
    assert verdict.to_dict()["z"] == ["3"]


def test_arguments_override_the_file(tmp_path):
    path = tmp_path / "g.toml"
    text = (GRAPHS / "level4.toml").read_text()
    path.write_text(text.replace('["X", "Y"]', '["X", "Y"], ["U", "X2"]') + "separable = true\n")
    assert identify(path).level == 1
    assert identify(path, separable=False).level == 4
    assert identify(path, separable=False, x=["X2"]).level == 3
    assert identify(path, separable=False, x="X2", covariates=["X"]).level == 3


def test_dot_names_nodes_and_defaults(tmp_path):
    path = tmp_path / "g.dot"
    path.write_text(
        "digraph { graph [rankdir=LR] node [shape=box]"
        ' "the \\"class\\"" [label="hidden"]; lone;\n'
        ' "the \\"class\\"" -> {Z X T Y} [color=red]; T -> Y -> W }'
    )
    verdict = identify(path, latent='the "class"')
    assert verdict.level == 2
    assert [c.node for c in verdict.candidates] == ["Z", "X", "lone", "W"]


# ---------------------------------------------------------------------------------- what is wrong

LINE = '[["U", "Z"], ["U", "X"], ["U", "T"], ["U", "Y"]]'
TOML = f'latent = "U"\ntreatment = "T"\noutcome = "Y"\nz = ["Z"]\nx = ["X"]\nedges = {LINE}\n'

WRONG_CALLS = {
    "cycle": (graph(("Y", "U")), {}, ["cycle, ", "U -> ", "in a circle", "remove or turn"]),
    "self-loop": (graph(("Z", "Z")), {}, ["Z -> Z", "to itself", "leave it out"]),
    "unknown node": (
        graph(("U", "earnings")), {"outcome": "earning"}, ["outcome is 'earning'", "'earnings'?"]),
    "nothing close": (graph(), {"x": ["quaint"]}, ["x is 'quaint'", "its nodes are U, Z, X, T, Y"]),
    "no latent": (
        [("Z", "T"), ("X", "T"), ("T", "Y")], {},
        ["no node is named as latent", "no node 'U'", "say which node is the latent"]),
    "two roles": (graph(), {"z": ["X"]}, ["'X'", "z and x", "one role"]),
    "latent as proxy": (graph(), {"z": ["U"]}, ["'U'", "latent and z", "one role"]),
    "covariate as proxy": (graph(), {"covariates": ["Z"]}, ["'Z'", "z and covariates"]),
    "twice": (graph(), {"z": ["Z", "Z"]}, ["'Z'", "z, twice", "one role"]),
    "no z": (graph(), {"z": []}, ["z is empty", "treatment-side proxy"]),
    "no x": (graph(), {"x": ()}, ["x is empty", "outcome-side proxy"]),
    "z no list": (graph(), {"z": 3}, ["z is 3", "list of nodes"]),
    "separable no boolean": (
        graph(), {"separable": "yes"}, ["separable is 'yes'", "True or False"]),
    "three ends": ([*BASE, ("U", "Z", "X")], {}, ["edge 6 is ('U', 'Z', 'X')", "pair"]),
    "a text as edge": (["UT"], {}, ["edge 1 is 'UT'", "pair"]),
    "a number as edge": ([1], {}, ["edge 1 is 1", "pair"]),
    "no edges": ([], {}, ["no node is named as latent"]),
    "undirected": (nx.Graph(list(BASE)), {}, ["undirected", "DiGraph"]),
    "an edge as a node": (
        nx.DiGraph([*BASE, ("Z", "<->")]), {}, ["called '<->'", "read as a node", "(from, to)"]),
    "an edge of two heads": (
        nx.DiGraph([*BASE, ("Z", "X", {"dir": "both"})]), {}, ["Z -> X has dir=both"]),
    "no graph": (3, {}, ["type int", "DiGraph", ".toml or .dot"]),
    "one name twice": (
        nx.DiGraph([*BASE, ("U", 1), ("U", "1")]), {}, ["both written '1'", "rename one"]),
    "a path of another kind": ("graph.txt", {}, ["'graph.txt'", ".toml, .dot or .gv"]),
    "no such file": (
        "none/graph.toml", {}, ["'none/graph.toml'", "cannot be read", "No such file"]),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_CALLS)
def test_wrong_graphs_and_roles(name):
    edges, roles, fragments = WRONG_CALLS[name]
    check(lambda: identify(edges, **roles), fragments)


def check(call, fragments):
    with pytest.raises(jm.InputError) as caught:
        call()
    line = str(caught.value)
    assert [fragment for fragment in fragments if fragment not in line] == []
    assert "\n" not in line


WRONG_FILES = {
    "no TOML": ("g.toml", "latent = \n", ["g.toml is no valid TOML", "line 1"]),
    "not UTF-8": ("g.toml", b"\xff\xfe", ["not a text file in UTF-8"]),
    "unknown key": (
        "g.toml", TOML + "laten = 'U'\n", ["line 7", "unknown key 'laten'", "'latent'?"]),
    "nothing close": ("g.toml", TOML + "[more]\n", ["line 7", "unknown key 'more'", "known are"]),
    "a number": ("g.toml", TOML.replace('"T"\no', "1\no"), ["line 2", "treatment is 1", '= "T"']),
    "a text for a list": (
        "g.toml", TOML.replace('z = ["Z"]', 'z = "Z"'), ["line 4", "z is 'Z'", 'z = ["Z"]']),
    "numbers in a list": ("g.toml", TOML.replace('["X"]\n', "[1]\n"), ["line 5", "x holds 1"]),
    "separable no boolean": (
        "g.toml", TOML + "separable = 1\n", ["line 7", "separable is 1", "separable = true"]),
    "edge with one end": (
        "g.toml", TOML.replace('["U", "X"]', '["U"]'), ["line 6", "edge 2 is ['U']", "pair"]),
    "edge of numbers": ("g.toml", TOML.replace('["U", "X"]', "[1, 2]"), ["line 6", "[1, 2]"]),
    "missing latent": (
        "g.toml", TOML.replace('latent = "U"\n', ""), ["no latent", 'add it as in latent = "U"']),
    "missing edges": ("g.toml", TOML.split("edges")[0], ["no edges", 'edges = [["U", "T"]']),
    "empty view": ("g.toml", TOML.replace('["Z"]\n', "[]\n"), ["z is empty"]),
    "no DOT": ("g.dot", "digraph {\n U -> \n}", ["g.dot, line", "no valid DOT"]),
    "empty DOT": ("g.dot", "", ["no valid DOT"]),
    "undirected DOT": ("g.dot", "graph { U -- T }", ["one directed graph"]),
    "two graphs": ("g.dot", "digraph { U -> T } digraph { U -> Y }", ["one directed graph"]),
    "two heads": ("g.dot", "digraph { U -> T [dir=both] }", ["dir=both", "from cause to effect"]),
    "backwards by default": ("g.dot", "digraph { edge [dir=back]; U -> T }", ["dir=back"]),
    "no heads by default": (
        "g.dot", "digraph { edge [arrowhead=none]; U -> T }", ["arrowhead=none"]),
    "a double arrow": (
        "g.dot", "digraph {\n U -> Z;\n Z <-> X;\n}", ["line 3", "'Z <-> X'", "hidden common"]),
    "a double arrow without blanks": ("g.dot", "digraph { Z<->X }", ["'Z <-> X'", "one directed"]),
    "a double arrow as one character": ("g.dot", "digraph { Z \u2194 X }", ["written with \u2194"]),
    "an undirected edge": ("g.dot", "digraph { U -> Z\n Z -- X }", ["line 2", "'Z -- X'", "->"]),
    "an undirected edge behind another": ("g.dot", "digraph { U -> Z -- X }", ["'Z -- X'"]),
    "a backward arrow": ("g.dot", "digraph { Z <- U }", ["'Z <- U'", "from cause to effect"]),
    "a long arrow": ("g.dot", "digraph { U --> Z }", ["'U --> Z'", "written ->"]),
    "a thick arrow": ("g.dot", "digraph { U => Z }", ["'U => Z'", "written ->"]),
    "a half-known arrow": ("g.dot", "digraph {\n Z o-> X }", ["line 2", "'Z o -> X", "semicolon"]),
    "a half-known arrow's end": ("g.dot", "digraph { Z ->o X }", ["Z -> o X'", "semicolon"]),
    "a half-known edge": ("g.dot", "digraph { Z o-o X }", ["written with -", "written ->"]),
    "a starred arrow": ("g.dot", "digraph { Z *-> X }", ["'Z *-> X'", "written ->"]),
    "another language": ("g.dot", "dag { Z -> X }", ["no valid DOT", "digraph {"]),
    "edges within braces": ("g.dot", "digraph { U -> {T -> Y} }", ["braces", "apart"]),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_FILES)
def test_wrong_files(name, tmp_path, capsys):
    file, content, fragments = WRONG_FILES[name]
    path = tmp_path / file
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    check(lambda: identify(path), fragments)
    assert capsys.readouterr() == ("", "")


def test_without_the_extra_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydot", None)
    check(
        lambda: identify(GRAPHS / "hidden_cause.dot"),
        ["pip install 'jaxmix[graph]'", "TOML"],
    )
    monkeypatch.setitem(sys.modules, "networkx", None)
    check(lambda: identify(list(BASE)), ["pip install 'jaxmix[graph]'"])


def test_violations_of_a_diagram_are_those_of_the_verdict():
    verdict = identify(graph(("Z", "X")))
    assert violations(verdict.diagram) == verdict.violations
