"""Action noise: normal, added before squashing, so that actuator ranges hold; its scales are a block of theta."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dso_robotics.errors import DsoError
from dso_robotics.parameters.theta import Block


def noise_block(scale: float, actuators: list[str], *, free: bool = False) -> Block:
    """The block "noise": the logarithm of each actuator's standard deviation, as a part of half its range.

    Raises:
      DsoError: the scale is not positive.
    """
    if not 0.0 < scale < 1e3:
        raise DsoError(f"noise: the standard deviation of the actions must be positive, got {scale:g}; write 0.1, say.")
    names = tuple(f"noise/{name or i}" for i, name in enumerate(actuators))
    return Block("noise", np.full(len(actuators), np.log(scale)), free, entries=names)


def log_density(deviation: Float[Array, " nu"], log_scale: Float[Array, " nu"]) -> Float[Array, ""]:
    """log N(deviation; 0, diag(exp(log_scale))^2)."""
    return jnp.sum(-0.5 * (deviation * jnp.exp(-log_scale)) ** 2 - log_scale - 0.5 * jnp.log(2.0 * jnp.pi))


def divergence(
    mean: Float[Array, " nu"],
    log_scale: Float[Array, " nu"],
    other: Float[Array, " nu"],
    other_log: Float[Array, " nu"],
) -> Float[Array, ""]:
    """KL(N(mean, scale^2) || N(other, other scale^2))."""
    ratio = jnp.exp(2.0 * (log_scale - other_log)) + ((mean - other) * jnp.exp(-other_log)) ** 2
    return jnp.sum(0.5 * (ratio - 1.0) + other_log - log_scale)
