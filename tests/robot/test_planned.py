"""A regulator planned with a model: its gain, its derivative and its weights against closed forms and C MuJoCo."""

import dataclasses

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
import scipy.linalg

from dso_robotics.data.assets import asset
from dso_robotics.errors import DsoError
from dso_robotics.parameters.path import parse
from dso_robotics.parameters.vector import pack
from dso_robotics.physics.model import load
from dso_robotics.robot.entries import state_entries
from dso_robotics.robot.mechanism import Mechanism
from dso_robotics.robot.observation import Scaling, no_scaling, state_observation
from dso_robotics.robot.planned import Regulator, seen_state
from dso_robotics.robot.policy import LinearPolicy
from dso_robotics.robot.scene import Scene
from dso_robotics.robot.squash import squash
from tests.studies.train_robots import CART

Q, R, DT = np.array([1.0, 0.1]), np.array([0.3]), 0.05


def regulator(robot, free, posture=None, state_cost=None, substeps=1, **more):
    mj = robot.mj
    posture = np.array(mj.qpos0) if posture is None else np.asarray(posture, float)
    seen, home = seen_state(mj, posture, state_entries(robot)[2], robot.names("joint"))
    return Regulator(
        model=Mechanism(robot, pack([parse(path) for path in free], robot)),
        posture=posture,
        substeps=substeps,
        state_cost=np.ones(2 * mj.nv) if state_cost is None else state_cost,
        action_cost=np.full(mj.nu, 0.3),
        seen=seen,
        home=home,
        drives=np.arange(mj.nu),
        squash=squash(mj, **more),
    )


def cart():
    return regulator(load(mujoco.MjSpec.from_string(CART)), ["body/cart/mass", "joint/x/damping"], state_cost=Q)


def exact_gain(mass, damping):
    """Of v' = v + dt (2 u - damping v) / mass, x' = x + dt v', by SciPy's Riccati equation."""
    keeps = 1.0 - DT * damping / mass
    a, b = np.array([[1.0, DT * keeps], [0.0, keeps]]), np.array([[DT * DT * 2.0 / mass], [DT * 2.0 / mass]])
    p = scipy.linalg.solve_discrete_are(a, b, np.diag(Q), np.diag(R))
    return np.linalg.solve(b.T @ p @ b + R, b.T @ p @ a).ravel()


def test_the_gain_is_that_of_the_riccati_equation():
    holds, gain = cart().gain(jnp.array([1.7, 0.4]))
    np.testing.assert_allclose(np.asarray(gain)[0], exact_gain(1.7, 0.4), rtol=1e-6)
    np.testing.assert_allclose(holds, 0.0, atol=1e-12)


@pytest.mark.parametrize("differentiate", [jax.jacrev, jax.jacfwd])
def test_its_derivative_by_the_numbers_is_that_of_the_closed_form(differentiate):
    plan, at, h = cart(), np.array([1.7, 0.4]), 1e-5
    found = differentiate(lambda z: plan.gain(z)[1][0])(jnp.asarray(at))
    wanted = [(exact_gain(*(at + h * e)) - exact_gain(*(at - h * e))) / (2 * h) for e in np.eye(2)]
    np.testing.assert_allclose(found, np.stack(wanted, -1), rtol=1e-4, atol=1e-5)


def control(plan, robot, qpos, qvel, scaling):
    """What a linear policy with the plan's weights does in a state."""
    part = jnp.asarray(plan.block.start("open"))
    observation = state_observation(robot)
    body = mujoco.MjData(robot.mj)
    state = dataclasses.make_dataclass("State", ["qpos", "qvel", "act"])(
        jnp.asarray(qpos), jnp.asarray(qvel), jnp.asarray(body.act)
    )
    seen = scaling(observation(Scene(robot.mj, None, None, state, None, None)))
    policy = LinearPolicy(observation.size, robot.mj.nu)
    raw = policy(plan.weights(part, scaling), seen, jnp.zeros(0), jnp.zeros(()))[0]
    return np.asarray(plan.squash(plan.squash.mean(raw)))


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    ("name", "free", "posture"),
    [
        ("cartpole", ["body/pole/mass"], [0.3, 0.4]),
        ("quadrotor", ["body/*/mass"], [1.0, -2.0, 1.5, 0.6, 0.0, 0.0, 0.8]),
        ("arm7", ["body/*/mass"], None),
    ],
)
def test_near_the_posture_the_policy_does_what_the_regulator_says(name, free, posture, after):
    """u = u* - K dx to first order, for hinges that turn without end, limited controls, and quaternions; any scaling."""
    robot = load(asset(f"models/{name}.xml"))
    plan = regulator(robot, free, posture, after=after)
    mj, rng = robot.mj, np.random.default_rng(0)
    holds, gain = plan.gain(jnp.asarray(plan.block.flat("initial")))
    size = state_observation(robot).size
    spread = rng.uniform(0.5, 2.0, size)
    scaling = Scaling(jnp.asarray(rng.normal(size=size)), jnp.asarray(spread**2), jnp.asarray(1e3))
    at_rest = control(plan, robot, plan.posture, np.zeros(mj.nv), scaling)
    np.testing.assert_allclose(at_rest, holds, rtol=1e-9, atol=1e-9)
    for _ in range(3):
        change = rng.normal(size=2 * mj.nv)
        ends = []
        for sign in (1.0, -1.0):
            qpos = plan.posture.copy()
            mujoco.mj_integratePos(mj, qpos, sign * 1e-5 * change[: mj.nv], 1.0)
            ends.append(control(plan, robot, qpos, sign * 1e-5 * change[mj.nv :], scaling))
        np.testing.assert_allclose((ends[0] - ends[1]) / 2e-5, -gain @ change, rtol=1e-5, atol=1e-5)
    plain = control(plan, robot, plan.posture, np.zeros(mj.nv), no_scaling(size))
    np.testing.assert_allclose(plain, at_rest, rtol=1e-9, atol=1e-9)


def test_the_controls_that_hold_a_quadrotor_carry_its_weight():
    robot = load(asset("models/quadrotor.xml"))
    plan = regulator(robot, ["body/*/mass"])
    heavier = 1.5 * np.asarray(plan.block.flat("initial"))
    thrust = float(jnp.sum(plan.gain(jnp.asarray(heavier))[0] * robot.mj.actuator_gear[:, 2]))
    mass = robot.mj.body_mass.sum() + heavier.sum() - plan.block.flat("initial").sum()
    assert thrust == pytest.approx(9.81 * mass, rel=1e-6)


def test_a_model_that_falls_over_and_one_that_nothing_moves_are_refused():
    robot = load(asset("models/cartpole.xml"))
    with pytest.raises(DsoError, match="no control holds the model at the posture: at joint 'hinge'"):
        regulator(robot, ["body/pole/mass"], [0.0, 0.5]).check()
    idle = CART.replace('<site name="nose"', '<body name="b"><joint name="y" type="slide" axis="0 1 0"/>'
                        '<geom size="0.1" mass="1"/></body><site name="nose"')  # fmt: skip
    with pytest.raises(DsoError, match="no regulator stabilises"):
        regulator(load(mujoco.MjSpec.from_string(idle)), ["body/cart/mass"]).check()
