"""How many programs a fit compiles, and how long a dozen operations take."""

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

import jaxmix as jm
from jaxmix.inference import profile, resampling
from tests.golden import cases

COMPILED = "/jax/core/compile/backend_compile_duration"
COUNTED = ("4", "4 percentile", "3", "3 spectral", "3 percentile", "3 linear", "2")
REPEATS = 5


@contextlib.contextmanager
def counting() -> Iterator[list[int]]:
    """Count the programs that are compiled, or read from a cache, meanwhile."""
    count = [0]
    listening = True

    def heard(event: str, duration: float, **more: Any) -> None:
        del duration, more
        count[0] += listening and event == COMPILED

    jax.monitoring.register_event_duration_secs_listener(heard)
    try:
        yield count
    finally:
        listening = False


def count(name: str) -> dict[str, int]:
    """Return the programs of a first fit, and of a second to other data of the same size."""
    build, options = cases.CASES[name]
    jax.clear_caches()
    found = {}
    for which in ("first", "second"):
        data = build()
        with counting() as programs:
            jm.fit(data, **options).complete()
        found[which] = programs[0]
    return found


def counts() -> dict[str, dict[str, int]]:
    """Return the programs of some kinds of fits."""
    return {name: count(name) for name in COUNTED}


def _operations() -> dict[str, Callable[[], Any]]:
    key = jax.random.key(0)
    population = jm.populations.paper_main(zt_strength=0.5)
    draw = jax.jit(jax.vmap(lambda k: population.counts(k, 10_000)))
    few, many = draw(jax.random.split(key, 512)), draw(jax.random.split(key, 10_000))
    keys = jax.random.split(key, 512)
    counted = jm.moments.from_counts

    def batched(function: Callable, *args: Any) -> Callable[[], Any]:
        compiled = jax.jit(jax.vmap(function))
        return lambda: compiled(*args)

    found = {
        "512 fits by likelihood": batched(
            lambda c, k: jm.factorization.solve(c, 2, key=k).value, few, keys
        ),
        "64 profiles": batched(
            lambda c, k: profile.intervals(
                counted(c), 2, jm.factorization.solve(c, 2, key=k).stats["start"]
            ),
            few[:64], keys[:64],
        ),
        "10,000 bridges": batched(lambda c: jm.bridge.solve(counted(c), rank=2).value, many),
        "10,000 spectra": batched(lambda c: jm.spectral.solve(counted(c), 2).value, many),
        "10,000 synthetic laws": batched(lambda c: jm.synthetic.solve(counted(c), 2).value, many),
        "10,000 moments": batched(lambda c: counted(c).tensor, many),
    }  # fmt: skip
    data = cases.rows("plain")
    views = jm.features.encode(data, reduce=True)

    def effect(moments: Any) -> jax.Array:
        return jm.spectral.solve(moments, 2).value.law.mean

    for kind in ("multinomial", "poisson", "bayesian"):
        found[f"1,000 resamples, {kind}"] = lambda kind=kind: resampling.bootstrap(
            effect, views, key=key, num_resamples=1_000, kind=kind
        )
    linear = jm.features.encode(cases.linear(), reduce=True)
    moments = jax.jit(lambda v: jm.moments.from_rows(v, covariance=True))
    found["moments of rows with covariance"] = lambda: moments(linear)
    for name in ("4", "3"):
        build, options = cases.CASES[name]
        own = build()
        found[f"a second fit, level {name}"] = lambda own=own, options=options: (
            jm.fit(own, **options).ate.value
        )
    return found


def times() -> dict[str, float]:
    """Return the seconds that a dozen operations take once they are compiled: medians."""
    found = {}
    with jax.enable_x64(True):
        for name, operation in _operations().items():
            jax.block_until_ready(jnp.asarray(0.0))
            jax.block_until_ready(operation())
            seconds = []
            for _ in range(REPEATS):
                began = time.perf_counter()
                jax.block_until_ready(operation())
                seconds.append(time.perf_counter() - began)
            found[name] = statistics.median(seconds)
    return found
