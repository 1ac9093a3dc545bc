"""A cost that needs no rollout of the chain, with the weight it has in a training: differentiated directly."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from dso_robotics.errors import DsoError
from dso_robotics.robot.chain import RobotChain

Array = Any  # a NumPy or a JAX array


@dataclasses.dataclass(frozen=True, eq=False)
class Supervised:
    """weight * cost(chain, theta); with `fade`, the weight falls linearly to zero over that share of the iterations."""

    weight: float
    cost: Callable[[RobotChain, Any], Any]
    fade: float | None = None

    def __post_init__(self) -> None:
        if self.fade is not None and not 0.0 < self.fade <= 1.0:
            raise DsoError(
                f"fade = {self.fade:g}: a cost fades over a share of the iterations, above 0 and at most 1; without `fade` it "
                "stays."
            )

    def __call__(self, chain: RobotChain, theta: Array, progress: Array = 0.0) -> Array:
        """The weighted cost when `progress` (0 to 1) of the iterations are done."""
        left = 1.0 if self.fade is None else jnp.maximum(1.0 - progress / self.fade, 0.0)
        return left * self.weight * self.cost(chain, theta)

    def by_c(self, chain: RobotChain, theta: Array) -> float:
        """The weighted cost at the start of a training; a cost that simulates does so on C MuJoCo."""
        return self.weight * float(getattr(self.cost, "by_c", self.cost)(chain, theta))
