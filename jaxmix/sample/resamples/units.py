"""Units of a sample: what is drawn whole, rows or clusters, in strata or not."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from jaxmix.data.design import Design
from jaxmix.status import InputError

BLOCK = 4096
"""Units of a block, of which each is drawn by a key of its own."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Blocks:
    """Blocks of units, each of one stratum.

    Attributes
    ----------
    size, stratum
        ``(b,)`` units and stratum of each block.
    place
        ``(u,)`` place of each unit, ``width`` times its block plus its place in the block.
    width
        Units of the largest block (static).
    """

    size: Float[Array, " b"]
    stratum: Int[Array, " b"]
    place: Int[Array, " u"]
    width: int = dataclasses.field(metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Units:
    """What is drawn whole: rows, or clusters of rows.

    Attributes
    ----------
    times
        ``(u,)`` how often each unit occurs in the sample.
    of_row
        ``(n,)`` the unit of each row; None where rows are units.
    strata
        ``(u,)`` stratum of each unit, 0, 1, ...; None where there is one.
    blocks
        Blocks of the strata; None where there is one stratum, or units are `repeated`.
    num_strata
        Number of strata (static).
    repeated
        Whether `times` may differ from 1 (static).
    """

    times: Float[Array, " u"]
    of_row: Int[Array, " n"] | None = None
    strata: Int[Array, " u"] | None = None
    blocks: Blocks | None = None
    num_strata: int = dataclasses.field(default=1, metadata={"static": True})
    repeated: bool = dataclasses.field(default=True, metadata={"static": True})

    @property
    def by_block(self) -> bool:
        """Whether any block of the units can be drawn without the others."""
        return not self.repeated and self.of_row is None and self.strata is None


def units_of(design: Design[Array], strata: object = None) -> Units:
    """Return what is drawn whole: clusters where there are any, otherwise rows.

    Parameters
    ----------
    design
        Weights, multiplicities and clusters of the rows.
    strata
        ``(n,)`` labels of the strata of rows, known outside of compiled code; or None.

    Raises
    ------
    InputError
        Where a cluster lies in several strata.
    """
    times, of_row = design.multiplicity, design.cluster
    assert times is not None
    num_rows, repeated = times.shape, design.repeated
    if of_row is not None:
        times, repeated = jnp.ones(design.num_clusters, times.dtype), False
    if strata is None:
        return Units(times, of_row, repeated=repeated)
    labels = np.asarray(strata)
    if labels.shape != num_rows:
        raise ValueError(f"strata has shape {labels.shape}: give one label for each row")
    found, codes = np.unique(labels, return_inverse=True)
    if of_row is not None:
        rows, cluster = codes, np.asarray(of_row)
        codes = np.zeros(design.num_clusters, codes.dtype)
        codes[cluster] = rows
        if split := len(set(cluster[codes[cluster] != rows])):
            raise InputError(
                f"strata (--strata): {split} of {design.num_clusters} clusters have rows in "
                "several strata, and clusters are drawn whole; leave out the strata, or the "
                "clusters"
            )
    blocks = None if repeated else _blocks(codes, times.dtype)
    return Units(times, of_row, jnp.asarray(codes), blocks, len(found), repeated)


def _blocks(strata: np.ndarray, dtype: DTypeLike) -> Blocks:
    """Return the blocks of strata, known outside of compiled code."""
    sizes = np.bincount(strata)
    num = -(-sizes // BLOCK)
    of_stratum = np.repeat(np.arange(len(sizes)), num)
    first = np.cumsum(num) - num
    number = np.arange(num.sum()) - first[of_stratum]
    size = np.minimum(sizes[of_stratum] - BLOCK * number, BLOCK)
    width = int(size.max())
    order = np.argsort(strata, kind="stable")
    inside = np.empty(len(strata), int)
    inside[order] = np.arange(len(strata)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    place = (first[strata] + inside // BLOCK) * width + inside % BLOCK
    return Blocks(jnp.asarray(size, dtype), jnp.asarray(of_stratum), jnp.asarray(place), width)


def rows_of(
    drawn: Float[Array, "*r u"], units: Units, multiplicity: Float[Array, " n"]
) -> Float[Array, "*r n"]:
    """Return the multiplicities of rows from those of units."""
    if units.of_row is None:
        return drawn
    return drawn[..., units.of_row] * multiplicity
