"""Level 4 against regressions on rows, exact populations, and published numbers."""

import csv

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmix as jm
from jaxmix import Status
from tests import oracles
from tests.helpers import (
    POPULATIONS,
    block,
    causal_data,
    exact_moments,
    linear_rows,
    population,
    shared_data,
)


def rows(seed=0, n=800, **sizes):
    frame = linear_rows(np.random.default_rng(seed), n, **sizes)
    return frame, jm.moments.from_rows(jm.features.encode(causal_data(frame)))


def arrays(frame):
    w = block(frame, "w") if "w0" in frame else None
    return frame["y"], frame["t"].astype(int), block(frame, "z"), block(frame, "x"), w


SIZES = [
    {"d_z": 2, "d_x": 2},
    {"d_z": 4, "d_x": 2},
    {"d_z": 2, "d_x": 2, "num_w": 3},
    {"d_z": 3, "d_x": 1, "num_w": 2},
]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("estimand", ["ATE", "ATT"])
def test_by_arm_equals_two_stage_least_squares_on_rows(sizes, estimand):
    frame, moments = rows(**sizes)
    value, means, _ = oracles.bridge_by_arm(*arrays(frame), estimand=estimand)
    solution = jm.bridge.solve(moments, estimand=estimand)
    assert solution.status == Status.SUCCESS
    np.testing.assert_allclose(solution.value.effect, value, rtol=1e-8)
    np.testing.assert_allclose(solution.value.means, means, rtol=1e-8)


@pytest.mark.parametrize("sizes", SIZES)
def test_pooled_equals_proximal_two_stage_least_squares_on_rows(sizes):
    frame, moments = rows(**sizes)
    value, _ = oracles.bridge_pooled(*arrays(frame))
    solution = jm.bridge.solve(moments, form="pooled")
    np.testing.assert_allclose(solution.value.effect, value, rtol=1e-8)
    np.testing.assert_allclose(jnp.diff(solution.value.means)[0], value, rtol=1e-8)


@pytest.mark.parametrize("shape", POPULATIONS, ids=lambda s: "-".join(map(str, s)))
def test_exact_moments_give_exact_potential_means(shape):
    drawn, k = population(*shape), shape[1]
    moments = exact_moments(drawn)
    np.testing.assert_allclose(
        jm.bridge.potential_means(moments, k), drawn.potential_means(), atol=1e-8
    )
    solution = jm.bridge.solve(moments, rank=k, estimand="ATT")
    np.testing.assert_allclose(solution.value.effect, drawn.att(), atol=1e-8)


@pytest.mark.parametrize("xy_strength", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("zt_strength", [0.0, 1.0])
def test_level_4_survives_an_edge_from_x_to_y_and_level_3_does_not(zt_strength, xy_strength):
    drawn = jm.populations.paper_main(zt_strength, xy_strength)
    moments = drawn.moments()
    for estimand, truth in (("ATE", drawn.ate), ("ATT", drawn.att)):
        solution = jm.bridge.solve(moments, rank=2, estimand=estimand)
        np.testing.assert_allclose(solution.value.effect, truth, atol=1e-10)
    law = jm.spectral.effect_law(moments, 2)
    wrong = float(jnp.abs(law.effects - drawn.law.effects).max())
    assert wrong < 1e-8 if xy_strength == 0 else wrong > 0.05


def test_truncation_at_the_rank_of_the_truth_beats_none():
    # Four levels for two classes: the untruncated bridge divides by noise.
    drawn = population("strong", 2, 4, 4)
    rng = np.random.default_rng(0)
    tables = np.stack([drawn.counts(rng, 5000) for _ in range(200)])

    def error(rank):
        def one(cells):
            moments = jm.moments.from_counts(cells)
            return jm.bridge.solve(moments, rank=rank).value.effect

        return np.abs(jax.vmap(one)(jnp.asarray(tables, float)) - drawn.ate())

    assert np.median(error(2)) < 0.5 * np.median(error(4))


@pytest.mark.parametrize("form", ["by_arm", "pooled"])
@pytest.mark.parametrize("rank", [None, 2])
def test_the_bridge_follows_shifts_and_scales_of_the_outcome(form, rank):
    drawn = population("strong", 2, 4, 4)
    cells = jnp.asarray(drawn.counts(np.random.default_rng(6), 5000), float)
    plain, moved = (
        jm.bridge.solve(jm.moments.from_counts(cells, values), rank=rank, form=form).value
        for values in (jnp.array([0.0, 1.0]), jnp.array([100.0, 103.0]))
    )
    np.testing.assert_allclose(moved.effect, 3 * plain.effect, rtol=1e-8)
    np.testing.assert_allclose(moved.means, 100 + 3 * plain.means, rtol=1e-8)


def test_the_truncated_bridge_is_the_first_synthetic_moment():
    drawn = population("strong", 2, 4, 4)
    moments = jm.moments.from_counts(
        jnp.asarray(drawn.counts(np.random.default_rng(7), 5000), float)
    )
    effect = jm.bridge.solve(moments, rank=2).value.effect
    np.testing.assert_allclose(jm.synthetic.effect_moments(moments, 2, 1)[1], effect, rtol=1e-8)


def test_a_category_of_x_that_an_arm_lacks_leaves_no_number():
    drawn = population("strong", 3, 3, 3)
    cells = drawn.counts(np.random.default_rng(1), 20_000)
    cells[1, :, 2] = 0
    moments = jm.moments.from_counts(jnp.asarray(cells, float))
    for form in ("by_arm", "pooled"):
        expected = Status.RANK_DEFICIENT if form == "by_arm" else Status.SUCCESS
        assert jm.bridge.solve(moments, form=form).status == expected
    # The control arm has the category, and is all that the effect on the treated needs.
    assert jm.bridge.solve(moments, estimand="ATT").status == Status.SUCCESS


def test_an_empty_arm_leaves_no_number():
    cells = np.array(jm.populations.paper_main().joint())
    cells[1] = 0.0
    moments = jm.moments.from_counts(jnp.asarray(cells))
    for form in ("by_arm", "pooled"):
        assert not Status(int(jm.bridge.solve(moments, form=form).status)).usable


def test_moments_short_of_rank_still_determine_what_they_reach():
    # Exact moments of two classes on four levels: rank 2, and nothing is asked of the rest.
    drawn = population("strong", 2, 4, 4)
    solution = jm.bridge.solve(exact_moments(drawn))
    assert solution.status == Status.SUCCESS
    np.testing.assert_allclose(solution.value.effect, drawn.ate(), atol=1e-8)


def test_covariates_are_partialled_out_before_truncation():
    frame, moments = rows(d_z=2, d_x=2, num_w=3)
    y, t, z, x, w = arrays(frame)
    common = np.column_stack([np.ones(len(y)), w])
    alpha, scale = [], (x.std(0), z.std(0))
    for arm in (0, 1):
        here = t == arm
        zx = [
            (a[here] / s) - common[here] @ np.linalg.lstsq(common[here], a[here] / s, rcond=None)[0]
            for a, s in ((z, scale[1]), (x, scale[0]))
        ]
        u, s, vt = np.linalg.svd(zx[0].T @ zx[1])
        slope = vt[0] * (u[:, 0] @ (zx[0].T @ y[here])) / s[0] / scale[0]
        rest = np.linalg.lstsq(common[here], y[here] - x[here] @ slope, rcond=None)[0]
        alpha.append((common @ rest + x @ slope).mean())
    # Rank 2 is the constant and one direction of the proxies, beside the covariates.
    solution = jm.bridge.solve(moments, rank=2)
    np.testing.assert_allclose(solution.value.means, alpha, rtol=1e-8)


def test_a_missing_rank_is_a_status():
    joint = np.einsum("t,z,x,y->tzxy", [0.5, 0.5], [0.3, 0.7], [0.4, 0.6], [0.5, 0.5])
    moments = jm.moments.of_population(jnp.asarray(joint))
    assert jm.bridge.solve(moments, rank=2).status == Status.RANK_DEFICIENT
    assert jm.bridge.solve(moments, rank=1).status == Status.SUCCESS


def test_a_category_of_z_that_an_arm_lacks_does_no_harm():
    drawn = population("strong", 2, 4, 2)
    cells = drawn.counts(np.random.default_rng(1), 20_000)
    cells[1, 3] = 0
    solution = jm.bridge.solve(jm.moments.from_counts(jnp.asarray(cells, float)))
    assert solution.status == Status.SUCCESS
    assert abs(float(solution.value.effect) - drawn.ate()) < 0.2


def test_wrong_options_are_refused():
    moments = jm.populations.paper_main().moments()
    with pytest.raises(ValueError, match="by_arm"):
        jm.bridge.solve(moments, form="pooled", estimand="ATT")
    with pytest.raises(ValueError, match="use 'by_arm' or 'pooled'"):
        jm.bridge.solve(moments, form="joint")


def test_right_heart_catheterization_as_published():
    """Pooled bridge on survival days: -1.993 (0.514), interval -3.001 to -0.985."""
    with shared_data("rhc.csv").open() as file:
        records = list(csv.DictReader(file))
    frame = {name: np.array([float(r[name]) for r in records]) for name in records[0]}
    taken = {"RHC", "pafi1", "paco21", "ph1", "hema1", "Y30", "t3d30", "survival"}
    covariates = [name for name in frame if name not in taken]
    assert len(covariates) == 68
    data = jm.CausalData.from_frame(
        frame,
        treatment="RHC",
        outcome="Y30",
        z=["pafi1", "paco21"],
        x=["ph1", "hema1"],
        covariates=covariates,
    )
    result = jm.fit(data, level=4, bridge="pooled", num_resamples=0)
    assert result.ate.value == pytest.approx(-1.9931, abs=5e-5)
    assert result.ate.se == pytest.approx(0.5142, abs=5e-5)
    assert result.ate.interval == pytest.approx((-3.001, -0.985), abs=5e-4)
    assert result.naive.value == pytest.approx(
        frame["Y30"][frame["RHC"] == 1].mean() - frame["Y30"][frame["RHC"] == 0].mean()
    )
    assert "neither ATE nor ATT" in " ".join(result.summary().split())
