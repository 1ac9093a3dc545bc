"""Calibration: every sample is compared with the state recorded at the same time. Nothing is simulated.

A reading then depends only on the sensor's place, bias and scale, not on the equation of motion. A log with known states
calibrates its sensors in one or a few linear steps, even if other parts of the model are wrong.
"""

import dataclasses

import mujoco
import numpy as np

from dso_robotics.core.method.least_squares import Solution
from dso_robotics.data.windows import Windows
from dso_robotics.errors import DsoError
from dso_robotics.parameters.vector import ParameterVector
from dso_robotics.robot import start

# The fields that change a reading at a given state: poses of frames, and the sensor's bias and scale.
_FIELDS = ("sensor_bias", "sensor_scale", "site_pos", "site_turn", "body_pos", "body_turn")
# Errors of neighbouring samples are correlated. Pieces of this many seconds count as independent, like windows elsewhere.
_PIECE = 0.5


def prepared(vector: ParameterVector, windows: Windows, source: str) -> Windows:
    """The windows of single samples whose state was measured.

    Raises:
      DsoError: the log `source` does not hold the whole state, or single samples cannot determine a freed number.
    """
    others = [p.path for p in vector.parameters if p.factor is not None or any(s.field not in _FIELDS for s in p.slots)]
    if others:
        raise DsoError(
            f"{', '.join(others)}: with --window 0 nothing is simulated, so only the bias and scale of sensors and the pos and "
            "rot of sites and bodies can be found; fix it, or give windows of some length, such as --window 0.5."
        )
    if not start.measured(windows, vector.mj):
        raise DsoError(
            f"{source}: with --window 0 every sample needs its recorded state, and this log does not show all of it; record "
            "qpos and qvel, or a position sensor on every joint (of a model without activations), or give a longer --window."
        )
    used = state_channels(windows, vector.mj)
    addresses = {
        int(a): n for a, n in zip(windows.channels.sensor_addresses, windows.channels.sensor_names, strict=True)
    }
    for p in vector.parameters:
        for slot in p.slots:
            names = [addresses[i] for i in slot.at if addresses.get(i) in used]
            if slot.field.startswith("sensor_") and names:
                raise DsoError(
                    f"{p.path}: with --window 0 the state itself is taken from {names[0]}, which cannot tell its own error; "
                    "record qpos and qvel in the log, or give a longer --window."
                )
    seen = start.seen(windows, vector.mj)
    if not seen.any():
        raise DsoError(
            f"{source}: there is no sample at which every joint was measured, and --window 0 needs such samples."
        )
    return windows.only(seen)


def state_channels(windows: Windows, model: mujoco.MjModel) -> list[str]:
    """Channels that the state is taken from. Their errors are zero."""
    sources = {
        int(mujoco.mjtSensor.mjSENS_JOINTPOS): any(r.qpos is None for r in windows.rollouts),
        int(mujoco.mjtSensor.mjSENS_JOINTVEL): any(r.qvel is None for r in windows.rollouts),
    }
    channels = zip(windows.channels.sensor_names, windows.channels.sensor_ids, strict=True)
    return [name for name, sensor in channels if sources.get(int(model.sensor_type[sensor]))]


def warnings(windows: Windows, model: mujoco.MjModel) -> list[str]:
    """Notes for the interpretation of the errors."""
    used = state_channels(windows, model)
    if not used:
        return []
    return [f"The state of every sample is taken from {', '.join(used)}: that their errors are zero says nothing."]


def in_pieces(solution: Solution, windows: Windows) -> Solution:
    """`solution` with its blocks, single samples, joined to pieces of half a second for the jackknife."""
    piece = np.stack([windows.rollout, (windows.time // _PIECE).astype(int)], 1)
    which = np.unique(piece, axis=0, return_inverse=True)[1].reshape(-1)
    scores = np.zeros((which.max() + 1, solution.scores.shape[1]))
    shares = np.zeros((len(scores), *solution.block_information.shape[1:]))
    np.add.at(scores, which, solution.scores)
    np.add.at(shares, which, solution.block_information)
    return dataclasses.replace(solution, scores=scores, block_information=shares)
