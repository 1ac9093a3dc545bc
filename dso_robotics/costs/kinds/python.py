"""A cost that a user writes in Python."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from dso_robotics.costs.kind import COSTS, MotionCost, Scope
from dso_robotics.costs.own_function import call, load_function
from dso_robotics.costs.task import Function, Term
from dso_robotics.errors import DsoError
from dso_robotics.table import File, key

OFFERS = ("state", "ctrl", "before", "task", "kinematics", "sensors", "mj", "model", "products")
"""What of a `robot.scene.Scene` a function is to use, the usual first."""


@COSTS.register("python")
@dataclasses.dataclass(frozen=True, kw_only=True)
class PythonCost(MotionCost):
    """Any JAX function of a `robot.scene.Scene` that gives one number: of state, ctrl, before, task, kinematics, sensors."""

    file: File = key("Python file", example="costs.py")
    function: str = key("name of the function in it", "cost")

    def term(self, scope: Scope) -> Term:
        """See `MotionCost`."""
        where = f"{self.file}:{self.function}"
        use = f"define `def {self.function}(scene)` that gives one number"
        function = load_function(self.file, self.function, use)

        def cost(scene: Any) -> Any:
            found = call(function, where, scene, offers=OFFERS)
            if found is None:
                raise DsoError(f"{where}: returns nothing (None); end it with `return` and one number.")
            try:
                number = jnp.asarray(found, float)
            except (TypeError, ValueError):
                raise DsoError(f"{where}: returns {type(found).__name__}, not a number; {use}.") from None
            if number.size != 1:
                raise DsoError(f"{where}: returns an array of shape {number.shape}; {use}.")
            return number

        return Function(cost)
