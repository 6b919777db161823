"""Whether two records of a fit are the same, number by number."""

import math
from typing import Any

# How the optimum was met, and not what it is.
SOLVER = {"decrement", "steps", "runner_up", "num_starts", "num_agree", "miss_rate"}
# Ends of searches are found to a tolerance. That of the spread is the root of a variance, and one
# near 0 that is known to 1e-10 has a root that is known to 1e-5.
SEARCHED = {".sensitivity": 1e-6, ".spread.interval": 1e-5}


def differences(new: Any, old: Any, tolerance: float, path: str = "") -> list[str]:
    """Return where two records differ, one line each.

    Numbers may differ by `tolerance`, relative to the larger of 1 and their size.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        before, now = old.keys() - SOLVER, new.keys() - SOLVER
        found = [f"{path}.{name}: only before" for name in before - now]
        found += [f"{path}.{name}: only now" for name in now - before]
        for name in sorted(before & now):
            found += differences(new[name], old[name], tolerance, f"{path}.{name}")
        return found
    if isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            return [f"{path}: {len(old)} entries before, {len(new)} now"]
        return [
            line
            for i, pair in enumerate(zip(new, old, strict=True))
            for line in differences(*pair, tolerance, f"{path}[{i}]")
        ]
    tolerance = max([tolerance, *(loose for part, loose in SEARCHED.items() if part in path)])
    numbers = [isinstance(v, int | float) and not isinstance(v, bool) for v in (old, new)]
    if all(numbers):
        same = math.isclose(new, old, rel_tol=tolerance, abs_tol=tolerance)
        same |= math.isnan(new) and math.isnan(old)
    else:
        same = new == old
    return [] if same else [f"{path}: {old!r} before, {new!r} now"]
