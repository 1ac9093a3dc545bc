"""The parameters of a training's summary: physics, sensors, design and the sensors' noise."""

from typing import Any

import numpy as np

from dso_robotics.data.match import sensor_channels, sensor_unit
from dso_robotics.parameters.theta import Theta
from dso_robotics.studies.train_build import Task
from dso_robotics.studies.trained_robot import mechanism_numbers

# An entry closer to a bound than this fraction of its range is reported as at the bound.
_AT_BOUND = 0.01


def parameter_table(task: Task, theta: np.ndarray) -> dict[str, Any]:
    """Physics, sensors and design as in contract 1, the numbers of a [plan], then the sensors' noise.

    The other blocks are in run.h5.
    """
    return _mechanism_table(task, theta) | _plan_table(task, theta) | _noise_table(task, theta)


def _plan_table(task: Task, theta: np.ndarray) -> dict[str, Any]:
    plan, layout = task.chain.plan, task.chain.layout
    if plan is None:
        return {}
    return _rows(Theta((plan.block,)), np.asarray(layout.values(np.asarray(theta))[plan.block.name]))


def _noise_table(task: Task, theta: np.ndarray) -> dict[str, Any]:
    sensing, layout = task.chain.sensing, task.chain.layout
    if sensing is None or not sensing.noise_free:
        return {}
    block = next(b for b in layout.free if b.name == "sensor noise")
    values, channels = np.exp(layout.split(np.asarray(theta))["sensor noise"]), sensor_channels(task.chain.mj)
    free = np.any([*task.flow.masks.values()], axis=0)[layout.where("sensor noise")]
    return {
        name: {
            "value": float(values[c]),
            "initial": float(sensing.sigma[c]),
            "unit": sensor_unit(task.chain.mj, channels[sensing.names[c]][0]),
            "low95": None,
            "high95": None,
            "at_bound": False,
        }
        for c, name in enumerate(block.names)
        if free[c]
    }


def _mechanism_table(task: Task, theta: np.ndarray) -> dict[str, Any]:
    mechanism = task.chain.mechanism
    if mechanism is None or not mechanism.size:
        return {}
    return _rows(mechanism, mechanism_numbers(task, theta))


def _rows(numbers: Theta, z: np.ndarray) -> dict[str, Any]:
    """The rows of numbers at z (n,), by name."""
    span = numbers.high - numbers.low
    near = np.minimum(z - numbers.low, numbers.high - z) < _AT_BOUND * np.where(np.isfinite(span), span, numbers.scale)
    return {
        name: {
            "value": float(z[i]),
            "initial": float(numbers.initial[i]),
            "unit": numbers.units[i],
            "low95": None,
            "high95": None,
            "at_bound": bool(near[i]),
        }
        for i, name in enumerate(numbers.names)
    }
