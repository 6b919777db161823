"""What this installation is, and whether it computes right: versions, devices, a product.

Commands ask for known troubles before they compute; JAX is loaded for what has to be computed.
"""

from __future__ import annotations

import os
import pathlib
import platform
from typing import NamedTuple

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
    return [*versions(), *devices(), cache(), canary("float64"), canary("float32")]


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
    import jax

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
    """Return where compiled programs are kept, or why they are not."""
    from jaxmix.solvers.cache import keep, open_to_others

    name, kept = "compiled programs", keep()
    if kept.folder is None:
        return Finding(name, "not kept", kept.trouble)
    if "://" in kept.folder:
        return Finding(name, kept.folder)
    path = pathlib.Path(kept.folder)
    try:
        sizes = [entry.stat().st_size for entry in path.iterdir() if entry.name.endswith("-cache")]
        is_open = open_to_others(path)
    except OSError as error:
        return Finding(name, str(path), f"the folder cannot be read ({error.strerror})")
    value = f"{path} ({len(sizes)} programs, {sum(sizes) / 2**20:,.1f} MiB)"
    if is_open:
        trouble = "others can write there, and so have programs run as you: chmod go-w it"
        return Finding(name, value, trouble)
    if not os.access(path, os.W_OK):
        return Finding(name, value, "it cannot be written to: each run compiles anew")
    return Finding(name, value)


def canary(dtype: str) -> Finding:
    """Compare a product that a build got wrong with numpy's; see `jaxmix.solvers.canary`.

    Parameters
    ----------
    dtype
        ``"float64"`` or ``"float32"``.

    Examples
    --------
    >>> canary("float64").trouble
    ''
    """
    from jaxmix.solvers import canary

    name = f"canary product, {dtype}"
    found = canary.errors(dtype)
    if found is None:
        return Finding(name, "right")
    return Finding(
        name,
        "WRONG",
        f"{found.wrong} of {found.rows:,} rows differ from numpy's, by up to {found.largest:.3g}: "
        "this build of jaxlib must not be used; install another version",
        True,
    )


def version_of(name: str) -> str | None:
    """Return the version of an installed package, or None."""
    import importlib.metadata  # which takes as long to load as all that help needs

    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
