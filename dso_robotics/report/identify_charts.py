"""Charts of an identification: runs and their prediction, residuals, the search; small pictures in its tables."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from dso_robotics.report.chart import Chart, Line
from dso_robotics.report.quantity import MISSING, number, quantity, unit
from dso_robotics.report.residual import Whiteness
from dso_robotics.report.trace import Trace

_MOST_PATHS = 7
_MOST_LABELS = 60
_BINS = 60


def trace_charts(trace: Trace, channels: Mapping[str, str]) -> Iterator[Chart]:
    """For each channel, one by one because all may be large, the measured and the predicted values of a run.

    A prediction is broken where a window starts.
    """
    breaks = np.flatnonzero(np.diff(trace.window, prepend=-1) != 0)
    time = np.insert(trace.time, breaks, trace.time[breaks])
    starts, x_label = trace.starts, "time [s]"
    if len(time) and abs(time[0]) > 1000 * max(time[-1] - time[0], trace.interval):
        # A clock of days or years would hide the seconds.
        time, starts, x_label = time - time[0], starts - time[0], f"time after {time[0]:.15g} s [s]"
    rmse = trace.rmse
    for c, (name, text) in enumerate(channels.items()):
        measured = trace.measured[:, c]
        lines = [
            Line(
                "measured",
                np.insert(measured, breaks, measured[breaks]),
                "measured",
                "dots" if trace.sparse(c) else "thick",
            ),
            Line("predicted", np.insert(trace.predicted[:, c], breaks, np.nan), trace.part),
        ]
        more = {"unit": text or "1", "remark": f"RMS error {quantity(rmse[c], text, 3)}", "marks": starts}
        yield Chart(name, time, lines, x_label, group=f"{trace.part}/{trace.name}", **more)


def residual_charts(
    traces: Sequence[Trace], channels: Mapping[str, str], statistics: Sequence[Whiteness]
) -> list[list[Chart]]:
    """For each channel the residuals of all runs end to end, their histogram, their autocorrelation."""
    part = traces[0].part
    lengths = [t.time[-1] - t.time[0] + t.interval for t in traces]
    offsets = np.concatenate([[0.0], np.cumsum(lengths)])
    time = np.concatenate([t.time - t.time[0] + offset for t, offset in zip(traces, offsets, strict=False)])
    residual = np.concatenate([t.residual for t in traces])
    rows = []
    for c, (name, text) in enumerate(channels.items()):
        values, shown = residual[:, c], f"[{unit(text) or '1'}]"
        remark = f"RMS {quantity(statistics[c].rms, text, 3)}"
        over = [Line("residual", values, part)]
        x_label = "time, runs end to end [s]" if len(traces) > 1 else "time [s]"
        more = {
            "remark": remark,
            "unit": text or "1",
            "marks": offsets[1:-1],
            "group": f"residuals/{part}",
            "width": 560,
        }
        row = [Chart(name, time, over, x_label, **more)]
        row += [chart for chart in (_histogram(values, part, shown), _autocorrelation(statistics[c], part)) if chart]
        rows.append(row)
    return rows


def _histogram(values: np.ndarray, colour: str, shown: str) -> Chart | None:
    values = values[np.isfinite(values)]
    mean, deviation = (float(values.mean()), float(values.std())) if len(values) else (0.0, 0.0)
    edges = np.linspace(mean - 4.5 * deviation, mean + 4.5 * deviation, _BINS + 1)
    if not (deviation > 0 and np.all(np.diff(edges) > 0)):
        return None
    middle = (edges[1:] + edges[:-1]) / 2
    density = np.histogram(values, edges)[0] / (len(values) * np.diff(edges))
    normal = np.exp(-0.5 * ((middle - mean) / deviation) ** 2) / (deviation * np.sqrt(2 * np.pi))
    lines = [Line("share", density, colour, "bars"), Line("normal", normal, "ink", "dash")]
    return Chart("histogram", middle, lines, f"residual {shown}", width=300)


def _autocorrelation(statistics: Whiteness, colour: str) -> Chart | None:
    if len(statistics.lag) < 2:
        return None
    lines = [
        Line("band", statistics.band, "measured", "band"),
        Line("band", -statistics.band, "measured", "band"),
        Line("autocorrelation", statistics.autocorrelation, colour),
    ]
    return Chart("autocorrelation", statistics.lag, lines, "lag [s]", width=300)


def convergence_charts(history: Mapping[str, np.ndarray], names: Sequence[str]) -> list[Chart]:
    """Cost above its minimum, damping, and parameters relative to their final values, by accepted step."""
    cost = np.asarray(history["cost"], float)
    if len(cost) < 2:
        return []
    step, stages = np.arange(len(cost), dtype=float), np.flatnonzero(np.diff(history["stage"])) + 1.0
    more = {"x_label": "accepted step", "marks": stages, "group": "search"}
    least = float(np.nanmin(cost))
    above = np.where(cost > least, cost - least, np.nan)
    damping = np.asarray(history["damping"], float)
    charts = []
    for title, values, colour, remark in (
        ("cost above its minimum", above, "p0", f"minimum {number(least, 6)} nat"),
        ("damping of the steps", np.where(damping > 0, damping, np.nan), "p2", ""),
    ):
        scale = "log" if np.isfinite(values).any() else "linear"
        charts.append(
            Chart(title, step, [Line(title, values, colour)], scale=scale, remark=remark, height=140, width=440, **more)
        )
    z = np.asarray(history["z"], float)
    size = np.maximum(np.abs(z[0]), np.abs(z[-1]))
    paths = (z - z[-1]) / np.where(size > 0, size, 1.0)
    most = sorted(np.argsort(-np.nan_to_num(np.abs(paths)).max(0))[:_MOST_PATHS].tolist())
    lines = [Line(str(names[i]), paths[:, i], f"p{order}") for order, i in enumerate(most)]
    title = "parameters relative to their final values"
    title += f", the {len(most)} of {len(names)} that changed most" if len(names) > len(most) else ""
    scale = "asinh" if np.nanmax(np.abs(paths), initial=0.0) > 3 else "linear"
    return [*charts, Chart(title, step, lines, scale=scale, height=260, width=600, **more)]


def interval_bar(parameter: Mapping[str, Any]) -> Markup:
    """A picture of a parameter's start, value and 95% interval, from zero to twice the larger of start and value."""
    start, value = parameter["initial"], parameter["value"]
    size = abs(max(start, value, key=abs)) or 1.0
    low, high = (-1.25, 1.75) if min(start, value) < 0 else (-0.25, 1.75)

    def at(number: float) -> float:
        return 200 * (min(max(number / size, low), high) - low) / (high - low)

    ends = [parameter["low95"], parameter["high95"]]
    left, right = (at(side if end is None else end) for side, end in zip((-np.inf, np.inf), ends, strict=True))
    colour = "p1" if parameter["at_bound"] else "p0"
    text = f"start {number(start)}, value {number(value)}"
    return Markup(
        f'<svg class="bar" viewBox="-6 0 212 16" width="212" height="16" role="img"><title>{text}</title>'
        f'<path class="grid" d="M{at(0.0):.1f} 0V16"/><path class="line {colour} thick" d="M{left:.1f} 8H{right:.1f}"/>'
        f'<path class="line ink" d="M{at(start):.1f} 1V15"/><circle class="{colour}" cx="{at(value):.1f}" cy="8" r="4"/></svg>'
    )


def correlation_cells(correlation: np.ndarray, names: Sequence[str]) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """Rows of the matrix below its diagonal: a name, and for each cell its text, its style and its meaning.

    Empty if there is none, or too large for a page.
    """
    if not 2 <= len(names) <= _MOST_LABELS:
        return []
    rows = []
    for i in range(1, len(names)):
        cells = []
        for j in range(i):
            r = float(correlation[i, j])
            known = np.isfinite(r)
            text = f"{r:.2f}".replace("0.", ".") if known else MISSING
            rgb = "213, 94, 0" if r > 0 else "0, 114, 178"
            style = f"background: rgba({rgb}, {min(abs(r), 1.0):.2f})" if known else ""
            cells.append((text, style, f"{names[i]}, {names[j]}: {text}"))
        rows.append((names[i], cells))
    return rows
