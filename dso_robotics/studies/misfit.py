"""Whether a model explains what its sensors read: residuals beside noise of the sensors, a straight line, and start values."""

from typing import Any

import numpy as np

from dso_robotics.costs.identification import WindowedIdentification
from dso_robotics.data.plausibility import quantum
from dso_robotics.data.windows import Windows

# Residuals this many times a sensor's own noise are no noise, and put the result in doubt. The noise of N samples is known to
# _SCATTER over the square root of N.
_SOME, _MANY, _SCATTER = 1.15, 2.5, 5.0
# Residuals whose neighbours are correlated more than this, and more than so many standard errors, are no noise from a lower
# multiple of it on.
_ALIKE, _SURE, _COLOURED = 0.1, 4.0, 1.08
# A fit that leaves this share of what a line leaves explains nothing, where lines leave so many times the noise.
_LEFT, _MOVES = 0.9, 4.0
# Errors that differ by less than this share are the same.
_SAME = 0.01
# A fit whose held-out errors are this share larger than those of the start values has not helped.
_WORSE = 0.05
# Channels that a sentence names.
_NAMED = 5
# Sums of squares of the binomial coefficients of differences of order 1, 2 and 3.
_ORDERS = (2.0, 6.0, 20.0)
_FEWEST = 8


def own_noise(values: np.ndarray) -> np.ndarray:
    """Noise (C,) of channels from the scatter between neighbouring samples of `values` (B, S, C); NaN where unknown.

    Differences of order 1 to 3 remove what varies slowly. The smallest of the three estimates counts. NaN is not measured.
    """
    found = np.full(values.shape[-1], np.nan)
    for c in range(values.shape[-1]):
        estimates = []
        for order, norm in enumerate(_ORDERS, start=1):
            squares, count = 0.0, 0
            for row in values[..., c]:
                seen = row[np.isfinite(row)]
                steps = np.diff(seen, order)
                squares, count = squares + float(steps @ steps), count + len(steps)
            if count >= _FEWEST:
                estimates.append(squares / (norm * count))
        if estimates:
            found[c] = np.sqrt(min(estimates))
    return found


def likeness(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Correlation (C,) of neighbouring samples of `values` (B, S, C) in a row, and its standard error; 0 where unknown."""
    found, error = np.zeros(values.shape[-1]), np.full(values.shape[-1], np.inf)
    for c in range(values.shape[-1]):
        rows = [row[np.isfinite(row)] for row in values[..., c]]
        square, pairs = sum(float(row @ row) for row in rows), sum(max(len(row) - 1, 0) for row in rows)
        if pairs >= _FEWEST and square > 0:
            product = sum(float(row[1:] @ row[:-1]) for row in rows)
            found[c] = product / pairs / (square / sum(map(len, rows)))
            error[c] = 1 / np.sqrt(pairs)
    return found, error


def misfit(problem: WindowedIdentification, z: np.ndarray, x: np.ndarray) -> tuple[dict[str, float], str, bool]:
    """How many times its own noise the residual of each channel is at z (n,), x (B, nq+nv+na).

    The own noise is the scatter of the residuals between neighbouring samples, or what the encoder's quantum makes, whichever
    is larger.

    Returns: the ratios by channel, a sentence on those that are no noise or "", and whether the result is in doubt.
    """
    windows = problem.windows
    names, units = windows.channels.sensor_names, windows.channels.sensor_units
    seen = np.isfinite(windows.measured)
    error = np.where(seen, problem.error(z, x), np.nan)
    noise = np.fmax(own_noise(error), _quanta(windows) / np.sqrt(12))
    size = problem.pooled_sigma()
    with np.errstate(invalid="ignore", divide="ignore"):
        times = size / noise
        some = _SOME + _SCATTER / np.sqrt(seen.sum((0, 1)))
    alike, sure = likeness(error)
    some = np.where(alike > _ALIKE + _SURE * sure, _COLOURED, some)
    worst = [c for c in np.argsort(-np.nan_to_num(times)) if np.isfinite(times[c]) and times[c] > some[c]]
    ratios = {names[c]: float(times[c]) for c in range(len(names)) if np.isfinite(times[c])}
    if not worst:
        return ratios, "", False
    doubt = bool(times[worst[0]] > _MANY)
    parts = [
        f"{names[c]} {size[c]:.3g} {units[c]}".rstrip() + f", {times[c]:.3g} times its own noise of {noise[c]:.2g}"
        for c in worst[:_NAMED]
    ]
    more = f" and {len(worst) - _NAMED} more channels" if len(worst) > _NAMED else ""
    text = (
        f"The residuals are {'no' if doubt else 'not only'} noise of the sensors: {'; '.join(parts)}{more}. The model lacks "
        "something that acts here (a limit of force, friction, backlash, a delay, a soft part), or a number that is fixed is "
        "wrong, or a sensor is filtered. Values may be wrong by more than their intervals. Look at the residuals in the "
        "report, and free or model what is missing."
    )
    return ratios, text, doubt


def _quanta(windows: Windows) -> np.ndarray:
    """Quantum (C,) of each channel, 0 where it has none."""
    found = np.zeros(len(windows.channels.sensor_names))
    for rollout in windows.rollouts:
        if rollout.sensordata is not None:
            found = np.maximum(found, [quantum(column) or 0.0 for column in rollout.sensordata.T])
    return found


def unexplained(problem: WindowedIdentification, z: np.ndarray, x: np.ndarray) -> list[str]:
    """A warning if the residual of a channel that moves is about that of a straight line through each window.

    The start state that each window has for itself makes as much of it as a line does. A constant is a line too.
    """
    windows, told = problem.windows, []
    seen = np.isfinite(windows.measured)
    error = np.where(seen, problem.error(z, x), np.nan)
    noise = own_noise(windows.measured)
    for c, name in enumerate(windows.channels.sensor_names):
        lines = np.concatenate(
            [_off_line(w, row) for w, row in zip(windows.sample, windows.measured[..., c], strict=True)]
        )
        left = error[..., c][seen[..., c]]
        if len(lines) and _rms(lines) > _MOVES * noise[c] and _rms(left) > _LEFT * _rms(lines):
            told.append(name)
    if not told:
        return []
    shown = ", ".join(told[:_NAMED]) + (f" and {len(told) - _NAMED} more" if len(told) > _NAMED else "")
    return [
        f"The fit of {shown} is no better than a constant or a straight line in each window, which the start states alone "
        "can make. Check units, signs and the order of channels, and what is free, before anything else is believed."
    ]


def _off_line(sample: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Residuals (m,) of the best straight line through the known ones of `values` (S,)."""
    seen = np.isfinite(values)
    if seen.sum() < _FEWEST:
        return np.zeros(0)
    time = sample[seen] - sample[seen].mean()
    away = values[seen] - values[seen].mean()
    return away - time * float(time @ away) / max(float(time @ time), 1e-300)


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))


def no_better(fitted: dict[str, Any], start: dict[str, Any], moved: bool, part: str) -> list[str]:
    """A warning if the fitted values predict no better than the start values.

    fitted, start: the errors of a part of the log, "pooled_rmse" by channel.
    moved: whether some value differs from its start by more than its uncertainty.
    part: "train" or "hold_out".
    """
    ratios = [
        np.log(entry["pooled_rmse"] / start[name]["pooled_rmse"])
        for name, entry in fitted.items()
        if name in start and min(entry["pooled_rmse"], start[name]["pooled_rmse"]) > 0
    ]
    if not ratios:
        return []
    change = float(np.exp(np.mean(ratios)) - 1)
    if part == "hold_out" and change > _WORSE:
        return [
            f"On held-out runs the fitted values predict worse than the start values, by {change:.0%} on average: what was "
            "fitted does not hold there. Free less, fit more runs, or look for what the model lacks."
        ]
    if part == "train" and moved and change > -_SAME:
        return [
            "The fitted values predict the fitted runs no better than the start values, though they differ: the error comes "
            "from something that is not free. Look at the residuals in the report before the values are believed."
        ]
    return []
