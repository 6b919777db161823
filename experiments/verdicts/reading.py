"""Random tables with traps, through every way in: the same arrays, or one line.

Run ``python -m experiments.verdicts.reading [--tables N] [--seed S]``. Each table is read from csv
(several encodings, compressions and names), parquet, pandas, polars, Arrow and dicts, and compared
with a plain Python oracle that knows what each column was made to hold. It prints how many readings
gave the right arrays, how many the right one-line error, by trap, and every contradiction.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import datetime
import decimal
import pathlib
import random
import tempfile
import time
from typing import Any

import numpy as np

import jaxmix as jm
from experiments.verdicts import ways_in
from jaxmix.status import InputError

BIG = (2**53, 10 * 2**53, 2**60, 2**62, 2**63, -(2**53) - 200, -(2**62), 10**25)
MARKS = (".", "?", "-", "None", "NONE", "none", "--", " ", "   ", "<NA>", "<na>")
NULLS = ("NA", "nan", "NaN", "NAN", "null", "NULL", "N/A", "n/a", "#N/A")
KEPT = tuple(mark for mark in MARKS if mark.strip() and mark.lower() != "<na>")
WORDS = ("a", "b", "S\u00fcd", "S\u00e4d", "two words", 'a "quote"', "a,b", "a;b", "line\nbreak",
         "x ", "'", "1a", "yes")  # fmt: skip
COMMAS = (
    "0,5",
    "-1,25",
    "1,234",
    "12,345.6",
    "1.234,5",
    "1.234.567",
    "1 234",
    "1'234",
    ",5",
    "1,5e3",
)


@dataclasses.dataclass
class Column:
    """Cells as they are put in, and what should come out."""

    trap: str
    cells: list[Any]
    values: list[Any]  # numbers, or texts, or None for a missing cell
    names: bool = False  # whether the values are names, exactly as they are
    declared: bool = False
    error: str = ""  # what the line should say
    marked: dict[str, int] = dataclasses.field(default_factory=dict)
    kept: dict[str, int] = dataclasses.field(default_factory=dict)


class Maker:
    """Random columns for a role."""

    def __init__(self, rng: random.Random, n: int) -> None:
        self.rng, self.n = rng, n

    def pick(self, choices: Any) -> list[Any]:
        """Return n choices, each of which occurs."""
        choices = list(choices)
        cells = choices + [self.rng.choice(choices) for _ in range(self.n - len(choices))]
        self.rng.shuffle(cells)
        return cells[: self.n]

    def holes(self, column: Column, most: float = 0.1) -> Column:
        """Make a few cells of a column missing."""
        for row in self.rng.sample(range(self.n), self.rng.randint(0, int(most * self.n))):
            column.cells[row] = column.values[row] = None
        return column

    def put(self, column: Column, texts: Any, count: int, *, keep: bool = False) -> Column:
        """Put marks into cells: missing ones, or levels that are kept and told."""
        for row in self.rng.sample(range(self.n), count):
            text = self.rng.choice(texts)
            column.cells[row], column.values[row] = text, text if keep else None
            told = column.kept if keep else column.marked
            told[text] = told.get(text, 0) + 1
        return column

    def numbers(self, role: str) -> Column:
        """Return plain numbers."""
        kind = self.rng.choice(("whole", "fractions", "few", "truth"))
        cells: list[Any]
        if kind == "truth" and role != "weights":
            cells = self.pick((False, True))
            return Column("truth", cells, [int(c) for c in cells])
        if kind == "fractions":
            cells = [
                self.rng.uniform(0.1, 9) * 10 ** self.rng.randint(-3, 3) for _ in range(self.n)
            ]
        else:
            cells = self.pick(range(1, 4) if kind == "few" else range(1, 20))
        return Column(kind, cells, list(cells))

    def written(self, role: str) -> Column:
        """Return numbers as text, some in unusual spellings."""
        values = self.pick(range(1, 6) if role == "cluster" else range(1, 16))
        style = self.rng.choice(("{}", "{}.0", "+{}", " {} ", "0{}", "{}e0"))
        cells = [style.format(value) for value in values]
        return Column("written", cells, [*map(int, values)])

    def marks(self, role: str) -> Column:
        """Return numbers with marks in at most a fifth of the cells."""
        column = self.numbers(role)
        count = self.rng.randint(1, self.n // 5)
        return dataclasses.replace(self.put(column, MARKS + NULLS, count), trap="marks")

    def nulls(self, role: str) -> Column:
        """Return numbers with spellings of null in up to half of the cells."""
        count = self.rng.randint(1, self.n // 2)
        return dataclasses.replace(self.put(self.numbers(role), NULLS, count), trap="nulls")

    def many_marks(self, role: str) -> Column:
        """Return numbers with marks in more than a fifth."""
        column = self.put(self.numbers(role), MARKS, self.n // 5 + self.rng.randint(1, 5))
        return dataclasses.replace(column, trap="many marks", error="more than a fifth")

    def commas(self, role: str) -> Column:
        """Return numbers with commas, among plain ones or alone."""
        texts = self.pick(COMMAS) if self.rng.random() < 0.5 else self.pick(["1", "2.5", "0,5"])
        return Column(
            "commas", texts, texts, error="" if role == "cluster" else "write 0.5", names=True
        )

    def strays(self, role: str) -> Column:
        """Return numbers with a stray word."""
        cells: list[Any] = self.pick(range(1, 9))
        cells[self.rng.randrange(self.n)] = "oops"
        return Column("stray word", cells, [*map(str, cells)], names=True, error="oops")

    def large(self, role: str) -> Column:
        """Return whole numbers that floats do not hold."""
        base = self.rng.choice(BIG)
        wide = role not in ("cluster", "treatment")
        few = self.pick([base + i for i in range(1, 2 + self.rng.randint(1, 5))])
        column = Column("large whole numbers", few, list(few))
        if self.rng.random() < 0.3:
            column.cells = [decimal.Decimal(cell) for cell in few]
        elif self.rng.random() < 0.3:
            column.cells = [*map(str, few)]
        column = self.holes(column)
        column.names = wide and any(v is not None and int(float(v)) != v for v in column.values)
        return column

    def close(self, role: str) -> Column:
        """Return many large whole numbers that would fall together."""
        cells = [2**60 + i for i in range(self.n)]
        if self.n <= 64:
            return self.numbers(role)
        return Column("too close", cells, cells, error="subtract a constant")

    def decimals(self, role: str) -> Column:
        """Return decimals, which are numbers."""
        values = self.pick([0.25 * i for i in range(1, 9)])
        return self.holes(Column("decimals", [decimal.Decimal(repr(v)) for v in values], values))

    def words(self, role: str) -> Column:
        """Return text, in which some marks are levels and some are not."""
        cells = self.pick(self.rng.sample(WORDS, self.rng.randint(2, 4)))
        column = self.holes(Column("words", cells, list(cells), names=True))
        if self.rng.random() < 0.4:
            column = self.put(column, self.rng.sample(KEPT, 1), self.rng.randint(1, 3), keep=True)
            column.trap = "words with a mark"
        elif self.rng.random() < 0.4:
            column = self.put(column, (*NULLS, " ", "<NA>"), self.rng.randint(1, 3))
            column.trap = "words with nulls"
        return column

    def category(self, role: str) -> Column:
        """Return whole numbers that are declared to be categories."""
        base = self.rng.choice((0, 8) if role == "outcome" else (0, 8, 2**60))
        cells = self.pick([base + i for i in range(1, 2 + self.rng.randint(1, 4))])
        wide = role not in ("outcome", "weights")
        return self.holes(Column("declared", cells, list(cells), names=wide, declared=True))

    def dates(self, role: str) -> Column:
        """Return dates, which may be clusters."""
        days = [datetime.date(2020, 1, day) for day in self.pick(range(1, 6))]
        fine = role in ("cluster", "treatment")
        texts = [day.isoformat() for day in days]
        return Column("dates", days, texts, names=True, error="" if fine else "dates or times")

    def zeros(self, role: str) -> Column:
        """Return numbers of which one is written in two ways."""
        cells = self.pick(["01", "1", "2"])
        return Column("leading zeros", cells, [*map(int, cells)], error="which are one number")

    def lonely(self, role: str) -> Column:
        """Return a column with one cell present."""
        cells: list[Any] = [None] * self.n
        cells[self.rng.randrange(self.n)] = 3
        return Column("one cell", cells, list(cells), error="cells that is not missing|every row")


def choices(role: str) -> tuple[str, ...]:
    """Return the traps of a role."""
    common = ("numbers", "numbers", "written", "marks", "nulls", "many_marks", "decimals")
    if role in ("outcome", "weights"):
        return (*common, "category")
    if role == "treatment":
        return ("large", "words", "category", "marks", "numbers", "written", "dates")
    if role == "cluster":
        return (*common, "commas", "large", "large", "words", "category", "dates")
    return (*common, "commas", "strays", "large", "large", "close", "words", "words", "words",
            "category", "dates", "zeros", "lonely")  # fmt: skip


def make(seed: int) -> tuple[dict[str, Column], dict[str, Any]]:
    """Return a random table and its roles; about half of the tables have no error in them."""
    rng = random.Random(seed)
    maker = Maker(rng, rng.choice((30, 45, 80)))
    roles = {"t": "treatment", "y": "outcome", "z one": "z", "x": "x"}
    roles |= {name: role for name, role in (("z,2", "z"), ("c", "covariates"), ("w", "weights"),
                                            ("g", "cluster")) if rng.random() < 0.5}  # fmt: skip
    columns, wrong_left = {}, rng.random() < 0.5
    for name, role in roles.items():
        while True:
            trap = rng.choice(choices(role)) if rng.random() < 0.6 else "numbers"
            column = getattr(maker, trap)(role)
            if role == "treatment" and trap in ("numbers", "marks", "written"):
                column = maker.numbers("treatment")
                cells = maker.pick((0, 1))
                column = Column("arms", cells, list(cells))
                if trap == "marks":
                    column = maker.put(column, MARKS, rng.randint(1, maker.n // 5))
            if column.error and not wrong_left:
                continue
            if role == "treatment" and len({v for v in column.values if v is not None}) != 2:
                continue
            wrong_left = wrong_left and not column.error
            columns[name] = column
            break
    named: dict[str, Any] = {"treatment": "t", "outcome": "y", "z": [], "x": [], "covariates": []}
    for name, role in roles.items():
        if role in ("z", "x", "covariates"):
            named[role].append(name)
        else:
            named[role] = name
    if "g" in columns and _few_clusters(columns):
        del columns["g"], named["cluster"]
    named["control"] = text_of(next(v for v in columns["t"].values if v is not None))
    return columns, named


def _few_clusters(columns: dict[str, Column]) -> bool:
    """Whether an arm has fewer than three clusters, which is refused for another reason."""
    rows = zip(*(column.values for column in columns.values()), strict=True)
    whole = [dict(zip(columns, row, strict=True)) for row in rows if None not in row]
    arms = {row["t"] for row in whole}
    return any(len({row["g"] for row in whole if row["t"] == arm}) < 3 for arm in arms)


def text_of(value: Any) -> str:
    """Return a value as the label that it should have."""
    if isinstance(value, float) and value == int(value):
        return str(int(value))
    return str(value)


# ------------------------------------------------------------------------------------ the oracle


def expected(columns: dict[str, Column], named: dict[str, Any]) -> Any:
    """Return the arrays that should come out, or the error that should be said."""
    wrong = [(name, column.error) for name, column in columns.items() if column.error]
    if wrong:
        return wrong
    n = len(columns["t"].cells)
    rows = [i for i in range(n) if all(c.values[i] is not None for c in columns.values())]

    def codes(column: Column) -> tuple[list[int], list[Any]]:
        known = sorted({column.values[i] for i in rows})
        return [known.index(column.values[i]) for i in rows], known

    def facts(name: str) -> tuple[Any, ...]:
        column = columns[name]
        if column.names:
            own, known = codes(column)
            return name, own, tuple(text_of(value) for value in known)
        return name, [float(column.values[i]) for i in rows], None

    for name, column in columns.items():
        if len({column.values[i] for i in rows}) < 2 and name != "w":
            return [(name, "")]
    own, known = codes(columns["t"])
    order = [text_of(value) for value in known]
    control = order.index(named["control"])
    weights = [float(columns["w"].values[i]) for i in rows] if "w" in columns else None
    return {
        "arms": (order[control], *(a for a in order if a != order[control])),
        "t": [int(code != control) for code in own],
        "outcome": facts("y"),
        **{role: [facts(name) for name in named[role]] for role in ("z", "x", "covariates")},
        "weight": weights and [w / (sum(weights) / len(weights)) for w in weights],
        "cluster": codes(columns["g"])[0] if "g" in columns else None,
        "num_dropped": n - len(rows),
        "missing": {name: sum(v is None for v in column.values)
                    for name, column in columns.items() if None in column.values},
    }  # fmt: skip


def _as_codes(
    columns: dict[str, Column], right: dict[str, Any], *, all_text: bool
) -> dict[str, Any]:
    """Return proxies and covariates of a table with types: whole numbers as text are codes."""

    def facts(own: tuple[Any, ...]) -> tuple[Any, ...]:
        name, values, levels = own
        column = columns[name]
        texts = ways_in.texts(column) if all_text else column.cells
        for text in texts:
            is_code = isinstance(text, str) and text.lstrip("-").isdecimal()
            if text is not None and not (is_code and str(int(text)) == text):
                return own
        if levels is not None or column.declared:
            return own
        known = sorted({str(int(value)) for value in values})
        return name, [known.index(str(int(value))) for value in values], tuple(known)

    return {role: list(map(facts, right[role])) for role in ("z", "x", "covariates")}


def found(data: jm.CausalData) -> dict[str, Any]:
    """Return what came out, as plain values."""

    def facts(column: Any) -> tuple[Any, ...]:
        return column.name, column.values.tolist(), column.levels

    return {
        "arms": data.arms,
        "t": data.t.tolist(),
        "outcome": facts(data.outcome),
        "z": [facts(column) for column in data.z],
        "x": [facts(column) for column in data.x],
        "covariates": [facts(column) for column in data.covariates],
        "weight": None if data.weight is None else data.weight.tolist(),
        "cluster": None if data.cluster is None else data.cluster.tolist(),
        "num_dropped": data.num_dropped,
        "missing": dict(data.missing),
    }


def same(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    """Return the first name under which the two differ; weights are compared to rounding."""
    for name, value in theirs.items():
        if name == "weight" and value is not None and ours[name] is not None:
            if not np.allclose(ours[name], value, rtol=1e-13, atol=0):
                return name
        elif ours[name] != value:
            return name
    return ""


# ---------------------------------------------------------------------------------- the comparison


def compare(seed: int, folder: pathlib.Path) -> list[tuple[str, str, str]]:
    """Return (way, what came of it, why it is wrong or "") for one table through every way in."""
    columns, named = make(seed)
    right = expected(columns, named)
    told = {
        f"of column {name!r}: {count} cells {mark!r}"
        for name, column in columns.items()
        for mark, count in column.marked.items()
    }
    told |= {
        f"column {name!r} keeps {mark!r} ({count} cells) as a level"
        for name, column in columns.items()
        for mark, count in column.kept.items()
        if name not in ("y", "w")
    }
    lines = []
    for way, load in ways_in.ways(columns, folder, seed).items():
        wanted = right
        if isinstance(right, dict) and way not in ways_in.TYPELESS:
            wanted = right | _as_codes(columns, right, all_text=way == "dict of texts")
        try:
            data = load(named)
        except InputError as error:
            lines.append((way, "one line", _wrong_line(str(error), wanted)))
            continue
        except Exception as error:
            lines.append((way, "traceback", f"{type(error).__name__}: {error}"[:200]))
            continue
        if isinstance(wanted, list):
            lines.append((way, "same arrays", f"read, and should be refused: {wanted}"))
            continue
        wrong = same(found(data), wanted)
        if wrong:
            wrong = f"{wrong} is {found(data)[wrong]}, and should be {wanted[wrong]}"
        notes = " ".join(data.notes)
        silent = [note for note in told if not all(part in notes for part in note.split(": "))]
        lines.append((way, "same arrays", wrong or (f"not told: {silent}" if silent else "")))
    return lines


def _wrong_line(line: str, right: Any) -> str:
    """Return what is wrong with an error, or nothing."""
    if not isinstance(right, list):
        return f"refused, and should be read: {line}"
    if "\n" in line or not line.isprintable():
        return f"not one line: {line!r}"
    fits = any(
        repr(name) in line and (not error or any(part in line for part in error.split("|")))
        for name, error in right
    )
    return "" if fits else f"another line: {line}; should say {right}"


def main() -> int:
    """Read the tables, print the counts, and return 1 where anything is contradicted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    begin = time.perf_counter()
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    traps: collections.Counter[str] = collections.Counter()
    wrong: list[str] = []
    for seed in range(asked.seed, asked.seed + asked.tables):
        traps.update({column.trap for column in make(seed)[0].values()})
        with tempfile.TemporaryDirectory() as folder:
            for way, what, why in compare(seed, pathlib.Path(folder)):
                counts[way, "wrong" if why else what] += 1
                if why:
                    wrong.append(f"table {seed}, {way}: {why}")
    names = sorted({way for way, _ in counts})
    print(f"{'way in':28} {'same arrays':>12} {'one line':>9} {'wrong':>6}")
    kinds = ("same arrays", "one line", "wrong")
    for way in (*names, "in all"):
        row = [sum(counts[name, kind] for name in (names if way == "in all" else [way]))
               for kind in kinds]  # fmt: skip
        print(f"{way:28} {row[0]:12,} {row[1]:9,} {row[2]:6,}")
    print("tables by trap: " + ", ".join(f"{trap} {num:,}" for trap, num in traps.most_common()))
    seconds = time.perf_counter() - begin
    print(f"{asked.tables:,} tables in {seconds:,.0f} s; {len(wrong):,} contradictions")
    for line in wrong[:20]:
        print(line)
    return int(bool(wrong))


if __name__ == "__main__":
    raise SystemExit(main())
