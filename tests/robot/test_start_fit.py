"""Start states from sensors of frames, balls and tendons, and in closed loops: the states that the simulation had."""

import mujoco
import numpy as np
import pytest

from dso_robotics.data.log import Log, write_log
from dso_robotics.data.match import match_channels
from dso_robotics.data.rollout import Rollout
from dso_robotics.data.windows import cut
from dso_robotics.parameters.path import parse
from dso_robotics.physics.closure import Closure
from dso_robotics.robot.start import guess
from dso_robotics.studies.identify import identify
from dso_robotics.studies.study import IdentifyStudy

FREE = """<mujoco><option timestep="0.002"/><worldbody><body name="b" pos="0 0 1"><freejoint/>
<inertial pos="0 0 0" mass="1" diaginertia=".02 .03 .04"/><site name="s" pos=".1 0 0"/></body></worldbody>
<sensor><framepos name="p" objtype="site" objname="s"/><framequat name="r" objtype="site" objname="s"/></sensor></mujoco>"""
BALL = """<mujoco><option timestep="0.002"/><worldbody><body><joint name="b" type="ball"/>
<inertial pos="0 0 -.2" mass="1" diaginertia=".02 .03 .04"/></body></worldbody>
<sensor><ballquat name="r" joint="b"/></sensor></mujoco>"""
LOOP = """<mujoco><option timestep="0.002" integrator="implicitfast"/><default><joint axis="0 1 0"/></default><worldbody>
<body name="crank"><joint name="driver" damping=".05" armature=".005"/>
<inertial pos="0 0 .03" mass=".05" diaginertia="1e-4 1e-4 1e-5"/>
<body name="coupler" pos="0 0 .06"><joint name="coupler"/>
<inertial pos=".04 0 0" mass=".04" diaginertia="1e-5 1e-4 1e-4"/></body></body>
<body name="rocker" pos=".08 0 0"><joint name="spring" stiffness="{}" damping=".002"/>
<inertial pos="0 0 .03" mass=".05" diaginertia="1e-4 1e-4 1e-5"/></body></worldbody>
<equality><connect body1="coupler" body2="rocker" anchor=".08 0 0" solref=".005 1"/></equality>
<tendon><fixed name="t"><joint joint="driver" coef="1"/></fixed></tendon><actuator><motor name="m" tendon="t"/></actuator>
<sensor><tendonpos name="width" tendon="t"/></sensor></mujoco>"""


def recorded(text, seed=0, seconds=2.0, flip=False, noise=0.0):
    """A log of the model from a random velocity, and its true states."""
    model = mujoco.MjModel.from_xml_string(text)
    data, rng, rows, states, controls = mujoco.MjData(model), np.random.default_rng(seed), [], [], []
    if not model.neq:
        data.qvel[:] = rng.normal(size=model.nv)
    for k in range(int(seconds * 250)):
        if model.nu and k % 50 == 0:
            data.ctrl[:] = 0.05 * rng.normal()
        mujoco.mj_forward(model, data)
        rows.append(data.sensordata.copy())
        states.append(np.concatenate([data.qpos, data.qvel]))
        controls.append(data.ctrl.copy())
        mujoco.mj_step(model, data, nstep=2)
    values = np.array(rows)
    if flip:
        values[::3, -4:] *= -1
    values += noise * rng.normal(size=values.shape)
    names = [
        model.sensor(i).name + (f"[{k}]" if model.sensor_dim[i] > 1 else "")
        for i in range(model.nsensor)
        for k in range(int(model.sensor_dim[i]))
    ]
    rollout = Rollout(
        name=f"r{seed}",
        time=0.004 * np.arange(len(values)),
        ctrl=np.array(controls) if model.nu else None,
        ctrl_names=("m",) if model.nu else (),
        sensordata=values,
        sensor_names=tuple(names),
    )
    return model, Log("", "simulated for a test", "CC0", (rollout,)), np.array(states)


@pytest.mark.parametrize(("text", "flip"), [(FREE, False), (FREE, True), (BALL, False), (BALL, True)])
def test_bodies_whose_pose_is_measured_start_where_they_were(text, flip):
    model, log, states = recorded(text, flip=flip)
    windows = cut(log.rollouts, match_channels(log, model), timestep=0.002, seconds=0.3)
    found, true = guess(windows, model), states[windows.sample[:, 0]]
    turn = np.zeros(model.nv)
    for a, b in zip(found, true, strict=True):
        mujoco.mj_differentiatePos(model, turn, 1.0, a[: model.nq].copy(), b[: model.nq].copy())
        assert np.abs(turn).max() < 1e-4
    np.testing.assert_allclose(found[1:-1, model.nq :], true[1:-1, model.nq :], atol=0.02)


def test_a_loop_is_closed_at_the_start_of_every_window():
    model, log, states = recorded(LOOP.format(0.1))
    windows = cut(log.rollouts, match_channels(log, model), timestep=0.002, seconds=0.3)
    # A model whose spring is wrong: its own simulation is far from the recording.
    wrong = mujoco.MjModel.from_xml_string(LOOP.format(0.5))
    found, true, closure = guess(windows, wrong), states[windows.sample[:, 0]], Closure(wrong)
    assert closure.rows == 3
    np.testing.assert_allclose(found[1:, :3], true[1:, :3], atol=2e-3)
    for state in found:
        assert np.abs(closure.violation(state[:3])).max() < 1e-5
        assert np.abs(closure.slope(state[:3]) @ state[3:6]).max() < 1e-4


def test_the_slopes_of_open_loops_are_those_of_differences():
    closure = Closure(mujoco.MjModel.from_xml_string(LOOP.format(0.1)))
    state = np.array([[0.2, -0.1, 0.15, 0.3, -0.2, 0.1]])
    _, slope = closure.linearize(state)
    h = 1e-5
    for k in range(3):
        change = h * np.eye(6)[k]
        numeric = (closure.residual(state + change) - closure.residual(state - change)) / (2 * h)
        np.testing.assert_allclose(slope[0, :3, k], numeric[0, :3], rtol=1e-4, atol=1e-3)
    for k in range(3, 6):
        change = h * np.eye(6)[k]
        numeric = (closure.residual(state + change) - closure.residual(state - change)) / (2 * h)
        np.testing.assert_allclose(slope[0, :, k], numeric[0], rtol=1e-4, atol=1e-3)


def test_a_spring_in_a_loop_is_identified_from_its_tendon(tmp_path):
    logs = []
    for seed in (1, 2):
        _, log, _ = recorded(LOOP.format(0.1), seed=seed, seconds=3.0, noise=3e-4)
        logs += log.rollouts
    write_log(tmp_path / "log.h5", Log("", "simulated for a test", "CC0", tuple(logs)))
    (tmp_path / "loop.xml").write_text(LOOP.format(0.04))
    asked = IdentifyStudy(
        model=str(tmp_path / "loop.xml"),
        logs=(str(tmp_path / "log.h5"),),
        free=(parse("joint/spring/stiffness"), parse("joint/driver/damping=0.02")),
    )
    found = identify(asked, tmp_path / "out").summary["parameters"]
    assert found["joint/spring/stiffness"]["value"] == pytest.approx(0.1, rel=0.05)
    assert found["joint/driver/damping"]["value"] == pytest.approx(0.05, rel=0.05)
