"""The four levels and what they assume, as data."""

from __future__ import annotations

import dataclasses
from typing import Literal

Kind = Literal["independent", "dependent", "not_affected", "declared"]


@dataclasses.dataclass(frozen=True)
class Assumption:
    """One thing that a graph says, or does not say, of the roles in it.

    Roles have letters: T treatment, Y outcome, U hidden class, Z and X the proxies (all columns of
    a view jointly), C the covariates, which are conditioned on wherever U is.

    Attributes
    ----------
    name
        Short name.
    kind
        ``independent``: `left` and `right` are d-separated by `given`; ``dependent``: they are not;
        ``not_affected``: no directed path leads from `left` to `right`; ``declared``: no graph
        shows it, the user says it.
    left, right, given
        Letters of roles.
    why
        What it is needed for, in words.
    potential
        Whether Y stands for the potential outcome Y(t): judged in the graph without the arrows out
        of T.

    Examples
    --------
    >>> print(IGNORABILITY)
    Y(t) independent of T given U
    """

    name: str
    kind: Kind
    left: tuple[str, ...] = ()
    right: tuple[str, ...] = ()
    given: tuple[str, ...] = ()
    why: str = ""
    potential: bool = False

    def text(self, *, covariates: bool = False) -> str:
        """Return it as a formula in letters; C joins what is given where there are covariates."""
        if self.kind == "declared":
            return "U is a function of observed columns"
        left, right = _letters(self.left), _letters(self.right)
        if self.kind == "not_affected":
            return f"{left} does not affect {right}"
        given = (*self.given, "C") if covariates else self.given
        given_words = f" given {_letters(given)}" if given else ""
        if self.kind == "dependent":
            return f"{left} tells of {right}{given_words}"
        left = left.replace("Y", "Y(t)") if self.potential else left
        return f"{left} independent of {right}{given_words}"

    def __str__(self) -> str:
        return self.text()


def _letters(letters: tuple[str, ...]) -> str:
    return letters[0] if len(letters) == 1 else f"({', '.join(letters)})"


CLASS_FIRST = Assumption(
    "class_before_treatment", "not_affected", ("T",), ("U",),
    why="the class has to be what people bring with them",
)  # fmt: skip
COVARIATES_FIRST = Assumption(
    "covariates_before_treatment", "not_affected", ("T",), ("C",),
    why="adjusting for what treatment changes hides a part of its effect",
)  # fmt: skip
IGNORABILITY = Assumption(
    "latent_ignorability", "independent", ("Y",), ("T",), ("U",),
    why="within a class, treatment has to be as good as random", potential=True,
)  # fmt: skip
Z_WITHOUT_EFFECT = Assumption(
    "z_apart_from_y", "independent", ("Z",), ("Y",), ("T", "U"),
    why="Z may reach the outcome through T and U alone",
)  # fmt: skip
Z_TELLS = Assumption(
    "z_tells_of_class", "dependent", ("Z",), ("U",), ("T",),
    why="what tells nothing of the class cannot stand in for it",
)  # fmt: skip
X_TELLS = Assumption(
    "x_tells_of_class", "dependent", ("X",), ("U",),
    why="what tells nothing of the class cannot stand in for it",
)  # fmt: skip
X_UNTREATED = Assumption(
    "x_apart_from_z_and_t", "independent", ("X",), ("Z", "T"), ("U",),
    why="treatment must not move X, and X may share only the class with Z",
)  # fmt: skip
X_APART = Assumption(
    "x_apart_from_z_t_and_y", "independent", ("X",), ("Z", "T", "Y"), ("U",),
    why="X must not affect the outcome either",
)  # fmt: skip
Z_APART = Assumption(
    "z_apart_from_t_and_y", "independent", ("Z",), ("T", "Y"), ("U",),
    why="Z must not affect treatment: Z, X and (T, Y) may share the class alone",
)  # fmt: skip
OUTCOME_TELLS = Assumption(
    "t_and_y_tell_of_class", "dependent", ("T", "Y"), ("U",),
    why="(T, Y) has to be a third view of the class",
)  # fmt: skip
SEPARABLE = Assumption(
    "separable", "declared", why="classes must not overlap in what is observed",
)  # fmt: skip

ALWAYS = (CLASS_FIRST, COVARIATES_FIRST, IGNORABILITY)
_BRIDGE = (*ALWAYS, Z_TELLS, X_TELLS, Z_WITHOUT_EFFECT, X_UNTREATED)


@dataclasses.dataclass(frozen=True)
class Level:
    """One level of the hierarchy; a smaller number is stronger.

    Attributes
    ----------
    number
        1 to 4.
    name
        What is identified, in a word or two.
    assumptions
        What the graph has to say.
    ranks
        What the moments need beside it, which no graph shows.
    estimators
        Names in `jaxmix` that estimate it.
    gives
        What the user gets.
    options
        Of ``jaxmix fit``; empty where that command does not fit the level. K stands for the
        number of classes.

    References
    ----------
    Mazaheri, Squires, Uhler (2025), arXiv 2405.19225.

    Examples
    --------
    >>> [(level.number, level.name) for level in LEVELS[2:]]
    [(3, 'effect law'), (4, 'average effect')]
    """

    number: int
    name: str
    assumptions: tuple[Assumption, ...]
    ranks: str
    estimators: tuple[str, ...]
    gives: str
    options: tuple[str, ...] = ()


_RANK = (
    "z and x have to tell the classes apart: E[z x | T=t] needs rank K in every arm, for K classes"
)

LEVELS = (
    Level(
        1,
        "visible groups",
        (*ALWAYS, SEPARABLE),
        "the groups have to lie apart in the observed columns, without overlap",
        ("baselines.cluster_then_adjust",),
        "Effects of groups that you can see: put each person into their class by the observed "
        "columns, then compare the arms within each class. In Python: "
        "jaxmix.baselines.cluster_then_adjust.",
    ),
    Level(
        2,
        "whole law of the classes",
        (*_BRIDGE, X_APART, Z_APART, OUTCOME_TELLS),
        "Kruskal's condition: the k-ranks of the class profiles of Z, X and (T, Y) have to sum to "
        "2K + 2 or more, for K classes",
        ("factorization",),
        "Everything about the classes: how large they are, how proxies, treatment and outcome are "
        "distributed in each, the average effect in each, and so the ATE and the share harmed.",
        ("--level", "2", "--classes", "K"),
    ),
    Level(
        3,
        "effect law",
        (*_BRIDGE, X_APART),
        _RANK,
        ("synthetic", "spectral", "factorization"),
        "The effect law: the share of each hidden class and the average effect in it; from these "
        "the ATE, its spread over classes, and the share of people in classes with a harmful "
        "average. Classes with one and the same effect appear as one.",
        ("--level", "3", "--classes", "K"),
    ),
    Level(
        4,
        "average effect",
        _BRIDGE,
        _RANK,
        ("bridge",),
        "The average effect (ATE, or ATT by --estimand ATT) and the mean outcome under each arm, "
        "without the bias of the hidden class. Not the classes, nor their effects.",
        ("--level", "4"),
    ),
)
"""From the strongest to the weakest; above level 1 they nest."""
