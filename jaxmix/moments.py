"""The module `jaxmix.sample.moments` by its public name."""

from jaxmix.sample.moments import Moments, as_inexact, from_counts, from_rows, of_population

__all__ = ["Moments", "as_inexact", "from_counts", "from_rows", "of_population"]
