"""The designs of Mazaheri, Squires, Uhler (2025): binary proxies, two classes."""

from __future__ import annotations

import itertools

import jax.numpy as jnp

from jaxmix.populations.discrete import DiscretePopulation


def paper_main(zt_strength: float = 0.0, xy_strength: float = 0.0) -> DiscretePopulation:
    """Return the main design: two classes of equal size, binary Z, X, T, Y.

    ``P(Z=1|U) = P(X=1|U) = 1/4, 3/4``. At strength 0 Z does not cause T and X does not cause Y,
    and the effects are -3/4 and 3/4; the ATE is 0 and so, by symmetry, is the naive difference;
    the ATT is -3/8. Level 2 holds at ``zt_strength = xy_strength = 0``, level 3 at ``xy_strength
    = 0``, level 4 always; the alternative ``xy_strength > 0`` lies inside the level-3 model, so
    that no test can see it.

    Parameters
    ----------
    zt_strength
        From 0 to 1: how much Z moves P(T=1) beyond what the class does.
    xy_strength
        From 0 to 1: how much X moves P(Y=1).

    Examples
    --------
    >>> [float(e) for e in paper_main().law.effects]
    [-0.75, 0.75]
    """
    proxy = jnp.array([[0.75, 0.25], [0.25, 0.75]])  # (u, level)
    half = zt_strength / 2
    treated = jnp.array([[0.75, 0.25 + half], [0.75 - half, 0.25]]).T  # (u, z)
    b = xy_strength
    success = jnp.array([[7 / 8, (1 + 6 * b) / 8], [(7 - 6 * b) / 8, 1 / 8]]).T  # Y(0): (u, x)
    by_arm = jnp.stack([success, 1 - success], axis=1)  # (u, t, x)
    return DiscretePopulation(
        shares=jnp.full(2, 0.5),
        zt=jnp.stack([1 - treated, treated], axis=1) * proxy[:, None, :],
        x=proxy,
        y=jnp.stack([1 - by_arm, by_arm], axis=-1),
        outcome_values=jnp.arange(2.0),
    )


def paper_appendix(
    *,
    matching: float = 0.25,
    treatment: float = 0.25,
    subgroup: float = 0.0,
    num_z: int = 2,
    num_x: int = 2,
) -> DiscretePopulation:
    """Return the appendix design: several binary proxies, coded jointly one-hot.

    Shares 1/2; ``P(T=1|U) = 3/4, 1/4``; ``P(Y=1|T,U) = 1/4 + matching 1{U=T} + treatment T +
    subgroup U``; each proxy i (Z first) has ``P = bias_i + 0.3 U`` for even and ``bias_i + 0.3
    (1-U)`` for odd i, the biases evenly spaced from 0.2 to 0.6. With the defaults the effects are
    0 and 1/2 and the ATE is 1/4; levels 2, 3 and 4 hold.

    Parameters
    ----------
    matching, treatment, subgroup
        The three terms of the outcome's probability.
    num_z, num_x
        Number of binary proxies in each view; their joint codings have ``2**num`` cells.

    Examples
    --------
    >>> [float(e) for e in paper_appendix().law.effects]
    [0.0, 0.5]
    """
    count = num_z + num_x
    u = jnp.arange(2.0)
    success = jnp.stack(
        [
            bias + 0.3 * (u if i % 2 == 0 else 1 - u)
            for i, bias in enumerate(jnp.linspace(0.2, 0.6, count))
        ]
    )

    def cells(of: jnp.ndarray) -> jnp.ndarray:
        """Return P(joint cell | u), the last proxy running fastest."""
        levels = jnp.stack([1 - of, of], axis=-1)  # (proxy, u, level)
        return jnp.stack(
            [
                jnp.prod(jnp.stack([levels[i, :, b] for i, b in enumerate(bits)]), axis=0)
                for bits in itertools.product((0, 1), repeat=len(of))
            ],
            axis=-1,
        )

    treated = jnp.array([0.75, 0.25])
    arm = jnp.stack([1 - treated, treated], axis=1)  # (u, t)
    t = jnp.arange(2.0)
    outcome = 0.25 + matching * (u[:, None] == t) + treatment * t + subgroup * u[:, None]
    x = cells(success[num_z:])
    y = jnp.stack([1 - outcome, outcome], axis=-1)[:, :, None, :]
    return DiscretePopulation(
        shares=jnp.full(2, 0.5),
        zt=arm[:, :, None] * cells(success[:num_z])[:, None, :],
        x=x,
        y=jnp.broadcast_to(y, (2, 2, x.shape[1], 2)),
        outcome_values=jnp.arange(2.0),
    )
