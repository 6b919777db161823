"""An estimator of moments, fitted to a sample."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import TypeVar

import jax
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array

from jaxmix.estimators.base import Fitted, LevelEstimator, Numbers, Optimum
from jaxmix.estimators.compared import Compared
from jaxmix.estimators.registry import Bridge
from jaxmix.inference import numbers as numbers_
from jaxmix.inference import profile, resampling
from jaxmix.inference.asymptotic import Influential, Linearized
from jaxmix.inference.estimation.protocol import Draws, Profiles, Proxies
from jaxmix.inference.estimation.strength import strength_of_proxies
from jaxmix.inference.resampling import Progress
from jaxmix.inference.specification import SpecificationTest, bridge, contrast_test, fit_test
from jaxmix.inference.specification.level import left_to_test
from jaxmix.model.optimum import table_of
from jaxmix.sample.moments import Moments
from jaxmix.sample.sample import Sample
from jaxmix.solvers.compiling import compiled

_Tree = TypeVar("_Tree")


@compiled()
def evaluate(statistic: Callable[[Moments], _Tree], moments: Moments) -> _Tree:
    """Evaluate a statistic of the moments.

    One program per statistic, whatever else is asked of it: a program that also differentiates
    rounds differently, and may end elsewhere where the optimum is flat.
    """
    return statistic(moments)


@dataclasses.dataclass(frozen=True)
class _NumbersOf:
    """The numbers of an estimate that have derivatives, by name."""

    compared: Compared

    def __call__(
        self, moments: Moments, *, key: Array | None = None, near: Optimum | None = None
    ) -> dict[str, Array]:
        return self.compared(moments, key=key, near=near).numbers._replace(harmed=None).known()


@dataclasses.dataclass(frozen=True)
class _Drawn:
    """What is wanted of a resample: its numbers by name, its classes' looks, its status."""

    compared: Compared

    def __call__(
        self, moments: Moments, *, key: Array | None = None, near: Optimum | None = None
    ) -> dict[str, Array]:
        found = self.compared(moments, key=key, near=near)
        looks = {} if found.looks is None else {"looks": found.looks}
        return found.numbers.known() | looks | {"status": found.status}


@dataclasses.dataclass(frozen=True)
class _Contrast:
    """Level 3's mean minus level 4's estimate of the same thing, at the estimate."""

    estimator: LevelEstimator

    def __call__(self, moments: Moments, *, near: Optimum | None = None) -> dict[str, Array]:
        own = self.estimator
        other = Bridge(own.num_classes, own.form, own.estimand)
        mean, less = own(moments, near=near).numbers.effect, other(moments).numbers.effect
        assert mean is not None
        assert less is not None
        return {"contrast": mean - less}


_align = compiled()(jax.vmap(resampling.align, in_axes=(0, None)))


@dataclasses.dataclass(frozen=True, eq=False)
class OfMoments:
    """An estimator of moments, fitted to a sample; see `Estimation`.

    Attributes
    ----------
    compared
        The estimator beside the naive contrast.
    sample
        The sample.
    key
        Key of the starts, where the estimator searches.
    """

    compared: Compared
    sample: Sample
    key: jax.Array | None

    @property
    def estimator(self) -> LevelEstimator:
        """What was fitted."""
        return self.compared.estimator

    @functools.cached_property
    def _loss(self) -> str | None:
        return self.estimator.loss_of(self.sample.moments.is_table)

    @functools.cached_property
    def point(self) -> Fitted:
        """The estimate in arrays of numpy; the optimum stays as it is."""
        sample = self.sample
        moments = sample.weighed_moments if self._loss == "gmm" else sample.moments
        found: Fitted = evaluate(Partial(self.compared, key=self.key), moments)
        on_host: Fitted = jax.tree.map(np.asarray, found)
        return on_host._replace(optimum=found.optimum)

    @functools.cached_property
    def counts(self) -> np.ndarray | None:
        """The counts of a fit by maximum likelihood, weights and clusters aside."""
        if self._loss != "kl":
            return None
        return np.asarray(table_of(self.sample.moments, 3).counts)

    @functools.cached_property
    def _linear(self) -> Linearized:
        """The numbers to first order; at the estimate nothing is searched."""
        at_optimum = _NumbersOf(self.compared.at_optimum())
        return Linearized(Partial(at_optimum, near=self.point.optimum), self.sample)

    def spread(self, strata: str | None) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Return standard errors and accelerations by influence functions, by name."""
        return self._linear.spread(self.sample.strata(strata))

    def resampled(
        self,
        key: jax.Array,
        num: int,
        *,
        kind: str,
        strata: str | None,
        errors: Sequence[str] = (),
        progress: Progress | None = None,
    ) -> Draws:
        """Estimation from the moments of resamples, each from the optimum of the estimate on."""
        found = resampling.bootstrap(
            Partial(_Drawn(self.compared), key=self.key, near=self.point.optimum),
            self.sample.views,
            key=key,
            num_resamples=num,
            kind=kind,
            strata=self.sample.strata(strata),
            errors=tuple(errors),
            progress=progress,
        )
        numbers, within = jax.tree.map(np.asarray, found if errors else (found, {}))
        status = numbers.pop("status")
        is_ambiguous = np.zeros(len(status), bool)
        if "looks" in numbers:
            assert self.point.looks is not None
            turned = _align(numbers.pop("looks"), self.point.looks)
            order, is_ambiguous = map(np.asarray, turned)
            for values in (numbers, within):
                for name in values.keys() & {"shares", "effects"}:
                    values[name] = np.take_along_axis(values[name], order, axis=1)
            numbers["cumulative"] = np.cumsum(numbers["shares"], axis=1)[:, :-1]
            if "cumulative" in within:
                # Known where the classes of the resample came in the order of the estimate.
                same = np.all(order == np.arange(order.shape[1]), axis=1)[:, None]
                within["cumulative"] = np.where(same, within["cumulative"], np.nan)
        return Draws(numbers, within, status, is_ambiguous)

    def profiles(self, confidence: float) -> Profiles:
        """Return profile-likelihood intervals, divided by design effects where there are any."""
        estimator, near, moments = self.estimator, self.point.optimum, self.sample.moments
        k, level, estimand = estimator.num_classes, estimator.level, estimator.estimand
        assert k is not None
        assert near is not None
        inflation = None
        if not self.sample.design.is_random:
            inflation = numbers_.design_effects(
                moments, k, near.start, Numbers(**self.spread(None)[0]), level=level,
                estimand=estimand,
            )  # fmt: skip
        found = profile.intervals(
            moments, k, near.start, confidence=confidence, inflation=inflation, level=level,
            estimand=estimand,
        )._asdict()  # fmt: skip
        settled, excess = bool(found.pop("settled")), float(found.pop("excess"))
        return Profiles({name: np.asarray(ends) for name, ends in found.items()}, settled, excess)

    def proxies(self, arms: Sequence[str]) -> Proxies:
        """Return how strong the proxies are; the pooled form knows them in all arms at once."""
        return strength_of_proxies(self.estimator, self.sample, arms)

    def specification(self) -> SpecificationTest:
        """Return J of the bridge; of classes how well they fit, or how they agree with level 4."""
        own, sample = self.estimator, self.sample
        if own.level == 4:
            return bridge.of_sample(
                sample, rank=own.num_classes, form=own.form, estimand=own.estimand
            )
        test = self._test_of_fit()
        return self._against_level_4() if not test.applies and own.level == 3 else test

    def _test_of_fit(self) -> SpecificationTest:
        moments, level, point = self.sample.moments, self.estimator.level, self.point
        symbol = "G2" if "g2" in point.stats else "J"
        rows_per_cell = None
        if symbol == "G2":
            rows_per_cell = float(moments.num_rows) / moments.tensor.size
        df = int(point.stats.get("df", 1))
        # The ranks of a large table take their time.
        if rows_per_cell is not None and rows_per_cell >= 1 and point.optimum is not None:
            df = int(left_to_test(moments, point.optimum.start, level=level))
        return fit_test(
            float(point.stats.get(symbol.lower(), np.nan)),
            df,
            level=level,
            symbol=symbol,
            rows_per_cell=rows_per_cell,
            design=self.sample.design,
        )

    def _against_level_4(self) -> SpecificationTest:
        """Test level 3 by whether its mean agrees with level 4, which needs less."""
        moments = self.sample.moments
        contrast = Partial(_Contrast(self.estimator.at_optimum()), near=self.point.optimum)
        value = float(evaluate(contrast, moments)["contrast"])
        se = float(Linearized(contrast, self.sample).standard_errors()["contrast"])
        low, high = moments.range_y
        return contrast_test(value, se, float(high - low))

    def influence(self) -> Array:
        """Return the influence of each distinct row on the average effect."""
        return self._linear.influence("effect")

    def most_influential(self, num: int) -> Influential:
        """Return the distinct rows without which the average effect would differ most."""
        return self._linear.most_influential("effect", min(num, self.sample.num_distinct))
