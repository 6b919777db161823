"""From data to a result: the only place that puts the rooms in sequence."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from jaxmix import arguments
from jaxmix.data.roles import CausalData
from jaxmix.estimators.base import LevelEstimator
from jaxmix.estimators.registry import Factorization
from jaxmix.fitting.answer import answer
from jaxmix.fitting.consistency import examined
from jaxmix.fitting.diagnose import diagnose, warnings_of
from jaxmix.fitting.options import AUTO, Options
from jaxmix.fitting.plan import declare, of_classes, plan
from jaxmix.fitting.stages import checks_of
from jaxmix.fitting.uncertainty import uncertainty
from jaxmix.fitting.units import of_order_one
from jaxmix.hierarchy import Verdict
from jaxmix.inference import selection
from jaxmix.inference.estimation import estimation_of, refuse
from jaxmix.inference.selection import Selection
from jaxmix.results.estimates import CLASSES
from jaxmix.results.result import Result
from jaxmix.sample import features
from jaxmix.sample.sample import Sample
from jaxmix.solvers.compiling import one_table
from jaxmix.status import Status

_REFINED = (Status.COMPLEX_SPECTRUM, Status.INDEFINITE_MOMENTS, Status.OUT_OF_RANGE)


@of_order_one
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
    interval: str = "auto",
    resampling: str | None = None,
    strata: str | None = None,
    graph: object = None,
    checks: bool = True,
    edge: str = "x_to_y",
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Estimate an effect under hidden confounding, and the classes behind it where asked for.

    Computes in float64, whatever the default precision of JAX.

    Parameters
    ----------
    data
        The table with roles (`CausalData.from_frame` or `read`).
    num_classes
        Number of hidden classes, or ``"auto"``: chosen by `jaxmix.selection.num_classes`, and
        taken as known from there on. Level 3 needs it; at level 4 it is the rank at which the
        proxies' moments are truncated (None: nothing is truncated).
    level
        The level is a claim about the graph that the user makes: 4 lets Z cause T and X cause Y
        and gives the average effect; 3 also needs that X does not affect Y, and gives the effect
        law; 2 needs moreover that Z does not affect T. ``"auto"``: level 4 is the headline, and
        where `num_classes` is given level 3 stands beside it, conditional on that.
    method
        ``"bridge"`` (level 4), ``"factorization"`` (levels 2 and 3), ``"synthetic"`` or
        ``"spectral"`` (level 3); ``"auto"`` takes the bridge and the factorization. Where a closed
        form of level 3 fails, the factorization stands in its place, and a warning says so.
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
    graph
        A causal graph of the table's columns and the hidden class, as `jaxmix.hierarchy.identify`
        takes it: it declares the level where `level` is ``"auto"``, and must support it otherwise.
    checks
        Whether a result has the rows that move it most and, at levels 2 and 3, further tests and
        sensitivity bounds. They are computed when they are first read (`Result.tests`,
        `Result.sensitivity`, `Result.influential`, and what shows them), which takes some seconds.
    edge
        The assumption that the bounds relax: ``"x_to_y"`` or ``"z_to_y"``.
    interval
        ``"profile"`` (profile likelihood, for maximum-likelihood fits of random samples) or, from
        the resamples, ``"percentile"``, ``"basic"``, ``"normal"`` (``-+ z`` standard errors),
        ``"studentized"`` (bootstrap-t) or ``"bca"`` (bias-corrected, accelerated). The last two
        correct for skewness and take multinomial resamples unless told otherwise. ``"auto"`` takes
        the profile likelihood where there is one (with weights or clusters, divided by design
        effects, at the bounds of probabilities), and percentiles elsewhere. The share harmed, a
        step function of the law, has the projection of the classes' intervals.
    resampling
        ``"multinomial"``, ``"poisson"`` or ``"bayesian"``. None takes multinomial where rows carry
        counts (discrete data, frequency weights), and otherwise, and for clusters, Bayesian
        weights: they drop no row, so that a rare category cannot make a resample singular.
    strata
        ``"arm"`` draws resamples within each treatment arm, whose size stays fixed, as in an
        experiment or a sample that fixed it; standard errors are then conditional on the sizes.
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
    arguments.instance(
        "data", data, CausalData, "give a table with roles (CausalData.from_frame, or read)"
    )
    options = Options.of(
        num_classes=num_classes, level=level, method=method, bridge=bridge, estimand=estimand,
        better=better, num_resamples=num_resamples, confidence=confidence, seed=seed,
        interval=interval, resampling=resampling, strata=strata, checks=checks, edge=edge,
        progress=progress,
    )  # fmt: skip
    declared, verdict = declare(data, options.level, graph)
    options = dataclasses.replace(options, level=declared)
    planned = plan(data, options)
    chosen, k = None, options.num_classes
    if k == AUTO:
        chosen = selection.num_classes(data, level=planned.least_level, seed=options.seed)
        k = chosen.recommended
    assert not isinstance(k, str)
    headline, beside = planned.estimators(k)
    with one_table():
        views = features.encode(data, reduce=True)
        features.refuse_copies(data, views)
        run = _Run(data, Sample(views), options)
        for estimator in (headline, beside):  # before any work
            if estimator is not None:
                refuse(estimator, run.sample)
        result = _noted(run.refined(headline), data, chosen, verdict)
        return result if beside is None else _with_classes(result, run.refined(beside))


def _noted(
    result: Result, data: CausalData, chosen: Selection | None, verdict: Verdict | None
) -> Result:
    """Return a result with what was known before it: notes of the table, classes, graph."""
    thin: tuple[str, ...] = ()
    if chosen is not None and chosen.thin:
        thin = (f"the evidence on the number of classes is thin: {'; '.join(chosen.doubts)}",)
    return dataclasses.replace(
        result,
        selection=chosen,
        verdict=verdict,
        warnings=(*data.notes, *result.warnings, *thin),
    )


def _with_classes(headline: Result, conditional: Result) -> Result:
    """Return a headline with the classes of level 3 beside it, or with why they are withdrawn."""
    if reason := why_withdrawn(conditional, headline):
        note = f"level 3 was withdrawn: {reason}; its numbers are for inspection only"
        own = f"withdrawn from the result: {reason}"
        return dataclasses.replace(
            headline,
            beside={
                CLASSES: dataclasses.replace(conditional, warnings=(*conditional.warnings, own))
            },
            warnings=(*headline.warnings, note),
        )
    return dataclasses.replace(
        headline,
        beside={CLASSES: conditional},
        law=conditional.law,
        law_se=conditional.law_se,
        law_interval=conditional.law_interval,
        share_harmed=conditional.share_harmed,
        spread=conditional.spread,
        bands=conditional.bands,
    )


def why_withdrawn(conditional: Result, headline: Result) -> str:
    """Return why a level-3 result may not stand beside the headline; empty where it may."""
    if not conditional.status.usable:
        return f"{conditional.status.name}, {conditional.status.message}"
    d = conditional.diagnostics
    bad = d.num_failed + d.out_of_range
    if 2 * bad > d.num_resamples:
        return f"{bad} of {d.num_resamples} resamples have no estimate or one out of range"
    if d.specification.rejects():
        return f"its specification test rejects ({d.specification})"
    if headline.diagnostics.specification.rejects():
        return f"it needs level 4, which is rejected ({headline.diagnostics.specification})"
    return ""


@dataclasses.dataclass(frozen=True)
class _Run:
    """One call's data and options."""

    data: CausalData
    sample: Sample
    options: Options

    def refined(self, estimator: LevelEstimator) -> Result:
        """Fit, and where a closed form fails on these data, the constrained fit in its place."""
        result = self.fit(estimator)
        searched = estimator.loss_of(self.sample.moments.is_table) is not None
        if estimator.level == 4 or searched or result.status not in _REFINED:
            return result
        assert estimator.num_classes is not None
        note = (
            f"the {estimator.name} estimate failed ({result.status.name}), and the "
            "factorization stands in its place"
        )
        other = of_classes(
            Factorization.name, estimator.level, estimator.num_classes, estimator.estimand
        )
        result = self.fit(other)
        return dataclasses.replace(result, warnings=(note, *result.warnings))

    def fit(self, estimator: LevelEstimator) -> Result:
        """Run the stages of one estimator, and leave to the result those that can wait."""
        data, options = self.data, self.options
        found = estimation_of(estimator, self.sample, better=options.better, seed=options.seed)
        spread = uncertainty(found, options)
        diagnostics, weak = diagnose(found, data, spread.resamples)
        if options.checks:
            later = checks_of(found, data, options, diagnostics)
            diagnostics = dataclasses.replace(diagnostics, checks=later)
        status = Status(int(found.point.status))
        if weak and status < Status.WEAK_PROXIES:
            status = Status.WEAK_PROXIES
        warnings = warnings_of(found, data, diagnostics, bool(spread.errors.known()))
        result = answer(
            found, data, options, spread, diagnostics, status, (*warnings, *spread.notes)
        )
        return examined(result, found, spread)
