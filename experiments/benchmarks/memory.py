"""Memory and time of moments from many rows, beyond the data themselves.

python -m experiments.benchmarks.memory [--rows 10000000]
"""

from __future__ import annotations

import argparse
import threading
import time

import jax

jax.config.update("jax_enable_x64", True)

import numpy as np  # noqa: E402

import jaxmix as jm  # noqa: E402


def resident() -> float:
    """Return the resident memory of this process in GiB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**30


class Watch:
    """Record the peak of resident memory over its lifetime, above where it began."""

    def __enter__(self) -> Watch:
        self.start = self.peak = resident()
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._follow)
        self.began = time.perf_counter()
        self.thread.start()
        return self

    def _follow(self) -> None:
        while not self.done.wait(0.005):
            self.peak = max(self.peak, resident())

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.thread.join()
        self.seconds = time.perf_counter() - self.began


def main() -> None:
    """Measure a continuous and a discrete table of eight columns."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    n = parser.parse_args().rows
    rng = np.random.default_rng(0)
    u = rng.integers(0, 2, n).astype(float)
    names = ["z0", "z1", "z2", "x0", "x1", "x2"]
    roles = {"treatment": "t", "outcome": "y", "z": names[:3], "x": names[3:]}
    for kind in ("continuous", "binary"):
        frame = {"t": (rng.random(n) < 0.3 + 0.4 * u).astype(float)}
        for name in names:
            frame[name] = u + rng.standard_normal(n)
            if kind == "binary":
                frame[name] = (frame[name] > 0.5).astype(float)
        frame["y"] = u + frame["t"] + (rng.standard_normal(n) if kind == "continuous" else 0.0)
        with Watch() as watch:
            data = jm.CausalData.from_frame(frame, **roles)
            views = jm.features.encode(data, reduce=True)
            moments = jm.moments.from_rows(views)
            moments.tensor.block_until_ready()
        size = sum(values.nbytes for values in frame.values()) / 2**30
        print(
            f"{kind}: {n:,} rows x {len(frame)} columns ({size:.2f} GiB): "
            f"{watch.peak - watch.start:.2f} GiB beyond the data, {watch.seconds:.1f} s, "
            f"{len(views.t):,} rows after merging"
        )
        del data, views, moments, frame


if __name__ == "__main__":
    main()
