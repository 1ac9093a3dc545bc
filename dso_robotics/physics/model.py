"""Load a robot from MJCF, URDF, an `MjSpec` or an `MjModel`. Errors name the file and the cure."""

import dataclasses
import os
import pathlib
from collections.abc import Iterable
from typing import Any

import mujoco
import numpy as np

from dso_robotics.errors import DsoError, nearest
from dso_robotics.physics.description import description, remember
from dso_robotics.physics.markup import check_markup, check_spec, not_a_number
from dso_robotics.physics.quiet import quiet
from dso_robotics.physics.versions import refuse_faults

KINDS = {
    "body": mujoco.mjtObj.mjOBJ_BODY,
    "joint": mujoco.mjtObj.mjOBJ_JOINT,
    "geom": mujoco.mjtObj.mjOBJ_GEOM,
    "site": mujoco.mjtObj.mjOBJ_SITE,
    "tendon": mujoco.mjtObj.mjOBJ_TENDON,
    "actuator": mujoco.mjtObj.mjOBJ_ACTUATOR,
    "sensor": mujoco.mjtObj.mjOBJ_SENSOR,
    "pair": mujoco.mjtObj.mjOBJ_PAIR,
    "equality": mujoco.mjtObj.mjOBJ_EQUALITY,
}
# The name of the one object of kind "option".
OPTION = "option"
_COUNT = {
    "body": "nbody",
    "joint": "njnt",
    "geom": "ngeom",
    "site": "nsite",
    "tendon": "ntendon",
    "actuator": "nu",
    "sensor": "nsensor",
    "pair": "npair",
    "equality": "neq",
}
# MuJoCo's compiler ends in one of these.
_REFUSALS = (ValueError, RuntimeError, MemoryError, OverflowError, mujoco.FatalError)


@dataclasses.dataclass(frozen=True)
class Robot:
    """A compiled model and its source.

    mj: the compiled `MjModel`.
    spec: the editable description. None if only a compiled model was given, which cannot be exported.
    source: the file, or a word such as "MjSpec", for messages.
    """

    mj: mujoco.MjModel
    spec: mujoco.MjSpec | None
    source: str

    def count(self, kind: str) -> int:
        """Number of objects of `kind` ("body", "joint", ...); the world is body 0."""
        return 1 if kind == OPTION else int(getattr(self.mj, _COUNT[kind]))

    def names(self, kind: str) -> list[str]:
        """Names of all objects of `kind` in id order; an unnamed object gives an empty string."""
        if kind == OPTION:
            return [OPTION]
        return [mujoco.mj_id2name(self.mj, KINDS[kind], i) or "" for i in range(self.count(kind))]


def actuator_labels(model: mujoco.MjModel) -> tuple[str, ...]:
    """Names of the actuators (nu,); one without a name is called by its number."""
    return tuple(model.actuator(i).name or str(i) for i in range(model.nu))


def load(source: "str | os.PathLike[str] | mujoco.MjSpec | mujoco.MjModel | Robot") -> Robot:
    """Load a robot from an MJCF or URDF file, an `MjSpec` or an `MjModel`; a `Robot` is returned as it is.

    An `MjModel` has no MJCF in it, which is needed to write a result. That of a model that was loaded here is known; of others
    MuJoCo has that of the last one. Where it compiles to the same model, numbers changed since included, it comes along; where
    not, pass the path or the `MjSpec`.

    Raises:
      DsoError: the file is missing, is not a model, names a mesh or include that is not found, or uses a feature that the
        installed MuJoCo computes wrongly.
    """
    if isinstance(source, Robot):
        return source
    if isinstance(source, mujoco.MjModel):
        refuse_faults(source, "MjModel")
        spec = description(source)
        return Robot(mj=source if spec is None else compile_spec(spec, "MjModel"), spec=spec, source="MjModel")
    if isinstance(source, mujoco.MjSpec):
        return Robot(mj=compile_spec(source, "MjSpec"), spec=source, source="MjSpec")
    if not isinstance(source, str | os.PathLike):
        raise DsoError(
            f"a model is a path, an MjSpec, an MjModel or what `load` made of one, not {type(source).__name__} "
            f"{str(source)[:60]!r}."
        )
    path = pathlib.Path(source)
    try:
        folder, file = path.is_dir(), path.is_file()
    except (OSError, ValueError) as error:
        raise DsoError(f"{str(path)[:80]!r}: no model file can have this name ({error}); give another.") from error
    if folder:
        raise DsoError(f"{path}: this is a folder, not a model. Give the MJCF (.xml) or URDF (.urdf) file inside it.")
    if not file:
        raise DsoError(f"{path}: there is no such model file{_nearby(path)}. Give the path of an MJCF or URDF file.")
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise DsoError(
            f"{path}: MuJoCo reads files whose names are UTF-8 only; rename the file or its folder."
        ) from None
    try:
        check_markup(path)
        with quiet() as said:
            spec = mujoco.MjSpec.from_file(str(path))
    except OSError as error:
        raise DsoError(f"{path}: cannot be read ({error.strerror}); check its permissions.") from error
    except _REFUSALS as error:
        raise DsoError(_explain(path, error)) from error
    if any("NaN" in text for text in said):
        raise DsoError(f"{path}: {not_a_number(path)} is NaN; give it a value.")
    # Exported files may be saved elsewhere, so the paths of meshes and textures must be absolute.
    for field in ("meshdir", "texturedir"):
        folder = path.parent / getattr(spec, field)
        setattr(spec, field, str(folder.resolve()))
    return Robot(mj=compile_spec(spec, str(path)), spec=spec, source=str(path))


def model_field(model: mujoco.MjModel, name: str) -> Any:
    """The array or number `name` of a model, or of its options with the prefix "opt."."""
    return getattr(model.opt, name.removeprefix("opt.")) if name.startswith("opt.") else getattr(model, name)


def set_model_field(model: mujoco.MjModel, name: str, value: np.ndarray) -> None:
    """Write `value` to the field that `model_field` reads."""
    owner: Any = model.opt if name.startswith("opt.") else model
    short = name.removeprefix("opt.")
    if np.ndim(getattr(owner, short)):
        getattr(owner, short)[...] = value
    else:
        setattr(owner, short, float(value))


def without_shortcuts(robot: Robot, bodies: Iterable[int]) -> Robot:
    """`robot` with `bodies` compiled so that their centre of mass and inertia may change.

    If a body's inertial frame is its joint's frame, MuJoCo uses a mass matrix with a fixed pattern of zeros. MuJoCo chooses
    the pattern when it compiles, so the pattern must be removed before such a body's inertia becomes a parameter. The physics
    does not change. Raises DsoError when there is no description to compile again.
    """
    simple = [i for i in bodies if robot.mj.body_simple[i]]
    if not simple:
        return robot
    names = [mujoco.mj_id2name(robot.mj, KINDS["body"], i) for i in simple]
    if robot.spec is None:
        raise DsoError(
            f"body '{names[0]}' was compiled for an inertial frame fixed at its joint, and a compiled MjModel cannot be "
            'changed; write simple="false" on the body in the MJCF, or load the XML file.'
        )
    spec = robot.spec.copy()
    for name in names:
        spec.body(name).simple = False
    return dataclasses.replace(robot, mj=compile_spec(spec, robot.source), spec=spec)


def without_delays(robot: Robot) -> Robot:
    """`robot` without delays of actuators and sensors. The caller applies the delays, starting from a recorded past.

    Raises DsoError when there is no description to compile again.
    """
    model = robot.mj
    if not (np.any(model.actuator_delay) or np.any(model.sensor_delay)):
        return robot
    if robot.spec is None:
        raise DsoError(
            "this model was given as a compiled MjModel with delays, which cannot be removed; load the XML file or an "
            "MjSpec."
        )
    spec = robot.spec.copy()
    for element in (*spec.actuators, *spec.sensors):
        element.delay, element.nsample = 0.0, 0
    return dataclasses.replace(robot, mj=compile_spec(spec, robot.source), spec=spec)


def keyframe_position(model: mujoco.MjModel, name: str, source: str = "the model") -> np.ndarray:
    """qpos (nq,) of a keyframe. Raises DsoError that lists the keyframes when there is none of that name."""
    names = [model.key(i).name for i in range(model.nkey)]
    if name not in names:
        has = f"it has {nearest(name, names, 8)}" if any(names) else "it has none with a name"
        raise DsoError(f"--keyframe {name}: {source} has no such keyframe; {has}.")
    return np.array(model.key_qpos[names.index(name)])


def compile_spec(spec: mujoco.MjSpec, source: str) -> mujoco.MjModel:
    """The model of a description. Raises DsoError if MuJoCo refuses it, or computes something in it wrongly."""
    check_spec(spec, source)
    try:
        with quiet():
            model = spec.compile()
    except _REFUSALS as error:
        raise DsoError(_explain(pathlib.Path(source), error)) from error
    _check_names(model, source)
    _check_numbers(model, source)
    refuse_faults(model, source)
    remember(model, spec)
    return model


def _check_names(model: mujoco.MjModel, source: str) -> None:
    """Refuse names that no XML can hold: the result could not be written."""
    for text in bytes(model.names).decode("utf-8", "replace").split("\0"):
        if bad := next((c for c in text if ord(c) < 32 or ord(c) == 127 or c == "\ufffd"), None):
            raise DsoError(f"{source}: the name {text!r} has the character {bad!r}, which XML cannot hold; rename it.")


def _check_numbers(model: mujoco.MjModel, source: str) -> None:
    """Refuse numbers that the compiler made NaN, such as an axis with an infinite entry: every simulation would be NaN."""
    for owner, start in ((model, ""), (model.opt, "option ")):
        # What the compiler derives, such as dof_invweight0, comes last: the cause is to be named.
        for name in sorted(dir(owner), key=lambda name: name.endswith("0")):
            value = np.asarray(None if name.startswith("_") else getattr(owner, name))
            if value.dtype.kind == "f" and not name.endswith("_user") and np.isnan(value).any():
                raise DsoError(
                    f"{source}: the compiled model has NaN in {start}{name}: a number that it is made of is NaN, infinite or "
                    "too large; correct it."
                )


def _explain(path: pathlib.Path, error: Exception) -> str:
    reason = " ".join(str(error).split())
    if "XML parse error" in reason or "Schema violation" in reason or "root element" in reason.lower():
        cure = "Correct the XML at the given line, or give an MJCF or URDF file."
    elif "package:/" in reason or "model:/" in reason:
        cure = (
            "MuJoCo does not resolve package:// or model://, which name a folder of ROS or Gazebo. Remove them and the "
            f"package's name from the file names, so that these are relative to {path.parent.resolve()} (or write absolute "
            'paths), and write <mujoco><compiler strippath="false"/></mujoco> inside <robot>.'
        )
    elif "open file" in reason or "opening file" in reason or "resource" in reason:
        cure = f"File names in the model are relative to {path.parent.resolve()} and its meshdir or texturedir."
    else:
        cure = "MuJoCo's compiler refuses the model; `python -m mujoco.viewer --mjcf FILE` gives the same error."
    return f"{path}: cannot load this model: {reason}. {cure}"


def _nearby(path: pathlib.Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f" (the folder {folder} does not exist either)"
    found = [p.name for p in sorted(folder.iterdir()) if p.suffix in (".xml", ".urdf")]
    return f" (the folder has {nearest(path.name, found)})" if found else ""
