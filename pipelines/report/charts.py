"""Charts as inline SVG, whose text is escaped here: lines over time, pairs of histograms, points in a plane.

Colours are classes of the page that holds them, so they follow its dark mode.
"""

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

type Points = NDArray[np.float64]  # (n, 2): x, y

WIDTH, HEIGHT = 360, 200
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 22, 34  # margins around the plot
MAX_POINTS = 800  # drawn a line; a screen shows no more
SMOOTHED_FROM = 100  # values below which a line is legible as it is
HISTOGRAM_WIDTH, HISTOGRAM_BASE, HISTOGRAM_BARS = 120, 56, 52  # the base line's y, and the longest bar
PLANE, PLANE_MARGIN = 320, 10  # the longer side of the part that holds points


class Line(NamedTuple):
    name: str  # empty when the chart has one line
    points: Sequence[tuple[float, float]]
    colour: int = 0  # of 8
    dashed: bool = False

    @property
    def kind(self) -> str:
        return f"line-{self.colour}{' dashed' if self.dashed else ''}"


class Mark(NamedTuple):
    """Something that happened at one x, drawn as a vertical line."""

    x: float
    kind: str  # resume, rollback or warning
    text: str


class Key(NamedTuple):
    """A line in the legend."""

    name: str
    kind: str  # classes of the line
    last: str  # value


class LineChart(NamedTuple):
    title: str
    legend: list[Key]
    svg: Markup  # empty when there is nothing to draw
    notes: str  # on what was left out


def line_chart(title: str, unit: str, lines: Sequence[Line], x_label: str, marks: Sequence[Mark] = ()) -> LineChart:
    """The lines over x from 0 on, with their last values and notes on what was left out of them."""
    series = [(line, _finite(line.points)) for line in lines]
    dropped = sum(len(line.points) for line in lines) - sum(len(points) for _, points in series)
    series = [(line, points) for line, points in series if len(points)]
    notes = [f"{dropped} values are not finite."] if dropped else []
    if not series:
        return LineChart(title, [], Markup(), " ".join(notes))
    everything = np.concatenate([points for _, points in series])
    x_range = _padded(0.0, float(everything[:, 0].max()), 0.0)
    y_range, outside = _focus(everything[:, 1])
    if outside:
        notes.append(f"{outside} of {len(everything)} values lie outside the axis.")
    window = _window(max(len(points) for _, points in series))
    if window > 1:
        notes.append(f"Faint: logged values. Strong: mean of {window} neighbours.")
    drawn = "".join(_mark(mark, x_range) for mark in marks)
    drawn += "".join(_draw(points, line.kind, x_range, y_range, window) for line, points in series)
    plot = f'<svg x="{LEFT}" y="{TOP}" width="{_plot_width()}" height="{_plot_height()}">{drawn}</svg>'
    spoken = ", ".join(f"{line.name} {len(points)} values, last {points[-1, 1]:.4g}".strip() for line, points in series)
    svg = _svg(WIDTH, HEIGHT, f"{title}: {spoken}", _axes(x_range, y_range, x_label, unit) + plot)
    legend = [Key(line.name, line.kind, f"{points[-1, 1]:.4g}") for line, points in series]
    return LineChart(title, legend, svg, " ".join(notes))


def histograms(title: str, stored: Sequence[float], generated: Sequence[float]) -> Markup:
    """Two histograms on the same axes, each as the shares of equal bins."""
    top = max(*stored, *generated)
    outlines = [
        " ".join(f"{x:.1f},{HISTOGRAM_BASE - HISTOGRAM_BARS * y / top:.1f}" for x, y in _steps(shares))
        for shares in (stored, generated)
    ]
    width, base = HISTOGRAM_WIDTH, HISTOGRAM_BASE
    content = (
        f'<polygon class="stored" points="0,{base} {outlines[0]} {width},{base}"/>'
        f'<polyline class="generated" points="{outlines[1]}"/>'
        f'<line class="axis" x1="0" x2="{width}" y1="{base + 0.5}" y2="{base + 0.5}"/>'
    )
    return _svg(width, base + 4, title, content)


def plane_chart(title: str, stored: Points, generated: Points) -> Markup:
    """Two sets of points on the same axes, with one scale for both axes."""
    both = np.concatenate([stored, generated])
    low, high = both.min(0), both.max(0)
    scale = PLANE / max(float((high - low).max()), 1e-9)
    width, height = ((high - low) * scale + 2 * PLANE_MARGIN).round()

    def dots(points: Points, kind: str) -> str:
        xs = (points[:, 0] - low[0]) * scale + PLANE_MARGIN
        ys = (high[1] - points[:, 1]) * scale + PLANE_MARGIN
        return "".join(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="2"/>' for x, y in zip(xs, ys, strict=True))

    return _svg(width, height, title, dots(stored, "stored") + dots(generated, "generated"))


def _svg(width: float, height: float, spoken: str, content: str) -> Markup:
    """The only text of a page that is not escaped again; `content` is escaped already."""
    size = f"0 0 {width:.0f} {height:.0f}"
    return Markup(f'<svg viewBox="{size}" role="img" aria-label="{escape(spoken)}">{content}</svg>')


def _steps(shares: Sequence[float]) -> list[tuple[float, float]]:
    """The outline of bars that fill the width."""
    wide = HISTOGRAM_WIDTH / len(shares)
    return [((bar + end) * wide, share) for bar, share in enumerate(shares) for end in (0, 1)]


def ticks(low: float, high: float) -> list[float]:
    """Two to six round numbers (1, 2 or 5 times a power of ten apart) from `low` to `high`."""
    most = (high - low) / 2 * (1 + 1e-9)  # at most that far apart, two lie within
    power = 10.0 ** math.floor(math.log10(most))
    step = next(factor * power for factor in (5, 2, 1) if factor * power <= most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{number * step:.12g}") for number in range(first, last + 1)]


def smooth(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Mean over `window` (odd) neighbours, over fewer at both ends."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low, high = np.maximum(index - window // 2, 0), np.minimum(index + window // 2 + 1, len(values))
    return (sums[high] - sums[low]) / (high - low)


def thin(points: Points, limit: int = MAX_POINTS) -> Points:
    """At most `limit` points: the lowest and the highest of each stretch, so that no peak is lost."""
    if len(points) <= limit:
        return points
    kept: set[int] = set()
    for part in np.array_split(np.arange(len(points)), limit // 2):
        kept |= {int(part[points[part, 1].argmin()]), int(part[points[part, 1].argmax()])}
    return points[sorted(kept)]


def _finite(points: Sequence[tuple[float, float]]) -> Points:
    array = np.array(points, np.float64).reshape(-1, 2)
    return array[np.isfinite(array).all(axis=1)]


def _padded(low: float, high: float, share: float) -> tuple[float, float]:
    """The range with a margin; one of its own for a single value."""
    margin = share * (high - low) if high > low else abs(low) * 0.1 or 1.0
    return low - margin, high + margin


def _focus(values: NDArray[np.float64]) -> tuple[tuple[float, float], int]:
    """The y axis, and how many values it leaves out: a few spikes must not flatten everything else."""
    low, high = float(values.min()), float(values.max())
    inner_low, inner_high = (float(q) for q in np.quantile(values, (0.02, 0.98)))
    if high - low > 6 * (inner_high - inner_low) > 0:
        low, high = _padded(inner_low, inner_high, 0.5)
        low, high = max(low, float(values.min())), min(high, float(values.max()))
    bounds = _padded(low, high, 0.05)
    return bounds, int(((values < bounds[0]) | (values > bounds[1])).sum())


def _window(count: int) -> int:
    return count // 40 * 2 + 1 if count >= SMOOTHED_FROM else 1


def _plot_width() -> int:
    return WIDTH - LEFT - RIGHT


def _plot_height() -> int:
    return HEIGHT - TOP - BOTTOM


def _place(values: NDArray[np.float64], bounds: tuple[float, float], length: int) -> NDArray[np.float64]:
    return (values - bounds[0]) / (bounds[1] - bounds[0]) * length


def _mark(mark: Mark, x_range: tuple[float, float]) -> str:
    """A thin line, and a wide one that cannot be seen for the pointer to find."""
    x = f"{_place(np.array(mark.x), x_range, _plot_width()):.1f}"
    lines = "".join(f'<line{kind} x1="{x}" x2="{x}" y1="0" y2="{_plot_height()}"/>' for kind in ("", ' class="hover"'))
    return f'<g class="mark {mark.kind}"><title>{escape(mark.text)}</title>{lines}</g>'


def _draw(points: Points, kind: str, x_range: tuple[float, float], y_range: tuple[float, float], window: int) -> str:
    parts = [(f"{kind} pale" if window > 1 else kind, points)]
    if window > 1:
        parts.append((kind, np.column_stack([points[:, 0], smooth(points[:, 1], window)])))
    return "".join(_polyline(part_kind, thin(part), x_range, y_range) for part_kind, part in parts)


def _polyline(kind: str, points: Points, x_range: tuple[float, float], y_range: tuple[float, float]) -> str:
    xs = _place(points[:, 0], x_range, _plot_width())
    ys = _plot_height() - _place(points[:, 1], y_range, _plot_height())
    if len(points) == 1:
        return f'<circle class="{kind}" cx="{xs[0]:.1f}" cy="{ys[0]:.1f}" r="2"/>'
    return f'<polyline class="{kind}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))}"/>'


def _axes(x_range: tuple[float, float], y_range: tuple[float, float], x_label: str, unit: str) -> str:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = []
    for value in ticks(*y_range):
        y = bottom - _place(np.array(value), y_range, _plot_height())
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="end" x="{LEFT - 8}" y="{y + 4:.1f}">{value:g}</text>')
    for value in ticks(*x_range):
        x = LEFT + _place(np.array(value), x_range, _plot_width())
        parts.append(f'<text class="middle" x="{x:.1f}" y="{bottom + 16}">{value:g}</text>')
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    parts.append(f'<text x="0" y="12">{escape(unit)}</text>')
    parts.append(f'<text class="end" x="{right}" y="{HEIGHT - 4}">{escape(x_label)}</text>')
    return "".join(parts)
