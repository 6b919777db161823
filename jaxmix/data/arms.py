"""The arms of a treatment: labelled, the control first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import SupportsFloat, cast

import numpy as np

from jaxmix import arguments
from jaxmix.data.columns import Column, label, listed
from jaxmix.exceptions import InputError
from jaxmix.tables.texts import number_of


def arms_of(column: Column, control: object, hint: str = "") -> tuple[tuple[str, ...], np.ndarray]:
    """Return the labels of the arms, control first, and the arm of each row."""
    found, inverse = np.unique(column.values, return_inverse=True)
    labels = [column.levels[v] for v in found] if column.levels else [label(v) for v in found]
    if len(labels) < 2:
        raise InputError(
            f"treatment {column.name!r} has one arm only ({labels[0]!r}) in the rows used; "
            f"a comparison needs two{hint}"
        )
    if control is None:
        if labels != ["0", "1"]:
            raise InputError(
                f"treatment {column.name!r} has the arms {listed(labels)}: say with control= "
                "(--control) which one effects are measured from"
            )
        control = "0"
    wanted = _as_label(control, labels)
    if wanted not in labels:
        raise InputError(
            f"control {arguments.told(wanted)} is not an arm of treatment {column.name!r}: "
            f"{listed(labels)}"
        )
    first = labels.index(wanted)
    order = [first] + [i for i in range(len(labels)) if i != first]
    position = np.argsort(order).astype(np.int32)
    return tuple(labels[i] for i in order), position[inverse.ravel()]


def _as_label(control: object, labels: Sequence[str]) -> str:
    """Return an arm as its label: a text that is the same number, or the same truth, will do."""
    if not isinstance(control, str):
        try:
            return label(cast(SupportsFloat, control))
        except (TypeError, ValueError):
            return str(control)  # what is no arm, and is refused as that
    text = control.strip()
    if control in labels or set(map(_is_number, labels)) != {True}:
        return control
    value = {"true": 1, "false": 0}.get(text.casefold(), number_of(text))
    return next((own for own in labels if number_of(own) == value), control)


def _is_number(text: str) -> bool:
    return number_of(text) is not None
