"""Settings of the whole test session, doctests included.

Float64, bounded memory maps, and programs compiled quickly: nearly all of the suite's time is
compilation. JAXMIX_PROFILE=bulk takes the compiler as it is, which studies have.
"""

import os
import pathlib

if os.environ.get("JAXMIX_PROFILE") != "bulk":
    # As `jaxmix.solvers.compiling` has it, for whatever the tests compile; before JAX is loaded.
    quick = "--xla_cpu_use_fusion_emitters=false --xla_backend_optimization_level=0"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {quick}".strip()

import jax
import pytest

jax.config.update("jax_enable_x64", True)
# What is forgotten between modules, and between runs, is compiled once all the same.
# A folder for each worker: JAX writes a program in place, and another may read half of it.
cache = pathlib.Path(__file__).parent / ".jax_cache" / os.environ.get("PYTEST_XDIST_WORKER", "")
jax.config.update("jax_compilation_cache_dir", str(cache))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


MAPS = pathlib.Path("/proc/self/maps")
MOST_MAPS = 25_000  # of the 65,530 that a process may have on Linux


@pytest.fixture(autouse=True, scope="module")
def _forget_compiled_code():
    """Drop what a module compiled: thousands of programs exhaust a process's memory maps."""
    yield
    jax.clear_caches()


@pytest.fixture(autouse=True)
def _forget_it_sooner():
    """Do the same between the tests of a module that compiles very much."""
    yield
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > MOST_MAPS:
        jax.clear_caches()
