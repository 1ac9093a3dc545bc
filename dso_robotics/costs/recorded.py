"""What a cost needs of a recording: states at every time, or actions."""

import mujoco
import numpy as np

from dso_robotics.data.log import Log
from dso_robotics.data.rollout import Rollout
from dso_robotics.errors import DsoError


def recorded_states(rollout: Rollout, mj: mujoco.MjModel, where: str, need: str, *, gaps: bool = False) -> np.ndarray:
    """The recorded states qpos, qvel, (T, nq+nv).

    where: the file, for errors.
    need: what needs the states, for errors.
    gaps: whether some may be NaN.

    Raises:
      DsoError: qpos or qvel was not recorded, has another width than the model's, or is NaN somewhere without `gaps`.
    """
    found = []
    for name, values, width in (("qpos", rollout.qpos, mj.nq), ("qvel", rollout.qvel, mj.nv)):
        if (
            values is None
            or np.shape(values) != (len(rollout.time), width)
            or not (gaps or np.all(np.isfinite(values)))
        ):
            raise DsoError(
                f"{where}, rollout {rollout.name!r}: {need} needs {name} of width {width} at every time; it is missing or does "
                'not fit the model. `dso simulate` writes qpos and qvel; a log without them fits kind = "estimation".'
            )
        found.append(np.asarray(values))
    return np.concatenate(found, 1)


def refuse_without_actions(log: Log) -> None:
    """Raise DsoError if a recording has no actions."""
    for rollout in log.rollouts:
        if rollout.ctrl is None or not np.shape(rollout.ctrl)[1]:
            raise DsoError(
                f"{log.label}, rollout {rollout.name!r}: the actions (ctrl) were not recorded, so the motion cannot be "
                'predicted from them; record them, or use kind = "identification_cloning", where the policy acts.'
            )
