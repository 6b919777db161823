"""What a person sees and stores."""

import json
import stat

import jax
import numpy as np
import pytest

import jaxmix as jm
from jaxmix import InputError, Status
from jaxmix.report import plots, tables
from jaxmix.report.files import write_whole
from jaxmix.status import EstimateError
from tests.helpers import causal_data, linear_rows


@pytest.fixture(scope="module")
def result():
    rows = jm.populations.paper_main(0.5).sample(jax.random.key(0), 3000)
    rows = {name: np.asarray(values) for name, values in rows.items()}
    rows["Y"] = np.where(np.arange(3000) == 5, np.nan, rows["Y"])
    data = jm.CausalData.from_frame(rows, treatment="T", outcome="Y", z=["Z"], x=["X"])
    return jm.fit(data, num_classes=2, checks=False, num_resamples=100)


@pytest.fixture(scope="module")
def failed():
    # Every combination as often as any other: the proxies say nothing.
    t, z, x, y = (np.repeat(part, 20) for part in np.unravel_index(np.arange(16), (2, 2, 2, 2)))
    frame = {"t": t, "y": y, "z": z.astype(str), "x": x.astype(str)}
    return jm.fit(
        causal_data(frame),
        level=3,
        num_classes=2,
        checks=False,
        method="spectral",
        num_resamples=20,
    )


def test_summary_says_what_matters(result):
    text = result.summary()
    assert text == repr(result)
    words = " ".join(text.split())
    for part in (
        "Effect of T (1 against 0) on Y, level 4 (bridge by arm)",
        "difference in means",
        "E[Y(0)]",
        "Hidden classes among everybody, by increasing effect",
        "Share of people in classes whose average effect is harmful (lower Y)",
        "Rows: 2,999",
        "1 dropped (missing cells: Y 1)",
        "singular values of E[z x | T=0]",
        "Resamples: 100 multinomial, none failed; seed 0.",
        "Intervals: percentiles of the resamples.",
        "Intervals: profile likelihood",
        "Standard deviation of the class effects",
        "Specification test: does not apply",
        "Conditional on X not affecting Y",
    ):
        assert part in words
    assert max(len(line) for line in text.splitlines()) <= 110
    assert "holds" not in words


def test_a_failed_estimate_says_so_first(failed):
    assert not failed.status.usable
    assert "NOT TO BE USED" in failed.summary()
    with pytest.raises(EstimateError, match=failed.status.name):
        failed.raise_if_failed()


def test_a_good_estimate_passes_on(result):
    assert result.raise_if_failed() is result


def test_html_holds_the_same_numbers(result):
    page = result._repr_html_()
    assert page.count("<table>") == page.count("</table>") == 3
    assert tables.number(result.ate.value) in page
    assert "<script" not in tables.Table("<script>", ["<b>"], [["<i>"]], ["<p>"]).html()


def test_dict_has_the_schema_and_plain_values(result):
    record = result.to_dict("jaxmix fit rows.csv")
    assert list(record) == [
        "schema", "jaxmix", "jax", "draws", "seed", "command", "n", "dropped", "treatment",
        "control", "outcome", "level", "method", "estimand", "num_classes", "status", "warnings",
        "naive", "ate", "potential_means", "law", "share_harmed", "spread", "selection", "verdict",
        "sensitivity", "unresolved_classes", "diagnostics",
    ]  # fmt: skip
    assert record["command"] == "jaxmix fit rows.csv"
    assert (record["n"], record["dropped"], record["control"]) == (2999, 1, "0")
    assert list(record["law"]) == [
        "effects", "shares", "effects_se", "effects_interval", "shares_se", "shares_interval",
    ]  # fmt: skip
    assert list(record["ate"]) == ["value", "se", "interval"]
    assert record["diagnostics"]["specification"]["applies"] is False
    assert record["diagnostics"]["level_3"]["level"] == 3

    def check(value):
        assert isinstance(value, dict | list | str | int | float | bool | None)
        for inner in (
            value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        ):
            check(inner)

    check(record)
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_what_does_not_exist_is_null(failed):
    record = failed.to_dict()
    assert record["command"] is None
    text = json.dumps(record, allow_nan=False)
    assert "NaN" not in text
    assert record["status"] in Status.__members__


def test_json_file(result, tmp_path):
    path = tmp_path / "out.json"
    result.to_json(path)
    assert json.loads(path.read_text()) == result.to_dict()
    assert [p.name for p in tmp_path.iterdir()] == ["out.json"]
    assert stat.S_IMODE(path.stat().st_mode) & 0o600 == 0o600
    with pytest.raises(InputError, match="does not exist; create it"):
        result.to_json(tmp_path / "nowhere" / "out.json")


def test_files_are_replaced_whole(tmp_path):
    path = tmp_path / "a.txt"
    write_whole(path, "first")
    write_whole(path, b"second")
    assert path.read_text() == "second"


def test_frame(result):
    frame = result.to_frame()
    assert frame["estimand"].tolist() == [
        "naive", "ATE", "E[Y(0)]", "E[Y(1)]", "share_harmed", "spread",
        "share[1]", "share[2]", "effect[1]", "effect[2]",
    ]  # fmt: skip
    row = frame.set_index("estimand").loc["effect[2]"]
    assert row["value"] == pytest.approx(float(result.law.effects[1]))
    assert (row["lower"], row["upper"]) == pytest.approx(tuple(result.law_interval.effects[1]))


def test_frame_needs_pandas(result, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(InputError, match="pip install pandas"):
        result.to_frame()


def test_plot_draws_every_estimate_and_the_law(result):
    extra = plots.ForestRow("elsewhere", 0.2, (0.1, 0.3), "contrast")
    figure = result.plot((extra,))
    forest, law = figure.axes
    labels = [label.get_text() for label in forest.get_yticklabels()]
    assert labels[:3] == ["difference in means", "ATE, level 4", "elsewhere"]
    assert [label.split(" (")[0] for label in labels[3:]] == ["class 1", "class 2"]
    points = [line.get_xdata()[0] for line in forest.lines if len(line.get_xdata()) == 1]
    expected = [result.naive.value, result.ate.value, 0.2, *result.law.effects]
    np.testing.assert_allclose(points, expected)
    np.testing.assert_allclose(law.lines[0].get_ydata(), result.law.shares)


def test_plot_of_a_failed_estimate_shows_no_law(failed):
    figure = failed.plot()
    assert len(figure.axes) == 1
    assert "Not to be used" in figure._supxlabel.get_text()


def test_plot_without_intervals():
    data = causal_data(linear_rows(np.random.default_rng(0), 300))
    figure = jm.fit(data, num_resamples=0).plot()
    assert len(figure.axes) == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234567.0, "1,234,567"), (-8497.516, "-8,497.5"), (0.75, "0.7500"), (0.0, "0"),
        (12.3456, "12.35"), (1e-7, "1.000e-07"), (None, "-"), (float("nan"), "-"),
        (float("inf"), "-"), (2.5e12, "2.500e+12"),
    ],
)  # fmt: skip
def test_numbers_as_text(value, text):
    assert tables.number(value) == text


@pytest.mark.parametrize("status", list(Status))
def test_every_status_has_words_and_a_standing(status):
    assert status.message
    assert not status.message.endswith(".")
    usable = {"SUCCESS", "BOUNDARY", "WEAK_PROXIES", "STARTS_DISAGREE", "NOT_IDENTIFIED"}
    assert status.usable == (status.name in usable)
