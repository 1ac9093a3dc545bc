"""The tangent space against MuJoCo's own integration and difference, for every kind of joint and both array libraries."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from dso_robotics.robot.estimator_space import Space

JOINTS = """
<mujoco><compiler angle="radian"/><worldbody>
  <body><freejoint/><geom size="0.1"/></body>
  <body><joint type="slide" range="-1 1" limited="true"/><geom size="0.1"/>
    <body><joint type="ball" range="0 0.5" limited="true"/><geom size="0.1"/>
      <body><joint type="hinge" axis="0 1 0"/><geom size="0.1"/></body></body></body>
</worldbody></mujoco>
"""


def state_of(model, rng):
    data = mujoco.MjData(model)
    data.qpos[:] = rng.normal(size=model.nq) * 0.3
    mujoco.mj_normalizeQuat(model, data.qpos)
    data.qpos[8:12] = [1, 0, 0, 0]
    return np.concatenate([data.qpos, rng.normal(size=model.nv)])


def test_moving_is_mujocos_integration_and_difference_undoes_it():
    model = mujoco.MjModel.from_xml_string(JOINTS)
    space, rng = Space(model), np.random.default_rng(0)
    for size in (1e-9, 1e-3, 0.1):
        state, change = state_of(model, rng), size * rng.normal(size=space.size)
        expected = state[: model.nq].copy()
        mujoco.mj_integratePos(model, expected, change[: model.nv].copy(), 1.0)
        moved = space.move(state, change)
        np.testing.assert_allclose(moved[: model.nq], expected, atol=1e-14)
        np.testing.assert_allclose(space.difference(state, moved), change, atol=1e-13)
        np.testing.assert_allclose(space.move(jnp.asarray(state), jnp.asarray(change)), moved, atol=1e-14)
    # Leading axes broadcast: many changes of one state.
    many = rng.normal(size=(4, 1, space.size)) * 0.1
    together = space.move(np.tile(state, (1, 3, 1)), many)
    assert together.shape == (4, 3, space.width)
    np.testing.assert_allclose(together[2, 1], space.move(state, many[2, 0]))


def test_the_derivative_at_no_change_is_exact():
    model = mujoco.MjModel.from_xml_string(JOINTS)
    space, rng = Space(model), np.random.default_rng(1)
    state = state_of(model, rng)
    jacobian = jax.jacfwd(lambda d: space.difference(jnp.asarray(state), space.move(jnp.asarray(state), d)))(
        jnp.zeros(space.size)
    )
    np.testing.assert_allclose(jacobian, np.eye(space.size), atol=1e-12)


def test_a_correction_stops_at_a_joint_limit_but_never_pulls_a_prediction_back():
    model = mujoco.MjModel.from_xml_string(JOINTS)
    space, rng = Space(model), np.random.default_rng(2)
    state, change = state_of(model, rng), np.zeros(space.size)
    state[7], change[6] = 0.9, 0.5
    assert space.move(state, change)[7] == 1.0
    state[7], change[6] = 1.1, 0.5
    assert space.move(state, change)[7] == 1.1
    change[6] = -0.5
    np.testing.assert_allclose(space.move(state, change)[7], 0.6)
    # The ball joint: turned 0.8 rad about x, held at 0.5.
    change[7:10] = [0.8, 0, 0]
    turned = space.move(state, change)[8:12]
    np.testing.assert_allclose(turned, [np.cos(0.25), np.sin(0.25), 0, 0], atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(turned), 1.0)
    # The unlimited hinge goes where it is told, and its features do not see whole turns.
    change[10] = 2 * np.pi
    one = np.ones(space.width)
    np.testing.assert_allclose(
        space.features(space.move(state, change), 0 * one, one)[-10:-8],
        space.features(state, 0 * one, one)[-10:-8],
        atol=1e-12,
    )
    assert np.abs(space.features(1e3 * state, 0 * one, one)[: space.features_size - 8]).max() <= 1
