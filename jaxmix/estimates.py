"""The pieces of a result: estimates with intervals, fitted classes, diagnostics."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmix.data import CausalData
from jaxmix.features import cells_like
from jaxmix.inference.specification import SpecificationTest
from jaxmix.mixture import Mixture
from jaxmix.status import InputError


class Estimate(NamedTuple):
    """A number with its standard error and interval (None where there is none)."""

    value: float
    se: float | None = None
    interval: tuple[float, float] | None = None


class PerClass(NamedTuple):
    """Numbers beside an effect law: ``shares`` and ``effects``, ``(k,)`` or ``(k, 2)``."""

    shares: np.ndarray
    effects: np.ndarray


class InfluentialRow(NamedTuple):
    """A row that moves the estimate.

    Attributes
    ----------
    values
        Its values by column: treatment, outcome, proxies.
    copies
        How many rows it stands for: those identical to it, where rows are merged.
    change
        By how much the estimate would change without them, to first order.
    """

    values: Mapping[str, str]
    copies: int
    change: float


@dataclasses.dataclass(frozen=True)
class Diagnostics:
    """What there is to know about how far an estimate can be trusted.

    Attributes
    ----------
    arm_sizes
        Rows by arm.
    num_features
        Features of z and of x.
    rank
        The rank that was used.
    singular_values
        Singular values of E[z x | T=t] by arm, largest first ("all" when pooled); covariates
        partialled out.
    proxy_strength
        Effective F of the smallest of them that was used, by arm: its square over what sampling
        noise alone would make of it; below 10 the proxies count as weak.
    gap, condition
        Of the spectral operator: the smallest distance of eigenvalues in units of the outcome's
        range, and the condition of the class profiles.
    starts
        Factorization: how the solver fared; ``num_starts`` of them, ``num_agree`` at the best
        optimum, ``runner_up`` the gap to the next one in log-likelihood units.
    repairs
        Named sizes of what was repaired to get numbers: ``share_repair``, ``imaginary``.
    specification
        Test of the specification, or why there is none.
    interval
        How intervals were made: ``"profile"`` or a kind of `jaxmix.fit`.
    num_resamples, resampling
        How many resamples, and of which kind (None without).
    failed
        Resamples without an estimate, by status.
    out_of_range
        Resamples whose estimate was out of range; they are kept in the intervals.
    ambiguous
        Resamples whose classes did not match those of the estimate one to one.
    tests
        Further tests by name. Level 3: ``arms`` (equal classes across arms) and ``range``; level
        2: ``z_to_t`` (level 2 inside level 3).
    complex_spectra
        Share of resamples in which the arms' operators have complex eigenvalues; None where no
        resamples were drawn, and for one class.
    influential
        The rows that move the estimate most, largest first: `InfluentialRow`; empty without the
        further checks.
    """

    arm_sizes: Mapping[str, int]
    num_features: Mapping[str, int]
    rank: int
    singular_values: Mapping[str, tuple[float, ...]]
    proxy_strength: Mapping[str, float]
    specification: SpecificationTest
    gap: float | None = None
    condition: float | None = None
    repairs: Mapping[str, float] = dataclasses.field(default_factory=dict)
    starts: Mapping[str, float] = dataclasses.field(default_factory=dict)
    interval: str = "normal"
    num_resamples: int = 0
    resampling: str | None = None
    failed: Mapping[str, int] = dataclasses.field(default_factory=dict)
    out_of_range: int = 0
    ambiguous: int = 0
    tests: Mapping[str, SpecificationTest] = dataclasses.field(default_factory=dict)
    complex_spectra: float | None = None
    influential: tuple[InfluentialRow, ...] = ()

    @property
    def num_failed(self) -> int:
        """Resamples without an estimate."""
        return sum(self.failed.values())


@dataclasses.dataclass(frozen=True, eq=False)
class Classes:
    """The fitted classes with the names of the cells their profiles speak of.

    Attributes
    ----------
    mixture
        Shares, means and profiles (`jaxmix.Mixture`).
    arms
        Labels of the arms.
    z_cells, x_cells
        Joint values of the columns behind each feature of z and of x.
    outcome_values
        The outcome behind each of its features.
    """

    mixture: Mixture
    arms: tuple[str, ...]
    z_cells: Sequence[tuple[str, ...]]
    x_cells: Sequence[tuple[str, ...]]
    outcome_values: np.ndarray

    def posterior(self, data: CausalData) -> np.ndarray:
        """Return ``P(U=u | row)``, ``(n, k)``; NaN where a row is impossible under the fit."""
        if strange := [arm for arm in data.arms if arm not in self.arms]:
            raise InputError(f"arm {strange[0]!r} of {data.treatment!r} is not in the fit")
        values = data.outcome.values
        y = (values[:, None] == self.outcome_values).astype(float)
        if (y.sum(1) == 0).any():
            bad = values[y.sum(1) == 0][0]
            raise InputError(f"outcome {data.outcome.name!r} = {bad:g} does not occur in the fit")
        with jax.enable_x64(True):
            t = np.array([self.arms.index(arm) for arm in data.arms])[data.t]
            z = cells_like("z", data.z, self.z_cells)
            x = cells_like("x", data.x, self.x_cells)
            rows = (jnp.asarray(part) for part in (t, z, x, y))
            return np.asarray(self.mixture.posterior(*rows))
