"""The module `jaxmix.sample.features` by its public name."""

from jaxmix.sample.features import (
    Views,
    cell_names,
    copies,
    distinct,
    encode,
    max_rank,
    nothing_left,
    refuse_copies,
)

__all__ = [
    "Views",
    "cell_names",
    "copies",
    "distinct",
    "encode",
    "max_rank",
    "nothing_left",
    "refuse_copies",
]
