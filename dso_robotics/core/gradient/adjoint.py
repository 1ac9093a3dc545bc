"""Derivatives of the cost to come by the states along one rollout: the targets of a critic of value gradients."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from dso_robotics.core.chain import Chain, State
from dso_robotics.core.gradient.pathwise import pathwise_loss
from dso_robotics.core.objective import Problem
from dso_robotics.core.value import Value


class _Nudged(Chain):
    """A chain whose steps begin beside the state: at x + `nudge`. The cost of the state is that of x itself."""

    chain: Chain
    nudge: State

    def at(self, time: Array) -> "_Nudged":
        return _Nudged(self.chain.at(time), jax.tree.map(lambda leaf: leaf[time], self.nudge))

    def initial(self, key: PRNGKeyArray, theta: Float[Array, " n"]) -> State:
        return self.chain.initial(key, theta)

    def step(self, key: PRNGKeyArray, state: State, theta: Float[Array, " n"]) -> State:
        return self.chain.step(key, self._beside(state), theta)

    def draw(self, key: PRNGKeyArray, theta: Float[Array, " n"], steps: int) -> State:
        return self.chain.draw(key, theta, steps)

    def move(self, noise: State, state: State, theta: Float[Array, " n"]) -> State:
        return self.chain.move(noise, self._beside(state), theta)

    def _beside(self, state: State) -> State:
        floating, rest = eqx.partition(state, eqx.is_inexact_array)
        return eqx.combine(jax.tree.map(jnp.add, floating, self.nudge), rest)

    def cost(self, state: State, theta: Float[Array, " n"]) -> Float[Array, ""]:
        return self.chain.cost(state, theta)

    def terminal(self, state: State) -> Bool[Array, ""]:
        return self.chain.terminal(state)

    def may_end(self) -> bool:
        return self.chain.may_end()

    def ends(self) -> bool:
        return self.chain.ends()

    def diverged(self, state: State) -> Bool[Array, ""]:
        return self.chain.diverged(state)


def value_slopes(
    key: PRNGKeyArray,
    problem: Problem,
    theta: Float[Array, " n"],
    *,
    start: State,
    horizon: int | Int[Array, ""],
    value: Value,
) -> State:
    """d/dx_t of what follows x_t, sum_{0<k<h} gamma^k L(x_{t+k}) + gamma^h V(x_{t+h}), along the rollout of `key` from `start`.

    x_{t+h} is the state at which the window of t is closed, as in `pathwise_loss` with the same `horizon`. So this is TD(k) on
    gradients, with k from `horizon` at the first state of a window to 1 at its last. One reverse sweep gives all of them.

    Returns:
      The floating-point leaves of the states 0..T-1, (T, ...); other leaves are None. V's own derivative is `value.closing`'s.
    """
    steps, gamma = problem.objective.steps, problem.objective.discount
    floating = eqx.filter(start, eqx.is_inexact_array)
    still = jax.tree.map(lambda leaf: jnp.zeros((steps + 1, *leaf.shape), leaf.dtype), floating)

    def total(nudge: State) -> Float[Array, ""]:
        here = eqx.tree_at(lambda p: p.chain, problem, _Nudged(problem.chain, nudge))
        return pathwise_loss(key, here, theta, horizon=horizon, value=value, start=start)[0]

    def undiscounted(leaf: Array) -> Array:
        return leaf[:-1] / (gamma ** jnp.arange(steps)).reshape((-1,) + (1,) * (leaf.ndim - 1))

    return jax.tree.map(undiscounted, jax.grad(total)(still))
