"""What is known of the mechanism beforehand."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from dso_robotics.costs.kind import COSTS, SupervisedCost
from dso_robotics.costs.prior import prior
from dso_robotics.robot.system import RobotSystem
from dso_robotics.table import key


@COSTS.register("prior")
@dataclasses.dataclass(frozen=True, kw_only=True)
class PriorCost(SupervisedCost):
    """-log p of numbers of the mechanism, each normal about a mean."""

    moves: ClassVar[tuple[str, ...]] = ("physics", "sensor", "design")
    numbers: Mapping[str, tuple[float, float]] = key(
        "mean and standard deviation of each number", example={"body/leg/length": [0.4, 0.05]}
    )

    def cost(self, chain: RobotSystem) -> Callable[..., Any]:
        """See `SupervisedCost`."""
        return prior(chain, dict(self.numbers))
