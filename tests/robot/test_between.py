"""Commands redrawn and pushes within the episodes of a training: how often, how much, and that windows go on from there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dso_robotics.errors import DsoError
from dso_robotics.studies.train import method_of
from dso_robotics.studies.train_build import build
from dso_robotics.studies.train_study import TrainStudy
from tests import floating
from tests.studies.train_robots import write

MORE = """
[task.goal]
low = -1.0
high = 1.0
every = 1.0
[task.side]
values = [3.0, 4.0]
[pushes]
every = 2.0
velocity = { x = 0.5 }
[cost.goal]
kind = "square"
quantity = "joint/x/position"
target = "task/goal"
"""


def asked(folder, more=MORE):
    return TrainStudy.read(write(folder, more=more))


def test_tasks_and_velocities_change_as_often_and_as_much_as_asked(tmp_path):
    task = build(asked(tmp_path))
    state, between = task.chain.rest(), task.between
    assert between is not None
    keys = jax.random.split(jax.random.key(0), 4000)
    after = jax.jit(jax.vmap(lambda key: between(key, state)))(keys)
    context, speed = np.asarray(after.context), np.asarray(after.body.qvel)[:, 0]
    # A window lasts 8 steps of 0.05 s.
    redrawn = context[:, 0] != state.context[0]
    assert np.mean(redrawn) == pytest.approx(0.4, abs=0.03)
    assert np.std(context[redrawn, 0]) == pytest.approx(1 / np.sqrt(3), rel=0.05)
    assert set(context[:, 1]) == {float(state.context[1])}
    pushed = speed != 0
    assert np.mean(pushed) == pytest.approx(0.2, abs=0.03)
    assert np.abs(speed).max() <= 0.5
    assert np.std(speed[pushed]) == pytest.approx(0.5 / np.sqrt(3), rel=0.08)
    np.testing.assert_array_equal(np.asarray(after.body.qpos), np.tile(state.body.qpos, (4000, 1)))


def test_windows_go_on_with_another_command_from_the_same_place(tmp_path):
    more = MORE.replace("every = 1.0", "every = 0.01").replace("every = 2.0", "every = 1e9")
    path = write(tmp_path, more=more)
    path.write_text(path.read_text() + "restart = 0.0\n")
    method = method_of(build(TrainStudy.read(path)))
    first = method.init(jax.random.key(0), jnp.asarray(method.course.chain.layout.initial))
    second, _ = method.step(first)
    third, _ = method.step(second)
    going = (np.asarray(third.age) > 0) & (np.asarray(second.age) > 0)
    assert going.any()
    old, new = (np.asarray(s.states.context) for s in (second, third))
    assert (old[going, 0] != new[going, 0]).all()
    np.testing.assert_array_equal(old[going, 1], new[going, 1])


def test_a_base_is_pushed_in_velocity_and_spin(tmp_path):
    more = "[pushes]\nevery = 1e-3\nbase = { root = { velocity = 0.4, spin = 2.0 } }\n"
    task = build(TrainStudy.read(floating.write(tmp_path, more)))
    state, between = task.chain.rest(), task.between
    assert between is not None
    keys = jax.random.split(jax.random.key(1), 2000)
    change = np.asarray(jax.vmap(lambda key: between(key, state).body.qvel)(keys))
    np.testing.assert_allclose(change.std(0), np.array([0.4] * 3 + [2.0] * 3 + [0, 0]) / np.sqrt(3), rtol=0.06)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("[pushes]\nevery = 1.0", "nothing is pushed"),
        ("[pushes]\nvelocity = { y = 1.0 }", "y"),
        ("[pushes]\nbase = { root = { velocity = 1.0 } }", "no free joint 'root'; it has none"),
        ("[pushes]\nbase = { root = { tilt = 1.0 } }", "a push has no 'tilt'; it has velocity, spin"),
        ("[task.goal]\nvalues = [1.0]\nevery = 0.0", "every"),
    ],
)
def test_what_cannot_be_pushed_is_refused(tmp_path, more, told):
    with pytest.raises(DsoError, match=told):
        build(asked(tmp_path, more))
