"""Where training starts: units of the corrector's numbers from the log, and the gain of a Kalman filter with guessed noise."""

import copy

import mujoco
import numpy as np

from dso_robotics.parameters.vector import ParameterVector
from dso_robotics.robot.corrector import Corrector, make_corrector
from dso_robotics.robot.estimator_space import Space
from dso_robotics.robot.estimator_vector import EstimatorVector, Scales
from dso_robotics.robot.filter import CFilter
from dso_robotics.robot.filter_data import Passages

# The start gain is a steady-state Kalman filter's, with process noise of this share of each direction's spread: positions
# [m, rad] follow from velocities, which forces that the model lacks disturb.
_POSITION_NOISE, _RATE_NOISE = 1e-5, 1e-2
_STEP = 1e-6
# From second differences of white noise (variance 6) and a median to its standard deviation.
_SECOND_DIFFERENCE = 0.6745 * 6**0.5


def linear_model(
    model: mujoco.MjModel, addresses: np.ndarray, state: np.ndarray, ctrl: np.ndarray, substeps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Transition (k, k) over one interval and readings (ny, k) after it, by central differences of C MuJoCo at `state`."""
    space, data = Space(model), mujoco.MjData(model)
    changes = _STEP * np.eye(space.size)
    ends, readings = [], []
    for change in (*changes, *-changes):
        moved = space.move(state, change)
        mujoco.mj_resetData(model, data)
        data.qpos[:], data.qvel[:] = moved[: space.nq], moved[space.nq : space.nq + space.nv]
        if space.na:
            data.act[:] = moved[space.nq + space.nv :]
        data.ctrl[:] = ctrl
        mujoco.mj_forward(model, data)
        readings.append(data.sensordata[addresses].copy())
        mujoco.mj_step(model, data, substeps)
        ends.append(np.concatenate([data.qpos, data.qvel, data.act]))
    up, down = np.split(np.array(ends), 2)
    by_state = np.array([space.difference(b, a) for a, b in zip(up, down, strict=True)]).T / (2 * _STEP)
    high, low = np.split(np.array(readings), 2)
    return by_state, (high - low).T / (2 * _STEP)


def kalman_gain(
    transition: np.ndarray, sensors: np.ndarray, process: np.ndarray, noise: np.ndarray, *, updates: int = 300
) -> np.ndarray:
    """Gain (k, ny) after so many updates from a covariance of `process`; diagonal variances (k,) and (ny,).

    Iterated rather than solved for: directions that no sensor ever shows need no steady state.
    """
    p = np.diag(process)
    gain = np.zeros(sensors.T.shape)
    for _ in range(updates):
        p = transition @ p @ transition.T + np.diag(process)
        s = sensors @ p @ sensors.T + np.diag(noise)
        gain = np.linalg.solve(s, sensors @ p).T
        p = p - gain @ s @ gain.T
        p = (p + p.T) / 2
    return gain


def begin(
    kind: str, units: int, passages: Passages, physics: ParameterVector, *, seed: int = 0
) -> tuple[EstimatorVector, Scales]:
    """The vector with its start values, and the scales that whiten it.

    Innovations are measured once with the start gain, so that one unit of innovation is what the filter will see.
    """
    model = physics.mj
    space = Space(model)
    ny = passages.measured.shape[2]
    spread = np.maximum(np.nanstd(passages.measured, axis=(0, 1)), 1e-9)
    state = np.std(passages.start, axis=0)
    centre = np.mean(passages.start, axis=0)
    state = np.where(state > 1e-6, state, 1.0)
    tangent = _tangent_spread(space, passages.start)
    gain = _start_gain(model, passages, tangent)
    scales = Scales(spread, tangent, centre, state)
    corrector = make_corrector("gain", space.size, ny, space.features_size)
    vector = _vector(corrector, passages, physics, gain / tangent[:, None] * spread, seed)
    run = CFilter(vector, scales, passages).run(vector.initial, passages.start)
    error = np.where(
        np.isfinite(passages.measured[:, 1:]), run.predicted - np.nan_to_num(passages.measured[:, 1:]), np.nan
    )
    innovation = np.nanmedian(np.abs(error), axis=(0, 1)) * 1.5
    innovation = np.where(np.isfinite(innovation), innovation, spread)
    innovation = np.clip(innovation, 1e-6 * spread, spread)
    change = np.max(np.abs(gain) * innovation, axis=1)
    change = np.maximum(change, 1e-4 * tangent)
    scales = Scales(innovation, change, centre, state)
    corrector = make_corrector(kind, space.size, ny, space.features_size, units=units)
    return _vector(corrector, passages, physics, gain / change[:, None] * innovation, seed), scales


def _vector(
    corrector: Corrector,
    passages: Passages,
    physics: ParameterVector,
    gain: np.ndarray,
    seed: int,
) -> EstimatorVector:
    channels = passages.channels
    weights = corrector.initial(gain, seed)
    return EstimatorVector(corrector, channels.sensor_names, channels.sensor_addresses, physics, weights)


def _start_gain(model: mujoco.MjModel, passages: Passages, tangent: np.ndarray) -> np.ndarray:
    """The mean of the Kalman gains at a few start states; sensors' noise is what second differences of readings show."""
    scaled = copy.copy(model)
    scaled.opt.timestep = passages.interval / passages.substeps
    measured = passages.measured
    spread = np.maximum(np.nanstd(measured, axis=(0, 1)), 1e-9)
    rough = np.array([_roughness(measured[..., c]) for c in range(measured.shape[-1])])
    noise = np.clip(rough, 1e-4 * spread, spread) ** 2
    process = (tangent * np.where(np.arange(len(tangent)) < model.nv, _POSITION_NOISE, _RATE_NOISE)) ** 2
    gains = []
    each = max(1, len(passages) // 5)
    for x, u in zip(passages.start[::each][:5], passages.ctrl[::each, 0][:5], strict=True):
        parts = linear_model(scaled, passages.channels.sensor_addresses, x, u, passages.substeps)
        if all(np.isfinite(part).all() for part in parts):
            gain = kalman_gain(*parts, process, noise)
            if np.isfinite(gain).all():
                gains.append(gain)
    return np.mean(gains, axis=0) if gains else np.zeros((len(tangent), measured.shape[-1]))


def _roughness(values: np.ndarray) -> float:
    """Standard deviation of white noise in readings (B, T) that have gaps, by second differences; 0 where there are too few."""
    found = [v[np.isfinite(v)] for v in values]
    second = np.concatenate([np.diff(v, 2) for v in found if len(v) > 2] or [np.zeros(0)])
    return float(np.median(np.abs(second))) / _SECOND_DIFFERENCE if len(second) else 0.0


def _tangent_spread(space: Space, states: np.ndarray) -> np.ndarray:
    """Typical size (k,) of each tangent direction over `states`, at least a hundredth."""
    middle = states[len(states) // 2]
    off = space.difference(np.broadcast_to(middle, states.shape), states)
    return np.maximum(np.sqrt(np.mean(off**2, axis=0)), 1e-2)
