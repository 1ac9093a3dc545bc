"""SAC: a Gaussian policy with the mean of theta and a spread of its own, and a cost of certainty besides the chain's."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from dso_robotics.core.experience import Transitions
from dso_robotics.core.gaussian import log_slope_of_tanh
from dso_robotics.core.method import TRAINING
from dso_robotics.core.method.off_policy import Action, Law, OffPolicy, Player, Update

# Logarithms of the smallest, the largest and the first standard deviation, and of the first temperature as a part of a step's
# typical cost.
_LOW, _HIGH, _FIRST, _WARM = -5.0, 1.0, -0.35, -1.5
_SHIFT = float(np.log((_FIRST - _LOW) / (_HIGH - _FIRST)))


class SpreadNetwork(Law):
    """The logarithm of the standard deviation of each action, before squashing, by a network."""

    network: Any

    def log(self, seen: Float[Array, " width"]) -> Action:
        """Between the logarithms of 0.007 and 2.7."""
        return _LOW + (_HIGH - _LOW) * jax.nn.sigmoid(self.network(seen.astype(jnp.float32)) + _SHIFT)

    def __call__(self, seen: Array, mean: Action, draw: Action) -> Action:
        """The mean, and noise of this spread."""
        return mean + jnp.exp(self.log(seen)) * draw


class Spare(eqx.Module):
    """The spread, the logarithm of the temperature, and the state of their optimiser."""

    spread: SpreadNetwork
    log_temperature: Float[Array, ""]
    optimiser: Any


def log_acting(action: Action, draw: Action, log_spread: Action, limited: Any) -> Float[Array, ""]:
    """Log-density of what acts: a normal action, of which the limited entries are squashed by tanh."""
    normal = -0.5 * draw**2 - log_spread - 0.5 * jnp.log(2.0 * jnp.pi)
    narrowed = log_slope_of_tanh(action)
    return jnp.sum(normal - jnp.where(limited, narrowed, 0.0))


@TRAINING.register("sac")
class SoftActorCritic(OffPolicy):
    """SAC: twin critics of the cost to come and of the entropy, and a temperature that is found (`settings.temperature`)."""

    def spare(self, key: PRNGKeyArray, row: int) -> Spare:
        """A spread of 0.7 everywhere."""
        inputs, outputs = self.course.width, len(self.course.limited)
        more: dict[str, Any] = {"activation": jax.nn.relu, "dtype": jnp.float32}
        network = eqx.nn.MLP(inputs, outputs, self.settings.critic_hidden, 2, key=key, **more)
        network = eqx.tree_at(lambda n: n.layers[-1].weight, network, replace_fn=lambda w: 0.1 * w)
        spread, warm = SpreadNetwork(network), jnp.asarray(_WARM, jnp.float32)
        return Spare(spread, warm, self._own.init(eqx.filter((spread, warm), eqx.is_inexact_array)))

    @property
    def _own(self) -> optax.GradientTransformation:
        return optax.adam(self.settings.critic_rate)

    def law(self, learner: Player) -> SpreadNetwork:
        """The policy's own spread."""
        return learner.spare.spread

    def temperature(self, log_temperature: Array, learner: Player) -> Float[Array, ""]:
        """In units of the critic."""
        s = self.settings
        if s.temperature is not None:
            return (s.temperature / learner.critic_scale).astype(jnp.float32)
        return jnp.exp(log_temperature) * (1.0 - s.gamma)

    def drawn(
        self, key: PRNGKeyArray, theta: Array, spread: SpreadNetwork, memory: Any, rows: Array
    ) -> tuple[Array, Array]:
        """Actions (N, nu) as they act, and their log-densities (N,)."""
        draws = jax.random.normal(key, (len(rows), len(self.course.limited)), jnp.float32)

        def one(row: Array, draw: Array) -> tuple[Array, Array]:
            log_spread = spread.log(self.course.seen(memory, row))
            action = self.course.mean(theta, memory, row) + jnp.exp(log_spread) * draw
            return self.bounded(action), log_acting(action, draw, log_spread, self.course.limited)

        return jax.vmap(one)(rows, draws)

    def target(self, key: PRNGKeyArray, at: Update, learner: Player, batch: Transitions) -> Float[Array, " N"]:
        """The higher of the slow critics at an action of the policy, and the cost of its certainty."""
        acting, log = self.drawn(key, at.theta, at.spare.spread, learner.memory, batch.following)
        ahead = jax.vmap(lambda row, u: self.value(at.slow, learner.memory, row, u))(batch.following, acting)
        return jnp.max(ahead, axis=1) + self.temperature(at.spare.log_temperature, learner) * log

    def policy_cost(
        self, key: PRNGKeyArray, theta: Array, spread: SpreadNetwork, at: Update, learner: Player, batch: Transitions
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """The mean of the critics and of the cost of certainty over a batch, and the mean log-density."""
        memory, weights = learner.memory, batch.weights
        acting, log = self.drawn(key, theta, spread, memory, batch.row)
        found = jax.vmap(lambda row, u: self.value(at.critic, memory, row, u))(batch.row, acting)
        heat = jax.lax.stop_gradient(self.temperature(at.spare.log_temperature, learner))
        return weights @ (jnp.max(found, axis=1) + heat * log), weights @ log

    def improve(
        self, key: PRNGKeyArray, at: Update, learner: Player, batch: Transitions, rate: Array
    ) -> tuple[Array, Any, Any]:
        """Steps of theta, of the spread and of the temperature."""
        spare = at.spare
        free, static = eqx.partition(spare.spread, eqx.is_inexact_array)

        def cost(theta: Array, parameters: Any) -> tuple[Array, Array]:
            return self.policy_cost(key, theta, eqx.combine(parameters, static), at, learner, batch)

        (by_theta, by_spread), log = jax.grad(cost, argnums=(0, 1), has_aux=True)(at.theta, free)
        theta, optimiser = self.descended(at.theta, at.optimiser, by_theta, rate)
        # The temperature rises while the entropy is below minus one per actuator.
        by_heat = -(log - len(self.course.limited)).astype(jnp.float32)
        own = free, spare.log_temperature
        change, state = self._own.update((by_spread, by_heat), spare.optimiser, own)
        moved, heat = eqx.apply_updates(own, change)
        return theta, optimiser, Spare(eqx.combine(moved, static), heat, state)
