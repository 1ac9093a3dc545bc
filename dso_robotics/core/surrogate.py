"""The surrogate objective (60-68) and its steps: Chain Iteration, Proximal Chain Optimization, R-MDP costs.

The surrogate perturbs the chain and the cost by delta, but not the density of states or the value. Its gradient at
delta = 0 is that of J. Away from 0 it is not an estimate of J.
"""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from dso_robotics.core.chain import Chain, State
from dso_robotics.core.gradient.score import Batch
from dso_robotics.core.objective import Problem
from dso_robotics.core.rollout import Trajectory, batched, cost_along, log_prob_along
from dso_robotics.errors import DsoError


class Clip(eqx.Module):
    """How the ratios r_t(delta) enter the surrogate."""

    @abc.abstractmethod
    def __call__(self, ratio: Float[Array, " T"], advantage: Float[Array, " T"]) -> Float[Array, " T"]:
        """The term of the surrogate; r A without clipping."""


class NoClip(Clip):
    """r A, equation (66)."""

    def __call__(self, ratio: Float[Array, " T"], advantage: Float[Array, " T"]) -> Float[Array, " T"]:
        """r A."""
        return ratio * advantage


class ProximalClip(Clip):
    """max(r A, clip(r, 1 - c, 1 + c) A): the pessimistic bound of a *cost*, so a maximum where PPO has a minimum."""

    width: float = 0.2

    def __check_init__(self) -> None:
        if not 0.0 < self.width < 1.0:
            raise DsoError(f"width: the clip of PCO must lie in (0, 1), got {self.width}.")

    def __call__(self, ratio: Float[Array, " T"], advantage: Float[Array, " T"]) -> Float[Array, " T"]:
        """The clipped term; its derivative at r = 1 is A."""
        return jnp.maximum(ratio * advantage, jnp.clip(ratio, 1.0 - self.width, 1.0 + self.width) * advantage)


def surrogate_samples(batch: Batch, delta: Float[Array, " n"], *, clip: Clip | None = None) -> Float[Array, " N"]:
    """(66): for each rollout, sum_t gamma^t [L(x_t, theta + delta) + gamma r_t(delta) A_t], with the data of Algorithm 1."""
    clip = NoClip() if clip is None else clip
    theta = batch.theta + delta

    def one(
        problem: Problem, path: Trajectory, cost_weight: Array, move_weight: Array, advantage: Array, start: Array
    ) -> Array:
        costs = jnp.where(path.counted, cost_along(problem, theta, path.states), 0.0)
        ratio = jnp.exp(log_prob_along(problem, theta, path) - log_prob_along(problem, batch.theta, path))
        total = cost_weight @ costs + move_weight @ clip(ratio, advantage)
        if type(problem.chain).log_initial is not Chain.log_initial:
            first = jax.tree.map(lambda leaf: leaf[0], path.states)
            log_first = problem.chain.log_initial(first, theta) - problem.chain.log_initial(first, batch.theta)
            total = total + clip(jnp.exp(log_first), start)
        return total

    earned = batch.credit
    parts = (batch.trajectory, earned.cost_weight, earned.move_weight, batch.advantage, batch.start_advantage)
    return batched(batch.problem, one, *parts)


def surrogate(batch: Batch, delta: Float[Array, " n"], *, clip: Clip | None = None) -> Float[Array, ""]:
    """The sampled surrogate J~(theta, delta), equations (64-66). Its gradient at 0 is exactly that of Algorithm 1 (67-68)."""
    return jnp.mean(surrogate_samples(batch, delta, clip=clip))


def mean_divergence(key: PRNGKeyArray, batch: Batch, delta: Float[Array, " n"]) -> Float[Array, ""]:
    """KL(P(.|x, theta) || P(.|x, theta + delta)) averaged over the moves of the batch, in chain or action space."""
    keys = jax.random.split(key, batch.advantage.shape)

    def one(problem: Problem, path: Trajectory, noise: PRNGKeyArray) -> Float[Array, ""]:
        times = jnp.arange(problem.objective.steps)
        before = jax.tree.map(lambda leaf: leaf[:-1], path.states)

        def at(time: Array, k: PRNGKeyArray, state: State) -> Float[Array, ""]:
            return problem.chain.at(time).divergence(k, state, batch.theta, batch.theta + delta)

        return jnp.sum(jnp.where(path.moved, jax.vmap(at)(times, noise, before), 0.0))

    return jnp.sum(batched(batch.problem, one, batch.trajectory, keys)) / jnp.maximum(
        jnp.sum(batch.trajectory.moved), 1
    )


class Step(eqx.Module):
    """The result of an inner minimisation over delta.

    delta: (n,) the step.
    predicted: J~(0) - J~(delta), the predicted reduction.
    divergence: mean KL of the step.
    """

    delta: Float[Array, " n"]
    predicted: Float[Array, ""]
    divergence: Float[Array, ""]


def chain_iteration(
    key: PRNGKeyArray,
    batch: Batch,
    *,
    divergence_weight: Array | float = 0.1,
    updates: int = 10,
    entries: np.ndarray | Array | None = None,
) -> Step:
    """Chain Iteration (63): L-BFGS finds delta* near argmin of J~(theta, delta) + weight KL. The caller moves by eta delta*.

    A sampled surrogate alone has no minimum: it keeps decreasing as unlikely moves become more likely. The KL bounds it.
    """
    if isinstance(divergence_weight, int | float) and divergence_weight < 0.0:
        raise DsoError(f"divergence_weight: must not be negative, got {divergence_weight}.")
    mask = jnp.ones(batch.theta.shape) if entries is None else jnp.asarray(entries, batch.theta.dtype)

    def loss(delta: Float[Array, " n"]) -> Float[Array, ""]:
        return surrogate(batch, delta * mask) + divergence_weight * mean_divergence(key, batch, delta * mask)

    optimiser = optax.lbfgs(linesearch=optax.scale_by_zoom_linesearch(max_linesearch_steps=8))
    zero = jnp.zeros_like(batch.theta)

    def update(carry: tuple, _: None) -> tuple[tuple, None]:
        delta, state = carry
        value, slope = optax.value_and_grad_from_state(loss)(delta, state=state)
        change, state = optimiser.update(slope, state, delta, value=value, grad=slope, value_fn=loss)
        moved = delta + jnp.asarray(change)
        return (jnp.where(jnp.all(jnp.isfinite(moved)), moved, delta), state), None

    (delta, _), _ = jax.lax.scan(update, (zero, optimiser.init(zero)), None, length=updates)
    delta = delta * mask
    promised = surrogate(batch, zero) - surrogate(batch, delta)
    return Step(delta, promised, mean_divergence(key, batch, delta))


def proximal_chain_optimization(
    key: PRNGKeyArray,
    batch: Batch,
    *,
    clip: Clip | None = None,
    updates: int = 20,
    learning_rate: Float[Array, ""] | float = 1e-2,
    divergence_limit: float = 0.05,
    entries: np.ndarray | Array | None = None,
) -> Step:
    """PCO: Adam on the clipped surrogate of one batch. It stops when the mean KL of the step exceeds its limit."""
    clip = ProximalClip() if clip is None else clip
    mask = jnp.ones(batch.theta.shape) if entries is None else jnp.asarray(entries, batch.theta.dtype)
    optimiser = optax.adam(learning_rate)
    zero = jnp.zeros_like(batch.theta)

    def update(carry: tuple, _: None) -> tuple[tuple, None]:
        delta, state, stopped = carry
        slope = jax.grad(lambda d: surrogate(batch, d, clip=clip))(delta) * mask
        change, following = optimiser.update(slope, state, delta)
        moved = delta + jnp.asarray(change)
        stopped = stopped | ~(mean_divergence(key, batch, moved) <= divergence_limit)
        kept = jax.tree.map(lambda new, old: jnp.where(stopped, old, new), (moved, following), (delta, state))
        return (*kept, stopped), None

    (delta, _, _), _ = jax.lax.scan(update, (zero, optimiser.init(zero), jnp.zeros((), bool)), None, length=updates)
    promised = surrogate(batch, zero, clip=clip) - surrogate(batch, delta, clip=clip)
    return Step(delta, promised, mean_divergence(key, batch, delta))


class ProximalChain(Chain):
    """An R-MDP at the level of the chain: L + weight KL(P(.|x, old) || P(.|x, theta)), section 4.3.

    The dynamics are the same. Moving away from the chain of the last iteration adds cost. If the chain has no closed form of
    its divergence, the KL term is one sample from the fixed `key`.
    """

    chain: Chain
    old: Float[Array, " n"]
    weight: Float[Array, ""] | float
    key: PRNGKeyArray

    def initial(self, key: PRNGKeyArray, theta: Float[Array, " n"]) -> State:
        """x0 of the chain."""
        return self.chain.initial(key, theta)

    def log_initial(self, state: State, theta: Float[Array, " n"]) -> Float[Array, ""]:
        """log P0 of the chain."""
        return self.chain.log_initial(state, theta)

    def step(self, key: PRNGKeyArray, state: State, theta: Float[Array, " n"]) -> State:
        """x' of the chain."""
        return self.chain.step(key, state, theta)

    def draw(self, key: PRNGKeyArray, theta: Float[Array, " n"], steps: int) -> Any:
        """Noise of the chain."""
        return self.chain.draw(key, theta, steps)

    def move(self, noise: Any, state: State, theta: Float[Array, " n"]) -> State:
        """x' of the chain."""
        return self.chain.move(noise, state, theta)

    def cost(self, state: State, theta: Float[Array, " n"]) -> Float[Array, ""]:
        """L + weight KL."""
        proximal = self.chain.divergence(self.key, state, self.old, theta)
        return self.chain.cost(state, theta) + jnp.where(self.chain.terminal(state), 0.0, self.weight * proximal)

    def log_prob(self, following: State, state: State, theta: Float[Array, " n"]) -> Float[Array, ""]:
        """log P of the chain."""
        return self.chain.log_prob(following, state, theta)

    def drift(self, state: State, theta: Float[Array, " n"]) -> State:
        """F of the chain."""
        return self.chain.drift(state, theta)

    def terminal(self, state: State) -> Array:
        """Whether x is terminal in the chain."""
        return self.chain.terminal(state)

    def may_end(self) -> bool:
        """Whether the chain defines `terminal`."""
        return self.chain.may_end()

    def ends(self) -> bool:
        """Whether the chain has terminal states."""
        return self.chain.ends()

    def check(self, objective: object, theta: Float[Array, " n"]) -> None:
        """The chain's own check."""
        self.chain.check(objective, theta)

    def diverged(self, state: State) -> Array:
        """Whether the chain blew up at x."""
        return self.chain.diverged(state)

    def divergence(self, key: PRNGKeyArray, state: State, old: Float[Array, " n"], new: Float[Array, " n"]) -> Array:
        """KL of the chain."""
        return self.chain.divergence(key, state, old, new)

    def scored(self, theta: Float[Array, " n"]) -> np.ndarray:
        """Entries that the chain's log_prob covers."""
        return self.chain.scored(theta)

    def describe(self, entry: int) -> str:
        """Name of one entry of theta."""
        return self.chain.describe(entry)

    def at(self, time: Array) -> Chain:
        """The proximal chain of step `time`."""
        return eqx.tree_at(lambda wrapped: wrapped.chain, self, self.chain.at(time))
