"""Tests as objects: J of the bridge, its value, size and power; when there is nothing to say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmix as jm
from jaxmix.inference import specification
from jaxmix.inference.specification import SpecificationTest, overidentification
from jaxmix.inference.specification.bridge import bridge_statistic
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


def test_three_arms_pooled_equal_the_oracle():
    frame = linear_rows(np.random.default_rng(2), 800, d_z=3, d_x=1)
    frame["t"] = np.arange(800) % 3
    frame["y"] = frame["y"] + np.array([0.0, 1.0, -0.5])[frame["t"]]
    y, z, x = frame["y"], block(frame, "z"), block(frame, "x")
    w = np.column_stack([frame["t"] == arm for arm in (1, 2)]).astype(float)
    statistic, df = oracles.overidentification_j(y, np.zeros(800, int), z, x, w)
    views = jm.features.encode(causal_data(frame, control=0))
    test = overidentification(views, form="pooled")
    assert test.df == df == 2
    assert test.statistic == pytest.approx(statistic, rel=1e-7)


def test_a_rank_that_truncates_nothing_is_tested_pooled_as_well():
    frame, roles, _ = table_of(d_z=4)
    views = jm.features.encode(jm.CausalData.from_frame(frame, **roles))
    assert views.max_rank == 2
    assert overidentification(views, rank=2).df == 4
    whole, at_rank = (overidentification(views, rank=r, form="pooled") for r in (None, 2))
    assert whole.df == at_rank.df == 2
    assert at_rank.statistic == whole.statistic


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

    scaled = views.redesigned(weight=views.weight * 3.0)
    assert overidentification(scaled).statistic == pytest.approx(base.statistic, rel=1e-9)
    doubled = views.redesigned(multiplicity=jnp.full(len(views.t), 2.0))
    assert overidentification(doubled).statistic == pytest.approx(2 * base.statistic, rel=1e-9)


def table_of(key=0, n=4000, **sizes):
    """Return a table of text columns, its roles and its counts, from a population of level 3."""
    population = jm.populations.block(**sizes)
    rows = population.sample(jax.random.key(key), n)
    frame = {name: np.asarray(rows[name]).astype(int) for name in "TXYZ"}
    shape = (2, *(int(frame[name].max()) + 1 for name in "ZX"), 2)
    counts = np.zeros(shape)
    np.add.at(counts, tuple(frame[name] for name in "TZXY"), 1.0)
    frame |= {name: frame[name].astype(str) for name in "ZX"}
    roles = {"treatment": "T", "outcome": "Y", "z": ["Z"], "x": ["X"]}
    return frame, roles, counts


@pytest.mark.parametrize("estimand", ["ATE", "ATT"])
def test_the_bridge_needs_no_rows(estimand):
    # Sampling moments know the second moments of the residual: J is the same from both.
    for frame in (linear_rows(np.random.default_rng(1), 400, d_z=4, d_x=2), table_of(d_z=4)[0]):
        names = {k.lower()[0] for k in frame}
        assert names >= {"t", "z", "x", "y"}
        data = (
            causal_data(frame)
            if "t" in frame
            else jm.CausalData.from_frame(frame, treatment="T", outcome="Y", z=["Z"], x=["X"])
        )
        views = jm.features.encode(data)
        test = overidentification(views, estimand=estimand)
        moments = jm.moments.from_rows(views, covariance=True)
        found = bridge_statistic(moments, estimand=estimand)
        assert test.df == int(found.df) > 0
        assert test.statistic == pytest.approx(float(found.statistic), rel=1e-8)


def test_tables_features_moments_and_counts_are_one_to_level_4():
    frame, roles, counts = table_of(d_z=4)
    data = jm.CausalData.from_frame(frame, **roles)
    views = jm.features.encode(data)
    moments = jm.moments.from_rows(views, covariance=True)
    found = [
        specification.level_test(subject, level=4) for subject in (data, views, moments, counts)
    ]
    assert {test.df for test in found} == {4}
    np.testing.assert_allclose([test.statistic for test in found], found[0].statistic, rtol=1e-8)


def test_level_4_without_more_z_than_x_does_not_apply():
    _, _, counts = table_of()
    test = specification.level_test(counts, level=4)
    assert "fits exactly" in test.reason
    wide = jm.populations.block(d_z=4, d_x=3).counts(jax.random.key(0), 1000)
    assert "truncated at rank 2" in specification.level_test(wide, 2, level=4).reason
    assert specification.level_test(wide, 3, level=4).df == 2


def test_one_arm_of_three_binary_views_does_not_apply():
    _, _, counts = table_of()
    test = specification.level_test(counts[:1], 2, level=3)
    assert not test.applies
    assert test.statistic is None
    assert "as many free parameters as there are free moments" in test.reason
    assert not test.rejects()


def test_moments_that_are_no_table_are_tested_by_j():
    frame = linear_rows(np.random.default_rng(1), 400, d_z=1, d_x=1)
    test = specification.level_test(jm.features.encode(causal_data(frame)), 2)
    assert (test.symbol, test.df) == ("J", 2)


@pytest.mark.parametrize("name", ["level_test", "nested_test", "arms_test"])
def test_no_chi_square_for_weights_clusters_thin_tables_and_populations(name):
    test = getattr(specification, name)
    frame, roles, counts = table_of()
    weighted = frame | {"w": np.linspace(0.5, 1.5, len(frame["T"]))}
    data = jm.CausalData.from_frame(weighted, weights="w", **roles)
    assert "sampling weights" in test(data).reason
    clustered = frame | {"g": np.arange(len(frame["T"])) // 4}
    data = jm.CausalData.from_frame(clustered, cluster="g", **roles)
    assert "clustered" in test(data).reason
    assert "0.62 rows per cell" in test(counts * 10 / counts.sum()).reason
    assert "population" in test(jm.populations.block().moments()).reason


def test_ranges_take_clusters_into_their_standard_errors():
    frame, roles, counts = table_of()
    whole = specification.range_test(counts)
    rows = specification.range_test(jm.CausalData.from_frame(frame, **roles))
    assert rows.statistic == pytest.approx(whole.statistic, rel=1e-8)
    # Every row twice, in one cluster with its twin: twice the rows and no more information.
    twice = {name: np.repeat(values, 2) for name, values in frame.items()}
    twice["g"] = np.arange(len(twice["T"])) // 2
    doubled = specification.range_test(jm.CausalData.from_frame(twice, cluster="g", **roles))
    assert doubled.statistic == pytest.approx(whole.statistic, rel=1e-8)


def test_ranges_in_words():
    _, _, counts = table_of()
    test = specification.range_test(counts, method="synthetic")
    assert test.applies
    assert test.df is None
    assert test.num_checks == 8
    assert "of 8 checks" in str(test)
    assert "no proof" in str(test)
    exact = jm.populations.block().moments(covariance=True)
    assert "population" in specification.range_test(exact).reason
    flat = specification.range_test(np.ones((2, 2, 2, 2)))
    assert not flat.applies
    assert "no real effects" in flat.reason


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: specification.level_test(c, level=1), "level 1 is declared"),
        (lambda c: specification.level_test(c, 3), "at most 2 classes"),
        (lambda c: specification.level_test(c, 0), "whole number of at least 1"),
        (lambda c: specification.level_test(c, loss="l2"), "use 'kl'"),
        (lambda c: specification.level_test(c[0]), "counts by treatment, z, x and outcome"),
        (lambda c: specification.level_test(-c), "finite numbers from 0"),
        (lambda c: specification.arms_test(c[:1], loss="gmm"), "two arms or more"),
        (lambda c: specification.range_test(c, method="em"), "'spectral' or 'synthetic'"),
        (lambda c: specification.range_test(jm.moments.from_counts(c)), "covariance=True"),
        (lambda c: specification.level_test(jm.moments.from_counts(c), level=4), "covariance=True"),
    ],
)
def test_bad_calls_say_what_to_do(call, message):
    with pytest.raises(jm.InputError, match=message) as error:
        call(np.full((2, 2, 2, 2), 100.0))
    assert "\n" not in str(error.value)


def test_what_cannot_be_weighed_is_refused():
    frame = linear_rows(np.random.default_rng(0), 400, d_z=20, d_x=20)
    views = jm.features.encode(causal_data(frame))
    with pytest.raises(jm.InputError, match="1,764 moments, and 1,024 is the most"):
        specification.level_test(views)
    with pytest.raises(jm.InputError, match="needs a table of counts"):
        specification.level_test(views, loss="kl")
    frame = linear_rows(np.random.default_rng(0), 400, num_w=1)
    for subject in (causal_data(frame), jm.features.encode(causal_data(frame))):
        with pytest.raises(jm.InputError, match="covariates"):
            specification.level_test(subject)
