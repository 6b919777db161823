"""The pieces of a result: estimates with intervals, fitted classes, diagnostics."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmix.data.categories import check_stored
from jaxmix.data.columns import label, listed
from jaxmix.data.reading import levels_of
from jaxmix.data.roles import CausalData
from jaxmix.inference.sensitivity import Sensitivity
from jaxmix.inference.specification import SpecificationTest
from jaxmix.model.law import Mixture
from jaxmix.results.later import Later
from jaxmix.status import InputError
from jaxmix.tables.cells import cells_of, names_of
from jaxmix.tables.texts import USUAL

CLASSES = "level_3"
"""The name of what stands beside a headline of level 4: the law of its classes."""


class Estimate(NamedTuple):
    """A number with its standard error and interval (None where there is none)."""

    value: float
    se: float | None = None
    interval: tuple[float, float] | None = None


class PerClass(NamedTuple):
    """Numbers beside an effect law: ``shares`` and ``effects``, ``(k,)`` or ``(k, 2)``."""

    shares: np.ndarray
    effects: np.ndarray


class InfluentialRow(NamedTuple):
    """A row that moves the estimate.

    Attributes
    ----------
    values
        Its values by column: treatment, outcome, proxies.
    copies
        How many rows it stands for: those identical to it, where rows are merged.
    change
        By how much the estimate would change without them, to first order.
    """

    values: Mapping[str, str]
    copies: int
    change: float


class FurtherTests(NamedTuple):
    """Tests of the classes beside that of the specification; see `Diagnostics`."""

    tests: Mapping[str, SpecificationTest] = {}
    complex_spectra: float | None = None
    gap: float | None = None
    condition: float | None = None


@dataclasses.dataclass(frozen=True)
class Checks:
    """What further checks say of an estimate, each part computed when it is first read.

    Attributes
    ----------
    tests
        Tests of the classes.
    rows
        The rows that move the estimate most.
    bounds
        Bounds where level 3's assumption fails, or None.
    untested
        Why there are no bounds; empty where there are.
    asked
        Whether they were asked for (`checks` of `jaxmix.fit`); where not, nothing is computed.
    """

    tests: Later[FurtherTests]
    rows: Later[tuple[InfluentialRow, ...]]
    bounds: Later[Sensitivity | None] = dataclasses.field(compare=False)
    untested: str = ""
    asked: bool = True

    @classmethod
    def left_out(cls, *, gap: float | None = None, condition: float | None = None) -> Checks:
        """Return those of a fit without checks, with what a closed form says of its spectrum."""
        tests = FurtherTests(gap=gap, condition=condition)
        why = "the further checks were left out (checks, --no-checks)"
        return cls(Later.known(tests), Later.known(()), Later.known(None), why, asked=False)

    def read(self, told: Callable[[str], object] | None = None) -> None:
        """Compute what was not read yet.

        Parameters
        ----------
        told
            Called with the name of each part before it is computed.
        """
        for name, part in (
            ("tests of the classes", self.tests), ("influential rows", self.rows),
            ("sensitivity bounds", self.bounds),
        ):  # fmt: skip
            if told is not None and not part.is_read:
                told(name)
            part.read()


class Resamples(NamedTuple):
    """How intervals were made, and what became of the resamples; see `Diagnostics`."""

    interval: str = "normal"
    num_resamples: int = 0
    resampling: str | None = None
    failed: Mapping[str, int] = {}
    out_of_range: int = 0
    ambiguous: int = 0


_SHOWN = (
    "arm_sizes", "num_features", "rank", "singular_values", "proxy_strength", "specification",
    "gap", "condition", "repairs", "starts", "interval", "num_resamples", "resampling", "failed",
    "out_of_range", "ambiguous", "tests", "complex_spectra", "influential",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, repr=False)
class Diagnostics:
    """What there is to know about how far an estimate can be trusted.

    What `checks` holds is computed when it is first read: `tests`, `complex_spectra`, `gap` and
    `condition` at once, and `influential`.

    Attributes
    ----------
    arm_sizes
        Rows by arm.
    num_features
        Features of z and of x.
    rank
        The rank that was used.
    singular_values
        Singular values of E[z x | T=t] by arm, largest first ("all" when pooled); covariates
        partialled out.
    proxy_strength
        Effective F of the smallest of them that was used, by arm: its square over what sampling
        noise alone would make of it; below 10 the proxies count as weak.
    gap, condition
        Of the spectral operator: the smallest distance of eigenvalues in units of the outcome's
        range, and the condition of the class profiles.
    starts
        Factorization: how the solver fared; ``num_starts`` of them, ``num_agree`` at the best
        optimum, ``runner_up`` the gap to the next one in log-likelihood units, ``miss_rate`` how
        often a better optimum that draws a tenth of random starts is missed.
    repairs
        Named sizes of what was repaired to get numbers: ``share_repair``, ``imaginary``.
    specification
        Test of the specification, or why there is none.
    interval
        How intervals were made: ``"profile"`` or a kind of `jaxmix.fit`.
    num_resamples, resampling
        How many resamples, and of which kind (None without).
    failed
        Resamples without an estimate, by status.
    out_of_range
        Resamples whose estimate was out of range; they are kept in the intervals.
    ambiguous
        Resamples whose classes did not match those of the estimate one to one.
    tests
        Further tests by name. Level 3: ``arms`` (equal classes across arms) and ``range``; level
        2: ``z_to_t`` (level 2 inside level 3).
    complex_spectra
        Share of resamples in which the arms' operators have complex eigenvalues; None where no
        resamples were drawn, and for one class.
    influential
        The rows that move the estimate most, largest first: `InfluentialRow`; empty without the
        further checks.
    """

    arm_sizes: Mapping[str, int]
    num_features: Mapping[str, int]
    rank: int
    singular_values: Mapping[str, tuple[float, ...]]
    proxy_strength: Mapping[str, float]
    specification: SpecificationTest
    repairs: Mapping[str, float] = dataclasses.field(default_factory=dict)
    starts: Mapping[str, float] = dataclasses.field(default_factory=dict)
    interval: str = "normal"
    num_resamples: int = 0
    resampling: str | None = None
    failed: Mapping[str, int] = dataclasses.field(default_factory=dict)
    out_of_range: int = 0
    ambiguous: int = 0
    checks: Checks = dataclasses.field(default_factory=Checks.left_out)

    def __setstate__(self, state: Mapping[str, object]) -> None:
        self.__dict__.update(state if "checks" in state else _with_checks(state))

    @property
    def num_failed(self) -> int:
        """Resamples without an estimate."""
        return sum(self.failed.values())

    @property
    def tests(self) -> Mapping[str, SpecificationTest]:
        """Further tests by name."""
        return self.checks.tests.read().tests

    @property
    def complex_spectra(self) -> float | None:
        """Share of resamples whose spectra are complex."""
        return self.checks.tests.read().complex_spectra

    @property
    def gap(self) -> float | None:
        """The smallest distance of eigenvalues."""
        return self.checks.tests.read().gap

    @property
    def condition(self) -> float | None:
        """The condition of the class profiles."""
        return self.checks.tests.read().condition

    @property
    def influential(self) -> tuple[InfluentialRow, ...]:
        """The rows that move the estimate most."""
        return self.checks.rows.read()

    def to_dict(self) -> dict[str, object]:
        """Return everything by name, what is computed later too."""
        record: dict[str, object] = {name: getattr(self, name) for name in _SHOWN}
        record["specification"] = dataclasses.asdict(self.specification)
        record["tests"] = {name: dataclasses.asdict(test) for name, test in self.tests.items()}
        return record

    def __repr__(self) -> str:
        parts = self.to_dict() | {"specification": self.specification, "tests": self.tests}
        return f"Diagnostics({', '.join(f'{name}={part!r}' for name, part in parts.items())})"


def _with_checks(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of diagnostics that the release before pickled, as they are now."""
    own = dict(state)
    tests = FurtherTests(*(own.pop(name) for name in FurtherTests._fields))
    rows = Later.known(own.pop("influential"))
    return own | {"checks": Checks(Later.known(tests), rows, Later.known(None))}


@dataclasses.dataclass(frozen=True, eq=False)
class Classes:
    """The fitted classes with the names of the columns and cells their profiles speak of.

    Attributes
    ----------
    mixture
        Shares, means and profiles (`jaxmix.Mixture`).
    treatment, outcome, z, x
        Names of the columns.
    arms
        Labels of the arms.
    z_cells, x_cells
        Joint values of the columns behind each feature of z and of x.
    outcome_values
        The outcome behind each of its features.
    """

    mixture: Mixture
    treatment: str
    outcome: str
    z: tuple[str, ...]
    x: tuple[str, ...]
    arms: tuple[str, ...]
    z_cells: Sequence[tuple[str, ...]]
    x_cells: Sequence[tuple[str, ...]]
    outcome_values: np.ndarray

    def posterior(self, rows: object) -> np.ndarray:
        """Return ``P(U=u | row)``, ``(n, k)``; NaN where a row is impossible under the fit.

        Parameters
        ----------
        rows
            A `CausalData`, or any table with the columns of the fit.
        """
        outcomes = tuple(label(value) for value in self.outcome_values)
        known: dict[str, Collection[str]] = {self.treatment: self.arms, self.outcome: outcomes}
        for names, cells in ((self.z, self.z_cells), (self.x, self.x_cells)):
            known |= {name: {cell[j] for cell in cells} for j, name in enumerate(names)}
        read = {name: _texts_of(rows, name, levels) for name, levels in known.items()}
        sizes = {name: len(codes) for name, (_, codes) in read.items()}
        if len(set(sizes.values())) > 1:
            told = ", ".join(f"{name!r} {size}" for name, size in sizes.items())
            raise InputError(f"the columns have different lengths: {told}; make them equal")
        if not sizes[self.treatment]:
            raise InputError("the table has no rows; check that the right file was read")
        t = _places(f"arm {{}} of {self.treatment!r} is not in the fit", self.arms,
                    *read[self.treatment])  # fmt: skip
        y = _places(f"outcome {self.outcome!r} = {{}} does not occur in the fit", outcomes,
                    *read[self.outcome], quoted=False)  # fmt: skip
        z = _cells("z", self.z, self.z_cells, read)
        x = _cells("x", self.x, self.x_cells, read)
        hot = (np.eye(size)[i] for i, size in
               ((z, len(self.z_cells)), (x, len(self.x_cells)), (y, len(outcomes))))  # fmt: skip
        with jax.enable_x64(True):
            arrays = (jnp.asarray(part) for part in (t, *hot))
            return np.asarray(self.mixture.posterior(*arrays))


def _texts_of(rows: object, name: str, known: Collection[str]) -> tuple[Sequence[str], np.ndarray]:
    """Return the texts that occur in a column, and which of them each row has."""
    if isinstance(rows, CausalData):
        if name == rows.treatment:
            return rows.arms, rows.t
        columns = {column.name: column for column in (rows.outcome, *rows.z, *rows.x)}
        check_stored(name, (rows.treatment, *columns))
        found, codes = np.unique(columns[name].values, return_inverse=True)
        levels = columns[name].levels
        return [levels[int(v)] if levels else label(v) for v in found], codes.ravel()
    check_stored(name, names_of(rows))
    texts, codes = levels_of(name, cells_of(rows, name), known, USUAL)
    if (codes < 0).any():
        raise InputError(
            f"column {name!r} has {int((codes < 0).sum())} missing cells (first in row "
            f"{int(np.argmax(codes < 0)) + 1}); class probabilities need every cell: fill them, or "
            "leave these rows out"
        )
    return texts, codes


def _places(
    unknown: str, known: Sequence[str], texts: Sequence[str], codes: np.ndarray,
    *, quoted: bool = True,
) -> np.ndarray:  # fmt: skip
    """Return which of the known texts each row has; `unknown` says what is wrong with another."""
    used = [texts[code] for code in np.unique(codes)]
    for text in used:
        if text not in known:
            shown = repr(text) if quoted else text
            raise InputError(f"{unknown.format(shown)}; it knows {listed(known)}")
    place = {text: i for i, text in enumerate(known)}
    found: np.ndarray = np.array([place.get(text, -1) for text in texts])[codes]
    return found


def _cells(
    view: str,
    names: Sequence[str],
    cells: Sequence[tuple[str, ...]],
    read: Mapping[str, tuple[Sequence[str], np.ndarray]],
) -> np.ndarray:
    """Return the joint cell of each row in a view."""
    parts, levels = [], []
    for j, name in enumerate(names):
        levels.append(sorted({cell[j] for cell in cells}))
        unknown = f"the {view} values {name} = {{}} do not occur in the data of the fit"
        parts.append(_places(unknown, levels[-1], *read[name], quoted=False))
    distinct, inverse = np.unique(np.stack(parts, axis=1), axis=0, return_inverse=True)
    place = {cell: i for i, cell in enumerate(cells)}
    found = [tuple(own[i] for own, i in zip(levels, row, strict=True)) for row in distinct]
    for cell in found:
        if cell not in place:
            told = ", ".join(f"{name} = {text}" for name, text in zip(names, cell, strict=True))
            raise InputError(
                f"the {view} values {told} do not occur together in the data of the fit"
            )
    return np.array([place[cell] for cell in found])[inverse.ravel()]
