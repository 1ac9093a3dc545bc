"""The motion that a result folder holds, ready to be shown: its model and the poses of one recording."""

import json
from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np

from dso_robotics.data.run_file import read_run
from dso_robotics.errors import DsoError
from dso_robotics.physics.model import load, nearest
from dso_robotics.report.trace import PART_NAMES

_PAPER = (0.96, 0.96, 0.97)


@dataclass(frozen=True, eq=False)
class Replay:
    """One recording beside its prediction.

    model: with the new values, and a bright background where it has none of its own.
    part: "train" or "hold_out"; name: the recording's; time (K,) [s]; measured and predicted qpos (K, nq), NaN rows where there
    is nothing to show; starts (W,) [s]: where the prediction is set on the measured state.
    """

    model: mujoco.MjModel
    part: str
    name: str
    time: np.ndarray
    measured: np.ndarray
    predicted: np.ndarray
    starts: np.ndarray

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
    tree, study, _ = read_run(folder / "run.h5")
    command = study.get("command", "?")
    if command != "identify":
        raise DsoError(
            f"{folder}: this is a result of `dso {command}`, which records no motion to replay; so far `dso view` shows "
            "results of `dso identify`."
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
    model = _bright(folder / "model.xml")
    for poses in (measured, predicted):
        if poses.shape != (len(time), model.nq):
            raise DsoError(
                f"{folder}: the poses in run.h5 are not those of model.xml; run the study again with --force."
            )
        # Half a pose cannot be drawn.
        poses[~np.isfinite(poses).all(1)] = np.nan
    return Replay(model, part, run, time, measured, predicted, starts)


def caption(replay: Replay) -> str:
    """What is seen, in one sentence."""
    window = float(np.median(np.diff(replay.starts))) if len(replay.starts) > 1 else replay.time[-1] - replay.time[0]
    text = (
        f"{PART_NAMES[replay.part].capitalize()} run {replay.name}: the model with its new values as it is predicted, open "
        f"loop for {window:.3g} s at a time"
    )
    if np.isfinite(replay.measured).any():
        return f"{text}, and a grey ghost as it was measured."
    return f"{text}; the log does not show where every joint was, so there is no measured motion to draw beside it."


def _bright(path: Path) -> mujoco.MjModel:
    robot = load(path)
    spec = robot.spec
    assert spec is not None
    if any(texture.type == mujoco.mjtTexture.mjTEXTURE_SKYBOX for texture in spec.textures):
        return robot.mj
    paper = {"builtin": mujoco.mjtBuiltin.mjBUILTIN_FLAT, "rgb1": _PAPER, "rgb2": _PAPER, "width": 8, "height": 48}
    spec.add_texture(name="dso_paper", type=mujoco.mjtTexture.mjTEXTURE_SKYBOX, **paper)
    return spec.compile()
