"""Weights in words of costs of the motion, and the result on another robot."""

import mujoco
import numpy as np
import pytest

from dso_robotics.physics.model import load
from dso_robotics.robot.play import Player
from dso_robotics.studies.train import train
from dso_robotics.studies.train_build import build
from dso_robotics.studies.train_study import TrainStudy
from tests.studies.everything import CART

STUDY = """
model = "robot.xml"
seconds = 0.5
[policy]
kind = "linear"
noise = 0.2
[start]
position = { x = 0.5 }
velocity = { x = 1.0 }
[cost.place]
kind = "square"
quantity = "joint/x/position"
weight = 4.0
[cost.again]
kind = "square"
quantity = "joint/x/position"
weight = WEIGHT
[training]
environments = 4
horizon = 4
iterations = 2
critic_hidden = 4
[judge]
episodes = 2
values = { "joint/x/damping" = 3.0 }
"""


def study(folder, weight):
    (folder / "robot.xml").write_text(CART)
    (folder / "study.toml").write_text(STUDY.replace("WEIGHT", weight))
    return TrainStudy.read(folder / "study.toml")


def test_of_two_equal_costs_the_balanced_one_gets_the_weight_of_the_other(tmp_path):
    task = build(study(tmp_path, '"balance"'))
    assert dict(zip(task.scene_cost.names, task.scene_cost.weights, strict=True)) == {
        "place": 4.0,
        "again": pytest.approx(4.0, rel=1e-12),
    }


def test_the_judge_is_the_robot_of_the_table(tmp_path):
    found = train(study(tmp_path, "1.0"), tmp_path / "out")
    slow = load(mujoco.MjSpec.from_string(CART.replace('damping="0.1"', 'damping="3"'))).mj
    player = Player(found.task.chain)
    wanted = [player.play(found.theta, found.scaling, steps=10, seed=seed, model=slow).cost for seed in (1000, 1001)]
    np.testing.assert_allclose(found.summary["judge"]["cost"], wanted, rtol=1e-9)
    quick = player.play(found.theta, found.scaling, steps=10, seed=1000).cost
    assert abs(quick / wanted[0] - 1) > 0.01
    assert found.summary["judge"]["return"] == pytest.approx([10 - cost for cost in wanted])
