"""Identification inside a training: -log-likelihood of recorded motion under the mechanism's free parameters, supervised.

The windows, start states and predictions are those of `dso identify`. Start states follow the free biases of the sensors that
they are computed from. The noise scale of every channel is set to its maximum-likelihood value, the root mean square of that
channel's errors. What remains is sum_c n_c log rms_c, the concentrated likelihood. Where its gradient is zero, the gradient of
the full likelihood is also zero.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dso_robotics.costs.recorded import refuse_without_actions
from dso_robotics.data.log import Log
from dso_robotics.data.match import fitted, match_channels
from dso_robotics.data.windows import Windows, cut
from dso_robotics.errors import DsoError
from dso_robotics.parameters.vector import ParameterVector
from dso_robotics.physics.callback import call
from dso_robotics.physics.state import Tangent
from dso_robotics.robot.prediction import CPrediction
from dso_robotics.robot.prediction_mjx import MjxPrediction
from dso_robotics.robot.start import guess
from dso_robotics.robot.system import RobotSystem
from dso_robotics.robot.watch import Watch

# Lower limit of a noise scale, as a fraction of the channel's own spread.
_LEAST_NOISE = 1e-6
_STEP = 1e-4


class MotionLikelihood:
    """(1/N) [sum_c n_c log rms_c + prior] over the N measured numbers of a log, n_c of them in channel c.

    The log is from the existing robot, so design numbers have no effect here.
    """

    def __init__(self, prediction: MjxPrediction | CPrediction, start: np.ndarray, by_sensor: np.ndarray | None = None):
        """by_sensor: derivative (B, 2*nv+na, n) of the start states by the parameters; zero by default."""
        self.prediction, self.start = prediction, start
        windows = prediction.windows
        self.count = np.isfinite(windows.measured).sum((0, 1))
        spread = np.nanstd(windows.measured.reshape(-1, len(self.count)), axis=0)
        self._floor = np.maximum(_LEAST_NOISE * spread, 1e-12) ** 2
        mj = prediction.vector.mj
        none = np.zeros((len(start), 2 * mj.nv + mj.na, prediction.vector.size))
        self._by_sensor = none if by_sensor is None else by_sensor

    def __call__(self, chain: RobotSystem, theta: Float[Array, " n"]) -> Float[Array, ""]:
        """The cost, differentiable."""
        z = self._numbers(chain, theta)
        return self._cost(z, self._errors(z))

    def residual(self, chain: RobotSystem, theta: Float[Array, " n"]) -> Float[Array, " m"]:
        """Errors in units of their root mean squares, which have no derivative here, and whitened priors; half the sum of
        squares has the Gauss-Newton matrix of the cost."""
        z = self._numbers(chain, theta)
        errors = self._errors(z)
        rms = jax.lax.stop_gradient(jnp.sqrt((errors**2).sum((0, 1)) / self.count + self._floor))
        parts = jnp.concatenate([(errors / rms).ravel(), self.prediction.vector.prior_residual(z)])
        return parts / np.sqrt(self.count.sum())

    def by_c(self, chain: RobotSystem, theta: np.ndarray) -> float:
        """The same number, simulated on C MuJoCo."""
        z, windows = np.asarray(self._numbers(chain, np.asarray(theta))), self.prediction.windows
        vector = self.prediction.vector
        predicted = CPrediction(vector, windows, threads=1).predict(z, self._starts(z))
        return float(self._cost(z, np.where(np.isfinite(windows.measured), predicted - windows.measured, 0.0)))

    def _errors(self, z: Array) -> Array:
        prediction = self.prediction
        if isinstance(prediction, MjxPrediction):
            return prediction.errors(z, self._change(z), jnp.asarray(self.start))
        measured = prediction.windows.measured
        out = [
            jax.ShapeDtypeStruct(shape, jnp.zeros(()).dtype) for shape in (measured.shape, (*measured.shape, z.size))
        ]

        def linearised(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            y, by_z, by_start = prediction.linearize(z, self._starts(z), by_start=bool(self._by_sensor.any()))
            if by_start.size:
                by_z = by_z + np.einsum("bsck,bkn->bscn", by_start, self._by_sensor)
            return y, by_z

        predicted, slope = call(linearised, tuple(out), z)
        predicted = predicted + slope @ (z - jax.lax.stop_gradient(z))
        return jnp.where(np.isfinite(measured), predicted - np.nan_to_num(measured), 0.0)

    def _starts(self, z: np.ndarray) -> np.ndarray:
        """The start states (B, nq+nv+na) at z."""
        return Tangent(self.prediction.vector.mj).move(self.start, np.asarray(self._change(z)))

    def _change(self, z: Any) -> Any:
        """How far the start states (B, 2*nv+na) are from `start`."""
        return self._by_sensor @ (z - self.prediction.vector.initial)

    def _numbers(self, chain: RobotSystem, theta: Any) -> Any:
        assert chain.mechanism is not None
        return chain.mechanism.parameters(chain.numbers(theta))

    def _cost(self, z: Any, errors: Any) -> Any:
        xp = errors.__array_namespace__()
        squares = (errors**2).sum((0, 1)) / self.count + self._floor
        prior = 0.5 * (self.prediction.vector.prior_residual(z) ** 2).sum()
        return (0.5 * (self.count * xp.log(squares)).sum() + prior) / self.count.sum()


def identification(log: Log, chain: RobotSystem, *, window: float = 0.5) -> MotionLikelihood:
    """The cost of all recordings of `log`, in windows of `window` [s], each predicted from the recorded state.

    Raises:
      DsoError: no physical parameter is free, the model has no sensors, or the log does not fit the model or the window.
    """
    vector = chain.mechanism.vector if chain.mechanism is not None else None
    if vector is None or not vector.size:
        raise DsoError(
            f"{log.label}: identification needs physical parameters to find; free some, such as free = "
            '["joint/*/damping=0.1@0:1"]. Design numbers are no parameters of the robot that was recorded.'
        )
    if not chain.mj.nsensor:
        raise DsoError(
            f"{log.label}: the model has no sensors, so nothing of it can be compared with the log; add some."
        )
    refuse_without_actions(log)
    log, _ = fitted(log, chain.mj)
    channels = match_channels(log, chain.mj)
    windows = cut(
        log.rollouts,
        channels,
        timestep=float(chain.mj.opt.timestep),
        seconds=window,
        source=log.label,
        option="window =",
    )
    if windows.single:
        raise DsoError(f"{log.label}: with window = 0 nothing is simulated, so the log says nothing of the motion.")
    start = guess(windows, vector.mj, vector.signals(vector.initial))
    prediction = CPrediction(vector, windows) if isinstance(chain.watch, Watch) else MjxPrediction(vector, windows)
    return MotionLikelihood(prediction, start, _starts_by_sensors(vector, windows))


def _starts_by_sensors(vector: ParameterVector, windows: Windows) -> np.ndarray:
    """Derivative (B, 2*nv+na, n) of the guessed start states by biases and scales of sensors, at the initial parameters."""
    tangent, found = Tangent(vector.mj), np.zeros((len(windows), 2 * vector.mj.nv + vector.mj.na, vector.size))
    for p, here in vector.places():
        if not any(slot.field in ("sensor_bias", "sensor_scale") for slot in p.slots):
            continue
        for k in range(here.start, here.stop):
            move = np.zeros(vector.size)
            move[k] = _STEP * vector.scale[k]
            ends = [guess(windows, vector.mj, vector.signals(vector.initial + side * move)) for side in (1.0, -1.0)]
            found[..., k] = tangent.difference(ends[1], ends[0]) / (2 * move[k])
    return found
