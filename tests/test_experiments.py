"""The studies that ship: files that load, a run from end to end, and draws seen by the oracle."""

import functools
import math
import pathlib

import jax
import numpy as np
import pytest

import jaxmix as jm
from experiments import paper
from jaxmix import study
from jaxmix.status import Status
from jaxmix.study import figures, sweep
from tests import oracles

CONFIGS = sorted(paper.CONFIGS.glob("*.toml"))
VALUES = np.arange(2.0)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_loads_and_asks_for_figures(path):
    config = study.load(path)
    assert config.name == path.stem
    assert config.figures
    text = path.read_text()
    assert [line[:2] for line in text.splitlines()[:2]] == ["# ", "# "]


def test_smoke_runs_from_its_file_to_its_figures(tmp_path):
    config = study.load(paper.CONFIGS / "smoke.toml")
    store = study.Store(tmp_path / "smoke", config)
    lines = study.run(config, store.folder)
    paths = figures.write(store, lines=lines)
    assert store.summary_path.read_text().startswith("estimator,zt_strength,num_replicates")
    assert {line["num_replicates"] for line in lines} == {20}
    assert [path.name for path in paths] == ["smoke_curves.png", "smoke_histograms.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def test_the_comparison_has_every_row_of_the_paper(tmp_path):
    few = ["num_replicates=5", 'estimators=["synthetic"]']
    rows, paths = paper.run(tmp_path, few, long=50)
    assert {row.study for row in rows} == set(paper.STUDIES)
    own = paper.numbers()
    beside = [row for row in rows if not math.isnan(row.paper)]
    strengths = 5
    given = [len(own[name]["synthetic"]) for name in paper.STUDIES]
    # One more in each sweep: medians over a long run.
    assert len(beside) == strengths * (given[0] + given[1] + 2) + given[2] + given[3]
    for name, of in (("level2_vs_level3", "zt"), ("level3_vs_level4", "xy")):
        medians = [r for r in rows if r.study == name and r.quantity == "median error"]
        assert [r.at for r in medians] == [f"{of} = {i / 10}" for i in range(11)]
        assert [r.at for r in medians if not math.isnan(r.paper)] == [
            f"{of} = {value}" for value in own[name]["values"]
        ]
    page = paper.report(rows)
    every = 11 * 2 + strengths  # medians and trimmed means, and the paper's means
    assert page.count("\n| level2_vs_level3 |") == strengths * (given[0] + 1) + every + strengths
    assert "of 10 within three standard errors" in page
    assert all(path.is_file() for path in paths)


def test_a_difference_is_measured_in_the_errors_of_both():
    line = {
        "estimator": "synthetic", "zt_strength": 0.0, "num_replicates": 400,
        "metric": "error_median", "value": 0.0247, "mc_se": 0.001,
    }  # fmt: skip
    (row,) = [r for r in paper.compare("level2_vs_level3", [line]) if not math.isnan(r.paper)]
    # The paper's 100 replicates have twice the error of our 400.
    assert row.z == pytest.approx((0.0247 - 0.0297) / (0.001 * math.sqrt(5)))


def test_medians_are_compared_by_ranks():
    values = np.arange(1000.0) ** 3  # skewed
    assert paper.rank_z(values, np.median(values), 100) == pytest.approx(0.0)
    # 600 of 1,000 beyond: 0.1 over the errors of 100 draws, and of ours.
    expected = 0.1 / math.sqrt(0.25 / 100 + 0.24 / 1000)
    assert paper.rank_z(values, values[399], 100) == pytest.approx(expected)
    row = paper.Row("", "", "synthetic", paper.LONG_MEDIAN, 1.0, 1.0, 0.1, -2.0)
    assert "1 of 1 within three standard errors" in paper.agreement([row])
    # The spread that the formula has is that of medians of 100.
    rng = np.random.default_rng(0)
    drawn = [paper.rank_z(values, np.median(rng.choice(values, 100)), 100) for _ in range(2000)]
    assert np.std(drawn) == pytest.approx(math.sqrt(0.25 / 100 / (0.25 / 100 + 0.00025)), abs=0.05)


def test_paper_says_in_one_line_what_is_wrong(tmp_path, capsys):
    assert paper.main(["--out", str(tmp_path), "--set", "num_replicates=0"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "num_replicates" in error
    assert error.count("\n") == 1


@functools.cache
def cells_of_the_paper():
    """Return the estimates of two strengths, and the same tables drawn again by the key rule."""
    path = pathlib.Path(paper.CONFIGS, "level2_vs_level3.toml")
    config = study.load(
        path,
        ['estimators=["synthetic"]', "num_replicates=150", "grid.zt_strength=[0.0, 1.0]"],
    )
    found = []
    for cell in config.cells:
        (block,) = list(sweep.blocks(config, cell))
        population = jm.populations.paper_main(dict(cell.factors)["zt_strength"])
        key = sweep.cell_key(cell)
        keys = [
            jax.random.fold_in(jax.random.fold_in(key, i), 0) for i in range(config.num_replicates)
        ]
        draw = jax.jit(population.counts, static_argnums=1)
        tables = [np.asarray(draw(own, cell.num_rows)) for own in keys]
        found.append((block.estimates[0], tables))
    return found


def test_estimates_are_the_published_ones_on_the_same_draws():
    compared = 0
    for estimate, tables in cells_of_the_paper():
        for i, table in enumerate(tables):
            effects, shares = oracles.spo_published(table, 2, VALUES)
            if np.isrealobj(effects) and np.isrealobj(shares) and (abs(shares - 0.5) <= 0.5).all():
                np.testing.assert_allclose(estimate.effects[i], effects, atol=1e-8)
                np.testing.assert_allclose(estimate.shares[i], shares, atol=1e-8)
                compared += 1
    assert compared >= 200


def test_statuses_are_failures_where_the_published_ones_are():
    for estimate, tables in cells_of_the_paper():
        for status, table in zip(estimate.status, tables, strict=True):
            effects, shares = oracles.spo_published(table, 2, VALUES)
            failed = oracles.is_failed(effects, shares, VALUES)
            assert failed == (not Status(int(status)).usable)
