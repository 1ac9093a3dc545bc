"""Plan recordings: model + what is known + limits -> signals -> information -> the runs that tell most."""

import dataclasses
import math
from typing import Any

import mujoco
import numpy as np

from dso_robotics.costs.information import covariance, score
from dso_robotics.data.controls import sample_times
from dso_robotics.data.match import actuator_names
from dso_robotics.data.waveform import waveform
from dso_robotics.errors import DsoError, nearest
from dso_robotics.parameters.path import Declaration, matches, noise_named
from dso_robotics.parameters.servo import fit_servos
from dso_robotics.parameters.vector import ParameterVector, pack
from dso_robotics.physics.export import to_mjcf
from dso_robotics.physics.model import Robot, keyframe_position, load
from dso_robotics.robot.clearance import pairs, refuse_touching
from dso_robotics.robot.holding import Drive, drive, holding, refuse_undriven
from dso_robotics.robot.motion_limits import MotionLimits, limits, meant, rates
from dso_robotics.studies import masked
from dso_robotics.studies.excite_known import (
    PLAN,
    Earlier,
    Known,
    declared,
    known,
    noise_scales,
    read_earlier,
    recorded_channels,
    window_of,
)
from dso_robotics.studies.excite_search import Run, Search
from dso_robotics.studies.excite_study import ExciteStudy
from dso_robotics.studies.excite_trials import Trials
from dso_robotics.studies.invisible import Row, table

# Student's t with 4 degrees of freedom tells (4 + 1) / (4 + 3) of what normal errors tell.
_HEAVY = math.sqrt(7 / 5)


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """A plan. `robot` has the values that it was made for; `table` has a row for each number; the rest is for reports.

    time: (T,) of the samples of each run [s]. sigma: (C,) noise scales of the `channels`. window: of the identification [s].
    halved: whether the widest interval is half as wide, if that was the aim. steps: simulated steps.
    """

    study: ExciteStudy
    robot: Robot
    vector: ParameterVector
    time: np.ndarray
    actuators: tuple[str, ...]
    runs: tuple[Run, ...]
    table: dict[str, Row]
    channels: tuple[str, ...]
    sigma: np.ndarray
    window: float
    halved: bool | None
    steps: int
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Setting:
    """A study made ready: the robot as it was given, and `there`, at the values of the plan; the vector; what is known; trials.

    hidden: why contacts hide numbers, by path. earlier: the result, if there is one. notes: on the start.
    """

    robot: Robot
    there: Robot
    vector: ParameterVector
    known: Known
    trials: Trials
    free: tuple[Declaration, ...]
    hidden: dict[str, str]
    earlier: Earlier | None
    notes: tuple[str, ...]


def prepare(study: ExciteStudy) -> Setting:
    """Read the model and the result, and check everything that can be checked before a search.

    Raises:
      DsoError: see `excite`.
    """
    robot = load(study.model)
    if not robot.mj.nu:
        raise DsoError(f"{robot.source}: the model has no actuators, so nothing can excite it; add an <actuator>.")
    earlier = None if study.result is None else read_earlier(study.result)
    free = declared(study, earlier)
    servos = fit_servos([*study.actuator, *(earlier.study.actuator if earlier else ())], robot, free)
    free += tuple(one for servo in servos for one in servo.declarations)
    free = tuple(d for d in free if noise_named(d.path) is None and not d.path.endswith("/initial_state"))
    vector = pack(free, robot, [PLAN])
    hidden = masked.refuse(vector, {d.path for d in free}, robot.source)
    if all(p.rollout for p in vector.parameters):
        raise DsoError(
            "every free number belongs to one recording, so nothing is common to learn; free PATH without log/."
        )
    channels = recorded_channels(study, earlier, robot)
    sigma = noise_scales(study, earlier, robot, channels)
    if study.robust or (earlier is not None and earlier.study.robust):
        sigma = sigma * _HEAVY
    begun = known(vector, earlier, robot, draws=study.draws, seed=study.seed)
    there = _at(robot, vector, begun.draws[0])
    trials, notes = _trials(study, robot, there.mj, vector, begun, channels, sigma, window_of(study, earlier))
    return Setting(robot, there, vector, begun, trials, free, hidden, earlier, tuple(notes))


def excite(study: ExciteStudy) -> Plan:
    """Plan the runs of `study`. Nothing is written.

    Raises:
      DsoError: something is wrong with the model, the result or the options; no motion keeps the limits; the robot collides at
        rest; or no excitation shows a number that was named.
    """
    setting = prepare(study)
    robot, vector, begun, trials = setting.robot, setting.vector, setting.known, setting.trials
    free, hidden, earlier, notes = setting.free, setting.hidden, setting.earlier, list(setting.notes)
    interest = _interest(study, vector, begun)
    before = begun.information
    runs: list[Run] = []
    planned = np.zeros((len(begun.draws), *before.shape))
    first = float(score("widest", covariance(before), interest))
    for index in range(study.runs):
        at = Search(study, trials, begun, interest, planned, index, free, hidden, robot.source)
        run, told = at.best()
        planned = planned + told
        runs.append(run)
        after = covariance(before + planned).mean(0)
        if study.aim == "halve" and float(score("widest", after, interest)) < first - math.log(2):
            break
    after = covariance(before + planned).mean(0)
    rows = table(vector, begun.draws[0], begun.size, before, begun.told, planned.mean(0), after, hidden)
    if all(row.hidden for row in rows.values()):
        worst = next(iter(rows))
        raise DsoError(
            f"{robot.source}: the best plan found shows none of the free numbers; of {worst}: {rows[worst].hidden}. Give more "
            "--seconds or --runs, wider limits, or free less."
        )
    halved = None
    if study.aim == "halve":
        gain = math.exp(first - float(score("widest", after, interest)))
        halved = gain > 2
        if not halved:
            notes.append(
                f"The widest interval is {gain:.3g} times narrower after {len(runs)} run(s), not twice. Give more --runs or "
                "--seconds, or wider limits."
            )
    notes += _doubts(earlier, robot, study)
    return Plan(
        study,
        setting.there,
        vector,
        trials.time,
        actuator_names(vector.mj),
        tuple(runs),
        rows,
        trials.channels,
        trials.sigma,
        trials.window,
        halved,
        trials.steps,
        tuple(notes),
    )


def _trials(
    study: ExciteStudy,
    robot: Robot,
    model: mujoco.MjModel,
    vector: ParameterVector,
    begun: Known,
    channels: tuple[str, ...],
    sigma: np.ndarray,
    window: float,
) -> tuple[Trials, list[str]]:
    """What simulates trials, and notes on the start.

    Raises:
      DsoError: the start collides, or does not keep the limits even at rest.
    """
    qpos = _start(study, robot)
    apart = pairs(model, study.distance, [*study.touch, *_meant_to_touch(vector)], study.margin)
    refuse_touching(model, qpos, apart, robot.source)
    rest, act = holding(model, qpos)
    allowed = limits(
        model,
        position=study.position,
        speed=study.speed,
        acceleration=study.acceleration,
        torque=study.torque,
        power=study.power,
        apart=apart,
        rest=study.end == "rest",
    )
    time = np.append(sample_times(model, study.seconds, study.every), 0.0)
    time[-1] = time[-2] + time[1]
    form = waveform(
        study.signal,
        time,
        model.nu if study.play == "control" else model.nv,
        top=study.top,
        count=study.harmonics,
        fade=study.fade,
        still=study.still,
    )
    trials = Trials(
        vector,
        begun,
        waveform=form,
        **_played(study, robot, vector, begun, model, qpos, rest, allowed),
        limits=allowed,
        time=time,
        start=np.concatenate([qpos, np.zeros(model.nv), act]),
        channels=channels,
        sigma=sigma,
        window=window,
    )
    played = np.broadcast_to(trials.drive.rest, (1, len(time), len(trials.drive.rest)))
    motion = trials.motion(played)
    verdict = dataclasses.replace(allowed, still=np.inf).judge(motion.path, motion.ctrl, trials.interval)
    if verdict.excess[0] > 0:
        raise DsoError(
            f"{robot.source}: with the controls of rest and no excitation the robot already breaks a limit: "
            f"{verdict.worst[0]}. Widen it, or start elsewhere with --keyframe NAME."
        )
    notes, nq = [], model.nq
    speed = np.abs(motion.path[0, :, nq : nq + model.nv]).max()
    if speed > 0.05:
        notes.append(
            f"The robot does not stay where it starts: its controls cannot hold it there, and without an excitation it reaches "
            f"{speed:.3g} rad/s or m/s. Start where it rests, with --keyframe NAME."
        )
    return trials, notes


def _played(
    study: ExciteStudy,
    robot: Robot,
    vector: ParameterVector,
    begun: Known,
    model: mujoco.MjModel,
    qpos: np.ndarray,
    rest: np.ndarray,
    allowed: MotionLimits,
) -> dict[str, Any]:
    """The range and the rate of what the signals are, and of references the robot at each draw.

    Raises:
      DsoError: a control or a joint has no range, or the robot cannot follow references.
    """
    names = actuator_names(model)
    if study.play == "control":
        held = {i: value for pattern, value in study.hold.items() for i in meant("hold", pattern, names, "actuator")}
        if len(held) == len(names):
            raise DsoError("--hold: every actuator is held, so nothing is excited; leave one out.")
        return {"drive": drive(model, rest, names, study.amplitude or None, held), "rate": rates(study.rate, names)}
    refuse_undriven(model, robot.source)
    if study.rate or study.amplitude or study.hold:
        raise DsoError(
            "--play reference: signals are positions, so --rate, --amplitude and --hold do not apply; give --speed, "
            "--torque and --position."
        )
    for j in range(model.njnt):
        if not np.isfinite([allowed.low[j], allowed.high[j]]).all():
            raise DsoError(
                f"--play reference: joint '{model.joint(j).name}' has no range, so how far its reference may go is unknown; "
                f"give --position {model.joint(j).name}=LOW:HIGH."
            )
    models = [_at(robot, vector, z).mj for z in begun.draws]
    return {"drive": Drive(qpos, allowed.low, allowed.high), "rate": allowed.speed, "models": models}


def _start(study: ExciteStudy, robot: Robot) -> np.ndarray:
    model = robot.mj
    if study.keyframe is None:
        return np.array(model.qpos0)
    return keyframe_position(model, study.keyframe, robot.source)


def _meant_to_touch(vector: ParameterVector) -> list[str]:
    """Pairs of geoms whose contact has a free number, so that they are to touch."""
    model, found = vector.mj, []
    widths = {"geom_friction": 3, "geom_solref": 2, "geom_solimp": 5}
    explicit = {"pair_friction": 5, "pair_solref": 2, "pair_solimp": 5, "pair_solreffriction": 2}
    for p in vector.parameters:
        for slot in p.slots:
            for i in slot.at:
                if slot.field in widths:
                    name = model.geom(i // widths[slot.field]).name
                    found.append(f"{name}:*")
                elif slot.field in explicit:
                    k = i // explicit[slot.field]
                    one, two = (model.geom(int(g[k])).name for g in (model.pair_geom1, model.pair_geom2))
                    found.append(f"{one or '*'}:{two or '*'}")
    return list(dict.fromkeys(found))


def _interest(study: ExciteStudy, vector: ParameterVector, begun: Known) -> np.ndarray:
    """The coordinates (g,) whose intervals count.

    Raises:
      DsoError: none has such a path.
    """
    paths = [p.path for p in vector.parameters if not p.rollout for _ in range(p.size)]
    if not study.interest:
        return np.ones(len(begun.size), bool)
    found = np.zeros(len(begun.size), bool)
    for pattern in study.interest:
        mine = [matches(path, pattern) for path in paths]
        if not any(mine):
            raise DsoError(f"--interest {pattern}: no free number is called so; they are {nearest(pattern, paths, 8)}.")
        found |= mine
    return found


def _at(robot: Robot, vector: ParameterVector, z: np.ndarray) -> Robot:
    """The robot at z, for forces, distances and pictures."""
    text = to_mjcf(robot, vector.written(z))
    spec = mujoco.MjSpec.from_string(text)
    if robot.spec is not None:
        for name in ("meshdir", "texturedir"):
            setattr(spec, name, getattr(robot.spec, name))
        spec.assets = robot.spec.assets
    return Robot(load(spec).mj, spec, robot.source)


def _doubts(earlier: Earlier | None, robot: Robot, study: ExciteStudy) -> list[str]:
    """What speaks against the predicted intervals."""
    found = []
    if earlier is not None and earlier.doubtful:
        found.append(
            f"{earlier.folder} is doubtful: its own notes say that the model misses something. The intervals after are those "
            "of an exact model, and will be wider; mend the model first."
        )
    if study.draws > 1 and earlier is None and not any(d.prior for d in study.free):
        found.append(
            "Nothing is known of the numbers but their start values, so the plan is the best one if these are right. After a "
            "first recording, plan again with its RESULT."
        )
    return found
