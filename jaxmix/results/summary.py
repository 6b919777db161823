"""A result in words: the tables that `Result.summary` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxmix.inference.specification.registry import FURTHER
from jaxmix.report.tables import Table, classes, interval, number
from jaxmix.results.estimates import CLASSES
from jaxmix.status import Status

if TYPE_CHECKING:
    from jaxmix.results.estimates import Estimate
    from jaxmix.results.result import Result

_CAVEAT_POOLED = (
    "Pooled form: treatment enters once, linearly. The coefficient is the effect only if the "
    "effect does not vary with the hidden class; otherwise it is a weighted average that is "
    "neither ATE nor ATT, and the means above rest on that too."
)
_CAVEAT_CLASSES = {
    3: "Conditional on X not affecting Y, of which the data cannot reveal every violation. Class "
    "effects are averages within a class.",
    2: "Conditional on X not affecting Y and Z not affecting T, of which the data cannot reveal "
    "every violation. Class effects are averages within a class.",
}
_CAVEAT_ONE_CLASS = (
    "One class: no hidden confounding is assumed, and nothing but covariates is adjusted for."
)
_ASSUMES = {
    2: "Assumes: hidden class U with treatment as good as random within it; Z, X and (T, Y) "
    "unrelated to one another once U is known; proxies that carry U.",
    4: "Assumes: hidden class U with treatment as good as random within it; X unrelated to (Z, T) "
    "and Z unrelated to Y (given T) once U is known; proxies that carry U.",
    3: "Assumes: hidden class U with treatment as good as random within it; X unrelated to "
    "(Z, T, Y) and Z unrelated to Y (given T) once U is known; proxies that carry U.",
}
_BESIDE = {CLASSES: "conditional on X not affecting Y"}


def tables(result: Result) -> list[Table]:
    """Return the effect, the classes where there are any, and the diagnostics."""
    parts = [_effect_table(result)]
    if result.selection is not None:
        parts.append(result.selection.table_with_reasons())
    if result.level < 4 and result.law is not None:
        parts.append(_class_table(result))
        parts += _sensitivity_tables(result)
    parts.append(_diagnostic_table(result))
    for name, other in result.beside.items():
        parts.append(Table(f"Beside it, {_BESIDE.get(name, name)}:"))
        parts += tables(other)
    return parts


def in_brief(result: Result) -> str:
    """Return the effect with its standard error, and the class effects, in a few words."""
    found = f"{result.estimand_name} {number(result.ate.value, 3)}"
    if result.ate.se is not None:
        found += f" (std. error {number(result.ate.se, 2)})"
    if result.law is not None:
        effects = ", ".join(number(float(effect), 3) for effect in result.law.effects)
        found += f"; by class {effects}"
    return found


def _effect_table(result: Result) -> Table:
    percent = f"{100 * result.confidence:g} % interval"
    of = " | treated" if result.estimand == "ATT" else ""
    rows = [_row("difference in means", result.naive), _row(result.estimand_name, result.ate)]
    rows += [
        _row(f"E[Y({label}){of}]", estimate) for label, estimate in result.potential_means.items()
    ]
    how = {"by_arm": "bridge by arm", "pooled": "pooled bridge"}[result.bridge]
    method = how if result.level == 4 else f"{result.method}, {classes(result.num_classes or 0)}"
    notes = []
    if not result.status.usable:
        notes.append(f"NOT TO BE USED. {result.status.name}: {result.status.message}.")
    elif result.status is not Status.SUCCESS:
        notes.append(f"WARNING. {result.status.name}: {result.status.message}.")
    notes += [f"Note: {warning}." for warning in result.warnings]
    if result.level == 4 and result.bridge == "pooled":
        notes.append(_CAVEAT_POOLED)
    if result.level < 4:
        notes.append(_CAVEAT_CLASSES[result.level])
    if result.num_classes == 1:
        notes.append(_CAVEAT_ONE_CLASS)
    notes.append(_ASSUMES[result.level])
    if result.verdict is not None:
        notes.append(
            f"The graph supports level {result.verdict.level} (see 'jaxmix identify'), if it is "
            "the right graph."
        )
    title = (
        f"Effect of {result.treatment} ({result.arm} against {result.control}) on "
        f"{result.outcome}, level {result.level} ({method})"
    )
    return Table(title, ("", "estimate", "std. error", percent), rows, notes)


def _class_table(result: Result) -> Table:
    law = result.law
    assert law is not None
    rows = []
    for u in range(len(law.effects)):
        cells = [str(u + 1)]
        for name in ("share", "effect"):
            values = getattr(law, f"{name}s")
            se = None if result.law_se is None else getattr(result.law_se, f"{name}s")[u]
            bounds = result.law_interval and tuple(getattr(result.law_interval, f"{name}s")[u])
            cells += [number(float(values[u])), number(se), interval(bounds)]
        rows.append(cells)
    notes = []
    if result.share_harmed is not None:
        shown = number(result.share_harmed.value) + (
            ""
            if result.share_harmed.interval is None
            else f" {interval(result.share_harmed.interval)}"
        )
        worse = "lower" if result.better == "higher" else "higher"
        notes.append(
            f"Share of people in classes whose average effect is harmful ({worse} "
            f"{result.outcome}): {shown}."
        )
    if result.spread is not None:
        shown = " ".join([number(result.spread.value), interval(result.spread.interval)])
        notes.append(f"Standard deviation of the class effects: {shown.strip()}.")
    notes += _unresolved(result)
    people = "the treated" if result.estimand == "ATT" else "everybody"
    return Table(
        f"Hidden classes among {people}, by increasing effect",
        ("class", "share", "std. error", "interval", "effect", "std. error", "interval"),
        rows,
        notes,
    )


def _unresolved(result: Result) -> list[str]:
    """Say which classes the data do not tell apart, and what they are together."""
    notes = []
    law, bands = result.law, result.bands
    assert law is not None
    for group in () if bands is None else bands.groups:
        if len(group) == 1:
            continue
        share = float(sum(law.shares[u] for u in group))
        mean = float(sum(law.shares[u] * law.effects[u] for u in group)) / share if share else 0.0
        named = ", ".join(str(u + 1) for u in group[:-1]) + f" and {group[-1] + 1}"
        notes.append(
            f"Classes {named} are not resolved: the intervals of their effects overlap. Read them "
            f"as one, with share {number(share)} and average effect {number(mean)}."
        )
    return notes


def _sensitivity_tables(result: Result) -> list[Table]:
    """Return the bounds where level 3's assumption fails, or the reason why there are none."""
    if result.sensitivity is not None:
        return [result.sensitivity.table(kind) for kind in ("bounds", "intervals")]
    if not result.diagnostics.checks.asked:
        return []
    return [Table("Sensitivity", notes=[f"Does not apply: {result.untested}."])]


_INTERVALS = {
    "profile": "profile likelihood; of the share harmed, those of the classes projected",
    "percentile": "percentiles of the resamples",
    "basic": "basic bootstrap",
    "normal": "normal, by the standard errors",
    "studentized": "studentized bootstrap",
    "bca": "bootstrap, corrected for bias and skewness (BCa)",
}


def _diagnostic_table(result: Result) -> Table:
    d = result.diagnostics
    sizes = ", ".join(f"{result.treatment}={arm} {size:,}" for arm, size in d.arm_sizes.items())
    dropped = f"{result.num_dropped:,} dropped"
    if result.missing:
        cells = ", ".join(f"{name} {count:,}" for name, count in result.missing.items())
        dropped += f" (missing cells: {cells})"
    notes = [f"Rows: {result.num_rows:,} ({sizes}); {dropped}."]
    for arm, values in d.singular_values.items():
        given = "" if arm == "all" else f" | {result.treatment}={arm}"
        listed = ", ".join(number(value, 3) for value in values[:6])
        listed += ", ..." if len(values) > 6 else ""
        strength = d.proxy_strength.get(arm)
        used = (
            ""
            if strength is None
            else (f"; effective F of the smallest used {number(strength, 3)}")
        )
        notes.append(f"Proxies: singular values of E[z x{given}] {listed}{used}.")
    if d.gap is not None and d.condition is not None:
        notes.append(
            f"Spectrum: smallest gap {number(d.gap, 3)} of the outcome's range; condition of "
            f"the class profiles {number(d.condition, 3)}."
        )
    if "num_starts" in d.starts:
        starts, agree = int(d.starts["num_starts"]), int(d.starts["num_agree"])
        text = f"Solver: {starts} start{'s' * (starts > 1)}"
        text += f", {agree} of them at the best optimum" if starts > 1 else ""
        steps = int(d.starts["steps"])
        text += f", {steps} step{'s' * (steps != 1)}"
        if "log_likelihood" in d.starts:
            text += f"; log-likelihood {d.starts['log_likelihood']:,.3f}"
        if "miss_rate" in d.starts:
            rate = number(100 * d.starts["miss_rate"], 2)
            text += f"; {rate} % of such searches miss an optimum that draws one start in ten"
        notes.append(text + ".")
    repaired = {name: size for name, size in d.repairs.items() if size > 1e-6}
    if repaired:
        sizes = ", ".join(f"{name} {number(size, 3)}" for name, size in repaired.items())
        notes.append(f"Repaired to get these numbers: {sizes}.")
    if d.complex_spectra is not None:
        share = number(100 * d.complex_spectra, 3)
        notes.append(f"Spectra: complex in {share} % of resamples.")
    notes.append(f"Specification test: {d.specification}.")
    notes += [f"{FURTHER[name].title}: {test}." for name, test in d.tests.items()]
    if d.influential:
        top = d.influential[0]
        named = ", ".join(f"{name}={value}" for name, value in list(top.values.items())[:6])
        named += ", ..." if len(top.values) > 6 else ""
        rows = "the row" if top.copies == 1 else f"the {top.copies:,} rows"
        notes.append(
            f"Most influential: {rows} with {named}; without, the estimate would change by about "
            f"{number(top.change, 3)}."
        )
    if d.num_resamples:
        failed = "none failed"
        if d.num_failed:
            causes = ", ".join(f"{name} {count}" for name, count in d.failed.items())
            failed = f"{d.num_failed} failed and are left out ({causes})"
        text = f"Resamples: {d.num_resamples:,} {d.resampling}, {failed}"
        if d.out_of_range:
            text += f"; {d.out_of_range} out of range, kept"
        if d.ambiguous:
            text += f"; {d.ambiguous} with ambiguous classes"
        notes.append(text + f"; seed {result.seed}.")
    notes.append(f"Intervals: {_INTERVALS[d.interval]}.")
    return Table("Diagnostics", notes=notes)


def _row(name: str, estimate: Estimate) -> tuple[str, str, str, str]:
    return name, number(estimate.value), number(estimate.se), interval(estimate.interval)
