"""Writes numbers of a model into the text of a URDF; names of bodies and joints are those of links and joints."""

from collections.abc import Iterator

import mujoco
import numpy as np

from dso_robotics.errors import nearest
from dso_robotics.physics.inertia import rotation
from dso_robotics.physics.model import Robot
from dso_robotics.physics.urdf import NOTHING, Mass, Pose, Urdf
from dso_robotics.report.export.identified import Place
from dso_robotics.report.quantity import listed

# Field of MjModel -> what of URDF holds it.
_HELD = {
    "body_mass": "inertial",
    "body_ipos": "inertial",
    "body_inertia": "inertial",
    "body_pos": "origin",
    "body_turn": "origin",
    "dof_damping": "damping",
    "dof_frictionloss": "friction",
    "jnt_range": "limit",
    "jnt_actfrcrange": "effort",
    "jnt_axis": "axis",
}
_LIMITED = ("revolute", "prismatic")


class UrdfWriter:
    """Writes numbers of a model into a URDF.

    model: the compiled model. bodies, joints: its names. written: what was written, as (field of MjModel, body or joint). notes: what
    could not be.
    """

    def __init__(self, urdf: Urdf, robot: Robot):
        self.urdf, self.model = urdf, robot.mj
        self.bodies, self.joints = robot.names("body"), robot.names("joint")
        self.notes: list[str] = []
        self.written: set[tuple[str, str]] = set()

    def write(self, places: list[Place]) -> None:
        """Write the numbers at `places`."""
        homeless: dict[str, None] = {}
        for place in places:
            kind = _HELD.get(place.field)
            name = "" if kind is None else self._owner(place)
            if kind is None:
                homeless[place.path] = None
            elif self._possible(kind, name, place.path):
                self.written.add((place.field, name))
        order = {link: len(self.urdf.up(link)) for link in self.urdf.links}
        # Origins first, from the root down: masses of links that are fixed to others depend on them.
        wanted = {(_HELD[field], name) for field, name in self.written}
        for kind, name in sorted(wanted, key=lambda item: (item[0] != "origin", order.get(item[1], 0), item)):
            getattr(self, f"_{kind}")(name)
        if homeless:
            self.notes.insert(0, f"URDF has no place for {listed([*homeless], 12)}; model.xml has them.")
        self.notes += self._lacking()

    def _owner(self, place: Place) -> str:
        """Name of the body or joint that a number is of."""
        if place.field.startswith("body"):
            return self.bodies[place.row]
        return self.joints[int(self.model.dof_jntid[place.row]) if place.field.startswith("dof") else place.row]

    def _possible(self, kind: str, name: str, path: str) -> bool:
        """Whether the URDF has what a number belongs to; a note says where it has not."""
        urdf, of_body = self.urdf, kind in ("inertial", "origin")
        known = urdf.links if of_body else urdf.joints
        if name not in known:
            what = "link" if of_body else "joint"
            self.notes.append(f"{path}: the URDF has no {what} '{name}'; it has {nearest(name, known, 6)}.")
            return False
        if kind == "origin":
            above = self.above(name)
            if name not in urdf.parent or (above is not None and above not in urdf.up(name)):
                self.notes.append(f"{path}: in the URDF link '{name}' does not hang on {above or 'another link'}.")
                return False
        if kind == "limit" and urdf.kind(name) not in _LIMITED:
            self.notes.append(f"{path}: a joint of type '{urdf.kind(name)}' has no limits in URDF.")
            return False
        if kind == "effort":
            low, high = self.model.jnt_actfrcrange[self.model.joint(name).id]
            if low != -high:
                self.notes.append(
                    f"{path}: URDF has one limit of the force for both directions, and these are {low:g}, {high:g}."
                )
                return False
        return True

    def above(self, body: str) -> str | None:
        """The nearest body above, as the URDF names it; None for the world."""
        parent = int(self.model.body(body).parentid[0])
        return self.bodies[parent] if parent else None

    def _inertial(self, name: str) -> None:
        """The link of a body, or the heaviest that is fixed to it, gets what the other links of the body leave over."""
        urdf = self.urdf
        links = urdf.fixed_to(name, self.bodies)
        masses = {link: urdf.mass(link).seen_from(urdf.pose(link, name)) for link in links}
        total = self._identified(name, sum(masses.values(), NOTHING))
        chosen = max(links, key=lambda link: masses[link].mass)
        others = sum((m for link, m in masses.items() if link != chosen), NOTHING)
        rest = total - others
        if not rest.possible and others.mass:
            gone = [link for link in links if link != chosen and masses[link].mass]
            for link in gone:
                urdf.set_mass(link, NOTHING)
            rest = total
            self.notes.append(
                f"The mass of {listed(gone, 12)}, fixed to '{chosen}', is now in '{chosen}': body '{name}' was identified as "
                "one, with less mass or inertia than theirs."
            )
        urdf.set_mass(chosen, rest.seen_from(urdf.pose(chosen, name).inverse))

    def _identified(self, name: str, stated: Mass) -> Mass:
        """The inertia of a body: of the model what was identified, else what the URDF states, if it states any."""
        found = body_mass(self.model, name)
        if not stated.mass:
            return found
        parts = {"body_mass": "mass", "body_ipos": "centre", "body_inertia": "tensor"}
        mass, centre, tensor = (
            getattr(found if (field, name) in self.written else stated, part) for field, part in parts.items()
        )
        return Mass.about_centre(mass, centre, tensor)

    def _origin(self, name: str) -> None:
        body, joint = self.model.body(name), self.urdf.parent[name]
        above = self.urdf.pose(self.urdf.ends(joint)[0], self.above(name))
        self.urdf.set_origin(joint, above.inverse @ Pose(rotation(body.quat), body.pos.copy()))

    def _damping(self, name: str) -> None:
        self.urdf.set_joint(name, "dynamics", {"damping": self.model.joint(name).damping[0]})

    def _friction(self, name: str) -> None:
        self.urdf.set_joint(name, "dynamics", {"friction": self.model.joint(name).frictionloss[0]})

    def _limit(self, name: str) -> None:
        low, high = self.model.joint(name).range
        self.urdf.set_joint(name, "limit", {"lower": low, "upper": high})

    def _effort(self, name: str) -> None:
        self.urdf.set_joint(name, "limit", {"effort": self.model.jnt_actfrcrange[self.model.joint(name).id, 1]})

    def _axis(self, name: str) -> None:
        self.urdf.set_joint(name, "axis", {"xyz": self.model.joint(name).axis})

    def _lacking(self) -> Iterator[str]:
        """What else model.xml has and URDF has no place for."""
        m = self.model
        fields = {
            "armature": m.dof_armature,
            "stiffness": m.jnt_stiffness,
            "quadratic or cubic damping": m.dof_dampingpoly,
        }
        named = [name for name, values in fields.items() if np.any(values)]
        named += [
            f"{count} {what}s"
            for what, count in (("actuator", m.nu), ("sensor", m.nsensor), ("tendon", m.ntendon))
            if count
        ]
        if named:
            yield f"model.xml also has {listed(named, 12)}, which URDF has no place for."


def body_mass(model: mujoco.MjModel, name: str) -> Mass:
    """The inertia of a body of a compiled model in its frame."""
    body = model.body(name)
    axes = rotation(body.iquat)
    return Mass.about_centre(float(body.mass[0]), body.ipos.copy(), axes @ np.diag(body.inertia) @ axes.T)
