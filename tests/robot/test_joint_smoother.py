"""Motion and numbers together against dense normal equations, and the recovery of numbers that are known."""

import dataclasses

import mujoco
import numpy as np
import pytest

from dso_robotics.core.method.normal import box_step
from dso_robotics.data.log import Log
from dso_robotics.data.rollout import Rollout
from dso_robotics.parameters.path import Declaration, parse
from dso_robotics.parameters.vector import pack
from dso_robotics.physics.model import load
from dso_robotics.robot import filter_data
from dso_robotics.robot.correctors.kalman import Noise, process_covariance
from dso_robotics.robot.joint_smoother import JointSmoother, at_numbers
from dso_robotics.robot.kalman_smoother import KalmanSmoother
from dso_robotics.robot.kalman_theta import KalmanTheta
from dso_robotics.robot.linear_smoother import LinearProblem, jointly
from dso_robotics.studies.estimate_smooth import smoothed
from tests.robot.free_body import QUADROTOR, QUADROTOR_NOISE, flight
from tests.robot.test_kalman import matrices, recorded, spring
from tests.robot.test_kalman_smoother import errors, of_model, roll

SHARE = 1 - 1e-12
# Both enter the model of the spring linearly, and the second has a prior.
BIAS, GEAR = "sensor/speed/bias", "actuator/push/gear[0]"
FREE = (f"{BIAS}=0.1", Declaration(GEAR, init=1.2, prior=(1.2, 0.4)))


def dense(theta, windows, z, seen):
    """Normal equations of all states of all runs and both numbers: their minimum and covariance."""
    (a, push), noise, (runs, length, _) = matrices(), theta.noise(z), windows.measured.shape
    size, rows, right = 2 * runs * length + 2, [], []
    names = theta.physics.coordinate_names

    def add(at, value, covariance):
        white = np.linalg.inv(np.linalg.cholesky(covariance))
        row = np.zeros((len(value), size))
        for place, block in at:
            row[:, place : place + block.shape[1]] += block
        rows.append(white @ row)
        right.append(white @ value)

    bias, gear = (size - 2 + names.index(name) for name in (BIAS, GEAR))
    for b in range(runs):
        at = [2 * (b * length + t) for t in range(length)]
        add([(at[0], np.eye(2))], windows.start[b], np.diag(noise.prior**2))
        for t in range(length):
            if t:
                q = process_covariance(noise.process**2, np.zeros(0), 1, windows.seconds[b, t - 1])
                forced = -push[:, None] * windows.ctrl[b, t - 1, 0]
                add([(at[t - 1], -a), (at[t], np.eye(2)), (gear, forced)], np.zeros(2), q)
            for c in np.flatnonzero(seen[b, t]):
                shown = [(at[t], np.eye(2)[c : c + 1]), *([(bias, np.ones((1, 1)))] if c == 1 else [])]
                add(shown, windows.measured[b, t, c : c + 1], noise.sensor[c : c + 1, None] ** 2)
    add([(gear, np.ones((1, 1)))], np.array([1.2]), np.array([[0.4**2]]))
    matrix = np.concatenate(rows)
    inverse = np.linalg.inv(matrix.T @ matrix)
    return inverse @ (matrix.T @ np.concatenate(right)), inverse


def test_on_a_linear_system_it_solves_the_normal_equations_of_states_and_numbers():
    """Two runs of a mass on a spring: states, numbers, and all their covariances in closed form."""
    theta, windows = spring(recorded(2, 60), free=FREE, seconds=59 * 0.02)
    assert windows.measured.shape[:2] == (2, 60)
    found = JointSmoother(KalmanSmoother(theta, windows, share=SHARE)).run(theta.initial)
    assert found.converged
    mean, covariance = dense(theta, windows, theta.initial, found.motion.passed)
    np.testing.assert_allclose(found.z[theta.where("physics")], mean[-2:], rtol=0, atol=1e-8)
    np.testing.assert_allclose(found.spread.covariance, covariance[-2:, -2:], rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(found.motion.states.ravel(), mean[:-2], rtol=0, atol=1e-8)
    for i, mine in enumerate(found.motion.covariance.reshape(-1, 2, 2)):
        np.testing.assert_allclose(mine, covariance[2 * i : 2 * i + 2, 2 * i : 2 * i + 2], rtol=1e-6, atol=1e-10)
    # The numbers are far from where they begin, and the motion is less certain than with known ones.
    assert np.abs(mean[-2:] - theta.initial[theta.where("physics")]).max() > 0.05
    known = KalmanSmoother(theta, windows, share=SHARE).run(found.z)
    np.testing.assert_allclose(known.states, found.motion.states, rtol=0, atol=1e-7)
    wider = found.motion.covariance[..., 1, 1] / known.covariance[..., 1, 1]
    assert (wider > 1 - 1e-9).all()
    assert wider.mean() > 1.01
    # Runs that tell nothing of the numbers are as uncertain as these where the numbers are.
    wide = at_numbers(KalmanSmoother(theta, windows, share=SHARE), found.z, found.spread.covariance)
    np.testing.assert_allclose(wide.covariance, found.motion.covariance, rtol=1e-6)


def test_the_joint_smoother_of_a_linear_model_is_exact_for_any_matrices():
    rng, (length, k, ny, m) = np.random.default_rng(0), (6, 3, 2, 2)

    def spread(*shape: int) -> np.ndarray:
        root = rng.normal(size=(*shape, k, k))
        return root @ np.swapaxes(root, -1, -2) + 0.1 * np.eye(k)

    p = LinearProblem(
        rng.normal(size=(1, k)), spread(1), rng.normal(size=(1, length - 1, k, k)), rng.normal(size=(1, length - 1, k)),
        spread(1, length - 1), rng.normal(size=(1, length, ny, k)), rng.uniform(0.1, 1, ny),
        rng.normal(size=(1, length, ny)), rng.random((1, length, ny)) < 0.7,
        rng.normal(size=(1, length - 1, k, m)), rng.normal(size=(1, length, ny, m)),
    )  # fmt: skip
    size = length * k + m
    normal, right, every = np.zeros((size, size)), np.zeros(size), np.eye(size)
    shared, every = every[length * k :], every[: length * k].reshape(length, k, size)

    def add(jacobian, value, covariance):
        nonlocal normal, right
        normal = normal + jacobian.T @ np.linalg.solve(covariance, jacobian)
        right = right + jacobian.T @ np.linalg.solve(covariance, value)

    add(every[0], p.mean[0], p.start[0])
    for t in range(length):
        if t:
            add(every[t] - p.a[0, t - 1] @ every[t - 1] - p.g[0, t - 1] @ shared, p.c[0, t - 1], p.q[0, t - 1])
        for i in np.flatnonzero(p.seen[0, t]):
            add(
                p.h[0, t, i : i + 1] @ every[t] + p.s[0, t, i : i + 1] @ shared,
                p.e[0, t, i : i + 1],
                np.array([[p.r[i]]]),
            )
    best, inverse, found = np.linalg.solve(normal, right), np.linalg.inv(normal), jointly(p)
    numbers = np.linalg.solve(found.information[0], found.pull[0])
    np.testing.assert_allclose(numbers, best[-m:], atol=1e-9)
    np.testing.assert_allclose(np.linalg.inv(found.information[0]), inverse[-m:, -m:], atol=1e-9)
    np.testing.assert_allclose((found.mean[0] + found.slope[0] @ numbers).ravel(), best[:-m], atol=1e-9)
    cross = found.slope[0] @ inverse[-m:, -m:]
    np.testing.assert_allclose(cross.reshape(-1, m), inverse[:-m, -m:], atol=1e-9)


@pytest.mark.parametrize("low", [-10.0, 0.0])
def test_a_step_ends_at_the_least_cost_within_the_bounds(low):
    rng = np.random.default_rng(1)
    root, gradient, z = rng.normal(size=(3, 3)), rng.normal(size=3), rng.uniform(0.5, 1.0, 3)
    information, bounds = root @ root.T + np.eye(3), (np.full(3, low), np.full(3, 0.8 if low == 0.0 else 10.0))
    z = np.clip(z, *bounds)
    step = box_step(information, gradient, *(end - z for end in bounds))

    def cost(p):
        return gradient @ p + 0.5 * p @ information @ p

    assert ((z + step >= bounds[0]) & (z + step <= bounds[1])).all()
    for other in rng.normal(size=(2000, 3)):
        assert cost(step) < cost(np.clip(z + step + 0.3 * other, *bounds) - z) + 1e-5


PENDULUM = """
<mujoco>
  <option timestep="0.01" integrator="implicitfast"/>
  <worldbody>
    <body name="arm">
      <joint name="hinge" axis="0 1 0" damping="{damping}" frictionloss="{friction}"/>
      <geom type="capsule" fromto="0 0 0 0 0 -0.5" size="0.02" mass="0.7"/>
    </body>
  </worldbody>
  <actuator><motor name="motor" joint="hinge"/></actuator>
  <sensor><jointpos name="angle" joint="hinge"/><jointvel name="rate" joint="hinge"/></sensor>
</mujoco>
"""
TRUTH = {"joint/hinge/damping": 0.08, "joint/hinge/frictionloss": 0.1, "sensor/rate/bias": 0.2}
PUSH, SEEN = 0.05, np.array([0.005, 0.05])


def swung(seed: int, length: int = 300) -> Rollout:
    """A pendulum with friction, a biased rate sensor and white noise on its speed."""
    model = mujoco.MjModel.from_xml_string(PENDULUM.format(damping=0.08, friction=0.1))
    data, rng, rows = mujoco.MjData(model), np.random.default_rng(seed), []
    torque = np.repeat(rng.uniform(-1.5, 1.5, length // 20 + 1), 20)[:length]
    data.qpos[0] = rng.normal()
    for t in range(length):
        rows.append([data.qpos[0], data.qvel[0]])
        data.ctrl[:] = torque[t]
        mujoco.mj_step(model, data)
        data.qvel[:] += PUSH * np.sqrt(0.01) * rng.normal()
    states = np.array(rows)
    readings = states + np.array([0.0, TRUTH["sensor/rate/bias"]]) + SEEN * rng.normal(size=(length, 2))
    return Rollout(
        name=f"run{seed}", time=0.01 * np.arange(length), ctrl=torque[:, None], ctrl_names=("motor",), sensordata=readings,
        sensor_names=("angle", "rate"), sensor_units=("rad", "rad/s"), qpos=states[:, :1], qvel=states[:, 1:],
    )  # fmt: skip


def pendulum(rollouts, *free: str):
    robot = load(mujoco.MjSpec.from_string(PENDULUM.format(damping=0.16, friction=0.05)))
    log = Log("pendulum", "test", "CC0", tuple(rollouts))
    physics = pack([parse(text) for text in free], robot)
    channels = filter_data.select_channels(log, physics.mj, None)
    windows = filter_data.cut_windows(
        log.rollouts, channels, physics.mj, interval=0.01, substeps=1, seconds=None, any_time=True
    )
    noise = Noise(np.array([1e-4, PUSH]), SEEN, np.zeros(2), np.array([0.5, 2.0]), np.full(2, 0.1))
    return KalmanTheta(physics, noise, channels.sensor_names, channels.quaternions), windows


def test_friction_and_bias_of_a_pendulum_are_recovered_with_honest_intervals():
    off = []
    for trial in range(2):
        theta, windows = pendulum([swung(10 * trial), swung(10 * trial + 1)], *TRUTH)
        # At the kink of dry friction the search may end without having converged.
        found = JointSmoother(KalmanSmoother(theta, windows, share=SHARE)).run(theta.initial)
        values = dict(zip(theta.physics.coordinate_names, found.solution.z, strict=True))
        assert list(values) == list(TRUTH)
        off.append([(values[path] - truth) for path, truth in TRUTH.items()] / found.spread.std)
        assert (found.spread.std < [0.01, 0.02, 0.01]).all()
        states = windows.truth
        error = found.motion.states - states
        nees = np.mean(np.sum(error * np.linalg.solve(found.motion.covariance, error[..., None])[..., 0], -1)) / 2
        assert 0.5 < nees < 1.8
    # Six standardised errors, as large as the intervals claim.
    assert np.abs(off).max() < 3.5
    assert 0.3 < np.sqrt(np.mean(np.square(off))) < 1.8


def test_a_number_at_its_bound_stays_there_and_the_motion_does_not_count_on_it():
    theta, windows = pendulum([swung(0, 150)], "joint/hinge/damping=0.07@0:0.08", "sensor/rate/bias")
    found = JointSmoother(KalmanSmoother(theta, windows, share=SHARE)).run(theta.initial)
    assert found.converged
    assert found.solution.active.tolist() == [True, False]
    assert found.solution.z[0] == pytest.approx(0.08, abs=1e-12)
    # The motion is that of a model with this damping, and its covariance counts the bias alone.
    bias = np.zeros((2, 2))
    bias[1, 1] = found.spread.covariance[1, 1]
    wide = at_numbers(KalmanSmoother(theta, windows, share=SHARE), found.z, bias)
    np.testing.assert_allclose(wide.states, found.motion.states, atol=1e-3)
    np.testing.assert_allclose(wide.covariance, found.motion.covariance, rtol=0.02, atol=1e-9)
    # Runs that are held out count it as little.
    assert found.spread.covariance[0, 0] > 0
    held_out = smoothed(theta, found.z, windows, 0, SHARE, learned=found)
    np.testing.assert_array_equal(held_out.found.covariance, wide.covariance)


def test_the_mass_of_a_free_body_is_found_together_with_its_motion():
    """A quadrotor whose model is a tenth too heavy: in the tangent space, with slow sensors, and an honest interval."""
    runs = [roll(QUADROTOR, f"r{i}", 0.004, *flight(i, 300, yaw)) for i, yaw in enumerate((0.3, 2.5))]
    heavy = QUADROTOR.replace('mass="1"', 'mass="1.1"')
    theta, windows = of_model(heavy, QUADROTOR_NOISE, runs, 0.004, "body/quad/mass")
    windows = dataclasses.replace(windows, start=windows.truth[:, 0].copy())
    theta = dataclasses.replace(theta, begin=dataclasses.replace(theta.begin, prior=np.full(12, 0.3)))
    found = JointSmoother(KalmanSmoother(theta, windows, share=SHARE)).run(theta.initial)
    assert found.converged
    off = (found.solution.z[0] - 1.0) / found.spread.std[0]
    assert abs(off) < 3.5
    assert found.spread.std[0] < 0.01
    np.testing.assert_allclose(np.linalg.norm(found.motion.states[..., 3:7], axis=-1), 1.0, atol=1e-12)
    after = errors(theta, windows, found.motion.states)
    squares = np.sum(after * np.linalg.solve(found.motion.covariance, after[..., None])[..., 0], -1) / 12
    assert 0.4 < squares.mean() < 2
    # At the wrong mass the motion is worse, and its covariance is not honest.
    alone = errors(theta, windows, KalmanSmoother(theta, windows, share=SHARE).run(theta.initial).states)
    for part in (slice(0, 3), slice(6, 9)):
        assert np.mean(after[..., part] ** 2) < np.mean(alone[..., part] ** 2)


HOPPER = """
<mujoco>
  <option timestep="0.002" integrator="implicitfast"/>
  <worldbody>
    <geom type="plane" size="5 5 0.1" solref="{solref}"/>
    <body name="ball" pos="0 0 0.3">
      <joint name="height" type="slide" axis="0 0 1" damping="0.2"/>
      <geom type="sphere" size="0.1" mass="{mass}" solref="{solref}"/>
    </body>
  </worldbody>
  <actuator><motor name="thrust" joint="height"/></actuator>
  <sensor><jointpos name="place" joint="height"/><jointvel name="speed" joint="height"/></sensor>
</mujoco>
"""
SOFT, HOP = "0.02 0.3", np.array([0.002, 0.05])


def hop(seed: int, length: int = 300) -> Rollout:
    """A ball that is pushed up and falls on a floor, sampled at 100 Hz, with white noise on its speed."""
    model = mujoco.MjModel.from_xml_string(HOPPER.format(mass=0.5, solref=SOFT))
    data, rng, rows = mujoco.MjData(model), np.random.default_rng(seed), []
    thrust = np.repeat(rng.uniform(0.0, 6.0, length // 15 + 1), 15)[:length]
    for t in range(length):
        rows.append([data.qpos[0], data.qvel[0]])
        data.ctrl[:] = thrust[t]
        mujoco.mj_step(model, data, 5)
        data.qvel[:] += PUSH * np.sqrt(0.01) * rng.normal()
    states = np.array(rows)
    return Rollout(
        name=f"run{seed}", time=0.01 * np.arange(length), ctrl=thrust[:, None], ctrl_names=("thrust",),
        sensordata=states + HOP * rng.normal(size=(length, 2)), sensor_names=("place", "speed"), sensor_units=("m", "m/s"),
        qpos=states[:, :1], qvel=states[:, 1:],
    )  # fmt: skip


def test_the_mass_of_a_ball_that_hits_a_floor_is_found_together_with_its_motion():
    """Contacts have kinks, so the search need not converge, but it is to end at the truth and to say what it knows."""
    rollouts = [hop(0), hop(1)]
    lowest = min(float(r.qpos.min()) for r in rollouts if r.qpos is not None)
    assert lowest < -0.2  # 0.3 m above the floor's surface at the start, with a radius of 0.1 m
    robot = load(mujoco.MjSpec.from_string(HOPPER.format(mass=0.6, solref=SOFT)))
    physics = pack([parse("body/ball/mass"), parse("joint/height/damping=0.4")], robot)
    channels = filter_data.select_channels(Log("", "test", "CC0", tuple(rollouts)), physics.mj, None)
    windows = filter_data.cut_windows(
        tuple(rollouts), channels, physics.mj, interval=0.01, substeps=5, seconds=None, any_time=True
    )
    noise = Noise(np.array([1e-4, PUSH]), HOP, np.zeros(2), np.array([0.5, 2.0]), np.full(2, 0.1))
    theta = KalmanTheta(physics, noise, channels.sensor_names, channels.quaternions)
    found = JointSmoother(KalmanSmoother(theta, windows, share=SHARE)).run(theta.initial)
    off = (found.solution.z - [0.5, 0.2]) / found.spread.std
    assert (np.abs(off) < 4).all(), off
    assert (found.spread.std < [0.02, 0.1]).all()
    error = found.motion.states - windows.truth
    squares = np.sum(error * np.linalg.solve(found.motion.covariance, error[..., None])[..., 0], -1) / 2
    # In flight the covariance is right. At a touch-down the derivative is that of one side of a kink, and it claims too much.
    touching = windows.truth[..., 0] < -0.15
    assert 0.4 < squares[~touching].mean() < 2
    assert np.median(squares) < 2
    assert (np.sqrt(np.mean(error[:, 5:] ** 2, axis=(0, 1))) < [0.001, 0.05]).all()
