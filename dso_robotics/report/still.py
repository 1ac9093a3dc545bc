"""A chart as a still picture: SVG for paper, and for readers that run no scripts."""

import html

import numpy as np

from dso_robotics.report.chart import Chart, Line, thinned, ticks

_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 8, 6, 42
# Of the names of the lines: height of a row, and widths of its line and of a letter.
_ROW, _DASH, _LETTER = 18, 22, 8.0
_MOST_NAMES = 12
_MOST_ROWS = 700
_MOST_MARKS = 60


def still(chart: Chart) -> str:
    """The chart as an SVG element; below it the names of its lines, if it has several."""
    names, rows = _names(chart)
    height, width = chart.height + 20, chart.width
    x, columns = thinned(chart.x, np.column_stack([line.values for line in chart.lines]), _MOST_ROWS)
    columns = _scaled(columns, chart.scale)
    left, right = _range(x, 0.0)
    low, high = _range(columns, 0.06)
    across = (x - left) / (right - left) * (width - _LEFT - _RIGHT) + _LEFT
    up = (high - columns) / (high - low) * (height - _TOP - _BOTTOM) + _TOP
    parts = [
        f'<svg class="still" viewBox="0 0 {width} {height + rows * _ROW}" role="img"><title>{html.escape(chart.title)}</title>'
    ]
    for value in ticks(low, high, 4):
        y = (high - value) / (high - low) * (height - _TOP - _BOTTOM) + _TOP
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.0f}H{width - _RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.0f}" text-anchor="end">{_label(value, chart.scale)}</text>')
    for value in ticks(left, right, max(width // 120, 2)):
        at = (value - left) / (right - left) * (width - _LEFT - _RIGHT) + _LEFT
        parts.append(f'<text x="{at:.0f}" y="{height - 24}" text-anchor="middle">{value + 0.0:.6g}</text>')
    parts.append(f'<path class="grid" d="M{_LEFT} {height - _BOTTOM}H{width - _RIGHT}"/>')
    if len(chart.marks) <= _MOST_MARKS:
        places = (chart.marks - left) / (right - left) * (width - _LEFT - _RIGHT) + _LEFT
        parts += [f'<path class="mark" d="M{at:.0f} {_TOP}V{height - _BOTTOM}"/>' for at in places]
    parts += [_drawn(line, across, up[:, i]) for i, line in enumerate(chart.lines)]
    if chart.x_label:
        parts.append(
            f'<text x="{width / 2:.0f}" y="{height - 6}" text-anchor="middle">{html.escape(chart.x_label)}</text>'
        )
    for line, at, row in names:
        y = height + row * _ROW + 12
        parts.append(f'<path class="line {line.colour} {line.style}" d="M{at:.0f} {y - 4}h{_DASH - 6}"/>')
        parts.append(f'<text x="{at + _DASH:.0f}" y="{y}">{html.escape(line.label)}</text>')
    return "".join([*parts, "</svg>"])


def _names(chart: Chart) -> tuple[list[tuple[Line, float, int]], int]:
    """Each line of a chart of several with the place of its name, from the left and by rows; and how many rows there are."""
    placed, at, row = [], float(_LEFT), 0
    if not 1 < len(chart.lines) <= _MOST_NAMES:
        return [], 0
    for line in chart.lines:
        wide = _DASH + _LETTER * len(line.label) + 14
        if at > _LEFT and at + wide > chart.width:
            at, row = float(_LEFT), row + 1
        placed.append((line, at, row))
        at += wide
    return placed, row + 1


def _drawn(line: Line, across: np.ndarray, up: np.ndarray) -> str:
    seen = np.isfinite(up) & np.isfinite(across)
    points = np.stack([across, np.where(seen, up, 0.0)], 1).round(1)
    if line.style == "dots":
        path = "".join(f"M{a:g} {b:g}h0" for a, b in points[seen].tolist())
        return f'<path class="line {line.colour} dots" d="{path}"/>'
    starts = seen & ~np.concatenate([[False], seen[:-1]])
    path = "".join(
        f"{'M' if begin else ' '}{a:g} {b:g}"
        for (a, b), begin in zip(points[seen].tolist(), starts[seen].tolist(), strict=True)
    )
    return f'<path class="line {line.colour} {line.style}" d="{path}"/>'


def _scaled(values: np.ndarray, scale: str) -> np.ndarray:
    if scale == "asinh":
        return np.arcsinh(values)
    if scale == "log":
        return np.log10(np.where(values > 0, values, np.nan))
    return values


def _label(value: float, scale: str) -> str:
    if scale != "linear":
        value = np.sinh(np.clip(value, -700, 700)) if scale == "asinh" else 10.0 ** np.clip(value, -307, 307)
    return f"{value + 0.0:.4g}"


def _range(values: np.ndarray, margin: float) -> tuple[float, float]:
    """Least and greatest finite value with a margin; never the same number twice."""
    seen = values[np.isfinite(values)]
    low, high = (float(seen.min()), float(seen.max())) if seen.size else (0.0, 1.0)
    wide = high - low
    if wide <= 1e-9 * max(abs(low), abs(high)):
        wide = max(abs(high), 1e-300)
        return low - 0.5 * wide, high + 0.5 * wide
    return low - margin * wide, high + margin * wide
