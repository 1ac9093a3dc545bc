"""Motors made into position drives: torque = stiffness (target - position) - damping velocity, within the motor's torque."""

import dataclasses
from collections.abc import Sequence

import mujoco
import numpy as np

from dso_robotics.errors import DsoError
from dso_robotics.physics.model import Robot, actuator_labels, compile_spec

_SCALAR = (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE))
_ON_JOINT = (int(mujoco.mjtTrn.mjTRN_JOINT), int(mujoco.mjtTrn.mjTRN_JOINTINPARENT))
# The range of targets of a hinge without limits is one turn about its zero.
_TURN = np.pi


def is_position_drive(model: mujoco.MjModel, actuator: int) -> bool:
    """Whether the control is a target of the actuator's length: force = k (ctrl - length) - ..."""
    gain, bias = float(model.actuator_gainprm[actuator, 0]), model.actuator_biasprm[actuator]
    fixed = int(model.actuator_gaintype[actuator]) == int(mujoco.mjtGain.mjGAIN_FIXED)
    affine = int(model.actuator_biastype[actuator]) == int(mujoco.mjtBias.mjBIAS_AFFINE)
    return fixed and affine and gain > 0.0 and abs(gain + float(bias[1])) <= 1e-9 * gain


def with_position_drives(robot: Robot, stiffness: Sequence[float], damping: Sequence[float]) -> Robot:
    """`robot` whose motors on hinges and slides are position drives; position drives that it has stay as they are.

    The control of a drive is the joint's target. Its range is that of the joint, its torque is limited as the motor's was.

    stiffness: (nu,) [N*m/rad, N/m] at the joint.
    damping: (nu,) [N*m*s/rad, N*s/m].

    Raises:
      DsoError: an actuator is neither a motor on a hinge or slide nor a position drive, or there is no MJCF to change.
    """
    model = robot.mj
    if robot.spec is None:
        raise DsoError("position: a compiled MjModel cannot be changed; load the XML file.")
    spec = robot.spec.copy()
    for i, (actuator, name) in enumerate(zip(spec.actuators, actuator_labels(model), strict=True)):
        if is_position_drive(model, i):
            continue
        _check(model, i, name)
        joint = int(model.actuator_trnid[i, 0])
        force = _forces(model, i)
        if model.jnt_limited[joint]:
            low, high = (float(end) for end in model.jnt_range[joint])
        elif int(model.jnt_type[joint]) == _SCALAR[0]:
            low, high = -_TURN, _TURN
        else:
            raise DsoError(
                f"position: joint '{model.joint(joint).name}' of actuator '{name}' is a slide without limits, so its targets "
                "have no range; give the joint a range."
            )
        k, d = float(stiffness[i]), float(damping[i])
        actuator.gear = [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
        actuator.gaintype, actuator.biastype = mujoco.mjtGain.mjGAIN_FIXED, mujoco.mjtBias.mjBIAS_AFFINE
        actuator.gainprm = [k] + [0.0] * (len(actuator.gainprm) - 1)
        actuator.biasprm = [0.0, -k, -d] + [0.0] * (len(actuator.biasprm) - 3)
        actuator.ctrllimited, actuator.ctrlrange = True, [low, high]
        actuator.inheritrange = 0.0
        actuator.forcelimited = force is not None
        if force is not None:
            actuator.forcerange = list(force)
    for keyframe in spec.keys:
        keyframe.ctrl = []
    return dataclasses.replace(robot, mj=compile_spec(spec, robot.source), spec=spec)


def _check(model: mujoco.MjModel, i: int, name: str) -> None:
    motor = (
        int(model.actuator_trntype[i]) in _ON_JOINT
        and int(model.jnt_type[model.actuator_trnid[i, 0]]) in _SCALAR
        and int(model.actuator_dyntype[i]) == int(mujoco.mjtDyn.mjDYN_NONE)
        and int(model.actuator_gaintype[i]) == int(mujoco.mjtGain.mjGAIN_FIXED)
        and int(model.actuator_biastype[i]) == int(mujoco.mjtBias.mjBIAS_NONE)
    )
    if not motor:
        raise DsoError(
            f"position: actuator '{name}' is neither a motor on a hinge or slide nor a position drive, so it cannot follow a "
            "target; leave [action.position] out, or write <position> actuators into the model."
        )


def _forces(model: mujoco.MjModel, i: int) -> tuple[float, float] | None:
    """The range of the motor's torque at the joint [N*m, N]; None without a limit."""
    gear, gain = float(model.actuator_gear[i, 0]), float(model.actuator_gainprm[i, 0])
    ends = np.array([-np.inf, np.inf])
    if model.actuator_ctrllimited[i]:
        ends = np.sort(gain * model.actuator_ctrlrange[i])
    if model.actuator_forcelimited[i]:
        ends = np.clip(ends, *model.actuator_forcerange[i])
    low, high = np.sort(gear * ends)
    return (float(low), float(high)) if np.isfinite([low, high]).all() else None
