"""A sample sums over its rows once, and turns derivatives in moments into those in rows."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import jaxmix as jm
from jaxmix.inference.asymptotic import Linearized, influence, slopes
from jaxmix.sample.sample import Sample
from tests.golden.programs import counting
from tests.helpers import linear_rows


def numbers(moments):
    """Return numbers of the kinds that an estimate has, in no order."""
    found = jm.spectral.solve(moments, 2).value
    return {"shares": found.shares, "effect": found.law.mean, "means": found.means}


def data_of(n=300, **roles):
    frame = linear_rows(np.random.default_rng(5), n) | {"c": np.arange(n) % 30}
    frame |= {"w": np.random.default_rng(6).uniform(0.5, 2.0, n)}
    return jm.CausalData.from_frame(
        frame, treatment="t", outcome="y", z=["z0", "z1"], x=["x0", "x1"], **roles
    )


@pytest.fixture(scope="module", params=[{}, {"weights": "w"}, {"cluster": "c"}], ids=str)
def sample(request):
    return Sample(jm.features.encode(data_of(**request.param)))


def test_sums_are_formed_once(sample):
    assert sample.moments is sample.moments
    assert sample.weighed_moments.covariance is not None
    assert sample.moments.covariance is None
    np.testing.assert_allclose(sample.weighed_moments.tensor, sample.moments.tensor, atol=1e-14)


def test_slopes_are_those_of_moments(sample):
    value, found = slopes(numbers, sample.moments)
    # Two programs: the last digit may differ.
    np.testing.assert_allclose(value["effect"], numbers(sample.moments)["effect"], rtol=1e-14)
    # Order of a flattened dict: by name.
    step = 1e-6 * np.random.default_rng(0).normal(size=sample.moments.tensor.shape)

    def at(sign):
        moved = dataclasses.replace(sample.moments, tensor=sample.moments.tensor + sign * step)
        return numbers(moved)["effect"]

    predicted = float(jnp.sum(found.tensor[0] * step))
    assert float(at(1) - at(-1)) / 2 == pytest.approx(predicted, rel=1e-5)


def test_errors_and_influence_are_those_of_rows(sample):
    """Against derivatives taken through the sums over rows."""
    views = sample.views
    linear = Linearized(Partial(numbers), sample)

    def of(multiplicity):
        return numbers(jm.moments.from_rows(views.redesigned(multiplicity=multiplicity)))

    of_rows = jax.jacrev(of)(views.multiplicity)
    for name, rows in influence(numbers, views).items():
        np.testing.assert_allclose(rows, of_rows[name], rtol=1e-8, atol=1e-13)
    np.testing.assert_allclose(linear.influence("effect"), of_rows["effect"], rtol=1e-8)
    errors = linear.standard_errors()
    assert errors.keys() == of_rows.keys()
    weight = np.asarray(views.multiplicity)
    for name, rows in of_rows.items():
        rows = np.asarray(rows) * weight
        if views.cluster is not None:
            groups = np.asarray(views.cluster)
            rows = np.stack([rows[..., groups == g].sum(-1) for g in np.unique(groups)], -1)
        else:
            rows = rows / np.sqrt(weight)
        np.testing.assert_allclose(errors[name], np.sqrt((rows**2).sum(-1)), rtol=1e-8)


def test_a_sample_says_what_its_rows_are(sample):
    views = sample.views
    assert sample.shape == (2, 3, 3, 2)
    assert (sample.num_shared, sample.max_rank, sample.is_table) == (1, 3, False)
    assert (sample.num_distinct, sample.num_rows) == (300, 300.0)
    assert sample.strata(None) is None
    np.testing.assert_array_equal(sample.strata("arm"), views.t)
    with pytest.raises(ValueError, match="'school'"):
        sample.strata("school")


def test_identical_rows_are_counted_one_by_one():
    frame = {name: np.arange(160) // 2**i % 2 for i, name in enumerate(["t", "y", "z", "x"])}
    data = jm.CausalData.from_frame(frame, treatment="t", outcome="y", z=["z"], x=["x"])
    sample = Sample(jm.features.encode(data, reduce=True))
    assert (sample.num_distinct, sample.num_rows, sample.is_table) == (16, 160.0, True)


def test_the_most_influential_rows_are_those_of_largest_change(sample):
    times = jnp.asarray(np.random.default_rng(1).integers(1, 4, 300), float)
    sample = Sample(sample.views.redesigned(multiplicity=times))
    linear = Linearized(Partial(numbers), sample)
    change = -np.asarray(sample.views.multiplicity * linear.influence("effect"))
    found = linear.most_influential("effect", 4)
    order = np.argsort(-np.abs(change))[:4]
    assert found.rows.tolist() == order.tolist()
    np.testing.assert_array_equal(found.change, change[order])
    np.testing.assert_array_equal(found.multiplicity, sample.views.multiplicity[order])


def test_another_number_of_rows_is_no_other_estimator():
    """Only sums over rows, and coding, are compiled anew where a table has more rows."""
    jax.clear_caches()
    options = {"level": 4, "num_resamples": 0, "checks": False}
    with counting() as first:
        jm.fit(data_of(300), **options)
    with counting() as second:
        jm.fit(data_of(301), **options)
    with counting() as third:
        jm.fit(data_of(300), **options)
    assert third[0] == 0
    assert second[0] < first[0] * 2 / 3
