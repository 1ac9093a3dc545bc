"""Policies: functions of an observation, with all their weights in one flat block of theta.

A policy gives one number for each actuator. `squash.Squash` maps it to the actuator's range. A policy's memory is part of the
chain's state, see `recurrent.py`.
"""

import abc
import itertools
import math
from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dso_robotics.errors import DsoError


class Policy(eqx.Module):
    """u = pi(y, m, t, w), with u (outputs,), observation y (inputs,), memory m (memory,), time t [s] and weights w (size,)."""

    inputs: eqx.AbstractVar[int]
    outputs: eqx.AbstractVar[int]

    @property
    @abc.abstractmethod
    def size(self) -> int:
        """Number of weights."""

    @property
    def memory(self) -> int:
        """Length of the memory; 0 without memory."""
        return 0

    @abc.abstractmethod
    def initial(self, rng: np.random.Generator) -> np.ndarray:
        """Initial weights (size,)."""

    @abc.abstractmethod
    def __call__(
        self,
        weights: Float[Array, " size"],
        observation: Float[Array, " inputs"],
        memory: Float[Array, " m"],
        time: Array,
    ) -> tuple[Float[Array, " outputs"], Float[Array, " m"]]:
        """The action before squashing, and the next memory."""

    def scored(self) -> np.ndarray:
        """Mask (size,) of the weights that affect only the action, given observation and memory. These have a score."""
        return np.ones(self.size, bool)


def matrices(flat: Array, shapes: Sequence[tuple[int, ...]]) -> list[Array]:
    """Split a flat vector into arrays of `shapes`."""
    found, start = [], 0
    for shape in shapes:
        count = math.prod(shape)
        found.append(flat[start : start + count].reshape(shape))
        start += count
    return found


def layer(rng: np.random.Generator, inputs: int, outputs: int, gain: float = 1.0) -> list[np.ndarray]:
    """Initial weights of one affine layer: each row has norm `gain`, and the offsets are zero."""
    return [(gain / math.sqrt(max(inputs, 1)) * rng.standard_normal((outputs, inputs))).ravel(), np.zeros(outputs)]


class LinearPolicy(Policy):
    """u = W y + b. All weights start at zero."""

    inputs: int = eqx.field(static=True)
    outputs: int = eqx.field(static=True)

    @property
    def size(self) -> int:
        """Number of entries of W and b."""
        return self.outputs * (self.inputs + 1)

    def initial(self, rng: np.random.Generator) -> np.ndarray:
        """Zeros."""
        return np.zeros(self.size)

    def __call__(self, weights: Array, observation: Array, memory: Array, time: Array) -> tuple[Array, Array]:
        """W y + b."""
        matrix, offset = matrices(weights, [(self.outputs, self.inputs), (self.outputs,)])
        return matrix @ observation + offset, memory


class NetworkPolicy(Policy):
    """A multilayer perceptron of tanh units. Its last layer has small initial weights, so the first actions are near zero."""

    inputs: int = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    hidden: tuple[int, ...] = eqx.field(static=True, default=(32, 32))

    def __check_init__(self) -> None:
        if not self.hidden or any(width < 1 for width in self.hidden):
            raise DsoError(
                f"hidden: give at least one layer of at least one unit, such as [32, 32], not {self.hidden}."
            )

    @property
    def _shapes(self) -> list[tuple[int, ...]]:
        widths = (self.inputs, *self.hidden, self.outputs)
        return [shape for a, b in itertools.pairwise(widths) for shape in ((b, a), (b,))]

    @property
    def size(self) -> int:
        """Number of weights of all layers."""
        return sum(math.prod(shape) for shape in self._shapes)

    def initial(self, rng: np.random.Generator) -> np.ndarray:
        """Random layers."""
        widths = (self.inputs, *self.hidden, self.outputs)
        gains = [1.0] * len(self.hidden) + [0.1]
        parts = [layer(rng, a, b, g) for a, b, g in zip(widths, widths[1:], gains, strict=False)]
        return np.concatenate([part for pair in parts for part in pair])

    def __call__(self, weights: Array, observation: Array, memory: Array, time: Array) -> tuple[Array, Array]:
        """The network's output."""
        parts = matrices(weights, self._shapes)
        here = observation
        for matrix, offset in zip(parts[:-2:2], parts[1:-2:2], strict=True):
            here = jnp.tanh(matrix @ here + offset)
        return parts[-2] @ here + parts[-1], memory


class TimedPolicy(Policy):
    """A policy that also sees time features: bumps spread over `seconds` [s] or, with `period`, sine waves of a cycle's phase.

    For a recorded or planned motion, this is the trajectory-conditioned policy. With a linear `base`, it is feedback plus an
    open-loop action of arbitrary shape over time.
    """

    inputs: int = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    base: Policy
    seconds: float = eqx.field(static=True)
    count: int = eqx.field(static=True)
    period: bool = eqx.field(static=True)

    def __init__(self, base: Policy, seconds: float, count: int = 8, period: bool = False) -> None:
        if not seconds > 0 or count < 1:
            raise DsoError(f"a timed policy needs a positive time and number of features, not {seconds:g}, {count}.")
        self.inputs, self.outputs = base.inputs - self.width(count, period), base.outputs
        self.base, self.seconds, self.count, self.period = base, float(seconds), int(count), bool(period)

    @staticmethod
    def width(count: int, period: bool) -> int:
        """How many inputs of the base are time features."""
        return 2 * count if period else count

    @property
    def size(self) -> int:
        """Number of weights of the base."""
        return self.base.size

    @property
    def memory(self) -> int:
        """Length of the base's memory."""
        return self.base.memory

    def initial(self, rng: np.random.Generator) -> np.ndarray:
        """Initial weights of the base."""
        return self.base.initial(rng)

    def scored(self) -> np.ndarray:
        """Scored weights of the base."""
        return self.base.scored()

    def features(self, time: Array) -> Float[Array, " k"]:
        """Time features between -1 and 1."""
        if self.period:
            phase = 2 * jnp.pi * time / self.seconds * jnp.arange(1, self.count + 1)
            return jnp.concatenate([jnp.sin(phase), jnp.cos(phase)])
        centres = self.seconds * (jnp.arange(self.count) + 0.5) / self.count
        return jnp.exp(-0.5 * ((time - centres) * self.count / self.seconds) ** 2)

    def __call__(self, weights: Array, observation: Array, memory: Array, time: Array) -> tuple[Array, Array]:
        """The base policy, applied to the observation and the time features."""
        return self.base(weights, jnp.concatenate([observation, self.features(time)]), memory, time)
