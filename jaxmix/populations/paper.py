"""The designs of Mazaheri, Squires, Uhler (2025): binary proxies, two classes."""

from __future__ import annotations

import itertools

import jax.numpy as jnp

from jaxmix import arguments
from jaxmix.populations.bounds import check_range, scalar
from jaxmix.populations.discrete import DiscretePopulation


def paper_main(zt_strength: float = 0.0, xy_strength: float = 0.0) -> DiscretePopulation:
    """Return the main design: two classes of equal size, binary Z, X, T, Y.

    With a and b the two strengths, in the order (Z,U), (X,U) = (0,0), (0,1), (1,0), (1,1),

        P(Z=1|U) = P(X=1|U) = 1/4, 3/4
        P(T=1|Z,U)    = 3/4, 1/4 + a/2,    3/4 - a/2,    1/4
        P(Y(0)=1|X,U) = 7/8, (1 + 6b)/8,   (7 - 6b)/8,   1/8

    and ``P(Y(1)=1|X,U)`` one minus the latter: at strength 0 Z does not cause T and X does not
    cause Y.

    The truth: effects ``-+(3/4 - 3b/8)``, that is -3/4 and 3/4 at ``b = 0``; the ATE is 0 and so,
    by symmetry, is the difference in means: its bias is 0. The ATT is -3/8 at ``a = b = 0``.

    Level 2 holds at ``a = b = 0``, level 3 at ``b = 0``, level 4 always. The class law is not
    identified at ``b > 0``: that alternative lies inside the level-3 model, so that no test can
    see it. The rank conditions hold at every strength.

    Parameters
    ----------
    zt_strength
        From 0 to 1: how much Z moves P(T=1) beyond what the class does.
    xy_strength
        From 0 to 1: how much X moves P(Y=1).

    Raises
    ------
    ValueError
        For a strength outside [0, 1].

    References
    ----------
    Mazaheri, Squires, Uhler (2025), arXiv 2405.19225.

    Examples
    --------
    >>> [float(e) for e in paper_main().law.effects]
    [-0.75, 0.75]
    """
    zt_strength = scalar("zt_strength", zt_strength, 0.0, 1.0)
    xy_strength = scalar("xy_strength", xy_strength, 0.0, 1.0)
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

    Shares 1/2, and with the proxies numbered i = 0, 1, ..., Z first,

        P(T=1|U)     = 3/4, 1/4
        P(Y=1|T,U)   = 1/4 + matching 1{U=T} + treatment T + subgroup U
        P(W_i=1|U)   = bias_i + 0.3 U (i even), bias_i + 0.3 (1-U) (i odd)

    with the biases evenly spaced from 0.2 to 0.6.

    The truth: effects ``treatment -+ matching`` (0 and 1/2 by default), ATE ``treatment`` (1/4).
    The difference in means is ``treatment - subgroup/2``: unbiased by default, since without
    `subgroup` the classes differ in the sign of what T does, not in E[Y(0)] + E[Y(1)].

    Levels 2, 3 and 4 hold. Identification does not fail at the defaults; with ``matching = 0``
    the two classes have one effect, and without `subgroup` besides one outcome law: the classes
    cannot then be told apart at level 3.

    Parameters
    ----------
    matching, treatment, subgroup
        The three terms of the outcome's probability.
    num_z, num_x
        Number of binary proxies in each view; their joint codings have ``2**num`` cells.

    Raises
    ------
    ValueError
        For terms that move a probability of the outcome outside [0, 1], or a view without
        proxies.

    References
    ----------
    Mazaheri, Squires, Uhler (2025), arXiv 2405.19225, appendix.

    Examples
    --------
    >>> [float(e) for e in paper_appendix().law.effects]
    [0.0, 0.5]
    """
    for name, number in (("num_z", num_z), ("num_x", num_x)):
        arguments.whole(name, number, least=1, remedy="use at least 1")
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
    check_range("P(Y=1|T,U) = 1/4 + matching 1{U=T} + treatment T + subgroup U", outcome, 0.0, 1.0)
    x = cells(success[num_z:])
    y = jnp.stack([1 - outcome, outcome], axis=-1)[:, :, None, :]
    return DiscretePopulation(
        shares=jnp.full(2, 0.5),
        zt=arm[:, :, None] * cells(success[:num_z])[:, None, :],
        x=x,
        y=jnp.broadcast_to(y, (2, 2, x.shape[1], 2)),
        outcome_values=jnp.arange(2.0),
    )
