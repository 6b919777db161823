"""Latent classes by maximum likelihood: any number of categorical views, with a treatment or not.

Without a treatment it is classical latent class analysis; with views Z (by treatment), X and Y (by
treatment) it is level 3. The model and its numerics are in `jaxmix.model`.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxmix.model.identification import rank_of
from jaxmix.model.optimum import revisited
from jaxmix.model.pool import SURE, TOGETHER, best_first, miss_rate
from jaxmix.model.rows import Rows
from jaxmix.model.search import Options
from jaxmix.model.settling import SETTLED, settle_down
from jaxmix.model.structure import Factors, Structure, latent_classes
from jaxmix.solvers.compiling import compiled
from jaxmix.status import Solution, Status, settle, where, worst

_MOST_NUMBERS = 2**21  # scores of rows held at once; starts beyond that take turns


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LatentClasses:
    """Shares and class profiles; classes by decreasing share.

    Attributes
    ----------
    shares
        ``(k,)`` P(U=u).
    profiles
        One per view: ``(d, k)`` P(C=c | U=u), or ``(a, d, k)`` P(C=c | T=t, U=u) where the view
        depends on the treatment.
    arm_profile
        ``(a, k)`` P(T=t | U=u), or None without a treatment.
    """

    shares: Float[Array, " k"]
    profiles: tuple[Array, ...]
    arm_profile: Float[Array, "a k"] | None = None


def _classes_of(structure: Structure, factors: Factors) -> LatentClasses:
    """Return the classes, by decreasing share."""
    shares = structure.mass(factors, ())
    arms = structure.conditional(factors, ("t",), ()) if "t" in structure.axes else None
    found = LatentClasses(shares, factors.parts, arms)
    order = jnp.argsort(-shares)
    ordered: LatentClasses = jax.tree.map(lambda values: values[..., order], found)
    return ordered


def _factors_of(classes: LatentClasses) -> tuple[Structure, Factors]:
    """Return the structure of the classes, and its factors."""
    flags = tuple(profile.ndim == 3 for profile in classes.profiles)
    treated = classes.arm_profile is not None
    structure = latent_classes(len(flags), flags if treated else ())
    gate = classes.shares if classes.arm_profile is None else classes.shares * classes.arm_profile
    return structure, Factors(gate, classes.profiles)


@compiled(
    "num_levels", "k", "num_arms", "by_treatment", "num_starts", "max_steps", "tolerance",
    "thorough",
)  # fmt: skip
def solve(
    codes: Int[Array, "m v"],
    counts: Array,
    num_levels: tuple[int, ...],
    k: int,
    *,
    key: Array,
    t: Int[Array, " m"] | None = None,
    num_arms: int = 1,
    by_treatment: tuple[bool, ...] | None = None,
    num_starts: int = SURE,
    max_steps: int = 500,
    tolerance: float = 1e-4,
    thorough: bool = True,
) -> Solution[LatentClasses]:
    """Fit latent classes by maximum likelihood.

    Random starts, EM from each, then damped second-order steps in the probabilities themselves
    until the predicted gain is below the tolerance. Assumes that the views are independent given
    the class (and the treatment), and that cells are missing at random.

    Parameters
    ----------
    codes
        ``(m, v)`` level of each row in each view, from 0; -1 where it is missing.
    counts
        ``(m,)`` how often each row occurs; the dtype of the computation where it is floating.
    num_levels
        Levels of each view.
    k
        Number of classes.
    key
        JAX key of the starts.
    t
        ``(m,)`` arm of each row from 0, never missing; None without a treatment.
    num_arms
        Number of arms.
    by_treatment
        Which views depend on the treatment given the class; None for none.
    num_starts
        Most random starts: all take EM steps, and the better ones go on first.
    max_steps
        Most second-order steps of the start that is returned.
    tolerance
        Predicted gain at which steps stop, in log-likelihood units.
    thorough
        Whether all starts go on: an optimum that draws a tenth of random starts is then missed by
        1 % of searches. Otherwise they do until one optimum, the best so far, has been met four
        times, which may be a popular one that is not the best.

    Returns
    -------
    Solution
        ``value`` is `LatentClasses`, by decreasing share; differentiable in the counts, by the
        implicit function theorem. In stats: ``log_likelihood``, ``num_parameters``, ``g2``
        (against free probabilities of the distinct rows; a goodness of fit where no cell is
        missing), ``df`` (the smaller of the number of rows and of the cells less 1, less the
        parameters), ``decrement`` (predicted gain left), ``steps``, ``num_starts`` (that went on
        beyond EM), ``num_agree`` (of these, within `jaxmix.model.search.AGREE` of the best),
        ``runner_up`` (gap to the best other optimum), ``miss_rate`` (of a thorough search:
        `jaxmix.model.pool.miss_rate`), ``num_free`` (parameters not held at 0),
        ``rank`` (of the information in these; see `jaxmix.model.identification.rank_of`).
        Statuses: BOUNDARY (a probability is 0), NOT_IDENTIFIED (rank below num_free),
        STARTS_DISAGREE, MAX_STEPS, NONFINITE.

    Raises
    ------
    ValueError
        For arguments that do not fit together.

    References
    ----------
    Goodman (1974), Biometrika 61; Linzer, Lewis (2011), Journal of Statistical Software 42(10);
    Dempster, Laird, Rubin (1977), JRSS B 39.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> codes = jnp.array([[0, 0, 0], [1, 1, 1], [0, 1, 0], [1, 0, 1]])
    >>> sol = solve(codes, jnp.array([45.0, 35.0, 10.0, 10.0]), (2, 2, 2), 1, key=jax.random.key(0))
    >>> [round(float(v), 3) for v in sol.value.profiles[0][:, 0]]
    [0.55, 0.45]
    """
    v = len(num_levels)
    by_treatment = (False,) * v if by_treatment is None else tuple(by_treatment)
    if codes.ndim != 2 or codes.shape[1] != v or len(by_treatment) != v or v == 0:
        raise ValueError(
            f"codes has shape {codes.shape}, num_levels {v} entries and by_treatment "
            f"{len(by_treatment)}: give one of each per view"
        )
    if k < 1 or num_starts < 1 or min(num_levels) < 1:
        raise ValueError("k, num_starts and num_levels are at least 1")
    if t is None and (any(by_treatment) or num_arms > 1):
        raise ValueError("views depend on a treatment, or arms were named, but t is None")
    counts = counts if jnp.issubdtype(counts.dtype, jnp.floating) else counts.astype(float)
    structure, codes, shape = latent_classes(v), codes, tuple(num_levels)
    if t is not None:
        structure, shape = latent_classes(v, by_treatment), (num_arms, *num_levels)
        codes = jnp.concatenate([t[:, None], codes], axis=1)
    rows = Rows.of(structure, codes, counts, shape)
    fixed = jax.lax.stop_gradient(rows)
    options = Options(
        num_classes=k,
        num_starts=num_starts if k > 1 else 1,
        max_steps=max_steps,
        tolerance=tolerance,
        thorough=thorough,
    )
    numbers = k * (rows.gate.size + rows.parts.size)
    together = max(1, min(options.num_starts, TOGETHER, _MOST_NUMBERS // max(numbers, 1)))
    found = jax.lax.stop_gradient(best_first(fixed, key, options, together))
    factors, decrement, _ = settle_down(fixed, found.factors)
    factors = jax.lax.stop_gradient(factors)
    rank, num_free = rank_of(fixed, factors, tolerance)
    flat = rank < num_free
    factors = revisited(rows, factors, flat)
    log_likelihood = rows.log_likelihood(factors)
    num_parameters = structure.num_parameters(shape, k)
    most = float(min(math.prod(shape) - 1, 2**53))
    theta = jnp.concatenate([factor.reshape(-1) for factor in jax.tree.leaves(factors)])
    stats = {
        "log_likelihood": log_likelihood,
        "g2": 2 * rows.deviance(factors),
        "num_parameters": jnp.asarray(num_parameters),
        "df": jnp.minimum(counts.sum(), most) - num_parameters,
        "decrement": decrement,
        "steps": found.steps,
        "num_starts": found.starts,
        "num_agree": found.agree,
        "runner_up": found.runner_up - found.loss,
        "miss_rate": jnp.nan if not thorough else miss_rate(found.starts) if k > 1 else 0.0,
        "num_free": num_free,
        "rank": rank,
    }
    status = worst(
        where(jnp.any(theta == 0), Status.BOUNDARY),
        where((found.starts > 1) & (found.agree < 2), Status.STARTS_DISAGREE),
        where(flat, Status.NOT_IDENTIFIED),
        where(~found.done | (~flat & ~(decrement < max(tolerance, SETTLED))), Status.MAX_STEPS),
        where(~jnp.isfinite(found.loss), Status.NONFINITE),
    )
    value = _classes_of(structure, factors)
    return Solution(value, settle(status, (theta, log_likelihood)), stats)


def posterior(
    classes: LatentClasses, codes: Int[Array, "m v"], t: Int[Array, " m"] | None = None
) -> Float[Array, "m k"]:
    """Return ``P(U=u | row)``; NaN for a row that no class can produce.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> classes = LatentClasses(jnp.array([0.5, 0.5]), (jnp.array([[0.9, 0.1], [0.1, 0.9]]),))
    >>> [round(float(v), 2) for v in posterior(classes, jnp.array([[0]]))[0]]
    [0.9, 0.1]
    """
    structure, factors = _factors_of(classes)
    shape = tuple(profile.shape[-2] for profile in classes.profiles)
    if t is not None:
        shape = (len(factors.gate), *shape)
        codes = jnp.concatenate([t[:, None], codes], axis=1)
    ones = jnp.ones(len(codes), classes.shares.dtype)
    own = Rows.of(structure, codes, ones, shape).responsibility(factors)
    return jnp.where(own.sum(1, keepdims=True) > 0, own, jnp.nan)
