"""What is known of the weights of a policy and a corrector beforehand: that they are small, or near their start."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

from dso_robotics.costs.kind import COSTS, SupervisedCost
from dso_robotics.costs.prior import weight_prior
from dso_robotics.errors import DsoError
from dso_robotics.robot.system import RobotSystem
from dso_robotics.table import key


@COSTS.register("weights")
@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightsCost(SupervisedCost):
    """-log p of the weights of the policy or the corrector, each normal about zero or about its start."""

    of: tuple[Literal["policy", "corrector"], ...] = key("whose weights", ("policy",))
    std: float = key("standard deviation of each weight", 1.0, within="(0, inf)")
    about: Literal["zero", "start"] = key("the mean of each weight; start: what it is before the training", "zero")

    def check(self) -> None:
        """Each once."""
        super().check()
        if not self.of or len(set(self.of)) < len(self.of):
            raise DsoError(f'`of` = {list(self.of)}; name "policy", "corrector" or both, each once.')

    @property
    def moves(self) -> tuple[str, ...]:  # type: ignore[override]
        """Blocks that the cost moves."""
        return self.of

    def cost(self, chain: RobotSystem) -> Callable[..., Any]:
        """See `SupervisedCost`."""
        return weight_prior(chain, self.of, std=self.std, about_start=self.about == "start")
