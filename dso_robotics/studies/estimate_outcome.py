"""What `dso estimate` hands to the learning of a corrector, and what it gets back."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from dso_robotics.parameters.vector import ParameterVector
from dso_robotics.physics.model import Robot
from dso_robotics.robot.filter_data import FilterWindows
from dso_robotics.robot.learned import Learned
from dso_robotics.studies.estimate_score import Fit
from dso_robotics.studies.estimate_smooth import SmoothedRuns
from dso_robotics.studies.estimate_study import EstimateStudy
from dso_robotics.studies.estimate_trust import Settled
from dso_robotics.studies.run import RunFile, Session


@dataclasses.dataclass(frozen=True, eq=False)
class Asked:
    """The study with its data.

    windows: to learn from. whole: the runs in one piece, by part ("train", "hold_out").
    warm_up: updates at the start of a window that do not count.
    source: name of the logs in messages.
    """

    study: EstimateStudy
    here: Session
    robot: Robot
    physics: ParameterVector
    windows: FilterWindows
    whole: Mapping[str, FilterWindows]
    warm_up: int
    source: str

    def begin(self, *, every: float = 0.0) -> RunFile:
        """Open the run file."""
        files = {f"log {i + 1}": path for i, path in enumerate(self.study.logs)}
        return self.here.begin(self.study.as_dict(), self.robot, files, every=every)


@dataclasses.dataclass(frozen=True, eq=False)
class Outcome:
    """A learned corrector and how it does.

    whole: the runs as they were judged, by part.
    fits: errors over whole runs, by part; std: the deviations (B, U, ny) that were predicted of them.
    consistency: see `estimate_trust.consistency`.
    engine: name and reason. numbers: how many the corrector has. physical: physics coordinates (m,).
    where: their places among the coordinates of the search.
    theta: for the run file. windows: how many were used. summary: further entries. notes: further warnings.
    doubts: those that speak against the filter, beside what `estimate_trust.distrust` says.
    smoothed: by part, if the study asks for it.
    """

    settled: Settled
    whole: Mapping[str, FilterWindows]
    fits: Mapping[str, Fit]
    std: Mapping[str, np.ndarray]
    consistency: Mapping[str, dict[str, Any]]
    learned: Learned
    engine: tuple[str, str]
    numbers: int
    physical: np.ndarray
    where: slice
    theta: Mapping[str, Any]
    windows: Mapping[str, int]
    summary: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    smoothed: Mapping[str, SmoothedRuns] = dataclasses.field(default_factory=dict)
