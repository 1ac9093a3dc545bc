"""Keeps run.h5 up to date while a search runs, so that a killed run loses one iteration, and takes it up again."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import mujoco
import numpy as np

from dso_robotics.core.gauss_newton import Record, Solution
from dso_robotics.data.run_file import read_run, write_run
from dso_robotics.errors import DsoError
from dso_robotics.parameters.vector import ParameterVector
from dso_robotics.physics.model import Robot
from dso_robotics.studies import folder as folders
from dso_robotics.studies.study import IdentifyStudy

_COLUMNS = ("stage", "iteration", "cost", "damping", "z", "sigma")


@dataclasses.dataclass(frozen=True)
class Spent:
    """What a run has cost so far, earlier sittings included: seconds, simulated steps, residual evaluations."""

    seconds: float = 0.0
    steps: int = 0
    evaluations: int = 0


class Inputs(Protocol):
    """A study that reads a model and logs."""

    @property
    def model(self) -> str:
        """Its model file."""
        ...

    @property
    def logs(self) -> Sequence[str]:
        """Its log files."""
        ...


class Checkpoint:
    """The run file of one identification.

    state: None for a new run; for a resumed one (z, start states, noise scales, stage, damping) of the last iteration.
    jumps: the scale of the jumps between windows there, where a study has one.
    past: the records of that stage before it, which the search's end depends on.
    outcome: None, or (converged, message) of a resumed run whose search had ended but whose result was not written.
    before: what a resumed run had cost.
    Raises DsoError when a run to resume was begun with another study, model or log, or has finished.
    """

    def __init__(self, folder: Path, study: IdentifyStudy, robot: Robot, vector: ParameterVector, *, resume: bool):
        self.path = folder / folders.RUN
        self._study, self._vector, self._new = study.as_dict(), vector, not resume
        self._mjcf = robot.spec.to_xml() if robot.spec is not None else ""
        self._inputs = fingerprints(robot, study) | _own_residual(study)
        self._history: list[tuple[Any, ...]] = []
        self._last: dict[str, Any] = {}
        self.state: tuple[np.ndarray, np.ndarray, np.ndarray, int, float] | None = None
        self.jumps: np.ndarray | None = None
        self.past: tuple[Record, ...] = ()
        self.outcome: tuple[bool, str] | None = None
        self.before = Spent()
        if resume:
            self._take_up(folder)

    def _take_up(self, folder: Path) -> None:
        tree, stored, _ = read_run(self.path)
        mine = json.loads(json.dumps(self._study))
        changed = [key for key in mine if key not in ("model", "logs", "residual") and stored.get(key) != mine[key]]
        if changed:
            raise DsoError(
                f"{self.path}: --resume needs the study that was begun, but {', '.join(changed)} differ(s); "
                f"`dso identify --resume --out {folder}` alone takes the study from the run file."
            )
        try:
            compare_inputs(self._inputs, tree["inputs"], self.path)
            if tree["status"] == "finished" and (folder / folders.SUMMARY).exists():
                raise DsoError(f"{self.path}: this run has finished already; its result is in {folder}.")
            state, history = tree["state"], tree["history"]
            self._history = list(zip(*(history[name] for name in _COLUMNS), strict=True))[:-1]
            z, x, sigma = (np.asarray(state[name], float) for name in ("z", "start", "sigma"))
            stage, damping = int(state["stage"]), float(state["damping"])
            self.jumps = np.asarray(state["jumps"], float) if "jumps" in state else None
            self.past = tuple(Record(int(h[1]), float(h[2]), float(h[3]), h[4]) for h in self._history if h[0] == stage)
            self.before = Spent(float(state["seconds"]), int(state["steps"]), int(state["evaluations"]))
            if tree["status"] != "running":
                self.outcome = bool(tree["converged"]), str(tree["message"])
        except (KeyError, TypeError, ValueError) as error:
            raise DsoError(
                f"{self.path}: the run file is damaged ({error}); run the study again without --resume."
            ) from error
        if z.shape != (self._vector.size,) or x.ndim != 2 or sigma.ndim != 2 or stage not in (0, 1):
            raise DsoError(f"{self.path}: what it holds does not fit the study; run the study again without --resume.")
        self.state = (z, x, sigma, stage, damping)

    def fits(self, windows: int, width: int, recordings: int, channels: int) -> None:
        """Raise DsoError when a resumed state is not that of these windows."""
        if self.state and (self.state[1].shape != (windows, width) or self.state[2].shape != (recordings, channels)):
            raise DsoError(f"{self.path}: what it holds does not fit the study; run the study again without --resume.")

    def save(
        self,
        stage: int,
        record: Record,
        x: np.ndarray,
        sigma: np.ndarray,
        spent: Spent,
        jumps: np.ndarray | None = None,
    ) -> None:
        """Store one accepted iteration; the first of a new run replaces what an earlier run left in the folder."""
        self._history.append((stage, record.iteration, record.cost, record.damping, record.z, sigma))
        state = {"z": record.z, "start": x, "sigma": sigma, "stage": stage, "damping": record.damping}
        if jumps is not None:
            state["jumps"] = jumps
        self._last = {"status": "running", "state": state | dataclasses.asdict(spent)}
        self._write({})

    def searched(self, solution: Solution) -> None:
        """Store how the search ended, so that a run killed from here on is resumed without searching."""
        self._last |= {"status": "searched", "converged": solution.converged, "message": solution.message}
        self._write({})

    def finish(self, result: dict[str, Any]) -> None:
        """Store `result`, everything the report shows."""
        self._last["status"] = "finished"
        self._write(result)

    def _write(self, more: dict[str, Any]) -> None:
        columns = zip(*self._history, strict=True)
        history = {name: np.array(column) for name, column in zip(_COLUMNS, columns, strict=True)}
        names = list(self._vector.coordinate_names)
        tree = {"names": names, "history": history, "inputs": self._inputs, **self._last, **more}
        try:
            write_run(self.path, tree, self._study, self._mjcf, ready=self._ready)
        except DsoError as error:
            kept = "what was found so far is kept; go on with --resume once this is mended"
            raise DsoError(f"{error} {f'In {self.path.name} {kept}.' if self._kept else ''}".rstrip()) from error

    @property
    def _kept(self) -> bool:
        return not self._new and self.path.exists()

    def _ready(self) -> None:
        if self._new:
            folders.clear(self.path.parent)
            self._new = False


def fingerprints(robot: Robot, study: Inputs) -> dict[str, Any]:
    """Where the inputs lie and what they hold: SHA-256 of the compiled model, meshes included, and of each log file."""
    logs = [Path(log) for log in study.logs]
    return {
        "model": str(Path(study.model).resolve()),
        "model_sha256": model_sha256(robot.mj),
        "logs": [str(log.resolve()) for log in logs],
        "logs_sha256": [hashlib.sha256(log.read_bytes()).hexdigest() for log in logs],
    }


def _own_residual(study: IdentifyStudy) -> dict[str, str]:
    """Where the user's own residual lies, and SHA-256 of its file."""
    if not study.residual:
        return {}
    file, _, name = study.residual.rpartition(":")
    sha256 = hashlib.sha256(Path(file).read_bytes()).hexdigest()
    return {"residual": f"{Path(file).resolve()}:{name}", "residual_sha256": sha256}


def model_sha256(model: mujoco.MjModel) -> str:
    """SHA-256 of a compiled model, meshes included."""
    compiled = np.empty(mujoco.mj_sizeModel(model), np.uint8)
    mujoco.mj_saveModel(model, None, compiled)
    return hashlib.sha256(compiled.tobytes()).hexdigest()


def compare_inputs(mine: dict[str, Any], stored: dict[str, Any], path: Path) -> None:
    """Raise DsoError when the model or a log is not the one that the run in `path` was begun with."""
    cure = "--resume needs what the run was begun with; put that back, or choose another --out for a new run"
    if mine["model_sha256"] != stored["model_sha256"]:
        raise DsoError(f"{path}: the model {mine['model']} has changed since the run was begun; {cure}.")
    if len(mine["logs"]) != len(stored["logs_sha256"]):
        raise DsoError(f"{path}: logs differ(s) in number from those the run was begun with; {cure}.")
    for log, now, then in zip(mine["logs"], mine["logs_sha256"], stored["logs_sha256"], strict=True):
        if now != then:
            raise DsoError(f"{path}: the log {log} has changed since the run was begun; {cure}.")
    then, now = (str(inputs.get("residual", "")) for inputs in (stored, mine))
    if bool(then) != bool(now) or then.rpartition(":")[2] != now.rpartition(":")[2]:
        raise DsoError(f"{path}: the run was begun with {then or 'no residual'}, not {now or 'none'}; {cure}.")
    if mine.get("residual_sha256") != stored.get("residual_sha256"):
        raise DsoError(f"{path}: the residual {now} has changed since the run was begun; {cure}.")


def stored_study(folder: str | Path) -> IdentifyStudy:
    """The study of the run in `folder`, its files where they lay when it was begun.

    Raises:
      DsoError: there is no run file, or it is damaged.
    """
    path = Path(folder) / folders.RUN
    if not path.is_file():
        raise DsoError(f"--resume: {folder} has no {folders.RUN} to go on from; leave --resume out to start a new run.")
    tree, stored, _ = read_run(path)
    try:
        inputs = tree["inputs"]
        places = {"model": inputs["model"], "logs": list(inputs["logs"]), "residual": inputs.get("residual")}
        return IdentifyStudy.from_dict(stored | places)
    except (KeyError, TypeError, ValueError) as error:
        raise DsoError(f"{path}: the run file is damaged ({error}); run the study again without --resume.") from error
