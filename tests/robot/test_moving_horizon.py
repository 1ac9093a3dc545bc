"""The moving horizon against the Kalman filter where both are exact, and where one linearisation is not enough."""

import dataclasses

import mujoco
import numpy as np
import pytest

from dso_robotics.errors import DsoError
from dso_robotics.robot.correctors.kalman import Noise
from dso_robotics.robot.kalman_estimator import KalmanEstimator
from dso_robotics.robot.moving_horizon import MovingHorizon
from tests.robot.free_body import ARM, ARM_NOISE, QUADROTOR, QUADROTOR_NOISE, estimator, flight, swing
from tests.robot.test_kalman import PROCESS, SENSOR, SPRING, recorded
from tests.robot.test_kalman_estimator import errors, run


def horizon(filter_: KalmanEstimator, samples: int) -> MovingHorizon:
    return MovingHorizon(filter_.model, filter_.learned, samples)


def test_on_a_linear_system_it_is_the_kalman_filter():
    """With a drifting bias, missing readings and updates of two lengths."""
    noise = Noise(PROCESS, SENSOR, np.array([0.0, 0.05]), np.array([2.0, 5.0]), np.array([1.0, 0.5]))
    given = recorded(1, 80).rollouts[0]
    made = estimator(SPRING.format(mass=0.8), noise, interval=0.02)
    other = horizon(estimator(SPRING.format(mass=0.8), noise, interval=0.02), 5)
    for each in (made, other):
        each.reset(measurement=given.sensordata[0])
    for t in range(1, 80):
        y = given.sensordata[t] if t % 7 else [np.nan, np.nan]
        dt = 0.02 if t % 3 else 0.04
        one, two = (each.update(given.ctrl[t - 1], y, dt=dt) for each in (made, other))
        np.testing.assert_allclose(two.qpos, one.qpos, atol=1e-7)
        np.testing.assert_allclose(two.qvel, one.qvel, atol=1e-6)
        np.testing.assert_allclose(two.covariance, one.covariance, rtol=1e-4, atol=1e-9)
        np.testing.assert_allclose(two.bias, one.bias, atol=1e-6)


PENDULUM = """
<mujoco>
  <option timestep="0.01" integrator="implicitfast"/>
  <worldbody>
    <body name="pole">
      <joint name="hinge" axis="0 1 0" damping="0.02"/>
      <inertial pos="0 0 -0.3" mass="0.7" diaginertia="0.01 0.01 0.001"/>
    </body>
  </worldbody>
  <actuator><motor name="motor" joint="hinge"/></actuator>
  <sensor><jointvel name="rate" joint="hinge"/></sensor>
</mujoco>
"""


def test_it_finds_an_angle_that_is_two_radians_off_sooner_than_the_filter():
    """Only the speed is read: the angle shows itself in how gravity changes it, which no single sample tells."""
    noise = Noise(np.array([1e-4, 0.05]), np.array([0.02]), np.zeros(1), np.array([2.0, 5.0]), np.ones(1))
    model, off = mujoco.MjModel.from_xml_string(PENDULUM), {"filter": [], "horizon": []}
    for angle in (0.9, -0.6, 1.6):
        rng, data = np.random.default_rng(0), mujoco.MjData(model)
        data.qpos[0] = angle
        made = estimator(PENDULUM, noise, interval=0.01)
        both = {"filter": made, "horizon": horizon(estimator(PENDULUM, noise, interval=0.01), 15)}
        for each in both.values():
            each.reset(qpos=[angle + 2.0])
        errors_ = {name: [] for name in both}
        for _ in range(30):
            data.qvel[0] += 0.05 * 0.1 * rng.normal()
            mujoco.mj_step(model, data)
            y = data.qvel + 0.02 * rng.normal()
            for name, each in both.items():
                turn = each.update([0.0], y).qpos[0] - data.qpos[0]
                errors_[name].append(abs(np.angle(np.exp(1j * turn))))
        for name, values in errors_.items():
            off[name].append(np.mean(values[18:]))
    assert max(off["horizon"]) < 0.02
    assert max(off["filter"]) > 0.5


def test_an_arm_with_spikes_is_followed_as_by_the_filter():
    truth, torques, readings = swing(1, 300)
    spoiled, rng = readings.copy(), np.random.default_rng(0)
    wild = rng.random(spoiled.shape) < 0.03
    spoiled[wild] += rng.choice([-1, 1], wild.sum()) * (0.1 + rng.exponential(1.0, wild.sum()))
    made = estimator(ARM, ARM_NOISE, interval=0.005)
    rms = []
    for each in (made, horizon(estimator(ARM, ARM_NOISE, interval=0.005), 6)):
        each.reset(measurement=readings[0])
        off = errors(each.model, truth[1:], run(each, torques, spoiled))[100:]
        rms.append(np.sqrt(np.mean(off**2, 0)))
    assert (rms[1] < 1.1 * rms[0]).all()


def test_a_free_body_is_followed_as_by_the_filter():
    truth, thrusts, readings = flight(3, 120, 1.0)
    noise, rms = dataclasses.replace(QUADROTOR_NOISE, prior=np.full(12, 0.3)), []
    made = estimator(QUADROTOR, noise, interval=0.004)
    for each in (made, horizon(estimator(QUADROTOR, noise, interval=0.004), 4)):
        each.reset(qpos=truth[0, :7], measurement=readings[0])
        found = run(each, thrusts, readings)
        off = errors(each.model, truth[1:], found)[60:]
        rms.append(np.sqrt(np.mean(off**2, 0)))
        squares = [e @ np.linalg.solve(s.covariance, e) / 12 for e, s in zip(off, found[60:], strict=True)]
        assert np.mean(squares) < 3
    assert np.linalg.norm(rms[1][:6]) < 1.05 * np.linalg.norm(rms[0][:6])


def test_it_recovers_from_being_carried_away():
    _, torques, readings = swing(2, 300)
    far = swing(4, 300)
    each = horizon(estimator(ARM, ARM_NOISE, interval=0.005), 6)
    each.reset(measurement=readings[0])
    run(each, torques[:100], readings[:101])
    off = errors(each.model, far[0][101:201], run(each, far[1][100:200], far[2][100:201]))
    assert np.abs(off[60:, :2]).max() < 0.02


def test_what_it_does_not_do_is_refused():
    made = estimator(ARM, ARM_NOISE, interval=0.005)
    with pytest.raises(DsoError, match="samples = 0"):
        horizon(made, 0)
    late = dataclasses.replace(made.learned, delay=np.array([0.0, 0.03]))
    with pytest.raises(DsoError, match="'elbow' is late"):
        MovingHorizon(made.model, late)
    with pytest.raises(DsoError, match="no late readings"):
        horizon(made, 4).late({"elbow": 0.1}, 0.01)
