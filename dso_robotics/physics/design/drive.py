"""Design maps of a joint's spring and of an actuator's gear."""

import dataclasses
from collections.abc import Mapping

import mujoco
import numpy as np

from dso_robotics.errors import DsoError
from dso_robotics.physics.design.map import DESIGN_MAPS, Array, DesignMap, Fields, find, read, write

_SLIDE, _HINGE = int(mujoco.mjtJoint.mjJNT_SLIDE), int(mujoco.mjtJoint.mjJNT_HINGE)


@dataclasses.dataclass(frozen=True, eq=False)
class _Spring(DesignMap):
    """A hinge or slide joint's spring."""

    joint: int = dataclasses.field(init=False)

    def __post_init__(self):
        joint = find(self.robot, "joint", self.name)
        if int(self.robot.mj.jnt_type[joint]) not in (_HINGE, _SLIDE):
            raise DsoError(
                f"{self.robot.source}: joint '{self.name}' is a ball or free joint; only springs of hinge and slide joints are "
                "design numbers."
            )
        self._set(joint=joint)

    def _unit(self, rotary: str, linear: str) -> str:
        return rotary if int(self.robot.mj.jnt_type[self.joint]) == _HINGE else linear


@DESIGN_MAPS.register("stiffness")
@dataclasses.dataclass(frozen=True, eq=False)
class SpringStiffness(_Spring):
    """Stiffness [N*m/rad or N/m] of a hinge or slide joint's spring; not negative by default.

    Raises:
      DsoError: no such joint, or a ball or free joint.
    """

    def __post_init__(self):
        super().__post_init__()
        unit, initial = self._unit("N*m/rad", "N/m"), self.robot.mj.jnt_stiffness[self.joint]
        self._declare([f"joint/{self.name}/stiffness"], [unit], initial, (0.0, np.inf))

    def apply(self, numbers: Array, fields: Mapping[str, Array]) -> Fields:
        """See `DesignMap.apply`: jnt_stiffness."""
        return write(self.robot, fields, "jnt_stiffness", [self.joint], numbers)


@DESIGN_MAPS.register("springref")
@dataclasses.dataclass(frozen=True, eq=False)
class SpringReference(_Spring):
    """Position [rad or m] at which the spring of a hinge or slide joint is at rest. Unbounded.

    Raises:
      DsoError: no such joint, or a ball or free joint.
    """

    def __post_init__(self):
        super().__post_init__()
        model = self.robot.mj
        unit, initial = self._unit("rad", "m"), model.qpos_spring[model.jnt_qposadr[self.joint]]
        self._declare([f"joint/{self.name}/springref"], [unit], initial, (-np.inf, np.inf))

    def apply(self, numbers: Array, fields: Mapping[str, Array]) -> Fields:
        """See `DesignMap.apply`: qpos_spring."""
        return write(self.robot, fields, "qpos_spring", [self.robot.mj.jnt_qposadr[self.joint]], numbers)


@DESIGN_MAPS.register("gear")
@dataclasses.dataclass(frozen=True, eq=False)
class Gear(DesignMap):
    """One component of an actuator's gear [1], by default the first. Unbounded.

    Raises:
      DsoError: no such actuator, or no such component.
    """

    component: int = 0
    actuator: int = dataclasses.field(init=False)

    def __post_init__(self):
        actuator = find(self.robot, "actuator", self.name)
        if self.component not in range(6):
            raise DsoError(
                f"actuator/{self.name}/gear: component {self.component} does not exist; a gear has six, 0 to 5."
            )
        self._set(actuator=actuator)
        initial = self.robot.mj.actuator_gear[actuator, self.component]
        self._declare([f"actuator/{self.name}/gear[{self.component}]"], ["1"], initial, (-np.inf, np.inf))

    def apply(self, numbers: Array, fields: Mapping[str, Array]) -> Fields:
        """See `DesignMap.apply`: actuator_gear."""
        xp = numbers.__array_namespace__()
        gear = read(self.robot, fields, "actuator_gear", numbers)[..., [self.actuator], :]
        one = xp.asarray(np.eye(6)[self.component])
        return write(self.robot, fields, "actuator_gear", [self.actuator], gear * (1 - one) + numbers[..., None] * one)
