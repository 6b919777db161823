"""The likelihood of mixtures, of every structure, against automatic differentiation."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import jaxmix as jm
from jaxmix.model import likelihood
from jaxmix.model.rows import Rows
from jaxmix.model.settling import settle_down
from jaxmix.model.structure import APART, EDGE, LEVEL, Factors, Part, Structure, latent_classes
from jaxmix.model.table import Table
from tests import likelihood_oracles as lo
from tests import oracles

STRUCTURES = {
    "level 3": (LEVEL[3], (2, 3, 4, 2)),
    "level 2": (LEVEL[2], (2, 3, 4, 3)),
    "three arms": (LEVEL[3], (3, 2, 3, 2)),
    "z moves y": (EDGE["z_to_y"], (2, 3, 4, 2)),
    "arms apart": (APART, (2, 2, 3, 2)),
    "latent classes": (latent_classes(4), (2, 3, 2, 3)),
    "with a treatment": (latent_classes(3, (True, False, True)), (2, 3, 2, 3)),
    "views apart": (
        Structure(("t", "z", "a", "b", "y"), ("t", "z"),
                  (Part(("a",)), Part(("b",)), Part(("y",), ("t",)))),
        (2, 2, 2, 3, 2),
    ),
}  # fmt: skip
KEY = jax.random.key(0)
settled = jax.jit(settle_down)
score = jax.jit(likelihood.score)
newton_step = jax.jit(likelihood.newton_step)


def drawn(structure, shape, k=2, seed=0):
    """Return counts of a mixture, and factors near those behind them."""
    rng = np.random.default_rng(seed)
    made = [jnp.asarray(rng.uniform(0.1, 1, size)) for size in structure.shapes(shape, k)]
    truth = structure.normalise(Factors(made[0], tuple(made[1:])))
    p = np.asarray(structure.cells(truth))
    counts = jnp.asarray(rng.multinomial(2_000, p.ravel() / p.sum()).reshape(shape), float)
    near = jax.tree.map(lambda f: f * rng.uniform(0.97, 1.03, f.shape), truth)
    return counts, structure.normalise(near)


def listed(counts, structure, **more):
    codes = np.array(list(itertools.product(*map(range, counts.shape))), np.int32)
    return Rows.of(structure, jnp.asarray(codes), counts.reshape(-1), counts.shape, **more)


@jax.jit
def everything(data, factors, exact):
    return (
        data.deviance(factors), data.log_likelihood(factors), data.slopes(factors),
        data.squares(factors), likelihood.score(data, factors),
        likelihood.em_step(data, factors), likelihood.to_bound(data, factors),
        likelihood.newton_step(data, factors, jnp.asarray(0.1), exact),
    )  # fmt: skip


@pytest.mark.parametrize("name", STRUCTURES)
def test_the_score_is_the_gradient_of_the_likelihood(name):
    structure, shape = STRUCTURES[name]
    counts, factors = drawn(structure, shape)
    factors = jax.tree.map(lambda f: 1.3 * f, factors)  # of any scale

    def poisson(f):
        p = structure.cells(f)
        return jnp.sum(counts * jnp.log(p)) - counts.sum() * p.sum()

    own = score(Table(counts, structure), factors)
    for one, auto in zip(
        jax.tree.leaves(own), jax.tree.leaves(jax.jit(jax.grad(poisson))(factors)), strict=True
    ):
        np.testing.assert_allclose(one, auto, rtol=1e-10)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("name", STRUCTURES)
def test_rows_and_the_table_of_all_cells_have_one_likelihood(name, known):
    structure, shape = STRUCTURES[name]
    counts, factors = drawn(structure, shape)
    factors = settled(Table(counts, structure), factors).factors
    factors = structure.normalise(jax.tree.map(lambda f: f + 1e-3, factors))
    of_table, of_rows = (
        everything(data, factors, jnp.asarray(True))
        for data in (Table(counts, structure), listed(counts, structure, gate_is_known=known))
    )
    of_table, of_rows = (  # the deviance of rows is against those that are there
        jax.tree.leaves(part) for part in (of_table, of_rows)
    )
    for one, other in zip(of_table, of_rows[: len(of_table)], strict=True):
        if jnp.shape(one) == jnp.shape(other):
            size = float(jnp.abs(one).max())
            np.testing.assert_allclose(other, one, rtol=1e-8, atol=1e-9 * size)


@pytest.mark.parametrize("name", ["level 3", "level 2", "latent classes", "three arms"])
def test_missing_cells_are_summed_out(name):
    """Rows without some cells have the likelihood of the table's margins, by plain sums."""
    structure, shape = STRUCTURES[name]
    counts, factors = drawn(structure, shape)
    p = np.asarray(structure.cells(factors))
    codes = np.array(list(itertools.product(*map(range, shape))), np.int32)
    rng = np.random.default_rng(0)
    gaps = rng.random(codes.shape) < 0.3
    if "t" in structure.axes:
        gaps[:, 0] = False
    expected = 0.0
    for code, gap, count in zip(codes, gaps, np.asarray(counts).ravel(), strict=True):
        place = tuple(slice(None) if g else c for c, g in zip(code, gap, strict=True))
        expected += count * np.log(p[place].sum())
    rows = Rows.of(
        structure, jnp.asarray(np.where(gaps, -1, codes)), counts.reshape(-1), shape,
        gate_is_known=False,
    )  # fmt: skip
    np.testing.assert_allclose(rows.log_likelihood(factors), expected, rtol=1e-12)

    def loss(f):
        return rows.log_likelihood(f) - counts.sum() * structure.cells(f).sum()

    auto, own = jax.jit(jax.grad(loss))(factors), score(rows, factors)
    for one, other in zip(jax.tree.leaves(own), jax.tree.leaves(auto), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-8)
    # The exact system is minus the second derivative, so that settling ends where no score is.
    found = settled(rows, factors)
    if found.pivot > 1e-6:
        assert found.decrement < 1e-8


@pytest.mark.parametrize("damping", [0.0, 0.1])
@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("name", STRUCTURES)
def test_newton_steps_solve_the_whole_system(name, exact, damping):
    # Blocks against one dense system by automatic differentiation.
    structure, shape = STRUCTURES[name]
    counts, factors = drawn(structure, shape)
    data = Table(counts, structure)
    factors = settled(data, factors).factors
    rng = np.random.default_rng(1)
    factors = structure.normalise(
        jax.tree.map(lambda f: f * rng.uniform(0.99, 1.01, f.shape), factors)
    )
    flat, unravel = ravel_pytree(factors)
    n = counts.sum()

    def poisson(v):
        p = structure.cells(unravel(v))
        return jnp.sum(counts * jnp.log(p)) - n * p.sum()

    def probabilities(v):
        return structure.cells(unravel(v)).reshape(-1)

    gradient = np.asarray(jax.jit(jax.grad(poisson))(flat))
    p, slope = (
        np.asarray(f(flat)) for f in map(jax.jit, (probabilities, jax.jacfwd(probabilities)))
    )
    hessian = slope.T @ (slope * (float(n) / p)[:, None])
    if exact:
        hessian = -np.asarray(jax.jit(jax.hessian(poisson))(flat))
    bound = np.asarray((flat <= 0) & (gradient <= 0))

    def sums(v):
        return jnp.concatenate([
            f.sum(tuple(range(len(part.given), len(part.axes)))).reshape(-1)
            for part, f in zip(structure.parts, unravel(v).parts, strict=True)
        ])  # fmt: skip

    gauge = np.asarray(jax.jit(jax.jacfwd(sums))(flat))
    mass = [structure.mass(factors, part.given) for part in structure.parts]
    mass = [np.asarray(own) for own in mass]
    n = float(n)
    weight = n * np.concatenate([m.reshape(-1) for m in mass])
    metric = [n / np.maximum(factors.gate, 1e-2 / factors.gate.size)]
    for part, own, f in zip(structure.parts, mass, factors.parts, strict=True):
        own = np.expand_dims(own, tuple(range(len(part.given), len(part.axes))))
        metric.append(n * own / np.maximum(f, 1e-2))
    metric = np.concatenate([m.reshape(-1) for m in metric])
    system = hessian + gauge.T @ (gauge * weight[:, None]) + damping * np.diag(metric)
    free = np.flatnonzero(~bound)
    expected = np.zeros(len(flat))
    expected[free] = np.linalg.solve(system[np.ix_(free, free)], gradient[free])
    direction, gain, pivot = newton_step(data, factors, jnp.asarray(damping), jnp.asarray(exact))
    if name == "z moves y" and damping == 0:
        # The table leaves these mixtures open: the system is singular, or off the ridge has a
        # negative eigenvalue, and the pivot says so.
        values = np.linalg.eigvalsh(system[np.ix_(free, free)])
        assert values[0] < 1e-12 * values[-1]
        assert not pivot > 1e-10
        return
    np.testing.assert_allclose(ravel_pytree(direction)[0], expected, rtol=1e-6, atol=1e-8)
    assert float(gain) == pytest.approx(expected @ np.asarray(gradient) / 2, rel=1e-6)
    assert 0 < pivot <= 1


@pytest.mark.parametrize("name", STRUCTURES)
def test_em_steps_raise_the_likelihood_and_keep_sums(name):
    structure, shape = STRUCTURES[name]
    counts, factors = drawn(structure, shape)
    data = Table(counts, structure)

    @jax.jit
    def climb(factors):
        def step(factors, _):
            factors = likelihood.em_step(data, factors)
            return factors, data.deviance(factors)

        return jax.lax.scan(step, factors, length=20)

    last = data.deviance(factors)
    factors, losses = climb(factors)
    assert (np.diff(np.append(last, losses)) <= 0).all()
    np.testing.assert_allclose(factors.gate.sum(), 1.0)
    for part, f in zip(structure.parts, factors.parts, strict=True):
        np.testing.assert_allclose(f.sum(tuple(range(len(part.given), len(part.axes)))), 1.0)


def test_probabilities_on_their_way_to_0_are_set_there_and_the_others_settle():
    rng = np.random.default_rng(0)
    W = np.array([[0.3, 0.0], [0.2, 0.15], [0.0, 0.35]]).reshape(1, 3, 2)
    B, C = np.array([[0.6, 0.0], [0.4, 0.4], [0.0, 0.6]]), np.array([[[0.3, 0.8], [0.7, 0.2]]])
    cells = jnp.asarray(
        rng.multinomial(4000, lo.model_table(W, B, C).ravel()).reshape(1, 3, 3, 2), float
    )
    for lift in (1e-9, 0.02):
        gate, *parts = (jnp.asarray(f) + lift for f in (W, B, C))
        factors = LEVEL[3].normalise(Factors(gate, tuple(parts)))
        for data in (Table(cells, LEVEL[3]), listed(cells, LEVEL[3])):
            found = settled(data, factors)
            zero = [np.asarray(f) == 0 for f in jax.tree.leaves(found.factors)]
            assert [int(z.sum()) for z in zero] == [2, 2, 0]
            slopes = jax.tree.leaves(score(data, found.factors))
            for g, z in zip(slopes, zero, strict=True):
                np.testing.assert_allclose(np.asarray(g)[~z], 0, atol=1e-6)
                assert (np.asarray(g)[z] < 0).all()
            assert found.decrement < 1e-8
            assert found.pivot > 0.01


@pytest.mark.parametrize(("axes", "gate", "parts", "said"), [
    (("t", "x"), ("t",), (Part(("x",), ("z",)),), "comes later"),
    (("t", "x"), ("t",), (Part(("x",)), Part(("x",))), "one law each"),
    (("t", "x", "y"), ("t",), (Part(("x",)),), "one law each"),
    (("t",), ("t",), (), "says nothing"),
])  # fmt: skip
def test_structures_that_make_no_sense_are_refused(axes, gate, parts, said):
    with pytest.raises(ValueError, match=said):
        Structure(axes, gate, parts)


def test_an_edge_from_x_has_no_scale_for_the_gate_to_take():
    with pytest.raises(ValueError, match="not in the gate"):
        EDGE["x_to_y"].index((2, 2, 2, 2))


def test_a_table_of_the_paper_has_the_classes_of_its_rows():
    """The maximum is one whether the table is dense or listed row by row."""
    cells = jnp.asarray(oracles.paper_main(0.3).counts(np.random.default_rng(0), 5_000), float)
    start = jm.factorization.solve(cells, 2, key=KEY).stats["start"]
    again = settled(listed(cells, LEVEL[3]), start).factors
    for one, other in zip(jax.tree.leaves(again), jax.tree.leaves(start), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-10)
