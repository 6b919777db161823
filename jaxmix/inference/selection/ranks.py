"""The rank of the proxies' moments, tested in sequence: a lower bound of the number of classes.

With k classes ``M_zx,t = sum_u P(T=t, U=u) E[phi_z | t, u] E[phi_x | u]'`` has rank k at most. The
constant is one of the directions, so that the rank is 1 plus that of what is left of the
matrix once the constant (and covariates) are partialled out; this rest is what is tested.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxmix.estimators.least_squares import CUTOFF
from jaxmix.sample.features import Views
from jaxmix.sample.moments import Moments
from jaxmix.sample.sample import Sample
from jaxmix.sample.second import gram_x, product_covariance
from jaxmix.solvers.compiling import compiled
from jaxmix.solvers.linalg import cutoff, inverse, schur_complement


class RankTests(NamedTuple):
    """Tests that the rank is at most r = 1, 2, ... in every arm at once.

    Attributes
    ----------
    statistic, df, p_value
        ``(R,)`` chi-square statistics, their degrees of freedom and p-values, of rank r at entry
        r - 1; without degrees of freedom the p-value is 1.
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
    return of_sample(Sample(views), num_tests=num_tests)


def of_sample(sample: Sample, *, num_tests: int | None = None) -> RankTests:
    """Test the rank of a sample's proxies, by sums over its rows; see `of_views`.

    Parameters
    ----------
    sample
        The rows.
    num_tests
        Ranks to be tested; by default all that the proxies can have but the largest.
    """
    moments = sample.moments
    most = moments.max_rank - 1
    num = most if num_tests is None else min(num_tests, most)
    if moments.num_shared == 0 and sample.design.is_random:
        return of_table(moments.zx * moments.num_rows, num_tests=num)
    if num == 0:
        return _nothing(moments.zx)
    values, to_z, to_x = _partialled_out(moments, gram_x(sample))
    spread = product_covariance(sample, to_z, to_x)
    shape = (to_z.shape[2], to_x.shape[2])
    return _in_sequence(values, spread, moments.num_rows, num, shape)


@compiled()
def _partialled_out(
    moments: Moments, gram_x: Float[Array, "a d_x d_x"]
) -> tuple[Float[Array, "a m"], Float[Array, "a d_z p"], Float[Array, "a d_x q"]]:
    """Return canonical correlations in each arm, and the maps from features to their variates.

    The shared features are partialled out; one-hot proxies share the constant, which takes the
    place of their first indicator.
    """
    share = moments.arm_probabilities[:, None, None]
    s = max(moments.num_shared, 1)
    bases = []
    for one in (moments.one_z, moments.one_x):
        basis = jnp.eye(len(one), dtype=one.dtype)
        bases.append(basis if moments.num_shared else basis.at[:, 0].set(one))
    of_z, of_x = bases

    def arm(zx: Array, gram_z: Array, gram_x: Array) -> tuple[Array, Array, Array]:
        zx, gram_z, gram_x = of_z.T @ zx @ of_x, of_z.T @ gram_z @ of_z, of_x.T @ gram_x @ of_x
        blocks = (schur_complement(block, s) for block in (zx, gram_z, gram_x))
        values, left, right = _decompose(*blocks)
        to_z, to_x = _residual(gram_z, s) @ left, _residual(gram_x, s) @ right
        return values, of_z @ to_z, of_x @ to_x

    return jax.vmap(arm)(moments.zx / share, moments.gram_z / share, gram_x / share)


@compiled("num", "shape")
def _in_sequence(
    values: Float[Array, "a m"],
    spread: Float[Array, "l l"],
    num_rows: Float[Array, ""],
    num: int,
    shape: tuple[int, int],
) -> RankTests:
    """Test ranks 1 to `num` of canonical correlations in all arms, by their covariance."""
    correlations = jax.vmap(lambda own: _diagonal(own, shape))(values)

    def test(r: Array) -> tuple[Array, Array]:
        beyond = jnp.broadcast_to(_beyond(r, correlations[0]), correlations.shape).reshape(-1)
        own = jnp.where(beyond, correlations.reshape(-1), 0.0)
        return _wald(own, jnp.where(beyond[:, None] & beyond, spread, 0.0))

    statistics, dfs = jax.lax.map(test, jnp.arange(1, num + 1))
    return _tests(num_rows * statistics, dfs, values)


def _residual(gram: Float[Array, "d d"], s: int) -> Float[Array, "d d-s"]:
    """Return the map from features to what regressions on the shared ones leave of the others."""
    others = jnp.eye(len(gram) - s, dtype=gram.dtype)
    return jnp.concatenate([-inverse(gram[:s, :s]) @ gram[:s, s:], others])


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
