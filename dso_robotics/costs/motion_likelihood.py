"""Identification inside a training: -log-likelihood of recorded motion under the mechanism's free parameters, supervised.

The windows, start states and predictions are those of `dso identify`. The noise scale of every channel is set to its
maximum-likelihood value, the root mean square of that channel's errors. What remains is sum_c n_c log rms_c, the concentrated
likelihood. Where its gradient is zero, the gradient of the full likelihood is also zero.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dso_robotics.data.log import Log
from dso_robotics.data.match import match_channels
from dso_robotics.data.windows import cut
from dso_robotics.errors import DsoError
from dso_robotics.robot.chain import RobotChain
from dso_robotics.robot.prediction import CPrediction
from dso_robotics.robot.prediction_mjx import MjxPrediction
from dso_robotics.robot.start import guess

# Lower limit of a noise scale, as a fraction of the channel's own spread.
_LEAST_NOISE = 1e-6


class MotionLikelihood:
    """(1/N) [sum_c n_c log rms_c + prior] over the N measured numbers of a log, n_c of them in channel c.

    The log is from the existing robot, so design numbers have no effect here.
    """

    def __init__(self, prediction: MjxPrediction, start: np.ndarray):
        self.prediction, self.start = prediction, start
        windows = prediction.windows
        self.count = np.isfinite(windows.measured).sum((0, 1))
        spread = np.nanstd(windows.measured.reshape(-1, len(self.count)), axis=0)
        self._floor = np.maximum(_LEAST_NOISE * spread, 1e-12) ** 2

    def __call__(self, chain: RobotChain, theta: Float[Array, " n"]) -> Float[Array, ""]:
        """The cost, differentiable through MJX."""
        z = self._numbers(chain, theta)
        change = jnp.zeros((len(self.start), 2 * chain.mj.nv + chain.mj.na))
        return self._cost(z, self.prediction.errors(z, change, jnp.asarray(self.start)))

    def by_c(self, chain: RobotChain, theta: np.ndarray) -> float:
        """The same number, simulated on C MuJoCo."""
        z, windows = np.asarray(self._numbers(chain, np.asarray(theta))), self.prediction.windows
        predicted = CPrediction(self.prediction.vector, windows, threads=1).predict(z, self.start)
        return float(self._cost(z, np.where(np.isfinite(windows.measured), predicted - windows.measured, 0.0)))

    def _numbers(self, chain: RobotChain, theta: Any) -> Any:
        assert chain.mechanism is not None
        return chain.mechanism.parameters(chain.numbers(theta))

    def _cost(self, z: Any, errors: Any) -> Any:
        xp = errors.__array_namespace__()
        squares = (errors**2).sum((0, 1)) / self.count + self._floor
        prior = 0.5 * (self.prediction.vector.prior_residual(z) ** 2).sum()
        return (0.5 * (self.count * xp.log(squares)).sum() + prior) / self.count.sum()


def identification(log: Log, chain: RobotChain, *, window: float = 0.5) -> MotionLikelihood:
    """The cost of all recordings of `log`, in windows of `window` [s], each predicted from the recorded state.

    Raises:
      DsoError: no physical parameter is free, the model has no sensors, or the log does not fit the model or the window.
    """
    vector = chain.mechanism.vector if chain.mechanism is not None else None
    if vector is None:
        raise DsoError(
            f"{log.label}: identification needs physical parameters to find; free some, such as free = "
            '["joint/*/damping=0.1@0:1"]. Design numbers are no parameters of the robot that was recorded.'
        )
    if not chain.mj.nsensor:
        raise DsoError(
            f"{log.label}: the model has no sensors, so nothing of it can be compared with the log; add some."
        )
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
    return MotionLikelihood(MjxPrediction(vector, windows), guess(windows, vector.mj))
