"""Start values by regression on inverse dynamics, for logs that measure every joint and the controls.

The residual is nearly linear in masses, friction, stiffness and gears (Atkeson, An and Hollerbach, 1986). Full inertias stay
physically consistent: they are sought in log-Cholesky coordinates. No simulation is needed, so poor start values do no harm.
Noise in the accelerations biases the result, so it is only a start value.
"""

import numpy as np

from dso_robotics.core.method.gauss_newton import solve
from dso_robotics.core.method.least_squares import Settings
from dso_robotics.data.windows import Windows
from dso_robotics.errors import DsoError
from dso_robotics.parameters.vector import ParameterVector
from dso_robotics.robot.controller import Drives
from dso_robotics.robot.torque_balance import TorqueBalance, sampled

# Samples in the regression: at least so many, and so many for each free number.
_SAMPLES, _EACH = 600, 12
# A number that no sample depends on stays within this many typical sizes of its start value.
_STAY = 10.0
_SETTINGS = Settings(iterations=40, noise_tolerance=0.05)
# Residuals beyond this many usual sizes get less weight (Huber).
_HUBER = 1.345


def regress(vector: ParameterVector, windows: Windows, drives: Drives | None = None) -> np.ndarray:
    """Coordinates (n,) that explain the recorded accelerations best, within the bounds and with the priors.

    `drives` are the signals of controllers. The equation is linear in their gains.

    Raises:
      DsoError: a joint has no position sensor, or the robot has ball or free joints, activations or equality constraints.
    """
    model = vector.mj
    if model.nq != model.nv or model.na or model.neq:
        raise DsoError(
            "--warm-start: regression on inverse dynamics needs a robot of hinges and slides, without activations and equality "
            "constraints; leave it out."
        )
    most = max(_SAMPLES, _EACH * vector.size)
    moments, blind = sampled(windows.rollouts, windows.channels, vector, drives, most=most)
    if blind:
        raise DsoError(
            f"--warm-start: rollout {blind!r} does not show the controls and the position of every joint, which a regression "
            "on inverse dynamics needs; leave it out."
        )
    if len(moments) < min(10 * vector.size, most):
        raise DsoError(
            "--warm-start: the recordings are too short to differentiate their positions twice; leave it out."
        )
    share = np.zeros((0, model.nu)) if drives is None else drives.share
    problem = _Regression(TorqueBalance(vector, moments, share))
    none = np.zeros((1, 0))
    return solve(
        problem, vector.initial, none, low=vector.low, high=vector.high, scale=vector.scale, settings=_SETTINGS
    ).z


class _Regression:
    """The least-squares problem (`core.method.least_squares`) of a balance: its forces in units of their usual size.

    It has one block, without private unknowns. Where the motion changes sharply, smoothing reduces the acceleration. Such
    samples get less weight.
    """

    def __init__(self, balance: TorqueBalance):
        self._balance, self._vector = balance, balance.vector
        self._weigh(balance.vector.initial)

    def _weigh(self, z: np.ndarray) -> None:
        force = self._balance(z)
        self._usual = np.maximum(1.4826 * np.median(np.abs(force), axis=0), 1e-12)
        self._weights = 1 / (self._usual * np.sqrt(np.maximum(np.abs(force) / (_HUBER * self._usual), 1.0)))
        self._few: tuple[np.ndarray, np.ndarray] | None = None
        if self._balance.affine:
            # As many rows as the force has features say the same: those of the root of the matrix of squares.
            force, matrix = self._balance.around(z)
            table = (np.concatenate([matrix, force[..., None]], -1) * self._weights[..., None]).reshape(force.size, -1)
            values, vectors = np.linalg.eigh(table.T @ table)
            root = np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T
            self._few = root[:, :-1], root[:, -1]

    def residual(self, z: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Weighted forces (1, m)."""
        if self._few is None:
            return (self._balance(z) * self._weights).reshape(1, -1)
        matrix, force = self._few
        return (matrix @ self._balance.features(z) + force)[None]

    def linearize(self, z: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, ...]:
        """Weighted forces (1, m) with their derivatives (1, m, n) and (1, m, 0)."""
        value = self.residual(z, x)
        if self._few is None:
            slope = (self._balance.slope(z) * self._weights[..., None]).reshape(1, -1, self._vector.size)
        else:
            slope = (self._few[0] @ self._balance.features_slope(z))[None]
        return value, slope, np.zeros((*value.shape, 0))

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
        return float(len(self._weights) * np.log(self._usual).sum())
