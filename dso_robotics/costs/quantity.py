"""Scalar quantities of a robot for use in costs, by name: joint/hinge/cosine, site/tip/z, control, ..."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float

from dso_robotics.costs.body_quantity import readers
from dso_robotics.errors import DsoError
from dso_robotics.physics.model import Robot, nearest
from dso_robotics.robot.scene import Scene

Reader = Callable[[Scene], Float[Array, " k"]]


@dataclasses.dataclass(frozen=True, eq=False)
class Quantity:
    """One or several numbers (k,) of a scene, with a name and a unit."""

    name: str
    unit: str
    read: Reader


def quantity(name: str, robot: Robot, tasks: Sequence[str] = ()) -> Quantity:
    """The quantity called `name`. `tasks` are the names of the numbers drawn for each episode, task/NAME.

    joint/J/position, velocity, cosine, sine, limit, power; body/B/x, y, z and the other `body_quantity.readers`; site/S/x, y,
    z; actuator/A/force, speed, power; sensor/S; control, action_change; mass, of the whole robot. NAME[k] is component k of a
    quantity with several numbers, such as sensor/S[2].

    Raises:
      DsoError: the robot has no such quantity, or it has no such component.
    """
    whole, bracket, rest = name.partition("[")
    if bracket and rest.removesuffix("]").isdigit() and rest.endswith("]"):
        return _component(quantity(whole, robot, tasks), name, int(rest[:-1]), robot)
    if name == "control":
        return Quantity(name, "1", lambda scene: (scene.ctrl - _middle(scene)) / _half(scene))
    if name == "action_change":
        return Quantity(name, "1", lambda scene: (scene.ctrl - scene.before) / _half(scene))
    kind, _, rest = name.partition("/")
    if kind == "task":
        if rest not in tasks:
            raise DsoError(f"{name}: there is no [task.{rest}]; the study has {', '.join(tasks) or 'none'}.")
        place = list(tasks).index(rest)
        return Quantity(name, "", lambda scene: scene.task[place : place + 1])
    if name == "mass":
        return Quantity(name, "kg", lambda scene: jnp.sum(scene.model.body_mass)[None])
    kinds = {"joint": _joint, "body": _body, "site": _site, "actuator": _actuator}
    if kind == "sensor":
        columns = _columns(rest, name, robot)
        return Quantity(name, "", lambda scene: scene.sensors[columns])
    if kind not in kinds:
        choices = (
            "joint/J/position, body/B/upright, body/B/velocity_heading[0], site/S/x, sensor/S, control, action_change"
        )
        raise DsoError(f"{name}: there is no such quantity; quantities are like {choices}.")
    thing, _, field = rest.rpartition("/")
    return kinds[kind](name, find_id(kind, thing, name, robot), field, robot)


def _component(found: Quantity, name: str, index: int, robot: Robot) -> Quantity:
    """One number of a quantity."""
    size = 1
    kind, _, rest = found.name.partition("/")
    field = rest.rpartition("/")[2]
    if kind == "sensor":
        size = len(_columns(rest, found.name, robot))
    elif found.name in ("control", "action_change"):
        size = robot.mj.nu
    elif kind == "body" and field.split("_")[0] in ("gravity", "velocity", "spin"):
        size = 3
    if index >= size:
        has = "one number, so it has no components" if size == 1 else f"the components 0 to {size - 1}"
        raise DsoError(f"{name}: {found.name} has {has}.")
    return Quantity(name, found.unit, lambda scene: found.read(scene)[index : index + 1])


def find_id(kind: str, thing: str, path: str, robot: Robot) -> int:
    """Id of the object `thing` of `kind`. Raises an error that lists the robot's objects if there is none."""
    known = robot.names(kind)
    if thing not in known or not thing:
        raise DsoError(
            f"{path}: {robot.source} has no {kind} called '{thing}'; it has {nearest(thing, known, 8) or 'none'}."
        )
    return known.index(thing)


def _unknown(path: str, field: str, fields: Any) -> DsoError:
    return DsoError(f"{path}: there is no quantity '{field}' there; it has {', '.join(fields)}.")


def _joint(path: str, joint: int, field: str, robot: Robot) -> Quantity:
    model = robot.mj
    hinge, slide = int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE)
    if int(model.jnt_type[joint]) not in (hinge, slide):
        raise DsoError(f"{path}: quantities of ball and free joints are those of their body; write body/NAME/{field}.")
    q, v = int(model.jnt_qposadr[joint]), int(model.jnt_dofadr[joint])
    turns = int(model.jnt_type[joint]) == hinge
    unit = "rad" if turns else "m"
    low, high = model.jnt_range[joint] if model.jnt_limited[joint] else (-np.inf, np.inf)
    readers: dict[str, tuple[str, Reader]] = {
        "position": (unit, lambda s: s.state.qpos[q : q + 1]),
        "velocity": (unit + "/s", lambda s: s.state.qvel[v : v + 1]),
    }
    if turns:
        readers |= {
            "cosine": ("1", lambda s: jnp.cos(s.state.qpos[q : q + 1])),
            "sine": ("1", lambda s: jnp.sin(s.state.qpos[q : q + 1])),
        }
    if np.isfinite(low):
        margin = 0.1 * (high - low)
        readers["limit"] = (
            "1",
            lambda s: (
                jnp.maximum(jnp.abs(s.state.qpos[q : q + 1] - (low + high) / 2) - (high - low) / 2 + margin, 0.0)
                / margin
            ),
        )
    pushes = [i for i in range(model.nu) if _drives(model, i, joint)]
    if pushes:
        rows = np.array(pushes)
        readers["power"] = (
            "W",
            lambda s: (
                jnp.sum(
                    s.model.actuator_gear[rows, 0] * s.model.actuator_gainprm[rows, 0] * s.ctrl[rows], keepdims=True
                )
                * s.state.qvel[v]
            ),
        )
    if field not in readers:
        raise _unknown(path, field, readers)
    return Quantity(path, *readers[field])


def _drives(model: mujoco.MjModel, actuator: int, joint: int) -> bool:
    """Whether the actuator is a motor on the joint, so that its force is gain times control."""
    on_joint = int(model.actuator_trntype[actuator]) == int(mujoco.mjtTrn.mjTRN_JOINT)
    plain = int(model.actuator_gaintype[actuator]) == int(mujoco.mjtGain.mjGAIN_FIXED)
    free = int(model.actuator_biastype[actuator]) == int(mujoco.mjtBias.mjBIAS_NONE)
    return on_joint and plain and free and int(model.actuator_trnid[actuator, 0]) == joint


def _body(path: str, body: int, field: str, robot: Robot) -> Quantity:
    known = readers(body)
    if field not in known:
        raise _unknown(path, field, known)
    return Quantity(path, *known[field])


def _actuator(path: str, actuator: int, field: str, robot: Robot) -> Quantity:
    """Force and speed before the gear, as MuJoCo has them, and power: of a motor on a hinge N*m, rad/s and W."""
    readers: dict[str, tuple[str, Reader]] = {
        "force": ("", lambda s: s.actuator_force(actuator)),
        "speed": ("", lambda s: s.actuator_speed(actuator)),
        "power": ("W", lambda s: s.actuator_force(actuator) * s.actuator_speed(actuator)),
    }
    if field not in readers:
        raise _unknown(path, field, readers)
    return Quantity(path, *readers[field])


def _site(path: str, site: int, field: str, robot: Robot) -> Quantity:
    axis = {"x": 0, "y": 1, "z": 2}
    if field not in axis:
        raise _unknown(path, field, axis)
    k = axis[field]
    return Quantity(path, "m", lambda s: s.site_place(site)[k : k + 1])


def _columns(sensor: str, path: str, robot: Robot) -> np.ndarray:
    i = find_id("sensor", sensor, path, robot)
    first = int(robot.mj.sensor_adr[i])
    return np.arange(first, first + int(robot.mj.sensor_dim[i]))


def _middle(scene: Scene) -> np.ndarray:
    limited = np.asarray(scene.mj.actuator_ctrllimited, bool)
    return np.where(limited, scene.mj.actuator_ctrlrange.mean(1), 0.0)


def _half(scene: Scene) -> np.ndarray:
    limited = np.asarray(scene.mj.actuator_ctrllimited, bool)
    low, high = scene.mj.actuator_ctrlrange.T
    return np.where(limited, (high - low) / 2, 1.0)
