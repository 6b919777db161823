"""Coupled factorization against EM, bounds, published algebra and its own derivatives."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmix as jm
from jaxmix import Status
from jaxmix.model.likelihood import em_step
from jaxmix.model.structure import LEVEL
from jaxmix.model.table import Table
from tests import likelihood_oracles as lo
from tests import oracles
from tests.helpers import exact_moments, population

KEY = jax.random.key(0)


@functools.cache
def solver(k, **options):
    return jax.jit(
        jax.vmap(lambda cells, key: jm.factorization.solve(cells, k, key=key, **options))
    )


def fit(cells, k, **options):
    cells = jnp.asarray(np.stack(cells), float)
    return solver(k, **options)(cells, jax.random.split(KEY, len(cells)))


@functools.cache
def drawn(kind, k, d, n, num):
    rng = np.random.default_rng([k, d, n, kind == "strong"])
    family = {"strong": oracles.strong, "generic": oracles.generic}[kind]
    made = [family(rng, k, d, d) for _ in range(num)]
    return made, [p.counts(rng, n) for p in made]


@pytest.mark.parametrize("level", [2, 3])
@pytest.mark.parametrize("shape", [(2, 2), (3, 6)])
@pytest.mark.parametrize("kind", ["strong", "generic"])
def test_no_start_of_em_does_better(kind, shape, level):
    k, d = shape
    _, cells = drawn(kind, k, d, 10_000, 6)
    sol = fit(cells, k, level=level)
    oracle = {2: lo.em_level2, 3: lo.em_level3}[level]
    best = [oracle(c, k, np.random.default_rng(1)).loglik for c in cells]
    assert (np.asarray(sol.status) < Status.MAX_STEPS).all()
    assert (np.asarray(sol.stats["decrement"]) < 1e-4).all()
    np.testing.assert_allclose(sol.stats["log_likelihood"], best, atol=1e-3, rtol=0)


def test_parameters_are_those_of_em():
    _, cells = drawn("strong", 3, 6, 10_000, 6)
    sol = fit(cells, 3)
    for i, c in enumerate(cells):
        best = lo.em_level3(c, 3, np.random.default_rng(1))
        effects, shares = lo.law_of(best, np.arange(2.0))
        np.testing.assert_allclose(sol.value.law.effects[i], effects, atol=1e-6)
        np.testing.assert_allclose(sol.value.law.shares[i], shares, atol=1e-6)
        order = (best.C[1, 1] - best.C[0, 1]).argsort()
        np.testing.assert_allclose(sol.value.x_profiles[i], best.B[:, order], atol=1e-6)
        np.testing.assert_allclose(
            sol.value.z_profiles[i] * sol.value.shares[i], best.W[..., order], atol=1e-6
        )
        np.testing.assert_allclose(sol.value.y_profiles[i], best.C[..., order], atol=1e-6)


def test_level_2_gives_profiles_that_make_up_the_table():
    joint = lo.model_table(*_level_2_factors(np.random.default_rng(0)))
    cells = joint.reshape(3, 4, 2, 2).transpose(2, 0, 1, 3) * 1e6
    sol = jm.factorization.solve(jnp.asarray(cells), 2, key=KEY, level=2)
    m = sol.value
    rebuilt = jnp.einsum("u,tzu,xu,tyu->tzxy", m.shares, m.z_profiles, m.x_profiles, m.y_profiles)
    np.testing.assert_allclose(rebuilt, cells / cells.sum(), atol=1e-8)
    propensity = m.z_profiles.sum(1)
    np.testing.assert_allclose(m.z_profiles[0] / propensity[0], m.z_profiles[1] / propensity[1])


def _level_2_factors(rng):
    W = rng.dirichlet(np.ones(6)).reshape(1, 3, 2)
    return W, rng.dirichlet(np.ones(4), 2).T, rng.dirichlet(np.ones(4), 2).T[None]


def test_mean_squared_error_meets_the_cramer_rao_bound():
    made, cells = drawn("strong", 2, 4, 100_000, 1000)
    law = fit(cells, 2).value.law
    ratios = [
        lo.error(np.asarray(e), np.asarray(s), *p.law()) / lo.cramer_rao(p, 100_000).sum()
        for e, s, p in zip(law.effects, law.shares, made, strict=True)
    ]
    assert np.mean(ratios) <= 1.10 + 2 * np.std(ratios) / 1000**0.5


def functional(sol):
    k = sol.value.shares.shape[-1]
    law = sol.value.law
    return law.effects @ jnp.arange(1.0, k + 1) + law.shares @ jnp.linspace(2, -1, k)


@pytest.mark.parametrize("shape", [("strong", 2, 2), ("strong", 3, 6)])
def test_implicit_gradients_match_refitted_differences(shape):
    kind, k, d = shape
    cells = drawn(kind, k, d, 10_000, 1)[1][0].astype(float)
    rng = np.random.default_rng(3)
    direction = rng.normal(size=cells.shape) * cells**0.5 / 100

    def estimate(c):
        return functional(jm.factorization.solve(c, k, key=KEY))

    best = lo.em_level3(cells, k, np.random.default_rng(1))
    effects, shares = lo.central_difference_law(cells, direction, k, best, 0.1)
    expected = effects @ np.arange(1.0, k + 1) + shares @ np.linspace(2, -1, k)
    reverse = jnp.sum(jax.grad(estimate)(jnp.asarray(cells)) * direction)
    forward = jax.jvp(estimate, (jnp.asarray(cells),), (jnp.asarray(direction),))[1]
    assert float(reverse) == pytest.approx(float(forward), rel=1e-9)
    assert float(forward) == pytest.approx(expected, rel=1e-6)


def test_implicit_gradients_match_unrolled_ones():
    cells = jnp.asarray(drawn("strong", 2, 4, 10_000, 1)[1][0], float)
    direction = jnp.asarray(np.random.default_rng(3).normal(size=cells.shape))
    start = jm.factorization.solve(cells, 2, key=KEY).stats["start"]

    def unrolled(c):
        factors = jax.lax.scan(
            lambda f, _: (em_step(Table(c, LEVEL[3]), f), None), start, length=300
        )[0]
        means = factors.parts[1][:, 1]
        effects, shares = means[1] - means[0], factors.gate.sum((0, 1))
        order = jnp.argsort(effects)
        return effects[order] @ jnp.array([1.0, 2.0]) + shares[order] @ jnp.array([2.0, -1.0])

    implicit = jax.jvp(
        lambda c: functional(jm.factorization.solve(c, 2, key=KEY)), (cells,), (direction,)
    )[1]
    expected = jax.jvp(jax.jit(unrolled), (cells,), (direction,))[1]
    assert float(implicit) == pytest.approx(float(expected), rel=1e-6)


def test_gradients_at_the_boundary_are_those_of_the_rest():
    # An empty cell of x in one class pins a probability at 0.
    rng = np.random.default_rng(0)
    for _ in range(100):
        cells = oracles.paper_main(0.0).counts(rng, 300).astype(float)
        sol = jm.factorization.solve(jnp.asarray(cells), 2, key=KEY)
        if sol.status == Status.BOUNDARY:
            break
    assert sol.stats["num_zero"] > 0
    direction = rng.normal(size=cells.shape) * cells**0.5 / 10

    def estimate(c):
        return functional(jm.factorization.solve(c, 2, key=KEY, tolerance=1e-10))

    slope = jax.jvp(estimate, (jnp.asarray(cells),), (jnp.asarray(direction),))[1]
    h = 1e-4
    central = (estimate(cells + h * direction) - estimate(cells - h * direction)) / (2 * h)
    assert float(slope) == pytest.approx(float(central), rel=1e-5)


def test_vmap_of_gradients():
    cells = jnp.asarray(np.stack(drawn("strong", 2, 4, 10_000, 3)[1]), float)

    def estimate(c):
        return functional(jm.factorization.solve(c, 2, key=KEY))

    many = jax.jit(jax.vmap(jax.grad(estimate)))(cells)
    for i in range(3):
        np.testing.assert_allclose(many[i], jax.grad(estimate)(cells[i]), rtol=1e-6, atol=1e-12)


def test_moments_in_place_of_counts_and_outcome_values():
    cells = drawn("strong", 2, 4, 10_000, 1)[1][0].astype(float)
    plain = jm.factorization.solve(jnp.asarray(cells), 2, key=KEY)
    moments = jm.moments.from_counts(jnp.asarray(cells), jnp.array([10.0, 30.0]))
    scaled = jm.factorization.solve(moments, 2, key=KEY)
    np.testing.assert_allclose(scaled.value.effects(), 20 * plain.value.effects(), rtol=1e-8)
    np.testing.assert_allclose(scaled.value.shares, plain.value.shares, rtol=1e-8)


@pytest.mark.parametrize("optimiser", [optax.lbfgs(), optax.adam(0.05)], ids=["lbfgs", "adam"])
@pytest.mark.parametrize("loss", ["kl", "gmm"])
def test_first_order_optimisers_lead_to_the_same_optimum(loss, optimiser):
    cells = jnp.asarray(drawn("strong", 2, 4, 10_000, 1)[1][0], float)
    plain = jm.factorization.solve(cells, 2, key=KEY, loss=loss)
    other = jm.factorization.solve(cells, 2, key=KEY, loss=loss, optimiser=optimiser)
    assert other.status == Status.SUCCESS
    np.testing.assert_allclose(other.value.effects(), plain.value.effects(), atol=1e-4)


@pytest.mark.parametrize("loss", ["gmm", "frobenius"])
@pytest.mark.parametrize("level", [2, 3])
def test_exact_moments_give_the_exact_law_by_least_squares(loss, level):
    if level == 2:
        W, B, C = _level_2_factors(np.random.default_rng(0))
        joint = lo.model_table(W, B, C).reshape(3, 4, 2, 2).transpose(2, 0, 1, 3)
        C = C[0].reshape(2, 2, 2)
        effects = np.diff(C[:, 1] / C.sum(1), axis=0)[0]
        order = effects.argsort()
        effects, shares = effects[order], W.sum((0, 1))[order]
    else:
        made = population("strong", 2, 4, 4)
        joint, (effects, shares) = made.joint(), made.law()
    moments = jm.moments.from_counts(jnp.asarray(joint), None, jnp.inf, covariance=True)
    sol = jm.factorization.solve(moments, 2, key=KEY, loss=loss, level=level)
    assert sol.status == Status.SUCCESS
    np.testing.assert_allclose(sol.value.law.effects, effects, atol=1e-7)
    np.testing.assert_allclose(sol.value.law.shares, shares, atol=1e-7)


def test_gmm_of_a_table_is_as_efficient_and_its_j_has_its_degrees_of_freedom():
    made, cells = drawn("strong", 2, 4, 10_000, 100)
    sol = fit(cells, 2, loss="gmm")
    # 63 free cells and 25 parameters.
    np.testing.assert_array_equal(sol.stats["df"], 63 - 25)
    j = np.asarray(sol.stats["j"])
    assert abs(j.mean() - 38) < 4 * (2 * 38 / 100) ** 0.5
    kl = fit(cells, 2).value.law.effects
    se = np.sqrt(lo.cramer_rao(made[0], 10_000)[:2])
    assert (np.abs(sol.value.law.effects - kl) < 1.5 * se).all()


def test_j_on_gaussian_proxies_has_its_size():
    from experiments.benchmarks.accuracy import gaussian_moments, gaussian_rows

    rng = np.random.default_rng(0)
    rows = [gaussian_rows(rng, 2, 5000) for _ in range(100)]
    of_rows = jax.jit(gaussian_moments)
    moments = jax.tree.map(lambda *m: jnp.stack(m), *(of_rows(*r) for r, _ in rows))
    sol = jax.jit(jax.vmap(lambda m: jm.factorization.solve(m, 2, key=KEY, loss="gmm")))(moments)
    assert (np.asarray(sol.status) == Status.SUCCESS).all()
    np.testing.assert_array_equal(sol.stats["df"], 38)
    j = np.asarray(sol.stats["j"])
    assert abs(j.mean() - 38) < 3 * (2 * 38 / 100) ** 0.5
    rejected = np.mean(np.asarray(jax.scipy.stats.chi2.sf(j, 38)) < 0.05)
    assert rejected <= 0.05 + 3 * (0.05 * 0.95 / 100) ** 0.5
    errors = [
        lo.error(np.asarray(e), np.asarray(s), *truth)
        for e, s, (_, truth) in zip(sol.value.law.effects, sol.value.law.shares, rows, strict=True)
    ]
    assert np.median(errors) < 0.002


def test_least_squares_gradients_match_differences():
    cells = jnp.asarray(drawn("strong", 2, 4, 10_000, 1)[1][0], float)
    moments = jm.moments.from_counts(cells, covariance=True)
    weight = jm.factorization.solve(moments, 2, key=KEY, loss="gmm").stats["weight"]
    direction = jnp.asarray(np.random.default_rng(1).normal(size=cells.shape)) * cells**0.5

    def estimate(step):
        moved = jm.moments.from_counts(cells + step * direction)
        return functional(
            jm.factorization.solve(moved, 2, key=KEY, loss="gmm", weight=weight, tolerance=1e-12)
        )

    central = (estimate(1e-4) - estimate(-1e-4)) / 2e-4
    assert float(jax.grad(estimate)(0.0)) == pytest.approx(float(central), rel=1e-5)


def test_a_warm_start_takes_few_steps_to_the_same_optimum():
    _, cells = drawn("strong", 3, 6, 10_000, 2)
    first = jm.factorization.solve(jnp.asarray(cells[0], float), 3, key=KEY)
    again = jnp.asarray(np.random.default_rng(0).multinomial(
        10_000, cells[0].ravel() / 10_000
    ).reshape(cells[0].shape), float)  # fmt: skip
    cold = jm.factorization.solve(again, 3, key=KEY)
    warm = jm.factorization.solve(again, 3, key=KEY, start=first.stats["start"])
    assert warm.stats["num_starts"] == 1
    assert float(warm.stats["log_likelihood"]) == pytest.approx(
        float(cold.stats["log_likelihood"]), abs=1e-4
    )


def test_hard_tables_get_more_starts_and_easy_ones_do_not():
    _, strong = drawn("strong", 2, 4, 10_000, 6)
    assert (np.asarray(fit(strong, 2).stats["num_starts"]) == 1).sum() >= 5
    _, generic = drawn("generic", 3, 3, 10_000, 24)
    sol = fit(generic, 3)
    starts = np.asarray(sol.stats["num_starts"])
    assert (starts > 1).any()
    alone = fit(generic, 3, num_starts=1)
    assert (np.asarray(alone.stats["num_starts"]) == 1).all()
    gain = np.asarray(sol.stats["log_likelihood"] - alone.stats["log_likelihood"])
    assert gain.min() > -1e-3
    assert gain.max() > 1
    # Where starts found another optimum, the gap to it is told.
    gaps = np.asarray(sol.stats["runner_up"])
    assert (gaps[np.isfinite(gaps)] > 0).all()
    assert np.isfinite(gaps).any()


STATUSES = {}


def status(name):
    def register(make):
        STATUSES[name] = make
        return make

    return register


@status(Status.BOUNDARY)
def _boundary():
    return oracles.paper_main(0.0).counts(np.random.default_rng(1), 300), 2, {}


@status(Status.NOT_IDENTIFIED)
def _one_class_too_many():
    return population("strong", 2, 2, 2).joint() * 1e5, 3, {}


@status(Status.MAX_STEPS)
def _few_steps():
    return drawn("generic", 3, 3, 10_000, 1)[1][0], 3, {"max_steps": 2, "num_starts": 1}


@status(Status.NONFINITE)
def _not_a_number():
    cells = population("strong", 2, 2, 2).joint() * 1e5
    return np.where(np.arange(16).reshape(cells.shape) == 3, np.nan, cells), 2, {}


@pytest.mark.parametrize("expected", STATUSES, ids=lambda s: s.name)
def test_statuses(expected):
    cells, k, options = STATUSES[expected]()
    sol = jm.factorization.solve(jnp.asarray(cells, float), k, key=KEY, **options)
    assert Status(int(sol.status)) == expected


def test_starts_that_disagree_are_a_status():
    _, cells = drawn("generic", 3, 3, 10_000, 24)
    sol = fit(cells, 3, num_starts=9)
    alone = (np.asarray(sol.stats["num_starts"]) > 1) & (np.asarray(sol.stats["num_agree"]) < 2)
    assert alone.any()
    assert (np.asarray(sol.status)[alone] >= Status.STARTS_DISAGREE).all()


def test_a_flat_optimum_has_no_derivative():
    cells, k, _ = _one_class_too_many()
    gradient = jax.grad(lambda c: jm.factorization.solve(c, k, key=KEY).value.effects()[0])(
        jnp.asarray(cells)
    )
    assert np.isnan(gradient).any()


def test_near_the_boundary_nothing_is_silently_wrong():
    # A share near 0, two classes with one effect, weak proxies, one class too many.
    rng = np.random.default_rng(0)
    base = population("strong", 2, 4, 4)
    one_effect = base.p_y.copy()
    one_effect[1] = one_effect[0]
    weak = 0.97 * base.p_x.mean(0) + 0.03 * base.p_x
    cases = [
        (oracles.Population(np.array([0.995, 0.005]), base.p_zt, base.p_x, base.p_y,
                            base.outcome_values), 2),
        (oracles.Population(base.shares, base.p_zt, base.p_x, one_effect, base.outcome_values), 2),
        (oracles.Population(base.shares, base.p_zt, weak, base.p_y, base.outcome_values), 2),
        (base, 3),
    ]  # fmt: skip
    for made, k in cases:
        cells = [made.counts(rng, 2000) for _ in range(20)]
        sol = fit(cells, k)
        shares, means = np.asarray(sol.value.shares), np.asarray(sol.value.means)
        assert np.isfinite(shares).all()
        assert np.isfinite(means).all()
        assert (shares >= 0).all()
        assert (means >= 0).all()
        assert (means <= 1).all()
        # The fit is never worse than the truth.
        truth = [float(np.sum(c * np.log(made.joint()))) for c in cells]
        assert (np.asarray(sol.stats["log_likelihood"]) >= np.array(truth) - 1e-6).all()


def test_posterior_without_the_outcome():
    mixture = jm.factorization.solve(exact_moments(population("strong", 2, 4, 4)), 2, key=KEY).value
    z, x, t = jnp.eye(4), jnp.eye(4)[::-1], jnp.array([0, 1, 0, 1])
    found = mixture.posterior(t, z, x)
    for i in range(4):
        joint = mixture.shares * mixture.z_profiles[t[i], i] * mixture.x_profiles[3 - i]
        np.testing.assert_allclose(found[i], joint / joint.sum(), rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"level": 4}, "level is 4"),
        ({"loss": "l1"}, "loss is 'l1'"),
    ],
)
def test_options_there_are_not(options, words):
    with pytest.raises(ValueError, match=words):
        jm.factorization.solve(jnp.ones((2, 2, 2, 2)), 2, key=KEY, **options)


def test_what_the_moments_do_not_carry():
    table_moments = jm.moments.from_counts(jnp.ones((2, 2, 2, 2)))
    with pytest.raises(ValueError, match="covariance"):
        jm.factorization.solve(table_moments, 2, key=KEY, loss="gmm")
    with pytest.raises(ValueError, match="at most 2"):
        jm.factorization.solve(table_moments, 3, key=KEY, loss="frobenius")
    import dataclasses

    linear = dataclasses.replace(table_moments, num_shared=1)
    with pytest.raises(ValueError, match="needs a table"):
        jm.factorization.solve(linear, 2, key=KEY)


HIDDEN = np.array([
    [[[27, 5], [39, 2], [40, 2]], [[0, 0], [0, 1], [0, 0]], [[0, 0], [1, 2], [0, 1]]],
    [[[11, 3], [25, 4], [23, 4]], [[0, 2], [0, 2], [0, 2]], [[0, 0], [0, 2], [0, 2]]],
], float)  # fmt: skip


def test_a_thorough_search_leaves_a_poor_optimum_that_looks_regular():
    best = lo.em_level3(HIDDEN, 2, np.random.default_rng(0)).loglik
    plain, thorough = (
        jm.factorization.solve(jnp.asarray(HIDDEN), 2, key=KEY, thorough=flag)
        for flag in (False, True)
    )
    assert plain.stats["num_starts"] == 1
    assert plain.stats["log_likelihood"] < best - 0.01
    assert thorough.stats["num_starts"] == 45  # the spectral one, and 44
    assert thorough.stats["miss_rate"] == pytest.approx(0.9**44)
    assert "miss_rate" not in plain.stats
    alone = jm.factorization.solve(jnp.asarray(HIDDEN), 1, key=KEY, thorough=True)
    assert alone.stats["num_starts"] == 1  # one class has one optimum
    assert "miss_rate" not in alone.stats
    assert thorough.stats["log_likelihood"] == pytest.approx(best, abs=1e-6)
