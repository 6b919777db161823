"""Import paths of the release before: each gives the module that took its place, with a warning.

The table goes with the next release. An old path stands in `sys.modules` as a module that hands
every name on, so that ``from jaxmix.mixture import EffectLaw`` and pickled results still work.
"""

from __future__ import annotations

import importlib
import sys
import types
import warnings

MOVED = {
    "arms": "data.arms",
    "categories": "data.categories",
    "checks": "fitting.checks",
    "clusters": "data.clusters",
    "coding": "data.coding",
    "columns": "data.columns",
    "consistency": "fitting.consistency",
    "diagnose": "fitting.diagnose",
    "estimates": "results.estimates",
    "estimators.rows": "model.rows",
    "estimators.settling": "model.settling",
    "estimators.table": "model.table",
    "features": "sample.features",
    "fit": "fitting.run",
    "inference.drawing": "sample.draws",
    "latent_classes": "fitting.latent_classes",
    "mixture": "model.law",
    "moments": "sample.moments",
    "options": "fitting.options",
    "plan": "fitting.plan",
    "reading": "data.reading",
    "redundancy": "data.redundancy",
    "result": "results.result",
    "study.choices": "study.configuration.choices",
    "study.config": "study.configuration.config",
    "study.methods": "study.configuration.methods",
    "study.population": "study.configuration.population",
    "study.source": "study.configuration.source",
    "summary": "results.summary",
    "uncertainty": "fitting.uncertainty",
    "units": "fitting.units",
}
"""New places by old ones, both below `jaxmix`."""


class Moved(types.ModuleType):
    """A module at its old path, which takes every name from the new one."""

    def __init__(self, old: str, new: str):
        super().__init__(old, f"The module `{new}` at its path of the release before.")
        self.new = new

    def __getattr__(self, name: str) -> object:
        """Return the attribute of the module that took this one's place."""
        if name.startswith("__"):  # what tools ask every module for
            raise AttributeError(name)
        message = f"{self.__name__} is now {self.new}; the old path goes with the next release"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return getattr(importlib.import_module(self.new), name)


def keep_old_paths() -> None:
    """Enter the old paths into `sys.modules`, and into packages that have nothing by that name."""
    for old, new in MOVED.items():
        module = Moved(f"jaxmix.{old}", f"jaxmix.{new}")
        sys.modules[module.__name__] = module
        package, _, name = module.__name__.rpartition(".")
        if not hasattr(sys.modules[package], name):  # `jaxmix.fit` stays the function
            setattr(sys.modules[package], name, module)
