"""The registry of estimators: one list, one type of what they return."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmix as jm
from jaxmix.estimators.base import Fitted, Numbers
from jaxmix.estimators.compared import Compared
from jaxmix.estimators.registry import METHODS, Bridge, Factorization, Spectral, names_at
from tests.helpers import exact_moments, population

DOCS = pathlib.Path(__file__).parents[2] / "docs"
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def drawn():
    return population("strong", 2, 3, 3)


@pytest.fixture(scope="module")
def moments(drawn):
    return jm.moments.from_counts(jnp.asarray(drawn.joint() * 1e5))


def test_levels_and_names():
    assert names_at(4) == ("bridge",)
    assert set(names_at(3)) == {"synthetic", "spectral", "factorization"}
    assert names_at(2) == ("factorization",)
    assert all(name == method.estimator.name for name, method in METHODS.items())


@pytest.mark.parametrize("name", METHODS)
def test_each_returns_the_one_type(name, moments, drawn):
    estimator = METHODS[name].make(2, {})
    assert estimator == METHODS[name].make(2, {})  # and so one compiled function
    assert hash(estimator) == hash(METHODS[name].make(2, {}))
    found = jax.jit(lambda m, key: estimator(m, key=key))(moments, KEY)
    assert isinstance(found, Fitted)
    numbers = found.numbers
    assert jnp.shape(numbers.effect) == ()
    if numbers.shares is None:
        assert numbers.effects is numbers.cumulative is numbers.spread is None
    else:
        assert numbers.shares.shape == numbers.effects.shape == (2,)
        assert numbers.cumulative.shape == (1,)
        np.testing.assert_allclose(numbers.shares.sum(), 1, atol=1e-6)
    assert (found.optimum is not None) == (name == "factorization")
    assert METHODS[name].estimator.searches == (name in ("factorization", "nn_parafac", "em"))


@pytest.mark.parametrize("name", METHODS)
def test_the_documentation_of_studies_has_each(name):
    assert f"`{name}`" in (DOCS / "studies.md").read_text()


@pytest.mark.parametrize("name", ["synthetic", "spectral", "factorization", "bridge"])
def test_exact_moments_give_the_exact_numbers(name, drawn):
    found = METHODS[name].make(2, {})(exact_moments(drawn), key=KEY)
    effects, shares = drawn.law()
    np.testing.assert_allclose(found.numbers.effect, drawn.ate(), atol=1e-8)
    np.testing.assert_allclose(found.numbers.means, drawn.potential_means(), atol=1e-8)
    if name != "bridge":
        np.testing.assert_allclose(found.numbers.effects, effects, atol=1e-8)
        np.testing.assert_allclose(found.numbers.shares, shares, atol=1e-8)


def test_at_the_optimum_nothing_moves_and_nothing_is_searched(moments):
    estimator = Factorization(2)
    found = estimator(moments, key=KEY)
    again = estimator.at_optimum()(moments, near=found.optimum)
    for name, value in found.numbers.known().items():
        np.testing.assert_array_equal(getattr(again.numbers, name), value)
    assert again.optimum is None
    with pytest.raises(ValueError, match="needs a key"):
        estimator(moments)
    assert Spectral(2).at_optimum() == Spectral(2)


def test_what_stands_beside_an_estimator(moments):
    found = Compared.of(Spectral(2), "lower")(moments)
    assert float(found.numbers.naive) == float(jm.baselines.difference_in_means(moments))
    np.testing.assert_array_equal(found.numbers.harmed, found.law.share_harmed("lower"))
    four = Compared.of(Bridge(2), "lower")
    assert four == Compared(Bridge(2), "higher")  # one program for both
    assert four(moments).numbers.harmed is None
    assert Numbers(effect=1.0).known() == {"effect": 1.0}
