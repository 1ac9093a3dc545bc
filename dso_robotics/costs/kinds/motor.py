"""Costs of what a motor cannot do, or can do for a while only."""

import dataclasses
from typing import Literal

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from dso_robotics.costs.kind import COSTS, MotionCost, Scope
from dso_robotics.costs.motor_quantity import find_motor, working
from dso_robotics.costs.task import Term
from dso_robotics.physics.design.motor import MotorChoice
from dso_robotics.physics.motor import beyond
from dso_robotics.robot.scene import Scene
from dso_robotics.table import key


@COSTS.register("motor")
@dataclasses.dataclass(frozen=True, kw_only=True)
class MotorCost(MotionCost):
    """What a motor of [motor.NAME] is asked for beyond its data sheet."""

    motor: str = key("name of the [motor.NAME]", example="knee")
    what: Literal["region", "continuous", "power"] = key(
        "region: torque beyond what it has at its speed, over peak torque, squared, and speed beyond that without load, over "
        "it, squared; continuous: (torque / continuous torque)², with limit = 1.0 the root mean square; power: mechanical "
        "power beyond peak_power, over it, squared",
        "region",
    )
    margin: float = key("share of the limits that is kept free", 0.0, within="[0, 1)", example=0.05)

    def term(self, scope: Scope) -> Term:
        """See `MotionCost`."""
        choice = find_motor(self.motor, f"motor = '{self.motor}'", scope.motors)
        return _Limit(choice, self.what, 1.0 - self.margin)


class _Limit(Term):
    """What a motor is asked for beyond a limit, of which `left` is used."""

    choice: MotorChoice = eqx.field(static=True)
    what: str = eqx.field(static=True)
    left: float = eqx.field(static=True)

    def __call__(self, scene: Scene) -> Float[Array, ""]:
        """The square of it."""
        here = working(self.choice, scene)
        most = {name: self.left * value for name, value in here.numbers.items()}
        if self.what == "continuous":
            return jnp.sum((here.torque / most["continuous_torque"]) ** 2)
        if self.what == "power":
            return jnp.sum(jnp.maximum(jnp.abs(here.torque * here.speed) / most["peak_power"] - 1.0, 0.0) ** 2)
        over = jnp.maximum(jnp.abs(here.speed) / most["no_load_speed"] - 1.0, 0.0)
        return jnp.sum(beyond(most, here.torque, here.speed) ** 2 + over**2)
