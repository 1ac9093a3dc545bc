"""Synthetic logs: rollouts of a MuJoCo model with noisy actions and imperfect sensors."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import mujoco
import numpy as np

from dso_robotics.data.log import Log
from dso_robotics.data.match import actuator_names, sensor_channels, values_by_channel
from dso_robotics.data.rollout import Array, Rollout
from dso_robotics.errors import DsoError
from dso_robotics.physics.quiet import quiet
from dso_robotics.physics.unit import actuator_unit, sensor_unit
from dso_robotics.progress.phase import each

_LIMIT = 1e7
_BAD = (mujoco.mjtWarning.mjWARN_BADQPOS, mujoco.mjtWarning.mjWARN_BADQVEL, mujoco.mjtWarning.mjWARN_BADQACC)


@dataclass(frozen=True, kw_only=True)
class Flaws:
    """Imperfections of a real machine. Sensors are first delayed, then noise is added, then they are quantised.

    action_noise: maps an actuator to the standard deviation of Gaussian noise on its control, in the control's unit. The
      noise acts on the mechanism but is not in the log.
    sensor_noise: maps a channel to the standard deviation of its noise, in the channel's unit.
    quantum: maps a channel to its resolution, in the channel's unit.
    delay: age of the sensor values, in samples.
    In `sensor_noise` and `quantum`, a sensor's name means all its channels, and "*" means all channels.
    """

    action_noise: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    sensor_noise: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    quantum: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    delay: int = 0


def record(
    model: mujoco.MjModel,
    rng: np.random.Generator,
    controls: Sequence[tuple[str, Array]],
    *,
    every: int = 1,
    flaws: Flaws | None = None,
    spread_qpos: float = 0.0,
    spread_qvel: float = 0.0,
    qpos: Array | None = None,
    keep_state: bool = False,
    force: Callable[[mujoco.MjModel, mujoco.MjData], None] | None = None,
    source: str = "",
    licence: str = "not stated",
) -> Log:
    """One rollout of `model` for each of `controls`, pairs of a rollout's name and its ctrl (T, nu).

    One sample is taken every `every` steps of the model, and its control is held for these steps. Rollouts start at the
    model's initial position, or at `qpos` (nq,), at rest, plus uniform noise of half-width `spread_qpos` [rad or m, in tangent
    coordinates]
    and `spread_qvel` [rad/s or m/s]. `force` is called before each step and may set forces that the model does not have, for
    instance friction in `data.qfrc_applied`. With `keep_state` the log also contains qpos and qvel, exact and without delay.
    The same generator state gives the same log. Raises DsoError when the simulation diverges, when an actuator or sensor has
    no name, or when `flaws` names a channel that the model does not have.
    """
    flaws = flaws or Flaws()
    actuators, sensors = actuator_names(model), sensor_channels(model)
    action_sd = values_by_channel(flaws.action_noise, actuators, "action noise")
    noise_sd = values_by_channel(flaws.sensor_noise, tuple(sensors), "sensor noise")
    quantum = values_by_channel(flaws.quantum, tuple(sensors), "quantum")
    if flaws.delay < 0 or every < 1:
        raise DsoError(
            f"a delay of {flaws.delay} samples every {every} steps is impossible; give delay >= 0, every >= 1."
        )
    sensor_ids = [i for i, _ in sensors.values()]
    rollouts = []
    for name, ctrl in each(controls, "simulating", "rollout"):
        if ctrl.ndim != 2 or ctrl.shape[1] != model.nu:
            raise DsoError(f"rollout {name!r}: ctrl has shape {ctrl.shape}, expected (samples, {model.nu}).")
        first, qvel = _start(model, rng, spread_qpos, spread_qvel, model.qpos0 if qpos is None else qpos)
        applied = ctrl + action_sd * rng.standard_normal(ctrl.shape)
        states, measured = _roll(model, applied, first, qvel, every, force, name)
        late = np.maximum(np.arange(len(ctrl)) - flaws.delay, 0)
        measured = measured[late] + noise_sd * rng.standard_normal(measured.shape)
        with np.errstate(divide="ignore", invalid="ignore"):
            measured = np.where(quantum > 0, np.round(measured / quantum) * quantum, measured)
        rollouts.append(
            Rollout(
                name=name,
                time=np.arange(len(ctrl)) * (every * model.opt.timestep),
                ctrl=ctrl if actuators else None,
                ctrl_names=actuators,
                ctrl_units=tuple(actuator_unit(model, i) for i in range(model.nu)),
                sensordata=measured if sensors else None,
                sensor_names=tuple(sensors),
                sensor_units=tuple(sensor_unit(model, i) for i in sensor_ids),
                qpos=states[:, : model.nq] if keep_state else None,
                qvel=states[:, model.nq :] if keep_state else None,
            )
        )
    return Log("", source, licence, tuple(rollouts))


def _start(model: mujoco.MjModel, rng: np.random.Generator, spread_qpos: float, spread_qvel: float, at: Array):
    qpos = np.array(at, float)
    # In tangent coordinates, so that quaternions stay unit quaternions.
    mujoco.mj_integratePos(model, qpos, spread_qpos * rng.uniform(-1, 1, model.nv), 1.0)
    return qpos, spread_qvel * rng.uniform(-1, 1, model.nv)


def _roll(
    model: mujoco.MjModel,
    ctrl: Array,
    qpos: Array,
    qvel: Array,
    every: int,
    force: Callable[[mujoco.MjModel, mujoco.MjData], None] | None,
    name: str,
) -> tuple[Array, Array]:
    """States (T, nq+nv) and sensor readings (T, nsensordata), both at the moment from which ctrl[t] is held."""
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:] = qpos, qvel
    states, sensed = np.empty((len(ctrl), model.nq + model.nv)), np.empty((len(ctrl), model.nsensordata))
    with quiet():
        for t, action in enumerate(ctrl):
            data.ctrl[:] = action
            states[t] = np.concatenate([data.qpos, data.qvel])
            for substep in range(every):
                if force is not None:
                    force(model, data)
                mujoco.mj_step(model, data)
                if substep == 0:  # mj_step evaluates sensors before it integrates
                    sensed[t] = data.sensordata
            extreme = max(np.abs(data.qpos).max(initial=0.0), np.abs(data.qvel).max(initial=0.0))
            if not extreme < _LIMIT or any(data.warning[kind].number for kind in _BAD):
                raise DsoError(
                    f"rollout {name!r}: the simulation diverged near {t * every * model.opt.timestep:.4g} s; use "
                    "smaller "
                    "controls or initial spread, a smaller timestep, or integrator='implicitfast' in the model."
                )
    return states, sensed
