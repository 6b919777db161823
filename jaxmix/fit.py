"""From data to a result: the only place that puts the rooms in sequence."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxmix import features
from jaxmix.data import CausalData
from jaxmix.estimators.bridge import proxy_singular_values, weakest_direction
from jaxmix.features import Views
from jaxmix.inference import asymptotic, resampling
from jaxmix.inference.specification import (
    SpecificationTest,
    contrast_test,
    overidentification,
)
from jaxmix.mixture import EffectLaw
from jaxmix.moments import Moments, from_rows
from jaxmix.plan import Estimator, plan
from jaxmix.result import Diagnostics, Estimate, PerClass, Result
from jaxmix.status import InputError, Status

_WEAK = 10.0  # an effective F below this (Staiger, Stock 1997) makes proxies weak
# Resamples that end so have no estimate; out of range, they have one, and leaving it out would
# make intervals look better than they are.
_NO_ESTIMATE = (
    Status.COMPLEX_SPECTRUM,
    Status.INDEFINITE_MOMENTS,
    Status.RANK_DEFICIENT,
    Status.NONFINITE,
)


@dataclasses.dataclass(frozen=True)
class _Numbers:
    """The part of an estimator's output that has standard errors by differentiation."""

    estimator: Estimator

    def __call__(self, moments: Moments) -> dict[str, Array]:
        out = self.estimator(moments)
        names = ("effect", "means", "naive", "shares", "effects")
        return {name: out[name] for name in names if name in out}


@dataclasses.dataclass(frozen=True)
class _Weakest:
    """Where noise meets the smallest singular value that is used, for its standard errors."""

    estimator: Estimator
    index: int

    def __call__(self, moments: Moments) -> tuple[Array, Array]:
        return weakest_direction(moments, self.index, form=self.estimator.form)


@dataclasses.dataclass(frozen=True)
class _Contrast:
    """Level 3's mean minus level 4's estimate of the same thing."""

    estimator: Estimator

    def __call__(self, moments: Moments) -> Array:
        other = dataclasses.replace(self.estimator, level=4, method="bridge")
        return self.estimator(moments)["effect"] - other(moments)["effect"]


@dataclasses.dataclass(frozen=True)
class _SingularValues:
    """The singular values of the proxies' moments, by arm."""

    estimator: Estimator

    def __call__(self, moments: Moments) -> Array:
        return proxy_singular_values(moments, form=self.estimator.form)


_evaluate = jax.jit(lambda estimator, views: estimator(from_rows(views)), static_argnums=0)
_errors = jax.jit(asymptotic.standard_errors, static_argnums=0)
_align = jax.jit(jax.vmap(resampling.align, in_axes=(0, None)))


def fit(
    data: CausalData,
    *,
    num_classes: int | str | None = None,
    level: str | int = "auto",
    method: str = "auto",
    bridge: str = "by_arm",
    estimand: str = "ATE",
    better: str = "higher",
    num_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    interval: str = "percentile",
    resampling: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Estimate an effect under hidden confounding, and the classes behind it where asked for.

    Computes in float64, whatever the default precision of JAX.

    Parameters
    ----------
    data
        The table with roles (`CausalData.from_frame` or `read`).
    num_classes
        Number of hidden classes. Level 3 needs it; at level 4 it is the rank at which the
        proxies' moments are truncated (None: nothing is truncated).
    level
        The level is a claim about the graph that the user makes: 4 lets Z cause T and X cause Y
        and gives the average effect; 3 also needs that X does not affect Y, and gives the effect
        law. ``"auto"``: level 4 is the headline, and where `num_classes` is given level 3 stands
        beside it, conditional on that.
    method
        ``"bridge"`` (level 4), ``"synthetic"`` or ``"spectral"`` (level 3); ``"auto"`` takes the
        bridge and the spectral operator.
    bridge
        ``"by_arm"``, or ``"pooled"``: treatment enters once, linearly, as in proximal two-stage
        least squares.
    estimand
        ``"ATE"``, or ``"ATT"``: the effect (and the law) among the treated.
    better
        Which outcome is good, ``"higher"`` or ``"lower"``; matters for the share harmed.
    num_resamples
        Bootstrap resamples; 0 takes standard errors from influence functions and normal
        intervals.
    confidence
        Confidence of the intervals.
    seed
        Integer seed of the resamples.
    interval
        ``"percentile"`` or ``"normal"``, from the resamples.
    resampling
        ``"multinomial"``, ``"poisson"`` or ``"bayesian"``. None takes multinomial where rows carry
        counts (discrete data, frequency weights), and otherwise, and for clusters, Bayesian
        weights: they drop no row, so that a rare category cannot make a resample singular.
    progress
        Called with (resamples done, resamples in all).

    Returns
    -------
    Result
        A failed estimate is a result whose status says so; nothing is raised for it.

    Raises
    ------
    InputError
        For options that do not go together, or that the data cannot carry.

    Examples
    --------
    >>> import jax, jaxmix as jm
    >>> rows = jm.populations.paper_main(zt_strength=0.5).sample(jax.random.key(0), 5000)
    >>> data = jm.CausalData.from_frame(rows, treatment="T", outcome="Y", z=["Z"], x=["X"])
    >>> result = jm.fit(data, level=3, num_classes=2, num_resamples=100)
    >>> result.status.name, [bool(abs(e - 0.75) < 0.1) for e in abs(result.law.effects)]
    ('SUCCESS', [True, True])
    """
    asked = {
        "level": level, "method": method, "bridge": bridge, "estimand": estimand,
        "better": better, "interval": interval, "resampling": resampling,
    }  # fmt: skip
    headline, beside = plan(data, asked, num_classes, num_resamples, confidence)
    if not isinstance(seed, int | np.integer) or not -(2**63) <= seed < 2**63:
        raise InputError(f"seed is {seed!r}: give a whole number of at most 63 bits")
    with jax.enable_x64(True):
        views = features.encode(data, reduce=True)
        k = headline.num_classes
        if k is not None and k > views.max_rank:
            raise InputError(
                f"num_classes (--classes) is {k}, but the proxies can tell apart at most "
                f"{views.max_rank} classes (z has {_own(views.z, views)} features, x "
                f"{_own(views.x, views)}, the constant included); use fewer classes or more proxies"
            )
        run = _Run(data, views, num_resamples, confidence, seed, interval, resampling, progress)
        result = dataclasses.replace(run.fit(headline), better=better)
        if beside is None:
            return result
        conditional = run.fit(beside)
    if reason := _withdrawn(conditional):
        note = f"level 3 was withdrawn: {reason}; its numbers are for inspection only"
        own = f"withdrawn from the result: {reason}"
        conditional = dataclasses.replace(conditional, warnings=(*conditional.warnings, own))
        return dataclasses.replace(
            result, conditional=conditional, warnings=(*result.warnings, note)
        )
    return dataclasses.replace(
        result,
        conditional=conditional,
        law=conditional.law,
        law_se=conditional.law_se,
        law_interval=conditional.law_interval,
        share_harmed=conditional.share_harmed,
    )


def _withdrawn(conditional: Result) -> str:
    """Return why a level-3 result may not stand beside the headline; empty where it may."""
    if not conditional.status.usable:
        return f"{conditional.status.name}, {conditional.status.message}"
    d = conditional.diagnostics
    bad = d.num_failed + d.out_of_range
    if 2 * bad > d.num_resamples:
        return f"{bad} of {d.num_resamples} resamples have no estimate or one out of range"
    if d.specification.rejects():
        return f"its mean contradicts level 4 ({d.specification})"
    return ""


def _own(features: Array, views: Views) -> int:
    """Return the number of a view's features without the covariates."""
    return features.shape[1] - max(views.num_shared - 1, 0)


@dataclasses.dataclass(frozen=True)
class _Run:
    """One call's data and settings of inference."""

    data: CausalData
    views: Views
    num_resamples: int
    confidence: float
    seed: int
    interval: str
    resampling: str | None
    progress: Callable[[int, int], None] | None

    def fit(self, estimator: Estimator) -> Result:
        """Estimate, with uncertainty and diagnostics."""
        data, views = self.data, self.views
        point = jax.tree.map(np.asarray, _evaluate(estimator, views))
        status = Status(int(point["status"]))
        numbers = {
            name: point[name]
            for name in ("effect", "means", "naive", "shares", "effects", "harmed")
            if name in point
        }
        tally: dict[str, Any] = {}
        if self.num_resamples:
            draws, tally = self._resample(estimator, point)
            errors, bounds = self._spread(numbers, draws)
        else:
            errors = jax.tree.map(np.asarray, _errors(_Numbers(estimator), views))
            bounds = {
                name: np.stack(
                    resampling.normal_interval(numbers[name], se, self.confidence), axis=-1
                )
                for name, se in errors.items()
            }
        diagnostics, weak = self._diagnose(estimator, point, tally)
        if weak and status < Status.WEAK_PROXIES:
            status = Status.WEAK_PROXIES

        def estimate(name: str, *index: int) -> Estimate:
            se, at = errors.get(name), bounds.get(name)
            return Estimate(
                float(numbers[name][index]),
                None if se is None else float(se[index]),
                None if at is None else (float(at[index][0]), float(at[index][1])),
            )

        law = law_se = law_interval = harmed = None
        if estimator.level == 3:
            law = EffectLaw(
                numbers["shares"], numbers["effects"], jnp.int32(status), dict(point["stats"])
            )
            if "shares" in errors:
                law_se = PerClass(errors["shares"], errors["effects"])
                law_interval = PerClass(bounds["shares"], bounds["effects"])
            harmed = estimate("harmed")
        return Result(
            treatment=data.treatment,
            control=data.arms[0],
            arm=data.arms[1],
            outcome=data.outcome.name,
            num_rows=data.num_rows,
            num_dropped=data.num_dropped,
            missing=dict(data.missing),
            level=estimator.level,
            method=estimator.method,
            bridge=estimator.form,
            estimand=estimator.estimand,
            num_classes=estimator.num_classes,
            better=estimator.better,
            confidence=self.confidence,
            seed=self.seed,
            status=status,
            warnings=self._warnings(diagnostics, point["means"], bool(errors)),
            naive=estimate("naive"),
            ate=estimate("effect"),
            potential_means={arm: estimate("means", i) for i, arm in enumerate(data.arms)},
            law=law,
            law_se=law_se,
            law_interval=law_interval,
            share_harmed=harmed,
            diagnostics=diagnostics,
        )

    def _resample(
        self, estimator: Estimator, point: dict[str, Any]
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return the resampled numbers that are estimates, classes aligned, and a tally."""
        kind = self.resampling or (
            "multinomial" if self.views.repeated and not self.views.num_clusters else "bayesian"
        )
        draws = resampling.bootstrap(
            estimator,
            self.views,
            key=jax.random.key(self.seed),
            num_resamples=self.num_resamples,
            kind=kind,
            progress=self.progress,
        )
        statuses = np.asarray(draws["status"])
        usable = ~np.isin(statuses, [int(s) for s in _NO_ESTIMATE])
        ambiguous = np.zeros(len(statuses), bool)
        if "profile" in draws:
            order, unclear = _align(draws["profile"], point["profile"])
            for name in ("shares", "effects"):
                draws[name] = jnp.take_along_axis(draws[name], order, axis=1)
            ambiguous = np.asarray(unclear)
        failed = collections.Counter(Status(int(s)).name for s in statuses[~usable])
        tally = {
            "resampling": kind,
            "num_resamples": self.num_resamples,
            "failed": dict(failed),
            "out_of_range": int((statuses == Status.OUT_OF_RANGE).sum()),
            "ambiguous": int((ambiguous & usable).sum()),
        }
        skip = ("status", "stats", "profile")
        kept = {name: np.asarray(v)[usable] for name, v in draws.items() if name not in skip}
        return kept, tally

    def _spread(
        self, numbers: dict[str, np.ndarray], draws: dict[str, np.ndarray]
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Return standard errors and intervals; none where most resamples have no estimate."""
        if 2 * len(draws["effect"]) < self.num_resamples:
            return {}, {}
        errors = {name: values.std(axis=0, ddof=1) for name, values in draws.items()}
        bounds = {}
        for name, values in draws.items():
            if self.interval == "percentile":
                ends = resampling.percentile_interval(values, self.confidence)
            else:
                ends = resampling.normal_interval(numbers[name], errors[name], self.confidence)
            bounds[name] = np.stack(ends, axis=-1)
        return errors, bounds

    def _diagnose(
        self, estimator: Estimator, point: dict[str, Any], tally: dict[str, Any]
    ) -> tuple[Diagnostics, bool]:
        """Return the diagnostics, and whether the proxies are weak where they were used."""
        views, k = self.views, estimator.num_classes
        values = np.asarray(_evaluate(_SingularValues(estimator), views))
        used = values.shape[1]
        if k is not None:
            # Where the constant was partialled out it is not among the singular values.
            partialled = views.num_shared > (0 if estimator.form == "pooled" else 1)
            used = k - 1 if partialled else k
        arms = ["all"] if estimator.form == "pooled" else list(self.data.arms)
        relevant = range(len(arms))
        if estimator.level == 4 and estimator.estimand == "ATT":
            relevant = range(1)  # the control arm's bridge is the only one
        strengths = {}
        if used > 0:
            sides = _errors(_Weakest(estimator, used - 1), views)
            noise = np.max([(np.asarray(side) ** 2).sum(1) for side in sides], axis=0)
            for i in relevant:
                if noise[i] > 0:
                    strengths[arms[i]] = float(values[i, used - 1] ** 2 / noise[i])
        stats = {name: float(value) for name, value in point["stats"].items()}
        if estimator.level == 4:
            test = overidentification(
                views, rank=k, form=estimator.form, estimand=estimator.estimand
            )
        else:
            test = self._contrast(estimator)
        diagnostics = Diagnostics(
            arm_sizes=self.data.arm_sizes(),
            num_features={"z": views.z.shape[1], "x": views.x.shape[1]},
            rank=views.max_rank if k is None else k,
            singular_values={
                arm: tuple(row.tolist()) for arm, row in zip(arms, values, strict=True)
            },
            proxy_strength=strengths,
            specification=test,
            gap=stats.get("gap"),
            condition=stats.get("condition"),
            repairs={n: stats[n] for n in ("share_repair", "imaginary") if n in stats},
            **tally,
        )
        return diagnostics, any(strength < _WEAK for strength in strengths.values())

    def _contrast(self, estimator: Estimator) -> SpecificationTest:
        """Test level 3 by whether its mean agrees with level 4, which needs less (Hausman)."""
        contrast = _Contrast(estimator)
        value, se = (float(f(contrast, self.views)) for f in (_evaluate, _errors))
        span = float(self.views.range_y[1] - self.views.range_y[0])
        return contrast_test(value, se, span)

    def _warnings(
        self, diagnostics: Diagnostics, means: np.ndarray, spread: bool
    ) -> tuple[str, ...]:
        found = []
        low, high = np.asarray(self.views.range_y)
        for arm, mean in zip(self.data.arms, means, strict=True):
            if not low <= mean <= high and np.isfinite(mean):
                found.append(
                    f"the mean outcome under {self.data.treatment}={arm} came out outside the "
                    "outcome's range: weak proxies, or assumptions that do not hold"
                )
        if diagnostics.num_resamples and not spread:
            found.append(
                f"{diagnostics.num_failed} of {diagnostics.num_resamples} resamples have no "
                "estimate, so no standard errors or intervals are given"
            )
        elif diagnostics.num_failed > 0.05 * diagnostics.num_resamples:
            found.append(
                f"{diagnostics.num_failed} of {diagnostics.num_resamples} resamples have no "
                "estimate; intervals rest on the others and are too optimistic (the resampling "
                "'bayesian' drops no row, and may fail less)"
            )
        if diagnostics.ambiguous > 0.05 * diagnostics.num_resamples:
            found.append(
                f"classes could not be told apart in {diagnostics.ambiguous} of "
                f"{diagnostics.num_resamples} resamples: they are not resolved, and intervals by "
                "class are unreliable"
            )
        if diagnostics.specification.rejects():
            found.append(
                f"the specification test rejects ({diagnostics.specification.null}): the estimate "
                "may be biased"
            )
        return tuple(found)
