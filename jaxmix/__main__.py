"""The command ``jaxmix``; says what to install where the extra 'cli' is missing."""

from __future__ import annotations

import importlib.util
import sys


def main() -> None:
    """Run the command line."""
    missing = [name for name in ("typer", "rich") if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f"jaxmix: the command line needs {' and '.join(missing)}: pip install 'jaxmix[cli]'",
            file=sys.stderr,
        )
        raise SystemExit(2)
    from jaxmix.cli import run

    raise SystemExit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
