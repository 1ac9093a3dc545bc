"""Actions: zero is home, small ones have the asked scale, rates are limited, noise may come after; in training on both engines
and on C, and in a deployed policy."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from dso_robotics.errors import DsoError
from dso_robotics.physics.model import load
from dso_robotics.physics.position_drive import with_position_drives
from dso_robotics.robot.play import Player
from dso_robotics.robot.squash import squash
from dso_robotics.studies.train_build import build
from dso_robotics.studies.train_study import TrainStudy
from tests.robot.test_replay import STUDY, Windows, compared, floater

ARM = """<mujoco><compiler angle="radian"/><option timestep="0.005"/>
  <worldbody><body><joint name="a" axis="0 1 0" limited="true" range="-1 2"/>
  <geom size="0.05" pos="0.2 0 0" mass="1"/><body pos="0.3 0 0"><joint name="b" axis="0 1 0"/>
  <geom size="0.05" pos="0.2 0 0" mass="0.5"/></body></body></worldbody>
  <actuator>{actuators}</actuator>
  <keyframe><key name="bent" qpos="0.6 -0.2" {ctrl}/></keyframe></mujoco>"""
MOTORS = '<motor name="a" joint="a" gear="-3" ctrlrange="-1 2"/><motor name="b" joint="b" gear="2"/>'
SERVOS = '<position name="a" joint="a" kp="5" ctrlrange="-1 2"/><position name="b" joint="b" kp="5" ctrlrange="-3 3"/>'


def arm(folder, actuators=MOTORS, ctrl="", **more):
    (folder / "arm.xml").write_text(ARM.format(actuators=actuators, ctrl=ctrl))
    given = {"seconds": 0.1, "cost": {"a": {"kind": "square", "quantity": "joint/a/position"}}, **more}
    training = {"horizon": 4, "environments": 4, "iterations": 2, **given.pop("training", {})}
    return TrainStudy(model=str(folder / "arm.xml"), training=training, engine="mujoco", **given)


def made(study):
    return build(study).chain.squash


def test_zero_is_home_and_the_scale_is_the_slope_there(tmp_path):
    chosen = {"home": {"a": 1.5, "b": 0.7}, "scale": {"a": 0.25, "*": 3.0}}
    for noise in ("before", "after"):
        s = made(arm(tmp_path, action={**chosen, "noise": noise}))
        np.testing.assert_allclose(s(s.rest), [1.5, 0.7], rtol=1e-12)
        slope = jax.jacfwd(lambda raw, s=s: s(s.mean(raw)))(jnp.zeros(2))
        np.testing.assert_allclose(np.asarray(slope), np.diag([0.25, 3.0]), rtol=1e-12)
        ends = [float(s(s.mean(jnp.full(2, x)))[0]) for x in (-1e3, 1e3)]
        np.testing.assert_allclose(ends, [-1.0, 2.0])
        ctrl = np.array([1.2, 5.0])
        np.testing.assert_allclose(s(s.action(ctrl)), ctrl, rtol=1e-9)
        np.testing.assert_allclose(s(s.passive), [0.0, 0.0], atol=1e-12)


def test_home_by_default(tmp_path):
    """The keyframe's ctrl; else where the start posture holds a servo; else 0; the middle where 0 is an end."""
    start = {"keyframe": "bent"}
    home = lambda s: np.asarray(s(s.rest))  # noqa: E731
    np.testing.assert_allclose(home(made(arm(tmp_path, SERVOS, 'ctrl="0.3 0.4"', start=start))), [0.3, 0.4], rtol=1e-12)
    np.testing.assert_allclose(home(made(arm(tmp_path, SERVOS, start=start))), [0.6, -0.2], rtol=1e-12)
    np.testing.assert_allclose(home(made(arm(tmp_path))), [0.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(home(made(arm(tmp_path, action={"zero": "middle"}))), [0.5, 0.0], atol=1e-12)
    thrust = MOTORS.replace('ctrlrange="-1 2"', 'ctrlrange="0 2"')
    np.testing.assert_allclose(home(made(arm(tmp_path, thrust))), [1.0, 0.0], atol=1e-12)


def test_motors_become_drives_with_the_same_torque(tmp_path):
    """Against torque = clip(k (target - q) - d v) applied by hand."""
    robot = load(arm(tmp_path).model)
    drive = with_position_drives(robot, [8.0, 4.0], [0.3, 0.1])
    data, rng = mujoco.MjData(drive.mj), np.random.default_rng(0)
    limits = np.array([[-6.0, 3.0], [-np.inf, np.inf]])
    np.testing.assert_allclose(drive.mj.actuator_ctrlrange, [[-1, 2], [-np.pi, np.pi]])
    for _ in range(10):
        data.qpos[:], data.qvel[:] = rng.uniform(-1, 2, 2), rng.normal(size=2)
        data.ctrl[:] = target = rng.uniform(-1, 2, 2)
        mujoco.mj_forward(drive.mj, data)
        torque = np.array([8.0, 4.0]) * (target - data.qpos) - np.array([0.3, 0.1]) * data.qvel
        np.testing.assert_allclose(data.qfrc_actuator, np.clip(torque, *limits.T), rtol=1e-12)
    task = build(arm(tmp_path, action={"position": {"stiffness": 8.0}}, start={"keyframe": "bent"}))
    np.testing.assert_allclose(task.chain.squash(task.chain.squash.rest), [0.6, -0.2], rtol=1e-12)
    other = MOTORS + '<muscle name="m" joint="a" lengthrange="0 1"/>'
    with pytest.raises(DsoError, match=r"position: actuator 'm' is neither"):
        build(arm(tmp_path, other, action={"position": {"stiffness": 8.0}}))
    with pytest.raises(DsoError, match=r'none for actuator \'b\'; give it one, or "\*"'):
        build(arm(tmp_path, action={"position": {"stiffness": {"a": 1.0}}}))
    design = {"g": {"kind": "gear", "of": "a", "low": -4.0, "high": -1.0}}
    with pytest.raises(DsoError, match="designs a gear"):
        build(arm(tmp_path, action={"position": {"stiffness": 8.0}}, design=design))


@pytest.mark.parametrize("noise", ["before", "after"])
def test_gradients_are_those_of_c(tmp_path, noise):
    """Rates that are limited now and then, a drawn delay, saturation and its cost: by replay and by differences of C."""
    text = STUDY.replace("delay = 0.008", "delay = [0.0, 0.016]").replace('observe = ["acc", "gyro"]', "")
    more = f'[action]\nnoise = "{noise}"\nrate = {{ thruster = 40.0, muscle = 60.0 }}\nhome = {{ thruster = 0.3 }}\n'
    more += '[cost.saturation]\nkind = "saturation"\nfree = 0.1\n[training]'
    windows = Windows(floater(tmp_path, text=text.replace("[training]", more)))
    layout = windows.chain.layout
    late = np.asarray(windows.learner.states.context)[:, -1]
    assert len(set(late[:3])) > 1
    theta = layout.initial + 0.1 * np.random.default_rng(1).standard_normal(layout.size)
    paths = windows(theta)[2]
    moves = np.abs(np.diff(np.asarray(paths.states.ctrl)[:, :, 0], axis=1))
    assert np.isclose(moves, 0.32).any()
    assert (moves < 0.31).any()
    for block in ("policy", "action noise"):
        by_replay, by_c = compared(windows, theta, block)
        assert by_replay == pytest.approx(by_c, rel=1e-6), block


def test_windows_and_episodes_are_those_of_mjx(tmp_path):
    study = arm(
        tmp_path,
        policy={"delay": [0.0, 0.01]},
        action={"rate": {"a": 30.0}, "noise": "after", "home": {"a": 0.5}},
    )
    task = build(dataclasses.replace(study, engine="mjx"))
    chain, steps = task.chain, 12
    rng = np.random.default_rng(0)
    theta = jnp.asarray(chain.layout.initial + 0.5 * rng.standard_normal(chain.layout.size))
    noise = rng.standard_normal((steps, chain.noises))
    context = np.array([2.0])
    episode = Player(chain).play(theta, chain.scaling, steps=steps, noise=noise, context=context)
    state = eqx.tree_at(lambda s: s.context, chain.rest(), jnp.asarray(context))
    move = jax.jit(lambda noise, state, theta: chain.move(noise, state, theta))
    for t in range(steps):
        state = move(noise[t], state, theta)
        np.testing.assert_allclose(state.ctrl, episode.ctrl[t], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(state.body.qpos, episode.qpos[t + 1], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(episode.ctrl[:2], [[0.5, 0.0]] * 2, atol=1e-12)  # two steps late
    assert np.isclose(np.abs(np.diff(episode.ctrl[:, 0])), 0.15).any()


def test_the_drawn_delay_and_the_saturated_share(tmp_path):
    chain = build(arm(tmp_path, policy={"delay": [0.004, 0.016]})).chain
    assert chain.delay == 3
    assert chain.context.delay.values == (1.0, 2.0, 3.0)
    np.testing.assert_allclose(chain.context.trials()[:, -1], [2.0, 1.0, 3.0])
    episode = Player(chain).play(chain.layout.initial, chain.scaling, steps=4)
    edge = 0.5 + 1.5 * np.tanh(2.2)
    episode = dataclasses.replace(episode, ctrl=np.array([[edge, 9.0], [0.0, 9.0], [-0.99, 9.0], [1.9, 9.0]]))
    np.testing.assert_allclose(episode.saturated(chain.squash), [0.5, 0.0])


def test_wrong_names_and_numbers_are_named(tmp_path):
    for action, told in (
        ({"home": {"c": 1.0}}, r"\[action\] home: there is no actuator 'c'; there are 'a'"),
        ({"rate": {"c": 1.0}}, r"\[action\] rate: there is no actuator 'c'"),
        ({"home": {"a": 3.0}}, "outside the actuator's range, -1 to 2"),
    ):
        with pytest.raises(DsoError, match=told):
            build(arm(tmp_path, action=action))
    with pytest.raises(DsoError, match=r"of 0.005 s is between 0.006 and 0.009 s"):
        build(arm(tmp_path, policy={"delay": [0.006, 0.009]}))
    free = MOTORS.replace('ctrlrange="-1 2"', "")
    with pytest.raises(DsoError, match="no actuator has a ctrlrange"):
        build(arm(tmp_path, free, cost={"s": {"kind": "saturation"}}))


def test_an_actuator_about_its_middle_is_as_tanh():
    model = mujoco.MjModel.from_xml_string(ARM.format(actuators=MOTORS, ctrl=""))
    s, u = squash(model), jnp.asarray([0.7, -3.0])
    np.testing.assert_allclose(s(u), [0.5 + 1.5 * np.tanh(0.7), -3.0], rtol=1e-15)
