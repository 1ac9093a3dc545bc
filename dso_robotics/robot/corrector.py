"""Correctors: from what the sensors read beyond the prediction to a change of the predicted state; and an estimator's theta.

Every array may have leading axes, and weights and vectors broadcast against each other: the same lines serve NumPy (many
weights and many windows at once), JAX (one of each, vmap outside) and the runtime. Numbers are whitened: innovations and
changes are in the units of `Scales`.
"""

import abc
import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from dso_robotics.errors import DsoError
from dso_robotics.parameters.theta import Block, Prior, Theta
from dso_robotics.parameters.vector import ParameterVector
from dso_robotics.registry import Registry

Array = Any  # a NumPy or a JAX array
Weights = Mapping[str, Array]
# What a study can ask for; a new corrector registers its class by its `kind`.
CORRECTORS: Registry[type["Corrector"]] = Registry("corrector")
# Weights of a corrector are whitened, so one size and one weak prior do for all.
_WEIGHT_SCALE, _WEIGHT_PRIOR = 0.3, 1.0
# A gain's prior is wide: a constant gain must reach what the data ask for.
_GAIN_PRIOR = 10.0


@dataclass(frozen=True, eq=False)
class Scales:
    """Units of the corrector's numbers.

    innovation: (ny,) in the channels' units; change: (k,) of the tangent space; centre, state: (nx,) of the features.
    """

    innovation: np.ndarray
    change: np.ndarray
    centre: np.ndarray
    state: np.ndarray

    def as_dict(self) -> dict[str, np.ndarray]:
        """The arrays by name, as the run file stores them."""
        return {name: getattr(self, name) for name in ("innovation", "change", "centre", "state")}


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
        return self.layout.size

    @functools.cached_property
    def layout(self) -> Theta:
        """The weights as blocks."""
        return Theta(tuple(Block(name, np.zeros(shape)) for name, shape in self.shapes().items()))

    def initial(self, gain: np.ndarray, seed: int = 0) -> np.ndarray:
        """Flat start weights: the constant `gain` (k, ny), recurrent inputs at random, all other effects zero."""
        rng = np.random.default_rng(seed)
        drawn = {
            name: rng.normal(size=shape) * (0.5 / math.sqrt(shape[-1]))
            for name, shape in self.shapes().items()
            if name not in ("gain", "slope", "output", "bias")
        }
        return self.layout.join({"gain": np.asarray(gain, float)} | drawn)

    def split(self, flat: Array) -> dict[str, Array]:
        """Blocks (..., *shape) of flat weights (..., size)."""
        return self.layout.split(flat)


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


@dataclass(frozen=True, eq=False)
class EstimatorTheta(Theta):
    """Theta of an estimator: blocks "corrector" (its weights) and "physics" (parameters of the model and its sensors).

    Noise scales are not in it: least squares sets them to their optimum at every point (`costs.estimation`), and the gradient
    route of `robot.filter_jax` has blocks of its own for them. Weights have a weak prior about their start.

    weights: start of the corrector's; physical: start of the physics (m,), None for its own initial values.
    """

    blocks: tuple[Block, ...] = field(init=False)
    corrector: Corrector
    physics: ParameterVector
    weights: np.ndarray
    physical: np.ndarray | None = None

    def __post_init__(self):
        none = np.zeros(len(self.weights))
        layout = self.corrector.layout
        wide = {block.name: _GAIN_PRIOR for block in layout.blocks if block.name == "gain"}
        prior = Prior(self.weights, layout.spread(wide, _WEIGHT_PRIOR), none > 0)
        mine = Block("corrector", self.weights, scale=none + _WEIGHT_SCALE, prior=prior, entries=layout.names)
        physics = self.physics.block("physics")
        if self.physical is not None:
            physics = replace(physics, initial=self.physical)
        object.__setattr__(self, "blocks", (mine, physics))
        super().__post_init__()

    def parts(self, z: Array) -> tuple[dict[str, Array], Array]:
        """Corrector weights by block, and the physical coordinates, of z (..., n)."""
        found = self.split(z)
        return self.corrector.split(found["corrector"]), found["physics"]

    def by_name(self, z: np.ndarray) -> dict[str, np.ndarray]:
        """Corrector weights by block and physics by path, for the run file."""
        weights, physical = self.parts(z)
        return {f"corrector/{name}": value for name, value in weights.items()} | self.physics.split(physical)
