"""A finished run, as `dso export` reads it from its folder."""

import dataclasses
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dso_robotics.data.run_file import read_run
from dso_robotics.errors import DsoError
from dso_robotics.physics.model import Robot, load
from dso_robotics.studies import folder as folders


@dataclasses.dataclass(frozen=True, eq=False)
class Finished:
    """The result of a finished run.

    folder: where it is.
    command: the command that made it: "identify", "train", "design" or "estimate".
    summary: the content of summary.json.
    study: the resolved study; its paths are absolute.
    tree: the other contents of run.h5.
    mjcf: the model before the run, as MJCF text.
    """

    folder: Path
    command: str
    summary: Mapping[str, Any]
    study: Mapping[str, Any]
    tree: Mapping[str, Any]
    mjcf: str

    @functools.cached_property
    def robot(self) -> Robot:
        """The model with its new values, from model.xml. Raises DsoError when it is missing or damaged."""
        return load(self.folder / folders.MODEL)

    @property
    def inputs(self) -> dict[str, Path]:
        """The files that the run read, by what they were to it: "model", "log 1", ..."""
        return {label: Path(str(entry["path"])) for label, entry in self.tree.get("inputs", {}).items()}


def read_finished(folder: str | Path) -> Finished:
    """The result in `folder`.

    Raises:
      DsoError: there is no run file, it is damaged, or the run has not finished.
    """
    folder = Path(folder)
    tree, study, mjcf = read_run(folder / folders.RUN)
    command = str(study.get("command", ""))
    if tree.get("status") != "finished" or "summary" not in tree:
        again = f"`dso {command} --resume --out {folder}` continues it" if command else "run the study again"
        raise DsoError(f"{folder}: this run has not finished, so it has no result to export; {again}.")
    return Finished(folder, command, json.loads(tree["summary"]), study, tree, mjcf)
