"""Latent classes: published maxima, the EM oracle, the dense table's twin, the host's shell."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import jaxmix as jm
from jaxmix.estimators import factorization, latent
from jaxmix.fitting.latent_classes import latent_classes
from jaxmix.model.likelihood import newton_step, retract
from jaxmix.model.rows import Rows
from jaxmix.model.settling import settle_down
from jaxmix.model.structure import Factors
from jaxmix.model.structure import latent_classes as views_of
from jaxmix.status import EstimateError, InputError, Status
from tests.helpers import shared_data
from tests.likelihood_oracles import em_latent_classes

ITEMS = ["LIEEXAM", "LIEPAPER", "FRAUD", "COPYEXAM"]

# Linzer, Lewis (2011): maxima of poLCA's examples; Goodman (1974) for the last.
PUBLISHED = [
    ("carcinoma", None, 2, -317.2568, 15, None),
    ("carcinoma", None, 3, -293.7050, 23, [0.4447, 0.3736, 0.1817]),
    ("carcinoma", None, 4, -289.2858, 31, None),
    ("cheating", ITEMS, 2, -440.0271, 9, None),
    ("values", None, 1, -543.6498, 4, [1.0]),
    ("values", None, 2, -504.4677, 9, [0.7208, 0.2792]),
    ("values", None, 3, -503.3011, 14, None),
]


def distinct(codes, weights=None):
    rows, inverse = np.unique(codes, axis=0, return_inverse=True)
    return jnp.asarray(rows), jnp.asarray(np.bincount(inverse.ravel(), weights).astype(float))


def sample(seed, n, k, sizes, missing=0.0):
    """Rows of a random latent class population, cells missing at random."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(k, 5.0))
    profiles = [rng.dirichlet(np.full(d, 0.7), size=k) for d in sizes]
    u = rng.choice(k, n, p=shares)
    codes = [(rng.random((n, 1)) > np.cumsum(p[u], 1)[:, :-1]).sum(1) for p in profiles]
    codes = np.stack(codes, 1)
    return np.where(rng.random(codes.shape) < missing, -1, codes)


@pytest.mark.parametrize(
    ("name", "columns", "k", "maximum", "parameters", "shares"), PUBLISHED, ids=lambda x: str(x)
)
def test_published_maxima_from_every_seed(name, columns, k, maximum, parameters, shares):
    frame = pd.read_csv(shared_data(f"{name}.csv"))
    for seed in range(10):
        result = latent_classes(frame, k, columns=columns, seed=seed)
        assert result.log_likelihood == pytest.approx(maximum, abs=1e-3)
        assert result.status.usable
        if shares:
            np.testing.assert_allclose(result.shares, shares, atol=5.1e-5)
    assert result.num_parameters == parameters
    assert result.num_rows == len(frame)
    assert result.aic == pytest.approx(-2 * result.log_likelihood + 2 * parameters)
    bic = -2 * result.log_likelihood + parameters * np.log(len(frame))
    assert result.bic == pytest.approx(bic)
    assert np.all(np.diff(result.shares) <= 0)


def test_three_classes_of_four_binary_items_are_not_identified():
    frame = pd.read_csv(shared_data("values.csv"))
    for seed in range(3):
        result = latent_classes(frame, 3, seed=seed)
        assert result.status is Status.NOT_IDENTIFIED
        assert result.stats["rank"] == 13
        assert result.stats["num_free"] == result.num_parameters == 14
        assert result.stats["df"] == 1
        assert any("only 13 directions of the 14" in warning for warning in result.warnings)
    assert latent_classes(frame, 2).status is Status.SUCCESS


@pytest.mark.parametrize(("k", "sizes"), [(2, (2, 3, 2, 4)), (3, (3, 3, 3, 3, 2, 2))])
def test_missing_cells_against_the_oracle(k, sizes):
    rows, counts = distinct(sample(1, 600, k, sizes, missing=0.2))
    solution = latent.solve(rows, counts, sizes, k, key=jax.random.key(0))
    best, shares, profiles, _ = em_latent_classes(
        np.asarray(rows), np.asarray(counts), k, np.random.default_rng(0)
    )
    assert float(solution.stats["log_likelihood"]) == pytest.approx(best, abs=1e-6)
    order = np.argsort(-shares)
    np.testing.assert_allclose(solution.value.shares, shares[order], atol=1e-4)
    for own, other in zip(solution.value.profiles, profiles, strict=True):
        np.testing.assert_allclose(own, other[:, order], atol=1e-4)


def test_punched_carcinoma_against_the_oracle():
    codes = pd.read_csv(shared_data("carcinoma.csv")).to_numpy().astype(int) - 1
    codes = np.where(np.random.default_rng(5).random(codes.shape) < 0.15, -1, codes)
    codes = codes[(codes >= 0).any(1)]
    frame = {f"r{v}": np.where(codes[:, v] < 0, np.nan, codes[:, v]) for v in range(7)}
    result = latent_classes(frame, 2)
    best, shares, *_ = em_latent_classes(codes, None, 2, np.random.default_rng(0))
    assert result.log_likelihood == pytest.approx(best, abs=1e-6)
    np.testing.assert_allclose(result.shares, np.sort(shares)[::-1], atol=1e-4)
    assert sum(result.missing.values()) == (codes < 0).sum()
    assert "g2" not in result.stats


@functools.cache
def level3_table():
    population = jm.populations.paper_main(zt_strength=0.5)
    return population.counts(jax.random.key(3), 20_000)


def rows_of(cells):
    index = np.array(list(np.ndindex(cells.shape)))
    return jnp.asarray(index[:, 1:]), jnp.asarray(index[:, 0]), jnp.ravel(cells).astype(float)


@pytest.mark.parametrize("level", [2, 3])
def test_views_that_depend_on_treatment_against_the_dense_table(level):
    cells = level3_table()
    codes, t, counts = rows_of(cells)
    sol = latent.solve(
        codes, counts, cells.shape[1:], 2, key=jax.random.key(0), t=t, num_arms=cells.shape[0],
        by_treatment=(level == 3, False, True),
    )  # fmt: skip
    dense = factorization.solve(cells, 2, key=jax.random.key(0), level=level)
    np.testing.assert_allclose(
        sol.stats["log_likelihood"], dense.stats["log_likelihood"], rtol=0, atol=1e-6
    )
    order = jnp.argsort(-dense.value.shares)
    np.testing.assert_allclose(sol.value.shares, dense.value.shares[order], atol=1e-6)
    np.testing.assert_allclose(sol.value.profiles[1], dense.value.x_profiles[:, order], atol=1e-6)
    np.testing.assert_allclose(sol.value.profiles[2], dense.value.y_profiles[..., order], atol=1e-6)
    assert sol.value.profiles[0].shape == ((2, 2, 2) if level == 3 else (2, 2))
    np.testing.assert_allclose(sol.value.arm_profile.sum(0), 1.0, atol=1e-12)
    assert int(sol.stats["df"]) == int(dense.stats["df"])
    own = latent.posterior(sol.value, codes, t)
    np.testing.assert_allclose((counts @ own) / counts.sum(), sol.value.shares, atol=1e-6)


def test_duplicates_and_counts_give_the_same():
    codes = sample(2, 300, 2, (2, 3, 2))
    rows, counts = distinct(codes)
    fit = functools.partial(latent.solve, num_levels=(2, 3, 2), k=2, key=jax.random.key(0))
    merged, single = fit(rows, counts), fit(jnp.asarray(codes), jnp.ones(len(codes)))
    whole = fit(rows, counts.astype(int))
    for other in (single, whole):
        np.testing.assert_allclose(
            other.stats["log_likelihood"], merged.stats["log_likelihood"], atol=1e-8
        )
        np.testing.assert_allclose(other.value.shares, merged.value.shares, atol=1e-6)
    frame = {f"c{v}": codes[:, v] for v in range(3)}
    table = {f"c{v}": np.asarray(rows[:, v]) for v in range(3)} | {"n": np.asarray(counts)}
    by_rows, by_weights = latent_classes(frame, 2), latent_classes(table, 2, weights="n")
    by_array = latent_classes(table, 2, columns=["c0", "c1", "c2"], weights=table["n"])
    assert by_rows.to_dict() == by_weights.to_dict() == by_array.to_dict()


def test_one_class_is_the_product_of_margins():
    codes = sample(3, 200, 2, (2, 3))
    rows, counts = distinct(codes)
    sol = latent.solve(rows, counts, (2, 3), 1, key=jax.random.key(0))
    for v, profile in enumerate(sol.value.profiles):
        np.testing.assert_allclose(profile[:, 0], np.bincount(codes[:, v]) / 200, atol=1e-12)
    assert int(sol.status) == Status.SUCCESS
    assert int(sol.stats["rank"]) == int(sol.stats["num_parameters"]) == 3
    np.testing.assert_allclose(latent.posterior(sol.value, rows), 1.0)


def test_derivatives_in_the_counts_against_differences():
    rows, counts = distinct(sample(4, 2000, 2, (3, 2, 2, 2)))

    def number(counts):
        sol = latent.solve(rows, counts, (3, 2, 2, 2), 2, key=jax.random.key(0), tolerance=1e-9)
        return sol.value.shares[0] + 2 * sol.value.profiles[0][1, 1], sol.stats["log_likelihood"]

    direction = jnp.asarray(np.random.default_rng(0).random(len(counts)))
    push = jax.jit(lambda counts: jax.jvp(number, (counts,), (direction,)))
    _, tangents = push(counts)
    above, below = (push(counts + s * 1e-2 * direction)[0] for s in (1, -1))
    for j, tangent in enumerate(tangents):
        np.testing.assert_allclose(tangent, (above[j] - below[j]) / 2e-2, rtol=1e-6)
        gradient = jax.grad(lambda c, j=j: number(c)[j])(counts)
        np.testing.assert_allclose(gradient @ direction, tangent, rtol=1e-8)


def test_jit_vmap_and_float32():
    rows, counts = distinct(sample(5, 1000, 2, (2, 3, 3)))
    fit = functools.partial(latent.solve, num_levels=(2, 3, 3), k=2, key=jax.random.key(0))
    alone = fit(rows, counts)
    batch = jax.jit(jax.vmap(lambda c: fit(rows, c)))(jnp.stack([counts, 2 * counts]))
    np.testing.assert_allclose(batch.value.shares[0], alone.value.shares, atol=1e-8)
    np.testing.assert_allclose(batch.value.shares[1], alone.value.shares, atol=1e-4)
    single = fit(rows, counts.astype(jnp.float32))
    assert {leaf.dtype for leaf in jax.tree.leaves(single.value)} == {jnp.dtype("float32")}
    np.testing.assert_allclose(single.value.shares, alone.value.shares, atol=2e-3)


def test_statuses_and_options():
    rows, counts = distinct(sample(6, 500, 3, (3, 3, 3, 3)))
    fit = functools.partial(latent.solve, rows, counts, (3, 3, 3, 3), 3, key=jax.random.key(0))
    settled = fit()
    assert int(settled.status) in (Status.SUCCESS, Status.BOUNDARY)
    assert int(settled.stats["num_agree"]) >= 4
    assert float(settled.stats["decrement"]) < 1e-4
    short = fit(max_steps=1, tolerance=1e-12)
    assert int(short.status) == Status.MAX_STEPS
    assert int(short.stats["steps"]) == 1
    assert int(fit(num_starts=1).stats["num_starts"]) == 1
    loose = fit(tolerance=10.0)
    assert int(loose.stats["steps"]) < int(settled.stats["steps"])
    rounding = 1e-9
    assert loose.stats["log_likelihood"] <= settled.stats["log_likelihood"] + rounding
    bad = latent.solve(rows, counts * jnp.nan, (3, 3, 3, 3), 3, key=jax.random.key(0))
    assert int(bad.status) == Status.NONFINITE


# Five items drawn from three classes, of which one start in seven meets the best optimum, and most
# others one that is worse by 0.1.
POPULAR = [
    10, 7, 8, 7, 1, 9, 1, 14, 22, 22, 15, 7, 11, 13, 7, 5, 7, 11, 5, 7, 6, 11, 4, 8, 14, 18, 9, 5,
    12, 13, 6, 5,
]  # fmt: skip


def test_no_search_stops_in_a_popular_optimum():
    """Where the best optimum so far was met often, it need not be the best."""
    rows = jnp.asarray(np.stack(np.unravel_index(np.arange(32), (2,) * 5), axis=1))
    counts = jnp.asarray(POPULAR, float)
    keys = jax.random.split(jax.random.key(0), 16)

    def ends(thorough):
        def of(key):
            return latent.solve(rows, counts, (2,) * 5, 3, key=key, thorough=thorough).stats

        return jax.tree.map(np.asarray, jax.jit(lambda: jax.lax.map(of, keys))())

    every, few = ends(True), ends(False)
    best = every["log_likelihood"].max()
    np.testing.assert_allclose(every["log_likelihood"], best, atol=1e-6)
    assert (few["log_likelihood"] < best - 0.01).sum() >= 4
    assert (few["num_agree"] >= 4).all()  # it was met several times, and is not the best
    assert (every["num_starts"] == 44).all()
    np.testing.assert_allclose(every["miss_rate"], 0.9**44)
    assert np.isnan(few["miss_rate"]).all()


def test_starts_that_disagree():
    """Four classes in carcinoma: one start in three meets the maximum, so two seldom agree."""
    frame = pd.read_csv(shared_data("carcinoma.csv"))
    found = [latent_classes(frame, 4, seed=seed, num_starts=2) for seed in range(6)]
    disagree = [r.status is Status.STARTS_DISAGREE for r in found]
    assert any(disagree)
    for result in found:
        assert (result.status is Status.STARTS_DISAGREE) == (result.stats["num_agree"] < 2)
        assert result.stats["num_starts"] == 2
    gaps = [r.stats["runner_up"] for r, apart in zip(found, disagree, strict=True) if apart]
    assert all(0.01 < gap < 10 for gap in gaps)


def test_probabilities_at_zero_are_exact():
    """Class 1 always answers 0: its probability of 1 is the boundary, not a small number."""
    counts = jnp.array([300.0, 12, 10, 30, 11, 35, 28, 90])
    rows = jnp.asarray(np.array(list(np.ndindex(2, 2, 2))))
    rows = jnp.concatenate([rows, rows[:1]])
    sol = latent.solve(rows, jnp.append(counts, 400.0), (2, 2, 2), 2, key=jax.random.key(0))
    total = counts.at[0].add(400.0)
    again = latent.solve(rows[:-1], total, (2, 2, 2), 2, key=jax.random.key(1))
    np.testing.assert_allclose(sol.value.shares, again.value.shares, atol=1e-6)
    frame = pd.read_csv(shared_data("carcinoma.csv"))
    result = latent_classes(frame, 2)
    tables = np.stack([profile.probabilities for profile in result.profiles.values()])
    assert result.status is Status.BOUNDARY
    assert (tables == 0).sum() == result.num_parameters - result.stats["num_free"] == 5
    assert tables[tables > 0].min() > 1e-3
    assert any("5 parameters are held at 0 or 1" in warning for warning in result.warnings)


def test_a_vanishing_probability_goes_to_zero_in_one_step():
    """EM leaves 1e-13 where the answer is 0; a step ends there, and a wrong 0 is undone."""

    def rows_of(counts, size):
        codes = jnp.arange(len(counts))[:, None]
        return Rows.of(views_of(1), codes, jnp.array(counts), (size,))

    def moved(counts, shares, profile):
        data, factors = rows_of(counts, len(profile)), Factors(shares, (profile,))
        direction, gain, _ = newton_step(data, factors, jnp.array(1e-3), jnp.asarray(False))
        assert float(gain) > 0
        return retract(data.structure, factors, direction).parts[0]

    shares, profile = jnp.array([1.0]), jnp.array([[0.6], [0.4 - 1e-13], [1e-13]])
    assert float(moved([60.0, 40.0], shares, profile)[2, 0]) == 0
    settled = settle_down(rows_of([60.0, 40.0], 3), Factors(shares, (profile,)))
    assert float(settled.factors.parts[0][2, 0]) == 0
    assert float(settled.decrement) < 1e-9  # not the gain of a step far below 0
    shares, wrong = jnp.array([0.5, 0.5]), jnp.array([[1.0, 0.5], [0.0, 0.5]])
    once = moved([50.0, 50.0], shares, wrong)
    twice = moved([50.0, 50.0], shares, once)
    assert 0.0 < float(once[1, 0]) < float(twice[1, 0])
    assert float(twice[1, 0]) > 0.01


def test_what_is_called_converged_is():
    """A probability of 3e-5 that belongs at 0 made the last exact step too long to be taken."""
    codes = np.argwhere(np.ones((3, 3, 2)))
    counts = np.array([130, 70, 0, 0, 980, 316, 64, 48, 0, 0, 663, 217, 118, 56, 0, 0, 991, 347.0])
    seen = jnp.asarray(codes[counts > 0]), jnp.asarray(counts[counts > 0])
    fit = jax.jit(lambda key: latent.solve(*seen, (3, 3, 2), 2, key=key))
    values = []
    for seed in range(4):
        sol = fit(jax.random.key(seed))
        assert int(sol.status) == Status.BOUNDARY
        assert float(sol.stats["decrement"]) < 1e-8
        assert sorted(np.asarray(sol.value.profiles[1]).ravel())[:4] == [0, 0, 0, 0]
        values.append(np.asarray(sol.value.shares))
    np.testing.assert_allclose(values, np.tile(values[0], (4, 1)), atol=1e-9)


def test_the_rank_is_that_of_the_whole_table_where_it_is_small():
    """Two rows carry two scores, but the cells of three margins identify three parameters."""
    rows = jnp.array([[0, 0, 0], [1, 1, 1]])
    sol = latent.solve(rows, jnp.array([30.0, 20.0]), (2, 2, 2), 1, key=jax.random.key(0))
    assert int(sol.stats["rank"]) == 3
    assert int(sol.status) == Status.SUCCESS


def test_many_views_do_not_underflow():
    profile = jnp.array([[0.6, 0.4], [0.4, 0.6]])
    classes = latent.LatentClasses(jnp.array([0.5, 0.5]), (profile,) * 1101)
    codes = jnp.asarray(np.arange(1101) % 2)[None]
    np.testing.assert_allclose(latent.posterior(classes, codes)[0], [0.6, 0.4], rtol=1e-9)


def wide(num_items, n=100, missing=0.0, seed=7):
    """Return two well-separated classes on many binary items: more parameters than rows."""
    rng = np.random.default_rng(seed)
    likely = np.where(rng.random(n)[:, None] < 0.4, 0.8, 0.25)
    codes = (rng.random((n, num_items)) < likely).astype(int)
    return np.where(rng.random(codes.shape) < missing, -1, codes)


def smallest_curvature(sol, codes):
    """Return the smallest eigenvalue of the observed information by second derivatives.

    Coordinates are the share of the first class and each class's probabilities of 1; classes and
    items one by one.
    """
    codes = jnp.asarray(codes)
    theta = jnp.concatenate([sol.value.shares[:1], *(p[1] for p in sol.value.profiles)])

    def log_likelihood(theta):
        of_one = theta[1:].reshape(-1, 2)  # (item, class)
        each = jnp.where(codes[:, :, None] == 1, of_one, 1 - of_one)
        each = jnp.where(codes[:, :, None] < 0, 1.0, each)
        shares = jnp.stack([theta[0], 1 - theta[0]])
        return jnp.sum(jnp.log(jnp.prod(each, axis=1) @ shares))

    return float(np.linalg.eigvalsh(-jax.hessian(log_likelihood)(theta))[0])


@pytest.mark.parametrize(("num_items", "missing"), [(60, 0.0), (60, 0.15), (13, 0.15)])
def test_more_parameters_than_rows_may_be_identified(num_items, missing):
    """Information is the curvature of the likelihood, which fewer rows than parameters may have.

    The outer products of 100 rows' scores have rank 99 at most, for 121 parameters.
    """
    codes = wide(num_items, missing=missing, n=100 if num_items == 60 else 24)
    sol = latent.solve(*distinct(codes), (2,) * num_items, 2, key=jax.random.key(0))
    assert int(sol.stats["num_parameters"]) == 2 * num_items + 1 > len(codes)
    assert int(sol.stats["rank"]) == int(sol.stats["num_free"])
    if num_items == 60:
        assert int(sol.status) == Status.SUCCESS
        assert smallest_curvature(sol, codes) > 1
    else:
        assert int(sol.status) in (Status.SUCCESS, Status.BOUNDARY)


@pytest.mark.parametrize(
    ("sizes", "k", "rank"), [((2, 2), 2, 3), ((3, 3), 2, 7), ((2, 2, 2), 3, 7)]
)
@pytest.mark.parametrize("missing", [0.0, 0.2, 1.0], ids=["whole", "some holes", "a hole a row"])
def test_flat_directions_are_found_whatever_is_missing(sizes, k, rank, missing):
    """Missing cells identify nothing; where every row has one, only the margins are known."""
    codes = sample(3, 500, 2, sizes, missing=missing if missing < 1 else 0.0)
    codes = codes[(codes >= 0).any(1)]
    if missing == 1.0:
        hole = np.random.default_rng(0).integers(0, len(sizes), len(codes))
        codes[np.arange(len(codes)), hole] = -1
    sol = latent.solve(*distinct(codes), sizes, k, key=jax.random.key(0))
    assert int(sol.status) == Status.NOT_IDENTIFIED
    assert int(sol.stats["rank"]) <= rank < int(sol.stats["num_parameters"])


def test_pairs_of_many_items_leave_one_direction_flat():
    """Each row shows two of 13 items: 13 means and a covariance of rank 1, for 27 parameters."""
    rng = np.random.default_rng(1)
    codes = wide(13, n=2000)
    shown = np.argsort(rng.random(codes.shape), axis=1) < 2
    sol = latent.solve(*distinct(np.where(shown, codes, -1)), (2,) * 13, 2, key=jax.random.key(0))
    assert int(sol.stats["num_free"]) == 27
    assert int(sol.stats["rank"]) == 26
    assert int(sol.status) == Status.NOT_IDENTIFIED


def test_arguments_that_do_not_fit_together():
    rows, counts, key = jnp.zeros((4, 2), int), jnp.ones(4), jax.random.key(0)
    with pytest.raises(ValueError, match="one of each per view"):
        latent.solve(rows, counts, (2, 2, 2), 2, key=key)
    with pytest.raises(ValueError, match="at least 1"):
        latent.solve(rows, counts, (2, 2), 0, key=key)
    with pytest.raises(ValueError, match="t is None"):
        latent.solve(rows, counts, (2, 2), 2, key=key, by_treatment=(True, False))


# The shell on the host.


def survey(n=400, seed=0):
    codes = sample(seed, n, 2, (2, 3, 2, 2))
    return {
        "sex": np.array(["f", "m"])[codes[:, 0]],
        "answer": np.array(["no", "maybe", "yes"])[codes[:, 1]],
        "count": codes[:, 2] + 3,
        "flag": codes[:, 3].astype(bool),
    }


def test_every_kind_of_table_gives_the_same():
    frame = survey()
    first = latent_classes(frame, 2)
    for other in (pd.DataFrame(frame), pl.DataFrame(frame), pa.table(frame)):
        assert latent_classes(other, 2).to_dict() == first.to_dict()
    levels = {name: profile.levels for name, profile in first.profiles.items()}
    assert levels == {
        "sex": ("f", "m"), "answer": ("maybe", "no", "yes"), "count": ("3", "4"),
        "flag": ("0", "1"),
    }  # fmt: skip
    assert list(latent_classes(frame, 1, columns=["flag", "sex"]).profiles) == ["flag", "sex"]


def test_posterior_of_rows():
    frame = survey()
    result = latent_classes(frame, 2)
    own = result.posterior(pd.DataFrame(frame))
    np.testing.assert_allclose(own.sum(1), 1.0)
    np.testing.assert_allclose(own.mean(0), result.shares, atol=1e-5)
    cells = [("sex", "f"), ("answer", "no"), ("count", "3"), ("flag", "1")]
    joint = result.shares.copy()
    for name, level in cells:
        levels, table = result.profiles[name]
        joint = joint * table[levels.index(level)]
    row = {"sex": ["f"], "answer": ["no"], "count": [3], "flag": [True]}
    np.testing.assert_allclose(result.posterior(row)[0], joint / joint.sum(), rtol=1e-10)
    empty = {name: [None] for name in frame}
    np.testing.assert_allclose(result.posterior(empty)[0], result.shares)
    with pytest.raises(InputError, match="levels that the fit has not seen: 'x'"):
        result.posterior(row | {"sex": ["x"]})
    with pytest.raises(InputError, match="'flag' is not in the table"):
        result.posterior({name: row[name] for name in ("sex", "answer", "count")})


def test_rows_without_cells_are_dropped_and_counted():
    frame = {name: [*values.tolist(), None, None] for name, values in survey().items()}
    result = latent_classes(frame, 2)
    whole = latent_classes(survey(), 2)
    assert (result.num_rows, result.num_dropped, result.missing) == (400, 2, {})
    assert result.log_likelihood == whole.log_likelihood
    assert result.warnings[0] == "2 rows without any cell present were dropped"
    frame["sex"][0] = None
    holed = latent_classes(frame, 2)
    assert holed.missing == {"sex": 1}
    assert any("missing cells by column: 'sex' 1" in warning for warning in holed.warnings)


def test_weights_of_zero_take_rows_out():
    frame = survey()
    weights = np.ones(400)
    weights[200:] = 0
    first = {name: values[:200] for name, values in frame.items()}
    assert latent_classes(frame, 2, weights=weights).to_dict() == latent_classes(first, 2).to_dict()


def test_what_a_result_says(tmp_path):
    result = latent_classes(survey(), 2, seed=4)
    text = result.summary()
    for part in ("Latent classes: 2, 4 columns", "class 2", "answer = maybe", "BIC", "independent"):
        assert part in text
    assert repr(result) == text
    assert "<table>" in result._repr_html_()
    path = tmp_path / "fit.json"
    result.to_json(path)
    assert json.loads(path.read_text()) == result.to_dict()
    assert result.to_dict()["seed"] == 4
    assert result.raise_if_failed() is result
    failed = dataclasses.replace(result, status=Status.MAX_STEPS)
    assert "NOT TO BE USED. MAX_STEPS" in failed.summary()
    with pytest.raises(EstimateError, match="ran out of steps"):
        failed.raise_if_failed()
    weak = dataclasses.replace(result, status=Status.NOT_IDENTIFIED)
    assert "WARNING. NOT_IDENTIFIED" in weak.summary()


def test_float64_without_the_switch():
    with jax.enable_x64(False):
        result = latent_classes(survey(), 2)
        assert result.shares.dtype == np.float64
        assert result.posterior(survey()).dtype == np.float64
    assert result.to_dict() == latent_classes(survey(), 2).to_dict()


WRONG = [
    ({"num_classes": 0}, "num_classes is 0: give a whole number"),
    ({"num_classes": 2.0}, "num_classes is 2.0"),
    ({"num_classes": True}, "num_classes is True"),
    ({"num_classes": 25}, "distinct patterns; use fewer classes"),
    ({"num_starts": 0}, "num_starts is 0"),
    ({"seed": "x"}, "seed is 'x'"),
    ({"columns": ["sex", "age"]}, "column 'age' is not in the table"),
    ({"columns": "sex"}, "columns is the text 'sex'"),
    ({"columns": []}, "no column to fit"),
    ({"columns": ["sex", "sex"]}, "'sex' appears more than once"),
    ({"columns": ["sex", "count"], "weights": "count"}, "'count' appears more than once"),
    ({"weights": "w"}, "column 'w' is not in the table"),
    ({"weights": "sex"}, "weights 'sex' are counts"),
    ({"weights": [1.0, 2.0]}, "give one per row"),
    ({"weights": np.full(400, 0.5)}, "whole numbers"),
    ({"weights": np.full(400, np.nan)}, "none missing"),
    ({"weights": np.append(np.ones(399), -1)}, "first in row 400"),
    ({"weights": np.zeros(400)}, "no row has both"),
    ({"sex": ["f"] * 400}, "'sex' is constant ('f')"),
    ({"sex": [None] * 400}, "'sex' is constant (empty)"),
    ({"count": np.arange(400)}, "'count' has 400 levels, more than 100"),
    ({"count": np.linspace(0.5, 1, 400)}, "not whole (0.5)"),
    ({"count": [1, 2]}, "different lengths"),
]


@pytest.mark.parametrize(("changed", "message"), WRONG, ids=[message for _, message in WRONG])
def test_one_line_for_what_is_wrong(changed, message):
    frame = survey()
    options = {"num_classes": 2}
    for name, value in changed.items():
        (frame if name in frame else options)[name] = value
    with pytest.raises(InputError) as raised:
        latent_classes(frame, **options)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_tables_that_are_none():
    with pytest.raises(InputError, match="no rows"):
        latent_classes({"a": [], "b": []}, 2)
    with pytest.raises(InputError, match="dict of arrays"):
        latent_classes([1, 2], 2)
