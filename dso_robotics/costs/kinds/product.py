"""A control-suite reward as a cost: 1 less a product of tolerances."""

import dataclasses

from dso_robotics.costs.kind import COSTS, MotionCost, Scope
from dso_robotics.costs.task import SIGMOIDS, Factor, Product, Term
from dso_robotics.table import Table, key


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tolerance(Table):
    """A factor of a product: 1 while the quantity is between low and high, `at_margin` when it is `margin` outside."""

    quantity: str = key("what is measured", example="joint/hinge/cosine")
    low: float = key("lower end of what is as wished", 0.0)
    high: float | None = key("upper end; without it, low", None, example=1.0)
    margin: float = key("distance at which the factor is `at_margin`", 1.0, within="(0, inf)")
    at_margin: float = key("the factor there", 0.1, within="[0, 1)")
    sigmoid: str = key("how the factor falls", "gaussian", choices=SIGMOIDS)
    floor: float = key("what the factor never falls below", 0.0, within="[0, 1)")

    def factor(self, scope: Scope) -> Factor:
        """The factor."""
        high = self.low if self.high is None else self.high
        return Factor(
            scope.quantity(self.quantity), self.low, high, self.margin, self.at_margin, self.sigmoid, self.floor
        )


@COSTS.register("product")
@dataclasses.dataclass(frozen=True, kw_only=True)
class ProductCost(MotionCost):
    """1 - the product of the factors: the cost of a reward between 0 and 1."""

    factors: tuple[Tolerance, ...] = key("the factors", example=[{"quantity": "control", "margin": 1.0, "floor": 0.8}])

    def term(self, scope: Scope) -> Term:
        """See `MotionCost`."""
        return Product(tuple(factor.factor(scope) for factor in self.factors))
