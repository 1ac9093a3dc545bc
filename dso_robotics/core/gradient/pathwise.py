"""The pathwise gradient: the derivative through the step, unrolled over a horizon and closed with a critic."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from dso_robotics.core.chain import State
from dso_robotics.core.gradient.estimate import Estimate, group_count, group_gradients, summarise, unpriced
from dso_robotics.core.objective import Average, Problem, check_theta
from dso_robotics.core.rollout import Ending, Trajectory, check_count, roll
from dso_robotics.core.value import Value, ValueGradient, ZeroValue
from dso_robotics.errors import DsoError


def horizon_of(problem: Problem, horizon: int | None) -> int:
    """The horizon in steps. None means the whole rollout (back-propagation through time)."""
    steps = problem.objective.steps
    horizon = steps if horizon is None else horizon
    if not 1 <= horizon <= steps:
        raise DsoError(f"horizon: expected 1 to {steps} steps (the rollout's), got {horizon}.")
    return horizon


def check_pathwise(problem: Problem, theta: Float[Array, " n"]) -> None:
    """Raise DsoError if the state has no floating-point part, because then no derivative passes between states."""
    state = eqx.filter_eval_shape(lambda t: problem.chain.initial(jax.random.key(0), t), theta)
    if not any(jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in jax.tree.leaves(state)):
        raise DsoError(
            f"The pathwise form does not exist on {type(problem.chain).__name__}: its states are integers, which do not "
            "move with theta under a fixed key. Use the score form."
        )


def pathwise_loss(
    key: PRNGKeyArray,
    problem: Problem,
    theta: Float[Array, " n"],
    *,
    horizon: int | Int[Array, ""],
    value: Value,
    start: State | None = None,
    checkpoint: int | None = None,
) -> tuple[Float[Array, ""], Trajectory]:
    """A function of theta for one rollout. Its gradient is the sum over windows of `horizon` steps of the derivative of

        gamma^t0 (sum_{k<H} gamma^k L(x_{t0+k}) + gamma^H V(x_{t0+H}))  with x_{t0} held constant.

    With H = 1 this is Corollary 2 with h = F. With H the whole rollout it is back-propagation through time. V is a fixed
    function: its derivative is taken in x only. The end of a rollout is assumed not to depend on theta. The rollout begins
    at `start` if it is given. A `horizon` that is an array may change without compiling anew.
    """
    objective = problem.objective
    first = objective.burn_in if isinstance(objective, Average) else 0

    def opens(time: Array) -> Bool[Array, ""]:
        return (time < first) | ((time - first) % horizon == 0) & (time > 0)

    whole = isinstance(horizon, int) and first == 0 and horizon >= objective.steps
    path, last = roll(key, problem, theta, start=start, cut=None if whole else opens, checkpoint=checkpoint)
    times = jnp.arange(objective.steps + 1)
    # The last cost of a rollout that ended by itself is its value there, so no critic is needed.
    if isinstance(objective, Average):
        closing_weight = jnp.full(times.shape, 1.0 / (objective.steps - first))
        weight = jnp.where((times >= first) & (times < objective.steps), closing_weight, 0.0)
    else:
        weight = closing_weight = objective.discount**times
    loss = weight @ path.costs
    if isinstance(value, ZeroValue):
        return loss, jax.lax.stop_gradient(path)
    if whole:
        closing = closing_weight[-1] * value.at(objective.steps).closing(last)
        closes = path.moved[-1] & ~(path.counted[-1] & (path.ending != Ending.RANDOM))
        return loss + jnp.where(closes, closing, 0.0), jax.lax.stop_gradient(path)
    closing = jax.vmap(lambda time, state: value.at(time).closing(state))(times, path.states)
    final = path.counted & ~jnp.append(path.moved, False) & (path.ending != Ending.RANDOM)
    arrived = jnp.insert(path.moved, 0, False) & (times > first)
    closes = arrived & (opens(times) | (times == objective.steps)) & ~final
    loss = loss + jnp.sum(jnp.where(closes, closing_weight * closing, 0.0))
    return loss, jax.lax.stop_gradient(path)


def pathwise(
    key: PRNGKeyArray,
    problem: Problem,
    theta: Float[Array, " n"],
    *,
    count: int,
    horizon: int | None = None,
    value: Value | None = None,
    entries: np.ndarray | None = None,
    checkpoint: int | None = None,
    groups: int | None = None,
) -> tuple[Estimate, Trajectory]:
    """The gradient of J through the simulator, with windows of `horizon` steps closed with `value` (a critic fitted before).

    It is unbiased if `horizon` covers a whole rollout that ends by itself, or if the critic is exact. Otherwise a longer
    horizon has less bias from the critic but more variance, which grows with the stiffness of the chain. `value` may be a
    `ValueGradient`. `checkpoint` sets how many steps apart the states stored for reverse mode are.
    """
    check_theta(theta)
    steps = horizon_of(problem, horizon)
    wanted = np.ones(theta.shape[0], bool) if entries is None else np.asarray(entries, bool)
    groups = group_count(check_count(count), theta.shape[0], groups)
    value = ZeroValue() if value is None else value
    return _pathwise(key, problem, theta, count, steps, value, wanted, checkpoint, groups)


@eqx.filter_jit
def _pathwise(
    key: PRNGKeyArray,
    problem: Problem,
    theta: Array,
    count: int,
    horizon: int,
    value: Value,
    entries: np.ndarray,
    checkpoint: int | None,
    groups: int,
) -> tuple[Estimate, Trajectory]:
    check_pathwise(problem, theta)

    def loss(part: Problem, at: Array, k: PRNGKeyArray) -> tuple[Float[Array, ""], Trajectory]:
        return pathwise_loss(k, part, at, horizon=horizon, value=value, checkpoint=checkpoint)

    gradients, path = group_gradients(loss, problem, theta, jax.random.split(key, count), groups=groups)
    values = jax.vmap(lambda rollout: _value(rollout, problem, value))(path)
    return summarise(values, gradients, unpriced(path, problem.objective), jnp.asarray(entries)), path


def _value(path: Trajectory, problem: Problem, value: Value) -> Float[Array, ""]:
    """The estimate of J from one rollout. A value-gradient critic has no value, so with it a cut end adds nothing."""
    objective = problem.objective
    if isinstance(objective, Average):
        return jnp.mean(path.costs[objective.burn_in : -1])
    total = objective.discount ** jnp.arange(objective.steps + 1) @ path.costs
    if isinstance(value, ValueGradient | ZeroValue):
        return total
    ahead = value.at(objective.steps)(jax.tree.map(lambda leaf: leaf[-1], path.states))
    return total + jnp.where(path.truncated, objective.discount**objective.steps * ahead, 0.0)
