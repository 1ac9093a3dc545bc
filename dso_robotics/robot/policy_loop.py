"""A trained policy, with its estimator if it has one, in a loop with a robot that C MuJoCo simulates. No JAX.

>>> loop = PolicyLoop("result")             # doctest: +SKIP
>>> loop.reset()                            # doctest: +SKIP
>>> sample = loop.step()                    # doctest: +SKIP
"""

import copy
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np

from dso_robotics.data.record import Flaws
from dso_robotics.data.rollout import listed
from dso_robotics.data.run_file import read_run
from dso_robotics.errors import DsoError, nearest
from dso_robotics.physics.model import Robot
from dso_robotics.physics.position_drive import is_position_drive
from dso_robotics.physics.quiet import quiet
from dso_robotics.robot.deployed_controller import Controller
from dso_robotics.robot.deployed_model import checked_numbers
from dso_robotics.robot.deployed_policy import Policy
from dso_robotics.robot.episode_starts import EpisodeStarts, read_starts
from dso_robotics.robot.flawed_sensors import FlawedSensors, action_noise

# A control step may differ from a whole number of the robot's time steps by this fraction of a time step.
_OFF_STEP = 0.01
_LIMIT = 1e7
_BAD = (mujoco.mjtWarning.mjWARN_BADQPOS, mujoco.mjtWarning.mjWARN_BADQVEL, mujoco.mjtWarning.mjWARN_BADQACC)
Vector = Sequence[float] | np.ndarray


@dataclass(frozen=True, eq=False)
class Sample:
    """The robot at the beginning of a control step.

    time: [s].
    qpos, qvel: (nq,), (nv,).
    ctrl: the control chosen then, without noise, (nu,).
    sensordata: what the sensors show under this control, (ny,).
    """

    time: float
    qpos: np.ndarray
    qvel: np.ndarray
    ctrl: np.ndarray
    sensordata: np.ndarray


class PolicyLoop:
    """Plays a policy on a robot, one control step after the other.

    folder: what `dso train --out FOLDER` wrote.
    robot: the robot that is simulated; by default the one of the training. Its joints, actuators and sensors are matched by
      name. Its sensors then read what its model says; those of the training's robot have the scale, bias and delay that the
      training found.
    flaws: noise, resolution and delay of actions and sensors. The policy and the estimator read what the sensors show.
    seed: of the noise.
    named: whether `Sample.sensordata` is wanted; all sensors then need names.

    policy, controller: `controller` is None if the policy does not observe an estimate.
    starts: starts that the study draws, or None.
    model, data: the simulated robot. `data` may be pushed between steps, for instance by `xfrc_applied`.
    channels: names of the channels in `Sample.sensordata`.
    """

    def __init__(
        self,
        folder: str | Path,
        robot: Robot | None = None,
        *,
        flaws: Flaws | None = None,
        seed: int = 0,
        named: bool = True,
    ):
        self.policy, self.controller = Policy.load(folder), None
        if self.policy.numbers.on_estimate:
            self.controller = Controller.load(folder)
            self.policy = self.controller.policy
        self.starts = read_starts(folder)
        self.source, own = (str(folder), True) if robot is None else (robot.source, False)
        flaws, trained = flaws or Flaws(), self.policy.model
        self.model = copy.copy(trained if robot is None else robot.mj)
        self._columns = np.arange(self.model.nu) if own else _matched(self.policy, self.model, self.source)
        if not own and self.controller is None and not self.policy.sees_sensors:
            _same_joints(trained, self.model, self.source)
        if not own:
            _same_drives(self.policy, self.model, self._columns, self.source)
        self.substeps = _substeps(self.policy.period, self.model, self.source)
        self._sensors = FlawedSensors(
            self.model,
            flaws,
            self.starts if own else None,
            period=self.policy.period,
            named=named or bool(self._wanted),
        )
        self.channels = self._sensors.channels
        self._read_at = [self._channel(name) for name in self._wanted]
        self._action_sd, self._rng = action_noise(self.model, flaws), np.random.default_rng(seed)
        self.data, self._probe = mujoco.MjData(self.model), mujoco.MjData(self.model)
        self.reset(self.model.qpos0)

    @property
    def _wanted(self) -> tuple[str, ...]:
        """Channels that the estimator, or else the policy, reads."""
        if self.controller is not None:
            return self.controller.estimator.names
        return self.policy.sees if self.policy.sees_sensors else ()

    def _channel(self, name: str) -> int:
        if name not in self.channels:
            raise DsoError(
                f"{self.source}: the policy reads the sensor channel {name!r}, which this robot does not have; it has "
                f"{nearest(name, self.channels, 8) or 'none'}. Add the sensor to the model, or rename it."
            )
        return self.channels.index(name)

    def reset(
        self,
        qpos: Vector | None = None,
        qvel: Vector | None = None,
        act: Vector | None = None,
        *,
        start: int = 0,
        task: Mapping[str, float] | None = None,
    ) -> None:
        """Start an episode: at the study's start number `start`, or at a given state.

        qpos, qvel, act: (nq,), (nv,), (na,); an estimator then starts at this state. Without `qpos`, the study's start.
        task: task numbers; others are those of the start, or the policy's first ones.

        Raises:
          DsoError: there is no such start, or a size or name is wrong.
        """
        task, estimate, late, model = dict(task or {}), None, None, self.model
        if qpos is None:
            starts = self._drawn(start)
            qpos, qvel, act = starts.qpos[start], starts.qvel[start], starts.act[start]
            task = dict(zip(self.policy.numbers.tasks, map(float, starts.task[start]), strict=True)) | task
            estimate = starts.estimate[start]
            late = int(starts.late[start, 0]) if starts.late.shape[1] else None
        position, speed, activation = (
            np.zeros(size) if value is None else checked_numbers(f"start: {name}", value, size, "robot's")
            for name, value, size in (("qpos", qpos, model.nq), ("qvel", qvel, model.nv), ("act", act, model.na))
        )
        self.policy.reset(task, delay=late)
        mujoco.mj_resetData(model, self.data)
        mujoco.mj_normalizeQuat(model, position)
        self.data.qpos[:], self.data.qvel[:], self.data.act[:] = position, speed, activation
        self.data.ctrl[self._columns] = self.policy.numbers.home
        given = np.concatenate([position, speed, activation])
        self._first, self._task = given if estimate is None or not len(estimate) else estimate, task
        depth = self._sensors.depth
        self._felt = deque([self._exact()] * depth, depth)
        self._logged = deque(self._felt, depth)
        self._noise = self._sensors.draw(self._rng)

    def _drawn(self, start: int) -> EpisodeStarts:
        """The study's starts, if they are of this robot and one has this number."""
        starts, model = self.starts, self.model
        if starts is None:
            raise DsoError(f"{self.source}: the folder of the policy holds no starts of a study; give a start.")
        if not 0 <= start < len(starts.qpos):
            raise DsoError(
                f"{self.source}: there is no start number {start}; the training stored {len(starts.qpos)}, from 0. Take fewer "
                "rollouts or a lower seed, or give a start."
            )
        if (starts.qpos.shape[1], starts.qvel.shape[1], starts.act.shape[1]) != (model.nq, model.nv, model.na):
            raise DsoError(f"{self.source}: the starts of the training do not fit this robot's joints; give a start.")
        return starts

    def step(self) -> Sample:
        """Play one control step from the current state.

        Raises:
          DsoError: the simulation diverged, or an estimator could not go on. The episode is then over.
        """
        data, model = self.data, self.model
        time, qpos, qvel = float(data.time), data.qpos.copy(), data.qvel.copy()
        ctrl = np.zeros(model.nu)
        ctrl[self._columns] = self._decide()
        applied = ctrl + self._action_sd * self._rng.standard_normal(model.nu)
        with quiet():
            for substep in range(self.substeps):
                data.ctrl[:] = applied
                mujoco.mj_step(model, data)
                if substep == 0:  # mj_step evaluates sensors before it integrates
                    self._logged[0] = self._sensors.read(data)
        extreme = max(np.abs(data.qpos).max(initial=0.0), np.abs(data.qvel).max(initial=0.0))
        if not extreme < _LIMIT or any(data.warning[kind].number for kind in _BAD):
            raise DsoError(
                f"the simulation diverged near {time:.4g} s; use another start or less noise, or a smaller time step in the "
                "model."
            )
        shown = self._sensors.shown(self._logged, self._noise)
        self._felt.appendleft(self._exact())
        self._logged.appendleft(self._felt[0])
        self._noise = self._sensors.draw(self._rng)
        return Sample(time, qpos, qvel, ctrl, shown)

    def _decide(self) -> np.ndarray:
        """The policy's control (its nu,)."""
        readings = self._sensors.shown(self._felt, self._noise)[self._read_at]
        if self.controller is not None:
            if self.data.time > 0:
                return self.controller.update(readings)
            nq, nv = self.controller.estimator.model.nq, self.controller.estimator.model.nv
            parts = np.split(self._first, [nq, nq + nv])
            return self.controller.reset(*parts, task=self._task)
        if self.policy.sees_sensors:
            return self.policy.act(sensors=readings)
        data = self.data
        return self.policy.act(qpos=data.qpos, qvel=data.qvel, act=data.act)

    def _exact(self) -> np.ndarray:
        """Exact readings in the current state under the latest control. The simulation is left as it is."""
        if not self._read_at:
            return np.zeros(len(self.channels))
        mujoco.mj_copyData(self._probe, self.model, self.data)
        with quiet():
            mujoco.mj_forward(self.model, self._probe)
        return self._sensors.read(self._probe)


def unheeded(folder: str | Path) -> list[str]:
    """What the study of a training says of an episode and a `PolicyLoop` does not heed, in sentences."""
    path = Path(folder) / "run.h5"
    ends = read_run(path)[1].get("terminate") if path.is_file() else None
    if not isinstance(ends, Mapping) or not ends:
        return []
    names = ", ".join(f"[terminate.{name}]" for name in ends)
    return [f"{names} of the study is not looked at here: episodes last their whole time."]


def _matched(policy: Policy, model: mujoco.MjModel, source: str) -> np.ndarray:
    """Where each of the policy's controls is among the robot's actuators, by name."""
    names = [model.actuator(i).name for i in range(model.nu)]
    for one, other, told in (
        (policy.ctrl_names, names, "the policy drives the actuator {!r}, which this robot does not have; it has {}"),
        (names, policy.ctrl_names, "this robot has an actuator {!r}, which the policy does not drive; it drives {}"),
    ):
        for name in one:
            if name not in other:
                raise DsoError(f"{source}: {told.format(name, listed(tuple(other)))}. Rename one side.")
    return np.array([names.index(name) for name in policy.ctrl_names], int)


def _same_drives(policy: Policy, model: mujoco.MjModel, columns: np.ndarray, source: str) -> None:
    """Refuse a robot on which a target of the training's drives would be a torque, or the other way round."""
    for mine, theirs in enumerate(columns):
        if is_position_drive(policy.model, mine) != is_position_drive(model, int(theirs)):
            gives, takes = (
                ("a position", "a force") if is_position_drive(policy.model, mine) else ("a force", "a position")
            )
            raise DsoError(
                f"{source}: the policy gives actuator {policy.ctrl_names[mine]!r} {gives}, and on this robot it takes {takes}; "
                "give the actuator of the robot's model the gainprm, biasprm, gear, ctrlrange and forcerange of the one in "
                "the training's model.xml."
            )


def _same_joints(trained: mujoco.MjModel, model: mujoco.MjModel, source: str) -> None:
    """Refuse a robot whose state means something else than that of the robot in the training."""
    mine, theirs = (
        [f"{m.joint(i).name or i} ({_KINDS[int(m.jnt_type[i])]})" for i in range(m.njnt)] for m in (trained, model)
    )
    if mine != theirs or trained.na != model.na:
        raise DsoError(
            f"{source}: the policy sees the state, and this robot has other joints than the one it was trained on: "
            f"{listed(tuple(theirs))} with {model.na} activations, where {listed(tuple(mine))} with {trained.na} belong, in "
            "this order. Rename or reorder the joints."
        )


_KINDS = ("free", "ball", "slide", "hinge")


def _substeps(period: float, model: mujoco.MjModel, source: str) -> int:
    ratio = period / model.opt.timestep
    if round(ratio) < 1 or abs(ratio - round(ratio)) > _OFF_STEP:
        raise DsoError(
            f"{source}: the policy's control step of {period:g} s is no whole number of this robot's time steps of "
            f"{model.opt.timestep:g} s; change the time step of the model."
        )
    return round(ratio)
