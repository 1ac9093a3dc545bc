"""A strapped model moves as its accelerometer says, whatever its legs do."""

import dataclasses

import mujoco
import numpy as np
import pytest

from dso_robotics.errors import DsoError
from dso_robotics.physics.model import load
from dso_robotics.robot.strapdown import base_turns, blind, driven, kinematic, strapped
from tests.robot.stepping import STEPPER, readings, stepping

FREE = """
<mujoco>
  <option integrator="RK4"/>
  <worldbody>
    <geom type="plane" size="1 1 1"/>
    <body name="base" pos="0 0 0.05">
      <freejoint/>
      <geom size="0.1" pos="0.03 0 0"/>
      <site name="imu" pos="0.02 -0.03 0.01" euler="20 30 40"/>
      <body name="leg" pos="0.1 0 0">
        <joint name="hip" axis="0 1 0" stiffness="9" damping="2"/>
        <geom size="0.05" pos="0 0 -0.2"/>
        <site name="toe" pos="0 0 -0.2"/>
      </body>
    </body>
  </worldbody>
  <actuator><motor name="m" joint="hip"/></actuator>
  <sensor>
    <gyro name="gyro" site="imu"/><accelerometer name="acc" site="imu"/><accelerometer name="toe" site="toe"/>
    <actuatorfrc name="torque" actuator="m"/>
  </sensor>
</mujoco>
"""


def test_the_base_moves_as_it_reads():
    robot = strapped(load(mujoco.MjSpec.from_string(FREE)), "acc")
    model, rng = robot.mj, np.random.default_rng(0)
    data = mujoco.MjData(model)
    assert [model.actuator(i).name for i in range(model.nu)] == ["acc[0]", "acc[1]", "acc[2]"]
    for _ in range(5):
        mujoco.mj_resetData(model, data)
        mujoco.mj_integratePos(model, data.qpos, rng.normal(size=model.nv), 1.0)
        data.qvel[:], data.ctrl[:] = rng.normal(size=model.nv), 5 * rng.normal(size=3)
        mujoco.mj_forward(model, data)
        turn = data.site_xmat[0].reshape(3, 3)
        moved = np.zeros(6)
        mujoco.mj_objectAcceleration(model, data, mujoco.mjtObj.mjOBJ_SITE, 0, moved, 0)
        np.testing.assert_allclose(moved[3:], turn @ data.ctrl, atol=1e-3)  # MuJoCo's without gravity
        np.testing.assert_allclose(data.sensor("acc").data, data.ctrl, atol=1e-3)
        np.testing.assert_allclose(data.qacc[3:], 0, atol=1e-3)
    assert base_turns(model) == [3, 4, 5]


@pytest.mark.parametrize(
    ("name", "text"),
    [("nothing", "no accelerometer of this name; it has 'acc'"), ("toe", "is no free base")],
)
def test_what_cannot_be_is_refused(name, text):
    with pytest.raises(DsoError, match=text):
        strapped(load(mujoco.MjSpec.from_string(FREE)), name)


def test_controls_are_the_readings_at_the_end_of_each_interval():
    log = stepping(1)
    data = readings(log.rollouts[0]).copy()
    data[5, 2:5] = np.nan
    log = dataclasses.replace(log, rollouts=(dataclasses.replace(log.rollouts[0], sensordata=data),))
    made, read = driven(log, "acc").rollouts[0], data[:, 2:5]
    assert made.ctrl is not None
    assert made.ctrl_names == ("acc[0]", "acc[1]", "acc[2]")
    np.testing.assert_array_equal(made.ctrl[:4], read[1:5])
    np.testing.assert_array_equal(made.ctrl[4:6], read[[6, 6]])
    np.testing.assert_array_equal(made.ctrl[-1], read[-1])
    with pytest.raises(DsoError, match="no channel 'imu"):
        driven(log, "imu")


def test_sensors_of_forces_are_no_readings():
    model, log = strapped(load(mujoco.MjSpec.from_string(STEPPER)), "acc").mj, stepping(1)
    assert kinematic(model, log, None) == ["encoder", "rate"]
    with pytest.raises(DsoError, match="'touch' reads forces"):
        kinematic(model, log, ["encoder", "touch"])


def test_an_accelerometer_of_a_body_that_falls_is_told():
    alone = FREE.replace('<geom type="plane" size="1 1 1"/>', "").replace('pos="0.03 0 0"', 'pos="0.02 -0.03 0.01"')
    leg = alone[alone.index('<body name="leg"') : alone.index("</body>") + 7]
    falling = (
        alone.replace(leg, "").split("<actuator>")[0]
        + '<sensor><accelerometer name="acc" site="imu"/></sensor></mujoco>'
    )
    model = mujoco.MjModel.from_xml_string(falling)
    assert blind(model, [0]) == ["acc"]
    thrust = falling.replace("<sensor>", '<option viscosity="0.1" wind="3 0 0"/><sensor>')
    assert blind(mujoco.MjModel.from_xml_string(thrust), [0]) == []
    assert blind(mujoco.MjModel.from_xml_string(STEPPER), [2]) == []
