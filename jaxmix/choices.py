"""Names that people choose among, for whoever needs the names alone: no array is loaded for them.

What each stands for is in the room that has it, which takes its names from here.
"""

from __future__ import annotations

METHODS = ("bridge", "synthetic", "spectral", "factorization")
"""Estimators that `jaxmix.fit` offers; `jaxmix.estimators.registry` has these and others."""

INTERVALS = ("percentile", "basic", "normal", "studentized", "bca")
"""Intervals from resamples: quantiles, reflected quantiles, ``-+ z se``, bootstrap-t, and
bias-corrected; see `jaxmix.inference.intervals`."""

RESAMPLINGS = ("multinomial", "poisson", "bayesian")
"""How resamples are drawn; see `jaxmix.sample.resamples.draws`."""

EDGES = ("x_to_y", "z_to_y")
"""What sensitivity bounds allow; see `jaxmix.inference.sensitivity`."""

WEIGHT_KINDS = ("sampling", "frequency")
"""What the weights of rows are; see `jaxmix.data.roles`."""

FIGURES = ("png", "pdf", "svg")
"""Formats of figures."""
