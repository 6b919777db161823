"""Draws of counts against exact probabilities."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmix.solvers.sampling import binomial, multinomial

KEYS = jax.random.split(jax.random.key(0), 100_000)


def pmf(n, p):
    k = np.arange(n + 1)
    log_choose = [math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) for i in k]
    return np.exp(np.array(log_choose) + k * np.log(p) + (n - k) * np.log1p(-p))


@pytest.mark.parametrize(
    ("n", "p"),
    [(1, 0.3), (8, 0.5), (30, 0.02), (60, 0.9), (19, 0.5), (20, 0.5), (25, 0.41), (300, 0.05),
     (300, 0.96), (2000, 0.3)],
)  # fmt: skip
def test_binomial_follows_its_exact_probabilities(n, p):
    # Means below and above 10: inversion and rejection, and both sides of one half.
    drawn = binomial(KEYS, jnp.full((len(KEYS), 1), float(n)), jnp.full((len(KEYS), 1), p))
    counts = np.bincount(np.asarray(drawn).ravel().astype(int), minlength=n + 1)
    assert len(counts) == n + 1
    expected = pmf(n, p) * len(KEYS)
    common = expected >= 20
    observed = np.append(counts[common], counts[~common].sum())
    expected = np.append(expected[common], expected[~common].sum())
    keep = expected > 0.5
    statistic = ((observed - expected)[keep] ** 2 / expected[keep]).sum()
    df = keep.sum() - 1
    assert statistic < df + 4.5 * math.sqrt(2 * df) + 5


def test_large_binomials_have_the_right_moments():
    n, p = 1e9, 0.37
    drawn = np.asarray(binomial(KEYS, jnp.full((len(KEYS), 1), n), jnp.full((len(KEYS), 1), p)))
    z = (drawn - n * p) / math.sqrt(n * p * (1 - p))
    size = len(KEYS)
    assert abs(z.mean()) < 5 / math.sqrt(size)
    assert abs(z.var() - 1) < 5 * math.sqrt(2 / size)
    assert abs((z**3).mean()) < 5 * math.sqrt(15 / size)
    assert abs((z**4).mean() - 3) < 5 * math.sqrt(96 / size)


@pytest.mark.parametrize("m", [1, 2, 3, 7, 16, 100])
def test_multinomial_has_the_right_moments_in_every_cell(m):
    p = np.random.default_rng(m).dirichlet(np.ones(m))
    p[m // 2] = 0.0 if m > 2 else p[m // 2]
    p /= p.sum()
    keys = KEYS[:20_000]
    drawn = np.asarray(multinomial(keys, 5000, jnp.asarray(7.0 * p)))
    np.testing.assert_array_equal(drawn.sum(1), 5000)
    assert (drawn >= 0).all()
    assert (drawn == np.floor(drawn)).all()
    assert (drawn[:, p == 0] == 0).all()
    slack = 5 * np.sqrt(5000 * p * (1 - p) / len(keys)) + 1e-12
    assert (np.abs(drawn.mean(0) - 5000 * p) < slack).all()
    covariance = 5000 * (np.diag(p) - np.outer(p, p))
    scale = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    noise = 6 * np.sqrt(2 * scale**2 + 5000 * p.max()) / math.sqrt(len(keys))
    assert (np.abs(np.cov(drawn.T).reshape(m, m) - covariance) < noise + 1e-9).all()


def test_a_table_depends_on_its_own_key_alone():
    p = jnp.asarray(np.random.default_rng(0).dirichlet(np.ones(16)))
    together = multinomial(KEYS[:50], 3000, p)
    for i in (0, 7, 49):
        np.testing.assert_array_equal(multinomial(KEYS[i : i + 1], 3000, p)[0], together[i])
    np.testing.assert_array_equal(multinomial(KEYS[20:50], 3000, p), together[20:])
    under_vmap = jax.vmap(lambda key: multinomial(key[None], 3000, p)[0])(KEYS[:50])
    np.testing.assert_array_equal(under_vmap, together)


@pytest.mark.parametrize("n", [0, 1])
def test_nothing_or_one_to_draw(n):
    drawn = multinomial(KEYS[:200], n, jnp.array([0.5, 0.25, 0.25]))
    np.testing.assert_array_equal(drawn.sum(1), n)


def test_float32():
    drawn = multinomial(KEYS[:100], 1000, jnp.array([0.2, 0.3, 0.5], jnp.float32))
    assert drawn.dtype == jnp.float32
    np.testing.assert_array_equal(drawn.sum(1), 1000)
