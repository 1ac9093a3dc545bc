"""PPO: minibatch steps of the clipped surrogate with generalised advantages, and one Adam for the whole training."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from dso_robotics.core import surrogate
from dso_robotics.core.gradient.score import Batch
from dso_robotics.core.method import TRAINING
from dso_robotics.core.method.action_space import ActionSpace
from dso_robotics.core.method.learner import Learner, Step

# A minibatch whose mean KL exceeds `divergence` by this factor ends the steps of an iteration.
_TOO_FAR = 1.5


@TRAINING.register("ppo")
class ProximalPolicy(ActionSpace):
    """PPO: `settings.updates` steps, each on `settings.critic_batch` moves drawn in turn from shuffles of the batch.

    Steps end early where the policy has moved by more than a mean KL of 1.5 `settings.divergence`. Advantages are those of GAE
    with `settings.lam`, scaled to zero mean and unit spread over the batch; observations are scaled; the gradient of each block
    is clipped. What the clip does is in `core.surrogate.ProximalClip`.
    """

    def improved(self, key: PRNGKeyArray, learner: Learner, batch: Batch, rate: Array) -> Step:
        """See `ActionSpace`."""
        s, chain, path = self.settings, batch.problem.chain, batch.trajectory
        clip, number = surrogate.ProximalClip(), batch.advantage.size
        states = jax.tree.map(lambda leaf: leaf[:, :-1].reshape((number, *leaf.shape[2:])), path.states)
        after = jax.tree.map(lambda leaf: leaf[:, 1:].reshape((number, *leaf.shape[2:])), path.states)
        moves, charged = batch.credit.move_weight.ravel(), batch.credit.cost_weight[:, :-1].ravel()
        advantage = batch.advantage.ravel()
        old = jax.vmap(lambda a, b: chain.log_prob(b, a, learner.theta))(states, after)
        size = min(s.critic_batch, number)
        rounds = -(-s.updates * size // number)
        order = jax.vmap(lambda one: jax.random.permutation(one, number))(jax.random.split(key, rounds)).ravel()
        order = order[: s.updates * size].reshape(s.updates, size)

        def loss(theta: Array, at: Array) -> tuple[Array, Array]:
            here, there = (jax.tree.map(lambda leaf: leaf[at], part) for part in (states, after))
            logs = jax.vmap(lambda a, b: chain.log_prob(b, a, theta))(here, there) - old[at]
            weights = moves[at]
            logs = jnp.where(weights > 0, logs, 0.0)
            own = jax.vmap(lambda state: chain.cost(state, theta))(here)
            total = jnp.mean(
                weights * clip(jnp.exp(logs), advantage[at]) + jnp.where(weights > 0, charged[at] * own, 0.0)
            )
            return total * s.horizon, jnp.sum(weights * (jnp.expm1(logs) - logs)) / jnp.maximum(jnp.sum(weights), 1e-12)

        def update(carry: tuple, at: Array) -> tuple[tuple, None]:
            theta, optimiser, stopped = carry
            slope, divergence = jax.grad(loss, has_aux=True)(theta, at)
            stopped = stopped | ~(divergence <= _TOO_FAR * s.divergence) | ~jnp.all(jnp.isfinite(slope))
            moved, following = self.descended(theta, optimiser, slope, rate)
            kept = jax.tree.map(lambda new, old: jnp.where(stopped, old, new), (moved, following), (theta, optimiser))
            return (*kept, stopped), None

        begun = learner.theta, learner.optimiser, jnp.zeros((), bool)
        (theta, optimiser, _), _ = jax.lax.scan(update, begun, order)
        sound = jnp.all(jnp.isfinite(theta))
        theta = jnp.where(sound, theta, learner.theta)
        return Step(theta, optimiser, sound, jnp.linalg.norm(theta - learner.theta))
