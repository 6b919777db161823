"""The one loop over rows: each row once, whatever the chunks, with all that belongs to it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmix as jm
from jaxmix.sample import sums
from tests.helpers import causal_data, linear_rows

N = 700  # with 256 rows a chunk the last one begins among rows of the one before


@pytest.fixture(scope="module")
def views():
    rng = np.random.default_rng(0)
    frame = linear_rows(rng, N) | {"g": np.arange(N) % 9, "mass": rng.uniform(0.5, 2, N)}
    views = jm.features.encode(causal_data(frame, cluster="g", weights="mass"))
    return views.redesigned(multiplicity=jnp.asarray(rng.integers(0, 4, N), float), repeated=True)


@pytest.fixture(params=["whole", "chunks"])
def chunks(request, monkeypatch):
    """Chunks that hold all rows, or as few as chunks may be."""
    monkeypatch.setattr(sums, "CHUNK_NUMBERS", 1 << 21 if request.param == "whole" else 1)


def test_each_row_is_counted_once(views, chunks):
    def of_rows(rows):
        assert rows.num_rows in (N, 256)
        own = rows.multiplicity * rows.weight * (rows.y @ views.value_y) * (1 + rows.t)
        return {"all": own.sum(), "by": jax.ops.segment_sum(own, rows.cluster, 9)}

    found = sums.total(of_rows, views, 1)
    v = jax.tree.map(np.asarray, views)
    own = v.multiplicity * v.weight * (v.y @ v.value_y) * (1 + v.t)
    np.testing.assert_allclose(found["all"], own.sum(), rtol=1e-12)
    np.testing.assert_allclose(found["by"], np.bincount(v.cluster, own), rtol=1e-10)
    assert float(sums.num_rows(views)) == v.multiplicity.sum()
    np.testing.assert_allclose(sums.mass(views), v.multiplicity @ v.weight, rtol=1e-13)


def test_what_is_beside_rows_is_cut_with_them(views, chunks):
    times = np.random.default_rng(1).normal(size=(3, N))
    label = jnp.arange(N)

    def of_rows(rows, times, label):
        return (times * (rows.multiplicity * rows.x[:, 1] * label)).sum(axis=1)

    found = sums.total(of_rows, views, 1, jnp.asarray(times), label)
    expected = times @ np.asarray(views.multiplicity * views.x[:, 1] * label)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_what_is_said_of_rows_stands_in_their_order(views, chunks):
    found = sums.each(lambda rows: rows.z * rows.weight[:, None], views, 1)
    np.testing.assert_array_equal(found, views.z * views.weight[:, None])


@pytest.mark.parametrize("size", [100, 256, 300, N])
def test_rows_in_order_begin_with_the_first_that_is_new(views, size):
    def of_rows(rows, first):
        place = first + jnp.arange(size)  # of rows that are new
        own = rows.multiplicity * rows.x[:, 1]
        return jnp.zeros(2 * N).at[place].add(own), own.sum()

    by_place, added = sums.total_in_order(of_rows, views, size)
    expected = np.asarray(views.multiplicity * views.x[:, 1])
    np.testing.assert_allclose(by_place[:N], expected, rtol=1e-14)
    assert not by_place[N:].any()
    np.testing.assert_allclose(added, expected.sum(), rtol=1e-10)


def test_rows_at_once(views):
    whole = sums.held(views, 1)
    assert whole.proxies.shape == (N, views.z.shape[1] + views.x.shape[1] - 1)
    np.testing.assert_array_equal(whole.proxies[:, -1], views.x[:, -1])
    np.testing.assert_array_equal(whole.arm, views.t)
    np.testing.assert_array_equal(whole.mass, views.weight * views.multiplicity)
    low, high = views.range_y
    np.testing.assert_allclose([whole.outcome.min(), whole.outcome.max()], [low, high], atol=1e-12)
