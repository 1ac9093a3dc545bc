"""The velocities of feet as sensors of a model, and as columns of a log: zero where a foot stands."""

import dataclasses
from collections.abc import Mapping, Sequence

import mujoco
import numpy as np

from dso_robotics.data.foot_contact import FootContact
from dso_robotics.data.log import Log
from dso_robotics.data.rollout import Rollout
from dso_robotics.errors import DsoError, nearest
from dso_robotics.physics.model import KINDS, Robot, compile_spec

_OBJECT = {
    "site": mujoco.mjtObj.mjOBJ_SITE,
    "body": mujoco.mjtObj.mjOBJ_XBODY,
    "geom": mujoco.mjtObj.mjOBJ_GEOM,
}
# A direction in which the foot moves by less than this [m] for a radian or a metre of every joint is no direction of it. Poses
# that this is tried in, and how far their joints are from the home pose [rad, m].
_STILL, _POSES, _FAR = 1e-9, 8, 0.7


def with_velocities(robot: Robot, places: Mapping[str, tuple[str, str]], feet: Sequence[FootContact]) -> Robot:
    """`robot` with a sensor of the velocity of each foot.

    places: by name of a foot, kind and name of the object that stands, such as ("site", "left_sole").

    Raises:
      DsoError: there is no such object, it is fixed to the world, the model has a sensor of that name, or no description.
    """
    if not feet:
        return robot
    if robot.spec is None:
        raise DsoError(
            f"{robot.source}: [contact] adds sensors to the model, and a compiled MjModel cannot be changed; load the XML file."
        )
    spec = robot.spec.copy()
    for foot in feet:
        kind, name = places[foot.name]
        known = robot.names(kind)
        if name not in known:
            named = [word for word in known if word]
            has = f"it has {nearest(name, named, 8)}" if named else "it has none with a name"
            raise DsoError(f"[contact.{foot.name}] {kind} = {name!r}: {robot.source} has no such {kind}; {has}.")
        if foot.sensor in robot.names("sensor"):
            raise DsoError(
                f"[contact.{foot.name}]: {robot.source} has a sensor {foot.sensor!r} already; rename one of the two."
            )
        if not moving(robot.mj, kind, name).any():
            raise DsoError(
                f"[contact.{foot.name}] {kind} = {name!r} does not move in {robot.source}; name a part of the foot."
            )
        spec.add_sensor(name=foot.sensor, type=mujoco.mjtSensor.mjSENS_FRAMELINVEL, objtype=_OBJECT[kind], objname=name)
    return dataclasses.replace(robot, mj=compile_spec(spec, robot.source), spec=spec)


def moving(model: mujoco.MjModel, kind: str, name: str) -> np.ndarray:
    """Whether an object moves along each axis of the world, (3,): not at all if it is fixed, in two of them if planar."""
    found, data, rng = np.zeros(3, bool), mujoco.MjData(model), np.random.default_rng(0)
    i = mujoco.mj_name2id(model, KINDS[kind], name)
    body = i if kind == "body" else int(getattr(model, f"{kind}_bodyid")[i])
    jacobian = np.zeros((3, model.nv))
    for pose in range(_POSES):
        data.qpos[:] = model.qpos0
        mujoco.mj_integratePos(model, data.qpos, _FAR * rng.normal(size=model.nv) * (pose > 0), 1.0)
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        point = {"body": data.xpos, "site": data.site_xpos, "geom": data.geom_xpos}[kind][i]
        mujoco.mj_jac(model, data, jacobian, None, point, body)
        found |= np.abs(jacobian).max(1) > _STILL
    return found


def with_zeros(
    log: Log, recorded: Log, model: mujoco.MjModel, places: Mapping[str, tuple[str, str]], feet: Sequence[FootContact]
) -> Log:
    """`log` with a channel for each direction in which a foot can move: 0 while it stands, else NaN.

    recorded: the same rollouts with all their channels.

    Raises:
      DsoError: a rollout lacks the channel that tells whether a foot stands, or it never does.
    """
    if not feet:
        return log
    names = [[f"{foot.sensor}[{axis}]" for axis in np.flatnonzero(moving(model, *places[foot.name]))] for foot in feet]
    pairs = zip(log.rollouts, recorded.rollouts, strict=True)
    rollouts = tuple(_completed(log, rollout, whole, feet, names) for rollout, whole in pairs)
    for foot, mine in zip(feet, names, strict=True):
        if foot.reading is not None and not any(np.isfinite(r.sensor(mine[0])).any() for r in rollouts):
            highest = max(float(np.nanmax(r.sensor(foot.reading), initial=-np.inf)) for r in recorded.rollouts)
            raise DsoError(
                f"[contact.{foot.name}]: {foot.reading!r} is at most {highest:.4g} in {log.label}, so the foot never stands, "
                f"which is above {foot.above:g}; lower `above`, or leave the table out."
            )
    return dataclasses.replace(log, rollouts=rollouts)


def _completed(
    log: Log, rollout: Rollout, recorded: Rollout, feet: Sequence[FootContact], names: list[list[str]]
) -> Rollout:
    columns = []
    for foot, mine in zip(feet, names, strict=True):
        if foot.reading is None:
            columns += [np.zeros(len(rollout.time))] * len(mine)
            continue
        if foot.reading not in recorded.sensor_names:
            has = nearest(foot.reading, recorded.sensor_names, 8) or "none"
            raise DsoError(
                f"{log.label}, rollout {rollout.name!r}: no channel {foot.reading!r}, which [contact.{foot.name}] needs; "
                f"it has {has}. Name the one that tells whether the foot stands."
            )
        columns += [foot.zeros(recorded.sensor(foot.reading))] * len(mine)
    every = [name for mine in names for name in mine]
    assert rollout.sensordata is not None
    return dataclasses.replace(
        rollout,
        sensordata=np.concatenate([rollout.sensordata, np.stack(columns, 1)], 1),
        sensor_names=(*rollout.sensor_names, *every),
        sensor_units=(*rollout.sensor_units, *["m/s"] * len(every)),
    )
