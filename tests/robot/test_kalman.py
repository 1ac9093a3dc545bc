"""The Kalman corrector against textbook filters, the Riccati equation and finite differences."""

import dataclasses

import mujoco
import numpy as np
import pytest
from scipy.linalg import solve_discrete_are

from dso_robotics.core.descent import descend
from dso_robotics.core.method.scoring import FisherScoring
from dso_robotics.costs.innovation_likelihood import InnovationLikelihood
from dso_robotics.data.log import Log
from dso_robotics.data.rollout import Rollout
from dso_robotics.errors import DsoError
from dso_robotics.parameters.path import parse
from dso_robotics.parameters.vector import ParameterVector, pack
from dso_robotics.physics.model import load
from dso_robotics.robot import filter_data
from dso_robotics.robot.corrector import CORRECTORS, make_corrector
from dso_robotics.robot.correctors.kalman import Noise, correction, measurable, process_covariance, turned
from dso_robotics.robot.estimator_space import Space
from dso_robotics.robot.kalman_filter import KalmanFilter
from dso_robotics.robot.kalman_theta import KalmanTheta, groups

# A mass on a spring: linear, so an extended Kalman filter is the Kalman filter.
SPRING = """
<mujoco>
  <option timestep="0.02" integrator="Euler" gravity="0 0 0"><flag eulerdamp="disable"/></option>
  <worldbody>
    <body name="cart">
      <joint name="slide" type="slide" axis="1 0 0" stiffness="3" damping="0.4"/>
      <inertial pos="0 0 0" mass="{mass}" diaginertia="0.1 0.1 0.1"/>
    </body>
  </worldbody>
  <actuator><motor name="push" joint="slide"/></actuator>
  <sensor><jointpos name="place" joint="slide"/><jointvel name="speed" joint="slide"/></sensor>
</mujoco>
"""
STEP, STIFF, DAMPED, MASS = 0.02, 3.0, 0.4, 0.8
PROCESS, SENSOR = np.array([0.01, 0.5]), np.array([0.02, 0.1])


def matrices(mass: float = MASS) -> tuple[np.ndarray, np.ndarray]:
    """A and B of semi-implicit Euler: the speed first, then the place by the new speed."""
    rate = np.array([[-STIFF * STEP / mass, 1 - DAMPED * STEP / mass]])
    a = np.concatenate([np.array([[1.0, 0.0]]) + STEP * rate, rate])
    return a, np.array([STEP**2 / mass, STEP / mass])


def recorded(runs: int, length: int, seed: int = 0) -> Log:
    """Runs of the spring with white noise on its motion and readings; the speed is read in every third sample."""
    rng, (a, b) = np.random.default_rng(seed), matrices()
    root = np.linalg.cholesky(process_covariance(PROCESS**2, np.zeros(0), 1, STEP))
    rollouts = []
    for i in range(runs):
        x, u, y = np.zeros(2), np.repeat(rng.normal(size=length // 10 + 1), 10)[:length], []
        states = []
        for t in range(length):
            x = x if t == 0 else a @ x + b * u[t - 1] + root @ rng.normal(size=2)
            reading = x + SENSOR * rng.normal(size=2)
            y.append([reading[0], reading[1] if t % 3 == 0 else np.nan])
            states.append(x)
        states = np.array(states)
        rollouts.append(
            Rollout(
                name=f"run{i}", time=STEP * np.arange(length), ctrl=u[:, None], ctrl_names=("push",), sensordata=np.array(y),
                sensor_names=("place", "speed"), sensor_units=("m", "m/s"), qpos=states[:, :1], qvel=states[:, 1:],
            )
        )  # fmt: skip
    return Log("spring", "test", "CC0", tuple(rollouts))


def spring(log: Log, *, mass: float = MASS, seconds: float = 2.0, free=(), noise=(PROCESS, SENSOR)):
    """(theta, windows) of the spring."""
    robot = load(mujoco.MjSpec.from_string(SPRING.format(mass=mass)))
    declared = [parse(one) if isinstance(one, str) else one for one in free]
    physics = pack(declared, robot) if free else ParameterVector((), robot.mj)
    channels = filter_data.select_channels(log, robot.mj, None)
    interval, substeps = filter_data.common_interval(log.rollouts, STEP, "log")
    windows = filter_data.cut_windows(
        log.rollouts, channels, robot.mj, interval=interval, substeps=substeps, seconds=seconds
    )
    begin = Noise(noise[0], noise[1], np.zeros(2), np.array([2.0, 5.0]), np.ones(2))
    return KalmanTheta(physics, begin, channels.sensor_names), windows


def textbook(theta, windows, b: int, *, warm_up: int = 0):
    """States, covariance and likelihood by the equations of the Kalman filter, one window, with plain inverses."""
    (a, push), noise = matrices(), theta.noise(theta.initial)
    q = process_covariance(noise.process**2, np.zeros(0), 1, STEP)
    x, p, cost, states = windows.start[b], np.diag(noise.prior**2), 0.0, []
    for t in range(windows.measured.shape[1] - 1):
        x, p = a @ x + push * windows.ctrl[b, t, 0], a @ p @ a.T + q
        y = windows.measured[b, t + 1]
        h, r = np.eye(2)[np.isfinite(y)], np.diag(noise.sensor[np.isfinite(y)] ** 2)
        e, s = y[np.isfinite(y)] - h @ x, h @ p @ h.T + r
        if t >= warm_up and len(e):
            cost += 0.5 * (e @ np.linalg.inv(s) @ e + np.log(np.linalg.det(s)))
        gain = p @ h.T @ np.linalg.inv(s)
        x, p = x + gain @ e, p - gain @ s @ gain.T
        states.append(x)
    return np.array(states), p, cost


def test_on_a_linear_system_it_is_the_kalman_filter():
    theta, windows = spring(recorded(2, 101), seconds=1.0)
    run = KalmanFilter(theta, windows, warm_up=5).run(theta.initial)
    for b in range(len(windows)):
        states, _, cost = textbook(theta, windows, b, warm_up=5)
        np.testing.assert_allclose(run.states[b], states, atol=1e-9)
        assert run.cost[b] == pytest.approx(cost, abs=1e-7)


def test_the_steady_state_is_the_riccati_solution():
    a, _ = matrices()
    q, r = process_covariance(PROCESS**2, np.zeros(0), 1, STEP), np.diag(SENSOR**2)
    expected = solve_discrete_are(a.T, np.eye(2), q, r)
    p, seen = np.diag([4.0, 25.0]), np.ones(2, bool)
    for _ in range(400):
        p = a @ p @ a.T + q
        before = p
        p = correction(p, np.eye(2), SENSOR**2, np.zeros(2), seen).covariance
    np.testing.assert_allclose(before, expected, rtol=1e-9)


def test_noise_adds_up_over_any_number_of_updates():
    rng = np.random.default_rng(0)
    squares, drift = rng.uniform(0.1, 1, 4), rng.uniform(0.1, 1, 1)
    times = rng.uniform(0.01, 0.5, 6)
    total = np.zeros((5, 5))
    for t in times:
        f = np.eye(5)
        f[:2, 2:4] = t * np.eye(2)
        total = f @ total @ f.T + process_covariance(squares, drift, 2, t)
    np.testing.assert_allclose(total, process_covariance(squares, drift, 2, times.sum()), rtol=1e-12)


@pytest.mark.parametrize("free", [(), ("body/cart/mass", "joint/slide/damping", "sensor/place/bias")])
def test_the_gradient_of_the_likelihood_is_that_of_finite_differences(free):
    theta, windows = spring(recorded(2, 101), mass=0.9, seconds=1.0, free=free)
    chain = KalmanFilter(theta, windows, warm_up=5)
    z = theta.initial + 0.1
    gradient = chain.run(z, derivatives=True).gradient.sum(0)
    for i in range(theta.size):
        h = np.eye(theta.size)[i] * 1e-4
        slope = (chain.run(z + h).cost.sum() - chain.run(z - h).cost.sum()) / 2e-4
        assert gradient[i] == pytest.approx(slope, rel=1e-5 if i < 4 else 1e-3, abs=1e-3)


def test_the_noises_of_the_truth_are_learned():
    theta, windows = spring(
        recorded(4, 801), seconds=4.0, mass=1.1, free=("body/cart/mass",), noise=(PROCESS * 5, SENSOR * 3)
    )
    problem = InnovationLikelihood(KalmanFilter(theta, windows, warm_up=20))
    method = FisherScoring(problem, low=theta.low, high=theta.high)
    found = descend(method, method.init(None, theta.initial), iterations=30)
    assert found.status == "converged"
    deviation = np.sqrt(np.diag(np.linalg.inv(found.state.local.information)))
    truth = np.concatenate([np.log(PROCESS), np.log(SENSOR), [MASS]])
    assert (np.abs(found.theta - truth) < 4 * deviation).all()
    assert deviation[1:].max() < 0.15


def test_a_wild_reading_is_left_out_and_a_lost_filter_starts_anew():
    log = recorded(1, 301)
    data = log.rollouts[0].sensordata.copy()
    data[150, 0] += 50.0
    theta, windows = spring(
        dataclasses.replace(log, rollouts=(dataclasses.replace(log.rollouts[0], sensordata=data),)), seconds=6.0
    )
    run = KalmanFilter(theta, windows).run(theta.initial)
    assert not run.passed[0, 149, 0]
    assert run.passed[0, :, 0].sum() == 299
    windows.measured[0, 150, 0] = np.nan
    np.testing.assert_array_equal(KalmanFilter(theta, windows).run(theta.initial).states, run.states)
    # From sample 100 on the spring stands elsewhere: nine readings are refused, and with the tenth the filter starts anew.
    data = log.rollouts[0].sensordata.copy()
    data[100:, 0] += 5.0
    theta, windows = spring(
        dataclasses.replace(log, rollouts=(dataclasses.replace(log.rollouts[0], sensordata=data),)), seconds=6.0
    )
    run = KalmanFilter(theta, windows).run(theta.initial)
    assert run.passed[0, 99:109, 0].sum() == 1
    assert abs(run.states[0, 115, 0] - data[116, 0]) < 0.5


def test_a_quaternion_is_three_numbers():
    rng = np.random.default_rng(1)
    p = rng.normal(size=4)
    p /= np.linalg.norm(p)
    small, q = 1e-4 * rng.normal(size=3), p.copy()
    mujoco.mju_quatIntegrate(q, small, 1.0)
    predicted, y = np.r_[0.3, p], np.r_[0.5, q]
    places = ((1, 2, 3, 4),)
    e, _ = turned(predicted, y - predicted, np.zeros((5, 2)), places)
    np.testing.assert_allclose(e, [0.2, *small, 0], atol=1e-7)
    assert measurable(np.ones(5, bool), places).tolist() == [True, True, True, True, False]
    assert not measurable(np.array([True, True, False, True, True]), places)[1:].any()


def test_the_prior_of_a_rotation_is_about_the_axes_of_the_world():
    """A turn w about the world's axes is R' w in the body's own, so its covariance is R' diag(s^2) R."""
    model = mujoco.MjModel.from_xml_string(
        "<mujoco><worldbody><body><freejoint/><geom size='0.1'/></body></worldbody></mujoco>"
    )
    deviation = np.array([1.0, 2.0, 3.0, 0.1, 0.2, 2.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    noise = Noise(np.ones(12), np.ones(1), np.zeros(1), deviation, np.ones(1))
    quat = np.array([0.5, 0.1, -0.7, 0.4])
    quat /= np.linalg.norm(quat)
    turn = np.zeros(9)
    mujoco.mju_quat2Mat(turn, quat)
    found = noise.start(Space(model), np.concatenate([np.zeros(3), quat, np.zeros(6)]))
    turn = turn.reshape(3, 3)
    np.testing.assert_allclose(found[3:6, 3:6], turn.T @ np.diag(deviation[3:6] ** 2) @ turn, atol=1e-12)
    np.testing.assert_allclose(found[:3, :3], np.diag([1.0, 4.0, 9.0]))


def test_noises_belong_to_joints_and_sensors():
    model = mujoco.MjModel.from_xml_string(
        "<mujoco><worldbody><body name='b'><freejoint name='base'/><geom size='0.1'/>"
        "<body name='c'><joint name='hinge'/><geom size='0.1'/></body></body></worldbody></mujoco>"
    )
    found = {g.name: (g.unit, g.members) for g in groups(model)}
    assert found["joint/base/velocity"] == ("m/s/sqrt(s)", (7, 8, 9))
    assert found["joint/base/angular velocity"] == ("rad/s/sqrt(s)", (10, 11, 12))
    assert found["joint/hinge/position"] == ("rad/sqrt(s)", (6,))
    assert sorted(i for _, members in found.values() for i in members) == list(range(14))


def test_the_kalman_corrector_is_registered_and_has_no_constant_map():
    assert CORRECTORS["kalman"].linearises
    made = make_corrector("kalman", 2, 1, 0)
    assert made.size == 2 + 1 + 1 + 2 + 1
    with pytest.raises(DsoError, match="learned by `dso estimate`"):
        made(made.split(np.zeros(made.size)), np.zeros(0), np.zeros(1), np.ones(1), np.zeros(0))


def test_a_training_with_it_is_refused():
    from dso_robotics.robot.estimator_design import design_filter

    with pytest.raises(DsoError, match="learned from logs by `dso estimate`"):
        design_filter(None, None, corrector="kalman")  # type: ignore
