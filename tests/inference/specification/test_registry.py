"""Levels against the data, nested levels, arms and ranges: values, ranks, size, and no answer."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats

import jaxmix as jm
from jaxmix.inference.specification import statistics
from jaxmix.inference.specification.arms import arms_statistic
from jaxmix.inference.specification.level import fit_statistic
from jaxmix.inference.specification.nested import nested_statistic
from jaxmix.inference.specification.ranges import range_statistic
from tests import likelihood_oracles as lo

KEY = jax.random.key(0)
N = 10_000
NUM = 300
RUNS = {
    "level 3": {},
    "level 2": {"level": 2},
    "nested": {"test": "nested"},
    "arms": {"test": "arms"},
}


@functools.cache
def drawn():
    """Tables of a population in which Z does not affect T, so that every null holds."""
    population = jm.populations.block(d_z=3, d_x=3, zt_strength=0.0)
    keys = jax.random.split(jax.random.key(5), NUM)
    return keys, jax.vmap(lambda key: population.counts(key, N))(keys)


@functools.cache
def outcome_of(name):
    # One start: these tables are regular, and it spares compiling the search for others.
    keys, cells = drawn()
    one = functools.partial(statistics, k=2, num_starts=1, **RUNS[name])
    return jax.tree.map(np.asarray, jax.vmap(lambda c, key: one(c, key=key))(cells, keys))


@functools.cache
def oracle_fits(i):
    """Fits by EM: levels 3 and 2, and the arms apart."""
    cells = np.asarray(drawn()[1][i])
    rng = np.random.default_rng(i)
    arms = [lo.em_level3(cells[t : t + 1], 2, rng, num_starts=8) for t in range(2)]
    return (
        lo.em_level3(cells, 2, rng, num_starts=8), lo.em_level2(cells, 2, rng, num_starts=8), arms,
    )  # fmt: skip


def rank_by_numpy(*factors):
    """Rank of the derivative of the cells, probabilities at 0 held there; the total included."""
    columns = []
    for place, factor in enumerate(factors):
        for index in np.argwhere(factor > 1e-9):
            unit = np.zeros_like(factor)
            unit[tuple(index)] = 1.0
            moved = [unit if i == place else f for i, f in enumerate(factors)]
            columns.append(lo.model_table(*moved).ravel())
    p = lo.model_table(*factors).ravel()
    matrix = np.array(columns).T[p > 1e-9] / np.sqrt(p[p > 1e-9])[:, None]
    return int((p > 1e-9).sum()), int(np.linalg.matrix_rank(matrix, 1e-7))


@pytest.mark.parametrize("i", range(4))
def test_statistics_and_ranks_are_those_of_em(i):
    cells = np.asarray(drawn()[1][i])
    full = float(cells.ravel() @ np.log(cells.ravel() / N))
    three, two, arms = oracle_fits(i)
    by_arm = [cells[t].sum() for t in range(2)]
    apart = sum(fit.loglik + n * np.log(n / N) for fit, n in zip(arms, by_arm, strict=True))
    expected = {
        "level 3": 2 * (full - three.loglik),
        "level 2": 2 * (full - two.loglik),
        "nested": 2 * (three.loglik - two.loglik),
        "arms": 2 * (apart - three.loglik),
    }
    of_3, of_2 = (rank_by_numpy(f.W, f.B, f.C) for f in (three, two))
    of_arms = sum(rank_by_numpy(f.W, f.B, f.C)[1] for f in arms)
    df = {
        "level 3": of_3[0] - of_3[1], "level 2": of_2[0] - of_2[1],
        "nested": of_3[1] - of_2[1], "arms": of_arms - of_3[1],
    }  # fmt: skip
    for name in RUNS:
        found = outcome_of(name)
        assert found.statistic[i] == pytest.approx(expected[name], abs=2e-3), name
        assert found.df[i] == df[name], name
        tail = scipy.stats.chi2.sf(expected[name], df[name])
        assert found.p_value[i] == pytest.approx(tail, abs=1e-3), name


@pytest.mark.parametrize("name", RUNS)
def test_size_and_mean_under_the_null(name):
    statistic, df, p = outcome_of(name)
    # Chi-square: mean df, variance 2 df. 300 tables: 3 standard errors either way.
    assert abs(np.mean(statistic - df)) < 3 * (2 * np.median(df) / NUM) ** 0.5
    assert abs(np.mean(p < 0.05) - 0.05) < 3 * (0.05 * 0.95 / NUM) ** 0.5


def test_a_level_of_z_that_an_arm_lacks_is_no_freedom():
    cells = np.asarray(drawn()[1][0]).copy()
    cells[1, 2] = 0.0
    found = fit_statistic(jnp.asarray(cells), 2, key=KEY, num_starts=1)
    fit = lo.em_level3(cells, 2, np.random.default_rng(0), num_starts=8)
    possible, rank = rank_by_numpy(fit.W, fit.B, fit.C)
    assert possible == 30
    assert int(found.df) == possible - rank == 30 - 18


def test_one_arm_of_three_binary_views_leaves_nothing():
    # The second table is one that no two classes make: the product of the three covariances is
    # negative, and probabilities at 0 must not be taken for something to test.
    regular = np.einsum("u,uz,ux,uy->zxy", [0.4, 0.6], *([[[0.8, 0.2], [0.3, 0.7]]] * 3))
    signs = np.array([1.0, -1.0])
    of_z, of_x, of_y = signs[:, None, None], signs[:, None], signs
    pairs = of_z * of_x + of_z * of_y - of_x * of_y
    impossible = (1 + 0.2 * pairs) / 8
    cells = 1000 * jnp.stack([jnp.asarray(regular), jnp.asarray(impossible)])[:, None]
    found = jax.vmap(lambda c: fit_statistic(c, 2, key=KEY, num_starts=9))(cells)
    assert found.statistic[1] > 10
    assert found.df.tolist() == [0, 0]
    assert np.isnan(found.p_value).all()


def test_boundary_estimates_count_as_fixed():
    # One class has an outcome that never occurs under control: a probability exactly 0.
    population = jm.populations.block(d_z=3, d_x=3, effects=[1.0, 0.4], base=[0.5, 0.6])
    cells = population.counts(jax.random.key(0), N)
    found = fit_statistic(cells, 2, key=KEY, num_starts=1)
    fit = lo.em_level3(np.asarray(cells), 2, np.random.default_rng(0), num_starts=8)
    assert (fit.C < 1e-9).sum() == 1
    assert int(found.df) == 17
    assert found.df == np.subtract(*rank_by_numpy(fit.W, fit.B, fit.C))


def gaussian_model(flat, level, common_x):
    """Moments of two classes with linear features of 2, 2 and 1 columns, by loops."""
    at = iter(flat)
    mass = np.array([[next(at) for _ in range(2)] for _ in range(2)])
    a = [[[1.0, next(at), next(at)] for _ in range(2)] for _ in range(2 if level == 3 else 1)]
    b = [[[1.0, next(at), next(at)] for _ in range(2)] for _ in range(1 if common_x else 2)]
    c = [[[1.0, next(at)] for _ in range(2)] for _ in range(2)]
    total = np.zeros((2, 3, 3, 2))
    for t in range(2):
        for u in range(2):
            outer = np.multiply.outer(a[t % len(a)][u], b[t % len(b)][u])
            total[t] += mass[t, u] * np.multiply.outer(outer, c[t][u])
    return total


def j_by_scipy(moments, level, common_x):
    """Minimum of J from the exact values, and free moments minus parameters."""
    exact = jm.factorization.solve(
        jm.populations.gaussian(d_z=2, d_x=2, zt_strength=0.0).moments(), 2, key=KEY,
        loss="frobenius",
    ).value  # fmt: skip
    mass = np.asarray(exact.z_profiles[:, 0] * exact.shares)
    a = np.asarray(exact.z_profiles[:, 1:] / exact.z_profiles[:, :1])
    b, c = np.asarray(exact.x_profiles[1:]), np.asarray(exact.y_profiles[:, 1:])
    start = [mass.ravel()]
    start += [a[t].T.ravel() for t in range(2 if level == 3 else 1)]
    start += [b.T.ravel()] * (1 if common_x else 2) + [c.transpose(0, 2, 1).ravel()]
    values, vectors = np.linalg.eigh(np.asarray(moments.covariance))
    keep = values > 1e-8 * values[-1]
    white = (vectors[:, keep] / np.sqrt(values[keep])).T * np.sqrt(float(moments.num_rows))
    goal = np.asarray(moments.tensor)

    def gap(flat):
        # The constant's moment has no variance: the total is 1.
        flat = flat.copy()
        flat[:4] /= flat[:4].sum()
        return white @ (gaussian_model(flat, level, common_x) - goal).ravel()

    found = scipy.optimize.least_squares(gap, np.concatenate(start), xtol=1e-14, ftol=1e-14)
    return 2 * found.cost, int(keep.sum()) - (len(found.x) - 1)


def test_j_and_its_differences_are_minima_by_scipy():
    population = jm.populations.gaussian(d_z=2, d_x=2, zt_strength=0.0)
    moments = population.sample_moments(jax.random.key(3), 2000, covariance=True)
    three, two, apart = (j_by_scipy(moments, *of) for of in ((3, True), (2, True), (3, False)))
    expected = {
        "level 3": three,
        "nested": (two[0] - three[0], two[1] - three[1]),
        "arms": (three[0] - apart[0], three[1] - apart[1]),
    }
    for name, (statistic, df) in expected.items():
        found = statistics(moments, 2, key=KEY, **RUNS[name])
        assert float(found.statistic) == pytest.approx(statistic, abs=1e-3), name
        assert int(found.df) == df, name


@pytest.mark.parametrize("loss", ["kl", "gmm"])
def test_a_fit_that_is_there_already_gives_the_same_test_of_the_arms(loss, monkeypatch):
    moments = jm.moments.from_counts(drawn()[1][0], covariance=True)
    own = arms_statistic(moments, 2, key=KEY, loss=loss)
    fitted = jm.factorization.solve(moments, 2, key=KEY, loss=loss).stats
    monkeypatch.setattr(jm.factorization, "solve", None)  # not called again
    found = arms_statistic(moments, 2, key=KEY, loss=loss, fitted=fitted)
    assert float(found.statistic) == pytest.approx(float(own.statistic), abs=1e-3)
    assert int(found.df) == int(own.df) > 0
    elsewhere = {**fitted, "start": jax.tree.map(lambda v: 0.8 * v, fitted["start"])}
    worse = arms_statistic(moments, 2, key=KEY, loss=loss, fitted=elsewhere)
    assert float(worse.statistic) > float(own.statistic) + 1  # the start is what is used


def test_nested_levels_are_one_where_there_is_one_arm():
    cells = drawn()[1][0, :1]
    assert int(nested_statistic(cells, 2, key=KEY, num_starts=1).df) == 0


def law_by_numpy(cells):
    """Shares and effects of two classes from the synthetic moments, by Prony's polynomial."""
    p = cells / cells.sum()
    zx, zxy = p.sum(3), p[..., 1]
    quotient = [np.linalg.solve(zx[t], zxy[t]) for t in range(2)]
    difference = quotient[1] - quotient[0]
    x = zx.sum((0, 1))
    m = [x @ np.linalg.matrix_power(difference, power) @ np.ones(2) for power in range(4)]
    lower = np.linalg.solve([[m[0], m[1]], [m[1], m[2]]], [-m[2], -m[3]])
    effects = np.sort(np.roots([1.0, lower[1], lower[0]]).real)
    share = (m[1] - effects[0]) / (effects[1] - effects[0])
    return np.array([1 - share, share, *effects])


@pytest.mark.parametrize("share", [-0.05, 0.4])
def test_ranges_by_finite_differences(share):
    design = jm.populations.block(
        proxy_strength=0.65, zt_strength=0.0, effects=[-0.2, 0.3], base=[0.45, 0.55]
    )
    joint = np.einsum(
        "u,utz,ux,uty->tzxy",
        [share, 1 - share],
        *map(np.asarray, (design.zt, design.x, design.y[:, :, 0])),
    )
    n = 1e6
    cells = n * joint
    slope = []
    for unit in np.eye(16).reshape(16, 2, 2, 2, 2):
        step = 1e-7 * n * unit
        slope.append((law_by_numpy(cells + step) - law_by_numpy(cells - step)) / 2e-7)
    slope, flat = np.array(slope).T, joint.ravel()
    # Each row of the sample adds 1/n to its cell; the total is divided out.
    spread = slope @ (np.diag(flat) - np.outer(flat, flat)) @ slope.T / n
    values = law_by_numpy(cells)
    beyond = [max(-v, v - 1) for v in values[:2]] + [abs(v) - 1 for v in values[2:]]
    z = np.max(beyond / np.sqrt(np.diag(spread)))
    found = range_statistic(jnp.asarray(cells), 2, method="synthetic")
    assert float(found.statistic) == pytest.approx(z, rel=1e-5)
    assert int(found.df) == 8
    assert float(found.p_value) == pytest.approx(min(1, 8 * scipy.stats.norm.sf(z)), rel=1e-4)
    assert (z > 0) == (share < 0)


def test_spectral_standard_errors_are_the_spread_of_its_shares():
    design = jm.populations.block(
        proxy_strength=0.65, zt_strength=0.0, effects=[-0.2, 0.3], base=[0.45, 0.55]
    )
    shares = jnp.array([-0.05, 1.05])
    joint = jnp.einsum("u,utz,ux,uty->tzxy", shares, design.zt, design.x, design.y[:, :, 0])
    n, num = 1e7, 400
    keys = jax.random.split(jax.random.key(1), num)
    cells = jm.populations.discrete.multinomial(keys, n, joint.reshape(-1)).reshape(num, 2, 2, 2, 2)
    found = jax.vmap(lambda c: range_statistic(c, 2))(cells)
    assert (found.p_value < 0.05).all()
    # A share below 0 is what the projection onto the simplex repairs.
    repair = jax.vmap(lambda c: jm.spectral.solve(jm.moments.from_counts(c), 2))(cells).stats[
        "share_repair"
    ]
    errors = repair / found.statistic
    # The standard deviation of 400 draws has a standard error of 3.5 %.
    assert float(jnp.std(repair) / errors.mean()) == pytest.approx(1.0, abs=0.11)


def test_complex_effects_and_short_ranks_have_no_ranges():
    joint = np.asarray(jm.populations.block(proxy_strength=0.6).joint())
    cells = (
        np.random.default_rng(0).multinomial(60, joint.ravel(), 200).reshape(-1, 2, 2, 2, 2) + 1.0
    )
    status = jax.vmap(lambda c: jm.spectral.solve(jm.moments.from_counts(c), 2).status)(
        jnp.asarray(cells)
    )
    found = jax.vmap(lambda c: range_statistic(c, 2))(jnp.asarray(cells))
    none = np.isin(status, [jm.Status.COMPLEX_SPECTRUM, jm.Status.RANK_DEFICIENT])
    assert set(np.asarray(status)) > {jm.Status.COMPLEX_SPECTRUM, jm.Status.RANK_DEFICIENT}
    np.testing.assert_array_equal(np.isnan(found.p_value), none)


def test_bad_options_are_refused():
    cells = drawn()[1][0]
    for test, options in (("level", {"loss": "l2"}), ("none", {}), ("range", {"method": "em"})):
        with pytest.raises(ValueError, match="use "):
            statistics(cells, 2, key=KEY, test=test, **options)
