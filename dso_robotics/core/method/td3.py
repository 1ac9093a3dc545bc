"""DDPG and TD3: the policy descends a critic of actions, and noise on its actions explores."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from dso_robotics.core.experience import Transitions
from dso_robotics.core.method import TRAINING
from dso_robotics.core.method.off_policy import Action, Law, OffPolicy, Player, Update

# The largest part of its range that a noisy action takes.
_INSIDE = 0.999


class NoisyActions(Law):
    """Normal noise on what acts, a part of half the range where there is one. Before the first update: noise alone, wide."""

    limited: Bool[Array, " nu"]
    deviation: Action
    alone: Bool[Array, ""]

    def __call__(self, seen: Array, mean: Action, draw: Action) -> Action:
        """The mean, moved by noise inside its range."""
        acting = jnp.clip(jnp.tanh(mean) + self.deviation * draw, -_INSIDE, _INSIDE)
        noisy = jnp.where(self.limited, jnp.arctanh(acting), mean + self.deviation * draw)
        return jnp.where(self.alone, draw, noisy)


class PolicyDescent(OffPolicy):
    """The deterministic policy gradient: theta descends E[Q(x, pi(x))]."""

    def law(self, learner: Player) -> NoisyActions:
        """Noise whose scale is that of the chain."""
        progress = learner.iteration / self.settings.iterations
        deviation = self.course.deviation(learner.theta, progress)
        alone = learner.experience.count < self.settings.warmup
        return NoisyActions(jnp.asarray(self.course.limited), deviation, alone)

    def smoothed(self, key: PRNGKeyArray, acting: Float[Array, "N nu"]) -> Float[Array, "N nu"]:
        """The actions of the slow policy of which targets are made."""
        return acting

    def target(self, key: PRNGKeyArray, at: Update, learner: Player, batch: Transitions) -> Float[Array, " N"]:
        """The highest of the slow critics at the action of the slow policy."""
        memory = learner.memory
        mean = jax.vmap(lambda row: self.course.mean(at.slow_theta, memory, row))(batch.following)
        acting = self.smoothed(key, self.bounded(mean))
        return jnp.max(jax.vmap(lambda row, u: self.value(at.slow, memory, row, u))(batch.following, acting), axis=1)

    def improve(
        self, key: PRNGKeyArray, at: Update, learner: Player, batch: Transitions, rate: Array
    ) -> tuple[Array, Any, Any]:
        """A step of theta against the gradient of the first critic."""
        gradient = jax.grad(lambda theta: self.policy_cost(theta, at.critic, learner.memory, batch))(at.theta)
        return *self.descended(at.theta, at.optimiser, gradient, rate), at.spare

    def policy_cost(self, theta: Array, critic: Any, memory: Any, batch: Transitions) -> Float[Array, ""]:
        """The mean of the first critic at the policy's own actions."""

        def one(row: Array) -> Array:
            return self.value(critic[:1], memory, row, self.bounded(self.course.mean(theta, memory, row)))[0]

        return batch.weights @ jax.vmap(one)(batch.row)


@TRAINING.register("td3")
class TwinDelayed(PolicyDescent):
    """TD3: twin critics, targets smoothed over actions, one step of the policy for two of the critics."""

    critics, delay = 2, 2
    smoothing, widest = 0.2, 0.5

    def smoothed(self, key: PRNGKeyArray, acting: Float[Array, "N nu"]) -> Float[Array, "N nu"]:
        """Noise of 0.2, at most 0.5, parts of half the range; none on actions without a range."""
        noise = jnp.clip(self.smoothing * jax.random.normal(key, acting.shape, acting.dtype), -self.widest, self.widest)
        return jnp.where(self.course.limited, jnp.clip(acting + noise, -1.0, 1.0), acting)
