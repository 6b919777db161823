"""Classical latent class analysis of a table of categorical columns, on the host."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmix import arguments
from jaxmix.data.categories import check_stored, codes_like, codes_of, counts_of
from jaxmix.estimators import latent
from jaxmix.model.pool import SURE
from jaxmix.report.files import write_whole
from jaxmix.report.tables import Table, number, text_keys
from jaxmix.solvers.compiling import one_table
from jaxmix.status import EstimateError, InputError, Status
from jaxmix.tables.cells import names_of
from jaxmix.tables.texts import AUTO, USUAL, Marks, marks_of
from jaxmix.types import Json

_DIGITS = 1e-6  # relative disagreement that rounding explains
_CAVEAT = (
    "Assumes: the columns are independent given the class, and cells are missing at random. "
    "Classes are ordered by decreasing share."
)


class Profile(NamedTuple):
    """How a column is distributed in each class: its levels, and ``(d, k)`` P(level | class)."""

    levels: tuple[str, ...]
    probabilities: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class LatentClassResult:
    """A latent class model fitted by maximum likelihood; classes by decreasing share.

    Attributes
    ----------
    log_likelihood, num_parameters
        The maximum found, and the number of free parameters of the model.
    shares, profiles
        ``(k,)`` class shares, and by column its levels and their probabilities in each class.
    num_rows, num_dropped
        Rows used, counted by their weights, and rows dropped because all cells were missing.
    missing
        Missing cells by column, in the rows used, for columns that have any.
    status, warnings, stats
        What became of the fit, what to know, and numbers (`jaxmix.estimators.latent.solve`).
    seed
        Seed of the starts.
    missing_marks
        Which texts mark a missing cell, in the fit and in `posterior`.
    """

    log_likelihood: float
    num_parameters: int
    shares: np.ndarray
    profiles: Mapping[str, Profile]
    num_rows: int
    num_dropped: int
    missing: Mapping[str, int]
    status: Status
    warnings: tuple[str, ...]
    stats: Mapping[str, float]
    seed: int
    missing_marks: Marks = USUAL

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.shares)

    @property
    def aic(self) -> float:
        """Akaike's criterion, ``-2 log L + 2 p``: smaller is better."""
        return -2 * self.log_likelihood + 2 * self.num_parameters

    @property
    def bic(self) -> float:
        """Schwarz's criterion, ``-2 log L + p log n`` with the rows used: smaller is better."""
        return -2 * self.log_likelihood + self.num_parameters * math.log(self.num_rows)

    def posterior(self, frame: object) -> np.ndarray:
        """Return the class probabilities of rows.

        Parameters
        ----------
        frame
            A table with the columns of the fit; cells may be missing, and a row without any has
            the shares.

        Returns
        -------
        ndarray
            ``(n, k)``; NaN for a row to which every class gives probability 0.
        """
        known = {name: profile.levels for name, profile in self.profiles.items()}
        codes = codes_like(frame, known, self.missing_marks)
        with one_table():
            tables = tuple(jnp.asarray(p.probabilities) for p in self.profiles.values())
            classes = latent.LatentClasses(jnp.asarray(self.shares), tables)
            return np.asarray(latent.posterior(classes, jnp.asarray(codes)))

    def raise_if_failed(self) -> LatentClassResult:
        """Return the result, or raise `EstimateError` where its status is not usable."""
        if not self.status.usable:
            raise EstimateError(f"{self.status.name}: {self.status.message}")
        return self

    def tables(self) -> list[Table]:
        """Return the result as tables, the way `summary` prints them."""
        notes = []
        if not self.status.usable:
            notes.append(f"NOT TO BE USED. {self.status.name}: {self.status.message}.")
        elif self.status is not Status.SUCCESS:
            notes.append(f"WARNING. {self.status.name}: {self.status.message}.")
        notes += [f"Note: {warning}." for warning in self.warnings]
        header = ("", *(f"class {u + 1}" for u in range(self.num_classes)))
        named = [("share", self.shares)]
        for name, profile in self.profiles.items():
            texts = [f"{name} = {level}" for level in profile.levels]
            named += zip(texts, profile.probabilities, strict=True)
        rows = [(text, *(f"{value:.4f}" for value in values)) for text, values in named]
        agree = f"{self.stats['num_agree']} of {self.stats['num_starts']}"
        fit = [
            ("log-likelihood", f"{self.log_likelihood:,.4f}"),
            ("free parameters", str(self.num_parameters)),
            ("AIC", number(self.aic, 6)),
            ("BIC", number(self.bic, 6)),
            ("rows", f"{self.num_rows:,}"),
            ("starts at the best optimum", agree),
        ]
        title = f"Latent classes: {self.num_classes}, {len(self.profiles)} columns"
        return [Table(title, header, rows, [*notes, _CAVEAT]), Table("Fit", ("", "value"), fit)]

    def summary(self) -> str:
        """Return the result as text."""
        return "\n\n".join(table.text() for table in self.tables())

    def __repr__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        return "\n".join(table.html() for table in self.tables())

    def to_dict(self) -> dict[str, Json]:
        """Return everything as plain numbers, text and None."""
        return {
            "schema": 1,
            "jaxmix": importlib.metadata.version("jaxmix"),
            "jax": jax.__version__,
            "seed": self.seed,
            "n": self.num_rows,
            "dropped": self.num_dropped,
            "missing": dict(zip(text_keys(self.missing), self.missing.values(), strict=True)),
            "num_classes": self.num_classes,
            "status": self.status.name,
            "warnings": list(self.warnings),
            "num_parameters": self.num_parameters,
            **{name: _plain(getattr(self, name)) for name in ("log_likelihood", "aic", "bic")},
            "shares": _plain(self.shares.tolist()),
            "profiles": {
                key: {"levels": list(levels), "probabilities": _plain(table.tolist())}
                for key, (levels, table) in zip(
                    text_keys(self.profiles), self.profiles.values(), strict=True
                )
            },
            "stats": {name: _plain(value) for name, value in self.stats.items()},
        }

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write `to_dict` as JSON; the file appears whole or not at all."""
        write_whole(path, json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n")


def latent_classes(
    frame: object,
    num_classes: int,
    *,
    columns: Sequence[str] | None = None,
    weights: object = None,
    seed: int = 0,
    num_starts: int | None = None,
    missing_marks: str | Sequence[str] = AUTO,
) -> LatentClassResult:
    """Fit a latent class model to categorical columns by maximum likelihood.

    The model of a row is ``P(c_1, ..., c_v) = sum_u P(U=u) prod_j P(C_j=c_j | U=u)``; a missing
    cell contributes the factor 1. Assumes that the columns are independent given the class, and
    that cells are missing at random. Computes in float64.

    Parameters
    ----------
    frame
        A dict of arrays, or a pandas, polars or Arrow table, of text, whole numbers or booleans.
    num_classes
        Number of classes.
    columns
        Names of the columns; None takes all but the weights.
    weights
        Counts of identical rows: a column's name or an array. None for one each.
    seed
        Integer seed of the starts.
    num_starts
        Random starts, 44 by default: an optimum that draws a tenth of them is then missed by 1 %
        of searches (``stats["miss_rate"]``).
    missing_marks
        Texts that mark a missing cell, as in `jaxmix.CausalData.from_frame`.

    Returns
    -------
    LatentClassResult
        A failed fit is a result whose status says so.

    Raises
    ------
    InputError
        One line that names the column and the remedy.

    References
    ----------
    Goodman (1974), Biometrika 61; Linzer, Lewis (2011), Journal of Statistical Software 42(10).

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> ill = rng.random(1000) < 0.3
    >>> frame = {f"test {j}": rng.random(1000) < np.where(ill, 0.9, 0.1) for j in range(4)}
    >>> result = latent_classes(frame, 2)
    >>> result.status.name, [round(float(share), 1) for share in result.shares]
    ('SUCCESS', [0.7, 0.3])
    """
    remedy = "give a whole number, 1 or more"
    num_classes = arguments.whole("num_classes", num_classes, least=1, remedy=remedy)
    num_starts = SURE if num_starts is None else num_starts
    num_starts = arguments.whole("num_starts", num_starts, least=1, remedy=remedy)
    seed = arguments.seed(seed)
    names = _names(frame, columns, weights)
    marks = marks_of(missing_marks)
    codes, levels, notes = codes_of(frame, names, marks)
    counts = counts_of(frame, weights, len(codes))
    present = (codes >= 0).any(1)
    used = present & (counts > 0)
    if not used.any():
        raise InputError("no row has both a cell that is present and a weight above zero")
    num_dropped = int(counts[~present].sum())
    codes, counts = codes[used], counts[used]
    _check_varies(codes, levels)
    distinct, inverse = np.unique(codes, axis=0, return_inverse=True)
    totals = np.bincount(inverse.ravel(), weights=counts)
    if num_classes > len(distinct):
        raise InputError(
            f"num_classes is {num_classes}, but the rows show {len(distinct)} distinct patterns; "
            "use fewer classes"
        )
    with one_table():
        found = jax.device_get(
            latent.solve(
                jnp.asarray(distinct),
                jnp.asarray(totals, jnp.float64),
                tuple(len(levels[name]) for name in names),
                int(num_classes),
                key=jax.random.key(seed),
                num_starts=int(num_starts),
            )
        )
    classes, stats = found.value, {name: value.item() for name, value in found.stats.items()}
    empty = counts @ (codes < 0)
    missing = {name: int(count) for name, count in zip(names, empty, strict=True) if count}
    if missing:
        del stats["g2"]  # the saturated model of incomplete rows is not what it compares with
    status = Status(found.status.item())
    wrong = contradictions(classes, stats["log_likelihood"], distinct, totals)
    if wrong and status.usable:  # none of the numbers is shown
        status = Status.INCONSISTENT
        classes = jax.tree.map(lambda part: np.full_like(part, np.nan), classes)
        stats = dict.fromkeys(stats, float("nan"))
        notes = (*wrong, *notes)
    return LatentClassResult(
        log_likelihood=stats["log_likelihood"],
        num_parameters=stats["num_parameters"],
        shares=classes.shares,
        profiles={n: Profile(levels[n], p) for n, p in zip(names, classes.profiles, strict=True)},
        num_rows=int(counts.sum()),
        num_dropped=num_dropped,
        missing=missing,
        status=status,
        warnings=(*_warnings(stats, status, missing, num_dropped), *notes),
        stats=stats,
        seed=int(seed),
        missing_marks=marks,
    )


def contradictions(
    classes: latent.LatentClasses, log_likelihood: float, codes: np.ndarray, counts: np.ndarray
) -> tuple[str, ...]:
    """Return how the numbers of a fit contradict each other, computed again in plain numpy.

    Parameters
    ----------
    classes, log_likelihood
        What would be shown.
    codes, counts
        ``(n, v)`` and ``(n,)``: the rows behind it, -1 where a cell is missing.

    Examples
    --------
    >>> import numpy as np
    >>> classes = latent.LatentClasses(np.array([0.5, 0.6]), (np.full((2, 2), 0.5),))
    >>> contradictions(classes, np.log(0.55), np.array([[0]]), np.array([1.0]))
    ('the shares of the classes add up to 1.1',)
    """
    found = []
    if not abs(classes.shares.sum() - 1) <= _DIGITS:
        found.append(f"the shares of the classes add up to {classes.shares.sum():.6g}")
    inside = [((p >= 0) & (p <= 1 + _DIGITS)).all() for p in (classes.shares, *classes.profiles)]
    if not all(inside) or not all(
        np.allclose(p.sum(0), 1, rtol=0, atol=_DIGITS) for p in classes.profiles
    ):
        found.append("probabilities of a class do not lie in [0, 1], or do not add up to 1")
    joint = np.tile(classes.shares, (len(codes), 1))
    for column, profile in zip(codes.T, classes.profiles, strict=True):
        joint = joint * np.where(column[:, None] >= 0, profile[np.maximum(column, 0)], 1.0)
    with np.errstate(divide="ignore"):
        own = float(counts @ np.log(joint.sum(1)))
    if not abs(own - log_likelihood) <= _DIGITS * max(1.0, abs(own)):
        found.append(
            f"the log-likelihood is {log_likelihood:.6f}, and that of the classes {own:.6f}"
        )
    return tuple(found)


def _warnings(
    stats: Mapping[str, float], status: Status, missing: Mapping[str, int], num_dropped: int
) -> tuple[str, ...]:
    notes = []
    if num_dropped:
        notes.append(f"{num_dropped} rows without any cell present were dropped")
    if missing:
        told = ", ".join(f"{name!r} {count}" for name, count in missing.items())
        notes.append(f"missing cells by column: {told}")
    if status is Status.NOT_IDENTIFIED:
        notes.append(
            f"only {stats['rank']} directions of the {stats['num_free']} parameters not held at 0 "
            f"are identified; AIC and BIC count all {stats['num_parameters']} parameters"
        )
    elif held := stats["num_parameters"] - stats["num_free"]:
        notes.append(f"{held} parameters are held at 0 or 1; AIC and BIC count them too")
    return tuple(notes)


def _names(frame: object, columns: Sequence[str] | None, weights: object) -> list[str]:
    """Return the columns to fit, each of which stands in the table once."""
    stored = names_of(frame)
    columns = None if columns is None else arguments.columns("columns", columns)
    own = [weights] if isinstance(weights, str) else []
    names = [name for name in stored if name not in own] if columns is None else list(columns)
    if not names:
        raise InputError("there is no column to fit; name at least one")
    for name in names + own:
        check_stored(name, stored)
        if stored.count(name) > 1 or (names + own).count(name) > 1:
            raise InputError(f"column {name!r} appears more than once; rename or drop the others")
    return names


def _check_varies(codes: np.ndarray, levels: Mapping[str, tuple[str, ...]]) -> None:
    for v, (name, texts) in enumerate(levels.items()):
        used = np.unique(codes[codes[:, v] >= 0, v])
        if len(used) < 2:
            what = repr(texts[used[0]]) if len(used) else "empty"
            raise InputError(f"column {name!r} is constant ({what}) in the rows used; leave it out")


def _plain(value: Any) -> Json:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value if math.isfinite(value) else None
