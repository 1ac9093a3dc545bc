"""A critic fitted to value gradients: a window is closed with the derivative of a network, so that is what is fitted."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from dso_robotics.core.chain import State
from dso_robotics.core.fitting import usable_states
from dso_robotics.core.method.learner import Learner
from dso_robotics.core.method.state_critic import StateCritic
from dso_robotics.core.rollout import Trajectory


class SlopedPaths(Trajectory):
    """Windows with the derivative of what follows each state.

    slope: floating-point leaves of the states (T, ...), see `value_slopes`.
    """

    slope: State


def with_slopes(paths: Trajectory, slope: State) -> SlopedPaths:
    """The windows with their derivatives."""
    return SlopedPaths(paths.states, paths.costs, paths.counted, paths.moved, paths.ending, slope)


class SlopeCritic(StateCritic):
    """`StateCritic`, which is fitted to derivatives where windows have them.

    The error of an entry counts by the spread of this entry of the state over the windows, so that all have the unit of the
    cost. Entries that are the same in all states count nothing. What the cost to come is, up to a constant, follows from its
    derivative; the constant is never used.
    """

    def _fit(self, key: PRNGKeyArray, learner: Learner, paths: Trajectory) -> tuple[Any, Any, Any, Array]:
        """Regression of the critic's derivative, see `StateCritic._fit` for the values."""
        if not isinstance(paths, SlopedPaths):
            return super()._fit(key, learner, paths)
        features = self._value(learner.slow, learner, learner.theta).rest.features
        usable = (jax.vmap(usable_states)(paths)[:, :-1] & paths.moved).reshape(-1)
        number = usable.shape[0]
        flat = jax.tree.map(lambda leaf: leaf[:, :-1].reshape((number, *leaf.shape[2:])), paths.states)
        floating, rest = eqx.partition(flat, eqx.is_inexact_array)
        targets = jax.tree.map(lambda leaf: leaf.reshape((number, *leaf.shape[2:])) / learner.critic_scale, paths.slope)
        good = [jnp.all(jnp.isfinite(leaf), axis=tuple(range(1, leaf.ndim))) for leaf in jax.tree.leaves(targets)]
        weights = (usable & jnp.all(jnp.stack(good), axis=0)).astype(paths.costs.dtype)
        spread = jax.tree.map(lambda leaf: _spread(leaf, weights), floating)

        def squared(network: Any, index: Array) -> Float[Array, " N"]:
            def one(here: State, static: State, wanted: State) -> Float[Array, ""]:
                own = jax.grad(lambda part: network(features(eqx.combine(part, static))))(here)
                apart = jax.tree.map(lambda a, b: a - jnp.nan_to_num(b), own, wanted)
                apart = self.course.tangent(here, apart)
                parts = jax.tree.map(lambda leaf, size: jnp.sum((size * leaf) ** 2), apart, spread)
                return sum(jax.tree.leaves(parts), jnp.zeros(()))

            at = jax.tree.map(lambda leaf: leaf[index], (floating, rest, targets))
            return jax.vmap(one)(*at)

        return self._regressed(key, learner, squared, weights)


def _spread(leaf: Float[Array, "N *k"], weights: Float[Array, " N"]) -> Float[Array, "*k"]:
    """The standard deviation of each entry over the states that count."""
    share = (weights / jnp.maximum(jnp.sum(weights), 1.0)).reshape((-1,) + (1,) * (leaf.ndim - 1))
    known = jnp.where(share > 0.0, leaf, 0.0)
    mean = jnp.sum(share * known, axis=0)
    return jnp.sqrt(jnp.sum(share * (known - mean) ** 2, axis=0))
