"""Causal effects when the groups that respond differently are hidden.

`fit` takes a table to a result; the modules below it are pure functions on arrays for studies.
"""

import importlib.metadata
import os
import sys

from jaxmix import remarks

remarks.quiet_commands(sys.argv, sys.orig_argv, os.environ)  # before JAX is loaded

from jaxmix import hierarchy, moved, populations, study
from jaxmix.data.roles import CausalData, read
from jaxmix.estimators import baselines, bridge, factorization, spectral, synthetic
from jaxmix.fitting.latent_classes import LatentClassResult, latent_classes
from jaxmix.fitting.run import fit
from jaxmix.inference import asymptotic, selection, sensitivity, specification
from jaxmix.inference.resampling import bootstrap
from jaxmix.model.law import EffectLaw, Mixture
from jaxmix.results.estimates import Estimate
from jaxmix.results.result import Result
from jaxmix.sample import features, moments
from jaxmix.status import EstimateError, InputError, Status

moved.keep_old_paths()

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
