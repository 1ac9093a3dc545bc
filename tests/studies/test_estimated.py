"""Which noise scales and start states a path names, whatever characters the names hold."""

import numpy as np
import pytest

from dso_robotics.data.match import Channels
from dso_robotics.errors import DsoError
from dso_robotics.parameters.path import noise_path, parse
from dso_robotics.studies.estimated import _sensor, split_free

# Sensor 0 has three components; the others have one each, and names that look like patterns or components.
NAMES = ("imu[0]", "imu[1]", "imu[2]", "a*", "ab", "c[0]", "d?e")
CHANNELS = Channels(
    ctrl_columns=np.zeros(0, int),
    ctrl_names=(),
    ctrl_units=(),
    sensor_addresses=np.arange(7),
    sensor_ids=np.array([0, 0, 0, 1, 2, 3, 4]),
    sensor_names=NAMES,
    sensor_units=("",) * 7,
    warnings=(),
)
RUNS = ("run*", "run1", "whole[head]")


def asked(*paths):
    return split_free(list(map(parse, paths)), {}, CHANNELS, RUNS, "arm.h5")[1]


@pytest.mark.parametrize(
    ("path", "channels"),
    [
        ("sensor/imu/noise", NAMES[:3]),
        ("sensor/imu/noise[1]", ("imu[1]",)),
        ("sensor/imu[1]/noise", ("imu[1]",)),
        ("sensor/*/noise[2]", ("imu[2]",)),
        ("sensor/a*/noise", ("a*", "ab")),
        (r"sensor/a\*/noise", ("a*",)),
        ("sensor/c[0]/noise", ("c[0]",)),
        (r"sensor/d\?e/noise", ("d?e",)),
        ("sensor/*/noise", NAMES),
    ],
)
def test_paths_of_noise_scales(path, channels):
    assert asked(path).reported == channels


@pytest.mark.parametrize(
    ("path", "runs"),
    [
        ("log/run*/initial_state", ("run*", "run1")),
        (r"log/run\*/initial_state", ("run*",)),
        ("log/whole[head]/initial_state", ("whole[head]",)),
    ],
)
def test_paths_of_start_states(path, runs):
    assert asked(path).states == runs


@pytest.mark.parametrize(
    "path", ["sensor/c/noise", "sensor/imu/noise[3]", r"sensor/i\*/noise", "log/whole[ha]/initial_state"]
)
def test_paths_of_nothing(path):
    with pytest.raises(DsoError, match=r"no (channel|recording) is called"):
        asked(path)


def test_every_channel_has_a_path_of_its_own():
    for c, name in enumerate(NAMES):
        assert asked(noise_path(*_sensor(CHANNELS, c))).reported == (name,)
