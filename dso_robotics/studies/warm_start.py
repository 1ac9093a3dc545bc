"""Start values by linear regression on inverse dynamics, for logs that measure every joint and the controls.

Positions are smoothed and differentiated twice. The equation of motion then holds at every sample: the force from inverse
dynamics minus the actuator force is zero. This residual is nearly linear in masses, friction, stiffness and gears (Atkeson,
An and Hollerbach, 1986). No simulation is needed, so poor start values do no harm. Noise in the accelerations biases the
result, so it is only a start value.
"""

import mujoco
import numpy as np
from numpy.typing import NDArray

from dso_robotics.data.windows import Windows
from dso_robotics.errors import DsoError
from dso_robotics.parameters.vector import ParameterVector
from dso_robotics.physics.inertia import principal_fields
from dso_robotics.physics.model import set_model_field
from dso_robotics.robot.controller import Drives
from dso_robotics.robot.signals import commanded, corrected

# Number of samples in the regression, spread evenly over all recordings.
_SAMPLES = 600
# Positions are smoothed by cubics over this duration [s], and over at least this many samples.
_SMOOTH, _FEWEST = 0.05, 9
# Number of rounds. The equation is linear except for products such as mass times centre of mass. Each round also updates
# the sample weights.
_ROUNDS = 8
# A number that no sample depends on stays within this many typical sizes of its start value.
_STAY = 10.0


def regress(vector: ParameterVector, windows: Windows, drives: Drives | None = None) -> np.ndarray:
    """Coordinates (n,) that explain the recorded accelerations best, within the bounds and with the priors.

    `drives` are the signals of controllers. The equation is linear in their gains.

    Raises:
      DsoError: a joint has no position sensor, or the robot has ball or free joints, activations or equality constraints.
    """
    from scipy.optimize import lsq_linear

    model = vector.mj
    if model.nq != model.nv or model.na or model.neq:
        raise DsoError(
            "--warm-start: regression on inverse dynamics needs a robot of hinges and slides, without activations and equality "
            "constraints; leave it out."
        )
    moments = _moments(vector, windows, drives)
    share = np.zeros((0, model.nu)) if drives is None else drives.share
    z = vector.initial.copy()
    friction = np.array(
        [any("frictionloss" in s.field for s in p.slots) for p in vector.parameters for _ in range(p.size)]
    )
    for _ in range(_ROUNDS):
        # Dry friction is the velocity's sign times a number, except near standstill. That region grows with the number, so
        # start from zero.
        sliding = np.where(friction, 0.0, z)
        free = _unbalanced(vector, sliding, moments, share)
        columns = np.empty((free.size, vector.size))
        for i in range(vector.size):
            h = 1e-2 if friction[i] else 1e-4
            ends = sliding[i] + h * np.array([0, 1] if friction[i] else [-1, 1]) * vector.scale[i]
            if not friction[i]:
                ends = np.clip(ends, vector.low[i], vector.high[i])
            low, high = (
                _unbalanced(vector, np.where(np.arange(vector.size) == i, end, sliding), moments, share) for end in ends
            )
            columns[:, i] = ((high - low) / (ends[1] - ends[0])).ravel()
        base = free + (columns[:, friction] @ z[friction]).reshape(free.shape)
        # Smoothing reduces the acceleration where the motion changes sharply. Such samples get less weight (Huber).
        usual = np.maximum(1.4826 * np.median(np.abs(base), axis=0), 1e-12)
        weight = (1 / (usual * np.sqrt(np.maximum(np.abs(base) / (1.345 * usual), 1.0)))).ravel()
        rows = [columns * weight[:, None], vector.prior_slope(z), np.diag(1 / (_STAY * vector.scale))]
        wanted = [-base.ravel() * weight, -vector.prior_residual(z), (vector.initial - z) / (_STAY * vector.scale)]
        matrix, target = np.concatenate(rows), np.concatenate(wanted)
        room = vector.low - z, vector.high - z
        step = lsq_linear(matrix * vector.scale, target, tuple(r / vector.scale for r in room)).x * vector.scale
        z = np.clip(z + step, vector.low, vector.high)
        if np.all(np.abs(step) <= 1e-3 * vector.scale):
            break
    return z


def _moments(vector: ParameterVector, windows: Windows, drives: Drives | None) -> NDArray[np.float64]:
    """qpos, qvel, qacc, ctrl and the controller signals in one array (N, 3*nv + nu + G), for samples of all recordings."""
    from scipy.signal import savgol_filter

    model, channels = vector.mj, windows.channels
    signals, found = vector.signals(vector.initial), []
    kind = int(mujoco.mjtSensor.mjSENS_JOINTPOS)
    sensor_of = {
        int(model.sensor_objid[s]): c for c, s in enumerate(channels.sensor_ids) if int(model.sensor_type[s]) == kind
    }
    missing = [j for j in range(model.njnt) if j not in sensor_of]
    for rollout in windows.rollouts:
        if rollout.ctrl is None or (missing and rollout.qpos is None):
            raise DsoError(
                f"--warm-start: rollout {rollout.name!r} does not show the controls and the position of every joint, which a "
                "regression on inverse dynamics needs; leave it out."
            )
        dt = float(np.median(np.diff(rollout.time)))
        grid = np.arange(rollout.time[0], rollout.time[-1] + 0.5 * dt, dt)
        width = max(_FEWEST, 2 * round(0.5 * _SMOOTH / dt) + 1)
        if len(grid) <= width:
            continue
        if rollout.qpos is None:
            read = corrected(np.asarray(rollout.sensordata), signals, channels.sensor_addresses)
            joints = [read[:, sensor_of[j]] for j in range(model.njnt)]
        else:
            joints = list(rollout.qpos.T)
        tracks = []
        for values in joints:
            seen = np.isfinite(values)
            if seen.sum() < _FEWEST:
                break
            even = np.interp(grid, rollout.time[seen], values[seen])
            tracks.append([savgol_filter(even, width, 3, deriv=d, delta=dt) for d in range(3)])
        if len(tracks) < model.njnt:
            continue
        held = np.clip(np.searchsorted(rollout.time, grid + 1e-6 * dt, side="right") - 1, 0, None)
        ctrl = rollout.ctrl[held][:, channels.ctrl_columns]
        motion = np.concatenate(np.moveaxis(np.array(tracks), 0, 2), axis=1)
        drive = np.zeros((len(grid), 0)) if drives is None else drives.at(rollout.name, grid)
        # Smoothing has no data beyond the ends.
        found.append(np.concatenate([motion, ctrl, drive], axis=1)[width:-width])
    everything = np.concatenate(found) if found else np.zeros((0, 0))
    if len(everything) < 10 * vector.size:
        raise DsoError(
            "--warm-start: the recordings are too short to differentiate their positions twice; leave it out."
        )
    return everything[np.unique(np.linspace(0, len(everything) - 1, _SAMPLES).astype(int))]


def _unbalanced(vector: ParameterVector, z: np.ndarray, moments: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Force from inverse dynamics minus the actuator force, (N, nv) [N*m, N]; `share` as in `Drive`."""
    model = vector.mj.__copy__()
    plain = principal_fields(vector.mj, {name: value[None] for name, value in vector.fields(z).items()})
    for name, value in plain.items():
        set_model_field(model, name, value[0])
    data, nv = mujoco.MjData(model), model.nv
    mujoco.mj_setConst(model, data)
    for name in ("body_sameframe", "geom_sameframe", "site_sameframe"):
        getattr(model, name)[:] = 0
    forces = np.empty((len(moments), nv))
    motion, ctrl, drive = np.split(moments, [3 * nv, 3 * nv + model.nu], axis=1)
    if len(share):
        ctrl, _ = commanded(ctrl, ctrl[:0], drive, share, vector.signals(z)["controller_gain"])
    for row, moment, control in zip(forces, motion, ctrl, strict=True):
        data.qpos[:], data.qvel[:], data.ctrl[:] = moment[:nv], moment[nv : 2 * nv], control
        mujoco.mj_fwdPosition(model, data)
        mujoco.mj_fwdVelocity(model, data)
        mujoco.mj_fwdActuation(model, data)
        data.qacc[:] = moment[2 * nv :]
        mujoco.mj_inverse(model, data)
        row[:] = data.qfrc_inverse - data.qfrc_actuator
    return forces
