"""Asymmetric designs whose proxies have a block of levels for each class."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxmix import arguments
from jaxmix.populations.bounds import check_range, is_concrete, scalar
from jaxmix.populations.discrete import DiscretePopulation

Numbers = list[float] | tuple[float, ...] | Array


def block(
    *,
    num_classes: int = 2,
    d_z: int | None = None,
    d_x: int | None = None,
    proxy_strength: float = 0.8,
    z_strength: float | None = None,
    x_strength: float | None = None,
    shares: Numbers | None = None,
    effects: Numbers | None = None,
    base: Numbers | None = None,
    zt_strength: float = 0.5,
    xy_strength: float = 0.0,
) -> DiscretePopulation:
    """Return a fixed design with block proxies, two arms and a binary outcome.

    Class u puts `proxy_strength` of its mass evenly on its own levels of Z and of X (level i
    belongs to class i mod k) and the rest evenly on the others. With ``c_u`` evenly spaced from
    -1 to 1 over the classes, and ``w_i`` the sum of ``c_(i mod k)`` and a number evenly spaced
    over the levels, scaled to at most 1 (so that levels differ between classes and within),

        P(T=1 | Z=z, U=u) = 0.55 - 0.25 c_u + 0.15 zt_strength (1 + 0.3 c_u) w_z
        P(Y(t)=1 | U=u)   = base_u -+ effects_u / 2, - for the control
        P(Y=1 | T=t, X=x, U=u) = P(Y(t)=1 | U=u) + xy_strength f_tu room_tu v_ux

    where ``room`` is 0.9 times the distance to the nearer of 0 and 1, ``v_ux`` is ``w_x`` centred
    within the class and scaled to at most 1, and ``f = 1`` in the first class, falling evenly to
    1/4 in the last, under control; the reverse in arm 1. X then moves the outcome without moving
    the class effects.

    The truth is as declared; by default the shares are proportional to 1, 1.5, 2, ..., the
    effects evenly spaced from -0.4 to 0.6 and the bases from 0.4 to 0.6. With two classes the
    ATE is then 0.2 and the difference in means 0.130 (bias -0.070) at ``zt_strength = 0.5``
    and ``d_z = 2``.

    Level 2 holds at ``zt_strength = xy_strength = 0``, level 3 at ``xy_strength = 0``, level 4
    always. Identification fails where the proxies say nothing of the class, at `proxy_strength`
    ``= 1/k`` with equal blocks (``1/2`` for two classes, two levels), and is weak near it. Two
    classes with one effect (a tie) are told apart at level 3 by their bases; with equal bases too,
    neither their shares nor their profiles are identified, the merged law is.

    Parameters
    ----------
    num_classes
        Number of classes k.
    d_z, d_x
        Levels of Z and X, at least k (the default).
    proxy_strength
        From 0 to 1: mass of a class on its own levels.
    z_strength, x_strength
        The same for one side alone.
    shares
        k class shares, scaled to sum 1.
    effects, base
        k numbers each, such that ``base -+ effects / 2`` is in [0, 1].
    zt_strength
        From 0 to 1: how much Z moves P(T=1) within a class.
    xy_strength
        From 0 to 1: how much X moves P(Y=1) within a class and arm.

    Raises
    ------
    ValueError
        For a number outside its range, or lists of the wrong length.

    Examples
    --------
    >>> population = block(num_classes=3, effects=[-0.2, 0.1, 0.1])
    >>> [round(float(e), 6) for e in population.law.effects], population.level
    ([-0.2, 0.1, 0.1], 3)
    >>> population = block()
    >>> round(float(population.ate), 6), round(float(population.naive), 3)
    (0.2, 0.13)
    """
    k = arguments.whole("num_classes", num_classes, least=1)
    zt_strength = scalar("zt_strength", zt_strength, 0.0, 1.0)
    xy_strength = scalar("xy_strength", xy_strength, 0.0, 1.0)
    proxy_strength = scalar("proxy_strength", proxy_strength, 0.0, 1.0)
    if z_strength is not None:
        z_strength = scalar("z_strength", z_strength, 0.0, 1.0)
    if x_strength is not None:
        x_strength = scalar("x_strength", x_strength, 0.0, 1.0)
    z = _profiles(k, "d_z", d_z, proxy_strength if z_strength is None else z_strength)
    x = _profiles(k, "d_x", d_x, proxy_strength if x_strength is None else x_strength)
    position = spread(k)
    pi = numbers("shares", 1 + jnp.arange(k) / 2 if shares is None else shares, k)
    check_shares(pi)
    delta = numbers("effects", jnp.linspace(-0.4, 0.6, k) if effects is None else effects, k)
    middle = numbers("base", jnp.linspace(0.4, 0.6, k) if base is None else base, k)
    check_range("base - effects / 2", middle - delta / 2, 0.0, 1.0)
    check_range("base + effects / 2", middle + delta / 2, 0.0, 1.0)

    within = (1 + 0.3 * position[:, None]) * _heights(k, z.shape[1])
    treated = 0.55 - 0.25 * position[:, None] + 0.15 * zt_strength * within
    mean = jnp.stack([middle - delta / 2, middle + delta / 2], axis=1)  # (u, t)
    heights = _heights(k, x.shape[1])
    centred = heights - (x @ heights)[:, None]
    largest = jnp.abs(centred).max(1, keepdims=True)
    centred = centred / jnp.where(largest > 0, largest, 1.0)
    factor = jnp.linspace(1.0, 0.25, k)
    room = 0.9 * jnp.minimum(mean, 1 - mean) * jnp.stack([factor, factor[::-1]], axis=1)
    success = mean[:, :, None] + xy_strength * room[:, :, None] * centred[:, None, :]
    return DiscretePopulation(
        shares=pi / pi.sum(),
        zt=jnp.stack([1 - treated, treated], axis=1) * z[:, None, :],
        x=x,
        y=jnp.stack([1 - success, success], axis=-1),
        outcome_values=jnp.arange(2.0),
    )


def level4_testable(xy_strength: float = 0.5, *, zt_strength: float = 0.5) -> DiscretePopulation:
    """Return a population of level 4 whose X-to-Y edge a level-3 fit can see.

    `block` with two classes, three levels of Z and of X and ``proxy_strength = 0.75``. Unlike in
    the paper's symmetric binary design, the edge lies outside the level-3 model: G2 of the
    level-3 fit to the exact cells of n = 1e4 rows, 16 degrees of freedom, and its effects are, at
    ``zt_strength = 0.5``,

    ==============  =====  =====  =====  =====
    xy_strength     0      0.25   0.5    1
    ==============  =====  =====  =====  =====
    G2              0      9.0    36.7   154.0
    lower effect    -.400  -.377  -.357  -.315
    higher effect   .600   .596   .592   .590
    ==============  =====  =====  =====  =====

    The truth: effects -0.4 and 0.6 with shares 0.4 and 0.6, ATE 0.2, whatever the strengths; the
    difference in means is 0.115 (bias -0.085) at the defaults. Level 4 holds, level 3 only at
    ``xy_strength = 0``; above it the class law is not identified, and a level-3 fit's is biased.
    The ATE is identified by the bridge.

    Parameters
    ----------
    xy_strength
        From 0 to 1: how much X moves P(Y=1) within a class and arm.
    zt_strength
        From 0 to 1: how much Z moves P(T=1) within a class.

    Examples
    --------
    >>> population = level4_testable()
    >>> population.level, round(float(population.ate), 6)
    (4, 0.2)
    """
    return block(
        d_z=3, d_x=3, proxy_strength=0.75, zt_strength=zt_strength, xy_strength=xy_strength
    )


def own_levels(num_classes: int, d: int) -> np.ndarray:
    """Return ``(k, d)``, whether a level belongs to a class: level i to class i mod k."""
    found: np.ndarray = np.arange(d) % num_classes == np.arange(num_classes)[:, None]
    return found


def block_profiles(num_classes: int, d: int, strength: float | Array) -> Float[Array, "k d"]:
    """Return profiles with `strength` of the mass evenly on a class's own levels."""
    own = own_levels(num_classes, d)
    size = own.sum(1, keepdims=True)
    rest = d - size
    # A class that owns every level, or none, has its whole mass on what there is.
    inside = jnp.where(rest == 0, 1.0, jnp.where(size == 0, 0.0, strength))
    mass = jnp.where(own, inside / np.maximum(size, 1), (1 - inside) / np.maximum(rest, 1))
    return jnp.asarray(mass, jnp.zeros(()).dtype)


def numbers(name: str, values: object, length: int) -> Float[Array, " k"]:
    """Return k numbers as an array in the precision of the values or the default one."""
    # A list may hold numbers that JAX traces; what numpy cannot take is left to it then.
    if not isinstance(values, jax.Array | list | tuple) or is_concrete(values):
        values = values if isinstance(values, jax.Array) else _listed(name, values)
    array = jnp.asarray(values)
    if not jnp.issubdtype(array.dtype, jnp.inexact):
        array = array.astype(float)
    if array.shape != (length,):
        found = f"{len(array)} numbers" if array.ndim == 1 else f"an array of shape {array.shape}"
        raise ValueError(f"{name} has {found}: give one for each of the {length} classes")
    return array


def _listed(name: str, values: object) -> object:
    found = arguments.array(name, values, "give a list of numbers")
    # A plain array keeps its precision.
    return values if isinstance(values, np.ndarray) and values.dtype.kind in "biuf" else found


def check_shares(shares: Float[Array, " k"]) -> None:
    """Raise ValueError for shares that are negative or all zero."""
    if is_concrete(shares):
        known = np.asarray(shares)
        if not ((known >= 0).all() and known.sum() > 0):
            raise ValueError(f"shares are {known.tolist()}: use numbers from 0, not all of them 0")


def _profiles(k: int, name: str, d: int | None, strength: float) -> Float[Array, "k d"]:
    if d is not None and arguments.whole(name, d, least=1) < k:
        raise ValueError(f"{name} is {d}: use at least {k}, a level for each class")
    return block_profiles(k, k if d is None else d, strength)


def spread(size: int) -> Float[Array, " size"]:
    """Return numbers evenly spaced from -1 to 1; 0 alone where there is one."""
    return jnp.linspace(-1.0, 1.0, size) if size > 1 else jnp.zeros(1)


def _heights(k: int, d: int) -> Float[Array, " d"]:
    height = spread(k)[jnp.arange(d) % k] + spread(d)
    largest = jnp.abs(height).max()
    return height / jnp.where(largest > 0, largest, 1.0)
