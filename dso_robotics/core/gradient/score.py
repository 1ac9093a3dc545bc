"""Algorithm 1: the score-function gradient from a batch of rollouts, with the baseline V(F(x)) of equations (57-59)."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from dso_robotics.core.chain import Chain, State, covered
from dso_robotics.core.gradient.estimate import (
    Estimate,
    group_count,
    group_gradients,
    leave_one_out,
    summarise,
    unpriced,
)
from dso_robotics.core.objective import Average, Objective, Problem, check_theta
from dso_robotics.core.rollout import (
    Credit,
    Ending,
    Trajectory,
    batched,
    check_count,
    cost_along,
    credit,
    log_prob_along,
    rollouts,
)
from dso_robotics.core.value import Value, ZeroValue
from dso_robotics.errors import DsoError


class Baseline(eqx.Module):
    """b(x_t), subtracted from the cost-to-go R_{t+1}. It must not depend on x_{t+1}.

    `value` is also the bootstrap at cut ends.
    """

    value: eqx.AbstractVar[Value]

    @abc.abstractmethod
    def __call__(self, chain: Chain, value: Value, state: State, theta: Float[Array, " n"]) -> Float[Array, ""]:
        """b(x). `value` is the approximation of the *next* step's value."""


class NoBaseline(Baseline):
    """b = 0: plain REINFORCE on the chain."""

    value: Value = ZeroValue()

    def __call__(self, chain: Chain, value: Value, state: State, theta: Float[Array, " n"]) -> Float[Array, ""]:
        """Zero."""
        return jnp.zeros(())


class DriftBaseline(Baseline):
    """b(x) = V(F(x)), equation (58). It is close to V(x') if the noise is small compared with the drift."""

    value: Value

    def __call__(self, chain: Chain, value: Value, state: State, theta: Float[Array, " n"]) -> Float[Array, ""]:
        """V(F(x))."""
        return value(chain.drift(state, theta))


class StateBaseline(Baseline):
    """b(x) = V(x): for chains without a drift, and for comparison."""

    value: Value

    def __call__(self, chain: Chain, value: Value, state: State, theta: Float[Array, " n"]) -> Float[Array, ""]:
        """V(x)."""
        return value(state)


class Batch(eqx.Module):
    """Rollouts with their credit and advantages: the input of the gradient, the surrogate and the curvature.

    Arrays have a leading axis of rollouts.

    advantage: (N, T) A_t = R_{t+1} - b(x_t).
    start_advantage: (N,) the same for the initial density, if it depends on theta.
    """

    problem: Problem
    theta: Float[Array, " n"]
    trajectory: Trajectory
    credit: Credit
    advantage: Float[Array, "N T"]
    start_advantage: Float[Array, " N"]

    @property
    def count(self) -> int:
        """Number of rollouts."""
        return self.advantage.shape[0]


def advantages(
    problem: Problem, theta: Float[Array, " n"], trajectory: Trajectory, to_go: Float[Array, " T"], baseline: Baseline
) -> Float[Array, " T"]:
    """A_t = R_{t+1} - b(x_t) of one rollout, equation (59)."""
    times = jnp.arange(problem.objective.steps)
    before = jax.tree.map(lambda leaf: leaf[:-1], trajectory.states)

    def one(time: Array, state: State) -> Float[Array, ""]:
        return baseline(problem.chain.at(time), baseline.value.at(time + 1), state, theta)

    return to_go - jax.vmap(one)(times, before)


def lambda_to_go(trajectory: Trajectory, objective: Objective, value: Value, lam: float) -> Float[Array, " T"]:
    """(1 - lam) V(x_{t+1}) + lam G_{t+1} of one rollout, G_t = L_t + gamma ((1 - lam) V(x_{t+1}) + lam G_{t+1}).

    With lam = 1 it is R_{t+1}, with lam = 0 the fitted value of x_{t+1}. Less the baseline it is
    V(x_{t+1}) - b(x_t) + lam sum_k (gamma lam)^k delta_{t+1+k}, with delta_t = L_t + gamma V(x_{t+1}) - V(x_t): what
    generalised advantage estimation is for V(x), here for any baseline. A cost at the end is known, so it is V there.
    """
    times = jnp.arange(objective.steps + 1)
    values = jax.vmap(lambda time, state: value.at(time)(state))(times, trajectory.states)
    ended = trajectory.counted & ~jnp.append(trajectory.moved, False) & (trajectory.ending != Ending.RANDOM)
    values = jnp.where(ended, trajectory.costs, values)

    def back(following: Float[Array, ""], now: tuple) -> tuple:
        cost, moved, ahead = now
        mixed = (1.0 - lam) * ahead + lam * following
        return cost + objective.discount * jnp.where(moved, mixed, 0.0), mixed

    parts = (trajectory.costs[:-1], trajectory.moved, values[1:])
    return jax.lax.scan(back, values[-1], parts, reverse=True)[1]


def check_lambda(lam: float, objective: Objective) -> None:
    """Raise DsoError unless lam is from 0 to 1, and 1 for an average cost."""
    if not (isinstance(lam, int | float) and 0.0 <= lam <= 1.0):
        raise DsoError(f"lam: expected a number from 0 (values of the next state) to 1 (returns), got {lam!r}.")
    if lam != 1.0 and isinstance(objective, Average):
        raise DsoError(
            "lam: for an average cost `window` of Average says after how many steps the fitted value takes over; leave lam "
            "at 1."
        )


def assemble(
    problem: Problem, theta: Float[Array, " n"], trajectory: Trajectory, baseline: Baseline, lam: float = 1.0
) -> Batch:
    """The batch of given rollouts. No derivative passes through credit and advantages. lam: see `score`."""
    check_lambda(lam, problem.objective)
    average = jnp.zeros(trajectory.ending.shape)
    if isinstance(problem.objective, Average):
        used = trajectory.costs[:, problem.objective.burn_in : -1]
        average = leave_one_out(jnp.mean(used, axis=1))

    def one(part: Problem, rollout: Trajectory, mean: Float[Array, ""]) -> tuple[Credit, Float[Array, " T"]]:
        earned = credit(rollout, part.objective, baseline.value, average=mean)
        to_go = earned.to_go if lam == 1.0 else lambda_to_go(rollout, part.objective, baseline.value, lam)
        return earned, advantages(part, theta, rollout, to_go, baseline)

    earned, advantage = batched(problem, one, trajectory, average)
    start = jnp.zeros_like(average)
    if not isinstance(problem.objective, Average):
        start = earned.returns[:, 0] - leave_one_out(earned.returns[:, 0])
    made = Batch(problem, theta, trajectory, earned, advantage, start)
    return jax.tree.map(lambda leaf: jax.lax.stop_gradient(leaf) if eqx.is_inexact_array(leaf) else leaf, made)


def score_loss(
    problem: Problem,
    theta: Float[Array, " n"],
    trajectory: Trajectory,
    earned: Credit,
    advantage: Float[Array, " T"],
    start_advantage: Float[Array, ""],
) -> Float[Array, ""]:
    """A function of theta whose gradient is one rollout's term of Algorithm 1, step 3 (Theorem 3 if time varies)."""
    costs = jnp.where(trajectory.counted, cost_along(problem, theta, trajectory.states), 0.0)
    logs = log_prob_along(problem, theta, trajectory)
    loss = earned.cost_weight @ costs + (earned.move_weight * advantage) @ logs
    if type(problem.chain).log_initial is not Chain.log_initial:
        first = jax.tree.map(lambda leaf: leaf[0], trajectory.states)
        loss = loss + start_advantage * problem.chain.log_initial(first, theta)
    return loss


def batch_gradient(batch: Batch, *, entries: Bool[Array, " n"], groups: int) -> Estimate:
    """Algorithm 1, step 3, on a given batch: the mean of `groups` group gradients and its standard error."""

    def loss(problem: Problem, theta: Float[Array, " n"], *parts: Any) -> tuple[Float[Array, ""], None]:
        return score_loss(problem, theta, *parts), None

    parts = (batch.trajectory, batch.credit, batch.advantage, batch.start_advantage)
    gradients, _ = group_gradients(loss, batch.problem, batch.theta, *parts, groups=groups)
    failed = unpriced(batch.trajectory, batch.problem.objective)
    return summarise(batch.credit.value, gradients, failed, entries)


def sample_batch(
    key: PRNGKeyArray,
    problem: Problem,
    theta: Float[Array, " n"],
    *,
    count: int,
    baseline: Baseline | None = None,
    lam: float = 1.0,
) -> Batch:
    """Steps 1 and 2 of Algorithm 1: `count` rollouts with returns and advantages."""
    trajectory = rollouts(key, problem, theta, count=count)
    return assemble(problem, theta, trajectory, NoBaseline() if baseline is None else baseline, lam)


@eqx.filter_jit
def _score(
    key: PRNGKeyArray,
    problem: Problem,
    theta: Array,
    count: int,
    baseline: Baseline,
    lam: float,
    entries: np.ndarray,
    groups: int,
) -> tuple[Estimate, Batch]:
    batch = sample_batch(key, problem, theta, count=count, baseline=baseline, lam=lam)
    return batch_gradient(batch, entries=jnp.asarray(entries), groups=groups), batch


def score(
    key: PRNGKeyArray,
    problem: Problem,
    theta: Float[Array, " n"],
    *,
    count: int,
    baseline: Baseline | None = None,
    lam: float = 1.0,
    entries: np.ndarray | None = None,
    groups: int | None = None,
) -> tuple[Estimate, Batch]:
    """Algorithm 1: an unbiased gradient of J (Corollary 1 (32), Theorem 3 (35)) from `count` rollouts.

    lam: below 1 the fitted value takes the place of costs far ahead (see `lambda_to_go`). There is less variance, and no
      bias only where the value is exact. It needs a baseline with a value.

    Returns the estimate and the batch. The value is refitted to the batch (`fitting.py`) for the *next* gradient. `entries`
    restricts the gradient to parameters that have a score; other entries raise DsoError.
    """
    check_theta(theta)
    wanted = covered(problem.chain, theta, entries)
    groups = group_count(check_count(count), theta.shape[0], groups)
    baseline = NoBaseline() if baseline is None else baseline
    check_lambda(lam, problem.objective)
    if lam < 1.0 and isinstance(baseline.value, ZeroValue):
        raise DsoError(
            f"lam: {lam} needs a fitted value for what lies ahead; give a baseline with a value, or lam = 1."
        )
    return _score(key, problem, theta, count, baseline, lam, wanted, groups)
