"""Columns of any size: estimates are those of the same columns in other units."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmix as jm
from jaxmix import CausalData, Status
from jaxmix.fitting.units import in_units
from jaxmix.inference import asymptotic, resampling
from jaxmix.inference.sensitivity import Sensitivity
from jaxmix.results.estimates import CLASSES, InfluentialRow
from jaxmix.results.later import Later
from tests import oracles
from tests.helpers import hidden_class_rows

ROWS = hidden_class_rows()
SIZES = [1e200, 1e-200, 1e-12, 1e300]

# Roles, and what is fitted.
FITS = {
    "bridge": ({"z": ["z1", "z2"], "x": ["x1"], "covariates": ["w"]}, {"level": 4}),
    "pooled": ({"z": ["z1"], "x": ["x1"]}, {"level": 4, "bridge": "pooled"}),
    "weighted": ({"z": ["z1"], "x": ["x1"], "weights": "mass"}, {"level": 4}),
    "gmm": ({"z": ["z1"], "x": ["x1"]}, {"level": 3, "num_classes": 2}),
    "spectral": ({"z": ["z1"], "x": ["x1"]}, {"level": 3, "num_classes": 2, "method": "spectral"}),
    "synthetic": (
        {"z": ["z1"], "x": ["x1"]},
        {"level": 3, "num_classes": 2, "method": "synthetic"},
    ),
    "kl": (
        {"z": ["zc"], "x": ["xc"], "outcome": "yb"},
        {"level": 3, "num_classes": 2, "interval": "percentile", "num_resamples": 20},
    ),
}


@functools.cache
def result_of(name, scaled=(), size=1.0):
    roles, options = FITS[name]
    rows = ROWS | {column: ROWS[column] * size for column in scaled}
    data = CausalData.from_frame(rows, treatment="t", **({"outcome": "y"} | roles))
    return jm.fit(data, **({"num_resamples": 0, "checks": False} | options))


def numbers(result):
    """Return all numbers in outcome units, and those without units."""
    with_units = [result.naive, result.ate, *result.potential_means.values()]
    if result.spread is not None:
        with_units.append(result.spread)
    flat = [[e.value, e.se, *(e.interval or ())] for e in with_units]
    free = [list(result.diagnostics.proxy_strength.values())]
    if result.law is not None and result.bands is not None:
        flat += [result.law.effects, result.law_se.effects, np.ravel(result.law_interval.effects)]
        flat.append(np.ravel(result.bands.effects))
        free += [result.law.shares, result.law_se.shares, np.ravel(result.law_interval.shares)]
    if result.diagnostics.specification.applies:
        free.append([result.diagnostics.specification.statistic])
    return np.concatenate(flat), np.concatenate(free)


def assert_same(found, expected, size):
    assert found.status == expected.status
    assert found.warnings == expected.warnings
    for ours, theirs, unit in zip(numbers(found), numbers(expected), (size, 1.0), strict=True):
        scale = np.abs(theirs).max()
        np.testing.assert_allclose(ours / unit, theirs, rtol=1e-8, atol=1e-10 * scale)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", FITS)
def test_effects_follow_the_units_of_the_outcome(name, size):
    outcome = FITS[name][0].get("outcome", "y")
    assert_same(result_of(name, (outcome,), size), result_of(name), size)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("bridge", ("z1", "z2")),
        ("bridge", ("z2",)),
        ("bridge", ("x1",)),
        ("bridge", ("w",)),
        ("pooled", ("z1", "x1")),
        ("weighted", ("mass",)),
        ("weighted", ("mass", "x1")),
        ("gmm", ("z1",)),
        ("gmm", ("x1",)),
        ("spectral", ("z1", "x1")),
        ("synthetic", ("z1", "x1")),
    ],
)
def test_nothing_depends_on_the_units_of_other_columns(name, columns, size):
    assert_same(result_of(name, columns, size), result_of(name), 1.0)


def test_the_value_is_that_of_regressions_on_rows():
    expected, _, se = oracles.bridge_by_arm(
        ROWS["y"],
        ROWS["t"],
        np.column_stack([ROWS["z1"], ROWS["z2"]]),
        ROWS["x1"][:, None],
        ROWS["w"][:, None],
    )
    for columns in (("y",), ("y", "z1"), ("y", "x1", "w")):
        found = result_of("bridge", columns, 1e200)
        np.testing.assert_allclose(found.ate.value / 1e200, expected, rtol=1e-8)
        np.testing.assert_allclose(found.ate.se / 1e200, se, rtol=0.02)


def bounds(m=2, k=2):
    """Return bounds of made-up numbers."""
    draw = np.random.default_rng(0).normal
    shapes = {"ate": (m, 2), "effects": (m, k, 2), "shares": (m, k, 2), "share_harmed": (m, 2)}
    parts = {name + end: draw(size=s) for name, s in shapes.items() for end in ("", "_interval")}
    return Sensitivity(
        strengths=np.arange(m) / 10, edge="x_to_y", statuses={}, deviance=draw(size=m),
        level3_effects=draw(size=k), level3_shares=np.array([0.4, 0.6]), confidence=0.95,
        better="higher", unit="yb", **parts,
    )  # fmt: skip


def test_everything_in_a_result_has_its_units():
    """Also what further checks add (made up here), and what is asked of a result later."""
    plain = result_of("kl")
    rows = (InfluentialRow({"t": "0", "yb": "1", "zc": "a"}, 3, 0.25),)
    checks = dataclasses.replace(
        plain.diagnostics.checks, rows=Later.known(rows), bounds=Later.known(bounds())
    )
    diagnostics = dataclasses.replace(plain.diagnostics, checks=checks)
    plain = dataclasses.replace(plain, diagnostics=diagnostics, beside={CLASSES: plain})
    size, large = 2.0**700, in_units(plain, 700)
    for ours, theirs in ((large, plain), (large.conditional, plain.conditional)):
        assert_same(ours, theirs, size)
    roles = FITS["kl"][0]
    data, scaled = (
        CausalData.from_frame(ROWS | {"yb": unit * ROWS["yb"]}, treatment="t", **roles)
        for unit in (1.0, size)
    )
    np.testing.assert_array_equal(large.posterior(scaled), plain.posterior(data))
    np.testing.assert_array_equal(large.classes.mixture.means, size * plain.classes.mixture.means)
    for field in dataclasses.fields(Sensitivity):
        ours, theirs = (getattr(r.sensitivity, field.name) for r in (large, plain))
        if field.name.startswith(("strengths", "ate", "effects", "level3_effects")):
            np.testing.assert_array_equal(ours, size * theirs)
        else:
            np.testing.assert_array_equal(ours, theirs)
    (row,) = large.influential
    assert row.change == size / 4
    assert float(row.values["yb"]) == pytest.approx(size)
    assert row.values["zc"] == "a"
    assert large.cdf(0.0).value == plain.cdf(0.0).value
    assert large.quantile(0.5).value == size * plain.quantile(0.5).value
    assert "e+" in large.summary()


def test_data_by_keyword_and_options_pass():
    rows = ROWS | {"y": 1e200 * ROWS["y"]}
    data = CausalData.from_frame(rows, treatment="t", outcome="y", z=["z1"], x=["x1"])
    by_place, by_name = (
        jm.fit(data, level=4, num_resamples=0),
        jm.fit(num_resamples=0, level=4, data=data),
    )
    assert by_place.ate == by_name.ate
    assert jm.fit.__name__ == "fit"


def test_an_effect_beyond_all_numbers_fails():
    rows = ROWS | {"y": np.where(ROWS["y"] > 0, 1.7e308, -1.7e308)}
    data = CausalData.from_frame(rows, treatment="t", outcome="y", z=["z1"], x=["x1"])
    result = jm.fit(data, level=4, num_resamples=0)
    assert not np.isfinite(result.ate.value) or abs(result.ate.value) <= 1.7e308
    assert result.status.usable == np.isfinite(result.ate.value)


# ----------------------------------------------------------------------- functions of arrays


@pytest.mark.parametrize("size", [1e200, 1e-200])
def test_errors_of_array_functions_follow_the_outcome(size):
    data = CausalData.from_frame(ROWS, treatment="t", outcome="y", z=["z1"], x=["x1"])
    views = jm.features.encode(data)
    large = dataclasses.replace(views, value_y=size * views.value_y, range_y=size * views.range_y)

    def effect(moments):
        solution = jm.bridge.solve(moments)
        return {"effect": solution.value.effect}

    plain, scaled = (asymptotic.standard_errors(effect, v)["effect"] for v in (views, large))
    np.testing.assert_allclose(scaled / size, plain, rtol=1e-12)
    (plain, skew), (scaled, own) = (
        resampling.spread(effect, v, ("effect",)) for v in (views, large)
    )
    np.testing.assert_allclose(scaled["effect"] / size, plain["effect"], rtol=1e-12)
    np.testing.assert_allclose(own["effect"], skew["effect"], rtol=1e-12)
    solution = jm.bridge.solve(jm.moments.from_rows(large))
    assert solution.status == Status.SUCCESS


@pytest.mark.parametrize("size", [1e200, 1e-200])
def test_the_spread_of_a_law_follows_its_effects(size):
    shares, effects = jnp.array([0.25, 0.75]), jnp.array([-1.0, 3.0])
    law = jm.EffectLaw(shares, size * effects)
    np.testing.assert_allclose(law.spread / size, np.sqrt(3.0), rtol=1e-14)

    def spread(e):
        return jm.EffectLaw(shares, e).spread

    slope = jax.grad(spread)(size * effects)
    np.testing.assert_allclose(slope, [-np.sqrt(3) / 4, np.sqrt(3) / 4], rtol=1e-12)


@pytest.mark.parametrize("size", [1e200, 1e-200])
def test_hansens_j_has_no_units(size):
    data = CausalData.from_frame(ROWS, treatment="t", outcome="y", z=["z1", "z2"], x=["x1"])
    views = jm.features.encode(data)
    large = dataclasses.replace(views, value_y=size * views.value_y)
    plain, scaled = (jm.specification.level_test(v, level=4, num_classes=2) for v in (views, large))
    np.testing.assert_allclose(scaled.statistic, plain.statistic, rtol=1e-10)
