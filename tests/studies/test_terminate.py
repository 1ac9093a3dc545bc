"""Episodes that end early: the windows of the training and the episode on C MuJoCo end at the same step at the same cost."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dso_robotics.core.objective import Episodic, Problem
from dso_robotics.core.rollout import Ending, rollout
from dso_robotics.errors import DsoError
from dso_robotics.robot.play import Player
from dso_robotics.robot.schedule import training_method
from dso_robotics.studies.train_build import build
from dso_robotics.studies.train_study import TrainStudy
from tests import floating
from tests.studies.train_robots import write

FAR = '[terminate.far]\nquantity = "joint/x/position"\nhigh = 1.3\ncost = 7.0\n'


def pushed(folder, more):
    """The cart under a policy that pushes at full strength to the right, and its theta."""
    task = build(TrainStudy.read(write(folder, more=more)))
    block = next(b for b in task.chain.layout.blocks if b.name == "policy")
    theta = np.array(task.chain.layout.initial)
    theta[: block.size] = 0.0
    theta[block.size - 1] = 50.0  # the bias of a linear policy is its last weight
    return task, theta


def test_an_episode_ends_in_the_first_state_outside_with_its_cost_on_both_engines(tmp_path):
    task, theta = pushed(tmp_path, FAR)
    chain, steps = task.chain, task.steps
    played = Player(chain).play(theta, chain.scaling, steps=steps)
    assert played.terminated
    assert not played.ended
    x = played.qpos[:, 0]
    assert (x[:-1] <= 1.3).all()
    assert x[-1] > 1.3
    assert len(x) < steps
    wanted = x[1:] ** 2 + 0.3 * played.ctrl[:, 0] ** 2
    wanted[-1] += 7.0
    np.testing.assert_allclose(played.terms.sum(1), wanted, rtol=1e-10)
    problem = Problem(chain, Episodic(0.9999, steps), theta=jnp.asarray(theta))
    path = rollout(jax.random.key(0), problem, jnp.asarray(theta))
    assert int(path.ending) == Ending.TERMINAL
    assert float(path.costs[int(path.moved.sum())]) > 7.0
    assert int(path.counted.sum()) == int(path.moved.sum()) + 1


def test_episodes_of_any_length_are_compiled_once(tmp_path):
    task, theta = pushed(tmp_path, FAR)
    player, lengths = Player(task.chain), set()
    for strength in (50.0, 0.5, 0.0):
        theta[next(b for b in task.chain.layout.blocks if b.name == "policy").size - 1] = strength
        lengths.add(len(player.play(theta, task.chain.scaling, steps=task.steps).terms))
    assert len(lengths) == 3
    # A context without numbers is the one that is drawn.
    one, other = player.start(theta, 3), player.start(theta, 3, task.chain.context.rest)
    assert eqx.tree_equal(one, other)
    functions: list[Any] = [player._scene_cost, player._start]
    assert [function._cache_size() for function in functions] == [1, 1]


def test_a_window_that_ended_starts_anew(tmp_path):
    task, theta = pushed(tmp_path, FAR)
    method = training_method(task.chain, task.windows, explore=task.explore)
    state = method.init(jax.random.key(0), jnp.asarray(theta))
    for _ in range(3):
        state, _ = method.step(state)
        assert (np.asarray(state.states.body.qpos) <= 1.3).all()
    assert np.isfinite(np.asarray(state.theta)).all()


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (FAR.replace("high = 1.3", ""), "give low, high or both"),
        (FAR.replace("high", "low = 2.0\nhigh"), "low = 2 is not below high = 1.3"),
        (FAR.replace("cost = 7.0", ""), "cost"),
        (FAR.replace("joint/x", "joint/y"), r"\[terminate.far\]: joint/y/position: .* no joint called 'y'"),
        (FAR + '[training]\nmethod = "pco"\n', r"method = 'pco' plays its windows to their end.*pathwise"),
    ],
)
def test_bounds_without_effect_are_refused(tmp_path, more, told):
    path = write(tmp_path, more=more)
    if "pco" in more:
        text = path.read_text().replace('[training]\nmethod = "pco"\n', "", 1)
        path.write_text(text.replace("[training]", '[training]\nmethod = "pco"'))
    with pytest.raises(DsoError, match=told):
        build(TrainStudy.read(path))


def test_a_start_outside_the_bounds_is_told(tmp_path):
    task, theta = pushed(tmp_path, FAR.replace("1.3", "0.5"))
    with pytest.raises(DsoError, match="start state itself ends the episode"):
        Player(task.chain).play(theta, task.chain.scaling, steps=3)


def test_a_floating_robot_falls_alike_on_both_engines(tmp_path):
    more = """[start]
    keyframe = "home"
    [terminate.low]
    quantity = "body/trunk/height"
    low = 0.38
    cost = 3.0"""
    task = build(TrainStudy.read(floating.write(tmp_path, more)))
    chain, theta = task.chain, np.array(task.chain.layout.initial)
    played = Player(chain).play(theta, chain.scaling, steps=task.steps)
    assert played.terminated
    assert played.qpos[-1, 2] < 0.38 <= played.qpos[-2, 2]
    step = jax.jit(lambda state, theta: chain.drift(state, theta))
    state = chain.initial(jax.random.key(0), jnp.asarray(theta))
    for qpos, qvel in zip(played.qpos[1:], played.qvel[1:], strict=True):
        state = step(state, jnp.asarray(theta))
        np.testing.assert_allclose(state.body.qpos, qpos, atol=1e-9)
        np.testing.assert_allclose(state.body.qvel, qvel, atol=1e-8)
    assert bool(chain.terminal(state))
