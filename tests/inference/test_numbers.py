"""Intervals at the bounds of probabilities, and of samples that are not random."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmix as jm
from experiments.verdicts import boundary
from jaxmix import Status
from jaxmix.estimators.base import Numbers
from jaxmix.inference import numbers, profile
from tests.fitting.test_consistency import TABLES, data_of

NAME = "zeros beside ordinary levels"


@pytest.fixture(scope="module")
def weighted():
    """Fit a sample whose weights, 1 and 3 by chance, know nothing of it: a design effect of 5/4."""
    rng = np.random.default_rng(0)
    counts = TABLES[NAME]
    t, z, x, y = np.repeat(np.argwhere(counts), counts[counts > 0].astype(int), axis=0).T
    heavy = rng.random(len(t)) < 0.5
    rows = {"t": t, "y": y, "z": np.array(list("abc"))[z], "x": np.array(list("pqr"))[x]}
    rows |= {"w": np.where(heavy, 3.0, 1.0)}
    data = jm.CausalData.from_frame(rows, treatment="t", outcome="y", z=["z"], x=["x"], weights="w")
    return jm.fit(data, level=3, num_classes=2, checks=False, num_resamples=0)


def test_weights_widen_profile_intervals_by_their_design_effect(weighted):
    plain = jm.fit(data_of(TABLES[NAME]), level=3, num_classes=2, checks=False, num_resamples=0)
    assert weighted.diagnostics.interval == plain.diagnostics.interval == "profile"
    for name in ("effects", "shares"):
        own, other = (
            np.diff(getattr(result.law_interval, name))[:, 0] for result in (weighted, plain)
        )
        # E[w^2] / E[w]^2 = 5/4; both widths are those of different samples.
        np.testing.assert_allclose(own / other, np.sqrt(1.25), rtol=0.12)
    low, high = weighted.ate.interval
    assert low < weighted.ate.value < high


def test_a_note_says_what_errors_at_a_bound_hold_fixed(weighted):
    assert weighted.status is Status.BOUNDARY
    assert any("hold it there" in warning for warning in weighted.warnings)
    assert weighted.ate.se > 0


@pytest.mark.parametrize("options", [{"interval": "normal"}, {"strata": "arm"}])
def test_normal_intervals_are_withheld_at_a_bound(options):
    data = data_of(TABLES[NAME])
    result = jm.fit(data, level=3, num_classes=2, checks=False, num_resamples=0, **options)
    assert result.status is Status.BOUNDARY
    assert result.ate.interval is None
    assert result.law_interval is None
    assert result.ate.se > 0  # the error is that of the free probabilities, and said to be
    assert result.naive.interval is not None  # of which nothing is held
    assert any("none are given" in warning for warning in result.warnings)


def test_a_random_sample_has_design_effects_of_one():
    population = jm.populations.paper_main(zt_strength=0.5)
    moments = jm.moments.from_counts(population.counts(jax.random.key(0), 100_000))
    sol = jm.factorization.solve(moments, 2, key=jax.random.key(1))
    start = sol.stats["start"]
    plain = profile.intervals(moments, 2, start)
    errors = Numbers(**{
        name: (getattr(plain, name)[..., 1] - getattr(plain, name)[..., 0]) / (2 * boundary.Z)
        for name in boundary.NUMBERS
    })  # fmt: skip
    effects = numbers.design_effects(moments, 2, start, errors)
    np.testing.assert_allclose(effects, 1.0, rtol=0.05)
    double = errors._replace(effect=errors.effect * 2)
    np.testing.assert_allclose(
        numbers.design_effects(moments, 2, start, double)[0], 4 * effects[0], rtol=1e-12
    )
    wider = profile.intervals(moments, 2, start, inflation=4 * jnp.ones(8))
    ratio = (wider.effects[:, 1] - wider.effects[:, 0]) / (
        plain.effects[:, 1] - plain.effects[:, 0]
    )
    np.testing.assert_allclose(ratio, 2.0, rtol=0.05)


def test_a_number_without_a_variance_takes_the_largest_ratio():
    population = jm.populations.paper_main(zt_strength=0.5)
    moments = jm.moments.from_counts(population.counts(jax.random.key(0), 100_000))
    start = jm.factorization.solve(moments, 2, key=jax.random.key(1)).stats["start"]
    errors = Numbers(
        jnp.array(0.01), jnp.full(2, 0.01), None, jnp.array([jnp.nan, 0.0]), jnp.full(2, 0.01),
        jnp.array([0.01]), jnp.array(0.01),
    )  # fmt: skip
    effects = np.asarray(numbers.design_effects(moments, 2, start, errors))
    assert np.isfinite(effects).all()
    assert effects[3] == effects[4] == effects.max()
