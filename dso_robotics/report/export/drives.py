"""The actuators of a result as drives of joints: what simulators for training write about one."""

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

import mujoco
import numpy as np

from dso_robotics.errors import DsoError
from dso_robotics.report.export.finished import Finished
from dso_robotics.report.export.identified import identified, unsure
from dso_robotics.report.quantity import listed

POSITION, VELOCITY, FORCE = "position", "velocity", "force"
_HINGE, _SLIDE = int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE)
_OF_JOINT = int(mujoco.mjtTrn.mjTRN_JOINT)
_FIXED, _AFFINE = int(mujoco.mjtGain.mjGAIN_FIXED), int(mujoco.mjtBias.mjBIAS_AFFINE)
_NO_BIAS, _NO_DYNAMICS = int(mujoco.mjtBias.mjBIAS_NONE), int(mujoco.mjtDyn.mjDYN_NONE)
_TINY = 1e-12


@dataclasses.dataclass(frozen=True)
class Number:
    """A number of a drive, and whether the run identified it."""

    value: float
    identified: bool

    def __str__(self) -> str:
        return repr(float(f"{self.value:.12g}"))


@dataclasses.dataclass(frozen=True)
class Drive:
    """An actuator of one joint, all numbers at the joint, after the gear.

    control: what it is told: POSITION or VELOCITY of the joint, or FORCE.
    stiffness: force over the error of the position [N/rad*m, N/m]; damping: over the error of the velocity.
    effort: its largest force in both directions [N*m, N]; None if the model states none.
    armature, friction, viscous: of the joint itself [kg*m^2, kg; N*m, N; N*m*s/rad, N*s/m].
    lag: age of the control that acts [s].
    """

    name: str
    joint: str
    control: str
    stiffness: Number
    damping: Number
    effort: Number | None
    armature: Number
    friction: Number
    viscous: Number
    lag: Number

    @property
    def pattern(self) -> str:
        """A regular expression of the joint's name alone."""
        return re.escape(self.joint)


def read_drives(result: Finished) -> tuple[list[Drive], list[str]]:
    """The drives of model.xml, and sentences on what of it is none.

    Raises:
      DsoError: no actuator is one.
    """
    reader = _Reader(result)
    drives = [drive for i in range(reader.model.nu) if (drive := reader.drive(i)) is not None]
    notes = [f"Left out: {'; '.join(reader.refused)}."] if reader.refused else []
    if not drives:
        raise DsoError(
            f"{result.folder}: no actuator of this model drives a joint by position, velocity or force. {' '.join(notes)}"
        )
    joints = [drive.joint for drive in drives]
    if several := sorted({joint for joint in joints if joints.count(joint) > 1}):
        notes.append(f"Several actuators drive {listed(several, 8)}; the other program may allow one for each joint.")
    return drives, [*notes, *reader.left(set(joints)), *unsure(result)]


class _Reader:
    def __init__(self, result: Finished):
        self.model = result.robot.mj
        self._joints, self._actuators = result.robot.names("joint"), result.robot.names("actuator")
        self._identified = identified(result)
        self._places = {(place.field, place.row, place.column) for place in self._identified}
        self._told: set[str] = set()
        self.refused: list[str] = []

    def drive(self, i: int) -> Drive | None:
        """Actuator `i`, or None with a reason in `refused`."""
        m = self.model
        reason = self._reason(i)
        if reason:
            self.refused.append(f"{self._actuators[i] or f'actuator {i}'} ({reason})")
            return None
        joint = int(m.actuator_trnid[i, 0])
        gear, bias = float(m.actuator_gear[i, 0]), m.actuator_biasprm[i]
        servo = int(m.actuator_biastype[i]) == _AFFINE
        control = POSITION if servo and bias[1] else VELOCITY if servo and bias[2] else FORCE
        geared = ("actuator_gear", i, 0)
        dof = int(m.jnt_dofadr[joint])
        return Drive(
            name=self._actuators[i] or self._joints[joint],
            joint=self._joints[joint],
            control=control,
            stiffness=self._number(-bias[1] * gear**2 if servo else 0.0, ("actuator_biasprm", i, 1), geared),
            damping=self._number(-bias[2] * gear**2 if servo else 0.0, ("actuator_biasprm", i, 2), geared),
            effort=self._effort(i, joint, gear, control),
            armature=self._number(m.dof_armature[dof], ("dof_armature", dof, 0)),
            friction=self._number(m.dof_frictionloss[dof], ("dof_frictionloss", dof, 0)),
            viscous=self._number(m.dof_damping[dof], ("dof_damping", dof, 0)),
            lag=self._number(m.actuator_delay[i], ("actuator_delay", i, 0)),
        )

    def left(self, driven: set[str]) -> Iterator[str]:
        """Sentences on identified numbers that no drive has, and on what else drives do not have."""
        m = self.model
        fields = {"actuator_biasprm", "actuator_gear", "actuator_gainprm", "actuator_forcerange", "actuator_ctrlrange"}
        fields |= {"dof_armature", "dof_frictionloss", "dof_damping", "jnt_actfrcrange", "actuator_delay"}
        rest = dict.fromkeys(p.path for p in self._identified if p.field not in fields or not self._of(p, driven))
        if rest:
            yield f"In model.xml alone, not in this file: {listed([*rest], 12)}."
        odd = {self._joints[j] for d, j in enumerate(m.dof_jntid) if np.any(m.dof_dampingpoly[d])}
        odd |= {self._joints[j] for j in range(m.njnt) if m.jnt_stiffness[j]}
        if shown := sorted(odd & driven):
            yield f"The springs, and drag that is not linear, of {listed(shown, 8)} are in model.xml alone."

    def _of(self, place: Any, driven: set[str]) -> bool:
        if place.field.startswith("actuator"):
            return not any(text.startswith(f"{self._actuators[place.row]} (") for text in self.refused)
        joint = self.model.dof_jntid[place.row] if place.field.startswith("dof") else place.row
        return self._joints[int(joint)] in driven

    def _number(self, value: float, *places: tuple[str, int, int]) -> Number:
        return Number(float(value) + 0.0, any(place in self._places for place in places))

    def _effort(self, i: int, joint: int, gear: float, control: str) -> Number | None:
        """The least of the limits of the actuator, of its control and of the joint."""
        m, found = self.model, list[Number]()

        def both(field: str, row: int) -> tuple[tuple[str, int, int], ...]:
            return (field, row, 0), (field, row, 1)

        if m.actuator_forcelimited[i]:
            high = float(np.abs(m.actuator_forcerange[i]).min()) * abs(gear)
            found.append(self._number(high, *both("actuator_forcerange", i), ("actuator_gear", i, 0)))
        if control == FORCE and m.actuator_ctrllimited[i]:
            high = float(np.abs(m.actuator_ctrlrange[i]).max()) * abs(gear * float(m.actuator_gainprm[i, 0]))
            gains = ("actuator_gear", i, 0), ("actuator_gainprm", i, 0)
            found.append(self._number(high, *gains, *both("actuator_ctrlrange", i)))
        if m.jnt_actfrclimited[joint]:
            found.append(self._number(float(np.abs(m.jnt_actfrcrange[joint]).min()), *both("jnt_actfrcrange", joint)))
        return min(found, key=lambda number: number.value) if found else None

    def _reason(self, i: int) -> str:
        """Why an actuator is no drive; empty if it is one."""
        m = self.model
        gain, bias = m.actuator_gainprm[i], m.actuator_biasprm[i]
        if int(m.actuator_trntype[i]) != _OF_JOINT:
            return "it drives no joint"
        joint = int(m.actuator_trnid[i, 0])
        if int(m.jnt_type[joint]) not in (_HINGE, _SLIDE) or not self._joints[joint]:
            return "its joint has no name" if not self._joints[joint] else "its joint is no hinge or slide"
        if int(m.actuator_gaintype[i]) != _FIXED or int(m.actuator_biastype[i]) not in (_NO_BIAS, _AFFINE):
            return "its force is no fixed gain with a linear feedback"
        if int(m.actuator_dyntype[i]) != _NO_DYNAMICS:
            return "it has a state of its own, such as a filter"
        if int(m.actuator_biastype[i]) == _AFFINE and (bias[0] or bias[1] > 0 or bias[2] > 0):
            return "it has a constant force, or a feedback that drives away"
        if not gain[0]:
            return "its control does nothing"
        if m.actuator_forcelimited[i] and abs(sum(m.actuator_forcerange[i])) > _TINY:
            return "its force has other limits in the two directions"
        return ""
