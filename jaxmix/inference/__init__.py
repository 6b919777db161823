"""Uncertainty of estimates, tests of what they assume, and the number of classes."""
