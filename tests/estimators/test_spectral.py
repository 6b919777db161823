"""Level 3 where it is hard: ties, complex spectra, missing rank, ranges."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmix as jm
from jaxmix import Status
from tests import oracles
from tests.helpers import population

TIED = {  # class means by arm: two of three classes share one effect, none shares both means
    "means": np.array([[0.1, 0.5, 0.6], [0.4, 0.8, 0.2]]),
    "shares": np.array([0.3, 0.3, 0.4]),
}


def tied_joint(seed=0, means=TIED["means"]):
    """Return the joint law of a level-3 population with given class means."""
    strong = population("strong", 3, 4, 5, seed)
    p_y = np.stack([1 - means.T, means.T], axis=-1)  # (u, t, y)
    return np.einsum("u,utz,ux,uty->tzxy", TIED["shares"], strong.p_zt, strong.p_x, p_y), strong


def test_spectral_tells_classes_apart_that_share_an_effect():
    joint, strong = tied_joint()
    solution = jm.spectral.solve(jm.moments.of_population(jnp.asarray(joint)), 3)
    assert solution.status == Status.SUCCESS
    mixture = solution.value
    order = np.argsort(np.asarray(mixture.means[0]))
    np.testing.assert_allclose(mixture.means[:, order], TIED["means"], atol=1e-8)
    np.testing.assert_allclose(mixture.shares[order], TIED["shares"], atol=1e-8)
    np.testing.assert_allclose(mixture.x_profiles[:, order], strong.p_x.T, atol=1e-8)


@pytest.mark.parametrize("quadrature", ["gauss", "pencil", "prony"])
def test_synthetic_merges_classes_that_share_an_effect(quadrature):
    joint, _ = tied_joint()
    law = jm.synthetic.effect_law(jm.moments.of_population(jnp.asarray(joint)), 3, quadrature)
    assert law.status == Status.SUCCESS
    np.testing.assert_allclose(law.effects[:2], [-0.4, 0.3], atol=1e-8)
    np.testing.assert_allclose(law.shares, [0.4, 0.6, 0.0], atol=1e-8)
    np.testing.assert_allclose(law.effects[2], 0.3, atol=1e-8)


def test_spectral_equals_its_numpy_oracle_on_samples_where_effects_are_apart():
    # With two classes any contrast of the arms has the same eigenvectors at full rank.
    drawn = population("strong", 2, 2, 2)
    cells = drawn.counts(np.random.default_rng(0), 50_000)
    effects, shares, _ = oracles.spectral(cells, 2, drawn.outcome_values)
    law = jm.spectral.effect_law(jm.moments.from_counts(jnp.asarray(cells, float)), 2)
    np.testing.assert_allclose(law.effects, effects, atol=2e-2)  # another contrast, same limit
    np.testing.assert_allclose(law.shares, shares, atol=2e-2)


@pytest.mark.parametrize("order", [0, 1, 4, 7])
def test_synthetic_moments_are_moments_of_the_effects(order):
    drawn = population("strong", 3, 4, 4)
    moments = jm.moments.of_population(jnp.asarray(drawn.joint()), jnp.array([-3.0, 5.0]))
    effects, shares = drawn.law()
    expected = [(shares * (8 * effects) ** p).sum() for p in range(order + 1)]
    found = jm.synthetic.effect_moments(moments, 3, order)
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8)


def noisy_tables(count=400, n=300):
    """Return small samples in which closed forms often break down."""
    drawn = population("generic", 3, 5, 5, seed=3)
    rng = np.random.default_rng(7)
    return np.stack([drawn.counts(rng, n) for _ in range(count)]).astype(float)


def test_failures_in_samples_are_told_apart():
    tables = jnp.asarray(noisy_tables())

    def both(cells):
        moments = jm.moments.from_counts(cells)
        return jm.synthetic.effect_law(moments, 3), jm.spectral.effect_law(moments, 3)

    synthetic, spectral = jax.jit(jax.vmap(both))(tables)
    seen = {Status(int(s)) for s in np.unique(synthetic.status)}
    assert Status.INDEFINITE_MOMENTS in seen
    assert Status.COMPLEX_SPECTRUM in {Status(int(s)) for s in np.unique(spectral.status)}
    for law in (synthetic, spectral):
        status = np.asarray(law.status)
        good = status == Status.SUCCESS
        effects, shares = np.asarray(law.effects), np.asarray(law.shares)
        # What carries SUCCESS is a law within the outcome's range, without exception.
        assert np.isfinite(effects[good]).all()
        assert (np.abs(effects[good]) <= 1 + 1e-6).all()
        assert (shares[good] >= 0).all()
        np.testing.assert_allclose(shares[good].sum(1), 1.0, atol=1e-6)
        assert 0 < good.sum() < len(good)


def test_complex_spectra_carry_the_size_of_what_was_dropped():
    tables = jnp.asarray(noisy_tables())
    law = jax.jit(jax.vmap(lambda c: jm.spectral.effect_law(jm.moments.from_counts(c), 3)))(tables)
    is_complex = np.asarray(law.status) == Status.COMPLEX_SPECTRUM
    assert (np.asarray(law.stats["imaginary"])[is_complex] > 1e-8).all()
    assert (np.asarray(law.stats["imaginary"])[~is_complex] <= 1e-7).all()


def test_the_best_contrast_of_the_arms_has_fewer_complex_spectra_than_the_effect_alone():
    tables = noisy_tables()
    law = jax.jit(jax.vmap(lambda c: jm.spectral.effect_law(jm.moments.from_counts(c), 3)))(
        jnp.asarray(tables)
    )
    ours = (np.asarray(law.status) == Status.COMPLEX_SPECTRUM).mean()
    plain = np.mean(
        [
            np.iscomplex(oracles.spectral(c, 3, np.arange(2.0), project=False)[0]).any()
            for c in tables
        ]
    )
    assert ours < plain


@pytest.mark.parametrize("estimate", [jm.synthetic.effect_law, jm.spectral.effect_law])
def test_one_class_too_many_is_missing_rank(estimate):
    drawn = population("strong", 2, 3, 3)
    law = estimate(jm.moments.of_population(jnp.asarray(drawn.joint())), 3)
    assert law.status == Status.RANK_DEFICIENT


@pytest.mark.parametrize("estimate", [jm.synthetic.effect_law, jm.spectral.effect_law])
def test_no_hidden_class_at_all(estimate):
    joint = np.einsum(
        "t,z,x,ty->tzxy", [0.4, 0.6], [0.3, 0.7], [0.5, 0.5], [[0.8, 0.2], [0.3, 0.7]]
    )
    law = estimate(jm.moments.of_population(jnp.asarray(joint)), 1)
    np.testing.assert_allclose(law.effects, [0.5], atol=1e-12)
    np.testing.assert_allclose(law.shares, [1.0], atol=1e-12)


def test_effects_beyond_the_outcomes_range_are_a_status():
    moments = jm.populations.paper_main(1.0, 0.0).moments()
    narrow = dataclasses.replace(moments, range_y=jnp.array([0.0, 0.5]))
    for estimate in (jm.synthetic.effect_law, jm.spectral.effect_law):
        assert estimate(narrow, 2).status == Status.OUT_OF_RANGE


def test_repair_of_shares_is_reported():
    tables = jnp.asarray(noisy_tables())
    solutions = jax.jit(jax.vmap(lambda c: jm.spectral.solve(jm.moments.from_counts(c), 3)))(tables)
    repair = np.asarray(solutions.stats["share_repair"])
    shares = np.asarray(solutions.value.shares)
    clipped = np.isfinite(repair) & (shares == 0).any(1)
    assert clipped.any()
    assert (repair[clipped] > 0).all()


def test_linear_proxies_and_outcome_recover_the_classes():
    # Gaussian proxies with linear features: rank k = 3 needs two columns a side.
    rng = np.random.default_rng(11)
    n = 200_000
    u = rng.choice(3, size=n, p=[0.3, 0.4, 0.3])
    centres = np.array([[-2.0, 0.0], [0.0, 2.0], [2.0, -1.0]])
    z, x = (centres[u] + rng.normal(size=(n, 2)) for _ in range(2))
    t = (rng.uniform(size=n) < np.array([0.3, 0.5, 0.6])[u]).astype(int)
    means = np.array([[0.0, 1.0, 2.0], [-1.0, 1.5, 5.0]])
    y = means[t, u] + 0.5 * rng.normal(size=n)
    frame = {"t": t, "y": y, "z0": z[:, 0], "z1": z[:, 1], "x0": x[:, 0], "x1": x[:, 1]}
    data = jm.CausalData.from_frame(
        frame, treatment="t", outcome="y", z=["z0", "z1"], x=["x0", "x1"]
    )
    views = jm.features.encode(data)
    moments = jm.moments.from_rows(views)
    for estimate in (jm.synthetic.effect_law, jm.spectral.effect_law):

        def numbers(m, estimate=estimate):
            law = estimate(m, 3)
            return jnp.concatenate([law.effects, law.shares])

        se = np.asarray(jm.asymptotic.standard_errors(numbers, views))
        truth = np.array([-1.0, 0.5, 3.0, 0.3, 0.4, 0.3])
        off = np.abs(np.asarray(numbers(moments)) - truth) / se
        assert off.max() < 4.5, off
