"""Import paths of the release before: each gives the module that took its place, with a warning.

The table goes with the next release. An old path stands in `sys.modules` as a module that hands
every name on, so that ``from jaxmix.mixture import EffectLaw`` and pickled results still work.
"""

from __future__ import annotations

import importlib
import sys
import types
import warnings

MOVED: dict[str, str | tuple[str, ...]] = {
    "arms": "data.arms",
    "categories": "data.categories",
    "checks": "fitting.stages",
    "clusters": "data.clusters",
    "coding": "data.coding",
    "columns": "data.columns",
    "consistency": "fitting.consistency",
    "diagnose": "fitting.diagnose",
    "estimates": "results.estimates",
    "estimators.likelihood": "model.search",
    "estimators.parafac": "estimators.baselines.parafac",
    "estimators.rows": "model.rows",
    "estimators.settling": "model.settling",
    "estimators.table": "model.table",
    "features": "sample.features",
    "fit": "fitting.run",
    "inference.choice": "inference.selection.recommendation",
    "inference.criteria": "inference.selection.criteria",
    "inference.drawing": "sample.resamples.draws",
    "inference.extremes": "inference.sensitivity.sweep",
    "inference.level_fits": "inference.specification.fits",
    "inference.level_tests": (
        "inference.specification.level",
        "inference.specification.nested",
        "inference.specification.arms",
    ),
    "inference.overidentification": "inference.specification.bridge",
    "inference.range_checks": "inference.specification.ranges",
    "inference.ranks": "inference.selection.ranks",
    "inference.sensitivity_result": "inference.sensitivity.result",
    "inference.strength": "inference.sensitivity.edge",
    "inference.subject": "inference.specification.data",
    "inference.verdict": "inference.specification.answer",
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
"""New places by old ones, both below `jaxmix`; several where a module was divided."""


class Moved(types.ModuleType):
    """A module at its old path, which takes every name from the new one, or from the new ones."""

    def __init__(self, old: str, new: tuple[str, ...]):
        named = " and ".join(f"`{name}`" for name in new)
        super().__init__(old, f"The names of {named} at their path of the release before.")
        self.new = new

    def __getattr__(self, name: str) -> object:
        """Return the attribute of the module that took this one's place."""
        if name.startswith("__"):  # what tools ask every module for
            raise AttributeError(name)
        own = [place for place in self.new[:-1] if hasattr(importlib.import_module(place), name)]
        place = own[0] if own else self.new[-1]
        message = f"{self.__name__} is now {place}; the old path goes with the next release"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return getattr(importlib.import_module(place), name)


def keep_old_paths(package: str) -> None:
    """Enter the old paths below a package into `sys.modules`, and into the package.

    Called by each package that had such modules, at the end: what has the name of one is not
    replaced, so that `jaxmix.fit` stays the function.
    """
    owner = sys.modules[package]
    taken = {*vars(owner), *dir(owner)}  # and names that are loaded when they are asked for
    for old, new in MOVED.items():
        parent, _, name = f"jaxmix.{old}".rpartition(".")
        if parent != package:
            continue
        places = (new,) if isinstance(new, str) else new
        module = Moved(f"jaxmix.{old}", tuple(f"jaxmix.{place}" for place in places))
        sys.modules[module.__name__] = module
        if name not in taken:
            setattr(owner, name, module)
