"""The options of `jaxmix.fit`, each with its choices, its default, its check and its help.

The signature of `fit`, the command line and the documentation repeat what stands here; tests
compare them. The help of a command needs no array, so what checks values is loaded with the first
value.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from jaxmix.choices import EDGES, INTERVALS, METHODS, RESAMPLINGS
from jaxmix.exceptions import InputError

AUTO = "auto"
"""Where jaxmix is to choose."""

MIN_RESAMPLES = 20


@dataclasses.dataclass(frozen=True)
class Option:
    """One option.

    Attributes
    ----------
    default
        What it is where it is not given.
    help
        One line for the command line.
    choices
        What it may be; empty where it is no choice.
    check
        From name and value to the value as plain Python has it, raising `InputError`; None for
        choices.
    flag
        Its name on the command line, where that is not its own.
    """

    default: Any  # of a type of its own, which a table of all options cannot say
    help: str
    choices: tuple[object, ...] = ()
    check: Callable[[str, object], object] | None = None
    flag: str = ""

    def checked(self, name: str, value: object) -> object:
        """Return a value as plain Python has it, or refuse it."""
        from jaxmix import arguments

        if self.choices:
            return arguments.choice(name, value, self.choices)
        assert self.check is not None
        shown = f"{name} ({self.flag})" if self.flag else name
        return self.check(shown, value)


def _num_classes(name: str, value: object) -> int | str | None:
    from jaxmix import arguments

    if value is None or (isinstance(value, str) and value == AUTO):
        return value
    remedy = "give a whole number of at least 1, or 'auto'"
    return arguments.whole(name, value, least=1, remedy=remedy)


def _num_resamples(name: str, value: object) -> int:
    from jaxmix import arguments

    remedy = f"give 0 (influence functions) or at least {MIN_RESAMPLES}"
    if (found := arguments.whole(name, value, least=0, remedy=remedy)) != 0:
        arguments.whole(name, found, least=MIN_RESAMPLES, remedy=remedy)
    return found


def _seed(name: str, value: object) -> int:
    from jaxmix import arguments

    del name
    return arguments.seed(value)


def _confidence(name: str, value: object) -> float:
    from jaxmix import arguments

    return arguments.fraction(name, value)


def _progress(name: str, value: object) -> Callable[..., object] | None:
    from jaxmix import arguments

    return arguments.callback(name, value)


_METHODS = (AUTO, *METHODS)
_INTERVALS = (AUTO, "profile", *INTERVALS)

OPTIONS: Mapping[str, Option] = {
    "num_classes": Option(
        None, "Number of hidden classes, or auto.", check=_num_classes, flag="--classes"
    ),
    "level": Option(AUTO, "auto, 2, 3 or 4.", (AUTO, 2, 3, 4)),
    "method": Option(AUTO, f"{', '.join(_METHODS[:-1])} or {_METHODS[-1]}.", _METHODS),
    "bridge": Option("by_arm", "by_arm or pooled.", ("by_arm", "pooled")),
    "estimand": Option("ATE", "ATE or ATT.", ("ATE", "ATT")),
    "better": Option("higher", "Which outcome is good: higher or lower.", ("higher", "lower")),
    "num_resamples": Option(
        1000, "Bootstrap resamples; 0 for influence functions.", check=_num_resamples,
        flag="--resamples",
    ),
    "confidence": Option(0.95, "Confidence of the intervals.", check=_confidence),
    "seed": Option(0, "Seed of the resamples.", check=_seed),
    "interval": Option(AUTO, f"{', '.join(_INTERVALS)}.", _INTERVALS),
    "resampling": Option(None, "multinomial, poisson or bayesian.", (None, *RESAMPLINGS)),
    "strata": Option(None, "arm: resample within treatment arms.", (None, "arm")),
    "checks": Option(
        True, "Further tests and sensitivity bounds of levels 2 and 3.", (True, False)
    ),
    "edge": Option("x_to_y", "What the bounds allow: x_to_y or z_to_y.", EDGES),
    "progress": Option(None, "", check=_progress),
}  # fmt: skip
"""By the name of the keyword."""


@dataclasses.dataclass(frozen=True)
class Options:
    """What was asked of `jaxmix.fit`, checked one by one; see there."""

    num_classes: int | str | None
    level: int | str
    method: str
    bridge: str
    estimand: str
    better: str
    num_resamples: int
    confidence: float
    seed: int
    interval: str
    resampling: str | None
    strata: str | None
    checks: bool
    edge: str
    progress: Callable[[int, int], None] | None

    @classmethod
    def of(cls, **given: object) -> Options:
        """Return the options that were given, the others at their defaults, or refuse them.

        Examples
        --------
        >>> Options.of(level=3, num_classes=2).num_resamples
        1000
        """
        unknown = given.keys() - OPTIONS.keys()
        if unknown:
            raise InputError(f"there is no option {sorted(unknown)[0]!r}")
        # Each is of the type of its field once its own option has checked it.
        checked: dict[str, Any] = {
            name: option.checked(name, given.get(name, option.default))
            for name, option in OPTIONS.items()
        }
        return cls(**checked)
