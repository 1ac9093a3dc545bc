"""One vector for all that an estimator learns: corrector, sensors (scale, bias) and physics; the noise is profiled out of it.

The noise scales are blocks of theta too (Section 7 of the mathematics), but at given other blocks their optimum is the root
mean square of the innovations, so least squares re-estimates them instead of searching (`costs.estimation`), and the gradient
route of `robot.filter_jax` appends them as log scales.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from dso_robotics.errors import DsoError
from dso_robotics.parameters.vector import ParameterVector
from dso_robotics.robot.corrector import Corrector

Array = Any
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


@dataclass(frozen=True, eq=False)
class EstimatorVector:
    """z = [corrector weights, sensor scales, physics and sensor biases], n numbers.

    scaled: which channels (of ny) have a free scale; weights: start weights of the corrector; physics: blocks named by PATH.
    """

    corrector: Corrector
    channel_names: tuple[str, ...]
    scaled: tuple[int, ...]
    physics: ParameterVector
    weights: np.ndarray

    @property
    def size(self) -> int:
        """n."""
        return len(self.weights) + len(self.scaled) + self.physics.size

    @property
    def initial(self) -> np.ndarray:
        """Start values (n,): sensor scales begin at one."""
        return np.concatenate([self.weights, np.ones(len(self.scaled)), self.physics.initial])

    @property
    def low(self) -> np.ndarray:
        """Lower bounds (n,)."""
        free = np.full(len(self.weights), -np.inf)
        return np.concatenate([free, np.full(len(self.scaled), 0.1), self.physics.low])

    @property
    def high(self) -> np.ndarray:
        """Upper bounds (n,)."""
        free = np.full(len(self.weights), np.inf)
        return np.concatenate([free, np.full(len(self.scaled), 10.0), self.physics.high])

    @property
    def scale(self) -> np.ndarray:
        """Typical sizes (n,)."""
        whitened = np.full(len(self.weights), _WEIGHT_SCALE)
        return np.concatenate([whitened, np.full(len(self.scaled), 0.1), self.physics.scale])

    @property
    def coordinate_names(self) -> tuple[str, ...]:
        """One name a coordinate."""
        names = []
        for block, shape in self.corrector.shapes().items():
            names += [f"corrector/{block}[{','.join(map(str, index))}]" for index in np.ndindex(shape)]
        names += [f"sensor/{self.channel_names[c]}/scale" for c in self.scaled]
        return (*names, *self.physics.coordinate_names)

    def split(self, z: Array) -> tuple[dict[str, Array], Array, Array]:
        """Corrector weights by block, sensor scales (..., ny), and the physical coordinates, of z (..., n)."""
        xp, w = z.__array_namespace__(), len(self.weights)
        weights = self.corrector.split(z[..., :w])
        columns = np.zeros((len(self.scaled), len(self.channel_names)))
        columns[np.arange(len(self.scaled)), list(self.scaled)] = 1.0
        free = z[..., w : w + len(self.scaled)]
        scale = 1.0 + xp.matmul(free - 1.0, xp.asarray(columns))
        return weights, scale, z[..., w + len(self.scaled) :]

    def blocks(self, z: np.ndarray) -> dict[str, np.ndarray]:
        """Every block of z by name, for the run file."""
        weights, scale, physics = self.split(z)
        blocks = {f"corrector/{name}": value for name, value in weights.items()}
        blocks |= {f"sensor/{self.channel_names[c]}/scale": scale[c] for c in self.scaled}
        return blocks | self.physics.split(physics)

    @property
    def prior(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean (m,), standard deviation (m,) and coordinate (m,): weak ones on weights about their start, and physics'."""
        std = []
        for block, shape in self.corrector.shapes().items():
            std.append(np.full(int(np.prod(shape)), _GAIN_PRIOR if block == "gain" else _WEIGHT_PRIOR))
        known, which = self.physics.prior
        if known.log.any():
            raise DsoError(
                "an estimator's physical parameters take normal priors only; write prior in place of log_prior."
            )
        w = len(self.weights)
        return (
            np.concatenate([self.weights, known.mean]),
            np.concatenate([*std, known.std]),
            np.concatenate([np.arange(w), w + len(self.scaled) + which]),
        )

    def prior_residual(self, z: Array) -> Array:
        """(z - mean)/std of every coordinate with a prior, (m,)."""
        mean, std, which = self.prior
        return (z[which] - z.__array_namespace__().asarray(mean)) / std
