"""The control cost of an L-MDP."""

import dataclasses

from dso_robotics.costs.kind import COSTS, MotionCost, Scope
from dso_robotics.costs.task import Divergence, Term


@COSTS.register("divergence")
@dataclasses.dataclass(frozen=True, kw_only=True)
class DivergenceCost(MotionCost):
    """KL divergence of the policy's action from that of a policy that does nothing, with the start's noise."""

    def term(self, scope: Scope) -> Term:
        """See `MotionCost`."""
        return Divergence()
