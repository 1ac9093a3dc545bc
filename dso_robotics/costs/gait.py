"""The gait cost: heights of feet that a clock asks for, so that legs step instead of sliding."""

from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dso_robotics.costs.quantity import Quantity
from dso_robotics.costs.task import Term
from dso_robotics.robot.scene import Scene


class Gait(Term):
    """Sum of ((height of a foot - height wished at this time) / scale)^2 over the feet, see `step_height`.

    heights: the height of each foot [m].
    offsets: where in the cycle each foot is at time 0, as a part of it.
    period: of a cycle [s].
    duty: share of the cycle that a foot stands.
    ground, lift: height of a foot that stands, and how far it is lifted in the middle of its swing [m].
    scale: deviation that costs 1 [m].
    """

    heights: tuple[Quantity, ...] = eqx.field(static=True)
    offsets: tuple[float, ...] = eqx.field(static=True)
    period: float = eqx.field(static=True)
    duty: float = eqx.field(static=True)
    ground: float = eqx.field(static=True)
    lift: float = eqx.field(static=True)
    scale: float = eqx.field(static=True)

    def __call__(self, scene: Scene) -> Float[Array, ""]:
        """The sum."""
        there = jnp.concatenate([height.read(scene) for height in self.heights])
        wished = self.ground + self.lift * step_height(scene.state.time / self.period, self.offsets, self.duty)
        return jnp.sum(((there - wished) / self.scale) ** 2)


def step_height(cycles: Array, offsets: Sequence[float], duty: float) -> Float[Array, " feet"]:
    """How far feet are lifted, 0 to 1: 0 for the share `duty` of a cycle, then sin^2 over the rest.

    cycles: time in cycles.
    offsets: of each foot, in cycles.
    """
    phase = jnp.mod(cycles + np.asarray(offsets), 1.0)
    swing = jnp.clip((phase - duty) / (1.0 - duty), 0.0, 1.0)
    return jnp.sin(jnp.pi * swing) ** 2
