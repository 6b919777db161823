"""Level 4: potential means through the outcome bridge.

In each arm a linear function of the outcome-side proxies stands in for the outcome:
``E[phi_z (Y - alpha_t . phi_x) | T=t] = 0``, so that ``E[Y(t)] = E[phi_x] . alpha_t``
(Miao, Geng, Tchetgen Tchetgen 2018; the first step of Mazaheri, Squires, Uhler 2025).
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxmix.sample.moments import Moments
from jaxmix.solvers.compiling import compiled
from jaxmix.solvers.linalg import Inverse, Sizes, bordered_pinv, schur_complement
from jaxmix.status import Solution, Status, settle, where, worst


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PotentialMeans:
    """Mean outcomes under each arm, and their contrast.

    Attributes
    ----------
    means
        ``(a,)``: ``E[Y(t)]``, or ``E[Y(t) | T=arm]`` for the treated, in outcome units.
    effect
        The average effect of the arm against the control (ATE or ATT), or the coefficient of
        the treatment in the pooled form.
    """

    means: Float[Array, " a"]
    effect: Float[Array, ""]


def kept_rank(moments: Moments, num_classes: int | None) -> int | None:
    """Return the rank kept of the part of E[z x] that is truncated.

    `num_classes` is the rank of the whole; with shared features the constant takes one of it.
    """
    if num_classes is None or moments.num_shared == 0:
        return num_classes
    return num_classes - 1


def arm_inverses(moments: Moments, num_classes: int | None) -> Inverse:
    """Return the generalised inverse of ``E[1{T=t} phi_z phi_x']`` in every arm.

    With one class the constant is all that the proxies can tell of it, so that the inverse is
    that of the constant, and no singular vector, which is near it in a sample.
    """
    if num_classes == 1 and moments.num_shared == 0:
        constant = (
            jnp.outer(moments.one_x, moments.one_z) / moments.arm_probabilities[:, None, None]
        )
        return Inverse(constant, jnp.zeros(len(constant), bool))
    rank = kept_rank(moments, num_classes)

    def invert(zx: Array, gram: Array, square_x: Array) -> Inverse:
        sizes = Sizes(jnp.sqrt(jnp.diagonal(gram)), jnp.sqrt(square_x), moments.num_rows)
        return bordered_pinv(zx, rank, num_shared=moments.num_shared, gram=gram, sizes=sizes)

    return jax.vmap(invert)(moments.zx, moments.gram_z, moments.square_x)


def short_of_rank(
    moments: Moments, num_classes: int | None, *, form: str = "by_arm"
) -> Bool[Array, " a"]:
    """Return in which arms E[z x] has a smaller numerical rank than is used of it.

    What is left of a proxy that the constant and the covariates give exactly is rounding, and
    counts as nothing. Pooled, there is one answer for all arms.

    Parameters
    ----------
    moments
        The moments of the data.
    num_classes
        The rank that is used; None uses all of it.
    form
        As in `proxy_singular_values`.

    Examples
    --------
    >>> import jaxmix as jm
    >>> moments = jm.populations.paper_main().moments()
    >>> short_of_rank(moments, 2).tolist()
    [False, False]
    """
    if form == "pooled":
        matrix, inverse, _ = pooled_inverse(moments, num_classes)
        return (inverse.deficient | ~_is_full(inverse.matrix @ matrix, matrix, num_classes))[None]
    inverses = arm_inverses(moments, num_classes)
    seen = jnp.einsum("txz,tzw->txw", inverses.matrix, moments.zx, precision="highest")
    full = jax.vmap(lambda s, m: _is_full(s, m, num_classes))(seen, moments.zx)
    return inverses.deficient | ~full


def target_x(moments: Moments, estimand: str, arm: int) -> Float[Array, " d_x"]:
    """Return the mean of phi_x among everybody (ATE) or among those in the arm (ATT)."""
    if estimand == "ATE":
        return moments.x_by_arm.sum(0)
    return moments.x_by_arm[arm] / moments.arm_probabilities[arm]


@compiled("rank", "form", "estimand", "arm")
def solve(
    moments: Moments,
    *,
    rank: int | None = None,
    form: str = "by_arm",
    estimand: str = "ATE",
    arm: int = 1,
) -> Solution[PotentialMeans]:
    """Estimate the average effect under hidden confounding (level 4).

    By arm, ``alpha_t`` solves ``M_zx,t alpha_t = M_zy,t`` and

        ATE = E[phi_x] . (alpha_arm - alpha_0)
        ATT = E[Y | T=arm] - E[phi_x | T=arm] . alpha_0

    With more z than x features the equations are weighted as in two-stage least squares.
    Pooled, ``E[Y | Z, T] = b_T + alpha . E[phi_x | Z, T]``: treatment enters once, linearly, as
    in proximal two-stage least squares; ``b`` is the effect only if it does not vary with the
    class, and otherwise a weighted average that is neither ATE nor ATT.

    Assumes latent ignorability and overlap; X independent of (Z, T) given U; Z independent of Y
    given (T, U); and that z and x carry enough of U (rank k in each arm).

    Parameters
    ----------
    moments
        The moments; covariates are the leading features that z and x share.
    rank
        Number of classes k to truncate at: the proxies' part of ``M_zx,t``, shared features
        partialled out, is replaced by its best approximation of rank k (k - 1 beside the
        constant). None truncates nothing beyond the numerical rank.
    form
        ``"by_arm"`` or ``"pooled"``.
    estimand
        ``"ATE"`` or ``"ATT"`` (by arm only).
    arm
        The arm compared with the control.

    Returns
    -------
    Solution
        ``value`` is a `PotentialMeans`.

    References
    ----------
    Miao, Geng, Tchetgen Tchetgen (2018), Biometrika 105; Cui, Pu, Shi, Miao, Tchetgen Tchetgen
    (2024), JASA 119; Tchetgen Tchetgen et al. (2024), Statistical Science 39 (pooled).

    Examples
    --------
    >>> import jax, jaxmix as jm
    >>> population = jm.populations.paper_main(zt_strength=0.5)
    >>> solution = solve(population.moments(), rank=2)
    >>> bool(abs(solution.value.effect - population.ate) < 1e-5)
    True
    """
    if form == "pooled":
        if estimand != "ATE":
            raise ValueError("the pooled form has no ATT: use form='by_arm'")
        means, effect, broken = _pooled(moments, rank, arm)
    elif form == "by_arm":
        # The outcome is centred, so that what truncation removes does not depend on its origin.
        centre = moments.y_by_arm.sum()
        zy = moments.zy - centre * (moments.zx @ moments.one_x)
        inverse = arm_inverses(moments, rank)
        alpha = jnp.einsum("txz,tz->tx", inverse.matrix, zy, precision="highest")
        target = target_x(moments, estimand, arm)
        means = centre + alpha @ target
        broken = inverse.deficient
        if rank is None:
            broken = broken | ~jax.vmap(_reaches, (0, 0, None))(inverse.matrix, moments.zx, target)
        if estimand == "ATT":
            # What the treated would have had needs the other arms' bridges alone.
            means = means.at[arm].set(moments.y_by_arm[arm] / moments.arm_probabilities[arm])
            broken = broken.at[arm].set(False)
        effect = means[arm] - means[0]
    else:
        raise ValueError(f"form is {form!r}: use 'by_arm' or 'pooled'")
    span = moments.range_y[1] - moments.range_y[0]
    value = PotentialMeans(means, effect)
    status = worst(
        where(jnp.any(broken), Status.RANK_DEFICIENT),
        where(jnp.abs(effect) > span, Status.OUT_OF_RANGE),
    )
    return Solution(value, settle(status, value), {})


@compiled("rank", "estimand", "arm")
def potential_means(
    moments: Moments, rank: int | None = None, *, estimand: str = "ATE", arm: int = 1
) -> Float[Array, " a"]:
    """Return ``E[Y(t)]`` for every arm by the bridge; see `solve`.

    Examples
    --------
    >>> import jax, jaxmix as jm
    >>> means = potential_means(jm.populations.paper_appendix().moments(), rank=2)
    >>> [round(float(m), 4) for m in means]
    [0.375, 0.625]
    """
    return solve(moments, rank=rank, estimand=estimand, arm=arm).value.means


def proxy_singular_values(moments: Moments, *, form: str = "by_arm") -> Float[Array, "a r"]:
    """Return how strongly the two proxies are related: the singular values of E[z x | T=t].

    Covariates, where there are any, are partialled out with the constant; pooled, the treatment
    too, and there is one row for all arms. What an estimator keeps of them must stand clear of
    sampling noise.

    Examples
    --------
    >>> import jaxmix as jm
    >>> values = proxy_singular_values(jm.populations.paper_main().moments())
    >>> values.shape
    (2, 2)
    """
    return jnp.linalg.svd(_proxy_blocks(moments, form), compute_uv=False)


def weakest_direction(
    moments: Moments, index: int, *, form: str = "by_arm"
) -> tuple[Float[Array, "a p"], Float[Array, "a q"]]:
    """Return where sampling noise meets a singular value of E[z x | T=t].

    In the basis of the singular vectors, held fixed: the entries of its column and of its row,
    from the value itself on. Their variances add up to what pure noise would put there, so that
    the squared singular value over the larger sum is an effective F statistic, as for
    instruments (Montiel Olea, Pflueger 2013).

    Parameters
    ----------
    moments
        The moments of the data.
    index
        Which singular value, counted from 0.
    form
        As in `proxy_singular_values`.
    """
    blocks = _proxy_blocks(moments, form)
    u, _, vt = jnp.linalg.svd(jax.lax.stop_gradient(blocks), full_matrices=True)
    column = jnp.einsum("azu,azx,ax->au", u[:, :, index:], blocks, vt[:, index])
    row = jnp.einsum("az,azx,avx->av", u[:, :, index], blocks, vt[:, index:])
    return column, row


def _proxy_blocks(moments: Moments, form: str) -> Float[Array, "a p q"]:
    """Return E[z x | T=t], covariates partialled out; pooled, one block for all arms."""
    if form == "pooled":
        matrix, _, _, num_shared = _pooled_system(moments)
        return schur_complement(matrix, num_shared)[None]
    blocks = moments.zx / moments.arm_probabilities[:, None, None]
    if moments.num_shared <= 1:
        return blocks
    return jax.vmap(lambda block: schur_complement(block, moments.num_shared))(blocks)


def _pooled_system(moments: Moments) -> tuple[Array, Array, Array, int]:
    """Return matrix, weight and right side with the arms' indicators among the shared features."""
    p = moments.arm_probabilities[1:]
    zx, x_by_arm = moments.zx, moments.x_by_arm[1:]
    z_by_arm = jnp.einsum("tzx,x->tz", zx, moments.one_x, precision="highest")[1:]
    indicators = jnp.diag(p)
    matrix = jnp.block([[indicators, x_by_arm], [z_by_arm.T, zx.sum(0)]])
    gram = jnp.block([[indicators, z_by_arm], [z_by_arm.T, moments.gram_z.sum(0)]])
    right = jnp.concatenate([moments.y_by_arm[1:], moments.zy.sum(0)])
    return matrix, gram, right, moments.num_shared + len(p)


def pooled_inverse(moments: Moments, rank: int | None) -> tuple[Array, Inverse, Array]:
    """Return the matrix of the pooled system, its inverse, and the right side.

    The arms' indicators (but for the control's) come first among the features of both sides.

    Parameters
    ----------
    moments
        The moments of the data.
    rank
        Number of classes to truncate at, or None.
    """
    matrix, gram, right, num_shared = _pooled_system(moments)
    shares = moments.arm_probabilities[1:]
    squares = jnp.concatenate([shares, moments.square_x.sum(0)])
    sizes = Sizes(jnp.sqrt(jnp.diagonal(gram)), jnp.sqrt(squares), moments.num_rows)
    inverse = bordered_pinv(
        matrix, kept_rank(moments, rank), num_shared=num_shared, gram=gram, sizes=sizes
    )
    return matrix, inverse, right


def _pooled(
    moments: Moments, rank: int | None, arm: int
) -> tuple[Float[Array, " a"], Float[Array, ""], Bool[Array, ""]]:
    """Solve with one alpha for all arms; treatment enters linearly."""
    if rank == 1 and moments.num_shared == 0:  # the constant alone, as in `arm_inverses`
        means = moments.y_by_arm / moments.arm_probabilities
        return means, means[arm] - means[0], jnp.zeros((), bool)
    matrix, inverse, right = pooled_inverse(moments, rank)
    num_others = moments.tensor.shape[0] - 1
    centre = moments.y_by_arm.sum()
    constant = jnp.concatenate([jnp.zeros(num_others, matrix.dtype), moments.one_x])
    right = right - centre * (matrix @ constant)
    solution = inverse.matrix @ right
    shift = jnp.concatenate([jnp.zeros(1, solution.dtype), solution[:num_others]])
    target = target_x(moments, "ATE", arm)
    level = centre + solution[num_others:] @ target
    broken = inverse.deficient
    if rank is None:
        whole = jnp.concatenate([jnp.zeros(num_others, matrix.dtype).at[arm - 1].set(1.0), target])
        broken = broken | ~_reaches(inverse.matrix, matrix, whole)
    return level + shift, shift[arm], broken


def _reaches(
    inverse: Float[Array, "d_x d_z"], zx: Float[Array, "d_z d_x"], target: Float[Array, " d_x"]
) -> Bool[Array, ""]:
    """Whether the equations of an arm determine the value at a target.

    Short of its full rank, a bridge is known only up to what E[z x] does not see; where the mean
    of phi_x has a part there (a category of x that never occurs in the arm), no number follows.
    With more x than z and all of the rows' rank, the smallest bridge is taken; but of a feature
    that the arm does not see at all, such as an x that is constant there, it knows nothing.
    """
    seen = inverse @ zx  # a projection, whose trace is the rank
    eps = jnp.finfo(target.dtype).eps
    missed, slack = target - target @ seen, jnp.sqrt(eps) * jnp.linalg.norm(target)
    # The diagonal of a projection holds squares: of the sine between a feature and what is seen.
    unseen = (jnp.diagonal(seen) < eps) & (jnp.abs(missed) > slack)
    reached = jnp.linalg.norm(missed) <= slack
    found: Bool[Array, ""] = reached | (_is_full(seen, zx, None) & ~jnp.any(unseen))
    return found


def _is_full(
    seen: Float[Array, "d_x d_x"], zx: Float[Array, "d_z d_x"], rank: int | None
) -> Bool[Array, ""]:
    """Whether all of a matrix's rank was there; at a rank by hand its inverse knows."""
    if rank is not None:
        return jnp.ones((), bool)
    return jnp.trace(seen) > min(zx.shape) - 0.5
