"""Clusters of dependent rows: numbered, and refused or doubted where they are too few.

Errors by clusters are those of sums over clusters: what is not seen to differ between clusters
counts as certain. An arm whose rows all lie in one cluster therefore has none, however many rows
there are, and errors from few clusters are too small (Cameron, Gelbach, Miller 2008; MacKinnon,
Webb 2017 on few clusters in an arm).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxmix.data.columns import Column, label
from jaxmix.exceptions import InputError

ENOUGH = 20
"""Clusters below which a note says that errors are too small."""

_LEAST = 3
_REMEDY = "leave the clusters out, or name a column with more of them"


def numbered(column: Column, t: np.ndarray, arms: Sequence[str]) -> np.ndarray:
    """Return the cluster of each row, from 0.

    Parameters
    ----------
    column
        Names of the clusters.
    t
        ``(n,)`` arm of each row.
    arms
        Labels of the arms.

    Raises
    ------
    InputError
        For a single cluster, an arm within one cluster, and fewer than three clusters.

    Examples
    --------
    >>> import numpy as np
    >>> names = Column("school", np.array([7.0, 7.0, 3.0, 3.0, 9.0, 9.0]))
    >>> numbered(names, np.array([0, 1] * 3), ("0", "1")).tolist()
    [1, 1, 0, 0, 2, 2]
    """
    found, groups = np.unique(column.values, return_inverse=True)
    groups = groups.ravel().astype(np.int32)
    name = column.name
    if len(found) == 1:
        raise InputError(f"cluster {name!r} has one value: clusters must be several")
    for arm, text in enumerate(arms):
        own = np.unique(groups[t == arm])
        if len(own) == 1:
            value = found[own[0]]
            shown = column.levels[int(value)] if column.levels else label(value)
            raise InputError(
                f"cluster {name!r}: all rows of arm {text!r} lie in one cluster ({shown!r}), and "
                f"how that arm's mean differs between clusters cannot be told from one; {_REMEDY}"
            )
    if len(found) < _LEAST:
        raise InputError(
            f"cluster {name!r} has two values, and errors by clusters need {_LEAST} at the very "
            f"least and about {ENOUGH} to be trusted; {_REMEDY}"
        )
    return groups


def doubt(groups: np.ndarray, t: np.ndarray, arms: Sequence[str], treatment: str) -> str:
    """Return a note where clusters are few, in all or in an arm; empty where they are enough.

    Examples
    --------
    >>> import numpy as np
    >>> doubt(np.arange(60) % 30, np.arange(60) // 30, ("0", "1"), "t")
    ''
    >>> doubt(np.arange(60) % 15, np.arange(60) // 30, ("0", "1"), "t")[:28]
    'there are 15 clusters, and s'
    """
    total = len(np.unique(groups))
    counts = [len(np.unique(groups[t == arm])) for arm in range(len(arms))]
    fewest = int(np.argmin(counts))
    if counts[fewest] >= ENOUGH:
        return ""
    told = f"there are {total} clusters"
    if counts[fewest] < total:
        told += f", of which {counts[fewest]} have rows where {treatment} is {arms[fewest]}"
    return (
        f"{told}, and standard errors and intervals from fewer than about {ENOUGH} clusters are "
        "too small"
    )
