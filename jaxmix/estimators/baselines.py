"""What others would do: estimates that ignore hidden confounding, for contrast."""

from __future__ import annotations

from jaxtyping import Array, Float

from jaxmix.moments import Moments


def difference_in_means(moments: Moments, *, arm: int = 1) -> Float[Array, ""]:
    """Return ``E[Y | T=arm] - E[Y | T=0]``, the effect if treatment were randomized.

    Examples
    --------
    >>> import jax.numpy as jnp, jaxmix as jm
    >>> cells = jnp.array([[[[3.0, 1.0]]], [[[1.0, 3.0]]]])
    >>> float(difference_in_means(jm.moments.from_counts(cells)))
    0.5
    """
    means = moments.y_by_arm / moments.arm_probabilities
    return means[arm] - means[0]
