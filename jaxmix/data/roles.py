"""The observational table: columns with roles, checked once, on the host.

Everything after this room works on arrays and trusts them; what is wrong with a table is
found here and said in one line that names the column, the value and the remedy.
"""

from __future__ import annotations

import dataclasses
import inspect
import pathlib
from collections.abc import Mapping, Sequence
from typing import Required, TypedDict, Unpack

import numpy as np

from jaxmix import arguments
from jaxmix.choices import WEIGHT_KINDS
from jaxmix.data import design as design_
from jaxmix.data.arms import arms_of
from jaxmix.data.columns import (
    Column,
    Role,
    check_not_empty,
    check_varies,
    listed,
    notes_of,
    stray_texts,
)
from jaxmix.data.design import Design
from jaxmix.data.reading import as_column
from jaxmix.exceptions import InputError, UnknownColumn
from jaxmix.tables.cells import cells_of, names_of
from jaxmix.tables.files import read_columns
from jaxmix.tables.texts import AUTO, marks_of

CODINGS = ("auto", "linear", "onehot")

ROLES = {
    role.name: role
    for role in (
        Role("treatment", "names", needed=True),
        Role("outcome", "numbers", needed=True, varies=True),
        Role("weights", "weights"),
        Role("cluster", "groups"),
        Role("z", many=True, needed=True, varies=True),
        Role("x", many=True, needed=True, varies=True),
        Role("covariates", many=True, varies=True),
    )
}
"""What columns may be for, in the order in which they are looked at."""


@dataclasses.dataclass(frozen=True, eq=False)
class CausalData:
    """A table with roles: treatment, outcome, two sets of proxies, and what goes with them.

    Build it with `CausalData.from_frame` or `read`; both check the table.

    Attributes
    ----------
    treatment, outcome
        The treatment's name, and the outcome column.
    arms
        Labels of the arms; the control comes first.
    t
        ``(n,)`` int32, the arm of each row as an index into `arms`.
    z, x, covariates
        Columns by role.
    features
        How the views z and x are coded: ``{"z": ..., "x": ...}``.
    design
        Sampling weights, multiplicities and clusters of the rows.
    num_dropped
        Rows dropped because a cell was missing.
    missing
        Missing cells by column, for columns that have any.
    notes
        What was decided in reading the table and is not plain to see, one sentence each.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> table = {name: rng.integers(0, 2, 100) for name in ["t", "y", "z", "x"]}
    >>> data = CausalData.from_frame(table, treatment="t", outcome="y", z=["z"], x=["x"])
    >>> data.num_rows, data.arms
    (100, ('0', '1'))
    """

    treatment: str
    outcome: Column
    arms: tuple[str, ...]
    t: np.ndarray
    z: tuple[Column, ...]
    x: tuple[Column, ...]
    covariates: tuple[Column, ...] = ()
    features: Mapping[str, str] = dataclasses.field(
        default_factory=lambda: {"z": "auto", "x": "auto"}
    )
    design: Design[np.ndarray] = dataclasses.field(default_factory=Design)
    num_dropped: int = 0
    missing: Mapping[str, int] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def weight(self) -> np.ndarray | None:
        """``(n,)`` sampling weights with mean 1, or None."""
        return self.design.weight

    @property
    def multiplicity(self) -> np.ndarray | None:
        """``(n,)`` how many identical rows each row stands for, or None for one each."""
        return self.design.multiplicity

    @property
    def cluster(self) -> np.ndarray | None:
        """``(n,)`` int32 cluster of each row, or None."""
        return self.design.cluster

    @property
    def num_rows(self) -> int:
        """The number of rows in the sample, identical rows counted one by one."""
        if self.multiplicity is None:
            return len(self.t)
        return int(self.multiplicity.sum())

    def arm_sizes(self) -> dict[str, int]:
        """Return the number of rows in each arm."""
        sizes = np.bincount(self.t, weights=self.multiplicity, minlength=len(self.arms))
        return {arm: int(size) for arm, size in zip(self.arms, sizes, strict=True)}

    @classmethod
    def from_frame(
        cls,
        frame: object,
        *,
        treatment: str,
        outcome: str,
        z: Sequence[str],
        x: Sequence[str],
        covariates: Sequence[str] = (),
        weights: str | None = None,
        weights_kind: str = "sampling",
        control: object = None,
        features: str | Mapping[str, str] = "auto",
        cluster: str | None = None,
        missing_marks: str | Sequence[str] = AUTO,
    ) -> CausalData:
        """Give the columns of a table their roles, and check them.

        Parameters
        ----------
        frame
            A dict of arrays, or a pandas, polars or Arrow table.
        treatment, outcome
            Names of one column each. The outcome must be numbers or booleans.
        z, x
            Names of the treatment-side and of the outcome-side proxies.
        covariates
            Names of observed columns to adjust for (level 4 only).
        weights, weights_kind
            A column of weights: ``"sampling"`` weights are normalised to mean 1;
            ``"frequency"`` weights are counts of identical rows.
        control
            The arm that effects are measured from; may be left out where the treatment is
            0/1 or boolean.
        features
            ``"auto"``, ``"linear"`` or ``"onehot"``, for both views or as a dict by view.
        cluster
            A column that names clusters of dependent rows, resampled whole: three or more, and
            two or more in every arm.
        missing_marks
            Texts (or numbers) that mark a missing cell beside null, NaN and the empty text, which
            always do. ``"auto"`` takes spellings of null (NA, NaN, null and their like) in any
            column, and ``.``, ``?``, ``-``, ``None`` and their like in columns that are numbers
            otherwise, where they are at most a fifth of the cells; a list takes its own and no
            others, and an empty list none.

        Raises
        ------
        InputError
            One line that names the column and the remedy.
        """
        named = {
            "treatment": treatment, "outcome": outcome, "z": z, "x": x,
            "covariates": covariates, "weights": weights, "cluster": cluster,
        }  # fmt: skip
        coding = _coding(features)
        arguments.choice("weights_kind (--weights-kind)", weights_kind, WEIGHT_KINDS)
        arguments.arm("control (--control)", control)
        roles = _check_names(names_of(frame), _roles(named))
        marks = marks_of(missing_marks)
        readings = {
            name: as_column(
                name, cells_of(frame, name), role.holds, marks,
                coding=coding.get(role.name, "auto"),
            )
            for name, role in roles.items()
        }  # fmt: skip
        columns = {name: reading.column for name, reading in readings.items()}
        lengths = {len(column.values) for column in columns.values()}
        if len(lengths) > 1:
            sizes = ", ".join(f"{name!r} {len(c.values)}" for name, c in columns.items())
            raise InputError(f"the columns have different lengths: {sizes}; make them equal")
        num_input = lengths.pop()
        if num_input == 0:
            raise InputError("the table has no rows; check that the right file was read")
        design_.check_columns(_single(columns, roles))
        missing = {n: int((~r.present).sum()) for n, r in readings.items() if not r.present.all()}
        hint = ""
        if missing:
            complete = np.logical_and.reduce([reading.present for reading in readings.values()])
            if not complete.any():
                raise InputError(
                    f"every row has a missing cell (missing by column: {_counts(missing)}); "
                    "leave out the emptiest columns"
                )
            for name, role in roles.items():
                check_not_empty(readings[name], role)
            columns = {name: column.take(complete) for name, column in columns.items()}
            dropped = num_input - int(complete.sum())
            hint = (
                f"; {dropped} of {num_input} rows were dropped for missing cells "
                f"({_counts(missing)}), which the emptiest columns may not be worth"
            )
        num_kept = len(columns[outcome].values)
        counts = design_.rows_that_count(_single(columns, roles), weights_kind)
        if counts is not None:
            columns = {name: column.take(counts) for name, column in columns.items()}
        for name, role in roles.items():
            if role.varies:
                check_varies(columns[name], role, hint)
        if columns[outcome].levels is not None:
            raise InputError(
                f"outcome {outcome!r} is text ({listed(stray_texts(columns[outcome]))}); "
                "code it as numbers"
            )
        views = {
            view: tuple(columns[name] for name, role in roles.items() if role.name == view)
            for view in ("z", "x", "covariates")
        }
        arms, codes = arms_of(columns[treatment], control, hint)
        return cls(
            treatment=treatment,
            outcome=columns[outcome],
            arms=arms,
            t=codes,
            z=views["z"],
            x=views["x"],
            covariates=views["covariates"],
            features=coding,
            design=design_.of_columns(_single(columns, roles), weights_kind, codes, arms),
            num_dropped=num_input - num_kept,
            missing=missing,
            notes=notes_of(readings),
        )


class Roles(TypedDict, total=False):
    """The roles of columns, and how they are read; see `CausalData.from_frame`."""

    treatment: Required[str]
    outcome: Required[str]
    z: Required[Sequence[str]]
    x: Required[Sequence[str]]
    covariates: Sequence[str]
    weights: str | None
    weights_kind: str
    control: object
    features: str | Mapping[str, str]
    cluster: str | None
    missing_marks: str | Sequence[str]


def read(
    path: str | pathlib.Path, *, encoding: str | None = None, **roles: Unpack[Roles]
) -> CausalData:
    """Read a csv or parquet file and give its columns their roles.

    Parameters
    ----------
    path
        A csv or parquet file, perhaps compressed, or a pipe that holds one. What it is, is told
        by its content. Only the columns with a role are kept.
    encoding
        The encoding of a csv file; UTF-8 where it is left out.
    **roles
        As in `CausalData.from_frame`: ``treatment``, ``outcome``, ``z``, ``x`` and so on.

    Raises
    ------
    InputError
        For a file that cannot be read as a table, and as `CausalData.from_frame`.
    """
    if not isinstance(path, str | pathlib.PurePath) or not str(path) or "\0" in str(path):
        raise InputError(f"path is {arguments.told(path)}: give the name of a csv or parquet file")
    inspect.signature(CausalData.from_frame).bind(path, **roles)  # a TypeError before any work
    named = _roles(roles)
    columns = read_columns(path, lambda stored: list(_check_names(stored, named)), encoding)
    return CausalData.from_frame(columns, **roles)


def _roles(named: Mapping[str, object]) -> dict[str, Role]:
    """Return the role of each named column; refuse columns that have two."""
    asked: list[tuple[str, Role]] = []
    for role in ROLES.values():
        value = named.get(role.name)
        if role.many:
            group = arguments.columns(role.name, value)
            if not group and role.needed:
                raise InputError(
                    f"{role.name} names no column: the method needs at least one proxy there"
                )
            asked += [(name, role) for name in group]
        elif value is not None or role.needed:
            asked.append((arguments.column(role.name, value), role))
    roles: dict[str, Role] = {}
    for name, role in asked:
        if name in roles:
            first, again = roles[name].name, role.name
            told = f"twice in {again}" if first == again else f"as {first} and as {again}"
            raise InputError(f"column {name!r} is named {told}; a column has one role")
        roles[name] = role
    return roles


def _single(columns: Mapping[str, Column], roles: Mapping[str, Role]) -> dict[str, Column]:
    """Return the columns of roles that one column has, by role."""
    return {role.name: columns[name] for name, role in roles.items() if not role.many}


def _check_names(stored: Sequence[str], roles: Mapping[str, Role]) -> Mapping[str, Role]:
    """Return the roles where each of their columns stands in the table exactly once."""
    for name, role in roles.items():
        if name not in stored:
            raise UnknownColumn(
                f"column {arguments.told(name)} ({role.name}) is not in the table; it has "
                f"{listed(stored)}",
                stored,
            )
        if (times := list(stored).count(name)) > 1:
            raise InputError(
                f"column {name!r} ({role.name}) appears {times} times in the table; "
                "rename or drop the others"
            )
    return roles


def _coding(features: str | Mapping[str, str]) -> dict[str, str]:
    arguments.instance("features", features, (str, Mapping), f"use {listed(CODINGS)}, or a dict")
    coding = {"z": features, "x": features} if isinstance(features, str) else dict(features)
    coding = {"z": "auto", "x": "auto"} | coding
    for view, kind in coding.items():
        if view not in ("z", "x"):
            raise InputError(f"features names the view {view!r}: the views are 'z' and 'x'")
        if not isinstance(kind, str) or kind not in CODINGS:
            told = arguments.told(kind)
            raise InputError(f"features is {told} for {view}: use one of {listed(CODINGS)}")
    return coding


def _counts(missing: Mapping[str, int]) -> str:
    return ", ".join(f"{name!r} {count}" for name, count in missing.items())
