"""Profile-likelihood intervals against constrained optimisation by scipy, and their coverage."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats

import jaxmix as jm
from jaxmix.inference import profile


class Constrained:
    """Extremes of a number over the likelihood region, in probabilities with bounds (SLSQP)."""

    def __init__(self, cells, factors, values, level, treated):
        if level == 2:
            a, d_z, d_x, d_y = cells.shape
            cells = np.moveaxis(cells, 0, 2).reshape(1, d_z, d_x, a * d_y)
        self.shapes = [np.shape(f) for f in factors]
        self.start = np.concatenate([np.ravel(f) for f in factors])
        self.met = []
        ends = np.cumsum([np.prod(s) for s in self.shapes])[:-1]

        def split(vector):
            parts = jnp.split(vector, ends)
            return [v.reshape(s) for v, s in zip(parts, self.shapes, strict=True)]

        def log_likelihood(vector):
            p = jnp.einsum("tzu,xu,tyu->tzxy", *split(vector))
            return jnp.sum(jnp.where(cells > 0, cells * jnp.log(jnp.maximum(p, 1e-300)), 0.0))

        def numbers(vector):
            W, B, C = split(vector)
            by_arm = W.sum(1)
            if level == 2:
                C = C.reshape(2, len(values), B.shape[1])
                by_arm = C.sum(1) * by_arm
                C = C / C.sum(1, keepdims=True)
            means = jnp.einsum("tyu,y->tu", C, values)
            shares = by_arm[1] / by_arm[1].sum() if treated else by_arm.sum(0)
            effects = means[1] - means[0]
            mean = shares @ effects
            spread = jnp.sqrt(shares @ (effects - mean) ** 2)
            return jnp.concatenate([mean[None], means @ shares, shares, effects, spread[None]])

        def sums(vector):
            W, B, C = split(vector)
            return jnp.concatenate([W.sum()[None], B.sum(0), C.sum(1).ravel()]) - 1

        region = scipy.stats.chi2.ppf(0.95, 1) / 2
        best = log_likelihood(self.start)
        self.numbers, self.slopes = jax.jit(numbers), jax.jit(jax.jacrev(numbers))
        self.constraints = [
            {"type": kind, "fun": jax.jit(function), "jac": jax.jit(jax.jacrev(function))}
            for kind, function in (
                ("eq", sums),
                ("ineq", lambda v: region - best + log_likelihood(v)),
                # Without it a path may lead to the same mixture with its labels swapped.
                ("ineq", lambda v: numbers(v)[6] - numbers(v)[5]),
            )
        ]

    def extreme(self, which, sign):
        """Return the extreme from the estimate, from near it, and from the last two extremes."""
        noise = np.exp(0.1 * np.random.default_rng(0).normal(size=self.start.shape))
        found = []
        for begin in (self.start, self.start * noise, *self.met[-2:]):
            run = scipy.optimize.minimize(
                lambda v: -sign * self.numbers(v)[which],
                np.clip(begin, 1e-4, 1 - 1e-4),
                jac=lambda v: -sign * self.slopes(v)[which],
                method="SLSQP",
                bounds=[(1e-9, 1)] * len(self.start),
                constraints=self.constraints,
                options={"maxiter": 500, "ftol": 1e-10},
            )
            sums, *room = (c["fun"](run.x) for c in self.constraints)
            if np.abs(sums).max() < 1e-6 and min(room) > -1e-5:
                found.append((-run.fun, run.x))
        best, at = max(found, key=lambda pair: pair[0])
        self.met.append(at)
        return sign * best


def fitted(cells, values, level, estimand="ATE", k=2):
    moments = jm.moments.from_counts(jnp.asarray(cells), jnp.asarray(values))
    solution = jm.factorization.solve(moments, k, key=jax.random.key(1), level=level)
    start = solution.stats["start"]
    found = profile.intervals(moments, k, start, level=level, estimand=estimand)
    W, B, C = jax.tree.leaves(start)
    if level == 2:  # as a table of one arm, whose outcome is (T, Y)
        W, C = W[None], C.reshape(1, -1, k)
    return solution, [W, B, C], found


def as_rows(found):
    parts = [found.effect[None], found.means, found.shares, found.effects, found.spread[None]]
    return np.concatenate([np.asarray(p) for p in parts])


CASES = [("binary", 3, "ATE"), ("binary", 3, "ATT"), ("binary", 2, "ATE"), ("three", 3, "ATE")]


@pytest.mark.filterwarnings("ignore:.*clip.*:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:.*outside bounds.*:RuntimeWarning")
@pytest.mark.parametrize(("outcome", "level", "estimand"), CASES)
def test_ends_are_the_extremes_over_the_likelihood_region(outcome, level, estimand):
    zt = 0.0 if level == 2 else 0.6
    joint = np.asarray(jm.populations.paper_main(zt_strength=zt).joint())
    values = np.array([0.0, 1.0])
    if outcome == "three":
        # A third value of the outcome, less likely where the second is.
        split = np.array([[0.7, 0.3, 0.0], [0.0, 0.4, 0.6]])
        joint, values = joint @ split, np.array([0.0, 1.0, 2.5])
    cells = np.random.default_rng(3).multinomial(1500, joint.ravel()).reshape(joint.shape)
    _, start, found = fitted(cells.astype(float), values, level, estimand)
    assert bool(found.settled)
    assert float(found.excess) == 0
    # The fit's own factors are in no order: put them in that of the effects.
    treated = estimand == "ATT"
    probe = Constrained(cells, start, values, level, treated)
    effects = probe.numbers(probe.start)[5:7]
    start = [np.asarray(f)[..., np.argsort(effects)] for f in start]
    probe = Constrained(cells, start, values, level, treated)
    rows = as_rows(found)
    for which in (0, 1, 3, 7, 6):
        for side, sign in enumerate((-1, 1)):
            expected = probe.extreme(which, sign)
            width = rows[which, 1] - rows[which, 0]
            assert rows[which, side] == pytest.approx(expected, abs=4e-3 * width), (which, side)


def test_shares_of_first_classes_are_the_shares_where_they_coincide():
    pop = jm.populations.random_discrete(jax.random.key(4), num_classes=3, d_z=3, d_x=3)
    cells = pop.counts(jax.random.key(5), 5000)
    _, _, found = fitted(cells, [0.0, 1.0], 3, k=3)
    np.testing.assert_array_equal(found.cumulative[0], found.shares[0])
    np.testing.assert_array_equal(found.cumulative[1], 1 - found.shares[2, ::-1])


def test_an_effect_at_its_bound_has_the_bound_as_end():
    # Class 2 responds always under treatment and never under control.
    shares, b = np.array([0.5, 0.5]), np.array([[0.8, 0.2], [0.2, 0.8]])
    w = np.stack([0.5 * b * shares, 0.5 * b * shares])
    y1 = np.array([[0.7, 0.0], [0.3, 1.0]])
    c = np.stack([1 - y1, y1], axis=1)
    joint = np.einsum("tzu,xu,tyu->tzxy", w, b, c)
    cells = np.random.default_rng(0).multinomial(2000, joint.ravel()).reshape(joint.shape)
    solution, _, found = fitted(cells.astype(float), [0.0, 1.0], 3)
    assert bool(found.settled)
    assert float(found.effects[1, 1]) == pytest.approx(1.0, abs=1e-6)
    low = float(found.effects[1, 0])
    assert low < float(solution.value.effects()[1]) <= 1
    assert low < 1


def test_a_constant_added_to_the_outcome_changes_means_alone():
    cells = jm.populations.paper_main(zt_strength=0.4).counts(jax.random.key(2), 2000)
    _, _, found = fitted(cells, [0.0, 1.0], 3)
    _, _, shifted = fitted(cells, [5.0, 7.0], 3)
    np.testing.assert_allclose(shifted.effects, 2 * found.effects, atol=1e-6)
    np.testing.assert_allclose(shifted.means, 5 + 2 * found.means, atol=1e-6)
    np.testing.assert_allclose(shifted.shares, found.shares, atol=1e-6)


@functools.partial(jax.jit, static_argnames="n")
def _many(keys, population, n):
    def one(key):
        moments = jm.moments.from_counts(population.counts(key, n))
        solution = jm.factorization.solve(moments, 2, key=key)
        return profile.intervals(moments, 2, solution.stats["start"])

    return jax.vmap(one)(keys)


def test_coverage_where_normal_intervals_fail():
    """At a thousand rows the class means run into 0 and 1; Wald intervals cover 85 % there."""
    population, num = jm.populations.paper_main(zt_strength=0.5), 600
    found = _many(jax.random.split(jax.random.key(11), num), population, 1000)
    assert float(found.settled.mean()) > 0.99
    law = population.law
    truths = {"effect": population.ate, "shares": law.shares, "effects": law.effects}
    for name, truth in truths.items():
        ends = getattr(found, name)
        covered = np.mean((ends[..., 0] <= truth) & (truth <= ends[..., 1]), axis=0)
        error = np.sqrt(0.95 * 0.05 / num)
        assert np.all(np.abs(covered - 0.95) < 3 * error), (name, covered)
