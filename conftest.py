"""Settings of the whole test session, doctests included: float64, and bounded memory maps."""

import jax
import pytest

jax.config.update("jax_enable_x64", True)


@pytest.fixture(autouse=True, scope="module")
def _forget_compiled_code():
    """Drop what a module compiled: thousands of programs exhaust a process's memory maps."""
    yield
    jax.clear_caches()
