"""A cost that is no parabola within the intervals is told of: a box that chatters on a floor, beside a smooth motion."""

from types import SimpleNamespace

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


def _fitted(text, width, noise, *, mass=1.5, known=False):
    """The problem and its solution from this mass and recorded positions. known: the states of the log too."""
    model = mujoco.MjModel.from_xml_string(text.format(mass=1.7))
    time = 0.004 * np.arange(400)
    ctrl = 5.0 * np.stack([np.sin(5 * time + k) + 0.6 * np.sin(11 * time) for k in range(width)], axis=1)
    log = record(model, np.random.default_rng(0), [("a", ctrl)], flaws=Flaws(sensor_noise=noise), keep_state=known)
    robot = load(mujoco.MjSpec.from_string(text.format(mass=mass)))
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


def test_where_the_residuals_are_white_the_values_are_believed_and_the_intervals_are_not():
    """From the true states and mass the search stays at the true motion, on the same cost."""
    problem, solution = _fitted(BOX, 2, {"place": 1e-3, "gyro": 0.01}, mass=1.7, known=True)
    assert solution.z == pytest.approx(1.7, rel=1e-3)
    assert rise(problem, solution)[0] > 15
    assert white(problem, solution)
    text, doubt = rough(problem, solution)
    assert not doubt
    assert "The motion jumps" in text
    assert "The residuals are white, so the values are probably right, but the intervals are rough." in text
    assert "may be wrong" not in text


def _residuals(error):
    """What `white` looks at, of residuals (B, S, C) that are measured where they are finite."""
    measured = np.where(np.isfinite(error), 0.0, np.nan)
    problem = SimpleNamespace(windows=SimpleNamespace(measured=measured), error=lambda z, x: np.nan_to_num(error))
    return problem, SimpleNamespace(z=None, x=None)


def test_what_is_white_noise():
    noise = np.random.default_rng(0).normal(size=(4, 1000, 2)) * (1e-3, 5.0)
    assert white(*_residuals(noise))
    some = np.where(np.random.default_rng(1).random(noise.shape) < 0.3, np.nan, noise)
    assert white(*_residuals(some))
    # Windows that are off by a quarter of the noise: neighbours are alike by 0.07, and the residuals larger by 0.04.
    away = noise + np.array([1, -1, 1, -1])[:, None, None] * (0.0, 0.25 * 5.0)
    assert not white(*_residuals(away))
    # Samples that repeat each other with the other sign after two steps: neighbours are not alike, the scatter is too small.
    turned = noise.copy()
    turned[:, 2:, 0] -= 0.6 * noise[:, :-2, 0]
    assert not white(*_residuals(turned))
