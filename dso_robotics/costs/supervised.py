"""A cost that needs no rollout of the chain, with the weight it has in a training: differentiated directly."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dso_robotics.errors import DsoError
from dso_robotics.robot.system import RobotSystem

Array = Any  # a NumPy or a JAX array


def existing(chain: RobotSystem, theta: Array) -> Array:
    """Theta with the design parameters at their start: a log is of the robot as it was, not of the one to be built."""
    free = {block.name for block in chain.layout.free}
    if "design" not in free:
        return theta
    start = next(block.start(chain.layout.chart) for block in chain.layout.blocks if block.name == "design")
    return theta.at[chain.layout.where("design")].set(jnp.asarray(start).ravel())


@dataclasses.dataclass(frozen=True, eq=False)
class Supervised:
    """weight * cost(chain, theta); with `fade`, the weight falls linearly to zero over that share of the iterations.

    moved: (n,) the entries of theta that the cost moves; all by default. It has no derivative by the others.
    """

    weight: float
    cost: Callable[[RobotSystem, Any], Any]
    fade: float | None = None
    moved: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.fade is not None and not 0.0 < self.fade <= 1.0:
            raise DsoError(
                f"fade = {self.fade:g}: a cost fades over a share of the iterations, above 0 and at most 1; without `fade` it "
                "stays."
            )

    def __call__(self, chain: RobotSystem, theta: Array, progress: Array = 0.0) -> Array:
        """The weighted cost when `progress` (0 to 1) of the iterations are done."""
        return self.share(progress) * self.weight * self.cost(chain, self.held(theta))

    def share(self, progress: Array = 0.0) -> Array:
        """What is left of the weight."""
        return 1.0 if self.fade is None else jnp.maximum(1.0 - progress / self.fade, 0.0)

    def held(self, theta: Array) -> Array:
        """Theta without a derivative by the entries that the cost does not move."""
        if self.moved is None or self.moved.all():
            return theta
        return jnp.where(self.moved, theta, jax.lax.stop_gradient(theta))

    def by_c(self, chain: RobotSystem, theta: Array) -> float:
        """The weighted cost at the start of a training; a cost that simulates does so on C MuJoCo."""
        return self.weight * float(getattr(self.cost, "by_c", self.cost)(chain, theta))
