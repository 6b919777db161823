"""The number of classes: rank tests, criteria and likelihood ratio against oracles, and words."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.stats

import jaxmix as jm
from jaxmix.inference import selection
from jaxmix.inference.selection import criteria, ranks
from jaxmix.inference.selection.recommendation import Candidate, Context, decide
from tests import oracles
from tests.helpers import causal_data, linear_rows
from tests.likelihood_oracles import em_level2, em_level3

SHAPE = (2, 3, 3, 2)


def table(k=2, n=20_000, seed=0, d=3):
    """Return counts of a strong population of k classes; of one class, of independent columns."""
    rng = np.random.default_rng([seed, k])
    if k == 1:
        parts = (rng.dirichlet(np.full(d, 5.0)) for d in (2 * d, d, 2))
        joint = np.einsum("a,x,y->axy", *parts).reshape(2, d, d, 2)
    else:
        joint = oracles.strong(rng, k, d, d).joint()
    return rng.multinomial(n, joint.ravel()).reshape(joint.shape).astype(float)


def rows_of(cells):
    """Return the rows behind a table, as a frame of text proxies."""
    index = np.repeat(np.arange(cells.size), cells.astype(int).ravel())
    t, z, x, y = np.unravel_index(index, cells.shape)
    return {"t": t, "z0": np.array([f"z{v}" for v in z]), "x0": np.array([f"x{v}" for v in x]),
            "y": y}  # fmt: skip


# The rank tests.


def kleibergen_paap(theta, spread, q):
    """Statistic of rank q from theta and its covariance (rows of vec run first), as in the paper.

    ``vec(A' theta B)`` with A and B built from blocks of full singular bases, each scaled by the
    root of its lower block, rather than from trailing singular vectors.
    """
    u, _, vt = np.linalg.svd(theta)
    v = vt.T

    def beyond(basis):
        low = basis[q:, q:]
        root = np.real(scipy.linalg.sqrtm(low @ low.T))
        return basis[:, q:] @ np.linalg.inv(low) @ root

    a, b = beyond(u), beyond(v)
    core = (a.T @ theta @ b).flatten(order="F")
    both = np.kron(b, a)
    return core @ np.linalg.solve(both.T @ spread @ both, core)


def oracle_of_table(zx, r):
    """Return the statistic of one arm; last levels are dropped, roots are Cholesky factors."""
    n, p = zx.sum(), zx / zx.sum()
    row, column = p.sum(1), p.sum(0)
    residual = (p - np.outer(row, column))[:-1, :-1]
    g = np.linalg.inv(np.linalg.cholesky((np.diag(row) - np.outer(row, row))[:-1, :-1]))
    f = np.linalg.inv(np.linalg.cholesky((np.diag(column) - np.outer(column, column))[:-1, :-1]))
    theta = g @ residual @ f.T
    u, s, vt = np.linalg.svd(theta)
    q = r - 1
    fitted = np.linalg.inv(g) @ (u[:, :q] * s[:q]) @ vt[:q] @ np.linalg.inv(f).T
    whole = np.zeros_like(p)
    whole[:-1, :-1] = fitted
    whole[-1, :-1], whole[:-1, -1] = -fitted.sum(0), -fitted.sum(1)
    whole[-1, -1] = fitted.sum()
    null = np.maximum(np.outer(row, column) + whole, 0)
    null /= null.sum()
    spread = np.zeros((theta.size, theta.size))
    for i in range(len(row)):
        for j in range(len(column)):
            z = g @ (np.eye(len(row))[i] - row)[:-1]
            x = f @ (np.eye(len(column))[j] - column)[:-1]
            product = np.outer(z, x).flatten(order="F")
            spread += null[i, j] * np.outer(product, product)
    return n * kleibergen_paap(theta, spread, q)


@pytest.mark.parametrize(("k", "d"), [(2, 4), (3, 5)])
def test_rank_statistic_of_tables_equals_the_oracle(k, d):
    zx = table(k, 3000, d=d).sum(-1)[:, : d - 1]  # fewer levels of z than of x
    tests = ranks.of_table(jnp.asarray(zx))
    assert len(tests.statistic) == d - 2
    for r in range(1, d - 1):
        expected = sum(oracle_of_table(arm, r) for arm in zx)
        assert float(tests.statistic[r - 1]) == pytest.approx(expected, rel=1e-8)
        assert int(tests.df[r - 1]) == 2 * (d - 1 - r) * (d - r)
        tail = scipy.stats.chi2.sf(expected, 2 * (d - 1 - r) * (d - r))
        assert float(tests.p_value[r - 1]) == pytest.approx(tail, rel=1e-6)


def test_rank_one_is_pearsons_test_of_independence():
    zx = table(1, 3000, d=4).sum(-1)
    tests = ranks.of_table(jnp.asarray(zx))
    pearson = [scipy.stats.chi2_contingency(arm, correction=False)[0] for arm in zx]
    assert float(tests.statistic[0]) == pytest.approx(sum(pearson), rel=1e-10)


def oracle_of_rows(frame, weight, unit, r):
    """Return the robust statistic, row by row; units (rows or clusters) are summed first."""
    n, t = len(frame["t"]), frame["t"].astype(int)
    z, x, w = (np.stack([v for name, v in frame.items() if name[0] == c], 1) for c in "zxw")
    thetas, added = [], []
    for arm in range(2):
        own = (t == arm) * weight
        shared = np.column_stack([np.ones(n), w]) * np.sqrt(own)[:, None]
        resid = []
        for side in (z, x):
            scaled = side * np.sqrt(own)[:, None]
            coefficients = np.linalg.lstsq(shared, scaled, rcond=None)[0]
            gap = side - np.column_stack([np.ones(n), w]) @ coefficients
            gram = (gap * own[:, None]).T @ gap / own.sum()
            resid.append(gap @ np.linalg.inv(np.linalg.cholesky(gram)).T)
        thetas.append((resid[0] * own[:, None]).T @ resid[1] / own.sum())
        product = np.einsum("ni,nj->nji", *resid).reshape(n, -1)
        added.append(product * (own / own.sum())[:, None])
    sums = np.zeros((unit.max() + 1, 2 * added[0].shape[1]))
    np.add.at(sums, unit, np.hstack(added))
    spread = sums.T @ sums
    q = r - 1
    sides = [np.linalg.svd(theta) for theta in thetas]
    both = scipy.linalg.block_diag(*(np.kron(vt.T[:, q:], u[:, q:]) for u, _, vt in sides))
    core = both.T @ np.concatenate([theta.flatten(order="F") for theta in thetas])
    return core @ np.linalg.solve(both.T @ spread @ both, core)


@pytest.mark.parametrize("clustered", [False, True])
def test_rank_statistic_of_rows_equals_the_oracle(clustered):
    rng = np.random.default_rng(1)
    frame = linear_rows(rng, 600, d_z=3, d_x=2, num_w=1)
    weight = rng.uniform(0.5, 2, 600)
    unit = np.arange(600) // 3 if clustered else np.arange(600)
    more = {"cluster": "g"} if clustered else {}
    own = frame | {"s": weight} | ({"g": unit} if clustered else {})
    views = jm.features.encode(causal_data(own, weights="s", **more))
    tests = ranks.of_views(views)
    for r in (1, 2):
        expected = oracle_of_rows(frame, weight, unit, r)
        assert float(tests.statistic[r - 1]) == pytest.approx(expected, rel=1e-7)
        assert int(tests.df[r - 1]) == 2 * (4 - r) * (3 - r)
    # The scale of the weights says nothing.
    scaled = ranks.of_views(views.redesigned(weight=3 * views.weight))
    assert np.allclose(scaled.statistic, tests.statistic, rtol=1e-10)


def test_rows_of_a_table_are_a_table_and_weights_that_are_equal_none():
    cells = table(2, 2000)
    views = jm.features.encode(causal_data(rows_of(cells)), reduce=True)
    expected = ranks.of_table(jnp.asarray(cells.sum(-1)))
    for same in (views, views.redesigned(weight=views.weight * 2)):
        assert np.allclose(ranks.of_views(same).statistic, expected.statistic, rtol=1e-10)
    moved = views.weight.at[0].mul(1 + 1e-9)
    robust = ranks.of_views(views.redesigned(weight=moved))
    assert np.allclose(robust.correlations, expected.correlations, rtol=1e-6)
    assert not np.allclose(robust.statistic, expected.statistic, rtol=1e-3)
    # Rows that stand for two: twice the sample, twice the statistic.
    twice = views.redesigned(weight=moved, multiplicity=2 * views.multiplicity)
    assert np.allclose(ranks.of_views(twice).statistic, 2 * robust.statistic, rtol=1e-6)


def test_exact_populations_have_their_rank():
    joint = oracles.strong(np.random.default_rng(0), 3, 5, 5).joint()
    tests = ranks.of_table(jnp.asarray(1e6 * joint.sum(-1)))
    assert (np.asarray(tests.statistic[2:]) < 1e-6).all()
    assert (np.asarray(tests.p_value[:2]) < 1e-10).all()
    assert int(ranks.rank_of(tests)) == 3
    assert (np.asarray(tests.correlations[:, 2:]) < 1e-8).all()


def test_a_level_that_an_arm_lacks_takes_its_degrees_of_freedom():
    zx = table(2, 5000, d=4).sum(-1)
    zx[1, 0] = 0
    tests = ranks.of_table(jnp.asarray(zx))
    assert np.asarray(tests.df).tolist() == [9 + 6, 4 + 2, 1]
    assert np.isfinite(tests.statistic).all()


def test_size_of_the_rank_sequence():
    rng = np.random.default_rng(0)
    zx = oracles.strong(rng, 2, 4, 4).joint().sum(-1)
    drawn = rng.multinomial(2000, zx.ravel(), size=1000).reshape(-1, *zx.shape).astype(float)
    p = np.asarray(jax.vmap(ranks.of_table)(jnp.asarray(drawn)).p_value)
    # The standard error of a share of 5 % among 1,000 is 0.7 %.
    assert 0.03 < (p[:, 1] < 0.05).mean() < 0.071
    assert (p[:, 0] < 0.05).all()


# The criteria.


@pytest.mark.parametrize(("level", "k"), [(3, 1), (3, 2), (3, 3), (2, 1), (2, 2)])
def test_criteria_equal_those_of_em(level, k):
    cells = table(2, 3000)
    fit = criteria.of_table(jnp.asarray(cells), k, key=jax.random.key(0), level=level)
    em = {3: em_level3, 2: em_level2}[level](cells, k, np.random.default_rng(0))
    assert float(fit.log_likelihood) == pytest.approx(em.loglik, abs=5e-3)
    a, d_z, d_x, d_y = cells.shape
    count = a * d_z * k - 1 + (d_x - 1) * k + a * (d_y - 1) * k
    if level == 2:
        count = d_z * k - 1 + (d_x - 1) * k + (a * d_y - 1) * k
    assert int(fit.num_parameters) == count
    assert float(fit.bic) == pytest.approx(-2 * em.loglik + count * np.log(3000), abs=1e-2)
    assert float(fit.aic) == pytest.approx(-2 * em.loglik + 2 * count, abs=1e-2)
    seen = cells[cells > 0]
    assert float(fit.g2) == pytest.approx(2 * (seen @ np.log(seen / 3000) - em.loglik), abs=1e-2)
    zeros = sum(int((np.asarray(factor) == 0).sum()) for factor in jax.tree.leaves(fit.factors))
    assert int(fit.df) == cells.size - 1 - count + zeros
    assert bool(fit.done)


def test_parameters_are_the_rank_of_the_jacobian():
    # Three views of two values each carry two classes exactly, and no more parameters than 7.
    assert criteria.num_parameters((1, 2, 2, 2), 2, 3) == 7
    assert criteria.num_parameters((1, 2, 2, 2), 5, 3) == 7
    # Beyond the rank of the proxies there are more parameters than dimensions.
    assert criteria.num_parameters((2, 2, 2, 2), 3, 3) == 15


def test_margins_that_are_empty_are_no_parameters():
    cells = table(1, 3000)
    cells[1, 0] = 0
    fit = criteria.of_table(jnp.asarray(cells), 1, key=jax.random.key(0))
    assert int(fit.num_parameters) == 5 - 1 + 2 + 2
    # Independence of x and (z, y given t): Pearson's degrees of freedom, arm by arm.
    assert int(fit.df) == 5 * 3 * 2 - 1 - 8


def one_against_two(cells):
    null = criteria.of_table(jnp.asarray(cells), 1, key=jax.random.key(0), level=3).factors
    return criteria.likelihood_ratio(
        jnp.asarray(cells), 1, key=jax.random.key(3), null=null, num_resamples=19, level=3
    )


def test_likelihood_ratio_of_one_class_against_two():
    cells = table(1, 3000)
    found = one_against_two(cells)
    logliks = [em_level3(cells, k, np.random.default_rng(0)).loglik for k in (1, 2)]
    expected = 2 * (logliks[1] - logliks[0])
    # Few starts, the same for the data and the resamples, may stop short of the best optimum.
    assert expected - 0.5 < float(found.statistic) < expected + 0.05
    assert found.draws.shape == (19,)
    count = int((np.asarray(found.draws) >= float(found.statistic) - 0.02).sum())
    assert float(found.p_value) == (1 + count) / 20
    assert 0.05 < float(found.p_value) < 1
    # Ten parameters more, not all of which count where the second class is not there.
    assert 5 < float(found.draws.mean()) < 25
    assert float(one_against_two(table(2, 3000)).p_value) == 1 / 20


# The recommendation.


def test_two_classes_are_found_in_counts_and_rows():
    cells = table(2)
    found = selection.num_classes(cells, num_resamples=0)
    assert (found.recommended, found.thin, found.method) == (2, False, "likelihood")
    assert found.reasons[0].startswith("BIC is smallest at 2 classes, by ")
    assert found.doubts == ()
    text = str(found)
    assert text == found.summary() == repr(found)
    assert "2 *" in text
    assert "a lower bound of the number of classes" in text
    own = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert own["recommended"] == 2
    assert own["candidates"][1]["num_parameters"] == 19
    assert "<table>" in found._repr_html_()
    rows = selection.num_classes(causal_data(rows_of(cells)), num_resamples=0)
    assert rows.recommended == 2
    for a, b in zip(rows.candidates, found.candidates, strict=True):
        assert a.bic == pytest.approx(b.bic, abs=1e-4)
        assert a.rank_p_value == pytest.approx(b.rank_p_value) or a.num_classes == 3


def test_one_class_is_found():
    found = selection.num_classes(table(1), num_resamples=19)
    assert found.recommended == 1
    assert found.candidates[0].ratio_p_value > 0.05
    assert found.candidates[1].ratio_p_value is None
    assert "rank 1 is not rejected" in str(found)
    assert "p of LR" in str(found)


def test_the_likelihood_ratio_below_is_run_where_bic_is_not_clear():
    cells = table(2, 130, seed=5)
    found = selection.num_classes(cells, num_resamples=19, max_classes=2)
    one, two = found.candidates
    assert found.recommended == 2
    assert 0 < one.bic - two.bic < 10
    assert one.ratio_p_value == 1 / 20
    assert two.ratio_p_value is None
    assert "the likelihood ratio of 1 against 2 classes has p = 0.05" in found.reasons
    assert any(told.startswith("BIC leads by ") for told in found.doubts)


def test_moments_that_are_no_table_are_judged_by_j():
    rows = jm.populations.gaussian().sample(jax.random.key(0), 2000)
    found = selection.num_classes(causal_data({name.lower(): v for name, v in rows.items()}))
    assert (found.recommended, found.method) == (2, "moments")
    one, two = found.candidates
    assert one.p_value < 1e-10
    assert two.p_value > 0.001
    assert two.criterion == pytest.approx(two.statistic - two.df * np.log(2000))
    # 2 x 2 x 2 x 2 moments, one fixed by the total; the parameters of two classes.
    assert two.df == 15 - (3 + 4 + 2 + 4)
    assert "of J" in str(found)


def weighted(views, rng):
    return views.redesigned(weight=jnp.asarray(rng.uniform(0.5, 1.5, len(views.t))))


def test_where_no_likelihood_applies_the_rank_decides_and_says_why():
    rng = np.random.default_rng(0)
    frame = rows_of(table(2, 4000))
    plain = causal_data(frame)
    views = jm.features.encode(plain)
    grouped = causal_data(frame | {"g": np.arange(4000) // 2}, cluster="g")
    lines = linear_rows(rng, 800, d_z=2, d_x=2, num_w=1)
    for data, level, reason in [
        (weighted(views, rng), 3, "sampling weights"),
        (grouped, 3, "rows are clustered"),
        (plain, 4, "X may cause Y"),
    ]:
        found = selection.num_classes(data, level=level)
        assert (found.recommended, found.method) == (2, "rank")
        assert reason in found.reasons[0]
        assert "lower bound" in str(found)
        assert all(c.bic is None for c in found.candidates)
    # Two continuous hidden causes: the proxies' rank is three, beside a covariate.
    found = selection.num_classes(causal_data(lines))
    assert found.recommended == 3
    assert "covariates" in found.reasons[0]
    assert "cannot tell apart more than 3" in str(found)


STRONG = {"rank_p_value": 1e-9}


def decided(*found, method="likelihood", most=4, **more):
    return decide(
        [Candidate(k, **own) for k, own in enumerate(found, 1)],
        method,
        Context(3, 1000, 0, 0.05, 0, most, len(found), **more),
    )


@pytest.mark.parametrize(
    ("second", "third", "doubt"),
    [
        ({}, {}, ""),
        ({}, {"bic": 54.0}, "BIC leads by 4.0 only over 3 classes"),
        ({"rank_p_value": 0.01}, {}, "moments have rank 3"),
        ({"p_value": 0.01}, {}, "they do not fit"),
        ({"ratio_p_value": 0.01}, {}, "the likelihood ratio of 2 against 3 classes"),
        ({"done": False}, {}, "ran out of steps"),
    ],
)
def test_disagreement_and_small_margins_are_called_thin(second, third, doubt):
    first = {"bic": 100.0, "aic": 90.0} | STRONG
    second = {"bic": 50.0, "aic": 40.0, "rank_p_value": 0.5} | second
    third = {"bic": 80.0, "aic": 60.0, "rank_p_value": 0.9} | third
    found = decided(first, second, third)
    assert found.recommended == 2
    assert found.thin == bool(doubt)
    assert sum(doubt in told for told in found.doubts) == len(found.doubts) == bool(doubt)
    assert ("The evidence is thin" in str(found)) == bool(doubt)


def test_proxies_near_their_noise_make_it_thin():
    second = {"bic": 50.0, "rank_p_value": 0.5}
    found = decided({"bic": 100.0, "rank_p_value": 0.02}, second, {"bic": 80.0})
    assert any("near its noise" in told for told in found.doubts)
    found = decided({"bic": 100.0, "rank_p_value": 0.2}, second, {"bic": 80.0})
    assert any("have rank 1" in told for told in found.doubts)
    found = decided({"bic": 100.0, "ratio_p_value": 0.2} | STRONG, second, {"bic": 80.0})
    assert any("of 1 against 2 classes" in told for told in found.doubts)


def test_other_words():
    first, second = {"bic": 50.0, "aic": 45.0, "rank_p_value": 0.5}, {"bic": 60.0, "aic": 40.0}
    assert "AIC, which tends to too many, prefers 2 classes" in decided(first, second).reasons
    # A fit without a number is not chosen.
    assert decided({"bic": float("nan")}, {"bic": 60.0}).recommended == 2
    found = decided({"bic": 50.0}, most=1)
    assert found.reasons[0].startswith("only 1 class could be fitted")
    assert "cannot tell apart more than 1" in found.reasons[-1]
    found = decided({"rank_p_value": 0.07}, {}, method="rank", no_fit="because")
    assert found.reasons[0] == "the rank alone decides: because"
    assert "rank 1 is near rejection" in found.doubts
    assert "more than 1 class was not considered" not in found.doubts
    assert "more than 2 classes were not considered" in decided({"bic": 9.0}, {"bic": 1.0}).doubts


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": 1}, "level is 1: use 2, 3 or 4"),
        ({"max_classes": 0}, "max_classes is 0: give a whole number from 1"),
        ({"max_classes": 4}, "the proxies can tell apart at most 3"),
        ({"seed": 1.5}, "seed is 1.5"),
        ({"num_resamples": -1}, "num_resamples is -1"),
        ({"num_resamples": 9}, "too few for a test of size 0.05: use at least 19"),
        ({"size": 1.5}, "size is 1.5"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(jm.InputError, match="\\A[^\n]*" + message.replace("(", "\\(")):
        selection.num_classes(table(2, 500), **options)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("rows.csv", "data is a str: give a CausalData"),
        (np.ones((2, 3)), "the table of counts has 2 directions, not 4"),
        (np.full(SHAPE, 0.5), "holds 0.5: counts are whole numbers"),
        (np.stack([np.ones(SHAPE[1:]), np.zeros(SHAPE[1:])]), "no row in arm 1"),
    ],
)
def test_data_that_are_no_counts(data, message):
    with pytest.raises(jm.InputError, match=message):
        selection.num_classes(data)
