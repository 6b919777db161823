"""What is known of a sample, by rows or by moments; second moments of rows against loops."""

import jax.numpy as jnp
import numpy as np
import pytest

import jaxmix as jm
from jaxmix.inference.specification import level_test, range_test
from jaxmix.sample import evidence, second
from jaxmix.sample.evidence import Evidence
from jaxmix.sample.sample import Sample
from tests.helpers import causal_data, linear_rows


def views_of(**options):
    """Return features of linear rows with weights and multiplicities that differ."""
    rng = np.random.default_rng(0)
    frame = linear_rows(rng, 300, d_z=3, d_x=2, num_w=1)
    frame["g"] = rng.integers(0, 40, 300)
    views = jm.features.encode(causal_data(frame, **options))
    weight, multiplicity = rng.uniform(0.5, 2, 300), rng.integers(1, 4, 300).astype(float)
    return views.redesigned(weight=jnp.asarray(weight), multiplicity=jnp.asarray(multiplicity))


def test_rows_and_their_moments_are_one_evidence(monkeypatch):
    views = views_of()
    rows = evidence.of_rows(views)
    moments = jm.moments.from_rows(views, covariance=True)
    alone = evidence.of_moments(moments, counts=None)
    for name in ("shape", "is_table", "num_shared", "max_rank", "num_rows"):
        assert getattr(rows, name) == getattr(alone, name), name
    assert rows.design.weighted
    assert not alone.design.weighted  # moments cannot tell
    for name in ("moments", "weighed_moments"):
        np.testing.assert_allclose(getattr(rows, name).tensor, moments.tensor, rtol=1e-12)
    monkeypatch.setattr("jaxmix.sample.sample.from_rows", None)  # no row is summed for these
    fresh = evidence.of_rows(views)
    assert fresh.shape == moments.tensor.shape
    assert fresh.num_rows == float(moments.num_rows)


def test_what_is_neither_rows_nor_moments_is_checked_as_counts():
    assert evidence.of_rows(np.ones((2, 2, 2, 2))) is None
    cells = np.arange(16.0).reshape(2, 2, 2, 2)
    known = evidence.of_moments("counts", counts=lambda data: jnp.asarray(cells))
    assert known.rows is None
    assert known.is_table
    np.testing.assert_array_equal(known.cells, cells)
    bare = Evidence(alone=jm.moments.from_counts(jnp.asarray(cells)))
    with pytest.raises(jm.InputError, match="covariance=True"):
        _ = bare.weighed_moments


def test_covariates_are_named_where_a_table_has_them():
    data = causal_data(linear_rows(np.random.default_rng(0), 300, num_w=2))
    assert evidence.of_rows(data).covariates == ("w0", "w1")
    for test in (level_test, range_test):
        with pytest.raises(jm.InputError, match=r"covariates \('w0', 'w1'\) belong to level 4"):
            test(data)
        with pytest.raises(jm.InputError, match="covariates belong to level 4"):
            test(jm.features.encode(data))


@pytest.mark.parametrize("clustered", [False, True])
def test_the_covariance_of_products_equals_loops(clustered, monkeypatch):
    # 256 rows a chunk: the last one overlaps.
    monkeypatch.setattr("jaxmix.sample.sums.CHUNK_NUMBERS", 1)
    views = views_of(**({"cluster": "g"} if clustered else {}))
    rng = np.random.default_rng(1)
    to_z = rng.normal(size=(2, views.z.shape[1], 2))
    to_x = rng.normal(size=(2, views.x.shape[1], 1))
    z, x, t, w, m = (np.asarray(v) for v in
                     (views.z, views.x, views.t, views.weight, views.multiplicity))  # fmt: skip
    n, mass = m.sum(), (w * m).sum()
    share = [(w * m)[t == arm].sum() / mass for arm in range(2)]
    added = np.zeros((len(t), 2, 2))
    for i, arm in enumerate(t):
        added[i, arm] = w[i] / share[arm] * (z[i] @ to_z[arm]) * (x[i] @ to_x[arm])
    added = added.reshape(len(t), -1)
    if clustered:
        sums = np.zeros((views.num_clusters, 4))
        np.add.at(sums, np.asarray(views.cluster), added * m[:, None])
        expected = sums.T @ sums * n / mass**2
    else:
        expected = (added * m[:, None]).T @ added * n / mass**2
    found = second.product_covariance(Sample(views), jnp.asarray(to_z), jnp.asarray(to_x))
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


def test_second_moments_of_x_and_of_residuals_equal_loops():
    views = views_of()
    z, x, t, w, m = (np.asarray(v) for v in
                     (views.z, views.x, views.t, views.weight, views.multiplicity))  # fmt: skip
    y = np.asarray(views.y @ views.value_y)
    alpha = np.random.default_rng(2).normal(size=(2, x.shape[1]))
    n, mass = m.sum(), (w * m).sum()
    residual = y - (x * alpha[t]).sum(1)
    gram, spread = np.zeros((2, x.shape[1], x.shape[1])), np.zeros((2, z.shape[1], z.shape[1]))
    for i, arm in enumerate(t):
        gram[arm] += w[i] * m[i] * np.outer(x[i], x[i]) / mass
        spread[arm] += m[i] * (w[i] * residual[i]) ** 2 * np.outer(z[i], z[i]) * n / mass**2
    sample = Sample(views)
    np.testing.assert_allclose(second.gram_x(sample), gram, rtol=1e-10, atol=1e-12)
    found = second.residual_moments(sample, jnp.asarray(alpha), views.value_y)
    np.testing.assert_allclose(found.spread, spread, rtol=1e-10, atol=1e-10)
    centred = y - np.average(y, weights=w * m)
    left = (m * (w * residual) ** 2).sum() / (m * (w * centred) ** 2).sum()
    assert float(found.left) == pytest.approx(left, rel=1e-10)
