"""Remarks of XLA on standard error, which a command's user has no use for.

At every compiled program that it loads from disk, the build of jaxlib that Python 3.11 has prints
two lines of 2,000 characters about features of the processor that only the compiler knows
(jax-ml/jax issue 38445). What is wrong with a program raises an exception all the same.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import MutableMapping, Sequence

_SETTING = "TF_CPP_MIN_LOG_LEVEL"  # read once, when jaxlib is loaded


def quiet_commands(
    argv: Sequence[str], orig_argv: Sequence[str], environment: MutableMapping[str, str]
) -> None:
    """Silence XLA where the process is a command of jaxmix; the user's own setting wins.

    Parameters
    ----------
    argv, orig_argv, environment
        `sys.argv`, `sys.orig_argv` and `os.environ`.

    Examples
    --------
    >>> environment = {}
    >>> quiet_commands(["-m"], ["python", "-m", "jaxmix", "fit"], environment)
    >>> environment
    {'TF_CPP_MIN_LOG_LEVEL': '3'}
    """
    name = os.path.basename(argv[0]) if argv else ""
    as_module = ("-m", "jaxmix") in itertools.pairwise(orig_argv)
    if as_module or name in ("jaxmix", "jaxmix.exe"):
        environment.setdefault(_SETTING, "3")
