"""The command `jaxmix doctor`."""

from __future__ import annotations

import sys

from jaxmix import doctor
from jaxmix.cli.common import compute


def doctor_command() -> int:
    """Say what is installed, and whether it computes right; exit code 1 where it does not."""
    compute()
    found = doctor.examine()
    width = max(len(finding.name) for finding in found)
    for finding in found:
        print(f"{finding.name:<{width}}   {finding.value}")
    for finding in found:
        if finding.trouble:
            kind = "FAILS" if finding.grave else "note"
            print(f"{kind}: {finding.name}: {finding.trouble}")
    if any(finding.grave for finding in found):
        print(
            "jaxmix: this installation computes wrong numbers; see what fails above",
            file=sys.stderr,
        )
        return 1
    print("all well")
    return 0
