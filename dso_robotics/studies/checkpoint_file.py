"""Numbered checkpoints of a training: policies on the way, each a file that `Policy.load` and `init` read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dso_robotics.data.bundle import bundled, load_text
from dso_robotics.data.run_file import write_run
from dso_robotics.errors import DsoError
from dso_robotics.robot.deployed_policy import policy_numbers
from dso_robotics.studies.run import resolved

FOLDER = "checkpoints"


def write_checkpoint(
    folder: Path, iteration: int, blocks: Mapping[str, Any], study: Mapping[str, Any], mjcf: str, cost: float
) -> Path:
    """Write `folder`/checkpoints/ITERATION.h5 and return its path.

    blocks: what a run file holds of a state: theta by block, scaling, action, named, numbers.
    study: the study with its command.
    mjcf: the model at this state.
    cost: of an episode, NaN if none was looked at.

    Raises:
      DsoError: the file cannot be written.
    """
    place = folder / FOLDER
    try:
        place.mkdir(exist_ok=True)
    except OSError as error:
        raise DsoError(f"{place}: cannot make this folder ({error.strerror}).") from error
    text, files = bundled(mjcf, folder)
    tree: dict[str, Any] = {**blocks, "iteration": iteration, "cost": cost}
    try:
        robot = load_text(text, files=files, source=f"checkpoint {iteration}")
        tree["policy"] = policy_numbers(tree, study, robot, "checkpoints").as_dict()
    except DsoError:
        pass  # a policy that sees numbers of the mechanism has no run-time form; `init` reads it all the same
    if files:
        tree["files"] = {name: np.frombuffer(content, np.uint8) for name, content in files.items()}
    path = place / f"{iteration:06d}.h5"
    write_run(path, tree, resolved(study), text)
    return path


def clear_checkpoints(folder: Path) -> None:
    """Remove those of an earlier run."""
    for path in (folder / FOLDER).glob("[0-9]*.h5"):
        path.unlink(missing_ok=True)
