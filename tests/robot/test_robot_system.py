"""The robot chain: values and gradients of every block against C MuJoCo, its noise, its ends, and what it refuses."""

import equinox as eqx
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from dso_robotics.core.chain import covered
from dso_robotics.core.gradient.pathwise import pathwise_loss
from dso_robotics.core.objective import Episodic, Problem
from dso_robotics.core.rollout import Ending
from dso_robotics.core.value import ZeroValue
from dso_robotics.core.zlearning import Passive, any_chain_target
from dso_robotics.costs.composite import composite
from dso_robotics.costs.quantity import quantity
from dso_robotics.costs.task import Distance, Square
from dso_robotics.errors import DsoError
from dso_robotics.parameters.path import parse
from dso_robotics.parameters.vector import pack
from dso_robotics.physics.design import Gear, LimbLength, compose
from dso_robotics.physics.model import load
from dso_robotics.robot.mechanism import Mechanism
from dso_robotics.robot.observation import sensor_observation, state_observation
from dso_robotics.robot.passive import PassiveChain
from dso_robotics.robot.policy import LinearPolicy, NetworkPolicy, TimedPolicy
from dso_robotics.robot.recurrent import RecurrentPolicy
from dso_robotics.robot.system_build import robot_system
from dso_robotics.robot.system_state import Spread
from tests.robot.robot_oracle import differences, model_at, network, play
from tests.studies.train_robots import CART

QPOS = np.array([0.1, 2.6])
STEPS = 6


def _scene_cost(robot):
    tip = tuple(quantity(f"site/tip/{axis}", robot) for axis in "xz")
    return composite(
        {
            "tip": (2.0, Distance(tip, (0.3, 1.8), 0.1)),
            "control": (0.1, Square(quantity("control", robot))),
            "change": (0.05, Square(quantity("action_change", robot))),
            "velocity": (0.02, Square(quantity("joint/hinge/velocity", robot), 0.5)),
        }
    )


def _oracle_cost(before: list):
    def scene_cost(model, data, ctrl):
        tip = data.site("tip").xpos
        gap = np.array([tip[0] - 0.3, tip[2] - 1.8])
        change = ctrl - before[-1]
        before.append(ctrl)
        own = 2.0 * (np.sqrt(gap @ gap + 0.01) - 0.1) + 0.1 * ctrl @ ctrl + 0.05 * change @ change
        return own + 0.02 * (data.qvel[1] - 0.5) ** 2

    return scene_cost


def _see(data):
    x, angle = data.qpos
    return np.array([x, np.sin(angle), np.cos(angle), *data.qvel])


@pytest.fixture(scope="module")
def cartpole(models):
    """Without its rail's ends: a model without constraints compiles in a third of the time."""
    spec = mujoco.MjSpec.from_file(str(models / "cartpole.xml"))
    spec.joint("slider").limited = mujoco.mjtLimited.mjLIMITED_FALSE
    return load(spec)


@pytest.fixture(scope="module")
def chain(cartpole):
    """Cart-pole with free physics, design, noise and network policy, two steps of delay, two time steps a control step."""
    vector = pack([parse("joint/slider/damping=0.3@0:2"), parse("joint/hinge/armature=0.02@0:1")], cartpole)
    design = compose([LimbLength(cartpole, "pole"), Gear(cartpole, "drive", bounds=(5.0, 20.0))], cartpole)
    observation = state_observation(cartpole)
    made = robot_system(
        Mechanism(cartpole, vector, design),
        NetworkPolicy(observation.size, 1, (4,)),
        observation,
        scene_cost=_scene_cost(cartpole),
        seconds=0.02,
        delay=0.04,
        noise=0.4,
        noise_free=True,
    )
    return eqx.tree_at(lambda c: c.start, made, Spread(made.rest(jnp.asarray(QPOS), None), jnp.zeros(2), jnp.zeros(2)))


def _cost(chain, noise, theta):
    bound = chain.bind(theta)

    def body(state, xi):
        state = bound.move(xi, state, theta)
        return state, bound.cost(state, theta)

    return jnp.sum(jax.lax.scan(body, bound.initial(jax.random.key(0), theta), noise)[1])


def test_value_and_gradient_of_every_block_are_those_of_c(chain):
    noise = np.random.default_rng(1).normal(size=(STEPS, 1))
    theta = chain.layout.initial + 0.1 * np.random.default_rng(2).normal(size=chain.layout.size)

    def oracle(at):
        return play(
            chain,
            at,
            noise,
            QPOS,
            see=_see,
            scene_cost=_oracle_cost([np.zeros(1)]),
            decide=lambda w, y, m: (network(w, (5, 4, 1), y), m),
        )

    value, gradient = jax.jit(jax.value_and_grad(lambda t: _cost(chain, jnp.asarray(noise), t)))(jnp.asarray(theta))
    np.testing.assert_allclose(value, oracle(theta), rtol=1e-9)
    for block in chain.layout.free:
        part = chain.layout.where(block.name)
        entries = np.arange(part.start, part.stop)[:: 5 if block.name == "policy" else 1]
        wanted = differences(oracle, theta, entries)
        assert np.abs(wanted).max() > 1e-4
        np.testing.assert_allclose(np.asarray(gradient)[entries], wanted, rtol=2e-5, atol=1e-7, err_msg=block.name)


def test_recurrent_policy_is_that_of_equation_100(cartpole):
    observation = state_observation(cartpole)
    for gated in (False, True):
        policy = RecurrentPolicy(observation.size, 1, 3, gated)
        weights = np.random.default_rng(3).normal(size=policy.size)
        seen, units = np.random.default_rng(4).normal(size=5), np.array([0.1, -0.5, 0.9])
        w_in, w_rec, b = weights[:15].reshape(3, 5), weights[15:24].reshape(3, 3), weights[24:27]
        wanted = np.tanh(w_in @ seen + w_rec @ units + b)
        if gated:
            v_in, v_rec, d = weights[27:42].reshape(3, 5), weights[42:51].reshape(3, 3), weights[51:54]
            gate = 1 / (1 + np.exp(-(v_in @ seen + v_rec @ units + d)))
            wanted = (1 - gate) * units + gate * wanted
        w_out, w_dir, c = weights[-9:-6], weights[-6:-1], weights[-1]
        action, following = policy(jnp.asarray(weights), jnp.asarray(seen), jnp.asarray(units), jnp.zeros(()))
        np.testing.assert_allclose(following, wanted, rtol=1e-12)
        np.testing.assert_allclose(action[0], w_out @ wanted + w_dir @ seen + c, rtol=1e-12)
        assert policy.scored().sum() == 9


def test_timed_policy_sees_the_time_and_nothing_else_of_it():
    policy = TimedPolicy(LinearPolicy(2 + 4, 1), seconds=2.0, count=4)
    assert policy.inputs == 2
    weights = jnp.zeros(policy.size).at[2].set(1.0)  # the first bump, centred at a quarter of a second
    actions = [float(policy(weights, jnp.ones(2), jnp.zeros(0), jnp.asarray(t))[0][0]) for t in (0.25, 0.75, 2.0)]
    np.testing.assert_allclose(actions, np.exp(-0.5 * ((np.array([0.25, 0.75, 2.0]) - 0.25) / 0.5) ** 2), rtol=1e-12)


def test_sensors_are_those_of_c(cartpole):
    observation = sensor_observation(cartpole, ["pole_velocity", "pole_axis"])
    chain = robot_system(
        Mechanism(cartpole), LinearPolicy(observation.size, 1), observation, scene_cost=_scene_cost(cartpole), noise=0.2
    )
    state = chain.rest(jnp.asarray(QPOS), jnp.asarray([0.3, -2.0]))
    data = mujoco.MjData(cartpole.mj)
    data.qpos[:], data.qvel[:] = QPOS, [0.3, -2.0]
    mujoco.mj_forward(cartpole.mj, data)
    wanted = np.concatenate([data.sensor("pole_velocity").data, data.sensor("pole_axis").data])
    theta = jnp.asarray(chain.layout.initial)
    seen = jax.jit(lambda state: chain.observe(state, theta))(state)
    np.testing.assert_allclose(seen, wanted, atol=1e-12)


def test_score_exists_for_policy_and_noise_and_is_refused_for_physics(chain):
    theta = jnp.asarray(chain.layout.initial)
    mask = chain.scored(theta)
    assert not mask[chain.layout.where("physics")].any()
    assert not mask[chain.layout.where("design")].any()
    assert mask.sum() == chain.layout.size - 4
    with pytest.raises(DsoError, match="joint/hinge/armature"):
        covered(chain, theta)


def test_log_prob_is_that_of_the_action_played(chain):
    theta = jnp.asarray(chain.layout.initial)
    state = chain.initial(jax.random.key(0), theta)
    moved = theta.at[chain.layout.where("action noise").start].add(0.3)

    @jax.jit
    def found(state):
        following = chain.move(jnp.array([1.5]), state, theta)
        still = chain.drift(state, theta).action - chain.act(state, theta)[0]
        return chain.log_prob(following, state, theta), still, chain.divergence(jax.random.key(0), state, theta, moved)

    log_prob, still, divergence = found(state)
    np.testing.assert_allclose(log_prob, -0.5 * 1.5**2 - np.log(0.4) - 0.5 * np.log(2 * np.pi), rtol=1e-12)
    np.testing.assert_allclose(still, 0.0, atol=1e-15)
    # KL between normals of equal mean and scales 1 : e^0.3
    np.testing.assert_allclose(divergence, 0.5 * (np.exp(-0.6) - 1) + 0.3, rtol=1e-9)


def test_passive_chain_is_the_chain_of_a_silent_policy(chain):
    theta = jnp.asarray(chain.layout.initial)
    silent = theta.at[chain.layout.where("policy")].set(0.0)
    passive = PassiveChain(chain, theta)
    state = chain.initial(jax.random.key(0), theta)
    xi = jnp.array([0.7])
    one, two = jax.jit(lambda s: (passive.move(xi, s), chain.move(xi, s, silent)))(state)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-14)


RANGES = """<mujoco><option timestep="0.01"/><worldbody><body><joint name="x" type="slide" axis="1 0 0"/><geom size="0.1"/>
</body></worldbody><actuator>
<motor name="pull" joint="x" gear="5" ctrllimited="true" ctrlrange="0 1"/>
<motor name="both" joint="x" ctrllimited="true" ctrlrange="-2 2"/>
<motor name="hold" joint="x" ctrllimited="true" ctrlrange="0.2 1"/>
<motor name="lean" joint="x" ctrllimited="true" ctrlrange="-1 3"/>
<motor name="free" joint="x" ctrllimited="false"/></actuator></mujoco>"""


def test_a_policy_that_does_nothing_plays_no_control_clipped_to_the_range():
    """Of a muscle, whose range is 0 to 1, that is 0: the middle of the range pulls with half its force."""
    robot = load(mujoco.MjSpec.from_string(RANGES))
    observation, cost = state_observation(robot), composite({"x": (1.0, Square(quantity("joint/x/position", robot)))})
    chain = robot_system(Mechanism(robot), LinearPolicy(observation.size, 5), observation, scene_cost=cost, noise=0.3)
    theta = jnp.zeros(chain.layout.size)
    passive = PassiveChain(chain, theta)
    assert isinstance(passive, Passive)
    state = chain.rest()

    @jax.jit
    def found(state):
        still, noisy = passive.drift(state), passive.move(0.5 * jnp.ones(5), state)
        silent = theta.at[chain.layout.where("policy").stop - 5 :].set(still.action)  # the biases
        strain = jax.vmap(chain.strain, (None, 0))(state, jnp.stack([theta, silent]))
        return still, noisy, passive.log_prob(noisy, state), strain

    still, noisy, log_prob, (middle, silent) = found(state)
    control = chain.squash(still.action)
    np.testing.assert_allclose(control[:3], [0.0005, 0.0, 0.2004], rtol=1e-9)
    np.testing.assert_allclose(control[3:], 0.0, atol=1e-12)
    assert np.all(np.asarray(still.action)[[1, 4]] == 0.0)  # symmetric or none: exactly the action 0
    np.testing.assert_allclose(still.body.qvel, 0.01 * (5 * 0.0005 + 0.2004) / robot.mj.body_mass[1], rtol=1e-6)
    np.testing.assert_allclose(noisy.action - still.action, 0.15, rtol=1e-9)
    np.testing.assert_allclose(log_prob, 5 * (-0.5 * 0.5**2 - np.log(0.3) - 0.5 * np.log(2 * np.pi)), rtol=1e-9)
    np.testing.assert_allclose(silent, 0.0, atol=1e-12)
    np.testing.assert_allclose(middle, 0.5 * np.sum((np.asarray(still.action) / 0.3) ** 2), rtol=1e-9)
    # The policy of zeros plays the middle of the ranges: a move of it has the ratio of the two densities as its weight.
    moved = np.asarray(noisy.action)
    logs = -0.5 * ((moved - np.asarray(still.action)) / 0.3) ** 2 + 0.5 * (moved / 0.3) ** 2
    ratio = passive.ratio(noisy, state, theta)
    np.testing.assert_allclose(ratio, np.exp(logs.sum()), rtol=1e-9)
    target = any_chain_target(passive, lambda x: 0.5, state, noisy, ratio=ratio)
    np.testing.assert_allclose(target, 0.5 * ratio * np.exp(-(0.0**2)), rtol=1e-12)


def test_samples_of_a_chain_with_too_little_noise_are_refused():
    """The weight base / P of a normal density has a finite variance if P's noise is above 1 / sqrt(2) of the baseline's."""
    robot = load(mujoco.MjSpec.from_string(RANGES))
    cost = composite({"x": (1.0, Square(quantity("joint/x/position", robot)))})
    more = {"scene_cost": cost, "noise": 0.3, "noise_free": True}
    chain = robot_system(Mechanism(robot), LinearPolicy(2, 5), state_observation(robot), **more)
    theta, state = jnp.asarray(chain.layout.initial), chain.rest()
    passive = PassiveChain(chain, theta)
    noises = chain.layout.where("action noise")
    assert np.isfinite(passive.ratio(state, state, theta.at[noises].set(np.log(0.3 * 0.72))))
    with pytest.raises(DsoError, match="no finite variance"):
        passive.ratio(state, state, theta.at[noises].set(np.log(0.3 * 0.70)))


def test_a_blow_up_ends_the_rollout_and_leaves_the_gradient_finite(tmp_path):
    (tmp_path / "cart.xml").write_text(CART)
    robot = load(tmp_path / "cart.xml")
    scene_cost = composite({"place": (1.0, Square(quantity("joint/x/position", robot)))})
    made = robot_system(Mechanism(robot), LinearPolicy(2, 1), state_observation(robot), scene_cost=scene_cost)
    made = eqx.tree_at(lambda c: c.start, made, Spread(made.rest(jnp.ones(1)), jnp.zeros(1), jnp.zeros(1)))
    # The push is a thousand times the distance: x grows some fivefold a step, and passes 1e10 before the 20 steps are over.
    theta = jnp.array([2000.0, 0.0, 0.0])
    problem = Problem(made, Episodic(0.9, 20), theta=theta)

    @jax.jit
    def found(at):
        return jax.grad(
            lambda t: pathwise_loss(jax.random.key(0), problem, t, horizon=20, value=ZeroValue()), has_aux=True
        )(at)

    gradient, path = found(theta)
    assert path.ending == Ending.DIVERGED
    assert 3 < path.moved.sum() < 20
    assert np.all(np.isfinite(gradient))
    assert gradient[0] > 0.0


def test_refusals(cartpole, models):
    observation = state_observation(cartpole)
    scene_cost = _scene_cost(cartpole)
    with pytest.raises(DsoError, match="observation has 5 entries"):
        robot_system(Mechanism(cartpole), LinearPolicy(4, 1), observation, scene_cost=scene_cost)
    with pytest.raises(DsoError, match="1 actuators"):
        robot_system(Mechanism(cartpole), LinearPolicy(5, 2), observation, scene_cost=scene_cost)
    with pytest.raises(DsoError, match="multiple"):
        robot_system(Mechanism(cartpole), LinearPolicy(5, 1), observation, scene_cost=scene_cost, seconds=0.015)
    with pytest.raises(DsoError, match="'pole_velocity'"):
        sensor_observation(cartpole, ["pole_velocty"])
    design = compose([LimbLength(cartpole, "pole")], cartpole)
    with pytest.raises(DsoError, match="body_mass"):
        Mechanism(cartpole, pack([parse("body/cart/mass")], cartpole), design)


def test_mechanism_coordinates_invert(chain):
    mechanism = chain.mechanism
    z = mechanism.initial
    np.testing.assert_allclose(mechanism.constrain(mechanism.unconstrain(z)), z, rtol=1e-12)
    far = mechanism.constrain(50.0 * np.ones(mechanism.size))
    np.testing.assert_allclose(far, mechanism.high, rtol=1e-9)
    assert model_at(chain, chain.layout.initial).dof_armature[1] == pytest.approx(0.02)
