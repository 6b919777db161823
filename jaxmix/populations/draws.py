"""Random populations, drawn by a key."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmix import arguments
from jaxmix.populations.blocks import block_profiles, spread
from jaxmix.populations.bounds import is_concrete, scalar
from jaxmix.populations.discrete import DiscretePopulation
from jaxmix.status import InputError

FAMILIES = ("strong", "generic")

_JITTER = 0.05  # of the effects of strong populations
_REACH = 0.75  # their extremes before the jitter


def random_discrete(
    key: Array,
    *,
    family: str = "strong",
    num_classes: int = 2,
    d_z: int = 2,
    d_x: int = 2,
    num_arms: int = 2,
    min_gap: float = 0.0,
) -> DiscretePopulation:
    """Draw a population of level 3 with a binary outcome.

    - ``strong``: each class puts 0.8 of its mass evenly on its own levels of Z and of X (level i
      belongs to class i mod k) and 0.2 evenly on the rest; P(T=1|Z,U) is uniform on [.15, .85];
      effects are evenly spread over [-.75, .75] with a jitter of ±.05, and P(Y(0)=1), P(Y(1)=1)
      are 1/2 -+ effect/2; shares are Dirichlet(20).
    - ``generic``: P(Z,T|U) and P(X|U) are Dirichlet(1), P(Y=1|T,U) is uniform on [0, 1], shares
      are Dirichlet(5).

    More arms: generic populations extend as they stand. In strong ones P(T=.|Z,U) is 0.3/a plus
    0.7 times a Dirichlet(1) law, which for two arms is the above; and P(Y(t)=1) is ``1/2 +
    s_t/2`` with a spread s_t jittered anew for each arm, so that the effect of arm t > 1 against
    the control, ``(effect of arm 1 + s_t)/2``, is spread over [-.75, .75] likewise.

    The truth is in `law` and `ate`; the difference in means is biased by whatever confounding was
    drawn (`naive` minus `ate`). Level 3 holds always, level 2 almost never. Identification fails
    where ``min(d_z, d_x) < k``; generic populations can come arbitrarily near such a failure, with
    two classes of nearly one proxy profile.

    Parameters
    ----------
    key
        JAX key.
    family
        ``"strong"`` or ``"generic"``.
    num_classes, d_z, d_x, num_arms
        Sizes.
    min_gap
        Redraw until the effects of arm 1 are this far apart.

    Raises
    ------
    ValueError
        For a family there is not, or a gap that would take for ever to draw: beyond ``1/(k-1)``
        for generic populations, ``1.5/(k-1) - 0.05`` for strong ones.

    Examples
    --------
    >>> import jax, jaxmix as jm
    >>> draw = lambda key: jm.populations.random_discrete(key, family="generic", min_gap=0.12)
    >>> populations = jax.vmap(draw)(jax.random.split(jax.random.key(0), 5))
    >>> populations.zt.shape
    (5, 2, 2, 2)
    """
    k, a = num_classes, num_arms
    if not isinstance(family, str) or family not in FAMILIES:
        raise InputError(f"family is {arguments.told(family)}: use {' or '.join(FAMILIES)}")
    arguments.key(key)
    arguments.whole("num_arms", a, least=2, remedy="use at least 2")
    for name, size in (("num_classes", k), ("d_z", d_z), ("d_x", d_x)):
        arguments.whole(name, size, least=1)
    if k > 1:
        most = 1 / (k - 1) if family == "generic" else max(2 * _REACH / (k - 1) - _JITTER, 0.0)
        scalar("min_gap", min_gap, 0.0, most)
    keys = [jax.random.fold_in(key, i) for i in range(5)]
    even = _REACH * spread(k)

    def success(attempt: Array) -> Float[Array, "k a"]:
        """Return P(Y=1 | T, U) of one attempt."""
        own = jax.random.fold_in(keys[3], attempt)
        if family == "generic":
            return jax.random.uniform(own, (k, a))
        jitter = jax.random.uniform(own, (k, a - 1), minval=-_JITTER, maxval=_JITTER)
        moved = even[:, None] + jitter
        return 0.5 + jnp.concatenate([-moved[:, :1], moved], axis=1) / 2

    def too_close(attempt: Array) -> Array:
        p = success(attempt)
        gaps = jnp.diff(jnp.sort(p[:, 1] - p[:, 0]))
        return jnp.any(gaps < min_gap)

    # The gap concerns the outcome alone, which is independent of all else: only that is redrawn.
    found = jnp.int32(0)
    if k > 1 and not (is_concrete(min_gap) and min_gap == 0):
        found = jax.lax.while_loop(too_close, lambda attempt: attempt + 1, found)
    p = success(found)
    if family == "generic":
        shares = jax.random.dirichlet(keys[0], jnp.full(k, 5.0))
        zt = jax.random.dirichlet(keys[1], jnp.ones(a * d_z), (k,)).reshape(k, a, d_z)
        x = jax.random.dirichlet(keys[2], jnp.ones(d_x), (k,))
    else:
        shares = jax.random.dirichlet(keys[0], jnp.full(k, 20.0))
        arms = 0.3 / a + 0.7 * jax.random.dirichlet(keys[1], jnp.ones(a), (k, d_z))
        zt = jnp.moveaxis(arms, 2, 1) * block_profiles(k, d_z, 0.8)[:, None, :]
        x = block_profiles(k, d_x, 0.8)
    y = jnp.stack([1 - p, p], axis=-1)[:, :, None, :]
    return DiscretePopulation(
        shares=shares,
        zt=zt,
        x=x,
        y=jnp.broadcast_to(y, (k, a, d_x, 2)),
        outcome_values=jnp.arange(2.0),
    )
