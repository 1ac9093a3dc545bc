"""Design maps of a joint's position and axis."""

import dataclasses
from collections.abc import Mapping

import mujoco
import numpy as np

from dso_robotics.errors import DsoError
from dso_robotics.physics.design.map import Array, DesignMap, Fields, find, write

_FREE, _BALL, _SLIDE = (int(getattr(mujoco.mjtJoint, f"mjJNT_{name}")) for name in ("FREE", "BALL", "SLIDE"))
_SERIES = 1e-3  # below this squared angle the power series is exact to rounding, and smooth


@dataclasses.dataclass(frozen=True, eq=False)
class JointPosition(DesignMap):
    """Position [m] (3,) of a hinge or ball joint in the frame of its body. It replaces the earlier position. Unbounded.

    Raises:
      DsoError: no such joint, or a joint whose position has no effect (slide and free joints).
    """

    joint: int = dataclasses.field(init=False)

    def __post_init__(self):
        joint = find(self.robot, "joint", self.name)
        kind = int(self.robot.mj.jnt_type[joint])
        if kind in (_FREE, _SLIDE):
            word = "free" if kind == _FREE else "slide"
            raise DsoError(
                f"{self.robot.source}: joint '{self.name}' is a {word} joint, whose position does not change the motion; "
                "choose a hinge or ball joint."
            )
        self._set(joint=joint)
        names = [f"joint/{self.name}/pos[{i}]" for i in range(3)]
        self._declare(names, ["m"] * 3, self.robot.mj.jnt_pos[joint], (-np.inf, np.inf))

    def apply(self, numbers: Array, fields: Mapping[str, Array]) -> Fields:
        """See `DesignMap.apply`: jnt_pos."""
        return write(self.robot, fields, "jnt_pos", [self.joint], numbers[..., None, :])


@dataclasses.dataclass(frozen=True, eq=False)
class JointAxis(DesignMap):
    """Axis of a hinge or slide joint: two tilts [rad] from the model's axis.

    The tilts are a rotation vector in the plane at a right angle to the model's axis; the axis is turned by it (the
    exponential map of the sphere). Zero is the model's axis. By default the bounds are a quarter turn either way.

    Raises:
      DsoError: no such joint, or one without an axis (ball and free joints).
    """

    joint: int = dataclasses.field(init=False)
    frame: np.ndarray = dataclasses.field(init=False, repr=False)  # rows: the axis and the directions of the two tilts

    def __post_init__(self):
        joint = find(self.robot, "joint", self.name)
        kind = int(self.robot.mj.jnt_type[joint])
        if kind in (_FREE, _BALL):
            word = "free" if kind == _FREE else "ball"
            raise DsoError(
                f"{self.robot.source}: joint '{self.name}' is a {word} joint, which has no axis; choose a hinge or slide joint."
            )
        axis = self.robot.mj.jnt_axis[joint]
        one = np.cross(axis, np.eye(3)[np.abs(axis).argmin()])
        one /= np.linalg.norm(one)
        self._set(joint=joint, frame=np.stack([axis, one, np.cross(axis, one)]))
        names = [f"joint/{self.name}/tilt[{i}]" for i in range(2)]
        self._declare(names, ["rad"] * 2, np.zeros(2), (-np.pi / 2, np.pi / 2))

    def apply(self, numbers: Array, fields: Mapping[str, Array]) -> Fields:
        """See `DesignMap.apply`: jnt_axis."""
        xp = numbers.__array_namespace__()
        frame = xp.asarray(self.frame)
        cos, sinc = _cos_sinc((numbers**2).sum(-1))
        tilt = (numbers[..., None] * frame[1:]).sum(-2)
        axis = cos[..., None] * frame[0] + sinc[..., None] * tilt
        return write(self.robot, fields, "jnt_axis", [self.joint], axis[..., None, :])


def _cos_sinc(square: Array) -> tuple[Array, Array]:
    """cos(a) and sin(a)/a as smooth functions of `square` = a² [rad²]."""
    xp = square.__array_namespace__()
    small = square < _SERIES
    angle = xp.sqrt(xp.where(small, 1.0, square))
    cos = 1 - square / 2 * (1 - square / 12 * (1 - square / 30 * (1 - square / 56)))
    sinc = 1 - square / 6 * (1 - square / 20 * (1 - square / 42 * (1 - square / 72)))
    return xp.where(small, cos, xp.cos(angle)), xp.where(small, sinc, xp.sin(angle) / angle)
