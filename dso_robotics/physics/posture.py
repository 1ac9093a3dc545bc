"""Poses of some bodies as a function of model fields and qpos, with NumPy or JAX: the kinematics of MuJoCo.

Functions broadcast over leading axes of the fields and of qpos. What can be is computed for all joints at once, so that little
is left for JAX to compile.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import mujoco
import numpy as np

from dso_robotics.physics.inertia import rotation

Array = Any  # a NumPy or a JAX array

FREE, BALL, SLIDE, HINGE = (
    int(getattr(mujoco.mjtJoint, f"mjJNT_{name}")) for name in ("FREE", "BALL", "SLIDE", "HINGE")
)
# What the poses depend on.
FIELDS = ("body_pos", "body_quat", "jnt_pos", "jnt_axis", "qpos0")
# (3, 3, 3): contracted with a vector, the matrix of the cross product with it.
_CROSS = np.array(
    [[[0, 0, 0], [0, 0, -1], [0, 1, 0]], [[0, 0, 1], [0, 0, 0], [-1, 0, 0]], [[0, -1, 0], [1, 0, 0], [0, 0, 0]]], float
)


def times(one: Array, two: Array) -> Array:
    """Product of quaternions (..., 4)."""
    xp = one.__array_namespace__()
    a, b, c, d = (one[..., i] for i in range(4))
    w, x, y, z = (two[..., i] for i in range(4))
    parts = (
        a * w - b * x - c * y - d * z,
        a * x + b * w + c * z - d * y,
        a * y - b * z + c * w + d * x,
        a * z + b * y - c * x + d * w,
    )
    return xp.stack(parts, -1)


def unit(vector: Array) -> Array:
    """`vector` (..., k) with length one."""
    return vector / vector.__array_namespace__().sqrt((vector**2).sum(-1))[..., None]


def along(matrix: Array, vector: Array) -> Array:
    """`matrix` (..., 3, 3) times `vector` (..., 3)."""
    return (matrix @ vector[..., None])[..., 0]


def turning(axis: Array, angle: Array) -> Array:
    """Rotation matrices (..., 3, 3) about unit vectors (..., 3) by angles (...) [rad]."""
    xp = axis.__array_namespace__()
    cross = xp.tensordot(axis, xp.asarray(_CROSS), 1)
    angle = angle[..., None, None]
    return xp.asarray(np.eye(3)) + xp.sin(angle) * cross + (1 - xp.cos(angle)) * (cross @ cross)


@dataclasses.dataclass(frozen=True, eq=False)
class Pose:
    """A frame in the world: place [m] (..., 3) and rotation matrix (..., 3, 3)."""

    place: Array
    turn: Array

    def point(self, local: Array) -> Array:
        """A point of the frame [m] (..., 3) in the world."""
        return self.place + along(self.turn, local)


@dataclasses.dataclass(frozen=True, eq=False)
class Postures:
    """Poses of bodies, and how their degrees of freedom move them.

    pose: by body id.
    axis: world direction (..., 3) of each degree of freedom.
    centre: a point of the axis [m] (..., 3); None where the degree of freedom translates.
    """

    pose: dict[int, Pose]
    axis: dict[int, Array]
    centre: dict[int, Array | None]


def ancestors(model: mujoco.MjModel, body: int) -> list[int]:
    """`body` and what it hangs on, without the world, the root first."""
    found: list[int] = []
    while body:
        found.insert(0, body)
        body = int(model.body_parentid[body])
    return found


def joints(model: mujoco.MjModel, body: int) -> range:
    """Ids of the joints of `body`."""
    first = int(model.body_jntadr[body])
    return range(first, first + int(model.body_jntnum[body]))


def moves(model: mujoco.MjModel, fields: Mapping[str, Array], qpos: Array, chosen: list[int]) -> dict[int, Pose]:
    """What hinges, slides and balls do to their bodies, in the bodies' own frames, at `qpos` (..., nq)."""
    chosen = [joint for joint in chosen if int(model.jnt_type[joint]) != FREE]
    if not chosen:
        return {}
    kind, places = model.jnt_type[chosen], model.jnt_qposadr[chosen]
    axis, centre = (fields[name][..., np.array(chosen), :] for name in ("jnt_axis", "jnt_pos"))
    away = qpos[..., places] - fields["qpos0"][..., places]
    turn = turning(axis, away * (kind == HINGE))
    shift = axis * (away * (kind == SLIDE))[..., None] + (centre - along(turn, centre)) * (kind == HINGE)[:, None]
    found = {}
    for k, joint in enumerate(chosen):
        if int(kind[k]) == BALL:
            first = int(places[k])
            ball = rotation(unit(qpos[..., first : first + 4]))
            found[joint] = Pose(centre[..., k, :] - along(ball, centre[..., k, :]), ball)
        else:
            found[joint] = Pose(shift[..., k, :], turn[..., k, :, :])
    return found


def postures(model: mujoco.MjModel, fields: Mapping[str, Array], qpos: Array, bodies: Iterable[int]) -> Postures:
    """Poses of `bodies` and of what they hang on, at `qpos` (..., nq). `fields` has all of `FIELDS`."""
    xp = qpos.__array_namespace__()
    order = sorted({b for one in bodies for b in ancestors(model, one)})
    found = Postures({0: Pose(xp.asarray(np.zeros(3)), xp.asarray(np.eye(3)))}, {}, {})
    if not order:
        return found
    base = rotation(unit(fields["body_quat"][..., np.array(order), :]))
    move = moves(model, fields, qpos, [joint for body in order for joint in joints(model, body)])
    for k, body in enumerate(order):
        on = found.pose[int(model.body_parentid[body])]
        own = Pose(on.point(fields["body_pos"][..., body, :]), on.turn @ base[..., k, :, :])
        for joint in joints(model, body):
            kind, q, v = (int(getattr(model, f"jnt_{name}")[joint]) for name in ("type", "qposadr", "dofadr"))
            if kind == FREE:
                own = Pose(qpos[..., q : q + 3], rotation(unit(qpos[..., q + 3 : q + 7])))
                for i in range(3):
                    found.axis[v + i], found.centre[v + i] = xp.asarray(np.eye(3)[i]), None
                    found.axis[v + 3 + i], found.centre[v + 3 + i] = own.turn[..., :, i], own.place
                continue
            centre = own.point(fields["jnt_pos"][..., joint, :])
            after = Pose(own.point(move[joint].place), own.turn @ move[joint].turn)
            if kind == BALL:
                for i in range(3):
                    found.axis[v + i], found.centre[v + i] = after.turn[..., :, i], centre
            else:
                found.axis[v] = along(own.turn, fields["jnt_axis"][..., joint, :])
                found.centre[v] = None if kind == SLIDE else centre
            own = after
        found.pose[body] = own
    return found
