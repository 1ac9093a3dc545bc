"""Where the episodes of a study start, and where its windows may start besides."""

from typing import Any

import jax.numpy as jnp
import mujoco
import numpy as np

from dso_robotics.costs.quantity import find_id
from dso_robotics.errors import DsoError
from dso_robotics.physics.model import Robot
from dso_robotics.robot.closing import Closing, closing
from dso_robotics.robot.system import RobotSystem
from dso_robotics.robot.system_state import Spread
from dso_robotics.studies.train_study import TrainStudy

_SCALAR = (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE))


def start_position(study: TrainStudy, robot: Robot) -> np.ndarray:
    """The joint positions (nq,) about which episodes start.

    Raises:
      DsoError: [start.position] names a joint that the model does not have, or one that is not a hinge or a slide.
    """
    qpos = np.array(robot.mj.qpos0)
    for name, value in study.start.position.items():
        qpos[_address(study, robot, "start.position", name)[0]] = value
    return qpos


def start_closing(study: TrainStudy, robot: Robot, model: mujoco.MjModel) -> Closing | None:
    """What closes the loops of the robot at a start; None if it has none.

    Joints whose position the study gives keep it.

    Raises:
      DsoError: no posture closes the loops.
    """
    held = {*study.start.position, *study.explore.position}
    moving = study.start.spread or any(study.start.velocity.values()) or study.explore.velocity
    try:
        return closing(robot, model, start_position(study, robot), held, rests=not moving)
    except DsoError as error:
        raise DsoError(f"{study.source}: [start] {error}") from error


def start_states(study: TrainStudy, chain: RobotSystem, robot: Robot) -> tuple[Any, Any]:
    """Where episodes start, and where windows of a training do: wider, if the study has [explore]. Both are `Spread`.

    Raises:
      DsoError: [start] or [explore] names a joint that the model does not have, or one that is not a hinge or a slide.
    """
    mj, width, wide = robot.mj, study.start.spread, study.explore
    qpos, qvel = start_position(study, robot), np.zeros(mj.nv)
    for name, value in study.start.velocity.items():
        qvel[_address(study, robot, "start.velocity", name)[1]] = value
    moving = np.zeros(mj.nq)
    moving[mj.jnt_qposadr[np.isin(mj.jnt_type, _SCALAR)]] = width
    start = Spread(chain.rest(jnp.asarray(qpos), jnp.asarray(qvel)), jnp.asarray(moving), jnp.full(mj.nv, width))
    if not (wide.position or wide.velocity):
        return start, start
    middle, half, speed, spin = qpos.copy(), moving.copy(), qvel.copy(), np.full(mj.nv, width)
    for section, ranges, centre, reach, which in (
        ("position", wide.position, middle, half, 0),
        ("velocity", wide.velocity, speed, spin, 1),
    ):
        for name, (low, high) in ranges.items():
            at = _address(study, robot, f"explore.{section}", name)[which]
            centre[at], reach[at] = (low + high) / 2, (high - low) / 2
    given = None if study.estimator is None else study.estimator.error
    error = width if given is None else given
    rest = chain.rest(jnp.asarray(middle), jnp.asarray(speed))
    return start, Spread(rest, jnp.asarray(half), jnp.asarray(spin), uniform=True, error=error)


def _address(study: TrainStudy, robot: Robot, section: str, name: str) -> tuple[int, int]:
    """Addresses in qpos and qvel of a hinge or slide joint."""
    where = f"{study.source}: [{section}] {name}"
    joint = find_id("joint", name, where, robot)
    if int(robot.mj.jnt_type[joint]) not in _SCALAR:
        raise DsoError(f"{where}: start values are given for hinge and slide joints only.")
    return int(robot.mj.jnt_qposadr[joint]), int(robot.mj.jnt_dofadr[joint])
