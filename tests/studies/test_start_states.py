"""Start states that a search has missed are found from where the window before ends, and activations stay possible."""

import mujoco
import numpy as np
import pytest

from dso_robotics.core.covariance import student95
from dso_robotics.costs.identification import WindowedIdentification
from dso_robotics.data.log import Log
from dso_robotics.data.match import match_channels
from dso_robotics.data.rollout import Rollout
from dso_robotics.data.windows import cut
from dso_robotics.parameters.path import parse
from dso_robotics.parameters.vector import pack
from dso_robotics.physics.model import load
from dso_robotics.physics.state import activation_range
from dso_robotics.robot.prediction import CPrediction
from dso_robotics.studies.start_states import missed
from tests.pendulum import PENDULUM, TRUTH

# The height of the tip is the same on either side of the rest position.
HEIGHT = (
    PENDULUM.format(**TRUTH)
    .replace(
        '<jointpos name="angle" joint="hinge"/><jointvel name="speed" joint="hinge"/>',
        '<framepos name="tip" objtype="xbody" objname="tip"/>',
    )
    .replace("</body>", '<body name="tip" pos="0 0 -0.6"/></body>', 1)
)


@pytest.fixture(scope="module")
def problem():
    """One run, its true states at the starts of windows of half a second, and the problem that sees the height alone."""
    model, rng = mujoco.MjModel.from_xml_string(HEIGHT), np.random.default_rng(0)
    data, rows, states = mujoco.MjData(model), [], []
    data.qpos[:] = 1.0
    ctrl = np.repeat(rng.normal(size=(15, 1)), 20, axis=0)
    for u in ctrl:
        data.ctrl[:] = u
        mujoco.mj_forward(model, data)
        rows.append(data.sensordata.copy())
        states.append(np.r_[data.qpos, data.qvel])
        mujoco.mj_step(model, data)
    measured = np.array(rows) + 1e-3 * rng.normal(size=(300, 3))
    measured[:, :2] = np.nan
    rollout = Rollout(
        name="a",
        time=np.arange(300) * 0.01,
        ctrl=ctrl,
        ctrl_names=("motor",),
        ctrl_units=("N*m",),
        sensordata=measured,
        sensor_names=tuple(f"tip[{i}]" for i in range(3)),
        sensor_units=("m",) * 3,
    )
    robot = load(mujoco.MjSpec.from_string(HEIGHT))
    channels = match_channels(Log("", "", "", (rollout,)), robot.mj)
    windows = cut([rollout], channels, timestep=0.01, seconds=0.5)
    vector = pack([parse("joint/hinge/damping")], robot, ["a"])
    sigma = np.full((1, 3), 1e-3)
    found = WindowedIdentification(vector, windows, CPrediction(vector, windows), sigma=sigma, learn_noise=False)
    return found, np.array(states)[windows.sample[:, 0]]


def test_a_window_on_the_wrong_side_is_put_right(problem):
    found, truth = problem
    wrong = np.array(truth)
    # Mirrored at rest position: the same heights at the start, another motion under the same controls.
    wrong[2] *= -1
    better = missed(found, found.vector.initial, wrong, wrong)
    assert better is not None
    np.testing.assert_allclose(better[2], truth[2], atol=0.05)
    np.testing.assert_array_equal(better[[0, 1, 4, 5]], wrong[[0, 1, 4, 5]])


def test_right_start_states_are_left(problem):
    found, truth = problem
    assert missed(found, found.vector.initial, truth, truth) is None


def test_part_of_a_problem_has_the_residuals_of_its_windows(problem):
    found, truth = problem
    keep = np.array([False, True, False, True, True, False])
    part = found.part(keep, CPrediction(found.vector, found.windows.only(keep)))
    z = found.vector.initial
    np.testing.assert_allclose(part.residual(z, truth[keep]), found.residual(z, truth)[keep], atol=1e-12)


MUSCLES = """
<mujoco><worldbody><body><joint name="a" axis="0 1 0"/><geom size="0.1"/></body></worldbody>
<actuator>
  <general joint="a" dyntype="filter" dynprm="0.1"/>
  <general joint="a" dyntype="integrator" actlimited="true" actrange="-2 3"/>
  <muscle joint="a" lengthrange="0 1"/>
  <motor joint="a"/>
</actuator></mujoco>
"""


def test_activations_stay_in_what_an_actuator_can_reach():
    model = mujoco.MjModel.from_xml_string(MUSCLES)
    low, high = activation_range(model)
    np.testing.assert_array_equal(low, [-np.inf, -2, 0])
    np.testing.assert_array_equal(high, [np.inf, 3, 1])


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(3, 3.18245), (5, 2.57058), (11, 2.20099), (30, 2.04227), (1000, 1.96234)]
)
def test_the_quantile_of_student(freedom, quantile):
    assert student95(freedom) == pytest.approx(quantile, rel=2e-3)
