"""The moment tensor against a loop over rows, whatever the chunks."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmix as jm
from jaxmix.data.design import Design
from jaxmix.sample import moments, sums
from tests import oracles
from tests.helpers import causal_data, linear_rows, population


def views_of(n=300, seed=0, **more):
    frame = linear_rows(np.random.default_rng(seed), n, d_z=2, d_x=3)
    frame["mass"] = np.random.default_rng(seed + 1).uniform(0.2, 3.0, n)
    return jm.features.encode(causal_data(frame, weights="mass", **more))


def test_tensor_equals_a_loop_over_rows():
    views = views_of()
    found = moments.from_rows(views)
    expected = oracles.moment_tensor(
        *(np.asarray(a) for a in (views.z, views.x, views.y, views.t, views.weight)), 2
    )
    np.testing.assert_allclose(found.tensor, expected, atol=1e-14)
    mass = np.asarray(views.weight) / views.weight.sum()
    for t in (0, 1):
        z = np.asarray(views.z) * (np.asarray(views.t) == t)[:, None]
        np.testing.assert_allclose(found.gram_z[t], (z * mass[:, None]).T @ z, atol=1e-14)
        x = np.asarray(views.x) * (np.asarray(views.t) == t)[:, None]
        np.testing.assert_allclose(found.square_x[t], mass @ x**2, atol=1e-14)


def test_contractions_have_their_names_values():
    views = views_of()
    found = moments.from_rows(views)
    y, t, w = (np.asarray(a) for a in (views.y @ views.value_y, views.t, views.weight))
    w = w / w.sum()
    for arm in (0, 1):
        here = w * (t == arm)
        np.testing.assert_allclose(found.arm_probabilities[arm], here.sum())
        np.testing.assert_allclose(found.y_by_arm[arm], here @ y)
        np.testing.assert_allclose(found.x_by_arm[arm], here @ views.x, atol=1e-14)
        np.testing.assert_allclose(found.zy[arm], (here * y) @ views.z, atol=1e-13)
        np.testing.assert_allclose(found.zx[arm], (views.z.T * here) @ views.x, atol=1e-14)
        np.testing.assert_allclose(found.zxy[arm], (views.z.T * (here * y)) @ views.x, atol=1e-13)


@pytest.mark.parametrize("numbers", [1, 9_000, 20_000])
def test_chunks_change_nothing(monkeypatch, numbers):
    views = views_of(1000)
    whole = moments.from_rows(views, covariance=True)
    monkeypatch.setattr(sums, "CHUNK_NUMBERS", numbers)
    # Not the compiled function, which has the old chunk size in it.
    parts = moments.from_rows.__wrapped__(views, covariance=True)
    np.testing.assert_allclose(parts.tensor, whole.tensor, atol=1e-14)
    np.testing.assert_allclose(parts.gram_z, whole.gram_z, atol=1e-14)
    np.testing.assert_allclose(parts.covariance, whole.covariance, atol=1e-12)


def test_multiplicities_are_repeated_rows():
    views = views_of(50)
    times = np.random.default_rng(3).integers(0, 4, 50)
    counted = views.redesigned(multiplicity=jnp.asarray(times, float))
    rows = np.repeat(np.arange(50), times)
    repeated = dataclasses.replace(
        views,
        **{name: getattr(views, name)[rows] for name in ("z", "x", "y", "t")},
        design=Design(weight=views.weight[rows], multiplicity=jnp.ones(len(rows))),
    )
    for a, b in zip(
        jax.tree.leaves(moments.from_rows(counted, covariance=True)),
        jax.tree.leaves(moments.from_rows(repeated, covariance=True)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=1e-12)


def test_covariance_from_rows_equals_the_covariance_of_weighted_features():
    views = views_of(200)
    found = moments.from_rows(views, covariance=True)
    w = np.asarray(views.weight)
    arm = np.asarray(views.t)[:, None] == np.arange(2)
    rows = np.einsum("na,ni,nj,nl->naijl", arm, views.z, views.x, views.y).reshape(200, -1)
    influence = w[:, None] * (rows - np.asarray(found.tensor).reshape(-1)) / w.mean()
    np.testing.assert_allclose(found.covariance, influence.T @ influence / 200, atol=1e-11)


def test_counts_equal_rows_of_the_same_cells():
    drawn = population("generic", 2, 3, 4)
    cells = drawn.counts(np.random.default_rng(0), 5000)
    index = np.repeat(np.arange(cells.size), cells.ravel())
    t, z, x, y = np.unravel_index(index, cells.shape)
    frame = {"t": t, "y": y, "z": z.astype(str), "x": x.astype(str)}
    views = jm.features.encode(causal_data(frame))
    by_rows = moments.from_rows(views, covariance=True)
    by_counts = moments.from_counts(jnp.asarray(cells, float), covariance=True)
    for name in (
        "zx",
        "zxy",
        "zy",
        "gram_z",
        "square_x",
        "x_by_arm",
        "y_by_arm",
        "range_y",
        "num_rows",
    ):
        np.testing.assert_allclose(getattr(by_rows, name), getattr(by_counts, name), atol=1e-12)
    # Both carry the covariance of their own outcome features; of E[1{T=t} z x Y] it is one.
    for t in (0, 1):
        variances = []
        for m in (by_rows, by_counts):
            pick = jnp.zeros(m.tensor.shape).at[t, 1, 2].set(m.value_y).reshape(-1)
            variances.append(pick @ m.covariance @ pick)
        np.testing.assert_allclose(*variances, rtol=1e-10)


def test_whole_numbers_are_counted_in_the_default_precision():
    cells = np.arange(16).reshape(2, 2, 2, 2)
    assert moments.from_counts(cells).tensor.dtype == jnp.float64
    assert moments.from_counts(cells.astype(np.float32)).tensor.dtype == jnp.float32
    np.testing.assert_allclose(moments.from_counts(cells).tensor, cells / 120)


def test_population_moments_are_those_of_the_joint_law():
    drawn = population("generic", 2, 2, 3)
    found = moments.of_population(jnp.asarray(drawn.joint()), jnp.asarray(drawn.outcome_values))
    np.testing.assert_allclose(found.tensor, drawn.joint(), atol=1e-15)
    assert found.num_rows == np.inf
    np.testing.assert_allclose(found.arm_probabilities.sum(), 1.0)


def test_weights_are_differentiable():
    views = views_of(40)
    direction = np.random.default_rng(5).normal(size=40)

    def of(step):
        moved = views.redesigned(weight=views.weight + step * direction)
        return moments.from_rows(moved).tensor.sum()

    central = (of(1e-6) - of(-1e-6)) / 2e-6
    np.testing.assert_allclose(jax.grad(of)(0.0), central, rtol=1e-6)


def test_float32_rows_keep_their_digits():
    # A large outcome: raw third moments in float32 would lose everything.
    frame = linear_rows(np.random.default_rng(8), 20_000)
    frame["y"] = frame["y"] + 1000.0
    exact = moments.from_rows(jm.features.encode(causal_data(frame)))
    views = jm.features.encode(causal_data(frame))
    low = jax.tree.map(lambda a: a.astype(jnp.float32) if a.dtype == jnp.float64 else a, views)
    found = moments.from_rows(low)
    assert found.tensor.dtype == jnp.float32
    np.testing.assert_allclose(found.tensor, exact.tensor, atol=2e-5)
