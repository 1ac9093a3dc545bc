"""Tasks and drawn physical numbers: what is drawn, what the policy and the costs see of it, and that it acts as C says."""

import equinox as eqx
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from dso_robotics.errors import DsoError
from dso_robotics.robot.context import Context, Draw, one_of
from dso_robotics.robot.play import Player
from dso_robotics.robot.schedule import training_method
from dso_robotics.studies.gradient_check import check_gradients
from dso_robotics.studies.train import train
from dso_robotics.studies.train_build import build
from dso_robotics.studies.train_study import TrainStudy
from dso_robotics.studies.trained_robot import compiled
from tests.studies.train_robots import write

MORE = """
free = ["actuator/push/gear[0]=2@1:4"]
[task.goal]
values = [-0.5, 0.5]
[task.speed]
low = 0.0
high = 2.0
[randomise]
"joint/x/damping" = [0.05, 0.45]
"body/cart/mass" = [0.5, 2.0]
[cost.goal]
kind = "square"
quantity = "joint/x/position"
target = "task/goal"
when = { goal = 0.5 }
[cost.near]
kind = "distance"
point = "site/nose"
axes = "x"
target = ["task/speed"]
"""


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    path = write(tmp_path_factory.mktemp("context"), more=MORE)
    path.write_text(path.read_text().replace("noise = 0.1", "noise = 0.1\nsee_design = true"))
    return build(TrainStudy.read(path))


def test_draws_fill_their_ranges_and_trials_cover_the_ends():
    context = Context((one_of("a", (1.0, 3.0)),), (Draw("b", 0.0, 2.0),), (0.5,))
    drawn = np.asarray(jax.vmap(context.draw)(jax.random.split(jax.random.key(0), 500)))
    assert set(drawn[:, 0]) == {1.0, 3.0}
    assert abs(np.mean(drawn[:, 0] == 3.0) - 0.5) < 0.1
    np.testing.assert_allclose(np.quantile(drawn[:, 1], [0.0, 0.5, 1.0]), [0.0, 1.0, 2.0], atol=0.15)
    np.testing.assert_array_equal(
        context.trials(), [[1.0, 0.5], [3.0, 0.5], [1.0, 0.0], [3.0, 0.0], [1.0, 2.0], [3.0, 2.0]]
    )
    np.testing.assert_array_equal(context.normalised(np.array([3.0, 0.5])), [1.0, -0.5])
    assert Context().trials().shape == (1, 0)
    with pytest.raises(DsoError, match="low <= high"):
        Draw("c", 1.0, 0.0)
    with pytest.raises(DsoError, match="at least one"):
        one_of("c", ())


def test_a_drawn_robot_moves_as_c_says(task):
    chain, theta = task.chain, jnp.asarray(task.chain.layout.initial)
    assert chain.mechanism.names == ("actuator/push/gear[0]",)
    context = np.array([0.5, 1.0, 0.4, 0.6])
    state = eqx.tree_at(lambda s: s.context, chain.rest(jnp.array([0.3]), jnp.array([-1.0])), jnp.asarray(context))
    bound = chain.bind(theta, state)
    model = compiled(task, theta, context)
    assert model.body_mass[1] == 0.6
    assert model.dof_damping[0] == 0.4
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:] = 0.3, -1.0
    for _ in range(5):
        state = bound.play(jnp.array([0.7]), state.memory, state, theta)
        data.ctrl[:] = 0.7
        mujoco.mj_step(model, data)
    np.testing.assert_allclose(state.body.qpos, data.qpos, rtol=1e-12)
    # Without binding, the model is made in every step, from the same numbers.
    other = chain.play(jnp.array([0.7]), state.memory, state, theta)
    np.testing.assert_allclose(other.body.qvel, bound.play(jnp.array([0.7]), state.memory, state, theta).body.qvel)
    assert float(
        jnp.abs(other.body.qvel - chain.play(jnp.array([0.7]), state.memory, chain.rest(), theta).body.qvel)[0]
    )


def test_policy_and_costs_see_the_task(task):
    chain, theta = task.chain, jnp.asarray(task.chain.layout.initial)
    for goal, priced in ((0.5, 0.04), (-0.5, 0.0)):
        context = jnp.array([goal, 1.5, 0.45, 1.25])
        state = eqx.tree_at(lambda s: s.context, chain.rest(jnp.array([0.3]), jnp.array([-1.0])), context)
        state = chain.watched(state, theta)
        # position, velocity, both tasks, damping and mass, and the gear, each as a part of its range
        np.testing.assert_allclose(
            chain.observe(state, theta), [0.3, -1.0, 2 * goal, 0.5, 1.0, 0.0, -1 / 3], atol=1e-12
        )
        terms = dict(
            zip(task.scene_cost.names, np.asarray(task.scene_cost.terms(chain.scene(state, theta))), strict=True)
        )
        assert terms["goal"] == pytest.approx(priced)
        assert terms["near"] == pytest.approx(np.hypot(1.1, 0.05) - 0.05)


def test_environments_differ_and_the_gradient_is_that_of_c(task):
    method = training_method(task.chain, task.windows, explore=task.explore)
    states = method.init(jax.random.key(0), jnp.asarray(task.chain.layout.initial)).states
    assert len(np.unique(states.context[:, 3])) == task.windows.environments
    for block in check_gradients(task):
        assert abs(block.exact) > 1e-4
        assert block.error < 1e-6


def test_an_evaluation_plays_every_task_on_robots_at_both_ends(task, tmp_path):
    found = train(task.study, tmp_path / "out")
    context = found.summary["episodes"]["context"]
    assert len(found.episodes) == len(context["task/goal"]) == 8
    assert set(context["task/goal"]) == {-0.5, 0.5}
    assert set(context["body/cart/mass"]) == {1.0, 0.5}
    last = np.array([context[name][-1] for name in context])
    again = Player(found.task.chain).play(
        found.theta,
        found.scaling,
        steps=found.task.steps,
        model=compiled(found.task, found.theta, last),
        context=last,
    )
    assert again.cost == found.episodes[-1].cost


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("values = [-0.5, 0.5]", "values = []", "a task is"),
        ("low = 0.0", "low = 3.0", "a task is"),
        ('"task/goal"', '"task/gaol"', "no .task.gaol."),
        ("when = { goal = 0.5 }", "when = { goal = 0.7 }", "no value of .task.goal."),
        ("when = { goal = 0.5 }", "when = { speed = 0.7 }", "a range"),
        ("when = { goal = 0.5 }", "when = { x = 0.7 }", "no .task.x."),
        ("[0.5, 2.0]", "[2.0, 0.5]", "LOW, HIGH"),
        ("[0.5, 2.0]", "0.5", "LOW, HIGH"),
        ("[0.5, 2.0]", "[1.5, 2.0]", "bounds"),
        ('"body/cart/mass"', '"body/cat/mass"', "'cat'|cat"),
        ('"body/cart/mass"', '"actuator/push/gear[0]"', "gear"),
    ],
)
def test_a_bad_context_is_refused_before_anything_compiles(tmp_path, monkeypatch, old, new, told):
    path = write(tmp_path, more=MORE)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    monkeypatch.setattr("jax.jit", lambda *a, **k: pytest.fail("compiled"))
    with pytest.raises(DsoError, match=told):
        build(TrainStudy.read(path))
