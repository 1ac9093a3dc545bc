"""Any optax optimiser, applied to the gradient."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from dso_robotics.core.method.sampled import Proposal, Rule
from dso_robotics.core.sampler import Sample


class FirstOrder(Rule):
    """Any optax optimiser, applied to the gradient."""

    optimiser: optax.GradientTransformation
    judged: bool = eqx.field(static=True, default=False)

    def init(self, theta: Float[Array, " n"]) -> Any:
        """The optimiser's state."""
        return self.optimiser.init(theta)

    def propose(
        self, key: PRNGKeyArray, theta: Float[Array, " n"], sample: Sample, state: Any, scale: Float[Array, ""]
    ) -> Proposal:
        """theta + scale * update."""
        change, state = self.optimiser.update(sample.estimate.gradient, state, theta)
        return Proposal(theta + scale * jnp.asarray(change), state, jnp.asarray(jnp.nan))
