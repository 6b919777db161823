"""Every estimator of an effect law, on every population, under every transform."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmix as jm
from jaxmix import Status
from tests import oracles
from tests.helpers import LAW_ESTIMATORS, POPULATIONS, exact_moments, population

estimators = pytest.mark.parametrize("name", LAW_ESTIMATORS)
populations = pytest.mark.parametrize("shape", POPULATIONS, ids=lambda s: "-".join(map(str, s)))


@functools.cache
def compiled(name, k, **options):
    """Return the compiled estimator: one compilation per shape, not one per operation."""
    return jax.jit(lambda moments: LAW_ESTIMATORS[name](moments, k, **options))


def flat(law):
    return jnp.concatenate([law.effects, law.shares])


@estimators
@populations
def test_exact_moments_give_the_exact_law(name, shape):
    drawn = population(*shape)
    law = compiled(name, shape[1])(exact_moments(drawn))
    effects, shares = drawn.law()
    assert law.status == Status.SUCCESS
    np.testing.assert_allclose(law.effects, effects, atol=1e-8)
    np.testing.assert_allclose(law.shares, shares, atol=1e-8)


@estimators
@populations
def test_law_of_the_treated(name, shape):
    drawn = population(*shape)
    law = compiled(name, shape[1], estimand="ATT")(exact_moments(drawn))
    effects, shares = drawn.law(treated=True)
    np.testing.assert_allclose(law.effects, effects, atol=1e-8)
    np.testing.assert_allclose(law.shares, shares, atol=1e-8)
    np.testing.assert_allclose(law.mean, drawn.att(), atol=1e-8)


@estimators
@pytest.mark.parametrize("shape", [("strong", 2, 2, 2), ("strong", 3, 6, 5), ("strong", 1, 3, 2)])
def test_jit_and_vmap_change_nothing(name, shape):
    drawn, k = population(*shape), shape[1]
    rng = np.random.default_rng(1)
    tables = jnp.asarray(np.stack([drawn.counts(rng, 100_000) for _ in range(5)]), float)

    def estimate(cells):
        return flat(LAW_ESTIMATORS[name](jm.moments.from_counts(cells), k))

    one_by_one = np.stack([estimate(cells) for cells in tables])
    # Batched kernels order their sums otherwise; well-conditioned, that is a few ulps.
    np.testing.assert_allclose(jax.jit(estimate)(tables[0]), one_by_one[0], atol=1e-10)
    np.testing.assert_allclose(jax.vmap(estimate)(tables), one_by_one, atol=1e-10)
    np.testing.assert_allclose(jax.jit(jax.vmap(estimate))(tables), one_by_one, atol=1e-10)


@functools.cache
def with_slopes(name, k):
    """Return a compiled function: a weighted sum, its derivative forwards, and backwards."""

    def along(step, cells, direction, weights):
        moments = jm.moments.from_counts(cells + step * direction)
        return flat(LAW_ESTIMATORS[name](moments, k)) @ weights

    @jax.jit
    def of(step, *data):
        value, forward = jax.jvp(lambda s: along(s, *data), (step,), (1.0,))
        return value, forward, jax.grad(along)(step, *data)

    return of


@estimators
@pytest.mark.parametrize(
    "shape", [("strong", 2, 2, 2), ("strong", 3, 6, 5), ("strong", 3, 3, 4), ("strong", 1, 3, 2)]
)
@pytest.mark.parametrize("exact", [True, False], ids=["population", "sample"])
def test_gradients_match_central_differences(name, shape, exact):
    drawn, k = population(*shape), shape[1]
    rng = np.random.default_rng(2)
    cells = drawn.joint() if exact else drawn.counts(rng, 200_000) / 200_000
    direction = rng.normal(size=cells.shape) * cells
    weights = rng.normal(size=2 * k)
    of, step = with_slopes(name, k), 1e-5
    (above, *_), (below, *_) = (of(s, cells, direction, weights) for s in (step, -step))
    _, *slopes = of(0.0, cells, direction, weights)
    for slope in slopes:
        np.testing.assert_allclose(slope, (above - below) / (2 * step), rtol=1e-6, atol=1e-7)


@estimators
@pytest.mark.parametrize(
    "shape", [("strong", 2, 2, 2), ("strong", 2, 4, 4), ("strong", 3, 3, 3), ("strong", 1, 3, 2)]
)
def test_float32_stays_float32_and_is_close(name, shape):
    drawn = population(*shape)
    law = compiled(name, shape[1])(exact_moments(drawn, np.float32))
    assert law.effects.dtype == law.shares.dtype == jnp.float32
    effects, shares = drawn.law()
    # Half of float32's seven digits is what a well-conditioned inverse may cost.
    np.testing.assert_allclose(law.effects, effects, atol=2e-3)
    np.testing.assert_allclose(law.shares, shares, atol=2e-3)


@estimators
def test_float32_gradients(name):
    drawn = population("strong", 2, 3, 3)

    def estimate(cells):
        return flat(LAW_ESTIMATORS[name](jm.moments.from_counts(cells), 2))[0]

    exact = jax.jit(jax.grad(estimate))(jnp.asarray(drawn.joint()))
    low = jax.jit(jax.grad(estimate))(jnp.asarray(drawn.joint(), jnp.float32))
    assert low.dtype == jnp.float32
    np.testing.assert_allclose(low, exact, atol=2e-3 * np.abs(exact).max())


@estimators
def test_estimates_follow_shifts_and_scales_of_the_outcome(name):
    drawn = population("strong", 3, 6, 5)
    cells = jnp.asarray(drawn.counts(np.random.default_rng(3), 50_000), float)
    values = jnp.asarray(drawn.outcome_values)
    plain = LAW_ESTIMATORS[name](jm.moments.from_counts(cells, values), 3)
    moved = LAW_ESTIMATORS[name](jm.moments.from_counts(cells, 1e4 * values - 3e4), 3)
    np.testing.assert_allclose(moved.effects, 1e4 * plain.effects, rtol=1e-8)
    np.testing.assert_allclose(moved.shares, plain.shares, rtol=1e-8)


@estimators
def test_effects_of_a_second_treated_arm(name):
    # Three arms: arm 2 is arm 0 of another population with the same classes and proxies.
    drawn = population("strong", 2, 4, 4)
    means = np.array([[0.2, 0.7], [0.6, 0.3], [0.9, 0.5]])  # (t, u)
    p_z, p_x = drawn.p_zt.sum(1), drawn.p_x
    joint = np.einsum("u,t,uz,ux,tu->tzx", drawn.shares, [0.3, 0.3, 0.4], p_z, p_x, means)
    rest = np.einsum("u,t,uz,ux,tu->tzx", drawn.shares, [0.3, 0.3, 0.4], p_z, p_x, 1 - means)
    moments = jm.moments.of_population(jnp.stack([rest, joint], axis=-1))
    for arm in (1, 2):
        law = compiled(name, 2, arm=arm)(moments)
        effects = means[arm] - means[0]
        order = effects.argsort()
        np.testing.assert_allclose(law.effects, effects[order], atol=1e-8)
        np.testing.assert_allclose(law.shares, drawn.shares[order], atol=1e-8)


@estimators
def test_no_failed_fit_on_the_appendix_design_with_joint_proxies(name):
    cells = np.stack(
        [
            np.asarray(jm.populations.paper_appendix().counts(jax.random.key(seed), 1_000_000))
            for seed in range(300)
        ]
    )
    laws = jax.jit(jax.vmap(lambda c: LAW_ESTIMATORS[name](jm.moments.from_counts(c), 2)))(cells)
    failed = [
        oracles.is_failed(np.asarray(e), np.asarray(s), np.arange(2.0))
        for e, s in zip(laws.effects, laws.shares, strict=True)
    ]
    assert sum(failed) == 0
    assert (np.asarray(laws.status) == Status.SUCCESS).all()


def test_plain_pseudo_inverse_fails_on_the_appendix_design():
    rng = np.random.default_rng(0)
    drawn = oracles.paper_appendix()
    failed = 0
    for _ in range(300):
        try:
            effects, shares = oracles.spo_published(
                drawn.counts(rng, 1_000_000), 2, drawn.outcome_values
            )
            failed += oracles.is_failed(effects, shares, drawn.outcome_values)
        except np.linalg.LinAlgError:
            failed += 1
    assert 40 <= failed <= 110  # about a quarter: 75 with a standard error of 7.5


@pytest.mark.parametrize("quadrature", ["gauss", "pencil", "prony"])
def test_synthetic_equals_the_published_algorithm_where_nothing_is_truncated(quadrature):
    rng = np.random.default_rng(4)
    for zt in (0.0, 0.5, 1.0):
        drawn = oracles.paper_main(zt)
        for _ in range(20):
            cells = drawn.counts(rng, 5000)
            effects, shares = oracles.spo_published(cells, 2, drawn.outcome_values)
            law = compiled(f"synthetic-{quadrature}", 2)(
                jm.moments.from_counts(jnp.asarray(cells, float))
            )
            np.testing.assert_allclose(law.effects, effects, atol=1e-8)
            np.testing.assert_allclose(law.shares, shares, atol=1e-8)


@pytest.mark.parametrize("shape", [("strong", 2, 4, 4), ("strong", 3, 6, 6)])
def test_samples_agree_with_the_numpy_oracles(shape):
    drawn, k = population(*shape), shape[1]
    cells = drawn.counts(np.random.default_rng(5), 100_000)
    moments = jm.moments.from_counts(jnp.asarray(cells, float))
    # The oracle truncates an outcome as it comes, the library a centred one.
    centred = drawn.outcome_values - cells.sum((0, 1, 2)) @ drawn.outcome_values / cells.sum()
    effects, shares = oracles.spo_rank_k(cells, k, centred)
    law = jm.synthetic.effect_law(moments, k)
    np.testing.assert_allclose(law.effects, effects, atol=1e-8)
    np.testing.assert_allclose(law.shares, shares, atol=1e-8)
