"""Correctors: from what the sensors read beyond the prediction to a change of the predicted state.

Every array may have leading axes, and weights and vectors broadcast against each other: the same lines serve NumPy (many
weights and many windows at once), JAX (one of each, vmap outside) and the runtime. Numbers are whitened: innovations are in
units of `innovation_scale` and changes in units of `change_scale`, which the estimator's vector holds.
"""

import abc
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from dso_robotics.errors import DsoError
from dso_robotics.registry import Registry

Array = Any  # a NumPy or a JAX array
Weights = Mapping[str, Array]
# What a study can ask for; a new corrector registers its class by its `kind`.
CORRECTORS: Registry[type["Corrector"]] = Registry("corrector")


@dataclass(frozen=True)
class Corrector(abc.ABC):
    """c of equation (99) in the tangent space: k numbers from ny innovations and nf features of the predicted state.

    Where no channel was measured there is nothing to correct: the change is zero and the memory stays.
    """

    k: int
    ny: int
    nf: int
    units: int = 0
    kind: ClassVar[str]
    has_units: ClassVar[bool] = False

    @property
    def memory_size(self) -> int:
        """How many numbers it remembers from one update to the next."""
        return 0

    @abc.abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each block of weights."""

    @abc.abstractmethod
    def raw(self, weights: Weights, memory: Array, inputs: Array, innovation: Array) -> tuple[Array, Array]:
        """Change (..., k) and memory, given [innovation, seen, features] and the innovation."""

    def __call__(
        self, weights: Weights, memory: Array, innovation: Array, seen: Array, features: Array
    ) -> tuple[Array, Array]:
        """Change (..., k) and new memory (..., units).

        innovation: (..., ny), zero where `seen` (..., ny) is 0; features: (..., nf).
        """
        xp = innovation.__array_namespace__()
        inputs = xp.concat([innovation, seen, features], axis=-1)
        change, new = self.raw(weights, memory, inputs, innovation)
        some = xp.max(seen, axis=-1, keepdims=True)
        return change * some, xp.where(some > 0, new, memory)

    @property
    def inputs(self) -> int:
        """Length of [innovation, seen, features]."""
        return 2 * self.ny + self.nf

    @property
    def size(self) -> int:
        """Number of weights."""
        return sum(math.prod(shape) for shape in self.shapes().values())

    def initial(self, gain: np.ndarray, seed: int = 0) -> np.ndarray:
        """Flat start weights: the constant `gain` (k, ny), recurrent inputs at random, all other effects zero."""
        rng = np.random.default_rng(seed)
        parts = []
        for name, shape in self.shapes().items():
            if name == "gain":
                value = np.asarray(gain, float)
            elif name in ("slope", "output", "bias"):
                value = np.zeros(shape)
            else:
                value = rng.normal(size=shape) * (0.5 / math.sqrt(shape[-1]))
            parts.append(value.ravel())
        return np.concatenate(parts)

    def split(self, flat: Array) -> dict[str, Array]:
        """Blocks (..., *shape) of flat weights (..., size)."""
        blocks, begin = {}, 0
        for name, shape in self.shapes().items():
            count = math.prod(shape)
            blocks[name] = flat[..., begin : begin + count].reshape((*flat.shape[:-1], *shape))
            begin += count
        return blocks


def _times(matrix: Array, vector: Array) -> Array:
    return (matrix @ vector[..., None])[..., 0]


@CORRECTORS.register("gain")
@dataclass(frozen=True)
class ConstantGain(Corrector):
    """change = K e: with a linear model and its best K, the steady-state Kalman filter."""

    kind: ClassVar[str] = "gain"

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """See `Corrector`."""
        return {"gain": (self.k, self.ny)}

    def raw(self, weights: Weights, memory: Array, inputs: Array, innovation: Array) -> tuple[Array, Array]:
        """See `Corrector`."""
        return _times(weights["gain"], innovation), memory


@CORRECTORS.register("linear")
@dataclass(frozen=True)
class LinearCorrector(Corrector):
    """change = K(s) e, with K linear in s, the features and what was measured."""

    kind: ClassVar[str] = "linear"

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """See `Corrector`."""
        return {"gain": (self.k, self.ny), "slope": (self.k * self.ny, self.nf + self.ny)}

    def raw(self, weights: Weights, memory: Array, inputs: Array, innovation: Array) -> tuple[Array, Array]:
        """See `Corrector`."""
        slope = _times(weights["slope"], inputs[..., self.ny :])
        gain = weights["gain"] + slope.reshape((*slope.shape[:-1], self.k, self.ny))
        return _times(gain, innovation), memory


@CORRECTORS.register("mlp")
@dataclass(frozen=True)
class MlpCorrector(Corrector):
    """change = K e + O tanh(W [e, seen, features] + b)."""

    kind: ClassVar[str] = "mlp"
    has_units: ClassVar[bool] = True

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """See `Corrector`."""
        h = self.units
        return {"gain": (self.k, self.ny), "input": (h, self.inputs), "bias": (h,), "output": (self.k, h)}

    def raw(self, weights: Weights, memory: Array, inputs: Array, innovation: Array) -> tuple[Array, Array]:
        """See `Corrector`."""
        xp = inputs.__array_namespace__()
        hidden = xp.tanh(_times(weights["input"], inputs) + weights["bias"])
        return _times(weights["gain"], innovation) + _times(weights["output"], hidden), memory


@CORRECTORS.register("recurrent")
@dataclass(frozen=True)
class RecurrentCorrector(Corrector):
    """change = K e + O m, with m the memory of gated recurrent units fed with [e, seen, features]."""

    kind: ClassVar[str] = "recurrent"
    has_units: ClassVar[bool] = True

    @property
    def memory_size(self) -> int:
        """See `Corrector`."""
        return self.units

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """See `Corrector`."""
        h = self.units
        return {
            "gain": (self.k, self.ny),
            "input": (3 * h, self.inputs),
            "recurrent": (3 * h, h),
            "bias": (3 * h,),
            "output": (self.k, h),
        }

    def raw(self, weights: Weights, memory: Array, inputs: Array, innovation: Array) -> tuple[Array, Array]:
        """See `Corrector`."""
        xp, h = inputs.__array_namespace__(), self.units
        given = _times(weights["input"], inputs) + weights["bias"]
        kept = _times(weights["recurrent"], memory)
        # (1 + tanh(x/2))/2 is the logistic function without overflow.
        update = 0.5 + 0.5 * xp.tanh(0.5 * (given[..., :h] + kept[..., :h]))
        reset = 0.5 + 0.5 * xp.tanh(0.5 * (given[..., h : 2 * h] + kept[..., h : 2 * h]))
        candidate = xp.tanh(given[..., 2 * h :] + reset * kept[..., 2 * h :])
        memory = (1 - update) * memory + update * candidate
        return _times(weights["gain"], innovation) + _times(weights["output"], memory), memory


def make_corrector(kind: str, k: int, ny: int, nf: int, *, units: int = 8) -> Corrector:
    """The corrector called `kind` for these sizes; DsoError for an unknown kind or no units."""
    made = CORRECTORS[kind]
    if made.has_units and not 1 <= units <= 1000:
        raise DsoError(f"corrector {kind!r}: units = {units}; give a whole number from 1 to 1000, such as 8.")
    return made(k, ny, nf, units if made.has_units else 0)
