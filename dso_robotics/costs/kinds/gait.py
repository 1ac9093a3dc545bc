"""The cost of feet that do not step as a clock asks for."""

import dataclasses
from collections.abc import Mapping

from dso_robotics.costs.gait import Gait
from dso_robotics.costs.kind import COSTS, MotionCost, Scope
from dso_robotics.costs.task import Term
from dso_robotics.errors import DsoError
from dso_robotics.table import key


@COSTS.register("gait")
@dataclasses.dataclass(frozen=True, kw_only=True)
class GaitCost(MotionCost):
    """Sum over feet of ((height - height wished) / scale)²: on the ground for a share of a cycle, then lifted and set down.

    Between duty and the end of its cycle a foot is wished `lift` sin² above `ground`. The policy needs the clock:
    `[policy] time_features` with the same `period`.
    """

    feet: Mapping[str, float] = key(
        "sites at the feet, and where in the cycle each begins, as a part of it", within="[0, 1)",
        example={"left": 0.0, "right": 0.5},
    )  # fmt: skip
    period: float = key("of a cycle", unit="s", within="(0, inf)", example=0.5)
    lift: float = key(
        "height of a foot in the middle of its swing, above `ground`", unit="m", within="(0, inf)", example=0.06
    )
    ground: float = key("height of the site of a foot that stands", 0.0, unit="m", example=0.02)
    duty: float = key("share of the cycle that a foot stands", 0.5, within="(0, 1)")
    scale: float = key("deviation that costs 1", 0.05, unit="m", within="(0, inf)")

    def check(self) -> None:
        """At least one foot."""
        super().check()
        if not self.feet:
            raise DsoError("`feet` is empty; name the sites at the feet, such as feet = { left = 0.0, right = 0.5 }.")

    def term(self, scope: Scope) -> Term:
        """See `MotionCost`."""
        heights = tuple(scope.quantity(f"site/{name}/z") for name in self.feet)
        offsets = tuple(map(float, self.feet.values()))
        return Gait(heights, offsets, self.period, self.duty, self.ground, self.lift, self.scale)
