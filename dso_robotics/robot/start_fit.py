"""The state of one sample from sensors of any kind: of frames, sites, balls and tendons, and in closed loops.

The position is the one that explains the readings of position sensors best and satisfies the equality constraints; the
velocity explains the slopes of those readings and the velocity sensors. What neither sees stays near a given state.
"""

import dataclasses

import mujoco
import numpy as np

from dso_robotics.data.match import Channels
from dso_robotics.data.quaternion import Places, continuous
from dso_robotics.physics.closure import Closure

_S = mujoco.mjtSensor
_POSITIONS = frozenset(
    int(kind)
    for kind in (
        _S.mjSENS_JOINTPOS,
        _S.mjSENS_BALLQUAT,
        _S.mjSENS_TENDONPOS,
        _S.mjSENS_ACTUATORPOS,
        _S.mjSENS_FRAMEPOS,
        _S.mjSENS_FRAMEQUAT,
        _S.mjSENS_FRAMEXAXIS,
        _S.mjSENS_FRAMEYAXIS,
        _S.mjSENS_FRAMEZAXIS,
        _S.mjSENS_SUBTREECOM,
        _S.mjSENS_MAGNETOMETER,
    )
)
_VELOCITIES = frozenset(
    int(kind)
    for kind in (
        _S.mjSENS_JOINTVEL,
        _S.mjSENS_BALLANGVEL,
        _S.mjSENS_TENDONVEL,
        _S.mjSENS_ACTUATORVEL,
        _S.mjSENS_FRAMELINVEL,
        _S.mjSENS_FRAMEANGVEL,
        _S.mjSENS_GYRO,
        _S.mjSENS_VELOCIMETER,
        _S.mjSENS_SUBTREELINVEL,
    )
)
# Weights beside readings, which count in their own spread: of the given state, and of slopes beside measured velocities.
_STAY, _SLOPE = 1e-3, 0.3
_ITERATIONS, _STEP = 30, 1e-6
# Weight of a loop that is open by the mean size of a body.
_CLOSED = 1e3


def oriented(values: np.ndarray, places: Places) -> np.ndarray:
    """`values` (T, C) with quaternions of unit length that do not change their sign from one sample to the next."""
    out, _ = continuous(values, places)
    for place in map(list, places):
        out[:, place] /= np.maximum(np.linalg.norm(out[:, place], axis=1, keepdims=True), 1e-12)
    return out


@dataclasses.dataclass(frozen=True, eq=False)
class Readings:
    """What C channels show at T samples; NaN where unknown.

    value, rate: (T, C), readings and their slopes.
    spread, rate_spread: (C,), their standard deviations over the recording.
    """

    value: np.ndarray
    rate: np.ndarray
    spread: np.ndarray
    rate_spread: np.ndarray


class StartFit:
    """Fits states of `model` to the readings of `channels`."""

    def __init__(self, model: mujoco.MjModel, channels: Channels):
        self._closure = Closure(model)
        self._channels = channels
        kinds = model.sensor_type[channels.sensor_ids]
        self._positions = np.isin(kinds, list(_POSITIONS))
        self._velocities = np.isin(kinds, list(_VELOCITIES))
        self._quaternions = [list(place) for place in channels.quaternions]

    @property
    def informed(self) -> bool:
        """Whether any sensor or constraint tells about the state."""
        return bool(self._positions.any() or self._velocities.any() or self._closure.rows)

    @property
    def loops(self) -> bool:
        """Whether the model has active equality constraints."""
        return self._closure.rows > 0

    def _read(self, qpos: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Readings (C,) of position sensors, and open loops (rows,), at `qpos`."""
        closure = self._closure
        away = closure.violation(qpos)
        mujoco.mj_sensorPos(closure.model, closure.data)
        return np.array(closure.data.sensordata[self._channels.sensor_addresses]), away

    def _linearize(self, qpos: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        closure = self._closure
        read, away = self._read(qpos)
        pairs = [self._read(closure.moved(qpos, d)) for d in _STEP * np.eye(closure.model.nv)]
        by_q = [np.stack([(p[j] - (read, away)[j]) / _STEP for p in pairs], -1) for j in (0, 1)]
        return read, away, by_q[0], by_q[1]

    def position(self, near: list[np.ndarray], readings: Readings, sample: int) -> np.ndarray:
        """The position (nq,) at a sample, by damped Gauss-Newton steps from the best of `near`, and near the first of them."""
        closure, nv = self._closure, self._closure.model.nv
        value = readings.value[sample].copy()
        used = self._positions & np.isfinite(value)
        weight = np.where(used, 1 / readings.spread, 0.0)
        shut = _CLOSED / closure.length

        def apart(read: np.ndarray) -> np.ndarray:
            target = value.copy()
            for columns in self._quaternions:
                if target[columns] @ read[columns] < 0:
                    target[columns] *= -1
            return np.where(used, read - np.where(used, target, 0.0), 0.0) * weight

        def stray(q: np.ndarray) -> np.ndarray:
            change = np.zeros(nv)
            mujoco.mj_differentiatePos(
                closure.model, change, 1.0, np.ascontiguousarray(near[0]), np.ascontiguousarray(q)
            )
            return _STAY * change

        def residual(q: np.ndarray) -> np.ndarray:
            read, away = self._read(q)
            return np.concatenate([apart(read), shut * away, stray(q)])

        costs = [float(np.sum(residual(q) ** 2)) for q in near]
        q, damping, cost = np.array(near[int(np.argmin(costs))], float), 1e-4, min(costs)
        for _ in range(_ITERATIONS):
            read, away, by_q, open_by_q = self._linearize(q)
            rows = np.concatenate([apart(read), shut * away, stray(q)])
            slope = np.concatenate([by_q * weight[:, None], shut * open_by_q, _STAY * np.eye(nv)])
            square = slope.T @ slope
            scale = np.diag(square) + 1e-9
            new, new_cost = q, np.inf
            while new_cost >= cost and damping < 1e6:
                new = closure.moved(q, -np.linalg.solve(square + damping * np.diag(scale), slope.T @ rows))
                new_cost = float(np.sum(residual(new) ** 2))
                damping *= 8
            if not new_cost < cost:
                break
            damping /= 8
            done = cost - new_cost < 1e-9 * cost
            q, cost, damping = new, new_cost, max(damping / 8, 1e-9)
            if done:
                break
        return q

    def velocity(
        self, qpos: np.ndarray, near: np.ndarray, readings: Readings, sample: int, rate: np.ndarray | None = None
    ) -> np.ndarray:
        """The velocity (nv,) at a sample whose position is `qpos`, by least squares; `rate` (nv,) is the slope of qpos."""
        closure, nv = self._closure, self._closure.model.nv
        read, _, by_q, open_by_q = self._linearize(qpos)
        slopes, values = readings.rate[sample].copy(), readings.value[sample]
        for columns in self._quaternions:
            if values[columns] @ read[columns] < 0:
                slopes[columns] *= -1
        sloped = self._positions & np.isfinite(slopes)
        direct = self._velocities & np.isfinite(values)
        data, columns = closure.data, []
        self._read(qpos)
        for v in (np.zeros(nv), *np.eye(nv)):
            data.qvel[:] = v
            mujoco.mj_fwdVelocity(closure.model, data)
            mujoco.mj_sensorVel(closure.model, data)
            columns.append(np.array(data.sensordata[self._channels.sensor_addresses]))
        still, by_v = columns[0], np.stack(columns[1:], -1) - columns[0][:, None]
        stay = _STAY if rate is None else 1.0
        blocks = [
            (by_q[sloped], slopes[sloped], _SLOPE / readings.rate_spread[sloped]),
            (by_v[direct], (values - still)[direct], 1 / readings.spread[direct]),
            (open_by_q, np.zeros(len(open_by_q)), np.full(len(open_by_q), _CLOSED / closure.length)),
            (np.eye(nv), near if rate is None else rate, np.full(nv, stay)),
        ]
        matrix = np.concatenate([w[:, None] * a for a, _, w in blocks])
        target = np.concatenate([w * b for _, b, w in blocks])
        return np.linalg.lstsq(matrix, target, rcond=None)[0]
