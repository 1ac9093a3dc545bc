"""How far a point of the robot is from a target."""

import dataclasses

from dso_robotics.costs.kind import COSTS, MotionCost, Scope
from dso_robotics.costs.task import Distance, Term
from dso_robotics.errors import DsoError
from dso_robotics.table import key


@COSTS.register("distance")
@dataclasses.dataclass(frozen=True, kw_only=True)
class DistanceCost(MotionCost):
    """Smooth distance of a point from a target: quadratic within `smooth`, linear beyond."""

    point: str = key("a site or a body, for its centre of mass", example="site/hand")
    axes: str = key("the coordinates that count", "xyz")
    target: tuple[float | str, ...] = key(
        "where it shall be, a number or a quantity for each axis", unit="m", example=[0.35, 0.0, 0.25]
    )
    smooth: float = key("distance within which the cost is quadratic", 0.05, unit="m")
    scale: float = key("distance that costs 1", 1.0, unit="m", within="(0, inf)")

    def check(self) -> None:
        """One number for each axis."""
        super().check()
        if len(self.axes) != len(self.target):
            raise DsoError(f"`target` has {len(self.target)} numbers for the `axes` '{self.axes}'; give one for each.")

    def term(self, scope: Scope) -> Term:
        """See `MotionCost`."""
        point = tuple(scope.quantity(f"{self.point}/{axis}") for axis in self.axes)
        return Distance(point, tuple(map(scope.target, self.target)), self.smooth, self.scale)
