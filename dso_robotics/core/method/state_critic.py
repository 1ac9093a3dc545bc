"""Windows closed with a critic of states, which is fitted to the TD(lambda) returns of the same windows for the next ones."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from dso_robotics.core.fitting import lambda_returns, usable_states
from dso_robotics.core.method.learner import Learner, Step
from dso_robotics.core.method.windowed import Windowed
from dso_robotics.core.rollout import Trajectory
from dso_robotics.core.value import CostToGo, NetworkValue


class StateCritic(Windowed):
    """`Windowed` with V(x) = L(x) + what a network says of the rest."""

    def _network(self, key: PRNGKeyArray) -> Any:
        """The critic before the first iteration."""
        return eqx.nn.MLP(self.course.width, "scalar", self.settings.critic_hidden, 2, activation=jax.nn.tanh, key=key)

    def _value(self, network: Any, learner: Learner, theta: Array) -> CostToGo:
        inputs, scale = self.course.inputs(learner.memory, theta), learner.critic_scale
        chain = self.course.anchored(self.course.at(learner.memory), learner.anchor)
        return CostToGo(self.course.bind(chain, theta, None), theta, NetworkValue(network, inputs, scale, scale))

    def _close(
        self, learner: Learner, key: PRNGKeyArray, paths: Trajectory, moved: Step
    ) -> tuple[Learner, tuple[Array, ...]]:
        """After the step: fit the critic and choose the next windows' start states."""
        keys = jax.random.split(key, 4)
        critic, slow, critic_state, error = self._fit(keys[1], learner, paths)
        learned = dataclasses.replace(learner, critic=critic, slow=slow, critic_optimiser=critic_state)
        return self._onwards(learned, (keys[0], keys[2], keys[3]), paths, moved, error)

    def _fit(self, key: PRNGKeyArray, learner: Learner, paths: Trajectory) -> tuple[Any, Any, Any, Array]:
        """Regression of the critic on the TD(lambda) returns after each state, computed with the slow critic."""
        s, slow = self.settings, self._value(learner.slow, learner, learner.theta)
        returns = jax.vmap(lambda path: lambda_returns(path, self.objective, slow, lam=s.lam))(paths)
        targets = (returns - paths.costs)[:, :-1]
        features = jax.vmap(jax.vmap(slow.rest.features))(jax.tree.map(lambda leaf: leaf[:, :-1], paths.states))
        usable = jax.vmap(usable_states)(paths)[:, :-1] & jnp.isfinite(targets)
        features = features.reshape(-1, features.shape[-1])
        targets = jnp.where(usable, targets, 0.0).reshape(-1) / learner.critic_scale - 1.0

        def squared(network: Any, index: Array) -> Float[Array, " N"]:
            return (jax.vmap(network)(features[index]) - targets[index]) ** 2

        return self._regressed(key, learner, squared, usable.reshape(-1).astype(targets.dtype))

    def _regressed(
        self,
        key: PRNGKeyArray,
        learner: Learner,
        squared: Callable[[Any, Array], Float[Array, " N"]],
        weights: Float[Array, " M"],
    ) -> tuple[Any, Any, Any, Array]:
        """The critic after its updates, the slow one, the optimiser, and the error before them.

        squared: the squared errors of a critic at states, by their indices (N,).
        weights: of all states.
        """
        s, (free, static) = self.settings, eqx.partition(learner.critic, eqx.is_inexact_array)
        size = min(s.critic_batch, weights.shape[0])

        def loss(parameters: Any, index: Array) -> Array:
            errors = squared(eqx.combine(parameters, static), index)
            return jnp.sum(weights[index] * errors) / jnp.maximum(jnp.sum(weights[index]), 1.0)

        def update(carry: tuple, one: PRNGKeyArray) -> tuple[tuple, Array]:
            parameters, state = carry
            index = jax.random.randint(one, (size,), 0, weights.shape[0])
            error, slope = jax.value_and_grad(loss)(parameters, index)
            change, state = self.critic_optimiser.update(slope, state, parameters)
            return (eqx.apply_updates(parameters, change), state), error

        (free, state), errors = jax.lax.scan(
            update, (free, learner.critic_optimiser), jax.random.split(key, s.critic_updates)
        )
        critic = eqx.combine(free, static)
        slow_free, _ = eqx.partition(learner.slow, eqx.is_inexact_array)
        mixed = jax.tree.map(lambda old, new: old + s.target * (new - old), slow_free, free)
        return critic, eqx.combine(mixed, static), state, jnp.sqrt(errors[0])
