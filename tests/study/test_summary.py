"""The summary of a study, against a recomputation from the replicate tables with pandas."""

import numpy as np
import pandas as pd
import pytest

from jaxmix import study
from jaxmix.status import Status
from jaxmix.study import summary
from tests.study_helpers import call, of, ran, write

FIXED = """\
name = "summary"
seed = 7
num_replicates = 60
num_rows = 80
estimators = ["spectral", "bridge", "difference_in_means"]

[population]
kind = "paper_main"

[grid]
zt_strength = [0.2, 0.8]
xy_strength = [0.0, 0.5]

[intervals]
kind = "delta"
"""
RANDOM = """\
name = "random"
seed = 7
num_replicates = 60
num_rows = 300
estimators = ["spectral"]

[population]
kind = "random_discrete"
"""
CONTINUOUS = """\
name = "continuous"
seed = 7
num_replicates = 40
num_rows = 60
estimators = ["spectral", "difference_in_means"]

[population]
kind = "gaussian"

[grid]
zt_strength = [0.0, 0.5]
"""
FIRST = ["num_replicates", "num_failed", "metric", "value", "mc_se"]


@pytest.fixture(scope="module")
def fixed(tmp_path_factory):
    return ran(tmp_path_factory.mktemp("fixed"), FIXED)


@pytest.fixture(scope="module")
def random(tmp_path_factory):
    return ran(tmp_path_factory.mktemp("random"), RANDOM)


def lines_of(store):
    return pd.read_csv(store.summary_path)


def squared(column, truth):
    return (column - truth) ** 2


def recomputed(found, label):
    """Return metrics of one estimator from its rows, in pandas."""
    bad = found["status"].map(lambda name: Status[name] >= Status.MAX_STEPS)
    values = {"rate_failed": bad.mean()}
    has_law = label == "spectral"
    numbers = np.isfinite(found["ate"])
    if has_law:
        numbers &= np.isfinite(found["error"])
    values["rate_without_number"] = (~numbers).mean()
    for suffix, rows in (("", found), ("_usable", found[~bad])):
        difference = rows["ate"] - rows["true_ate"]
        whole = np.isfinite(difference).all() and len(rows)
        squares = squared(rows["ate"], rows["true_ate"]).fillna(np.inf)
        values["ate_bias" + suffix] = difference.mean() if whole else np.nan
        values["ate_mean" + suffix] = rows["ate"].mean() if whole else np.nan
        values["ate_median_bias" + suffix] = difference.median() if whole else np.nan
        values["ate_empirical_se" + suffix] = difference.std() if whole else np.nan
        values["ate_rmse" + suffix] = np.sqrt(squares.mean())
        values["ate_efficiency" + suffix] = rows["bound_ate"].mean() / squares.mean()
        if "ate_lower" in rows:
            inside = rows["true_ate"].between(rows["ate_lower"], rows["ate_upper"])
            values["coverage_ate" + suffix] = inside.mean()
        if not has_law:
            continue
        error = rows["error"].fillna(np.inf)
        values["error_mean" + suffix] = error.mean()
        values["error_median" + suffix] = error.median()
        cut = int(0.05 * len(error))
        values["error_trimmed" + suffix] = error.sort_values()[cut : len(error) - cut].mean()
        bound = rows["bound_error"].mean()
        values["efficiency" + suffix] = bound / error.mean() if np.isfinite(bound) else np.nan
        for name in ("effects", "shares"):
            own = pd.DataFrame(rows[name].tolist())
            true = pd.DataFrame(rows[f"true_{name}"].tolist())
            for u in range(2):
                root = np.sqrt(squared(own[u], true[u]).fillna(np.inf).mean())
                values[f"{name[:-1]}_{u + 1}_rmse" + suffix] = root
                if "effects_lower" in rows:
                    low, high = (
                        pd.DataFrame(rows[f"{name}_{side}"].tolist())[u]
                        for side in ("lower", "upper")
                    )
                    inside = true[u].between(low, high).mean()
                    values[f"coverage_{name[:-1]}_{u + 1}" + suffix] = inside
    return values


def same_as_recomputed(store, labels):
    lines = lines_of(store)
    for position, cell in enumerate(store.config.cells):
        for label in labels:
            own = lines[lines["estimator"] == label]
            for name, value in cell.factors:
                own = own[own[name] == value]
            found = of(store, label, position)
            metrics = own.set_index("metric")["value"]
            assert metrics.index.is_unique
            for name, value in recomputed(found, label).items():
                np.testing.assert_allclose(
                    metrics[name], value, rtol=1e-9, atol=1e-12, err_msg=name
                )
            failed = sum(Status[name] >= Status.MAX_STEPS for name in found["status"])
            assert set(own["num_failed"]) == {failed}
            assert set(own["num_replicates"]) == {len(found)}


def test_columns_and_rows(fixed):
    lines = lines_of(fixed)
    assert list(lines.columns) == ["estimator", "zt_strength", "xy_strength", *FIRST]
    cells = lines.drop_duplicates(["zt_strength", "xy_strength"])
    assert cells[["zt_strength", "xy_strength"]].to_numpy().tolist() == [
        [z, x] for z in (0.2, 0.8) for x in (0.0, 0.5)
    ]
    assert lines["estimator"].unique().tolist() == ["spectral", "bridge", "difference_in_means"]
    wanted = {"error_mean", "error_trimmed", "error_median", "ate_bias", "ate_rmse", "efficiency",
              "coverage_ate", "coverage_effect_1", "coverage_share_2"}  # fmt: skip
    assert wanted <= set(lines["metric"])
    assert not lines.duplicated(["estimator", "zt_strength", "xy_strength", "metric"]).any()


def test_values_are_those_of_the_tables(fixed):
    same_as_recomputed(fixed, ["spectral", "bridge", "difference_in_means"])
    lines = lines_of(fixed)
    assert (lines["num_failed"] > 0).any()


def test_what_does_not_exist_is_empty(fixed):
    text = fixed.summary_path.read_text()
    assert "nan" not in text.lower()
    lines = lines_of(fixed)
    causal = lines[(lines["metric"] == "efficiency") & (lines["xy_strength"] == 0.5)]
    assert len(causal) == 2
    assert causal["value"].isna().all()  # no law is identified there


def test_estimators_without_classes_have_no_errors(fixed):
    lines = lines_of(fixed)
    naive = set(lines[lines["estimator"] == "difference_in_means"]["metric"])
    assert {"ate_bias", "coverage_ate", "ate_model_se", "rate_failed"} <= naive
    assert not [m for m in naive if m.startswith(("error", "effect", "share", "coverage_e"))]


def test_python_gives_the_same_lines(fixed):
    lines = pd.DataFrame(study.run(fixed.config, fixed.folder))
    pd.testing.assert_frame_equal(
        lines.replace(np.inf, np.nan), lines_of(fixed).replace(np.inf, np.nan), check_dtype=False
    )


def test_summarize_writes_it_anew(fixed):
    path = fixed.folder.parent / "study.toml"
    before = fixed.summary_path.read_bytes()
    fixed.summary_path.unlink()
    code, out, _ = call("study", "summarize", path, "--out", fixed.folder)
    assert code == 0
    assert fixed.summary_path.read_bytes() == before
    assert "spectral" in out
    assert str(fixed.summary_path) in out


def test_summarize_says_what_is_missing(tmp_path):
    store = ran(tmp_path, FIXED.split("[intervals]")[0].replace("0.0, 0.5", "0.0"))
    whole = lines_of(store)
    store.table_path(store.config.cells[1]).unlink()
    code, out, _ = call("study", "summarize", tmp_path / "study.toml", "--out", store.folder)
    assert code == 0
    assert "1 of 2 cells are missing" in out
    part = lines_of(store)
    pd.testing.assert_frame_equal(part, whole[whole["zt_strength"] == 0.2])


def test_populations_of_their_own(random):
    found = of(random, "spectral")
    effects = np.stack(found["true_effects"])
    assert len(np.unique(effects[:, 0])) == 60
    assert found["bound_error"].nunique() == 60
    same_as_recomputed(random, ["spectral"])


def test_population_seed_fixes_one(random, tmp_path):
    text = RANDOM + "[grid]\npopulation_seed = [3, 4]\n"
    store = ran(tmp_path, text)
    truths = []
    for position in range(2):
        found = of(store, "spectral", position)
        assert found["true_ate"].nunique() == 1
        assert found["ate"].nunique() > 50
        truths.append(found["true_ate"][0])
    assert truths[0] != truths[1]
    assert lines_of(store)["population_seed"].unique().tolist() == [3, 4]
    same_as_recomputed(store, ["spectral"])


def test_another_number_of_classes_than_the_populations(tmp_path):
    text = RANDOM.replace('"random_discrete"', '"block"\nnum_classes = 3').replace(
        '["spectral"]', '["spectral", "bridge"]\nfitted_classes = 2'
    )
    store = ran(tmp_path, text)
    found = of(store, "spectral")
    assert {len(v) for v in found["effects"]} == {2}
    assert {len(v) for v in found["true_effects"]} == {3}
    assert found["error"].isna().all()
    metrics = set(lines_of(store).query("estimator == 'spectral'")["metric"])
    assert {"ate_bias", "ate_rmse", "ate_efficiency", "rate_failed"} <= metrics
    assert not [m for m in metrics if m.startswith(("error", "effect", "share", "efficiency"))]


def test_continuous_populations_of_few_rows(tmp_path):
    store = ran(tmp_path, CONTINUOUS)
    same_as_recomputed(store, ["spectral", "difference_in_means"])
    lines = lines_of(store)
    bias = lines[(lines["metric"] == "ate_bias") & (lines["estimator"] == "difference_in_means")]
    population = store.config.cells[0].population.build()
    expected = float(population.naive - population.ate)
    assert abs(bias["value"].iloc[0] - expected) < 4 * bias["mc_se"].iloc[0]


def test_batches_end_anywhere(fixed, monkeypatch):
    """Tables are read in batches, the last of which may lack an estimator."""
    whole = pd.DataFrame(summary.rows(fixed))
    for size in (1, 2, 7, 179, 180):
        monkeypatch.setattr(summary, "_BATCH", size)
        pd.testing.assert_frame_equal(pd.DataFrame(summary.rows(fixed)), whole)


def test_one_replicate(tmp_path):
    store = ran(tmp_path, CONTINUOUS.replace("= 40", "= 1"))
    lines = lines_of(store)
    assert lines[lines["metric"] == "ate_bias"]["mc_se"].isna().all()


def test_what_the_command_shows(fixed):
    path = write(fixed.folder.parent, FIXED)
    code, out, err = call("study", "run", path, "--out", fixed.folder)
    assert (code, err) == (0, "")
    assert "4 cells (4 were there already)" in out
    for word in ("error median", "ate rmse", "coverage ate", "60 replicates", "bridge", "0.8"):
        assert word in out
    assert "nan" not in out
