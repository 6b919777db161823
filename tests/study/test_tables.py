"""Replicate tables: their columns, and their numbers against public functions called by hand."""

import zlib

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.stats import norm

import jaxmix as jm
from jaxmix import study
from jaxmix.estimators import baselines
from jaxmix.inference import profile
from jaxmix.solvers import sampling
from jaxmix.status import Status
from jaxmix.study.sweep import cell_key
from tests.study_helpers import of, ran, table, write

LABELS = ["spectral", "mine", "difference_in_means"]
R, N = 40, 50  # few rows, so that some fits fail
BASE = f"""\
name = "table"
seed = 5
num_replicates = {R}
num_rows = {N}
estimators = ["spectral", "mine", "difference_in_means"]

[options.mine]
method = "bridge"

[population]
kind = "paper_main"

[zip]
zt_strength = [0, 0.5]
xy_strength = [0.0, 1.0]
"""
DELTA = BASE + '[intervals]\nkind = "delta"\nconfidence = 0.9\n'
RESAMPLED = BASE.replace('["spectral", "mine", "difference_in_means"]', '["bridge"]').replace(
    '[options.mine]\nmethod = "bridge"\n', ""
)
RESAMPLED = RESAMPLED.replace("[0, 0.5]", "[0.5]").replace("[0.0, 1.0]", "[0.0]")
RESAMPLED = RESAMPLED.replace(f"num_replicates = {R}", "num_replicates = 6")
RESAMPLED += '[intervals]\nkind = "bootstrap"\nconfidence = 0.8\nnum_resamples = 30\n'


# A resample out of range is an estimate still; these are none.
WITHOUT = (Status.COMPLEX_SPECTRUM, Status.INDEFINITE_MOMENTS, Status.RANK_DEFICIENT,
           Status.NONFINITE)  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return ran(tmp_path_factory.mktemp("table"), DELTA, chunk_size=20)


def draw(store, replicate, *, position=0, covariance=False):
    """Return the moments of one replicate, and the parent of its keys."""
    cell = store.config.cells[position]
    key = jax.random.fold_in(cell_key(cell), replicate)
    population = cell.population.build()
    counts = population.counts(jax.random.fold_in(key, 0), cell.num_rows)
    moments = jm.moments.from_counts(counts, population.outcome_values, covariance=covariance)
    return moments, key


def test_columns_and_types(store):
    path = store.table_path(store.config.cells[1])
    schema = pq.read_schema(path)
    results = ["cell", "zt_strength", "xy_strength", "estimator", "replicate", "status", "ate",
               "error", "effects", "shares"]  # fmt: skip
    assert schema.names[:10] == results
    spreads = [f"{n}_{part}" for part in ("se", "lower", "upper") for n in ("ate", "effects")]
    truths = ["true_ate", "true_effects", "true_shares", "bound_ate", "bound_error"]
    assert set(spreads + truths) <= set(schema.names)
    assert len(schema.names) == len(set(schema.names)) == 10 + 9 + 5
    for name in ("zt_strength", "xy_strength", "ate", "error", "true_ate", "ate_se", "bound_ate"):
        assert schema.field(name).type == pa.float64(), name
    assert schema.field("replicate").type == pa.int64()
    for name in ("effects", "shares", "true_effects", "shares_upper"):
        assert schema.field(name).type == pa.list_(pa.float64()), name


def test_rows_are_replicates_and_within_each_the_estimators(store):
    for position, factors in enumerate(((0.0, 0.0), (0.5, 1.0))):
        frame = table(store, position)
        assert frame["replicate"].tolist() == np.repeat(np.arange(R), 3).tolist()
        assert frame["estimator"].tolist() == LABELS * R
        assert set(frame["cell"]) == {store.config.cells[position].hash}
        assert set(zip(frame["zt_strength"], frame["xy_strength"], strict=True)) == {factors}


def test_truth_and_bounds_are_the_populations(store):
    for position, cell in enumerate(store.config.cells):
        frame = table(store, position)
        population = cell.population.build()
        law = population.law
        assert set(frame["true_ate"]) == {float(population.ate)}
        for row in range(3):
            np.testing.assert_allclose(frame["true_effects"][row], law.effects, atol=1e-12)
            np.testing.assert_allclose(frame["true_shares"][row], law.shares, atol=1e-12)
        bound = population.efficiency_bound(N, level=max(3, population.level))
        np.testing.assert_allclose(frame["bound_ate"], bound.ate, rtol=1e-8)
        np.testing.assert_allclose(frame["bound_error"], bound.error, rtol=1e-8)
    assert np.isinf(table(store, 1)["bound_error"]).all()  # X causes Y: no law is identified


def test_methods_without_classes_have_no_vectors(store):
    for label in LABELS[1:]:
        found = of(store, label)
        for name in ("effects", "shares", "effects_se", "shares_lower", "effects_upper"):
            assert found[name].isna().all()
        assert found["error"].isna().all()
        assert np.isfinite(found["true_effects"].iloc[0]).all()


def test_failed_replicates_are_there(store):
    found = of(store, "spectral")
    assert len(found) == R
    failed = [Status[name] >= Status.MAX_STEPS for name in found["status"]]
    assert 0 < sum(failed) < R
    assert {len(effects) for effects in found["effects"]} == {2}


def test_estimates_are_those_of_the_public_functions(store):
    spectral, bridge, naive = (of(store, label) for label in LABELS)
    for i in range(R):
        moments, _ = draw(store, i)
        law = jm.spectral.effect_law(moments, 2)
        assert spectral["status"][i] == Status(int(law.status)).name
        if law.status == Status.SUCCESS:
            np.testing.assert_allclose(spectral["effects"][i], law.effects, rtol=1e-8)
            np.testing.assert_allclose(spectral["shares"][i], law.shares, rtol=1e-8)
            mean = float((law.effects * law.shares).sum())
            assert spectral["ate"][i] == pytest.approx(mean, rel=1e-7, abs=1e-9)
            error = ((law.effects - np.array([-0.75, 0.75])) ** 2 + (law.shares - 0.5) ** 2).sum()
            assert spectral["error"][i] == pytest.approx(float(error), rel=1e-7)
        assert naive["ate"][i] == pytest.approx(
            float(baselines.difference_in_means(moments)), rel=1e-10, abs=1e-12
        )
        if bridge["status"][i] == "SUCCESS":
            low, high = jm.bridge.potential_means(moments, rank=2)
            assert bridge["ate"][i] == pytest.approx(float(high - low), rel=1e-8, abs=1e-10)


def test_error_is_that_of_the_row(store):
    found = of(store, "spectral")
    effects, shares, true_effects, true_shares = (
        np.stack(found[name]) for name in ("effects", "shares", "true_effects", "true_shares")
    )
    error = ((effects - true_effects) ** 2 + (shares - true_shares) ** 2).sum(1)
    np.testing.assert_allclose(found["error"], error, rtol=1e-12)
    good = (found["status"] == "SUCCESS").to_numpy()
    assert (np.diff(effects[good], axis=1) >= 0).all()


def test_delta_intervals_are_those_of_the_public_function(store):
    found, bridge = of(store, "spectral"), of(store, "mine")
    compared = 0
    for i in range(0, R, 4):
        moments, _ = draw(store, i, covariance=True)

        def law(m):
            law = jm.spectral.effect_law(m, 2)
            return jax.numpy.concatenate([law.mean[None], law.effects, law.shares])

        def effect(m):
            means = jm.bridge.potential_means(m, rank=2)
            return (means[1] - means[0])[None]

        if found["status"][i] == "SUCCESS":
            compared += 1
            se = np.sqrt(np.diag(jm.asymptotic.delta_covariance(law, moments)))
            own = [found["ate_se"][i], *found["effects_se"][i], *found["shares_se"][i]]
            np.testing.assert_allclose(own, se, rtol=1e-6)
        if bridge["status"][i] == "SUCCESS":
            se = np.sqrt(jm.asymptotic.delta_covariance(effect, moments)[0, 0])
            assert bridge["ate_se"][i] == pytest.approx(float(se), rel=1e-6)
    assert compared > 1
    quantile = 1.6448536269514722  # of 95 %: two-sided confidence 0.9
    for frame in (found, bridge):
        for side, name in ((-1, "ate_lower"), (1, "ate_upper")):
            np.testing.assert_allclose(
                frame[name], frame["ate"] + side * quantile * frame["ate_se"], rtol=1e-10
            )
    for side, name in ((-1, "lower"), (1, "upper")):
        for vector in ("effects", "shares"):
            own = np.stack(found[f"{vector}_{name}"])
            middle, se = np.stack(found[vector]), np.stack(found[f"{vector}_se"])
            np.testing.assert_allclose(own, middle + side * quantile * se, rtol=1e-10)


def test_bootstrap_intervals_are_those_of_a_loop(tmp_path):
    store = ran(tmp_path, RESAMPLED)
    found = of(store, "bridge")
    assert len(found) == 6
    left_out = 0
    for i in range(6):
        moments, key = draw(store, i)
        counts = np.asarray(store.config.cells[0].population.build().counts(
            jax.random.fold_in(key, 0), N))  # fmt: skip
        of_tables = jax.random.fold_in(key, 3)
        values = []  # of those resamples that have an estimate
        for b in range(30):
            own = jax.random.fold_in(of_tables, b)[None]
            cells = sampling.multinomial(own, N, jax.numpy.asarray(counts.reshape(-1)))
            resampled = jm.moments.from_counts(cells[0].reshape(counts.shape), moments.value_y)
            solution = jm.bridge.solve(resampled, rank=2)
            if int(solution.status) not in WITHOUT:
                values.append(float(solution.value.effect))
        left_out += 30 - len(values)
        if len(values) < 15:
            assert np.isnan(found.loc[i, ["ate_se", "ate_lower", "ate_upper"]].astype(float)).all()
            continue
        lower, upper = np.quantile(values, [0.1, 0.9])
        assert found["ate_lower"][i] == pytest.approx(lower, rel=1e-7)
        assert found["ate_upper"][i] == pytest.approx(upper, rel=1e-7)
        assert found["ate_se"][i] == pytest.approx(np.std(values, ddof=1), rel=1e-7)
    assert left_out > 0


def test_profile_intervals_are_those_of_the_library(tmp_path):
    text = RESAMPLED.replace('["bridge"]', '["factorization"]').replace("bootstrap", "profile")
    text = text.replace("num_resamples = 30\n", "").replace(f"num_rows = {N}", "num_rows = 1000")
    store = ran(tmp_path, text)
    found = of(store, "factorization")
    for i in (0, 3):
        moments, _ = draw(store, i)
        solution = jm.factorization.solve(moments, 2, key=jax.random.key(0))
        own = profile.intervals(moments, 2, solution.stats["start"], confidence=0.8)
        assert [found["ate_lower"][i], found["ate_upper"][i]] == pytest.approx(
            own.effect.tolist(), abs=1e-4
        )
        ends = np.stack([found["effects_lower"][i], found["effects_upper"][i]], axis=1)
        np.testing.assert_allclose(ends, own.effects, atol=1e-4)
        width = float(own.effect[1] - own.effect[0])
        assert found["ate_se"][i] == pytest.approx(width / 2 / 1.2815515655446004, abs=1e-4)


@pytest.fixture(scope="module", params=["spectral", "factorization"])
def by_kind(request, tmp_path_factory):
    """Return an estimator, and its tables by kind of interval."""
    text = RESAMPLED.replace('["bridge"]', f'["{request.param}"]')
    text = text.replace("num_replicates = 6", "num_replicates = 3")
    text = text.replace(f"num_rows = {N}", "num_rows = 1000")
    kinds = ("percentile", "basic", "normal", "studentized", "bca")
    if request.param == "factorization":  # which differs in where resamples start
        kinds = ("percentile",)
    folder = tmp_path_factory.mktemp(request.param)
    stores = {}
    for kind in kinds:
        (folder / kind).mkdir()
        stores[kind] = ran(folder / kind, text.replace('"bootstrap"', f'"{kind}"'))
    return request.param, stores


def test_kinds_of_interval_are_those_of_a_loop(by_kind):
    estimator, stores = by_kind
    store = stores["percentile"]
    shape = store.config.cells[0].population.shape

    def law(moments, key, start):
        if estimator == "spectral":
            law = jm.spectral.effect_law(moments, 2)
        else:
            law = jm.factorization.effect_law(moments, 2, key=key, start=start)
        return jax.numpy.concatenate([law.mean[None], law.effects, law.shares]), law

    @jax.jit
    def estimate(cells, key, start=None):
        moments = jm.moments.from_counts(cells.reshape(shape), covariance=True)
        vector, found = law(moments, key, start)
        if estimator == "factorization":
            return vector, vector, vector, found.status, found.stats["start"]
        covariance = jm.asymptotic.delta_covariance(lambda m: law(m, key, start)[0], moments)
        slopes = jax.jacrev(
            lambda c: law(jm.moments.from_counts(c.reshape(shape)), key, start)[0]
        )(cells)  # fmt: skip
        errors = jax.numpy.sqrt(jax.numpy.diagonal(covariance))
        return vector, errors, slopes, found.status, None

    for i in range(3):
        moments, key = draw(store, i)
        counts = np.round(np.asarray(moments.tensor) * 1000).reshape(-1)
        own = jax.random.fold_in(jax.random.fold_in(key, 1), zlib.crc32(estimator.encode()))
        value, se, slopes, _, start = estimate(jax.numpy.asarray(counts), own)
        value, se = np.asarray(value), np.asarray(se)
        skew = np.zeros(5)
        if estimator == "spectral":
            third, second = (np.asarray(slopes) ** power @ counts for power in (3, 2))
            skew = third / (6 * second**1.5)
        draws, errors = [], []
        for b in range(30):
            of_table = jax.random.fold_in(jax.random.fold_in(key, 3), b)[None]
            cells = sampling.multinomial(of_table, 1000, jax.numpy.asarray(counts))[0]
            found = estimate(cells, jax.random.fold_in(own, b), start)
            if int(found[3]) not in WITHOUT:
                draws.append(found[0])
                errors.append(found[1])
        assert len(draws) > 15
        draws, errors = np.array(draws), np.array(errors)
        quantile = 1.2815515655446004  # of 90 %
        low, high = np.quantile(draws, [0.1, 0.9], axis=0)
        t_low, t_high = np.quantile((draws - value) / errors, [0.1, 0.9], axis=0)
        spread = draws.std(axis=0, ddof=1)
        expected = {
            "percentile": (low, high),
            "basic": (2 * value - high, 2 * value - low),
            "normal": (value - quantile * spread, value + quantile * spread),
            "studentized": (value - se * t_high, value - se * t_low),
            "bca": tuple(
                np.array([
                    np.quantile(draws[:, j], norm.cdf(z0 + (z0 + z) / (1 - skew[j] * (z0 + z))))
                    for j in range(5)
                    for z0 in [norm.ppf(np.mean(draws[:, j] < value[j]))]
                ])
                for z in (-quantile, quantile)
            ),
        }  # fmt: skip
        for kind, own_store in stores.items():
            row = of(own_store, estimator).loc[i]
            for side, end in zip(("lower", "upper"), expected[kind], strict=True):
                got = [row[f"ate_{side}"], *row[f"effects_{side}"], *row[f"shares_{side}"]]
                np.testing.assert_allclose(got, end, rtol=1e-6, err_msg=f"{kind} {side}")
            np.testing.assert_allclose(row["ate_se"], spread[0], rtol=1e-6)


def test_percentile_is_another_name_of_bootstrap(tmp_path):
    configs = [
        study.load(write(tmp_path, RESAMPLED.replace('"bootstrap"', f'"{kind}"')))
        for kind in ("bootstrap", "percentile", "basic")
    ]
    first, second, other = (config.cells[0].hash for config in configs)
    assert first == second != other


def test_random_starts_are_of_the_estimators_own_key(tmp_path):
    text = BASE.replace('["spectral", "mine", "difference_in_means"]', '["mine"]').replace(
        'method = "bridge"', 'method = "em"\nnum_starts = 1\nmax_steps = 30'
    )
    text = text.replace("[0, 0.5]", "[0.5]").replace("[0.0, 1.0]", "[0.0]").replace("= 50", "= 500")
    store = ran(tmp_path, text.replace(f"num_replicates = {R}", "num_replicates = 3"))
    found = of(store, "mine")
    for i in range(3):
        moments, key = draw(store, i)
        own = jax.random.fold_in(jax.random.fold_in(key, 1), zlib.crc32(b"mine"))
        law = baselines.em(moments, 2, key=own, num_starts=1, max_steps=30)
        assert found["status"][i] == Status(int(law.status)).name
        np.testing.assert_allclose(found["effects"][i], law.effects, rtol=1e-6)


@pytest.mark.parametrize("factor", ["effects", "shares"])
def test_factors_may_be_called_like_results(factor, tmp_path):
    text = BASE.replace('"paper_main"', '"block"').split("[zip]")[0]
    values = {"effects": [[-0.25, 0.5], [0.0, 0.5]], "shares": [[0.25, 0.75], [0.5, 0.5]]}[factor]
    store = ran(tmp_path, f"{text}[grid]\n{factor} = {values}\n", chunk_size=20)
    assert store.config.factor_names == (f"population_{factor}",)
    for position in range(2):
        frame = table(store, position)
        np.testing.assert_allclose(frame[f"true_{factor}"][0], values[position], atol=1e-12)
        assert set(frame[f"population_{factor}"]) == {str(values[position])}
    lines = store.summary_path.read_text().splitlines()
    assert lines[0].startswith(f"estimator,population_{factor},num_replicates,num_failed,metric")
