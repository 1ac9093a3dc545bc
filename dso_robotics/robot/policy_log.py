"""Logs of a trained policy on a simulated robot. Does not import JAX."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import mujoco
import numpy as np

from dso_robotics.data.log import Log
from dso_robotics.data.match import actuator_names, sensor_channels
from dso_robotics.data.record import Flaws
from dso_robotics.data.rollout import Rollout
from dso_robotics.errors import DsoError, nearest
from dso_robotics.physics.model import Robot
from dso_robotics.physics.unit import actuator_unit, sensor_unit
from dso_robotics.progress.phase import each
from dso_robotics.robot.policy_loop import PolicyLoop, Sample


def play_policy(
    folder: str | Path,
    robot: Robot | None,
    flaws: Flaws,
    *,
    rollouts: int = 1,
    seed: int = 0,
    seconds: float | None = None,
    position: Mapping[str, float] = MappingProxyType({}),
    keyframe: str | None = None,
    spread_qpos: float = 0.0,
    spread_qvel: float = 0.0,
    task: Mapping[str, float] | None = None,
    keep_state: bool = False,
) -> Log:
    """The log of the policy in `folder` on `robot`, or on the robot of its training.

    seed: of the noise, and number of the first start.
    position, keyframe, spread_qpos, spread_qvel: see `given_starts`; without the first two, starts are the study's.
    Other arguments are those of `record_policy`.

    Raises:
      DsoError: what `PolicyLoop`, `given_starts` and `record_policy` raise, or a spread without a start to be about.
    """
    if (spread_qpos or spread_qvel) and not (position or keyframe):
        raise DsoError("a spread of the start is about a start that is given; give --start or --keyframe too.")
    loop, starts = PolicyLoop(folder, robot, flaws=flaws, seed=seed), None
    if position or keyframe:
        spread = {"spread_qpos": spread_qpos, "spread_qvel": spread_qvel}
        starts = given_starts(loop.model, position, keyframe, rollouts=rollouts, seed=seed, **spread)
    source = f"simulated with the policy of {Path(folder).name}, on {Path(loop.source).name}, seed {seed}"
    more = {"starts": starts, "task": task, "keep_state": keep_state, "source": source}
    return record_policy(loop, rollouts=rollouts, first=seed, seconds=seconds, **more)


def record_policy(
    loop: PolicyLoop,
    *,
    rollouts: int = 1,
    first: int = 0,
    seconds: float | None = None,
    starts: Sequence[Sequence[np.ndarray]] | None = None,
    task: Mapping[str, float] | None = None,
    keep_state: bool = False,
    source: str = "",
) -> Log:
    """One rollout for each start `first`, `first + 1`, ... that the study draws, with one sample a control step.

    seconds: length of a rollout [s]; by default that of the study's episode.
    starts: qpos, qvel and act of each rollout, in the place of the study's starts.
    task: task numbers of all rollouts; others are drawn as the study draws them.
    keep_state: record the exact qpos and qvel too.

    Raises:
      DsoError: the simulation diverges, there are not enough starts, nothing would be recorded but controls, or an actuator
        or a sensor has no name.
    """
    model = loop.model
    actuators, sensors = actuator_names(model), sensor_channels(model)
    if not (sensors or keep_state):
        raise DsoError(
            f"{loop.source}: this robot has no sensors, so the log would hold controls alone; record the state, --keep-state."
        )
    steps = _steps(loop, seconds)
    made = []
    for number in each(range(first, first + rollouts), "simulating", "rollout"):
        name = f"{number - first:02d}"
        if starts is None:
            loop.reset(start=number, task=task)
        else:
            loop.reset(*starts[number - first], task=task)
        try:
            samples = [loop.step() for _ in range(steps)]
        except DsoError as error:
            raise DsoError(f"rollout {name!r}: {error}") from error
        made.append(_rollout(name, samples, model, actuators, sensors, keep_state))
    return Log("", source, "not stated", tuple(made))


def _steps(loop: PolicyLoop, seconds: float | None) -> int:
    if seconds is None:
        if loop.starts is None:
            raise DsoError(
                f"{loop.source}: the folder of the policy does not say how long an episode is; give seconds."
            )
        seconds = loop.starts.seconds
    steps = round(seconds / loop.policy.period) if np.isfinite(seconds) else 0
    if steps < 2:
        raise DsoError(
            f"a recording of {seconds:g} s has fewer than two control steps of {loop.policy.period:g} s; make it longer."
        )
    return steps


def _rollout(
    name: str,
    samples: Sequence[Sample],
    model: mujoco.MjModel,
    actuators: tuple[str, ...],
    sensors: Mapping[str, tuple[int, int]],
    keep_state: bool,
) -> Rollout:
    def column(part: str) -> np.ndarray:
        return np.array([getattr(sample, part) for sample in samples])

    return Rollout(
        name=name,
        time=column("time"),
        ctrl=column("ctrl") if actuators else None,
        ctrl_names=actuators,
        ctrl_units=tuple(actuator_unit(model, i) for i in range(model.nu)),
        sensordata=column("sensordata") if sensors else None,
        sensor_names=tuple(sensors),
        sensor_units=tuple(sensor_unit(model, i) for i, _ in sensors.values()),
        qpos=column("qpos") if keep_state else None,
        qvel=column("qvel") if keep_state else None,
    )


def given_starts(
    model: mujoco.MjModel,
    position: Mapping[str, float],
    keyframe: str | None = None,
    *,
    rollouts: int,
    seed: int,
    spread_qpos: float = 0.0,
    spread_qvel: float = 0.0,
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """qpos, qvel and act for each rollout of `record_policy`: a keyframe or qpos0 at rest, with some joints elsewhere.

    position: of hinge and slide joints by name [rad, m].
    spread_qpos, spread_qvel: half-width of uniform noise about them, in tangent coordinates.

    Raises:
      DsoError: there is no such keyframe or joint, or the joint is no hinge or slide.
    """
    qpos, qvel, act = model.qpos0.copy(), np.zeros(model.nv), np.zeros(model.na)
    if keyframe is not None:
        names = [model.key(i).name for i in range(model.nkey)]
        if keyframe not in names:
            raise DsoError(f"there is no keyframe {keyframe!r}; the model has {nearest(keyframe, names, 8) or 'none'}.")
        at = names.index(keyframe)
        qpos, qvel, act = model.key_qpos[at].copy(), model.key_qvel[at].copy(), model.key_act[at].copy()
    joints = [model.joint(i).name for i in range(model.njnt)]
    for name, value in position.items():
        if name not in joints:
            raise DsoError(f"start: there is no joint {name!r}; the model has {nearest(name, joints, 8) or 'none'}.")
        joint = joints.index(name)
        if int(model.jnt_type[joint]) not in _SCALAR or not np.isfinite(value):
            raise DsoError(
                f"start: {name} = {value:g}; give finite numbers, of hinge and slide joints only. A keyframe places free and "
                "ball joints."
            )
        qpos[model.jnt_qposadr[joint]] = value
    rng, made = np.random.default_rng(seed), []
    for _ in range(rollouts):
        moved = qpos.copy()
        mujoco.mj_integratePos(model, moved, spread_qpos * rng.uniform(-1, 1, model.nv), 1.0)
        made.append((moved, qvel + spread_qvel * rng.uniform(-1, 1, model.nv), act))
    return made


_SCALAR = (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE))
