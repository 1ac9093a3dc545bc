"""Numbers that MuJoCo's model has no field for, or that MJX ignores, kept beside its fields under names of the same form.

Most are about the signals between a robot and its log: one entry for each number of sensordata, sensor or actuator.
"""

from collections.abc import Callable

import mujoco
import numpy as np

NOMINAL: dict[str, Callable[[mujoco.MjModel], np.ndarray]] = {
    # What a sensor reports is scale * reading + bias, in the sensor's unit, `delay` seconds later.
    "sensor_bias": lambda model: np.zeros(model.nsensordata),
    "sensor_scale": lambda model: np.ones(model.nsensordata),
    "sensor_delay": lambda model: np.array(model.sensor_delay),
    # An actuator applies the control it was given `delay` seconds ago.
    "actuator_delay": lambda model: np.array(model.actuator_delay),
    # Rotation vectors [rad] that turn a frame from the orientation it has in the model.
    "site_turn": lambda model: np.zeros((model.nsite, 3)),
    "body_turn": lambda model: np.zeros((model.nbody, 3)),
}
# `controller_gain`, numbers of controllers, belongs to no model: `ParameterVector.gains` holds what they are nominally.
SIGNALS = ("sensor_bias", "sensor_scale", "sensor_delay", "actuator_delay", "controller_gain")


def nominal(model: mujoco.MjModel, field: str) -> np.ndarray:
    """What the model says of `field`, one of its own or one of `NOMINAL`."""
    return NOMINAL[field](model) if field in NOMINAL else np.asarray(getattr(model, field), float)
