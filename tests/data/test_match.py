"""Channels find their actuators and sensors by name, or say why not."""

import mujoco
import numpy as np
import pytest

from dso_robotics.data.log import Log
from dso_robotics.data.match import match_channels, sensor_channels, values_by_channel
from dso_robotics.errors import DsoError
from dso_robotics.physics.unit import actuator_unit, same_unit, sensor_unit

BOX = """<mujoco model="box"><worldbody><body name="b"><freejoint name="f"/><geom size=".1"/><site name="s"/>
<body pos="0 0 1"><joint name="slide" type="slide"/><joint name="hinge"/><geom size=".1"/></body></body></worldbody>
<actuator><position name="servo" joint="hinge" kp="10"/><motor name="push" joint="slide" gear="3"/>
<velocity name="spin" joint="hinge" kv="2"/><general name="odd" joint="hinge" gainprm="0.3"/></actuator>
<sensor><gyro name="gyro" site="s"/><jointpos name="q" joint="slide"/><accelerometer name="acc" site="s"/>
<framequat name="quat" objtype="site" objname="s"/><actuatorpos name="ap" actuator="servo"/></sensor></mujoco>"""


def box(text=BOX) -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_string(text)


def one(rollout) -> Log:
    return Log("arm.h5", "", "", (rollout,))


def test_addresses_follow_the_log_and_columns_the_model(arm, rollout):
    order = [3, 0, 2, 1]
    base = rollout()
    log = one(
        rollout(
            ctrl=base.ctrl[:, ::-1],
            ctrl_names=("tau2", "tau1"),
            sensordata=base.sensordata[:, order],
            sensor_names=tuple(base.sensor_names[i] for i in order),
            sensor_units=tuple(base.sensor_units[i] for i in order),
        )
    )
    channels = match_channels(log, arm)
    np.testing.assert_array_equal(log.rollouts[0].ctrl[:, channels.ctrl_columns], base.ctrl)
    np.testing.assert_array_equal(channels.sensor_addresses, order)
    assert channels.ctrl_names == ("tau1", "tau2")
    assert channels.warnings == ()


def test_addresses_read_the_value_mujoco_computes():
    model = box()
    data = mujoco.MjData(model)
    data.qvel[:] = np.arange(1.0, 9.0)
    mujoco.mj_forward(model, data)
    channels = sensor_channels(model)
    assert list(channels)[:4] == ["gyro[0]", "gyro[1]", "gyro[2]", "q"]
    for i, key in enumerate(("gyro[0]", "gyro[1]", "gyro[2]")):
        assert data.sensordata[channels[key][1]] == data.sensor("gyro").data[i] != 0
    assert len(channels) == model.nsensordata


def test_missing_and_extra_channels_list_both_sides_and_hint(arm, rollout):
    names = ("shoulder_pos", "elbow_position", "shoulder_vel", "elbow_vel")
    with pytest.raises(DsoError) as caught:
        match_channels(one(rollout(sensor_names=names)), arm)
    message = str(caught.value)
    for part in ("arm.h5", "rollout 'a', sensordata", "the model's elbow_pos is not in the log", "'two_joint_arm'"):
        assert part in message
    assert "the log's elbow_position is not in the model" in message
    assert "For 'elbow_position': Did you mean 'elbow_pos'?" in message
    with pytest.raises(
        DsoError, match=r"the model's tau2 is not in the log.*The log has tau1; the model has tau1, tau2"
    ):
        match_channels(one(rollout(ctrl=rollout().ctrl[:, :1], ctrl_names=("tau1",), ctrl_units=())), arm)


def test_no_controls_at_all(arm, rollout):
    bare = one(rollout(ctrl=None, ctrl_names=(), ctrl_units=()))
    with pytest.raises(DsoError, match="The log has none; the model has tau1, tau2"):
        match_channels(bare, arm)
    assert match_channels(bare, arm, ctrl=False).ctrl_names == ()
    assert match_channels(bare, arm, ctrl=False, sensors=False).sensor_names == ()


def test_every_rollout_is_compared(arm, rollout):
    with pytest.raises(DsoError, match="rollout 'b', ctrl"):
        match_channels(Log("", "", "", (rollout("a"), rollout("b", ctrl_names=("tau1", "tau9")))), arm)


def test_misshapen_sensor():
    model = box()
    time = np.arange(3.0)
    names = ("gyro", "q", "acc[0]", "acc[1]", "acc[2]", *(f"quat[{i}]" for i in range(4)), "ap")
    from dso_robotics.data.rollout import Rollout

    log = one(Rollout(name="a", time=time, sensordata=np.ones((3, 10)), sensor_names=names))
    with pytest.raises(DsoError, match=r"'gyro' has the channel\(s\) gyro\[0\], gyro\[1\], gyro\[2\]"):
        match_channels(log, model, ctrl=False)


def test_nameless_parts_of_the_model_are_refused(rollout):
    with pytest.raises(DsoError, match=r"model 'box': sensor number 1 .* has no name.*name='sensor1'"):
        match_channels(one(rollout()), box(BOX.replace('name="q" ', "")), ctrl=False)
    with pytest.raises(DsoError, match=r"actuator number 0 .* has no name"):
        match_channels(
            one(rollout()), box(BOX.replace('name="servo" ', "").replace('actuator="servo"', 'actuator="push"'))
        )


def test_units(arm, rollout):
    with pytest.raises(
        DsoError, match=r"'elbow_pos' is in deg but the model's sensor .* rad; .*--scale elbow_pos=FACTOR:rad"
    ):
        match_channels(one(rollout(sensor_units=("rad", "deg", "rad/s", "rad/s"))), arm)
    with pytest.raises(DsoError, match="'tau1' is in A but the model's actuator"):
        match_channels(one(rollout(ctrl_units=("A", "Nm"))), arm)
    channels = match_channels(one(rollout(sensor_units=(), ctrl_units=("Nm", "N m"))), arm)
    assert len(channels.warnings) == 4
    assert channels.sensor_units == ("rad", "rad", "rad/s", "rad/s")


def test_units_of_sensors_and_actuators():
    model = box()
    assert [sensor_unit(model, i) for i in range(5)] == ["rad/s", "m", "m/s^2", "1", ""]
    assert [actuator_unit(model, i) for i in range(4)] == ["rad", "N", "rad/s", ""]


@pytest.mark.parametrize(
    ("a", "b"), [("N m", "N*m"), ("Nm", "N·m"), ("m/s2", "m / s^2"), ("m/s²", "m/s**2"), ("Rad", "rad")]
)
def test_spellings(a, b):
    assert same_unit(a, b)
    assert not same_unit(a, "deg")


def test_values_by_channel():
    names = ("q", "gyro[0]", "gyro[1]")
    np.testing.assert_array_equal(values_by_channel({"*": 1, "gyro": 2, "gyro[1]": 3}, names, "noise"), [1, 2, 3])
    with pytest.raises(DsoError, match="noise: the model has no channel 'gyr'"):
        values_by_channel({"gyr": 1}, names, "noise")
    with pytest.raises(DsoError, match="noise of 'q' is -1"):
        values_by_channel({"q": -1}, names, "noise")
