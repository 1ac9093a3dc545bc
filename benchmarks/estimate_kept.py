"""Kalman filters and smoothers of maintained libraries: dynamax (EKF, UKF, RTS smoother) and cuthbert (EKF).

This needs their environment, `make bench-filters`. `benchmarks/estimate.py` uses this file if they can be imported. The
dynamics are the differentiable step of MuJoCo (MJX). It equals C MuJoCo to 1e-10; `check_step` asserts this before tuning.
"""

from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from scipy.optimize import minimize

from dso_robotics.parameters.vector import ParameterVector
from dso_robotics.robot.filter_data import FilterWindows
from dso_robotics.robot.filter_mjx import MjxSystem

# dynamax adds 1e-9 to the diagonal of what it inverts, so states and readings are given to it in hundredths.
_UNIT = 0.01


def first_noise(model: mujoco.MjModel, given: FilterWindows) -> np.ndarray:
    """Where the search for the noise begins: log deviations."""
    sensors = np.log(0.3 * np.nanstd(given.measured, (0, 1)))
    return np.concatenate([np.full(model.nv, -7.0), np.full(model.nv, -3.0), sensors])


class Kept:
    """Filters of the model in `given`, which has hinges and slides only; noise: log deviations [process (2 nv), sensors]."""

    def __init__(self, model: mujoco.MjModel, given: FilterWindows):
        self.model, self.n = model, 2 * model.nv
        self.system = MjxSystem(
            ParameterVector((), model), given.channels.sensor_addresses, given.interval, given.substeps
        )
        mjx = self.system.prepare(jnp.zeros(0))
        self.step = lambda x, u: self.system.advance(mjx, x * _UNIT, u) / _UNIT
        self.read = lambda x, u: self.system.read(mjx, x * _UNIT, u) / _UNIT
        self._compiled: dict[str, Any] = {}
        self.check_step(given)

    def check_step(self, given: FilterWindows, count: int = 100) -> float:
        """The largest difference of one step from C MuJoCo's, over states and controls of the log."""
        data, worst = mujoco.MjData(self.model), 0.0
        assert given.substeps == 1
        step = jax.jit(self.step)
        for x, u in zip(given.start[:count], given.ctrl[:count, 0], strict=True):
            data.qpos[:], data.qvel[:] = x[: self.model.nq], x[self.model.nq :]
            data.ctrl[:] = u
            mujoco.mj_step(self.model, data)
            ours = np.asarray(step(jnp.asarray(x / _UNIT), jnp.asarray(u))) * _UNIT
            worst = max(worst, float(np.abs(ours - np.concatenate([data.qpos, data.qvel])).max()))
        assert worst < 1e-10, f"the dynamics differ from C MuJoCo's by {worst}"
        return worst

    def _parameters(self, start: jax.Array, ctrl: jax.Array, noise: jax.Array) -> tuple[Any, jax.Array]:
        """dynamax's parameters and inputs. The prior is for the first filtered sample, which is the second of the log."""
        from dynamax.nonlinear_gaussian_ssm import ParamsNLGSSM

        q, r = (jnp.diag(jnp.exp(2 * part) / _UNIT**2) for part in (noise[: self.n], noise[self.n :]))
        x, u = start / _UNIT, ctrl[0]
        a = jax.jacfwd(self.step)(x, u)
        prior = 1e-2 * jnp.eye(self.n) / _UNIT**2
        return ParamsNLGSSM(self.step(x, u), a @ prior @ a.T + q, self.step, q, self.read, r), ctrl[:-1]

    def _run(
        self, kind: str, start: jax.Array, ctrl: jax.Array, measured: jax.Array, noise: jax.Array
    ) -> dict[str, Any]:
        """One window: log-likelihood, predicted readings and states after each measurement; and smoothed states."""
        from dynamax.nonlinear_gaussian_ssm import inference_ekf, inference_ukf

        parameters, u = self._parameters(start, ctrl, noise)
        y = measured[1:] / _UNIT
        if kind == "ekf":
            found = inference_ekf.extended_kalman_filter(parameters, y, inputs=u)
            smoothed = inference_ekf.extended_kalman_smoother(parameters, y, filtered_posterior=found, inputs=u)
        else:
            settings = inference_ukf.UKFHyperParams(alpha=3.0**0.5)
            found = inference_ukf.unscented_kalman_filter(parameters, y, settings, inputs=u)
            smoothed = inference_ukf.unscented_kalman_smoother(parameters, y, settings, inputs=u)
        ahead = jnp.concatenate([parameters.initial_mean[None], found.predicted_means])
        predicted = jax.vmap(self.read)(ahead, u)
        return {
            "likelihood": found.marginal_loglik,
            "predicted": predicted * _UNIT,
            "states": found.filtered_means * _UNIT,
            "smoothed": smoothed.smoothed_means * _UNIT,
        }

    def _batch(self, kind: str) -> Any:
        if kind not in self._compiled:

            def one(x: jax.Array, u: jax.Array, y: jax.Array, noise: jax.Array) -> dict[str, Any]:
                return self._run(kind, x, u, y, noise)

            self._compiled[kind] = jax.jit(jax.vmap(one, in_axes=(0, 0, 0, None)))
        return self._compiled[kind]

    def tune(self, kind: str, given: FilterWindows, begin: np.ndarray, most: int) -> np.ndarray:
        """Noise of maximum likelihood on every other window, by Nelder-Mead."""
        data = [jnp.asarray(part[::2]) for part in (given.start, given.ctrl, given.measured)]
        run = self._batch(kind)

        def cost(noise: np.ndarray) -> float:
            value = -float(np.sum(run(*data, jnp.asarray(noise))["likelihood"])) if np.abs(noise).max() < 20 else np.inf
            return value if np.isfinite(value) else 1e12

        simplex = begin + np.concatenate([np.zeros((1, len(begin))), 1.5 * np.eye(len(begin))])
        settings = {"maxfev": most, "initial_simplex": simplex, "fatol": 0.5}
        return minimize(cost, begin, method="Nelder-Mead", options=settings).x

    def run(self, kind: str, given: FilterWindows, noise: np.ndarray) -> dict[str, np.ndarray]:
        """All windows of `given`: innovations (B, U, ny), filtered and smoothed states (B, U, nx), log-likelihood (B,)."""
        found = self._batch(kind)(*map(jnp.asarray, (given.start, given.ctrl, given.measured)), jnp.asarray(noise))
        out = {name: np.asarray(value) for name, value in found.items()}
        return out | {"innovations": given.measured[:, 1:] - out["predicted"]}

    def cuthbert(self, given: FilterWindows, noise: np.ndarray) -> np.ndarray:
        """States (B, U, nx) after each measurement by cuthbert's EKF, in square-root form."""
        from cuthbert import filter as run_filter
        from cuthbert.gaussian import moments

        root_q, root_r = (jnp.diag(jnp.exp(part) / _UNIT) for part in (noise[: self.n], noise[self.n :]))

        def dynamics(state: Any, inputs: Any) -> tuple[Any, Any]:
            return lambda x: (self.step(x, inputs[0]), root_q), state.mean

        def sensors(state: Any, inputs: Any) -> tuple[Any, Any, Any]:
            return lambda x: (self.read(x, inputs[0]), root_r), state.mean, inputs[1]

        def one(x: jax.Array, u: jax.Array, y: jax.Array) -> jax.Array:
            made = moments.build_filter(x / _UNIT, 0.1 * jnp.eye(self.n) / _UNIT, dynamics, sensors)
            return run_filter(made, (u[:-1], y[1:] / _UNIT), made.init_prepare()).mean[1:] * _UNIT

        return np.asarray(jax.jit(jax.vmap(one))(*map(jnp.asarray, (given.start, given.ctrl, given.measured))))
