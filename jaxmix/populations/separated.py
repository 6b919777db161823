"""Designs with continuous proxies whose class means are apart."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmix import arguments
from jaxmix.populations.blocks import Numbers, check_shares, numbers, spread
from jaxmix.populations.bounds import scalar
from jaxmix.populations.continuous import ContinuousPopulation
from jaxmix.status import InputError

_MOST = 0.9 / 3**0.5  # slope that keeps a probability inside [0, 1] with a margin


def gaussian(
    *,
    num_classes: int = 2,
    d_z: int | None = None,
    d_x: int | None = None,
    proxy_strength: float = 1.5,
    shares: Numbers | None = None,
    effects: Numbers | None = None,
    base: Numbers | None = None,
    zt_strength: float = 0.5,
    noise: float = 1.0,
) -> ContinuousPopulation:
    """Return a design with Gaussian proxies and outcome, and a probit treatment.

    With ``c_u`` and ``f_u`` evenly spaced over the classes from 1 to -1 and from 1 to 1/2,

        Z | U=u, X | U=u   Gaussian, independent columns of standard deviation 1
        P(T=1 | Z, U=u)  = Phi(c_u / 2 + zt_strength f_u sum_j (Z_j - E[Z_j|u]) / sqrt(d_z))
        Y(t) | U=u         Gaussian, mean base_u -+ effects_u / 2 (- for the control)

    The first class has its proxy means at 0; class u > 0 is `proxy_strength` away from it in the
    columns j = u - 1, u - 1 + (k - 1), ..., so that the columns go round the classes.

    The truth is as declared; by default the shares are proportional to 1, 1.5, 2, ..., the effects
    evenly spaced from -1 to 1.5 and the bases from -0.5 to 0.5. With two classes the ATE is then
    0.5 and, at the other defaults, the difference in means 0.116 (bias -0.384).

    Level 2 holds at ``zt_strength = 0``, level 3 always. Identification fails at ``proxy_strength
    = 0``, and is weak near it; by linear features it needs at least k - 1 columns a side. Two
    classes of one effect are told apart by their bases.

    Parameters
    ----------
    num_classes
        Number of classes k.
    d_z, d_x
        Columns of Z and X, at least (and by default) k - 1, and 1.
    proxy_strength
        At least 0: distance of class means, in standard deviations within the class.
    shares
        k class shares, scaled to sum 1.
    effects, base
        k numbers each, in units of the outcome.
    zt_strength
        From 0 to 1: how much Z moves the treatment within a class.
    noise
        Standard deviation of the outcome within class and arm, above 0.

    Raises
    ------
    ValueError
        For a number outside its range, too few columns, or lists of the wrong length.

    Examples
    --------
    >>> population = gaussian()
    >>> round(float(population.ate), 6), round(float(population.naive), 3)
    (0.5, 0.116)
    """
    design = _design(
        num_classes, d_z, d_x, proxy_strength, shares, effects, base, zt_strength, noise
    )
    factor = jnp.linspace(1.0, 0.5, num_classes)[:, None]
    d = design.z_means.shape[1]
    slopes = zt_strength * factor * jnp.ones(d) / d**0.5
    intercepts = -spread(num_classes) / 2
    return dataclasses.replace(design, intercepts=intercepts, slopes=slopes)


def uniform(
    *,
    num_classes: int = 2,
    d_z: int | None = None,
    d_x: int | None = None,
    proxy_strength: float = 1.5,
    shares: Numbers | None = None,
    effects: Numbers | None = None,
    base: Numbers | None = None,
    zt_strength: float = 0.5,
    noise: float = 1.0,
) -> ContinuousPopulation:
    """Return a design with uniform proxies, a bounded uniform outcome and linear treatment.

    As `gaussian`, with uniform laws of the same means and standard deviations (support: the mean
    -+ sqrt(3) standard deviations) and

        P(T=1 | Z, U=u) = p_u + zt_strength 0.9 min(p_u, 1-p_u) f_u sum_j (Z_j - E[Z_j|u])
                                / (sqrt(3) d_z),     p_u = 0.5 + 0.2 c_u

    which stays inside [0, 1].

    The truth is as declared, with the defaults of `gaussian`: with two classes the ATE is 0.5 and
    the difference in means 0.075 (bias -0.425). Levels and failures are those of `gaussian`;
    beyond ``proxy_strength = 2 sqrt(3)`` the supports of the classes do not overlap, and the
    proxies tell the class of everyone.

    Parameters
    ----------
    num_classes, d_z, d_x, proxy_strength, shares, effects, base, zt_strength, noise
        As in `gaussian`.

    Raises
    ------
    ValueError
        As in `gaussian`.

    Examples
    --------
    >>> population = uniform()
    >>> round(float(population.ate), 6), round(float(population.naive), 3)
    (0.5, 0.075)
    >>> [round(float(v), 3) for v in population.range_y]
    [-2.732, 2.982]
    """
    design = _design(
        num_classes, d_z, d_x, proxy_strength, shares, effects, base, zt_strength, noise
    )
    intercepts = 0.5 + 0.2 * -spread(num_classes)
    d = design.z_means.shape[1]
    factor = jnp.linspace(1.0, 0.5, num_classes) * jnp.minimum(intercepts, 1 - intercepts)
    slopes = zt_strength * _MOST * factor[:, None] * jnp.ones(d) / d
    return dataclasses.replace(design, intercepts=intercepts, slopes=slopes, family="uniform")


def _design(
    k: int,
    d_z: int | None,
    d_x: int | None,
    proxy_strength: float,
    shares: Numbers | None,
    effects: Numbers | None,
    base: Numbers | None,
    zt_strength: float,
    noise: float,
) -> ContinuousPopulation:
    """Check the parameters and return what the two designs share: all but the treatment."""
    arguments.whole("num_classes", k, least=1)
    scalar("proxy_strength", proxy_strength, 0.0, float("inf"))
    scalar("zt_strength", zt_strength, 0.0, 1.0)
    traced = isinstance(noise, jax.core.Tracer)
    if not traced and not (arguments.as_number(noise) or 0) > 0:
        raise InputError(f"noise is {arguments.told(noise)}: use a number above 0")
    pi = numbers("shares", 1 + jnp.arange(k) / 2 if shares is None else shares, k)
    check_shares(pi)
    delta = numbers("effects", jnp.linspace(-1.0, 1.5, k) if effects is None else effects, k)
    middle = numbers("base", jnp.linspace(-0.5, 0.5, k) if base is None else base, k)
    z_means = _vertices(k, "d_z", d_z) * proxy_strength
    return ContinuousPopulation(
        shares=pi / pi.sum(),
        z_means=z_means,
        x_means=_vertices(k, "d_x", d_x) * proxy_strength,
        intercepts=jnp.zeros_like(pi),
        slopes=jnp.zeros_like(z_means),
        class_means=jnp.stack([middle - delta / 2, middle + delta / 2]),
        noise=jnp.asarray(noise, pi.dtype),
    )


def _vertices(k: int, name: str, d: int | None) -> Float[Array, "k d"]:
    """Return k points of which no one is a weighted average of the others."""
    least = max(k - 1, 1)
    if d is None:
        d = least
    if arguments.whole(name, d, least=1) < least:
        raise ValueError(
            f"{name} is {d}: with linear features {k} classes need at least {least} columns a side"
        )
    owner = jnp.arange(d) % least + 1
    return (owner == jnp.arange(k)[:, None]).astype(float)
