"""Estimation on a log: -log r(y[t+1] | prediction from y[0..t]) of the system's own estimator (the estimation row of (98)).

The estimator of the chain filters windows of the log. Its errors are the innovations. Their standard deviations are part of the
block "corrector". The cost moves the corrector, the physical model that the estimator predicts with, and the sensors' bias,
scale and delay. It is the one-step likelihood that `dso estimate` minimises, with normal noise.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dso_robotics.core import devices
from dso_robotics.costs.recorded import refuse_without_actions
from dso_robotics.costs.supervised import existing
from dso_robotics.data.log import Log
from dso_robotics.errors import DsoError
from dso_robotics.robot import filter_data
from dso_robotics.robot.corrector import EstimatorTheta
from dso_robotics.robot.filter import CFilter
from dso_robotics.robot.filter_data import FilterWindows
from dso_robotics.robot.filter_jax import Belief, Forecast
from dso_robotics.robot.stepwise import StepwiseSystem, differentiable
from dso_robotics.robot.system import RobotSystem


class FilterLikelihood:
    """Mean over all counted readings of 0.5 (e/s)^2 + log s, with innovations e and their standard deviations s.

    log s is relative to the log of `filter.scales.innovation`, which is constant.

    windows: the windows that are filtered.
    warm_up: updates at the start of each window that do not count.
    """

    def __init__(self, windows: FilterWindows, warm_up: int):
        self.windows = windows
        self._seen = np.isfinite(windows.measured[:, 1:])
        self._seen &= (np.arange(self._seen.shape[1]) >= warm_up)[None, :, None]
        self.count = int(self._seen.sum())

    def __call__(self, chain: RobotSystem, theta: Float[Array, " n"]) -> Float[Array, ""]:
        """The cost, differentiable."""
        return self._cost(chain, theta, self._predicted(chain, existing(chain, theta)))

    def residual(self, chain: RobotSystem, theta: Float[Array, " n"]) -> Float[Array, " m"]:
        """Residuals whose Gauss-Newton matrix is that of the cost: whitened innovations, and log s minus its own value.

        The second part is zero. Its slope is what the term log s adds to the Fisher information of s.
        """
        errors = self._whitened(chain, theta, self._predicted(chain, existing(chain, theta))).ravel()
        log_scale = chain.estimator(jnp.asarray(theta))[1]
        scales = np.sqrt(self._seen.sum((0, 1))) * (log_scale - jax.lax.stop_gradient(log_scale))
        return jnp.concatenate([errors, scales]) / np.sqrt(self.count)

    def by_c(self, chain: RobotSystem, theta: np.ndarray) -> float:
        """The same number, filtered on C MuJoCo."""
        at = existing(chain, jnp.asarray(theta))
        assert chain.filter is not None
        weights = np.asarray(chain.layout.split(at)["corrector"])[: chain.filter.corrector.size]
        values = np.asarray(chain.believed_parameters(at))
        vector = EstimatorTheta(chain.filter.corrector, chain.filter.system.parameters, weights, values)  # type: ignore
        run = CFilter(vector, chain.filter.scales, self.windows, threads=1).run(
            np.concatenate([weights, values]), self.windows.start
        )
        return float(self._cost(chain, at, run.predicted))

    def _predicted(self, chain: RobotSystem, theta: Array) -> Float[Array, "B U ny"]:
        assert chain.filter is not None
        chain, filter, given = differentiable(chain), chain.filter, self.windows
        model = (*chain.model_of_the_estimator(theta), *chain.sensors(theta))
        weights, _ = chain.estimator(theta)

        def one(shared: Any, start: Array, ctrl: Array, measured: Array) -> Array:
            model, weights, theta = shared
            begun = filter.begin(model, start, ctrl[0], chain.begun(start, ctrl[0], theta))
            steps = ctrl[:-1], measured[1:]

            def updated(
                belief: Belief, ctrl: Array, measured: Array, forecast: Forecast | None
            ) -> tuple[Belief, Array]:
                return filter.update(model, weights, belief, ctrl, measured, forecast=forecast)[:2]

            if not isinstance(chain, StepwiseSystem):
                return jax.lax.scan(lambda belief, step: updated(belief, *step, None), begun, steps)[1]

            # C simulates step by step, and linearises all steps in one call.
            def played(belief: Belief, step: tuple[Array, Array]) -> tuple[Belief, tuple[Belief, Forecast]]:
                forecast: Any = chain.forecast(belief, step[0], theta)
                return updated(belief, *step, forecast)[0], (belief, forecast)

            rows = jax.lax.stop_gradient(jax.lax.scan(played, begun, steps)[1])
            believed = jax.vmap(chain.linearised, in_axes=(0, 0, 0, None))(*rows, ctrl[:-1], theta)

            def again(belief: Belief, given: tuple[Any, tuple[Array, Array]]) -> tuple[Belief, Array]:
                believed, step = given
                return updated(belief, *step, chain.predicting(believed, belief, step[0], theta))

            return jax.lax.scan(again, begun, (believed, steps))[1]

        return devices.spread(
            jax.vmap(one, in_axes=(None, 0, 0, 0)),
            (model, weights, theta),
            *map(jnp.asarray, (given.start, given.ctrl, given.measured)),
        )

    def _whitened(self, chain: RobotSystem, theta: Any, predicted: Any) -> Any:
        assert chain.filter is not None
        scale = chain.filter.scales.innovation * jnp.exp(chain.estimator(jnp.asarray(theta))[1])
        error = predicted - np.nan_to_num(self.windows.measured[:, 1:])
        return jnp.where(self._seen, error / scale, 0.0)

    def _cost(self, chain: RobotSystem, theta: Any, predicted: Any) -> Any:
        log_scale = chain.estimator(jnp.asarray(theta))[1]
        squares = 0.5 * jnp.sum(self._whitened(chain, theta, predicted) ** 2)
        return (squares + jnp.sum(self._seen.sum((0, 1)) * log_scale)) / self.count


def estimation(log: Log, chain: RobotSystem, *, window: float = 1.0, warm_up: float = 0.2) -> FilterLikelihood:
    """The cost of all recordings of `log`, in windows of `window` [s] whose first share `warm_up` does not count.

    Raises:
      DsoError: the chain has no estimator, the log does not fit the model or the window, or its samples are not one control
        step apart.
    """
    if chain.filter is None or chain.sensing is None:
        raise DsoError(
            f"{log.label}: estimation is the likelihood of an estimator's predictions, and the study has none; add an "
            "[estimator] and [sensors]."
        )
    if chain.delay:
        raise DsoError(
            f"{log.label}: an estimator filters the controls of a log as recorded, but the policy has a delay of "
            f"{chain.delay} control step(s); set delay = 0 and shift the log, or leave the log out."
        )
    refuse_without_actions(log)
    channels = filter_data.select_channels(log, chain.mj, chain.sensing.names)
    interval, substeps = filter_data.common_interval(log.rollouts, float(chain.mj.opt.timestep), log.label)
    if substeps != chain.substeps:
        raise DsoError(
            f"{log.label}: its samples are {interval:g} s apart, but the estimator is updated every "
            f"{chain.sensing.interval:g} s; set control_step = {interval:g}, or resample the log with `dso convert`."
        )
    cut = {"interval": interval, "substeps": substeps, "source": log.label}
    windows = filter_data.cut_windows(log.rollouts, channels, chain.mj, seconds=window, **cut)
    return FilterLikelihood(windows, round(warm_up * (windows.measured.shape[1] - 1)))
