"""Numbers of a result that may not contradict each other, nor depend on what else is asked for."""

import dataclasses
import sys

import jax
import numpy as np
import pytest

import jaxmix as jm
from experiments.verdicts.random_tables import continuous, draw, has_two_arms, rows_of
from jaxmix import Status
from jaxmix.estimators.base import Fitted, Numbers
from jaxmix.fitting import consistency
from jaxmix.inference import profile
from jaxmix.inference.estimation import of_moments
from tests import likelihood_oracles as lo

NUM_ROWS = 40  # of every table here, counts split up, so that one set of programs serves them all
BOTH = [[0.6, 0.4, 0], [0, 0.4, 0.6]]
FULL = [[0.6, 0.3, 0.1], [0.1, 0.3, 0.6]]


def zeros(n, p_z, p_x, seed):
    """Return the counts of a level-3 sample whose proxies may have structural zeros."""
    r = np.random.default_rng(seed)
    u = (r.random(n) < 0.45).astype(int)
    t = (r.random(n) < np.where(u, 0.7, 0.35)).astype(int)
    z, x = (
        (r.random(n)[:, None] > np.cumsum(np.array(p)[u], 1)).sum(1).clip(0, 2) for p in (p_z, p_x)
    )
    y = (r.random(n) < 0.2 + 0.3 * u + 0.1 * t + 0.2 * u * t).astype(int)
    counts = np.zeros((2, 3, 3, 2))
    np.add.at(counts, (t, z, x, y), 1.0)
    return counts


TABLES = {
    "zeros in z and x, 0": zeros(4000, BOTH, BOTH, 0),
    "zeros in z and x, 1": zeros(4000, BOTH, BOTH, 1),
    "sixty rows": zeros(60, FULL, FULL, 0),
    "zeros beside ordinary levels": zeros(
        4000, [[0.6, 0.4, 0], [0.1, 0.4, 0.5]], [[0.6, 0.3, 0.1], [0, 0.5, 0.5]], 1
    ),
}
RIGHT = dict(zip(TABLES, (0.1894, 0.1575, 0.1502, 0.1553), strict=True))


def data_of(counts):
    return jm.CausalData.from_frame(
        rows_of(counts, NUM_ROWS), treatment="t", outcome="y", z=["z"], x=["x"],
        features="onehot", weights="copies", weights_kind="frequency",
    )  # fmt: skip


def fitted(counts, **options):
    options = {"level": 3, "num_classes": 2, "checks": False, "num_resamples": 0} | options
    return jm.fit(data_of(counts), **options)


def estimates(result):
    """Return every number that is an estimate, and none of its uncertainty."""
    return np.array([
        result.ate.value, result.naive.value, *(m.value for m in result.potential_means.values()),
        *result.law.shares, *result.law.effects, result.share_harmed.value, result.spread.value,
        float(result.law.stats["log_likelihood"]), *np.ravel(result.classes.mixture.x_profiles),
    ])  # fmt: skip


@pytest.fixture(scope="module")
def plain():
    return {name: fitted(counts) for name, counts in TABLES.items()}


@pytest.mark.parametrize("name", TABLES)
def test_the_estimate_is_the_maximum(name, plain):
    result, best = plain[name], lo.em_level3(TABLES[name], 2, np.random.default_rng(0))
    effects, shares = lo.law_of(best, np.arange(2.0))
    assert result.status.usable
    assert result.ate.value == pytest.approx(RIGHT[name], abs=5e-5)
    assert result.ate.value == pytest.approx(effects @ shares, abs=1e-6)
    np.testing.assert_allclose(result.law.effects, effects, atol=1e-6)
    np.testing.assert_allclose(result.law.shares, shares, atol=1e-6)
    assert float(result.law.stats["log_likelihood"]) == pytest.approx(best.loglik, abs=1e-6)
    assert sum(result.law.shares) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("name", TABLES)
def test_structural_zeros_are_no_lack_of_identification(name, plain):
    assert plain[name].status in (Status.BOUNDARY, Status.WEAK_PROXIES)
    assert plain[name].ate.se > 0
    low, high = plain[name].ate.interval
    assert low < plain[name].ate.value < high


@pytest.mark.parametrize("name", TABLES)
def test_resamples_change_no_estimate_and_errors_agree(name, plain):
    drawn = fitted(TABLES[name], num_resamples=1000)
    np.testing.assert_array_equal(estimates(drawn), estimates(plain[name]))
    if name == "sixty rows":
        return  # resamples of so few rows end at other bounds
    for own, other in ((plain[name].ate.se, drawn.ate.se), *zip(
        plain[name].law_se.shares, drawn.law_se.shares, strict=True
    )):  # fmt: skip
        # Of 1,000 resamples a standard error has one of 2.2 % itself.
        assert own == pytest.approx(other, rel=0.1)
    first, second = plain[name].law_se.shares
    assert first == pytest.approx(second, rel=1e-8)  # of shares that add up to 1


@pytest.mark.parametrize("name", ["zeros in z and x, 1", "sixty rows"])
def test_checks_change_no_estimate(name, plain):
    checked = fitted(TABLES[name], checks=True).complete()
    np.testing.assert_array_equal(estimates(checked), estimates(plain[name]))
    assert checked.diagnostics.influential
    assert checked.sensitivity is not None


def test_an_eager_fit_is_the_compiled_one(plain):
    counts = TABLES["zeros in z and x, 1"]
    with jax.disable_jit():
        sol = jm.factorization.solve(counts, 2, key=jax.random.key(0))
    np.testing.assert_allclose(
        sol.value.law.effects, plain["zeros in z and x, 1"].law.effects, atol=1e-8
    )


RIDGES = {
    "two classes, four rows in an arm": (2, [
        [[[1, 1], [2, 0], [0, 0]], [[0, 0], [0, 0], [0, 0]], [[0, 0], [0, 0], [0, 0]]],
        [[[4, 0], [4, 0], [2, 0]], [[4, 0], [8, 0], [4, 0]], [[0, 0], [0, 0], [0, 0]]],
    ]),
    "three classes where two levels of x occur": (3, [
        [[[271, 99], [0, 0], [426, 305]], [[278, 324], [0, 0], [115, 114]],
         [[74, 13], [0, 0], [135, 79]]],
        [[[264, 79], [0, 0], [211, 120]], [[26, 8], [0, 0], [8, 25]],
         [[171, 23], [0, 0], [52, 29]]],
    ]),
}  # fmt: skip


@pytest.mark.parametrize("name", RIDGES)
def test_the_end_of_a_ridge_is_not_identified(name):
    """Where the derivatives' system is singular; the pivots of elimination may not show it."""
    k, cells = RIDGES[name]
    sol = jm.factorization.solve(np.array(cells, float), k, key=jax.random.key(0))
    assert int(sol.status) == Status.NOT_IDENTIFIED
    assert bool(sol.stats["flat"])


def random_tables():
    rng = np.random.default_rng(20)
    tables = []
    while len(tables) < 40:
        counts = draw(rng)
        if has_two_arms(counts) and counts.sum() >= NUM_ROWS:
            tables.append(counts)
    return tables


def test_random_tables_with_traps_contradict_nothing():
    """Zeros, few rows, empty levels, independence: what is usable holds together."""
    usable = 0
    for counts in random_tables():
        try:
            result, drawn = fitted(counts), fitted(counts, num_resamples=200)
        except jm.InputError:
            continue  # an arm with too few rows, or a column without variation in it
        assert result.status is not Status.INCONSISTENT
        assert drawn.status is not Status.INCONSISTENT, drawn.warnings
        if not result.status.usable:
            continue
        usable += 1
        np.testing.assert_array_equal(estimates(drawn), estimates(result))
        assert abs(sum(result.law.shares) - 1) < 1e-10
        for name in ("share", "effect"):
            for estimate in result.class_estimates(name):
                if estimate.interval is not None:
                    low, high = estimate.interval
                    assert low - 1e-6 <= estimate.value <= high + 1e-6
    assert usable >= 25


def test_continuous_columns_too():
    """Weighted moments: 300 rows, whose optimum the solver's own steps leave open by 3e-4."""
    rng = np.random.default_rng(3)
    statuses = []
    for checks in (True, False, False):
        data = jm.CausalData.from_frame(
            continuous(rng), treatment="t", outcome="y", z=["z1", "z2"], x=["x1", "x2"]
        )
        options = {"level": 3, "num_classes": 2}
        plain = jm.fit(data, checks=False, num_resamples=0, **options)
        drawn = jm.fit(data, checks=checks, num_resamples=200, **options).complete()
        np.testing.assert_array_equal(drawn.law.effects, plain.law.effects)
        np.testing.assert_array_equal(drawn.law.shares, plain.law.shares)
        assert drawn.ate.value == plain.ate.value
        statuses += [plain.status, drawn.status]
    assert Status.INCONSISTENT not in statuses


def test_moments_that_tell_nothing_are_not_identified():
    rng = np.random.default_rng(3)
    for _ in range(3):
        continuous(rng)
    data = jm.CausalData.from_frame(
        continuous(rng), treatment="t", outcome="y", z=["z1", "z2"], x=["x1", "x2"]
    )
    result = jm.fit(data, level=3, num_classes=2, checks=False, num_resamples=0)
    assert result.status is Status.NOT_IDENTIFIED
    assert result.ate.se is None
    assert result.ate.interval is None
    assert any("do not exist" in warning for warning in result.warnings)


def test_contradictions_are_failures_and_leave_no_number(plain, monkeypatch):
    found = profile.intervals

    def beside(*args, **kwargs):
        ends = found(*args, **kwargs)
        return ends._replace(effect=ends.effect + 1.0)

    monkeypatch.setattr(of_moments.profile, "intervals", beside)
    result = fitted(TABLES["zeros in z and x, 1"])
    assert result.status is Status.INCONSISTENT
    assert not result.status.usable
    assert result.warnings[0] == "the average effect lies outside its own profile interval"
    record = result.to_dict()
    assert record["ate"] == {"value": None, "se": None, "interval": None}
    assert record["law"] is None
    assert "NOT TO BE USED. INCONSISTENT" in result.summary()
    with pytest.raises(jm.EstimateError, match="INCONSISTENT"):
        result.raise_if_failed()


def point_of(result):
    mixture = result.classes.mixture
    numbers = Numbers(
        effect=np.asarray(result.ate.value),
        means=np.array([m.value for m in result.potential_means.values()]),
        shares=np.asarray(result.law.shares),
        effects=np.asarray(result.law.effects),
    )
    return Fitted(numbers, result.status, result.law.stats, None, mixture)


SHIFTED = {
    "shares of the classes add up to": lambda m, p: {
        "numbers": p.numbers._replace(shares=p.numbers.shares * 1.1)
    },
    "average effect is": lambda m, p: {
        "numbers": p.numbers._replace(effect=p.numbers.effect + 1e-3)
    },
    "mean outcome lies outside": lambda m, p: {
        "mixture": dataclasses.replace(m, means=m.means + 1.0)
    },
    "share outside": lambda m, p: {
        "mixture": dataclasses.replace(m, shares=m.shares + np.array([0.7, -0.7]))
    },
    "log-likelihood is": lambda m, p: {
        "stats": p.stats | {"log_likelihood": p.stats["log_likelihood"] + 1.0}
    },
}


@pytest.mark.parametrize("words", SHIFTED)
def test_each_contradiction_is_found_and_named(words, plain):
    name = "zeros in z and x, 1"
    cells, range_y = TABLES[name], np.array([0.0, 1.0])
    point = point_of(plain[name])
    assert consistency.of_point(point, range_y, cells) == ()
    wrong = point._replace(**SHIFTED[words](point.mixture, point))
    found = consistency.of_point(wrong, range_y, cells)
    assert any(words in sentence for sentence in found)


def test_resamples_that_all_lie_elsewhere_are_a_contradiction_and_percentiles_a_note():
    point, none, kinds = Numbers(np.array(0.5)), Numbers(), Numbers("percentile")
    around, beside = Numbers(np.array([0.4, 0.6])), Numbers(np.array([0.6, 0.7]))
    ask = consistency.of_intervals
    assert ask(point, around, kinds, around, 200) == ((), ())
    found, notes = ask(point, beside, kinds, none, 0)
    assert found == ()
    assert "does not hold the estimate" in notes[0]
    found, _ = ask(point, none, none, beside, 200)
    assert found == ("the average effect lies outside the range of all 200 resamples",)
    assert ask(point, none, none, beside, 199) == ((), ())


def test_contradictions_of_latent_classes_are_failures_too(monkeypatch):
    rng = np.random.default_rng(0)
    ill = rng.random(300) < 0.4
    frame = {f"i{j}": (rng.random(300) < np.where(ill, 0.8, 0.2)).astype(int) for j in range(4)}
    assert jm.latent_classes(frame, 2).status is Status.SUCCESS
    solve = sys.modules["jaxmix.fitting.latent_classes"].latent.solve

    def beside(*args, **kwargs):
        found = solve(*args, **kwargs)
        halved = dataclasses.replace(found.value, shares=found.value.shares / 2)
        return dataclasses.replace(found, value=halved)

    monkeypatch.setattr(sys.modules["jaxmix.fitting.latent_classes"].latent, "solve", beside)
    result = jm.latent_classes(frame, 2)
    assert result.status is Status.INCONSISTENT
    assert any("add up to 0.5" in warning for warning in result.warnings)
    assert not np.isfinite(result.shares).any()
    assert result.to_dict()["log_likelihood"] is None
    assert "INCONSISTENT" in result.summary()
    with pytest.raises(jm.EstimateError, match="INCONSISTENT"):
        result.raise_if_failed()
