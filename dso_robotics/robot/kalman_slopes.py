"""Predictions and readings of many states at once with their derivatives, for a Kalman filter and its smoother, on C MuJoCo."""

import mujoco
import numpy as np
from mujoco import batch

from dso_robotics.physics.batch import set_fields
from dso_robotics.robot.estimator_space import Space
from dso_robotics.robot.filter import needed_stage
from dso_robotics.robot.filter_data import FilterWindows
from dso_robotics.robot.kalman_theta import KalmanTheta

# Steps of the finite differences: in the tangent space, and of the physics in units of their scales. The second are larger,
# since the derivative of A and H divides twice.
_STEP, _PHYSICS_STEP = 1e-6, 1e-4
# Fewer simulations than this are done by one thread: waking others takes longer.
_ALONE = 64


class Engines:
    """Simulations of one model, kept for the next use by their number."""

    def __init__(self, model: mujoco.MjModel, sensors: np.ndarray, threads: int = 0):
        self.model, self.stage = model, needed_stage(model, sensors)
        self._threads, self._kept = threads, dict[int, batch.Batch]()

    def of(self, count: int) -> batch.Batch:
        """An engine of `count` simulations."""
        if count not in self._kept:
            threads = self._threads or (1 if count < _ALONE else 0)
            self._kept[count] = batch.Batch(self.model, count, threads)
        return self._kept[count]


class Slopes:
    """Linearises B states beside each other, by forward differences at z (n,).

    derivatives: also by the physics. uniform: every prediction takes the usual interval.
    """

    def __init__(
        self,
        engines: Engines,
        theta: KalmanTheta,
        given: FilterWindows,
        z: np.ndarray,
        many: int,
        *,
        derivatives: bool = False,
        uniform: bool = False,
    ):
        self.space = space = Space(theta.physics.mj)
        self.b, self.k, self.ny = many, space.size, len(given.channels.sensor_names)
        self.biases = theta.noise(z).drifting
        self.size = self.k + len(self.biases)
        physics, place = theta.physics, theta.physical(z)
        self.moves = _PHYSICS_STEP * (physics.scale if derivatives else np.zeros(0))
        if derivatives:
            self.moves = np.where(place + self.moves > physics.high, -self.moves, self.moves)
        self.m = len(self.moves)
        points = _points(place, self.k, self.moves)
        self.gain, self.bias = physics.sensors(
            points.reshape(1 + self.m, 1 + self.k, 1, -1), given.channels.sensor_addresses
        )
        self._stage, self._addresses = engines.stage, given.channels.sensor_addresses
        self._substeps, self._longest = given.substeps, given.interval / given.substeps
        self.engine = engine = engines.of(len(points) * many)
        set_fields(engine, engines.model, physics.fields(points) if points.shape[1] else {}, repeat=many)
        engine.reset(stage=mujoco.mjtStage.mjSTAGE_NONE)
        self._bind = {name: engine.bind(name) for name in ("qpos", "qvel", "ctrl", "sensordata")}
        self._bind |= {"act": engine.bind("act")} if space.na else {}
        self._timestep = None if uniform else engine.expand("opt.timestep")
        self._bases = _STEP * np.eye(self.k)[:, None]

    def predict(
        self, state: np.ndarray, ctrl: np.ndarray, seconds: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Forecast (B, nx), its derivative A (B, K, K), that by the physics (B, m, k), and that of A (B, m, K, K).

        seconds: (B,), one number if `uniform`.
        """
        steps = self._substeps
        if self._timestep is not None:
            steps = max(int(np.ceil(seconds.max() / self._longest - 1e-6)), 1)
            self._timestep[:] = np.tile(np.maximum(seconds / steps, 1e-12), (1 + self.m) * (1 + self.k)).reshape(
                self._timestep.shape
            )
        self._place(self._beside(state))
        self._steer(ctrl)
        self.engine.step(nstep=steps)
        ends = np.concatenate([self._bind[name] for name in ("qpos", "qvel", "act") if name in self._bind], -1)
        ends = ends.reshape(1 + self.m, 1 + self.k, self.b, self.space.width)
        off = self.space.difference(ends[:, :1], ends[:, 1:])
        a = np.zeros((self.b, 1 + self.m, self.size, self.size))
        a[..., : self.k, : self.k] = off.transpose(2, 0, 3, 1) / _STEP
        a[..., range(self.k, self.size), range(self.k, self.size)] = 1.0
        by_theta = np.moveaxis(self.space.difference(ends[0, 0], ends[1:, 0]), 0, 1) / self.moves[:, None]
        return ends[0, 0].copy(), a[:, 0], by_theta, (a[:, 1:] - a[:, :1]) / self.moves[:, None, None]

    def read(
        self, state: np.ndarray, offset: np.ndarray, ctrl: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Readings (B, ny) in `state`, their derivative H (B, ny, K), that by the physics (B, m, ny), and that of H.

        ctrl: (B, nu); None for that of the last prediction.
        """
        self._place(self._beside(state))
        if ctrl is not None:
            self._steer(ctrl)
        self.engine.forward(stage=self._stage)
        rows = self._bind["sensordata"][:, self._addresses]
        rows = rows.reshape(1 + self.m, 1 + self.k, self.b, self.ny) * self.gain + self.bias + offset
        h = np.zeros((self.b, 1 + self.m, self.ny, self.size))
        h[..., : self.k] = (rows[:, 1:] - rows[:, :1]).transpose(2, 0, 3, 1) / _STEP
        h[..., self.biases, self.k + np.arange(len(self.biases))] = 1.0
        by_theta = np.moveaxis(rows[1:, 0] - rows[0, 0], 0, 1) / self.moves[:, None]
        return rows[0, 0], h[:, 0], by_theta, (h[:, 1:] - h[:, :1]) / self.moves[:, None, None]

    def _steer(self, ctrl: np.ndarray) -> None:
        """The control (B, nu) of every simulation."""
        if ctrl.size:
            self._bind["ctrl"].reshape(-1, *ctrl.shape)[:] = ctrl

    def _place(self, states: np.ndarray) -> None:
        flat, nq, nv = states.reshape(-1, self.space.width), self.space.nq, self.space.nv
        self._bind["qpos"][:], self._bind["qvel"][:] = flat[:, :nq], flat[:, nq : nq + nv]
        if self.space.na:
            self._bind["act"][:] = flat[:, nq + nv :]

    def _beside(self, state: np.ndarray) -> np.ndarray:
        """`state` (B, nx) and beside it in each tangent direction, for each physics, (1 + m, 1 + k, B, nx)."""
        moved = self.space.move(state, np.broadcast_to(self._bases, (self.k, self.b, self.k)))
        return np.broadcast_to(np.concatenate([state[None], moved]), (1 + self.m, 1 + self.k, *state.shape))


def _points(place: np.ndarray, k: int, moves: np.ndarray) -> np.ndarray:
    """The physical coordinates `place` (m,) for 1 + k simulations, and as many more with each of `moves` (m or 0 numbers)."""
    moved = np.concatenate([place[None], place + np.diag(moves)]) if len(moves) else place[None]
    return np.repeat(moved, 1 + k, axis=0)
