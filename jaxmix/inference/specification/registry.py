"""The tests by name: as arrays for thousands of data sets, and those that stand in every result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxtyping import Array

from jaxmix.inference.specification.answer import SpecificationTest, Statistic
from jaxmix.inference.specification.arms import arms_statistic, arms_test
from jaxmix.inference.specification.bridge import bridge_statistic
from jaxmix.inference.specification.level import fit_statistic
from jaxmix.inference.specification.nested import nested_statistic, nested_test
from jaxmix.inference.specification.ranges import range_statistic, range_test
from jaxmix.model.table import Cells
from jaxmix.sample.moments import Moments
from jaxmix.sample.sample import Sample


class Further(NamedTuple):
    """A test that results come with beside that of their level.

    Attributes
    ----------
    title
        What a summary calls it.
    level
        Level of the results that it belongs to.
    ask
        From a sample, number of classes, seed, and the stats of a fit that converged (or None), to
        the test.
    """

    title: str
    level: int
    ask: Callable[[Sample, int, int, Mapping[str, object] | None], SpecificationTest]


FURTHER = {
    "z_to_t": Further(
        "Level 2 inside level 3 (Z does not affect T within a class)",
        2,
        lambda sample, k, seed, fitted: nested_test(sample, k, seed=seed),
    ),
    "arms": Further(
        "Equal classes across arms",
        3,
        lambda sample, k, seed, fitted: arms_test(sample, k, seed=seed, fitted=fitted),
    ),
    "range": Further(
        "Closed-form estimate within range",
        3,
        lambda sample, k, seed, fitted: range_test(sample, k),
    ),
}
"""By the name under which a result has them, in the order in which it shows them."""

TESTS = ("level", "nested", "arms", "range")
"""What `statistics` can be asked for."""


def statistics(
    moments_or_cells: Moments | Cells,
    k: int,
    *,
    key: Array,
    test: str = "level",
    level: int = 3,
    **options: str | int | None,
) -> Statistic:
    """Return a test as arrays; pure, so that ``vmap`` tests thousands of data sets at once.

    Parameters
    ----------
    moments_or_cells
        Counts of ``(T, Z, X, Y)``, or moments with their covariance.
    k
        Number of classes.
    key
        JAX key of the starts.
    test
        ``"level"`` (at level 4 J of the bridge, untruncated), ``"nested"`` (level 2 inside 3),
        ``"arms"`` or ``"range"``.
    level
        Level of the test ``"level"``.
    options
        ``loss`` and ``num_starts`` of the first three below level 4, ``method`` of the last.

    Examples
    --------
    >>> import jax, jaxmix as jm
    >>> draw = lambda key: jm.populations.block(d_z=4).counts(key, 10_000)
    >>> keys = jax.random.split(jax.random.key(0), 500)
    >>> test = jax.vmap(lambda key: statistics(draw(key), 2, key=key, level=4))
    >>> bool(abs((test(keys).p_value < 0.05).mean() - 0.05) < 0.03)
    True
    """
    own: dict[str, Any] = dict(options)  # each test refuses those of others
    if test == "range":
        return range_statistic(moments_or_cells, k, **own)
    if test == "nested":
        return nested_statistic(moments_or_cells, k, key=key, **own)
    if test == "arms":
        return arms_statistic(moments_or_cells, k, key=key, **own)
    if test != "level":
        raise ValueError(f"test is {test!r}: use one of {', '.join(TESTS)}")
    if level == 4:
        return bridge_statistic(moments_or_cells, **own)
    return fit_statistic(moments_or_cells, k, key=key, level=level, **own)
