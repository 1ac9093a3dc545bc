"""What a motor of a table does, at its own shaft before the gear, and how far it is from its limits."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from dso_robotics.costs.quantity import Quantity
from dso_robotics.errors import DsoError, nearest
from dso_robotics.physics.design.motor import MotorChoice
from dso_robotics.physics.motor import beyond, loss
from dso_robotics.physics.position_drive import is_position_drive
from dso_robotics.robot.scene import Scene


@dataclasses.dataclass(frozen=True, eq=False)
class Working:
    """A motor in a scene. numbers: as in `MotorChoice.at`. torque [N m] and speed [rad/s], (1,) each."""

    numbers: Mapping[str, Array]
    torque: Float[Array, "1"]
    speed: Float[Array, "1"]


def working(choice: MotorChoice, scene: Scene) -> Working:
    """The motor in a scene, under the control that led to it."""
    numbers = choice.at(jnp.stack([scene.number(name) for name in choice.names]) if choice.size else jnp.zeros(0))
    model, i = scene.mj, choice.actuator
    speed = numbers["gear"] * scene.state.qvel[int(model.jnt_dofadr[choice.joint])][None]
    if is_position_drive(model, i):
        force = scene.actuator_force(i) * float(model.actuator_gear[i, 0]) / numbers["gear"]
    elif choice.drive == "voltage":
        force = scene.actuator_force(i)
    else:
        force = scene.model.actuator_gainprm[i, :1] * scene.ctrl[i]
    return Working(numbers, jnp.asarray(force), speed)


_READERS: dict[str, Callable[[Working], Array]] = {
    "torque": lambda w: w.torque,
    "speed": lambda w: w.speed,
    "power": lambda w: w.torque * w.speed,
    "loss": lambda w: loss(w.numbers, w.torque),
    "load": lambda w: w.torque / w.numbers["continuous_torque"],
    "excess": lambda w: beyond(w.numbers, w.torque, w.speed),
    "overspeed": lambda w: jnp.maximum(jnp.abs(w.speed) / w.numbers["no_load_speed"] - 1.0, 0.0),
    "price": lambda w: jnp.reshape(w.numbers["price"], (1,)),
    "mass": lambda w: jnp.reshape(w.numbers["mass"], (1,)),
}
FIELDS = {
    "torque": ("N*m", "at the motor's shaft"),
    "speed": ("rad/s", "at the motor's shaft"),
    "power": ("W", "mechanical"),
    "loss": ("W", "heat in the winding"),
    "load": ("1", "torque over continuous torque"),
    "excess": ("1", "torque beyond what it has at its speed, over peak torque"),
    "overspeed": ("1", "speed beyond that without load, as a part of it"),
    "price": ("1", "as in its table"),
    "mass": ("kg", "as in its table"),
}
"""Units and meanings of the quantities of a motor."""
# Numbers of a table that need not be given, and what reads them.
_NEEDS = {"loss": ("torque_constant", "resistance"), "price": ("price",)}


def motor_quantity(name: str, motors: Mapping[str, Any]) -> Quantity:
    """The quantity motor/NAME/FIELD of a [motor.NAME].

    Raises:
      DsoError: there is no such motor or field, or its table does not say what the field needs.
    """
    _, _, rest = name.partition("/")
    motor, _, field = rest.rpartition("/")
    choice = find_motor(motor, name, motors)
    if field not in _READERS:
        raise DsoError(f"{name}: there is no quantity '{field}' there; it has {', '.join(_READERS)}.")
    for number in _NEEDS.get(field, ()):
        if lacking := choice.unknown(number):
            raise DsoError(f"{name}: the table says no {number} of motor '{lacking}'; add the column.")
    read = _READERS[field]
    return Quantity(name, FIELDS[field][0], lambda scene: read(working(choice, scene)))


def find_motor(motor: str, path: str, motors: Mapping[str, Any]) -> MotorChoice:
    """The motor of [motor.NAME]. Raises DsoError that lists those there are."""
    if motor not in motors:
        raise DsoError(f"{path}: there is no [motor.{motor}]; the study has {nearest(motor, motors) or 'none'}.")
    return motors[motor]
