"""Synthetic logs: a MuJoCo model rolled out with noisy actions and flawed sensors."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType

import mujoco
import numpy as np

from dso_robotics.data.log import Log
from dso_robotics.data.match import actuator_names, sensor_channels, values_by_channel
from dso_robotics.data.rollout import Array, Rollout
from dso_robotics.errors import DsoError
from dso_robotics.physics.unit import actuator_unit, sensor_unit

_LIMIT = 1e7
_BAD = (mujoco.mjtWarning.mjWARN_BADQPOS, mujoco.mjtWarning.mjWARN_BADQVEL, mujoco.mjtWarning.mjWARN_BADQACC)


@dataclass(frozen=True, kw_only=True)
class Flaws:
    """What a real machine does to a signal, applied in this order: delay, noise, quantisation.

    `action_noise` maps an actuator to the standard deviation, in units of its control, of Gaussian noise that the
    mechanism feels and the log does not show. `sensor_noise` and `quantum` map a channel to the standard deviation of
    its noise and to its step, in units of the channel; a sensor's name stands for all its channels, "*" for all there
    are. `delay` is the age of the sensor values, in samples.
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
    keep_state: bool = False,
    force: Callable[[mujoco.MjModel, mujoco.MjData], None] | None = None,
    source: str = "",
    licence: str = "not stated",
) -> Log:
    """Roll `model` out once for each of `controls`, pairs of a rollout's name and its ctrl (T, nu).

    One sample is taken, and its control held, for `every` steps of the model. Rollouts start at the model's initial
    position and velocity plus uniform noise of half-width `spread_qpos` [rad or m, in tangent coordinates] and
    `spread_qvel` [rad/s or m/s]. `force` is called before each step and may set forces the model lacks, for instance
    friction in `data.qfrc_applied`. With `keep_state` the log holds qpos and qvel too, exact and undelayed.
    Deterministic: the same generator state gives the same log. Raises DsoError when the simulation diverges, an
    actuator or sensor has no name, or `flaws` names a channel the model lacks.
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
    for name, ctrl in controls:
        if ctrl.ndim != 2 or ctrl.shape[1] != model.nu:
            raise DsoError(f"rollout {name!r}: ctrl has shape {ctrl.shape}, expected (samples, {model.nu}).")
        qpos, qvel = _start(model, rng, spread_qpos, spread_qvel)
        applied = ctrl + action_sd * rng.standard_normal(ctrl.shape)
        states, measured = _roll(model, applied, qpos, qvel, every, force, name)
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


def _start(model: mujoco.MjModel, rng: np.random.Generator, spread_qpos: float, spread_qvel: float):
    qpos = model.qpos0.copy()
    # Along the tangent, so that quaternions stay unit.
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
    """States (T, nq+nv) and sensor readings (T, nsensordata), both at the instant from which ctrl[t] is held."""
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:] = qpos, qvel
    states, sensed = np.empty((len(ctrl), model.nq + model.nv)), np.empty((len(ctrl), model.nsensordata))
    with _quiet():
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


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep MuJoCo from printing its warnings and writing MUJOCO_LOG.TXT: divergence is reported as an error instead."""
    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda text: None)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)
