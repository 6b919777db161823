"""The command `jaxmix identify`."""

from __future__ import annotations

import pathlib
from typing import Annotated

import typer

from jaxmix.cli.common import Covariates, Json, Writers, X, Z, check, deliver, file_argument, names


def identify_command(
    context: typer.Context,
    graph: Annotated[pathlib.Path, file_argument("GRAPH", "A .toml file with roles, or .dot.")],
    treatment: Annotated[
        str | None, typer.Option("--treatment", help="Node of the treatment.")
    ] = None,
    outcome: Annotated[str | None, typer.Option("--outcome", help="Node of the outcome.")] = None,
    latent: Annotated[
        str | None, typer.Option("--latent", help="Node of the hidden class.")
    ] = None,
    z: Annotated[list[str] | None, Z] = None,
    x: Annotated[list[str] | None, X] = None,
    covariates: Annotated[list[str] | None, Covariates] = None,
    separable: Annotated[
        bool | None,
        typer.Option(
            "--separable/--not-separable", help="The class is a function of observed columns."
        ),
    ] = None,
    json: Json = None,
) -> int:
    """Say which level of the hierarchy a causal graph supports, and why not a stronger one.

    Options name roles, and override those of the file.
    """
    check({"--json": json}, graph=graph)
    from jaxmix.hierarchy import identify

    verdict = identify(
        graph,
        treatment=treatment,
        outcome=outcome,
        latent=latent,
        z=names("--z", z) if z else None,
        x=names("--x", x) if x else None,
        covariates=names("--covariates", covariates, needed=False) if covariates else None,
        separable=separable,
    )
    writers: Writers = ()
    if json is not None:
        writers = [(json, lambda path: verdict.to_json(path, command=context.obj))]
    deliver(verdict.summary(), writers)
    return 0
