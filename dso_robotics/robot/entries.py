"""The positions and names of the state entries or sensor channels that a policy sees. Does not import JAX."""

from collections.abc import Sequence

import mujoco

from dso_robotics.data.match import sensor_channels
from dso_robotics.errors import DsoError
from dso_robotics.parameters.path import matches
from dso_robotics.physics.model import Robot, nearest

_HINGE, _FREE = int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_FREE)


def state_entries(
    robot: Robot, leave_out: Sequence[str] = ()
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[str, ...]]:
    """Entries of qpos observed directly, entries observed as sine and cosine, and the names of all observed state values.

    The positions of the joints in `leave_out` are not observed. Of a free joint, NAME/x, NAME/y and NAME/z leave out one
    coordinate each, and NAME all three and the orientation.

    Raises:
      DsoError: a name in `leave_out` is not a joint, nor a coordinate of a free joint.
    """
    model = robot.mj
    names = [name or f"joint {i}" for i, name in enumerate(robot.names("joint"))]
    free = [name for j, name in enumerate(names) if int(model.jnt_type[j]) == _FREE]
    parts = [f"{name}/{axis}" for name in free for axis in "xyz"]
    for name in leave_out:
        if name in names or name in parts:
            continue
        if name.rpartition("/")[0] in free:
            raise DsoError(
                f"{robot.source}: '{name}' cannot be left out; of a free joint {nearest(name, parts)} can. A policy that "
                "shall not see the heading observes sensors: observe = [...] with a framezaxis, a gyro and a velocimeter."
            )
        raise DsoError(
            f"{robot.source}: there is no joint '{name}' to leave out; its joints are {nearest(name, names + parts)}."
        )
    plain, turning, labels, angles = [], [], [], []
    for j, name in enumerate(names):
        first = int(model.jnt_qposadr[j])
        width = (7, 4, 1, 1)[int(model.jnt_type[j])]
        if name in leave_out:
            continue
        if int(model.jnt_type[j]) == _HINGE and not model.jnt_limited[j]:
            turning.append(first)
            angles.append(name)
        else:
            seen = [k for k in range(width) if width != 7 or k > 2 or f"{name}/{'xyz'[k]}" not in leave_out]
            plain += [first + k for k in seen]
            labels += [name] if width == 1 else [f"{name}[{k}]" for k in seen]
    labels += [f"sin {name}" for name in angles] + [f"cos {name}" for name in angles]
    for j, name in enumerate(names):
        width = (6, 3, 1, 1)[int(model.jnt_type[j])]
        labels += [f"{name} velocity"] if width == 1 else [f"{name} velocity[{k}]" for k in range(width)]
    labels += [f"activation {k}" for k in range(model.na)]
    return tuple(plain), tuple(turning), tuple(labels)


def channel_entries(robot: Robot, wanted: Sequence[str] | None = None) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Positions in sensordata and names of the channels that are named, in the order given; by default all.

    A sensor's name means all its channels, and `*` and `?` are wildcards.

    Raises:
      DsoError: the model does not have one of them.
    """
    every = sensor_channels(robot.mj)
    names = list(every) if wanted is None else []
    for name in wanted or ():
        mine = [channel for channel in every if meant(name, channel)]
        if not mine:
            raise DsoError(
                f"{robot.source}: there is no sensor channel '{name}'; it has {nearest(name, every, 8) or 'none'}."
            )
        names += [channel for channel in mine if channel not in names]
    return tuple(int(every[name][1]) for name in names), tuple(names)


def meant(pattern: str, channel: str) -> bool:
    """Whether a name, with wildcards, means a channel: itself or its sensor."""
    return pattern in ("*", channel) or matches(channel.split("[")[0], pattern) or matches(channel, pattern)


def sensor_entries(robot: Robot, sensors: Sequence[str]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Positions in sensordata and names of the channels of `sensors`, in the given order.

    Raises:
      DsoError: `sensors` is empty, or the model does not have a named sensor.
    """
    if not sensors:
        raise DsoError(f"{robot.source}: no sensor was named for the policy to see; name at least one.")
    known, columns, labels = robot.names("sensor"), [], []
    for name in sensors:
        if name not in known:
            has = nearest(name, known, 8) or "none"
            raise DsoError(f"{robot.source}: there is no sensor '{name}'; the model has {has}.")
        i = known.index(name)
        first, width = int(robot.mj.sensor_adr[i]), int(robot.mj.sensor_dim[i])
        columns += range(first, first + width)
        labels += [name] if width == 1 else [f"{name}[{k}]" for k in range(width)]
    return tuple(columns), tuple(labels)
