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
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from dso_robotics.core.chain import Chain, State
from dso_robotics.core.fitting import lambda_returns
from dso_robotics.core.gradient.score import Batch
from dso_robotics.core.method.learner import Learner, Step
from dso_robotics.core.method.played import PlayedCourse, Undifferentiated
from dso_robotics.core.method.state_critic import StateCritic
from dso_robotics.core.objective import Credit, Problem
from dso_robotics.core.rollout import Ending, Trajectory, settled


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
        key, step_key = self._keys(learner)
        problem, paths = self._paths(learner, learner.theta, windows)
        batch, rate = self._batch(learner, problem, paths), self._fallen(self._progress(learner))
        return self._close(learner, key, paths, self.improved(step_key, learner, batch, rate))

    def _keys(self, learner: Learner) -> PRNGKeyArray:
        """Keys of the critic and of the step."""
        return jax.random.split(jax.random.fold_in(learner.key, 1))

    def _progress(self, learner: Learner) -> Array:
        return learner.iteration / self.settings.iterations

    def _paths(self, learner: Learner, theta: Array, windows: State) -> tuple[Problem, Trajectory]:
        """The problem at this point of the training, and windows of it with their costs at theta."""
        chain = self.course.anchored(self.course.at(learner.memory, self._progress(learner)), learner.anchor)
        problem = eqx.tree_at(lambda p: p.chain, self.problem, chain)
        return problem, jax.vmap(lambda window: settled(problem, window, self._costs(chain, theta, window)))(windows)

    def _costs(self, chain: Chain, theta: Array, window: State) -> Float[Array, " T+1"]:
        before = jax.tree.map(lambda leaf: leaf[:-1], window)
        return jnp.append(jax.vmap(lambda state: chain.cost(state, theta))(before), 0.0)

    def _batch(
        self, learner: Learner, problem: Problem, paths: Trajectory, among: Bool[Array, " N"] | bool = True
    ) -> Batch:
        """Convert the windows to a `Batch`: mean over the moves of those `among`, advantages with unit standard deviation."""
        s = self.settings
        returns, advantage, usable = self._advantages(learner, paths)
        usable = usable & jnp.expand_dims(jnp.asarray(among), -1)
        count = jnp.maximum(jnp.sum(usable), 1)
        mean = jnp.sum(advantage) / count
        spread = jnp.sqrt(jnp.sum(jnp.where(usable, (advantage - mean) ** 2, 0.0)) / count) + 1e-9
        advantage = jnp.where(usable, (advantage - mean) / spread, 0.0)
        weight = usable * (usable.size / count / s.horizon)
        return self._weighted(learner, problem, paths, (returns, advantage), (weight / spread, weight * s.gamma))

    def _advantages(self, learner: Learner, paths: Trajectory) -> tuple[Array, Array, Array]:
        """The returns (N, T+1) of windows, (G - V) / gamma (N, T), and which of these count."""
        s, slow = self.settings, self._value(learner.slow, learner, learner.theta)
        returns = jax.vmap(lambda path: lambda_returns(path, self.objective, slow, lam=s.lam))(paths)
        here = jax.vmap(jax.vmap(slow))(jax.tree.map(lambda leaf: leaf[:, :-1], paths.states))
        usable = paths.moved & (paths.ending != Ending.DIVERGED)[:, None] & jnp.isfinite(returns[:, :-1])
        return returns, jnp.where(usable, (returns[:, :-1] - here) / s.gamma, 0.0), usable

    def _weighted(
        self,
        learner: Learner,
        problem: Problem,
        paths: Trajectory,
        found: tuple[Array, Array],
        weights: tuple[Array, Array],
    ) -> Batch:
        """The batch of windows. found: returns and advantages. weights: of the costs at states and of the moves, (N, T)."""
        (returns, advantage), (charge, move) = found, weights
        charged = jnp.concatenate([charge, jnp.zeros((self.settings.environments, 1))], axis=1)
        credit = Credit(charged, move, returns, returns[:, 0])
        paths, credit, advantage = jax.lax.stop_gradient((paths, credit, advantage))
        own, start = self.course.of_the_policy(problem), jnp.zeros(self.settings.environments)
        return Batch(own, learner.theta, paths, credit, advantage, start)
