"""The motor of an actuator, chosen with its gear from a table of motors.

The place in the table is a number between its rows while a design is searched: every number of the motor is interpolated
between neighbours (`physics.motor.Blend`). The gear is a number between the smallest and the largest ratio. In the end both are
those of one motor and one of its gears.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

import mujoco
import numpy as np

from dso_robotics.errors import DsoError, nearest
from dso_robotics.physics.design.choice import Choice, room
from dso_robotics.physics.design.map import Array, DesignMap, Fields, Load, find, read, write
from dso_robotics.physics.inertia import rotation
from dso_robotics.physics.model import Robot, compile_spec
from dso_robotics.physics.motor import Blend, Motor
from dso_robotics.physics.position_drive import is_position_drive

Drive = Literal["torque", "voltage"]
_SCALAR = (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE))
_ON_JOINT = (int(mujoco.mjtTrn.mjTRN_JOINT), int(mujoco.mjtTrn.mjTRN_JOINTINPARENT))


@dataclasses.dataclass(frozen=True, eq=False)
class MotorChoice(DesignMap):
    """The motor and the gear of an actuator on a hinge or slide.

    A robot whose actuators are ready for it is made by `with_motors`. The actuator's gear is the ratio, its largest force the
    peak torque of the motor, or of a position drive that torque behind the gear. The joint's armature becomes rotor inertia
    times the square of the ratio, in the place of the model's. The motor's mass is a point on the body that carries it.

    motors: what there is to choose from.
    drive: "torque": a control of 1 (the end of its range) is the peak torque at any speed; "voltage": it is the voltage, so
      that the speed-torque line is in the physics. A position drive keeps its own law.
    order: the number by which neighbours are neighbours.
    start: name of the motor that the search begins with; by default the middle one.
    site: where the motor's mass is; by default at the joint, on the body that the joint moves against.

    Raises:
      DsoError: no such actuator or site, an actuator that cannot have a motor, or no motor.
    """

    _: dataclasses.KW_ONLY
    motors: tuple[Motor, ...] = ()
    drive: Drive = "torque"
    order: str = "peak_torque"
    start: str | None = None
    site: str | None = None
    actuator: int = dataclasses.field(init=False)
    joint: int = dataclasses.field(init=False)
    blend: Blend = dataclasses.field(init=False, repr=False)
    ratios: tuple[float, ...] = dataclasses.field(init=False)

    def __post_init__(self):
        actuator = find(self.robot, "actuator", self.name)
        if not self.motors:
            raise DsoError(f"actuator/{self.name}/motor: there is no motor to choose from; name at least one.")
        rows = tuple(sorted(self.motors, key=lambda motor: getattr(motor, self.order)))
        ratios = tuple(sorted({ratio for motor in rows for ratio in motor.gears}))
        self._set(
            motors=rows, actuator=actuator, joint=joint_of(self.robot, actuator), blend=Blend(rows), ratios=ratios
        )
        if self.site is not None and self.site not in self.robot.names("site"):
            known = nearest(self.site, self.robot.names("site")) or "none"
            raise DsoError(f"{self.robot.source}: there is no site called '{self.site}'; it has {known}.")
        names, starts, ends = [], [], []
        if len(rows) > 1:
            first = (len(rows) - 1) / 2 if self.start is None else float(self._row(self.start))
            names, starts, ends = ["motor"], [first], [room(range(len(rows)))]
        if len(ratios) > 1:
            names, starts = [*names, "gear[0]"], [*starts, float(np.sqrt(ratios[0] * ratios[-1]))]
            ends.append(room(ratios))
        if not names:
            none = np.zeros(0)
            self._set(names=(), units=(), initial=none, low=none, high=none)
            return
        self._set(bounds=tuple(map(np.array, zip(*ends, strict=True))))
        self._declare([f"actuator/{self.name}/{name}" for name in names], ["1"] * len(names), starts, (0.0, np.inf))

    def _row(self, name: str) -> int:
        names = [motor.name for motor in self.motors]
        if name not in names:
            raise DsoError(f"actuator/{self.name}/motor: there is no motor '{name}'; there are {nearest(name, names)}.")
        return names.index(name)

    @property
    def choice(self) -> Choice | None:
        """Every motor with every gear that it is offered with."""
        if not self.size:
            return None
        pairs = [(row, ratio) for row, motor in enumerate(self.motors) for ratio in motor.gears]
        kept = [len(self.motors) > 1, len(self.ratios) > 1]
        options = np.array(pairs, float)[:, kept]
        return Choice(self.names, options, tuple(self.label(self.motors[row], ratio) for row, ratio in pairs))

    def label(self, motor: Motor, ratio: float) -> str:
        """What messages call a motor with a gear."""
        return f"{motor.name}, gear {ratio:g}"

    def chosen(self, numbers: np.ndarray) -> tuple[Motor, float]:
        """The motor and the gear nearest to `numbers` (size,)."""
        choice = self.choice
        pairs = [(motor, ratio) for motor in self.motors for ratio in motor.gears]
        return pairs[0] if choice is None else pairs[int(choice.near(np.asarray(numbers))[0])]

    def at(self, numbers: Array) -> dict[str, Array]:
        """The motor's numbers by name, as in `physics.motor.NUMBERS`, and its "gear", (...) each, at `numbers` (..., size)."""
        still = numbers.sum(-1) * 0.0
        found = self.blend(numbers[..., 0] if len(self.motors) > 1 else still)
        return {**found, "gear": numbers[..., -1] if len(self.ratios) > 1 else still + min(self.ratios)}

    def unknown(self, name: str) -> str | None:
        """A motor of which the table does not say the number `name`; None if it says it of all."""
        return next((motor.name for motor in self.motors if np.isnan(getattr(motor, name))), None)

    def apply(self, numbers: Array, fields: Mapping[str, Array]) -> Fields:
        """See `DesignMap.apply`: actuator_gear, gainprm, biasprm and forcerange, and dof_armature."""
        model, i, own = self.robot.mj, self.actuator, self.at(numbers)
        xp, gear = numbers.__array_namespace__(), own["gear"]
        turned = (own["rotor_inertia"] * gear**2)[..., None]
        out = write(self.robot, fields, "dof_armature", [int(model.jnt_dofadr[self.joint])], turned)
        if is_position_drive(model, i):
            force = own["peak_torque"] * gear / abs(float(model.actuator_gear[i, 0]))
            return write(self.robot, out, "actuator_forcerange", [i], xp.stack([-force, force], -1)[..., None, :])

        def first(name: str, place: int, value: Array) -> Fields:
            """`out` with one number of the actuator's row of a field."""
            one = xp.asarray(np.eye(np.shape(getattr(model, name))[1])[place])
            row = read(self.robot, out, name, numbers)[..., [i], :]
            return write(self.robot, out, name, [i], row * (1 - one) + value[..., None, None] * one)

        top = float(model.actuator_ctrlrange[i, 1])
        out = first("actuator_gear", 0, gear)
        if self.drive == "torque":
            return first("actuator_gainprm", 0, own["peak_torque"] / top)
        out = first("actuator_gainprm", 0, own["stall_torque"] / top)
        out = first("actuator_biasprm", 2, -own["stall_torque"] / own["no_load_speed"])
        force = own["peak_torque"]
        return write(self.robot, out, "actuator_forcerange", [i], xp.stack([-force, force], -1)[..., None, :])

    def loads(self, numbers: Array, fields: Mapping[str, Array]) -> tuple[Load, ...]:
        """See `DesignMap.loads`: the motor's mass."""
        robot, model = self.robot, self.robot.mj
        mass = self.at(numbers)["mass"]
        if self.site is not None:
            site = robot.names("site").index(self.site)
            body, place = int(model.site_bodyid[site]), read(robot, fields, "site_pos", numbers)[..., site, :]
        else:
            child = int(model.jnt_bodyid[self.joint])
            body = int(model.body_parentid[child])
            anchor = read(robot, fields, "jnt_pos", numbers)[..., self.joint, :]
            turn = rotation(read(robot, fields, "body_quat", numbers)[..., child, :])
            place = read(robot, fields, "body_pos", numbers)[..., child, :] + (turn * anchor[..., None, :]).sum(-1)
        # The world does not move.
        return () if int(model.body_weldid[body]) == 0 else (Load(body, mass, place),)


def joint_of(robot: Robot, actuator: int) -> int:
    """The joint of an actuator that can have a motor.

    Raises:
      DsoError: it drives no hinge or slide, has activations, or its law is neither a motor's nor a position drive's.
    """
    model, i = robot.mj, actuator
    joint = int(model.actuator_trnid[i, 0])
    on_joint = int(model.actuator_trntype[i]) in _ON_JOINT and int(model.jnt_type[joint]) in _SCALAR
    plain = (
        int(model.actuator_dyntype[i]) == int(mujoco.mjtDyn.mjDYN_NONE)
        and int(model.actuator_gaintype[i]) == int(mujoco.mjtGain.mjGAIN_FIXED)
        and int(model.actuator_biastype[i]) in (int(mujoco.mjtBias.mjBIAS_NONE), int(mujoco.mjtBias.mjBIAS_AFFINE))
    )
    if not (on_joint and plain):
        raise DsoError(
            f"{robot.source}: actuator '{model.actuator(i).name or i}' cannot have a motor of a table: only motors and "
            "position drives on hinges and slides can; write a <motor> or a <position> into the model."
        )
    return joint


def with_motors(robot: Robot, drives: Mapping[str, Drive]) -> Robot:
    """`robot` whose actuators are ready for `MotorChoice`: by name, with the drive that each shall have.

    Raises:
      DsoError: no such actuator, one that cannot have a motor, two on one joint, or a motor whose control has no range that is
        the same to both sides.
    """
    if robot.spec is None:
        raise DsoError(f"{robot.source}: a compiled MjModel cannot be changed; load the XML file.")
    model, spec, joints = robot.mj, robot.spec.copy(), {}
    for name, drive in drives.items():
        i = find(robot, "actuator", name)
        joint, actuator = joint_of(robot, i), spec.actuators[i]
        if joint in joints:
            raise DsoError(
                f"{robot.source}: the actuators '{joints[joint]}' and '{name}' drive the same joint, and its armature is of "
                "one motor; leave one of them as it is."
            )
        joints[joint] = name
        if is_position_drive(model, i):
            actuator.forcelimited = True
            if not model.actuator_forcelimited[i]:
                actuator.forcerange = [-1.0, 1.0]
            continue
        low, high = map(float, model.actuator_ctrlrange[i])
        if int(model.actuator_biastype[i]) == int(mujoco.mjtBias.mjBIAS_AFFINE) and np.any(
            model.actuator_biasprm[i, :3]
        ):
            raise DsoError(
                f"{robot.source}: actuator '{name}' has a law of its own (biasprm), which is neither that of a motor nor that "
                "of a position drive; write a <motor> or a <position> into the model."
            )
        if not (model.actuator_ctrllimited[i] and high > 0 and abs(low + high) <= 1e-9 * high):
            raise DsoError(
                f"{robot.source}: the control of actuator '{name}' is to have a range that is the same to both sides, whose "
                'end is the motor\'s peak; write ctrlrange="-1 1" in it.'
            )
        voltage = drive == "voltage"
        actuator.biastype = mujoco.mjtBias.mjBIAS_AFFINE if voltage else mujoco.mjtBias.mjBIAS_NONE
        actuator.gear = [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
        actuator.forcelimited = voltage
        if voltage:
            actuator.forcerange = [-1.0, 1.0]
    return dataclasses.replace(robot, mj=compile_spec(spec, robot.source), spec=spec)


def limited_to(motors: Sequence[Motor], gears: Sequence[float]) -> tuple[Motor, ...]:
    """The motors with `gears` in the place of their own, if there are any."""
    own = tuple(sorted(set(map(float, gears))))
    return tuple(dataclasses.replace(motor, gears=own) if own else motor for motor in motors)
