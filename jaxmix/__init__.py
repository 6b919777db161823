"""Causal effects when the groups that respond differently are hidden.

`fit` takes a table to a result; the modules below it are pure functions on arrays for studies.
Each name is loaded when it is first asked for, so that what needs no array waits for none.
"""

import importlib
import os
import sys
from typing import TYPE_CHECKING

from jaxmix import moved, remarks

if TYPE_CHECKING:  # for readers of types; `_PLACES` has the same for Python
    from jaxmix import hierarchy, populations, study
    from jaxmix.data.roles import CausalData, read
    from jaxmix.estimators import baselines, bridge, factorization, spectral, synthetic
    from jaxmix.exceptions import EstimateError, InputError
    from jaxmix.fitting.latent_classes import LatentClassResult, latent_classes
    from jaxmix.fitting.run import fit
    from jaxmix.inference import asymptotic, selection, sensitivity, specification
    from jaxmix.inference.resampling import bootstrap
    from jaxmix.model.law import EffectLaw, Mixture
    from jaxmix.results.estimates import Estimate
    from jaxmix.results.result import Result
    from jaxmix.sample import features, moments
    from jaxmix.solvers.cache import use_cache
    from jaxmix.status import Status

    __version__: str

__all__ = [
    "CausalData",
    "EffectLaw",
    "Estimate",
    "EstimateError",
    "InputError",
    "LatentClassResult",
    "Mixture",
    "Result",
    "Status",
    "__version__",
    "asymptotic",
    "baselines",
    "bootstrap",
    "bridge",
    "factorization",
    "features",
    "fit",
    "hierarchy",
    "latent_classes",
    "moments",
    "populations",
    "read",
    "selection",
    "sensitivity",
    "specification",
    "spectral",
    "study",
    "synthetic",
    "use_cache",
]

_PLACES = {
    "CausalData": "data.roles:CausalData",
    "EffectLaw": "model.law:EffectLaw",
    "Estimate": "results.estimates:Estimate",
    "EstimateError": "exceptions:EstimateError",
    "InputError": "exceptions:InputError",
    "LatentClassResult": "fitting.latent_classes:LatentClassResult",
    "Mixture": "model.law:Mixture",
    "Result": "results.result:Result",
    "Status": "status:Status",
    "asymptotic": "inference.asymptotic",
    "baselines": "estimators.baselines",
    "bootstrap": "inference.resampling:bootstrap",
    "bridge": "estimators.bridge",
    "factorization": "estimators.factorization",
    "features": "sample.features",
    "fit": "fitting.run:fit",
    "hierarchy": "hierarchy",
    "latent_classes": "fitting.latent_classes:latent_classes",
    "moments": "sample.moments",
    "populations": "populations",
    "read": "data.roles:read",
    "selection": "inference.selection",
    "sensitivity": "inference.sensitivity",
    "specification": "inference.specification",
    "spectral": "estimators.spectral",
    "study": "study",
    "synthetic": "estimators.synthetic",
    "use_cache": "solvers.cache:use_cache",
}
"""Where each public name is, below this package: a module, or a name in one."""

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Load a public name, or a module of the package, and keep it."""
        if name == "__version__":
            from importlib.metadata import version

            found = version("jaxmix")
        elif name in _PLACES:
            place, _, attribute = _PLACES[name].partition(":")
            found = importlib.import_module(f"jaxmix.{place}")
            found = getattr(found, attribute) if attribute else found
        else:
            found = _module(name)
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        return list(__all__)


def _module(name: str) -> object:
    """Return a module of the package that nobody has imported yet."""
    if not name.startswith("_"):
        try:
            return importlib.import_module(f"jaxmix.{name}")
        except ModuleNotFoundError:
            pass
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


remarks.quiet_commands(sys.argv, sys.orig_argv, os.environ)  # before JAX is loaded
moved.keep_old_paths(__name__)
