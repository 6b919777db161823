"""The whole way from data to result: which level, which numbers, which warnings."""

import dataclasses
import json

import jax
import numpy as np
import pytest

import jaxmix as jm
from jaxmix import InputError, Status
from jaxmix.fitting.run import why_withdrawn
from tests import oracles
from tests.helpers import block, causal_data, linear_rows, population

ROLES = {"treatment": "T", "outcome": "Y", "z": ["Z"], "x": ["X"]}


def paper_data(n=4000, seed=0, zt=0.5, xy=0.0, **more):
    rows = jm.populations.paper_main(zt, xy).sample(jax.random.key(seed), n)
    rows = {name: np.asarray(values) for name, values in rows.items()}
    return jm.CausalData.from_frame(rows | more.pop("extra", {}), **(ROLES | more))


@pytest.fixture(scope="module")
def data():
    return paper_data()


@pytest.fixture(scope="module")
def auto(data):
    return jm.fit(data, num_classes=2, checks=False, num_resamples=200)


def test_headline_is_level_4_and_level_3_stands_beside_it(data, auto):
    assert (auto.level, auto.method, auto.num_classes) == (4, "bridge", 2)
    assert auto.conditional.level == 3
    assert auto.conditional.method == "factorization"
    assert auto.law is auto.conditional.law
    alone = jm.fit(data, level=4, num_resamples=0)
    assert alone.ate.value == pytest.approx(auto.ate.value, rel=1e-10)
    assert alone.law is alone.share_harmed is alone.conditional is None
    assert "conditional on X not affecting Y" in auto.summary()


def test_numbers_are_those_of_the_pure_functions(data, auto):
    views = jm.features.encode(data)
    moments = jm.moments.from_rows(views)
    np.testing.assert_allclose(
        [e.value for e in auto.potential_means.values()], jm.bridge.potential_means(moments, 2)
    )
    law = jm.factorization.effect_law(moments, 2, key=jax.random.key(0))
    np.testing.assert_allclose(auto.law.effects, law.effects, rtol=1e-8)
    assert auto.conditional.ate.value == pytest.approx(float(law.mean), rel=1e-8)
    y, t = (np.asarray(a) for a in (data.outcome.values, data.t))
    assert auto.naive.value == pytest.approx(y[t == 1].mean() - y[t == 0].mean())


@pytest.mark.parametrize("method", ["synthetic", "spectral", "factorization"])
def test_level_3_on_its_own(data, method):
    result = jm.fit(data, level=3, num_classes=2, checks=False, method=method, num_resamples=200)
    assert (result.level, result.method, result.status) == (3, method, Status.SUCCESS)
    for effect, truth, (lower, upper) in zip(
        result.law.effects, [-0.75, 0.75], result.law_interval.effects, strict=True
    ):
        assert abs(effect - truth) < 0.15
        assert lower < effect < upper
    assert result.share_harmed.value == pytest.approx(float(result.law.shares[0]))
    assert result.law_se.shares.shape == (2,)


def test_influence_and_bootstrap_agree(data, auto):
    quick = jm.fit(data, num_classes=2, checks=False, num_resamples=0)
    assert quick.diagnostics.num_resamples == 0
    for name in ("ate", "naive"):
        assert getattr(quick, name).se == pytest.approx(getattr(auto, name).se, rel=0.2)
        value, se, (lower, upper) = getattr(quick, name)
        assert (upper - value, value - lower) == pytest.approx(
            (1.95996 * se, 1.95996 * se), rel=1e-4
        )
    np.testing.assert_allclose(quick.law_se.effects, auto.law_se.effects, rtol=0.25)
    # A step function of the law has no derivative to take a standard error from.
    assert quick.share_harmed.se is None


def test_reduced_rows_give_the_same_result_as_all_rows(data, monkeypatch):
    reduced = jm.fit(data, num_classes=2, checks=False, num_resamples=0)
    monkeypatch.setattr("jaxmix.sample.features.distinct", lambda d: d)
    whole = jm.fit(data, num_classes=2, checks=False, num_resamples=0)
    assert reduced.num_rows == whole.num_rows == 4000
    assert reduced.ate.value == pytest.approx(whole.ate.value, rel=1e-9)
    assert reduced.ate.se == pytest.approx(whole.ate.se, rel=1e-9)
    np.testing.assert_allclose(reduced.law_se.effects, whole.law_se.effects, rtol=1e-8)


def test_seeds_repeat_and_differ(data, auto):
    again = jm.fit(data, num_classes=2, checks=False, num_resamples=200)
    assert again.to_dict() == auto.to_dict()
    other = jm.fit(data, num_classes=2, checks=False, num_resamples=200, seed=1)
    assert other.ate.value == auto.ate.value
    assert other.ate.se != auto.ate.se


def test_resampling_kinds(data):
    kinds = {None: "multinomial", "poisson": "poisson", "bayesian": "bayesian"}
    errors = []
    for asked, used in kinds.items():
        result = jm.fit(data, num_resamples=400, resampling=asked)
        assert result.diagnostics.resampling == used
        errors.append(result.ate.se)
    np.testing.assert_allclose(errors, errors[0], rtol=0.25)
    assert len(set(errors)) == 3
    continuous = causal_data(linear_rows(np.random.default_rng(0), 300))
    assert jm.fit(continuous, num_resamples=20).diagnostics.resampling == "bayesian"


def test_normal_and_percentile_intervals(data):
    normal = jm.fit(data, num_resamples=200, interval="normal", confidence=0.9)
    value, se, (lower, upper) = normal.ate
    assert (upper - lower) / (2 * se) == pytest.approx(1.64485, rel=1e-4)
    assert (upper + lower) / 2 == pytest.approx(value)
    percentile = jm.fit(data, num_resamples=200, confidence=0.9)
    assert percentile.ate.se == se
    assert percentile.ate.interval != (lower, upper)


def test_the_treated(data):
    result = jm.fit(data, num_classes=2, checks=False, estimand="ATT", num_resamples=0)
    truth = jm.populations.paper_main(0.5)
    assert result.ate.value == pytest.approx(float(truth.att), abs=4 * result.ate.se)
    # The treated arm's mean is observed, so the class table and the mean share it.
    y, t = np.asarray(data.outcome.values), np.asarray(data.t)
    assert result.potential_means["1"].value == pytest.approx(y[t == 1].mean())
    shares = truth.treated_law.shares
    np.testing.assert_allclose(result.law.shares, shares, atol=4 * result.law_se.shares.max())


def test_covariates_and_pooled_bridge_against_regression_on_rows():
    frame = linear_rows(np.random.default_rng(1), 900, num_w=2)
    data = causal_data(frame)
    args = (
        frame["y"],
        frame["t"].astype(int),
        block(frame, "z"),
        block(frame, "x"),
        block(frame, "w"),
    )
    value, means, se = oracles.bridge_by_arm(*args)
    result = jm.fit(data, num_resamples=0)
    assert result.ate[:2] == pytest.approx((value, se), rel=1e-7)
    assert [e.value for e in result.potential_means.values()] == pytest.approx(means, rel=1e-7)
    value, se = oracles.bridge_pooled(*args)
    pooled = jm.fit(data, bridge="pooled", num_resamples=0)
    assert pooled.ate[:2] == pytest.approx((value, se), rel=1e-7)
    assert "neither ATE nor ATT" in " ".join(pooled.summary().split())
    assert list(pooled.diagnostics.singular_values) == ["all"]


def test_better_turns_the_share_harmed(data):
    higher, lower = (
        jm.fit(
            data, level=3, num_classes=2, checks=False, num_resamples=0, better=b
        ).share_harmed.value
        for b in ("higher", "lower")
    )
    assert higher + lower == pytest.approx(1.0)
    assert higher != lower


def test_outcome_units_are_the_users():
    rows = jm.populations.paper_main(0.5).sample(jax.random.key(0), 4000)
    rows = {name: np.asarray(values) for name, values in rows.items()}
    dollars = rows | {"Y": 1000 * rows["Y"] + 500}
    plain, scaled = (
        jm.fit(jm.CausalData.from_frame(r, **ROLES), num_classes=2, checks=False, num_resamples=20)
        for r in (rows, dollars)
    )
    assert scaled.ate.se == pytest.approx(1000 * plain.ate.se, rel=1e-6)
    np.testing.assert_allclose(scaled.law.effects, 1000 * plain.law.effects, rtol=1e-6)
    np.testing.assert_allclose(
        scaled.law_interval.effects, 1000 * plain.law_interval.effects, rtol=1e-6
    )


def test_sampling_weights_and_frequency_weights():
    times = np.random.default_rng(0).integers(1, 4, 4000).astype(float)
    frequency = paper_data(extra={"w": times}, weights="w", weights_kind="frequency")
    sampling = paper_data(extra={"w": 7 * times}, weights="w")
    a, b = (jm.fit(d, num_classes=2, checks=False, num_resamples=0) for d in (frequency, sampling))
    # One estimate; but counts are more rows, while weights are the same rows.
    assert a.ate.value == pytest.approx(b.ate.value, rel=1e-9)
    assert a.num_rows == times.sum()
    assert b.num_rows == 4000
    assert a.ate.se < 0.85 * b.ate.se


def test_clusters_widen_the_intervals():
    rows = jm.populations.paper_main(0.5).sample(jax.random.key(0), 1000)
    copies = {name: np.repeat(np.asarray(values), 4) for name, values in rows.items()}
    copies["g"] = np.repeat(np.arange(1000), 4)
    single = jm.fit(jm.CausalData.from_frame(copies, **ROLES), num_resamples=300)
    whole = jm.fit(jm.CausalData.from_frame(copies, **ROLES, cluster="g"), num_resamples=300)
    assert whole.ate.se == pytest.approx(2 * single.ate.se, rel=0.25)


def test_weak_proxies_are_said_aloud():
    rng = np.random.default_rng(0)
    u = rng.integers(0, 2, 2000)
    frame = {
        "T": (rng.uniform(size=2000) < 0.3 + 0.4 * u).astype(int),
        "Z": (rng.uniform(size=2000) < 0.48 + 0.04 * u).astype(int),
        "X": (rng.uniform(size=2000) < 0.45 + 0.1 * u).astype(int),
    }
    frame["Y"] = u + frame["T"] + rng.normal(size=2000)
    result = jm.fit(jm.CausalData.from_frame(frame, **ROLES), num_resamples=0)
    assert min(result.diagnostics.proxy_strength.values()) < 10
    assert result.status in (Status.WEAK_PROXIES, Status.OUT_OF_RANGE)
    assert "weak" in result.summary()


def test_strong_proxies_are_not_called_weak(auto):
    assert auto.status == Status.SUCCESS
    assert min(auto.diagnostics.proxy_strength.values()) > 10


def test_many_noise_proxies_are_weak_too():
    # A singular value of noise grows with the number of z; its effective F stays near 1.
    weak = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        u = rng.normal(size=2000)
        frame = {f"z{j}": rng.normal(size=2000) for j in range(15)}
        frame["x0"] = u + rng.normal(size=2000)
        frame["t"] = (rng.uniform(size=2000) < 1 / (1 + np.exp(-u))).astype(int)
        frame["y"] = u + rng.normal(size=2000)
        result = jm.fit(causal_data(frame), num_resamples=0)
        weak += result.status == Status.WEAK_PROXIES
        assert min(result.diagnostics.proxy_strength.values()) < 4
    assert weak == 20


def test_effective_f_of_one_proxy_a_side_is_a_squared_t_ratio():
    frame = linear_rows(np.random.default_rng(8), 700, d_z=1, d_x=1, num_w=1)
    result = jm.fit(causal_data(frame), num_resamples=0)
    w, t = frame["w0"], frame["t"]
    for arm in (0, 1):
        here = t == arm
        common = np.column_stack([np.ones(here.sum()), w[here]])
        z, x = (
            frame[name][here] - common @ np.linalg.lstsq(common, frame[name][here], rcond=None)[0]
            for name in ("z0", "x0")
        )
        product = z * x
        noise = ((product - product.mean()) ** 2).mean() / len(product)
        strength = result.diagnostics.proxy_strength[str(arm)]
        assert strength == pytest.approx(product.mean() ** 2 / noise, rel=1e-6)
        assert strength > 10


def test_level_3_is_withdrawn_when_its_mean_contradicts_level_4():
    # A continuous class: two classes cannot carry it, the bridge can.
    rng = np.random.default_rng(0)
    n = 6000
    u = rng.normal(size=n)
    frame = {
        "t": (rng.uniform(size=n) < 1 / (1 + np.exp(-u))).astype(int),
        "z0": u + rng.normal(size=n) * 0.5,
        "x0": u + rng.normal(size=n) * 0.5,
    }
    frame["y"] = frame["t"] + 2 * u + rng.normal(size=n)
    result = jm.fit(
        causal_data(frame), num_classes=2, checks=False, method="spectral", num_resamples=0
    )
    assert result.ate.value == pytest.approx(1.0, abs=4 * result.ate.se)
    test = result.conditional.diagnostics.specification
    assert test.applies
    assert test.df == 1
    assert test.rejects()
    assert result.law is None
    assert any("withdrawn" in warning for warning in result.warnings)
    assert any("withdrawn" in warning for warning in result.conditional.warnings)


@pytest.mark.parametrize(("method", "symbol"), [("spectral", "chi2"), ("factorization", "G2")])
def test_the_test_of_level_3_has_its_size(method, symbol):
    rejected = []
    for seed in range(100):
        drawn = population("strong", 2, 4, 4)
        cells = drawn.counts(np.random.default_rng(seed), 5000)
        t, z, x, y = np.unravel_index(np.repeat(np.arange(cells.size), cells.ravel()), cells.shape)
        data = causal_data({"t": t, "y": y, "z": z.astype(str), "x": x.astype(str)})
        result = jm.fit(data, level=3, num_classes=2, checks=False, method=method, num_resamples=0)
        assert result.diagnostics.specification.symbol == symbol
        rejected.append(result.diagnostics.specification.rejects())
    assert np.mean(rejected) <= 0.12  # 5 % and three standard errors


def test_level_3_is_withdrawn_when_level_4_is_rejected():
    rng = np.random.default_rng(2)
    drawn = population("strong", 2, 4, 2)
    cells = drawn.counts(rng, 20_000)
    t, z, x, y = np.unravel_index(np.repeat(np.arange(cells.size), cells.ravel()), cells.shape)
    frame = {"t": t, "y": y + 0.5 * (z % 2) + 0.3 * (z > 1), "z": z.astype(str), "x": x.astype(str)}
    result = jm.fit(causal_data(frame), num_classes=2, checks=False, num_resamples=0)
    assert result.diagnostics.specification.rejects()
    assert result.law is None
    assert any("level 3 was withdrawn" in warning for warning in result.warnings)


def test_columns_that_make_an_arm_singular_are_named():
    frame = linear_rows(np.random.default_rng(0), 300)
    frame["w0"] = np.where(frame["t"] == 1, 0.0, np.random.default_rng(1).normal(size=300))
    result = jm.fit(causal_data(frame), num_resamples=0)
    assert result.status == Status.RANK_DEFICIENT
    assert any("'w0' does not vary where t is 1" in warning for warning in result.warnings)


def test_merged_classes_are_told():
    # Two classes with one effect, 1/4, in a table whose counts are exactly its probabilities.
    proxy = np.array([[3, 1], [1, 3]]) / 4
    y1 = np.array([[1, 3], [4, 6]]) / 8  # (u, t)
    p_y = np.stack([1 - y1, y1], axis=-1)
    joint = np.einsum("uz,ux,uty->tzxy", proxy, proxy, p_y) / 4
    cells = joint * 2**10
    assert (cells == np.round(cells)).all()
    t, z, x, y = np.unravel_index(np.arange(16), cells.shape)
    frame = {"t": t, "y": y, "z": z.astype(str), "x": x.astype(str), "count": cells.ravel()}
    data = causal_data(frame, weights="count", weights_kind="frequency")
    result = jm.fit(data, level=3, num_classes=2, checks=False, method="synthetic", num_resamples=0)
    np.testing.assert_allclose(result.law.effects, 0.25, atol=1e-8)
    np.testing.assert_allclose(result.law.shares, [1.0, 0.0], atol=1e-8)
    assert any("1 of the classes" in warning and "merged" in warning for warning in result.warnings)


def test_levels_that_cannot_disagree_are_not_tested(data):
    result = jm.fit(data, level=3, num_classes=2, checks=False, method="spectral", num_resamples=0)
    test = result.diagnostics.specification
    assert not test.applies
    assert "one and the same function" in test.reason


def test_a_mean_beyond_the_outcomes_range_is_said():
    found = 0
    for seed in range(30):
        result = jm.fit(paper_data(60, seed), num_resamples=0)
        beyond = [not 0 <= e.value <= 1 for e in result.potential_means.values()]
        said = sum("outside the outcome's range" in warning for warning in result.warnings)
        assert said == sum(beyond)
        found += said
    assert found > 0


def test_a_failed_level_3_is_withdrawn_and_the_headline_stands():
    # Every combination as often as any other: the proxies say nothing.
    t, z, x, y = (np.repeat(part, 20) for part in np.unravel_index(np.arange(16), (2, 2, 2, 2)))
    frame = {"t": t, "y": y, "z": z.astype(str), "x": x.astype(str)}
    result = jm.fit(
        causal_data(frame), num_classes=2, checks=False, method="spectral", num_resamples=20
    )
    assert result.law is result.share_harmed is None
    assert not result.conditional.status.usable
    assert "NOT TO BE USED" in result.summary()
    assert any("level 3 was withdrawn" in warning for warning in result.warnings)
    record = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert record["law"] is None
    assert record["diagnostics"]["level_3"]["status"] == result.conditional.status.name


def test_level_3_is_withdrawn_when_most_resamples_have_no_estimate(auto):
    d = auto.conditional.diagnostics
    assert why_withdrawn(auto.conditional, auto) == ""
    broken = dataclasses.replace(d, failed={"COMPLEX_SPECTRUM": 80}, out_of_range=30)
    assert "110 of 200" in why_withdrawn(
        dataclasses.replace(auto.conditional, diagnostics=broken), auto
    )


def test_failed_resamples_are_counted_and_told():
    rows = jm.populations.paper_main(0.5).sample(jax.random.key(4), 60)
    rows = {name: np.asarray(values) for name, values in rows.items()}
    data = jm.CausalData.from_frame(rows, **ROLES)
    result = jm.fit(
        data, level=3, num_classes=2, checks=False, num_resamples=300, method="synthetic"
    )
    d = result.diagnostics
    assert d.num_failed + d.out_of_range > 0
    assert sum(d.failed.values()) == d.num_failed
    if d.num_failed:
        assert f"{d.num_failed} failed" in result.summary()
    assert f"{d.out_of_range} out of range" in " ".join(result.summary().split())


def test_overidentified_bridge_is_tested_and_a_rejection_is_said():
    frame = linear_rows(np.random.default_rng(5), 1500, d_z=4, d_x=2)
    good = jm.fit(causal_data(frame), num_resamples=0)
    assert good.diagnostics.specification.applies
    assert good.diagnostics.specification.df == 4
    bad = jm.fit(causal_data(frame | {"y": frame["y"] + frame["z3"]}), num_resamples=0)
    assert bad.diagnostics.specification.rejects()
    assert any("specification test rejects" in warning for warning in bad.warnings)


def test_progress_is_told_of_every_resample(data):
    told = []
    jm.fit(data, num_resamples=50, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (50, 50)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"level": 5}, "level is 5: use one of"),
        ({"method": "em"}, "method is 'em': use one of"),
        ({"bridge": "both"}, "bridge is 'both'"),
        ({"estimand": "LATE"}, "'ATE', 'ATT'"),
        ({"better": "more"}, "'higher', 'lower'"),
        ({"interval": "wild"}, "'percentile', 'basic', 'normal'"),
        ({"interval": "profile", "level": 4}, "'profile' is of maximum-likelihood fits"),
        (
            {"interval": "profile", "num_classes": 2, "method": "spectral"},
            "method 'spectral' is none",
        ),
        ({"interval": "profile", "num_classes": 2, "strata": "arm"}, "knows no strata"),
        ({"edge": "y_to_x"}, "edge is 'y_to_x': use one of 'x_to_y', 'z_to_y'"),
        ({"checks": "some"}, "checks is 'some': use one of True, False"),
        ({"resampling": "wild"}, "'multinomial', 'poisson', 'bayesian'"),
        ({"level": 2}, "level 2 needs a number of classes"),
        ({"method": "factorization"}, "level 3 needs a number of classes"),
        ({"level": 2, "method": "spectral", "num_classes": 2}, "'spectral' is of level 3"),
        ({"level": 4, "method": "factorization"}, "'factorization' is of level 3"),
        ({"num_classes": "best"}, "(--classes) is 'best': give a whole number"),
        ({"num_classes": 0}, "(--classes) is 0"),
        ({"num_classes": 2.0}, "(--classes) is 2.0"),
        (
            {"num_classes": 3},
            "num_classes (--classes) is 3, but the proxies can tell apart at most 2 classes",
        ),
        ({"num_resamples": 5}, "(--resamples) is 5"),
        ({"num_resamples": -1}, "(--resamples) is -1"),
        ({"confidence": 95}, "confidence is 95"),
        ({"level": 3}, "level 3 needs a number of classes"),
        ({"method": "spectral"}, "level 3 needs a number of classes"),
        ({"level": 4, "method": "spectral"}, "'spectral' is of level 3"),
        ({"level": 3, "method": "bridge", "num_classes": 2}, "'bridge' is of level 4"),
        ({"bridge": "pooled", "estimand": "ATT"}, "the pooled bridge has no ATT"),
        ({"bridge": "pooled", "level": 3, "num_classes": 2}, "pooled bridge is of level 4"),
    ],
    ids=str,
)
def test_options_that_do_not_go_together(data, options, words):
    with pytest.raises(InputError) as caught:
        jm.fit(data, **options)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_the_data_cannot_carry():
    covariates = paper_data(
        extra={"w": np.random.default_rng(0).normal(size=4000)}, covariates=["w"]
    )
    with pytest.raises(InputError, match="covariates \\('w'\\) belong to level 4"):
        jm.fit(covariates, num_classes=2, checks=False)
    assert jm.fit(covariates, num_classes=2, level=4, num_resamples=0).law is None
    arms = paper_data(extra={"T": np.arange(4000) % 3}, control="0")
    with pytest.raises(InputError, match=r"has 3 arms"):
        jm.fit(arms)


def test_percentile_intervals_cover_the_effects():
    # 100 data sets, 95 %: fewer than 88 is beyond three standard errors.
    inside = np.zeros(3)
    for seed in range(100):
        result = jm.fit(
            paper_data(3000, seed, zt=0.5),
            level=3,
            num_classes=2,
            checks=False,
            num_resamples=200,
            seed=seed,
        )
        lower, upper = result.ate.interval
        inside[0] += lower <= 0.0 <= upper
        for u, truth in enumerate([-0.75, 0.75]):
            lower, upper = result.law_interval.effects[u]
            inside[1 + u] += lower <= truth <= upper
    assert (inside >= 88).all(), inside


def test_level_2_by_factorization():
    data = paper_data(4000, zt=0.0)
    result = jm.fit(data, level=2, num_classes=2, checks=False, num_resamples=100)
    assert (result.level, result.method) == (2, "factorization")
    assert result.status.usable
    for effect, truth in zip(result.law.effects, [-0.75, 0.75], strict=True):
        assert abs(effect - truth) < 0.15
    assert result.diagnostics.specification.df >= 4  # 15 free cells, 11 parameters
    assert "Z not affecting T" in " ".join(result.summary().split())
    # Where Z does affect T, the level is refuted.
    wrong = jm.fit(paper_data(4000, zt=1.0), level=2, num_classes=2, checks=False, num_resamples=0)
    assert wrong.diagnostics.specification.rejects()


def test_class_probabilities_of_rows(data, auto):
    result = jm.fit(data, level=3, num_classes=2, checks=False, num_resamples=0)
    found = result.posterior(data)
    assert found.shape == (4000, 2)
    np.testing.assert_allclose(found.sum(1), 1.0)
    # At a maximum of the likelihood the mean posterior is the shares.
    np.testing.assert_allclose(found.mean(0), result.law.shares, atol=1e-6)
    np.testing.assert_allclose(result.expected_effects(data).mean(), result.ate.value, atol=1e-6)
    np.testing.assert_allclose(auto.posterior(data), found, atol=1e-8)
    # A few rows of other data, by Bayes' rule.
    rows = {"T": [1, 0], "Y": [1, 0], "Z": [1, 0], "X": [0, 1]}
    few = dataclasses.replace(
        data,
        t=np.array(rows["T"], np.int32),
        outcome=data.outcome.take(np.array([0, 1])),
        z=tuple(column.take(np.array([0, 1])) for column in data.z),
        x=tuple(column.take(np.array([0, 1])) for column in data.x),
    )
    mixture = result.classes.mixture
    own = result.posterior(few)
    for i in range(2):
        z, x, y = (int(c.values[i]) for c in (few.z[0], few.x[0], few.outcome))
        t = int(few.t[i])
        joint = mixture.shares * mixture.z_profiles[t, z] * mixture.x_profiles[x]
        joint = joint * mixture.y_profiles[t, y]
        np.testing.assert_allclose(own[i], joint / joint.sum(), rtol=1e-10)


def test_class_probabilities_need_a_factorization_and_known_values(data, auto):
    alone = jm.fit(data, num_resamples=0)
    with pytest.raises(InputError, match="need a factorization"):
        alone.posterior(data)
    other = paper_data(extra={"Z": np.arange(4000) % 2 + 5})
    with pytest.raises(InputError, match="z values Z = 5 do not occur"):
        auto.posterior(other)
    arms = paper_data(extra={"T": np.where(np.arange(4000) % 2, "a", "b")}, control="a")
    with pytest.raises(InputError, match="arm 'a' of 'T' is not in the fit"):
        auto.posterior(arms)
    outcomes = paper_data(extra={"Y": np.arange(4000) % 2 * 2.0})
    with pytest.raises(InputError, match="outcome 'Y' = 2 does not occur"):
        auto.posterior(outcomes)


def test_a_failed_closed_form_is_refined_and_that_is_said():
    refined = (Status.COMPLEX_SPECTRUM, Status.INDEFINITE_MOMENTS, Status.OUT_OF_RANGE)
    for seed in range(100):
        rows = jm.populations.paper_main(0.5).sample(jax.random.key(seed), 60)
        rows = {name: np.asarray(values) for name, values in rows.items()}
        data = jm.CausalData.from_frame(rows, **ROLES)
        found = jm.spectral.effect_law(jm.moments.from_rows(jm.features.encode(data)), 2)
        if found.status in refined:
            break
    assert found.status in refined
    result = jm.fit(data, level=3, num_classes=2, checks=False, method="spectral", num_resamples=0)
    assert result.method == "factorization"
    name = Status(int(found.status)).name
    assert any(f"failed ({name})" in warning for warning in result.warnings)
    assert ((result.law.shares >= 0) & (np.abs(result.law.effects) <= 1)).all()


def test_a_factorization_of_too_many_moments_is_refused():
    rng = np.random.default_rng(0)
    frame = {f"{view}{j}": rng.normal(size=400) for view in "zx" for j in range(17)}
    frame |= {"t": np.arange(400) % 2, "y": rng.normal(size=400)}
    with pytest.raises(InputError, match=r"would weigh 1,296 moments \(2 x 18 x 18 x 2"):
        jm.fit(causal_data(frame), level=3, num_classes=2, checks=False, num_resamples=0)
