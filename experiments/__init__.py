"""Experiments: configs, benchmarks and the tables they make; no estimation code."""
