"""A chart shows all values it can and says which it cannot."""

import math

import numpy as np
import pytest

from pipelines.report.charts import Line, Mark, line_chart, smooth, thin, ticks


def test_a_single_value_is_a_dot_and_values_that_are_not_finite_are_counted() -> None:
    single = line_chart("t", "u", [Line("", [(1.0, 0.5)])], "x").svg
    assert ("<circle" in single, "<polyline" in single) == (True, False)
    chart = line_chart("t", "u", [Line("", [(1, math.nan), (2, 1.0), (3, math.inf), (4, 2.0)])], "x")
    assert "2 values are not finite" in chart.notes
    assert "nan" not in chart.svg
    nothing = line_chart("t", "u", [Line("", [(1, math.nan)])], "x")
    assert (nothing.svg, nothing.legend, nothing.notes) == ("", [], "1 values are not finite.")


def test_smoothing_is_labelled_and_is_a_mean_over_neighbours() -> None:
    points = [(float(x), math.sin(x)) for x in range(200)]
    chart = line_chart("t", "u", [Line("", points)], "x")
    assert chart.svg.count("<polyline") == 2
    assert "mean of 11 neighbours" in chart.notes
    assert "mean of" not in line_chart("t", "u", [Line("", points[:50])], "x").notes
    values = np.random.default_rng(0).normal(size=50)
    naive = [np.mean(values[max(0, i - 3) : i + 4]) for i in range(50)]
    np.testing.assert_allclose(smooth(values, 7), naive)


def test_spikes_are_left_out_of_the_axis_and_said_to_be() -> None:
    points = [(float(x), 1.0 + x / 100) for x in range(99)] + [(99.0, 1e6)]
    assert "1 of 100 values lie outside the axis" in line_chart("t", "u", [Line("", points)], "x").notes
    assert "outside" not in line_chart("t", "u", [Line("", points[:-1])], "x").notes


def test_thinning_keeps_order_and_both_extremes() -> None:
    values = np.random.default_rng(0).normal(size=10_000)
    points = np.column_stack([np.arange(10_000.0), values])
    thinned = thin(points)
    assert len(thinned) <= 800
    assert (np.diff(thinned[:, 0]) > 0).all()
    assert (thinned[:, 1].min(), thinned[:, 1].max()) == (values.min(), values.max())


@pytest.mark.parametrize(
    ("low", "high"),
    [(0, 1), (-3.2, 7.9), (1e-7, 2e-7), (-1e6, -9e5), (0, 0.3), (99.9, 100.1), (0.81, 0.89), (-4.9, -0.1)],
)
def test_ticks_are_round_evenly_spaced_and_inside(low: float, high: float) -> None:
    values = ticks(low, high)
    assert 2 <= len(values) <= 6
    step = values[1] - values[0]
    np.testing.assert_allclose(np.diff(values), step, rtol=1e-6)
    assert round(step / 10.0 ** math.floor(math.log10(step) + 1e-6), 6) in (1, 2, 5)
    assert low - 1e-9 * step <= values[0]
    assert values[-1] <= high + 1e-9 * step


def test_a_mark_stands_at_its_place_on_the_axis_and_says_what_it_is() -> None:
    chart = line_chart("t", "u", [Line("", [(0.0, 1.0), (10.0, 2.0)])], "x", [Mark(2.5, "warning", "a < b")]).svg
    points = chart.partition('points="')[2].partition('"')[0].split()
    width = float(points[1].partition(",")[0])
    assert f'<g class="mark warning"><title>a &lt; b</title><line x1="{width / 4:.1f}" x2="{width / 4:.1f}"' in chart
