"""Proxies of which the constant and the covariates leave nothing: judged by what is inverted."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmix as jm
from jaxmix import Status, bridge
from jaxmix.data.design import Design
from jaxmix.sample.features import Views, encode
from jaxmix.sample.moments import from_rows
from tests import oracles
from tests.helpers import hidden_class_rows


@functools.cache
def rows():
    """Return the rows with columns that say nothing where they are inverted, or little."""
    r = hidden_class_rows()
    t, z1, z2, x1, w, v = (r[name] for name in ("t", "z1", "z2", "x1", "w", "v"))
    return r | {
        "dose": np.where(t == 0, 0.0, z1),
        "copy": t,
        "level": 3.0 * t + 0.1,
        "flat": np.where(t == 1, 0.37, z1),
        "third": np.where(t == 1, np.where(v > 0, 0.1 * 3, 0.3), z1),  # constant but for rounding
        "far": np.where(t == 1, 1e4 + 0.1, 1e4 + z1),
        "flat_x": np.where(t == 1, 0.37, x1),
        "of_w": np.where(t == 0, 2 * w + 3, z1),
        "of_wv": np.where(t == 0, 0.1 * w - 0.7 * v + 1e3, z1),
        "of_w_x": np.where(t == 1, 5 - w / 3, x1),
        "of_z1": np.where(t == 0, 3 * z1 - 2, z2),
        "of_z1w": np.where(t == 0, 3 * z1 - w, z2),
        "two_x": np.where(t == 0, 1 - 4 * x1, w),
        "faint": np.where(t == 1, 0.37 + 1e-9 * z1, z1),
        "tiny": 1e-12 * z1,
        "unrelated": np.where(t == 1, 0.37 + 1e-9 * v, z1),
        "zb_copy": np.where(r["zb"] == 1, "yes", "no"),
        "zb_dose": np.where((t == 0) | (r["zb"] == 0), "no", "yes"),
        "two_levels": np.where((t == 0) & (r["zc"] == "c"), "b", r["zc"]),
    }


def moments_of(z, x, covariates=(), weights=None, **more):
    data = jm.CausalData.from_frame(
        rows(), treatment="t", outcome="y", z=z, x=x, covariates=covariates, weights=weights, **more
    )
    return from_rows(encode(data, reduce=True))


def solved(moments, **options):
    solution = bridge.solve(moments, **options)
    return Status(int(solution.status)), float(solution.value.effect)


def arrays(z, x, covariates=()):
    r = rows()
    given = np.column_stack([r[name] for name in covariates]) if covariates else None
    z, x = (np.column_stack([r[name] for name in names]) for names in (z, x))
    return r["y"], r["t"], z, x, given


# What is inverted is singular: z, x, covariates, weights, options, arms whose rank is short.
SINGULAR = {
    "z constant in the control arm": (["dose"], ["x1"], [], None, {}, [1, 0]),
    "z a copy of treatment": (["copy"], ["x1"], [], None, {}, [1, 1]),
    "z a line of treatment": (["level"], ["x1"], [], None, {}, [1, 1]),
    "z constant among the treated": (["flat"], ["x1"], [], None, {}, [0, 1]),
    "z constant but for rounding": (["third"], ["x1"], [], None, {}, [0, 1]),
    "z constant far from 0": (["far"], ["x1"], [], None, {}, [0, 1]),
    "x constant among the treated": (["z1"], ["flat_x"], [], None, {}, [0, 1]),
    "both": (["dose"], ["flat_x"], [], None, {}, [1, 1]),
    "beside a covariate": (["dose"], ["x1"], ["w"], None, {}, [1, 0]),
    "a line of a covariate": (["of_w"], ["x1"], ["w"], None, {}, [1, 0]),
    "of two covariates": (["of_wv"], ["x1"], ["w", "v"], None, {}, [1, 0]),
    "x a line of a covariate": (["z1"], ["of_w_x"], ["v", "w"], None, {}, [0, 1]),
    "weighted": (["dose"], ["x1"], [], "mass", {}, [1, 0]),
    "weighted, of a covariate": (["of_w"], ["x1"], ["w"], "mass", {}, [1, 0]),
    "ATT": (["dose"], ["x1"], [], None, {"estimand": "ATT"}, [1, 0]),
    "ATT, of a covariate": (["of_w"], ["x1"], ["w"], None, {"estimand": "ATT"}, [1, 0]),
    "pooled": (["copy"], ["x1"], [], None, {"form": "pooled"}, [1]),
    "pooled, a line": (["level"], ["x1"], ["w"], None, {"form": "pooled"}, [1]),
    "of rank 2": (["dose"], ["x1"], [], None, {"rank": 2}, [1, 0]),
    "of rank 3 of 3": (["dose", "z2"], ["x1", "v"], [], None, {"rank": 3}, [1, 0]),
    "one of two": (["dose", "z2"], ["x1", "v"], [], None, {}, [1, 0]),
    "z that are lines of each other": (["z1", "of_z1"], ["x1", "v"], [], None, {}, [1, 0]),
    "the same given w": (["z1", "of_z1w"], ["x1", "v"], ["w"], None, {}, [1, 0]),
    "x that are lines of each other": (["z1", "z2"], ["x1", "two_x"], [], None, {}, [1, 0]),
    "more z than x": (["dose", "copy"], ["x1"], [], None, {}, [1, 0]),
    "more z than x, given w": (["dose", "of_w"], ["x1"], ["w"], None, {}, [1, 0]),
    "more z, x lines": (["z1", "z2", "v"], ["x1", "two_x"], [], None, {}, [1, 0]),
    "more z, x constant": (["z1", "z2", "v"], ["w", "flat_x"], [], None, {}, [0, 1]),
    "more x than z": (["z1"], ["x1", "flat_x"], [], None, {}, [0, 0]),
    "one-hot": (["zb_dose"], ["xb"], [], None, {}, [1, 0]),
    "one-hot, three by three": (["two_levels"], ["xc"], [], None, {}, [1, 0]),
    "one-hot z beside a covariate": (["zb_dose"], ["xb"], ["w"], None, {}, [1, 0]),
    "one-hot z, linear x": (["zb_dose"], ["x1"], [], None, {}, [1, 0]),
    "one-hot, of rank 2": (["zb_dose"], ["xb"], [], None, {"rank": 2}, [1, 0]),
}


@pytest.mark.parametrize("name", SINGULAR)
def test_singular_systems_are_rank_deficient(name):
    z, x, covariates, weights, options, short = SINGULAR[name]
    moments = moments_of(z, x, covariates, weights)
    assert solved(moments, **options)[0] == Status.RANK_DEFICIENT
    form, rank = options.get("form", "by_arm"), options.get("rank")
    assert bridge.short_of_rank(moments, rank, form=form).tolist() == short


# The same columns where what is inverted is regular, against regressions on rows.
REGULAR = {
    "nothing wrong": (["z1"], ["x1"], [], {}),
    "flat, ATT": (["flat"], ["x1"], [], {"estimand": "ATT"}),
    "flat, ATT, given w": (["flat"], ["x1"], ["w"], {"estimand": "ATT"}),
    "x flat, ATT": (["z1"], ["flat_x"], [], {"estimand": "ATT"}),
    "dose, pooled": (["dose"], ["x1"], [], {"form": "pooled"}),
    "flat, pooled, given w": (["flat"], ["x1"], ["w"], {"form": "pooled"}),
    "a line of a covariate in one arm, pooled": (["of_w"], ["x1"], ["w"], {"form": "pooled"}),
    "a line of what is no covariate": (["of_w"], ["x1"], ["v"], {}),
    "more z than x": (["z1", "z2"], ["x1"], [], {}),
    "a constant one among more z": (["dose", "z2"], ["x1"], [], {}),
    "the same, last, given w": (["z2", "flat"], ["x1"], ["w"], {}),
    "a line among more z": (["z1", "of_z1"], ["x1"], [], {}),
    "a line among more z given w": (["z1", "of_z1w"], ["x1"], ["w"], {}),
    "faint in one arm": (["faint"], ["x1"], [], {}),
    "tiny": (["tiny"], ["x1"], [], {}),
    "tiny, among more z": (["z2", "tiny"], ["x1"], ["w"], {}),
}


@pytest.mark.parametrize("name", REGULAR)
def test_regular_systems_have_the_value_of_regressions_on_rows(name):
    z, x, covariates, options = REGULAR[name]
    status, effect = solved(moments_of(z, x, covariates), **options)
    if options.get("form") == "pooled":
        expected, _ = oracles.bridge_pooled(*arrays(z, x, covariates))
    else:
        expected, *_ = oracles.bridge_by_arm(*arrays(z, x, covariates), **options)
    assert status == Status.SUCCESS
    # Of 1e-9 of a column's size seven of sixteen digits are left.
    np.testing.assert_allclose(effect, expected, rtol=1e-6 if z == ["faint"] else 1e-8)


@pytest.mark.parametrize("z", ["dose", "copy", "flat", "far"])
def test_closed_forms_of_level_3_need_both_arms(z):
    moments = moments_of([z], ["x1"])
    for law in (jm.spectral.effect_law, jm.synthetic.effect_law):
        assert law(moments, 2).status == Status.RANK_DEFICIENT
        assert law(moments, 1).status == Status.SUCCESS


@pytest.mark.parametrize("method", ["spectral", "synthetic"])
def test_closed_forms_of_level_3_pass_where_the_proxies_do(method):
    moments = moments_of(["faint"], ["x1"])
    law = getattr(jm, method).effect_law
    assert law(moments, 2).status == law(moments_of(["z1"], ["x1"]), 2).status


# ------------------------------------------------------------------------- many tables at once

_N, _TABLES = 200, 400


def stacked(kind, n=_N, num=_TABLES):
    """Return features of many tables of one design, standardised, z and x with the covariate."""
    r = np.random.default_rng(n)
    u = (r.random((num, n)) < 0.45).astype(float)
    t = (r.random((num, n)) < np.where(u == 1, 0.7, 0.35)).astype(int)
    w, z, x = r.normal(size=(num, n)), 1.5 * u + r.normal(size=u.shape), 1.2 * u
    x, at = x + r.normal(size=u.shape), r.normal(size=(num, 1))
    y = 2 * u + t * (1 + u) + 0.5 * r.normal(size=u.shape)
    if kind == "constant":
        z = np.where(t == 0, at, z)
    if kind == "line":
        x = np.where(t == 1, at * w + 3, x)

    def standard(a):
        return (a - a.mean(1, keepdims=True)) / a.std(1, keepdims=True)

    ones = np.ones_like(u)
    z, x = (np.stack([ones, standard(w), standard(a)], axis=2) for a in (z, x))
    return z, x, np.stack([ones, standard(y)], axis=2), t


@functools.cache
def statuses_of(form):
    first = jnp.eye(3)[0]

    def one(z, x, y, t):
        n = len(t)
        views = Views(
            z, x, y, t, Design(weight=jnp.ones(n), multiplicity=jnp.ones(n)),
            first, first, jnp.eye(2)[0], jnp.eye(2)[1], jnp.array([-9.0, 9.0]), num_shared=2,
        )  # fmt: skip
        return bridge.solve(from_rows(views), form=form).status

    return jax.jit(jax.vmap(one))


@pytest.mark.parametrize("kind", ["constant", "line"])
@pytest.mark.parametrize("n", [_N, 1500])
def test_every_singular_table_of_many_is_found(kind, n):
    found = statuses_of("by_arm")(*stacked(kind, n))
    assert (np.asarray(found) == Status.RANK_DEFICIENT).all()


@pytest.mark.parametrize("n", [_N, 1500])
def test_no_ordinary_table_of_many_is_called_singular(n):
    found = np.asarray(statuses_of("by_arm")(*stacked("ordinary", n)))
    assert (found != Status.RANK_DEFICIENT).all()
    assert (found == Status.SUCCESS).mean() > 0.95


# ------------------------------------------------------------------------------ through `fit`


def fitted(z, x, covariates=(), **options):
    data = jm.CausalData.from_frame(
        rows(), treatment="t", outcome="y", z=z, x=x, covariates=covariates
    )
    return jm.fit(data, **({"level": 4, "num_resamples": 0, "checks": False} | options))


@pytest.mark.parametrize(
    ("z", "x", "covariates", "options", "said"),
    [
        (["dose"], ["x1"], [], {}, ["column 'dose' does not vary where t is 0"]),
        (["copy"], ["x1"], [], {}, ["'copy' does not vary where t is 0", "where t is 1"]),
        (["flat"], ["x1"], [], {}, ["column 'flat' does not vary where t is 1"]),
        (["dose"], ["x1"], [], {"estimand": "ATT"}, ["'dose' does not vary where t is 0"]),
        (
            ["copy"],
            ["x1"],
            [],
            {"bridge": "pooled"},
            ["column 'copy' is a linear function of the treatment"],
        ),
        (
            ["of_w"],
            ["x1"],
            ["w"],
            {},
            ["column 'of_w' is a linear function of column 'w' where t is 0"],
        ),
        (
            ["z1", "of_z1"],
            ["x1", "v"],
            [],
            {},
            ["column 'of_z1' is a linear function of column 'z1' where t is 0"],
        ),
        (["zb_dose"], ["x1"], [], {"num_classes": 2}, ["'zb_dose' (level 'yes') does not vary"]),
        (["two_levels"], ["xc"], [], {}, ["'two_levels' (level 'c') does not vary where t is 0"]),
    ],
    ids=lambda v: "-".join(v) if isinstance(v, list) else None,
)
def test_the_column_and_the_arm_are_named(z, x, covariates, options, said):
    result = fitted(z, x, covariates, **options)
    assert result.status == Status.RANK_DEFICIENT
    told = " | ".join(result.warnings)
    for part in said:
        assert part in told
    assert 0.0 in result.diagnostics.proxy_strength.values()


def test_an_arm_that_is_not_inverted_is_not_blamed():
    result = fitted(["flat"], ["x1"], estimand="ATT")
    assert (result.status, result.warnings) == (Status.SUCCESS, ())
    assert list(result.diagnostics.proxy_strength) == ["0"]
    both = fitted(["dose"], ["flat_x"], estimand="ATT")
    assert "'dose' does not vary where t is 0" in " ".join(both.warnings)
    assert "flat_x" not in " ".join(both.warnings)


def test_what_is_noise_and_no_rounding_is_weak():
    result = fitted(["unrelated"], ["x1"])
    assert result.status == Status.WEAK_PROXIES
    assert 0 < result.diagnostics.proxy_strength["1"] < 4 < result.diagnostics.proxy_strength["0"]


def test_proxies_unrelated_to_the_last_digit_are_named_together():
    r = {name: np.tile(values, 50) for name, values in {
        "t": [0, 0, 0, 0, 1, 1, 1, 1], "z": [0, 0, 1, 1, 0, 0, 1, 1], "x": [0, 1, 0, 1, 0, 1, 1, 1],
    }.items()}  # fmt: skip
    r["y"] = np.random.default_rng(0).normal(size=400)
    data = jm.CausalData.from_frame(r, treatment="t", outcome="y", z=["z"], x=["x"])
    result = jm.fit(data, level=4, num_resamples=0)
    assert result.status == Status.RANK_DEFICIENT
    assert "nothing relates z ('z') to x ('x') where t is 0" in " ".join(result.warnings)
