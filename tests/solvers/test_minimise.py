"""The loop, its second-order steps, batches of unequal work, and implicit derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmix import Status
from jaxmix.solvers.implicit import at_root
from jaxmix.solvers.lanes import batched, by_chunks, where_selected
from jaxmix.solvers.minimise import damped, minimise


def rosenbrock(p):
    return (1 - p[0]) ** 2 + 100 * (p[1] - p[0] ** 2) ** 2


def newton(p, damping, exact):
    slope = jax.grad(rosenbrock)(p)
    r = jax.jacfwd(lambda q: jnp.stack([1 - q[0], 10 * (q[1] - q[0] ** 2)]))(p)
    matrix = jnp.where(exact, jax.hessian(rosenbrock)(p), 2 * r.T @ r)
    move = -jnp.linalg.solve(matrix + damping * jnp.diag(jnp.diag(matrix)), slope)
    return move, -(slope @ move) / 2


OPTIMISERS = {
    "lbfgs": optax.lbfgs(),
    "adam": optax.adam(0.02),
    "damped": damped(newton, jnp.add),
    "damped, exact at the end": damped(newton, jnp.add, exact_below=1.0),
}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_every_optimiser_finds_the_minimum_in_one_loop(name):
    found = minimise(
        rosenbrock, jnp.array([-1.2, 1.0]), OPTIMISERS[name], tolerance=1e-12, max_steps=20_000,
        patience=200 if name == "adam" else 5,
    )  # fmt: skip
    assert found.status == Status.SUCCESS
    np.testing.assert_allclose(found.params, 1.0, atol=1e-3)
    assert found.value == pytest.approx(float(rosenbrock(found.params)), abs=1e-12)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_the_cap_on_steps_is_a_status_and_the_best_iterate_is_kept(name):
    start = jnp.array([-1.2, 1.0])
    found = minimise(rosenbrock, start, OPTIMISERS[name], tolerance=0.0, max_steps=3)
    assert (found.status, found.steps) == (Status.MAX_STEPS, 3)
    assert found.value <= rosenbrock(start)


def test_the_best_iterate_is_kept_when_steps_climb():
    climbing = optax.sgd(-0.1)
    found = minimise(lambda p: jnp.sum(p**2), jnp.ones(1), climbing, tolerance=0.0, max_steps=4)
    np.testing.assert_allclose(found.params, 1.0)


def test_a_loss_that_is_not_finite_is_a_status():
    found = minimise(
        lambda p: jnp.log(p[0]), jnp.array([-1.0]), optax.sgd(0.1), tolerance=0.0, max_steps=3
    )
    assert found.status == Status.NONFINITE


def test_damped_steps_never_climb():
    values = []
    step = damped(newton, jnp.add)
    p = jnp.array([-1.2, 1.0])
    state, value = step.init(p), rosenbrock(p)
    for _ in range(30):
        move, state = step.update(None, state, p, value=value, value_fn=rosenbrock)
        p = p + move
        value = state.value
        assert value == pytest.approx(float(rosenbrock(p)), rel=1e-10, abs=1e-25)
        values.append(float(value))
    assert (np.diff(values) <= 0).all()


@pytest.mark.parametrize("num", [1, 63, 64, 65, 200])
def test_chunks_change_nothing(num):
    x = jnp.arange(num, dtype=float)
    tree = by_chunks(lambda a, b: {"sum": a + b, "outer": a[:, None] * b[:, None]}, x, x)
    np.testing.assert_array_equal(tree["sum"], 2 * x)
    np.testing.assert_array_equal(tree["outer"], (x * x)[:, None])


@pytest.mark.parametrize("chosen", [[], [0], [4, 2, 9], range(10)])
def test_only_selected_lanes_change(chosen):
    selected = np.isin(np.arange(10), list(chosen))
    state = (jnp.arange(10.0), jnp.zeros((10, 2)))
    other = jnp.arange(10.0) * 100

    def work(state, other):
        return state[0] + other, state[1] + 1

    out = where_selected(work, state, jnp.asarray(selected), other, lanes=3)
    np.testing.assert_array_equal(out[0], np.where(selected, 101 * np.arange(10), np.arange(10)))
    np.testing.assert_array_equal(out[1], np.broadcast_to(selected[:, None], (10, 2)))


def test_batched_functions_see_whole_batches_and_nested_ones():
    sizes = []

    def double(x, scale):
        sizes.append(len(x))
        return {"y": 2 * x * scale[:, None]}

    one = batched(double)
    x = jnp.arange(24.0).reshape(2, 3, 4)
    np.testing.assert_array_equal(one(x[0, 0], jnp.float64(3.0))["y"], 6 * x[0, 0])
    out = jax.jit(jax.vmap(lambda a: jax.vmap(one, (0, None))(a, jnp.float64(1.0))))(x)
    np.testing.assert_array_equal(out["y"], 2 * x)
    assert sizes[-1] == 6


def cubic(root, args):
    return root**3 + args["a"] * root - args["b"]


def test_implicit_derivatives_forward_reverse_and_under_vmap():
    def root(a, b):
        fixed = jax.lax.stop_gradient((a, b))
        start = jnp.ones(2)
        for _ in range(8):
            start = start - cubic(start, {"a": fixed[0], "b": fixed[1]}) / (3 * start**2 + fixed[0])
        return at_root(cubic, start, {"a": a, "b": b}, jnp.asarray(False))

    a, b = jnp.array([1.0, 2.0]), jnp.array([3.0, 5.0])
    jacobian = jax.jacrev(root, argnums=1)(a, b)
    exact = 1 / (3 * root(a, b) ** 2 + a)
    np.testing.assert_allclose(jnp.diag(jacobian), exact, rtol=1e-9)
    np.testing.assert_allclose(jax.jacfwd(root, argnums=1)(a, b), jacobian, rtol=1e-12)
    many = jax.vmap(jax.grad(lambda a, b: root(a, b).sum()), (0, None))(jnp.stack([a, 2 * a]), b)
    h = 1e-6
    for i, scale in enumerate((1, 2)):
        for j in range(2):
            move = h * jnp.eye(2)[j]
            central = (root(scale * a + move, b) - root(scale * a - move, b)).sum() / (2 * h)
            assert many[i, j] == pytest.approx(float(central), rel=1e-6)


def test_a_root_that_is_not_isolated_has_no_derivative():
    def root(b):
        return at_root(cubic, jnp.ones(1), {"a": jnp.ones(1), "b": b}, jnp.asarray(True))

    assert root(jnp.array([2.0]))[0] == 1.0
    assert np.isnan(jax.jacfwd(root)(jnp.array([2.0]))).all()


def test_differentiating_moves_no_root():
    # Not even one that is none: where the root is, is the business of whoever found it.
    def root(b):
        return at_root(cubic, jnp.full(1, 1.1), {"a": jnp.ones(1), "b": b}, jnp.asarray(False))

    b = jnp.array([2.0])
    assert jax.value_and_grad(lambda b: root(b)[0])(b)[0] == 1.1
    assert jax.jvp(root, (b,), (b,))[0][0] == 1.1


def plane(root, args):
    # The first coordinate has curvature `args[0]`, the second is seen through the sum alone.
    total = root[0] + root[1]
    return jnp.stack([args[0] * root[0] + total - args[1], total * (1 + args[2]) - args[1]])


@pytest.mark.parametrize("curvature", [0.0, 1e-12, 1e-9])
def test_derivatives_along_lost_directions_do_not_exist(curvature):
    def root(b):
        args = jnp.stack([jnp.asarray(curvature), b, jnp.zeros(())])
        return at_root(plane, jnp.array([0.5, 0.5]), args, jnp.asarray(False))

    assert np.isnan(jax.jacfwd(root)(jnp.asarray(1.0))).all()


def test_the_scale_of_a_system_is_no_lack_of_rank():
    def scaled(root, args):
        return jnp.array([1e-30, 1e30]) * (jnp.array([1e20, 1e-20]) * root - args)

    def root(b):
        return at_root(scaled, jnp.array([1e-20, 1e20]), b, jnp.asarray(False))

    jacobian = jax.jacrev(root)(jnp.ones(2))
    np.testing.assert_allclose(jacobian, np.diag([1e-20, 1e20]), rtol=1e-12)


def test_steps_without_exact_curvature_go_on_to_a_finer_tolerance():
    # Gauss-Newton where residuals do not vanish converges linearly: the tolerance leaves digits.
    def residuals(p):
        return jnp.array([p[0] - 1.0, p[0] ** 2 - 4.0])

    def loss(p):
        return jnp.sum(residuals(p) ** 2) / 2

    def step(p, damping, exact):
        slope = jax.jacfwd(residuals)(p)
        gradient = slope.T @ residuals(p)
        move = -jnp.linalg.solve(slope.T @ slope * (1 + damping), gradient)
        return move, -(gradient @ move) / 2

    exact = np.roots([2.0, 0.0, -7.0, -1.0]).max()  # of the derivative, 2 p^3 - 7 p - 1
    coarse, fine = (
        minimise(
            loss, jnp.array([5.0]), damped(step, jnp.add), tolerance=1e-4, max_steps=500,
            finish=finish,
        )
        for finish in (None, 1e-16)
    )  # fmt: skip
    assert coarse.status == fine.status == Status.SUCCESS
    assert fine.steps > coarse.steps
    assert abs(fine.params[0] - exact) < 1e-8 < abs(coarse.params[0] - exact)
    stuck = minimise(loss, jnp.array([5.0]), damped(step, jnp.add), tolerance=1e-4, max_steps=1)
    assert stuck.status == Status.MAX_STEPS
