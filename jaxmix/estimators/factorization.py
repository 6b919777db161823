"""Levels 2 and 3: the classes by coupled tensor factorization, at the Cramer-Rao bound.

The model of the moment tensor is a sum over classes,

    M[t][z, x, y] = sum_u pi_u A_t[z, u] B[x, u] C_t[y, u]

with ``A_t = E[1{T=t} phi_z | u]``, ``B = E[phi_x | u]``, ``C_t = E[phi_y | T=t, u]``: one CP
decomposition per arm, B and pi shared by the arms. At level 2, Z is independent of (T, Y) given
the class too, so that ``A_t = P(T=t | u) A``.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Self, TypedDict, Unpack

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from jaxmix.estimators import least_squares, spectral
from jaxmix.estimators.base import Start
from jaxmix.estimators.least_squares import Layout
from jaxmix.estimators.optimum import moments_value, table_value
from jaxmix.model import pool, search
from jaxmix.model.law import EffectLaw, Mixture, range_status
from jaxmix.model.likelihood import Observed
from jaxmix.model.optimum import mixture_of, singular_where, table_of
from jaxmix.model.settling import SETTLED, settle_down
from jaxmix.model.structure import Factors
from jaxmix.model.table import Cells
from jaxmix.sample import moments as moments_
from jaxmix.sample.features import max_rank
from jaxmix.sample.moments import Moments, as_moments
from jaxmix.solvers.compiling import compiled
from jaxmix.status import Solution, Status, settle, where, worst

LOSSES = ("kl", "gmm", "frobenius")

_MOMENTS_STARTS = 1
_DOUBTFUL = 1e-3  # a pivot that leaves it open whether the likelihood is flat


@compiled(
    "k", "level", "loss", "arm", "num_starts", "max_steps", "tolerance", "optimiser", "thorough",
)  # fmt: skip
def solve(
    moments_or_cells: Moments | Cells,
    k: int,
    *,
    key: Array,
    level: int = 3,
    loss: str = "kl",
    arm: int = 1,
    num_starts: int | None = None,
    max_steps: int = 500,
    tolerance: float = 1e-4,
    optimiser: optax.GradientTransformation | None = None,
    start: Start | None = None,
    weight: Array | None = None,
    thorough: bool = False,
) -> Solution[Mixture]:
    """Recover the classes from the moment tensor by gradient.

    ``kl`` maximizes the multinomial likelihood of a table of cells: the maximum-likelihood fit,
    efficient in the interior. ``gmm`` minimizes ``(m - m_theta)' W (m - m_theta)`` with W the
    pseudo-inverse of the sampling covariance (eigenvalues below 1e-8 of the largest count as
    zero); n times the minimum is the J statistic. ``frobenius`` has W = 1.

    Assumes latent ignorability and overlap; at level 3 X independent of (Z, T, Y) given U and Z
    independent of Y given (T, U); at level 2 Z, X and (T, Y) independent given U. See
    `jaxmix.spectral.effect_law` on ranks.

    Parameters
    ----------
    moments_or_cells
        Moments, or counts of ``(T, Z, X, Y)`` with outcome values 0, 1, ... `kl` needs a table
        (every view one-hot), `gmm` moments with their covariance.
    k
        Number of classes.
    key
        JAX key, for starts beyond the first.
    level
        3, or 2.
    loss
        ``"kl"``, ``"gmm"`` or ``"frobenius"``.
    arm
        The arm compared with the control, by whose effect the classes are numbered.
    num_starts
        Most starts. Beyond the spectral estimate, `kl` (default 33) uses them only where a table
        converges slowly or fits badly, until its best optimum has been met three times; a
        thorough search (default 45), `gmm` and `frobenius` (default 1) use all of them.
    max_steps
        Most second-order steps (and most steps of `optimiser`).
    tolerance
        Predicted gain, in log-likelihood units, at which steps stop.
    optimiser
        An optax transformation to precede the second-order steps from every start, such as
        ``optax.lbfgs()``, on unconstrained coordinates; seldom needed.
    start
        ``sol.stats["start"]`` of a solution nearby, such as the estimate of which this is a
        resample; no other start is tried then.
    weight
        ``sol.stats["weight"]`` of another `gmm` fit, in place of the data's own: resamples keep
        the weight of the estimate.
    thorough
        Whether `kl` takes every start to its end, as `jaxmix.fit` does: an optimum that draws a
        tenth of random starts is then missed by 1 % of searches (`jaxmix.model.pool.SURE`). The
        first start of a small or a strange table may look regular in a poor optimum; simulations
        of regular populations need no more than that start.

    Returns
    -------
    Solution
        ``value`` is a `Mixture`, classes by increasing effect. Differentiable, by the implicit
        function theorem, in the cells or moments (the weight of `gmm` counts as fixed). In
        stats: ``log_likelihood``, ``g2`` (`kl`) or ``j`` (`gmm`), ``df`` (nominal for `kl`, from
        ranks for `gmm`), ``decrement`` (predicted gain left), ``steps``, ``num_starts``,
        ``num_agree``, ``runner_up`` (gap to the best other optimum), ``miss_rate`` (of a thorough
        search: `jaxmix.model.pool.miss_rate`), ``flatness`` (smallest scaled pivot),
        ``num_zero`` (probabilities at 0), ``start``. Statuses: BOUNDARY (a probability is 0),
        NOT_IDENTIFIED (the optimum is flat), STARTS_DISAGREE, MAX_STEPS, NONFINITE.

    Raises
    ------
    ValueError
        For a level or loss there is not, `kl` on moments that are no table, `gmm` without a
        covariance.

    References
    ----------
    Mazaheri, Squires, Uhler (2025), arXiv 2405.19225; Dempster, Laird, Rubin (1977), JRSS B 39;
    Hansen (1982), Econometrica 50; Kruskal (1977), Linear Algebra and its Applications 18.

    Examples
    --------
    >>> import jax, jaxmix as jm
    >>> counts = jm.populations.paper_main(zt_strength=0.5).counts(jax.random.key(0), 100_000)
    >>> sol = solve(counts, 2, key=jax.random.key(1))
    >>> [round(float(v), 1) for v in (*sol.value.law.effects, *sol.value.shares)]
    [-0.7, 0.7, 0.5, 0.5]
    """
    if level not in (2, 3):
        raise ValueError(f"level is {level!r}: use 2 or 3")
    if loss not in LOSSES:
        raise ValueError(f"loss is {loss!r}: use one of {', '.join(LOSSES)}")
    moments = as_moments(moments_or_cells, covariance=loss == "gmm")
    if loss == "kl":
        if not moments.is_table:
            raise ValueError("loss 'kl' needs a table of cells, every view one-hot; use 'gmm'")
        options = search.Options(
            num_classes=k,
            num_starts=_num_starts(k, num_starts, thorough),
            max_steps=max_steps,
            tolerance=tolerance,
            first=SpectralStart.of(k, moments.tensor.shape),
            warm=start is not None,
            thorough=thorough,
            optimiser=optimiser,
        )
        return _by_likelihood(moments, key, options, start, level, arm)
    if loss == "gmm" and moments.covariance is None and weight is None:
        raise ValueError("loss 'gmm' needs moments with their covariance (covariance=True)")
    if k > moments.max_rank:
        raise ValueError(f"k is {k}, but the views can tell apart at most {moments.max_rank}")
    layout = Layout.of(
        moments,
        num_classes=k,
        level=level,
        num_starts=(num_starts or _MOMENTS_STARTS) if start is None else 1,
        max_steps=max_steps,
        tolerance=tolerance,
        warm=start is not None,
        optimiser=optimiser,
    )
    return _by_least_squares(moments, key, layout, start, weight, loss == "gmm", arm)


@dataclasses.dataclass(frozen=True)
class SpectralStart:
    """The spectral estimate as a start; hashable.

    Attributes
    ----------
    num_classes
        Number of classes, at most the rank of the views.
    """

    num_classes: int

    @classmethod
    def of(cls, k: int, shape: tuple[int, ...]) -> Self | None:
        """Return the start of k classes for a table of some shape; None where it has none."""
        arms, d_z, d_x, _ = shape
        return cls(k) if arms > 1 and k <= max_rank(d_z, d_x, 0) else None

    def __call__(self, data: Observed) -> Factors:
        """Return the factors; all but the profiles of x by regressing the table on these."""
        structure, k = data.structure, self.num_classes
        moments = moments_.from_counts(data.counts)
        B = jnp.maximum(jnp.nan_to_num(spectral.solve(moments, k).value.x_profiles), 1e-4)
        # Ridge, so that profiles that coincide still give finite factors.
        ridge = 1e-6 * jnp.eye(k, dtype=B.dtype)
        weights = jnp.linalg.solve(B.T @ B + ridge, B.T)
        by_class = jnp.maximum(jnp.einsum("ux,tzxy->tzyu", weights, moments.tensor), 0.0)
        rest = (by_class, ("t", "z", "y", "u"))
        gate, *parts = (
            B if axes == ("x",) else structure.contract(rest, into=(*axes, "u"))
            for axes in structure.factors
        )
        return search.mix(structure, Factors(gate, tuple(parts)))


def _by_likelihood(
    moments: Moments,
    key: Array,
    options: search.Options,
    start: Start | None,
    level: int,
    arm: int,
) -> Solution[Mixture]:
    k = options.num_classes
    data = table_of(moments, level)
    fixed = jax.lax.stop_gradient(data)
    from_pool = options.thorough and start is None
    if from_pool:
        together = min(options.num_starts, pool.TOGETHER)
        found = pool.best_first(fixed, key, options, together)
    else:
        first = () if start is None else Factors(*start)
        found = search.maximise(fixed, jax.random.key_data(key), first, options)
    found = jax.lax.stop_gradient(found)
    factors, decrement, pivot = settle_down(fixed, found.factors)
    mixture = mixture_of(data.structure, factors, moments.value_y)
    # A class that is nowhere in an arm has no mean there.
    assert mixture.z_profiles is not None
    missing = jnp.any(mixture.shares * mixture.z_profiles.sum(1) <= 0)
    flat_optimum = (pivot < jnp.sqrt(jnp.finfo(pivot.dtype).eps)) | missing
    # Rounding leaves pivots of 1e-5 where blocks that were eliminated are nearly singular, and a
    # step along a ridge may end where it is flat though it was not where it began.
    flat_optimum |= singular_where(fixed, factors, ~flat_optimum & (pivot < _DOUBTFUL))
    optimum = factors
    value, factors = table_value(moments, optimum, level, arm, flat_optimum)
    num_zero = jnp.sum(ravel_pytree(optimum)[0] == 0)
    disagree = (found.starts > 1) & (found.agree < 2)
    # The last step leaves the square of its gain, which no tolerance asks to be smaller.
    arrived = decrement < max(options.tolerance, SETTLED)
    status = worst(
        where(num_zero > 0, Status.BOUNDARY),
        where(disagree, Status.STARTS_DISAGREE),
        where(flat_optimum, Status.NOT_IDENTIFIED),
        where(~found.done | (~flat_optimum & ~arrived), Status.MAX_STEPS),
        where(~jnp.all(jnp.isfinite(data.counts)), Status.NONFINITE),
    )
    stats: dict[str, Any] = {
        "log_likelihood": data.log_likelihood(factors),
        "g2": 2 * data.deviance(factors),
        "df": jnp.asarray(search.degrees_of_freedom(data.structure, data.shape, k)),
        "decrement": decrement,
        "steps": found.steps,
        "num_starts": found.starts,
        "num_agree": found.agree,
        "runner_up": found.runner_up - found.loss,
        "num_zero": num_zero,
        "flatness": pivot,
        "flat": flat_optimum,
        "start": optimum,
    }
    if from_pool and k > 1:  # one class has one optimum
        stats["miss_rate"] = pool.miss_rate(found.starts - (options.first is not None))
    return Solution(value, settle(status, (value.shares, value.means)), stats)


def _num_starts(k: int, asked: int | None, thorough: bool) -> int:
    if asked is not None:
        return asked
    if not thorough:
        return 33
    return 1 + pool.SURE if k > 1 else 1


def _by_least_squares(
    moments: Moments,
    key: Array,
    layout: Layout,
    start: Start | None,
    weight: Array | None,
    weighted: bool,
    arm: int,
) -> Solution[Mixture]:
    fixed = jax.lax.stop_gradient(moments)
    first = None if start is None else jnp.asarray(start)
    found, goal = least_squares.fit(fixed, weighted, weight, key, first, layout)
    found = jax.lax.stop_gradient(found)
    index, values = least_squares.best(found)
    flat = found.params[index]
    curvature = least_squares.curvature(flat, goal, layout)
    flat_optimum = ~(curvature.spread < least_squares.FLAT)
    value, flat = moments_value(moments, goal, flat, layout, arm, flat_optimum)
    own = goal._replace(tensor=moments.tensor)
    agree = jnp.sum(values <= values[index] + search.AGREE)
    others = jnp.where(values > values[index] + search.AGREE, values, jnp.inf)
    effects = value.means[arm] - value.means[0]
    status = worst(
        where((layout.num_starts > 1) & (agree < 2), Status.STARTS_DISAGREE),
        where(flat_optimum, Status.NOT_IDENTIFIED),
        jnp.where(found.status[index] == Status.MAX_STEPS, jnp.int32(Status.MAX_STEPS), 0),
        range_status(value.shares, effects, moments.range_y),
    )
    minimum = 2 * least_squares.loss(flat, own, layout)
    stats: dict[str, Any] = {
        ("j" if weighted else "sum_of_squares"): minimum,
        "df": curvature.num_weights - curvature.rank,
        "steps": found.steps[index],
        "num_starts": jnp.int32(layout.num_starts),
        "num_agree": agree,
        "runner_up": others.min() - values[index],
        "start": found.params[index],
        "weight": goal.root,
        "flat": flat_optimum,
    }
    return Solution(value, settle(status, (value.shares, value.means)), stats)


class SolveOptions(TypedDict, total=False):
    """Options of `solve` beside the classes and the key."""

    level: int
    loss: str
    num_starts: int | None
    max_steps: int
    tolerance: float
    optimiser: optax.GradientTransformation | None
    start: Start | None
    weight: Array | None
    thorough: bool


def effect_law(
    moments_or_cells: Moments | Cells,
    k: int,
    *,
    key: Array,
    arm: int = 1,
    estimand: str = "ATE",
    **options: Unpack[SolveOptions],
) -> EffectLaw:
    """Estimate the distribution of class effects by factorization; options as in `solve`.

    Examples
    --------
    >>> import jax, jaxmix as jm
    >>> counts = jm.populations.paper_main().counts(jax.random.key(0), 100_000)
    >>> [round(float(e), 1) for e in effect_law(counts, 2, key=jax.random.key(1)).effects]
    [-0.7, 0.7]
    """
    solution = solve(moments_or_cells, k, key=key, arm=arm, **options)
    mixture = solution.value
    shares = mixture.shares
    if estimand == "ATT":
        assert mixture.z_profiles is not None
        d_z = mixture.z_profiles.shape[1]
        one_z = moments_or_cells.one_z if isinstance(moments_or_cells, Moments) else jnp.ones(d_z)
        shares = mixture.treated_shares(one_z, arm)
    return EffectLaw(shares, mixture.effects(arm), solution.status, solution.stats)
