"""Bands of the law against enumeration over all laws inside the classes' intervals."""

import itertools

import numpy as np
import pytest

from jaxmix.inference.bands import LawBands
from tests.oracles import quantile_of_law


def laws(effects, cumulative, size=4):
    """Yield laws whose effects and cumulative shares lie inside the intervals, ends included."""
    grids = [np.linspace(*ends, size) for ends in (*effects, *cumulative)]
    k = len(effects)
    for point in itertools.product(*grids):
        cuts = np.array([0.0, *point[k:], 1.0])
        shares = np.diff(cuts)
        if (shares >= 0).all():
            yield np.array(point[:k]), shares


def random_bands(rng, k):
    middle = np.sort(rng.normal(size=k))
    half = rng.uniform(0.05, 0.6, size=k)
    cuts = np.sort(rng.uniform(size=k - 1))
    room = rng.uniform(0.01, 0.1, size=k - 1)
    cumulative = np.clip(np.stack([cuts - room, cuts + room], axis=1), 0, 1)
    return LawBands(np.stack([middle - half, middle + half], axis=1), cumulative)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("k", [2, 3])
def test_bands_hold_every_law_inside_the_intervals(seed, k):
    rng = np.random.default_rng(seed)
    bands = random_bands(rng, k)
    values, levels = rng.normal(size=3), (0.1, 0.5, 0.9)
    for effects, shares in laws(bands.effects, bands.cumulative):
        for value in values:
            lower, upper = bands.cdf(value)
            assert lower - 1e-12 <= shares[effects <= value].sum() <= upper + 1e-12
        for level in levels:
            lower, upper = bands.quantile(level)
            assert lower - 1e-12 <= quantile_of_law(effects, shares, level) <= upper + 1e-12
        for better, sign in (("higher", 1), ("lower", -1)):
            lower, upper = bands.harmed(better)
            assert lower - 1e-12 <= shares[sign * effects < 0].sum() <= upper + 1e-12


def test_bands_are_no_wider_than_the_intervals_ask_for():
    bands = LawBands(np.array([[-0.9, -0.3], [0.1, 0.5]]), np.array([[0.2, 0.4]]))
    assert bands.cdf(0.0) == (0.2, 0.4)
    assert bands.cdf(-1.0) == (0.0, 0.0)
    assert bands.cdf(-0.5) == (0.0, 0.4)
    assert bands.cdf(0.5) == (1.0, 1.0)
    assert bands.harmed("higher") == (0.2, 0.4)
    assert bands.harmed("lower") == pytest.approx((0.6, 0.8))
    assert bands.quantile(0.5) == (0.1, 0.5)


def test_an_effect_that_may_be_zero_is_harm_that_may_be_none():
    bands = LawBands(np.array([[-0.3, 0.0], [0.1, 0.5]]), np.array([[0.2, 0.4]]))
    assert bands.harmed("higher") == (0.0, 0.4)


def test_one_class():
    bands = LawBands(np.array([[-0.1, 0.2]]), np.empty((0, 2)))
    assert bands.harmed("higher") == (0.0, 1.0)
    assert bands.quantile(0.5) == (-0.1, 0.2)
    assert bands.groups == ((0,),)


def test_classes_whose_intervals_overlap_are_one_group():
    effects = np.array([[-1.0, -0.5], [-0.6, 0.0], [-0.1, 0.3], [0.4, 0.8]])
    bands = LawBands(effects, np.full((3, 2), 0.5))
    assert bands.groups == ((0, 1, 2), (3,))
