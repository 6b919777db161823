"""Structures of mixtures: which axis of a table depends on which, given the hidden class.

A mixture of k classes gives a cell the probability

    p[cell] = sum_u G[gate, u] prod_j F_j[given_j, of_j, u]

with the gate ``G = P(gate axes, U=u)``, unrestricted, and parts ``F_j = P(of_j | given_j, U=u)``.
Levels, edges, arms apart and latent classes differ in who stands where, and in nothing else.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


class Factors(NamedTuple):
    """The probabilities that make up a mixture; the class axis is the last of each.

    Attributes
    ----------
    gate
        ``(*gate axes, k)``: ``P(gate, U=u)``; sums to 1.
    parts
        One per part of the structure, ``(*given, *of, k)``: ``P(of | given, U=u)``; each sums to 1
        over its own axes.
    """

    gate: Float[Array, "..."]
    parts: tuple[Array, ...]


@dataclasses.dataclass(frozen=True)
class Part:
    """One part of a mixture: the law of some axes given the class, and other axes or none.

    Attributes
    ----------
    of
        Axes whose law it is, jointly.
    given
        Axes on which that law depends besides the class.
    """

    of: tuple[str, ...]
    given: tuple[str, ...] = ()

    @property
    def axes(self) -> tuple[str, ...]:
        """Axes of its array before that of the classes."""
        return self.given + self.of


@dataclasses.dataclass(frozen=True)
class Structure:
    """Who depends on whom; hashable, so that it is static in compiled programs.

    Attributes
    ----------
    axes
        The axes of a table, in the order of its directions.
    gate
        Axes that the class may depend on in any way.
    parts
        The laws of the others; one may be given axes of the gate and of parts before it.

    Raises
    ------
    ValueError
        For an axis that has no law or two, and for a part given an axis that comes later.

    Examples
    --------
    >>> LEVEL[3].gate, [part.axes for part in LEVEL[3].parts]
    (('t', 'z'), [('x',), ('t', 'y')])
    """

    axes: tuple[str, ...]
    gate: tuple[str, ...]
    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError("a mixture without parts says nothing")
        seen = list(self.gate)
        for part in self.parts:
            if missing := set(part.given) - set(seen):
                raise ValueError(f"the law of {part.of} is given {missing}, which comes later")
            seen += part.of
        if sorted(seen) != sorted(self.axes):
            raise ValueError(f"axes {self.axes} need one law each, and have {seen}")

    @property
    def factors(self) -> tuple[tuple[str, ...], ...]:
        """Axes of every factor, the gate first."""
        return (self.gate, *(part.axes for part in self.parts))

    def sizes(self, shape: Sequence[int]) -> Mapping[str, int]:
        """Return the length of every axis of a table of some shape."""
        return dict(zip(self.axes, shape, strict=True))

    def shapes(self, shape: Sequence[int], k: int) -> tuple[tuple[int, ...], ...]:
        """Return the shapes of the factors of a table of some shape under k classes."""
        sizes = self.sizes(shape)
        return tuple((*(sizes[axis] for axis in axes), k) for axes in self.factors)

    def num_parameters(self, shape: Sequence[int], k: int) -> int:
        """Return the number of free probabilities."""
        sizes = self.sizes(shape)

        def size(axes: Sequence[str]) -> int:
            return math.prod(sizes[axis] for axis in axes)

        own = (k * size(part.given) * (size(part.of) - 1) for part in self.parts)
        return k * size(self.gate) - 1 + sum(own)

    @property
    def scales_into_gate(self) -> bool:
        """Whether the gate can take the scale of every part: all are given axes of the gate."""
        return all(set(part.given) <= set(self.gate) for part in self.parts)

    def index(self, shape: Sequence[int]) -> Index:
        """Return where the probabilities of the parts are, for tables of some shape."""
        return _index(self, tuple(shape))

    def contract(self, *operands: tuple[Array, Sequence[str]], into: Sequence[str]) -> Array:
        """Sum the product of arrays over the axes that are not wanted.

        Parameters
        ----------
        operands
            Arrays, each with its axes; ``"u"`` and ``"v"`` name axes of classes.
        into
            Axes of what is returned.
        """
        places = {name: place for place, name in enumerate((*self.axes, "u", "v"))}
        listed: list[Array | list[int]] = []
        for array, axes in operands:
            listed += [array, [places[axis] for axis in axes]]
        return jnp.einsum(*listed, [places[axis] for axis in into], precision="highest")

    def operands(
        self, factors: Factors, leaving: Sequence[int] = ()
    ) -> list[tuple[Array, tuple[str, ...]]]:
        """Return the factors with their axes, but for those at some places (0 is the gate)."""
        arrays = (factors.gate, *factors.parts)
        return [
            (array, (*axes, "u"))
            for place, (array, axes) in enumerate(zip(arrays, self.factors, strict=True))
            if place not in leaving
        ]

    def cells(self, factors: Factors) -> Array:
        """Return the probability of every cell of the table."""
        return self.contract(*self.operands(factors), into=self.axes)

    def mass(self, factors: Factors, axes: Sequence[str]) -> Array:
        """Return ``P(axes, U=u)``, the class axis last."""
        if set(axes) <= set(self.gate):
            return self.contract((factors.gate, (*self.gate, "u")), into=(*axes, "u"))
        return self.contract(*self.operands(factors), into=(*axes, "u"))

    def conditional(self, factors: Factors, of: Sequence[str], given: Sequence[str]) -> Array:
        """Return ``P(of | given, U=u)`` with the axes given, of, class.

        A part that has this law gives it, also where a class is empty; otherwise it is by Bayes'
        rule, and zero there.
        """
        places = tuple(range(len(given), len(given) + len(of)))
        for part, array in zip(self.parts, factors.parts, strict=True):
            if part == Part(tuple(of), tuple(given)):
                return array
            if set(part.given) <= set(given) and {*given, *of} <= set(part.axes):
                joint = self.contract((array, (*part.axes, "u")), into=(*given, *of, "u"))
                return joint / positive(joint.sum(places, keepdims=True))
        joint = self.mass(factors, (*given, *of))
        return joint / positive(joint.sum(places, keepdims=True))

    def normalise(self, factors: Factors) -> Factors:
        """Scale positive numbers to probabilities, moving the scale of parts into the gate.

        A class that is empty where a part looks at it has even probabilities there. The scale of
        a part that is given axes of other parts is lost.
        """
        gate, parts = factors.gate, []
        for part, array in zip(self.parts, factors.parts, strict=True):
            own = own_places(part)
            total = array.sum(own, keepdims=True)
            parts.append(even(array, total, own))
            if set(part.given) <= set(self.gate):
                scale = (total.squeeze(own), (*part.given, "u"))
                gate = self.contract((gate, (*self.gate, "u")), scale, into=(*self.gate, "u"))
        return Factors(gate / gate.sum(), tuple(parts))


@dataclasses.dataclass(frozen=True, eq=False)
class Index:
    """Places of the D probabilities of all parts, in their order, and of the C cells of the gate.

    Attributes
    ----------
    part
        ``(D,)`` the part of each.
    block
        ``(D,)`` the block of each: those that sum to 1 with it.
    looks_at
        ``(D, C)`` whether it belongs to a law that holds in each cell of the gate.
    law
        ``(C, J)`` a place in the block that holds for each part in each cell of the gate.
    """

    part: np.ndarray
    block: np.ndarray
    looks_at: np.ndarray
    law: np.ndarray

    @property
    def together(self) -> np.ndarray:
        """``(D, D)`` which probabilities sum to 1 with which."""
        found: np.ndarray = self.block[:, None] == self.block
        return found


@functools.lru_cache(maxsize=256)
def _index(structure: Structure, shape: tuple[int, ...]) -> Index:
    if not structure.scales_into_gate:
        raise ValueError("a part is given an axis that is not in the gate: it has no index")
    sizes = structure.sizes(shape)
    gate = [sizes[axis] for axis in structure.gate]
    cells = np.indices(gate).reshape(len(gate), math.prod(gate))  # coordinates of each cell
    part_of: list[np.ndarray] = []
    block: list[np.ndarray] = []
    looks_at: list[np.ndarray] = []
    law: list[np.ndarray] = []
    start = blocks = 0
    for place, part in enumerate(structure.parts):
        given = [sizes[axis] for axis in part.given]
        width = math.prod(sizes[axis] for axis in part.of)
        where = [cells[structure.gate.index(axis)] for axis in part.given]
        of_cell = np.ravel_multi_index(where, given) if given else np.zeros(cells.shape[1], int)
        laws = np.arange(math.prod(given))
        looks_at.append(np.repeat(laws[:, None] == of_cell, width, axis=0))
        block.append(blocks + np.repeat(laws, width))
        part_of.append(np.full(len(laws) * width, place))
        law.append(start + width * of_cell)
        start, blocks = start + len(laws) * width, blocks + len(laws)
    return Index(
        np.concatenate(part_of), np.concatenate(block), np.concatenate(looks_at),
        np.stack(law, axis=1),
    )  # fmt: skip


def own_places(part: Part) -> tuple[int, ...]:
    """Return the directions of a part's array over which it sums to 1."""
    return tuple(range(len(part.given), len(part.axes)))


def positive(values: Array) -> Array:
    """Return a divisor: 1 where a class is empty, so that its profile is finite."""
    return jnp.where(values > 0, values, 1.0)


def even(values: Array, total: Array, own: tuple[int, ...]) -> Array:
    """Return values divided by their total; even probabilities where there is nothing."""
    size = math.prod(values.shape[place] for place in own)
    return jnp.where(total > 0, values / positive(total), 1.0 / size)


_X, _Y_BY_ARM = Part(("x",)), Part(("y",), ("t",))
AXES = ("t", "z", "x", "y")
"""Axes of a table of counts: treatment, z, x, outcome."""

LEVEL = {
    3: Structure(AXES, ("t", "z"), (_X, _Y_BY_ARM)),
    2: Structure(AXES, ("z",), (_X, Part(("t", "y")))),
}
"""Structures of the levels that have classes."""

EDGE = {
    "x_to_y": Structure(AXES, ("t", "z"), (_X, Part(("y",), ("t", "x")))),
    "z_to_y": Structure(AXES, ("t", "z"), (_X, Part(("y",), ("t", "z")))),
}
"""Level 3 with an edge from a proxy to the outcome."""

BY_ARM = {
    common: Structure(
        AXES, ("t",), (Part(("z",), ("t",)), Part(("x",), () if common else ("t",)), _Y_BY_ARM)
    )
    for common in (True, False)
}
"""Level 3 with the classes of each arm as its gate, as moments of any features have it; by whether
the arms share the law of x."""

APART = Structure(AXES, ("t", "z"), (Part(("x",), ("t",)), _Y_BY_ARM))
"""Level 3 in which the arms share nothing."""


def latent_classes(num_views: int, by_treatment: Sequence[bool] = ()) -> Structure:
    """Return the structure of views that are independent given the class.

    Parameters
    ----------
    num_views
        Number of views, with axes ``"0"``, ``"1"``, ...
    by_treatment
        For each view whether its law also depends on the treatment, which then is an axis ``"t"``
        with a law given the class, too; empty without a treatment.
    """
    views = tuple(str(view) for view in range(num_views))
    if not by_treatment:
        return Structure(views, (), tuple(Part((view,)) for view in views))
    own = (
        Part((view,), ("t",) if flag else ())
        for view, flag in zip(views, by_treatment, strict=True)
    )
    return Structure(("t", *views), ("t",), tuple(own))
