"""The estimator of a robot system before training: a filter of given kind that starts as a stationary Kalman filter.

The Kalman gain is that of the linearised model at the start state. Its process noise is the noise of the actions.
"""

from typing import Literal

import mujoco
import numpy as np

from dso_robotics.errors import DsoError
from dso_robotics.parameters.vector import ParameterVector
from dso_robotics.robot.corrector import CORRECTORS, Scales, make_corrector
from dso_robotics.robot.estimator_space import Space
from dso_robotics.robot.estimator_start import kalman_gain, linear_model
from dso_robotics.robot.filter_jax import JaxFilter
from dso_robotics.robot.filter_mjx import MjxSystem
from dso_robotics.robot.filter_mujoco import CSystem
from dso_robotics.robot.mechanism import Mechanism
from dso_robotics.robot.sensing import Sensing
from dso_robotics.robot.squash import squash

_STEP = 1e-6
# Smallest process noise, as a fraction of the sensors' noise moved into the state, for directions without action noise.
_LEAST_PROCESS = 1e-3


def design_filter(
    mechanism: Mechanism,
    sensing: Sensing,
    *,
    corrector: str = "gain",
    units: int = 8,
    noise: float = 0.1,
    qpos: np.ndarray | None = None,
    seed: int = 0,
    engine: Literal["mjx", "mujoco"] = "mjx",
) -> tuple[JaxFilter, np.ndarray]:
    """The filter, and the initial values of the block "corrector": weights, then zeros, the log innovation scales.

    corrector, units: kind of corrector and, for networks, its number of units.
    noise: standard deviation of the actions, as a fraction of half the actuator's range.
    qpos: the position around which the model is linearised, (nq,); the model's reference by default.
    engine: what simulates the estimator's predictions.

    Raises:
      DsoError: the model cannot be linearised there, or an unknown kind of corrector.
    """
    if CORRECTORS[corrector].linearises:
        raise DsoError(
            f'corrector {corrector!r} is learned from logs by `dso estimate`; in a training choose "gain", which starts as a '
            'stationary Kalman filter, "linear", "mlp" or "recurrent".'
        )
    mj = mechanism.mj
    space, addresses = Space(mj), np.array(sensing.addresses, int)
    substeps = max(round(sensing.interval / float(mj.opt.timestep)), 1)
    rest = np.concatenate([mj.qpos0 if qpos is None else qpos, np.zeros(mj.nv + mj.na)])
    ctrl = holding_control(mj, rest)
    transition, readings = linear_model(mj, addresses, rest, ctrl, substeps)
    half = np.asarray(squash(mj).half)
    felt = _by_control(mj, space, rest, ctrl, substeps) * half * noise
    if not all(np.isfinite(part).all() for part in (transition, readings, felt)):
        raise DsoError(
            f"{mechanism.robot.source}: the model diverges from the start state, so no estimator can be designed there; give "
            "another [start]."
        )
    # A reading's noise, moved to the state by the readings' pseudoinverse, is a natural size of the state's uncertainty.
    size = np.sqrt(((np.linalg.pinv(readings) * sensing.sigma) ** 2).sum(1))
    size = np.where(size > 1e-9, size, max(float(size.max(initial=0.0)), 1e-6))
    process = felt @ felt.T + np.diag((_LEAST_PROCESS * size) ** 2)
    gain = kalman_gain(transition, readings, process, sensing.sigma**2)
    innovation = 2.0 * sensing.sigma
    change = np.maximum(np.abs(gain) @ innovation, 1e-3 * size)
    scales = Scales(innovation, change, rest, np.ones(space.width))
    made = make_corrector(corrector, space.size, sensing.size, space.features_size, units=units)
    vector = ParameterVector((), mj) if mechanism.vector is None else mechanism.vector
    system = (CSystem if engine == "mujoco" else MjxSystem)(vector, addresses, sensing.interval, substeps)
    weights = made.initial(gain / change[:, None] * innovation, seed)
    return JaxFilter(system, made, scales), np.concatenate([weights, np.zeros(sensing.size)])


def holding_control(model: mujoco.MjModel, rest: np.ndarray) -> np.ndarray:
    """Controls (nu,) within their ranges whose forces best hold the model at rest in this position.

    Valid for actuators whose force is a gain times the control plus a constant.
    """
    data = mujoco.MjData(model)
    data.qpos[:] = rest[: model.nq]
    mujoco.mj_forward(model, data)
    passive, none = data.qfrc_bias - data.qfrc_passive, data.qfrc_actuator.copy()
    columns = []
    for u in np.eye(model.nu):
        data.ctrl[:] = u
        mujoco.mj_forward(model, data)
        columns.append(data.qfrc_actuator - none)
    if not columns:
        return np.zeros(0)
    found = np.linalg.lstsq(np.array(columns).T, passive - none, rcond=None)[0]
    low, high = model.actuator_ctrlrange.T
    return np.where(model.actuator_ctrllimited.astype(bool), np.clip(found, low, high), found)


def _by_control(model: mujoco.MjModel, space: Space, rest: np.ndarray, ctrl: np.ndarray, substeps: int) -> np.ndarray:
    """Derivative (k, nu) of the state after `substeps` steps by the control, in the tangent space."""
    data, columns = mujoco.MjData(model), []
    for move in _STEP * np.eye(model.nu):
        ends = []
        for side in (ctrl + move, ctrl - move):
            mujoco.mj_resetData(model, data)
            data.qpos[:], data.ctrl[:] = rest[: model.nq], side
            mujoco.mj_step(model, data, substeps)
            ends.append(np.concatenate([data.qpos, data.qvel, data.act]))
        columns.append(space.difference(ends[1], ends[0]) / (2 * _STEP))
    return np.array(columns).T.reshape(space.size, model.nu)
