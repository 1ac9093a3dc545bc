"""Where episodes end early: quantities outside bounds, each with the cost that its state has once."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from dso_robotics.costs.quantity import Quantity
from dso_robotics.costs.task import Term
from dso_robotics.robot.scene import Scene


class Outside(Term):
    """1 in a scene in which any number of the quantity is below `low` or above `high`, else 0. It has no derivative."""

    quantity: Quantity = eqx.field(static=True)
    low: float = eqx.field(static=True, default=-np.inf)
    high: float = eqx.field(static=True, default=np.inf)

    def __call__(self, scene: Scene) -> Float[Array, ""]:
        """1 or 0."""
        return jnp.where(self.broken(scene), 1.0, 0.0)

    def broken(self, scene: Scene) -> Bool[Array, ""]:
        """Whether a bound is broken."""
        numbers = self.quantity.read(scene)
        return jnp.any((numbers < self.low) | (numbers > self.high))


class Termination(eqx.Module):
    """Ends an episode in a scene in which one of `parts` is broken."""

    parts: tuple[Outside, ...]

    def __call__(self, scene: Scene) -> Bool[Array, ""]:
        """Whether the episode ends."""
        return jnp.any(jnp.stack([part.broken(scene) for part in self.parts]))
