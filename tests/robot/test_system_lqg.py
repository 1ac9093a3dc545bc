"""Estimator and policy trained together: the linear-quadratic-Gaussian optimum, and a model that is wrong.

A cart on MuJoCo is linear, so the stationary cost of any gains is known exactly, and Riccati equations give the best ones.
"""

import dataclasses

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import optax
import pytest
from scipy.linalg import solve_discrete_are, solve_discrete_lyapunov

from dso_robotics.core.method.first_order import FirstOrder
from dso_robotics.core.method.sampled import Stopping, minimise
from dso_robotics.core.objective import Average, Problem
from dso_robotics.core.sampler import PathwiseSampler
from dso_robotics.costs.composite import composite
from dso_robotics.costs.quantity import quantity
from dso_robotics.costs.task import Square
from dso_robotics.parameters.path import parse
from dso_robotics.parameters.vector import pack
from dso_robotics.physics.model import load
from dso_robotics.robot.estimator_design import design_filter
from dso_robotics.robot.mechanism import Mechanism
from dso_robotics.robot.observation import state_observation
from dso_robotics.robot.policy import LinearPolicy
from dso_robotics.robot.sensing import make_sensing
from dso_robotics.robot.system_build import robot_system
from dso_robotics.robot.system_state import Spread
from tests.studies.train_robots import CART

SENSED = CART.replace("</mujoco>", '<sensor><jointpos name="place" joint="x"/></sensor></mujoco>')
DT, DAMPING, GEAR = 0.05, 0.1, 2.0
ACTION_NOISE, SENSOR_NOISE, EFFORT = 0.5, 0.2, 0.05
C = np.array([[1.0, 0.0]])


def linear(gear: float = GEAR) -> tuple[np.ndarray, np.ndarray]:
    """A and B of the cart."""
    a = np.array([[1.0, DT * (1 - DT * DAMPING)], [0.0, 1 - DT * DAMPING]])
    return a, np.array([[DT * DT * gear], [DT * gear]])


def regulator(gear: float = GEAR) -> np.ndarray:
    """K of u = -K x for the cost x[t+1]^2 + 0.3 u[t]^2."""
    (a, b), q = linear(gear), C.T @ C
    p = solve_discrete_are(a, b, a.T @ q @ a, b.T @ q @ b + EFFORT, s=a.T @ q @ b)
    return np.linalg.solve(b.T @ (p + q) @ b + EFFORT, b.T @ (p + q) @ a)


def kalman(gear: float = GEAR) -> np.ndarray:
    """L of b[t+1] = prediction + L innovation."""
    a, b = linear(gear)
    w, v = ACTION_NOISE**2 * b @ b.T, np.array([[SENSOR_NOISE**2]])
    p = solve_discrete_are(a.T, C.T, w, v)
    return p @ C.T @ np.linalg.inv(C @ p @ C.T + v)


def exact_cost(k: np.ndarray, gain: np.ndarray, gear: float = GEAR, believed: float = GEAR) -> float:
    """Stationary cost of a step: x' = A x + B (u + w), b' = (I - L C)(A b + B' u) + L (C x' + v), u = -K b."""
    (a, b), (_, model) = linear(gear), linear(believed)
    left = np.eye(2) - gain @ C
    closed = np.block([[a, -b @ k], [gain @ C @ a, left @ (a - model @ k) - gain @ C @ b @ k]])
    assert np.abs(np.linalg.eigvals(closed)).max() < 1
    felt = np.concatenate([b, gain @ C @ b]) * ACTION_NOISE
    read = np.concatenate([np.zeros((2, 1)), gain]) * SENSOR_NOISE
    p = solve_discrete_lyapunov(closed, felt @ felt.T + read @ read.T)
    effort = float((k @ p[2:, 2:] @ k.T).item()) + ACTION_NOISE**2
    return float(p[0, 0]) + EFFORT * effort


@pytest.fixture(scope="module")
def made():
    """A system whose estimator predicts with the model file's gear of 2, and whose world has that of theta."""
    robot = load(mujoco.MjSpec.from_string(SENSED))
    mechanism = Mechanism(robot, pack([parse("actuator/push/gear[0]=2@0.5:4")], robot))
    sensing = make_sensing(mechanism, {"place": SENSOR_NOISE}, interval=DT)
    place, effort = Square(quantity("joint/x/position", robot)), Square(quantity("control", robot))
    chain = robot_system(
        mechanism,
        LinearPolicy(2, 1),
        state_observation(robot),
        scene_cost=composite({"place": (1.0, place), "effort": (EFFORT, effort)}),
        noise=ACTION_NOISE,
        sensing=sensing,
        estimator=design_filter(mechanism, sensing, noise=ACTION_NOISE),
        sees="estimate",
        believes="nominal",
        frozen=("physics",),
    )
    start = Spread(chain.rest(), jnp.full(1, 0.15), jnp.full(1, 0.15))
    return dataclasses.replace(chain, start=start)


def gains(chain, theta) -> tuple[np.ndarray, np.ndarray]:
    """K and L at theta."""
    scales, parts = chain.filter.scales, {k: np.asarray(v) for k, v in chain.layout.split(jnp.asarray(theta)).items()}
    whitened = parts["corrector"][:2].reshape(2, 1)
    return -parts["policy"][:2].reshape(1, 2), whitened * scales.change[:, None] / scales.innovation


def at_gains(chain, k: np.ndarray, gain: np.ndarray) -> jnp.ndarray:
    """Theta with these gains."""
    scales, theta = chain.filter.scales, jnp.asarray(chain.layout.initial)
    theta = theta.at[chain.layout.where("policy")].set(np.append(-k.ravel(), 0.0))
    here = chain.layout.where("corrector").start
    return theta.at[here : here + 2].set((gain * scales.innovation / scales.change[:, None]).ravel())


def optimise(chain, theta, iterations: int = 120) -> np.ndarray:
    """Adam on the pathwise gradient of the average cost of a step."""
    problem = Problem(chain, Average(120, burn_in=40), theta=theta)
    rate = optax.cosine_decay_schedule(0.15, iterations, 0.01)
    method = FirstOrder(optimiser=optax.chain(optax.clip_by_global_norm(10.0), optax.adam(rate, b2=0.99)))
    sampler = PathwiseSampler(problem, count=16)
    stopping = Stopping(noise_floor=False)
    return np.asarray(
        minimise(jax.random.key(0), sampler, theta, method, iterations=iterations, stopping=stopping).theta
    )


def test_the_estimator_begins_as_the_kalman_filter(made):
    np.testing.assert_allclose(gains(made, made.layout.initial)[1], kalman(), rtol=1e-3)


def test_trained_together_they_reach_the_optimum(made):
    best, (k, gain) = exact_cost(regulator(), kalman()), (1.5 * regulator(), 0.3 * kalman())
    before = exact_cost(k, gain)
    reached = exact_cost(*gains(made, optimise(made, at_gains(made, k, gain))))
    assert before > 1.1 * best
    assert best * (1 - 1e-9) <= reached < 1.01 * best


def test_with_a_wrong_model_they_reach_the_optimum_of_the_world(made):
    """The world's gear is half of what the estimator, and a regulator designed on its model, believe."""
    world = dataclasses.replace(made, layout=_with_gear(made.layout, 1.0))
    pipeline = exact_cost(regulator(), kalman(), gear=1.0)
    best = exact_cost(regulator(1.0), kalman(1.0), gear=1.0, believed=1.0)
    reached = exact_cost(*gains(world, optimise(world, at_gains(world, regulator(), kalman()))), gear=1.0)
    assert pipeline > 1.05 * best
    assert best * (1 - 1e-9) <= reached < 1.01 * best


def _with_gear(layout, gear: float):
    blocks = tuple(
        dataclasses.replace(b, initial=np.array([gear])) if b.name == "physics" else b for b in layout.blocks
    )
    return dataclasses.replace(layout, blocks=blocks)
