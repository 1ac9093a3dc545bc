"""Any optax optimiser, applied to the gradient."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from dso_robotics.core.method.sampled import Proposal, Rule
from dso_robotics.core.sampler import Sample


class FirstOrder(Rule):
    """Any optax optimiser, applied to the gradient.

    project: maps theta after the step to the nearest allowed theta, if given (projected descent).
    """

    optimiser: optax.GradientTransformation
    project: Callable[[Float[Array, " n"]], Float[Array, " n"]] | None = None
    judged: bool = eqx.field(static=True, default=False)

    def init(self, theta: Float[Array, " n"]) -> Any:
        """The optimiser's state."""
        return self.optimiser.init(theta)

    def propose(
        self, key: PRNGKeyArray, theta: Float[Array, " n"], sample: Sample, state: Any, scale: Float[Array, ""]
    ) -> Proposal:
        """theta + scale * update, projected."""
        change, state = self.optimiser.update(sample.estimate.gradient, state, theta)
        moved = theta + scale * jnp.asarray(change)
        return Proposal(moved if self.project is None else self.project(moved), state, jnp.asarray(jnp.nan))
