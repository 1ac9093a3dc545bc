"""What is fixed to a body and moves when it changes shape: geoms, sites, cameras, lights, joints, anchors, child bodies."""

from collections.abc import Callable, Mapping
from typing import Any

import mujoco
import numpy as np

from dso_robotics.errors import DsoError
from dso_robotics.physics.design.map import Array, Fields, read, write
from dso_robotics.physics.geometry import SOLIDS
from dso_robotics.physics.inertia import rotation
from dso_robotics.physics.model import Robot

# Fields of positions in the body frame, and the field with the body id.
_PLACES = {
    "geom_pos": "geom_bodyid",
    "site_pos": "site_bodyid",
    "cam_pos": "cam_bodyid",
    "light_pos": "light_bodyid",
}


# Equality constraints of bodies -> where the anchor on their first and second body begins in their data.
_ANCHORS = {int(mujoco.mjtEq.mjEQ_CONNECT): (0, 3), int(mujoco.mjtEq.mjEQ_WELD): (3, 0)}
_BODY = int(mujoco.mjtObj.mjOBJ_BODY)


def geoms(model: mujoco.MjModel, body: int) -> np.ndarray:
    """Ids of the geoms of `body`."""
    return np.flatnonzero(model.geom_bodyid == body)


def children(model: mujoco.MjModel, body: int) -> np.ndarray:
    """Ids of the direct children of `body`."""
    return np.flatnonzero((model.body_parentid == body) & (np.arange(model.nbody) != 0))


def subtree(model: mujoco.MjModel, body: int) -> list[int]:
    """`body` and all its descendants."""
    found = [body]
    for i in range(body + 1, model.nbody):
        if int(model.body_parentid[i]) in found:
            found.append(i)
    return found


def joints(model: mujoco.MjModel, body: int) -> np.ndarray:
    """Ids of the joints of `body` that have a position. A free joint has none: it is at the body's origin."""
    own = model.jnt_bodyid == body
    return np.flatnonzero(own & (model.jnt_type != int(mujoco.mjtJoint.mjJNT_FREE)))


def anchor(robot: Robot, fields: Mapping[str, Array], body: int, like: Array) -> Array:
    """Where `body` is attached to its parent [m] (..., 3), in its own frame: its first joint, or its origin."""
    first = joints(robot.mj, body)[:1]
    if len(first):
        return read(robot, fields, "jnt_pos", like)[..., first[0], :]
    return like.__array_namespace__().asarray(np.zeros(3))


def anchors(model: mujoco.MjModel, body: int) -> list[tuple[int, int]]:
    """The connects and welds of `body`: row of eq_data, and the first of the three numbers of the anchor on this body."""
    found = []
    for row in range(model.neq):
        kind, ends = int(model.eq_type[row]), (int(model.eq_obj1id[row]), int(model.eq_obj2id[row]))
        if kind in _ANCHORS and int(model.eq_objtype[row]) == _BODY:
            found += [(row, _ANCHORS[kind][side]) for side in (0, 1) if ends[side] == body]
    return found


def pins(robot: Robot, body: int) -> np.ndarray:
    """Where connects and welds hold `body` [m] (k, 3), in its frame, in the unchanged model."""
    model = robot.mj
    points = [model.eq_data[row, first : first + 3] for row, first in anchors(model, body)]
    for row in range(model.neq):
        if int(model.eq_type[row]) in _ANCHORS and int(model.eq_objtype[row]) != _BODY:
            sites = (int(model.eq_obj1id[row]), int(model.eq_obj2id[row]))
            points += [model.site_pos[site] for site in sites if model.site_bodyid[site] == body]
    return np.array(points, float).reshape(-1, 3)


def attachments(robot: Robot, fields: Mapping[str, Array], body: int, like: Array) -> Array:
    """Where the children of `body` are attached to it [m] (..., children, 3), in its frame."""
    xp, rows = like.__array_namespace__(), children(robot.mj, body)
    place, quat = (read(robot, fields, name, like)[..., rows, :] for name in ("body_pos", "body_quat"))
    own = [anchor(robot, fields, int(child), like) for child in rows]
    if not own:
        return place
    return place + (rotation(quat) * xp.stack(xp.broadcast_arrays(*own), -2)[..., None, :]).sum(-1)


def moved(
    robot: Robot,
    fields: Mapping[str, Array],
    body: int,
    change: Callable[[Array], Array],
    like: Array,
    *,
    rest: Any = None,
) -> Fields:
    """`fields` after `change`, (..., k, 3) to (..., k, 3) in the body frame, was applied to the points of `body`.

    Geoms, sites, cameras, lights, anchors of connects and welds, and joints move, except the joints in `rest`. The caller
    moves child bodies.
    """
    model, out = robot.mj, dict(fields)
    for name, owner in _PLACES.items():
        rows = np.flatnonzero(getattr(model, owner) == body)
        out = write(robot, out, name, rows, change(read(robot, out, name, like)[..., rows, :])) if len(rows) else out
    for row, first in anchors(model, body):
        data = read(robot, out, "eq_data", like)[..., [row], :]
        parts = [data[..., :first], change(data[..., first : first + 3]), data[..., first + 3 :]]
        xp = parts[1].__array_namespace__()
        lead = np.broadcast_shapes(*(part.shape[:-1] for part in parts))
        parts = [xp.broadcast_to(part, (*lead, part.shape[-1])) for part in parts]
        out = write(robot, out, "eq_data", [row], xp.concatenate(parts, -1))
    rows = np.setdiff1d(joints(model, body), [] if rest is None else rest)
    if len(rows):
        out = write(robot, out, "jnt_pos", rows, change(read(robot, out, "jnt_pos", like)[..., rows, :]))
    return out


def refuse_shapes(robot: Robot, body: int) -> None:
    """Refuse geoms whose shape a design number cannot change.

    Raises:
      DsoError: `body` has a mesh, height field, plane or signed-distance geom, a geom with the ellipsoid fluid model, or
        vertices of a flex.
    """
    model = robot.mj
    named = f"{robot.source}: body '{model.body(body).name}'"
    if (model.flex_vertbodyid == body).any() or (model.flex_nodebodyid == body).any():
        raise DsoError(
            f"{named}: vertices of a flex are fixed to it, which would not move with it; pin them to a child body."
        )
    for i in geoms(model, body):
        label = f"geom '{model.geom(i).name}'" if model.geom(i).name else f"geom {i}"
        kind = int(model.geom_type[i])
        if kind not in SOLIDS:
            shape = mujoco.mjtGeom(kind).name.removeprefix("mjGEOM_").lower()
            raise DsoError(
                f"{named}: {label} is a {shape}, which has no size to change. Replace it by a sphere, capsule, cylinder, box "
                'or ellipsoid (type="capsule" mesh="..." fits a capsule to a mesh), or move it to a separate child body.'
            )
        if model.geom_fluid[i, 0] > 0:
            raise DsoError(
                f"{named}: MuJoCo computes the fluid coefficients of {label} from its size only when it compiles; remove "
                "fluidshape."
            )
