"""Differences of simulations with contacts: what a contact made one step later does to them."""

import mujoco
import numpy as np
import pytest

from dso_robotics.data.log import Log
from dso_robotics.data.match import match_channels
from dso_robotics.data.rollout import Rollout
from dso_robotics.data.windows import cut
from dso_robotics.parameters.path import parse
from dso_robotics.parameters.vector import pack
from dso_robotics.physics.model import load
from dso_robotics.robot.prediction import CPrediction

# A ball falls from 0.1 m: the moment of its landing falls between time steps.
BALL = """
<mujoco>
  <option timestep="0.002"/>
  <worldbody>
    <geom type="plane" size="1 1 0.1"/>
    <body pos="0 0 0.15">
      <joint name="fall" type="slide" axis="0 0 1" damping="0.1"/>
      <geom type="sphere" size="0.05" mass="1"/>
    </body>
  </worldbody>
  <sensor><jointpos name="height" joint="fall"/></sensor>
</mujoco>"""


@pytest.fixture
def falling(tmp_path):
    """Prediction of one window of 0.3 s in which the ball lands."""
    path = tmp_path / "ball.xml"
    path.write_text(BALL)
    robot = load(path)
    times = 0.002 * np.arange(150)
    empty = np.zeros((150, 1))
    log = Log("", "", "", (Rollout(name="a", time=times, sensordata=empty, sensor_names=("height",)),))
    vector = pack([parse("joint/fall/damping=0.1@0:1")], robot, ["a"])
    windows = cut(log.rollouts, match_channels(log, robot.mj), timestep=0.002, seconds=0.298)
    return CPrediction(vector, windows)


def heights(z, state):
    """The ball's height by plain MuJoCo."""
    model = mujoco.MjModel.from_xml_string(BALL)
    model.dof_damping[0] = z
    data = mujoco.MjData(model)
    data.qpos[0], data.qvel[0] = state
    found = []
    for _ in range(150):
        mujoco.mj_step(model, data)  # sensors are evaluated before the state moves
        found.append(data.sensordata[0])
    return np.array(found)


def test_a_landing_between_two_time_steps_gives_no_certainty(falling):
    # The start at which the contact begins a step earlier, by bisection: a jump of the later heights.
    low, high = 0.0, 0.004

    def landing(start):
        path = heights(0.1, (start, 0.0))
        return int(np.argmax(path < -0.1))

    first = landing(low)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if landing(middle) == first else (low, middle)
    edge = low - 2e-8  # the longer side of a difference crosses the jump, the other does not
    jump = np.abs(heights(0.1, (edge + 1e-7, 0)) - heights(0.1, (edge, 0))).max() / 1e-7
    _, _, by_start = falling.linearize(np.array([0.1]), np.array([[edge, 0.0]]))
    below = (heights(0.1, (edge, 0)) - heights(0.1, (edge - 1e-7, 0))) / 1e-7
    assert jump > 100 * np.abs(below).max()
    np.testing.assert_allclose(by_start[0, :, 0, 0], below[:149], atol=0.02 * np.abs(below).max())


def test_windows_without_contact_take_one_sided_differences_only(falling):
    steps = falling.windows.ctrl.shape[1]
    falling.linearize(np.array([0.1]), np.array([[1.0, 0.0]]))  # too high to land
    assert falling.steps == steps * 4
    falling.linearize(np.array([0.1]), np.array([[0.0, 0.0]]))
    assert falling.steps == steps * 4 + 2 * steps * 4
