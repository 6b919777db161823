"""Uncertainty of estimates, tests of what they assume, and the number of classes."""

from jaxmix import moved

moved.keep_old_paths(__name__)
