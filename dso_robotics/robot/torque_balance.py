"""The equation of motion at samples of a log: the force that the motion takes, minus the force of the actuators.

Positions are smoothed and differentiated twice. The difference of forces is then zero at every sample, up to noise and to
what the model lacks. No simulation is needed. The inertial numbers of bodies enter through `physics.regressor`.
"""

import math
from collections.abc import Sequence

import mujoco
import numpy as np
from numpy.typing import NDArray

from dso_robotics.data.match import Channels
from dso_robotics.data.rollout import Rollout
from dso_robotics.parameters.parameter import Parameter
from dso_robotics.parameters.vector import ParameterVector
from dso_robotics.physics.inertia import principal_fields
from dso_robotics.physics.model import set_model_field
from dso_robotics.physics.regressor import inertial_numbers, regressor, tensors
from dso_robotics.robot.controller import Drives
from dso_robotics.robot.signals import commanded, corrected

# Positions are smoothed by cubics over at least so many samples and at most so long [s]: as little as leaves this much noise
# in an acceleration, as a share of its spread.
_FEWEST, _LONGEST, _NOISE = 9, 0.1, 0.05
# A joint slower than this share of its usual speed stands still.
_STILL = 5e-4
_INERTIAL = {"body_mass", "body_ipos", "body_inertia"}
# The force is an affine function of these together.
_AFFINE = {
    "dof_damping",
    "dof_dampingpoly",
    "dof_armature",
    "dof_frictionloss",
    "jnt_stiffness",
    "tendon_damping",
    "tendon_armature",
    "tendon_frictionloss",
}


class TorqueBalance:
    """The unbalanced force of samples, as a function of the free numbers, and its derivative.

    Dry friction is the speed's sign times a number. At standstill it may be anything below that, so where a joint with dry
    friction stands still, nothing is known of its force: it counts as balanced.

    vector: the free numbers.
    moments: samples from `sampled`, (N, 3 nv + nu + G).
    share: as in `Drive`.
    affine: whether the force is an affine function of `features` everywhere.
    known: where the force of a joint is known, (N, nv).

    If all numbers but those of inertia enter affinely, they are differentiated once. Otherwise finite differences are taken at
    every point.
    """

    def __init__(self, vector: ParameterVector, moments: np.ndarray, share: np.ndarray):
        self.vector, self.moments, self.share = vector, moments, share
        kinds = np.array([_kind(p) for p in vector.parameters for _ in range(p.size)])
        mj = vector.mj
        if mj.body_gravcomp.any() or mj.opt.density or mj.opt.viscosity:
            # The weight that is carried, and the drag of a fluid, change with the inertia.
            kinds[kinds == "inertial"] = "other"
        self._inertial = kinds == "inertial"
        self.affine = "other" not in kinds
        self._linear = ~self._inertial & self.affine
        self._bodies = np.flatnonzero(mj.body_mass > 0)
        self._latest: tuple[np.ndarray, NDArray, NDArray] | None = None
        self._rub, stands = _rubbing(self._model(vector.initial), moments)
        rubs = np.concatenate([mj.dof_frictionloss, mj.tendon_frictionloss]) > 0
        rubs[vector.freed("dof_frictionloss")] = True
        rubs[mj.nv + np.array(vector.freed("tendon_frictionloss"), int)] = True
        self.known: NDArray[np.bool_] = np.logical_not(np.any(stands & rubs[:, None], axis=1))

    def __call__(self, z: np.ndarray) -> NDArray[np.float64]:
        """The unbalanced force (N, nv) [N*m, N] at z (n,); zero where it is not known."""
        force, matrix = self.around(z)
        return force + matrix @ self.features(z)

    def around(self, z: np.ndarray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Force (N, nv) and M (N, nv, k): `force + M features` is the unbalanced force at z or, if `affine`, everywhere."""
        base = self._base(z)
        if self._latest is None or not np.array_equal(self._latest[0], base):
            matrix = np.concatenate([self._columns(base, self._linear), self._regressor(base)], -1)
            self._latest = base, self._force(base), matrix
        return self._latest[1:]

    def features(self, z: np.ndarray) -> NDArray[np.float64]:
        """Change of the numbers that enter linearly, then of pi of every body with mass, (k,)."""
        base = self._base(z)
        numbers = (self._numbers(z) - self._numbers(base)).ravel() if self._inertial.any() else np.zeros(0)
        return np.concatenate([(z - base)[self._linear], numbers])

    def features_slope(self, z: np.ndarray) -> NDArray[np.float64]:
        """Derivative (k, n) of `features` by z."""
        size, at, straight = self.vector.size, np.flatnonzero(self._inertial), np.flatnonzero(self._linear)
        found = np.zeros((len(straight), size))
        found[np.arange(len(straight)), straight] = 1.0
        if not at.size:
            return found
        h = 1e-6 * self.vector.scale[at]
        step = h[:, None] * np.eye(size)[at]
        numbers = (self._numbers(z + step) - self._numbers(z - step)) / (2 * h[:, None, None])
        turned = np.zeros((numbers[0].size, size))
        turned[:, at] = numbers.reshape(len(at), -1).T
        return np.concatenate([found, turned])

    def slope(self, z: np.ndarray) -> NDArray[np.float64]:
        """The derivative (N, nv, n) of the force by z."""
        found = self.around(z)[1] @ self.features_slope(z)
        rest = ~self._inertial & ~self._linear
        if rest.any():
            found[..., rest] = self._columns(z, rest)
        return found

    def _base(self, z: np.ndarray) -> np.ndarray:
        return self.vector.initial if self.affine else np.where(self._inertial, self.vector.initial, z)

    def _columns(self, base: np.ndarray, which: np.ndarray) -> NDArray[np.float64]:
        """Finite differences (N, nv, k) of the force by the entries `which`."""
        vector, at = self.vector, np.flatnonzero(which)
        found = np.empty((len(self.moments), vector.mj.nv, len(at)))
        for k, i in enumerate(at):
            ends = np.clip(base[i] + 1e-4 * vector.scale[i] * np.array([-1, 1]), vector.low[i], vector.high[i])
            low, high = (self._force(np.where(np.arange(vector.size) == i, end, base)) for end in ends)
            found[..., k] = (high - low) / (ends[1] - ends[0])
        return found

    def _numbers(self, z: np.ndarray) -> NDArray[np.float64]:
        """pi of the bodies with mass, (..., b, 10), at z (..., n)."""
        mj, fields = self.vector.mj, self.vector.fields(z)
        moments = fields.get("body_inertia", mj.body_inertia)
        tensor = tensors(moments, np.broadcast_to(mj.body_iquat, (*np.shape(moments)[:-1], 4)))
        full = fields.get("body_inertia_full")
        if full is not None:
            tensor = np.where(np.isfinite(full), full, tensor)
        lead = np.broadcast_shapes(z.shape[:-1], tensor.shape[:-3])
        mass = np.broadcast_to(fields.get("body_mass", mj.body_mass), (*lead, mj.nbody))
        com = np.broadcast_to(fields.get("body_ipos", mj.body_ipos), (*lead, mj.nbody, 3))
        tensor = np.broadcast_to(tensor, (*lead, mj.nbody, 3, 3))
        return inertial_numbers(mass, com, tensor)[..., self._bodies, :]

    def _model(self, z: np.ndarray) -> mujoco.MjModel:
        model = self.vector.mj.__copy__()
        plain = {name: value[None] for name, value in self.vector.fields(z).items()}
        for name, value in principal_fields(self.vector.mj, plain).items():
            set_model_field(model, name, value[0])
        mujoco.mj_setConst(model, mujoco.MjData(model))
        for name in ("body_sameframe", "geom_sameframe", "site_sameframe"):
            getattr(model, name)[:] = 0
        return model

    def _regressor(self, z: np.ndarray) -> NDArray[np.float64]:
        count, nv = len(self.moments), self.vector.mj.nv
        if not self._inertial.any():
            return np.zeros((count, nv, 0))
        qpos, qvel, qacc = (self.moments[:, i * nv : (i + 1) * nv] for i in range(3))
        found = regressor(self._model(z), qpos, qvel, qacc, self._bodies.tolist()).reshape(count, nv, -1)
        return found * self.known[..., None]

    def applied(self, z: np.ndarray) -> NDArray[np.float64]:
        """The force of the actuators (N, nv) [N*m, N] at z."""
        return self._forces(z)[1]

    def _force(self, z: np.ndarray) -> NDArray[np.float64]:
        """Force from inverse dynamics minus the actuator force, (N, nv) [N*m, N]."""
        needed, given = self._forces(z)
        return np.where(self.known, needed - given, 0.0)

    def _forces(self, z: np.ndarray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        model = self._model(z)
        friction = np.concatenate([model.dof_frictionloss, model.tendon_frictionloss])
        model.dof_frictionloss[:] = 0.0
        model.tendon_frictionloss[:] = 0.0
        if model.opt.integrator != mujoco.mjtIntegrator.mjINT_RK4:
            # An implicit step lets a stiff servo and damping act on the speed after it, as if the inertia were larger by the
            # time step times the damping. Without this, the forces of a motion of the model itself would not balance.
            model.opt.enableflags |= mujoco.mjtEnableBit.mjENBL_INVDISCRETE
        data, nv = mujoco.MjData(model), model.nv
        needed, given = np.empty((2, len(self.moments), nv))
        motion, ctrl, drive = np.split(self.moments, [3 * nv, 3 * nv + model.nu], axis=1)
        if len(self.share):
            ctrl, _ = commanded(ctrl, ctrl[:0], drive, self.share, self.vector.signals(z)["controller_gain"])
        for k, (moment, control) in enumerate(zip(motion, ctrl, strict=True)):
            data.qpos[:], data.qvel[:], data.qacc[:] = moment[:nv], moment[nv : 2 * nv], moment[2 * nv :]
            data.ctrl[:] = control
            mujoco.mj_inverse(model, data)
            mujoco.mj_fwdActuation(model, data)
            needed[k], given[k] = data.qfrc_inverse, data.qfrc_actuator
        return needed + self._rub.transpose(0, 2, 1) @ friction, given


def _rubbing(model: mujoco.MjModel, moments: np.ndarray) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Force of one unit of dry friction in each joint and tendon, and whether it is unknown, (N, nv + ntendon, nv) both."""
    count, nv = len(moments), model.nv
    speed = np.concatenate([moments[:, nv : 2 * nv], np.zeros((count, model.ntendon))], 1)
    arms = np.zeros((count, nv + model.ntendon, nv))
    arms[:, :nv] = np.eye(nv)
    if model.ntendon:
        data = mujoco.MjData(model)
        for row, pull, moment in zip(speed, arms, moments, strict=True):
            data.qpos[:], data.qvel[:] = moment[:nv], moment[nv : 2 * nv]
            mujoco.mj_fwdPosition(model, data)
            mujoco.mj_fwdVelocity(model, data)
            row[nv:] = data.ten_velocity
            pull[nv:] = _dense(data.ten_J, data, model)
    usual = np.sqrt(np.mean(speed**2, axis=0))
    return np.sign(speed)[..., None] * arms, (np.abs(speed) <= _STILL * usual)[..., None] & (arms != 0)


def _dense(packed: np.ndarray, data: mujoco.MjData, model: mujoco.MjModel) -> np.ndarray:
    """The Jacobian of the tendons (ntendon, nv), which MuJoCo stores by its nonzero entries."""
    found, flat = np.zeros((model.ntendon, model.nv)), np.ravel(packed)
    owner = model if hasattr(model, "ten_J_rownnz") else data
    counts, starts, columns = (np.ravel(getattr(owner, f"ten_J_{name}")) for name in ("rownnz", "rowadr", "colind"))
    for row, (number, begin) in enumerate(zip(counts, starts, strict=True)):
        found[row, columns[begin : begin + number]] = flat[begin : begin + number]
    return found


def _kind(parameter: Parameter) -> str:
    fields = {slot.field for slot in parameter.slots}
    if parameter.factor is not None or (fields and fields <= _INERTIAL):
        return "inertial"
    offset = all(slot.field == "actuator_biasprm" and slot.at[0] % 10 == 0 for slot in parameter.slots)
    return "affine" if fields <= _AFFINE or (fields and offset) else "other"


def sampled(
    rollouts: Sequence[Rollout], channels: Channels, vector: ParameterVector, drives: Drives | None, *, most: int
) -> tuple[NDArray[np.float64], str]:
    """qpos, qvel, qacc, ctrl and the controller signals in one array (N, 3 nv + nu + G), for samples of all recordings.

    most: largest number of samples, spread evenly.

    Controls are smoothed as the positions are, so that both sides of the equation lack the same frequencies.

    Returns:
      The samples, none if the recordings do not show the motion, and the name of a recording that does not.
    """
    model, found = vector.mj, []
    signals = vector.signals(vector.initial)
    kind = int(mujoco.mjtSensor.mjSENS_JOINTPOS)
    sensor_of = {
        int(model.sensor_objid[s]): c for c, s in enumerate(channels.sensor_ids) if int(model.sensor_type[s]) == kind
    }
    missing = [j for j in range(model.njnt) if j not in sensor_of]
    for rollout in rollouts:
        if rollout.ctrl is None or (missing and rollout.qpos is None):
            return np.zeros((0, 0)), rollout.name
        dt = float(np.median(np.diff(rollout.time)))
        grid = np.arange(rollout.time[0], rollout.time[-1] + 0.5 * dt, dt)
        if len(grid) <= 4 * _FEWEST:
            continue
        if rollout.qpos is None:
            read = corrected(np.asarray(rollout.sensordata), signals, channels.sensor_addresses)
            joints = [read[:, sensor_of[j]] for j in range(model.njnt)]
        else:
            joints = list(rollout.qpos.T)
        if any(np.isfinite(values).sum() < _FEWEST for values in joints):
            continue
        even = [np.interp(grid, rollout.time[np.isfinite(q)], q[np.isfinite(q)]) for q in joints]
        width = max(_width(values, dt) for values in even)
        if len(grid) <= 2 * width:
            continue
        tracks = [[_smoothed(values, width, d, dt) for d in range(3)] for values in even]
        held = np.clip(np.searchsorted(rollout.time, grid + 1e-6 * dt, side="right") - 1, 0, None)
        controls = rollout.ctrl[held][:, channels.ctrl_columns]
        ctrl = (
            np.stack([_smoothed(column, width, 0, dt) for column in controls.T], axis=1) if controls.size else controls
        )
        motion = np.concatenate(np.moveaxis(np.array(tracks), 0, 2), axis=1)
        drive = np.zeros((len(grid), 0)) if drives is None else drives.at(rollout.name, grid)
        # Smoothing has no data beyond the ends.
        found.append(np.concatenate([motion, ctrl, drive], axis=1)[width:-width])
    everything = np.concatenate(found) if found else np.zeros((0, 0))
    rows = np.unique(np.linspace(0, len(everything) - 1, most).astype(int)) if len(everything) else []
    return everything[rows], ""


def _width(values: np.ndarray, dt: float) -> int:
    """Samples over which positions are smoothed. Their noise is taken from third differences, which a motion hardly has."""
    noise = 1.4826 * np.median(np.abs(np.diff(values, 3))) / np.sqrt(20.0)
    most = max(_FEWEST, min(2 * round(0.5 * _LONGEST / dt) + 1, len(values) // 2))
    for width in range(_FEWEST, most, 2):
        left = noise * np.linalg.norm(_kernel(width, 2, dt))
        if left <= _NOISE * _smoothed(values, width, 2, dt)[width // 2 : -(width // 2)].std():
            return width
    return most


def _kernel(width: int, derivative: int, dt: float) -> np.ndarray:
    """Weights (width,) of the Savitzky-Golay filter of degree 3. To import SciPy's takes half of a short run's start-up."""
    powers = np.vander(np.arange(width) - width // 2, 4, increasing=True)
    return np.linalg.pinv(powers)[derivative] * math.factorial(derivative) / dt**derivative


def _smoothed(values: np.ndarray, width: int, derivative: int, dt: float) -> np.ndarray:
    """A derivative of the values (T,), smoothed over `width` samples; at both ends width // 2 values mean nothing."""
    return np.convolve(values, _kernel(width, derivative, dt)[::-1], "same")
