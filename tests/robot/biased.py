"""Robots whose sensors have biases that jump: an arm with sensors of every kind, and a free body with an inertial unit."""

import dataclasses

import mujoco
import numpy as np

from dso_robotics.robot.correctors.kalman import Noise
from dso_robotics.robot.estimator_space import Space
from dso_robotics.robot.kalman_estimator import KalmanEstimator
from tests.robot.free_body import ARM, ARM_NOISE, QUADROTOR, QUADROTOR_NOISE, flown

# Encoders at both joints; at the tip a gyroscope, an accelerometer and a position.
LOADED_ARM = ARM.replace(
    '<inertial pos="0 0 -0.15" mass="0.5"', '<site name="tip" pos="0 0 -0.3"/><inertial pos="0 0 -0.15" mass="0.5"'
).replace(
    "</sensor>",
    '<gyro name="gyro" site="tip"/><accelerometer name="acc" site="tip"/>'
    '<framepos name="place" objtype="site" objname="tip"/></sensor>',
)
# A second receiver of positions, at a rotor, so that one may be biased.
TWO_PLACES = QUADROTOR.replace("</sensor>", '<framepos name="second" objtype="site" objname="r0"/></sensor>')
ARM_KINDS = {"elbow": [1], "gyro": [2, 3, 4], "acc": [5, 6, 7], "place": [8, 9, 10]}
FREE_KINDS = {"gyro": [0, 1, 2], "acc": [3, 4, 5], "position": [9, 10, 11]}
ARM_SENSORS = np.array([0.003] * 2 + [0.01] * 3 + [0.1] * 3 + [0.01] * 3)
FREE_SENSORS = np.r_[QUADROTOR_NOISE.sensor, [0.05] * 3]
# A bias by axis, times a size.
SHAPE = np.array([1.0, -0.5, 0.7])


def drifting(noise: Noise, sensor: np.ndarray, channels: list[int]) -> Noise:
    """The noises with biases of these channels, which begin within 20 times the noise of a reading."""
    drift = np.zeros(len(sensor))
    drift[channels] = 0.2 * sensor[channels]
    return dataclasses.replace(noise, sensor=sensor, drift=drift, offset=20 * sensor)


def arm(seed: int, steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """States (T+1, 4), torques (T, 2) and readings (T+1, 11) of the arm at 200 Hz."""
    rng, model = np.random.default_rng(seed), mujoco.MjModel.from_xml_string(LOADED_ARM)
    data, states, torques, readings = mujoco.MjData(model), [], [], []
    data.qpos[:], data.qvel[:] = rng.normal(size=2), rng.normal(size=2)
    for t in range(steps + 1):
        mujoco.mj_forward(model, data)
        states.append(np.concatenate([data.qpos, data.qvel]))
        readings.append(data.sensordata + ARM_SENSORS * rng.normal(size=11))
        data.ctrl[:] = (0.5 * np.sin(0.02 * t), 0.3 * np.cos(0.031 * t))
        torques.append(data.ctrl.copy())
        data.qvel[:] += ARM_NOISE.process[2:] * np.sqrt(0.005) * rng.normal(size=2)
        mujoco.mj_step(model, data)
    return np.array(states), np.array(torques[:-1]), np.array(readings)


def flight(seed: int, steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """States (T+1, 13), thrusts (T, 4) and readings (T+1, 15) at 250 Hz; the compass has 50 Hz, each receiver 10 Hz."""
    rng, model = np.random.default_rng(seed), mujoco.MjModel.from_xml_string(TWO_PLACES)
    return flown(model, rng, steps, FREE_SENSORS, [(slice(6, 9), 5, 0), (slice(9, 12), 25, 0), (slice(12, 15), 25, 13)])


def spoiled(readings: np.ndarray, channels: list[int], bias: float, jump: float, at: int) -> np.ndarray:
    """Readings (T+1, ny) with a bias of these channels that jumps at sample `at`."""
    found = readings.copy()
    shape = SHAPE[: len(channels)]
    found[:, channels] += bias * shape
    found[at:, channels] += jump * shape
    return found


@dataclasses.dataclass(frozen=True)
class Followed:
    """What a filter made of a run of T updates.

    error: (T, 2 nv). square: squared error over its covariance, over 2 nv, (T,). bias: (T, ny).
    spread: deviations of state and drifting biases, (T, K).
    """

    error: np.ndarray
    square: np.ndarray
    bias: np.ndarray
    spread: np.ndarray

    def rms(self, first: int, last: int | None = None) -> np.ndarray:
        """Of the errors by direction of the tangent space; of a free body by threes, its position, rotation and so on."""
        mean = np.mean(self.error[first:last] ** 2, axis=0)
        return np.sqrt(mean.reshape(-1, 3).sum(1) if len(mean) > 4 else mean)


def followed(made: KalmanEstimator, truth: np.ndarray, ctrl: np.ndarray, readings: np.ndarray) -> Followed:
    """Filter a run. `made` was reset."""
    space, rows = Space(made.model), []
    for x, u, y in zip(truth[1:], ctrl, readings[1:], strict=True):
        told = made.update(u, y)
        e = space.difference(x, np.concatenate([told.qpos, told.qvel]))
        assert told.covariance is not None
        square = e @ np.linalg.solve(told.covariance, e) / len(e)
        rows.append((e, square, told.bias, np.sqrt(made.belief.covariance.diagonal())))
    return Followed(*(np.array(column) for column in zip(*rows, strict=True)))
