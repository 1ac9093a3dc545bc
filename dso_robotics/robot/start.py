"""Initial guess of the state at the start of every window, from the recorded log."""

from collections.abc import Mapping
from types import MappingProxyType

import mujoco
import numpy as np

from dso_robotics.data.match import Channels
from dso_robotics.data.rollout import Rollout
from dso_robotics.data.windows import Windows
from dso_robotics.errors import DsoError
from dso_robotics.physics.batch import BatchEngine
from dso_robotics.robot.signals import corrected
from dso_robotics.robot.start_fit import Readings, StartFit, oriented

# A velocity without a sensor is the slope of a line fitted to this many seconds of positions.
_SLOPE_SECONDS = 0.02
# Hampel filter: number of neighbours on each side, and the outlier threshold in standard deviations from their median.
_NEIGHBOURS, _FAR = 3, 6.0


def guess(
    windows: Windows,
    model: mujoco.MjModel,
    signals: Mapping[str, np.ndarray] = MappingProxyType({}),
    *,
    robust: bool = False,
) -> np.ndarray:
    """States (B, nq+nv+na) at the window starts.

    `signals` are the `ParameterVector.signals` of one point: bias, scale and delay of the sensors. With `robust`, samples that
    are outliers among their neighbours are left out.

    Recorded qpos and qvel are used where the log has them. Otherwise, position and velocity sensors on hinge and slide joints
    are used. If no velocity was measured, it is the slope of the position. Values that no sensor measures directly come from
    a simulation of the whole rollout with the unchanged model, started at rest at qpos0; they are then moved to what other
    sensors show (of frames, ball joints and tendons), and to where loops are closed, see `start_fit`.
    """
    states = np.zeros((len(windows), model.nq + model.nv + model.na))
    fit = StartFit(model, windows.channels)
    for i, rollout in enumerate(windows.rollouts):
        mine = np.flatnonzero(windows.rollout == i)
        if not len(mine):
            continue
        samples = windows.sample[mine, 0]
        recorded = recorded_states(rollout, windows.channels, model, signals, robust=robust)
        known = np.isfinite(recorded[samples][:, : model.nq + model.nv]).all()
        if not np.isfinite(recorded[samples]).all():
            _simulate_missing(recorded, rollout, windows, model)
        states[mine] = recorded[samples]
        if fit.informed and (not known or (fit.loops and rollout.qpos is None)):
            states[mine] = _fitted(fit, states[mine], rollout, samples, model, windows.channels, signals, robust)
    return states


def _fitted(
    fit: StartFit,
    states: np.ndarray,
    rollout: Rollout,
    samples: np.ndarray,
    model: mujoco.MjModel,
    channels: Channels,
    signals: Mapping[str, np.ndarray],
    robust: bool,
) -> np.ndarray:
    """`states` (K, nq+nv+na) at `samples` (K,), moved to what the sensors show; what the log recorded stays."""
    out, nq, nv = states.copy(), model.nq, model.nv
    readings = _readings(rollout, channels, signals, robust)
    for k, sample in enumerate(samples):
        qpos = out[k, :nq]
        if rollout.qpos is None:
            near = [qpos] if k == 0 else [qpos, out[k - 1, :nq]]
            out[k, :nq] = qpos = fit.position(near, readings, sample)
        if rollout.qvel is None:
            rate = None if rollout.qpos is None else _rate(model, rollout.time, rollout.qpos, sample)
            out[k, nq : nq + nv] = fit.velocity(qpos, out[k, nq : nq + nv], readings, sample, rate)
    return out


def _rate(model: mujoco.MjModel, time: np.ndarray, qpos: np.ndarray, sample: int) -> np.ndarray:
    """Slope (nv,) of recorded positions (T, nq) at a sample."""
    half = max(1, round(0.5 * _SLOPE_SECONDS / max(float(np.median(np.diff(time))), 1e-9)))
    a, b = max(sample - half, 0), min(sample + half, len(time) - 1)
    change = np.zeros(model.nv)
    mujoco.mj_differentiatePos(model, change, time[b] - time[a], *(np.ascontiguousarray(qpos[i]) for i in (a, b)))
    return change


def _readings(rollout: Rollout, channels: Channels, signals: Mapping[str, np.ndarray], robust: bool) -> Readings:
    """All channels (T, C) at the samples, without gaps, outliers and delays, and their slopes."""
    time, width = rollout.time, len(channels.sensor_ids)
    value, rate = np.full((len(time), width), np.nan), np.full((len(time), width), np.nan)
    if rollout.sensordata is not None:
        plain = corrected(rollout.sensordata, signals, channels.sensor_addresses)
        plain = oriented(plain, channels.quaternions)
        for column, sensor in enumerate(channels.sensor_ids):
            filled = _filled(time, plain[:, column], int(sensor), signals, robust)
            if filled is not None:
                value[:, column], rate[:, column] = filled, _slope(time, filled)
    spreads = [np.maximum(np.nan_to_num(np.std(x, axis=0)), 1e-6) for x in (value, rate)]
    return Readings(value, rate, *spreads)


def _filled(
    time: np.ndarray, values: np.ndarray, sensor: int, signals: Mapping[str, np.ndarray], robust: bool
) -> np.ndarray | None:
    """Readings (T,) when the sensor should have reported them, gaps and outliers bridged; None with fewer than two."""
    seen = np.isfinite(values)
    if robust:
        seen[seen] = ~_stands_out(values[seen])
    if seen.sum() < 2:
        return None
    late = signals["sensor_delay"][sensor] if "sensor_delay" in signals else 0.0
    return np.interp(time + late, time[seen], values[seen])


def recorded_states(
    rollout: Rollout,
    channels: Channels,
    model: mujoco.MjModel,
    signals: Mapping[str, np.ndarray] = MappingProxyType({}),
    *,
    robust: bool = False,
) -> np.ndarray:
    """The states (T, nq+nv+na) measured in a rollout with `channels`, see `guess`; NaN where nothing was measured."""
    recorded = np.full((len(rollout.time), model.nq + model.nv + model.na), np.nan)
    _from_sensors(recorded, rollout, channels, model, signals, robust)
    for name, values, wanted in (("qpos", rollout.qpos, model.nq), ("qvel", rollout.qvel, model.nv)):
        if values is not None and values.shape[1] != wanted:
            raise DsoError(
                f"rollout {rollout.name!r}: its {name} has {values.shape[1]} columns and the model's has {wanted}; give "
                f"the model the log was recorded from, or remove {name} from the log."
            )
    if rollout.qpos is not None:
        recorded[:, : model.nq] = rollout.qpos
    if rollout.qvel is not None:
        recorded[:, model.nq : model.nq + model.nv] = rollout.qvel
    return recorded


def measured(windows: Windows, model: mujoco.MjModel) -> bool:
    """Whether the log holds the whole state at every window start: as a recorded state, or by a sensor on every joint."""
    if model.na:
        return False
    kinds = {mujoco.mjtSensor.mjSENS_JOINTPOS: set(), mujoco.mjtSensor.mjSENS_JOINTVEL: set()}
    for sensor in windows.channels.sensor_ids:
        kind = mujoco.mjtSensor(int(model.sensor_type[sensor]))
        if kind in kinds:
            kinds[kind].add(int(model.sensor_objid[sensor]))
    simple = model.nq == model.nv
    positions = simple and len(kinds[mujoco.mjtSensor.mjSENS_JOINTPOS]) == model.njnt
    return all((r.qpos is not None or positions) and (r.qvel is not None or positions) for r in windows.rollouts)


def seen(windows: Windows, model: mujoco.MjModel) -> np.ndarray:
    """Whether the first sample of each window (B,) has a recorded state or a reading of every joint sensor."""
    kinds = {int(mujoco.mjtSensor.mjSENS_JOINTPOS): "qpos", int(mujoco.mjtSensor.mjSENS_JOINTVEL): "qvel"}
    found = np.ones(len(windows), bool)
    for i, rollout in enumerate(windows.rollouts):
        mine = windows.rollout == i
        for column, sensor in enumerate(windows.channels.sensor_ids):
            state = kinds.get(int(model.sensor_type[sensor]))
            if state and getattr(rollout, state) is None and rollout.sensordata is not None:
                found[mine] &= np.isfinite(rollout.sensordata[windows.sample[mine, 0], column])
    return found


def _from_sensors(
    recorded: np.ndarray,
    rollout: Rollout,
    channels: Channels,
    model: mujoco.MjModel,
    signals: Mapping[str, np.ndarray],
    robust: bool,
) -> None:
    time = rollout.time
    if rollout.sensordata is None:
        return
    slopes = {}
    sensordata = corrected(rollout.sensordata, signals, channels.sensor_addresses)
    for column, sensor in enumerate(channels.sensor_ids):
        kind, joint = mujoco.mjtSensor(int(model.sensor_type[sensor])), int(model.sensor_objid[sensor])
        if kind not in (mujoco.mjtSensor.mjSENS_JOINTPOS, mujoco.mjtSensor.mjSENS_JOINTVEL):
            continue
        filled = _filled(time, sensordata[:, column], int(sensor), signals, robust)
        if filled is None:
            continue
        dof = model.nq + int(model.jnt_dofadr[joint])
        if kind == mujoco.mjtSensor.mjSENS_JOINTVEL:
            recorded[:, dof] = filled
        else:
            recorded[:, int(model.jnt_qposadr[joint])] = filled
            slopes[dof] = _slope(time, filled)
    for dof, slope in slopes.items():
        unseen = ~np.isfinite(recorded[:, dof])
        recorded[unseen, dof] = slope[unseen]


def _stands_out(values: np.ndarray) -> np.ndarray:
    """Whether each of the values (T,) is an outlier among its neighbours, by a Hampel filter."""
    padded = np.pad(values, _NEIGHBOURS, mode="reflect")
    near = np.lib.stride_tricks.sliding_window_view(padded, 2 * _NEIGHBOURS + 1)
    middle = np.median(near, axis=1)
    away = np.abs(values - middle)
    # The spread around the median. Its minimum is the typical spread, so that samples in a constant section are not outliers.
    spread = np.maximum(np.median(np.abs(near - middle[:, None]), axis=1), np.median(away))
    return away > _FAR * 1.4826 * np.maximum(spread, 1e-12)


def _slope(time: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Local least-squares slope (T,) of the values, over `_SLOPE_SECONDS` and at least three samples."""
    half = max(1, round(0.5 * _SLOPE_SECONDS / max(float(np.median(np.diff(time))), 1e-9)))
    index = np.arange(len(time))
    a, b = np.maximum(index - half, 0), np.minimum(index + half, len(time) - 1) + 1

    def total(x: np.ndarray) -> np.ndarray:
        sums = np.concatenate([[0.0], np.cumsum(x)])
        return sums[b] - sums[a]

    n, t, y = b - a, time - time.mean(), values - values.mean()
    return (n * total(t * y) - total(t) * total(y)) / np.maximum(n * total(t * t) - total(t) ** 2, 1e-30)


def _simulate_missing(recorded: np.ndarray, rollout: Rollout, windows: Windows, model: mujoco.MjModel) -> None:
    start = np.zeros(recorded.shape[1])
    start[: model.nq] = model.qpos0
    start = np.where(np.isfinite(recorded[0]), recorded[0], start)
    steps = max(int(np.ceil((rollout.time[-1] - rollout.time[0]) / windows.timestep)), 1)
    grid = rollout.time[0] + windows.timestep * np.arange(steps)
    ctrl = np.zeros((steps, model.nu))
    if rollout.ctrl is not None:
        held = np.searchsorted(rollout.time, grid, side="right") - 1
        ctrl = rollout.ctrl[held][:, windows.channels.ctrl_columns]
    path = BatchEngine(model, threads=1).simulate({}, start[None], ctrl[None]).state[0]
    path = np.concatenate([start[None], path])
    path = np.where(np.isfinite(path), path, start)
    nearest = np.clip(np.rint((rollout.time - rollout.time[0]) / windows.timestep).astype(int), 0, steps)
    unknown = ~np.isfinite(recorded)
    # Part of a quaternion is not an orientation. If part of qpos of a ball or free joint is unknown, all of it is simulated.
    recorded[unknown] = path[nearest][unknown]
