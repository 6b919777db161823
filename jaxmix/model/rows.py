"""Distinct rows under a mixture: any number of axes, missing cells summed out, no table built."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxmix.model.likelihood import System, exclusive_products, flat_parts, unflat_parts
from jaxmix.model.structure import Factors, Structure, positive


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rows:
    """Distinct rows and how often each occurs; `jaxmix.model.likelihood.Observed`.

    A row multiplies one probability of the gate and one of each part. Where a cell is missing it
    takes the sum of those that it could be, so that the class says nothing of it.

    Attributes
    ----------
    counts
        ``(m,)``.
    gate
        ``(m, c)``: 1 for the cells of the gate that the row may be in.
    parts
        ``(m, D)``: 1 for the probabilities of the parts that it may take.
    structure
        Who depends on whom (static).
    shape
        Lengths of the axes (static).
    gate_is_known
        Whether every row is in one cell of the gate (static).
    """

    counts: Float[Array, " m"]
    gate: Float[Array, "m c"]
    parts: Float[Array, "m D"]
    structure: Structure = dataclasses.field(metadata={"static": True})
    shape: tuple[int, ...] = dataclasses.field(metadata={"static": True})
    gate_is_known: bool = dataclasses.field(default=True, metadata={"static": True})

    @classmethod
    def of(
        cls,
        structure: Structure,
        codes: Int[Array, "m v"],
        counts: Float[Array, " m"],
        shape: Sequence[int],
        *,
        gate_is_known: bool = True,
    ) -> Rows:
        """Return rows from codes.

        Parameters
        ----------
        structure
            Who depends on whom.
        codes
            Place on each axis from 0, in the order of the axes; negative where it is missing.
            An axis that a part is given is never missing.
        counts
            How often each row occurs.
        shape
            Lengths of the axes.
        gate_is_known
            False where an axis of the gate may be missing.
        """
        places = {axis: place for place, axis in enumerate(structure.axes)}

        def hot(axes: Sequence[str]) -> Float[Array, "m s"]:
            own = jnp.ones((len(codes), 1), bool)
            for axis in axes:
                code = codes[:, places[axis], None]
                match = (code == jnp.arange(shape[places[axis]])) | (code < 0)
                own = (own[:, :, None] & match[:, None, :]).reshape(len(codes), -1)
            return own.astype(counts.dtype)

        gate, *parts = map(hot, structure.factors)
        return cls(
            counts, gate, jnp.concatenate(parts, 1), structure, tuple(shape), gate_is_known
        )  # fmt: skip

    def deviance(self, factors: Factors) -> Float[Array, ""]:
        """Return ``sum N log(N / (n p))``, against free probabilities of the rows."""
        counts, log_p = self.counts, self.log_probabilities(factors)
        seen = counts != 0  # NaN counts, so that it shows
        relative = jnp.log(jnp.where(seen, counts, 1.0) / counts.sum())
        return jnp.sum(jnp.where(seen, counts * (relative - log_p), 0.0))

    def log_likelihood(self, factors: Factors) -> Float[Array, ""]:
        """Return ``sum N log p``."""
        log_p, seen = self.log_probabilities(factors), self.counts != 0
        return jnp.sum(jnp.where(seen, self.counts * jnp.where(seen, log_p, 0.0), 0.0))

    def log_probabilities(self, factors: Factors) -> Float[Array, " m"]:
        """Return ``log p`` of every row, minus infinity where no class can produce it."""
        laws = self._laws(factors)
        possible = laws.p > 0
        return jnp.where(possible, jnp.log(jnp.where(possible, laws.p, 1.0)), -jnp.inf) + jnp.sum(
            jnp.log(positive(laws.size)), axis=1
        )

    def responsibility(self, factors: Factors) -> Float[Array, "m k"]:
        """Return ``P(U=u | row)``; 0 where no class can produce the row."""
        by_gate, _, laws = self._derivatives(factors)
        return laws.gate * by_gate

    def slopes(self, factors: Factors) -> Factors:
        """Return ``sum N d log p``."""
        return self._gathered(factors, 1)

    def squares(self, factors: Factors) -> Factors:
        """Return ``sum N (d log p)^2``."""
        return self._gathered(factors, 2)

    def _gathered(self, factors: Factors, power: int) -> Factors:
        by_gate, by_parts, _ = self._derivatives(factors)
        by_gate, by_parts = by_gate**power, by_parts**power
        gate = _product((self.gate * self.counts[:, None]).T, by_gate)
        parts = jnp.einsum("i,idu->du", self.counts, by_parts, precision="highest")
        return Factors(gate.reshape(factors.gate.shape), unflat_parts(parts, factors.parts))

    def derivatives(self, factors: Factors, least: float = 0.0) -> Float[Array, "m q"]:
        """Return the derivatives of p over p, side by side; over `least` where p is smaller."""
        by_gate, by_parts, _ = self._derivatives(factors, least)
        flat = by_parts.reshape(len(self.counts), -1)
        return jnp.concatenate([self._of_gate(by_gate), flat], 1)

    def _of_gate(self, by_gate: Float[Array, "m k"]) -> Float[Array, "m ck"]:
        """Return the derivatives in every probability of the gate, side by side."""
        return (self.gate[:, :, None] * by_gate[:, None, :]).reshape(len(self.counts), -1)

    def system(self, factors: Factors, exact: Bool[Array, ""]) -> System:
        """Return the empirical information ``sum N (d log p) (d log p)'``, or the exact curvature.

        The expected information has the table of all cells, which is not built.
        """
        counts, k = self.counts, factors.gate.shape[-1]
        index = self.structure.index(self.shape)
        by_gate, by_parts, laws = self._derivatives(factors)
        m, dtype = len(counts), counts.dtype
        weighted = self.gate * counts[:, None]
        flat = by_parts.reshape(m, -1)
        parts = _product(flat.T, counts[:, None] * flat)
        eye = jnp.eye(k, dtype=dtype)
        n = counts.sum()
        looks_at = jnp.asarray(index.looks_at, dtype)  # (D, c)
        gate_of = factors.gate.reshape(-1, k)

        # Second derivatives of p, over p: none within the gate or a part, nor between classes.
        alone = self.parts[:, :, None] * laws.alone[:, index.part]  # d2p / dG dF, over p
        by_both = jnp.einsum("ic,idu->cdu", weighted, alone, precision="highest")
        mixed = by_both - n * looks_at.T[:, :, None]
        values = (laws.parts * laws.size[:, :, None])[:, index.part]
        over = jnp.where(values > 0, self.parts[:, :, None] / positive(values), 0.0)
        mass = counts[:, None] * laws.gate * by_gate
        others = jnp.asarray(index.part[:, None] != index.part, dtype)
        second = jnp.einsum("iu,idu,ieu->ude", mass, over, over, precision="highest")
        second -= n * jnp.einsum("cu,dc,ec->ude", gate_of, looks_at, looks_at, precision="highest")
        second = jnp.einsum("ude,uv->duev", second * others, eye).reshape(parts.shape)
        parts = parts - jnp.where(exact, second, 0.0)
        mixed = jnp.where(exact, jnp.einsum("cdu,uv->cudv", mixed, eye), 0.0)
        if self.gate_is_known:
            gate = jnp.einsum("ic,iu,iv->cuv", weighted, by_gate, by_gate, precision="highest")
            cross = jnp.einsum("ic,iu,iq->cuq", weighted, by_gate, flat, precision="highest")
            return System(gate, cross - mixed.reshape(cross.shape), parts)
        own = self._of_gate(by_gate)
        gate = _product(own.T, counts[:, None] * own)
        cross = _product(own.T, counts[:, None] * flat)
        return System(gate[None], (cross - mixed.reshape(cross.shape))[None], parts)

    def _laws(self, factors: Factors, least: float = 0.0) -> _Laws:
        k = factors.gate.shape[-1]
        index = self.structure.index(self.shape)
        theta = flat_parts(factors.parts)
        num = len(self.structure.parts)
        member = jnp.asarray(np.arange(num) == index.part[:, None], theta.dtype)
        by_part = (member[:, :, None] * theta[:, None, :]).reshape(len(theta), -1)
        values = _product(self.parts, by_part).reshape(-1, num, k)
        # Products of many probabilities leave the range of numbers: each is divided by its
        # largest, which is put back in the logarithm.
        size = values.max(2)
        values = values / positive(size)[:, :, None]
        gate = _product(self.gate, factors.gate.reshape(-1, k))
        p = jnp.sum(gate * values.prod(1), axis=1)
        if least > 0:
            p = jnp.maximum(p, least / positive(size).prod(1))
        alone = exclusive_products(values, 1) / positive(p)[:, None, None]
        return _Laws(gate, values, size, p, alone / positive(size)[:, :, None])

    def _derivatives(self, factors: Factors, least: float = 0.0) -> tuple[Array, Array, _Laws]:
        """Return the derivatives of log p in the gate, by class, and in every other number."""
        laws = self._laws(factors, least)
        index = self.structure.index(self.shape)
        by_gate = laws.parts.prod(1) / positive(laws.p)[:, None]
        by_part = laws.gate[:, None, :] * laws.alone
        return by_gate, self.parts[:, :, None] * by_part[:, index.part], laws


class _Laws(NamedTuple):
    """Factors of every row by class.

    Attributes
    ----------
    gate, parts
        ``(m, k)``, and ``(m, J, k)`` divided by their size.
    size
        ``(m, J)``: the largest among the classes.
    p
        ``(m,)``: probability, divided by all sizes.
    alone
        ``(m, J, k)``: product of the other parts over the row's probability.
    """

    gate: Array
    parts: Array
    size: Array
    p: Array
    alone: Array


def _product(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision="highest")
