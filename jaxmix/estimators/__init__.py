"""Estimators, one file per method: from moments to an estimate with a status."""
