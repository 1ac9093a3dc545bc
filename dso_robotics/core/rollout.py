"""Rollouts: one scan, ended by time, a terminal state, divergence or at random; and the credit of their steps."""

import enum
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from dso_robotics.core import devices
from dso_robotics.core.chain import State
from dso_robotics.core.objective import Average, Credit, Objective, Problem
from dso_robotics.core.value import Value
from dso_robotics.errors import DsoError


class Ending(enum.IntEnum):
    """Why a rollout ended."""

    TIME = 0
    TERMINAL = 1
    DIVERGED = 2
    RANDOM = 3


class Trajectory(eqx.Module):
    """One rollout of T transitions. After its end the last state is repeated, and nothing counts.

    states: leaves (T+1, ...).
    costs: (T+1,) L(x_t), 0 where it does not count.
    counted: (T+1,) whether L(x_t) counts.
    moved: (T,) whether transition t took place. With random ends: whether the rollout continued after it.
    ending: an `Ending`.
    """

    states: State
    costs: Float[Array, " T+1"]
    counted: Bool[Array, " T+1"]
    moved: Bool[Array, " T"]
    ending: Int[Array, ""]

    @property
    def truncated(self) -> Bool[Array, ""]:
        """Whether the rollout was cut at a state whose own cost does not count. It then needs a bootstrap."""
        return (self.ending == Ending.TIME) & ~self.counted[..., -1]


def scan_steps(body: Any, carry: Any, inputs: Any, *, length: int, checkpoint: int | None) -> Any:
    """`jax.lax.scan` with optional checkpointing: reverse mode stores the carry only once every `checkpoint` steps.

    Memory falls from `length` states to length / checkpoint + checkpoint states. The price is one more forward pass.
    """
    if checkpoint is None or checkpoint >= length:
        return jax.lax.scan(body, carry, inputs, length=length)
    whole = length // checkpoint * checkpoint
    split = jax.tree.map(lambda leaf: leaf[:whole].reshape((whole // checkpoint, checkpoint, *leaf.shape[1:])), inputs)
    rest = jax.tree.map(lambda leaf: leaf[whole:], inputs)
    segment = jax.checkpoint(lambda state, chunk: jax.lax.scan(body, state, chunk))
    carry, outputs = jax.lax.scan(segment, carry, split)
    outputs = jax.tree.map(lambda leaf: leaf.reshape((whole, *leaf.shape[2:])), outputs)
    if whole == length:
        return carry, outputs
    carry, last = jax.checkpoint(lambda state, chunk: jax.lax.scan(body, state, chunk))(carry, rest)
    return carry, jax.tree.map(lambda head, tail: jnp.concatenate([head, tail]), outputs, last)


def rollout(
    key: PRNGKeyArray,
    problem: Problem,
    theta: Float[Array, " n"],
    *,
    start: State | None = None,
    cut: Any = None,
    checkpoint: int | None = None,
) -> Trajectory:
    """One rollout, from `start` if it is given. It is differentiable in theta for a fixed key if the chain is.

    `cut(t)`, if given, says where the derivative of the state is stopped (windows of the pathwise estimator). The returned
    states still have the derivative of the step that led to them.
    """
    return roll(key, problem, theta, start=start, cut=cut, checkpoint=checkpoint)[0]


def roll(
    key: PRNGKeyArray,
    problem: Problem,
    theta: Float[Array, " n"],
    *,
    start: State | None = None,
    cut: Any = None,
    checkpoint: int | None = None,
) -> tuple[Trajectory, State]:
    """`rollout`, which also returns its last state as carried by the scan.

    Differentiating that state is cheaper: reverse mode then does not sweep over all stored states.
    """
    start_key, move_key = jax.random.split(key)
    if start is None:
        start = problem.chain.initial(start_key, theta)
    kind = _timed if only_time_ends(problem) else _watched
    return kind(move_key, problem, theta, start, cut=cut, checkpoint=checkpoint)


def only_time_ends(problem: Problem) -> bool:
    """Whether time is the only thing that ends a rollout. A blow-up without a price counts as a failure, not as an end."""
    priced = getattr(problem.objective, "divergence_cost", None) is not None
    return not (problem.chain.may_end() or problem.objective.random_end or priced)


def _timed(
    key: PRNGKeyArray, problem: Problem, theta: Float[Array, " n"], start: State, *, cut: Any, checkpoint: int | None
) -> tuple[Trajectory, State]:
    """A rollout that only time ends: a plain scan. Blow-ups, which have no price here, are detected afterwards.

    After a blow-up the states have no derivative. The derivative of such a rollout is not used.
    """
    chain, steps = problem.chain, problem.objective.steps

    def body(state: State, inputs: tuple) -> tuple:
        time, noise = inputs
        here = state
        if cut is not None:
            state = jax.tree.map(lambda leaf: jnp.where(cut(time), jax.lax.stop_gradient(leaf), leaf), state)
        # Computed together with the step, because the cost may use the same policy output.
        cost = chain.at(time).cost(state, theta)
        following = chain.at(time).move(noise, state, theta)
        return following, (here, cost)

    inputs = (jnp.arange(steps), chain.draw(key, theta, steps))
    last, (states, costs) = scan_steps(body, start, inputs, length=steps, checkpoint=checkpoint)
    states = jax.tree.map(lambda head, end: jnp.concatenate([head, end[None]]), states, last)
    final = chain.at(steps).cost(last, theta) if problem.objective.counts_last else jnp.zeros((), costs.dtype)
    return settled(problem, states, jnp.append(costs, final)), last


def settled(problem: Problem, states: State, costs: Float[Array, " T+1"]) -> Trajectory:
    """The trajectory with the given states (T+1, ...), from any source. Only time or a blow-up ends it.

    After a blow-up the states have no derivative and no cost counts.
    """
    chain, steps = problem.chain, problem.objective.steps
    times = jnp.arange(steps + 1)
    first = jnp.min(jnp.where(jax.vmap(chain.diverged)(states), times, steps + 1))

    def repeat_last(leaf: Array) -> Array:
        old = leaf[jnp.clip(first - 1, 0, steps)]
        kept = jax.lax.stop_gradient(_kept(leaf[jnp.minimum(first, steps)], old, first > 0))
        return jnp.where((times >= first).reshape((-1,) + (1,) * (leaf.ndim - 1)), kept, leaf)

    counted = (times <= first) & ((times < steps) | (first == steps) | problem.objective.counts_last)
    return Trajectory(
        states=jax.tree.map(repeat_last, states),
        costs=jnp.where(times < first, costs, 0.0),
        counted=counted,
        moved=times[:-1] < first,
        ending=jnp.where(first > steps, Ending.TIME, Ending.DIVERGED),
    )


def _watched(
    key: PRNGKeyArray, problem: Problem, theta: Float[Array, " n"], start: State, *, cut: Any, checkpoint: int | None
) -> tuple[Trajectory, State]:
    """A rollout that may end early. The scan itself tracks whether it has ended."""
    chain, objective = problem.chain, problem.objective
    endless = not chain.may_end()
    no = jnp.zeros((), bool)

    def body(carry: tuple, inputs: tuple) -> tuple:
        state, running = carry
        time, noise, survives = inputs
        if cut is not None:
            # The state at which the rollout ended is not cut: its cost belongs to the window that led to it.
            held = cut(time) & running
            state = jax.tree.map(lambda leaf: jnp.where(held, jax.lax.stop_gradient(leaf), leaf), state)
        # Computed together with the step, because the cost may use the same policy output.
        cost = chain.at(time).cost(state, theta)
        moved = running & survives
        following = chain.at(time).move(noise, state, theta)
        diverged = moved & chain.diverged(following)
        following = jax.tree.map(lambda new, old: _kept(new, old, moved), following, state)
        ended = no if endless else moved & ~diverged & chain.at(time + 1).terminal(following)
        return (following, moved & ~diverged & ~ended), (following, cost, moved, diverged, ended)

    blown = chain.diverged(start)
    ended = no if endless else chain.at(0).terminal(start) & ~blown
    times = jnp.arange(objective.steps)
    survives = jnp.ones(objective.steps, bool)
    if objective.random_end:
        key, end_key = jax.random.split(key)
        survives = jax.random.bernoulli(end_key, objective.gamma, (objective.steps,))
    noise = chain.draw(key, theta, objective.steps)
    (last, running), (states, costs, moved, diverged, ends) = scan_steps(
        body, (start, ~blown & ~ended), (times, noise, survives), length=objective.steps, checkpoint=checkpoint
    )
    states = jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), start, states)
    counted = jnp.concatenate([jnp.ones(1, bool), moved])
    if not objective.counts_last:
        counted = counted.at[-1].set(counted[-1] & (diverged[-1] | ends[-1]))
    ending = jnp.where(running, Ending.TIME, Ending.RANDOM)
    ending = jnp.where(ended | jnp.any(ends), Ending.TERMINAL, ending)
    ending = jnp.where(blown | jnp.any(diverged), Ending.DIVERGED, ending)
    costs = jnp.append(costs, chain.at(objective.steps).cost(last, theta))
    charge = getattr(objective, "divergence_cost", None) or 0.0
    costs = jnp.where(jnp.concatenate([blown[None], diverged]), charge, costs)
    return Trajectory(states, jnp.where(counted, costs, 0.0), counted, moved, ending), last


def _kept(new: Array, old: Array, moved: Bool[Array, ""]) -> Array:
    """The next state, or the last one after the end.

    After a blow-up, the finite entries of the new state (such as the action) are kept, so that its log_prob stays defined.
    """
    return jnp.where(moved & jnp.isfinite(new) if jnp.issubdtype(new.dtype, jnp.inexact) else moved, new, old)


def cost_along(problem: Problem, theta: Float[Array, " n"], states: State) -> Float[Array, " T+1"]:
    """L_t(x_t, theta) at every state of a rollout. The last one is 0 if it can never count."""
    steps = problem.objective.steps
    # The last state is handled separately. The others are the same as in `log_prob_along`, so the compiler evaluates their
    # policy only once.
    before = jax.tree.map(lambda leaf: leaf[:-1], states)
    costs = jax.vmap(lambda time, state: problem.chain.at(time).cost(state, theta))(jnp.arange(steps), before)
    if only_time_ends(problem) and not problem.objective.counts_last:
        return jnp.append(costs, jnp.zeros((), costs.dtype))
    last = jax.tree.map(lambda leaf: leaf[-1], states)
    return jnp.append(costs, problem.chain.at(steps).cost(last, theta))


def log_prob_along(problem: Problem, theta: Float[Array, " n"], trajectory: Trajectory) -> Float[Array, " T"]:
    """log P_t(x_{t+1}|x_t, theta) of the transitions that took place, 0 for the others."""
    times = jnp.arange(problem.objective.steps)
    before = jax.tree.map(lambda leaf: leaf[:-1], trajectory.states)
    after = jax.tree.map(lambda leaf: leaf[1:], trajectory.states)

    def one(time: Any, following: State, state: State) -> Float[Array, ""]:
        return problem.chain.at(time).log_prob(following, state, theta)

    return jnp.where(trajectory.moved, jax.vmap(one)(times, after, before), 0.0)


def rollouts(
    key: PRNGKeyArray, problem: Problem, theta: Float[Array, " n"], *, count: int, checkpoint: int | None = None
) -> Trajectory:
    """`count` independent rollouts, stacked along axis 0."""
    keys = jax.random.split(key, check_count(count))
    return batched(problem, lambda one, k: rollout(k, one, theta, checkpoint=checkpoint), keys)


def check_count(count: int) -> int:
    """Return `count` as a positive whole number. Raises DsoError if it is not one."""
    if int(count) != count or count < 1:
        raise DsoError(f"count: expected a positive number of rollouts, got {count!r}.")
    return int(count)


def batched(problem: Problem, function: Any, *batch: Any, shared: Any = None) -> Any:
    """`vmap` of function(problem, *items) over rollouts. If the problem is randomised, each rollout has its own chain.

    shared: if given, function(problem, shared, *items). What the function differentiates by must be in it or in the batch.
    """

    def call(chain: Any, common: Any, *items: Any) -> Any:
        here = eqx.tree_at(lambda p: p.chain, problem, chain)
        return function(here, *items) if shared is None else function(here, common, *items)

    every = eqx.filter_vmap(call, in_axes=(problem.axes, None) + (eqx.if_array(0),) * len(batch))
    if problem.axes is not None:
        return every(problem.chain, shared, *batch)
    return devices.spread(lambda common, *mine: every(*common, *mine), (problem.chain, shared), *batch)


def credit(
    trajectory: Trajectory, objective: Objective, value: Value, *, average: Float[Array, ""] | float = 0.0
) -> Credit:
    """Steps 1-2 of Algorithm 1 for one rollout: the returns R_t = L_t + gamma R_{t+1} and the weights of every step.

    `average` is J, used only for the average cost. It must come from other rollouts.
    """
    if isinstance(objective, Average):
        return _windowed(trajectory, objective, value, average)
    steps, factor = objective.steps, objective.discount
    last = jax.tree.map(lambda leaf: leaf[-1], trajectory.states)
    bootstrap = jnp.where(trajectory.truncated, value.at(steps)(last), trajectory.costs[-1])

    def back(following: Float[Array, ""], now: tuple) -> tuple:
        cost, moved = now
        total = cost + factor * jnp.where(moved, following, 0.0)
        return total, total

    _, returns = jax.lax.scan(back, bootstrap, (trajectory.costs[:-1], trajectory.moved), reverse=True)
    returns = jnp.concatenate([returns, bootstrap[None]])
    powers = factor ** jnp.arange(steps + 1)
    cost_weight = jnp.where(trajectory.counted, powers, 0.0)
    move_weight = jnp.where(trajectory.moved, powers[1:], 0.0)
    return Credit(cost_weight, move_weight, returns, returns[0])


def _windowed(trajectory: Trajectory, objective: Average, value: Value, average: Any) -> Credit:
    steps, window, first = objective.steps, objective.window, objective.burn_in
    used = steps - window - first
    times = jnp.arange(steps + 1)
    inside = (times >= first) & (times < first + used)
    sums = jnp.concatenate(
        [jnp.zeros(1), jnp.cumsum(trajectory.costs[:-1] - average)]
    )  # sums[t]: sum of the first t costs
    closing = jax.vmap(value)(trajectory.states)
    ends = jnp.minimum(times + window, steps)
    returns = sums[ends] - sums + closing[ends]
    weight = jnp.where(inside, 1.0 / used, 0.0)
    return Credit(weight, weight[:-1], returns, jnp.sum(weight * trajectory.costs))
