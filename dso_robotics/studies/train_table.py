"""The parameters of a training's summary: physics, sensors, design and the sensors' noise."""

from typing import Any

import numpy as np

from dso_robotics.data.match import sensor_channels, sensor_unit
from dso_robotics.studies.train_build import Task
from dso_robotics.studies.trained_robot import mechanism_numbers

# An entry closer to a bound than this fraction of its range is reported as at the bound.
_AT_BOUND = 0.01


def parameter_table(task: Task, theta: np.ndarray) -> dict[str, Any]:
    """Physics, sensors and design as in contract 1, then the sensors' noise. The other blocks are in run.h5."""
    return _mechanism_table(task, theta) | _noise_table(task, theta)


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
    z, span = mechanism_numbers(task, theta), mechanism.high - mechanism.low
    near = np.minimum(z - mechanism.low, mechanism.high - z) < _AT_BOUND * np.where(
        np.isfinite(span), span, mechanism.scale
    )
    return {
        name: {
            "value": float(z[i]),
            "initial": float(mechanism.initial[i]),
            "unit": mechanism.units[i],
            "low95": None,
            "high95": None,
            "at_bound": bool(near[i]),
        }
        for i, name in enumerate(mechanism.names)
    }
