"""Corollary 2: chains where the parameters act only through a bottleneck h(x, theta), and their gradients (33-34)."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from dso_robotics.core.chain import Chain, State, covered
from dso_robotics.core.gradient.estimate import Estimate, summarise, unpriced
from dso_robotics.core.gradient.score import Baseline, Batch, NoBaseline, sample_batch
from dso_robotics.core.objective import Problem, check_theta
from dso_robotics.core.rollout import Trajectory, batched, check_count
from dso_robotics.core.value import Value
from dso_robotics.errors import DsoError


class BottleneckChain(Chain):
    """P(x'|x, h(x, theta)) and L(x, h(x, theta)), equation (33). A D-MDP is one, with h its policy."""

    @abc.abstractmethod
    def bottleneck(self, state: State, theta: Float[Array, " n"]) -> Float[Array, " nh"]:
        """h(x, theta)."""

    @abc.abstractmethod
    def step_through(self, key: PRNGKeyArray, state: State, h: Float[Array, " nh"]) -> State:
        """Sample x' from P(.|x, h)."""

    @abc.abstractmethod
    def cost_through(self, state: State, h: Float[Array, " nh"]) -> Float[Array, ""]:
        """L(x, h)."""

    def log_prob_through(self, following: State, state: State, h: Float[Array, " nh"]) -> Float[Array, ""]:
        """log P(x'|x, h)."""
        raise DsoError(f"{type(self).__name__} gives no log_prob_through, which the score form needs.")

    def step(self, key: PRNGKeyArray, state: State, theta: Float[Array, " n"]) -> State:
        """Sample x' through the bottleneck."""
        return self.step_through(key, state, self.bottleneck(state, theta))

    def cost(self, state: State, theta: Float[Array, " n"]) -> Float[Array, ""]:
        """L(x, h(x, theta))."""
        return self.cost_through(state, self.bottleneck(state, theta))

    def log_prob(self, following: State, state: State, theta: Float[Array, " n"]) -> Float[Array, ""]:
        """log P(x'|x, h(x, theta))."""
        return self.log_prob_through(following, state, self.bottleneck(state, theta))


def bottlenecks_along(problem: Problem, theta: Float[Array, " n"], states: State) -> Float[Array, "T+1 nh"]:
    """h_t(x_t, theta) along one rollout."""
    times = jnp.arange(problem.objective.steps + 1)
    return jax.vmap(lambda time, state: _chain(problem, time).bottleneck(state, theta))(times, states)


def _chain(problem: Problem, time: Array) -> BottleneckChain:
    chain = problem.chain.at(time)
    if not isinstance(chain, BottleneckChain):
        raise DsoError(f"The bottleneck form needs a BottleneckChain, got {type(chain).__name__}.")
    return chain


def bottleneck_score(
    key: PRNGKeyArray, problem: Problem, theta: Float[Array, " n"], *, count: int, baseline: Baseline | None = None
) -> tuple[Estimate, Batch]:
    """(34) with the inner derivative by the score of h: E[dh^T d_h {L(x, h) + gamma log P(x'|x, h) (R - V(F(x)))}]."""
    _chain(problem, jnp.zeros((), int))
    check_theta(theta)
    covered(problem.chain, theta)
    return _score(key, problem, theta, check_count(count), NoBaseline() if baseline is None else baseline)


@eqx.filter_jit
def _score(key: PRNGKeyArray, problem: Problem, theta: Array, count: int, baseline: Baseline) -> tuple[Estimate, Batch]:
    batch = sample_batch(key, problem, theta, count=count, baseline=baseline)

    def one(part: Problem, trajectory: Trajectory, cost_weight: Array, move_weight: Array, advantage: Array) -> Array:
        def inner(h: Float[Array, "T+1 nh"]) -> Float[Array, ""]:
            times = jnp.arange(part.objective.steps + 1)
            costs = jax.vmap(lambda t, x, a: _chain(part, t).cost_through(x, a))(times, trajectory.states, h)
            before = jax.tree.map(lambda leaf: leaf[:-1], trajectory.states)
            after = jax.tree.map(lambda leaf: leaf[1:], trajectory.states)
            logs = jax.vmap(lambda t, y, x, a: _chain(part, t).log_prob_through(y, x, a))(
                times[:-1], after, before, h[:-1]
            )
            logs = jnp.where(trajectory.moved, logs, 0.0)
            return cost_weight @ jnp.where(trajectory.counted, costs, 0.0) + (move_weight * advantage) @ logs

        h, pull = jax.vjp(lambda t: bottlenecks_along(part, t, trajectory.states), theta)
        return pull(jax.grad(inner)(h))[0]

    earned = batch.credit
    parts = (batch.trajectory, earned.cost_weight, earned.move_weight, batch.advantage)
    gradients = batched(problem, one, *parts)
    failed = unpriced(batch.trajectory, problem.objective)
    return summarise(earned.value, gradients, failed, jnp.ones(theta.shape[0], bool)), batch


def bottleneck_pathwise(
    key: PRNGKeyArray, problem: Problem, theta: Float[Array, " n"], *, count: int, value: Value
) -> tuple[Estimate, Batch]:
    """(34) with the inner derivative through the step: d_h {L(x, h) + gamma V(f(x, xi, h))}, with newly drawn xi.

    This is the deterministic policy gradient of the chain. It unrolls no horizon and is as accurate as the critic `value`.
    """
    check_theta(theta)
    _chain(problem, jnp.zeros((), int))
    return _pathwise(key, problem, theta, check_count(count), value)


@eqx.filter_jit
def _pathwise(key: PRNGKeyArray, problem: Problem, theta: Array, count: int, value: Value) -> tuple[Estimate, Batch]:
    roll_key, noise_key = jax.random.split(key)
    batch = sample_batch(roll_key, problem, theta, count=count)
    keys = jax.random.split(noise_key, (count, problem.objective.steps))

    def one(
        part: Problem, noise: PRNGKeyArray, trajectory: Trajectory, cost_weight: Array, move_weight: Array
    ) -> Float[Array, " n"]:
        def inner(h: Float[Array, "T+1 nh"]) -> Float[Array, ""]:
            times = jnp.arange(part.objective.steps + 1)
            costs = jax.vmap(lambda t, x, a: _chain(part, t).cost_through(x, a))(times, trajectory.states, h)
            before = jax.tree.map(lambda leaf: leaf[:-1], trajectory.states)

            def ahead(time: Array, k: PRNGKeyArray, state: State, a: Array) -> Float[Array, ""]:
                return value.at(time + 1).closing(_chain(part, time).step_through(k, state, a))

            closing = jax.vmap(ahead)(times[:-1], noise, before, h[:-1])
            return cost_weight @ jnp.where(trajectory.counted, costs, 0.0) + move_weight @ closing

        h, pull = jax.vjp(lambda t: bottlenecks_along(part, t, trajectory.states), theta)
        return pull(jax.grad(inner)(h))[0]

    earned = batch.credit
    gradients = batched(problem, one, keys, batch.trajectory, earned.cost_weight, earned.move_weight)
    failed = unpriced(batch.trajectory, problem.objective)
    return summarise(earned.value, gradients, failed, jnp.ones(theta.shape[0], bool)), batch
