"""The smoother against dense normal equations, the filter it begins with, and motions that are known."""

import dataclasses

import mujoco
import numpy as np
import pytest

from dso_robotics.data.log import Log
from dso_robotics.data.rollout import Rollout
from dso_robotics.parameters.path import parse
from dso_robotics.parameters.vector import ParameterVector, pack
from dso_robotics.physics.model import load
from dso_robotics.robot import filter_data
from dso_robotics.robot.correctors.kalman import Noise, process_covariance
from dso_robotics.robot.estimator_space import Space
from dso_robotics.robot.kalman_filter import KalmanFilter
from dso_robotics.robot.kalman_smoother import KalmanSmoother
from dso_robotics.robot.kalman_theta import KalmanTheta
from dso_robotics.robot.linear_smoother import LinearProblem, smoothed
from tests.robot.free_body import ARM, ARM_NOISE, QUADROTOR, QUADROTOR_NOISE, flight, swing
from tests.robot.test_kalman import STEP, matrices, recorded, spring

SHARE = 0.99999


def dense(theta, windows, b: int, z: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """States (T, 2) and covariances (T, 2, 2) of the spring by one least-squares problem of all samples."""
    (a, push), noise, (length, _) = matrices(), theta.noise(z), windows.measured.shape[1:]
    rows, right = [], []

    def add(at: dict[int, np.ndarray], value: np.ndarray, covariance: np.ndarray) -> None:
        white = np.linalg.inv(np.linalg.cholesky(covariance))
        row = np.zeros((len(value), 2 * length))
        for t, block in at.items():
            row[:, 2 * t : 2 * t + 2] = block
        rows.append(white @ row)
        right.append(white @ value)

    add({0: np.eye(2)}, windows.start[b], np.diag(noise.prior**2))
    for t in range(length):
        if t:
            q = process_covariance(noise.process**2, np.zeros(0), 1, windows.seconds[b, t - 1])
            add({t - 1: -a, t: np.eye(2)}, push * windows.ctrl[b, t - 1, 0], q)
        for c in np.flatnonzero(seen[b, t]):
            add({t: np.eye(2)[c : c + 1]}, windows.measured[b, t, c : c + 1], noise.sensor[c : c + 1, None] ** 2)
    matrix = np.concatenate(rows)
    normal = matrix.T @ matrix
    found = np.linalg.solve(normal, matrix.T @ np.concatenate(right)).reshape(length, 2)
    inverse = np.linalg.inv(normal)
    return found, np.array([inverse[2 * t : 2 * t + 2, 2 * t : 2 * t + 2] for t in range(length)])


def test_on_a_linear_system_it_solves_the_normal_equations():
    """Two runs of different lengths; the speed is read in every third sample, and a quarter of all readings is missing."""
    log, rng = recorded(2, 101), np.random.default_rng(5)
    first, second = log.rollouts
    data = np.where(rng.random((101, 2)) < 0.25, np.nan, first.sensordata)
    data[0] = first.sensordata[0]
    shorter = Rollout(
        name="short", time=second.time[:60], ctrl=second.ctrl[:60], ctrl_names=("push",),
        sensordata=second.sensordata[:60], sensor_names=second.sensor_names, sensor_units=second.sensor_units,
    )  # fmt: skip
    theta, windows = spring(dataclasses.replace(log, rollouts=(dataclasses.replace(first, sensordata=data), shorter)))
    windows = filter_data.cut_windows(
        windows.rollouts, windows.channels, theta.physics.mj, interval=STEP, substeps=1, seconds=None
    )
    found = KalmanSmoother(theta, windows, share=SHARE).run(theta.initial)
    assert found.converged.all()
    assert found.steps.max() <= 2
    assert (found.passed == np.isfinite(windows.measured)).all()
    for b, length in enumerate((101, 60)):
        short = dataclasses.replace(
            windows.pick(np.array([b])),
            **{name: getattr(windows, name)[b : b + 1, :length] for name in ("measured", "ctrl", "seconds")},
        )
        states, covariances = dense(theta, short, 0, theta.initial, found.passed[b : b + 1, :length])
        np.testing.assert_allclose(found.states[b, :length], states, rtol=0, atol=1e-8)
        np.testing.assert_allclose(found.covariance[b, :length], covariances, rtol=1e-6, atol=1e-10)
        assert np.isnan(found.states[b, length:]).all()
    # The last state is the filter's: there is nothing after it. Only the first sample's readings are not in the filter.
    filtered = KalmanFilter(theta, windows).run(theta.initial)
    np.testing.assert_allclose(found.states[0, -1], filtered.states[0, -1], atol=1e-6)


def test_the_smoother_of_a_linear_model_is_exact_for_any_matrices():
    rng, (length, k, ny) = np.random.default_rng(0), (7, 3, 2)

    def spread(*shape: int) -> np.ndarray:
        root = rng.normal(size=(*shape, k, k))
        return root @ np.swapaxes(root, -1, -2) + 0.1 * np.eye(k)

    a, c, h = (
        rng.normal(size=(1, length - 1, k, k)),
        rng.normal(size=(1, length - 1, k)),
        rng.normal(size=(1, length, ny, k)),
    )
    seen = rng.random((1, length, ny)) < 0.7
    p = LinearProblem(
        rng.normal(size=(1, k)), spread(1), a, c, spread(1, length - 1), h, rng.uniform(0.1, 1, ny),
        rng.normal(size=(1, length, ny)), seen,
    )  # fmt: skip
    normal, right = np.zeros((length * k, length * k)), np.zeros(length * k)

    def add(jacobian: np.ndarray, value: np.ndarray, covariance: np.ndarray) -> None:
        nonlocal normal, right
        normal, right = (
            normal + jacobian.T @ np.linalg.solve(covariance, jacobian),
            right + jacobian.T @ np.linalg.solve(covariance, value),
        )

    every = np.eye(length * k).reshape(length, k, length * k)
    add(every[0], p.mean[0], p.start[0])
    for t in range(length):
        if t:
            add(every[t] - a[0, t - 1] @ every[t - 1], c[0, t - 1], p.q[0, t - 1])
        for i in np.flatnonzero(seen[0, t]):
            add(h[0, t, i : i + 1] @ every[t], p.e[0, t, i : i + 1], np.array([[p.r[i]]]))
    means, spreads = smoothed(p)
    np.testing.assert_allclose(means[0].ravel(), np.linalg.solve(normal, right), atol=1e-10)
    inverse = np.linalg.inv(normal)
    for t in range(length):
        np.testing.assert_allclose(spreads[0, t], inverse[k * t : k * t + k, k * t : k * t + k], atol=1e-10)


def of_model(xml: str, noise: Noise, rollouts: list[Rollout], interval: float, *free: str):
    """(theta, windows) of whole runs, with these physics or sensor numbers."""
    robot = load(mujoco.MjSpec.from_string(xml))
    log = Log("log", "test", "CC0", tuple(rollouts))
    channels = filter_data.select_channels(log, robot.mj, None)
    windows = filter_data.cut_windows(
        log.rollouts, channels, robot.mj, interval=interval, substeps=1, seconds=None, any_time=True
    )
    physics = pack([parse(text) for text in free], robot) if free else ParameterVector((), robot.mj)
    return KalmanTheta(physics, noise, channels.sensor_names, channels.quaternions), windows


def named(model: mujoco.MjModel) -> tuple[str, ...]:
    names = []
    for i in range(model.nsensor):
        size = int(model.sensor_dim[i])
        names += [model.sensor(i).name] if size == 1 else [f"{model.sensor(i).name}[{j}]" for j in range(size)]
    return tuple(names)


def roll(xml: str, name: str, interval: float, states, controls, readings) -> Rollout:
    """A log of these samples."""
    model = mujoco.MjModel.from_xml_string(xml)
    time = interval * np.arange(len(states))
    return Rollout(
        name=name, time=time, ctrl=np.concatenate([controls, controls[-1:]]),
        ctrl_names=tuple(model.actuator(i).name for i in range(model.nu)), sensordata=readings, sensor_names=named(model),
        qpos=states[:, : model.nq], qvel=states[:, model.nq :],
    )  # fmt: skip


def errors(theta, windows, states: np.ndarray) -> np.ndarray:
    """Errors (B, T, 2 nv) of states (B, T, nx)."""
    return Space(theta.physics.mj).difference(windows.truth, states)


def test_a_free_body_is_smoothed_in_the_tangent_space():
    """A quadrotor with missing readings: errors below the filter's, as large as claimed, at a minimum of the cost."""
    runs = [roll(QUADROTOR, f"r{i}", 0.004, *flight(i, 300, yaw)) for i, yaw in enumerate((0.3, 2.5))]
    theta, windows = of_model(QUADROTOR, QUADROTOR_NOISE, runs, 0.004)
    windows = dataclasses.replace(windows, start=windows.truth[:, 0].copy())
    tight = dataclasses.replace(theta.begin, prior=np.array([0.3] * 3 + [0.3] * 3 + [0.3] * 6))
    theta = dataclasses.replace(theta, begin=tight)
    filtered = KalmanFilter(theta, windows).run(theta.initial)
    smoother = KalmanSmoother(theta, windows, share=SHARE)
    found = smoother.run(theta.initial)
    assert found.converged.all()
    np.testing.assert_allclose(np.linalg.norm(found.states[..., 3:7], axis=-1), 1.0, atol=1e-12)
    before, after = errors(theta, windows, filtered_states(windows, filtered)), errors(theta, windows, found.states)
    for part in (slice(0, 3), slice(3, 6), slice(6, 9)):
        assert np.sqrt(np.mean(after[:, 20:, part] ** 2)) < 0.8 * np.sqrt(np.mean(before[:, 20:, part] ** 2))
    squares = np.sum(after * np.linalg.solve(found.covariance, after[..., None])[..., 0], -1) / 12
    assert 0.4 < squares.mean() < 2.0


def filtered_states(windows, run) -> np.ndarray:
    return np.concatenate([windows.start[:, None], run.states], 1)


def test_spikes_are_left_out_and_a_robot_that_is_carried_away_breaks_the_run():
    states, torques, readings = swing(1, 600)
    spoiled = readings.copy()
    spoiled[[50, 51, 200], [0, 0, 1]] += 1.0
    theta, windows = of_model(ARM, ARM_NOISE, [roll(ARM, "r", 0.005, states, torques, spoiled)], 0.005)
    found = KalmanSmoother(theta, windows, share=SHARE).run(theta.initial)
    wrong = ~found.passed[0]
    assert wrong[[50, 51, 200], [0, 0, 1]].all()
    assert wrong.sum() <= 4
    assert not found.breaks.any()
    off = errors(theta, windows, found.states)[0]
    assert np.abs(off[:, :2]).max() < 0.01
    # At sample 300 the arm is somewhere else: a break, and no state is smeared over it.
    far, other = swing(2, 600)[::2]
    moved, truth = readings.copy(), states.copy()
    moved[300:], truth[300:] = other[:301], far[:301]
    truth_torques = np.concatenate([torques[:300], swing(2, 600)[1][:300]])
    theta, windows = of_model(ARM, ARM_NOISE, [roll(ARM, "r", 0.005, truth, truth_torques, moved)], 0.005)
    found = KalmanSmoother(theta, windows, share=SHARE).run(theta.initial)
    assert found.breaks[0].sum() == 1
    assert 300 <= int(np.argmax(found.breaks[0])) <= 312
    off = errors(theta, windows, found.states)[0]
    assert np.abs(np.delete(off, np.arange(290, 315), 0)[:, :2]).max() < 0.02


@pytest.mark.parametrize("jitter", [False, True])
def test_readings_at_any_times_and_long_gaps(jitter):
    """Samples thinned at random, and a pause of half a second: errors stay within what is claimed."""
    states, torques, _ = swing(3, 800)
    rng, model = np.random.default_rng(1), mujoco.MjModel.from_xml_string(ARM)
    keep = np.flatnonzero((rng.random(801) < 0.6) | (np.arange(801) % 40 == 0)) if jitter else np.arange(801)
    keep = keep[(keep < 400) | (keep > 500)]
    data, torques = mujoco.MjData(model), np.zeros_like(torques)
    data.qpos[:], data.qvel[:] = states[0, :2], states[0, 2:]
    for t in range(801):
        states[t] = np.concatenate([data.qpos, data.qvel])
        data.qvel[:] += ARM_NOISE.process[2:] * np.sqrt(0.005) * rng.normal(size=2)
        mujoco.mj_step(model, data)
    readings = states[:, :2] + ARM_NOISE.sensor * rng.normal(size=(801, 2))
    whole = roll(ARM, "r", 0.005, states, torques, readings)
    thin = Rollout(
        name="r", time=whole.time[keep], ctrl=whole.ctrl[keep], ctrl_names=whole.ctrl_names,
        sensordata=whole.sensordata[keep], sensor_names=whole.sensor_names, qpos=whole.qpos[keep], qvel=whole.qvel[keep],
    )  # fmt: skip
    theta, windows = of_model(ARM, ARM_NOISE, [thin], 0.005)
    found = KalmanSmoother(theta, windows, share=SHARE).run(theta.initial)
    assert found.converged.all()
    off = errors(theta, windows, found.states)[0]
    known = np.isfinite(off).all(-1)
    squares = np.sum(off[known] * np.linalg.solve(found.covariance[0, known], off[known][..., None])[..., 0], -1) / 4
    assert squares.mean() < 2.0
    assert np.abs(off[known][:, :2]).max() < 0.05
