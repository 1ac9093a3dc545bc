"""Steps in action space: the update rules of the core, applied to windows simulated elsewhere, such as in threaded C MuJoCo.

Nothing is differentiated through the physics, so no physics is compiled. Advantages are A_t = (G_t - V(x_t)) / gamma, where G
are the TD(lambda) returns of the slow critic. They are scaled to unit standard deviation. The surrogate, its clip and the
Fisher matrix are those of the core (64-66, 69-74), computed with the density of the actions.
"""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from dso_robotics.core import surrogate
from dso_robotics.core.chain import Chain, State, covered
from dso_robotics.core.fitting import lambda_returns
from dso_robotics.core.gradient.estimate import Estimate
from dso_robotics.core.gradient.score import Batch
from dso_robotics.core.method.course import Course
from dso_robotics.core.method.learner import Learner, Step
from dso_robotics.core.method.sampled import Rule
from dso_robotics.core.method.short_horizon import ShortHorizon
from dso_robotics.core.objective import Credit, Problem
from dso_robotics.core.rollout import Ending, Trajectory, settled
from dso_robotics.core.sampler import Sample


class PlayedCourse(Course):
    """A course whose windows are simulated elsewhere, such as in C MuJoCo, and are not differentiated."""

    @abc.abstractmethod
    def noise(self, theta: Array, key: PRNGKeyArray, progress: Array, shape: tuple[int, int]) -> Array:
        """The noise of E windows of T steps, `shape` (E, T)."""

    @abc.abstractmethod
    def play(self, theta: Array, memory: Any, states: State, noise: Array) -> State:
        """Simulate the windows that begin at `states` (E, ...). Return states with leaves (E, T+1, ...)."""

    @abc.abstractmethod
    def of_the_policy(self, problem: Problem) -> Problem:
        """The problem with only the part of the cost that depends on theta at given states."""


class ActionSpace(ShortHorizon):
    """`ShortHorizon` with windows that are simulated without derivatives. A rule computes each step."""

    engine = "mujoco"
    reason = "steps in action space need no derivative of the physics, and C MuJoCo has nothing to compile"
    supervises = False
    ends = False
    constrains = False
    course: PlayedCourse

    def __init__(self, *args: Any, **more: Any):
        super().__init__(*args, **more)
        course, s = self.course, self.settings
        shape = s.environments, s.horizon

        def noise(learner: Learner) -> Array:
            key, progress = jax.random.fold_in(learner.key, 0), learner.iteration / s.iterations
            return course.noise(learner.theta, key, progress, shape)

        def placed(learner: Learner) -> State:
            put = jax.vmap(lambda state, new: course.placed(course.chain, state, new, learner.theta))
            return put(learner.states, learner.age == 0)

        self._noise: Any = eqx.filter_jit(noise)
        self._placed: Any = eqx.filter_jit(placed)
        self._improve: Any = eqx.filter_jit(self._improved)
        self._iterate = self._played

    @abc.abstractmethod
    def rule(self, rate: Array) -> tuple[Rule, Any]:
        """The rule of a step and its state. `rate` is the remaining fraction of the step sizes."""

    @staticmethod
    def entries(method: str, chain: Chain, theta: Float[Array, " n"], moved: np.ndarray | None = None) -> np.ndarray:
        """All entries. Raises DsoError if an entry of theta has no score: no other cost could move it."""
        return covered(chain, theta)

    def compile(self, state: Learner) -> None:
        """Compile everything that a step compiles, by taking one step."""
        self._played(state)

    def _played(self, learner: Learner) -> tuple[Learner, tuple[Array, ...]]:
        states = self.course.play(learner.theta, learner.memory, self._placed(learner), self._noise(learner))
        return self._improve(learner, states)

    def _improved(self, learner: Learner, states: State) -> tuple[Learner, tuple[Array, ...]]:
        s = self.settings
        key, step_key = jax.random.split(jax.random.fold_in(learner.key, 1))
        progress = learner.iteration / s.iterations
        chain = self.course.anchored(self.course.at(learner.memory, progress), learner.anchor)
        problem = eqx.tree_at(lambda p: p.chain, self.problem, chain)
        paths = jax.vmap(lambda window: settled(problem, window, self._costs(chain, learner.theta, window)))(states)
        batch = self._batch(learner, problem, paths)
        moved = self._stepping(step_key, learner, batch, self._fallen(progress))
        return self._close(learner, key, paths, moved)

    def _stepping(self, key: PRNGKeyArray, learner: Learner, batch: Batch, rate: Array) -> Step:
        """The step of theta by a batch. `rate` is the remaining fraction of the step sizes."""
        rule, state = self.rule(rate)
        slope = jax.grad(lambda delta: surrogate.surrogate(batch, delta))(jnp.zeros_like(learner.theta))
        zero, ones = jnp.zeros_like(slope), jnp.ones(slope.shape, bool)
        count = jnp.full((), self.settings.environments)
        estimate = Estimate(jnp.zeros(()), slope, zero, jnp.zeros(()), count, 0 * count, ones)
        proposal = rule.propose(key, learner.theta, Sample(estimate, batch, None), state, jnp.ones(()))
        finite = jnp.all(jnp.isfinite(proposal.theta))
        theta = jnp.where(finite, proposal.theta, learner.theta)
        return Step(theta, learner.optimiser, finite, jnp.linalg.norm(theta - learner.theta))

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
