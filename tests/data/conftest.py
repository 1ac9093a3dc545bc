"""A small log to break in many ways, and the arm it belongs to."""

import os

import h5py
import mujoco
import numpy as np
import pytest

from dso_robotics.data.log import Log, Rollout, write_log


def make_rollout(name="a", samples=50, **changes) -> Rollout:
    time = np.arange(samples) * 0.01
    fields = {
        "name": name,
        "time": time,
        "ctrl": np.stack([np.sin(time), np.cos(time)], axis=1),
        "ctrl_names": ("tau1", "tau2"),
        "ctrl_units": ("N*m", "N*m"),
        "sensordata": np.stack([time**2, -time, np.sin(3 * time), np.cos(5 * time)], axis=1),
        "sensor_names": ("shoulder_pos", "elbow_pos", "shoulder_vel", "elbow_vel"),
        "sensor_units": ("rad", "rad", "rad/s", "rad/s"),
    }
    return Rollout(**(fields | changes))


@pytest.fixture
def rollout():
    """Function that makes a rollout of the arm, with fields changed."""
    return make_rollout


@pytest.fixture
def log():
    """Two rollouts of different length."""
    other = make_rollout("b", samples=30)
    other = make_rollout("b", samples=30, sensordata=other.sensordata + 0.5)
    return Log("", "made up", "none", (make_rollout("a"), other))


@pytest.fixture
def log_file(tmp_path, log):
    """The log on disk."""
    path = tmp_path / "arm.h5"
    write_log(path, log)
    return path


@pytest.fixture
def broken(log_file):
    """Function that edits the open HDF5 file and returns its path."""

    def edit(change):
        with h5py.File(log_file, "r+") as file:
            change(file)
        return log_file

    return edit


@pytest.fixture(scope="session")
def arm(models):
    """The two-joint arm of the repository."""
    return mujoco.MjModel.from_xml_path(str(models / "two_joint_arm.xml"))


@pytest.fixture
def real_data():
    """Folder of real recordings; the test is skipped where there is none."""
    folder = os.environ.get("DSO_DATA")
    if not folder:
        pytest.skip("DSO_DATA is not set, so there are no real recordings to read")
    return folder
