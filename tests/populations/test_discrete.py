"""Populations against loops, quadrature and their own samplers; bounds against numpy."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmix as jm
from jaxmix.populations import discrete
from jaxmix.solvers.sampling import multinomial
from tests import likelihood_oracles, oracles, population_oracles


@pytest.mark.parametrize("zt", [0.0, 0.3, 1.0])
def test_main_design(zt):
    drawn, expected = jm.populations.paper_main(zt), oracles.paper_main(zt)
    np.testing.assert_allclose(drawn.joint(), expected.joint(), atol=1e-15)
    np.testing.assert_allclose(drawn.law.effects, [-0.75, 0.75])
    np.testing.assert_allclose(drawn.law.shares, [0.5, 0.5])
    np.testing.assert_allclose(drawn.ate, 0.0, atol=1e-15)
    np.testing.assert_allclose(drawn.att, expected.att(), atol=1e-15)


def test_main_design_with_an_edge_from_x_to_y():
    b = 0.5
    drawn = jm.populations.paper_main(0.0, b)
    # P(Y(0)=1|X,U) = 7/8, (1+6b)/8, (7-6b)/8, 1/8 at (X,U) = (0,0), (0,1), (1,0), (1,1).
    first = np.array([[7 / 8, (1 + 6 * b) / 8], [(7 - 6 * b) / 8, 1 / 8]])
    np.testing.assert_allclose(drawn.y[:, 0, :, 1], first.T)
    np.testing.assert_allclose(drawn.y[:, 1, :, 1], 1 - first.T)
    mean_0 = [first[:, u] @ [[0.75, 0.25], [0.25, 0.75]][u] for u in (0, 1)]
    np.testing.assert_allclose(drawn.law.effects, np.sort(1 - 2 * np.array(mean_0)))
    np.testing.assert_allclose(drawn.joint().sum(), 1.0)


def test_appendix_design():
    drawn, expected = jm.populations.paper_appendix(), oracles.paper_appendix()
    np.testing.assert_allclose(drawn.joint(), expected.joint(), atol=1e-15)
    np.testing.assert_allclose(drawn.ate, 0.25)
    np.testing.assert_allclose(drawn.att, 0.125)


def test_appendix_design_takes_its_parameters():
    drawn = jm.populations.paper_appendix(
        matching=0.1, treatment=0.2, subgroup=0.3, num_z=1, num_x=3
    )
    assert drawn.joint().shape == (2, 2, 8, 2)
    # E[Y(t)|U=u] = 1/4 + 0.1 1{u=t} + 0.2 t + 0.3 u
    np.testing.assert_allclose(drawn.class_means, [[0.35, 0.55], [0.45, 0.85]])


@pytest.mark.parametrize(
    "drawn", [jm.populations.paper_main(0.5, 0.5), jm.populations.paper_appendix()]
)
def test_samplers_follow_the_joint_law(drawn):
    joint, n = np.asarray(drawn.joint()), 200_000
    counts = np.asarray(drawn.counts(jax.random.key(0), n))
    rows = drawn.sample(jax.random.key(1), n)
    table = np.zeros_like(joint)
    np.add.at(table, tuple(np.asarray(rows[c]).astype(int) for c in "TZXY"), 1)
    slack = 5 * np.sqrt(n * joint * (1 - joint)) + 1e-9
    for found in (counts, table):
        assert found.sum() == n
        assert (np.abs(found - n * joint) < slack).all()
    # The hidden class in the rows is the one that the law speaks of.
    np.testing.assert_allclose(np.mean(rows["U"]), drawn.shares[1], atol=5 * 0.5 / np.sqrt(n))


def test_samplers_run_under_vmap():
    drawn = jm.populations.paper_main()
    keys = jax.random.split(jax.random.key(0), 3)
    tables = jax.vmap(lambda key: drawn.counts(key, 50))(keys)
    np.testing.assert_array_equal(tables.sum((1, 2, 3, 4)), 50)
    np.testing.assert_array_equal(tables[1], drawn.counts(keys[1], 50))


def test_law_functionals():
    law = jm.EffectLaw(jnp.array([0.2, 0.3, 0.5]), jnp.array([-1.0, 0.0, 2.0]))
    assert float(law.mean) == pytest.approx(0.8)
    assert float(law.variance) == pytest.approx(0.2 * 1.8**2 + 0.3 * 0.8**2 + 0.5 * 1.2**2)
    assert float(law.share_harmed()) == pytest.approx(0.2)
    assert float(law.share_harmed("lower")) == pytest.approx(0.5)
    assert [float(law.cdf(v)) for v in (-2.0, -1.0, 1.0, 2.0)] == pytest.approx([0, 0.2, 0.5, 1])
    assert [float(law.quantile(q)) for q in (0.1, 0.2, 0.21, 0.5, 1.0)] == [-1, -1, 0, 0, 2]
    # A cumulative share that rounding leaves short of 1 still ends at the last class.
    short = jm.EffectLaw(jnp.array([0.1, 0.6, 0.3 - 1e-7], jnp.float32), law.effects)
    assert float(short.quantile(1.0)) == 2.0
    assert (
        float(jm.EffectLaw(jnp.array([0.7, 0.3]) * 0.99, jnp.array([1.0, 2.0])).quantile(1.0)) == 2
    )
    both = jax.vmap(lambda s: jm.EffectLaw(s, law.effects).mean)(jnp.stack([law.shares] * 2))
    assert both.tolist() == pytest.approx([0.8, 0.8])


# --- the common face --------------------------------------------------------------------------

POPULATIONS = jm.populations
AT_LEVEL_3 = {
    "paper_main": lambda: POPULATIONS.paper_main(0.5),
    "paper_appendix": POPULATIONS.paper_appendix,
    "strong": lambda: POPULATIONS.random_discrete(jax.random.key(0), num_classes=3, d_z=5, d_x=4),
    "generic": lambda: POPULATIONS.random_discrete(
        jax.random.key(1), family="generic", num_classes=3, d_z=3, d_x=4, min_gap=0.12
    ),
    "three arms": lambda: POPULATIONS.random_discrete(jax.random.key(2), num_arms=3),
    "block": lambda: POPULATIONS.block(num_classes=3, d_z=4),
    "weak block": lambda: POPULATIONS.block(proxy_strength=0.55, shares=[1, 3]),
    "level4_testable": lambda: POPULATIONS.level4_testable(0.0),
    "gaussian": POPULATIONS.gaussian,
    "gaussian 3": lambda: POPULATIONS.gaussian(num_classes=3, d_z=3, zt_strength=1.0),
    "uniform": POPULATIONS.uniform,
    "uniform 3": lambda: POPULATIONS.uniform(num_classes=3, d_x=4, shares=[1, 2, 1]),
}


@functools.cache
def at_level_3(name):
    return AT_LEVEL_3[name]()


every_kind = pytest.mark.parametrize("name", AT_LEVEL_3)


def numpy_law(drawn, treated):
    """Return effects and shares by loops over the joint law of (U, T)."""
    k = drawn.num_classes
    if isinstance(drawn, POPULATIONS.DiscretePopulation):
        shares, x, y, zt, values = (
            np.asarray(v) for v in (drawn.shares, drawn.x, drawn.y, drawn.zt, drawn.outcome_values)
        )
        effects = [
            sum(x[u, i] * (y[u, 1, i] - y[u, 0, i]) @ values for i in range(x.shape[1]))
            for u in range(k)
        ]
        mass = [shares[u] * (zt[u, 1].sum() if treated else 1.0) for u in range(k)]
    else:
        effects = [float(drawn.class_means[1, u] - drawn.class_means[0, u]) for u in range(k)]
        mass = [float(drawn.arm_masses[1, u] if treated else drawn.shares[u]) for u in range(k)]
    order = np.argsort(effects)
    return np.array(effects)[order], np.array(mass)[order] / np.sum(mass)


@every_kind
def test_exact_moments_give_the_exact_law(name):
    drawn = at_level_3(name)
    assert drawn.level <= 3
    found = jm.spectral.effect_law(drawn.moments(), drawn.num_classes)
    np.testing.assert_allclose(found.effects, drawn.law.effects, atol=1e-8)
    np.testing.assert_allclose(found.shares, drawn.law.shares, atol=1e-8)
    for treated, law, mean in ((0, drawn.law, drawn.ate), (1, drawn.treated_law, drawn.att)):
        effects, shares = numpy_law(drawn, treated)
        np.testing.assert_allclose(law.effects, effects, atol=1e-12)
        np.testing.assert_allclose(law.shares, shares, atol=1e-12)
        np.testing.assert_allclose(mean, shares @ effects, atol=1e-12)
        assert (np.diff(law.effects) >= 0).all()


@every_kind
def test_sampled_moments_follow_the_exact_ones(name):
    drawn, n = at_level_3(name), 100_000
    exact = drawn.moments(covariance=True)
    found = drawn.sample_moments(jax.random.key(5), n, covariance=True)
    assert float(found.num_rows) == n
    assert exact.num_rows == np.inf
    assert (found.num_shared, found.onehot_y) == (exact.num_shared, exact.onehot_y)
    for vector in ("one_z", "one_x", "one_y", "value_y", "range_y"):
        np.testing.assert_array_equal(getattr(found, vector), getattr(exact, vector))
    se = np.sqrt(np.diag(exact.covariance) / n).reshape(exact.tensor.shape)
    # Five standard errors for each of a few hundred numbers; constants are exact.
    assert (np.abs(found.tensor - exact.tensor) < 5 * se + 1e-12).all()
    assert (np.abs(found.gram_z - exact.gram_z) < 5 * 4 / np.sqrt(n)).all()
    assert (np.abs(found.square_x - exact.square_x) < 5 * 4 / np.sqrt(n)).all()
    size = np.sqrt(np.outer(np.diag(exact.covariance), np.diag(exact.covariance)))
    # Moments of order 12: the covariance of heavy products is known to a few percent.
    assert (np.abs(found.covariance - exact.covariance) < 0.1 * size + 1e-3).all()
    plain = drawn.sample_moments(jax.random.key(5), n)
    assert plain.covariance is None
    np.testing.assert_allclose(plain.tensor, found.tensor, atol=1e-10)


@every_kind
def test_rows_follow_the_exact_moments(name):
    drawn, n = at_level_3(name), 100_000
    rows = {
        column: np.asarray(values) for column, values in drawn.sample(jax.random.key(6), n).items()
    }
    means = [rows["Y"][rows["T"] == t].mean() for t in (0, 1)]
    sizes = [np.sum(rows["T"] == t) for t in (0, 1)]
    se = np.sqrt(sum(rows["Y"].var() / size for size in sizes))
    assert abs(means[1] - means[0] - float(drawn.naive)) < 5 * se
    for u, share in enumerate(drawn.shares):
        np.testing.assert_allclose(np.mean(rows["U"] == u), share, atol=5 * 0.5 / np.sqrt(n))
    # Where the class is known, so is its effect.
    for u in range(drawn.num_classes):
        own = [rows["Y"][(rows["U"] == u) & (rows["T"] == t)] for t in (0, 1)]
        se = np.sqrt(sum(y.var() / len(y) for y in own))
        truth = float(drawn.class_means[1, u] - drawn.class_means[0, u])
        assert abs(own[1].mean() - own[0].mean() - truth) < 5 * se


@every_kind
def test_difference_in_means_is_a_sum(name):
    drawn = at_level_3(name)
    if isinstance(drawn, POPULATIONS.DiscretePopulation):
        joint, values = np.asarray(drawn.joint()), np.asarray(drawn.outcome_values)
        by_arm = [np.sum(joint[t] @ values) / np.sum(joint[t]) for t in (0, 1)]
    else:
        mass, means = np.asarray(drawn.arm_masses), np.asarray(drawn.class_means)
        by_arm = [mass[t] @ means[t] / mass[t].sum() for t in (0, 1)]
    np.testing.assert_allclose(drawn.naive, by_arm[1] - by_arm[0], atol=1e-12)


def test_every_kind_has_a_name():
    assert set(POPULATIONS.KINDS) < set(POPULATIONS.__all__)
    for name, kind in POPULATIONS.KINDS.items():
        assert kind is getattr(POPULATIONS, name)
        drawn = kind(jax.random.key(0)) if name == "random_discrete" else kind()
        assert drawn.num_classes == 2
        assert drawn.level in (2, 3, 4)


def test_levels():
    main, block = POPULATIONS.paper_main, POPULATIONS.block
    found = [main(a, b).level for a, b in [(0.0, 0.0), (0.01, 0.0), (0.0, 0.01), (1.0, 1.0)]]
    assert found == [2, 3, 4, 4]
    assert [block(zt_strength=a, xy_strength=b).level for a, b in [(0, 0), (1, 0), (0, 1)]] == [
        2,
        3,
        4,
    ]
    assert POPULATIONS.paper_appendix(num_z=3).level == 2
    assert [POPULATIONS.level4_testable(b).level for b in (0.0, 0.1)] == [3, 4]
    assert [kind(zt_strength=a).level for kind in (POPULATIONS.gaussian, POPULATIONS.uniform)
            for a in (0.0, 0.1)] == [2, 3, 2, 3]  # fmt: skip
    # Rounding to float32 breaks no independence.
    narrow = jax.tree.map(lambda v: v.astype(jnp.float32), main(0.0, 0.0))
    assert narrow.level == 2
    assert narrow.sample_moments(jax.random.key(0), 100).tensor.dtype == jnp.float32
    assert narrow.efficiency_bound(100).effects.dtype == jnp.float32
    # An outcome law where no one is says nothing, nor does a class of no one.
    drawn = main(0.0, 1.0)
    assert dataclasses.replace(drawn, x=jnp.eye(2)).level == 2
    alone = dataclasses.replace(main(1.0, 0.0), shares=jnp.array([1.0, 0.0]))
    assert alone.level == 3
    first = alone.zt.at[0].set(main(0.0, 0.0).zt[0])
    assert dataclasses.replace(alone, zt=first).level == 2


# --- drawing many -----------------------------------------------------------------------------


def test_counts_are_the_same_one_by_one_and_all_at_once():
    keys = jax.random.split(jax.random.key(0), 4)
    drawn = jax.vmap(lambda key: POPULATIONS.random_discrete(key, d_z=3, family="generic"))(keys)
    sizes = jnp.array([50, 500, 5000, 50000])

    def member(i):
        return jax.tree.map(lambda v: v[i], drawn)

    def count(population, key, n):
        return population.counts(key, n)

    by_key = jax.jit(jax.vmap(lambda key: member(2).counts(key, 500)))(keys)
    by_population = jax.vmap(count, (0, None, None))(drawn, keys[1], 500)
    nested = jax.vmap(jax.vmap(count, (None, 0, 0)), (0, None, None))(drawn, keys, sizes)
    other_way = jax.vmap(jax.vmap(count, (0, None, None)), (None, 0, 0))(drawn, keys, sizes)
    for i in range(4):
        np.testing.assert_array_equal(by_key[i], count(member(2), keys[i], 500))
        np.testing.assert_array_equal(by_population[i], count(member(i), keys[1], 500))
        for j in range(4):
            one = count(member(i), keys[j], sizes[j])
            np.testing.assert_array_equal(nested[i, j], one)
            np.testing.assert_array_equal(other_way[j, i], one)


def test_counts_of_a_batch_are_drawn_as_one_batch(monkeypatch):
    sizes = []

    def recorded(keys, n, p):
        sizes.append(len(keys))
        return multinomial(keys, n, p)

    monkeypatch.setattr(discrete, "multinomial", recorded)
    drawn = POPULATIONS.block(d_z=5, d_x=2)  # of a shape that no other test has compiled
    keys = jax.random.split(jax.random.key(0), 7)
    jax.eval_shape(jax.vmap(jax.vmap(lambda key: drawn.counts(key, 100))), keys.reshape(7, 1))
    assert sizes[-1] == 7


@pytest.mark.parametrize("name", ["paper_main", "gaussian", "uniform"])
def test_sampled_moments_under_jit_and_vmap(name):
    drawn, keys = at_level_3(name), jax.random.split(jax.random.key(3), 3)
    many = jax.jit(jax.vmap(lambda key: drawn.sample_moments(key, 300, covariance=True)))(keys)
    one = drawn.sample_moments(keys[1], 300, covariance=True)
    np.testing.assert_allclose(many.tensor[1], one.tensor, atol=1e-10)
    np.testing.assert_allclose(many.covariance[1], one.covariance, atol=1e-10)
    if name == "paper_main":
        traced = jax.jit(lambda n: drawn.sample_moments(keys[1], n).tensor)(300)
        np.testing.assert_array_equal(traced, one.tensor)


# --- random designs ---------------------------------------------------------------------------


@pytest.mark.parametrize(("k", "d_z", "d_x"), [(2, 2, 2), (3, 5, 4), (1, 2, 2)])
def test_strong_populations_are_as_defined(k, d_z, d_x):
    draw = functools.partial(POPULATIONS.random_discrete, num_classes=k, d_z=d_z, d_x=d_x)
    drawn = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), 2000))
    z = np.asarray(drawn.zt.sum(2))
    for p, d in ((z, d_z), (np.asarray(drawn.x), d_x)):
        np.testing.assert_allclose(p, np.broadcast_to(oracles.block(k, d), p.shape), atol=1e-14)
    treated = np.asarray(drawn.zt[:, :, 1]) / z
    assert 0.15 <= treated.min() < 0.16
    assert 0.84 < treated.max() <= 0.85
    # Uniform on [.15, .85]: mean 1/2, variance .7^2 / 12; classes and levels independent.
    flat = treated.reshape(2000, -1)
    np.testing.assert_allclose(flat.mean(0), 0.5, atol=5 * 0.202 / np.sqrt(2000))
    np.testing.assert_allclose(flat.var(0), 0.49 / 12, atol=5 * 0.037 / np.sqrt(2000))
    assert np.abs(np.corrcoef(flat.T) - np.eye(k * d_z)).max() < 5 / np.sqrt(2000)
    success = np.asarray(drawn.y[..., 0, 1])
    np.testing.assert_allclose(success.sum(2), 1.0, atol=1e-14)
    jitter = success[:, :, 1] - success[:, :, 0]
    jitter -= np.linspace(-0.75, 0.75, k) if k > 1 else 0.0
    assert -0.05 <= jitter.min() < -0.049
    assert 0.049 < jitter.max() <= 0.05
    # Dirichlet(20): mean 1/k, variance (k-1) / (k^2 (20 k + 1)).
    variance = (k - 1) / (k**2 * (20 * k + 1))
    assert (np.abs(drawn.shares.mean(0) - 1 / k) <= 5 * np.sqrt(variance / 2000) + 1e-12).all()
    np.testing.assert_allclose(drawn.shares.var(0), variance, rtol=0.2, atol=1e-12)


def test_generic_populations_are_as_defined():
    draw = functools.partial(
        POPULATIONS.random_discrete, family="generic", num_classes=3, d_z=2, d_x=3, num_arms=3
    )
    keys = jax.random.split(jax.random.key(0), 2000)
    drawn, apart = jax.jit(jax.vmap(draw))(keys), jax.vmap(lambda key: draw(key, min_gap=0.3))(keys)
    # Dirichlet(c) of m: mean 1/m, variance (m-1) / (m^2 (c m + 1)).
    for p, m, c in (
        (drawn.shares, 3, 5),
        (drawn.zt.reshape(2000, 3, 6), 6, 1),
        (drawn.x, 3, 1),
    ):
        variance = (m - 1) / (m**2 * (c * m + 1))
        np.testing.assert_allclose(p.sum(-1), 1.0, atol=1e-12)
        assert (np.abs(p.mean(0) - 1 / m) < 5 * np.sqrt(variance / 2000)).all()
        np.testing.assert_allclose(p.var(0), variance, rtol=0.25)
    success = drawn.y[..., 0, 1].reshape(2000, -1)
    np.testing.assert_allclose(success.mean(0), 0.5, atol=5 * np.sqrt(1 / 12 / 2000))
    np.testing.assert_allclose(success.var(0), 1 / 12, rtol=0.2)
    gaps = np.diff(
        np.sort(success.reshape(2000, 3, 3)[:, :, 1] - success.reshape(2000, 3, 3)[:, :, 0])
    )
    kept = gaps.min(1) >= 0.3
    assert 0.1 < kept.mean() < 0.6
    # Redrawn until apart, and left alone where they are.
    assert np.diff(jax.vmap(lambda p: p.law.effects)(apart)).min() >= 0.3
    np.testing.assert_allclose(apart.y[kept], drawn.y[kept], atol=1e-10)
    np.testing.assert_allclose(apart.zt, drawn.zt, atol=1e-10)


def test_arms_beyond_the_second():
    keys = jax.random.split(jax.random.key(0), 500)
    draw = functools.partial(POPULATIONS.random_discrete, num_classes=3, d_z=3, num_arms=4)
    drawn = jax.vmap(draw)(keys)
    treated = drawn.zt / drawn.zt.sum(2, keepdims=True)
    assert float(treated.min()) >= 0.3 / 4
    means = drawn.y[..., 0, 1]
    effects = means[:, :, 1:] - means[:, :, :1]
    np.testing.assert_allclose(
        effects, np.broadcast_to([[[-0.75], [0.0], [0.75]]], effects.shape), atol=0.05 + 1e-12
    )
    assert float(jnp.abs(effects[..., 1] - effects[..., 0]).max()) > 0.02


def test_a_gap_of_strong_populations():
    keys = jax.random.split(jax.random.key(0), 200)
    draw = functools.partial(POPULATIONS.random_discrete, num_classes=3, d_z=3, d_x=3)
    plain = jax.vmap(draw)(keys)
    drawn = jax.vmap(lambda key: draw(key, min_gap=0.7))(keys)
    assert np.diff(jax.vmap(lambda p: p.law.effects)(plain)).min() < 0.7
    assert np.diff(jax.vmap(lambda p: p.law.effects)(drawn)).min() >= 0.7


# --- fixed designs ----------------------------------------------------------------------------


def test_block_keeps_what_it_declares():
    drawn = POPULATIONS.block(
        num_classes=3, d_z=4, d_x=5, z_strength=0.7, x_strength=0.6, shares=[2, 1, 1],
        effects=[0.3, -0.2, 0.1], base=[0.5, 0.4, 0.6], xy_strength=0.8,
    )  # fmt: skip
    np.testing.assert_allclose(drawn.shares, [0.5, 0.25, 0.25])
    np.testing.assert_allclose(drawn.class_means, [[0.35, 0.5, 0.55], [0.65, 0.3, 0.65]])
    np.testing.assert_allclose(drawn.zt.sum(1)[0], [0.35, 0.15, 0.15, 0.35])
    np.testing.assert_allclose(drawn.x[1], [0.4 / 3, 0.3, 0.4 / 3, 0.4 / 3, 0.3])
    assert float(drawn.y.min()) > 0
    np.testing.assert_allclose(drawn.y.sum(-1), 1.0)
    assert drawn.y.shape == (3, 2, 5, 2)
    even = POPULATIONS.block(proxy_strength=0.5)
    np.testing.assert_allclose(even.x, 0.5)
    assert not np.isfinite(even.efficiency_bound(1000).error)


def test_an_edge_from_x_to_y_that_shows():
    found = []
    for strength in (0.0, 0.25, 0.5, 1.0):
        drawn = POPULATIONS.level4_testable(strength)
        cells = drawn.joint() * 1e8
        fit = jm.factorization.solve(cells, 2, key=jax.random.key(0))
        found.append(float(fit.stats["g2"]) / 1e4)  # G2 is proportional to n
        np.testing.assert_allclose(drawn.law.effects, [-0.4, 0.6])
        bridge = jm.bridge.solve(drawn.moments(), rank=2).value.effect
        np.testing.assert_allclose(bridge, 0.2, atol=1e-8)
    np.testing.assert_allclose(found, [0.0, 9.0, 36.7, 154.0], atol=0.05)


# --- continuous -------------------------------------------------------------------------------

ONE_COLUMN = {
    "gaussian": lambda: POPULATIONS.gaussian(shares=[0.3, 0.7], zt_strength=0.9, noise=0.7),
    "uniform": lambda: POPULATIONS.uniform(effects=[0.4, -1.0], noise=0.5),
    "gaussian level 2": lambda: POPULATIONS.gaussian(zt_strength=0.0, proxy_strength=2.0),
}


def quadrature(drawn):
    """Return units, moments of one row and their covariance by integrating the density."""
    t, z, x, y, weight = population_oracles.rows_of_grid(drawn)
    mass = weight * np.exp(np.asarray(drawn.log_density(t, z[:, None], x[:, None], y)))
    np.testing.assert_allclose(mass.sum(), 1.0, atol=1e-12)
    units, views = [], []
    for column in (z, x, y):
        centre = mass @ column
        scale = np.sqrt(mass @ (column - centre) ** 2)
        units.append((centre, scale))
        views.append(np.stack([np.ones_like(column), (column - centre) / scale], axis=1))
    arms = (t[:, None] == [0, 1]).astype(float)
    products = np.einsum("na,ni,nj,nl->naijl", arms, *views).reshape(len(t), -1)
    tensor = mass @ products
    spread = (products * mass[:, None]).T @ products - np.outer(tensor, tensor)
    return units, tensor, spread


@pytest.mark.parametrize("name", ONE_COLUMN)
def test_density_and_moments_are_of_one_law(name):
    drawn = ONE_COLUMN[name]()
    units, tensor, spread = quadrature(drawn)
    exact = drawn.moments(covariance=True)
    np.testing.assert_allclose(exact.value_y, units[2], atol=1e-12)
    np.testing.assert_allclose(exact.tensor.ravel(), tensor, atol=1e-12)
    np.testing.assert_allclose(exact.covariance, spread, atol=1e-12)
    by_arm = exact.y_by_arm / exact.arm_probabilities
    np.testing.assert_allclose(drawn.naive, by_arm[1] - by_arm[0], atol=1e-12)


@pytest.mark.parametrize("name", ONE_COLUMN)
def test_bound_of_moments_against_numpy(name):
    drawn = ONE_COLUMN[name]()
    units, _, spread = quadrature(drawn)
    order = np.argsort(np.asarray(drawn.class_means[1] - drawn.class_means[0]))
    for level in range(drawn.level, 4):
        expected = population_oracles.gmm_bound(drawn, spread, units, level) / 1000
        found = drawn.efficiency_bound(1000, level=level)
        np.testing.assert_allclose(found.ate, expected[0], rtol=1e-7)
        np.testing.assert_allclose(found.effects, expected[1:3][order], rtol=1e-7)
        np.testing.assert_allclose(found.shares, expected[3:][order], rtol=1e-7)
    assert drawn.efficiency_bound(1000).error == drawn.efficiency_bound(1000, level=3).error
    if drawn.level == 2:
        assert drawn.efficiency_bound(1000, level=2).error < drawn.efficiency_bound(1000).error


def test_bound_of_moments_is_the_variance_of_fits():
    drawn, n, repeats = POPULATIONS.gaussian(proxy_strength=2.5), 4000, 300

    @jax.jit
    @jax.vmap
    def fit(key):
        moments = drawn.sample_moments(key, n, covariance=True)
        law = jm.factorization.solve(moments, 2, key=key, loss="gmm").value.law
        return jnp.concatenate([law.mean[None], law.effects, law.shares])

    found = np.var(fit(jax.random.split(jax.random.key(0), repeats)), axis=0)
    bound = drawn.efficiency_bound(n)
    expected = np.concatenate([[bound.ate], bound.effects, bound.shares])
    # A variance from r normal numbers has relative error sqrt(2 / r).
    np.testing.assert_allclose(found, expected, rtol=4 * np.sqrt(2 / repeats))


def test_uniform_rows_stay_in_range():
    drawn = POPULATIONS.uniform(num_classes=3, d_z=3, zt_strength=1.0)
    rows = drawn.sample(jax.random.key(0), 50_000)
    assert sorted(rows) == ["T", "U", "X1", "X2", "Y", "Z1", "Z2", "Z3"]
    low, high = drawn.range_y
    assert low < rows["Y"].min() < low + 0.1
    assert high - 0.1 < rows["Y"].max() < high
    z = np.stack([rows[f"Z{j}"] for j in (1, 2, 3)], axis=1)
    x = np.stack([rows[f"X{j}"] for j in (1, 2)], axis=1)
    assert np.isfinite(drawn.log_density(rows["T"], z, x, rows["Y"])).all()
    assert drawn.log_density(0, z[0] + 9.0, x[0], rows["Y"][0]) == -np.inf
    # The treatment's probability never leaves [0, 1].
    assert (
        np.abs(drawn.slopes).sum(1) * 3**0.5 < np.minimum(drawn.intercepts, 1 - drawn.intercepts)
    ).all()


def test_density_of_several_columns():
    drawn = POPULATIONS.gaussian(num_classes=3, d_z=2, d_x=3)
    rows = drawn.sample(jax.random.key(0), 2000)
    z, x = (
        np.stack([rows[f"{v}{j + 1}"] for j in range(d)], axis=1) for v, d in (("Z", 2), ("X", 3))
    )
    t, y = np.asarray(rows["T"]), np.asarray(rows["Y"])
    density = np.zeros(2000)
    for u in range(3):
        residuals = np.column_stack(
            [z - drawn.z_means[u], x - drawn.x_means[u], y - np.asarray(drawn.class_means)[t, u]]
        )
        p = [population_oracles.normal_cdf(float(s)) for s in
             drawn.intercepts[u] + (z - drawn.z_means[u]) @ drawn.slopes[u]]  # fmt: skip
        arm = np.where(t == 1, p, 1 - np.array(p))
        density += float(drawn.shares[u]) * arm * np.prod(np.exp(-(residuals**2) / 2), axis=1)
    found = drawn.log_density(t, z, x, y)
    np.testing.assert_allclose(found, np.log(density) - 3 * np.log(2 * np.pi), atol=1e-10)


# --- bounds -----------------------------------------------------------------------------------


def oracle_of(drawn):
    return oracles.Population(
        *(np.asarray(v) for v in (drawn.shares, drawn.zt, drawn.x, drawn.y[:, :, 0])),
        np.asarray(drawn.outcome_values),
    )


@pytest.mark.parametrize(
    "name", ["paper_main", "paper_appendix", "strong", "generic", "block", "weak block"]
)
def test_bound_against_numpy(name):
    drawn = at_level_3(name)
    found = drawn.efficiency_bound(500)
    expected = likelihood_oracles.cramer_rao(oracle_of(drawn), 500)
    np.testing.assert_allclose(np.concatenate([found.effects, found.shares]), expected, rtol=1e-8)
    assert float(found.error) == pytest.approx(expected.sum())


@pytest.mark.parametrize("level", [2, 3, 4])
@pytest.mark.parametrize("xy", [0.0, 0.5])
def test_bound_of_every_level_against_numpy(level, xy):
    drawn = POPULATIONS.block(num_classes=2, d_z=3, d_x=2, zt_strength=0.0, xy_strength=xy)
    if level < drawn.level:
        with pytest.raises(ValueError, match=f"level is {level}, but .* satisfies level 4 at best"):
            drawn.efficiency_bound(1, level=level)
        return
    arrays = (drawn.shares, drawn.zt, drawn.x, drawn.y, drawn.outcome_values)
    expected = population_oracles.cramer_rao_by_level(*map(np.asarray, arrays), level)
    found = drawn.efficiency_bound(1, level=level)
    flat = np.concatenate([[found.ate], found.effects, found.shares])
    np.testing.assert_allclose(flat, expected, rtol=1e-6)
    assert np.isfinite(flat).tolist() == [True] + [level < 4] * 4


def test_bounds_of_the_papers_design():
    # Published with the method, to two digits: .028, .025, .018 at n = 1e3.
    found = [float(POPULATIONS.paper_main(zt).efficiency_bound(1000).error) for zt in (0, 0.5, 1)]
    np.testing.assert_allclose(found, [0.028, 0.025, 0.018], atol=5e-4)
    main = POPULATIONS.paper_main()
    assert main.efficiency_bound(1000).error == main.efficiency_bound(1000, level=3).error
    assert main.efficiency_bound(1000, level=2).error < main.efficiency_bound(1000).error


@pytest.mark.parametrize("xy", [0.0, 0.7])
def test_bound_at_level_4_is_the_bridge_where_cells_are_free(xy):
    # With two classes and binary proxies the level-4 model is every table near by, so that the
    # bridge's delta-method variance is the bound.
    drawn = POPULATIONS.paper_main(0.3, xy)
    found = drawn.efficiency_bound(1000, level=4)
    moments = dataclasses.replace(drawn.moments(covariance=True), num_rows=jnp.asarray(1000.0))
    variance = jm.asymptotic.delta_covariance(
        lambda m: jm.bridge.solve(m, rank=2).value.effect[None], moments
    )
    np.testing.assert_allclose(found.ate, variance[0, 0], rtol=1e-8)
    assert np.isposinf(np.concatenate([found.effects, found.shares])).all()
    if xy:
        assert drawn.efficiency_bound(1000).ate == found.ate


def test_bound_knows_what_is_not_identified():
    # Classes of one outcome law are not told apart, but their common effect is.
    tied = POPULATIONS.block(effects=[0.2, 0.2], base=[0.5, 0.5])
    found = tied.efficiency_bound(1000)
    assert np.isfinite(found.effects).all()
    assert np.isposinf(found.shares).all()
    assert np.isfinite(found.ate)
    named = POPULATIONS.block(effects=[0.2, 0.2]).efficiency_bound(1000)
    assert np.isfinite(named.error)
    # Proxies without a trace of the class.
    for kind in (POPULATIONS.gaussian, POPULATIONS.uniform):
        none = kind(proxy_strength=0.0).efficiency_bound(1000)
        assert np.isposinf(none.effects).all()
    # More classes than levels.
    many = POPULATIONS.random_discrete(jax.random.key(0), num_classes=4, family="generic")
    assert np.isposinf(many.efficiency_bound(1000).error)
    # A class of no one has no effect to know.
    empty = dataclasses.replace(POPULATIONS.paper_main(), shares=jnp.array([1.0, 0.0]))
    found = empty.efficiency_bound(1000, level=3)
    assert np.isfinite(found.effects).tolist() == [True, False]  # -3/4 is the first class's


def test_bound_holds_zeros_fixed():
    # With certain proxies the class is observed: sampling errors of binomial shares and means.
    drawn = POPULATIONS.block(proxy_strength=1.0, zt_strength=0.0)
    found, n = drawn.efficiency_bound(100), 100
    np.testing.assert_allclose(found.shares, 0.4 * 0.6 / n)
    means, arms = np.asarray(drawn.class_means), np.asarray(drawn.zt.sum(2)).T
    mass = np.asarray(drawn.shares) * arms
    np.testing.assert_allclose(found.effects, (means * (1 - means) / mass).sum(0) / n)


def test_bounds_of_a_batch():
    keys = jax.random.split(jax.random.key(0), 3)
    drawn = jax.vmap(lambda key: POPULATIONS.random_discrete(key, family="generic"))(keys)
    many = jax.jit(jax.vmap(lambda p: p.efficiency_bound(1000, level=3)))(drawn)
    assert many.error.shape == (3,)
    for i in range(3):
        one = jax.tree.map(lambda v, i=i: v[i], drawn).efficiency_bound(1000)
        np.testing.assert_allclose(many.effects[i], one.effects, rtol=1e-8)
        np.testing.assert_allclose(many.error[i], one.error, rtol=1e-8)
    with pytest.raises(ValueError, match=r"under jit or vmap .* pass level=3"):
        jax.vmap(lambda p: p.efficiency_bound(1000))(drawn)
    strengths = jnp.array([1.0, 2.0])
    found = jax.vmap(lambda s: POPULATIONS.gaussian(proxy_strength=s).efficiency_bound(1, level=3))
    one = POPULATIONS.gaussian(proxy_strength=2.0).efficiency_bound(1)
    np.testing.assert_allclose(found(strengths).error[1], one.error, rtol=1e-8)


# --- messages ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p.paper_main(1.5), r"zt_strength is 1.5: use a number from 0 to 1"),
        (lambda p: p.paper_main(0.0, -0.1), r"xy_strength is -0.1: use a number from 0 to 1"),
        (lambda p: p.paper_main(float("nan")), r"zt_strength is nan"),
        (lambda p: p.paper_appendix(treatment=0.6), r"treatment T .* is 1.1: use .* from 0 to 1"),
        (lambda p: p.paper_appendix(num_x=0), "num_x is 0: use at least 1"),
        (lambda p: p.random_discrete(jax.random.key(0), family="weak"), "use strong or generic"),
        (lambda p: p.random_discrete(jax.random.key(0), num_arms=1), "num_arms is 1"),
        (
            lambda p: p.random_discrete(jax.random.key(0), num_classes=4, min_gap=0.5),
            "min_gap is 0.5: use a number from 0 to 0.45",
        ),
        (
            lambda p: p.KINDS["random_discrete"](jax.random.key(0), family="generic", min_gap=2),
            "min_gap is 2: use a number from 0 to 1",
        ),
        (lambda p: p.block(proxy_strength=2), "proxy_strength is 2: use a number from 0 to 1"),
        (lambda p: p.block(x_strength=-1), "x_strength is -1"),
        (lambda p: p.block(num_classes=3, d_x=2), "d_x is 2: use at least 3, a level for each"),
        (lambda p: p.block(shares=[1, 2, 3]), "shares has 3 numbers: give one for each of the 2"),
        (lambda p: p.block(shares=[1, -1]), "shares are .*: use numbers from 0, not all of them 0"),
        (lambda p: p.block(effects=[-1.2, 0.0]), r"base \+ effects / 2 is -0.* from 0 to 1"),
        (lambda p: p.level4_testable(3.0), "xy_strength is 3"),
        (lambda p: p.gaussian(num_classes=4, d_z=2), "d_z is 2: .* 4 classes need"),
        (lambda p: p.gaussian(proxy_strength=-1.0), "is -1: use a number of at least 0"),
        (lambda p: p.uniform(noise=0.0), "noise is 0.0: use a number above 0"),
        (lambda p: p.uniform(base=0.0), r"base has an array of shape \(\): give one for each"),
        (lambda p: p.block().efficiency_bound(1, level=5), "level is 5: use 2, 3, 4 or None"),
        (lambda p: p.gaussian().efficiency_bound(1, level=2), "satisfies level 3 at best"),
        (lambda p: p.gaussian().efficiency_bound(1, level=4), "level is 4: use 2, 3 or None"),
    ],
)  # fmt: skip
def test_messages(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        make(jm.populations)
    assert "\n" not in str(caught.value)


def test_designs_take_traced_numbers():
    def ate(strength):
        return jnp.stack(
            [
                POPULATIONS.paper_main(strength, strength).ate,
                POPULATIONS.paper_appendix(matching=strength / 4).ate,
                POPULATIONS.block(proxy_strength=strength, effects=[-0.3, 0.5]).ate,
                POPULATIONS.uniform(zt_strength=strength, noise=strength).ate,
            ]
        )

    strengths = jnp.array([0.2, 0.8])
    found = jax.jit(jax.vmap(ate))(strengths)
    np.testing.assert_allclose(found[1], ate(0.8), atol=1e-12)
