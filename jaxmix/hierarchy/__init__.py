"""The hierarchy: four levels of what can be identified, and which of them a causal graph supports.

`identify` reads a graph; `LEVELS` holds the levels and what they assume, as data.
"""

from jaxmix.hierarchy.judge import identify
from jaxmix.hierarchy.levels import LEVELS, Assumption, Level
from jaxmix.hierarchy.paths import Path
from jaxmix.hierarchy.verdict import Candidate, Change, Verdict, Violation

__all__ = [
    "LEVELS",
    "Assumption",
    "Candidate",
    "Change",
    "Level",
    "Path",
    "Verdict",
    "Violation",
    "identify",
]
