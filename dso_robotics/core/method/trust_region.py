"""A step of a quadratic model, and the trust-region radius."""

import equinox as eqx
import numpy as np
from jaxtyping import Array, Bool, Float

from dso_robotics.errors import DsoError

Vector = Float[Array, " n"]


class Direction(eqx.Module):
    """A step d of the quadratic model g.d + d.G.d / 2.

    curvature: d.G.d (twice the KL for a Fisher matrix).
    predicted: predicted reduction: -g.d of a linear model, or -g.d - d.G.d / 2 of a quadratic one.
    solved: whether conjugate gradients converged.
    """

    step: Vector
    curvature: Float[Array, ""]
    predicted: Float[Array, ""]
    solved: Bool[Array, ""]


class TrustRegion(eqx.Module):
    """Accept a step by the ratio of actual to predicted reduction, and adapt the radius to that ratio."""

    radius: float = 0.01
    smallest: float = 1e-8
    largest: float = 1.0
    accept: float = 0.1
    shrink_below: float = 0.25
    grow_above: float = 0.75

    def __check_init__(self) -> None:
        if not 0.0 < self.smallest <= self.radius <= self.largest:
            raise DsoError(
                f"radius: expected 0 < smallest <= radius <= largest, got {self.smallest}, {self.radius}, {self.largest}."
            )
        if not 0.0 <= self.accept <= self.shrink_below < self.grow_above:
            raise DsoError("accept: expected 0 <= accept <= shrink_below < grow_above.")

    def judge(self, radius: float, actual: float, predicted: float) -> tuple[bool, float]:
        """Whether the step is accepted, and the next radius. A non-finite result is refused."""
        ratio = actual / predicted if np.isfinite(actual) and predicted > 0.0 else -np.inf
        if ratio < self.shrink_below:
            return ratio >= self.accept, max(radius / 2.0, self.smallest)
        return True, min(radius * 2.0, self.largest) if ratio > self.grow_above else radius
