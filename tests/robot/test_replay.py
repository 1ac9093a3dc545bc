"""The C engine of chains: the same costs as MJX, and derivatives equal to differences of C MuJoCo, for any model."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from dso_robotics.core.method.settings import SMOOTHED
from dso_robotics.core.rollout import Ending
from dso_robotics.errors import DsoError
from dso_robotics.physics.model import load
from dso_robotics.robot.schedule import training_method
from dso_robotics.studies.gradient_check import check_gradients
from dso_robotics.studies.train import train
from dso_robotics.studies.train_build import build
from dso_robotics.studies.train_engine import choose_engine
from dso_robotics.studies.train_study import TrainStudy
from tests.linkages import four_bar
from tests.studies.train_robots import write

COUNT, STEPS = 3, 5

# A floating body with an arm on a ball joint, a filtered thruster and a muscle; a cylinder over a box, which MJX refuses.
FLOATER = """<mujoco><option timestep="0.004" integrator="implicitfast" tolerance="1e-12"/>
  <worldbody><geom name="floor" type="box" size="3 3 0.1" pos="0 0 -0.1"/>
    <body name="base" pos="0 0 {height}"><freejoint name="root"/>
      <geom name="hull" size="0.1" mass="1"/>
      <geom name="cap" type="cylinder" size="0.05 0.01" pos="0 0 0.2" mass="0.1"/><site name="push" pos="0.05 0.02 0"/>
      <body name="arm" pos="0.1 0 0.1" quat="0.9 0.1 0.3 0.2"><joint name="ball" type="ball" damping="0.05"/>
        <geom name="rod" type="capsule" fromto="0 0 0 0.2 0.1 0.1" size="0.02" mass="0.2" contype="0" conaffinity="0"/>
        <body name="hand" pos="0.2 0.1 0.1"><joint name="wrist" axis="0 1 0" damping="0.02" limited="true" range="-2 2"/>
          <geom name="palm" type="box" size="0.03 0.02 0.05" pos="0.05 0 0" mass="0.1" contype="0" conaffinity="0"/>
          <site name="tip" pos="0.1 0 0"/>
        </body></body></body></worldbody>
  <actuator><general name="thruster" site="push" gear="0 0 8 0 0 0" dyntype="filter" dynprm="0.03" ctrlrange="-1 1"/>
    <motor name="torque" site="push" gear="0 0 0 0.1 0.2 0" ctrlrange="-1 1"/>
    <muscle name="muscle" joint="wrist" lengthrange="-2 2" force="0.5"/></actuator>
  <sensor><accelerometer name="acc" site="push"/><gyro name="gyro" site="push"/></sensor></mujoco>"""

STUDY = """
model = "floater.xml"
seconds = 0.08
control_step = 0.008
free = ["body/hand/mass", "actuator/thruster/gear", "body/arm/com", "joint/wrist/damping"]
[policy]
hidden = [5]
noise = 0.2
learn_noise = true
delay = 0.008
observe = ["acc", "gyro"]
[start]
spread = 0.2
velocity = { wrist = 1.0 }
[cost.rise]
kind = "square"
quantity = "body/base/z"
target = 0.7
[cost.speed]
kind = "square"
quantity = "body/hand/vx"
target = 0.3
[cost.tip]
kind = "square"
quantity = "site/tip/y"
[cost.up]
kind = "square"
quantity = "body/base/upright"
target = 1.2
[cost.felt]
kind = "square"
quantity = "sensor/acc"
scale = 10.0
[flow]
physics = ["rollouts"]
[training]
environments = 4
horizon = 5
iterations = 2
critic_hidden = 8
"""


def floater(folder, height=0.6, text=STUDY):
    (folder / "floater.xml").write_text(FLOATER.replace("{height}", str(height)))
    return floater_as_it_is(folder, text)


def floater_as_it_is(folder, text):
    """The study with the floater that is in the folder."""
    (folder / "study.toml").write_text(text)
    return TrainStudy.read(folder / "study.toml")


class Windows:
    """Windows of a study on C from fixed starts with fixed noise, their cost and its derivative as functions of theta."""

    def __init__(self, study):
        small = dataclasses.replace(study.training, environments=COUNT, horizon=STEPS, groups=1)
        self.task = build(dataclasses.replace(study, training=small))
        self.chain = self.task.chain
        self.method = training_method(self.task.chain, self.task.windows, explore=self.task.explore)
        learner = self.method.init(jax.random.key(0), jnp.asarray(self.chain.layout.initial))
        self.learner = eqx.tree_at(lambda here: here.age, learner, jnp.zeros_like(learner.age))
        self.noise = np.random.default_rng(0).standard_normal((COUNT, STEPS, self.chain.noises))
        self.value = self.method._value(self.learner.slow, self.learner, self.learner.theta)
        self._gradients = eqx.filter_jit(
            lambda learner, record: self.method._gradients(learner, learner.key, jnp.zeros(()), record)
        )

    def record(self, theta):
        new = np.ones(COUNT, bool)
        more = self.chain.noise_scale(theta)
        record = self.method.course.windows.record
        return record(theta, self.learner.memory, self.learner.states, new, self.noise, more, centred=True)

    def __call__(self, theta):
        """The mean cost of the windows with the critic at their ends, its gradient (n,), and the paths."""
        theta = jnp.asarray(theta)
        learner = eqx.tree_at(lambda here: here.theta, self.learner, theta)
        slope, paths = self._gradients(learner, self.record(theta))
        last = jax.tree.map(lambda leaf: leaf[:, -1], paths.states)
        gamma = self.task.windows.gamma
        closing = gamma**STEPS * jax.vmap(self.value)(last)
        return float(jnp.mean(paths.costs @ gamma ** jnp.arange(STEPS + 1) + closing)), np.asarray(slope)[0], paths


def compared(windows, theta, block):
    """Derivatives along a random direction of a block: by replay, and by differences of C."""
    part, row = windows.chain.layout.where(block), np.zeros(len(theta))
    # The critic closes windows with the cost of their last state, whose own theta stays.
    windows.value = windows.method._value(windows.learner.slow, windows.learner, jnp.asarray(theta))
    row[part] = np.random.default_rng(3).standard_normal(part.stop - part.start)
    row /= np.linalg.norm(row)
    first, second = ((windows(theta + h * row)[0] - windows(theta - h * row)[0]) / (2 * h) for h in (1e-4, 2e-4))
    return float(windows(theta)[1] @ row), (4 * first - second) / 3


def test_every_block_of_a_floating_robot(tmp_path):
    """Free and ball joints, activations, a delay, forces that are observed: each block against differences of C."""
    windows = Windows(floater(tmp_path))
    layout = windows.chain.layout
    theta = layout.initial + 0.1 * np.random.default_rng(1).standard_normal(layout.size)
    for block in ("policy", "action noise", "physics"):
        by_replay, by_c = compared(windows, theta, block)
        assert by_replay == pytest.approx(by_c, rel=1e-6), block
    assert windows(theta)[2].ending.tolist() == [Ending.TIME] * COUNT


def test_a_body_that_rests_on_another(tmp_path):
    """A contact, in a model with a pair of shapes that MJX does not have."""
    text = STUDY.replace('observe = ["acc", "gyro"]', "").replace("spread = 0.2", "spread = 0.001")
    study = floater(tmp_path, height=0.0995, text=text)
    windows = Windows(study)
    theta = windows.chain.layout.initial
    by_replay, by_c = compared(windows, theta, "policy")
    assert by_replay == pytest.approx(by_c, rel=1e-5)
    with pytest.raises(DsoError, match="MJX"):
        build(dataclasses.replace(study, engine="mjx"))


def test_forces_speeds_and_powers_of_actuators(tmp_path):
    """Costs of what an actuator does, whose sensors depend on the control that led to a state."""
    more = "".join(
        f'[cost.{name}]\nkind = "square"\nquantity = "actuator/{name}/{field}"\ntarget = 0.3\n'
        for name, field in (("thruster", "force"), ("muscle", "power"), ("torque", "speed"))
    )
    windows = Windows(floater(tmp_path, text=STUDY.replace("[cost.tip]", f"{more}[cost.tip]")))
    for block in ("policy", "physics"):
        by_replay, by_c = compared(windows, windows.chain.layout.initial, block)
        assert by_replay == pytest.approx(by_c, rel=1e-6), block


def test_the_same_costs_and_gradient_as_mjx(tmp_path):
    more = 'free = ["actuator/push/gear=3@1:9"]\n[randomise]\n"joint/x/damping" = [0.05, 2.0]\n[flow]\nphysics = ["rollouts"]'
    text = write(tmp_path, more=more).read_text().replace('kind = "linear"', 'kind = "linear"\ndelay = 0.1')
    text = text.replace("[cost.effort]", '[cost.nose]\nkind = "square"\nquantity = "site/nose/x"\n[cost.effort]')
    (tmp_path / "study.toml").write_text(text)
    study = TrainStudy.read(tmp_path / "study.toml")
    windows = Windows(dataclasses.replace(study, engine="mujoco"))
    theta = jnp.asarray(windows.chain.layout.initial) + 0.3
    total, slope, _ = windows(theta)
    chain = build(dataclasses.replace(study, engine="mjx")).chain
    chain = eqx.tree_at(lambda c: c.scaling, chain, windows.learner.memory)
    starts = eqx.tree_at(lambda s: s.shown, windows.learner.states, None)
    gamma = windows.task.windows.gamma ** np.arange(STEPS)
    value = windows.value

    @jax.jit
    def mean(theta):
        def loss(state, noise):
            bound = chain.bind(theta, state)
            here, sums = state, 0.0
            for t in range(STEPS):
                sums = sums + gamma[t] * bound.cost(here, theta)
                here = bound.move(noise[t], here, theta)
            seen = eqx.tree_at(
                lambda s: s.shown, here, jnp.zeros(windows.chain.watch.size), is_leaf=lambda x: x is None
            )
            closing = bound.cost(here, theta) + value.rest(seen)
            return sums + gamma[-1] * windows.task.windows.gamma * closing

        return jnp.mean(jax.vmap(loss)(starts, jnp.asarray(windows.noise)))

    wanted, gradient = jax.value_and_grad(mean)(theta)
    assert total == pytest.approx(float(wanted), rel=1e-12)
    np.testing.assert_allclose(slope, gradient, rtol=1e-6, atol=1e-8 * np.abs(gradient).max())


def test_what_diverges_is_left_out(tmp_path):
    study = floater(tmp_path)
    windows = Windows(study)
    fast = windows.learner.states.body.qvel.at[0].set(1e12)
    windows.learner = eqx.tree_at(lambda here: here.states.body.qvel, windows.learner, fast)
    _, slope, paths = windows(windows.chain.layout.initial)
    assert paths.ending.tolist() == [Ending.DIVERGED, Ending.TIME, Ending.TIME]
    assert np.isfinite(slope).all()


def test_the_engine_is_chosen_with_a_reason(tmp_path):
    path = write(tmp_path)
    assert build(TrainStudy.read(path)).engine.name == "mujoco"
    path.write_text(path.read_text() + 'method = "score"\n')
    study = TrainStudy.read(path)
    chosen = build(study).engine
    assert (chosen.name, chosen.reason) == ("mjx", "the cost of method = 'score' is only on MJX")
    with pytest.raises(DsoError, match=r"score.*auto"):
        build(dataclasses.replace(study, engine="mujoco"))


def test_long_trainings_of_large_robots_with_runge_kutta_take_mjx(tmp_path):
    study = TrainStudy.read(write(tmp_path))
    long = dataclasses.replace(study, training=dataclasses.replace(study.training, iterations=10_000))

    def chosen(study, integrator, joints):
        link = '<body pos="0 0 0.1"><joint/><geom size="0.02" mass="0.1"/>'
        text = f'<mujoco><option integrator="{integrator}"/><worldbody>{link * joints}{"</body>" * joints}</worldbody></mujoco>'
        return choose_engine(study, load(mujoco.MjSpec.from_string(text))).name

    assert chosen(long, "RK4", 9) == "mjx"
    assert (chosen(long, "Euler", 9), chosen(long, "RK4", 8), chosen(study, "RK4", 9)) == ("mujoco",) * 3
    # Windows that are played and not differentiated cost C no more than their steps.
    played = dataclasses.replace(long, training=dataclasses.replace(long.training, method="sac"))
    assert chosen(played, "RK4", 9) == "mujoco"


def test_softened_contacts_are_those_of_a_softer_model(tmp_path):
    """At the start of the schedule, half-way through it, and after it."""
    text = STUDY.replace('observe = ["acc", "gyro"]', "").replace("spread = 0.2", "spread = 0.001")
    made = floater(tmp_path, height=0.0995, text=text.replace("[training]", "[training]\nsoften = 4.0"))
    soft = Windows(made)
    assert soft.task.engine.name == "mujoco"
    theta, noise = jnp.asarray(soft.chain.layout.initial), soft.noise
    new, states = np.ones(COUNT, bool), soft.learner.states
    course, memory = soft.method.course, soft.learner.memory
    xml = (tmp_path / "floater.xml").read_text()
    for progress, constant in ((0.0, 0.08), (0.5 * SMOOTHED, 0.04), (1.0, 0.02)):
        found = course.record(theta, memory, states, new, noise, progress)
        (tmp_path / "floater.xml").write_text(xml.replace("<geom ", f'<geom solref="{constant} 1" '))
        plain = Windows(floater_as_it_is(tmp_path, text))
        wanted = plain.method.course.record(theta, memory, states, new, noise, progress)
        np.testing.assert_allclose(found.moves.body.qvel, wanted.moves.body.qvel, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(found.moves.by_state, wanted.moves.by_state, rtol=1e-6, atol=1e-6)


def test_a_training_on_c(tmp_path):
    found = train(floater(tmp_path), tmp_path / "out")
    assert found.summary["engine"] == "mujoco"
    assert np.isfinite(found.summary["cost"]["total"])


LINKAGE = """
model = "linkage.xml"
seconds = 0.06
control_step = 0.01
free = {free}
[policy]
kind = "linear"
noise = 0.2
[start]
spread = 0.1
[cost.swing]
kind = "square"
quantity = "joint/rocker/position"
target = 0.4
[flow]
physics = ["rollouts"]
[training]
environments = 4
horizon = 5
iterations = 2
critic_hidden = 4
"""


def test_a_closed_linkage_with_free_physics(tmp_path):
    """Masses and damping do not move the loop's anchors; where bodies are free, they do, and only MJX has their derivative."""
    xml = four_bar(0.1, 0.3, 0.2).to_xml().replace("<option", '<option tolerance="1e-12" iterations="200"', 1)
    (tmp_path / "linkage.xml").write_text(xml)
    path = tmp_path / "study.toml"
    path.write_text(LINKAGE.format(free='["body/coupler/mass=0.2@0.05:1", "joint/rocker/damping=0.05@0:1"]'))
    task = build(TrainStudy.read(path))
    assert task.engine.name == "mujoco"
    for check in check_gradients(task, steps=5):
        assert check.error < 1e-5, check
        assert abs(check.exact) > 1e-6, check
    path.write_text(LINKAGE.format(free='["body/rocker/pos"]'))
    moved = TrainStudy.read(path)
    assert "closed loop whose bodies or joints" in build(moved).engine.reason
    with pytest.raises(DsoError, match=r"closed loop.*auto"):
        build(dataclasses.replace(moved, engine="mujoco"))
