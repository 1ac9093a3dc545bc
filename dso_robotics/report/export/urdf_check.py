"""Whether a written URDF is the same robot as model.xml, both read by MuJoCo."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import mujoco
import numpy as np

from dso_robotics.errors import DsoError
from dso_robotics.physics.inertia import rotation
from dso_robotics.physics.model import load
from dso_robotics.physics.urdf import IDENTITY, NOTHING, Pose
from dso_robotics.report.export.urdf_writer import UrdfWriter, body_mass
from dso_robotics.report.quantity import listed

_TOLERANCE = 1e-7
_DIGITS = 2e-5  # of an MJCF that MuJoCo made of a URDF
# Field of MjModel -> what it is called.
_CALLED = {
    "body_mass": "mass",
    "body_ipos": "centre of mass",
    "body_inertia": "inertia",
    "body_pos": "position",
    "body_turn": "orientation",
    "dof_damping": "damping",
    "dof_frictionloss": "friction",
    "jnt_range": "limits",
    "jnt_actfrcrange": "effort",
    "jnt_axis": "axis",
    "jnt_pos": "position in its body",
}


def compiled(text: bytes, path: Path) -> tuple[mujoco.MjModel, bool]:
    """The URDF as MuJoCo reads it, every link a body; and whether its meshes were found."""
    bare = False
    try:
        load(path)
    except DsoError as error:
        if "cannot load this model" not in str(error):
            raise
        bare = True
    root = ET.fromstring(text)
    for link in root.iter("link") if bare else ():
        for part in [*link.findall("visual"), *link.findall("collision")]:
            link.remove(part)
    extension = root.find("mujoco")
    extension = ET.SubElement(root, "mujoco") if extension is None else extension
    compiler = extension.find("compiler")
    compiler = ET.SubElement(extension, "compiler") if compiler is None else compiler
    if bare:
        compiler.set("boundmass", "1e-9")
        compiler.set("boundinertia", "1e-9")
    try:
        spec = mujoco.MjSpec.from_string(ET.tostring(root, encoding="unicode"))
        spec.meshdir = str((path.parent / spec.meshdir).resolve())
        spec.compiler.fusestatic = False
        return spec.compile(), not bare
    except ValueError as error:
        raise DsoError(
            f"{path}: MuJoCo refuses the URDF with its new values: {' '.join(str(error).split())}."
        ) from error


def compare(writer: UrdfWriter, made: mujoco.MjModel, path: Path) -> list[str]:
    """Compare the URDF with model.xml, both compiled; a sentence on what was not identified and differs.

    Raises:
      DsoError: an identified number does not come back.
    """
    wrong, other = [], defaultdict[str, list[str]](list)
    for field, name, one, two in _pairs(writer, made):
        mine = (field, name) in writer.written
        least = 1e-3 if field in ("body_ipos", "body_pos") else 1e-9
        scale = max(float(np.abs(two).max(initial=0.0)), least)
        if np.abs(one - two).max(initial=0.0) <= (_TOLERANCE if mine else _DIGITS) * scale:
            continue
        if mine:
            wrong.append(f"{_CALLED[field]} of {name}")
        else:
            other[_CALLED[field]].append(name)
    if wrong:
        raise DsoError(
            f"{path}: MuJoCo reads {listed(wrong, 12)} of the new URDF differently than in model.xml, so it was not written; "
            "look for a <mujoco><compiler> in it that changes masses, or for links without <inertial>."
        )
    told = "; ".join(f"{kind} of {listed(names, 12)}" for kind, names in other.items())
    return [f"Not identified, and in the URDF other than in model.xml: {told}."] if told else []


def _pairs(writer: UrdfWriter, made: mujoco.MjModel) -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
    """(field, body or joint, value in the URDF, value in model.xml) for all that URDF holds and both models have."""
    model, urdf = writer.model, writer.urdf
    for name in filter(urdf.links.__contains__, writer.bodies[1:]):
        links, total = urdf.fixed_to(name, writer.bodies), body_mass(model, name)
        found = sum((body_mass(made, link).seen_from(_pose(made, link, name)) for link in links), NOTHING)
        yield "body_mass", name, np.array(found.mass), np.array(total.mass)
        yield "body_ipos", name, found.centre, total.centre
        yield "body_inertia", name, found.tensor, total.tensor
        above = writer.above(name)
        if name in urdf.parent and (above is None or above in urdf.up(name)):
            body, pose = model.body(name), _pose(made, name, above)
            yield "body_pos", name, pose.place, body.pos
            yield "body_turn", name, pose.turn, rotation(body.quat)
    there = {made.joint(j).name for j in range(made.njnt)}
    for name in filter(there.__contains__, writer.joints):
        for field in (field for field in _CALLED if not field.startswith("body")):
            rows = []
            for one in (made, model):
                index = one.joint(name).id
                rows.append(
                    np.asarray(getattr(one, field)[one.jnt_dofadr[index] if field.startswith("dof") else index])
                )
            yield field, name, rows[0], rows[1]


def _pose(model: mujoco.MjModel, name: str, ancestor: str | None) -> Pose:
    """The frame of a body in that of one above it, None for the world, as compiled."""
    found, index = IDENTITY, int(model.body(name).id)
    while index and model.body(index).name != ancestor:
        found = Pose(rotation(model.body_quat[index]), model.body_pos[index].copy()) @ found
        index = int(model.body_parentid[index])
    return found
