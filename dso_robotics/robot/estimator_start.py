"""The start of an estimator's training: scales of the corrector from the log, a start gain and start delays.

The start gain is the best of several Kalman gains. The start delay of a sensor with a free delay is the best of several.
"""

import copy
import itertools
import time
from collections.abc import Callable
from dataclasses import replace

import mujoco
import numpy as np

from dso_robotics.parameters.vector import ParameterVector
from dso_robotics.robot.corrector import EstimatorTheta, Scales, make_corrector
from dso_robotics.robot.estimator_space import Space
from dso_robotics.robot.filter import CFilter
from dso_robotics.robot.filter_data import FilterWindows

# Start gains are steady-state Kalman gains. Their process noise is one of these fractions of the spread of each direction.
# Unmodelled forces disturb velocities [m/s, rad/s], and positions [m, rad] follow from velocities, so velocities get more
# noise. The cost has several local minima as a function of the gain. For example, a delayed or filtered sensor can cause one
# where its readings are ignored and one where the estimate runs ahead of it. So the gain that predicts best is chosen.
_POSITION_NOISES, _RATE_NOISES = (1e-5, 1e-4, 1e-3), (1e-3, 1e-2, 1e-1)
# The fraction of a window that is left out of that choice, because its start state is a guess.
_WARM_UP = 0.2
# Number of delays between the bounds to try for each sensor with a free delay. Far from the right delay the cost is flat.
_DELAYS = 9
_STEP = 1e-6
# Seconds between two reports of how many starts were tried.
_TELL = 2.0
# Updates after which a Kalman gain counts as steady.
_UPDATES = 300
# Largest error of a start state that training adds, as a fraction of the motion's spread.
_MOST = 0.1
# Converts the median of second differences of white noise (variance 6) to its standard deviation.
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
    transition: np.ndarray, sensors: np.ndarray, process: np.ndarray, noise: np.ndarray, *, updates: int = _UPDATES
) -> np.ndarray:
    """Kalman gain (k, ny) after a number of updates, starting from covariance `process`.

    process: covariance of the process noise (k, k), or the variances (k,) of independent noise.
    noise: variances of the sensors' noise, (ny,).

    The gain is iterated, not solved for, because directions that no sensor observes may have no steady state.
    """
    return _riccati(transition, sensors, process, noise, updates)[0]


def _riccati(
    transition: np.ndarray, sensors: np.ndarray, process: np.ndarray, noise: np.ndarray, updates: int
) -> tuple[np.ndarray, np.ndarray]:
    """Kalman gain (k, ny), and covariance (k, k) of the state's error after the last update."""
    process = np.diag(process) if process.ndim == 1 else process
    p = process
    gain = np.zeros(sensors.T.shape)
    for _ in range(updates):
        p = transition @ p @ transition.T + process
        s = sensors @ p @ sensors.T + np.diag(noise)
        gain = np.linalg.solve(s, sensors @ p).T
        p = p - gain @ s @ gain.T
        p = (p + p.T) / 2
    return gain, p


def begin(
    kind: str,
    units: int,
    windows: FilterWindows,
    physics: ParameterVector,
    *,
    seed: int = 0,
    tell: Callable[[int], None] = lambda tried: None,
) -> tuple[EstimatorTheta, Scales]:
    """The estimator's theta with its initial values, and the scales that whiten it.

    Several Kalman gains are tried, and several delays for each sensor with a free delay. The combination that predicts the
    windows best is the start. The innovation scales are measured with this gain, so the filter's innovations have unit size.
    `tell` is called now and then with the number of starts tried so far.
    """
    model = physics.mj
    space = Space(model)
    ny = windows.measured.shape[2]
    spread = np.maximum(np.nanstd(windows.measured, axis=(0, 1)), 1e-9)
    state = np.std(windows.start, axis=0)
    centre = np.mean(windows.start, axis=0)
    state = np.where(state > 1e-6, state, 1.0)
    tangent = tangent_spread(space, windows.start)
    scales = Scales(spread, tangent, centre, state)
    corrector = make_corrector("gain", space.size, ny, space.features_size)
    best, gain, error = np.inf, np.zeros((space.size, ny)), np.full_like(windows.measured[:, 1:], np.nan)
    chain = CFilter(EstimatorTheta(corrector, physics, corrector.initial(gain, seed)), scales, windows)
    gains, physical = _start_gains(model, windows, tangent), physics.initial
    tried, told = 0, time.perf_counter()
    for points in _delayed(physics):
        begun = physical
        for where, value in points:
            trial = np.where(where, value, begun)
            for candidate in gains:
                z = np.concatenate([corrector.initial(candidate / tangent[:, None] * spread), trial])
                misses = windows.measured[:, 1:] - chain.run(z, windows.start).predicted
                cost, tried = _misfit(misses, windows), tried + 1
                if time.perf_counter() - told > _TELL:
                    told = time.perf_counter()
                    tell(tried)
                if cost < best:
                    best, gain, error, physical = cost, candidate, misses, trial
    innovation = np.nanmedian(np.abs(error), axis=(0, 1)) * 1.5
    innovation = np.where(np.isfinite(innovation), innovation, spread)
    innovation = np.clip(innovation, 1e-6 * spread, spread)
    change = np.max(np.abs(gain) * innovation, axis=1)
    change = np.maximum(change, 1e-4 * tangent)
    scales = Scales(innovation, change, centre, state)
    corrector = make_corrector(kind, space.size, ny, space.features_size, units=units)
    weights = corrector.initial(gain / change[:, None] * innovation, seed)
    return EstimatorTheta(corrector, physics, weights, physical), scales


def _delayed(physics: ParameterVector) -> list[list[tuple[np.ndarray, float]]]:
    """Rounds of trials: coordinates (m,) and the value to set them to. The first round changes nothing."""
    rounds = [[(np.zeros(physics.size, bool), 0.0)]]
    for p, here in physics.places():
        if any(slot.field == "sensor_delay" for slot in p.slots):
            where = np.arange(physics.size) == here.start
            rounds.append([(where, d) for d in np.linspace(p.low[0], p.high[0], _DELAYS) if d != p.initial[0]])
    return rounds


def _misfit(errors: np.ndarray, windows: FilterWindows) -> float:
    """Negative log-likelihood, up to a constant, of errors (B, U, ny) at the best noise scale of each channel."""
    errors = errors[:, round(_WARM_UP * errors.shape[1]) :]
    seen = np.isfinite(windows.measured[:, -errors.shape[1] :])
    with np.errstate(over="ignore", invalid="ignore"):
        total = np.sum(np.where(seen, errors, 0.0) ** 2, axis=(0, 1))
    count = np.maximum(seen.sum((0, 1)), 1)
    return float(np.sum(count * 0.5 * np.log(total / count + 1e-300))) if np.isfinite(total).all() else np.inf


def start_gains(windows: FilterWindows, physics: ParameterVector) -> list[np.ndarray]:
    """Kalman gains (k, ny) to start from, in the units of state and readings, one for each pair of process noises."""
    return _start_gains(physics.mj, windows, tangent_spread(Space(physics.mj), windows.start))


def disturbed(windows: FilterWindows, physics: ParameterVector, *, seed: int = 0) -> FilterWindows:
    """`windows` with start states that are off by about as much as a running filter's estimate is.

    A training on them sees how the corrector treats errors. Where a start is exact, a corrector under which errors grow would
    otherwise predict as well as any. The errors have the spread that a Kalman filter keeps, at most a tenth of the motion's.
    """
    space = Space(physics.mj)
    tangent = tangent_spread(space, windows.start)
    models, noise = _linear_models(physics.mj, windows)
    position, rate = _POSITION_NOISES[1], _RATE_NOISES[1]
    process = _process(physics.mj, tangent, position, rate)
    kept = [np.diag(_riccati(*parts, process, noise, _UPDATES)[1]) for parts in models]
    kept = [variance for variance in kept if np.isfinite(variance).all()]
    size = np.sqrt(np.maximum(np.mean(kept, axis=0), 0.0)) if kept else np.zeros(space.size)
    change = np.random.default_rng(seed).normal(size=(len(windows), space.size)) * np.minimum(size, _MOST * tangent)
    return replace(windows, start=space.move(windows.start, change))


def _start_gains(model: mujoco.MjModel, windows: FilterWindows, tangent: np.ndarray) -> list[np.ndarray]:
    """Kalman gains averaged over a few start states, one for each pair of process noises."""
    models, noise = _linear_models(model, windows)
    found = []
    for position, rate in itertools.product(_POSITION_NOISES, _RATE_NOISES):
        gains = [kalman_gain(*parts, _process(model, tangent, position, rate), noise) for parts in models]
        gains = [gain for gain in gains if np.isfinite(gain).all()]
        found.append(np.mean(gains, axis=0) if gains else np.zeros((len(tangent), len(noise))))
    return found


def _process(model: mujoco.MjModel, tangent: np.ndarray, position: float, rate: float) -> np.ndarray:
    """Variances (k,) of the process noise, from its fractions of the spread of positions and of rates."""
    return (tangent * np.where(np.arange(len(tangent)) < model.nv, position, rate)) ** 2


def _linear_models(
    model: mujoco.MjModel, windows: FilterWindows
) -> tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray]:
    """`linear_model` at a few start states, and variances (ny,) of the sensors' noise, from second differences of readings."""
    scaled = copy.copy(model)
    scaled.opt.timestep = windows.interval / windows.substeps
    noise = sensor_noise(windows) ** 2
    each = max(1, len(windows) // 5)
    places = zip(windows.start[::each][:5], windows.ctrl[::each, 0][:5], strict=True)
    models = [linear_model(scaled, windows.channels.sensor_addresses, x, u, windows.substeps) for x, u in places]
    return [parts for parts in models if all(np.isfinite(part).all() for part in parts)], noise


def sensor_noise(windows: FilterWindows) -> np.ndarray:
    """Standard deviations (ny,) of white noise in the readings, from their second differences."""
    measured = windows.measured
    spread = np.maximum(np.nanstd(measured, axis=(0, 1)), 1e-9)
    rough = np.array([_roughness(measured[..., c]) for c in range(measured.shape[-1])])
    return np.clip(rough, 1e-4 * spread, spread)


def _roughness(values: np.ndarray) -> float:
    """Standard deviation of white noise in readings (B, T) with gaps, from second differences; 0 if there are too few."""
    found = [v[np.isfinite(v)] for v in values]
    second = np.concatenate([np.diff(v, 2) for v in found if len(v) > 2] or [np.zeros(0)])
    return float(np.median(np.abs(second))) / _SECOND_DIFFERENCE if len(second) else 0.0


def tangent_spread(space: Space, states: np.ndarray) -> np.ndarray:
    """Typical size (k,) of each tangent direction over `states`, at least a hundredth."""
    middle = states[len(states) // 2]
    off = space.difference(np.broadcast_to(middle, states.shape), states)
    return np.maximum(np.sqrt(np.mean(off**2, axis=0)), 1e-2)
