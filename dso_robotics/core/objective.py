"""The cost to minimise: episodic (1-4), average (5-8) or time-varying (9-11); and the credit assigned to each step."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from dso_robotics.core.chain import Chain
from dso_robotics.errors import DsoError


class Objective(eqx.Module):
    """Definition of the cumulative cost, and when a rollout is cut: after at most `steps` transitions.

    steps: largest number of transitions.
    gamma: discount factor.
    random_end: whether rollouts end with probability 1 - gamma at each step.
    counts_last: whether L(x_T) is part of the sum, as in V_T = L_T of (11). If not, the fitted value is used there.
    """

    steps: eqx.AbstractVar[int]
    gamma: eqx.AbstractVar[float]
    random_end: eqx.AbstractVar[bool]
    counts_last: eqx.AbstractVar[bool]

    @property
    def discount(self) -> float:
        """Factor from one step to the next in sampled sums: gamma, or 1 if random ends already account for it."""
        return 1.0 if self.random_end else self.gamma


def _positive(name: str, count: int, least: int = 1) -> None:
    if int(count) != count or count < least:
        raise DsoError(f"{name}: expected a whole number of at least {least}, got {count!r}.")


class Episodic(Objective):
    """J = E[V(x0)], V(x) = L(x) + gamma E[V(x')] (1-3): discounted with gamma < 1, first-exit with gamma = 1.

    random_end: end a rollout with probability 1 - gamma at each step, and omit the weights gamma^t.
    divergence_cost: the cost added to a rollout that blew up. Without it, divergence is reported as a failure.
    """

    gamma: float = eqx.field(static=True)
    steps: int = eqx.field(static=True)
    random_end: bool = eqx.field(static=True)
    divergence_cost: float | None = eqx.field(static=True)
    counts_last: bool = eqx.field(static=True)

    def __init__(
        self, gamma: float, steps: int, *, random_end: bool = False, divergence_cost: float | None = None
    ) -> None:
        if not 0.0 < gamma <= 1.0:
            raise DsoError(f"gamma: the discount must lie in (0, 1], got {gamma}. First-exit problems take gamma = 1.")
        if random_end and gamma == 1.0:
            raise DsoError(
                "random_end: ending with probability 1 - gamma needs gamma < 1; with gamma = 1 it never ends."
            )
        if divergence_cost is not None and not math.isfinite(divergence_cost):
            raise DsoError(f"divergence_cost: expected a finite number or None, got {divergence_cost}.")
        _positive("steps", steps)
        self.gamma, self.steps, self.counts_last = float(gamma), int(steps), False
        self.random_end, self.divergence_cost = bool(random_end), divergence_cost


class Average(Objective):
    """J = E_d[L] with the stationary density d (5-8). The value is the differential one, E_d[V] = 0.

    The first `burn_in` states are not used. The cost-to-go of a step is the sum of `window` costs minus their average, plus
    the fitted value at the end. Without a fitted value, the bias falls like the mixing rate to the power `window`.
    """

    steps: int = eqx.field(static=True)
    burn_in: int = eqx.field(static=True)
    window: int = eqx.field(static=True)
    gamma: float = eqx.field(static=True)
    random_end: bool = eqx.field(static=True)
    counts_last: bool = eqx.field(static=True)

    def __init__(self, steps: int, *, burn_in: int = 0, window: int = 1) -> None:
        _positive("steps", steps)
        _positive("burn_in", burn_in, 0)
        _positive("window", window, 0)
        if steps - burn_in - window < 1:
            raise DsoError(f"steps: must exceed burn_in + window = {burn_in + window}, got {steps}.")
        self.steps, self.burn_in, self.window = int(steps), int(burn_in), int(window)
        self.gamma, self.random_end, self.counts_last = 1.0, False, False


class TimeVarying(Objective):
    """J = E[V_0(x0)], V_t(x) = L_t(x) + E[V_{t+1}(x')], V_T = L_T with T = `steps` (9-11).

    L_t and P_t are those of `chain.at(t)`. A terminal state still ends the rollout.
    """

    steps: int = eqx.field(static=True)
    gamma: float = eqx.field(static=True)
    random_end: bool = eqx.field(static=True)
    counts_last: bool = eqx.field(static=True)

    def __init__(self, steps: int) -> None:
        _positive("steps", steps)
        self.steps, self.gamma, self.random_end, self.counts_last = int(steps), 1.0, False, True


def check_theta(theta: Any) -> None:
    """Raise DsoError unless `theta` is a flat NumPy or JAX array of floats."""
    if not hasattr(theta, "dtype") or not hasattr(theta, "ndim"):
        raise DsoError(
            f"theta: expected one flat vector of floats, got a {type(theta).__name__}; write jnp.asarray(theta, float)."
        )
    if theta.ndim != 1 or not jnp.issubdtype(theta.dtype, jnp.floating):
        cure = "jnp.ravel(theta)" if theta.ndim != 1 else "theta.astype(float)"
        raise DsoError(
            f"theta: expected one flat vector of floats, got shape {theta.shape}, type {theta.dtype}; write {cure}."
        )


class Problem(eqx.Module):
    """A chain and an objective that fit together. The constructor checks them. Every estimator takes a Problem.

    theta: an example parameter vector for the checks.
    axes: for domain randomisation. With `eqx.if_array(0)`, or a pytree of axes as for `eqx.filter_vmap`, the chain holds one
      chain per rollout along axis 0.
    """

    chain: Chain
    objective: Objective
    axes: object = eqx.field(static=True)

    def __init__(self, chain: Chain, objective: Objective, *, theta: Float[Array, " n"], axes: object = None) -> None:
        theta = jnp.asarray(theta)
        check_theta(theta)
        if not bool(jnp.all(jnp.isfinite(theta))):
            raise DsoError("theta: every entry must be finite.")
        self.chain, self.objective, self.axes = chain, objective, axes
        if axes is None:
            self._check_shapes(theta)
        self._check_end(theta)

    def _check_end(self, theta: Float[Array, " n"]) -> None:
        name = type(self.chain).__name__
        if isinstance(self.objective, Episodic) and self.objective.gamma == 1.0 and not self.chain.ends():
            raise DsoError(
                f"gamma: 1 needs terminal states that are reached with probability one, and {name} has none. Take "
                "gamma < 1, define terminal(state), or use Average or TimeVarying."
            )
        if isinstance(self.objective, Average) and self.chain.ends():
            raise DsoError(f"Average: an average cost needs an endless chain, and {name} declares terminal states.")
        self.chain.check(self.objective, theta)

    def _check_shapes(self, theta: Float[Array, " n"]) -> None:
        def visit(key: PRNGKeyArray) -> tuple:
            now = self.chain.at(0)
            state = self.chain.initial(key, theta)
            return state, now.step(key, state, theta), now.cost(state, theta)

        state, following, cost = eqx.filter_eval_shape(visit, jax.random.key(0))
        name = type(self.chain).__name__
        if cost.shape != ():
            raise DsoError(f"{name}.cost: expected a scalar, got shape {cost.shape}.")
        told = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype.name), (state, following))
        if jax.tree.structure(state) != jax.tree.structure(following) or told[0] != told[1]:
            raise DsoError(f"{name}.step: the next state must look like the initial one, {told[0]}, got {told[1]}.")


class Credit(eqx.Module):
    """Weights of the steps of one rollout. sum_t cost_weight L_t + move_weight log P_t A_t has the gradient of Algorithm 1.

    cost_weight: (T+1,) gamma^t where L(x_t) counts, else 0.
    move_weight: (T,) gamma^(t+1) where the rollout continued after the transition, else 0.
    returns: (T+1,) R_t.
    value: () estimate of J from this rollout.
    """

    cost_weight: Float[Array, " T+1"]
    move_weight: Float[Array, " T"]
    returns: Float[Array, " T+1"]
    value: Float[Array, ""]

    @property
    def to_go(self) -> Float[Array, " T"]:
        """(T,) cost-to-go R_{t+1}."""
        return self.returns[..., 1:]
