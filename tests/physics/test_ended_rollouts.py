"""Rollouts that blow up: flagged where C flags them, finite in value and in every derivative."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from physics_oracle import mismatch

from dso_robotics.physics import step as physics
from dso_robotics.physics.device import put_model
from dso_robotics.physics.rollout import rollout

# A servo whose velocity gain can be far too strong for the time step, on a joint that meets its limit.
SERVO = """
<mujoco>
  <option timestep="0.01" integrator="Euler" iterations="20"/>
  <worldbody>
    <body>
      <joint name="hinge" axis="0 1 0" damping="0.1" limited="true" range="-150 2"/>
      <inertial pos="0.1 0 0.2" mass="0.5" diaginertia="0.01 0.01 0.01"/>
    </body>
  </worldbody>
  <actuator><position joint="hinge" kp="20" kv="1"/></actuator>
</mujoco>
"""
CTRL = 0.3 * np.sin(np.arange(16))[:, None]
GAINS = np.array([1.0, 300.0, 1000.0, 1e308])  # stable; beyond MuJoCo's limit after some steps; a NaN after a few


def sound_steps(gain: float) -> int:
    """How many steps C MuJoCo takes before it warns of a huge or undefined number."""
    model = mujoco.MjModel.from_xml_string(SERVO)
    model.actuator_biasprm[0, 2] = -gain
    data = mujoco.MjData(model)
    for step, row in enumerate(CTRL):
        data.ctrl[:] = row
        mujoco.mj_step(model, data)
        if any(data.warning[int(kind)].number for kind in BAD):
            return step
    return len(CTRL)


BAD = (mujoco.mjtWarning.mjWARN_BADQPOS, mujoco.mjtWarning.mjWARN_BADQVEL, mujoco.mjtWarning.mjWARN_BADQACC)


@pytest.fixture(scope="module")
def model():
    return put_model(mujoco.MjModel.from_xml_string(SERVO))


def with_gain(model, gain):
    return model.replace(actuator_biasprm=model.actuator_biasprm.at[0, 2].set(-gain))


def size(state):
    return jnp.sum(state.qpos**2) + 1e-2 * jnp.sum(state.qvel**2)


@pytest.fixture(scope="module")
def found(model):
    """For each gain: the rollout, its value, the derivative by gain and control in reverse mode, and by gain in forward."""

    def value(gain, ctrl):
        out = rollout(with_gain(model, gain), physics.make_state(model), ctrl)
        return jnp.sum(jnp.where(out.alive, jax.vmap(size)(out.states), 0.0)), out

    def every(gain):
        reverse = jax.grad(value, argnums=(0, 1), has_aux=True)
        (by_gain, by_ctrl), out = reverse(gain, CTRL)
        total, forward = jax.jvp(lambda g: value(g, CTRL)[0], (gain,), (1.0,))
        return out, total, by_gain, by_ctrl, forward

    return jax.jit(jax.vmap(every))(GAINS)


@pytest.mark.filterwarnings("ignore")
def test_it_ends_where_c_diverges(found):
    out = found[0]
    steps = [sound_steps(gain) for gain in GAINS]
    assert len(set(steps)) == len(GAINS)
    assert out.steps.tolist() == steps
    assert out.ended.tolist() == [False, True, True, True]


def test_value_and_every_derivative_are_finite(found):
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
    last = found[0].states.qpos[1:, -1]
    assert np.array_equal(last, np.stack([found[0].states.qpos[i, n] for i, n in enumerate(found[0].steps)][1:]))


def test_value_and_derivative_are_those_of_the_truncated_rollout(model, found):
    which = 1
    steps = int(found[0].steps[which])

    def value(gain, ctrl):
        def body(state, row):
            following, _ = physics._plain(with_gain(model, gain), state, row, None)  # no guard against divergence
            return following, size(following)

        return jax.lax.scan(body, physics.make_state(model), ctrl[:steps])[1].sum()

    total, (by_gain, by_ctrl) = jax.jit(jax.value_and_grad(value, argnums=(0, 1)))(GAINS[which], CTRL)
    assert total > 1e3, "nothing blew up"
    assert mismatch(found[1][which], total) < 1e-9
    assert mismatch(found[2][which], by_gain) < 1e-9
    assert mismatch(found[3][which], by_ctrl) < 1e-9
    assert mismatch(found[4][which], by_gain) < 1e-9


def test_without_the_guard_the_gradient_is_nan(model):
    """Selecting the last sound state is not enough: this is what `guarded` is for."""

    def value(gain):
        def body(state, row):
            following, _ = physics._plain(with_gain(model, gain), state, row, None)
            sound = jnp.all(jnp.abs(following.qvel) <= mujoco.mjMAXVAL)
            state = jax.tree.map(lambda new, old: jnp.where(sound, new, old), following, state)
            return state, size(state)

        return jax.lax.scan(body, physics.make_state(model), CTRL[:4])[1].sum()

    total, slope = jax.jit(jax.value_and_grad(value))(GAINS[-1])
    assert np.isfinite(total)
    assert np.isnan(slope)


def test_a_start_that_has_diverged_is_never_alive(model):
    start = physics.make_state(model, qvel=jnp.array([np.nan]))
    out = jax.jit(lambda s: rollout(model, s, CTRL))(start)
    assert bool(out.ended)
    assert not out.alive.any()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(out))
