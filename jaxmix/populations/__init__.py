"""Populations with known truth: exact joint laws, moments, effect laws and samplers."""

from jaxmix.populations.discrete import DiscretePopulation
from jaxmix.populations.paper import paper_appendix, paper_main

__all__ = ["DiscretePopulation", "paper_appendix", "paper_main"]
