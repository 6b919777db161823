"""Resamples of a sample: what is drawn, how often, and the moments that follow."""
