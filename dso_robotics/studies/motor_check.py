"""Whether the motors of a study can do what episodes ask of them: torque at a speed, root mean square, power."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np

from dso_robotics.physics.design.motor import MotorChoice
from dso_robotics.physics.motor import NUMBERS, beyond
from dso_robotics.physics.position_drive import is_position_drive
from dso_robotics.robot.play import Episode
from dso_robotics.studies.motors import motor_maps
from dso_robotics.studies.train_build import Task
from dso_robotics.studies.trained_robot import compiled, mechanism_numbers

_BEYOND = ("excess", "overspeed", "overheat", "overpower")
SLACK = 0.01
"""By which part a motor may be beyond a limit and still be called able."""


def motors_at(task: Task, theta: Any, episodes: Sequence[Episode]) -> dict[str, dict[str, Any]]:
    """What every motor is at theta and does in episodes, by the name of its table.

    Torques are looked at when a control begins to act and when the next one does.
    """
    if not task.study.motor:
        return {}
    model, mechanism = compiled(task, theta), task.chain.mechanism
    found = {}
    for name, choice in motor_maps(task.study, task.robot).items():
        numbers = np.zeros(0)
        if choice.size and mechanism is not None:
            z = mechanism_numbers(task, theta)
            numbers = np.array([z[mechanism.names.index(one)] for one in choice.names])
        found[name] = _row(model, choice, numbers, episodes)
    return found


def beyond_limits(rows: dict[str, dict[str, Any]]) -> float:
    """By how much motors are beyond their limits, in parts of them, summed; 0 if all are able."""
    return sum(max(row[key] - SLACK, 0.0) for row in rows.values() for key in _BEYOND)


def motor_doubts(rows: dict[str, dict[str, Any]]) -> list[str]:
    """A sentence on every motor that cannot do what is asked of it."""
    found = []
    for name, row in rows.items():
        parts = []
        if row["excess"] > SLACK:
            parts.append(
                f"the torque is up to {100 * row['excess']:.3g}% of the peak torque beyond what it has at its speed"
            )
        if row["overspeed"] > SLACK:
            parts.append(f"the speed is up to {100 * row['overspeed']:.3g}% above that without load")
        if row["overheat"] > SLACK:
            parts.append(
                f"the root mean square of the torque is {100 * row['overheat']:.3g}% above the continuous torque"
            )
        if row["overpower"] > SLACK:
            parts.append(f"the power is up to {100 * row['overpower']:.3g}% above peak_power")
        if parts:
            found.append(
                f"[motor.{name}] {row['label']} is too small for this motion: {', '.join(parts)}. Limit it with costs of "
                'kind = "motor" and `limit`, or choose from larger motors.'
            )
    return found


def _row(
    model: mujoco.MjModel, choice: MotorChoice, numbers: np.ndarray, episodes: Sequence[Episode]
) -> dict[str, Any]:
    own = choice.at(numbers)
    motor, ratio = choice.chosen(numbers)
    same = (np.isclose(own[name], getattr(motor, name), equal_nan=True) for name in NUMBERS)
    if not choice.size or (np.isclose(own["gear"], ratio) and all(same)):  # a motor of the table, not one in between
        own = dataclasses.asdict(motor) | {"gear": ratio}
    worked = [_worked(model, choice, float(own["gear"]), episode) for episode in episodes]
    torque, speed = (np.concatenate([np.zeros(1), *(part[k].ravel() for part in worked)]) for k in (0, 1))
    heat = max((float(np.sqrt(np.mean(part[0] ** 2))) for part in worked if part[0].size), default=0.0)
    power = float(np.abs(torque * speed).max())
    limits = {name: np.asarray(float(own[name])) for name in NUMBERS}
    return {
        "label": choice.label(motor, ratio),
        "motor": motor.name,
        "gear": float(own["gear"]),
        "mass": float(own["mass"]),
        "price": None if np.isnan(own["price"]) else float(own["price"]),
        "torque": {"peak": float(np.abs(torque).max()), "rms": heat, "continuous": float(own["continuous_torque"])},
        "speed": {"peak": float(np.abs(speed).max()), "no_load": float(own["no_load_speed"])},
        "power": {"peak": power, "limit": float(own["peak_power"])},
        "excess": float(np.max(beyond(limits, torque, speed))),
        "overspeed": max(float(np.abs(speed).max() / own["no_load_speed"]) - 1.0, 0.0),
        "overheat": max(heat / float(own["continuous_torque"]) - 1.0, 0.0),
        "overpower": max(power / float(own["peak_power"]) - 1.0, 0.0),
    }


def _worked(
    model: mujoco.MjModel, choice: MotorChoice, ratio: float, episode: Episode
) -> tuple[np.ndarray, np.ndarray]:
    """Torque and speed of the motor (2, T), when each control begins to act and at its end."""
    i, q, v = choice.actuator, int(model.jnt_qposadr[choice.joint]), int(model.jnt_dofadr[choice.joint])
    count, gear = len(episode.ctrl), float(model.actuator_gear[i, 0])
    place, rate = (np.stack([x[:count], x[1 : count + 1]]) for x in (episode.qpos[:, q], episode.qvel[:, v]))
    ctrl, gain, bias = episode.ctrl[:, i], model.actuator_gainprm[i, 0], model.actuator_biasprm[i]
    if model.actuator_ctrllimited[i]:
        ctrl = np.clip(ctrl, *model.actuator_ctrlrange[i])
    force = np.broadcast_to(gain * ctrl, place.shape)
    if int(model.actuator_biastype[i]) == int(mujoco.mjtBias.mjBIAS_AFFINE):
        force = force + bias[0] + bias[1] * gear * place + bias[2] * gear * rate
    if model.actuator_forcelimited[i]:
        force = np.clip(force, *model.actuator_forcerange[i])
    behind = gear / ratio if is_position_drive(model, i) else 1.0
    return force * behind, rate * ratio
