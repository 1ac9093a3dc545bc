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

from dso_robotics.data.match import actuator_names, quaternion_places
from dso_robotics.data.quaternion import facing
from dso_robotics.data.run_file import read_run
from dso_robotics.errors import DsoError
from dso_robotics.parameters.vector import sensor_ids
from dso_robotics.physics.model import load, nearest, without_delays
from dso_robotics.robot.corrector import Corrector, Scales, make_corrector
from dso_robotics.robot.estimator_space import Space

# `dt` may differ from a whole number of the model's time steps by this fraction of a time step.
_OFF_STEP = 0.01
# MuJoCo treats a simulation with larger numbers as diverged, and ignores larger controls.
_LARGEST = 1e10
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
    covariance: covariance of the state's error in the tangent space, (2*nv, 2*nv). None unless the training log held the state.
    """

    qpos: np.ndarray
    qvel: np.ndarray
    act: np.ndarray
    predicted: np.ndarray
    innovation: np.ndarray
    std: np.ndarray
    covariance: np.ndarray | None


@dataclass(frozen=True, eq=False)
class Learned:
    """The result of training: all that `Estimator` needs besides the model.

    scale, bias, delay: of the sensors, (ny,); delay in [s].
    sigma: noise scales, (ny,).
    spread: change of the noise scales with the state, (ny, nf); zero for none.
    addresses: positions of the channels in `sensordata`, (ny,).
    interval: time between updates [s], equal to `substeps` time steps.
    """

    corrector: Corrector
    weights: np.ndarray
    scales: Scales
    scale: np.ndarray
    bias: np.ndarray
    delay: np.ndarray
    sigma: np.ndarray
    spread: np.ndarray
    covariance: np.ndarray | None
    names: tuple[str, ...]
    addresses: np.ndarray
    interval: float
    substeps: int

    def as_dict(self) -> dict[str, Any]:
        """Arrays, numbers and strings by name, as the run file stores them."""
        c = self.corrector
        found: dict[str, Any] = {
            "corrector": c.kind,
            "sizes": np.array([c.k, c.ny, c.nf, c.units]),
            "scales": self.scales.as_dict(),
            "names": list(self.names),
        }
        for name in ("weights", "scale", "bias", "delay", "sigma", "spread", "addresses", "interval", "substeps"):
            found[name] = getattr(self, name)
        return found | ({} if self.covariance is None else {"covariance": self.covariance})

    @staticmethod
    def from_dict(stored: Mapping[str, Any]) -> "Learned":
        """The inverse of `as_dict`."""
        k, ny, nf, units = (int(n) for n in stored["sizes"])
        corrector = make_corrector(str(stored["corrector"]), k, ny, nf, units=max(units, 1))
        names = ("weights", "scale", "bias", "delay", "sigma", "spread")
        arrays = {name: np.asarray(stored[name], float) for name in names}
        if arrays["weights"].shape != (corrector.size,) or arrays["spread"].shape != (ny, nf):
            raise ValueError("the weights do not fit the corrector")
        return Learned(
            corrector=corrector,
            scales=Scales(**{name: np.asarray(value, float) for name, value in stored["scales"].items()}),
            covariance=np.asarray(stored["covariance"], float) if "covariance" in stored else None,
            names=tuple(stored["names"]),
            addresses=np.asarray(stored["addresses"], int),
            interval=float(stored["interval"]),
            substeps=int(stored["substeps"]),
            **arrays,
        )


class Estimator:
    """Predicts with MuJoCo and corrects with the learned corrector.

    names: channels of a measurement, in order.
    ctrl_names: channels of a control, in order.
    interval: time between updates in training [s].
    """

    def __init__(self, model: mujoco.MjModel, learned: Learned):
        self.model, self.learned = model, learned
        model.opt.timestep = learned.interval / learned.substeps
        model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_AUTORESET)
        self._space, self._data = Space(model), mujoco.MjData(model)
        self._weights = learned.corrector.split(learned.weights)
        self.names, self.interval = learned.names, learned.interval
        self.ctrl_names = actuator_names(model)
        self._quaternions = quaternion_places(model, learned.addresses)
        self._ids = ids = [int(i) for i in sensor_ids(model, learned.addresses)]
        self._oldest = float(learned.delay.max(initial=0.0))
        self._stage = max(int(model.sensor_needstage[i]) for i in ids)
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
                f"{folder}: holds no finished estimator; make one with `dso estimate STUDY.toml --out {folder}`."
            )
        try:
            learned = Learned.from_dict(tree["estimator"])
        except (KeyError, TypeError, ValueError) as error:
            raise DsoError(
                f"{folder / 'run.h5'}: the estimator in it is damaged ({error}); run the study again."
            ) from error
        # The model that a training's estimator predicts with may not be the robot's own.
        text = tree["estimator"].get("mjcf", "")
        robot = load(mujoco.MjSpec.from_string(text)) if text else load(folder / "model.xml")
        # The estimator models sensor delay itself, so the model's sensors must give undelayed readings.
        model = without_delays(robot).mj
        space = Space(model)
        if learned.corrector.k != space.size or (learned.addresses >= model.nsensordata).any():
            raise DsoError(
                f"{folder / 'model.xml'}: is not the model this estimator was learned for; run the study again."
            )
        return cls(model, learned)

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

        Raises DsoError for a wrong size or name, a control that is not finite, an infinite measurement, a dt that is not a
        whole number of time steps, and a prediction that diverges. The state is then unchanged.
        """
        if not self._ready:
            raise DsoError("the estimator has no state yet; call reset() first.")
        model, data, learned, space = self.model, self._data, self.learned, self._space
        u = self._vector("ctrl", self._named(ctrl, self.ctrl_names, "ctrl"), model.nu)
        y = self._measurement(measurement)
        steps = learned.substeps if dt is None else self._steps(dt)
        self._place(self._state)
        data.ctrl[:] = u
        mujoco.mj_step(model, data, steps)
        reading, now = self._read(), 0.0
        forecast = np.concatenate([data.qpos, data.qvel, data.act])
        if self._oldest:
            now = self._past[-1][0] + steps * model.opt.timestep
            reading = self._shown(now, reading)
        predicted = reading * learned.scale + learned.bias
        if not ((np.abs(forecast) < _LARGEST).all() and np.isfinite(predicted).all()):
            mujoco.mj_resetData(model, data)
            raise DsoError(
                "the prediction blew up, so this update was not made and the state is as before; check ctrl and dt, or reset()."
            )
        missing = np.isnan(y)
        if self._quaternions:
            # A quaternion and its negative are one rotation.
            y = y * facing(predicted, y, self._quaternions)
        innovation = np.where(missing, 0.0, (y - predicted) / learned.scales.innovation)
        features = space.features(forecast, learned.scales.centre, learned.scales.state)
        change, self._memory = learned.corrector(self._weights, self._memory, innovation, 1.0 - missing, features)
        self._state = space.move(forecast, change * learned.scales.change)
        if self._oldest:
            self._place(self._state)
            self._past.append((now, self._read()))
            while len(self._past) > 2 and self._past[1][0] < now - self._oldest:
                del self._past[0]
        return self._estimate(predicted, y - predicted, learned.sigma * np.exp(learned.spread @ features))

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
        ratio = float(dt) / self.model.opt.timestep
        if not (np.isfinite(ratio) and ratio > 0 and round(ratio) >= 1) or abs(ratio - round(ratio)) > _OFF_STEP:
            raise DsoError(
                f"dt = {dt!r} s is no whole number of the model's time steps of {self.model.opt.timestep:g} s; the estimator "
                f"was learned with {self.interval:g} s."
            )
        return round(ratio)

    def _measurement(self, measurement: Any) -> np.ndarray:
        y = np.asarray(self._named(measurement, self.names, "measurement"), float)
        if y.shape != (len(self.names),):
            raise DsoError(
                f"measurement has shape {y.shape}, but there are {len(self.names)} channels: {', '.join(self.names)}; give one "
                "number each, NaN where nothing was measured."
            )
        if np.isinf(y).any():
            name = self.names[int(np.flatnonzero(np.isinf(y))[0])]
            raise DsoError(f"measurement of {name!r} is infinite; give NaN where nothing was measured.")
        return y

    def _named(self, values: Any, names: tuple[str, ...], what: str) -> Any:
        if not isinstance(values, Mapping):
            return values
        for name in values:
            if name not in names:
                raise DsoError(f"{what}: there is no channel {name!r}; it has {nearest(str(name), names, len(names))}.")
        return [values.get(name, np.nan) for name in names]

    def _vector(self, name: str, value: Any, size: int) -> np.ndarray:
        given = np.array(value, float)
        if given.shape != (size,):
            raise DsoError(f"{name} has shape {given.shape}, but the model's is ({size},); give {size} numbers.")
        good = np.abs(given) < _LARGEST
        if not good.all():
            raise DsoError(f"{name} holds {given[~good][0]}; give finite numbers below {_LARGEST:g}.")
        return given
