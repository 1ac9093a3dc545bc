"""What MJX differentiates wrongly, beside what this package does: every test states both, and C decides."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from physics_oracle import c_step, differences, field_differences, mismatch, start
from physics_scenes import PUCK, scene

from dso_robotics.physics import rotation
from dso_robotics.physics import step as physics
from dso_robotics.physics.backend import constraint, mjx, mjx_math
from dso_robotics.physics.constants import set_constants
from dso_robotics.physics.device import put_model
from dso_robotics.physics.impedance import stiffness_damping_impedance

AXIS = np.array([0.3, -0.2, 0.9])
UNIT = np.array([0.8, 0.36, -0.48, 0.0])


def plain_step(model, state, ctrl):
    qpos, qvel, act = jnp.split(state, [model.nq, model.nq + model.nv])
    data = mjx.make_data(model).replace(qpos=qpos, qvel=qvel, act=act, ctrl=ctrl)
    after = mjx.step(model, data)
    return jnp.concatenate([after.qpos, after.qvel, after.act])


def our_step(model, state, ctrl):
    qpos, qvel, act = jnp.split(state, [model.nq, model.nq + model.nv])
    after = physics.advance(model, physics.make_state(model, qpos, qvel, act), ctrl)
    return jnp.concatenate([after.qpos, after.qvel, after.act])


def c_integrate(quat, omega, dt):
    out = quat.copy()
    mujoco.mju_quatIntegrate(out, omega, dt)
    return out


@jax.jit
def integration(omega, dt):
    """Value, first and second derivative of ours, first derivative of MJX's."""

    def ours(w):
        return rotation.integrate(UNIT, w, dt)

    plain = jax.jacfwd(lambda w: mjx_math.quat_integrate(UNIT, w, dt))(omega)
    return ours(omega), jax.jacfwd(ours)(omega), jax.jacfwd(jax.jacrev(ours))(omega), plain


@pytest.mark.parametrize("speed", [0.0, 1e-9, 1e-3, 1.0, 40.0])
def test_quaternion_integration_has_its_derivative_at_rest(speed):
    omega, dt = speed * AXIS, 0.01
    value, first, second, plain = integration(omega, dt)
    assert mismatch(value, c_integrate(UNIT, omega, dt)) < 1e-12
    assert mismatch(first, differences(lambda w: c_integrate(UNIT, w, dt), omega, 1e-3)) < 1e-8
    assert np.isfinite(second).all()
    if speed == 0:
        assert not np.any(plain), "MJX is repaired"


@jax.jit
def turning(quat):
    """Value and derivative of our quaternion difference, and the derivative of MJX's."""

    def ours(q):
        return rotation.difference(q / jnp.linalg.norm(q), UNIT)

    return ours(quat), jax.jacrev(ours)(quat), jax.jacrev(mjx_math.quat_sub)(quat, UNIT)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-3, 1.0, 3.0, 4.0])
def test_quaternion_difference_has_its_derivative_where_aligned(angle):
    turned = c_integrate(UNIT, angle / np.linalg.norm(AXIS) * AXIS, 1.0)

    def c(quat):
        out = np.zeros(3)
        mujoco.mju_subQuat(out, quat / np.linalg.norm(quat), UNIT)
        return out

    value, derivative, plain = turning(turned)
    want = differences(c, turned, 1e-3)
    assert mismatch(value, c(turned)) < 1e-12
    assert mismatch(derivative, want) < 1e-7
    if angle == 0:
        assert mismatch(plain, want) > 0.5, "MJX is repaired"


@pytest.fixture(scope="module")
def impedances():
    """Our impedance and MJX's, each with its derivative, in (solref, solimp, position)."""
    model = put_model(mujoco.MjModel.from_xml_string(scene(PUCK)))

    def ours(x):
        return jnp.stack(stiffness_damping_impedance(model, x[:2], x[2:7], x[7]))

    def plain(x):
        return jnp.stack(constraint._kbi(model, x[:2], x[2:7], x[7]))

    return jax.jit(lambda x: (ours(x), jax.jacrev(ours)(x), plain(x), jax.jacrev(plain)(x)))


@pytest.mark.parametrize(
    ("solref", "solimp", "position", "plain_fails"),
    [
        ((-1000.0, 0.0), (0.8, 0.95, 0.01, 0.5, 2.0), -0.003, True),
        ((-1000.0, -20.0), (0.8, 0.95, 0.01, 0.5, 2.0), -0.003, False),
        ((0.02, 1.0), (0.8, 0.95, 0.01, 0.5, 3.0), -0.02, True),
        ((0.02, 1.0), (0.8, 0.95, 0.01, 0.4, 1.7), -0.02, True),
        ((0.02, 1.0), (0.8, 0.95, 0.01, 0.4, 1.7), 0.0, False),
        ((0.02, 1.0), (0.8, 0.95, 0.01, 0.4, 1.7), -0.007, False),
        ((0.02, 0.9), (0.8, 0.95, 0.01, 0.5, 1.0), -0.001, False),
    ],
)
def test_impedance_is_finite_and_right(impedances, solref, solimp, position, plain_fails):
    at = np.array([*solref, *solimp, position])
    value, derivative, plain, plain_derivative = map(np.asarray, impedances(at))
    assert mismatch(value, plain) < 1e-12
    assert np.isfinite(derivative).all()
    kinks = {1} if solref[1] == 0 else set()  # solref 0 and power 1 are the ends of their ranges
    kinks |= {6} if solimp[4] == 1 else set()
    smooth = [i for i in range(8) if i not in kinks]
    want = differences(lambda x: np.asarray(impedances(x)[2]), at, 1e-4)
    assert mismatch(derivative[:, smooth], want[:, smooth]) < 1e-6
    assert plain_fails == (not np.isfinite(plain_derivative).all()), "MJX has changed"


GARDEN = """
<mujoco>
  <option timestep="0.004" cone="elliptic" iterations="50" tolerance="0"><flag damper="disable"/></option>
  <worldbody>
    <geom name="floor" type="plane" size="5 5 0.1" friction="0.4 0.01 0.01"/>
    <body pos="0 0 0.28">
      <freejoint/>
      <geom type="capsule" fromto="0 0 -0.2 0 0 0.2" size="0.1" mass="0.5" friction="0.3 0.01 0.01"
            solimp="0.85 0.95 0.01 0.4 1.7"/>
    </body>
    <body pos="1 0 1" gravcomp="0.7">
      <joint name="ball" type="ball" stiffness="0.5"/>
      <inertial pos="0.02 0.01 -0.1" mass="0.3" diaginertia="0.001 0.002 0.0015"/>
    </body>
    <body pos="2 0 1">
      <joint name="rail" type="slide" axis="1 0 0" limited="true" range="0.01 1" solreflimit="-1000 -10"/>
      <inertial pos="0 0 0" mass="0.3" diaginertia="0.001 0.002 0.0015"/>
    </body>
  </worldbody>
  <actuator>
    <general joint="ball" gear="0.1 0.2 0.7" biastype="affine" biasprm="0 -2 -0.1"/>
    <motor joint="rail"/>
  </actuator>
</mujoco>
"""
FIELDS = ("jnt_stiffness", "geom_solref", "geom_solimp", "jnt_solref", "geom_size", "actuator_gear", "actuator_biasprm")


def test_everything_at_rest_and_aligned_has_the_derivative_of_c():
    """A standing capsule deeper than its solimp width, a ball joint at its spring's rest, a limit with direct solref."""
    compiled = mujoco.MjModel.from_xml_string(GARDEN)
    model = put_model(compiled)
    state, ctrl = start(compiled), np.array([0.1, 0.2])

    def run(fields, s, u):
        after = our_step(model.replace(**fields), s, u)
        return after, after

    fields = {name: getattr(model, name) for name in FIELDS}
    (by_field, by_state, by_ctrl), value = jax.jit(jax.jacrev(run, argnums=(0, 1, 2), has_aux=True))(
        fields, state, ctrl
    )
    assert mismatch(value, c_step(compiled, state, ctrl)) < 1e-12
    errors = {
        "state": mismatch(by_state, differences(lambda s: c_step(compiled, s, ctrl), state)),
        "ctrl": mismatch(by_ctrl, differences(lambda u: c_step(compiled, state, u), ctrl)),
    }
    for name in FIELDS:
        want = field_differences(compiled, name, lambda: c_step(compiled, state, ctrl))
        errors[name] = mismatch(np.asarray(by_field[name]).reshape(state.size, -1), want)
    assert {k: v for k, v in errors.items() if v > 1e-6} == {}


def test_plain_mjx_has_no_derivative_at_rest():
    """What `test_solve.py` shows to be right here at the same state."""
    compiled = mujoco.MjModel.from_xml_string(scene(PUCK, cone="elliptic").replace('iterations="50"', 'iterations="1"'))
    model = put_model(compiled)
    derivative = jax.jit(jax.jacfwd(lambda s: plain_step(model, s, jnp.zeros(1))))(jnp.array([0.0, -1e-4, 0, 0]))
    assert not np.isfinite(derivative).all()


def test_plain_mjx_drops_springs_when_dampers_are_disabled():
    """What `test_everything_at_rest_and_aligned` needs: gravity compensation and springs with dampers disabled."""
    compiled = mujoco.MjModel.from_xml_string(GARDEN)
    model, data = put_model(compiled), mujoco.MjData(compiled)
    mujoco.mj_forward(compiled, data)
    assert np.any(data.qfrc_passive)
    assert not np.any(mjx.passive(model, mjx.make_data(model)).qfrc_passive)


def test_plain_mjx_has_no_reverse_mode():
    model = put_model(mujoco.MjModel.from_xml_string(scene(PUCK)))
    with pytest.raises(ValueError, match="while_loop"):
        jax.eval_shape(jax.grad(lambda s: plain_step(model, s, jnp.zeros(1)).sum()), jnp.zeros(4))


def test_world_pose_is_no_parameter():
    model = put_model(mujoco.MjModel.from_xml_string(scene(PUCK)))
    state = jnp.array([0.0, -1e-4, 0.7, -0.05])
    slope = jax.jit(jax.jacfwd(lambda p: our_step(model.replace(body_pos=p), state, jnp.zeros(1))))(model.body_pos)
    assert not np.any(slope[:, 0])
    assert np.any(slope[:, 1])


LEG = """
<mujoco>
  <option timestep="0.005" tolerance="0"/>
  <worldbody><body>
    <joint name="a" axis="0 1 0" ref="10" stiffness="3" springref="20" limited="true" range="-90 16"/>
    <geom size="0.1" pos="0.3 0 0"/>
    <body pos="0.5 0 0"><joint axis="0 1 0.2" type="slide" ref="0.1"/><geom size="0.1" pos="0.3 0 0"/></body>
  </body></worldbody>
</mujoco>
"""


def test_the_reference_configuration_is_a_parameter():
    """Poses, springs and, through the derived constants, the weight of the active limit follow `qpos0`."""
    compiled = mujoco.MjModel.from_xml_string(LEG)
    model, state, ctrl = put_model(compiled), np.concatenate([compiled.qpos0 + 0.12, [0.1, 0.2]]), np.zeros(0)

    def after(qpos0):
        end = our_step(set_constants(model.replace(qpos0=qpos0)), jnp.asarray(state), ctrl)
        return end, end

    slope, value = jax.jit(jax.jacfwd(after, has_aux=True))(model.qpos0)
    assert mismatch(value, c_step(compiled, state, ctrl)) < 1e-12
    want = field_differences(compiled, "qpos0", lambda: c_step(compiled, state, ctrl), reset=True)
    assert mismatch(slope, want) < 1e-6


def test_a_tendon_of_no_length_has_the_value_of_c_and_a_bounded_derivative():
    """Its direction is arbitrary there; normalising a zero vector would give derivatives of 1e6 and more."""
    compiled = mujoco.MjModel.from_xml_string(
        """<mujoco><worldbody><site name="nail"/><body><joint type="slide"/><joint type="slide" axis="1 0 0"/>
        <geom size="0.1"/><site name="end"/></body></worldbody>
        <tendon><spatial stiffness="5" springlength="0.1" damping="1"><site site="nail"/><site site="end"/></spatial>
        </tendon></mujoco>"""
    )
    model, state = put_model(compiled), np.array([0.0, 0.0, 0.1, 0.2])

    def after(x):
        end = our_step(model, x, jnp.zeros(0))
        return end, end

    slope, value = jax.jit(jax.jacfwd(after, has_aux=True))(jnp.asarray(state))
    assert mismatch(value, c_step(compiled, state, np.zeros(0))) < 1e-12
    assert np.abs(slope).max() < 10


def test_fluid_density_is_identifiable_from_zero():
    text = """<mujoco><option timestep="0.005" density="{}"/><worldbody><body><joint axis="0 1 0"/>
      <geom type="box" size="0.1 0.2 0.3" pos="0.3 0 0"/></body></worldbody></mujoco>"""
    model = put_model(mujoco.MjModel.from_xml_string(text.format(0)), fluid=True)
    state = np.array([0.1, 3.0])

    def after(density):
        return our_step(model.replace(opt=model.opt.replace(density=density)), jnp.asarray(state), jnp.zeros(0))

    def c(density):
        return c_step(mujoco.MjModel.from_xml_string(text.format(density)), state, np.zeros(0))

    value, slope = jax.jit(lambda d: (after(d), jax.jacfwd(after)(0.0)))(1.2)
    assert mismatch(value, c(1.2)) < 1e-12
    assert abs(slope[1]) > 1e-6
    assert np.allclose(slope, c(1.0) - c(0.0), rtol=1e-6)  # drag is linear in density
