"""From moments to laws: ties, impossible moments, and what is said about them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmix import Status
from jaxmix.estimators import quadrature

methods = pytest.mark.parametrize("name", quadrature.METHODS)


def moments_of(effects, shares, count=None):
    count = count or 2 * len(effects)
    return jnp.asarray(
        [np.sum(np.asarray(shares) * np.asarray(effects) ** p) for p in range(count)]
    )


def law_of(name, m):
    return jax.jit(quadrature.METHODS[name])(m)


@methods
@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
def test_a_law_is_recovered_from_its_moments(name, k):
    rng = np.random.default_rng(k)
    effects = np.linspace(-0.8, 0.9, k) + rng.uniform(-0.05, 0.05, k)
    shares = rng.dirichlet(np.full(k, 5.0))
    law = law_of(name, moments_of(effects, shares))
    assert law.status == Status.SUCCESS
    np.testing.assert_allclose(law.effects, effects, atol=1e-8)
    np.testing.assert_allclose(law.shares, shares, atol=1e-8)
    assert law.stats["num_distinct"] == k


@methods
@pytest.mark.parametrize(
    ("effects", "shares"),
    [([0.3], [1.0]), ([-0.2, 0.5], [0.4, 0.6]), ([0.0, 0.7], [0.5, 0.5]), ([0.0], [1.0])],
)
@pytest.mark.parametrize("extra", [1, 2])
def test_tied_classes_are_merged(name, effects, shares, extra):
    k = len(effects) + extra
    law = law_of(name, moments_of(effects, shares, 2 * k))
    assert law.status == Status.SUCCESS
    assert law.stats["num_distinct"] == len(effects)
    np.testing.assert_allclose(law.effects[: len(effects)], effects, atol=1e-8)
    np.testing.assert_allclose(law.shares[: len(effects)], shares, atol=1e-8)
    # What is left over has no weight and repeats the last effect.
    assert (law.shares[len(effects) :] == 0).all()
    np.testing.assert_allclose(law.effects[len(effects) :], effects[-1], atol=1e-8)


@methods
def test_gradients_of_a_merged_law_are_finite(name):
    m = moments_of([-0.2, 0.5], [0.4, 0.6], 6)

    def mean_and_more(m):
        law = quadrature.METHODS[name](m)
        return law.mean + law.effects[0]

    assert jnp.isfinite(jax.grad(mean_and_more)(m)).all()


def test_impossible_moments_are_a_status_and_no_number():
    law = quadrature.gauss(jnp.array([1.0, 0.5, 0.1, 0.2]))  # variance would be negative
    assert law.status == Status.INDEFINITE_MOMENTS
    assert jnp.isnan(law.effects).all()
    assert jnp.isnan(law.shares).all()


@pytest.mark.parametrize("name", ["pencil", "prony"])
def test_complex_effects_are_a_status_with_their_size(name):
    # Moments of the "law" 1/2 at 0.2 +- 0.5i.
    nodes = np.array([0.2 + 0.5j, 0.2 - 0.5j])
    m = jnp.asarray([np.mean(nodes**p).real for p in range(4)])
    law = law_of(name, m)
    assert law.status == Status.COMPLEX_SPECTRUM
    np.testing.assert_allclose(law.stats["imaginary"], 0.5, atol=1e-10)
    np.testing.assert_allclose(law.effects, 0.2, atol=1e-10)


@pytest.mark.parametrize("name", ["pencil", "prony"])
def test_negative_shares_are_a_status(name):
    law = law_of(name, moments_of([-0.5, 0.5], [-0.2, 1.2]))
    assert law.status == Status.OUT_OF_RANGE
    np.testing.assert_allclose(law.shares, [-0.2, 1.2], atol=1e-10)
    assert quadrature.gauss(moments_of([-0.5, 0.5], [-0.2, 1.2])).status == (
        Status.INDEFINITE_MOMENTS
    )


@methods
def test_broken_numbers_are_a_status(name):
    law = law_of(name, jnp.array([1.0, jnp.nan, 0.5, 0.1]))
    assert not Status(int(law.status)).usable


def test_all_methods_agree_while_the_moments_are_positive_definite():
    rng = np.random.default_rng(0)
    for _ in range(20):
        m = moments_of(rng.uniform(-1, 1, 3), rng.dirichlet(np.ones(3)))
        m = m.at[1:].add(rng.normal(size=5) * 1e-6)
        gauss, pencil, prony = (law_of(name, m) for name in quadrature.METHODS)
        if gauss.status != Status.SUCCESS or gauss.stats["smallest_pivot"] < 1e-3:
            continue
        np.testing.assert_allclose(pencil.effects, gauss.effects, atol=1e-8)
        np.testing.assert_allclose(prony.effects, gauss.effects, atol=1e-8)
        np.testing.assert_allclose(prony.shares, gauss.shares, atol=1e-8)
