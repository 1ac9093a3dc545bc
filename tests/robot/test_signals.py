"""Delays, bias and scale against MuJoCo's own delayed actuators and sensors; numbers that belong to one recording."""

import mujoco
import numpy as np
import pytest

from dso_robotics.data.log import Log
from dso_robotics.data.match import match_channels
from dso_robotics.data.rollout import Rollout
from dso_robotics.data.windows import cut
from dso_robotics.parameters.path import parse
from dso_robotics.parameters.vector import pack
from dso_robotics.physics.export import to_mjcf
from dso_robotics.physics.model import load
from dso_robotics.robot import start
from dso_robotics.robot.prediction import CPrediction
from dso_robotics.robot.prediction_mjx import MjxPrediction

ARM = """
<mujoco>
  <option timestep="0.002"/>
  <worldbody>
    <body name="pole">
      <joint name="hinge" axis="0 1 0" damping="0.05"/>
      <inertial pos="0 0 -0.3" mass="0.7" diaginertia="0.01 0.01 0.002"/>
      <site name="imu" pos="0 0 -0.2"/>
    </body>
  </worldbody>
  <actuator><motor name="motor" joint="hinge" {late_motor}/></actuator>
  <sensor>
    <jointpos name="angle" joint="hinge" {late_angle}/><jointvel name="speed" joint="hinge"/><gyro name="gyro" site="imu"/>
  </sensor>
</mujoco>
"""
BUFFER = 'delay="{}" nsample="12" interp="linear"'
NAMES = ("angle", "speed", "gyro[0]", "gyro[1]", "gyro[2]")


def recorded(model, steps=150, seed=0):
    """(Rollout, as MuJoCo itself delays it) from rest with a control that starts at zero, as MuJoCo's empty buffer does."""
    data, rng, rows = mujoco.MjData(model), np.random.default_rng(seed), []
    ctrl = np.r_[np.zeros((20, 1)), rng.normal(size=(steps - 20, 1))]
    state = []
    for u in ctrl:
        data.ctrl[:] = u
        state.append(np.r_[data.qpos, data.qvel])
        mujoco.mj_step(model, data)
        rows.append(data.sensordata.copy())
    state = np.array(state)
    return Rollout(
        name=f"run{seed}", time=model.opt.timestep * np.arange(steps), ctrl=ctrl, ctrl_names=("motor",),
        sensordata=np.array(rows), sensor_names=NAMES, qpos=state[:, :1], qvel=state[:, 1:],
    )  # fmt: skip


def windows_of(vector, rollouts, seconds):
    channels = match_channels(Log("", "", "", tuple(rollouts)), vector.mj)
    late = {"past": vector.longest("actuator_delay"), "settle": vector.longest("sensor_delay")}
    return cut(rollouts, channels, timestep=vector.mj.opt.timestep, seconds=seconds, **late)


@pytest.fixture
def late_robot(tmp_path):
    (tmp_path / "arm.xml").write_text(ARM.format(late_motor=BUFFER.format(0.0123), late_angle=BUFFER.format(0.0077)))
    return load(tmp_path / "arm.xml")


def test_delays_are_those_of_mujoco_and_engines_agree(late_robot, tmp_path):
    rollout = recorded(late_robot.mj)
    (tmp_path / "plain.xml").write_text(ARM.format(late_motor="", late_angle=""))
    free = (
        "actuator/motor/delay=0.0123@0:0.02",
        "sensor/angle/delay=0.0077@0:0.02",
        "sensor/gyro/scale",
        "sensor/gyro/bias[1]",
    )
    vector = pack(map(parse, free), load(tmp_path / "plain.xml"))
    windows = windows_of(vector, [rollout], 0.1)
    assert len(windows) > 1
    assert np.isnan(windows.measured[0, :10]).all()
    z, x = vector.initial, start.guess(windows, vector.mj, vector.signals(vector.initial))
    prediction = CPrediction(vector, windows)
    seen = np.isfinite(windows.measured)
    error = prediction.predict(z, x) - windows.measured
    np.testing.assert_allclose(error[seen], 0, atol=1e-12)

    # A model that declares its delays is simulated with them.
    declared = pack([parse("joint/hinge/damping")], late_robot)
    again = CPrediction(declared, windows).predict(declared.initial, x)
    np.testing.assert_allclose((again - windows.measured)[seen], 0, atol=1e-12)

    # At a delay of a whole number of steps the derivative is one-sided, and not zero.
    _, edge, _ = prediction.linearize(z * [1, 0, 1, 1, 1, 1], x, by_start=False)
    assert np.abs(edge[..., 0, 1][seen[..., 0]]).max() > 0.1

    z = z + np.array([3e-4, -2e-4, 0.1, 0.2, -0.3, 0.05])
    y, by_z, _ = prediction.linearize(z, x, by_start=False)
    mjx = MjxPrediction(vector, windows)
    y_mjx, by_z_mjx, _ = mjx.linearize(z, x, by_start=False)
    np.testing.assert_allclose(y_mjx, y, atol=1e-10)
    scale = np.maximum(np.abs(by_z).reshape(-1, len(z)).max(0), 1e-12)
    np.testing.assert_allclose(by_z_mjx[seen] / scale, by_z[seen] / scale, rtol=1e-4, atol=1e-5)


def test_written_delays_are_read_by_plain_mujoco(late_robot, tmp_path):
    (tmp_path / "plain.xml").write_text(ARM.format(late_motor="", late_angle=""))
    robot = load(tmp_path / "plain.xml")
    vector = pack(map(parse, ("actuator/motor/delay=0.0123", "sensor/angle/delay=0.0077")), robot)
    written = mujoco.MjModel.from_xml_string(to_mjcf(robot, vector.written(vector.initial)))
    np.testing.assert_allclose(recorded(written).sensordata, recorded(late_robot.mj).sensordata, atol=1e-14)


def test_recordings_with_values_of_their_own(tmp_path):
    (tmp_path / "plain.xml").write_text(ARM.format(late_motor="", late_angle=""))
    robot = load(tmp_path / "plain.xml")
    rollouts = []
    for seed, damping in enumerate((0.03, 0.08)):
        robot.mj.dof_damping[0] = damping
        rollouts.append(recorded(robot.mj, seed=seed))
    robot.mj.dof_damping[0] = 0.05
    free = ("log/*/joint/hinge/damping", "body/pole/mass", "log/run1/sensor/angle/bias")
    vector = pack(map(parse, free), robot, ["run0", "run1"])
    assert vector.coordinate_names[:2] == ("log/run0/joint/hinge/damping", "log/run1/joint/hinge/damping")
    windows = windows_of(vector, rollouts, 0.1)
    x = start.guess(windows, vector.mj)
    z = np.array([0.03, 0.08, 0.7, 0.0])
    prediction = CPrediction(vector, windows)
    np.testing.assert_allclose(prediction.predict(z, x), windows.measured, atol=1e-12)
    _, by_z, _ = prediction.linearize(z, x, by_start=False)
    for j, h in enumerate(1e-6 * np.diag([0.05, 0.05, 0.7, 0.1])):
        central = (prediction.predict(z + h, x) - prediction.predict(z - h, x)) / (2 * h.sum())
        np.testing.assert_allclose(by_z[..., j], central, rtol=1e-4, atol=1e-6)
    # A recording that was not fitted has the mean.
    matrices, offsets = vector.expansion(["other"])
    np.testing.assert_allclose(matrices[0] @ z + offsets[0], [0.055, 0.7, 0.0])
    assert vector.fields(z)["dof_damping"][0] == pytest.approx(0.055)


def test_a_turned_site_is_mujocos_quaternion_product(tmp_path):
    (tmp_path / "plain.xml").write_text(
        ARM.format(late_motor="", late_angle="").replace('pos="0 0 -0.2"', 'euler="30 20 50"')
    )
    robot = load(tmp_path / "plain.xml")
    vector = pack([parse("site/imu/rot")], robot)
    for turn in (np.array([0.3, -0.2, 0.5]), np.zeros(3), np.array([1e-8, 0, 0])):
        expected = robot.mj.site_quat[0].copy()
        mujoco.mju_quatIntegrate(expected, turn, 1.0)
        np.testing.assert_allclose(vector.fields(turn)["site_quat"][0], expected, atol=1e-14)
