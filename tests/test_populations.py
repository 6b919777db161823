"""The paper's designs against loops, and samplers against their joint law."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmix as jm
from tests import oracles


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
