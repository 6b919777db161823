"""Metrics of studies against plain computations; their errors against repetition."""

import math
import statistics as plain

import numpy as np
import pytest

from jaxmix.status import Status
from jaxmix.study import statistics

NAN, INF = math.nan, math.inf


def replicates(
    ate,
    *,
    true_ate=0.0,
    effects=None,
    shares=None,
    true_effects=(-1.0, 1.0),
    true_shares=(0.5, 0.5),
    status=None,
    bound=(NAN, NAN),
    intervals=None,
):
    """Return what `metrics_of` takes, with the truth repeated."""
    ate = np.asarray(ate, float)
    r = len(ate)
    truth = {
        "ate": np.broadcast_to(np.asarray(true_ate, float), (r,)),
        "effects": np.broadcast_to(np.asarray(true_effects, float), (r, 2)),
        "shares": np.broadcast_to(np.asarray(true_shares, float), (r, 2)),
        "bound_ate": np.broadcast_to(np.asarray(bound[0], float), (r,)),
        "bound_error": np.broadcast_to(np.asarray(bound[1], float), (r,)),
    }
    error = np.full(r, NAN)
    if effects is not None:
        effects, shares = np.asarray(effects, float), np.asarray(shares, float)
        if effects.shape == (r, 2):
            squares = (effects - truth["effects"]) ** 2 + (shares - truth["shares"]) ** 2
            error = squares.sum(1)
    status = np.zeros(r, int) if status is None else np.asarray(status)
    return statistics.Replicates(status, ate, error, effects, shares, truth, intervals or {})


# --------------------------------------------------------------------------------- values


SAMPLES = {
    "few": [3.0, 1.0, 2.0],
    "even": [4.0, 1.0, 3.0, 2.0, 7.0, 0.5],
    "many": np.random.default_rng(0).gamma(2.0, size=137).tolist(),
    "more": np.random.default_rng(1).standard_cauchy(400).tolist(),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_values_equal_plain_computations(name):
    values = SAMPLES[name]
    n, array = len(values), np.array(values)
    cut = int(n * 0.05 + 1e-9)
    assert statistics.mean(array).value == pytest.approx(plain.fmean(values), rel=1e-12)
    expected = plain.stdev(values) / math.sqrt(n)
    assert statistics.mean(array).mc_se == pytest.approx(expected, rel=1e-12)
    assert statistics.median(array).value == pytest.approx(plain.median(values), rel=1e-12)
    kept = sorted(values)[cut : n - cut]
    assert statistics.trimmed(array).value == pytest.approx(plain.fmean(kept), rel=1e-12)
    assert statistics.deviation(array).value == pytest.approx(plain.stdev(values), rel=1e-12)
    square = statistics.mean(array**2)
    root = math.sqrt(sum(v * v for v in values) / n)
    assert statistics.root(square).value == pytest.approx(root, rel=1e-12)
    ratio = n * 0.3 / sum(v * v for v in values)
    found = statistics.efficiency(np.full(n, 0.3), array**2)
    assert found.value == pytest.approx(ratio, rel=1e-12)
    hits = [v > 1 for v in values]
    assert statistics.rate(np.array(hits)).value == pytest.approx(sum(hits) / n, rel=1e-12)


def test_a_trimmed_mean_that_trims_nothing_is_the_mean():
    values = np.random.default_rng(0).normal(size=19)
    assert statistics.trimmed(values) == pytest.approx(statistics.mean(values), rel=1e-12)


def test_nothing_comes_of_nothing():
    none = np.zeros(0)
    for of in ("mean", "rate", "median", "trimmed", "deviation"):
        assert all(math.isnan(part) for part in getattr(statistics, of)(none))
    one = np.array([2.0])
    assert statistics.mean(one).value == statistics.median(one).value == 2.0
    assert math.isnan(statistics.mean(one).mc_se)
    assert math.isnan(statistics.median(one).mc_se)
    assert all(math.isnan(part) for part in statistics.deviation(one))


def test_numbers_without_spread_have_no_error():
    same = np.full(50, 2.0)
    for of in ("mean", "median", "trimmed"):
        assert getattr(statistics, of)(same) == (2.0, 0.0)
    assert statistics.deviation(same) == (0.0, 0.0)
    assert statistics.root(statistics.mean(np.zeros(5))) == (0.0, 0.0)


@pytest.mark.parametrize("bad", [NAN, INF])
def test_one_bad_replicate_spoils_means_and_leaves_order_statistics(bad):
    good = np.random.default_rng(0).normal(size=99)
    values = np.append(good, bad if bad == INF else INF)
    metric = statistics.mean(np.append(good, bad))
    assert metric.value == INF
    assert math.isnan(metric.mc_se)
    assert all(math.isnan(part) for part in statistics.signed_mean(np.append(good, bad)))
    assert statistics.median(values).value == plain.median(values.tolist())
    assert statistics.median(values).mc_se > 0
    expected = plain.fmean(sorted(values.tolist())[5:95])
    assert statistics.trimmed(values).value == pytest.approx(expected)
    assert statistics.trimmed(values).mc_se > 0


def test_order_statistics_are_infinite_once_too_many_are():
    values = np.append(np.random.default_rng(0).normal(size=94), [INF] * 6)
    assert statistics.trimmed(values).value == INF
    assert math.isfinite(statistics.median(values).value)
    half = np.append(np.arange(50.0), [INF] * 50)
    assert statistics.median(half).value == INF
    nearly = np.append(np.arange(55.0), [INF] * 45)
    assert statistics.median(nearly).value == 49.5
    assert math.isnan(statistics.median(nearly).mc_se)  # its upper end is infinite


def test_efficiency_needs_a_finite_bound():
    square = np.array([1.0, 2.0])
    for bound in (NAN, INF):
        assert math.isnan(statistics.efficiency(np.array([1.0, bound]), square).value)
    assert statistics.efficiency(square, np.array([1.0, INF])).value == 0.0
    assert math.isnan(statistics.efficiency(square, np.zeros(2)).value)


def test_huge_numbers_give_no_warning():
    values = np.array([1e200, -1e200, 1e150] * 10)
    found = statistics.metrics_of(replicates(values))
    assert found["ate_rmse"].value == INF
    assert found["ate_mean"].value == pytest.approx(values.mean())


# --------------------------------------------------------------------------------- errors

REPETITIONS = 4000
# The spread of R repetitions is known to sqrt((kurtosis - 1) / 4 R), about 1.2 % here; four of
# these, and what the delta method leaves at n = 400.
CLOSE = 0.08


def normal(rng):
    return rng.normal(0.3, 2.0, (REPETITIONS, 400))


def skewed(rng):
    return rng.gamma(3.0, 1.0, (REPETITIONS, 400))


@pytest.mark.parametrize("draw", [normal, skewed])
@pytest.mark.parametrize("of", ["mean", "median", "trimmed", "deviation", "root", "efficiency"])
def test_monte_carlo_errors_are_the_spread_of_repetitions(draw, of):
    samples = draw(np.random.default_rng(5))
    functions = {
        "root": lambda values: statistics.root(statistics.mean(values**2)),
        "efficiency": lambda values: statistics.efficiency(np.full(400, 0.7), values**2),
    }
    function = functions.get(of) or getattr(statistics, of)
    found = np.array([function(values) for values in samples])
    assert found[:, 1].mean() == pytest.approx(found[:, 0].std(), rel=CLOSE)


@pytest.mark.parametrize("p", [0.95, 0.5, 0.1])
def test_the_error_of_a_share_is_the_spread_of_repetitions(p):
    hits = np.random.default_rng(6).random((REPETITIONS, 400)) < p
    found = np.array([statistics.rate(own) for own in hits])
    assert found[:, 1].mean() == pytest.approx(found[:, 0].std(), rel=CLOSE)


def test_the_error_of_an_efficiency_knows_that_bounds_vary():
    """Populations drawn anew have bounds of their own, and squared errors that go with them."""
    rng = np.random.default_rng(7)
    found = []
    for _ in range(2500):
        bound = rng.gamma(0.5, 2.0, 1000)
        ate = rng.normal(0, np.sqrt(1.25 * bound))
        metric = statistics.metrics_of(replicates(ate, bound=(bound, NAN)))["ate_efficiency"]
        found.append(metric)
    values, errors = np.array(found).T
    assert values.mean() == pytest.approx(0.8, abs=0.01)
    assert errors.mean() == pytest.approx(values.std(), rel=CLOSE)


# --------------------------------------------------------------------------------- summaries


def sampled(r=200, seed=0):
    rng = np.random.default_rng(seed)
    effects = np.sort(rng.normal((-1, 1), 0.2, (r, 2)), axis=1)
    first = rng.normal(0.5, 0.05, r)
    shares = np.stack([first, 1 - first], axis=1)
    return {"ate": (effects * shares).sum(1), "effects": effects, "shares": shares}


def around(middle, half):
    """Return standard errors and bounds."""
    return np.broadcast_to(half / 2, middle.shape), middle - half, middle + half


def test_every_metric_of_an_estimator_with_classes():
    drawn = sampled()
    half = np.abs(np.random.default_rng(1).normal(0.3, 0.1, 200))
    intervals = {
        "ate": (half / 2, drawn["ate"] - half, drawn["ate"] + half),
        "effects": around(drawn["effects"], half[:, None]),
        "shares": around(drawn["shares"], half[:, None]),
    }
    found = statistics.metrics_of(replicates(**drawn, bound=(0.02, 0.05), intervals=intervals))
    ate = drawn["ate"]
    error = ((drawn["effects"] - (-1, 1)) ** 2 + (drawn["shares"] - 0.5) ** 2).sum(1)
    expected = {
        "rate_failed": 0.0,
        "rate_without_number": 0.0,
        "ate_mean": ate.mean(),
        "ate_bias": ate.mean(),
        "ate_median_bias": np.median(ate),
        "ate_empirical_se": ate.std(ddof=1),
        "ate_rmse": np.sqrt((ate**2).mean()),
        "ate_efficiency": 0.02 / (ate**2).mean(),
        "error_mean": error.mean(),
        "error_median": np.median(error),
        "error_trimmed": np.sort(error)[10:190].mean(),
        "efficiency": 0.05 / error.mean(),
        "effect_1_bias": (drawn["effects"][:, 0] + 1).mean(),
        "effect_2_rmse": np.sqrt(((drawn["effects"][:, 1] - 1) ** 2).mean()),
        "share_2_empirical_se": drawn["shares"][:, 1].std(ddof=1),
        "share_1_mean": drawn["shares"][:, 0].mean(),
        "coverage_ate": (np.abs(ate) <= half).mean(),
        "width_ate": 2 * half.mean(),
        "coverage_effect_2": (np.abs(drawn["effects"][:, 1] - 1) <= half).mean(),
        "coverage_share_1": (np.abs(drawn["shares"][:, 0] - 0.5) <= half).mean(),
        "width_share_2": 2 * half.mean(),
        "ate_model_se": half.mean() / 2,
        "effect_1_model_se": half.mean() / 2,
    }
    for name, value in expected.items():
        assert found[name].value == pytest.approx(value, rel=1e-12, abs=1e-15), name
        assert found[name].mc_se >= 0, name
    # Where nobody fails the usable are all.
    for name, metric in found.items():
        if name.endswith("_usable"):
            assert metric == found[name.removesuffix("_usable")]
    assert {f"{name}_usable" for name in expected if name not in list(expected)[:2]} <= set(found)


def test_failures_are_counted_and_never_dropped():
    drawn = sampled(100)
    status = np.zeros(100, int)
    status[:4] = Status.COMPLEX_SPECTRUM
    status[4:6] = Status.NONFINITE
    status[6:9] = Status.WEAK_PROXIES
    for name in ("ate", "effects", "shares"):
        drawn[name][4:6] = NAN
    found = statistics.metrics_of(replicates(**drawn, status=status))
    assert found["rate_failed"].value == 0.06
    assert found["rate_failed"].mc_se == pytest.approx(math.sqrt(0.06 * 0.94 / 100))
    assert found["rate_without_number"].value == 0.02
    assert found["rate_complex_spectrum"].value == 0.04
    assert found["rate_nonfinite"].value == 0.02
    assert found["rate_weak_proxies"].value == 0.03
    for name in ("ate_rmse", "error_mean", "effect_1_rmse", "share_2_rmse"):
        assert found[name].value == INF, name
        assert math.isnan(found[name].mc_se), name
    for name in ("mean", "bias", "median_bias", "empirical_se"):  # these have a sign
        assert all(math.isnan(part) for part in found[f"ate_{name}"]), name
    error = ((drawn["effects"] - (-1, 1)) ** 2 + (drawn["shares"] - 0.5) ** 2).sum(1)
    padded = np.where(np.isnan(error), INF, error)
    assert found["error_median"].value == pytest.approx(np.median(padded))
    assert found["error_trimmed"].value == pytest.approx(np.sort(padded)[5:95].mean())
    assert found["error_mean_usable"].value == pytest.approx(error[6:].mean())
    assert found["ate_bias_usable"].value == pytest.approx(drawn["ate"][6:].mean())


def test_all_failed():
    drawn = {name: np.full_like(values, NAN) for name, values in sampled(30).items()}
    status = np.full(30, int(Status.NONFINITE))
    found = statistics.metrics_of(replicates(**drawn, status=status, bound=(0.1, 0.1)))
    assert found["rate_failed"].value == found["rate_without_number"].value == 1.0
    assert found["error_median"].value == found["error_trimmed"].value == INF
    assert math.isnan(found["error_mean_usable"].value)
    assert math.isnan(found["efficiency_usable"].value)


def test_intervals_that_do_not_exist_cover_nothing():
    ate = np.zeros(10)
    lower, upper = np.full(10, -1.0), np.full(10, 1.0)
    lower[:2] = upper[:2] = NAN
    found = statistics.metrics_of(replicates(ate, intervals={"ate": (upper, lower, upper)}))
    assert found["coverage_ate"].value == 0.8
    assert found["width_ate"].value == INF


def test_an_estimator_without_classes_has_metrics_of_the_average_alone():
    found = statistics.metrics_of(replicates(np.ones(10), true_ate=0.5))
    assert found["ate_bias"] == (0.5, 0.0)
    assert not [name for name in found if name.startswith(("error", "effect_", "share_1"))]


def test_another_number_of_classes_than_the_truth_has_no_error():
    shares = np.full((10, 3), 1 / 3)
    one = np.ones(10)
    bounds = {"ate": (one, 0 * one, one), "effects": (shares, shares, shares)}
    found = statistics.metrics_of(
        replicates(np.ones(10), effects=shares, shares=shares, intervals=bounds)
    )
    assert found["ate_bias"].value == 1.0
    assert found["coverage_ate"].value == 1.0
    assert not [name for name in found if name.startswith(("error", "effect_", "coverage_e"))]


def test_truths_that_vary_are_subtracted_each_from_its_own():
    truth = np.linspace(-1, 1, 50)
    noise = np.random.default_rng(0).normal(size=50)
    found = statistics.metrics_of(replicates(truth + noise, true_ate=truth))
    assert found["ate_bias"].value == pytest.approx(noise.mean())
    assert found["ate_empirical_se"].value == pytest.approx(noise.std(ddof=1))
    assert found["ate_rmse"].value == pytest.approx(np.sqrt((noise**2).mean()))
