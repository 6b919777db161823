"""Populations with known truth: exact joint laws, moments, effect laws and samplers."""

from collections.abc import Callable

from jaxmix.populations.blocks import block, level4_testable
from jaxmix.populations.bounds import EfficiencyBound
from jaxmix.populations.continuous import ContinuousPopulation
from jaxmix.populations.discrete import DiscretePopulation
from jaxmix.populations.draws import random_discrete
from jaxmix.populations.paper import paper_appendix, paper_main
from jaxmix.populations.population import Population
from jaxmix.populations.separated import gaussian, uniform

KINDS: dict[str, Callable[..., Population]] = {
    "paper_main": paper_main,
    "paper_appendix": paper_appendix,
    "random_discrete": random_discrete,
    "block": block,
    "level4_testable": level4_testable,
    "gaussian": gaussian,
    "uniform": uniform,
}
"""Every kind of population by its name; `random_discrete` takes a key first."""

__all__ = [
    "KINDS",
    "ContinuousPopulation",
    "DiscretePopulation",
    "EfficiencyBound",
    "block",
    "gaussian",
    "level4_testable",
    "paper_appendix",
    "paper_main",
    "random_discrete",
    "uniform",
]
