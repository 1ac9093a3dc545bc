"""A log of a free body without an orientation sensor: its training begins where a first run has found the heading."""

import mujoco
import numpy as np

from dso_robotics.data.log import Log
from dso_robotics.data.rollout import Rollout
from dso_robotics.parameters.vector import ParameterVector
from dso_robotics.physics.model import load
from dso_robotics.robot import filter_data
from dso_robotics.robot.estimator_space import Space
from dso_robotics.robot.kalman_heading import Headings, unknown
from tests.robot.free_body import QUADROTOR, QUADROTOR_NOISE, flight

NAMES = tuple(f"{sensor}[{i}]" for sensor in ("gyro", "acc", "compass", "position") for i in range(3))


def logged(yaws) -> Log:
    rollouts = []
    for i, yaw in enumerate(yaws):
        states, thrusts, readings = flight(i, 400, yaw)
        rollouts.append(
            Rollout(
                name=f"run{i}", time=0.004 * np.arange(401), ctrl=np.concatenate([thrusts, thrusts[-1:]]),
                ctrl_names=("m0", "m1", "m2", "m3"), sensordata=readings, sensor_names=NAMES,
                qpos=states[:, :7], qvel=states[:, 7:],
            )
        )  # fmt: skip
    return Log("", "test", "CC0", tuple(rollouts))


def cut(log: Log, model: mujoco.MjModel, seconds: float | None):
    channels = filter_data.select_channels(log, model, None)
    keys = {"interval": 0.004, "substeps": 1, "seconds": seconds, "any_time": True}
    return filter_data.cut_windows(log.rollouts, channels, model, **keys)


def test_windows_begin_where_the_heading_is_known():
    robot, log = load(mujoco.MjSpec.from_string(QUADROTOR)), logged([2.0, -2.5])
    physics, space = ParameterVector((), robot.mj), Space(robot.mj)
    whole, windows = cut(log, robot.mj, None), cut(log, robot.mj, 0.4)
    assert unknown(robot.mj, whole)
    guessed = space.difference(whole.truth[:, 0], whole.start)[:, 3:6]
    assert np.linalg.norm(guessed, axis=1).min() > 1.5
    found = Headings(whole, physics, QUADROTOR_NOISE.sensor, QUADROTOR_NOISE.prior)
    later, placed = found.trimmed(), found.placed(windows)
    assert (later.first > 0).all()
    for part in (later, placed):
        off = space.difference(part.truth[:, 0], part.start)
        assert np.rad2deg(np.linalg.norm(off[:, 3:6], axis=1)).max() < 40
        assert np.abs(off[:, :3]).max() < 0.5
    # Readings, controls and truth move together.
    for b, first in enumerate(later.first):
        np.testing.assert_array_equal(later.measured[b, : 401 - first], whole.measured[b, first:])
        np.testing.assert_array_equal(later.truth[b, 5], whole.truth[b, first + 5])
        assert np.count_nonzero(later.seconds[b]) == 400 - first
    assert len(placed) < len(windows)
    assert (placed.first >= later.first[placed.rollout]).all()


def test_a_long_window_in_which_the_heading_is_found_is_not_lost():
    """Its later part is kept, if that is half of it or more."""
    robot, log = load(mujoco.MjSpec.from_string(QUADROTOR)), logged([2.0, -2.5])
    whole, windows = cut(log, robot.mj, None), cut(log, robot.mj, 1.6)
    found = Headings(whole, ParameterVector((), robot.mj), QUADROTOR_NOISE.sensor, QUADROTOR_NOISE.prior)
    first, placed = found.trimmed().first, found.placed(windows)
    assert ((first > 100) & (first <= 200)).all()
    assert len(placed) == len(windows) == 2
    np.testing.assert_array_equal(placed.first, first)
    for w, skipped in enumerate(first):
        count = 401 - skipped
        assert np.count_nonzero(placed.seconds[w]) == count - 1
        assert np.isnan(placed.measured[w, count:]).all()
        for name in ("measured", "truth", "ctrl"):
            many = min(count, getattr(placed, name).shape[1] - skipped)
            np.testing.assert_array_equal(
                getattr(placed, name)[w, :many], getattr(whole, name)[w, skipped : skipped + many]
            )
    # Of windows half as long little would be left, so the first of each run is left out.
    np.testing.assert_array_equal(found.placed(cut(log, robot.mj, 0.8)).first, [200, 200])


def test_an_orientation_sensor_needs_no_first_run():
    xml = QUADROTOR.replace("</sensor>", '<framequat name="turn" objtype="site" objname="imu"/></sensor>')
    model = mujoco.MjModel.from_xml_string(xml)
    states, thrusts, _ = flight(0, 40, 1.0)
    quat = {"sensordata": states[:, 3:7], "sensor_names": tuple(f"turn[{i}]" for i in range(4))}
    motors = {"ctrl": np.concatenate([thrusts, thrusts[-1:]]), "ctrl_names": ("m0", "m1", "m2", "m3")}
    log = Log("", "test", "CC0", (Rollout(name="run", time=0.004 * np.arange(41), **motors, **quat),))
    assert not unknown(model, cut(log, model, None))
