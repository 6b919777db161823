"""Writes the records that `test_golden` compares with.

Run ``python -m tests.golden.make [NAME ...]`` from a commit whose numbers are right; the names of
fits select what is written again, and without any everything is.
"""

import json
import pathlib
import sys
import time

import jax

from tests.golden import cases, programs, studies

HERE = pathlib.Path(__file__).parent


def write(name: str, records: dict) -> None:
    """Write records, one file of them, one line each."""
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in sorted(records.items())]
    (HERE / name).write_text("{\n" + ",\n".join(lines) + "\n}\n")


def read(name: str) -> dict:
    """Return the records of a file; none where it does not exist yet."""
    path = HERE / name
    return json.loads(path.read_text()) if path.exists() else {}


def main(wanted: list[str]) -> None:
    """Write what was asked for."""
    jax.config.update("jax_enable_x64", True)
    fits = read("fits.json")
    for name in wanted or cases.CASES:
        began = time.perf_counter()
        fits[name] = cases.fitted(name)
        print(f"{name}: {fits[name]['status']}, {time.perf_counter() - began:.1f} s", flush=True)
        write("fits.json", fits)
    if not wanted:
        write("latent.json", {name: cases.latent(name) for name in cases.LATENT})
        write("programs.json", programs.counts())
        write("times.json", programs.times())
        studies.make()


if __name__ == "__main__":
    main(sys.argv[1:])
