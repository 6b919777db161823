"""Columns that say nothing of their own: given by others, or one proxy on both sides."""

import time

import numpy as np
import pytest

import jaxmix as jm
from jaxmix import CausalData, InputError, Status, features
from jaxmix.data import redundancy
from jaxmix.data.coding import MAX_LEVELS
from jaxmix.sample.moments import from_rows
from tests import oracles
from tests.helpers import hidden_class_rows

ROWS = hidden_class_rows()
N = len(ROWS["t"])
NOISE = np.random.default_rng(5).normal(size=N)


def data_of(z, x, covariates=(), *, outcome="y", more=None, **options):
    frame = ROWS | (more or {})
    return CausalData.from_frame(
        frame, treatment="t", outcome=outcome, z=z, x=x, covariates=covariates, **options
    )


def solved(data):
    solution = jm.bridge.solve(from_rows(features.encode(data)))
    return Status(int(solution.status)), float(solution.value.effect)


def line_of(call):
    with pytest.raises(InputError) as caught:
        call()
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


# --------------------------------------------------------------------------- x that is z

z1, z2, x1, w = (ROWS[name] for name in ("z1", "z2", "x1", "w"))
numbered = np.array([{"a": 3.0, "b": 1.0, "c": 7.5}[level] for level in ROWS["zc"]])

# The new column, z, x, covariates, the columns that are named, options.
SAME = {
    "copy": (z1, ["z1"], ["c"], [], ["c", "z1"]),
    "line": (2 * z1 + 1, ["z1"], ["c"], [], ["c", "z1"]),
    "line of another size": (1e-150 * (7 - z1), ["z1"], ["c"], [], ["c", "z1"]),
    "line far from 0": (1e5 + z1, ["z1"], ["c"], [], ["c", "z1"]),
    "noise of the last digits": (z1 + 1e-9 * NOISE, ["z1"], ["c"], [], ["c", "z1"]),
    "of two z": (z1 - 3 * z2, ["z1", "z2"], ["c"], [], ["c", "z1", "z2"]),
    "of one of two z": (4 - z2, ["z1", "z2"], ["c"], [], ["c", "z2"]),
    "one x of two": (2 * z1 + 1, ["z1"], ["x1", "c"], [], ["c", "z1"]),
    "z of two x": (x1 + 2 * w, ["c"], ["x1", "w"], [], ["c", "x1", "w"]),
    "given a covariate": (z1 + 5 * w, ["z1"], ["c"], ["w"], ["c", "z1"]),
    "given two": (3 * w - z1 + 1, ["z1", "z2"], ["c"], ["v", "w"], ["c", "z1"]),
    "recoded": (numbered, ["zc"], ["c"], [], ["c", "zc"]),
    "recoded as text": (np.char.add("k", ROWS["zc"]), ["zc"], ["c"], [], ["c", "zc"]),
    "merged levels": (np.where(ROWS["zc"] == "a", "l", "m"), ["zc"], ["c"], [], ["c", "zc"]),
    "two-valued": (5 - 2 * ROWS["zb"], ["zb"], ["c"], [], ["c", "zb"]),
    "two-valued beside numbers": (5 - 2 * ROWS["zb"], ["zb", "z1"], ["c"], [], ["c", "zb"]),
    "joint cells": (
        np.char.add(ROWS["zc"], ROWS["zb"].astype(str)),
        ["zc", "zb"],
        ["c"],
        [],
        ["c", "zc", "zb"],
    ),
    "one-hot, given a covariate": (np.char.add("k", ROWS["zc"]), ["zc"], ["c"], ["w"], ["c", "zc"]),
}


@pytest.mark.parametrize("name", SAME)
@pytest.mark.parametrize("weights", [None, "mass"])
def test_a_proxy_on_both_sides_is_refused(name, weights):
    column, z, x, covariates, named = SAME[name]
    data = data_of(z, x, covariates, more={"c": column}, weights=weights)
    message = line_of(lambda: features.refuse_copies(data, features.encode(data, reduce=True)))
    for fragment in (*(repr(n) for n in named), "plain regression", "take a proxy"):
        assert fragment in message
    for other in {*z, *x, "c"} - set(named):
        assert repr(other) not in message


@pytest.mark.parametrize(
    ("z", "x", "outcome", "options"),
    [
        (["z1"], ["c"], "y", {"level": 4}),
        (["z1"], ["c"], "y", {"level": 4, "bridge": "pooled"}),
        (["z1"], ["c"], "y", {"level": 3, "num_classes": 2}),
        (["z1"], ["c"], "y", {"level": 2, "num_classes": 2}),
        (["z1"], ["c"], "y", {"num_classes": "auto"}),
        (["zc"], ["k"], "yb", {"level": 3, "num_classes": 2}),
        (["zc"], ["k"], "yb", {"level": 2, "num_classes": 2}),
        (["z1"], ["c"], "y", {"level": 3, "num_classes": 2, "method": "spectral"}),
    ],
)
def test_every_level_refuses_it(z, x, outcome, options):
    more = {"c": 2 * z1 + 1, "k": np.char.add("k", ROWS["zc"])}
    data = data_of(z, x, outcome=outcome, more=more)
    message = line_of(lambda: jm.fit(data, num_resamples=0, **options))
    assert repr(z[0]) in message
    assert repr(x[0]) in message


def test_tests_and_the_choice_of_classes_refuse_it():
    data = data_of(["z1"], ["c"], more={"c": 2 * z1 + 1})
    for call in (
        lambda: jm.specification.level_test(data, num_classes=2, level=3),
        lambda: jm.selection.num_classes(data),
    ):
        assert "'c' of x is column 'z1' of z again" in line_of(call)


def noisy(r2):
    """Return z1 with noise that is uncorrelated with it in these rows: partial R2 is exact."""
    noise = NOISE - np.polyval(np.polyfit(z1, NOISE, 1), z1)
    return z1 / z1.std() + noise / noise.std() * np.sqrt(1 / r2 - 1)


@pytest.mark.parametrize(
    ("r2", "said"),
    [(0.9, False), (0.97, False), (0.979, False), (0.981, True), (0.999, True), (1 - 1e-7, True)],
)
def test_a_proxy_that_is_nearly_the_other_side_is_said(r2, said):
    data = data_of(["z1"], ["c"], more={"c": noisy(r2)})
    result = jm.fit(data, level=4, num_resamples=0)
    assert result.status == Status.SUCCESS
    told = [warning for warning in result.warnings if "nearly" in warning]
    assert len(told) == said
    if said:
        for fragment in ("'c' of x is nearly column 'z1' of z", f"(partial R2 {r2:.4f})"):
            assert fragment in told[0]


def test_nearly_is_measured_beside_the_covariates():
    # Of x little is left beside w, and that is z.
    more = {"c": 30 * w + noisy(0.99), "d": 30 * w + NOISE}
    for x, said in (("c", 1), ("d", 0)):
        data = data_of(["z1"], [x], ["w"], more=more)
        views = features.encode(data)
        found = redundancy.notes_on_copies(features.copies(data, views))
        assert len(found) == said
    apart = data_of(["z1"], ["c"], more=more)
    assert not features.copies(apart, features.encode(apart))


def test_partial_r2_is_that_of_regressions_on_rows():
    mixed = z1 + 0.5 * z2 + 0.1 * NOISE
    data = data_of(["z1", "z2"], ["c"], ["w"], more={"c": mixed}, weights="mass")
    (copy,) = features.copies(data, features.encode(data))
    root = np.sqrt(ROWS["mass"])[:, None]
    short, long = (root * np.column_stack([np.ones(N), w, *others]) for others in ([], [z1, z2]))
    left = [
        np.sum((root[:, 0] * mixed - d @ np.linalg.lstsq(d, root[:, 0] * mixed)[0]) ** 2)
        for d in (short, long)
    ]
    np.testing.assert_allclose(copy.unexplained, left[1] / left[0], rtol=1e-8)
    assert (copy.column, copy.view, copy.others) == ("c", "x", ("z1", "z2"))


# ------------------------------------------------------------------------ too many levels


def labels(count):
    return np.array([f"id{i % count:05d}" for i in range(12_000)])


def long_rows(count):
    rows = {name: np.tile(values, 10) for name, values in ROWS.items()}
    return rows | {"id": labels(count), "few": labels(MAX_LEVELS // 2 + 2)}


@pytest.mark.parametrize(
    ("z", "x", "covariates", "features_", "count", "said"),
    [
        (["z1"], ["x1"], ["id"], "auto", 12_000, ["'id' (covariates)", "12,000 levels"]),
        (["z1"], ["x1"], ["w", "id"], "auto", 900, ["'id' (covariates)", "900 levels"]),
        (["z1", "id"], ["x1"], [], "auto", 12_000, ["'id' (z)", "12,000 levels"]),
        (["z1"], ["id"], [], "linear", 12_000, ["'id' (x)", "12,000 levels"]),
        (["id"], ["x1"], [], "auto", 12_000, ["one-hot coding of z", "'id'"]),
        (["zb", "id"], ["xb"], [], "onehot", 900, ["one-hot coding of z", "'id'"]),
        (["z1"], ["x1"], ["few", "id"], "auto", 140, ["'id' (covariates)", "together 270"]),
    ],
)
def test_an_identifier_is_refused_at_once(z, x, covariates, features_, count, said):
    data = CausalData.from_frame(
        long_rows(count), treatment="t", outcome="y", z=z, x=x, covariates=covariates,
        features=features_,
    )  # fmt: skip
    start = time.perf_counter()
    message = line_of(lambda: jm.fit(data, level=4))
    assert time.perf_counter() - start < 5
    for fragment in said:
        assert fragment in message


def test_a_covariate_of_numbers_has_no_levels_to_be_capped():
    rows = long_rows(12_000) | {"id": np.arange(12_000)}
    data = CausalData.from_frame(
        rows, treatment="t", outcome="y", z=["z1"], x=["x1"], covariates=["id"]
    )
    assert features.encode(data).num_shared == 2


def test_as_many_levels_as_allowed_are_coded():
    rows = {name: np.tile(values, 10) for name, values in ROWS.items()}
    rows["id"] = labels(MAX_LEVELS)
    data = CausalData.from_frame(
        rows, treatment="t", outcome="y", z=["z1"], x=["x1"], covariates=["id"]
    )
    assert features.encode(data).num_shared == MAX_LEVELS


# --------------------------------------------------------------------- collinear by scale

YEAR = np.random.default_rng(8).integers(1990, 2021, N).astype(float)
SECONDS = 1.7e9 + np.random.default_rng(9).uniform(0, 86_400, N)
POWERS = {
    "year, squared": (YEAR, [1, 2]),
    "year, to the third": (YEAR, [1, 2, 3]),
    "the square alone": (YEAR, [2]),
    "highest first": (YEAR, [3, 2, 1]),
    "seconds of one day": (SECONDS, [1, 2]),
    "of another size": (1e-30 * YEAR, [1, 2]),
}


@pytest.mark.parametrize("name", POWERS)
@pytest.mark.parametrize("weights", [None, "mass"])
def test_powers_of_a_covariate_are_covariates(name, weights):
    values, powers = POWERS[name]
    centred = (values - values.mean()) / values.std()
    y = ROWS["y"] + 0.5 * centred - 0.8 * centred**2
    more = {f"p{p}": values**p for p in powers} | {"y": y}
    data = data_of(["z1"], ["x1"], list(more)[:-1], more=more, weights=weights)
    if powers == [2]:  # near a line of the year, and not of its square
        centred = (values**2 - np.mean(values**2)) / np.std(values**2)
    # The same space, of columns that are far from collinear.
    given = np.column_stack([centred**p for p in range(1, len(powers) + 1)])
    status, effect = solved(data)
    assert status == Status.SUCCESS
    if weights is None:
        expected, *_ = oracles.bridge_by_arm(y, ROWS["t"], z1[:, None], x1[:, None], given)
        # The square of a second keeps eight digits of what it adds to the second.
        np.testing.assert_allclose(effect, expected, rtol=1e-5 if max(values) > 1e6 else 1e-7)
    else:
        plain = {f"q{j}": column for j, column in enumerate(given.T)} | {"y": y}
        same = solved(data_of(["z1"], ["x1"], list(plain)[:-1], more=plain, weights=weights))
        np.testing.assert_allclose(effect, same[1], rtol=1e-5 if max(values) > 1e6 else 1e-7)


def test_an_estimate_does_not_depend_on_the_order_of_near_collinear_covariates():
    more = {"a": YEAR, "b": YEAR**2, "c": w, "d": w + 1e-5 * NOISE}
    found = [
        solved(data_of(["z1", "z2"], ["x1"], order, more=more))[1]
        for order in (["a", "b", "c", "d"], ["d", "c", "b", "a"], ["b", "d", "a", "c"])
    ]
    np.testing.assert_allclose(found, found[0], rtol=1e-9)


@pytest.mark.parametrize(
    ("more", "covariates", "named"),
    [
        ({"a": 2 * w + 1}, ["w", "a"], ["'a' of the covariates", "'w'"]),
        ({"a": 2 * w + 1}, ["a", "v", "w"], ["'w' of the covariates", "'a'"]),
        ({"a": w - 3 * x1}, ["w", "z2", "a", "x1"], ["'x1' of the covariates", "'w'", "'a'"]),
        (
            {"a": YEAR, "b": YEAR**2, "c": (YEAR - 5) ** 2},
            ["a", "b", "c"],
            ["'c' of the covariates", "'a'", "'b'"],
        ),
        ({"a": 1e120 * w}, ["w", "a"], ["'a' of the covariates", "'w'"]),
        ({"a": numbered}, ["zc", "a"], ["'a' of the covariates", "'zc'"]),
        ({"a": np.char.add("k", ROWS["zc"])}, ["zc", "a"], ["'a' (level 'kb') of", "'zc'"]),
        ({"a": np.where(ROWS["zc"] == "a", "l", "m")}, ["a", "zc"], ["'zc' (level", "'a'"]),
    ],
)
def test_covariates_that_are_collinear_are_named(more, covariates, named):
    data = data_of(["z1"], ["xb"], covariates, more=more)
    message = line_of(lambda: features.encode(data))
    for fragment in (*named, "linear combination", "leave it out"):
        assert fragment in message
    assert "'v'" not in message
    assert "'z2'" not in message


@pytest.mark.parametrize("role", ["z", "x", "covariates", "outcome"])
def test_a_column_that_varies_by_rounding_alone_is_constant(role):
    column = np.where(NOISE > 0, 0.1 + 0.2, 0.3)
    asked = {"z": ["z1"], "x": ["x1"], "covariates": ["w"], "outcome": "y"}
    asked[role] = "c" if role == "outcome" else ["c"]
    data = data_of(**asked, more={"c": column})
    message = line_of(lambda: features.encode(data))
    for fragment in ("'c'", "constant but for rounding", "leave it out"):
        assert fragment in message
