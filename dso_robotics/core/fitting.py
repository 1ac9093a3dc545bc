"""Fitting value approximations to rollouts: TD(lambda), from Bellman errors (0) to empirical returns (1), and dV/dx."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from dso_robotics.core.chain import State
from dso_robotics.core.objective import Average, Objective, Problem
from dso_robotics.core.rollout import Ending, Trajectory
from dso_robotics.core.value import LinearValue, NetworkValue, TimeVaryingValue, Value, ValueGradient
from dso_robotics.errors import DsoError


def _check_lambda(lam: float) -> None:
    if not 0.0 <= lam <= 1.0:
        raise DsoError(f"lam: TD(lambda) takes 0 (Bellman errors) to 1 (returns), got {lam}.")


def usable_states(trajectory: Trajectory) -> Bool[Array, " T+1"]:
    """The states of one rollout used for fitting: visited, with a cost that counts, and not blown up."""
    last = trajectory.counted & ~jnp.concatenate([trajectory.moved, jnp.zeros(1, bool)])
    return trajectory.counted & ~(last & (trajectory.ending == Ending.DIVERGED))


def lambda_returns(
    trajectory: Trajectory,
    objective: Objective,
    value: Value,
    *,
    lam: float = 1.0,
    average: Float[Array, ""] | float = 0.0,
) -> Float[Array, " T+1"]:
    """Targets G_t = L_t + gamma ((1 - lam) V(x_{t+1}) + lam G_{t+1}) of one rollout. `average` is J, for average costs."""
    _check_lambda(lam)
    times = jnp.arange(objective.steps + 1)
    values = jax.vmap(lambda time, state: value.at(time)(state))(times, trajectory.states)
    values = jnp.where(usable_states(trajectory), values, trajectory.costs)
    values = values.at[-1].set(
        jnp.where(trajectory.truncated, value.at(times[-1])(_last(trajectory)), trajectory.costs[-1])
    )

    def back(following: Float[Array, ""], now: tuple) -> tuple:
        cost, moved, ahead = now
        target = cost + objective.discount * jnp.where(moved, (1.0 - lam) * ahead + lam * following, 0.0)
        return target, target

    costs = trajectory.costs[:-1] - average
    _, targets = jax.lax.scan(back, values[-1], (costs, trajectory.moved, values[1:]), reverse=True)
    return jnp.concatenate([targets, values[-1:]])


def _last(trajectory: Trajectory) -> State:
    return jax.tree.map(lambda leaf: leaf[-1], trajectory.states)


def bellman_errors(trajectory: Trajectory, objective: Objective, value: Value) -> Float[Array, " T"]:
    """L(x_t) + gamma V(x_{t+1}) - V(x_t) of one rollout, 0 after its end."""
    times = jnp.arange(objective.steps + 1)
    values = jax.vmap(lambda time, state: value.at(time)(state))(times, trajectory.states)
    targets = lambda_returns(trajectory, objective, value, lam=0.0)
    return jnp.where(usable_states(trajectory), targets - values, 0.0)[:-1]


def fit_linear(
    value: LinearValue, trajectories: Trajectory, objective: Objective, *, lam: float = 1.0, ridge: float = 1e-8
) -> LinearValue:
    """Least-squares TD(lambda) on N rollouts: w solves sum_t e_t (phi_t - gamma phi_{t+1})^T w = sum_t e_t L_t.

    The traces are e_t = phi_t + gamma lam e_{t-1}. lam = 0 sets the projected Bellman errors to zero. lam = 1 is the
    regression on returns. `ridge` is relative to the mean diagonal of the features' second moment.
    """
    _check_lambda(lam)
    average = jnp.mean(trajectories.costs[:, :-1]) if isinstance(objective, Average) else 0.0

    def one(trajectory: Trajectory) -> tuple[Float[Array, "k k"], Float[Array, " k"], Float[Array, "k k"]]:
        phi = jax.vmap(value.features)(trajectory.states)
        usable = usable_states(trajectory)
        moved = jnp.concatenate([trajectory.moved, jnp.zeros(1, bool)])
        ahead = jnp.where(moved[:, None], jnp.roll(phi, -1, axis=0), 0.0)
        into = jnp.roll(usable, -1).at[-1].set(False) | (
            trajectory.truncated & (jnp.arange(moved.size) == moved.size - 2)
        )
        ahead = jnp.where((into & moved)[:, None], ahead, 0.0)  # 0 at a blown-up state: the cost has its charge
        charge = jnp.where(moved & ~into, jnp.roll(trajectory.costs, -1), 0.0)
        cost = trajectory.costs - average + objective.discount * charge

        def trace(past: Float[Array, " k"], now: tuple) -> tuple:
            here, continues = now
            return objective.discount * lam * continues * (past + here), past + here

        _, traces = jax.lax.scan(trace, jnp.zeros_like(phi[0]), (phi, moved.astype(phi.dtype)))
        traces = jnp.where(usable[:, None], traces, 0.0)
        matrix = traces.T @ (phi - objective.discount * ahead)
        return matrix, traces.T @ jnp.where(usable, cost, 0.0), jnp.where(usable[:, None], phi, 0.0).T @ phi

    matrix, right, moment = (jnp.sum(part, axis=0) for part in jax.vmap(one)(trajectories))
    size = ridge * jnp.trace(moment) / moment.shape[0]
    weights = jnp.linalg.solve(matrix + size * jnp.eye(moment.shape[0]), right)
    return LinearValue(value.features, weights)


def fit_network(
    key: PRNGKeyArray,
    value: NetworkValue,
    trajectories: Trajectory,
    *,
    objective: Objective,
    lam: float = 1.0,
    rounds: int = 1,
    updates: int = 200,
    minibatch: int = 256,
    optimiser: optax.GradientTransformation | None = None,
) -> NetworkValue:
    """Regression of a network on TD(lambda) targets, which are recomputed with the new network in each of `rounds`.

    With lam = 1 one round is enough. With lam < 1 the targets contain the value itself, so several rounds are needed.
    """
    optimiser = optax.adam(3e-3) if optimiser is None else optimiser
    average = jnp.mean(trajectories.costs[:, :-1]) if isinstance(objective, Average) else 0.0
    usable = jax.vmap(usable_states)(trajectories).reshape(-1)
    states = jax.tree.map(lambda leaf: leaf.reshape((-1, *leaf.shape[2:])), trajectories.states)
    weights = usable / jnp.sum(usable)

    def one_round(current: NetworkValue, round_key: PRNGKeyArray) -> tuple[NetworkValue, None]:
        targets = jax.vmap(lambda path: lambda_returns(path, objective, current, lam=lam, average=average))(
            trajectories
        )
        targets = targets.reshape(-1)
        mean = weights @ targets
        spread = jnp.sqrt(weights @ (targets - mean) ** 2) + 1e-12
        start = eqx.tree_at(lambda v: (v.offset, v.scale), current, (mean, spread))
        return _regress(round_key, start, states, targets, weights, updates, minibatch, optimiser), None

    arrays, static = eqx.partition(value, eqx.is_array)

    def body(carry: Any, round_key: PRNGKeyArray) -> tuple[Any, None]:
        fitted, _ = one_round(eqx.combine(carry, static), round_key)
        return eqx.filter(fitted, eqx.is_array), None

    arrays, _ = jax.lax.scan(body, arrays, jax.random.split(key, rounds))
    return eqx.combine(arrays, static)


def _regress(
    key: PRNGKeyArray,
    model: Any,
    states: State,
    targets: Array,
    weights: Array,
    updates: int,
    minibatch: int,
    optimiser: Any,
) -> Any:
    """Adam on the squared error, relative to `model.scale`, with minibatches drawn by weight."""
    mask = jax.tree.map(eqx.is_inexact_array, model)
    if isinstance(model, NetworkValue):
        mask = eqx.tree_at(lambda v: (v.offset, v.scale), mask, (False, False))
    free, fixed = eqx.partition(model, mask)
    scale = model.scale if isinstance(model, NetworkValue) else jnp.sqrt(jnp.mean(targets**2)) + 1e-12

    def loss(parameters: Any, index: Array) -> Float[Array, ""]:
        fitted = eqx.combine(parameters, fixed)
        chosen = jax.tree.map(lambda leaf: leaf[index], states)
        return jnp.mean(((jax.vmap(fitted)(chosen) - targets[index]) / scale) ** 2)

    def update(carry: tuple, step_key: PRNGKeyArray) -> tuple[tuple, None]:
        parameters, state = carry
        index = jax.random.choice(step_key, targets.shape[0], (minibatch,), p=weights)
        change, state = optimiser.update(jax.grad(loss)(parameters, index), state, parameters)
        return (eqx.apply_updates(parameters, change), state), None

    (free, _), _ = jax.lax.scan(update, (free, optimiser.init(free)), jax.random.split(key, updates))
    return eqx.combine(free, fixed)


def fit_time_varying(
    value: TimeVaryingValue, trajectories: Trajectory, objective: Objective, *, lam: float = 1.0, ridge: float = 1e-8
) -> TimeVaryingValue:
    """One regression for each time, from the last to the first, on G_t = L_t + (1 - lam) V_{t+1}(x_{t+1}) + lam G_{t+1}."""
    _check_lambda(lam)
    if not isinstance(value.stacked, LinearValue):
        raise DsoError(
            "fit_time_varying: expected a TimeVaryingValue of LinearValue, as repeated(linear_value(...), T) makes."
        )
    features = value.stacked.features
    phi = jax.vmap(jax.vmap(features))(trajectories.states)
    usable = jax.vmap(usable_states)(trajectories)
    moved = jnp.concatenate([trajectories.moved, jnp.zeros_like(trajectories.moved[:, :1])], axis=1)

    def back(following: tuple, now: tuple) -> tuple:
        target, fitted = following
        cost, goes, here, use = now
        target = cost + objective.discount * jnp.where(goes, (1.0 - lam) * fitted + lam * target, 0.0)
        weights = ridge_solve(jnp.where(use[:, None], here, 0.0), jnp.where(use, target, 0.0), ridge)
        return (target, jnp.where(use, here @ weights, cost)), weights

    rows = jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), (trajectories.costs, moved, phi, usable))
    zeros = jnp.zeros_like(trajectories.costs[:, 0])
    _, weights = jax.lax.scan(back, (zeros, zeros), rows, reverse=True)
    return TimeVaryingValue(LinearValue(features, weights))


def ridge_solve(phi: Float[Array, "N k"], targets: Float[Array, "N *m"], ridge: float) -> Float[Array, "k *m"]:
    """argmin |phi w - targets|^2 + ridge tr(phi^T phi) / k |w|^2. It is zero if all features are zero."""
    moment = phi.T @ phi
    size = ridge * jnp.trace(moment) / moment.shape[0] + jnp.finfo(phi.dtype).tiny
    return jnp.linalg.solve(moment + size * jnp.eye(moment.shape[0]), phi.T @ targets)


class LinearSlope(eqx.Module):
    """z(x) = W phi(x), the slope of a `ValueGradient`. For a quadratic value, phi = (1, x)."""

    features: Callable[[State], Float[Array, " k"]]
    weights: Float[Array, "k nx"]

    def __call__(self, state: Float[Array, " nx"]) -> Float[Array, " nx"]:
        """W phi(x)."""
        return self.features(state) @ self.weights


def value_gradient_targets(
    key: PRNGKeyArray,
    problem: Problem,
    theta: Float[Array, " n"],
    *,
    states: Float[Array, "M nx"],
    horizon: int,
    critic: Value,
) -> Float[Array, "M nx"]:
    """d/dx { sum_{k<H} gamma^k L(x_k) + gamma^H V(x_H) } from each given x = x_0 with new noise: unbiased for dV/dx.

    `critic` closes the horizon. It is any value, or the current `ValueGradient`, which makes this TD on gradients.
    """
    chain, gamma = problem.chain, problem.objective.gamma

    def ahead(start: Float[Array, " nx"], noise: PRNGKeyArray) -> Float[Array, ""]:
        def body(carry: tuple, step_key: PRNGKeyArray) -> tuple[tuple, None]:
            state, total, weight = carry
            total = total + weight * chain.cost(state, theta)
            ended = chain.terminal(state)
            weight = jnp.where(ended, 0.0, gamma * weight)
            following = chain.step(step_key, state, theta)
            return (jnp.where(ended, state, following), total, weight), None

        carry = (start, jnp.zeros(()), jnp.ones(()))
        (state, total, weight), _ = jax.lax.scan(body, carry, jax.random.split(noise, horizon))
        return total + weight * critic.closing(state)

    return jax.vmap(jax.grad(ahead))(states, jax.random.split(key, states.shape[0]))


def fit_slope(
    features: Callable[[State], Float[Array, " k"]],
    states: Float[Array, "M nx"],
    targets: Float[Array, "M nx"],
    *,
    ridge: float = 1e-8,
) -> ValueGradient:
    """The value-gradient critic with a slope linear in `features`, fitted by regression on its targets."""
    return ValueGradient(LinearSlope(features, ridge_solve(jax.vmap(features)(states), targets, ridge)))


class SmoothedSlope(eqx.Module):
    """z(x, rho) = W phi(x, rho), close to dV/dx of the chain smoothed by rho: one critic for a whole annealing.

    features: state (nx,) and rho () -> (k,).
    """

    features: Callable[[Float[Array, " nx"], Float[Array, ""]], Float[Array, " k"]]
    weights: Float[Array, "k nx"]

    def at(self, rho: Float[Array, ""] | float) -> ValueGradient:
        """The critic of one level of smoothing."""
        level = jnp.asarray(rho)
        return ValueGradient(lambda state: self.features(state, level) @ self.weights)


def fit_smoothed_slope(
    features: Callable[[Float[Array, " nx"], Float[Array, ""]], Float[Array, " k"]],
    states: Float[Array, "M nx"],
    levels: Float[Array, " M"],
    targets: Float[Array, "M nx"],
    *,
    ridge: float = 1e-8,
) -> SmoothedSlope:
    """The critic conditioned on smoothing, by regression on `value_gradient_targets` of chains smoothed by `levels`."""
    return SmoothedSlope(features, ridge_solve(jax.vmap(features)(states, levels), targets, ridge))
