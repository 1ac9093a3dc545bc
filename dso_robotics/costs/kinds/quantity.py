"""Costs of quantities of the robot: squares, the hinge loss, and the usual choices of both."""

import dataclasses
import math
from typing import Any

import jax.numpy as jnp

from dso_robotics.costs.kind import COSTS, MotionCost, Scope
from dso_robotics.costs.task import Excess, Hinge, Square, Term
from dso_robotics.errors import DsoError
from dso_robotics.table import key

_QUANTITY = "what is measured, see the list of quantities in policies.md"
_TARGET = "a number, or the quantity that gives it"


def _scale() -> Any:
    return key("deviation that costs 1, in the quantity's unit", 1.0, within="(0, inf)")


@COSTS.register("square")
@dataclasses.dataclass(frozen=True, kw_only=True)
class SquareCost(MotionCost):
    """((q - target) / scale)²."""

    quantity: str = key(_QUANTITY, example="joint/hinge/cosine")
    target: float | str = key(_TARGET, 0.0, example=1.0)
    scale: float = _scale()

    def term(self, scope: Scope) -> Term:
        """See `MotionCost`."""
        return Square(scope.quantity(self.quantity), scope.target(self.target), self.scale)


@COSTS.register("velocity")
@dataclasses.dataclass(frozen=True, kw_only=True)
class VelocityCost(SquareCost):
    """The same with a target that must be given."""

    target: float | str = key(_TARGET, example=1.0)


@COSTS.register("hinge")
@dataclasses.dataclass(frozen=True, kw_only=True)
class HingeCost(MotionCost):
    """max(0, target - q) / scale: nothing once the target is reached."""

    quantity: str = key(_QUANTITY, example="body/trunk/vx")
    target: float | str = key(_TARGET, example=3.0)
    scale: float = _scale()

    def term(self, scope: Scope) -> Term:
        """See `MotionCost`."""
        return Hinge(scope.quantity(self.quantity), scope.target(self.target), self.scale)


@COSTS.register("bounds")
@dataclasses.dataclass(frozen=True, kw_only=True)
class BoundsCost(MotionCost):
    """(how far a quantity is outside its bounds / scale)²: a limit of torque, speed, power or mass that gives way a little."""

    quantity: str = key(_QUANTITY, example="actuator/knee/force")
    low: float | None = key("lower bound", None, example=-20.0)
    high: float | None = key("upper bound", None, example=20.0)
    scale: float = _scale()

    def check(self) -> None:
        """A bound, and room between two."""
        super().check()
        if self.low is None and self.high is None:
            raise DsoError("give `low`, `high` or both: without a bound the cost is always zero.")
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise DsoError(f"`low` = {self.low:g} is not below `high` = {self.high:g}.")

    def term(self, scope: Scope) -> Term:
        """See `MotionCost`."""
        low, high = (math.inf * sign if end is None else end for end, sign in ((self.low, -1), (self.high, 1)))
        return Excess(scope.quantity(self.quantity), low, high, self.scale)


@COSTS.register("upright")
@dataclasses.dataclass(frozen=True, kw_only=True)
class UprightCost(MotionCost):
    """(1 - cosine of a body's z axis with the vertical) / 2."""

    body: str = key("name of the body", example="torso")

    def term(self, scope: Scope) -> Term:
        """See `MotionCost`."""
        return Hinge(scope.quantity(f"body/{self.body}/upright"), 1.0, 2.0)


@COSTS.register("control")
@dataclasses.dataclass(frozen=True, kw_only=True)
class ControlCost(MotionCost):
    """Squares of controls, in half ranges."""

    of_action = True

    def term(self, scope: Scope) -> Term:
        """See `MotionCost`."""
        return Square(scope.quantity("control"))


@COSTS.register("smoothness")
@dataclasses.dataclass(frozen=True, kw_only=True)
class SmoothnessCost(MotionCost):
    """Squares of changes of controls, in half ranges."""

    of_action = True

    def term(self, scope: Scope) -> Term:
        """See `MotionCost`."""
        return Square(scope.quantity("action_change"))


@COSTS.register("contact")
@dataclasses.dataclass(frozen=True, kw_only=True)
class ContactCost(MotionCost):
    """((a sensor's reading - target) / scale)²."""

    sensor: str = key("name of the sensor", example="foot_touch")
    target: float = key("the reading that costs nothing", 0.0)
    scale: float = _scale()

    def term(self, scope: Scope) -> Term:
        """See `MotionCost`."""
        return Square(scope.quantity(f"sensor/{self.sensor}"), self.target, self.scale)


@COSTS.register("energy")
@dataclasses.dataclass(frozen=True, kw_only=True)
class EnergyCost(MotionCost):
    """Squares of the powers of all motors on joints, in units of `scale`."""

    scale: float = key("power that costs 1", 1.0, unit="W", within="(0, inf)")

    def term(self, scope: Scope) -> Term:
        """See `MotionCost`."""
        return _every(scope, "power", self.scale)


@COSTS.register("limits")
@dataclasses.dataclass(frozen=True, kw_only=True)
class LimitsCost(MotionCost):
    """Squares of how far each joint is into the last tenth of its range, as a part of it."""

    def term(self, scope: Scope) -> Term:
        """See `MotionCost`."""
        return _every(scope, "limit", 1.0)


class _Every(Term):
    """The sum of terms that are one to the user."""

    parts: tuple[Term, ...]

    def __call__(self, scene: Any) -> Any:
        return sum((part(scene) for part in self.parts), jnp.zeros(()))


def _every(scope: Scope, field: str, scale: float) -> Term:
    found = []
    for name in scope.robot.names("joint"):
        try:
            found.append(Square(scope.quantity(f"joint/{name}/{field}"), 0.0, scale))
        except DsoError:
            continue
    if not found:
        raise DsoError(f"{scope.robot.source}: no joint has a {field}; remove this cost.")
    return _Every(tuple(found))
