"""Where training starts: units of the corrector's numbers from the log, and a gain that follows the sensors a little."""

import mujoco
import numpy as np

from dso_robotics.parameters.vector import ParameterVector
from dso_robotics.robot.corrector import Corrector, make_corrector
from dso_robotics.robot.estimator_space import Space
from dso_robotics.robot.estimator_vector import EstimatorVector, Scales
from dso_robotics.robot.filter import CFilter
from dso_robotics.robot.filter_data import Passages

# The start gain takes over this share of what the sensors say; directions they hardly see are left out.
_SHARE, _RIDGE = 0.3, 1e-3
_STEP = 1e-6


def sensor_jacobian(model: mujoco.MjModel, addresses: np.ndarray, state: np.ndarray) -> np.ndarray:
    """Derivative (ny, k) of the readings by the tangent at `state`, by central differences of C MuJoCo."""
    space, data = Space(model), mujoco.MjData(model)
    changes = _STEP * np.eye(space.size)
    rows = []
    for change in (*changes, *-changes):
        moved = space.move(state, change)
        data.qpos[:], data.qvel[:] = moved[: space.nq], moved[space.nq : space.nq + space.nv]
        if space.na:
            data.act[:] = moved[space.nq + space.nv :]
        mujoco.mj_forward(model, data)
        rows.append(data.sensordata[addresses].copy())
    up, down = np.split(np.array(rows), 2)
    return (up - down).T / (2 * _STEP)


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
    jacobian = np.mean(
        [sensor_jacobian(model, passages.channels.sensor_addresses, x) for x in _few(passages.start)], axis=0
    )
    tangent = _tangent_spread(space, passages.start)
    # In units of spread on both sides: a channel's say does not depend on its unit.
    scaled_jacobian = np.nan_to_num(jacobian) * tangent / spread[:, None]
    square = scaled_jacobian.T @ scaled_jacobian
    inverse = np.linalg.solve(square + _RIDGE * max(np.trace(square), 1e-9) * np.eye(space.size), scaled_jacobian.T)
    gain = _SHARE * inverse * tangent[:, None] / spread
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
    change = np.max(np.abs(gain) / _SHARE * innovation, axis=1)
    floor = 1e-2 * tangent * np.median(innovation / spread)
    change = np.maximum(change, floor)
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


def _few(states: np.ndarray) -> np.ndarray:
    return states[:: max(1, len(states) // 5)][:5]


def _tangent_spread(space: Space, states: np.ndarray) -> np.ndarray:
    """Typical size (k,) of each tangent direction over `states`, at least a hundredth."""
    middle = states[len(states) // 2]
    off = space.difference(np.broadcast_to(middle, states.shape), states)
    return np.maximum(np.sqrt(np.mean(off**2, axis=0)), 1e-2)
