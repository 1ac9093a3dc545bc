"""A figure of one rollout and its prediction, by matplotlib."""

import re
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from dso_robotics.data.split import PART_NAMES
from dso_robotics.report import canvas
from dso_robotics.report.quantity import quantity, unit
from dso_robotics.report.trace import Trace

_MOST_RESTARTS = 60
# Distance of axis labels from the frame [inches]: below, left.
_LABELS = (0.24, 0.5)


class TraceSheet:
    """A figure of measured and predicted values, a row for each channel, redrawn for each rollout.

    Matplotlib spends most of its time on making axes and ticks, so the sheet makes them once.
    """

    def __init__(self, channels: Mapping[str, str]):
        """`channels`: name to unit."""
        self._channels = dict(channels)
        self._figure, axes = canvas.rows(1.55 if len(channels) <= 6 else 1.25, len(channels))
        self._axes = axes[:, 0]
        self._lines = []
        for axis, (name, text) in zip(self._axes, channels.items(), strict=True):
            restarts = axis.plot([], [], color=canvas.FAINT, linewidth=0.8, transform=axis.get_xaxis_transform())[0]
            measured = axis.plot([], [], color=canvas.GREY, linewidth=1.8)[0]
            predicted = axis.plot([], [], linewidth=0.9)[0]
            self._lines.append((restarts, measured, predicted))
            axis.grid(axis="x", visible=False)
            axis.locator_params(axis="y", nbins=5)
            canvas.title(axis, name, " ")
            canvas.label(axis, y=f"[{unit(text) or '1'}]", inches=_LABELS)
        if channels:
            canvas.label(self._axes[-1], x="time [s]", inches=_LABELS)
            canvas.legend(self._figure, list(self._lines[0][1:]), ["measured", "predicted"])

    def draw(self, trace: Trace, number: int) -> canvas.Picture:
        """The picture of `trace`; `number` keeps apart the files of rollouts whose names look alike."""
        slug = re.sub(r"[^A-Za-z0-9]+", "-", trace.name).strip("-")[:40]
        return canvas.picture(
            self.fill(trace),
            f"trace-{trace.part}-{number:02d}-{slug}.png",
            f"Measured and predicted {', '.join(self._channels)} over time, {PART_NAMES[trace.part]} run {trace.name}",
        )

    def fill(self, trace: Trace, run: str | None = None) -> Figure:
        """The sheet's figure, showing `trace`; the legend calls it `run`, or fitted or held out."""
        breaks = np.flatnonzero(np.diff(trace.window, prepend=-1) != 0)
        broken = np.insert(trace.time, breaks, trace.time[breaks])
        marked = trace.starts if len(trace.starts) <= _MOST_RESTARTS else trace.starts[:0]
        rmse, names = trace.rmse, list(self._channels)
        for c, (axis, (restarts, measured, predicted)) in enumerate(zip(self._axes, self._lines, strict=True)):
            restarts.set_data(np.repeat(marked, 3), np.tile([0.0, 1.0, np.nan], len(marked)))
            values = trace.measured[:, c]
            seen = np.isfinite(values)
            sparse = trace.sparse(c)
            measured.set(linestyle="none" if sparse else "-", marker="." if sparse else "", markersize=3)
            measured.set_data(*((trace.time[seen], values[seen]) if sparse else canvas.thin(trace.time, values)))
            predicted.set_data(*canvas.thin(broken, np.insert(trace.predicted[:, c], breaks, np.nan)))
            predicted.set_color(canvas.PARTS[trace.part])
            both = np.concatenate([values[seen], trace.predicted[:, c][np.isfinite(trace.predicted[:, c])]])
            low, high = (both.min(), both.max()) if len(both) else (0.0, 1.0)
            margin = 0.08 * (high - low) or 0.5
            axis.set_ylim(low - margin, high + margin)
            canvas.title(axis, names[c], f"RMS error {quantity(rmse[c], self._channels[names[c]], 3)}")
        if names and len(trace.time):
            margin = 0.005 * (trace.time[-1] - trace.time[0]) or 0.5
            self._axes[-1].set_xlim(trace.time[0] - margin, trace.time[-1] + margin)
        for legend in self._figure.legends:
            restart = "; it restarts at each grey line" if len(marked) > 1 else ""
            legend.texts[1].set_text(f"predicted open loop, {run or f'{PART_NAMES[trace.part]} run'}{restart}")
            legend.get_lines()[1].set_color(canvas.PARTS[trace.part])
        return self._figure
