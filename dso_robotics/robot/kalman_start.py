"""The start of a Kalman filter's training: noises from the log, the best of a few."""

import itertools
import warnings
from collections.abc import Callable, Iterable

import mujoco
import numpy as np

from dso_robotics.parameters.vector import ParameterVector
from dso_robotics.robot.correctors.kalman import Noise
from dso_robotics.robot.estimator_space import Space
from dso_robotics.robot.estimator_start import sensor_noise, tangent_spread
from dso_robotics.robot.filter_data import FilterWindows
from dso_robotics.robot.kalman_filter import KalmanFilter
from dso_robotics.robot.kalman_theta import KalmanTheta
from dso_robotics.robot.strapdown import base_turns

# Noise that drives velocities, as fractions of their spread in a second, and factors on the sensors' noise: the pair that
# predicts best is the start.
_RATES, _SENSORS = (1e-3, 1e-2, 1e-1, 1.0), (1.0, 5.0)
# Noise that drives positions, as a fraction of that of the velocities.
_POSITION = 1e-2
# Windows that this choice looks at.
_TRIED = 12
# A start state may be wrong by this much [m, rad], [m/s, rad/s], or by as many times the motion's spread.
_PLACE, _RATE, _TIMES = 2.0, 5.0, 3.0
# A free body is level to within this [rad]; its heading may be any.
_TILT = 0.6
# Noise of the rate at which a base turns whose accelerometer moves it [rad/s/sqrt(s)]: so much that its gyroscope decides.
_TURN = 20.0
# Drift of a bias, as a share of the noise in a second, and its size at the start in multiples of the noise, or of the size that
# the log shows if that is more.
_DRIFT, _OFFSET, _SHOWN = 0.1, 20.0, 2.0


def begin(
    windows: FilterWindows,
    physics: ParameterVector,
    drifting: Iterable[int],
    *,
    warm_up: int,
    improve: Callable[[KalmanFilter, float], tuple[float, np.ndarray]],
    tell: Callable[[int], None] = lambda tried: None,
) -> tuple[KalmanTheta, np.ndarray]:
    """The theta of a Kalman filter, and the point z (n,) to start from.

    drifting: channels whose bias is a state.
    improve: a few steps of the search from the start of a filter with this cost; returns the cost and z at their end.
    tell: called with the number of starts tried.
    """
    model = physics.mj
    tangent, sensor = tangent_spread(Space(model), windows.start), channel_noise(windows)
    rate = tangent.copy()
    rate[: model.nv] = _POSITION * tangent[model.nv : 2 * model.nv]
    turned = np.zeros(len(rate), bool)
    held = np.zeros(len(sensor), bool)
    if windows.channels.strapped:
        turned[[model.nv + v for v in base_turns(model)]] = True
        # Beside so much noise of the rates, that of the gyroscope hardly shows.
        held = model.sensor_type[windows.channels.sensor_ids] == int(mujoco.mjtSensor.mjSENS_GYRO)
    foot = np.array([one is not None for one in windows.channels.footed])
    drift = np.zeros(len(sensor))
    which = np.array(sorted(drifting), int)
    drift[which] = _DRIFT * sensor[which]
    prior, offset = start_spread(model, tangent, strapped=windows.channels.strapped), _OFFSET * sensor
    few = windows.pick(np.unique(np.linspace(0, len(windows) - 1, min(_TRIED, len(windows))).astype(int)))

    def made(share: float, factor: float, offset: np.ndarray) -> KalmanTheta:
        sensors = np.where(foot, sensor, factor * sensor)
        noise = Noise(np.where(turned, _TURN, share * rate), sensors, drift, prior, offset)
        return KalmanTheta(
            physics, noise, windows.channels.sensor_names, windows.channels.quaternions, foot | held, turned
        )

    if len(which):
        offset[which] = _shown(
            made(_RATES[-2], _SENSORS[0], np.maximum(offset, sensor_spread(windows))), few, which, offset
        )
    spread: dict[float, list[tuple[float, KalmanTheta]]] = {share: [] for share in _RATES}
    for tried, (share, factor) in enumerate(itertools.product(_RATES, _SENSORS)):
        tell(tried)
        theta = made(share, factor, offset)
        cost = float(KalmanFilter(theta, few, warm_up=warm_up).run(theta.initial).cost.sum())
        spread[share].append((cost, theta))
    # The likelihood has local minima: a filter that trusts a wrong model too much takes right readings for wild ones. So a few
    # steps are taken from the best start of each rate.
    best: tuple[float, KalmanTheta, np.ndarray] | None = None
    for tried, starts in enumerate(spread.values()):
        tell(len(_RATES) * len(_SENSORS) + tried)
        cost, theta = min(starts, key=lambda pair: pair[0])
        cost, z = improve(KalmanFilter(theta, few, warm_up=warm_up), cost)
        if best is None or cost < best[0]:
            best = cost, theta, z
    assert best is not None
    return best[1:]


def _shown(theta: KalmanTheta, windows: FilterWindows, which: np.ndarray, least: np.ndarray) -> np.ndarray:
    """Sizes of the biases `which` (nb,) at the start: `least` (ny,), or twice what a filter finds that expects any."""
    run = KalmanFilter(theta, windows).run(theta.initial)
    ends = np.abs(run.offset[np.isfinite(run.cost), -1][:, which])
    if not len(ends):
        return least[which]
    return np.maximum(least[which], _SHOWN * np.sqrt(np.mean(ends**2, axis=0)))


def sensor_spread(windows: FilterWindows) -> np.ndarray:
    """Root mean squares (ny,) of the readings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        found = np.sqrt(np.nanmean(windows.measured**2, axis=(0, 1)))
    return np.nan_to_num(found)


def channel_noise(windows: FilterWindows) -> np.ndarray:
    """Standard deviations (ny,) of white noise in the readings; of quaternions as angles [rad]."""
    sensor = np.maximum(sensor_noise(windows), 1e-9)
    for places in windows.channels.quaternions:
        sensor[list(places)] = 2 * np.sqrt(np.mean(sensor[list(places)] ** 2))
    for c, foot in enumerate(windows.channels.footed):
        if foot is not None:
            sensor[c] = foot.noise
    return sensor


def start_spread(model: mujoco.MjModel, tangent: np.ndarray, *, strapped: bool = False) -> np.ndarray:
    """Standard deviations (k,) of a start state's error: wide, since a robot may begin anywhere.

    strapped: whether an accelerometer moves the base, which is nearly level then as a free body is.
    """
    floor = np.full(len(tangent), _RATE)
    floor[: model.nv] = _PLACE
    floor[2 * model.nv :] = 1.0
    found = np.maximum(floor, _TIMES * tangent)
    for j in range(model.njnt):
        kind, first = int(model.jnt_type[j]), int(model.jnt_dofadr[j])
        if kind == mujoco.mjtJoint.mjJNT_SLIDE and model.jnt_limited[j]:
            found[first] = float(np.diff(model.jnt_range[j])[0]) / 2
        if kind in (mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_BALL):
            found[first : first + (1 if kind == mujoco.mjtJoint.mjJNT_HINGE else 3)] = _PLACE
        if kind == mujoco.mjtJoint.mjJNT_FREE:
            found[first + 3 : first + 6] = _TILT, _TILT, _PLACE
        elif kind == mujoco.mjtJoint.mjJNT_HINGE and strapped and first in base_turns(model):
            found[first] = _TILT
    return found
