"""PCO and natural steps: C MuJoCo plays what MJX plays, and both find the optimal gain of a linear-quadratic cart."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

import dso_robotics as dso
from dso_robotics.core.method.settings import Settings
from dso_robotics.costs.composite import composite
from dso_robotics.costs.quantity import quantity
from dso_robotics.costs.task import Divergence, Square
from dso_robotics.errors import DsoError
from dso_robotics.physics.model import load
from dso_robotics.robot.mechanism import Mechanism
from dso_robotics.robot.observation import state_observation
from dso_robotics.robot.policy import LinearPolicy
from dso_robotics.robot.schedule import training_method
from dso_robotics.robot.system_build import robot_system
from dso_robotics.robot.system_state import Spread
from dso_robotics.robot.windows import CWindows
from dso_robotics.studies.train_build import build
from dso_robotics.studies.train_study import TrainStudy
from tests.studies.test_short_horizon import GAMMA, cart
from tests.studies.train_robots import CART, linear_cart, regulated_cart, trained, write

COUNT, STEPS = 5, 7


def windows(**more):
    """Short windows of the cart."""
    sizes = {"environments": 64, "horizon": 16, "iterations": 150, "critic_hidden": 16, "critic_rate": 3e-3}
    return Settings(gamma=GAMMA, episode=40, restart=0.3, **sizes, **more)


def gain_cost(k):
    """The discounted cost of a gain (1, 2) from starts uniform in [-1, 1]^2, noise left out, in closed form."""
    a, b, q, r, _ = regulated_cart(GAMMA)
    root, closed = np.sqrt(GAMMA), a - b @ k
    if np.max(np.abs(np.linalg.eigvals(root * closed))) >= 1.0:
        return np.inf
    stage = closed.T @ q @ closed + k.T @ r @ k
    return np.trace(scipy.linalg.solve_discrete_lyapunov(root * closed.T, stage)) / 3


@pytest.mark.parametrize("own", [False, True], ids=["one theta", "a theta for each environment"])
def test_c_plays_what_mjx_plays(tmp_path, own):
    path = write(
        tmp_path,
        more='free = ["actuator/push/gear=3@1:9"]\n[randomise]\n"joint/x/damping" = [0.05, 2.0]\n"body/cart/mass" = [0.5, 2.0]',
    )
    text = path.read_text().replace('kind = "linear"', 'kind = "linear"\ndelay = 0.1\ntime_features = 2\nperiod = 0.7')
    path.write_text(text)
    chain = build(TrainStudy.read(path)).chain
    theta = jnp.asarray(chain.layout.initial) + 0.3
    theta = theta + 0.5 * jax.random.normal(jax.random.key(2), (COUNT, theta.shape[0])) if own else theta
    starts = jax.vmap(chain.start)(jax.random.split(jax.random.key(0), COUNT))
    noise = jax.random.normal(jax.random.key(1), (COUNT, STEPS, 1))
    scale = jnp.exp(chain.noise_scale(chain.layout.initial))
    played = CWindows(chain)(theta, chain.scaling, starts, scale * noise)

    def one(theta, state, draws):
        def body(here, draw):
            following = chain.move(draw, here, theta)
            return following, following

        return jax.lax.scan(body, state, draws)[1]

    wanted = jax.jit(jax.vmap(one, in_axes=(0 if own else None, 0, 0)))(theta, starts, noise)
    for name in ("action", "before", "queue", "memory", "context"):
        np.testing.assert_allclose(getattr(played, name)[:, 1:], getattr(wanted, name), rtol=1e-9, atol=1e-12)
    for name in ("qpos", "qvel", "time"):
        np.testing.assert_allclose(getattr(played.body, name)[:, 1:], getattr(wanted.body, name), rtol=1e-9, atol=1e-12)
    # The carts differ, so that the comparison says something about what is drawn.
    assert np.ptp(played.context, axis=0).min() > 0.1
    np.testing.assert_array_equal(played.body.qpos[:, 0], starts.body.qpos)


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("pco", {"learning_rate": 0.03}),
        ("ppo", {"learning_rate": 3e-3, "updates": 40, "critic_batch": 256, "divergence": 0.05}),
        ("natural", {"divergence": 0.01}),
        ("natural", {"divergence": 0.01, "trust_region": True}),
        ("chain_iteration", {"divergence": 0.4}),
        ("newton", {"learning_rate": 0.1}),
    ],
)
def test_finds_the_optimal_gain(tmp_path, method, more):
    chain = cart(tmp_path)
    settings = windows(noise_end=0.2, method=method, **more)
    trainer = training_method(chain, settings)
    learner, news = trained(trainer, chain, settings.iterations)
    assert bool(news.accepted)
    spread = np.asarray(learner.memory.spread)
    first, found = (-np.asarray(theta)[None, :2] / spread for theta in (chain.layout.initial, learner.theta))
    best = np.trace(regulated_cart(GAMMA)[-1]) / 3
    assert gain_cost(first) > 1.5 * best
    assert best <= gain_cost(found) < 1.03 * best


def test_a_step_that_the_linear_model_praises_and_the_chain_refuses(tmp_path):
    """Newton steps of any length, from noisy curvature: the linear model promises a gain, and the new gain is unstable."""
    chain = cart(tmp_path)
    settings = windows(noise_end=0.2, method="newton", learning_rate=50.0, final_rate=1.0, trust_region=True)
    trainer = training_method(chain, settings)
    first = trainer.init(jax.random.key(0), jnp.asarray(chain.layout.initial))
    step, _, predicted = trainer._propose(first, trainer.play(first))
    refused, _ = trainer.step(first)
    before, after = (
        gain_cost(-np.asarray(at.theta)[None, :2] / np.asarray(first.memory.spread)) for at in (first, step)
    )
    assert float(jnp.mean(predicted[settings.environments // 2 :])) > 0.0
    assert np.isfinite(before)
    assert after == np.inf
    np.testing.assert_array_equal(refused.theta, first.theta)
    assert (float(refused.share), int(refused.refused), int(refused.lost)) == (0.5, 1, 0)


def test_a_trust_region_is_of_natural_and_newton_and_is_counted(tmp_path):
    path = write(tmp_path, iterations=4)
    text = path.read_text()
    path.write_text(text + 'method = "natural"\ntrust_region = true\n')
    result = dso.train(path, progress=False)
    assert "the trust region refused" in result.summary["message"]
    assert result.summary["environment_steps"] == 2 * 8 * 8 * 4
    path.write_text(text + 'method = "pco"\ntrust_region = true\n')
    with pytest.raises(DsoError, match="trust_region changes nothing: method = 'pco'"):
        build(TrainStudy.read(path))


@pytest.mark.parametrize("method", ["pathwise", "natural"])
def test_the_control_cost_of_an_l_mdp_is_quadratic(tmp_path, method):
    """KL(N(u, s^2) || N(0, s^2)) = u^2 / 2 s^2 at the state where u is chosen: the regulator of that cost is found."""
    sigma, r = 0.2, 0.3
    (tmp_path / "cart.xml").write_text(CART)
    robot = load(tmp_path / "cart.xml")
    scene_cost = {
        "place": (1.0, Square(quantity("joint/x/position", robot))),
        "strain": (2 * sigma**2 * r, Divergence()),
    }
    policy, observation = LinearPolicy(2, 1), state_observation(robot)
    chain = robot_system(Mechanism(robot), policy, observation, scene_cost=composite(scene_cost), noise=sigma)
    chain = eqx.tree_at(lambda c: c.start, chain, Spread(chain.rest(), jnp.ones(1), jnp.ones(1), uniform=True))
    more = {"learning_rate": 0.05} if method == "pathwise" else {"divergence": 0.01}
    settings = windows(noise_end=sigma, method=method, **more)
    trainer = training_method(chain, settings)
    learner, _ = trained(trainer, chain, settings.iterations)
    a, b = linear_cart()
    q, root = np.diag([1.0, 0.0]), np.sqrt(GAMMA)

    def cost(k):
        return np.trace(scipy.linalg.solve_discrete_lyapunov(root * (a - b @ k).T, q + k.T * r @ k)) / 3

    best = np.trace(scipy.linalg.solve_discrete_are(root * a, root * b, q, np.array([[r]]))) / 3
    found = -np.asarray(learner.theta)[None, :2] / np.asarray(learner.memory.spread)
    assert cost(np.zeros((1, 2)) + 1e-9) > 1.3 * best
    assert best <= cost(found) < 1.02 * best


def test_a_window_that_blows_up_says_so_and_moves_nothing_alone(tmp_path):
    chain = cart(tmp_path)
    lost = eqx.tree_at(lambda c: c.start, chain, Spread(chain.rest(jnp.array([1e12])), jnp.zeros(1), jnp.zeros(1)))
    settings = Settings(environments=4, horizon=4, iterations=4, critic_hidden=8, method="pco")
    trainer = training_method(lost, settings)
    learner = trainer.init(jax.random.key(0), jnp.asarray(chain.layout.initial))
    following, news = trainer.step(learner)
    assert float(news.blown) == 1.0
    assert np.all(np.isfinite(following.theta))


def test_costs_of_a_log_and_free_physics_are_refused(tmp_path):
    path = write(tmp_path, more='free = ["actuator/push/gear[0]=2@1:4"]')
    path.write_text(path.read_text().replace("[training]", '[training]\nmethod = "natural"'))
    with pytest.raises(DsoError, match="gear"):
        build(TrainStudy.read(path))
    path = write(tmp_path, more="[cost.near]\nkind = 'prior'\nnumbers = {}")
    path.write_text(path.read_text().replace("[training]", '[training]\nmethod = "pco"'))
    with pytest.raises(DsoError, match="costs of the motion alone"):
        build(TrainStudy.read(path))
