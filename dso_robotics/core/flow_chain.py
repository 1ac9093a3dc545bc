"""Learned dynamics x' = F(x, u) + g(xi; x, u) whose noise is a normalising flow g, and chains that move by them.

For Gaussian noise the xi behind a recorded step is a linear solve (`GaussianChain.inferred`). A flow is invertible by its
construction, so for noise of any shape the xi is as exact, and the density is too (`core.flow`). With inferred noise a recorded
step is differentiable as `move(xi, x, theta)`; `core.gradient.recorded` has the gradient.
"""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from dso_robotics.core.descent import Best, Result
from dso_robotics.core.flow import Flow, normal_flow, silent_network
from dso_robotics.core.gradient.bottleneck import BottleneckChain
from dso_robotics.core.method.first_order import FirstOrder
from dso_robotics.core.method.sampled import Stopping, minimise
from dso_robotics.core.sampler import ExactSampler
from dso_robotics.errors import DsoError

State = Float[Array, " nx"]
Action = Float[Array, " nu"]
# Noise below this share of the spread of x' is rounding.
_NOISELESS = 1e-6
# A batch of transitions x, u, x'.
Steps = tuple[Float[Array, "M nx"], Float[Array, "M nu"], Float[Array, "M nx"]]


class StepModel(eqx.Module):
    """p(x'|x, u): x' = x + mean(c) + flow(xi; c), with c = (x, u) shifted and scaled.

    centre, spread: (nx + nu,) of x and u in the recording. They are no weights.
    mean: c -> change of the state (nx,).
    """

    centre: Float[Array, " nc"]
    spread: Float[Array, " nc"]
    mean: Callable[[Float[Array, " nc"]], State]
    flow: Flow

    def _condition(self, state: State, action: Action) -> Float[Array, " nc"]:
        held = jax.lax.stop_gradient((self.centre, self.spread))
        return (jnp.concatenate([state, action]) - held[0]) / held[1]

    def next(self, noise: State, state: State, action: Action) -> State:
        """x' for the noise xi, differentiable in all arguments."""
        condition = self._condition(state, action)
        return state + self.mean(condition) + self.flow.forward(noise, condition)

    def inferred(self, following: State, state: State, action: Action) -> State:
        """The noise xi with which `next` goes from a recorded x and u to the recorded x'. It is a constant."""
        condition = self._condition(state, action)
        return jax.lax.stop_gradient(self.flow.inverse(following - state - self.mean(condition), condition))

    def log_prob(self, following: State, state: State, action: Action) -> Float[Array, ""]:
        """log p(x'|x, u)."""
        condition = self._condition(state, action)
        return self.flow.log_prob(following - state - self.mean(condition), condition)


class Regression(eqx.Module):
    """weights c + offset + network(c), the network being absent or at first 0."""

    weights: Float[Array, "nx nc"]
    offset: State
    network: eqx.nn.MLP | None = None

    def __call__(self, condition: Float[Array, " nc"]) -> State:
        """The mean change of the state."""
        linear = self.weights @ condition + self.offset
        return linear if self.network is None else linear + self.network(condition)


def regressed(
    key: PRNGKeyArray, steps: Steps, *, units: int = 0, layers: int = 2, bins: int = 8, hidden: int = 32
) -> StepModel:
    """The model from which `fit_steps` begins: a linear regression, and normal noise with the covariance of its errors.

    steps: recorded x (M, nx), u (M, nu) and x' (M, nx).
    units: of the two hidden layers of a network in the mean; 0: the mean stays linear.
    layers, bins, hidden: see `normal_flow`.

    Raises:
      DsoError: there are too few transitions, arrays do not fit each other, a number is not finite, or the errors are not in
        all directions.
    """
    before, actions, after = (jnp.asarray(part) for part in steps)
    count, size = before.shape
    if after.shape != before.shape or actions.ndim != 2 or actions.shape[0] != count:
        raise DsoError(
            f"steps: expected x (M, nx), u (M, nu) and x' (M, nx), got {before.shape}, {actions.shape} and {after.shape}."
        )
    if not all(bool(jnp.all(jnp.isfinite(part))) for part in (before, actions, after)):
        raise DsoError("steps: a number is not finite; leave out transitions into a diverged simulation.")
    rows = jnp.concatenate([before, actions], axis=1)
    if count < 2 * (rows.shape[1] + 1):
        raise DsoError(
            f"steps: {count} transitions are too few for {rows.shape[1]} numbers of x and u; record at least "
            f"{2 * (rows.shape[1] + 1)}."
        )
    spread = jnp.std(rows, axis=0)
    spread = jnp.where(spread > 0.0, spread, 1.0)
    centre = jnp.mean(rows, axis=0)
    conditions = (rows - centre) / spread
    seen = jnp.concatenate([conditions, jnp.ones((count, 1))], axis=1)
    solved = jnp.linalg.lstsq(seen, after - before)[0]
    errors = after - before - seen @ solved
    covariance = jnp.atleast_2d(jnp.cov(errors.T))
    size_of = jnp.maximum(jnp.std(after, axis=0), jnp.finfo(after.dtype).tiny)
    if not bool(jnp.linalg.eigvalsh(covariance / jnp.outer(size_of, size_of))[0] > _NOISELESS**2):
        raise DsoError(
            "steps: some direction of x' follows from x and u without noise, so there is no density. Leave out of the state "
            "what follows from the rest, such as a position from a speed."
        )
    keys = jax.random.split(key)
    network = silent_network(keys[0], rows.shape[1], size, units) if units else None
    more = {"layers": layers, "bins": bins, "hidden": hidden}
    flow = normal_flow(keys[1], jnp.zeros(size), covariance, rows.shape[1], **more)
    return StepModel(centre, spread, Regression(solved[:-1].T, solved[-1], network), flow)


def fit_steps(
    key: PRNGKeyArray,
    model: StepModel,
    steps: Steps,
    *,
    hold_out: float = 0.2,
    iterations: int = 600,
    rate: float = 5e-3,
    every: int = 10,
) -> tuple[StepModel, Result]:
    """Mean and flow of most likelihood, by Adam through the one loop: `Result` is that of `descend`.

    The cost is the mean of -log p(x'|x, u) [nats] over the transitions that are not held out. Returned is the model that is
    most likely on those held out, of one look in `every` iterations.

    hold_out: part of the transitions, drawn at random.
    rate: step size of Adam at first; it falls to 0 along a cosine.

    Raises:
      DsoError: a number is out of range.
    """
    if not 0.0 < hold_out < 1.0:
        raise DsoError(f"hold_out: expected a part between 0 and 1 of the transitions, got {hold_out}.")
    if not rate > 0.0:
        raise DsoError(f"rate: expected a positive step size, got {rate}.")
    count = steps[0].shape[0]
    held = max(round(hold_out * count), 1)
    if held >= count:
        raise DsoError(f"hold_out: of {count} transitions none is left to learn from.")
    keys = jax.random.split(key)
    order = jax.random.permutation(keys[0], count)
    tested, learned = (tuple(jnp.asarray(part)[at] for part in steps) for at in (order[:held], order[held:]))
    weights, static = eqx.partition(model, eqx.is_inexact_array)
    theta, unravel = ravel_pytree(weights)

    def cost(theta: Float[Array, " n"], batch: Any) -> Float[Array, ""]:
        mine = eqx.combine(unravel(theta), static)
        before, actions, after = batch
        return -jnp.mean(jax.vmap(mine.log_prob)(after, before, actions))

    judge = eqx.filter_jit(lambda theta: cost(theta, tested))
    schedule = optax.cosine_decay_schedule(rate, max(iterations, 1))
    result = minimise(
        keys[1],
        ExactSampler(lambda theta: cost(theta, learned)),
        theta,
        FirstOrder(optimiser=optax.adam(schedule)),
        iterations=iterations,
        stopping=Stopping(noise_floor=False),
        keep=Best(lambda state: float(judge(state.theta)), every=every, take=lambda state: state.theta),
    )
    best = result.theta if result.best is None else result.best.kept
    return eqx.combine(unravel(best), static), result


class FlowChain(BottleneckChain):
    """A chain that moves by a `StepModel` under a policy u = h(x, theta). A subclass defines `initial`, `bottleneck` and
    `cost_through`.

    log P exists for all of theta, because the noise has as many dimensions as the state.
    """

    model: eqx.AbstractVar[StepModel]

    @abc.abstractmethod
    def bottleneck(self, state: State, theta: Float[Array, " n"]) -> Action:
        """The action u of the policy."""

    def draw(self, key: PRNGKeyArray, theta: Float[Array, " n"], steps: int) -> Float[Array, "steps nx"]:
        """xi ~ N(0, I)."""
        return jax.random.normal(key, (steps, self.model.flow.size), self.model.flow.location.dtype)

    def move(self, noise: State, state: State, theta: Float[Array, " n"]) -> State:
        """x' for given noise."""
        return self.model.next(noise, state, self.bottleneck(state, theta))

    def step_through(self, key: PRNGKeyArray, state: State, h: Action) -> State:
        """x' with fresh noise."""
        return self.model.next(jax.random.normal(key, (self.model.flow.size,), state.dtype), state, h)

    def step(self, key: PRNGKeyArray, state: State, theta: Float[Array, " n"]) -> State:
        """`move` with fresh noise."""
        return self.move(self.draw(key, theta, 1)[0], state, theta)

    def drift(self, state: State, theta: Float[Array, " n"]) -> State:
        """x' without noise, xi = 0: the median of x' for one number, not its mean."""
        return self.move(jnp.zeros(self.model.flow.size, state.dtype), state, theta)

    def inferred(self, following: State, state: State, theta: Float[Array, " n"]) -> State:
        """The noise with which `move` goes from x to a recorded x', as `GaussianChain.inferred`. It is a constant.

        It takes the policy's own action. Where the recording has the action, take `model.inferred(following, state, action)`.
        """
        return self.model.inferred(following, state, self.bottleneck(state, theta))

    def log_prob_through(self, following: State, state: State, h: Action) -> Float[Array, ""]:
        """log p(x'|x, u)."""
        return self.model.log_prob(following, state, h)
