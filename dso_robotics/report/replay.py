"""The motion that a result folder holds, ready to be shown: its model and the poses of one recording or episode."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from dso_robotics.data.run_file import read_run
from dso_robotics.errors import DsoError
from dso_robotics.physics.model import Robot, load, nearest
from dso_robotics.report.trace import PART_NAMES

# Episodes of a training: what runs are called in its run file, and what they are.
_EPISODES = {"trained": "the trained policy", "untrained": "the policy before training"}
_PAPER = (0.96, 0.96, 0.97)


@dataclass(frozen=True, eq=False)
class Replay:
    """One recording beside its prediction, or one episode of a training.

    model: with the new values, and a bright background where it has none of its own.
    part: "train" or "hold_out" of an identification, "episode" of a training; name: the recording's; time (K,) [s];
    measured, which is drawn as a ghost, and predicted qpos (K, nq), NaN rows where there is nothing to show; starts (W,) [s]:
    where the prediction is set on the measured state. caption, legend: what is seen, in a sentence and in a line.
    shade: the ghost's own model, where it is another one.
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
                f"run {self.name} lasts from {self.time[0]:.4g} to {self.time[-1]:.4g} s, and nothing of it lies between "
                f"{first:.4g} and {last:.4g} s."
            )
        wanted = np.arange(first, last, 1 / rate)
        return np.clip(np.searchsorted(self.time, wanted + 1e-9, side="right") - 1, 0, len(self.time) - 1)

    def beside(self, other: "Replay") -> "Replay":
        """This episode with the `other` one as its ghost, both from their beginnings.

        Raises:
          DsoError: one of them is no episode of a training.
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
        """When to begin to see the most motion of `seconds`."""
        moved = np.where(np.isfinite(self.predicted), self.predicted, self.measured)
        change = np.nan_to_num(np.abs(np.diff(moved, axis=0))).sum(1)
        path = np.concatenate([[0.0], np.cumsum(change)])
        ends = np.clip(np.searchsorted(self.time, self.time + seconds), 0, len(self.time) - 1)
        gain = np.where(self.time + seconds <= self.time[-1], path[ends] - path, -1.0)
        return float(self.time[int(np.argmax(gain))])


def read_replay(folder: str | Path, name: str | None = None) -> Replay:
    """The replay of the recording `name`; without a name that of the first held out, or else of the first fitted.

    Raises:
      DsoError: the folder holds no finished run, its run has no motion to show, or there is no such recording in it.
    """
    folder = Path(folder)
    tree, study, mjcf = read_run(folder / "run.h5")
    command = study.get("command", "?")
    if "learner" in tree or command in ("train", "design"):
        return _read_episode(folder, tree, study, mjcf, name or "trained")
    if command != "identify":
        raise DsoError(
            f"{folder}: this is a result of `dso {command}`, which records no motion to replay; `dso view` shows results of "
            "`dso identify`, `dso train` and `dso design`."
        )
    if tree.get("status") != "finished":
        raise DsoError(f"{folder}: this run has not finished; `dso identify --resume --out {folder}` goes on with it.")
    motions = tree.get("motions")
    if not motions:
        raise DsoError(f"{folder}: run.h5 holds no motion; an earlier version of dso made it, so run the study again.")
    rollouts = json.loads(tree["summary"])["windows"]["rollouts"]
    order = [
        (part, run) for part in ("hold_out", "train") for run in rollouts.get(part, ()) if run in motions.get(part, ())
    ]
    chosen = [(part, run) for part, run in order if name in (None, run)]
    if not chosen:
        known = nearest(name or "", [run for _, run in order], 8)
        raise DsoError(f"{folder}: there is no recording called '{name}' in this result; it has {known}.")
    part, run = chosen[0]
    entry = motions[part][run]
    columns = (np.asarray(entry[key], float) for key in ("time", "measured", "predicted", "starts"))
    time, measured, predicted, starts = columns
    model = bright(load(folder / "model.xml"))
    for poses in (measured, predicted):
        if poses.shape != (len(time), model.nq):
            raise DsoError(
                f"{folder}: the poses in run.h5 are not those of model.xml; run the study again with --force."
            )
        # Half a pose cannot be drawn.
        poses[~np.isfinite(poses).all(1)] = np.nan
    window = float(np.median(np.diff(starts))) if len(starts) > 1 else time[-1] - time[0]
    text = (
        f"{PART_NAMES[part].capitalize()} run {run}: the model with its new values as it is predicted, open loop for "
        f"{window:.3g} s at a time"
    )
    if np.isfinite(measured).any():
        text = f"{text}, and a grey ghost as it was measured."
    else:
        text = f"{text}; the log does not show where every joint was, so there is no measured motion to draw beside it."
    legend = f"{run}: predicted, and measured as a grey ghost"
    return Replay(model, part, run, time, measured, predicted, starts, text, legend)


def _read_episode(folder: Path, tree: Mapping[str, Any], study: Mapping[str, Any], mjcf: str, name: str) -> Replay:
    """The episode `name` of a training; of a design, the mechanism it began with is the ghost, in the same pose."""
    if tree.get("status") != "finished":
        raise DsoError(
            f"{folder}: this training has not finished, so there is no episode to show yet; `dso train --resume --out "
            f"{folder}` goes on with it."
        )
    motions = tree.get("motions", {})
    if name not in motions:
        known = nearest(name, list(motions), 8) or "none"
        raise DsoError(f"{folder}: there is no episode called '{name}' in this result; it has {known}.")
    time, poses = (np.asarray(motions[name][key], float) for key in ("time", "qpos"))
    began = load(mujoco.MjSpec.from_string(mjcf))
    robot = load(folder / "model.xml") if name == "trained" else began
    model, first, none = bright(robot), bright(began), np.full_like(poses, np.nan)
    if poses.shape != (len(time), model.nq):
        raise DsoError(f"{folder}: the poses in run.h5 are not those of model.xml; run the study again with --force.")
    poses[~np.isfinite(poses).all(1)] = np.nan
    text = f"{Path(study['model']).stem}: {_EPISODES[name]} in an episode of {time[-1] - time[0]:.3g} s on C MuJoCo"
    if tree.get("command", study.get("command")) != "design" or name != "trained" or _same_shape(model, first):
        return Replay(model, "episode", name, time, none, poses, time[:1], f"{text}, without noise.", _EPISODES[name])
    return Replay(
        model,
        "episode",
        name,
        time,
        poses,
        poses,
        time[:1],
        f"{text}, without noise; as a grey ghost, the mechanism the design began with, in the same joint positions.",
        "the mechanism found, and what it began with as a grey ghost",
        first,
    )


def _same_shape(one: mujoco.MjModel, other: mujoco.MjModel) -> bool:
    """Whether a robot in the same joint positions looks the same: then a ghost of it would only darken it."""
    fields = ("body_pos", "body_quat", "geom_pos", "geom_quat", "geom_size", "jnt_pos", "jnt_axis")
    return all(np.allclose(getattr(one, field), getattr(other, field), atol=1e-5) for field in fields)


def bright(robot: Robot) -> mujoco.MjModel:
    """The model of `robot`, with a bright background where it has none of its own."""
    spec = robot.spec
    assert spec is not None
    if any(texture.type == mujoco.mjtTexture.mjTEXTURE_SKYBOX for texture in spec.textures):
        return robot.mj
    paper = {"builtin": mujoco.mjtBuiltin.mjBUILTIN_FLAT, "rgb1": _PAPER, "rgb2": _PAPER, "width": 8, "height": 48}
    spec.add_texture(name="dso_paper", type=mujoco.mjtTexture.mjTEXTURE_SKYBOX, **paper)
    return spec.compile()
