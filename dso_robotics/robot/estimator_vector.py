"""One vector for all that an estimator learns: corrector, sensors (scale, bias) and physics; the noise is profiled out of it.

The noise scales are blocks of theta too (Section 7 of the mathematics), but at given other blocks their optimum is the root
mean square of the innovations, so least squares re-estimates them instead of searching (`costs.estimation`), and the gradient
route of `robot.filter_jax` appends them as log scales.
"""

from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np

from dso_robotics.parameters.vector import ParameterVector
from dso_robotics.robot.corrector import Corrector

Array = Any
# Weights of a corrector are whitened, so one size and one weak prior do for all.
_WEIGHT_SCALE, _WEIGHT_PRIOR = 0.3, 1.0
# A gain's prior is wide: a constant gain must reach what the data ask for.
_GAIN_PRIOR = 10.0


def sensor_ids(model: mujoco.MjModel, addresses: np.ndarray) -> np.ndarray:
    """The sensor of each channel (ny,), whose places in `sensordata` are `addresses`."""
    return np.searchsorted(model.sensor_adr, addresses, side="right") - 1


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
    """z = [corrector weights, physics and sensors], n numbers; weights: start weights; physics: blocks named by PATH.

    physical: where the search begins in the physics' coordinates (m,), None for their own initial values.
    """

    corrector: Corrector
    channel_names: tuple[str, ...]
    addresses: np.ndarray
    physics: ParameterVector
    weights: np.ndarray
    physical: np.ndarray | None = None

    @property
    def size(self) -> int:
        """n."""
        return len(self.weights) + self.physics.size

    @property
    def initial(self) -> np.ndarray:
        """Start values (n,)."""
        return np.concatenate([self.weights, self.physics.initial if self.physical is None else self.physical])

    @property
    def low(self) -> np.ndarray:
        """Lower bounds (n,)."""
        return np.concatenate([np.full(len(self.weights), -np.inf), self.physics.low])

    @property
    def high(self) -> np.ndarray:
        """Upper bounds (n,)."""
        return np.concatenate([np.full(len(self.weights), np.inf), self.physics.high])

    @property
    def scale(self) -> np.ndarray:
        """Typical sizes (n,)."""
        return np.concatenate([np.full(len(self.weights), _WEIGHT_SCALE), self.physics.scale])

    def split(self, z: Array) -> tuple[dict[str, Array], Array]:
        """Corrector weights by block, and the physical coordinates, of z (..., n)."""
        w = len(self.weights)
        return self.corrector.split(z[..., :w]), z[..., w:]

    def sensors(self, physical: Array) -> tuple[Array, Array]:
        """Scale and bias (..., ny) of the channels at physical coordinates (..., m): they report scale * reading + bias."""
        xp = physical.__array_namespace__()
        shape = (*physical.shape[:-1], len(self.addresses))
        signals = self.physics.signals(physical) if self.physics.size else {}
        found = []
        for name, default in (("sensor_scale", xp.ones(shape)), ("sensor_bias", xp.zeros(shape))):
            found.append(signals[name][..., self.addresses] if name in signals else default)
        return found[0], found[1]

    def late(self, physical: Array) -> Array | None:
        """Age [s] of what each channel reports (..., ny) at physical coordinates (..., m); None where no sensor is late."""
        signals = self.physics.signals(physical)
        if "sensor_delay" not in signals:
            return None
        return signals["sensor_delay"][..., sensor_ids(self.physics.mj, self.addresses)]

    def blocks(self, z: np.ndarray) -> dict[str, np.ndarray]:
        """Every block of z by name, for the run file."""
        weights, physical = self.split(z)
        return {f"corrector/{name}": value for name, value in weights.items()} | self.physics.split(physical)

    def prior(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whitened prior residuals (m,) and their derivative (m, n): weak ones on weights about their start, and physics'."""
        std = []
        for block, shape in self.corrector.shapes().items():
            std.append(np.full(int(np.prod(shape)), _GAIN_PRIOR if block == "gain" else _WEIGHT_PRIOR))
        deviation, w = np.concatenate(std), len(self.weights)
        own = (z[:w] - self.weights) / deviation
        if not self.physics.size:
            return own, np.diag(1 / deviation)
        residual, slope = self.physics.prior_residual(z[w:]), self.physics.prior_slope(z[w:])
        jacobian = np.zeros((w + len(residual), len(z)))
        jacobian[:w, :w], jacobian[w:, w:] = np.diag(1 / deviation), slope
        return np.concatenate([own, residual]), jacobian
