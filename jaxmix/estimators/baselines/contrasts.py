"""Adjustment, weighting and clusters: estimates that ignore hidden confounding, or nearly so.

Difference in means, regression and inverse probability weighting ignore hidden confounding;
clustering needs classes that can be told apart. Where an estimate is not defined
(an arm without rows, a propensity of 0 or 1) a number is NaN, and a law carries NONFINITE. The
synthetic potential outcomes as published, with nothing truncated, are here for comparison too.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxmix.estimators import quadrature
from jaxmix.estimators.baselines.parafac import law_of_means
from jaxmix.estimators.bridge import target_x
from jaxmix.estimators.synthetic import moment_sequence, outcome_scale, standard_zxy
from jaxmix.model.law import EffectLaw, range_status
from jaxmix.sample import sums
from jaxmix.sample.features import Views
from jaxmix.sample.moments import Moments
from jaxmix.solvers.compiling import compiled
from jaxmix.solvers.linalg import pinv
from jaxmix.solvers.minimise import damped, minimise
from jaxmix.status import Status, settle, where, worst


def difference_in_means(moments: Moments, *, arm: int = 1) -> Float[Array, ""]:
    """Return ``E[Y | T=arm] - E[Y | T=0]``, the effect if treatment were randomized.

    Examples
    --------
    >>> import jax.numpy as jnp, jaxmix as jm
    >>> cells = jnp.array([[[[3.0, 1.0]]], [[[1.0, 3.0]]]])
    >>> float(difference_in_means(jm.moments.from_counts(cells)))
    0.5
    """
    means = moments.y_by_arm / moments.arm_probabilities
    return means[arm] - means[0]


@compiled("k", "arm")
def published_synthetic(
    moments: Moments, k: int, *, arm: int = 1
) -> tuple[EffectLaw, Float[Array, ""]]:
    """Estimate the effect law, and the average effect, by synthetic moments as published.

    The recursion of `jaxmix.synthetic` with the plain pseudo-inverse ``M_zx,t^+`` in place of the
    one of rank k, and Prony's method. Where both views have exactly k features the two agree;
    with more, the pseudo-inverse divides by noise, however many the rows.

    Assumes what level 3 does (`jaxmix.synthetic.effect_law`).

    Parameters
    ----------
    moments
        The moments of the data.
    k
        Number of classes.
    arm
        The arm compared with the control.

    Returns
    -------
    EffectLaw
        COMPLEX_SPECTRUM and OUT_OF_RANGE as `jaxmix.estimators.quadrature.prony` has them.
    Array
        The average effect, the first synthetic moment.

    References
    ----------
    Mazaheri, Squires, Uhler (2025), AISTATS, arXiv 2405.19225.

    Examples
    --------
    >>> import jax, jaxmix as jm
    >>> counts = jm.populations.paper_main(0.5).counts(jax.random.key(0), 100_000)
    >>> law, ate = published_synthetic(jm.moments.from_counts(counts), 2)
    >>> bool(max(abs(law.effects[0] + 0.75), abs(law.effects[1] - 0.75)) < 0.05)
    True
    """
    inverses = jax.vmap(lambda matrix: pinv(matrix).matrix)(moments.zx)
    quotient = jnp.einsum("txz,tzj->txj", inverses, standard_zxy(moments), precision="highest")
    values = moment_sequence(
        quotient[arm] - quotient[0], moments.one_x, target_x(moments, "ATE", arm), 2 * k - 1
    )
    law = quadrature.prony(values)
    scale = outcome_scale(moments)[1]
    shares, effects = law.shares, law.effects * scale
    status = worst(law.status, range_status(shares, effects, moments.range_y))
    status = settle(status, (shares, effects))
    return EffectLaw(shares, effects, status, law.stats), values[1] * scale


@compiled("arm")
def regression_adjustment(views_or_moments: Views | Moments, *, arm: int = 1) -> Float[Array, ""]:
    """Estimate the average effect by a linear regression in each arm (g-computation).

    ``E[w] . (beta_arm - beta_0)`` with ``beta_t = E[w w' | T=t]^+ E[w Y | T=t]``, w the features
    of z and x side by side (no interactions).

    Assumes that z and x are all the confounding there is, and that ``E[Y | T=t, z, x]`` is linear
    in w. With a hidden class behind them it is biased at every sample size.

    Parameters
    ----------
    views_or_moments
        Rows; or moments whose proxies are both one-hot, which hold the same sums.
    arm
        The arm compared with the control.

    Returns
    -------
    Array
        NaN where an arm has no rows, or its rows do not determine the fit at the mean of w (a
        level of a proxy that never occurs in it).

    Raises
    ------
    ValueError
        For moments with linear proxies: they lack ``E[1{T=t} phi_x phi_x']``.

    References
    ----------
    Robins (1986), Mathematical Modelling 7; Lin (2013), Annals of Applied Statistics 7.

    Examples
    --------
    >>> import jax, jaxmix as jm
    >>> population = jm.populations.paper_appendix(subgroup=-0.2)
    >>> counts = population.counts(jax.random.key(0), 100_000)
    >>> round(float(regression_adjustment(jm.moments.from_counts(counts))), 1)  # truth: 0.25
    0.3
    """
    means = []
    for t in (0, arm):
        if isinstance(views_or_moments, Moments):
            gram, target, mean = _normal_equations(views_or_moments, t)
        else:
            w, arms, y, mass = _held(views_or_moments)
            weighted = w * (mass * (arms == t))[:, None]
            gram = jnp.matmul(weighted.T, w, precision="highest") / mass.sum()
            target = weighted.T @ y / mass.sum()
            mean = mass @ w / mass.sum()
        values, vectors = jnp.linalg.eigh(gram)
        eps = jnp.finfo(gram.dtype).eps
        keep = (values > 8 * len(gram) * eps * values[-1]) & (values > 0)
        along = vectors.T @ mean
        inverse = jnp.where(keep, 1 / jnp.where(keep, values, 1.0), 0.0)
        outside = jnp.linalg.norm(jnp.where(keep, 0.0, along))
        defined = outside <= jnp.sqrt(eps) * jnp.linalg.norm(mean)
        means.append(jnp.where(defined, (along * inverse) @ (vectors.T @ target), jnp.nan))
    return means[1] - means[0]


def _held(views: Views) -> sums.Held:
    """Return the rows; the first feature of x, or what is shared, is spanned by z and left out."""
    return sums.held(views, max(views.num_shared, 1))


def _normal_equations(moments: Moments, t: int) -> tuple[Array, Array, Array]:
    if moments.num_shared > 0:
        raise ValueError(
            "regression_adjustment needs one-hot proxies, or views in place of moments"
        )
    cross = moments.zx[t, :, 1:]
    gram = jnp.block([
        [moments.gram_z[t], cross], [cross.T, jnp.diag(moments.x_by_arm[t, 1:])],
    ])  # fmt: skip
    target = jnp.concatenate([moments.zy[t], moments.one_z @ moments.zxy[t, :, 1:]])
    of_z = jnp.einsum("tzx,x->z", moments.zx, moments.one_x)
    return gram, target, jnp.concatenate([of_z, moments.x_by_arm.sum(0)[1:]])


@compiled("arm", "max_steps")
def inverse_probability_weighting(
    views: Views, *, arm: int = 1, max_steps: int = 50
) -> Float[Array, ""]:
    """Estimate the average effect by weighting rows with the inverse of their propensity.

    ``E[1{T=arm} Y / e_arm(w)] / E[1{T=arm} / e_arm(w)]`` minus the same in the control arm (Hajek's
    normalisation); ``e_t(w) = P(T=t | w)`` is a (multinomial) logistic regression on the features
    w of z and x side by side, by maximum likelihood without a penalty.

    Assumes that z and x are all the confounding there is, and that the propensity is logistic
    in w. With a hidden class behind them it is biased at every sample size.

    Parameters
    ----------
    views
        Rows.
    arm
        The arm compared with the control.
    max_steps
        Most Newton steps.

    Returns
    -------
    Array
        NaN where an arm has no rows, the propensity of some row is 0 or 1 (the proxies predict
        the arm), or the steps ran out.

    References
    ----------
    Hajek (1971), in Foundations of Statistical Inference; Rosenbaum, Rubin (1983), Biometrika 70.

    Examples
    --------
    >>> import jax, jaxmix as jm
    >>> population = jm.populations.paper_appendix(subgroup=-0.2, num_z=1, num_x=1)
    >>> rows = population.sample(jax.random.key(0), 20_000)
    >>> data = jm.CausalData.from_frame(rows, treatment="T", outcome="Y", z=["Z"], x=["X"])
    >>> views = jm.features.encode(data, reduce=True)
    >>> bool(inverse_probability_weighting(views) > 0.3)  # truth: 0.25
    True
    """
    w, arms, y, mass = _held(views)
    a, d = views.num_arms, w.shape[1]
    observed = arms[:, None] == jnp.arange(a)
    eps = jnp.finfo(w.dtype).eps

    def log_propensity(beta: Array) -> Array:
        scores = jnp.concatenate([jnp.zeros((len(w), 1), w.dtype), w @ beta], axis=1)
        return jax.nn.log_softmax(scores)

    def loss(beta: Array) -> Array:
        return -jnp.sum(jnp.where(observed, mass[:, None] * log_propensity(beta), 0.0))

    def step(beta: Array, damping: Array, exact: Array) -> tuple[Array, Array]:
        del exact  # the curvature is exact already
        p = jnp.exp(log_propensity(beta))[:, 1:]
        gradient = (w.T @ (mass[:, None] * (observed[:, 1:] - p))).reshape(-1)
        blocks = jnp.einsum("nj,jl->njl", p, jnp.eye(a - 1)) - p[:, :, None] * p[:, None, :]
        hessian = jnp.einsum("n,njl,np,nq->pjql", mass, blocks, w, w, precision="highest")
        hessian = hessian.reshape(d * (a - 1), -1)
        metric = jnp.diag(hessian) + eps * mass.sum()
        direction = jnp.linalg.solve(hessian + damping * jnp.diag(metric), gradient)
        return direction.reshape(beta.shape), gradient @ direction / 2

    found = minimise(
        loss,
        jnp.zeros((d, a - 1), w.dtype),
        damped(step, jnp.add),
        tolerance=float(eps) ** (2 / 3),
        max_steps=max_steps,
    )
    propensity = jnp.exp(log_propensity(found.params))
    # Where arms can be told apart the likelihood has no maximum: probabilities run into 0 and 1.
    least = jnp.min(jnp.where(mass > 0, propensity[:, jnp.array([0, arm])].min(1), 1.0))
    defined = (found.status == Status.SUCCESS) & (least > jnp.sqrt(eps))
    means = []
    for t in (0, arm):
        weight = jnp.where(observed[:, t], mass / propensity[:, t], 0.0)
        means.append(weight @ y / weight.sum())
    return jnp.where(defined, means[1] - means[0], jnp.nan)


class _Clusters(NamedTuple):
    centres: Float[Array, "k d"]
    labels: Int[Array, " n"]
    steps: Int[Array, ""]
    moved: Bool[Array, ""]


@compiled("k", "arm", "num_starts")
def cluster_then_adjust(
    views: Views, k: int, *, key: Array, arm: int = 1, num_starts: int = 10, max_steps: int = 300
) -> EffectLaw:
    """Estimate the effect law by clustering rows, then comparing arms within each cluster.

    k-means on the features w of z and x (Lloyd's iteration from k-means++ starts, the smallest
    ``sum_i |w_i - c_l(i)|^2`` is kept), then ``E[Y | T=arm, cluster] - E[Y | T=0, cluster]`` with
    the size of the cluster as share.

    Assumes level 1: the class is a function of z and x, in clusters that lie apart. Where classes
    overlap the clusters mix them, and the confounding within each cluster stays.

    Parameters
    ----------
    views
        Rows; features count as they are coded (one-hot, or standardised).
    k
        Number of clusters.
    key
        JAX key, for the starts.
    arm
        The arm compared with the control.
    num_starts
        Starts, one after the other.
    max_steps
        Most of Lloyd's steps from each.

    Returns
    -------
    EffectLaw
        By increasing effect. In stats: ``inertia`` (mean squared distance from the centres),
        ``steps``. Statuses: BOUNDARY (a cluster is empty), MAX_STEPS, NONFINITE (a cluster has no
        rows in an arm).

    References
    ----------
    Lloyd (1982), IEEE Transactions on Information Theory 28; Arthur, Vassilvitskii (2007), SODA.

    Examples
    --------
    >>> import jax, jaxmix as jm
    >>> rows = jm.populations.paper_main().sample(jax.random.key(0), 20_000)
    >>> data = jm.CausalData.from_frame(rows, treatment="T", outcome="Y", z=["Z"], x=["X"])
    >>> views = jm.features.encode(data, reduce=True)
    >>> law = cluster_then_adjust(views, 2, key=jax.random.key(1))
    >>> [round(float(e), 1) for e in law.effects]  # truth: -0.75, 0.75
    [-0.3, 0.3]
    """
    w, arms, y, mass = sums.held(views, views.num_shared)
    squares = jnp.sum(w * w, axis=1)

    def distances(centres: Array) -> Array:
        cross = jnp.matmul(w, centres.T, precision="highest")
        return jnp.maximum(squares[:, None] - 2 * cross + jnp.sum(centres**2, axis=1), 0.0)

    def seed(index: Array) -> Array:
        own = jax.random.fold_in(key, index)
        centres, nearest = [], jnp.ones_like(squares)  # the first centre by mass alone
        for j in range(k):
            row = jax.random.categorical(jax.random.fold_in(own, j), jnp.log(mass * nearest))
            centres.append(w[row])
            far = jnp.sum((w - w[row]) ** 2, axis=1)
            nearest = far if j == 0 else jnp.minimum(nearest, far)
        return jnp.stack(centres)

    def lloyd(index: Array) -> tuple[_Clusters, Array]:
        def body(state: _Clusters) -> _Clusters:
            sizes = jax.ops.segment_sum(mass, state.labels, k)
            added = jax.ops.segment_sum(mass[:, None] * w, state.labels, k)
            held = sizes[:, None] > 0  # an empty cluster keeps its centre
            centres = jnp.where(held, added / jnp.where(held, sizes[:, None], 1.0), state.centres)
            labels = jnp.argmin(distances(centres), axis=1)
            changed = jnp.any((labels != state.labels) & (mass > 0))
            return _Clusters(centres, labels, state.steps + 1, changed)

        def unfinished(state: _Clusters) -> Bool[Array, ""]:
            return state.moved & (state.steps < max_steps)

        centres = seed(index)
        labels = jnp.argmin(distances(centres), axis=1)
        begin = _Clusters(centres, labels, jnp.int32(0), jnp.asarray(True))
        end = jax.lax.while_loop(unfinished, body, begin)
        inertia = mass @ jnp.sum((w - end.centres[end.labels]) ** 2, axis=1) / mass.sum()
        return end, inertia

    def compete(
        best: tuple[_Clusters, Array], index: Array
    ) -> tuple[tuple[_Clusters, Array], None]:
        new = lloyd(index)
        better = new[1] < best[1]
        return jax.tree.map(lambda n, o: jnp.where(better, n, o), new, best), None

    (clusters, inertia), _ = jax.lax.scan(
        compete, lloyd(jnp.int32(0)), jnp.arange(1, num_starts, dtype=jnp.int32)
    )
    a = views.num_arms
    cell = clusters.labels * a + arms
    sizes = jax.ops.segment_sum(mass, cell, k * a).reshape(k, a)
    means = jax.ops.segment_sum(mass * y, cell, k * a).reshape(k, a) / sizes
    return law_of_means(
        sizes.sum(1) / mass.sum(),
        means[:, arm] - means[:, 0],
        where(clusters.moved, Status.MAX_STEPS),
        {"inertia": inertia, "steps": clusters.steps},
    )
