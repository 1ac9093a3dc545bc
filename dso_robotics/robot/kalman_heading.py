"""Where windows of a log begin if nothing measures the heading of a free body alone: at the estimates of a running filter.

Start states are guessed from sensors of frames and joints. An inertial unit, a compass and positions tell an orientation too,
but only together and in time. So the filter of the run time, which follows many headings, runs over each log once. What it
needs to find the heading is left out of the training.
"""

import copy
from dataclasses import replace

import mujoco
import numpy as np

from dso_robotics.errors import DsoError
from dso_robotics.parameters.vector import ParameterVector
from dso_robotics.robot.corrector import Scales
from dso_robotics.robot.correctors.kalman import KalmanCorrector, Noise
from dso_robotics.robot.estimator_space import Space
from dso_robotics.robot.filter_data import FilterWindows
from dso_robotics.robot.kalman_estimator import KalmanEstimator
from dso_robotics.robot.learned import Learned

# Noise of positions and velocities in this first run: an unknown robot in unknown gusts.
_POSITION, _RATE = 1e-3, 1.0
# The heading is found where its deviation [rad] is below this, and given up after this long [s].
_FOUND, _LONGEST = 0.3, 5.0


def unknown(model: mujoco.MjModel, given: FilterWindows) -> bool:
    """Whether the model has one free body and no sensor that shows its orientation alone."""
    return len(Space(model).free_turns) == 1 and not given.channels.quaternions


class Headings:
    """The estimates (T, nx) of a first run over each rollout of `whole`, one window each, and the sample where they count."""

    def __init__(self, whole: FilterWindows, physics: ParameterVector, sensor: np.ndarray, prior: np.ndarray):
        self._whole = whole
        made = _first_filter(whole, physics, sensor, prior)
        found = [_run(made, whole, b) for b in range(len(whole))]
        self._states, self._found = [states for states, _ in found], np.array([first for _, first in found])

    def trimmed(self) -> FilterWindows:
        """The whole runs, each from where its heading was found."""
        whole, parts = self._whole, {}
        for name, blank in (("ctrl", 0.0), ("measured", np.nan), ("truth", np.nan), ("seconds", 0.0)):
            values = getattr(whole, name)
            parts[name] = np.full_like(values, blank)
            for b, first in enumerate(self._found):
                parts[name][b, : values.shape[1] - first] = values[b, first:]
        start = np.array([states[first] for states, first in zip(self._states, self._found, strict=True)])
        return replace(whole, start=start, first=self._found, **parts)

    def placed(self, windows: FilterWindows) -> FilterWindows:
        """`windows` of the same rollouts, those that begin where the heading was found, with the estimates as starts."""
        run = {int(r): b for b, r in enumerate(self._whole.rollout)}
        rows = [run[int(r)] for r in windows.rollout]
        keep = [w for w, b in enumerate(rows) if windows.first[w] >= self._found[b]]
        if not keep:
            return windows
        start = np.array([self._states[rows[w]][windows.first[w]] for w in keep])
        return replace(windows.pick(np.array(keep)), start=start)


def _first_filter(
    whole: FilterWindows, physics: ParameterVector, sensor: np.ndarray, prior: np.ndarray
) -> KalmanEstimator:
    model = copy.copy(physics.mj)
    for name, value in physics.fields(physics.initial).items() if physics.size else ():
        if hasattr(model, name):
            getattr(model, name)[:] = value
    k, ny, width = 2 * model.nv + model.na, len(sensor), whole.start.shape[1]
    process = np.full(k, _RATE)
    process[: model.nv] = _POSITION
    noise = Noise(process, sensor, np.zeros(ny), prior, np.ones(ny))
    corrector, addresses = KalmanCorrector(k, ny, 0), whole.channels.sensor_addresses
    scale, bias = physics.sensors(physics.initial, addresses)
    learned = Learned(
        corrector=corrector,
        weights=corrector.layout.join({name: getattr(noise, name) for name in corrector.shapes()}),
        scales=Scales(sensor, np.ones(k), np.zeros(width), np.ones(width)),
        scale=scale,
        bias=bias,
        delay=np.zeros(ny),
        sigma=sensor,
        spread=np.zeros((ny, 0)),
        covariance=None,
        names=whole.channels.sensor_names,
        addresses=addresses,
        interval=whole.interval,
        substeps=whole.substeps,
    )
    return KalmanEstimator(model, learned)


def _run(made: KalmanEstimator, whole: FilterWindows, b: int) -> tuple[np.ndarray, int]:
    """Estimates (T, nx) over one run, and the first sample at which the heading is known (a half of the run at most)."""
    nq, nv = made.model.nq, made.model.nv
    states = np.tile(whole.start[b], (whole.measured.shape[1], 1))
    turn, elapsed, found = Space(made.model).free_turns[0][1], 0.0, -1
    made.reset(whole.start[b, :nq], whole.start[b, nq : nq + nv], measurement=whole.measured[b, 0])
    last = int(np.count_nonzero(whole.seconds[b]))
    for t in range(last):
        try:
            told = made.update(whole.ctrl[b, t], whole.measured[b, t + 1], dt=float(whole.seconds[b, t]))
        except DsoError:
            break
        states[t + 1] = np.concatenate([told.qpos, told.qvel, told.act])
        elapsed += float(whole.seconds[b, t])
        assert told.covariance is not None
        if found < 0 and told.covariance[range(turn, turn + 3), range(turn, turn + 3)].max() < _FOUND**2:
            found = t + 1
        if found < 0 and elapsed > _LONGEST:
            break
    return states, min(found, last // 2) if found >= 0 else 0
