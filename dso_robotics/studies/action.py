"""The actions of a study: what control an action of zero is, how far a small one moves it, how fast, where noise is added."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import mujoco
import numpy as np

from dso_robotics.errors import DsoError, nearest
from dso_robotics.physics.model import Robot, actuator_labels
from dso_robotics.physics.position_drive import is_position_drive, with_position_drives
from dso_robotics.robot.squash import Squash, squash
from dso_robotics.table import Table, key

ALL = "*"
# A home closer to the end of a range than this part of its half leaves an action no room there.
_ROOM = 0.1


@dataclasses.dataclass(frozen=True)
class PositionTable(Table):
    """Motors on joints become position drives, as the firmware of a servo has: the policy gives target angles or places."""

    stiffness: float | Mapping[str, float] = key(
        'torque per deviation, for all or by actuator; "*" for all others', unit="N*m/rad, N/m", within="(0, inf)",
        example=20.0,
    )  # fmt: skip
    damping: float | Mapping[str, float] = key(
        "torque against the velocity, likewise", 0.0, unit="N*m*s/rad, N*s/m", within="[0, inf)", example=0.5
    )


@dataclasses.dataclass(frozen=True)
class ActionTable(Table):
    """What an action does."""

    zero: Literal["home", "middle"] = key(
        "the control of an action of zero. home: the ctrl of [start] keyframe; without one, the start posture of position "
        "drives and 0 of others; the middle of the range where that is at an end of it",
        "home",
    )
    home: Mapping[str, float] = key("that control by actuator, in place of it", {}, example={"hip": 0.4})
    scale: Mapping[str, float] = key(
        'how far a small action of 1 moves the control, by actuator; "*" for all others; none: half the range, or 1 without '
        "one",
        {}, within="(0, inf)", example={"*": 0.25},
    )  # fmt: skip
    rate: Mapping[str, float] = key(
        'largest change of a control per second, by actuator; "*" for all others; none: no limit', {}, within="(0, inf)",
        example={"*": 20.0},
    )  # fmt: skip
    noise: Literal["before", "after"] = key(
        "where exploration is added. before: to the policy's output, so that it fades where tanh is flat; after: to the place "
        "in the range, and clipped",
        "before",
    )
    position: PositionTable | None = key("motors driven as position servos; none: as the model has them", None)


def make_squash(table: ActionTable, robot: Robot, qpos: np.ndarray, *, period: float, keyframe: str | None) -> Squash:
    """From actions to controls.

    qpos: (nq,) the start posture.
    period: control step [s].
    keyframe: name of the keyframe that episodes start from.

    Raises:
      DsoError: a name is none of an actuator, a home is outside the range, or an actuator without a range explores "after".
    """
    model, names = robot.mj, actuator_labels(robot.mj)
    for what in ("home", "scale", "rate"):
        known = [*names, ALL] if what != "home" else names
        for name in getattr(table, what):
            if name not in known:
                raise DsoError(f"[action] {what}: there is no actuator '{name}'; there are {nearest(name, names, 8)}.")
    home = _home(table, robot, qpos, keyframe)
    low, high = model.actuator_ctrlrange.T
    limited = np.asarray(model.actuator_ctrllimited, bool)
    for name, value in table.home.items():
        i = names.index(name)
        if limited[i] and not low[i] <= value <= high[i]:
            raise DsoError(
                f"[action] home: {name} = {value:g} is outside the actuator's range, {low[i]:g} to {high[i]:g}; give a number "
                "inside, or widen its ctrlrange."
            )
        home[i] = value
    rate = by_name(table.rate, names, np.inf)
    scale, after = by_name(table.scale, names, np.nan), table.noise == "after"
    return squash(model, home=home, scale=scale, step=rate * period, after=after)


def by_name(given: Mapping[str, float] | float, names: Sequence[str], default: float) -> np.ndarray:
    """Numbers of actuators (nu,): each its own, else that of "*", else `default`."""
    given = given if isinstance(given, Mapping) else {ALL: given}
    return np.array([given.get(name, given.get(ALL, default)) for name in names], float)


def driven(table: ActionTable, robot: Robot) -> Robot:
    """The robot with motors that are position drives, if the table says so.

    Raises:
      DsoError: a name is none of an actuator, a motor has no stiffness, or an actuator cannot follow a target.
    """
    if table.position is None:
        return robot
    names = actuator_labels(robot.mj)
    found = []
    for what, given in (("stiffness", table.position.stiffness), ("damping", table.position.damping)):
        for name in given if isinstance(given, Mapping) else ():
            if name not in (*names, ALL):
                raise DsoError(
                    f"[action.position] {what}: there is no actuator '{name}'; there are {nearest(name, names, 8)}."
                )
        found.append(by_name(given, names, np.nan if what == "stiffness" else 0.0))
    for i in np.flatnonzero(np.isnan(found[0])):
        if not is_position_drive(robot.mj, int(i)):
            raise DsoError(
                f"[action.position] stiffness: there is none for actuator '{names[i]}'; give it one, or \"*\" for all others."
            )
    return with_position_drives(robot, *found)


def _home(table: ActionTable, robot: Robot, qpos: np.ndarray, keyframe: str | None) -> np.ndarray:
    """The control (nu,) of an action of zero; NaN stands for the middle of the range."""
    model = robot.mj
    if table.zero == "middle":
        return np.full(model.nu, np.nan)
    key: Any = None if keyframe is None else model.key(keyframe)
    if key is not None and np.any(key.ctrl):
        return np.array(key.ctrl)
    data = mujoco.MjData(model)
    data.qpos[:] = qpos
    mujoco.mj_fwdPosition(model, data)
    drives = np.array([is_position_drive(model, i) for i in range(model.nu)], bool)
    low, high = model.actuator_ctrlrange.T
    off = np.abs(low + high) / np.where(high > low, high - low, 1.0)  # how far 0 is from the middle, in half ranges
    at_end = np.asarray(model.actuator_ctrllimited, bool) & (off > 1.0 - _ROOM)
    return np.where(drives, data.actuator_length, np.where(at_end, np.nan, 0.0))
