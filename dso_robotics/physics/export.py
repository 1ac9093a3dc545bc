"""Write model-field values back into MJCF that plain MuJoCo loads.

MuJoCo writes the file, so URDF becomes MJCF and defaults are resolved. MuJoCo writes six digits; full precision replaces them
in the attributes that changed and in those that lost digits. The result is compiled and compared before it is returned.
"""

import xml.etree.ElementTree as ET
from collections.abc import Mapping

import mujoco
import numpy as np

from dso_robotics.errors import DsoError
from dso_robotics.physics import framed, inertia
from dso_robotics.physics.attached import readable
from dso_robotics.physics.model import Robot, model_field
from dso_robotics.physics.quiet import quiet

# Field of MjModel -> (kind, MJCF attribute with an object's row of the field). A parameter family may add entries.
ATTRIBUTES = {
    "dof_frictionloss": ("joint", "frictionloss"),
    "dof_armature": ("joint", "armature"),
    "jnt_stiffness": ("joint", "stiffness"),
    "qpos0": ("joint", "ref"),
    "qpos_spring": ("joint", "springref"),
    "jnt_pos": ("joint", "pos"),
    "jnt_axis": ("joint", "axis"),
    "jnt_range": ("joint", "range"),
    "body_pos": ("body", "pos"),
    "body_quat": ("body", "quat"),
    "geom_friction": ("geom", "friction"),
    "geom_size": ("geom", "size"),
    "geom_pos": ("geom", "pos"),
    "geom_quat": ("geom", "quat"),
    "site_pos": ("site", "pos"),
    "site_quat": ("site", "quat"),
    "site_size": ("site", "size"),
    "cam_pos": ("camera", "pos"),
    "cam_quat": ("camera", "quat"),
    "light_pos": ("light", "pos"),
    "tendon_actfrcrange": ("tendon", "actuatorfrcrange"),
    "actuator_gear": ("actuator", "gear"),
    "actuator_gainprm": ("actuator", "gainprm"),
    "actuator_biasprm": ("actuator", "biasprm"),
    "actuator_dynprm": ("actuator", "dynprm"),
    "actuator_ctrlrange": ("actuator", "ctrlrange"),
    "actuator_forcerange": ("actuator", "forcerange"),
    "actuator_delay": ("actuator", "delay"),
    "sensor_delay": ("sensor", "delay"),
    "body_gravcomp": ("body", "gravcomp"),
    "geom_solref": ("geom", "solref"),
    "geom_solimp": ("geom", "solimp"),
    "tendon_stiffness": ("tendon", "stiffness"),
    "tendon_damping": ("tendon", "damping"),
    "tendon_frictionloss": ("tendon", "frictionloss"),
    "tendon_armature": ("tendon", "armature"),
}
# Options that a parameter family may change.
_OPTIONS = ("gravity", "wind", "magnetic", "density", "viscosity")
# Type of an equality constraint -> the attribute that holds the first of its data, and how many they are.
_EQUALITIES = {
    int(mujoco.mjtEq.mjEQ_CONNECT): ("anchor", 3),
    int(mujoco.mjtEq.mjEQ_WELD): ("anchor", 3),
    int(mujoco.mjtEq.mjEQ_JOINT): ("polycoef", 5),
    int(mujoco.mjtEq.mjEQ_TENDON): ("polycoef", 5),
}
# Attributes that `physics.framed` writes where a frame or a mesh moves an element; the size of a mesh is its own.
_PLACED = ("pos", "quat", "axis", "size")
# Other attributes of an orientation, which would contradict a quat.
_TURNS = ("axisangle", "xyaxes", "zaxis", "euler")
# Fields that MuJoCo's compiler derives where the file does not give them -> (kind, attribute).
_DERIVED = {"tendon_lengthspring": ("tendon", "springlength"), "actuator_lengthrange": ("actuator", "lengthrange")}
_WELD = int(mujoco.mjtEq.mjEQ_WELD)
_SCALAR = (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE))
_DIGITS = 2e-5  # MuJoCo writes six
_DERIVED_SAME = 1e-11  # rounding


@quiet()
def to_mjcf(robot: Robot, fields: Mapping[str, np.ndarray]) -> str:
    """MJCF text of `robot` with the model fields `fields` (whole arrays, as from `ParameterVector.fields`).

    Raises:
      DsoError: the robot has no description to edit (it came as a compiled `MjModel`), or MuJoCo does not reproduce the
        values from the text.
    """
    if robot.spec is None:
        raise DsoError(
            "this model came as a compiled MjModel, so there is no MJCF to write values into; load the XML file or an MjSpec."
        )
    plain = inertia.principal_fields(robot.mj, {k: np.asarray(v)[None] for k, v in fields.items()})
    wanted = {name: value[0] for name, value in plain.items()}
    spec = robot.spec.copy()
    spec.compile()
    root = readable(spec)
    _absolute_folders(root, robot.spec)
    written = _compiled(ET.tostring(root, encoding="unicode"), robot)
    kinds = {kind: _elements(root, kind) for kind in {kind for kind, _ in ATTRIBUTES.values()}}
    elsewhere = framed.moved(root, kinds, robot.mj)
    for name, (kind, attribute) in ATTRIBUTES.items():
        value = wanted.get(name, getattr(robot.mj, name))
        left = [element for element in kinds[kind] if element in elsewhere] if attribute in _PLACED else []
        _set_attribute(kinds[kind], robot.mj, name, value, like=getattr(written, name), left=set(left))
    framed.write_places(elsewhere, kinds, wanted, nominal=robot.mj, like=written)
    _set_damping(root, robot.mj, wanted)
    _set_inertials(root, robot.mj, wanted, like=written)
    _set_equalities(root, robot.mj, wanted, like=written)
    _set_options(root, robot.mj, wanted, like=written)
    _set_derived(root, robot, wanted)
    ET.indent(root)
    text = ET.tostring(root, encoding="unicode") + "\n"
    _verify(text, robot, wanted, written)
    return text


def _close(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two rows of numbers differ by lost digits at most."""
    return bool(np.abs(one - other).max() <= _DIGITS * max(np.abs(one).max(), _DIGITS))


def _text(values: np.ndarray) -> str:
    return " ".join(repr(float(v)) for v in np.atleast_1d(values))


def _elements(root: ET.Element, kind: str) -> list[ET.Element]:
    """Elements of `kind` in the order of their ids. MuJoCo writes bodies depth first, each with its own elements."""
    if kind in ("actuator", "sensor", "tendon"):
        return [e for section in root.iter(kind) if section in root for e in section]
    if kind in ("pair", "equality"):
        sections = root.iter("contact" if kind == "pair" else kind)
        return [e for section in sections if section in root for e in section if kind != "pair" or e.tag == kind]
    tags = ("joint", "freejoint") if kind == "joint" else (kind,)
    world = root.find("worldbody")
    found = [] if world is None else [e for e in world.iter() if e.tag in tags]
    # The world is body 0.
    return [world, *found] if kind == "body" and world is not None else found


def _set_attribute(
    elements: list[ET.Element],
    model: mujoco.MjModel,
    name: str,
    value: np.ndarray,
    *,
    like: np.ndarray,
    left: set[ET.Element],
) -> None:
    """Write the rows of `value` that differ from `like`, the values that the file gives now, except of elements in `left`."""
    attribute = ATTRIBUTES[name][1]
    nominal = np.asarray(getattr(model, name), float)
    nominal = nominal if nominal.ndim == 2 else nominal[:, None]
    rows, there = (np.asarray(x, float).reshape(nominal.shape) for x in (value, like))
    # Lost digits only: larger differences come from frames that the compiler moves, which the file cannot set.
    lost = np.abs(rows - there).max(1) <= _DIGITS * np.maximum(np.abs(rows).max(1), _DIGITS)
    for row in np.flatnonzero((rows != nominal).any(1) | ((rows != there).any(1) & lost)):
        index = int(row)
        if name.startswith("dof_"):
            index = int(model.dof_jntid[row])
        elif name in ("qpos0", "qpos_spring"):
            scalar = np.isin(model.jnt_type, _SCALAR) & (model.jnt_qposadr == row)
            if not scalar.any():
                continue  # a free or ball joint has the pose of its body
            index = int(np.flatnonzero(scalar)[0])
        element = elements[index]
        if element in left:
            continue
        if attribute == "quat":
            for other in _TURNS:
                element.attrib.pop(other, None)
        element.set(attribute, _text(rows[row]))
        if attribute == "delay":
            # A buffer long enough for the delay, interpolated between its entries.
            element.set("nsample", str(int(np.ceil(rows[row, 0] / model.opt.timestep)) + 2))
            element.set("interp", "linear")


def _set_equalities(
    root: ET.Element, model: mujoco.MjModel, wanted: Mapping[str, np.ndarray], *, like: mujoco.MjModel
) -> None:
    """Write the data of equality constraints that are new or lost digits."""
    elements, data = _elements(root, "equality"), wanted.get("eq_data", model.eq_data)
    for i, kind in enumerate(model.eq_type):
        attribute, width = _EQUALITIES.get(int(kind), ("", 0))
        parts = [(attribute, slice(0, width))]
        if int(kind) == _WELD and "relpose" in elements[i].attrib:
            parts.append(("relpose", slice(3, 10)))
        for name, where in parts:
            new, old, there = (np.asarray(rows)[i, where] for rows in (data, model.eq_data, like.eq_data))
            lost = name in elements[i].attrib and not np.array_equal(new, there) and _close(new, there)
            if lost or not np.array_equal(new, old):
                elements[i].set(name, _text(new))


def _set_derived(root: ET.Element, robot: Robot, wanted: Mapping[str, np.ndarray]) -> None:
    """Write what the compiler would derive otherwise than it is in the model."""
    if not (robot.mj.ntendon or robot.mj.nu):
        return
    compiled = _compiled(ET.tostring(root, encoding="unicode"), robot)
    for name, (kind, attribute) in _DERIVED.items():
        new, there = (np.asarray(x) for x in (wanted.get(name, getattr(robot.mj, name)), getattr(compiled, name)))
        elements = _elements(root, kind)
        for row in np.flatnonzero((np.abs(new - there) > _DERIVED_SAME * (1 + np.abs(new))).any(1)):
            elements[int(row)].set(attribute, _text(new[row]))


def _set_options(
    root: ET.Element, model: mujoco.MjModel, wanted: Mapping[str, np.ndarray], *, like: mujoco.MjModel
) -> None:
    """Write the options that are new, and the time step if it lost digits."""
    values = {name: wanted[f"opt.{name}"] for name in _OPTIONS if f"opt.{name}" in wanted}
    if model.opt.timestep != like.opt.timestep:
        values["timestep"] = np.asarray(model.opt.timestep)
    if not values:
        return
    options = root.find("option")
    if options is None:
        options = ET.Element("option")
        root.insert(0, options)
    for name, value in values.items():
        options.set(name, _text(np.asarray(value)))


def _set_damping(root: ET.Element, model: mujoco.MjModel, wanted: Mapping[str, np.ndarray]) -> None:
    """Write damping: one attribute contains the linear, quadratic and cubic coefficients, which are two model fields."""
    nominal = np.column_stack([model.dof_damping, model.dof_dampingpoly])
    new = nominal.copy()
    new[:, 0] = wanted.get("dof_damping", model.dof_damping)
    new[:, 1:] = np.reshape(wanted.get("dof_dampingpoly", model.dof_dampingpoly), (-1, 2))
    elements = _elements(root, "joint")
    for row in np.flatnonzero((new != nominal).any(1)):
        values = new[row] if new[row, 1:].any() else new[row, :1]
        elements[int(model.dof_jntid[row])].set("damping", _text(values))


def _set_inertials(
    root: ET.Element, model: mujoco.MjModel, wanted: Mapping[str, np.ndarray], *, like: mujoco.MjModel
) -> None:
    """Write the inertias that are new, and those whose digits the file lost; it now gives those of `like`."""
    elements = _elements(root, "body")
    mass = wanted.get("body_mass", model.body_mass)
    ipos = wanted.get("body_ipos", model.body_ipos)
    moments = wanted.get("body_inertia", model.body_inertia)
    axes = wanted.get("body_iquat", model.body_iquat)
    nominal = (model.body_mass, model.body_ipos, model.body_inertia, model.body_iquat)
    # MuJoCo's compiler would derive another mass from a geom with another size.
    sizes = np.asarray(wanted.get("geom_size", model.geom_size))
    resized = {int(b) for b in model.geom_bodyid[(sizes != model.geom_size).any(1)]}
    for body in range(1, model.nbody):
        element = elements[body]
        inertial = element.find("inertial")
        new = [np.atleast_1d(part[body]) for part in (mass, ipos, moments, axes)]
        there = [
            np.atleast_1d(part[body]) for part in (like.body_mass, like.body_ipos, like.body_inertia, like.body_iquat)
        ]
        stays = all(np.array_equal(a, old[body].reshape(-1)) for a, old in zip(new, nominal, strict=True))
        if body in resized and mass[body] > 0:
            pass
        elif stays and (inertial is None or all(map(np.array_equal, new, there)) or not all(map(_close, new, there))):
            continue
        if inertial is None:
            inertial = ET.Element("inertial")
            element.insert(0, inertial)
        for key in list(inertial.attrib):
            del inertial.attrib[key]
        inertial.set("pos", _text(ipos[body]))
        inertial.set("quat", _text(axes[body]))
        inertial.set("mass", _text(mass[body]))
        inertial.set("diaginertia", _text(moments[body]))
    compiler = root.find("compiler")
    if compiler is not None and compiler.get("inertiafromgeom") == "true":
        compiler.set("inertiafromgeom", "auto")


def _absolute_folders(root: ET.Element, spec: mujoco.MjSpec) -> None:
    """Make paths absolute, so that meshes and textures are found wherever the new file is saved; without files name none."""
    compiler = root.find("compiler")
    if compiler is None:
        return
    files = any(e.get("file") for asset in root.iter("asset") for e in asset.iter())
    for folder in ("meshdir", "texturedir"):
        if not files:
            compiler.attrib.pop(folder, None)
        elif getattr(spec, folder):
            compiler.set(folder, getattr(spec, folder))


def _compiled(text: str, robot: Robot) -> mujoco.MjModel:
    try:
        return mujoco.MjModel.from_xml_string(text)
    except ValueError as error:
        raise DsoError(
            f"{robot.source}: MuJoCo refuses the model with its new values: {' '.join(str(error).split())}."
        ) from error


def _verify(text: str, robot: Robot, wanted: Mapping[str, np.ndarray], written: mujoco.MjModel) -> None:
    """Compare the text with what was wanted; what stays must be as near as it is in MuJoCo's own text, `written`."""
    model = _compiled(text, robot)
    for name in (n for n, (_, attribute) in ATTRIBUTES.items() if attribute in ("pos", "quat", "axis")):
        old, new, theirs = (np.asarray(getattr(m, name), float) for m in (robot.mj, model, written))
        if name in wanted:
            continue
        if name.endswith("_quat"):
            new, theirs = (np.where((q * old).sum(-1, keepdims=True) < 0, -q, q) for q in (new, theirs))
        worst = np.abs(theirs - old).max(initial=0.0) + 1e-6 * max(1.0, float(np.abs(old).max(initial=0.0)))
        if not np.abs(new - old).max(initial=0.0) <= worst:
            raise DsoError(
                f"{robot.source}: writing the new values would change {name} of the model too, so it was not written. Please "
                "report it with the model."
            )
    for name, value in wanted.items():
        if name in ("body_inertia", "body_iquat"):
            new = inertia.rotation(model.body_iquat) @ (model.body_inertia[..., None] * np.eye(3))
            new = new @ np.swapaxes(inertia.rotation(model.body_iquat), -1, -2)
            axes = inertia.rotation(np.asarray(wanted.get("body_iquat", robot.mj.body_iquat)))
            moments = np.asarray(wanted.get("body_inertia", robot.mj.body_inertia))
            old = axes @ (moments[..., None] * np.eye(3)) @ np.swapaxes(axes, -1, -2)
        else:
            new, old = np.asarray(model_field(model, name), float), np.asarray(value, float)
        if not np.allclose(new, old, rtol=1e-5, atol=1e-9 * max(1.0, float(np.max(np.abs(old), initial=0.0)))):
            raise DsoError(
                f"{robot.source}: MuJoCo does not read back the new values of {name}; the model was not written."
            )
