"""Converts a caller's inputs to study values: models and logs to files, texts to declarations."""

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from dso_robotics.data.log import Log, read_log, write_log
from dso_robotics.errors import DsoError
from dso_robotics.physics.description import copy_back, same
from dso_robotics.physics.export import to_mjcf
from dso_robotics.physics.model import Robot, load
from dso_robotics.public.place import Place
from dso_robotics.public.wording import speaking_python
from dso_robotics.studies.run import stored_study
from dso_robotics.table import Study

T = TypeVar("T", bound=Study)
Logs = str | os.PathLike[str] | Log | Sequence[str | os.PathLike[str] | Log]


@contextlib.contextmanager
def sitting(out: "str | os.PathLike[str] | None") -> Iterator[tuple[Place, "Inputs"]]:
    """The place of a run, and the writer of its inputs. A failed run leaves no temporary files.

    Error messages inside refer to arguments, and to objects by the names that the caller knows.
    """
    place = Place(out)
    inputs = Inputs(place.inputs)
    try:
        with speaking_python(inputs.names):
            yield place, inputs
    except BaseException:
        place.remove()
        raise


class Inputs:
    """Writes objects to `folder`. `names` maps each file to the caller's name for it, for messages."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.names: dict[str, str] = {}

    def model(self, source: Any) -> str:
        """The path of a model file. An object is written as MJCF unless its own file already matches it.

        Raises:
          DsoError: it is not a model, or it is an `MjModel` whose MJCF is not available.
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
        """The specification with paths of meshes and textures that work from any folder."""
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
        """Paths of log files. A `Log` object is written to a file.

        Raises:
          DsoError: `source` is not a path, a log or several of them.
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

    def study(self, kind: type[T], file: Any, given: Mapping[str, Any], resumed: Any, command: str = "") -> T:
        """The study from `file` and the given values, from the given values alone, or from the run in folder `resumed`.

        Raises:
          DsoError: a key is missing, unknown or has a wrong value.
        """
        values = {key: value for key, value in given.items() if value is not None}
        if "model" in values:
            values["model"] = self.model(values["model"])
        if "logs" in values:
            values["logs"] = self.logs(values["logs"])
        if file is None and resumed is not None and "model" not in values:
            return stored_study(resumed, command or kind.command, kind, values)
        return kind.read(file, **values)

    def _put(self, name: str, known_as: str, text: str) -> str:
        path = self.folder / name
        path.write_text(text, "utf-8")
        self.names[str(path)] = known_as
        return str(path)


def read_logs(source: Any) -> list[Log]:
    """One or several logs. Paths are read.

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
    """`robot` with a specification that compiles to its model, including later changes to the model."""
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
