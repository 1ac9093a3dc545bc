"""The C engine against a plain loop over mj_step."""

import mujoco
import numpy as np
import pytest

from dso_robotics.errors import DsoError
from dso_robotics.parameters.path import parse
from dso_robotics.parameters.vector import pack
from dso_robotics.physics.batch import BatchEngine
from dso_robotics.physics.export import to_mjcf
from dso_robotics.physics.model import load


def plain(model, start, ctrl):
    """States after and sensordata before each step, by mj_step."""
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:] = start[: model.nq], start[model.nq :]
    states, sensors = [], []
    for u in ctrl:
        data.ctrl[:] = u
        mujoco.mj_forward(model, data)
        sensors.append(data.sensordata.copy())
        mujoco.mj_step(model, data)
        states.append(np.r_[data.qpos, data.qvel])
    return np.array(states), np.array(sensors)


def test_batches_equal_models_rebuilt_one_by_one(models):
    """Parameters as fields in one batch do what writing them to MJCF and compiling it again does, mj_setConst included."""
    robot = load(models / "two_joint_arm.xml")
    paths = ("joint/*/damping", "joint/elbow/damping_quadratic", "joint/*/damping_cubic", "joint/*/armature")
    paths += ("body/upper/inertia", "body/lower/mass", "actuator/tau2/gear")
    vector = pack([parse(p) for p in paths], robot)
    rng = np.random.default_rng(1)
    z = vector.initial + 0.3 * rng.uniform(size=(3, vector.size)) * vector.scale
    ctrl, start = rng.normal(size=(3, 40, 2)), rng.normal(size=(3, 4))
    out = BatchEngine(robot.mj).simulate(vector.fields(z), start, ctrl)
    assert not out.ended.any()
    for i in range(3):
        model = mujoco.MjModel.from_xml_string(to_mjcf(robot, vector.fields(z[i])))
        states, sensors = plain(model, start[i], ctrl[i])
        np.testing.assert_allclose(out.state[i], states, rtol=1e-7, atol=1e-8)
        np.testing.assert_allclose(out.sensordata[i], sensors, rtol=1e-7, atol=1e-8)


def test_one_number_can_be_a_gain_a_feedback_gain_and_a_force_limit(models):
    """The servo's stall torque: written to all three places, it gives the trajectory of the model rebuilt with it."""
    robot = load(models / "xl330_servo.xml")
    stall = "actuator/target/gain+actuator/feedback/kp_per_ctrl+tendon/drive/actuatorfrcrange=0.3"
    vector = pack(
        [parse(p) for p in (stall, "actuator/powered/kv_per_ctrl=0.05", "joint/horn/damping_cubic=1e-3")], robot
    )
    fields = vector.fields(vector.initial)
    ctrl = np.tile([3.0, 2.0, 1.0], (80, 1))  # saturated first: the duty cycle begins at 3
    out = BatchEngine(robot.mj).simulate({k: v[None] for k, v in fields.items()}, np.zeros((1, 2)), ctrl[None])
    model = mujoco.MjModel.from_xml_string(to_mjcf(robot, fields))
    np.testing.assert_allclose(model.tendon_actfrcrange, [[-0.3, 0.3]])
    states, _ = plain(model, np.zeros(2), ctrl)
    np.testing.assert_allclose(out.state[0], states, rtol=1e-7, atol=1e-9)
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:], data.ctrl[:] = 1.3, 2.0, ctrl[0]
    mujoco.mj_forward(model, data)
    # 0.3 N m of the duty cycle 3 - 2 * 1.3 = 0.4, less the back EMF.
    np.testing.assert_allclose(data.qfrc_actuator, 0.3 * 0.4 - 0.05 * 2.0, rtol=1e-12)


def test_a_diverging_simulation_is_marked_and_the_others_go_on(models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo logs its warning there
    model = load(models / "two_joint_arm.xml").mj
    start = np.zeros((2, 4))
    start[1, 2] = 1e12
    out = BatchEngine(model).simulate({}, start, np.zeros((2, 5, 2)))
    assert out.ended.tolist() == [False, True]
    assert np.isfinite(out.state[0]).all()
    assert np.isnan(out.state[1, -1]).all()


def test_an_exported_model_reproduces_the_trajectory(models, tmp_path):
    robot = load(models / "two_joint_arm.xml")
    vector = pack(
        [parse(p) for p in ("joint/*/frictionloss=0.05", "joint/*/stiffness=0.3", "body/*/com[2]=-0.2")], robot
    )
    path = tmp_path / "new.xml"
    path.write_text(to_mjcf(robot, vector.fields(vector.initial)))
    ctrl, start = np.random.default_rng(2).normal(size=(60, 2)), np.array([0.3, -0.5, 0.1, 0.2])
    states, _ = plain(mujoco.MjModel.from_xml_path(str(path)), start, ctrl)
    out = BatchEngine(robot.mj).simulate(
        {k: v[None] for k, v in vector.fields(vector.initial).items()}, start[None], ctrl[None]
    )
    np.testing.assert_allclose(out.state[0], states, rtol=1e-9, atol=1e-9)


FREE_BOX = """<mujoco><option timestep="0.01"/><worldbody><geom name="floor" type="plane" size="1 1 1"/>
<body name="box" pos="0 0 0.15"><freejoint/><geom name="box" size="0.1 0.1 0.1" type="box" mass="1"/></body>
</worldbody></mujoco>"""


@pytest.mark.parametrize("move", [1e-7, 0.02])
def test_a_centre_of_mass_moves_alone(tmp_path, move):
    """The geom stays where it is, however small the move; and a free body's mass matrix gets its new entries."""
    (tmp_path / "box.xml").write_text(FREE_BOX)
    robot = load(tmp_path / "box.xml")
    vector = pack([parse("body/box/ipos")], robot)
    start = np.r_[robot.mj.qpos0, 0.1, 0.2, -1.0, 1.0, 2.0, 3.0]
    z = np.array([move, 0.0, -move])
    text = to_mjcf(robot, vector.fields(z)).replace('<body name="box"', '<body simple="false" name="box"')
    model = mujoco.MjModel.from_xml_string(text)
    # MuJoCo itself takes the geom along for the smallest moves, which is what must not happen.
    model.geom_sameframe[:] = 0
    model.body_sameframe[:] = 0
    expected, _ = plain(model, start, np.zeros((15, 0)))
    got = BatchEngine(vector.mj).simulate(vector.fields(z[None]), start[None], np.zeros((1, 15, 0))).state[0]
    np.testing.assert_allclose(got, expected, atol=1e-10)


@pytest.mark.parametrize("field", ["body_ipos", "jnt_pos", "jnt_axis"])
def test_what_a_simple_body_takes_for_granted_does_not_move(field):
    """C MuJoCo would keep the shortcut and compute the wrong inertia without a word."""
    text = '<mujoco><worldbody><body name="wheel"{}><joint axis="0 0 1"/><geom size="0.1"/></body></worldbody></mujoco>'
    ctrl = np.zeros((1, 1, 0))
    for flag in ("", ' simple="false"'):
        model = mujoco.MjModel.from_xml_string(text.format(flag))
        value = np.asarray(getattr(model, field))[None] + 0.1 * np.eye(3)[0]
        start = np.concatenate([model.qpos0, np.zeros(model.nv)])[None]
        if flag:
            assert BatchEngine(model).simulate({field: value}, start, ctrl).state.shape == (1, 1, 2)
        else:
            with pytest.raises(DsoError, match=r"body 'wheel'.*simple=.false"):
                BatchEngine(model).simulate({field: value}, start, ctrl)


def test_an_exported_model_has_all_its_digits(tmp_path):
    """MuJoCo writes six: angles given in degrees would come back rounded."""
    text = """<mujoco><worldbody><camera xyaxes="1 1 0 0 0 1"/>
      <body euler="10 20 30"><joint name="a" range="-110 70" ref="-90" springref="25"/><geom size="0.1 0.2" type="capsule"
      fromto="0.1 0.2 0.3 0.7 0.6 0.7"/><body pos="0.12345678901 0 1"><geom size="0.1"/></body></body>
    </worldbody><actuator><motor joint="a" gear="0.123456789"/></actuator></mujoco>"""
    path = tmp_path / "model.xml"
    path.write_text(text)
    robot = load(path)
    model = mujoco.MjModel.from_xml_string(to_mjcf(robot, {}))
    fields = [
        n for n in dir(model) if isinstance(getattr(model, n), np.ndarray) and getattr(model, n).dtype.kind == "f"
    ]
    for name in fields:
        np.testing.assert_allclose(getattr(model, name), getattr(robot.mj, name), rtol=1e-12, atol=1e-15, err_msg=name)
