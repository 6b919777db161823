"""Intervals from resamples against scipy and loops; what they need, and when there is none."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import jaxmix as jm
from jaxmix import InputError
from jaxmix.estimators.base import Fitted, Numbers
from jaxmix.fitting import uncertainty
from jaxmix.fitting.options import Options
from jaxmix.inference import intervals, resampling
from jaxmix.inference.estimation.of_moments import OfMoments
from jaxmix.sample.resamples import draws as drawing
from jaxmix.sample.resamples.units import units_of
from jaxmix.sample.sample import Sample
from tests import oracles
from tests.helpers import block, causal_data, linear_rows

SCIPY = {"percentile": "percentile", "basic": "basic", "bca": "BCa"}


def same_resamples(sample, statistic, kind, confidence):
    """Return scipy's resamples of a statistic, and its interval from them."""
    first = scipy.stats.bootstrap(
        (sample,), statistic, n_resamples=499, method="percentile", rng=np.random.default_rng(0)
    )
    found = scipy.stats.bootstrap(
        (sample,), statistic, n_resamples=0, bootstrap_result=first, method=SCIPY[kind],
        confidence_level=confidence,
    )  # fmt: skip
    return first.bootstrap_distribution, found.confidence_interval


@pytest.mark.parametrize("kind", SCIPY)
@pytest.mark.parametrize("what", ["skewed", "tied"])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_kinds_against_scipy(kind, what, confidence):
    rng = np.random.default_rng(3)
    sample = rng.exponential(size=40) if what == "skewed" else rng.integers(0, 2, 16).astype(float)
    draws, expected = same_resamples(sample, np.mean, kind, confidence)
    # Of a mean, the jackknife that scipy takes is the influence function.
    skew = intervals.acceleration(jnp.asarray(sample - sample.mean()), jnp.ones(len(sample)))
    found = intervals.interval(
        kind, jnp.asarray(draws), jnp.asarray(sample.mean()), confidence, acceleration=skew
    )
    np.testing.assert_allclose(found[:2], expected, rtol=1e-8)
    assert int(found.used) == 499


@pytest.fixture(scope="module")
def many():
    rng = np.random.default_rng(1)
    draws = 1.0 + rng.gamma(2.0, size=(300, 2, 3)) * [1.0, 2.0, 3.0]
    return {
        "draws": draws,
        "estimate": np.median(draws, axis=0) + 0.2,
        "se": rng.uniform(1, 2, (2, 3)),
        "draws_se": rng.uniform(0.5, 2, draws.shape),
        "acceleration": rng.uniform(-0.1, 0.1, (2, 3)),
    }


def by_hand(kind, confidence, *, draws, estimate, se, draws_se, acceleration):
    """Return the interval of one number, from the definitions."""
    keep = ~np.isnan(draws)
    draws, draws_se = draws[keep], draws_se[keep]
    low, high = (1 - confidence) / 2, (1 + confidence) / 2
    normal = scipy.stats.norm
    if kind == "percentile":
        return np.quantile(draws, [low, high])
    if kind == "basic":
        return 2 * estimate - np.quantile(draws, [high, low])
    if kind == "normal":
        return estimate + np.std(draws, ddof=1) * normal.ppf([low, high])
    if kind == "studentized":
        return estimate - se * np.quantile((draws - estimate) / draws_se, [high, low])
    z0 = normal.ppf(np.mean(draws < estimate))
    levels = [
        normal.cdf(z0 + (z0 + z) / (1 - acceleration * (z0 + z))) for z in normal.ppf([low, high])
    ]
    return np.quantile(draws, levels)


@pytest.mark.parametrize("kind", intervals.KINDS)
def test_many_numbers_at_once_against_each_alone(many, kind):
    missing = dict(many, draws=np.where(many["draws"] > 9.0, np.nan, many["draws"]))
    arrays = {name: jnp.asarray(value) for name, value in missing.items()}
    draws, estimate = arrays.pop("draws"), arrays.pop("estimate")
    found = jax.jit(lambda d, e, rest: intervals.interval(kind, d, e, 0.9, **rest))(
        draws, estimate, arrays
    )
    assert np.array_equal(found.used, (~np.isnan(missing["draws"])).sum(0))
    assert 0 < int(found.used.min()) < 300
    for at in np.ndindex(2, 3):
        one = {n: v[(slice(None), *at)] if v.ndim == 3 else v[at] for n, v in missing.items()}
        expected = by_hand(kind, 0.9, **one)
        np.testing.assert_allclose([found.lower[at], found.upper[at]], expected, rtol=1e-10)
    last = {name: value.ndim - 1 for name, value in arrays.items()}
    batched = jax.vmap(
        lambda d, e, rest: intervals.interval(kind, d, e, 0.9, **rest), in_axes=(2, 1, last)
    )(draws, estimate, arrays)
    for one, together in zip(batched, found, strict=True):
        np.testing.assert_allclose(one.T, together, rtol=1e-10)


def test_what_lacks_something_or_does_not_exist_is_refused(many):
    draws, estimate = many["draws"], many["estimate"]
    for kind, words in {
        "studentized": "se and draws_se", "bca": "acceleration", "exact": "percentile, basic",
    }.items():  # fmt: skip
        with pytest.raises(ValueError, match=words):
            intervals.interval(kind, draws, estimate, 0.9)


def test_bca_has_no_interval_where_its_correction_has_no_end():
    draws = jnp.arange(100.0)
    for outside in (-1.0, 100.0):
        one_side = intervals.bca_interval(draws, jnp.array(outside), jnp.array(0.0), 0.9)
        assert np.isnan(one_side[:2]).all()
    pole = intervals.bca_interval(draws, jnp.array(50.0), jnp.array(0.7), 0.9)
    assert np.isfinite(pole.lower)
    assert np.isnan(pole.upper)
    none = intervals.bca_interval(jnp.full(5, jnp.nan), jnp.array(0.0), jnp.array(0.0), 0.9)
    assert np.isnan(none[:2]).all()
    assert int(none.used) == 0


def test_numbers_that_nothing_moves_have_the_interval_of_a_point():
    draws = 1.0 + jnp.arange(-20, 20) % 2 * 1e-16
    zero, no_se = jnp.array(0.0), jnp.zeros(40)
    for found in (
        intervals.bca_interval(draws, jnp.array(1.0), zero, 0.9),
        intervals.studentized_interval(draws, no_se, jnp.array(1.0), zero, 0.9),
    ):
        assert (float(found.lower), float(found.upper)) == (1.0, 1.0)


def test_studentized_is_unbounded_where_too_many_resamples_have_no_error():
    rng = np.random.default_rng(0)
    draws = jnp.asarray(rng.normal(size=200))
    errors = jnp.asarray(np.where(np.arange(200) < 3, 0.0, 1.0))  # 1.5 %: below the tail
    few = intervals.studentized_interval(draws, errors, jnp.array(0.0), jnp.array(1.0), 0.9)
    assert np.isfinite([few.lower, few.upper]).all()
    errors = jnp.asarray(np.where(np.arange(200) < 80, 0.0, 1.0))
    many = intervals.studentized_interval(draws, errors, jnp.array(0.0), jnp.array(1.0), 0.9)
    assert np.isinf([many.lower, many.upper]).all()
    gone = intervals.studentized_interval(draws, jnp.nan * errors, jnp.array(0.0), 1.0, 0.9)
    assert np.isnan(gone.lower)
    assert int(gone.used) == 0


def test_coverage_of_a_skewed_mean():
    """Exponential numbers, 20 of them: percentiles are short, the corrected kinds less so."""
    num, size, resamples = 1500, 20, 400

    @jax.jit
    def covered(key):
        of_data, of_draws = jax.random.split(key)
        sample = jax.random.exponential(of_data, (size,))
        drawn = sample[jax.random.randint(of_draws, (resamples, size), 0, size)]
        mean, centred = sample.mean(), sample - sample.mean()
        more = {
            "se": jnp.sqrt(jnp.sum(centred**2)) / size,
            "draws_se": drawn.std(1) / jnp.sqrt(size),
            "acceleration": intervals.acceleration(centred, jnp.ones(size)),
        }
        ends = [intervals.interval(k, drawn.mean(1), mean, 0.95, **more) for k in intervals.KINDS]
        return jnp.stack([(e.lower <= 1) & (e.upper >= 1) for e in ends])

    keys = jax.random.split(jax.random.key(2), num)
    rates = dict(
        zip(intervals.KINDS, np.asarray(jax.lax.map(covered, keys, batch_size=100)).mean(0),
            strict=True)
    )  # fmt: skip
    error = np.sqrt(0.95 * 0.05 / num)
    assert abs(rates["studentized"] - 0.95) < 3 * error
    assert rates["basic"] < rates["normal"] < rates["percentile"] < rates["bca"]
    assert rates["percentile"] < 0.95 - 4 * error


# From rows: what resampling gives to the functions above.


@pytest.fixture(scope="module")
def frame():
    return linear_rows(np.random.default_rng(5), 200, d_z=1, d_x=1)


@pytest.fixture(scope="module")
def data(frame):
    return causal_data(frame)


def rows_by_hand(frame, times):
    """Return effect and standard error of rows repeated, by the loop of the oracle."""
    rows = {name: np.repeat(values, times) for name, values in frame.items()}
    args = (rows["y"], rows["t"], block(rows, "z"), block(rows, "x"))
    value, _, se = oracles.bridge_by_arm(*args)
    return value, se


def test_fit_by_bootstrap_t_and_bca_against_loops(frame, data):
    options = {"num_resamples": 60, "confidence": 0.8}
    views = jm.features.encode(data)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), jnp.arange(60))
    drawn = np.asarray(drawing.draw_multiplicities(keys, views, "multinomial")).astype(int)
    draws, draws_se = np.array([rows_by_hand(frame, times) for times in drawn]).T
    value, se = rows_by_hand(frame, np.ones(200, int))
    ones = np.ones(200, int)
    without = [rows_by_hand(frame, ones - (np.arange(200) == i))[0] for i in range(200)]
    gap = np.mean(without) - without
    arrays = {
        "draws": draws, "draws_se": draws_se, "estimate": value, "se": se,
        "acceleration": (gap**3).sum() / (6 * (gap**2).sum() ** 1.5),
    }  # fmt: skip
    for kind in intervals.KINDS:
        found = jm.fit(data, interval=kind, resampling="multinomial", **options).ate
        assert found.se == pytest.approx(draws.std(ddof=1), rel=1e-8)
        # The jackknife's acceleration is the influence function's up to an order of 1/n.
        slack = 0.02 * se if kind == "bca" else 1e-8
        np.testing.assert_allclose(found.interval, by_hand(kind, 0.8, **arrays), atol=slack)
    for kind in ("studentized", "bca"):  # whose resamples are multinomial by themselves
        assert jm.fit(data, interval=kind, **options).diagnostics.resampling == "multinomial"


@pytest.mark.parametrize("kind", ["studentized", "bca"])
def test_twins_as_clusters_are_single_rows(frame, data, kind):
    options = {"num_resamples": 30, "interval": kind, "resampling": "multinomial"}
    twins = {name: np.repeat(values, 2) for name, values in frame.items()}
    twins["g"] = np.repeat(np.arange(200), 2)
    single, both = jm.fit(data, **options), jm.fit(causal_data(twins, cluster="g"), **options)
    assert both.ate.se == pytest.approx(single.ate.se, rel=1e-8)
    np.testing.assert_allclose(both.ate.interval, single.ate.interval, rtol=1e-7)


def test_errors_within_resamples_are_those_of_a_sample_of_the_observed_size(data):
    views = jm.features.encode(data)

    def mean(moments):
        return {"y": moments.y_by_arm.sum(), "kept": moments.num_rows}

    y, key = np.asarray(data.outcome.values), jax.random.key(1)
    for kind in drawing.KINDS:
        found, errors = resampling.bootstrap(
            mean, views, key=key, num_resamples=9, kind=kind, errors=("y",), chunk_size=4
        )
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(9))
        for i, times in enumerate(drawing.draw_multiplicities(keys, views, kind)):
            spread = np.sqrt(np.cov(y, aweights=np.asarray(times), ddof=0) / 200)
            assert float(errors["y"][i]) == pytest.approx(float(spread), rel=1e-8)
        assert list(errors) == ["y"]
        assert found["kept"].shape == (9,)


@dataclasses.dataclass(frozen=True)
class Arms:
    """Arms in the place of classes: quick to compile."""

    @property
    def estimator(self):
        return self

    def loss_of(self, is_table):
        return None

    def __call__(self, moments, *, key=None, near=None):
        shares = moments.arm_probabilities
        effects = moments.y_by_arm / shares
        numbers = Numbers(
            effects.sum(), effects, effects[1] - effects[0], shares, effects, shares[:1],
            effects.std(), shares[0],
        )  # fmt: skip
        return Fitted(numbers, jnp.int32(0), {}, jnp.stack([effects, shares]))


def test_errors_within_resamples_follow_their_classes(data):
    """Where classes of the estimate come in the other order, all that is matched is turned."""

    class Turned(OfMoments):
        point = property(lambda self: own.point._replace(looks=own.point.looks[:, ::-1]))

    sample = Sample(jm.features.encode(data))
    own, turned = (kind(Arms(), sample, None) for kind in (OfMoments, Turned))
    options = Options.of(num_resamples=40, confidence=0.9, interval="studentized")
    (draws, resamples), (other, _) = (uncertainty.resample(one, options) for one in (own, turned))
    assert resamples.resampling == "multinomial"
    assert draws.errors["effects"].shape == (40, 2)
    for name in ("shares", "effects"):
        np.testing.assert_array_equal(other.numbers[name], draws.numbers[name][:, ::-1])
        np.testing.assert_array_equal(other.errors[name], draws.errors[name][:, ::-1])
    np.testing.assert_array_equal(other.errors["means"], draws.errors["means"])


def test_an_interval_that_does_not_exist_is_none_and_said(data, monkeypatch):
    whole = intervals.interval

    def broken(kind, draws, estimate, confidence, **more):
        found = whole(kind, draws, estimate, confidence, **more)
        return found._replace(lower=found.lower * jnp.nan) if draws.ndim == 1 else found

    monkeypatch.setattr(uncertainty.intervals, "interval", broken)
    result = jm.fit(data, interval="bca", num_resamples=20)
    assert result.ate.interval is result.naive.interval is None
    assert result.ate.se > 0
    assert result.potential_means["1"].interval is not None
    (note,) = [w for w in result.warnings if "bca" in w]
    assert "the average effect and the difference in means" in note
    assert "'percentile'" in note


@pytest.mark.parametrize("kind", ["basic", "studentized", "bca"])
def test_kinds_that_need_resamples_say_so(data, kind):
    with pytest.raises(InputError, match=f"interval '{kind}' needs resamples: .*--resamples"):
        jm.fit(data, interval=kind, num_resamples=0)


# Strata.


@pytest.fixture(scope="module")
def many_rows(frame):
    views = jm.features.encode(causal_data(frame))
    times = np.random.default_rng(2).integers(0, 9, len(views.t))
    repeated = views.redesigned(multiplicity=jnp.asarray(times, float), repeated=True)
    cluster = jnp.asarray(np.asarray(views.t) * 20 + np.arange(200) % 20)
    used, cluster = np.unique(cluster, return_inverse=True)
    clustered = views.redesigned(cluster=jnp.asarray(cluster), num_clusters=len(used))
    return {"rows": views, "counts": repeated, "clusters": clustered}


@pytest.mark.parametrize("kind", drawing.KINDS)
@pytest.mark.parametrize("form", ["rows", "counts", "clusters"])
def test_strata_keep_their_sizes_and_their_laws(many_rows, form, kind):
    views = many_rows[form]
    labels = np.asarray(views.t) * 7 - 3  # any integers
    units = units_of(views.design, labels)
    strata, times = np.asarray(units.strata), np.asarray(units.times)
    keys = jax.random.split(jax.random.key(3), 1500)
    drawn = np.asarray(jax.jit(lambda k: drawing.draw_units(k, units, kind))(keys))
    for h in range(units.num_strata):
        inside, m = drawn[:, strata == h], times[strata == h]
        size = m.sum()
        np.testing.assert_allclose(inside.sum(1), size, rtol=1e-12)
        spread = m * (1 - m / size)
        if kind == "bayesian":
            spread *= size / (size + 1)  # of a Dirichlet law
        assert (np.abs(inside.mean(0) - m) < 5 * np.sqrt(spread / 1500) + 1e-12).all()
        assert (np.abs(inside.var(0) - spread) < 5 * spread * np.sqrt(8 / 1500) + 0.15).all()
    if kind == "multinomial":
        assert (drawn == np.floor(drawn)).all()
    rows = np.asarray(drawing.draw_multiplicities(keys[:20], views, kind, labels))
    if form == "clusters":
        cluster = np.asarray(views.cluster)
        np.testing.assert_allclose(rows, drawn[:20][:, cluster], rtol=1e-12)
    else:
        arms = np.stack([rows[:, labels == label].sum(1) for label in (-3, 4)])
        fixed = [np.asarray(views.multiplicity)[labels == label].sum() for label in (-3, 4)]
        np.testing.assert_allclose(arms.T, np.tile(fixed, (20, 1)), rtol=1e-12)


@pytest.mark.parametrize("form", ["rows", "counts", "clusters"])
def test_chunks_change_no_stratified_draw(many_rows, form):
    def mean(moments):
        return moments.y_by_arm[0]

    views = many_rows[form]
    runs = [
        resampling.bootstrap(
            mean, views, key=jax.random.key(0), num_resamples=n, kind="multinomial",
            strata=views.t, chunk_size=c,
        )
        for n, c in [(11, None), (7, 4)]
    ]  # fmt: skip
    np.testing.assert_allclose(runs[1], runs[0][:7], rtol=1e-10)
    assert np.std(runs[0]) > 0


def test_cells_of_a_table_have_strata_too():
    cells = jm.populations.paper_main().counts(jax.random.key(0), 1000)
    arms = np.broadcast_to(np.arange(2)[:, None, None, None], cells.shape)
    draws = jm.bootstrap(
        lambda m: m.arm_probabilities, cells, key=jax.random.key(1), num_resamples=10, strata=arms
    )
    np.testing.assert_allclose(draws[:, 1], cells[1].sum() / 1000, rtol=1e-12)
    with pytest.raises(ValueError, match="one label for each cell"):
        jm.bootstrap(lambda m: m.gram_z, cells, key=jax.random.key(1), num_resamples=10, strata=[1])


def test_standard_errors_within_strata_are_those_of_a_stratified_mean(data):
    views, y, t = jm.features.encode(data), np.asarray(data.outcome.values), np.asarray(data.t)

    def mean(moments):
        return {"y": moments.y_by_arm.sum()}

    parts = [(np.sum(t == h) / 200) ** 2 * y[t == h].var() / np.sum(t == h) for h in (0, 1)]
    errors, skew = resampling.spread(mean, views, ("y",), views.t)
    assert float(errors["y"]) == pytest.approx(np.sqrt(sum(parts)), rel=1e-10)
    gap = np.concatenate([y[t == h] - y[t == h].mean() for h in (0, 1)])
    third = (gap**3).sum() / (6 * (gap**2).sum() ** 1.5)
    assert float(skew["y"]) == pytest.approx(third, rel=1e-8)
    plain, _ = resampling.spread(mean, views, ("y",))
    assert float(plain["y"]) == pytest.approx(y.std() / np.sqrt(200), rel=1e-10)
    assert float(plain["y"]) > float(errors["y"])


def test_fit_within_arms(data):
    options = {"num_resamples": 600, "resampling": "multinomial"}
    within, quick = (jm.fit(data, strata="arm", **o) for o in (options, {"num_resamples": 0}))
    # A standard deviation of 600 draws has a relative error of 3 %, somewhat more in long tails.
    assert within.naive.se == pytest.approx(quick.naive.se, rel=0.1)
    assert within.ate.se != jm.fit(data, **options).ate.se
    for kind in ("studentized", "bca"):
        ends = jm.fit(data, strata="arm", interval=kind, num_resamples=40).ate.interval
        assert ends[0] < quick.ate.value < ends[1]


def test_strata_that_cannot_be_are_refused(frame, many_rows):
    with pytest.raises(InputError, match="strata is 'sex': use one of None, 'arm'"):
        jm.fit(causal_data(frame), strata="sex")
    mixed = causal_data(frame | {"g": np.arange(200) % 40}, cluster="g")
    for number in (0, 20):
        with pytest.raises(InputError, match="of 40 clusters have rows in several strata"):
            jm.fit(mixed, strata="arm", num_resamples=number)
    nested = frame["t"] * 20 + np.arange(200) % 20
    result = jm.fit(causal_data(frame | {"g": nested}, cluster="g"), strata="arm")
    assert result.ate.se > 0
    with pytest.raises(ValueError, match="one label for each row"):
        units_of(many_rows["rows"].design, [0, 1])
