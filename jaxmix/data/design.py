"""The design of a sample: its weights, multiplicities and clusters, and what they admit."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import numpy as np

from jaxmix.data import clusters
from jaxmix.data.columns import Column, label, listed, stray_texts
from jaxmix.exceptions import InputError

if TYPE_CHECKING:
    from jaxtyping import Array

A = TypeVar("A", np.ndarray, "Array")
B = TypeVar("B", np.ndarray, "Array")


@dataclasses.dataclass(frozen=True, eq=False)
class Design(Generic[A]):
    """How the rows of a sample came about: one record, on the host and on devices.

    A pytree for JAX: `jaxmix.sample.views` makes it one, since a table is read without JAX. Every
    column has a number for each row, so that rows are taken from all of them alike.

    Attributes
    ----------
    weight
        ``(n,)`` sampling weights with mean 1; None where there are none.
    multiplicity
        ``(n,)`` how many identical rows each row stands for; None for one each.
    cluster
        ``(n,)`` cluster of each row, 0, 1, ...; None where rows are independent.
    num_clusters
        Number of clusters (static; 0 where rows are independent).
    repeated
        Whether some multiplicity may differ from 1 (static).
    stratified
        Whether the sizes of strata are fixed (static).

    Examples
    --------
    >>> import numpy as np
    >>> groups = np.arange(6) // 2
    >>> Design().is_random, Design(cluster=groups, num_clusters=3).is_random
    (True, False)
    >>> Design(weight=np.array([0.5, 1.5])).against_chi_square()
    'rows carry sampling weights, and this test is for a random sample'
    """

    weight: A | None = None
    multiplicity: A | None = None
    cluster: A | None = None
    num_clusters: int = dataclasses.field(default=0, metadata={"static": True})
    repeated: bool = dataclasses.field(default=False, metadata={"static": True})
    stratified: bool = dataclasses.field(default=False, metadata={"static": True})

    @property
    def mass(self) -> A:
        """What each row counts: weight times multiplicity, where both are there (`filled`)."""
        assert self.weight is not None
        assert self.multiplicity is not None
        mass: A = self.weight * self.multiplicity
        return mass

    def filled(self: Design[np.ndarray], num_rows: int) -> Design[np.ndarray]:
        """Return the design with ones for weights and multiplicities that are not there."""
        ones = np.ones(num_rows)
        return dataclasses.replace(
            self,
            weight=ones if self.weight is None else self.weight,
            multiplicity=ones if self.multiplicity is None else self.multiplicity,
        )

    def columns(self) -> dict[str, A]:
        """Return the columns that are there, by name."""
        names = (own.name for own in dataclasses.fields(self) if not own.metadata.get("static"))
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def on_host(self: Design[Array]) -> Design[np.ndarray]:
        """Return the design as arrays of numpy."""
        return self.with_columns(np.asarray)

    def with_columns(self, made: Callable[[A], B]) -> Design[B]:
        """Return the design with something made of each column."""
        columns = {name: made(column) for name, column in self.columns().items()}
        found: Design[B] = dataclasses.replace(cast(Any, self), **columns)
        return found

    def take(self, rows: np.ndarray) -> Design[A]:
        """Return the design of some rows (an index or a mask), clusters numbered as they were."""
        return self.with_columns(lambda column: column[rows])

    def key_columns(self) -> list[A]:
        """Return the columns in which rows have to agree for them to be merged."""
        return [column for name, column in self.columns().items() if name != "multiplicity"]

    def merged(
        self: Design[np.ndarray], first: np.ndarray, place: np.ndarray
    ) -> Design[np.ndarray]:
        """Return the design where identical rows have become one.

        Parameters
        ----------
        first
            ``(m,)`` a row of each kind, all alike in `key_columns`.
        place
            ``(n,)`` the kind of each row.

        Examples
        --------
        >>> import numpy as np
        >>> Design().merged(np.array([0, 2]), np.array([0, 0, 1])).multiplicity.tolist()
        [2.0, 1.0]
        """
        counts = np.bincount(place, weights=self.multiplicity).astype(np.float64)
        return dataclasses.replace(self.take(first), multiplicity=counts, repeated=True)

    @functools.cached_property
    def weighted(self) -> bool:
        """Whether rows carry sampling weights that differ; looked at on the host."""
        if self.weight is None:
            return False
        weight = np.asarray(self.weight)
        return bool((weight != weight[0]).any())

    @property
    def is_random(self) -> bool:
        """Whether rows are independent and count alike; strata aside."""
        return not self.weighted and self.num_clusters == 0

    def against_chi_square(self) -> str:
        """Return why G^2, J and their differences have no chi-square law; empty where they do."""
        if self.is_random:
            return ""
        what = "carry sampling weights" if self.weighted else "are clustered"
        return f"rows {what}, and this test is for a random sample"

    def against_robust_j(self) -> str:
        """Return why the J of the bridge, robust to weights, does not apply."""
        return "rows are clustered, and this J is for independent rows" if self.num_clusters else ""

    def against_likelihood(self) -> str:
        """Return why numbers of classes are not compared by likelihood or J."""
        if self.weighted:
            return "rows carry sampling weights, for which there is no likelihood"
        if self.num_clusters:
            return "rows are clustered, and likelihood and J are for independent rows"
        return ""

    def against_bounds(self) -> str:
        """Return why there are no sensitivity bounds; empty where there are."""
        if self.is_random:
            return ""
        return "sensitivity bounds are for a random sample, without clusters or sampling weights"

    def takes_profile(self, *, asked: bool, at_a_bound: bool) -> bool:
        """Whether intervals of a likelihood are those of its profile.

        With weights or clusters there is no likelihood proper: its profile, divided by design
        effects, takes the place of others where these are too short, at a bound, or on request.
        It knows no strata.
        """
        return not self.stratified and (self.is_random or asked or at_a_bound)

    def doubt(self: Design[np.ndarray], t: np.ndarray, arms: Sequence[str], treatment: str) -> str:
        """Return why errors that know the design may be too small; see `clusters.doubt`.

        Parameters
        ----------
        t, arms, treatment
            Arm of each row, labels of the arms, name of the treatment.
        """
        if self.cluster is None:
            return ""
        return clusters.doubt(self.cluster, t, arms, treatment)

    def resampling(self, *, corrected: bool) -> str:
        """Return the kind of resamples that suits the design.

        Parameters
        ----------
        corrected
            Whether intervals are corrected for the skewness of the sample: exponential weights
            are twice as skewed as counts are, and the correction would be of another's.
        """
        counts = self.repeated and not self.num_clusters
        return "multinomial" if counts or corrected else "bayesian"


def check_columns(columns: Mapping[str, Column]) -> None:
    """Refuse text and negative weights, rows numbered as in the table.

    Parameters
    ----------
    columns
        Columns by role, all rows of the table.
    """
    weights = columns.get("weights")
    if weights is None:
        return
    if weights.levels is not None:
        raise InputError(
            f"weights {weights.name!r} is text ({listed(stray_texts(weights))}); "
            "weights are numbers"
        )
    negative = weights.values < 0
    if negative.any():
        row = int(np.argmax(negative))
        raise InputError(
            f"weights {weights.name!r} is negative ({label(weights.values[row])}, first in row "
            f"{row + 1}); weights are zero or more"
        )


def rows_that_count(columns: Mapping[str, Column], kind: str) -> np.ndarray | None:
    """Return which rows have a weight above 0; None where all count.

    Parameters
    ----------
    columns
        Columns by role, of the rows in which no cell is missing.
    kind
        One of `jaxmix.choices.WEIGHT_KINDS`.

    Raises
    ------
    InputError
        For weights of which none is above 0, and frequencies that are not whole.
    """
    weights = columns.get("weights")
    if weights is None:
        return None
    values = weights.values
    if not (values > 0).any():
        raise InputError(f"weights {weights.name!r} is zero in every row")
    if kind == "frequency" and (values != np.floor(values)).any():
        bad = values[values != np.floor(values)][0]
        raise InputError(
            f"frequency weights {weights.name!r} are not whole numbers ({label(bad)}); use "
            "the kind 'sampling'"
        )
    keep: np.ndarray = values > 0
    return None if keep.all() else keep


def of_columns(
    columns: Mapping[str, Column], kind: str, t: np.ndarray, arms: Sequence[str]
) -> Design[np.ndarray]:
    """Return the design that columns tell, of the rows that count.

    Parameters
    ----------
    columns
        Columns by role: ``weights`` and ``cluster``, where there are any.
    kind
        One of `jaxmix.choices.WEIGHT_KINDS`: normalised to mean 1, or multiplicities.
    t, arms
        Arm of each row, and labels of the arms.

    Raises
    ------
    InputError
        For clusters that are too few (`jaxmix.data.clusters.numbered`).

    Examples
    --------
    >>> import numpy as np
    >>> weights = Column("w", np.array([1.0, 3.0]))
    >>> of_columns({"weights": weights}, "sampling", np.array([0, 1]), ("0", "1")).weight.tolist()
    [0.5, 1.5]
    """
    found: Design[np.ndarray] = Design()
    if weights := columns.get("weights"):
        if kind == "frequency":
            found = dataclasses.replace(found, multiplicity=weights.values, repeated=True)
        else:
            # Of order one first, by a power of two: their sum may be no number.
            weight = np.ldexp(weights.values, -np.frexp(weights.values.max())[1])
            found = dataclasses.replace(found, weight=weight / weight.mean())
    if cluster := columns.get("cluster"):
        groups = clusters.numbered(cluster, t, arms)
        num = int(groups.max()) + 1
        found = dataclasses.replace(found, cluster=groups, num_clusters=num)
    return found
