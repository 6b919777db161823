"""Standard errors by differentiation: the influence of each row on an estimate.

The derivative of an estimate with respect to a row's multiplicity is its empirical influence
function; the sum of squares is the infinitesimal jackknife variance (Jaeckel 1972). For linear
instrumental-variable estimates with as many z as x it is the heteroskedasticity-robust sandwich
without degrees-of-freedom factor (HC0); with more z than x it also holds where the model is
misspecified (Hall, Inoue 2003).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from jaxmix.sample.features import Views
from jaxmix.sample.moments import Moments
from jaxmix.sample.sample import Influential as Influential
from jaxmix.sample.sample import Sample
from jaxmix.solvers.compiling import compiled

_Tree = TypeVar("_Tree")  # what a statistic gives: a pytree of arrays
_Array = TypeVar("_Array", bound=Array | np.ndarray)

T = TypeVar("T")


def influence(statistic: Callable[[Moments], _Tree], views: Views) -> _Tree:
    """Return the influence of each row on a statistic of the moments.

    Parameters
    ----------
    statistic
        From `jaxmix.moments.Moments` to a pytree of arrays, differentiable.
    views
        The rows.

    Returns
    -------
    pytree
        The statistic's, each array with a trailing axis of rows: the derivative with respect to
        the row's multiplicity, so that ``estimate + sum_i influence_i (new_i - old_i)``
        approximates the estimate at new multiplicities.

    Examples
    --------
    >>> import jax.numpy as jnp, jaxmix as jm
    >>> table = {"t": [0, 1] * 8, "y": [1, 2, 4, 4] * 4}
    >>> table |= {"z": [0, 0, 1, 1] * 4, "x": [1, 0, 0, 1] * 4}
    >>> data = jm.CausalData.from_frame(table, treatment="t", outcome="y", z=["z"], x=["x"])
    >>> views = jm.features.encode(data)
    >>> treated = influence(lambda m: m.arm_probabilities[1], views)
    >>> treated.shape, round(float(treated[1]) * 16, 6)
    ((16,), 0.5)
    """
    sample = Sample(views)
    value, found = slopes(statistic, sample.moments)
    rows = sample.influence(found)
    leaves, tree = jax.tree.flatten(value)
    ends = np.cumsum([0, *(np.size(leaf) for leaf in leaves)])
    parts = [rows[slice(*ends[i : i + 2])] for i in range(len(leaves))]
    by_leaf = [part.reshape(*np.shape(leaf), -1) for leaf, part in zip(leaves, parts, strict=True)]
    influences: _Tree = jax.tree.unflatten(tree, by_leaf)
    return influences


def most_influential(
    statistic: Callable[[Moments], Float[Array, ""]], views: Views, num: int
) -> Influential:
    """Return the rows without which an estimate would be the most different.

    ``change_i = -m_i influence_i``: the first-order effect of leaving out all ``m_i`` copies of
    row i. It understates what a row does that the estimate leans on alone, where the estimate
    is far from linear in the row's multiplicity: fit again without it to be sure.

    Parameters
    ----------
    statistic
        From `Moments` to one number, differentiable.
    views
        The rows; identical ones may be merged (``encode(data, reduce=True)``).
    num
        How many rows, at most as many as there are.

    Raises
    ------
    ValueError
        For more rows than there are, or a statistic of several numbers.

    References
    ----------
    Cook (1977), Technometrics 19; Broderick, Giordano, Meager (2020), arXiv 2011.14999.

    Examples
    --------
    >>> import jaxmix as jm
    >>> table = {"t": [0, 1] * 8, "y": [1, 2, 4, 4] * 3 + [1, 2, 4, 40]}
    >>> table |= {"z": [0, 0, 1, 1] * 4, "x": [1, 0, 0, 1] * 4}
    >>> data = jm.CausalData.from_frame(table, treatment="t", outcome="y", z=["z"], x=["x"])
    >>> views = jm.features.encode(data)
    >>> found = most_influential(lambda m: m.y_by_arm[1] / m.arm_probabilities[1], views, 1)
    >>> [int(row) for row in found.rows], round(float(found.change[0]), 2)
    ([15], -4.06)
    """
    sample = Sample(views)
    if not 1 <= num <= sample.num_distinct:
        raise ValueError(
            f"num is {num}: use 1 to {sample.num_distinct}, the number of distinct rows"
        )
    value, found = slopes(statistic, sample.moments)
    if jnp.shape(value) != ():
        raise ValueError("the statistic has several numbers: choose one of them")
    return sample.most_influential(found, num)


def slopes(
    statistic: Callable[[Moments], _Tree], moments: Moments, names: tuple[str, ...] | None = None
) -> tuple[_Tree, Moments]:
    """Return a statistic, and the derivatives of its p numbers with respect to the moments.

    Parameters
    ----------
    statistic
        From `jaxmix.moments.Moments` to a pytree of arrays, differentiable.
    moments
        Where to differentiate.
    names
        Names of the numbers to differentiate, where the statistic is a dict; by default all.

    Returns
    -------
    value, slopes
        The statistic's pytree, and moments with a leading axis of p numbers, in the order of
        ``ravel_pytree``.

    Examples
    --------
    >>> import jax.numpy as jnp, jaxmix as jm
    >>> moments = jm.moments.from_counts(jnp.array([[[[40.0, 10.0]]], [[[20.0, 30.0]]]]))
    >>> value, found = slopes(lambda m: m.arm_probabilities, moments)
    >>> value.tolist(), found.tensor.shape
    ([0.5, 0.5], (2, 2, 1, 1, 2))
    """

    def flattened(moments: Moments) -> tuple[Array, _Tree]:
        value = statistic(moments)
        return ravel_pytree(
            value if names is None else chosen(cast(Mapping[str, Array], value), names)
        )[0], value

    flat, pullback, value = jax.vjp(flattened, moments, has_aux=True)
    return value, jax.lax.map(lambda d: pullback(d)[0], jnp.eye(flat.size, dtype=flat.dtype))


def chosen(value: Mapping[str, T], names: tuple[str, ...]) -> dict[str, T]:
    """Return those numbers of a statistic that have one of several names."""
    return {name: value[name] for name in names if name in value}


def by_name(
    flat: _Array, like: Mapping[str, Array | np.ndarray], axes: int = 0
) -> dict[str, _Array]:
    """Return flat numbers by name, in the order in which dicts are flattened.

    Parameters
    ----------
    flat
        ``(*r, p)`` the numbers.
    like
        Arrays of the shapes wanted.
    axes
        Leading axes of `flat`, which `like` has too.

    Examples
    --------
    >>> import numpy as np
    >>> found = by_name(np.arange(3.0), {"b": np.zeros(2), "a": np.zeros(())})
    >>> float(found["a"]), found["b"].tolist()
    (0.0, [1.0, 2.0])
    """
    names: list[str] = sorted(like)
    shapes: dict[str, tuple[int, ...]] = {name: np.shape(like[name])[axes:] for name in names}
    ends = np.cumsum([0, *(math.prod(shapes[name]) for name in names)])
    found: dict[str, _Array] = {}
    for i, name in enumerate(names):
        own = flat[..., ends[i] : ends[i + 1]]
        found[name] = cast(_Array, own.reshape((*flat.shape[:axes], *shapes[name])))
    return found


def standard_errors(statistic: Callable[[Moments], _Tree], views: Views) -> _Tree:
    """Return infinitesimal-jackknife standard errors, clusters summed where there are any.

    Parameters
    ----------
    statistic
        From `jaxmix.moments.Moments` to a pytree of arrays, differentiable.
    views
        The rows.

    Returns
    -------
    pytree
        The statistic's, each number replaced by its standard error; see
        `jaxmix.sample.sample.Sample.standard_errors`.
    """
    sample = Sample(views)
    value, found = slopes(statistic, sample.moments)
    errors: _Tree = ravel_pytree(value)[1](sample.standard_errors(found))
    return errors


@compiled()
def _slopes(statistic: Callable[[Moments], Any], moments: Moments) -> tuple[_Tree, Moments]:
    return slopes(statistic, moments)


@dataclasses.dataclass(frozen=True, eq=False)
class Linearized:
    """A statistic of a sample to first order in its moments; differentiated once.

    Attributes
    ----------
    statistic
        From `Moments` to a dict of arrays, differentiable; a `jax.tree_util.Partial`.
    sample
        The sample.
    """

    statistic: jax.tree_util.Partial
    sample: Sample

    @functools.cached_property
    def _found(self) -> tuple[dict[str, Array], Moments]:
        return _slopes(self.statistic, self.sample.moments)

    def standard_errors(self) -> dict[str, np.ndarray]:
        """Return the standard error of every number, by name."""
        return self.spread()[0]

    def spread(self, strata: object = None) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Return the standard errors and the accelerations of every number, by name.

        Parameters
        ----------
        strata
            Labels of rows, within which units are drawn; see `jaxmix.sample.sample.Sample`.
        """
        value, found = self._found
        errors, skew = (by_name(np.asarray(a), value) for a in self.sample.spread(found, strata))
        return errors, skew

    def influence(self, name: str) -> Float[Array, " n"]:
        """Return the influence of each row on a statistic that is one number."""
        return self.sample.influence(self._slope(name))[0]

    def most_influential(self, name: str, num: int) -> Influential:
        """Return the rows without which a statistic that is one number would differ most.

        Parameters
        ----------
        name
            Of the number.
        num
            How many rows, at most as many as the sample holds.
        """
        return self.sample.most_influential(self._slope(name), num)

    def _slope(self, name: str) -> Moments:
        """Return the derivative of one number, with a leading axis of 1."""
        value, found = self._found
        places = by_name(np.arange(found.num_rows.size), value)
        own: Moments = jax.tree.map(lambda slope: slope[places[name][None]], found)
        return own


def delta_covariance(
    statistic: Callable[[Moments], Float[Array, " p"]], moments: Moments
) -> Float[Array, "p p"]:
    """Return the delta-method covariance of a vector statistic from the moments' own.

    ``G Sigma G' / n`` with G the derivative of the statistic with respect to the tensor and Sigma
    its sampling covariance; for tables of counts, where it needs no rows.

    Parameters
    ----------
    statistic
        From `Moments` to a vector.
    moments
        With ``covariance`` (``from_rows(..., covariance=True)``, or ``from_counts``). The weight
        of two-stage least squares is held fixed.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, jaxmix as jm
    >>> counts = jnp.array([[[[40.0, 10.0]]], [[[20.0, 30.0]]]])
    >>> moments = jm.moments.from_counts(counts, covariance=True)
    >>> cov = delta_covariance(lambda m: m.arm_probabilities[1:], moments)
    >>> round(float(cov[0, 0]), 6)
    0.0025
    """
    if moments.covariance is None:
        raise ValueError("the moments carry no covariance: pass covariance=True when making them")

    def of_tensor(tensor: Array) -> Array:
        return statistic(dataclasses.replace(moments, tensor=tensor))

    jacobian = jax.jacrev(of_tensor)(moments.tensor)
    jacobian = jacobian.reshape(jacobian.shape[0], -1)
    covariance: Array = jacobian @ moments.covariance @ jacobian.T / moments.num_rows
    return covariance
