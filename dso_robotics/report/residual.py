"""Statistics of the residuals of a fitted model: whether they look like measurement noise alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dso_robotics.report.quantity import listed
from dso_robotics.report.trace import Trace

# For white residuals 5% of the lags are outside the 95% band; twice that share is still taken as chance.
_WHITE = 0.1


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


def verdict(names: Sequence[str], statistics: Sequence[Whiteness]) -> str:
    """Which of the channels `names` have residuals that look like noise alone."""
    white = [name for name, w in zip(names, statistics, strict=True) if w.white]
    coloured = [name for name, w in zip(names, statistics, strict=True) if w.outside > 0 and not w.white]
    sentences = []
    if white:
        sentences.append(f"{listed(white)}: white, as measurement noise alone would be.")
    if coloured:
        sentences.append(
            f"{listed(coloured)}: not white, so the residuals contain something repeatable that this model does not describe."
        )
    return " ".join(sentences)


def _products(values: np.ndarray) -> np.ndarray:
    """Sum over rows of products of samples, for each lag between them, by the Fourier transform."""
    padded = 2 * values.shape[1]
    return np.fft.irfft((np.abs(np.fft.rfft(values, padded)) ** 2).sum(0), padded)
