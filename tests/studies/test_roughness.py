"""A cost that is no parabola within the intervals is told of: a box that chatters on a floor, beside a smooth motion."""

import mujoco
import numpy as np
import pytest

from dso_robotics.core.method.gauss_newton import solve
from dso_robotics.core.method.least_squares import Settings
from dso_robotics.costs.identification import WindowedIdentification
from dso_robotics.data.match import match_channels
from dso_robotics.data.record import Flaws, record
from dso_robotics.data.windows import cut
from dso_robotics.parameters.path import parse
from dso_robotics.parameters.vector import pack
from dso_robotics.physics.model import load
from dso_robotics.robot.prediction import CPrediction
from dso_robotics.robot.start import guess
from dso_robotics.studies.roughness import rise, rough, white

BOX = """<mujoco><option timestep="0.004" integrator="implicitfast" cone="elliptic"/><worldbody>
<geom name="floor" type="plane" size="3 3 0.1" friction="0.1"/>
<body name="box" pos="0 0 0.05"><freejoint/><inertial pos="0.03 0 0" mass="{mass}" diaginertia="0.006 0.009 0.012"/>
<geom name="sole" type="box" size="0.15 0.1 0.05" friction="0.3 0.02" condim="4" mass="0"/><site name="middle"/></body>
</worldbody><actuator><motor name="fx" site="middle" gear="1 0 0 0 0 0"/>
<motor name="fy" site="middle" gear="0 1 0 0 0 0"/></actuator>
<sensor><framepos name="place" objtype="body" objname="box"/><gyro name="gyro" site="middle"/></sensor></mujoco>"""
CART = """<mujoco><option timestep="0.004"/><worldbody><body name="box"><joint name="x" type="slide" axis="1 0 0" damping="1"/>
<geom size="0.1" mass="{mass}"/></body></worldbody><actuator><motor name="f" joint="x"/></actuator>
<sensor><jointpos name="x" joint="x"/></sensor></mujoco>"""


def _fitted(text, width, noise):
    """The problem and its solution, from recorded positions."""
    model = mujoco.MjModel.from_xml_string(text.format(mass=1.7))
    time = 0.004 * np.arange(400)
    ctrl = 5.0 * np.stack([np.sin(5 * time + k) + 0.6 * np.sin(11 * time) for k in range(width)], axis=1)
    log = record(model, np.random.default_rng(0), [("a", ctrl)], flaws=Flaws(sensor_noise=noise))
    robot = load(mujoco.MjSpec.from_string(text.format(mass=1.5)))
    vector, channels = pack([parse("body/box/mass")], robot), match_channels(log, robot.mj)
    windows = cut(log.rollouts, channels, timestep=0.004, seconds=0.4)
    problem = WindowedIdentification(vector, windows, CPrediction(vector, windows))
    box = {"low": vector.low, "high": vector.high, "scale": vector.scale, "settings": Settings(iterations=8)}
    return problem, solve(problem, vector.initial, guess(windows, robot.mj), **box)


def test_a_chattering_body_is_in_doubt():
    problem, solution = _fitted(BOX, 2, {"place": 1e-3, "gyro": 0.01})
    text, doubt = rough(problem, solution)
    assert doubt
    assert "The motion jumps" in text
    assert "--starts 10" in text
    assert rise(problem, solution)[0] > 15
    assert not white(problem, solution)


def test_a_smooth_motion_rises_like_a_parabola():
    problem, solution = _fitted(CART, 1, {"x": 1e-3})
    times, change = rise(problem, solution)
    assert times == pytest.approx(1.0, abs=0.05)
    assert change.max() < 0.05
    assert rough(problem, solution) == ("", False)
    assert white(problem, solution)
