"""Suspicious logs are described; clean ones are not."""

from dataclasses import replace

import numpy as np
import pytest

from dso_robotics.data.convert import unwrap
from dso_robotics.data.log import Log, Rollout, problems
from dso_robotics.errors import DsoError


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


def test_a_slow_sensor_of_several_channels_is_told_once(rollout):
    rollouts = []
    for i in range(3):
        values = np.random.default_rng(i).normal(size=rollout().sensordata.shape).cumsum(0)
        values[np.ix_(np.arange(len(values)) % 10 != i, [1, 2, 3])] = np.nan
        rollouts.append(rollout(f"run{i}", sensordata=values))
    text = found(*rollouts)
    assert text.count("not measured in 90% of the samples. So in 2 more rollout(s).") == 1
    assert text.count("not measured in") == 1
    assert "channels 'elbow_pos', 'shoulder_vel', 'elbow_vel' were" in text


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


T = np.arange(400) * 0.01


def measured(values, unit="rad", **changes):
    """What is found in a log of one sensor channel 'q' and a control that is a sine."""
    fields = {"ctrl": np.sin(3.1 * T)[:, None], "ctrl_names": ("u",), "ctrl_units": ("N*m",), "sensor_names": ("q",)}
    fields |= {"sensordata": np.asarray(values)[:, None], "sensor_units": (unit,), "time": T}
    return found(Rollout(name="a", **(fields | changes)))


SMOOTH = np.sin(2.3 * T) + 0.2 * np.cos(7.7 * T)


def test_a_smooth_or_noisy_motion_is_believed():
    noise = np.random.default_rng(0).normal(size=400)
    for values in (SMOOTH, SMOOTH + 0.01 * noise, np.where(T > 2, 1.0, 0.0) + 1e-3 * noise, 1e-3 * SMOOTH, T * 100):
        assert measured(values) == ""


def test_wrapped_angles_are_found_and_unwrapped():
    angle = 4 * T
    for unit, turn in (("rad", 2 * np.pi), ("deg", 360.0)):
        scaled = angle * turn / (2 * np.pi)
        wrapped = (scaled + turn / 2) % turn - turn / 2
        assert "jumps by" in measured(wrapped, unit)
        assert "--unwrap q" in measured(wrapped, unit)
        gappy = wrapped.copy()
        gappy[5::7] = np.nan
        log = Log(
            "",
            "",
            "",
            (Rollout(name="a", time=T, sensordata=gappy[:, None], sensor_names=("q",), sensor_units=(unit,)),),
        )
        opened = unwrap(log, ["q"]).rollouts[0].sensor("q")
        np.testing.assert_allclose(opened[~np.isnan(gappy)], scaled[~np.isnan(gappy)])
        with pytest.raises(DsoError, match="no sensor channel 'p'"):
            unwrap(log, ["p"])
    assert "jumps" not in measured((angle * 1e3) % 6, "N")


def test_one_wild_sample_is_named():
    for value in (50.0, -1e6, 1e300, 1.7e308):
        values = SMOOTH + 0.01 * np.random.default_rng(1).normal(size=400)
        values[123] = value
        text = measured(values)
        assert "stands out in 1 sample(s)" in text
        assert "sample 123 (1.23 s)" in text


def test_quanta_are_named_with_their_size():
    for quantum in (2 * np.pi / 2048, 0.01, 0.1):
        text = measured(np.round(SMOOTH / quantum) * quantum)
        assert f"steps of {quantum:.4g} rad" in text
    assert "steps of" not in measured(np.round(SMOOTH, 9))


def test_white_noise_and_clocks_and_controls():
    assert "white noise" in measured(np.random.default_rng(2).normal(size=400))
    for factor, word in ((1e9, "nano"), (1e6, "micro"), (1e3, "milli")):
        assert f"probably in {word}seconds" in measured(SMOOTH, time=T * factor)
    assert "counts samples" in measured(SMOOTH, time=np.arange(400.0))
    assert "no robot records" in measured(SMOOTH, time=T * 1e-6)
    clipped = np.clip(2 * np.sin(3.1 * T), -1, 1.2)[:, None]
    text = measured(SMOOTH, ctrl=clipped)
    assert "largest value 1.2" in text
    assert "smallest value -1" in text
    assert "never larger than 9.9" in measured(SMOOTH, ctrl=9.99e-7 * np.sin(3.1 * T)[:, None])
    assert measured(SMOOTH, ctrl=np.repeat([0.0, 1, 0, 1], 100)[:, None]) == ""
    # A target stays where it was sent; a torque that stays at its extreme was clipped.
    assert measured(SMOOTH, ctrl=clipped, ctrl_units=("deg",)) == ""


def test_only_the_sensors_that_are_asked_for_are_looked_at(rollout):
    values = rollout().sensordata.copy()
    values[:, 1] = 3.0
    log = Log("", "", "", (rollout(sensordata=values, sensor_names=("q", "rate[0]", "rate[1]", "w")),))
    assert "'rate[0]' is frozen" in " ".join(problems(log))
    assert "'rate[0]' is frozen" in " ".join(problems(log, ["rate"]))
    assert problems(log, ["q", "rate[1]"]) == problems(log, []) == []


def test_quaternions_that_flip():
    half = 0.7 * T
    q = np.stack([np.cos(half), np.sin(half), 0 * T, 0 * T], 1)
    names = tuple(f"att[{i}]" for i in range(4))
    changes = {"sensor_names": names, "sensor_units": ("1",) * 4}
    fields = {"ctrl": None, "ctrl_names": (), "ctrl_units": (), "name": "a", "time": T} | changes
    flipped = q * np.where(np.arange(400) // 50 % 2, -1.0, 1.0)[:, None]
    assert "flips 7 time(s)" in found(Rollout(sensordata=flipped, **fields))
    assert "flips" not in found(Rollout(sensordata=q, **fields))


def test_the_same_rollout_under_two_names(rollout):
    assert "rollout 'b' holds the samples of 'a'" in found(rollout(), rollout("b"))


def test_a_rollout_cut_from_another_one_with_a_new_clock(rollout):
    whole = rollout()
    arrays = {"ctrl": whole.ctrl[10:40], "sensordata": whole.sensordata[10:40]}
    piece = rollout("b", time=5 + np.arange(30) * 0.02, **arrays)
    assert "rollout 'b' holds the samples of 'a'" in found(whole, piece)
    half = np.concatenate([whole.sensordata[:30], whole.sensordata[:20] + 1])
    assert "rollout 'b' has 60% of its samples from those of 'a'" in found(whole, rollout("b", sensordata=half))
    other = np.concatenate([whole.sensordata[:10], whole.sensordata[:40] + 1])
    assert "count twice" not in found(whole, rollout("b", sensordata=other))
    rest = np.zeros((50, 4))
    assert "count twice" not in found(
        rollout(sensordata=rest, ctrl=rest[:, :2]), rollout("b", sensordata=rest, ctrl=rest[:, :2])
    )


def test_many_rollouts_alike_are_said_once(rollout):
    time = np.arange(50) * 0.01
    gaps = [rollout(f"r{i}", time=time + 0.5 * (time > 0.195), sensordata=rollout().sensordata + i) for i in range(9)]
    text = found(*gaps)
    assert text.count("gap(s) in time") == 1
    assert "rollout 'r0'" in text
    assert "So in 8 more rollout(s)." in text
    both = rollout(ctrl=np.zeros((50, 2)))
    assert found(both).count("is frozen") == 2  # tau1 and tau2 are different channels
