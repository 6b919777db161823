"""The test of a level by averages: its effect against that of a weaker level (Hausman)."""

from __future__ import annotations

import jax
import numpy as np

from jaxmix.inference.specification.answer import SpecificationTest

_NULL = "levels 3 and 4 have one average effect, as they do when X does not affect Y"

_ROUNDING = 1e-8
"""Share of the outcome's range below which a standard error is rounding."""


def contrast_test(contrast: float, se: float, span: float) -> SpecificationTest:
    """Test a stronger level by its disagreement with a weaker one (Hausman).

    If level 3 holds, its average effect and that of level 4 estimate one number; their squared
    difference over its variance is chi-square with one degree of freedom.

    Parameters
    ----------
    contrast
        Difference of the two estimates.
    se
        Its standard error.
    span
        Range of the outcome, against which a difference counts as rounding.

    References
    ----------
    Hausman (1978), Econometrica 46.

    Examples
    --------
    >>> print(contrast_test(0.3, 0.1, 1.0))
    chi2 = 9.00 on 1 df, p = 0.0027 (rejected at 5 %)
    >>> print(contrast_test(1e-17, 1e-17, 1.0).reason)
    the average effects of levels 3 and 4 are one and the same function of these moments
    """
    if not (np.isfinite(contrast) and np.isfinite(se)):
        reason = "there is no level-3 estimate to compare"
        return SpecificationTest(False, _NULL, reason=reason)
    if se < _ROUNDING * span:
        reason = (
            "the average effects of levels 3 and 4 are one and the same function of these moments"
        )
        return SpecificationTest(False, _NULL, reason=reason)
    statistic = (contrast / se) ** 2
    p_value = float(jax.scipy.stats.chi2.sf(statistic, 1))
    return SpecificationTest(True, _NULL, statistic, 1, p_value, symbol="chi2")
