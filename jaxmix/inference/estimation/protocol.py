"""What may be asked of an estimate, however it came about.

The stages of a fit (errors, intervals, tests, what is influential) ask an `Estimation` and nothing
else: neither the moments nor the rows behind it, nor which estimator it is of. So an estimator of
another kind is one more class with these answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import jax
import numpy as np
from jaxtyping import Array

from jaxmix.estimators.base import Fitted, LevelEstimator, Numbers
from jaxmix.inference.asymptotic import Influential
from jaxmix.inference.resampling import Progress
from jaxmix.inference.specification import SpecificationTest
from jaxmix.sample.sample import Sample

DIFFERENTIABLE = tuple(name for name in Numbers._fields if name != "harmed")
"""The numbers of an estimate that have standard errors by differentiation."""


class Draws(NamedTuple):
    """Estimates of resamples, in numpy arrays with a leading axis of resamples.

    Attributes
    ----------
    numbers
        By name, classes in the order of those of the estimate.
    errors
        Standard errors within the resamples, by name; empty where they were not asked for.
    status
        ``(r,)`` of each `jaxmix.Status`.
    is_ambiguous
        ``(r,)`` whether its classes did not match those of the estimate one to one.
    """

    numbers: dict[str, np.ndarray]
    errors: dict[str, np.ndarray]
    status: np.ndarray
    is_ambiguous: np.ndarray


class Profiles(NamedTuple):
    """Profile-likelihood intervals.

    Attributes
    ----------
    bounds
        Ends on a last axis, by name.
    settled
        Whether every end was found to its tolerance.
    excess
        Log-likelihood by which some point beat the estimate; 0 where none did.
    """

    bounds: dict[str, np.ndarray]
    settled: bool
    excess: float


class Proxies(NamedTuple):
    """How much of the hidden class the proxies carry.

    Attributes
    ----------
    rank
        The rank that was used.
    singular_values
        Of ``E[z x | T=t]`` by arm, largest first.
    strength
        Effective F of the smallest of them that was used, by arm.
    """

    rank: int
    singular_values: Mapping[str, tuple[float, ...]]
    strength: Mapping[str, float]


class Estimation(Protocol):
    """An estimator fitted to a sample.

    Attributes
    ----------
    estimator, sample
        What was fitted, and to what.
    point
        The numbers in numpy arrays, with their status.
    counts
        ``(a, d_z, d_x, d_y)`` counts whose likelihood is maximal at the estimate; None where it is
        no estimate of maximum likelihood.
    """

    @property
    def estimator(self) -> LevelEstimator: ...  # noqa: D102
    @property
    def sample(self) -> Sample: ...  # noqa: D102
    @property
    def point(self) -> Fitted: ...  # noqa: D102
    @property
    def counts(self) -> np.ndarray | None: ...  # noqa: D102

    def spread(self, strata: str | None) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Return standard errors and accelerations by derivatives, by name.

        Parameters
        ----------
        strata
            ``"arm"`` takes the sizes of the arms as fixed.
        """

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
        """Estimation from resamples.

        Parameters
        ----------
        key, num
            Resample i of `num` is drawn by ``fold_in(key, i)``.
        kind
            One of `jaxmix.sample.resamples.draws.KINDS`.
        strata
            ``"arm"`` draws within each arm.
        errors
            Names of numbers whose standard errors within the resamples are wanted.
        progress
            Called with (resamples done, resamples in all).
        """

    def profiles(self, confidence: float) -> Profiles:
        """Return profile-likelihood intervals, of an estimate that has `counts`."""

    def proxies(self, arms: Sequence[str]) -> Proxies:
        """Return how strong the proxies are in each arm, by the labels of the arms."""

    def specification(self) -> SpecificationTest:
        """Return the test of the level that the estimate is of, or why there is none."""

    def most_influential(self, num: int) -> Influential:
        """Return the distinct rows without which the average effect would differ most."""

    def influence(self) -> Array:
        """Return the influence of each distinct row on the average effect."""
