"""The answer of a test: a statistic and its p-value as arrays, and the object in words."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxmix.solvers.compiling import compiled


class Statistic(NamedTuple):
    """A test of one or many data sets as arrays.

    Attributes
    ----------
    statistic
        NaN where there is no estimate to test.
    df
        Degrees of freedom; 0 where nothing is left to test. For the check of ranges: the number
        of checks.
    p_value
        NaN where the test does not apply.
    """

    statistic: Float[Array, "*batch"]
    df: Int[Array, "*batch"]
    p_value: Float[Array, "*batch"]


@compiled()
def chi_square(
    statistic: Float[Array, ""], df: Int[Array, ""], found: Bool[Array, ""] | bool = True
) -> Statistic:
    """Return a chi-square test; without an estimate, or degrees of freedom, it does not apply."""
    statistic = jnp.where(found, statistic, jnp.nan)
    df = jnp.maximum(df, 0)
    tail = jax.scipy.stats.chi2.sf(statistic, jnp.maximum(df, 1))
    return Statistic(statistic, df, jnp.where(df > 0, tail, jnp.nan))


@dataclasses.dataclass(frozen=True)
class SpecificationTest:
    """A test of a specification, or the reason why there is nothing to test.

    Attributes
    ----------
    applies
        Whether the data can speak at all.
    statistic, df, p_value
        The statistic, its chi-square degrees of freedom and p-value; None where it does not
        apply.
    null
        The null hypothesis in words.
    reason
        Why the test does not apply; empty where it does.
    symbol
        What the statistic is called.
    num_checks
        How many bounds the check of ranges looked at, which has no degrees of freedom; None of
        other tests.
    """

    applies: bool
    null: str
    statistic: float | None = None
    df: int | None = None
    p_value: float | None = None
    reason: str = ""
    symbol: str = "J"
    num_checks: int | None = None

    def rejects(self, size: float = 0.05) -> bool:
        """Whether the null is rejected; a test that does not apply never rejects."""
        return self.p_value is not None and self.p_value < size

    def __str__(self) -> str:
        if not self.applies:
            return f"does not apply: {self.reason}"
        verdict = "rejected at 5 %" if self.rejects() else "not rejected, which is no proof"
        of = f"on {self.df} df" if self.df is not None else f"of {self.num_checks} checks"
        value = f"{self.symbol} = {self.statistic:.2f} {of}"
        return f"{value}, p = {self.p_value:.3g} ({verdict})"


def in_words(
    found: Statistic, null: str, symbol: str, saturated: str, other: str = ""
) -> SpecificationTest:
    """Return the test of one data set as an object, or why there is none.

    Parameters
    ----------
    found
        The test.
    null
        The null hypothesis in words.
    symbol
        What the statistic is called.
    saturated
        What it means that no degree of freedom is left, in words.
    other
        Another reason why the test does not apply; empty where there is none.
    """
    statistic, df, p_value = (np.asarray(part).item() for part in found)
    reason = ""
    if df <= 0:
        reason = saturated
    elif other:
        reason = other
    elif not np.isfinite(statistic):
        reason = "there is no estimate to test"
    if reason:
        return SpecificationTest(False, null, reason=reason, symbol=symbol)
    return SpecificationTest(True, null, statistic, df, p_value, symbol=symbol)
