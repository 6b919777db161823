"""Causal effects when the groups that respond differently are hidden."""

from jaxmix import features, moments, populations
from jaxmix.data import CausalData, read
from jaxmix.estimators import bridge, spectral, synthetic
from jaxmix.mixture import EffectLaw, Mixture
from jaxmix.status import EstimateFailed, InputError, Status
