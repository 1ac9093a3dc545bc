"""The starts of a training's episodes, as its run file stores them. Does not import JAX."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dso_robotics.data.run_file import read_run
from dso_robotics.errors import DsoError

GROUP = "episodes"


@dataclass(frozen=True, eq=False)
class EpisodeStarts:
    """Starts as the study draws them; number k is the start that the training's evaluation draws with seed k.

    seconds: length of an episode [s].
    qpos, qvel, act: (n, nq), (n, nv), (n, na).
    task: task numbers, (n, k).
    late: the delay of actions in control steps, (n, 1); no column if the study does not draw it.
    estimate: the estimator's states, (n, nq+nv+na); no columns without an estimator.
    names: sensor channels of the study's [sensors], (ny,); empty without it.
    scale, bias, delay: of these sensors, (ny,); delay in [s].
    """

    seconds: float
    qpos: np.ndarray
    qvel: np.ndarray
    act: np.ndarray
    task: np.ndarray
    late: np.ndarray
    estimate: np.ndarray
    names: tuple[str, ...]
    scale: np.ndarray
    bias: np.ndarray
    delay: np.ndarray

    def as_dict(self) -> dict[str, Any]:
        """Arrays, numbers and strings by name. Empty lists of strings are left out."""
        found = {name: getattr(self, name) for name in (*_ROWS, *_SENSORS, "seconds")}
        return found | ({"names": list(self.names)} if self.names else {})

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "EpisodeStarts":
        """The inverse of `as_dict`. Raises KeyError, TypeError or ValueError for invalid data."""
        arrays = {name: np.asarray(stored[name], float) for name in (*_ROWS, *_SENSORS)}
        names, count = tuple(str(name) for name in stored.get("names", ())), len(arrays["qpos"])
        if any(arrays[name].ndim != 2 or len(arrays[name]) != count for name in _ROWS):
            raise ValueError("starts of different numbers")
        if any(arrays[name].shape != (len(names),) for name in _SENSORS):
            raise ValueError("sensors of different numbers")
        return cls(seconds=float(stored["seconds"]), names=names, **arrays)


_ROWS = ("qpos", "qvel", "act", "task", "late", "estimate")
_SENSORS = ("scale", "bias", "delay")


def read_starts(folder: str | Path) -> EpisodeStarts | None:
    """The starts that `dso train --out FOLDER` stored; None for a folder with a policy alone.

    Raises:
      DsoError: the run file is damaged.
    """
    path = Path(folder) / "run.h5"
    if not path.is_file():
        return None
    stored = read_run(path)[0].get(GROUP)
    if stored is None:
        return None
    try:
        return EpisodeStarts.from_dict(stored)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise DsoError(f"{path}: the starts in it are damaged ({error}); train again.") from error
