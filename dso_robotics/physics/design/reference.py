"""The reference posture of a redesigned model: closed loops stay closed there, and automatic tendons are at rest there.

MuJoCo's compiler reads the reference posture, qpos0, in which bodies are where their `pos` and `quat` put them: the second
anchor of a connect and the rest length of a tendon come from it. So, where a limb of a loop changes, bodies are turned to the
closed posture, and qpos0 (MJCF: `ref`) says at which joint angles that is. What a joint angle means does not change.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from dso_robotics.errors import DsoError
from dso_robotics.physics import loop, posture
from dso_robotics.physics.design.map import Array, Fields, read, write
from dso_robotics.physics.inertia import rotation, turned
from dso_robotics.physics.loop import Loops, OpenLoopError
from dso_robotics.physics.model import Robot
from dso_robotics.physics.posture import Pose, along, times, unit
from dso_robotics.physics.tie import JOINT, Tie

# Fields whose change may open a loop.
MOVING = ("body_pos", "body_quat", "site_pos", "site_quat", "jnt_pos", "jnt_axis", "eq_data")
# [m, rad]; less is rounding.
_SAME = 1e-12


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """Closes `loops` at the reference posture by moving `dofs`.

    relaxed: entries of qpos whose spring does not push, and whose reference for tendons is the one of qpos0.
    """

    robot: Robot
    loops: Loops
    dofs: tuple[int, ...]
    relaxed: np.ndarray

    def __call__(self, numbers: Array, fields: Mapping[str, Array], told: Any) -> Fields:
        """`fields` with a closed reference posture.

        `told` is a function from a row's index to a name of the design, for messages. NumPy only: with JAX, an open loop
        gives NaN.

        Raises:
          OpenLoopError: no posture closes the loops.
        """
        robot = self.robot
        here, qpos, shut = self.posture(numbers, fields)
        xp = numbers.__array_namespace__()
        if xp is np:
            if not shut.all():
                gap = np.nan_to_num(self.loops.gap(here, qpos), nan=np.inf)
                raise OpenLoopError(
                    f"{robot.source}: {told(int(np.argmax(gap)))} no posture closes the loop of {self.loops.names}: "
                    f"{1e3 * float(np.max(gap)):.3g} mm (or mrad) stay open. Narrow the bounds of the design's numbers so that "
                    "the links reach each other."
                )
        else:
            qpos = xp.where(shut[..., None], qpos, np.nan)
        return self._moved_to(dict(fields), here, qpos)

    def posture(self, numbers: Array, fields: Mapping[str, Array]) -> tuple[Fields, Array, Array]:
        """The fields that loops depend on, the posture (..., nq) that closes them best, and whether (...) it does."""
        here = {name: read(self.robot, fields, name, numbers) for name in loop.FIELDS}
        return here, *self.loops.closed(here, here["qpos0"], self.dofs)

    def _moved_to(self, out: Fields, here: Mapping[str, Array], qpos: Array) -> Fields:
        """Bodies at the poses of `qpos`, which becomes the reference posture."""
        robot, model = self.robot, self.robot.mj
        xp = qpos.__array_namespace__()
        for body in sorted({int(model.dof_bodyid[dof]) for dof in self.dofs}):
            own = list(posture.joints(model, body))
            first = int(model.jnt_qposadr[own[0]])
            if int(model.jnt_type[own[0]]) == posture.FREE:
                place, quat = qpos[..., first : first + 3], unit(qpos[..., first + 3 : first + 7])
            else:
                place, quat, out = self._pose(body, own, out, here, qpos)
            out = write(robot, out, "body_pos", [body], place[..., None, :])
            out = write(robot, out, "body_quat", [body], quat[..., None, :])
        balls = np.isin(np.arange(model.nq), self._balls())  # their reference is zero, always
        reference = xp.where(balls, here["qpos0"], qpos) if balls.any() else qpos
        if self.relaxed.any():
            out["qpos_spring"] = xp.where(self.relaxed, reference, read(robot, out, "qpos_spring", qpos))
        out["qpos0"] = reference
        for tie in self.loops.ties:
            if tie.kind == JOINT:
                out = write(robot, out, "eq_data", [tie.index], self._coupling(tie, here, reference)[..., None, :])
        return out

    def _balls(self) -> list[int]:
        """Entries of qpos of balls."""
        model = self.robot.mj
        balls = model.jnt_qposadr[model.jnt_type == posture.BALL]
        return [int(q) + k for q in balls for k in range(4)]

    def _pose(
        self, body: int, own: list[int], out: Fields, here: Mapping[str, Array], qpos: Array
    ) -> tuple[Array, Array, Fields]:
        """Place and quaternion of `body` in its parent at `qpos`, and the fields with its joints in the new frame.

        The joints but the last are seen from a frame that the later ones have turned.
        """
        robot, model, xp = self.robot, self.robot.mj, qpos.__array_namespace__()
        move = posture.moves(model, here, qpos, own)
        later, quat = Pose(xp.asarray(np.zeros(3)), xp.asarray(np.eye(3))), xp.asarray(np.array([1.0, 0.0, 0.0, 0.0]))
        for joint in reversed(own):
            if joint != own[-1]:
                back = xp.swapaxes(later.turn, -1, -2)
                axis = along(back, here["jnt_axis"][..., joint, :])
                centre = along(back, here["jnt_pos"][..., joint, :] - later.place)
                out = write(robot, out, "jnt_axis", [joint], axis[..., None, :])
                out = write(robot, out, "jnt_pos", [joint], centre[..., None, :])
            later = Pose(move[joint].point(later.place), move[joint].turn @ later.turn)
            quat = times(self._turn(joint, here, qpos), quat)
        before = unit(here["body_quat"][..., body, :])
        place = here["body_pos"][..., body, :] + along(rotation(before), later.place)
        return place, times(*xp.broadcast_arrays(before, quat)), out

    def _turn(self, joint: int, here: Mapping[str, Array], qpos: Array) -> Array:
        """The quaternion (..., 4) by which a joint turns its body."""
        model, xp = self.robot.mj, qpos.__array_namespace__()
        kind, q = int(model.jnt_type[joint]), int(model.jnt_qposadr[joint])
        if kind == posture.BALL:
            return unit(qpos[..., q : q + 4])
        still = xp.asarray(np.array([1.0, 0.0, 0.0, 0.0]))
        if kind == posture.SLIDE:
            return still
        away = (qpos[..., q] - here["qpos0"][..., q])[..., None]
        return turned(still, here["jnt_axis"][..., joint, :] * away)

    def _coupling(self, tie: Tie, here: Mapping[str, Array], reference: Array) -> Array:
        """The data of a joint equality, whose polynomial counts from the reference posture, about the new one."""
        model, xp = self.robot.mj, reference.__array_namespace__()
        data = here["eq_data"][..., tie.index, :]
        away = reference - here["qpos0"]
        first = away[..., int(model.jnt_qposadr[tie.one])]
        x = away[..., int(model.jnt_qposadr[tie.two])] if tie.two >= 0 else 0.0 * first
        power = [sum(math.comb(n, k) * data[..., n] * x ** (n - k) for n in range(k, 5)) for k in range(5)]
        power[0] = power[0] - first
        return xp.concatenate(
            [
                xp.stack(xp.broadcast_arrays(*power), -1),
                xp.broadcast_to(data[..., 5:], (*power[0].shape, data.shape[-1] - 5)),
            ],
            -1,
        )


def reference(robot: Robot, moving: Any, fields: Mapping[str, np.ndarray]) -> Reference | None:
    """What closes the loops of `robot` where a design opens them; None if it opens none.

    moving: function of no arguments that gives the fields of some other designs, one after the other.
    fields: those at the design's initial numbers.

    Raises:
      DsoError: a ball joint that would have to give way has a spring or a limit, whose meaning would change.
    """
    model = robot.mj
    found = loop.loops(model)
    if found is None or not set(MOVING) & set(fields):
        return None
    nominal = loop.model_fields(model)
    start = np.array(model.qpos0)
    opened = max(float(found.gap(nominal | {k: v for k, v in f.items() if k in nominal}, start)) for f in moving())
    if max(opened, float(found.gap(nominal, start))) <= _SAME:
        return None
    every = set(range(model.nv))
    pushed = loop.driven(model, start)
    groups = (every - pushed, pushed)
    dofs = found.giving(nominal, start, groups)
    for dof in dofs:
        joint = int(model.dof_jntid[dof])
        if int(model.jnt_type[joint]) == posture.BALL and (model.jnt_limited[joint] or model.jnt_stiffness[joint]):
            raise DsoError(
                f"{robot.source}: the loop of {found.names} is closed by the ball joint '{model.joint(joint).name or joint}', "
                "whose spring or limit counts from the reference posture, which would turn with the design; remove the "
                "spring or limit, or use hinges."
            )
    slack = np.zeros(model.nq, bool)
    for joint in range(model.njnt):
        q = int(model.jnt_qposadr[joint])
        if int(model.jnt_type[joint]) in (posture.HINGE, posture.SLIDE) and not model.jnt_stiffness[joint]:
            slack[q] = model.qpos_spring[q] == model.qpos0[q]
        elif int(model.jnt_type[joint]) == posture.FREE:
            slack[q : q + 7] = True  # its reference is the pose of its body
    own = np.isin(np.arange(model.nq), found.places(dofs))
    return Reference(robot, found, dofs, slack & own)
