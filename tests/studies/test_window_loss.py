"""The score and mixed forms of a window's gradient: the same mean as the pathwise one, and refused where there is none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dso_robotics.core.method.settings import Settings
from dso_robotics.core.method.window import scored_entries, window_loss
from dso_robotics.core.objective import Episodic, Problem
from dso_robotics.core.value import KnownValue
from dso_robotics.errors import DsoError
from dso_robotics.robot.play import Player
from dso_robotics.robot.schedule import training_method
from dso_robotics.studies.train_build import build
from dso_robotics.studies.train_study import TrainStudy
from tests.studies.train_robots import write

STEPS, COUNT = 4, 16384


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    # On MJX the chain itself is differentiated, by physical numbers too.
    more = 'engine = "mjx"\nfree = ["actuator/push/gear[0]=2@1:4"]'
    path = write(tmp_path_factory.mktemp("score"), more=more)
    path.write_text(path.read_text().replace("noise = 0.1", "noise = 1.0\nlearn_noise = true"))
    return build(TrainStudy.read(path)).chain


@pytest.fixture(scope="module")
def gradients(chain):
    """Pathwise and mixed gradients (COUNT, n) of the same windows."""
    theta = jnp.asarray(chain.layout.initial).at[:3].set(jnp.array([-0.4, -0.3, 0.1]))
    problem = Problem(chain, Episodic(0.9, STEPS), theta=theta)
    value = KnownValue(lambda state: 2.0 * state.body.qpos[0] ** 2 + state.body.qvel[0] ** 2)
    start = chain.rest(jnp.array([1.0]), jnp.array([-0.5]))

    def slopes(key, mask):
        def loss(at):
            return window_loss(key, problem, at, start=start, horizon=STEPS, value=value, by_score=mask, bind=bind)[0]

        return jax.grad(loss)(theta)

    bind = lambda chain, at, start: chain.bind(at, start)  # noqa: E731
    keys = jax.random.split(jax.random.key(1), COUNT)
    masks = [scored_entries(name, chain, theta) for name in ("pathwise", "mixed")]
    return [np.asarray(jax.jit(jax.vmap(lambda k, m=m: slopes(k, m)))(keys)) for m in masks]


def test_mixed_has_the_mean_of_pathwise_and_its_physics_exactly(chain, gradients):
    through, mixed = gradients
    physics = chain.layout.where("physics")
    np.testing.assert_allclose(mixed[:, physics], through[:, physics], rtol=1e-9)
    assert np.all(through[:, physics] != 0)
    rest = [i for i in range(chain.layout.size) if not physics.start <= i < physics.stop]
    assert len(rest) == 4
    error = np.hypot(mixed.std(0), through.std(0)) / np.sqrt(COUNT)
    away = (mixed.mean(0) - through.mean(0)) / error
    assert np.all(np.abs(away[rest]) < 4)
    # The comparison says something: the gradient is many standard errors from zero.
    assert np.all(np.abs(mixed.mean(0) / error)[[0, 1]] > 4)


def test_the_score_of_physics_and_unknown_methods_are_refused(chain):
    with pytest.raises(DsoError, match=r"gear.*mixed"):
        scored_entries("score", chain, jnp.asarray(chain.layout.initial))
    with pytest.raises(DsoError, match=r"no training method 'scor'.*'score'"):
        training_method(chain, Settings(method="scor"))


@pytest.mark.slow
def test_training_by_the_score_lowers_the_cost(tmp_path):
    path = write(tmp_path, iterations=60)
    text = path.read_text().replace("environments = 8", 'environments = 512\nmethod = "score"')
    path.write_text(text.replace("noise = 0.1", "noise = 1.0"))
    task = build(TrainStudy.read(path))
    method, player = training_method(task.chain, task.windows, explore=task.explore), Player(task.chain)
    assert method.by_score.all()
    learner = method.init(jax.random.key(0), jnp.asarray(task.chain.layout.initial))
    before = player.play(np.asarray(learner.theta), learner.memory, steps=task.steps).cost
    for _ in range(60):
        learner, _ = method.step(learner)
    assert player.play(np.asarray(learner.theta), learner.memory, steps=task.steps).cost < 0.6 * before
