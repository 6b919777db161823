"""What is to be estimated: the options against each other, and the estimators they name."""

from __future__ import annotations

import dataclasses

from jaxmix.data.columns import listed
from jaxmix.data.roles import CausalData
from jaxmix.estimators.base import LevelEstimator
from jaxmix.estimators.registry import Bridge, Factorization, Spectral, Synthetic, names_at
from jaxmix.fitting.options import AUTO, MIN_RESAMPLES, Options
from jaxmix.hierarchy import Verdict, identify
from jaxmix.inference.estimation import against_covariates
from jaxmix.status import InputError

_FROM_RESAMPLES = ("basic", "studentized", "bca")
_CLASS_METHODS = tuple(dict.fromkeys((*names_at(2), *names_at(3))))


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is fitted, but for the number of classes, which may have to be chosen first.

    Attributes
    ----------
    level
        Of the headline.
    class_level, method
        Level and method of the classes, be they the headline or beside it; None where there are
        none.
    form, estimand
        As in `jaxmix.fit`.
    """

    level: int
    class_level: int | None
    method: str
    form: str
    estimand: str

    @property
    def least_level(self) -> int:
        """The level that asks most of the data."""
        return self.level if self.class_level is None else self.class_level

    def estimators(self, num_classes: int | None) -> tuple[LevelEstimator, LevelEstimator | None]:
        """Return what to fit, and what beside it."""
        classes: LevelEstimator | None = None
        if self.class_level is not None:
            assert num_classes is not None
            classes = of_classes(self.method, self.class_level, num_classes, self.estimand)
        if self.level < 4:
            assert classes is not None
            return classes, None
        return Bridge(num_classes, self.form, self.estimand), classes


def of_classes(method: str, level: int, num_classes: int, estimand: str) -> LevelEstimator:
    """Return the estimator of classes that a method names."""
    if method == Spectral.name:
        return Spectral(num_classes, estimand)
    if method == Synthetic.name:
        return Synthetic(num_classes, estimand)
    return Factorization(num_classes, level, estimand, thorough=True)


def plan(data: CausalData, asked: Options) -> Plan:
    """Check the options against each other and the data; return what to fit.

    Raises
    ------
    InputError
        For options that do not go together, or that the data cannot carry.
    """
    if asked.num_resamples == 0 and asked.interval in _FROM_RESAMPLES:
        raise InputError(
            f"interval {asked.interval!r} needs resamples: give num_resamples (--resamples) of "
            f"at least {MIN_RESAMPLES}, or the interval 'normal'"
        )
    if len(data.arms) > 2:
        raise InputError(
            f"treatment {data.treatment!r} has {len(data.arms)} arms ({listed(data.arms)}): fit "
            "compares two; keep the rows of two arms"
        )
    level, method = asked.level, asked.method
    if level == 4 and method not in ("auto", "bridge"):
        raise InputError(f"method {method!r} is of level 3; use level 3, or method 'bridge'")
    if level in (2, 3) and method == "bridge":
        raise InputError("method 'bridge' is of level 4; use level 4, or method 'factorization'")
    if level == 2 and method not in ("auto", "factorization"):
        raise InputError(f"method {method!r} is of level 3; use level 3, or 'factorization'")
    if asked.bridge == "pooled" and asked.estimand == "ATT":
        raise InputError("the pooled bridge has no ATT; use the bridge 'by_arm'")
    if asked.bridge == "pooled" and level in (2, 3):
        raise InputError(
            f"the pooled bridge is of level 4, not {level}; use level 4, or the bridge 'by_arm'"
        )
    if asked.interval == "profile" and (level == 4 or method not in ("auto", "factorization")):
        raise InputError(
            "interval 'profile' is of maximum-likelihood fits, and "
            f"{'level 4' if level == 4 else f'method {method!r}'} is none; use the method "
            "'factorization' at level 2 or 3, or the interval 'percentile'"
        )
    if asked.interval == "profile" and asked.strata is not None:
        raise InputError(
            "interval 'profile' knows no strata: leave strata (--strata) out, or use the interval "
            "'percentile'"
        )
    names_classes = method in _CLASS_METHODS
    wants_classes = level in (2, 3) or (
        level == "auto" and (names_classes or asked.num_classes is not None) and method != "bridge"
    )
    if wants_classes and asked.num_classes is None:
        stated = 2 if level == 2 else 3
        raise InputError(
            f"level {stated} needs a number of classes: give num_classes (--classes), or 'auto'"
        )
    class_level = (2 if level == 2 else 3) if wants_classes else None
    covariates = [column.name for column in data.covariates]
    if reason := against_covariates(covariates, class_level or 4):
        raise InputError(reason)
    stands_alone = level in (2, 3)
    return Plan(
        int(level) if stands_alone else 4,
        class_level,
        "factorization" if method == AUTO else method,
        asked.bridge,
        asked.estimand,
    )


def declare(
    data: CausalData, level: int | str, graph: object, separable: bool | None = None
) -> tuple[int | str, Verdict | None]:
    """Return the level that is claimed: by the user, or by a graph of the table's columns.

    Raises
    ------
    InputError
        For a graph that supports no level that can be fitted, or none as strong as the one asked
        for.
    """
    if graph is None:
        return level, None
    verdict = identify(
        graph,
        treatment=data.treatment,
        outcome=data.outcome.name,
        z=[column.name for column in data.z],
        x=[column.name for column in data.x],
        covariates=[column.name for column in data.covariates],
        separable=separable,
    )
    against = "; ".join(str(violation) for violation in verdict.blocked_by)
    if verdict.fitted_level is None:
        raise InputError(
            f"the graph supports no level that can be fitted ({against}); see 'jaxmix identify'"
        )
    if level == AUTO:
        return verdict.fitted_level, verdict
    if int(level) < verdict.fitted_level:
        raise InputError(
            f"level (--level) is {level}, but the graph supports level {verdict.fitted_level} at "
            f"most ({against}); leave the level out, or see 'jaxmix identify'"
        )
    return level, verdict
