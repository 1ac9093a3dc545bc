"""Limits, distances and holding controls, beside closed forms and C MuJoCo."""

from typing import Any

import mujoco
import numpy as np
import pytest

from dso_robotics.errors import DsoError
from dso_robotics.robot.clearance import pairs, refuse_touching
from dso_robotics.robot.holding import drive, holding
from dso_robotics.robot.motion_limits import limits, rates

ARM = """
<mujoco><option timestep="0.01"/><worldbody>
<geom name="wall" type="box" pos="0.9 0 0" size="0.1 1 1"/>
<body name="link"><joint name="hinge" axis="0 1 0" range="-150 150" limited="true"/>
<geom name="rod" type="capsule" fromto="0 0 0 0 0 -0.5" size="0.02" mass="0"/>
<inertial pos="0 0 -0.4" mass="2" diaginertia="0.01 0.01 0.01"/></body></worldbody>
<actuator><motor name="torque" joint="hinge" gear="2" ctrlrange="-10 10"/></actuator></mujoco>"""
NONE: dict[str, Any] = {
    "position": {},
    "speed": {},
    "acceleration": {},
    "torque": {},
    "power": {},
    "apart": (),
    "rest": False,
}


def bounds(model: mujoco.MjModel, given: dict[str, Any]):
    return limits(model, **{**NONE, **given})


@pytest.fixture(scope="module")
def model():
    return mujoco.MjModel.from_xml_string(ARM)


def swing(amplitude, seconds=2.0, dt=0.01):
    """A path (1, T, 2) of one period of a sine, with its controls."""
    time = np.arange(int(seconds / dt) + 1) * dt
    rate = 2 * np.pi / seconds
    path = np.stack([amplitude * np.sin(rate * time), amplitude * rate * np.cos(rate * time)], -1)[None]
    return path, np.zeros((1, len(time), 1)), rate


def test_position_speed_and_acceleration_are_those_of_a_sine(model):
    path, ctrl, rate = swing(0.8)
    for what, reached in (("speed", 0.8 * rate), ("acceleration", 0.8 * rate**2)):
        kept = bounds(model, {what: {"hin*": 1.01 * reached}}).judge(path, ctrl, 0.01)
        broken = bounds(model, {what: {"*": reached / 2}}).judge(path, ctrl, 0.01)
        assert kept.excess[0] == 0
        assert broken.excess[0] == pytest.approx(1.0, abs=0.01)
        assert broken.worst[0].startswith(f"{what} of hinge")
    beyond = bounds(model, {"position": {"hinge": (-0.4, 0.4)}}).judge(path, ctrl, 0.01)
    assert beyond.excess[0] == pytest.approx(0.5, abs=1e-3)  # 0.4 rad of a range of 0.8


def test_the_range_of_the_model_holds_without_being_named(model):
    path, ctrl, _ = swing(2.8)
    assert bounds(model, {}).judge(path, ctrl, 0.01).excess[0] > 0


def test_force_and_power_are_those_of_the_actuator(model):
    path, ctrl, rate = swing(0.8)
    ctrl = ctrl + 1.5
    reached = bounds(model, {"torque": {"torque": 1.0}}).judge(path, ctrl, 0.01)
    assert reached.excess[0] == pytest.approx(0.5)
    # The velocity of the actuator is the gear times that of the joint.
    most = 1.5 * 2 * 0.8 * rate
    assert bounds(model, {"power": {"*": 1.01 * most}}).judge(path, ctrl, 0.01).excess[0] == 0
    assert bounds(model, {"power": {"*": most / 2}}).judge(path, ctrl, 0.01).excess[0] == pytest.approx(1, abs=0.01)


def test_rest_at_the_end(model):
    path, ctrl, _ = swing(0.8)
    moving = bounds(model, {"rest": True}).judge(path, ctrl, 0.01)
    assert "at the end" in moving.worst[0]
    path[0, -1, 1] = 0.0
    assert bounds(model, {"rest": True}).judge(path, ctrl, 0.01).excess[0] == 0


def test_distance_to_a_wall_is_exact(model):
    # The end of the rod, 0.02 thick, comes as near as 0.8 - 0.5 sin(q) - 0.02 to the wall.
    near = 0.8 - 0.5 * np.sin(0.8) - 0.02
    path, ctrl, _ = swing(0.8)
    for margin, excess in ((near - 1e-3, 0.0), (near + 0.05, 0.5)):
        apart = pairs(model, {"ro*:wall": margin}, (), 0.0)
        found = bounds(model, {"apart": apart}).judge(path, ctrl, 0.01)
        assert found.excess[0] == pytest.approx(excess, abs=0.01)
    with pytest.raises(DsoError, match=r"no geom 'hand'.*'wall'"):
        pairs(model, {"hand:wall": 0.1}, (), 0.0)


def test_a_start_that_collides_is_refused_with_the_pair(model):
    apart = pairs(model, {}, (), 0.0)
    refuse_touching(model, np.zeros(1), apart, "arm.xml")
    with pytest.raises(DsoError, match=r"rod|wall.*--touch"):
        refuse_touching(model, np.zeros(1), pairs(model, {}, (), 0.85), "arm.xml")
    refuse_touching(model, np.zeros(1), pairs(model, {}, ["rod:wall"], 0.85), "arm.xml")


def test_a_diverged_motion_breaks_every_limit(model):
    path, ctrl, _ = swing(0.1)
    path[0, 50:] = np.nan
    found = bounds(model, {"speed": {"*": 100.0}}).judge(path, ctrl, 0.01)
    assert np.isinf(found.excess[0])
    assert found.worst[0] == "the simulation diverges"


def test_holding_controls_balance_gravity(model):
    ctrl, act = holding(model, np.array([0.6]))
    assert act.size == 0
    # Torque m g r sin q over the gear; the sign is that of an axis along y.
    assert abs(ctrl[0]) == pytest.approx(2 * 9.81 * 0.4 * np.sin(0.6) / 2, rel=1e-6)
    data = mujoco.MjData(model)
    data.qpos[:], data.ctrl[:] = 0.6, ctrl
    mujoco.mj_forward(model, data)
    assert abs(data.qacc[0]) < 1e-9


def test_a_servo_holds_with_its_reference_off_by_its_sag():
    text = ARM.replace(
        '<motor name="torque" joint="hinge" gear="2" ctrlrange="-10 10"/>',
        '<position name="ref" joint="hinge" kp="50"/>',
    )
    servo = mujoco.MjModel.from_xml_string(text)
    ctrl, _ = holding(servo, np.array([0.6]))
    assert abs(ctrl[0] - 0.6) == pytest.approx(2 * 9.81 * 0.4 * np.sin(0.6) / 50, rel=1e-6)
    reach = drive(servo, ctrl, ("ref",), None)
    assert (reach.low[0], reach.high[0]) == pytest.approx((-np.radians(150), np.radians(150)))


def test_controls_stay_in_their_range_and_below_their_rate(model):
    reach = drive(model, np.array([4.0]), ("torque",), {"torque": 20.0})
    signals = 5 * np.sin(np.linspace(0, 20, 2001))[None, :, None]
    ctrl = reach.controls(signals, 0.01, rates({}, ("torque",)))
    assert -10 <= ctrl.min() < -9.9
    assert 9.9 < ctrl.max() <= 10
    slow = reach.controls(signals, 0.01, rates({"*": 3.0}, ("torque",)))
    assert np.abs(np.diff(slow, axis=1)).max() <= 3.0 * 0.01
    with pytest.raises(DsoError, match="--amplitude"):
        drive(mujoco.MjModel.from_xml_string(ARM.replace('ctrlrange="-10 10"', "")), np.zeros(1), ("torque",), None)


def test_unknown_names_and_empty_ranges_are_told(model):
    with pytest.raises(DsoError, match=r"--speed elbow.*'hinge'"):
        bounds(model, {"speed": {"elbow": 1.0}})
    with pytest.raises(DsoError, match="nothing in common"):
        bounds(model, {"position": {"hinge": (3.0, 4.0)}})
