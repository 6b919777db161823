"""The numbers that a fitted table gives of effects: values, ranges, variances, design effects."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from jaxmix.estimators.base import Numbers, Start
from jaxmix.model.optimum import mixture_of, table_of
from jaxmix.model.structure import LEVEL, Factors, Structure
from jaxmix.model.table import Table
from jaxmix.sample.moments import Moments
from jaxmix.solvers.compiling import compiled


@dataclasses.dataclass(frozen=True)
class Model:
    """What is fitted, and how many classes; hashable."""

    num_classes: int
    level: int
    num_arms: int
    estimand: str

    @property
    def structure(self) -> Structure:
        """Who depends on whom."""
        return LEVEL[self.level]


def limits_of(model: Model, range_y: Float[Array, " 2"]) -> Float[Array, "m 2"]:
    """Return how small and how large each number could be."""
    a, k = model.num_arms, model.num_classes
    width = range_y[1] - range_y[0]
    difference = jnp.stack([-width, width])
    share = jnp.array([0.0, 1.0], width.dtype)
    variance = jnp.stack([jnp.zeros_like(width), width**2])
    each = [difference, *[range_y] * a, *[share] * k, *[difference] * k]
    return jnp.stack([*each, *[share] * max(k - 3, 0), variance])


def numbers_of(factors: Factors, value_y: Array, order: Array, model: Model) -> Float[Array, " m"]:
    """Return the numbers that have intervals, whatever the scales of the factors."""
    structure = model.structure
    mixture = mixture_of(structure, structure.normalise(factors), value_y).take(order)
    shares, effects = mixture.shares, mixture.effects()
    if model.estimand == "ATT":
        assert mixture.z_profiles is not None
        shares = mixture.treated_shares(jnp.ones(mixture.z_profiles.shape[1], value_y.dtype))
    if model.num_classes == 1:  # has everybody, whatever rounding leaves of its share
        shares = jnp.ones_like(shares)
    mean = shares @ effects
    inner = jnp.cumsum(shares)[1 : max(len(shares) - 2, 1)]
    variance = shares @ (effects - mean) ** 2
    parts = [mean[None], mixture.means @ shares, shares, effects, inner, variance[None]]
    return jnp.concatenate(parts)


def variances_of(
    data: Table, factors: Factors, value_y: Array, order: Array, model: Model
) -> Float[Array, " m"]:
    """Return the variances by Fisher's information, with probabilities at 0 held there.

    They set the scale of the search and nothing else, so that directions in which the likelihood
    is flat may be left out.
    """
    vector, unravel = ravel_pytree(factors)
    p = data.structure.cells(factors).reshape(-1)
    free = vector > 0
    slope = jax.jacfwd(lambda v: data.structure.cells(unravel(v)).reshape(-1))(vector)
    root = jnp.where(p > 0, jnp.where(p > 0, p / data.counts.sum(), 1.0) ** -0.5, 0.0)
    slope = jnp.where(free, slope * root[:, None], 0.0)
    size = jnp.linalg.norm(slope, axis=0)
    size = jnp.where(size > 0, size, 1.0)
    values, vectors = jnp.linalg.eigh((slope / size).T @ (slope / size))
    kept = values > jnp.sqrt(jnp.finfo(p.dtype).eps)
    own = jax.jacrev(lambda v: numbers_of(unravel(v), value_y, order, model))(vector)
    along = (jnp.where(free, own, 0.0) / size) @ vectors
    return jnp.sum(jnp.where(kept, along**2 / jnp.where(kept, values, 1.0), 0.0), axis=1)


@compiled("k", "level", "estimand")
def design_effects(
    moments: Moments,
    k: int,
    start: Start,
    errors: Numbers[np.ndarray],
    *,
    level: int = 3,
    estimand: str = "ATE",
) -> Float[Array, " m"]:
    """Return by how much each number's variance exceeds that of a random sample of as many rows.

    The ratio of a variance that knows the design (weights, clusters) to that by Fisher's
    information, both with probabilities at 0 held there. A likelihood ratio of the weighted table
    divided by it is chi-square again, to first order. A number without a variance of its own,
    such as a share at its bound, takes the largest ratio of the others.

    Parameters
    ----------
    moments, k, start, level, estimand
        As in `jaxmix.inference.profile.intervals`.
    errors
        Standard errors under the design.

    Returns
    -------
    array
        In the order of `numbers_of`.

    References
    ----------
    Rao, Scott (1984), "On chi-squared tests for multiway contingency tables with cell
    proportions estimated from survey data", Annals of Statistics 12; Pauli, Racugno, Ventura
    (2011), "Bayesian composite marginal likelihoods", Statistica Sinica 21, on one number.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, jaxmix as jm
    >>> counts = jm.populations.paper_main(zt_strength=0.5).counts(jax.random.key(0), 10_000)
    >>> moments = jm.moments.from_counts(counts)
    >>> sol = jm.factorization.solve(moments, 2, key=jax.random.key(1))
    >>> two, one = jnp.full(2, 0.02), jnp.array([0.02])
    >>> errors = Numbers(0.02, two, None, two, two, one, 0.02)
    >>> design_effects(moments, 2, sol.stats["start"], errors).shape
    (8,)
    """
    model = Model(k, level, moments.tensor.shape[0], estimand)
    data = table_of(moments, level)
    factors = Factors(*start)
    order = jnp.argsort(mixture_of(model.structure, factors, moments.value_y).effects())
    own = variances_of(data, factors, moments.value_y, order, model)
    assert errors.means is not None
    assert errors.shares is not None
    assert errors.effects is not None
    assert errors.cumulative is not None
    inner = errors.cumulative[1 : max(k - 2, 1)]
    # The variance of the class effects has the ratio of their standard deviation; its own error
    # is 2 spread times that.
    spread = numbers_of(factors, moments.value_y, order, model)[-1] ** 0.5
    parts: list[Array | np.ndarray] = [
        jnp.asarray(errors.effect)[None], errors.means, errors.shares, errors.effects, inner,
        2 * spread[None] * jnp.asarray(errors.spread),
    ]  # fmt: skip
    design = jnp.concatenate([jnp.atleast_1d(part) for part in parts]) ** 2
    exists = (own > 0) & jnp.isfinite(design) & (design > 0)
    ratios = jnp.where(exists, design / jnp.where(exists, own, 1.0), 0.0)
    largest = jnp.where(jnp.any(exists), ratios.max(), 1.0)
    return jnp.where(exists, ratios, largest)
