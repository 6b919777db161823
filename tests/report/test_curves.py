"""Figures of simulation studies: what is drawn, what is marked or counted, what is refused."""

import dataclasses
import io
import sys

import matplotlib.colors
import numpy as np
import pytest
from matplotlib.collections import FillBetweenPolyCollection
from matplotlib.patches import StepPatch

from jaxmix.report.curves import Histogram, Panel, Series, curves, histograms
from jaxmix.report.sheet import alone, bins, extent, styles
from jaxmix.status import InputError

NAN, INF = float("nan"), float("inf")
UP, DOWN = 2, 3  # matplotlib's TICKUP and TICKDOWN


def one(*series, **options):
    panel = {name: options.pop(name) for name in ("reference", "log_y") if name in options}
    return curves([Panel("error", series, **panel)], x_label="n", **options)


def legend(figure):
    (only,) = figure.legends
    return [text.get_text() for text in only.get_texts()]


def line(axes, label):
    (found,) = [line for line in axes.lines if line.get_label() == label]
    return found


def marks(axes, tick):
    """Return the x, the colours and the heights in the axes of the marks at an edge."""
    found = [line for line in axes.lines if line.get_marker() == tick]
    return [(list(line.get_xdata()), line.get_color(), line.get_ydata()[0]) for line in found]


def bands(axes):
    return [
        artist
        for artist in axes.collections
        if isinstance(artist, FillBetweenPolyCollection) and artist.get_alpha() is not None
    ]


def png(figure):
    file = io.BytesIO()
    figure.savefig(file, dpi=150)
    assert file.getvalue().startswith(b"\x89PNG")


def boxes(figure):
    """Return what must not overlap: axes with their labels, the legend, title and note."""
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    artists = [*figure.axes, *figure.legends, *(text for text in figure.texts if text.get_text())]
    return [artist.get_tightbbox(renderer) for artist in artists]


def test_lines_carry_the_data_sorted_by_x():
    figure = one(Series("a", [3, 1, 2], [30.0, 10.0, 20.0]), Series("b", [1, 2], [5.0, 6.0]))
    (axes,) = figure.axes
    np.testing.assert_array_equal(line(axes, "a").get_xydata(), [[1, 10], [2, 20], [3, 30]])
    np.testing.assert_array_equal(line(axes, "b").get_ydata(), [5, 6])
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("error", "n")
    assert legend(figure) == ["a", "b"]
    assert not marks(axes, UP)
    assert not marks(axes, DOWN)
    png(figure)


def test_values_that_are_not_finite_are_marked_at_the_top():
    x = [0.0, 0.5, 1.0, 1.5]
    figure = one(Series("a", x, [1.0, NAN, 2.0, INF]), Series("b", x, [-INF, 1.0, 2.0, 3.0]))
    (axes,) = figure.axes
    np.testing.assert_array_equal(line(axes, "a").get_ydata(), [1, NAN, 2, NAN])
    (first, colour, high), (second, other, low) = marks(axes, UP)
    assert (first, second) == ([0.5, 1.5], [0.0])
    assert colour == line(axes, "a").get_color()
    assert other == line(axes, "b").get_color()
    assert 1.0 > high > low > 0.8
    top = axes.transAxes.inverted().transform(axes.transData.transform((0.0, 3.0)))[1]
    assert top < low - 0.05, "data reach into the rows of marks"
    assert legend(figure) == ["a", "b", "not finite"]
    png(figure)


def test_a_series_with_nothing_finite_is_still_seen():
    figure = one(Series("a", [1, 2], [NAN, INF], [NAN, NAN]), log_y=True, log_x=True)
    assert marks(figure.axes[0], UP)[0][0] == [1, 2]
    low, high = figure.axes[0].get_xlim()
    assert low < 1 < 2 < high
    png(figure)


def test_log_axes_mark_zero_and_less_at_the_bottom():
    series = Series("a", [10, 100, 1000, 10000], [1.0, 0.0, -0.1, 0.01], [0.1, 0.1, 0.1, 0.5])
    figure = one(series, log_y=True, log_x=True)
    (axes,) = figure.axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert [x for x, _, _ in marks(axes, DOWN)] == [[100, 1000]]
    assert 0 < marks(axes, DOWN)[0][2] < 0.1
    assert legend(figure) == ["a", "zero or less"]
    np.testing.assert_array_equal(line(axes, "a").get_ydata(), [1, NAN, NAN, 0.01])
    low, high = axes.get_ylim()
    assert 0 < low < 0.01 < 1 < high
    png(figure)


def test_linear_axes_draw_zero_and_less():
    figure = one(Series("a", [1, 2], [-1.0, 0.0]))
    assert not marks(figure.axes[0], DOWN)
    assert (figure.axes[0].get_xscale(), figure.axes[0].get_yscale()) == ("linear", "linear")


def test_standard_errors_are_a_band_and_a_bar_where_a_point_is_alone():
    se = [0.1, 0.2, 0.3, 0.4, NAN]
    figure = one(Series("a", [1, 2, 3, 4, 5], [1.0, 2.0, NAN, 4.0, 5.0], se))
    (axes,) = figure.axes
    (band,) = bands(axes)
    corners = np.concatenate([path.vertices for path in band.get_paths()])
    assert set(corners[:, 0]) == {1.0, 2.0}
    expected = [1 - 0.196, 1 + 0.196, 2 - 0.392, 2 + 0.392]
    np.testing.assert_allclose(np.unique(corners[:, 1].round(9)), np.sort(expected))
    bars = [artist for artist in axes.collections if hasattr(artist, "get_segments")]
    (segment,) = [segment for bar in bars for segment in bar.get_segments()]
    np.testing.assert_allclose(segment, [[4, 4 - 0.784], [4, 4 + 0.784]])


def test_no_band_without_standard_errors():
    assert not bands(one(Series("a", [1, 2], [1.0, 2.0])).axes[0])


def test_a_wide_band_does_not_squash_the_lines():
    figure = one(Series("a", [1, 2], [1.0, 2.0], [1e6, 0.0]))
    low, high = figure.axes[0].get_ylim()
    assert -0.5 < low < 0.0 < 3.0 < high < 3.5


@pytest.mark.parametrize("size", [5, 300])
def test_points_alone_have_a_marker_however_many_there_are(size):
    x = np.arange(size, dtype=float)
    y = np.where(np.isin(x, [0, 1, 3]), 1.0, NAN)
    bound = Series("bound", x, y)
    figure = one(Series("a", x, y), reference=bound)
    assert 3 in line(figure.axes[0], "a").get_markevery()
    assert line(figure.axes[0], "bound").get_markevery() == [3]
    assert len(line(figure.axes[0], "a").get_markevery()) <= 20


def test_reference_is_black_and_dashed():
    figure = one(Series("a", [1, 2], [1.0, 2.0]), reference=Series("bound", [1, 2], [0.5, 0.5]))
    drawn = line(figure.axes[0], "bound")
    assert (drawn.get_color(), drawn.get_linestyle()) == ("black", "--")
    assert legend(figure) == ["a", "bound"]


def test_labels_have_one_style_in_all_panels_and_are_listed_once():
    a, b = Series("a", [1, 2], [1.0, 2.0]), Series("b", [1, 2], [2.0, NAN])
    bound, truth = Series("bound", [1, 2], [0.0, 0.0]), Series("truth", [1, 2], [1.0, 1.0])
    panels = [Panel("1", [a, b], bound), Panel("2", [b], truth), Panel("3", [b, a], bound)]
    figure = curves(panels, x_label="n")
    assert legend(figure) == ["a", "b", "bound", "truth", "not finite"]
    looks = {
        (line(axes, "b").get_color(), line(axes, "b").get_marker(), line(axes, "b").get_linestyle())
        for axes in figure.axes
    }
    assert len(looks) == 1
    one_bound, other = line(figure.axes[0], "bound"), line(figure.axes[1], "truth")
    assert one_bound.get_linestyle() != other.get_linestyle()


def test_styles_differ_in_colour_and_without():
    looks = list(styles(map(str, range(6))).values())
    assert len({look["color"] for look in looks}) == 6
    many = list(styles(map(str, range(24))).values())
    assert len({(look["marker"], str(look["ls"])) for look in many}) == 24
    for look in looks:
        red, green, blue = matplotlib.colors.to_rgb(look["color"])
        assert 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.75, "too light on white"


@pytest.mark.parametrize(("count", "rows", "columns"), [(1, 1, 1), (3, 1, 3), (4, 2, 2), (5, 2, 3)])
def test_panels_are_as_wide_as_a_column_and_wrap(count, rows, columns):
    figure = curves([Panel("y", [Series("a", [1, 2], [1.0, 2.0])])] * count, x_label="n")
    assert len(figure.axes) == count
    width, height = figure.get_size_inches()
    assert width == pytest.approx(3.4 * columns)
    assert 2.3 * rows < height < 2.3 * rows + 0.6


LONG = "the generalised method of moments with an optimal weight and many starts, in $ and $"


@pytest.mark.parametrize("count", [1, 2, 4])
def test_long_texts_are_literal_and_overlap_nothing(count):
    x = [0.0, 1.0]
    panel = Panel(LONG, [Series(LONG, x, [0.0, NAN]), Series("_" + LONG, x, x)])
    figure = curves([panel] * count, x_label=LONG, title=LONG, note=LONG * 3)
    assert [text.replace("\n", " ") for text in legend(figure)][:2] == [LONG, "_" + LONG]
    assert figure.axes[0].get_ylabel().replace("\n", " ") == LONG
    found = boxes(figure)
    width, height = figure.bbox.size
    for i, box in enumerate(found):
        assert box.x0 >= -1
        assert box.x1 <= width + 1
        assert box.y0 >= -1
        assert box.y1 <= height + 1
        assert not any(box.overlaps(other) for other in found[:i])
    for text in (*figure.texts, *figure.legends[0].get_texts(), figure.axes[0].yaxis.label):
        assert not text.get_parse_math()


def test_no_text_is_smaller_than_seven_points():
    figure = one(Series("a", [10, 1000], [1e-6, NAN]), log_y=True, log_x=True, note="n", title="t")
    figure.canvas.draw()
    texts = figure.findobj(lambda artist: hasattr(artist, "get_fontsize"))
    assert min(text.get_fontsize() for text in texts if text.get_text()) >= 7.0
    assert not any("$" in text.get_text() for text in texts), "raised digits are smaller"


@pytest.mark.parametrize(
    ("high", "least"), [(1.0001, 2), (1.5, 3), (4.0, 3), (30.0, 3), (200.0, 3), (1e6, 3), (1e40, 3)]
)
def test_log_axes_of_any_range_have_ticks_with_different_labels(high, least):
    figure = one(Series("a", [1.0, high], [1.0, high]), log_x=True, log_y=True)
    figure.canvas.draw()
    for axis in (figure.axes[0].xaxis, figure.axes[0].yaxis):
        low, top = axis.get_view_interval()
        shown = [
            label.get_text()
            for place, label in zip(axis.get_majorticklocs(), axis.get_ticklabels(), strict=True)
            if low <= place <= top
        ]
        assert least <= len(shown) <= 9
        assert len(set(shown)) == len(shown)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": [1.0]}, r"'a' in the panel 'error' has \[2, 1, 2\] values of x, y and se"),
        ({"se": [1.0]}, r"\[2, 2, 1\] values"),
        ({"x": [0.0, 1.0]}, "x = 0, which has no place on a logarithmic axis"),
        ({"x": [NAN, 1.0]}, "x = nan, which has no place"),
    ],
)
def test_what_has_no_place_is_refused(change, message):
    series = dataclasses.replace(Series("a", [1.0, 2.0], [1.0, 2.0]), **change)
    with pytest.raises(InputError, match=message):
        one(series, log_x=True)


def test_two_lines_of_one_label_are_refused():
    series = Series("a", [1.0, 2.0], [1.0, 2.0])
    with pytest.raises(InputError, match="'a' in the panel 'error' is there twice"):
        one(series, reference=series)


@pytest.mark.parametrize("draw", [lambda: curves([], x_label="n"), lambda: histograms([])])
def test_no_panels_are_refused(draw):
    with pytest.raises(InputError, match="no panels"):
        draw()


@pytest.mark.parametrize(
    "draw",
    [
        lambda: one(Series("a", [1, 2], [1.0, 2.0])),
        lambda: histograms([Histogram("effect", {"a": [1.0, 2.0]})]),
    ],
)
def test_figures_need_matplotlib(draw, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=r"pip install 'jaxmix\[plot\]'"):
        draw()


def test_extent_of_nothing_and_of_one_value():
    assert extent(np.empty(0), np.empty(0), log=True) == (0.0, 1.0)
    low, high = extent(np.array([5.0]), np.array([5.0]), log=False)
    assert low < 5.0 < high
    # An interval that reaches zero widens a logarithmic axis by half a decade.
    low, high = extent(np.array([1.0, 10.0]), np.array([-3.0, 10.0]), log=True)
    assert (low, high) == (-0.5, 1.0)


def test_alone():
    shown = np.array([True, False, True, True, False, True])
    np.testing.assert_array_equal(alone(shown), [True, False, False, False, False, True])


def stairs(axes):
    """Return heights and edges of the outlines, in the order of groups."""
    found = [p for p in axes.patches if isinstance(p, StepPatch) and not p.get_fill()]
    return [(p.get_data().values, p.get_data().edges) for p in found]


def test_histograms_share_bins_and_count_what_is_beyond():
    rng = np.random.default_rng(0)
    wild = np.concatenate([rng.normal(0.0, 0.2, 500), [1e6, -1e5, 1e3], [NAN, INF]])
    groups = {"wild": wild, "tame": rng.normal(0.5, 0.1, 400)}
    figure = histograms([Histogram("effect", groups, truths=[0.0, 0.5])], title="t", note="n")
    (axes,) = figure.axes
    (first, edges), (second, others) = stairs(axes)
    np.testing.assert_array_equal(edges, others)
    assert -2.0 < edges[0] < -0.5
    assert 0.7 < edges[-1] < 2.0
    assert first.sum() == pytest.approx(503 / 505)
    assert second.sum() == pytest.approx(1.0)
    assert first[-1] >= 2 / 505
    assert first[0] >= 1 / 505
    assert [text.get_text() for text in axes.texts] == ["wild: 3 beyond, 2 not finite"]
    truths = [drawn for drawn in axes.lines if drawn.get_color() == "black"]
    assert [drawn.get_xdata()[0] for drawn in truths] == [0.0, 0.5]
    assert legend(figure) == ["wild", "tame", "truth"]
    assert axes.get_xlabel() == "effect"
    png(figure)


def test_counts_lie_above_bars_and_truths():
    groups = {name: [0.0, 1.0, 1.0, 2.0, 99.0] for name in "abcd"}
    figure = histograms([Histogram("effect", groups, truths=[1.0])])
    (axes,) = figure.axes
    figure.canvas.draw()
    box = axes.texts[0].get_window_extent().transformed(axes.transAxes.inverted())
    assert axes.texts[0].get_text().count("\n") == 3
    peak = max(heights.max() for heights, _ in stairs(axes)) / axes.get_ylim()[1]
    (truth,) = [drawn for drawn in axes.lines if drawn.get_color() == "black"]
    assert max(peak, *truth.get_ydata()) < box.y0
    assert box.y1 <= 1.01


def test_groups_without_a_finite_estimate_are_named():
    figure = histograms([Histogram("effect", {"a$": [NAN, NAN], "b": []}, truths=[3.0])])
    (axes,) = figure.axes
    assert axes.texts[0].get_text() == "a$: 2 not finite\nb: no estimates"
    assert legend(figure) == ["a$", "b", "truth"]
    low, high = axes.get_xlim()
    assert low < 3.0 < high
    png(figure)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_histogram_groups_are_listed_once_in_one_style(count):
    panel = Histogram("effect", {"a": [1.0, 2.0, 3.0], "b": [2.0, 2.0]})
    figure = histograms([panel] * count, title=LONG, note=LONG)
    assert legend(figure) == ["a", "b"]
    assert len({line(axes, "b").get_color() for axes in figure.axes}) == 1
    found = boxes(figure)
    assert not any(box.overlaps(other) for i, box in enumerate(found) for other in found[:i])


def test_a_truth_that_is_not_finite_is_refused():
    with pytest.raises(InputError, match="a truth of the panel 'effect' is not finite"):
        histograms([Histogram("effect", {"a": [1.0]}, truths=[NAN])])


def test_bins_of_odd_groups():
    same = bins([np.ones(5)], np.empty(0))
    assert same[0] < 1.0 < same[-1]
    mostly_same = bins([np.array([1.0, 1.0, 1.0, 1.0, 1.0, 2.0])], np.empty(0))
    assert (mostly_same[0], mostly_same[-1]) == (1.0, 2.0)
    rng = np.random.default_rng(1)
    narrow = [rng.normal(0.0, 1.0, 200) for _ in range(2)]
    edges = bins([*narrow, 1e4 * rng.normal(0.0, 1.0, 200)], np.array([-3.0]))
    assert -1e4 < edges[0] <= -3.0, "one wild group does not squash the others"
    assert bins([np.zeros(3)], np.array([7.0]))[-1] == 7.0
