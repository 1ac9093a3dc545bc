"""Samplers for the descent: an estimate at theta, the batch behind it, and the memory for the next estimate."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from dso_robotics.core import devices
from dso_robotics.core.gradient.estimate import Estimate
from dso_robotics.core.gradient.mixed import mixed
from dso_robotics.core.gradient.pathwise import pathwise
from dso_robotics.core.gradient.score import Baseline, Batch, NoBaseline, score
from dso_robotics.core.objective import Problem
from dso_robotics.core.rollout import Trajectory
from dso_robotics.core.value import Value, ZeroValue


class Sample(eqx.Module):
    """The result of a sampler.

    estimate: the estimate of J and its gradient.
    batch: the batch it came from, or None.
    memory: fitted on this batch, for use in the next one.
    """

    estimate: Estimate
    batch: Batch | None
    memory: Any


class Sampler(eqx.Module):
    """key, theta, memory -> Sample. The memory is a fitted value. It is never fitted on the batch in which it is used."""

    @abc.abstractmethod
    def memory(self) -> Any:
        """The memory before the first batch."""

    @abc.abstractmethod
    def __call__(self, key: PRNGKeyArray, theta: Float[Array, " n"], memory: Any) -> Sample:
        """Estimate J and its gradient at theta."""


def _mask(entries: Any) -> tuple[bool, ...] | None:
    """A Boolean mask as a tuple, which can be compared and hashed."""
    return None if entries is None else tuple(bool(entry) for entry in entries)


def _entries(mask: tuple[bool, ...] | None) -> np.ndarray | None:
    return None if mask is None else np.array(mask)


class ScoreSampler(Sampler):
    """The whole of Algorithm 1: rollouts, gradient, and step 4, which refits the baseline by `refit(batch, baseline)`."""

    problem: Problem
    count: int = eqx.field(static=True)
    baseline: Baseline = NoBaseline()
    refit: Callable[[Batch, Baseline], Baseline] | None = None
    entries: Any = eqx.field(static=True, default=None, converter=_mask)
    lam: float = eqx.field(static=True, default=1.0)

    def memory(self) -> Baseline:
        """The first baseline."""
        return self.baseline

    def __call__(self, key: PRNGKeyArray, theta: Float[Array, " n"], memory: Baseline) -> Sample:
        """Steps 1 to 4 of Algorithm 1."""
        estimate, batch = score(
            key,
            self.problem,
            theta,
            count=self.count,
            baseline=memory,
            lam=self.lam,
            entries=_entries(self.entries),
        )
        following = memory if self.refit is None else eqx.filter_jit(self.refit)(batch, memory)
        return Sample(estimate, batch, following)


class PathwiseSampler(Sampler):
    """The pathwise gradient with a horizon. `refit(trajectories, value)` refits its critic."""

    problem: Problem
    count: int = eqx.field(static=True)
    horizon: int | None = eqx.field(static=True, default=None)
    value: Value = ZeroValue()
    refit: Callable[[Trajectory, Value], Value] | None = None
    checkpoint: int | None = eqx.field(static=True, default=None)

    def memory(self) -> Value:
        """The first critic."""
        return self.value

    def __call__(self, key: PRNGKeyArray, theta: Float[Array, " n"], memory: Value) -> Sample:
        """One pathwise estimate."""
        estimate, path = pathwise(
            key, self.problem, theta, count=self.count, horizon=self.horizon, value=memory, checkpoint=self.checkpoint
        )
        following = memory if self.refit is None else eqx.filter_jit(self.refit)(path, memory)
        return Sample(estimate, None, following)


class MixedSampler(Sampler):
    """Score for the entries of `by_score`, pathwise for the others, from one batch."""

    problem: Problem
    count: int = eqx.field(static=True)
    by_score: Any = eqx.field(static=True, converter=_mask)
    baseline: Baseline = NoBaseline()
    refit: Callable[[Batch, Baseline], Baseline] | None = None
    horizon: int | None = eqx.field(static=True, default=None)
    lam: float = eqx.field(static=True, default=1.0)

    def memory(self) -> Baseline:
        """The first baseline. Its value is also the critic."""
        return self.baseline

    def __call__(self, key: PRNGKeyArray, theta: Float[Array, " n"], memory: Baseline) -> Sample:
        """One mixed estimate."""
        estimate, batch = mixed(
            key,
            self.problem,
            theta,
            count=self.count,
            by_score=np.array(self.by_score),
            horizon=self.horizon,
            value=memory.value,
            baseline=memory,
            lam=self.lam,
        )
        following = memory if self.refit is None else eqx.filter_jit(self.refit)(batch, memory)
        return Sample(estimate, batch, following)


class ExactSampler(Sampler):
    """A cost known as a function of theta, such as the closed form of a finite chain or a supervised loss."""

    cost: Callable[[Float[Array, " n"]], Float[Array, ""]]

    def memory(self) -> None:
        """No memory is needed."""
        return

    def __call__(self, key: PRNGKeyArray, theta: Float[Array, " n"], memory: None) -> Sample:
        """The cost and its derivative, both exact."""
        value, gradient = _value_and_grad(self.cost, devices.everywhere(theta))
        zero = jnp.zeros_like(gradient)
        every = jnp.ones(gradient.shape, bool)
        count = jnp.ones((), int)
        estimate = Estimate(value, gradient, zero, jnp.zeros(()), count, jnp.zeros((), int), every)
        return Sample(estimate, None, None)


@eqx.filter_jit
def _value_and_grad(cost: Callable, theta: Array) -> tuple[Array, Array]:
    return jax.value_and_grad(cost)(theta)
