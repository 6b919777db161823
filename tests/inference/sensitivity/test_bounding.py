"""Sensitivity bounds against a general optimiser, exact truths and the theory of likelihood."""

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats

import jaxmix as jm
from jaxmix.inference import sensitivity
from jaxmix.inference.sensitivity import bounding, sweep
from jaxmix.inference.sensitivity.edge import FIT_SLACK, relabel
from jaxmix.model.structure import Factors
from jaxmix.report import tipping
from jaxmix.status import InputError, Status

STRENGTHS = [0.0, 0.1, 0.375, 0.5]
ROWS = 1e6  # that stand for a population
KEY = jax.random.key(0)


def edge_joint(W, B, C, edge):
    formula = "tzu,xu,txyu->tzxy" if edge == "x_to_y" else "tzu,xu,tzyu->tzxy"
    return np.einsum(formula, W, B, C)


def z_design():
    """Return W, B, C of a binary population in which Z moves Y within a class by up to 0.2."""
    shares, z = np.array([0.4, 0.6]), np.array([[0.8, 0.25], [0.2, 0.75]])
    treated = np.array([[0.6, 0.4], [0.5, 0.3]])  # (z, u)
    W = shares * z * np.stack([1 - treated, treated])
    B = np.array([[0.75, 0.2], [0.25, 0.8]])
    mean = np.array([[[0.5, 0.4], [0.6, 0.3]], [[0.3, 0.75], [0.3, 0.55]]])  # (t, z, u)
    return W, B, np.stack([1 - mean, mean], axis=2)


def numbers_of(W, B, mean, edge):
    """Return the average effect, class effects and shares of means (t, e, u), in loops."""
    k = B.shape[1]
    shares = [W[:, :, u].sum() for u in range(k)]
    effects = []
    for u in range(k):
        weights = B[:, u] if edge == "x_to_y" else W[:, :, u].sum(0) / shares[u]
        effects.append(sum(w * (mean[1, e, u] - mean[0, e, u]) for e, w in enumerate(weights)))
    return np.array([np.dot(shares, effects), *effects, *shares])


def slsqp(joint, goal, most, edge, truth, num_starts=4):
    """Minimise goal . numbers over binary mixtures with exactly these cells, by scipy."""

    def parts(v):
        W, b, mean = v[:8].reshape(2, 2, 2), v[8:10], v[10:].reshape(2, 2, 2)
        return W, np.stack([1 - b, b]), mean

    def misfit(v):
        W, B, mean = parts(v)
        return (edge_joint(W, B, np.stack([1 - mean, mean], axis=2), edge) - joint).ravel()

    def slack(v):
        change = parts(v)[2][:, 1] - parts(v)[2][:, 0]
        return np.concatenate([(most - change).ravel(), (most + change).ravel()])

    rng, best = np.random.default_rng(0), np.inf
    for _ in range(num_starts):
        start = np.clip(truth + 0.05 * rng.normal(size=18), 0.01, 0.99)
        found = scipy.optimize.minimize(
            lambda v: goal @ numbers_of(*parts(v), edge), start, method="SLSQP",
            bounds=[(1e-9, 1)] * 18, options={"maxiter": 400, "ftol": 1e-10},
            constraints=[{"type": "eq", "fun": misfit}, {"type": "ineq", "fun": slack}],
        )  # fmt: skip
        if np.abs(misfit(found.x)).max() < 1e-7 and slack(found.x).min() > -1e-7:
            best = min(best, found.fun)
    return best


@pytest.fixture(scope="module")
def paper():
    return jm.populations.paper_main(zt_strength=1.0, xy_strength=0.5)


@pytest.fixture(scope="module")
def exact(paper):
    return sensitivity.bounds(paper.moments(), 2, STRENGTHS, key=KEY)


@pytest.fixture(scope="module")
def sampled():
    """Return a table of 1e5 rows in which level 3 holds, and its bounds."""
    population = jm.populations.paper_main(zt_strength=0.5)
    cells = population.counts(jax.random.key(3), 100_000)
    return population, cells, sensitivity.bounds(cells, 2, [0.0, 0.2], key=KEY, better="lower")


@pytest.fixture(scope="module")
def z_edge():
    joint = edge_joint(*z_design(), "z_to_y")
    moments = jm.moments.of_population(jnp.asarray(joint))
    return joint, sensitivity.bounds(moments, 2, [0.0, 0.1, 0.2], key=KEY, edge="z_to_y")


def test_level_3_is_blind_in_the_symmetric_design_and_the_bounds_hold_the_truth(paper, exact):
    # Edge of strength 0.375: the level-3 fit is exact, with effects -+0.795 for -+0.5625.
    np.testing.assert_allclose(exact.level3_effects, [-0.7954951, 0.7954951], atol=1e-6)
    np.testing.assert_allclose(exact.deviance, 0.0, atol=1e-6)
    truth = np.asarray(paper.law.effects)
    outside = (exact.effects[..., 0] > truth) | (exact.effects[..., 1] < truth)
    assert outside[:2].all()
    assert not outside[2:].any()
    for share in (exact.shares, exact.share_harmed):
        assert (share[2:, ..., 0] <= 0.5).all()
        assert (share[2:, ..., 1] >= 0.5).all()
    assert all((codes == Status.SUCCESS).all() for codes in exact.statuses.values())


def test_the_average_effect_is_what_the_bridge_says_whatever_the_strength(paper, exact):
    bridge = float(jm.bridge.solve(paper.moments()).value.effect)
    # Half-widths of a likelihood region: sqrt(2 slack) standard errors, up to the tolerance.
    variance = float(paper.efficiency_bound(ROWS, level=4).ate)
    half = np.sqrt(2 * 2 * FIT_SLACK * variance)
    assert np.abs(exact.ate - bridge).max() < 1.05 * half
    # Asymmetric, and level 3 does not fit: at a strength that suffices.
    other = jm.populations.block(proxy_strength=0.75, xy_strength=0.5)
    most = float(np.ptp(np.asarray(other.y)[..., 1], axis=2).max())
    found = sensitivity.bounds(other.moments(), 2, [most + 0.01], key=KEY)
    variance = float(other.efficiency_bound(ROWS, level=4).ate)
    np.testing.assert_allclose(found.ate[0], 0.2, atol=1.1 * np.sqrt(0.04 * variance))
    assert (found.effects[0, :, 0] <= np.asarray(other.law.effects)).all()
    assert (found.effects[0, :, 1] >= np.asarray(other.law.effects)).all()


@pytest.mark.parametrize(("number", "index"), [(1, 1), (2, 3), (3, 3)])
def test_bounds_are_those_of_a_general_optimiser(paper, exact, number, index):
    joint = np.asarray(paper.joint(), float)
    W = np.einsum("u,utz->tzu", paper.shares, paper.zt)
    B, mean = np.asarray(paper.x).T, np.asarray(paper.y)[..., 1].transpose(1, 2, 0)
    truth = np.concatenate([W.ravel(), B[1], mean.ravel()])
    most = STRENGTHS[index]
    found = np.concatenate([exact.ate[:, None], exact.effects, exact.shares], axis=1)
    for sign, end in ((1, 0), (-1, 1)):
        goal = sign * np.eye(5)[number]
        expected = sign * slsqp(joint, goal, most, "x_to_y", truth)
        # The slack of the fit lets bounds go a few 1e-4 further.
        assert found[index, number, end] == pytest.approx(expected, abs=2e-3)
        assert sign * found[index, number, end] <= sign * expected + 1e-5


@pytest.mark.parametrize("number", [0, 2])
def test_an_edge_from_z_moves_the_average_effect_too(z_edge, number):
    joint, found = z_edge
    W, B, C = z_design()
    truth = np.concatenate([W.ravel(), B[1], C[:, :, 1].ravel()])
    true = numbers_of(W, B, C[:, :, 1], "z_to_y")[number]
    numbers = np.concatenate([found.ate[:, None], found.effects], axis=1)[2, number]
    assert numbers[0] <= true <= numbers[1]
    for sign, end in ((1, 0), (-1, 1)):
        expected = sign * slsqp(joint, sign * np.eye(5)[number], 0.2, "z_to_y", truth)
        # Where level 3 does not fit, its own effects stay within the running extremes.
        assert sign * numbers[end] <= sign * expected + 1e-4
    assert np.ptp(found.ate[2]) > 0.01


def test_without_an_edge_the_bounds_are_the_level_3_fit(sampled):
    population, cells, found = sampled
    fit = jm.factorization.solve(jm.moments.from_counts(cells.astype(float)), 2, key=KEY).value
    np.testing.assert_allclose(found.level3_effects, fit.effects(), atol=1e-4)
    middle = found.effects[0].mean(1)
    bound = population.efficiency_bound(1e5)
    se = np.sqrt(np.append(np.asarray(bound.effects), bound.ate))
    # Rooms of a quadratic log-likelihood: sqrt(2 slack) standard errors to either side.
    np.testing.assert_allclose(middle, fit.effects(), atol=0.02 * se[0])
    narrow, wide = (
        (np.append(np.ptp(e[0], axis=1), np.ptp(a[0])) / 2)
        for e, a in ((found.effects, found.ate), (found.effects_interval, found.ate_interval))
    )
    np.testing.assert_allclose(narrow, np.sqrt(2 * FIT_SLACK) * se, rtol=0.05)
    np.testing.assert_allclose(wide, scipy.stats.norm.ppf(0.975) * se, rtol=0.05)


def test_bounds_widen_with_the_strength_and_intervals_hold_them(exact, sampled, z_edge):
    for found in (exact, sampled[2], z_edge[1]):
        for name in ("ate", "effects", "shares", "share_harmed"):
            bounds, wide = getattr(found, name), getattr(found, f"{name}_interval")
            assert np.isfinite(bounds).all()
            for ends in (bounds, wide):
                assert (np.diff(ends[..., 0], axis=0) <= 1e-12).all()
                assert (np.diff(ends[..., 1], axis=0) >= -1e-12).all()
            assert (wide[..., 0] <= bounds[..., 0] + 1e-6).all()
            assert (wide[..., 1] >= bounds[..., 1] - 1e-6).all()


def test_lower_outcomes_may_be_the_better_ones(sampled):
    found = sampled[2]
    np.testing.assert_allclose(found.share_harmed, found.shares[:, 1], atol=1e-9)


def test_units_of_the_outcome_pass_through(paper, exact):
    values = jnp.array([5.0, -15.0])
    found = sensitivity.bounds(
        paper.joint() * ROWS, 2, [20 * 0.375], key=KEY, outcome_values=values, confidence=0.5
    )
    expected = -20 * exact.effects[2, ::-1, ::-1]
    np.testing.assert_allclose(found.effects[0], expected, atol=20 * 5e-3)
    np.testing.assert_allclose(found.shares[0], exact.shares[2, ::-1], atol=5e-3)


def test_outcomes_of_three_values_are_bounded_by_their_means():
    W, B, _ = z_design()
    law = np.array([[0.5, 0.3, 0.2], [0.2, 0.3, 0.5]])  # (u, y)
    C = np.stack([law, law[:, ::-1]]).transpose(0, 2, 1)[:, None]
    shift = np.array([-0.5, 0.5])[None, :, None, None] * np.array([-0.1, 0.0, 0.1])[:, None]
    C = C + shift  # means differ by 0.2 between values of X
    joint = edge_joint(W, B, C, "x_to_y")
    mean = np.einsum("txyu,y->txu", C, np.arange(3.0))
    truth = numbers_of(W, B, mean, "x_to_y")
    truth[1:3].sort()
    moments = jm.moments.of_population(jnp.asarray(joint))
    found = sensitivity.bounds(moments, 2, [0.2, 0.3], key=KEY, num_starts=2)
    np.testing.assert_allclose(found.ate, np.full((2, 2), truth[0]), atol=2e-3)
    assert (found.effects[:, :, 0] <= truth[1:3]).all()
    assert (found.effects[:, :, 1] >= truth[1:3]).all()
    # No weaker edge makes this table, and at its own strength this mixture alone does.
    np.testing.assert_allclose(found.effects[0], np.stack([truth[1:3]] * 2, axis=1), atol=2e-3)
    assert (np.ptp(found.effects[1], axis=1) > 0.1).all()


def problem(cells, num_starts=4):
    goals = np.eye(5)[:4]
    return sweep.Problem(cells, jnp.arange(2.0), "x_to_y", goals, num_starts)


def starts_of(paper):
    W = jnp.einsum("u,utz->tzu", paper.shares, paper.zt)
    one = Factors(W, (paper.x.T, paper.y.transpose(1, 2, 3, 0)))
    return jax.tree.map(lambda part: jnp.stack([jnp.asarray(part, float)] * 8), one)


def test_bounds_outside_of_their_limits_are_not_reported(paper):
    cells = jnp.asarray(paper.joint(), float) * 1000
    jobs, starts = np.concatenate([np.eye(5)[:4], -np.eye(5)[:4]]), starts_of(paper)
    before = sweep.Ends(np.full(8, np.inf), starts)
    # No mixture fits better than exactly: no deviance is below -1.
    found, ends = sweep.searched(problem(cells), jobs, [starts] * 4, -1.0, 0.2, before)
    assert np.isnan(found.values).all()
    assert (found.status == Status.MAX_STEPS).all()
    np.testing.assert_array_equal(ends.mixtures.gate, starts.gate)
    nothing = jax.tree.map(lambda part: part * jnp.nan, starts)
    found, _ = sweep.searched(problem(cells), jobs, [nothing] * 4, 0.01, 0.2, before)
    assert np.isnan(found.values).all()
    assert (found.status == Status.NONFINITE).all()
    found, _ = sweep.searched(problem(cells), jobs, [starts, *[nothing] * 3], 0.01, 0.2, before)
    assert (found.status == Status.STARTS_DISAGREE).all()


def test_mixtures_at_the_ends_keep_their_strength_and_fit(paper):
    cells = jnp.asarray(paper.joint(), float) * 1000
    jobs, starts = np.concatenate([np.eye(5)[:4], -np.eye(5)[:4]]), starts_of(paper)
    before = sweep.Ends(np.full(8, np.inf), starts)
    found, ends = sweep.searched(problem(cells), jobs, [starts] * 4, 0.01, 0.45, before)
    for i in range(8):
        W, B, C = (np.asarray(part[i]) for part in jax.tree.leaves(ends.mixtures))
        for total in (W.sum(), B.sum(0), C.sum(2)):
            np.testing.assert_allclose(total, 1.0, atol=1e-12)
        p = edge_joint(W, B, C, "x_to_y")
        assert scipy.stats.entropy(np.asarray(cells).ravel(), p.ravel()) * 1000 <= 0.0201
        assert np.ptp(C[:, :, 1], axis=1).max() <= 0.45 + 1e-9
        numbers = numbers_of(W, B, C[:, :, 1], "x_to_y")
        value = found.values[i % 4, i // 4]
        assert numbers[i % 4] == pytest.approx(value, abs=1e-9)


def test_relabelling_undoes_a_permutation(paper):
    one = jax.tree.map(lambda part: part[0], starts_of(paper))
    swapped = jax.tree.map(lambda part: part[None, ..., ::-1], one)
    values = jnp.array([[0.0, 1.0, 2.0, 3.0, 4.0]])
    parts, moved = relabel(swapped, values, one)
    np.testing.assert_allclose(parts.parts[1][0], one.parts[1])
    np.testing.assert_allclose(moved[0], [0.0, 2.0, 1.0, 4.0, 3.0])


def test_sets_of_classes_and_their_complements_have_one_search():
    subsets = bounding.subsets_of(3)
    assert {tuple(row) for row in subsets.tolist()} == {(1, 0, 0), (1, 1, 0), (1, 0, 1)}
    values = np.array([[0.1, 0.2], [0.4, 0.6], [0.5, 0.7]])
    status = np.array([[0, 3], [0, 0], [0, 0]])
    order = [subsets.tolist().index(row) for row in ([1, 0, 0], [1, 1, 0], [1, 0, 1])]
    values, status = values[np.argsort(order)], status[np.argsort(order)]

    def share(*members):
        return bounding.share_bounds(np.array(members, bool), subsets, values, status)

    np.testing.assert_allclose(share(1, 0, 0)[0], [0.1, 0.2])
    np.testing.assert_allclose(share(0, 0, 1)[0], [0.4, 0.6])
    np.testing.assert_allclose(share(0, 1, 1)[0], [0.8, 0.9])
    assert share(0, 1, 1)[1].tolist() == [3, 0]
    assert share(0, 0, 0)[0].tolist() == [0, 0]
    assert share(1, 1, 1)[0].tolist() == [1, 1]
    # Class 1 must be harmed, class 2 can be: between the share of the one and of both.
    effects = np.array([[-2.0, -1.0], [-0.5, 0.5], [1.0, 2.0]])
    none = np.zeros((3, 2), int)
    ends, codes = bounding.harmed_bounds(effects, none, "higher", subsets, values, status)
    np.testing.assert_allclose(ends, [0.1, 0.6])
    assert codes.tolist() == [0, 0]
    effects[1, 0] = np.nan
    none[1, 0] = Status.MAX_STEPS
    ends, codes = bounding.harmed_bounds(effects, none, "higher", subsets, values, status)
    assert ends[0] == pytest.approx(0.1)
    assert np.isnan(ends[1])
    assert codes.tolist() == [0, Status.MAX_STEPS]


def made(exact, ate):
    ate = np.array(ate)
    return dataclasses.replace(exact, strengths=np.arange(float(len(ate))), ate=ate)


def test_tipping_points_lie_between_the_strengths(exact):
    assert made(exact, [[1.0, 1.0], [0.5, 2.0], [-0.5, 2.0]]).tipping_point == 1.5
    assert made(exact, [[-3.0, -1.0], [-4.0, 1.0]]).tipping_point == 0.5
    assert made(exact, [[-1.0, 1.0], [-2.0, 2.0]]).tipping_point == 0.0
    assert made(exact, [[1.0, 1.0], [0.5, 2.0]]).tipping_point is None
    assert made(exact, [[1.0, 1.0], [np.nan, 2.0], [-1.0, 2.0]]).tipping_point == 1.0
    assert made(exact, [[np.nan, 1.0]]).tipping_point is None
    assert exact.tipping_points == (None, None)
    assert exact.interval_tipping_point == exact.tipping_point == 0.0
    assert exact.interval_tipping_points == (None, None)


def test_words_and_numbers_of_the_result(exact):
    text = exact.summary()
    assert "Bounds where X may move Y within a class" in text
    assert "class 1 beyond 0.500" in text
    assert "local search" in text
    assert str(exact) == text
    assert len(exact.table().rows) == len(STRENGTHS)
    assert exact.table("intervals").rows[0][1].startswith("[")
    plain = json.loads(json.dumps(exact.to_dict(), allow_nan=False))
    assert plain["effects"][2] == exact.effects[2].tolist()
    assert plain["statuses"]["ate"][0] == ["SUCCESS", "SUCCESS"]
    broken = made(exact, [[np.nan, 1.0]] * 4)
    codes = np.array([[Status.MAX_STEPS, Status.STARTS_DISAGREE]] * 4)
    broken = dataclasses.replace(broken, statuses=broken.statuses | {"ate": codes})
    assert broken.to_dict()["ate"][0] == [None, 1.0]
    assert "4 bounds are missing" in broken.summary()
    assert "4 bounds were met by one start only" in broken.summary()
    with pytest.raises(InputError, match="use 'bounds' or 'intervals'"):
        exact.table("both")


def test_figure_has_a_panel_for_each_effect_and_the_tipping_point(exact):
    figure = made(exact, [[1.0, 1.0], [0.5, 2.0], [-0.5, 2.0], [-0.5, np.nan]]).plot()
    assert len(figure.axes) == 3
    assert figure.axes[0].get_title() == "ATE: includes 0 from 1.5"
    assert figure.axes[1].get_title() == "class 1 (50 % at level 3)"
    lines = [line.get_xdata() for line in figure.axes[0].lines]
    assert any(len(x) == 1 and x[0] == 1.5 for x in lines)
    assert len({axes.get_ylim() for axes in figure.axes}) == 1
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["bounds", "with sampling noise, 95 %", "bounds reach 0"]
    calm = tipping.bands(
        [0.0, 1.0], [tipping.Band("$a", [[1, 1], [1, 2]], [[1, 1], [1, 2]])],
        strength="s", effect="e", title="t", confidence=0.9,
    )  # fmt: skip
    assert calm.axes[0].get_title() == "$a"
    assert len(calm.legends[0].get_texts()) == 2


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"edge": "t_to_y"}, "edge is 't_to_y': use one of x_to_y, z_to_y"),
        ({"better": "more"}, "better is 'more': use one of higher, lower"),
        ({"strengths": [0.2, 0.1]}, "use increasing numbers from 0 on"),
        ({"strengths": [-0.1]}, "use increasing numbers from 0 on"),
        ({"strengths": []}, "use increasing numbers from 0 on"),
        ({"k": 0}, "use at least one class"),
        ({"num_starts": 1}, "use at least 2"),
        ({"confidence": 1.0}, "use a number between 0 and 1"),
        ({"counts_or_moments": np.full((2, 2, 2, 2), np.nan)}, "cells that are no numbers"),
        ({"counts_or_moments": np.ones((3, 2, 2, 2))}, "compare two arms, and there are 3"),
        ({"outcome_values": [1.0, 1.0]}, "the outcome has one value only"),
    ],
)
def test_wrong_calls_are_refused_in_one_line(changed, message):
    call = {"counts_or_moments": np.ones((2, 2, 2, 2)), "k": 2, "strengths": [0.1], "key": KEY}
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        sensitivity.bounds(**(call | changed))
    assert "\n" not in str(caught.value)


def test_views_that_are_no_table_are_refused_with_the_reason(paper):
    linear = dataclasses.replace(paper.moments(), onehot_y=False)
    assert "a table of cells" in sensitivity.does_not_apply(linear)
    with pytest.raises(InputError, match="give z and x one-hot views"):
        sensitivity.bounds(linear, 2, [0.1], key=KEY)
    with pytest.raises(InputError, match="moments carry their own"):
        sensitivity.bounds(paper.moments(), 2, [0.1], key=KEY, outcome_values=[0.0, 1.0])
