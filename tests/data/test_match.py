"""Channels find their actuators and sensors by name, or say why not."""

from dataclasses import replace

import mujoco
import numpy as np
import pytest

from dso_robotics.data.log import Log
from dso_robotics.data.match import fitted, match_channels, quaternion_places, sensor_channels, values_by_channel
from dso_robotics.errors import DsoError
from dso_robotics.physics.unit import actuator_unit, control_unit, same_unit, sensor_unit

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


def test_what_only_one_side_has_is_left_out_with_a_note(arm, rollout):
    base = rollout()
    names = ("shoulder_pos", "elbow_position", "shoulder_vel", "elbow_vel")
    values = base.sensordata.copy()
    values[:, 3] = np.nan
    ctrl = np.c_[base.ctrl, base.ctrl[:, 0]]
    extra = {"ctrl": ctrl, "ctrl_names": ("tau1", "tau2", "fan"), "ctrl_units": ("N*m", "N*m", "")}
    log, notes = fitted(one(rollout(sensor_names=names, sensordata=values, **extra)), arm)
    channels = match_channels(log, arm)
    assert channels.sensor_names == ("shoulder_pos", "shoulder_vel")
    assert log.rollouts[0].ctrl_names == ("tau1", "tau2")
    np.testing.assert_array_equal(log.rollouts[0].sensordata, values[:, [0, 2]])
    text = " | ".join(notes)
    for part in (
        "'elbow_position' is no sensor of the model",
        "Did you mean 'elbow_pos'",
        "'elbow_vel' was never",
        "control fan",
    ):
        assert part in text
    assert "the model's elbow_pos is not in the log" in text
    assert fitted(one(base), arm)[1] == ()


def test_a_channel_of_some_rollouts_is_nan_in_the_others(arm, rollout):
    base = rollout()
    fewer = rollout(
        "b", sensordata=base.sensordata[:, :3], sensor_names=base.sensor_names[:3], sensor_units=("rad",) * 3
    )
    log, _ = fitted(Log("", "", "", (base, replace(fewer, sensor_units=base.sensor_units[:3]))), arm)
    assert np.isnan(log["b"].sensor("elbow_vel")).all()
    np.testing.assert_array_equal(log["a"].sensordata, base.sensordata)
    _, notes = fitted(log, arm, needed=["b"])
    assert "'elbow_vel' was never measured in the log to fit" in " ".join(notes)


def test_nothing_in_common_is_refused(arm, rollout):
    with pytest.raises(DsoError, match=r"no sensor is in both.*Did you mean 'elbow_pos'"):
        fitted(one(rollout(sensor_names=("a", "elbow_poss", "c", "d"))), arm)
    with pytest.raises(DsoError, match=r"elbow_pos\[0\] is not a component"):
        fitted(one(rollout(sensor_names=("shoulder_pos", "elbow_pos[0]", "c", "d"))), arm)


def test_signs_of_quaternions_are_made_continuous():
    from dso_robotics.data.quaternion import facing
    from dso_robotics.data.rollout import Rollout

    model, names = box(), tuple(f"quat[{i}]" for i in (3, 0, 1, 2))
    angle = np.linspace(0, 4, 40)
    true = np.stack([np.sin(angle / 2), np.cos(angle / 2), 0 * angle, 0 * angle], 1)
    flips = np.where(np.arange(40) // 7 % 2, -1.0, 1.0)[:, None]
    values = true * flips
    values[13] = np.nan
    log = one(Rollout(name="a", time=np.arange(40.0), sensordata=values, sensor_names=names))
    log, notes = fitted(log, model, ctrl=False)
    np.testing.assert_allclose(np.delete(log.rollouts[0].sensordata, 13, 0), np.delete(true, 13, 0))
    assert "flips 5 time(s)" in " ".join(notes)
    assert quaternion_places(model, [sensor_channels(model)[name][1] for name in names]) == ((1, 2, 3, 0),)
    assert quaternion_places(model, [sensor_channels(model)[name][1] for name in names[1:]]) == ()
    sign = facing(true, np.nan_to_num(values), ((1, 2, 3, 0),))
    np.testing.assert_array_equal(np.delete(sign, 13, 0), np.delete(np.tile(flips, 4), 13, 0))


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
    with pytest.raises(DsoError, match="without a unit if the gear of the actuator"):
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


def test_numbers_that_no_machine_measures_are_refused_by_place(arm, rollout):
    values = rollout().sensordata.copy()
    values[7, 1] = 1e300
    with pytest.raises(
        DsoError, match=r"arm.h5: rollout 'a': sensor channel 'elbow_pos' is 1e\+300 at sample 7 \(0.07 s\)"
    ):
        fitted(one(rollout(sensordata=values)), arm)
    with pytest.raises(DsoError, match="qpos is -1e"):
        fitted(one(rollout(qpos=np.full((50, 2), -1e20))), arm)


def test_controls_are_compared_with_the_ctrlrange(arm, rollout):
    limited = mujoco.MjModel.from_xml_string(
        BOX.replace('name="push"', 'name="push" ctrlrange="-8 8" ctrllimited="true"')
    )
    from dso_robotics.data.rollout import Rollout

    time = np.arange(50) * 0.01
    names = ("servo", "push", "spin", "odd")
    for scale, word in ((1e-6, "never larger than"), (100.0, "beyond the model's ctrlrange of 8"), (5.0, None)):
        ctrl = np.outer(scale * np.sin(7 * time), np.ones(4))
        log = one(
            Rollout(name="a", time=time, ctrl=ctrl, ctrl_names=names, sensordata=time[:, None], sensor_names=("q",))
        )
        text = " ".join(fitted(log, limited)[1])
        assert (word in text) if word else ("'push'" not in text)


def test_a_geared_motor_takes_a_share_and_others_do_not():
    model = box(BOX.replace("<velocity", '<motor name="bare" joint="hinge"/><velocity'))
    ids = {name: model.actuator(name).id for name in ("push", "bare", "servo")}
    assert [control_unit(model, ids[name], "1") for name in ids] == ["", "N*m", "rad"]
    assert [control_unit(model, ids[name], "%") for name in ids] == ["N", "N*m", "rad"]
    assert [control_unit(model, ids[name], "") for name in ids] == [actuator_unit(model, i) for i in ids.values()]
