"""What fit adds to a result: profile intervals, tests, bounds, chosen classes, a graph."""

import json

import jax
import numpy as np
import pytest

import jaxmix as jm
from jaxmix import cli
from jaxmix.inference import profile, specification
from jaxmix.status import InputError

ROLES = {"treatment": "T", "outcome": "Y", "z": ["Z"], "x": ["X"]}
EDGES = [["U", "Z"], ["U", "X"], ["U", "T"], ["U", "Y"], ["T", "Y"]]


@pytest.fixture(scope="module")
def rows():
    return jm.populations.paper_main(zt_strength=0.5).sample(jax.random.key(0), 3000)


@pytest.fixture(scope="module")
def data(rows):
    return jm.CausalData.from_frame(rows, **ROLES)


@pytest.fixture(scope="module")
def checked(data):
    return jm.fit(data, num_classes=2, num_resamples=40)


def counts(rows):
    table = np.zeros((2, 2, 2, 2))
    np.add.at(table, tuple(np.asarray(rows[name]).astype(int) for name in "TZXY"), 1)
    return table


def test_intervals_of_a_likelihood_fit_are_those_of_the_profile(checked, rows):
    moments = jm.moments.from_counts(counts(rows))
    solution = jm.factorization.solve(moments, 2, key=jax.random.key(5))
    found = profile.intervals(moments, 2, solution.stats["start"])
    beside = checked.conditional
    assert beside.diagnostics.interval == "profile"
    assert checked.diagnostics.interval == "percentile"
    np.testing.assert_allclose(beside.law_interval.effects, found.effects, atol=1e-4)
    np.testing.assert_allclose(beside.ate.interval, found.effect, atol=1e-4)
    np.testing.assert_allclose(checked.spread.interval, found.spread, atol=1e-4)
    assert beside.ate.se > 0
    # The harmed class is the first: its share's interval, projected.
    assert checked.share_harmed.interval == pytest.approx(found.shares[0].tolist(), abs=1e-4)
    assert checked.cdf(0.0).interval == checked.share_harmed.interval
    assert checked.quantile(0.1).interval == pytest.approx(found.effects[0].tolist(), abs=1e-4)
    assert checked.bands.groups == ((0,), (1,))


def test_tests_are_those_of_the_specification_module(checked, rows):
    tests = checked.tests
    assert tests is checked.conditional.diagnostics.tests
    assert set(tests) == {"arms", "range"}
    alone = specification.arms_test(counts(rows), 2)
    assert tests["arms"].df == alone.df == 2
    assert tests["arms"].p_value == pytest.approx(alone.p_value, abs=1e-3)
    diagnostics = checked.conditional.diagnostics
    assert diagnostics.complex_spectra == 0
    spectral = jm.spectral.solve(jm.moments.from_counts(counts(rows)), 2).stats
    assert diagnostics.gap == pytest.approx(float(spectral["gap"]), rel=1e-6)
    assert diagnostics.condition == pytest.approx(float(spectral["condition"]), rel=1e-6)


def test_bounds_stand_beside_a_level_3_answer(checked):
    bounds = checked.sensitivity
    assert bounds.edge == "x_to_y"
    np.testing.assert_allclose(bounds.strengths, [0, 0.05, 0.1, 0.2, 0.4])
    # Without an edge they are the estimate; its intervals are the profile's, found another way.
    np.testing.assert_allclose(bounds.effects_interval[0], checked.law_interval.effects, atol=4e-3)
    np.testing.assert_allclose(bounds.ate_interval[0], checked.conditional.ate.interval, atol=4e-3)
    assert (bounds.effects[:, :, 0] <= checked.law.effects + 1e-9).all()
    words = checked.summary()
    assert "Bounds where X may move Y within a class" in words
    assert "Equal classes across arms" in words


def test_checks_can_be_left_out(data):
    result = jm.fit(data, num_classes=2, num_resamples=0, checks=False)
    assert result.sensitivity is None
    assert result.tests == result.conditional.diagnostics.tests == {}
    assert result.influential == ()
    assert "left out (checks, --no-checks)" in result.untested
    assert "Sensitivity" not in result.summary()


def test_level_2_is_tested_inside_level_3(data):
    result = jm.fit(data, level=2, num_classes=2, num_resamples=0)
    test = result.diagnostics.tests["z_to_t"]
    assert test.df == 2
    assert test.rejects()
    assert "level 3's bounds" in result.untested


def test_bounds_that_do_not_apply_say_why(rows):
    weighted = dict(rows) | {"w": np.linspace(0.5, 1.5, len(rows["T"]))}
    data = jm.CausalData.from_frame(weighted, **ROLES, weights="w")
    result = jm.fit(data, level=3, num_classes=2, num_resamples=0)
    assert result.sensitivity is None
    assert "random sample" in result.untested
    assert "Does not apply: sensitivity bounds are for a random sample" in " ".join(
        result.summary().split()
    )
    assert not result.diagnostics.tests["arms"].applies
    assert result.diagnostics.interval == "normal"


def test_number_of_classes_chosen(data):
    result = jm.fit(data, level=3, num_classes="auto", num_resamples=0, checks=False)
    assert result.num_classes == result.selection.recommended == 2
    assert "* recommended" in result.summary()
    record = result.to_dict()
    assert record["selection"]["recommended"] == 2
    json.dumps(record)


def graph(tmp_path, *extra):
    path = tmp_path / "graph.toml"
    edges = json.dumps([*EDGES, *extra])
    path.write_text(
        f'latent = "U"\ntreatment = "T"\noutcome = "Y"\nz = ["Z"]\nx = ["X"]\nedges = {edges}\n'
    )
    return path


def test_a_graph_declares_the_level(data, tmp_path):
    result = jm.fit(
        data, graph=graph(tmp_path, ["Z", "T"]), num_classes=2, num_resamples=0, checks=False
    )
    assert (result.level, result.conditional) == (3, None)
    assert result.verdict.level == 3
    weaker = jm.fit(data, graph=graph(tmp_path, ["X", "Y"]), num_classes=2, num_resamples=0)
    assert (weaker.level, weaker.law) == (4, None)
    assert "The graph supports level 4" in " ".join(weaker.summary().split())


def test_a_graph_refuses_what_it_does_not_support(data, tmp_path):
    with pytest.raises(InputError, match=r"level \(--level\) is 3, but the graph supports level 4"):
        jm.fit(data, graph=graph(tmp_path, ["X", "Y"]), level=3, num_classes=2)
    with pytest.raises(InputError, match="the graph supports no level that can be fitted"):
        jm.fit(data, graph=graph(tmp_path, ["Z", "Y"]))
    with pytest.raises(InputError, match="level 2 needs a number of classes"):
        jm.fit(data, graph=graph(tmp_path))


def test_law_functions_need_a_law(data):
    result = jm.fit(data, level=4, num_resamples=0)
    with pytest.raises(InputError, match="there is no effect law"):
        result.cdf(0.0)
    with pytest.raises(InputError, match=r"level is 0: give a number above 0"):
        result.quantile(0)


def test_classes_that_are_not_resolved_are_read_as_one():
    population = jm.populations.block(
        num_classes=3, d_z=3, d_x=3, effects=[-0.4, 0.3, 0.3], zt_strength=0.5
    )
    rows = population.sample(jax.random.key(3), 4000)
    data = jm.CausalData.from_frame(rows, **ROLES, features="onehot")
    result = jm.fit(data, level=3, num_classes=3, num_resamples=0, checks=False)
    assert result.bands.groups == ((0,), (1, 2))
    words = " ".join(result.summary().split())
    assert "Classes 2 and 3 are not resolved: the intervals of their effects overlap." in words
    assert result.to_dict()["unresolved_classes"] == [[2, 3]]


def test_the_command_draws_the_bounds(rows, tmp_path, capsys):
    path, out, picture = tmp_path / "rows.csv", tmp_path / "out.json", tmp_path / "bounds.png"
    names = list("TZXY")
    lines = [",".join(names)]
    lines += [
        ",".join(str(int(v)) for v in row) for row in zip(*(rows[n] for n in names), strict=True)
    ]
    path.write_text("\n".join(lines))
    call = ["fit", str(path), "--treatment", "T", "--outcome", "Y", "--z", "Z", "--x", "X"]
    more = ["--classes", "2", "--resamples", "40", "--json", str(out)]
    assert cli.run([*call, *more, "--sensitivity-plot", str(picture)]) == 0
    assert picture.stat().st_size > 10_000
    saved = json.loads(out.read_text())
    assert saved["sensitivity"]["edge"] == "x_to_y"
    assert saved["spread"]["interval"][0] < saved["spread"]["value"]
    capsys.readouterr()
    wrong = [*call, "--level", "4", "--sensitivity-plot", str(picture)]
    assert cli.run(wrong) == 2
    assert "--sensitivity-plot draws bounds that come with" in capsys.readouterr().err
