"""Leading subspaces and eigenvectors, with derivatives that exist where those of a basis do not."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Complex, Float


class Subspace(NamedTuple):
    """The leading right singular vectors of a matrix.

    Attributes
    ----------
    basis
        ``(d, k)``, orthonormal.
    gap
        How far the last singular value kept stands above the first dropped, over the largest;
        infinite where none is dropped. A constant to derivatives.
    """

    basis: Float[Array, "d k"]
    gap: Float[Array, ""]

    @property
    def ambiguous(self) -> Bool[Array, ""]:
        """Whether two equal singular values leave it open what is kept."""
        return ~(self.gap > self.basis.shape[0] * jnp.finfo(self.basis.dtype).eps)


def _subspace(s: Float[Array, " r"], vt: Float[Array, "p d"], rank: int) -> Subspace:
    gap = (s[rank - 1] - s[rank]) / s[0] if rank < len(s) else jnp.full_like(s[0], jnp.inf)
    return Subspace(vt[:rank].T, gap)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def dominant_subspace(matrix: Float[Array, "m d"], rank: int) -> Subspace:
    """Return the subspace of the leading `rank` right singular vectors.

    Derivatives move the subspace and not the basis within it, so they are those of functions
    that do not depend on the choice of basis.
    """
    _, s, vt = jnp.linalg.svd(matrix, full_matrices=False)
    return _subspace(s, vt, rank)


@dominant_subspace.defjvp
def _dominant_subspace_jvp(
    rank: int, primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Subspace, Subspace]:
    (matrix,), (tangent,) = primals, tangents
    d = matrix.shape[1]
    _, s, vt = jnp.linalg.svd(matrix, full_matrices=True)
    squared = jnp.zeros(d, s.dtype).at[: s.shape[0]].set(s**2)
    out = _subspace(s, vt, rank)
    rest = vt[rank:].T
    gram = matrix.T @ tangent
    gram = gram + gram.T
    turn = (rest.T @ gram @ out.basis) / (squared[None, :rank] - squared[rank:, None])
    return out, Subspace(rest @ turn, jnp.zeros_like(out.gap))


class Spectrum(NamedTuple):
    """Eigenvalues of a real matrix with its left eigenvectors as rows.

    ``vectors @ matrix == diag(values) @ vectors``; complex where the matrix has complex pairs.
    """

    values: Complex[Array, " k"]
    vectors: Complex[Array, "k k"]


@jax.custom_jvp
def left_eigen(matrix: Float[Array, "k k"]) -> Spectrum:
    """Return eigenvalues and left eigenvectors (rows) of a real matrix.

    Derivatives keep each vector's own scale fixed, so they are those of functions that do not
    depend on it; they exist where the eigenvalues are distinct.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> values, _ = left_eigen(jnp.array([[1.0, 0.0], [3.0, 2.0]]))
    >>> sorted(round(float(v.real), 6) for v in values)
    [1.0, 2.0]
    """
    values, vectors = jax.lax.linalg.eig(
        matrix.T, compute_left_eigenvectors=False, compute_right_eigenvectors=True
    )
    return Spectrum(values, vectors.T)


@left_eigen.defjvp
def _left_eigen_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Spectrum, Spectrum]:
    values, vectors = left_eigen(*primals)
    k = values.shape[0]
    e = vectors @ tangents[0].astype(values.dtype) @ jnp.linalg.inv(vectors)
    gaps = values[:, None] - values[None, :] + jnp.eye(k, dtype=values.dtype)
    turn = jnp.where(jnp.eye(k, dtype=bool), 0.0, e / gaps)
    return Spectrum(values, vectors), Spectrum(jnp.diagonal(e), turn @ vectors)
