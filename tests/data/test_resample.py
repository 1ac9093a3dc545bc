"""Resampling holds controls, interpolates sensors, and invents nothing across gaps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dso_robotics.data.resample import resample
from dso_robotics.data.rollout import Rollout
from dso_robotics.errors import DsoError


def made(time, ctrl=None, sensor=None) -> Rollout:
    return Rollout(
        name="r",
        time=time,
        ctrl=None if ctrl is None else np.asarray(ctrl, float)[:, None],
        ctrl_names=() if ctrl is None else ("u",),
        sensordata=None if sensor is None else np.asarray(sensor, float)[:, None],
        sensor_names=() if sensor is None else ("y",),
    )


def test_a_rollout_on_the_grid_is_unchanged(rollout):
    before = rollout(qpos=np.arange(100.0).reshape(50, 2))
    after = resample(before, 0.01)
    np.testing.assert_allclose(after.time, before.time, atol=1e-12)
    for kind in ("ctrl", "sensordata", "qpos"):
        np.testing.assert_array_equal(getattr(after, kind), getattr(before, kind))


def test_controls_are_held_and_sensors_interpolated():
    after = resample(made([0.0, 0.1, 0.25, 0.3], [1, 2, 3, 4], [0, 1, 2.5, 3]), 0.05)
    np.testing.assert_allclose(after.time, np.arange(7) * 0.05)
    np.testing.assert_array_equal(after.ctrl[:, 0], [1, 1, 2, 2, 2, 3, 4])
    np.testing.assert_allclose(after.sensordata[:, 0], np.arange(7) * 0.5)


def test_a_clock_that_rounds_does_not_shift_controls():
    time = np.arange(1000) * 0.002
    noisy = time + np.random.default_rng(0).uniform(-1e-10, 1e-10, 1000)
    after = resample(made(noisy, np.arange(1000)), 0.002)
    np.testing.assert_array_equal(after.ctrl[:, 0], np.arange(len(after.time)))


def test_nothing_is_invented_across_gaps():
    time = np.array([0, 1, 2, 3, 20, 21, 22, 23.0])
    after = resample(made(time, np.arange(8), time), 0.5)
    values, grid = after.sensordata[:, 0], after.time
    inside = (grid > 3) & (grid < 20)
    assert np.isnan(values[inside]).all()
    np.testing.assert_allclose(values[~inside], grid[~inside])
    assert after.ctrl[(grid >= 3) & (grid < 20), 0].tolist() == [3.0] * 34


def test_a_slow_sensor_is_judged_by_its_own_rate():
    time = np.arange(101) * 0.01
    slow = np.where(np.arange(101) % 10 == 0, time, np.nan)  # 10 Hz in a 100 Hz log
    after = resample(made(time, sensor=slow), 0.01)
    np.testing.assert_allclose(after.sensordata[:, 0], time, atol=1e-12)


def test_before_the_first_and_after_the_last_measurement():
    values = np.array([np.nan, np.nan, 2, 3, 4, np.nan])
    after = resample(made(np.arange(6.0), sensor=values), 0.5)
    np.testing.assert_array_equal(after.sensordata[:, 0], [np.nan] * 4 + [2, 2.5, 3, 3.5, 4] + [np.nan] * 2)


@given(st.lists(st.floats(0.001, 0.1), min_size=3, max_size=40), st.floats(0.002, 0.05))
@settings(max_examples=60, deadline=None)
def test_lines_stay_lines(intervals, timestep):
    """Linear interpolation is exact for a line, wherever it is defined; controls never come from the future."""
    time = np.cumsum(intervals)
    if time[-1] - time[0] < timestep:
        return
    after = resample(made(time, time, 2 * time + 1), timestep, max_gap=np.inf)
    np.testing.assert_allclose(after.sensordata[:, 0], 2 * after.time + 1, atol=1e-6)
    lag = after.time - after.ctrl[:, 0]
    assert lag.min() > -1e-5 * timestep
    assert lag.max() <= max(intervals) + 1e-9


def test_refusals():
    with pytest.raises(DsoError, match="time is in seconds"):
        resample(made([0, 1e6, 2e6], [0, 0, 0]), 0.001)
    with pytest.raises(DsoError, match="less than one step"):
        resample(made([0, 1e-4], [0, 0]), 0.001)
    with pytest.raises(DsoError, match="time step is 0"):
        resample(made([0, 1], [0, 0]), 0.0)
    with pytest.raises(DsoError, match="channel 'y' is too sparse"):
        resample(made([0, 0.33, 1], sensor=[np.nan, 1, np.nan]), 0.5)
