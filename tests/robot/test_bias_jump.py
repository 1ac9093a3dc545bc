"""Biases as states: found within their spread, and given up when they jump, on an arm and a free body."""

import numpy as np
import pytest

from dso_robotics.robot import kalman_gate
from dso_robotics.robot.correctors.kalman import Noise, process_covariance
from dso_robotics.robot.kalman_estimator import KalmanEstimator
from dso_robotics.robot.kalman_filter import KalmanFilter
from dso_robotics.robot.kalman_gate import Restart
from dso_robotics.robot.kalman_smoother import KalmanSmoother
from dso_robotics.robot.moving_horizon import MovingHorizon
from tests.robot.biased import (
    ARM_KINDS,
    ARM_SENSORS,
    FREE_KINDS,
    FREE_SENSORS,
    LOADED_ARM,
    TWO_PLACES,
    Followed,
    arm,
    drifting,
    flight,
    followed,
    spoiled,
)
from tests.robot.free_body import ARM_NOISE, QUADROTOR_NOISE, estimator
from tests.robot.test_kalman import MASS, PROCESS, SENSOR, SPRING, STEP, matrices
from tests.robot.test_kalman_smoother import errors, filtered_states, of_model, roll

# Sizes of the bias by sensor: several times the noise of a reading, and as much again after the jump.
ARM_SIZES = {"elbow": 0.1, "gyro": 0.2, "acc": 1.0, "place": 0.1}
FREE_SIZES = {"gyro": 0.3, "acc": 2.0, "position": 0.7}


def filtered(
    xml: str, noise: Noise, interval: float, run: tuple, readings: np.ndarray
) -> tuple[KalmanEstimator, Followed]:
    truth, controls = run[:2]
    made = estimator(xml, noise, interval=interval)
    free = truth.shape[1] == 13
    made.reset(qpos=truth[0, :7] if free else None, measurement=readings[0])
    return made, followed(made, truth, controls, readings)


@pytest.mark.parametrize("kind", list(ARM_KINDS))
def test_on_an_arm_a_bias_is_found_and_its_jump_is_absorbed_within_five_seconds(kind):
    channels, size, at = ARM_KINDS[kind], ARM_SIZES[kind], 600
    later, noise = at + 1000, drifting(ARM_NOISE, ARM_SENSORS, channels)
    run = arm(0, 2000)
    plain, jumped = (
        filtered(LOADED_ARM, noise, 0.005, run, spoiled(run[2], channels, size, jump, at)) for jump in (0, size)
    )
    _check(plain[1], jumped[1], channels, size, at, later, first=200)
    assert 9 < jumped[0].gated[kind] < 40


@pytest.mark.parametrize("kind", list(FREE_KINDS))
def test_on_a_free_body_a_bias_is_found_and_its_jump_is_absorbed_within_five_seconds(kind):
    channels, size, at = FREE_KINDS[kind], FREE_SIZES[kind], 1000
    later, noise, runs = at + 1250, drifting(QUADROTOR_NOISE, FREE_SENSORS, channels), []
    for seed in range(2):
        run = flight(seed, 3250)
        plain, jumped = (
            filtered(TWO_PLACES, noise, 0.004, run, spoiled(run[2], channels, size, j, at))[1] for j in (0, size)
        )
        _check(plain, jumped, channels, size, at, later, first=500, most=1.4)
        runs.append((plain, jumped))
    before = np.sqrt(np.mean([plain.rms(later) ** 2 for plain, _ in runs], axis=0))
    after = np.sqrt(np.mean([jumped.rms(later) ** 2 for _, jumped in runs], axis=0))
    assert (after < 1.2 * before).all(), after / before


def _check(
    plain: Followed, jumped: Followed, channels: list[int], size: float, at: int, later: int, *, first: int, most: float = 1.2
):  # fmt: skip
    """Against the same run without a jump: the truth of biases in units of their spread, errors and honesty of the state."""
    shape = np.array([1.0, -0.5, 0.7])[: len(channels)]
    many = plain.error.shape[1]
    for found, size_now, part in ((plain, size, slice(at - 200, at)), (jumped, 2 * size, slice(later, None))):
        off = (found.bias[part][:, channels] - size_now * shape) / found.spread[part, many:]
        # Errors of a bias last for long, so this is of few independent numbers.
        assert np.sqrt(np.mean(off**2)) < 2.2
        assert np.abs(off.mean(0)).max() < 3.5
        # The bias is known: to a tenth of its size.
        assert (found.spread[part, many:] < 0.1 * size).all()
    for found, part in ((plain, slice(first, None)), (jumped, slice(later, None))):
        assert 0.5 < found.square[part].mean() < 2
    ratio = jumped.rms(later) / plain.rms(later)
    assert (ratio < most).all(), ratio


def test_a_jump_that_hides_in_a_gust_is_found_by_innovations_that_are_too_large_for_long(monkeypatch):
    """A gyroscope that jumps by less than gusts turn the body in a second misleads its attitude, which a compass shows."""
    channels, at = FREE_KINDS["gyro"], 1000
    run, noise = flight(1, 2250), drifting(QUADROTOR_NOISE, FREE_SENSORS, channels)
    readings, off = spoiled(run[2], channels, 0.1, 0.1, at), []
    for nats in (30.0, np.inf):
        monkeypatch.setattr(kalman_gate, "_NATS", nats)
        made, found = filtered(TWO_PLACES, noise, 0.004, run, readings)
        assert sum(made.gated.values()) < 25
        off.append(found.rms(at + 750)[1])
        honest = found.square[at + 500 :].mean()
        assert honest < 2.5 if np.isfinite(nats) else honest > 10
    # The attitude from three seconds after the jump on.
    assert off[0] < 0.05 < 0.1 < off[1]


def test_a_robot_that_is_carried_away_is_found_although_biases_drift():
    """Ten wild readings are taken for a jump of a bias, which does not explain them, and ten more for another state."""
    noise, at = drifting(ARM_NOISE, ARM_SENSORS, ARM_KINDS["gyro"]), 300
    (first, before, seen), (second, after, read) = arm(0, at), arm(1, 600)
    truth, torques = np.concatenate([first[:-1], second]), np.concatenate([before, after])
    _, found = filtered(LOADED_ARM, noise, 0.005, (truth, torques, None), np.concatenate([seen[:-1], read]))
    assert np.abs(found.error[at + 2]).max() > 0.5
    assert np.abs(found.error[at + 60 :, :2]).max() < 0.02
    assert 0.3 < found.square[at + 100 :].mean() < 2


def test_the_filter_of_the_training_and_the_smoother_follow_a_jump():
    """Both give the bias up in that update; the smoother lets it jump there, and knows it on both sides."""
    channels, size, at = ARM_KINDS["gyro"], 0.3, 300
    truth, torques, readings = arm(3, 700)
    noise = drifting(ARM_NOISE, ARM_SENSORS, channels)
    run = roll(LOADED_ARM, "run", 0.005, truth, torques, spoiled(readings, channels, 0.0, size, at))
    theta, windows = of_model(LOADED_ARM, noise, [run], 0.005)
    shape = np.array([1.0, -0.5, 0.7])
    online = KalmanFilter(theta, windows).run(theta.initial)
    # Sample t + 1 belongs to update t. The tenth wild reading is the one that tells.
    assert np.argwhere(online.jumped).tolist() == [[0, at + 8]]
    assert online.jumped[0, at + 8] == Restart.NOW
    assert not online.anew.any()
    np.testing.assert_allclose(online.offset[0, at + 200, channels], size * shape, atol=0.02)
    made = estimator(LOADED_ARM, noise, interval=0.005)
    made.reset(qpos=windows.start[0, :2], qvel=windows.start[0, 2:])
    readings = windows.measured[0]
    same = np.array([made.update(u, y).bias for u, y in zip(torques, readings[1:], strict=True)])
    np.testing.assert_allclose(same[at - 50 : at], online.offset[0, at - 50 : at], atol=2e-3)
    np.testing.assert_allclose(same[at + 100 :], online.offset[0, at + 100 :], atol=2e-3)
    found = KalmanSmoother(theta, windows, share=1 - 1e-5).run(theta.initial)
    assert found.converged.all()
    assert not found.breaks.any()
    spread = np.sqrt(np.diagonal(found.covariance[0], axis1=1, axis2=2))[:, 4:]
    for part, bias in ((slice(0, at - 1), 0.0 * shape), (slice(at + 12, None), size * shape)):
        off = (found.offset[0, part][:, channels] - bias) / spread[part]
        assert np.sqrt(np.mean(off**2)) < 2
    before, after = errors(theta, windows, filtered_states(windows, online))[0], errors(theta, windows, found.states)[0]
    assert (np.sqrt(np.mean(after[20:] ** 2, 0)) < np.sqrt(np.mean(before[20:] ** 2, 0))).all()
    squares = np.sum(after * np.linalg.solve(found.covariance[0, :, :4, :4], after[..., None])[..., 0], -1) / 4
    assert 0.5 < squares.mean() < 2


def test_a_moving_horizon_follows_a_jump():
    channels, size, at = ARM_KINDS["gyro"], 0.3, 120
    truth, torques, readings = arm(4, 260)
    noise = drifting(ARM_NOISE, ARM_SENSORS, channels)
    filter_ = estimator(LOADED_ARM, noise, interval=0.005)
    made = MovingHorizon(filter_.model, filter_.learned, 4)
    given = spoiled(readings, channels, 0.0, size, at)
    made.reset(measurement=given[0])
    found = [made.update(u, y) for u, y in zip(torques, given[1:], strict=True)]
    bias = np.array([one.bias for one in found])[:, channels]
    np.testing.assert_allclose(bias[at - 20 : at - 1], 0.0, atol=0.03)
    np.testing.assert_allclose(bias[at + 60 :], np.tile(size * np.array([1.0, -0.5, 0.7]), (80, 1)), atol=0.03)
    off = np.array([one.qvel for one in found]) - truth[1:, 2:]
    assert np.sqrt(np.mean(off[at + 60 :] ** 2)) < 1.2 * np.sqrt(np.mean(off[40 : at - 1] ** 2)) + 0.005


def test_what_a_jump_has_done_is_the_sum_over_all_times_at_which_it_may_have_come():
    """On a linear system a jump d moves the error by (I - K H) A ... (I - K H) A d, with the gains of the textbook's filter."""
    size, steps, dt = 0.3, 40, STEP
    noise = Noise(PROCESS, SENSOR, np.array([0.0, 0.05]), np.array([2.0, 5.0]), np.array([9.0, size]))
    made = estimator(SPRING.format(mass=MASS), noise, interval=dt)
    made.reset(qpos=[0.0], qvel=[0.0])
    rng, (a, _) = np.random.default_rng(0), matrices()
    f, h, r = np.eye(3), np.array([[1.0, 0, 0], [0, 1.0, 1.0]]), np.diag(SENSOR**2)
    f[:2, :2] = a
    p, q = np.diag([4.0, 25.0, size**2]), process_covariance(PROCESS**2, np.array([0.05**2]), 1, dt)
    share, moves, expected = np.exp(-dt / kalman_gate.LATELY), [], np.zeros((3, 3))
    jump = np.diag([0.0, 0.0, size**2])
    for _ in range(steps):
        made.update([0.0], SENSOR * rng.normal(size=2))
        p = f @ p @ f.T + q
        gain = p @ h.T @ np.linalg.inv(h @ p @ h.T + r)
        left = np.eye(3) - gain @ h
        # A jump in this update is before the readings.
        moves = [left @ f @ one for one in moves] + [left]
        p = left @ p
    for age, one in enumerate(reversed(moves)):
        expected += share**age * (1 - share) * one @ jump @ one.T
    belief = made.belief
    np.testing.assert_allclose(belief.covariance, p, atol=1e-9)
    np.testing.assert_allclose(belief.jumped, expected, atol=1e-9)
    assert expected[1, 1] > 1e-4
    tracker = made._tracker
    np.testing.assert_allclose(tracker.forgetful(belief, Restart.NOW).covariance, p + jump, atol=1e-9)
    np.testing.assert_allclose(tracker.forgetful(belief, Restart.LATELY).covariance, p + jump + expected, atol=1e-9)
