"""The estimator chain (99) on the C engine, for many windows and many parameter values at once, with derivatives.

x[t+1] = c(f(x[t], u[t]), y[t+1]): MuJoCo predicts over one interval, and the corrector moves the prediction in its tangent
space. Derivatives are forward differences, with one simulation for each parameter. This is the cheapest method for a small
corrector with few parameters, and it needs no compilation. A delayed sensor shows its reading in the earlier estimated
states, interpolated between updates.
"""

from dataclasses import dataclass

import mujoco
import numpy as np
from mujoco import batch

from dso_robotics.data.quaternion import facing
from dso_robotics.physics.batch import set_fields, without_reset
from dso_robotics.robot.corrector import EstimatorTheta, Scales
from dso_robotics.robot.estimator_space import Space
from dso_robotics.robot.filter_data import FilterWindows

_STEP = 1e-6
# Number of simulations run together. It bounds the memory, whatever the number of parameters.
_PIECE = 8192


@dataclass(frozen=True, eq=False)
class Filtered:
    """The result of a filter: predicted readings (..., T-1, ny) before each correction, and states (..., T-1, nx) after it."""

    predicted: np.ndarray
    states: np.ndarray


def needed_stage(model: mujoco.MjModel, sensors: np.ndarray) -> int:
    """The stage of MuJoCo's forward computation at which all of `sensors` are known."""
    return int(max(model.sensor_needstage[i] for i in sensors))


class CFilter:
    """Runs the chain for `windows`.

    visible: (T,) False at samples that the corrector does not see, to predict ahead.
    """

    name = "mujoco"

    def __init__(
        self,
        vector: EstimatorTheta,
        scales: Scales,
        windows: FilterWindows,
        *,
        visible: np.ndarray | None = None,
        threads: int = 0,
    ):
        self.vector, self.scales, self.windows = vector, scales, windows
        self.steps = 0
        self.space = Space(vector.physics.mj)
        self._model = without_reset(vector.physics.mj)
        self._model.opt.timestep = windows.interval / windows.substeps
        self._threads = threads
        self._stage = needed_stage(self._model, windows.channels.sensor_ids)
        length = windows.measured.shape[1]
        self._visible = np.ones(length, bool) if visible is None else visible
        self._batches: dict[int, batch.Batch] = {}

    def run(self, z: np.ndarray, start: np.ndarray) -> Filtered:
        """Run the chain at z (n,) from starts (B, nx)."""
        out = self._pieces(z[None], start)
        return Filtered(out.predicted[0], out.states[0])

    def run_beside(self, z: np.ndarray, starts: np.ndarray) -> Filtered:
        """Run the chain at z (n,) from several starts of each window, (P, B, nx). Results have the leading axes (P, B)."""
        return self._simulate(np.tile(z, (len(starts), 1)), starts)

    def linearize(self, z: np.ndarray, start: np.ndarray) -> tuple[Filtered, np.ndarray, np.ndarray]:
        """Run the chain at z. Also return derivatives of predictions (B, T-1, ny, n) and states (B, T-1, nx, n) by z."""
        h = _STEP * self.vector.scale
        h = np.where(z + h > self.vector.high, -h, h)
        points = np.tile(z, (1 + len(z), 1))
        points[1:] += np.diag(h)
        out = self._pieces(points, start)
        by_z = [np.moveaxis((a[1:] - a[0]) / h[:, None, None, None], 0, -1) for a in (out.predicted, out.states)]
        return Filtered(out.predicted[0], out.states[0]), by_z[0], by_z[1]

    def _pieces(self, points: np.ndarray, start: np.ndarray) -> Filtered:
        each = max(1, _PIECE // len(start))
        parts = [self._simulate(points[i : i + each], start) for i in range(0, len(points), each)]
        return Filtered(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("predicted", "states")))

    def _simulate(self, points: np.ndarray, start: np.ndarray) -> Filtered:
        vector, scales, space, given = self.vector, self.scales, self.space, self.windows
        (p, b), updates, ny = (len(points), start.shape[-2]), given.measured.shape[1] - 1, given.measured.shape[2]
        weights, physics = vector.parts(points[:, None])
        engine, addresses = self._prepare(physics[:, 0], p, b), given.channels.sensor_addresses
        quaternions = given.channels.quaternions
        gain, bias = vector.physics.sensors(physics, addresses)
        late = vector.physics.late(physics, addresses)
        nq, nv = space.nq, space.nv
        qpos, qvel, ctrl = engine.bind("qpos"), engine.bind("qvel"), engine.bind("ctrl")
        act = engine.bind("act") if space.na else None
        sensors = engine.bind("sensordata")
        state = np.broadcast_to(start, (p, b, space.width))
        memory = np.zeros((p, b, vector.corrector.memory_size))
        predicted, states = np.empty((p, b, updates, ny)), np.empty((p, b, updates, space.width))

        def place(state: np.ndarray) -> None:
            flat = state.reshape(p * b, -1)
            qpos[:], qvel[:] = flat[:, :nq], flat[:, nq : nq + nv]
            if act is not None:
                act[:] = flat[:, nq + nv :]

        def revisit(state: np.ndarray) -> np.ndarray:
            place(state)
            engine.forward(stage=self._stage)
            return sensors[:, addresses].reshape(p, b, ny)

        history = None
        if late is not None:
            history = np.empty((p, b, updates + 1, ny))
            ctrl.reshape(p, b, given.ctrl.shape[2])[:] = given.ctrl[:, 0]
            history[:, :, 0] = revisit(state)
        measured, seen = np.nan_to_num(given.measured), np.isfinite(given.measured) & self._visible[:, None]
        for t in range(updates):
            place(state)
            ctrl.reshape(p, b, given.ctrl.shape[2])[:] = given.ctrl[:, t]
            engine.step(nstep=given.substeps, stage=self._stage)
            parts = [qpos, qvel] + ([act] if act is not None else [])
            forecast = np.concatenate([a.reshape(p, b, -1) for a in parts], -1)
            reading = sensors[:, addresses].reshape(p, b, ny)
            if history is not None and late is not None:
                history[:, :, t + 1] = reading
                reading = _shown(history, t + 1, late / given.interval)
            reading = reading * gain + bias
            here = seen[:, t + 1]
            # A quaternion and its negative are one rotation: the prediction is reported with the sign of the measurement.
            sign = facing(reading, measured[:, t + 1], quaternions) if quaternions else 1.0
            predicted[:, :, t] = reading * sign
            innovation = np.where(here, (measured[:, t + 1] * sign - reading) / scales.innovation, 0.0)
            features = space.features(forecast, scales.centre, scales.state)
            change, memory = vector.corrector(
                weights, memory, innovation, np.broadcast_to(here.astype(float), (p, b, ny)), features
            )
            state = space.move(forecast, change * scales.change)
            states[:, :, t] = state
            if history is not None:
                history[:, :, t + 1] = revisit(state)
        self.steps += p * b * updates * given.substeps
        return Filtered(predicted, states)

    def _prepare(self, physics: np.ndarray, p: int, b: int) -> batch.Batch:
        """An engine with P*B simulations. Each model of `physics` (P, m) is used b times."""
        count = p * b
        if count not in self._batches:
            if len(self._batches) > 3:
                self._batches.clear()
            self._batches[count] = batch.Batch(self._model, count, self._threads)
        engine = self._batches[count]
        fields = self.vector.physics.fields(physics) if physics.shape[1] else {}
        set_fields(engine, self._model, fields, repeat=b)
        engine.reset(stage=mujoco.mjtStage.mjSTAGE_NONE)
        return engine


def _shown(history: np.ndarray, now: int, late: np.ndarray) -> np.ndarray:
    """Delayed readings (P, B, ny) from `history` (P, B, T, ny).

    `late` (P, B or 1, ny) is the delay in rows before row `now`. Before the first row, the first row is used.
    """
    place = np.clip(now - late, 0.0, now)
    before = np.minimum(np.floor(place).astype(int), now - 1)
    index = np.broadcast_to(before, (*history.shape[:2], history.shape[-1]))[:, :, None]
    older, newer = (np.take_along_axis(history, i, 2)[:, :, 0] for i in (index, index + 1))
    return older + (place - before) * (newer - older)
