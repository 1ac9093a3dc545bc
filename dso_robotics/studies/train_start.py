"""Where the episodes of a study start, and where its windows may start besides."""

from typing import Any

import jax.numpy as jnp
import mujoco
import numpy as np

from dso_robotics.costs.quantity import find_id
from dso_robotics.errors import DsoError, nearest
from dso_robotics.physics.model import Robot
from dso_robotics.physics.posture import BALL, FREE
from dso_robotics.robot.base import free_joints, heading_and_tilt, orientation
from dso_robotics.robot.between import Between, chance
from dso_robotics.robot.closing import Closing, closing
from dso_robotics.robot.system import RobotSystem
from dso_robotics.robot.system_state import Spread
from dso_robotics.studies.train_study import BASE, TrainStudy

_SCALAR = (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE))
_RATES = ("velocity", "spin")
_UNIT = 1e-3  # how far from 1 the length of a quaternion may be


def start_position(study: TrainStudy, robot: Robot) -> np.ndarray:
    """The positions (nq,) about which episodes start.

    Raises:
      DsoError: [start] names a joint or keyframe that the model does not have, or a joint of the wrong kind; or qpos has a
        wrong length.
    """
    given = study.start
    qpos = _posture(study, robot)
    for name, value in given.position.items():
        qpos[_address(study, robot, "start.position", name)[0]] = value
    for name, base in given.base.items():
        q, _ = _free(study, robot, "start.base", name)
        heading, tilt = heading_and_tilt(qpos[q + 3 : q + 7])
        qpos[q : q + 2] = qpos[q : q + 2] if base.position is None else base.position
        qpos[q + 2] = qpos[q + 2] if base.height is None else base.height
        if base.heading is not None or base.tilt is not None:
            heading = heading if base.heading is None else base.heading
            qpos[q + 3 : q + 7] = orientation(heading, tilt if base.tilt is None else base.tilt)
    lifted = free_joints(robot.mj).get(given.lift or "")
    if lifted is not None and getattr(given.base.get(given.lift or ""), "height", None) is None:
        qpos[lifted[0] + 2] = 0.0
    return qpos


def _posture(study: TrainStudy, robot: Robot) -> np.ndarray:
    """The whole posture (nq,) that [start] gives, before single joints."""
    mj, given = robot.mj, study.start
    if given.keyframe is not None:
        return np.array(mj.key_qpos[_keyframe(study, robot, given.keyframe)])
    if not given.qpos:
        return np.array(mj.qpos0)
    if len(given.qpos) != mj.nq:
        raise DsoError(f"{study.source}: [start] qpos has {len(given.qpos)} numbers and the model's qpos {mj.nq}.")
    qpos = np.array(given.qpos, float)
    for joint in range(mj.njnt):
        width = {FREE: 7, BALL: 4}.get(int(mj.jnt_type[joint]))
        if width is not None:
            quat = slice(int(mj.jnt_qposadr[joint]) + width - 4, int(mj.jnt_qposadr[joint]) + width)
            length = float(np.linalg.norm(qpos[quat]))
            if abs(length - 1.0) > _UNIT:
                raise DsoError(
                    f"{study.source}: [start] qpos: the numbers {quat.start} to {quat.stop - 1} are the quaternion of joint "
                    f"'{mj.joint(joint).name or joint}' and have length {length:.4g}; give one of length 1, w first."
                )
            qpos[quat] /= length
    return qpos


def _keyframe(study: TrainStudy, robot: Robot, name: str) -> int:
    names = [robot.mj.key(i).name for i in range(robot.mj.nkey)]
    if name not in names or not name:
        has = nearest(name, names, 8) or "none with a name"
        raise DsoError(f"{study.source}: [start] keyframe: the model has no keyframe '{name}'; it has {has}.")
    return names.index(name)


def start_velocity(study: TrainStudy, robot: Robot) -> np.ndarray:
    """The velocities (nv,) about which episodes start. Raises as `start_position`."""
    mj, given = robot.mj, study.start
    qvel = np.zeros(mj.nv)
    if given.keyframe is not None:
        qvel = np.array(mj.key_qvel[_keyframe(study, robot, given.keyframe)])
    for name, value in given.velocity.items():
        qvel[_address(study, robot, "start.velocity", name)[1]] = value
    for name, base in given.base.items():
        _, v = _free(study, robot, "start.base", name)
        qvel[v : v + 3] = qvel[v : v + 3] if base.velocity is None else base.velocity
        qvel[v + 3 : v + 6] = qvel[v + 3 : v + 6] if base.spin is None else base.spin
    return qvel


def start_closing(study: TrainStudy, robot: Robot, model: mujoco.MjModel) -> Closing | None:
    """What closes the loops of the robot at a start; None if it has none.

    Joints whose position the study gives keep it.

    Raises:
      DsoError: no posture closes the loops.
    """
    held = {*study.start.position, *study.explore.position}
    given, wide = study.start, study.explore
    moving = given.spread or any(start_velocity(study, robot)) or wide.velocity or wide.base
    moving = moving or any(base.spread for base in given.base.values())
    try:
        return closing(robot, model, start_position(study, robot), held, rests=not moving)
    except DsoError as error:
        raise DsoError(f"{study.source}: [start] {error}") from error


def start_states(study: TrainStudy, chain: RobotSystem, robot: Robot) -> tuple[Any, Any]:
    """Where episodes start, and where windows of a training do: wider, if the study has [explore]. Both are `Spread`.

    Raises:
      DsoError: [start] or [explore] names a joint that the model does not have, or one of the wrong kind.
    """
    mj, width, wide = robot.mj, study.start.spread, study.explore
    qpos, qvel = start_position(study, robot), start_velocity(study, robot)
    moving, speeding = np.full(mj.nv, width), np.full(mj.nv, width)
    for _, v in free_joints(mj).values():
        moving[v : v + 6] = 0.0
    for name, base in study.start.base.items():
        _, v = _free(study, robot, "start.base", name)
        for key, size in base.spread.items():
            (speeding if key in _RATES else moving)[[v + k for k in BASE[key]]] = size
    model = None if mj.nq == mj.nv else mj
    start = Spread(
        chain.rest(jnp.asarray(qpos), jnp.asarray(qvel)), jnp.asarray(moving), jnp.asarray(speeding), mj=model
    )
    if not (wide.position or wide.velocity or wide.base):
        return start, start
    middle, half, speed, spin = qpos.copy(), moving.copy(), qvel.copy(), speeding.copy()
    for name, (low, high) in wide.position.items():
        q, v = _address(study, robot, "explore.position", name)
        middle[q], half[v] = (low + high) / 2, (high - low) / 2
    for name, (low, high) in wide.velocity.items():
        _, v = _address(study, robot, "explore.velocity", name)
        speed[v], spin[v] = (low + high) / 2, (high - low) / 2
    for name, ranges in wide.base.items():
        q, v = _free(study, robot, "explore.base", name)
        heading, tilt = heading_and_tilt(middle[q + 3 : q + 7])
        for key, (low, high) in ranges.items():
            places, centre = list(BASE[key]), (low + high) / 2
            (spin if key in _RATES else half)[[v + k for k in places]] = (high - low) / 2
            if key in _RATES:
                speed[[v + k for k in places]] = centre
            elif key in ("position", "height"):
                middle[[q + k for k in places]] = centre
            heading, tilt = centre if key == "heading" else heading, np.full(2, centre) if key == "tilt" else tilt
        if ranges.keys() & {"heading", "tilt"}:
            middle[q + 3 : q + 7] = orientation(heading, tilt)
    given = None if study.estimator is None else study.estimator.error
    error = width if given is None else given
    rest = chain.rest(jnp.asarray(middle), jnp.asarray(speed))
    more = {"mj": model, "error": error, "smallest": wide.smallest}
    return start, Spread(rest, jnp.asarray(half), jnp.asarray(spin), uniform=True, **more)


def start_between(study: TrainStudy, chain: RobotSystem, robot: Robot) -> Between | None:
    """What happens between two windows: tasks with `every` and [pushes]; None if nothing does.

    Raises:
      DsoError: [pushes] names a joint that the model does not have, or one of the wrong kind.
    """
    seconds = study.training.horizon * chain.control_step
    chances = tuple(chance(table.every, seconds) for table in study.task.values())
    pushes, change = study.pushes, np.zeros(robot.mj.nv)
    if pushes is None and not any(chances):
        return None
    for name, size in ({} if pushes is None else pushes.velocity).items():
        change[_address(study, robot, "pushes.velocity", name)[1]] = size
    for name, sizes in ({} if pushes is None else pushes.base).items():
        _, v = _free(study, robot, "pushes.base", name)
        for key, size in sizes.items():
            change[[v + k for k in BASE[key]]] = size
    often = chance(None if pushes is None else pushes.every, seconds)
    return Between(chain.context, chances, often, jnp.asarray(change))


def _free(study: TrainStudy, robot: Robot, section: str, name: str) -> tuple[int, int]:
    """Addresses in qpos and qvel of a free joint."""
    known = free_joints(robot.mj)
    if name not in known:
        has = nearest(name, list(known), 8) or "none"
        raise DsoError(f"{study.source}: [{section}.{name}]: the model has no free joint '{name}'; it has {has}.")
    return known[name]


def _address(study: TrainStudy, robot: Robot, section: str, name: str) -> tuple[int, int]:
    """Addresses in qpos and qvel of a hinge or slide joint."""
    where = f"{study.source}: [{section}] {name}"
    joint = find_id("joint", name, where, robot)
    if int(robot.mj.jnt_type[joint]) not in _SCALAR:
        kind = "base" if int(robot.mj.jnt_type[joint]) == FREE else "qpos or a keyframe"
        raise DsoError(
            f"{where}: single positions and velocities are given for hinge and slide joints; for this one give "
            f"{f'[{section.split(chr(46))[0]}.base.{name}]' if kind == 'base' else kind}."
        )
    return int(robot.mj.jnt_qposadr[joint]), int(robot.mj.jnt_dofadr[joint])
