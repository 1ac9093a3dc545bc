"""What every gradient estimator returns, and how samples from rollouts become a mean with a standard error."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from dso_robotics.core import devices
from dso_robotics.core.objective import Episodic, Objective, Problem
from dso_robotics.core.rollout import Ending, Trajectory, batched
from dso_robotics.errors import DsoError


class Estimate(eqx.Module):
    """Value and gradient of J, with their uncertainty.

    value, value_error: () J and its standard error.
    gradient, standard_error: (n,) the gradient and its standard error.
    samples: number of rollouts.
    diverged: number of rollouts that blew up without a price, or whose derivative was not finite. They are left out.
    entries: (n,) which entries of the gradient were requested. The others are 0.
    """

    value: Float[Array, ""]
    gradient: Float[Array, " n"]
    standard_error: Float[Array, " n"]
    value_error: Float[Array, ""]
    samples: Int[Array, ""]
    diverged: Int[Array, ""]
    entries: Bool[Array, " n"]

    @property
    def usable(self) -> Bool[Array, ""]:
        """Whether no rollout was left out and every number is finite."""
        finite = jnp.isfinite(self.value) & jnp.all(jnp.isfinite(self.gradient))
        return finite & (self.diverged == 0)


def standard_error(samples: Float[Array, "m *shape"]) -> Float[Array, " *shape"]:
    """Standard error of the mean of independent samples along axis 0. It is infinite for a single sample."""
    count = samples.shape[0]
    if count < 2:
        return jnp.full(samples.shape[1:], jnp.inf)
    return jnp.std(samples, axis=0, ddof=1) / jnp.sqrt(count)


def group_count(count: int, size: int, groups: int | None) -> int:
    """Number of groups of rollouts with separate gradients, used for the standard error.

    For few parameters, every rollout is its own group. For many, separate gradients cost more than the gradient itself, so
    the number is the largest divisor of `count` up to 16.
    """
    if groups is None:
        groups = count if size <= 16 else next(g for g in range(min(16, count), 0, -1) if count % g == 0)
        groups = count if groups < min(8, count) else groups
    if groups < 1 or count % groups:
        raise DsoError(f"groups: expected a divisor of the {count} rollouts, got {groups}.")
    return groups


def group_gradients(
    loss: Callable[..., tuple[Float[Array, ""], Any]],
    problem: Problem,
    theta: Float[Array, " n"],
    *batch: Any,
    groups: int,
    shared: Any = None,
) -> tuple[Float[Array, "G n"], Any]:
    """Gradient of the mean of loss(problem, theta, *items) -> (value, aux) over each group of rollouts, and all aux.

    shared: an argument of `loss` by this name, if given: what is the same for all rollouts and was computed before.
    """
    count = jax.tree.leaves(batch)[0].shape[0]
    parts = devices.parts(count, groups)
    if groups == count or problem.axes is not None:
        each = batched(
            problem,
            lambda p, mine, *items: jax.grad(lambda t: _with(loss, mine[1])(p, t, *items), has_aux=True)(mine[0]),
            *batch,
            shared=(theta, shared),
        )
        return jnp.mean(each[0].reshape(groups, -1, theta.shape[0]), axis=1), each[1]

    def one(every: tuple[Problem, Array, Any], *parts: Any) -> tuple[Float[Array, " n"], Any]:
        problem, theta, common = every

        def mean(at: Float[Array, " n"]) -> tuple[Float[Array, ""], Any]:
            losses, aux = batched(problem, lambda p, *items: _with(loss, common)(p, at, *items), *parts)
            return jnp.mean(losses), aux

        return jax.grad(mean, has_aux=True)(theta)

    pieces = jax.tree.map(lambda leaf: leaf.reshape((parts, count // parts, *leaf.shape[1:])), batch)
    gradients, aux = devices.spread(
        lambda every, *mine: jax.vmap(functools.partial(one, every))(*mine), (problem, theta, shared), *pieces
    )
    gradients = jnp.mean(gradients.reshape(groups, parts // groups, -1), axis=1)
    return gradients, jax.tree.map(lambda leaf: leaf.reshape((count, *leaf.shape[2:])), aux)


def _with(loss: Callable[..., Any], shared: Any) -> Callable[..., Any]:
    return loss if shared is None else functools.partial(loss, shared=shared)


def unpriced(trajectory: Trajectory, objective: Objective) -> Bool[Array, "..."]:
    """Whether a rollout blew up and the objective defines no cost for that."""
    priced = isinstance(objective, Episodic) and objective.divergence_cost is not None
    return (trajectory.ending == Ending.DIVERGED) & (not priced)


def summarise(
    values: Float[Array, " N"],
    gradients: Float[Array, "G n"],
    failed: Bool[Array, " N"],
    entries: Bool[Array, " n"],
) -> Estimate:
    """The estimate from N rollout values and G group gradients. Failed rollouts are left out and counted.

    If there are fewer groups than rollouts, a group with a failed rollout is left out as a whole.
    """
    count, groups = values.shape[0], gradients.shape[0]
    bad_value = failed | ~jnp.isfinite(values)
    bad = jnp.any(bad_value.reshape(groups, -1), axis=1) | jnp.any(~jnp.isfinite(gradients), axis=1)
    gradients = jnp.where(entries, gradients, 0.0)
    gradient, error = masked_mean(gradients, bad)
    value, value_error = masked_mean(values[:, None], bad_value)
    diverged = jnp.maximum(jnp.sum(bad_value), jnp.sum(bad))
    return Estimate(
        value[0],
        gradient,
        error,
        value_error[0],
        jnp.asarray(count),
        diverged,
        jnp.broadcast_to(entries, gradient.shape),
    )


def masked_mean(samples: Float[Array, "m n"], bad: Bool[Array, " m"]) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """Mean of the good samples and its standard error. NaN if there are none; `usable` reports this."""
    good = jnp.sum(~bad)
    kept = jnp.where(bad[:, None], 0.0, samples)
    mean = jnp.sum(kept, axis=0) / good
    spread = jnp.sum(jnp.where(bad[:, None], 0.0, (kept - mean) ** 2), axis=0)
    error = jnp.where(good > 1, jnp.sqrt(spread / jnp.maximum(good - 1, 1) / jnp.maximum(good, 1)), jnp.inf)
    return mean, error


def leave_one_out(values: Float[Array, " N"]) -> Float[Array, " N"]:
    """For each rollout, the mean over the others (0 for a single rollout). It does not depend on that rollout."""
    count = values.shape[0]
    if count == 1:
        return jnp.zeros_like(values)
    return jax.lax.stop_gradient((jnp.sum(values) - values) / (count - 1))
