"""What a graph supports, in data and in words."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import shlex

from jaxmix import arguments
from jaxmix.hierarchy.diagram import Diagram
from jaxmix.hierarchy.levels import ALWAYS, LEVELS, Assumption, Level
from jaxmix.hierarchy.paths import Path
from jaxmix.report.files import write_whole
from jaxmix.report.tables import Table
from jaxmix.types import Json

WEAKEST = len(LEVELS)
_WIDTH = 77  # for the cells of a line, beside the blanks between its four columns


def next_stronger(level: int | None) -> Level | None:
    """Return the level one step stronger; level 4 where none holds, None beyond level 1."""
    number = (level or WEAKEST + 1) - 1
    return LEVELS[number - 1] if number else None


@dataclasses.dataclass(frozen=True)
class Violation:
    """An assumption that the graph does not support.

    Attributes
    ----------
    assumption
        Which.
    statement
        The assumption as a formula in the letters of the roles.
    path
        A path that is open, or leads from treatment to what it must not affect; None where the
        trouble is that there is none, and where the user has to declare something.
    reason
        The same in words.
    """

    assumption: Assumption
    statement: str
    path: Path | None
    reason: str

    def __str__(self) -> str:
        path = "" if self.path is None else f" ({self.path})"
        return f"{self.statement}: {self.reason}{path}"


@dataclasses.dataclass(frozen=True)
class Candidate:
    """What a node may be, by what its own role asks of it.

    Attributes
    ----------
    node, role
        Its name, and the role it has now (None for a node without a role).
    as_z, as_x
        Levels at which it may be a treatment-side or an outcome-side proxy.
    against_z, against_x
        Why it may not, or not at stronger levels; empty where nothing speaks against it.
    """

    node: str
    role: str | None
    as_z: tuple[int, ...]
    as_x: tuple[int, ...]
    against_z: str = ""
    against_x: str = ""


@dataclasses.dataclass(frozen=True)
class Change:
    """A change of one role that reaches a stronger level.

    Attributes
    ----------
    action
        ``drop``, ``move``, ``swap``, ``adjust`` or ``release``.
    node
        The node it is done to; None where it is done to whole views.
    words
        What to do.
    level
        The level it reaches.
    """

    action: str
    node: str | None
    words: str
    level: int


@dataclasses.dataclass(frozen=True, eq=False)
class Verdict:
    """The strongest level that a graph supports, and why not a stronger one.

    Attributes
    ----------
    level
        1 to 4, the smallest number being the strongest; None where no level holds.
    levels
        All levels that hold.
    blocked_by
        What blocks the next stronger level (level 4, where none holds): `Violation`.
    violations
        Everything the graph does not support, in the order of the assumptions.
    candidates
        What each column, and each node without a role, may serve as.
    conflicts
        Pairs of them that must not be on opposite sides, with an open path between the two.
    changes
        Single changes that would reach a stronger level.
    diagram
        The graph with its roles.
    """

    level: int | None
    levels: tuple[int, ...]
    blocked_by: tuple[Violation, ...]
    violations: tuple[Violation, ...]
    candidates: tuple[Candidate, ...]
    conflicts: tuple[tuple[str, str, Path], ...]
    changes: tuple[Change, ...]
    diagram: Diagram

    @property
    def gives(self) -> str:
        """What the user gets."""
        if self.level is None:
            return (
                "Nothing by these methods: no level holds. That is no proof that the effect cannot "
                "be had in another way, by adjusting for observed causes for instance."
            )
        return _level(self.level).gives

    @property
    def fitted_level(self) -> int | None:
        """The strongest level that holds and ``jaxmix fit`` fits: 2 and 3 take no covariates."""
        fits = (n for n in self.levels if n == WEAKEST or (n > 1 and not self.diagram.covariates))
        return next(fits, None)

    @property
    def command(self) -> str | None:
        """The call of ``jaxmix fit`` at `fitted_level`; None where there is none."""
        roles = self.diagram
        if self.fitted_level is None:
            return None
        words = ["jaxmix", "fit", "ROWS.csv", "--treatment", roles.treatment]
        words += ["--outcome", roles.outcome, "--z", _option(roles.z), "--x", _option(roles.x)]
        words += ["--covariates", _option(roles.covariates)] if roles.covariates else []
        return shlex.join([*words, *_level(self.fitted_level).options])

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a graph cannot show, and what the package cannot do yet."""
        shown = self.level or WEAKEST
        strength = " 'jaxmix fit' reports how strong the proxies are." if shown > 1 else ""
        remarks = [
            f"Ranks are never visible in a graph: {_level(shown).ranks}.{strength}",
            "Nor is overlap: every arm has to occur in every class.",
            "The verdict is about the graph as it was drawn. An arrow that is missing is a claim, "
            "and data can refute few of these claims.",
        ]
        reached = {change.level for change in self.changes if change.action == "adjust"}
        if self.diagram.covariates:
            reached |= set(self.levels) | {change.level for change in self.changes}
        if reached & {2, 3}:
            remarks.insert(0, (
                "Levels 2 and 3 take no covariates in 'jaxmix fit' yet; it fits level 4 with them."
            ))  # fmt: skip
        if 1 in self.levels:
            remarks.insert(0, "Level 1 rests on your word: separable was declared, not read off.")
        return tuple(remarks)

    def tables(self) -> list[Table]:
        """Return the verdict as tables, the way `summary` prints them."""
        parts = [self._headline(), self._assumptions()]
        if self.blocked_by:
            parts.append(self._blocked())
        parts.append(self._columns())
        if self.blocked_by and self.level != 2:
            lines = [f"{change.words}: level {change.level}." for change in self.changes]
            lines = lines or [
                "No single change of roles does; the graph itself would have to differ."
            ]
            parts.append(
                Table("What would reach a stronger level (one change at a time)", notes=lines)
            )
        parts.append(Table("What to know beside it", notes=self.remarks))
        return parts

    def summary(self) -> str:
        """Return the verdict as text."""
        return "\n\n".join(table.text() for table in self.tables())

    def __repr__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        return "\n".join(table.html() for table in self.tables())

    def to_dict(self, command: str | None = None) -> dict[str, Json]:
        """Return everything as plain numbers, text and None."""
        arguments.text("command", command)
        roles = self.diagram
        return {
            "schema": 1,
            "jaxmix": importlib.metadata.version("jaxmix"),
            "command": command,
            "treatment": roles.treatment,
            "outcome": roles.outcome,
            "latent": roles.latent,
            "z": list(roles.z),
            "x": list(roles.x),
            "covariates": list(roles.covariates),
            "separable": roles.separable,
            "edges": [list(edge) for edge in roles.graph.edges()],
            "level": self.level,
            "levels": list(self.levels),
            "gives": self.gives,
            "fit": self.command,
            "blocked_by": [_violation(violation) for violation in self.blocked_by],
            "violations": [_violation(violation) for violation in self.violations],
            "candidates": [
                {
                    "node": c.node, "role": c.role, "as_z": list(c.as_z), "as_x": list(c.as_x),
                    "against_z": c.against_z or None, "against_x": c.against_x or None,
                }
                for c in self.candidates
            ],
            "conflicts": [
                {"nodes": [one, other], "path": str(path)} for one, other, path in self.conflicts
            ],
            "changes": [dataclasses.asdict(change) for change in self.changes],
            "remarks": list(self.remarks),
        }  # fmt: skip

    def to_json(self, path: str | os.PathLike[str], command: str | None = None) -> None:
        """Write `to_dict` as JSON; the file appears whole or not at all."""
        write_whole(path, json.dumps(self.to_dict(command), indent=1, allow_nan=False) + "\n")

    def _headline(self) -> Table:
        if self.level is None:
            title = "No level of the hierarchy holds in this graph"
        else:
            name = _level(self.level).name
            title = f"Level {self.level} ({name}) is the strongest that this graph supports"
        notes = [_legend(self.diagram)]
        if others := [n for n in self.levels if n != self.level]:
            words = "s " + ", ".join(map(str, others)) if len(others) > 1 else f" {others[0]}"
            holds = "hold" if len(others) > 1 else "holds"
            notes.append(f"The weaker level{words} {holds} as well.")
        elif self.level is not None and self.level < WEAKEST:
            notes.append("No weaker level holds: proxies cannot stand in for the class here.")
        notes.append(f"You get: {self.gives}")
        if self.command is not None:
            lead = "Next" if self.fitted_level == self.level else f"At level {self.fitted_level}"
            notes.append(f"{lead}: {self.command}")
        return Table(title, notes=notes)

    def _assumptions(self) -> Table:
        broken = {violation.assumption for violation in self.violations}
        rows = []
        for assumption in assumptions_of(self.diagram):
            needed = [str(level.number) for level in LEVELS if assumption in level.assumptions]
            declared = assumption.kind == "declared"
            yes, no = ("declared", "not declared") if declared else ("holds", "FAILS")
            text = assumption.text(covariates=bool(self.diagram.covariates))
            rows.append((text, " ".join(needed), no if assumption in broken else yes))
        return Table(
            "What the levels need of the graph (1 is the strongest level)",
            ("", "at levels", "here"),
            rows,
        )

    def _blocked(self) -> Table:
        target = next_stronger(self.level)
        assert target is not None  # nothing blocks where level 1 holds
        title = f"Why not level {target.number} ({target.name})"
        notes = [f"{one}. Needed: {one.assumption.why}." for one in self.blocked_by]
        return Table(title, notes=notes)

    def _columns(self) -> Table:
        neither = [c.node for c in self.candidates if not (c.role or c.as_z or c.as_x)]
        shown = [c for c in self.candidates if c.node not in neither]
        names = max(len(c.node) for c in shown)
        now = max(len(c.role or "-") for c in shown)
        room = (_WIDTH - names - now) // 2
        rows = [
            (
                c.node,
                c.role or "-",
                _levels(c.as_z, c.against_z, room),
                _levels(c.as_x, c.against_x, room),
            )
            for c in shown
        ]
        notes = []
        if any(c.role is None for c in shown):
            notes.append(
                "Nodes without a role (-) count as unobserved; the entry is for the case that "
                "they are columns."
            )
        if neither:
            notes.append(f"Nodes without a role that may serve as neither: {', '.join(neither)}.")
        if any(violation.assumption in ALWAYS for violation in self.violations):
            notes.append(
                "The entries are about proxies alone: what fails above for T, Y, U or C remains."
            )
        if self.conflicts:
            listed = "; ".join(f"{a} and {b} ({path})" for a, b, path in self.conflicts[:6])
            more = len(self.conflicts) - 6
            notes.append(
                f"Never on opposite sides, being linked beside the class: {listed}"
                + (f"; and {more} more pairs." if more > 0 else ".")
            )
        return Table(
            "Which columns may serve as z and x, and at which levels",
            ("", "now", "as z", "as x"),
            rows,
            notes,
        )


def assumptions_of(roles: Diagram) -> tuple[Assumption, ...]:
    """Return every assumption of any level once, the weakest level's first."""
    every: dict[Assumption, None] = {}
    for level in reversed(LEVELS):
        every |= dict.fromkeys(level.assumptions)
    return tuple(a for a in every if roles.covariates or "C" not in a.right)


def _option(names: tuple[str, ...]) -> str:
    """Return names as an option of the command line lists them, in quotes where they need it."""
    return ",".join(
        '"' + name.replace('"', '""') + '"' if "," in name or '"' in name or name != name.strip()
        else name
        for name in names
    )  # fmt: skip


def _level(number: int) -> Level:
    return LEVELS[number - 1]


def _legend(roles: Diagram) -> str:
    names = {"T": "Treatment", "Y": "Outcome", "U": "Hidden class", "Z": "z", "X": "x",
             "C": "Covariates"}  # fmt: skip
    parts = (
        f"{names[letter]} ({letter}): {', '.join(nodes)}."
        for letter, nodes in roles.legend.items()
        if nodes
    )
    return " ".join(parts)


def _levels(levels: tuple[int, ...], against: str, room: int) -> str:
    """Return levels, or "no" with the reason if there is room for it."""
    if levels:
        return " ".join(map(str, levels))
    return reason if len(reason := f"no: {against}") <= room else "no"


def _violation(violation: Violation) -> dict[str, Json]:
    return {
        "assumption": violation.assumption.name,
        "statement": violation.statement,
        "path": None if violation.path is None else str(violation.path),
        "reason": violation.reason,
    }
