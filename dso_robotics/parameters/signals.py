"""Numbers that MuJoCo's model has no field for, or that MJX ignores. They are named like model fields and kept with them.

Most describe the signals between a robot and its log: one entry for each number of sensordata, sensor or actuator.
"""

from collections.abc import Callable

import mujoco
import numpy as np

from dso_robotics.physics.model import model_field

NOMINAL: dict[str, Callable[[mujoco.MjModel], np.ndarray]] = {
    # A sensor reports scale * reading + bias, in the sensor's unit, `delay` seconds later.
    "sensor_bias": lambda model: np.zeros(model.nsensordata),
    "sensor_scale": lambda model: np.ones(model.nsensordata),
    "sensor_delay": lambda model: np.array(model.sensor_delay),
    # An actuator applies the control that it received `delay` seconds ago.
    "actuator_delay": lambda model: np.array(model.actuator_delay),
    # Rotation vectors [rad] that rotate a frame from its orientation in the model.
    "site_turn": lambda model: np.zeros((model.nsite, 3)),
    "body_turn": lambda model: np.zeros((model.nbody, 3)),
    # Inductance [H] of each DC motor. MuJoCo stores it over the resistance, as the electrical time constant.
    "motor_inductance": lambda model: model.actuator_dynprm[:, 0] * model.actuator_gainprm[:, 0],
}
# `controller_gain` holds the controllers' gains. These are not in the model; `ParameterVector.gains` has nominal values.
SIGNALS = ("sensor_bias", "sensor_scale", "sensor_delay", "actuator_delay", "controller_gain")


def nominal(model: mujoco.MjModel, field: str) -> np.ndarray:
    """The model's value of `field`, which is a model field or an entry of `NOMINAL`."""
    return NOMINAL[field](model) if field in NOMINAL else np.asarray(model_field(model, field), float)
