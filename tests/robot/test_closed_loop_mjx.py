"""A closed loop of MuJoCo models: against C MuJoCo and the runtime estimator step by step, and what it refuses."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from dso_robotics.errors import DsoError
from dso_robotics.parameters.path import parse
from dso_robotics.physics.model import load
from dso_robotics.robot.closed_loop_mjx import mujoco_loop
from dso_robotics.robot.estimator import Estimator, Learned
from tests.pendulum import PENDULUM

UPRIGHT = np.pi
SETTINGS = {
    "goal": (UPRIGHT,),
    "task": lambda x, u: (x[0] - UPRIGHT) ** 2 + 0.01 * jnp.sum(u**2),
    "sensor_noise": {"angle": 0.01},
    "action_noise": 0.1,
    "start_spread": 0.05,
    "state_weight": (10.0, 0.1),
    "control_weight": 0.1,
}


def robot(mass: float):
    return load(mujoco.MjSpec.from_string(PENDULUM.format(damping=0.05, frictionloss=0.0, mass=mass)))


def test_the_loop_is_c_mujoco_under_the_runtime_estimator():
    world, model = robot(0.7), robot(1.0)
    loop, theta = mujoco_loop(world, model, **SETTINGS)
    own, gain = loop.parts(jnp.asarray(theta))
    chain, k = loop.filter, np.asarray(gain)
    learned = Learned(
        corrector=chain.corrector,
        weights=np.asarray(own[: chain.corrector.size]),
        scales=chain.scales,
        scale=np.ones(1),
        bias=np.zeros(1),
        delay=np.zeros(1),
        sigma=np.ones(1),
        spread=np.zeros((1, chain.corrector.nf)),
        covariance=None,
        names=("angle",),
        addresses=np.zeros(1, int),
        interval=0.01,
        substeps=1,
    )
    estimator, data, rng = Estimator(robot(1.0).mj, learned), mujoco.MjData(world.mj), np.random.default_rng(0)
    belief = estimator.reset(qpos=[UPRIGHT])
    state = jax.jit(lambda key: loop.initial(key, jnp.asarray(theta)))(jax.random.key(0))
    data.qpos[:], data.qvel[:] = np.asarray(state.state[:1]), np.asarray(state.state[1:])
    off = abs(data.qpos[0] - UPRIGHT)
    move = jax.jit(lambda noise, state: loop.move(noise, state, jnp.asarray(theta)))
    for _ in range(60):
        noise = rng.normal(size=4)
        ctrl = -k @ (np.concatenate([belief.qpos, belief.qvel]) - [UPRIGHT, 0.0])
        np.testing.assert_allclose(state.ctrl, ctrl, atol=1e-9)
        data.ctrl[:] = ctrl + 0.1 * noise[0]
        mujoco.mj_step(world.mj, data)
        belief = estimator.update(ctrl, [data.qpos[0] + 0.01 * noise[-1]])
        state = move(jnp.asarray(noise), state)
        np.testing.assert_allclose(state.state, [data.qpos[0], data.qvel[0]], atol=1e-9)
        np.testing.assert_allclose(state.belief.state, [*belief.qpos, *belief.qvel], atol=1e-9)
    # Upright all the while, though the model is wrong and only a noisy angle is seen.
    assert off > 0
    assert abs(data.qpos[0] - UPRIGHT) < 0.2


def test_free_physics_and_the_policy_are_part_of_theta():
    loop, theta = mujoco_loop(
        robot(0.7), robot(1.0), free=[parse("body/pole/mass")], trains_policy=True, corrector="mlp", units=2, **SETTINGS
    )
    assert theta.shape == (loop.size,)
    _, gain = loop.parts(jnp.asarray(theta))
    np.testing.assert_allclose(gain, loop.gain)
    own = loop.filter.split(jnp.asarray(theta[: loop.filter.size]))
    assert own[1].shape == (1,)
    mass = jax.jit(lambda parameters: loop.filter.system.prepare(parameters)[0].body_mass)(own[1])
    np.testing.assert_allclose(mass[1], 1.0, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"sensor_noise": {"angel": 0.1}}, "no sensor channel 'angel'.*'angle'"),
        ({"goal": (0.0, 1.0)}, "qpos of .* has 1"),
    ],
)
def test_bad_input_is_refused(change, text):
    with pytest.raises(DsoError, match=text):
        mujoco_loop(robot(0.7), robot(1.0), **(SETTINGS | change))


def test_models_of_two_robots_are_refused():
    other = robot(0.7)
    other.mj.opt.timestep = 0.005
    with pytest.raises(DsoError, match="one robot's"):
        mujoco_loop(other, robot(1.0), **SETTINGS)
