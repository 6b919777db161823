"""Causal effects when the groups that respond differently are hidden.

`fit` takes a table to a result; the modules below it are pure functions on arrays for studies.
"""

import importlib.metadata
import os
import sys

from jaxmix import remarks

remarks.quiet_commands(sys.argv, sys.orig_argv, os.environ)  # before JAX is loaded

from jaxmix import features, hierarchy, moments, populations, study
from jaxmix.data import CausalData, read
from jaxmix.estimates import Estimate
from jaxmix.estimators import baselines, bridge, factorization, spectral, synthetic
from jaxmix.fit import fit
from jaxmix.inference import asymptotic, selection, sensitivity, specification
from jaxmix.inference.resampling import bootstrap
from jaxmix.latent_classes import LatentClassResult, latent_classes
from jaxmix.mixture import EffectLaw, Mixture
from jaxmix.result import Result
from jaxmix.status import EstimateError, InputError, Status

__version__ = importlib.metadata.version("jaxmix")

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
]
