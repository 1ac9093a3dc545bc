"""Starts on the floor whatever the design, against the exported model on C MuJoCo; and designs that cannot start at all."""

import dataclasses

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from dso_robotics.errors import DsoError
from dso_robotics.robot.schedule import training_method
from dso_robotics.studies.train import compiled
from dso_robotics.studies.train_build import build
from dso_robotics.studies.train_study import TrainStudy

LEG = """<mujoco model="leg">
  <option timestep="0.005" iterations="3" ls_iterations="4"/>
  <default><geom type="capsule" contype="0" conaffinity="0"/></default>
  <worldbody>
    <geom name="floor" type="plane" size="0 0 1" pos="0 0 0.2"/>
    <body name="hip" pos="0 0 1">
      <joint name="z" type="slide" axis="0 0 1"/>
      <geom name="hip" type="sphere" size="0.1"/>
      <body name="shin" simple="false">
        <joint name="swing" axis="0 1 0" damping="1"/>
        <geom name="shin" fromto="0 0 0 0 0 -0.6" size="0.04"/>
      </body>
      <!-- more -->
    </body>
  </worldbody>
  <contact><pair geom1="floor" geom2="shin" condim="1"/></contact>
  <actuator><motor name="swing" joint="swing" ctrllimited="true" ctrlrange="-1 1"/></actuator>
</mujoco>"""

ARM = """<body name="arm" pos="0.3 0 0"><joint name="slip" type="slide" axis="0 0 1"/>
  <geom name="arm" fromto="0 0 0 0 0 -0.2" size="0.05" contype="1" conaffinity="1"/></body>
<body name="pole" pos="0.5 0 0"><joint name="tilt"/>
  <geom name="pole" fromto="0 0 0 0 0 -0.2" size="0.05" contype="1" conaffinity="1"/></body>"""

STUDY = """
model = "leg.xml"
seconds = 0.1
[policy]
kind = "linear"
[start]
position = { z = -0.01, swing = 0.4 }
lift = "z"
[explore]
position = { z = [-0.02, 0.0], swing = [-1.0, 1.0] }
[cost.height]
kind = "hinge"
quantity = "body/hip/z"
target = 2.0
[design.reach]
kind = "length"
of = "shin"
low = 0.15
high = 1.05
[design.thick]
kind = "radius"
of = "shin"
low = 0.01
high = 0.07
[training]
environments = 4
horizon = 2
iterations = 2
critic_hidden = 4
"""


def study(folder, old="", new="", leg=LEG):
    (folder / "leg.xml").write_text(leg)
    assert old in STUDY
    (folder / "study.toml").write_text(STUDY.replace(old, new, 1))
    return TrainStudy.read(folder / "study.toml")


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return build(study(tmp_path_factory.mktemp("leg")))


def test_the_lowest_geom_is_as_high_as_the_joint_says_at_every_design(task):
    chain = task.chain
    place = jax.jit(lambda state, theta: chain.placed(state, theta))
    for seed in range(6):
        theta = chain.layout.initial + np.random.default_rng(seed).standard_normal(chain.layout.size)
        drawn = task.explore(jax.random.key(seed))
        model = compiled(task, theta)
        data = mujoco.MjData(model)
        data.qpos[:] = place(drawn, jnp.asarray(theta)).body.qpos
        mujoco.mj_forward(model, data)
        floor = [contact.dist for contact in data.contact if contact.geom[0] == 0]
        assert min(floor) == pytest.approx(float(drawn.body.qpos[0]), abs=1e-9)


def test_only_new_windows_are_put_on_the_floor_and_with_a_derivative_by_the_design(task):
    study = task.study
    task = build(dataclasses.replace(study, engine="mjx"))
    chain, theta = task.chain, jnp.asarray(task.chain.layout.initial)
    method, state = training_method(chain, task.windows, explore=task.explore), chain.start(jax.random.key(0))
    way = jnp.asarray(np.random.default_rng(0).standard_normal(chain.layout.size))

    def height(new, at):
        return method.course.placed(chain, state, new, at).body.qpos[0]

    moved = jax.jit(lambda new: jax.jvp(lambda at: height(new, at), (theta,), (way,)))

    def closed(at):
        """The shin's lower end is length cos(0.4) + radius below the hip, which is 0.8 m above the floor at z = 0."""
        return -0.01 - 0.8 + chain.numbers(at) @ jnp.array([np.cos(0.4), 1.0])

    for found, wanted in zip(moved(True), jax.jvp(closed, (theta,), (way,)), strict=True):
        assert found == pytest.approx(float(wanted), abs=1e-12)
    assert moved(False) == (-0.01, 0.0)


THICK = '[design.wide]\nkind = "radius"\nof = "arm"\nlow = 0.01\nhigh = 0.18\n[training]'


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('lift = "z"', 'lift = "swing"', "no slide or free joint called 'swing'; the model has 'z', 'slip'"),
        ('lift = "z"', 'lift = "slip"', "does not raise the robot straight"),
        ('lift = "z"', "", "body/shin/length at its upper bound, 1.05 m, .*'floor' of 'world'.*lift"),
        ("[training]", THICK, "body/arm/radius at its upper bound, 0.18 m, .*'arm' of 'arm' and 'pole' of 'pole'"),
    ],
)
def test_refused_before_anything_compiles(tmp_path, monkeypatch, old, new, told):
    monkeypatch.setattr("jax.jit", lambda *a, **k: pytest.fail("compiled"))
    with pytest.raises(DsoError, match=told):
        build(study(tmp_path, old, new, LEG.replace("<!-- more -->", ARM)))
