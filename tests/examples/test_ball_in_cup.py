"""The cup and its ball: the string, what the cost sees as caught, and a short training whose policy plays in plain MuJoCo."""

import mujoco
import numpy as np
import pytest

import dso_robotics as dso
from dso_robotics.costs.kinds.product import ProductCost
from dso_robotics.studies.train_study import TrainStudy
from tests.example_files import EXAMPLES

STUDY = EXAMPLES / "studies" / "ball_in_cup.toml"
LENGTH = 0.3


@pytest.fixture(scope="module")
def model():
    return mujoco.MjModel.from_xml_path(str(TrainStudy.read(STUDY).model))


def settled(model, *, ball_z):
    """At rest after 4 s without controls, the ball dropped from `ball_z` [m] above its first height."""
    data = mujoco.MjData(model)
    data.joint("ball_z").qpos[:] = ball_z
    for _ in range(round(4.0 / model.opt.timestep)):
        mujoco.mj_step(model, data)
    assert np.abs(data.qvel).max() < 1e-2
    return data


def test_the_ball_hangs_on_the_string(model):
    data = settled(model, ball_z=0.0)
    hook, ball = data.site("hook").xpos, data.site("ball").xpos
    assert hook[2] - ball[2] == pytest.approx(LENGTH, abs=2e-3)
    # The spring holds the cup and the ball.
    weight = 9.81 * (model.body("cup").mass[0] + model.body("ball").mass[0])
    assert data.joint("z").qpos[0] == pytest.approx(-weight / model.joint("z").stiffness[0], abs=1e-3)


def test_a_ball_from_above_lies_in_the_cup_and_the_cost_sees_it(model):
    data = settled(model, ball_z=0.5)
    place = data.body("ball").xpos - data.site("inside").xpos
    np.testing.assert_allclose(data.sensor("ball").data, place, atol=1e-3)
    # That of dm_control: the whole ball is within the box of the site.
    assert np.all(np.abs(place[[0, 2]]) < model.site("inside").size[[0, 2]] - model.geom("ball").size[0])
    caught = TrainStudy.read(STUDY).cost["caught"]
    assert isinstance(caught, ProductCost)
    for factor, k in zip(caught.factors, (0, 2), strict=True):
        assert factor.quantity == f"sensor/ball[{k}]"
        assert factor.low <= place[k] <= factor.high


def test_a_short_training_plays_in_plain_mujoco(model, tmp_path):
    small = {"environments": 4, "horizon": 4, "iterations": 3, "warmup": 16, "critic_hidden": 8, "critic_batch": 16}
    found = dso.train(STUDY, seconds=0.4, policy={"hidden": [8]}, training=small, out=tmp_path / "result")
    assert found.summary["environment_steps"] == 4 * 4 * 3
    assert np.isfinite(found.summary["cost"]["total"])
    policy, data = dso.Policy.load(tmp_path / "result"), mujoco.MjData(model)
    assert policy.period == 0.02
    mujoco.mj_forward(model, data)
    control = policy.act(data)
    assert control.shape == (2,)
    assert np.all(np.abs(control) < 1.0)
