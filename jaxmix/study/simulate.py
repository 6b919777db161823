"""Rows of a population with known truth, as a file."""

from __future__ import annotations

import dataclasses
import io
import pathlib
import shlex
from collections.abc import Mapping

import jax
import numpy as np

from jaxmix.report.files import write_whole
from jaxmix.report.tables import number
from jaxmix.status import InputError
from jaxmix.study.configuration.population import PopulationSpec
from jaxmix.study.tables import parquet


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Rows, and the truth behind them.

    Attributes
    ----------
    columns
        By name.
    effects, shares, ate, naive
        The true law, its mean, and the exact difference in means.
    level
        The strongest level of the hierarchy that holds.
    onehot
        Whether the proxies are levels, and not amounts.
    """

    columns: Mapping[str, np.ndarray]
    effects: np.ndarray
    shares: np.ndarray
    ate: float
    naive: float
    level: int
    onehot: bool

    def words(self, path: pathlib.Path) -> str:
        """Return what was drawn, the truth, and the command that estimates it."""
        n = len(next(iter(self.columns.values())))
        z, x = (",".join(c for c in self.columns if c.startswith(first)) for first in "ZX")
        effects, shares = (", ".join(number(float(v), 4) for v in row) for row in
                           (self.effects, self.shares))  # fmt: skip
        coding = " --features onehot" if self.onehot else ""
        return "\n".join([
            f"wrote {n:,} rows to {path}; level {self.level} holds",
            f"  class effects         {effects}",
            f"  class shares          {shares}",
            f"  average effect        {number(self.ate, 4)}",
            f"  difference in means   {number(self.naive, 4)}",
            f"fit it: jaxmix fit {shlex.quote(str(path))} --treatment T --outcome Y --z {z} --x {x}"
            f"{coding} --classes {len(self.effects)}",
        ])  # fmt: skip


def draw(spec: PopulationSpec, num_rows: int, seed: int, *, with_class: bool = False) -> Drawn:
    """Draw rows of a population; a random one is drawn from the seed too.

    Parameters
    ----------
    spec
        From `jaxmix.study.population.population_of_file`.
    num_rows
        Number of rows.
    seed
        Of the draw.
    with_class
        Whether the hidden class is among the columns, as U.
    """
    of_population, of_rows = (jax.random.fold_in(jax.random.key(seed), i) for i in range(2))
    population = spec.build(of_population)
    columns = {name: np.asarray(v) for name, v in population.sample(of_rows, num_rows).items()}
    columns = {
        name: columns[name]
        for name in sorted(columns, key=lambda name: ("TZXYU".index(name[0]), name))
        if with_class or name != "U"
    }
    law = population.law
    return Drawn(
        columns,
        np.asarray(law.effects),
        np.asarray(law.shares),
        float(population.ate),
        float(population.naive),
        population.level,
        spec.is_table,
    )


def check_ending(path: pathlib.Path) -> None:
    """Refuse an output that is neither csv nor parquet, before any work is done."""
    if path.is_dir():
        raise InputError(f"the output {str(path)!r} is a folder; name a file")
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise InputError(f"the output {str(path)!r} ends in neither .csv nor .parquet; name one")


def write(columns: Mapping[str, np.ndarray], path: pathlib.Path) -> None:
    """Write columns as csv or parquet, by the ending of the path."""
    pa = parquet()
    table = pa.table({name: pa.array(values) for name, values in columns.items()})
    sink = io.BytesIO()
    if path.suffix.lower() == ".parquet":
        pa.parquet.write_table(table, sink)
    else:
        import pyarrow.csv

        pyarrow.csv.write_csv(table, sink, pyarrow.csv.WriteOptions(quoting_style="none"))
    write_whole(path, sink.getvalue())
