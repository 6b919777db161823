"""Simulation studies: estimators over grids of populations with known truth.

>>> from jaxmix import study  # doctest: +SKIP
>>> config = study.load("configs/level2_vs_level3.toml")  # doctest: +SKIP
>>> study.run(config, "out/level2_vs_level3")  # doctest: +SKIP
"""

from jaxmix import moved
from jaxmix.study.configuration.config import Cell, Config, load
from jaxmix.study.run import Progress, run
from jaxmix.study.store import Store
from jaxmix.study.summary import write as summarise

__all__ = ["Cell", "Config", "Progress", "Store", "load", "run", "summarise"]

moved.keep_old_paths(__name__)
