"""Costs of how the policy chooses its action: those of an L-MDP, an H-MDP and an R-MDP."""

import dataclasses

from dso_robotics.costs.kind import COSTS, MotionCost, Scope
from dso_robotics.costs.task import Certainty, Divergence, Proximity, Term
from dso_robotics.table import key


@COSTS.register("divergence")
@dataclasses.dataclass(frozen=True, kw_only=True)
class DivergenceCost(MotionCost):
    """KL divergence of the policy's action from that of a policy that does nothing, with the start's noise."""

    of_action = True

    def term(self, scope: Scope) -> Term:
        """See `MotionCost`."""
        return Divergence()


@COSTS.register("entropy")
@dataclasses.dataclass(frozen=True, kw_only=True)
class EntropyCost(MotionCost):
    """KL divergence of the noisy control from a uniform one over its range: less entropy costs more."""

    of_action = True

    def term(self, scope: Scope) -> Term:
        """See `MotionCost`."""
        return Certainty()


@COSTS.register("proximal")
@dataclasses.dataclass(frozen=True, kw_only=True)
class ProximalCost(MotionCost):
    """KL divergence of an earlier policy's action from the policy's. An episode on C MuJoCo has none of it."""

    of_action = True

    every: int = key("iterations after which the present policy becomes the earlier one", 20, within="[2, 1000000]")

    def term(self, scope: Scope) -> Term:
        """See `MotionCost`."""
        return Proximity(self.every)
