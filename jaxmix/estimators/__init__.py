"""Estimators, one file per method: from moments to an estimate with a status."""

from jaxmix import moved

moved.keep_old_paths(__name__)
