"""Which way an estimator is fitted to a sample, and what no way can fit."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax

from jaxmix.estimators.base import LevelEstimator
from jaxmix.estimators.compared import Compared
from jaxmix.inference.estimation.of_moments import OfMoments
from jaxmix.inference.estimation.protocol import Estimation
from jaxmix.inference.specification.data import MAX_MOMENTS
from jaxmix.sample.sample import Sample
from jaxmix.status import InputError

_KEY_OF_STARTS = 2**31 - 1  # folded into the seed: apart from the keys of the resamples


def estimation_of(
    estimator: LevelEstimator, sample: Sample, *, better: str, seed: int
) -> Estimation:
    """Return an estimator fitted to a sample; nothing is computed before it is asked for.

    Parameters
    ----------
    estimator, sample
        What is fitted, and to what.
    better
        Which outcome is good, ``"higher"`` or ``"lower"``.
    seed
        Integer seed, of the starts where the estimator searches.

    Raises
    ------
    InputError
        For more classes than the proxies can tell apart, and for moments that are too many to be
        weighed.
    """
    refuse(estimator, sample)
    key = None
    if estimator.searches:
        key = jax.random.fold_in(jax.random.key(seed), _KEY_OF_STARTS)
    return OfMoments(Compared.of(estimator, better), sample, key)


def refuse(estimator: LevelEstimator, sample: Sample) -> None:
    """Refuse what an estimator cannot be fitted to; see `estimation_of`."""
    moments, k = sample.moments, estimator.num_classes
    sizes = moments.tensor.shape
    if k is not None and k > moments.max_rank:
        own_z, own_x = (size - max(moments.num_shared - 1, 0) for size in sizes[1:3])
        raise InputError(
            f"num_classes (--classes) is {k}, but the proxies can tell apart at most "
            f"{moments.max_rank} classes (z has {own_z} features, x {own_x}, the constant "
            "included); use fewer classes or more proxies"
        )
    num = math.prod(sizes)
    if estimator.loss_of(moments.is_table) == "gmm" and num > MAX_MOMENTS:
        raise InputError(
            f"the factorization would weigh {num:,} moments ({' x '.join(map(str, sizes))}: arms, "
            f"z, x and outcome features), and {MAX_MOMENTS:,} is the most; use fewer or coarser "
            "columns, or the method 'spectral'"
        )


def against_covariates(names: Sequence[str], level: int) -> str:
    """Return why a level cannot be fitted beside covariates; empty where it can.

    Parameters
    ----------
    names
        The covariates.
    level
        The level that asks most of the data.

    Examples
    --------
    >>> against_covariates(["age"], 4), against_covariates([], 3)
    ('', '')
    """
    if level == 4 or not names:
        return ""
    return (
        f"covariates ({', '.join(map(repr, names))}) belong to level 4 for now, and a number of "
        f"classes asks for level {level} too; leave one of them out, or use level 4"
    )
