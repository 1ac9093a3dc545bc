"""How well a model predicts: open-loop windows of a log, on the model's own time grid, in plain C MuJoCo.

The score of a channel is its root-mean-square error, averaged over half-overlapping windows. A window starts at the measured
state, so no part of the window is fitted. Its first sample is that measurement and does not count. If the sensors do not
measure the whole state, the start states are estimated from the window, and the result says so.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dso_robotics.core.method.gauss_newton import solve
from dso_robotics.core.method.least_squares import Settings, StartError
from dso_robotics.costs.identification import WindowedIdentification
from dso_robotics.data.match import Channels
from dso_robotics.data.resample import resample
from dso_robotics.data.rollout import Rollout
from dso_robotics.data.windows import Windows, cut
from dso_robotics.errors import DsoError
from dso_robotics.parameters.vector import ParameterVector
from dso_robotics.robot import start
from dso_robotics.robot.prediction import CPrediction
from dso_robotics.studies.motion import Motion, motions

_OVERLAP = 0.5


@dataclass(frozen=True, eq=False)
class Trace:
    """One rollout and its prediction, for figures.

    rollout: name of the rollout.
    time: sample times, (T,) [s].
    measured: measured values, (T, C).
    predicted: predicted values, (T, C).
    starts: window starts, (W,).
    """

    rollout: str
    time: np.ndarray
    measured: np.ndarray
    predicted: np.ndarray
    starts: np.ndarray

    def as_dict(self) -> dict[str, np.ndarray]:
        """The arrays by name, as stored in the run file."""
        return {name: getattr(self, name) for name in ("time", "measured", "predicted", "starts")}


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Prediction errors of one set of rollouts.

    rmse: (C,) root-mean-square error of a window, averaged over windows.
    pooled: (C,) root-mean-square error over all samples.
    nrmse_percent: (C,) rmse divided by the channel's standard deviation [%].
    windows: number of windows.
    diverged: number of windows that diverged. Each counts with the error of a prediction that stays at its start.
    start: "measured" or "estimated".
    left_out: number of windows that are skipped because the state is not measured at their start.
    """

    rmse: np.ndarray
    pooled: np.ndarray
    nrmse_percent: np.ndarray
    windows: int
    diverged: int
    start: str
    left_out: int
    traces: tuple[Trace, ...]
    motions: tuple[Motion, ...]


def scoring_windows(
    rollouts: Sequence[Rollout],
    channels: Channels,
    *,
    timestep: float,
    seconds: float,
    source: str = "log",
    option: str = "--score-window",
    **late: Any,
) -> Windows:
    """Half-overlapping windows of length `seconds`, from `rollouts` resampled to `timestep` [s]; `late` as for `cut`.

    Raises DsoError, naming `source` and `option`, if there are no windows or the rollouts cannot be resampled.
    """
    try:
        gridded = [resample(r, timestep) if seconds else r for r in rollouts]
    except DsoError as error:
        raise DsoError(f"{source}: {error}") from error
    windows = cut(
        gridded, channels, timestep=timestep, seconds=seconds, overlap=_OVERLAP, source=source, option=option, **late
    )
    return windows if windows.single else windows.complete() or windows


def evaluate(
    vector: ParameterVector,
    z: np.ndarray,
    windows: Windows,
    *,
    sigma: np.ndarray,
    robust: bool = False,
    predict: Callable[[Windows, np.ndarray], np.ndarray] | None = None,
    estimate: bool = False,
) -> Evaluation:
    """Score the model at z (n,) on `scoring_windows`.

    sigma: (C,) weights of the channels, used if start states must be estimated.
    robust: do not start a window at a sample that is an outlier among its neighbours.
    estimate: start at states estimated from the windows, also where the log shows them.
    predict: maps windows and start states to readings (B, S, C), to score something other than the model alone.
    """
    known, kept = start.measured(windows, vector.mj), start.seen(windows, vector.mj)
    # A state that is interpolated across a gap is not a measurement. If there are only such states, all starts are estimated.
    known = known and bool(kept.any()) and not estimate
    left_out = int((~kept).sum()) if known else 0
    if left_out:
        windows = windows.only(kept)
    prediction = CPrediction(vector, windows)
    x = start.guess(windows, vector.mj, vector.signals(z), robust=robust)
    if not known:
        x = _estimate_starts(vector, z, windows, prediction, x, sigma)
    y = prediction.predict(z, x) if predict is None else predict(windows, x)
    lost = np.isnan(y).any((1, 2))
    y[lost] = y[lost, :1]
    apart = _apart(windows)
    first = np.zeros(windows.measured.shape[:2], bool)
    first[:, 0] = known and not windows.single
    error = np.where(first[..., None], np.nan, y - windows.measured)
    with np.errstate(invalid="ignore"):
        per_window = np.sqrt(_mean(error**2, 1))
        # Not nanstd: a channel may not be measured in these rollouts at all.
        readings = windows.measured.reshape(-1, error.shape[-1])
        spread = np.sqrt(_mean((readings - _mean(readings, 0)) ** 2, 0))
        rmse = _mean(per_window, 0)
        return Evaluation(
            rmse=rmse,
            pooled=np.sqrt(_mean(error.reshape(-1, error.shape[-1]) ** 2, 0)),
            nrmse_percent=100 * rmse / np.maximum(spread, 1e-300),
            windows=len(windows),
            diverged=int(lost.sum()),
            start="measured" if known else "estimated",
            left_out=left_out,
            traces=tuple(_trace(windows, y, i) for i in range(len(windows.rollouts))),
            motions=motions(vector, z, windows.only(apart), x[apart], robust=robust),
        )


def _mean(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean of the values that are not NaN; NaN if there are none."""
    seen = np.isfinite(values)
    return np.where(seen, values, 0.0).sum(axis) / np.where(seen.any(axis), seen.sum(axis), np.nan)


def _estimate_starts(
    vector: ParameterVector,
    z: np.ndarray,
    windows: Windows,
    prediction: CPrediction,
    x: np.ndarray,
    sigma: np.ndarray,
) -> np.ndarray:
    problem = WindowedIdentification(vector, windows, prediction, sigma=sigma, learn_noise=False)
    try:
        return solve(problem, z, x, low=z, high=z, scale=vector.scale, settings=Settings(cost_tolerance=1e-4)).x
    except StartError:
        return x


def _apart(windows: Windows) -> np.ndarray:
    """Every second window (B,) of each rollout, so that they do not overlap."""
    every = 1 if windows.single else round(1 / _OVERLAP)
    chosen = [np.flatnonzero(windows.rollout == i)[::every] for i in range(len(windows.rollouts))]
    return np.isin(np.arange(len(windows)), np.concatenate(chosen))


def _trace(windows: Windows, y: np.ndarray, rollout: int) -> Trace:
    """The trace of the windows that do not overlap. A NaN row marks each restart."""
    recording = windows.rollouts[rollout]
    measured = np.full((len(recording.time), windows.measured.shape[-1]), np.nan)
    if recording.sensordata is not None:
        measured = np.array(recording.sensordata)
    predicted = np.full_like(measured, np.nan)
    mine = np.flatnonzero((windows.rollout == rollout) & _apart(windows))
    for w in mine:
        index = windows.sample[w]
        predicted[index[index >= 0]] = y[w][index >= 0]
    return Trace(
        recording.name, recording.time, measured, predicted, windows.time[mine][: 1 if windows.single else None]
    )
