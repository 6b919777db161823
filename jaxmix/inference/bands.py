"""Intervals of the effect law's step functions, from those of its classes.

The distribution function, the share harmed and the quantiles jump where a class effect crosses a
value. Their intervals project what is known of the classes jointly: a class counts as certainly
below a value when its whole interval is, as possibly below when part of it is.
"""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class LawBands:
    """Intervals of the classes, and what follows for the law.

    Attributes
    ----------
    effects
        ``(k, 2)`` intervals of the class effects, classes by increasing effect.
    cumulative
        ``(k - 1, 2)`` intervals of the share of the first 1, 2, ... classes.

    Examples
    --------
    >>> import numpy as np
    >>> bands = LawBands(np.array([[-0.9, -0.3], [0.1, 0.5]]), np.array([[0.2, 0.4]]))
    >>> bands.cdf(0.0), bands.cdf(0.3), bands.quantile(0.3)
    ((0.2, 0.4), (0.2, 1.0), (-0.9, 0.5))
    """

    effects: np.ndarray
    cumulative: np.ndarray

    def cdf(self, value: float, *, strict: bool = False) -> tuple[float, float]:
        """Return an interval of ``P(delta_U <= value)``, or of ``P(delta_U < value)``.

        The lower end is that of the shares of all classes certainly below, the upper end that of
        all possibly below; where those are no first classes, of the nearest such set that keeps
        the interval wide enough. A class whose effect equals the value is misjudged no more
        often than its own interval fails on one side.
        """
        lower, upper = self.effects.T
        possible = lower < value if strict else lower <= value
        certain = upper < value if strict else upper <= value
        most = int(np.flatnonzero(possible).max(initial=-1)) + 1
        fewest = int(np.flatnonzero(~certain).min(initial=len(lower)))
        return float(self._ends(fewest)[0]), float(self._ends(most)[1])

    def quantile(self, level: float) -> tuple[float, float]:
        """Return an interval of the smallest effect whose cumulative share reaches `level`.

        The band of the distribution function, inverted.
        """
        k = len(self.effects)
        # Rounding of a share of 1 is no reason to miss it.
        slack = 4 * k * np.finfo(float).eps
        lower = [v for v in self.effects[:, 0] if self.cdf(v)[1] >= level - slack]
        upper = [v for v in self.effects[:, 1] if self.cdf(v)[0] >= level - slack]
        return float(min(lower)), float(min(upper))

    def harmed(self, better: str) -> tuple[float, float]:
        """Return an interval of the share of people in classes with a harmful average effect."""
        if better == "higher":
            return self.cdf(0.0, strict=True)
        lower, upper = self.cdf(0.0)
        return 1 - upper, 1 - lower

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """The classes, those together that are not resolved.

        Neighbours are not resolved where the intervals of their effects overlap: then the data
        do not say that they respond differently.
        """
        groups: list[tuple[int, ...]] = []
        reach = -np.inf
        for u, (lower, upper) in enumerate(self.effects):
            if groups and lower <= reach:
                groups[-1] += (u,)
            else:
                groups.append((u,))
            reach = max(reach, upper)
        return tuple(groups)

    def _ends(self, num_classes: int) -> np.ndarray:
        """Return the interval of the share of the first classes."""
        if num_classes == 0:
            return np.zeros(2)
        if num_classes == len(self.effects):
            return np.ones(2)
        ends: np.ndarray = self.cumulative[num_classes - 1]
        return ends
