"""An estimator with what `jaxmix.fit` shows beside it: the naive contrast, the share harmed."""

from __future__ import annotations

import dataclasses

from jaxtyping import Array

from jaxmix.estimators.base import Fitted, LevelEstimator, Optimum
from jaxmix.estimators.baselines import difference_in_means
from jaxmix.sample.moments import Moments
from jaxmix.status import settle


@dataclasses.dataclass(frozen=True)
class Compared:
    """A function of moments, hashable, so that it is compiled once.

    Attributes
    ----------
    estimator
        The estimator.
    better
        Which outcome is good, ``"higher"`` or ``"lower"``.
    """

    estimator: LevelEstimator
    better: str = "higher"

    @classmethod
    def of(cls, estimator: LevelEstimator, better: str) -> Compared:
        """Return an estimator beside the naive contrast.

        Level 4 has no classes to be harmed, so that one program serves both directions.
        """
        return cls(estimator, better if estimator.level < 4 else "higher")

    def at_optimum(self) -> Compared:
        """Return the same for derivatives at an estimate: it searches and moves nothing."""
        return dataclasses.replace(self, estimator=self.estimator.at_optimum())

    def __call__(
        self, moments: Moments, *, key: Array | None = None, near: Optimum | None = None
    ) -> Fitted:
        """Estimate from moments; see `jaxmix.estimators.base.Estimator`."""
        found = self.estimator(moments, key=key, near=near)
        naive = difference_in_means(moments)
        numbers = found.numbers._replace(naive=naive)
        if numbers.shares is not None:
            numbers = numbers._replace(harmed=found.law.share_harmed(self.better))
        return found._replace(numbers=numbers, status=settle(found.status, naive))
