"""Numbers and keys of a training's study that cannot be meant: named before anything is built or compiled."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import mujoco

from dso_robotics.errors import DsoError
from dso_robotics.physics.model import Robot
from dso_robotics.studies.train_study import Explore, PolicyTable, Training, TrainStudy

_HINGE, _SLIDE = int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE)
# A hinge without limits repeats after one turn. Beyond two, its number is hardly one of radians.
_TURNS = 4 * math.pi
# A normal number of this many deviations is at the end of an actuator's range most of the time, after squashing.
_LOUD = 3.0
# A joint limit may be missed by this [rad, m], as rounded numbers do.
_ROUNDED = 1e-3


def refuse_senseless(study: TrainStudy, robot: Robot) -> None:
    """Check where episodes and windows start, the noise, the lengths, and that no key is without effect.

    Raises:
      DsoError: a start is outside a joint's range or hardly in radians, noise drowns the actions, a window is longer than an
        episode, or a key that was given changes nothing.
    """
    try:
        _check_places(study, robot)
        _check_noise(study, robot)
        _check_lengths(study, robot)
        _check_drives(study)
    except DsoError as error:
        raise DsoError(f"{study.source}: {error}") from error
    for table, key, reason in _idle(study):
        raise DsoError(f"{study.source}: [{table}] {key} changes nothing: {reason}")


def _check_places(study: TrainStudy, robot: Robot) -> None:
    """Positions of joints; those of `lift` count from the floor, so its joint's range says nothing about them."""
    places = [("start.position", name, (value,)) for name, value in study.start.position.items()]
    places += [("explore.position", name, ends) for name, ends in study.explore.position.items()]
    names, model = robot.names("joint"), robot.mj
    for table, name, values in places:
        if name not in names or name == study.start.lift:
            continue
        joint = names.index(name)
        kind, limited = int(model.jnt_type[joint]), bool(model.jnt_limited[joint])
        low, high = (float(end) for end in model.jnt_range[joint])
        for value in map(float, values):
            told = f"[{table}] {name} = {value:g}"
            turning = f"; {value:g} degrees are {math.radians(value):.6g}" if kind == _HINGE else ""
            if kind in (_HINGE, _SLIDE) and limited and not low - _ROUNDED <= value <= high + _ROUNDED:
                unit = "rad" if kind == _HINGE else "m"
                raise DsoError(
                    f"{told} is outside the joint's range, {low:g} to {high:g} {unit}{turning}. Give a number inside."
                )
            if kind == _HINGE and not limited and abs(value) > _TURNS:
                raise DsoError(
                    f"{told} rad is {abs(value) / (2 * math.pi):.3g} turns of a joint that repeats after one{turning}. Give "
                    "radians."
                )


def _check_noise(study: TrainStudy, robot: Robot) -> None:
    limited = [
        name for name, given in zip(robot.names("actuator"), robot.mj.actuator_ctrllimited, strict=True) if given
    ]
    if study.policy.noise > _LOUD and limited:
        raise DsoError(
            f"[policy] noise = {study.policy.noise:g} is a part of half an actuator's range: with that much, '{limited[0]}' "
            "would nearly always be at one end of it. Give a number such as 0.3."
        )


def _check_lengths(study: TrainStudy, robot: Robot) -> None:
    timestep = float(robot.mj.opt.timestep)
    period = timestep * max(round((study.control_step or timestep) / timestep), 1)
    steps, moving = max(round(study.seconds / period), 1), any(not cost.supervised for cost in study.cost.values())
    if moving and study.training.horizon > steps:
        raise DsoError(
            f"[training] horizon = {study.training.horizon} control steps is longer than an episode, which has {steps} "
            f"({study.seconds:g} s of {period:g} s each). Give at most {steps}, or more seconds."
        )
    delay = study.policy.delay[1] if isinstance(study.policy.delay, tuple) else study.policy.delay
    if delay >= study.seconds:
        raise DsoError(
            f"[policy] delay = {delay:g} s: in an episode of {study.seconds:g} s no action would ever act. Give less."
        )


def _check_drives(study: TrainStudy) -> None:
    """What belongs to a motor's gear has no place where the drive's target is the joint's."""
    if study.action.position is None:
        return
    for name, table in study.design.items():
        if table.kind == "gear":
            raise DsoError(
                f"[design.{name}] designs a gear, and [action.position] makes the motors drives of the joint itself; leave one "
                "of them out."
            )


def _idle(study: TrainStudy) -> Iterator[tuple[str, str, str]]:
    """Keys that differ from their defaults and have no effect: their table, their name, and why with the cure."""
    policy, training = study.policy, study.training
    recurrent = policy.kind in ("brain", "gated")
    numbers = bool(study.free or study.design or study.motor or study.randomise)
    explores = study.explore != Explore()
    for key, idle, reason in (
        ("hidden", policy.kind != "network", f'a policy of kind "{policy.kind}" has no hidden layers. Leave it out.'),
        ("units", not recurrent, f'a policy of kind "{policy.kind}" has no units; brain and gated have. Leave it out.'),
        ("period", not policy.time_features, "the policy does not see the time. Give time_features too, such as 2."),
        (
            "leave_out",
            policy.observe not in ("state", "estimate"),
            "the policy sees sensors, not joints. Leave it out.",
        ),
        (
            "see_design",
            not numbers,
            "the study has no [design], no free and no [randomise] numbers to see. Leave it out.",
        ),
    ):
        if idle and _given(policy, PolicyTable, key):
            yield "policy", key, reason
    if _given(training, Training, "design_rate") and not (study.design or study.motor or study.free):
        yield (
            "training",
            "design_rate",
            "there is no number of the mechanism to find. Leave it out, or add a [design.NAME].",
        )
    if _given(training, Training, "explore") and training.explore > 0 and not explores:
        yield (
            "training",
            "explore",
            "there is no [explore] table that says where windows start. Add one, or leave it out.",
        )
    if explores and training.explore == 0:
        yield (
            "training",
            "explore",
            "it is 0, so the [explore] table has no effect. Give a share above 0, or leave it out.",
        )


def _given(table: Any, kind: type, key: str) -> bool:
    """Whether a key has another value than its default."""
    default = next(field.default for field in dataclasses.fields(kind) if field.name == key)
    return getattr(table, key) != default
