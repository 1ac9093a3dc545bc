"""Trials of a plan: from numbers of signals to controls, motions, limits and information."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np

from dso_robotics.costs.information import run_information, without
from dso_robotics.data.log import Log
from dso_robotics.data.match import Channels, match_channels
from dso_robotics.data.rollout import Rollout
from dso_robotics.data.waveform import Waveform
from dso_robotics.data.windows import Windows, cut
from dso_robotics.parameters.vector import ParameterVector
from dso_robotics.physics.batch import BatchEngine
from dso_robotics.robot.holding import Drive, tracking
from dso_robotics.robot.motion_limits import MotionLimits
from dso_robotics.robot.prediction import CPrediction
from dso_robotics.studies.excite_known import PLAN, Known

# Most numbers that the simulations of one call may record.
_MOST = 4e7


@dataclasses.dataclass(frozen=True, eq=False)
class Motion:
    """R motions of one draw.

    path: states (R, T, nq+nv+na), NaN after a divergence. readings: (R, T, C) without noise. ctrl: (R, T, nu).
    """

    path: np.ndarray
    readings: np.ndarray
    ctrl: np.ndarray

    def only(self, keep: np.ndarray) -> "Motion":
        """The motions `keep`, indices."""
        return Motion(self.path[keep], self.readings[keep], self.ctrl[keep])


class Trials:
    """Simulates runs as they would be recorded, and computes what they would tell.

    time: (T,) of the samples [s]. start: (nq+nv+na,), at rest. channels: names of the recorded channels.
    sigma: (C,) their noise. window: length of the windows of the later identification [s].
    drive: the range of what the signals are: of the controls, or of the positions if `models` are given.
    models: the robot at each draw. Signals are then references (R, T, nq) that the robot follows by a controller of its own.
    """

    def __init__(
        self,
        vector: ParameterVector,
        known: Known,
        *,
        waveform: Waveform,
        drive: Drive,
        rate: np.ndarray,
        limits: MotionLimits,
        time: np.ndarray,
        start: np.ndarray,
        channels: tuple[str, ...],
        sigma: np.ndarray,
        window: float,
        models: Sequence[mujoco.MjModel] = (),
    ):
        self.vector, self.known, self.waveform, self.drive, self.limits = vector, known, waveform, drive, limits
        self.time, self.start, self.channels, self.sigma, self.window = time, start, channels, sigma, window
        self.interval = float(time[1] - time[0])
        self.rate, self._models = rate, tuple(models)
        self._engine = BatchEngine(vector.mj)
        self.steps = 0

    def controls(self, numbers: np.ndarray) -> np.ndarray:
        """Controls (R, T, nu), or references (R, T, nq), of the numbers (R, m) of R sets of signals."""
        return self.drive.controls(self.waveform.signals(numbers), self.interval, self.rate)

    def motion(self, played: np.ndarray, draw: int = 0) -> Motion:
        """The motions under what is `played`, controls or references (R, T, k), with the values of one draw."""
        return self._followed(played, draw) if self._models else self._driven(played, draw)

    def _followed(self, qpos: np.ndarray, draw: int) -> Motion:
        """The motions along references (R, T, nq), with controls by inverse dynamics."""
        qvel = np.gradient(qpos, self.interval, axis=1)
        qvel[:, [0, -1]] = 0.0
        qacc = np.gradient(qvel, self.interval, axis=1)
        model = self._models[draw]
        ctrl = np.array([tracking(model, *parts) for parts in zip(qpos, qvel, qacc, strict=True)])
        readings = np.zeros((*qpos.shape[:2], len(self.channels)))
        return Motion(np.concatenate([qpos, qvel], -1), readings, ctrl)

    def _driven(self, ctrl: np.ndarray, draw: int) -> Motion:
        windows = self._cut(self._rollouts(ctrl, None), np.inf)
        prediction = CPrediction(self.vector, windows, engine=self._engine)
        start = np.repeat(self.start[None], len(ctrl), axis=0)
        z = self.known.draws[draw]
        path, readings = prediction.motion(z, start)
        self.steps += prediction.steps
        return Motion(path, readings, ctrl)

    def information(self, motion: Motion, draw: int = 0) -> np.ndarray:
        """Information (R, g, g) about the shared coordinates over their sizes; NaN where a simulation diverges."""
        vector, known, ctrl = self.vector, self.known, motion.ctrl
        z, found = known.draws[draw], []
        together = 1 + vector.size + 2 * vector.mj.nv + vector.mj.na
        wide = vector.mj.nsensordata + vector.mj.nq + vector.mj.nv + vector.mj.na
        # The model's steps in a run, which may be several for each sample.
        steps = self.time[-1] / vector.mj.opt.timestep
        piece = max(int(_MOST / (together * wide * steps)), 1)
        for i in range(0, len(ctrl), piece):
            part = slice(i, i + piece)
            windows = self._cut(self._rollouts(ctrl[part], motion.readings[part]), self.window)
            start = motion.path[part][windows.rollout, windows.sample[:, 0]]
            prediction = CPrediction(vector, windows, engine=self._engine)
            with np.errstate(invalid="ignore"):
                found.append(run_information(vector, windows, prediction, z, start, self.sigma, len(ctrl[part])))
            self.steps += prediction.steps
        whole = np.concatenate(found)
        good = np.isfinite(whole).all((1, 2))
        out = np.full((len(ctrl), len(known.size), len(known.size)), np.nan)
        out[good] = without(whole[good], known.shared) * np.outer(known.size, known.size)
        return out

    def judged(self, played: np.ndarray) -> tuple[np.ndarray, list[str], list[Motion]]:
        """By how much each run breaks limits (R,), the worst one in words, over all draws, and the motions of each draw."""
        motions = [self.motion(played, k) for k in range(len(self.known.draws))]
        excess, worst = np.zeros(len(played)), [""] * len(played)
        for k, motion in enumerate(motions):
            verdict = self.limits.judge(motion.path, motion.ctrl, self.interval, thorough=k == 0)
            for r in np.flatnonzero(verdict.excess > excess):
                excess[r], worst[r] = verdict.excess[r], verdict.worst[r]
        return excess, worst, motions

    def _rollouts(self, ctrl: np.ndarray, readings: np.ndarray | None) -> list[Rollout]:
        model, channels = self.vector.mj, self.channels
        names = tuple(model.actuator(i).name for i in range(model.nu))
        found = []
        for r in range(len(ctrl)):
            seen = np.zeros((len(self.time), len(channels))) if readings is None else np.nan_to_num(readings[r])
            found.append(
                Rollout(
                    name=PLAN,
                    time=self.time,
                    ctrl=ctrl[r] if names else None,
                    ctrl_names=names,
                    sensordata=seen,
                    sensor_names=channels,
                )
            )
        return found

    def _cut(self, rollouts: list[Rollout], seconds: float) -> Windows:
        vector = self.vector
        late: dict[str, Any] = {"past": vector.longest("actuator_delay"), "settle": vector.longest("sensor_delay")}
        if np.isinf(seconds):
            late["settle"] = 0.0
        timestep = float(vector.mj.opt.timestep)
        return cut(rollouts, self._matched(rollouts[0]), timestep=timestep, seconds=seconds, source="the plan", **late)

    def _matched(self, rollout: Rollout) -> Channels:
        if not hasattr(self, "_channels"):
            self._channels = match_channels(Log("the plan", "", "", (rollout,)), self.vector.mj)
        return self._channels
