"""Figures of studies: what they show, and what they refuse."""

import numpy as np
import pandas as pd
import pytest

from jaxmix import study
from jaxmix.status import InputError
from jaxmix.study import figures
from tests.study_helpers import call, of, ran, refused, write

BASE = """\
name = "drawn"
seed = 11
num_replicates = 30
num_rows = 200
estimators = ["spectral", "bridge"]

[population]
kind = "paper_main"

[grid]
zt_strength = [0.8, 0.2]
xy_strength = [0.0, 0.5]
"""
ONE = BASE.split("[grid]")[0]

NO_BOUND = ('["spectral", "bridge"]', '["bridge"]\nbound = false')
RANDOM = ONE.replace("paper_main", "random_discrete").replace(*NO_BOUND)
RANDOM += '[grid]\nfamily = ["generic"]\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return the folder of a study that is computed once."""
    return ran(tmp_path_factory.mktemp("figures"), BASE).folder


@pytest.fixture(scope="module")
def random(tmp_path_factory):
    return ran(tmp_path_factory.mktemp("random"), RANDOM).folder


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return ran(tmp_path_factory.mktemp("one"), ONE).folder


def drawn(folder, tmp_path, figure="", start=BASE):
    """Draw the figures of a configuration whose cells are there."""
    config = study.load(write(tmp_path, start + figure))
    return figures.draw(study.Store(folder, config))


def only(figures):
    (figure,) = figures.values()
    return figure


def curves(axes):
    """Return the lines that carry data, by label."""
    return {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}


def metric(folder, name, estimator, **factors):
    lines = pd.read_csv(folder / "summary.csv")
    rows = (lines["metric"] == name) & (lines["estimator"] == estimator)
    for factor, value in factors.items():
        rows &= lines[factor] == value
    return lines[rows]["value"].tolist()


def test_plot_writes_readable_files(folder, tmp_path):
    from PIL import Image

    path = write(tmp_path, BASE)
    for ending in ("png", "svg", "pdf"):
        code, out, err = call("study", "plot", path, "--out", folder, "--format", ending)
        assert (code, err) == (0, "")
        made = folder / f"drawn.{ending}"
        assert out == f"wrote {made}\n"
        assert made.stat().st_size > 1000
    with Image.open(folder / "drawn.png") as picture:
        assert min(picture.size) > 300
    assert b"<svg" in (folder / "drawn.svg").read_bytes()[:1000]


def test_curves_are_the_summary(folder, tmp_path):
    figure = only(drawn(folder, tmp_path, '[figure]\nmetrics = ["error_median", "ate_rmse"]\n'))
    assert len(figure.axes) == 2
    error, ate = (curves(axes) for axes in figure.axes)
    assert len(error) == 2  # the bridge has no classes
    assert len(ate) == 4
    for label, line in ate.items():
        estimator = "spectral" if "spectral" in label else "bridge"
        strength = 0.5 if "0.5" in label else 0.0
        assert line.get_xdata().tolist() == [0.2, 0.8]
        expected = [
            metric(folder, "ate_rmse", estimator, zt_strength=z, xy_strength=strength)[0]
            for z in (0.2, 0.8)
        ]
        np.testing.assert_allclose(line.get_ydata(), expected)


def test_a_bound_is_drawn_where_there_is_one(tmp_path):
    text = BASE.replace("xy_strength = [0.0, 0.5]\n", "")
    store = ran(tmp_path, text + '[figure]\nmetrics = ["ate_rmse", "error_mean", "ate_bias"]\n')
    axes = only(figures.draw(store)).axes
    bounds = [curves(own).get("efficiency bound") for own in axes]
    assert bounds[2] is None
    for line, column, power in ((bounds[0], "bound_ate", 0.5), (bounds[1], "bound_error", 1.0)):
        expected = [of(store, "bridge", position)[column][0] ** power for position in (1, 0)]
        np.testing.assert_allclose(line.get_ydata(), expected, rtol=1e-10)


def test_a_status_that_never_came_up_has_rate_zero(folder, tmp_path):
    figure = only(drawn(folder, tmp_path, '[figure]\nmetrics = ["rate_max_steps"]\n'))
    lines = curves(figure.axes[0])
    assert len(lines) == 4
    assert all(line.get_ydata().tolist() == [0.0, 0.0] for line in lines.values())


def test_a_metric_that_an_estimator_lacks_is_not_drawn_as_zero(folder, tmp_path):
    figure = only(drawn(folder, tmp_path, '[figure]\nmetrics = ["share_1_rmse"]\n'))
    lines = curves(figure.axes[0])
    assert len(lines) == 2
    assert all("bridge" not in label for label in lines)


@pytest.mark.parametrize("name", ["eror_median", "share_complex_spectra", "rate_nothing"])
def test_unknown_metrics_are_one_line(name, folder, tmp_path):
    path = write(tmp_path, BASE + f'[figure]\nmetrics = ["{name}"]\n')
    message = refused("study", "plot", path, "--out", folder)
    assert repr(name) in message
    assert "error_median" in message


def test_unknown_metrics_of_histograms_are_one_line(folder, tmp_path):
    path = write(tmp_path, BASE + '[figure]\nkind = "histograms"\nmetrics = ["error"]\n')
    message = refused("study", "plot", path, "--out", folder)
    assert "'error'" in message
    assert "'shares'" in message


def test_histograms_show_estimates_and_truth(one, tmp_path):
    figure = only(drawn(one, tmp_path, start=ONE))  # nothing varies: histograms
    assert len(figure.axes) == 1
    assert {"spectral", "bridge"} <= set(curves(figure.axes[0]))
    figure = only(drawn(one, tmp_path, '[figure]\nmetrics = ["effects"]\ntitle = "T"\n', ONE))
    (axes,) = figure.axes
    labels = set(curves(axes))
    assert labels == {"spectral, class 1", "spectral, class 2"}
    truths = sorted(line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == "--")
    assert {-0.75, 0.75} <= {round(float(x), 9) for x in truths}
    assert len(axes.patches) >= 2


def test_histograms_of_random_populations_have_no_one_truth(random, tmp_path):
    figure = only(drawn(random, tmp_path, '[figure]\nkind = "histograms"\n', RANDOM))
    texts = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert "bridge" in texts
    assert "truth" not in texts


def test_a_factor_in_words_has_no_axis(random, tmp_path):
    with pytest.raises(InputError, match="numbers on the axis, and family has 'generic'"):
        drawn(random, tmp_path, start=RANDOM)


def test_figures_have_their_own_names_titles_and_choices(folder, tmp_path):
    figure = """
[[figure]]
metrics = ["ate_bias"]
estimators = ["bridge"]
title = "First"
x_label = "strength"
file = "first"
[[figure]]
kind = "histograms"
note = "A note."
"""
    found = drawn(folder, tmp_path, figure)
    assert set(found) == {"first", "drawn_2"}
    axes = found["first"].axes[0]
    assert axes.get_xlabel() == "strength"
    assert all(label.startswith("bridge") for label in curves(axes))
    assert len(found["drawn_2"].axes) == 4


def test_two_figures_of_one_file_are_refused(folder, tmp_path):
    path = write(tmp_path, BASE + '[[figure]]\nfile = "a"\n[[figure]]\nfile = "a"\n')
    assert "'a'" in refused("study", "plot", path, "--out", folder)


@pytest.mark.parametrize("name", ["../above", "a/b", ""])
def test_files_of_figures_stay_in_the_folder(name, folder, tmp_path):
    path = write(tmp_path, BASE + f'[figure]\nfile = "{name}"\n')
    assert "file" in refused("study", "plot", path, "--out", folder)


def test_a_factor_of_lists_has_no_axis(tmp_path):
    text = ONE.replace("paper_main", "block").replace(*NO_BOUND)
    ran(tmp_path, text + "[grid]\nbase = [[0.5, 0.5], [0.4, 0.6]]\n")
    message = refused("study", "plot", tmp_path / "study.toml", "--out", tmp_path / "out")
    assert "base" in message


def test_incomplete_studies_are_not_drawn(tmp_path):
    text = BASE.replace("xy_strength = [0.0, 0.5]\n", "")
    store = ran(tmp_path, text)
    store.table_path(store.config.cells[0]).unlink()
    message = refused("study", "plot", tmp_path / "study.toml", "--out", store.folder)
    assert "1 of 2 cells are missing" in message
    assert "study run" in message
