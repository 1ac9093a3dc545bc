"""Predictions of a robot with a `JointNetwork`, and their gradient by the network's weights from an adjoint on C MuJoCo.

The network acts through its own motors, one on each of its joints. The trajectories of all windows are simulated together,
step by step. All steps are then linearised in one batch, and the adjoint runs backwards. JAX differentiates only the network.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from mujoco import batch

from dso_robotics.data.windows import Windows
from dso_robotics.errors import DsoError
from dso_robotics.physics.batch import BatchEngine
from dso_robotics.physics.sensitivity import linearize_steps
from dso_robotics.physics.state import Tangent
from dso_robotics.robot.joint_network import JointNetwork
from dso_robotics.robot.signals import arriving, commanded, reported


class DivergedError(DsoError):
    """A window diverges with these weights, so there is no gradient."""


def with_motors(spec: mujoco.MjSpec, joints: tuple[str, ...]) -> mujoco.MjModel:
    """`spec` with an additional motor for each of `joints`, after all other actuators."""
    spec = spec.copy()
    for name in joints:
        motor = spec.add_actuator()
        motor.name = f"network on {name}"
        motor.trntype, motor.target = mujoco.mjtTrn.mjTRN_JOINT, name
        motor.gear = [1.0, 0, 0, 0, 0, 0]
    return spec.compile()


@dataclasses.dataclass(frozen=True)
class Path:
    """Simulated windows.

    state: (B, T+1, nq+nv+na).
    ctrl: controls, with the network's torques, (B, T, nu).
    sensordata: (B, T, ns).
    """

    state: np.ndarray
    ctrl: np.ndarray
    sensordata: np.ndarray


class NetworkPrediction:
    """Predicts `windows` with `model`, whose last actuators are the network's motors.

    signals: signal parameters at one parameter point.
    """

    def __init__(self, model: mujoco.MjModel, network: JointNetwork, windows: Windows, signals: dict[str, np.ndarray]):
        self.model, self.network, self.windows, self.signals = model, network, windows, signals
        self.steps = 0
        self._engine = BatchEngine(model)
        self._tangent = Tangent(model)
        self._slopes = jax.jit(jax.vmap(jax.jacfwd(network, argnums=(1, 2)), in_axes=(None, 0, 0, 0)))
        self._pull = jax.jit(self._weight_gradient)

    def predict(self, weights: np.ndarray, start: np.ndarray) -> np.ndarray:
        """Readings (B, S, C) of all windows from start states (B, nq+nv+na)."""
        return self.read(self.simulate(weights, start, self.windows), self.windows)

    def simulate(self, weights: np.ndarray, start: np.ndarray, windows: Windows) -> Path:
        """Simulate the trajectories of `windows`, with one batch call for each step."""
        ctrl, past, drive = windows.ctrl, windows.past, windows.drive
        if drive is not None:
            ctrl, past = commanded(ctrl, past, drive.values, drive.share, self.signals["controller_gain"])
        if "actuator_delay" in self.signals:
            delay = np.tile(self.signals["actuator_delay"], (len(windows), 1))
            ctrl = arriving(ctrl, past, delay, windows.timestep)
        model, (b, t) = self.model, ctrl.shape[:2]
        self.steps += b * t
        engine = batch.Batch(model, b, 0, persistent=True)
        engine.reset(stage=mujoco.mjtStage.mjSTAGE_NONE)
        parts = [engine.bind(name) for name in ("qpos", "qvel") + (("act",) if model.na else ())]
        for part, value in zip(parts, np.split(start, [model.nq, model.nq + model.nv], axis=1), strict=False):
            part[:] = value
        state, going = np.empty((b, t + 1, start.shape[1])), np.ones((b, t + 1), bool)
        sensordata, played = np.empty((b, t, model.nsensordata)), np.empty((b, t, model.nu))
        state[:, 0] = start
        for k in range(t):
            played[:, k, : model.nu - len(self.network.joints)] = ctrl[:, k]
            torque = self.network(weights, parts[0], parts[1], ctrl[:, k])
            played[:, k, model.nu - len(self.network.joints) :] = torque
            engine.bind("ctrl")[:] = played[:, k]
            engine.step()
            sensordata[:, k] = engine.bind("sensordata")
            state[:, k + 1] = np.concatenate(parts, axis=1)
            going[:, k + 1] = np.abs(engine.bind("time").ravel() / model.opt.timestep - (k + 1)) < 0.5
        going = np.logical_and.accumulate(going & np.isfinite(state).all(-1), axis=1)
        return Path(np.where(going[..., None], state, np.nan), played, np.where(going[:, 1:, None], sensordata, np.nan))

    def read(self, path: Path, windows: Windows) -> np.ndarray:
        """Readings (B, S, C) of simulated windows."""
        delay = self.signals.get("sensor_delay")
        late = None if delay is None else np.tile(delay, (len(windows), 1))
        return windows.at_samples(reported(path.sensordata, self.signals), late)

    def gradient(
        self,
        weights: np.ndarray,
        start: np.ndarray,
        windows: Windows,
        slope: Callable[[np.ndarray], tuple[float, np.ndarray]],
    ) -> tuple[float, np.ndarray]:
        """A cost of the readings and its gradient (size,) by the weights.

        `slope` maps readings (B, S, C) to the cost and its derivative by the readings. Raises DivergedError if a window
        diverges.
        """
        path = self.simulate(weights, start, windows)
        if not np.isfinite(path.state).all():
            raise DivergedError("a window diverged with these network weights; take smaller steps.")
        cost, by_reading = slope(self.read(path, windows))
        by_sensor = _spread(by_reading, windows, path.sensordata.shape, self.signals)
        model, (b, t) = self.model, path.ctrl.shape[:2]
        flat = path.state[:, :-1].reshape(b * t, -1)
        self.steps += b * t * (1 + self._tangent.size + model.nu)
        j = linearize_steps(self._engine, flat, path.ctrl.reshape(b * t, -1))
        given = model.nu - len(self.network.joints)
        qpos, qvel = flat[:, : model.nq], flat[:, model.nq : model.nq + model.nv]
        ctrl = path.ctrl.reshape(b * t, -1)[:, :given]
        # The network's joints are hinges and slides, so their coordinates equal their tangent coordinates.
        by_q, by_v = map(np.asarray, self._slopes(jnp.asarray(weights), qpos, qvel, ctrl))
        by_state = np.zeros((b * t, len(self.network.joints), self._tangent.size))
        by_state[..., list(self.network.dofs)] = by_q[..., list(self.network.qpos)]
        by_state[..., model.nv : 2 * model.nv] = by_v

        def shaped(matrix: np.ndarray) -> np.ndarray:
            return matrix.reshape(b, t, *matrix.shape[1:])

        own_state, own_sensor = j.state_by_ctrl[..., given:], j.sensor_by_ctrl[..., given:]
        moves, reads = (
            shaped(j.state_by_state + own_state @ by_state),
            shaped(j.sensor_by_state + own_sensor @ by_state),
        )
        own_state, own_sensor = shaped(own_state), shaped(own_sensor)
        pull, adjoint = np.zeros((b, t, len(self.network.joints))), np.zeros((b, self._tangent.size))
        for k in reversed(range(t)):
            pull[:, k] = np.einsum("bij,bi->bj", own_state[:, k], adjoint)
            pull[:, k] += np.einsum("bij,bi->bj", own_sensor[:, k], by_sensor[:, k])
            adjoint = np.einsum("bij,bi->bj", moves[:, k], adjoint) + np.einsum(
                "bij,bi->bj", reads[:, k], by_sensor[:, k]
            )
        by_weights = self._pull(jnp.asarray(weights), qpos, qvel, ctrl, pull.reshape(b * t, -1))
        return cost, np.asarray(by_weights)

    def _weight_gradient(
        self, weights: jax.Array, qpos: jax.Array, qvel: jax.Array, ctrl: jax.Array, pull: jax.Array
    ) -> jax.Array:
        return jax.grad(lambda w: jnp.sum(self.network(w, qpos, qvel, ctrl) * pull))(weights)


def _spread(
    by_reading: np.ndarray, windows: Windows, shape: tuple[int, ...], signals: dict[str, np.ndarray]
) -> np.ndarray:
    """The transpose of `read`: the derivative by sensordata (B, T, ns) on the grid, from that by the readings (B, S, C)."""
    channels, (b, t, _) = windows.channels, shape
    place = (windows.step + windows.share)[..., None] * np.ones(len(channels.sensor_addresses))
    if "sensor_delay" in signals:
        place = np.maximum(place - signals["sensor_delay"][channels.sensor_ids] / windows.timestep, 0.0)
    step = np.minimum(np.floor(place).astype(int), t - 1)
    share = place - step
    by_sensor = np.zeros(shape)
    index = np.arange(b)[:, None, None], step, channels.sensor_addresses[None, None]
    np.add.at(by_sensor, index, (1 - share) * by_reading)
    np.add.at(by_sensor, (index[0], np.minimum(step + 1, t - 1), index[2]), share * by_reading)
    return by_sensor * signals["sensor_scale"] if "sensor_scale" in signals else by_sensor
