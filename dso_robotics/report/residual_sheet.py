"""A figure of the residuals of a fitted model, by matplotlib: over time, their histogram and their autocorrelation."""

from collections.abc import Mapping, Sequence

import numpy as np

from dso_robotics.data.split import PART_NAMES
from dso_robotics.report import canvas
from dso_robotics.report.quantity import quantity, unit
from dso_robotics.report.residual import Whiteness
from dso_robotics.report.trace import Trace

_MOST_NAMES = 12
# Distance of axis labels from the frame [inches]: below, left.
_LABELS = (0.26, 0.5)


def draw_residuals(
    traces: Sequence[Trace], channels: Mapping[str, str], statistics: Sequence[Whiteness]
) -> canvas.Picture:
    """A row for each channel: residuals of all runs in sequence, their histogram, their autocorrelation."""
    part = traces[0].part
    colour = canvas.PARTS[part]
    figure, axes = canvas.rows(1.7, len(channels), (2.6, 1.0, 1.0), share=False)
    residuals = [trace.residual for trace in traces]
    lengths = [trace.time[-1] - trace.time[0] + trace.interval for trace in traces]
    offsets = np.concatenate([[0.0], np.cumsum(lengths)])
    for c, (name, text) in enumerate(channels.items()):
        over, spread, memory = axes[c]
        shown = f"[{unit(text) or '1'}]"
        for trace, residual, offset in zip(traces, residuals, offsets, strict=False):
            time = trace.time - trace.time[0] + offset
            over.plot(*canvas.thin(time, residual[:, c], 900), color=colour, linewidth=0.7)
        over.axhline(0, color=canvas.INK, linewidth=0.6)
        over.vlines(offsets[1:-1], 0, 1, transform=over.get_xaxis_transform(), color=canvas.GREY, linewidth=0.8)
        over.set_xlim(0, offsets[-1])
        canvas.title(over, name, f"RMS {quantity(statistics[c].rms, text, 3)}")
        canvas.label(over, y=shown, inches=_LABELS)
        _histogram(spread, np.concatenate([residual[:, c] for residual in residuals]), colour)
        canvas.title(spread, f"histogram {shown}")
        _autocorrelation(memory, statistics[c], colour)
        canvas.title(memory, "autocorrelation [1]")
    canvas.label(axes[-1, 0], x="time, runs end to end [s]", inches=_LABELS)
    canvas.label(axes[-1, 2], x="lag [s]", inches=_LABELS)
    if len(traces) <= _MOST_NAMES:
        for trace, begin, length in zip(traces, offsets, lengths, strict=False):
            axes[0, 0].text(
                begin + length / 2,
                1.17,
                trace.name[:16].replace("$", r"\$"),
                fontsize=canvas.SMALL,
                ha="center",
                transform=axes[0, 0].get_xaxis_transform(),
                color="#555555",
            )
    figure.suptitle(
        f"predicted minus measured, {PART_NAMES[part]} runs",
        x=0.01,
        y=0.995,
        ha="left",
        va="top",
        fontsize=canvas.SMALL,
    )
    return canvas.picture(
        figure,
        f"residuals-{part}.png",
        f"Residuals of {', '.join(channels)} over time, their histogram and autocorrelation, {PART_NAMES[part]} runs",
    )


def _histogram(axis, values: np.ndarray, colour: str) -> None:
    values = values[np.isfinite(values)]
    axis.set_yticks([])
    deviation = float(values.std()) if len(values) else 0.0
    if deviation == 0:
        return
    mean = values.mean()
    grid = np.linspace(mean - 4.5 * deviation, mean + 4.5 * deviation, 61)
    axis.hist(values, grid, density=True, color=colour, alpha=0.55, histtype="stepfilled")
    normal = np.exp(-0.5 * ((grid - mean) / deviation) ** 2) / (deviation * np.sqrt(2 * np.pi))
    axis.plot(grid, normal, color=canvas.INK, linewidth=0.8, linestyle="--")
    axis.locator_params(axis="x", nbins=4)


def _autocorrelation(axis, statistics: Whiteness, colour: str) -> None:
    axis.set_ylim(-0.65, 1.05)
    axis.fill_between(statistics.lag, -statistics.band, statistics.band, color=canvas.FAINT, linewidth=0)
    axis.axhline(0, color=canvas.INK, linewidth=0.6)
    axis.plot(statistics.lag, statistics.autocorrelation, color=colour, linewidth=1.1)
    if len(statistics.lag) > 1:
        axis.set_xlim(0, statistics.lag[-1])
    axis.locator_params(axis="x", nbins=4)
