"""Residuals of a fitted model: over time, their histogram and their autocorrelation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dso_robotics.report import canvas
from dso_robotics.report.quantity import quantity, unit
from dso_robotics.report.trace import PART_NAMES, Trace

# For white residuals 5% of the lags are outside the 95% band; twice that share is still taken as chance.
_WHITE = 0.1
_MOST_NAMES = 12
# Distance of axis labels from the frame [inches]: below, left.
_LABELS = (0.26, 0.5)


@dataclass(frozen=True)
class Whiteness:
    """Statistics of the residuals of one channel over all windows of one part.

    mean: in the channel's unit.
    rms: root mean square, in the channel's unit.
    samples: number of samples.
    lag: (L,) [s], up to half a window.
    autocorrelation: (L,), at each lag.
    band: (L,), half-width of the 95% band of white residuals at each lag.
    memory: time until the autocorrelation falls below 1/e [s]; NaN if it does not within the lags.
    outside: share of lags outside the band; NaN without lags.
    """

    mean: float
    rms: float
    samples: int
    lag: np.ndarray
    autocorrelation: np.ndarray
    band: np.ndarray
    memory: float
    outside: float

    @property
    def white(self) -> bool:
        """Whether chance explains the autocorrelation."""
        return self.outside <= _WHITE


def whiteness(traces: Sequence[Trace], channel: int) -> Whiteness:
    """Statistics of a channel. The autocorrelation is within windows, which are predicted independently, and then averaged."""
    pieces, interval = [], min((t.interval for t in traces), default=1.0)
    for trace in traces:
        residual, window = trace.residual[:, channel], trace.window
        pieces += [
            piece for piece in np.split(residual, np.flatnonzero(np.diff(window)) + 1) if np.isfinite(piece).any()
        ]
    values = np.concatenate(pieces) if pieces else np.zeros(0)
    values = values[np.isfinite(values)]
    if not len(values):
        nothing = np.zeros(0)
        return Whiteness(np.nan, np.nan, 0, nothing, nothing, nothing, np.nan, np.nan)
    mean, width = float(values.mean()), max(len(piece) for piece in pieces)
    padded = np.full((len(pieces), width), np.nan)
    for row, piece in zip(padded, pieces, strict=True):
        row[: len(piece)] = piece - mean
    seen = np.isfinite(padded)
    lags = max(1, width // 2)
    pairs = np.round(_products(seen.astype(float)))[:lags]
    covariance = _products(np.where(seen, padded, 0.0))[:lags]
    used = pairs > 0
    lag, pairs, covariance = np.flatnonzero(used), pairs[used], covariance[used] / pairs[used]
    if covariance[0] <= 0:
        lag, pairs, covariance = lag[:0], pairs[:0], covariance[:0]
    correlation = covariance / covariance[:1] if len(covariance) else covariance
    band = 1.96 / np.sqrt(pairs)
    below = np.flatnonzero(correlation < np.exp(-1))
    return Whiteness(
        mean,
        float(np.sqrt(np.mean(values**2))),
        len(values),
        lag * interval,
        correlation,
        band,
        float(lag[below[0]] * interval) if len(below) else np.nan,
        float(np.mean(np.abs(correlation[1:]) > band[1:])) if len(lag) > 1 else np.nan,
    )


def _products(values: np.ndarray) -> np.ndarray:
    """Sum over rows of products of samples, for each lag between them, by the Fourier transform."""
    padded = 2 * values.shape[1]
    return np.fft.irfft((np.abs(np.fft.rfft(values, padded)) ** 2).sum(0), padded)


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
