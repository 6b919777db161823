"""From the moments of a law with k atoms to its atoms.

All three take ``(m_0, ..., m_{2k-1})`` with m_0 = 1, scaled so that effects are of order one, and
agree algebraically while the Hankel matrix ``H_0 = [m_{i+j}]`` is positive definite. Where it
is singular to rounding, as exact moments make it when atoms coincide, the order is lowered and
the merged law is returned: the slots that are left over have share zero. In samples atoms that
coincide leave ``H_0`` indefinite about half of the time, which is then the status.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from jaxmix.model.law import EffectLaw
from jaxmix.solvers.linalg import inverse
from jaxmix.solvers.spectra import left_eigen
from jaxmix.status import Status, settle, where, worst


def _hankel(m: Float[Array, " l"], size: int, shift: int = 0) -> Float[Array, "k k"]:
    index = jnp.arange(size)
    return m[shift + index[:, None] + index[None, :]]


def _singular(dtype: jnp.dtype) -> float:
    """Return the relative size below which a pivot of H_0 is rounding: atoms coincide."""
    found: float = float(jnp.finfo(dtype).eps) ** (2 / 3)
    return found


def gauss(m: Float[Array, " 2k"]) -> EffectLaw:
    """Return the law by Gauss quadrature: its atoms are the nodes, its shares the weights.

    The Cholesky factor R of the Hankel matrix gives the recurrence coefficients of the
    orthogonal polynomials; the effects are the eigenvalues of their tridiagonal matrix, and
    the shares the squared first components of its eigenvectors (Golub and Welsch 1969).

    Parameters
    ----------
    m
        ``(2k,)`` moments, m[0] = 1.

    Returns
    -------
    EffectLaw
        NaN with INDEFINITE_MOMENTS where the moments are those of no distribution. In stats:
        ``num_distinct``, the number of atoms left after merging, and ``smallest_pivot`` of H_0.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> law = gauss(jnp.array([1.0, 0.5, 1.0, 0.5]))
    >>> [round(float(v), 5) for v in (*law.effects, *law.shares)]
    [-1.0, 1.0, 0.25, 0.75]
    """
    k = m.shape[0] // 2
    tolerance = _singular(m.dtype)
    rows: list[Array] = []
    active, indefinite = jnp.ones((), bool), jnp.zeros((), bool)
    actives, pivots = [], []
    for i in range(k):
        left = [m[i + j] - sum((row[i] * row[j] for row in rows), start=0.0) for j in range(k + 1)]
        pivot = left[i]
        floor = tolerance * m[2 * i] + tolerance**2
        indefinite = indefinite | (active & ~(pivot > -jnp.abs(floor)))
        active = active & (pivot > floor)
        root = jnp.sqrt(jnp.where(active, pivot, 1.0))
        rows.append(jnp.where(active, jnp.stack(left) / root, 0.0))
        actives.append(active)
        pivots.append(jnp.where(actives[i - 1] if i else True, pivot, jnp.inf))
    on = jnp.stack(actives)
    diagonal = jnp.stack([jnp.where(on[i], rows[i][i], 1.0) for i in range(k)])
    ratio = jnp.stack([rows[i][i + 1] for i in range(k)]) / diagonal
    alpha = jnp.where(on, ratio - jnp.concatenate([jnp.zeros(1, m.dtype), ratio[:-1]]), 0.0)
    beta = jnp.where(on[1:], diagonal[1:] / diagonal[:-1], 0.0)
    # Slots without an atom get nodes beyond all others, decoupled, and so of weight zero.
    far = 1.0 + jnp.abs(alpha).max() + 2.0 * jnp.abs(beta).sum() + jnp.arange(k)
    jacobi = jnp.diag(jnp.where(on, alpha, far)) + jnp.diag(beta, 1) + jnp.diag(beta, -1)
    nodes, vectors = jnp.linalg.eigh(jacobi)
    count = on.sum()
    effects = nodes[jnp.minimum(jnp.arange(k), count - 1)]
    shares = jnp.where(jnp.arange(k) < count, vectors[0] ** 2, 0.0)
    effects = jnp.where(indefinite, jnp.nan, effects)
    shares = jnp.where(indefinite, jnp.nan, shares)
    status = where(indefinite, Status.INDEFINITE_MOMENTS)
    return EffectLaw(
        shares,
        effects,
        settle(status, (shares, effects)),
        {"num_distinct": count, "smallest_pivot": jnp.stack(pivots).min()},
    )


def pencil(m: Float[Array, " 2k"]) -> EffectLaw:
    """Return the law by the matrix pencil: effects are the eigenvalues of ``H_0^-1 H_1``.

    Shares solve the Vandermonde equations. Unlike `gauss` it returns real effects with negative
    shares, or the real parts of complex effects, where the moments are indefinite; the status
    says so. `stats` holds ``imaginary``, the largest imaginary part dropped.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> law = pencil(jnp.array([1.0, 0.5, 1.0, 0.5]))
    >>> [round(float(v), 5) for v in (*law.effects, *law.shares)]
    [-1.0, 1.0, 0.25, 0.75]
    """

    def nodes(m: Float[Array, " 2k"]) -> Complex[Array, " k"]:
        k = m.shape[0] // 2
        return left_eigen(inverse(_hankel(m, k)) @ _hankel(m, k, 1)).values

    return _from_nodes(m, nodes)


def prony(m: Float[Array, " 2k"]) -> EffectLaw:
    """Return the law by Prony's method: effects are the roots of a polynomial.

    Its lower coefficients solve ``H_0 c = -(m_k, ..., m_{2k-1})``, the leading one is 1; the roots
    are the eigenvalues of the companion matrix. Shares and status as in `pencil`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> law = prony(jnp.array([1.0, 0.5, 1.0, 0.5]))
    >>> [round(float(v), 5) for v in (*law.effects, *law.shares)]
    [-1.0, 1.0, 0.25, 0.75]
    """

    def nodes(m: Float[Array, " 2k"]) -> Complex[Array, " k"]:
        k = m.shape[0] // 2
        lower = -inverse(_hankel(m, k)) @ m[k:]
        return left_eigen(jnp.eye(k, k=-1, dtype=m.dtype).at[:, -1].set(-lower)).values

    return _from_nodes(m, nodes)


def _from_nodes(m: Float[Array, " 2k"], find: Callable[[Array], Array]) -> EffectLaw:
    """Return the law at given complex nodes; merged laws are left to `gauss`."""
    k = m.shape[0] // 2
    whole = gauss(m)
    merged = (whole.status == Status.SUCCESS) & (whole.stats["num_distinct"] < k)
    # A harmless law in place of the merged one keeps derivatives of the unused branch finite.
    spread = jnp.linspace(-1.0, 1.0, k + 2, dtype=m.dtype)[1:-1]
    harmless = (spread[None, :] ** jnp.arange(2 * k)[:, None]).mean(1)
    m_safe = jnp.where(merged, harmless, m)
    nodes = find(m_safe)
    powers = nodes[None, :] ** jnp.arange(k)[:, None]
    shares = jnp.linalg.solve(powers, m_safe[:k].astype(nodes.dtype)).real
    order = jnp.argsort(nodes.real)
    imaginary = jnp.abs(nodes.imag).max()
    slack = jnp.sqrt(jnp.finfo(m.dtype).eps)
    effects = jnp.where(merged, whole.effects, nodes.real[order])
    shares = jnp.where(merged, whole.shares, shares[order])
    status = worst(
        where(~merged & (imaginary > slack), Status.COMPLEX_SPECTRUM),
        where(jnp.any(shares < -slack) | jnp.any(shares > 1 + slack), Status.OUT_OF_RANGE),
    )
    stats = {**whole.stats, "imaginary": jnp.where(merged, 0.0, imaginary)}
    return EffectLaw(shares, effects, settle(status, (shares, effects)), stats)


METHODS: dict[str, Callable[[Array], EffectLaw]] = {
    "gauss": gauss,
    "pencil": pencil,
    "prony": prony,
}
