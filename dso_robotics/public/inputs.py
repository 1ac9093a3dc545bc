"""What a caller hands over, made into what a study holds: models and logs into files, texts into declarations."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dso_robotics.data.log import Log, read_log, write_log
from dso_robotics.errors import DsoError
from dso_robotics.parameters.path import Declaration, parse
from dso_robotics.physics.description import copy_back, same
from dso_robotics.physics.export import to_mjcf
from dso_robotics.physics.model import Robot, load

_FREE_KEYS = ("path", "init", "low", "high", "prior", "log_prior")
Logs = str | os.PathLike[str] | Log | Sequence[str | os.PathLike[str] | Log]


class Inputs:
    """Writes objects to `folder`; `names` says what a caller knows each file by, for messages."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.names: dict[str, str] = {}

    def model(self, source: Any) -> str:
        """The path of a model file; an object is written as MJCF unless it is what its own file holds.

        Raises:
          DsoError: it is no model, or an `MjModel` whose MJCF cannot be had.
        """
        if isinstance(source, str | os.PathLike):
            return os.fspath(source)
        robot = load(source)
        if isinstance(source, Robot) and Path(source.source).is_file() and same(load(source.source).mj, source.mj):
            return source.source
        robot = _faithful(robot)
        spec = self._with_assets(robot)
        name = (
            Path(robot.source).stem if Path(robot.source).suffix else re.sub(r"[^\w.-]", "_", spec.modelname) or "model"
        )
        return self._put(f"{name}.xml", robot.source, to_mjcf(Robot(robot.mj, spec, robot.source), {}))

    def _with_assets(self, robot: Robot) -> Any:
        """The specification with its meshes and textures where they are found from any folder."""
        spec = robot.spec.copy()  # type: ignore[union-attr]
        if spec.assets:
            place = self.folder / "assets"
            for name, content in spec.assets.items():
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                (place / name).write_bytes(content if isinstance(content, bytes) else str(content).encode())
            spec.meshdir = spec.texturedir = str(place)
        elif spec.modelfiledir:
            for field in ("meshdir", "texturedir"):
                setattr(spec, field, str((Path(spec.modelfiledir) / getattr(spec, field)).resolve()))
        return spec

    def logs(self, source: Any) -> tuple[str, ...]:
        """Paths of log files; a `Log` is written as one.

        Raises:
          DsoError: it is neither a path nor a log, nor several of them.
        """
        return tuple(self.log(part) for part in _several(source))

    def log(self, source: Any) -> str:
        """The path of one log file, written if a `Log` was given."""
        if isinstance(source, str | os.PathLike):
            return os.fspath(source)
        source = _checked(source)
        stem = Path(source.path).stem if source.path and "," not in source.path else "log"
        name, number = f"{stem}.h5", 1
        while (self.folder / name).exists():
            number += 1
            name = f"{stem}-{number}.h5"
        path = self.folder / name
        write_log(path, source)
        self.names[str(path)] = source.label
        return str(path)

    def _put(self, name: str, known_as: str, text: str) -> str:
        path = self.folder / name
        path.write_text(text, "utf-8")
        self.names[str(path)] = known_as
        return str(path)


def read_logs(source: Any) -> list[Log]:
    """One or several logs, those that are paths read.

    Raises:
      DsoError: one is neither a path nor a log, or cannot be read.
    """
    return [read_log(os.fspath(p)) if isinstance(p, str | os.PathLike) else _checked(p) for p in _several(source)]


def _several(source: Any) -> list[Any]:
    if isinstance(source, str | os.PathLike | Log):
        return [source]
    if isinstance(source, Mapping) or not isinstance(source, Iterable):
        raise DsoError(f"logs: {source!r} is no log; give a path, what `read_log` returned, or a list of these.")
    return list(source)


def _checked(log: Any) -> Log:
    if not isinstance(log, Log):
        raise DsoError(f"logs: {type(log).__name__} is no log; give a path or what `read_log` returned.")
    return log


def _faithful(robot: Robot) -> Robot:
    """`robot` with a specification that compiles to its model, whatever was changed in the model since."""
    if robot.spec is None:
        raise DsoError(
            "this MjModel has no MJCF, which the result needs: MuJoCo keeps that of the model loaded last, another one, or it "
            "needs files that are not found from here. Pass the path of the model, its MjSpec, or what `load` made of it."
        )
    spec = robot.spec.copy()
    if same(spec.compile(), robot.mj):
        return Robot(robot.mj, spec, robot.source)
    try:
        copy_back(spec, robot.mj)
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise DsoError(
            f"{robot.source}: what was changed in the compiled model cannot be written as MJCF ({reason}); change the "
            "MjSpec or the file."
        ) from error
    return Robot(spec.compile(), spec, robot.source)


def declarations(free: Any) -> tuple[Declaration, ...]:
    """What is free: one or several texts `PATH[=INIT][@LOW:HIGH]`, declarations, or tables with a path and numbers.

    Raises:
      DsoError: one of them cannot be read.
    """
    parts = [free] if isinstance(free, str | Declaration | Mapping) else free
    return tuple(_declaration(part) for part in parts)


def _declaration(part: Any) -> Declaration:
    if isinstance(part, Declaration):
        return part
    if isinstance(part, str):
        return parse(part)
    if not isinstance(part, Mapping) or not isinstance(part.get("path"), str):
        raise DsoError(
            f"free: {part!r} is no parameter; write a path such as 'joint/elbow/damping=0.1@0:2', or a dict with path, init, "
            "low, high, prior."
        )
    for key in part:
        if key not in _FREE_KEYS:
            raise DsoError(f"free: {part['path']}: there is no '{key}'; a parameter has {', '.join(_FREE_KEYS)}.")
    if "prior" in part and "log_prior" in part:
        raise DsoError(f"free: {part['path']}: give prior or log_prior, not both.")
    prior = part.get("prior", part.get("log_prior"))
    try:
        numbers = {key: float(part[key]) for key in ("init", "low", "high") if part.get(key) is not None}
        pair = None if prior is None else tuple(map(float, prior))
    except (TypeError, ValueError):
        pair, numbers = (), {}
    if pair is not None and len(pair) != 2:
        raise DsoError(
            f"free: {part['path']}: init, low and high are numbers, prior is (mean, standard deviation) and log_prior (median, "
            "standard deviation of the logarithm)."
        )
    return Declaration(part["path"], prior=pair, log_prior="log_prior" in part, **numbers)


def held_out(choice: Any) -> str:
    """`hold_out` as a study has it, from a fraction, a name or several names.

    Raises:
      DsoError: it is none of these.
    """
    parts = choice if isinstance(choice, list | tuple) else [choice]
    if not all(isinstance(part, str | int | float) and not isinstance(part, bool) for part in parts):
        raise DsoError(f"hold_out: {choice!r} is neither a fraction such as 0.25 nor names of rollouts.")
    return ",".join(map(str, parts))
