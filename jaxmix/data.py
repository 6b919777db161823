"""The observational table: columns with roles, checked once, on the host.

Everything after this room works on arrays and trusts them; what is wrong with a table is
found here and said in one line that names the column, the value and the remedy.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxmix import clusters
from jaxmix.columns import Column, as_column, label, listed, names_of, raw_values, stray_texts
from jaxmix.status import InputError

CODINGS = ("auto", "linear", "onehot")
WEIGHT_KINDS = ("sampling", "frequency")


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
    weight
        ``(n,)`` sampling weights with mean 1, or None.
    multiplicity
        ``(n,)`` how many identical rows each row stands for, or None for one each.
    cluster
        ``(n,)`` int32 cluster of each row, or None.
    num_dropped
        Rows dropped because a cell was missing.
    missing
        Missing cells by column, for columns that have any.

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
    weight: np.ndarray | None = None
    multiplicity: np.ndarray | None = None
    cluster: np.ndarray | None = None
    num_dropped: int = 0
    missing: Mapping[str, int] = dataclasses.field(default_factory=dict)

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
        frame: Any,
        *,
        treatment: str,
        outcome: str,
        z: Sequence[str],
        x: Sequence[str],
        covariates: Sequence[str] = (),
        weights: str | None = None,
        weights_kind: str = "sampling",
        control: Any = None,
        features: str | Mapping[str, str] = "auto",
        cluster: str | None = None,
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
        if weights_kind not in WEIGHT_KINDS:
            raise InputError(
                f"weights_kind (--weights-kind) is {weights_kind!r}: use one of "
                f"{listed(WEIGHT_KINDS)}"
            )
        roles = _check_names(names_of(frame), _roles(named))
        columns, present = {}, {}
        for name in roles:
            columns[name], present[name] = as_column(name, raw_values(frame, name))
        lengths = {len(column.values) for column in columns.values()}
        if len(lengths) > 1:
            sizes = ", ".join(f"{name!r} {len(c.values)}" for name, c in columns.items())
            raise InputError(f"the columns have different lengths: {sizes}; make them equal")
        num_input = lengths.pop()
        if num_input == 0:
            raise InputError("the table has no rows; check that the right file was read")
        if weights is not None:
            _check_weights(columns[weights])
        missing = {name: int((~ok).sum()) for name, ok in present.items() if not ok.all()}
        if missing:
            complete = np.logical_and.reduce(list(present.values()))
            if not complete.any():
                raise InputError(
                    f"every row has a missing cell (missing by column: {_counts(missing)}); "
                    "leave out the emptiest columns"
                )
            columns = {name: column.take(complete) for name, column in columns.items()}
        num_kept = len(columns[outcome].values)

        weight = multiplicity = None
        if weights is not None:
            weight = _weights(columns[weights], weights_kind)
            keep = weight > 0
            if not keep.all():
                columns = {name: column.take(keep) for name, column in columns.items()}
                weight = weight[keep]
            if weights_kind == "frequency":
                weight, multiplicity = None, weight
            else:
                weight = weight / weight.mean()

        for name, role in roles.items():
            if role in ("outcome", "z", "x", "covariates"):
                _check_varies(columns[name], role)
        if columns[outcome].levels is not None:
            raise InputError(
                f"outcome {outcome!r} is text ({listed(stray_texts(columns[outcome]))}); "
                "code it as numbers"
            )
        views = {
            view: tuple(columns[name] for name, role in roles.items() if role == view)
            for view in ("z", "x", "covariates")
        }
        for column in (column for view in views.values() for column in view):
            _check_not_numbers(column)
        arms, codes = _arms(columns[treatment], control)
        groups = None
        if cluster is not None:
            groups = clusters.numbered(columns[cluster], codes, arms)
        return cls(
            treatment=treatment,
            outcome=columns[outcome],
            arms=arms,
            t=codes,
            z=views["z"],
            x=views["x"],
            covariates=views["covariates"],
            features=coding,
            weight=weight,
            multiplicity=multiplicity,
            cluster=groups,
            num_dropped=num_input - num_kept,
            missing=missing,
        )


def read(path: str | pathlib.Path, **roles: Any) -> CausalData:
    """Read a csv or parquet file and give its columns their roles.

    Parameters
    ----------
    path
        A ``.csv`` (also ``.csv.gz``, ``.txt``) or ``.parquet`` file. Only the columns with a
        role are kept.
    **roles
        As in `CausalData.from_frame`: ``treatment``, ``outcome``, ``z``, ``x`` and so on.

    Raises
    ------
    InputError
        For a file that cannot be read as a table, and as `CausalData.from_frame`.
    """
    try:
        import pyarrow as pa
        import pyarrow.csv
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise InputError("reading files needs the extra 'io': pip install 'jaxmix[io]'") from None
    path = pathlib.Path(path)
    if path.is_dir():
        raise InputError(f"{str(path)!r} is a folder; give a csv or parquet file")
    if not path.is_file():
        raise InputError(f"there is no file {str(path)!r}; check the path")
    if path.stat().st_size == 0:
        raise InputError(f"the file {str(path)!r} is empty")
    is_parquet = path.suffix in (".parquet", ".pq")
    try:
        if is_parquet:
            stored = pa.parquet.read_schema(path).names
        else:
            with pa.csv.open_csv(path) as reader:
                stored = reader.schema.names
        wanted = list(_check_names(stored, _roles(roles)))
        if is_parquet:
            table = pa.parquet.read_table(path, columns=wanted)
        else:
            converting = pa.csv.ConvertOptions(strings_can_be_null=True, include_columns=wanted)
            table = pa.csv.read_csv(path, convert_options=converting)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        # What is no table may be quoted in the reason: no line breaks, no control characters.
        reason = " ".join(str(error).split())[:200]
        reason = "".join(c if c.isprintable() else "?" for c in reason)
        raise InputError(
            f"the file {str(path)!r} cannot be read as a table ({reason}); "
            "give a csv or parquet file with one header row"
        ) from None
    return CausalData.from_frame(table, **roles)


def _roles(named: Mapping[str, Any]) -> dict[str, str]:
    """Return the role of each named column; refuse columns that have two."""
    asked: list[tuple[str, str]] = []
    for role in ("treatment", "outcome", "weights", "cluster"):
        if named.get(role) is not None:
            asked.append((named[role], role))
    for role in ("z", "x", "covariates"):
        group = named.get(role)
        if isinstance(group, str):
            raise InputError(f"{role} is the text {group!r}: give a list of column names")
        group = [] if group is None else list(group)
        if not group and role != "covariates":
            raise InputError(f"{role} names no column: the method needs at least one proxy there")
        asked += [(name, role) for name in group]
    roles: dict[str, str] = {}
    for name, role in asked:
        if name in roles:
            told = f"twice in {role}" if roles[name] == role else f"as {roles[name]} and as {role}"
            raise InputError(f"column {name!r} is named {told}; a column has one role")
        roles[name] = role
    return roles


def _check_names(stored: Sequence[str], roles: Mapping[str, str]) -> Mapping[str, str]:
    """Return the roles where each of their columns stands in the table exactly once."""
    for name, role in roles.items():
        if name not in stored:
            raise InputError(
                f"column {name!r} ({role}) is not in the table; it has {listed(stored)}"
            )
        if (times := list(stored).count(name)) > 1:
            raise InputError(
                f"column {name!r} ({role}) appears {times} times in the table; "
                "rename or drop the others"
            )
    return roles


def _coding(features: str | Mapping[str, str]) -> dict[str, str]:
    coding = {"z": features, "x": features} if isinstance(features, str) else dict(features)
    coding = {"z": "auto", "x": "auto"} | coding
    for view, kind in coding.items():
        if view not in ("z", "x"):
            raise InputError(f"features names the view {view!r}: the views are 'z' and 'x'")
        if kind not in CODINGS:
            raise InputError(f"features is {kind!r} for {view}: use one of {listed(CODINGS)}")
    return coding


def _check_not_numbers(column: Column) -> None:
    """Refuse a column of numbers that a few stray texts have turned into text."""
    strays = stray_texts(column) if column.levels else ()
    if column.levels and 5 * len(strays) <= len(column.levels):
        raise InputError(
            f"column {column.name!r} is text, but nearly all of its values are numbers; correct "
            f"or empty the cells that hold {listed(strays)}"
        )


def _check_weights(column: Column) -> None:
    """Refuse text and negative weights, rows numbered as in the table."""
    if column.levels is not None:
        raise InputError(
            f"weights {column.name!r} is text ({listed(stray_texts(column))}); weights are numbers"
        )
    negative = column.values < 0
    if negative.any():
        row = int(np.argmax(negative))
        raise InputError(
            f"weights {column.name!r} is negative ({label(column.values[row])}, first in row "
            f"{row + 1}); weights are zero or more"
        )


def _weights(column: Column, kind: str) -> np.ndarray:
    values = column.values
    if not (values > 0).any():
        raise InputError(f"weights {column.name!r} is zero in every row")
    if kind == "frequency" and (values != np.floor(values)).any():
        bad = values[values != np.floor(values)][0]
        raise InputError(
            f"frequency weights {column.name!r} are not whole numbers ({label(bad)}); use "
            "the kind 'sampling'"
        )
    return values


def _check_varies(column: Column, role: str) -> None:
    if (column.values == column.values[0]).all():
        value = column.labels()[0]
        raise InputError(
            f"column {column.name!r} ({role}) is constant ({value!r}) in the rows used; leave it "
            + ("out" if role == "covariates" else "out or take another")
        )


def _arms(column: Column, control: Any) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the labels of the arms, control first, and the arm of each row."""
    found, inverse = np.unique(column.values, return_inverse=True)
    labels = [column.levels[v] for v in found] if column.levels else [label(v) for v in found]
    if len(labels) < 2:
        raise InputError(
            f"treatment {column.name!r} has one arm only ({labels[0]!r}) in the rows used; "
            "a comparison needs two"
        )
    if control is None:
        if labels != ["0", "1"]:
            raise InputError(
                f"treatment {column.name!r} has the arms {listed(labels)}: say with control= "
                "(--control) which one effects are measured from"
            )
        control = "0"
    wanted = control if isinstance(control, str) else label(control)
    if wanted not in labels:
        raise InputError(
            f"control {wanted!r} is not an arm of treatment {column.name!r}: {listed(labels)}"
        )
    first = labels.index(wanted)
    order = [first] + [i for i in range(len(labels)) if i != first]
    position = np.argsort(order).astype(np.int32)
    return tuple(labels[i] for i in order), position[inverse.ravel()]


def _counts(missing: Mapping[str, int]) -> str:
    return ", ".join(f"{name!r} {count}" for name, count in missing.items())
