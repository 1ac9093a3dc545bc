"""The likelihoods of logs against the same numbers computed by hand, for a cart whose motion and sensors are linear."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from dso_robotics.costs.behaviour_likelihood import identification_with_cloning
from dso_robotics.costs.composite import composite
from dso_robotics.costs.filter_likelihood import FilterLikelihood
from dso_robotics.costs.quantity import quantity
from dso_robotics.costs.sensor_likelihood import calibration
from dso_robotics.costs.task import Square
from dso_robotics.data.log import Log
from dso_robotics.data.rollout import Rollout
from dso_robotics.parameters.path import parse
from dso_robotics.parameters.vector import pack
from dso_robotics.physics.model import load
from dso_robotics.robot.estimator_design import design_filter
from dso_robotics.robot.filter_data import FilterWindows, select_channels
from dso_robotics.robot.mechanism import Mechanism
from dso_robotics.robot.observation import state_observation
from dso_robotics.robot.policy import LinearPolicy
from dso_robotics.robot.sensing import make_sensing
from dso_robotics.robot.system_build import on_c, robot_system
from tests.studies.everything import CART

STEP, DAMPING, BIAS, SIGMA = 0.05, 0.3, 0.2, (0.04, 0.07)
WEIGHTS = np.array([0.5, -0.8, 0.1])
GAIN = np.array([[0.3, -0.1], [0.2, 0.4]])
LOG_SCALE = np.array([0.25, -0.4])


@pytest.fixture(scope="module", params=["mjx", "mujoco"])
def chain(request):
    robot = load(mujoco.MjSpec.from_string(CART))
    free = (f"joint/x/damping={DAMPING}@0:2", f"sensor/place/bias={BIAS}@-1:1")
    mechanism = Mechanism(robot, pack([parse(text) for text in free], robot))
    sensing = make_sensing(mechanism, {"place": 0.05, "speed": 0.05}, interval=STEP, noise_free=True)
    cost = composite({"place": (1.0, Square(quantity("joint/x/position", robot)))})
    parts = {
        "sensing": sensing,
        "estimator": design_filter(mechanism, sensing, engine=request.param),
        "engine": request.param,
    }
    made = robot_system(mechanism, LinearPolicy(2, 1), state_observation(robot), scene_cost=cost, **parts)
    return made if request.param == "mjx" else on_c(made, robot, made.start)[0]


@pytest.fixture(scope="module")
def theta(chain):
    at = jnp.asarray(chain.layout.initial)
    at = at.at[chain.layout.where("policy")].set(WEIGHTS)
    at = at.at[chain.layout.where("sensor noise")].set(np.log(SIGMA))
    # The gain is whitened: in units of the scales of change and innovation.
    scales = chain.filter.scales
    whitened = GAIN * scales.innovation / scales.change[:, None]
    return at.at[chain.layout.where("corrector")].set(np.concatenate([whitened.ravel(), LOG_SCALE]))


def moved(state, control):
    speed = state[1] + STEP * (2 * control - DAMPING * state[1])
    return np.array([state[0] + STEP * speed, speed])


def read(state):
    return np.add(state, [BIAS, 0.0])


def acted(state):
    return np.tanh(WEIGHTS[:2] @ state + WEIGHTS[2])


def one_log():
    rng = np.random.default_rng(1)
    time, states = STEP * np.arange(9), rng.normal(size=(9, 2))
    rollout = Rollout(
        name="one", time=time, ctrl=rng.uniform(-1, 1, (9, 1)), ctrl_names=("push",),
        sensordata=rng.normal(size=(9, 2)), sensor_names=("place", "speed"), qpos=states[:, :1], qvel=states[:, 1:],
    )  # fmt: skip
    return Log("log.h5", "made here", "", (rollout,))


def test_estimation(chain, theta):
    log, start, warm_up = one_log(), np.array([0.3, -0.2]), 2
    rollout = log.rollouts[0]
    measured = rollout.sensordata.copy()
    measured[4, 1] = np.nan
    channels = select_channels(log, chain.mj, chain.sensing.names)
    windows = FilterWindows(
        log.rollouts, channels, STEP, 1, np.full((1, 8), STEP), rollout.ctrl[None], measured[None], start[None],
        np.full((1, 9, 2), np.nan), np.zeros(1, int), np.zeros(1, int),
    )  # fmt: skip
    cost = FilterLikelihood(windows, warm_up)
    scale = chain.filter.scales.innovation * np.exp(LOG_SCALE)
    belief, total, count = start, 0.0, 0
    for t in range(8):
        forecast = moved(belief, rollout.ctrl[t, 0])
        error = measured[t + 1] - read(forecast)
        seen = np.isfinite(error)
        belief = forecast + GAIN @ np.where(seen, error, 0.0)
        if t >= warm_up:
            total += np.sum((0.5 * (error / scale) ** 2 + LOG_SCALE)[seen])
            count += seen.sum()
    assert cost.count == count == 11
    assert float(jax.jit(cost)(chain, theta)) == pytest.approx(total / count, rel=1e-10)
    assert cost.by_c(chain, np.asarray(theta)) == pytest.approx(total / count, rel=1e-10)


def test_calibration(chain, theta):
    rollout = one_log().rollouts[0]
    states = np.c_[rollout.qpos, rollout.qvel]
    errors = (rollout.sensordata - [read(state) for state in states]) / SIGMA
    wanted = np.mean(0.5 * errors**2 + np.log(np.divide(SIGMA, 0.05)))
    cost = calibration(one_log(), chain)
    assert float(jax.jit(cost)(chain, theta)) == pytest.approx(wanted, rel=1e-10)
    assert cost.by_c(chain, np.asarray(theta)) == pytest.approx(wanted, rel=1e-10)


def test_identification_with_cloning(chain, theta):
    """Windows of two steps, which start at the recorded states and are simulated with the policy."""
    rollout = one_log().rollouts[0]
    states, errors = np.c_[rollout.qpos, rollout.qvel], []
    for begin in (0, 2, 4, 6):
        state = states[begin]
        for ahead in (1, 2):
            state = moved(state, acted(state))
            errors.append(state - states[begin + ahead])
    wanted = np.mean(0.5 * np.log(np.mean(np.square(errors), axis=0)))
    cost = identification_with_cloning(one_log(), chain, window=2 * STEP)
    assert float(jax.jit(cost)(chain, theta)) == pytest.approx(wanted, abs=1e-9)
    assert cost.by_c(chain, np.asarray(theta)) == pytest.approx(wanted, abs=1e-9)


def test_the_likelihood_of_a_reading_of_the_chain_itself(chain, theta):
    noise, state = np.array([0.3, -0.6, 1.1]), chain.initial(jax.random.key(0), theta)
    first = np.array([0.0, 0.0])
    following = jax.jit(lambda at: chain.move(jnp.asarray(noise), state, at))(theta)
    mean = WEIGHTS[2]
    world = moved(first, np.tanh(mean + np.exp(float(chain.layout.split(theta)["action noise"][0])) * noise[0]))
    predicted = read(moved(first, np.tanh(mean)))
    error = read(world) + np.multiply(SIGMA, noise[1:]) - predicted
    scale = chain.filter.scales.innovation * np.exp(LOG_SCALE)
    wanted = np.sum(0.5 * (error / scale) ** 2 + LOG_SCALE)
    assert float(chain.surprise(following, theta)) == pytest.approx(wanted, rel=1e-10)
