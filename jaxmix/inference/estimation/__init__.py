"""An estimator fitted to a sample, behind one interface: all that a fit asks of an estimate."""

from jaxmix.inference.estimation.choice import against_covariates, estimation_of, refuse
from jaxmix.inference.estimation.protocol import Draws, Estimation, Profiles, Proxies

__all__ = [
    "Draws",
    "Estimation",
    "Profiles",
    "Proxies",
    "against_covariates",
    "estimation_of",
    "refuse",
]
