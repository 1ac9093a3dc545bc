"""Costs of how a policy chooses its action: entropy (H-MDP), an earlier policy (R-MDP), and the prior of its weights."""

import equinox as eqx
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
import scipy.integrate

from dso_robotics.costs.composite import composite
from dso_robotics.costs.prior import WeightPrior, weight_prior
from dso_robotics.costs.quantity import quantity
from dso_robotics.costs.task import Certainty, Divergence, Proximity, Square
from dso_robotics.errors import DsoError
from dso_robotics.physics.model import load
from dso_robotics.robot.mechanism import Mechanism
from dso_robotics.robot.observation import state_observation
from dso_robotics.robot.policy import LinearPolicy
from dso_robotics.robot.schedule import training_method
from dso_robotics.robot.system_build import robot_system
from dso_robotics.studies.train_build import build
from dso_robotics.studies.train_study import TrainStudy
from tests.studies.train_robots import write

ROBOT = """<mujoco><option timestep="0.01"/><worldbody><body><joint name="x" type="slide" axis="1 0 0"/><geom size="0.1"/>
</body></worldbody><actuator><motor name="pull" joint="x" ctrlrange="0 3"/><motor name="free" joint="x"/></actuator></mujoco>"""


@pytest.fixture(scope="module")
def chain():
    robot = load(mujoco.MjSpec.from_string(ROBOT))
    scene_cost = composite({"x": (1.0, Square(quantity("joint/x/position", robot)))})
    policy, observation = LinearPolicy(2, 2), state_observation(robot)
    return robot_system(Mechanism(robot), policy, observation, scene_cost=scene_cost, noise=0.4, noise_free=True)


@pytest.fixture(scope="module")
def theta(chain):
    theta = jnp.asarray(chain.layout.initial)
    weights = jnp.array([0.5, -0.3, 0.2, 0.1, 0.4, -0.7])
    return (
        theta.at[chain.layout.where("policy")]
        .set(weights)
        .at[chain.layout.where("action noise")]
        .set(np.log([0.6, 0.3]))
    )


def acting(chain, theta, qpos, qvel):
    """Means and standard deviations of the actions, written out."""
    w = np.asarray(theta[chain.layout.where("policy")])
    mean = w[:4].reshape(2, 2) @ [qpos, qvel] + w[4:]
    return mean, np.exp(np.asarray(theta[chain.layout.where("action noise")]))


def normal(x, mean, sigma):
    return np.exp(-0.5 * ((x - mean) / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))


def test_entropy_is_that_of_the_control_that_is_played(chain, theta):
    """KL(control || uniform) by quadrature over the control, where its density is that of the action over the slope of tanh."""
    state = chain.rest(jnp.array([0.8]), jnp.array([-0.5]))
    mean, sigma = acting(chain, theta, 0.8, -0.5)

    def integrand(part):
        density = normal(np.arctanh(part), mean[0], sigma[0]) / (1 - part**2)
        return density * np.log(2 * density) if density > 0 else 0.0

    wanted = scipy.integrate.quad(integrand, -1, 1, epsabs=1e-12)[0] - 0.5 * np.log(2 * np.pi * np.e * sigma[1] ** 2)
    found = Certainty()(chain.scene(state, theta))
    np.testing.assert_allclose(found, wanted, rtol=1e-7)
    far = chain.rest(jnp.array([400.0]))  # a policy far beyond the range is certain, and its cost still has a slope
    slope = jax.grad(lambda at: Certainty()(chain.scene(far, at)))(theta)
    assert np.all(np.isfinite(slope))
    assert slope[0] > 100.0


def test_the_proximal_cost_is_the_divergence_from_an_earlier_policy(chain, theta):
    state = chain.rest(jnp.array([0.8]), jnp.array([-0.5]))
    earlier = theta + 0.1 * jnp.arange(theta.size)
    assert float(Proximity()(chain.scene(state, theta))) == 0.0
    held = eqx.tree_at(lambda c: c.anchor, chain, earlier, is_leaf=lambda leaf: leaf is None)
    (m, s), (old, o) = acting(chain, theta, 0.8, -0.5), acting(chain, earlier, 0.8, -0.5)
    wanted = sum(
        scipy.integrate.quad(
            lambda u, k=k: normal(u, old[k], o[k]) * np.log(normal(u, old[k], o[k]) / normal(u, m[k], s[k])),
            old[k] - 10 * o[k],
            old[k] + 10 * o[k],
        )[0]
        for k in range(2)
    )
    np.testing.assert_allclose(Proximity()(held.scene(state, theta)), wanted, rtol=1e-8)
    np.testing.assert_allclose(Proximity()(held.scene(state, earlier)), 0.0, atol=1e-14)


def test_the_costs_that_theta_changes_at_a_given_state_are_the_policy_s_own(chain, theta):
    parts = {"x": (3.0, Square(chain.scene_cost.parts[0].quantity)), "d": (2.0, Divergence())}
    parts |= {"e": (0.5, Certainty()), "p": (4.0, Proximity(7))}
    cost, state = composite(parts), chain.rest(jnp.array([0.8]))
    scene = chain.scene(state, theta)
    np.testing.assert_allclose(cost.of_the_policy()(scene), cost(scene) - 3.0 * 0.8**2, rtol=1e-12)
    assert cost.anchored == 7
    with pytest.raises(DsoError, match="not 7, 9"):
        composite(parts | {"q": (1.0, Proximity(9))}).anchored  # noqa: B018


def test_a_training_measures_from_the_policy_of_some_iterations_ago(tmp_path):
    cost = '[cost.near]\nkind = "proximal"\nevery = 3\nweight = {weight}\n[policy]'
    found = {}
    for weight in (1.0, 1000.0):
        path = write(tmp_path, iterations=8)
        path.write_text(path.read_text().replace("[policy]", cost.format(weight=weight)))
        task = build(TrainStudy.read(path))
        method = training_method(task.chain, task.windows, explore=task.explore)
        first, course = jnp.asarray(task.chain.layout.initial), []
        learner = method.init(jax.random.key(0), first)
        for _ in range(6):
            learner, _ = method.step(learner)
            course.append(learner)
        for k, since in enumerate([first, first, *[course[2].theta] * 3, course[5].theta]):
            np.testing.assert_array_equal(course[k].anchor, since)
        found[weight] = float(jnp.linalg.norm(course[4].theta - course[2].theta))
    assert found[1000.0] < 0.8 * found[1.0]


def test_the_prior_of_weights_is_normal_about_zero_or_the_start(chain, theta):
    weights = np.asarray(theta[chain.layout.where("policy")])
    prior = weight_prior(chain, ["policy"], std=0.5, about_start=False)
    np.testing.assert_allclose(prior(chain, theta), 0.5 * np.sum((weights / 0.5) ** 2), rtol=1e-12)
    start = weight_prior(chain, ["policy"], std=2.0, about_start=True)
    first = np.asarray(chain.layout.initial)[chain.layout.where("policy")]
    np.testing.assert_allclose(start(chain, theta), 0.5 * np.sum(((weights - first) / 2.0) ** 2), rtol=1e-12)
    about = WeightPrior(jnp.array([0, 2]), jnp.array([1.0, -2.0]), 2.0)
    np.testing.assert_allclose(
        about(chain, theta), 0.5 * np.sum(((weights[[0, 2]] - [1.0, -2.0]) / 2.0) ** 2), rtol=1e-12
    )
    slope = jax.grad(lambda at: prior(chain, at))(theta)
    np.testing.assert_allclose(slope[chain.layout.where("action noise")], 0.0)
    with pytest.raises(DsoError, match="no free corrector"):
        weight_prior(chain, ["corrector"], std=1.0, about_start=False)


def test_a_prior_of_weights_alone_leaves_the_best_episode_as_the_result(tmp_path):
    path = write(tmp_path, more='[cost.small]\nkind = "weights"\nstd = 2.0')
    task = build(TrainStudy.read(path))
    assert task.keep == "best"
    assert task.flow.moved["policy"] == ("rollouts", "small")
    theta = jnp.arange(4.0)[: task.chain.layout.size]
    np.testing.assert_allclose(task.supervised["small"](task.chain, theta), 0.5 * np.sum((np.arange(3) / 2.0) ** 2))
