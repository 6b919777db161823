"""Standard errors by differentiation against sandwich formulas written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmix as jm
from tests import oracles
from tests.helpers import block, causal_data, linear_rows, population


def arrays(frame):
    w = block(frame, "w") if "w0" in frame else None
    return frame["y"], frame["t"].astype(int), block(frame, "z"), block(frame, "x"), w


@pytest.mark.parametrize("num_w", [0, 3])
@pytest.mark.parametrize("estimand", ["ATE", "ATT"])
def test_by_arm_standard_error_is_the_sandwich(num_w, estimand):
    frame = linear_rows(np.random.default_rng(0), 600, num_w=num_w)
    views = jm.features.encode(causal_data(frame))
    _, _, expected = oracles.bridge_by_arm(*arrays(frame), estimand=estimand)
    found = jm.asymptotic.standard_errors(
        lambda m: jm.bridge.solve(m, estimand=estimand).value.effect, views
    )
    assert float(found) == pytest.approx(expected, rel=1e-8)


def test_pooled_standard_error_is_hc0():
    frame = linear_rows(np.random.default_rng(1), 600, num_w=2)
    views = jm.features.encode(causal_data(frame))
    _, expected = oracles.bridge_pooled(*arrays(frame))
    found = jm.asymptotic.standard_errors(
        lambda m: jm.bridge.solve(m, form="pooled").value.effect, views
    )
    assert float(found) == pytest.approx(expected, rel=1e-8)


def test_overidentified_standard_error_is_near_the_sandwich():
    # The derivative also moves the two-stage weight: a term that vanishes as n grows.
    frame = linear_rows(np.random.default_rng(2), 4000, d_z=4)
    views = jm.features.encode(causal_data(frame))
    _, _, expected = oracles.bridge_by_arm(*arrays(frame))
    found = jm.asymptotic.standard_errors(lambda m: jm.bridge.solve(m).value.effect, views)
    assert float(found) == pytest.approx(expected, rel=0.05)


def test_standard_errors_keep_the_structure_of_the_statistic():
    views = jm.features.encode(causal_data(linear_rows(np.random.default_rng(3), 200)))

    def statistic(m):
        return {"means": jm.bridge.potential_means(m), "both": (m.y_by_arm, m.num_rows * 0.0)}

    together = jm.asymptotic.standard_errors(statistic, views)
    assert together["means"].shape == (2,)
    alone = jm.asymptotic.standard_errors(lambda m: m.y_by_arm, views)
    np.testing.assert_allclose(together["both"][0], alone)
    assert together["both"][1] == 0.0


def test_clusters_of_copies_are_as_good_as_one_row_each():
    frame = linear_rows(np.random.default_rng(4), 300)
    copies = {name: np.repeat(values, 3) for name, values in frame.items()}
    copies["g"] = np.repeat(np.arange(300), 3)

    def statistic(m):
        return jm.bridge.solve(m).value.effect

    single = jm.asymptotic.standard_errors(statistic, jm.features.encode(causal_data(frame)))
    whole = jm.features.encode(causal_data(copies, cluster="g"))
    np.testing.assert_allclose(jm.asymptotic.standard_errors(statistic, whole), single, rtol=1e-8)
    naive = jm.features.encode(causal_data(copies))
    np.testing.assert_allclose(
        jm.asymptotic.standard_errors(statistic, naive), single / np.sqrt(3), rtol=1e-8
    )


def test_multiplicities_count_as_rows():
    frame = linear_rows(np.random.default_rng(5), 120)
    times = np.random.default_rng(6).integers(1, 4, 120)
    repeated = {name: np.repeat(values, times) for name, values in frame.items()}

    def statistic(m):
        return jm.bridge.solve(m).value.effect

    by_rows = jm.asymptotic.standard_errors(statistic, jm.features.encode(causal_data(repeated)))
    counted = causal_data(frame | {"times": times}, weights="times", weights_kind="frequency")
    by_count = jm.asymptotic.standard_errors(statistic, jm.features.encode(counted))
    np.testing.assert_allclose(by_count, by_rows, rtol=1e-8)


def test_influence_predicts_what_leaving_a_row_out_does():
    views = jm.features.encode(causal_data(linear_rows(np.random.default_rng(7), 2000)))

    def statistic(m):
        return jm.bridge.solve(m).value.effect

    influence = np.asarray(jm.asymptotic.influence(statistic, views))
    base = float(statistic(jm.moments.from_rows(views)))
    for row in (0, 17, 1234):
        less = views.redesigned(multiplicity=views.multiplicity.at[row].set(0.0))
        change = float(statistic(jm.moments.from_rows(less))) - base
        assert change == pytest.approx(-influence[row], rel=0.05, abs=2e-6)
    assert abs(influence.sum()) < 1e-9


@pytest.mark.parametrize("shape", [("strong", 2, 2, 2), ("strong", 3, 5, 4)])
def test_delta_method_from_counts_agrees_with_influence_from_rows(shape):
    drawn, k = population(*shape), shape[1]
    cells = drawn.counts(np.random.default_rng(8), 50_000)

    def statistic(m):
        law = jm.spectral.effect_law(m, k)
        return jnp.concatenate([law.effects, law.shares])

    moments = jm.moments.from_counts(jnp.asarray(cells, float), covariance=True)
    delta = np.sqrt(np.diag(jm.asymptotic.delta_covariance(statistic, moments)))
    index = np.repeat(np.arange(cells.size), cells.ravel())
    t, z, x, y = np.unravel_index(index, cells.shape)
    data = causal_data({"t": t, "y": y, "z": z.astype(str), "x": x.astype(str)})
    views = jm.features.encode(data, reduce=True)
    assert len(views.t) <= cells.size
    np.testing.assert_allclose(jm.asymptotic.standard_errors(statistic, views), delta, rtol=1e-7)


def test_delta_method_needs_a_covariance():
    with pytest.raises(ValueError, match="covariance=True"):
        jm.asymptotic.delta_covariance(lambda m: m.y_by_arm, jm.populations.paper_main().moments())


def test_standard_errors_of_the_law_match_the_spread_over_samples():
    drawn = population("strong", 2, 3, 3)

    def numbers(m):
        law = jm.spectral.effect_law(m, 2)
        return jnp.concatenate([law.effects, law.shares])

    @jax.jit
    @jax.vmap
    def estimate(cells):
        moments = jm.moments.from_counts(cells, covariance=True)
        covariance = jm.asymptotic.delta_covariance(numbers, moments)
        return numbers(moments), jnp.sqrt(jnp.diag(covariance))

    rng = np.random.default_rng(9)
    tables = jnp.asarray(np.stack([drawn.counts(rng, 50_000) for _ in range(2000)]), float)
    values, errors = estimate(tables)
    # The standard deviation of 2,000 estimates has a relative standard error of 1.6 %.
    np.testing.assert_allclose(np.std(values, axis=0), np.mean(errors, axis=0), rtol=0.06)


def test_the_most_influential_rows_are_those_whose_absence_is_felt_most():
    frame = linear_rows(np.random.default_rng(10), 400)
    views = jm.features.encode(causal_data(frame))

    @jax.jit
    @jax.vmap
    def effect(multiplicity):
        rows = views.redesigned(multiplicity=multiplicity)
        return jm.bridge.solve(jm.moments.from_rows(rows)).value.effect

    *without, base = np.asarray(effect(jnp.ones((401, 400)) - jnp.eye(401, 400)))
    without = np.array(without) - base
    found = jm.asymptotic.most_influential(lambda m: jm.bridge.solve(m).value.effect, views, 5)
    assert set(np.asarray(found.rows).tolist()) == set(np.argsort(-np.abs(without))[:5].tolist())
    # First order: what is left out is of the second order, one row's leverage.
    np.testing.assert_allclose(found.change, without[np.asarray(found.rows)], rtol=0.1)
    assert np.all(np.diff(np.abs(found.change)) <= 0)


def test_influential_rows_of_a_merged_table_count_with_their_copies():
    drawn = population("strong", 2, 2, 2)
    cells = drawn.counts(np.random.default_rng(11), 3000)
    t, z, x, y = np.unravel_index(np.repeat(np.arange(cells.size), cells.ravel()), cells.shape)
    data = causal_data({"t": t, "y": y, "z": z.astype(str), "x": x.astype(str)})
    views = jm.features.encode(data, reduce=True)

    def statistic(m):
        return jm.bridge.solve(m).value.effect

    found = jm.asymptotic.most_influential(statistic, views, 3)
    influence = np.asarray(jm.asymptotic.influence(statistic, views))
    multiplicity = np.asarray(views.multiplicity)
    everyone = -multiplicity * influence
    assert np.asarray(found.rows).tolist() == np.argsort(-np.abs(everyone))[:3].tolist()
    np.testing.assert_allclose(found.multiplicity, multiplicity[np.asarray(found.rows)])
    np.testing.assert_allclose(found.change, everyone[np.asarray(found.rows)], rtol=1e-10)


def test_influential_rows_are_asked_of_one_number_and_of_rows_that_exist():
    views = jm.features.encode(causal_data(linear_rows(np.random.default_rng(12), 50)))
    with pytest.raises(ValueError, match="use 1 to 50"):
        jm.asymptotic.most_influential(lambda m: m.y_by_arm[1], views, 51)
    with pytest.raises(ValueError, match="several numbers"):
        jm.asymptotic.most_influential(lambda m: m.y_by_arm, views, 1)
