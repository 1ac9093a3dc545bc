"""The data of a replay: the recorded and the predicted motion, as joint positions."""

from dataclasses import dataclass

import numpy as np

from dso_robotics.data.windows import Windows
from dso_robotics.parameters.vector import ParameterVector
from dso_robotics.robot import start
from dso_robotics.robot.prediction import CPrediction

# Maximum number of poses per second. More are not visible.
_RATE = 60.0


@dataclass(frozen=True, eq=False)
class Motion:
    """Poses of one rollout.

    time: (K,) [s].
    measured: measured qpos (K, nq); NaN where the log has no value.
    predicted: predicted qpos (K, nq); NaN outside the windows and where the simulation diverged.
    starts: window starts (W,) [s].
    """

    rollout: str
    time: np.ndarray
    measured: np.ndarray
    predicted: np.ndarray
    starts: np.ndarray

    def as_dict(self) -> dict[str, np.ndarray]:
        """The arrays by name, as stored in the run file; poses in single precision."""
        poses = {name: getattr(self, name).astype(np.float32) for name in ("measured", "predicted")}
        return {"time": self.time, "starts": self.starts, **poses}


def motions(
    vector: ParameterVector, z: np.ndarray, windows: Windows, x: np.ndarray, *, robust: bool = False
) -> tuple[Motion, ...]:
    """The motion of every rollout, predicted at z (n,) from the states x (B, nq+nv+na) at the starts of `windows`."""
    nq = vector.mj.nq
    states = CPrediction(vector, windows).states(z, x)
    found = []
    for i, rollout in enumerate(windows.rollouts):
        recorded = start.recorded_states(rollout, windows.channels, vector.mj, vector.signals(z), robust=robust)
        predicted = np.full((len(rollout.time), nq), np.nan)
        mine = np.flatnonzero(windows.rollout == i)
        for w in mine:
            index = windows.sample[w]
            predicted[index[index >= 0]] = states[w, index >= 0, :nq]
        interval = float(np.median(np.diff(rollout.time)))
        shown = slice(None, None, max(1, int(1 / (_RATE * interval) + 1e-6)))
        poses = recorded[shown, :nq], predicted[shown]
        found.append(Motion(rollout.name, rollout.time[shown], *poses, windows.time[mine]))
    return tuple(found)
