"""Suspicious logs are described; clean ones are not."""

from dataclasses import replace

import numpy as np

from dso_robotics.data.log import Log, problems


def found(*rollouts) -> str:
    return " | ".join(problems(Log("", "", "", rollouts)))


def test_a_clean_log_has_none(log):
    assert problems(log) == []


def test_frozen_and_repeated_channels(rollout):
    values = rollout().sensordata.copy()
    values[:, 1] = 3.0
    values[:, 3] = values[:, 2]
    text = found(rollout(sensordata=values))
    assert "'elbow_pos' is frozen at 3" in text
    assert "'elbow_vel' repeats channel 'shoulder_vel'" in text


def test_a_frozen_channel_with_gaps(rollout):
    values = rollout().sensordata.copy()
    values[:, 1] = 3.0
    values[::2, 1] = np.nan
    text = found(rollout(sensordata=values))
    assert "frozen" in text
    assert "not measured in 50%" in text


def test_gaps_and_irregular_time(rollout):
    time = np.arange(50) * 0.01
    assert "1 gap(s) in time, the longest 0.51 s after 0.19 s" in found(rollout(time=time + 0.5 * (time > 0.195)))
    jitter = np.cumsum(np.random.default_rng(0).uniform(0.005, 0.015, 50))
    assert "irregular" in found(rollout(time=jitter))


def test_missing_units_are_named_once(rollout):
    bare = rollout(ctrl_units=("", "N*m"))
    text = found(bare, replace(bare, name="b"))
    assert text.count("no unit is stated for tau1;") == 1


def test_rollouts_with_other_channels(rollout):
    other = rollout("b", ctrl_names=("tau1", "tau3"))
    assert "rollout 'b': its ctrl names differ from those of 'a' in tau2, tau3" in found(rollout(), other)
