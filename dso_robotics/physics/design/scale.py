"""Size of a part of the robot: a body and everything below it."""

import dataclasses
from collections.abc import Mapping

from dso_robotics.errors import DsoError
from dso_robotics.physics.design import contents
from dso_robotics.physics.design.map import DESIGN_MAPS, Array, DesignMap, Fields, find, read, write
from dso_robotics.physics.geometry import geometry


@DESIGN_MAPS.register("scale")
@dataclasses.dataclass(frozen=True, eq=False)
class UniformScale(DesignMap):
    """Scale [1] of a body and all its descendants, about where the body is attached to its parent (first joint or origin).

    It multiplies every position in them and every size of their geoms and sites. Masses of geoms with a density are
    proportional to its cube; geoms with a given mass keep it. Joint ranges, armature, stiffness and gears do not change. By
    default the bounds are a half and two.

    Raises:
      DsoError: no such body, no geoms in it, a mesh or an `<inertial>` in it, or bounds that allow no size.
    """

    bodies: tuple[int, ...] = dataclasses.field(init=False)

    def __post_init__(self):
        model = self.robot.mj
        bodies = contents.subtree(model, find(self.robot, "body", self.name))
        for body in bodies:
            contents.refuse_shapes(self.robot, body)
        shaped = [body for body in bodies if len(contents.geoms(model, body)) or model.body_mass[body] > 0]
        if not shaped:
            raise DsoError(
                f"{self.robot.source}: body '{self.name}' and the bodies below it have no geoms, so there is no shape to "
                "scale; choose another body."
            )
        geometry(self.robot, shaped)
        self._set(bodies=tuple(bodies))
        self._declare([f"body/{self.name}/scale"], ["1"], 1.0, (0.5, 2.0), size=True)

    @property
    def reshaped(self) -> frozenset[int]:
        """The bodies with geoms."""
        return frozenset(body for body in self.bodies if len(contents.geoms(self.robot.mj, body)))

    def apply(self, numbers: Array, fields: Mapping[str, Array]) -> Fields:
        """See `DesignMap.apply`: everything in the part."""
        robot, model, root = self.robot, self.robot.mj, self.bodies[0]
        scale = numbers[..., 0][..., None, None]
        still = contents.anchor(robot, fields, root, numbers)[..., None, :]
        first = contents.joints(model, root)[:1]
        out = dict(fields)
        for body in self.bodies:

            def grow(points: Array, body: int = body) -> Array:
                return points * scale if body != root else still + scale * (points - still)

            out = contents.moved(robot, out, body, grow, numbers, rest=first)
            kids = contents.children(model, body)
            if len(kids):
                place = read(robot, out, "body_pos", numbers)[..., kids, :]
                out = write(robot, out, "body_pos", kids, grow(place))
            for name, rows in (
                ("geom_size", contents.geoms(model, body)),
                ("site_size", (model.site_bodyid == body).nonzero()[0]),
            ):
                if len(rows):
                    out = write(robot, out, name, rows, read(robot, out, name, numbers)[..., rows, :] * scale)
        return out
