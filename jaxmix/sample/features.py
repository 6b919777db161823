"""Columns to view arrays: one-hot or linear features, standardised, always with the constant."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxmix import arguments
from jaxmix.data import redundancy
from jaxmix.data.coding import Features, cell_features, check_varies, exponent, indicators, linear
from jaxmix.data.columns import Column, label
from jaxmix.data.roles import CausalData
from jaxmix.sample.views import Views as Views
from jaxmix.sample.views import max_rank as max_rank
from jaxmix.sample.views import on_device
from jaxmix.status import InputError

MAX_CELLS = 64
"""Most cells a joint one-hot coding may have: beyond it cells are thin and moments large."""

MAX_OUTCOMES = 6
"""Most values of an outcome that is coded one-hot beside one-hot proxies."""

_LOOK = 20_000  # rows looked at before a column is sorted in full, to tell it is continuous
_FEW = 1_000  # a column with more distinct values than this among them is continuous


def encode(data: CausalData, *, reduce: bool = False) -> Views:
    """Code the columns of a table as features.

    A view whose columns are all text, boolean or two-valued is coded one-hot *jointly*, one
    feature per combination of values that occurs; any other view is linear: the constant and
    the standardised columns, text columns inside it one-hot without their first level. Where
    covariates are present, or one view is linear, both views begin with the same features, the
    constant and the standardised covariates (of one that those before it nearly give, what they
    leave), and a one-hot view drops its first cell. The
    outcome view is one-hot where both proxies are and the outcome has at most `MAX_OUTCOMES`
    values, and otherwise the constant and the standardised outcome.

    Parameters
    ----------
    data
        The checked table.
    reduce
        Whether identical rows are merged first (see `distinct`); rows then carry counts.

    Returns
    -------
    Views
        Arrays in the default precision of JAX (float64 where x64 is enabled).

    Raises
    ------
    InputError
        For a joint one-hot coding over `MAX_CELLS` cells, text of too many levels, columns that
        depend linearly on the ones before them, and an arm with fewer than 2 max(d_z, d_x) rows.

    Examples
    --------
    >>> import jaxmix as jm
    >>> table = {"t": [0, 1] * 8, "y": [1, 2, 4, 4] * 4,
    ...          "z": ["a", "a", "b", "b"] * 4, "x": [1, 0, 0, 1] * 4}
    >>> data = jm.CausalData.from_frame(table, treatment="t", outcome="y", z=["z"], x=["x"])
    >>> views = jm.features.encode(data)
    >>> views.z.shape, views.x.shape, views.y.shape, views.num_shared
    ((16, 2), (16, 2), (16, 3), 0)
    """
    if jnp.zeros(()).dtype != jnp.float64:
        warnings.warn(
            "features are coded in float32, which loses digits of higher moments; enable x64",
            stacklevel=2,
        )
    what = "give a table with roles (CausalData.from_frame, or read)"
    arguments.instance("data", data, CausalData, what)
    if reduce:
        data = distinct(data)
    n = len(data.t)
    design = data.design.filled(n)
    mass = design.mass

    joint = _is_joint(data)
    check_varies((data.outcome, *data.z, *data.x, *data.covariates))
    shared = _shared(data, mass)
    sides = []
    for name in ("z", "x"):
        if joint:
            block = indicators(_joint_cells(name, getattr(data, name)))
            ones = np.ones(block.shape[1])
        else:
            block = redundancy.independent(shared, _own(data, name, mass), mass, name).block
            ones = np.eye(block.shape[1])[0]
        sides.append((jax.device_put(block), jax.device_put(ones)))
        del block
    (z, one_z), (x, one_x) = sides

    values = data.outcome.values
    power = exponent(values)
    small = np.ldexp(values, -power)  # of order 1, so that its squares are numbers
    centre = np.average(small, weights=mass)
    scale = np.sqrt(np.average((small - centre) ** 2, weights=mass))
    onehot_y = joint and len(np.unique(values[:_LOOK])) <= MAX_OUTCOMES
    levels = np.unique(values) if onehot_y else values
    onehot_y &= len(levels) <= MAX_OUTCOMES
    if onehot_y:
        y = (values[:, None] == levels).astype(np.float64)
        one_y, value_y = np.ones(len(levels)), levels
    else:
        y = np.stack([np.ones(n), (small - centre) / scale], axis=1)
        one_y, value_y = np.array([1.0, 0.0]), np.ldexp([centre, scale], power)
    least = 2 * max(z.shape[1], x.shape[1])
    for arm, size in data.arm_sizes().items():
        if size < least:
            raise InputError(
                f"arm {arm!r} of treatment {data.treatment!r} has {size} rows: {z.shape[1]} z and "
                f"{x.shape[1]} x features need at least {least}; use fewer columns"
            )
    return Views(
        z=z,
        x=x,
        y=jax.device_put(y),
        t=jax.device_put(data.t),
        design=on_device(design),
        one_z=one_z,
        one_x=one_x,
        one_y=jax.device_put(one_y),
        value_y=jax.device_put(value_y),
        range_y=jax.device_put(np.array([values.min(), values.max()])),
        num_arms=len(data.arms),
        num_shared=0 if joint else shared.block.shape[1],
        onehot_y=onehot_y,
    )


def distinct(data: CausalData) -> CausalData:
    """Merge identical rows where that shortens the table at least fourfold.

    All-discrete data shrink to their distinct rows with counts, which are sufficient for every
    estimator; the cost of everything later is then independent of the number of rows. Rows of
    different sampling weights or clusters are not identical.
    """
    columns = (data.outcome, *data.z, *data.x, *data.covariates)
    keys = [data.t, *(column.values for column in columns), *data.design.key_columns()]
    n = len(data.t)
    if any(len(np.unique(key[:_LOOK])) > _FEW for key in keys):
        return data
    code = np.zeros(n, np.int64)
    for key in keys:
        inverse = np.unique(key, return_inverse=True)[1]
        code = np.unique(code * (inverse.max() + 1) + inverse, return_inverse=True)[1]
    first = np.unique(code, return_index=True)[1]
    if 4 * len(first) > n:
        return data
    return dataclasses.replace(
        data,
        outcome=data.outcome.take(first),
        t=data.t[first],
        z=tuple(column.take(first) for column in data.z),
        x=tuple(column.take(first) for column in data.x),
        covariates=tuple(column.take(first) for column in data.covariates),
        design=data.design.merged(first, code),
    )


def copies(data: CausalData, views: Views) -> list[redundancy.Copy]:
    """Return the proxies of one side that the other side gives, nearly or exactly.

    Parameters
    ----------
    data, views
        A table and its features.
    """
    rows = data if len(data.t) == len(views.t) else distinct(data)
    shared = max(views.num_shared, 1)
    sides = []
    of_sides = {"z": np.asarray(views.z), "x": np.asarray(views.x)}
    for name, block in of_sides.items():
        columns: tuple[Column, ...] = getattr(rows, name)
        own, start = [], shared
        for column in columns:
            if _is_onehot(name, data):
                own.append(indicators(np.unique(column.values, return_inverse=True)[1])[:, 1:])
            else:
                width = len(column.levels) - 1 if column.levels else 1
                own.append(block[:, start : start + width])
                start += width
        names = tuple(column.name for column in columns)
        features = block[:, shared:]
        sides.append(redundancy.Side(name, names, tuple(own), features, _is_onehot(name, data)))
    first = of_sides["z"][:, :shared] if views.num_shared else np.ones((len(rows.t), 1))
    return redundancy.copies(first, sides, views.design.on_host().mass)


def refuse_copies(data: CausalData, views: Views) -> None:
    """Refuse a proxy that the other side gives exactly; see `copies`."""
    redundancy.refuse_copies(copies(data, views))


def nothing_left(data: CausalData, views: Views, arms: Sequence[str]) -> list[str]:
    """Return, in words, what makes E[z x] singular: proxies and covariates given by others.

    Parameters
    ----------
    data, views
        A table and its features.
    arms
        Labels of the arms to look at; others stand for all rows, treatment among what is given.
    """
    rows = data if len(data.t) == len(views.t) else distinct(data)
    mass = views.design.on_host().mass
    first = _shared(rows, mass)
    found: list[str] = []
    for arm in arms:
        within = arm in data.arms
        here = rows.t == data.arms.index(arm) if within else np.ones(len(rows.t), bool)
        where = f" where {data.treatment} is {arm}" if within else ""
        given = first if within else first.join(_treatment(rows, mass))
        root = np.sqrt(mass[here] / mass[here].sum())
        own: list[str] = []
        for name in ("z", "x"):
            whole = given.join(linear(getattr(rows, name), mass, name))
            own += redundancy.nothing_left(whole.block[here], whole.names, root, where)
        sides = (" and ".join(repr(c.name) for c in getattr(data, name)) for name in ("z", "x"))
        found += own or ["nothing relates z ({}) to x ({}){}".format(*sides, where)]
    return list(dict.fromkeys(found))


def _treatment(data: CausalData, mass: np.ndarray) -> Features:
    column = Column(data.treatment, data.t, data.arms)
    made = linear((column,), mass, "treatment")
    return dataclasses.replace(made, names=("", *(["the treatment"] * (len(data.arms) - 1))))


def _shared(data: CausalData, mass: np.ndarray) -> Features:
    """Return the constant and the covariates."""
    made = linear(data.covariates, mass, "covariates")
    constant = Features(made.block[:, :1], made.names[:1], made.size[:1])
    return redundancy.independent(constant, made, mass, "covariates", apart=True)


def _own(data: CausalData, name: str, mass: np.ndarray) -> Features:
    """Return the constant and the features of a view beside a linear one or covariates."""
    columns: tuple[Column, ...] = getattr(data, name)
    if _is_onehot(name, data):
        return cell_features(_joint_cells(name, columns), mass, name)
    return linear(columns, mass, name)


def _is_joint(data: CausalData) -> bool:
    """Whether both views are one-hot and share nothing."""
    return all(_is_onehot(name, data) for name in ("z", "x")) and not data.covariates


def _is_onehot(name: str, data: CausalData) -> bool:
    asked = data.features[name]
    if asked == "auto":
        return all(column.is_discrete for column in getattr(data, name))
    return asked == "onehot"


def _joint_cells(name: str, columns: Sequence[Column]) -> np.ndarray:
    """Return the joint cell of each row over several columns, numbered from 0."""
    cells = np.zeros(len(columns[0].values), np.int64)
    for column in columns:
        levels, inverse = np.unique(column.values, return_inverse=True)
        cells = np.unique(cells * len(levels) + inverse, return_inverse=True)[1]
        if cells.max() >= MAX_CELLS:
            raise InputError(
                f"the joint one-hot coding of {name} has over {MAX_CELLS} cells at column "
                f"{column.name!r}; use fewer or coarser columns, or the features 'linear'"
            )
    return cells


def cell_names(columns: Sequence[Column]) -> list[tuple[str, ...]]:
    """Return the values behind each joint cell of a one-hot view, in the order of its features."""
    cells = _joint_cells("the view", columns)
    first = np.unique(cells, return_index=True)[1]
    texts = [column.take(first) for column in columns]
    return list(
        zip(
            *(
                [c.levels[v] if c.levels else label(v) for v in c.values]  # cells x columns
                for c in texts
            ),
            strict=True,
        )
    )
