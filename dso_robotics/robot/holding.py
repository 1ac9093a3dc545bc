"""Controls that hold a robot at rest in a position, and the range in which its controls may move."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import mujoco
import numpy as np

from dso_robotics.data.match import values_by_channel
from dso_robotics.errors import DsoError

_FIXED = int(mujoco.mjtGain.mjGAIN_FIXED)
_NONE, _AFFINE = int(mujoco.mjtBias.mjBIAS_NONE), int(mujoco.mjtBias.mjBIAS_AFFINE)
_OF_JOINT = (int(mujoco.mjtTrn.mjTRN_JOINT), int(mujoco.mjtTrn.mjTRN_JOINTINPARENT))
_STATIC = (int(mujoco.mjtDyn.mjDYN_NONE), int(mujoco.mjtDyn.mjDYN_FILTER), int(mujoco.mjtDyn.mjDYN_FILTEREXACT))


@dataclass(frozen=True, eq=False)
class Drive:
    """The range of every control: rest (nu,), where signals of size 0 are, and its ends `low` and `high` (nu,)."""

    rest: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def controls(self, signals: np.ndarray, interval: float, rate: np.ndarray) -> np.ndarray:
        """Controls (..., T, nu) of signals (..., T, nu) without unit, bent so that they stay in their range.

        rate: largest change of each control in a second (nu,), infinite where there is none. Signals that would change faster
        are made smaller as a whole.
        """
        room = np.maximum(self.high - self.rest, self.rest - self.low)
        fastest = np.max(np.abs(np.diff(signals, axis=-2)), axis=-2, keepdims=True) * room / interval
        signals = signals * np.minimum(1.0, rate / np.maximum(fastest, 1e-300))
        bent = np.tanh(signals)
        return self.rest + np.where(bent > 0, self.high - self.rest, self.rest - self.low) * bent


def holding(model: mujoco.MjModel, qpos: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Controls (nu,) that hold the robot at rest in `qpos` (nq,) as well as its actuators can, and activations (na,)."""
    still = np.zeros((1, model.nv))
    ctrl = tracking(model, qpos[None], still, still)[0]
    limited = model.actuator_ctrllimited.astype(bool)
    ctrl = np.where(limited, np.clip(ctrl, *model.actuator_ctrlrange.T), ctrl)
    act = np.zeros(model.na)
    for i in np.flatnonzero(model.actuator_actadr >= 0):
        if int(model.actuator_dyntype[i]) in _STATIC:
            act[model.actuator_actadr[i] + model.actuator_actnum[i] - 1] = ctrl[i]
    return ctrl + 0.0, act


def tracking(model: mujoco.MjModel, qpos: np.ndarray, qvel: np.ndarray, qacc: np.ndarray) -> np.ndarray:
    """Controls (T, nu) by inverse dynamics of a motion (T, nq), (T, nv), (T, nv); the nearest ones where none makes it.

    0 for an actuator whose force is not an affine function of its control.
    """
    data, ctrl = mujoco.MjData(model), np.zeros((len(qpos), model.nu))
    if not model.nu:
        return ctrl
    # A comparison of NumPy's integers with MuJoCo's enums is always false.
    kind = np.array([int(b) for b in model.actuator_biastype])
    plain = np.isin(kind, (_NONE, _AFFINE)) & (model.actuator_gaintype == _FIXED)
    plain &= np.isin(model.actuator_dyntype, _STATIC) & (model.actuator_gainprm[:, 0] != 0)
    gain = np.where(plain, model.actuator_gainprm[:, 0], 1.0)
    bias = np.where((kind == _AFFINE)[:, None], model.actuator_biasprm[:, :3], 0.0)
    moment = np.zeros((model.nu, model.nv))
    for t in range(len(qpos)):
        data.qpos[:], data.qvel[:], data.qacc[:] = qpos[t], qvel[t], qacc[t]
        mujoco.mj_inverse(model, data)
        mujoco.mju_sparse2dense(
            moment, data.actuator_moment, data.moment_rownnz, data.moment_rowadr, data.moment_colind
        )
        force = np.linalg.lstsq(moment.T, data.qfrc_inverse, rcond=1e-9)[0]
        own = bias[:, 0] + bias[:, 1] * data.actuator_length + bias[:, 2] * (moment @ qvel[t])
        ctrl[t] = np.where(plain, (force - own) / gain, 0.0)
    return ctrl


def refuse_undriven(model: mujoco.MjModel, source: str) -> None:
    """Refuse a model whose joints cannot all follow a reference.

    Raises:
      DsoError: it has a ball or free joint, an activation, or more joints than its actuators drive.
    """
    cure = "plan controls with --play control"
    if model.nq != model.nv or model.na:
        what = "an actuator with an activation" if model.na else "a ball or free joint"
        raise DsoError(f"{source}: --play reference: the model has {what}, which follows no reference; {cure}.")
    data, moment = mujoco.MjData(model), np.zeros((model.nu, model.nv))
    mujoco.mj_forward(model, data)
    mujoco.mju_sparse2dense(moment, data.actuator_moment, data.moment_rownnz, data.moment_rowadr, data.moment_colind)
    still = [model.joint(j).name for j in range(model.njnt) if not moment[:, model.jnt_dofadr[j]].any()]
    if still or np.linalg.matrix_rank(moment) < model.nv:
        named = f"joint '{still[0]}' has no actuator" if still else "the actuators cannot move all joints independently"
        raise DsoError(f"{source}: --play reference: {named}, so it follows no reference; {cure}.")


def drive(
    model: mujoco.MjModel,
    rest: np.ndarray,
    names: tuple[str, ...],
    amplitude: float | Mapping[str, float] | None,
    held: Mapping[int, float] = MappingProxyType({}),
) -> Drive:
    """The range of the controls: the ctrlrange; of a servo of position without one, the range of its joint.

    amplitude: how far a control may go from `rest` (nu,), one number or one by actuator.
    held: controls that stay at a value, by actuator.

    Raises:
      DsoError: an actuator has no range.
    """
    low, high = np.full(model.nu, -np.inf), np.full(model.nu, np.inf)
    for i in range(model.nu):
        joint = int(model.actuator_trnid[i, 0])
        if model.actuator_ctrllimited[i]:
            low[i], high[i] = model.actuator_ctrlrange[i]
        elif _servo(model, i) and model.jnt_limited[joint] and model.actuator_gear[i, 0]:
            low[i], high[i] = sorted(model.jnt_range[joint] * model.actuator_gear[i, 0])
    if amplitude is not None:
        given = amplitude if isinstance(amplitude, Mapping) else {"*": amplitude}
        reach = values_by_channel(given, names, "amplitude")
        reach[reach == 0] = np.inf
        low, high = np.maximum(low, rest - reach), np.minimum(high, rest + reach)
    for i, value in held.items():
        low[i] = high[i] = value
    for i, name in enumerate(names):
        if not np.isfinite([low[i], high[i]]).all():
            raise DsoError(
                f"actuator '{name}' has no ctrlrange in the model, so how far its control may go is unknown; give it with "
                f"--amplitude {name}=NUMBER, or set ctrlrange."
            )
    return Drive(np.clip(rest, low, high), low, high)


def _servo(model: mujoco.MjModel, i: int) -> bool:
    """Whether an actuator pulls its joint to the position that its control names."""
    gain, bias = model.actuator_gainprm[i], model.actuator_biasprm[i]
    ours = int(model.actuator_trntype[i]) in _OF_JOINT
    return bool(ours and int(model.actuator_biastype[i]) == _AFFINE and gain[0] > 0 and bias[1] == -gain[0])
