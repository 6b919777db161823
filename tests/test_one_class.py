"""One class: a level of everything, which says that nothing hidden tells people apart.

Of a table the answer is then the difference in means, whatever the level, the method, the kind of
interval or of resample; its class has everybody, and its law no spread.
"""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq, minimize_scalar
from scipy.stats import chi2

import jaxmix as jm
from jaxmix import Status, cli
from jaxmix.estimators import bridge, spectral, synthetic
from jaxmix.inference import profile
from jaxmix.inference.specification import ranges
from jaxmix.solvers.lanes import batched, by_chunks
from tests.study_helpers import of, ran

ROLES = {"treatment": "t", "outcome": "y", "z": ["z"], "x": ["x"]}
QUICK = {"num_classes": 1, "num_resamples": 20, "checks": False}


def rows(n=400, seed=0, levels=2):
    """Return rows of a table in which nobody differs for a hidden reason; true effect .2."""
    rng = np.random.default_rng(seed)
    t = (rng.random(n) < 0.4).astype(int)
    return {
        "t": t,
        "y": (rng.random(n) < 0.3 + 0.2 * t).astype(int),
        "z": np.array(list("abc"))[rng.integers(0, levels, n)],
        "x": np.array(list("pqr"))[rng.integers(0, levels, n)],
        "g": rng.integers(0, 40, n),
        "w": rng.uniform(0.5, 2.0, n),
        "times": rng.integers(1, 4, n),
        "zc": rng.normal(size=n),
        "xc": rng.normal(size=n),
        "yc": rng.normal(size=n) + t,
    }


def data_of(frame=None, **more):
    return jm.CausalData.from_frame(rows() if frame is None else frame, **(ROLES | more))


def moments_of(data):
    return jm.moments.from_rows(jm.features.encode(data))


def difference(frame, weights=None):
    t, y = frame["t"], frame["y"]
    w = np.ones(len(t)) if weights is None else frame[weights]
    return np.average(y[t == 1], weights=w[t == 1]) - np.average(y[t == 0], weights=w[t == 0])


CASES = {
    "level 2": ({}, {"level": 2}),
    "level 3": ({}, {"level": 3}),
    "beside level 4": ({}, {}),
    "level 4": ({}, {"level": 4}),
    "pooled": ({}, {"level": 4, "bridge": "pooled"}),
    "spectral": ({}, {"level": 3, "method": "spectral"}),
    "synthetic": ({}, {"level": 3, "method": "synthetic"}),
    "ATT at level 2": ({}, {"level": 2, "estimand": "ATT"}),
    "ATT at level 3": ({}, {"level": 3, "estimand": "ATT"}),
    "ATT at level 4": ({}, {"level": 4, "estimand": "ATT"}),
    "ATT, spectral": ({}, {"level": 3, "method": "spectral", "estimand": "ATT"}),
    "lower is better": ({}, {"level": 3, "better": "lower"}),
    "clusters": ({"cluster": "g"}, {"level": 3}),
    "weights": ({"weights": "w"}, {"level": 3}),
    "weights, no resamples": ({"weights": "w"}, {"level": 3, "num_resamples": 0}),
    "counts": ({"weights": "times", "weights_kind": "frequency"}, {"level": 3}),
    "strata": ({}, {"level": 3, "strata": "arm"}),
    "strata, no resamples": ({}, {"level": 3, "strata": "arm", "num_resamples": 0}),
    "no resamples": ({}, {"level": 3, "num_resamples": 0}),
    "poisson": ({}, {"level": 3, "resampling": "poisson"}),
    "bayesian": ({}, {"level": 3, "resampling": "bayesian"}),
    **{
        f"{kind} intervals": ({}, {"level": 3, "interval": kind})
        for kind in ("percentile", "basic", "normal", "studentized", "bca", "profile")
    },
}


@pytest.mark.parametrize("case", CASES)
def test_the_answer_is_the_difference_in_means(case):
    roles, options = CASES[case]
    result = jm.fit(data_of(**roles), **(QUICK | options))
    assert result.status is Status.SUCCESS
    assert result.warnings == ()
    ate, naive = result.ate, result.naive
    assert ate.value == pytest.approx(difference(rows(), roles.get("weights")), abs=1e-10)
    assert ate.se == pytest.approx(naive.se, rel=1e-6)
    lower, upper = ate.interval
    assert lower < ate.value < upper
    if result.level == 4 or result.diagnostics.interval != "profile":
        assert ate.interval == pytest.approx(naive.interval, abs=1e-8)
    assert result.diagnostics.proxy_strength == {}
    assert "no hidden confounding is assumed" in " ".join(result.summary().split())
    own = result.conditional or result
    if own.level < 4:
        check_class(own)


def check_class(result):
    """Compare with the class of everybody, without noise, and the law of one atom."""
    value = result.ate.value
    assert [v.tolist() for v in (result.law.shares, result.law_se.shares)] == [[1.0], [0.0]]
    assert result.law_interval.shares.tolist() == [[1.0, 1.0]]
    assert (result.spread.value, result.spread.se, result.spread.interval) == (0.0, 0.0, (0.0, 0.0))
    np.testing.assert_allclose(result.law.effects, [value], rtol=1e-12)
    np.testing.assert_allclose(result.law_interval.effects, [result.ate.interval], atol=1e-8)
    assert result.share_harmed.value == (0.0 if result.better == "higher" else 1.0)
    lower, upper = result.share_harmed.interval
    assert 0 <= lower <= result.share_harmed.value <= upper <= 1
    assert result.bands.groups == ((0,),)
    assert result.cdf(value + 1e-9).value == result.quantile(0.5).value / value == 1.0
    assert result.diagnostics.ambiguous == 0
    assert "1 class)" in result.summary()
    record = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert record["law"]["shares"] == [1.0]
    assert len(result.to_frame()) == 8
    assert len(result.plot().axes) == 2


def test_profile_interval_is_that_of_two_proportions():
    """Ends at which the likelihood ratio of two binomials is the chi-square's quantile."""
    frame = rows()
    ones, sizes = (
        np.bincount(frame["t"], weights=weights, minlength=2)
        for weights in (frame["y"], np.ones(400))
    )

    def deviance(p):
        return -np.sum(ones * np.log(p) + (sizes - ones) * np.log1p(-p))

    def ratio(effect):
        least = minimize_scalar(
            lambda p0: deviance(np.array([p0, p0 + effect])),
            bounds=(max(1e-6, -effect + 1e-6), min(1, 1 - effect) - 1e-6), method="bounded",
            options={"xatol": 1e-10},
        )  # fmt: skip
        return 2 * (least.fun - deviance(ones / sizes)) - chi2.ppf(0.95, 1)

    estimate = difference(frame)
    expected = brentq(ratio, -0.3, estimate), brentq(ratio, estimate, 0.6)
    for level in (2, 3):
        result = jm.fit(
            data_of(), level=level, **(QUICK | {"num_resamples": 0, "interval": "profile"})
        )
        assert result.ate.interval == pytest.approx(expected, abs=2e-3)


def test_profile_intervals_have_the_estimate_in_them():
    moments = moments_of(data_of())
    sol = jm.factorization.solve(moments, 1, key=jax.random.key(0))
    found = profile.intervals(moments, 1, sol.stats["start"])
    assert found.spread.tolist() == [0.0, 0.0]
    assert found.shares.tolist() == [[1.0, 1.0]]
    assert found.cumulative.shape == (0, 2)
    assert bool(found.settled)
    assert float(found.excess) == 0


@pytest.fixture(scope="module")
def checked():
    return jm.fit(data_of(), level=3, num_classes=1, num_resamples=20)


def test_what_is_checked_of_one_class(checked):
    tests, diagnostics = checked.diagnostics.tests, checked.diagnostics
    assert tests["arms"].applies
    assert not tests["range"].applies
    assert "one class has everybody" in tests["range"].reason
    assert diagnostics.complex_spectra is diagnostics.gap is diagnostics.condition is None
    assert diagnostics.specification.applies
    assert checked.sensitivity is None
    assert "with one class X has nothing to do with treatment" in checked.untested
    assert "Does not apply: with one class" in checked.summary()
    assert len(diagnostics.influential) == 3
    check_class(checked)


def test_rows_of_one_class(checked, tmp_path):
    assert checked.posterior(data_of()).tolist() == [[1.0]] * 400
    np.testing.assert_allclose(checked.expected_effects(data_of()), checked.ate.value)
    checked.to_json(tmp_path / "one.json")
    record = json.loads((tmp_path / "one.json").read_text())
    assert (record["num_classes"], record["law"]["shares_se"]) == (1, [0.0])
    assert "<table>" in checked._repr_html_()


def test_bounds_where_z_moves_the_outcome():
    """Z may cause treatment, so that its own effect confounds even one class."""
    found = jm.fit(data_of(), level=3, num_classes=1, num_resamples=0, edge="z_to_y").sensitivity
    value = difference(rows())
    assert found.num_classes == 1
    assert (found.ate[:, 0] < value).all()
    assert (found.ate[:, 1] > value).all()
    assert (np.diff(found.ate[:, 1] - found.ate[:, 0]) >= 0).all()
    np.testing.assert_allclose(found.effects[:, 0], found.ate, atol=1e-3)
    assert (found.shares == 1.0).all()
    assert "Over mixtures of 1 class within" in found.summary()


@pytest.mark.parametrize("level", [2, 3])
def test_continuous_columns(level):
    data = data_of(outcome="yc", z=["zc"], x=["xc"])
    result = jm.fit(data, level=level, num_classes=1, num_resamples=20)
    assert result.status is Status.SUCCESS
    # Weighted moments: the difference in means up to sampling noise, with no larger error.
    assert result.ate.value == pytest.approx(result.naive.value, abs=result.naive.se)
    assert result.ate.se == pytest.approx(result.naive.se, rel=0.1)
    check_class(result)
    assert not result.diagnostics.tests.get("range", result.diagnostics.specification).applies or (
        level == 2
    )


@pytest.mark.parametrize("method", ["spectral", "synthetic"])
def test_continuous_columns_by_closed_forms(method):
    data = data_of(outcome="yc", z=["zc"], x=["xc"])
    result = jm.fit(data, level=3, method=method, **QUICK)
    assert result.ate[:2] == pytest.approx(result.naive[:2], rel=1e-9)
    assert (result.law.shares, result.spread.interval) == ([1.0], (0.0, 0.0))


@pytest.mark.parametrize("level", [2, 3, 4, "auto"])
def test_no_hidden_class_is_found_and_fitted(level):
    data = data_of(rows(1000, seed=3, levels=3))
    result = jm.fit(data, level=level, **(QUICK | {"num_classes": "auto"}))
    assert result.selection.recommended == result.num_classes == 1
    assert result.ate.value == pytest.approx(difference(rows(1000, seed=3, levels=3)), abs=1e-10)
    assert result.ate.se > 0
    if level != 4:
        check_class(result.conditional or result)


def test_no_hidden_class_in_continuous_columns():
    data = data_of(rows(1000, seed=1), outcome="yc", z=["zc"], x=["xc"])
    result = jm.fit(data, level=3, **(QUICK | {"num_classes": "auto"}))
    assert result.num_classes == 1
    check_class(result)


def test_an_arm_without_variation():
    """Nobody in the control arm has the outcome: its mean is 0, at the boundary and exact."""
    frame = rows()
    frame["y"] = frame["y"] * frame["t"]
    result = jm.fit(data_of(frame), level=3, **QUICK)
    assert result.status is Status.BOUNDARY
    assert result.ate.value == pytest.approx(difference(frame), abs=1e-10)
    assert result.ate.se == pytest.approx(result.naive.se, rel=1e-6)
    assert result.potential_means["0"].value == 0.0
    check_class(result)


def test_closed_forms_are_the_difference_in_means_in_a_sample():
    """The best approximation of rank 1 is near the constant in a sample, and not the constant."""
    frame = rows(levels=3)
    moments, value = moments_of(data_of(frame)), difference(frame)
    for form in ("by_arm", "pooled"):
        found = bridge.solve(moments, rank=1, form=form)
        assert float(found.value.effect) == pytest.approx(value, abs=1e-12)
        np.testing.assert_allclose(
            found.value.means,
            [frame["y"][frame["t"] == arm].mean() for arm in (0, 1)],
            atol=1e-12,
        )
    powers = synthetic.effect_moments(moments, 1, 4)
    np.testing.assert_allclose(powers, value ** np.arange(5), atol=1e-12)
    for solve in (spectral.effect_law, synthetic.effect_law):
        law = solve(moments, 1)
        assert law.shares.tolist() == [1.0]
        assert float(law.effects[0]) == pytest.approx(value, abs=1e-12)
        assert int(law.status) == Status.SUCCESS


def test_tests_of_one_class():
    data = data_of()
    for level in (2, 3):
        assert jm.specification.level_test(data, num_classes=1, level=level).applies
    assert jm.specification.nested_test(data, 1).applies
    assert jm.specification.arms_test(data, 1).applies
    for method in ranges.METHODS:
        assert not jm.specification.range_test(data, 1, method=method).applies


def test_rounding_is_no_noise_in_the_check_of_ranges():
    """A share of 1 + 2e-16 with a standard error of 1e-17 is no rejection."""
    values, errors = jnp.array([1 + 2e-16, 0.0, 0.3, -0.2]), jnp.array([1e-17, 1e-17, 0.1, 0.1])
    found = ranges.compared(values, errors, jnp.asarray(True), jnp.array([0.0, 1.0]), 2)
    assert float(found.statistic) == pytest.approx(-7.0)
    assert float(found.p_value) == 1.0


@pytest.mark.parametrize("kind", ["multinomial", "poisson", "bayesian"])
def test_resamples_of_what_has_no_entries(kind):
    def statistic(moments):
        return {"none": jnp.zeros((0, 3)), "arm": moments.arm_probabilities[1]}

    draws = jm.bootstrap(
        statistic, data_of(), key=jax.random.key(0), num_resamples=7, kind=kind, chunk_size=3
    )
    assert draws["none"].shape == (7, 0, 3)
    assert draws["arm"].shape == (7,)


def test_lanes_of_what_has_no_entries():
    def none(x):
        return jnp.zeros((len(x), 0)), x

    assert by_chunks(none, jnp.arange(5.0))[0].shape == (5, 0)
    found = jax.vmap(jax.vmap(batched(none)))(jnp.arange(12.0).reshape(4, 3))
    assert [part.shape for part in found] == [(4, 3, 0), (4, 3)]


def test_latent_classes_with_one_class(tmp_path):
    frame = {name: rows()[name] for name in ("t", "y", "z", "x")}
    result = jm.latent_classes(frame, 1)
    assert result.status is Status.SUCCESS
    assert result.shares.tolist() == [1.0]
    assert result.num_parameters == result.stats["rank"] == 4
    expected = sum(
        count * math.log(count / 400)
        for values in frame.values()
        for count in np.unique(values, return_counts=True)[1]
    )
    assert result.log_likelihood == pytest.approx(expected, abs=1e-8)
    assert result.posterior(frame).tolist() == [[1.0]] * 400
    assert "Latent classes: 1, 4 columns" in result.summary()
    result.to_json(tmp_path / "one.json")
    assert json.loads((tmp_path / "one.json").read_text())["shares"] == [1.0]


STUDY = """\
name = "one"
seed = 1
num_replicates = 4
num_rows = 400
fitted_classes = 1
estimators = {estimators}
[options.gmm]
method = "factorization"
loss = "gmm"
[options.two]
method = "factorization"
level = 2
[population]
kind = "paper_main"
zt_strength = 0.5
{intervals}
"""
ESTIMATORS = [
    "difference_in_means", "regression_adjustment", "bridge", "synthetic", "published_synthetic",
    "spectral", "factorization", "gmm", "two", "nn_parafac", "em",
]  # fmt: skip
SAME = ["bridge", "synthetic", "spectral", "factorization", "two", "em"]


def study_of(folder, estimators, intervals=""):
    text = STUDY.format(estimators=json.dumps(estimators), intervals=intervals)
    for name in ("gmm", "two"):
        if name not in estimators:
            start = text.index(f"[options.{name}]")
            text = text[:start] + text[text.index("[", start + 1) :]
    return ran(folder, text)


def test_studies_that_fit_one_class(tmp_path):
    store = study_of(tmp_path, ESTIMATORS)
    expected = of(store, "difference_in_means")["ate"].to_numpy()
    for label in SAME:
        frame = of(store, label)
        assert set(frame["status"]) == {"SUCCESS"}
        np.testing.assert_allclose(frame["ate"], expected, atol=1e-8)
        if label != "bridge":
            np.testing.assert_allclose(np.stack(frame["shares"]), 1.0, rtol=1e-12)
    assert (store.folder / "summary.csv").is_file()


# Derivatives within resamples take long to compile; closed forms show as well what they do.
INTERVALS = {
    "delta": "factorization",
    "profile": "factorization",
    "bootstrap": "factorization",
    "bca": "synthetic",
    "studentized": "spectral",
}


@pytest.mark.parametrize("kind", INTERVALS)
def test_intervals_of_studies_that_fit_one_class(kind, tmp_path):
    intervals = f'[intervals]\nkind = "{kind}"\nconfidence = 0.9\n'
    intervals += "" if kind in ("delta", "profile") else "num_resamples = 20\n"
    frame = of(study_of(tmp_path, [INTERVALS[kind]], intervals), INTERVALS[kind])
    assert (frame["ate_lower"] < frame["ate"]).all()
    assert (frame["ate"] < frame["ate_upper"]).all()
    np.testing.assert_allclose(np.stack(frame["shares_lower"]), 1.0, atol=1e-8)
    np.testing.assert_allclose(np.stack(frame["shares_upper"]), 1.0, atol=1e-8)


def test_the_command_line_takes_one_class(tmp_path, capsys):
    import pandas as pd

    pd.DataFrame(rows()).to_csv(tmp_path / "rows.csv", index=False)
    arguments = "--treatment t --outcome y --z z --x x --level 3 --classes 1 --method spectral"
    files = ["--json", str(tmp_path / "out.json"), "--plot", str(tmp_path / "out.png")]
    call = [
        "fit",
        str(tmp_path / "rows.csv"),
        *arguments.split(),
        "--resamples",
        "20",
        "--no-checks",
        *files,
    ]
    code = cli.run(call)
    out = capsys.readouterr().out
    assert code == 0
    assert "1 class)" in out
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["ate"]["value"] == pytest.approx(difference(rows()), abs=1e-10)
    assert (tmp_path / "out.png").stat().st_size > 0
