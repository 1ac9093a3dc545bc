"""Places start states on the floor for any mechanism. A slide or free joint is set from the height of the lowest geom."""

import dataclasses
from typing import Any

import mujoco
import numpy as np
from jaxtyping import Array, Float

from dso_robotics.errors import DsoError
from dso_robotics.physics.contact import pairs
from dso_robotics.physics.geometry import SOLIDS, extent
from dso_robotics.physics.model import Robot, nearest
from dso_robotics.robot.base import free_joints
from dso_robotics.robot.scene import Scene

_PLANE, _SLIDE = int(mujoco.mjtGeom.mjGEOM_PLANE), int(mujoco.mjtJoint.mjJNT_SLIDE)


@dataclasses.dataclass(frozen=True)
class Lift:
    """Moves a slide joint, or the height of a free joint, so that the robot stands on the floor. Made by `lift`.

    joint: address of the height in qpos.
    pairs: pairs (plane, geom) that may touch.
    """

    joint: int
    pairs: tuple[tuple[int, int], ...]

    def __call__(self, scene: Scene) -> Float[Array, " nq"]:
        """qpos of the scene with the height moved.

        The height of the lowest geom above its plane then equals the joint's original value. The result is differentiable by
        the mechanism and by qpos, except where two geoms are equally low.
        """
        qpos, heights = scene.state.qpos, _heights(self.pairs, scene.model, scene.geom_place, scene.geom_turn)
        return qpos.at[self.joint].add(qpos[self.joint] - heights.min())


def lift(robot: Robot, joint: str) -> Lift:
    """Make the lift along the slide joint or the z of the free joint called `joint`.

    Raises:
      DsoError: there is no such joint, no geom of the robot may touch a plane, a geom that may touch one has a shape
        without a height formula, or the joint does not move all these geoms along the normal of their plane in every posture.
    """
    model, names = robot.mj, robot.names("joint")
    slides = {
        name: int(model.jnt_qposadr[i]) for i, name in enumerate(names) if name and int(model.jnt_type[i]) == _SLIDE
    } | {name: q + 2 for name, (q, _) in free_joints(model).items()}
    if joint not in slides:
        has = nearest(joint, list(slides), 8) or "none"
        raise DsoError(f"there is no slide or free joint called '{joint}'; the model has {has}.")
    at = slides[joint]
    touching = [(int(one), int(two)) for one, two in pairs(model) if int(model.geom_type[one]) == _PLANE]
    if not touching:
        raise DsoError("nothing of the robot may touch a plane, so there is no floor to lift it from.")
    for _, geom in touching:
        if int(model.geom_type[geom]) not in SOLIDS:
            shape = mujoco.mjtGeom(int(model.geom_type[geom])).name.removeprefix("mjGEOM_").lower()
            raise DsoError(f"geom '{model.geom(geom).name or geom}' is a {shape}, whose lowest point is not computed.")
    made, data = Lift(at, tuple(touching)), mujoco.MjData(model)

    def place(geom: int) -> np.ndarray:
        return data.geom_xpos[geom]

    def turn(geom: int) -> np.ndarray:
        return data.geom_xmat[geom].reshape(3, 3)

    mujoco.mj_integratePos(model, data.qpos, np.sin(1.0 + np.arange(model.nv)), 1.0)  # an arbitrary posture
    found = []
    for _ in range(2):
        mujoco.mj_kinematics(model, data)
        found.append(_heights(made.pairs, model, place, turn))
        data.qpos[at] += 1.0
    if np.abs(found[1] - found[0] - 1.0).max() > 1e-9:
        raise DsoError(
            f"joint '{joint}' does not raise the robot straight from the floor; choose a slide joint of the robot's root that "
            "points up, before any hinge, or its free joint."
        )
    return made


def _heights(pairs: tuple[tuple[int, int], ...], model: Any, place: Any, turn: Any) -> Float[Array, " k"]:
    """Height of each geom's lowest point above its plane [m]. place, turn: functions of a geom's id."""
    found = []
    for plane, geom in pairs:
        up = turn(plane)[:, 2]
        direction = up @ turn(geom)
        size = model.geom_size[geom] + 0.0 * direction  # both are JAX arrays if one of them is
        reach = extent(int(model.geom_type[geom]), size, direction + 0.0 * size)
        found.append(up @ (place(geom) - place(plane)) - reach)
    return found[0].__array_namespace__().stack(found)
