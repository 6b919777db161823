"""Sensitivity of effects to an edge from X, or Z, to the outcome: bounds by its strength."""

from jaxmix.inference.sensitivity.bounding import bounds, does_not_apply
from jaxmix.inference.sensitivity.result import Sensitivity

__all__ = ["Sensitivity", "bounds", "does_not_apply"]
