"""The number of classes: what speaks for each, and one recommendation."""

from jaxmix.inference.selection.number import num_classes
from jaxmix.inference.selection.recommendation import Candidate, Selection

__all__ = ["Candidate", "Selection", "num_classes"]
