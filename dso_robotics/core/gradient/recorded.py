"""Value expansion on recorded transitions: the pathwise gradient along a recording, with the noise that explains it.

A recording of any policy gives the noise behind its steps (`GaussianChain.inferred`, `FlowChain.inferred`). The chain is run
again with this noise under the present theta and differentiated: SVG(1) of Heess et al. 2015 with one step, SVG(H) with more.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dso_robotics.core.chain import Chain
from dso_robotics.core.gradient.estimate import Estimate, summarise
from dso_robotics.core.objective import check_theta
from dso_robotics.core.value import Value
from dso_robotics.errors import DsoError


def recorded_pathwise(
    chain: Chain,
    theta: Float[Array, " n"],
    states: Float[Array, "M nx"],
    noise: Float[Array, "M H k"],
    *,
    gamma: float,
    value: Value,
) -> Estimate:
    """The mean over recorded states of the derivative of sum_{k<H} gamma^k L(x_k) + gamma^H V(x_H), x_0 held constant.

    The gradient of J follows where the states are a sample of the discounted density of theta, as they are in a replay of
    policies close to it.

    states: first states of M pieces of recordings.
    noise: that of the H steps after each, inferred from the recording.
    value: V, which closes the horizon; a `ValueGradient` will do.

    Raises:
      DsoError: shapes do not fit, or gamma is not in (0, 1].
    """
    check_theta(theta)
    if not 0.0 < gamma <= 1.0:
        raise DsoError(f"gamma: the discount must lie in (0, 1], got {gamma}.")
    if noise.ndim != 3 or noise.shape[0] != states.shape[0] or noise.shape[1] < 1:
        raise DsoError(
            f"noise: expected (M, H, k), the noise of H steps from each of the {states.shape[0]} states, got {noise.shape}."
        )
    return _recorded(chain, theta, states, noise, gamma, value)


@eqx.filter_jit
def _recorded(chain: Chain, theta: Array, states: Array, noise: Array, gamma: float, value: Value) -> Estimate:
    def ahead(theta: Array, state: Array, own: Array) -> Float[Array, ""]:
        def body(carry: tuple, xi: Array) -> tuple[tuple, None]:
            state, total, weight = carry
            total = total + weight * chain.cost(state, theta)
            ended = chain.terminal(state)
            following = jax.tree.map(lambda new, old: jnp.where(ended, old, new), chain.move(xi, state, theta), state)
            return (following, total, jnp.where(ended, 0.0, gamma * weight)), None

        begin = (state, jnp.zeros((), theta.dtype), jnp.ones((), theta.dtype))
        (last, total, weight), _ = jax.lax.scan(body, begin, own)
        return total + weight * value.closing(last)

    values, slopes = jax.vmap(jax.value_and_grad(ahead), (None, 0, 0))(theta, states, noise)
    return summarise(values, slopes, jnp.zeros(values.shape, bool), jnp.ones(theta.shape[0], bool))
