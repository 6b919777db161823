"""What others would do: against plain numpy, where it is right, and where theory has it fail."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmix as jm
from jaxmix.data.design import Design
from jaxmix.estimators import baselines
from jaxmix.status import Status
from tests import likelihood_oracles, oracles

KEY = jax.random.key(0)


def views_of(frame, **options):
    """Return the views of a frame with columns t, y, z..., x..., optionally weights w."""
    roles = {side: [name for name in frame if name[0] == side] for side in "zx"}
    if "w" in frame:
        roles["weights"] = "w"
    data = jm.CausalData.from_frame(frame, treatment="t", outcome="y", **roles)
    return jm.features.encode(data, **options)


def table_views(cells):
    """Return the views of a table (T, Z, X, Y): one row per cell, counted `cells` times."""
    cells = np.asarray(cells, float)
    t, z, x, y = (index.ravel() for index in np.indices(cells.shape))
    _, d_z, d_x, d_y = cells.shape
    return jm.features.Views(
        z=jnp.eye(d_z)[z],
        x=jnp.eye(d_x)[x],
        y=jnp.eye(d_y)[y],
        t=jnp.asarray(t),
        design=Design(
            weight=jnp.ones(cells.size), multiplicity=jnp.asarray(cells.ravel()), repeated=True
        ),
        one_z=jnp.ones(d_z),
        one_x=jnp.ones(d_x),
        one_y=jnp.ones(d_y),
        value_y=jnp.arange(float(d_y)),
        range_y=jnp.array([0.0, d_y - 1.0]),
        num_arms=cells.shape[0],
        onehot_y=True,
    )


def confounded_rows(rng, n, hidden=0.0):
    """Binary z, x with P(T=1) logistic and E[Y | t, z, x] linear in them; ATE = 2 + 0.5.

    `hidden` scales a cause of T and Y that z and x say nothing of.
    """
    z, x, u = rng.integers(0, 2, (3, n))
    t = rng.uniform(size=n) < 1 / (1 + np.exp(0.6 - 1.4 * z - 0.8 * x + 2 * hidden * (0.5 - u)))
    y = t * (2 + x) + z + 2 * x + 2 * hidden * u + rng.normal(size=n)
    return {"t": t.astype(int), "y": y, "z": z, "x": x}


def mixed_rows(rng, n, weights=False):
    """Continuous and text proxies with covariates of their own; no truth, for oracles."""
    z, x = rng.normal(size=(2, n))
    kind = rng.integers(0, 3, n)
    t = (rng.uniform(size=n) < 1 / (1 + np.exp(-z - 0.5 * x + 0.4 * kind))).astype(int)
    y = t * (1 + z) + x**2 + kind + rng.normal(size=n)
    frame = {"t": t, "y": y, "z1": z, "z2": np.array(["a", "b", "c"])[kind], "x": x}
    return frame | ({"w": rng.uniform(0.5, 2, n)} if weights else {})


def design(views):
    """Constant and all proxies, redundant columns and all."""
    return np.concatenate([np.ones((len(views.t), 1)), views.z, views.x], axis=1)


def regression_oracle(views):
    """Mean over all rows of the arm-wise least-squares predictions, row weights repeated."""
    w, mass = design(views), np.asarray(views.weight * views.multiplicity)
    y = np.asarray(views.y @ views.value_y)
    means = []
    for arm in (0, 1):
        root = np.sqrt(mass * (np.asarray(views.t) == arm))
        beta = np.linalg.lstsq(w * root[:, None], y * root, rcond=1e-10)[0]
        means.append(np.average(w @ beta, weights=mass))
    return means[1] - means[0]


def weighting_oracle(views):
    """Hajek's estimate, the logistic regression by a long run of undamped Newton steps."""
    w, mass = design(views), np.asarray(views.weight * views.multiplicity)
    y, t = np.asarray(views.y @ views.value_y), np.asarray(views.t)
    beta = np.zeros(w.shape[1])
    for _ in range(60):
        p = 1 / (1 + np.exp(-w @ beta))
        hessian = (w * (mass * p * (1 - p))[:, None]).T @ w
        beta += np.linalg.pinv(hessian, rcond=1e-10, hermitian=True) @ (w.T @ (mass * (t - p)))
    p = 1 / (1 + np.exp(-w @ beta))
    treated, control = mass * (t == 1) / p, mass * (t == 0) / (1 - p)
    return treated @ y / treated.sum() - control @ y / control.sum()


ADJUSTMENTS = {
    "regression": (baselines.regression_adjustment, regression_oracle),
    "weighting": (baselines.inverse_probability_weighting, weighting_oracle),
}
adjustments = pytest.mark.parametrize("name", ADJUSTMENTS)


@adjustments
@pytest.mark.parametrize("weights", [False, True])
def test_adjustment_is_that_of_plain_numpy(name, weights):
    ours, oracle = ADJUSTMENTS[name]
    views = views_of(mixed_rows(np.random.default_rng(0), 400, weights))
    assert float(ours(views)) == pytest.approx(oracle(views), abs=1e-8)


@adjustments
def test_adjustment_counts_rows_by_weight_and_multiplicity(name):
    ours, oracle = ADJUSTMENTS[name]
    frame = confounded_rows(np.random.default_rng(1), 300)
    frame["y"] = np.round(frame["y"])
    plain, reduced = views_of(frame), views_of(frame, reduce=True)
    assert len(reduced.t) < len(plain.t) / 2
    assert float(ours(reduced)) == pytest.approx(float(ours(plain)), abs=1e-9)
    tilted = reduced.redesigned(weight=reduced.weight * (1 + 3 * reduced.x[:, 0]))
    assert float(ours(tilted)) == pytest.approx(oracle(tilted), abs=1e-8)
    assert abs(float(ours(tilted) - ours(reduced))) > 0.01


@adjustments
@pytest.mark.parametrize("hidden", [0.0, 1.0])
def test_adjustment_is_right_without_hidden_confounding_and_only_then(name, hidden):
    rng, num = np.random.default_rng(2), 40
    ours = ADJUSTMENTS[name][0]
    many = [views_of(confounded_rows(rng, 1000, hidden)) for _ in range(num)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *many)
    values = np.asarray(jax.jit(jax.vmap(ours))(stacked))
    assert values[3] == pytest.approx(float(ours(many[3])), abs=1e-9)
    gap = (values.mean() - 2.5) / (values.std(ddof=1) / num**0.5)
    assert abs(gap) < 4 if hidden == 0 else gap > 20
    naive = np.mean([float(baselines.difference_in_means(jm.moments.from_rows(v))) for v in many])
    assert abs(naive - 2.5) > 0.1  # there is something to adjust for


def hidden_class(p_z1):
    """Return a population whose class drives T and Y, with P(Z=1 | U) given, X pure noise."""
    treated, p_y1 = np.array([0.2, 0.7]), np.array([[0.1, 0.3], [0.6, 0.9]])
    p_z = np.stack([1 - np.asarray(p_z1), p_z1], axis=1)
    p_zt = np.stack([p_z * (1 - treated)[:, None], p_z * treated[:, None]], axis=1)
    p_y = np.stack([1 - p_y1, p_y1], axis=-1)
    return oracles.Population(
        np.array([0.6, 0.4]), p_zt, np.full((2, 2), 0.5), p_y, np.array([0.0, 1.0])
    )


@adjustments
def test_adjustment_removes_as_much_confounding_as_the_proxies_know_of(name):
    ours = ADJUSTMENTS[name][0]

    def value(population):
        return float(ours(table_views(1e4 * population.joint())))

    perfect, noisy, useless = (hidden_class(p) for p in ([0, 1], [0.2, 0.8], [0.5, 0.5]))
    naive = float(baselines.difference_in_means(jm.moments.of_population(noisy.joint())))
    truth = noisy.ate()
    assert naive - truth > 0.2
    assert value(perfect) == pytest.approx(truth, abs=1e-8)
    assert value(useless) == pytest.approx(naive, abs=1e-8)
    # One binary proxy is saturated: sum_z P(z) (E[Y | 1, z] - E[Y | 0, z]).
    p = noisy.joint().sum(2)
    means = p[..., 1] / p.sum(-1)
    assert value(noisy) == pytest.approx((means[1] - means[0]) @ p.sum((0, 2)), abs=1e-8)
    assert truth + 0.05 < value(noisy) < naive - 0.05


def test_regression_takes_moments_of_tables():
    cells = oracles.generic(np.random.default_rng(3), 2, 3, 4).joint()
    table = jm.moments.of_population(jnp.asarray(cells))
    expected = regression_oracle(table_views(cells))
    assert float(baselines.regression_adjustment(table)) == pytest.approx(expected, abs=1e-9)
    linear = jm.moments.from_rows(views_of(mixed_rows(np.random.default_rng(0), 100)))
    with pytest.raises(ValueError, match="one-hot proxies, or views"):
        baselines.regression_adjustment(linear)


@adjustments
def test_adjustment_is_nan_without_overlap(name):
    ours = ADJUSTMENTS[name][0]
    cells = np.full((2, 3, 2, 2), 10.0)
    cells[1, 0] = 0  # nobody is treated at the first level of z
    assert np.isnan(float(ours(table_views(cells))))
    cells[1] = 0  # nobody at all
    assert np.isnan(float(ours(table_views(cells))))
    cells[:] = 10.0
    cells[:, 0] = 0  # a level that never occurs is no obstacle
    assert float(ours(table_views(cells))) == pytest.approx(0.0, abs=1e-9)


def test_weighting_is_nan_where_steps_run_out():
    views = views_of(confounded_rows(np.random.default_rng(1), 300))
    assert np.isnan(float(baselines.inverse_probability_weighting(views, max_steps=1)))


@adjustments
def test_adjustment_compares_the_arm_that_is_asked_for(name):
    ours = ADJUSTMENTS[name][0]
    cells = np.random.default_rng(4).uniform(5, 50, (3, 2, 1, 2))  # z alone: saturated
    p = cells.sum(2)
    means = p[..., 1] / p.sum(-1)
    expected = (means[2] - means[0]) @ p.sum((0, 2)) / p.sum()
    assert float(ours(table_views(cells), arm=2)) == pytest.approx(expected, abs=1e-8)


def separated_rows(rng, n):
    """Three classes in clusters far apart, effects -1, 0.5, 2, confounded within none."""
    u = rng.choice(3, n, p=[0.5, 0.3, 0.2])
    t = (rng.uniform(size=n) < np.array([0.2, 0.5, 0.8])[u]).astype(int)
    y = t * np.array([-1, 0.5, 2])[u] + 3 * u + rng.normal(size=n)
    z, x = 20 * np.array([0, 1, 0])[u], 20 * np.array([0, 0, 1])[u]
    return {"t": t, "y": y, "z": z + rng.normal(size=n), "x": x + rng.normal(size=n)}, u


def test_clusters_that_lie_apart_give_the_class_effects():
    frame, u = separated_rows(np.random.default_rng(5), 3000)
    law = baselines.cluster_then_adjust(views_of(frame), 3, key=KEY)
    assert int(law.status) == Status.SUCCESS
    for cluster, truth in enumerate([-1, 0.5, 2]):
        arms = [frame["y"][(u == cluster) & (frame["t"] == arm)] for arm in (0, 1)]
        se = np.sqrt(sum(np.var(rows) / len(rows) for rows in arms))
        difference = arms[1].mean() - arms[0].mean()
        assert float(law.effects[cluster]) == pytest.approx(difference, abs=1e-9)
        assert abs(float(law.effects[cluster]) - truth) < 4 * se
        assert float(law.shares[cluster]) == pytest.approx(np.mean(u == cluster), abs=1e-9)


def partition_oracle(cells, k):
    """Effects, shares and inertia of the best partition of the (z, x) levels, all of them tried."""
    _, d_z, d_x, _ = cells.shape
    points = np.array([[*np.eye(d_z)[z], *np.eye(d_x)[x]] for z, x in np.ndindex(d_z, d_x)])
    mass = cells.sum((0, 3)).ravel() / cells.sum()
    by_point = cells.transpose(1, 2, 0, 3).reshape(len(points), *cells.shape[::3])
    best = np.inf, None
    for labels in itertools.product(range(k), repeat=len(points)):
        own = [np.array(labels) == cluster for cluster in range(k)]
        if not all(mass[o].sum() > 0 for o in own):
            continue
        centres = [np.average(points[o], axis=0, weights=mass[o]) for o in own]
        inertia = sum(
            mass[o] @ ((points[o] - c) ** 2).sum(1) for o, c in zip(own, centres, strict=True)
        )
        if inertia < best[0] - 1e-12:
            best = inertia, own
    inertia, own = best
    sums = np.array([by_point[o].sum(0) for o in own])
    means = sums[..., 1] / sums.sum(-1)
    effects, shares = means[:, 1] - means[:, 0], sums.sum((1, 2)) / sums.sum()
    order = effects.argsort()
    return effects[order], shares[order], inertia


@pytest.mark.parametrize(("k", "seed"), [(2, 0), (2, 1), (3, 2)])
def test_clusters_are_the_best_partition_and_not_the_classes(k, seed):
    draw = oracles.strong if k == 2 else oracles.generic  # ties between partitions otherwise
    population = draw(np.random.default_rng(seed), 2, 3, 2)
    cells = 1e4 * population.joint()
    law = baselines.cluster_then_adjust(table_views(cells), k, key=KEY, num_starts=30)
    effects, shares, inertia = partition_oracle(cells, k)
    assert float(law.stats["inertia"]) == pytest.approx(inertia, abs=1e-9)
    np.testing.assert_allclose(law.effects, effects, atol=1e-9)
    np.testing.assert_allclose(law.shares, shares, atol=1e-9)
    if k == 2:  # the classes overlap: clusters average over them
        assert np.abs(law.effects - population.law()[0]).max() > 0.2


def test_clusters_count_rows_by_weight():
    views = table_views(1e3 * oracles.strong(np.random.default_rng(1), 2, 3, 2).joint())
    swapped = views.redesigned(weight=views.multiplicity, multiplicity=views.weight)
    laws = [baselines.cluster_then_adjust(v, 2, key=KEY) for v in (views, swapped)]
    np.testing.assert_allclose(laws[0].effects, laws[1].effects, atol=1e-12)


def test_clusters_that_stay_empty_or_without_an_arm_are_reported():
    cells = np.random.default_rng(6).uniform(1, 9, (2, 2, 2, 2))
    law = baselines.cluster_then_adjust(table_views(cells), 5, key=KEY)
    assert int(law.status) == Status.BOUNDARY
    assert np.sum(np.asarray(law.shares) == 0) == 1
    assert float(law.effects[-1]) == float(law.effects[-2])
    assert float(law.shares.sum()) == pytest.approx(1.0)
    cells[1, 0, 0] = 0
    law = baselines.cluster_then_adjust(table_views(cells), 4, key=KEY)
    assert int(law.status) == Status.NONFINITE
    views = views_of(mixed_rows(np.random.default_rng(0), 400))
    law = baselines.cluster_then_adjust(views, 3, key=KEY, max_steps=1)
    assert int(law.status) == Status.MAX_STEPS


def level2_population(rng, k, d_z, d_x):
    """Return a random population in which Z does not cause T."""
    drawn = oracles.generic(rng, k, d_z, d_x, min_gap=0.2)
    arms = rng.uniform(0.2, 0.8, k)
    p_z = rng.dirichlet(np.full(d_z, 0.7), k)
    p_zt = np.stack([p_z * (1 - arms)[:, None], p_z * arms[:, None]], axis=1)
    return dataclasses.replace(drawn, p_zt=p_zt)


@pytest.mark.parametrize(("k", "d_z", "d_x"), [(2, 2, 2), (2, 3, 4), (3, 4, 4)])
def test_nn_parafac_is_exact_where_level_2_holds(k, d_z, d_x):
    population = level2_population(np.random.default_rng([k, d_z]), k, d_z, d_x)
    law = baselines.nn_parafac(
        jnp.asarray(population.joint()),
        k,
        key=KEY,
        num_starts=4,
        max_steps=100_000,
        tolerance=1e-11,
    )
    effects, shares = population.law()
    assert int(law.status) == Status.SUCCESS
    np.testing.assert_allclose(law.effects, effects, atol=1e-4)
    np.testing.assert_allclose(law.shares, shares, atol=1e-4)


def errors_of(laws, population):
    effects, shares = population.law()
    return np.asarray(((laws.effects - effects) ** 2).sum(1) + ((laws.shares - shares) ** 2).sum(1))


def fits(estimator, population, n, num, seed=7):
    rng = np.random.default_rng(seed)
    cells = jnp.asarray(np.array([population.counts(rng, n) for _ in range(num)]), float)
    keys = jax.random.split(KEY, num)
    return jax.jit(jax.vmap(lambda c, key: estimator(c, 2, key=key)))(cells, keys)


def test_nn_parafac_reaches_its_published_accuracy_and_improves_with_n_at_level_2():
    population = oracles.paper_main(0.0)
    few, many = (
        errors_of(fits(baselines.nn_parafac, population, n, 100), population)
        for n in (10**3, 10**5)
    )
    # tensorly 0.10 on 500 tables of 1,000 rows: mean .0201, median .0161, sd .017.
    assert 0.014 < few.mean() < 0.027
    assert np.median(few) < 0.022
    assert many.mean() < few.mean() / 30


def test_nn_parafac_does_not_improve_with_n_where_z_causes_t():
    population = oracles.generic(np.random.default_rng(7), 2, 3, 3, min_gap=0.3)
    truth = population.law()
    limit = baselines.nn_parafac(jnp.asarray(population.joint()), 2, key=KEY, num_starts=4)
    bias = likelihood_oracles.error(limit.effects, limit.shares, *truth)
    assert bias > 0.5

    def medians(estimator):
        sizes = (10**4, 10**6)
        return [np.median(errors_of(fits(estimator, population, n, 20), population)) for n in sizes]

    np.testing.assert_allclose(medians(baselines.nn_parafac), bias, rtol=0.15)
    level_3 = medians(
        lambda cells, k, key: jm.spectral.effect_law(jm.moments.from_counts(cells), k)
    )
    assert level_3[1] < level_3[0] / 20
    assert level_3[1] < 1e-3


def test_nn_parafac_ends_where_no_factor_can_improve():
    """Multiplicative updates in plain numpy from far away end in the same error."""
    cells = oracles.paper_main(0.0).counts(np.random.default_rng(8), 1000)
    tensor = (cells / cells.sum()).transpose(1, 2, 0, 3).reshape(2, 2, 4)
    rng, lowest = np.random.default_rng(9), np.inf
    for _ in range(5):
        factors = [rng.uniform(0.1, 1, (d, 2)) for d in tensor.shape]
        for _ in range(3000):
            for mode in range(3):
                one, two = (f for i, f in enumerate(factors) if i != mode)
                pairs = np.stack([np.outer(one[:, u], two[:, u]).ravel() for u in range(2)], 1)
                unfolded = np.moveaxis(tensor, mode, 0).reshape(len(factors[mode]), -1)
                factors[mode] *= (unfolded @ pairs) / (factors[mode] @ pairs.T @ pairs)
        model = sum(
            np.multiply.outer(np.outer(factors[0][:, u], factors[1][:, u]), factors[2][:, u])
            for u in range(2)
        )
        lowest = min(lowest, np.linalg.norm(tensor - model) / np.linalg.norm(tensor))
    law = baselines.nn_parafac(
        jnp.asarray(cells), 2, key=KEY, num_starts=3, tolerance=1e-9, max_steps=20_000
    )
    assert float(law.stats["relative_error"]) == pytest.approx(lowest, abs=1e-5)


def test_nn_parafac_says_what_went_wrong():
    rng = np.random.default_rng(10)
    cells = jnp.asarray(oracles.paper_main(0.5).counts(rng, 1000))
    law = baselines.nn_parafac(cells, 2, key=KEY, max_steps=3)
    assert (int(law.status), int(law.stats["steps"])) == (Status.MAX_STEPS, 3)
    treated_only = cells.at[0].set(0)
    assert int(baselines.nn_parafac(treated_only, 2, key=KEY).status) == Status.NONFINITE
    assert int(baselines.nn_parafac(0 * cells, 2, key=KEY).status) == Status.NONFINITE
    linear = jm.moments.from_rows(views_of(mixed_rows(rng, 100)))
    for estimator in (baselines.nn_parafac, baselines.em):
        with pytest.raises(ValueError, match="needs a table of cells"):
            estimator(linear, 2, key=KEY)


def test_nn_parafac_uses_outcome_values_arm_and_more_classes_than_levels():
    rng = np.random.default_rng(11)
    cells = jnp.asarray(oracles.paper_main(0.0).counts(rng, 5000))
    plain = baselines.nn_parafac(cells, 2, key=KEY)
    scaled = baselines.nn_parafac(jm.moments.from_counts(cells, jnp.array([3.0, 7.0])), 2, key=KEY)
    np.testing.assert_allclose(scaled.effects, 4 * plain.effects, atol=1e-9)
    third = jnp.concatenate([cells, cells[:1, ::-1]])
    first = baselines.nn_parafac(third, 2, key=KEY)
    second = baselines.nn_parafac(third[jnp.array([0, 2, 1])], 2, key=KEY, arm=2)
    np.testing.assert_allclose(second.effects, first.effects, atol=1e-6)
    assert float(jnp.ptp(first.effects)) > 0.1
    three = baselines.nn_parafac(cells, 3, key=KEY, max_steps=100_000)
    assert int(three.status) == Status.SUCCESS
    assert float(three.stats["relative_error"]) < float(plain.stats["relative_error"])


@pytest.mark.parametrize("kind", ["paper", "generic"])
def test_em_reaches_the_maximum_of_the_likelihood(kind):
    rng = np.random.default_rng(12)
    population = oracles.paper_main(0.5) if kind == "paper" else oracles.strong(rng, 3, 4, 4)
    k = len(population.shares)
    cells = population.counts(rng, 10_000)
    law = baselines.em(jnp.asarray(cells), k, key=KEY)
    assert Status(int(law.status)).usable
    best = jm.factorization.solve(jnp.asarray(cells), k, key=KEY)
    oracle = likelihood_oracles.em_level3(cells, k, rng, num_starts=3)
    reached = float(law.stats["log_likelihood"])
    assert reached == pytest.approx(float(best.stats["log_likelihood"]), abs=0.01)
    assert reached == pytest.approx(oracle.loglik, abs=0.01)
    np.testing.assert_allclose(law.effects, best.value.law.effects, atol=0.01)
    np.testing.assert_allclose(law.shares, best.value.law.shares, atol=0.01)


def test_em_says_what_went_wrong():
    cells = jnp.asarray(oracles.paper_main(0.5).counts(np.random.default_rng(13), 1000))
    law = baselines.em(cells, 2, key=KEY, max_steps=2)
    assert int(law.status) == Status.MAX_STEPS
    lonely = baselines.em(cells, 2, key=KEY, num_starts=1)
    assert int(lonely.status) == Status.SUCCESS
    assert int(baselines.em(cells.at[0].set(0), 2, key=KEY).status) == Status.BOUNDARY
    assert int(baselines.em(0 * cells, 2, key=KEY).status) == Status.NONFINITE


def test_starts_do_not_depend_on_how_many_there_are():
    views = table_views(1e3 * oracles.strong(np.random.default_rng(1), 2, 3, 3).joint())
    inertia = [
        float(baselines.cluster_then_adjust(views, 3, key=KEY, num_starts=n).stats["inertia"])
        for n in (1, 5, 20)
    ]
    assert inertia == sorted(inertia, reverse=True)


def test_laws_run_under_vmap():
    rng = np.random.default_rng(14)
    cells = [oracles.paper_main(0.5).counts(rng, 2000) for _ in range(3)]
    keys = jax.random.split(KEY, 3)
    views = [table_views(c) for c in cells]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *views)
    cells = jnp.asarray(np.array(cells))
    for estimator, data in [
        (baselines.cluster_then_adjust, stacked),
        (baselines.em, cells),
        (baselines.nn_parafac, cells),
    ]:
        laws = jax.jit(jax.vmap(lambda d, key, f=estimator: f(d, 2, key=key)))(data, keys)
        one = estimator(jax.tree.map(lambda leaf: leaf[1], data), 2, key=keys[1])
        np.testing.assert_allclose(laws.effects[1], one.effects, atol=1e-6)
        np.testing.assert_allclose(laws.shares[1], one.shares, atol=1e-6)


def test_precision_follows_the_data():
    cells = jnp.asarray(oracles.paper_main(0.5).counts(np.random.default_rng(15), 5000))
    half = cells.astype(jnp.float32)
    for estimator in (baselines.em, baselines.nn_parafac):
        law, wide = estimator(half, 2, key=KEY), estimator(cells, 2, key=KEY)
        assert law.effects.dtype == jnp.float32
        assert Status(int(law.status)).usable
        np.testing.assert_allclose(law.effects, wide.effects, atol=0.02)
