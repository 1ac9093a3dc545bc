"""The estimator at run time. It uses C MuJoCo and NumPy, without compilation and without JAX.

>>> estimator = Estimator.load("result")                      # doctest: +SKIP
>>> estimator.reset(qpos=[0.0])                               # doctest: +SKIP
>>> state = estimator.update(ctrl, measurement, dt=0.002)     # doctest: +SKIP
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from dso_robotics.data.bundle import load_text
from dso_robotics.data.match import actuator_names, quaternion_places
from dso_robotics.data.quaternion import facing
from dso_robotics.data.run_file import read_run
from dso_robotics.errors import DsoError
from dso_robotics.parameters.vector import sensor_ids
from dso_robotics.physics.model import Robot, nearest, without_delays
from dso_robotics.physics.quiet import quiet
from dso_robotics.robot.deployed_model import (
    LARGEST,
    as_numbers,
    check_sensors,
    checked_numbers,
    model_beside,
)
from dso_robotics.robot.estimator_space import Space
from dso_robotics.robot.innovation_gate import InnovationGate
from dso_robotics.robot.learned import LONGEST, MOST_STEPS, Learned

# `dt` may differ from a whole number of the model's time steps by this fraction of a time step.
_OFF_STEP = 0.01
# A reading this many learned scales from its prediction is kept only if the filter stands it: the corrected state is at most
# `_FAR`, and `_AHEAD` intervals can be predicted from it.
_WILD, _FAR, _AHEAD = 100.0, 1e6, 10
_JOINTPOS, _JOINTVEL = int(mujoco.mjtSensor.mjSENS_JOINTPOS), int(mujoco.mjtSensor.mjSENS_JOINTVEL)


@dataclass(frozen=True, eq=False)
class Estimate:
    """The state after an update.

    qpos: estimated positions [m, rad, unit quaternions].
    qvel: estimated velocities [m/s, rad/s].
    act: estimated activations.
    predicted: readings predicted before the measurement, (ny,).
    innovation: measurement minus `predicted`, (ny,), NaN where missing.
    std: learned standard deviation of the innovations, (ny,).
    covariance: covariance of the state's error in the tangent space, (2*nv, 2*nv). It moves with a Kalman filter; with another
      corrector it is None unless the training log held the state.
    bias: estimated drift of the channels' biases, (ny,); None without a Kalman filter.
    """

    qpos: np.ndarray
    qvel: np.ndarray
    act: np.ndarray
    predicted: np.ndarray
    innovation: np.ndarray
    std: np.ndarray
    covariance: np.ndarray | None
    bias: np.ndarray | None = None


class Estimator:
    """Predicts with MuJoCo and corrects with the learned corrector.

    names: channels that are predicted, in order.
    readings: channels of a measurement, in order: `names`, but for a filter with feet, see `KalmanEstimator`.
    ctrl_names: channels of a control, in order.
    interval: time between updates in training [s].
    robot: the model with its description; None if the estimator was not loaded from a folder.
    gated: by sensor, how many of its readings the gate has counted as missing since `reset`; empty without a gate.
    """

    def __init__(self, model: mujoco.MjModel, learned: Learned):
        self.model, self.learned = model, learned
        self.robot: Robot | None = None
        model.opt.timestep = learned.interval / learned.substeps
        model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_AUTORESET)
        self._space, self._data = Space(model), mujoco.MjData(model)
        self._weights = learned.corrector.split(learned.weights)
        self.names, self.interval = learned.names, learned.interval
        self.readings = learned.names if learned.contacts is None else learned.contacts.names
        self.ctrl_names = actuator_names(model)
        self._quaternions = quaternion_places(model, learned.addresses)
        self._ids = ids = [int(i) for i in sensor_ids(model, learned.addresses)]
        self._oldest = float(learned.delay.max(initial=0.0))
        self._stage = max(int(model.sensor_needstage[i]) for i in ids)
        names = [model.sensor(i).name for i in ids]
        self._gate = InnovationGate(learned.gate, names) if learned.gate else None
        self._ready = False
        self._memory = np.zeros(learned.corrector.memory_size)
        self._state = np.zeros(self._space.width)
        # For delayed sensors: time since the reset [s] and readings (ny,) of the states estimated so far.
        self._past: list[tuple[float, np.ndarray]] = []

    @classmethod
    def load(cls, folder: str | Path) -> "Estimator":
        """Load the estimator that `dso estimate --out FOLDER` or `dso train --out FOLDER` wrote.

        Raises DsoError if the folder holds no estimator, an unfinished one or a damaged one.
        """
        folder = Path(folder)
        tree, _, _ = read_run(folder / "run.h5")
        if tree.get("status") != "finished" or "estimator" not in tree:
            raise DsoError(
                f"{folder}: holds no finished estimator; make one with `dso estimate STUDY.toml --out {folder}`. Where a run "
                "ended without one, the warnings in its summary.json say why."
            )
        try:
            learned = Learned.from_dict(tree["estimator"])
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError, DsoError) as error:
            raise DsoError(
                f"{folder / 'run.h5'}: the estimator in it is damaged ({error}); run the study again."
            ) from error
        # The model that a training's estimator predicts with may not be the robot's own.
        text = tree["estimator"].get("mjcf", "")
        robot, _ = model_beside(folder, tree)
        if text:
            robot = load_text(str(text), folder, source=str(folder / "run.h5"))
        # The estimator models sensor delay itself, so the model's sensors must give undelayed readings.
        robot = without_delays(robot)
        model = robot.mj
        space = Space(model)
        if learned.corrector.k != space.size or (learned.addresses >= model.nsensordata).any():
            raise DsoError(
                f"{folder / 'model.xml'}: is not the model this estimator was learned for; run the study again."
            )
        check_sensors(model, learned.names, learned.addresses, str(folder / ("run.h5" if text else "model.xml")))
        kind = cls
        if learned.corrector.linearises:
            from dso_robotics.robot.kalman_estimator import KalmanEstimator

            kind = KalmanEstimator
        made = kind(model, learned)
        made.robot = robot
        return made

    @property
    def gated(self) -> dict[str, int]:
        """See the class."""
        return {} if self._gate is None else self._gate.counts

    def reset(
        self,
        qpos: Sequence[float] | np.ndarray | None = None,
        qvel: Sequence[float] | np.ndarray | None = None,
        act: Sequence[float] | np.ndarray | None = None,
        *,
        measurement: Sequence[float] | np.ndarray | Mapping[str, float] | None = None,
    ) -> Estimate:
        """Start from a state. Values that are not given come from joint sensors in `measurement`, else from qpos0 at rest.

        Raises DsoError for a wrong size or a number that is not finite. The estimator is then unchanged.
        """
        model, parts = self.model, []
        sizes = (("qpos", qpos, model.nq), ("qvel", qvel, model.nv), ("act", act, model.na))
        for name, value, size in sizes:
            default = model.qpos0.copy() if name == "qpos" else np.zeros(size)
            parts.append(default if value is None else self._vector(name, value, size))
        if measurement is not None:
            reading = self._measurement(measurement)
            for value, sensor, scale, bias in zip(
                reading, self._ids, self.learned.scale, self.learned.bias, strict=True
            ):
                joint, kind = int(model.sensor_objid[sensor]), int(model.sensor_type[sensor])
                if np.isnan(value):
                    continue
                if kind == _JOINTPOS and qpos is None:
                    parts[0][int(model.jnt_qposadr[joint])] = (value - bias) / scale
                if kind == _JOINTVEL and qvel is None:
                    parts[1][int(model.jnt_dofadr[joint])] = (value - bias) / scale
        mujoco.mj_normalizeQuat(model, parts[0])
        mujoco.mj_resetData(model, self._data)
        self._state = np.concatenate(parts)
        self._memory = np.zeros(self.learned.corrector.memory_size)
        self._past = []
        if self._gate is not None:
            self._gate.reset()
        if self._oldest:
            self._place(self._state)
            self._past = [(0.0, self._read())]
        self._ready = True
        nothing = np.full(len(self.names), np.nan)
        return self._estimate(nothing, nothing, self.learned.sigma.copy())

    def update(
        self,
        ctrl: Sequence[float] | np.ndarray | Mapping[str, float],
        measurement: Sequence[float] | np.ndarray | Mapping[str, float],
        dt: float | None = None,
    ) -> Estimate:
        """Estimate the state `dt` later.

        ctrl: control, constant during `dt`.
        measurement: readings at the end of `dt`. A NaN, or a name left out of a mapping, is a missing measurement.
        dt: time [s], a whole number of time steps; None for the interval of training.

        With a `gate` in the study, a sensor's reading that is less likely than it allows counts as missing.

        Raises DsoError for a wrong size or name, a control that is not finite, an infinite measurement, a dt that is not a
        whole number of time steps or too long, a reading so far from its prediction that the filter would not stand it,
        and a prediction that diverges. The state is then unchanged.
        """
        if not self._ready:
            raise DsoError("the estimator has no state yet; call reset() first.")
        model, data, learned, space = self.model, self._data, self.learned, self._space
        u = self._vector("ctrl", self._named(ctrl, self.ctrl_names, "ctrl"), model.nu)
        y = self._measurement(measurement)
        steps = learned.substeps if dt is None else self._steps(dt)
        self._place(self._state)
        data.ctrl[:] = u
        with quiet():
            mujoco.mj_step(model, data, steps)
            reading, now = self._read(), 0.0
        forecast = np.concatenate([data.qpos, data.qvel, data.act])
        if self._oldest:
            now = self._past[-1][0] + steps * model.opt.timestep
            reading = self._shown(now, reading)
        predicted = reading * learned.scale + learned.bias
        if not ((np.abs(forecast) < LARGEST).all() and np.isfinite(predicted).all()):
            mujoco.mj_resetData(model, data)
            raise DsoError(
                "the prediction blew up, so this update was not made and the state is as before; check ctrl and dt, or reset()."
            )
        if self._quaternions:
            # A quaternion and its negative are one rotation.
            y = y * facing(predicted, y, self._quaternions)
        features = space.features(forecast, learned.scales.centre, learned.scales.state)
        std = learned.sigma * np.exp(learned.spread @ features)
        white = (y - predicted) / std
        if self._gate is not None:
            y = np.where(self._gate.passed(white), y, np.nan)
        missing = np.isnan(y)
        innovation = np.where(missing, 0.0, (y - predicted) / learned.scales.innovation)
        change, memory = learned.corrector(self._weights, self._memory, innovation, 1.0 - missing, features)
        state = space.move(forecast, change * learned.scales.change)
        wild = int(np.argmax(np.abs(innovation)))
        if not np.isfinite(state).all() or (abs(innovation[wild]) > _WILD and not self._stands(state)):
            raise DsoError(
                f"measurement of {self.names[wild]!r} is {y[wild]:g} where {predicted[wild]:g} was predicted, which the "
                "estimator cannot take in, so this update was not made and the state is as before; give NaN instead, "
                "or reset()."
            )
        self._state, self._memory = state, memory
        if self._gate is not None:
            self._gate.count(white)
        if self._oldest:
            self._place(self._state)
            self._past.append((now, self._read()))
            while len(self._past) > 2 and self._past[1][0] < now - self._oldest:
                del self._past[0]
        return self._estimate(predicted, y - predicted, std)

    def _stands(self, state: np.ndarray) -> bool:
        """Whether the next updates can be predicted from `state`."""
        if not (np.abs(state) < _FAR).all():
            return False
        self._place(state)
        with quiet():
            mujoco.mj_step(self.model, self._data, _AHEAD * self.learned.substeps)
        reached = np.concatenate([self._data.qpos, self._data.qvel, self._data.act])
        stands = bool((np.abs(reached) < _FAR).all())
        if not stands:
            mujoco.mj_resetData(self.model, self._data)
        return stands

    def _place(self, state: np.ndarray) -> None:
        nq, nv, data = self._space.nq, self._space.nv, self._data
        data.qpos[:], data.qvel[:] = state[:nq], state[nq : nq + nv]
        if self._space.na:
            data.act[:] = state[nq + nv :]

    def _read(self) -> np.ndarray:
        """Readings (ny,) of the channels' sensors in the state of `_data`."""
        if self._stage <= 2:
            mujoco.mj_step1(self.model, self._data)
        else:
            mujoco.mj_forward(self.model, self._data)
        return self._data.sensordata[self.learned.addresses]

    def _shown(self, now: float, reading: np.ndarray) -> np.ndarray:
        """Readings (ny,) of delayed sensors at `now` [s]. `reading` is what they would read without delay."""
        times = np.array([t for t, _ in self._past] + [now])
        rows = np.array([row for _, row in self._past] + [reading])
        delay = self.learned.delay
        return np.array([np.interp(now - late, times, rows[:, c]) for c, late in enumerate(delay)])

    def _estimate(self, predicted: np.ndarray, innovation: np.ndarray, std: np.ndarray) -> Estimate:
        nq, nv = self._space.nq, self._space.nv
        state = self._state
        return Estimate(
            state[:nq].copy(),
            state[nq : nq + nv].copy(),
            state[nq + nv :].copy(),
            predicted,
            innovation,
            std,
            self.learned.covariance,
        )

    def _steps(self, dt: float) -> int:
        seconds = as_numbers("dt", dt)
        if seconds.size != 1:
            raise DsoError(f"dt has shape {seconds.shape}; give one number of seconds.")
        dt = float(seconds.reshape(()))
        ratio = dt / self.model.opt.timestep
        if dt > LONGEST or ratio > MOST_STEPS:
            raise DsoError(
                f"dt = {dt:g} s is too long for one update (at most {LONGEST:g} s and {MOST_STEPS:,} time steps of "
                f"{self.model.opt.timestep:g} s); after such a pause, reset()."
            )
        if not (np.isfinite(ratio) and ratio > 0 and round(ratio) >= 1) or abs(ratio - round(ratio)) > _OFF_STEP:
            raise DsoError(
                f"dt = {dt!r} s is no whole number of the model's time steps of {self.model.opt.timestep:g} s; the estimator "
                f"was learned with {self.interval:g} s."
            )
        return round(ratio)

    def _measurement(self, measurement: Any) -> np.ndarray:
        y = as_numbers("measurement", self._named(measurement, self.readings, "measurement"))
        if y.shape != (len(self.readings),):
            raise DsoError(
                f"measurement has shape {y.shape}, but there are {len(self.readings)} channels: {', '.join(self.readings)}; "
                "give one number each, NaN where nothing was measured."
            )
        if (bad := np.flatnonzero(np.abs(y) >= LARGEST)).size:
            name, value = self.readings[int(bad[0])], y[bad[0]]
            shown = "infinite" if np.isinf(value) else f"{value:g}, which no sensor reads"
            raise DsoError(f"measurement of {name!r} is {shown}; give NaN where nothing was measured.")
        return y if self.learned.contacts is None else self.learned.contacts.completed(y)

    def _named(self, values: Any, names: tuple[str, ...], what: str) -> Any:
        if not isinstance(values, Mapping):
            return values
        for name in values:
            if name not in names:
                raise DsoError(f"{what}: there is no channel {name!r}; it has {nearest(str(name), names, len(names))}.")
        return [values.get(name, np.nan) for name in names]

    def _vector(self, name: str, value: Any, size: int) -> np.ndarray:
        return checked_numbers(name, value, size, "model's")
