"""The ready robots: the gradient of each study, along some steps from its start, is that of differences of C MuJoCo."""

import pytest

from dso_robotics.studies.gradient_check import check_gradients
from dso_robotics.studies.train_build import build
from dso_robotics.studies.train_study import TrainStudy
from tests.example_files import EXAMPLES

ROBOTS = ["pendulum_swing_up", "quadrotor_hover", "arm7_reach", "ball_in_cup", "tendon_finger"]


@pytest.mark.parametrize("name", ROBOTS)
def test_the_gradient_of_a_robot_is_that_of_c(name):
    study = TrainStudy.read(EXAMPLES / "studies" / f"{name}.toml")
    for block in check_gradients(build(study), steps=4, seed=1):
        assert block.error < 1e-5, block
