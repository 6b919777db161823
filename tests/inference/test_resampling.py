"""Bootstrap draws: their distribution, their independence of chunks, and what they are for."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmix as jm
from jaxmix.inference import resampling
from jaxmix.sample.resamples import draws as drawing
from tests import oracles
from tests.helpers import causal_data, linear_rows, population

kinds = pytest.mark.parametrize("kind", drawing.KINDS)


def effect(moments):
    return jm.bridge.solve(moments).value.effect


def law_numbers(moments):
    law = jm.synthetic.effect_law(moments, 2)
    return jnp.concatenate([law.effects, law.shares])


@pytest.fixture(scope="module")
def views():
    frame = linear_rows(np.random.default_rng(0), 500)
    frame["g"] = np.random.default_rng(1).integers(0, 60, 500)
    return jm.features.encode(causal_data(frame))


@pytest.fixture(scope="module")
def clustered():
    frame = linear_rows(np.random.default_rng(0), 500)
    frame["g"] = np.random.default_rng(1).integers(0, 60, 500)
    return jm.features.encode(causal_data(frame, cluster="g"))


@pytest.fixture(scope="module")
def repeated(views):
    times = np.random.default_rng(2).integers(0, 40, len(views.t))
    return views.redesigned(multiplicity=jnp.asarray(times, float), repeated=True)


def drawn(views, kind, count=2000):
    keys = jax.random.split(jax.random.key(3), count)
    return np.asarray(jax.jit(lambda k: drawing.draw_multiplicities(k, views, kind))(keys))


@kinds
def test_multiplicities_have_the_right_mean_and_variance(views, repeated, kind):
    for rows in (views, repeated):
        found, expected = drawn(rows, kind), np.asarray(rows.multiplicity)
        total = expected.sum()
        variance = expected * (1 - expected / total) if kind == "multinomial" else expected
        # Standard errors of a mean and (generously: kurtosis up to 9) of a variance of 2,000.
        slack = 5 * np.sqrt(expected / 2000) + 1e-12
        assert (np.abs(found.mean(0) - expected) < slack).all()
        assert (np.abs(found.var(0) - variance) < 5 * variance * np.sqrt(8 / 2000) + 0.15).all()
        if kind == "multinomial":
            np.testing.assert_allclose(found.sum(1), total)
        if kind != "bayesian":
            assert (found == np.floor(found)).all()
        assert (found >= 0).all()


def test_poisson_draws_have_poisson_probabilities(views):
    found = drawn(views, "poisson").ravel()
    for j, p in enumerate(np.exp(-1.0) / np.array([1, 1, 2, 6, 24, 120])):
        assert abs((found == j).mean() - p) < 5 * np.sqrt(p / found.size)


@kinds
def test_clusters_are_drawn_whole(clustered, kind):
    found, cluster = drawn(clustered, kind, 50), np.asarray(clustered.cluster)
    for g in np.unique(cluster):
        inside = found[:, cluster == g]
        assert (inside == inside[:, :1]).all()
    assert np.std(found) > 0


@kinds
def test_chunks_and_counts_of_resamples_change_no_draw(views, repeated, kind):
    for rows in (views, repeated):
        runs = [
            resampling.bootstrap(
                effect, rows, key=jax.random.key(0), num_resamples=n, kind=kind, chunk_size=c
            )
            for n, c in [(21, None), (21, 7), (21, 4), (9, 2)]
        ]
        for other in runs[1:]:
            np.testing.assert_allclose(other, runs[0][: len(other)], rtol=1e-10)
        assert np.std(runs[0]) > 0


def test_progress_is_told_and_changes_nothing(views):
    told = []
    options = {"key": jax.random.key(0), "num_resamples": 30, "chunk_size": 4}
    watched = resampling.bootstrap(effect, views, progress=lambda *a: told.append(a), **options)
    np.testing.assert_allclose(watched, resampling.bootstrap(effect, views, **options), rtol=1e-10)
    assert told[-1] == (30, 30)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert len(told) > 3


def test_keys_matter(views):
    runs = [
        resampling.bootstrap(effect, views, key=jax.random.key(s), num_resamples=5) for s in (0, 1)
    ]
    assert not np.allclose(*runs)


@kinds
def test_standard_errors_agree_with_the_influence_function(views, kind):
    draws = resampling.bootstrap(
        effect, views, key=jax.random.key(5), num_resamples=2000, kind=kind
    )
    analytic = float(jm.asymptotic.standard_errors(effect, views))
    # An instrumental-variable estimate has heavy tails, so the middle half is compared.
    spread = np.subtract(*np.quantile(draws, [0.75, 0.25])) / 1.349
    assert spread == pytest.approx(analytic, rel=0.12)


@kinds
def test_bootstrap_of_counts_equals_numpy_in_distribution(kind):
    population_ = population("strong", 2, 2, 2)
    cells = population_.counts(np.random.default_rng(0), 100_000)
    draws = np.asarray(
        jm.bootstrap(
            law_numbers,
            jnp.asarray(cells, float),
            key=jax.random.key(0),
            num_resamples=3000,
            kind=kind,
        )
    )
    loop = oracles.multinomial_bootstrap_law(
        cells, 2, 3000, np.random.default_rng(1), population_.outcome_values
    )
    expected = np.concatenate([np.asarray(part) for part in loop], axis=1).real
    # Two standard deviations from 3,000 draws each: their ratio has a standard error of 2 %.
    np.testing.assert_allclose(draws.std(0), expected.std(0), rtol=0.08)
    np.testing.assert_allclose(draws.mean(0), expected.mean(0), atol=0.1 * expected.std(0).max())


def test_outcome_values_of_counts_reach_the_statistic():
    cells = jm.populations.paper_main().counts(jax.random.key(0), 10_000)
    options = {"key": jax.random.key(1), "num_resamples": 5}
    plain = jm.bootstrap(effect, cells, **options)
    scaled = jm.bootstrap(effect, cells, outcome_values=jnp.array([0.0, 10.0]), **options)
    np.testing.assert_allclose(scaled, 10 * plain, rtol=1e-8)


def test_whole_numbers_and_tables_with_roles_are_taken():
    cells = jm.populations.paper_main().counts(jax.random.key(0), 2000)
    options = {"key": jax.random.key(1), "num_resamples": 20}
    floats = jm.bootstrap(effect, cells, **options)
    whole = jm.bootstrap(effect, cells.astype(int), **options)
    np.testing.assert_array_equal(whole, floats)
    rows = jm.populations.paper_main().sample(jax.random.key(0), 2000)
    rows = {name: np.asarray(values) for name, values in rows.items()}
    data = jm.CausalData.from_frame(rows, treatment="T", outcome="Y", z=["Z"], x=["X"])
    by_table = jm.bootstrap(effect, data, **options)
    views = jm.features.encode(data, reduce=True)
    np.testing.assert_array_equal(by_table, jm.bootstrap(effect, views, **options))


def test_an_empty_cell_stays_empty():
    cells = (
        jnp.asarray(jm.populations.paper_main().counts(jax.random.key(0), 500))
        .at[0, 0, 0, 0]
        .set(0)
    )

    def first(moments):
        return moments.tensor[0, 0, 0, 0]

    draws = jm.bootstrap(first, cells, key=jax.random.key(1), num_resamples=50)
    np.testing.assert_array_equal(draws, 0.0)


def test_an_unknown_kind_is_refused(views):
    with pytest.raises(ValueError, match="multinomial, poisson, bayesian"):
        jm.bootstrap(effect, views, key=jax.random.key(0), num_resamples=5, kind="jackknife")


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_alignment_is_the_best_assignment(k):
    rng = np.random.default_rng(k)
    for _ in range(20):
        reference, profile = rng.normal(size=(2, 3, k))
        order, _ = resampling.align(jnp.asarray(profile), jnp.asarray(reference))

        def cost(p, reference=reference, profile=profile):
            return ((reference - profile[:, list(p)]) ** 2).sum()

        best = min(itertools.permutations(range(k)), key=cost)
        assert cost(order.tolist()) == pytest.approx(cost(best))


def test_alignment_says_when_classes_are_ambiguous_and_survives_nan():
    reference = jnp.array([[0.0, 1.0]])
    assert not resampling.align(jnp.array([[0.9, 0.1]]), reference)[1]
    assert resampling.align(jnp.array([[-0.3, 0.6]]), jnp.array([[0.5, 1.0]]))[1]
    order, _ = resampling.align(jnp.array([[jnp.nan, 0.1]]), reference)
    assert sorted(order.tolist()) == [0, 1]
