"""Load a robot: MJCF, URDF, `MjSpec` or `MjModel`, with errors that name the file and the cure."""

import dataclasses
import os
import pathlib
from collections.abc import Iterable

import mujoco
import numpy as np

from dso_robotics.errors import DsoError, nearest

KINDS = {
    "body": mujoco.mjtObj.mjOBJ_BODY,
    "joint": mujoco.mjtObj.mjOBJ_JOINT,
    "geom": mujoco.mjtObj.mjOBJ_GEOM,
    "site": mujoco.mjtObj.mjOBJ_SITE,
    "tendon": mujoco.mjtObj.mjOBJ_TENDON,
    "actuator": mujoco.mjtObj.mjOBJ_ACTUATOR,
    "sensor": mujoco.mjtObj.mjOBJ_SENSOR,
}
_COUNT = {"body": "nbody", "joint": "njnt", "geom": "ngeom", "site": "nsite", "tendon": "ntendon", "actuator": "nu"}


@dataclasses.dataclass(frozen=True)
class Robot:
    """A compiled model together with where it came from.

    `mj` is the compiled `MjModel`; `spec` the editable description (None when only a compiled model was given, which
    then cannot be exported); `source` the file or a word such as "MjSpec" for messages.
    """

    mj: mujoco.MjModel
    spec: mujoco.MjSpec | None
    source: str

    def count(self, kind: str) -> int:
        """Number of objects of `kind` ("body", "joint", ...); the world is body 0."""
        return int(self.mj.nsensor if kind == "sensor" else getattr(self.mj, _COUNT[kind]))

    def names(self, kind: str) -> list[str]:
        """Names of all objects of `kind` in id order; an unnamed object gives an empty string."""
        return [mujoco.mj_id2name(self.mj, KINDS[kind], i) or "" for i in range(self.count(kind))]


def load(source: "str | os.PathLike[str] | mujoco.MjSpec | mujoco.MjModel | Robot") -> Robot:
    """Load a robot from an MJCF or URDF file, an `MjSpec` or an `MjModel`; a `Robot` is returned as it is.

    Raises:
      DsoError: the file is missing, is not a model, or names a mesh or include that cannot be found.
    """
    if isinstance(source, Robot):
        return source
    if isinstance(source, mujoco.MjModel):
        return Robot(mj=source, spec=None, source="MjModel")
    if isinstance(source, mujoco.MjSpec):
        return Robot(mj=_compile(source, "MjSpec"), spec=source, source="MjSpec")
    path = pathlib.Path(source)
    if path.is_dir():
        raise DsoError(f"{path}: this is a folder, not a model. Give the MJCF (.xml) or URDF (.urdf) file inside it.")
    if not path.is_file():
        raise DsoError(f"{path}: there is no such model file{_nearby(path)}. Give the path of an MJCF or URDF file.")
    try:
        spec = mujoco.MjSpec.from_file(str(path))
    except (ValueError, mujoco.FatalError) as error:
        raise DsoError(_explain(path, error)) from error
    # Exported files may be saved elsewhere, so meshes and textures must be found from anywhere.
    for field in ("meshdir", "texturedir"):
        folder = path.parent / getattr(spec, field)
        setattr(spec, field, str(folder.resolve()))
    return Robot(mj=_compile(spec, str(path)), spec=spec, source=str(path))


def without_shortcuts(robot: Robot, bodies: Iterable[int]) -> Robot:
    """`robot` with `bodies` compiled so that their centre of mass and inertia may move.

    MuJoCo gives a body whose inertial frame is its joint's a mass matrix with a fixed pattern of zeros. The pattern is made at
    compile time, so it must be given up before such a body's inertia becomes a parameter. The physics stays the same.
    Raises DsoError when there is no description to compile again.
    """
    simple = [i for i in bodies if robot.mj.body_simple[i]]
    if not simple:
        return robot
    names = [mujoco.mj_id2name(robot.mj, KINDS["body"], i) for i in simple]
    if robot.spec is None:
        raise DsoError(
            f"body '{names[0]}' was compiled for an inertial frame that stays at its joint, and a compiled MjModel cannot be "
            'changed; write simple="false" on the body in the MJCF, or load the XML file.'
        )
    spec = robot.spec.copy()
    for name in names:
        spec.body(name).simple = False
    return dataclasses.replace(robot, mj=_compile(spec, robot.source), spec=spec)


def without_delays(robot: Robot) -> Robot:
    """`robot` with no delay in any actuator or sensor: whoever simulates it applies them, starting from a recorded past.

    Raises DsoError when there is no description to compile again.
    """
    model = robot.mj
    if not (np.any(model.actuator_delay) or np.any(model.sensor_delay)):
        return robot
    if robot.spec is None:
        raise DsoError(
            "this model came as a compiled MjModel with delays, which cannot be taken out of it; load the XML file or an "
            "MjSpec."
        )
    spec = robot.spec.copy()
    for element in (*spec.actuators, *spec.sensors):
        element.delay, element.nsample = 0.0, 0
    return dataclasses.replace(robot, mj=_compile(spec, robot.source), spec=spec)


def _compile(spec: mujoco.MjSpec, source: str) -> mujoco.MjModel:
    try:
        return spec.compile()
    except (ValueError, mujoco.FatalError) as error:
        raise DsoError(_explain(pathlib.Path(source), error)) from error


def _explain(path: pathlib.Path, error: Exception) -> str:
    reason = " ".join(str(error).split())
    if "XML parse error" in reason or "Schema violation" in reason or "root element" in reason.lower():
        cure = "Mend the XML at the line named, or give an MJCF or URDF file."
    elif "open file" in reason or "opening file" in reason or "resource" in reason:
        cure = f"File names in the model are looked up from {path.parent.resolve()} and its meshdir or texturedir."
    else:
        cure = "MuJoCo's own compiler refuses the model; `python -m mujoco.viewer --mjcf FILE` shows the same."
    return f"{path}: cannot load this model: {reason}. {cure}"


def _nearby(path: pathlib.Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f" (the folder {folder} does not exist either)"
    found = [p.name for p in sorted(folder.iterdir()) if p.suffix in (".xml", ".urdf")]
    return f" (the folder has {nearest(path.name, found)})" if found else ""
