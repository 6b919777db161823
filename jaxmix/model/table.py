"""Tables of all cells under a mixture: contractions of dense arrays, the fast path for few axes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxmix.model.likelihood import System
from jaxmix.model.structure import Factors, Structure, even, own_places

Cells = Float[Array, "a d_z d_x d_y"]
"""Counts or probabilities of treatment, z, x and outcome."""

_Operand = tuple[Array, tuple[str, ...]]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Table:
    """Counts of every cell; `jaxmix.model.likelihood.Observed`.

    Attributes
    ----------
    counts
        One direction for each axis of the structure.
    structure
        Who depends on whom (static).
    """

    counts: Float[Array, "..."]
    structure: Structure = dataclasses.field(metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        return self.counts.shape[-len(self.structure.axes) :]

    def margins(self) -> Factors:
        """Return the counts on which each probability depends, with a class axis of length 1."""
        structure = self.structure
        gate, *parts = (
            structure.contract((self.counts, structure.axes), into=axes)[..., None]
            for axes in structure.factors
        )
        return Factors(gate, tuple(parts))

    def one_class(self) -> Factors:
        """Return the maximum of the likelihood with one class, which has a closed form."""
        gate, parts = self.margins()
        laws = (
            even(own, own.sum(own_places(part), keepdims=True), own_places(part))
            for part, own in zip(self.structure.parts, parts, strict=True)
        )
        return Factors(gate / self.counts.sum(), tuple(laws))

    def deviance(self, factors: Factors) -> Float[Array, ""]:
        """Return half of G^2, ``sum N log(N / (n p))``: the loss, in units of log-likelihood."""
        counts = self.counts
        expected = counts.sum() * self.structure.cells(factors)
        seen = counts > 0
        ratio = jnp.where(seen, counts, 1.0) / jnp.where(seen, expected, 1.0)
        return jnp.sum(jnp.where(seen, counts * jnp.log(ratio), 0.0))

    def log_likelihood(self, factors: Factors) -> Float[Array, ""]:
        """Return ``sum N log p`` over the cells that occur."""
        seen = self.counts > 0
        p = jnp.where(seen, self.structure.cells(factors), 1.0)
        return jnp.sum(jnp.where(seen, self.counts * jnp.log(p), 0.0))

    def _ratio(self, factors: Factors, power: int = 1) -> Array:
        """Return ``N / p^power``, 0 in cells that do not occur."""
        seen = self.counts > 0
        p = jnp.where(seen, self.structure.cells(factors), 1.0)
        return jnp.where(seen, self.counts / p**power, 0.0)

    def slopes(self, factors: Factors) -> Factors:
        """Return ``sum N d log p``."""
        return self._gathered(self._ratio(factors), factors)

    def squares(self, factors: Factors) -> Factors:
        """Return ``sum N (d log p)^2``; the squares of products are products of squares."""
        return self._gathered(self._ratio(factors, 2), jax.tree.map(jnp.square, factors))

    def _gathered(self, values: Array, factors: Factors) -> Factors:
        structure = self.structure
        gate, *parts = (
            structure.contract(
                (values, structure.axes),
                *structure.operands(factors, leaving=[place]),
                into=(*axes, "u"),
            )
            for place, axes in enumerate(structure.factors)
        )
        return Factors(gate, tuple(parts))

    def system(self, factors: Factors, exact: Bool[Array, ""]) -> System:
        """Return Fisher's information ``J' diag(n / p) J``, or the exact curvature."""
        structure, counts = self.structure, self.counts
        n, p = counts.sum(), structure.cells(factors)
        tiny = jnp.finfo(p.dtype).tiny
        ratio = jnp.where(counts > 0, counts / jnp.maximum(p, tiny), 0.0)
        weight = jnp.where(exact, ratio, n) / jnp.maximum(p, tiny)
        weight = jnp.where(p > 0, weight, 0.0)
        second = jnp.where(exact, ratio - n, 0.0)  # the factors enter p linearly
        num = len(structure.factors)
        k = factors.gate.shape[-1]
        slopes = [self._slope(factors, place) for place in range(num)]
        sizes = structure.sizes(self.shape)

        def between(first: int, other: int) -> Array:
            """Return the block of two factors as a matrix of (cell, u) and (cell, v)."""
            union = _union(structure, structure.factors[first], structure.factors[other])
            (one, one_axes), (two, two_axes) = slopes[first], slopes[other]
            h = structure.contract(
                (weight, structure.axes), (one, (*one_axes, "u")), (two, (*two_axes, "v")),
                into=(*union, "u", "v"),
            )  # fmt: skip
            if first != other:
                rest = structure.operands(factors, leaving=[first, other])
                eye = (jnp.eye(k, dtype=p.dtype), ("u", "v"))
                h -= structure.contract(
                    (second, structure.axes), *rest, eye, into=(*union, "u", "v")
                )
            return _matrix(h, union, structure.factors[first], structure.factors[other], sizes)

        gate = structure.contract(
            (weight, structure.axes),
            (slopes[0][0], (*slopes[0][1], "u")),
            (slopes[0][0], (*slopes[0][1], "v")),
            into=(*structure.gate, "u", "v"),
        ).reshape(-1, k, k)
        cross = jnp.concatenate([between(0, place) for place in range(1, num)], axis=1)
        upper = {(i, j): between(i, j) for i in range(1, num) for j in range(i, num)}
        parts = jnp.block(
            [
                [upper[i, j] if i <= j else upper[j, i].T for j in range(1, num)]
                for i in range(1, num)
            ]
        )
        return System(gate, cross.reshape(*gate.shape[:2], -1), parts)

    def _slope(self, factors: Factors, place: int) -> _Operand:
        """Return the derivative of p in one factor, with the axes on which it depends."""
        others = self.structure.operands(factors, leaving=[place])
        axes = _union(self.structure, *(own[:-1] for _, own in others))
        return self.structure.contract(*others, into=(*axes, "u")), axes


def _union(structure: Structure, *groups: Sequence[str]) -> tuple[str, ...]:
    """Return the axes of several factors, in the order of the table."""
    wanted = {axis for group in groups for axis in group}
    return tuple(axis for axis in structure.axes if axis in wanted)


def _matrix(
    block: Array,
    union: tuple[str, ...],
    first: tuple[str, ...],
    other: tuple[str, ...],
    sizes: Mapping[str, int],
) -> Array:
    """Return ``(union, u, v)`` as a matrix: an axis that both factors have is on its diagonal."""
    places = {axis: place for place, axis in enumerate(union)}
    u, v = len(union), len(union) + 1
    twins = {axis: len(union) + 2 + i for i, axis in enumerate(a for a in other if a in first)}
    operands: list[Array | list[int]] = [block, [*range(len(union)), u, v]]
    for axis, twin in twins.items():
        operands += [jnp.eye(sizes[axis], dtype=block.dtype), [places[axis], twin]]
    rows = [places[axis] for axis in first]
    columns = [twins.get(axis, places[axis]) for axis in other]
    spread = jnp.einsum(*operands, [*rows, u, *columns, v])
    return spread.reshape(math.prod(sizes[axis] for axis in first) * block.shape[-1], -1)
