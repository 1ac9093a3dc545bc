"""Recurrent policies, the brain-body policies of equation (100). Their units advance with the physics.

All weights are in theta. The action depends on the units *after* their update, so the current observation affects the
current action: u = W_out y' + W_dir x.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from dso_robotics.errors import DsoError
from dso_robotics.robot.policy import Policy, layer, matrices


class RecurrentPolicy(Policy):
    """y' = tanh(W_in x + W_rec y + b), u = W_out y' + W_dir x + c.

    Gated units have y' = (1 - g) y + g tanh(...) with g = sigmoid(V_in x + V_rec y + d), so a unit can keep its value.
    """

    inputs: int = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    units: int = eqx.field(static=True, default=16)
    gated: bool = eqx.field(static=True, default=False)

    def __check_init__(self) -> None:
        if self.units < 1:
            raise DsoError(f"units: a recurrent policy needs at least one unit, got {self.units}.")

    @property
    def _inner(self) -> list[tuple[int, ...]]:
        one = [(self.units, self.inputs), (self.units, self.units), (self.units,)]
        return one * (2 if self.gated else 1)

    @property
    def _outer(self) -> list[tuple[int, ...]]:
        return [(self.outputs, self.units), (self.outputs, self.inputs), (self.outputs,)]

    @property
    def size(self) -> int:
        """Number of input, recurrent, output and direct weights, and offsets."""
        return sum(math.prod(shape) for shape in self._inner + self._outer)

    @property
    def memory(self) -> int:
        """Number of units."""
        return self.units

    def initial(self, rng: np.random.Generator) -> np.ndarray:
        """Random input and recurrent weights, and zero direct weights. Gates start half open."""
        inner = []
        for _ in range(2 if self.gated else 1):
            inner += [
                layer(rng, self.inputs, self.units)[0],
                layer(rng, self.units, self.units, 0.9)[0],
                np.zeros(self.units),
            ]
        outer = [
            layer(rng, self.units, self.outputs, 0.1)[0],
            np.zeros(self.outputs * self.inputs),
            np.zeros(self.outputs),
        ]
        return np.concatenate(inner + outer)

    def __call__(self, weights: Array, observation: Array, memory: Array, time: Array) -> tuple[Array, Array]:
        """Action and the next state of the units."""
        *inner, w_out, w_dir, offset = matrices(weights, self._inner + self._outer)
        w_in, w_rec, bias = inner[:3]
        units = jnp.tanh(w_in @ observation + w_rec @ memory + bias)
        if self.gated:
            v_in, v_rec, gate_bias = inner[3:]
            gate = jax.nn.sigmoid(v_in @ observation + v_rec @ memory + gate_bias)
            units = (1.0 - gate) * memory + gate * units
        return w_out @ units + w_dir @ observation + offset, units

    def scored(self) -> np.ndarray:
        """Output and direct weights. The others drive the units, which have no noise."""
        inner = sum(math.prod(shape) for shape in self._inner)
        return np.arange(self.size) >= inner
