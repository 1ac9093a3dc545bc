"""What the sensors of every window should read, and how that changes with the parameters and the start state.

Two engines fulfil one contract. `CPrediction` simulates with C MuJoCo and differentiates by finite differences on threads;
`MjxPrediction` (its own file: it needs JAX) differentiates through MJX. Both predict the same numbers.
"""

from typing import Protocol

import numpy as np

from dso_robotics.data.windows import Windows
from dso_robotics.parameters.vector import ParameterVector
from dso_robotics.physics.batch import BatchEngine
from dso_robotics.physics.state import Tangent

# Forward differences: relative to the parameter's scale, and absolute for start states [m, rad, m/s, rad/s].
_STEP = 1e-6


class Prediction(Protocol):
    """Predictions (B, S, C) of B windows at S sample times of C channels; NaN where the simulation diverged."""

    name: str
    # Simulated time steps so far, derivatives included.
    steps: int

    def predict(self, z: np.ndarray, start: np.ndarray) -> np.ndarray:
        """Sensor readings at parameters z (n,) from start states (B, nq+nv+na)."""
        ...

    def linearize(
        self, z: np.ndarray, start: np.ndarray, *, by_start: bool = True
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Readings (B, S, C) with derivatives by z (B, S, C, n) and by the start's tangent (B, S, C, k).

        k = 2*nv+na, or 0 when `by_start` is False: start states that stay need no derivative.
        """
        ...


class CPrediction:
    """The C engine: one batch call a linearisation, 1 + n + 2*nv + na simulations a window."""

    name = "mujoco"

    def __init__(self, vector: ParameterVector, windows: Windows, *, threads: int = 0):
        self.vector, self.windows = vector, windows
        self.tangent = Tangent(vector.mj)
        self.steps = 0
        self._engine = BatchEngine(vector.mj, threads=threads)

    def predict(self, z: np.ndarray, start: np.ndarray) -> np.ndarray:
        """See `Prediction.predict`."""
        return self._at_samples(z[None], start[None])[0]

    def linearize(
        self, z: np.ndarray, start: np.ndarray, *, by_start: bool = True
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See `Prediction.linearize`; forward differences, backward where a bound is in the way."""
        n = len(z)
        k = self.tangent.size if by_start else 0
        h = _STEP * self.vector.scale
        h = np.where(z + h > self.vector.high, -h, h)
        points = np.tile(z, (1 + n + k, 1))
        points[1 : 1 + n] += np.diag(h)
        starts = np.tile(start, (1 + n + k, 1, 1))
        if k:
            change = np.broadcast_to(_STEP * np.eye(k)[:, None], (k, len(start), k))
            starts[1 + n :] = self.tangent.move(start[None], change)
        y = self._at_samples(points, starts)
        by_z = (y[1 : 1 + n] - y[0]) / h[:, None, None, None]
        by_change = (y[1 + n :] - y[0]) / _STEP
        return y[0], np.moveaxis(by_z, 0, -1), np.moveaxis(by_change, 0, -1)

    def _at_samples(self, z: np.ndarray, start: np.ndarray) -> np.ndarray:
        """Readings (P, B, S, C) at P points z (P, n) with starts (P, B, nq+nv+na)."""
        p, b = start.shape[:2]
        ctrl = self.windows.ctrl
        self.steps += p * b * ctrl.shape[1]
        fields = {k: np.repeat(v, b, axis=0) for k, v in self.vector.fields(z).items()}
        tiled = np.broadcast_to(ctrl, (p, *ctrl.shape)).reshape(p * b, *ctrl.shape[1:])
        out = self._engine.simulate(fields, start.reshape(p * b, -1), tiled)
        sensordata = out.sensordata.reshape(p, b, *out.sensordata.shape[1:])
        return self.windows.at_samples(sensordata + self.vector.sensor_bias(z)[:, None, None])
