"""Logs for the evaluation of estimators: pendulums that differ from the model, and runs of a real pendulum."""

import copy

import mujoco
import numpy as np

from dso_robotics.data.log import Log
from dso_robotics.data.rollout import Rollout
from dso_robotics.physics.model import Robot

# What the world has that the estimator's model (mass 0.676, damping 0.05, frictionloss 0.2, no offset) has not.
WORLDS = {
    "matched": {},
    "mass +30%": {"mass": 1.3},
    "mass -30%": {"mass": 0.7},
    "wrong friction": {"frictionloss": 0.05, "damping": 0.15},
    "sensor rotated 0.05 rad": {"offset": 0.05},
}
# Runs of the real pendulum that are judged: the second played no part in any choice made here.
JUDGED = {"pendulum": "sac", "pendulum, another run": "pd_1nm_torque_limited_swingup_failure"}


def world(robot: Robot, change: dict, *, runs: int = 3, seconds: float = 4.0, noise: float = 0.005) -> Log:
    """A log of a pendulum that differs from the model, with an angle sensor only, under random steps of torque."""
    model = copy.copy(robot.mj)
    model.body_mass[1] *= change.get("mass", 1.0)
    model.body_inertia[1] *= change.get("mass", 1.0)
    model.dof_frictionloss[0] = change.get("frictionloss", model.dof_frictionloss[0])
    model.dof_damping[0] = change.get("damping", model.dof_damping[0])
    mujoco.mj_setConst(model, mujoco.MjData(model))
    rng, rollouts = np.random.default_rng(0), []
    count = round(seconds / model.opt.timestep)
    for i in range(runs):
        data, rows = mujoco.MjData(model), []
        data.qpos[0] = rng.normal()
        ctrl = np.repeat(2.5 * rng.normal(size=(count // 40 + 1, 1)), 40, axis=0)[:count]
        for u in ctrl:
            data.ctrl[:] = u
            rows.append([data.qpos[0], data.qvel[0]])
            mujoco.mj_step(model, data)
        state = np.array(rows)
        rollouts.append(
            Rollout(
                name=f"run{i}",
                time=model.opt.timestep * np.arange(count),
                ctrl=ctrl,
                ctrl_names=("tau",),
                sensordata=state[:, :1] + change.get("offset", 0.0) + noise * rng.normal(size=(count, 1)),
                sensor_names=("pos",),
                qpos=state[:, :1],
                qvel=state[:, 1:],
            )
        )
    return Log("", "simulated", "CC0", tuple(rollouts))


def forget(log: Log) -> Log:
    """The log without the states of the training runs: only the last run keeps its states, for the score."""
    kept = []
    for r in log.rollouts[:-1]:
        fields = {k: getattr(r, k) for k in ("name", "time", "ctrl", "ctrl_names", "sensordata", "sensor_names")}
        kept.append(Rollout(**fields))
    return Log("", log.source, log.licence, (*kept, log.rollouts[-1]))


def without_first(r: Rollout) -> Rollout:
    """The rollout from its second sample on."""
    arrays = {k: getattr(r, k)[1:] for k in ("time", "ctrl", "sensordata")}
    names = {k: getattr(r, k) for k in ("name", "ctrl_names", "ctrl_units", "sensor_names", "sensor_units")}
    return Rollout(**arrays, **names)
