"""LaLonde: the published numbers, on the data that the package ships."""

import numpy as np
import pytest

import jaxmix as jm
from jaxmix import demo

pytest.importorskip("causaldata", reason="the extra 'demo' is not installed")


@pytest.fixture(scope="module")
def data():
    return demo.load_lalonde()


@pytest.fixture(scope="module")
def result(data):
    return demo.lalonde(data, num_resamples=1000, seed=0)


def test_rows_and_trial(data):
    assert len(data.columns["treat"]) == 16_177
    assert data.columns["treat"].sum() == 185
    assert data.columns["age2"].max() == pytest.approx(55**2 / 100)
    assert data.trial.value == pytest.approx(1794.34, abs=0.01)
    assert data.trial.se == pytest.approx(671, abs=1)


def test_effect_on_the_treated_as_published(result):
    assert result.naive.value == pytest.approx(-8497.5, abs=0.05)
    assert result.ate.value == pytest.approx(1492.9, abs=0.05)
    assert 520 < result.ate.se < 670
    assert (result.level, result.estimand, result.status.name) == (4, "ATT", "SUCCESS")


def test_without_covariates(data):
    roles = {"treatment": "treat", "outcome": "re78", "z": ["re74", "u74"], "x": ["re75", "u75"]}
    plain = jm.fit(
        jm.CausalData.from_frame(data.columns, **roles), level=4, estimand="ATT", num_resamples=0
    )
    assert plain.ate.value == pytest.approx(1261, abs=0.5)


def test_level_3_is_shown_with_its_diagnostics_and_not_used(result, data):
    classes = result.conditional
    np.testing.assert_allclose(
        classes.diagnostics.singular_values["1"], [6.4, 0.46, 0.02], rtol=0.25
    )
    assert classes.diagnostics.arm_sizes["1"] == 185
    assert (classes.method, classes.status.name) == ("factorization", "WEAK_PROXIES")
    # The headline is level 4, with covariates; it has no classes.
    assert result.law is None
    words = " ".join(demo.lalonde_words(result, data.trial).split())
    for part in ("-8,497.5", "1,492.9", "1,794.3", "is fragile here", "185 rows", "near-singular"):
        assert part in words
    assert "WARNING. WEAK_PROXIES" in result.summary()
