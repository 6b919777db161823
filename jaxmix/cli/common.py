"""What the commands share: options, names of columns, outputs checked first and printed last."""

from __future__ import annotations

import io
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from typer.models import ArgumentInfo, OptionInfo

from jaxmix.choices import FIGURES
from jaxmix.doctor import known_trouble
from jaxmix.exceptions import InputError
from jaxmix.fitting.options import OPTIONS
from jaxmix.report.files import check_outputs, expand, write_whole
from jaxmix.report.plots import ForestRow, figure_class

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jaxmix.results.result import Result


def option(name: str) -> OptionInfo:
    """Return an option of `jaxmix.fit` as the command line has it."""
    own = OPTIONS[name]
    found: OptionInfo = typer.Option(own.flag or f"--{name}", help=own.help)
    return found


def file_option(*names: str, metavar: str, words: str) -> OptionInfo:
    """Return an option that names a file, a leading ``~`` being the home folder."""
    found: OptionInfo = typer.Option(*names, metavar=metavar, help=words, callback=_expanded)
    return found


def file_argument(metavar: str, words: str) -> ArgumentInfo:
    """Return an argument that names a file, as `file_option`."""
    found: ArgumentInfo = typer.Argument(metavar=metavar, help=words, callback=_expanded)
    return found


def _expanded(path: pathlib.Path | None) -> pathlib.Path | None:
    return None if path is None else expand(path)


Json = Annotated[
    pathlib.Path | None,
    file_option("--json", metavar="OUT.json", words="Write everything as JSON."),
]
Plot = Annotated[
    pathlib.Path | None,
    file_option("--plot", metavar="OUT.png", words="Draw the effects (png, pdf or svg)."),
]
Resamples = Annotated[int, option("num_resamples")]
Confidence = Annotated[float, option("confidence")]
Z = typer.Option("--z", metavar="NAMES", help="Treatment-side proxies: z1,z2; repeatable.")
X = typer.Option("--x", metavar="NAMES", help="Outcome-side proxies: x1,x2; repeatable.")
Covariates = typer.Option("--covariates", metavar="NAMES", help="To adjust for: a,b; repeatable.")
Seed = Annotated[int, option("seed")]


def names(
    option: str, given: Sequence[str] | None, stored: Sequence[str] = (), *, needed: bool = True
) -> list[str]:
    """Return the names of columns that an option lists; it may be repeated.

    Names are separated by commas. One in double quotes is taken as it is, with its commas and
    blanks, as in a csv file: ``'"a,b",c'``. A name that an earlier repetition brought is not
    taken twice; twice in one list is a slip, and is refused later.

    Parameters
    ----------
    option
        Its name, for messages.
    given
        What it was given, by repetition.
    stored
        The names there are, where they are known: a text that is one of them, while its parts are
        not, needs no quotes.
    needed
        Whether there have to be names. Then a repetition without any makes the list empty, which
        is refused later: an empty variable of a shell is no wish to do with less.

    Examples
    --------
    >>> names("--z", ["z1, z2", '"a,b",c'])
    ['z1', 'z2', 'a,b', 'c']
    >>> names("--z", ["a,b"], stored=["t", "a,b"])
    ['a,b']
    """
    found: list[str] = []
    for text in given or ():
        part = _split(option, text)
        whole = next((name for name in (text, text.strip()) if name in stored), None)
        if whole is not None and not set(part) <= set(stored):
            part = [whole]
        if needed and not part:
            return []
        earlier = set(found)
        found += [name for name in part if name not in earlier or part.count(name) > 1]
    return found


def _split(option: str, text: str) -> list[str]:
    """Return the names in one text: at its commas, but not at those in quotes."""
    if '"' not in text:
        return [name.strip() for name in text.split(",") if name.strip()]
    found, rest = [], text
    while rest.strip():
        rest = rest.lstrip()
        quoted = rest.startswith('"')
        if quoted:
            name, rest = _quoted(option, text, rest)
        else:
            name, _, rest = rest.partition(",")
            name = name.strip()
        if name or quoted:
            found.append(name)
    return found


def _quoted(option: str, text: str, rest: str) -> tuple[str, str]:
    """Return the name in quotes that a text begins with, and what is behind its comma."""
    name, place = "", 1
    while True:
        end = rest.find('"', place)
        if end < 0:
            raise InputError(
                f"{option} is {text!r}: a quote is not closed; write a quote within quotes twice"
            )
        name += rest[place:end]
        if rest[end + 1 : end + 2] != '"':
            break
        name, place = name + '"', end + 2
    behind = rest[end + 1 :].lstrip()
    if behind and not behind.startswith(","):
        raise InputError(
            f"{option} is {text!r}: after a name in quotes there has to be a comma; write a quote "
            "within quotes twice"
        )
    return name, behind[1:]


def check(outputs: Mapping[str, pathlib.Path | None], **inputs: pathlib.Path | None) -> None:
    """Refuse outputs that could not be written or would destroy something, before any work.

    Parameters
    ----------
    outputs
        By option; those but ``--json`` are figures.
    inputs
        What is read, such as ``table`` or ``graph``.
    """
    check_outputs(outputs, {f"the {what}": path for what, path in inputs.items()})
    for option, path in outputs.items():
        if path is None or option == "--json":
            continue
        if path.suffix.lstrip(".").lower() not in FIGURES:
            endings = ", ".join(FIGURES)
            raise InputError(f"{option} is {str(path)!r}: name a file that ends in {endings}")
        figure_class()


def compute() -> None:
    """Make ready to compute: JAX in double precision, with the programs of earlier calls.

    Called by a command once what it was given is known to be right.
    """
    import jax

    from jaxmix.solvers import cache

    warn(known_trouble())
    jax.config.update("jax_enable_x64", True)
    warn(cache.keep().trouble)


def warn(trouble: str) -> None:
    """Print what is wrong, where something is."""
    if trouble:
        print(f"jaxmix: warning: {trouble}", file=sys.stderr)


Writers = Sequence[tuple[pathlib.Path, Callable[[pathlib.Path], None]]]
"""Files, and what writes each."""


def deliver(shown: str, writers: Writers) -> None:
    """Write files, and only then print.

    What is printed is shown even where a file could not be written, and the other files are
    written all the same.
    """
    failed = None
    for path, write in writers:
        try:
            write(path)
        except InputError as error:
            failed = failed or error
        else:
            print(f"wrote {path}", file=sys.stderr)
    print(shown)
    if failed is not None:
        raise failed


def report(
    result: Result,
    command: str,
    json: pathlib.Path | None,
    plot: pathlib.Path | None,
    *,
    words: str = "",
    extra: tuple[ForestRow, ...] = (),
    more: Writers = (),
) -> int:
    """Write what was asked for, print the result, and return the exit code."""
    writers = list(more)
    if plot is not None:
        writers.insert(0, (plot, lambda path: draw(result.plot(extra), path)))
    if json is not None:
        writers.insert(0, (json, lambda path: result.to_json(path, command=command)))
    deliver(f"{words}\n\n{result.summary()}" if words else result.summary(), writers)
    if not result.status.usable:
        print(f"jaxmix: {result.status.name}: {result.status.message}", file=sys.stderr)
        return 1
    return 0


def draw(figure: Figure, path: pathlib.Path) -> None:
    """Write a figure, whole or not at all."""
    picture = io.BytesIO()
    figure.savefig(picture, format=path.suffix.lstrip(".").lower(), dpi=150)
    write_whole(path, picture.getvalue())
