"""The run of one study: its result folder and its run file. An interrupted run resumes from the run file.

Every command uses this module, and `studies.search` for its search. It locks the folder, writes the run file before the
first step, and then so often that a killed run loses less than a minute. A resumed run ends with the same numbers as an
uninterrupted one.
"""

import contextlib
import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import mujoco
import numpy as np

from dso_robotics.core import hosts
from dso_robotics.core.method.settings import Settings
from dso_robotics.data.bundle import write_bundled
from dso_robotics.data.run_file import read_run, write_run
from dso_robotics.errors import DsoError
from dso_robotics.physics.markup import files as model_files
from dso_robotics.physics.model import Robot
from dso_robotics.progress.phase import earlier, listening, phase
from dso_robotics.progress.report import Progress
from dso_robotics.robot.deployed_model import DIGEST, model_digest
from dso_robotics.studies import folder as folders
from dso_robotics.studies.checkpoint import Reading, count, damaged
from dso_robotics.studies.code import refuse_unnamed
from dso_robotics.table import Study

# Seconds between two writes of the run file when the steps of a search are short.
EVERY = 20.0
# Keys of a study that name files. The contents of these files are compared, not their paths.
_PLACES = ("model", "logs", "log", "file", "init", "from", "catalogue")
# Iterations of a training that says nothing about them.
_USUAL = Settings().iterations
# The parts of a stored search.
_KEPT = (
    "state",
    "records",
    "best",
    "spent",
    "earlier",
    "theta",
    "scaling",
    "action",
    "named",
    "numbers",
    "race",
    "choice",
    "rounding",
)
_PUT_BACK = "--resume needs what the run was begun with; put that back, or choose another --out for a new run"

T = TypeVar("T", bound=Study)


class Session:
    """One session of a study in its folder: `begin` opens the run file, `search` fills it, and `finish` writes the results."""

    def __init__(self, folder: Path, *, resume: bool, longer: bool = False):
        self.folder, self._resume, self._longer = folder, resume, longer
        self._began = time.perf_counter()
        self.file: RunFile | None = None

    def compare(self, files: Mapping[str, str | Path]) -> None:
        """Compare files with those that the run to resume was begun with, before one of them is run.

        Raises:
          DsoError: a file has changed, or the run was begun without it.
        """
        if not self._resume:
            return
        path = self.folder / folders.RUN
        stored = read_run(path)[0].get("inputs", {})
        for label, file in files.items():
            if label not in stored:
                raise DsoError(f"{path}: the run was begun with other files: {', '.join(stored)}; {_PUT_BACK}.")
            if _digest(stored, label) != sha256(file):
                raise DsoError(f"{path}: the {label} {file} has changed since the run was begun; {_PUT_BACK}.")

    def kept(self, name: str) -> Any:
        """A group that the run to resume has kept; None if there is none, or nothing is resumed."""
        return read_run(self.folder / folders.RUN)[0].get(name) if self._resume else None

    def begin(
        self, study: Mapping[str, Any], robot: Robot, files: Mapping[str, str | Path], *, every: float = 0.0
    ) -> "RunFile":
        """Open the run file; see `RunFile`."""
        options: dict[str, Any] = {"resume": self._resume, "every": every, "began": self._began, "longer": self._longer}
        self.file = file = RunFile(self.folder, study, robot, files=files, **options)
        earlier(file.tree.get("seconds", 0.0))
        return file

    def finish(
        self, summary: dict[str, Any], mjcf: str, report: Callable[[Path], object] | None, groups: Mapping[str, Any]
    ) -> None:
        """Write model.xml, run.h5 with `groups`, the output of `report`, and finally summary.json.

        Raises:
          DsoError: a file cannot be written, or the report fails. The results found so far are kept.
        """
        assert self.file is not None
        self.file.replace_earlier()
        with self._kept("finishes it"):
            written = folders.write_model(self.folder, mjcf)
        summary["seconds"]["total"] = self.file.seconds
        told = {"summary": json.dumps(folders.finite(summary)), DIGEST: model_digest(written, self.folder)}
        self.file.write("finished", **told, **groups)
        if report is not None and not hosts.index():
            with phase("report"), self._kept("draws the report"):
                report(self.folder)
        summary["seconds"]["total"] = self.file.seconds
        with self._kept("finishes it"):
            folders.write_summary(self.folder, summary)

    @contextlib.contextmanager
    def _kept(self, rest: str) -> Iterator[None]:
        """Say of a failure that what was found is kept, and what --resume does."""
        try:
            yield
        except DsoError as error:
            raise DsoError(f"{error} The run itself is kept in {self.folder}; --resume {rest}.") from error


@contextlib.contextmanager
def session(
    out: str | Path,
    *,
    resume: bool,
    force: bool,
    longer: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Iterator[Session]:
    """A session in the folder `out`. No other run can write to it at the same time; see `studies.folder.claim`.

    longer: whether a run that is resumed may have finished, and gets more iterations.
    progress: called with every report; by default whoever listens already gets them.
    """
    heard = contextlib.nullcontext() if progress is None else listening(progress)
    with heard, _claimed(out, resume=resume, force=force) as folder:
        yield Session(folder, resume=resume, longer=longer)


@contextlib.contextmanager
def _claimed(out: str | Path, *, resume: bool, force: bool) -> Iterator[Path]:
    """The folder of the run. Of several processes only the first one has it; the others write nothing that stays."""
    if hosts.index() == 0:
        with contextlib.ExitStack() as stack:
            try:
                folder = stack.enter_context(folders.claim(out, resume=resume, force=force))
            except DsoError:
                hosts.agreed(False)
                raise
            hosts.agreed(True)
            yield folder
        return
    with tempfile.TemporaryDirectory() as place:
        if resume and (Path(out) / folders.RUN).is_file():
            shutil.copy(Path(out) / folders.RUN, place)
        if not hosts.agreed(True):
            raise DsoError("the first process could not begin; its message says why.")
        if resume and not (Path(place) / folders.RUN).is_file():
            raise DsoError(f"--resume: {out} is not seen by this process; put the folder where all hosts read it.")
        yield Path(place)


class RunFile:
    """The run file `run.h5` of a study in `folder`.

    study: the study as JSON-ready values, with its "command".
    files: the files that the study reads besides its model, by the names that messages use.
    every: maximum age of the stored state [s].
    began: value of `time.perf_counter` when the run began.
    tree: contents stored by an earlier session; empty for a new run.

    Raises DsoError when the run to resume used another study, model or file, has finished, or is damaged.
    """

    def __init__(
        self,
        folder: Path,
        study: Mapping[str, Any],
        robot: Robot,
        *,
        files: Mapping[str, str | Path],
        resume: bool,
        every: float = 0.0,
        began: float | None = None,
        longer: bool = False,
    ):
        self._longer = longer
        self.path, self._study, self._new = folder / folders.RUN, resolved(study), not resume
        self._inputs = {"model": {"path": str(robot.source), "sha256": model_sha256(robot.mj)}}
        read = [str(robot.source)] if Path(robot.source).is_file() else []
        folders.refuse_inputs(
            folder, [*read, *(named for path in read for named in model_files(Path(path))), *files.values()]
        )
        self._mjcf = write_bundled(folder, robot.spec.to_xml()) if robot.spec is not None else ""
        for label, file in files.items():
            self._inputs[label] = {"path": str(Path(file).resolve()), "sha256": sha256(file)}
        self._every, self._began = every, time.perf_counter() if began is None else began
        self._saved = -float("inf")
        self._kept: dict[str, Any] = {}
        self.tree: dict[str, Any] = {}
        if resume:
            self._take_up(folder)

    def _take_up(self, folder: Path) -> None:
        tree, stored, _ = read_run(self.path)
        command = self._study["command"]
        if stored.get("command", command) != command:
            raise DsoError(f"{self.path}: this is a run of `dso {stored['command']}`; resume it with that.")
        finished = tree.get("status") == "finished" and (folder / folders.SUMMARY).exists()
        if finished and not self._longer:
            more = " To go on with it, give more --iterations." if command in ("train", "design") else ""
            raise DsoError(f"{self.path}: this run has finished already; its result is in {folder}.{more}")
        mine, theirs = placeless(self._study), placeless(stored)
        if self._longer:
            mine, theirs = self._without_length(mine, theirs, finished=finished)
        changed = [key for key in mine if mine[key] != theirs.get(key)]
        if changed:
            raise DsoError(
                f"{self.path}: --resume needs the study that was begun, but {', '.join(changed)} differ(s); "
                f"`dso {command} --resume --out {folder}` alone takes the study from the run file."
            )
        with Reading(self.path):
            self._compare(tree["inputs"])
            searched = "state" in tree or "records" in tree  # a study that does not search has none of them
            for name in ("state", "records", "spent"):
                tree[name] = dict(tree[name] if searched else tree.get(name, {}))
            tree["seconds"], tree["status"] = float(tree["seconds"]), str(tree["status"])
        self.tree = tree
        self._kept = {name: tree[name] for name in _KEPT if name in tree}

    def _without_length(self, mine: Any, theirs: Any, *, finished: bool) -> tuple[Any, Any]:
        """Both studies without the number of iterations, which may grow."""
        parts = [dict(study.get("training", {})) for study in (mine, theirs)]
        now, then = (int(part.pop("iterations", _USUAL)) for part in parts)
        if now < then or (finished and now == then):
            raise DsoError(
                f"{self.path}: the run has {then} iterations{' and has finished' if finished else ''}; give --iterations more "
                f"than that, not {now}."
            )
        return {**mine, "training": parts[0]}, {**theirs, "training": parts[1]}

    def _compare(self, stored: Mapping[str, Any]) -> None:
        if set(stored) != set(self._inputs):
            raise DsoError(f"{self.path}: the run was begun with other files: {', '.join(stored)}; {_PUT_BACK}.")
        for label, entry in self._inputs.items():
            if entry["sha256"] != _digest(stored, label):
                raise DsoError(
                    f"{self.path}: the {label} {entry['path']} has changed since the run was begun; {_PUT_BACK}."
                )

    @property
    def seconds(self) -> float:
        """Duration of the run so far [s], earlier sessions included."""
        return self.tree.get("seconds", 0.0) + time.perf_counter() - self._began

    def due(self) -> bool:
        """Whether the file is older than `every`."""
        return hosts.agreed(time.perf_counter() - self._saved >= self._every)

    def keep(self, **groups: Any) -> None:
        """Include these groups in every later write."""
        self._kept |= groups

    def count(self, name: str) -> int:
        """A whole number among the values that an earlier session stored with a moment; see `checkpoint.count`."""
        return count(self.tree.get("spent", {}), name, self.path)

    def kept(self, name: str) -> Any:
        """A kept group, or None if there is none of that name."""
        return self._kept.get(name)

    def write(self, status: str = "running", **more: Any) -> None:
        """Write all kept groups, and `more`. The first write of a new run replaces the files of an earlier run."""
        if hosts.index():
            self._saved = time.perf_counter()
            return
        tree = {"inputs": self._inputs, "seconds": self.seconds, **self._kept, "status": status, **more}
        try:
            write_run(self.path, tree, self._study, self._mjcf, ready=self._ready)
        except DsoError as error:
            kept = "what was found so far is kept; go on with --resume once this is mended"
            told = "" if self._new or not self.path.exists() else f"In {self.path.name} {kept}."
            raise DsoError(f"{error} {told}".rstrip()) from error
        self._saved = time.perf_counter()

    def replace_earlier(self) -> None:
        """Remove the files of an earlier run, as the first write of a new run does, if nothing was written yet."""
        if self._new:
            self.write()

    def _ready(self) -> None:
        if self._new:
            folders.clear(self.path.parent)
            self._new = False


def model_sha256(model: mujoco.MjModel) -> str:
    """SHA-256 of a compiled model, meshes included."""
    compiled = np.empty(mujoco.mj_sizeModel(model), np.uint8)
    mujoco.mj_saveModel(model, None, compiled)
    return hashlib.sha256(compiled.tobytes()).hexdigest()


def sha256(path: str | Path) -> str:
    """SHA-256 of a file. Raises DsoError when it cannot be read."""
    try:
        with Path(path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DsoError(f"{path}: cannot be read ({reason}); check the path and its permissions.") from error


def _digest(stored: Any, label: str) -> Any:
    entry = stored[label]
    return entry.get("sha256") if isinstance(entry, Mapping) else None


def resolved(study: Mapping[str, Any]) -> dict[str, Any]:
    """A study as JSON values, with absolute file paths, so that the run file alone is enough to resume."""

    def absolute(key: str, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: absolute(name, entry) for name, entry in value.items()}
        if key == "logs":
            return [str(Path(entry).resolve()) for entry in value]
        if key == "residual" and value:
            file, _, name = value.rpartition(":")
            return f"{Path(file).resolve()}:{name}"
        return str(Path(value).resolve()) if key in _PLACES and isinstance(value, str) and value else value

    return absolute("", json.loads(json.dumps(study, default=str)))


def placeless(value: Any) -> Any:
    """A part of a stored study without file paths. The contents of files are compared, not their paths."""
    if not isinstance(value, dict):
        return value
    kept = {key: placeless(entry) for key, entry in value.items() if key not in (*_PLACES, "source")}
    if kept.get("residual"):
        kept["residual"] = str(kept["residual"]).rpartition(":")[2]
    return kept


def stored_study(folder: str | Path, command: str, kind: type[T], named: Mapping[str, Any]) -> T:
    """The study of the run in `folder`, with the file paths it had at the start, changed by the values `named` by the user.

    kind: its class.

    Raises:
      DsoError: there is no run file, it is damaged, it belongs to another command, or it uses a Python file that is not
        among `named`.
    """
    path = Path(folder) / folders.RUN
    if not path.is_file():
        raise DsoError(f"--resume: {folder} has no {folders.RUN} to go on from; leave --resume out to start a new run.")
    _, stored, _ = read_run(path)
    begun = stored.pop("command", None)
    if begun != command:
        raise DsoError(f"--resume: {path} is a run of `dso {begun or 'an older version'}`; resume it with that.")
    refuse_unnamed(path, stored, named, command)
    try:
        found = kind.from_dict(stored)
    except (DsoError, KeyError, TypeError, ValueError) as error:
        raise damaged(path, error) from error
    return found.changed(named)
