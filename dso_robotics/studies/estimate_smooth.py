"""The most probable motion of every run of a log: a file with the state, a table, and lines for the report."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from dso_robotics.data.log import Log, write_log
from dso_robotics.data.match import Channels
from dso_robotics.data.rollout import Rollout
from dso_robotics.data.split import PART_NAMES
from dso_robotics.parameters.vector import ParameterVector
from dso_robotics.robot.estimator_space import Space
from dso_robotics.robot.filter_data import FilterWindows
from dso_robotics.robot.joint_smoother import Joint, JointSmoother, at_numbers
from dso_robotics.robot.kalman_estimator import GATE
from dso_robotics.robot.kalman_smoother import KalmanSmoother, Smoothed
from dso_robotics.robot.kalman_theta import KalmanTheta
from dso_robotics.studies import estimate_interval
from dso_robotics.studies import estimate_score as score
from dso_robotics.studies.folder import SMOOTHED, SMOOTHED_BY

# Times closer than this [s] are one.
_SAME = 1e-6
# More than this squared error over its variance is told.
_MOST_NEES = 3.0


@dataclass(frozen=True, eq=False)
class SmoothedRuns:
    """The motion of the runs of one part of the log, with `windows` as they were smoothed.

    error: (B, T-1, 2 nv), smoothed minus true state from the second sample on; NaN where unknown or not counted.
    deviation: (B, T, 2 nv), what the smoother takes for the standard deviation of its error.
    nees: squared errors of the state over their covariance, divided by 2 nv; None where no truth is known.
    joint: the physics and sensor numbers that were found together with the motion of these runs, if any are free.
    """

    windows: FilterWindows
    found: Smoothed
    error: np.ndarray
    deviation: np.ndarray
    nees: float | None
    joint: Joint | None = None


def smoothed(
    theta: KalmanTheta,
    z: np.ndarray,
    whole: FilterWindows,
    warm_up: int,
    gate: float | None = None,
    told: Callable[[int, float], None] = lambda step, cost: None,
    learned: Joint | None = None,
) -> SmoothedRuns:
    """Smooth every run of `whole` with the filter at z (n,). Errors count after `warm_up` updates, as the filter's do.

    Free physics and sensor numbers are found together with the motion, or are those that other runs have `learned`.
    """
    smoother, model, joint = KalmanSmoother(theta, whole, share=gate or GATE, tell=told), theta.physics.mj, None
    if learned is not None:
        found = at_numbers(smoother, learned.z, learned.covariance)
    elif theta.physics.size:
        joint = JointSmoother(smoother).run(z)
        found = joint.motion
    else:
        found = smoother.run(z)
    updates, many = whole.measured.shape[1] - 1, 2 * int(model.nv)
    known = np.asarray(np.isfinite(found.states[:, 1:]).all(-1))
    counted = np.where(np.arange(updates) >= min(warm_up, updates // 2), known, False)
    states = np.where(known[..., None], found.states[:, 1:], whole.start[:, None])
    error = score.state_error(model, whole, states, counted[..., None])
    here, covariance = np.isfinite(error).all(-1), found.covariance[:, 1:, :many, :many]
    off, p = error[here], covariance[here]
    nees = float(np.mean(np.sum(off * np.linalg.solve(p, off[..., None])[..., 0], -1)) / many) if len(off) else None
    deviation = np.sqrt(np.diagonal(found.covariance, axis1=-2, axis2=-1)[..., :many])
    return SmoothedRuns(whole, found, error, deviation, nees, joint)


def table(
    parts: Mapping[str, SmoothedRuns], channels: Channels, physics: ParameterVector | None = None
) -> dict[str, Any]:
    """By part: the search, what was left out, and the error of the state where it is known.

    Where numbers of the `physics` were found together with the motion, they are "parameters", as in the summary itself.
    """
    rows: dict[str, Any] = {}
    for part, runs in parts.items():
        found, error = runs.found, runs.error[np.isfinite(runs.error).all(-1)]
        good = np.isfinite(found.cost)
        measured = np.isfinite(runs.windows.measured)
        measured[:, 0] &= found.passed[:, 0]
        for places in channels.quaternions:
            measured[..., places[3]] = False
        out = {
            name: int((measured & ~found.passed)[good][..., c].sum()) for c, name in enumerate(channels.sensor_names)
        }
        rows[part] = {
            "runs": int(good.sum()),
            "steps": int(found.steps[good].max(initial=0)),
            "converged": bool(found.converged[good].all()),
            "left_out": {name: count for name, count in out.items() if count},
            "breaks": int(found.breaks.sum()),
            "rmse": [float(e) for e in np.sqrt(np.mean(error**2, axis=0))] if len(error) else None,
            "nees": runs.nees,
        }
        if runs.joint is not None and physics is not None:
            solution, spread = runs.joint.solution, runs.joint.spread
            here = slice(0, physics.size)
            rows[part]["parameters"] = estimate_interval.table(physics, solution.z, (solution, spread), here)
    return rows


def doubts(rows: Mapping[str, Any]) -> list[str]:
    """Warnings on the search and on what the smoother claims."""
    found = [
        f"Squared errors of the smoothed state in the {PART_NAMES[part]} runs are {row['nees']:.3g} times what the smoother "
        "claims; do not trust its covariance."
        for part, row in rows.items()
        if row["nees"] is not None and row["nees"] > _MOST_NEES
    ]
    return found + [
        f"The smoother did not converge in one of the {PART_NAMES[part]} runs; its motion there is the best one found."
        for part, row in rows.items()
        if not row["converged"]
    ]


def traces(parts: Mapping[str, SmoothedRuns], model: mujoco.MjModel) -> dict[str, dict[str, Any]]:
    """Columns beside those of `estimate_score.traces`, by part and rollout: "smoothed", "smoothed_error", "smoothed_std"."""
    rows, space = {}, Space(model)
    for part, runs in parts.items():
        states = space.from_pose(model.qpos0, runs.found.states)[:, 1:, : 2 * space.nv]
        rows[part] = {
            runs.windows.rollouts[int(i)].name: {
                "smoothed": states[b], "smoothed_error": runs.error[b], "smoothed_std": runs.deviation[b, 1:],
            }
            for b, i in enumerate(runs.windows.rollout)
        }  # fmt: skip
    return rows


def write(
    folder: Path, recorded: Log, taken: Log, parts: Mapping[str, SmoothedRuns], model: mujoco.MjModel
) -> list[str]:
    """Write the runs of `recorded` with the smoothed state as `folder`/smoothed.h5; return warnings.

    Each rollout has the samples that it had, from the first one whose state is known, with all its channels, and the smoothed
    qpos and qvel. Beside them are, in the tangent space, the standard deviations of both, "state_std" (T, 2 nv), and their
    covariance, "state_covariance" (T, 2 nv, 2 nv), and the biases of the channels, "bias" (T, ny).

    taken: the log with the readings of late sensors moved.
    """
    nq, nv = int(model.nq), int(model.nv)
    rollouts, beside, notes = [], {}, []
    own = {r.name: r for r in taken.rollouts}
    found = {
        runs.windows.rollouts[int(i)].name: (runs, b)
        for runs in parts.values()
        for b, i in enumerate(runs.windows.rollout)
    }
    for rollout in recorded.rollouts:
        if rollout.name not in found:
            continue
        runs, b = found[rollout.name]
        rows = _rows(rollout, own[rollout.name], runs.windows, b)
        states = np.where((rows >= 0)[:, None], runs.found.states[b, rows], np.nan)
        keep = np.isfinite(states).all(-1)
        if keep.sum() < 2:
            notes.append(f"{rollout.name}: the filter diverged in this run, so {SMOOTHED} does not hold it.")
            continue
        at, each = (
            rows[keep],
            {"qpos": states[keep, :nq], "qvel": states[keep, nq : nq + nv], "time": rollout.time[keep]},
        )
        for name in ("ctrl", "sensordata"):
            values = getattr(rollout, name)
            each[name] = None if values is None else values[keep]
        rollouts.append(replace(rollout, **each))
        beside[rollout.name] = {
            "state_std": runs.deviation[b, at],
            "state_covariance": runs.found.covariance[b, at, : 2 * nv, : 2 * nv],
            "bias": runs.found.offset[b, at],
        }
    if rollouts:
        source = f"{recorded.source}; qpos and qvel are the most probable ones by {SMOOTHED_BY}"
        attributes = {**recorded.attributes, "smoothed_by": SMOOTHED_BY}
        write_log(
            folder / SMOOTHED,
            replace(recorded, source=source, rollouts=tuple(rollouts), attributes=attributes),
            beside=beside,
        )
    return notes


def _rows(recorded: Rollout, taken: Rollout, windows: FilterWindows, b: int) -> np.ndarray:
    """For each sample of `recorded`, the sample of window b that is at its time; -1 for none."""
    gridded, first = windows.rollouts[int(windows.rollout[b])], int(windows.first[b])
    later = len(taken.time) - len(gridded.time)
    if later >= 0 and np.array_equal(taken.time[later:], gridded.time):
        place = np.arange(len(taken.time)) - later
    else:
        steps = np.rint(np.diff(taken.time) / windows.interval).astype(int)
        place = np.concatenate([[0], np.cumsum(steps)])
    place = np.where(place >= first, place - first, -1)
    nearest = np.clip(np.searchsorted(taken.time, recorded.time - _SAME), 0, len(taken.time) - 1)
    same = np.abs(taken.time[nearest] - recorded.time) <= 2 * _SAME
    return np.where(same & (place[nearest] < windows.measured.shape[1]), place[nearest], -1)
