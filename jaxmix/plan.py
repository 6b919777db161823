"""What is to be estimated, checked before any work: options, and the estimator they name."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxmix import arguments
from jaxmix.columns import listed
from jaxmix.data import CausalData
from jaxmix.estimators import baselines, bridge, factorization, optimum, spectral, synthetic
from jaxmix.hierarchy import Verdict, identify
from jaxmix.inference import drawing, intervals
from jaxmix.inference.strength import EDGES
from jaxmix.mixture import EffectLaw
from jaxmix.moments import Moments
from jaxmix.status import InputError, settle

CHOICES: dict[str, tuple[Any, ...]] = {
    "level": ("auto", 2, 3, 4),
    "method": ("auto", "bridge", "synthetic", "spectral", "factorization"),
    "bridge": ("by_arm", "pooled"),
    "estimand": ("ATE", "ATT"),
    "better": ("higher", "lower"),
    "interval": ("auto", "profile", *intervals.KINDS),
    "resampling": (None, *drawing.KINDS),
    "strata": (None, "arm"),
    "checks": (True, False),
    "edge": EDGES,
}
"""What `fit` takes for each option."""

AUTO = "auto"
"""Where jaxmix is to choose."""

_CLASS_METHODS = ("factorization", "spectral", "synthetic")
_MIN_RESAMPLES = 20
_FROM_RESAMPLES = ("basic", "studentized", "bca")


@dataclasses.dataclass(frozen=True)
class Estimator:
    """What is estimated and how, as a function of the moments; hashable, so compiled once."""

    level: int
    method: str
    num_classes: Any
    form: str
    estimand: str
    better: str
    search: bool = True  # False: `start` is the optimum, whose derivatives are wanted

    def at_optimum(self) -> Estimator:
        """Return the estimator for derivatives at the estimate: it moves nothing."""
        return dataclasses.replace(self, search=False)

    def __call__(
        self,
        moments: Moments,
        *,
        key: Array | None = None,
        start: Any = None,
        weight: Array | None = None,
        flat: Array | None = None,
    ) -> dict[str, Any]:
        """Return everything a result needs that can be resampled.

        The factorization takes a key for its starts; resamples start at the estimate, and keep
        its weight; whether that is flat matters for its derivatives alone.
        """
        if self.level == 4:
            solution = bridge.solve(
                moments, rank=self.num_classes, form=self.form, estimand=self.estimand
            )
            out = {"effect": solution.value.effect, "means": solution.value.means}
        else:
            solution, law, means, profile = self._classes(moments, key, start, weight, flat)
            if self.num_classes == 1:  # has everybody, whatever rounding leaves of its share
                law = EffectLaw(jnp.ones_like(law.shares), law.effects)
            # The mean of the law, so that the class table adds up to the headline.
            out = {"effect": law.mean, "means": means, "shares": law.shares}
            out |= {"effects": law.effects, "harmed": law.share_harmed(self.better)}
            out |= {"cumulative": jnp.cumsum(law.shares)[:-1], "spread": law.spread}
            out |= {"profile": profile}
            if self.method == "factorization":
                out |= {"mixture": solution.value}
        out["naive"] = baselines.difference_in_means(moments)
        return out | {"status": settle(solution.status, out["naive"]), "stats": solution.stats}

    def _classes(
        self, moments: Moments, key: Array | None, start: Any, weight: Array | None, flat: Any
    ) -> tuple[Any, EffectLaw, Array, Array]:
        """Return solution, law, potential means, and the profile that classes are matched by."""
        k = self.num_classes
        assert k is not None
        centre, scale = synthetic.outcome_scale(moments)
        if self.method == "synthetic":
            solution = synthetic.solve(moments, k, estimand=self.estimand)
            law, potential = solution.value
            profile = jnp.stack([law.effects / scale, law.shares])
            return solution, law, potential.means, profile
        if self.method == "spectral":
            solution = spectral.solve(moments, k, estimand=self.estimand)
        elif not self.search:
            solution = optimum.revisit(
                moments, k, start, level=self.level, weight=weight, flat=flat
            )
        else:
            assert key is not None
            solution = factorization.solve(
                moments, k, key=key, level=self.level, start=start, weight=weight,
                loss="kl" if moments.is_table else "gmm", thorough=True,
            )  # fmt: skip
        mixture = solution.value
        shares = mixture.shares
        if self.method == "factorization" and self.estimand == "ATT":
            shares = mixture.treated_shares(moments.one_z)
        law = EffectLaw(shares, mixture.effects())
        looks = mixture.x_profiles / np.sqrt(len(mixture.x_profiles))
        profile = jnp.vstack([(mixture.means - centre) / scale, shares, looks])
        return solution, law, mixture.means @ shares, profile


def check_arguments(
    data: Any,
    num_classes: Any,
    num_resamples: Any,
    confidence: Any,
    seed: Any,
    progress: Any,
) -> tuple[int | str | None, int, float, int]:
    """Return the numbers among the arguments of `fit` as plain numbers, or refuse them."""
    arguments.instance(
        "data", data, CausalData, "give a table with roles (CausalData.from_frame, or read)"
    )
    arguments.callback("progress", progress)
    if num_classes is not None and not (isinstance(num_classes, str) and num_classes == AUTO):
        remedy = "give a whole number of at least 1, or 'auto'"
        num_classes = arguments.whole(
            "num_classes (--classes)", num_classes, least=1, remedy=remedy
        )
    remedy = f"give 0 (influence functions) or at least {_MIN_RESAMPLES}"
    name = "num_resamples (--resamples)"
    if (found := arguments.whole(name, num_resamples, least=0, remedy=remedy)) != 0:
        arguments.whole(name, found, least=_MIN_RESAMPLES, remedy=remedy)
    return (
        num_classes,
        found,
        arguments.fraction("confidence", confidence),
        arguments.seed(seed),
    )


def check_choices(asked: dict[str, Any]) -> dict[str, Any]:
    """Return the options of `fit` that are choices, or refuse what is none of them."""
    return {name: arguments.choice(name, value, CHOICES[name]) for name, value in asked.items()}


def plan(
    data: CausalData,
    asked: dict[str, Any],
    num_classes: int | str | None,
    num_resamples: int,
) -> tuple[Estimator, Estimator | None]:
    """Check the options against each other; return what to fit, and what beside it.

    A number of classes that is to be chosen is still `AUTO` in what is returned.
    """
    if num_resamples == 0 and asked["interval"] in _FROM_RESAMPLES:
        raise InputError(
            f"interval {asked['interval']!r} needs resamples: give num_resamples (--resamples) of "
            f"at least {_MIN_RESAMPLES}, or the interval 'normal'"
        )
    if len(data.arms) > 2:
        raise InputError(
            f"treatment {data.treatment!r} has {len(data.arms)} arms ({listed(data.arms)}): fit "
            "compares two; keep the rows of two arms"
        )
    level, method = asked["level"], asked["method"]
    if level == 4 and method not in ("auto", "bridge"):
        raise InputError(f"method {method!r} is of level 3; use level 3, or method 'bridge'")
    if level in (2, 3) and method == "bridge":
        raise InputError("method 'bridge' is of level 4; use level 4, or method 'factorization'")
    if level == 2 and method not in ("auto", "factorization"):
        raise InputError(f"method {method!r} is of level 3; use level 3, or 'factorization'")
    if asked["bridge"] == "pooled" and asked["estimand"] == "ATT":
        raise InputError("the pooled bridge has no ATT; use the bridge 'by_arm'")
    if asked["bridge"] == "pooled" and level in (2, 3):
        raise InputError(
            f"the pooled bridge is of level 4, not {level}; use level 4, or the bridge 'by_arm'"
        )
    if asked["interval"] == "profile" and (level == 4 or method not in ("auto", "factorization")):
        raise InputError(
            "interval 'profile' is of maximum-likelihood fits, and "
            f"{'level 4' if level == 4 else f'method {method!r}'} is none; use the method "
            "'factorization' at level 2 or 3, or the interval 'percentile'"
        )
    if asked["interval"] == "profile" and asked["strata"] is not None:
        raise InputError(
            "interval 'profile' knows no strata: leave strata (--strata) out, or use the interval "
            "'percentile'"
        )
    of_classes = method in _CLASS_METHODS
    wants_classes = level in (2, 3) or (
        level == "auto" and (of_classes or num_classes is not None) and method != "bridge"
    )
    if wants_classes and num_classes is None:
        stated = 2 if level == 2 else 3
        raise InputError(
            f"level {stated} needs a number of classes: give num_classes (--classes), or 'auto'"
        )
    if wants_classes and data.covariates:
        names = ", ".join(repr(column.name) for column in data.covariates)
        raise InputError(
            f"covariates ({names}) belong to level 4 for now, and a number of classes asks for "
            f"level {2 if level == 2 else 3} too; leave one of them out, or use level 4"
        )
    target = (asked["estimand"], asked["better"])
    classes = Estimator(
        2 if level == 2 else 3,
        "factorization" if method == "auto" else method,
        num_classes,
        "by_arm",
        *target,
    )
    if level in (2, 3):
        return classes, None
    # Level 4 has no classes to be harmed: one value of `better`, so that it compiles once.
    headline = Estimator(4, "bridge", num_classes, asked["bridge"], asked["estimand"], "higher")
    return headline, classes if wants_classes else None


def declare(
    data: CausalData, level: int | str, graph: Any, separable: bool | None = None
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
