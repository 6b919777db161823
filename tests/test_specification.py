"""Hansen's J of the bridge: its value, its size, its power, and when it has nothing to say."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmix as jm
from jaxmix.inference.specification import SpecificationTest, overidentification
from tests import oracles
from tests.helpers import block, causal_data, linear_rows


def encoded(seed=0, n=800, **sizes):
    frame = linear_rows(np.random.default_rng(seed), n, **sizes)
    return frame, jm.features.encode(causal_data(frame))


@pytest.mark.parametrize("sizes", [{"d_z": 4, "d_x": 2}, {"d_z": 3, "d_x": 1, "num_w": 2}])
@pytest.mark.parametrize("form", ["by_arm", "pooled"])
def test_statistic_equals_the_oracle(sizes, form):
    frame, views = encoded(**sizes)
    w = block(frame, "w") if "w0" in frame else None
    y, t, z, x = frame["y"], frame["t"].astype(int), block(frame, "z"), block(frame, "x")
    if form == "pooled":
        # One arm in which treatment is a covariate.
        w = t[:, None].astype(float) if w is None else np.column_stack([t, w])
        statistic, df = oracles.overidentification_j(y, np.zeros_like(t), z, x, w)
    else:
        statistic, df = oracles.overidentification_j(y, t, z, x, w)
    test = overidentification(views, form=form)
    assert test.applies
    assert test.df == df == (1 if form == "pooled" else 2) * (sizes["d_z"] - sizes["d_x"])
    assert test.statistic == pytest.approx(statistic, rel=1e-7)
    assert test.p_value == pytest.approx(float(jax.scipy.stats.chi2.sf(statistic, df)), rel=1e-7)


def test_the_effect_on_the_treated_rests_on_the_control_arm_alone():
    _, views = encoded(d_z=4)
    assert overidentification(views, estimand="ATT").df == 2
    assert overidentification(views).df == 4


def test_size_under_the_null_and_power_against_an_invalid_proxy():
    rejected = {0.0: [], 1.0: []}
    for seed in range(200):
        frame, _ = encoded(seed, n=500, d_z=3, d_x=1)
        for strength, found in rejected.items():
            moved = frame | {"y": frame["y"] + strength * frame["z2"]}
            views = jm.features.encode(causal_data(moved))
            found.append(overidentification(views).rejects())
    # 200 tests at 5 %: between 1 and 9 % is within 2.6 standard errors.
    assert 0.01 <= np.mean(rejected[0.0]) <= 0.09
    assert np.mean(rejected[1.0]) > 0.9


@pytest.mark.parametrize(
    ("options", "sizes", "reason"),
    [
        ({}, {"d_z": 2, "d_x": 2}, "z has no more features (3) than x (3)"),
        ({"rank": 2}, {"d_z": 4, "d_x": 2}, "truncated at rank 2"),
        ({"form": "pooled"}, {"d_z": 1, "d_x": 1, "num_w": 1}, "fits exactly"),
    ],
)
def test_what_cannot_be_tested_says_why(options, sizes, reason):
    _, views = encoded(**sizes)
    test = overidentification(views, **options)
    assert not test.applies
    assert test.statistic is test.df is test.p_value is None
    assert reason in test.reason
    assert not test.rejects()
    assert str(test) == f"does not apply: {test.reason}"


def test_clusters_are_out_of_its_reach():
    frame = linear_rows(np.random.default_rng(0), 400, d_z=3, d_x=1)
    frame["g"] = np.arange(400) // 4
    test = overidentification(jm.features.encode(causal_data(frame, cluster="g")))
    assert "clustered" in test.reason


def test_no_restriction_left_at_the_numerical_rank():
    # z has three levels, but an arm lacks one: nothing is over in either.
    rng = np.random.default_rng(3)
    u = rng.integers(0, 2, 4000)
    t = (rng.uniform(size=4000) < 0.3 + 0.4 * u).astype(int)
    z = np.where(
        t == 1, u ^ (rng.uniform(size=4000) < 0.2), 2 - 2 * (u ^ (rng.uniform(size=4000) < 0.2))
    )
    x = u ^ (rng.uniform(size=4000) < 0.2)
    y = u + t + rng.normal(size=4000)
    data = causal_data({"t": t, "y": y, "z": z.astype(str), "x": x.astype(str)})
    test = overidentification(jm.features.encode(data))
    assert not test.applies
    assert "numerical rank" in test.reason


def test_an_outcome_that_is_fitted_to_rounding_is_not_tested():
    frame = linear_rows(np.random.default_rng(0), 400, d_z=3, d_x=1)
    frame["y"] = frame["t"] + frame["x0"]
    test = overidentification(jm.features.encode(causal_data(frame)))
    assert not test.applies


def test_words_never_call_a_test_that_does_not_reject_a_proof():
    passed = SpecificationTest(True, "null", 1.0, 2, 0.6)
    assert not passed.rejects()
    assert "no proof" in str(passed)
    failed = SpecificationTest(True, "null", 20.0, 2, 4e-5)
    assert failed.rejects()
    assert "rejected" in str(failed)
    assert not failed.rejects(1e-6)


def test_sampling_weights_enter_the_weight_of_the_test():
    # Weights that are a constant change nothing; multiplicities of two double J.
    _, views = encoded(d_z=4)
    base = overidentification(views)

    scaled = dataclasses.replace(views, weight=views.weight * 3.0)
    assert overidentification(scaled).statistic == pytest.approx(base.statistic, rel=1e-9)
    doubled = dataclasses.replace(views, multiplicity=jnp.full(len(views.t), 2.0))
    assert overidentification(doubled).statistic == pytest.approx(2 * base.statistic, rel=1e-9)
