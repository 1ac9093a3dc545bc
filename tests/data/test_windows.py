"""Windows: predictions are taken to the samples' own times, whatever the log's rate."""

import numpy as np
import pytest

from dso_robotics.data.match import match_channels
from dso_robotics.data.windows import cut
from dso_robotics.errors import DsoError


def ramp(time, model):
    """sensordata on a grid of `time` whose channel c is linear: (c+1) * t."""
    return time[:, None] * np.arange(1, model.nsensordata + 1)


def test_a_linear_prediction_is_exact_at_irregular_sample_times(arm, rollout):
    rng = np.random.default_rng(0)
    time = np.cumsum(0.004 + 0.003 * rng.uniform(size=200))
    recording = rollout(samples=200, time=time)
    recording = rollout(samples=200, time=time, sensordata=ramp(time, arm), ctrl=recording.ctrl)
    from dso_robotics.data.log import Log

    channels = match_channels(Log("", "", "", (recording,)), arm)
    windows = cut([recording], channels, timestep=0.002, seconds=0.1)
    grid = 0.002 * np.arange(windows.ctrl.shape[1])
    predicted = windows.at_samples(np.stack([ramp(t + grid, arm) for t in windows.time]))
    seen = np.isfinite(windows.measured)
    np.testing.assert_allclose(predicted[seen], windows.measured[seen], atol=1e-12)
    # Every sample is in exactly one window, but for a last piece too short to be one.
    used = windows.sample[windows.sample >= 0]
    assert np.array_equal(np.sort(used), np.arange(used.max() + 1))
    assert len(recording.time) - used.max() - 1 < 0.25 * 0.1 / 0.004


def test_controls_are_held_from_their_sample_on(arm, log):
    channels = match_channels(log, arm)
    windows = cut(log.rollouts[:1], channels, timestep=0.002, seconds=0.1)
    rollout = log.rollouts[0]
    for w in range(len(windows)):
        for k, u in enumerate(windows.ctrl[w]):
            held = np.flatnonzero(rollout.time <= windows.time[w] + 0.002 * k + 1e-9)[-1]
            np.testing.assert_array_equal(u, rollout.ctrl[held])


def test_overlap_starts_windows_in_between(arm, log):
    channels = match_channels(log, arm)
    windows = cut(log.rollouts[:1], channels, timestep=0.01, seconds=0.1, overlap=0.5)
    np.testing.assert_allclose(np.diff(windows.time), 0.05, atol=1e-9)
    whole = windows.complete()
    assert (whole.sample >= 0).all()
    assert len(whole) < len(windows)


def test_a_window_longer_than_every_rollout_says_so(arm, log):
    with pytest.raises(DsoError, match=r"longest rollout lasts 0\.49 s.*--window"):
        cut(log.rollouts, match_channels(log, arm), timestep=0.002, seconds=5.0)


@pytest.mark.parametrize("steps", [1, 2])
def test_a_prediction_at_samples_on_the_grid_is_the_grid_itself(arm, rollout, steps):
    from dso_robotics.data.log import Log

    time = 0.002 * steps * np.arange(120)
    recording = rollout(samples=120, time=time, sensordata=ramp(time, arm))
    windows = cut([recording], match_channels(Log("", "", "", (recording,)), arm), timestep=0.002, seconds=0.07)
    grid = 0.002 * np.arange(windows.ctrl.shape[1])
    predicted = windows.at_samples(np.stack([ramp(t + grid, arm) for t in windows.time]))
    assert predicted.shape == windows.measured.shape
    seen = np.isfinite(windows.measured)
    np.testing.assert_allclose(predicted[seen], windows.measured[seen], atol=1e-12)
