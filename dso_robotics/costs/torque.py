"""Identification by forces: what the motion takes by inverse dynamics against what the actuators gave.

It needs every joint's position and every control, and it simulates nothing. Its minimum is the field's regression on inverse
dynamics, in physically consistent numbers. It is the cost of errors of forces, not of sensors: right where encoders are fine
and the model of the drives is not, biased where accelerations are noisy.
"""

import numpy as np

from dso_robotics.robot.torque_balance import TorqueBalance

# A number that no sample depends on stays within this many typical sizes of its start value.
_STAY = 10.0
# Of a joint whose force is never known [N*m, N].
_NOTHING = 1.0


class TorqueIdentification:
    """The least-squares problem (`core.method.least_squares`) of a balance: its forces in units of their usual size.

    balance: the unbalanced forces of N samples.
    blocks: how many pieces of equal length the samples are cut into. What is left over does not count.
    huber: forces beyond this many usual sizes get less weight; infinite for none. Where the motion changes sharply, smoothing
      reduces the acceleration.

    No unknown is private.
    """

    def __init__(self, balance: TorqueBalance, blocks: int = 1, *, huber: float = 1.345):
        self._balance, self._vector, self.blocks, self._huber = balance, balance.vector, blocks, huber
        self._counted = len(balance.moments) // blocks * blocks
        self._weigh(balance.vector.initial)

    def _weigh(self, z: np.ndarray) -> None:
        force = self._balance(z)
        known = zip(np.abs(force).T, self._balance.known.T, strict=True)
        usual = np.array([1.4826 * np.median(size[seen]) if seen.any() else _NOTHING for size, seen in known])
        self._usual = np.maximum(usual, 1e-12)
        self._weights = 1 / (self._usual * np.sqrt(np.maximum(np.abs(force) / (self._huber * self._usual), 1.0)))

    def residual(self, z: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Weighted forces (B, m)."""
        return (self._balance(z) * self._weights)[: self._counted].reshape(self.blocks, -1)

    def linearize(self, z: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, ...]:
        """Weighted forces (B, m) with their derivatives (B, m, n) and (B, m, 0)."""
        value = self.residual(z, x)
        slope = (self._balance.slope(z) * self._weights[..., None])[: self._counted]
        return value, slope.reshape(*value.shape, self._vector.size), np.zeros((*value.shape, 0))

    def prior(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The priors of the vector, and a weak one about the start for what no sample depends on."""
        reach = _STAY * self._vector.scale
        value = np.concatenate([self._vector.prior_residual(z), (z - self._vector.initial) / reach])
        return value, np.concatenate([self._vector.prior_slope(z), np.diag(1 / reach)])

    def retract(self, x: np.ndarray, change: np.ndarray) -> np.ndarray:
        """Nothing is private, so nothing moves."""
        return x

    def reweight(self, z: np.ndarray, x: np.ndarray) -> float:
        """Estimate the usual sizes and the weights anew."""
        before = self._usual
        self._weigh(z)
        return float(np.max(np.abs(self._usual / before - 1)))

    def log_scale(self) -> float:
        """Sum of the logarithms of the usual sizes, over all samples."""
        return float(self._counted * np.log(self._usual).sum())
