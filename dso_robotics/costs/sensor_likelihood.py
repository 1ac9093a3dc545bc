"""Calibration: -log r(y | h(x)) of recorded readings at recorded states (the calibration row of equation (98)).

The states are data, so nothing is simulated. The cost moves the sensors' bias and scale, their noise, and the physical
parameters that readings depend on, such as the position of a sensor's site.
"""

import copy
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float
from mujoco import batch

from dso_robotics.core import devices
from dso_robotics.costs.recorded import recorded_states
from dso_robotics.costs.supervised import existing
from dso_robotics.data.log import Log
from dso_robotics.data.match import sensor_channels
from dso_robotics.errors import DsoError
from dso_robotics.physics import step as physics
from dso_robotics.physics.batch import set_fields
from dso_robotics.robot.stepwise import differentiable
from dso_robotics.robot.system import RobotSystem
from dso_robotics.robot.watch import Watch

# More samples than this are thinned evenly.
_MOST = 2000
_FORCES = int(mujoco.mjtStage.mjSTAGE_ACC)


class SensorLikelihood:
    """Mean over all readings of 0.5 (e/s)^2 + log s, with errors e and the standard deviations s of the block "sensor noise".

    log s is relative to the log of the initial standard deviation.

    states: (M, nq+nv+na).
    ctrl: (M, nu), under which the readings were taken.
    measured: (M, ny), NaN where nothing was measured.
    """

    def __init__(self, chain: RobotSystem, states: np.ndarray, ctrl: np.ndarray, measured: np.ndarray):
        assert chain.sensing is not None
        self.states, self.ctrl, self.measured = states, ctrl, measured
        self._addresses = np.array(chain.sensing.addresses, int)
        self._start = np.log(chain.sensing.sigma)
        self._seen = np.isfinite(measured)
        self.count = int(self._seen.sum())

    def __call__(self, chain: RobotSystem, theta: Float[Array, " n"]) -> Float[Array, ""]:
        """The cost, differentiable."""
        return self._cost(chain, theta, self._exact(chain, theta))

    def residual(self, chain: RobotSystem, theta: Float[Array, " n"]) -> Float[Array, " m"]:
        """Residuals whose Gauss-Newton matrix is that of the cost: whitened errors, and log s minus its own value."""
        errors = self._whitened(chain, theta, self._exact(chain, theta)).ravel()
        log_noise = chain.layout.split(jnp.asarray(theta))["sensor noise"]
        scales = np.sqrt(self._seen.sum(0)) * (log_noise - jax.lax.stop_gradient(log_noise))
        return jnp.concatenate([errors, scales]) / np.sqrt(self.count)

    def by_c(self, chain: RobotSystem, theta: np.ndarray) -> float:
        """The same number, with readings of C MuJoCo."""
        at, model, count = existing(chain, jnp.asarray(theta)), chain.mj, len(self.states)
        engine = batch.Batch(copy.copy(model), count, 1)
        if chain.mechanism is not None:
            fields = chain.mechanism.fields(np.asarray(chain.numbers(at)))
            set_fields(engine, model, {k: np.asarray(v)[None] for k, v in fields.items()}, repeat=count)
        engine.reset(stage=mujoco.mjtStage.mjSTAGE_NONE)
        nq, nv, readings = model.nq, model.nv, engine.bind("sensordata")
        engine.bind("qpos")[:], engine.bind("qvel")[:] = self.states[:, :nq], self.states[:, nq : nq + nv]
        if model.na:
            engine.bind("act")[:] = self.states[:, nq + nv :]
        if model.nu:
            engine.bind("ctrl")[:] = self.ctrl
        engine.forward(stage=mujoco.mjtStage.mjSTAGE_ACC)
        return float(self._cost(chain, theta, readings[:, self._addresses].copy()))

    def _exact(self, chain: RobotSystem, theta: Array) -> Float[Array, "M ny"]:
        theta, nq, nv = existing(chain, theta), chain.mj.nq, chain.mj.nv
        if isinstance(chain.watch, Watch):
            on_c = differentiable(chain)

            def shown(state: Array, ctrl: Array) -> Array | None:
                there = eqx.tree_at(lambda s: s.ctrl, on_c.rest(state[:nq], state[nq : nq + nv]), ctrl)
                return on_c.shown_readings(on_c.watched(there, theta).shown)

            found: Any = jax.vmap(shown)(jnp.asarray(self.states), jnp.asarray(self.ctrl))
            return found
        model, products = chain.model(theta)

        def one(shared: Any, state: Array, ctrl: Array) -> Array:
            model, products = shared
            body = physics.make_state(model, state[:nq], state[nq : nq + nv], state[nq + nv :])
            return physics.measure(model, body, ctrl, products=products)[self._addresses]

        return devices.spread(
            jax.vmap(one, in_axes=(None, 0, 0)), (model, products), jnp.asarray(self.states), jnp.asarray(self.ctrl)
        )

    def _whitened(self, chain: RobotSystem, theta: Any, exact: Any) -> Any:
        scale, bias, _ = chain.sensors(existing(chain, jnp.asarray(theta)))
        log_noise = chain.layout.split(jnp.asarray(theta))["sensor noise"]
        error = scale * exact + bias - np.nan_to_num(self.measured)
        return jnp.where(self._seen, error * jnp.exp(-log_noise), 0.0)

    def _cost(self, chain: RobotSystem, theta: Any, exact: Any) -> Any:
        log_noise = chain.layout.split(jnp.asarray(theta))["sensor noise"] - self._start
        squares = 0.5 * jnp.sum(self._whitened(chain, theta, exact) ** 2)
        return (squares + jnp.sum(self._seen.sum(0) * log_noise)) / self.count


def calibration(log: Log, chain: RobotSystem) -> SensorLikelihood:
    """The cost of all samples of `log` at which the state was recorded.

    Raises:
      DsoError: the study has no sensors, the log lacks states or a channel, or a sensor has a delay.
    """
    if chain.sensing is None:
        raise DsoError(f"{log.label}: calibration compares readings, and the study has no [sensors]; add them.")
    if chain.sensing.oldest:
        raise DsoError(
            f"{log.label}: calibration compares readings with the state at the same time, and a sensor has a delay; find the "
            'delay with kind = "estimation" or "identification", or remove it.'
        )
    mj, every, parts = chain.mj, sensor_channels(chain.mj), []
    for rollout in log.rollouts:
        where = f"{log.label}, rollout {rollout.name!r}"
        count = len(rollout.time)
        state = recorded_states(rollout, mj, log.label, "calibration", gaps=True)
        missing = [name for name in chain.sensing.names if name not in rollout.sensor_names]
        if missing or rollout.sensordata is None:
            has = ", ".join(rollout.sensor_names) or "none"
            raise DsoError(f"{where}: it has no channel {missing[0] if missing else 'at all'!r}; it has {has}.")
        if mj.na:
            raise DsoError(f"{where}: a log does not hold activations, which this model has; calibration needs them.")
        columns = [rollout.sensor_names.index(name) for name in chain.sensing.names]
        ctrl = np.zeros((count, mj.nu))
        if rollout.ctrl is not None and np.shape(rollout.ctrl)[1] == mj.nu:
            names = [mj.actuator(i).name for i in range(mj.nu)]
            ctrl = rollout.ctrl[:, [rollout.ctrl_names.index(name) for name in names]]
        elif any(
            int(mj.sensor_needstage[every[name][0]]) >= int(mujoco.mjtStage.mjSTAGE_ACC) for name in chain.sensing.names
        ):
            raise DsoError(
                f"{where}: an accelerometer or force sensor depends on the actions, which were not recorded."
            )
        parts.append([state, ctrl, rollout.sensordata[:, columns]])
    states, ctrl, measured = (np.concatenate(column) for column in zip(*parts, strict=True))
    keep = np.isfinite(states).all(1) & np.isfinite(measured).any(1)
    rows = np.flatnonzero(keep)
    if not len(rows):
        raise DsoError(f"{log.label}: at no time were both a state and a reading recorded.")
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _MOST)).round().astype(int))]
    return SensorLikelihood(chain, states[rows], ctrl[rows], measured[rows])
