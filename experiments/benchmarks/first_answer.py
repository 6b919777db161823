"""What the first answer costs a person with one table: seconds of whole processes.

Run ``python -m experiments.benchmarks.first_answer [--runs N] [--only NAME ...]``. Each line is a
command, or a few lines of Python, in a process of its own: cold with an empty folder for compiled
programs, warm with that of the run before. Processor seconds (user and system) and wall seconds,
medians of the runs, which take turns with the floor: ``import jax`` and one trivial program.
Other work on the machine moves wall seconds most.
"""

from __future__ import annotations

import argparse
import csv
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

import numpy as np

FLOOR = "import jax; jax.jit(lambda x: x + 1)(1.0)"
FRAME = """
import numpy as np, jaxmix as jm
def frame(n, seed):
    rng = np.random.default_rng(seed)
    u = rng.random(n) < 0.5
    z, x = (np.where(rng.random(n) < 0.7, u, rng.integers(0, 3, n)) for _ in range(2))
    t = (rng.random(n) < 0.3 + 0.4 * u).astype(int)
    y = (rng.random(n) < 0.3 + 0.4 * u - 0.2 * t * u + 0.2 * t * ~u).astype(int)
    return jm.CausalData.from_frame(
        dict(t=t, y=y, z=z.astype(str), x=x.astype(str)), treatment="t", outcome="y", z=["z"],
        x=["x"],
    )
"""
SECOND = (
    FRAME
    + """
import resource, time
def spent():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
jm.fit(frame(5_000, 0), {options}).complete()
data, before, begun = frame(7_001, 1), spent(), time.perf_counter()
jm.fit(data, {options}).complete()
print(spent() - before, time.perf_counter() - begun)
"""
)
LATENT = """
import resource, time, jax, numpy as np, jaxmix as jm
def spent():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
rng = np.random.default_rng(0)
ill = rng.random(300) < 0.4
table = {{f"i{{j}}": (rng.random(300) < np.where(ill, 0.9, 0.1)).astype(int) for j in range(7)}}
jm.latent_classes, jax.devices()  # what is imported and started first is not timed
for items, k in {sizes}:
    before, begun = spent(), time.perf_counter()
    jm.latent_classes({{name: table[name] for name in list(table)[:items]}}, k)
print(spent() - before, time.perf_counter() - begun)
"""


class Line(NamedTuple):
    """One line of the table.

    Attributes
    ----------
    name
        What is done.
    arguments
        Of the Python that does it.
    cold, warm
        Processor seconds to reach.
    inside
        Whether the process itself prints its processor and wall seconds.
    """

    name: str
    arguments: tuple[str, ...]
    cold: float | None
    warm: float | None = None
    inside: bool = False


class Seconds(NamedTuple):
    """Seconds of a process."""

    cpu: float
    wall: float


def write_rows(path: pathlib.Path, n: int, k: int, d: int, seed: int = 0) -> None:
    """Write rows of k classes with d levels of each proxy."""
    rng = np.random.default_rng(seed)
    u = rng.integers(0, k, n)
    z, x = (np.where(rng.random(n) < 0.7, u % d, rng.integers(0, d, n)) for _ in range(2))
    t = (rng.random(n) < np.linspace(0.3, 0.7, k)[u]).astype(int)
    chance = np.linspace(0.2, 0.6, k)[u] + t * np.linspace(-0.15, 0.35, k)[u]
    y = (rng.random(n) < chance).astype(int)
    write(path, {"t": t, "y": y, "z": [f"z{v}" for v in z], "x": [f"x{v}" for v in x]})


def write_continuous(path: pathlib.Path, n: int, seed: int = 0) -> None:
    """Write rows with two continuous proxies on each side."""
    rng = np.random.default_rng(seed)
    u = (rng.random(n) < 0.5).astype(float)
    columns = {name: u + rng.normal(size=n) for name in ("z1", "z2", "x1", "x2")}
    t = (rng.random(n) < 0.3 + 0.4 * u).astype(int)
    write(path, {"t": t, "y": u + t * (1 - 2 * u) + rng.normal(size=n)} | columns)


def write(path: pathlib.Path, columns: dict[str, object]) -> None:
    """Write columns as a csv."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def lines(folder: pathlib.Path) -> list[Line]:
    """Return what is timed; its tables are written."""
    for name, k, d in (("two", 2, 3), ("three", 3, 6), ("four", 4, 8)):
        write_rows(folder / f"{name}.csv", 5_000, k, d)
    write_continuous(folder / "linear.csv", 5_000)

    def command(*arguments: str) -> tuple[str, ...]:
        return ("-m", "jaxmix", *arguments)

    def fit(name: str, *more: str, z: str = "z", x: str = "x") -> tuple[str, ...]:
        roles = ("--treatment", "t", "--outcome", "y", "--z", z, "--x", x)
        table = str(folder / f"{name}.csv")
        return command("fit", table, *roles, *more, "--json", str(folder / "out.json"))

    def second(options: str) -> tuple[str, ...]:
        return ("-c", SECOND.format(options=options))

    def latent(*sizes: tuple[int, int]) -> tuple[str, ...]:
        return ("-c", LATENT.format(sizes=list(sizes)))

    return [
        Line("jaxmix --help", command("--help"), 0.2),
        Line("jaxmix --version", command("--version"), 0.2),
        Line("fit, level 4, 3 x 3 levels", fit("two"), 2.5, 1.8),
        Line("fit, --classes 2, everything", fit("two", "--classes", "2"), 6, 3),
        Line("fit, --classes 3, 6 x 6 levels", fit("three", "--classes", "3"), 12, 6),
        Line("fit, --classes 4, 8 x 8 levels", fit("four", "--classes", "4"), 30, 20),
        Line(
            "fit, --classes 2, continuous",
            fit("linear", "--classes", "2", z="z1,z2", x="x1,x2"), 8, 4,
        ),
        Line("latent_classes, 7 items, k = 3", latent((7, 3)), 1, inside=True),
        Line("then k = 4", latent((7, 3), (7, 4)), 0.2, inside=True),
        Line("then 6 items", latent((7, 3), (7, 4), (6, 4)), 0.2, inside=True),
        Line("second table, level 4", second("level=4"), 0.3, inside=True),
        Line("second table, everything", second("num_classes=2"), 2, inside=True),
        Line("jaxmix demo lalonde", command("demo", "lalonde"), 10, 5),
    ]  # fmt: skip


def run(line: Line, cache: pathlib.Path) -> Seconds:
    """Run a line in a process of its own and return what it took."""
    environment = os.environ | {"JAXMIX_CACHE": str(cache), "XDG_CACHE_HOME": str(cache)}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, *line.arguments], env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (0, 1):  # 1: an estimate that failed, which is an answer
        raise RuntimeError(f"{line.name}: {done.stderr[-2000:]}")
    if line.inside:
        return Seconds(*map(float, done.stdout.split()[-2:]))
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return Seconds(cpu, wall)


def medians(taken: list[Seconds]) -> str:
    """Return processor and wall seconds in words."""
    cpu, wall = (statistics.median(part) for part in zip(*taken, strict=True))
    return f"{cpu:7.2f} {wall:7.2f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--only", nargs="*", default=[], help="parts of the names of lines")
    asked = parser.parse_args()
    print(f"{'':34} cold: cpu    wall   warm: cpu    wall   to reach, cpu", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        floor = Line("import jax, one program", ("-c", FLOOR), None)
        floors: list[Seconds] = []
        for line in lines(folder):
            if asked.only and not any(part in line.name for part in asked.only):
                continue
            cold, warm = [], []
            for index in range(asked.runs):
                cache = folder / f"cache {line.name} {index}".replace("/", "-")
                cache.mkdir(mode=0o700)
                floors.append(run(floor, cache))
                cold.append(run(line, cache))
                if line.warm is not None:
                    warm.append(run(line, cache))
            shown = medians(warm) if warm else " " * 15
            goal = " / ".join(f"{v:g}" for v in (line.cold, line.warm) if v is not None)
            print(f"{line.name:34} {medians(cold):>12}   {shown:>12}   {goal}", flush=True)
        print(f"{floor.name:34} {medians(floors):>12}")


if __name__ == "__main__":
    main()
