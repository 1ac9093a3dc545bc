"""The cost of asking for more than an actuator's range."""

import dataclasses

from dso_robotics.costs.kind import COSTS, MotionCost, Scope
from dso_robotics.costs.task import Saturation, Term
from dso_robotics.errors import DsoError
from dso_robotics.table import key


@COSTS.register("saturation")
@dataclasses.dataclass(frozen=True, kw_only=True)
class SaturationCost(MotionCost):
    """Squares of how far the argument of tanh is beyond `free`: it leads a policy back to where its output still matters."""

    of_action = True

    free: float = key("size that costs nothing; tanh(2) is 0.96 of half the range", 2.0, within="[0, inf)")

    def term(self, scope: Scope) -> Term:
        """See `MotionCost`."""
        if not scope.robot.mj.actuator_ctrllimited.any():
            raise DsoError("no actuator has a ctrlrange, so none saturates; leave this cost out.")
        return Saturation(self.free)
