"""Keeps run.h5 up to date while a search runs, so that a killed run loses one iteration, and takes it up again."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from dso_robotics.core.gauss_newton import Record
from dso_robotics.data.run_file import read_run, write_run
from dso_robotics.errors import DsoError
from dso_robotics.parameters.vector import ParameterVector
from dso_robotics.physics.model import Robot
from dso_robotics.studies import folder as folders
from dso_robotics.studies.study import IdentifyStudy

_COLUMNS = ("stage", "iteration", "cost", "damping", "z", "sigma")


class Checkpoint:
    """The run file of one identification.

    state: None for a new run; for a resumed one (z, start states, noise scales, stage, damping) of the last iteration.
    Raises DsoError when a run to resume was begun with another study, or has finished.
    """

    def __init__(self, folder: Path, study: IdentifyStudy, robot: Robot, vector: ParameterVector, *, resume: bool):
        self.path = folder / folders.RUN
        self._study, self._vector = study.as_dict(), vector
        self._mjcf = robot.spec.to_xml() if robot.spec is not None else ""
        self._history: list[tuple[Any, ...]] = []
        self._last: dict[str, Any] = {}
        self.state: tuple[np.ndarray, np.ndarray, np.ndarray, int, float] | None = None
        if resume:
            self._take_up(folder)

    def _take_up(self, folder: Path) -> None:
        tree, stored, _ = read_run(self.path)
        mine = json.loads(json.dumps(self._study))
        changed = [key for key in mine if stored.get(key) != mine[key]]
        if changed:
            raise DsoError(
                f"{self.path}: --resume needs the study that was begun, but {', '.join(changed)} differ(s); "
                "give the same arguments, or another --out for a new run."
            )
        try:
            if tree["status"] == "finished":
                raise DsoError(f"{self.path}: this run has finished already; its result is in {folder}.")
            state, history = tree["state"], tree["history"]
            self._history = list(zip(*(history[name] for name in _COLUMNS), strict=True))[:-1]
            z, x, sigma = (np.asarray(state[name], float) for name in ("z", "start", "sigma"))
            stage, damping = int(state["stage"]), float(state["damping"])
        except (KeyError, TypeError, ValueError) as error:
            raise DsoError(
                f"{self.path}: the run file is damaged ({error}); run the study again without --resume."
            ) from error
        if z.shape != (self._vector.size,) or x.ndim != 2 or sigma.ndim != 2 or stage not in (0, 1):
            raise DsoError(f"{self.path}: what it holds does not fit the study; run the study again without --resume.")
        self.state = (z, x, sigma, stage, damping)

    def fits(self, windows: int, width: int, recordings: int, channels: int) -> None:
        """Raise DsoError when a resumed state is not that of these windows: the log or the model has changed since."""
        if self.state and (self.state[1].shape != (windows, width) or self.state[2].shape != (recordings, channels)):
            raise DsoError(
                f"{self.path}: --resume needs the log and the model that the run was begun with, and one of them has "
                "changed; choose another --out for a new run."
            )

    def save(self, stage: int, record: Record, x: np.ndarray, sigma: np.ndarray) -> None:
        """Store one accepted iteration."""
        self._history.append((stage, record.iteration, record.cost, record.damping, record.z, sigma))
        state = {"z": record.z, "start": x, "sigma": sigma, "stage": stage, "damping": record.damping}
        self._last = {"status": "running", "state": state}
        self._write({})

    def finish(self, result: dict[str, Any]) -> None:
        """Store `result`, everything the report shows."""
        self._last["status"] = "finished"
        self._write(result)

    def _write(self, more: dict[str, Any]) -> None:
        columns = zip(*self._history, strict=True)
        history = {name: np.array(column) for name, column in zip(_COLUMNS, columns, strict=True)}
        tree = {"names": list(self._vector.coordinate_names), "history": history, **self._last, **more}
        write_run(self.path, tree, self._study, self._mjcf)
