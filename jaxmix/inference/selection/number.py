"""The number of classes: fits, tests and criteria of each, and one recommendation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import chi2
from numpy.typing import ArrayLike

from jaxmix import arguments
from jaxmix.data.roles import CausalData
from jaxmix.inference.selection import criteria, ranks
from jaxmix.inference.selection.recommendation import Candidate, Context, Selection, decide
from jaxmix.inference.specification.data import MAX_MOMENTS
from jaxmix.model.table import Cells
from jaxmix.sample import evidence as evidence_
from jaxmix.sample.evidence import Evidence
from jaxmix.sample.features import Views
from jaxmix.sample.moments import Moments, from_counts
from jaxmix.solvers.compiling import one_table
from jaxmix.status import InputError

_MOST_CLASSES = 8  # fitted where the user names no maximum
_STRONG = 10.0  # difference of BIC beyond which no resamples are spent on what is smaller
_RISES = 2  # rises of the criterion in a row after which more classes are not fitted


def num_classes(
    data: CausalData | Views | ArrayLike,
    *,
    level: int = 3,
    max_classes: int | None = None,
    seed: int = 0,
    num_resamples: int = 199,
    size: float = 0.05,
) -> Selection:
    """Recommend a number of hidden classes, with its reasons and how thin the evidence is.

    The rule is one criterion: the smallest ``BIC_k = -2 log L_k + p_k log n`` of maximum-likelihood
    fits where all views are categorical; Andrews' ``J_k - df_k log n`` for other moments; the rank
    of ``E[z x' | T=t]`` by sequential tests where neither applies (sampling weights, clusters,
    covariates, level 4). Beside it stand tests that can disagree, and then the evidence is called
    thin: the rank, a lower bound of the number of classes that is sharp only where the proxies
    carry all classes; the fit (G2 or J); and the bootstrap likelihood ratio of k against k + 1,
    run at the recommended number, and below it where BIC is not clear. It is thin too where a
    criterion leads by less than 6, or the proxies' weakest direction is near its noise.

    Computes in float64.

    Parameters
    ----------
    data
        A table (`CausalData`), its `Views`, or counts of ``(T, Z, X, Y)``.
    level
        The independences that classes are to explain: 3, 2, or 4 (the rank alone).
    max_classes
        Most classes considered; by default what the views can tell apart, 8 at most. Fits end
        once the criterion has risen twice in a row.
    seed
        Integer seed of starts and resamples.
    num_resamples
        Resamples of the likelihood ratio; 0 leaves it out.
    size
        Size of the tests, a number between 0 and 1.

    Returns
    -------
    Selection

    Raises
    ------
    InputError
        For options that are out of range, and for counts that are none.

    References
    ----------
    Schwarz (1978), Annals of Statistics 6; Kass, Raftery (1995), JASA 90; Andrews (1999),
    Econometrica 67; Kleibergen, Paap (2006), Journal of Econometrics 133; McLachlan (1987),
    Applied Statistics 36.

    Examples
    --------
    >>> import jax, jaxmix as jm
    >>> counts = jm.populations.paper_main(zt_strength=0.5).counts(jax.random.key(0), 100_000)
    >>> found = num_classes(counts, num_resamples=19)
    >>> found.recommended, found.thin
    (2, False)
    """
    level, max_classes, seed, num_resamples, size = _check_options(
        level, max_classes, seed, num_resamples, size
    )
    with one_table():
        evidence = _evidence(data)
        reason = _against_fits(evidence, level)
        most = evidence.max_rank
        if max_classes is not None and max_classes > most:
            raise InputError(
                f"max_classes is {max_classes}, but the proxies can tell apart at most {most} "
                "classes; use fewer classes or more proxies"
            )
        top = min(most, _MOST_CLASSES) if max_classes is None else max_classes
        rank_p = np.asarray(_ranks(evidence, min(top, most - 1)).p_value)
        num_rows = int(evidence.num_rows)
        context = Context(level, num_rows, num_resamples, size, seed, most, top, reason)
        if reason:
            method = "rank"
            found = [Candidate(k) for k in range(1, top + 1)]
        elif evidence.is_table:
            method = "likelihood"
            found = _fit_table(evidence.cells, context)
        else:
            method = "moments"
            found = _fit_moments(evidence.weighed_moments, context)
        found = [
            c._replace(rank_p_value=float(p)) if p is not None else c
            for c, p in itertools.zip_longest(found, rank_p[: len(found)])
        ]
        return decide(found, method, context)


def _evidence(data: object) -> Evidence:
    """Return what is known of a sample that was given by rows or by counts."""
    found = evidence_.of_rows(data)
    return found or Evidence(alone=from_counts(jnp.asarray(_checked(data))))


def _ranks(evidence: Evidence, num_tests: int) -> ranks.RankTests:
    """Test the rank of the proxies' moments."""
    if evidence.rows is not None:
        return ranks.of_sample(evidence.rows, num_tests=num_tests)
    return ranks.of_table(evidence.cells.sum(-1), num_tests=num_tests)


def _against_fits(evidence: Evidence, level: int) -> str:
    """Return why classes are not fitted; empty where they are."""
    if reason := evidence.design.against_likelihood():
        return reason
    if evidence.num_shared > 1:
        return "classes are not fitted beside covariates"
    num = math.prod(evidence.shape)
    if num > MAX_MOMENTS and not evidence.is_table:
        return f"there are {num:,} moments, and more than {MAX_MOMENTS:,} are not weighed"
    return "at level 4 X may cause Y, which classes need not explain" if level == 4 else ""


def _checked(counts: object) -> np.ndarray:
    """Return a table of counts as floating-point numbers, or say what is wrong with it."""
    what = "give a CausalData, its views, or counts by treatment, z, x and outcome"
    cells = arguments.array("data", counts, what)
    if cells.ndim != 4:
        raise InputError(f"the table of counts has {cells.ndim} directions, not 4: {what}")
    wrong = cells[~(np.isfinite(cells) & (cells >= 0) & (cells == np.round(cells)))]
    if wrong.size:
        raise InputError(f"the table of counts holds {wrong[0]}: counts are whole numbers from 0")
    for arm, num in enumerate(cells.sum((1, 2, 3))):
        if num == 0:
            raise InputError(f"the table of counts has no row in arm {arm}; leave that arm out")
    return cells


def _check_options(
    level: object, max_classes: object, seed: object, num_resamples: object, size: object
) -> tuple[int, int | None, int, int, float]:
    level = arguments.choice("level", level, (2, 3, 4), "use 2, 3 or 4")
    if max_classes is not None:
        remedy = "give a whole number from 1, or None"
        max_classes = arguments.whole("max_classes", max_classes, least=1, remedy=remedy)
    remedy = "give a whole number from 0"
    num_resamples = arguments.whole("num_resamples", num_resamples, least=0, remedy=remedy)
    seed, size = arguments.seed(seed), arguments.fraction("size", size)
    if num_resamples and 1 / (num_resamples + 1) > size:
        raise InputError(
            f"num_resamples is {num_resamples}, too few for a test of size {size}: use at least "
            f"{math.ceil(1 / size) - 1}, or 0"
        )
    return level, max_classes, seed, num_resamples, size


def _worsened(found: Sequence[Candidate]) -> bool:
    """Whether the criterion has risen often enough for more classes not to be fitted."""
    scores = [c.score for c in found][-_RISES - 1 :]
    rises = [b > a for a, b in itertools.pairwise(scores)]
    return len(rises) == _RISES and all(rises)


def _fit_table(cells: Cells, context: Context) -> list[Candidate]:
    key = jax.random.key(context.seed)
    own = {"level": context.level}
    of_resamples = jax.random.fold_in(key, 0)  # k counts from 1
    free = int(np.prod(cells.shape)) - 1
    sparse = context.num_rows < cells.size
    found: list[Candidate] = []
    fits = []
    for k in range(1, context.top + 1):
        if k > 1 and criteria.num_parameters(cells.shape, k, context.level) >= free:
            break
        fit = criteria.of_table(cells, k, key=jax.random.fold_in(key, k), **own)
        fits.append(fit)
        # Beyond one row per cell only: on sparse tables G2 has no chi-square law.
        tail = None if sparse or int(fit.df) <= 0 else float(chi2.sf(fit.g2, fit.df))
        numbers = (float(v) for v in (fit.log_likelihood, fit.num_parameters, fit.bic, fit.aic))
        likelihood, parameters, bic, aic = numbers
        found.append(
            Candidate(
                k, likelihood, int(parameters), bic, aic, statistic=float(fit.g2),
                df=int(fit.df), p_value=tail, done=bool(fit.done),
            )
        )  # fmt: skip
        if _worsened(found):
            break
    if context.num_resamples:
        best = min(range(len(found)), key=lambda i: found[i].score)
        near = best > 0 and found[best - 1].score - found[best].score < _STRONG
        for i in (best - 1, best) if near else (best,):
            if i + 1 < len(found):
                test = criteria.likelihood_ratio(
                    cells, i + 1, key=jax.random.fold_in(of_resamples, i), null=fits[i].factors,
                    num_resamples=context.num_resamples, **own,
                )  # fmt: skip
                found[i] = found[i]._replace(
                    ratio=float(test.statistic), ratio_p_value=float(test.p_value)
                )
    return found


def _fit_moments(moments: Moments, context: Context) -> list[Candidate]:
    key = jax.random.key(context.seed)
    found: list[Candidate] = []
    for k in range(1, context.top + 1):
        fit = criteria.of_moments(moments, k, key=jax.random.fold_in(key, k), level=context.level)
        if k > 1 and int(fit.df) <= 0:
            break
        tail = None if int(fit.df) <= 0 else float(chi2.sf(fit.j, fit.df))
        found.append(
            Candidate(
                k, criterion=float(fit.criterion), statistic=float(fit.j), df=int(fit.df),
                p_value=tail, done=bool(fit.done),
            )
        )  # fmt: skip
        if _worsened(found):
            break
    return found
