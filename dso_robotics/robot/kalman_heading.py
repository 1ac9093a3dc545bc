"""Where windows of a log begin if nothing measures the heading of a free body alone: at the estimates of a running filter.

Start states are guessed from sensors of frames and joints. An inertial unit, a compass and positions tell an orientation too,
but only together and in time. So the filter of the run time, which follows many headings, runs over each log once. What it
needs to find the heading is left out of the training.
"""

import copy
from dataclasses import replace
from typing import NamedTuple

import mujoco
import numpy as np

from dso_robotics.data.foot_contact import ContactReadings
from dso_robotics.errors import DsoError
from dso_robotics.parameters.vector import ParameterVector
from dso_robotics.robot.corrector import Scales
from dso_robotics.robot.correctors.kalman import KalmanCorrector, Noise
from dso_robotics.robot.estimator_space import Space
from dso_robotics.robot.filter_data import FilterWindows
from dso_robotics.robot.kalman_estimator import KalmanEstimator
from dso_robotics.robot.learned import Learned
from dso_robotics.robot.strapdown import base_turns

# Noise of positions and velocities in this first run: an unknown robot in unknown gusts.
_POSITION, _RATE = 1e-3, 1.0
# The same of a base that its accelerometer moves, and of what else turns in it.
_BASE, _JOINT, _TURN = 0.2, 10.0, 20.0
# The heading is found where its deviation [rad] is below this, and given up after this long [s].
_FOUND, _LONGEST = 0.3, 5.0
_SETTLE = 1.0


def unknown(model: mujoco.MjModel, given: FilterWindows) -> bool:
    """Whether an accelerometer moves the base, or the model has one free body and no sensor shows its orientation alone."""
    return given.channels.strapped or (len(Space(model).free_turns) == 1 and not given.channels.quaternions)


class Headings:
    """The estimates (T, nx) of a first run over each rollout of `whole`, one window each, and the sample where they count."""

    def __init__(self, whole: FilterWindows, physics: ParameterVector, sensor: np.ndarray, prior: np.ndarray):
        self._whole = whole
        made = _first_filter(whole, physics, sensor, prior)
        found = [_run(made, whole, b) for b in range(len(whole))]
        self._states, self._spreads, self._found = (
            [f.states for f in found],
            [f.spreads for f in found],
            np.array([f.first for f in found]),
        )

    def trimmed(self) -> FilterWindows:
        """The whole runs, each from where its heading was found."""
        whole = self._whole
        start = np.array([states[first] for states, first in zip(self._states, self._found, strict=True)])
        spread = np.array([s[first] for s, first in zip(self._spreads, self._found, strict=True)])
        return replace(
            _later(whole, self._found), start=start, first=self._found,
            spread=spread if whole.channels.strapped else None,
        )  # fmt: skip

    def placed(self, windows: FilterWindows) -> FilterWindows:
        """`windows` of the same rollouts from where the heading was found, with the estimates as starts.

        A window of which less than half is left is left out.
        """
        run = {int(r): b for b, r in enumerate(self._whole.rollout)}
        rows, length = np.array([run[int(r)] for r in windows.rollout]), windows.measured.shape[1]
        skipped = np.maximum(self._found[rows] - windows.first, 0)
        keep = np.flatnonzero(skipped <= length // 2)
        if not len(keep):
            return windows
        rows, skipped, given = rows[keep], skipped[keep], windows.pick(keep)
        first = given.first + skipped
        start = np.array([self._states[b][t] for b, t in zip(rows, first, strict=True)])
        spread = np.array([self._spreads[b][t] for b, t in zip(rows, first, strict=True)])
        return replace(
            _later(given, skipped), start=start, first=first, spread=spread if windows.channels.strapped else None
        )


def _later(windows: FilterWindows, skipped: np.ndarray) -> FilterWindows:
    """Windows without so many samples at the beginning, (B,); as many are empty at the end."""
    parts = {}
    for name, blank in (("ctrl", 0.0), ("measured", np.nan), ("truth", np.nan), ("seconds", 0.0)):
        values = getattr(windows, name)
        parts[name] = np.full_like(values, blank)
        for b, first in enumerate(skipped):
            parts[name][b, : values.shape[1] - first] = values[b, first:]
    return replace(windows, **parts)


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
    if whole.channels.strapped:
        process[model.nv :] = _JOINT
        process[model.nv : model.nv + _base(model)] = _BASE
        process[[model.nv + v for v in base_turns(model)]] = _TURN
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
        contacts=ContactReadings.given(whole.channels.sensor_names, whole.channels.feet),
    )
    return KalmanEstimator(model, learned)


def _base(model: mujoco.MjModel) -> int:
    """Number of the velocities of the body at the world."""
    return int(sum(model.dof_bodyid == model.dof_bodyid[0]))


class _First(NamedTuple):
    """Estimates (T, nx) over one run, their covariances (T, k, k), and the first sample at which the heading is known."""

    states: np.ndarray
    spreads: np.ndarray
    first: int


def _run(made: KalmanEstimator, whole: FilterWindows, b: int) -> _First:
    """The first run over one window; its first sample is a half of the run at most."""
    nq, nv = made.model.nq, made.model.nv
    states = np.tile(whole.start[b], (whole.measured.shape[1], 1))
    turns = (
        base_turns(made.model)
        if whole.channels.strapped
        else [Space(made.model).free_turns[0][1] + i for i in range(3)]
    )
    k = 2 * nv + made.model.na
    spreads, elapsed, found = np.tile(made.noise.start(made.space, states[0])[:k, :k], (len(states), 1, 1)), 0.0, -1
    made.reset(whole.start[b, :nq], whole.start[b, nq : nq + nv], measurement=whole.measured[b, 0])
    last = int(np.count_nonzero(whole.seconds[b]))
    # A tilt that is told by its accelerations takes a while.
    settle = _SETTLE if whole.channels.strapped else 0.0
    for t in range(last):
        try:
            told = made.update(whole.ctrl[b, t], whole.measured[b, t + 1], dt=float(whole.seconds[b, t]))
        except DsoError:
            break
        states[t + 1], spreads[t + 1] = np.concatenate([told.qpos, told.qvel, told.act]), made.belief.covariance[:k, :k]
        elapsed += float(whole.seconds[b, t])
        assert told.covariance is not None
        if found < 0 and told.covariance[turns, turns].max(initial=0.0) < _FOUND**2 and elapsed >= settle:
            found = t + 1
        if found < 0 and elapsed > _LONGEST:
            break
    return _First(states, spreads, min(found, last // 2) if found >= 0 else 0)
