"""Keeps the run file of `dso estimate` up to date while it searches, so that a killed run loses at most a minute."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from dso_robotics.data.run_file import read_run, write_run
from dso_robotics.errors import DsoError
from dso_robotics.physics.model import Robot
from dso_robotics.studies import folder as folders
from dso_robotics.studies.checkpoint import compare_inputs, fingerprints
from dso_robotics.studies.estimate_study import EstimateStudy

# Iterations of Adam are short; writing each would take longer than making it.
_SECONDS = 20.0


class EstimateCheckpoint:
    """The run file of one estimator's training.

    state: None for a new run, else what `save` was given last, with `seconds` the run had taken by then.
    Raises DsoError when a run to resume was begun with another study, model or log, or has finished.
    """

    def __init__(self, folder: Path, study: EstimateStudy, robot: Robot, *, resume: bool):
        self.path = folder / folders.RUN
        self._study, self._new = study.as_dict(), not resume
        self._mjcf = robot.spec.to_xml() if robot.spec is not None else ""
        self._inputs = fingerprints(robot, study)
        self._began = self._saved = time.perf_counter()
        self.state: dict[str, Any] | None = None
        self._before = 0.0
        if resume:
            self._take_up(folder)

    def _take_up(self, folder: Path) -> None:
        tree, stored, _ = read_run(self.path)
        mine = json.loads(json.dumps(self._study))
        changed = [key for key in mine if key not in ("model", "logs") and stored.get(key) != mine[key]]
        if changed:
            raise DsoError(
                f"{self.path}: --resume needs the study that was begun, but {', '.join(changed)} differ(s); "
                f"`dso estimate --resume --out {folder}` alone takes the study from the run file."
            )
        try:
            if tree["status"] == "finished":
                raise DsoError(f"{self.path}: this run has finished already; its result is in {folder}.")
            compare_inputs(self._inputs, tree["inputs"], self.path)
            self.state = dict(tree["state"])
            self._before = float(self.state["seconds"])
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(self.path, error) from error

    @property
    def seconds(self) -> float:
        """What the run has taken so far [s], earlier sittings included."""
        return self._before + time.perf_counter() - self._began

    def save(self, state: dict[str, Any], *, always: bool = True) -> None:
        """Store where the search is; without `always`, only when the last time was a while ago."""
        now = time.perf_counter()
        if not always and now - self._saved < _SECONDS:
            return
        self._saved = now
        self.write({"status": "running", "state": state | {"seconds": self.seconds}})

    def write(self, tree: dict[str, Any]) -> None:
        """Write the run file; the first of a new run replaces what an earlier run left in the folder."""
        write_run(self.path, {"inputs": self._inputs, **tree}, self._study, self._mjcf, ready=self._ready)

    def _ready(self) -> None:
        if self._new:
            folders.clear(self.path.parent)
            self._new = False


def take(state: dict[str, Any], shapes: dict[str, tuple[int | None, ...]], path: Path) -> dict[str, np.ndarray]:
    """Arrays of a stored state, checked against what the study makes of their shapes (None: any length)."""
    found = {}
    for name, shape in shapes.items():
        try:
            value = np.asarray(state[name], float)
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(path, error) from error
        if len(value.shape) != len(shape) or any(b not in (a, None) for a, b in zip(value.shape, shape, strict=True)):
            raise DsoError(f"{path}: what it holds does not fit the study; run the study again without --resume.")
        found[name] = value
    return found


def stored_estimate_study(folder: str | Path) -> EstimateStudy:
    """The study of the run in `folder`, its files where they lay when it was begun.

    Raises:
      DsoError: there is no run file, it is damaged, or it is another command's.
    """
    path = Path(folder) / folders.RUN
    if not path.is_file():
        raise DsoError(f"--resume: {folder} has no {folders.RUN} to go on from; leave --resume out to start a new run.")
    tree, stored, _ = read_run(path)
    if stored.get("command") != "estimate":
        raise DsoError(f"--resume: {path} is a run of `dso {stored.get('command', 'identify')}`; resume it with that.")
    try:
        return EstimateStudy.from_dict(
            stored | {"model": tree["inputs"]["model"], "logs": list(tree["inputs"]["logs"])}
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> DsoError:
    return DsoError(f"{path}: the run file is damaged ({error}); run the study again without --resume.")
