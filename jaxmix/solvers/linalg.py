"""Small dense linear algebra whose derivatives stay finite where the library needs them.

Automatic derivatives of a singular value decomposition divide by every gap between singular
values, also by those within the block that is kept and within the block that is dropped,
where truncated inverses and subspaces have no singularity. The rules here divide by the gap
between the two blocks alone.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

_UNROLL = 8  # largest matrix inverted by unrolled elimination, which vectorises over a batch


class Inverse(NamedTuple):
    """A (generalised) inverse, and whether the rank that was asked for was there.

    Attributes
    ----------
    matrix
        ``(d_x, d_z)``.
    deficient
        Whether the matrix had a smaller numerical rank than was asked for, or no single best
        approximation of that rank.
    """

    matrix: Float[Array, "d_x d_z"]
    deficient: Bool[Array, ""]


def cutoff(matrix: Float[Array, "d_z d_x"]) -> float:
    """Return the relative size below which a singular value counts as zero."""
    return 8.0 * max(matrix.shape) * float(jnp.finfo(matrix.dtype).eps)


def power_of_two(size: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return the largest power of two that is not above a positive number; 1 for 0.

    Dividing by it costs no digit: what is to be squared is brought to order one by it first. It
    counts as fixed where derivatives are taken.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> power_of_two(jnp.array([5.0, 0.25, 0.0])).tolist()
    [4.0, 0.25, 1.0]
    """
    size = jax.lax.stop_gradient(jnp.where((size > 0) & jnp.isfinite(size), size, 1.0))
    return jnp.ldexp(jnp.ones_like(size), jnp.frexp(size)[1] - 1)


@jax.custom_jvp
def inverse(matrix: Float[Array, "d d"]) -> Float[Array, "d d"]:
    """Invert a square matrix (Gauss-Jordan with partial pivoting, unrolled where small).

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> inverse(jnp.array([[2.0, 0.0], [0.0, 4.0]])).tolist()
    [[0.5, 0.0], [0.0, 0.25]]
    """
    d = matrix.shape[-1]
    if d > _UNROLL:
        found: Float[Array, "d d"] = jnp.linalg.inv(matrix)
        return found
    work = jnp.concatenate([matrix, jnp.eye(d, dtype=matrix.dtype)], axis=1)
    rows = jnp.arange(d)
    for j in range(d):
        size = jnp.where(rows < j, -1.0, jnp.abs(work[:, j]))
        chosen = (rows == jnp.argmax(size))[:, None]
        pivot = jnp.sum(jnp.where(chosen, work, 0.0), axis=0)
        # Swap row j with the pivot row by selection: gathers do not vectorise.
        work = jnp.where(chosen, work[j], work)
        pivot = pivot / pivot[j]
        work = jnp.where((rows == j)[:, None], pivot, work - work[:, j : j + 1] * pivot)
    return work[:, d:]


@inverse.defjvp
def _inverse_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    out = inverse(*primals)
    return out, -out @ tangents[0] @ out


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _truncated_pinv(
    matrix: Float[Array, "m d"], rank: int, floor: Float[Array, ""]
) -> tuple[Float[Array, "d m"], Float[Array, " r"]]:
    """Return the pseudo-inverse of the best rank-`rank` approximation, and singular values."""
    u, s, vt = jnp.linalg.svd(matrix, full_matrices=False)
    keep = _kept(s, rank, matrix, floor)
    return (vt.T * jnp.where(keep, 1.0 / jnp.where(keep, s, 1.0), 0.0)) @ u.T, s


def _kept(
    s: Float[Array, " r"], rank: int, matrix: Float[Array, "m d"], floor: Float[Array, ""]
) -> Bool[Array, " r"]:
    return (jnp.arange(s.shape[0]) < rank) & _stands(s, s[0], matrix, floor)


def _stands(
    s: Float[Array, "..."], largest: Array, matrix: Float[Array, "m d"], floor: Float[Array, ""]
) -> Bool[Array, "..."]:
    """Whether singular values are more than rounding (not a number: no)."""
    return (s > cutoff(matrix) * largest) & (s > floor)


@_truncated_pinv.defjvp
def _truncated_pinv_jvp(
    rank: int, primals: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Differentiate a truncated pseudo-inverse.

    With full singular bases the tangent E = U' dM V maps to V D' U', where D comes from the
    divided differences of the odd function that is 1/s on the kept values and 0 elsewhere.
    Only s_kept^2 - s_dropped^2 is divided by.
    """
    (matrix, floor), (tangent, _) = primals, tangents
    m, d = matrix.shape
    u, s, vt = jnp.linalg.svd(matrix, full_matrices=True)
    keep = _kept(s, rank, matrix, floor)
    left = jnp.zeros(m, bool).at[: s.shape[0]].set(keep)
    right = jnp.zeros(d, bool).at[: s.shape[0]].set(keep)
    s_left = jnp.zeros(m, s.dtype).at[: s.shape[0]].set(s)
    s_right = jnp.zeros(d, s.dtype).at[: s.shape[0]].set(s)
    e = u.T @ tangent @ vt.T  # (m, d)
    # e[j, i], for pairs that exist on both sides; outside, its coefficient is zero.
    r = s.shape[0]
    swapped = jnp.zeros_like(e).at[:r, :r].set(e[:r, :r].T)

    si, sj = s_left[:, None], s_right[None, :]
    both = left[:, None] & right[None, :]
    only_left = left[:, None] & ~right[None, :]
    only_right = ~left[:, None] & right[None, :]
    gap = jnp.where(only_left, si**2 - sj**2, jnp.where(only_right, sj**2 - si**2, 1.0))
    kept = jnp.where(both, si * sj, 1.0)
    si_safe = jnp.where(left[:, None], si, 1.0)
    sj_safe = jnp.where(right[None, :], sj, 1.0)
    delta = jnp.where(both, -swapped / kept, 0.0)
    delta += jnp.where(only_left, (e + swapped * sj / si_safe) / gap, 0.0)
    delta += jnp.where(only_right, (e + swapped * si / sj_safe) / gap, 0.0)
    u_r, vt_r = u[:, :r], vt[:r]
    pinv = (vt_r.T * jnp.where(keep, 1.0 / jnp.where(keep, s, 1.0), 0.0)) @ u_r.T
    return (pinv, s), ((u @ delta @ vt).T, jnp.diagonal(e)[:r])


def pinv(
    matrix: Float[Array, "d_z d_x"],
    rank: int | None = None,
    floor: Float[Array, ""] | float = 0.0,
) -> Inverse:
    """Invert a matrix at a given rank.

    Parameters
    ----------
    matrix
        ``(d_z, d_x)``.
    rank
        The rank to keep; None keeps the numerical rank, and then nothing counts as deficient.
        A square matrix at full rank is inverted by elimination, without a decomposition.
    floor
        How large rounding may be that went into the matrix before it came here: singular values
        up to it count as zero, whatever the largest is.

    Returns
    -------
    Inverse
        The pseudo-inverse of the best approximation of that rank (Eckart-Young); deficient where
        the rank is smaller, or where there is no single best one.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> result = pinv(jnp.diag(jnp.array([2.0, 1e-3])), rank=1)
    >>> [round(float(v), 6) for v in jnp.diagonal(result.matrix)], bool(result.deficient)
    ([0.5, 0.0], False)
    >>> bool(pinv(jnp.array([[1e-17]]), rank=1, floor=1e-15).deficient)
    True
    >>> bool(pinv(jnp.diag(jnp.array([2.0, 1.0, 1.0])), rank=2).deficient)
    True
    """
    full = min(matrix.shape)
    floor = jax.lax.stop_gradient(jnp.asarray(floor, matrix.dtype))
    if rank == 0:
        return Inverse(jnp.zeros_like(matrix.T), jnp.zeros((), bool))
    if rank == full and matrix.shape[0] == matrix.shape[1]:
        out = inverse(matrix)
        size = jnp.linalg.norm(out)  # at least 1 over the smallest singular value
        condition = size * jnp.linalg.norm(matrix)
        return Inverse(out, ~((cutoff(matrix) * condition < 1.0) & (floor * size < 1.0)))
    out, s = _truncated_pinv(matrix, full if rank is None else rank, floor)
    if rank is None:
        return Inverse(out, jnp.zeros((), bool))
    deficient = ~_stands(s[rank - 1], s[0], matrix, floor)
    if rank < full:  # of two equal values either may be kept: no best approximation is the best
        deficient |= ~(s[rank - 1] - s[rank] > cutoff(matrix) * s[0])
    return Inverse(out, deficient)


class Sizes(NamedTuple):
    """How large features are before anything is taken out of them.

    Attributes
    ----------
    z, x
        ``(d_z,)`` and ``(d_x,)``: the root of each feature's sum of squares, in the units of the
        matrix: ``sqrt(E[1{T=t} phi^2])`` beside ``E[1{T=t} phi_z phi_x']``.
    num_rows
        Over how many rows the moments were summed; infinite for exact ones.
    """

    z: Float[Array, " d_z"]
    x: Float[Array, " d_x"]
    num_rows: Float[Array, ""]


def bordered_pinv(
    matrix: Float[Array, "d_z d_x"],
    rank: int | None = None,
    *,
    num_shared: int = 0,
    gram: Float[Array, "d_z d_z"] | None = None,
    sizes: Sizes | None = None,
) -> Inverse:
    """Invert a cross-moment matrix whose leading rows and columns belong to shared features.

    The shared block is inverted exactly; only the Schur complement, what remains of the other
    features once the shared ones are partialled out, is truncated. What remains of a feature
    that the shared ones give exactly is the rounding of much larger numbers: with `sizes` it
    counts as zero, which no comparison within the complement can see.

    Parameters
    ----------
    matrix
        ``E[z x']``, ``(d_z, d_x)``.
    rank
        Rank kept of the whole without shared features, of the Schur complement with them;
        None for its numerical rank.
    num_shared
        Number of leading features that z and x have in common.
    gram
        ``E[z z']``. Where given and there are more z than x, the equations are weighted by its
        inverse, which at full rank is two-stage least squares; z that the others give exactly
        are left out.
    sizes
        See `Sizes`.

    Returns
    -------
    Inverse
    """
    s = num_shared
    rest = schur_complement(matrix, s)
    if rest.shape[1] == 0:
        raise ValueError("no feature is left beside the shared ones")
    shared_inverse, condition = None, jnp.ones((), matrix.dtype)
    if s:
        shared_inverse = inverse(matrix[:s, :s])
        condition = _condition(matrix[:s, :s], shared_inverse)
    # Without shared features nothing was taken out, and the matrix is its own measure.
    rounding = jnp.zeros((), matrix.dtype)
    size_z, size_x = (jnp.ones(d, matrix.dtype) for d in rest.shape)
    if s and sizes is not None:
        rows = jnp.where(jnp.isfinite(sizes.num_rows), jnp.maximum(sizes.num_rows, 1.0), 1.0)
        # Sums over n rows err by the root of n units in the last place, at the size of their
        # terms, and solving for the shared features multiplies that by their condition.
        rounding = jax.lax.stop_gradient(cutoff(matrix) * jnp.sqrt(rows) * condition)
        size_z, size_x = (jax.lax.stop_gradient(of[s:]) for of in (sizes.z, sizes.x))
    if gram is not None and matrix.shape[0] > matrix.shape[1]:
        whiten, kept = _whitener(schur_complement(gram, s), rounding * size_z**2)
        # Weights enlarge rounding as they do what they are the weights of.
        size = jnp.linalg.norm(jax.lax.stop_gradient(whiten) * jnp.where(kept, size_z, 0.0))
        weighted = whiten @ jnp.where(kept[:, None], rest, 0.0)
        core = pinv(weighted, rank, rounding * size * jnp.max(size_x))
        solve = core.matrix @ whiten
    else:
        core = pinv(rest, rank, rounding * jnp.max(size_z) * jnp.max(size_x))
        solve = core.matrix
    if shared_inverse is None:
        return Inverse(solve, core.deficient)
    lower = -solve @ matrix[s:, :s] @ shared_inverse
    upper = -shared_inverse @ matrix[:s, s:]
    whole = jnp.block([[shared_inverse + upper @ lower, upper @ solve], [lower, solve]])
    return Inverse(whole, core.deficient | ~(condition * cutoff(matrix) < 1.0))


def _condition(matrix: Float[Array, "s s"], inverse: Float[Array, "s s"]) -> Float[Array, ""]:
    """Return the condition of a matrix of second moments, its features at one length."""
    size = jnp.sqrt(jnp.maximum(jnp.diagonal(matrix), 0.0))
    unit = jnp.where(size > 0, size, 1.0)
    both = unit[:, None] * unit
    found: Float[Array, ""] = jnp.linalg.norm(matrix / both) * jnp.linalg.norm(inverse * both)
    return found


def schur_complement(matrix: Float[Array, "m d"], num_shared: int) -> Float[Array, "m-s d-s"]:
    """Return what is left of a cross-moment matrix once its leading features are partialled out.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> schur_complement(jnp.array([[1.0, 2.0], [3.0, 10.0]]), 1).tolist()
    [[4.0]]
    """
    s = num_shared
    if s == 0:
        return matrix
    return matrix[s:, s:] - matrix[s:, :s] @ inverse(matrix[:s, :s]) @ matrix[:s, s:]


def _whitener(
    gram: Float[Array, "d d"], floor: Float[Array, " d"]
) -> tuple[Float[Array, "d d"], Bool[Array, " d"]]:
    """Return W with W gram W' = I, and which features that is for.

    The others, which those before them leave no more of than `floor`, are left as they are: they
    do not occur in the sample, or say nothing of their own.
    """
    kept = _independent(jax.lax.stop_gradient(gram), floor)
    own = jnp.where(kept[:, None] & kept, gram, jnp.diag(jnp.where(kept, 0.0, 1.0)))
    scale = 1.0 / jnp.sqrt(jnp.diagonal(own))
    factor = jnp.linalg.cholesky(own * scale[:, None] * scale[None, :])
    return jax.scipy.linalg.solve_triangular(factor, jnp.diag(scale), lower=True), kept


def _independent(gram: Float[Array, "d d"], floor: Float[Array, " d"]) -> Bool[Array, " d"]:
    """Return which features keep more than `floor` beside those before them: pivots of Cholesky."""

    def step(j: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        left, kept = state
        pivot = left[j, j]
        own = pivot > floor[j]
        row = jnp.where(own, left[j] / jnp.sqrt(jnp.where(own, pivot, 1.0)), 0.0)
        return left - jnp.outer(row, row), kept.at[j].set(own)

    found: Bool[Array, " d"] = jax.lax.fori_loop(
        0, len(gram), step, (gram, jnp.zeros(len(gram), bool))
    )[1]
    return found
