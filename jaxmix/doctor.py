"""What this installation is, and whether it computes right: versions, devices, a product."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import platform
import stat
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmix.solvers.compiling import compiled

_NEEDED = ("jaxmix", "jax", "jaxlib", "optax", "numpy", "jaxtyping")
_EXTRAS = {
    "io": ("pyarrow",), "plot": ("matplotlib",), "cli": ("typer", "rich"),
    "graph": ("networkx", "pydot"), "demo": ("causaldata", "pandas"),
}  # fmt: skip

BAD_BUILDS = {
    "0.10.2": (
        "jaxlib 0.10.2 computes wrong numbers on CPU, silently (jax-ml/jax issue 39103); "
        "pip install 'jax!=0.10.2' 'jaxlib!=0.10.2'"
    ),
}
"""Versions of jaxlib that must not be used, and what is wrong with each."""

SLOW_BUILDS = {
    "0.11.1": "jaxlib 0.11.1 copies a whole buffer for each update in loops on CPU: it is slow",
}
"""Versions of jaxlib that are right and much slower than others."""

CANARY_ROWS = {"float64": 16_384, "float32": 32_768}
"""Rows beyond which a build was found wrong, by type."""


class Finding(NamedTuple):
    """One line of the report.

    Attributes
    ----------
    name, value
        What was looked at, and what was found.
    trouble
        What is wrong with it and what to do; empty where nothing is.
    grave
        Whether numbers cannot be trusted because of it.
    """

    name: str
    value: str
    trouble: str = ""
    grave: bool = False


def known_trouble() -> str:
    """Return what is wrong with the jaxlib that is installed; empty where nothing is known."""
    return BAD_BUILDS.get(version_of("jaxlib") or "", "")


def examine() -> list[Finding]:
    """Return what there is to know, in the order in which it is shown."""
    return [*versions(), *devices(), cache(), *(canary(dtype) for dtype in CANARY_ROWS)]


def versions() -> list[Finding]:
    """Return the versions of Python and of the packages used, and known troubles of them."""
    found = [Finding("Python", f"{platform.python_version()} on {platform.platform()}")]
    for name in _NEEDED:
        version = version_of(name) or "missing"
        trouble, grave = "", False
        if name == "jaxlib":
            trouble = BAD_BUILDS.get(version, "")
            grave = bool(trouble)
            trouble = trouble or SLOW_BUILDS.get(version, "")
        found.append(Finding(name, version, trouble, grave))
    for extra, names in _EXTRAS.items():
        for name in names:
            absent = f"not installed (pip install 'jaxmix[{extra}]')"
            found.append(Finding(name, version_of(name) or absent))
    return found


def devices() -> list[Finding]:
    """Return the devices that JAX computes on."""
    try:
        every = jax.devices()
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        return [Finding("devices", "none", f"JAX finds no device: {reason}", True)]
    kinds = [f"{device.platform} ({device.device_kind})" for device in every]
    counted = ", ".join(f"{kinds.count(kind)} x {kind}" for kind in dict.fromkeys(kinds))
    return [
        Finding("devices", counted),
        Finding("cores", str(os.cpu_count())),
        Finding("XLA_FLAGS", os.environ.get("XLA_FLAGS") or "none"),
    ]


def cache() -> Finding:
    """Return where compiled programs are kept, and whether others could change them."""
    name, folder = "compiled programs", getattr(jax.config, "jax_compilation_cache_dir", None)
    if not folder:
        return Finding(name, "not kept", "no folder for them can be made: each run compiles anew")
    if "://" in str(folder):
        return Finding(name, str(folder))
    path = pathlib.Path(folder)
    try:
        files = [entry.stat().st_size for entry in path.iterdir() if entry.is_file()]
        mode = path.stat().st_mode
    except OSError as error:
        return Finding(name, str(path), f"the folder cannot be read ({error.strerror})")
    value = f"{path} ({len(files)} files, {sum(files) / 2**20:,.1f} MiB)"
    if os.name == "posix" and mode & (stat.S_IWGRP | stat.S_IWOTH) and not mode & stat.S_ISVTX:
        return Finding(
            name, value, "others can write there, and so have programs run as you: chmod go-w it"
        )
    if not os.access(path, os.W_OK):
        return Finding(name, value, "it cannot be written to: each run compiles anew")
    return Finding(name, value)


def canary(dtype: str) -> Finding:
    """Compare a product that a build got wrong with numpy's.

    ``sum((M r)^2)`` of each row r, compiled under ``vmap``, on more rows than a block of that
    build holds. Whole numbers throughout, so that nothing but an error makes a difference.

    Parameters
    ----------
    dtype
        ``"float64"`` or ``"float32"``.

    Examples
    --------
    >>> canary("float64").trouble
    ''
    """
    wrong = {}
    with jax.enable_x64(True):
        for rows in (CANARY_ROWS[dtype] + 1, 2 * CANARY_ROWS[dtype] + 3):
            matrix, given = canary_table(rows, dtype)
            exact = ((given @ matrix.T) ** 2).sum(1)
            error = np.abs(np.asarray(product(jnp.asarray(matrix), jnp.asarray(given))) - exact)
            if error.max() > 0:
                wrong[rows] = (int((error > 0).sum()), float(error.max()))
    name = f"canary product, {dtype}"
    if not wrong:
        return Finding(name, "right")
    rows, (count, largest) = next(iter(wrong.items()))
    return Finding(
        name,
        "WRONG",
        f"{count} of {rows:,} rows differ from numpy's, by up to {largest:.3g}: this build of "
        "jaxlib must not be used; install another version",
        True,
    )


def canary_table(rows: int, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a matrix and rows of whole numbers, all of whose sums are exact in `dtype`."""
    matrix = np.array([[1, 0, 0], [0, 1, 1], [0, 2, 1]], dtype)
    i = np.arange(rows) % 1021
    return matrix, np.stack([i, i % 7, i % 3], 1).astype(dtype)


@compiled()
def product(matrix: jax.Array, rows: jax.Array) -> jax.Array:
    """Return the squared length of ``matrix @ row`` for each row."""
    return jax.vmap(
        lambda row: jnp.sum(jnp.matmul(matrix, row, precision="highest") ** 2)
    )(rows)  # fmt: skip


def version_of(name: str) -> str | None:
    """Return the version of an installed package, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
