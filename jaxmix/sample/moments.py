"""The moment tensor: everything the estimators know of the data.

``M[t, i, j, l] = E[1{T=t} phi_z[i] phi_x[j] phi_y[l]]``. Each feature map can express the
constant 1, so that lower moments are contractions of this tensor; the container carries the
vectors that contract it.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmix.sample import sums
from jaxmix.sample.views import Views, max_rank
from jaxmix.solvers.compiling import compiled


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Moments:
    """The moment tensor of each arm, and how to contract it.

    Attributes
    ----------
    tensor
        ``(a, d_z, d_x, d_y)``: ``E[1{T=t} phi_z x phi_x x phi_y]``.
    gram_z
        ``(a, d_z, d_z)``: ``E[1{T=t} phi_z phi_z']``, the weight of two-stage least squares.
    square_x
        ``(a, d_x)``: ``E[1{T=t} phi_x^2]``, the size of which rounding is measured.
    one_z, one_x, one_y
        Vectors that give the constant 1 from each view.
    value_y
        ``(d_y,)`` gives the outcome in its own units.
    range_y
        ``(2,)`` smallest and largest outcome (infinite where unbounded).
    num_rows
        Rows in the sample; infinite for a population.
    covariance
        ``(m, m)`` covariance of ``sqrt(num_rows) * vec(tensor)``, or None where not asked for.
    num_shared
        Leading features that z and x have in common, 0 where both are one-hot (static).
    onehot_y
        Whether the outcome's features are indicators of its values (static).
    """

    tensor: Float[Array, "a d_z d_x d_y"]
    gram_z: Float[Array, "a d_z d_z"]
    square_x: Float[Array, "a d_x"]
    one_z: Float[Array, " d_z"]
    one_x: Float[Array, " d_x"]
    one_y: Float[Array, " d_y"]
    value_y: Float[Array, " d_y"]
    range_y: Float[Array, " 2"]
    num_rows: Float[Array, ""]
    covariance: Float[Array, "m m"] | None = None
    num_shared: int = dataclasses.field(default=0, metadata={"static": True})
    onehot_y: bool = dataclasses.field(default=False, metadata={"static": True})

    @property
    def is_table(self) -> bool:
        """Whether every view is one-hot: the tensor then holds the probabilities of cells."""
        return self.num_shared == 0 and self.onehot_y

    @property
    def zx(self) -> Float[Array, "a d_z d_x"]:
        """``E[1{T=t} phi_z phi_x']``."""
        return _contract("tzxy,y->tzx", self.tensor, self.one_y)

    @property
    def zxy(self) -> Float[Array, "a d_z d_x"]:
        """``E[1{T=t} Y phi_z phi_x']``."""
        return _contract("tzxy,y->tzx", self.tensor, self.value_y)

    @property
    def zy(self) -> Float[Array, "a d_z"]:
        """``E[1{T=t} Y phi_z]``."""
        return _contract("tzx,x->tz", self.zxy, self.one_x)

    @property
    def x_by_arm(self) -> Float[Array, "a d_x"]:
        """``E[1{T=t} phi_x]``."""
        return _contract("z,tzx->tx", self.one_z, self.zx)

    @property
    def y_by_arm(self) -> Float[Array, " a"]:
        """``E[1{T=t} Y]``."""
        return _contract("z,tz->t", self.one_z, self.zy)

    @property
    def arm_probabilities(self) -> Float[Array, " a"]:
        """``P(T=t)``."""
        return _contract("tx,x->t", self.x_by_arm, self.one_x)

    @property
    def max_rank(self) -> int:
        """The largest number of classes that the views can tell apart."""
        return max_rank(self.tensor.shape[-3], self.tensor.shape[-2], self.num_shared)


@compiled("covariance")
def from_rows(views: Views, *, covariance: bool = False) -> Moments:
    """Estimate the moments from rows, in chunks of bounded memory.

    ``M[t] = sum_i w_i 1{T_i=t} phi_z,i x phi_x,i x phi_y,i / sum_i w_i`` with ``w`` the product
    of weight and multiplicity. Differentiable in every array.

    Parameters
    ----------
    views
        Features of the rows (`jaxmix.features.encode`).
    covariance
        Whether to estimate the sampling covariance of the tensor too; rows count as
        independent there.

    Returns
    -------
    Moments

    Examples
    --------
    >>> import jaxmix as jm
    >>> table = {"t": [0, 1] * 8, "y": [1, 2, 4, 4] * 4}
    >>> table |= {"z": [0, 0, 1, 1] * 4, "x": [1, 0, 0, 1] * 4}
    >>> data = jm.CausalData.from_frame(table, treatment="t", outcome="y", z=["z"], x=["x"])
    >>> moments = from_rows(jm.features.encode(data))
    >>> [round(float(p), 3) for p in moments.arm_probabilities]
    [0.5, 0.5]
    """
    a, d_z, d_x, d_y = views.sizes
    total, num_rows = sums.mass(views), sums.num_rows(views)

    def of_rows(rows: Views) -> list[Array]:
        z, x, y, t = rows.z, rows.x, rows.y, rows.t
        own, size = rows.design.mass, rows.num_rows
        by_arm = own[:, None] * (t[:, None] == jnp.arange(a))
        by_arm_y = (by_arm[:, :, None] * y[:, None, :]).reshape(size, a * d_y)
        zx = (z[:, :, None] * x[:, None, :]).reshape(size, d_z * d_x)
        zz = (z[:, :, None] * z[:, None, :]).reshape(size, d_z * d_z)
        found = [
            jnp.matmul(by_arm_y.T, zx, precision="highest"),
            jnp.matmul(by_arm.T, zz, precision="highest"),
            jnp.matmul(by_arm.T, x**2, precision="highest"),
        ]
        if covariance:
            arm = (t[:, None] == jnp.arange(a)).astype(jnp.result_type(z, x, y, own))
            products = jnp.einsum("na,nm,ny->namy", arm, zx, y).reshape(size, -1)
            squared = own * rows.weight
            found += [
                jnp.matmul((products * squared[:, None]).T, products, precision="highest"),
                squared @ products,
                squared.sum(),
            ]
        return found

    numbers = d_z * (d_x + d_z) + a * d_y
    if covariance:
        numbers += 2 * a * d_z * d_x * d_y
    found = sums.total(of_rows, views, numbers)
    tensor = (found[0] / total).reshape(a, d_y, d_z, d_x).transpose(0, 2, 3, 1)
    spread = None
    if covariance:
        flat = tensor.reshape(-1)
        second, first, zeroth = found[3:]
        centred = second - jnp.outer(first, flat) - jnp.outer(flat, first)
        centred += zeroth * jnp.outer(flat, flat)
        spread = centred * num_rows / total**2
    return Moments(
        tensor=tensor,
        gram_z=(found[1] / total).reshape(a, d_z, d_z),
        square_x=found[2] / total,
        one_z=views.one_z,
        one_x=views.one_x,
        one_y=views.one_y,
        value_y=views.value_y,
        range_y=views.range_y,
        num_rows=num_rows,
        covariance=spread,
        num_shared=views.num_shared,
        onehot_y=views.onehot_y,
    )


def from_counts(
    cells: Float[Array, "a d_z d_x d_y"],
    outcome_values: Float[Array, " d_y"] | None = None,
    num_rows: Float[Array, ""] | float | None = None,
    *,
    covariance: bool = False,
) -> Moments:
    """Return the moments of a table of counts (or probabilities), all views one-hot.

    Parameters
    ----------
    cells
        Counts or probabilities of ``(T, Z, X, Y)``.
    outcome_values
        The outcome's value in each cell of the last axis; 0, 1, ... by default.
    num_rows
        Rows behind the table; the sum of `cells` by default. Pass it with probabilities.
    covariance
        Whether to carry the (multinomial) sampling covariance ``diag(p) - p p'``.

    Returns
    -------
    Moments

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> moments = from_counts(jnp.ones((2, 2, 2, 2)))
    >>> float(moments.num_rows), float(moments.y_by_arm[0])
    (16.0, 0.25)
    """
    cells = as_inexact(cells)
    d_z, d_x, d_y = cells.shape[-3:]
    total = cells.sum()
    tensor = cells / total
    dtype = cells.dtype
    values = jnp.arange(d_y) if outcome_values is None else jnp.asarray(outcome_values)
    values = values.astype(dtype)
    flat = tensor.reshape(-1)
    return Moments(
        tensor=tensor,
        gram_z=jax.vmap(jnp.diag)(tensor.sum((-1, -2))),
        square_x=tensor.sum((-3, -1)),
        one_z=jnp.ones(d_z, dtype),
        one_x=jnp.ones(d_x, dtype),
        one_y=jnp.ones(d_y, dtype),
        value_y=values,
        range_y=jnp.stack([values.min(), values.max()]),
        num_rows=total if num_rows is None else jnp.asarray(num_rows, dtype),
        covariance=jnp.diag(flat) - jnp.outer(flat, flat) if covariance else None,
        onehot_y=True,
    )


def as_moments(moments_or_cells: Moments | Array, *, covariance: bool = True) -> Moments:
    """Return moments as they are, and counts as moments; under ``vmap`` as well.

    Parameters
    ----------
    moments_or_cells
        Moments, or counts of ``(T, Z, X, Y)``.
    covariance
        Whether the moments of counts carry their covariance.
    """
    if isinstance(moments_or_cells, Moments):
        return moments_or_cells
    return from_counts(moments_or_cells, covariance=covariance)


def as_inexact(cells: Array) -> Array:
    """Return counts as floating-point numbers: in their own precision, or the default one."""
    cells = jnp.asarray(cells)
    return cells if jnp.issubdtype(cells.dtype, jnp.inexact) else cells.astype(float)


def of_population(
    joint: Float[Array, "a d_z d_x d_y"], outcome_values: Float[Array, " d_y"] | None = None
) -> Moments:
    """Return the exact moments of a discrete population from its joint law ``P(T, Z, X, Y)``.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> float(of_population(jnp.full((2, 2, 2, 2), 1 / 16)).num_rows)
    inf
    """
    return from_counts(joint, outcome_values, jnp.inf)


def _contract(formula: str, *operands: Array) -> Array:
    return jnp.einsum(formula, *operands, precision="highest")
