"""Motors as a data sheet has them: what they weigh, what they turn, and the torque that they have at a speed.

All numbers are of the motor's own shaft, before a gear. In the direction of its torque a motor at speed w has

    available(w) = min(peak torque, stall torque (1 - w / no-load speed)), not below zero

the speed-torque line of its voltage. Against its motion (w < 0 here) it has the peak torque.
"""

import dataclasses
from typing import Any

import numpy as np

Array = Any  # a NumPy or a JAX array


@dataclasses.dataclass(frozen=True)
class Motor:
    """One motor.

    mass: [kg], with all that is mounted with it, such as its gear.
    rotor_inertia: [kg m^2], of what turns with the shaft.
    continuous_torque, peak_torque: [N m], root mean square for ever, and for a moment.
    no_load_speed: [rad/s], at the voltage that it runs on.
    stall_torque: [N m], where the speed-torque line meets speed zero.
    torque_constant: [N m/A]; NaN: not known.
    resistance: [ohm]; NaN: not known.
    peak_power: [W] mechanical.
    price: NaN: not known.
    gears: ratios that it is offered with, ascending: turns of the motor for one of the joint.
    """

    name: str
    mass: float
    rotor_inertia: float
    continuous_torque: float
    peak_torque: float
    no_load_speed: float
    stall_torque: float
    peak_power: float
    torque_constant: float = float("nan")
    resistance: float = float("nan")
    price: float = float("nan")
    gears: tuple[float, ...] = (1.0,)


NUMBERS = tuple(field.name for field in dataclasses.fields(Motor) if field.name not in ("name", "gears"))
"""The numbers of a motor, in order."""


def available(motor: Any, speed: Array) -> Array:
    """Torque [N m] that `motor` has in the direction of `speed` [rad/s], which is negative against its motion."""
    xp = speed.__array_namespace__()
    line = motor["stall_torque"] * (1.0 - speed / motor["no_load_speed"])
    return xp.maximum(xp.minimum(line, motor["peak_torque"]), 0.0)


def beyond(motor: Any, torque: Array, speed: Array) -> Array:
    """How far `torque` [N m] is beyond what `motor` has at `speed` [rad/s], as a part of its peak torque; 0 within.

    motor: its numbers by name.
    """
    xp = torque.__array_namespace__()
    forth, back = torque - available(motor, speed), -torque - available(motor, -speed)
    return xp.maximum(xp.maximum(forth, back), 0.0) / motor["peak_torque"]


def loss(motor: Any, torque: Array) -> Array:
    """Heat in the winding [W] at `torque` [N m]: current squared times resistance."""
    return (torque / motor["torque_constant"]) ** 2 * motor["resistance"]


@dataclasses.dataclass(frozen=True, eq=False)
class Blend:
    """Numbers between the rows of a table of motors: geometric where a column is positive, else linear.

    motors: the rows, in the order in which they are passed.
    """

    motors: tuple[Motor, ...]

    def __call__(self, place: Array) -> dict[str, Array]:
        """The numbers of a motor by name at a place (...) from 0 to K - 1; at a whole number those of that row.

        What is not known of every motor is NaN everywhere.
        """
        return {name: self._number(np.array([getattr(m, name) for m in self.motors]), place) for name in NUMBERS}

    def _number(self, column: np.ndarray, place: Array) -> Array:
        xp, last = place.__array_namespace__(), len(column) - 1
        if last == 0 or np.isnan(column).any():
            return xp.zeros_like(place) + column.sum()
        positive = bool(np.all(column > 0))
        points = np.log(column) if positive else column
        # The lines at both ends go on a little, so that a search can come back.
        ends = [(-np.inf if i == 0 else 0.0, np.inf if i == last - 1 else 1.0) for i in range(last)]
        found = points[0] + sum(
            step * xp.clip(place - i, *ends[i]) for i, step in enumerate(np.diff(points)) if step != 0.0
        )
        found = xp.exp(found) if positive else found
        found = xp.zeros_like(place) + found
        if xp is not np:
            return found
        row = np.clip(np.round(place), 0, last)
        return np.where(row == place, column[row.astype(int)], found)
