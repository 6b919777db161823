"""How strong the proxies are where an estimate used them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Array

from jaxmix.estimators.base import LevelEstimator
from jaxmix.estimators.bridge import proxy_singular_values, short_of_rank, weakest_direction
from jaxmix.inference.asymptotic import Linearized
from jaxmix.inference.estimation.protocol import Proxies
from jaxmix.sample.moments import Moments
from jaxmix.sample.sample import Sample
from jaxmix.solvers.compiling import compiled


@dataclasses.dataclass(frozen=True)
class _Weakest:
    """Where noise meets the smallest singular value that is used, for its standard errors."""

    form: str
    index: int

    def __call__(self, moments: Moments) -> dict[str, Array]:
        column, row = weakest_direction(moments, self.index, form=self.form)
        return {"column": column, "row": row}


@compiled("num_classes", "form")
def _singular_values(moments: Moments, num_classes: int | None, form: str) -> tuple[Array, Array]:
    """Return the singular values of the proxies' moments by arm, and which are rounding."""
    short = short_of_rank(moments, num_classes, form=form)
    return proxy_singular_values(moments, form=form), short


def strength_of_proxies(estimator: LevelEstimator, sample: Sample, arms: Sequence[str]) -> Proxies:
    """Return the singular values of ``E[z x | T=t]`` and the effective F of the smallest used.

    F is its square over what sampling noise alone would make of it (Staiger, Stock 1997); where it
    is rounding, or 0, F is 0.

    Parameters
    ----------
    estimator
        What was estimated: its rank, form and estimand say which of them were used, and where.
    sample
        The sample.
    arms
        Labels of the arms.
    """
    k, form, moments = estimator.num_classes, estimator.form, sample.moments
    values, short = map(np.asarray, _singular_values(moments, k, form))
    used = values.shape[1]
    if k is not None:
        # Where the constant was partialled out it is not among the singular values; one class
        # needs nothing but the constant.
        partialled = moments.num_shared > (0 if form == "pooled" else 1)
        used = k - 1 if partialled or k == 1 else k
    shown = ["all"] if form == "pooled" else list(arms)
    relevant = range(len(shown))
    if estimator.level == 4 and estimator.estimand == "ATT":
        relevant = range(1)  # the control arm's bridge is the only one
    strength = {}
    if used > 0:
        weakest = jax.tree_util.Partial(_Weakest(form, used - 1))
        sides = Linearized(weakest, sample).standard_errors()
        noise = np.max([(side**2).sum(1) for side in sides.values()], axis=0)
        for i in relevant:
            value = values[i, used - 1]
            if short[i] or value == 0:
                # Rounding has no noise to be compared with; nor has an empty or a structural cell.
                strength[shown[i]] = 0.0
            elif noise[i] > 0:
                strength[shown[i]] = float(value**2 / noise[i])
    listed = {arm: tuple(row.tolist()) for arm, row in zip(shown, values, strict=True)}
    return Proxies(moments.max_rank if k is None else k, listed, strength)
