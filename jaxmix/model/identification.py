"""The rank of the information at a maximum: how many parameters rows tell apart."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxmix.model.likelihood import METRIC_FLOOR, System, flat_parts
from jaxmix.model.rows import Rows
from jaxmix.model.structure import Factors

_MOST_CELLS = 4096  # tables up to this size are enumerated to judge the rank


class Rank(NamedTuple):
    """What the information says of the parameters.

    Attributes
    ----------
    rank
        Of the information.
    num_free
        Parameters that the data do not hold at 0.
    """

    rank: Int[Array, ""]
    num_free: Int[Array, ""]


def rank_of(rows: Rows, factors: Factors, tolerance: float) -> Rank:
    """Return the rank of the information, and the number of parameters that are free.

    Where cells are few and some row is complete, expected information over all cells for the rows
    that are complete, with the outer products of the others' scores. Elsewhere observed
    information, the curvature of the log-likelihood itself: outer products are of no more scores
    than there are rows, while few rows may well tell more parameters apart.

    Eigenvalues count where they exceed the square root of the machine epsilon, in coordinates
    scaled to the information of the complete data: less than that share of it is none. Fixed are
    probabilities that the data hold at 0, not those that happen to be there on a flat ridge:
    releasing these would gain nothing.

    Parameters
    ----------
    rows
        The data.
    factors
        At the maximum of their likelihood.
    tolerance
        Gain in log-likelihood beyond which a probability at 0 is held there.
    """
    counts, n = rows.counts, rows.counts.sum()
    theta = jnp.concatenate([factors.gate.reshape(-1), flat_parts(factors.parts).reshape(-1)])
    eps = float(jnp.finfo(theta.dtype).eps)
    block, reference = _references(rows, factors)
    slopes = rows.derivatives(factors)
    raw = counts @ slopes
    # At the optimum the multiplier of a block is the number of rows expected in it.
    expected = jnp.zeros_like(raw).at[block].add(raw * theta)[block]
    outward = raw - expected
    empirical = _reduced(_weighted(slopes, counts), reference)
    by_theta = expected / jnp.maximum(theta, METRIC_FLOOR) + eps * n
    is_reference = jnp.arange(len(theta)) == reference
    held = (outward <= 0) & (theta <= 0) & (outward**2 > 2 * tolerance * jnp.diag(empirical))
    free = ~held & ~is_reference
    information = _reduced(_matrix(rows.system(factors, jnp.asarray(True))), reference)
    if math.prod(rows.shape) <= _MOST_CELLS:
        every = np.array(list(itertools.product(*map(range, rows.shape))), np.int32)
        cells = Rows.of(
            rows.structure, jnp.asarray(every), jnp.ones(len(every), theta.dtype), rows.shape
        )
        complete = rows.gate.sum(1) * rows.parts.sum(1) < len(rows.structure.parts) + 0.5
        num_complete = jnp.sum(jnp.where(complete, counts, 0.0))
        p = jnp.maximum(jnp.exp(cells.log_probabilities(factors)), eps)
        cells = dataclasses.replace(cells, counts=num_complete * p)
        expected_of = _weighted(slopes, jnp.where(complete, 0.0, counts))
        expected_of += _weighted(cells.derivatives(factors, least=eps), cells.counts)
        information = jnp.where(num_complete > 0, _reduced(expected_of, reference), information)
    scale = jnp.sqrt(by_theta + by_theta[reference])
    scale = jnp.maximum(scale, jnp.sqrt(jnp.abs(jnp.diag(information))))
    values = jnp.linalg.eigvalsh(_scaled(information, scale, free))
    return Rank(jnp.sum(values > eps**0.5), jnp.sum(free))


def _references(rows: Rows, factors: Factors) -> tuple[Array, Array]:
    """Return the block of each parameter, and the largest in it, which gives way to the others."""
    k = factors.gate.shape[-1]
    index = rows.structure.index(rows.shape)
    num_gate = factors.gate.size
    theta = flat_parts(factors.parts)
    num_blocks = index.block[-1] + 1
    member = jnp.asarray(np.arange(num_blocks)[:, None] == index.block)
    largest = jnp.argmax(jnp.where(member[:, :, None], theta, -1.0), 1)  # (block, k)
    own = num_gate + largest[index.block] * k + jnp.arange(k)
    block = 1 + index.block[:, None] * k + np.arange(k)
    gate = jnp.zeros(num_gate, jnp.int32)
    return (
        jnp.concatenate([gate, jnp.asarray(block.reshape(-1), jnp.int32)]),
        jnp.concatenate([gate + jnp.argmax(factors.gate.reshape(-1)), own.reshape(-1)]),
    )


def _matrix(system: System) -> Float[Array, "q q"]:
    """Return a system as one matrix."""
    num_blocks, width = system.gate.shape[:2]
    eye = jnp.eye(num_blocks, dtype=system.gate.dtype)
    gate = jnp.einsum("cuv,cC->cuCv", system.gate, eye).reshape(num_blocks * width, -1)
    cross = system.cross.reshape(num_blocks * width, -1)
    return jnp.block([[gate, cross], [cross.T, system.parts]])


def _weighted(slopes: Float[Array, "m q"], weights: Float[Array, " m"]) -> Float[Array, "q q"]:
    return jnp.matmul(slopes.T, weights[:, None] * slopes, precision="highest")


def _reduced(matrix: Float[Array, "q q"], reference: Int[Array, " q"]) -> Float[Array, "q q"]:
    """Return a quadratic form in the coordinates that the references make up for."""
    matrix = matrix - matrix[reference]
    return (matrix.T - matrix.T[reference]).T


def _scaled(
    matrix: Float[Array, "q q"], scale: Float[Array, " q"], free: Bool[Array, " q"]
) -> Float[Array, "q q"]:
    return matrix * (free[:, None] & free) / (scale[:, None] * scale)
