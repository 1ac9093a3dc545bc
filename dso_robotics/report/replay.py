"""The motion stored in a result folder: its model and the poses of one recording or episode."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from dso_robotics.data.bundle import load_text
from dso_robotics.data.run_file import read_run
from dso_robotics.data.split import PART_NAMES
from dso_robotics.errors import DsoError
from dso_robotics.physics import loop
from dso_robotics.physics.model import Robot, load, nearest
from dso_robotics.robot.closing import closing

# Episodes of a training: the name of the run in the run file, and its description.
_EPISODES = {"trained": "the trained policy", "untrained": "the policy before training"}
_PAPER = (0.96, 0.96, 0.97)


@dataclass(frozen=True, eq=False)
class Replay:
    """One recording and its prediction, or one episode of a training.

    model: with the new values, and a bright background if it has none.
    part: "train" or "hold_out" of an identification, "episode" of a training.
    name: name of the recording or episode.
    time: (K,) [s].
    measured: measured qpos (K, nq), drawn as a ghost; NaN rows are not shown.
    predicted: predicted qpos (K, nq); NaN rows are not shown.
    starts: (W,) [s], times at which the prediction starts again at the measured state.
    caption: what is shown, in a sentence.
    legend: what is shown, in a line.
    shade: model of the ghost, if it differs from `model`.
    """

    model: mujoco.MjModel
    part: str
    name: str
    time: np.ndarray
    measured: np.ndarray
    predicted: np.ndarray
    starts: np.ndarray
    caption: str = ""
    legend: str = ""
    shade: mujoco.MjModel | None = None

    def frames(self, rate: float, begin: float | None = None, end: float | None = None) -> np.ndarray:
        """Indices into `time`, `rate` of them a second from `begin` to `end` [s of the recording's clock]."""
        first = self.time[0] if begin is None else max(begin, self.time[0])
        last = self.time[-1] if end is None else min(end, self.time[-1])
        if not last > first:
            raise DsoError(
                f"run {self.name} lasts from {self.time[0]:.4g} to {self.time[-1]:.4g} s; it has nothing between "
                f"{first:.4g} and {last:.4g} s."
            )
        wanted = np.arange(first, last, 1 / rate)
        return np.clip(np.searchsorted(self.time, wanted + 1e-9, side="right") - 1, 0, len(self.time) - 1)

    def beside(self, other: "Replay") -> "Replay":
        """This episode with the `other` one as its ghost; both start at their beginnings.

        Raises:
          DsoError: one of them is not an episode of a training.
        """
        for one in (self, other):
            if one.part != "episode":
                raise DsoError(
                    f"run {one.name}: only results of `dso train` and `dso design` can be shown beside another."
                )
        index = np.searchsorted(other.time - other.time[0], self.time - self.time[0] - 1e-9)
        poses = np.full((len(self.time), other.model.nq), np.nan)
        poses[index < len(other.time)] = other.predicted[index[index < len(other.time)]]
        return replace(
            self,
            measured=poses,
            shade=other.model,
            caption=f"{self.caption.split('; ')[0]}; as a grey ghost, the other result",
            legend="this result, and the other as a grey ghost",
        )

    def liveliest(self, seconds: float) -> float:
        """Start time [s] of the `seconds` with the most motion."""
        moved = np.where(np.isfinite(self.predicted), self.predicted, self.measured)
        change = np.nan_to_num(np.abs(np.diff(moved, axis=0))).sum(1)
        path = np.concatenate([[0.0], np.cumsum(change)])
        ends = np.clip(np.searchsorted(self.time, self.time + seconds), 0, len(self.time) - 1)
        gain = np.where(self.time + seconds <= self.time[-1], path[ends] - path, -1.0)
        return float(self.time[int(np.argmax(gain))])


def read_replay(folder: str | Path, name: str | None = None) -> Replay:
    """The replay of the recording `name`. Without a name, the first held-out recording, or else the first fitted one.

    Raises:
      DsoError: the folder has no finished run, its run has no motion to show, or there is no such recording in it.
    """
    folder = Path(folder)
    tree, study, mjcf = read_run(folder / "run.h5")
    try:
        return _read(folder, tree, study, mjcf, name)
    except (
        LookupError,
        TypeError,
        ValueError,
        ArithmeticError,
        AttributeError,
        RuntimeError,
        mujoco.FatalError,
    ) as error:
        raise DsoError(f"{folder / 'run.h5'}: the motion in it is damaged ({error}); run the study again.") from error


def _read(folder: Path, tree: Mapping[str, Any], study: Mapping[str, Any], mjcf: str, name: str | None) -> Replay:
    command = study.get("command", "?")
    if "learner" in tree or command in ("train", "design"):
        return _read_episode(folder, tree, study, mjcf, name or "trained")
    if command not in ("identify", "estimate"):
        raise DsoError(
            f"{folder}: this is a result of `dso {command}`, which stores no motion to replay; `dso view` shows results of "
            "`dso identify`, `dso estimate`, `dso train` and `dso design`."
        )
    if tree.get("status") != "finished":
        raise DsoError(f"{folder}: this run has not finished; `dso {command} --resume --out {folder}` continues it.")
    if command == "estimate":
        return _read_estimate(folder, tree, name)
    motions = tree.get("motions")
    if not motions:
        raise DsoError(f"{folder}: run.h5 has no motion; an earlier version of dso wrote it, so run the study again.")
    part, run = _chosen(folder, tree, motions, name)
    entry = motions[part][run]
    columns = (np.asarray(entry[key], float) for key in ("time", "measured", "predicted", "starts"))
    time, measured, predicted, starts = columns
    model = bright(load(folder / "model.xml"))
    for poses in (measured, predicted):
        _refuse_others(folder, poses, (len(time), int(model.nq)))
        # An incomplete pose cannot be drawn.
        poses[~np.isfinite(poses).all(1)] = np.nan
    window = float(np.median(np.diff(starts))) if len(starts) > 1 else time[-1] - time[0]
    text = (
        f"{PART_NAMES[part].capitalize()} run {run}: the motion predicted by the model with its new values, open loop for "
        f"{window:.3g} s at a time"
    )
    if np.isfinite(measured).any():
        text = f"{text}, and the measured motion as a grey ghost."
    else:
        text = f"{text}; the log does not contain the position of every joint, so the measured motion cannot be drawn."
    legend = f"{run}: predicted, and measured as a grey ghost"
    return Replay(model, part, run, time, measured, predicted, starts, text, legend)


def _read_estimate(folder: Path, tree: Mapping[str, Any], name: str | None) -> Replay:
    """The estimates of a filter in one run; the true motion is the ghost, or else the smoothed one."""
    runs = tree.get("traces", {})
    part, run = _chosen(folder, tree, runs, name)
    entry, model = runs[part][run], bright(load(folder / "model.xml"))
    time, shape = np.asarray(entry["time"], float), (len(entry["time"]), 2 * int(model.nv))

    def poses(key: str) -> np.ndarray:
        """qpos (K, nq) of states in the tangent space at qpos0."""
        states = np.asarray(entry[key], float) if key in entry else np.full(shape, np.nan)
        _refuse_others(folder, states, shape)
        found = np.full((len(time), int(model.nq)), np.nan)
        for k in np.flatnonzero(np.isfinite(states).all(1)):
            found[k] = model.qpos0
            mujoco.mj_integratePos(model, found[k], np.ascontiguousarray(states[k, : model.nv]), 1.0)
        return found

    ghost, called = poses("truth"), "the true motion"
    if not np.isfinite(ghost).any():
        ghost, called = poses("smoothed"), "the smoothed motion"
    text = f"{PART_NAMES[part].capitalize()} run {run}: the state that the filter estimates from the readings"
    if np.isfinite(ghost).any():
        text, legend = f"{text}, and {called} as a grey ghost.", f"{run}: estimate, and {called} as a grey ghost"
    else:
        why = (
            "the log does not hold the true state"
            if "truth" in entry
            else "an earlier version of dso left the truth out"
        )
        text = f"{text}; {why}, so there is no ghost."
        legend = f"{run}: estimate"
    return Replay(model, part, run, time, ghost, poses("state"), time[:1], text, legend)


def _chosen(folder: Path, tree: Mapping[str, Any], stored: Mapping[str, Any], name: str | None) -> tuple[str, str]:
    """Part and name of the recording to show, of those `stored` by part."""
    rollouts = json.loads(tree["summary"])["windows"]["rollouts"]
    order = [
        (part, run) for part in ("hold_out", "train") for run in rollouts.get(part, ()) if run in stored.get(part, ())
    ]
    chosen = [(part, run) for part, run in order if name in (None, run)]
    if not chosen:
        known = nearest(name or "", [run for _, run in order], 8)
        raise DsoError(f"{folder}: there is no recording called '{name}' in this result; it has {known}.")
    return chosen[0]


def _refuse_others(folder: Path, stored: np.ndarray, shape: tuple[int, int]) -> None:
    if stored.shape != shape:
        raise DsoError(
            f"{folder}: the motion in run.h5 does not belong to model.xml; run the study again with --force."
        )


def _read_episode(folder: Path, tree: Mapping[str, Any], study: Mapping[str, Any], mjcf: str, name: str) -> Replay:
    """The episode `name` of a training. For a design, the initial mechanism is the ghost, in the same pose."""
    if tree.get("status") != "finished":
        raise DsoError(
            f"{folder}: this training has not finished, so there is no episode to show yet; `dso train --resume --out "
            f"{folder}` continues it."
        )
    motions = tree.get("motions", {})
    if name not in motions:
        known = nearest(name, list(motions), 8) or "none"
        raise DsoError(f"{folder}: there is no episode called '{name}' in this result; it has {known}.")
    time, poses = (np.asarray(motions[name][key], float) for key in ("time", "qpos"))
    began = load_text(mjcf, folder, source=str(folder / "run.h5"))
    robot = load(folder / "model.xml") if name == "trained" else began
    model, first, none = bright(robot), bright(began), np.full_like(poses, np.nan)
    _refuse_others(folder, poses, (len(time), int(model.nq)))
    poses[~np.isfinite(poses).all(1)] = np.nan
    text = f"{Path(study['model']).stem}: {_EPISODES[name]} in an episode of {time[-1] - time[0]:.3g} s on C MuJoCo"
    quiet = "without noise of the actions" if study.get("sensors") is not None else "without noise"
    if tree.get("command", study.get("command")) != "design" or name != "trained" or _same_shape(model, first):
        return Replay(model, "episode", name, time, none, poses, time[:1], f"{text}, {quiet}.", _EPISODES[name])
    told = "in the same joint positions"
    if (linkage := closing(began, first, first.qpos0, set())) is not None:
        told, ghost = (
            "with the loops closed near the same joint positions",
            linkage.near(loop.model_fields(first), poses),
        )
    else:
        ghost = poses
    return Replay(
        model,
        "episode",
        name,
        time,
        ghost,
        poses,
        time[:1],
        f"{text}, {quiet}; the grey ghost is the initial mechanism, {told}.",
        "the mechanism found, and the initial one as a grey ghost",
        first,
    )


def _same_shape(one: mujoco.MjModel, other: mujoco.MjModel) -> bool:
    """Whether both robots look the same in the same joint positions. A ghost would then only darken the robot."""
    fields = ("body_pos", "body_quat", "geom_pos", "geom_quat", "geom_size", "jnt_pos", "jnt_axis")
    return all(np.allclose(getattr(one, field), getattr(other, field), atol=1e-5) for field in fields)


def bright(robot: Robot) -> mujoco.MjModel:
    """The model of `robot`, with a bright background if it has none."""
    spec = robot.spec
    assert spec is not None
    if any(texture.type == mujoco.mjtTexture.mjTEXTURE_SKYBOX for texture in spec.textures):
        return robot.mj
    paper = {"builtin": mujoco.mjtBuiltin.mjBUILTIN_FLAT, "rgb1": _PAPER, "rgb2": _PAPER, "width": 8, "height": 48}
    spec.add_texture(name="dso_paper", type=mujoco.mjtTexture.mjTEXTURE_SKYBOX, **paper)
    return spec.compile()
