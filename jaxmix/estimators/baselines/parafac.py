"""Classes of a table by the usual algorithms: NN-PARAFAC (level 2) and plain EM (level 3)."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxmix.model.law import EffectLaw
from jaxmix.model.likelihood import em_step
from jaxmix.model.optimum import mixture_of, table_of
from jaxmix.model.search import AGREE, random_start
from jaxmix.model.structure import Factors
from jaxmix.model.table import Cells
from jaxmix.sample.moments import Moments, as_moments
from jaxmix.solvers.compiling import compiled
from jaxmix.status import Status, settle, where, worst

Tensor = Float[Array, "d_z d_x s"]
_MODES = ("zxs,xu,su->zu", "zxs,zu,su->xu", "zxs,zu,xu->su")


class _Fit(NamedTuple):
    factors: tuple[Array, Array, Array]
    error: Float[Array, ""]
    steps: Array
    done: Bool[Array, ""]


@compiled("k", "num_starts", "arm")
def nn_parafac(
    moments_or_cells: Moments | Cells,
    k: int,
    *,
    key: Array,
    arm: int = 1,
    num_starts: int = 1,
    max_steps: int = 2000,
    tolerance: float = 1e-7,
) -> EffectLaw:
    """Estimate the effect law by a non-negative CP decomposition, as if level 2 held.

    Minimizes ``|| P - sum_u a_u x b_u x c_u ||`` (Frobenius) over non-negative factors, P the
    table of probabilities over (Z, X, S) with S = (T, Y), by the multiplicative updates
    ``A <- A * (P against b, c) / (A ((B'B) * (C'C)))``, and the same for B and C. The factors
    scaled to sum 1 are read as ``P(Z | u)``, ``P(X | u)`` and ``P(T, Y | u)``, their scales as
    shares.

    Assumes that Z, X and (T, Y) are independent given the class: Z must not cause T. Where it
    does, the estimate does not approach the truth however many the rows.

    Parameters
    ----------
    moments_or_cells
        Moments of a table (every view one-hot), or counts of ``(T, Z, X, Y)`` with outcome
        values 0, 1, ...
    k
        Number of classes.
    key
        JAX key, for random starts and for more classes than a view has levels.
    arm
        The arm compared with the control.
    num_starts
        Starts: the first from singular vectors (Boutsidis, Gallopoulos 2008), the others random;
        the best fit is returned.
    max_steps
        Most rounds of updates; the paper used 100.
    tolerance
        Decrease of the relative error, from one round to the next, at which a start stops; the
        paper used 1e-6.

    Returns
    -------
    EffectLaw
        By increasing effect. In stats: ``relative_error``, ``steps``. Statuses: MAX_STEPS,
        NONFINITE (a class has no rows in an arm).

    Raises
    ------
    ValueError
        For moments that are no table.

    References
    ----------
    Shashua, Hazan (2005), ICML, 792-799; Lee, Seung (2001), NeurIPS 13; Mazaheri, Squires,
    Uhler (2025), arXiv 2405.19225.

    Examples
    --------
    >>> import jax, jaxmix as jm
    >>> counts = jm.populations.paper_main().counts(jax.random.key(0), 100_000)
    >>> law = nn_parafac(counts, 2, key=jax.random.key(1))
    >>> bool(max(abs(law.effects[0] + 0.75), abs(law.effects[1] - 0.75)) < 0.05)
    True
    """
    moments = as_moments(moments_or_cells, covariance=False)
    if not moments.is_table:
        raise ValueError("nn_parafac needs a table of cells, every view one-hot")
    a, d_z, d_x, d_y = moments.tensor.shape
    tensor = moments.tensor.transpose(1, 2, 0, 3).reshape(d_z, d_x, a * d_y)

    def run(index: Array) -> _Fit:
        drawn = _random_start(jax.random.fold_in(key, index), tensor.shape, k, tensor.dtype)
        first = _singular_start(tensor, k, drawn)
        start = jax.tree.map(lambda f, d: jnp.where(index == 0, f, d), first, drawn)
        return _descend(tensor, start, max_steps, tolerance)

    fits = jax.vmap(run)(jnp.arange(num_starts))
    winner = jnp.argmin(jnp.where(jnp.isfinite(fits.error), fits.error, jnp.inf))
    fit: _Fit = jax.tree.map(lambda leaf: leaf[winner], fits)

    totals = [factor.sum(0) for factor in fit.factors]
    mass = totals[0] * totals[1] * totals[2]
    shares = mass / mass.sum()
    by_arm = fit.factors[2].reshape(a, d_y, k) / totals[2]
    # Updates approach 0 and never meet it: less than this counts as an empty arm.
    empty = jnp.sqrt(jnp.finfo(tensor.dtype).eps)
    present = by_arm.sum(1)
    means = jnp.einsum("tyu,y->tu", by_arm, moments.value_y) / present
    means = jnp.where(present > empty, means, jnp.nan)
    stats = {"relative_error": fit.error, "steps": fit.steps}
    status = where(~fit.done, Status.MAX_STEPS)
    return law_of_means(shares, means[arm] - means[0], status, stats)


class _Ascent(NamedTuple):
    factors: Factors
    loss: Float[Array, ""]
    steps: Int[Array, ""]
    done: Bool[Array, ""]


@compiled("k", "arm", "num_starts")
def em(
    moments_or_cells: Moments | Cells,
    k: int,
    *,
    key: Array,
    arm: int = 1,
    num_starts: int = 10,
    max_steps: int = 10_000,
    tolerance: float = 1e-6,
) -> EffectLaw:
    """Estimate the effect law by plain expectation-maximization of level 3, from random starts.

    Maximizes ``sum N log p`` with ``p[t,z,x,y] = sum_u P(t, z, u) P(x | u) P(y | t, u)``, the
    likelihood of `jaxmix.factorization` with ``loss="kl"``. Steps gain ever less: the last of them
    may be far from the maximum where classes are hard to tell apart.

    Assumes latent ignorability and overlap, X independent of (Z, T, Y) given the class and Z
    independent of Y given (T, class).

    Parameters
    ----------
    moments_or_cells
        Moments of a table (every view one-hot), or counts of ``(T, Z, X, Y)`` with outcome
        values 0, 1, ...
    k
        Number of classes.
    key
        JAX key, for the starts.
    arm
        The arm compared with the control.
    num_starts
        Random starts; the best likelihood is returned.
    max_steps
        Most steps from each.
    tolerance
        Gain in log-likelihood by one step at which a start stops.

    Returns
    -------
    EffectLaw
        By increasing effect. In stats: ``log_likelihood``, ``steps``, ``num_agree`` (starts that
        ended within 0.01 of the best). Statuses: BOUNDARY (a probability is 0), STARTS_DISAGREE,
        MAX_STEPS, NONFINITE.

    Raises
    ------
    ValueError
        For moments that are no table.

    References
    ----------
    Dempster, Laird, Rubin (1977), JRSS B 39; Goodman (1974), Biometrika 61.

    Examples
    --------
    >>> import jax, jaxmix as jm
    >>> counts = jm.populations.paper_main(0.5).counts(jax.random.key(0), 100_000)
    >>> law = em(counts, 2, key=jax.random.key(1))
    >>> bool(max(abs(law.effects[0] + 0.75), abs(law.effects[1] - 0.75)) < 0.05)
    True
    """
    moments = as_moments(moments_or_cells, covariance=False)
    if not moments.is_table:
        raise ValueError("em needs a table of cells, every view one-hot")
    data = table_of(moments, 3)

    def climb(index: Array) -> _Ascent:
        def body(state: _Ascent) -> _Ascent:
            factors = em_step(data, state.factors)
            loss = data.deviance(factors)
            return _Ascent(factors, loss, state.steps + 1, ~(state.loss - loss >= tolerance))

        def unfinished(state: _Ascent) -> Bool[Array, ""]:
            return ~state.done & (state.steps < max_steps)

        start = random_start(jax.random.fold_in(key, index), data, k)
        begin = _Ascent(start, data.deviance(start), jnp.int32(0), jnp.asarray(False))
        return jax.lax.while_loop(unfinished, body, begin)

    ends = jax.vmap(climb)(jnp.arange(num_starts))
    losses = jnp.where(jnp.isfinite(ends.loss), ends.loss, jnp.inf)
    best: _Ascent = jax.tree.map(lambda leaf: leaf[jnp.argmin(losses)], ends)
    agree = jnp.sum(losses <= losses.min() + AGREE)
    classes = mixture_of(data.structure, best.factors, moments.value_y)
    zero = jnp.any(jnp.stack([jnp.any(factor <= 0) for factor in jax.tree.leaves(best.factors)]))
    status = worst(
        where(zero, Status.BOUNDARY),
        where((num_starts > 1) & (agree < 2), Status.STARTS_DISAGREE),
        where(~best.done, Status.MAX_STEPS),
    )
    stats = {
        "log_likelihood": data.log_likelihood(best.factors),
        "steps": best.steps,
        "num_agree": agree,
    }
    return law_of_means(classes.shares, classes.effects(arm), status, stats)


def law_of_means(
    shares: Float[Array, " k"],
    effects: Float[Array, " k"],
    status: Int[Array, ""],
    stats: dict[str, Array],
) -> EffectLaw:
    """Return the law of classes in any order; an empty class takes the largest effect there is.

    BOUNDARY where a class is empty, NONFINITE where a class that is not has no effect.
    """
    used = shares > 0
    largest = jnp.max(jnp.where(used, effects, -jnp.inf))
    effects = jnp.where(used, effects, largest)
    order = jnp.argsort(effects)
    status = worst(status, where(jnp.any(~used), Status.BOUNDARY))
    return EffectLaw(shares[order], effects[order], settle(status, (shares, effects)), stats)


def _descend(
    tensor: Tensor, start: tuple[Array, Array, Array], max_steps: int, tolerance: float
) -> _Fit:
    eps = jnp.finfo(tensor.dtype).eps
    size = jnp.linalg.norm(tensor)

    def relative_error(factors: tuple[Array, Array, Array]) -> Array:
        model = jnp.einsum("zu,xu,su->zxs", *factors, precision="highest")
        found: Array = jnp.linalg.norm(tensor - model) / size
        return found

    def body(fit: _Fit) -> _Fit:
        factors = list(fit.factors)
        for mode, formula in enumerate(_MODES):
            others = factors[:mode] + factors[mode + 1 :]
            target = jnp.einsum(formula, tensor, *others, precision="highest")
            gram = math.prod(other.T @ other for other in others)
            ratio = jnp.maximum(target, eps) / jnp.maximum(factors[mode] @ gram, eps)
            factors[mode] = factors[mode] * ratio
        z, x, s = factors
        error = relative_error((z, x, s))
        return _Fit((z, x, s), error, fit.steps + 1, ~(fit.error - error >= tolerance))

    def unfinished(fit: _Fit) -> Bool[Array, ""]:
        return ~fit.done & (fit.steps < max_steps)

    begin = _Fit(start, jnp.asarray(jnp.inf, tensor.dtype), jnp.int32(0), jnp.asarray(False))
    return jax.lax.while_loop(unfinished, body, begin)


def _random_start(
    key: Array, shape: tuple[int, ...], k: int, dtype: jnp.dtype
) -> tuple[Array, Array, Array]:
    z, x, s = (
        jax.random.uniform(jax.random.fold_in(key, mode), (d, k), dtype)
        for mode, d in enumerate(shape)
    )
    return z, x, s


def _singular_start(
    tensor: Tensor, k: int, drawn: tuple[Array, Array, Array]
) -> tuple[Array, Array, Array]:
    """Return the larger signed parts of each unfolding's singular vectors, zeros filled in."""
    eps, mean = jnp.finfo(tensor.dtype).eps, tensor.mean()
    factors = []
    for mode, others in enumerate(drawn):
        unfolded = jnp.moveaxis(tensor, mode, 0).reshape(tensor.shape[mode], -1)
        left, values, right = jnp.linalg.svd(unfolded, full_matrices=False)
        columns = [jnp.sqrt(values[0]) * jnp.abs(left[:, 0])]
        for j in range(1, min(k, len(values))):
            signs = jnp.array([[1.0], [-1.0]], tensor.dtype)
            us, vs = jnp.maximum(signs * left[:, j], 0.0), jnp.maximum(signs * right[j], 0.0)
            lengths = jnp.linalg.norm(us, axis=1)
            sizes = lengths * jnp.linalg.norm(vs, axis=1)
            side = jnp.argmax(sizes)
            unit = us[side] / jnp.maximum(lengths[side], eps)
            columns.append(jnp.sqrt(values[j] * sizes[side]) * unit)
        filled = jnp.stack(columns, axis=1)
        filled = jnp.where(filled < eps, mean, filled)
        factors.append(jnp.concatenate([filled, others[:, filled.shape[1] :]], axis=1))
    z, x, s = factors
    return z, x, s
