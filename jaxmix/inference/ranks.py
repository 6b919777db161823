"""The rank of the proxies' moments, tested in sequence: a lower bound of the number of classes.

With k classes ``M_zx,t = sum_u P(T=t, U=u) E[phi_z | t, u] E[phi_x | u]'`` has rank k at most. The
constant is one of the directions, so that the rank is 1 plus that of what is left of the
matrix once the constant (and covariates) are partialled out; this rest is what is tested.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxmix.estimators.least_squares import CUTOFF
from jaxmix.sample.features import Views
from jaxmix.sample.moments import from_rows
from jaxmix.solvers.compiling import compiled
from jaxmix.solvers.linalg import cutoff, inverse, schur_complement

_CHUNK_NUMBERS = 1 << 21  # numbers held at once per chunk of rows


class RankTests(NamedTuple):
    """Tests that the rank is at most r = 1, 2, ... in every arm at once.

    Attributes
    ----------
    statistic, df, p_value
        ``(R,)``; entry r - 1 belongs to rank r. Without degrees of freedom the p-value is 1.
    correlations
        ``(a, m)``: canonical correlations of z and x within each arm, what is tested for zero.
    """

    statistic: Float[Array, " R"]
    df: Int[Array, " R"]
    p_value: Float[Array, " R"]
    correlations: Float[Array, "a m"]


def rank_of(tests: RankTests, size: float | Array = 0.05) -> Int[Array, ""]:
    """Return the first rank that is not rejected, or one more than the last rank tested.

    The true rank is rejected with probability `size`, so that the sequence ends beyond it no more
    often than that (and falls short of it where the proxies are weak).

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> p = jnp.array([0.001, 0.2, 0.01])
    >>> int(rank_of(RankTests(p, p, p, p[None])))
    2
    """
    return 1 + jnp.sum(jnp.cumprod(tests.p_value < size, axis=-1), axis=-1)


@compiled("num_tests")
def of_table(zx: Float[Array, "a d_z d_x"], *, num_tests: int | None = None) -> RankTests:
    """Test the rank of tables of counts of (Z, X), one table for each arm.

    The statistic of Kleibergen and Paap,

        rk = n L' W^-1 L,   L = vec(U_2' S V_2),

    with S the matrix of standardised residuals ``(p_ij - p_i. p_.j) / sqrt(p_i. p_.j)``, U_2 and
    V_2 its singular vectors beyond the first r - 1, and W the covariance of L. It is chi-square
    with ``(d_z - r)(d_x - r)`` degrees of freedom for each arm, and the arms, independent samples,
    are summed. W is taken at the cells that the null fits, the best approximation of S of rank
    r - 1: for r = 1 the statistic is Pearson's chi-square of independence. A level that does not
    occur in an arm takes its degrees of freedom with it.

    Assumes independent rows.

    Parameters
    ----------
    zx
        Counts.
    num_tests
        Ranks to be tested; by default all below ``min(d_z, d_x)``.

    References
    ----------
    Kleibergen, Paap (2006), Journal of Econometrics 133; Robin, Smith (2000), Econometric Theory
    16; Gilula, Haberman (1986), JASA 81.

    Examples
    --------
    >>> import jax, jaxmix as jm
    >>> draw = jm.populations.random_discrete(jax.random.key(0), num_classes=2, d_z=4, d_x=4)
    >>> counts = draw.counts(jax.random.key(1), 10_000)
    >>> int(rank_of(of_table(counts.sum(-1))))
    2
    """
    d_z, d_x = zx.shape[1:]
    most = min(d_z, d_x) - 1
    num = most if num_tests is None else min(num_tests, most)

    def arm(counts: Float[Array, "d_z d_x"]) -> tuple[Array, Array, Array]:
        n = counts.sum()
        p = counts / jnp.where(n > 0, n, 1.0)
        row, column = p.sum(1), p.sum(0)
        z, x = (jnp.eye(len(side), dtype=p.dtype)[:, 1:] - side[1:] for side in (row, column))
        gram_z, gram_x = z.T @ (row[:, None] * z), x.T @ (column[:, None] * x)
        values, left, right = _decompose(z.T @ p @ x, gram_z, gram_x)
        left, right = z @ left, x @ right
        products = jnp.einsum("ip,jq->ijpq", left, right).reshape(*p.shape, -1)
        correlations = _diagonal(values, (left.shape[1], right.shape[1]))

        def test(r: Array) -> tuple[Array, Array]:
            beyond = _beyond(r, correlations)
            kept = jnp.where(beyond, 0.0, correlations)
            null = jnp.outer(row, column) * (1 + left @ kept @ right.T)
            null = jnp.maximum(null, 0.0)
            own = products * beyond.reshape(-1)
            spread = jnp.einsum("ij,ijp,ijq->pq", null / null.sum(), own, own)
            return _wald(jnp.where(beyond, correlations, 0.0).reshape(-1), spread)

        statistics, dfs = jax.lax.map(test, jnp.arange(1, num + 1))
        return n * statistics, dfs, values

    if num == 0:
        return _nothing(zx)
    statistics, dfs, values = jax.vmap(arm)(zx)
    return _tests(statistics.sum(0), dfs.sum(0), values)


def of_views(views: Views, *, num_tests: int | None = None) -> RankTests:
    """Test the rank of the proxies' moments of rows with any features, weights and clusters.

    As `of_table`, with S the residual moments ``E[z~ x~' | T=t]``, where z~ and x~ are what
    regressions on the shared features leave within the arm, standardised; and W the mean of
    ``w^2 (z~ x~')(z~ x~')'`` over rows, or clusters summed before they are multiplied. It holds for
    sampling weights and for clusters, which may reach over arms. Independent rows of one-hot
    proxies without weights are a table and treated as such.

    Parameters
    ----------
    views
        The rows.
    num_tests
        Ranks to be tested; by default all below ``views.max_rank``.

    Examples
    --------
    >>> import jax, jaxmix as jm
    >>> rows = jm.populations.gaussian().sample(jax.random.key(0), 4000)
    >>> data = jm.CausalData.from_frame(rows, treatment="T", outcome="Y", z=["Z"], x=["X"])
    >>> int(rank_of(of_views(jm.features.encode(data))))
    2
    """
    most = views.max_rank - 1
    num = most if num_tests is None else min(num_tests, most)
    if views.num_shared == 0 and views.design.is_random:
        return of_table(from_rows(views).zx * views.multiplicity.sum(), num_tests=num)
    return _of_rows(_with_constant(views), num)


def _with_constant(views: Views) -> Views:
    """Return one-hot proxies with the constant in place of their first indicator."""
    if views.num_shared:
        return views

    def first_is_one(view: Array) -> Array:
        return jnp.concatenate([jnp.ones_like(view[:, :1]), view[:, 1:]], axis=1)

    return dataclasses.replace(
        views, z=first_is_one(views.z), x=first_is_one(views.x), num_shared=1
    )


@compiled("num")
def _of_rows(views: Views, num: int) -> RankTests:
    s, t = views.num_shared, views.t
    moments = from_rows(views)
    share = moments.arm_probabilities[:, None, None]
    zx, gram_z = moments.zx / share, moments.gram_z / share
    gram_x = from_rows(dataclasses.replace(views, z=views.x, x=views.z)).gram_z / share
    if num == 0:
        return _nothing(zx)
    by_z, by_x = (jax.vmap(_regression, (0, None))(g, s) for g in (gram_z, gram_x))
    rest, own_z, own_x = (jax.vmap(schur_complement, (0, None))(m, s) for m in (zx, gram_z, gram_x))
    values, left, right = jax.vmap(_decompose)(rest, own_z, own_x)
    # What the shared features leave of each row, in coordinates of its arm's singular vectors.
    z = views.z[:, s:] - jnp.einsum("ns,nsj->nj", views.z[:, :s], by_z[t])
    x = views.x[:, s:] - jnp.einsum("ns,nsj->nj", views.x[:, :s], by_x[t])
    z, x = jnp.einsum("ni,nij->nj", z, left[t]), jnp.einsum("ni,nij->nj", x, right[t])
    weight = views.weight / moments.arm_probabilities[t]
    n = views.multiplicity.sum()
    scale = n / (views.weight * views.multiplicity).sum() ** 2
    spread = scale * _covariance(views, weight, z, x)
    correlations = jax.vmap(lambda own: _diagonal(own, (z.shape[1], x.shape[1])))(values)

    def test(r: Array) -> tuple[Array, Array]:
        beyond = jnp.broadcast_to(_beyond(r, correlations[0]), correlations.shape).reshape(-1)
        own = jnp.where(beyond, correlations.reshape(-1), 0.0)
        return _wald(own, jnp.where(beyond[:, None] & beyond, spread, 0.0))

    statistics, dfs = jax.lax.map(test, jnp.arange(1, num + 1))
    return _tests(n * statistics, dfs, values)


def _covariance(
    views: Views, weight: Float[Array, " n"], z: Float[Array, "n p"], x: Float[Array, "n q"]
) -> Float[Array, "m m"]:
    """Sum the outer products of what rows, or clusters, add to the moments of all arms."""
    n, a, num = len(views.t), views.num_arms, z.shape[1] * x.shape[1]
    size = min(n, max(256, _CHUNK_NUMBERS // (a * num)))

    def body(total: Array, index: Array) -> tuple[Array, None]:
        # The last chunk starts early enough to be full; rows already counted count as none.
        start = jnp.minimum(index * size, n - size)
        fresh = start + jnp.arange(size) >= index * size

        def cut(array: Array) -> Array:
            return jax.lax.dynamic_slice_in_dim(array, start, size)

        by_arm = cut(weight)[:, None] * (cut(views.t)[:, None] == jnp.arange(a))
        products = (cut(z)[:, :, None] * cut(x)[:, None, :]).reshape(size, num)
        added = (by_arm[:, :, None] * products[:, None, :]).reshape(size, a * num)
        count = jnp.where(fresh, cut(views.multiplicity), 0.0)[:, None]
        if views.cluster is not None:
            return total.at[cut(views.cluster)].add(count * added), None
        return total + jnp.matmul((count * added).T, added, precision="highest"), None

    length = a * num if views.cluster is None else views.num_clusters
    start = jnp.zeros((length, a * num), z.dtype)
    total, _ = jax.lax.scan(body, start, jnp.arange(-(-n // size)))
    return total if views.cluster is None else jnp.matmul(total.T, total, precision="highest")


def _regression(gram: Float[Array, "d d"], s: int) -> Float[Array, "s d-s"]:
    """Return the coefficients of the other features on the shared ones."""
    return inverse(gram[:s, :s]) @ gram[:s, s:]


def _decompose(
    rest: Float[Array, "p q"], gram_z: Float[Array, "p p"], gram_x: Float[Array, "q q"]
) -> tuple[Float[Array, " m"], Float[Array, "p p"], Float[Array, "q q"]]:
    """Return canonical correlations, and the vectors that take features to canonical variates."""
    root_z, root_x = _inverse_root(gram_z), _inverse_root(gram_x)
    u, values, vt = jnp.linalg.svd(root_z @ rest @ root_x, full_matrices=True)
    return values, root_z @ u, root_x @ vt.T


def _inverse_root(gram: Float[Array, "d d"]) -> Float[Array, "d d"]:
    """Return the symmetric root of the pseudo-inverse: features that do not vary stay out."""
    values, vectors = jnp.linalg.eigh(gram)
    kept = values > cutoff(gram) * values[-1]
    found: Float[Array, "d d"] = (
        vectors * jnp.where(kept, jnp.where(kept, values, 1.0) ** -0.5, 0.0)
    ) @ vectors.T
    return found


def _diagonal(values: Float[Array, " m"], shape: tuple[int, int]) -> Float[Array, "p q"]:
    index = jnp.arange(len(values))
    return jnp.zeros(shape, values.dtype).at[index, index].set(values)


def _beyond(r: Array, correlations: Float[Array, "p q"]) -> Bool[Array, "p q"]:
    """Return which pairs of variates lie beyond the first r - 1 on both sides.

    The others are masked, so that the tests of all ranks are one loop, compiled once, with one
    decomposition at a time.
    """
    rows, columns = (jnp.arange(size) >= r - 1 for size in correlations.shape)
    return rows[:, None] & columns


def _wald(target: Float[Array, " l"], spread: Float[Array, "l l"]) -> tuple[Array, Array]:
    """Return ``L' W^+ L`` and the rank of W, in which masked entries are 0.

    The variates have variance 1, hence the cut-off.
    """
    values, vectors = jnp.linalg.eigh(spread)
    kept = values > max(CUTOFF, cutoff(spread)) * jnp.maximum(values[-1], 1.0)
    along = vectors.T @ target
    return jnp.sum(jnp.where(kept, along**2 / jnp.where(kept, values, 1.0), 0.0)), kept.sum()


def _tests(statistic: Array, df: Array, values: Array) -> RankTests:
    tail = jax.scipy.stats.chi2.sf(statistic, jnp.maximum(df, 1))
    return RankTests(statistic, df, jnp.where(df > 0, tail, 1.0), values)


def _nothing(zx: Float[Array, "a d_z d_x"]) -> RankTests:
    none = jnp.zeros(0, zx.dtype)
    return RankTests(none, none.astype(int), none, jnp.zeros((len(zx), 0), zx.dtype))
