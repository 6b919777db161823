"""The recommendation of a number of classes, by what is known of each, in words."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

from jaxmix.report.tables import Table, classes, number
from jaxmix.types import Json

_THIN = 6.0  # difference of BIC below which evidence is at most positive (Kass, Raftery)
_NEAR_NOISE = 1e-3  # p-value above which the weakest direction of the proxies is near its noise


class Candidate(NamedTuple):
    """What is known of k classes; None where it does not apply or was not computed.

    Attributes
    ----------
    num_classes
        k.
    log_likelihood, num_parameters, bic, aic
        Log-likelihood, dimension and criteria of the maximum-likelihood fit of a table.
    criterion
        Andrews' J - df log n, of moments that are no table.
    statistic, df, p_value
        G2 of a table or J of moments, for k classes against no restriction.
    ratio, ratio_p_value
        Likelihood ratio of k against k + 1 classes, and its bootstrap p-value.
    rank_p_value
        p-value of rank at most k of the proxies' moments in every arm.
    done
        Whether the search for the fit ended.
    """

    num_classes: int
    log_likelihood: float | None = None
    num_parameters: int | None = None
    bic: float | None = None
    aic: float | None = None
    criterion: float | None = None
    statistic: float | None = None
    df: int | None = None
    p_value: float | None = None
    ratio: float | None = None
    ratio_p_value: float | None = None
    rank_p_value: float | None = None
    done: bool = True

    @property
    def score(self) -> float:
        """BIC, or Andrews' criterion; infinite where a fit has none."""
        own = self.criterion if self.bic is None else self.bic
        return own if own is not None and math.isfinite(own) else math.inf


@dataclasses.dataclass(frozen=True)
class Selection:
    """A recommended number of classes with its reasons.

    Attributes
    ----------
    recommended
        Number of classes.
    reasons
        Sentences, the deciding one first.
    doubts
        Sentences, one for each way in which the evidence is thin.
    candidates
        What is known of each number of classes.
    method
        What decided: ``"likelihood"``, ``"moments"`` or ``"rank"``.
    level, num_rows, num_resamples, size, seed
        The call: level, rows of the sample, resamples of the likelihood ratio, size of the tests,
        seed.
    """

    recommended: int
    reasons: tuple[str, ...]
    doubts: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    method: str
    level: int
    num_rows: int
    num_resamples: int
    size: float
    seed: int

    @property
    def thin(self) -> bool:
        """Whether the evidence is thin: criteria disagree, or a margin is small."""
        return bool(self.doubts)

    @property
    def table(self) -> Table:
        """The candidates as a table."""
        shown = {"classes": [str(c.num_classes) for c in self.candidates]}
        for name, title, text in _COLUMNS:
            title = title.replace("fit", "J" if self.method == "moments" else "G2")
            values = [getattr(c, name) for c in self.candidates]
            if any(value is not None for value in values):
                shown[title] = ["-" if value is None else text(value) for value in values]
        columns = list(zip(*shown.values(), strict=True))
        rows = [
            (cells[0] + (" *" if c.num_classes == self.recommended else ""), *cells[1:])
            for cells, c in zip(columns, self.candidates, strict=True)
        ]
        return Table("Number of classes (* recommended)", tuple(shown), rows)

    def summary(self) -> str:
        """Return the selection as text."""
        return self.table_with_reasons().text()

    def table_with_reasons(self) -> Table:
        """Return the candidates, and under them the reasons and doubts."""
        heading = "The evidence is thin: " if self.thin else ""
        notes = [*self.reasons, *(heading + doubt for doubt in self.doubts)]
        sentences = [f"{note[0].upper()}{note[1:]}." for note in notes]
        return dataclasses.replace(self.table, notes=sentences)

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        return self.table_with_reasons().html()

    def to_dict(self) -> dict[str, Json]:
        """Return everything as plain numbers, text and None."""
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return own | {
            "thin": self.thin,
            "reasons": list(self.reasons),
            "doubts": list(self.doubts),
            "candidates": [c._asdict() for c in self.candidates],
        }


def _p(value: float) -> str:
    return f"{value:.3g}" if value >= 1e-4 else "<1e-4"


_COLUMNS = (
    ("log_likelihood", "log L", lambda v: f"{v:,.2f}"),
    ("num_parameters", "parameters", str),
    ("bic", "BIC", lambda v: f"{v:,.1f}"),
    ("aic", "AIC", lambda v: f"{v:,.1f}"),
    ("criterion", "J - df log n", lambda v: f"{v:,.1f}"),
    ("statistic", "fit", number),
    ("df", "df", str),
    ("p_value", "p of fit", _p),
    ("ratio", "LR to k+1", number),
    ("ratio_p_value", "p of LR", _p),
    ("rank_p_value", "p of rank", _p),
)


class Context(NamedTuple):
    """What was asked for, and what the data can carry.

    Attributes
    ----------
    level
        Level whose independences classes are to explain: 2, 3 or 4.
    num_rows
        Rows of the sample.
    num_resamples
        Resamples of the likelihood ratio.
    size
        Size of the tests.
    seed
        Integer seed of starts and resamples.
    most
        Most classes that the views can tell apart.
    top
        Most classes that were considered.
    no_fit
        Why classes are not fitted; empty where they are.
    """

    level: int
    num_rows: int
    num_resamples: int
    size: float
    seed: int
    most: int
    top: int
    no_fit: str = ""


def decide(candidates: Sequence[Candidate], method: str, context: Context) -> Selection:
    """Return the recommendation for candidates k = 1, 2, ...

    Parameters
    ----------
    candidates
        What is known of each number of classes.
    method
        ``"likelihood"``, ``"moments"`` or ``"rank"``: which criterion decides.
    context
        What was asked for.

    Examples
    --------
    >>> known = [Candidate(1, bic=120.0, aic=110.0), Candidate(2, bic=90.0, aic=80.0)]
    >>> found = decide(known, "likelihood", Context(3, 1000, 0, 0.05, 0, 2, 2))
    >>> found.recommended, found.reasons[0]
    (2, 'BIC is smallest at 2 classes, by 30.0 over 1')
    """
    size = context.size
    tested = [c.rank_p_value for c in candidates if c.rank_p_value is not None]
    rank = 1
    while rank <= len(tested) and tested[rank - 1] < size:
        rank += 1
    doubts: list[str] = []
    if method == "rank":
        best = min(rank, len(candidates))
        reasons = [f"the rank alone decides: {context.no_fit}"]
    else:
        best, reasons, doubts = _by_criterion(candidates, method, size)
    more, less_sure = _of_rank(tested, rank, best, method, context)
    reasons, doubts = [*reasons, *more], [*doubts, *less_sure]
    if best == context.most:
        reasons.append(
            f"the proxies cannot tell apart more than {classes(context.most)}, so that there may "
            "be more"
        )
    elif best == len(candidates):
        doubts.append(f"more than {classes(best)} {'was' if best == 1 else 'were'} not considered")
    return Selection(
        recommended=best,
        reasons=tuple(reasons),
        doubts=tuple(doubts),
        candidates=tuple(candidates),
        method=method,
        level=context.level,
        num_rows=context.num_rows,
        num_resamples=context.num_resamples,
        size=size,
        seed=context.seed,
    )


def _by_criterion(
    candidates: Sequence[Candidate], method: str, size: float
) -> tuple[int, list[str], list[str]]:
    """Return the choice of BIC or Andrews' criterion, what agrees with it, and what does not."""
    name = "BIC" if method == "likelihood" else "J - df log n"
    scores = [c.score for c in candidates]
    ranked = sorted(range(len(scores)), key=lambda i: scores[i])
    own = candidates[ranked[0]]
    k = own.num_classes
    reasons: list[str] = []
    doubts: list[str] = []
    if len(ranked) == 1:
        reasons.append(f"only {classes(k)} could be fitted with anything left to test")
    else:
        second = candidates[ranked[1]].num_classes
        margin = scores[ranked[1]] - scores[ranked[0]]
        reasons.append(f"{name} is smallest at {classes(k)}, by {margin:.1f} over {second}")
        if margin < _THIN:
            doubts.append(
                f"{name} leads by {margin:.1f} only over {classes(second)} (below {_THIN:.0f} "
                "is no strong evidence)"
            )
    if not own.done:
        doubts.append(f"the search for the fit of {classes(k)} ran out of steps")
    if own.p_value is not None:
        symbol = "G2" if method == "likelihood" else "J"
        told = f"{symbol} of {classes(k)} has p = {_p(own.p_value)}"
        if own.p_value < size:
            doubts.append(f"{told}: they do not fit, and the assumptions may fail instead")
        else:
            reasons.append(f"{told}: they are not rejected, which is no proof")
    below = candidates[k - 2].ratio_p_value if k > 1 else None
    if below is not None:
        told = f"the likelihood ratio of {k - 1} against {classes(k)} has p = {_p(below)}"
        (reasons if below <= size else doubts).append(told)
    if own.ratio_p_value is not None:
        told = f"the likelihood ratio of {k} against {classes(k + 1)} has p = "
        told += _p(own.ratio_p_value)
        (doubts if own.ratio_p_value <= size else reasons).append(told)
    if own.aic is not None:
        by_aic = min((c.aic, c.num_classes) for c in candidates if c.aic is not None)[1]
        if by_aic != k:
            reasons.append(f"AIC, which tends to too many, prefers {classes(by_aic)}")
    return k, reasons, doubts


def _of_rank(
    tested: Sequence[float], rank: int, best: int, method: str, context: Context
) -> tuple[list[str], list[str]]:
    """Return what the rank of the proxies' moments says for a choice, and what against it."""
    if not tested:
        return [], []
    size = context.size
    found = f"the proxies' moments have rank {rank}"
    if rank > 1:
        found += f" (rank {rank - 1} is rejected, p = {_p(tested[rank - 2])}"
        if rank <= len(tested):
            found += f"; rank {rank} is not, p = {_p(tested[rank - 1])}"
        found += ")"
    else:
        found += f" (rank 1 is not rejected, p = {_p(tested[0])})"
    found += ": a lower bound of the number of classes, reached where the proxies carry all"
    reasons, doubts = [], []
    if rank == best:
        reasons.append(found)
    else:
        doubts.append(found)
    if best > 1 and _NEAR_NOISE <= tested[best - 2] < size:
        doubts.append(
            f"the proxies' weakest direction is near its noise (rank {best - 1} has p = "
            f"{_p(tested[best - 2])})"
        )
    if method == "rank" and rank <= len(tested) and tested[rank - 1] < 2 * size:
        doubts.append(f"rank {rank} is near rejection")
    return reasons, doubts
