"""Columns that say nothing of their own: given by others, one proxy on both sides."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from jaxmix.data.coding import Features
from jaxmix.data.columns import listed
from jaxmix.exceptions import InputError

SAME = 1e-10
"""Share of a proxy that the other side may leave unexplained and still be that side again."""

NEARLY = 0.02
"""The same share, up to which the estimate is close to plain regression."""

_EPS = float(np.finfo(np.float64).eps)
_ROUNDING = 32.0  # last places of all that went into a difference: what is left below is nothing
_LOOK = 1e-2  # share of variance left below which products of columns are too coarse a measure
_MATTERS = 1e-6  # of the largest coefficient: what is smaller has no part in it
_GONE = 1e-9  # of a feature's size within some rows: what is left below is named as nothing


def independent(
    before: Features, new: Features, mass: np.ndarray, view: str, *, apart: bool = False
) -> Features:
    """Return features after others, none of them given by those before it.

    Collinearity is judged by what is left of a column against its rounding, so that a year and its
    square are two columns.

    Parameters
    ----------
    before
        The constant, and covariates.
    new
        The others, with a constant of their own.
    mass
        ``(n,)`` weights of the rows.
    view
        What the features are for: ``"covariates"``, or a view.
    apart
        Whether to put what is left of a feature in its place where that is little: the same
        columns to regress on, and no cancellation. For covariates, whose coefficients nobody sees.

    Raises
    ------
    InputError
        For a feature that is a linear combination of those before it.
    """
    whole = before.join(new)
    block, size, share = whole.block, whole.size, mass / mass.sum()
    start, j = before.block.shape[1], before.block.shape[1]
    while j < block.shape[1]:
        j = _first_close(block, share, j)
        if j == block.shape[1]:
            break
        left, coef = _left_over(block[:, :j], block[:, j], np.sqrt(share))
        rest = np.sqrt(share @ left**2)
        rounding = _EPS * (size[j] + np.abs(coef) @ size[:j])
        if rest <= _ROUNDING * rounding:
            raise InputError(_message(whole.names, coef, j, start, view))
        if apart:
            block[:, j] = left / rest
            size[j] = rounding / _EPS / rest
        j += 1
    return Features(block, whole.names, size)


def _message(names: Sequence[str], coef: np.ndarray, j: int, start: int, view: str) -> str:
    parts = _parts(names, coef)
    made_of = f" ({', '.join(parts)})" if parts else ""
    if view == "covariates":
        what = f"{names[j]} of the covariates is a linear combination of the constant and the "
        return f"{what}covariates before it{made_of}; leave it out"
    return (
        f"{names[j]} of view {view} is a linear combination of the constant and the columns "
        f"before it (covariates first){made_of}; leave it out"
    )


def _parts(names: Sequence[str], coef: np.ndarray) -> list[str]:
    """Return the features that matter in a linear combination."""
    largest = np.abs(coef).max()
    parts = [n for n, c in zip(names, coef, strict=False) if abs(c) > _MATTERS * largest]
    return [name for name in dict.fromkeys(parts) if name != "the constant"]


def _first_close(block: np.ndarray, share: np.ndarray, start: int) -> int:
    """Return the first feature from `start` on of which those before it leave little."""
    gram = (block * share[:, None]).T @ block
    own = np.diagonal(gram).copy()
    for j in range(len(gram)):
        if gram[j, j] <= _LOOK * own[j]:
            if j >= start:
                return j
            # Looked at before, and of its own: the later ones are measured without it.
            gram[j:, j] = 0.0
            continue
        gram[j:, j] /= np.sqrt(gram[j, j])
        gram[j + 1 :, j + 1 :] -= np.outer(gram[j + 1 :, j], gram[j + 1 :, j])
    return len(gram)


def _left_over(
    basis: np.ndarray, values: np.ndarray, root: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return what a regression leaves, to the last place, and its coefficients."""
    weighted = basis * root[:, None]
    coef = np.linalg.lstsq(weighted, values * root, rcond=None)[0]
    left = values - basis @ coef
    more = np.linalg.lstsq(weighted, left * root, rcond=None)[0]
    return left - basis @ more, coef + more


@dataclasses.dataclass(frozen=True)
class Side:
    """One side's proxies.

    Attributes
    ----------
    view
        ``"z"`` or ``"x"``.
    names
        Its columns.
    columns
        ``(n, ...)`` features of each column by itself.
    block
        ``(n, d)`` features of all of them.
    joint
        Whether the block codes the columns jointly.
    """

    view: str
    names: tuple[str, ...]
    columns: tuple[np.ndarray, ...]
    block: np.ndarray
    joint: bool

    def of(self, places: Sequence[int]) -> np.ndarray:
        """Return features of some of the columns."""
        if self.joint and len(places) == len(self.names):
            return self.block
        return np.hstack([self.columns[place] for place in places])


@dataclasses.dataclass(frozen=True)
class Copy:
    """A proxy that the other side gives.

    Attributes
    ----------
    column, view
        Its name and its side.
    others
        Names of the other side's columns that give it.
    unexplained
        1 minus its partial R2 on them.
    """

    column: str
    view: str
    others: tuple[str, ...]
    unexplained: float

    @property
    def words(self) -> str:
        """Say which is which."""
        other, nearly = "x" if self.view == "z" else "z", self.unexplained > SAME
        one = f"column {self.column!r} of {self.view} is {'nearly ' if nearly else ''}"
        if len(self.others) > 1:
            return f"{one}what columns {listed(self.others)} of {other} say together"
        return f"{one}column {self.others[0]!r} of {other}{'' if nearly else ' again'}"


def copies(shared: np.ndarray, sides: Sequence[Side], mass: np.ndarray) -> list[Copy]:
    """Return the proxies that the other side gives, nearly or exactly, given what is shared.

    Each column by its partial R2 on all columns of the other side, in both directions: the share
    of what the constant and the covariates leave of it that the other side explains.

    Parameters
    ----------
    shared
        ``(n, s)`` the constant and the covariates.
    sides
        z and x.
    mass
        ``(n,)`` weights of the rows.
    """
    share = mass / mass.sum()
    parts = [shared, *(s.block for s in sides), *(c for s in sides for c in s.columns)]
    whole = np.hstack(parts)
    places = np.split(np.arange(whole.shape[1]), np.cumsum([part.shape[1] for part in parts])[:-1])
    gram = (whole * share[:, None]).T @ whole
    left = gram - gram[:, places[0]] @ _inverse(gram, places[0]) @ gram[places[0]]
    of_columns = iter(places[3:])
    own = [[next(of_columns) for _ in side.columns] for side in sides]
    found: dict[frozenset[str], Copy] = {}
    for i in (1, 0):
        side, other, others = sides[i], sides[1 - i], places[2 - i]
        inverse = _inverse(left, others)
        for name, values, at in zip(side.names, side.columns, own[i], strict=True):
            size, cross = np.trace(left[np.ix_(at, at)]), left[np.ix_(others, at)]
            known = size > _LOOK**3 * np.trace(gram[np.ix_(at, at)])
            if known and np.sum(cross * (inverse @ cross)) < (1 - 2 * NEARLY) * size:
                continue
            copy = _copy(name, side.view, values, other, shared, np.sqrt(share)[:, None])
            if copy is not None:
                found.setdefault(frozenset((name, *copy.others)), copy)
    return list(found.values())


def _inverse(gram: np.ndarray, places: np.ndarray) -> np.ndarray:
    return np.linalg.pinv(gram[np.ix_(places, places)], rcond=1e-10, hermitian=True)


def _copy(
    name: str, view: str, values: np.ndarray, other: Side, shared: np.ndarray, root: np.ndarray
) -> Copy | None:
    """Return which columns of the other side give a proxy, as few as will do; to the last place."""
    before = np.linalg.qr(root * shared)[0]
    target = _clear(before, root * values)
    if np.linalg.norm(target) <= _GONE * np.linalg.norm(root * values):
        return None  # the covariates give it, and nothing is left for the other side

    def unexplained(places: Sequence[int]) -> float:
        basis = np.linalg.qr(_clear(before, root * other.of(places)))[0]
        return float(np.sum(_clear(basis, target) ** 2) / np.sum(target**2))

    places = list(range(len(other.names)))
    share = unexplained(places)
    if share > NEARLY:
        return None
    limit = SAME if share <= SAME else NEARLY
    for place in tuple(places):
        fewer = [p for p in places if p != place]
        if fewer and unexplained(fewer) <= limit:
            places = fewer
    return Copy(name, view, tuple(other.names[p] for p in places), unexplained(places))


def _clear(basis: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return what an orthonormal basis leaves of columns; twice, for the last places."""
    once = values - basis @ (basis.T @ values)
    found: np.ndarray = once - basis @ (basis.T @ once)
    return found


def refuse_copies(found: Iterable[Copy]) -> None:
    """Refuse a proxy that is the other side again."""
    for copy in found:
        if copy.unexplained <= SAME:
            raise InputError(
                f"{copy.words} (beside the constant and the covariates it is given "
                "exactly): the estimate would be plain regression on it, and hidden confounding "
                "would stay; take a proxy that is measured apart"
            )


def notes_on_copies(found: Iterable[Copy]) -> list[str]:
    """Say which proxies are nearly the other side."""
    notes = []
    for copy in found:
        if copy.unexplained > SAME:
            notes.append(
                f"{copy.words} (partial R2 {1 - copy.unexplained:.4f}): the estimate "
                "is close to plain regression on it, and hidden confounding stays"
            )
    return notes


def nothing_left(
    block: np.ndarray, names: Sequence[str], root: np.ndarray, where: str
) -> list[str]:
    """Say which features are given, within some rows, by those before them.

    Parameters
    ----------
    block
        ``(n, d)`` features of these rows, the constant first.
    names
        What each is called.
    root
        ``(n,)`` roots of the rows' weights.
    where
        Which rows these are, in words.
    """
    found = []
    for j in range(1, block.shape[1]):
        size = np.linalg.norm(root * block[:, j])
        left, coef = _left_over(block[:, :j], block[:, j], root)
        if np.linalg.norm(root * left) > _GONE * size:
            continue
        if np.ptp(block[:, j]) <= _GONE * np.abs(block[:, j]).max():
            found.append(f"{names[j]} does not vary{where}")
            continue
        parts = _parts(names, coef)
        found.append(f"{names[j]} is a linear function of {' and '.join(parts)}{where}")
    return found
