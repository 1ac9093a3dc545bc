"""Correctors and the theta of an estimator. A corrector maps innovations to a change of the predicted state.

Every array may have leading axes. Weights and vectors broadcast against each other. The same code therefore runs in NumPy
(many weights and many windows at once), in JAX (one of each, with vmap outside) and at run time. Innovations and changes are
whitened: they are in the units of `Scales`.
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
# The correctors that a study can name. A new corrector registers its class under its `kind`.
CORRECTORS: Registry[type["Corrector"]] = Registry("corrector", "dso_robotics.robot.correctors")
# Weights of a corrector are whitened, so one scale and one weak prior suffice for all of them.
_WEIGHT_SCALE, _WEIGHT_PRIOR = 0.3, 1.0
# The prior of the gain is wide, so that it does not hold the gain back from the value that fits the data.
_GAIN_PRIOR = 10.0


@dataclass(frozen=True, eq=False)
class Scales:
    """Units of the corrector's inputs and outputs.

    innovation: scale of the innovations, (ny,), in the channels' units.
    change: scale of the changes in the tangent space, (k,).
    centre, state: centre and scale of the features, (nx,).
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
    """The function c of equation (99) in the tangent space.

    It computes k numbers from ny innovations and nf features of the predicted state. If no channel was measured, the change
    is zero and the memory stays the same.
    """

    k: int
    ny: int
    nf: int
    units: int = 0
    kind: ClassVar[str]
    has_units: ClassVar[bool] = False
    # Whether its gain follows from derivatives of the model, so that the filters of `robot.kalman_filter` run it.
    linearises: ClassVar[bool] = False

    @property
    def memory_size(self) -> int:
        """Length of the memory that is kept between updates."""
        return 0

    @abc.abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each block of weights."""

    @abc.abstractmethod
    def raw(self, weights: Weights, memory: Array, inputs: Array, innovation: Array) -> tuple[Array, Array]:
        """Change (..., k) and new memory, given `inputs` = [innovation, seen, features] and the innovation."""

    def __call__(
        self, weights: Weights, memory: Array, innovation: Array, seen: Array, features: Array
    ) -> tuple[Array, Array]:
        """Change (..., k) and new memory (..., units).

        innovation: (..., ny), zero where `seen` is 0.
        seen: (..., ny), 1 for measured channels, 0 for missing ones.
        features: (..., nf).
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
        """Number of weights. Nothing is allocated for it, since sizes may come from a file."""
        return sum(math.prod(shape) for shape in self.shapes().values())

    @functools.cached_property
    def layout(self) -> Theta:
        """The weights as blocks."""
        return Theta(tuple(Block(name, np.zeros(shape)) for name, shape in self.shapes().items()))

    def initial(self, gain: np.ndarray, seed: int = 0) -> np.ndarray:
        """Flat initial weights: the constant `gain` (k, ny), random hidden-layer weights, and zero for all others."""
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
    """change = K e. With a linear model and the optimal K, this is the steady-state Kalman filter."""

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
    """change = K(s) e, with K affine in s = [seen, features]."""

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
    """change = K e + O m. m is the memory of gated recurrent units with inputs [e, seen, features]."""

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
    """The corrector named `kind` for these sizes. Raises DsoError for an unknown kind or an invalid number of units."""
    made = CORRECTORS[kind]
    if made.has_units and not 1 <= units <= 1000:
        raise DsoError(f"corrector {kind!r}: units = {units}; give a whole number from 1 to 1000, such as 8.")
    return made(k, ny, nf, units if made.has_units else 0)


@dataclass(frozen=True, eq=False)
class EstimatorTheta(Theta):
    """Theta of an estimator: blocks "corrector" (its weights) and "physics" (parameters of the model and its sensors).

    Theta does not hold noise scales. Least squares sets them to their optimum at every point (`costs.estimation`). The
    gradient method of `robot.filter_jax` has separate blocks for them. Weights have a weak prior around their initial values.

    weights: initial weights of the corrector.
    physical: initial physics parameters, (m,); None for the vector's own initial values.
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
        """Corrector weights by block, and the physical coordinates, both taken from z (..., n)."""
        found = self.split(z)
        return self.corrector.split(found["corrector"]), found["physics"]

    def by_name(self, z: np.ndarray) -> dict[str, np.ndarray]:
        """Corrector weights by block and physics by path, for the run file."""
        weights, physical = self.parts(z)
        return {f"corrector/{name}": value for name, value in weights.items()} | self.physics.split(physical)
