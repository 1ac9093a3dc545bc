"""A policy in a loop with a simulated robot: the episode that the training judged, other robots by name, logs."""

import json
import subprocess
import sys

import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from dso_robotics.data.record import Flaws
from dso_robotics.data.run_file import write_run
from dso_robotics.errors import DsoError
from dso_robotics.physics.model import load
from dso_robotics.robot.episode_starts import GROUP
from dso_robotics.robot.observation import Scaling
from dso_robotics.robot.play import Player
from dso_robotics.robot.policy_log import given_starts, record_policy
from dso_robotics.robot.policy_loop import PolicyLoop
from dso_robotics.studies.drawn_starts import drawn_starts
from dso_robotics.studies.train import _mjcf
from dso_robotics.studies.train_build import build
from dso_robotics.studies.train_study import TrainStudy
from dso_robotics.studies.trained_robot import learned_filter

ROBOT = """<mujoco model="arm">
  <option timestep="0.01"><flag contact="disable"/></option>
  <worldbody><body name="upper">
    <joint name="shoulder" axis="0 1 0" damping="0.3"/>
    <geom type="capsule" fromto="0 0 0 0.4 0 0" size="0.03" mass="0.6"/>
    <body name="lower" pos="0.4 0 0">
      <joint name="elbow" axis="0 1 0" damping="0.1" range="-2 2" limited="true"/>
      <geom type="capsule" fromto="0 0 0 0.3 0 0" size="0.03" mass="0.3"/><site name="tip" pos="0.3 0 0"/>
    </body></body></worldbody>
  <actuator><motor name="one" joint="shoulder" ctrlrange="-2 1"/><motor name="two" joint="elbow" ctrlrange="-1 1"/></actuator>
  <sensor><jointpos name="q1" joint="shoulder"/><accelerometer name="acc" site="tip"/>
    <jointpos name="q2" joint="elbow"/></sensor>
  <keyframe><key name="bent" qpos="0.1 1.2" qvel="0.2 0"/></keyframe>
</mujoco>"""
STUDY = """
model = "robot.xml"
seconds = 0.4
control_step = 0.02
{more}
[start]
position = {{ shoulder = 0.3 }}
spread = 0.2
[cost.place]
kind = "square"
quantity = "joint/elbow/position"
[training]
environments = 4
horizon = 3
iterations = 2
critic_hidden = 4
keep = "last"
learning_rate = 0.2
"""
STATE = """
[policy]
kind = "gated"
units = 3
delay = 0.04
[task.goal]
low = -1.0
high = 1.0
"""
ESTIMATE = """
free = ["sensor/q1/bias=0.1@-1:1", "sensor/q2/delay=0.03@0:0.1"]
[flow]
sensor = ["rollouts"]
[sensors]
channels = ["q1", "q2"]
noise = { "*" = 0.05 }
[estimator]
[policy]
kind = "linear"
observe = "estimate"
"""
SENSORS = """
[policy]
kind = "linear"
observe = ["q2", "acc"]
"""


@pytest.fixture(scope="module", params=[STATE, ESTIMATE, SENSORS], ids=["state", "estimate", "sensors"])
def trained(request, tmp_path_factory):
    """The task, theta and scaling, and the folder of a training that ended at random numbers; its player."""
    folder = tmp_path_factory.mktemp("loop")
    (folder / "robot.xml").write_text(ROBOT)
    (folder / "study.toml").write_text(STUDY.format(more=request.param))
    study = TrainStudy.read(folder / "study.toml")
    task, rng = build(study), np.random.default_rng(3)
    chain, player = task.chain, Player(task.chain)
    names = [block.name for block in chain.layout.free]
    parts = {k: np.asarray(v) for k, v in chain.layout.split(np.asarray(chain.layout.initial)).items()}
    parts["policy"] = 0.5 * rng.normal(size=parts["policy"].shape)
    theta = np.concatenate([parts[name].ravel() for name in names])
    size = chain.scaling.mean.shape[0]
    scaling = Scaling(jnp.asarray(rng.normal(size=size)), jnp.asarray(rng.uniform(0.5, 2.0, size)), jnp.asarray(1.0))
    tree = {
        "status": "finished",
        "theta": parts,
        "scaling": {"mean": np.asarray(scaling.mean), "spread": np.asarray(scaling.spread)},
        GROUP: drawn_starts(player, theta, seconds=study.seconds).as_dict(),
    }
    if chain.filter is not None:
        tree["estimator"] = learned_filter(chain, theta).as_dict()
    (folder / "model.xml").write_text(_mjcf(task, theta))
    write_run(folder / "run.h5", tree, json.loads(json.dumps(study.as_dict())), "")
    return task, theta, scaling, player, folder


def test_the_episode_is_the_one_of_the_training(trained):
    task, theta, scaling, player, folder = trained
    loop = PolicyLoop(folder)
    noise = np.zeros((task.steps, task.chain.noises))
    for seed in (0, 3):
        played = player.play(theta, scaling, steps=task.steps, seed=seed, noise=noise)
        log = record_policy(loop, first=seed, keep_state=True)
        (rollout,) = log.rollouts
        np.testing.assert_allclose(rollout.qpos, played.qpos[:-1], atol=1e-9)
        np.testing.assert_allclose(rollout.qvel, played.qvel[:-1], atol=1e-8)
        np.testing.assert_allclose(rollout.ctrl, played.ctrl, atol=1e-9)
        assert np.abs(np.diff(rollout.ctrl, axis=0)).max() > 1e-3
    assert np.abs(played.qpos[0] - [0.3, 0.0]).max() > 0.02, "the start is drawn"


def test_it_reads_what_the_sensors_show(trained):
    """Noise of a sensor that it reads changes what it does; noise of others does not."""
    task, *_, folder = trained
    plain = record_policy(PolicyLoop(folder), seconds=0.2).rollouts[0]
    loop = PolicyLoop(folder, flaws=Flaws(sensor_noise={"q2": 0.3}))
    noisy = record_policy(loop, seconds=0.2).rollouts[0]
    reads = "q2" in loop.policy.sees or loop.controller is not None
    assert (np.abs(plain.ctrl - noisy.ctrl).max() > 1e-6) == reads
    unheard = record_policy(
        PolicyLoop(folder, flaws=Flaws(sensor_noise={"acc[1]": 0.0}, delay=0)), seconds=0.2
    ).rollouts[0]
    np.testing.assert_array_equal(plain.ctrl, unheard.ctrl)
    assert noisy.sensor_names == ("q1", "acc[0]", "acc[1]", "acc[2]", "q2")
    # In the log, sensors read the state of the same row: q1 with the bias of the training's sensors, if it found one.
    state = record_policy(PolicyLoop(folder), seconds=0.2, keep_state=True).rollouts[0]
    bias = 0.0 if task.chain.sensing is None else float(loop.starts.bias[0])
    np.testing.assert_allclose(state.sensordata[:, 0], state.qpos[:, 0] + bias, atol=1e-12)
    assert (bias != 0.0) == (loop.controller is not None)


def test_another_robot_is_matched_by_name(trained, tmp_path):
    *_, folder = trained
    pair = (
        '<motor name="one" joint="shoulder" ctrlrange="-2 1"/>',
        '<motor name="two" joint="elbow" ctrlrange="-1 1"/>',
    )
    other = ROBOT.replace("".join(pair), "".join(reversed(pair)))
    assert other != ROBOT
    (tmp_path / "other.xml").write_text(other)
    start = given_starts(load(tmp_path / "other.xml").mj, {"elbow": 0.4}, "bent", rollouts=1, seed=0)
    np.testing.assert_allclose(np.concatenate(start[0]), [0.1, 0.4, 0.2, 0.0])
    more = {"seconds": 0.2, "starts": start, "keep_state": True}
    flat = load(folder / "model.xml")
    one = record_policy(PolicyLoop(folder, flat), **more).rollouts[0]
    two = record_policy(PolicyLoop(folder, load(tmp_path / "other.xml")), **more).rollouts[0]
    assert two.ctrl_names == ("two", "one")
    np.testing.assert_allclose(two.ctrl[:, ::-1], one.ctrl, atol=1e-12)
    np.testing.assert_allclose(two.qpos, one.qpos, atol=1e-12)
    heavier = load(mujoco.MjSpec.from_string(ROBOT.replace('mass="0.3"', 'mass="0.9"')))
    changed = record_policy(PolicyLoop(folder, heavier), **more).rollouts[0]
    assert np.abs(changed.qpos - one.qpos).max() > 1e-4


def test_a_robot_that_does_not_fit_is_refused(trained):
    *_, folder = trained

    def robot(old, new):
        assert old in ROBOT
        return load(mujoco.MjSpec.from_string(ROBOT.replace(old, new)))

    with pytest.raises(DsoError, match=r"drives the actuator 'two', which this robot does not have; it has one, 2"):
        PolicyLoop(folder, robot('name="two"', 'name="2"'))
    with pytest.raises(DsoError, match=r"no whole number of this robot's time steps of 0\.015"):
        PolicyLoop(folder, robot('timestep="0.01"', 'timestep="0.015"'))
    loop = PolicyLoop(folder)
    if loop.controller is not None or loop.policy.sees_sensors:
        with pytest.raises(DsoError, match="sensor channel 'q2', which this robot does not have"):
            PolicyLoop(folder, robot('name="q2"', 'name="r2"'))
    else:
        with pytest.raises(DsoError, match=r"other joints.*hip \(hinge\), elbow"):
            PolicyLoop(folder, robot('"shoulder"', '"hip"'))
    with pytest.raises(DsoError, match="no start number 100; the training stored 100"):
        loop.reset(start=100)
    with pytest.raises(DsoError, match="no joint 'knee'"):
        given_starts(loop.model, {"knee": 1.0}, rollouts=1, seed=0)
    with pytest.raises(DsoError, match="no keyframe 'home'; the model has 'bent'"):
        given_starts(loop.model, {}, "home", rollouts=1, seed=0)
    with pytest.raises(DsoError, match=r"qpos has shape \(3,\)"):
        loop.reset([0.0, 0.0, 0.0])


def test_it_runs_without_jax(trained):
    *_, folder = trained
    code = (
        "import sys; from dso_robotics.robot.policy_loop import PolicyLoop; "
        "from dso_robotics.robot.policy_log import record_policy; "
        f"record_policy(PolicyLoop({str(folder)!r}), seconds=0.1); assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
