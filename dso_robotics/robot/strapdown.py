"""A model whose base is moved by its accelerometer in the place of forces, for an estimator that trusts kinematics alone.

Forces on a robot that stands, or that a hand moves, are not known well. What an accelerometer reads is known: in the frame of
its site, the acceleration of the base without gravity's. So the base becomes so heavy that no leg moves it, and three actuators
push it with that mass times the readings. Joints become as heavy, so they keep their speeds until readings say otherwise. All
that is left to chance is noise: of the accelerometer in the base's velocity, of unknown torques in the joints'.
"""

import dataclasses
from collections.abc import Iterable, Sequence

import mujoco
import numpy as np

from dso_robotics.data.log import Log
from dso_robotics.data.match import sensor_channels
from dso_robotics.data.rollout import Rollout
from dso_robotics.errors import DsoError, nearest
from dso_robotics.physics.model import Robot, compile_spec

# Mass of the base and rotor inertia of the joints, in multiples of the robot's mass; radius of gyration of the base [m].
_HEAVY, _RADIUS, _ROTOR = 1e6, 0.3, 1e4
# Poses that `blind` looks at, and a difference of readings [m/s^2] that is none.
_POSES, _SAME = 6, 1e-6
# Sensors of a later stage read accelerations or forces.
_VELOCITY = int(mujoco.mjtStage.mjSTAGE_VEL)
_OFF = ("mjDSBL_CONTACT", "mjDSBL_FRICTIONLOSS", "mjDSBL_SPRING", "mjDSBL_DAMPER")


def refuse_unknown(accelerometer: str, paths: Iterable[str]) -> None:
    """Refuse free numbers of forces and masses, which have no effect when readings move the base.

    Raises:
      DsoError: one of `paths` is neither a number of a sensor nor of where something is.
    """
    for path in paths:
        kind, last = path.partition("/")[0], path.partition("+")[0].rpartition("/")[2].partition("[")[0]
        if kind != "sensor" and last not in ("pos", "rot", "axis", "quat"):
            raise DsoError(
                f"strapdown = {accelerometer!r}: {path!r} is free, but forces, masses and friction have no effect with "
                "strapdown, so no log tells of it; leave it out, or leave strapdown out."
            )


def strapped(robot: Robot, accelerometer: str) -> Robot:
    """`robot` with a base that the readings of `accelerometer` move. Its only actuators are the channels of that sensor.

    Raises:
      DsoError: there is no such accelerometer, it is not on a base that can move by itself, or there is no description.
    """
    spec, model = robot.spec, robot.mj
    names = [
        model.sensor(i).name
        for i in range(model.nsensor)
        if int(model.sensor_type[i]) == int(mujoco.mjtSensor.mjSENS_ACCELEROMETER)
    ]
    if accelerometer not in names:
        has = f"it has {nearest(accelerometer, names, 8)}" if names else "it has none"
        raise DsoError(
            f"strapdown = {accelerometer!r}: {robot.source} has no accelerometer of this name; {has}. Name one that is on the "
            "base."
        )
    if spec is None:
        raise DsoError(
            f"{robot.source}: strapdown changes the model, and a compiled MjModel cannot be changed; load the XML file."
        )
    site = int(model.sensor_objid[model.sensor(accelerometer).id])
    base = int(model.site_bodyid[site])
    if int(model.body_parentid[base]) != 0 or not model.body_jntnum[base]:
        raise DsoError(
            f"strapdown = {accelerometer!r}: it is on the body {model.body(base).name or base!r}, which is no free base of "
            f"{robot.source}; name an accelerometer on a body that hangs at the world by a free joint or by joints of its own."
        )
    total = float(model.body_subtreemass[base])
    spec = spec.copy()
    spec.compiler.inertiafromgeom = mujoco.mjtInertiaFromGeom.mjINERTIAFROMGEOM_AUTO
    body = next(one for one in spec.bodies if one.id == base)
    place = np.array(model.site_pos[site])
    # Geoms keep their shapes: the inertia is given.
    body.explicitinertial, body.ipos, body.iquat = True, place, np.array([1.0, 0.0, 0.0, 0.0])
    body.mass = _HEAVY * total
    body.fullinertia = np.full(6, np.nan)
    body.inertia = np.full(3, _HEAVY * total * _RADIUS**2)
    for joint in spec.joints:
        if int(model.jnt_bodyid[joint.id]) == base:
            joint.armature = 0.0
        else:
            joint.armature = _ROTOR * total
    driven_by = [one for one in spec.sensors if one.objtype == mujoco.mjtObj.mjOBJ_ACTUATOR]
    for element in (*driven_by, *spec.actuators, *spec.keys):
        spec.delete(element)
    for axis in range(3):
        gear = np.zeros(6)
        gear[axis] = _HEAVY * total
        named = next(one for one in spec.sites if one.id == site)
        if not named.name:
            named.name = f"strapdown.{accelerometer}"
        # What the model's default class says of actuators does not count.
        push = spec.add_actuator(name=f"{accelerometer}[{axis}]", target=named.name, gear=gear)
        push.set_to_motor()
        push.trntype = mujoco.mjtTrn.mjTRN_SITE
        push.gainprm, push.biasprm, push.dynprm = np.eye(1, 10)[0], np.zeros(10), np.eye(1, 10)[0]
        for limit in ("ctrllimited", "forcelimited", "actlimited"):
            setattr(push, limit, mujoco.mjtLimited.mjLIMITED_FALSE)
    for flag in _OFF:
        spec.option.disableflags |= int(getattr(mujoco.mjtDisableBit, flag))
    spec.option.density = spec.option.viscosity = 0.0
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    return dataclasses.replace(robot, mj=compile_spec(spec, robot.source), spec=spec)


def base_turns(model: mujoco.MjModel) -> list[int]:
    """Tangent directions of positions that turn a body at the world: of a free or ball joint, or of hinges."""
    found: list[int] = []
    for j in range(model.njnt):
        kind, first = int(model.jnt_type[j]), int(model.jnt_dofadr[j])
        if int(model.body_parentid[model.jnt_bodyid[j]]) == 0 and kind != int(mujoco.mjtJoint.mjJNT_SLIDE):
            skip = 3 if kind == int(mujoco.mjtJoint.mjJNT_FREE) else 0
            found += range(first + skip, first + (1 if kind == int(mujoco.mjtJoint.mjJNT_HINGE) else 3 + skip))
    return found


def blind(model: mujoco.MjModel, sensors: Sequence[int]) -> list[str]:
    """Names of the accelerometers among `sensors` (ids) whose readings are the same in every pose of a free body at rest.

    They are so where the model lets the body fall freely. What they read tells nothing of its tilt then. Of a body with
    actuators, or whose pose is read, nothing is said.
    """
    accelerometer, free = int(mujoco.mjtSensor.mjSENS_ACCELEROMETER), int(mujoco.mjtJoint.mjJNT_FREE)
    mine = [i for i in dict.fromkeys(sensors) if int(model.sensor_type[i]) == accelerometer]
    told = (int(mujoco.mjtSensor.mjSENS_FRAMEQUAT), int(mujoco.mjtSensor.mjSENS_FRAMEPOS))
    if not mine or model.nu or free not in model.jnt_type or any(int(model.sensor_type[i]) in told for i in sensors):
        return []
    data, rng, rows = mujoco.MjData(model), np.random.default_rng(0), []
    for pose in range(_POSES):
        mujoco.mj_resetData(model, data)
        mujoco.mj_integratePos(model, data.qpos, rng.normal(size=model.nv) * (pose > 0), 1.0)
        mujoco.mj_forward(model, data)
        rows.append(data.sensordata.copy())
    spread = np.ptp(rows, axis=0)
    places = {i: slice(int(model.sensor_adr[i]), int(model.sensor_adr[i]) + 3) for i in mine}
    return [model.sensor(i).name for i, place in places.items() if spread[place].max() < _SAME]


def driven(log: Log, accelerometer: str) -> Log:
    """`log` whose controls are the readings of `accelerometer`: over each interval, the one at its end.

    Raises:
      DsoError: a rollout lacks a channel of it, or it was never measured there.
    """
    return dataclasses.replace(log, rollouts=tuple(_driven(log, rollout, accelerometer) for rollout in log.rollouts))


def _driven(log: Log, rollout: Rollout, accelerometer: str) -> Rollout:
    names = tuple(f"{accelerometer}[{axis}]" for axis in range(3))
    where = f"{log.label}, rollout {rollout.name!r}"
    for name in names:
        if name not in rollout.sensor_names:
            has = nearest(name, rollout.sensor_names, 8) or "none"
            raise DsoError(f"{where}: no channel {name!r}, which strapdown needs; it has {has}.")
    read = np.stack([rollout.sensor(name) for name in names], 1)
    known = np.flatnonzero(np.isfinite(read).all(1))
    if not len(known):
        raise DsoError(
            f"{where}: {accelerometer!r} was never measured, and strapdown needs it; leave this rollout out."
        )
    # Each interval has the reading at its end, or the next one of a slower accelerometer.
    after = np.arange(1, len(read) + 1)
    ctrl = read[known[np.minimum(np.searchsorted(known, after), len(known) - 1)]]
    return dataclasses.replace(rollout, ctrl=ctrl, ctrl_names=names, ctrl_units=("",) * 3)


def kinematic(model: mujoco.MjModel, log: Log, sensors: Sequence[str] | None, besides: Sequence[str] = ()) -> list[str]:
    """The channels of `log` that a strapped model predicts: of `sensors`, or of all but `besides` and those that need forces.

    Raises:
      DsoError: one of `sensors` reads accelerations or forces.
    """
    every, found = sensor_channels(model), []
    forced = {name for name, (i, _) in every.items() if int(model.sensor_needstage[i]) > _VELOCITY}
    logged = {name for rollout in log.rollouts for name in rollout.sensor_names}
    for sensor in sensors or ():
        for name in forced:
            if sensor in (name, name.split("[")[0]):
                raise DsoError(
                    f"sensors: {sensor!r} reads forces or accelerations, which strapdown does not know; leave it out."
                )
    found = [name for name in every if name in logged and name not in forced and name not in besides]
    return found if sensors is None else list(sensors)
