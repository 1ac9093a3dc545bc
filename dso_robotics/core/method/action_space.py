"""Steps in action space: windows are played elsewhere, such as on threaded C MuJoCo, and the policy moves by their advantages.

Nothing is differentiated through the physics, so no physics is compiled. Advantages are A_t = (G_t - V(x_t)) / gamma, where G
are the TD(lambda) returns of the slow critic. They are scaled to unit standard deviation. The surrogate, its clip and the
Fisher matrix are those of the core (64-66, 69-74), computed with the density of the actions.
"""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from dso_robotics.core import surrogate
from dso_robotics.core.chain import Chain, State
from dso_robotics.core.fitting import lambda_returns
from dso_robotics.core.gradient.estimate import Estimate
from dso_robotics.core.gradient.score import Batch
from dso_robotics.core.method.learner import Learner, Step
from dso_robotics.core.method.played import PlayedCourse, Undifferentiated
from dso_robotics.core.method.sampled import Rule
from dso_robotics.core.method.state_critic import StateCritic
from dso_robotics.core.objective import Credit
from dso_robotics.core.rollout import Ending, Trajectory, settled
from dso_robotics.core.sampler import Sample


class ActionSpace(Undifferentiated, StateCritic):
    """`Undifferentiated` windows whose advantages move the policy. A method says how."""

    reason = "steps in action space need no derivative of the physics, and C MuJoCo has nothing to compile"
    ends = False
    course: PlayedCourse

    def __init__(self, *args: Any, **more: Any):
        super().__init__(*args, **more)
        shape = self.settings.environments, self.settings.horizon

        def noise(learner: Learner) -> Array:
            key, progress = jax.random.fold_in(learner.key, 0), learner.iteration / self.settings.iterations
            return self.course.noise(learner.theta, key, progress, shape)

        self._noise: Any = eqx.filter_jit(noise)

    @abc.abstractmethod
    def improved(self, key: PRNGKeyArray, learner: Learner, batch: Batch, rate: Array) -> Step:
        """The step of theta by a batch. `rate` is the remaining fraction of the step sizes."""

    def play(self, learner: Learner) -> State:
        """See `Played`."""
        return self.course.play(learner.theta, learner.memory, self.placed(learner), self._noise(learner))

    def learned(self, learner: Learner, windows: State) -> tuple[Learner, tuple[Array, ...]]:
        """See `Played`."""
        s = self.settings
        key, step_key = jax.random.split(jax.random.fold_in(learner.key, 1))
        progress = learner.iteration / s.iterations
        chain = self.course.anchored(self.course.at(learner.memory, progress), learner.anchor)
        problem = eqx.tree_at(lambda p: p.chain, self.problem, chain)
        paths = jax.vmap(lambda window: settled(problem, window, self._costs(chain, learner.theta, window)))(windows)
        batch = self._batch(learner, problem, paths)
        return self._close(learner, key, paths, self.improved(step_key, learner, batch, self._fallen(progress)))

    def _costs(self, chain: Chain, theta: Array, window: State) -> Float[Array, " T+1"]:
        before = jax.tree.map(lambda leaf: leaf[:-1], window)
        return jnp.append(jax.vmap(lambda state: chain.cost(state, theta))(before), 0.0)

    def _batch(self, learner: Learner, problem: Any, paths: Trajectory) -> Batch:
        """Convert the windows to a `Batch`: mean over moves, advantages with unit standard deviation."""
        s, slow = self.settings, self._value(learner.slow, learner, learner.theta)
        returns = jax.vmap(lambda path: lambda_returns(path, self.objective, slow, lam=s.lam))(paths)
        here = jax.vmap(jax.vmap(slow))(jax.tree.map(lambda leaf: leaf[:, :-1], paths.states))
        usable = paths.moved & (paths.ending != Ending.DIVERGED)[:, None] & jnp.isfinite(returns[:, :-1])
        advantage = jnp.where(usable, (returns[:, :-1] - here) / s.gamma, 0.0)
        count = jnp.maximum(jnp.sum(usable), 1)
        mean = jnp.sum(advantage) / count
        spread = jnp.sqrt(jnp.sum(jnp.where(usable, (advantage - mean) ** 2, 0.0)) / count) + 1e-9
        advantage = jnp.where(usable, (advantage - mean) / spread, 0.0)
        weight = usable * (usable.size / count / s.horizon)
        own = self.course.of_the_policy(problem)
        charged = jnp.concatenate([weight, jnp.zeros((s.environments, 1))], axis=1) / spread
        credit = Credit(charged, weight * s.gamma, returns, returns[:, 0])
        start = jnp.zeros(s.environments)
        paths, credit, advantage = jax.lax.stop_gradient((paths, credit, advantage))
        return Batch(own, learner.theta, paths, credit, advantage, start)


class RuleSteps(ActionSpace):
    """A step of a rule of the core in every iteration."""

    @abc.abstractmethod
    def rule(self, rate: Array) -> tuple[Rule, Any]:
        """The rule of a step and its state. `rate` is the remaining fraction of the step sizes."""

    def improved(self, key: PRNGKeyArray, learner: Learner, batch: Batch, rate: Array) -> Step:
        """See `ActionSpace`."""
        rule, state = self.rule(rate)
        slope = jax.grad(lambda delta: surrogate.surrogate(batch, delta))(jnp.zeros_like(learner.theta))
        zero, ones = jnp.zeros_like(slope), jnp.ones(slope.shape, bool)
        count = jnp.full((), self.settings.environments)
        estimate = Estimate(jnp.zeros(()), slope, zero, jnp.zeros(()), count, 0 * count, ones)
        proposal = rule.propose(key, learner.theta, Sample(estimate, batch, None), state, jnp.ones(()))
        finite = jnp.all(jnp.isfinite(proposal.theta))
        theta = jnp.where(finite, proposal.theta, learner.theta)
        return Step(theta, learner.optimiser, finite, jnp.linalg.norm(theta - learner.theta))
