"""Two observational data sets, end to end: what each level says, and what speaks against it.

Run ``python -m experiments.real_data [--catheter RHC.csv] [--resamples N]``. LaLonde's rows
come with the package causaldata. The table of right heart catheterization (SUPPORT study; public,
hbiostat.org/data) has to be at hand: columns Y30, RHC, pafi1, paco21, ph1, hema1 and covariates.
"""

from __future__ import annotations

import argparse
import pathlib
import time

import jax
import numpy as np

import jaxmix as jm
from jaxmix import demo

ROLES = {"treatment": "RHC", "outcome": "Y30", "z": ["pafi1", "paco21"], "x": ["ph1", "hema1"]}
OUTCOMES = ("Y30", "survival", "t3d30")  # none of them a covariate


def show(title: str, result: jm.Result | jm.selection.Selection) -> None:
    """Print a result under a title."""
    print(f"\n{'=' * 88}\n{title}\n{'=' * 88}\n{result.summary()}", flush=True)


def lalonde(resamples: int) -> None:
    """Job training: the trained against men of a population survey."""
    data = demo.load_lalonde()
    result = demo.lalonde(data, num_resamples=resamples)
    print(demo.lalonde_words(result, data.trial))
    show("LaLonde: ATT at level 4 with covariates, and level 3 without, three classes", result)
    # Had earnings before, then: two by two by two by two.
    columns = dict(data.columns) | {"works": (np.asarray(data.columns["re78"]) > 0).astype(int)}
    table = jm.CausalData.from_frame(
        columns, treatment="treat", outcome="works", z=["u74"], x=["u75"]
    )
    show("LaLonde: any earnings in 1978, by being without in 1974 and in 1975; level 3",
         jm.fit(table, level=3, num_classes="auto", num_resamples=resamples))  # fmt: skip


def catheter(path: pathlib.Path, resamples: int) -> None:
    """Right heart catheterization: days alive out of 30."""
    raw = np.genfromtxt(path, delimiter=",", names=True)
    frame = {name: raw[name] for name in raw.dtype.names}
    proxies = [*ROLES["z"], *ROLES["x"]]
    covariates = [n for n in frame if n not in (*OUTCOMES, "RHC", *proxies)]
    adjusted = jm.CausalData.from_frame(frame, covariates=covariates, **ROLES)
    show("Catheter: level 4, pooled bridge with covariates, as published",
         jm.fit(adjusted, level=4, bridge="pooled", num_resamples=0))  # fmt: skip
    show("Catheter: level 4, bridge by arm with covariates",
         jm.fit(adjusted, level=4, num_resamples=0))  # fmt: skip
    plain = jm.CausalData.from_frame(frame, **ROLES)
    show("Catheter: number of classes by the moments of the four proxies",
         jm.selection.num_classes(plain, num_resamples=0))  # fmt: skip
    show("Catheter: level 3 beside level 4, two classes, no covariates",
         jm.fit(plain, num_classes=2, num_resamples=resamples))  # fmt: skip
    # Coarse versions, for a table: thirds of the gases, halves of the rest, alive at 30 days.
    coarse = {"RHC": frame["RHC"], "alive": (frame["Y30"] >= 30).astype(int)}
    for name in proxies:
        cuts = np.quantile(frame[name], [1 / 3, 2 / 3] if name in ROLES["z"] else [1 / 2])
        coarse[name] = np.array([f"{name}{i}" for i in np.searchsorted(cuts, frame[name])])
    table = jm.CausalData.from_frame(coarse, **(ROLES | {"outcome": "alive"}))
    show("Catheter: number of classes of the coarse table", jm.selection.num_classes(table))
    show("Catheter: alive at 30 days, coarse proxies; level 3 beside level 4, two classes",
         jm.fit(table, num_classes=2, num_resamples=resamples))  # fmt: skip


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--catheter", type=pathlib.Path, metavar="RHC.csv")
    parser.add_argument("--no-lalonde", action="store_true")
    parser.add_argument("--resamples", type=int, default=500)
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    began = time.perf_counter()
    if not options.no_lalonde:
        lalonde(options.resamples)
    if options.catheter is not None:
        catheter(options.catheter, options.resamples)
    print(f"({time.perf_counter() - began:.0f} s)")


if __name__ == "__main__":
    main()
