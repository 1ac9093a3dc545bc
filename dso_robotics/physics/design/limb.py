"""Length and radius of a limb: one body, from where it is attached to its parent to where the next body is attached to it.

A connect or weld attaches a body as a joint does.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from dso_robotics.errors import DsoError
from dso_robotics.physics.design import contents
from dso_robotics.physics.design.map import DESIGN_MAPS, Array, DesignMap, Fields, find, read, write
from dso_robotics.physics.geometry import BOX, CAPSULE, CYLINDER, ELLIPSOID, SPHERE, geometry
from dso_robotics.physics.inertia import rotation

# A box or ellipsoid can be stretched along its own axes only. A misalignment up to this [rad] is rounding in a model file.
_ASKEW = 1e-4
# A capsule this close to its limb's direction, or to a right angle with it, keeps its orientation.
_OBLIQUE = 1e-9
_SHORTEST = 1e-6  # [m]


@dataclasses.dataclass(frozen=True, eq=False)
class _Limb(DesignMap):
    """A body with a direction.

    end: the limb's far end [m] (3,) in the body frame. By default where the farthest child body is attached to it (the
      child's first joint, or its origin) or, without children, where the farthest connect or weld holds it; without either,
      the far end of the longest geom.

    The near end is the body's own first joint, or its origin.
    """

    end: Sequence[float] | None = None
    body: int = dataclasses.field(init=False)
    direction: np.ndarray = dataclasses.field(init=False)  # unit vector (3,) in the body frame
    length: float = dataclasses.field(init=False)  # [m]

    def __post_init__(self):
        body = find(self.robot, "body", self.name)
        geometry(self.robot, [body])
        contents.refuse_shapes(self.robot, body)
        start = contents.anchor(self.robot, {}, body, np.zeros(0))
        vector = _end(self, body, start) - start
        length = float(np.linalg.norm(vector))
        if not length > _SHORTEST:
            raise DsoError(
                f"{self.robot.source}: body '{self.name}' is a limb of zero length: its far end and its near end are both at "
                f"{_text(start)} m in its frame. Give its far end with end=(x, y, z), or choose another body."
            )
        self._set(body=body, direction=vector / length, length=length)

    @property
    def reshaped(self) -> frozenset[int]:
        """The limb."""
        return frozenset([self.body])

    def _along(self) -> tuple[np.ndarray, np.ndarray]:
        """The limb's geoms (k,) and the cosines (k, 3) of their axes with its direction.

        Raises:
          DsoError: a box or ellipsoid is at an angle to the limb.
        """
        model = self.robot.mj
        rows = contents.geoms(model, self.body)
        cosine = np.swapaxes(rotation(model.geom_quat[rows]), -1, -2) @ self.direction
        for row, one in zip(rows, cosine, strict=True):
            if model.geom_type[row] in (BOX, ELLIPSOID) and np.sort(np.abs(one))[1] > _ASKEW:
                shape = "box" if model.geom_type[row] == BOX else "ellipsoid"
                raise DsoError(
                    f"{self.robot.source}: geom {model.geom(row).name or row} of body '{self.name}' is a {shape} at an angle "
                    f"to the limb, whose direction is {_text(self.direction)}. Stretched along or across the limb it would no "
                    f"longer be a {shape}. Align it with the limb, use a capsule, or give the limb's end with end=(x, y, z)."
                )
        return rows, cosine


@DESIGN_MAPS.register("length")
@dataclasses.dataclass(frozen=True, eq=False)
class LimbLength(_Limb):
    """Length of a limb [m]: the body is stretched along its direction; its near end does not move.

    Everything fixed to the body moves with the stretch: geoms, sites, cameras, lights, further joints, anchors of connects
    and welds. Child bodies keep
    their shape and move with their joints (or origins). The end points of capsules and cylinders move with the stretch; their
    radius stays. Boxes and ellipsoids are stretched. Spheres keep their size. Geoms with a given mass keep it. By default the
    bounds are half and twice the model's length.

    Raises:
      DsoError: no such body, a limb of zero length, a body without geoms, with meshes or with an `<inertial>`, a box at
        an angle to the limb, or bounds that allow no length.
    """

    def __post_init__(self):
        super().__post_init__()
        self._along()
        default = self.length / 2, 2 * self.length
        self._declare([f"body/{self.name}/length"], ["m"], self.length, default, size=True)

    def apply(self, numbers: Array, fields: Mapping[str, Array]) -> Fields:
        """See `DesignMap.apply`: geoms, sites, cameras, lights, joints and child bodies of the limb."""
        robot, body, model = self.robot, self.body, self.robot.mj
        xp, more = numbers.__array_namespace__(), (numbers[..., 0] / self.length - 1)[..., None, None]
        direction = xp.asarray(self.direction)
        start = contents.anchor(robot, fields, body, numbers)[..., None, :]

        def shift(vectors: Array) -> Array:
            return more * (vectors * direction).sum(-1)[..., None] * direction

        out = dict(fields)
        kids = contents.children(model, body)
        if len(kids):
            ends = contents.attachments(robot, fields, body, numbers)
            place = read(robot, fields, "body_pos", numbers)[..., kids, :]
            out = write(robot, out, "body_pos", kids, place + shift(ends - start))
        first = contents.joints(model, body)[:1]
        out = contents.moved(robot, out, body, lambda p: p + shift(p - start), numbers, rest=first)

        rows, cosine = self._along()
        kind = model.geom_type[rows]
        rods = np.isin(kind, (CAPSULE, CYLINDER))
        quat = read(robot, out, "geom_quat", numbers)[..., rows, :]
        axis = rotation(quat)[..., :, 2]
        stretched = axis + shift(axis)
        factor = xp.sqrt((stretched**2).sum(-1))[..., None]
        own = np.eye(3)[np.abs(cosine).argmax(-1)] * np.isin(kind, (BOX, ELLIPSOID))[:, None]
        rod = np.array([0.0, 1.0, 0.0]) * rods[:, None]
        size = read(robot, out, "geom_size", numbers)[..., rows, :]
        size = size * (1 + xp.asarray(rod) * (factor - 1) + xp.asarray(own) * more)
        changed = kind != SPHERE
        out = write(robot, out, "geom_size", rows[changed], size[..., changed, :])
        oblique = rods & (np.abs(cosine[:, 2]) * np.sqrt(np.clip(1 - cosine[:, 2] ** 2, 0, 1)) > _OBLIQUE)
        turned = _turn(axis, stretched / factor, quat)
        return write(robot, out, "geom_quat", rows[oblique], turned[..., oblique, :])


@DESIGN_MAPS.register("radius")
@dataclasses.dataclass(frozen=True, eq=False)
class LimbRadius(_Limb):
    """Radius of a limb [m]: the largest radius of its geoms across the limb. The other geoms keep their proportion to it.

    Capsules, cylinders and spheres change their radius. Boxes and ellipsoids change their two half-sizes across the limb.
    Nothing moves. By default the bounds are half and twice the model's radius.

    Raises:
      DsoError: for the same reasons as `LimbLength`.
    """

    across: np.ndarray = dataclasses.field(init=False, repr=False)

    def __post_init__(self):
        super().__post_init__()
        model = self.robot.mj
        rows, cosine = self._along()
        flat = np.isin(model.geom_type[rows], (BOX, ELLIPSOID))[:, None]
        across = np.where(flat, 1 - np.eye(3)[np.abs(cosine).argmax(-1)], np.array([1.0, 0.0, 0.0]))
        radius = float((model.geom_size[rows] * across).max())
        self._set(across=across)
        self._declare([f"body/{self.name}/radius"], ["m"], radius, (radius / 2, 2 * radius), size=True)

    def apply(self, numbers: Array, fields: Mapping[str, Array]) -> Fields:
        """See `DesignMap.apply`: sizes of the limb's geoms."""
        rows = contents.geoms(self.robot.mj, self.body)
        size = read(self.robot, fields, "geom_size", numbers)[..., rows, :]
        more = (numbers[..., 0] / float(self.initial[0]) - 1)[..., None, None]
        across = numbers.__array_namespace__().asarray(self.across)
        return write(self.robot, fields, "geom_size", rows, size * (1 + more * across))


def _end(limb: _Limb, body: int, start: np.ndarray) -> np.ndarray:
    """Far end of the limb [m] (3,) in the body frame."""
    model = limb.robot.mj
    if limb.end is not None:
        end = np.asarray(limb.end, float)
        if end.shape != (3,) or not np.isfinite(end).all():
            raise DsoError(f"body/{limb.name}: end={limb.end} is not a point; give three numbers (x, y, z) in metres.")
        return end
    ends = contents.attachments(limb.robot, {}, body, start)
    if not len(ends) or np.linalg.norm(ends - start, axis=-1).max() <= _SHORTEST:
        ends = contents.pins(limb.robot, body)
    if not len(ends) or np.linalg.norm(ends - start, axis=-1).max() <= _SHORTEST:
        rows = contents.geoms(model, body)
        half = np.array([_half(int(model.geom_type[i]), model.geom_size[i]) for i in rows])
        half = (rotation(model.geom_quat[rows]) * half[:, None, :]).sum(-1)
        longest = np.linalg.norm(half, axis=-1).argmax()
        ends = model.geom_pos[rows[longest]] + np.array([1.0, -1.0])[:, None] * half[longest]
    return ends[np.linalg.norm(ends - start, axis=-1).argmax()]


def _half(kind: int, size: np.ndarray) -> np.ndarray:
    """Vector from the centre of a geom to the end of its longest axis [m] (3,), without the caps of a capsule."""
    if kind == SPHERE:
        return np.zeros(3)
    if kind in (CAPSULE, CYLINDER):
        return np.array([0.0, 0.0, size[1]])
    return np.eye(3)[size.argmax()] * size.max()


def _turn(before: Array, after: Array, quat: Array) -> Array:
    """`quat` (..., 4) turned by the shortest rotation between unit vectors (..., 3) less than a right angle apart."""
    xp = quat.__array_namespace__()
    scalar, vector = 1 + (before * after).sum(-1)[..., None], xp.cross(before, after)
    w, v = quat[..., :1], quat[..., 1:]
    turned = xp.concatenate(
        [scalar * w - (vector * v).sum(-1)[..., None], scalar * v + w * vector + xp.cross(vector, v)], -1
    )
    return turned / xp.sqrt((turned**2).sum(-1))[..., None]


def _text(vector: np.ndarray) -> str:
    return "(" + ", ".join(f"{x:.4g}" for x in vector) + ")"
