"""Small linear algebra against numpy, and its derivatives against central differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmix as jm
from jaxmix.solvers import linalg, spectra


def matrix(seed, m, d, rank=None):
    rng = np.random.default_rng(seed)
    if rank is None:
        return rng.normal(size=(m, d))
    return rng.normal(size=(m, rank)) @ rng.normal(size=(rank, d))


def truncated_pinv(a, rank):
    u, s, vt = np.linalg.svd(a, full_matrices=False)
    return (vt[:rank].T / s[:rank]) @ u[:, :rank].T


def central(f, a, direction, step=1e-6):
    return (f(a + step * direction) - f(a - step * direction)) / (2 * step)


@pytest.mark.parametrize("d", [1, 2, 3, 5, 8, 9, 20])
def test_inverse(d):
    a = matrix(d, d, d)
    np.testing.assert_allclose(linalg.inverse(jnp.asarray(a)), np.linalg.inv(a), rtol=1e-8)


def test_inverse_swaps_rows_where_the_pivot_is_zero():
    a = jnp.array([[0.0, 2.0, 0.0], [0.0, 0.0, 4.0], [1.0, 0.0, 0.0]])
    np.testing.assert_allclose(linalg.inverse(a) @ a, np.eye(3), atol=1e-15)


def test_inverse_gradient():
    a, direction = matrix(0, 3, 3), matrix(1, 3, 3)
    tangent = jax.jvp(linalg.inverse, (jnp.asarray(a),), (jnp.asarray(direction),))[1]
    np.testing.assert_allclose(tangent, central(np.linalg.inv, a, direction), rtol=1e-6)


@pytest.mark.parametrize(
    ("m", "d", "rank"), [(4, 4, 2), (5, 3, 3), (3, 5, 2), (6, 4, 3), (4, 4, 4), (2, 5, 2)]
)
@pytest.mark.parametrize("exact", [False, True], ids=["full", "deficient"])
def test_truncated_pseudo_inverse_and_its_derivative(m, d, rank, exact):
    # At exact rank, dropped singular values are all zero: the automatic derivative is NaN there.
    a, direction = matrix(m, m, d, rank if exact else None), matrix(7, m, d)
    result = linalg.pinv(jnp.asarray(a), rank)
    np.testing.assert_allclose(result.matrix, truncated_pinv(a, rank), atol=1e-9)
    assert not result.deficient
    expected = central(lambda b: truncated_pinv(b, rank), a, direction)

    def of(b):
        return linalg.pinv(b, rank).matrix

    tangent = jax.jvp(of, (jnp.asarray(a),), (jnp.asarray(direction),))[1]
    np.testing.assert_allclose(tangent, expected, rtol=1e-5, atol=1e-6)
    weights = matrix(8, d, m)
    gradient = jax.grad(lambda b: jnp.sum(of(b) * weights))(jnp.asarray(a))
    np.testing.assert_allclose(jnp.sum(gradient * direction), np.sum(expected * weights), rtol=1e-5)


def test_pseudo_inverse_keeps_the_numerical_rank_when_none_is_asked_for():
    a = matrix(3, 5, 4, rank=2)
    result = linalg.pinv(jnp.asarray(a))
    np.testing.assert_allclose(result.matrix, np.linalg.pinv(a, rcond=1e-10), atol=1e-10)
    assert not result.deficient


@pytest.mark.parametrize("shape", [(4, 4), (5, 4)])
def test_missing_rank_is_reported(shape):
    a = matrix(4, *shape, rank=2)
    assert linalg.pinv(jnp.asarray(a), 3).deficient
    assert linalg.pinv(jnp.asarray(a), 4).deficient
    assert not linalg.pinv(jnp.asarray(a), 2).deficient
    assert linalg.pinv(jnp.zeros(shape), 1).deficient


@pytest.mark.parametrize(("d_z", "d_x", "shared"), [(4, 4, 0), (4, 4, 2), (6, 4, 2), (5, 3, 1)])
def test_bordered_inverse_is_two_stage_least_squares(d_z, d_x, shared):
    rng = np.random.default_rng(d_z)
    common = np.column_stack([np.ones(200), rng.normal(size=(200, max(shared - 1, 0)))])[:, :shared]
    z = np.column_stack([common, rng.normal(size=(200, d_z - shared))])
    x = np.column_stack([common, z[:, shared:d_x] + rng.normal(size=(200, d_x - shared))])
    y = rng.normal(size=200)
    fitted = z @ np.linalg.lstsq(z, x, rcond=None)[0]
    expected = np.linalg.lstsq(fitted, y, rcond=None)[0]
    inverse = linalg.bordered_pinv(
        jnp.asarray(z.T @ x / 200), num_shared=shared, gram=jnp.asarray(z.T @ z / 200)
    )
    np.testing.assert_allclose(inverse.matrix @ (z.T @ y / 200), expected, rtol=1e-8)
    assert not inverse.deficient


def test_bordered_inverse_truncates_the_schur_complement_only():
    a = matrix(5, 5, 5)
    inverse = np.asarray(linalg.bordered_pinv(jnp.asarray(a), 1, num_shared=2).matrix)
    rest = a[2:, 2:] - a[2:, :2] @ np.linalg.inv(a[:2, :2]) @ a[:2, 2:]
    np.testing.assert_allclose(inverse[2:, 2:], truncated_pinv(rest, 1), atol=1e-10)
    # What is solved for the shared features is exact, whatever was truncated.
    right = np.arange(5.0)
    np.testing.assert_allclose((a @ inverse @ right)[:2], right[:2], atol=1e-10)


def test_bordered_inverse_reports_a_singular_shared_block():
    a = matrix(6, 4, 4)
    a[1, :2] = a[0, :2]
    a[:2, 1] = a[:2, 0]
    assert linalg.bordered_pinv(jnp.asarray(a), 2, num_shared=2).deficient


def test_weights_leave_a_feature_that_never_occurs_alone():
    # A level of z without rows: its row of moments and of the weight is zero.
    a = matrix(9, 4, 2)
    a[3] = 0.0
    gram = np.diag([0.2, 0.5, 0.3, 0.0])
    inverse = linalg.bordered_pinv(jnp.asarray(a), gram=jnp.asarray(gram)).matrix
    smaller = linalg.bordered_pinv(jnp.asarray(a[:3]), gram=jnp.asarray(gram[:3, :3])).matrix
    np.testing.assert_allclose(inverse[:, :3], smaller, atol=1e-12)


@pytest.mark.parametrize(("m", "d", "rank"), [(6, 4, 2), (3, 5, 2), (5, 5, 5)])
@pytest.mark.parametrize("exact", [False, True], ids=["full", "deficient"])
def test_dominant_subspace(m, d, rank, exact):
    a = matrix(10, m, d, rank if exact else None)
    direction = matrix(11, m, d)

    def projector(b):
        v = np.linalg.svd(b, full_matrices=False)[2][:rank]
        return v.T @ v

    def of(b):
        basis = spectra.dominant_subspace(b, rank).basis
        return basis @ basis.T

    np.testing.assert_allclose(of(jnp.asarray(a)), projector(a), atol=1e-10)
    tangent = jax.jvp(of, (jnp.asarray(a),), (jnp.asarray(direction),))[1]
    np.testing.assert_allclose(tangent, central(projector, a, direction), atol=1e-6)


def test_left_eigen():
    a = matrix(12, 4, 4)
    values, vectors = spectra.left_eigen(jnp.asarray(a))
    np.testing.assert_allclose(vectors @ a, values[:, None] * vectors, atol=1e-12)
    np.testing.assert_allclose(
        np.sort_complex(values), np.sort_complex(np.linalg.eigvals(a)), atol=1e-12
    )


def test_left_eigen_derivative_of_a_gauge_free_function():
    a, direction = np.diag([1.0, 2.0, 4.0]) + 0.3 * matrix(13, 3, 3), matrix(14, 3, 3)

    def of(b):
        values, vectors = spectra.left_eigen(b)
        scaled = vectors / vectors.sum(1, keepdims=True)
        order = jnp.argsort(values.real)
        return jnp.concatenate([values[order, None], scaled[order]], axis=1).real

    tangent = jax.jvp(of, (jnp.asarray(a),), (jnp.asarray(direction),))[1]
    expected = central(lambda b: np.asarray(of(jnp.asarray(b))), a, direction)
    np.testing.assert_allclose(tangent, expected, rtol=1e-6, atol=1e-6)


def test_rounding_of_what_was_taken_out_is_no_rank():
    # What z leaves beside the constant is rounding; against itself it would have full rank.
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 2)) + 0.3
    z = np.column_stack([np.full(500, 0.1) * 7, rng.normal(size=500) + x[:, 0]])
    z, x = (np.column_stack([np.ones(500), a]) for a in (z, x))
    matrix = jnp.asarray(z.T @ x / 500)
    sizes = linalg.Sizes(*(jnp.sqrt(jnp.mean(a**2, 0)) for a in (z, x)), jnp.asarray(500.0))
    plain = linalg.bordered_pinv(matrix, 2, num_shared=1, sizes=sizes)
    assert plain.deficient
    assert not linalg.bordered_pinv(matrix, 1, num_shared=1, sizes=sizes).deficient
    # At its numerical rank it is the pseudo-inverse without that z.
    found = linalg.bordered_pinv(matrix, num_shared=1, sizes=sizes)
    assert not found.deficient
    assert float(jnp.trace(found.matrix @ matrix)) == pytest.approx(2)
    for scale in (1e-12, 1e12):  # units change nothing
        by = jnp.array([1.0, scale, scale])
        unit = sizes._replace(z=sizes.z * by)
        assert linalg.bordered_pinv(matrix * by[:, None], 2, num_shared=1, sizes=unit).deficient


def test_a_z_that_others_give_is_left_out_of_the_weights():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(400, 1))
    first, second = x + rng.normal(size=(2, 400, 1))
    z = np.column_stack([np.ones(400), first, 2 * first - 1, second])
    x, y = np.column_stack([np.ones(400), x]), rng.normal(size=400)
    fitted = z @ np.linalg.lstsq(z, x, rcond=1e-12)[0]
    expected = np.linalg.lstsq(fitted, y, rcond=None)[0]
    sizes = linalg.Sizes(*(jnp.sqrt(jnp.mean(a**2, 0)) for a in (z, x)), jnp.asarray(400.0))
    found = linalg.bordered_pinv(
        jnp.asarray(z.T @ x / 400), num_shared=1, gram=jnp.asarray(z.T @ z / 400), sizes=sizes
    )
    np.testing.assert_allclose(found.matrix @ (z.T @ y / 400), expected, rtol=1e-8)


def test_powers_of_two():
    sizes = jnp.array([1.0, 1.5, 2.0, 1e300, 1e-300, 0.0, jnp.inf])
    found = np.asarray(linalg.power_of_two(sizes))
    np.testing.assert_array_equal(np.log2(found) % 1, 0)
    assert ((found[:5] <= sizes[:5]) & (sizes[:5] < 2 * found[:5])).all()
    np.testing.assert_array_equal(found[5:], 1.0)


def test_of_two_equal_singular_values_neither_is_the_one_to_drop():
    tied = jnp.asarray(np.diag([2.0, 1.0, 1.0]))
    assert linalg.pinv(tied, 2).deficient
    assert not linalg.pinv(tied, 1).deficient
    assert not linalg.pinv(tied, 3).deficient
    assert spectra.dominant_subspace(tied, 2).ambiguous
    assert not spectra.dominant_subspace(tied, 1).ambiguous
    assert not spectra.dominant_subspace(tied, 3).ambiguous
    # Four rows of z and x in one arm: a permutation, any two of whose directions fit as well.
    cells = np.array([[[5, 5, 1], [1, 0, 2], [0, 3, 0]], [[2, 0, 0], [0, 0, 1], [0, 1, 0]]])
    cells = jnp.asarray(np.stack([cells, cells], -1), float)
    moments = jm.moments.from_counts(cells)
    assert jm.bridge.solve(moments, rank=2).status == jm.Status.RANK_DEFICIENT
