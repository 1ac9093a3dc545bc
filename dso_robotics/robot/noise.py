"""Normal action noise. It is added before squashing, or after and clipped: controls stay in range. Its scales are a block
of theta."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dso_robotics.core.gaussian import log_slope_of_tanh
from dso_robotics.errors import DsoError
from dso_robotics.parameters.theta import Block
from dso_robotics.robot.squash import Squash

# Points of the Gauss-Hermite rule for the entropy of a squashed action.
_POINTS = 24


def noise_block(scale: float, actuators: list[str], *, free: bool = False) -> Block:
    """The block "action noise": the logarithm of each actuator's standard deviation, as a fraction of half its range.

    Raises:
      DsoError: the scale is not positive.
    """
    if not 0.0 < scale < 1e3:
        raise DsoError(f"noise: the standard deviation of the actions must be positive, got {scale:g}; write 0.1, say.")
    names = tuple(f"noise/{name or i}" for i, name in enumerate(actuators))
    return Block("action noise", np.full(len(actuators), np.log(scale)), free, entries=names)


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


def certainty(mean: Float[Array, " nu"], log_scale: Float[Array, " nu"], squash: Squash) -> Float[Array, ""]:
    """KL divergence of the control from the uniform distribution over its range: log 2 less the entropy in half ranges.

    Of an actuator without a range it is minus the entropy of its action. The mean of log(1 - tanh^2) is integrated by a
    Gauss-Hermite rule.
    """
    points, weights = np.polynomial.hermite_e.hermegauss(_POINTS)
    action = mean + jnp.exp(log_scale) * points[:, None]
    narrowed = log_slope_of_tanh(action)
    entropy = log_scale + 0.5 * jnp.log(2.0 * jnp.pi * jnp.e)
    limited = jnp.log(2.0) - entropy - (weights / weights.sum()) @ narrowed
    return jnp.sum(jnp.where(np.array(squash.limited), limited, -entropy))
