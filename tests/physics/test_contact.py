"""Contacts of capsules with spheres and capsules: plain MJX puts them a little off, this package where C does."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from physics_oracle import c_step, differences, mismatch

from dso_robotics.physics import step as physics
from dso_robotics.physics.backend import collision_driver, mjx, smooth
from dso_robotics.physics.contact import collide
from dso_robotics.physics.device import put_model
from dso_robotics.physics.impedance import softened

TOUCHING = """
<mujoco>
  <option timestep="0.004" iterations="100" tolerance="0"><flag gravity="disable"/></option>
  <worldbody>
    <body><joint axis="0 1 0"/><joint axis="1 0 0"/><geom type="capsule" size="0.05 0.2" mass="1"/></body>
    <body pos="{place}" euler="{turn}">
      <joint axis="0 1 0"/><joint type="slide" axis="1 0 0"/><geom {other} mass="0.5"/>
    </body>
  </worldbody>
</mujoco>
"""
CAPSULE, SPHERE = 'type="capsule" size="0.04 0.15"', 'type="sphere" size="0.06"'
SCENES = {
    "crossing": ("0.08 0.02 0.05", "70 20 0", CAPSULE),
    "end on side": ("0.22 0.01 0.1", "5 80 0", CAPSULE),
    "end on end": ("0.03 0.02 0.38", "10 30 0", CAPSULE),
    "nearly parallel": ("0.085 0 0.1", "0.3 0.2 0", CAPSULE),
    "sphere on side": ("0.1 0.01 0.1", "0 0 0", SPHERE),
    "sphere on end": ("0.03 0.02 0.3", "0 0 0", SPHERE),
}


def model(name):
    place, turn, other = SCENES[name]
    return mujoco.MjModel.from_xml_string(TOUCHING.format(place=place, turn=turn, other=other))


def placed(compiled, run):
    """Distance, place and frame of the one contact that `run` finds."""
    made = put_model(compiled)
    contact = jax.jit(lambda data: run(made, smooth.kinematics(made, data))._impl.contact)(mjx.make_data(made))
    return np.concatenate([np.ravel(contact.dist), np.ravel(contact.pos), np.ravel(contact.frame)])


@pytest.mark.parametrize("name", SCENES)
def test_the_contact_is_where_c_has_it(name):
    compiled = model(name)
    data = mujoco.MjData(compiled)
    mujoco.mj_forward(compiled, data)
    (contact,) = data.contact
    want = np.concatenate([[contact.dist], contact.pos, contact.frame])
    np.testing.assert_allclose(placed(compiled, collide), want, atol=1e-12)


def test_plain_mjx_misses_it():
    compiled = model("sphere on side")
    data = mujoco.MjData(compiled)
    mujoco.mj_forward(compiled, data)
    plain = placed(compiled, collision_driver.collision)
    assert np.abs(plain[1:4] - data.contact[0].pos).max() > 1e-7


@pytest.mark.parametrize("name", ["crossing", "sphere on end"])
def test_the_step_has_the_derivative_of_c(name):
    compiled = model(name)
    made, nq = put_model(compiled), compiled.nq

    def following(x):
        after = physics.advance(made, physics.make_state(made, x[:nq], x[nq:]), jnp.zeros(0))
        return jnp.concatenate([after.qpos, after.qvel])

    at = np.array([0.01, -0.02, 0.01, -0.005, 0.1, 0.2, -0.1, -0.3])
    end, jacobian = jax.jit(lambda x: (following(x), jax.jacfwd(following)(x)))(at)
    assert mismatch(end, c_step(compiled, at, np.zeros(0))) < 1e-12
    assert mismatch(jacobian, differences(lambda x: c_step(compiled, x, np.zeros(0)), at)) < 1e-6


@pytest.mark.parametrize("solref", ["0.02 0.8", "-3000 -40"])
def test_softened_contacts_are_those_of_a_softer_model(solref):
    text = """
    <mujoco>
      <option timestep="0.002" iterations="100" tolerance="0"/>
      <worldbody>
        <geom type="plane" size="1 1 1" solref="{0}"/>
        <body pos="0 0 0.099"><freejoint/><geom type="sphere" size="0.1" mass="1" solref="{0}"/></body>
      </worldbody>
    </mujoco>
    """
    factor = 2.5
    first, second = map(float, solref.split())
    softer = f"{first * factor} {second}" if first > 0 else f"{first / factor**2} {second / factor}"
    plain, soft = (mujoco.MjModel.from_xml_string(text.format(s)) for s in (solref, softer))
    step = jax.jit(lambda model, state: physics.advance(model, state, jnp.zeros(0)))
    found, state = softened(put_model(plain), factor), physics.make_state(put_model(plain))
    data = mujoco.MjData(soft)
    for _ in range(40):
        state = step(found, state)
        mujoco.mj_step(soft, data)
    np.testing.assert_allclose(state.qpos, data.qpos, atol=1e-9)
    np.testing.assert_allclose(state.qvel, data.qvel, atol=1e-9)
    as_it_is = mujoco.MjData(plain)
    mujoco.mj_step(plain, as_it_is, nstep=40)
    assert abs(as_it_is.qpos[2] - data.qpos[2]) > 1e-5
