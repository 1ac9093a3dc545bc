"""The problems of gradients.py, and the same estimators written out by hand for its timing."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from dso_robotics.core.chain import Chain
from dso_robotics.core.gaussian import GaussianChain, LinearQuadratic
from dso_robotics.core.gradient.pathwise import pathwise
from dso_robotics.core.gradient.score import score
from dso_robotics.core.objective import Episodic, Problem


class Stage(NamedTuple):
    problem: Problem
    theta: jax.Array
    gradient: jax.Array | None
    value: Callable
    count: int


def regulator(*, noise: float = 0.3, stiff: bool = False, steps: int = 60, gamma: float = 0.9) -> Stage:
    """A double integrator. stiff: an unstable plant, barely stabilised by a high gain."""
    chain = LinearQuadratic(
        a=jnp.array([[1.0, 0.3], [1.6 if stiff else 0.0, 1.0]]),
        b=jnp.array([[0.05], [0.3]]),
        q=jnp.diag(jnp.array([1.0, 0.2])),
        r=jnp.array([[0.1]]),
        noise=noise * jnp.array([[1.0, 0.0], [0.3, 0.8]]),
        start=jnp.array([[1.0, 0.0], [0.2, 0.5]]),
    )
    theta = jnp.array([-6.2, -2.2]) if stiff else jnp.array([-0.6, -1.0])
    matrix = chain.value_matrix(theta, gamma)
    constant = gamma / (1.0 - gamma) * jnp.vdot(matrix, chain.noise @ chain.noise.T)
    gradient = jax.grad(lambda t: chain.episodic_cost(t, gamma))(theta)
    problem = Problem(chain, Episodic(gamma, steps), theta=theta)
    return Stage(problem, theta, gradient, lambda x: x @ matrix @ x + constant, 1000)


class Pendulum(GaussianChain):
    """An inverted pendulum with a network policy, with four Euler substeps per step."""

    noise: jax.Array
    policy: Callable = eqx.field(static=True)

    def initial(self, key, theta):
        return jnp.array([0.5, 0.0]) + 0.1 * jax.random.normal(key, (2,))

    def drift(self, state, theta):
        torque = self.policy(theta, state)
        for _ in range(4):
            state = state + 0.0125 * jnp.array([state[1], 9.81 * jnp.sin(state[0]) + 8.0 * torque - 0.1 * state[1]])
        return state

    def cost(self, state, theta):
        return 1.0 - jnp.cos(state[0]) + 0.01 * state[1] ** 2 + 0.001 * self.policy(theta, state) ** 2


def pendulum() -> Stage:
    network = eqx.nn.MLP(2, "scalar", 32, 2, activation=jnp.tanh, key=jax.random.key(0))
    arrays, static = eqx.partition(network, eqx.is_array)
    theta, unravel = ravel_pytree(arrays)

    def policy(weights, state):
        return eqx.combine(unravel(weights), static)(state)

    chain = Pendulum(jnp.diag(jnp.array([0.01, 0.05])), policy)
    return Stage(Problem(chain, Episodic(0.95, 50), theta=theta), theta, None, lambda x: 3.0 * x @ x, 256)


class Loop(GaussianChain):
    """x' = (L + theta) x + noise at theta = 0, cost x^2: a closed loop whose Lipschitz constant is L."""

    lipschitz: float
    noise: jax.Array

    def initial(self, key, theta):
        return jax.random.normal(key, (1,))

    def drift(self, state, theta):
        return (self.lipschitz + theta[0]) * state

    def cost(self, state, theta):
        return jnp.sum(state**2)


def scalar_loop(lipschitz: float) -> tuple[Loop, jax.Array]:
    return Loop(lipschitz, 0.3 * jnp.eye(1)), jnp.zeros(1)


class Square(Chain):
    """One state x ~ N(theta, 1), which is terminal and costs x^2 theta."""

    def initial(self, key, theta):
        return theta + jax.random.normal(key, (1,))

    def log_initial(self, state, theta):
        return -0.5 * jnp.sum((state - theta) ** 2)

    def step(self, key, state, theta):
        return state

    def log_prob(self, following, state, theta):
        return jnp.zeros(())

    def terminal(self, state):
        return jnp.ones((), bool)

    def cost(self, state, theta):
        return state[0] ** 2 * theta[0]


class Naive(Square):
    """The same, but as if the density did not depend on theta."""

    def log_initial(self, state, theta):
        return jnp.zeros(())


def square() -> dict:
    theta = jnp.ones(1)
    honest, naive = (Problem(chain, Episodic(1.0, 1), theta=theta) for chain in (Square(), Naive()))
    return {"naive": (naive, score), "score": (honest, score), "reparameterised": (honest, pathwise)}


def _roll(stage: Stage, theta: jax.Array, key: jax.Array) -> tuple:
    chain, steps = stage.problem.chain, stage.problem.objective.steps
    first, second = jax.random.split(key)
    noise = jax.random.normal(second, (steps, 2))

    def step(x, xi):
        y = chain.drift(x, theta) + chain.noise @ xi
        return y, (x, y, chain.cost(x, theta))

    return jax.lax.scan(step, chain.initial(first, theta), noise)


def hand_score(stage: Stage, groups: int | None = None) -> Callable:
    """Algorithm 1 written for this chain only: without terminal states and divergence. With `groups`, also standard errors."""
    chain, gamma, steps = stage.problem.chain, stage.problem.objective.gamma, stage.problem.objective.steps
    white, powers = jnp.linalg.inv(jnp.linalg.cholesky(chain.noise @ chain.noise.T)), gamma ** jnp.arange(steps)

    @jax.jit
    def run(key, theta):
        def one(k):
            last, (x, y, costs) = _roll(stage, theta, k)

            def back(total, cost):
                total = cost + gamma * total
                return total, total

            end = stage.value(last)
            _, returns = jax.lax.scan(back, end, costs, reverse=True)
            ahead = jax.vmap(lambda s: stage.value(chain.drift(s, theta)))(x)
            return x, y, jnp.append(returns[1:], end) - ahead, returns[0]

        x, y, advantage, values = jax.vmap(one)(jax.random.split(key, stage.count))

        def loss(theta, x, y, advantage):
            costs = jax.vmap(jax.vmap(lambda s: chain.cost(s, theta)))(x)
            logs = jax.vmap(jax.vmap(lambda s, t: -0.5 * jnp.sum((white @ (t - chain.drift(s, theta))) ** 2)))(x, y)
            return jnp.mean(costs @ powers + (logs * advantage) @ (gamma * powers))

        if groups is None:
            return jnp.mean(values), jax.grad(loss)(theta, x, y, advantage)
        each = jax.vmap(jax.grad(loss), (None, 0, 0, 0))(theta, *_split(groups, x, y, advantage))
        return *_mean_and_error(values), *_mean_and_error(each)

    return run


def hand_pathwise(stage: Stage, groups: int | None = None) -> Callable:
    """Back-propagation through time, with the same terminal value. With `groups`, also standard errors."""
    gamma, steps = stage.problem.objective.gamma, stage.problem.objective.steps

    @jax.jit
    def run(key, theta):
        def loss(theta, keys):
            def one(k):
                last, (_, _, costs) = _roll(stage, theta, k)
                return gamma ** jnp.arange(steps) @ costs + gamma**steps * stage.value(last)

            values = jax.vmap(one)(keys)
            return jnp.mean(values), values

        keys = jax.random.split(key, stage.count)
        if groups is None:
            (value, _), gradient = jax.value_and_grad(loss, has_aux=True)(theta, keys)
            return value, gradient
        each, values = jax.vmap(jax.grad(loss, has_aux=True), (None, 0))(theta, *_split(groups, keys))
        return *_mean_and_error(values.reshape(-1)), *_mean_and_error(each)

    return run


def _split(groups: int, *arrays: jax.Array) -> list:
    return [array.reshape((groups, -1, *array.shape[1:])) for array in arrays]


def _mean_and_error(samples: jax.Array) -> tuple:
    return jnp.mean(samples, axis=0), jnp.std(samples, axis=0, ddof=1) / jnp.sqrt(samples.shape[0])
