"""Compiled functions: profiles differ in time alone, and the outermost program has its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmix.estimators import factorization, spectral
from jaxmix.sample.moments import from_counts
from jaxmix.solvers import compiling
from jaxmix.solvers.compiling import compiled, one_table, profile
from tests.golden.cases import table


@pytest.fixture
def options(monkeypatch):
    """Options of the programs that are compiled, in order; compiled with none of them."""
    asked = []
    jit = jax.jit

    def counting(function, *, compiler_options=None, **rest):
        made = jit(function, **rest)

        def call(*args, **kwargs):
            asked.append(compiler_options or {})
            return made(*args, **kwargs)

        return call

    monkeypatch.setattr(jax, "jit", counting)
    return asked


def test_the_outermost_program_has_the_options(options):
    inner = compiled()(lambda x: 2 * x)
    outer = compiled()(lambda x: inner(x) + inner(jnp.ones(3)))
    outer(jnp.arange(3.0))
    assert options == [{}, {}, {}]
    options.clear()
    with profile("quick"):
        assert outer(jnp.arange(3.0)).tolist() == [2.0, 4.0, 6.0]
    quick = compiling.QUICK_OPTIONS if jax.default_backend() == "cpu" else {}
    assert options == [quick, {}, {}]


@pytest.mark.parametrize("around", [jax.jit, jax.vmap, jax.grad], ids=["jit", "vmap", "grad"])
def test_a_program_of_the_caller_is_the_outermost(around):
    square = compiled()(lambda x: x**2)
    points = jnp.float64(3.0) if around is jax.grad else jnp.arange(3.0)
    expected = around(lambda x: x**2)(points)
    with profile("quick"):
        np.testing.assert_array_equal(around(square)(points), expected)


def test_a_failure_leaves_the_profile_as_it_was(options):
    def refuse(x):
        raise FloatingPointError

    with pytest.raises(FloatingPointError), profile("quick"):
        compiled()(refuse)(1.0)
    compiled()(lambda x: x)(1.0)
    assert options[-1] == {}


def test_an_unknown_profile_is_refused():
    unknown = "profile is 'fast': use one of quick, bulk"
    with pytest.raises(ValueError, match=unknown), profile("fast"):
        pass


@pytest.mark.parametrize("backend", ["gpu", "cpu"])
def test_options_are_asked_of_backends_and_releases_that_have_them(backend, options, monkeypatch):
    compiling.has_quick_options.cache_clear()
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    if backend == "cpu":
        monkeypatch.setattr(jax, "__version_info__", (99, 0, 0))
    with profile("quick"):
        compiled()(lambda x: x)(1.0)
    compiling.has_quick_options.cache_clear()
    assert options == [{}]


def test_one_table_computes_in_double_precision():
    with jax.enable_x64(False), one_table():
        assert compiled()(lambda: jnp.ones(()))().dtype == jnp.float64


@pytest.mark.parametrize("estimator", [factorization, spectral])
def test_profiles_differ_in_the_last_digits_alone(estimator):
    moments = from_counts(jnp.asarray(table((2, 3, 3, 2), 2, 5_000, 1), float))
    options = {"key": jax.random.key(0)} if estimator is factorization else {}

    def solve(moments):
        return estimator.solve(moments, 2, **options).value

    # The tests themselves may run in either profile: what XLA has by itself is said here.
    in_bulk = {"xla_cpu_use_fusion_emitters": True, "xla_backend_optimization_level": 3}
    on_cpu = jax.default_backend() == "cpu"
    bulk = jax.jit(solve, compiler_options=in_bulk if on_cpu else None)(moments)
    with profile("quick"):
        quick = compiled()(solve)(moments)
    for own, other in zip(jax.tree.leaves(quick), jax.tree.leaves(bulk), strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-10, atol=1e-12)
