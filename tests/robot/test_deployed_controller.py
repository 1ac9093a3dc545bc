"""The estimator and policy of a training at run time: the episode that the training plays, without JAX."""

import subprocess
import sys

import mujoco
import numpy as np
import pytest

from dso_robotics.errors import DsoError
from dso_robotics.robot.deployed_controller import Controller
from dso_robotics.robot.deployed_policy import Policy
from dso_robotics.robot.estimator import Estimator
from dso_robotics.robot.play import Player
from dso_robotics.studies.train import train
from dso_robotics.studies.train_study import TrainStudy
from tests.studies.everything import CART

STUDY = """
model = "robot.xml"
seconds = 0.5
free = ["body/cart/mass=1.3@0.2:5", "sensor/place/bias=0.1@-1:1"]
[flow]
sensor = ["rollouts"]
[sensors]
noise = { "*" = 0.05 }
[estimator]
corrector = "recurrent"
units = 2
model = "own"
[policy]
kind = "brain"
units = 3
noise = 0.2
delay = 0.1
observe = "estimate"
[start]
position = { x = 0.5 }
[cost.place]
kind = "square"
quantity = "joint/x/position"
[training]
environments = 4
horizon = 6
iterations = 3
learning_rate = 0.05
critic_hidden = 4
keep = "last"
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("controller")
    (folder / "robot.xml").write_text(CART)
    (folder / "study.toml").write_text(STUDY)
    return train(TrainStudy.read(folder / "study.toml"), folder / "out"), folder / "out"


def test_it_plays_the_episode_of_the_training(trained):
    found, folder = trained
    chain, steps = found.task.chain, 10
    noise = np.random.default_rng(3).normal(size=(steps, chain.noises))
    noise[:, : chain.mj.nu] = 0.0
    world = mujoco.MjModel.from_xml_path(str(folder / "model.xml"))
    played = Player(chain).play(found.theta, found.scaling, steps=steps, noise=noise, model=world)
    controller, data = Controller.load(folder), mujoco.MjData(world)
    # The estimator's own mass has moved from the world's.
    assert controller.estimator.model.body_mass[1] != pytest.approx(world.body_mass[1], rel=1e-6)
    data.qpos[:] = played.qpos[0]
    ctrl = controller.reset(qpos=played.estimate[0, :1], qvel=played.estimate[0, 1:])
    for t in range(steps):
        np.testing.assert_allclose(ctrl, played.ctrl[t], atol=1e-9)
        data.ctrl[:] = ctrl
        mujoco.mj_step(world, data)
        mujoco.mj_forward(world, data)
        reading = data.sensordata + [controller.estimator.learned.bias[0], 0.0] + 0.05 * noise[t, 1:]
        np.testing.assert_allclose(reading, played.readings[t + 1], atol=1e-9)
        ctrl = controller.update(reading)
        estimate = [*controller.estimate.qpos, *controller.estimate.qvel]
        np.testing.assert_allclose(estimate, played.estimate[t + 1], atol=1e-9)
    assert np.abs(played.ctrl[2:]).min() > 1e-6


def test_the_policy_alone_can_be_saved_and_loaded(trained, tmp_path):
    _, folder = trained
    policy = Policy.load(folder)
    saved = Policy.load(policy.save(tmp_path / "saved").parent)
    np.testing.assert_array_equal(saved.act(qpos=[0.3], qvel=[-0.1]), policy.act(qpos=[0.3], qvel=[-0.1]))
    assert saved.numbers.on_estimate


def test_what_is_no_controller_is_refused(trained, tmp_path):
    _, folder = trained
    with pytest.raises(DsoError, match="no trained policy"):
        Controller.load(tmp_path)
    with pytest.raises(DsoError, match=r"reset\(\)"):
        Controller(Estimator.load(folder), Policy.load(folder)).update([0.0, 0.0])


def test_it_runs_without_jax(trained):
    _, folder = trained
    code = (
        "import sys; from dso_robotics.robot.deployed_controller import Controller; "
        f"c = Controller.load({str(folder)!r}); c.reset(); c.update([0.1, 0.0]); assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
