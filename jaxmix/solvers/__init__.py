"""Numerics that know nothing of causality."""
