"""The Kalman filter at run time: it starts from anywhere, knows its errors, and takes readings at any time and in any order."""

import dataclasses

import mujoco
import numpy as np
import pytest

from dso_robotics.errors import DsoError
from dso_robotics.robot.estimator_space import Space
from dso_robotics.robot.kalman_gate import Patience, Restart, Surprise, wider
from dso_robotics.robot.linearisation import Linearisation
from tests.robot.free_body import ARM, ARM_NOISE, QUADROTOR, QUADROTOR_NOISE, estimator, flight, swing

FAST, SLOW = 0.004, 0.005


def run(made, controls, readings):
    """The estimates after each update."""
    return [made.update(u, y) for u, y in zip(controls, readings[1:], strict=True)]


def errors(model, truth, found) -> np.ndarray:
    """Errors (T, 2 nv) of the estimates in the tangent space."""
    space = Space(model)
    return np.array([space.difference(x, np.concatenate([s.qpos, s.qvel])) for x, s in zip(truth, found, strict=True)])


@pytest.mark.parametrize("yaw", [0.0, 2.0, np.pi, -1.5])
def test_a_quadrotor_is_found_from_any_heading_and_the_filter_knows_its_errors(yaw):
    made = estimator(QUADROTOR, QUADROTOR_NOISE, interval=FAST)
    truth, thrusts, readings = flight(int(10 * yaw) % 7, 400, yaw)
    guess = truth[0, :7].copy()
    guess[:3] += np.array([0.6, -0.6, 0.53])
    # Level but for 30 degrees, heading along x.
    guess[3:] = np.cos(np.pi / 12), 0.6 * np.sin(np.pi / 12), 0.8 * np.sin(np.pi / 12), 0
    made.reset(qpos=guess, measurement=readings[0])
    found = run(made, thrusts, readings)
    off = errors(made.model, truth[1:], found)
    squares = [e @ np.linalg.solve(s.covariance, e) / 12 for e, s in zip(off, found, strict=True)]
    assert 0.3 < np.mean(squares[125:]) < 2.5
    assert np.linalg.norm(off[300:, :3], axis=1).max() < 0.3
    assert np.rad2deg(np.linalg.norm(off[350:, 3:6], axis=1)).mean() < 6
    # The covariance moves: little is known at first.
    assert found[0].covariance[5, 5] > 100 * found[-1].covariance[5, 5]


def test_an_arm_is_found_from_far_away_within_a_tenth_of_a_second():
    made = estimator(ARM, ARM_NOISE, interval=SLOW)
    truth, torques, readings = swing(0, 100)
    made.reset(qpos=truth[0, :2] + 2.0, qvel=truth[0, 2:] - 5.0)
    found = run(made, torques, readings)
    off = errors(made.model, truth[1:], found)
    assert np.abs(off[20, :2]).max() < 0.01
    assert np.abs(off[20:, 2:]).max() < 0.5
    steady = estimator(ARM, ARM_NOISE, interval=SLOW)
    steady.reset(qpos=truth[0, :2], qvel=truth[0, 2:])
    same = errors(made.model, truth[1:], run(steady, torques, readings))
    np.testing.assert_allclose(off[60:], same[60:], atol=0.02)


def test_spikes_are_gated_and_cost_little():
    truth, torques, readings = swing(1, 1500)
    spoiled, rng = readings.copy(), np.random.default_rng(0)
    wild = rng.random(spoiled.shape) < 0.02
    spoiled[wild] += rng.choice([-1, 1], wild.sum()) * rng.exponential(1.0, wild.sum())
    speeds = []
    for y in (readings, spoiled):
        made = estimator(ARM, ARM_NOISE, interval=SLOW)
        made.reset(measurement=y[0])
        off = errors(made.model, truth[1:], run(made, torques, y))[100:]
        speeds.append(np.sqrt(np.mean(off[:, 2:] ** 2)))
    assert speeds[1] < 1.2 * speeds[0]
    assert 0.8 * wild.sum() < sum(made.gated.values()) <= wild.sum() + 2
    assert set(made.gated) == {"shoulder", "elbow"}


def test_a_jump_of_a_bias_is_absorbed():
    noise = dataclasses.replace(ARM_NOISE, drift=np.array([0.0, 0.02]), offset=np.array([0.5, 0.2]))
    xml = ARM.replace("</sensor>", '<jointvel name="rate" joint="elbow"/></sensor>')
    noise = dataclasses.replace(
        noise, sensor=np.append(noise.sensor, 0.02), drift=np.array([0.0, 0.0, 0.02]), offset=np.array([0.5, 0.5, 0.2])
    )
    truth, torques, readings = swing(2, 1600)
    rates = truth[:, 3] + 0.02 * np.random.default_rng(1).normal(size=len(truth)) + 0.1
    rates[600:] += 0.3
    made = estimator(xml, noise, interval=SLOW)
    y = np.column_stack([readings, rates])
    made.reset(measurement=y[0])
    found = run(made, torques, y)
    bias = np.array([s.bias for s in found])
    assert (bias[:, :2] == 0).all()
    assert bias[400:598, 2].mean() == pytest.approx(0.1, abs=0.03)
    # A second after the jump, and for good.
    assert np.abs(bias[800:, 2] - 0.4).max() < 0.06
    off = errors(made.model, truth[1:], found)
    assert np.sqrt(np.mean(off[800:, 3] ** 2)) < 0.08


def test_a_gap_ends_in_a_wider_covariance_and_in_a_quick_return():
    truth, torques, readings = swing(3, 700)
    gone = readings.copy()
    gone[200:400] = np.nan
    made = estimator(ARM, ARM_NOISE, interval=SLOW)
    made.reset(measurement=gone[0])
    found = run(made, torques, gone)
    off = errors(made.model, truth[1:], found)
    assert np.sqrt(found[397].covariance[0, 0]) > 20 * np.sqrt(found[197].covariance[0, 0])
    e = off[397]
    assert e @ np.linalg.solve(found[397].covariance, e) / 4 < 4
    assert np.abs(off[420:, :2]).max() < 0.02
    # The same gap as one long interval: the same work as a few updates.
    made.reset(measurement=gone[0])
    run(made, torques[:199], gone[:200])
    long = made.update(torques[300], gone[400] if np.isfinite(gone[400]).all() else readings[400], dt=1.005)
    assert np.isfinite(long.qpos).all()
    after = made.update(torques[400], readings[401], dt=3000.0)
    assert np.sqrt(after.covariance[2, 2]) == pytest.approx(5.0, rel=1e-6)


def test_any_interval_is_taken_and_readings_come_at_any_time():
    """Irregular updates, 0.5 to 15 ms apart, of one sensor at a time."""
    model, rng = mujoco.MjModel.from_xml_string(ARM.replace("0.005", "0.0005")), np.random.default_rng(4)
    data = mujoco.MjData(model)
    data.qpos[:] = 0.5
    made = estimator(
        ARM.replace("0.005", "0.0005"),
        dataclasses.replace(ARM_NOISE, process=np.array([1e-4, 1e-4, 0.05, 0.05])),
        interval=SLOW,
    )
    made.reset(qpos=[0.5, 0.5])
    off = []
    for _ in range(300):
        steps = int(rng.integers(1, 30))
        data.ctrl[:] = rng.normal(size=2) * 0.3
        mujoco.mj_step(model, data, steps)
        y = data.qpos + ARM_NOISE.sensor * rng.normal(size=2)
        y[rng.integers(2)] = np.nan
        found = made.update(data.ctrl, y, dt=0.0005 * steps)
        off.append(np.concatenate([found.qpos - data.qpos, found.qvel - data.qvel]))
    off = np.array(off)[100:]
    assert np.sqrt(np.mean(off[:, :2] ** 2)) < 0.003
    assert np.sqrt(np.mean(off[:, 2:] ** 2)) < 0.06


def test_late_readings_in_any_order_give_what_they_give_in_time():
    _, torques, readings = swing(5, 60)
    in_time, late = (estimator(ARM, ARM_NOISE, interval=SLOW) for _ in range(2))
    in_time.reset(measurement=readings[0])
    run(in_time, torques, readings)
    late.reset(measurement=readings[0])
    for t, u in enumerate(torques, start=1):
        y = readings[t].copy()
        y[1] = np.nan if t in (40, 45, 50) else y[1]
        late.update(u, y)
    for t in (50, 40, 45):
        late.late({"elbow": readings[t, 1]}, age=(60 - t) * SLOW)
    first, second = in_time.late([np.nan, np.nan], 0.0), late.late([np.nan, np.nan], 0.0)
    np.testing.assert_allclose(second.qpos, first.qpos, atol=1e-9)
    np.testing.assert_allclose(second.qvel, first.qvel, atol=1e-7)
    np.testing.assert_allclose(second.covariance, first.covariance, atol=1e-9)
    assert late.dropped == 0
    late.late({"elbow": 0.0}, age=2.0)
    assert late.dropped == 1
    with pytest.raises(DsoError, match="lies in the future"):
        late.late({"elbow": 0.0}, age=-0.1)


def test_a_late_reading_between_updates_is_taken_at_its_time():
    truth, torques, readings = swing(6, 40)
    made, split = (estimator(ARM, ARM_NOISE, interval=SLOW) for _ in range(2))
    for one in (made, split):
        one.reset(measurement=readings[0])
        run(one, torques[:30], readings[:31])
    between = np.array([np.nan, 0.5 * (truth[30, 1] + truth[31, 1])])
    split.update(torques[30], between, dt=SLOW / 2)
    split.update(torques[30], readings[31], dt=SLOW / 2)
    made.update(torques[30], readings[31])
    found = made.late(between, age=SLOW / 2)
    expected = split.late([np.nan, np.nan], 0.0)
    np.testing.assert_allclose(found.qpos, expected.qpos, atol=1e-12)
    np.testing.assert_allclose(found.covariance, expected.covariance, atol=1e-12)


def test_a_sensor_with_a_learned_delay_is_late_by_itself():
    truth, torques, readings = swing(7, 300)
    lag = 8
    delayed = readings.copy()
    delayed[lag:, 1] = readings[:-lag, 1]
    off = []
    for delay in (0.0, lag * SLOW):
        made = estimator(ARM, ARM_NOISE, interval=SLOW, delay=np.array([0.0, delay]))
        made.reset(qpos=truth[0, :2])
        off.append(np.sqrt(np.mean(errors(made.model, truth[1:], run(made, torques, delayed))[100:] ** 2)))
    assert off[1] < 0.2 * off[0]


def test_a_bad_update_leaves_the_filter_as_it_was():
    _, torques, readings = swing(8, 20)
    made = estimator(ARM, ARM_NOISE, interval=SLOW)
    with pytest.raises(DsoError, match="reset"):
        made.update(torques[0], readings[1])
    made.reset(measurement=readings[0])
    before = run(made, torques[:10], readings[:11])[-1]
    for dt, match in ((0.0, "above 0"), (-1.0, "above 0"), (1e5, "up to"), (np.nan, "finite")):
        with pytest.raises(DsoError, match=match):
            made.update(torques[0], readings[0], dt=dt)
    with pytest.raises(DsoError, match="infinite"):
        made.update(torques[0], [np.inf, 0.0])
    after = made.late([np.nan, np.nan], 0.0)
    np.testing.assert_array_equal(after.qpos, before.qpos)
    np.testing.assert_array_equal(after.covariance, before.covariance)


@pytest.mark.parametrize("integrator", ["implicitfast", "RK4"])
def test_the_linearisation_is_that_of_central_differences(integrator):
    model = mujoco.MjModel.from_xml_string(QUADROTOR.replace("implicitfast", integrator))
    data, space, rng = mujoco.MjData(model), Space(model), np.random.default_rng(0)
    state = np.concatenate([rng.normal(size=13)])
    state[3:7] /= np.linalg.norm(state[3:7])
    ctrl, linear = 2 + rng.random(4), Linearisation(model, np.arange(12), 1)

    def placed(x):
        data.qpos[:], data.qvel[:], data.ctrl[:] = x[:7], x[7:], ctrl

    def after(x, steps):
        placed(x)
        mujoco.mj_step(model, data, steps)
        return np.concatenate([data.qpos, data.qvel])

    def reading(x):
        placed(x)
        mujoco.mj_forward(model, data)
        return data.sensordata.copy()

    h = 1e-5 * np.eye(12)
    moved = [(space.move(state, d), space.move(state, -d)) for d in h]
    a = np.array([space.difference(after(y, 3), after(x, 3)) for x, y in moved]).T / 2e-5
    c = np.array([reading(x) - reading(y) for x, y in moved]).T / 2e-5
    placed(state)
    np.testing.assert_allclose(linear.advance(data, 3), a, atol=2e-5)
    placed(state)
    mujoco.mj_forward(model, data)
    np.testing.assert_allclose(linear.readings(data), c, atol=2e-4)


def test_a_broken_sensor_makes_the_filter_start_anew_only_once():
    both = np.array([[True, True]])

    def told(patience, updates: int, wild=(True, False)) -> list[tuple[int, Restart]]:
        found = [Restart(int(patience.lost(np.array([wild]), both)[0])) for _ in range(updates)]
        return [(i, restart) for i, restart in enumerate(found, 1) if restart is not Restart.NONE]

    patience = Patience(1, 2)
    assert told(patience, 100) == [(10, Restart.ALL)]
    assert told(patience, 10, (False, False)) == []
    assert patience.calm
    assert told(patience, 10) == [(10, Restart.ALL)]
    # Where a bias drifts, biases are given up first: those that jump now, or that jumped in another sensor some time ago.
    for own, first in ((True, Restart.NOW), (False, Restart.LATELY)):
        patience = Patience(1, 2, np.array([own, not own]))
        assert told(patience, 100) == [(10, first), (20, Restart.ALL)]
        assert told(patience, 10, (False, False)) == []
        assert patience.calm
        assert told(patience, 10) == [(10, first)]


def test_innovations_that_are_too_large_for_long_are_noticed_and_right_ones_are_not():
    """The sum rises in the mean where the squares are above ln(9)/(1 - 1/9) = 2.47 of what is expected."""
    rng, surprise = np.random.default_rng(0), Surprise(1, 1)
    assert not any(surprise.misled(wider(rng.chisquare(3, (1, 1)), np.array(3)))[0] for _ in range(20_000))
    assert not any(surprise.misled(wider(2 * rng.chisquare(3, (1, 1)), np.array(3)))[0] for _ in range(2_000))
    found = next(i for i in range(100) if surprise.misled(wider(np.full((1, 1), 3 * 6.0), np.array(3)))[0])
    assert found == int(np.ceil(30 / (0.5 * (8 / 9 * 18 - 3 * np.log(9))))) - 1
