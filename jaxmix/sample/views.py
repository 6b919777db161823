"""The views: features of rows as arrays, with the design of the sample."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, cast

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from jaxmix.data.design import Design

jax.tree_util.register_dataclass(Design)


def on_device(design: Design[np.ndarray]) -> Design[Array]:
    """Return a design as arrays of JAX, in its default precision."""
    return design.with_columns(jax.device_put)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Views:
    """The table as arrays: one row of features per view.

    Attributes
    ----------
    z, x, y
        ``(n, d_z)``, ``(n, d_x)``, ``(n, d_y)`` features; each view can express the constant.
    t
        ``(n,)`` arm of each row, 0 for the control.
    design
        Weights, multiplicities and clusters of the rows; the first two are always there.
    one_z, one_x, one_y
        Vectors that give the constant 1 from each view: ``z @ one_z == 1``.
    value_y
        ``(d_y,)`` gives the outcome in its own units: ``y @ value_y``.
    range_y
        ``(2,)`` smallest and largest outcome.
    num_arms
        Number of arms (static).
    num_shared
        How many leading features z and x have in common: the constant and the covariates, or 0
        where both views are one-hot (static).
    onehot_y
        Whether the outcome's features are indicators of its values (static).
    """

    z: Float[Array, "n d_z"]
    x: Float[Array, "n d_x"]
    y: Float[Array, "n d_y"]
    t: Int[Array, " n"]
    design: Design[Array]
    one_z: Float[Array, " d_z"]
    one_x: Float[Array, " d_x"]
    one_y: Float[Array, " d_y"]
    value_y: Float[Array, " d_y"]
    range_y: Float[Array, " 2"]
    num_arms: int = dataclasses.field(default=2, metadata={"static": True})
    num_shared: int = dataclasses.field(default=0, metadata={"static": True})
    onehot_y: bool = dataclasses.field(default=False, metadata={"static": True})

    @property
    def is_table(self) -> bool:
        """Whether every view is one-hot, so that the rows are cells of a table."""
        return self.num_shared == 0 and self.onehot_y

    @property
    def num_rows(self) -> int:
        """How many rows are held, identical ones perhaps as one."""
        return len(self.t)

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """Arms, and features of z, x and y."""
        return self.num_arms, self.z.shape[-1], self.x.shape[-1], self.y.shape[-1]

    @property
    def weight(self) -> Float[Array, " n"]:
        """``(n,)`` sampling weights, mean 1."""
        assert self.design.weight is not None
        return self.design.weight

    @property
    def multiplicity(self) -> Float[Array, " n"]:
        """``(n,)`` how many identical rows of the sample each row stands for."""
        assert self.design.multiplicity is not None
        return self.design.multiplicity

    @property
    def cluster(self) -> Int[Array, " n"] | None:
        """``(n,)`` cluster of each row, or None."""
        return self.design.cluster

    @property
    def num_clusters(self) -> int:
        """Number of clusters; 0 where rows are independent."""
        return self.design.num_clusters

    @property
    def repeated(self) -> bool:
        """Whether some multiplicity differs from 1."""
        return self.design.repeated

    def each(self, function: Callable[[Array], Array]) -> Views:
        """Return the views with a function of every array that has a row for each row."""
        return dataclasses.replace(
            self,
            z=function(self.z),
            x=function(self.x),
            y=function(self.y),
            t=function(self.t),
            design=jax.tree.map(function, self.design),
        )

    def redesigned(self, **fields: Array | int) -> Views:
        """Return the same rows where some fields of the design are others: ``weight=...``."""
        changed = dataclasses.replace(self.design, **cast(dict[str, Any], fields))
        return dataclasses.replace(self, design=changed)

    @property
    def max_rank(self) -> int:
        """The largest number of classes that the views can tell apart."""
        return max_rank(*self.sizes[1:3], self.num_shared)


def max_rank(d_z: int, d_x: int, num_shared: int) -> int:
    """Return the largest rank that E[z x] can have, covariates partialled out."""
    return min(d_z, d_x) - max(num_shared - 1, 0)
