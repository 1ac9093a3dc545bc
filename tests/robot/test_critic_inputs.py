"""The critic sees all that the cost after a state depends on, whatever the policy sees, and nothing that does not count."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dso_robotics.data.log import Log, write_log
from dso_robotics.data.rollout import Rollout
from dso_robotics.robot.schedule import training_method
from dso_robotics.studies.train_build import build
from dso_robotics.studies.train_study import TrainStudy

# A cart on an endless rail with an arm that may turn for ever.
ROBOT = """<mujoco><option timestep="0.05" integrator="implicitfast"/>
  <worldbody>{world}<geom type="plane" size="1 1 1" pos="0 0 -1"/><body name="cart">
    <joint name="x" type="slide" axis="1 0 0" damping="0.1"/><geom type="box" size="0.1 0.1 0.1" mass="1"/>
    <body name="arm"><joint name="turn" axis="0 1 0" damping="0.1" stiffness="{spring}"/>
      <geom type="capsule" fromto="0 0 0 0.2 0 0.3" size="0.02" mass="0.2" contype="0" conaffinity="0"/>
    </body></body></worldbody>
  <actuator><motor name="push" joint="x" ctrlrange="-1 1"/><motor name="twist" joint="turn" gear="0.2"/></actuator>
  <sensor><jointvel name="speed" joint="x"/></sensor></mujoco>"""
STUDY = """
model = "robot.xml"
engine = "{engine}"
seconds = 2.0
[policy]
kind = "linear"
{policy}
[cost.speed]
kind = "square"
quantity = "joint/x/velocity"
target = 1.0
[cost.up]
kind = "square"
quantity = "joint/turn/cosine"
target = 1.0
{costs}
[training]
environments = 4
horizon = 4
iterations = 2
critic_hidden = 4
"""
TRACKING = '[cost.follow]\nkind = "tracking"\nlog = "walk.h5"'
SMOOTH = '[cost.smooth]\nkind = "smoothness"'
EFFORT = '[cost.effort]\nkind = "control"'
PLACE = '[cost.place]\nkind = "square"\nquantity = "joint/x/position"'
ANGLE = '[cost.angle]\nkind = "square"\nquantity = "joint/turn/position"'
BLIND = 'observe = ["speed"]'
LEAVE_OUT = 'leave_out = ["x"]'


def made(folder, policy="", costs="", engine="mujoco", world="", spring=0.0):
    """Chain and critic of a study."""
    (folder / "robot.xml").write_text(ROBOT.format(world=world, spring=spring))
    time = 0.05 * np.arange(41)
    motion = Rollout(name="walk", time=time, qpos=np.stack([time, np.sin(3 * time)], 1), qvel=np.zeros((41, 2)))
    write_log(folder / "walk.h5", Log("", "made for a test", "CC0", (motion,)))
    text = STUDY.format(policy=policy, costs=costs, engine=engine)
    (folder / "study.toml").write_text(text)
    task = build(TrainStudy.read(folder / "study.toml"))
    method = training_method(task.chain, task.windows, explore=task.explore)
    theta = jnp.asarray(task.chain.layout.initial) + 0.1
    return task.chain, method, theta


def changed(state):
    """The state with one part of it changed, by the name of the part."""
    at = {
        "place": (lambda s: s.body.qpos, jnp.array([0.7, 0.0])),
        "turned": (lambda s: s.body.qpos, jnp.array([0.0, 2 * np.pi])),
        "angle": (lambda s: s.body.qpos, jnp.array([0.0, 0.4])),
        "velocity": (lambda s: s.body.qvel, jnp.array([0.0, 0.5])),
        "time": (lambda s: s.body.time, 0.5),
        "ctrl": (lambda s: s.ctrl, jnp.array([0.3, -0.2])),
        "before": (lambda s: s.before, jnp.array([0.3, -0.2])),
        "queue": (lambda s: s.queue, 0.3),
    }
    return {name: eqx.tree_at(part, state, part(state) + change) for name, (part, change) in at.items()}


def to_come(chain, state, theta):
    """The cost of the states after this one."""

    def body(state, _):
        state = chain.watched(state, theta)
        return chain.drift(state, theta), chain.cost(state, theta)

    return jnp.sum(jax.lax.scan(body, state, None, length=5)[1][1:])


def seen(chain, method, theta):
    """Which parts of the state the cost to come depends on, and which of them the critic sees."""
    rest = chain.rest(jnp.array([0.2, 0.6]), jnp.array([0.3, -0.4]))
    ones = jnp.array([0.4, -0.6])
    rest = dataclasses.replace(
        rest, action=ones, ctrl=chain.squash(ones), before=chain.squash(-ones), queue=rest.queue + 0.2
    )
    names, others = zip(*changed(rest).items(), strict=True)
    every = jax.tree.map(lambda *leaves: jnp.stack(leaves), rest, *others)
    costs = np.asarray(jax.jit(jax.vmap(lambda s: to_come(chain, s, theta)))(every))
    inputs = method.course.inputs(method.course.memory, theta)
    numbers = np.asarray(jax.jit(jax.vmap(lambda s: inputs(chain.watched(s, theta))))(every))
    assert numbers.shape[1] == method.course.width

    def differs(rows):
        change = np.abs(rows[1:] - rows[0]).reshape(len(names), -1).max(1) / (1 + np.abs(rows[0]).max())
        return {name for name, much in zip(names, change, strict=True) if much > 1e-9}

    return differs(costs), differs(numbers)


PLAIN = {"angle", "velocity"}


@pytest.mark.parametrize(
    ("given", "needed"),
    [
        ({"policy": LEAVE_OUT}, PLAIN),
        ({"policy": LEAVE_OUT, "costs": TRACKING}, PLAIN | {"place", "turned", "time"}),
        ({"policy": LEAVE_OUT, "costs": SMOOTH}, PLAIN | {"ctrl"}),
        ({"policy": LEAVE_OUT, "costs": EFFORT}, PLAIN),
        ({"policy": LEAVE_OUT, "costs": PLACE}, PLAIN | {"place"}),
        ({"policy": LEAVE_OUT, "costs": ANGLE}, PLAIN | {"turned"}),
        ({"policy": LEAVE_OUT, "spring": 0.3}, PLAIN | {"turned"}),
        ({"policy": BLIND}, PLAIN),
        ({"policy": BLIND, "costs": PLACE}, PLAIN | {"place"}),
        ({"policy": BLIND + "\ntime_features = 3"}, PLAIN | {"time"}),
        ({"policy": LEAVE_OUT + "\ndelay = 0.05"}, PLAIN | {"queue"}),
        ({"policy": LEAVE_OUT, "costs": TRACKING, "engine": "mjx"}, PLAIN | {"place", "turned", "time"}),
    ],
    ids=lambda part: str(sorted(part) if isinstance(part, set) else part),
)
def test_the_critic_sees_what_the_cost_to_come_depends_on_and_no_more(tmp_path, given, needed):
    counts, sees = seen(*made(tmp_path, **given))
    assert counts == needed
    assert sees == needed


def test_a_place_counts_where_there_is_something_to_run_into(tmp_path):
    block = '<geom type="box" size="0.1 1 1" pos="9 0 0"/>'
    _, sees = seen(*made(tmp_path, policy=LEAVE_OUT, world=block))
    assert sees == PLAIN | {"place"}
