"""The design of a sample: weights, clusters, strata, and which tests and intervals it admits."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Design:
    """How the rows of a sample came about.

    Attributes
    ----------
    weighted
        Whether rows carry sampling weights that differ.
    num_clusters
        Number of clusters of dependent rows; 0 where rows are independent.
    stratified
        Whether the sizes of strata are fixed.

    Examples
    --------
    >>> Design().is_random, Design(num_clusters=40).is_random
    (True, False)
    >>> Design(weighted=True).against_chi_square()
    'rows carry sampling weights, and this test is for a random sample'
    """

    weighted: bool = False
    num_clusters: int = 0
    stratified: bool = False

    @property
    def is_random(self) -> bool:
        """Whether rows are independent and count alike; strata aside."""
        return not self.weighted and self.num_clusters == 0

    def against_chi_square(self) -> str:
        """Return why G^2, J and their differences have no chi-square law; empty where they do."""
        if self.is_random:
            return ""
        what = "carry sampling weights" if self.weighted else "are clustered"
        return f"rows {what}, and this test is for a random sample"

    def against_robust_j(self) -> str:
        """Return why the J of the bridge, robust to weights, does not apply."""
        return "rows are clustered, and this J is for independent rows" if self.num_clusters else ""

    def against_likelihood(self) -> str:
        """Return why numbers of classes are not compared by likelihood or J."""
        if self.weighted:
            return "rows carry sampling weights, for which there is no likelihood"
        if self.num_clusters:
            return "rows are clustered, and likelihood and J are for independent rows"
        return ""

    def against_bounds(self) -> str:
        """Return why there are no sensitivity bounds; empty where there are."""
        if self.is_random:
            return ""
        return "sensitivity bounds are for a random sample, without clusters or sampling weights"

    def takes_profile(self, *, asked: bool, at_a_bound: bool) -> bool:
        """Whether intervals of a likelihood are those of its profile.

        With weights or clusters there is no likelihood proper: its profile, divided by design
        effects, takes the place of others where these are too short, at a bound, or on request.
        It knows no strata.
        """
        return not self.stratified and (self.is_random or asked or at_a_bound)
