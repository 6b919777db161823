"""Lists that the contract tests cross, and the bridges from oracle to library."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmix as jm
from tests import oracles

SHARED_DATA = pathlib.Path(__file__).parents[2] / "shared" / "data"

# One line per estimator of an effect law: (moments, k) -> EffectLaw.
LAW_ESTIMATORS = {
    "synthetic-gauss": functools.partial(jm.synthetic.effect_law, quadrature="gauss"),
    "synthetic-pencil": functools.partial(jm.synthetic.effect_law, quadrature="pencil"),
    "synthetic-prony": functools.partial(jm.synthetic.effect_law, quadrature="prony"),
    "spectral": jm.spectral.effect_law,
    # To the last digit, so that differences of estimates are those of the optima.
    "factorization": functools.partial(
        jm.factorization.effect_law, key=jax.random.key(0), tolerance=1e-10
    ),
}

# kind, k, d_z, d_x: square and overcomplete, also more z than x and the reverse; one class too.
SIZES = [(2, 2, 2), (3, 3, 3), (4, 4, 4), (2, 4, 4), (3, 6, 5), (4, 5, 8), (1, 2, 2), (1, 4, 3)]
POPULATIONS = [(kind, *sizes) for kind in ("strong", "generic") for sizes in SIZES]


def population(kind: str, k: int, d_z: int, d_x: int, seed: int = 0) -> oracles.Population:
    """Return a random population that satisfies level 3, redrawn until it is well-conditioned."""
    rng = np.random.default_rng([seed, k, d_z, d_x])
    for _ in range(1000):
        drawn = (
            oracles.strong(rng, k, d_z, d_x)
            if kind == "strong"
            else oracles.generic(rng, k, d_z, d_x, min_gap=0.12)
        )
        blocks = drawn.joint().sum(-1)
        values = [np.linalg.svd(block, compute_uv=False) for block in blocks]
        if all(s[k - 1] > 3e-3 * s[0] for s in values):
            return drawn
    raise AssertionError(f"no well-conditioned {kind} population with k={k}")


def exact_moments(drawn: oracles.Population, dtype=np.float64) -> jm.moments.Moments:
    """Return the exact moments of an oracle population."""
    return jm.moments.of_population(
        jnp.asarray(drawn.joint(), dtype), jnp.asarray(drawn.outcome_values, dtype)
    )


def linear_rows(rng: np.random.Generator, n: int, d_z: int = 2, d_x: int = 2, num_w: int = 0):
    """Return rows in which linear bridges hold: hidden U (d_x of them) drive T, Y and all proxies.

    Y = 1 + 2 T + sum(U) + T U_0 + noise with variance that grows with U; ATE = 2.
    """
    w = rng.normal(size=(n, num_w))
    u = rng.normal(size=(n, d_x)) + w.sum(1, keepdims=True) * 0.3
    t = (rng.uniform(size=n) < 1 / (1 + np.exp(-0.8 * u[:, 0]))).astype(float)
    angles = np.arange(d_z)[:, None] - np.arange(d_x)  # loadings of full rank
    z = 1.5 * u @ np.cos(angles).T + rng.normal(size=(n, d_z)) + 0.3 * t[:, None]
    x = u + 0.5 * rng.normal(size=(n, d_x)) + 0.2 * w.sum(1, keepdims=True)
    noise = rng.normal(size=n) * np.exp(0.3 * np.abs(u[:, 0]))
    y = 1 + 2 * t + u.sum(1) + t * u[:, 0] + noise + 0.5 * w.sum(1)
    frame = {"t": t, "y": y}
    frame |= {f"z{j}": z[:, j] for j in range(d_z)} | {f"x{j}": x[:, j] for j in range(d_x)}
    frame |= {f"w{j}": w[:, j] for j in range(num_w)}
    return frame


def roles(frame: dict[str, np.ndarray]) -> dict:
    """Return the roles of a frame whose column names begin with their role."""
    return {
        "treatment": "t",
        "outcome": "y",
        "z": [name for name in frame if name.startswith("z")],
        "x": [name for name in frame if name.startswith("x")],
        "covariates": [name for name in frame if name.startswith("w")],
    }


def causal_data(frame: dict[str, np.ndarray], **more) -> jm.CausalData:
    return jm.CausalData.from_frame(frame, **(roles(frame) | more))


def block(frame: dict[str, np.ndarray], first: str) -> np.ndarray:
    """Return the columns whose names begin with a letter, side by side."""
    return np.stack([values for name, values in frame.items() if name.startswith(first)], axis=1)


def shared_data(name: str) -> pathlib.Path:
    """Return a public data file, or skip where the folder is absent."""
    path = SHARED_DATA / name
    if not path.is_file():
        pytest.skip(f"the public data file {name} is not on this machine")
    return path


def hidden_class_rows(n: int = 1200, seed: int = 11) -> dict[str, np.ndarray]:
    """Return rows with one hidden binary class behind proxies of all kinds; the ATE of y is 1.45.

    z1, z2, x1 are numbers, zb, xb two-valued, zc, xc texts; yb is a binary outcome, w a covariate.
    """
    r = np.random.default_rng(seed)
    u = (r.random(n) < 0.45).astype(int)
    z1, z2, x1 = (slope * u + r.normal(size=n) for slope in (1.5, -1.0, 1.2))
    zb, xb = ((r.random(n) < np.where(u, *p)).astype(int) for p in ((0.8, 0.25), (0.75, 0.2)))
    zc = np.array(["a", "b", "c"])[(r.random(n) * 1.5 + 1.4 * u).astype(int).clip(0, 2)]
    xc = np.array(["p", "q", "r"])[(r.random(n) * 1.7 + 1.2 * u).astype(int).clip(0, 2)]
    t = (r.random(n) < np.where(u, 0.7, 0.35)).astype(int)
    y = 2.0 * u + t * (1 + u) + 0.5 * r.normal(size=n)
    yb = (r.random(n) < 0.2 + 0.3 * u + 0.1 * t + 0.2 * u * t).astype(int)
    frame = {"t": t, "y": y, "yb": yb, "z1": z1, "z2": z2, "x1": x1, "zb": zb, "xb": xb}
    frame |= {"zc": zc, "xc": xc, "g": r.integers(0, 60, n), "w": r.uniform(0.5, 2.0, n)}
    return frame | {"v": r.normal(size=n), "mass": r.integers(1, 9, n) / 2}
